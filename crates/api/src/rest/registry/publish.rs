//! New versions: a file as the body, or files that were uploaded before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::registry::{Draft, FileKind, Lineage, Source, Version, check_file, check_model};
use axum::extract::{FromRequest, Query, Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{HeaderMap, LOCATION};
use hyper::{StatusCode, Uri};
use model::ErrorCode;
use serde::Deserialize;
use serde_json::{Value, json as value};

use super::extract::{Change, Fetch, Json, Names, access, check_plain, has_type, number};
use super::{Answer, json};
use crate::error::Failure;
use crate::uploads::{self, Promise};
use crate::{Access, Api, Examine, Uploaded};

/// The name that recorded requests have with a version.
const WARM_UP: &str = "warmup.jsonl";

/// What is to be known of a new version.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct About {
    /// The upload whose files it is made of.
    #[serde(default)]
    pub upload: String,
    /// The file to open, where the upload has several.
    pub main: Option<String>,
    /// The model card, in Markdown.
    pub card: Option<String>,
    /// The file of the upload that has the training data, or its profile.
    pub data_profile: Option<String>,
    /// The file of the upload that has recorded requests; `warmup.jsonl` if there is one.
    pub warm_up: Option<String>,
    pub alias: Option<String>,
    #[serde(default)]
    pub lineage: Lineage,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    #[serde(default)]
    pub reason: String,
    pub evidence: Option<Value>,
}

/// Publishes a version: the body is the model's file, or names an upload.
pub(super) async fn publish(
    change: Change,
    Names(model): Names<String>,
    State(api): State<Arc<Api>>,
    request: Request,
) -> Answer {
    let access = access(&api)?;
    check_model(&model)?;
    if !has_type(request.headers(), "application/octet-stream") {
        let Json(about) = Json::<About>::from_request(request, &api).await?;
        let (upload, folder) = (about.upload.clone(), access.uploads.folder(&about.upload)?);
        let version = publish_folder(access, &change, &model, &folder, about).await?;
        access.uploads.remove(&upload)?;
        return Ok(created(&version));
    }
    let (parts, body) = request.into_parts();
    let asked = asked(&parts.uri)?;
    let promise = promise(&parts.headers, asked.digest, &api)?;
    let scratch = access.uploads.scratch()?;
    let target = scratch.path().join(&asked.file);
    let (_, _held) = access.uploads.receive_into(&target, body, &promise).await?;
    let version = publish_folder(access, &change, &model, scratch.path(), asked.about).await?;
    Ok(created(&version))
}

