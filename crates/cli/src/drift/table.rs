//! Tables as files, read column by column: no more of them is in memory at once than a few columns.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int32Type};
use arrow::error::ArrowError;
use monitor::drift::{Column, LeftOut, Numbers, Texts};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use rayon::prelude::*;

use crate::Failure;
use crate::registry::is_missing;

/// Rows that are read at once.
const BATCH: usize = 8192;

/// Memory for the columns of a CSV file that are kept during one of its readings.
const KEPT: usize = 64 << 20;

/// A table in a file.
pub struct Table {
    path: PathBuf,
    /// The columns that can be compared, and where they are in the file.
    columns: Vec<(String, usize)>,
    /// Those that cannot.
    pub left_out: Vec<LeftOut>,
    source: Source,
}

enum Source {
    Parquet(ArrowReaderMetadata),
    /// What a first reading has found.
    Csv {
        delimiter: u8,
        rows: usize,
        seen: Vec<Seen>,
    },
}

/// What is known of a column of a CSV file.
#[derive(Clone, Copy)]
struct Seen {
    /// Some cell is no number.
    texts: bool,
    /// Every number is a whole one.
    whole: bool,
}

impl Table {
    /// Opens a `.parquet`, `.csv` or `.tsv` file.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let open = || match path.extension().and_then(|kind| kind.to_str()) {
            Some("parquet" | "pq") => Self::open_parquet(path),
            Some("csv") => Self::open_csv(path, b','),
            Some("tsv") => Self::open_csv(path, b'\t'),
            _ => Err(Failure::usage("expected a file .parquet, .csv or .tsv")),
        };
        open().map_err(|failure| failure.at(path.display()))
    }

    fn open_parquet(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path)?;
        let metadata = ArrowReaderMetadata::load(&file, Default::default())
            .map_err(|error| Failure::new(format!("Parquet: {error}")))?;
        let (mut columns, mut left_out) = (Vec::new(), Vec::new());
        for (place, field) in metadata.schema().fields().iter().enumerate() {
            match unfit(field.data_type()) {
                Some(why) => left_out.push(LeftOut { column: field.name().clone(), why }),
                None => columns.push((field.name().clone(), place)),
            }
        }
        Self::new(path, columns, left_out, Source::Parquet(metadata))
    }

    fn open_csv(path: &Path, delimiter: u8) -> Result<Self, Failure> {
        let mut reader = csv_reader(path, delimiter)?;
        let headers = reader.headers().map_err(of_csv)?;
        let names: Vec<String> = headers.iter().map(str::to_owned).collect();
        if names.is_empty() {
            return Err(Failure::new("is empty: the first line has to name the columns"));
        }
        let mut seen = vec![Seen { texts: false, whole: true }; names.len()];
        let mut record = csv::ByteRecord::new();
        let mut rows = 0;
        while reader.read_byte_record(&mut record).map_err(of_csv)? {
            rows += 1;
            for (cell, seen) in record.iter().zip(&mut seen).filter(|(_, seen)| !seen.texts) {
                if is_missing(cell) {
                    continue;
                }
                seen.texts = number(cell).is_none();
                // As pandas has it: what is written with a point is not whole.
                seen.whole &=
                    std::str::from_utf8(cell).is_ok_and(|t| t.trim().parse::<i64>().is_ok());
            }
        }
        let columns = names.into_iter().enumerate().map(|(place, name)| (name, place)).collect();
        Self::new(path, columns, Vec::new(), Source::Csv { delimiter, rows, seen })
    }

    fn new(
        path: &Path,
        columns: Vec<(String, usize)>,
        left_out: Vec<LeftOut>,
        source: Source,
    ) -> Result<Self, Failure> {
        let mut names = std::collections::HashSet::new();
        if let Some((twice, _)) = columns.iter().find(|(name, _)| !names.insert(name)) {
            return Err(Failure::new(format!("the column \"{twice}\" is there twice")));
        }
        Ok(Self { path: path.to_owned(), columns, left_out, source })
    }

    /// The columns that can be compared.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }

    /// How many columns are best read at once; 1 if each can be read on its own.
    pub fn group(&self) -> usize {
        match &self.source {
            Source::Parquet(_) => 1,
            Source::Csv { rows, .. } => (KEPT / 8 / (rows + 1)).clamp(2, 256),
        }
    }

    fn place(&self, name: &str) -> Result<usize, Failure> {
        let found = self.columns.iter().find(|(column, _)| column == name);
        found.map(|(_, place)| *place).ok_or_else(|| Failure::new(format!("no column \"{name}\"")))
    }

    /// Reads columns by their names.
    pub fn read(&self, names: &[&str]) -> Result<Vec<Column>, Failure> {
        let read = || {
            let places =
                names.iter().map(|name| self.place(name)).collect::<Result<Vec<_>, _>>()?;
            match &self.source {
                Source::Parquet(metadata) => {
                    let one = |place| of_parquet(&self.path, metadata, place);
                    places.into_par_iter().map(one).collect()
                }
                Source::Csv { delimiter, rows, seen } => {
                    let kept = places.iter().map(|place| (*place, seen[*place])).collect();
                    read_csv(&self.path, *delimiter, kept, *rows)
                }
            }
        };
        read().map_err(|failure: Failure| failure.at(self.path.display()))
    }
}

