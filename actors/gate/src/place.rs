//! Where the units of a document stand: in which shared type, under which key. The shadow of what yrs holds.

use std::collections::HashMap;

use crate::block::{Id, Kind};

/// The type that holds a unit, and its key there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    // Whose item the type is, or one of the two marks below: an enum would take half as much again, for every run.
    client: u64,
    clock: u32,
    /// A number of [`Names`], or zero for none.
    key: u32,
}

const GONE: u64 = u64::MAX;
const ROOT: u64 = u64::MAX - 1;

impl Place {
    /// Inside something garbage-collected: nobody knows any more where that stood.
    pub const GONE: Self = Self { client: GONE, clock: 0, key: 0 };

    pub fn in_root(name: u32, key: u32) -> Self {
        Self { client: ROOT, clock: name, key }
    }

    pub fn in_item(item: Id, key: u32) -> Self {
        Self { client: item.client, clock: item.clock, key }
    }

    pub fn is_gone(&self) -> bool {
        self.client == GONE
    }

    pub fn has_key(&self) -> bool {
        self.key != 0
    }

    /// The item whose type this is inside; none for a root type.
    pub fn item(&self) -> Option<Id> {
        (self.client < ROOT).then_some(Id { client: self.client, clock: self.clock })
    }
}

/// What a unit is, as far as others may refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Role {
    /// Nothing is known of it any more.
    Gone,
    /// Its content is gone: it may have been a type.
    Deleted,
    Plain,
    /// A shared type, which others may name as parent.
    Type,
}

impl Role {
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Gc | Kind::Skip => Self::Gone,
            Kind::Deleted => Self::Deleted,
            Kind::Type => Self::Type,
            _ => Self::Plain,
        }
    }
}

/// Units of one client with the same place and role, from `clock` to where the next run begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub place: Place,
    pub clock: u32,
    pub role: Role,
    /// How many types are around the units inside this one; zero for what is no type.
    pub depth: u16,
}

impl Run {
    pub const GONE: Self = Self { place: Place::GONE, clock: 0, role: Role::Gone, depth: 0 };
}

/// The runs of one client, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    runs: Vec<Run>,
}

impl Runs {
    /// Adds units behind the last. A type always stands alone.
    pub fn push(&mut self, run: Run) {
        let is_same = |last: &Run| last.role == run.role && last.place == run.place && run.role != Role::Type;
        if !self.runs.last().is_some_and(is_same) {
            if self.runs.is_empty() {
                // Most clients of a document with many of them have one run, and room for four is what an update of nothing
                // but clients would be charged with.
                self.runs.reserve_exact(1);
            }
            self.runs.push(run);
        }
    }

    pub fn extend(&mut self, other: Runs) {
        if self.runs.is_empty() {
            self.runs = other.runs;
        } else {
            other.runs.into_iter().for_each(|run| self.push(run));
        }
    }

    /// Memory of its own.
    pub fn bytes(&self) -> usize {
        self.runs.capacity() * size_of::<Run>()
    }

    /// The run that holds `clock`, if it begins here.
    pub fn get(&self, clock: u32) -> Option<Run> {
        match self.runs.last() {
            // Most look at what was written last.
            Some(last) if last.clock <= clock => Some(*last),
            _ => {
                let behind = self.runs.partition_point(|run| run.clock <= clock);
                behind.checked_sub(1).and_then(|at| self.runs.get(at)).copied()
            }
        }
    }
}

/// Names of root types and keys of maps, numbered from one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    numbers: HashMap<Box<str>, u32>,
}

impl Names {
    pub fn get(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    pub fn insert(&mut self, name: Box<str>, number: u32) {
        self.numbers.insert(name, number);
    }

    pub fn extend(&mut self, other: Names) {
        self.numbers.extend(other.numbers);
    }

    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Memory of its own.
    pub fn bytes(&self) -> usize {
        let names: usize = self.numbers.keys().map(|name| name.len()).sum();
        names + self.numbers.capacity() * (size_of::<(Box<str>, u32)>() + 1)
    }
}
