//! Matrix products of the size that tabular models have. Large ones go to `rten`.

use model::{Data, DataType, Tensor};

use super::arithmetic::{Number, map_numbers, map_pair};
use super::shape::{Walk, broadcast, broadcast_strides, count, tensor};
use super::{Argument, Arguments, Built, Context, Operator};
use crate::Error;
use crate::native::kinds::Kind;

/// Products in half precision need a wider sum than the other operators have.
fn refuse_halves(context: &Context<'_>) -> Result<(), Error> {
    let half = |kind: &Kind| matches!(kind.tensor(), Some(DataType::Fp16 | DataType::Bf16));
    match context.inputs.iter().flatten().find(|kind| half(kind)) {
        None => Ok(()),
        Some(kind) => {
            Err(Error::unsupported(format!("matrix products are not supported on {kind}")))
        }
    }
}

pub(super) fn matmul(context: &Context<'_>) -> Built {
    refuse_halves(context)?;
    context.attributes.only(&[])?;
    Ok(Box::new(MatMul))
}

struct MatMul;

impl Operator for MatMul {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let (left, right) = (inputs.required(0)?, inputs.required(1)?);
        let refuse = || {
            let (a, b) = (left.shape(), right.shape());
            Error::invalid(format!("matrices of shapes {a:?} and {b:?} cannot be multiplied"))
        };
        // A vector is a row on the left and a column on the right, and stays a vector.
        let (mut a, mut b) = (left.shape().to_vec(), right.shape().to_vec());
        let (row, column) = (a.len() == 1, b.len() == 1);
        if row {
            a.insert(0, 1);
        }
        if column {
            b.push(1);
        }
        let ([.., m, k], [.., other, n]) = (&a[..], &b[..]) else { return Err(refuse()) };
        let size = Size { m: *m, k: *k, n: *n };
        if k != other {
            return Err(refuse());
        }
        let (outer_a, outer_b) = (&a[..a.len() - 2], &b[..b.len() - 2]);
        let outer = broadcast(outer_a, outer_b).map_err(|_| refuse())?;
        let mut shape = outer.clone();
        if !row {
            shape.push(size.m);
        }
        if !column {
            shape.push(size.n);
        }
        count(&shape)?;
        let data = map_pair!(left.data(), right.data(), x, y => {
            let steps = (broadcast_strides(outer_a, &outer), broadcast_strides(outer_b, &outer));
            let batches = Walk::new(&outer, &steps.0, 0).zip(Walk::new(&outer, &steps.1, 0));
            let mut out = Vec::with_capacity(model::element_count(&shape).unwrap_or(0));
            for (i, j) in batches {
                let x = &x[i * size.m * size.k..][..size.m * size.k];
                let y = &y[j * size.k * size.n..][..size.k * size.n];
                size.multiply(x, y, &mut out);
            }
            out
        }, "MatMul");
        Ok(vec![tensor(shape, data)?])
    }
}

struct Size {
    m: usize,
    k: usize,
    n: usize,
}

impl Size {
    /// Appends the product of two row-major matrices, adding row by row so that the compiler
    /// can use vectors.
    fn multiply<T: Number>(&self, left: &[T], right: &[T], out: &mut Vec<T>) {
        for row in 0..self.m {
            let start = out.len();
            out.resize(start + self.n, T::zero());
            let target = &mut out[start..];
            for inner in 0..self.k {
                let factor = left[row * self.k + inner];
                let other = &right[inner * self.n..][..self.n];
                for (sum, value) in target.iter_mut().zip(other) {
                    *sum = sum.add(factor.mul(*value));
                }
            }
        }
    }
}

pub(super) fn gemm(context: &Context<'_>) -> Built {
    refuse_halves(context)?;
    context.attributes.only(&["alpha", "beta", "transA", "transB", "broadcast"])?;
    Ok(Box::new(Gemm {
        alpha: context.attributes.float_or("alpha", 1.0)?,
        beta: context.attributes.float_or("beta", 1.0)?,
        transposed: (
            context.attributes.flag("transA", false)?,
            context.attributes.flag("transB", false)?,
        ),
    }))
}

struct Gemm {
    alpha: f32,
    beta: f32,
    transposed: (bool, bool),
}

impl Operator for Gemm {
    fn run(&self, mut inputs: Vec<Option<Argument<'_>>>) -> Result<Vec<Tensor>, Error> {
        let inputs = Arguments(&mut inputs);
        let left = matrix(inputs.required(0)?, self.transposed.0)?;
        let right = matrix(inputs.required(1)?, self.transposed.1)?;
        let ([m, k], [other, n]) = (left.shape(), right.shape()) else {
            return Err(Error::internal("a matrix has two dimensions"));
        };
        if k != other {
            return Err(Error::invalid(format!(
                "matrices of shapes [{m}, {k}] and [{other}, {n}] cannot be multiplied"
            )));
        }
        let shape = vec![*m, *n];
        count(&shape)?;
        let size = Size { m: *m, k: *k, n: *n };
        let mut data = map_pair!(left.data(), right.data(), x, y => {
            let mut out = Vec::with_capacity(size.m * size.n);
            size.multiply(x, y, &mut out);
            scale(&mut out, self.alpha);
            out
        }, "Gemm");
        if let Some(bias) = inputs.optional(2) {
            if broadcast(bias.shape(), &shape).ok() != Some(shape.clone()) {
                let message = format!("{:?} cannot be added to {shape:?}", bias.shape());
                return Err(Error::invalid(message));
            }
            let steps = broadcast_strides(bias.shape(), &shape);
            data = map_pair!(&data, bias.data(), sums, added => {
                let mut added = added.to_vec();
                scale(&mut added, self.beta);
                let offsets = Walk::new(&shape, &steps, 0);
                sums.iter().zip(offsets).map(|(sum, o)| sum.add(added[o])).collect::<Vec<_>>()
            }, "Gemm");
        }
        Ok(vec![tensor(shape, data)?])
    }
}

fn scale<T: Number>(values: &mut [T], factor: f32) {
    if factor != 1.0 {
        let factor = T::from_f64(f64::from(factor));
        values.iter_mut().for_each(|value| *value = value.mul(factor));
    }
}

/// A matrix, turned if it is stored the other way.
fn matrix(tensor_: &Tensor, turned: bool) -> Result<std::borrow::Cow<'_, Tensor>, Error> {
    let [rows, columns] = *tensor_.shape() else {
        let message = format!("expected a matrix, got shape {:?}", tensor_.shape());
        return Err(Error::invalid(message));
    };
    if !turned {
        return Ok(std::borrow::Cow::Borrowed(tensor_));
    }
    let data = map_numbers!(tensor_.data(), values => {
        let offsets = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
        offsets.map(|offset| values[offset]).collect::<Vec<_>>()
    }, "Gemm");
    Ok(std::borrow::Cow::Owned(tensor(vec![columns, rows], data)?))
}
