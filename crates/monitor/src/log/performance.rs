//! Predictions of a log joined with what became known of them: how good a model is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int32Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use model::Signature;
use serde::Serialize;

use super::files::Table;
use super::read::{Error, Order, Query};
use super::rules::Pattern;
use super::scores::{
    Classification, Classified, Estimated, Regression, classification, highest, regression, slices,
};
use super::store::Store;

/// The most slices that are told apart.
const SLICES: usize = 50;

/// The most classes of a model that says nothing of them.
const CLASSES: usize = 1000;

/// What is to be found out.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Which predictions.
    pub query: Query,
    /// The column by whose values they are told apart.
    pub by: Option<String>,
    /// What the model predicts; found out by its outputs and the labels if it is not said.
    pub task: Option<Task>,
    /// Whether the answers of shadows are meant, which no caller saw.
    pub shadows: bool,
}

/// What a model predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// One of several classes.
    Classification,
    /// A number.
    Regression,
}

/// How good a model is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Performance {
    /// The model.
    pub model: String,
    /// How labels and predictions found each other.
    pub joined: Joined,
    /// What it predicts; nothing without a label that says what was right.
    pub task: Option<Task>,
    /// All predictions together.
    pub all: Option<Scores>,
    /// Told apart by the column that was asked for, the most frequent first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<(String, Scores)>,
}

/// How labels and predictions found each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Joined {
    /// Predictions that were looked at, one for each request.
    pub predictions: u64,
    /// Requests for which something was said.
    pub labels: u64,
    /// Requests with both.
    pub joined: u64,
    /// Requests for which something was said, but that are not in the log: they were not sampled,
    /// are older, or never were.
    pub unknown: u64,
    /// Labels that were said twice, with the same id.
    pub repeated: u64,
    /// Labels that another one of the same request replaced later.
    pub replaced: u64,
    /// Requests of several rows, of which a label does not say which it means.
    pub several_rows: u64,
    /// Labels that do not fit what was predicted.
    pub unfit: u64,
    /// The median time from a prediction to its label, in seconds.
    pub median_delay_seconds: Option<f64>,
}

/// How good some predictions are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// How many there are with a label.
    pub count: u64,
    /// How many predictions they stand for.
    pub weight: f64,
    /// The part of those for which somebody said right or wrong that was right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said_right: Option<f64>,
    /// As classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classification: Option<Classification>,
    /// As numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regression: Option<Regression>,
}

/// What is known of a request.
#[derive(Clone, Debug)]
struct Said {
    text: Option<String>,
    number: Option<f64>,
    right: Option<bool>,
    at: i64,
}

/// A prediction that something was said of.
#[derive(Clone, Debug)]
struct Case {
    answer: Answer,
    said: Said,
    weight: f64,
    slice: String,
    at: i64,
}

/// What a model answered.
#[derive(Clone, Debug, Default)]
struct Answer {
    /// The name or number of the class.
    class: Option<String>,
    /// Of each class.
    probabilities: Vec<f64>,
    number: Option<f64>,
}

/// Joins, and scores what fits.
pub async fn performance(store: &Store, question: &Question) -> Result<Performance, Error> {
    let mut joined = Joined::default();
    let labels = labels(store, &question.query, &mut joined).await?;
    let mut found = Found::default();
    let mut query = question.query.clone();
    let by = question.by.clone().unwrap_or_else(|| "version".to_owned());
    let columns = ["time", "request_id", "row", "route", "code", "weight", "output_*", &by];
    query.columns = columns.into_iter().map(Pattern::new).collect();
    let files = query.files(store, Table::Predictions).await?;
    let mut has_slice = false;
    let mut wrong = None;
    query
        .each((store, &files), Order::Oldest, |batch| {
            has_slice |= batch.column_by_name(&by).is_some();
            match found.add(&batch, &labels, (question.shadows, &by)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    wrong = Some(error);
                    ControlFlow::Break(())
                }
            }
        })
        .await?;
    if let Some(error) = wrong {
        return Err(error);
    }
    if !has_slice && found.predictions > 0 {
        return Err(Error::new(format!("no file of the log has the column \"{by}\"")));
    }
    joined.predictions = found.predictions;
    joined.several_rows = found.several.len() as u64;
    joined.joined = found.cases.len() as u64;
    joined.unknown = joined.labels - joined.joined - joined.several_rows;
    let signature = signature(store, &question.query).await?;
    let mut cases: Vec<Case> = found.cases.into_values().collect();
    cases.sort_by_key(|case| case.at);
    let mut delays: Vec<i64> = cases.iter().map(|case| case.said.at - case.at).collect();
    delays.sort_unstable();
    joined.median_delay_seconds = delays.get(delays.len() / 2).map(|delay| *delay as f64 / 1e6);
    if question.by.is_some() {
        quartiles(&mut cases);
    }
    let task = question.task.or_else(|| task(&cases));
    let names = class_names(&cases, signature.as_ref(), &found.classes);
    let scored = |cases: &[Case]| scores(cases, task, &names);
    let (all, unfit) = scored(&cases);
    joined.unfit = unfit;
    let mut sliced = Vec::new();
    if question.by.is_some() {
        let cases: Vec<(String, Case)> =
            cases.iter().map(|case| (case.slice.clone(), case.clone())).collect();
        let groups = slices(&cases, |case| case.weight, (SLICES, "(others)"));
        sliced
            .extend(groups.into_iter().filter_map(|(name, cases)| Some((name, scored(&cases).0?))));
    }
    Ok(Performance { model: question.query.model.clone(), joined, task, all, slices: sliced })
}

