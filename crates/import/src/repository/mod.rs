//! Model repositories: folders laid out `name/version/model.onnx`.

mod config;
mod textproto;

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use model::ErrorCode;

use crate::Error;

pub use config::{Config, Declared, Versions};

/// One model found on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its versions and the file of each, oldest first; [`Found::served`] chooses among them.
    pub versions: Vec<(String, PathBuf)>,
    /// What the `config.pbtxt` beside the versions says; nothing if there is none.
    pub config: Config,
    /// What is wrong with the `config.pbtxt` itself, for the log.
    pub warnings: Vec<String>,
}

/// The version of a model whose files carry none.
const ONLY_VERSION: &str = "1";

/// Finds the models at a path: one file, a folder that holds one model, or a repository.
///
/// - a file: one model, named by its stem;
/// - a folder with `model.onnx` or exactly one `*.onnx` in it: one model, named by the folder
///   (or by the file, if that is not called `model.onnx`);
/// - a folder with version folders (`1`, `2`, `v10`) that hold such a file: one model;
/// - a folder of such folders: a repository. Folders without a model are named in an error only
///   when nothing else is found.
///
/// Hidden files and folders are ignored; links are followed. A `config.pbtxt` in the model's
/// folder is read for the model's name, the file's name and what [`Config`] has; one that cannot be
/// read is a warning, as the model runs without it.
pub fn scan(path: &Path) -> Result<Vec<Found>, Error> {
    let metadata = std::fs::metadata(path).map_err(|error| io(path, &error))?;
    if !metadata.is_dir() {
        return Ok(vec![found(stem(path)?, vec![(ONLY_VERSION.into(), path.to_owned())])]);
    }
    if let Some(one) = model_folder(path)? {
        return Ok(vec![one]);
    }
    let mut models = Vec::new();
    for folder in folders(path)? {
        models.extend(model_folder(&folder)?);
    }
    if models.is_empty() {
        return Err(nothing_in(path));
    }
    Ok(models)
}

/// The file of the one model in a folder; of several versions, the newest.
pub(crate) fn only_model_in(folder: &Path) -> Result<PathBuf, Error> {
    let one = model_folder(folder)?.ok_or_else(|| nothing_in(folder))?;
    let (_, file) = one.served(&Versions::default()).pop().expect("at least one is served");
    Ok(file.clone())
}

/// The model of a folder `name/` with a file or version folders in it.
fn model_folder(folder: &Path) -> Result<Option<Found>, Error> {
    let mut warnings = Vec::new();
    let config = read_config(folder, &mut warnings);
    let wanted_file = config.as_ref().and_then(|config| config.file_name.as_deref());
    let mut name = folder_name(folder);
    let mut versions = Vec::new();
    if let Some(file) = model_file(folder, wanted_file)? {
        if file.file_stem().is_some_and(|stem| stem != "model") && wanted_file.is_none() {
            name = stem(&file);
        }
        versions.push((ONLY_VERSION.into(), file));
    } else {
        for inner in folders(folder)? {
            if let Some(version) = inner.file_name().and_then(|name| name.to_str())
                && is_version(version)
                && let Some(file) = model_file(&inner, wanted_file)?
            {
                versions.push((version.to_owned(), file));
            }
        }
        versions.sort_by(|(a, _), (b, _)| compare_versions(a, b));
    }
    if versions.is_empty() {
        return Ok(None);
    }
    let config = config.unwrap_or_default();
    let name = match &config.name {
        Some(name) if !name.is_empty() => {
            check_name(name).map_err(|error| error.at("config.pbtxt"))?;
            name.clone()
        }
        _ => name?,
    };
    Ok(Some(Found { name, versions, config, warnings }))
}

/// The `config.pbtxt` of a folder, if there is one that can be read; what is wrong with one that
/// cannot is added to the warnings.
pub fn read_config(folder: &Path, warnings: &mut Vec<String>) -> Option<Config> {
    let path = folder.join("config.pbtxt");
    let length = std::fs::metadata(&path).ok()?.len();
    let read = || {
        if length > config::MAX_LENGTH as u64 {
            return Err(format!("is longer than {} bytes", config::MAX_LENGTH));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let mut config = Config::from_text(&text)?;
        config.read_labels(folder);
        Ok(config)
    };
    match read() {
        Ok(config) => Some(config),
        Err(problem) => {
            warnings.push(format!("{} is ignored: {problem}", path.display()));
            None
        }
    }
}

impl Found {
    /// The versions to serve, oldest first: those that the configuration's policy chooses, or
    /// `default` where it is silent. Never none: a policy that fits no version would hide the
    /// model, so it falls back to the newest.
    pub fn served(&self, default: &Versions) -> Vec<&(String, PathBuf)> {
        let all = &self.versions;
        let newest = |count: usize| all[all.len().saturating_sub(count.max(1))..].iter().collect();
        match self.config.versions.as_ref().unwrap_or(default) {
            Versions::All => all.iter().collect(),
            Versions::Latest(count) => newest(*count),
            Versions::Specific(wanted) => {
                let chosen: Vec<_> = all.iter().filter(|(name, _)| wanted.contains(name)).collect();
                if chosen.is_empty() { newest(1) } else { chosen }
            }
        }
    }

    /// What of the configuration is not honoured, for the log.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        warnings.extend(self.config.warnings.iter().cloned());
        if let Some(Versions::Specific(wanted)) = &self.config.versions {
            let known = |wanted: &&String| self.versions.iter().any(|(name, _)| name == *wanted);
            let absent: Vec<_> = wanted.iter().filter(|wanted| !known(wanted)).collect();
            if !absent.is_empty() {
                warnings.push(format!("config: version_policy: there are no versions {absent:?}"));
            }
        }
        warnings
    }
}

