//! What an engine takes for a model when nothing is around it: the floor that `bench/` compares
//! servers with.
//!
//! `floor MODEL [--engine NAME] [--rows N] [--threads N] [--callers N] [--seconds S]` prints one
//! line of JSON: microseconds of wall-clock time (median and 99th percentile of a run) and of
//! processor time (a run's mean), and the resident memory in KiB.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use model::{Data, DataType, Dimension, InstanceSettings, Tensor};
use runtime::onnxruntime::{Search, Surroundings};
use runtime::{Engines, Loaded};

struct Options {
    model: String,
    settings: InstanceSettings,
    rows: usize,
    callers: usize,
    seconds: f64,
}

fn parse() -> Result<Options, String> {
    let mut options = Options {
        model: String::new(),
        settings: InstanceSettings::default(),
        rows: 1,
        callers: 1,
        seconds: 2.0,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let number = |text: String| text.parse::<usize>().map_err(|error| error.to_string());
        match word.as_str() {
            "--engine" => options.settings.engine = Some(value()?),
            "--rows" => options.rows = number(value()?)?,
            "--threads" => options.settings.threads = Some(number(value()?)?),
            "--callers" => options.callers = number(value()?)?,
            "--seconds" => options.seconds = value()?.parse().map_err(|_| "not a number")?,
            _ => options.model = word,
        }
    }
    options.settings.instances = Some(options.callers);
    Ok(options)
}

/// Inputs of small numbers that fit the model.
fn inputs(loaded: &Loaded, rows: usize) -> Vec<Tensor> {
    let signature = loaded.signature();
    let example = |spec: &model::TensorSpec| {
        let extent = |(i, dim): (usize, &Dimension)| match dim {
            _ if i == 0 && signature.batched => rows,
            Dimension::Fixed(n) => *n,
            _ => 1,
        };
        let shape: Vec<usize> = spec.shape.iter().flatten().enumerate().map(extent).collect();
        let count = shape.iter().product();
        let data: Data = match spec.datatype {
            DataType::Fp32 => (0..count).map(|i| (i % 17) as f32 * 0.25).collect::<Vec<_>>().into(),
            DataType::Int64 => (0..count).map(|i| (i % 97) as i64).collect::<Vec<_>>().into(),
            other => Data::from_bytes(other, vec![0; count * other.size().unwrap_or(0)].into())
                .expect("zeros are valid"),
        };
        Tensor::new(shape, data).expect("made for the shape")
    };
    signature.inputs.iter().map(example).collect()
}

/// Processor time of this process so far, and its resident memory in KiB.
fn usage() -> (Duration, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may hold anything: utime and stime are the 14th and 15th fields.
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let ticks = fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0);
    (Duration::from_millis(ticks * 10), fields.get(21).unwrap_or(&0) * 4)
}

#[allow(clippy::disallowed_methods)] // It is a program: it may read the environment.
fn main() -> Result<(), String> {
    let options = parse()?;
    let package = import::open(options.model.as_ref()).map_err(|error| error.to_string())?;
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .collect();
    let surroundings = Surroundings { variables, executable: std::env::current_exe().ok() };
    let engines = Engines::discover(&Search::around(&surroundings));
    let loaded = engines.load(&package, &options.settings).map_err(|error| error.to_string())?;
    let tensors = inputs(&loaded, options.rows);
    let given: Vec<Option<&Tensor>> = tensors.iter().map(Some).collect();
    for _ in 0..20 {
        loaded.run(&given).map_err(|error| error.to_string())?;
    }
    let times = Mutex::new(Vec::new());
    let (before, _) = usage();
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    std::thread::scope(|scope| {
        for _ in 0..options.callers {
            scope.spawn(|| {
                let mut own = Vec::new();
                while Instant::now() < end {
                    let start = Instant::now();
                    loaded.run(&given).expect("it ran before");
                    own.push(start.elapsed());
                }
                times.lock().expect("no caller panicked").extend(own);
            });
        }
    });
    let (after, memory) = usage();
    let mut times = times.into_inner().expect("no caller panicked");
    times.sort();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!(
        "{{\"engine\": \"{}\", \"rows\": {}, \"runs\": {}, \"p50_us\": {:.1}, \"p99_us\": {:.1}, \
         \"cpu_us\": {:.1}, \"rss_kib\": {memory}}}",
        loaded.engine(),
        options.rows,
        times.len(),
        micros(times[times.len() / 2]),
        micros(times[times.len() * 99 / 100]),
        micros(after - before) / times.len() as f64,
    );
    Ok(())
}
