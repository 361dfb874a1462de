//! What a host decides: which instance a message goes to, whether one may end, who is asked to unload, and which tenant is polled.

use super::noticeboard::Status;
use crate::ids::TenantId;
use crate::ports::authority::Place;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Heads are compared at every second poll: once a second by default.
const HEADS_EVERY: u64 = 2;

/// One run of a hosted actor. No two have the same, so that one that ended late is not taken for its successor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Instance(u64);

/// What names a hosted actor.
pub trait HostedKey: Copy + Eq + Hash {
    /// In whose tenant it is.
    fn tenant(&self) -> TenantId;

    /// Where rights in it hold.
    fn place(&self) -> Place;

    /// The key of a place, if it is one of this kind.
    fn at(tenant: TenantId, place: Place) -> Option<Self>;

    /// A number that spreads keys over threads.
    fn spread(&self) -> u128;
}

/// The open instances of one kind of actor on this node, each with what reaches it (`T`).
#[derive(Debug)]
pub struct HostState<K, T> {
    open: HashMap<K, Open<T>>,
    instances: u64,
    /// Access epoch at the last poll.
    epochs: HashMap<TenantId, u64>,
    /// Tenants that are being polled now, one poll at a time; true: once more after it.
    polling: HashMap<TenantId, bool>,
    polls: u64,
}

#[derive(Debug)]
struct Open<T> {
    instance: Instance,
    /// Messages that were routed to it.
    routed: u64,
    reached: T,
}

impl<K, T> Default for HostState<K, T> {
    fn default() -> Self {
        Self { open: HashMap::new(), instances: 0, epochs: HashMap::new(), polling: HashMap::new(), polls: 0 }
    }
}

impl<K: HostedKey, T> HostState<K, T> {
    /// What reaches the instance of this key, for exactly one message. Where none is open, or the open one is dead, a new one is started.
    pub fn route(&mut self, key: K, is_alive: impl FnOnce(&T) -> bool, start: impl FnOnce(Instance) -> T) -> &T {
        let open = match self.open.entry(key) {
            Entry::Occupied(open) if is_alive(&open.get().reached) => open.into_mut(),
            entry => {
                self.instances += 1;
                let instance = Instance(self.instances);
                entry.insert_entry(Open { instance, routed: 0, reached: start(instance) }).into_mut()
            }
        };
        open.routed += 1;
        &open.reached
    }

    /// An instance has nothing to do and would end, having heard `heard` routed messages. True: it is forgotten, and must end. False: another message
    /// is on its way to it.
    pub fn resign(&mut self, key: K, instance: Instance, heard: u64) -> bool {
        match self.open.get(&key) {
            Some(open) if open.instance == instance && open.routed != heard => false,
            _ => {
                self.ended(key, instance);
                true
            }
        }
    }

    /// An instance has ended by itself. The next message gets a new one.
    pub fn ended(&mut self, key: K, instance: Instance) {
        if self.open.get(&key).is_some_and(|open| open.instance == instance) {
            self.open.remove(&key);
        }
    }

    /// What reaches the open instance of this key.
    pub fn get(&self, key: K) -> Option<&T> {
        self.open.get(&key).map(|open| &open.reached)
    }

    /// Everything that is open.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.open.iter().map(|(key, open)| (*key, &open.reached))
    }

    /// Who is asked to unload so that all together take no more than `bytes_max`: idle ones, no more of them than it takes.
    pub fn to_unload(&self, status: impl Fn(&T) -> Status, bytes_max: usize) -> Vec<&T> {
        let all: Vec<(Status, &T)> = self.iter().map(|(_, reached)| (status(reached), reached)).collect();
        let mut excess = all.iter().map(|(status, _)| status.bytes).sum::<usize>().saturating_sub(bytes_max);
        let mut asked = Vec::new();
        for (status, reached) in all.into_iter().filter(|(status, _)| status.is_idle) {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(status.bytes);
            asked.push(reached);
        }
        asked
    }

    /// The interval is over: the tenants to poll, and whether their heads are compared this time.
    pub fn tick(&mut self) -> (HashSet<TenantId>, bool) {
        self.polls += 1;
        let tenants: HashSet<TenantId> = self.open.keys().map(K::tenant).collect();
        self.epochs.retain(|tenant, _| tenants.contains(tenant));
        (tenants, self.polls.is_multiple_of(HEADS_EVERY))
    }

    /// Whether a poll of this tenant may begin. Otherwise one is under way, and another follows it.
    pub fn begin_poll(&mut self, tenant: TenantId) -> bool {
        match self.polling.get_mut(&tenant) {
            Some(again) => {
                *again = true;
                false
            }
            None => {
                self.polling.insert(tenant, false);
                true
            }
        }
    }

    /// The access epoch of the tenant at its last poll.
    pub fn epoch(&self, tenant: TenantId) -> Option<u64> {
        self.epochs.get(&tenant).copied()
    }

    /// A poll is over. `epoch`: that of the tenant, if it was to be had. Answers whether it is polled again immediately.
    pub fn end_poll(&mut self, tenant: TenantId, epoch: Option<u64>) -> bool {
        if let Some(epoch) = epoch {
            self.epochs.insert(tenant, epoch);
        }
        self.polling.remove(&tenant).unwrap_or_default()
    }
}