fn found(name: String, versions: Vec<(String, PathBuf)>) -> Found {
    Found { name, versions, config: Config::default(), warnings: Vec::new() }
}

/// The file that a configuration names, else `model.onnx`, or the only `*.onnx` file of a folder.
pub(crate) fn model_file(folder: &Path, wanted: Option<&str>) -> Result<Option<PathBuf>, Error> {
    let usual = folder.join(wanted.unwrap_or("model.onnx"));
    if usual.is_file() {
        return Ok(Some(usual));
    }
    if wanted.is_some() {
        return Ok(None);
    }
    let mut files: Vec<PathBuf> = entries(folder)?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("onnx")))
        .filter(|path| path.is_file())
        .collect();
    match files.len() {
        0 => Ok(None),
        1 => Ok(files.pop()),
        _ => {
            let names: Vec<_> = files.iter().filter_map(|path| path.file_name()).collect();
            let message = format!(
                "{}: has several models ({names:?}); give one of the files, or name one model.onnx",
                folder.display()
            );
            Err(Error::new(ErrorCode::InvalidArgument, message))
        }
    }
}

/// Digits, or digits after a `v`.
fn is_version(name: &str) -> bool {
    let digits = name.strip_prefix(['v', 'V']).unwrap_or(name);
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// Runs of digits compare as numbers, the rest as text, so that `v10` comes after `v9`.
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (text_a, digits_a, rest_a) = chunk(left);
        let (text_b, digits_b, rest_b) = chunk(right);
        let number = |digits: &str| digits.trim_start_matches('0').to_owned();
        let (n_a, n_b) = (number(digits_a), number(digits_b));
        let order =
            text_a.cmp(text_b).then_with(|| n_a.len().cmp(&n_b.len())).then_with(|| n_a.cmp(&n_b));
        if order != Ordering::Equal {
            return order;
        }
        if rest_a.is_empty() || rest_b.is_empty() {
            return rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b));
        }
        (left, right) = (rest_a, rest_b);
    }
}

/// Splits off the text and the digits that follow it.
fn chunk(text: &str) -> (&str, &str, &str) {
    let start = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
    let (before, rest) = text.split_at(start);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, rest) = rest.split_at(end);
    (before, digits, rest)
}

/// What is in a folder, sorted, without hidden entries.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| io(folder, &error))? {
        let entry = entry.map_err(|error| io(folder, &error))?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

pub(crate) fn folders(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn stem(file: &Path) -> Result<String, Error> {
    name(file, file.file_stem())
}

pub(crate) fn folder_name(folder: &Path) -> Result<String, Error> {
    // `.` and `..` have no name of their own.
    let full = folder.file_name().is_none().then(|| folder.canonicalize().ok()).flatten();
    let full = full.as_deref().unwrap_or(folder);
    name(folder, full.file_name())
}

/// Checks a name: it becomes part of URLs and of metrics.
fn name(path: &Path, name: Option<&std::ffi::OsStr>) -> Result<String, Error> {
    let name = name.and_then(|name| name.to_str()).unwrap_or_default();
    check_name(name).map_err(|error| error.at(path.display()))?;
    Ok(name.to_owned())
}

/// Whether a name can be a model's: 1 to 255 letters, digits and `. _ - +`, not starting with
/// a dot. The error says what is wrong.
pub fn check_name(name: &str) -> Result<(), Error> {
    let allowed =
        |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | ' ' | '@' | '=');
    let problem = if name.is_empty() {
        "is empty or not UTF-8"
    } else if name.len() > 255 {
        "is longer than 255 bytes"
    } else if name.starts_with('.') {
        "starts with a dot"
    } else if !name.chars().all(allowed) {
        "has characters other than letters, digits and . _ - + @ = or space"
    } else {
        return Ok(());
    };
    let message = format!(
        "the model name \"{}\" {problem}; give another with --model NAME=PATH",
        name.escape_default()
    );
    Err(Error::new(ErrorCode::InvalidArgument, message))
}

fn nothing_in(path: &Path) -> Error {
    let message = format!(
        "{}: no model found; expected a .onnx file, a folder with model.onnx, or a repository \
         laid out NAME/VERSION/model.onnx",
        path.display()
    );
    Error::new(ErrorCode::NotFound, message)
}

fn io(path: &Path, error: &std::io::Error) -> Error {
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorCode::NotFound,
        std::io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
        _ => ErrorCode::FailedPrecondition,
    };
    Error::new(code, format!("{}: {error}", path.display()))
}
