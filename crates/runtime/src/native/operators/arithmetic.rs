//! Operators on two or more tensors, element by element, with broadcasting.

use bytemuck::Pod;
use model::{Data, DataType, Tensor, bf16, f16};

use super::shape::{self, Walk, broadcast, broadcast_strides, count, tensor};
use super::{Argument, Arguments, Built, Context, Operator};
use crate::Error;

/// What all number types can do, with the wrapping and NaN rules of the reference.
pub(super) trait Number: Pod + PartialOrd + Send + Sync {
    const INTEGER: bool;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// Integers truncate; dividing an integer by zero is refused before it gets here.
    fn div(self, other: Self) -> Self;
    /// The remainder with the dividend's sign.
    fn rem(self, other: Self) -> Self;
    fn pow(self, exponent: f64) -> Self;
    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    fn zero() -> Self;
}

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl Number for $type {
            const INTEGER: bool = true;
            fn add(self, other: Self) -> Self { self.wrapping_add(other) }
            fn sub(self, other: Self) -> Self { self.wrapping_sub(other) }
            fn mul(self, other: Self) -> Self { self.wrapping_mul(other) }
            fn div(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_div(other) }
            }
            fn rem(self, other: Self) -> Self {
                if other == 0 { 0 } else { self.wrapping_rem(other) }
            }
            fn pow(self, exponent: f64) -> Self {
                if exponent >= 0.0 && exponent.fract() == 0.0 && exponent <= f64::from(u32::MAX) {
                    self.wrapping_pow(exponent as u32)
                } else {
                    (self as f64).powf(exponent) as Self
                }
            }
            fn from_f64(value: f64) -> Self { value as Self }
            fn to_f64(self) -> f64 { self as f64 }
            fn zero() -> Self { 0 }
        }
    )*};
}
integer!(u8, u16, u32, u64, i8, i16, i32, i64);

macro_rules! float {
    ($($type:ty, $wide:ty, $up:expr, $down:expr);*) => {$(
        impl Number for $type {
            const INTEGER: bool = false;
            fn add(self, other: Self) -> Self { $down($up(self) + $up(other)) }
            fn sub(self, other: Self) -> Self { $down($up(self) - $up(other)) }
            fn mul(self, other: Self) -> Self { $down($up(self) * $up(other)) }
            fn div(self, other: Self) -> Self { $down($up(self) / $up(other)) }
            fn rem(self, other: Self) -> Self { $down($up(self) % $up(other)) }
            fn pow(self, exponent: f64) -> Self { $down($up(self).powf(exponent as $wide)) }
            fn from_f64(value: f64) -> Self { <$type>::from_f64_value(value) }
            fn to_f64(self) -> f64 { f64::from(self) }
            fn zero() -> Self { $down(0.0) }
        }
    )*};
}

/// Rounds from double precision once, whatever the type.
trait FromF64 {
    fn from_f64_value(value: f64) -> Self;
}
impl FromF64 for f32 {
    fn from_f64_value(value: f64) -> Self {
        value as f32
    }
}
impl FromF64 for f64 {
    fn from_f64_value(value: f64) -> Self {
        value
    }
}
impl FromF64 for f16 {
    fn from_f64_value(value: f64) -> Self {
        f16::from_f64(value)
    }
}
impl FromF64 for bf16 {
    fn from_f64_value(value: f64) -> Self {
        bf16::from_f64(value)
    }
}
float!(
    f32, f32, std::convert::identity, std::convert::identity;
    f64, f64, std::convert::identity, std::convert::identity;
    f16, f32, f16::to_f32, f16::from_f32;
    bf16, f32, bf16::to_f32, bf16::from_f32
);

/// Runs an expression with the elements of number data, and rebuilds data around the result.
macro_rules! map_numbers {
    ($data:expr, $values:ident => $result:expr, $name:expr) => {
        match $data {
            Data::Uint8($values) => Data::Uint8($result.into()),
            Data::Uint16($values) => Data::Uint16($result.into()),
            Data::Uint32($values) => Data::Uint32($result.into()),
            Data::Uint64($values) => Data::Uint64($result.into()),
            Data::Int8($values) => Data::Int8($result.into()),
            Data::Int16($values) => Data::Int16($result.into()),
            Data::Int32($values) => Data::Int32($result.into()),
            Data::Int64($values) => Data::Int64($result.into()),
            Data::Fp16($values) => Data::Fp16($result.into()),
            Data::Bf16($values) => Data::Bf16($result.into()),
            Data::Fp32($values) => Data::Fp32($result.into()),
            Data::Fp64($values) => Data::Fp64($result.into()),
            other => {
                return Err(Error::invalid(format!(
                    "{} is not defined on {}",
                    $name,
                    other.datatype()
                )));
            }
        }
    };
}
pub(super) use map_numbers;

