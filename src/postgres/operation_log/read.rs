//! Reading a log, and believing nothing of it before its checksums, numbers and tips agree.

use super::row_codec;
use super::{away, number, stored};
use crate::postgres::Database;
use contextnexus_actors::ids::{AppendId, DocumentId, DocumentKey, Position, TenantId, Tip, UserId};
use contextnexus_actors::ports::log::{Authorship, Damage, DamageKind, Head, LogError, LogRow, Tail};
use sqlx::PgConnection;
use uuid::Uuid;

/// A row as the tables hold it.
pub(super) struct StoredRow {
    pub seq_from: i64,
    pub seq_to: i64,
    pub append_id: Uuid,
    pub tip: Uuid,
    pub author: Option<Uuid>,
    pub relayed_by: Option<Uuid>,
    pub codec: i16,
    pub raw_bytes: i32,
    pub updates: Vec<u8>,
    pub checksum: i64,
}

/// What belongs to the `n`th that was asked for, counted from one.
pub(super) fn nth<T>(asked: &mut [T], n: i64) -> Option<&mut T> {
    asked.get_mut(usize::try_from(n).ok()?.checked_sub(1)?)
}

/// See [`OperationLog::tail`](contextnexus_actors::ports::OperationLog::tail). `connection` is in a transaction of the tenant that
/// reads one instant, or holds the head's lock.
pub(super) async fn tail(connection: &mut PgConnection, key: DocumentKey, base: Position) -> Result<Tail, LogError> {
    let head = heads(connection, key.tenant, &[key.document]).await?.pop().flatten().ok_or(LogError::NoSuchDocument)?;
    if head.position == base {
        return Ok(Tail { rows: Vec::new(), head });
    }
    if head.position.seq <= base.seq || !is_prefix(connection, key, base).await? {
        return Err(LogError::Diverged);
    }
    let rows = rows_after(connection, key.tenant, &[(key.document, base.seq)]).await?.pop().unwrap_or_default();
    Ok(Tail { rows: checked(key.document, base, head.position, rows)?, head })
}

