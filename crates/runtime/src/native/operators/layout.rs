//! Operators that move elements and never look at them; they take every type.

use model::{Data, DataType, Tensor};

use super::shape::{self, Walk, axis, count, gather, integers, strides, tensor};
use super::{Argument, Arguments, Context, Operator};
use crate::Error;

type Built = Result<Box<dyn Operator>, Error>;

/// An operator without state of its own.
pub(super) struct Plain(pub(super) fn(&mut Arguments<'_, '_>) -> Result<Tensor, Error>);

impl Operator for Plain {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        Ok(vec![(self.0)(&mut Arguments(&mut inputs))?])
    }
}

pub(super) fn identity(inputs: &mut Arguments<'_, '_>) -> Result<Tensor, Error> {
    inputs.take(0)
}

/// `Dropout` outside training: nothing is dropped. In training its answers are random.
pub(super) fn dropout(context: &Context<'_>) -> Built {
    let constant = context.constants.get(2).copied().flatten();
    let off = constant.and_then(|flag| flag.to_tensor().ok());
    let off = off.is_some_and(|flag| flag.as_bools().is_some_and(|flags| !flags.contains(&1)));
    if context.inputs.get(2).is_some_and(Option::is_some) && !off {
        return Err(Error::unsupported(
            "training mode is not supported: export the model for inference",
        ));
    }
    Ok(Box::new(Dropout))
}

struct Dropout;

impl Operator for Dropout {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let mut inputs = Arguments(&mut inputs);
        let data = inputs.take(0)?;
        let mask = tensor(data.shape().to_vec(), vec![true; data.len()])?;
        Ok(vec![data, mask])
    }
}

pub(super) fn reshape(context: &Context<'_>) -> Built {
    context.attributes.only(&["shape", "allowzero"])?;
    let fixed = context.attributes.ints("shape")?.to_vec();
    let keep_zero = context.attributes.flag("allowzero", false)?;
    Ok(Box::new(Reshape { fixed, keep_zero }))
}

struct Reshape {
    fixed: Vec<i64>,
    keep_zero: bool,
}

impl Operator for Reshape {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let mut inputs = Arguments(&mut inputs);
        let wanted = match inputs.optional(1) {
            Some(shape) => integers(shape)?,
            None => self.fixed.clone(),
        };
        let data = inputs.take(0)?;
        let shape = reshaped(data.shape(), data.len(), &wanted, self.keep_zero)?;
        Ok(vec![data.reshape(shape).map_err(|error| Error::invalid(error.to_string()))?])
    }
}

fn reshaped(
    from: &[usize],
    elements: usize,
    wanted: &[i64],
    keep_zero: bool,
) -> Result<Vec<usize>, Error> {
    let refuse =
        || Error::invalid(format!("a tensor of shape {from:?} cannot be reshaped to {wanted:?}"));
    let mut shape = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (index, extent) in wanted.iter().enumerate() {
        shape.push(match extent {
            -1 if open.is_none() => {
                open = Some(index);
                1
            }
            0 if !keep_zero => *from.get(index).ok_or_else(refuse)?,
            extent => usize::try_from(*extent).map_err(|_| refuse())?,
        });
    }
    if let Some(index) = open {
        let known = model::element_count(&shape).ok_or_else(refuse)?;
        if known == 0 || !elements.is_multiple_of(known) {
            // An empty tensor may leave the open extent at zero.
            if elements != 0 || known == 0 {
                return Err(refuse());
            }
        }
        shape[index] = elements / known;
    }
    Ok(shape)
}

pub(super) fn flatten(context: &Context<'_>) -> Built {
    context.attributes.only(&["axis"])?;
    Ok(Box::new(Flatten(context.attributes.int_or("axis", 1)?)))
}

struct Flatten(i64);

impl Operator for Flatten {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let data = Arguments(&mut inputs).take(0)?;
        let rank = data.shape().len();
        // The axis may be one past the last.
        let at = if self.0 == rank as i64 { rank } else { axis(self.0, rank)? };
        let product = |part: &[usize]| model::element_count(part).unwrap_or(0);
        let shape = vec![product(&data.shape()[..at]), product(&data.shape()[at..])];
        Ok(vec![data.reshape(shape).map_err(|error| Error::invalid(error.to_string()))?])
    }
}