/// What was said, by request; of several things the latest.
async fn labels(
    store: &Store,
    query: &Query,
    joined: &mut Joined,
) -> Result<HashMap<String, Said>, Error> {
    // A label follows its prediction, however late.
    let query = Query { since: query.since, ..Query::of(&query.model) };
    let files = query.files(store, Table::Labels).await?;
    let mut labels: HashMap<String, Said> = HashMap::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    query
        .each((store, &files), Order::Oldest, |batch| {
            let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
            let (Some(ids), Some(feedback)) = (text("request_id"), text("feedback_id")) else {
                return ControlFlow::Continue(());
            };
            let times = batch.column_by_name("time");
            let times = times.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
            let numbers = batch.column_by_name("label_number");
            let numbers = numbers.and_then(|c| c.as_primitive_opt::<Float64Type>());
            let rights = batch.column_by_name("right").and_then(|c| c.as_boolean_opt());
            for row in 0..batch.num_rows() {
                if ids.is_null(row) {
                    continue;
                }
                if feedback.is_valid(row) && !seen.insert(feedback.value(row).to_owned()) {
                    joined.repeated += 1;
                    continue;
                }
                let label = text("label").filter(|label| label.is_valid(row));
                let said = Said {
                    text: label.map(|label| label.value(row).to_owned()),
                    number: numbers.filter(|n| n.is_valid(row)).map(|n| n.value(row)),
                    right: rights.filter(|r| r.is_valid(row)).map(|r| r.value(row)),
                    at: times.map_or(0, |times| times.value(row)),
                };
                if said.text.is_none() && said.right.is_none() {
                    continue;
                }
                match labels.entry(ids.value(row).to_owned()) {
                    std::collections::hash_map::Entry::Vacant(entry) => drop(entry.insert(said)),
                    std::collections::hash_map::Entry::Occupied(mut entry) => {
                        joined.replaced += 1;
                        if said.at >= entry.get().at {
                            entry.insert(said);
                        }
                    }
                }
            }
            ControlFlow::Continue(())
        })
        .await?;
    joined.labels = labels.len() as u64;
    Ok(labels)
}

/// Predictions that something was said of.
#[derive(Default)]
struct Found {
    predictions: u64,
    cases: HashMap<String, Case>,
    several: BTreeSet<String>,
    /// The name of the class that is at each place of the probabilities, as far as the model's
    /// own choices tell.
    classes: BTreeMap<usize, String>,
}

impl Found {
    fn add(
        &mut self,
        batch: &RecordBatch,
        labels: &HashMap<String, Said>,
        (shadows, by): (bool, &str),
    ) -> Result<(), Error> {
        let text = |name: &str| batch.column_by_name(name)?.as_string_opt::<i32>();
        let (Some(ids), Some(routes), Some(codes)) =
            (text("request_id"), text("route"), text("code"))
        else {
            return Ok(());
        };
        let rows = batch.column_by_name("row").and_then(|c| c.as_primitive_opt::<Int32Type>());
        let weights = batch.column_by_name("weight");
        let weights = weights.and_then(|c| c.as_primitive_opt::<Float64Type>());
        let times = batch.column_by_name("time");
        let times = times.and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let outputs = Outputs::of(batch)?;
        let options = FormatOptions::default().with_null("(none)");
        let slice =
            batch.column_by_name(by).map(|column| ArrayFormatter::try_new(column, &options));
        let slice = slice.transpose().map_err(Error::new)?;
        let route = if shadows { "shadow" } else { "answered" };
        for row in 0..batch.num_rows() {
            if routes.value(row) != route || codes.value(row) != "OK" {
                continue;
            }
            let is_first = rows.is_none_or(|rows| rows.value(row) == 0);
            self.predictions += u64::from(is_first);
            let answer = outputs.answer(row);
            if let (Some(class), false) = (&answer.class, answer.probabilities.is_empty()) {
                let place = highest(&answer.probabilities);
                if self.classes.len() < CLASSES {
                    self.classes.entry(place).or_insert_with(|| class.clone());
                }
            }
            if ids.is_null(row) {
                continue;
            }
            let id = ids.value(row);
            let Some(said) = labels.get(id) else { continue };
            if !is_first {
                self.cases.remove(id);
                self.several.insert(id.to_owned());
                continue;
            }
            if self.several.contains(id) {
                continue;
            }
            let case = Case {
                answer,
                said: said.clone(),
                weight: weights.map_or(1.0, |weights| weights.value(row)),
                slice: slice.as_ref().map_or_else(String::new, |s| s.value(row).to_string()),
                at: times.map_or(0, |times| times.value(row)),
            };
            self.cases.insert(id.to_owned(), case);
        }
        Ok(())
    }
}