/// See [`OperationLog::changed_heads`](contextnexus_actors::ports::OperationLog::changed_heads).
pub(super) async fn changed_heads(
    database: &Database,
    tenant: TenantId,
    known: &[(DocumentId, Position)],
) -> Result<Vec<(DocumentId, Head)>, LogError> {
    let documents: Vec<Uuid> = known.iter().map(|(document, _)| document.0).collect();
    let seqs: Vec<i64> = known.iter().map(|(_, position)| stored(position.seq)).collect();
    let tips: Vec<Uuid> = known.iter().map(|(_, position)| position.tip.0).collect();
    let question = sqlx::query!(
        r#"select document_id as "document_id!", seq, tip, deleted from changed_heads($1, $2, $3, $4)"#,
        tenant.0,
        &documents,
        &seqs,
        &tips
    );
    let rows = database.pinned.ask(question).await?;
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

/// Whether a row ends at `base` and carries its tip.
async fn is_prefix(connection: &mut PgConnection, key: DocumentKey, base: Position) -> Result<bool, LogError> {
    if base.seq == 0 {
        return Ok(base == Position::START);
    }
    let row = sqlx::query!(
        "select seq_to, tip from operations_log
          where tenant_id = $1 and document_id = $2 and seq_from <= $3 order by seq_from desc limit 1",
        key.tenant.0,
        key.document.0,
        stored(base.seq)
    )
    .fetch_optional(connection)
    .await
    .map_err(away)?;
    Ok(row.is_some_and(|row| number(row.seq_to) == base.seq && row.tip == base.tip.0))
}

/// The end of each log, in the order of `documents`.
pub(super) async fn heads(
    connection: &mut PgConnection,
    tenant: TenantId,
    documents: &[DocumentId],
) -> Result<Vec<Option<Head>>, LogError> {
    let asked: Vec<Uuid> = documents.iter().map(|document| document.0).collect();
    let rows = sqlx::query!(
        r#"select asked.n as "n!", head.seq as "seq!", head.tip as "tip!", head.deleted as "deleted!"
             from unnest($2::uuid[]) with ordinality as asked (document_id, n)
            cross join lateral (select seq, tip, deleted from document_heads
                                 where tenant_id = $1 and document_id = asked.document_id limit 1) as head"#,
        tenant.0,
        &asked
    )
    .fetch_all(connection)
    .await
    .map_err(away)?;
    let mut heads = vec![None; documents.len()];
    for row in rows {
        if let Some(head) = nth(&mut heads, row.n) {
            let position = Position { seq: number(row.seq), tip: Tip(row.tip) };
            *head = Some(Head { position, deleted: row.deleted });
        }
    }
    Ok(heads)
}

/// The rows of each document after a number, in the order of `after`. In a lateral query with an order of its own, because joined
/// with an array PostgreSQL may read every row of the tenant.
pub(super) async fn rows_after(
    connection: &mut PgConnection,
    tenant: TenantId,
    after: &[(DocumentId, u64)],
) -> Result<Vec<Vec<StoredRow>>, LogError> {
    let documents: Vec<Uuid> = after.iter().map(|(document, _)| document.0).collect();
    let seqs: Vec<i64> = after.iter().map(|(_, seq)| stored(*seq)).collect();
    let found = sqlx::query!(
        r#"select asked.n as "n!", row.seq_from as "seq_from!", row.seq_to as "seq_to!", row.append_id as "append_id!",
                  row.tip as "tip!", row.author_id as "author_id?", row.relayed_by as "relayed_by?", row.codec as "codec!", row.raw_bytes as "raw_bytes!", row.updates as "updates!",
                  row.checksum as "checksum!"
             from unnest($2::uuid[], $3::bigint[]) with ordinality as asked (document_id, seq, n)
            cross join lateral (select seq_from, seq_to, append_id, tip, author_id, relayed_by, codec, raw_bytes, updates,
                                      checksum
                                  from operations_log
                                 where tenant_id = $1 and document_id = asked.document_id and seq_from > asked.seq
                                 order by seq_from) as row"#,
        tenant.0,
        &documents,
        &seqs
    )
    .fetch_all(connection)
    .await
    .map_err(away)?;
    let mut rows: Vec<Vec<StoredRow>> = Vec::new();
    rows.resize_with(after.len(), Vec::new);
    for row in found {
        if let Some(rows) = nth(&mut rows, row.n) {
            rows.push(StoredRow {
                seq_from: row.seq_from,
                seq_to: row.seq_to,
                append_id: row.append_id,
                tip: row.tip,
                author: row.author_id,
                relayed_by: row.relayed_by,
                codec: row.codec,
                raw_bytes: row.raw_bytes,
                updates: row.updates,
                checksum: row.checksum,
            });
        }
    }
    for rows in &mut rows {
        rows.sort_by_key(|row| row.seq_from); // they are; but only an outer order would promise it
    }
    Ok(rows)
}

/// Rows that read back, in order and without a gap, and why there are no more.
pub(super) struct Readable {
    pub rows: Vec<LogRow>,
    pub damage: Option<Damage>,
}

/// Of the rows after `from`, those up to the first that is not sound. Without damage the last one has the head's number and tip.
pub(super) fn readable(
    document: DocumentId,
    from: Position,
    head: Option<Position>,
    stored: Vec<StoredRow>,
) -> Readable {
    let mut rows = Vec::with_capacity(stored.len());
    let mut at = from;
    for row in stored {
        match row.sound(document, at.seq) {
            Ok(row) => {
                at = Position { seq: row.seq_to, tip: row.tip };
                rows.push(row);
            }
            Err(damage) => return Readable { rows, damage: Some(damage) },
        }
    }
    let (kind, seq_from) = match head {
        Some(head) if head == at => return Readable { rows, damage: None },
        Some(head) if head.seq > at.seq => (DamageKind::MissingRows, at.seq + 1),
        Some(_) | None => (DamageKind::LostHead, at.seq + 1),
    };
    Readable { rows, damage: Some(Damage { kind, seq_from }) }
}

impl StoredRow {
    /// The row, once its checksum, numbers and frames agree and it follows on the number `after`.
    pub(super) fn sound(self, document: DocumentId, after: u64) -> Result<LogRow, Damage> {
        let (seq_from, seq_to) = (number(self.seq_from), number(self.seq_to));
        if seq_from > after + 1 {
            return Err(Damage { kind: DamageKind::MissingRows, seq_from: after + 1 });
        }
        let corrupt = Damage { kind: DamageKind::CorruptRow, seq_from };
        if seq_from <= after || seq_to < seq_from {
            return Err(corrupt);
        }
        let framed = row_codec::decompress(self.codec, self.raw_bytes, self.updates).ok_or(corrupt)?;
        if row_codec::row_checksum(document, self.seq_from, self.seq_to, &framed) != self.checksum {
            return Err(corrupt);
        }
        let updates = row_codec::decode(framed).ok_or(corrupt)?;
        if !updates.is_empty() && updates.len() as u64 != seq_to - seq_from + 1 {
            return Err(corrupt);
        }
        let authorship = Authorship::of(self.author.map(UserId), self.relayed_by.map(UserId));
        Ok(LogRow { seq_from, seq_to, append_id: AppendId(self.append_id), tip: Tip(self.tip), authorship, updates })
    }
}

/// The rows after `from` up to the head, each sound, without a gap, the last one with the head's tip.
pub(super) fn checked(
    document: DocumentId,
    from: Position,
    head: Position,
    stored: Vec<StoredRow>,
) -> Result<Vec<LogRow>, LogError> {
    match readable(document, from, Some(head), stored) {
        Readable { rows, damage: None } => Ok(rows),
        Readable { damage: Some(damage), .. } => Err(LogError::Damaged(damage)),
    }
}
