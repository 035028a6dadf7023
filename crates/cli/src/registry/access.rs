//! What callers over the wire may do with the registry that is followed.

use std::sync::{Arc, OnceLock};

use ::registry::Registry;
use api::Access;

/// The registry, for callers; whether they may change it.
pub fn access(registry: Arc<Registry>, open_to_callers: bool) -> Access {
    Access { registry: Arc::new(OnceLock::from(registry)), open_to_callers }
}
