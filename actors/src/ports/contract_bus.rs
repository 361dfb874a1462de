//! What every implementation of [`Bus`] must do. A failure names the sentence that is broken.
#![allow(clippy::panic, clippy::expect_used)] // a suite of assertions

use super::bus::{Bus, BusEvent, BusMessage, Claim, Events, Owner};
use super::log::Authorship;
use crate::ids::{DocumentId, DocumentKey, NodeId, Position, TenantId, Tip, UserId};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;
use uuid::Uuid;

/// How an implementation is put to the test.
#[async_trait]
pub trait Fixture: Sync {
    /// A further node of the deployment, connected.
    async fn node(&self) -> (NodeId, Arc<dyn Bus>);
    /// Takes the transport away from all nodes.
    async fn take_away(&self);
    /// Brings it back.
    async fn bring_back(&self);
}

/// Long enough for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough for what must not come to be a surprise.
const SILENCE: Duration = Duration::from_millis(300);

/// The whole suite.
pub async fn all(fixture: &impl Fixture) {
    a_message_reaches_the_other_nodes_and_not_its_sender(fixture).await;
    nobody_hears_of_another_document_or_tenant(fixture).await;
    every_kind_of_message_arrives_as_it_was_sent(fixture).await;
    messages_of_one_sender_keep_their_order(fixture).await;
    subscriptions_of_one_node_end_one_by_one(fixture).await;
    access_changes_are_heard_where_the_tenant_has_documents(fixture).await;
    who_does_not_take_its_messages_finds_a_gap(fixture).await;
    a_lost_transport_is_a_gap_and_blocks_nobody(fixture).await;
}

async fn a_message_reaches_the_other_nodes_and_not_its_sender(fixture: &impl Fixture) {
    let ((a, bus_a), (b, bus_b), (_, bus_c)) = (fixture.node().await, fixture.node().await, fixture.node().await);
    let key = key(1, 1);
    let mut at_a = bus_a.subscribe(key).await.events;
    let mut at_b = bus_b.subscribe(key).await.events;
    let mut at_c = bus_c.subscribe(key).await.events;
    bus_a.publish(committed(key, a, 1, b"one"));
    assert_eq!(message(&mut at_b).await, committed(key, a, 1, b"one"));
    assert_eq!(message(&mut at_c).await, committed(key, a, 1, b"one"));
    bus_b.publish(committed(key, b, 2, b"two"));
    assert_eq!(message(&mut at_a).await, committed(key, b, 2, b"two"), "a hears b, and nothing of its own before");
    silent(&mut at_b, "b hears itself").await;
}

async fn nobody_hears_of_another_document_or_tenant(fixture: &impl Fixture) {
    let ((a, bus_a), (_, bus_b)) = (fixture.node().await, fixture.node().await);
    let mut at_b = bus_b.subscribe(key(2, 1)).await.events;
    bus_a.publish(committed(key(2, 2), a, 1, b"another document"));
    bus_a.publish(committed(key(3, 1), a, 1, b"another tenant's document of the same id"));
    bus_a.publish(committed(key(2, 1), a, 1, b"its own"));
    assert_eq!(message(&mut at_b).await, committed(key(2, 1), a, 1, b"its own"));
}

