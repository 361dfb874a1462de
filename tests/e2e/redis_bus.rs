//! The bus over a real Redis: stopped, started again, hung, flushed, and written to by a stranger.

use crate::support::postgres::TestDatabase;
use crate::support::process::eventually;
use crate::support::raw;
use crate::support::redis::Redis;
use crate::support::server::Options;
use async_trait::async_trait;
use contextnexus::postgres::bus_keys::TenantBusKeys;
use contextnexus::redis::{BusKey, BusKeys, RedisBus};
use contextnexus_actors::ids::{NodeId, TenantId};
use contextnexus_actors::ports::bus::{Bus, BusEvent, BusMessage};
use contextnexus_actors::ports::contract_bus::{self, Fixture, committed, key};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::timeout;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_millis(300);

/// A key per tenant, as PostgreSQL would have it; away when told.
#[derive(Clone, Default)]
struct Keys {
    away: Arc<AtomicBool>,
}

#[async_trait]
impl BusKeys for Keys {
    async fn key(&self, tenant: TenantId) -> Option<BusKey> {
        let known = !self.away.load(Ordering::Relaxed);
        known.then(|| blake3::derive_key("keys of a test", tenant.0.as_bytes()))
    }
}

fn node(number: u128) -> NodeId {
    NodeId(Uuid::from_u128(number))
}

async fn connected(url: &str, number: u128) -> (NodeId, Arc<RedisBus>) {
    let bus = RedisBus::start(url, node(number), Keys::default()).unwrap();
    up(&bus).await;
    (node(number), Arc::new(bus))
}

