//! Operators on one tensor, element by element.

use model::{Data, Tensor, bf16, f16};

use super::arithmetic::{Number, map_numbers};
use super::shape::tensor;
use super::{Argument, Arguments, Built, Context, Operator};
use crate::Error;

type Function = fn(f64) -> f64;

pub(super) fn build(operator: &str, context: &Context<'_>) -> Option<Built> {
    let attributes = context.attributes;
    let built: Built = match operator {
        "Neg" => Ok(Box::new(Signed(Sign::Neg))),
        "Abs" => Ok(Box::new(Signed(Sign::Abs))),
        "Sign" => Ok(Box::new(Signed(Sign::Signum))),
        "Not" => Ok(Box::new(Not)),
        "IsNaN" => Ok(Box::new(Test { nan: true, positive: false, negative: false })),
        "IsInf" => is_inf(context),
        "Relu" => Ok(Box::new(Signed(Sign::Relu))),
        "LeakyRelu" => attributes.float_or("alpha", 0.01).map(|alpha| {
            let alpha = f64::from(alpha);
            sloped(move |x| if x < 0.0 { alpha * x } else { x })
        }),
        "Elu" => attributes.float_or("alpha", 1.0).map(|alpha| {
            let alpha = f64::from(alpha);
            sloped(move |x| if x < 0.0 { alpha * x.exp_m1() } else { x })
        }),
        _ => return function(operator).map(|f| Ok(Box::new(Float(f)) as Box<dyn Operator>)),
    };
    Some(built)
}

/// Computed in double precision and rounded once.
fn function(operator: &str) -> Option<Function> {
    Some(match operator {
        "Exp" => f64::exp,
        "Log" => f64::ln,
        "Sqrt" => f64::sqrt,
        "Reciprocal" => f64::recip,
        "Sigmoid" => sigmoid,
        "Tanh" => f64::tanh,
        "Softplus" => |x| x.max(0.0) + (-x.abs()).exp().ln_1p(),
        "Softsign" => |x| x / (1.0 + x.abs()),
        "Erf" => libm::erf,
        "Floor" => f64::floor,
        "Ceil" => f64::ceil,
        "Round" => f64::round_ties_even,
        "Sin" => f64::sin,
        "Cos" => f64::cos,
        "Tan" => f64::tan,
        "Asin" => f64::asin,
        "Acos" => f64::acos,
        "Atan" => f64::atan,
        "Sinh" => f64::sinh,
        "Cosh" => f64::cosh,
        "Asinh" => f64::asinh,
        "Acosh" => f64::acosh,
        "Atanh" => f64::atanh,
        _ => return None,
    })
}

fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

struct Float(Function);

impl Operator for Float {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        Ok(vec![map_floats(Arguments(&mut inputs).required(0)?, self.0)?])
    }
}

fn map_floats(input: &Tensor, f: impl Fn(f64) -> f64) -> Result<Tensor, Error> {
    let data: Data = match input.data() {
        Data::Fp32(v) => v.iter().map(|x| f(f64::from(*x)) as f32).collect::<Vec<_>>().into(),
        Data::Fp64(v) => v.iter().map(|x| f(*x)).collect::<Vec<_>>().into(),
        Data::Fp16(v) => v.iter().map(|x| f16::from_f64(f(x.to_f64()))).collect::<Vec<_>>().into(),
        Data::Bf16(v) => v.iter().map(|x| bf16::from_f64(f(x.to_f64()))).collect::<Vec<_>>().into(),
        other => {
            let message = format!("expected floating point, got {}", other.datatype());
            return Err(Error::invalid(message));
        }
    };
    tensor(input.shape().to_vec(), data)
}

/// A function with parameters of its own.
struct Sloped<F>(F);

fn sloped(f: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Box<dyn Operator> {
    Box::new(Sloped(f))
}

impl<F: Fn(f64) -> f64 + Send + Sync> Operator for Sloped<F> {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        Ok(vec![map_floats(Arguments(&mut inputs).required(0)?, &self.0)?])
    }
}

/// Functions that are exact in every number type.
struct Signed(Sign);

#[derive(Clone, Copy)]
enum Sign {
    Neg,
    Abs,
    Signum,
    Relu,
}

impl Operator for Signed {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let data = map_numbers!(input.data(), values => signed(self.0, values), "the operator");
        Ok(vec![tensor(input.shape().to_vec(), data)?])
    }
}

fn signed<T: Number>(what: Sign, values: &[T]) -> Vec<T> {
    let zero = T::zero();
    // Negating zero floats by subtraction would lose the sign.
    let minus_one = T::from_f64(-1.0);
    let negate = |v: T| if T::INTEGER { zero.sub(v) } else { v.mul(minus_one) };
    let one = |v: &T| match what {
        Sign::Neg => negate(*v),
        Sign::Abs if *v < zero => negate(*v),
        Sign::Abs if *v == zero => zero,
        Sign::Abs => *v,
        Sign::Signum if *v > zero => T::from_f64(1.0),
        Sign::Signum if *v < zero => minus_one,
        Sign::Signum if *v == zero => zero,
        Sign::Signum => *v,
        Sign::Relu if *v < zero => zero,
        Sign::Relu => *v,
    };
    values.iter().map(one).collect()
}

struct Not;

impl Operator for Not {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let flags = input.as_bools().ok_or_else(|| Error::invalid("expected BOOL"))?;
        let made: Vec<bool> = flags.iter().map(|flag| *flag == 0).collect();
        Ok(vec![tensor(input.shape().to_vec(), made)?])
    }
}

fn is_inf(context: &Context<'_>) -> Built {
    context.attributes.only(&["detect_positive", "detect_negative"])?;
    let positive = context.attributes.flag("detect_positive", true)?;
    let negative = context.attributes.flag("detect_negative", true)?;
    Ok(Box::new(Test { nan: false, positive, negative }))
}

/// `IsNaN` and `IsInf`.
struct Test {
    nan: bool,
    positive: bool,
    negative: bool,
}

impl Operator for Test {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let input = inputs.required(0)?;
        let test = |x: f64| {
            self.nan && x.is_nan()
                || self.positive && x == f64::INFINITY
                || self.negative && x == f64::NEG_INFINITY
        };
        let made: Vec<bool> = match input.data() {
            Data::Fp32(v) => v.iter().map(|x| test(f64::from(*x))).collect(),
            Data::Fp64(v) => v.iter().map(|x| test(*x)).collect(),
            Data::Fp16(v) => v.iter().map(|x| test(x.to_f64())).collect(),
            Data::Bf16(v) => v.iter().map(|x| test(x.to_f64())).collect(),
            other => {
                let message = format!("expected floating point, got {}", other.datatype());
                return Err(Error::invalid(message));
            }
        };
        Ok(vec![tensor(input.shape().to_vec(), made)?])
    }
}
