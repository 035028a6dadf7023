//! Tensors: a shape and a typed, row-major buffer that is owned or borrowed from a request's body.

use std::fmt;
use std::ops::{Deref, Range};

use bytemuck::Pod;
use bytes::Bytes;
use half::{bf16, f16};

/// The element types of the Open Inference Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // Each variant is its own name.
pub enum DataType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

impl DataType {
    /// All types, in the protocol's order.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// The protocol's spelling, such as `FP32`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// The inverse of [`as_str`](Self::as_str); exact, as the protocol has it.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == text)
    }

    /// Bytes per element; `None` for `BYTES`, whose elements differ in length.
    pub const fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A run of plain elements: owned, or a view of bytes that someone else owns.
///
/// The view exists so that a binary request body reaches the engine without a copy.
#[derive(Clone)]
pub struct Buffer<T: Pod>(Storage<T>);

#[derive(Clone)]
enum Storage<T> {
    Owned(Vec<T>),
    /// Invariant: aligned for `T`, and a whole number of elements.
    Shared(Bytes),
}

impl<T: Pod> Buffer<T> {
    /// Views native-endian bytes as elements, copying only when they are not aligned.
    ///
    /// `None` if the length is not a whole number of elements.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        match bytemuck::try_cast_slice::<u8, T>(&bytes) {
            Ok(_) => Some(Self(Storage::Shared(bytes))),
            Err(_) if bytes.len().is_multiple_of(size_of::<T>()) => {
                Some(Self(Storage::Owned(bytemuck::pod_collect_to_vec(&bytes))))
            }
            Err(_) => None,
        }
    }

    /// The elements, copied only if they are borrowed.
    pub fn into_vec(self) -> Vec<T> {
        match self.0 {
            Storage::Owned(vec) => vec,
            Storage::Shared(bytes) => bytemuck::cast_slice(&bytes).to_vec(),
        }
    }
}

impl<T: Pod> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match &self.0 {
            Storage::Owned(vec) => vec,
            Storage::Shared(bytes) => bytemuck::cast_slice(bytes),
        }
    }
}

