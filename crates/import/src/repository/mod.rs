//! Model repositories: folders laid out `name/version/model.onnx`.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use model::{ErrorCode, InstanceSettings};

use crate::Error;

/// One model found on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its versions and the file of each, oldest first.
    pub versions: Vec<(String, PathBuf)>,
    /// What a `config.pbtxt` beside the versions asked for.
    pub settings: InstanceSettings,
    /// What a `config.pbtxt` asked for that is not honoured, for the log.
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
/// Hidden files and folders are ignored; links are followed.
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
    let (_, file) = one.versions.into_iter().next_back().expect("a found model has a version");
    Ok(file)
}

/// The model of a folder `name/` with a file or version folders in it.
fn model_folder(folder: &Path) -> Result<Option<Found>, Error> {
    if let Some(file) = model_file(folder)? {
        let named_by_folder = file.file_stem().is_some_and(|stem| stem == "model");
        let name = if named_by_folder { folder_name(folder)? } else { stem(&file)? };
        return Ok(Some(found(name, vec![(ONLY_VERSION.into(), file)])));
    }
    let mut versions = Vec::new();
    for inner in folders(folder)? {
        let name = folder_name(&inner)?;
        if is_version(&name)
            && let Some(file) = model_file(&inner)?
        {
            versions.push((name, file));
        }
    }
    if versions.is_empty() {
        return Ok(None);
    }
    versions.sort_by(|(a, _), (b, _)| compare_versions(a, b));
    Ok(Some(found(folder_name(folder)?, versions)))
}

fn found(name: String, versions: Vec<(String, PathBuf)>) -> Found {
    Found { name, versions, settings: InstanceSettings::default(), warnings: Vec::new() }
}

/// `model.onnx`, or the only `*.onnx` file of a folder.
fn model_file(folder: &Path) -> Result<Option<PathBuf>, Error> {
    let usual = folder.join("model.onnx");
    if usual.is_file() {
        return Ok(Some(usual));
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
fn compare_versions(a: &str, b: &str) -> Ordering {
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

fn folders(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

fn stem(file: &Path) -> Result<String, Error> {
    name(file, file.file_stem())
}

fn folder_name(folder: &Path) -> Result<String, Error> {
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
