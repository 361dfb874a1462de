//! What a document asks of its log beside its edits: loading, mending what cannot be folded, snapshots.

use super::messages::JoinRefused;
use super::replica::{Replica, ReplicaError, Unverified};
use super::state::{DocumentState, Unsound};
use super::weight::Weight;
use crate::aside::{ASIDE_FROM, done_aside};
use crate::causes::Cause;
use crate::counted::Counted;
use crate::ids::{DocumentId, DocumentKey, Tip};
use crate::ports::Ports;
use crate::ports::log::{Damage, LogError, Quarantine, Snapshot, Stored};
use crate::report;
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::warn;

/// How often what cannot be used is moved into quarantine before loading gives up and says that the document cannot be read.
const QUARANTINES_PER_LOAD_MAX: usize = 64;
/// Snapshots that are read back side by side in this process: each is a second tree, and nobody waits for it.
static READ_BACKS: Semaphore = Semaphore::const_new(2);
/// Attempts to mend a document that nobody can open meanwhile.
const ATTEMPTS_MAX: usize = 10;
/// PostgreSQL is asked again so often, where nobody waits for the answer.
const PAUSE: Duration = Duration::from_secs(1);

/// How long it may take to load this, guessed.
pub(super) fn effort_to_load(stored: &Stored) -> Duration {
    let snapshot = stored.snapshot.as_ref().map_or(0, |snapshot| snapshot.state.len());
    let rows = stored.tail.rows.iter().flat_map(|row| &row.updates);
    DocumentState::effort_of(snapshot + rows.clone().map(Bytes::len).sum::<usize>(), rows.count())
}

/// Loads a document. What the gate does not take is mended first: a row moves into quarantine, a snapshot is discarded.
pub(super) async fn load(ports: &Ports, key: DocumentKey) -> Result<DocumentState, JoinRefused> {
    for _ in 0..QUARANTINES_PER_LOAD_MAX {
        let stored = match ports.log.load(key).await {
            Ok(stored) if stored.tail.head.deleted => return Err(JoinRefused::Deleted),
            Ok(stored) => stored,
            Err(LogError::NoSuchDocument) => return Err(JoinRefused::Deleted),
            Err(error) => {
                report!(Cause::Outage, document.id = %key.document, "document {} cannot be loaded: {error}", key.document);
                return Err(JoinRefused::Unavailable);
            }
        };
        let now = ports.clock.instant();
        let effort = effort_to_load(&stored);
        let (witness, limits, budgets) = (ports.witness.clone(), ports.limits.clone(), ports.budgets.clone());
        let load = move || DocumentState::load_into(Replica::witnessed(key, witness), stored, limits, budgets, now);
        let loaded = if effort < ASIDE_FROM {
            load()
        } else {
            done_aside(ports.aside.as_ref(), key.tenant, load).await.ok_or(JoinRefused::Unavailable)?
        };
        match loaded {
            Ok(state) => {
                close_if_damaged(ports, key, state.damage()).await;
                return Ok(state);
            }
            Err(unsound) => {
                let unsound = named(ports, key, unsound);
                try_to_mend(ports, key, &unsound).await.map_err(|_| JoinRefused::Unavailable)?;
            }
        }
    }
    Err(JoinRefused::Unavailable)
}

/// Moves updates of the log into quarantine, or deletes the snapshots from a number on. What cannot be done now is left to whoever meets it again.
pub(super) async fn mend(ports: &Ports, key: DocumentKey, unsound: Unsound) {
    let unsound = named(ports, key, unsound);
    for _ in 0..ATTEMPTS_MAX {
        let Err(error) = try_to_mend(ports, key, &unsound).await else { return };
        report!(Cause::Outage, document.id = %key.document, "document {} is not mended: {error}", key.document);
        let LogError::Unavailable(_) = error else { return };
        tokio::time::sleep(PAUSE).await;
    }
}

async fn try_to_mend(ports: &Ports, key: DocumentKey, unsound: &Unsound) -> Result<(), LogError> {
    match unsound {
        Unsound::Log(all) => {
            for what in all {
                ports.log.quarantine(key, what.clone()).await?;
            }
            Ok(())
        }
        Unsound::Snapshot { seq } => ports.log.discard_snapshots(key, *seq).await,
    }
}

