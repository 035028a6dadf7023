//! The files of both sides: those of versions, below `models/NAME/NUMBER`, and those that were
//! uploaded and are to become one, each upload below its own name.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use model::ErrorCode;
use serde::Deserialize;
use serde_json::{Value, json as value};

use super::super::registry::extract::{Asked, Change, Fetch, Names, access};
use super::super::registry::look::{numbered, send};
use super::super::registry::publish::promise;
use super::models::nothing;
use super::{Answer, invalid, json};
use crate::Api;
use crate::error::Failure;

/// A place among the artifacts.
enum Place<'a> {
    Version { model: &'a str, number: &'a str, file: &'a str },
    Upload { upload: &'a str, file: &'a str },
}

fn place(path: &str) -> Result<Place<'_>, Failure> {
    let path = path.trim_matches('/');
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    if first != "models" {
        return Ok(Place::Upload { upload: first, file: rest });
    }
    let (model, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let (number, file) = rest.split_once('/').unwrap_or((rest, ""));
    if model.is_empty() || number.is_empty() {
        return Err(invalid("expected models/NAME/NUMBER, and perhaps the path of a file"));
    }
    Ok(Place::Version { model, number, file })
}

/// A folder.
#[derive(Deserialize)]
pub(super) struct Folder {
    #[serde(default)]
    path: String,
}

pub(super) async fn list(
    Fetch(registry): Fetch,
    State(api): State<Arc<Api>>,
    Asked(asked): Asked<Folder>,
) -> Answer {
    let (files, folder) = match place(&asked.path)? {
        Place::Version { model, number, file } => {
            let version = numbered(&registry, model, number).await?;
            let files = version.files.iter().map(|file| (file.name.clone(), file.size)).collect();
            (files, file)
        }
        Place::Upload { upload: "", .. } => (Vec::new(), ""),
        Place::Upload { upload, file } => (access(&api)?.uploads.list(upload)?, file),
    };
    Ok(json(&value!({ "files": directly_below(&files, folder) })))
}

/// What lies directly in a folder, folders among it.
fn directly_below(files: &[(String, u64)], folder: &str) -> Vec<Value> {
    let mut below: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    for (name, size) in files {
        let inside = match folder {
            "" => Some(&**name),
            folder => name.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')),
        };
        match inside.map(|inside| inside.split_once('/').ok_or(inside)) {
            Some(Ok((folder, _))) => drop(below.insert(folder, None)),
            Some(Err(file)) => drop(below.insert(file, Some(*size))),
            None => {}
        }
    }
    let shown = |(name, size): (&str, Option<u64>)| match size {
        Some(size) => value!({ "path": name, "is_dir": false, "file_size": size }),
        None => value!({ "path": name, "is_dir": true }),
    };
    below.into_iter().map(shown).collect()
}

pub(super) async fn download(Fetch(registry): Fetch, Names(path): Names<String>) -> Answer {
    match place(&path)? {
        Place::Version { model, number, file } => {
            let version = numbered(&registry, model, number).await?;
            send(&registry, &version, file).await
        }
        Place::Upload { .. } => {
            let message =
                "what was uploaded can be downloaded once it is a version: create one of it";
            Err(Failure::new(ErrorCode::Unimplemented, message))
        }
    }
}

pub(super) async fn upload(
    _change: Change,
    Names(path): Names<String>,
    State(api): State<Arc<Api>>,
    request: Request,
) -> Answer {
    let Place::Upload { upload, file } = place(&path)? else {
        let message =
            "the files of a version never change; upload beside models, and create a version";
        return Err(Failure::new(ErrorCode::PermissionDenied, message));
    };
    if file.is_empty() {
        return Err(invalid(format!("{path:?}: expected UPLOAD/PATH, a folder of your own first")));
    }
    let (parts, body) = request.into_parts();
    let promise = promise(&parts.headers, None, &api)?;
    access(&api)?.uploads.receive(upload, file, body, &promise).await?;
    Ok(nothing())
}

pub(super) async fn remove(
    _change: Change,
    Names(path): Names<String>,
    State(api): State<Arc<Api>>,
) -> Answer {
    match place(&path)? {
        Place::Upload { upload, file: "" } => access(&api)?.uploads.remove(upload)?,
        _ => {
            let message =
                "only a whole upload can be deleted; versions have an endpoint of their own";
            return Err(Failure::new(ErrorCode::Unimplemented, message));
        }
    }
    Ok(nothing())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_files_and_folders() {
        let files = [("MLmodel", 1), ("data/a.onnx", 2), ("data/b/c", 3), ("database", 4)];
        let files: Vec<(String, u64)> = files.map(|(name, size)| (name.to_owned(), size)).into();
        let names = |folder: &str| -> Vec<String> {
            let found = directly_below(&files, folder);
            found.iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(names(""), ["MLmodel", "data", "database"]);
        assert_eq!(names("data"), ["a.onnx", "b"]);
        assert!(names("MLmodel").is_empty());
        assert_eq!(directly_below(&files, "data")[1], value!({ "path": "b", "is_dir": true }));
    }
}
