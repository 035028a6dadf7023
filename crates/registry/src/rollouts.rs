//! Rollouts that are under way: their plan and report, what servers measured, what callers said
//! afterwards, and whose turn it is to decide. What plans, reports and measurements mean is known
//! to crate `rollout` alone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use crate::database::{self, micros, signed, unsigned};
use crate::registry::{self, By};
use crate::state::{Event, ModelState, Outcome, Record, Share, Underway, before_champion};
use crate::{CHAMPION, Error, Registry, Result};

/// The most feedback that waits for a rollout: beyond it nobody is claiming any.
const MOST_FEEDBACK: u64 = 1_000_000;

/// How long a count of it is good for: counting so many rows takes tens of milliseconds.
const COUNTED: Duration = Duration::from_secs(10);

/// How much feedback waits for each rollout, when it was counted, with what was added here since.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<BTreeMap<u64, (Instant, u64)>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (Instant, u64)>> {
        // Nothing panics while it holds the lock; if it did, counts would still be counts.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was counted lately, if it was.
    fn recent(&self, rollout: u64) -> Option<u64> {
        let (when, count) = *self.lock().get(&rollout)?;
        (when.elapsed() < COUNTED).then_some(count)
    }

    /// Notes a count, and forgets those that are good for nothing any more.
    fn counted(&self, rollout: u64, count: u64) {
        let mut all = self.lock();
        all.retain(|_, (when, _)| when.elapsed() < COUNTED);
        all.insert(rollout, (Instant::now(), count));
    }

    fn add(&self, rollout: u64, more: u64) {
        if let Some((_, count)) = self.lock().get_mut(&rollout) {
            *count = count.saturating_add(more);
        }
    }
}

/// A rollout that is under way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rollout {
    /// The model.
    pub model: String,
    /// Tells it from the model's other rollouts: the place of its start in the history.
    pub number: u64,
    /// When it was started.
    pub started: Timestamp,
    /// The version that has the alias `champion`.
    pub champion: u64,
    /// The versions that may take its place.
    pub candidates: Vec<u64>,
    /// Whether it stays at its step.
    pub paused: bool,
    /// How it is to go.
    pub plan: Value,
    /// How it has gone so far.
    pub report: Value,
    /// Raised with every report.
    pub revision: u64,
}

impl Rollout {
    pub(crate) fn underway(self) -> Underway {
        let Self { champion, candidates, paused, .. } = self;
        Underway { champion, candidates, paused }
    }
}

/// A rollout that is to start.
#[derive(Clone, Debug)]
pub struct Start {
    /// The version that has the alias `champion`.
    pub champion: u64,
    /// The versions that may take its place.
    pub candidates: Vec<u64>,
    /// How it is to go.
    pub plan: Value,
    /// The report before anything has been measured.
    pub report: Value,
    /// The first split of the traffic.
    pub shares: Vec<Share>,
}

/// What a rollout decided.
#[derive(Clone, Debug)]
pub enum Decision {
    /// The traffic is split anew.
    Move(Vec<Share>),
    /// A candidate becomes the champion, which ends the rollout.
    Promote(u64),
    /// The champion has all the traffic again, which ends the rollout.
    RollBack,
}

/// One server's measurements of one stretch of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// Who measured.
    pub server: String,
    /// The server's own count.
    pub number: u64,
    /// What was measured.
    pub body: Value,
}

/// What somebody said about an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Feedback {
    /// Tells it from other feedback on the same answer.
    pub id: String,
    /// The request that was answered.
    pub request: String,
    /// What was said.
    pub body: Value,
}

impl Registry {
    /// Starts a rollout of a model. Refused if there is one, or if the champion is another.
    pub async fn start_rollout(&self, model: &str, start: Start, by: &By) -> Result<Record> {
        let Start { champion, candidates, plan, report, shares } = start;
        let numbers = json(&candidates)?;
        let (plan_text, report) = (json(&plan)?, json(&report)?);
        let event = Event::RolloutStarted { champion, candidates, plan, to: shares };
        let mut change = self.database.change().await?;
        let record = self.make(&mut change, model, by, |_| Ok(event)).await?;
        sqlx::query(
            "INSERT INTO rollouts \
             (model, number, started, champion, candidates, paused, plan, report, revision) \
             VALUES ($1, $2, $3, $4, $5, 0, $6, $7, 0)",
        )
        .bind(model)
        .bind(signed(record.sequence)?)
        .bind(change.time())
        .bind(signed(champion)?)
        .bind(numbers)
        .bind(plan_text)
        .bind(report)
        .execute(change.connection())
        .await?;
        change.commit().await?;
        Ok(record)
    }

