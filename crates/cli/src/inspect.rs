//! `modelyard inspect`: what a model takes, gives and needs, and what can run it.

use std::path::PathBuf;

use import::Operator;
use model::{Package, TensorSpec};
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
        contents: import::inspect(&package),
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
    contents: import::Inspection,
    supported: Vec<Supported>,
    absent: Vec<(&'static str, String)>,
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
        let operators = self.contents.operators.iter().map(|o| (spell(o), json!(o.count)));
        json!({
            "format": manifest.format,
            "digest": manifest.digest,
            "size": manifest.size,
            "ir_version": self.contents.ir_version,
            "opsets": self.contents.opsets,
            "operators": operators.collect::<serde_json::Map<_, _>>(),
            "nodes": self.contents.nodes,
            "parameters": self.contents.parameters,
            "attribute_values": self.contents.attribute_values,
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
        let operators: Vec<String> = self
            .contents
            .operators
            .iter()
            .map(|operator| format!("{} ×{}", spell(operator), operator.count))
            .collect();
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
        if self.contents.attribute_values > 0 {
            fact("attributes", format!("{} values", units::count(self.contents.attribute_values)));
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

/// An operator's name, with its operator set in front unless that is the default one.
fn spell(operator: &Operator) -> String {
    match operator.domain.as_str() {
        "ai.onnx" => operator.name.clone(),
        domain => format!("{domain}.{}", operator.name),
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
}
