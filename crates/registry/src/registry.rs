//! The door: what can be asked of a registry, and what can be changed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use model::{Assigned, Assignments, InstanceSettings};
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::blobs::{Blob, Blobs, Reader};
use crate::database::{Change, Database, signed, unsigned};
use crate::names::{CHAMPION, Reference, Selector, check_alias, check_model};
use crate::state::{Event, Former, ModelState, Record, Share, Stage};
use crate::version::{self, Description, File, Model, SUMMARY, Summary, Version};
use crate::{Clock, Error, Location, Result, database, notes, rollouts};

/// Who changes something, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct By {
    /// A person or a program.
    pub who: String,
    /// In words; may be empty.
    pub reason: String,
    /// The figures that it rests on.
    pub evidence: Option<serde_json::Value>,
}

impl By {
    /// Somebody who gives no reason.
    pub fn new(who: impl Into<String>) -> Self {
        Self { who: who.into(), ..Self::default() }
    }

    /// The same with a reason.
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// The same with figures.
    pub fn on_evidence(mut self, evidence: serde_json::Value) -> Self {
        self.evidence = Some(evidence);
        self
    }
}

/// What an alias must name for a change of it to be made: who decided by what they saw is told
/// when it is no longer so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it names.
    Anything,
    /// It must not exist.
    Nothing,
    /// It must name this version.
    Version(u64),
}

/// A registry of models. Cheap to share behind an `Arc`; many of them, on many machines, may have
/// the same store and database.
pub struct Registry {
    pub(crate) blobs: Blobs,
    pub(crate) database: Database,
    pub(crate) waiting: rollouts::Waiting,
}

impl Registry {
    /// Opens the registry at a location, and makes a new one where there is none.
    ///
    /// The database is a `postgres://` URL or the path of a SQLite file; without one it is
    /// `registry.db` in the location's folder. Fails if the database is a newer program's, or that
    /// of other blobs.
    pub async fn open(location: &Location, database: Option<&str>, clock: Clock) -> Result<Self> {
        Self::open_or_make(location, database, clock, true).await
    }

    /// Opens the registry at a location like [`Self::open`], but makes nothing: a folder or a SQLite
    /// file that is not there is away, an error.
    pub async fn open_existing(
        location: &Location,
        database: Option<&str>,
        clock: Clock,
    ) -> Result<Self> {
        Self::open_or_make(location, database, clock, false).await
    }

    async fn open_or_make(
        location: &Location,
        database: Option<&str>,
        clock: Clock,
        make: bool,
    ) -> Result<Self> {
        let beside = location.folder().map(|folder| folder.join("registry.db"));
        let name = match (database, &beside) {
            (Some(name), _) => name,
            (None, Some(path)) => path.to_str().ok_or_else(|| {
                Error::invalid(format!("{}: the path must be UTF-8", path.display()))
            })?,
            (None, None) => {
                return Err(Error::invalid(format!(
                    "{location} holds the blobs alone; name the database for the rest with \
                     --database: postgres://USER@HOST/NAME, or the path of a SQLite file"
                )));
            }
        };
        let blobs = Blobs::open(location, make)?;
        let database = Database::open(name, clock, make).await?;
        blobs.belong_to(&database.identity().await?).await?;
        Ok(Self { blobs, database, waiting: rollouts::Waiting::default() })
    }

    /// Where it takes the time from.
    pub fn clock(&self) -> &Clock {
        self.database.clock()
    }

    /// What tells this registry from every other, wherever it is moved to.
    pub async fn identity(&self) -> Result<String> {
        self.database.identity().await
    }

