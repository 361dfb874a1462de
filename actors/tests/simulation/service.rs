//! A back-end service that writes over HTTP: reads, edits, writes with a key, and tries again with that key until it is answered.

use crate::editor::{apply, diff, doc, edit};
use crate::node::{Node, Shared};
use bytes::Bytes;
use contextnexus_actors::access::Role;
use contextnexus_actors::ids::{UserId, UserSessionId};
use contextnexus_actors::ports::documents::{WriteRefused, Writer, Written};
use contextnexus_actors::ports::log::IdempotencyKey;
use tokio::sync::oneshot::{self, error::TryRecvError};
use uuid::Uuid;

pub struct Service {
    doc: yrs::Doc,
    requests: u64,
    pending: Option<Pending>,
}

struct Pending {
    key: u64,
    body: Bytes,
    answer: Option<oneshot::Receiver<Result<Written, WriteRefused>>>,
}

impl Service {
    pub fn new() -> Self {
        Self { doc: doc(99), requests: 0, pending: None }
    }

    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// Writes something new, or sees to what it wrote before.
    pub fn write(&mut self, node: &mut Node, what: u64, shared: &mut Shared) {
        self.hear(shared);
        if self.pending.is_none() && self.refresh(node, shared) {
            let body = edit(&self.doc, what);
            self.ask(body);
        }
        self.send(node, shared);
    }

    /// Sees to what it wrote before.
    pub fn settle(&mut self, node: &mut Node, shared: &mut Shared) {
        self.hear(shared);
        self.send(node, shared);
    }

    fn ask(&mut self, body: Bytes) {
        self.requests += 1;
        self.pending = Some(Pending { key: self.requests, body, answer: None });
    }

    fn refresh(&mut self, node: &mut Node, shared: &mut Shared) -> bool {
        if node.is_waiting() {
            return false;
        }
        let Some((_, state)) = node.state.as_mut().and_then(|state| state.read(shared.now)) else { return false };
        if !shared.store.holds(&state) {
            shared.must_not_be("a request read what is not in the log");
        }
        apply(&self.doc, &state)
    }

    fn hear(&mut self, shared: &mut Shared) {
        let Some(pending) = &mut self.pending else { return };
        let Some(answer) = &mut pending.answer else { return };
        match answer.try_recv() {
            Err(TryRecvError::Empty) => {}
            Ok(Ok(_)) => {
                if !shared.store.holds(&pending.body) {
                    shared.must_not_be("a request was answered whose update is not in the log");
                }
                self.pending = None;
            }
            // Only a database that lost something lacks what was read from it.
            Ok(Err(WriteRefused::Gap { state_vector })) if shared.store.was_restored => {
                let body = diff(&self.doc, &state_vector);
                self.ask(body);
            }
            Ok(Err(WriteRefused::ClientIdInUse)) if shared.store.was_restored => pending.answer = None,
            Ok(Err(WriteRefused::Unavailable { .. })) | Err(TryRecvError::Closed) => pending.answer = None,
            Ok(Err(refused)) => shared.must_not_be(format!("an honest request was refused: {refused}")),
        }
    }

    fn send(&mut self, node: &mut Node, shared: &mut Shared) {
        let Some(pending) = self.pending.as_mut().filter(|pending| pending.answer.is_none()) else { return };
        if node.state.is_none() || node.is_waiting() {
            return node.open(shared);
        }
        let (answer, answered) = oneshot::channel();
        pending.answer = Some(answered);
        let (user, body) = (UserId(Uuid::from_u128(99)), pending.body.clone());
        let by = Writer { user_session: UserSessionId(user.0), user, role: Role::Editor, until: None };
        let key = IdempotencyKey { key: pending.key.to_string(), body_hash: [pending.key as u8; 32] };
        node.turn(shared, |state, now| {
            let mut effects = state.write(by, body, Some(key), answer);
            effects.extend(state.advance(now));
            effects
        });
    }
}
