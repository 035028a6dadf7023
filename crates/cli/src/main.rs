//! The `modelyard` binary: flags, environment and file become a checked configuration, the rooms
//! are wired together, and each verb is one module.
//!
//! ```sh
//! modelyard serve model.onnx
//! modelyard inspect model.onnx
//! modelyard infer model rows.csv
//! ```

mod alerts;
mod bench;
mod collector;
mod command;
mod completions;
mod config;
mod drift;
mod emf;
mod engines;
mod failure;
mod http;
mod infer;
mod inspect;
mod library;
mod log;
mod logging;
mod monitoring;
mod oip;
mod recorded;
mod refusing;
mod registry;
mod rollout;
mod serve;
mod table;
mod temporary;
mod units;
mod watching;

use std::process::ExitCode;

use command::Verb;
use failure::Failure;

/// Requests allocate and free small buffers on many threads, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = command::parse();
    logging::start(&arguments.logging);
    let result = match arguments.verb {
        Verb::Serve(args) => serve::run(*args),
        Verb::Inspect(args) => inspect::run(args),
        Verb::Engines(args) => engines::run(args),
        Verb::Infer(args) => infer::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Push(args) => registry::push(args),
        Verb::Pull(args) => registry::pull(args),
        Verb::Import(args) => registry::import(args),
        Verb::Export(args) => registry::export(args),
        Verb::Models(args) => registry::models(args),
        Verb::Versions(args) => registry::versions(args),
        Verb::Show(args) => registry::show(args),
        Verb::Diff(args) => registry::diff(args),
        Verb::Alias(args) => registry::alias(args),
        Verb::Traffic(args) => registry::traffic(args),
        Verb::Rollout(args) => rollout::run(args),
        Verb::Monitoring(args) => monitoring::run(args),
        Verb::Rollback(args) => registry::rollback(args),
        Verb::Alerts(args) => alerts::run(args),
        Verb::Drift(args) => drift::run(args),
        Verb::Servers(args) => registry::servers(args),
        Verb::Archive(args) => registry::archive(args),
        Verb::Restore(args) => registry::restore(args),
        Verb::Delete(args) => registry::delete(args),
        Verb::History(args) => registry::history(args),
        Verb::At(args) => registry::at(args),
        Verb::Collect(args) => registry::collect(args),
        Verb::Check(args) => registry::check(args),
        Verb::Log(args) => log::run(args),
        Verb::Completions(args) => completions::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.exit_code()
        }
    }
}
