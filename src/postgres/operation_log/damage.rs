//! Damaged logs: closing them for writing when that is found, and mending them when an administrator opens them again.
//!
//! Mending invents nothing and loses nothing that reads back. A row that does not is emptied, and its bytes are kept in quarantine;
//! a gap is filled with an empty row; the head goes to the end. All of it, and every row after, gets a new tip, so that every node
//! loads the document again, through the gate, which sorts out what does not continue. What the rows held that are empty now, clients
//! that still have it bring back.

use super::quarantine::{Kept, keep};
use super::{away, number, read, row_codec, snapshots, stored};
use crate::postgres::TenantTx;
use contextnexus_actors::causes::Cause;
use contextnexus_actors::ids::{DocumentId, Position, Tip};
use contextnexus_actors::ports::log::{Damage, DamageKind, LogError, QuarantineReason};
use contextnexus_actors::report;
use uuid::Uuid;

/// Closed because rows kept breaking whoever folded them.
pub const BROKEN_FOLDS: &str = "broken_folds";

/// See [`OperationLog::close_for_writing`](contextnexus_actors::ports::OperationLog::close_for_writing). Says so once, when it is committed
/// by the caller. A head that is missing is made anew, at the end of the rows.
pub(super) async fn close(db: &mut TenantTx, document: DocumentId, damage: Damage) -> Result<bool, LogError> {
    let reason = damage.kind.as_str();
    let closed = sqlx::query!(
        "update document_heads set read_only_since = now(), read_only_reason = $3
          where tenant_id = $1 and document_id = $2 and read_only_since is null",
        db.tenant.0,
        document.0,
        reason
    )
    .execute(&mut *db.tx)
    .await
    .map_err(away)?;
    let made = sqlx::query!(
        "insert into document_heads (tenant_id, document_id, seq, tip, deleted, read_only_since, read_only_reason)
         select d.tenant_id, d.id, coalesce(r.seq_to, 0), coalesce(r.tip, '00000000-0000-0000-0000-000000000000'),
                d.deleted_at is not null, now(), $3
           from content_items d
           left join lateral (select seq_to, tip from operations_log
                               where tenant_id = d.tenant_id and document_id = d.id
                               order by seq_from desc limit 1) as r on true
          where d.tenant_id = $1 and d.id = $2
             on conflict do nothing",
        db.tenant.0,
        document.0,
        reason
    )
    .execute(&mut *db.tx)
    .await
    .map_err(away)?;
    Ok(closed.rows_affected() + made.rows_affected() > 0)
}

/// Says that a document was closed.
pub(super) fn say_closed(document: DocumentId, damage: Damage) {
    metrics::counter!("contextnexus_documents_closed_for_writing_total").increment(1);
    report!(
        Cause::Damage, document.id = %document, seq = damage.seq_from, reason = damage.kind.as_str(),
        "document {document} is damaged: {damage}. What is before that is only read from now on. Restore the document from a backup, or \
         open it again as it is (POST /v1/documents/{document}/reopen)"
    );
}

/// What was done to a document that was opened again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mended {
    /// Rows whose bytes are in quarantine now.
    pub rows: u64,
    /// Numbers that were missing.
    pub numbers: u64,
}

/// Opens a document for writing again, mended where its log was damaged; `new_tip` is fresh. Repeating it is no error.
#[tracing::instrument(name = "pg.log.reopen", skip_all, fields(document.id = %document), err(level = "debug"))]
pub async fn reopen(db: &mut TenantTx, document: DocumentId, new_tip: Tip) -> Result<Mended, LogError> {
    let head = match lock(db, document).await? {
        Some(head) => head,
        None => {
            close(db, document, Damage { kind: DamageKind::LostHead, seq_from: 1 }).await?;
            lock(db, document).await?.ok_or(LogError::NoSuchDocument)?
        }
    };
    let mended = if head.is_damaged { mend(db, document, head.position, new_tip).await? } else { Mended::default() };
    sqlx::query!(
        "update document_heads set read_only_since = null, read_only_reason = null
          where tenant_id = $1 and document_id = $2",
        db.tenant.0,
        document.0
    )
    .execute(&mut *db.tx)
    .await
    .map_err(away)?;
    Ok(mended)
}

struct LockedHead {
    position: Position,
    is_damaged: bool,
}

async fn lock(db: &mut TenantTx, document: DocumentId) -> Result<Option<LockedHead>, LogError> {
    let head = sqlx::query!(
        "select seq, tip, read_only_reason from document_heads
          where tenant_id = $1 and document_id = $2 for no key update",
        db.tenant.0,
        document.0
    )
    .fetch_optional(&mut *db.tx)
    .await
    .map_err(away)?;
    Ok(head.map(|head| LockedHead {
        position: Position { seq: number(head.seq), tip: Tip(head.tip) },
        is_damaged: head.read_only_reason.is_some_and(|reason| reason != BROKEN_FOLDS),
    }))
}

