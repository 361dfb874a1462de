//! What a document's log holds, as far as the gate must know it: how far each client is known, what is deleted, and for each
//! unit the type and key that it stands in.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;

use crate::admit::{self, Admission, Refused};
use crate::block::Id;
use crate::caps::Caps;
use crate::place::{Names, Place, Run, Runs};
use crate::ranges::Ranges;
use crate::state_vector::{self, StateVector};
use crate::update::Update;

/// The committed prefix of a document's log: how far each client is known, what is deleted, and where everything stands.
/// Neighbours of one client in one type take 24 bytes together.
///
/// It changes only by [`Index::apply`] and [`Index::trust`]: admission reads it and writes into a [`Delta`].
///
/// Some deletes every replica makes by itself: the loser of two concurrent map entries, what is written into something deleted.
/// The index learns of them when somebody sends them, and that once is a row of its own in the log.
#[derive(Clone, Debug, Default)]
pub struct Index {
    clients: HashMap<u64, Client>,
    names: Names,
}

#[derive(Clone, Debug, Default)]
struct Client {
    next: u32,
    deleted: Ranges,
    runs: Runs,
}

/// What admitted updates will add to an [`Index`] once they are committed.
///
/// A batch that lost the race for the log is thrown away with its delta and admitted again.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    clients: HashMap<u64, Client>,
    names: Names,
}

impl Index {
    /// An empty document.
    pub fn new() -> Self {
        Self::default()
    }

    /// The index of a document whose whole state is `state`: clients from clock zero on, without gaps. What stands behind a gap
    /// is not taken for known. Nothing is checked: the state is this server's own.
    pub fn from_state(state: &Update) -> Self {
        let mut index = Self::new();
        index.apply(admit::seed(state));
        index
    }

    /// The state vector in the v1 encoding.
    pub fn state_vector(&self) -> Bytes {
        state_vector::encode(self.clocks().collect())
    }

    /// The clock after the last that the log holds of `client`.
    pub fn next_clock(&self, client: u64) -> u64 {
        self.clients.get(&client).map_or(0, |known| u64::from(known.next))
    }

    /// How many clients ever wrote.
    pub fn clients_len(&self) -> usize {
        self.clients.len()
    }

    /// Memory that it takes, about. Walks over all clients and names.
    pub fn bytes(&self) -> usize {
        let of_client = |known: &Client| known.runs.bytes() + known.deleted.bytes();
        let clients: usize = self.clients.values().map(of_client).sum();
        clients + self.clients.capacity() * (size_of::<(u64, Client)>() + 1) + self.names.bytes()
    }

    /// Each client with the clock after its last, in no order.
    pub fn clocks(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.clients.iter().map(|(&client, known)| (client, u64::from(known.next)))
    }

    /// Whether the log holds everything that `other` knows.
    pub fn covers(&self, other: &StateVector) -> bool {
        other.iter().all(|(client, clock)| clock <= self.next_clock(client))
    }

    /// Whether somebody at `other` knows everything that the log holds, deletes aside.
    pub fn is_covered_by(&self, other: &StateVector) -> bool {
        self.clocks().all(|(client, clock)| clock <= other.next_clock(client))
    }

    /// The log now holds what `delta` foresaw. It must have been admitted against exactly this index.
    pub fn apply(&mut self, delta: Delta) {
        if self.clients.is_empty() {
            (self.clients, self.names) = (delta.clients, delta.names);
            return;
        }
        for (id, change) in delta.clients {
            let client = self.clients.entry(id).or_default();
            client.next = client.next.max(change.next);
            client.deleted.extend(change.deleted);
            client.runs.extend(change.runs);
        }
        self.names.extend(delta.names);
    }

    /// Where a unit stands that the log holds; [`Place::GONE`] where that was collected.
    pub(crate) fn place(&self, id: Id) -> Place {
        let run = self.clients.get(&id.client).and_then(|known| known.runs.get(id.clock));
        run.map_or(Place::GONE, |run| run.place)
    }

    /// Takes in an update that another node admitted and the log holds. Known parts are trimmed as in [`admit`](crate::admit());
    /// ownership and caps were that node's business. A gap here means that the log itself has one.
    pub fn trust(&mut self, update: &Update) -> Result<Admission, Refused> {
        let mut delta = Delta::default();
        let admission = admit::admit(self, &mut delta, None, update, &Caps::of_the_log(), &mut |_| true)?;
        self.apply(delta);
        Ok(admission)
    }
}

/// An index with what stands before in the batch above it.
#[derive(Clone, Copy)]
pub(crate) struct Prefix<'a> {
    pub index: &'a Index,
    pub delta: &'a Delta,
}

impl Prefix<'_> {
    pub fn next(&self, client: u64) -> u32 {
        match self.delta.clients.get(&client) {
            // Deletes alone leave the clock of a delta at zero.
            Some(change) if change.next > 0 => change.next,
            _ => self.index.clients.get(&client).map_or(0, |known| known.next),
        }
    }

    /// The run that holds a known unit.
    pub fn unit(&self, id: Id) -> Option<Run> {
        let in_delta = self.delta.clients.get(&id.client).and_then(|change| change.runs.get(id.clock));
        in_delta.or_else(|| self.index.clients.get(&id.client)?.runs.get(id.clock))
    }

    /// The number of a name, if it has one.
    pub fn name(&self, name: &str) -> Option<u32> {
        self.index.names.get(name).or_else(|| self.delta.names.get(name))
    }

    /// How many names have a number.
    pub fn names_len(&self) -> usize {
        self.index.names.len() + self.delta.names.len()
    }

    /// Calls `with` for each part of `range` that is not deleted yet.
    pub fn undeleted(&self, client: u64, range: Range<u32>, mut with: impl FnMut(Range<u32>)) {
        let below = self.index.clients.get(&client).map(|known| &known.deleted);
        let above = self.delta.clients.get(&client).map(|change| &change.deleted);
        match (below, above) {
            (None, None) => with(range),
            (Some(deleted), None) | (None, Some(deleted)) => deleted.gaps(range).for_each(with),
            (Some(below), Some(above)) => below.gaps(range).for_each(|part| above.gaps(part).for_each(&mut with)),
        }
    }

    /// How many clients there are, if these come to them.
    pub fn clients_with(&self, coming: impl Iterator<Item = u64>) -> usize {
        let is_new = |client: &u64| !self.index.clients.contains_key(client);
        let in_delta = self.delta.clients.keys().filter(|client| is_new(client)).count();
        let coming = coming.filter(|client| is_new(client) && !self.delta.clients.contains_key(client)).count();
        self.index.clients.len() + in_delta + coming
    }
}

impl Delta {
    /// Whether nothing was admitted.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    pub(crate) fn clients_len(&self) -> usize {
        self.clients.len()
    }

    pub(crate) fn reserve_clients(&mut self, count: usize) {
        self.clients.reserve(count);
    }

    pub(crate) fn add_blocks(&mut self, client: u64, next: u32, runs: Runs) {
        let change = self.clients.entry(client).or_default();
        change.next = next;
        change.runs.extend(runs);
    }

    pub(crate) fn add_name(&mut self, name: &str, number: u32) {
        self.names.insert(name.into(), number);
    }

    /// Sets what is deleted of a client of which nothing was known to be deleted.
    pub(crate) fn set_deleted(&mut self, client: u64, deleted: Ranges) {
        self.clients.entry(client).or_default().deleted = deleted;
    }

    pub(crate) fn add_deleted(&mut self, client: u64, range: Range<u32>) {
        self.clients.entry(client).or_default().deleted.insert(range);
    }
}
