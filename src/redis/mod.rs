//! The bus between nodes, over Redis pub/sub. Redis keeps nothing of ours: it may be flushed, stopped or lost.
//!
//! [`wire`] is what a message looks like on a channel, [`board`] who on this node listens to what, [`link`] the task that keeps the
//! connections. A node without connection publishes to nobody at no cost; back again, it tells every subscriber of the gap.

mod board;
mod doubts;
mod link;
mod wire;

use async_trait::async_trait;
use board::Board;
use contextnexus_actors::causes::Cause;
use contextnexus_actors::ids::{DocumentKey, NodeId, TenantId};
use contextnexus_actors::ports::bus::{Bus, BusEvent, BusMessage, Subscription, events};
use contextnexus_actors::report;
use doubts::Doubts;
use link::Outgoing;
pub use link::OutgoingLimits;
use redis::io::tcp::TcpSettings;
use redis::{Client, IntoConnectionInfo as _, ProtocolVersion};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

/// Authenticates the messages of one tenant. Known to all nodes and to nobody else, Redis included.
pub type BusKey = [u8; 32];

/// Where the keys are. Asked once per tenant and node.
#[async_trait]
pub trait BusKeys: Send + Sync + 'static {
    /// The tenant's key; `None` when it cannot be had right now.
    async fn key(&self, tenant: TenantId) -> Option<BusKey>;
}

/// The Redis bus of one node. Ends when dropped.
#[derive(Debug)]
pub struct RedisBus {
    shared: Arc<Shared>,
    link: AbortHandle,
}

/// Access changes that wait for a node. It polls by itself twice a second, so more that wait would say nothing new.
const ACCESS_MAX: usize = 256;
/// A subscription is answered after so long, active or not: a document is not to wait for Redis.
const SUBSCRIBE_PATIENCE: Duration = Duration::from_secs(1);
/// A tenant's key is waited for so long.
const KEY_PATIENCE: Duration = Duration::from_secs(1);

/// The address of the Redis is none.
#[derive(Debug, thiserror::Error)]
#[error("REDIS_URL is not an address such as redis://host:6379, or rediss://host:6379 for TLS")]
pub struct BadRedisUrl;

/// What the bus and its task share.
struct Shared {
    node: NodeId,
    client: Client,
    keys: Box<dyn BusKeys>,
    known_keys: Mutex<HashMap<TenantId, BusKey>>,
    board: Mutex<Board>,
    /// The board wants other channels than Redis was told.
    board_changed: Notify,
    outgoing: Mutex<Outgoing>,
    outgoing_waits: Notify,
    doubts: Mutex<Doubts>,
    is_up: AtomicBool,
}

impl RedisBus {
    /// With the default bounds: see [`start_with`](Self::start_with).
    pub fn start(url: &str, node: NodeId, keys: impl BusKeys) -> Result<Self, BadRedisUrl> {
        Self::start_with(url, node, keys, OutgoingLimits::default())
    }

    /// Connects in the background, now and whenever the connection is lost. Needs a tokio runtime.
    pub fn start_with(
        url: &str,
        node: NodeId,
        keys: impl BusKeys,
        outgoing: OutgoingLimits,
    ) -> Result<Self, BadRedisUrl> {
        let info = url.into_connection_info().map_err(|_| BadRedisUrl)?;
        let resp3 = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = info.set_redis_settings(resp3).set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let shared = Arc::new(Shared {
            node,
            client: Client::open(info).map_err(|_| BadRedisUrl)?,
            keys: Box::new(keys),
            known_keys: Mutex::default(),
            board: Mutex::default(),
            board_changed: Notify::new(),
            outgoing: Mutex::new(Outgoing::new(outgoing)),
            outgoing_waits: Notify::new(),
            doubts: Mutex::default(),
            is_up: AtomicBool::new(false),
        });
        let link = tokio::spawn(link::keep(Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, link })
    }

    /// Whether Redis is there at this moment. A server without it works, only slower between nodes.
    pub fn is_up(&self) -> bool {
        self.shared.is_up.load(Ordering::Relaxed)
    }
}

