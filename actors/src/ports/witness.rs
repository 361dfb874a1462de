//! Who is told what yrs is about to fold, because some of it may end the process, and then nobody is left to say what it was.

use crate::ids::DocumentKey;
use std::fmt;

/// What yrs is about to fold.
#[derive(Clone, Copy, Debug)]
pub struct Fold<'a> {
    /// Into which document.
    pub key: DocumentKey,
    /// What of its log.
    pub what: Folding,
    /// The bytes.
    pub update: &'a [u8],
}

/// A part of a document's log.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Folding {
    /// The update of this number.
    Update(u64),
    /// The snapshot of this number.
    Snapshot(u64),
}

/// Hears of every fold, on the thread that does it. What it takes down must outlive the process and cost nanoseconds; it neither
/// fails nor waits.
pub trait Witness: Send + Sync + fmt::Debug + 'static {
    /// It begins.
    fn folding(&self, fold: &Fold<'_>);
    /// It has ended, well or not: this process lived through it.
    fn folded(&self);
}

/// Tells nobody: for replicas that are made to be compared, and for tests.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Witness for Nobody {
    fn folding(&self, _: &Fold<'_>) {}

    fn folded(&self) {}
}
