//! The way out to one connection: puts the dialect on and pushes into its outbox.

use super::messages::{Detached, Outgoing};
use super::pieces::InPieces;
use super::presence::pieces;
use crate::outbox::{Outbox, Pushed};
use crate::protocol::Dialect;
use crate::protocol::codec::{EMPTY_AWARENESS, Message, encode};
use crate::protocol::frame::close_frame;
use bytes::Bytes;
use contextnexus_gate::{AwarenessEntry, encode_awareness};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Presence for one connection that is larger goes out in pieces of about this size, as there is room.
const PRESENCE_PIECE_BYTES: usize = 64 * 1024;

/// One follower's way out.
#[derive(Debug)]
pub struct FollowerOutput {
    /// Its dialect.
    pub dialect: Dialect,
    /// Hocuspocus: what its frames begin with.
    pub address: Bytes,
    outbox: Arc<Outbox>,
    detached: Arc<Detached>,
    /// Hocuspocus: the provider understands message 7.
    knows_close: bool,
    /// Pieces of something large that have found no room yet. Meanwhile it is behind.
    remaining: VecDeque<Piece>,
    /// Among them is an update for it alone.
    is_echoing: bool,
    /// It was sent a step 2, or its pieces are on the way.
    receiving: bool,
    /// Its outbox was full: the last sequence it was sent; it gets one merged update when it drains.
    behind_since: Option<u64>,
    /// A step 2 was put into its outbox, or its pieces are, and may be there still.
    is_welcoming: bool,
    /// The document is to hear when that has gone.
    is_awaited: bool,
    /// Its outbox was full of other things: it gets everybody's presence when it drains.
    missed_presence: bool,
    /// Clients whose presence it is shown when its outbox has room.
    unseen: BTreeSet<u64>,
    sent_seq: u64,
}

/// A piece that waits. The bytes are shared with all who wait for the same.
#[derive(Debug)]
enum Piece {
    /// A finished frame.
    Frame(Bytes),
    Update(Bytes),
    Step2(Bytes),
}

impl FollowerOutput {
    /// To a connection that has just come.
    pub fn new(dialect: Dialect, address: Bytes, outbox: Arc<Outbox>, detached: Arc<Detached>) -> Self {
        Self {
            dialect,
            address,
            outbox,
            detached,
            knows_close: false,
            remaining: VecDeque::new(),
            is_echoing: false,
            receiving: false,
            behind_since: None,
            is_welcoming: false,
            is_awaited: false,
            missed_presence: false,
            unseen: BTreeSet::new(),
            sent_seq: 0,
        }
    }

    /// Hocuspocus: the provider understands message 7 (CLOSE).
    #[must_use]
    pub fn with_close(mut self, knows_close: bool) -> Self {
        self.knows_close = knows_close;
        self
    }

    /// A message for it alone. Acknowledgements may stand above the outbox's budget; when even that is full, the connection is lost.
    pub fn send(&mut self, what: &Outgoing) {
        let frame = match what {
            Outgoing::LargeUpdate(update) => return self.echo(update),
            Outgoing::Awareness(entries) if presence_bytes(entries) > PRESENCE_PIECE_BYTES || self.has_unseen() => {
                return self.show_as_it_drains(entries);
            }
            Outgoing::Step1(state_vector) => encode(&self.address, Message::Step1(state_vector)),
            Outgoing::Update(update) => encode(&self.address, Message::Update(update)),
            Outgoing::Awareness(entries) => encode(&self.address, Message::Awareness(&encode_awareness(entries))),
            Outgoing::Status(stored) => encode(&self.address, Message::Status(*stored)),
            Outgoing::Mark(payload) => encode(&self.address, Message::Mark(payload)),
            Outgoing::ReadOnly => encode(&self.address, Message::Denied("read-only")),
            Outgoing::Scope(may_write) => encode(&self.address, Message::Authenticated(scope(*may_write))),
            Outgoing::TokenRequest => encode(&self.address, Message::TokenRequest),
            Outgoing::KeepAlive => encode(&self.address, Message::Awareness(EMPTY_AWARENESS)),
        };
        // An update for one alone repeats what it sent, which may be a whole document.
        let pushed = match what {
            Outgoing::Update(_) => self.outbox.push_state(frame),
            _ => self.outbox.push_control(frame),
        };
        if pushed == Pushed::Full {
            self.outbox.close_now(close_frame(super::close::TRY_AGAIN_LATER, "too slow"));
        }
    }