/// `Squeeze` and `Unsqueeze`; the axes are an attribute before operator set 13.
pub(super) fn squeeze(context: &Context<'_>, grow: bool) -> Built {
    context.attributes.only(&["axes"])?;
    let fixed = context.attributes.has("axes").then(|| context.attributes.ints("axes"));
    Ok(Box::new(Squeeze { fixed: fixed.transpose()?.map(<[i64]>::to_vec), grow }))
}

struct Squeeze {
    fixed: Option<Vec<i64>>,
    grow: bool,
}

impl Operator for Squeeze {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let mut inputs = Arguments(&mut inputs);
        let given = inputs.optional(1).map(integers).transpose()?;
        let list = self.fixed.clone().or(given);
        let data = inputs.take(0)?;
        let mut shape = data.shape().to_vec();
        if self.grow {
            let list = list.ok_or_else(|| Error::invalid("no axes are given"))?;
            for index in shape::axes(&list, shape.len() + list.len())? {
                shape.insert(index, 1);
            }
        } else {
            let gone = match list {
                Some(list) => shape::axes(&list, shape.len())?,
                None => (0..shape.len()).filter(|index| shape[*index] == 1).collect(),
            };
            for index in gone.into_iter().rev() {
                let extent = shape.remove(index);
                if extent != 1 {
                    let message = format!("axis {index} has extent {extent}, only 1 can go");
                    return Err(Error::invalid(message));
                }
            }
        }
        Ok(vec![data.reshape(shape).map_err(|error| Error::invalid(error.to_string()))?])
    }
}

pub(super) fn transpose(context: &Context<'_>) -> Built {
    context.attributes.only(&["perm"])?;
    let order = context.attributes.has("perm").then(|| context.attributes.ints("perm"));
    Ok(Box::new(Transpose(order.transpose()?.map(<[i64]>::to_vec))))
}

struct Transpose(Option<Vec<i64>>);

impl Operator for Transpose {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let data = inputs.required(0)?;
        let rank = data.shape().len();
        let order: Vec<usize> = match &self.0 {
            None => (0..rank).rev().collect(),
            Some(order) => {
                let found = order.iter().map(|a| axis(*a, rank)).collect::<Result<Vec<_>, _>>()?;
                if shape::axes(order, rank)?.len() != rank {
                    let message = format!("{order:?} does not order {rank} axes");
                    return Err(Error::invalid(message));
                }
                found
            }
        };
        let own = strides(data.shape());
        let shape: Vec<usize> = order.iter().map(|a| data.shape()[*a]).collect();
        let steps: Vec<isize> = order.iter().map(|a| own[*a]).collect();
        let moved = gather(data.data(), 1, Walk::new(&shape, &steps, 0));
        Ok(vec![tensor(shape, moved)?])
    }
}

pub(super) fn concat(context: &Context<'_>) -> Built {
    context.attributes.only(&["axis"])?;
    // The first version had a default.
    let axis = context.attributes.int("axis")?;
    let axis = axis.or((context.opset < 4).then_some(1));
    Ok(Box::new(Concat(axis.ok_or_else(|| Error::invalid("attribute \"axis\" is missing"))?)))
}

struct Concat(i64);

impl Operator for Concat {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let parts = inputs.all()?;
        let [first, ..] = &parts[..] else { return Err(Error::invalid("nothing to join")) };
        let at = axis(self.0, first.shape().len())?;
        let mut shape = first.shape().to_vec();
        shape[at] = 0;
        for part in &parts {
            let mut other = part.shape().to_vec();
            if other.len() == shape.len() {
                shape[at] += std::mem::take(&mut other[at]);
            }
            let mut same = shape.clone();
            same[at] = 0;
            if other != same || part.datatype() != first.datatype() {
                return Err(Error::invalid(format!(
                    "{} {:?} and {} {:?} cannot be joined along axis {at}",
                    first.datatype(),
                    first.shape(),
                    part.datatype(),
                    part.shape()
                )));
            }
        }
        count(&shape)?;
        let outer = model::element_count(&shape[..at]).unwrap_or(0);
        let data = join(&parts, outer);
        Ok(vec![tensor(shape, data)?])
    }
}

