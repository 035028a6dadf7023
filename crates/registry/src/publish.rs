//! Publishing: files are stored first, then one transaction makes the version visible.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use model::Manifest;
use sha2::{Digest, Sha256};
use sqlx::Row;

use crate::database::{Change, signed};
use crate::names::{Reference, Selector, check_alias, check_file, check_model};
use crate::registry::{self, By};
use crate::state::Event;
use crate::version::{Description, File, FileKind, Lineage, Version};
use crate::{Error, Registry, Result, blobs, error};

/// Where a file's bytes are before they are in the registry.
#[derive(Clone, Debug)]
pub enum Source {
    /// In a file of this machine, which must not change while it is read.
    Path(PathBuf),
    /// In memory.
    Bytes(Bytes),
}

/// A version that is to be published.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The name of the model.
    pub model: String,
    /// What `import` found in the package.
    pub manifest: Manifest,
    /// The file to open.
    pub main: String,
    /// The files by name: relative paths with `/`.
    pub files: BTreeMap<String, (FileKind, Source)>,
    /// Where it comes from.
    pub lineage: Lineage,
    /// What is to be known besides.
    pub metadata: BTreeMap<String, String>,
    /// An alias that is to name the version from the moment that it is there.
    pub alias: Option<String>,
}

impl Draft {
    /// A version of one file; the rest can be set.
    pub fn new(
        model: impl Into<String>,
        manifest: Manifest,
        main: impl Into<String>,
        source: Source,
    ) -> Self {
        let main = main.into();
        Self {
            model: model.into(),
            manifest,
            files: [(main.clone(), (FileKind::Model, source))].into(),
            main,
            lineage: Lineage::default(),
            metadata: BTreeMap::new(),
            alias: None,
        }
    }
}

/// How far the storing of a version's files has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are stored, among them those that were stored before.
    pub done: u64,
    /// Bytes of all files.
    pub total: u64,
}

/// A blob that is to be stored.
pub(crate) struct Wanted<'a> {
    pub digest: String,
    pub size: u64,
    pub source: &'a Source,
}

impl Registry {
    /// Publishes a version: its files are stored, each once however often it occurs, and only then
    /// is the version there, with the next number. What breaks before that leaves nothing visible,
    /// and is carried on with when the same files are published again.
    pub async fn publish(
        &self,
        draft: &Draft,
        by: &By,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Version> {
        check(draft)?;
        let mut files = Vec::new();
        for (name, (kind, source)) in &draft.files {
            let (digest, size) = measure(source.clone()).await?;
            files.push(File { name: name.clone(), kind: *kind, digest, size });
        }
        check_digest(draft, &files)?;
        let wanted = draft.files.values().zip(&files).map(|((_, source), file)| {
            (file.digest.clone(), Wanted { digest: file.digest.clone(), size: file.size, source })
        });
        let wanted: BTreeMap<String, Wanted<'_>> = wanted.collect();
        let total = wanted.values().map(|wanted| wanted.size).sum();
        // Garbage is collected meanwhile, perhaps by a clock far ahead: what it took is stored again.
        for _ in 0..5 {
            let mut before = 0;
            for blob in wanted.values() {
                let report = |done| progress(Progress { done: before + done, total });
                self.store(blob, &report).await?;
                before += blob.size;
                progress(Progress { done: before, total });
            }
            let mut change = self.database.change().await?;
            if !all_stored(&mut change, wanted.keys()).await? {
                continue;
            }
            let number = insert(&mut change, draft, &files, by).await?;
            change.commit().await?;
            let version = Selector::Number(number);
            return self.resolve(&Reference { model: draft.model.clone(), version }).await;
        }
        Err(Error::new(
            model::ErrorCode::Unavailable,
            "the files are removed as garbage as soon as they are stored; are the clocks of all \
             machines right?",
        ))
    }
}

fn check(draft: &Draft) -> Result<()> {
    check_model(&draft.model)?;
    if let Some(alias) = &draft.alias {
        check_alias(alias)?;
    }
    for name in draft.files.keys() {
        check_file(name)?;
    }
    match draft.files.get(&draft.main) {
        Some((FileKind::Model, _)) => Ok(()),
        _ => Err(Error::invalid(format!(
            "the file to open, \"{}\", is not among the model's files",
            draft.main
        ))),
    }
}

/// The package of one file has the digest of that file: if not, it is another than was checked.
fn check_digest(draft: &Draft, files: &[File]) -> Result<()> {
    let mut model = files.iter().filter(|file| file.kind == FileKind::Model);
    let (Some(only), None) = (model.next(), model.next()) else { return Ok(()) };
    if only.digest == draft.manifest.digest {
        return Ok(());
    }
    Err(Error::refused(format!(
        "\"{}\" has changed since it was checked: its digest was {}, and is {}; push it again",
        only.name, draft.manifest.digest, only.digest
    )))
}

/// The digest and the size of a file.
async fn measure(source: Source) -> Result<(String, u64)> {
    let measured = tokio::task::spawn_blocking(move || match source {
        Source::Bytes(bytes) => {
            Ok((blobs::digest(Sha256::new_with_prefix(&bytes)), bytes.len() as u64))
        }
        Source::Path(path) => {
            let failed = |e: std::io::Error| error::file(&path, &e);
            let mut file = std::fs::File::open(&path).map_err(failed)?;
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 1 << 20];
            let mut size = 0;
            loop {
                let read = file.read(&mut buffer).map_err(failed)?;
                if read == 0 {
                    return Ok((blobs::digest(hash), size));
                }
                hash.update(&buffer[..read]);
                size += read as u64;
            }
        }
    });
    measured.await.map_err(|error| Error::damaged(format!("a file could not be read: {error}")))?
}

