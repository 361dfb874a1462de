//! What a host hears, and what it tells those that it hosts.

use super::Hosted;
use super::state::Instance;
use crate::ids::TenantId;
use crate::ports::authority::{RightInUse, Standing};
use crate::ports::log::Head;
use actix::{Addr, ArbiterHandle, Message};
use std::time::Duration;

/// The address of an actor, started if it is not open. Exactly one message that it counts must follow; when the sender ends before, the actor
/// only stays in memory.
#[derive(Debug)]
pub struct Route<A: Hosted>(pub A::Key);

impl<A: Hosted> Message for Route<A> {
    type Result = Addr<A>;
}

/// Actors that are started from now on run on this thread.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct RunOn(pub ArbiterHandle);

/// An actor would like to unload. True: it is forgotten and must end. False: a message is on its way to it.
#[derive(Debug)]
pub struct Resign<A: Hosted> {
    /// Which.
    pub key: A::Key,
    /// Which run of it.
    pub instance: Instance,
    /// Routed messages that it has heard.
    pub heard: u64,
}

impl<A: Hosted> Message for Resign<A> {
    type Result = bool;
}

/// An actor ended by itself; the next message gets a new instance.
#[derive(Debug)]
pub struct Ended<A: Hosted> {
    /// Which.
    pub key: A::Key,
    /// Which run of it.
    pub instance: Instance,
}

impl<A: Hosted> Message for Ended<A> {
    type Result = ();
}

/// Rights of the tenant changed: poll now.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct CheckNow(pub TenantId);

/// Commit what waits in every actor and close every connection. Answered when all have ended.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct DrainAll {
    /// How long to wait for commits.
    pub patience: Duration,
}

/// Told where memory is short: unload now if nobody is connected.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct Unload;

/// Told when rights that are in use there changed.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct Regrant(pub Vec<(RightInUse, Standing)>);

/// Told when the head in PostgreSQL is not at the position of its status.
#[derive(Message, Debug, Clone, Copy)]
#[rtype(result = "()")]
pub struct HeadMoved(pub Head);

/// Told when the node ends: commit what waits, close every connection with 1012 and end. Answered when nothing waits any more.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Drain {
    /// How long to wait for commits.
    pub patience: Duration,
}