    /// Every model, by name.
    pub async fn models(&self) -> Result<Vec<Model>> {
        let mut read = self.database.read().await?;
        let newest = "SELECT name, versions, published FROM models \
                      JOIN versions ON model = name AND number = versions";
        let rows = sqlx::query(newest).fetch_all(&mut *read).await?;
        let mut aliases = aliases(&mut read, None).await?;
        let mut models = Vec::with_capacity(rows.len());
        for row in rows {
            let name: String = row.try_get("name")?;
            models.push(Model {
                versions: unsigned(row.try_get("versions")?)?,
                aliases: aliases.remove(&name).unwrap_or_default(),
                published: database::timestamp(row.try_get("published")?)?,
                name,
            });
        }
        // The databases sort names each in its own way.
        models.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// Every version of a model that was ever published, newest first.
    pub async fn versions(&self, model: &str) -> Result<Vec<Summary>> {
        let mut read = self.database.read().await?;
        let statement = format!("SELECT {SUMMARY} FROM versions WHERE model = $1 ORDER BY number");
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(statement)).bind(model).fetch_all(&mut *read).await?;
        if rows.is_empty() {
            return Err(no_model(model));
        }
        let aliases = aliases(&mut read, Some(model)).await?.remove(model).unwrap_or_default();
        let mut versions = rows.iter().map(version::summary).collect::<Result<Vec<_>>>()?;
        versions.reverse();
        for version in &mut versions {
            version.aliases = naming(&aliases, version.number);
        }
        Ok(versions)
    }

    /// The version that a reference means now.
    pub async fn resolve(&self, reference: &Reference) -> Result<Version> {
        let mut read = self.database.read().await?;
        let model = &reference.model;
        let aliases = aliases(&mut read, Some(model)).await?.remove(model).unwrap_or_default();
        let number = match &reference.version {
            Selector::Number(number) => *number,
            Selector::Alias(alias) => match aliases.get(alias) {
                Some(number) => *number,
                None => return Err(self.no_alias(&mut read, model, alias).await?),
            },
        };
        let row = version_row(&mut read, model, number).await?;
        whole(&row, files(&mut read, model, number).await?, &aliases)
    }

    /// What happened to a model, oldest first.
    pub async fn history(&self, model: &str) -> Result<Vec<Record>> {
        let rows = sqlx::query("SELECT * FROM history WHERE model = $1 ORDER BY sequence")
            .bind(model)
            .fetch_all(self.database.pool())
            .await?;
        if rows.is_empty() {
            return Err(no_model(model));
        }
        rows.iter().map(database::record).collect()
    }

    /// What a model was at a time: which versions it had, what its aliases named, who got which
    /// share of the traffic. A change counts from its own moment on.
    pub async fn at(&self, model: &str, time: Timestamp) -> Result<ModelState> {
        let history = self.history(model).await?;
        ModelState::replay(history.iter().filter(|record| record.time <= time))
    }

    /// What every model is assigned now. A champion's predecessor stays assigned for `keep_warm`.
    pub async fn assignments(&self, keep_warm: Duration) -> Result<Assignments> {
        // Never before 1970, however long: older times cannot be told.
        let warm_since = database::timestamp(self.database.ago(keep_warm).max(0))?;
        let mut read = self.database.read().await?;
        let mut states: BTreeMap<String, ModelState> = BTreeMap::new();
        for (model, aliases) in aliases(&mut read, None).await? {
            states.entry(model).or_default().aliases = aliases;
        }
        for (model, shares) in traffic(&mut read, None).await? {
            states.entry(model).or_default().traffic = shares;
        }
        for (model, former) in formers(&mut read, None).await? {
            states.entry(model).or_default().former = Some(former);
        }
        let assigned = |model: &str, share: Share| Assigned {
            version: share.version.to_string(),
            source: format!("{model}:{}", share.version),
            share: share.share,
            shadow: share.shadow,
            pinned: share.pinned,
            settings: InstanceSettings::default(),
            // A number is never given to other bytes, so nothing is ever loaded twice.
            generation: 0,
        };
        let models = states.into_iter().map(|(model, state)| {
            let shares = state.assigned(warm_since);
            let assigned = shares.into_iter().map(|share| assigned(&model, share)).collect();
            (model, assigned)
        });
        Ok(Assignments { models: models.collect() })
    }

