//! What a document decides. Pure: inputs are arguments, outcomes are [`Effect`]s; time and identities come in.
//!
//! The life of an update: [`hear`](DocumentState::hear) parses it and lets it wait; [`advance`](DocumentState::advance) admits all
//! that waits as one batch; [`appended`](DocumentState::appended) folds, acknowledges, shows and publishes it. The other entries
//! bring news of the log (`tail_read`, `head_locked`, `recovered`, `rebuilt`), of rights, of other nodes, and of time.

use super::batch::{Batch, Decision, Proposal, RowOf, Sender};
use super::follower::{DelayedPresence, Follower, Gap, Receipts};
use super::messages::{Effect, Input, Outgoing, Renew};
use super::pieces::InPieces;
use super::presence::{self, Announcer, Presence, ToldGone};
use super::replica::{Replica, ReplicaError, Unfolded, Unverified};
use super::weight::{self, Weight};
use super::writers::Writers;
use super::{FollowerId, close};
use crate::access::Role;
use crate::budget::Budgets;
use crate::ids::{AppendId, Position, SessionId, Tip, UserId, UserSessionId};
use crate::limits::Limits;
use crate::ports::authority::{RightInUse, Standing};
use crate::ports::bus::{BusEvent, BusMessage};
use crate::ports::documents::{WriteRefused, Writer, Written};
use crate::ports::log::{
    AppendOutcome, Authorship, Damage, Extent, Head, IdempotencyKey, LogError, NewRow, Quarantine, QuarantineReason,
    Snapshot, Stored, Tail,
};
use crate::protocol::Dialect;
use bytes::Bytes;
use contextnexus_gate::{
    Admission, AwarenessUpdate, Caps, Content, Cost, DEPTH_BOUND, Delta, Index, Known, Malformed, Mark, Marks, Order,
    Recent, Refused, Rule, StateVector, Update, admit, merge,
};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

mod answering;
mod comparing;
mod effort;
mod following;
mod hearing;
mod log;
mod owing;
mod quarantined;
mod showing;
mod writing;

pub use answering::Questions;
pub(in crate::document) use following::trim;
use log::LogWork;
pub use log::{HeadDecision, News, Unsound};
use showing::{Encoded, EncodedInPieces, TailSinceSnapshot};

/// The appends that a document may lose to other nodes before it takes the head's lock.
const RACES_MAX: u32 = 3;
/// Bytes of one batch: keeps one statement, one fold and one broadcast short.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// What a batch may cost yrs, by the gate's estimate, before the next update begins another: between two of them the thread does other things.
const BATCH_COST_MAX: Cost = Cost { ns: 50_000_000, beyond_size_ns: 0 };
/// Updates of one batch.
const BATCH_UPDATES_MAX: usize = 4_096;
/// Slow matters (gaps, withheld marks, expiry, age of the tail) are looked at so often, while there are any.
const SLOW_TICK: Duration = Duration::from_millis(500);

/// A log that does not read back to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Damaged {
    damage: Damage,
    /// Its head, as it was stored when this was found.
    head: Position,
}

/// One open document.
#[derive(Debug)]
pub struct DocumentState {
    limits: Arc<Limits>,
    caps: Caps,
    budgets: Arc<Budgets>,
    position: Position,
    /// The log does not read back beyond our position: it is only read.
    damaged: Option<Damaged>,
    replica: Replica,
    index: Index,
    /// The order of the content, once somebody writes; what is only read has none.
    order: Option<Order>,
    /// Whose client ids they are.
    writers: Writers,
    /// The newest rows, for those who fall behind and against forks.
    recent: Recent,
    /// Bytes of everything that was folded.
    folded_bytes: usize,
    /// What the tree is made of, where there is one …
    weight: Option<Weight>,
    /// … and what has come to it since the last snapshot was taken.
    weight_since: Weight,
    /// Memory of the index, when there was no tree last.
    index_bytes: usize,
    quarantined: Vec<Update>,
    followers: BTreeMap<FollowerId, Follower>,
    presence: Presence,
    waiting: VecDeque<Proposal>,
    waiting_bytes: usize,
    /// Requests that build on what we lack: another node may have answered for it, so the log is looked at before they are refused.
    set_aside: Vec<Proposal>,
    log: LogWork,
    in_flight: Option<Batch>,
    lost_races: u32,
    /// 1 while a batch that PostgreSQL refused is tried update by update.
    batch_updates_max: usize,
    /// Somebody said that the head moved while the log was busy.
    tail_is_stale: bool,
    tail: TailSinceSnapshot,
    /// How much of a tail there was when the state was too dear to be a snapshot.
    too_dear: Option<TailSinceSnapshot>,
    /// What the gate says that the tree costs yrs, where it was asked while there was none.
    tree_cost: Duration,
    /// The whole state as it was encoded last, for whoever joins next.
    encoded: Option<Encoded>,
    /// The same in pieces, where it is large.
    in_pieces: Option<EncodedInPieces>,
    /// When the tree was needed last; `None` where there is none, or it was made for a snapshot alone, or it cannot go.
    used_at: Option<Instant>,
    /// A snapshot is being read back, or stored.
    reading_back: bool,
    slow_at: Option<Instant>,
    presence_due: Option<Instant>,
    /// The first time at which a right ends by itself, or a fresh token is asked for.
    rights_due: Option<Instant>,
    /// The first time at which a question that waits may be answered.
    answers_due: Option<Instant>,
    /// Connections that have left and may come again, and until when they are not answered.
    pauses: Vec<(SessionId, Instant)>,
    /// Dropped for lack of room, since it was last asked.
    dropped: u64,
    dead: bool,
    effects: Vec<Effect>,
}

