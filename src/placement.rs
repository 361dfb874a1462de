//! Which thread of a node does what.
//!
//! Beside each worker, which serves the sockets, there is a thread for documents, so that one that takes long holds up no connection; the log
//! writer is on the main thread. With one worker, which is what a machine with one CPU gets, all that an update passes is on the worker's
//! thread: others would only take turns with it, and the turns cost a seventh of the server's CPU time for many small documents
//! (`loadtest/README.md`).

use crate::postgres::operation_log::PostgresLog;
use actix::{Addr, Arbiter, ArbiterHandle};
use contextnexus_actors::document::actor::DocumentActor;
use contextnexus_actors::hosting::messages::RunOn;
use contextnexus_actors::hosting::{self, Host};
use contextnexus_actors::ports::Ports;
use std::sync::{Arc, Mutex, PoisonError};

/// Starts the documents' host and the log writer where they belong.
pub struct Threads {
    documents: Addr<Host<DocumentActor>>,
    log: Arc<PostgresLog>,
    /// With one worker: the thread that has taken the documents and the log writer in.
    shared: Option<Mutex<Option<ArbiterHandle>>>,
}

impl Threads {
    /// For so many workers. To be called on the main thread; `ports.log` is `log`.
    pub fn start(workers: usize, ports: Ports, log: Arc<PostgresLog>) -> Self {
        let is_one = workers == 1;
        let of_documents: Vec<ArbiterHandle> =
            if is_one { Vec::new() } else { (0..workers).map(|_| Arbiter::new().handle()).collect() };
        if !is_one {
            log.run();
        }
        Self { documents: hosting::start(ports, of_documents), log, shared: is_one.then(Mutex::default) }
    }

    /// To be called on each worker's thread before it serves.
    pub fn worker_starts(&self) {
        let Some(shared) = &self.shared else { return };
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.as_ref().is_some_and(ArbiterHandle::alive) {
            return; // only its services are made anew
        }
        let here = Arbiter::current();
        // No socket of this thread is served yet, so its mailbox has room.
        if let Err(error) = self.documents.try_send(RunOn(here.clone())) {
            tracing::error!("documents stay on the main thread: {error}");
        }
        self.log.run();
        *shared = Some(here);
    }

    /// The documents of this node.
    pub fn documents(&self) -> &Addr<Host<DocumentActor>> {
        &self.documents
    }
}