    /// Makes an alias name another version, or none. Moving `champion` promotes a version, or rolls
    /// it back, and ends an explicit split of the traffic.
    pub async fn set_alias(
        &self,
        model: &str,
        alias: &str,
        to: Option<u64>,
        expected: Expected,
        by: &By,
    ) -> Result<Record> {
        check_alias(alias)?;
        self.edit(model, by, |state| {
            let now = state.aliases.get(alias).copied();
            let from = match expected {
                Expected::Anything => now,
                Expected::Nothing => None,
                Expected::Version(version) => Some(version),
            };
            if now.is_none() && from.is_none() && to.is_none() {
                return Err(Error::not_found(format!("\"{model}\" has no alias \"{alias}\"")));
            }
            Ok(Event::AliasMoved { alias: alias.to_owned(), from, to })
        })
        .await
    }

    /// Splits a model's traffic among versions, or with no shares gives it back to the champion.
    /// `expected` is the split that the caller saw, if it matters.
    pub async fn split_traffic(
        &self,
        model: &str,
        to: Vec<Share>,
        expected: Option<Vec<Share>>,
        by: &By,
    ) -> Result<Record> {
        self.edit(model, by, |state| {
            let from = expected.unwrap_or_else(|| state.traffic.clone());
            Ok(Event::TrafficSplit { from, to })
        })
        .await
    }

    /// Puts a version aside: it is kept whole, but can get neither alias nor traffic. Refused while
    /// it has either.
    pub async fn archive(&self, model: &str, version: u64, by: &By) -> Result<Record> {
        self.move_stage(model, version, Stage::Archived, by).await
    }

    /// Deletes a version, which can be undone with [`Self::restore`] until its time of grace is
    /// over and garbage is collected. Refused while it has an alias or traffic.
    pub async fn delete(&self, model: &str, version: u64, by: &By) -> Result<Record> {
        self.move_stage(model, version, Stage::Deleted, by).await
    }

    /// Makes an archived or deleted version active again.
    pub async fn restore(&self, model: &str, version: u64, by: &By) -> Result<Record> {
        self.move_stage(model, version, Stage::Active, by).await
    }

    /// Copies one file of a version to a path, where it is whole or not at all. Its digest has
    /// been checked.
    pub async fn copy(&self, version: &Version, file: &File, to: &std::path::Path) -> Result<()> {
        let what = place(version, file);
        let blob = self.blob(file).await.map_err(|error| error.at(&what))?;
        self.blobs.copy(&blob, file.size, to, &what).await
    }

    /// Copies every file of a version into a folder, and returns the path of the one to open. What
    /// [`Self::copy`] says holds for each.
    pub async fn fetch(&self, version: &Version, folder: &std::path::Path) -> Result<PathBuf> {
        if version.files.is_empty() {
            return Err(Error::not_found(format!(
                "{}:{} was deleted, and its files are gone",
                version.model, version.number
            )));
        }
        for file in &version.files {
            self.copy(version, file, &folder.join(&file.name)).await?;
        }
        Ok(folder.join(&version.main))
    }

    /// Begins to read one file of a version, piece by piece.
    pub async fn open_file(&self, version: &Version, file: &File) -> Result<Reader> {
        let what = place(version, file);
        let blob = self.blob(file).await.map_err(|error| error.at(&what))?;
        self.blobs.open_blob(&blob, file.size, &what).await
    }

    /// The bytes of one file of a version; their digest has been checked.
    pub async fn read(&self, version: &Version, file: &File) -> Result<bytes::Bytes> {
        let what = place(version, file);
        let blob = self.blob(file).await.map_err(|error| error.at(&what))?;
        self.blobs.read(&blob, file.size, &what).await
    }

    /// The object that has a file's bytes now.
    pub(crate) async fn blob(&self, file: &File) -> Result<Blob> {
        let statement = "SELECT generation FROM blobs WHERE digest = $1 AND state = 'stored'";
        let generation = sqlx::query_scalar(statement)
            .bind(&file.digest)
            .fetch_optional(self.database.pool())
            .await?;
        match generation {
            Some(generation) => Ok(Blob { digest: file.digest.clone(), generation }),
            None => Err(Error::not_found("its bytes are no longer stored")),
        }
    }

