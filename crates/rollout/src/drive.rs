//! A server's part in rollouts: it measures, joins feedback with its answers, and on one server of
//! many, decides.
//!
//! Everything that must not be lost or happen twice is in the registry: measurements count once,
//! and a decision is written together with the report that it rests on, or refused because somebody
//! else was faster. The lease only spares the others the work.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use model::{ErrorCode, Observation};
use registry::{By, Clock, Decision, Measurement, Registry, Rollout, Server};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::memory::Memory;
use crate::{Action, Block, Plan, Report, Tally, next, plot};

/// How often a server looks whether there is something to do.
const TURN: Duration = Duration::from_secs(1);
/// How long the one who decides may be silent before another does.
const LEASE: Duration = Duration::from_secs(5);
/// How long feedback waits for the server that gave the answer.
const FEEDBACK: SignedDuration = SignedDuration::from_hours(24);
/// How often feedback that waited too long is removed.
const TIDY: SignedDuration = SignedDuration::from_mins(1);
/// How far feedback is looked back for: rows become visible when they are committed.
const OVERLAP: SignedDuration = SignedDuration::from_secs(10);
/// How long a candidate may be unable to run somewhere before it is taken back.
const PATIENCE: SignedDuration = SignedDuration::from_secs(20);
/// How recently a server must have been heard of for what it says to count.
const HEARD: Duration = Duration::from_secs(30);
/// Blocks that wait for the database, at most, for each rollout.
const UNSENT: usize = 200;
/// Who decides, as the history has it.
const WHO: &str = "rollout";

/// One server's part in all rollouts of a registry.
pub struct Driver {
    registry: Arc<Registry>,
    clock: Clock,
    /// What measurements and the lease are signed with: another one after each start.
    server: String,
    counting: Counting,
    /// Models whose observations are wanted.
    watched: watch::Sender<BTreeSet<String>>,
    /// Since when a candidate cannot run on some server, by rollout and candidate.
    failing: BTreeMap<(u64, u64), Timestamp>,
    /// When feedback that waited too long was last removed.
    tidied: Option<Timestamp>,
    number: u64,
}

/// Where a driver's observations are counted. Cheap to clone.
#[derive(Clone, Default)]
pub struct Counting(Arc<Mutex<BTreeMap<String, Counted>>>);

/// What is counted of one model.
struct Counted {
    rollout: u64,
    plan: Plan,
    tally: Tally,
    memory: Memory,
    /// When the last feedback was received that was looked at.
    feedback_until: Timestamp,
    unsent: VecDeque<Measurement>,
}

impl Driver {
    /// Takes part under this name, which no other server may have, nor the same one after a new
    /// start.
    pub fn new(registry: Arc<Registry>, clock: Clock, server: impl Into<String>) -> Self {
        Self {
            registry,
            clock,
            server: server.into(),
            counting: Counting::default(),
            watched: watch::Sender::default(),
            failing: BTreeMap::new(),
            tidied: None,
            number: 0,
        }
    }

    /// The models of which observations are wanted.
    pub fn watched(&self) -> watch::Receiver<BTreeSet<String>> {
        self.watched.subscribe()
    }

