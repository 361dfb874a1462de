//! The ways out to everybody who follows a document: one message, encoded once, for all of them.

use super::follower_output::{EncodedOnce, FollowerOutput};
use super::messages::Outgoing;
use super::pieces::InPieces;
use super::state::DocumentState;
use super::{FollowerId, close};
use crate::ids::Position;
use crate::protocol::Dialect;
use crate::protocol::codec::Message;
use contextnexus_gate::{AwarenessEntry, encode_awareness};
use std::collections::BTreeMap;
use std::time::Instant;
use tokio::sync::mpsc;

/// The followers' outputs.
#[derive(Debug)]
pub struct FollowerOutputs {
    outputs: BTreeMap<FollowerId, FollowerOutput>,
    /// Where an outbox says that it has drained, after its output fell behind.
    drained: mpsc::Sender<()>,
}

impl FollowerOutputs {
    /// Nobody follows. `drained` hears of every output that fell behind and has room again; then call [`catch_up`](Self::catch_up).
    pub fn new(drained: mpsc::Sender<()>) -> Self {
        Self { outputs: BTreeMap::new(), drained }
    }

    /// Somebody follows.
    pub fn insert(&mut self, follower: FollowerId, output: FollowerOutput) {
        self.outputs.insert(follower, output);
    }

    /// Somebody follows no more.
    pub fn remove(&mut self, follower: FollowerId) {
        self.outputs.remove(&follower);
    }

    /// So many follow.
    pub fn count(&self) -> usize {
        self.outputs.len()
    }

    /// Nobody follows.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// A message for one alone.
    pub fn send(&mut self, to: FollowerId, what: &Outgoing) {
        if let Some(output) = self.outputs.get_mut(&to) {
            output.send(what);
            if output.has_remaining() || output.has_unseen() {
                output.notify_when_drained(self.drained.clone());
            }
        }
    }

    /// The step 2, through `seq`. One that is large goes out as its connection takes it.
    pub fn welcome(&mut self, to: FollowerId, update: &InPieces, seq: u64) {
        if let Some(output) = self.outputs.get_mut(&to) {
            output.welcome(update, seq);
            if output.has_remaining() {
                output.notify_when_drained(self.drained.clone());
            }
        }
    }

    /// Whether a step 2 is still on its way to this one.
    pub fn is_sending_state(&mut self, to: FollowerId) -> bool {
        self.outputs.get_mut(&to).is_some_and(FollowerOutput::is_sending_state)
    }

    /// [`take_arrived`](Self::take_arrived) is to say when that has gone.
    pub fn tell_when_sent(&mut self, to: FollowerId) {
        if let Some(output) = self.outputs.get_mut(&to) {
            output.is_awaited();
            output.notify_when_drained(self.drained.clone());
        }
    }

    /// Those of whom that was to be said, and to whom it has gone.
    pub fn take_arrived(&mut self) -> Vec<FollowerId> {
        let arrived =
            self.outputs.iter_mut().filter_map(|(follower, output)| output.take_arrived().then_some(*follower));
        arrived.collect()
    }

    /// A committed update for everybody who is receiving; to how many it was shown. `state` hears who fell behind with it.
    pub fn show(
        &mut self,
        update: &InPieces,
        through: Position,
        sole_sender: Option<FollowerId>,
        state: &mut DocumentState,
    ) -> u64 {
        let mut encoded = EncodedOnce::new(Message::Update(&update.last));
        let mut pieces: Vec<_> = if update.before.is_empty() { Vec::new() } else { encoded_pieces(update) };
        let mut shown = 0;
        for (follower, output) in &mut self.outputs {
            if Some(*follower) == sole_sender && output.dialect != Dialect::YWebsocket {
                output.skip(through.seq);
                continue;
            }
            shown += 1;
            let before = match pieces.is_empty() {
                true => output.show(&mut encoded, through.seq),
                false => output.show_pieces(&mut pieces, through.seq),
            };
            if let Some(before) = before {
                output.notify_when_drained(self.drained.clone());
                state.fell_behind(*follower, before);
                metrics::counter!("contextnexus_behind_total").increment(1);
            }
        }
        shown
    }

