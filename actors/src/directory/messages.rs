//! What the directory hears.

use super::Noticeboard;
use crate::document::actor::DocumentActor;
use crate::ids::{DocumentKey, TenantId};
use actix::{Addr, ArbiterHandle, Message};
use std::sync::Arc;
use std::time::Duration;

/// The address of a document, started if it is not open. Exactly one `Join`, `Write` or `Read` must follow; when the sender
/// ends before, the document only stays in memory.
#[derive(Message, Debug)]
#[rtype(result = "Addr<DocumentActor>")]
pub struct Route(pub DocumentKey);

/// Documents that are opened from now on run on this thread.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Host(pub ArbiterHandle);

/// A document would like to unload; it has heard so many routed messages. True: it is forgotten and must end.
#[derive(Message, Debug)]
#[rtype(result = "bool")]
pub struct Resign {
    /// Which.
    pub key: DocumentKey,
    /// Which instance.
    pub noticeboard: Arc<Noticeboard>,
    /// Routed messages that it has heard.
    pub routed: u64,
}

/// A document ended by itself; whoever comes next gets a new instance.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Resigned {
    /// Which.
    pub key: DocumentKey,
    /// Which instance.
    pub noticeboard: Arc<Noticeboard>,
}

/// Rights of the tenant changed: poll now.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct CheckNow(pub TenantId);

/// Commit what waits in every document and close every follower. Answered when all have ended.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct DrainAll {
    /// How long to wait for commits.
    pub patience: Duration,
}

/// For `/metrics`.
#[derive(Message, Debug)]
#[rtype(result = "Census")]
pub struct Count;

/// Documents open here, and what waits in them.
#[derive(Clone, Copy, Debug, Default, actix::MessageResponse)]
pub struct Census {
    /// Open documents.
    pub documents: usize,
    /// Bytes that wait for their commit.
    pub waiting_bytes: usize,
}