impl DocumentState {
    /// The fold of a stored log, packed. Every row goes through the gate, which trims what overlaps; a row that does not continue (because an
    /// earlier one is in quarantine) is named for quarantine. One that yrs cannot fold shows when the tree is needed.
    pub fn load(stored: Stored, limits: Arc<Limits>, budgets: Arc<Budgets>, now: Instant) -> Result<Self, Unsound> {
        Self::load_into(Replica::new(), stored, limits, budgets, now)
    }

    /// The same, packed into this replica, which is empty.
    pub fn load_into(
        replica: Replica,
        stored: Stored,
        limits: Arc<Limits>,
        budgets: Arc<Budgets>,
        now: Instant,
    ) -> Result<Self, Unsound> {
        let presence = Presence::new(&limits, budgets.presence.clone());
        let caps = Caps {
            update_bytes_max: limits.step2_bytes_max,
            document_clients_max: limits.document_clients_max,
            any_depth_max: limits.value_depth_max.min(DEPTH_BOUND),
            integration_ms_max: limits.integration_ms_max,
            type_depth_max: limits.type_depth_max.min(DEPTH_BOUND),
            root_name_bytes_max: limits.root_name_bytes_max,
            map_key_bytes_max: limits.map_key_bytes_max,
            awareness_state_bytes_max: limits.awareness_state_bytes_max,
            ..Caps::default()
        };
        let mut state = Self {
            recent: Recent::new(limits.document_recent_bytes),
            limits,
            caps,
            budgets,
            position: Position::START,
            damaged: None,
            replica,
            index: Index::new(),
            order: None,
            writers: Writers::default(),
            folded_bytes: 0,
            weight: None,
            weight_since: Weight::default(),
            index_bytes: 0,
            quarantined: Vec::new(),
            followers: BTreeMap::new(),
            presence,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            set_aside: Vec::new(),
            log: LogWork::Nothing,
            in_flight: None,
            lost_races: 0,
            batch_updates_max: BATCH_UPDATES_MAX,
            tail_is_stale: false,
            tail: TailSinceSnapshot::default(),
            too_dear: None,
            tree_cost: Duration::ZERO,
            encoded: None,
            in_pieces: None,
            used_at: None,
            reading_back: false,
            slow_at: None,
            presence_due: None,
            rights_due: None,
            answers_due: None,
            pauses: Vec::new(),
            dropped: 0,
            dead: false,
            effects: Vec::new(),
        };
        state.restore(stored, now)?;
        Ok(state)
    }

    /// Where the folded log stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Where the head of the log was, when it was looked at: with a sound log that is our position.
    pub fn stands_at(&self) -> Position {
        self.damaged.map_or(self.position, |damaged| damaged.head)
    }

    /// Why the document is only read, by everybody: its log does not read back beyond [`position`](Self::position).
    pub fn damage(&self) -> Option<Damage> {
        self.damaged.map(|damaged| damaged.damage)
    }

