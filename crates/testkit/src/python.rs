//! The Python that the tests' reference implementations are installed in.

use std::path::{Path, PathBuf};

/// The interpreter: `MODELYARD_PYTHON`, or that of `.venv` in the repository. `None`, loudly,
/// where there is neither: the caller's test is then skipped.
pub fn interpreter() -> Option<PathBuf> {
    let named = std::env::var_os("MODELYARD_PYTHON").map(PathBuf::from);
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.venv/bin/python");
    let found = named.into_iter().chain([own]).find(|path| path.exists());
    if found.is_none() {
        println!("SKIPPED: no Python with the tests' requirements; ./test makes one");
    }
    found
}

/// The folder of the environment that the interpreter belongs to.
pub fn environment() -> Option<PathBuf> {
    let interpreter = interpreter()?;
    Some(interpreter.parent()?.parent()?.to_owned())
}
