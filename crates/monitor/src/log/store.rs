//! The folder or bucket that a log is in.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::files::{File, Keep, Partition, STAGING, Table};

/// Where a log is. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    store: Arc<dyn ObjectStore>,
    root: Path,
    /// Where the objects are, if they are files of this machine.
    folder: Option<PathBuf>,
}

/// The result of asking the store.
pub type Result<T> = object_store::Result<T>;

impl Store {
    /// A log under `root` of an object store; `folder` is its place if it is on this machine.
    pub fn new(store: Arc<dyn ObjectStore>, root: Path, folder: Option<PathBuf>) -> Self {
        Self { store, root, folder }
    }

    /// Stores a file of a partition under a name that no other has. Nobody ever sees a part of it:
    /// a file of this machine is renamed when it is whole.
    pub async fn put(&self, partition: &Partition, name: &str, writer: &Writer<'_>) -> Result<u64> {
        let path = partition.path(&self.root, name);
        let bytes = writer.bytes.clone();
        let size = bytes.len() as u64;
        if self.folder.is_some() {
            let staged = self.root.clone().join(STAGING).join(writer.name).join(name);
            self.store.put(&staged, bytes.into()).await?;
            self.store.rename(&staged, &path).await?;
        } else {
            self.store.put(&path, bytes.into()).await?;
        }
        Ok(size)
    }

    /// The files of a table, or of one model of it, in the order of their hours.
    pub async fn files(&self, table: Table, model: Option<&str>) -> Result<Vec<File>> {
        let under = match model {
            Some(model) => Partition::of_model(&self.root, table, model),
            None => self.root.clone().join(table.as_str()),
        };
        let objects: Vec<ObjectMeta> = self.store.list(Some(&under)).try_collect().await?;
        let file = |object: ObjectMeta| {
            let partition = Partition::parse(&self.root, &object.location)?;
            Some(File { partition, path: object.location, size: object.size })
        };
        let mut files: Vec<File> = objects.into_iter().filter_map(file).collect();
        files.sort_by(|a, b| (a.partition.hour, &a.path).cmp(&(b.partition.hour, &b.path)));
        Ok(files)
    }

    /// The bytes of a file; `None` if it was removed meanwhile.
    pub async fn read(&self, file: &File) -> Result<Option<Bytes>> {
        match self.store.get(&file.path).await {
            Ok(found) => Ok(Some(found.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes what is too old or too much, and says how many files and bytes that were.
    pub async fn expire(&self, keep: &Keep, now: jiff::Timestamp) -> Result<(u64, u64)> {
        let mut files = self.files(Table::Predictions, None).await?;
        files.extend(self.files(Table::Labels, None).await?);
        let (mut removed, mut bytes) = (0, 0);
        for file in keep.expired(files, now) {
            match self.store.delete(&file.path).await {
                Ok(()) => (removed, bytes) = (removed + 1, bytes + file.size),
                // Somebody else was faster.
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((removed, bytes))
    }

    /// Begins to write: on this machine, takes a place for files that are not finished, and removes
    /// those of writers that are gone.
    pub fn claim(&self, writer: &str) -> std::io::Result<Claim> {
        let Some(folder) = &self.folder else { return Ok(Claim(None)) };
        let staging = folder.join(self.root.as_ref()).join(STAGING);
        let own = staging.join(writer);
        fs::create_dir_all(&own)?;
        let lock = fs::File::create(own.join(LOCK))?;
        // Another writer that takes us for gone before this line only takes an empty folder away.
        lock.try_lock()?;
        for entry in fs::read_dir(&staging)? {
            let other = entry?.path();
            // As long as its writer lives, it is locked.
            let is_gone = match fs::File::open(other.join(LOCK)) {
                Ok(lock) => lock.try_lock().is_ok(),
                Err(_) => false,
            };
            if other != own && is_gone {
                tracing::info!(
                    "removed unfinished files of the prediction log: {}",
                    other.display()
                );
                fs::remove_dir_all(&other)?;
            }
        }
        Ok(Claim(Some((lock, own))))
    }
}

const LOCK: &str = "lock";

/// A place for unfinished files, for as long as it is held.
#[derive(Debug)]
pub struct Claim(Option<(fs::File, PathBuf)>);

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some((_, own)) = &self.0 {
            // Whoever starts next removes what stays.
            let _ = fs::remove_dir_all(own);
        }
    }
}

/// What is to be written, and by whom.
pub struct Writer<'a> {
    /// The writer's name, which no other has.
    pub name: &'a str,
    /// The file.
    pub bytes: Bytes,
}