impl Table {
    /// Reads columns of numbers row by row: NaN where there is none, and 1 and 0 for true and false.
    pub fn rows(&self, names: &[&str]) -> Result<Vec<Vec<f64>>, Failure> {
        let read = || {
            let places =
                names.iter().map(|name| self.place(name)).collect::<Result<Vec<_>, _>>()?;
            match &self.source {
                Source::Parquet(metadata) => {
                    let one = |place: &usize| rows_of_parquet(&self.path, metadata, *place);
                    places.par_iter().map(one).collect()
                }
                Source::Csv { delimiter, .. } => rows_of_csv(&self.path, *delimiter, &places),
            }
        };
        read().map_err(|failure: Failure| failure.at(self.path.display()))
    }
}

fn rows_of_parquet(
    path: &Path,
    metadata: &ArrowReaderMetadata,
    place: usize,
) -> Result<Vec<f64>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("Parquet: {error}"));
    let field = metadata.schema().field(place);
    let kind = field.data_type();
    if !kind.is_numeric() && *kind != DataType::Boolean {
        return Err(Failure::new(format!("\"{}\" holds {kind}: expected numbers", field.name())));
    }
    let builder =
        ParquetRecordBatchReaderBuilder::new_with_metadata(File::open(path)?, metadata.clone());
    let mask = ProjectionMask::roots(metadata.parquet_schema(), [place]);
    let mut values = Vec::new();
    for batch in builder.with_projection(mask).build().map_err(|e| failed(&e))? {
        let batch = batch.map_err(|e| failed(&e))?;
        let numbers = cast(batch.column(0), &DataType::Float64).map_err(|e| failed(&e))?;
        let numbers = numbers.as_primitive::<Float64Type>();
        values.extend(numbers.iter().map(|cell| cell.unwrap_or(f64::NAN)));
    }
    Ok(values)
}

fn rows_of_csv(path: &Path, delimiter: u8, places: &[usize]) -> Result<Vec<Vec<f64>>, Failure> {
    let mut reader = csv_reader(path, delimiter)?;
    let names = reader.byte_headers().map_err(of_csv)?.clone();
    let mut columns = vec![Vec::new(); places.len()];
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(of_csv)? {
        for (column, place) in columns.iter_mut().zip(places) {
            let cell = record.get(*place).unwrap_or_default();
            let value = match cell {
                cell if is_missing(cell) => f64::NAN,
                b"true" | b"True" => 1.0,
                b"false" | b"False" => 0.0,
                cell => number(cell).ok_or_else(|| {
                    let name = String::from_utf8_lossy(names.get(*place).unwrap_or_default());
                    let cell = String::from_utf8_lossy(cell);
                    let cell: String = cell.chars().take(40).collect();
                    Failure::new(format!("\"{name}\" holds {cell:?}: expected numbers"))
                })?,
            };
            column.push(value);
        }
    }
    Ok(columns)
}

/// Why values of a type cannot be compared.
fn unfit(kind: &DataType) -> Option<String> {
    match kind {
        kind if kind.is_temporal() => {
            Some(format!("it holds times ({kind}), which always move on"))
        }
        DataType::Dictionary(_, values) => unfit(values),
        kind if kind.is_nested() => {
            Some(format!("it holds {kind}: lists and records are not compared"))
        }
        _ => None,
    }
}

