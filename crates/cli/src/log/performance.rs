//! `modelyard log performance`: how good a model is, now that it is known what was right.

use monitor::log::performance::{Performance, Question, Scores, Task, performance};
use monitor::log::scores::{Classification, Regression};

use super::read::Chosen;
use crate::Failure;
use crate::table::Table;
use crate::units;

/// The largest confusion matrix that is shown.
const CLASSES: usize = 12;

/// Flags of `log performance`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard log performance fraud --log LOG --since 7d
  modelyard log performance fraud --log LOG --by version
  modelyard log performance fraud --log LOG --by input_country --json

Labels are what callers say by POST /v2/models/MODEL/feedback, joined by the request's id.")]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
    /// Tell predictions apart by this column, such as version or input_country
    #[arg(long, value_name = "COLUMN")]
    by: Option<String>,
    /// What the model predicts, where its outputs do not tell
    #[arg(long, value_enum)]
    task: Option<Wanted>,
    /// Look at the answers of shadows, which no caller saw
    #[arg(long)]
    shadows: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Wanted {
    /// One of several classes
    Classification,
    /// A number
    Regression,
}

/// Joins and scores.
pub async fn run(args: Args) -> Result<(), Failure> {
    let store = args.chosen.place().store()?;
    let question = Question {
        query: args.chosen.query(),
        by: args.by.clone(),
        task: args.task.map(|task| match task {
            Wanted::Classification => Task::Classification,
            Wanted::Regression => Task::Regression,
        }),
        shadows: args.shadows,
    };
    let found = performance(&store, &question).await?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&found)?),
        false => print!("{}", text(&found, args.by.as_deref())),
    }
    Ok(())
}

fn text(found: &Performance, by: Option<&str>) -> String {
    let joined = &found.joined;
    let count = units::count;
    let mut text = format!(
        "{}: {} predictions, {} with a label",
        found.model,
        count(joined.predictions),
        count(joined.joined)
    );
    if let Some(delay) = joined.median_delay_seconds {
        let delay = std::time::Duration::try_from_secs_f64(delay).unwrap_or_default();
        text += &format!(", half of them within {}", units::duration(delay));
    }
    text.push('\n');
    for (number, what) in [
        (joined.unknown, "labels for requests that are not in the log"),
        (joined.repeated, "labels said twice"),
        (joined.replaced, "labels that a later one replaced"),
        (joined.several_rows, "labels for requests of several rows, which do not say which"),
        (joined.unfit, "labels that do not fit what was predicted"),
    ] {
        if number > 0 {
            text += &format!("  {} {what}\n", count(number));
        }
    }
    let Some(all) = &found.all else {
        return text + "There is nothing to compare yet.\n";
    };
    text.push('\n');
    text += &overview(found, all, by);
    if let Some(scores) = &all.classification {
        text.push('\n');
        text += &classes(scores);
    }
    text
}

/// One line for all, and one for each slice.
fn overview(found: &Performance, all: &Scores, by: Option<&str>) -> String {
    let first = by.unwrap_or("").to_owned();
    let heads: &[&str] = match (&all.classification, &all.regression) {
        (Some(_), _) => &["accuracy", "ROC AUC", "log loss", "Brier", "calibration error"],
        (_, Some(_)) => &["MAE", "RMSE", "bias", "R²"],
        _ => &["said to be right"],
    };
    let heads = ["labels"].iter().chain(heads).map(|head| (*head).to_owned());
    let heads: Vec<String> = std::iter::once(first).chain(heads).collect();
    let columns = heads.len();
    let mut table = (1..columns).fold(Table::with(heads), Table::right);
    let all = ("all".to_owned(), all.clone());
    for (name, scores) in std::iter::once(&all).chain(&found.slices) {
        let mut cells = vec![name.clone(), units::count(scores.count)];
        cells.extend(match (&scores.classification, &scores.regression) {
            (Some(scores), _) => of_classes(scores),
            (_, Some(scores)) => of_numbers(scores),
            _ => vec![number(scores.said_right)],
        });
        table.row(cells);
    }
    table.text(0)
}

fn of_classes(scores: &Classification) -> Vec<String> {
    let numbers = [
        Some(scores.accuracy),
        scores.roc_auc,
        scores.log_loss,
        scores.brier,
        scores.calibration_error,
    ];
    numbers.map(number).to_vec()
}

fn of_numbers(scores: &Regression) -> Vec<String> {
    let numbers = [
        Some(scores.mean_absolute_error),
        Some(scores.root_mean_squared_error),
        Some(scores.bias),
        scores.r2,
    ];
    numbers.map(number).to_vec()
}

/// Each class, the confusion matrix, and the calibration curve.
fn classes(scores: &Classification) -> String {
    let mut table = Table::new(["class", "precision", "recall", "F1", "labels"]);
    table = (1..5).fold(table, Table::right);
    for class in &scores.classes {
        let numbers = [class.precision, class.recall, class.f1].map(number);
        let mut cells = vec![class.class.clone()];
        cells.extend(numbers);
        cells.push(number(Some(class.support)));
        table.row(cells);
    }
    let mut text = table.text(0);
    if scores.classes.len() <= CLASSES {
        let names = scores.classes.iter().map(|class| class.class.clone());
        let heads = std::iter::once("is \\ predicted".to_owned()).chain(names.clone());
        let heads: Vec<String> = heads.collect();
        let columns = heads.len();
        let mut table = (1..columns).fold(Table::with(heads), Table::right);
        for (name, row) in names.zip(&scores.confusion) {
            let cells = row.iter().map(|weight| number(Some(*weight)));
            table.row(std::iter::once(name).chain(cells).collect());
        }
        text = format!("{text}\n{}", table.text(0));
    }
    if !scores.calibration.is_empty() {
        let mut table = Table::new(["probability", "came", "predictions"]);
        table = (0..3).fold(table, Table::right);
        for bin in &scores.calibration {
            table.row([bin.predicted, bin.observed, bin.weight].map(|n| number(Some(n))).to_vec());
        }
        text = format!("{text}\n{}", table.text(0));
    }
    text
}

/// Four digits that count.
fn number(number: Option<f64>) -> String {
    match number {
        None => "–".to_owned(),
        Some(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number}"),
        Some(number) if (1e-4..1e6).contains(&number.abs()) => {
            let decimals = (3 - number.abs().log10().floor() as i32).max(0) as usize;
            format!("{number:.decimals$}")
        }
        Some(number) => format!("{number:.3e}"),
    }
}
