//! Files that have arrived, and are not part of a version yet.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ::registry::{check_file, check_model};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::StatusCode;
use model::ErrorCode;
use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempDir};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::Failure;

/// How long an upload that nobody publishes is kept.
const AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// The most files of one upload.
const MAX_FILES: usize = 10_000;

/// A folder of this machine in which uploads lie until they are published, each a folder of its own.
/// Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    /// The most bytes of all uploads together.
    limit: u64,
    used: AtomicU64,
    /// Removes the folder when it is dropped.
    _folder: Box<dyn AsRef<Path> + Send + Sync>,
}

/// A file that has arrived whole.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Received {
    pub upload: String,
    pub file: String,
    pub size: u64,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
}

/// What a sender says of a file beside its bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promise {
    /// The digest that its bytes must have, as [`Received::digest`] writes it.
    pub digest: Option<String>,
    /// How long it may take for the next bytes to come.
    pub patience: Duration,
}

impl Uploads {
    /// Keeps uploads in this folder, which is dropped with the last of them; `limit` bytes at most at
    /// once.
    pub fn new(folder: impl AsRef<Path> + Send + Sync + 'static, limit: u64) -> Self {
        let (path, used) = (folder.as_ref().to_owned(), AtomicU64::new(0));
        let _folder = Box::new(folder);
        Self { inner: Arc::new(Inner { folder: path, limit, used, _folder }) }
    }

    /// A folder for files that are on their way; gone when it is dropped.
    pub(crate) fn scratch(&self) -> Result<TempDir, Failure> {
        std::fs::create_dir_all(&self.inner.folder).map_err(|e| failed(&e))?;
        tempfile::Builder::new()
            .prefix(".scratch-")
            .tempdir_in(&self.inner.folder)
            .map_err(|e| failed(&e))
    }

    /// Takes a file of an upload in. It is there whole, or not at all.
    pub(crate) async fn receive(
        &self,
        upload: &str,
        file: &str,
        body: axum::body::Body,
        promise: &Promise,
    ) -> Result<Received, Failure> {
        check_model(upload)?;
        check_file(file)?;
        self.sweep();
        let target = self.inner.folder.join(upload).join(file);
        let (digest, held) = self.receive_into(&target, body, promise).await?;
        let size = held.keep();
        if self.list(upload)?.len() > MAX_FILES {
            self.remove_file(&target);
            let message = format!("upload \"{upload}\" has {MAX_FILES} files already");
            return Err(Failure::new(ErrorCode::ResourceExhausted, message));
        }
        Ok(Received { upload: upload.to_owned(), file: file.to_owned(), size, digest })
    }

