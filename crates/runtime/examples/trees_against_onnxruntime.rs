//! Measures the tree kernels against ONNX Runtime: in turn, in one process, on one thread each.
//!
//! ```text
//! cargo run --release -p runtime --example trees_against_onnxruntime -- \
//!     --onnxruntime libonnxruntime.so.1.32.0 tab.onnx cancer_rf.onnx lightgbm_1000.onnx
//! ```
//!
//! Each model is one whose first node is a
//! `TreeEnsembleClassifier` or `TreeEnsembleRegressor` of single precision. Rows are drawn around
//! the model's own thresholds, so that they spread over its leaves. The times are the least of
//! several rounds. Both engines are asked through their sessions, as a server asks them; the times
//! of the layouts, each pinned, are those of the kernel alone.

use std::error::Error;
use std::time::{Duration, Instant};

use model::onnx::{AttributeProto, NodeProto};
use model::{Program, Tensor};
use runtime::kernels::Rows;
use runtime::kernels::post::PostTransform;
use runtime::kernels::trees::onnx::NodeArrays;
use runtime::kernels::trees::{Aggregate, Classifier, Comparison, Ensemble, Layout, Regressor};
use runtime::native::Native;
use runtime::onnxruntime::{OnnxRuntime, Search};
use runtime::{Engine, LoadOptions};

const BATCHES: [usize; 3] = [1, 32, 1024];
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(60);

fn main() -> Result<(), Box<dyn Error>> {
    let mut models = Vec::new();
    let mut arguments = std::env::args().skip(1);
    let mut library = None;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--onnxruntime" => library = arguments.next(),
            _ => models.push(argument),
        }
    }
    let library = library.ok_or("name the library: --onnxruntime PATH")?;
    let onnxruntime = OnnxRuntime::discover(&Search::only(library))?;
    for path in models {
        compare(&onnxruntime, &path)?;
    }
    Ok(())
}

/// The kernel alone: a classifier or a regressor.
#[derive(Clone)]
enum Kernel {
    Classifier(Classifier<f32>),
    Regressor(Regressor<f32>),
}

impl Kernel {
    fn run(&self, rows: &[f32], width: usize, classes: &mut [usize], scores: &mut [f32]) {
        let rows = Rows::new(rows, width).expect("whole rows");
        match self {
            Self::Classifier(trees) => trees.run(rows, 1, classes, scores),
            Self::Regressor(trees) => trees.run(rows, 1, scores),
        }
        .expect("answers");
    }

    fn pinned(&self, layout: Layout) -> Self {
        let mut kernel = self.clone();
        match &mut kernel {
            Self::Classifier(model) => model.trees.pin(layout),
            Self::Regressor(model) => model.trees.pin(layout),
        }
        kernel
    }

    fn describe(&self) -> String {
        match self {
            Self::Classifier(model) => model.trees.describe(),
            Self::Regressor(model) => model.trees.describe(),
        }
    }
}

fn compare(onnxruntime: &OnnxRuntime, path: &str) -> Result<(), Box<dyn Error>> {
    let package = import::open(path.as_ref())?;
    let Program::Onnx(model) = &package.program;
    let node = model.graph.as_ref().and_then(|graph| graph.node.first()).ok_or("no node")?;
    let (ensemble, base, post) = read(node)?;
    let kernel = match node.op_type.as_str() {
        "TreeEnsembleClassifier" => Kernel::Classifier(Classifier::new(&ensemble, &base, post)?),
        _ => Kernel::Regressor(Regressor::new(&ensemble, &base, post)?),
    };
    let options = LoadOptions::default();
    let ours = Native::default().load(&package, &options)?;
    let theirs = onnxruntime.load(&package, &options)?;
    // A model says how many columns it has; the trees may not look at the last ones.
    let columns = package.manifest.signature.inputs[0].extents().get(1).copied();
    let used = ensemble.branches.iter().map(|b| b.feature as usize + 1).max().unwrap_or(1);
    let width = columns.and_then(|columns| usize::try_from(columns).ok()).unwrap_or(used);
    let rows = draw_rows(&ensemble, width, 4096);
    println!("{path}: {}", kernel.describe());

    for batch in BATCHES {
        let batches: Vec<&[f32]> = rows.chunks_exact(batch * width).collect();
        let tensors: Vec<Tensor> = batches
            .iter()
            .map(|rows| Tensor::new(vec![batch, width], rows.to_vec()))
            .collect::<Result<_, _>>()?;
        let mut difference = 0.0f32;
        for tensor in &tensors {
            let (own, wanted) = (ours.run(&[Some(tensor)])?, theirs.run(&[Some(tensor)])?);
            let scores = |outputs: &[Tensor]| -> Option<Vec<f32>> {
                Some(outputs.last()?.as_slice::<f32>()?.to_vec())
            };
            let own = scores(&own).ok_or("no scores")?;
            for (own, wanted) in own.iter().zip(scores(&wanted).ok_or("no scores")?) {
                difference = difference.max((own - wanted).abs() / wanted.abs().max(1.0));
            }
        }
        let layouts = [Layout::Plain, Layout::Descent, Layout::LeafBits];
        let pinned = layouts.map(|layout| kernel.pinned(layout));
        let (mut classes, mut scores) = (vec![0; batch], vec![0.0f32; batch * ensemble.targets]);
        let mut times = [f64::MAX; 5];
        for _ in 0..ROUNDS {
            for (time, session) in times.iter_mut().zip([&theirs, &ours]) {
                *time = time.min(measure(&tensors, |tensor| {
                    session.run(&[Some(tensor)]).expect("an answer");
                }));
            }
            for (time, kernel) in times[2..].iter_mut().zip(&pinned) {
                *time = time.min(measure(&batches, |rows| {
                    kernel.run(rows, width, &mut classes, &mut scores);
                }));
            }
        }
        let row = |time: f64| time / batch as f64 * 1e6;
        println!(
            "  batch {batch:>4}: ONNX Runtime {:8.3} us/row, ours {:7.3} us/row: {:5.1} x \
             (plain {:.3}, descent {:.3}, bits {:.3}); difference {difference:.1e}",
            row(times[0]),
            row(times[1]),
            times[0] / times[1],
            row(times[2]),
            row(times[3]),
            row(times[4]),
        );
        if difference > 1e-5 {
            return Err(format!("{path}: the answers differ by {difference}").into());
        }
    }
    Ok(())
}

