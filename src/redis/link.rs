//! The task that keeps the connections to Redis: one that listens, one that publishes, both new when either fails.

use super::wire::{Channel, encode};
use super::{Shared, dropped, lock};
use contextnexus_actors::causes::Cause;
use contextnexus_actors::ports::bus::BusMessage;
use contextnexus_actors::report;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError, Value};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Sent in one pipeline.
const PIPELINE_BYTES_MAX: usize = 1 << 20;
/// Channels in one command.
const SUBSCRIBE_MAX: usize = 500;
/// Longest that Redis takes for anything.
const PATIENCE: Duration = Duration::from_secs(2);
/// A node publishes to itself so often, through Redis and back …
const HEARTBEAT: Duration = Duration::from_millis(500);
/// … and takes the connection for dead when it has heard nothing at all for so long.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Between two attempts to connect.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What may wait to be published. The reasons stand in `default.toml`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutgoingLimits {
    /// Bytes.
    pub bytes_max: usize,
    /// Messages.
    pub messages_max: usize,
}

impl Default for OutgoingLimits {
    fn default() -> Self {
        Self { bytes_max: 16 << 20, messages_max: 10_000 }
    }
}

/// Messages that wait to be published.
#[derive(Debug, Default)]
pub struct Outgoing {
    limits: OutgoingLimits,
    messages: VecDeque<BusMessage>,
    bytes: usize,
}

impl Outgoing {
    /// Nothing waits.
    pub fn new(limits: OutgoingLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Whether there was room.
    pub fn push(&mut self, message: BusMessage) -> bool {
        let bytes = message.weight_bytes();
        if self.bytes + bytes > self.limits.bytes_max || self.messages.len() >= self.limits.messages_max {
            return false;
        }
        self.bytes += bytes;
        self.messages.push_back(message);
        self.show();
        true
    }

    /// Drops all. How many it were.
    pub fn clear(&mut self) -> usize {
        self.bytes = 0;
        self.show();
        std::mem::take(&mut self.messages).len()
    }

    fn show(&self) {
        metrics::gauge!("contextnexus_bus_outgoing_bytes").set(self.bytes as f64);
    }

    fn take(&mut self, bytes_max: usize) -> Vec<BusMessage> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(message) = self.messages.pop_front()
        {
            bytes += message.weight_bytes();
            taken.push(message);
        }
        self.bytes -= bytes;
        self.show();
        taken
    }
}