/// The caller has locked the head.
async fn mend(db: &mut TenantTx, document: DocumentId, head: Position, new_tip: Tip) -> Result<Mended, LogError> {
    let snapshot = snapshots::newest_sound(db, &[document]).await?.pop().flatten();
    let start = snapshot.map_or(Position::START, |snapshot| snapshot.position);
    let rows = read::rows_after(&mut db.tx, db.tenant, &[(document, start.seq)]).await?.pop().unwrap_or_default();
    // A row ends before the next one begins, whatever it says itself.
    let ends: Vec<Option<i64>> = rows.iter().skip(1).map(|next| Some(next.seq_from - 1)).chain([None]).collect();
    let (mut at, mut mended) = (start, Mended::default());
    // What begins here or later is another history from now on.
    let mut from: Option<i64> = None;
    let last = rows.last().map(|row| row.seq_from);
    for (row, end) in rows.into_iter().zip(ends) {
        let (seq_from, seq_to) = (row.seq_from, row.seq_to);
        if number(seq_from) > at.seq + 1 {
            let missing = (stored(at.seq + 1), seq_from - 1);
            fill(db, document, missing, new_tip).await?;
            from.get_or_insert(missing.0);
            mended.numbers += number(seq_from) - at.seq - 1;
        }
        let tip = Tip(row.tip);
        match row.sound(document, number(seq_from) - 1) {
            Ok(row) => at = Position { seq: row.seq_to, tip },
            Err(_) => {
                let known = if (seq_from..=stored(head.seq)).contains(&seq_to) { seq_to } else { seq_from };
                let seq_to = end.unwrap_or(known);
                empty(db, document, (seq_from, seq_to)).await?;
                from.get_or_insert(seq_from);
                mended.rows += 1;
                at = Position { seq: number(seq_to), tip };
            }
        }
    }
    if head.seq > at.seq {
        // The log ends earlier, and what is written there now is not what was lost.
        mended.numbers += head.seq - at.seq;
        from = from.or(last);
    }
    if let Some(from) = from {
        sqlx::query!(
            "update operations_log set tip = $4 where tenant_id = $1 and document_id = $2 and seq_from >= $3",
            db.tenant.0,
            document.0,
            from,
            new_tip.0
        )
        .execute(&mut *db.tx)
        .await
        .map_err(away)?;
        snapshots::discard(db, document, number(from)).await?;
        at.tip = new_tip;
    }
    sqlx::query!(
        "update document_heads set seq = $3, tip = $4 where tenant_id = $1 and document_id = $2",
        db.tenant.0,
        document.0,
        stored(at.seq),
        at.tip.0
    )
    .execute(&mut *db.tx)
    .await
    .map_err(away)?;
    Ok(mended)
}

/// Puts an empty row where numbers are missing, as one in quarantine is.
async fn fill(
    db: &mut TenantTx,
    document: DocumentId,
    (seq_from, seq_to): (i64, i64),
    tip: Tip,
) -> Result<(), LogError> {
    sqlx::query!(
        "insert into operations_log (tenant_id, document_id, seq_from, seq_to, append_id, tip, user_session_id, seen_seq,
                                     codec, raw_bytes, updates, checksum)
         values ($1, $2, $3, $4, $5, $5, $6, 0, 0, 0, '', $7)",
        db.tenant.0,
        document.0,
        seq_from,
        seq_to,
        tip.0,
        Uuid::nil(),
        row_codec::row_checksum(document, seq_from, seq_to, &[])
    )
    .execute(&mut *db.tx)
    .await
    .map_err(away)?;
    Ok(())
}

/// Empties a row that does not read back, and keeps its bytes, as one lump: they are no updates any more, so no resend is known by them.
async fn empty(db: &mut TenantTx, document: DocumentId, (seq_from, seq_to): (i64, i64)) -> Result<(), LogError> {
    let row = sqlx::query!(
        "select user_session_id, author_id, relayed_by, updates from operations_log
          where tenant_id = $1 and document_id = $2 and seq_from = $3",
        db.tenant.0,
        document.0,
        seq_from
    )
    .fetch_one(&mut *db.tx)
    .await
    .map_err(away)?;
    if !row.updates.is_empty() {
        let reason = QuarantineReason::CorruptRow;
        let user = row.author_id.or(row.relayed_by);
        let kept = Kept { seq: None, reason, update: &row.updates, session: Some(row.user_session_id), user };
        keep(db, document, kept).await?;
    }
    sqlx::query!(
        "update operations_log set seq_to = $4, updates = '', codec = 0, raw_bytes = 0, checksum = $5
          where tenant_id = $1 and document_id = $2 and seq_from = $3",
        db.tenant.0,
        document.0,
        seq_from,
        seq_to,
        row_codec::row_checksum(document, seq_from, seq_to, &[])
    )
    .execute(&mut *db.tx)
    .await
    .map_err(away)?;
    Ok(())
}
