//! The ears of one connection.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::Payload;
use super::fleet::{Fleet, cursor_clock};
use crate::client::Listener;
use crate::received::Received;
use crate::wire::dialect::{Dialect, awareness_states};
use crate::wire::update::{self, Range};

/// One connection's ears.
pub(super) struct Peer {
    pub(super) fleet: Rc<RefCell<Fleet>>,
    pub(super) dialect: Dialect,
    /// The first writer of its document.
    pub(super) first_writer: usize,
    /// Which writer it is itself.
    pub(super) own: Option<usize>,
    pub(super) received: Vec<Received>,
    pub(super) acknowledged: u32,
    pub(super) synced: Option<oneshot::Sender<()>>,
    /// Whether the first step 2 has come.
    pub(super) is_in: bool,
}

impl Peer {
    /// The writer behind a client id, and its place in this document; `None` for somebody else's content.
    fn place(&self, fleet: &Fleet, client: u64) -> Option<(usize, usize)> {
        let writer = client.checked_sub(fleet.first_client)? as usize;
        let place = writer.checked_sub(self.first_writer).filter(|place| *place < self.received.len())?;
        Some((writer, place))
    }
}

impl Listener for Peer {
    fn asked(&mut self, _state_vector: &[u8]) -> Vec<u8> {
        update::EMPTY.to_vec()
    }

    fn content(&mut self, update: &[u8]) {
        let shared = Rc::clone(&self.fleet);
        let mut fleet = shared.borrow_mut();
        let now = fleet.now();
        let mut deliveries = 0;
        let readable = update::ranges(update, |Range { client, clock, len }| {
            let Some((writer, place)) = self.place(&fleet, client) else { return };
            // No more than was sent: a server that invents clocks must not count.
            let known = fleet.sent[writer].len() as u32;
            let len = len.min(known.saturating_sub(clock));
            self.received[place].take(clock, len, |clocks| {
                deliveries += u64::from(clocks.end - clocks.start);
                if self.own != Some(writer) {
                    fleet.delivered(writer, clocks, now);
                } else if self.dialect == Dialect::YWebsocket {
                    fleet.acknowledged(writer, clocks, now);
                }
            });
        });
        if !readable {
            fleet.refused += 1;
            fleet.last_fault = "an update that cannot be read".to_owned();
        }
        fleet.message_brought(deliveries, now);
    }

    fn synced(&mut self) {
        self.is_in = true;
        if let Some(synced) = self.synced.take() {
            let _ = synced.send(()); // the opener may have given up
        }
    }

    fn acknowledged(&mut self, updates: u64) {
        let Some(writer) = self.own else { return };
        let mut fleet = self.fleet.borrow_mut();
        let now = fleet.now();
        let through = updates as u32;
        fleet.acknowledged(writer, self.acknowledged..through, now);
        self.acknowledged = through;
    }

    /// The last state of a client wins, so it stands for those before it: a server may leave those out.
    fn awareness(&mut self, states: &[u8]) {
        let shared = Rc::clone(&self.fleet);
        let mut fleet = shared.borrow_mut();
        if fleet.payload != Payload::Cursor {
            return;
        }
        let now = fleet.now();
        let mut deliveries = 0;
        let readable = awareness_states(states, |client, _, json| {
            let Some((writer, place)) = self.place(&fleet, client) else { return };
            if self.own == Some(writer) || json == "null" {
                return; // an echo is no delivery, and neither is a goodbye
            }
            // A server may show a state at a clock of its own (y-protocols compares them and nothing else): the state
            // says which one it is.
            let known = fleet.sent[writer].len() as u32;
            let through = cursor_clock(json).map_or(0, |clock| clock.saturating_add(1));
            self.received[place].take(0, through.min(known), |clocks| {
                deliveries += u64::from(clocks.end - clocks.start);
                fleet.delivered(writer, clocks, now);
            });
        });
        if !readable {
            fleet.refused += 1;
            fleet.last_fault = "awareness that cannot be read".to_owned();
        }
        fleet.message_brought(deliveries, now);
    }

    fn refused(&mut self, why: String) {
        let mut fleet = self.fleet.borrow_mut();
        fleet.refused += u64::from(self.is_in);
        fleet.last_fault = why;
        self.synced = None; // who is refused while opening is not synced any more
    }
}