/// Interleaves tensors of one type: `outer` times a run of each.
fn join(parts: &[&Tensor], outer: usize) -> Data {
    macro_rules! join {
        ($($plain:ident),*) => {
            match parts[0].data() {
                $(Data::$plain(_) => {
                    let total = parts.iter().map(|part| part.len()).sum();
                    let mut out = Vec::with_capacity(total);
                    for index in 0..outer {
                        for part in parts {
                            if let Data::$plain(buffer) = part.data() {
                                let run = buffer.len() / outer;
                                out.extend_from_slice(&buffer[index * run..(index + 1) * run]);
                            }
                        }
                    }
                    Data::$plain(out.into())
                })*
            }
        };
    }
    join!(
        Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Bf16, Fp32, Fp64,
        Bytes
    )
}

pub(super) fn slice(context: &Context<'_>) -> Built {
    context.attributes.only(&["starts", "ends", "axes"])?;
    let fixed = context.attributes.has("starts").then(|| -> Result<_, Error> {
        let ints = |name: &str| Ok::<_, Error>(context.attributes.ints(name)?.to_vec());
        Ok([ints("starts")?, ints("ends")?, ints("axes")?])
    });
    Ok(Box::new(Slice(fixed.transpose()?)))
}

/// The attributes, for operator sets before 10: starts, ends, axes.
struct Slice(Option<[Vec<i64>; 3]>);

impl Operator for Slice {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let data = inputs.required(0)?;
        let rank = data.shape().len();
        let optional = |index: usize| inputs.optional(index).map(integers).transpose();
        let (starts, ends, list, steps) = match &self.0 {
            Some([starts, ends, axes]) => {
                let axes = (!axes.is_empty()).then(|| axes.clone());
                (starts.clone(), ends.clone(), axes, None)
            }
            None => {
                let starts = integers(inputs.required(1)?)?;
                (starts, integers(inputs.required(2)?)?, optional(3)?, optional(4)?)
            }
        };
        let list = list.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), list.len(), steps.len()] != [starts.len(); 3] {
            return Err(Error::invalid("starts, ends, axes and steps differ in length"));
        }
        shape::axes(&list, rank)?;
        let mut shape = data.shape().to_vec();
        let own = strides(&shape);
        let mut walk = own.clone();
        let mut origin = 0isize;
        for (((start, end), at), step) in starts.iter().zip(&ends).zip(&list).zip(&steps) {
            let at = axis(*at, rank)?;
            let (first, length) = range(*start, *end, *step, shape[at])?;
            origin += first as isize * own[at];
            walk[at] = own[at].saturating_mul(isize::try_from(*step).unwrap_or(isize::MAX));
            shape[at] = length;
        }
        let moved = gather(data.data(), 1, Walk::new(&shape, &walk, origin));
        Ok(vec![tensor(shape, moved)?])
    }
}

/// Where a slice of one axis begins, and how many elements it has.
fn range(start: i64, end: i64, step: i64, extent: usize) -> Result<(usize, usize), Error> {
    let extent = extent as i64;
    let from_end = |value: i64| if value < 0 { value.saturating_add(extent) } else { value };
    let (start, end) = (from_end(start), from_end(end));
    let (start, end, distance) = match step {
        0 => return Err(Error::invalid("a step of 0 goes nowhere")),
        1.. => {
            let (start, end) = (start.clamp(0, extent), end.clamp(0, extent));
            (start, end, end - start)
        }
        _ => {
            let (start, end) = (start.clamp(-1, extent - 1), end.clamp(-1, extent - 1));
            (start, end, start - end)
        }
    };
    let _ = end;
    if distance <= 0 {
        return Ok((0, 0));
    }
    let length = (distance as u64).div_ceil(step.unsigned_abs());
    Ok((start as usize, length as usize))
}

pub(super) fn split(context: &Context<'_>) -> Built {
    context.attributes.only(&["axis", "split", "num_outputs"])?;
    let axis = context.attributes.int_or("axis", 0)?;
    let fixed = context.attributes.has("split").then(|| context.attributes.ints("split"));
    let fixed = fixed.transpose()?.map(<[i64]>::to_vec);
    if let Some(count) = context.attributes.int("num_outputs")?
        && count != context.outputs as i64
    {
        return Err(Error::invalid("attribute \"num_outputs\" is not the number of outputs"));
    }
    Ok(Box::new(Split { axis, fixed, parts: context.outputs }))
}

