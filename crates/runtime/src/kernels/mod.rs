//! Tabular kernels: tree ensembles, linear models and support vector machines over plain arrays.
//!
//! They know nothing of ONNX's files, of tensors or of sessions: a model comes in as plain arrays
//! ([`trees::Ensemble`], [`linear::LinearModel`], [`svm::SvmModel`]), is checked and compiled once,
//! and then runs on [`Rows`] into slices that the caller owns. `ai.onnx.ml` operators run on them,
//! and so do the other formats of tabular models.
//!
//! What a score means (post transforms, the special cases of two classes, ties) follows ONNX
//! Runtime, because that is what models in use were checked against.
//!
//! ```
//! use runtime::kernels::{Rows, linear::{LinearModel, LinearRegressor}, post::PostTransform};
//!
//! let regressor = LinearRegressor::new(LinearModel {
//!     coefficients: vec![2.0, 1.0],
//!     intercepts: vec![0.5],
//!     outputs: 1,
//!     post: PostTransform::None,
//! })?;
//! let mut answers = [0.0; 2];
//! regressor.run(Rows::new(&[1.0, 1.0, 0.0, 3.0], 2)?, &mut answers)?;
//! assert_eq!(answers, [3.5, 3.5]);
//! # Ok::<(), runtime::Error>(())
//! ```

pub mod linear;
pub mod post;
pub mod svm;
pub mod trees;

use crate::Error;

/// The arithmetic that a kernel works in: `f32` or `f64`.
pub trait Real:
    Copy
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::AddAssign
    + std::ops::Div<Output = Self>
    + std::fmt::Debug
    + std::fmt::Display
    + Send
    + Sync
    + private::Sealed
    + 'static
{
    /// The additive identity.
    const ZERO: Self;

    /// The nearest value of this type.
    fn from_f64(value: f64) -> Self;

    /// The same value; exact for both types.
    fn to_f64(self) -> f64;

    /// The nearest single-precision value.
    fn to_f32(self) -> f32;

    /// The next smaller value of this type.
    fn next_down(self) -> Self;

    /// Whether trees compare ranks among their thresholds in place of [`key`](Self::key)s.
    const BY_RANK: bool;

    /// An integer in the order of the numbers, with one for both zeros. Not for NaN, nor where
    /// [`BY_RANK`](Self::BY_RANK) is set.
    fn key(self) -> i32;
}

mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

impl Real for f32 {
    const ZERO: Self = 0.0;

    fn from_f64(value: f64) -> Self {
        value as Self
    }

    fn to_f64(self) -> f64 {
        self.into()
    }

    fn to_f32(self) -> f32 {
        self
    }

    fn next_down(self) -> Self {
        Self::next_down(self)
    }

    const BY_RANK: bool = false;

    #[inline(always)]
    fn key(self) -> i32 {
        // Adding zero makes -0 a 0. The bits of negative numbers grow the wrong way: turned over.
        let bits = (self + 0.0).to_bits() as i32;
        bits ^ ((bits >> 31) & i32::MAX)
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;

    fn from_f64(value: f64) -> Self {
        value
    }

    fn to_f64(self) -> f64 {
        self
    }

    fn to_f32(self) -> f32 {
        self as f32
    }

    fn next_down(self) -> Self {
        Self::next_down(self)
    }

    const BY_RANK: bool = true;

    fn key(self) -> i32 {
        unreachable!("double-precision values are compared by rank")
    }
}

/// A table of numbers, row after row.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a, T> {
    data: &'a [T],
    width: usize,
    count: usize,
}

impl<'a, T> Rows<'a, T> {
    /// A table of `data.len() / width` rows.
    ///
    /// Fails if the data are not whole rows, or if `width` is 0.
    pub fn new(data: &'a [T], width: usize) -> Result<Self, Error> {
        if width == 0 {
            return Err(Error::invalid("expected rows of at least one column, got rows of none"));
        }
        if !data.len().is_multiple_of(width) {
            return Err(Error::invalid(format!(
                "expected whole rows of {width} values, got {} values",
                data.len()
            )));
        }
        Ok(Self { data, width, count: data.len() / width })
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many columns a row has.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All values, row after row.
    pub fn data(&self) -> &'a [T] {
        self.data
    }

    /// The values of one row.
    pub fn row(&self, index: usize) -> &'a [T] {
        &self.data[index * self.width..(index + 1) * self.width]
    }

    /// Some of the rows.
    fn slice(&self, start: usize, count: usize) -> Self {
        Self {
            data: &self.data[start * self.width..(start + count) * self.width],
            width: self.width,
            count,
        }
    }
}

/// Fails unless the rows have exactly the columns that the model was made for.
fn check_width<T>(rows: &Rows<'_, T>, wanted: usize) -> Result<(), Error> {
    if rows.width() == wanted {
        return Ok(());
    }
    Err(Error::invalid(format!("expected rows of {wanted} values, got rows of {}", rows.width())))
}

/// Fails unless an output slice has room for exactly `rows × columns` values.
fn check_output(what: &str, got: usize, rows: usize, columns: usize) -> Result<(), Error> {
    if rows.checked_mul(columns) == Some(got) {
        return Ok(());
    }
    Err(Error::internal(format!(
        "expected room for {rows} rows of {columns} {what}, got room for {got}"
    )))
}
