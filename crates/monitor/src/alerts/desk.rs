//! Where alerts are kept and messages go out.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::engine::{Alert, Engine, Message, Order, Silence, Stage, State};
use super::notifier::Notifier;
use super::rules::{Rule, Rules};
use super::sample::{Event, Sample};
use super::send::{Failure, Sender};

/// The schema of the file; what has another number is put aside.
const SCHEMA: &str = "modelyard.alerts/1";
/// Messages that wait for one notifier, at most; older ones are dropped and counted.
const WAITING: usize = 200;
/// How long a message is tried to be sent.
const WORTH: SignedDuration = SignedDuration::from_hours(24);
/// How long after a failure it is tried again: from the first to the last.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Orders that wait to be carried out, at most.
const ORDERS: usize = 100;

/// What became of the messages for one notifier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Messages that were taken.
    pub sent: u64,
    /// Tries that failed.
    pub failed: u64,
    /// Messages that were given up.
    pub dropped: u64,
    /// Messages that wait.
    pub waiting: u64,
    /// Why the last try failed, until one succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What is kept in the file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    schema: String,
    state: State,
    #[serde(default)]
    outbox: BTreeMap<String, VecDeque<Message>>,
    #[serde(default)]
    orders: VecDeque<Order>,
}

/// The alerts of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    notifiers: BTreeMap<String, Notifier>,
    every: SignedDuration,
    file: Option<PathBuf>,
    sender: Sender,
    kept: Mutex<Kept>,
    /// Told when there is something to send.
    work: Notify,
}

#[derive(Debug)]
struct Kept {
    engine: Engine,
    outbox: BTreeMap<String, VecDeque<Message>>,
    orders: VecDeque<Order>,
    counts: BTreeMap<String, Count>,
    /// Whether the file is behind.
    unsaved: bool,
}

impl Desk {
    /// Goes on from what is in the file, if there is one. A file that cannot be read is put aside:
    /// not to start for it would be worse than to tell somebody something twice.
    pub fn open(rules: Rules, file: Option<PathBuf>) -> Result<Self, String> {
        let saved = match &file {
            Some(file) => read(file)?,
            None => Saved::default(),
        };
        let notifiers = rules.notifiers.clone();
        let every = rules.every;
        let outbox: BTreeMap<_, _> =
            saved.outbox.into_iter().filter(|(name, _)| notifiers.contains_key(name)).collect();
        let counts = notifiers.keys().map(|name| (name.clone(), Count::default())).collect();
        let kept = Kept {
            engine: Engine::new(rules, saved.state),
            outbox,
            orders: saved.orders,
            counts,
            unsaved: false,
        };
        let sender = Sender::new()?;
        let (kept, work) = (Mutex::new(kept), Notify::new());
        Ok(Self { inner: Arc::new(Inner { notifiers, every, file, sender, kept, work }) })
    }

    /// How often to look.
    pub fn every(&self) -> Duration {
        self.inner.every.unsigned_abs()
    }

    /// Looks at how things are now, and keeps what follows in the file before anything is sent. Reads
    /// and writes a file: not for a thread that serves. An error is one of the file's; everything
    /// else was done.
    pub fn look(
        &self,
        now: Timestamp,
        samples: &[Sample],
        events: &[Event],
    ) -> std::io::Result<()> {
        let mut kept = self.kept();
        let outcome = kept.engine.look(now, samples, events);
        let has_messages = !outcome.messages.is_empty();
        for message in outcome.messages {
            kept.put(message);
        }
        for order in outcome.orders {
            if kept.orders.len() < ORDERS {
                kept.orders.push_back(order);
            }
        }
        kept.unsaved |= outcome.changed;
        let saved = self.save(kept);
        if has_messages {
            self.inner.work.notify_waiters();
        }
        saved
    }

    /// The next thing that an alert wants done; it stays until it is [done](Self::done).
    pub fn order(&self) -> Option<Order> {
        self.kept().orders.front().cloned()
    }

