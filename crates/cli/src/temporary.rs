//! Folders for as long as this process lives, which the next server removes if it is killed.
//!
//! ```text
//! TMPDIR/modelyard-x7Gq2a/        the folder
//! TMPDIR/modelyard-x7Gq2a.lock    locked by whoever uses it; the kernel lets go of it with the process
//! ```

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What all of them are called.
const PREFIX: &str = "modelyard-";
/// What the lock's name has behind the folder's.
const LOCK: &str = ".lock";

/// A folder that is removed when this is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    lock: PathBuf,
    /// Held until this is dropped.
    _held: File,
}

impl Folder {
    /// Makes one in the system's folder for temporary files.
    pub fn new() -> Result<Self> {
        Self::new_in(&std::env::temp_dir())
    }

    fn new_in(parent: &Path) -> Result<Self> {
        for _ in 0..100 {
            let name: String = (0..8).map(|_| fastrand::alphanumeric()).collect();
            let path = parent.join(format!("{PREFIX}{name}"));
            let lock = parent.join(format!("{PREFIX}{name}{LOCK}"));
            let held = match File::options().write(true).create_new(true).mode(0o600).open(&lock) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                held => held?,
            };
            held.lock()?;
            // Between the two somebody may have taken it for one that was left.
            if !is_at(&held, &lock) {
                continue;
            }
            let made =
                std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
                    .create(&path);
            if let Err(error) = made {
                let _ = std::fs::remove_file(&lock);
                match error.kind() {
                    ErrorKind::AlreadyExists => continue,
                    _ => return Err(error),
                }
            }
            return Ok(Self { path, lock, _held: held });
        }
        Err(Error::other(format!("{}: no name is free for a folder", parent.display())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for Folder {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The lock goes last: what is left after it nobody would remove.
        if let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
            return;
        }
        let _ = std::fs::remove_file(&self.lock);
    }
}

/// Removes the folders of processes that were killed. One whose process lives is locked; one without
/// a lock is not ours.
pub fn remove_leftovers() {
    remove_leftovers_in(&std::env::temp_dir());
}

fn remove_leftovers_in(parent: &Path) {
    let Ok(own) = Folder::new_in(parent).and_then(|folder| folder._held.metadata()) else { return };
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let Some(folder) = name.strip_suffix(LOCK) else { continue };
        let (folder, lock) = (parent.join(folder), entry.path());
        // Other people's are theirs, and links are nobody's.
        let is_own = entry.metadata().is_ok_and(|data| data.is_file() && data.uid() == own.uid());
        let Ok(held) = File::open(&lock) else { continue };
        if !is_own || held.try_lock().is_err() || !is_at(&held, &lock) {
            continue;
        }
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!("cannot remove {}: {error}", folder.display());
            }
            _ => {
                tracing::info!(folder = %folder.display(), "removed what a killed process left");
                let _ = std::fs::remove_file(&lock);
            }
        }
    }
}

/// Whether an open file is still the one at a path.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |data: std::fs::Metadata| (data.dev(), data.ino());
    let there = std::fs::symlink_metadata(path).map(identity).ok();
    there.is_some() && file.metadata().map(identity).ok() == there
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The folder of a process that was killed.
    fn left(parent: &Path) -> PathBuf {
        let folder = Folder::new_in(parent).unwrap();
        std::fs::write(folder.path().join("upload"), "half").unwrap();
        let (path, lock) = (folder.path.clone(), folder.lock.clone());
        drop(folder);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("upload"), "half").unwrap();
        std::fs::write(lock, "").unwrap();
        path
    }

    #[test]
    fn only_what_nobody_holds_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let held = Folder::new_in(parent.path()).unwrap();
        let left = left(parent.path());
        // Somebody else's, of a name like ours; and a link that leads out.
        let other = parent.path().join("modelyard-other");
        std::fs::create_dir(&other).unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), parent.path().join("modelyard-link")).unwrap();
        let lock = outside.path().join("lock");
        std::fs::write(&lock, "").unwrap();
        std::os::unix::fs::symlink(&lock, parent.path().join("modelyard-link.lock")).unwrap();
        remove_leftovers_in(parent.path());
        assert!(held.path().is_dir() && other.is_dir() && lock.is_file());
        assert!(!left.exists());
        let path = held.path().to_owned();
        drop(held);
        let names = std::fs::read_dir(parent.path()).unwrap().flatten().map(|e| e.file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert!(!path.exists());
        assert_eq!(names, ["modelyard-link", "modelyard-link.lock", "modelyard-other"]);
    }
}
