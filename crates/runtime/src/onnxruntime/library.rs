//! Opens the shared library, once in the life of the process.

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::Error;

use super::search::{Search, expand};

/// The oldest release that has every function that we call. `ort` is built against the same.
const OLDEST: u32 = ort::MINOR_VERSION;

/// The library that is open.
pub(super) struct Library {
    pub(super) environment: Environment,
    pub(super) path: PathBuf,
    pub(super) version: String,
    /// ONNX Runtime's own names of its execution providers.
    pub(super) providers: Vec<String>,
}

/// ONNX Runtime allows one environment in a process, and none after it was released.
static LIBRARY: OnceLock<Library> = OnceLock::new();
static OPENING: Mutex<()> = Mutex::new(());

/// Opens the first library that the search finds and that works.
pub(super) fn open(search: &Search) -> Result<&'static Library, Error> {
    let _one_at_a_time = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some(library), None) = (LIBRARY.get(), &search.explicit) {
        return Ok(library);
    }
    let mut failures = Vec::new();
    for path in search.explicit.iter().chain(&search.candidates) {
        for file in expand(path) {
            match open_file(&file) {
                Ok(library) => return Ok(library),
                Err(Some(reason)) => failures.push(format!("{}: {reason}", file.display())),
                Err(None) => {}
            }
        }
        if search.explicit.is_some() {
            // The user named one place: no other will do.
            let none = || format!("{}: there is no ONNX Runtime library here", path.display());
            return Err(Error::precondition(failures.pop().unwrap_or_else(none)));
        }
    }
    let mut message = "no ONNX Runtime library was found; `pip install onnxruntime` gets one, or \
        name its file with --onnxruntime"
        .to_owned();
    if !failures.is_empty() {
        message = format!("{message} (unusable: {})", failures.join("; "));
    }
    Err(Error::precondition(message))
}

/// Opens one file. `Err(None)` if there is nothing there.
fn open_file(file: &Path) -> Result<&'static Library, Option<String>> {
    let bare = file.components().count() == 1;
    if !bare {
        match std::fs::metadata(file) {
            Ok(metadata) if metadata.is_file() => check_header(file).map_err(Some)?,
            Ok(_) => return Err(Some("not a file".into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(None),
            Err(error) => return Err(Some(error.to_string())),
        }
    }
    let path = if bare { file.into() } else { file.canonicalize().unwrap_or_else(|_| file.into()) };
    if let Some(library) = LIBRARY.get() {
        return match library.path == path {
            true => Ok(library),
            false => Err(Some(format!(
                "this process already uses {}; restart it to use another",
                library.path.display()
            ))),
        };
    }
    let version = match read_version(&path) {
        Ok(version) => version,
        // The linker's message for a name it does not know is of no use to anyone.
        Err(_) if bare => return Err(None),
        Err(reason) => return Err(Some(reason)),
    };
    check_version(&version).map_err(Some)?;
    let environment = build_environment(&path).map_err(Some)?;
    let providers = available_providers();
    Ok(LIBRARY.get_or_init(|| Library { environment, path, version, providers }))
}

/// Reads what the linker would only call "invalid": not a library at all, or one for another
/// processor.
fn check_header(file: &Path) -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    let mut header = [0u8; 20];
    let read = std::fs::File::open(file)
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut header));
    match read {
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => {
            return Err(error.to_string());
        }
        Ok(()) if header.starts_with(b"\x7fELF") => {}
        _ => return Err("not a shared library".into()),
    }
    // ELF: byte 4 is the word size (2: 64 bits), bytes 18 and 19 the machine.
    let machine = match (header[4], u16::from_le_bytes([header[18], header[19]])) {
        (2, 62) => "x86_64",
        (2, 183) => "aarch64",
        (2, 243) => "riscv64",
        (1, 3) => "x86",
        (1, 40) => "arm",
        _ => "another processor",
    };
    let ours = std::env::consts::ARCH;
    match machine == ours {
        true => Ok(()),
        false => Err(format!("built for {machine}, but this program runs on {ours}")),
    }
}

