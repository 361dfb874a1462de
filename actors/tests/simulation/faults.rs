//! Faults that are planted where the world meets the states: a driver that misbehaves, a log that does not keep its contract. The
//! states are those of production. Each must be found, or the simulation proves nothing.

/// What is wrong with this world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A connection is told that its update is saved when it arrives.
    AcknowledgedBeforeCommit,
    /// An append's updates are shown when it is sent.
    ShownBeforeCommit,
    /// Where a snapshot is loaded, the rows after it are not.
    LostTail,
    /// An append is taken for done while it is under way, so that the next one overtakes it.
    TwoInFlight,
    /// A bus message is folded wherever the node stands.
    GapIgnored,
    /// The log takes an append that was admitted against a shorter prefix.
    StalePrefix,
    /// Positions are compared by their number alone.
    EqualNumber,
    /// The log forgets who brought a row, so that nobody notices who writes under another's client id.
    AuthorsForgotten,
    /// A trial adds up what its folds take, and convicts whichever is folded when the sum runs out.
    FoldsAddedUp,
    /// With what is convicted goes the rest of its row, and all that does not continue without it.
    DraggedAlong,
}

/// Each, and the number of seeds within which it must be found.
pub const PLANTED: [(Fault, u64); 10] = [
    (Fault::AcknowledgedBeforeCommit, 20),
    (Fault::ShownBeforeCommit, 20),
    (Fault::LostTail, 20),
    (Fault::TwoInFlight, 20),
    (Fault::GapIgnored, 60),
    (Fault::StalePrefix, 20),
    (Fault::EqualNumber, 60),
    (Fault::AuthorsForgotten, 60),
    (Fault::FoldsAddedUp, 60),
    (Fault::DraggedAlong, 60),
];
