//! What data looks like, and how far other data is from it.
//!
//! [`profile`] keeps sketches of the columns of a table in bounded memory; [`drift`] compares
//! columns and says which have changed. Knows nothing of where data comes from: it is handed
//! values, and reads no file.
//!
//! ```
//! use monitor::profile::{Builder, Value};
//!
//! let mut builder = Builder::new(["age", "country"]);
//! builder.row([Value::Number(41.0), Value::Text("NZ")]);
//! builder.row([Value::Number(29.0), Value::Missing]);
//! let profile = builder.finish();
//! assert_eq!(profile.rows, 2);
//! assert_eq!(profile.columns[0].mean, Some(35.0));
//! assert_eq!(profile.columns[1].missing, 1);
//! ```

pub mod alerts;
pub mod drift;
pub mod log;
pub mod profile;