    /// Takes a file in, and returns its digest, and what must be kept for as long as it lies there.
    pub(crate) async fn receive_into(
        &self,
        target: &Path,
        mut body: axum::body::Body,
        promise: &Promise,
    ) -> Result<(String, Held), Failure> {
        let scratch = self.scratch()?;
        let mut held = Held { uploads: self.clone(), bytes: 0 };
        let file = NamedTempFile::new_in(scratch.path()).map_err(|e| failed(&e))?;
        let (pieces, writer) = write(file.reopen().map_err(|e| failed(&e))?);
        loop {
            let frame = tokio::time::timeout(promise.patience, body.frame()).await;
            let frame = frame.map_err(|_| {
                let message = format!("no more of the body came within {:?}", promise.patience);
                Failure::status(StatusCode::REQUEST_TIMEOUT, message)
            })?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| {
                let message = format!("the request's body is cut short or malformed: {error}");
                Failure::new(ErrorCode::InvalidArgument, message)
            })?;
            let Ok(piece) = frame.into_data() else { continue };
            held.more(piece.len() as u64)?;
            if pieces.send(piece).await.is_err() {
                break;
            }
        }
        drop(pieces);
        let digest =
            writer.await.map_err(|e| failed(&std::io::Error::other(e)))?.map_err(|e| failed(&e))?;
        if let Some(expected) = promise.digest.as_ref().filter(|expected| **expected != digest) {
            let message = format!(
                "the digest of what arrived is {digest}, and that of what was sent {expected}; \
                 send it again"
            );
            return Err(Failure::new(ErrorCode::InvalidArgument, message));
        }
        let before = std::fs::metadata(target).map_or(0, |data| data.len());
        let folder = target.parent().unwrap_or(&self.inner.folder);
        std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
        file.persist(target).map_err(|e| failed(&e.error))?;
        self.give_back(before);
        Ok((digest, held))
    }

    /// The files of an upload, by name, with their sizes.
    pub(crate) fn list(&self, upload: &str) -> Result<Vec<(String, u64)>, Failure> {
        files(&self.folder(upload)?)
    }

    /// Where the files of an upload are.
    pub(crate) fn folder(&self, upload: &str) -> Result<PathBuf, Failure> {
        check_model(upload)?;
        let folder = self.inner.folder.join(upload);
        if folder.is_dir() {
            return Ok(folder);
        }
        let message =
            format!("there is no upload \"{upload}\" on this server; uploads are kept for a day");
        Err(Failure::new(ErrorCode::NotFound, message))
    }

    /// Forgets an upload.
    pub(crate) fn remove(&self, upload: &str) -> Result<(), Failure> {
        let folder = self.folder(upload)?;
        self.remove_folder(&folder);
        Ok(())
    }

    fn remove_folder(&self, folder: &Path) {
        let mut size = 0;
        let _ = walk(folder, &mut |_, bytes| size += bytes);
        match std::fs::remove_dir_all(folder) {
            Ok(()) => self.give_back(size),
            Err(error) => tracing::warn!("cannot remove {}: {error}", folder.display()),
        }
    }

    fn remove_file(&self, file: &Path) {
        let size = std::fs::metadata(file).map_or(0, |data| data.len());
        if std::fs::remove_file(file).is_ok() {
            self.give_back(size);
        }
    }

    /// Forgets what is too old.
    fn sweep(&self) {
        let Ok(found) = std::fs::read_dir(&self.inner.folder) else { return };
        for entry in found.flatten() {
            let time = entry.metadata().and_then(|data| data.modified());
            let age = time.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            if age.is_some_and(|age| age > AGE) {
                self.remove_folder(&entry.path());
            }
        }
    }

    fn give_back(&self, bytes: u64) {
        // Relaxed: nothing else hangs on it.
        let lower = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.inner.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lower);
    }
}

/// Bytes of a file that has not been kept yet; given back if it never is.
pub(crate) struct Held {
    uploads: Uploads,
    bytes: u64,
}

impl Held {
    fn more(&mut self, bytes: u64) -> Result<(), Failure> {
        let (inner, limit) = (&self.uploads.inner, self.uploads.inner.limit);
        let higher = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        if inner.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, higher).is_err() {
            let message = format!(
                "the uploads on this server may have {limit} bytes together; publish or delete \
                 others first, or have the limit raised"
            );
            return Err(Failure::status(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        self.bytes += bytes;
        Ok(())
    }

    fn keep(mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.uploads.give_back(self.bytes);
    }
}

/// Writes and hashes pieces on a thread where that holds nobody up; its result is the digest.
fn write(mut file: File) -> (mpsc::Sender<Bytes>, JoinHandle<std::io::Result<String>>) {
    let (sender, mut pieces) = mpsc::channel::<Bytes>(16);
    let writer = tokio::task::spawn_blocking(move || {
        let mut hash = Sha256::new();
        while let Some(piece) = pieces.blocking_recv() {
            hash.update(&piece);
            file.write_all(&piece)?;
        }
        file.flush()?;
        let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("sha256:{hex}"))
    });
    (sender, writer)
}

/// The files below a folder, by name, with their sizes.
pub(crate) fn files(folder: &Path) -> Result<Vec<(String, u64)>, Failure> {
    let mut found = Vec::new();
    walk(folder, &mut |path, size| {
        let name = path.strip_prefix(folder).unwrap_or(path);
        found.push((name.to_string_lossy().into_owned(), size));
    })
    .map_err(|e| failed(&e))?;
    found.sort();
    Ok(found)
}

/// Every file below a folder, with its size.
fn walk(folder: &Path, found: &mut dyn FnMut(&Path, u64)) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let data = entry.metadata()?;
        if data.is_dir() {
            walk(&entry.path(), found)?;
        } else {
            found(&entry.path(), data.len());
        }
    }
    Ok(())
}

fn failed(error: &std::io::Error) -> Failure {
    use std::io::ErrorKind::{
        AlreadyExists, IsADirectory, NotADirectory, QuotaExceeded, StorageFull,
    };
    let code = match error.kind() {
        StorageFull | QuotaExceeded => ErrorCode::ResourceExhausted,
        // A file where another has its folder.
        AlreadyExists | IsADirectory | NotADirectory => ErrorCode::InvalidArgument,
        _ => ErrorCode::Internal,
    };
    Failure::new(code, format!("the upload cannot be stored: {error}"))
}