/// Runs an expression with the elements of two tensors of the same number type.
macro_rules! map_pair {
    ($left:expr, $right:expr, $a:ident, $b:ident => $result:expr, $name:expr) => {
        match ($left, $right) {
            (Data::Uint8($a), Data::Uint8($b)) => Data::Uint8($result.into()),
            (Data::Uint16($a), Data::Uint16($b)) => Data::Uint16($result.into()),
            (Data::Uint32($a), Data::Uint32($b)) => Data::Uint32($result.into()),
            (Data::Uint64($a), Data::Uint64($b)) => Data::Uint64($result.into()),
            (Data::Int8($a), Data::Int8($b)) => Data::Int8($result.into()),
            (Data::Int16($a), Data::Int16($b)) => Data::Int16($result.into()),
            (Data::Int32($a), Data::Int32($b)) => Data::Int32($result.into()),
            (Data::Int64($a), Data::Int64($b)) => Data::Int64($result.into()),
            (Data::Fp16($a), Data::Fp16($b)) => Data::Fp16($result.into()),
            (Data::Bf16($a), Data::Bf16($b)) => Data::Bf16($result.into()),
            (Data::Fp32($a), Data::Fp32($b)) => Data::Fp32($result.into()),
            (Data::Fp64($a), Data::Fp64($b)) => Data::Fp64($result.into()),
            (a, b) => {
                return Err(Error::invalid(format!(
                    "{} is not defined on {} and {}",
                    $name,
                    a.datatype(),
                    b.datatype()
                )));
            }
        }
    };
}
pub(super) use map_pair;

/// How two tensors meet.
struct Meeting {
    shape: Vec<usize>,
    left: Vec<isize>,
    right: Vec<isize>,
    /// Whether a side needs no walking: its elements are already in the result's order.
    whole: (bool, bool),
}

impl Meeting {
    fn of(left: &[usize], right: &[usize]) -> Result<Self, Error> {
        let shape = broadcast(left, right)?;
        let elements = count(&shape)?;
        let whole = |side: &[usize]| model::element_count(side) == Some(elements);
        Ok(Self {
            left: broadcast_strides(left, &shape),
            right: broadcast_strides(right, &shape),
            whole: (whole(left), whole(right)),
            shape,
        })
    }

