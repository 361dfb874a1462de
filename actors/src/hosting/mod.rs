//! Finds, starts, passivates and revives the actors of one kind on this node, and compares what they hold with PostgreSQL.
//!
//! Every message from outside is routed through the [`Host`] and counted, so that an actor may end only when nothing was routed to it since its
//! last turn. Once per interval the host polls each tenant that has something open: one query tells which rights changed, one which heads moved.
//!
//! [`state`] decides which instance a message goes to, whether one may end, who is to unload and what is polled; [`actor`] does it. What a host may
//! know of an actor without a message is on its [`Noticeboard`].

pub mod actor;
pub mod messages;
pub mod noticeboard;
pub mod state;
#[cfg(test)]
mod tests;

pub use actor::Host;
pub use noticeboard::{Noticeboard, Status};
pub use state::{HostedKey, Instance};

use crate::ids::{Position, TenantId};
use crate::ports::Ports;
use crate::ports::log::Head;
use actix::{Actor, Addr, ArbiterHandle, Context, Handler};
use messages::{Drain, HeadMoved, Regrant, Unload};
use std::fmt;
use std::future::Future;
use std::sync::Arc;

/// A kind of actor that is hosted: one instance for each key, started by the first message to it.
///
/// It counts the routed messages that it has heard, keeps its [`Noticeboard`] true after each turn, asks with
/// [`Resign`](messages::Resign) before it unloads, and says [`Ended`](messages::Ended) when it ends by itself.
pub trait Hosted:
    Actor<Context = Context<Self>> + Handler<Regrant> + Handler<HeadMoved> + Handler<Unload> + Handler<Drain> + Sized
{
    /// What names one.
    type Key: HostedKey + fmt::Debug + Send + Unpin + 'static;

    /// An actor that has loaded nothing yet.
    fn new(start: Start<Self>) -> Self;

    /// Of these, those whose head in PostgreSQL is elsewhere. Nothing where PostgreSQL is unreachable: the next poll tells.
    fn changed_heads(
        ports: &Ports,
        tenant: TenantId,
        positions: Vec<(Self::Key, Position)>,
    ) -> impl Future<Output = Vec<(Self::Key, Head)>>;

    /// Sets the gauges of this kind, once per interval.
    fn count(ports: &Ports, all: impl Iterator<Item = Status>);
}

/// What a hosted actor starts with.
#[derive(Debug)]
pub struct Start<A: Hosted> {
    /// Its name.
    pub key: A::Key,
    /// This run of it.
    pub instance: Instance,
    /// Its world.
    pub ports: Ports,
    /// Who hosts it.
    pub host: Addr<Host<A>>,
    /// Where it says how it is.
    pub noticeboard: Arc<Noticeboard>,
}

/// Starts a host on the current arbiter. What it hosts runs on `arbiters`, spread by key, or on its own while there are none.
pub fn start<A: Hosted>(ports: Ports, arbiters: Vec<ArbiterHandle>) -> Addr<Host<A>> {
    Host::new(ports, arbiters).start()
}