/// The version that the library says it has.
fn read_version(path: &Path) -> Result<String, String> {
    type GetBase = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: opening a library runs its initialisers. The file is one that the user named, or a
    // library called ONNX Runtime's name in a folder that the user's own programs load from.
    let library = unsafe { libloading::Library::new(path) }.map_err(|error| error.to_string())?;
    // SAFETY: if there is a function of this name, it has this type in every release.
    let get_base = unsafe { library.get::<GetBase>(b"OrtGetApiBase\0") }
        .map_err(|_| "a library, but not ONNX Runtime: it has no OrtGetApiBase".to_owned())?;
    // SAFETY: it takes nothing, and returns a table that lives as long as the library.
    let base = unsafe { get_base().as_ref() }.ok_or("OrtGetApiBase returned nothing")?;
    // SAFETY: it returns a string that lives as long as the library, which is still open.
    let version = unsafe { (base.GetVersionString)() };
    if version.is_null() {
        return Err("it does not say its version".into());
    }
    // SAFETY: not null, and ends in a zero as every C string does.
    Ok(unsafe { CStr::from_ptr(version) }.to_string_lossy().into_owned())
}

fn check_version(version: &str) -> Result<(), String> {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match major == 1 && minor >= OLDEST {
        true => Ok(()),
        false => Err(format!(
            "ONNX Runtime {version} cannot be used: 1.{OLDEST} or newer is needed; \
             `pip install --upgrade onnxruntime` gets it"
        )),
    }
}

fn build_environment(path: &Path) -> Result<Environment, String> {
    // `ort` asserts what a foreign library may break; that must not take the process down.
    let built = std::panic::catch_unwind(|| {
        let builder = ort::init_from(path).map_err(|error| error.to_string())?;
        let logger = Arc::new(log);
        let builder = builder.with_name("modelyard").with_telemetry(false).with_logger(logger);
        let environment = builder.build().map_err(|error| error.message().to_owned())?;
        let all = tracing::enabled!(tracing::Level::TRACE);
        environment.set_log_level(if all { LogLevel::Verbose } else { LogLevel::Warning });
        Ok(environment)
    });
    built.unwrap_or_else(|_| Err("it does not behave as ONNX Runtime does".into()))
}

/// ONNX Runtime's log, one level down: what it calls an error is a failed request or a failed
/// load, which whoever asked for it is told about, and its warnings are about optimisation.
fn log(level: LogLevel, _category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", location, "{message}"),
        LogLevel::Error | LogLevel::Warning => {
            tracing::debug!(target: "onnxruntime", location, "{message}");
        }
        _ => tracing::trace!(target: "onnxruntime", location, "{message}"),
    }
}

fn available_providers() -> Vec<String> {
    let mut names = std::ptr::null_mut();
    let mut count = 0;
    // SAFETY: the function fills both, or returns an error and fills neither.
    let status = unsafe { (ort::api().GetAvailableProviders)(&mut names, &mut count) };
    // SAFETY: the status is the one just returned.
    if unsafe { ort::Error::result_from_status(status) }.is_err() || names.is_null() {
        return Vec::new();
    }
    let length = usize::try_from(count).unwrap_or(0);
    // SAFETY: `names` holds `count` C strings until it is released below.
    let list = unsafe { std::slice::from_raw_parts(names, length) };
    let read = |name: &*mut std::ffi::c_char| {
        // SAFETY: as above.
        unsafe { CStr::from_ptr(*name) }.to_string_lossy().into_owned()
    };
    let providers = list.iter().map(read).collect();
    // SAFETY: they were copied, and are used no more.
    let status = unsafe { (ort::api().ReleaseAvailableProviders)(names, count) };
    // SAFETY: the status is the one just returned; a failure to free leaks a few bytes once.
    let _ = unsafe { ort::Error::result_from_status(status) };
    providers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_releases_with_our_functions_are_used() {
        assert!(check_version("1.32.0").is_ok());
        assert!(check_version(&format!("1.{OLDEST}.0")).is_ok());
        for version in ["1.20.1", "2.0.0", "", "nonsense"] {
            let error = check_version(version).unwrap_err();
            assert!(error.contains("or newer is needed"), "{error}");
        }
    }
}
