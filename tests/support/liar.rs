//! A log with one lie in it: `append` answers `Committed` on receipt, and commits behind that answer, in order. A server that stands on it
//! acknowledges what it has only received. Whoever reads waits for what was promised, so nothing but a kill tells it from an honest one.

use async_trait::async_trait;
use contextnexus_actors::ids::{DocumentId, DocumentKey, Position, TenantId};
use contextnexus_actors::ports::log::{
    AppendOutcome, AppendRequest, Damage, Head, LockedHead, LogError, OperationLog, Quarantine, Snapshot, Stored, Tail,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot};

/// Appends of one document that were promised and are not committed.
const PROMISED_MAX: usize = 1_024;

pub struct Liar {
    honest: Arc<dyn OperationLog>,
    behind: Mutex<HashMap<DocumentKey, mpsc::Sender<Errand>>>,
}

/// What is done behind the answers for one document, one after the other.
enum Errand {
    Append(AppendRequest),
    Tell(oneshot::Sender<()>),
}

impl Liar {
    pub fn over(honest: Arc<dyn OperationLog>) -> Arc<dyn OperationLog> {
        Arc::new(Self { honest, behind: Mutex::default() })
    }

    async fn errand(&self, key: DocumentKey, errand: Errand) {
        let queue = {
            let mut behind = self.behind.lock().expect("no panic under the lock");
            behind.entry(key).or_insert_with(|| run_errands(Arc::clone(&self.honest))).clone()
        };
        queue.send(errand).await.expect("errands are run while the server runs");
    }

    /// Everything that was promised of this document is committed.
    async fn settle(&self, key: DocumentKey) {
        let (told, hear) = oneshot::channel();
        self.errand(key, Errand::Tell(told)).await;
        hear.await.expect("errands are run while the server runs");
    }
}

fn run_errands(honest: Arc<dyn OperationLog>) -> mpsc::Sender<Errand> {
    let (queue, mut errands) = mpsc::channel(PROMISED_MAX);
    tokio::spawn(async move {
        while let Some(errand) = errands.recv().await {
            match errand {
                Errand::Append(request) => {
                    let outcome = honest.append(request).await;
                    if !matches!(outcome, AppendOutcome::Committed(_)) {
                        eprintln!("a promised append was not committed: {outcome:?}");
                    }
                }
                Errand::Tell(settled) => {
                    let _ = settled.send(()); // whoever asked may have gone
                }
            }
        }
    });
    queue
}

#[async_trait]
impl OperationLog for Liar {
    async fn append(&self, request: AppendRequest) -> AppendOutcome {
        let promised = request.position_after();
        self.errand(request.key, Errand::Append(request)).await;
        AppendOutcome::Committed(promised)
    }

    async fn load(&self, key: DocumentKey) -> Result<Stored, LogError> {
        self.settle(key).await;
        self.honest.load(key).await
    }

    async fn tail(&self, key: DocumentKey, held: Position) -> Result<Tail, LogError> {
        self.settle(key).await;
        self.honest.tail(key, held).await
    }

    async fn lock_head(&self, key: DocumentKey, held: Position) -> Result<Box<dyn LockedHead>, LogError> {
        self.settle(key).await;
        self.honest.lock_head(key, held).await
    }

    async fn changed_heads(
        &self,
        tenant: TenantId,
        held: &[(DocumentId, Position)],
    ) -> Result<Vec<(DocumentId, Head)>, LogError> {
        for (document, _) in held {
            self.settle(DocumentKey { tenant, document: *document }).await;
        }
        self.honest.changed_heads(tenant, held).await
    }

    async fn quarantine(&self, key: DocumentKey, what: Quarantine) -> Result<(), LogError> {
        self.settle(key).await;
        self.honest.quarantine(key, what).await
    }

    async fn quarantine_refused(&self, key: DocumentKey, what: Quarantine) -> Result<(), LogError> {
        self.honest.quarantine_refused(key, what).await
    }

    async fn discard_snapshots(&self, key: DocumentKey, from_seq: u64) -> Result<(), LogError> {
        self.honest.discard_snapshots(key, from_seq).await
    }

    async fn close_for_writing(&self, key: DocumentKey, damage: Damage) -> Result<(), LogError> {
        self.honest.close_for_writing(key, damage).await
    }

    async fn save_snapshot(&self, key: DocumentKey, snapshot: Snapshot) -> Result<(), LogError> {
        self.settle(key).await;
        self.honest.save_snapshot(key, snapshot).await
    }
}
