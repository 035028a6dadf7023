//! Operators that look along axes: reductions, arg-max, top-k, softmax, running sums.

use std::cmp::Ordering;

use model::{Data, Tensor};

use super::arithmetic::{Number, map_numbers};
use super::shape::{self, Walk, axis, integer, integers, strides, tensor};
use super::{Argument, Arguments, Built, Context, Operator};
use crate::Error;

#[derive(Clone, Copy, PartialEq)]
enum Reduction {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L1,
    L2,
    LogSum,
    LogSumExp,
    SumSquare,
}

pub(super) fn build(operator: &str, context: &Context<'_>) -> Option<Built> {
    use Reduction::{L1, L2, LogSum, LogSumExp, Max, Mean, Min, Prod, Sum, SumSquare};
    Some(match operator {
        "ReduceSum" => reduce(context, Sum),
        "ReduceMean" => reduce(context, Mean),
        "ReduceMax" => reduce(context, Max),
        "ReduceMin" => reduce(context, Min),
        "ReduceProd" => reduce(context, Prod),
        "ReduceL1" => reduce(context, L1),
        "ReduceL2" => reduce(context, L2),
        "ReduceLogSum" => reduce(context, LogSum),
        "ReduceLogSumExp" => reduce(context, LogSumExp),
        "ReduceSumSquare" => reduce(context, SumSquare),
        "ArgMax" => arg(context, true),
        "ArgMin" => arg(context, false),
        "TopK" => top(context),
        "Softmax" => softmax(context, false),
        "LogSoftmax" => softmax(context, true),
        "CumSum" => running_sum(context),
        _ => return None,
    })
}

fn reduce(context: &Context<'_>, reduction: Reduction) -> Built {
    let attributes = context.attributes;
    attributes.only(&["axes", "keepdims", "noop_with_empty_axes"])?;
    Ok(Box::new(Reduce {
        reduction,
        axes: attributes.ints("axes")?.to_vec(),
        keep: attributes.flag("keepdims", true)?,
        empty_is_none: attributes.flag("noop_with_empty_axes", false)?,
    }))
}

struct Reduce {
    reduction: Reduction,
    axes: Vec<i64>,
    keep: bool,
    empty_is_none: bool,
}

impl Operator for Reduce {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let given = inputs.optional(1).map(integers).transpose()?.unwrap_or_default();
        let list = if given.is_empty() { &self.axes } else { &given };
        let rank = input.shape().len();
        let gone = match list.is_empty() {
            true if self.empty_is_none => Vec::new(),
            true => (0..rank).collect(),
            false => shape::axes(list, rank)?,
        };
        let groups = Groups::of(input.shape(), &gone);
        let data = match input.data() {
            Data::Bool(flags) => Data::Bool(self.reduce_flags(flags, &groups)?.into()),
            data => map_numbers!(data, values => self.reduce(values, &groups), "a reduction"),
        };
        let shape = if self.keep { groups.kept } else { groups.dropped };
        Ok(vec![tensor(shape, data)?])
    }
}

impl Reduce {
    fn reduce<T: Number>(&self, values: &[T], groups: &Groups) -> Vec<T> {
        groups.map(|offsets| one(self.reduction, offsets.map(|offset| values[offset])))
    }

    fn reduce_flags(&self, flags: &[u8], groups: &Groups) -> Result<Vec<u8>, Error> {
        match self.reduction {
            Reduction::Max => Ok(groups.map(|mut o| u8::from(o.any(|o| flags[o] != 0)))),
            Reduction::Min => Ok(groups.map(|mut o| u8::from(o.all(|o| flags[o] != 0)))),
            _ => Err(Error::invalid("only the minimum and maximum of BOOL are defined")),
        }
    }
}

/// Reduces one group. Integers keep their own wrapping arithmetic; floating point is summed in
/// double precision.
fn one<T: Number>(reduction: Reduction, values: impl Iterator<Item = T> + Clone) -> T {
    use Reduction::{L1, L2, LogSum, LogSumExp, Max, Mean, Min, Prod, Sum, SumSquare};
    if T::INTEGER {
        let whole = |start: f64, f: fn(T, T) -> T| values.clone().fold(T::from_f64(start), f);
        match reduction {
            Sum => return whole(0.0, T::add),
            Prod => return whole(1.0, T::mul),
            SumSquare => return whole(0.0, |sum, v| sum.add(v.mul(v))),
            L1 => {
                let zero = T::zero();
                return values.fold(zero, |sum, v| sum.add(if v < zero { zero.sub(v) } else { v }));
            }
            _ => {}
        }
    }
    let wide = || values.clone().map(Number::to_f64);
    // A NaN among the values is the answer.
    let extreme = |wanted: Ordering, start: f64| {
        let mut best: Option<T> = None;
        for value in values.clone() {
            match best {
                _ if value.partial_cmp(&value).is_none() => return value,
                Some(old) if value.partial_cmp(&old) != Some(wanted) => {}
                _ => best = Some(value),
            }
        }
        best.unwrap_or_else(|| T::from_f64(start))
    };
    T::from_f64(match reduction {
        Max => return extreme(Ordering::Greater, f64::NEG_INFINITY),
        Min => return extreme(Ordering::Less, f64::INFINITY),
        Sum => wide().sum(),
        Mean => wide().sum::<f64>() / wide().count() as f64,
        Prod => wide().product(),
        L1 => wide().map(f64::abs).sum(),
        L2 => wide().map(|v| v * v).sum::<f64>().sqrt(),
        SumSquare => wide().map(|v| v * v).sum(),
        LogSum => wide().sum::<f64>().ln(),
        LogSumExp => {
            let top = wide().fold(f64::NEG_INFINITY, f64::max);
            let shift = if top.is_finite() { top } else { 0.0 };
            wide().map(|v| (v - shift).exp()).sum::<f64>().ln() + shift
        }
    })
}

