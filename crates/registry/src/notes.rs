//! What is said about models and versions beside what they are: that there will be one, and notes
//! that can be changed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::ErrorCode;
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::database::{self, signed, unsigned};
use crate::names::check_model;
use crate::registry::{self, By, aliases, known, naming, no_model, version_row};
use crate::state::{Event, Record, Stage};
use crate::version::{self, SUMMARY, Summary};
use crate::{Error, Registry, Result};

/// A version with what people say of it, and without what is in its files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// What lists show of it.
    #[serde(flatten)]
    pub summary: Summary,
    /// When it came to its stage.
    pub moved: Timestamp,
    /// What whoever pushed it wants to be known; never changes.
    pub metadata: BTreeMap<String, String>,
    /// What was written of it since.
    pub notes: BTreeMap<String, String>,
}

impl Described {
    /// Whether it has not been deleted.
    pub fn is_there(&self) -> bool {
        matches!(self.summary.stage, Stage::Active | Stage::Archived)
    }
}

/// A model with what people say of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Whether somebody said that there will be versions of it.
    pub announced: bool,
    /// The newest version that has not been deleted, if there is one.
    pub newest: Option<u64>,
    /// What each alias names.
    pub aliases: BTreeMap<String, u64>,
    /// What was written of it.
    pub notes: BTreeMap<String, String>,
    /// When it was first heard of.
    pub created: Timestamp,
    /// When anything about it last changed.
    pub changed: Timestamp,
}

impl Entry {
    /// Whether it has a version that is not deleted, or is announced.
    pub fn is_there(&self) -> bool {
        self.announced || self.newest.is_some()
    }
}

impl Registry {
    /// Says that there will be versions of a model, or that there will not: a name that has no
    /// version yet. Refused where there is one.
    pub async fn announce(&self, model: &str, announced: bool, by: &By) -> Result<Record> {
        check_model(model)?;
        let mut change = self.database.change().await?;
        sqlx::query("INSERT INTO models (name, versions) VALUES ($1, 0) ON CONFLICT DO NOTHING")
            .bind(model)
            .execute(change.connection())
            .await?;
        let mut state = registry::state(change.connection(), model).await?;
        if announced && state.is_there() {
            let message = format!("there is a model \"{model}\" already");
            return Err(Error::new(ErrorCode::AlreadyExists, message));
        }
        let event = Event::Announced { announced };
        let record = registry::make(&mut change, model, &mut state, event, by).await?;
        change.commit().await?;
        Ok(record)
    }

    /// Writes a note about a model, or about a version of it; without a value takes it away.
    pub async fn note(
        &self,
        model: &str,
        version: Option<u64>,
        key: &str,
        value: Option<String>,
        by: &By,
    ) -> Result<Record> {
        check_model(model)?;
        let mut change = self.database.change().await?;
        if known(change.connection(), model).await?.is_none() {
            return Err(no_model(model));
        }
        let mut state = registry::state(change.connection(), model).await?;
        let event = Event::Noted { version, key: key.to_owned(), value };
        let record = registry::make(&mut change, model, &mut state, event, by).await?;
        change.commit().await?;
        Ok(record)
    }

    /// The versions of one model, or of all, with what people say of them.
    pub async fn describe(&self, model: Option<&str>) -> Result<Vec<Described>> {
        let mut read = self.database.read().await?;
        let statement = format!("SELECT {SUMMARY}, moved, description FROM versions");
        let rows = match model {
            Some(model) => {
                sqlx::query(sqlx::AssertSqlSafe(statement + " WHERE model = $1")).bind(model)
            }
            None => sqlx::query(sqlx::AssertSqlSafe(statement)),
        };
        let rows = rows.fetch_all(&mut *read).await?;
        let aliases = aliases(&mut read, model).await?;
        let mut notes = notes(&mut read, model).await?;
        let described = rows.iter().map(|row| {
            let mut described = described(row)?;
            let summary = &mut described.summary;
            if let Some(aliases) = aliases.get(&summary.model) {
                summary.aliases = naming(aliases, summary.number);
            }
            let notes = notes.get_mut(&summary.model);
            described.notes =
                notes.and_then(|notes| notes.remove(&summary.number)).unwrap_or_default();
            Ok(described)
        });
        described.collect()
    }

    /// One version with what people say of it.
    pub async fn describe_version(&self, model: &str, number: u64) -> Result<Described> {
        let mut read = self.database.read().await?;
        let row = version_row(&mut read, model, number).await?;
        let mut found = described(&row)?;
        let aliases = aliases(&mut read, Some(model)).await?.remove(model).unwrap_or_default();
        found.summary.aliases = naming(&aliases, number);
        let notes = notes(&mut read, Some(model)).await?.remove(model);
        found.notes = notes.and_then(|mut notes| notes.remove(&number)).unwrap_or_default();
        Ok(found)
    }