struct Split {
    axis: i64,
    fixed: Option<Vec<i64>>,
    parts: usize,
}

impl Operator for Split {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let data = inputs.required(0)?;
        let at = axis(self.axis, data.shape().len())?;
        let extent = data.shape()[at];
        let given = inputs.optional(1).map(integers).transpose()?;
        let sizes: Vec<usize> = match self.fixed.clone().or(given) {
            Some(list) => list.iter().map(|n| usize::try_from(*n).unwrap_or(usize::MAX)).collect(),
            None => {
                // The last part may be smaller.
                let size = extent.div_ceil(self.parts);
                (0..self.parts).map(|i| size.min(extent.saturating_sub(i * size))).collect()
            }
        };
        let total = sizes.iter().try_fold(0usize, |sum, n| sum.checked_add(*n));
        if total != Some(extent) || sizes.len() != self.parts {
            return Err(Error::invalid(format!(
                "an axis of extent {extent} cannot be split into {sizes:?}"
            )));
        }
        let own = strides(data.shape());
        let mut start = 0;
        let mut parts = Vec::with_capacity(sizes.len());
        for size in sizes {
            let mut shape = data.shape().to_vec();
            shape[at] = size;
            let origin = start as isize * own[at];
            let moved = gather(data.data(), 1, Walk::new(&shape, &own, origin));
            parts.push(tensor(shape, moved)?);
            start += size;
        }
        Ok(parts)
    }
}

pub(super) fn expand(inputs: &mut Arguments<'_, '_>) -> Result<Tensor, Error> {
    let data = inputs.required(0)?;
    let wanted = extents(inputs.required(1)?)?;
    let shape = shape::broadcast(data.shape(), &wanted)?;
    count(&shape)?;
    let steps = shape::broadcast_strides(data.shape(), &shape);
    let moved = gather(data.data(), 1, Walk::new(&shape, &steps, 0));
    tensor(shape, moved)
}

fn extents(tensor: &Tensor) -> Result<Vec<usize>, Error> {
    let negative = |n: i64| Error::invalid(format!("an extent cannot be {n}"));
    integers(tensor)?.iter().map(|n| usize::try_from(*n).map_err(|_| negative(*n))).collect()
}

pub(super) fn tile(inputs: &mut Arguments<'_, '_>) -> Result<Tensor, Error> {
    let data = inputs.required(0)?;
    let repeats = extents(inputs.required(1)?)?;
    if repeats.len() != data.shape().len() {
        let message = format!("{} repeats for a tensor of shape {:?}", repeats.len(), data.shape());
        return Err(Error::invalid(message));
    }
    let mut shape = Vec::with_capacity(repeats.len());
    for (extent, times) in data.shape().iter().zip(&repeats) {
        shape.push(extent.checked_mul(*times).ok_or_else(|| Error::invalid("too many repeats"))?);
    }
    count(&shape)?;
    // Each axis is walked as two: the repeats, which stand still, and the extent.
    let own = strides(data.shape());
    let mut pairs = Vec::with_capacity(shape.len() * 2);
    let mut steps = Vec::with_capacity(shape.len() * 2);
    for ((extent, times), step) in data.shape().iter().zip(&repeats).zip(&own) {
        pairs.extend([*times, *extent]);
        steps.extend([0, *step]);
    }
    let moved = gather(data.data(), 1, Walk::new(&pairs, &steps, 0));
    tensor(shape, moved)
}

pub(super) fn shape_of(context: &Context<'_>) -> Built {
    context.attributes.only(&["start", "end"])?;
    let start = context.attributes.int_or("start", 0)?;
    Ok(Box::new(ShapeOf { start, end: context.attributes.int_or("end", i64::MAX)? }))
}

struct ShapeOf {
    start: i64,
    end: i64,
}

impl Operator for ShapeOf {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let shape = inputs.required(0)?.shape();
        let (start, length) = range(self.start, self.end, 1, shape.len())?;
        let part = &shape[start..start + length];
        let extents: Vec<i64> = part.iter().map(|extent| *extent as i64).collect();
        Ok(vec![tensor(vec![extents.len()], extents)?])
    }
}