impl<T: Pod> From<Vec<T>> for Buffer<T> {
    fn from(vec: Vec<T>) -> Self {
        Self(Storage::Owned(vec))
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Pod + PartialEq> PartialEq for Buffer<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

/// A tensor's elements, by type. `Bool` holds 0 or 1; `Bytes` holds opaque strings, usually UTF-8.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // Each variant is its own name.
pub enum Data {
    Bool(Buffer<u8>),
    Uint8(Buffer<u8>),
    Uint16(Buffer<u16>),
    Uint32(Buffer<u32>),
    Uint64(Buffer<u64>),
    Int8(Buffer<i8>),
    Int16(Buffer<i16>),
    Int32(Buffer<i32>),
    Int64(Buffer<i64>),
    Fp16(Buffer<f16>),
    Bf16(Buffer<bf16>),
    Fp32(Buffer<f32>),
    Fp64(Buffer<f64>),
    Bytes(Vec<Bytes>),
}

/// Runs one expression for whichever plain (non-`Bytes`) type the data has, another for `Bytes`.
#[macro_export]
macro_rules! match_data {
    ($data:expr, $buffer:ident => $plain:expr, $strings:ident => $bytes:expr) => {
        match $data {
            $crate::Data::Bool($buffer) => $plain,
            $crate::Data::Uint8($buffer) => $plain,
            $crate::Data::Uint16($buffer) => $plain,
            $crate::Data::Uint32($buffer) => $plain,
            $crate::Data::Uint64($buffer) => $plain,
            $crate::Data::Int8($buffer) => $plain,
            $crate::Data::Int16($buffer) => $plain,
            $crate::Data::Int32($buffer) => $plain,
            $crate::Data::Int64($buffer) => $plain,
            $crate::Data::Fp16($buffer) => $plain,
            $crate::Data::Bf16($buffer) => $plain,
            $crate::Data::Fp32($buffer) => $plain,
            $crate::Data::Fp64($buffer) => $plain,
            $crate::Data::Bytes($strings) => $bytes,
        }
    };
}

/// Runs one expression with the same variant rebuilt around a new buffer, for each plain type.
macro_rules! map_data {
    ($data:expr, $buffer:ident => $plain:expr, $strings:ident => $bytes:expr) => {
        match $data {
            Data::Bool($buffer) => Data::Bool($plain),
            Data::Uint8($buffer) => Data::Uint8($plain),
            Data::Uint16($buffer) => Data::Uint16($plain),
            Data::Uint32($buffer) => Data::Uint32($plain),
            Data::Uint64($buffer) => Data::Uint64($plain),
            Data::Int8($buffer) => Data::Int8($plain),
            Data::Int16($buffer) => Data::Int16($plain),
            Data::Int32($buffer) => Data::Int32($plain),
            Data::Int64($buffer) => Data::Int64($plain),
            Data::Fp16($buffer) => Data::Fp16($plain),
            Data::Bf16($buffer) => Data::Bf16($plain),
            Data::Fp32($buffer) => Data::Fp32($plain),
            Data::Fp64($buffer) => Data::Fp64($plain),
            Data::Bytes($strings) => Data::Bytes($bytes),
        }
    };
}

impl Data {
    /// The type of the elements.
    pub const fn datatype(&self) -> DataType {
        match self {
            Self::Bool(_) => DataType::Bool,
            Self::Uint8(_) => DataType::Uint8,
            Self::Uint16(_) => DataType::Uint16,
            Self::Uint32(_) => DataType::Uint32,
            Self::Uint64(_) => DataType::Uint64,
            Self::Int8(_) => DataType::Int8,
            Self::Int16(_) => DataType::Int16,
            Self::Int32(_) => DataType::Int32,
            Self::Int64(_) => DataType::Int64,
            Self::Fp16(_) => DataType::Fp16,
            Self::Bf16(_) => DataType::Bf16,
            Self::Fp32(_) => DataType::Fp32,
            Self::Fp64(_) => DataType::Fp64,
            Self::Bytes(_) => DataType::Bytes,
        }
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        match_data!(self, buffer => buffer.len(), strings => strings.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No elements of the given type.
    pub fn empty(datatype: DataType) -> Self {
        if datatype == DataType::Bytes {
            return Self::Bytes(Vec::new());
        }
        Self::from_bytes(datatype, Bytes::new()).expect("zero bytes are zero elements")
    }

    /// Plain elements as they lie in memory (native-endian), without a copy where alignment allows.
    ///
    /// `None` if the length is not a whole number of elements, for a `BOOL` that is neither 0 nor 1,
    /// and for `BYTES`, which has no fixed size.
    pub fn from_bytes(datatype: DataType, bytes: Bytes) -> Option<Self> {
        Some(match datatype {
            DataType::Bool if bytes.iter().any(|b| *b > 1) => return None,
            DataType::Bool => Self::Bool(Buffer::from_bytes(bytes)?),
            DataType::Uint8 => Self::Uint8(Buffer::from_bytes(bytes)?),
            DataType::Uint16 => Self::Uint16(Buffer::from_bytes(bytes)?),
            DataType::Uint32 => Self::Uint32(Buffer::from_bytes(bytes)?),
            DataType::Uint64 => Self::Uint64(Buffer::from_bytes(bytes)?),
            DataType::Int8 => Self::Int8(Buffer::from_bytes(bytes)?),
            DataType::Int16 => Self::Int16(Buffer::from_bytes(bytes)?),
            DataType::Int32 => Self::Int32(Buffer::from_bytes(bytes)?),
            DataType::Int64 => Self::Int64(Buffer::from_bytes(bytes)?),
            DataType::Fp16 => Self::Fp16(Buffer::from_bytes(bytes)?),
            DataType::Bf16 => Self::Bf16(Buffer::from_bytes(bytes)?),
            DataType::Fp32 => Self::Fp32(Buffer::from_bytes(bytes)?),
            DataType::Fp64 => Self::Fp64(Buffer::from_bytes(bytes)?),
            DataType::Bytes => return None,
        })
    }

    /// The plain elements as they lie in memory; `None` for `BYTES`.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match_data!(self, buffer => Some(bytemuck::cast_slice(buffer)), _strings => None)
    }
}

/// A Rust type that is the element type of a [`Tensor`]. (`BOOL` is read through [`Data::Bool`].)
pub trait Element: Pod {
    /// The protocol's name of it.
    const DATATYPE: DataType;
    /// Wraps a buffer.
    fn wrap(buffer: Buffer<Self>) -> Data;
    /// The elements, if the data has this type.
    fn view(data: &Data) -> Option<&Buffer<Self>>;
}

macro_rules! element {
    ($($rust:ty => $variant:ident),* $(,)?) => {$(
        impl Element for $rust {
            const DATATYPE: DataType = DataType::$variant;
            fn wrap(buffer: Buffer<Self>) -> Data {
                Data::$variant(buffer)
            }
            fn view(data: &Data) -> Option<&Buffer<Self>> {
                match data {
                    Data::$variant(buffer) => Some(buffer),
                    _ => None,
                }
            }
        }
        impl From<Vec<$rust>> for Data {
            fn from(vec: Vec<$rust>) -> Self {
                Self::$variant(vec.into())
            }
        }
    )*};
}

element! {
    u8 => Uint8, u16 => Uint16, u32 => Uint32, u64 => Uint64,
    i8 => Int8, i16 => Int16, i32 => Int32, i64 => Int64,
    f16 => Fp16, bf16 => Bf16, f32 => Fp32, f64 => Fp64,
}

impl From<Vec<bool>> for Data {
    fn from(vec: Vec<bool>) -> Self {
        Self::Bool(vec.into_iter().map(u8::from).collect::<Vec<_>>().into())
    }
}

impl From<Vec<Bytes>> for Data {
    fn from(vec: Vec<Bytes>) -> Self {
        Self::Bytes(vec)
    }
}

impl From<Vec<String>> for Data {
    fn from(vec: Vec<String>) -> Self {
        Self::Bytes(vec.into_iter().map(Bytes::from).collect())
    }
}

/// The shape's element count does not fit, or differs from what the data holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeError {
    /// The shape that was asked for.
    pub shape: Vec<usize>,
    /// How many elements there were.
    pub elements: usize,
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match element_count(&self.shape) {
            Some(count) => {
                write!(f, "shape {:?} needs {count} elements, got {}", self.shape, self.elements)
            }
            None => write!(f, "shape {:?} has more elements than memory has addresses", self.shape),
        }
    }
}

impl std::error::Error for ShapeError {}

/// The number of elements of a shape (1 for a scalar), or `None` if it overflows.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    // A zero anywhere makes the tensor empty, whatever the other dimensions claim.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |count, dim| count.checked_mul(*dim))
}

