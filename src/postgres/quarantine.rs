//! Looking at what was quarantined: whose it was and why, and the bytes. Who puts it there is the operation log.

use super::operation_log::row_codec;
use super::{StoreError, TenantTx};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use contextnexus_actors::ids::{DocumentId, UserId, UserSessionId};

/// BLAKE3 of the bytes: by it a resend is known, and this is its name.
pub type UpdateHash = [u8; 32];

/// An update that must not be folded again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quarantined {
    /// Its name.
    pub hash: UpdateHash,
    /// Its number in the log; none when it never entered.
    pub seq: Option<u64>,
    /// A word: `fork`, `panic`, …
    pub reason: String,
    /// Its size.
    pub bytes: u64,
    /// Which user session sent it, where that is known.
    pub user_session: Option<UserSessionId>,
    /// Whose it is, where that is known.
    pub user: Option<UserId>,
    /// When it was put there.
    pub created_at: DateTime<Utc>,
}

/// What was quarantined of a document, newest first, what comes after `after`. `of`: of this user alone.
#[tracing::instrument(name = "pg.quarantine.list", skip_all, fields(document.id = %document), err(level = "debug"))]
pub async fn list(
    db: &mut TenantTx,
    document: DocumentId,
    of: Option<UserId>,
    after: Option<UpdateHash>,
    limit: i64,
) -> Result<Vec<Quarantined>, StoreError> {
    let rows = sqlx::query!(
        "select update_hash, seq, reason, raw_bytes, user_session_id, user_id, created_at from quarantine
          where tenant_id = $1 and document_id = $2 and ($3::uuid is null or user_id = $3)
            and ($4::bytea is null or (created_at, update_hash) <
                 (select created_at, update_hash from quarantine
                   where tenant_id = $1 and document_id = $2 and update_hash = $4))
          order by created_at desc, update_hash desc limit $5",
        db.tenant.0,
        document.0,
        of.map(|user| user.0),
        after.as_ref().map(|hash| &hash[..]),
        limit
    )
    .fetch_all(&mut *db.tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Quarantined {
            hash: row.update_hash.try_into().unwrap_or_default(), // 32 bytes, says a check of the table
            seq: row.seq.map(i64::unsigned_abs),
            reason: row.reason,
            bytes: u64::from(row.raw_bytes.unsigned_abs()),
            user_session: row.user_session_id.map(UserSessionId),
            user: row.user_id.map(UserId),
            created_at: row.created_at,
        })
        .collect())
}

/// The bytes of one of them, as they were sent. [`StoreError::NotFound`] also for one of somebody else than `of`.
#[tracing::instrument(name = "pg.quarantine.bytes", skip_all, fields(document.id = %document), err(level = "debug"))]
pub async fn bytes(
    db: &mut TenantTx,
    document: DocumentId,
    of: Option<UserId>,
    hash: &UpdateHash,
) -> Result<Bytes, StoreError> {
    let row = sqlx::query!(
        "select codec, raw_bytes, update from quarantine
          where tenant_id = $1 and document_id = $2 and update_hash = $3 and ($4::uuid is null or user_id = $4)",
        db.tenant.0,
        document.0,
        &hash[..],
        of.map(|user| user.0)
    )
    .fetch_optional(&mut *db.tx)
    .await?
    .ok_or(StoreError::NotFound { entity: "quarantined update" })?;
    let bytes = row_codec::decompress(row.codec, row.raw_bytes, row.update)
        .ok_or_else(|| StoreError::Database(sqlx::Error::Decode("a quarantined update does not unpack".into())))?;
    Ok(bytes.into())
}
