//! Runs ONNX's backend tests on engines and counts: pass, refused, failed, wrong.
//!
//! ```text
//! python crates/runtime/tests/golden/write_backend_tests.py FOLDER
//! cargo run -p runtime --example backend_tests -- FOLDER [ENGINE…] [--markdown] [--list]
//! ```
//! Engines: `native`, `rten` (native, with everything left to rten that it takes), and
//! `onnxruntime` (`--onnxruntime PATH` says where its library is). *Refused* means before any
//! input was seen, by import or by the engine; *failed* means an error at the first run; *wrong*
//! means a different answer, or a panic. Exits with 1 if anything is wrong.
//!
//! An answer is right if it is within the tolerance that the test asks for, or within two units
//! in the last place of FP16 and BF16, or within a millionth of the output's largest value (the
//! rounding of a long sum, which is all that is left of a zero in a Fourier transform). Answers
//! that are random by definition are compared in type and shape.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use model::onnx::TensorProto;
use model::{Data, Package, Program, Tensor};
use prost::Message;
use runtime::native::Native;
use runtime::onnxruntime::{OnnxRuntime, Search};
use runtime::{Engine, LoadOptions};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic is an answer here: caught, counted, and its text shown in the list.
    std::panic::set_hook(Box::new(|_| {}));
    let tests = find_tests(&arguments.folder);
    let mut tables = Vec::new();
    for (name, engine) in &arguments.engines {
        let mut table = Table::new();
        for test in &tests {
            let (group, outcome) = test.run(engine.as_ref());
            if arguments.list && !matches!(outcome, Outcome::Pass) {
                println!("{name}: {}: {outcome}", test.name());
            }
            table.entry(group).or_default().add(&outcome);
        }
        tables.push((name.clone(), table));
    }
    if arguments.markdown {
        print_markdown(&tables)
    } else {
        print_text(&tables)
    }
    let wrong: usize = tables.iter().flat_map(|(_, t)| t.values()).map(|c| c.wrong).sum();
    ExitCode::from(u8::from(wrong > 0))
}

struct Arguments {
    folder: PathBuf,
    engines: Vec<(String, Box<dyn Engine>)>,
    markdown: bool,
    list: bool,
}

impl Arguments {
    fn parse() -> Self {
        let mut names = Vec::new();
        let (mut folder, mut markdown, mut list) = (None, false, false);
        let mut search = Search::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--markdown" => markdown = true,
                "--list" => list = true,
                "--onnxruntime" => search.explicit = arguments.next().map(PathBuf::from),
                _ if folder.is_none() => folder = Some(PathBuf::from(argument)),
                _ => names.push(argument),
            }
        }
        if names.is_empty() {
            names.push("native".to_owned());
        }
        let engine = |name: String| -> (String, Box<dyn Engine>) {
            let engine: Box<dyn Engine> = match name.as_str() {
                "native" => Box::new(Native::default()),
                "rten" => Box::new(Native::preferring_rten()),
                "onnxruntime" => Box::new(OnnxRuntime::discover(&search).expect("ONNX Runtime")),
                other => panic!("no engine is called {other}"),
            };
            (name, engine)
        };
        let folder = folder.expect("usage: backend_tests FOLDER [ENGINE…]");
        Self { folder, engines: names.into_iter().map(engine).collect(), markdown, list }
    }
}

/// Every folder with a `model.onnx`, two levels down.
fn find_tests(folder: &Path) -> Vec<Test> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("a readable folder").path())
            .filter(|path| path.is_dir())
            .collect();
        paths.sort();
        paths
    };
    let tests: Vec<Test> = entries(folder)
        .iter()
        .flat_map(|kind| entries(kind))
        .filter(|path| path.join("model.onnx").exists())
        .map(Test)
        .collect();
    assert!(!tests.is_empty(), "{}: no tests found", folder.display());
    tests
}

/// One test: a folder with a model, inputs, expected outputs.
struct Test(PathBuf);

enum Outcome {
    Pass,
    Refused(String),
    Failed(String),
    Wrong(String),
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Refused(why) => write!(f, "refused: {why}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Wrong(why) => write!(f, "WRONG: {why}"),
        }
    }
}