    /// Says that an order was carried out, or cannot be.
    pub fn done(&self, order: &Order) {
        let mut kept = self.kept();
        kept.orders.retain(|other| other != order);
        kept.unsaved = true;
    }

    /// The alerts: those that fire first, then by severity and time.
    pub fn alerts(&self) -> Vec<Alert> {
        let mut alerts: Vec<Alert> = self.kept().engine.state().alerts.values().cloned().collect();
        let rank = |alert: &Alert| {
            let stage = match alert.stage {
                Stage::Firing => 0,
                Stage::Pending => 1,
                Stage::Resolved => 2,
            };
            let severity = match alert.labels.get("severity").map(String::as_str) {
                Some("critical") => 0,
                Some("info") => 2,
                _ => 1,
            };
            (stage, severity, std::cmp::Reverse(alert.since))
        };
        alerts.sort_by_key(rank);
        alerts
    }

    /// The rules that hold, each with what keeps it from being judged.
    pub fn rules(&self) -> Vec<(Rule, Option<String>)> {
        let kept = self.kept();
        let problems = kept.engine.problems();
        let with = |rule: &Rule| (rule.clone(), problems.get(&rule.name).cloned());
        kept.engine.rules().map(with).collect()
    }

    /// When it was looked the last time.
    pub fn looked(&self) -> Option<Timestamp> {
        self.kept().engine.looked()
    }

    /// The silences.
    pub fn silences(&self) -> Vec<Silence> {
        self.kept().engine.state().silences.clone()
    }

    /// Keeps alerts quiet; says by which name. It is kept in the file when this returns.
    pub fn silence(&self, silence: Silence, now: Timestamp) -> Result<String, String> {
        let mut kept = self.kept();
        let id = kept.engine.silence(silence, now)?;
        kept.unsaved = true;
        self.save(kept)
            .map_err(|error| format!("the silence holds, but not after a restart: {error}"))?;
        Ok(id)
    }

    /// Ends a silence; whether there was one.
    pub fn unsilence(&self, id: &str, now: Timestamp) -> std::io::Result<bool> {
        let mut kept = self.kept();
        let was_there = kept.engine.unsilence(id, now);
        kept.unsaved |= was_there;
        self.save(kept)?;
        Ok(was_there)
    }

    /// What became of the messages, by notifier.
    pub fn counts(&self) -> BTreeMap<String, Count> {
        let kept = self.kept();
        let mut counts = kept.counts.clone();
        for (name, count) in &mut counts {
            count.waiting = kept.outbox.get(name).map_or(0, |waiting| waiting.len() as u64);
        }
        counts
    }

    /// Sends one message to a notifier now, and says how that went.
    pub async fn send(&self, message: Message) -> Result<(), String> {
        let notifier = self.inner.notifiers.get(&message.to).ok_or("there is no such notifier")?;
        self.inner.try_to_send(notifier, &message).await.map_err(|failure| failure.why)
    }

    /// Delivers messages for ever.
    pub async fn deliver(&self) {
        let mut all = JoinSet::new();
        for name in self.inner.notifiers.keys() {
            let (inner, name) = (self.inner.clone(), name.clone());
            all.spawn(async move { inner.deliver_to(&name).await });
        }
        all.join_all().await;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.inner.kept()
    }

    fn save(&self, mut kept: MutexGuard<'_, Kept>) -> std::io::Result<()> {
        let Some(file) = self.inner.file.as_deref().filter(|_| kept.unsaved) else { return Ok(()) };
        let saved = Saved {
            schema: SCHEMA.to_owned(),
            state: kept.engine.state().clone(),
            outbox: kept.outbox.clone(),
            orders: kept.orders.clone(),
        };
        // Under the lock, so that an older state never replaces a newer one.
        write(file, &serde_json::to_vec(&saved).expect("a state is JSON"))?;
        kept.unsaved = false;
        Ok(())
    }
}