/// A tensor seen as groups of elements that are reduced to one each.
struct Groups {
    kept: Vec<usize>,
    dropped: Vec<usize>,
    outer: (Vec<usize>, Vec<isize>),
    inner: (Vec<usize>, Vec<isize>),
}

impl Groups {
    fn of(shape: &[usize], gone: &[usize]) -> Self {
        let own = strides(shape);
        let mut groups = Self {
            kept: shape.to_vec(),
            dropped: Vec::new(),
            outer: (Vec::new(), Vec::new()),
            inner: (Vec::new(), Vec::new()),
        };
        for (index, extent) in shape.iter().enumerate() {
            let side = if gone.contains(&index) {
                groups.kept[index] = 1;
                &mut groups.inner
            } else {
                groups.dropped.push(*extent);
                &mut groups.outer
            };
            side.0.push(*extent);
            side.1.push(own[index]);
        }
        groups
    }

    fn map<R>(&self, f: impl Fn(Offsets<'_>) -> R) -> Vec<R> {
        let inner: Vec<usize> = Walk::new(&self.inner.0, &self.inner.1, 0).collect();
        Walk::new(&self.outer.0, &self.outer.1, 0)
            .map(|base| f(Offsets { base, inner: inner.iter() }))
            .collect()
    }
}

/// The offsets of one group's elements.
#[derive(Clone)]
struct Offsets<'a> {
    base: usize,
    inner: std::slice::Iter<'a, usize>,
}

impl Iterator for Offsets<'_> {
    type Item = usize;
    fn next(&mut self) -> Option<usize> {
        self.inner.next().map(|offset| self.base + offset)
    }
}

/// A tensor seen as lines along one axis: `outer` × `extent` × `inner`.
struct Lines {
    outer: usize,
    extent: usize,
    inner: usize,
}

impl Lines {
    fn of(shape: &[usize], axis: usize) -> Self {
        let product = |part: &[usize]| model::element_count(part).unwrap_or(0);
        Self {
            outer: product(&shape[..axis]),
            extent: shape[axis],
            inner: product(&shape[axis + 1..]),
        }
    }

    /// The first offset of each line; the rest follow at a distance of `inner`.
    fn starts(&self) -> impl Iterator<Item = usize> + '_ {
        let step = self.extent * self.inner;
        (0..self.outer).flat_map(move |o| (0..self.inner).map(move |i| o * step + i))
    }
}

fn arg(context: &Context<'_>, largest: bool) -> Built {
    context.attributes.only(&["axis", "keepdims", "select_last_index"])?;
    Ok(Box::new(Arg {
        largest,
        axis: context.attributes.int_or("axis", 0)?,
        keep: context.attributes.flag("keepdims", true)?,
        last: context.attributes.flag("select_last_index", false)?,
    }))
}

struct Arg {
    largest: bool,
    axis: i64,
    keep: bool,
    last: bool,
}

impl Operator for Arg {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let at = axis(self.axis, input.shape().len())?;
        let lines = Lines::of(input.shape(), at);
        if lines.extent == 0 {
            return Err(Error::invalid("an axis without elements has no largest or smallest"));
        }
        let found: Vec<i64>;
        let _ = map_numbers!(input.data(), values => {
            found = lines.starts().map(|start| self.find(values, &lines, start)).collect();
            Vec::new()
        }, "the operator");
        let mut shape = input.shape().to_vec();
        shape[at] = 1;
        if !self.keep {
            shape.remove(at);
        }
        Ok(vec![tensor(shape, found)?])
    }
}

impl Arg {
    fn find<T: Number>(&self, values: &[T], lines: &Lines, start: usize) -> i64 {
        let mut best = 0;
        for index in 1..lines.extent {
            let (new, old) =
                (values[start + index * lines.inner], values[start + best * lines.inner]);
            let wins = if self.largest { new > old } else { new < old };
            if wins || self.last && new == old {
                best = index;
            }
        }
        best as i64
    }
}

fn top(context: &Context<'_>) -> Built {
    context.attributes.only(&["axis", "k", "largest", "sorted"])?;
    Ok(Box::new(Top {
        fixed: context.attributes.int("k")?,
        axis: context.attributes.int_or("axis", -1)?,
        largest: context.attributes.flag("largest", true)?,
    }))
}

