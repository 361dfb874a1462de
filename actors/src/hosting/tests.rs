//! The races between routing and ending, and what is polled.
#![allow(clippy::unwrap_used)]

use super::noticeboard::Status;
use super::state::{HostState, HostedKey, Instance};
use crate::ids::{DocumentId, TenantId};
use crate::ports::authority::Place;
use uuid::Uuid;

type Key = (TenantId, u8);

impl HostedKey for Key {
    fn tenant(&self) -> TenantId {
        self.0
    }

    fn place(&self) -> Place {
        Place::Document(DocumentId(Uuid::from_u128(self.spread())))
    }

    fn at(tenant: TenantId, Place::Document(document): Place) -> Option<Self> {
        Some((tenant, document.0.as_u128() as u8))
    }

    fn spread(&self) -> u128 {
        self.1.into()
    }
}

fn tenant(number: u128) -> TenantId {
    TenantId(Uuid::from_u128(number))
}

fn key(number: u8) -> Key {
    (tenant(1), number)
}

/// Routes one message to an instance that is alive. Each is reached by itself.
fn routed(host: &mut HostState<Key, Instance>, key: Key) -> Instance {
    *host.route(key, |_| true, |instance| instance)
}

#[test]
fn messages_go_to_one_instance_until_it_has_ended() {
    let mut host = HostState::default();
    let first = routed(&mut host, key(1));
    assert_eq!(routed(&mut host, key(1)), first);
    assert_ne!(routed(&mut host, key(2)), first);
    assert!(host.resign(key(1), first, 2));
    assert!(host.get(key(1)).is_none());
    assert_ne!(routed(&mut host, key(1)), first);
}

#[test]
fn an_instance_that_a_message_is_on_its_way_to_may_not_end() {
    let mut host = HostState::default();
    let instance = routed(&mut host, key(1));
    routed(&mut host, key(1));
    assert!(!host.resign(key(1), instance, 1), "it has not heard the second");
    assert_eq!(host.get(key(1)), Some(&instance));
    assert!(host.resign(key(1), instance, 2));
}

#[test]
fn one_that_ends_late_does_not_take_its_successor_with_it() {
    let mut host = HostState::default();
    let first = routed(&mut host, key(1));
    host.ended(key(1), first);
    let second = routed(&mut host, key(1));
    host.ended(key(1), first);
    assert_eq!(host.get(key(1)), Some(&second));
    assert!(host.resign(key(1), first, 1), "it was forgotten before, and ends");
    assert_eq!(host.get(key(1)), Some(&second));
}

#[test]
fn a_dead_instance_is_replaced_by_who_asks_for_it() {
    let mut host = HostState::default();
    let dead = routed(&mut host, key(1));
    let alive = *host.route(key(1), |_| false, |instance| instance);
    assert_ne!(alive, dead);
    assert!(!host.resign(key(1), alive, 0), "the message that it was started for counts");
}

#[test]
fn no_more_idle_instances_unload_than_are_too_many() {
    let mut host = HostState::default();
    for number in 0..10 {
        routed(&mut host, key(number));
    }
    let status = |bytes: usize, is_idle: bool| Status { bytes, is_idle, ..Status::default() };
    assert_eq!(host.to_unload(|_| status(100, true), 1_000).len(), 0);
    assert_eq!(host.to_unload(|_| status(100, true), 750).len(), 3);
    assert_eq!(host.to_unload(|_| status(100, false), 750).len(), 0, "somebody is connected to each");
    assert_eq!(host.to_unload(|_| status(100, true), 0).len(), 10);
}

#[test]
fn a_tenant_is_polled_once_at_a_time_and_once_more_for_all_that_asked_meanwhile() {
    let mut host: HostState<Key, Instance> = HostState::default();
    assert!(host.begin_poll(tenant(1)));
    assert!(!host.begin_poll(tenant(1)));
    assert!(!host.begin_poll(tenant(1)));
    assert!(host.begin_poll(tenant(2)), "each by itself");
    assert!(host.end_poll(tenant(1), Some(7)));
    assert_eq!((host.epoch(tenant(1)), host.epoch(tenant(2))), (Some(7), None));
    assert!(host.begin_poll(tenant(1)));
    assert!(!host.end_poll(tenant(1), None), "nobody asked again");
    assert_eq!(host.epoch(tenant(1)), Some(7), "PostgreSQL was unreachable: the next poll asks since then");
}

#[test]
fn tenants_with_something_open_are_polled_and_their_heads_every_second_time() {
    let mut host = HostState::default();
    let instance = routed(&mut host, key(1));
    assert_eq!(host.tick(), ([tenant(1)].into(), false));
    assert_eq!(host.tick(), ([tenant(1)].into(), true));
    host.end_poll(tenant(1), Some(7));
    host.ended(key(1), instance);
    assert_eq!(host.tick(), ([].into(), false));
    assert_eq!(host.epoch(tenant(1)), None, "what nobody has open is compared from the start when it is opened again");
}