fn created(version: &Version) -> Response {
    let location = format!("/v2/registry/models/{}/versions/{}", version.model, version.number);
    let mut response = (StatusCode::CREATED, json(version)).into_response();
    // Names in other scripts cannot stand in a header as they are.
    if let Ok(location) = location.parse() {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// What the query says of a file that is the body.
#[derive(Default)]
struct Asked {
    file: String,
    digest: Option<String>,
    about: About,
}

fn asked(uri: &Uri) -> Result<Asked, Failure> {
    let invalid = |message: String| Failure::new(ErrorCode::InvalidArgument, message);
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri);
    let pairs = pairs.map_err(|error| invalid(format!("the query: {}", error.body_text())))?.0;
    let mut asked = Asked { file: "model.onnx".to_owned(), ..Asked::default() };
    for (key, value) in pairs {
        let about = &mut asked.about;
        match &*key {
            "file" => asked.file = value,
            "digest" => asked.digest = Some(value),
            "alias" => about.alias = Some(value),
            "reason" => about.reason = value,
            "data" => about.lineage.data = Some(value),
            "commit" => about.lineage.commit = Some(value),
            "parent" => about.lineage.parent = Some(number(&value)?),
            _ => match key.strip_prefix("meta.").filter(|key| !key.is_empty()) {
                Some(key) => drop(about.metadata.insert(key.to_owned(), value)),
                None => {
                    let known = "file, digest, alias, parent, data, commit, reason, meta.KEY";
                    return Err(invalid(format!("query {key:?}: expected one of {known}")));
                }
            },
        }
    }
    check_file(&asked.file)?;
    Ok(asked)
}

/// Makes a version of the files in a folder: the model that is found there, and everything else
/// beside it.
pub(crate) async fn publish_folder(
    access: &Access,
    change: &Change,
    model: &str,
    folder: &Path,
    about: About,
) -> Result<Version, Failure> {
    let by = change.by(about.reason.clone(), about.evidence.clone());
    let (examine, model, folder) = (access.examine.clone(), model.to_owned(), folder.to_owned());
    let drafted = tokio::task::spawn_blocking(move || draft(&examine, &model, &folder, about));
    let drafted = drafted.await.map_err(|error| {
        Failure::new(ErrorCode::Internal, format!("the model could not be opened: {error}"))
    })?;
    Ok(change.registry.publish(&drafted?, &by, &|_| ()).await?)
}

fn draft(examine: &Examine, model: &str, folder: &Path, about: About) -> Result<Draft, Failure> {
    let mut files = uploads::files(folder)?;
    let mut uploaded = Uploaded {
        model: model.to_owned(),
        path: folder.to_owned(),
        data_profile: aside(folder, &mut files, about.data_profile.as_deref())?,
        warm_up: None,
    };
    let usual = files.iter().any(|(name, _)| name == WARM_UP).then_some(WARM_UP);
    let warm_up = about.warm_up.as_deref().or(usual);
    uploaded.warm_up = aside(folder, &mut files, warm_up)?;
    uploaded.path = match (&about.main, &files[..]) {
        (Some(main), _) => {
            check_file(main)?;
            folder.join(main)
        }
        (None, [(only, _)]) => folder.join(only),
        (None, _) => folder.to_owned(),
    };
    let mut draft = examine(&uploaded).map_err(|(code, message)| {
        // Where the server keeps it is nobody's business.
        Failure::new(code, message.replace(&format!("{}/", folder.display()), ""))
    })?;
    keep_names(&mut draft, folder);
    for (name, _) in files {
        let source = Source::Path(folder.join(&name));
        check_harmless(&name)?;
        draft.files.entry(name).or_insert((FileKind::Attachment, source));
    }
    if let Some(card) = about.card {
        let card = (FileKind::Attachment, Source::Bytes(card.into()));
        if draft.files.insert("card.md".to_owned(), card).is_some() {
            let message = "the model has a file card.md of its own";
            return Err(Failure::new(ErrorCode::InvalidArgument, message));
        }
    }
    let data = draft.lineage.data.take();
    (draft.alias, draft.lineage) = (about.alias, about.lineage);
    draft.lineage.data = draft.lineage.data.or(data);
    draft.metadata.extend(about.metadata);
    Ok(draft)
}

/// Takes a file out of those of a version, for what is to be kept is what is found in it.
fn aside(
    folder: &Path,
    files: &mut Vec<(String, u64)>,
    name: Option<&str>,
) -> Result<Option<PathBuf>, Failure> {
    let Some(name) = name else { return Ok(None) };
    let Some(place) = files.iter().position(|(file, _)| file == name) else {
        let shown: String = name.chars().take(100).collect();
        let message = format!("the upload has no file {shown:?}");
        return Err(Failure::new(ErrorCode::InvalidArgument, message));
    };
    Ok(Some(folder.join(files.remove(place).0)))
}

/// Names the files of a draft as they were uploaded, folders included.
fn keep_names(draft: &mut Draft, folder: &Path) {
    let named = |name: &str, source: &Source| match source {
        Source::Path(path) => {
            let inside = path.strip_prefix(folder).ok().and_then(Path::to_str);
            inside.unwrap_or(name).to_owned()
        }
        Source::Bytes(_) => name.to_owned(),
    };
    let main = draft.files.get(&draft.main).map(|(_, source)| named(&draft.main, source));
    let files = std::mem::take(&mut draft.files);
    draft.files = files.into_iter().map(|(name, file)| (named(&name, &file.1), file)).collect();
    draft.main = main.unwrap_or_else(|| draft.main.clone());
}

/// Refuses to pass on what runs code wherever it is opened.
fn check_harmless(name: &str) -> Result<(), Failure> {
    const ENDINGS: [&str; 7] =
        [".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill", ".mar", ".pth"];
    let lower = name.to_lowercase();
    if ENDINGS.iter().all(|ending| !lower.ends_with(ending)) {
        return Ok(());
    }
    let message = format!(
        "\"{name}\": a pickle runs code wherever it is opened, so it is not kept; upload the model \
         as ONNX, and leave this file away"
    );
    Err(Failure::new(ErrorCode::Unimplemented, message))
}

/// Takes a file of an upload in.
pub(super) async fn put_file(
    _change: Change,
    Names((upload, file)): Names<(String, String)>,
    State(api): State<Arc<Api>>,
    request: Request,
) -> Answer {
    let (parts, body) = request.into_parts();
    let promise = promise(&parts.headers, None, &api)?;
    let received = access(&api)?.uploads.receive(&upload, &file, body, &promise).await?;
    Ok((StatusCode::CREATED, json(&received)).into_response())
}

/// The files of an upload that have arrived.
pub(super) async fn list_files(
    _fetch: Fetch,
    Names(upload): Names<String>,
    State(api): State<Arc<Api>>,
) -> Answer {
    let files = access(&api)?.uploads.list(&upload)?;
    let file = |(name, size)| value!({ "file": name, "size": size });
    let files: Vec<Value> = files.into_iter().map(file).collect();
    Ok(json(&value!({ "upload": upload, "files": files })))
}

/// Forgets an upload.
pub(super) async fn remove_upload(
    _change: Change,
    Names(upload): Names<String>,
    State(api): State<Arc<Api>>,
) -> Answer {
    access(&api)?.uploads.remove(&upload)?;
    Ok(json(&value!({ "upload": upload })))
}

/// What the headers, and perhaps the query, say of a body.
pub(crate) fn promise(
    headers: &HeaderMap,
    digest: Option<String>,
    api: &Api,
) -> Result<Promise, Failure> {
    check_plain(headers)?;
    let digest = match digest {
        Some(digest) => Some(checked(digest)?),
        None => ["repr-digest", "content-digest"]
            .iter()
            .find_map(|name| headers.get(*name).map(|value| (name, value)))
            .map(|(name, value)| {
                sha256(value.to_str().unwrap_or_default()).ok_or_else(|| {
                    let message =
                        format!("the header {name}: expected sha-256=:BASE64:, got {value:?}");
                    Failure::new(ErrorCode::InvalidArgument, message)
                })
            })
            .transpose()?,
    };
    Ok(Promise { digest, patience: api.options.body_timeout })
}

fn checked(digest: String) -> Result<String, Failure> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(digest.to_ascii_lowercase());
    }
    let shown: String = digest.chars().take(100).collect();
    let message = format!("digest {shown:?}: expected sha256: and 64 hexadecimal digits");
    Err(Failure::new(ErrorCode::InvalidArgument, message))
}