/// The outputs of some rows, by what they seem to be.
struct Outputs {
    class: Option<ArrayRef>,
    probabilities: Option<ArrayRef>,
    number: Option<ArrayRef>,
}

impl Outputs {
    fn of(batch: &RecordBatch) -> Result<Self, Error> {
        let mut found = Self { class: None, probabilities: None, number: None };
        for (place, field) in batch.schema().fields().iter().enumerate() {
            if !field.name().starts_with("output_") {
                continue;
            }
            let column = batch.column(place);
            let to = |kind: DataType| cast(column, &kind).map_err(Error::new);
            match field.data_type() {
                DataType::List(element) if element.data_type().is_floating() => {
                    let kind = DataType::new_list(DataType::Float64, element.is_nullable());
                    found.probabilities.get_or_insert(to(kind)?);
                }
                DataType::Utf8 | DataType::Boolean => {
                    found.class.get_or_insert(to(DataType::Utf8)?);
                }
                kind if kind.is_integer() => {
                    found.class.get_or_insert(to(DataType::Utf8)?);
                }
                kind if kind.is_floating() => {
                    found.number.get_or_insert(to(DataType::Float64)?);
                }
                _ => {}
            }
        }
        Ok(found)
    }

    fn answer(&self, row: usize) -> Answer {
        let class = self.class.as_ref().map(|column| column.as_string::<i32>());
        let lists = self.probabilities.as_ref().map(|column| column.as_list::<i32>());
        let lists = lists.filter(|lists| lists.is_valid(row));
        let list =
            lists.map(|lists| lists.value(row).as_primitive::<Float64Type>().values().to_vec());
        let list = list.unwrap_or_default();
        let number = self.number.as_ref().map(|column| column.as_primitive::<Float64Type>());
        let mut number = number.filter(|n| n.is_valid(row)).map(|n| n.value(row));
        // A list of one is a number; one that does not add up to 1 is no list of probabilities.
        let adds_up = list.len() >= 2
            && list.iter().all(|p| (0.0..=1.0).contains(p))
            && (list.iter().sum::<f64>() - 1.0).abs() < 1e-3;
        if list.len() == 1 {
            number = number.or(Some(list[0]));
        }
        Answer {
            class: class.filter(|c| c.is_valid(row)).map(|c| c.value(row).to_owned()),
            probabilities: if adds_up { list } else { Vec::new() },
            number,
        }
    }
}

/// What the newest file says of the model's outputs.
async fn signature(store: &Store, query: &Query) -> Result<Option<Signature>, Error> {
    let files = query.files(store, Table::Predictions).await?;
    let Some(file) = files.last() else { return Ok(None) };
    let note = super::read::note(store, file, "modelyard.signature").await?;
    Ok(note.and_then(|text| serde_json::from_str(&text).ok()))
}

/// Classes, if the answers are; else numbers, unless all of them are probabilities of what is so or
/// not.
fn task(cases: &[Case]) -> Option<Task> {
    let labelled: Vec<&Case> = cases.iter().filter(|case| case.said.text.is_some()).collect();
    let first = labelled.first()?;
    let is_class =
        |case: &&Case| case.answer.class.is_some() || !case.answer.probabilities.is_empty();
    let is_binary = |case: &&Case| {
        case.said.number.is_some_and(|label| label == 0.0 || label == 1.0)
            && case.answer.number.is_some_and(|p| (0.0..=1.0).contains(&p))
    };
    match is_class(first) || labelled.iter().all(is_binary) {
        true => Some(Task::Classification),
        false => Some(Task::Regression),
    }
}

