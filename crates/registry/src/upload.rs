//! Storing one blob, whoever else is storing it, and wherever it broke off before.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use model::ErrorCode;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Key;
use sha2::{Digest, Sha256};
use sqlx::Row;

use crate::blobs::{self, Blob};
use crate::database::{signed, unsigned};
use crate::publish::{Source, Wanted};
use crate::{Error, Registry, Result, error};

/// What is read, sent and remembered at once. Stores want at least 5 MiB and at most 10,000 parts,
/// so larger blobs have larger parts.
const PART: u64 = 8 << 20;
const MAX_PARTS: u64 = 5_000;
/// Parts that are sent side by side; as many are in memory.
const AT_ONCE: usize = 4;

/// What the database knows of a blob that is to be stored.
struct Reserved {
    blob: Blob,
    stored: bool,
    upload: Option<String>,
}

impl Registry {
    /// Sees to it that a blob is stored. `progress` hears how many of its bytes are.
    pub(crate) async fn store(
        &self,
        wanted: &Wanted<'_>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        // Another turn is needed if garbage was collected in between, or the object was lost.
        for _ in 0..5 {
            let reserved = self.reserve(wanted).await?;
            let found = self.blobs.size(&reserved.blob).await?;
            if found == Some(wanted.size) && self.is_whole(wanted, &reserved.blob).await? {
                // It was stored before; perhaps by somebody who did not live to say so.
                if reserved.stored || self.settle(&reserved.blob).await? {
                    return Ok(());
                }
                continue;
            }
            if reserved.stored || found.is_some() {
                tracing::warn!(digest = wanted.digest, "a damaged or lost blob is stored anew");
                self.doom(&reserved.blob).await?;
                continue;
            }
            match self.send(wanted, &reserved, progress).await {
                Ok(()) => {}
                // Two may be at it at once, and the other be done first.
                Err(error) => match self.blobs.size(&reserved.blob).await {
                    Ok(Some(size)) if size == wanted.size => {}
                    _ => return Err(error),
                },
            }
            if self.settle(&reserved.blob).await? {
                return Ok(());
            }
        }
        Err(Error::new(
            ErrorCode::Unavailable,
            format!("{} is removed again as soon as it is stored", wanted.digest),
        ))
    }