    async fn move_stage(&self, model: &str, version: u64, to: Stage, by: &By) -> Result<Record> {
        self.edit(model, by, |state| {
            let from = state.versions.get(&version).copied().unwrap_or(Stage::Active);
            Ok(Event::StageMoved { version, from, to })
        })
        .await
    }

    /// One change of one model: what is to happen is decided on its state, within the transaction.
    pub(crate) async fn edit(
        &self,
        model: &str,
        by: &By,
        decide: impl FnOnce(&ModelState) -> Result<Event>,
    ) -> Result<Record> {
        let mut change = self.database.change().await?;
        let record = self.make(&mut change, model, by, decide).await?;
        change.commit().await?;
        Ok(record)
    }

    /// The same as a part of a change.
    pub(crate) async fn make(
        &self,
        change: &mut Change<'_>,
        model: &str,
        by: &By,
        decide: impl FnOnce(&ModelState) -> Result<Event>,
    ) -> Result<Record> {
        check_model(model)?;
        let mut state = state(change.connection(), model).await?;
        if state.versions.is_empty() {
            return Err(no_model(model));
        }
        let event = decide(&state)?;
        make(change, model, &mut state, event, by).await
    }

    async fn no_alias(&self, read: &mut AnyConnection, model: &str, alias: &str) -> Result<Error> {
        Ok(match known(read, model).await? {
            None => no_model(model),
            Some(_) => Error::not_found(format!(
                "\"{model}\" has no alias \"{alias}\"; name a version: {model}:NUMBER, or set the \
                 alias first"
            )),
        })
    }
}

/// Applies an event to a model's state, its rows and the history alike, or says why it is not
/// allowed.
pub(crate) async fn make(
    change: &mut Change<'_>,
    model: &str,
    state: &mut ModelState,
    event: Event,
    by: &By,
) -> Result<Record> {
    let time = database::timestamp(change.time())?;
    state.apply(&event, time).map_err(|error| error.at(format_args!("\"{model}\"")))?;
    write(change, model, state, &event).await?;
    change.record(model, event, by).await
}

/// Brings the rows to what the state has become by an event.
async fn write(
    change: &mut Change<'_>,
    model: &str,
    state: &ModelState,
    event: &Event,
) -> Result<()> {
    let time = change.time();
    let connection = change.connection();
    match event {
        // Its rows are written by whoever publishes it.
        Event::Published { .. } => {}
        Event::AliasMoved { alias, to, .. } => {
            sqlx::query("DELETE FROM aliases WHERE model = $1 AND alias = $2")
                .bind(model)
                .bind(alias)
                .execute(&mut *connection)
                .await?;
            if let Some(version) = to {
                sqlx::query("INSERT INTO aliases (model, alias, number) VALUES ($1, $2, $3)")
                    .bind(model)
                    .bind(alias)
                    .bind(signed(*version)?)
                    .execute(&mut *connection)
                    .await?;
            }
            if alias == CHAMPION {
                write_reign(connection, model, state).await?;
            }
        }
        Event::TrafficSplit { .. } | Event::RolloutMoved { .. } => {
            write_traffic(connection, model, &state.traffic).await?;
        }
        // The row of the rollout is written by whoever starts it.
        Event::RolloutStarted { .. } => write_traffic(connection, model, &state.traffic).await?,
        Event::RolloutPaused { paused } => {
            sqlx::query("UPDATE rollouts SET paused = $1 WHERE model = $2")
                .bind(i64::from(*paused))
                .bind(model)
                .execute(connection)
                .await?;
        }
        Event::RolloutEnded { champion, .. } => {
            sqlx::query("UPDATE aliases SET number = $1 WHERE model = $2 AND alias = $3")
                .bind(signed(*champion)?)
                .bind(model)
                .bind(CHAMPION)
                .execute(&mut *connection)
                .await?;
            write_reign(connection, model, state).await?;
        }
        Event::Announced { .. } | Event::Noted { .. } => {
            notes::write(connection, model, event).await?;
        }
        Event::StageMoved { version, to, .. } => {
            let update =
                "UPDATE versions SET stage = $1, moved = $2 WHERE model = $3 AND number = $4";
            sqlx::query(update)
                .bind(to.as_str())
                .bind(time)
                .bind(model)
                .bind(signed(*version)?)
                .execute(&mut *connection)
                .await?;
            write_former(connection, model, state).await?;
        }
    }
    Ok(())
}

