//! What a document takes in memory as a tree, estimated by what it is made of: an update of a few megabytes may take hundreds.
//!
//! The figures are of yrs 0.28 and the gate's index, measured with an allocator that counts (`tests/weight.rs` holds the estimate against it).

use contextnexus_gate::{Tally, Update};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Bytes of an item: yrs' block, its place in the list of its client's blocks, and half a run of the index.
const ITEM: usize = 216;
/// Of a block that was garbage-collected.
const COLLECTED: usize = 32;
/// Of a shared type, besides its item: its branch, and its run in the index.
const TYPE: usize = 272;
/// Of a sub-document, besides its item.
const DOCUMENT: usize = 1_400;
/// Of an entry of a map or an attribute, besides its item and twice its key: its place in the map, its own copy of the key, its run in the
/// index, and, where the key is new, its number there.
const KEYED: usize = 190;
/// Of a format or an embed, besides its item and its value.
const MARK: usize = 56;
/// Of each value …
const VALUE: usize = 24;
/// … of each that lives in an allocation of its own …
const HEAP: usize = 32;
/// … and of each map.
const MAP: usize = 230;
/// Of a root type: its branch, its place among the others, its names, and its number in the index.
const ROOT: usize = 480;
/// Of an item in the gate's order: its block and its place among its client's, in tables with some room …
const ORDERED: usize = 108;
/// … and of each list: of a type, a key, a root.
const LISTED: usize = 108;
/// Of a client: its list of blocks in yrs, and all that the index notes of it.
pub const CLIENT: usize = 400;

/// What a document is made of.
#[derive(Clone, Debug, Default)]
pub struct Weight {
    tally: Tally,
    /// Hashes of the names of its root types.
    roots: HashSet<u64>,
    /// Bytes of these names.
    root_bytes: usize,
}

impl Weight {
    /// Of a state or an update.
    pub fn of(update: &Update) -> Self {
        let mut weight = Self::default();
        weight.add(update);
        weight
    }

    /// The document has this update now.
    pub fn add(&mut self, update: &Update) {
        let (roots, root_bytes) = (&mut self.roots, &mut self.root_bytes);
        self.tally += update.tally(|name| {
            if roots.insert(hash(name)) {
                *root_bytes += name.len();
            }
        });
    }

    /// The document is made of this and of what was counted in `later`.
    #[must_use]
    pub fn and(mut self, later: &Self) -> Self {
        self.tally += later.tally;
        let before = self.roots.len();
        self.roots.extend(&later.roots);
        if self.roots.len() > before {
            self.root_bytes += later.root_bytes;
        }
        self
    }

    /// Bytes of memory of the tree and the index, clients aside.
    pub fn bytes(&self) -> usize {
        self.bytes_of(self.roots.len())
    }

    /// Bytes of memory of the [order](contextnexus_gate::Order) that a document has that is written in.
    pub fn order_bytes(&self) -> usize {
        self.order_bytes_of(self.roots.len())
    }

    /// Both, of what comes to a document that is `there`: it makes no root types that there are.
    pub fn bytes_beside(&self, there: &Self) -> usize {
        let roots = self.roots.difference(&there.roots).count();
        self.bytes_of(roots) + self.order_bytes_of(roots)
    }

    fn order_bytes_of(&self, roots: usize) -> usize {
        let tally = &self.tally;
        (tally.items + tally.cuts) * ORDERED + (tally.types + tally.keyed + roots) * LISTED
    }

    fn bytes_of(&self, roots: usize) -> usize {
        let tally = &self.tally;
        (tally.items + tally.cuts) * ITEM
            + tally.collected * COLLECTED
            + tally.types * TYPE
            + tally.documents * DOCUMENT
            + tally.keyed * KEYED
            + tally.marks * MARK
            + tally.values * VALUE
            + tally.heaps * HEAP
            + tally.maps * MAP
            + 3 * tally.key_bytes
            + tally.bytes
            + tally.bytes / 4
            + roots * ROOT
            + 3 * self.root_bytes
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}