fn of_parquet(
    path: &Path,
    metadata: &ArrowReaderMetadata,
    place: usize,
) -> Result<Column, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("Parquet: {error}"));
    let rows = metadata.metadata().file_metadata().num_rows().max(0) as usize;
    let builder =
        ParquetRecordBatchReaderBuilder::new_with_metadata(File::open(path)?, metadata.clone());
    let mask = ProjectionMask::roots(metadata.parquet_schema(), [place]);
    let reader = builder.with_projection(mask).with_batch_size(BATCH).build();
    let mut gathered = Gathered::new(metadata.schema().field(place).data_type(), rows);
    for batch in reader.map_err(|e| failed(&e))? {
        let batch = batch.map_err(|e| failed(&e))?;
        gathered.add(batch.column(0)).map_err(|e| failed(&e))?;
    }
    Ok(gathered.finish())
}

/// A column while it is read.
enum Gathered {
    Numbers { values: Vec<f64>, missing: u64, whole: bool },
    Texts(Texts),
}

impl Gathered {
    /// `rows`: how many are said to come.
    fn new(kind: &DataType, rows: usize) -> Self {
        let kind = match kind {
            DataType::Dictionary(_, values) => values,
            kind => kind,
        };
        match kind.is_numeric() {
            // A file may say anything of its rows.
            true => Self::Numbers {
                values: Vec::with_capacity(rows.min(1 << 24)),
                missing: 0,
                whole: kind.is_integer(),
            },
            false => Self::Texts(Texts::default()),
        }
    }

    fn add(&mut self, array: &ArrayRef) -> Result<(), ArrowError> {
        match self {
            Self::Numbers { values, missing, .. } => {
                let numbers = cast(array, &DataType::Float64)?;
                let numbers = numbers.as_primitive::<Float64Type>();
                *missing += numbers.null_count() as u64;
                match numbers.null_count() {
                    0 => values.extend_from_slice(numbers.values()),
                    _ => values.extend(numbers.iter().flatten()),
                }
            }
            Self::Texts(texts) => match array.as_any_dictionary_opt() {
                Some(_) => {
                    let kind = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
                    let array = cast(array, &kind)?;
                    let dictionary = array.as_dictionary::<Int32Type>();
                    let words = dictionary.values().as_string::<i32>();
                    let hash = |word: Option<&str>| word.map(|word| texts.learn(word));
                    let hashes: Vec<Option<u64>> = words.iter().map(hash).collect();
                    for key in dictionary.keys() {
                        match key.and_then(|key| hashes.get(key as usize).copied().flatten()) {
                            Some(hash) => texts.repeat(hash),
                            None => texts.skip(),
                        }
                    }
                }
                None => {
                    let words = cast(array, &DataType::Utf8)?;
                    for word in words.as_string::<i32>() {
                        match word {
                            Some(word) => texts.insert(word),
                            None => texts.skip(),
                        }
                    }
                }
            },
        }
        Ok(())
    }

    fn finish(self) -> Column {
        match self {
            Self::Numbers { values, missing, whole } => Numbers::new(values, missing, whole).into(),
            Self::Texts(texts) => texts.finish(),
        }
    }
}

fn read_csv(
    path: &Path,
    delimiter: u8,
    kept: Vec<(usize, Seen)>,
    rows: usize,
) -> Result<Vec<Column>, Failure> {
    let mut reader = csv_reader(path, delimiter)?;
    let gathered = |(_, seen): &(usize, Seen)| match seen.texts {
        true => Gathered::Texts(Texts::default()),
        false => {
            Gathered::Numbers { values: Vec::with_capacity(rows), missing: 0, whole: seen.whole }
        }
    };
    let mut columns: Vec<Gathered> = kept.iter().map(gathered).collect();
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(of_csv)? {
        for (column, (place, _)) in columns.iter_mut().zip(&kept) {
            let cell = record.get(*place).filter(|cell| !is_missing(cell));
            match column {
                Gathered::Numbers { values, missing, .. } => match cell.and_then(number) {
                    Some(value) => values.push(value),
                    None => *missing += 1,
                },
                Gathered::Texts(texts) => match cell.map(String::from_utf8_lossy) {
                    Some(text) => texts.insert(&text),
                    None => texts.skip(),
                },
            }
        }
    }
    Ok(columns.into_par_iter().map(Gathered::finish).collect())
}

fn csv_reader(path: &Path, delimiter: u8) -> Result<csv::Reader<File>, Failure> {
    let mut builder = csv::ReaderBuilder::new();
    Ok(builder.delimiter(delimiter).buffer_capacity(1 << 18).from_reader(File::open(path)?))
}

fn of_csv(error: csv::Error) -> Failure {
    Failure::new(format!("CSV: {error}"))
}

fn number(cell: &[u8]) -> Option<f64> {
    std::str::from_utf8(cell).ok()?.trim().parse().ok()
}
