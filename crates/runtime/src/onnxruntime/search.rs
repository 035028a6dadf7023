//! Where the library may be: a list made from what the program was started with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where to look for the library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// The one place to look, if the user named one: the library, or the folder that holds it.
    pub explicit: Option<PathBuf>,
    /// Further files or folders to look in, in order. A `*` stands for any part of one file's or
    /// folder's name.
    pub candidates: Vec<PathBuf>,
}

/// What the program was started with, as far as it says where libraries are.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The environment's variables.
    pub variables: BTreeMap<String, OsString>,
    /// The program's own file.
    pub executable: Option<PathBuf>,
}

/// The library's name for the linker, for the system's own search.
const SONAME: &str = if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else if cfg!(windows) {
    "onnxruntime.dll"
} else {
    "libonnxruntime.so"
};

/// The folder that the npm package keeps its builds for this machine in.
const NODE_PLATFORM: &str = if cfg!(target_os = "macos") {
    "darwin"
} else if cfg!(windows) {
    "win32"
} else {
    "linux"
};

/// npm's name of this machine's architecture.
const NODE_ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };

/// Where a Python package lies below `site-packages`.
const WHEEL: &str = "onnxruntime/capi";

impl Search {
    /// Looks only where the user said.
    pub fn only(path: impl Into<PathBuf>) -> Self {
        Self { explicit: Some(path.into()), candidates: Vec::new() }
    }

    /// Looks beside the program, in the active Python, in Node's packages, and where the system
    /// keeps libraries. Pure: nothing is opened, and Python is not run. The working directory is
    /// not looked at: starting a server there must not run code that somebody left in it.
    pub fn around(surroundings: &Surroundings) -> Self {
        let mut candidates = Vec::new();
        // The name that other programs which open ONNX Runtime go by.
        candidates.extend(surroundings.variable("ORT_DYLIB_PATH"));
        if let Some(folder) = surroundings.executable.as_deref().and_then(Path::parent) {
            candidates.push(folder.to_owned());
            candidates.push(folder.join("../lib"));
        }
        candidates.extend(surroundings.pythons());
        candidates.extend(surroundings.node());
        candidates.extend(surroundings.paths("LD_LIBRARY_PATH"));
        candidates.extend(surroundings.paths("DYLD_LIBRARY_PATH"));
        for folder in ["/usr/local/lib", "/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib"] {
            candidates.push(folder.into());
        }
        // A bare name is what the dynamic linker looks up in its own cache.
        candidates.push(SONAME.into());
        let mut seen = std::collections::BTreeSet::new();
        candidates.retain(|candidate| seen.insert(candidate.clone()));
        Self { explicit: None, candidates }
    }
}