async fn up(bus: &RedisBus) {
    let start = Instant::now();
    while !bus.is_up() {
        assert!(start.elapsed() < PATIENCE, "no connection to Redis");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct OverRedis {
    redis: Mutex<Redis>,
    next: AtomicU64,
}

#[async_trait]
impl Fixture for OverRedis {
    async fn node(&self) -> (NodeId, Arc<dyn Bus>) {
        let url = self.redis.lock().unwrap().url();
        let (node, bus) = connected(&url, self.next.fetch_add(1, Ordering::Relaxed).into()).await;
        (node, bus)
    }

    async fn take_away(&self) {
        self.redis.lock().unwrap().kill();
        tokio::time::sleep(SILENCE).await;
    }

    async fn bring_back(&self) {
        self.redis.lock().unwrap().restart();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_keeps_the_contract_of_the_bus() {
    contract_bus::all(&OverRedis { redis: Mutex::new(Redis::start()), next: AtomicU64::new(1) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_redis_and_finds_it_later() {
    let mut redis = Redis::start();
    redis.kill();
    let bus = RedisBus::start(&redis.url(), node(1), Keys::default()).unwrap();
    let mut events = bus.subscribe(key(1, 1)).await.events;
    assert!(!bus.is_up());
    redis.restart();
    assert_eq!(timeout(PATIENCE, events.recv()).await.unwrap(), Some(BusEvent::Gap));
    let (other, of_other) = connected(&redis.url(), 2).await;
    of_other.publish(committed(key(1, 1), other, 1, b"x"));
    let mut heard = timeout(PATIENCE, events.recv()).await.unwrap();
    while heard == Some(BusEvent::Gap) {
        // More than one costs another look at the log and nothing else.
        heard = timeout(PATIENCE, events.recv()).await.unwrap();
    }
    assert_eq!(heard, Some(BusEvent::Message(committed(key(1, 1), other, 1, b"x"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_takes_nothing_from_the_bus() {
    let redis = Redis::start();
    let ((a, of_a), (_, of_b)) = (connected(&redis.url(), 1).await, connected(&redis.url(), 2).await);
    let mut events = of_b.subscribe(key(1, 1)).await.events;
    redis.flush();
    of_a.publish(committed(key(1, 1), a, 1, b"x"));
    let heard = timeout(PATIENCE, events.recv()).await.unwrap();
    assert_eq!(heard, Some(BusEvent::Message(committed(key(1, 1), a, 1, b"x"))));
}

/// Not killed but stopped: no connection breaks, nothing comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_left_and_found_again() {
    let redis = Redis::start();
    let relay = Relay::start(redis.port);
    let (_, bus) = connected(&relay.url(), 1).await;
    let mut events = bus.subscribe(key(1, 1)).await.events;
    relay.hang(true);
    let start = Instant::now();
    while bus.is_up() {
        assert!(start.elapsed() < PATIENCE, "nobody noticed that Redis hangs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let start = Instant::now();
    bus.publish(committed(key(1, 1), node(1), 1, b"x"));
    assert!(start.elapsed() < Duration::from_secs(2), "it waits for Redis, which hangs"); // the response timeout is longer
    relay.hang(false);
    assert_eq!(timeout(PATIENCE, events.recv()).await.unwrap(), Some(BusEvent::Gap));
    up(&bus).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_writes_into_redis_is_not_believed() {
    let redis = Redis::start();
    let ((a, of_a), (_, of_b)) = (connected(&redis.url(), 1).await, connected(&redis.url(), 2).await);
    let mut events = of_b.subscribe(key(1, 1)).await.events;
    let mut access = of_b.subscribe_access().await;
    // A spy sees a true message go by …
    let document = channel(1, Some(1));
    let mut spy = Raw::connect(redis.port);
    spy.subscribe(&document);
    of_a.publish(committed(key(1, 1), a, 1, b"true"));
    let real = spy.message();
    let heard = timeout(PATIENCE, events.recv()).await.unwrap();
    assert_eq!(heard, Some(BusEvent::Message(committed(key(1, 1), a, 1, b"true"))));
    // … changes it, and sends it where it does not belong.
    let mut changed = real.clone();
    let at = changed.windows(4).position(|window| window == b"true").unwrap();
    changed[at] = b'T';
    let mut stranger = Raw::connect(redis.port);
    for (channel, payload) in [
        (&document, changed),
        (&document, Vec::new()),
        (&document, b"hello".to_vec()),
        (&document, vec![1; 200]),
        (&channel(1, None), real.clone()),
    ] {
        stranger.publish(channel, &payload);
    }
    // Another tenant of the same Redis has a true message of its own.
    let _of_two = of_b.subscribe(key(2, 1)).await;
    let mut other = of_b.subscribe(key(2, 2)).await.events;
    stranger.publish(&channel(2, Some(2)), &real);
    assert!(timeout(SILENCE, events.recv()).await.is_err(), "something of it was believed");
    assert!(timeout(SILENCE, other.recv()).await.is_err(), "a message crossed from tenant to tenant");
    assert!(timeout(SILENCE, access.recv()).await.is_err());
    of_a.publish(committed(key(1, 1), a, 2, b"after"));
    let heard = timeout(PATIENCE, events.recv()).await.unwrap();
    assert_eq!(heard, Some(BusEvent::Message(committed(key(1, 1), a, 2, b"after"))), "the bus goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_key_comes_late_hears_of_the_gap() {
    let redis = Redis::start();
    let keys = Keys::default();
    keys.away.store(true, Ordering::Relaxed);
    let late = RedisBus::start(&redis.url(), node(1), keys.clone()).unwrap();
    up(&late).await;
    let mut events = late.subscribe(key(1, 1)).await.events;
    let (a, of_a) = connected(&redis.url(), 2).await;
    of_a.publish(committed(key(1, 1), a, 1, b"not understood"));
    assert!(timeout(SILENCE, events.recv()).await.is_err());
    keys.away.store(false, Ordering::Relaxed);
    of_a.publish(committed(key(1, 1), a, 2, b"not understood either"));
    assert_eq!(timeout(PATIENCE, events.recv()).await.unwrap(), Some(BusEvent::Gap));
    of_a.publish(committed(key(1, 1), a, 3, b"understood"));
    let heard = timeout(PATIENCE, events.recv()).await.unwrap();
    assert_eq!(heard, Some(BusEvent::Message(committed(key(1, 1), a, 3, b"understood"))));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subscription_of_redis_serves_all_of_a_node_and_ends_with_the_last() {
    let redis = Redis::start();
    let (_, bus) = connected(&redis.url(), 1).await;
    let mut asking = Raw::connect(redis.port);
    let first = bus.subscribe(key(1, 1)).await;
    let second = bus.subscribe(key(1, 1)).await;
    assert_eq!(asking.subscribers(&channel(1, Some(1))), 1);
    assert_eq!(asking.subscribers(&channel(1, None)), 1);
    drop(first);
    tokio::time::sleep(SILENCE).await;
    assert_eq!(asking.subscribers(&channel(1, Some(1))), 1);
    drop(second);
    let start = Instant::now();
    while asking.subscribers(&channel(1, Some(1))) + asking.subscribers(&channel(1, None)) > 0 {
        assert!(start.elapsed() < PATIENCE, "Redis still sends what nobody hears");
    }
    drop(bus);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tenant_has_a_key_of_its_own_that_all_nodes_read() {
    let test = TestDatabase::create().await;
    let (one, two) = (test.tenant("one").await, test.tenant("two").await);
    let (keys, of_another_node) = (TenantBusKeys::new(test.database()), TenantBusKeys::new(test.database()));
    let of_one = keys.key(one.id).await.unwrap();
    assert_eq!(of_another_node.key(one.id).await, Some(of_one));
    assert_ne!(keys.key(two.id).await, Some(of_one));
    assert_eq!(keys.key(TenantId(Uuid::from_u128(9))).await, None, "no such tenant");
}

/// Subscriptions that come and go while Redis does: whatever the order, at the end every document is heard.
#[tokio::test(flavor = "multi_thread")]
async fn documents_that_open_and_close_while_redis_restarts_are_all_heard_at_the_end() {
    let mut redis = Redis::start();
    let ((a, of_a), (_, of_b)) = (connected(&redis.url(), 1).await, connected(&redis.url(), 2).await);
    let opening = {
        let bus = Arc::clone(&of_b);
        tokio::spawn(async move {
            let mut kept = Vec::new();
            for round in 0..400_u128 {
                let document = round % 40;
                let subscription = bus.subscribe(key(1, document)).await;
                if round >= 360 {
                    kept.push((document, subscription.events));
                } else if round % 3 == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            kept
        })
    };
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        redis.kill();
        redis.restart();
    }
    let kept = opening.await.unwrap();
    up(&of_a).await;
    up(&of_b).await;
    tokio::time::sleep(SILENCE).await;
    for (document, mut events) in kept {
        of_a.publish(committed(key(1, document), a, 1, b"heard?"));
        loop {
            match timeout(PATIENCE, events.recv()).await {
                Ok(Some(BusEvent::Message(BusMessage::Committed { .. }))) => break,
                Ok(Some(BusEvent::Gap)) => {}
                other => panic!("document {document}: {other:?}"),
            }
        }
    }
}

fn channel(tenant: u128, document: Option<u128>) -> String {
    match document {
        Some(document) => format!("t:{tenant:032x}:d:{document:032x}"),
        None => format!("t:{tenant:032x}:access"),
    }
}

/// A client of Redis by hand.
struct Raw {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Raw {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { reader: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    fn send(&mut self, words: &[&[u8]]) {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend(format!("${}\r\n", word.len()).bytes());
            command.extend(*word);
            command.extend(b"\r\n");
        }
        self.stream.write_all(&command).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// One bulk string.
    fn bulk(&mut self) -> Vec<u8> {
        let length: usize = self.line().strip_prefix('$').unwrap().parse().unwrap();
        let mut bytes = vec![0; length + 2];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    fn publish(&mut self, channel: &str, payload: &[u8]) {
        self.send(&[b"PUBLISH", channel.as_bytes(), payload]);
        let heard_by = self.line();
        assert!(heard_by.starts_with(':') && heard_by != ":0", "nobody listens on {channel}: {heard_by}");
    }

    fn subscribe(&mut self, channel: &str) {
        self.send(&[b"SUBSCRIBE", channel.as_bytes()]);
        assert_eq!(self.line(), "*3");
        assert_eq!((self.bulk(), self.bulk()), (b"subscribe".to_vec(), channel.as_bytes().to_vec()));
        assert_eq!(self.line(), ":1");
    }

    fn message(&mut self) -> Vec<u8> {
        assert_eq!(self.line(), "*3");
        assert_eq!(self.bulk(), b"message");
        self.bulk();
        self.bulk()
    }

    fn subscribers(&mut self, channel: &str) -> usize {
        self.send(&[b"PUBSUB", b"NUMSUB", channel.as_bytes()]);
        assert_eq!(self.line(), "*2");
        self.bulk();
        self.line().strip_prefix(':').unwrap().parse().unwrap()
    }
}

/// Stands between a node and its Redis, and hands nothing on while it hangs.
struct Relay {
    port: u16,
    hangs: Arc<AtomicBool>,
}

impl Relay {
    fn start(redis: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self { port: listener.local_addr().unwrap().port(), hangs: Arc::default() };
        let hangs = Arc::clone(&relay.hangs);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", redis)).unwrap());
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let hangs = Arc::clone(&hangs);
                    std::thread::spawn(move || {
                        let mut bytes = [0; 64 * 1024];
                        while let Ok(count @ 1..) = from.read(&mut bytes) {
                            while hangs.load(Ordering::Relaxed) {
                                std::thread::sleep(Duration::from_millis(10));
                            }
                            if to.write_all(&bytes[..count]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        relay
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Relaxed);
    }
}

/// Redis is trusted with nothing, and whoever writes into it does not write the log of this server.
#[test]
fn forged_messages_are_counted_and_not_a_line_each() {
    let redis = Redis::start();
    let world = crate::support::world::World::start_with(Options { redis: Some(redis.url()), ..Options::default() });
    let address = world.base().trim_start_matches("http://").parse().unwrap();
    let (status, head, mut socket) = raw::Raw::request(address, &format!("/yjs/forged?token={}", world.token()), "");
    assert_eq!(status, 101, "{head}");
    socket.send_binary(&[0, 0, 1, 0]);
    while !socket.binary().starts_with(&[0, 1]) {}
    let channel = format!("t:{}:d:{}", world.tenant().simple(), world.document("forged").simple());
    let mut client = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
    let mut publish = |payload: &[u8]| {
        let head = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n", channel.len(), payload.len());
        client.write_all(&[head.as_bytes(), payload, b"\r\n"].concat()).unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap(); // how many have heard it
        answer == *b":1\r\n"
    };
    let forged = [&[2][..], &[1; 99], &[0; 32]].concat(); // of the version that is spoken
    eventually(PATIENCE, "the document listens", || publish(&forged));
    for _ in 0..2000 {
        assert!(publish(&forged) && publish(b"2"));
    }
    let dropped = |reason: &str| {
        let line = format!("contextnexus_bus_dropped_total{{reason=\"{reason}\"}} ");
        let page = world.metrics();
        page.lines().find_map(|found| found.strip_prefix(line.as_str())?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    eventually(PATIENCE, "they are counted", || dropped("mac") >= 2000.0 && dropped("version") >= 2000.0);
    let lines: Vec<_> = world.server.log().into_iter().filter(|line| line.contains("messages from Redis")).collect();
    // One of each reason, and perhaps the next minute's.
    assert!((2..=4).contains(&lines.len()), "{lines:#?}");
    let all = world.server.log().into_iter().filter(|line| line.contains(" WARN ")).count();
    assert!(all < 20, "{all} lines");
}
