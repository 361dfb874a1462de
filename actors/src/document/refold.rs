//! A log folded again from its first row on, to find out whether its snapshots are what they should be.

use super::replica::{Replica, ReplicaError};
use super::state::trim;
use crate::ports::log::Snapshot;
use bytes::Bytes;
use contextnexus_gate::Index;

/// The fold so far. Takes the memory of an open document.
#[derive(Debug, Default)]
pub struct Refold {
    index: Index,
    replica: Replica,
}

/// Why an update of the log cannot be folded.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RefoldError {
    /// The gate does not let it pass behind what is before it.
    #[error("it does not continue what is before it")]
    Gap,
    /// yrs does not take it.
    #[error(transparent)]
    Fold(#[from] ReplicaError),
}

impl Refold {
    /// Folds the stored update of this number, the next one. After an error this is the fold of nothing any more.
    pub fn fold(&mut self, seq: u64, update: Bytes) -> Result<(), RefoldError> {
        match trim(&mut self.index, update) {
            Ok(Some(update)) => Ok(self.replica.fold(seq, &update)?),
            Ok(None) => Ok(()),
            Err(_) => Err(RefoldError::Gap),
        }
    }

    /// Whether this snapshot, of where the fold stands, is that fold.
    pub fn compare(&mut self, snapshot: &Snapshot) -> Result<(), ReplicaError> {
        self.replica.compare(snapshot)
    }
}
