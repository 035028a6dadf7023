//! Garbage: deleted versions whose time of grace is over, and bytes that nothing needs.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::Row;

use crate::blobs::Blob;
use crate::database::unsigned;
use crate::registry::{self, By};
use crate::state::{Event, Stage};
use crate::{Registry, Result};

/// How long what could be garbage is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// After a version was deleted: until then it can be restored.
    pub versions: Duration,
    /// After the bytes of an upload that was never finished last arrived. Too short a time costs
    /// an upload that is under way its work, and never a version its bytes.
    pub uploads: Duration,
}

impl Default for Grace {
    /// A week for versions, a day for uploads.
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self { versions: day * 7, uploads: day }
    }
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Versions that are gone for good.
    pub versions: u64,
    /// Objects that nothing needed.
    pub blobs: u64,
    /// Their size.
    pub bytes: u64,
    /// Remains of writers that were killed.
    pub leftovers: u64,
}

impl Registry {
    /// Removes what nothing needs. Safe beside everything else, and when it is killed: what a
    /// version needs, or comes to need meanwhile, is never removed.
    pub async fn collect(&self, grace: Grace, by: &By) -> Result<Collected> {
        let mut collected =
            Collected { versions: self.purge(grace.versions, by).await?, ..Collected::default() };
        self.doom_unneeded(grace.uploads).await?;
        for (blob, size) in self.doomed().await? {
            self.remove(&blob).await?;
            collected.blobs += 1;
            collected.bytes += size;
        }
        for (blob, size) in self.strays().await? {
            self.blobs.remove(&blob).await?;
            collected.blobs += 1;
            collected.bytes += size;
        }
        collected.leftovers = self.blobs.remove_leftovers(grace.uploads)?;
        Ok(collected)
    }

    /// Gives up deleted versions, each in a change of its own so that nobody waits long.
    async fn purge(&self, grace: Duration, by: &By) -> Result<u64> {
        let limit = self.database.ago(grace);
        let rows = sqlx::query(
            "SELECT model, number FROM versions WHERE stage = 'deleted' AND moved <= $1",
        )
        .bind(limit)
        .fetch_all(self.database.pool())
        .await?;
        let mut purged = 0;
        for row in rows {
            let (model, number): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            let mut change = self.database.change().await?;
            let mut state = registry::state(change.connection(), &model).await?;
            let version = unsigned(number)?;
            // It may have been restored since, or purged by somebody else.
            if state.versions.get(&version) != Some(&Stage::Deleted) {
                continue;
            }
            sqlx::query("DELETE FROM files WHERE model = $1 AND number = $2")
                .bind(&model)
                .bind(number)
                .execute(change.connection())
                .await?;
            let (from, to) = (Stage::Deleted, Stage::Purged);
            let event = Event::StageMoved { version, from, to };
            registry::make(&mut change, &model, &mut state, event, by).await?;
            change.commit().await?;
            purged += 1;
        }
        Ok(purged)
    }

    /// Decides in one change which blobs nothing needs. Whoever publishes checks in a change too
    /// that what it needs is not among them.
    async fn doom_unneeded(&self, grace: Duration) -> Result<()> {
        let mut change = self.database.change().await?;
        let limit = self.database.ago(grace);
        sqlx::query(
            "UPDATE blobs SET state = 'doomed' WHERE state <> 'doomed' AND touched <= $1 \
             AND NOT EXISTS (SELECT 1 FROM files WHERE files.digest = blobs.digest)",
        )
        .bind(limit)
        .execute(change.connection())
        .await?;
        change.commit().await
    }

    async fn doomed(&self) -> Result<Vec<(Blob, u64)>> {
        let rows = sqlx::query("SELECT digest, generation, size FROM blobs WHERE state = 'doomed'")
            .fetch_all(self.database.pool())
            .await?;
        let blob = |row: &sqlx::any::AnyRow| {
            let blob =
                Blob { digest: row.try_get("digest")?, generation: row.try_get("generation")? };
            Ok((blob, unsigned(row.try_get("size")?)?))
        };
        rows.iter().map(blob).collect()
    }

    /// Removes a doomed blob: its object first, so that the row still says what to do if we die.
    async fn remove(&self, blob: &Blob) -> Result<()> {
        let upload: Option<Option<String>> =
            sqlx::query_scalar("SELECT upload FROM blobs WHERE digest = $1 AND generation = $2")
                .bind(&blob.digest)
                .bind(blob.generation)
                .fetch_optional(self.database.pool())
                .await?;
        if let (Some(Some(upload)), Some((store, key))) = (upload, self.blobs.parts(blob)) {
            // Stores forget uploads by themselves; that it is gone already is fine.
            let _ = store.abort_multipart(&key, &upload).await;
        }
        self.blobs.remove(blob).await?;
        let mut change = self.database.change().await?;
        for statement in [
            "DELETE FROM parts WHERE digest = $1 AND generation = $2",
            "DELETE FROM blobs WHERE digest = $1 AND generation = $2 AND state = 'doomed'",
        ] {
            sqlx::query(statement)
                .bind(&blob.digest)
                .bind(blob.generation)
                .execute(change.connection())
                .await?;
        }
        change.commit().await
    }

    /// Objects without a row. A row is there before its object, and no generation comes twice, so
    /// an object that was listed before the rows were read and has none will never have one: it
    /// was written by somebody who did not notice that its blob had been given up.
    pub(crate) async fn strays(&self) -> Result<Vec<(Blob, u64)>> {
        let mut listed = self.blobs.list().await?;
        let rows = sqlx::query("SELECT digest, generation FROM blobs")
            .fetch_all(self.database.pool())
            .await?;
        let mut known = std::collections::BTreeSet::new();
        for row in rows {
            known.insert(Blob { digest: row.try_get(0)?, generation: row.try_get(1)? });
        }
        listed.retain(|(blob, _)| !known.contains(blob));
        Ok(listed)
    }
}
