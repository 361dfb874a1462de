//! The ways out to everybody who follows a document: one message, encoded once, for all of them.

use super::line::{Frames, Line};
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

/// The followers' lines.
#[derive(Debug)]
pub struct Lines {
    lines: BTreeMap<FollowerId, Line>,
    /// Where an outbox says that it has drained, after its line fell behind.
    drained: mpsc::Sender<()>,
}

impl Lines {
    /// Nobody follows. `drained` hears of every line that fell behind and has room again; then call [`catch_up`](Self::catch_up).
    pub fn new(drained: mpsc::Sender<()>) -> Self {
        Self { lines: BTreeMap::new(), drained }
    }

    /// Somebody follows.
    pub fn insert(&mut self, follower: FollowerId, line: Line) {
        self.lines.insert(follower, line);
    }

    /// Somebody follows no more.
    pub fn remove(&mut self, follower: FollowerId) {
        self.lines.remove(&follower);
    }

    /// So many follow.
    pub fn count(&self) -> usize {
        self.lines.len()
    }

    /// Nobody follows.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// A message for one alone.
    pub fn send(&mut self, to: FollowerId, what: &Outgoing) {
        if let Some(line) = self.lines.get_mut(&to) {
            line.send(what);
            if line.has_rest() || line.has_unseen() {
                line.notify_when_drained(self.drained.clone());
            }
        }
    }

    /// The step 2, through `seq`. One that is large goes out as its connection takes it.
    pub fn welcome(&mut self, to: FollowerId, update: &InPieces, seq: u64) {
        if let Some(line) = self.lines.get_mut(&to) {
            line.welcome(update, seq);
            if line.has_rest() {
                line.notify_when_drained(self.drained.clone());
            }
        }
    }

    /// Whether a step 2 is still on its way to this one.
    pub fn is_sending_state(&mut self, to: FollowerId) -> bool {
        self.lines.get_mut(&to).is_some_and(Line::is_sending_state)
    }

    /// [`take_arrived`](Self::take_arrived) is to say when that has gone.
    pub fn tell_when_sent(&mut self, to: FollowerId) {
        if let Some(line) = self.lines.get_mut(&to) {
            line.is_awaited();
            line.notify_when_drained(self.drained.clone());
        }
    }

    /// Those of whom that was to be said, and to whom it has gone.
    pub fn take_arrived(&mut self) -> Vec<FollowerId> {
        let arrived = self.lines.iter_mut().filter_map(|(follower, line)| line.take_arrived().then_some(*follower));
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
        let mut frames = Frames::new(Message::Update(&update.last));
        let mut pieces: Vec<_> = if update.before.is_empty() { Vec::new() } else { frames_of(update) };
        let mut shown = 0;
        for (follower, line) in &mut self.lines {
            if Some(*follower) == sole_sender && line.dialect != Dialect::YWebsocket {
                line.skip(through.seq);
                continue;
            }
            shown += 1;
            let before = match pieces.is_empty() {
                true => line.show(&mut frames, through.seq),
                false => line.show_pieces(&mut pieces, through.seq),
            };
            if let Some(before) = before {
                line.notify_when_drained(self.drained.clone());
                state.fell_behind(*follower, before);
                metrics::counter!("contextnexus_behind_total").increment(1);
            }
        }
        shown
    }

    /// The whole state, after the document was loaded anew; to how many it was shown.
    pub fn show_anew(&mut self, update: &InPieces, through: Position, state: &mut DocumentState) -> u64 {
        for line in self.lines.values_mut() {
            line.forget_numbers();
        }
        self.show(update, through, None, state)
    }

    /// Presence for everybody but the one it came from.
    pub fn show_presence(&mut self, entries: &[AwarenessEntry], except: Option<FollowerId>) {
        let update = encode_awareness(entries);
        let mut frames = Frames::new(Message::Awareness(&update));
        for (follower, line) in &mut self.lines {
            if Some(*follower) != except && !line.show_presence(&mut frames) {
                line.notify_when_drained(self.drained.clone());
            }
        }
    }

    /// Somebody who was behind has drained: one merged update for what was missed, and everybody's presence. Those who fell behind together
    /// share one, and for who still has something to take nothing is merged. What is on its way in pieces goes on.
    pub fn catch_up(&mut self, state: &mut DocumentState, now: Instant) {
        let mut behind: BTreeMap<u64, Vec<(FollowerId, &mut Line)>> = BTreeMap::new();
        for (follower, line) in self.lines.iter_mut().filter(|(_, line)| line.misses_something()) {
            if !line.is_drained() {
                line.notify_when_drained(self.drained.clone()); // again: an acknowledgement may have come since it drained
                continue;
            }
            let unseen = line.take_unseen();
            if line.take_missed_presence() {
                line.send(&Outgoing::Awareness(state.everybody(Some(*follower))));
            } else if !unseen.is_empty() {
                line.send(&Outgoing::Awareness(state.presence_of(&unseen, *follower)));
            }
            if line.has_unseen() {
                line.notify_when_drained(self.drained.clone());
            }
            if line.has_rest() {
                line.go_on(state.position().seq);
                if line.has_rest() {
                    line.notify_when_drained(self.drained.clone());
                    continue;
                }
                if line.behind_since().is_none() {
                    line.send(&Outgoing::Awareness(state.everybody(Some(*follower))));
                    if line.has_unseen() {
                        line.notify_when_drained(self.drained.clone());
                    }
                }
            }
            if let Some(since) = line.behind_since() {
                behind.entry(since).or_default().push((*follower, line));
            }
        }
        for (since, lines) in behind {
            let Some((update, position)) = state.catch_up(since, now) else { return };
            let mut pieces = frames_of(&update);
            for (follower, line) in lines {
                if line.catch_up(&mut pieces, position.seq) {
                    line.send(&Outgoing::Awareness(state.everybody(Some(follower))));
                }
                if line.misses_something() {
                    line.notify_when_drained(self.drained.clone());
                }
            }
        }
    }

    /// What the one has seen that lacks most of those who are behind and have room again. `None`: nobody is.
    pub fn behind_since(&self) -> Option<u64> {
        self.lines.values().filter(|line| line.is_drained()).filter_map(Line::behind_since).min()
    }

    /// Closes one. False: it is gone already.
    pub fn close(&mut self, follower: FollowerId, code: u16, reason: &str, whole_socket: bool) -> bool {
        let Some(line) = self.lines.get_mut(&follower) else { return false };
        line.close(code, reason, whole_socket);
        true
    }

    /// Closes and forgets everybody.
    pub fn close_all(&mut self, code: u16, reason: &'static str, whole_socket: bool) {
        for line in self.lines.values_mut() {
            line.close(code, reason, whole_socket);
        }
        self.lines.clear();
    }
}

fn frames_of(update: &InPieces) -> Vec<Frames<'_>> {
    update.iter().map(|piece| Frames::new(Message::Update(piece))).collect()
}

impl Drop for Lines {
    /// A document that ends with followers, which only a defect brings about, leaves nobody behind who believes to be connected to it.
    fn drop(&mut self) {
        self.close_all(close::SERVICE_RESTART, "document is rebuilt", true);
    }
}