/// A dense, row-major tensor. Invariant: the shape's element count is the data's length.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// A tensor of the given shape, if the data has that many elements.
    pub fn new(shape: Vec<usize>, data: impl Into<Data>) -> Result<Self, ShapeError> {
        let data = data.into();
        if element_count(&shape) == Some(data.len()) {
            Ok(Self { shape, data })
        } else {
            Err(ShapeError { elements: data.len(), shape })
        }
    }

    /// A tensor without dimensions, of one element.
    ///
    /// # Panics
    /// If the data does not hold exactly one element.
    pub fn scalar(data: impl Into<Data>) -> Self {
        Self::new(Vec::new(), data).expect("a scalar has one element")
    }

    /// Its dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Its element type.
    pub fn datatype(&self) -> DataType {
        self.data.datatype()
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Takes it apart.
    pub fn into_parts(self) -> (Vec<usize>, Data) {
        (self.shape, self.data)
    }

    /// The elements as `T`, if that is their type.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        T::view(&self.data).map(|buffer| &**buffer)
    }

    /// The bytes of its elements, without what describes them.
    pub fn bytes(&self) -> usize {
        match (self.datatype().size(), self.as_strings()) {
            (Some(size), _) => size * self.len(),
            (None, strings) => strings.unwrap_or_default().iter().map(|text| text.len()).sum(),
        }
    }

    /// The strings of a `BYTES` tensor.
    pub fn as_strings(&self) -> Option<&[Bytes]> {
        match &self.data {
            Data::Bytes(strings) => Some(strings),
            _ => None,
        }
    }

    /// The 0s and 1s of a `BOOL` tensor.
    pub fn as_bools(&self) -> Option<&[u8]> {
        match &self.data {
            Data::Bool(buffer) => Some(buffer),
            _ => None,
        }
    }

    /// The same elements under another shape.
    pub fn reshape(self, shape: Vec<usize>) -> Result<Self, ShapeError> {
        Self::new(shape, self.data)
    }

    /// The extent of the first dimension; `None` for a scalar.
    pub fn rows(&self) -> Option<usize> {
        self.shape.first().copied()
    }

    /// Copies rows (indices of the first dimension) out into a tensor of their own.
    ///
    /// # Panics
    /// If the tensor is a scalar or the range leaves it.
    pub fn slice_rows(&self, rows: Range<usize>) -> Self {
        let (first, rest) = self.shape.split_first().expect("a scalar has no rows");
        assert!(rows.start <= rows.end && rows.end <= *first, "rows {rows:?} of {first}");
        let width = element_count(rest).unwrap_or(0);
        let range = rows.start * width..rows.end * width;
        let data = map_data!(&self.data,
            buffer => buffer[range].to_vec().into(),
            strings => strings[range].to_vec());
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        Self { shape, data }
    }

    /// Stacks tensors along the first dimension; `None` unless types and the other dimensions agree.
    pub fn concat_rows(parts: &[&Self]) -> Option<Self> {
        let (first, rest) = parts.split_first()?;
        let (_, width) = first.shape.split_first()?;
        let fits = |t: &&Self| {
            t.datatype() == first.datatype()
                && t.shape.split_first().is_some_and(|(_, w)| w == width)
        };
        if !rest.iter().all(fits) {
            return None;
        }
        let total: usize = parts.iter().map(|t| t.len()).sum();
        fn join<T: Pod>(parts: &[&Tensor], total: usize) -> Buffer<T> {
            let mut joined = Vec::with_capacity(total);
            for part in parts {
                let bytes = part.data.as_bytes().expect("a plain type");
                joined.extend_from_slice(bytemuck::cast_slice(bytes));
            }
            joined.into()
        }
        let data = map_data!(&first.data,
            _buffer => join(parts, total),
            _strings => parts.iter().filter_map(|t| t.as_strings()).flatten().cloned().collect());
        let mut shape = first.shape.clone();
        shape[0] = parts.iter().map(|t| t.shape[0]).sum();
        Some(Self { shape, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_shape_that_overflows_is_refused() {
        let error = Tensor::new(vec![usize::MAX, 2], vec![0f32]).unwrap_err();
        assert!(error.to_string().contains("more elements than memory"), "{error}");
        assert_eq!(element_count(&[usize::MAX, 2, 0]), Some(0));
    }

    #[test]
    fn unaligned_bytes_are_copied_and_aligned_ones_are_not() {
        let bytes = Bytes::from(vec![0u8; 64]);
        let aligned = bytes.as_ptr().align_offset(4);
        let shared = Buffer::<f32>::from_bytes(bytes.slice(aligned..aligned + 8)).unwrap();
        assert_eq!(shared.as_ptr().cast::<u8>(), bytes[aligned..].as_ptr());
        let copied = Buffer::<f32>::from_bytes(bytes.slice(aligned + 1..aligned + 9)).unwrap();
        assert_eq!(&*copied, [0.0, 0.0]);
        assert!(Buffer::<f32>::from_bytes(bytes.slice(0..7)).is_none());
    }

    #[test]
    fn a_bool_is_0_or_1() {
        assert!(Data::from_bytes(DataType::Bool, Bytes::from_static(&[0, 1, 2])).is_none());
    }

    proptest! {
        #[test]
        fn cutting_into_rows_and_stacking_them_again_changes_nothing(
            rows in 0usize..6, width in 0usize..5, cut in 0usize..6,
        ) {
            let cut = cut.min(rows);
            let values: Vec<i64> = (0..(rows * width) as i64).collect();
            let whole = Tensor::new(vec![rows, width], values).unwrap();
            let (a, b) = (whole.slice_rows(0..cut), whole.slice_rows(cut..rows));
            prop_assert_eq!(Tensor::concat_rows(&[&a, &b]).unwrap(), whole);
        }
    }
}