/// Whether all blobs are stored, seen within a change: garbage is collected in another.
async fn all_stored(
    change: &mut Change<'_>,
    digests: impl Iterator<Item = &String>,
) -> Result<bool> {
    for digest in digests {
        let stored = sqlx::query("SELECT 1 FROM blobs WHERE digest = $1 AND state = 'stored'")
            .bind(digest)
            .fetch_optional(change.connection())
            .await?;
        if stored.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the rows of a version and returns its number.
async fn insert(change: &mut Change<'_>, draft: &Draft, files: &[File], by: &By) -> Result<u64> {
    let model = &*draft.model;
    let count = "INSERT INTO models (name, versions) VALUES ($1, 1) \
                 ON CONFLICT (name) DO UPDATE SET versions = models.versions + 1 \
                 RETURNING versions";
    let row = sqlx::query(count).bind(model).fetch_one(change.connection()).await?;
    let row_number: i64 = row.try_get(0)?;
    let number = crate::database::unsigned(row_number)?;
    let mut state = registry::state(change.connection(), model).await?;
    if let Some(parent) = draft.lineage.parent
        && !state.versions.contains_key(&parent)
    {
        return Err(Error::not_found(format!(
            "the parent, version {parent} of \"{model}\", does not exist"
        )));
    }
    let description = serde_json::to_string(&Description {
        manifest: draft.manifest.clone(),
        main: draft.main.clone(),
        lineage: draft.lineage.clone(),
        metadata: draft.metadata.clone(),
    });
    let time = change.time();
    sqlx::query(
        "INSERT INTO versions \
         (model, number, stage, moved, published, who, digest, size, description) \
         VALUES ($1, $2, 'active', $3, $3, $4, $5, $6, $7)",
    )
    .bind(model)
    .bind(row_number)
    .bind(time)
    .bind(&by.who)
    .bind(&draft.manifest.digest)
    .bind(signed(draft.manifest.size)?)
    .bind(description.map_err(|error| Error::damaged(error.to_string()))?)
    .execute(change.connection())
    .await?;
    for file in files {
        sqlx::query(
            "INSERT INTO files (model, number, name, kind, digest, size) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(model)
        .bind(row_number)
        .bind(&file.name)
        .bind(file.kind.as_str())
        .bind(&file.digest)
        .bind(signed(file.size)?)
        .execute(change.connection())
        .await?;
    }
    let event = Event::Published { version: number, digest: draft.manifest.digest.clone() };
    registry::make(change, model, &mut state, event, by).await?;
    if let Some(alias) = &draft.alias {
        let from = state.aliases.get(alias).copied();
        let event = Event::AliasMoved { alias: alias.clone(), from, to: Some(number) };
        registry::make(change, model, &mut state, event, by).await?;
    }
    Ok(number)
}
