//! What a document's log holds, as far as the gate must know it.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;

use crate::admit::{self, Admission, Refused};
use crate::block::Kind;
use crate::caps::Caps;
use crate::ranges::Ranges;
use crate::state_vector::{self, StateVector};
use crate::update::Update;

/// The committed prefix of a document's log: how far each client is known, and what is deleted.
///
/// It changes only by [`Index::apply`] and [`Index::trust`]: admission reads it and writes into a [`Delta`].
///
/// Some deletes every replica makes by itself: the loser of two concurrent map entries, what is written into something deleted.
/// The index learns of them when somebody sends them, and that once is a row of its own in the log.
#[derive(Clone, Debug, Default)]
pub struct Index {
    clients: HashMap<u64, Client>,
}

#[derive(Clone, Debug, Default)]
struct Client {
    next: u32,
    deleted: Ranges,
}

/// What admitted updates will add to an [`Index`] once they are committed.
///
/// A batch that lost the race for the log is thrown away with its delta and admitted again.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    clients: HashMap<u64, Client>,
}

impl Index {
    /// An empty document.
    pub fn new() -> Self {
        Self::default()
    }

    /// The index of a document whose whole state is `state`: clients from clock zero on, without gaps. What stands behind a gap
    /// is not taken for known.
    pub fn from_state(state: &Update) -> Self {
        let mut index = Self { clients: HashMap::with_capacity(state.sections.len()) };
        for section in state.sections.iter().filter(|section| section.clock == 0) {
            let mut next = 0;
            let mut gone = Vec::new();
            for at in section.blocks.clone() {
                let Some(view) = state.view(section, at) else { break };
                let kind = view.kind();
                if kind == Kind::Skip {
                    break;
                }
                next = view.block.end_clock();
                if kind.is_deleted() {
                    gone.push(view.block.clock..next);
                }
            }
            let deleted = Ranges::from_ordered(gone.into_iter());
            index.clients.insert(section.client, Client { next, deleted });
        }
        for section in &state.delete_sections {
            let Some(client) = index.clients.get_mut(&section.client) else { continue };
            let next = client.next;
            let ranges = state.delete_ranges(section).iter().map(|range| range.start..range.end.min(next));
            let mut deleted = Ranges::from_ordered(ranges);
            if deleted.len() < client.deleted.len() {
                std::mem::swap(&mut deleted, &mut client.deleted);
            }
            deleted.extend(std::mem::take(&mut client.deleted));
            client.deleted = deleted;
        }
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
        for (id, change) in delta.clients {
            let client = self.clients.entry(id).or_default();
            client.next = client.next.max(change.next);
            client.deleted.extend(change.deleted);
        }
    }

    /// Takes in an update that another node admitted and the log holds. Known parts are trimmed as in [`admit`](crate::admit());
    /// ownership and caps were that node's business. A gap here means that the log itself has one.
    pub fn trust(&mut self, update: &Update) -> Result<Admission, Refused> {
        let mut delta = Delta::default();
        let admission = admit::admit(self, &mut delta, update, &Caps::of_the_log(), &mut |_| true)?;
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

    pub(crate) fn add_blocks(&mut self, client: u64, next: u32) {
        self.clients.entry(client).or_default().next = next;
    }

    pub(crate) fn add_deleted(&mut self, client: u64, range: Range<u32>) {
        self.clients.entry(client).or_default().deleted.insert(range);
    }
}