/// Seconds a call, going through the batches.
fn measure<B>(batches: &[B], mut call: impl FnMut(&B)) -> f64 {
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < ROUND {
        for batch in batches.iter().take(64) {
            call(batch);
            calls += 1;
        }
    }
    start.elapsed().as_secs_f64() / f64::from(calls)
}

/// Values around the thresholds of their feature.
fn draw_rows(ensemble: &Ensemble, width: usize, count: usize) -> Vec<f32> {
    let mut thresholds = vec![Vec::new(); width];
    for branch in &ensemble.branches {
        thresholds[branch.feature as usize].push(branch.threshold as f32);
    }
    let mut state = 1u64;
    let mut random = move || {
        // A linear congruential generator with Knuth's constants is enough to spread rows.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    let mut rows = Vec::with_capacity(count * width);
    for _ in 0..count {
        for thresholds in &thresholds {
            let base = match thresholds.len() {
                0 => 0.0,
                len => thresholds[random() % len],
            };
            rows.push(base * (0.99 + (random() % 1000) as f32 * 2e-5));
        }
    }
    rows
}

/// The trees of an operator, its base values and its transform.
fn read(node: &NodeProto) -> Result<(Ensemble, Vec<f64>, PostTransform), Box<dyn Error>> {
    let prefix = match node.op_type.as_str() {
        "TreeEnsembleClassifier" => "class",
        "TreeEnsembleRegressor" => "target",
        other => return Err(format!("expected a tree ensemble first, got {other}").into()),
    };
    let none = AttributeProto::default();
    let get = |name: &str| node.attribute.iter().find(|a| a.name == name).unwrap_or(&none);
    let floats =
        |name: &str| -> Vec<f64> { get(name).floats.iter().map(|v| (*v).into()).collect() };
    let text = |name: &str, default: &str| match &get(name).s {
        empty if empty.is_empty() => default.to_owned(),
        text => String::from_utf8_lossy(text).into_owned(),
    };
    let modes: Vec<Option<Comparison>> = get("nodes_modes")
        .strings
        .iter()
        .map(|mode| Comparison::from_name(&String::from_utf8_lossy(mode)))
        .collect();
    let labels = get("classlabels_int64s").ints.len() + get("classlabels_strings").strings.len();
    let ensemble = NodeArrays {
        tree_ids: &get("nodes_treeids").ints,
        node_ids: &get("nodes_nodeids").ints,
        feature_ids: &get("nodes_featureids").ints,
        modes: &modes,
        values: &floats("nodes_values"),
        true_ids: &get("nodes_truenodeids").ints,
        false_ids: &get("nodes_falsenodeids").ints,
        missing_to_true: &get("nodes_missing_value_tracks_true").ints,
        weight_tree_ids: &get(&format!("{prefix}_treeids")).ints,
        weight_node_ids: &get(&format!("{prefix}_nodeids")).ints,
        weight_targets: &get(&format!("{prefix}_ids")).ints,
        weights: &floats(&format!("{prefix}_weights")),
        targets: if prefix == "class" { labels } else { get("n_targets").i as usize },
        aggregate: Aggregate::from_name(&text("aggregate_function", "SUM")).ok_or("aggregate")?,
    }
    .ensemble()?;
    let post = PostTransform::from_name(&text("post_transform", "NONE")).ok_or("post_transform")?;
    Ok((ensemble, floats("base_values"), post))
}
