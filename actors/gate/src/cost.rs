//! What it costs yrs to take an update in: steps counted by the gate, times what each of them takes on one core.
//!
//! The times are upper bounds, measured on yrs 0.28.1 (`examples/dear.rs` looks for updates that cost more). What grows with the bytes of an update
//! alone is estimated, and bounded by the bytes; all else is what one sender can make every reader do with few of them.

use crate::order::Class;

/// CPU time of one core, estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost {
    /// In nanoseconds.
    pub ns: u64,
    /// What of that may grow faster than the bytes.
    pub beyond_size_ns: u64,
}

impl Cost {
    /// Whether taking in so many bytes costs more than an update of that size may, with this bound.
    pub fn exceeds(self, bound_ms: u64, bytes: usize) -> bool {
        self.beyond_size_ns > bound_ps(bound_ms, bytes) / 1_000
    }
}

/// What may be admitted of that, in picoseconds.
fn bound_ps(bound_ms: u64, bytes: usize) -> u64 {
    bound_ms.saturating_mul(1_000_000_000).saturating_add(ps::BYTE.saturating_mul(bytes as u64))
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.ns = self.ns.saturating_add(other.ns);
        self.beyond_size_ns = self.beyond_size_ns.saturating_add(other.beyond_size_ns);
    }
}

/// Picoseconds that each takes.
mod ps {
    pub const BLOCK: u64 = 900_000;
    pub const DELETE: u64 = 900_000;
    pub const WRITER: u64 = 30_000;
    pub const TEXT: u64 = 3_000;
    pub const CONTENT: u64 = 40_000;
    pub const STEP: u64 = 350_000;
    pub const WALKED: u64 = 10_000;
    pub const HASHED: u64 = 6_000;
    pub const MOVED: u64 = 3_000;
    pub const SCANNED: u64 = 1_000;
    pub const COPIED: u64 = 400;
    pub const VALUE: u64 = 40_000;
    pub const WAIT: u64 = 4_000;
    pub const MET: u64 = 8_000;
    /// What a byte of an update may cost beyond the bound.
    pub const BYTE: u64 = 50_000;
}

/// What yrs has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Blocks that are taken in.
    pub blocks: u64,
    /// Clients of the document: all of them are in the state vector that a transaction begins with.
    pub writers: u64,
    /// Bytes of text in them.
    pub text: u64,
    /// Bytes of other content: values are read one by one.
    pub content: u64,
    /// Blocks and ranges that are deleted.
    pub deletes: u64,
    /// Blocks that were looked at for the place of another.
    pub steps: u64,
    /// Entries of a key that were walked over to find the first.
    pub walked: u64,
    /// Bytes of keys, once for each entry.
    pub hashed: u64,
    /// Places in a client's list of blocks that moved because one came or went before them.
    pub moved: u64,
    /// The same for deletes.
    pub moved_by_deletes: u64,
    /// Units of text that were counted to find where to cut.
    pub scanned: u64,
    /// Units of text that were copied.
    pub copied: u64,
    /// Values that were copied.
    pub values: u64,
    /// Sections that waited, once for each block that they waited for.
    pub waits: u64,
    /// Clients that were compared with the one that was looked up.
    pub met: u64,
}

impl Work {
    /// A block holds so many bytes.
    pub fn holds(&mut self, class: Class, bytes: usize) {
        match class {
            Class::Text => self.text += bytes as u64,
            _ => self.content += bytes as u64,
        }
    }

    /// A block of that class is copied so many times.
    pub fn copies(&mut self, class: Class, len: u32, times: u64) {
        match class {
            Class::Text => self.copied += u64::from(len) * times,
            Class::Values => self.values += u64::from(len) * times,
            _ => {}
        }
    }

    /// A block of `len` units is cut.
    pub fn cuts(&mut self, class: Class, left: u32, len: u32) {
        self.copies(class, len, 1);
        if class == Class::Text {
            self.scanned += u64::from(left);
        }
    }

    /// Everything.
    pub fn cost(&self) -> Cost {
        let by_size = sum([
            (self.blocks, ps::BLOCK),
            (self.writers, ps::WRITER),
            (self.text, ps::TEXT),
            (self.content, ps::CONTENT),
            (self.deletes, ps::DELETE),
            (self.moved_by_deletes, ps::MOVED),
        ]);
        let beyond_size = self.beyond_size();
        Cost { ns: by_size.saturating_add(beyond_size) / 1_000, beyond_size_ns: beyond_size / 1_000 }
    }

    /// Whether an update of so many bytes costs more than is admitted. What is there is deleted only once, so that counts a quarter.
    pub fn exceeds(&self, bound_ms: u64, bytes: usize) -> bool {
        let moved = ps::MOVED.saturating_mul(self.moved_by_deletes) / 4;
        self.beyond_size().saturating_add(moved) > bound_ps(bound_ms, bytes)
    }

    /// What may grow faster than the update, in picoseconds.
    fn beyond_size(&self) -> u64 {
        sum([
            (self.steps, ps::STEP),
            (self.walked, ps::WALKED),
            (self.hashed, ps::HASHED),
            (self.moved, ps::MOVED),
            (self.scanned, ps::SCANNED),
            (self.copied, ps::COPIED),
            (self.values, ps::VALUE),
            (self.waits, ps::WAIT),
            (self.met, ps::MET),
        ])
    }
}

fn sum<const N: usize>(parts: [(u64, u64); N]) -> u64 {
    parts.into_iter().fold(0, |sum, (count, each)| each.saturating_mul(count).saturating_add(sum))
}