impl Surroundings {
    fn variable(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn paths(&self, name: &str) -> Vec<PathBuf> {
        let Some(value) = self.variables.get(name) else { return Vec::new() };
        std::env::split_paths(value).filter(|path| path.is_absolute()).collect()
    }

    /// The folders of the wheel in each Python that could be meant: the activated environment
    /// first, then the interpreters on the path, then the user's own packages.
    fn pythons(&self) -> Vec<PathBuf> {
        let mut prefixes = Vec::new();
        prefixes.extend(self.variable("VIRTUAL_ENV"));
        prefixes.extend(self.variable("CONDA_PREFIX"));
        prefixes.extend(self.prefixes());
        prefixes.extend(self.variable("HOME").map(|home| home.join(".local")));
        let mut folders = Vec::new();
        for prefix in prefixes {
            folders.push(prefix.join("lib/python3*/site-packages").join(WHEEL));
            // Debian's own Python keeps packages under another name.
            folders.push(prefix.join("lib/python3*/dist-packages").join(WHEEL));
            if cfg!(windows) {
                folders.push(prefix.join("Lib/site-packages").join(WHEEL));
            }
        }
        folders
    }

    /// Where the programs on the path are installed.
    fn prefixes(&self) -> Vec<PathBuf> {
        let prefix = |folder: PathBuf| match (folder.file_name()?.to_str()?, folder.parent()?) {
            ("bin" | "Scripts", parent) => Some(parent.to_owned()),
            // pyenv's stand-ins: the interpreters are beside them.
            ("shims", parent) => Some(parent.join("versions/*")),
            _ => None,
        };
        self.paths("PATH").into_iter().filter_map(prefix).collect()
    }

    /// The npm package: where Node is told to look, installed for everyone, or in a project that
    /// the program itself is installed in.
    fn node(&self) -> Vec<PathBuf> {
        let mut folders = self.paths("NODE_PATH");
        folders.extend(self.prefixes().into_iter().map(|prefix| prefix.join("lib/node_modules")));
        let above = self.executable.iter().flat_map(|file| file.ancestors().skip(1));
        folders.extend(above.map(|folder| folder.join("node_modules")));
        let package = |folder: PathBuf| {
            folder.join("onnxruntime-node/bin/napi-v*").join(NODE_PLATFORM).join(NODE_ARCHITECTURE)
        };
        folders.into_iter().map(package).collect()
    }
}

/// The library files that a candidate stands for, the newest first. A bare file name is returned
/// as it is: only the dynamic linker knows where it is.
pub(super) fn expand(candidate: &Path) -> Vec<PathBuf> {
    if candidate.components().count() == 1 && !candidate.exists() {
        return vec![candidate.to_owned()];
    }
    let mut found = vec![PathBuf::new()];
    for component in candidate.components() {
        let name = component.as_os_str();
        match name.to_str().filter(|name| name.contains('*')) {
            Some(pattern) => found = found.iter().flat_map(|f| matching(f, pattern)).collect(),
            None => found.iter_mut().for_each(|folder| folder.push(name)),
        }
        if found.is_empty() {
            return found;
        }
    }
    found
        .into_iter()
        .flat_map(|path| if path.is_dir() { libraries(&path) } else { vec![path] })
        .collect()
}

/// The libraries in a folder: `libonnxruntime.so`, `libonnxruntime.so.1.32.0` and the like, but
/// not the providers' libraries beside them.
fn libraries(folder: &Path) -> Vec<PathBuf> {
    let patterns: &[&str] = if cfg!(target_os = "macos") {
        &["libonnxruntime.dylib", "libonnxruntime.*.dylib"]
    } else if cfg!(windows) {
        &["onnxruntime.dll"]
    } else {
        &["libonnxruntime.so", "libonnxruntime.so.*"]
    };
    patterns.iter().flat_map(|pattern| matching(folder, pattern)).collect()
}

/// What a folder holds under names that fit a pattern, in descending order of the numbers in them.
fn matching(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let (prefix, suffix) = pattern.split_once('*').unwrap_or((pattern, ""));
    let fits = |name: &str| match pattern.contains('*') {
        true => {
            name.len() >= prefix.len() + suffix.len()
                && name.starts_with(prefix)
                && name.ends_with(suffix)
        }
        false => name == pattern,
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|e| e.file_name().into_string().ok()).filter(|n| fits(n)).collect();
    names.sort_by_key(|name| std::cmp::Reverse((numbers(name), name.clone())));
    names.into_iter().map(|name| folder.join(name)).collect()
}

/// The numbers in a name, so that 3.12 comes after 3.9.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
        Surroundings {
            variables: variables.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            executable: Some("/opt/modelyard/bin/modelyard".into()),
        }
    }

    fn position(search: &Search, path: &str) -> usize {
        let at = search.candidates.iter().position(|candidate| candidate == Path::new(path));
        at.unwrap_or_else(|| panic!("{path} is not in {:#?}", search.candidates))
    }

    #[test]
    fn the_nearest_place_comes_first() {
        let search = Search::around(&surroundings(&[
            ("ORT_DYLIB_PATH", "/opt/mine.so"),
            ("VIRTUAL_ENV", "/home/a/env"),
            ("PATH", "/home/a/.pyenv/shims:/usr/bin:relative:/bin"),
            ("LD_LIBRARY_PATH", "/opt/onnx/lib:"),
            ("HOME", "/home/a"),
        ]));
        let order = [
            "/opt/mine.so",
            "/opt/modelyard/bin",
            "/home/a/env/lib/python3*/site-packages/onnxruntime/capi",
            "/home/a/.pyenv/versions/*/lib/python3*/site-packages/onnxruntime/capi",
            "/usr/lib/python3*/dist-packages/onnxruntime/capi",
            "/home/a/.local/lib/python3*/site-packages/onnxruntime/capi",
            &format!(
                "/opt/modelyard/node_modules/onnxruntime-node/bin/napi-v*/{NODE_PLATFORM}/{NODE_ARCHITECTURE}"
            ),
            "/opt/onnx/lib",
            "/usr/local/lib",
            SONAME,
        ];
        let positions: Vec<usize> = order.iter().map(|path| position(&search, path)).collect();
        assert!(positions.is_sorted(), "{positions:?}");
        assert_eq!(search.explicit, None);
        assert!(!search.candidates.iter().any(|path| path.starts_with("relative")));
    }

    #[test]
    fn nothing_known_still_asks_the_system() {
        let search = Search::around(&Surroundings::default());
        assert_eq!(search.candidates.last(), Some(&PathBuf::from(SONAME)));
    }

    #[test]
    fn no_place_is_listed_twice() {
        let search = Search::around(&surroundings(&[("PATH", "/usr/bin:/usr/bin:/usr/local/bin")]));
        let distinct: std::collections::BTreeSet<_> = search.candidates.iter().collect();
        assert_eq!(distinct.len(), search.candidates.len());
    }

    #[test]
    fn a_star_finds_the_newest_first_and_only_libraries() {
        let root = std::env::temp_dir().join(format!("modelyard-search-{}", std::process::id()));
        for version in ["python3.9", "python3.12"] {
            let folder = root.join("lib").join(version).join("site-packages").join(WHEEL);
            std::fs::create_dir_all(&folder).unwrap();
            for name in ["libonnxruntime.so.1.32.0", "libonnxruntime_providers_shared.so", "x.py"] {
                std::fs::write(folder.join(name), "").unwrap();
            }
        }
        let found = expand(&root.join("lib/python3*/site-packages").join(WHEEL));
        std::fs::remove_dir_all(&root).unwrap();
        if cfg!(target_os = "linux") {
            assert_eq!(found.len(), 2, "{found:?}");
            assert!(found[0].to_str().unwrap().contains("python3.12"), "{found:?}");
            assert!(found.iter().all(|path| path.ends_with("libonnxruntime.so.1.32.0")));
        }
    }

    #[test]
    fn a_bare_name_is_left_to_the_linker() {
        assert_eq!(expand(Path::new(SONAME)), [PathBuf::from(SONAME)]);
        assert!(expand(Path::new("/nowhere/*/lib")).is_empty());
    }
}
