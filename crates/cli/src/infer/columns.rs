//! Which columns make which input, and cells as tensors.

use bytes::Bytes;
use model::{Data, DataType, Tensor, bf16, f16};

use super::rows::Column;
use crate::Failure;
use crate::oip::{Metadata, Spec};

/// How columns become the model's inputs.
#[derive(Clone, Debug, PartialEq)]
pub enum Mapping {
    /// Each input takes the column of its name: input and column, by position.
    Named(Vec<(usize, usize)>),
    /// The model's one input takes these columns side by side.
    Matrix(Vec<usize>),
}

/// Decides how these columns fit this model. `chosen` names the columns that are to be used, in order.
pub fn map(metadata: &Metadata, columns: &[Column], chosen: &[String]) -> Result<Mapping, Failure> {
    let position = |name: &str| columns.iter().position(|column| column.name == name);
    let inputs = &metadata.inputs;
    if chosen.is_empty() {
        let named: Vec<_> = inputs.iter().map(|spec| position(&spec.name)).collect();
        if named.iter().all(Option::is_some) && inputs.iter().all(is_column) {
            return Ok(Mapping::Named(named.into_iter().flatten().enumerate().collect()));
        }
    }
    let [single] = &inputs[..] else { return Err(misfit(metadata, columns)) };
    let used: Vec<usize> = if chosen.is_empty() {
        let fits = |column: &Column| single.datatype == DataType::Bytes || is_numeric(column);
        (0..columns.len()).filter(|i| fits(&columns[*i])).collect()
    } else {
        let find = |name: &String| {
            position(name).ok_or_else(|| {
                Failure::usage(format!("--columns {name}: the columns are {}", names(columns)))
            })
        };
        chosen.iter().map(find).collect::<Result<_, _>>()?
    };
    match single.shape[..] {
        [_, width] if width < 0 || usize::try_from(width) == Ok(used.len()) => {}
        [_] if used.len() == 1 => {}
        [_, width] => {
            return Err(Failure::new(format!(
                "input \"{}\" takes {width} columns, and there are {} that fit: {}",
                single.name,
                used.len(),
                list(used.iter().map(|i| columns[*i].name.as_str())),
            ))
            .help("choose which, in order, with --columns a,b,c"));
        }
        _ => return Err(misfit(metadata, columns)),
    }
    Ok(Mapping::Matrix(used))
}

/// Whether an input has one value in each row.
fn is_column(spec: &Spec) -> bool {
    matches!(spec.shape[..], [_] | [_, 1])
}

fn is_numeric(column: &Column) -> bool {
    column.cells.iter().flatten().all(|cell| cell.trim().parse::<f64>().is_ok())
}

fn names(columns: &[Column]) -> String {
    list(columns.iter().map(|column| column.name.as_str()))
}

/// Names with commas between; the first thirty will do.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    let more = if names.len() > 30 { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(30)].join(", "))
}

fn misfit(metadata: &Metadata, columns: &[Column]) -> Failure {
    let input = |spec: &Spec| format!("{} {} {:?}", spec.name, spec.datatype, spec.shape);
    let inputs: Vec<String> = metadata.inputs.iter().map(input).collect();
    Failure::new(format!(
        "the columns do not fit the model: it takes {}; the columns are {}",
        inputs.join(", "),
        names(columns)
    ))
    .help("name columns as the inputs, or send a request in JSON")
}

/// Makes the tensors of some rows. `first` is the number of the first row, for messages.
pub fn tensors(
    metadata: &Metadata,
    mapping: &Mapping,
    columns: &[Column],
    first: u64,
) -> Result<Vec<(String, Tensor)>, Failure> {
    let rows = columns.first().map_or(0, |column| column.cells.len());
    let tensor = |spec: &Spec, used: &[usize]| {
        let mut cells = Cells { spec, columns, used, first };
        let shape = match spec.shape.len() {
            1 => vec![rows],
            _ => vec![rows, used.len()],
        };
        let data = cells.data(rows)?;
        Ok((spec.name.clone(), Tensor::new(shape, data).expect("a cell for each element")))
    };
    match mapping {
        Mapping::Named(pairs) => {
            pairs.iter().map(|(i, column)| tensor(&metadata.inputs[*i], &[*column])).collect()
        }
        Mapping::Matrix(used) => Ok(vec![tensor(&metadata.inputs[0], used)?]),
    }
}

/// The cells of one input, row by row.
struct Cells<'a> {
    spec: &'a Spec,
    columns: &'a [Column],
    used: &'a [usize],
    first: u64,
}

