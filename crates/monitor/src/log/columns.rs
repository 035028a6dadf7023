//! Predictions as rows and columns. Pure.
//!
//! There is a row for each row of a request's batch. A tensor that has one value a row is a column
//! of such values; a wider one is a column of lists, row-major.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Builder, Int32Builder, ListArray, NullBufferBuilder,
    PrimitiveArray, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Schema, SchemaRef, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use model::{Data, DataType, Dimension, Observation, Outcome, Signature, Tensor, TensorSpec};

use super::rules::{MASK, Rules, Salt, Treatment};

/// What every row begins with.
pub const LEADING: [&str; 11] = [
    "time",
    "request_id",
    "row",
    "version",
    "route",
    "answered_by",
    "code",
    "queue_seconds",
    "compute_seconds",
    "batch_size",
    "weight",
];

/// A prediction that is kept, and how many it stands for.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The prediction.
    pub observation: Observation,
    /// How many predictions it stands for, itself included.
    pub weight: f64,
}

/// The rows of one version of a model, as they gather.
pub struct Rows {
    signature: Arc<Signature>,
    leading: Leading,
    inputs: Vec<Option<Column>>,
    outputs: Vec<Option<Column>>,
    rows: usize,
    bytes: usize,
    /// Cells of tensors that had more elements than are kept.
    left_out: u64,
    /// The most elements of a cell.
    widest: usize,
    /// Columns of tensors that are not written as they are.
    hidden: Vec<String>,
}

struct Leading {
    time: TimestampMicrosecondBuilder,
    request_id: StringBuilder,
    id_treatment: Treatment,
    row: Int32Builder,
    version: StringBuilder,
    route: StringBuilder,
    answered_by: StringBuilder,
    code: StringBuilder,
    queue: Float64Builder,
    compute: Float64Builder,
    batch_size: Int32Builder,
    weight: Float64Builder,
    salt: Option<Salt>,
}

