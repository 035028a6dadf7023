//! How often a watch alarms without drift, and how soon with it.
//!
//! ```sh
//! cargo run --release -p monitor --example false_alarms
//! ```
//!
//! Each week has a profile of its own, of a sample of the same distributions that the week draws
//! from, so that what chance does to profiles is in the figures. Weeks have 30 features: normal,
//! log-normal, whole numbers, texts, with gaps, and of few values. A week's rows come evenly.
#![allow(missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use model::{DataType, Dimension, Observation, Outcome, Signature, Tensor, TensorSpec};
use monitor::drift::watch::{Settings, Status, Watch};
use monitor::profile::{Builder, Input, Matched, Profile, Value};

const FEATURES: usize = 30;

fn main() {
    let arguments: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let weeks = arguments.first().copied().unwrap_or(1000);
    let shifts = arguments.get(1).copied().unwrap_or(400);
    for (profiled, rows) in [(1000, 2_000), (5_000, 20_000), (100_000, 50_000)] {
        let started = Instant::now();
        let alarms = (0..weeks as u64).filter(|seed| week(*seed, profiled, rows)).count();
        let nanos = started.elapsed().as_nanos() as f64 / (weeks * rows) as f64;
        println!(
            "{weeks} weeks without drift, {rows} rows, profiles of {profiled}: {alarms} with any \
             alarm ({:.2} %); {nanos:.0} ns a row, its making included",
            100.0 * alarms as f64 / weeks as f64
        );
    }
    for (profiled, before) in [(1000, 5_000), (5_000, 20_000), (100_000, 100_000)] {
        let mut delays: Vec<Option<usize>> =
            (0..shifts as u64).map(|seed| delay(seed, profiled, before)).collect();
        delays.sort_by_key(|delay| delay.unwrap_or(usize::MAX));
        let caught = delays.iter().flatten().filter(|delay| **delay <= 2000).count();
        let median = delays[delays.len() / 2].map_or("never".into(), |delay| delay.to_string());
        println!(
            "{shifts} shifts of half a deviation in one feature after {before} rows, profiles of \
             {profiled}: {:.1} % caught within 2,000 rows, median {median}",
            100.0 * caught as f64 / shifts as f64
        );
    }
    cost();
}