    /// Whether a blob that is stored has the right bytes. Reading them takes about as long as
    /// storing them would; in return nothing is ever published on top of damage, and damage is
    /// mended by publishing again.
    async fn is_whole(&self, wanted: &Wanted<'_>, blob: &Blob) -> Result<bool> {
        match self.blobs.verify(blob, wanted.size, &wanted.digest).await {
            Ok(()) => Ok(true),
            Err(error) if error.code() == ErrorCode::Internal => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tells garbage collection that a blob will be needed, and which object it is or will be.
    async fn reserve(&self, wanted: &Wanted<'_>) -> Result<Reserved> {
        let mut change = self.database.change().await?;
        let (now, generation) = (change.time(), change.generation());
        let row = sqlx::query(
            "UPDATE blobs SET touched = $1 WHERE digest = $2 AND state <> 'doomed' \
             RETURNING generation, size, state, upload",
        )
        .bind(now)
        .bind(&wanted.digest)
        .fetch_optional(change.connection())
        .await?;
        let reserved = match row {
            Some(row) => {
                let size = unsigned(row.try_get("size")?)?;
                if size != wanted.size {
                    return Err(Error::damaged(format!(
                        "{} is known to have {size} bytes, but has {}",
                        wanted.digest, wanted.size
                    )));
                }
                let generation = row.try_get("generation")?;
                Reserved {
                    blob: Blob { digest: wanted.digest.clone(), generation },
                    stored: row.try_get::<&str, _>("state")? == "stored",
                    upload: row.try_get("upload")?,
                }
            }
            None => {
                sqlx::query(
                    "INSERT INTO blobs (digest, generation, size, state, touched) \
                     VALUES ($1, $2, $3, 'pending', $4)",
                )
                .bind(&wanted.digest)
                .bind(generation)
                .bind(signed(wanted.size)?)
                .bind(now)
                .execute(change.connection())
                .await?;
                let blob = Blob { digest: wanted.digest.clone(), generation };
                Reserved { blob, stored: false, upload: None }
            }
        };
        change.commit().await?;
        Ok(reserved)
    }

    /// Notes that a blob is whole. False if garbage collection was faster.
    async fn settle(&self, blob: &Blob) -> Result<bool> {
        let mut change = self.database.change().await?;
        let time = change.time();
        let done = sqlx::query(
            "UPDATE blobs SET state = 'stored', upload = NULL, touched = $1 \
             WHERE digest = $2 AND generation = $3 AND state <> 'doomed'",
        )
        .bind(time)
        .bind(&blob.digest)
        .bind(blob.generation)
        .execute(change.connection())
        .await?;
        sqlx::query("DELETE FROM parts WHERE digest = $1 AND generation = $2")
            .bind(&blob.digest)
            .bind(blob.generation)
            .execute(change.connection())
            .await?;
        change.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Leaves a lost or damaged object to garbage collection; the next is another generation.
    async fn doom(&self, blob: &Blob) -> Result<()> {
        sqlx::query("UPDATE blobs SET state = 'doomed' WHERE digest = $1 AND generation = $2")
            .bind(&blob.digest)
            .bind(blob.generation)
            .execute(self.database.pool())
            .await?;
        Ok(())
    }

    async fn send(
        &self,
        wanted: &Wanted<'_>,
        reserved: &Reserved,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let blob = &reserved.blob;
        if wanted.size <= PART {
            let bytes = read(wanted.source, 0, wanted.size).await?;
            check(wanted, Sha256::new_with_prefix(&bytes))?;
            return self.blobs.put(blob, bytes).await;
        }
        let Some((store, key)) = self.blobs.parts(blob) else {
            return self.stream(wanted, blob, progress).await;
        };
        let parts = Parts { registry: self, store, key, wanted, blob };
        match parts.send(reserved.upload.clone(), progress).await {
            // The store has given up the upload that we would carry on with.
            Err(error) if reserved.upload.is_some() && error.code() == ErrorCode::NotFound => {
                parts.forget().await?;
                parts.send(None, progress).await
            }
            sent => sent,
        }
    }

    /// To a folder: there is no carrying on, but nothing to wait for either.
    async fn stream(
        &self,
        wanted: &Wanted<'_>,
        blob: &Blob,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let mut upload = self.blobs.stream(blob).await?;
        let sent: Result<()> = async {
            let mut hash = Sha256::new();
            let mut done = 0;
            while done < wanted.size {
                let bytes = read(wanted.source, done, PART.min(wanted.size - done)).await?;
                done += bytes.len() as u64;
                hash.update(&bytes);
                upload.put_part(bytes.into()).await?;
                progress(done);
            }
            check(wanted, hash)?;
            upload.complete().await?;
            Ok(())
        }
        .await;
        if sent.is_err() {
            // What is left behind is removed with the garbage; the error that matters is the first.
            let _ = upload.abort().await;
        }
        sent
    }
}

/// An upload in parts, each of which the database remembers.
struct Parts<'a> {
    registry: &'a Registry,
    store: &'a dyn MultipartStore,
    key: Key,
    wanted: &'a Wanted<'a>,
    blob: &'a Blob,
}

impl Parts<'_> {
    /// Sends what has not arrived yet, and puts the parts together.
    async fn send(
        &self,
        upload: Option<String>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let upload = match upload {
            Some(upload) => upload,
            None => self.begin().await?,
        };
        let arrived = self.arrived().await?;
        let size = self.wanted.size;
        let part_size = PART.max(size.div_ceil(MAX_PARTS));
        let mut parts: BTreeMap<usize, PartId> = BTreeMap::new();
        let mut hash = Sha256::new();
        let (mut read_up_to, mut done, mut next) = (0, 0, 0);
        // They finish in any order, so progress counts the bytes of those that have.
        let mut sending = FuturesUnordered::new();
        loop {
            while sending.len() < AT_ONCE && read_up_to < size {
                let length = part_size.min(size - read_up_to);
                let bytes = read(self.wanted.source, read_up_to, length).await?;
                read_up_to += length;
                hash.update(&bytes);
                let checksum = blobs::digest(Sha256::new_with_prefix(&bytes));
                match arrived.get(&next) {
                    Some((known, content)) if *known == checksum => {
                        parts.insert(next, PartId { content_id: content.clone() });
                        done += length;
                        progress(done);
                    }
                    _ => sending.push(self.send_part(&upload, next, checksum, bytes)),
                }
                next += 1;
            }
            let Some(sent) = sending.next().await else { break };
            let (part, length, content_id) = sent?;
            parts.insert(part, PartId { content_id });
            done += length;
            progress(done);
        }
        check(self.wanted, hash)?;
        let parts = parts.into_values().collect();
        self.store.complete_multipart(&self.key, &upload, parts).await?;
        Ok(())
    }

    /// Sends one part and remembers it; returns which, how long, and what the store calls it.
    async fn send_part(
        &self,
        upload: &String,
        part: usize,
        checksum: String,
        bytes: Bytes,
    ) -> Result<(usize, u64, String)> {
        let length = bytes.len() as u64;
        let sent = self.store.put_part(&self.key, upload, part, bytes.into()).await?;
        self.remember(part, &checksum, &sent.content_id).await?;
        Ok((part, length, sent.content_id))
    }

    /// Begins an upload, or joins the one that somebody else has begun meanwhile.
    async fn begin(&self) -> Result<String> {
        let upload = self.store.create_multipart(&self.key).await?;
        let noted = sqlx::query(
            "UPDATE blobs SET upload = $1 WHERE digest = $2 AND generation = $3 AND upload IS NULL",
        )
        .bind(&upload)
        .bind(&self.blob.digest)
        .bind(self.blob.generation)
        .execute(self.registry.database.pool())
        .await?;
        if noted.rows_affected() == 1 {
            return Ok(upload);
        }
        let other: Option<Option<String>> =
            sqlx::query_scalar("SELECT upload FROM blobs WHERE digest = $1 AND generation = $2")
                .bind(&self.blob.digest)
                .bind(self.blob.generation)
                .fetch_optional(self.registry.database.pool())
                .await?;
        let Some(other) = other.flatten() else { return Ok(upload) };
        // Nobody knows of ours, so nobody would ever remove it.
        let _ = self.store.abort_multipart(&self.key, &upload).await;
        Ok(other)
    }

    async fn arrived(&self) -> Result<BTreeMap<usize, (String, String)>> {
        let rows = sqlx::query(
            "SELECT part, checksum, content FROM parts WHERE digest = $1 AND generation = $2",
        )
        .bind(&self.blob.digest)
        .bind(self.blob.generation)
        .fetch_all(self.registry.database.pool())
        .await?;
        let part = |row: &sqlx::any::AnyRow| {
            let part = unsigned(row.try_get("part")?)? as usize;
            Ok((part, (row.try_get("checksum")?, row.try_get("content")?)))
        };
        rows.iter().map(part).collect()
    }

    /// Notes that a part has arrived, and that the blob is still wanted.
    async fn remember(&self, part: usize, checksum: &str, content: &str) -> Result<()> {
        let pool = self.registry.database.pool();
        sqlx::query(
            "INSERT INTO parts (digest, generation, part, checksum, content) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (digest, generation, part) \
             DO UPDATE SET checksum = excluded.checksum, content = excluded.content",
        )
        .bind(&self.blob.digest)
        .bind(self.blob.generation)
        .bind(signed(part as u64)?)
        .bind(checksum)
        .bind(content)
        .execute(pool)
        .await?;
        sqlx::query("UPDATE blobs SET touched = $1 WHERE digest = $2 AND generation = $3")
            .bind(self.registry.database.now())
            .bind(&self.blob.digest)
            .bind(self.blob.generation)
            .execute(pool)
            .await?;
        Ok(())
    }

    async fn forget(&self) -> Result<()> {
        let mut change = self.registry.database.change().await?;
        for statement in [
            "DELETE FROM parts WHERE digest = $1 AND generation = $2",
            "UPDATE blobs SET upload = NULL WHERE digest = $1 AND generation = $2",
        ] {
            sqlx::query(statement)
                .bind(&self.blob.digest)
                .bind(self.blob.generation)
                .execute(change.connection())
                .await?;
        }
        change.commit().await
    }
}

/// What is sent must be what was measured.
fn check(wanted: &Wanted<'_>, hash: Sha256) -> Result<()> {
    if blobs::digest(hash) == wanted.digest {
        return Ok(());
    }
    Err(changed(wanted.source))
}

fn changed(source: &Source) -> Error {
    let what = match source {
        Source::Path(path) => path.display().to_string(),
        Source::Bytes(_) => "the file".to_owned(),
    };
    Error::refused(format!("{what} changed while it was read; push it again"))
}

/// Exactly `size` bytes from a place in a file.
async fn read(source: &Source, from: u64, size: u64) -> Result<Bytes> {
    let path = match source {
        Source::Bytes(bytes) => {
            let (from, to) = (from as usize, (from + size) as usize);
            return Ok(bytes.slice(from..to));
        }
        Source::Path(path) => path.clone(),
    };
    let source = source.clone();
    let bytes = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; size as usize];
        let read = std::fs::File::open(&path).and_then(|mut file| {
            file.seek(SeekFrom::Start(from))?;
            file.read_exact(&mut bytes)
        });
        match read {
            Ok(()) => Ok(Bytes::from(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(changed(&source)),
            Err(e) => Err(error::file(&path, &e)),
        }
    });
    bytes.await.map_err(|error| Error::damaged(format!("a file could not be read: {error}")))?
}
