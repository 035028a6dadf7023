//! Answers as tables, JSON lines or CSV.

use std::io::{self, Write};

use clap::ValueEnum;
use model::{Data, Tensor, match_data};
use serde_json::{Map, Value};

use crate::table::Table;

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, for reading
    Table,
    /// One JSON object for each row
    Json,
    /// Comma-separated text with a heading
    Csv,
}

/// Prints answers as they come.
pub struct Printer<W: Write> {
    format: Format,
    out: W,
    headed: bool,
    row: u64,
}

impl<W: Write> Printer<W> {
    /// Prints to `out`.
    pub fn new(format: Format, out: W) -> Self {
        Self { format, out, headed: false, row: 0 }
    }

    /// Prints one answer: rows if every output has as many, else each output as a whole.
    pub fn print(&mut self, outputs: &[(String, Tensor)]) -> io::Result<()> {
        let rows = outputs.first().and_then(|(_, tensor)| tensor.rows());
        match rows.filter(|rows| outputs.iter().all(|(_, tensor)| tensor.rows() == Some(*rows))) {
            Some(rows) => self.print_rows(outputs, rows)?,
            None => self.print_whole(outputs)?,
        }
        self.out.flush()
    }

    fn print_rows(&mut self, outputs: &[(String, Tensor)], rows: usize) -> io::Result<()> {
        if self.format == Format::Json {
            for row in 0..rows {
                let fields =
                    outputs.iter().map(|(name, tensor)| (name.clone(), row_json(tensor, row)));
                writeln!(self.out, "{}", Value::Object(fields.collect()))?;
            }
            return Ok(());
        }
        let headings: Vec<String> = outputs.iter().flat_map(|(n, t)| headings(n, t)).collect();
        let cells = |row| outputs.iter().flat_map(move |(_, tensor)| row_cells(tensor, row));
        if self.format == Format::Csv {
            let mut writer = csv::Writer::from_writer(&mut self.out);
            if !self.headed {
                writer.write_record(&headings)?;
            }
            for row in 0..rows {
                writer.write_record(cells(row))?;
            }
            self.headed = true;
            return writer.flush();
        }
        // A row of a thousand columns is read by nobody; the other formats have all of them.
        const MOST: usize = 12;
        let hidden = headings.len().saturating_sub(MOST);
        let short = |mut cells: Vec<String>, last: String| {
            if hidden > 0 {
                cells.truncate(MOST);
                cells.push(last);
            }
            cells
        };
        let headings = short(headings, format!("… {hidden} more"));
        let mut table = Table::with([vec!["row".to_owned()], headings].concat()).right(0);
        for row in 0..rows {
            self.row += 1;
            let cells = short(cells(row).collect(), String::new());
            table.row([vec![self.row.to_string()], cells].concat());
        }
        let text = table.text(0);
        let start = if self.headed { text.find('\n').map_or(0, |end| end + 1) } else { 0 };
        self.headed = true;
        self.out.write_all(&text.as_bytes()[start..])
    }

    fn print_whole(&mut self, outputs: &[(String, Tensor)]) -> io::Result<()> {
        if self.format == Format::Json {
            let field = |(name, tensor): &(String, Tensor)| {
                let values: Vec<Value> =
                    (0..tensor.len()).map(|i| element(tensor.data(), i)).collect();
                (name.clone(), serde_json::json!({"shape": tensor.shape(), "data": values}))
            };
            return writeln!(
                self.out,
                "{}",
                Value::Object(outputs.iter().map(field).collect::<Map<_, _>>())
            );
        }
        for (name, tensor) in outputs {
            let shown =
                if self.format == Format::Csv { tensor.len() } else { tensor.len().min(12) };
            let values: Vec<String> = (0..shown).map(|i| text(tensor.data(), i)).collect();
            let more = if shown < tensor.len() { ", …" } else { "" };
            let (datatype, shape) = (tensor.datatype(), tensor.shape());
            writeln!(self.out, "{name} {datatype} {shape:?}: {}{more}", values.join(", "))?;
        }
        Ok(())
    }
}

fn width(tensor: &Tensor) -> usize {
    tensor.shape().iter().skip(1).product()
}

fn headings(name: &str, tensor: &Tensor) -> Vec<String> {
    match tensor.shape().len() {
        1 => vec![name.to_owned()],
        _ if width(tensor) == 1 => vec![name.to_owned()],
        _ => (0..width(tensor)).map(|i| format!("{name}[{i}]")).collect(),
    }
}

fn row_cells(tensor: &Tensor, row: usize) -> impl Iterator<Item = String> + '_ {
    let width = width(tensor);
    (row * width..(row + 1) * width).map(|i| text(tensor.data(), i))
}

fn row_json(tensor: &Tensor, row: usize) -> Value {
    let width = width(tensor);
    match tensor.shape().len() {
        1 => element(tensor.data(), row),
        _ => (row * width..(row + 1) * width).map(|i| element(tensor.data(), i)).collect(),
    }
}

fn text(data: &Data, i: usize) -> String {
    match data {
        Data::Bool(bools) => (bools[i] != 0).to_string(),
        Data::Bytes(strings) => String::from_utf8_lossy(&strings[i]).into_owned(),
        data => match_data!(data, buffer => buffer[i].to_string(), _strings => String::new()),
    }
}

/// An element as JSON; what JSON cannot hold, such as NaN, is null.
fn element(data: &Data, i: usize) -> Value {
    match data {
        Data::Bool(bools) => (bools[i] != 0).into(),
        Data::Bytes(strings) => String::from_utf8_lossy(&strings[i]).into(),
        data => serde_json::from_str(&text(data, i)).unwrap_or(Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format, outputs: &[(String, Tensor)]) -> String {
        let mut printer = Printer::new(format, Vec::new());
        printer.print(outputs).unwrap();
        printer.print(outputs).unwrap();
        String::from_utf8(printer.out).unwrap()
    }

    #[test]
    fn rows_are_printed_in_every_format() {
        let outputs = [
            ("label".to_owned(), Tensor::new(vec![1], vec!["a,b".to_owned()]).unwrap()),
            ("p".to_owned(), Tensor::new(vec![1, 2], vec![0.1f32, f32::NAN]).unwrap()),
        ];
        let table = printed(Format::Table, &outputs);
        assert_eq!(table, "row  label  p[0]  p[1]\n  1  a,b    0.1   NaN\n  2  a,b    0.1   NaN\n");
        let csv = printed(Format::Csv, &outputs);
        assert_eq!(csv, "label,p[0],p[1]\n\"a,b\",0.1,NaN\n\"a,b\",0.1,NaN\n");
        let json = printed(Format::Json, &outputs);
        assert_eq!(json.lines().next().unwrap(), r#"{"label":"a,b","p":[0.1,null]}"#);
    }

    #[test]
    fn outputs_that_are_no_rows_are_printed_whole() {
        let outputs = [
            ("s".to_owned(), Tensor::scalar(vec![1.5f32])),
            ("v".to_owned(), Tensor::new(vec![2], vec![1i64, 2]).unwrap()),
        ];
        assert!(
            printed(Format::Table, &outputs).starts_with("s FP32 []: 1.5\nv INT64 [2]: 1, 2\n")
        );
    }
}
