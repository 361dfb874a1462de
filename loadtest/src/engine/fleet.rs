//! What the engine counts. Pure but for the clock that its caller reads.

use std::time::Instant;

use rand::RngExt;

use super::{Known, Payload, Shape};
use crate::measure::Latencies;
use crate::wire::dialect::awareness_state;
use crate::wire::update;

/// Everything that is counted, and what it needs to know: shared by all clients of the one thread.
pub(super) struct Fleet {
    pub(super) born: Instant,
    pub(super) payload: Payload,
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
    /// Since the last tick, for progress and plots.
    pub(super) recent: Latencies,
    pub(super) expected: u64,
    pub(super) received: u64,
    pub(super) acknowledgements_expected: u64,
    pub(super) acknowledgements: u64,
    /// When something new was heard last, in nanoseconds since `born`.
    pub(super) heard_last: u64,
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
    /// For connections of `shape`; with `known`, for documents that somebody has written before and every connection
    /// is owed.
    pub(super) fn new(shape: &Shape, known: Option<&Known>, random: &mut impl RngExt) -> Self {
        let (first_client, writers_per_document, sent) = match known {
            Some(known) => (
                known.first_client,
                known.writers_per_document,
                known.updates.iter().map(|updates| vec![0; *updates]).collect(),
            ),
            // Ids of 31 bits, as Yjs 13 makes them, with room for every writer.
            None => (
                u64::from(random.random_range(1_000_000u32..1 << 30)),
                shape.writers,
                vec![Vec::new(); shape.documents * shape.writers],
            ),
        };
        let owed = sent.iter().map(|updates| updates.len() * shape.per_document()).sum::<usize>();
        Self {
            born: Instant::now(),
            payload: shape.payload,
            writers_per_document,
            connections_per_document: shape.per_document(),
            first_client,
            sent,
            window: (u64::MAX, u64::MAX),
            delivery: Latencies::default(),
            acknowledgement: Latencies::default(),
            late: Latencies::default(),
            recent: Latencies::default(),
            expected: owed as u64,
            received: 0,
            acknowledgements_expected: 0,
            acknowledgements: 0,
            heard_last: 0,
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

    /// Starts a window; what an earlier one measured is forgotten, what is under way is still owed.
    pub(super) fn begin(&mut self, window: (Instant, Instant)) {
        let nanos = |at: Instant| at.saturating_duration_since(self.born).as_nanos() as u64;
        self.window = (nanos(window.0), nanos(window.1));
        for latencies in [&mut self.delivery, &mut self.acknowledgement, &mut self.late, &mut self.recent] {
            latencies.clear();
        }
        (self.window_deliveries, self.window_messages, self.window_sent) = (0, 0, 0);
    }

    /// A message came that brought so many deliveries.
    pub(super) fn message_brought(&mut self, deliveries: u64, now: u64) {
        if deliveries > 0 && self.in_window(now) {
            self.window_deliveries += deliveries;
            self.window_messages += 1;
        }
    }

    pub(super) fn in_window(&self, at: u64) -> bool {
        self.window.0 <= at && at < self.window.1
    }

    /// Notes a send of `writer` and answers what to send.
    pub(super) fn next(&mut self, writer: usize, due: Instant) -> Vec<u8> {
        let now = self.now();
        if self.in_window(now) {
            self.window_sent += 1;
            self.late.record(Instant::now().saturating_duration_since(due).as_nanos() as u64);
        }
        let clock = self.sent[writer].len() as u32;
        self.sent[writer].push(now);
        self.expected += self.connections_per_document as u64 - 1;
        let client = self.first_client + writer as u64;
        match self.payload {
            Payload::Text => {
                self.acknowledgements_expected += 1;
                let letter = (b'a' + (clock % 26) as u8) as char;
                update::append_text(client, clock, letter.encode_utf8(&mut [0; 4]))
            }
            // Clocks of awareness start at 1 where nothing was shown before.
            Payload::Cursor => awareness_state(client, u64::from(clock) + 1, &cursor(client, clock)),
        }
    }

    /// Somebody else has these clocks of `writer` now.
    pub(super) fn delivered(&mut self, writer: usize, clocks: std::ops::Range<u32>, now: u64) {
        self.received += u64::from(clocks.end - clocks.start);
        self.heard_last = now;
        for sent in &self.sent[writer][clocks.start as usize..clocks.end as usize] {
            if self.window.0 <= *sent && *sent < self.window.1 {
                self.delivery.record(now - sent);
                self.recent.record(now - sent);
            }
        }
    }

    /// `writer` itself was told so.
    pub(super) fn acknowledged(&mut self, writer: usize, clocks: std::ops::Range<u32>, now: u64) {
        self.acknowledgements += u64::from(clocks.end - clocks.start);
        for sent in &self.sent[writer][clocks.start as usize..clocks.end as usize] {
            if self.window.0 <= *sent && *sent < self.window.1 {
                self.acknowledgement.record(now - sent);
            }
        }
    }

    /// Deliveries and acknowledgements that are still owed.
    pub(super) fn outstanding(&self) -> (u64, u64) {
        (self.expected - self.received, self.acknowledgements_expected - self.acknowledgements)
    }
}

/// A cursor as editors show it: who, in which colour, from where to where.
fn cursor(client: u64, clock: u32) -> String {
    format!(
        r##"{{"user":{{"name":"Writer {client}","color":"#30bced"}},"cursor":{{"anchor":{{"type":null,"tname":"text","item":{{"client":{client},"clock":{clock}}},"assoc":0}},"head":{{"type":null,"tname":"text","item":{{"client":{client},"clock":{clock}}},"assoc":0}}}}}}"##
    )
}

/// Which state of its writer a cursor is.
pub(super) fn cursor_clock(json: &str) -> Option<u32> {
    let (_, behind) = json.split_once("\"clock\":")?;
    let digits = behind.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(behind.len());
    behind.get(..digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn shape(payload: Payload) -> Shape {
        Shape { documents: 2, writers: 1, readers: 2, payload }
    }

    #[test]
    fn everybody_else_is_owed_what_one_sends() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let mut fleet = Fleet::new(&shape(Payload::Text), None, &mut random);
        fleet.next(1, Instant::now());
        fleet.next(1, Instant::now());
        assert_eq!(fleet.outstanding(), (4, 2));
        fleet.delivered(1, 0..2, 10);
        fleet.acknowledged(1, 0..1, 10);
        assert_eq!(fleet.outstanding(), (2, 1));
    }

    #[test]
    fn a_cursor_is_json_and_is_owed_no_acknowledgement() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let mut fleet = Fleet::new(&shape(Payload::Cursor), None, &mut random);
        let states = fleet.next(0, Instant::now());
        assert_eq!(fleet.outstanding(), (2, 0));
        crate::wire::dialect::awareness_states(&states, |_, clock, json| {
            assert_eq!(clock, 1);
            assert!(serde_json::from_str::<serde_json::Value>(json).is_ok(), "{json}");
            assert_eq!(cursor_clock(json), Some(0));
        });
    }

    #[test]
    fn what_was_written_before_is_owed_to_every_connection() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let known = Known { first_client: 7, writers_per_document: 1, updates: vec![3, 2] };
        let readers = Shape { documents: 2, writers: 0, readers: 4, payload: Payload::Text };
        assert_eq!(Fleet::new(&readers, Some(&known), &mut random).outstanding(), (5 * 4, 0));
    }
}
