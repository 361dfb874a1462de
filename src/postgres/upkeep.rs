//! Removes what nobody can use any longer. Each question removes a few rows, so that no transaction is long; asked again until it
//! answers with fewer than it was allowed, it has removed all.

use super::{StoreError, TenantTx};

/// Removes idempotency keys that are older than `hours`, at most `rows_max`. A request that comes again later is a new one.
#[tracing::instrument(name = "pg.upkeep.remove_idempotency_keys", skip_all, fields(tenant.id = %db.tenant), err(level = "debug"))]
pub async fn remove_idempotency_keys(db: &mut TenantTx, hours: i32, rows_max: i64) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "delete from idempotency_keys where ctid = any (array(
             select ctid from idempotency_keys
              where tenant_id = $1 and created_at < now() - make_interval(hours => $2) order by created_at limit $3))
           and tenant_id = $1",
        db.tenant.0,
        hours,
        rows_max
    )
    .execute(&mut *db.tx)
    .await?;
    Ok(done.rows_affected())
}

/// Removes sessions (logins, tokens, tickets) that ended `days` ago, at most `rows_max`, and what was made with them, which ended with
/// them. What somebody wrote keeps its author; only the session is no longer known.
#[tracing::instrument(name = "pg.upkeep.remove_ended_sessions", skip_all, fields(tenant.id = %db.tenant), err(level = "debug"))]
pub async fn remove_ended_sessions(db: &mut TenantTx, days: i32, rows_max: i64) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "delete from user_sessions where ctid = any (array(
             select ctid from user_sessions
              where tenant_id = $1 and least(expires_at, revoked_at) < now() - make_interval(days => $2)
              order by least(expires_at, revoked_at) limit $3))
           and tenant_id = $1",
        db.tenant.0,
        days,
        rows_max
    )
    .execute(&mut *db.tx)
    .await?;
    Ok(done.rows_affected())
}
