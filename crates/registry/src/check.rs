//! Whether everything that is stored fits together.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sqlx::Row;

use crate::blobs::Blob;
use crate::database::{record, unsigned};
use crate::registry;
use crate::state::{Event, ModelState, Record};
use crate::{Registry, Result};

/// Something that does not fit, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inconsistency(pub String);

impl std::fmt::Display for Inconsistency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Registry {
    /// Compares the rows with the history, and the objects with the rows; `bytes` also reads every
    /// object and compares it with its digest. Garbage is no inconsistency. Meant for a registry
    /// that is not being changed: what changes meanwhile may be reported.
    pub async fn check(&self, bytes: bool) -> Result<Vec<Inconsistency>> {
        let mut found = Vec::new();
        self.check_history(&mut found).await?;
        self.check_blobs(bytes, &mut found).await?;
        Ok(found.into_iter().map(Inconsistency).collect())
    }

    async fn check_history(&self, found: &mut Vec<String>) -> Result<()> {
        let mut read = self.database.read().await?;
        let rows =
            sqlx::query("SELECT * FROM history ORDER BY sequence").fetch_all(&mut *read).await?;
        let records = rows.iter().map(record).collect::<Result<Vec<_>>>()?;
        for (expected, record) in (1..).zip(&records) {
            if record.sequence != expected {
                found.push(format!("record {expected} of the history is missing"));
                break;
            }
        }
        for pair in records.windows(2).filter(|pair| pair[0].time > pair[1].time) {
            found.push(format!("record {} is older than the one before it", pair[1].sequence));
        }
        let last: i64 =
            sqlx::query_scalar("SELECT sequence FROM registry").fetch_one(&mut *read).await?;
        if unsigned(last)? != records.len() as u64 {
            found.push(format!("the history has {} records, not {last}", records.len()));
        }
        let mut by_model: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
        for record in &records {
            by_model.entry(&record.model).or_default().push(record);
        }
        let names: Vec<String> =
            sqlx::query_scalar("SELECT name FROM models").fetch_all(&mut *read).await?;
        for name in names.iter().filter(|name| !by_model.contains_key(name.as_str())) {
            found.push(format!("\"{name}\" has no history"));
        }
        for (model, records) in by_model {
            let rows = registry::state(&mut read, model).await?;
            match ModelState::replay(records.iter().copied()) {
                Ok(state) if state == rows => {}
                Ok(state) => found
                    .push(format!("\"{model}\" is {rows:?}, but its history adds up to {state:?}")),
                Err(error) => found.push(error.to_string()),
            }
            let count = registry::known(&mut read, model).await?;
            if count != Some(rows.versions.len() as i64) {
                let versions = rows.versions.len();
                found.push(format!("\"{model}\" has {versions} versions, but counts {count:?}"));
            }
            let digests: BTreeMap<i64, String> =
                sqlx::query("SELECT number, digest FROM versions WHERE model = $1")
                    .bind(model)
                    .fetch_all(&mut *read)
                    .await?
                    .iter()
                    .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                    .collect::<Result<_>>()?;
            for record in records {
                if let Event::Published { version, digest } = &record.event
                    && digests.get(&(*version as i64)) != Some(digest)
                {
                    found.push(format!("{model}:{version} was published with other bytes"));
                }
            }
        }
        Ok(())
    }

    async fn check_blobs(&self, bytes: bool, found: &mut Vec<String>) -> Result<()> {
        let mut read = self.database.read().await?;
        let without = sqlx::query(
            "SELECT model, number FROM versions WHERE stage <> 'purged' AND NOT EXISTS \
             (SELECT 1 FROM files WHERE files.model = versions.model \
              AND files.number = versions.number)",
        );
        for row in without.fetch_all(&mut *read).await? {
            let (model, number): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            found.push(format!("{model}:{number} has no files"));
        }
        let needed = sqlx::query(
            "SELECT files.model, files.number, files.name, files.digest, files.size, \
             blobs.generation, blobs.size AS stored FROM files LEFT JOIN blobs \
             ON blobs.digest = files.digest AND blobs.state = 'stored'",
        )
        .fetch_all(&mut *read)
        .await?;
        drop(read);
        let objects: BTreeMap<Blob, u64> = self.blobs.list().await?.into_iter().collect();
        let mut seen = BTreeSet::new();
        for row in needed {
            let (model, number): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            let name: String = row.try_get("name")?;
            let what = format!("\"{name}\" of {model}:{number}");
            let Some(generation) = row.try_get::<Option<i64>, _>("generation")? else {
                found.push(format!("{what} is not stored"));
                continue;
            };
            let blob = Blob { digest: row.try_get("digest")?, generation };
            let size = unsigned(row.try_get("size")?)?;
            if row.try_get::<i64, _>("stored")? != size as i64 {
                found.push(format!("{what} has another size than its blob"));
            }
            match objects.get(&blob) {
                None => found.push(format!("{what} is gone from the object store")),
                Some(stored) if *stored != size => {
                    found
                        .push(format!("{what} has {stored} bytes in the object store, not {size}"));
                }
                Some(_) if bytes && seen.insert(blob.clone()) => {
                    if let Err(error) = self.blobs.verify(&blob, size, &what).await {
                        found.push(error.to_string());
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}
