//! Finds, starts, passivates and revives the documents of this node, and compares what they hold with PostgreSQL.
//!
//! Every join, write and read is routed through here and counted, so that a document may end only when nothing was routed to it
//! since its last turn. Once per interval the directory asks, one query a tenant, which heads moved and which rights changed.

pub mod actor;
pub mod messages;
mod noticeboard;

pub use actor::Directory;
pub use noticeboard::Noticeboard;

use crate::document::actor::DocumentActor;
use crate::document::messages::{Read, Write};
use crate::ids::{DocumentKey, Position, TenantId};
use crate::ports::Ports;
use crate::ports::bus::BusMessage;
use crate::ports::documents::{LiveDocuments, ReadRefused, WriteRefused, Writer, Written};
use crate::ports::log::IdempotencyKey;
use actix::{Actor, Addr, ArbiterHandle};
use async_trait::async_trait;
use bytes::Bytes;
use messages::{CheckNow, Route};

/// Starts the directory on the current arbiter; documents run on `arbiters`, spread by their id, or on its own while there are none.
pub fn start(ports: Ports, arbiters: Vec<ArbiterHandle>) -> Addr<Directory> {
    Directory::new(ports, arbiters).start()
}

/// [`LiveDocuments`] over the directory.
#[derive(Debug, Clone)]
pub struct Documents {
    directory: Addr<Directory>,
    ports: Ports,
}

impl Documents {
    /// For HTTP.
    pub fn new(directory: Addr<Directory>, ports: Ports) -> Self {
        Self { directory, ports: ports }
    }

    async fn routed(&self, key: DocumentKey) -> Option<Addr<DocumentActor>> {
        self.directory.send(Route(key)).await.ok()
    }
}

#[async_trait]
impl LiveDocuments for Documents {
    async fn write(
        &self,
        key: DocumentKey,
        by: Writer,
        update: Bytes,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<Written, WriteRefused> {
        let unavailable = WriteRefused::Unavailable { retry_after_s: 1 };
        let Some(document) = self.routed(key).await else { return Err(unavailable) };
        document.send(Write { by, update, idempotency }).await.unwrap_or(Err(unavailable))
    }

    async fn state(&self, key: DocumentKey) -> Result<(Position, Bytes), ReadRefused> {
        let unavailable = ReadRefused::Unavailable { retry_after_s: 1 };
        let Some(document) = self.routed(key).await else { return Err(unavailable) };
        document.send(Read).await.unwrap_or(Err(unavailable))
    }

    async fn access_changed(&self, tenant: TenantId) {
        self.ports.bus.publish(BusMessage::AccessChanged { tenant, node: self.ports.node });
        let _ = self.directory.try_send(CheckNow(tenant)); // full: the next interval is at hand
    }
}
