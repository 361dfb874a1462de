//! The world as actors see it: the ports, the limits, and this node's name.

use crate::aside::Aside;
use crate::budget::Budgets;
use crate::clock::Clock;
use crate::document::witness::Witness;
use crate::ids::NodeId;
use crate::limits::Limits;
use crate::ports::{Authority, Bus, OperationLog};
use std::sync::Arc;

/// Handed to every actor.
#[derive(Clone)]
pub struct World {
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

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("node", &self.node).finish_non_exhaustive()
    }
}
