//! Arithmetic on shapes: axes, strides, broadcasting.

use model::{Data, Tensor, element_count};

use crate::Error;

/// No operator makes a tensor of more elements than this. A shape in a request or a file must not
/// decide how much memory is taken.
const MAX_ELEMENTS: usize = 1 << 28;

/// The element count of a shape that is about to be allocated.
pub(super) fn count(shape: &[usize]) -> Result<usize, Error> {
    match element_count(shape) {
        Some(count) if count <= MAX_ELEMENTS => Ok(count),
        _ => Err(Error::invalid(format!(
            "a tensor of shape {shape:?} is too large: the native engine makes at most {MAX_ELEMENTS} elements"
        ))),
    }
}

/// An axis that may count from the end.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, Error> {
    let positive = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(positive) {
        Ok(index) if index < rank => Ok(index),
        _ => Err(Error::invalid(format!("axis {axis} is not one of a tensor of rank {rank}"))),
    }
}

/// Axes that may count from the end, sorted; refuses one that is named twice.
pub(super) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, Error> {
    let mut found = list.iter().map(|a| axis(*a, rank)).collect::<Result<Vec<_>, _>>()?;
    found.sort_unstable();
    if found.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid(format!("axes {list:?} name one twice")));
    }
    Ok(found)
}

/// How far apart neighbours along each axis are.
pub(super) fn strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![0; shape.len()];
    let mut step = 1isize;
    for (stride, extent) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step = step.saturating_mul(*extent as isize);
    }
    strides
}

/// The strides of a tensor when it is read as if it had the given, larger shape.
pub(super) fn broadcast_strides(shape: &[usize], to: &[usize]) -> Vec<isize> {
    let missing = to.len() - shape.len();
    let own = strides(shape);
    (0..to.len())
        .map(|i| if i < missing || shape[i - missing] == 1 { 0 } else { own[i - missing] })
        .collect()
}

/// The shape that two shapes are read as when they meet.
pub(super) fn broadcast(left: &[usize], right: &[usize]) -> Result<Vec<usize>, Error> {
    let rank = left.len().max(right.len());
    let extent = |shape: &[usize], i: usize| {
        let missing = rank - shape.len();
        if i < missing { 1 } else { shape[i - missing] }
    };
    (0..rank)
        .map(|i| match (extent(left, i), extent(right, i)) {
            (a, b) if a == b => Ok(a),
            (1, b) => Ok(b),
            (a, 1) => Ok(a),
            _ => Err(Error::invalid(format!("shapes {left:?} and {right:?} do not fit together"))),
        })
        .collect()
}

/// Walks through a shape in row-major order and gives the offset of each element.
pub(super) struct Walk<'a> {
    shape: &'a [usize],
    strides: &'a [isize],
    counter: Vec<usize>,
    offset: isize,
    left: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(shape: &'a [usize], strides: &'a [isize], start: isize) -> Self {
        let left = element_count(shape).unwrap_or(0);
        Self { shape, strides, counter: vec![0; shape.len()], offset: start, left }
    }
}

impl Iterator for Walk<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let current = self.offset;
        for axis in (0..self.shape.len()).rev() {
            self.counter[axis] += 1;
            self.offset = self.offset.wrapping_add(self.strides[axis]);
            if self.counter[axis] < self.shape[axis] {
                break;
            }
            let back = self.strides[axis].wrapping_mul(self.shape[axis] as isize);
            self.offset = self.offset.wrapping_sub(back);
            self.counter[axis] = 0;
        }
        Some(current as usize)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Rebuilds data of any type by copying runs of `block` elements from the given offsets.
pub(super) fn gather(data: &Data, block: usize, offsets: impl Iterator<Item = usize>) -> Data {
    macro_rules! gather {
        ($($plain:ident),*) => {
            match data {
                $(Data::$plain(buffer) => {
                    let mut out = Vec::with_capacity(offsets.size_hint().0 * block);
                    if block == 1 {
                        out.extend(offsets.map(|offset| buffer[offset]));
                    } else {
                        for offset in offsets {
                            out.extend_from_slice(&buffer[offset..offset + block]);
                        }
                    }
                    Data::$plain(out.into())
                })*
                Data::Bytes(strings) => {
                    let mut out = Vec::with_capacity(offsets.size_hint().0 * block);
                    for offset in offsets {
                        out.extend_from_slice(&strings[offset..offset + block]);
                    }
                    Data::Bytes(out)
                }
            }
        };
    }
    gather!(Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16, Fp32, Fp64)
}

/// A tensor that an operator made; its shape and data agree unless the operator has a bug.
pub(super) fn tensor(shape: Vec<usize>, data: impl Into<Data>) -> Result<Tensor, Error> {
    Tensor::new(shape, data).map_err(|error| Error::internal(error.to_string()))
}

/// Integers that say something about a shape: axes, extents, indices.
pub(super) fn integers(tensor: &Tensor) -> Result<Vec<i64>, Error> {
    match tensor.data() {
        Data::Int64(values) => Ok(values.to_vec()),
        Data::Int32(values) => Ok(values.iter().map(|v| i64::from(*v)).collect()),
        other => Err(Error::invalid(format!("expected INT64 or INT32, got {}", other.datatype()))),
    }
}

/// One such integer.
pub(in crate::native) fn integer(tensor: &Tensor) -> Result<i64, Error> {
    match integers(tensor)?[..] {
        [value] => Ok(value),
        _ => {
            let shape = tensor.shape();
            Err(Error::invalid(format!("expected a single integer, got shape {shape:?}")))
        }
    }
}
