//! Snapshots: a short cut into the log, never the truth. One that does not agree with the log is passed over.

use super::frames::{self, Packed, TooLarge};
use super::{away, number, stored};
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
pub(super) struct PackedSnapshot {
    seq: i64,
    tip: Uuid,
    packed: Packed,
    state_vector: Bytes,
    checksum: i64,
}

/// Compresses and sums up a snapshot.
pub(super) async fn pack(document: DocumentId, snapshot: Snapshot) -> Result<PackedSnapshot, LogError> {
    let packed = if snapshot.state.len() < BLOCKING_FROM_BYTES {
        pack_now(document, snapshot)
    } else {
        let packing = tokio::task::spawn_blocking(move || pack_now(document, snapshot));
        packing.await.map_err(|error| LogError::Unavailable(Box::new(error)))?
    };
    packed.map_err(|error| LogError::Unavailable(Box::new(error)))
}

fn pack_now(document: DocumentId, snapshot: Snapshot) -> Result<PackedSnapshot, TooLarge> {
    let Snapshot { position, state, state_vector } = snapshot;
    let (seq, tip) = (stored(position.seq), position.tip.0);
    let checksum = frames::snapshot_checksum(document, seq, tip, &state, &state_vector);
    let packed = frames::pack(state.into())?;
    Ok(PackedSnapshot { seq, tip, packed, state_vector, checksum })
}

/// Stores it, where the log still has that position and nobody stored one of that number, and lets all but the last two go.
pub(super) async fn save(db: &mut TenantTx, document: DocumentId, snapshot: PackedSnapshot) -> Result<(), LogError> {
    let stored = sqlx::query!(
        "insert into document_snapshots (tenant_id, document_id, seq, tip, codec, raw_bytes, state, state_vector, checksum)
         select $1, $2, $3, $4, $5, $6, $7, $8, $9
          where exists (select from operations_log
                         where tenant_id = $1 and document_id = $2 and seq_from <= $3 and seq_to = $3 and tip = $4)
         on conflict do nothing",
        db.tenant.0,
        document.0,
        snapshot.seq,
        snapshot.tip,
        snapshot.packed.codec,
        snapshot.packed.raw_bytes,
        &snapshot.packed.bytes,
        &snapshot.state_vector[..],
        snapshot.checksum
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

/// The newest snapshot whose checksum holds and whose position the log has.
pub(super) async fn newest_sound(db: &mut TenantTx, document: DocumentId) -> Result<Option<Snapshot>, LogError> {
    let mut before = i64::MAX;
    loop {
        let row = sqlx::query!(
            r#"select s.seq, s.tip, s.codec, s.raw_bytes, s.state, s.state_vector, s.checksum,
                      coalesce((select r.seq_to = s.seq and r.tip = s.tip from operations_log r
                                 where r.tenant_id = s.tenant_id and r.document_id = s.document_id and r.seq_from <= s.seq
                                 order by r.seq_from desc limit 1), false) as "in_log!"
                 from document_snapshots s
                where s.tenant_id = $1 and s.document_id = $2 and s.seq < $3
                order by s.seq desc limit 1"#,
            db.tenant.0,
            document.0,
            before
        )
        .fetch_optional(&mut *db.tx)
        .await
        .map_err(away)?;
        let Some(row) = row else { return Ok(None) };
        before = row.seq;
        let why = if row.in_log {
            match frames::unpack(row.codec, row.raw_bytes, row.state) {
                Some(state)
                    if frames::snapshot_checksum(document, row.seq, row.tip, &state, &row.state_vector)
                        == row.checksum =>
                {
                    return Ok(Some(Snapshot {
                        position: Position { seq: number(row.seq), tip: Tip(row.tip) },
                        state: state.into(),
                        state_vector: row.state_vector.into(),
                    }));
                }
                _ => "its bytes are damaged",
            }
        } else {
            "its position is not in the log"
        };
        metrics::counter!("contextnexus_snapshots_unsound_total").increment(1);
        tracing::warn!(
            document.id = %document, snapshot.seq = row.seq,
            "passed over the snapshot of document {document} at {}: {why}", row.seq
        );
    }
}
