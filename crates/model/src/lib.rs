//! The nouns of Modelyard: tensors, signatures, packages, assignments, observations and error codes.
//!
//! Every other room speaks in these values; this one knows nothing of files, sockets,
//! tasks or the clock.
//!
//! ```
//! use model::{DataType, Tensor};
//!
//! let rows = Tensor::new(vec![2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
//! assert_eq!(rows.datatype(), DataType::Fp32);
//! assert_eq!(rows.slice_rows(1..2).as_slice::<f32>().unwrap(), [4.0, 5.0, 6.0]);
//! ```

mod assignments;
mod error;
mod observation;
pub mod onnx;
mod package;
mod signature;
mod tensor;

pub use assignments::{Assigned, Assignments, InstanceSettings};
pub use error::ErrorCode;
pub use observation::{Observation, Outcome, Shadow};
pub use package::{Format, Manifest, Package, Program};
pub use signature::{Dimension, Signature, TensorSpec};
pub use tensor::{Buffer, Data, DataType, Element, ShapeError, Tensor, element_count};

// The element types without a Rust primitive, so that no room has to name the crate.
pub use half::{bf16, f16};
