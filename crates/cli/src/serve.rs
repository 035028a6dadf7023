//! `modelyard serve`: the wiring of import, runtime, serving and api.

use std::path::PathBuf;

use crate::Failure;

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard serve model.onnx
  modelyard serve --host 0.0.0.0 --port 9000 models/")]
pub struct Args {
    /// Model files, folders that hold one model, or repositories laid out NAME/VERSION/model.onnx
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

/// Serves until it is told to stop.
pub fn run(args: Args) -> Result<(), Failure> {
    Err(Failure::new(format!("serving {:?} is not built yet", args.paths)))
}
