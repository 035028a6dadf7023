//! `modelyard engines`: what this machine can run models with, and where ONNX Runtime is looked for.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use runtime::{Engines, onnxruntime};

use crate::Failure;

/// Where the optional engine is looked for; shared by every verb that needs engines.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Search {
    /// ONNX Runtime's shared library, or a folder that holds it; nothing else is looked at then
    #[arg(long, env = "MODELYARD_ONNXRUNTIME", value_name = "PATH")]
    pub onnxruntime: Option<PathBuf>,
}

impl Search {
    /// Looks for the engines of this machine.
    pub fn discover(&self) -> Engines {
        Engines::discover(&onnxruntime::Search {
            explicit: self.onnxruntime.clone(),
            candidates: candidates(),
        })
    }
}

/// Files and folders that may hold ONNX Runtime, most wanted first. Never the current folder:
/// starting a server there must not run code that somebody left in it.
fn candidates() -> Vec<PathBuf> {
    let mut found = Vec::new();
    found.extend(std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()).map(PathBuf::from));
    if let Ok(binary) = std::env::current_exe() {
        found.extend(binary.parent().map(Path::to_owned));
    }
    for prefix in python_prefixes() {
        for packages in site_packages(&prefix) {
            found.push(packages.join("onnxruntime/capi"));
        }
    }
    found.extend(paths_of("LD_LIBRARY_PATH"));
    let system = ["/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
    found.extend(system.iter().chain(&["/usr/lib64", "/usr/lib"]).map(PathBuf::from));
    found.retain(|path| path.exists());
    found
}

/// The folders of a variable such as `PATH`; relative ones are left out.
fn paths_of(variable: &str) -> Vec<PathBuf> {
    let value = std::env::var_os(variable).unwrap_or_default();
    std::env::split_paths(&value).filter(|path| path.is_absolute()).collect()
}

/// Where the active Python is installed: its virtual environment, the first one on `PATH`, the user's
/// own packages. Worked out from the folders, for asking Python itself takes longer than serving.
fn python_prefixes() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|p| !p.is_empty()).map(PathBuf::from);
    let mut prefixes: Vec<PathBuf> =
        ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).collect();
    let on_path = paths_of("PATH").into_iter().find(|folder| folder.join("python3").exists());
    prefixes.extend(on_path.and_then(|folder| folder.parent().map(Path::to_owned)));
    prefixes.extend(variable("HOME").map(|home| home.join(".local")));
    prefixes.extend(["/usr/local", "/usr"].map(PathBuf::from));
    prefixes
}

/// The package folders under a Python's prefix, newest Python first.
fn site_packages(prefix: &Path) -> Vec<PathBuf> {
    let Ok(entries) = prefix.join("lib").read_dir() else { return Vec::new() };
    let minor = |name: &OsStr| -> Option<u32> {
        let rest = name.to_str()?.strip_prefix("python3")?;
        rest.strip_prefix('.').map_or(Some(0), |minor| minor.parse().ok())
    };
    let mut pythons: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((minor(&entry.file_name())?, entry.path())))
        .collect();
    pythons.sort_by(|a, b| b.0.cmp(&a.0));
    let both = |(_, path): (u32, PathBuf)| [path.join("site-packages"), path.join("dist-packages")];
    pythons.into_iter().flat_map(both).collect()
}

/// Flags of `engines`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard engines
  modelyard engines --json
  modelyard engines --onnxruntime venv/lib/python3.12/site-packages/onnxruntime/capi")]
pub struct Args {
    #[command(flatten)]
    search: Search,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints what was found and how to get what was not.
pub fn run(args: Args) -> Result<(), Failure> {
    let engines = args.search.discover();
    for (name, version) in engines.list() {
        println!("{name} {version}");
    }
    for (name, error) in engines.absent() {
        println!("{name}: {error}");
    }
    let _ = args.json;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_python_comes_first() {
        let prefix = tempfile::tempdir().unwrap();
        for folder in ["python3.9", "python3.12", "python2.7", "pythonic", "python3"] {
            std::fs::create_dir_all(prefix.path().join("lib").join(folder)).unwrap();
        }
        let found = site_packages(prefix.path());
        let name = |path: &PathBuf| path.strip_prefix(prefix.path()).unwrap().to_owned();
        let found: Vec<PathBuf> = found.iter().map(name).collect();
        assert_eq!(found[0], Path::new("lib/python3.12/site-packages"));
        assert_eq!(found[2], Path::new("lib/python3.9/site-packages"));
        assert_eq!(found.len(), 6, "{found:?}");
    }
}