struct Top {
    fixed: Option<i64>,
    axis: i64,
    largest: bool,
}

impl Operator for Top {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let k = match self.fixed {
            Some(k) => k,
            None => integer(inputs.required(1)?)?,
        };
        let at = axis(self.axis, input.shape().len())?;
        let lines = Lines::of(input.shape(), at);
        let k = match usize::try_from(k) {
            Ok(k) if k <= lines.extent => k,
            _ => {
                let message = format!("k is {k}, but the axis has {} elements", lines.extent);
                return Err(Error::invalid(message));
            }
        };
        let mut shape = input.shape().to_vec();
        shape[at] = k;
        // In the output's order: the rank within the line is the axis's place.
        let mut offsets = vec![0; shape::count(&shape)?];
        let mut indices = vec![0i64; offsets.len()];
        let _ = map_numbers!(input.data(), values => {
            for (line, start) in lines.starts().enumerate() {
                let (outer, inner) = (line / lines.inner, line % lines.inner);
                for (rank, index) in self.order(values, &lines, start, k).into_iter().enumerate() {
                    let place = (outer * k + rank) * lines.inner + inner;
                    offsets[place] = start + index * lines.inner;
                    indices[place] = index as i64;
                }
            }
            Vec::new()
        }, "TopK");
        let data = shape::gather(input.data(), 1, offsets.into_iter());
        Ok(vec![tensor(shape.clone(), data)?, tensor(shape, indices)?])
    }
}

impl Top {
    /// The indices of the first `k`; of equals, the first comes first.
    fn order<T: Number>(&self, values: &[T], lines: &Lines, start: usize, k: usize) -> Vec<usize> {
        let value = |index: &usize| values[start + index * lines.inner];
        let mut order: Vec<usize> = (0..lines.extent).collect();
        order.sort_by(|a, b| {
            let ordering = value(a).partial_cmp(&value(b)).unwrap_or(Ordering::Equal);
            if self.largest { ordering.reverse() } else { ordering }
        });
        order.truncate(k);
        order
    }
}

fn softmax(context: &Context<'_>, log: bool) -> Built {
    context.attributes.only(&["axis"])?;
    // Before operator set 13 everything from the axis on was one group.
    let flat = context.opset < 13;
    let axis = context.attributes.int_or("axis", if flat { 1 } else { -1 })?;
    Ok(Box::new(Softmax { axis, flat, log }))
}

struct Softmax {
    axis: i64,
    flat: bool,
    log: bool,
}

impl Operator for Softmax {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let rank = input.shape().len();
        let lines = if self.flat && self.axis == rank as i64 {
            Lines { outer: input.len(), extent: 1, inner: 1 }
        } else {
            let at = axis(self.axis, rank)?;
            let lines = Lines::of(input.shape(), at);
            match self.flat {
                true => Lines { outer: lines.outer, extent: lines.extent * lines.inner, inner: 1 },
                false => lines,
            }
        };
        let data = map_numbers!(input.data(), values => {
            self.run_lines(values, &lines)
        }, "Softmax");
        Ok(vec![tensor(input.shape().to_vec(), data)?])
    }
}

impl Softmax {
    fn run_lines<T: Number>(&self, values: &[T], lines: &Lines) -> Vec<T> {
        let mut out = values.to_vec();
        for start in lines.starts() {
            let offsets = (0..lines.extent).map(|index| start + index * lines.inner);
            let wide = |offset: usize| values[offset].to_f64();
            let top = offsets.clone().map(wide).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = offsets.clone().map(|offset| (wide(offset) - top).exp()).sum();
            for offset in offsets {
                let shifted = wide(offset) - top;
                let result = if self.log { shifted - sum.ln() } else { shifted.exp() / sum };
                out[offset] = T::from_f64(result);
            }
        }
        out
    }
}

fn running_sum(context: &Context<'_>) -> Built {
    context.attributes.only(&["exclusive", "reverse"])?;
    Ok(Box::new(RunningSum {
        exclusive: context.attributes.flag("exclusive", false)?,
        reverse: context.attributes.flag("reverse", false)?,
    }))
}

struct RunningSum {
    exclusive: bool,
    reverse: bool,
}

impl Operator for RunningSum {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let at = axis(integer(inputs.required(1)?)?, input.shape().len())?;
        let lines = Lines::of(input.shape(), at);
        let data = map_numbers!(input.data(), values => self.sum(values, &lines), "CumSum");
        Ok(vec![tensor(input.shape().to_vec(), data)?])
    }
}

impl RunningSum {
    fn sum<T: Number>(&self, values: &[T], lines: &Lines) -> Vec<T> {
        let mut out = values.to_vec();
        for start in lines.starts() {
            let mut sum = T::zero();
            for index in 0..lines.extent {
                let index = if self.reverse { lines.extent - 1 - index } else { index };
                let offset = start + index * lines.inner;
                let before = sum;
                sum = sum.add(values[offset]);
                out[offset] = if self.exclusive { before } else { sum };
            }
        }
        out
    }
}