pub(super) fn size_of(inputs: &mut Arguments<'_, '_>) -> Result<Tensor, Error> {
    Ok(Tensor::scalar(vec![inputs.required(0)?.len() as i64]))
}

pub(super) fn constant_of_shape(context: &Context<'_>) -> Built {
    context.attributes.only(&["value"])?;
    let value = context.attributes.tensor("value")?;
    let value = value.unwrap_or_else(|| Tensor::scalar(vec![0f32]));
    if value.len() != 1 {
        return Err(Error::invalid("attribute \"value\" is not a single element"));
    }
    Ok(Box::new(ConstantOfShape(value)))
}

struct ConstantOfShape(Tensor);

impl Operator for ConstantOfShape {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let shape = extents(Arguments(&mut inputs).required(0)?)?;
        let elements = count(&shape)?;
        let data = gather(self.0.data(), 1, std::iter::repeat_n(0, elements));
        Ok(vec![tensor(shape, data)?])
    }
}

/// `Gather`, `GatherElements` and `ArrayFeatureExtractor`.
#[derive(Clone, Copy)]
pub(super) enum Pick {
    /// Whole slices, at indices of any shape.
    Slices,
    /// Single elements, at indices of the output's shape.
    Elements,
    /// Columns of the last axis.
    Columns,
}

pub(super) fn gather_operator(context: &Context<'_>, pick: Pick) -> Built {
    context.attributes.only(&["axis"])?;
    let default = if matches!(pick, Pick::Columns) { -1 } else { 0 };
    Ok(Box::new(Gather { axis: context.attributes.int_or("axis", default)?, pick }))
}

struct Gather {
    axis: i64,
    pick: Pick,
}

impl Operator for Gather {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let (data, wanted) = (inputs.required(0)?, inputs.required(1)?);
        let at = axis(self.axis, data.shape().len())?;
        let indices = positions(wanted, data.shape()[at])?;
        Ok(vec![match self.pick {
            Pick::Elements => elements(data, wanted.shape(), &indices, at)?,
            Pick::Slices => {
                let mut shape = data.shape()[..at].to_vec();
                shape.extend(wanted.shape());
                shape.extend(&data.shape()[at + 1..]);
                slices(data, shape, &indices, at)?
            }
            Pick::Columns => {
                let mut shape = data.shape().to_vec();
                shape[at] = indices.len();
                // A single row comes back as a matrix, as the reference implementation has it.
                if shape.len() == 1 {
                    shape.insert(0, 1);
                }
                slices(data, shape, &indices, at)?
            }
        }])
    }
}

fn positions(indices: &Tensor, extent: usize) -> Result<Vec<usize>, Error> {
    let position = |index: i64| {
        let from_start = if index < 0 { index + extent as i64 } else { index };
        match usize::try_from(from_start) {
            Ok(position) if position < extent => Ok(position),
            _ => Err(Error::invalid(format!("index {index} is outside an axis of {extent}"))),
        }
    };
    integers(indices)?.into_iter().map(position).collect()
}

fn slices(data: &Tensor, shape: Vec<usize>, at: &[usize], axis: usize) -> Result<Tensor, Error> {
    count(&shape)?;
    let extent = data.shape()[axis];
    let outer = model::element_count(&data.shape()[..axis]).unwrap_or(0);
    let block = model::element_count(&data.shape()[axis + 1..]).unwrap_or(0);
    let offsets = (0..outer).flat_map(|o| at.iter().map(move |i| (o * extent + i) * block));
    let offsets: Vec<usize> = if block == 0 { Vec::new() } else { offsets.collect() };
    tensor(shape, gather(data.data(), block, offsets.into_iter()))
}

fn elements(data: &Tensor, shape: &[usize], at: &[usize], axis: usize) -> Result<Tensor, Error> {
    let fits = shape.len() == data.shape().len()
        && shape.iter().zip(data.shape()).enumerate().all(|(i, (a, b))| i == axis || a <= b);
    if !fits {
        let message =
            format!("indices of shape {shape:?} do not fit data of shape {:?}", data.shape());
        return Err(Error::invalid(message));
    }
    let own = strides(data.shape());
    let mut steps = own.clone();
    steps[axis] = 0;
    let offsets =
        Walk::new(shape, &steps, 0).zip(at).map(|(base, i)| base + i * own[axis] as usize);
    tensor(shape.to_vec(), gather(data.data(), 1, offsets))
}