/// The classes in the order of the probabilities, then what else occurs.
fn class_names(
    cases: &[Case],
    signature: Option<&Signature>,
    chosen: &BTreeMap<usize, String>,
) -> Vec<String> {
    let width = cases.iter().map(|case| case.answer.probabilities.len()).max().unwrap_or(0);
    let specs = signature.map(|signature| &signature.outputs[..]).unwrap_or_default();
    let labels = specs.iter().find(|spec| !spec.labels.is_empty() && spec.labels.len() >= width);
    let mut names: Vec<String> = match (labels, width) {
        (Some(spec), _) => spec.labels.clone(),
        (None, 0) if cases.iter().all(|case| case.answer.class.is_none()) => {
            vec!["0".into(), "1".into()]
        }
        (None, width) => {
            let name = |place| chosen.get(&place).cloned();
            (0..width).map(|place| name(place).unwrap_or_else(|| place.to_string())).collect()
        }
    };
    // What the model names and the labels name, in order, where no probabilities give one.
    let answers = cases.iter().filter_map(|case| case.answer.class.clone());
    let said = cases.iter().filter(|_| width == 0).filter_map(|case| case.said.text.clone());
    let known: BTreeSet<String> = names.iter().cloned().collect();
    let more: BTreeSet<String> =
        answers.chain(said).filter(|name| !known.contains(name)).take(CLASSES).collect();
    let is_number = |name: &String| name.parse::<f64>().is_ok();
    let mut more: Vec<String> = more.into_iter().collect();
    if more.iter().all(is_number) {
        more.sort_by(|a, b| {
            a.parse::<f64>().unwrap_or(0.0).total_cmp(&b.parse::<f64>().unwrap_or(0.0))
        });
    }
    names.extend(more);
    names
}

/// Scores, and how many labels did not fit.
fn scores(cases: &[Case], task: Option<Task>, names: &[String]) -> (Option<Scores>, u64) {
    let mut unfit = 0;
    let (mut classified, mut estimated) = (Vec::new(), Vec::new());
    let (mut right, mut said) = (0.0, 0.0);
    for case in cases {
        if let Some(is_right) = case.said.right {
            said += case.weight;
            right += case.weight * f64::from(u8::from(is_right));
        }
        let Some(label) = &case.said.text else { continue };
        let fits = match task {
            Some(Task::Classification) => {
                classify(case, label, names).map(|case| classified.push(case)).is_some()
            }
            Some(Task::Regression) => match (case.answer.number, case.said.number) {
                (Some(predicted), Some(actual)) if predicted.is_finite() && actual.is_finite() => {
                    estimated.push(Estimated { predicted, actual, weight: case.weight });
                    true
                }
                _ => false,
            },
            None => false,
        };
        unfit += u64::from(!fits);
    }
    let classification = classification(&classified, names);
    let regression = regression(&estimated);
    let said_right = (said > 0.0).then(|| right / said);
    let is_any = classification.is_some() || regression.is_some() || said_right.is_some();
    let scores = Scores {
        count: cases.len() as u64,
        weight: cases.iter().map(|case| case.weight).sum(),
        said_right,
        classification,
        regression,
    };
    (is_any.then_some(scores), unfit)
}

fn classify(case: &Case, label: &str, names: &[String]) -> Option<Classified> {
    let named = |name: &str| names.iter().position(|known| known == name);
    let numbered = || {
        let number = case.said.number.filter(|n| n.fract() == 0.0 && *n >= 0.0)?;
        (names.len() > number as usize).then_some(number as usize)
    };
    let actual = named(label).or_else(numbered)?;
    let Answer { class, probabilities, number } = &case.answer;
    let mut probabilities = probabilities.clone();
    let predicted = match class {
        Some(class) => named(class)?,
        None if !probabilities.is_empty() => highest(&probabilities),
        None => {
            let probability = number.filter(|p| (0.0..=1.0).contains(p))?;
            probabilities = vec![1.0 - probability, probability];
            usize::from(probability >= 0.5)
        }
    };
    Some(Classified { predicted, actual, probabilities, weight: case.weight })
}

/// Where a slice is a number and there are many, its quarter of all of them.
fn quartiles(cases: &mut [Case]) {
    let numbers: Option<Vec<f64>> = cases.iter().map(|case| case.slice.parse().ok()).collect();
    let Some(mut numbers) = numbers else { return };
    let different: BTreeSet<&str> = cases.iter().map(|case| case.slice.as_str()).collect();
    if different.len() <= 20 {
        return;
    }
    numbers.sort_by(f64::total_cmp);
    let at = |part: usize| numbers[(numbers.len() - 1) * part / 4];
    let borders = [at(1), at(2), at(3)];
    let names = [
        format!("≤ {}", borders[0]),
        format!("≤ {}", borders[1]),
        format!("≤ {}", borders[2]),
        format!("> {}", borders[2]),
    ];
    for case in cases {
        let number: f64 = case.slice.parse().unwrap_or(f64::NAN);
        let place = borders.iter().position(|border| number <= *border).unwrap_or(3);
        case.slice = names[place].clone();
    }
}