impl Drop for RedisBus {
    fn drop(&mut self) {
        self.link.abort();
    }
}

#[async_trait]
impl Bus for RedisBus {
    fn publish(&self, message: BusMessage) {
        let shared = &self.shared;
        if !shared.is_up.load(Ordering::Relaxed) {
            dropped("away", 1);
        } else if lock(&shared.outgoing).push(message) {
            shared.outgoing_waits.notify_one();
        } else {
            dropped("full", 1);
        }
    }

    async fn subscribe(&self, key: DocumentKey) -> Subscription {
        let shared = &self.shared;
        // Without it nothing is understood; with PostgreSQL away, it is asked for again when something comes.
        let _ = shared.key(key.tenant).await;
        let at_drop = Arc::downgrade(shared);
        let id = lock(&shared.board).fresh_ear();
        let (sender, events) = events(move || {
            if let Some(shared) = at_drop.upgrade() {
                lock(&shared.board).remove(key, id);
                shared.board_changed.notify_one();
            }
        });
        let active = lock(&shared.board).add(key, id, sender);
        shared.board_changed.notify_one();
        if let Some(active) = active
            && (!shared.is_up.load(Ordering::Relaxed)
                || tokio::time::timeout(SUBSCRIBE_PATIENCE, active).await.is_err())
        {
            lock(&shared.board).tell_when_active(key, id);
        }
        Subscription { events }
    }

    async fn subscribe_access(&self) -> mpsc::Receiver<TenantId> {
        let (sender, receiver) = mpsc::channel(ACCESS_MAX);
        lock(&self.shared.board).add_access(sender);
        receiver
    }
}

impl Shared {
    /// The tenant's key, from memory or from where it is kept.
    async fn key(&self, tenant: TenantId) -> Option<BusKey> {
        if let Some(key) = self.known_key(tenant) {
            return Some(key);
        }
        let key = tokio::time::timeout(KEY_PATIENCE, self.keys.key(tenant)).await.ok().flatten()?;
        lock(&self.known_keys).insert(tenant, key);
        Some(key)
    }

    fn known_key(&self, tenant: TenantId) -> Option<BusKey> {
        lock(&self.known_keys).get(&tenant).copied()
    }

    /// Something came on a channel of Redis.
    fn receive(&self, channel: &[u8], payload: Vec<u8>) {
        let Some(channel) = wire::Channel::parse(channel) else {
            return;
        };
        let tenant = match channel {
            wire::Channel::Node(_) => return, // our own heartbeat
            wire::Channel::Document(key) => key.tenant,
            wire::Channel::Access(tenant) => tenant,
        };
        let Some(key) = self.known_key(tenant) else {
            dropped("no_key", 1);
            lock(&self.board).lacks_key(tenant);
            self.board_changed.notify_one();
            return;
        };
        match wire::decode(payload, &channel, &key) {
            Ok(message) if message.node() == self.node => {}
            Ok(message) => lock(&self.board).deliver(message),
            Err(why) => {
                dropped(why.label(), 1);
                if let Some(count) = lock(&self.doubts).add(Instant::now(), why) {
                    report!(
                        Cause::Setup, tenant.id = %tenant, count,
                        "dropped {count} messages from Redis since this was said last, of tenant {tenant} and others: {why}. \
                         Let nobody but the nodes of this database write into this Redis"
                    );
                }
            }
        }
    }

    fn went_down(&self) {
        self.is_up.store(false, Ordering::Relaxed);
        dropped("away", lock(&self.outgoing).clear());
        lock(&self.board).forget_redis();
    }

    fn came_up(&self) {
        self.is_up.store(true, Ordering::Relaxed);
        lock(&self.board).push_all(&BusEvent::Gap);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("node", &self.node).field("is_up", &self.is_up).finish_non_exhaustive()
    }
}

fn dropped(why: &'static str, count: usize) {
    metrics::counter!("contextnexus_bus_dropped_total", "reason" => why).increment(count as u64);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // every critical section leaves it whole
}
