//! The log of documents under suspicion: loading waits for the verdict.

use super::record::{Leftover, Suspect};
use super::trial::{self, TrialResult};
use async_trait::async_trait;
use contextnexus_actors::clock::{Clock, SystemClock};
use contextnexus_actors::ids::{DocumentId, DocumentKey, Position, TenantId, Tip};
use contextnexus_actors::ports::log::{
    AppendOutcome, AppendRequest, Damage, Extent, Head, LockedHead, LogError, LogRow, OperationLog, Quarantine,
    QuarantineReason, Snapshot, Stored, Tail,
};
use contextnexus_actors::ports::witness::Folding;
use std::collections::{BTreeMap, HashSet};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{error, info, warn};

/// Convictions of one document at one start, before the rest is left to the next.
const CONVICTIONS_MAX: usize = 16;
/// PostgreSQL is asked again so often.
const PAUSE: Duration = Duration::from_secs(1);

/// Begins the trials, and answers the log to serve from meanwhile.
pub(super) fn guard(
    log: Arc<dyn OperationLog>,
    leftovers: Vec<Leftover>,
    trial: fn() -> Command,
    cpu_least: Duration,
) -> Arc<dyn OperationLog> {
    let suspects: HashSet<Suspect> = leftovers.iter().flat_map(|left| left.suspects.iter().copied()).collect();
    let mut by_document: BTreeMap<DocumentKey, Vec<Folding>> = BTreeMap::new();
    for suspect in suspects {
        by_document.entry(suspect.key).or_default().push(suspect.what);
    }
    let (pending, waiting) = watch::channel(by_document.keys().copied().collect::<HashSet<_>>());
    let court = Court { log: log.clone(), trial, cpu_least };
    tokio::spawn(async move {
        for (key, suspects) in by_document {
            court.judge(key, &suspects).await;
            pending.send_modify(|pending| {
                pending.remove(&key);
            });
        }
        leftovers.into_iter().for_each(Leftover::remove);
    });
    Arc::new(Guarded { log, waiting })
}

struct Court {
    log: Arc<dyn OperationLog>,
    trial: fn() -> Command,
    cpu_least: Duration,
}

impl Court {
    async fn judge(&self, key: DocumentKey, suspects: &[Folding]) {
        let document = key.document;
        let mut convictions = 0;
        while let Some(stored) = self.load(key).await {
            // Once one was found there, whoever sent it may have sent more: then all of the log is tried.
            let stored = if convictions == 0 { prefix(stored, suspects) } else { Some(stored) };
            let Some(stored) = stored else { return };
            info!(document.id = %document, "document {document} was being folded when its process ended: it is tried");
            match self.try_one(&stored).await {
                TrialResult::Sound => return info!(document.id = %document, "document {document} is sound"),
                TrialResult::Unknown(why) => {
                    return warn!(document.id = %document, "the trial of document {document} says nothing: {why}");
                }
                TrialResult::Died(what) => self.convict(key, &stored, what, QuarantineReason::FoldDied).await,
                TrialResult::Overran(what) => self.convict(key, &stored, what, QuarantineReason::FoldOverran).await,
            }
            convictions += 1;
            if convictions == CONVICTIONS_MAX {
                return;
            }
        }
    }

    /// The log, for as long as that takes. `None`: there is nothing to try.
    async fn load(&self, key: DocumentKey) -> Option<Stored> {
        loop {
            match self.log.load(key).await {
                Ok(stored) if stored.tail.head.deleted => return None,
                Ok(stored) => return Some(stored),
                Err(LogError::Unavailable(_)) => tokio::time::sleep(PAUSE).await,
                Err(_) => return None, // the record is not of this database, or the document says itself what is wrong
            }
        }
    }

    /// Only who overruns twice has overrun.
    async fn try_one(&self, stored: &Stored) -> TrialResult {
        match self.in_child(stored.clone()).await {
            TrialResult::Overran(_) => self.in_child(stored.clone()).await,
            verdict => verdict,
        }
    }

    async fn in_child(&self, stored: Stored) -> TrialResult {
        let (command, cpu_least) = ((self.trial)(), self.cpu_least);
        let run = tokio::task::spawn_blocking(move || trial::run(command, &stored, cpu_least));
        run.await.unwrap_or_else(|error| TrialResult::Unknown(error.to_string()))
    }