async fn every_kind_of_message_arrives_as_it_was_sent(fixture: &impl Fixture) {
    let ((node, bus_a), (_, bus_b)) = (fixture.node().await, fixture.node().await);
    let key = key(4, 1);
    let mut at_b = bus_b.subscribe(key).await.events;
    let large = Bytes::from((0..1_000_000_u32).map(|n| n as u8).collect::<Vec<_>>());
    let nobody = BusMessage::Presence { key, node, update: Bytes::new(), owners: Vec::new() };
    let user = UserId(Uuid::from_u128(7));
    let owner = |claim| Some(Owner { user, claim });
    let presence = BusMessage::Presence {
        key,
        node,
        update: Bytes::from_static(b"\x01x"),
        owners: vec![owner(Claim::Editor), None, owner(Claim::Reader), owner(Claim::Writer)],
    };
    let (from, through) = (position(u64::MAX - 1), position(u64::MAX));
    let updates = vec![Bytes::new(), large, Bytes::from_static(b"x")];
    let authorship = vec![Authorship::WrittenBy(user), Authorship::RelayedBy(user), Authorship::Unknown];
    let nothing = (Vec::new(), Vec::new());
    for sent in [
        BusMessage::Committed { key, node, from, through, updates, authorship },
        BusMessage::Committed { key, node, from: Position::START, through, updates: nothing.0, authorship: nothing.1 },
        presence,
        nobody,
        BusMessage::PresenceQuery { key, node },
    ] {
        bus_a.publish(sent.clone());
        let came = message(&mut at_b).await;
        assert!(came == sent, "{sent:.100?}");
    }
}

async fn messages_of_one_sender_keep_their_order(fixture: &impl Fixture) {
    let ((a, bus_a), (_, bus_b)) = (fixture.node().await, fixture.node().await);
    let key = key(5, 1);
    let mut at_b = bus_b.subscribe(key).await.events;
    for seq in 1..=500 {
        bus_a.publish(committed(key, a, seq, b"x"));
    }
    for seq in 1..=500 {
        assert_eq!(message(&mut at_b).await, committed(key, a, seq, b"x"));
    }
}

async fn subscriptions_of_one_node_end_one_by_one(fixture: &impl Fixture) {
    let ((a, bus_a), (_, bus_b)) = (fixture.node().await, fixture.node().await);
    let key = key(6, 1);
    let mut first = bus_b.subscribe(key).await.events;
    let mut second = bus_b.subscribe(key).await.events;
    bus_a.publish(committed(key, a, 1, b"both"));
    assert_eq!(message(&mut first).await, committed(key, a, 1, b"both"));
    assert_eq!(message(&mut second).await, committed(key, a, 1, b"both"));
    drop(first);
    bus_a.publish(committed(key, a, 2, b"one"));
    assert_eq!(message(&mut second).await, committed(key, a, 2, b"one"));
    drop(second);
    let mut third = bus_b.subscribe(key).await.events;
    bus_a.publish(committed(key, a, 3, b"again"));
    assert_eq!(message(&mut third).await, committed(key, a, 3, b"again"));
}

async fn access_changes_are_heard_where_the_tenant_has_documents(fixture: &impl Fixture) {
    let ((a, bus_a), (b, bus_b)) = (fixture.node().await, fixture.node().await);
    let mut access_a = bus_a.subscribe_access().await;
    let mut access_b = bus_b.subscribe_access().await;
    let of_seven = bus_b.subscribe(key(7, 1)).await;
    let _of_eight = bus_b.subscribe(key(8, 1)).await;
    let changed = |tenant, node| BusMessage::AccessChanged { tenant: key(tenant, 1).tenant, node };
    bus_a.publish(changed(9, a));
    bus_a.publish(changed(7, a));
    let heard = timeout(PATIENCE, access_b.recv()).await.expect("an access change is heard");
    assert_eq!(heard, Some(key(7, 1).tenant), "of nine there is no document here");
    drop(of_seven);
    tokio::time::sleep(SILENCE).await;
    bus_a.publish(changed(7, a));
    bus_a.publish(changed(8, a));
    let heard = timeout(PATIENCE, access_b.recv()).await.expect("an access change is heard");
    assert_eq!(heard, Some(key(8, 1).tenant), "of seven there is none any more");
    bus_b.publish(changed(8, b));
    assert!(timeout(SILENCE, access_a.recv()).await.is_err(), "a has no document at all");
}

