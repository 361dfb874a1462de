//! Reading a log, and believing nothing of it before its checksums, numbers and tips agree.

use super::frames;
use super::snapshots;
use super::{away, number, stored};
use crate::postgres::TenantTx;
use contextnexus_actors::ids::{AppendId, DocumentId, DocumentKey, Position, Tip};
use contextnexus_actors::ports::log::{Head, LogError, LogRow, Stored, Tail};
use sqlx::PgConnection;
use uuid::Uuid;

/// See [`OperationLog::load`](contextnexus_actors::ports::OperationLog::load). `db` reads one instant.
pub(super) async fn load(db: &mut TenantTx, document: DocumentId) -> Result<Stored, LogError> {
    let key = DocumentKey { tenant: db.tenant(), document };
    let head = head(&mut db.tx, key).await?;
    let snapshot = snapshots::newest_sound(db, document).await?;
    let from = snapshot.as_ref().map_or(Position::START, |snapshot| snapshot.position);
    let rows = rows_between(&mut db.tx, key, from, head.position).await?;
    let kept = sqlx::query!(
        r#"select seq as "seq!", codec, raw_bytes, update from quarantine
            where tenant_id = $1 and document_id = $2 and seq is not null order by seq"#,
        key.tenant.0,
        document.0
    )
    .fetch_all(&mut *db.tx)
    .await
    .map_err(away)?;
    let mut quarantined = Vec::with_capacity(kept.len());
    for update in kept {
        let unpacked = frames::unpack(update.codec, update.raw_bytes, update.update);
        quarantined.push(unpacked.ok_or(LogError::Corrupt { seq_from: number(update.seq) })?.into());
    }
    Ok(Stored { snapshot, tail: Tail { rows, head }, quarantined })
}

/// See [`OperationLog::tail`](contextnexus_actors::ports::OperationLog::tail). `connection` is in a transaction of the tenant that
/// reads one instant, or holds the head's lock.
pub(super) async fn tail(connection: &mut PgConnection, key: DocumentKey, held: Position) -> Result<Tail, LogError> {
    let head = head(connection, key).await?;
    if head.position == held {
        return Ok(Tail { rows: Vec::new(), head });
    }
    if head.position.seq <= held.seq || !is_prefix(connection, key, held).await? {
        return Err(LogError::Diverged);
    }
    let rows = rows_between(connection, key, held, head.position).await?;
    Ok(Tail { rows, head })
}

/// See [`OperationLog::changed_heads`](contextnexus_actors::ports::OperationLog::changed_heads).
pub(super) async fn changed_heads(
    db: &mut TenantTx,
    held: &[(DocumentId, Position)],
) -> Result<Vec<(DocumentId, Head)>, LogError> {
    let documents: Vec<Uuid> = held.iter().map(|(document, _)| document.0).collect();
    let seqs: Vec<i64> = held.iter().map(|(_, position)| stored(position.seq)).collect();
    let tips: Vec<Uuid> = held.iter().map(|(_, position)| position.tip.0).collect();
    let rows = sqlx::query!(
        r#"select held.document_id as "document_id!", h.seq as "seq?", h.tip as "tip?", h.deleted as "deleted?"
             from unnest($2::uuid[], $3::bigint[], $4::uuid[]) as held (document_id, seq, tip)
             left join document_heads h on h.tenant_id = $1 and h.document_id = held.document_id
            where h.document_id is null or h.deleted or h.seq <> held.seq or h.tip <> held.tip"#,
        db.tenant().0,
        &documents,
        &seqs,
        &tips
    )
    .fetch_all(&mut *db.tx)
    .await
    .map_err(away)?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let head = match (row.seq, row.tip, row.deleted) {
                (Some(seq), Some(tip), Some(deleted)) => {
                    Head { position: Position { seq: number(seq), tip: Tip(tip) }, deleted }
                }
                _ => Head { position: Position::START, deleted: false },
            };
            (DocumentId(row.document_id), head)
        })
        .collect())
}

/// The end of the log.
pub(super) async fn head(connection: &mut PgConnection, key: DocumentKey) -> Result<Head, LogError> {
    let row = sqlx::query!(
        "select seq, tip, deleted from document_heads where tenant_id = $1 and document_id = $2",
        key.tenant.0,
        key.document.0
    )
    .fetch_optional(connection)
    .await
    .map_err(away)?
    .ok_or(LogError::NoSuchDocument)?;
    Ok(Head { position: Position { seq: number(row.seq), tip: Tip(row.tip) }, deleted: row.deleted })
}

/// Whether a row ends at `held` and carries its tip.
async fn is_prefix(connection: &mut PgConnection, key: DocumentKey, held: Position) -> Result<bool, LogError> {
    if held.seq == 0 {
        return Ok(held == Position::START);
    }
    let row = sqlx::query!(
        "select seq_to, tip from operations_log
          where tenant_id = $1 and document_id = $2 and seq_from <= $3 order by seq_from desc limit 1",
        key.tenant.0,
        key.document.0,
        stored(held.seq)
    )
    .fetch_optional(connection)
    .await
    .map_err(away)?;
    Ok(row.is_some_and(|row| number(row.seq_to) == held.seq && row.tip == held.tip.0))
}

/// The rows after `from` up to the head, checked: each sound, without a gap, the last one with the head's tip.
async fn rows_between(
    connection: &mut PgConnection,
    key: DocumentKey,
    from: Position,
    head: Position,
) -> Result<Vec<LogRow>, LogError> {
    let stored_rows = sqlx::query!(
        "select seq_from, seq_to, append_id, tip, codec, raw_bytes, updates, checksum
           from operations_log where tenant_id = $1 and document_id = $2 and seq_from > $3 order by seq_from",
        key.tenant.0,
        key.document.0,
        stored(from.seq)
    )
    .fetch_all(connection)
    .await
    .map_err(away)?;
    let mut rows = Vec::with_capacity(stored_rows.len());
    let mut at = from;
    for row in stored_rows {
        let corrupt = LogError::Corrupt { seq_from: number(row.seq_from) };
        if number(row.seq_from) != at.seq + 1 {
            return Err(LogError::Corrupt { seq_from: at.seq + 1 });
        }
        let Some(framed) = frames::unpack(row.codec, row.raw_bytes, row.updates) else { return Err(corrupt) };
        if frames::row_checksum(key.document, row.seq_from, row.seq_to, &framed) != row.checksum {
            return Err(corrupt);
        }
        let Some(updates) = frames::unframe(framed) else { return Err(corrupt) };
        let expected = number(row.seq_to - row.seq_from) + 1;
        if !updates.is_empty() && updates.len() as u64 != expected {
            return Err(corrupt);
        }
        at = Position { seq: number(row.seq_to), tip: Tip(row.tip) };
        rows.push(LogRow {
            seq_from: number(row.seq_from),
            seq_to: at.seq,
            append_id: AppendId(row.append_id),
            tip: at.tip,
            updates,
        });
    }
    if at != head {
        let seq_from = rows.last().map_or(from.seq + 1, |row| row.seq_from);
        return Err(LogError::Corrupt { seq_from });
    }
    Ok(rows)
}