    /// The rollout of a model that is under way, if there is one.
    pub async fn rollout(&self, model: &str) -> Result<Option<Rollout>> {
        let mut read = self.database.read().await?;
        let rollout = row(&mut read, model).await?;
        if rollout.is_none() && registry::known(&mut read, model).await?.is_none() {
            return Err(registry::no_model(model));
        }
        Ok(rollout)
    }

    /// All rollouts that are under way, by model.
    pub async fn rollouts(&self) -> Result<Vec<Rollout>> {
        let rows = sqlx::query("SELECT * FROM rollouts").fetch_all(self.database.pool()).await?;
        let mut all = rows.iter().map(rollout).collect::<Result<Vec<_>>>()?;
        all.sort_by(|a, b| a.model.cmp(&b.model));
        Ok(all)
    }

    /// Makes a rollout stay at its step, or go on. What trips a guard rolls back all the same.
    pub async fn pause_rollout(&self, model: &str, paused: bool, by: &By) -> Result<Record> {
        self.edit(model, by, |_| Ok(Event::RolloutPaused { paused })).await
    }

    /// Ends a rollout because somebody wants it so: the champion has all the traffic again.
    pub async fn stop_rollout(&self, model: &str, by: &By) -> Result<Record> {
        self.edit(model, by, |state| ended(state, Outcome::Stopped)).await
    }

    /// Takes back what came last: the rollout that is under way, or else the champion, in favour of
    /// the one before it. `expected` is the champion that the caller saw, if it matters.
    pub async fn roll_back(&self, model: &str, expected: Option<u64>, by: &By) -> Result<Record> {
        let history = self.history(model).await?;
        let before = before_champion(&history);
        self.edit(model, by, |state| {
            let champion = state.aliases.get(CHAMPION).copied();
            if let Some(expected) = expected.filter(|expected| Some(*expected) != champion) {
                return Err(Error::refused(format!(
                    "the champion is not version {expected} any more; look again and decide anew"
                )));
            }
            if state.rollout.is_some() {
                return ended(state, Outcome::RolledBack);
            }
            // What was decided on a history that has grown since is refused by `from`.
            let seen = ModelState::replay(&history)?.aliases.get(CHAMPION).copied();
            let Some(before) = before else {
                return Err(Error::refused("there is no champion before this one to go back to"));
            };
            Ok(Event::AliasMoved { alias: CHAMPION.to_owned(), from: seen, to: Some(before) })
        })
        .await
    }

    /// Writes what a rollout has come to: its new report, which `used` measurements are part of
    /// from now on, and what was decided, all or nothing. Refused if somebody else did so since the
    /// rollout was read, or if it is over.
    pub async fn advance(
        &self,
        rollout: &Rollout,
        report: &Value,
        used: &[Measurement],
        decision: Option<(Decision, By)>,
    ) -> Result<Option<Record>> {
        let model = &*rollout.model;
        let number = signed(rollout.number)?;
        let mut change = self.database.change().await?;
        let updated = sqlx::query(
            "UPDATE rollouts SET report = $1, revision = revision + 1 \
             WHERE model = $2 AND number = $3 AND revision = $4",
        )
        .bind(json(report)?)
        .bind(model)
        .bind(number)
        .bind(signed(rollout.revision)?)
        .execute(change.connection())
        .await?;
        if updated.rows_affected() == 0 {
            return Err(Error::refused(format!(
                "the rollout of \"{model}\" has gone on since, or is over"
            )));
        }
        for one in used {
            sqlx::query(
                "DELETE FROM measurements WHERE rollout = $1 AND server = $2 AND number = $3",
            )
            .bind(number)
            .bind(&one.server)
            .bind(signed(one.number)?)
            .execute(change.connection())
            .await?;
        }
        let record = match decision {
            None => None,
            Some((decision, by)) => {
                let decide = |state: &ModelState| match decision {
                    Decision::Move(to) => {
                        Ok(Event::RolloutMoved { from: state.traffic.clone(), to })
                    }
                    Decision::Promote(champion) => {
                        Ok(Event::RolloutEnded { outcome: Outcome::Promoted, champion })
                    }
                    Decision::RollBack => ended(state, Outcome::RolledBack),
                };
                Some(self.make(&mut change, model, &by, decide).await?)
            }
        };
        change.commit().await?;
        Ok(record)
    }

