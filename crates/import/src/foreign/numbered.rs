//! Numbered folders: Triton's repositories and TensorFlow Serving's base paths.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Found, Version, invalid};
use crate::repository::{self, Config, folder_name, folders};
use crate::{Error, sniff};

/// The models of a Triton repository, or the one model whose folder it is.
pub fn repository(path: &Path) -> Result<Vec<Found>, Error> {
    let own = folders(path)?;
    if path.join("config.pbtxt").is_file() || own.iter().any(|folder| is_number(folder)) {
        return Ok(vec![model(path)?]);
    }
    let mut models = Vec::new();
    for folder in own {
        let inner = folders(&folder)?;
        if folder.join("config.pbtxt").is_file() || inner.iter().any(|folder| is_number(folder)) {
            models.push(model(&folder)?);
        }
    }
    if models.is_empty() {
        let message = "has no models; expected folders NAME/VERSION/model.onnx";
        return Err(invalid(message).at(path.display()));
    }
    Ok(models)
}

/// The one model of a TensorFlow Serving base path.
pub fn base_path(path: &Path) -> Result<Found, Error> {
    if !folders(path)?.iter().any(|folder| is_number(folder)) {
        let message = "has no numbered folders; expected VERSION/model.onnx";
        return Err(invalid(message).at(path.display()));
    }
    model(path)
}

/// A folder of versions: those that can be opened, and those that cannot with the reason.
fn model(folder: &Path) -> Result<Found, Error> {
    let mut found = Found::default();
    let config = repository::read_config(folder, &mut found.notes).unwrap_or_default();
    let attachments = attachments(folder, &config);
    found.notes.extend(config.warnings);
    // A folder whose name no model can have gets one from whoever imports it.
    found.name = config.name.filter(|name| !name.is_empty()).or_else(|| folder_name(folder).ok());
    for inner in folders(folder)?.iter().filter(|inner| is_number(inner)) {
        let file = repository::model_file(inner, config.file_name.as_deref());
        let file = file.and_then(|file| file.ok_or_else(|| no_model(inner)));
        found.versions.push(Version::new(Some(folder_name(inner)?), file));
    }
    if found.versions.is_empty() {
        found.versions.push(Version::new(None, Err(no_model(folder))));
    }
    let name = |version: &Version| version.number.clone().unwrap_or_default();
    found.versions.sort_by(|a, b| repository::compare_versions(&name(a), &name(b)));
    for version in &mut found.versions {
        version.attachments.clone_from(&attachments);
    }
    Ok(found)
}

/// The configuration, and the files that it takes the names of classes from, which have been read.
fn attachments(folder: &Path, config: &Config) -> Vec<(String, PathBuf)> {
    let named = config.outputs.iter().filter(|output| !output.labels.is_empty());
    let labels = named.filter_map(|output| output.label_file.clone());
    let own = Some("config.pbtxt".to_owned()).into_iter();
    let names: BTreeSet<String> = own.chain(labels).collect();
    let files = names.into_iter().map(|name| (name.clone(), folder.join(name)));
    files.filter(|(_, path)| path.is_file()).collect()
}

/// Why a version has no model that can be read, and what would help.
fn no_model(folder: &Path) -> Error {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let has = |name: &str| names.iter().any(|other| other == name);
    if has("saved_model.pb") || has("saved_model.pbtxt") {
        return invalid(
            "is a TensorFlow SavedModel, which cannot be imported yet; convert it: python -m \
             tf2onnx.convert --saved-model FOLDER --output model.onnx",
        )
        .at(folder.display());
    }
    let model = names.iter().find(|name| name.starts_with("model."));
    if let Some(name) = model {
        let start = read_start(&folder.join(name));
        let what = match start.as_deref().and_then(sniff::looks_like) {
            Some(what) => what.to_owned(),
            None => format!("it holds {name}, and only ONNX models can be imported"),
        };
        return invalid(what).at(folder.join(name).display());
    }
    let shown: Vec<&String> = names.iter().take(5).collect();
    invalid(format!("has no model.onnx; it holds {shown:?}")).at(folder.display())
}

fn read_start(file: &Path) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut start = Vec::new();
    let file = std::fs::File::open(file).ok()?;
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    file.take(1 << 16).read_to_end(&mut start).ok()?;
    Some(start)
}

/// Whether a folder is called by a number, as both tools want it.
pub fn is_number(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !name.is_empty() && name.len() < 20 && name.bytes().all(|b| b.is_ascii_digit())
}
