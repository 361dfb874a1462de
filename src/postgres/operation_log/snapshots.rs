//! Snapshots: a short cut into the log, never the truth. One that does not agree with the log is passed over.

use super::row_codec::{self, Compressed, TooLarge};
use super::{away, number, read, stored};
use crate::postgres::TenantTx;
use bytes::Bytes;
use contextnexus_actors::ids::{DocumentId, Position, Tip};
use contextnexus_actors::ports::log::{LogError, Snapshot};
use uuid::Uuid;

/// Above it, compressing would hold up everybody else of the thread.
const BLOCKING_FROM_BYTES: usize = 1 << 20;
/// So many are kept: the newest, and the one before for when that turns out to be damaged.
const KEPT: i64 = 2;

/// A snapshot as it is stored.
pub(super) struct EncodedSnapshot {
    seq: i64,
    tip: Uuid,
    compressed: Compressed,
    state_vector: Bytes,
    writers: Bytes,
    checksum: i64,
}

/// Compresses and sums up a snapshot.
pub(super) async fn pack(document: DocumentId, snapshot: Snapshot) -> Result<EncodedSnapshot, LogError> {
    let packed = if snapshot.state.len() < BLOCKING_FROM_BYTES {
        pack_now(document, snapshot)
    } else {
        let packing = tokio::task::spawn_blocking(move || pack_now(document, snapshot));
        packing.await.map_err(|error| LogError::Unavailable(Box::new(error)))?
    };
    packed.map_err(|error| LogError::Unavailable(Box::new(error)))
}

fn pack_now(document: DocumentId, snapshot: Snapshot) -> Result<EncodedSnapshot, TooLarge> {
    let Snapshot { position, state, state_vector, writers } = snapshot;
    let (seq, tip) = (stored(position.seq), position.tip.0);
    let checksum = row_codec::snapshot_checksum(document, seq, tip, &state, &state_vector, &writers);
    let packed = row_codec::compress(state.into())?;
    Ok(EncodedSnapshot { seq, tip, compressed: packed, state_vector, writers, checksum })
}

/// Stores it, where the log still has that position and nobody stored one of that number, and lets all but the last two go.
pub(super) async fn save(db: &mut TenantTx, document: DocumentId, snapshot: EncodedSnapshot) -> Result<(), LogError> {
    let stored = sqlx::query!(
        "insert into document_snapshots
             (tenant_id, document_id, seq, tip, codec, raw_bytes, state, state_vector, checksum, writers)
         select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10
          where exists (select from operations_log
                         where tenant_id = $1 and document_id = $2 and seq_from <= $3 and seq_to = $3 and tip = $4)
         on conflict do nothing",
        db.tenant.0,
        document.0,
        snapshot.seq,
        snapshot.tip,
        snapshot.compressed.codec,
        snapshot.compressed.raw_bytes,
        &snapshot.compressed.bytes,
        &snapshot.state_vector[..],
        snapshot.checksum,
        &snapshot.writers[..]
    )
    .execute(&mut *db.tx)
    .await
    .map_err(away)?;
    if stored.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query!(
        "delete from document_snapshots
          where tenant_id = $1 and document_id = $2
            and seq < (select min(seq) from (select seq from document_snapshots where tenant_id = $1 and document_id = $2
                                              order by seq desc limit $3) as newest)",
        db.tenant.0,
        document.0,
        KEPT
    )
    .execute(&mut *db.tx)
    .await
    .map_err(away)?;
    Ok(())
}

/// The snapshot of this position, if its checksum holds.
pub(super) async fn read(
    db: &mut TenantTx,
    document: DocumentId,
    position: Position,
) -> Result<Option<Snapshot>, LogError> {
    let row = sqlx::query!(
        "select codec, raw_bytes, state, state_vector, checksum, writers from document_snapshots
          where tenant_id = $1 and document_id = $2 and seq = $3 and tip = $4",
        db.tenant.0,
        document.0,
        stored(position.seq),
        position.tip.0
    )
    .fetch_optional(&mut *db.tx)
    .await
    .map_err(away)?;
    Ok(row.and_then(|row| {
        let state = row_codec::decompress(row.codec, row.raw_bytes, row.state)?;
        let (seq, tip) = (stored(position.seq), position.tip.0);
        let sum = row_codec::snapshot_checksum(document, seq, tip, &state, &row.state_vector, &row.writers);
        let (state_vector, writers) = (row.state_vector.into(), row.writers.into());
        let snapshot = Snapshot { position, state: state.into(), state_vector, writers };
        (sum == row.checksum).then_some(snapshot)
    }))
}