impl Cells<'_> {
    fn data(&mut self, rows: usize) -> Result<Data, Failure> {
        Ok(match self.spec.datatype {
            DataType::Bool => self.parsed(rows, None, |cell| match cell {
                "true" | "True" | "TRUE" | "1" => Some(true),
                "false" | "False" | "FALSE" | "0" => Some(false),
                _ => None,
            })?,
            DataType::Uint8 => self.parsed(rows, None, integer::<u8>)?,
            DataType::Uint16 => self.parsed(rows, None, integer::<u16>)?,
            DataType::Uint32 => self.parsed(rows, None, integer::<u32>)?,
            DataType::Uint64 => self.parsed(rows, None, integer::<u64>)?,
            DataType::Int8 => self.parsed(rows, None, integer::<i8>)?,
            DataType::Int16 => self.parsed(rows, None, integer::<i16>)?,
            DataType::Int32 => self.parsed(rows, None, integer::<i32>)?,
            DataType::Int64 => self.parsed(rows, None, integer::<i64>)?,
            DataType::Fp16 => {
                self.parsed(rows, Some(f16::NAN), |c| c.parse().ok().map(f16::from_f64))?
            }
            DataType::Bf16 => {
                self.parsed(rows, Some(bf16::NAN), |c| c.parse().ok().map(bf16::from_f64))?
            }
            DataType::Fp32 => self.parsed(rows, Some(f32::NAN), |cell| {
                let value: f32 = cell.parse().ok()?;
                // 1e39 would become infinite without a word.
                (value.is_finite() || !cell.contains(|c: char| c.is_ascii_digit())).then_some(value)
            })?,
            DataType::Fp64 => self.parsed(rows, Some(f64::NAN), |cell| cell.parse().ok())?,
            DataType::Bytes => {
                self.parsed(rows, Some(Bytes::new()), |cell| Some(Bytes::from(cell.to_owned())))?
            }
        })
    }

    /// Reads every cell; a missing one is `missing`, or an error if the type has no such value.
    fn parsed<T: Clone>(
        &self,
        rows: usize,
        missing: Option<T>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Data, Failure>
    where
        Data: From<Vec<T>>,
    {
        let mut values = Vec::with_capacity(rows * self.used.len());
        for row in 0..rows {
            for column in self.used {
                let Column { name, cells } = &self.columns[*column];
                let value = match &cells[row] {
                    Some(cell) if self.spec.datatype == DataType::Bytes => parse(cell),
                    Some(cell) => parse(cell.trim()),
                    None => missing.clone(),
                };
                values.push(value.ok_or_else(|| {
                    let found =
                        cells[row].as_ref().map_or("nothing".into(), |c| format!("\"{c}\""));
                    Failure::new(format!(
                        "row {}, column \"{name}\": expected {} for input \"{}\", found {found}",
                        self.first + row as u64,
                        self.spec.datatype,
                        self.spec.name
                    ))
                })?);
            }
        }
        Ok(values.into())
    }
}

/// A whole number; `3.0` is one, as tools that know only floats write it.
fn integer<T: TryFrom<i128>>(cell: &str) -> Option<T> {
    let exact = cell.parse::<i128>().ok();
    let whole = || cell.parse::<f64>().ok().filter(|v| v.fract() == 0.0 && v.abs() < 9e15);
    T::try_from(exact.or_else(|| whole().map(|v| v as i128))?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, cells: &[&str]) -> Column {
        let cells = cells.iter().map(|c| (!c.is_empty()).then(|| (*c).to_owned())).collect();
        Column { name: name.into(), cells }
    }

    fn model(inputs: &[(&str, DataType, &[i64])]) -> Metadata {
        let spec = |(name, datatype, shape): &(&str, DataType, &[i64])| Spec {
            name: (*name).into(),
            datatype: *datatype,
            shape: shape.to_vec(),
        };
        Metadata { inputs: inputs.iter().map(spec).collect() }
    }

    #[test]
    fn columns_are_taken_by_name() {
        let model =
            model(&[("age", DataType::Int64, &[-1, 1]), ("job", DataType::Bytes, &[-1, 1])]);
        let columns = [
            column("job", &["smith", ""]),
            column("id", &["7", "8"]),
            column("age", &["3.0", "4"]),
        ];
        let mapping = map(&model, &columns, &[]).unwrap();
        let made = tensors(&model, &mapping, &columns, 1).unwrap();
        assert_eq!(made[0].1.as_slice::<i64>().unwrap(), [3, 4]);
        assert_eq!(made[1].1.as_strings().unwrap()[1], "");
    }

    #[test]
    fn one_matrix_takes_the_numeric_columns() {
        let model = model(&[("X", DataType::Fp32, &[-1, 2])]);
        let columns =
            [column("a", &["1", ""]), column("name", &["x", "y"]), column("b", &["2", "4"])];
        let mapping = map(&model, &columns, &[]).unwrap();
        assert_eq!(mapping, Mapping::Matrix(vec![0, 2]));
        let made = tensors(&model, &mapping, &columns, 1).unwrap();
        let values = made[0].1.as_slice::<f32>().unwrap();
        assert!(values[2].is_nan() && values[..2] == [1.0, 2.0], "{values:?}");
        let swapped = map(&model, &columns, &["b".into(), "a".into()]).unwrap();
        assert_eq!(swapped, Mapping::Matrix(vec![2, 0]));
        let wide = [&columns[..], &[column("c", &["5", "6"])]].concat();
        let message = format!("{:?}", map(&model, &wide, &[]).unwrap_err());
        assert!(
            message.contains("takes 2 columns, and there are 3 that fit: a, b, c"),
            "{message}"
        );
    }

    #[test]
    fn a_cell_that_does_not_fit_is_named() {
        let model = model(&[("n", DataType::Int8, &[-1])]);
        for (cell, found) in [("300", "\"300\""), ("", "nothing"), ("2.5", "\"2.5\"")] {
            let columns = [column("n", &["1", cell])];
            let mapping = Mapping::Named(vec![(0, 0)]);
            let error = format!("{:?}", tensors(&model, &mapping, &columns, 41).unwrap_err());
            assert!(error.contains("row 42, column \\\"n\\\""), "{error}");
            assert!(error.contains(&found.replace('"', "\\\"")), "{error}");
        }
        let float = self::model(&[("f", DataType::Fp32, &[-1])]);
        let columns = [column("f", &["1e39"])];
        assert!(tensors(&float, &Mapping::Matrix(vec![0]), &columns, 1).is_err());
    }
}