/// The SHA-256 of RFC 9530's dictionary of digests, as the registry writes it.
pub(crate) fn sha256(header: &str) -> Option<String> {
    let item = header.split(',').find_map(|item| item.trim().strip_prefix("sha-256=:"))?;
    let bytes = STANDARD.decode(item.strip_suffix(':')?).ok().filter(|bytes| bytes.len() == 32)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("sha256:{hex}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_rfc_9530_writes_them() {
        // Of the empty string.
        let empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let hex = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(&format!("sha-256=:{empty}:")).unwrap(), hex);
        assert_eq!(sha256(&format!("md5=:x:, sha-256=:{empty}:")).unwrap(), hex);
        for wrong in ["", "sha-256", "sha-256=:", "sha-256=::", "sha-256=:AAAA:", "sha-512=:AAAA:"]
        {
            assert_eq!(sha256(wrong), None, "{wrong}");
        }
        assert!(checked(hex.to_owned()).is_ok() && checked("sha256:12".to_owned()).is_err());
    }

    #[test]
    fn a_query_describes_the_file_that_is_the_body() {
        let asked = |query: &str| super::asked(&format!("/x?{query}").parse().unwrap());
        let read = asked("file=a.onnx&alias=candidate&parent=3&meta.auc=0.9&reason=x%20y");
        let read = read.unwrap();
        assert_eq!((&*read.file, read.about.alias.as_deref()), ("a.onnx", Some("candidate")));
        assert_eq!((read.about.lineage.parent, &*read.about.reason), (Some(3), "x y"));
        assert_eq!(read.about.metadata["auc"], "0.9");
        for wrong in ["file=../x", "file=%2fetc", "parent=0", "what=1", "meta.=1", "file=.x"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
