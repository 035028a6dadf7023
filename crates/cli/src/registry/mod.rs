//! The verbs on a registry of models.

mod access;
mod aliases;
mod aws;
mod change;
mod compare;
mod data;
mod exporting;
mod follow;
mod formats;
mod hold;
mod importing;
mod list;
mod place;
mod pull;
mod push;

pub use access::access;
pub use aliases::aliases;
pub use change::{
    Alias, Collect, OnVersion, Rollback, Traffic, alias, archive, collect, delete, restore,
    rollback, traffic,
};
pub use compare::{Diff, diff};
pub use data::{is_missing, of_version as profile_of};
pub use exporting::{Export, export};
pub use follow::{Followed, Followee};
pub use hold::{made_up_name, say};
pub use importing::{Import, import};
pub use list::{
    At, Check, History, Models, Servers, Show, Versions, at, check, history, models, servers, show,
    told, versions,
};
pub use place::{Author, Place, location, user_folder, who};
pub use pull::{Pull, pull};
pub use push::{Push, attach, push};

use std::io::Read;
use std::path::Path;

use ::registry::Reference;
use sha2::{Digest, Sha256};

use crate::Failure;

/// What the registry says, as this program says it.
pub trait OrFailure<T> {
    fn or_failure(self) -> Result<T, Failure>;
}

impl<T> OrFailure<T> for ::registry::Result<T> {
    fn or_failure(self) -> Result<T, Failure> {
        self.map_err(|error| match error.code() {
            // Names and numbers come from the command line here, not from a model.
            model::ErrorCode::InvalidArgument => Failure::usage(error),
            _ => Failure::new(error),
        })
    }
}

/// Reads `MODEL:NUMBER`, `MODEL@ALIAS` or `MODEL`, for clap.
fn reference(text: &str) -> Result<Reference, String> {
    text.parse().map_err(|error: ::registry::Error| error.to_string())
}

/// Prints a value as JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A time to the second.
pub fn shown(time: jiff::Timestamp) -> String {
    format!("{time:.0}")
}

/// The digest of a file, as the registry writes it.
fn digest(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

/// The digest of a file that the user named.
fn digest_of(path: &Path) -> Result<String, Failure> {
    digest(path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}
