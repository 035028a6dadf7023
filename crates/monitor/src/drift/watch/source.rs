//! Which elements of which tensors are a feature.

use std::ops::Range;

use model::{Data, Observation, Signature, Tensor, TensorSpec};
use serde::{Deserialize, Serialize};

use super::ROWS;
use crate::profile::{Column, Profile, Value};

/// Rows wider than this are watched by their statistics: an image, an embedding.
const WIDEST: usize = 64;

/// Features that are watched at most.
const MOST: usize = 256;

/// What a wide row is watched by.
const STATISTICS: [&str; 5] = ["mean", "deviation", "least", "most", "length"];

/// The features of one tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// Its place among the inputs, or the outputs.
    place: usize,
    predicted: bool,
    /// Elements of a row.
    width: usize,
    /// Whether the first dimension is of rows.
    batched: bool,
    first: usize,
    count: usize,
}

/// A feature.
pub(super) struct Source<'a> {
    pub name: String,
    pub predicted: bool,
    pub profile: Option<&'a Column>,
}

/// All features.
pub(super) struct Sources<'a> {
    pub groups: Vec<Group>,
    pub columns: Vec<Source<'a>>,
    pub notes: Vec<String>,
}

/// The features that a signature has, and what a profile knows of each.
pub(super) fn of<'a>(signature: &Signature, profile: Option<&'a Profile>) -> Sources<'a> {
    let mut sources = Sources { groups: Vec::new(), columns: Vec::new(), notes: Vec::new() };
    let inputs = signature.inputs.iter().enumerate().map(|(i, spec)| (i, spec, false));
    let outputs = signature.outputs.iter().enumerate().map(|(i, spec)| (i, spec, true));
    for (place, spec, predicted) in inputs.chain(outputs) {
        let Some(width) = width(spec, signature.batched) else {
            let why = "its rows have no fixed width, so it is not watched";
            sources.notes.push(format!("{:?}: {why}", &*spec.name));
            continue;
        };
        let columns = match predicted {
            true => Vec::new(),
            false => columns_of(spec, width, profile, &mut sources.notes),
        };
        let names: Vec<String> = match width {
            1 if columns.is_empty() => vec![spec.name.to_string()],
            _ if width > WIDEST => {
                STATISTICS.iter().map(|statistic| format!("{}: {statistic}", spec.name)).collect()
            }
            _ if columns.is_empty() => (0..width).map(|i| format!("{}[{i}]", spec.name)).collect(),
            _ => columns.iter().map(|column| column.name.clone()).collect(),
        };
        if sources.columns.len() + names.len() > MOST {
            let note = format!("{:?} is not watched: at most {MOST} features are", &*spec.name);
            sources.notes.push(note);
            continue;
        }
        let (first, count) = (sources.columns.len(), names.len());
        let batched = signature.batched;
        sources.groups.push(Group { place, predicted, width, batched, first, count });
        let known = |i: usize| (width <= WIDEST).then(|| columns.get(i).copied()).flatten();
        let features = names.into_iter().enumerate();
        sources.columns.extend(features.map(|(i, name)| Source {
            name,
            predicted,
            profile: known(i),
        }));
    }
    sources
}

/// Elements of a row, if that is known.
fn width(spec: &TensorSpec, batched: bool) -> Option<usize> {
    let extents = spec.extents();
    spec.shape.as_ref()?;
    let inner = if batched { extents.get(1..)? } else { &extents[..] };
    let sizes = inner.iter().map(|extent| usize::try_from(*extent).ok());
    let width =
        sizes.collect::<Option<Vec<usize>>>()?.into_iter().try_fold(1usize, usize::checked_mul)?;
    (width > 0).then_some(width)
}

/// The columns of a profile that an input has, in its order; none if they do not fit.
fn columns_of<'a>(
    spec: &TensorSpec,
    width: usize,
    profile: Option<&'a Profile>,
    notes: &mut Vec<String>,
) -> Vec<&'a Column> {
    let Some(profile) = profile else { return Vec::new() };
    let matched = profile
        .matched
        .as_ref()
        .and_then(|matched| matched.inputs.iter().find(|input| input.name == *spec.name));
    let names = match matched {
        Some(input) => input.columns.clone(),
        None => vec![spec.name.to_string()],
    };
    let columns: Vec<&Column> = names.iter().filter_map(|name| profile.column(name)).collect();
    if columns.len() != width {
        let found = columns.len();
        notes.push(format!(
            "the profile has {found} columns for the input {:?}, which has {width}: it is learned from its first rows",
            &*spec.name
        ));
        return Vec::new();
    }
    columns
}

impl Group {
    /// Whose features these are.
    pub fn features(&self) -> Range<usize> {
        self.first..self.first + self.count
    }