    /// Takes part for ever.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(TURN);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.turn().await {
                tracing::warn!(%error, "rollouts wait for the registry");
            }
        }
    }

    /// Where what it decides by is counted.
    pub fn counting(&self) -> Counting {
        self.counting.clone()
    }

    /// Counts one observation.
    pub fn observe(&self, observation: &Observation) {
        self.counting.observe(observation);
    }

    /// Does whatever there is to do now.
    pub async fn turn(&mut self) -> registry::Result<()> {
        let rollouts = self.registry.rollouts().await?;
        self.follow(&rollouts);
        for rollout in &rollouts {
            self.send(rollout).await?;
            self.join(rollout).await?;
        }
        self.failing.retain(|(number, _), _| rollouts.iter().any(|r| r.number == *number));
        if rollouts.is_empty() || !self.registry.lease("rollouts", &self.server, LEASE).await? {
            return Ok(());
        }
        self.tidy(&rollouts).await?;
        let servers = self.registry.servers(HEARD).await?;
        for rollout in &rollouts {
            match self.decide(rollout, &servers).await {
                Ok(()) => {}
                // Somebody else was faster: there is nothing left to do.
                Err(error) if error.code() == ErrorCode::FailedPrecondition => {
                    tracing::debug!(model = rollout.model, %error, "a rollout went on meanwhile");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Counts for the rollouts that there are, and for no others.
    fn follow(&self, rollouts: &[Rollout]) {
        let mut counted = self.counting.lock();
        let is_current = |model: &str, one: &Counted| {
            rollouts.iter().any(|r| r.model == model && r.number == one.rollout)
        };
        counted.retain(|model, one| is_current(model, one));
        for rollout in rollouts {
            let Ok(plan) = plan_of(rollout) else { continue };
            counted.entry(rollout.model.clone()).or_insert_with(|| Counted {
                rollout: rollout.number,
                tally: Tally::new(&plan),
                plan,
                memory: Memory::default(),
                feedback_until: rollout.started,
                unsent: VecDeque::new(),
            });
        }
        let models: BTreeSet<String> = counted.keys().cloned().collect();
        drop(counted);
        self.watched.send_if_modified(|watched| {
            let differs = *watched != models;
            *watched = models;
            differs
        });
    }

    /// Hands over what was measured. What the database does not take stays for the next turn.
    async fn send(&mut self, rollout: &Rollout) -> registry::Result<()> {
        let now = self.clock.now();
        let mut unsent = {
            let mut counted = self.counting.lock();
            let Some(one) = counted.get_mut(&rollout.model) else { return Ok(()) };
            for block in one.tally.take(now) {
                self.number += 1;
                let body = serde_json::to_value([block]).expect("a block is JSON");
                let server = self.server.clone();
                one.unsent.push_back(Measurement { server, number: self.number, body });
            }
            while one.unsent.len() > UNSENT {
                one.unsent.pop_front();
            }
            std::mem::take(&mut one.unsent)
        };
        let mut sent = Ok(());
        while let Some(measurement) = unsent.front() {
            sent = self.registry.measure(rollout.number, measurement).await;
            if sent.is_err() {
                break;
            }
            unsent.pop_front();
        }
        if let Some(one) = self.counting.lock().get_mut(&rollout.model) {
            unsent.append(&mut one.unsent);
            one.unsent = unsent;
        }
        sent
    }

    /// Takes the feedback on answers that this server gave.
    async fn join(&mut self, rollout: &Rollout) -> registry::Result<()> {
        let now = self.clock.now();
        // Feedback follows an answer, so this server knows the answer by the time it looks; only
        // what was received just now may be older than its place in the order says.
        let seen = match self.counting.lock().get(&rollout.model) {
            Some(one) => one.feedback_until,
            None => return Ok(()),
        };
        let since = seen.saturating_sub(OVERLAP).unwrap_or(seen);
        let waiting = self.registry.feedback(rollout.number, since).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        let (mut taken, mut blocks) = (Vec::new(), Vec::new());
        {
            let mut counted = self.counting.lock();
            let Some(one) = counted.get_mut(&rollout.model) else { return Ok(()) };
            let mut tally = Tally::new(&one.plan);
            tally.take(now);
            for (received, feedback) in waiting {
                one.feedback_until = one.feedback_until.max(received);
                if let Some((version, joined)) = one.memory.join(&feedback) {
                    tally.feedback(version, &joined);
                    taken.push(feedback);
                }
            }
            // All of it counts for this moment, and is over.
            let later = now.saturating_add(one.plan.block * 4).unwrap_or(now);
            blocks.extend(tally.take(later));
        }
        if taken.is_empty() {
            return Ok(());
        }
        self.number += 1;
        let body = serde_json::to_value(&blocks).expect("a block is JSON");
        let measurement = Measurement { server: self.server.clone(), number: self.number, body };
        // If somebody else took some of it, the rest is there in the next turn.
        self.registry.take_feedback(rollout.number, &taken, &measurement).await?;
        Ok(())
    }

    /// Removes feedback that has waited too long, now and then.
    async fn tidy(&mut self, rollouts: &[Rollout]) -> registry::Result<()> {
        let now = self.clock.now();
        // Whichever way the clock was moved.
        let is_due = |last: Timestamp| now.duration_since(last).abs() >= TIDY;
        let Ok(before) = now.checked_sub(FEEDBACK) else { return Ok(()) };
        if self.tidied.is_none_or(is_due) {
            for rollout in rollouts {
                self.registry.forget_feedback(rollout.number, before).await?;
            }
            self.tidied = Some(now);
        }
        Ok(())
    }

    /// Adds what was measured to the report, and does what follows from it.
    async fn decide(&mut self, rollout: &Rollout, servers: &[Server]) -> registry::Result<()> {
        let now = self.clock.now();
        let (plan, mut report) = match (plan_of(rollout), report_of(rollout)) {
            (Ok(plan), Ok(report)) => (plan, report),
            (Err(error), _) | (_, Err(error)) => return self.give_up(rollout, &error).await,
        };
        let measured = self.registry.measurements(rollout.number).await?;
        let mut blocks = Vec::new();
        for one in &measured {
            match serde_json::from_value::<Vec<Block>>(one.body.clone()) {
                Ok(more) => blocks.extend(more),
                Err(error) => tracing::warn!(server = one.server, %error, "a measurement is lost"),
            }
        }
        report.absorb(&plan, &blocks);
        let action = match self.cannot_run(rollout, servers, now) {
            Some(action) => Some(action),
            None => next(&plan, &report, now),
        };
        // A rollout that is paused stays where it is, unless it has to go back.
        let action = action.filter(|a| !rollout.paused || matches!(a, Action::RollBack { .. }));
        if measured.is_empty() && action.is_none() {
            return Ok(());
        }
        let decision = action.as_ref().map(|action| decision(action, &report));
        if let Some(action) = &action {
            report.applied(action, now);
        }
        let text = serde_json::to_value(&report).expect("a report is JSON");
        let record = self.registry.advance(rollout, &text, &measured, decision).await?;
        if let Some(record) = record {
            tracing::info!(model = record.model, why = record.reason, "rollout: {}", said(&record));
        }
        Ok(())
    }

    /// A candidate that some server has been unable to run for too long.
    fn cannot_run(
        &mut self,
        rollout: &Rollout,
        servers: &[Server],
        now: Timestamp,
    ) -> Option<Action> {
        for candidate in &rollout.candidates {
            let name = candidate.to_string();
            let failed = servers.iter().find_map(|server| {
                let mut holds = server.holds.iter();
                let held = holds.find(|h| h.model == rollout.model && h.version == name)?;
                (held.state == "UNAVAILABLE").then(|| held.reason.clone().map(|r| (server, r)))?
            });
            let key = (rollout.number, *candidate);
            let Some((server, reason)) = failed else {
                self.failing.remove(&key);
                continue;
            };
            let since = *self.failing.entry(key).or_insert(now);
            if now.duration_since(since) >= PATIENCE {
                let address = &server.address;
                let why = format!("version {candidate} cannot run on {address}: {reason}");
                let evidence = json!({"server": address, "version": candidate, "reason": reason});
                return Some(Action::RollBack { why, evidence });
            }
        }
        None
    }

    /// Takes back a rollout that this program cannot read: an older or newer one started it.
    async fn give_up(&self, rollout: &Rollout, error: &str) -> registry::Result<()> {
        let why = format!("this version of modelyard cannot go on with it: {error}");
        tracing::error!(model = rollout.model, "rollout: {why}");
        let by = By::new(WHO).because(why);
        let decision = Some((Decision::RollBack, by));
        self.registry.advance(rollout, &rollout.report, &[], decision).await.map(drop)
    }
}

impl Counting {
    /// Counts one observation.
    pub fn observe(&self, observation: &Observation) {
        if let Some(one) = self.lock().get_mut(&*observation.model) {
            one.tally.observe(observation);
            one.memory.remember(observation);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Counted>> {
        // Nothing panics while it holds the lock; if it did, counts would still be counts.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an action means for the registry, with who, why and the figures.
pub fn decision(action: &Action, report: &Report) -> (Decision, By) {
    let (decision, why, evidence) = match action {
        Action::Move { shares, why, evidence, .. } => {
            (Decision::Move(shares.clone()), why, evidence)
        }
        Action::Promote { version, why, evidence } => (Decision::Promote(*version), why, evidence),
        Action::RollBack { why, evidence } => (Decision::RollBack, why, evidence),
    };
    let mut evidence = evidence.clone();
    if let Value::Object(figures) = &mut evidence {
        figures.insert("plot".to_owned(), Value::String(plot(report)));
    }
    (decision, By::new(WHO).because(why).on_evidence(evidence))
}

pub(crate) fn plan_of(rollout: &Rollout) -> Result<Plan, String> {
    serde_json::from_value(rollout.plan.clone()).map_err(|error| format!("the plan: {error}"))
}

pub(crate) fn report_of(rollout: &Rollout) -> Result<Report, String> {
    serde_json::from_value(rollout.report.clone()).map_err(|error| format!("the report: {error}"))
}

fn said(record: &registry::Record) -> &'static str {
    match &record.event {
        registry::Event::RolloutMoved { .. } => "next step",
        registry::Event::RolloutEnded { outcome, .. } => outcome.as_str(),
        _ => "changed",
    }
}
