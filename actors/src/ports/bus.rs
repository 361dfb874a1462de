//! What nodes tell each other. A hint and a shortcut, never the truth: every message may be lost, doubled or late.

use crate::ids::{DocumentKey, NodeId, Position, TenantId};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Carries messages between the nodes of one deployment. Redis pub/sub, or one process's memory.
///
/// No delivery is promised; order holds per document and sender while the transport stays up. A message reaches every other
/// node subscribed to its document (or tenant) and not its sender.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Hands a message over. Never waits: when the transport is away or its bounded queue is full the message is dropped
    /// and counted, and the head check repairs what it hid.
    fn publish(&self, message: BusMessage);

    /// Hears everything about one document. Ends when the subscription is dropped.
    ///
    /// The receiver's queue is bounded; on overflow, and after a lost connection to the transport, it hears [`BusEvent::Gap`].
    async fn subscribe(&self, key: DocumentKey) -> Subscription;

    /// Hears [`BusMessage::AccessChanged`] of every tenant that has a document subscribed on this node.
    async fn subscribe_access(&self) -> mpsc::Receiver<TenantId>;
}

/// A document's incoming messages.
#[derive(Debug)]
pub struct Subscription {
    /// Bounded; the bus stops hearing the document when this is dropped.
    pub events: mpsc::Receiver<BusEvent>,
}

/// What a subscriber hears.
#[derive(Clone, Debug)]
pub enum BusEvent {
    /// A message of another node.
    Message(BusMessage),
    /// Something may have been missed: compare heads, ask for presence anew.
    Gap,
}

/// One message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum BusMessage {
    /// An append was committed: whoever stands at `from` may fold `updates` and stand at `through`.
    Committed {
        /// The document.
        key: DocumentKey,
        /// Who sends.
        node: NodeId,
        /// The position before.
        from: Position,
        /// The position after.
        through: Position,
        /// The updates `from.seq + 1 ..= through.seq`. Empty when they were too large to carry: read the log.
        updates: Vec<Bytes>,
    },
    /// Newest presence of some clients that are connected to `node`.
    Presence {
        /// The document.
        key: DocumentKey,
        /// Who sends.
        node: NodeId,
        /// One awareness update (y-protocols encoding) of clients that live on `node`.
        update: Bytes,
        /// The subjects that own those client ids, in the order of the update; none for an id that was only relayed.
        owners: Vec<Option<crate::ids::UserId>>,
    },
    /// A node asks all others for their presence (it has just opened the document), and says that it lives.
    PresenceQuery {
        /// The document.
        key: DocumentKey,
        /// Who asks.
        node: NodeId,
    },
    /// Memberships, sessions or documents of the tenant changed: look again now, not at the next second.
    AccessChanged {
        /// The tenant.
        tenant: TenantId,
        /// Who sends.
        node: NodeId,
    },
}