/// The same with the tips that the log will have after it; said and counted here.
fn named(ports: &Ports, key: DocumentKey, unsound: Unsound) -> Unsound {
    match unsound {
        Unsound::Log(all) => {
            let named = all.into_iter().map(|what| {
                let seq = what.seq();
                report!(Cause::Damage, document.id = %key.document, seq, "update {seq} of the log quarantined: {}", what.reason);
                Quarantine { new_tip: Tip(ports.clock.fresh_id()), ..what }
            });
            Unsound::Log(named.collect())
        }
        Unsound::Snapshot { seq } => {
            report!(Cause::Damage, document.id = %key.document, seq, "snapshot does not read back and is discarded");
            unsound
        }
    }
}

/// Reads the log for a document that is open, for as long as that takes.
pub(super) async fn load_again(ports: &Ports, key: DocumentKey) -> Result<Stored, LogError> {
    loop {
        match ports.log.load(key).await {
            Err(LogError::Unavailable(_)) => tokio::time::sleep(PAUSE).await,
            other => {
                let damage = other.as_ref().ok().and_then(|stored| stored.damage);
                close_if_damaged(ports, key, damage).await;
                return other;
            }
        }
    }
}

/// Has everybody know that a damaged document is only read. It is only read here whether they do or not.
async fn close_if_damaged(ports: &Ports, key: DocumentKey, damage: Option<Damage>) {
    let Some(damage) = damage else { return };
    if let Err(error) = ports.log.close_for_writing(key, damage).await {
        report!(
            Cause::Outage, document.id = %key.document,
            "document {} is damaged ({damage}), and that cannot be noted: {error}", key.document
        );
    }
}

/// Keeps bytes that never entered the log, for as long as that takes.
pub(super) async fn quarantine_refused(ports: Ports, key: DocumentKey, what: Quarantine) {
    report!(Cause::Ended, document.id = %key.document, "update quarantined: {}", what.reason);
    while let Err(LogError::Unavailable(_)) = ports.log.quarantine_refused(key, what.clone()).await {
        tokio::time::sleep(PAUSE).await;
    }
}

/// The snapshot, once it was read back aside, and what it takes as a tree.
pub(super) async fn verify(
    ports: &Ports,
    key: DocumentKey,
    snapshot: Unverified,
) -> Result<(Snapshot, Weight), ReplicaError> {
    let position = snapshot.position();
    let _waits = Counted::in_gauge("contextnexus_read_backs_waiting");
    let _turn = READ_BACKS.acquire().await; // never closed
    let integration_ms_max = ports.limits.integration_ms_max;
    let verify = move || {
        let weight = snapshot.weigh(integration_ms_max)?;
        Ok((snapshot.verify()?, weight))
    };
    let verified = done_aside(ports.aside.as_ref(), key.tenant, verify).await;
    let verified = verified.unwrap_or(Err(ReplicaError::Panicked));
    verified.inspect_err(|error| match error {
        ReplicaError::TooDear => metrics::counter!("contextnexus_snapshots_total", "result" => "too_dear").increment(1),
        error => {
            report!(Cause::Damage, document.id = %key.document, "the state at {position} does not read back and is not used: {error}");
            metrics::counter!("contextnexus_snapshots_total", "result" => "unsound").increment(1);
        }
    })
}

/// Says that a document has no snapshots for now.
pub(super) fn say_too_dear(document: DocumentId) {
    warn!(
        document.id = %document,
        "document {document} is not stored as a snapshot: folding its state takes longer than an update may (integration_ms_max). \
         It is loaded from the updates in its log"
    );
}

/// Stores a snapshot once it was read back. Answers it, and whether it is stored: the log alone would do.
pub(super) async fn store_snapshot(
    ports: Ports,
    key: DocumentKey,
    snapshot: Unverified,
) -> (Result<(Snapshot, Weight), ReplicaError>, bool) {
    let started = ports.clock.instant();
    let (snapshot, weight) = match verify(&ports, key, snapshot).await {
        Ok(verified) => verified,
        Err(error) => return (Err(error), false),
    };
    if let Err(error) = ports.log.save_snapshot(key, snapshot.clone()).await {
        report!(Cause::Outage, document.id = %key.document, "snapshot not stored: {error}");
        return (Ok((snapshot, weight)), false);
    }
    metrics::counter!("contextnexus_snapshots_total", "result" => "stored").increment(1);
    metrics::histogram!("contextnexus_snapshot_seconds").record(ports.clock.instant() - started);
    (Ok((snapshot, weight)), true)
}
