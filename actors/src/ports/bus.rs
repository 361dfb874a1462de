//! What nodes tell each other. A hint and a shortcut, never the truth: every message may be lost, doubled or late.

use super::log::Authorship;
use crate::ids::{DocumentKey, NodeId, Position, TenantId, UserId};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Carries messages between the nodes of one deployment. Redis pub/sub, or one process's memory.
///
/// No delivery is promised; order holds per document and sender while the transport stays up. A message reaches every other
/// node subscribed to its document (or with a document of its tenant) and not its sender. A node's subscriptions to one document
/// share one of the transport's.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Hands a message over. Never waits: when the transport is away or its bounded queue is full the message is dropped
    /// and counted, and the head check repairs what it hid.
    fn publish(&self, message: BusMessage);

    /// Hears everything about one document that is published after the answer. Ends when the subscription is dropped.
    ///
    /// The queue is bounded; on overflow, and after a lost connection to the transport, it holds one [`BusEvent::Gap`] in place of
    /// what was lost. While the transport is away the answer still comes at once, and a `Gap` when it is back.
    async fn subscribe(&self, key: DocumentKey) -> Subscription;

    /// Hears [`BusMessage::AccessChanged`] of every tenant that has a document subscribed on this node.
    async fn subscribe_access(&self) -> mpsc::Receiver<TenantId>;
}

/// A document's incoming messages.
#[derive(Debug)]
pub struct Subscription {
    /// Bounded; the bus stops hearing the document when this is dropped.
    pub events: Events,
}

/// What a subscriber hears.
#[derive(Clone, PartialEq, Debug)]
pub enum BusEvent {
    /// A message of another node.
    Message(BusMessage),
    /// Something may have been missed: compare heads, ask for presence anew.
    Gap,
}

/// One message.
#[derive(Clone, PartialEq, Debug)]
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
        /// Who brought each of them.
        authorship: Vec<Authorship>,
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
        owners: Vec<Option<Owner>>,
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

/// Whose a client id is while its connection lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The subject.
    pub user: UserId,
    /// What it bases this on.
    pub claim: Claim,
}

/// What somebody bases it on that a client id is his. Ordered: the stronger claim wins, and of two equal ones the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Claim {
    /// He says so, and may not write: this keeps nobody from writing.
    Reader,
    /// He says so, and may write.
    Editor,
    /// And the log says so too.
    Writer,
}

impl BusMessage {
    /// The document it is about, or the whole tenant.
    pub fn key(&self) -> Option<DocumentKey> {
        match self {
            Self::Committed { key, .. } | Self::Presence { key, .. } | Self::PresenceQuery { key, .. } => Some(*key),
            Self::AccessChanged { .. } => None,
        }
    }

    /// The tenant it is about.
    pub fn tenant(&self) -> TenantId {
        match self {
            Self::AccessChanged { tenant, .. } => *tenant,
            Self::Committed { key, .. } | Self::Presence { key, .. } | Self::PresenceQuery { key, .. } => key.tenant,
        }
    }

    /// Who sends.
    pub fn node(&self) -> NodeId {
        match self {
            Self::Committed { node, .. }
            | Self::Presence { node, .. }
            | Self::PresenceQuery { node, .. }
            | Self::AccessChanged { node, .. } => *node,
        }
    }

    /// Memory that it holds, about.
    pub fn weight_bytes(&self) -> usize {
        const FIXED: usize = 128;
        FIXED
            + match self {
                Self::Committed { updates, .. } => updates.iter().map(|update| 49 + update.len()).sum(),
                Self::Presence { update, owners, .. } => update.len() + 18 * owners.len(),
                Self::PresenceQuery { .. } | Self::AccessChanged { .. } => 0,
            }
    }
}

/// Events of one subscription that wait: a document that is busy takes a moment, one that takes longer reads the log anyway.
const EVENTS_MAX: usize = 1_024;
/// The same in bytes.
const EVENTS_BYTES_MAX: usize = 8 << 20;

/// A subscription's queue, for whoever implements [`Bus`]. `on_drop` is called once, when the receiving half is dropped.
pub fn events(on_drop: impl FnOnce() + Send + 'static) -> (EventSender, Events) {
    let shared = Arc::new(Shared { queue: Mutex::default(), waker: AtomicWaker::new() });
    let on_drop = Mutex::new(Some(Box::new(on_drop) as Box<dyn FnOnce() + Send>));
    (EventSender { shared: Arc::clone(&shared) }, Events { shared, on_drop })
}

struct Shared {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<BusEvent>,
    bytes: usize,
    /// One of the halves is gone.
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner) // every critical section leaves it whole
    }
}

/// The bus's half of a subscription. Dropped, it ends the receiving half after what still waits.
pub struct EventSender {
    shared: Arc<Shared>,
}

impl EventSender {
    /// Queues an event. Where there is no room, everything that waits becomes one gap: whoever is so far behind looks at the log
    /// sooner than at what was said about it.
    pub fn push(&self, event: BusEvent) {
        let mut queue = self.shared.lock();
        if queue.closed {
            return;
        }
        let weight = weight(&event);
        let is_full = queue.events.len() >= EVENTS_MAX || queue.bytes + weight > EVENTS_BYTES_MAX;
        let before = queue.events.len();
        if is_full {
            queue.events.clear();
            queue.bytes = 0;
            metrics::counter!("contextnexus_bus_overflows_total").increment(1);
        }
        if is_full || event == BusEvent::Gap {
            if queue.events.back() != Some(&BusEvent::Gap) {
                queue.events.push_back(BusEvent::Gap);
            }
        } else {
            queue.events.push_back(event);
            queue.bytes += weight;
        }
        waiting(before, queue.events.len());
        drop(queue);
        self.shared.waker.wake();
    }
}

fn waiting(before: usize, now: usize) {
    if before != now {
        metrics::gauge!("contextnexus_bus_events_waiting").increment(now as f64 - before as f64);
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.waker.wake();
    }
}

impl std::fmt::Debug for EventSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventSender").field("waiting", &self.shared.lock().events.len()).finish()
    }
}

/// The subscriber's half.
pub struct Events {
    shared: Arc<Shared>,
    on_drop: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Events {
    /// The next event; `None` when the bus is gone.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<BusEvent>> {
        self.shared.waker.register(context.waker());
        let mut queue = self.shared.lock();
        match queue.events.pop_front() {
            Some(event) => {
                queue.bytes -= weight(&event);
                waiting(1, 0);
                Poll::Ready(Some(event))
            }
            None if queue.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// The next event; `None` when the bus is gone.
    pub async fn recv(&mut self) -> Option<BusEvent> {
        poll_fn(|context| self.poll_recv(context)).await
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        {
            let mut queue = self.shared.lock();
            queue.closed = true;
            waiting(queue.events.len(), 0);
            queue.events.clear();
        }
        let on_drop = self.on_drop.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(on_drop) = on_drop {
            on_drop();
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("waiting", &self.shared.lock().events.len()).finish()
    }
}

fn weight(event: &BusEvent) -> usize {
    match event {
        BusEvent::Message(message) => message.weight_bytes(),
        BusEvent::Gap => 0,
    }
}
