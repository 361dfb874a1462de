//! Open documents for HTTP and other back-end work, each found, or started, through its host.

use super::actor::DocumentActor;
use super::messages::{Read, Write};
use crate::hosting::Host;
use crate::hosting::messages::{CheckNow, Route};
use crate::ids::{DocumentKey, Position, TenantId};
use crate::ports::Ports;
use crate::ports::bus::BusMessage;
use crate::ports::documents::{LiveDocuments, ReadRefused, WriteRefused, Writer, Written};
use crate::ports::log::IdempotencyKey;
use actix::Addr;
use async_trait::async_trait;
use bytes::Bytes;

/// [`LiveDocuments`] over the documents' host.
#[derive(Debug, Clone)]
pub struct Documents {
    host: Addr<Host<DocumentActor>>,
    ports: Ports,
}

impl Documents {
    /// For HTTP.
    pub fn new(host: Addr<Host<DocumentActor>>, ports: Ports) -> Self {
        Self { host, ports }
    }

    async fn routed(&self, key: DocumentKey) -> Option<Addr<DocumentActor>> {
        self.host.send(Route(key)).await.ok()
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
        let _ = self.host.try_send(CheckNow(tenant)); // full: the next interval is at hand
    }
}