fn normal(random: &mut fastrand::Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

/// A value of a feature; `shift` in deviations.
fn draw(random: &mut fastrand::Rng, feature: usize, shift: f64) -> f32 {
    let value = match feature % 6 {
        0 => normal(random) + shift,
        1 => (normal(random) + shift).exp(),
        2 => f64::from(random.u32(0..200)),
        3 if random.f64() < 0.1 => f64::NAN,
        3 => random.f64() * 7.0,
        4 => f64::from(u8::from(random.f64() < 0.03)),
        _ => f64::from(random.u32(0..4) * random.u32(0..4)),
    };
    value as f32
}

fn row(random: &mut fastrand::Rng, shift: f64) -> Vec<f32> {
    (0..FEATURES).map(|i| draw(random, i, if i == 0 { shift } else { 0.0 })).collect()
}

fn profile(random: &mut fastrand::Rng, rows: usize) -> Profile {
    let names: Vec<String> = (0..FEATURES).map(|i| format!("f{i}")).collect();
    let mut builder = Builder::new(names.clone());
    for _ in 0..rows {
        builder.row(row(random, 0.0).into_iter().map(|x| Value::Number(x.into())));
    }
    let mut profile = builder.finish();
    let inputs = vec![Input { name: "x".into(), columns: names }];
    profile.matched = Some(Matched { inputs, ..Matched::default() });
    profile
}

fn signature() -> Arc<Signature> {
    let shape = vec![Dimension::Any, Dimension::Fixed(FEATURES)];
    let inputs = vec![TensorSpec::new("x", DataType::Fp32, shape)];
    Arc::new(Signature { inputs, outputs: Vec::new(), batched: true })
}

fn observation(signature: &Arc<Signature>, row: Vec<f32>, at: SystemTime) -> Observation {
    let tensor = Tensor::new(vec![1, FEATURES], row).expect("as many as there are features");
    Observation {
        model: "m".into(),
        version: "1".into(),
        signature: signature.clone(),
        id: None,
        key: None,
        at,
        queue: Duration::ZERO,
        compute: Duration::ZERO,
        batch_size: 1,
        outcome: Outcome::Answered,
        inputs: Arc::new([Some(tensor)]),
        outputs: Arc::new([]),
        shadow: None,
    }
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

/// Whether a week without drift has an alarm.
fn week(seed: u64, profiled: usize, rows: usize) -> bool {
    let mut random = fastrand::Rng::with_seed(seed);
    let signature = signature();
    let profile = sampled(&mut random, profiled);
    let mut watch = Watch::new(&signature, Some(&profile), Settings::default());
    let apart = Duration::from_secs(7 * 24 * 3600) / rows as u32;
    for i in 0..rows {
        let at = start() + apart * i as u32;
        watch.observe(&observation(&signature, row(&mut random, 0.0), at));
        if watch.has_drifted() {
            return true;
        }
    }
    false
}

/// Large profiles take long to make and differ little: a few are made once.
fn sampled(random: &mut fastrand::Rng, rows: usize) -> Profile {
    static LARGE: std::sync::OnceLock<Vec<Profile>> = std::sync::OnceLock::new();
    if rows < 50_000 {
        return profile(random, rows);
    }
    let make = || (0..8).map(|i| profile(&mut fastrand::Rng::with_seed(900 + i), rows)).collect();
    let all: &Vec<Profile> = LARGE.get_or_init(make);
    all[random.usize(..all.len())].clone()
}

/// After how many rows a shift in one feature is found; nothing if it is not within 10,000, and 0 if
/// there was an alarm before.
fn delay(seed: u64, profiled: usize, before: usize) -> Option<usize> {
    let mut random = fastrand::Rng::with_seed(seed + 1_000_000);
    let signature = signature();
    let profile = sampled(&mut random, profiled);
    let mut watch = Watch::new(&signature, Some(&profile), Settings::default());
    let apart = Duration::from_secs(7 * 24 * 3600) / (before as u32 * 2);
    for i in 0..before + 10_000 {
        let shift = if i < before { 0.0 } else { 0.5 };
        let at = start() + apart * i as u32;
        watch.observe(&observation(&signature, row(&mut random, shift), at));
        if watch.has_drifted() {
            let report = watch.report(0);
            let right = report.features[0].feature == "f0"
                && report.features[0].status == Status::Drifted
                && i >= before;
            return right.then_some(i - before);
        }
    }
    None
}

/// What a look at a row takes, and a feature's memory.
fn cost() {
    let mut random = fastrand::Rng::with_seed(7);
    let signature = signature();
    let profile = profile(&mut random, 10_000);
    let mut watch = Watch::new(&signature, Some(&profile), Settings::default());
    let rows: Vec<Observation> = (0..20_000)
        .map(|i| {
            let at = start() + Duration::from_micros(200) * i;
            observation(&signature, row(&mut random, 0.0), at)
        })
        .collect();
    // Of the processor's time: the machine may have more to do.
    let started = processor();
    for _ in 0..20 {
        rows.iter().for_each(|row| watch.observe(row));
    }
    let nanos = (processor() - started) / (20 * rows.len()) as f64;
    let kept = watch.keep().map_or(0, |kept| kept.len()) / FEATURES;
    println!(
        "a look at a row of {FEATURES} features: {nanos:.0} ns; kept state: {kept} bytes a feature"
    );
}

/// Nanoseconds that this process has run; those of the clock where the system does not say.
fn processor() -> f64 {
    let said = std::fs::read_to_string("/proc/self/schedstat").ok();
    let ran = said.and_then(|text| text.split(' ').next()?.parse().ok());
    ran.unwrap_or_else(|| start().elapsed().map_or(0.0, |time| time.as_nanos() as f64))
}
