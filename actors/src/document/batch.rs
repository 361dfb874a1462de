//! Updates on their way into the log.

use super::FollowerId;
use crate::access::Role;
use crate::ids::{AppendId, Position, UserId, UserSessionId};
use crate::ports::documents::{WriteRefused, Written};
use crate::ports::log::{Authorship, IdempotencyKey, NewRow};
use bytes::Bytes;
use contextnexus_gate::{Cost, Delta, Known, Update};
use std::collections::BTreeSet;
use std::time::Instant;
use tokio::sync::oneshot;

/// Who waits for the outcome of an update.
#[derive(Debug)]
pub enum Sender {
    /// A connection; the ordinal is its own count of what it sent.
    Follower {
        /// Which.
        follower: FollowerId,
        /// Its count.
        ordinal: u64,
    },
    /// An HTTP request: all or nothing.
    Request {
        /// What the caller may do, as looked up for this request.
        role: Role,
        /// When that right ends by itself.
        until: Option<Instant>,
        /// The answer.
        answer: oneshot::Sender<Result<Written, WriteRefused>>,
        /// So that a repetition is recognised.
        idempotency: Option<IdempotencyKey>,
        /// It had a gap, and the log was looked at since: what it builds on is not there.
        head_was_checked: bool,
    },
}

/// An update that waits. Nobody has seen it, the document included.
#[derive(Debug)]
pub struct Proposal {
    /// Who waits for it.
    pub sender: Sender,
    /// The session that delivered it.
    pub user_session: UserSessionId,
    /// Whose session.
    pub user: UserId,
    /// As it came, parsed.
    pub update: Update,
    /// It answers a step 1.
    pub is_step2: bool,
    /// It answers one that asked for what its writer has under his own ids.
    pub is_checked: bool,
}

impl Proposal {
    /// What it takes of the budgets.
    pub fn bytes(&self) -> usize {
        self.update.bytes().len()
    }
}

/// What the gate made of a proposal.
#[derive(Debug)]
pub enum Decision {
    /// Something of it is in the batch.
    Admitted {
        /// As it stands in the log.
        admitted: Update,
        /// Nothing was left out for a gap.
        whole: bool,
        /// Parts that the log (or the batch) held already.
        trimmed: Vec<Known>,
    },
    /// The log, or the batch before it, holds all of it.
    Known {
        /// All of its parts.
        trimmed: Vec<Known>,
    },
    /// Nothing of it continues what is known: owed.
    Deferred {
        /// What it repeats.
        trimmed: Vec<Known>,
    },
}

/// One append in flight.
#[derive(Debug)]
pub struct Batch {
    /// Set when the append is dispatched.
    pub append_id: Option<AppendId>,
    /// What it was admitted against.
    pub base: Position,
    /// In log order.
    pub items: Vec<(Proposal, Decision)>,
    /// What the index knows once it is committed.
    pub delta: Delta,
    /// What folding it costs, estimated.
    pub cost: Cost,
    /// What its rows say of the admitted updates, in log order.
    pub described: Vec<RowOf>,
    /// Client ids of somebody else than who brings something under them here.
    pub foreign: BTreeSet<u64>,
    /// Memory that the document will take for it, estimated.
    pub weight: usize,
}

impl Batch {
    /// Nothing yet.
    pub fn new(base: Position) -> Self {
        let (items, described, foreign) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (delta, cost) = (Delta::default(), Cost::default());
        Self { append_id: None, base, items, delta, cost, weight: 0, described, foreign }
    }

    /// Who brought each of the admitted updates.
    pub fn authorship(&self) -> impl Iterator<Item = Authorship> + '_ {
        self.described.iter().map(|row| Authorship::of(row.author, row.relayed_by))
    }

    /// The rows of the append: consecutive updates of one session and author are one row.
    pub fn rows(&self) -> Vec<NewRow> {
        let mut rows: Vec<NewRow> = Vec::new();
        let admitted = self.items.iter().filter_map(|(proposal, verdict)| match verdict {
            Decision::Admitted { admitted, .. } => Some((proposal, admitted)),
            _ => None,
        });
        for ((proposal, admitted), row) in admitted.zip(&self.described) {
            let idempotency = match &proposal.sender {
                Sender::Request { idempotency, .. } => idempotency.clone(),
                Sender::Follower { .. } => None,
            };
            let bytes: Bytes = admitted.bytes().clone();
            match rows.last_mut() {
                Some(last)
                    if last.user_session == proposal.user_session
                        && last.author == row.author
                        && last.relayed_by == row.relayed_by
                        && last.idempotency.is_none()
                        && idempotency.is_none() =>
                {
                    last.updates.push(bytes);
                }
                _ => rows.push(NewRow {
                    user_session: proposal.user_session,
                    author: row.author,
                    relayed_by: row.relayed_by,
                    seen_seq: row.seen_seq,
                    updates: vec![bytes],
                    idempotency,
                }),
            }
        }
        rows
    }

    /// The admitted updates, in log order.
    pub fn admitted(&self) -> impl Iterator<Item = &Update> {
        self.items.iter().filter_map(|(_, verdict)| match verdict {
            Decision::Admitted { admitted, .. } => Some(admitted),
            _ => None,
        })
    }
}

/// What a row says of its updates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowOf {
    /// Who wrote it, where known.
    pub author: Option<UserId>,
    /// Who delivered it, where that is not known to be the author.
    pub relayed_by: Option<UserId>,
    /// What the author had seen.
    pub seen_seq: u64,
}