impl Test {
    fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn kind(&self) -> String {
        let parent = self.0.parent().and_then(Path::file_name).unwrap_or_default();
        parent.to_string_lossy().into_owned()
    }

    /// The row of the table that the test counts in, and how it went.
    fn run(&self, engine: &dyn Engine) -> (String, Outcome) {
        let bytes = std::fs::read(self.0.join("model.onnx")).expect("a readable model");
        let decoded = model::onnx::ModelProto::decode(bytes.as_slice());
        let group = match decoded.ok().and_then(|model| model.graph) {
            _ if self.kind() != "node" => format!("({} models)", self.kind()),
            _ if self.name().contains("expanded") => "(operators as functions)".to_owned(),
            Some(graph) if graph.node.len() == 1 => {
                let node = &graph.node[0];
                [node.domain.as_str(), &node.op_type].join(" ").trim().replace(' ', ".")
            }
            _ => "(several nodes)".to_owned(),
        };
        let package = match import::onnx(bytes.into()) {
            Ok(package) => package,
            Err(error) => return (group, Outcome::Refused(format!("import: {error}"))),
        };
        let run = || self.run_package(engine, &package);
        let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Outcome::Wrong(format!("panic: {}", text.unwrap_or_default()))
        });
        (group, outcome)
    }

    fn run_package(&self, engine: &dyn Engine, package: &Package) -> Outcome {
        let options = LoadOptions::default();
        let session = match engine.supports(package).and_then(|()| engine.load(package, &options)) {
            Ok(session) => session,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let signature = &package.manifest.signature;
        for index in 0.. {
            let data = self.0.join(format!("test_data_set_{index}"));
            if !data.exists() {
                break;
            }
            let mut inputs: Vec<Option<Tensor>> = vec![None; signature.inputs.len()];
            for (position, name) in graph_names(package).into_iter().enumerate() {
                let path = data.join(format!("input_{position}.pb"));
                if let Some((index, _)) = signature.input(&name) {
                    match read(&path) {
                        Ok(tensor) => inputs[index] = tensor,
                        Err(error) => return Outcome::Refused(error),
                    }
                }
            }
            let given: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
            let outputs = match session.run(&given) {
                Ok(outputs) => outputs,
                Err(error) => return Outcome::Failed(error.to_string()),
            };
            let tolerance = self.tolerance();
            for (position, output) in outputs.iter().enumerate() {
                let expected = match read(&data.join(format!("output_{position}.pb"))) {
                    Ok(Some(expected)) => expected,
                    Ok(None) => continue,
                    Err(error) => return Outcome::Refused(error),
                };
                if self.is_random()
                    && (output.datatype(), output.shape())
                        == (expected.datatype(), expected.shape())
                {
                    continue;
                }
                if let Err(difference) = compare(output, &expected, tolerance) {
                    let name = &signature.outputs[position].name;
                    return Outcome::Wrong(format!("output \"{name}\": {difference}"));
                }
            }
        }
        Outcome::Pass
    }

    /// Whether the standard leaves the answer to chance.
    fn is_random(&self) -> bool {
        self.name().starts_with("test_training_dropout") && !self.name().contains("zero_ratio")
    }

    /// Relative and absolute.
    fn tolerance(&self) -> (f64, f64) {
        let text = std::fs::read_to_string(self.0.join("data.json")).unwrap_or_default();
        let number = |key: &str| {
            let rest = text.split(&format!("\"{key}\":")).nth(1)?;
            rest.trim().split([',', '}']).next()?.trim().parse::<f64>().ok()
        };
        (number("rtol").unwrap_or(1e-3), number("atol").unwrap_or(1e-7))
    }
}

/// The names of the graph's inputs in the file's order, which the data files follow.
fn graph_names(package: &Package) -> Vec<String> {
    let Program::Onnx(model) = &package.program;
    let inputs = model.graph.iter().flat_map(|graph| &graph.input);
    inputs.map(|input| input.name.clone()).collect()
}

