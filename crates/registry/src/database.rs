//! The rows: one SQLite file, or a PostgreSQL database that several machines share.
//!
//! Every statement is one that both understand. They differ in how a transaction begins, in the
//! trigger that keeps the history append-only, and in how a change is heard of (`watch`).

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::any::{AnyPoolOptions, AnyRow};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Any, AnyConnection, AnyPool, Executor, Row, SqlSafeStr, Transaction};
use tokio::sync::{Mutex, MutexGuard};

use crate::state::{Event, Record};
use crate::{By, Clock, Error, Result};

const TABLES: &str = include_str!("migrations/1-tables.sql");
const ROLLOUTS: &str = include_str!("migrations/3-rollouts.sql");
const NOTES: &str = include_str!("migrations/4-notes.sql");
const APPEND_ONLY_SQLITE: &str = include_str!("migrations/2-append-only.sqlite.sql");
const APPEND_ONLY_POSTGRES: &str = include_str!("migrations/2-append-only.postgres.sql");

/// How long a writer waits for its turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// The two kinds of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// A pool of connections to a database whose tables are as this program knows them.
pub struct Database {
    pool: AnyPool,
    kind: Kind,
    /// The URL, which may hold a password: never shown.
    url: String,
    clock: Clock,
    /// Writers of this process queue here, in order, and not in the database.
    turn: Mutex<()>,
}

impl Database {
    /// Opens `postgres://…`, `sqlite:PATH` or the path of a SQLite file, and creates or brings up
    /// to date what is in it; a SQLite file that is not there is made only if `make` says so. A
    /// database that a newer program has changed is refused.
    pub async fn open(name: &str, clock: Clock, make: bool) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let postgres = name.starts_with("postgres://") || name.starts_with("postgresql://");
        let (kind, url) = if postgres {
            (Kind::Postgres, name.to_owned())
        } else {
            let path = name.strip_prefix("sqlite:").unwrap_or(name);
            (Kind::Sqlite, sqlite_url(Path::new(path), make)?)
        };
        let pool = AnyPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(Duration::from_secs(10))
            .after_connect(move |connection, _| Box::pin(prepare(connection, kind)))
            .connect(&url)
            .await?;
        let database = Self { pool, kind, url, clock, turn: Mutex::new(()) };
        database.migrate().await?;
        Ok(database)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The time now, in microseconds since 1970.
    pub fn now(&self) -> i64 {
        self.clock.micros()
    }

    /// The moment so long ago, in microseconds since 1970.
    pub fn ago(&self, time: Duration) -> i64 {
        self.now().saturating_sub(micros(time))
    }

    /// For single statements.
    pub fn pool(&self) -> &AnyPool {
        &self.pool
    }

    /// A transaction that sees one moment of the database, however many statements it has.
    pub async fn read(&self) -> Result<Transaction<'static, Any>> {
        let begin = match self.kind {
            Kind::Sqlite => "BEGIN",
            Kind::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        Ok(self.pool.begin_with(begin).await?)
    }

    /// Begins a change, once all changes before it are done.
    pub async fn change(&self) -> Result<Change<'_>> {
        let turn = self.turn.lock().await;
        let mut transaction = self.pool.begin().await?;
        // The first statement writes: SQLite then waits for its turn instead of failing halfway,
        // and PostgreSQL locks the row. Whoever follows sees everything done here.
        let row = sqlx::query(
            "UPDATE registry SET generation = generation + 1 RETURNING sequence, time, generation",
        )
        .fetch_one(&mut *transaction)
        .await?;
        Ok(Change {
            sequence: row.try_get(0)?,
            // A clock that was put back does not reorder the history.
            time: self.now().max(row.try_get(1)?),
            generation: row.try_get(2)?,
            transaction,
            _turn: turn,
        })
    }

    /// The number of the last record of the history.
    pub async fn sequence(&self) -> Result<i64> {
        Ok(sqlx::query_scalar("SELECT sequence FROM registry").fetch_one(&self.pool).await?)
    }

    /// The registry's identity, made up when it is asked for the first time.
    pub async fn identity(&self) -> Result<String> {
        let made_up: String =
            (0..4).map(|_| format!("{:08x}", fastrand::u32(..))).collect::<Vec<_>>().join("-");
        let statement = "UPDATE registry SET id = CASE id WHEN '' THEN $1 ELSE id END RETURNING id";
        let known: String =
            sqlx::query_scalar("SELECT id FROM registry").fetch_one(&self.pool).await?;
        if !known.is_empty() {
            return Ok(known);
        }
        Ok(sqlx::query_scalar(statement).bind(made_up).fetch_one(&self.pool).await?)
    }

    async fn migrate(&self) -> Result<()> {
        let append_only = match self.kind {
            Kind::Sqlite => APPEND_ONLY_SQLITE,
            Kind::Postgres => APPEND_ONLY_POSTGRES,
        };
        let migration = |version, name: &'static str, sql: &'static str| {
            let kind = MigrationType::Simple;
            Migration::new(version, name.into(), kind, sql.into_sql_str(), false)
        };
        let migrator = Migrator::with_migrations(vec![
            migration(1, "tables", TABLES),
            migration(2, "append-only", append_only),
            migration(3, "rollouts", ROLLOUTS),
            migration(4, "notes", NOTES),
        ]);
        match self.kind {
            Kind::Postgres => {
                let mut connection = self.pool.acquire().await?;
                migrator.run_direct(None, &mut *connection, false).await.map_err(not_migrated)
            }
            // SQLite has no lock but the one of a transaction that writes.
            Kind::Sqlite => {
                let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
                let migrated = migrator.run_direct(None, &mut *transaction, false).await;
                migrated.map_err(not_migrated)?;
                Ok(transaction.commit().await?)
            }
        }
    }
}