    fn map<T: Clone, R>(&self, left: &[T], right: &[T], f: impl Fn(&T, &T) -> R) -> Vec<R> {
        match (self.whole, left, right) {
            ((true, true), ..) => left.iter().zip(right).map(|(a, b)| f(a, b)).collect(),
            ((true, _), _, [b]) => left.iter().map(|a| f(a, b)).collect(),
            ((_, true), [a], _) => right.iter().map(|b| f(a, b)).collect(),
            _ => {
                let left_offsets = Walk::new(&self.shape, &self.left, 0);
                let right_offsets = Walk::new(&self.shape, &self.right, 0);
                let pairs = left_offsets.zip(right_offsets);
                pairs.map(|(a, b)| f(&left[a], &right[b])).collect()
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Operation {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    Mean,
    /// The remainder with the divisor's sign.
    Mod,
    /// The remainder with the dividend's sign.
    Fmod,
}

#[derive(Clone, Copy)]
enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy)]
enum Logic {
    And,
    Or,
    Xor,
}

pub(super) fn build(operator: &str, context: &Context<'_>) -> Option<Built> {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    use Operation::{Add, Div, Max, Mean, Min, Mul, Sub};
    // Before operator set 7, broadcasting had to be asked for and followed other rules.
    let old = context.opset < 7;
    let built: Built = match operator {
        _ if old && context.attributes.has("broadcast") => {
            return matches!(
                operator,
                "Add"
                    | "Sub"
                    | "Mul"
                    | "Div"
                    | "Pow"
                    | "Equal"
                    | "Less"
                    | "Greater"
                    | "And"
                    | "Or"
                    | "Xor"
            )
            .then(|| {
                let message = "broadcasting as before operator set 7 is not supported";
                Err(Error::unsupported(message))
            });
        }
        "Add" => fold(Add, "Add"),
        "Sub" => fold(Sub, "Sub"),
        "Mul" => fold(Mul, "Mul"),
        "Div" => fold(Div, "Div"),
        "Min" => fold(Min, "Min"),
        "Max" => fold(Max, "Max"),
        "Sum" => fold(Add, "Sum"),
        "Mean" => fold(Mean, "Mean"),
        "Mod" => context.attributes.flag("fmod", false).map(|keep| {
            let operation = if keep { Operation::Fmod } else { Operation::Mod };
            Box::new(Fold { operation, name: "Mod" }) as Box<dyn Operator>
        }),
        "Pow" => Ok(Box::new(Pow)),
        "Equal" => Ok(Box::new(Compare(Equal))),
        "Less" => Ok(Box::new(Compare(Less))),
        "LessOrEqual" => Ok(Box::new(Compare(LessOrEqual))),
        "Greater" => Ok(Box::new(Compare(Greater))),
        "GreaterOrEqual" => Ok(Box::new(Compare(GreaterOrEqual))),
        "And" => Ok(Box::new(Logical(Logic::And))),
        "Or" => Ok(Box::new(Logical(Logic::Or))),
        "Xor" => Ok(Box::new(Logical(Logic::Xor))),
        "Where" => Ok(Box::new(Where)),
        "Clip" => clip(context),
        _ => return None,
    };
    Some(built)
}

fn fold(operation: Operation, name: &'static str) -> Built {
    Ok(Box::new(Fold { operation, name }))
}

/// Combines all inputs, from the left.
struct Fold {
    operation: Operation,
    name: &'static str,
}

impl Operator for Fold {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let mut inputs = Arguments(&mut inputs);
        let number = inputs.0.len();
        if number == 1 {
            return Ok(vec![inputs.take(0)?]);
        }
        let mut result = self.pair(inputs.required(0)?, inputs.required(1)?)?;
        for index in 2..number {
            result = self.pair(&result, inputs.required(index)?)?;
        }
        if self.operation == Operation::Mean {
            let data = map_numbers!(result.data(), values => {
                mean(values, number)
            }, self.name);
            result = tensor(result.shape().to_vec(), data)?;
        }
        Ok(vec![result])
    }
}

fn mean<T: Number>(sums: &[T], number: usize) -> Vec<T> {
    let number = T::from_f64(number as f64);
    sums.iter().map(|sum| sum.div(number)).collect()
}

impl Fold {
    fn pair(&self, left: &Tensor, right: &Tensor) -> Result<Tensor, Error> {
        let meeting = Meeting::of(left.shape(), right.shape())?;
        let data = map_pair!(left.data(), right.data(), a, b => {
            calculate(self.operation, &meeting, a, b)?
        }, self.name);
        tensor(meeting.shape, data)
    }
}

fn calculate<T: Number>(
    operation: Operation,
    meeting: &Meeting,
    left: &[T],
    right: &[T],
) -> Result<Vec<T>, Error> {
    use Operation::{Add, Div, Fmod, Max, Mean, Min, Mod, Mul, Sub};
    let divides = matches!(operation, Div | Mod | Fmod);
    if T::INTEGER && divides && right.iter().any(|value| *value == T::zero()) {
        return Err(Error::invalid("an integer is divided by zero"));
    }
    // A NaN on either side wins.
    let wins = |a: T, b: T, smaller: bool| {
        let first = if smaller { a < b } else { a > b };
        if first || a.partial_cmp(&a).is_none() { a } else { b }
    };
    let floor = |a: T, b: T| {
        let rest = a.rem(b);
        let other_sign = (rest < T::zero()) != (b < T::zero());
        if rest != T::zero() && other_sign { rest.add(b) } else { rest }
    };
    Ok(match operation {
        Add | Mean => meeting.map(left, right, |a, b| a.add(*b)),
        Sub => meeting.map(left, right, |a, b| a.sub(*b)),
        Mul => meeting.map(left, right, |a, b| a.mul(*b)),
        Div => meeting.map(left, right, |a, b| a.div(*b)),
        Min => meeting.map(left, right, |a, b| wins(*a, *b, true)),
        Max => meeting.map(left, right, |a, b| wins(*a, *b, false)),
        Fmod => meeting.map(left, right, |a, b| a.rem(*b)),
        Mod => meeting.map(left, right, |a, b| floor(*a, *b)),
    })
}

/// The exponent may have a type of its own; the result has the base's.
struct Pow;

impl Operator for Pow {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let (base, exponent) = (inputs.required(0)?, inputs.required(1)?);
        let meeting = Meeting::of(base.shape(), exponent.shape())?;
        let exponents = super::cast::cast(exponent, DataType::Fp64)?;
        let exponents = exponents.as_slice::<f64>().unwrap_or_default();
        let left = Walk::new(&meeting.shape, &meeting.left, 0);
        let right = Walk::new(&meeting.shape, &meeting.right, 0);
        let data = map_numbers!(base.data(), values => {
            let pairs = left.zip(right);
            pairs.map(|(a, b)| Number::pow(values[a], exponents[b])).collect::<Vec<_>>()
        }, "Pow");
        Ok(vec![tensor(meeting.shape, data)?])
    }
}

struct Compare(Comparison);