    /// Adds what a server measured. Adding it twice is adding it once.
    pub async fn measure(&self, rollout: u64, measurement: &Measurement) -> Result<()> {
        let mut connection = self.database.pool().acquire().await?;
        add(&mut connection, rollout, measurement).await
    }

    /// What servers measured since the last report.
    pub async fn measurements(&self, rollout: u64) -> Result<Vec<Measurement>> {
        let rows = sqlx::query(
            "SELECT * FROM measurements WHERE rollout = $1 ORDER BY server, number LIMIT 10000",
        )
        .bind(signed(rollout)?)
        .fetch_all(self.database.pool())
        .await?;
        let measurement = |row: &AnyRow| {
            Ok(Measurement {
                server: row.try_get("server")?,
                number: unsigned(row.try_get("number")?)?,
                body: parsed(row.try_get("body")?)?,
            })
        };
        rows.iter().map(measurement).collect()
    }

    /// Keeps what was said about answers until the servers that gave them take it. Refused without
    /// a rollout, which alone has a use for it, and while a million pieces wait, as far as was seen
    /// in the last ten seconds. All of it is kept, or none.
    pub async fn give_feedback(&self, model: &str, feedback: &[Feedback]) -> Result<()> {
        let Some(rollout) = self.rollout(model).await? else {
            return Err(Error::refused(format!(
                "no rollout of \"{model}\" is under way, and nothing else uses feedback"
            )));
        };
        let number = signed(rollout.number)?;
        let more = feedback.len() as u64;
        let waiting = match self.waiting.recent(rollout.number) {
            Some(count) => count,
            None => self.count_feedback(rollout.number).await?,
        };
        if waiting.saturating_add(more) > MOST_FEEDBACK {
            return Err(Error::new(
                model::ErrorCode::ResourceExhausted,
                format!("{waiting} pieces of feedback on \"{model}\" wait already"),
            ));
        }
        // In one order, so that two who say the same do not wait for each other.
        let mut sorted: Vec<&Feedback> = feedback.iter().collect();
        sorted.sort_by(|a, b| a.id.cmp(&b.id));
        let mut transaction = self.database.pool().begin().await?;
        for one in sorted {
            sqlx::query(
                "INSERT INTO feedback (rollout, id, request, body, received) \
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            )
            .bind(number)
            .bind(&one.id)
            .bind(&one.request)
            .bind(json(&one.body)?)
            .bind(self.database.now())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        self.waiting.add(rollout.number, more);
        Ok(())
    }

    async fn count_feedback(&self, rollout: u64) -> Result<u64> {
        let count = sqlx::query_scalar("SELECT COUNT(*) FROM feedback WHERE rollout = $1")
            .bind(signed(rollout)?)
            .fetch_one(self.database.pool())
            .await?;
        let count = unsigned(count)?;
        self.waiting.counted(rollout, count);
        Ok(count)
    }

    /// Feedback that no server has taken and that was received after `since`, with when it was,
    /// oldest first; at most 10,000 pieces at once.
    pub async fn feedback(
        &self,
        rollout: u64,
        since: Timestamp,
    ) -> Result<Vec<(Timestamp, Feedback)>> {
        let rows = sqlx::query(
            "SELECT * FROM feedback WHERE rollout = $1 AND received > $2 \
             ORDER BY received, id LIMIT 10000",
        )
        .bind(signed(rollout)?)
        .bind(since.as_microsecond())
        .fetch_all(self.database.pool())
        .await?;
        let feedback = |row: &AnyRow| {
            let feedback = Feedback {
                id: row.try_get("id")?,
                request: row.try_get("request")?,
                body: parsed(row.try_get("body")?)?,
            };
            Ok((database::timestamp(row.try_get("received")?)?, feedback))
        };
        rows.iter().map(feedback).collect()
    }

    /// Removes feedback that was received before a time, because whoever gave the answer is gone;
    /// says how much.
    pub async fn forget_feedback(&self, rollout: u64, before: Timestamp) -> Result<u64> {
        let removed = sqlx::query("DELETE FROM feedback WHERE rollout = $1 AND received < $2")
            .bind(signed(rollout)?)
            .bind(before.as_microsecond())
            .execute(self.database.pool())
            .await?;
        Ok(removed.rows_affected())
    }

    /// Turns feedback into a measurement, all or nothing: it counts once, whoever is killed when.
    /// False if somebody else has taken some of it.
    pub async fn take_feedback(
        &self,
        rollout: u64,
        taken: &[Feedback],
        measurement: &Measurement,
    ) -> Result<bool> {
        let mut transaction = self.database.pool().begin().await?;
        // The first statement writes, as in a change.
        for one in taken {
            let deleted = sqlx::query("DELETE FROM feedback WHERE rollout = $1 AND id = $2")
                .bind(signed(rollout)?)
                .bind(&one.id)
                .execute(&mut *transaction)
                .await?;
            if deleted.rows_affected() == 0 {
                return Ok(false);
            }
        }
        add(&mut transaction, rollout, measurement).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Asks to be the one who does something, for some time from now; the holder asks again before
    /// it is over. Spares others the work; what must not happen twice is refused by other means.
    pub async fn lease(&self, name: &str, holder: &str, time: Duration) -> Result<bool> {
        let now = self.database.now();
        let taken = sqlx::query(
            "INSERT INTO leases (name, holder, until) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until \
             WHERE leases.holder = excluded.holder OR leases.until <= $4 OR leases.until > $5",
        )
        .bind(name)
        .bind(holder)
        .bind(now.saturating_add(micros(time)))
        .bind(now)
        // A lease this far ahead was taken by a clock that is wrong.
        .bind(now.saturating_add(micros(time).saturating_mul(10)))
        .execute(self.database.pool())
        .await?;
        Ok(taken.rows_affected() > 0)
    }
}

/// The event that gives all the traffic back to the champion of a rollout.
fn ended(state: &ModelState, outcome: Outcome) -> Result<Event> {
    let champion = state.rollout.as_ref().map_or(0, |rollout| rollout.champion);
    Ok(Event::RolloutEnded { outcome, champion })
}

/// The row of a model's rollout.
pub async fn row(connection: &mut AnyConnection, model: &str) -> Result<Option<Rollout>> {
    let row = sqlx::query("SELECT * FROM rollouts WHERE model = $1")
        .bind(model)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(rollout).transpose()
}

/// Removes a model's rollout with all that only it has a use for.
pub async fn remove(connection: &mut AnyConnection, model: &str) -> Result<()> {
    let of_model = "rollout IN (SELECT number FROM rollouts WHERE model = $1)";
    for statement in [
        format!("DELETE FROM measurements WHERE {of_model}"),
        format!("DELETE FROM feedback WHERE {of_model}"),
        "DELETE FROM rollouts WHERE model = $1".to_owned(),
    ] {
        let statement = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(model);
        statement.execute(&mut *connection).await?;
    }
    Ok(())
}

async fn add(connection: &mut AnyConnection, rollout: u64, one: &Measurement) -> Result<()> {
    // Not for a rollout that is over: nobody would ever remove it.
    sqlx::query(
        "INSERT INTO measurements (rollout, server, number, body) \
         SELECT number, $2, $3, $4 FROM rollouts WHERE number = $1 ON CONFLICT DO NOTHING",
    )
    .bind(signed(rollout)?)
    .bind(&one.server)
    .bind(signed(one.number)?)
    .bind(json(&one.body)?)
    .execute(connection)
    .await?;
    Ok(())
}

fn rollout(row: &AnyRow) -> Result<Rollout> {
    Ok(Rollout {
        model: row.try_get("model")?,
        number: unsigned(row.try_get("number")?)?,
        started: database::timestamp(row.try_get("started")?)?,
        champion: unsigned(row.try_get("champion")?)?,
        candidates: parsed(row.try_get("candidates")?)?,
        paused: row.try_get::<i64, _>("paused")? != 0,
        plan: parsed(row.try_get("plan")?)?,
        report: parsed(row.try_get("report")?)?,
        revision: unsigned(row.try_get("revision")?)?,
    })
}

/// A value as a row keeps it.
pub fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::damaged(error.to_string()))
}

/// A value that a row kept.
pub fn parsed<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| Error::damaged(format!("the database holds broken JSON: {error}")))
}