/// What changes with the champion: the traffic is its own, and no rollout outlives it.
async fn write_reign(
    connection: &mut AnyConnection,
    model: &str,
    state: &ModelState,
) -> Result<()> {
    write_traffic(connection, model, &state.traffic).await?;
    rollouts::remove(connection, model).await?;
    write_former(connection, model, state).await
}

async fn write_former(
    connection: &mut AnyConnection,
    model: &str,
    state: &ModelState,
) -> Result<()> {
    let version = state.former.map(|former| signed(former.version)).transpose()?;
    sqlx::query("UPDATE models SET former = $1, former_since = $2 WHERE name = $3")
        .bind(version)
        .bind(state.former.map(|former| former.since.as_microsecond()))
        .bind(model)
        .execute(connection)
        .await?;
    Ok(())
}

async fn write_traffic(connection: &mut AnyConnection, model: &str, all: &[Share]) -> Result<()> {
    let delete = sqlx::query("DELETE FROM traffic WHERE model = $1").bind(model);
    delete.execute(&mut *connection).await?;
    for (place, share) in (0i64..).zip(all) {
        sqlx::query(
            "INSERT INTO traffic (model, number, place, share, shadow, pinned) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(model)
        .bind(signed(share.version)?)
        .bind(place)
        .bind(i64::from(share.share))
        .bind(i64::from(share.shadow))
        .bind(rollouts::json(&share.pinned)?)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// A model's state as its rows have it; that of a model which does not exist is empty.
pub(crate) async fn state(connection: &mut AnyConnection, model: &str) -> Result<ModelState> {
    let rows = sqlx::query("SELECT number, stage FROM versions WHERE model = $1")
        .bind(model)
        .fetch_all(&mut *connection)
        .await?;
    let mut state = ModelState::default();
    for row in rows {
        let number = unsigned(row.try_get("number")?)?;
        state.versions.insert(number, version::stage(row.try_get("stage")?)?);
    }
    state.aliases = aliases(connection, Some(model)).await?.remove(model).unwrap_or_default();
    state.traffic = traffic(connection, Some(model)).await?.remove(model).unwrap_or_default();
    state.former = formers(connection, Some(model)).await?.remove(model);
    state.announced = notes::announced(connection, model).await?;
    state.notes = notes::notes(connection, Some(model)).await?.remove(model).unwrap_or_default();
    state.rollout = rollouts::row(connection, model).await?.map(|rollout| rollout.underway());
    Ok(state)
}

/// What the aliases of one model, or of all, name.
pub(crate) async fn aliases(
    connection: &mut AnyConnection,
    model: Option<&str>,
) -> Result<BTreeMap<String, BTreeMap<String, u64>>> {
    let rows = match model {
        Some(model) => sqlx::query("SELECT * FROM aliases WHERE model = $1").bind(model),
        None => sqlx::query("SELECT * FROM aliases"),
    };
    let mut all: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for row in rows.fetch_all(connection).await? {
        let number = unsigned(row.try_get("number")?)?;
        all.entry(row.try_get("model")?).or_default().insert(row.try_get("alias")?, number);
    }
    Ok(all)
}

/// The explicit splits of one model, or of all.
async fn traffic(
    connection: &mut AnyConnection,
    model: Option<&str>,
) -> Result<BTreeMap<String, Vec<Share>>> {
    let rows = match model {
        Some(model) => {
            sqlx::query("SELECT * FROM traffic WHERE model = $1 ORDER BY place").bind(model)
        }
        None => sqlx::query("SELECT * FROM traffic ORDER BY place"),
    };
    let mut all: BTreeMap<String, Vec<Share>> = BTreeMap::new();
    for row in rows.fetch_all(connection).await? {
        let share = unsigned(row.try_get("share")?)?;
        all.entry(row.try_get("model")?).or_default().push(Share {
            version: unsigned(row.try_get("number")?)?,
            share: share.try_into().map_err(|_| Error::damaged("a share is too large"))?,
            shadow: row.try_get::<i64, _>("shadow")? != 0,
            pinned: rollouts::parsed(row.try_get("pinned")?)?,
        });
    }
    Ok(all)
}

/// The champion before the present one, of one model or of all.
async fn formers(
    connection: &mut AnyConnection,
    model: Option<&str>,
) -> Result<BTreeMap<String, Former>> {
    let rows = match model {
        Some(model) => {
            sqlx::query("SELECT * FROM models WHERE former IS NOT NULL AND name = $1").bind(model)
        }
        None => sqlx::query("SELECT * FROM models WHERE former IS NOT NULL"),
    };
    let former = |row: &AnyRow| {
        let since = database::timestamp(row.try_get("former_since")?)?;
        let former = Former { version: unsigned(row.try_get("former")?)?, since };
        Ok((row.try_get("name")?, former))
    };
    rows.fetch_all(connection).await?.iter().map(former).collect()
}

pub(crate) async fn files(
    connection: &mut AnyConnection,
    model: &str,
    number: u64,
) -> Result<Vec<File>> {
    let rows = sqlx::query("SELECT * FROM files WHERE model = $1 AND number = $2")
        .bind(model)
        .bind(signed(number)?)
        .fetch_all(connection)
        .await?;
    let mut files = rows.iter().map(version::file).collect::<Result<Vec<_>>>()?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// How many versions a model has, if there is such a model.
pub(crate) async fn known(connection: &mut AnyConnection, model: &str) -> Result<Option<i64>> {
    let count = sqlx::query_scalar("SELECT versions FROM models WHERE name = $1").bind(model);
    Ok(count.fetch_optional(connection).await?)
}

/// The row of a version; the error says what there is instead.
pub(crate) async fn version_row(
    connection: &mut AnyConnection,
    model: &str,
    number: u64,
) -> Result<AnyRow> {
    let statement = format!(
        "SELECT {SUMMARY}, moved, description FROM versions WHERE model = $1 AND number = $2"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(model)
        .bind(signed(number)?)
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(row) = row {
        return Ok(row);
    }
    Err(match known(connection, model).await? {
        None => no_model(model),
        Some(last) => {
            Error::not_found(format!("\"{model}\" has no version {number}; its newest is {last}"))
        }
    })
}

fn whole(row: &AnyRow, files: Vec<File>, aliases: &BTreeMap<String, u64>) -> Result<Version> {
    let mut summary = version::summary(row)?;
    summary.aliases = naming(aliases, summary.number);
    let description: String = row.try_get("description")?;
    let description: Description = serde_json::from_str(&description).map_err(|error| {
        Error::damaged(format!("the description of {}:{}: {error}", summary.model, summary.number))
    })?;
    Ok(Version {
        summary,
        lineage: description.lineage,
        metadata: description.metadata,
        manifest: description.manifest,
        main: description.main,
        files,
    })
}

pub(crate) fn naming(aliases: &BTreeMap<String, u64>, version: u64) -> Vec<String> {
    let naming = aliases.iter().filter(|(_, number)| **number == version);
    naming.map(|(alias, _)| alias.clone()).collect()
}

pub(crate) fn no_model(model: &str) -> Error {
    let shown: String = model.chars().take(80).collect();
    Error::not_found(format!("there is no model \"{}\" in the registry", shown.escape_default()))
}

fn place(version: &Version, file: &File) -> String {
    format!("\"{}\" of {}:{}", file.name, version.model, version.number)
}
