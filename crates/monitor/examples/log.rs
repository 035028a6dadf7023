//! What the prediction log costs: so many rows a second of 30 features, for so long.
//!
//! ```sh
//! cargo run --release -p monitor --example log -- FOLDER 20000 20
//! ```
//!
//! Prints one line of JSON: the time that it takes a watcher to see a prediction, the CPU time of
//! the log's threads for each row, memory, and what was lost.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use model::{DataType, Dimension, Observation, Outcome, Signature, Tensor, TensorSpec};
use monitor::log::{Log, Options, Store};
use object_store::local::LocalFileSystem;
use object_store::path::Path;

const FEATURES: usize = 30;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = arguments.first().cloned().unwrap_or_else(|| "log".to_owned());
    let number = |place: usize, default: u64| {
        arguments.get(place).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (rate, seconds) = (number(1, 20_000), number(2, 20));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let store = LocalFileSystem::new_with_prefix(&folder).expect("it is there").with_fsync(true);
    let store = Store::new(Arc::new(store), Path::default(), Some(folder.into()));
    let log = Log::start(store, Options::default(), || ()).expect("it can be written to");
    let watcher = log.watcher();

    let predictions = predictions();
    let (mut sent, mut watching) = (0, Duration::ZERO);
    let before = process();
    let begin = Instant::now();
    let mut late = Duration::ZERO;
    while begin.elapsed() < Duration::from_secs(seconds) {
        // As the watching thread does: what has come in 20 ms, in one go.
        let due = begin.elapsed().as_micros() as u64 * rate / 1_000_000;
        let now = SystemTime::now();
        let batch: Vec<Observation> = (sent..due)
            .map(|number| {
                let mut one = predictions[number as usize % predictions.len()].clone();
                one.at = now;
                one.id = Some(format!("{number:016x}").into());
                one
            })
            .collect();
        sent = due;
        let start = Instant::now();
        batch.iter().for_each(|one| watcher.observe(one));
        watching += start.elapsed();
        late = late.max(start.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = begin.elapsed();
    let counts = log.finish(Duration::from_secs(60));
    let after = process();
    let rows = counts.rows.max(1) as f64;
    println!(
        "{}",
        serde_json::json!({
            "rows": counts.rows,
            "rows_per_second": rows / took.as_secs_f64(),
            "watcher_us_per_row": watching.as_secs_f64() * 1e6 / sent.max(1) as f64,
            "longest_batch_ms": late.as_secs_f64() * 1e3,
            "cpu_us_per_row": (after.0 - before.0) * 1e6 / rows,
            "peak_mb_before": before.1,
            "peak_mb": after.1,
            "bytes_per_row": counts.bytes as f64 / rows,
            "files": counts.files,
            "dropped": counts.dropped,
            "lost_rows": counts.lost_rows,
            "finish_ms": (begin.elapsed() - took).as_secs_f64() * 1e3,
        })
    );
}

/// Predictions of one row each, with other numbers in each.
fn predictions() -> Vec<Observation> {
    let spec = |name: &str, width| {
        TensorSpec::new(name, DataType::Fp32, vec![Dimension::Any, Dimension::Fixed(width)])
    };
    let signature = Arc::new(Signature {
        inputs: vec![spec("x", FEATURES)],
        outputs: vec![spec("score", 1)],
        batched: true,
    });
    let mut random = fastrand::Rng::with_seed(7);
    (0..10_000)
        .map(|_| {
            let features: Vec<f32> = (0..FEATURES).map(|_| random.f32() * 100.0).collect();
            let score = vec![features[0] / 100.0];
            Observation {
                model: "tab".into(),
                version: "1".into(),
                signature: signature.clone(),
                id: None,
                key: None,
                at: SystemTime::now(),
                queue: Duration::from_micros(random.u64(0..50)),
                compute: Duration::from_micros(random.u64(10..100)),
                batch_size: 1,
                outcome: Outcome::Answered,
                inputs: Arc::new([Some(Tensor::new(vec![1, FEATURES], features).expect("fits"))]),
                outputs: Arc::new([Tensor::new(vec![1, 1], score).expect("fits")]),
                shadow: None,
            }
        })
        .collect()
}

/// The CPU time of this process in seconds, and the most memory that it had, in MB. Zeros where
/// there is no `/proc`.
fn process() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The 14th and 15th field; the second is in brackets and may hold spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |place: usize| fields.get(place).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().split(' ').next()?.parse::<f64>().ok());
    ((ticks(12) + ticks(13)) / 100.0, peak.unwrap_or(0.0) / 1024.0)
}