    /// Shows the values of some rows, each with the place of its feature in the group. How many
    /// rows were shown, and how many there are.
    pub fn take(
        &self,
        observation: &Observation,
        mut each: impl FnMut(usize, Value<'_>),
    ) -> (u64, u64) {
        let tensor = match self.predicted {
            true => observation.outputs.get(self.place),
            false => observation.inputs.get(self.place).and_then(Option::as_ref),
        };
        let Some(tensor) = tensor else {
            // An optional input that was left out.
            (0..self.count).for_each(|place| each(place, Value::Missing));
            return (1, 1);
        };
        let rows = self.rows(tensor);
        let taken = rows.min(ROWS);
        // Spread over all rows, since neighbours may be alike.
        let picked = (0..taken).map(|i| i * rows / taken.max(1));
        if self.width > WIDEST {
            wide(tensor, self.width, picked, each);
        } else {
            numbers(tensor, self.width, picked, &mut each);
        }
        (taken as u64, rows as u64)
    }

    /// How many rows of the expected width a tensor has; none if it has another.
    fn rows(&self, tensor: &Tensor) -> usize {
        let rows = if self.batched { tensor.rows().unwrap_or(0) } else { 1 };
        if rows.checked_mul(self.width) == Some(tensor.len()) { rows } else { 0 }
    }
}

/// Runs one expression with each plain buffer, and the way its elements become numbers.
macro_rules! plain {
    ($data:expr, $buffer:ident, $number:ident => $run:expr, $strings:ident => $texts:expr) => {
        match $data {
            Data::Bool($buffer) | Data::Uint8($buffer) => {
                let $number = |x: u8| f64::from(x);
                $run
            }
            Data::Uint16($buffer) => {
                let $number = |x: u16| f64::from(x);
                $run
            }
            Data::Uint32($buffer) => {
                let $number = |x: u32| f64::from(x);
                $run
            }
            Data::Uint64($buffer) => {
                let $number = |x: u64| x as f64;
                $run
            }
            Data::Int8($buffer) => {
                let $number = |x: i8| f64::from(x);
                $run
            }
            Data::Int16($buffer) => {
                let $number = |x: i16| f64::from(x);
                $run
            }
            Data::Int32($buffer) => {
                let $number = |x: i32| f64::from(x);
                $run
            }
            Data::Int64($buffer) => {
                let $number = |x: i64| x as f64;
                $run
            }
            Data::Fp16($buffer) => {
                let $number = |x: half::f16| x.to_f64();
                $run
            }
            Data::Bf16($buffer) => {
                let $number = |x: half::bf16| x.to_f64();
                $run
            }
            Data::Fp32($buffer) => {
                let $number = |x: f32| f64::from(x);
                $run
            }
            Data::Fp64($buffer) => {
                let $number = |x: f64| x;
                $run
            }
            Data::Bytes($strings) => $texts,
        }
    };
}

fn numbers(
    tensor: &Tensor,
    width: usize,
    rows: impl Iterator<Item = usize>,
    each: &mut impl FnMut(usize, Value<'_>),
) {
    plain!(tensor.data(), buffer, number => {
        for row in rows {
            let cells = &buffer[row * width..(row + 1) * width];
            cells.iter().enumerate().for_each(|(i, cell)| each(i, Value::Number(number(*cell))));
        }
    }, strings => {
        for row in rows {
            let cells = &strings[row * width..(row + 1) * width];
            for (i, cell) in cells.iter().enumerate() {
                let text = String::from_utf8_lossy(cell);
                each(i, if text.is_empty() { Value::Missing } else { Value::Text(&text) });
            }
        }
    });
}

/// The statistics of wide rows.
fn wide(
    tensor: &Tensor,
    width: usize,
    rows: impl Iterator<Item = usize>,
    mut each: impl FnMut(usize, Value<'_>),
) {
    plain!(tensor.data(), buffer, number => {
        for row in rows {
            let cells = &buffer[row * width..(row + 1) * width];
            // No more than some thousands of them: an image may have millions.
            let step = width.div_ceil(4096);
            let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
            let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
            for x in cells.iter().step_by(step).map(|cell| number(*cell)) {
                (sum, squares, count) = (sum + x, squares + x * x, count + 1.0);
                (least, most) = (least.min(x), most.max(x));
            }
            let mean = sum / count;
            let deviation = (squares / count - mean * mean).max(0.0).sqrt();
            let length = (squares / count * width as f64).sqrt();
            let all = [mean, deviation, least, most, length];
            all.into_iter().enumerate().for_each(|(i, value)| each(i, Value::Number(value)));
        }
    }, strings => {
        for row in rows {
            let cells = &strings[row * width..(row + 1) * width];
            // Of texts there is their length alone.
            let length = cells.iter().map(|cell| cell.len()).sum::<usize>() as f64;
            (0..STATISTICS.len()).for_each(|i| each(i, Value::Number(length)));
        }
    });
}
