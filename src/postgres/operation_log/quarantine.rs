//! Taking bytes out of a log that must not be folded again, without losing them.

use super::damage::BROKEN_FOLDS;
use super::row_codec::{self, Compressed};
use super::{away, number, snapshots, stored};
use crate::postgres::TenantTx;
use contextnexus_actors::ids::DocumentId;
use contextnexus_actors::ports::log::{LogError, Quarantine, QuarantineReason, TakenOut};
use uuid::Uuid;

/// Takes as much as it must out of the row that starts at `what.seq_from` and gives it, every row after it, and the head the new tip:
/// whoever folded it, up to wherever, no longer stands on a prefix of the log. A row of which it was taken already is left alone.
pub(super) async fn row(db: &mut TenantTx, document: DocumentId, what: Quarantine) -> Result<(), LogError> {
    let seq_from = stored(what.seq_from);
    sqlx::query!(
        "select seq from document_heads where tenant_id = $1 and document_id = $2 for no key update",
        db.tenant.0,
        document.0
    )
    .fetch_optional(&mut *db.tx)
    .await
    .map_err(away)?
    .ok_or(LogError::NoSuchDocument)?;
    let row = sqlx::query!(
        "select seq_to, user_session_id, author_id, relayed_by, codec, raw_bytes, updates from operations_log
          where tenant_id = $1 and document_id = $2 and seq_from = $3",
        db.tenant.0,
        document.0,
        seq_from
    )
    .fetch_optional(&mut *db.tx)
    .await
    .map_err(away)?
    .ok_or(LogError::Diverged)?;
    if row.raw_bytes == 0 {
        return Ok(());
    }
    let user = what.user.map(|user| user.0).or(row.author_id).or(row.relayed_by);
    let session = what.user_session.map_or(row.user_session_id, |session| session.0);
    let updates = row_codec::decompress(row.codec, row.raw_bytes, row.updates.clone()).and_then(row_codec::decode);
    let left = match updates {
        Some(updates) => what.leave(&updates),
        // A row that cannot even be read is kept as one lump.
        None => Some(TakenOut { updates: Vec::new(), kept: vec![(what.seq_from, row.updates.into())] }),
    };
    let Some(left) = left else { return Ok(()) };
    for (seq, update) in left.kept {
        let seq = Some(stored(seq));
        keep(db, document, Kept { seq, reason: what.reason, update: &update, session: Some(session), user }).await?;
    }
    let too_large = |error: row_codec::TooLarge| LogError::Unavailable(Box::new(error));
    let framed = row_codec::encode(&left.updates).map_err(too_large)?;
    let checksum = row_codec::row_checksum(document, seq_from, row.seq_to, &framed);
    let packed = row_codec::compress(framed).map_err(too_large)?;
    sqlx::query!(
        "update operations_log set updates = $4, codec = $5, raw_bytes = $6, checksum = $7
          where tenant_id = $1 and document_id = $2 and seq_from = $3",
        db.tenant.0,
        document.0,
        seq_from,
        packed.bytes,
        packed.codec,
        packed.raw_bytes,
        checksum
    )
    .execute(&mut *db.tx)
    .await
    .map_err(away)?;
    sqlx::query!(
        "update operations_log set tip = $4 where tenant_id = $1 and document_id = $2 and seq_from >= $3",
        db.tenant.0,
        document.0,
        seq_from,
        what.new_tip.0
    )
    .execute(&mut *db.tx)
    .await
    .map_err(away)?;
    sqlx::query!(
        "update document_heads set tip = $3 where tenant_id = $1 and document_id = $2",
        db.tenant.0,
        document.0,
        what.new_tip.0
    )
    .execute(&mut *db.tx)
    .await
    .map_err(away)?;
    snapshots::discard(db, document, what.seq_from).await?;
    close_if_repeated(db, document).await?;
    tracing::error!(
        document.id = %document, seq = what.seq(), reason = what.reason.as_str(),
        "quarantined update {} of document {document} (its row is {} to {}): {}",
        what.seq(), what.seq_from, number(row.seq_to), what.reason
    );
    Ok(())
}

/// So many rows that broke what folded them, within so many minutes, are more than an accident.
const BREAKING_MAX: i64 = 2;
const BREAKING_MINUTES: i32 = 10;

/// From the second row on that broke a fold within ten minutes the document is only read, until an administrator opens it again: somebody has
/// found a way through the gate, and each further row costs everybody a reload. The caller holds the head.
async fn close_if_repeated(db: &mut TenantTx, document: DocumentId) -> Result<(), LogError> {
    let breaking: Vec<String> = QuarantineReason::BREAKING.map(|reason| reason.as_str().to_owned()).into();
    let closed = sqlx::query!(
        "update document_heads set read_only_since = now(), read_only_reason = $6
          where tenant_id = $1 and document_id = $2 and read_only_since is null
            and $4 <= (select count(distinct created_at) from quarantine
                        where tenant_id = $1 and document_id = $2 and seq is not null and reason = any($3)
                          and created_at > now() - make_interval(mins => $5))",
        db.tenant.0,
        document.0,
        &breaking,
        BREAKING_MAX,
        BREAKING_MINUTES,
        BROKEN_FOLDS
    )
    .execute(&mut *db.tx)
    .await
    .map_err(away)?;
    if closed.rows_affected() > 0 {
        metrics::counter!("contextnexus_documents_closed_for_writing_total").increment(1);
        tracing::error!(
            document.id = %document,
            "document {document} is only read from now on: {BREAKING_MAX} of its rows within {BREAKING_MINUTES} minutes broke whoever folded them"
        );
    }
    Ok(())
}

/// Keeps bytes that never entered the log.
pub(super) async fn refused(db: &mut TenantTx, document: DocumentId, what: Quarantine) -> Result<(), LogError> {
    let kept = Kept {
        seq: None,
        reason: what.reason,
        update: &what.update,
        session: what.user_session.map(|session| session.0),
        user: what.user.map(|user| user.0),
    };
    keep(db, document, kept).await
}

/// Bytes to keep.
pub(super) struct Kept<'a> {
    pub seq: Option<i64>,
    pub reason: QuarantineReason,
    pub update: &'a [u8],
    pub session: Option<Uuid>,
    pub user: Option<Uuid>,
}

pub(super) async fn keep(db: &mut TenantTx, document: DocumentId, kept: Kept<'_>) -> Result<(), LogError> {
    let Compressed { codec, raw_bytes, bytes } =
        row_codec::compress(kept.update.to_vec()).map_err(|error| LogError::Unavailable(Box::new(error)))?;
    let hash = blake3::hash(kept.update);
    let insert = sqlx::query!(
        "insert into quarantine
             (tenant_id, document_id, update_hash, seq, reason, codec, raw_bytes, update, user_session_id, user_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         on conflict (tenant_id, document_id, update_hash) do update set seq = coalesce(quarantine.seq, excluded.seq)",
        db.tenant.0,
        document.0,
        &hash.as_bytes()[..],
        kept.seq,
        kept.reason.as_str(),
        codec,
        raw_bytes,
        bytes,
        kept.session,
        kept.user
    );
    match insert.execute(&mut *db.tx).await {
        Ok(_) => {
            metrics::counter!("contextnexus_quarantined_total", "reason" => kept.reason.as_str()).increment(1);
            Ok(())
        }
        Err(error) if error.as_database_error().is_some_and(|error| error.is_foreign_key_violation()) => {
            Err(LogError::NoSuchDocument)
        }
        Err(error) => Err(away(error)),
    }
}