    /// Nothing waits for the log.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.set_aside.is_empty() && self.in_flight.is_none() && self.log == LogWork::Nothing
    }

    /// So many updates wait (in flight ones included), of so many bytes.
    pub fn waiting(&self) -> (usize, usize) {
        let in_flight = self.in_flight.as_ref().map_or(0, |batch| batch.items.len());
        (self.waiting.len() + self.set_aside.len() + in_flight, self.waiting_bytes)
    }

    /// Memory of the recent updates that are kept.
    pub fn recent_bytes(&self) -> usize {
        self.recent.bytes()
    }

    /// How many updates were dropped for lack of room since this was asked last.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// How many presence states were left out because of a limit since this was asked last.
    pub fn take_presence_dropped(&mut self) -> u64 {
        self.presence.take_left_out()
    }

    /// Memory in use: of the tree and the index estimated by what they are made of, of what waits or is kept as bytes counted.
    pub fn bytes(&self) -> usize {
        let encoded =
            self.encoded.as_ref().map_or(0, Encoded::bytes) + self.in_pieces.as_ref().map_or(0, EncodedInPieces::bytes);
        let document = match &self.weight {
            Some(weight) => weight.bytes() + self.index.clients_len() * weight::CLIENT,
            None => self.folded_bytes + self.index_bytes,
        };
        let order = self.order.as_ref().map_or(0, Order::bytes);
        let kept = self.recent.bytes() + self.waiting_bytes + encoded + self.presence.bytes();
        document + order + self.writers.bytes() + kept
    }

    /// PostgreSQL is away.
    pub fn is_log_away(&self) -> bool {
        matches!(self.log, LogWork::Away(_) | LogWork::Resolving)
    }

    /// Whether so much of this connection waits that it should not be read further. Not while PostgreSQL is away: then what does
    /// not fit is dropped and asked for again.
    pub fn is_window_full(&self, follower: FollowerId) -> bool {
        !self.is_log_away()
            && self.followers.get(&follower).is_some_and(|m| m.waiting_bytes > self.limits.connection_window_bytes)
    }

    /// Rights in use here.
    pub fn rights(&self) -> impl Iterator<Item = (UserId, UserSessionId)> + '_ {
        self.followers.values().map(|follower| (follower.user, follower.user_session))
    }

    /// There is no tree.
    pub fn is_compact(&self) -> bool {
        self.replica.is_compact()
    }

    /// Makes the tree now, where the document was loaded packed.
    pub fn unpack_now(&mut self) -> Result<(), ReplicaError> {
        self.weigh()?;
        self.replica.unpack()
    }

    /// Before the tree is made.
    fn weigh(&mut self) -> Result<(), ReplicaError> {
        if let Some(weight) = self.replica.weigh()? {
            (self.weight, self.weight_since) = (Some(weight), Weight::default());
        }
        Ok(())
    }

    /// When [`on_time`](Self::on_time) is wanted next.
    pub fn deadline(&self) -> Option<Instant> {
        [self.presence.deadline(), self.presence_due, self.slow_at, self.answers_due].into_iter().flatten().min()
    }

    /// When [`on_time`](Self::on_time) is wanted for a right that ends by itself: rarely, and mostly days ahead.
    pub fn rights_deadline(&self) -> Option<Instant> {
        self.rights_due
    }

    /// Lets a connection in. y-websocket and Y-Sweet clients get our step 1 and who is here; Hocuspocus clients get
    /// them when they ask.
    pub fn join(&mut self, id: FollowerId, mut follower: Follower, now: Instant) -> Vec<Effect> {
        let dialect = follower.dialect;
        self.right_due(follower.right_due());
        follower.since = Some(now);
        self.followers.insert(id, follower);
        self.remember_pause(id, now);
        if dialect != Dialect::Hocuspocus {
            self.doubt(id);
            self.ask(&[id], now);
            self.greet(id, now);
        }
        self.take_effects()
    }

    /// The connection is gone; its clients vanish at once, its updates are still committed.
    pub fn leave(&mut self, id: FollowerId, now: Instant) -> Vec<Effect> {
        self.keep_pause(id, now);
        self.presence.leave(id, now);
        self.flush_presence(now);
        if let Some(follower) = self.followers.get_mut(&id) {
            follower.leave();
            if follower.waiting == 0 {
                self.followers.remove(&id);
            }
        }
        self.take_effects()
    }

    /// One message of a connection. Call [`advance`](Self::advance) after the last that is at hand.
    pub fn hear(&mut self, from: FollowerId, input: Input, now: Instant) -> Vec<Effect> {
        if self.dead || self.followers.get(&from).is_none_or(|follower| follower.is_gone) {
            return Vec::new();
        }
        match input {
            Input::Step1(state_vector) => self.hear_step1(from, state_vector, now),
            Input::Step2(update) => self.hear_update(from, update, true, now),
            Input::Update(update) => self.hear_update(from, update, false, now),
            Input::Awareness(update) => self.hear_awareness(from, &update, now),
            Input::QueryAwareness => self.hear_query(from, now),
            Input::TooLarge => self.close(from, close::TOO_LARGE, "message too large (step2_bytes_max)"),
            Input::Mark(payload) => {
                if let Some(follower) = self.followers.get_mut(&from) {
                    let receipts = follower.marked(payload, now);
                    self.wake_slowly(now);
                    self.send_receipts(from, receipts);
                }
            }
        }
        self.take_effects()
    }

    /// An HTTP write. Call [`advance`](Self::advance) after it.
    pub fn write(
        &mut self,
        by: Writer,
        update: Bytes,
        idempotency: Option<IdempotencyKey>,
        answer: oneshot::Sender<Result<Written, WriteRefused>>,
    ) -> Vec<Effect> {
        let is_too_long = update.len() > self.limits.update_bytes_max;
        let refused = match Update::parse(update, &self.caps) {
            Ok(_) if is_too_long => {
                self.effects.push(Effect::Answer(answer, Err(WriteRefused::TooLarge)));
                return self.take_effects();
            }
            Ok(update) if self.damaged.is_some() => Err((update, WriteRefused::ReadOnly)),
            Ok(update) if self.is_log_away() => Err((update, WriteRefused::Unavailable { retry_after_s: 5 })),
            Ok(update) if self.has_quarantined(&update) || self.brings_content(&update, by.user) => {
                Err((update, WriteRefused::Malformed("it was quarantined".into())))
            }
            Ok(update) => Ok(update),
            Err(malformed) => {
                let refusal = match malformed {
                    malformed if is_too_large(&malformed) => WriteRefused::TooLarge,
                    malformed if malformed.rule == Rule::FormatV2 => WriteRefused::FormatV2,
                    malformed => WriteRefused::Malformed(malformed.to_string()),
                };
                self.effects.push(Effect::Answer(answer, Err(refusal)));
                return self.take_effects();
            }
        };
        match refused {
            Err((_, refusal)) => self.effects.push(Effect::Answer(answer, Err(refusal))),
            Ok(update) => {
                if self.has_room(update.bytes().len()) {
                    let sender = Sender::Request {
                        role: by.role,
                        until: by.until,
                        answer,
                        idempotency,
                        head_was_checked: false,
                    };
                    let (session, user) = (by.user_session, by.user);
                    self.enqueue(Proposal {
                        sender,
                        user_session: session,
                        user,
                        update,
                        is_step2: false,
                        is_checked: false,
                    });
                } else {
                    self.dropped += 1;
                    let refusal = WriteRefused::Unavailable { retry_after_s: 1 };
                    self.effects.push(Effect::Answer(answer, Err(refusal)));
                }
            }
        }
        self.take_effects()
    }

    /// Makes what waits the next batch, if no append is in flight.
    pub fn advance(&mut self, now: Instant) -> Vec<Effect> {
        self.next_append(now);
        self.take_effects()
    }

    /// News from another node.
    pub fn hear_bus(&mut self, event: BusEvent, now: Instant) -> Vec<Effect> {
        match event {
            BusEvent::Gap => {
                self.request_tail();
                self.effects.push(Effect::QueryPresence);
                let local = self.presence.local();
                self.publish_presence(&local);
            }
            BusEvent::Message(BusMessage::Committed { .. }) if self.damaged.is_some() => {} // it continues what we cannot read
            BusEvent::Message(BusMessage::Committed { from, through, updates, authorship, .. }) => {
                if through.seq <= self.position.seq {
                    // Seen already, or a fork, which the head check tells.
                } else if self.log == LogWork::Nothing && from == self.position && !updates.is_empty() {
                    let authorship = authorship.into_iter().chain(std::iter::repeat(Authorship::Unknown));
                    let updates = updates.into_iter().map(Some).zip(authorship);
                    if self.take_in(updates, through, now).is_err() {
                        // Whatever row it was, the log tells, and only the log.
                        self.die(close::SERVICE_RESTART, "document is rebuilt");
                    }
                } else {
                    self.request_tail();
                }
            }
            BusEvent::Message(BusMessage::Presence { node, update, owners, .. }) => {
                if let Ok(entries) = AwarenessUpdate::parse(&update, &self.caps) {
                    let (quiet, told) = self.presence.announce_remote(node, &entries, &owners, now);
                    if !quiet.is_empty() {
                        for newcomer in self.presence.newcomers().to_vec() {
                            self.send(newcomer, Outgoing::Awareness(quiet.clone()));
                        }
                    }
                    self.tell_gone(told);
                    self.wake_slowly(now);
                    self.flush_presence(now);
                }
            }
            BusEvent::Message(BusMessage::PresenceQuery { .. }) => {
                let local = self.presence.local();
                self.effects.push(Effect::PublishPresence(local));
            }
            BusEvent::Message(BusMessage::AccessChanged { .. }) => {}
        }
        self.take_effects()
    }

    /// The client presented a fresh token: what it may do from now on. A client that may write now, and might not before, is asked for what
    /// it wrote meanwhile. The session tells it its new scope.
    pub fn renew(&mut self, renewal: Renew, now: Instant) -> Vec<Effect> {
        if let Some(follower) = self.followers.get_mut(&renewal.follower).filter(|follower| !follower.is_gone) {
            (follower.user, follower.user_session) = (renewal.user, renewal.user_session);
            self.grant(renewal.follower, renewal.role, renewal.until, now);
        }
        self.take_effects()
    }

    /// Rights changed.
    pub fn regrant(&mut self, standings: &[(RightInUse, Standing)], now: Instant) -> Vec<Effect> {
        self.regrant_all(standings, now);
        self.load_damaged_again(); // an administrator may have opened it again
        self.take_effects()
    }

    /// Time passed.
    pub fn on_time(&mut self, now: Instant) -> Vec<Effect> {
        if self.rights_due.is_some_and(|at| now >= at) {
            self.end_rights(now);
        }
        if self.presence_due.is_some_and(|at| now >= at) {
            self.release_presence(now);
        }
        if self.answers_due.is_some_and(|at| now >= at) {
            self.answer_who_waited(now);
        }
        if self.slow_at.is_some_and(|at| now >= at) {
            self.slow_at = None;
            self.presence.expire(now);
            if self.presence.is_to_ask(now) {
                self.effects.push(Effect::QueryPresence);
            }
            for silent in self.presence.awaiting() {
                self.send_siblings(silent);
            }
            self.ask_about_gaps(now);
            self.reassure(now);
            self.consider_snapshot(now);
            self.forget_encoded(now);
            if self.has_slow_matters() {
                self.wake_slowly(now);
            }
        }
        self.flush_presence(now);
        self.take_effects()
    }

    /// Everybody who is here; for one connection without what it must not hear of itself.
    pub fn everybody(&self, to: Option<FollowerId>) -> Vec<contextnexus_gate::AwarenessEntry> {
        self.presence.all(to)
    }

    /// What these clients show now, for one connection.
    pub fn presence_of(&self, clients: &BTreeSet<u64>, to: FollowerId) -> Vec<contextnexus_gate::AwarenessEntry> {
        self.presence.of(clients, to)
    }

    /// A connection takes nothing at the moment: what it has seen does not grow.
    pub fn fell_behind(&mut self, follower: FollowerId, seen_seq: u64) {
        if let Some(follower) = self.followers.get_mut(&follower) {
            follower.seen_seq = seen_seq;
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        let fits = self.waiting_bytes == 0 || self.waiting_bytes + bytes <= self.limits.document_waiting_bytes_max;
        fits && self.budgets.waiting.take(bytes)
    }

    /// The budget has been taken by `has_room`.
    fn enqueue(&mut self, proposal: Proposal) {
        let bytes = proposal.bytes();
        self.waiting_bytes += bytes;
        if let Sender::Follower { follower, .. } = &proposal.sender
            && let Some(follower) = self.followers.get_mut(follower)
        {
            follower.waiting += 1;
            follower.waiting_bytes += bytes;
        }
        self.waiting.push_back(proposal);
    }

    fn give_back(&mut self, proposal: &Proposal) {
        let bytes = proposal.bytes();
        self.waiting_bytes -= bytes;
        self.budgets.waiting.give_back(bytes);
        if let Sender::Follower { follower: id, .. } = &proposal.sender
            && let Some(follower) = self.followers.get_mut(id)
        {
            follower.waiting -= 1;
            follower.waiting_bytes -= bytes;
            if follower.is_gone && follower.waiting == 0 {
                self.followers.remove(id); // the last thing it had sent is settled
            }
        }
    }

    fn reassure(&mut self, now: Instant) {
        let mut due = Vec::new();
        for (id, follower) in &mut self.followers {
            if follower.reassure_at().is_some_and(|at| now >= at) {
                follower.reassured();
                due.push(*id);
            }
        }
        for id in due {
            self.send(id, Outgoing::KeepAlive);
        }
    }

    fn has_slow_matters(&self) -> bool {
        self.tail_updates() > 0
            || self.encoded.is_some()
            || self.in_pieces.is_some()
            || self.replica.has_parsed()
            || self.used_at.is_some()
            || self.presence.has_remote()
            || self.followers.values().any(|follower| follower.gap.is_some() || follower.reassure_at().is_some())
    }

    fn wake_slowly(&mut self, now: Instant) {
        self.slow_at.get_or_insert(now + SLOW_TICK);
    }

    fn receiving(&self) -> Vec<FollowerId> {
        self.followers.iter().filter(|(_, follower)| follower.receiving).map(|(id, _)| *id).collect()
    }

    fn send(&mut self, to: FollowerId, what: Outgoing) {
        self.effects.push(Effect::Send(to, what));
    }

    /// A connection that has just come is told who is here.
    fn greet(&mut self, newcomer: FollowerId, now: Instant) {
        let Some(user) = self.followers.get(&newcomer).map(|follower| follower.user) else { return };
        let (everybody, ask) = self.presence.greet(newcomer, user, now);
        if !everybody.is_empty() {
            self.send(newcomer, Outgoing::Awareness(everybody));
        }
        if ask {
            self.effects.push(Effect::QueryPresence);
        }
        if self.presence.has_remote() || !self.presence.awaiting().is_empty() {
            self.wake_slowly(now);
        }
    }

    fn send_siblings(&mut self, to: FollowerId) {
        let own = self.followers.get(&to).and_then(|follower| follower.own_client);
        let siblings = self.presence.siblings(to, own);
        if !siblings.is_empty() {
            self.send(to, Outgoing::Awareness(siblings));
        }
    }

    fn send_everybody(&mut self, to: FollowerId) {
        let everybody = self.everybody(Some(to));
        if !everybody.is_empty() {
            self.send(to, Outgoing::Awareness(everybody));
        }
    }

    /// Tells the other nodes who is here.
    fn publish_presence(&mut self, local: &[presence::Local]) {
        for piece in presence::pieces(local, self.limits.bus_message_bytes_max, |(entry, _)| entry) {
            self.effects.push(Effect::PublishPresence(piece.to_vec()));
        }
    }

    fn tell_gone(&mut self, told: ToldGone) {
        for (follower, gone) in told {
            self.send(follower, Outgoing::Awareness(vec![gone]));
        }
    }

    fn send_receipts(&mut self, to: FollowerId, receipts: Receipts) {
        for _ in 0..receipts.statuses {
            self.send(to, Outgoing::Status(true));
        }
        for mark in receipts.marks {
            self.send(to, Outgoing::Mark(mark));
        }
    }

    fn close(&mut self, follower: FollowerId, code: u16, reason: impl Into<Cow<'static, str>>) {
        if let Some(follower) = self.followers.get_mut(&follower) {
            follower.leave();
        }
        self.effects.push(Effect::Close { follower, code, reason: reason.into(), whole_socket: false });
    }

    fn die(&mut self, code: u16, reason: &'static str) {
        if std::mem::replace(&mut self.dead, true) {
            return;
        }
        self.log = LogWork::Nothing;
        self.wait_again();
        self.bring_back();
        for proposal in std::mem::take(&mut self.waiting) {
            self.give_back(&proposal);
            if let Sender::Request { answer, .. } = proposal.sender {
                let refusal = match code {
                    close::NOT_FOUND => WriteRefused::Deleted,
                    _ => WriteRefused::Unavailable { retry_after_s: 1 },
                };
                self.effects.push(Effect::Answer(answer, Err(refusal)));
            }
        }
        self.effects.push(Effect::Die { code, reason });
    }

    /// What is left to be done: a read may have ended the document.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}

impl Drop for DocumentState {
    /// However this instance ends, what waited in it no longer takes room.
    fn drop(&mut self) {
        self.budgets.waiting.give_back(self.waiting_bytes);
    }
}

fn is_too_large(malformed: &Malformed) -> bool {
    malformed.rule == Rule::TooLarge
}