    /// The whole state, after the document was loaded anew; to how many it was shown.
    pub fn show_anew(&mut self, update: &InPieces, through: Position, state: &mut DocumentState) -> u64 {
        for output in self.outputs.values_mut() {
            output.forget_numbers();
        }
        self.show(update, through, None, state)
    }

    /// Presence for everybody but the one it came from.
    pub fn show_presence(&mut self, entries: &[AwarenessEntry], except: Option<FollowerId>) {
        let update = encode_awareness(entries);
        let mut encoded = EncodedOnce::new(Message::Awareness(&update));
        for (follower, output) in &mut self.outputs {
            if Some(*follower) != except && !output.show_presence(&mut encoded) {
                output.notify_when_drained(self.drained.clone());
            }
        }
    }

    /// Somebody who was behind has drained: one merged update for what was missed, and everybody's presence. Those who fell behind together
    /// share one, and for who still has something to take nothing is merged. What is on its way in pieces goes on.
    pub fn catch_up(&mut self, state: &mut DocumentState, now: Instant) {
        let mut behind: BTreeMap<u64, Vec<(FollowerId, &mut FollowerOutput)>> = BTreeMap::new();
        for (follower, output) in self.outputs.iter_mut().filter(|(_, output)| output.misses_something()) {
            if !output.is_drained() {
                output.notify_when_drained(self.drained.clone()); // again: an acknowledgement may have come since it drained
                continue;
            }
            let unseen = output.take_unseen();
            if output.take_missed_presence() {
                output.send(&Outgoing::Awareness(state.everybody(Some(*follower))));
            } else if !unseen.is_empty() {
                output.send(&Outgoing::Awareness(state.presence_of(&unseen, *follower)));
            }
            if output.has_unseen() {
                output.notify_when_drained(self.drained.clone());
            }
            if output.has_remaining() {
                output.go_on(state.position().seq);
                if output.has_remaining() {
                    output.notify_when_drained(self.drained.clone());
                    continue;
                }
                if output.behind_since().is_none() {
                    output.send(&Outgoing::Awareness(state.everybody(Some(*follower))));
                    if output.has_unseen() {
                        output.notify_when_drained(self.drained.clone());
                    }
                }
            }
            if let Some(since) = output.behind_since() {
                behind.entry(since).or_default().push((*follower, output));
            }
        }
        for (since, outputs) in behind {
            let Some((update, position)) = state.catch_up(since, now) else { return };
            let mut pieces = encoded_pieces(&update);
            for (follower, output) in outputs {
                if output.catch_up(&mut pieces, position.seq) {
                    output.send(&Outgoing::Awareness(state.everybody(Some(follower))));
                }
                if output.misses_something() {
                    output.notify_when_drained(self.drained.clone());
                }
            }
        }
    }

    /// What the one has seen that lacks most of those who are behind and have room again. `None`: nobody is.
    pub fn behind_since(&self) -> Option<u64> {
        self.outputs.values().filter(|output| output.is_drained()).filter_map(FollowerOutput::behind_since).min()
    }

    /// Closes one. False: it is gone already.
    pub fn close(&mut self, follower: FollowerId, code: u16, reason: &str, whole_socket: bool) -> bool {
        let Some(output) = self.outputs.get_mut(&follower) else { return false };
        output.close(code, reason, whole_socket);
        true
    }

    /// Closes and forgets everybody.
    pub fn close_all(&mut self, code: u16, reason: &'static str, whole_socket: bool) {
        for output in self.outputs.values_mut() {
            output.close(code, reason, whole_socket);
        }
        self.outputs.clear();
    }
}

fn encoded_pieces(update: &InPieces) -> Vec<EncodedOnce<'_>> {
    update.iter().map(|piece| EncodedOnce::new(Message::Update(piece))).collect()
}

impl Drop for FollowerOutputs {
    /// A document that ends with followers, which only a defect brings about, leaves nobody behind who believes to be connected to it.
    fn drop(&mut self) {
        self.close_all(close::SERVICE_RESTART, "document is rebuilt", true);
    }
}