impl Rows {
    /// No rows yet, of a version of this signature. A cell with more elements than `widest` is left
    /// out, and counted.
    pub fn new(model: &str, signature: Arc<Signature>, rules: &Rules, widest: usize) -> Self {
        let mut hidden = Vec::new();
        let mut column = |kind: &str, spec: &TensorSpec| {
            let name = format!("{kind}_{}", spec.name);
            let treatment = rules.treatment(model, &name);
            if treatment != Treatment::Keep {
                hidden.push(name.clone());
            }
            (treatment != Treatment::LeaveOut).then(|| {
                let salt = (treatment == Treatment::Hash).then(|| rules.salt.clone()).flatten();
                Column::new(name, spec, signature.batched, (treatment, salt))
            })
        };
        let id_treatment = rules.treatment(model, "request_id");
        Self {
            inputs: signature.inputs.iter().map(|spec| column("input", spec)).collect(),
            outputs: signature.outputs.iter().map(|spec| column("output", spec)).collect(),
            hidden,
            leading: Leading::new(id_treatment, rules.salt.clone()),
            signature,
            rows: 0,
            bytes: 0,
            left_out: 0,
            widest,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// About how many bytes they take in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Columns of inputs and outputs that a rule masks, hashes or leaves out.
    pub fn hidden(&self) -> &[String] {
        &self.hidden
    }

    /// Cells that were left out because they had too many elements.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// What the version takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Adds the rows of a prediction of a version of this signature. A prediction with nothing to show
    /// is a row, too.
    pub fn add(&mut self, kept: &Kept) {
        let observation = &kept.observation;
        let tensors = observation.inputs.iter().flatten().chain(observation.outputs.iter());
        let rows = match self.signature.batched {
            true => tensors.clone().next().and_then(|tensor| tensor.shape().first().copied()),
            false => None,
        };
        let rows = rows.unwrap_or(1).max(1);
        self.leading.add(kept, rows);
        let inputs = observation.inputs.iter().map(Option::as_ref);
        let outputs = observation.outputs.iter().map(Some);
        let mut left_out = 0;
        let cells = self.inputs.iter_mut().zip(inputs.chain(std::iter::repeat(None)));
        let cells =
            cells.chain(self.outputs.iter_mut().zip(outputs.chain(std::iter::repeat(None))));
        for (column, tensor) in cells {
            if let Some(column) = column {
                left_out += column.add(tensor, rows, self.widest);
            }
        }
        self.left_out += left_out;
        self.rows += rows;
        // What the leading columns take, and a little for the lists' ends.
        self.bytes += observation.bytes() + rows * 150;
    }

    /// The rows as a table.
    pub fn finish(self) -> Result<RecordBatch, ArrowError> {
        let (mut fields, mut columns) = self.leading.finish();
        for column in self.inputs.into_iter().chain(self.outputs).flatten() {
            column.finish(&mut fields, &mut columns)?;
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        RecordBatch::try_new(schema, columns)
    }
}

impl Leading {
    fn new(id_treatment: Treatment, salt: Option<Salt>) -> Self {
        Self {
            time: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            request_id: StringBuilder::new(),
            id_treatment,
            row: Int32Builder::new(),
            version: StringBuilder::new(),
            route: StringBuilder::new(),
            answered_by: StringBuilder::new(),
            code: StringBuilder::new(),
            queue: Float64Builder::new(),
            compute: Float64Builder::new(),
            batch_size: Int32Builder::new(),
            weight: Float64Builder::new(),
            salt,
        }
    }

    fn add(&mut self, kept: &Kept, rows: usize) {
        let observation = &kept.observation;
        let time = super::files::timestamp(observation.at).as_microsecond();
        let id = observation.id.as_deref().and_then(|id| match (self.id_treatment, &self.salt) {
            (Treatment::Keep, _) => Some(id.to_owned()),
            (Treatment::Mask, _) => Some(MASK.to_owned()),
            (Treatment::Hash, Some(salt)) => Some(salt.hash(id.as_bytes())),
            _ => None,
        });
        let (route, answered_by) = match &observation.shadow {
            None => ("answered", &observation.version),
            Some(shadow) => ("shadow", &shadow.version),
        };
        let code = match observation.outcome {
            Outcome::Answered => "OK",
            Outcome::Failed(code) => code.as_str(),
        };
        let batch_size = i32::try_from(observation.batch_size).unwrap_or(i32::MAX);
        for row in 0..rows {
            self.time.append_value(time);
            self.request_id.append_option(id.as_deref());
            self.row.append_value(i32::try_from(row).unwrap_or(i32::MAX));
            self.version.append_value(&observation.version);
            self.route.append_value(route);
            self.answered_by.append_value(answered_by);
            self.code.append_value(code);
            self.queue.append_value(observation.queue.as_secs_f64());
            self.compute.append_value(observation.compute.as_secs_f64());
            self.batch_size.append_value(batch_size);
            self.weight.append_value(kept.weight);
        }
    }

    fn finish(mut self) -> (Vec<Field>, Vec<ArrayRef>) {
        let columns: [ArrayRef; LEADING.len()] = [
            Arc::new(self.time.finish()),
            Arc::new(self.request_id.finish()),
            Arc::new(self.row.finish()),
            Arc::new(self.version.finish()),
            Arc::new(self.route.finish()),
            Arc::new(self.answered_by.finish()),
            Arc::new(self.code.finish()),
            Arc::new(self.queue.finish()),
            Arc::new(self.compute.finish()),
            Arc::new(self.batch_size.finish()),
            Arc::new(self.weight.finish()),
        ];
        let field = |(name, column): (&str, &ArrayRef)| {
            Field::new(name, column.data_type().clone(), name == "request_id")
        };
        (LEADING.into_iter().zip(&columns).map(field).collect(), columns.into())
    }
}

/// A tensor's part of the rows.
struct Column {
    name: String,
    datatype: DataType,
    /// Whether the tensor's first dimension is the rows.
    batched: bool,
    /// Where the lists end; `None` if there is one value a row.
    ends: Option<Vec<i32>>,
    /// The shapes of the rows, where the number of elements does not tell them.
    shapes: Option<Shapes>,
    present: NullBufferBuilder,
    values: Values,
    treatment: Treatment,
    salt: Option<Salt>,
}

#[derive(Default)]
struct Shapes {
    extents: Vec<i32>,
    ends: Vec<i32>,
}

/// The elements of all rows, as they are written: half precision has no type that all readers know.
enum Values {
    Bool(Vec<bool>),
    Uint8(Vec<u8>),
    Uint16(Vec<u16>),
    Uint32(Vec<u32>),
    Uint64(Vec<u64>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Fp32(Vec<f32>),
    Fp64(Vec<f64>),
    Text(StringBuilder),
}

impl Column {
    fn new(
        name: String,
        spec: &TensorSpec,
        batched: bool,
        (treatment, salt): (Treatment, Option<Salt>),
    ) -> Self {
        let dims = spec.shape.as_deref();
        let dims = match batched {
            true => dims.map(|dims| dims.get(1..).unwrap_or_default()),
            false => dims,
        };
        let is_one = |dims: &[Dimension]| dims.iter().all(|dim| *dim == Dimension::Fixed(1));
        let varying = dims.map(|dims| dims.iter().filter(|dim| dim.extent() < 0).count());
        // One that varies follows from the number of elements.
        let shape_follows = varying.is_some_and(|varying| varying <= 1);
        Self {
            name,
            datatype: spec.datatype,
            batched,
            ends: (!dims.is_some_and(is_one)).then(|| vec![0]),
            shapes: (!shape_follows).then(|| Shapes { extents: Vec::new(), ends: vec![0] }),
            present: NullBufferBuilder::new(0),
            values: match treatment {
                Treatment::Keep => Values::new(spec.datatype),
                _ => Values::new(DataType::Bytes),
            },
            treatment,
            salt,
        }
    }

    /// Adds a tensor's rows, or as many cells without a value. Returns how many cells were left out
    /// because they were too large.
    fn add(&mut self, tensor: Option<&Tensor>, rows: usize, widest: usize) -> u64 {
        let fits = |tensor: &&Tensor| {
            let own_rows = match self.batched {
                true => tensor.shape().first().copied(),
                false => Some(1),
            };
            let width = tensor.data().len().checked_div(rows).unwrap_or_default();
            tensor.datatype() == self.datatype
                && own_rows == Some(rows)
                && (self.ends.is_some() || width == 1)
        };
        let Some(tensor) = tensor.filter(fits) else {
            self.skip(rows);
            return 0;
        };
        let width = tensor.data().len() / rows;
        if width > widest {
            self.skip(rows);
            return rows as u64;
        }
        self.present.append_n_non_nulls(rows);
        self.values.extend(tensor.data(), self.treatment, self.salt.as_ref());
        if let Some(ends) = &mut self.ends {
            extend_ends(ends, rows, width);
        }
        if let Some(shapes) = &mut self.shapes {
            let own = &tensor.shape()[usize::from(self.batched)..];
            for _ in 0..rows {
                let extents = own.iter().map(|extent| i32::try_from(*extent).unwrap_or(i32::MAX));
                shapes.extents.extend(extents);
            }
            extend_ends(&mut shapes.ends, rows, own.len());
        }
        0
    }

    fn skip(&mut self, rows: usize) {
        self.present.append_n_nulls(rows);
        match &mut self.ends {
            Some(ends) => extend_ends(ends, rows, 0),
            None => self.values.extend_default(rows),
        }
        if let Some(shapes) = &mut self.shapes {
            extend_ends(&mut shapes.ends, rows, 0);
        }
    }

    fn finish(
        mut self,
        fields: &mut Vec<Field>,
        columns: &mut Vec<ArrayRef>,
    ) -> Result<(), ArrowError> {
        let present = self.present.finish();
        let lists = |ends: Vec<i32>, values: ArrayRef| {
            let item = Arc::new(Field::new("element", values.data_type().clone(), false));
            let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
            Ok::<ArrayRef, ArrowError>(Arc::new(ListArray::try_new(
                item,
                ends,
                values,
                present.clone(),
            )?))
        };
        let column = match self.ends {
            Some(ends) => lists(ends, self.values.finish(None))?,
            None => self.values.finish(present.clone()),
        };
        fields.push(Field::new(&self.name, column.data_type().clone(), true));
        columns.push(column);
        if let Some(shapes) = self.shapes {
            let extents = Arc::new(PrimitiveArray::<Int32Type>::from(shapes.extents));
            let column = lists(shapes.ends, extents)?;
            // Another tensor may have that name.
            let mut name = format!("{}_shape", self.name);
            while fields.iter().any(|field| *field.name() == name) {
                name.push('_');
            }
            fields.push(Field::new(name, column.data_type().clone(), true));
            columns.push(column);
        }
        Ok(())
    }
}

fn extend_ends(ends: &mut Vec<i32>, rows: usize, width: usize) {
    // A part is given up long before it has so many elements.
    let width = i32::try_from(width).unwrap_or(i32::MAX);
    let mut last = ends.last().copied().unwrap_or_default();
    for _ in 0..rows {
        last = last.saturating_add(width);
        ends.push(last);
    }
}

impl Values {
    fn new(datatype: DataType) -> Self {
        match datatype {
            DataType::Bool => Self::Bool(Vec::new()),
            DataType::Uint8 => Self::Uint8(Vec::new()),
            DataType::Uint16 => Self::Uint16(Vec::new()),
            DataType::Uint32 => Self::Uint32(Vec::new()),
            DataType::Uint64 => Self::Uint64(Vec::new()),
            DataType::Int8 => Self::Int8(Vec::new()),
            DataType::Int16 => Self::Int16(Vec::new()),
            DataType::Int32 => Self::Int32(Vec::new()),
            DataType::Int64 => Self::Int64(Vec::new()),
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 => Self::Fp32(Vec::new()),
            DataType::Fp64 => Self::Fp64(Vec::new()),
            DataType::Bytes => Self::Text(StringBuilder::new()),
        }
    }

    fn extend(&mut self, data: &Data, treatment: Treatment, salt: Option<&Salt>) {
        match (self, data) {
            (Self::Bool(all), Data::Bool(more)) => all.extend(more.iter().map(|one| *one != 0)),
            (Self::Uint8(all), Data::Uint8(more)) => all.extend_from_slice(more),
            (Self::Uint16(all), Data::Uint16(more)) => all.extend_from_slice(more),
            (Self::Uint32(all), Data::Uint32(more)) => all.extend_from_slice(more),
            (Self::Uint64(all), Data::Uint64(more)) => all.extend_from_slice(more),
            (Self::Int8(all), Data::Int8(more)) => all.extend_from_slice(more),
            (Self::Int16(all), Data::Int16(more)) => all.extend_from_slice(more),
            (Self::Int32(all), Data::Int32(more)) => all.extend_from_slice(more),
            (Self::Int64(all), Data::Int64(more)) => all.extend_from_slice(more),
            (Self::Fp32(all), Data::Fp32(more)) => all.extend_from_slice(more),
            (Self::Fp32(all), Data::Fp16(more)) => all.extend(more.iter().map(|one| one.to_f32())),
            (Self::Fp32(all), Data::Bf16(more)) => all.extend(more.iter().map(|one| one.to_f32())),
            (Self::Fp64(all), Data::Fp64(more)) => all.extend_from_slice(more),
            (Self::Text(all), data) => each_text(data, |text| match (treatment, salt) {
                (Treatment::Keep, _) => all.append_value(text_of(text)),
                (Treatment::Hash, Some(salt)) => all.append_value(salt.hash(text)),
                _ => all.append_value(MASK),
            }),
            // The caller compares types.
            (other, data) => other.extend_default(data.len()),
        }
    }

    fn extend_default(&mut self, count: usize) {
        fn more<T: Clone + Default>(all: &mut Vec<T>, count: usize) {
            all.resize(all.len() + count, T::default());
        }
        match self {
            Self::Bool(all) => more(all, count),
            Self::Uint8(all) => more(all, count),
            Self::Uint16(all) => more(all, count),
            Self::Uint32(all) => more(all, count),
            Self::Uint64(all) => more(all, count),
            Self::Int8(all) => more(all, count),
            Self::Int16(all) => more(all, count),
            Self::Int32(all) => more(all, count),
            Self::Int64(all) => more(all, count),
            Self::Fp32(all) => more(all, count),
            Self::Fp64(all) => more(all, count),
            Self::Text(all) => (0..count).for_each(|_| all.append_null()),
        }
    }

    /// The elements, some of which may stand where there is no value.
    fn finish(self, present: Option<NullBuffer>) -> ArrayRef {
        fn array<T: ArrowPrimitiveType>(
            all: Vec<T::Native>,
            present: Option<NullBuffer>,
        ) -> ArrayRef {
            Arc::new(PrimitiveArray::<T>::new(all.into(), present))
        }
        match self {
            Self::Bool(all) => Arc::new(BooleanArray::new(all.into(), present)),
            Self::Uint8(all) => array::<UInt8Type>(all, present),
            Self::Uint16(all) => array::<UInt16Type>(all, present),
            Self::Uint32(all) => array::<UInt32Type>(all, present),
            Self::Uint64(all) => array::<UInt64Type>(all, present),
            Self::Int8(all) => array::<Int8Type>(all, present),
            Self::Int16(all) => array::<Int16Type>(all, present),
            Self::Int32(all) => array::<Int32Type>(all, present),
            Self::Int64(all) => array::<Int64Type>(all, present),
            Self::Fp32(all) => array::<Float32Type>(all, present),
            Self::Fp64(all) => array::<Float64Type>(all, present),
            Self::Text(mut all) => Arc::new(all.finish()),
        }
    }
}

/// Text as it is; other bytes as PostgreSQL writes them, `\x` and hexadecimal digits.
fn text_of(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("\\x{hex}").into()
        }
    }
}

/// Every element as its text: numbers as short as they can be read back, `true` and `false`.
fn each_text(data: &Data, mut take: impl FnMut(&[u8])) {
    macro_rules! each {
        ($all:expr) => {
            $all.iter().for_each(|one| take(one.to_string().as_bytes()))
        };
    }
    match data {
        Data::Bool(all) => {
            all.iter().for_each(|one| take(if *one != 0 { b"true" } else { b"false" }));
        }
        Data::Uint8(all) => each!(all),
        Data::Uint16(all) => each!(all),
        Data::Uint32(all) => each!(all),
        Data::Uint64(all) => each!(all),
        Data::Int8(all) => each!(all),
        Data::Int16(all) => each!(all),
        Data::Int32(all) => each!(all),
        Data::Int64(all) => each!(all),
        Data::Fp16(all) => each!(all),
        Data::Bf16(all) => each!(all),
        Data::Fp32(all) => each!(all),
        Data::Fp64(all) => each!(all),
        Data::Bytes(all) => all.iter().for_each(|one| take(one)),
    }
}
