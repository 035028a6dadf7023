//! `modelyard inspect`: what a model takes, gives and needs, and what can run it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use model::onnx::{AttributeProto, NodeProto};
use model::{Package, Program, TensorSpec};
use runtime::Supported;
use serde_json::{Value, json};

use crate::engines::Search;
use crate::table::Table;
use crate::{Failure, units};

/// Flags of `inspect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard inspect model.onnx
  modelyard inspect models/fraud/3            a folder that holds one model
  modelyard inspect model.onnx --json

Exits with 3 if the file is not a model that can be read, or if no engine of this machine can run it.")]
pub struct Args {
    /// The model file, or a folder that holds one model
    path: PathBuf,
    #[command(flatten)]
    search: Search,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints what is known of the model without running it.
pub fn run(args: Args) -> Result<(), Failure> {
    let package = import::open(&args.path).map_err(|e| Failure::coded(e.code(), &e))?;
    let engines = args.search.discover();
    let inspection = Inspection {
        contents: Contents::of(&package),
        supported: engines.supporting(&package),
        absent: engines.absent().iter().map(|(name, e)| (*name, e.to_string())).collect(),
        package,
    };
    if args.json {
        println!("{:#}", inspection.json());
    } else {
        print!("{}", inspection.text());
    }
    if inspection.supported.iter().all(|engine| engine.refusal.is_some()) {
        return Err(Failure::refused("no engine of this machine can run this model")
            .help("modelyard engines says how to get further ones"));
    }
    Ok(())
}

struct Inspection {
    package: Package,
    contents: Contents,
    supported: Vec<Supported>,
    absent: Vec<(&'static str, String)>,
}

/// What is inside the program.
struct Contents {
    ir_version: i64,
    /// Operator sets by domain.
    opsets: BTreeMap<String, i64>,
    /// Nodes by operator, with the domain in front unless it is the default one; subgraphs included.
    operators: BTreeMap<String, usize>,
    /// Elements of the weights that lie in initializers. Trees keep theirs in attributes.
    parameters: u64,
}

impl Contents {
    fn of(package: &Package) -> Self {
        let Program::Onnx(model) = &package.program;
        let domain = |domain: &str| if domain.is_empty() { "ai.onnx" } else { domain }.to_owned();
        let opsets = model.opset_import.iter().map(|o| (domain(&o.domain), o.version)).collect();
        let mut operators = BTreeMap::new();
        let mut parameters = 0;
        if let Some(graph) = &model.graph {
            count(&graph.node, &mut operators);
            let elements = |dims: &[i64]| dims.iter().map(|d| (*d).max(0) as u64).product::<u64>();
            parameters = graph.initializer.iter().map(|tensor| elements(&tensor.dims)).sum();
        }
        Self { ir_version: model.ir_version, opsets, operators, parameters }
    }
}

fn count(nodes: &[NodeProto], operators: &mut BTreeMap<String, usize>) {
    for node in nodes {
        let name = match node.domain.as_str() {
            "" | "ai.onnx" => node.op_type.clone(),
            domain => format!("{domain}.{}", node.op_type),
        };
        *operators.entry(name).or_default() += 1;
        for AttributeProto { g, graphs, .. } in &node.attribute {
            for graph in g.as_deref().into_iter().chain(graphs) {
                count(&graph.node, operators);
            }
        }
    }
}

impl Inspection {
    fn json(&self) -> Value {
        let manifest = &self.package.manifest;
        let engine = |engine: &Supported| {
            json!({
                "name": engine.engine, "version": engine.version,
                "runs": engine.refusal.is_none(),
                "reason": engine.refusal.as_ref().map(ToString::to_string),
            })
        };
        let absent = |(name, reason): &(&str, String)| json!({"name": name, "version": null, "runs": false, "reason": reason});
        let engines: Vec<Value> =
            self.supported.iter().map(engine).chain(self.absent.iter().map(absent)).collect();
        json!({
            "format": manifest.format,
            "digest": manifest.digest,
            "size": manifest.size,
            "ir_version": self.contents.ir_version,
            "opsets": self.contents.opsets,
            "operators": self.contents.operators,
            "parameters": self.contents.parameters,
            "inputs": manifest.signature.inputs,
            "outputs": manifest.signature.outputs,
            "batched": manifest.signature.batched,
            "notes": manifest.notes,
            "metadata": manifest.metadata,
            "engines": engines,
        })
    }

