//! `modelyard engines`: what this machine can run models with, and where ONNX Runtime is looked for.

use std::ffi::OsString;
use std::path::PathBuf;

use runtime::{Engines, onnxruntime};
use serde_json::json;

use crate::Failure;
use crate::table::Table;

/// Where the optional engine is looked for; shared by every verb that needs engines.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Search {
    /// ONNX Runtime's shared library, or a folder that holds it; nothing else is looked at then
    #[arg(long, env = "MODELYARD_ONNXRUNTIME", value_name = "PATH")]
    pub onnxruntime: Option<PathBuf>,
}

impl Search {
    /// Looks for the engines of this machine.
    pub fn discover(&self) -> Engines {
        Engines::discover(&onnxruntime::Search {
            explicit: self.onnxruntime.clone(),
            ..onnxruntime::Search::around(&surroundings())
        })
    }
}

/// What this process was started with, for the search.
fn surroundings() -> onnxruntime::Surroundings {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
    onnxruntime::Surroundings {
        variables: std::env::vars_os().filter_map(text).collect(),
        executable: std::env::current_exe().ok(),
    }
}

/// Flags of `engines`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard engines
  modelyard engines --json
  modelyard engines --onnxruntime venv/lib/python3.12/site-packages/onnxruntime/capi")]
pub struct Args {
    #[command(flatten)]
    search: Search,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints what was found and how to get what was not.
pub fn run(args: Args) -> Result<(), Failure> {
    let engines = args.search.discover();
    if args.json {
        let found = engines
            .list()
            .into_iter()
            .map(|(name, version)| json!({"name": name, "found": true, "version": version}));
        let absent = engines.absent().iter().map(|(name, error)| {
            json!({"name": name, "found": false, "reason": error.to_string(), "get": how_to_get(name)})
        });
        println!("{:#}", json!({"engines": found.chain(absent).collect::<Vec<_>>()}));
        return Ok(());
    }
    let mut table = Table::new(["engine", "version"]);
    for (name, version) in engines.list() {
        table.row(vec![name.into(), version]);
    }
    for (name, _) in engines.absent() {
        table.row(vec![(*name).into(), "not found".into()]);
    }
    print!("{}", table.text(0));
    for (name, error) in engines.absent() {
        println!("\n{name}: {error}");
        if let Some(command) = how_to_get(name) {
            println!("get it: {command}");
        }
    }
    Ok(())
}

/// The one command that gets an engine.
fn how_to_get(engine: &str) -> Option<&'static str> {
    (engine == onnxruntime::NAME).then_some("pip install onnxruntime")
}