/// Deletes those from this number on.
pub(super) async fn discard(db: &mut TenantTx, document: DocumentId, from_seq: u64) -> Result<(), LogError> {
    sqlx::query!(
        "delete from document_snapshots where tenant_id = $1 and document_id = $2 and seq >= $3",
        db.tenant.0,
        document.0,
        stored(from_seq)
    )
    .execute(&mut *db.tx)
    .await
    .map_err(away)?;
    Ok(())
}

/// The newest snapshot of each document whose checksum holds and whose position the log has, in the order of `documents`.
pub(super) async fn newest_sound(
    db: &mut TenantTx,
    documents: &[DocumentId],
) -> Result<Vec<Option<Snapshot>>, LogError> {
    let mut sound = vec![None; documents.len()];
    // Of which document a snapshot is looked for, by its place among all, and before which number.
    let mut wanted: Vec<(usize, i64)> = (0..documents.len()).map(|place| (place, i64::MAX)).collect();
    while !wanted.is_empty() {
        let asked: Vec<Uuid> = wanted.iter().map(|(place, _)| documents[*place].0).collect();
        let before: Vec<i64> = wanted.iter().map(|(_, before)| *before).collect();
        let rows = sqlx::query!(
            r#"select asked.n as "n!", s.seq as "seq!", s.tip as "tip!", s.codec as "codec!", s.raw_bytes as "raw_bytes!",
                      s.state as "state!", s.state_vector as "state_vector!", s.checksum as "checksum!", s.writers as "writers!",
                      coalesce((select r.seq_to = s.seq and r.tip = s.tip from operations_log r
                                 where r.tenant_id = $1 and r.document_id = asked.document_id and r.seq_from <= s.seq
                                 order by r.seq_from desc limit 1), false) as "in_log!"
                 from unnest($2::uuid[], $3::bigint[]) with ordinality as asked (document_id, seq, n)
                cross join lateral (select seq, tip, codec, raw_bytes, state, state_vector, checksum, writers from document_snapshots
                                     where tenant_id = $1 and document_id = asked.document_id and seq < asked.seq
                                     order by seq desc limit 1) as s"#,
            db.tenant.0,
            &asked,
            &before
        )
        .fetch_all(&mut *db.tx)
        .await
        .map_err(away)?;
        let mut unsound = Vec::new();
        for row in rows {
            let Some((place, _)) = read::nth(&mut wanted, row.n).copied() else { continue };
            let document = documents[place];
            let why = if row.in_log {
                match row_codec::decompress(row.codec, row.raw_bytes, row.state) {
                    Some(state)
                        if row.checksum
                            == row_codec::snapshot_checksum(
                                document,
                                row.seq,
                                row.tip,
                                &state,
                                &row.state_vector,
                                &row.writers,
                            ) =>
                    {
                        sound[place] = Some(Snapshot {
                            position: Position { seq: number(row.seq), tip: Tip(row.tip) },
                            state: state.into(),
                            state_vector: row.state_vector.into(),
                            writers: row.writers.into(),
                        });
                        continue;
                    }
                    _ => "its bytes are damaged",
                }
            } else {
                "its position is not in the log"
            };
            unsound.push((place, row.seq));
            metrics::counter!("contextnexus_snapshots_total", "result" => "unreadable").increment(1);
            tracing::warn!(
                document.id = %document, snapshot.seq = row.seq,
                "passed over the snapshot of document {document} at {}: {why}", row.seq
            );
        }
        wanted = unsound;
    }
    Ok(sound)
}