    fn text(&self) -> String {
        let manifest = &self.package.manifest;
        let signature = &manifest.signature;
        let mut tensors = Table::new(["", "name", "type", "shape", ""]);
        for (kind, specs) in [("input", &signature.inputs), ("output", &signature.outputs)] {
            for spec in specs {
                tensors.row(vec![
                    kind.into(),
                    spec.name.to_string(),
                    spec.datatype.to_string(),
                    shape(spec),
                    remarks(spec),
                ]);
            }
        }
        let opsets: Vec<String> =
            self.contents.opsets.iter().map(|(domain, v)| format!("{domain} {v}")).collect();
        let mut operators: Vec<(&String, &usize)> = self.contents.operators.iter().collect();
        operators.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let operators: Vec<String> =
            operators.iter().map(|(name, n)| format!("{name} ×{n}")).collect();
        let batching = if signature.batched {
            "rows of different requests may run together"
        } else {
            "each request runs alone"
        };
        let mut facts = Table::new(["", ""]);
        let mut fact = |name: &str, value: String| facts.row(vec![name.into(), value]);
        fact("format", format!("{}, IR {}", manifest.format.as_str(), self.contents.ir_version));
        fact("size", units::bytes(manifest.size));
        if self.contents.parameters > 0 {
            fact("parameters", units::count(self.contents.parameters));
        }
        fact("operator sets", opsets.join(", "));
        fact("digest", manifest.digest.clone());
        fact("batching", batching.into());
        for note in &manifest.notes {
            fact("note", note.clone());
        }
        for (name, value) in &manifest.metadata {
            fact(name, shorten(value, 100));
        }
        let mut engines = Table::new(["", "", ""]);
        for engine in &self.supported {
            let verdict = engine.refusal.as_ref().map_or("runs it".into(), ToString::to_string);
            engines.row(vec![engine.engine.into(), engine.version.clone(), verdict]);
        }
        for (name, reason) in &self.absent {
            engines.row(vec![(*name).into(), "not found".into(), shorten(reason, 160)]);
        }
        let body = |table: Table| table.text(2).split_once('\n').map(|(_, rows)| rows.to_owned());
        format!(
            "Signature\n{}\nModel\n{}\nOperators\n{}\nEngines\n{}",
            tensors.text(2),
            body(facts).unwrap_or_default(),
            wrap(&operators, 2, 96),
            body(engines).unwrap_or_default(),
        )
    }
}

/// Words separated by commas, on lines of at most `width` characters.
fn wrap(words: &[String], indent: usize, width: usize) -> String {
    let mut text = String::new();
    let mut line = " ".repeat(indent);
    for (i, word) in words.iter().enumerate() {
        let word = if i + 1 < words.len() { format!("{word}, ") } else { word.clone() };
        if line.chars().count() + word.chars().count() > width {
            text.push_str(line.trim_end());
            text.push('\n');
            line = " ".repeat(indent);
        }
        line.push_str(&word);
    }
    text.push_str(line.trim_end());
    text.push('\n');
    text
}

fn shape(spec: &TensorSpec) -> String {
    match &spec.shape {
        Some(dims) => {
            let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
            format!("[{}]", dims.join(", "))
        }
        None => "any".to_owned(),
    }
}

fn remarks(spec: &TensorSpec) -> String {
    let mut remarks = Vec::new();
    if spec.optional {
        remarks.push("optional".to_owned());
    }
    if !spec.labels.is_empty() {
        remarks.push(shorten(&format!("labels: {}", spec.labels.join(", ")), 60));
    }
    remarks.join("; ")
}

/// One line of at most so many characters. Control characters, which a model's file may hold, would
/// command the terminal: they are shown as what they are.
fn shorten(text: &str, most: usize) -> String {
    let plain: String = text
        .chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect();
    match plain.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &plain[..end]),
        None => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_cannot_command_the_terminal() {
        assert_eq!(shorten("a\x1b[2Jb\nc", 10), "a\u{fffd}[2Jb c");
        assert_eq!(shorten("abcdef", 3), "abc…");
    }

    #[test]
    fn operators_are_counted() {
        let package = import::onnx(testkit::onnx::models::double(3)).unwrap();
        let contents = Contents::of(&package);
        assert_eq!(contents.operators, BTreeMap::from([("Mul".to_owned(), 1)]));
        assert_eq!((contents.parameters, contents.opsets["ai.onnx"]), (1, 17));
    }
}
