//! A version as another tool keeps it, as one archive that is written while it is read.

use std::sync::Arc;

use ::registry::{Registry, Version};
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use hyper::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use model::ErrorCode;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Answer;
use super::extract::{Asked, Fetch, Names, access};
use super::look::numbered;
use crate::error::Failure;
use crate::{Api, Contents, Entry};

/// Everything in a tar is cut into blocks of this many bytes.
const BLOCK: u64 = 512;

/// Two blocks of zeros end a tar.
const END: usize = 2 * BLOCK as usize;

/// Which layout is wanted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct As {
    format: String,
}

/// Sends a version in a layout, as a tar. What turns out to be damaged is broken off before its end.
pub(super) async fn export(
    Fetch(registry): Fetch,
    Names((model, version)): Names<(String, String)>,
    Asked(asked): Asked<As>,
    State(api): State<Arc<Api>>,
) -> Answer {
    let version = numbered(&registry, &model, &version).await?;
    if version.files.is_empty() {
        let message = format!("{model}:{} was deleted, and its files are gone", version.number);
        return Err(Failure::new(ErrorCode::NotFound, message));
    }
    let entries = (access(&api)?.lay_out)(&version, &asked.format)
        .map_err(|(code, message)| Failure::new(code, message))?;
    let parts = entries.into_iter().map(|entry| part(&version, entry));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let length: u64 = parts.iter().map(Part::length).sum();
    let name = format!("{model}-{}-{}.tar", version.number, asked.format);
    let (sender, pieces) = mpsc::channel(4);
    tokio::spawn(async move {
        // What is said of an error is said by the end that is missing; and nobody may be there to
        // hear it.
        if let Err(Some(error)) = write(&registry, &version, parts, &sender).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    let mut response = Body::from_stream(ReceiverStream::new(pieces)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length + END as u64));
    // Names in other scripts cannot stand in a header as they are.
    if let Ok(value) = format!("attachment; filename=\"{name}\"").parse() {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    Ok(response)
}

/// One file of an archive.
struct Part {
    header: Bytes,
    contents: Contents,
}

impl Part {
    fn size(&self) -> u64 {
        match &self.contents {
            Contents::File(file) => file.size,
            Contents::Text(text) => text.len() as u64,
        }
    }

    /// What it takes in the archive.
    fn length(&self) -> u64 {
        self.header.len() as u64 + self.size().next_multiple_of(BLOCK)
    }
}

fn part(version: &Version, entry: Entry) -> Result<Part, Failure> {
    let mut part = Part { header: Bytes::new(), contents: entry.contents };
    let mut header = tar::Header::new_gnu();
    header.set_size(part.size());
    header.set_mode(0o644);
    header.set_mtime(version.published.as_second().try_into().unwrap_or(0));
    // The contents are sent apart, so that no more than a piece of them is in memory.
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, &entry.path, std::io::empty()).map_err(|error| {
        Failure::new(ErrorCode::Internal, format!("{:?} in an archive: {error}", entry.path))
    })?;
    part.header = std::mem::take(archive.get_mut()).into();
    Ok(part)
}

type Piece = Result<Bytes, ::registry::Error>;

/// Sends an archive piece by piece; `Err(None)` if nobody takes it any more.
async fn write(
    registry: &Registry,
    version: &Version,
    parts: Vec<Part>,
    to: &mpsc::Sender<Piece>,
) -> Result<(), Option<::registry::Error>> {
    let send = async |piece: Bytes| to.send(Ok(piece)).await.map_err(|_| None);
    let zeros = |count: usize| Bytes::from_static(&[0; END]).slice(..count);
    for part in parts {
        let padding = (part.size().next_multiple_of(BLOCK) - part.size()) as usize;
        send(part.header).await?;
        match part.contents {
            Contents::Text(text) => send(text.into()).await?,
            Contents::File(file) => {
                let mut reader = registry.open_file(version, &file).await?;
                while let Some(piece) = reader.next().await? {
                    send(piece).await?;
                }
            }
        }
        if padding > 0 {
            send(zeros(padding)).await?;
        }
    }
    send(zeros(END)).await
}