/// One change: a transaction that no other change overlaps. Dropping it undoes everything.
pub struct Change<'a> {
    transaction: Transaction<'static, Any>,
    sequence: i64,
    time: i64,
    generation: i64,
    _turn: MutexGuard<'a, ()>,
}

impl Change<'_> {
    pub fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    /// The time of everything in this change, in microseconds since 1970.
    pub fn time(&self) -> i64 {
        self.time
    }

    /// A number that no change before had, and none after it will have.
    pub fn generation(&self) -> i64 {
        self.generation
    }

    /// Appends to the history. The caller writes the rows that the event is about.
    pub async fn record(&mut self, model: &str, event: Event, by: &By) -> Result<Record> {
        self.sequence += 1;
        let evidence = by.evidence.as_ref().map(ToString::to_string);
        sqlx::query(
            "INSERT INTO history (sequence, time, model, event, who, reason, evidence) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(self.sequence)
        .bind(self.time)
        .bind(model)
        .bind(serde_json::to_string(&event).map_err(|e| Error::damaged(e.to_string()))?)
        .bind(&by.who)
        .bind(&by.reason)
        .bind(evidence)
        .execute(&mut *self.transaction)
        .await?;
        Ok(Record {
            sequence: unsigned(self.sequence)?,
            time: timestamp(self.time)?,
            model: model.to_owned(),
            event,
            who: by.who.clone(),
            reason: by.reason.clone(),
            evidence: by.evidence.clone(),
        })
    }

    /// Makes the change lasting and visible.
    pub async fn commit(mut self) -> Result<()> {
        sqlx::query("UPDATE registry SET sequence = $1, time = $2")
            .bind(self.sequence)
            .bind(self.time)
            .execute(&mut *self.transaction)
            .await?;
        self.transaction.commit().await.map_err(|error| {
            let error = Error::from(error);
            let message = format!("{error}; whether the change was made is in the history");
            Error::new(error.code(), message)
        })
    }
}

/// A record as it is in the history.
pub fn record(row: &AnyRow) -> Result<Record> {
    let json = |text: String, sequence: u64| {
        serde_json::from_str(&text)
            .map_err(|error| Error::damaged(format!("record {sequence} of the history: {error}")))
    };
    let sequence = unsigned(row.try_get("sequence")?)?;
    let event: String = row.try_get("event")?;
    let event = serde_json::from_str(&event)
        .map_err(|error| Error::damaged(format!("record {sequence} of the history: {error}")))?;
    let evidence: Option<String> = row.try_get("evidence")?;
    Ok(Record {
        sequence,
        time: timestamp(row.try_get("time")?)?,
        model: row.try_get("model")?,
        event,
        who: row.try_get("who")?,
        reason: row.try_get("reason")?,
        evidence: evidence.map(|text| json(text, sequence)).transpose()?,
    })
}

/// A stretch of time as rows count it.
pub fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// Times in rows are microseconds since 1970.
pub fn timestamp(micros: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(micros)
        .map_err(|error| Error::damaged(format!("the database holds an impossible time: {error}")))
}

/// Numbers in rows are never negative.
pub fn unsigned(number: i64) -> Result<u64> {
    number.try_into().map_err(|_| Error::damaged("the database holds a negative number"))
}

/// Numbers that come from outside may be too large for a row.
pub fn signed(number: u64) -> Result<i64> {
    number.try_into().map_err(|_| Error::invalid(format!("{number} is too large a number")))
}

/// Sets up a new connection.
async fn prepare(connection: &mut AnyConnection, kind: Kind) -> sqlx::Result<()> {
    if kind == Kind::Postgres {
        return Ok(());
    }
    let patience = PATIENCE.as_millis();
    let settings = format!(
        "PRAGMA busy_timeout = {patience}; PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL"
    );
    connection.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(settings))).await?;
    // Kept in the file. Several that open a new file at once get in each other's way.
    for _ in 0..100 {
        let mode = sqlx::query("PRAGMA journal_mode = WAL").fetch_one(&mut *connection).await;
        let mode = mode.and_then(|row| row.try_get::<String, _>(0));
        if mode.is_ok_and(|mode| mode == "wal") {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(sqlx::Error::PoolTimedOut)
}

fn not_migrated(error: sqlx::migrate::MigrateError) -> Error {
    use sqlx::migrate::MigrateError as E;
    match error {
        E::VersionMissing(_) | E::VersionTooNew(..) => Error::refused(
            "the database was changed by a newer modelyard; use that one, or a newer one still",
        ),
        E::VersionMismatch(version) => Error::damaged(format!(
            "the database's tables are not those that modelyard makes (migration {version}); is \
             it another program's?"
        )),
        E::Execute(error) | E::ExecuteMigration(error, _) => error.into(),
        other => Error::damaged(format!("the database cannot be brought up to date: {other}")),
    }
}

/// The URL of a SQLite file, which is created here if it is to be: a connection that is made later,
/// while the file is away, must not put an empty one in its place.
fn sqlite_url(path: &Path, make: bool) -> Result<String> {
    let path = std::path::absolute(path).map_err(|error| crate::error::file(path, &error))?;
    if make {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| crate::error::file(folder, &error))?;
        }
        match std::fs::File::create_new(&path) {
            Err(error) if !path.exists() => return Err(crate::error::file(&path, &error)),
            _ => {}
        }
    }
    let text = path.to_str().ok_or_else(|| {
        Error::invalid(format!("{}: the path of a database must be UTF-8", path.display()))
    })?;
    let mut url = "sqlite://".to_owned();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                url.push(char::from(byte));
            }
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    Ok(url + "?mode=rw")
}
