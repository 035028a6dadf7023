//! The command line: verbs, global flags, and the rule that every flag is also an environment
//! variable.

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    alerts, bench, completions, drift, engines, infer, inspect, log, logging, monitoring, registry,
    rollout, serve,
};

/// From a trained model to production.
#[derive(Debug, Parser)]
#[command(
    name = "modelyard",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  modelyard serve model.onnx              answer REST and gRPC on 127.0.0.1:8080
  modelyard inspect model.onnx            what a model takes, gives and needs
  modelyard infer model rows.csv          send rows to a running server
  modelyard bench http://127.0.0.1:8080 model

Every flag is also an environment variable, named in its help. Flags win over the environment.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the model is refused or not supported,
4 what was looked for was found (`drift compare --fail-on`)."
)]
pub struct Arguments {
    /// What is logged, and how.
    #[command(flatten)]
    pub logging: logging::Args,
    /// What is to be done.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Serve models over REST and gRPC
    Serve(Box<serve::Args>),
    /// Show what a model takes and gives, and which engines can run it
    Inspect(inspect::Args),
    /// List the engines of this machine, and how to get what is missing
    Engines(engines::Args),
    /// Send rows to a running server and print its answers
    Infer(infer::Args),
    /// Load a running server and measure how it does
    Bench(bench::Args),
    /// Put a model into the registry, as the next version of its name
    Push(registry::Push),
    /// Copy a version's files out of the registry
    Pull(registry::Pull),
    /// Take over models from MLflow, Triton or TensorFlow Serving
    Import(registry::Import),
    /// Write a version as MLflow, Triton or TensorFlow Serving keep it
    Export(registry::Export),
    /// List the models of the registry
    Models(registry::Models),
    /// List the versions of a model
    Versions(registry::Versions),
    /// Show everything that is known of a version
    Show(registry::Show),
    /// Say what is different between two versions
    Diff(registry::Diff),
    /// Make an alias name another version: promote, or roll back
    Alias(registry::Alias),
    /// Split a model's traffic among versions by hand
    Traffic(registry::Traffic),
    /// Replace a champion step by step, by evidence
    Rollout(rollout::Args),
    /// Go back to the champion before this one, at once
    Rollback(registry::Rollback),
    /// Say what is wrong with what is served, and whom it is told
    Alerts(alerts::Args),
    /// Say whether data has changed
    Drift(drift::Args),
    /// Print rules for Prometheus and a dashboard for Grafana, with objectives
    Monitoring(monitoring::Args),
    /// List the servers that follow the registry, and what they hold
    Servers(registry::Servers),
    /// Put a version aside without deleting it
    Archive(registry::OnVersion),
    /// Make an archived or deleted version active again
    Restore(registry::OnVersion),
    /// Delete a version; it can be restored for a week
    Delete(registry::OnVersion),
    /// Say what happened to a model, by whom and why
    History(registry::History),
    /// Say which version had which share of the traffic at a time
    At(registry::At),
    /// Remove what was deleted long enough ago
    Collect(registry::Collect),
    /// Check that everything in the registry fits together
    Check(registry::Check),
    /// Look at what was predicted, and how good it was
    Log(log::Args),
    /// Print a shell's completion script
    Completions(completions::Args),
}

/// Reads the process's arguments and environment; on wrong usage prints why and exits with 2.
pub fn parse() -> Arguments {
    let matches = command().get_matches();
    Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The command line with an environment variable for every flag: `MODELYARD_PORT` for the flag
/// `--port` of `serve` and for global flags, `MODELYARD_BENCH_RATE` for `--rate` of `bench`.
pub fn command() -> Command {
    let mut command = Arguments::command().mut_args(|arg| with_variable(arg, ""));
    let verbs: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for verb in verbs {
        let prefix = if verb == "serve" { String::new() } else { format!("{verb}_") };
        command = command.mut_subcommand(&verb, |c| with_variables(c, &prefix));
    }
    command
}

fn with_variables(command: Command, prefix: &str) -> Command {
    let mut command = command.mut_args(|arg| with_variable(arg, prefix));
    let verbs: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for verb in verbs {
        let prefix = format!("{prefix}{verb}_");
        command = command.mut_subcommand(&verb, |c| with_variables(c, &prefix));
    }
    command
}

fn with_variable(arg: clap::Arg, prefix: &str) -> clap::Arg {
    let Some(long) = arg.get_long() else { return arg };
    if arg.get_env().is_some() {
        return arg;
    }
    let variable = format!("MODELYARD_{prefix}{long}").to_uppercase().replace('-', "_");
    let arg = match arg.get_action() {
        // `1`, `yes` and `on` switch a flag on just as `true` does.
        ArgAction::SetTrue => arg.value_parser(FalseyValueParser::new()),
        _ => arg,
    };
    // Leaked once for each flag: clap keeps names for as long as the program runs.
    arg.env(&*variable.leak())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_is_an_environment_variable() {
        for verb in command().get_subcommands() {
            for arg in verb.get_arguments().filter(|arg| arg.get_long().is_some()) {
                let variable = arg.get_env().expect("set by the rule").to_string_lossy();
                assert!(variable.starts_with("MODELYARD_"), "{variable}");
            }
        }
    }
}