    async fn convict(&self, key: DocumentKey, stored: &Stored, what: Folding, reason: QuarantineReason) {
        error!(document.id = %key.document, ?what, "quarantined for ending the process that folds it: {reason}");
        loop {
            let outcome = match what {
                Folding::Snapshot(seq) => self.log.discard_snapshots(key, seq).await,
                Folding::Update(seq) => {
                    let row = stored.tail.rows.iter().find(|row| (row.seq_from..=row.seq_to).contains(&seq));
                    let Some(row) = row else { return };
                    let update = (row.seq_from..).zip(&row.updates).find(|(number, _)| *number == seq);
                    let what = Quarantine {
                        seq_from: row.seq_from,
                        extent: Extent::Content(seq),
                        new_tip: Tip(SystemClock.fresh_id()),
                        reason,
                        update: update.map(|(_, update)| update.clone()).unwrap_or_default(),
                        user_session: None,
                        user: None,
                    };
                    self.log.quarantine(key, what).await
                }
            };
            match outcome {
                Err(LogError::Unavailable(_)) => tokio::time::sleep(PAUSE).await,
                _ => return,
            }
        }
    }
}

/// The log up to and with the last of the suspects. `None` when a snapshot stands beyond all of them: who stored it had folded them.
fn prefix(stored: Stored, suspects: &[Folding]) -> Option<Stored> {
    let of_snapshot = stored.snapshot.as_ref().map_or(0, |snapshot| snapshot.position.seq);
    let last = suspects.iter().map(|suspect| match *suspect {
        Folding::Update(seq) => (seq, seq > of_snapshot),
        Folding::Snapshot(seq) => (seq, seq == of_snapshot),
    });
    let last = last.filter(|(_, is_tried)| *is_tried).map(|(seq, _)| seq).max()?;
    let rows = stored.tail.rows.into_iter().filter(|row| row.seq_from <= last);
    let rows = rows.map(|mut row: LogRow| {
        row.updates.truncate(usize::try_from(last - row.seq_from + 1).unwrap_or(usize::MAX));
        row
    });
    Some(Stored { tail: Tail { rows: rows.collect(), head: stored.tail.head }, ..stored })
}

/// The log as it is, but that whoever loads a document under suspicion waits.
struct Guarded {
    log: Arc<dyn OperationLog>,
    waiting: watch::Receiver<HashSet<DocumentKey>>,
}

#[async_trait]
impl OperationLog for Guarded {
    async fn load(&self, key: DocumentKey) -> Result<Stored, LogError> {
        // An error means that the trials have ended.
        let _ = self.waiting.clone().wait_for(|pending| !pending.contains(&key)).await;
        self.log.load(key).await
    }

    async fn tail(&self, key: DocumentKey, base: Position) -> Result<Tail, LogError> {
        self.log.tail(key, base).await
    }

    async fn append(&self, request: AppendRequest) -> AppendOutcome {
        self.log.append(request).await
    }

    async fn lock_head(&self, key: DocumentKey, base: Position) -> Result<Box<dyn LockedHead>, LogError> {
        self.log.lock_head(key, base).await
    }

    async fn changed_heads(
        &self,
        tenant: TenantId,
        known: &[(DocumentId, Position)],
    ) -> Result<Vec<(DocumentId, Head)>, LogError> {
        self.log.changed_heads(tenant, known).await
    }

    async fn quarantine(&self, key: DocumentKey, what: Quarantine) -> Result<(), LogError> {
        self.log.quarantine(key, what).await
    }

    async fn quarantine_refused(&self, key: DocumentKey, what: Quarantine) -> Result<(), LogError> {
        self.log.quarantine_refused(key, what).await
    }

    async fn discard_snapshots(&self, key: DocumentKey, from_seq: u64) -> Result<(), LogError> {
        self.log.discard_snapshots(key, from_seq).await
    }

    async fn close_for_writing(&self, key: DocumentKey, damage: Damage) -> Result<(), LogError> {
        self.log.close_for_writing(key, damage).await
    }

    async fn save_snapshot(&self, key: DocumentKey, snapshot: Snapshot) -> Result<(), LogError> {
        self.log.save_snapshot(key, snapshot).await
    }
}
