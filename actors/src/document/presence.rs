//! Who is here and where their cursors are: the newest state per client id, as raw bytes, never parsed.
//!
//! An id belongs to the first live connection that announces it. Honest clients re-send others' states all the time
//! (protocols.md 2.7), so what a connection says about an id held elsewhere is dropped silently. States are sent at most once per
//! interval, newest wins, so the cost follows what changed and not how often. The interval follows what it costs to send them: few
//! receivers hear of a cursor at once, and many take no more than a part of the document's time.

use super::FollowerId;
use crate::ids::{NodeId, UserId};
use bytes::Bytes;
use contextnexus_gate::AwarenessEntry;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// The time after a sending in which nothing more is sent, per receiver: about four times what it takes to write to one …
const PAUSE_PER_RECEIVER: Duration = Duration::from_micros(30);
/// … and for each byte that each receiver is sent.
const PAUSE_PER_BYTE: Duration = Duration::from_nanos(1);

/// The newest presence of one document.
#[derive(Debug)]
pub struct Presence {
    entries: HashMap<u64, Entry>,
    /// Ids that left a moment ago: a late relay of their last state must not bring them back under another holder.
    departed: HashMap<u64, Departed>,
    changed: BTreeSet<u64>,
    interval_max: Duration,
    timeout: Duration,
    ids_per_connection_max: usize,
    /// Nothing is sent before.
    next_flush: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    clock: u64,
    state: Bytes,
    holder: Holder,
    /// The subject that alone may add blocks under this id while the entry lives; `None` for a relayed id.
    owner: Option<UserId>,
    renewed_at: Instant,
}

#[derive(Debug)]
struct Departed {
    clock: u64,
    user: Option<UserId>,
    until: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holder {
    Here(FollowerId),
    There(NodeId),
}

/// Who announces.
#[derive(Clone, Copy, Debug)]
pub struct Announcer {
    /// The connection.
    pub follower: FollowerId,
    /// Its subject.
    pub user: UserId,
    /// The id that is its own: the only one of its first announcement.
    pub own: Option<u64>,
}

/// What is to be sent now.
#[derive(Debug, Default)]
pub struct Flush {
    /// Changed states, gone ones as null.
    pub entries: Vec<AwarenessEntry>,
    /// All of them come from this connection, which need not hear them again.
    pub only_from: Option<FollowerId>,
    /// Those that live on this node, with their owners, for the other nodes.
    pub local: Vec<(AwarenessEntry, Option<UserId>)>,
}

impl Presence {
    /// Nobody is here.
    pub fn new(interval_max: Duration, timeout: Duration, ids_per_connection_max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            departed: HashMap::new(),
            changed: BTreeSet::new(),
            interval_max,
            timeout,
            ids_per_connection_max,
            next_flush: None,
        }
    }

    /// Takes in what a connection of this node says. Returns the ids that came back at a clock at which others were told that
    /// they left: their owner must be told the same, so that it announces itself with a higher clock.
    pub fn announce(&mut self, from: Announcer, said: &[AwarenessEntry], now: Instant) -> Vec<AwarenessEntry> {
        let mut told_gone = Vec::new();
        for entry in said {
            if self.announce_one(from, entry, now)
                && !entry.is_null // a farewell has just departed, and others are yet to hear of it
                && let Some(departed) = self.departed.remove(&entry.client)
                && departed.clock >= entry.clock
            {
                told_gone.push(gone(entry.client, departed.clock));
            }
        }
        told_gone
    }

    fn announce_one(&mut self, from: Announcer, said: &AwarenessEntry, now: Instant) -> bool {
        let holder = Holder::Here(from.follower);
        let owner = (from.own == Some(said.client)).then_some(from.user);
        match self.entries.get_mut(&said.client) {
            Some(held) if held.holder == holder => {
                let newer = said.clock > held.clock || (said.clock == held.clock && said.is_null);
                if !newer {
                    return false;
                }
            }
            // The same subject on another connection: a reconnect that overtook the end of the old socket.
            Some(held) if held.owner == Some(from.user) && said.clock > held.clock && !said.is_null => {}
            Some(_) => return false,
            None if said.is_null => return false,
            None => {
                if let Some(departed) = self.departed.get(&said.client)
                    && now < departed.until
                    && (departed.user != Some(from.user) || owner.is_none())
                {
                    return false;
                }
                if owner.is_none() && self.held_by(from.follower) >= self.ids_per_connection_max {
                    return false;
                }
            }
        }
        if said.is_null {
            self.depart(said.client, said.clock, now);
        } else {
            let owner = owner.or_else(|| self.entries.get(&said.client).and_then(|held| held.owner));
            self.entries.insert(
                said.client,
                Entry { clock: said.clock, state: said.state.clone(), holder, owner, renewed_at: now },
            );
            self.changed.insert(said.client);
        }
        true
    }

