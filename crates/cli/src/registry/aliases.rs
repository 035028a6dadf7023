//! Which versions aliases name, for the metrics, which must not wait for a database.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::metrics::{Alias, Aliases};

use super::Followed;

/// How often is asked although nothing of what is assigned has changed.
const AGAIN: Duration = Duration::from_secs(30);

/// What the aliases of the models that are assigned name: asked from now on whenever the assignments
/// change, and known from memory. While the registry is away it is what it was.
pub fn aliases(followed: &Arc<Followed>) -> Aliases {
    let known = Arc::new(Mutex::new(Vec::new()));
    let (followed, writes) = (followed.clone(), known.clone());
    tokio::spawn(async move {
        let registry = followed.connected().await;
        let mut assigned = followed.assignments();
        loop {
            let names = assigned.borrow_and_update().models.clone();
            match registry.models().await {
                Ok(mut models) => {
                    models.retain(|model| names.contains_key(&model.name));
                    let all = models.iter().flat_map(|model| {
                        model.aliases.iter().map(|(alias, version)| Alias {
                            model: model.name.clone(),
                            alias: alias.clone(),
                            version: version.to_string(),
                        })
                    });
                    *writes.lock().unwrap_or_else(PoisonError::into_inner) = all.collect();
                }
                Err(error) => tracing::debug!(%error, "the aliases stay as they were known"),
            }
            if let Ok(Err(_)) = tokio::time::timeout(AGAIN, assigned.changed()).await {
                return;
            }
        }
    });
    Arc::new(move || known.lock().unwrap_or_else(PoisonError::into_inner).clone())
}
