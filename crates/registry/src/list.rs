//! Long lists, a page at a time.

use serde::{Deserialize, Serialize};
use sqlx::Row;

use crate::database::{record, signed};
use crate::registry::{aliases, known, naming, no_model};
use crate::state::Record;
use crate::version::{self, Model, SUMMARY, Summary};
use crate::{Registry, Result};

/// Part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T, K> {
    /// The entries, in the list's order.
    pub entries: Vec<T>,
    /// What to ask for the rest with: everything after this. `None` if there is no more.
    pub next: Option<K>,
}

impl<T, K> Page<T, K> {
    /// The page that `found` makes, which is one entry longer than the page if there is more.
    fn cut(mut found: Vec<T>, limit: usize, key: impl Fn(&T) -> K) -> Self {
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(key);
        Self { entries: found, next }
    }
}

impl Registry {
    /// At most `limit` models whose names come after this one.
    pub async fn models_after(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Model, String>> {
        let mut models = self.models().await?;
        if let Some(after) = after {
            models.retain(|model| *model.name > *after);
        }
        Ok(Page::cut(models, limit, |model| model.name.clone()))
    }

    /// At most `limit` versions of a model, newest first, whose numbers are below this one.
    pub async fn versions_before(
        &self,
        model: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Summary, u64>> {
        let mut read = self.database.read().await?;
        if known(&mut read, model).await?.is_none() {
            return Err(no_model(model));
        }
        let statement = format!(
            "SELECT {SUMMARY} FROM versions WHERE model = $1 AND number < $2 \
             ORDER BY number DESC LIMIT $3"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(model)
            .bind(before.map_or(Ok(i64::MAX), signed)?)
            .bind(one_more(limit))
            .fetch_all(&mut *read)
            .await?;
        let names = aliases(&mut read, Some(model)).await?.remove(model).unwrap_or_default();
        let mut versions = rows.iter().map(version::summary).collect::<Result<Vec<_>>>()?;
        for version in &mut versions {
            version.aliases = naming(&names, version.number);
        }
        Ok(Page::cut(versions, limit, |version| version.number))
    }

    /// At most `limit` records of a model's history, oldest first, that come after this one.
    pub async fn history_after(
        &self,
        model: &str,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Page<Record, u64>> {
        let mut read = self.database.read().await?;
        if known(&mut read, model).await?.is_none() {
            return Err(no_model(model));
        }
        let statement = "SELECT * FROM history WHERE model = $1 AND sequence > $2 \
                         ORDER BY sequence LIMIT $3";
        let rows = sqlx::query(statement)
            .bind(model)
            .bind(after.map_or(Ok(0), signed)?)
            .bind(one_more(limit))
            .fetch_all(&mut *read)
            .await?;
        let records = rows.iter().map(record).collect::<Result<Vec<_>>>()?;
        Ok(Page::cut(records, limit, |record| record.sequence))
    }

    /// At most `limit` records of a model's history, newest first, that come before this one.
    pub async fn history_before(
        &self,
        model: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Page<Record, u64>> {
        let mut read = self.database.read().await?;
        if known(&mut read, model).await?.is_none() {
            return Err(no_model(model));
        }
        let statement = "SELECT * FROM history WHERE model = $1 AND sequence < $2 \
                         ORDER BY sequence DESC LIMIT $3";
        let rows = sqlx::query(statement)
            .bind(model)
            .bind(before.map_or(Ok(i64::MAX), signed)?)
            .bind(one_more(limit))
            .fetch_all(&mut *read)
            .await?;
        let records = rows.iter().map(record).collect::<Result<Vec<_>>>()?;
        Ok(Page::cut(records, limit, |record| record.sequence))
    }

    /// At most `limit` records of all models that come after this one, oldest first, and the place
    /// of the last record that there is. Without a place to begin after, only that.
    pub async fn news(&self, after: Option<u64>, limit: usize) -> Result<(Vec<Record>, u64)> {
        let latest = self.database.sequence().await?;
        let latest = u64::try_from(latest).unwrap_or_default();
        let Some(after) = after.filter(|after| *after < latest) else {
            return Ok((Vec::new(), latest));
        };
        let mut read = self.database.read().await?;
        let rows =
            sqlx::query("SELECT * FROM history WHERE sequence > $1 ORDER BY sequence LIMIT $2")
                .bind(signed(after)?)
                .bind(one_more(limit))
                .fetch_all(&mut *read)
                .await?;
        let mut records = rows.iter().map(record).collect::<Result<Vec<_>>>()?;
        records.truncate(limit);
        Ok((records, latest))
    }

    /// A model in the list of all, and what it is now.
    pub async fn model(&self, model: &str) -> Result<Model> {
        let mut read = self.database.read().await?;
        let newest = "SELECT versions, published FROM models \
                      JOIN versions ON model = name AND number = versions WHERE name = $1";
        let row = sqlx::query(newest).bind(model).fetch_optional(&mut *read).await?;
        let row = row.ok_or_else(|| no_model(model))?;
        Ok(Model {
            name: model.to_owned(),
            versions: crate::database::unsigned(row.try_get("versions")?)?,
            aliases: aliases(&mut read, Some(model)).await?.remove(model).unwrap_or_default(),
            published: crate::database::timestamp(row.try_get("published")?)?,
        })
    }

    /// What a model is now: its versions' stages, aliases and traffic.
    pub async fn now(&self, model: &str) -> Result<crate::ModelState> {
        let mut read = self.database.read().await?;
        if known(&mut read, model).await?.is_none() {
            return Err(no_model(model));
        }
        crate::registry::state(&mut read, model).await
    }
}

fn one_more(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)
}