    /// One model, or all, with what people say of them, by name. Empty if there is none of the name.
    pub async fn catalogue(&self, model: Option<&str>) -> Result<Vec<Entry>> {
        let mut read = self.database.read().await?;
        let statement = "SELECT name, announced, MIN(time) AS created, MAX(time) AS changed, \
             (SELECT MAX(number) FROM versions WHERE versions.model = name \
              AND stage IN ('active', 'archived')) AS newest \
             FROM models JOIN history ON history.model = name";
        let group = "GROUP BY name, announced";
        let one = format!("{statement} WHERE name = $1 {group}");
        let rows = match model {
            Some(model) => sqlx::query(sqlx::AssertSqlSafe(one)).bind(model),
            None => sqlx::query(sqlx::AssertSqlSafe(format!("{statement} {group}"))),
        };
        let rows = rows.fetch_all(&mut *read).await?;
        let mut aliases = aliases(&mut read, model).await?;
        let mut notes = notes(&mut read, model).await?;
        let entry = |row: &AnyRow| {
            let name: String = row.try_get("name")?;
            let newest = row.try_get::<Option<i64>, _>("newest")?.map(unsigned).transpose()?;
            Ok(Entry {
                announced: row.try_get::<i64, _>("announced")? != 0,
                newest,
                aliases: aliases.remove(&name).unwrap_or_default(),
                notes: notes.get_mut(&name).and_then(|n| n.remove(&0)).unwrap_or_default(),
                created: database::timestamp(row.try_get("created")?)?,
                changed: database::timestamp(row.try_get("changed")?)?,
                name,
            })
        };
        let mut entries = rows.iter().map(entry).collect::<Result<Vec<_>>>()?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }
}

fn described(row: &AnyRow) -> Result<Described> {
    let summary = version::summary(row)?;
    let text: &str = row.try_get("description")?;
    let description: Known = serde_json::from_str(text).map_err(|error| {
        Error::damaged(format!("the description of {}:{}: {error}", summary.model, summary.number))
    })?;
    Ok(Described {
        moved: database::timestamp(row.try_get("moved")?)?,
        metadata: description.metadata,
        notes: BTreeMap::new(),
        summary,
    })
}

/// The part of a description that is of use here: a list has no time for the rest.
#[derive(Deserialize)]
struct Known {
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// The notes of one model, or of all, by version; 0 is the model itself.
pub(crate) type Notes = BTreeMap<u64, BTreeMap<String, String>>;

pub(crate) async fn notes(
    connection: &mut AnyConnection,
    model: Option<&str>,
) -> Result<BTreeMap<String, Notes>> {
    let rows = match model {
        Some(model) => sqlx::query("SELECT * FROM notes WHERE model = $1").bind(model),
        None => sqlx::query("SELECT * FROM notes"),
    };
    let mut all: BTreeMap<String, Notes> = BTreeMap::new();
    for row in rows.fetch_all(connection).await? {
        let number = unsigned(row.try_get("number")?)?;
        let notes = all.entry(row.try_get("model")?).or_default().entry(number).or_default();
        notes.insert(row.try_get("key")?, row.try_get("value")?);
    }
    Ok(all)
}

/// Brings the rows to what a note, or an announcement, says.
pub(crate) async fn write(
    connection: &mut AnyConnection,
    model: &str,
    event: &Event,
) -> Result<()> {
    match event {
        Event::Announced { announced } => {
            sqlx::query("UPDATE models SET announced = $1 WHERE name = $2")
                .bind(i64::from(*announced))
                .bind(model)
                .execute(connection)
                .await?;
        }
        Event::Noted { version, key, value } => {
            let number = signed(version.unwrap_or(0))?;
            sqlx::query("DELETE FROM notes WHERE model = $1 AND number = $2 AND key = $3")
                .bind(model)
                .bind(number)
                .bind(key)
                .execute(&mut *connection)
                .await?;
            if let Some(value) = value {
                sqlx::query(
                    "INSERT INTO notes (model, number, key, value) VALUES ($1, $2, $3, $4)",
                )
                .bind(model)
                .bind(number)
                .bind(key)
                .bind(value)
                .execute(connection)
                .await?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether announced, as the rows say.
pub(crate) async fn announced(connection: &mut AnyConnection, model: &str) -> Result<bool> {
    let announced = sqlx::query_scalar::<_, i64>("SELECT announced FROM models WHERE name = $1")
        .bind(model)
        .fetch_optional(connection)
        .await?;
    Ok(announced.is_some_and(|announced| announced != 0))
}
