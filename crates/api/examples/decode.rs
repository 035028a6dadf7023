//! What reading a tensor from JSON takes, against what the engine takes to run it.
//!
//! `decode MODEL [--seconds S]` makes a request of one row for the model's only input, as
//! Python's `json` would write it, and times in turns, in one thread, the reading of its numbers,
//! the same bytes taken as binary data, and the model's run. Prints one line of JSON: the fastest
//! tenth's upper end of each in microseconds, and the ratios.

#![allow(dead_code, unused_imports)]

#[path = "../src/rest/json/mod.rs"]
mod json;
#[path = "../src/refusals.rs"]
mod refusals;

use std::fmt::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use json::{NonFinite, Reader, read_array};
use model::{Data, DataType, InstanceSettings, Tensor};
use runtime::Engines;
use runtime::onnxruntime::{Search, Surroundings};

/// Numbers of 1 to 4 decimals, as scaled pixels have, or with all their digits.
fn body(count: usize, decimals: Option<usize>) -> Bytes {
    let mut text = String::from("[");
    for i in 0..count {
        let separator = if i == 0 { "" } else { ", " };
        let value = (i * 37 % 255) as f64 / 255.0;
        let value = decimals.map_or(f64::from(value as f32), |decimals| {
            format!("{value:.decimals$}").parse().expect("it was just written")
        });
        write!(text, "{separator}{value:?}").expect("a string takes everything");
    }
    text.push(']');
    text.into()
}

fn read(body: &Bytes, count: usize) -> Data {
    let mut reader = Reader::new(body, NonFinite::Refused);
    let array = read_array(&mut reader, body, DataType::Fp32, Some(count));
    array.map_err(|error| error.to_string()).expect("it is an array of numbers").data
}

fn tenth(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 10].as_secs_f64() * 1e6
}

#[allow(clippy::disallowed_methods)] // It is a program: it may read the environment.
fn main() -> Result<(), String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let path = words.first().ok_or("which model?")?;
    let seconds = match words.get(1..) {
        Some([flag, value]) if flag == "--seconds" => value.parse().map_err(|_| "not a number")?,
        _ => 3.0,
    };
    let package = import::open(path.as_ref()).map_err(|error| error.to_string())?;
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .collect();
    let surroundings = Surroundings { variables, executable: std::env::current_exe().ok() };
    let engines = Engines::discover(&Search::around(&surroundings));
    let loaded = engines.load(&package, &InstanceSettings::default());
    let loaded = loaded.map_err(|error| error.to_string())?;
    let example = runtime::example_inputs(loaded.signature(), 1);
    let [input] = &example[..] else { return Err("the model has more than one input".into()) };
    let count = input.len();
    let (short, long) = (body(count, Some(4)), body(count, None));
    let binary = Bytes::copy_from_slice(input.data().as_bytes().ok_or("numbers are needed")?);
    let mut times = [const { Vec::new() }; 4];
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < end {
        let start = Instant::now();
        let read_short = read(&short, count);
        times[0].push(start.elapsed());
        let start = Instant::now();
        std::hint::black_box(read(&long, count));
        times[1].push(start.elapsed());
        let start = Instant::now();
        std::hint::black_box(Data::from_bytes(input.datatype(), binary.clone()));
        times[2].push(start.elapsed());
        let tensor = Tensor::new(input.shape().to_vec(), read_short).map_err(|e| e.to_string())?;
        let start = Instant::now();
        std::hint::black_box(loaded.run(&[Some(&tensor)]).map_err(|error| error.to_string())?);
        times[3].push(start.elapsed());
    }
    let [short, long, binary, run] = times.map(tenth);
    println!(
        "{{\"engine\": \"{}\", \"numbers\": {count}, \"json_us\": {short:.1}, \
         \"json_all_digits_us\": {long:.1}, \"binary_us\": {binary:.2}, \"run_us\": {run:.1}, \
         \"json_share\": {:.4}, \"json_all_digits_share\": {:.4}, \"binary_share\": {:.5}}}",
        loaded.engine(),
        short / run,
        long / run,
        binary / run,
    );
    Ok(())
}