impl Kept {
    /// Puts a message in line. One of the same group that has not been sent yet is of no more use, but
    /// for the alerts that it would have said are over.
    fn put(&mut self, mut message: Message) {
        let waiting = self.outbox.entry(message.to.clone()).or_default();
        // The first may be on its way.
        if let Some(place) = waiting.iter().skip(1).position(|one| one.group == message.group) {
            let before = waiting.remove(place + 1).expect("it was found there");
            for alert in before.alerts {
                let is_in = message.alerts.iter().any(|a| a.fingerprint == alert.fingerprint);
                if !is_in && alert.stage == Stage::Resolved {
                    message.alerts.push(alert);
                }
            }
        }
        let to = message.to.clone();
        waiting.push_back(message);
        if waiting.len() > WAITING {
            waiting.remove(1);
            self.counts.entry(to).or_default().dropped += 1;
        }
    }
}

impl Inner {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn try_to_send(&self, notifier: &Notifier, message: &Message) -> Result<(), Failure> {
        for sending in notifier.sendings(message, Timestamp::now()) {
            self.sender.send(sending).await?;
        }
        Ok(())
    }

    async fn deliver_to(&self, name: &str) {
        let notifier = &self.notifiers[name];
        let mut pause = AGAIN.0;
        loop {
            let work = self.work.notified();
            tokio::pin!(work);
            // From here on nothing that is put in line is missed.
            work.as_mut().enable();
            let first = self.kept().outbox.get(name).and_then(|waiting| waiting.front().cloned());
            let Some(message) = first else {
                work.await;
                continue;
            };
            let sent = self.try_to_send(notifier, &message).await;
            if self.settle(name, &message, sent.as_ref()) {
                tracing::warn!(notifier = name, ?pause, "a message is sent again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(AGAIN.1);
            } else if sent.is_ok() {
                pause = AGAIN.0;
            }
        }
    }

    /// Counts how a try went, and takes a message that is done with out of the line; says whether it
    /// is to be tried again.
    fn settle(&self, name: &str, message: &Message, sent: Result<&(), &Failure>) -> bool {
        let is_old = Timestamp::now().duration_since(message.at) >= WORTH;
        let mut kept = self.kept();
        let count = kept.counts.entry(name.to_owned()).or_default();
        let again = match sent {
            Ok(()) => {
                (count.sent, count.problem) = (count.sent + 1, None);
                false
            }
            Err(failure) => {
                (count.failed, count.problem) = (count.failed + 1, Some(failure.why.clone()));
                let again = failure.passes && !is_old;
                if !again {
                    count.dropped += 1;
                    tracing::error!(notifier = name, why = failure.why, "a message is given up");
                }
                again
            }
        };
        if !again {
            if let Some(waiting) = kept.outbox.get_mut(name) {
                waiting.retain(|other| other.id != message.id);
            }
            kept.unsaved = true;
        }
        again
    }
}

fn read(file: &Path) -> Result<Saved, String> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Saved::default()),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    let saved = match serde_json::from_slice::<Saved>(&bytes) {
        Ok(saved) if saved.schema == SCHEMA => return Ok(saved),
        Ok(saved) => format!("its schema is {:?}, expected {SCHEMA:?}", saved.schema),
        Err(error) => error.to_string(),
    };
    let aside = file.with_extension("broken");
    std::fs::rename(file, &aside).map_err(|error| format!("{}: {error}", file.display()))?;
    tracing::error!(file = %file.display(), aside = %aside.display(), why = saved, "alerts begin anew: what was kept cannot be read");
    Ok(Saved::default())
}

/// All of it or nothing, also if the machine stops in the middle.
fn write(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let part = file.with_extension("part");
    let mut written = std::fs::File::create(&part)?;
    written.write_all(bytes)?;
    written.sync_all()?;
    std::fs::rename(&part, file)
}
