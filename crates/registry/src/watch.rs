//! Following the assignments.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::Assignments;
use sqlx::postgres::PgListener;
use tokio::sync::watch;

use crate::database::Kind;
use crate::{Registry, Result};

/// How often SQLite is asked whether anything has changed: one row, from memory.
const POLL: Duration = Duration::from_millis(200);
/// How often PostgreSQL is asked although it tells: a message may be lost with its connection.
const DOUBT: Duration = Duration::from_secs(5);
/// How often versions that were kept warm are looked through.
const COOLING: Duration = Duration::from_secs(10);

impl Registry {
    /// The assignments now, and from then on: every change reaches the receiver well within a
    /// second. A champion's predecessor stays assigned for `keep_warm`. While the database is away
    /// the receiver keeps what was last known. Ends when all receivers are dropped.
    pub async fn watch(
        self: &Arc<Self>,
        keep_warm: Duration,
    ) -> Result<watch::Receiver<Assignments>> {
        // Listening begins before the first look, so that nothing falls in between.
        let mut listener = self.listen().await;
        let sequence = self.database.sequence().await?;
        let (sender, receiver) = watch::channel(self.assignments(keep_warm).await?);
        let registry = self.clone();
        tokio::spawn(async move {
            let (mut seen, mut looked, mut away) = (sequence, Instant::now(), false);
            loop {
                tokio::select! {
                    () = sender.closed() => return,
                    () = wait(&mut listener, registry.database.kind()) => {}
                }
                if listener.is_none() {
                    listener = registry.listen().await;
                }
                // Keeping a version warm ends without anybody changing anything.
                if looked.elapsed() > COOLING {
                    (seen, looked) = (-1, Instant::now());
                }
                // Said once, however often it is asked.
                match (registry.look(&mut seen, keep_warm, &sender).await, away) {
                    (Err(error), false) => tracing::warn!(
                        %error,
                        "the registry does not answer; what was last known stays"
                    ),
                    (Ok(()), true) => tracing::info!("the registry answers again"),
                    _ => continue,
                }
                away = !away;
            }
        });
        Ok(receiver)
    }

    /// Sends the assignments if there has been any change.
    async fn look(
        &self,
        seen: &mut i64,
        keep_warm: Duration,
        sender: &watch::Sender<Assignments>,
    ) -> Result<()> {
        let sequence = self.database.sequence().await?;
        if sequence == *seen {
            return Ok(());
        }
        let assignments = self.assignments(keep_warm).await?;
        *seen = sequence;
        sender.send_if_modified(|known| {
            let differs = *known != assignments;
            if differs {
                *known = assignments;
            }
            differs
        });
        Ok(())
    }

    /// A connection on which PostgreSQL tells of changes, if it is there.
    async fn listen(&self) -> Option<PgListener> {
        if self.database.kind() != Kind::Postgres {
            return None;
        }
        let listener = async {
            let mut listener = PgListener::connect(self.database.url()).await?;
            listener.listen("modelyard").await?;
            Ok::<_, sqlx::Error>(listener)
        };
        listener
            .await
            .inspect_err(|error| tracing::debug!(%error, "cannot listen for changes"))
            .ok()
    }
}

/// Waits until something may have changed. A listener whose connection broke is dropped.
async fn wait(listener: &mut Option<PgListener>, kind: Kind) {
    let Some(listening) = listener else {
        // Without a listener PostgreSQL is asked as often as SQLite.
        return tokio::time::sleep(POLL).await;
    };
    debug_assert_eq!(kind, Kind::Postgres);
    match tokio::time::timeout(DOUBT, listening.try_recv()).await {
        // Time for a look, or news.
        Err(_) | Ok(Ok(Some(_))) => {}
        Ok(Ok(None) | Err(_)) => *listener = None,
    }
}