    /// Shows it presence that is large, a piece after the other as there is room. Who is left waits by name alone: it is shown what they show then.
    fn show_as_it_drains(&mut self, entries: &[AwarenessEntry]) {
        let mut is_full = self.has_unseen();
        for piece in pieces(entries, PRESENCE_PIECE_BYTES, |entry| entry) {
            if !is_full && self.outbox.has_room() {
                let frame = encode(&self.address, Message::Awareness(&encode_awareness(piece)));
                match self.outbox.push(frame) {
                    Pushed::Taken => continue,
                    Pushed::Closed => return,
                    Pushed::Full => {}
                }
            }
            is_full = true;
            self.unseen.extend(piece.iter().map(|entry| entry.client));
        }
    }

    /// Somebody's presence waits for room in its outbox.
    pub fn has_unseen(&self) -> bool {
        !self.unseen.is_empty()
    }

    /// Whose that is: it waits no longer.
    pub fn take_unseen(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.unseen)
    }

    /// A step 2 is still on its way to it.
    pub fn is_sending_state(&mut self) -> bool {
        self.is_welcoming &= self.has_remaining() || !self.is_drained();
        self.is_welcoming
    }

    /// The document is to hear when that has gone.
    pub fn is_awaited(&mut self) {
        self.is_awaited = true;
    }

    /// Whether it was awaited, and has gone.
    pub fn take_arrived(&mut self) -> bool {
        self.is_awaited && !self.is_sending_state() && std::mem::take(&mut self.is_awaited)
    }

    /// Repeats a large update that it sent.
    fn echo(&mut self, update: &InPieces) {
        if self.is_echoing {
            return self.outbox.close_now(close_frame(super::close::TRY_AGAIN_LATER, "too slow"));
        }
        self.is_echoing = true;
        self.remaining.extend(update.iter().cloned().map(Piece::Update));
        if self.behind_since.is_none() {
            self.begin(self.sent_seq);
        }
    }

    /// The step 2, through `seq`, or what goes before it. Everything after it follows.
    pub fn welcome(&mut self, update: &InPieces, seq: u64) {
        self.remaining.clear(); // of the answer to the step 1 before this one
        self.is_echoing = false;
        self.is_welcoming = true;
        if !update.before.is_empty() {
            self.remaining.extend(update.before.iter().cloned().map(Piece::Update));
            self.remaining.push_back(Piece::Step2(update.last.clone()));
            self.receiving = true;
            return self.begin(seq);
        }
        let frame = encode(&self.address, Message::Step2(&update.last));
        if self.outbox.push_state(frame) == Pushed::Full {
            return self.outbox.close_now(close_frame(super::close::TRY_AGAIN_LATER, "too slow"));
        }
        self.receiving = true;
        self.behind_since = None;
        self.sent_seq = seq;
    }

    /// Sends what is in `rest`, with which the connection has everything through `seq`.
    fn begin(&mut self, seq: u64) {
        self.behind_since = Some(seq);
        self.go_on(seq);
    }

    /// Sends more of what is in `rest`, as far as there is room: about a budget at a time. `seq` is the newest there is.
    pub fn go_on(&mut self, seq: u64) {
        while let Some(piece) = self.remaining.front() {
            if !self.outbox.has_room() {
                return;
            }
            let frame = match piece {
                Piece::Frame(frame) => frame.clone(),
                Piece::Update(update) => encode(&self.address, Message::Update(update)),
                Piece::Step2(update) => encode(&self.address, Message::Step2(update)),
            };
            match self.outbox.push(frame) {
                Pushed::Taken => self.remaining.pop_front(),
                Pushed::Full => return,
                Pushed::Closed => return self.remaining.clear(),
            };
        }
        self.is_echoing = false;
        if let Some(since) = self.behind_since {
            self.sent_seq = since;
            self.behind_since = (since != seq).then_some(since);
        }
    }

    /// Something large is on its way to it.
    pub fn has_remaining(&self) -> bool {
        !self.remaining.is_empty()
    }

    /// As [`show`](Self::show), for an update in pieces: where there is room for the first, all are taken, as one frame would be. A
    /// connection that takes what it is sent never falls behind because an update is large.
    pub fn show_pieces(&mut self, pieces: &mut [EncodedOnce<'_>], seq: u64) -> Option<u64> {
        if !self.receiving || self.behind_since.is_some() {
            return None;
        }
        for (place, encoded) in pieces.iter_mut().enumerate() {
            let frame = encoded.for_address(&self.address);
            match if place == 0 { self.outbox.push(frame) } else { self.outbox.push_more(frame) } {
                Pushed::Taken => {}
                Pushed::Full => {
                    self.behind_since = Some(self.sent_seq);
                    return self.behind_since;
                }
                Pushed::Closed => return None,
            }
        }
        self.sent_seq = seq;
        None
    }

    /// A committed update for everybody who is receiving. Returns the sequence before it when the connection fell behind with it.
    pub fn show(&mut self, encoded: &mut EncodedOnce<'_>, seq: u64) -> Option<u64> {
        if !self.receiving || self.behind_since.is_some() {
            return None;
        }
        match self.outbox.write_through(encoded.for_address(&self.address)) {
            Pushed::Taken => {
                self.sent_seq = seq;
                None
            }
            Pushed::Full => {
                self.behind_since = Some(self.sent_seq);
                self.behind_since
            }
            Pushed::Closed => None,
        }
    }

    /// The log's numbers stand for other updates than before: whoever is behind, or falls behind with what comes now, gets everything.
    pub fn forget_numbers(&mut self) {
        self.sent_seq = 0;
        self.behind_since = self.behind_since.map(|_| 0);
    }

    /// It was the sole sender, and has it already.
    pub fn skip(&mut self, seq: u64) {
        if self.behind_since.is_none() {
            self.sent_seq = seq;
        }
    }

    /// Presence is dropped for whoever is behind or has no room: it gets everybody's newest when it has drained. False: that begins now, and
    /// it is to be told when.
    pub fn show_presence(&mut self, encoded: &mut EncodedOnce<'_>) -> bool {
        if self.behind_since.is_some() || self.missed_presence {
            return true;
        }
        self.missed_presence = self.outbox.write_through(encoded.for_address(&self.address)) == Pushed::Full;
        !self.missed_presence
    }

    /// It was not sent everything that others were.
    pub fn misses_something(&self) -> bool {
        self.missed_presence || self.behind_since.is_some() || self.has_unseen() || self.is_awaited
    }

    /// Presence was dropped since it was last asked.
    pub fn take_missed_presence(&mut self) -> bool {
        std::mem::take(&mut self.missed_presence) && self.behind_since.is_none() // who is behind gets it with the rest
    }

    /// Its outbox is empty.
    pub fn is_drained(&self) -> bool {
        self.outbox.waiting() == 0
    }

    /// The last sequence sent before it fell behind.
    pub fn behind_since(&self) -> Option<u64> {
        self.behind_since
    }

    /// What it missed, as one update. False: its outbox is still full.
    pub fn catch_up(&mut self, pieces: &mut [EncodedOnce<'_>], seq: u64) -> bool {
        let [encoded] = pieces else {
            self.remaining.extend(pieces.iter_mut().map(|encoded| Piece::Frame(encoded.for_address(&self.address))));
            self.begin(seq);
            return self.behind_since.is_none();
        };
        match self.outbox.push(encoded.for_address(&self.address)) {
            Pushed::Taken => {
                self.behind_since = None;
                self.sent_seq = seq;
                true
            }
            Pushed::Full => false,
            Pushed::Closed => true,
        }
    }

    /// Asks to be told when the outbox is empty.
    pub fn notify_when_drained(&self, sender: tokio::sync::mpsc::Sender<()>) {
        self.outbox.notify_when_drained(sender);
    }

    /// Closes the connection (y-websocket, Y-Sweet), or detaches the document from it (Hocuspocus) unless the whole
    /// socket is meant. What still waits to be shown is dropped when a right ended, and flushed otherwise.
    pub fn close(&mut self, code: u16, reason: &str, whole_socket: bool) {
        use super::close::{EXPIRED, TRY_AGAIN_LATER, is_about_content};
        self.receiving = false;
        self.remaining.clear();
        self.unseen.clear();
        self.detached.set(code);
        metrics::counter!("contextnexus_closed_total", "code" => code.to_string()).increment(1);
        if self.dialect == Dialect::Hocuspocus && is_about_content(code) {
            self.tell(Message::Stateless(&refusal(code, reason)));
        }
        if self.dialect != Dialect::Hocuspocus || whole_socket {
            return self.close_socket(code, reason);
        }
        // Only when its socket opens does a provider of every major come back by itself; documents beside this one are not disturbed for it.
        let comes_back = matches!(code, EXPIRED | TRY_AGAIN_LATER);
        if self.detached.is_alone() && (comes_back || (is_about_content(code) && !self.knows_close)) {
            self.close_socket(code, reason);
        } else if code == TRY_AGAIN_LATER {
            self.tell(Message::TokenRequest);
        } else if !is_about_content(code) {
            self.tell(Message::PermissionDenied(reason));
        } else if self.knows_close {
            self.tell(Message::Closed(reason));
        }
    }

    fn close_socket(&self, code: u16, reason: &str) {
        use super::close::{EXPIRED, FORBIDDEN, NOT_FOUND, UNAUTHORIZED};
        match code {
            UNAUTHORIZED | FORBIDDEN | NOT_FOUND | EXPIRED => self.outbox.close_now(close_frame(code, reason)),
            _ => self.outbox.close(close_frame(code, reason)),
        }
    }

    /// Without room for it the connection is closed soon anyway.
    fn tell(&self, message: Message<'_>) {
        let _ = self.outbox.push_control(encode(&self.address, message));
    }
}

fn presence_bytes(entries: &[AwarenessEntry]) -> usize {
    entries.iter().map(|entry| entry.state.len()).sum()
}

/// Hocuspocus: the word for what a connection may do.
pub fn scope(may_write: bool) -> &'static str {
    if may_write { "read-write" } else { "readonly" }
}

/// Hocuspocus: what the page is told when content was refused: `{"type":"refused","code":4413,"reason":"…"}`.
fn refusal(code: u16, reason: &str) -> String {
    serde_json::json!({ "type": "refused", "code": code, "reason": reason }).to_string()
}

/// One message for many outputs, encoded once per address (and so once for all y-websocket and Y-Sweet clients).
#[derive(Debug)]
pub struct EncodedOnce<'a> {
    message: Message<'a>,
    encoded: Vec<(Bytes, Bytes)>,
}

impl<'a> EncodedOnce<'a> {
    /// Nothing is encoded yet.
    pub fn new(message: Message<'a>) -> Self {
        Self { message, encoded: Vec::new() }
    }

    fn for_address(&mut self, address: &Bytes) -> Bytes {
        // Addresses are few (empty, and the names of the document), except where each Hocuspocus provider adds a session id of its
        // own: those are not worth keeping.
        if let Some((_, frame)) = self.encoded.iter().find(|(known, _)| known == address) {
            return frame.clone();
        }
        let frame = encode(address, self.message);
        if self.encoded.len() < 8 {
            self.encoded.push((address.clone(), frame.clone()));
        }
        frame
    }
}
