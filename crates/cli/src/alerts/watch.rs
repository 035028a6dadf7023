//! Looking at the server's own metrics and at what happens in its registry, and doing what alerts
//! want done.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use api::Api;
use api::metrics::{Facts, Value as Metric, table::Kind};
use jiff::Timestamp;
use model::ErrorCode;
use monitor::alerts::{Act, Desk, Event as Happened, Labels, Order, Sample, Value};
use registry::{By, CHAMPION, Event, Record, Registry};
use tokio::time::MissedTickBehavior;

/// Records of the registry's history that are looked at in one go.
const AT_ONCE: usize = 500;

/// The note that asks for a model to be trained again.
pub const RETRAIN: &str = "retrain.requested";

/// Looks for ever, and delivers what follows.
pub async fn watch(desk: Desk, api: Api, registry: Option<Arc<OnceLock<Arc<Registry>>>>) {
    let delivering = desk.clone();
    tokio::spawn(async move { delivering.deliver().await });
    let mut ticks = tokio::time::interval(desk.every());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut seen, mut was_saved) = (None, true);
    loop {
        ticks.tick().await;
        let registry = registry.as_ref().and_then(|registry| registry.get().cloned());
        let events = match &registry {
            Some(registry) => news(registry, &mut seen).await,
            None => Vec::new(),
        };
        let (api, looking) = (api.clone(), desk.clone());
        let looked = tokio::task::spawn_blocking(move || {
            looking.look(Timestamp::now(), &samples(&api.facts()), &events)
        });
        match looked.await {
            Ok(Ok(())) => was_saved = true,
            Ok(Err(error)) if was_saved => {
                tracing::error!(%error, "alerts go out, but would not survive a restart");
                was_saved = false;
            }
            Ok(Err(_)) => {}
            Err(error) => tracing::error!(%error, "looking for alerts failed"),
        }
        while let Some(order) = desk.order() {
            if !carry_out(&order, registry.as_deref()).await {
                break;
            }
            desk.done(&order);
        }
    }
}

/// The metrics as rules look at them.
fn samples(facts: &Facts) -> Vec<Sample> {
    let mut samples = Vec::new();
    for family in facts.families() {
        for series in &family.series {
            let names = family.metric.labels.iter().map(|name| (*name).to_owned());
            let labels = names.zip(series.labels.iter().map(|label| label.to_string())).collect();
            let value = match (&series.value, family.metric.kind) {
                (Metric::Number(number), Kind::Counter) => Value::Counter(*number),
                (Metric::Number(number), _) => Value::Gauge(*number),
                (Metric::Distribution(of), _) => {
                    let buckets = of.buckets.iter().map(|(bound, count)| (*bound, *count as f64));
                    let all = std::iter::once((f64::INFINITY, of.count as f64));
                    Value::Histogram(buckets.chain(all).collect())
                }
            };
            samples.push(Sample { metric: family.metric.name.to_owned(), labels, value });
        }
    }
    samples
}

/// What has happened in the registry since the last time; nothing that happened before the first.
async fn news(registry: &Registry, seen: &mut Option<u64>) -> Vec<Happened> {
    match registry.news(*seen, AT_ONCE).await {
        Ok((records, latest)) => {
            *seen = Some(records.last().map_or(latest, |record| record.sequence));
            records.iter().filter_map(happened).collect()
        }
        // The next time it is asked from the same place on.
        Err(_) => Vec::new(),
    }
}

fn happened(record: &Record) -> Option<Happened> {
    let mut labels: Labels = BTreeMap::from([("model".to_owned(), record.model.clone())]);
    let name = match &record.event {
        Event::RolloutEnded { outcome, champion } => {
            labels.insert("champion".to_owned(), champion.to_string());
            format!("rollout.{}", outcome.as_str())
        }
        Event::RolloutStarted { .. } => "rollout.started".to_owned(),
        Event::RolloutPaused { paused: true } => "rollout.paused".to_owned(),
        Event::AliasMoved { alias, to, .. } => {
            labels.insert("alias".to_owned(), alias.clone());
            let version = to.map(|to| ("version".to_owned(), to.to_string()));
            labels.extend(version);
            "alias.moved".to_owned()
        }
        Event::Published { version, .. } => {
            labels.insert("version".to_owned(), version.to_string());
            "version.published".to_owned()
        }
        Event::Noted { key, .. } if key == RETRAIN => RETRAIN.to_owned(),
        _ => return None,
    };
    let text = match record.reason.is_empty() {
        true => format!("by {}", record.who),
        false => format!("{} (by {})", record.reason, record.who),
    };
    Some(Happened { name, labels, text, at: record.time })
}

/// Does what an alert wants done; whether it is over, be it that it cannot be done.
async fn carry_out(order: &Order, registry: Option<&Registry>) -> bool {
    let Some(registry) = registry else {
        tracing::error!(?order, "an alert wants something done that takes a registry");
        return true;
    };
    let by = By::new(format!("alert {}", order.alert)).because(&order.why);
    let done = match order.act {
        Act::PauseRollout => registry.pause_rollout(&order.model, true, &by).await.map(drop),
        Act::RollBack => roll_back(order, registry, &by).await,
        Act::Retrain => {
            registry.note(&order.model, None, RETRAIN, Some(order.why.clone()), &by).await.map(drop)
        }
    };
    match done {
        Ok(()) => {
            tracing::warn!(
                model = order.model,
                alert = order.alert,
                why = order.why,
                "an alert did: {:?}",
                order.act
            );
            true
        }
        // It will answer again.
        Err(error) if matches!(error.code(), ErrorCode::Unavailable | ErrorCode::Internal) => {
            tracing::error!(%error, ?order, "what an alert wants done is tried again");
            false
        }
        Err(error) => {
            tracing::warn!(%error, ?order, "what an alert wanted done is not");
            true
        }
    }
}

/// Takes back the version that the alert is about, and no other: a second server that says the same
/// finds it gone.
async fn roll_back(order: &Order, registry: &Registry, by: &By) -> registry::Result<()> {
    let version = order.version.as_ref().and_then(|version| version.parse::<u64>().ok());
    let refused = |why: String| Err(registry::Error::new(ErrorCode::FailedPrecondition, why));
    let Some(version) = version else { return refused("the alert names no version".to_owned()) };
    let champion = registry.now(&order.model).await?.aliases.get(CHAMPION).copied();
    match registry.rollout(&order.model).await? {
        Some(rollout) if rollout.candidates.contains(&version) => {
            registry.roll_back(&order.model, champion, by).await.map(drop)
        }
        Some(_) => refused(format!("version {version} is not what the rollout puts in place")),
        None => registry.roll_back(&order.model, Some(version), by).await.map(drop),
    }
}
