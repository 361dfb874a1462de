//! What actors ask of the world: traits with their contracts. [`memory_log`], [`memory_bus`] and [`memory_authority`] are reference
//! implementations; `contract` and `contract_bus` are the suites that every implementation passes, they included.

pub mod authority;
pub mod bus;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
#[cfg(any(test, feature = "contract"))]
pub mod contract_bus;
pub mod documents;
pub mod log;
pub mod memory_authority;
pub mod memory_bus;
pub mod memory_log;
mod quarantine;
pub mod witness;

use crate::aside::Aside;
use crate::budget::Budgets;
use crate::clock::Clock;
use crate::ids::NodeId;
use crate::limits::Limits;
use std::sync::Arc;

pub use authority::{AccessDenied, Authority, Place, Rechecked, RightInUse, RoomName, Standing};
pub use bus::{Bus, BusEvent, BusMessage, Subscription};
pub use documents::{LiveDocuments, ReadRefused, WriteRefused, Writer, Written};
pub use log::{
    AppendOutcome, AppendRequest, Damage, DamageKind, Head, IdempotencyKey, LockedHead, LogError, LogRow, NewRow,
    OperationLog, Quarantine, QuarantineReason, Snapshot, Stored, Tail,
};
pub use witness::Witness;

/// What an actor has of the world: its ports, the limits, and the name of this node. Cheap to clone.
#[derive(Clone)]
pub struct Ports {
    /// This node.
    pub node: NodeId,
    /// The durable log.
    pub log: Arc<dyn OperationLog>,
    /// Tokens and rights.
    pub authority: Arc<dyn Authority>,
    /// The other nodes.
    pub bus: Arc<dyn Bus>,
    /// Time and fresh ids.
    pub clock: Arc<dyn Clock>,
    /// Who hears of every fold.
    pub witness: Arc<dyn Witness>,
    /// Does what takes long, beside the documents' threads.
    pub aside: Arc<dyn Aside>,
    /// Bounds and intervals.
    pub limits: Arc<Limits>,
    /// Bytes that wait on this node, by what they wait for.
    pub budgets: Arc<Budgets>,
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").field("node", &self.node).finish_non_exhaustive()
    }
}