fn read(path: &Path) -> Result<Option<Tensor>, String> {
    let Ok(bytes) = std::fs::read(path) else { return Ok(None) };
    let proto = TensorProto::decode(bytes.as_slice()).map_err(|error| error.to_string())?;
    proto.to_tensor().map(Some)
}

fn compare(got: &Tensor, expected: &Tensor, tolerance: (f64, f64)) -> Result<(), String> {
    if got.datatype() != expected.datatype() {
        return Err(format!("type {} instead of {}", got.datatype(), expected.datatype()));
    }
    if got.shape() != expected.shape() {
        return Err(format!("shape {:?} instead of {:?}", got.shape(), expected.shape()));
    }
    let (Some(left), Some(right)) = (floats(got.data()), floats(expected.data())) else {
        return if got == expected { Ok(()) } else { Err(format!("{got:?} not {expected:?}")) };
    };
    let relative = tolerance.0.max(match expected.data() {
        Data::Fp16(_) => 2.0 / 1024.0,
        Data::Bf16(_) => 2.0 / 128.0,
        _ => 0.0,
    });
    let finite = right.iter().filter(|value| value.is_finite());
    let absolute = tolerance.1.max(1e-6 * finite.fold(0.0, |most, value| value.abs().max(most)));
    for (index, (a, b)) in left.iter().zip(&right).enumerate() {
        let close =
            a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= absolute + relative * b.abs();
        if !close {
            return Err(format!("element {index}: {a} instead of {b}"));
        }
    }
    Ok(())
}

fn floats(data: &Data) -> Option<Vec<f64>> {
    Some(match data {
        Data::Fp16(data) => data.iter().map(|v| v.to_f64()).collect(),
        Data::Bf16(data) => data.iter().map(|v| v.to_f64()).collect(),
        Data::Fp32(data) => data.iter().map(|v| f64::from(*v)).collect(),
        Data::Fp64(data) => data.to_vec(),
        _ => return None,
    })
}

type Table = BTreeMap<String, Counts>;

#[derive(Clone, Default)]
struct Counts {
    pass: usize,
    refused: usize,
    failed: usize,
    wrong: usize,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Pass => self.pass += 1,
            Outcome::Refused(_) => self.refused += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Wrong(_) => self.wrong += 1,
        }
    }

    fn sum<'a>(counts: impl Iterator<Item = &'a Self>) -> Self {
        counts.fold(Self::default(), |a, b| Self {
            pass: a.pass + b.pass,
            refused: a.refused + b.refused,
            failed: a.failed + b.failed,
            wrong: a.wrong + b.wrong,
        })
    }
}

fn print_text(tables: &[(String, Table)]) {
    for (name, table) in tables {
        println!("{name:40} {:>6} {:>8} {:>7} {:>6}", "pass", "refused", "failed", "wrong");
        let sum = Counts::sum(table.values());
        for (row, c) in table.iter().chain([(&"all".to_owned(), &sum)]) {
            println!("{row:40} {:>6} {:>8} {:>7} {:>6}", c.pass, c.refused, c.failed, c.wrong);
        }
    }
}

fn print_markdown(tables: &[(String, Table)]) {
    let mut header = "| operator |".to_owned();
    let mut rule = "|---|".to_owned();
    for (name, _) in tables {
        header += &format!(" {name}: pass | refused | failed | wrong |");
        rule += "---:|---:|---:|---:|";
    }
    println!("{header}\n{rule}");
    let rows: std::collections::BTreeSet<&String> =
        tables.iter().flat_map(|(_, table)| table.keys()).collect();
    let line = |row: &str, counts: &dyn Fn(&Table) -> Counts| {
        let mut line = format!("| {row} |");
        for (_, table) in tables {
            let c = counts(table);
            line += &format!(" {} | {} | {} | {} |", c.pass, c.refused, c.failed, c.wrong);
        }
        println!("{line}");
    };
    line("**all**", &|table| Counts::sum(table.values()));
    for row in rows {
        line(row, &|table| table.get(row).cloned().unwrap_or_default());
    }
}