    /// Takes in what another node says of its own clients.
    pub fn announce_remote(&mut self, node: NodeId, said: &[AwarenessEntry], owners: &[Option<UserId>], now: Instant) {
        for (index, entry) in said.iter().enumerate() {
            let held = self.entries.get(&entry.client);
            if held.is_some_and(|held| matches!(held.holder, Holder::Here(_)) || held.clock > entry.clock) {
                continue;
            }
            if entry.is_null {
                if held.is_some() {
                    self.depart(entry.client, entry.clock, now);
                }
                continue;
            }
            let unchanged = held.is_some_and(|held| held.clock == entry.clock);
            let owner = owners.get(index).copied().flatten();
            self.entries.insert(
                entry.client,
                Entry {
                    clock: entry.clock,
                    state: entry.state.clone(),
                    holder: Holder::There(node),
                    owner,
                    renewed_at: now,
                },
            );
            if !unchanged {
                self.changed.insert(entry.client);
            }
        }
    }

    /// A connection of this node is gone, and its clients with it.
    pub fn leave(&mut self, follower: FollowerId, now: Instant) {
        let gone: Vec<(u64, u64)> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.holder == Holder::Here(follower))
            .map(|(client, entry)| (*client, entry.clock))
            .collect();
        for (client, clock) in gone {
            self.depart(client, clock, now);
        }
    }

    /// Forgets clients of other nodes that were not renewed in time, and departures that are old.
    pub fn expire(&mut self, now: Instant) {
        let timeout = self.timeout;
        let gone: Vec<(u64, u64)> = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.holder, Holder::There(_)) && now >= entry.renewed_at + timeout)
            .map(|(client, entry)| (*client, entry.clock))
            .collect();
        for (client, clock) in gone {
            self.depart(client, clock, now);
        }
        self.departed.retain(|_, departed| now < departed.until);
    }

    /// Somebody here is connected to another node, and expires unless renewed.
    pub fn has_remote(&self) -> bool {
        self.entries.values().any(|entry| matches!(entry.holder, Holder::There(_)))
    }

    /// When something is to be sent next.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_flush.filter(|_| !self.changed.is_empty())
    }

    /// What changed, for so many receivers, if it is time to send it. The first change after a quiet interval is sent at once.
    pub fn flush(&mut self, receivers: usize, now: Instant) -> Option<Flush> {
        let due = self.next_flush.is_none_or(|at| now >= at);
        if self.changed.is_empty() || !due {
            return None;
        }
        let mut flush = Flush::default();
        let mut holders = BTreeSet::new();
        for client in std::mem::take(&mut self.changed) {
            let (entry, local) = match self.entries.get(&client) {
                Some(held) => {
                    let follower = match held.holder {
                        Holder::Here(follower) => Some(follower),
                        Holder::There(_) => None,
                    };
                    holders.insert(follower);
                    (said(client, held), follower.map(|_| held.owner))
                }
                None => {
                    holders.insert(None);
                    let Some(departed) = self.departed.get(&client) else { continue };
                    (gone(client, departed.clock), Some(departed.user))
                }
            };
            if let Some(owner) = local {
                flush.local.push((entry.clone(), owner));
            }
            flush.entries.push(entry);
        }
        let bytes: usize = flush.entries.iter().map(|entry| entry.state.len()).sum();
        let pause_each = PAUSE_PER_RECEIVER + PAUSE_PER_BYTE * u32::try_from(bytes).unwrap_or(u32::MAX);
        let pause = pause_each.saturating_mul(u32::try_from(receivers).unwrap_or(u32::MAX));
        self.next_flush = Some(now + pause.min(self.interval_max));
        if holders.len() == 1 {
            flush.only_from = holders.into_iter().next().flatten();
        }
        Some(flush)
    }

    /// Everybody who is here, for somebody who has just come.
    pub fn all(&self) -> Vec<AwarenessEntry> {
        self.entries.iter().map(|(client, entry)| said(*client, entry)).collect()
    }

    /// Everybody who is connected to this node, for another node that asks.
    pub fn local(&self) -> Vec<(AwarenessEntry, Option<UserId>)> {
        self.entries
            .iter()
            .filter(|(_, entry)| matches!(entry.holder, Holder::Here(_)))
            .map(|(client, entry)| (said(*client, entry), entry.owner))
            .collect()
    }

    /// The subject that alone may add blocks under this id, while a live connection owns it.
    pub fn owner(&self, client: u64) -> Option<UserId> {
        self.entries.get(&client).and_then(|entry| entry.owner)
    }

    fn held_by(&self, follower: FollowerId) -> usize {
        self.entries.values().filter(|entry| entry.holder == Holder::Here(follower)).count()
    }

    fn depart(&mut self, client: u64, clock: u64, now: Instant) {
        let user = self.entries.remove(&client).and_then(|entry| entry.owner);
        self.departed.insert(client, Departed { clock, user, until: now + self.timeout });
        self.changed.insert(client);
    }
}

fn said(client: u64, entry: &Entry) -> AwarenessEntry {
    AwarenessEntry { client, clock: entry.clock, state: entry.state.clone(), is_null: false }
}

/// `{same clock, null}`: a raised clock would hide a client that reconnects under its id until its next renewal.
fn gone(client: u64, clock: u64) -> AwarenessEntry {
    AwarenessEntry { client, clock, state: Bytes::from_static(b"null"), is_null: true }
}
