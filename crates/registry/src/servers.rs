//! What each server that follows the registry says of itself.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::rollouts::{json, parsed};
use crate::{Registry, Result, database};

/// How long a server is remembered that says nothing.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A server that was heard of not long ago.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Server {
    /// Made up when it was started.
    pub id: String,
    /// Where it is reached, as it says.
    pub address: String,
    /// When it was last heard of.
    pub seen: Timestamp,
    /// The versions that it holds.
    pub holds: Vec<Holding>,
}

/// A version on a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The model.
    pub model: String,
    /// The version.
    pub version: String,
    /// `LOADING`, `READY`, `UNLOADING` or `UNAVAILABLE`.
    pub state: String,
    /// Why, if it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Registry {
    /// Says what a server holds. Those that were not heard of for a day are forgotten.
    pub async fn hold(&self, id: &str, address: &str, holds: &[Holding]) -> Result<()> {
        sqlx::query("DELETE FROM servers WHERE seen <= $1")
            .bind(self.database.ago(DAY))
            .execute(self.database.pool())
            .await?;
        sqlx::query(
            "INSERT INTO servers (id, address, seen, holds) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id) DO UPDATE SET address = excluded.address, seen = excluded.seen, \
             holds = excluded.holds",
        )
        .bind(id)
        .bind(address)
        .bind(self.database.now())
        .bind(json(&holds)?)
        .execute(self.database.pool())
        .await?;
        Ok(())
    }

    /// Says that a server has stopped.
    pub async fn forget_server(&self, id: &str) -> Result<()> {
        let delete = sqlx::query("DELETE FROM servers WHERE id = $1").bind(id);
        delete.execute(self.database.pool()).await?;
        Ok(())
    }

    /// The servers that were heard of within `age`, by address.
    pub async fn servers(&self, age: Duration) -> Result<Vec<Server>> {
        let rows = sqlx::query("SELECT * FROM servers WHERE seen > $1")
            .bind(self.database.ago(age))
            .fetch_all(self.database.pool())
            .await?;
        let server = |row: &AnyRow| {
            Ok(Server {
                id: row.try_get("id")?,
                address: row.try_get("address")?,
                seen: database::timestamp(row.try_get("seen")?)?,
                holds: parsed(row.try_get("holds")?)?,
            })
        };
        let mut servers = rows.iter().map(server).collect::<Result<Vec<_>>>()?;
        servers.sort_by(|a, b| (&a.address, &a.id).cmp(&(&b.address, &b.id)));
        Ok(servers)
    }
}