async fn who_does_not_take_its_messages_finds_a_gap(fixture: &impl Fixture) {
    let ((a, bus_a), (_, bus_b)) = (fixture.node().await, fixture.node().await);
    let key = key(10, 1);
    let mut at_b = bus_b.subscribe(key).await.events;
    let size = 500_000;
    for seq in 1..=100 {
        bus_a.publish(committed(key, a, seq, &vec![0; size]));
        tokio::time::sleep(Duration::from_millis(2)).await; // slower than the transport: it is the receiver that lags
    }
    tokio::time::sleep(SILENCE).await;
    let mut gaps = 0;
    let mut messages = Vec::new();
    while let Ok(event) = timeout(SILENCE, at_b.recv()).await {
        match event.expect("the bus stays") {
            BusEvent::Gap => gaps += 1,
            BusEvent::Message(BusMessage::Committed { through, .. }) => messages.push(through.seq),
            BusEvent::Message(other) => panic!("nobody sent {other:?}"),
        }
    }
    assert!(gaps > 0, "50 MB were kept, or lost without a word");
    assert!(messages.len() < 50, "{} messages of {size} bytes waited", messages.len());
    assert!(messages.is_sorted());
    bus_a.publish(committed(key, a, 200, b"after"));
    assert_eq!(message(&mut at_b).await, committed(key, a, 200, b"after"));
}

async fn a_lost_transport_is_a_gap_and_blocks_nobody(fixture: &impl Fixture) {
    let ((a, bus_a), (_, bus_b)) = (fixture.node().await, fixture.node().await);
    let (old, new) = (key(11, 1), key(11, 2));
    let mut at_b = bus_b.subscribe(old).await.events;
    bus_a.publish(committed(old, a, 1, b"before"));
    assert_eq!(message(&mut at_b).await, committed(old, a, 1, b"before"));
    fixture.take_away().await;
    let start = Instant::now();
    for seq in 2..10_000 {
        bus_a.publish(committed(old, a, seq, &[0; 100]));
    }
    let mut at_b_new = bus_b.subscribe(new).await.events;
    assert!(start.elapsed() < PATIENCE, "{:?} for what nobody can hear", start.elapsed());
    fixture.bring_back().await;
    assert_eq!(next(&mut at_b).await, BusEvent::Gap);
    assert_eq!(next(&mut at_b_new).await, BusEvent::Gap, "subscribed while the transport was away");
    for (events, key) in [(&mut at_b, old), (&mut at_b_new, new)] {
        // The two nodes need not be back in the same moment.
        let after = committed(key, a, 20_000, b"after");
        let start = Instant::now();
        loop {
            bus_a.publish(after.clone());
            match timeout(SILENCE, next(events)).await {
                Ok(BusEvent::Message(came)) if came == after => break,
                Ok(_) | Err(_) => assert!(start.elapsed() < PATIENCE, "nothing comes after the gap"),
            }
        }
    }
}

/// A document of a tenant, by number.
pub fn key(tenant: u128, document: u128) -> DocumentKey {
    DocumentKey { tenant: TenantId(Uuid::from_u128(tenant)), document: DocumentId(Uuid::from_u128(document)) }
}

/// One committed update that ends at `seq`.
pub fn committed(key: DocumentKey, node: NodeId, seq: u64, update: &[u8]) -> BusMessage {
    let updates = vec![Bytes::copy_from_slice(update)];
    let authorship = vec![Authorship::Unknown];
    BusMessage::Committed { key, node, from: position(seq - 1), through: position(seq), updates, authorship }
}

fn position(seq: u64) -> Position {
    Position { seq, tip: Tip(Uuid::from_u128(u128::from(seq) << 64)) }
}

async fn next(events: &mut Events) -> BusEvent {
    timeout(PATIENCE, events.recv()).await.expect("an event comes in time").expect("the bus stays")
}

async fn message(events: &mut Events) -> BusMessage {
    match next(events).await {
        BusEvent::Message(message) => message,
        BusEvent::Gap => panic!("a gap where nothing was lost"),
    }
}

async fn silent(events: &mut Events, otherwise: &str) {
    if let Ok(event) = timeout(SILENCE, events.recv()).await {
        panic!("{otherwise}: {event:?}");
    }
}
