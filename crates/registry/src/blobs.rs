//! The bytes: objects that are named by their digest, written once, and checked on every read.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use sha2::{Digest, Sha256};

use crate::{Error, Location, Result, error};

/// The file that says whose store this is.
const MARKER: &str = "registry.json";
/// The folder of everything else.
const FOLDER: &str = "blobs";

/// One object: the digest of its bytes, and which of the objects that ever had them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blob {
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Never used twice, so that removing an old object cannot hit a new one.
    pub generation: i64,
}

/// The object store of one registry.
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    parts: Option<Arc<dyn MultipartStore>>,
    prefix: Key,
    folder: Option<PathBuf>,
}

impl Blobs {
    /// Connects to the store; a folder that is not there is made if `make` says so.
    pub fn open(location: &Location, make: bool) -> Result<Self> {
        let opened = location.open(make)?;
        Ok(Self {
            store: opened.store,
            parts: opened.parts,
            prefix: opened.prefix,
            folder: opened.folder,
        })
    }

    /// Ties the store to the database with this identity, or says that it is another's: collecting
    /// garbage with the wrong database would take everything.
    pub async fn belong_to(&self, identity: &str) -> Result<()> {
        let key = self.prefix.clone().join(MARKER);
        let marker = serde_json::json!({ "registry": identity }).to_string();
        for _ in 0..2 {
            match self.store.get(&key).await {
                Ok(found) => {
                    let found = found.bytes().await?;
                    if found == marker.as_bytes() {
                        return Ok(());
                    }
                    return Err(Error::refused(
                        "the blobs at this location belong to another database than the one that \
                         was named; name the one that they belong to (--database), or another \
                         location",
                    ));
                }
                Err(object_store::Error::NotFound { .. }) => {
                    self.create(&key, marker.clone().into()).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::damaged("the object store does not find what was just written to it"))
    }

    fn key(&self, blob: &Blob) -> Key {
        let hex = blob.digest.strip_prefix("sha256:").unwrap_or(&blob.digest);
        let name = format!("{hex}.{}", blob.generation);
        self.prefix.clone().join(FOLDER).join(&hex[..2.min(hex.len())]).join(name)
    }

    /// The blob that an object is, unless it is something that we did not write.
    fn blob(&self, object: &ObjectMeta) -> Option<Blob> {
        let (hex, generation) = object.location.filename()?.split_once('.')?;
        let blob = Blob { digest: format!("sha256:{hex}"), generation: generation.parse().ok()? };
        let is_digest = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        (is_digest && self.key(&blob) == object.location).then_some(blob)
    }

    /// The size of a blob that is whole, as far as the store knows.
    pub async fn size(&self, blob: &Blob) -> Result<Option<u64>> {
        match self.store.head(&self.key(blob)).await {
            Ok(object) => Ok(Some(object.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a blob in one go, unless it is there: nobody ever sees a part of it.
    pub async fn put(&self, blob: &Blob, bytes: Bytes) -> Result<()> {
        self.create(&self.key(blob), bytes.into()).await
    }

    async fn create(&self, key: &Key, payload: PutPayload) -> Result<()> {
        match self.store.put_opts(key, payload, PutMode::Create.into()).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            // A try that was answered too late, and made again, finds its own object.
            Err(object_store::Error::Precondition { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Begins to write a blob as a stream, which becomes visible when it is complete.
    pub async fn stream(&self, blob: &Blob) -> Result<Box<dyn object_store::MultipartUpload>> {
        Ok(self.store.put_multipart(&self.key(blob)).await?)
    }

    /// The store's own uploads in parts, which another process can carry on with.
    pub fn parts(&self, blob: &Blob) -> Option<(&dyn MultipartStore, Key)> {
        Some((&**self.parts.as_ref()?, self.key(blob)))
    }

    /// Copies a blob into a file, which is whole or not there; `what` is named in errors.
    pub async fn copy(&self, blob: &Blob, size: u64, file: &Path, what: &str) -> Result<()> {
        let folder = file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|e| error::file(folder, &e))?;
        let mut partial = file.as_os_str().to_owned();
        partial.push(format!(".{:08x}.part", fastrand::u32(..)));
        let partial = PathBuf::from(partial);
        let failed = |e: std::io::Error| error::file(file, &e);
        let mut target = std::fs::File::create_new(&partial).map_err(failed)?;
        let written =
            self.each_chunk(blob, size, what, |bytes| target.write_all(bytes).map_err(failed));
        let written = match written.await {
            Ok(()) => {
                target.sync_all().and_then(|()| std::fs::rename(&partial, file)).map_err(failed)
            }
            Err(error) => Err(error),
        };
        written.inspect_err(|_| {
            // What could not be written is of no use; the error that matters is the first.
            let _ = std::fs::remove_file(&partial);
        })
    }

    /// The bytes of a blob, in memory.
    pub async fn read(&self, blob: &Blob, size: u64, what: &str) -> Result<Bytes> {
        let mut all = Vec::new();
        self.each_chunk(blob, size, what, |bytes| {
            all.extend_from_slice(bytes);
            Ok(())
        })
        .await?;
        Ok(all.into())
    }

    /// Reads a blob and compares it with its digest.
    pub async fn verify(&self, blob: &Blob, size: u64, what: &str) -> Result<()> {
        self.each_chunk(blob, size, what, |_| Ok(())).await
    }

    /// Hands out a blob's bytes in order, the last of them only once all have been found to be those
    /// that were stored.
    async fn each_chunk(
        &self,
        blob: &Blob,
        size: u64,
        what: &str,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut reader = self.open_blob(blob, size, what).await?;
        while let Some(chunk) = reader.next().await? {
            take(&chunk)?;
        }
        Ok(())
    }

    /// Begins to read a blob; `what` is named in errors.
    pub async fn open_blob(&self, blob: &Blob, size: u64, what: &str) -> Result<Reader> {
        let digest = blob.digest.clone();
        match self.store.get(&self.key(blob)).await {
            Ok(found) => Ok(Reader {
                chunks: found.into_stream(),
                held: None,
                seen: Some(Sha256::new()),
                read: 0,
                size,
                digest,
                what: what.to_owned(),
            }),
            Err(object_store::Error::NotFound { .. }) => {
                Err(damaged(what, "its bytes are gone from the object store"))
            }
            Err(error) => Err(Error::from(error).at(what)),
        }
    }

    /// Removes an object; that it is gone already is fine.
    pub async fn remove(&self, blob: &Blob) -> Result<()> {
        match self.store.delete(&self.key(blob)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Every blob in the store, with its size.
    pub async fn list(&self) -> Result<Vec<(Blob, u64)>> {
        let folder = self.prefix.clone().join(FOLDER);
        let objects: Vec<ObjectMeta> = self.store.list(Some(&folder)).try_collect().await?;
        Ok(objects.iter().filter_map(|object| Some((self.blob(object)?, object.size))).collect())
    }

    /// Removes what writers that were killed left beside the blobs of a folder, once nobody can be
    /// writing it any more. Returns how many files.
    pub fn remove_leftovers(&self, older_than: Duration) -> Result<u64> {
        let Some(folder) = &self.folder else { return Ok(0) };
        let mut removed = 0;
        for shelf in entries(&folder.join(FOLDER))? {
            for file in entries(&shelf)? {
                // The name that object_store gives to a file that it has not finished.
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let staged = name.rsplit_once('#').is_some_and(|(_, n)| n.parse::<u64>().is_ok());
                let age = file.metadata().and_then(|data| data.modified()).ok();
                let age = age.and_then(|time| SystemTime::now().duration_since(time).ok());
                if staged && age.is_some_and(|age| age > older_than) {
                    std::fs::remove_file(&file).map_err(|e| error::file(&file, &e))?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }
}

/// The bytes of a file, in order. The last of them are handed out only once all have been found to
/// be those that were stored, so whoever gets to the end has the right ones.
pub struct Reader {
    chunks: BoxStream<'static, object_store::Result<Bytes>>,
    /// Arrived, but not handed out yet.
    held: Option<Bytes>,
    /// `None` once the digest has been compared.
    seen: Option<Sha256>,
    read: u64,
    size: u64,
    digest: String,
    what: String,
}

impl Reader {
    /// The next piece; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.seen.is_some() {
            let Some(chunk) = self.chunks.next().await else {
                self.compare()?;
                break;
            };
            let chunk = chunk.map_err(|error| Error::from(error).at(&self.what))?;
            self.read += chunk.len() as u64;
            // Not a byte more than is known to belong to it, whatever the store sends.
            if self.read > self.size {
                let how = format!("its object has more than its {} bytes", self.size);
                return Err(damaged(&self.what, &how));
            }
            if let Some(seen) = &mut self.seen {
                seen.update(&chunk);
            }
            if let Some(before) = self.held.replace(chunk).filter(|held| !held.is_empty()) {
                return Ok(Some(before));
            }
        }
        Ok(self.held.take())
    }

    fn compare(&mut self) -> Result<()> {
        let Some(seen) = self.seen.take() else { return Ok(()) };
        if self.read != self.size {
            let how = format!("its object has {} bytes instead of {}", self.read, self.size);
            return Err(damaged(&self.what, &how));
        }
        let digest = digest(seen);
        if digest != self.digest {
            let how = format!("its bytes have the digest {digest} instead of {}", self.digest);
            return Err(damaged(&self.what, &how));
        }
        Ok(())
    }
}

fn damaged(what: &str, how: &str) -> Error {
    Error::damaged(format!(
        "{what}: {how}; restore the object from a copy, or push the same file again"
    ))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let found = match std::fs::read_dir(folder) {
        Ok(found) => found,
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(e) => return Err(error::file(folder, &e)),
    };
    Ok(found.flatten().map(|entry| entry.path()).collect())
}

/// A digest as the registry writes it.
pub fn digest(hash: Sha256) -> String {
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