impl Operator for Compare {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let (left, right) = (inputs.required(0)?, inputs.required(1)?);
        let meeting = Meeting::of(left.shape(), right.shape())?;
        let made = match (left.data(), right.data()) {
            (Data::Bool(a), Data::Bool(b)) => self.compare(&meeting, a, b),
            (Data::Bytes(a), Data::Bytes(b)) => self.compare(&meeting, a, b),
            (a, b) => {
                let made;
                let _ = map_pair!(a, b, x, y => {
                    made = self.compare(&meeting, x, y);
                    Vec::new()
                }, "a comparison");
                made
            }
        };
        Ok(vec![tensor(meeting.shape, made)?])
    }
}

impl Compare {
    fn compare<T: Clone + PartialOrd>(&self, meeting: &Meeting, a: &[T], b: &[T]) -> Vec<bool> {
        match self.0 {
            Comparison::Equal => meeting.map(a, b, |a, b| a == b),
            Comparison::Less => meeting.map(a, b, |a, b| a < b),
            Comparison::LessOrEqual => meeting.map(a, b, |a, b| a <= b),
            Comparison::Greater => meeting.map(a, b, |a, b| a > b),
            Comparison::GreaterOrEqual => meeting.map(a, b, |a, b| a >= b),
        }
    }
}

struct Logical(Logic);

impl Operator for Logical {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let (left, right) = (inputs.required(0)?, inputs.required(1)?);
        let meeting = Meeting::of(left.shape(), right.shape())?;
        let (Some(a), Some(b)) = (left.as_bools(), right.as_bools()) else {
            return Err(Error::invalid("expected two BOOL tensors"));
        };
        let made = match self.0 {
            Logic::And => meeting.map(a, b, |a, b| a & b != 0),
            Logic::Or => meeting.map(a, b, |a, b| a | b != 0),
            Logic::Xor => meeting.map(a, b, |a, b| a ^ b != 0),
        };
        Ok(vec![tensor(meeting.shape, made)?])
    }
}

struct Where;

impl Operator for Where {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let (left, right) = (inputs.required(1)?, inputs.required(2)?);
        let condition = inputs.required(0)?;
        let Some(flags) = condition.as_bools() else {
            return Err(Error::invalid("the condition is not BOOL"));
        };
        if left.datatype() != right.datatype() {
            return Err(Error::invalid("the two sides differ in type"));
        }
        let shape = broadcast(&broadcast(left.shape(), right.shape())?, condition.shape())?;
        count(&shape)?;
        // Both sides as one array; an offset says which.
        let flag_steps = broadcast_strides(condition.shape(), &shape);
        let left_steps = broadcast_strides(left.shape(), &shape);
        let right_steps = broadcast_strides(right.shape(), &shape);
        let behind = left.len();
        let both = [left.clone().reshape(vec![behind]), right.clone().reshape(vec![right.len()])];
        let both: Vec<Tensor> = both.into_iter().flatten().collect();
        let joined = Tensor::concat_rows(&[&both[0], &both[1]]);
        let joined = joined.ok_or_else(|| Error::internal("two runs of one type do not join"))?;
        let offsets = Walk::new(&shape, &flag_steps, 0)
            .zip(Walk::new(&shape, &left_steps, 0))
            .zip(Walk::new(&shape, &right_steps, 0))
            .map(|((flag, a), b)| if flags[flag] != 0 { a } else { behind + b });
        let data = shape::gather(joined.data(), 1, offsets);
        Ok(vec![tensor(shape, data)?])
    }
}

/// The limits are attributes before operator set 11, inputs after.
fn clip(context: &Context<'_>) -> Built {
    context.attributes.only(&["min", "max"])?;
    let (min, max) = (context.attributes.float("min")?, context.attributes.float("max")?);
    Ok(Box::new(Clip { min, max }))
}

struct Clip {
    min: Option<f32>,
    max: Option<f32>,
}

impl Operator for Clip {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let limit = |index: usize, fixed: Option<f32>| -> Result<Option<Tensor>, Error> {
            let fixed = fixed.map(|value| Tensor::scalar(vec![value]));
            let found = inputs.optional(index).cloned().or(fixed);
            match found {
                Some(found) if found.len() != 1 => Err(Error::invalid("a limit is not scalar")),
                other => Ok(other),
            }
        };
        let data = inputs.required(0)?;
        let (low, high) = (limit(1, self.min)?, limit(2, self.max)?);
        let mut result = data.clone();
        if let Some(low) = low {
            result = Fold { operation: Operation::Max, name: "Clip" }.pair(&result, &low)?;
        }
        if let Some(high) = high {
            result = Fold { operation: Operation::Min, name: "Clip" }.pair(&result, &high)?;
        }
        let data = result.into_parts().1;
        Ok(vec![tensor(inputs.required(0)?.shape().to_vec(), data)?])
    }
}
