//! `modelyard drift compare before.parquet after.parquet`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use monitor::drift::{Measured, Mismatch, Report, Settings, Side, Verdict, measure};
use rayon::prelude::*;

use super::table::Table;
use super::{page, text};
use crate::Failure;

/// Flags of `drift compare`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
A column has drifted if a change is both large and no chance. Exit codes: 0 done, 1 failed,
2 wrong usage, 4 drift was found and --fail-on drift given.

Examples:
  modelyard drift compare train.parquet today.parquet
  modelyard drift compare train.csv today.csv --html drift.html --fail-on drift")]
pub struct Args {
    /// The table as it was: .parquet, .csv or .tsv, the latter two with a line of names
    before: PathBuf,
    /// The table as it is
    after: PathBuf,
    /// Compare only these columns
    #[arg(long, value_delimiter = ',', value_name = "COLUMN,…")]
    columns: Vec<String>,
    /// Leave these columns out
    #[arg(long, value_delimiter = ',', value_name = "COLUMN,…")]
    except: Vec<String>,
    #[command(flatten)]
    settings: Thresholds,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Write the report as a page that stands alone
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// When to end with the exit code 4
    #[arg(long, value_enum, value_name = "WHAT")]
    fail_on: Option<FailOn>,
}

/// What makes `--fail-on` fail.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailOn {
    /// A column has drifted, or is on one side alone.
    Drift,
    /// That, or too few rows to say.
    Doubt,
}

/// What counts as drift.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub struct Thresholds {
    /// The part of the columns said to have drifted that may be chance
    #[arg(long, default_value_t = Settings::default().alpha)]
    alpha: f64,
    /// The smallest shift of a column's shape that matters, from 0 to 1
    #[arg(long, default_value_t = Settings::default().shift)]
    shift: f64,
    /// The smallest change of the part that is missing that matters, from 0 to 1
    #[arg(long, default_value_t = Settings::default().missing)]
    missing: f64,
    /// The smallest part out of range, or of new texts, that matters, from 0 to 1
    #[arg(long, default_value_t = Settings::default().new)]
    new: f64,
}

impl Thresholds {
    /// The checked settings.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let Self { alpha, shift, missing, new } = *self;
        for (flag, value) in
            [("alpha", alpha), ("shift", shift), ("missing", missing), ("new", new)]
        {
            let fits =
                (0.0..=1.0).contains(&value) && (flag != "alpha" || (1e-9..1.0).contains(&value));
            if !fits {
                return Err(Failure::usage(format!(
                    "--{flag} {value}: expected a part between 0 and 1"
                )));
            }
        }
        Ok(Settings { alpha, shift, missing, new })
    }
}

/// Compares, prints, and fails if that was asked for.
pub fn run(args: Args) -> Result<(), Failure> {
    let settings = args.settings.settings()?;
    let (before, after) = rayon::join(|| Table::open(&args.before), || Table::open(&args.after));
    let (before, after) = (before?, after?);
    let report = compare(&before, &after, &args, settings)?;
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let titles = [name(&args.before), name(&args.after)];
    if let Some(path) = &args.html {
        std::fs::write(path, page::page(&report, &titles))
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    }
    match args.json {
        true => super::print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?,
        false => super::print(&text::text(&report, &titles))?,
    }
    let doubt = report.count(Verdict::TooFewRows);
    match args.fail_on {
        Some(_) if report.drifted => Err(Failure::found(text::found(&report))),
        Some(FailOn::Doubt) if doubt > 0 => Err(Failure::found(format!(
            "{doubt} columns have too few rows to say whether they drifted"
        ))),
        _ => Ok(()),
    }
}

fn compare(
    before: &Table,
    after: &Table,
    args: &Args,
    settings: Settings,
) -> Result<Report, Failure> {
    let asked = |name: &str| {
        (args.columns.is_empty() || args.columns.iter().any(|column| column == name))
            && !args.except.iter().any(|column| column == name)
    };
    let left_out: Vec<_> = before.left_out.iter().chain(&after.left_out).collect();
    let unfit = |name: &str| left_out.iter().any(|out| out.column == name);
    let names = |table: &'_ Table| -> BTreeSet<String> {
        table.names().filter(|name| asked(name) && !unfit(name)).map(str::to_owned).collect()
    };
    let (ours, theirs) = (names(before), names(after));
    if let Some(unknown) = args
        .columns
        .iter()
        .find(|name| !ours.contains(*name) && !theirs.contains(*name) && !unfit(name))
    {
        return Err(Failure::usage(format!("--columns: neither table has a column \"{unknown}\"")));
    }
    let both: Vec<&str> =
        before.names().filter(|n| ours.contains(*n) && theirs.contains(*n)).collect();
    if both.is_empty() {
        return Err(Failure::new("the tables have no column in common that can be compared"));
    }
    let only = |one: &BTreeSet<String>, other: &BTreeSet<String>, only| -> Vec<Mismatch> {
        one.difference(other).map(|column| Mismatch { column: column.clone(), only }).collect()
    };
    let mut mismatched = only(&ours, &theirs, Side::Before);
    mismatched.extend(only(&theirs, &ours, Side::After));

    let group = before.group().max(after.group());
    let chunk = |names: &[&str]| -> Result<Vec<Measured>, Failure> {
        let (a, b) = rayon::join(|| before.read(names), || after.read(names));
        let pairs: Vec<_> = a?.into_iter().zip(b?).collect();
        let one = |(name, (a, b)): (&&str, &_)| measure(*name, a, b);
        Ok(names.par_iter().zip(&pairs).map(one).collect())
    };
    // A column of Parquet is read by itself, all of a CSV file once for each group.
    let measured: Vec<Vec<Measured>> = match group {
        1 => both.par_chunks(1).map(chunk).collect::<Result<_, _>>()?,
        _ => both.chunks(group).map(chunk).collect::<Result<_, _>>()?,
    };
    let mut report = Report::new(measured.into_iter().flatten().collect(), mismatched, settings);
    report.left_out = left_out.into_iter().filter(|out| asked(&out.column)).cloned().collect();
    report.left_out.dedup_by(|a, b| a.column == b.column);
    Ok(report)
}
