//! Removes what has ended: idempotency keys and sessions. Every node does it, now and then; two at once disturb nobody.

use crate::config::Retention;
use crate::postgres::{self, Database, StoreError, tenants, upkeep};
use contextnexus_actors::ids::TenantId;
use std::time::Duration;

/// Rows in one transaction: a few milliseconds.
const ROWS_MAX: i64 = 500;
/// Between two transactions that were full, so that upkeep after a long pause takes no more than its share.
const PAUSE: Duration = Duration::from_millis(50);
/// Tenants that are looked up at once.
const TENANTS_MAX: i64 = 500;

/// What one round has removed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Removed {
    /// Idempotency keys.
    pub idempotency_keys: u64,
    /// Sessions: logins, tokens and tickets.
    pub sessions: u64,
}

/// Makes a round every `upkeep_interval_s`, the first after a random part of it. Runs for ever.
pub async fn keep_up(database: Database, retention: Retention) {
    let interval = Duration::from_secs(retention.upkeep_interval_s);
    // Nodes that started together do not all look together.
    tokio::time::sleep(interval.mul_f64(rand::random_range(0.0..1.0))).await;
    loop {
        match round(&database, &retention).await {
            Ok(Removed { idempotency_keys: 0, sessions: 0 }) => {}
            Ok(removed) => tracing::info!(
                "upkeep: removed {} idempotency keys and {} sessions that ended",
                removed.idempotency_keys,
                removed.sessions
            ),
            Err(error) => tracing::warn!(error = %crate::commands::chain(&error), "upkeep goes on next time"),
        }
        tokio::time::sleep(interval).await;
    }
}

/// Looks at every tenant once.
pub async fn round(database: &Database, retention: &Retention) -> Result<Removed, StoreError> {
    let mut removed = Removed::default();
    let mut after = None;
    loop {
        let tenants = tenants::ids(database, after, TENANTS_MAX).await?;
        let Some(last) = tenants.last() else { break };
        after = Some(*last);
        for tenant in tenants {
            let of_tenant = of_tenant(database, retention, tenant).await?;
            removed.idempotency_keys += of_tenant.idempotency_keys;
            removed.sessions += of_tenant.sessions;
        }
    }
    for (what, count) in [("idempotency_keys", removed.idempotency_keys), ("sessions", removed.sessions)] {
        metrics::counter!("contextnexus_upkeep_removed_total", "what" => what).increment(count);
    }
    Ok(removed)
}

async fn of_tenant(database: &Database, retention: &Retention, tenant: TenantId) -> Result<Removed, StoreError> {
    let mut removed = Removed::default();
    loop {
        let mut db = postgres::begin(database, tenant).await?;
        let keys = upkeep::remove_idempotency_keys(&mut db, retention.idempotency_keys_h, ROWS_MAX).await?;
        let sessions = upkeep::remove_ended_sessions(&mut db, retention.ended_sessions_days, ROWS_MAX).await?;
        db.commit().await?;
        removed.idempotency_keys += keys;
        removed.sessions += sessions;
        if keys.max(sessions) < ROWS_MAX.unsigned_abs() {
            return Ok(removed);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