/// Connects, serves, and begins anew when that ends.
pub async fn keep(shared: Arc<Shared>) {
    let mut retry = RETRY_MIN;
    let mut was_up = true; // so that the first failure is told
    metrics::gauge!("contextnexus_bus_up").set(0.0);
    loop {
        let began = Instant::now();
        let ended = serve(&shared).await;
        let was_served = shared.is_up.load(Ordering::Relaxed);
        shared.went_down();
        metrics::gauge!("contextnexus_bus_up").set(0.0);
        let Err(error) = ended;
        if was_served || was_up {
            report!(Cause::Outage, "no connection to Redis, nodes hear of each other through the log: {error}");
        }
        was_up = was_served;
        if was_served && began.elapsed() > RETRY_MAX {
            retry = RETRY_MIN;
        }
        // Nodes that lost one Redis together come back one after the other.
        tokio::time::sleep(retry.mul_f64(rand::random_range(0.5..1.0))).await;
        retry = (2 * retry).min(RETRY_MAX);
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Failed(#[from] RedisError),
    #[error("the connection was closed")]
    Closed,
    #[error("Redis is silent")]
    Silent,
}

/// One pair of connections, from the first to the last moment.
async fn serve(shared: &Arc<Shared>) -> Result<std::convert::Infallible, Lost> {
    let ears = Arc::new(Ears::default());
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
    let (hears, of_bus) = (Arc::clone(&ears), Arc::clone(shared));
    let listening = config.clone().set_push_sender(move |info: PushInfo| {
        hears.hear(&of_bus, info);
        Ok::<(), std::convert::Infallible>(())
    });
    let mut listener = shared.client.get_multiplexed_async_connection_with_config(&listening).await?;
    let publisher = shared.client.get_multiplexed_async_connection_with_config(&config).await?;
    listener.subscribe(Channel::Node(shared.node).name()).await?;
    lock(&shared.board).forget_redis(); // all that is wanted is to be told
    tell(shared, &mut listener).await?;
    shared.came_up();
    metrics::gauge!("contextnexus_bus_up").set(1.0);
    tracing::info!("connected to Redis");
    tokio::select! {
        ended = subscribe(shared, listener) => ended,
        ended = publish(shared, publisher.clone()) => ended,
        ended = beat(shared, publisher, &ears) => ended,
        () = ears.lost.notified() => Err(Lost::Closed),
    }
}

/// What came on the listening connection, last.
#[derive(Debug, Default)]
struct Ears {
    lost: Notify,
    has_heard: AtomicBool,
}

impl Ears {
    /// Called by the connection; must not wait.
    fn hear(&self, shared: &Shared, info: PushInfo) {
        match info.kind {
            PushKind::Disconnection => self.lost.notify_one(),
            PushKind::Message => {
                self.has_heard.store(true, Ordering::Relaxed);
                let mut data = info.data.into_iter();
                if let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) = (data.next(), data.next())
                {
                    shared.receive(&channel, payload);
                }
            }
            _ => {}
        }
    }
}

async fn subscribe(shared: &Shared, mut listener: MultiplexedConnection) -> Result<std::convert::Infallible, Lost> {
    loop {
        shared.board_changed.notified().await;
        tell(shared, &mut listener).await?;
    }
}

/// Tells Redis what is wanted now.
async fn tell(shared: &Shared, listener: &mut MultiplexedConnection) -> Result<(), Lost> {
    let changes = lock(&shared.board).take_changes();
    lock(&shared.board).unsubscribing(&changes.unsubscribe);
    for channels in changes.unsubscribe.chunks(SUBSCRIBE_MAX) {
        listener.unsubscribe(channels.iter().map(Channel::name).collect::<Vec<_>>()).await?;
    }
    for channels in changes.subscribe.chunks(SUBSCRIBE_MAX) {
        listener.subscribe(channels.iter().map(Channel::name).collect::<Vec<_>>()).await?;
        lock(&shared.board).subscribed(channels);
    }
    for tenant in changes.without_key {
        if shared.key(tenant).await.is_some() {
            lock(&shared.board).has_key(tenant);
        }
    }
    Ok(())
}

async fn publish(shared: &Shared, mut publisher: MultiplexedConnection) -> Result<std::convert::Infallible, Lost> {
    loop {
        let messages = lock(&shared.outgoing).take(PIPELINE_BYTES_MAX);
        if messages.is_empty() {
            shared.outgoing_waits.notified().await;
            continue;
        }
        let count = messages.len();
        let mut pipeline = redis::pipe();
        for message in messages {
            match shared.key(message.tenant()).await {
                Some(key) => {
                    pipeline.publish(Channel::of(&message).name(), encode(&message, &key)).ignore();
                }
                None => dropped("no_key", 1),
            }
        }
        if pipeline.is_empty() {
            continue;
        }
        if let Err(error) = pipeline.query_async::<()>(&mut publisher).await {
            dropped("failed", count);
            return Err(error.into());
        }
        metrics::counter!("contextnexus_bus_published_total").increment(count as u64);
    }
}

/// Publishes to ourselves, and sees that it comes back: a connection may be dead in one direction, or a Redis stopped.
async fn beat(
    shared: &Shared,
    mut publisher: MultiplexedConnection,
    ears: &Ears,
) -> Result<std::convert::Infallible, Lost> {
    let channel = Channel::Node(shared.node).name();
    let last = Mutex::new(Instant::now());
    let watch = async {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            let mut last = lock(&last);
            if ears.has_heard.swap(false, Ordering::Relaxed) {
                *last = Instant::now();
            } else if last.elapsed() > SILENCE_MAX {
                return Err(Lost::Silent);
            }
        }
    };
    let send = async {
        loop {
            redis::cmd("PUBLISH").arg(&channel).arg("").query_async::<()>(&mut publisher).await?;
            tokio::time::sleep(HEARTBEAT).await;
        }
    };
    tokio::select! {
        ended = watch => ended,
        ended = send => ended,
    }
}
