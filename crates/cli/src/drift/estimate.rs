//! `modelyard drift estimate predictions.parquet`: performance before labels are known.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use monitor::drift::estimate::{Calibration, Estimate, Measure, Prediction, estimate};
use serde::Serialize;

use super::table::Table;
use crate::{Failure, units};

/// Flags of `drift estimate`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
A prediction is right as often as its probability says, if probabilities mean what they say: give
--reference with labels, and they are calibrated on it first.

Example:
  modelyard drift estimate today.parquet --score probability --reference labelled.parquet --label paid")]
pub struct Args {
    /// A table with a row for each prediction of a binary classifier: .parquet, .csv or .tsv
    predictions: PathBuf,
    /// The column with the score or probability of the positive class
    #[arg(long, value_name = "COLUMN")]
    score: String,
    /// The column with what was decided, 1 or 0
    #[arg(long, value_name = "COLUMN", conflicts_with = "threshold")]
    prediction: Option<String>,
    /// The score from which on it was decided for the positive class
    #[arg(long, default_value_t = 0.5)]
    threshold: f64,
    /// A table with the same columns, and labels, to calibrate on
    #[arg(long, value_name = "FILE", requires = "label")]
    reference: Option<PathBuf>,
    /// The column of the reference with the label, 1 or 0
    #[arg(long, value_name = "COLUMN", requires = "reference")]
    label: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Serialize)]
struct Report {
    schema: &'static str,
    /// Whether probabilities were calibrated.
    calibrated: bool,
    /// What the reference's labels say.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<Estimate>,
    estimated: Estimate,
}

/// Scores and decisions, row by row.
type Rows = Vec<(f64, bool)>;

/// Estimates and prints.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (rows, _) = read(args, &args.predictions, None)?;
    let reference = match (&args.reference, &args.label) {
        (Some(path), Some(label)) => Some(read(args, path, Some(label))?),
        _ => None,
    };
    let calibration =
        match &reference {
            Some((rows, labels)) => {
                let labelled = rows.iter().zip(labels).map(|((score, _), label)| (*score, *label));
                let calibration = Calibration::new(labelled);
                Some(calibration.ok_or_else(|| {
                    Failure::new("the reference has no row with a score and a label")
                })?)
            }
            None => None,
        };
    let probable = |(score, positive): (f64, bool)| Prediction {
        score,
        probability: calibration.as_ref().map_or(score, |known| known.probability(score)),
        positive,
    };
    let estimated = estimate(rows.iter().copied().map(probable)).ok_or_else(|| {
        let failure =
            Failure::new(format!("\"{}\" has no number that can be a probability", args.score));
        match calibration {
            Some(_) => failure,
            None => {
                failure.help("scores that are none are calibrated with --reference and --label")
            }
        }
    })?;
    let reference = reference.and_then(|(rows, labels)| {
        let known = |((score, positive), label): (&(f64, bool), &bool)| Prediction {
            score: *score,
            probability: f64::from(u8::from(*label)),
            positive: *positive,
        };
        estimate(rows.iter().zip(&labels).map(known))
    });
    let report = Report {
        schema: "modelyard.estimate/1",
        calibrated: calibration.is_some(),
        reference,
        estimated,
    };
    match args.json {
        true => super::print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?,
        false => super::print(&text(&report))?,
    }
    Ok(())
}

/// Rows that have all that is asked for, and their labels.
fn read(args: &Args, path: &Path, label: Option<&String>) -> Result<(Rows, Vec<bool>), Failure> {
    let names: Vec<&str> = [Some(&args.score), args.prediction.as_ref(), label]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let columns = Table::open(path)?.rows(&names)?;
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for i in 0..columns[0].len() {
        let cells: Vec<f64> = columns.iter().map(|column| column[i]).collect();
        if cells.iter().any(|cell| !cell.is_finite()) {
            continue;
        }
        for (name, cell) in names.iter().zip(&cells).skip(1) {
            if *cell != 0.0 && *cell != 1.0 {
                let message = format!(
                    "{}: \"{name}\" is {cell} in row {}: expected 1 or 0",
                    path.display(),
                    i + 1
                );
                return Err(Failure::new(message));
            }
        }
        let decided = match args.prediction {
            Some(_) => cells[1] == 1.0,
            None => cells[0] >= args.threshold,
        };
        rows.push((cells[0], decided));
        labels.push(label.is_some() && cells.last() == Some(&1.0));
    }
    Ok((rows, labels))
}

fn text(report: &Report) -> String {
    let now = &report.estimated;
    let how = if report.calibrated { "calibrated on the reference" } else { "as they are" };
    let mut text = format!("{} predictions, probabilities {how}\n\n", units::count(now.rows));
    let mut table =
        crate::table::Table::new(["measure", "reference", "estimated", "95 % of cases"])
            .right(1)
            .right(2);
    let measures: [(&str, fn(&Estimate) -> Measure); 5] = [
        ("accuracy", |e| e.accuracy),
        ("precision", |e| e.precision),
        ("recall", |e| e.recall),
        ("specificity", |e| e.specificity),
        ("F1", |e| e.f1),
    ];
    let number = |value: f64| format!("{value:.4}");
    let none = || "-".to_owned();
    for (name, of) in measures {
        let Measure { value, low, high } = of(now);
        let before = report.reference.as_ref().map_or_else(none, |e| number(of(e).value));
        table.row(vec![name.into(), before, number(value), format!("{low:.4} … {high:.4}")]);
    }
    let before = report.reference.as_ref().and_then(|e| e.roc_auc).map_or_else(none, number);
    table.row(vec!["ROC AUC".into(), before, now.roc_auc.map_or_else(none, number), String::new()]);
    text.push_str(&table.text(0));
    text
}
