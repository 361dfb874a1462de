//! What the engine counts, and the ears through which it hears.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use rand::RngExt;
use tokio::sync::oneshot;

use super::Plan;
use crate::client::Listener;
use crate::measure::Latencies;
use crate::received::Received;
use crate::wire::dialect::Dialect;
use crate::wire::update::{self, Range};

/// Everything that is counted, and what it needs to know: shared by all clients of the one thread.
pub(super) struct Fleet {
    pub(super) born: Instant,
    pub(super) writers_per_document: usize,
    pub(super) connections_per_document: usize,
    /// Writer `w` writes as client `first_client + w`.
    pub(super) first_client: u64,
    /// When each update was sent, by writer and clock, in nanoseconds since `born`.
    pub(super) sent: Vec<Vec<u64>>,
    pub(super) window: (u64, u64),
    pub(super) delivery: Latencies,
    pub(super) acknowledgement: Latencies,
    pub(super) late: Latencies,
    /// Of the current second, for the progress line.
    pub(super) recent: Latencies,
    pub(super) expected: u64,
    pub(super) received: u64,
    pub(super) acknowledgements_expected: u64,
    pub(super) acknowledgements: u64,
    /// In the window, by time of receipt.
    pub(super) window_deliveries: u64,
    pub(super) window_messages: u64,
    pub(super) window_sent: u64,
    pub(super) refused: u64,
    pub(super) dropped: u64,
    pub(super) last_fault: String,
    pub(super) closing: bool,
}

impl Fleet {
    pub(super) fn new(plan: &Plan, random: &mut impl RngExt) -> Self {
        Self {
            born: Instant::now(),
            writers_per_document: plan.writers,
            connections_per_document: plan.per_document(),
            // Ids of 31 bits, as Yjs 13 makes them, with room for every writer.
            first_client: u64::from(random.random_range(1_000_000u32..1 << 30)),
            sent: vec![Vec::new(); plan.documents * plan.writers],
            window: (u64::MAX, u64::MAX),
            delivery: Latencies::default(),
            acknowledgement: Latencies::default(),
            late: Latencies::default(),
            recent: Latencies::default(),
            expected: 0,
            received: 0,
            acknowledgements_expected: 0,
            acknowledgements: 0,
            window_deliveries: 0,
            window_messages: 0,
            window_sent: 0,
            refused: 0,
            dropped: 0,
            last_fault: String::new(),
            closing: false,
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.born.elapsed().as_nanos() as u64
    }

    pub(super) fn set_window(&mut self, window: (Instant, Instant)) {
        let nanos = |at: Instant| at.saturating_duration_since(self.born).as_nanos() as u64;
        self.window = (nanos(window.0), nanos(window.1));
    }

    pub(super) fn in_window(&self, at: u64) -> bool {
        self.window.0 <= at && at < self.window.1
    }

    /// Notes a send of `writer` and answers the update.
    pub(super) fn next_update(&mut self, writer: usize, due: Instant) -> Vec<u8> {
        let now = self.now();
        if self.in_window(now) {
            self.window_sent += 1;
            self.late.record(Instant::now().saturating_duration_since(due).as_nanos() as u64);
        }
        let clock = self.sent[writer].len() as u32;
        self.sent[writer].push(now);
        self.expected += self.connections_per_document as u64 - 1;
        self.acknowledgements_expected += 1;
        let letter = (b'a' + (clock % 26) as u8) as char;
        update::append_text(self.first_client + writer as u64, clock, letter.encode_utf8(&mut [0; 4]))
    }

    pub(super) fn delivered(&mut self, writer: usize, clocks: std::ops::Range<u32>, now: u64) {
        self.received += u64::from(clocks.end - clocks.start);
        for sent in &self.sent[writer][clocks.start as usize..clocks.end as usize] {
            if self.window.0 <= *sent && *sent < self.window.1 {
                self.delivery.record(now - sent);
                self.recent.record(now - sent);
            }
        }
    }

    pub(super) fn acknowledged(&mut self, writer: usize, clocks: std::ops::Range<u32>, now: u64) {
        self.acknowledgements += u64::from(clocks.end - clocks.start);
        for sent in &self.sent[writer][clocks.start as usize..clocks.end as usize] {
            if self.window.0 <= *sent && *sent < self.window.1 {
                self.acknowledgement.record(now - sent);
            }
        }
    }

    pub(super) fn outstanding(&self) -> (u64, u64) {
        (self.expected - self.received, self.acknowledgements_expected - self.acknowledgements)
    }
}

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
}

impl Listener for Peer {
    fn asked(&mut self, _state_vector: &[u8]) -> Vec<u8> {
        update::EMPTY.to_vec()
    }

    fn content(&mut self, update: &[u8]) {
        let mut fleet = self.fleet.borrow_mut();
        let now = fleet.now();
        let mut deliveries = 0;
        let readable = update::ranges(update, |Range { client, clock, len }| {
            let Some(writer) = client.checked_sub(fleet.first_client).map(|offset| offset as usize) else { return };
            let Some(received) = writer.checked_sub(self.first_writer).and_then(|place| self.received.get_mut(place))
            else {
                return; // somebody else's content in this document
            };
            // No more than was sent: a server that invents clocks must not count.
            let known = fleet.sent[writer].len() as u32;
            let len = len.min(known.saturating_sub(clock));
            received.take(clock, len, |clocks| {
                deliveries += u64::from(clocks.end - clocks.start);
                if self.own != Some(writer) {
                    fleet.delivered(writer, clocks, now);
                } else if self.dialect == Dialect::A {
                    fleet.acknowledged(writer, clocks, now);
                }
            });
        });
        if !readable {
            fleet.refused += 1;
            fleet.last_fault = "an update that cannot be read".to_owned();
        }
        if deliveries > 0 && fleet.in_window(now) {
            fleet.window_deliveries += deliveries;
            fleet.window_messages += 1;
        }
    }

    fn synced(&mut self) {
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

    fn refused(&mut self, why: String) {
        let mut fleet = self.fleet.borrow_mut();
        fleet.refused += 1;
        fleet.last_fault = why;
        self.synced = None; // who is refused while opening is not synced any more
    }
}
