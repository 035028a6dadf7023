//! Saying in the registry what this server holds.

use std::sync::Arc;
use std::time::Duration;

use ::registry::{Holding, Registry};
use serving::{Serving, State, Status};
use tokio::time::Instant;

/// How often a server looks whether something has changed.
const LOOK: Duration = Duration::from_secs(1);
/// How often it says that it is there although nothing has.
const ALIVE: Duration = Duration::from_secs(10);

/// A name that no other server has, nor this one after another start.
pub fn made_up_name() -> String {
    format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

/// Says what this server holds for as long as it is polled.
pub async fn say(registry: Arc<Registry>, name: &str, address: &str, serving: Serving) {
    let (mut said, mut when) = (None, Instant::now());
    loop {
        let holds: Vec<Holding> = serving.status().iter().map(holding).collect();
        if said.as_ref() != Some(&holds) || when.elapsed() >= ALIVE {
            match registry.hold(name, address, &holds).await {
                Ok(()) => (said, when) = (Some(holds), Instant::now()),
                // Whoever follows the registry has said that it is away.
                Err(error) => tracing::debug!(%error, "cannot say what this server holds"),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn holding(status: &Status) -> Holding {
    let (state, reason) = match &status.state {
        State::Ready => ("READY", status.failure.clone()),
        State::Loading => ("LOADING", None),
        State::Unloading => ("UNLOADING", None),
        State::Unavailable(reason) => ("UNAVAILABLE", reason.clone()),
        // As the repository index has it: it can be asked for, and is loaded then.
        State::OnDemand => ("ON_DEMAND", None),
    };
    Holding {
        model: status.name.to_string(),
        version: status.version.to_string(),
        state: state.to_owned(),
        reason,
    }
}