pub(super) fn one_hot(context: &Context<'_>) -> Built {
    context.attributes.only(&["axis"])?;
    Ok(Box::new(OneHot(context.attributes.int_or("axis", -1)?)))
}

struct OneHot(i64);

impl Operator for OneHot {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let whole = |tensor: &Tensor| -> Result<Vec<i64>, Error> {
            integers(&super::cast::cast(tensor, DataType::Int64)?)
        };
        let (wanted, values) = (inputs.required(0)?, inputs.required(2)?);
        let indices = whole(wanted)?;
        let depth = whole(inputs.required(1)?)?;
        let ([depth], 2) = (&depth[..], values.len()) else {
            return Err(Error::invalid("expected one depth and two values"));
        };
        let size = usize::try_from(*depth).map_err(|_| Error::invalid("a negative depth"))?;
        let at = axis(self.0, wanted.shape().len() + 1)?;
        let mut shape = wanted.shape().to_vec();
        shape.insert(at, size);
        count(&shape)?;
        let inner = model::element_count(&wanted.shape()[at..]).unwrap_or(0);
        let hot: Vec<i64> = indices.iter().map(|i| if *i < 0 { i + depth } else { *i }).collect();
        let outer = model::element_count(&wanted.shape()[..at]).unwrap_or(0);
        let hot = &hot;
        let offsets = (0..outer).flat_map(move |o| {
            (0..size).flat_map(move |class| {
                (0..inner).map(move |i| usize::from(hot[o * inner + i] == class as i64))
            })
        });
        Ok(vec![tensor(shape, gather(values.data(), 1, offsets))?])
    }
}

/// One slice of a tensor, without the axis that it is cut from.
pub(in crate::native) fn slice_at(
    data: &Tensor,
    along: i64,
    index: usize,
) -> Result<Tensor, Error> {
    let at = axis(along, data.shape().len())?;
    let mut shape = data.shape().to_vec();
    shape.remove(at);
    let inner: usize = data.shape()[at + 1..].iter().product();
    let outer: usize = data.shape()[..at].iter().product();
    let extent = data.shape()[at];
    let offsets = (0..outer).map(|i| (i * extent + index) * inner);
    let cut = gather(data.data(), inner, offsets);
    tensor(shape, cut)
}

/// How long a tensor is along an axis.
pub(in crate::native) fn extent(data: &Tensor, along: i64) -> Result<usize, Error> {
    Ok(data.shape()[axis(along, data.shape().len())?])
}

/// Tensors of one shape that become one along a new axis.
pub(in crate::native) struct Rounds(Vec<Tensor>);

impl Rounds {
    pub(in crate::native) fn new() -> Self {
        Self(Vec::new())
    }

    /// Refuses a tensor that does not fit, and one too many for memory.
    pub(in crate::native) fn push(&mut self, part: Tensor) -> Result<(), Error> {
        if let Some(first) = self.0.first()
            && first.shape() != part.shape()
        {
            let (a, b) = (first.shape(), part.shape());
            let message = format!("rounds that make shapes {a:?} and {b:?} cannot be stacked");
            return Err(Error::invalid(message));
        }
        // A tensor costs memory even when it has no elements.
        count(&[self.0.len() + 1, part.len().max(256)])?;
        self.0.push(part);
        Ok(())
    }

    pub(in crate::native) fn reverse(&mut self) {
        self.0.reverse();
    }

    /// Stacks them; `datatype` and `declared` say what nothing becomes.
    pub(in crate::native) fn stack(
        self,
        along: i64,
        datatype: DataType,
        declared: &[usize],
    ) -> Result<Tensor, Error> {
        let mut shape = self.0.first().map_or(declared, Tensor::shape).to_vec();
        let at = axis(along, shape.len() + 1)?;
        let outer = shape[..at].iter().product();
        shape.insert(at, self.0.len());
        if self.0.is_empty() {
            return Ok(crate::zeros(datatype, shape));
        }
        let parts: Vec<&Tensor> = self.0.iter().collect();
        tensor(shape, join(&parts, outer))
    }
}
