//! What a document decides. Pure: inputs are arguments, outcomes are [`Effect`]s; time and identities come in.
//!
//! The life of an update: [`hear`](DocumentState::hear) parses it and lets it wait; [`advance`](DocumentState::advance) admits all
//! that waits as one batch; [`appended`](DocumentState::appended) folds, acknowledges, shows and publishes it. The other entries
//! bring news of the log (`tail_read`, `held`, `recovered`, `rebuilt`), of rights, of other nodes, and of time.

use super::batch::{Batch, Proposal, RowOf, Sender, Verdict};
use super::member::{Gap, HeldPresence, Member, Receipts};
use super::messages::{Effect, Input, Outgoing};
use super::presence::{Announcer, Presence};
use super::replica::{Replica, ReplicaError};
use super::{FollowerId, close};
use crate::access::Role;
use crate::budget::Budget;
use crate::ids::{AppendId, Position, SessionId, Tip, UserId};
use crate::limits::Limits;
use crate::ports::authority::{Held, Standing};
use crate::ports::bus::{BusEvent, BusMessage};
use crate::ports::documents::{WriteRefused, Writer, Written};
use crate::ports::log::{AppendOutcome, Head, IdempotencyKey, LogError, NewRow, Quarantine, Stored, Tail};
use crate::protocol::Dialect;
use bytes::Bytes;
use contextnexus_gate::{
    Admission, AwarenessUpdate, Caps, Content, Delta, Index, Malformed, Recent, Rule, StateVector, Update, admit, merge,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

mod following;
mod hearing;
mod owing;
mod writing;

/// The appends that a document may lose to other nodes before it takes the head's lock.
const RACES_MAX: u32 = 3;
/// Bytes of one batch: keeps one statement, one fold and one broadcast short.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Updates of one batch.
const BATCH_UPDATES_MAX: usize = 4_096;
/// Slow matters (gaps, withheld marks, expiry, age of the tail) are looked at so often, while there are any.
const SLOW_TICK: Duration = Duration::from_millis(500);

/// One open document.
#[derive(Debug)]
pub struct DocumentState {
    limits: Arc<Limits>,
    caps: Caps,
    budget: Arc<Budget>,
    position: Position,
    replica: Replica,
    index: Index,
    recent: Recent,
    /// Committed updates kept for those who fall behind: `(sequence, update)`.
    latest: VecDeque<(u64, Update)>,
    latest_bytes: usize,
    /// Bytes of everything that was folded: what the memory in use is guessed from.
    folded_bytes: usize,
    quarantined: Vec<Update>,
    members: BTreeMap<FollowerId, Member>,
    presence: Presence,
    waiting: VecDeque<Proposal>,
    waiting_bytes: usize,
    log: LogWork,
    in_flight: Option<Batch>,
    lost_races: u32,
    /// 1 while a batch that PostgreSQL refused is tried update by update.
    batch_updates_max: usize,
    /// Somebody said that the head moved while the log was busy.
    look_again: bool,
    tail: TailSinceSnapshot,
    slow_at: Option<Instant>,
    hold_until: Option<Instant>,
    dead: bool,
    effects: Vec<Effect>,
}

/// What is being asked of the log. One thing at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LogWork {
    Nothing,
    Appending,
    /// The outcome of the append is unknown: its rows are looked for before anything is sent again.
    Resolving,
    ReadingTail,
    Holding,
    /// PostgreSQL is away; so many attempts failed.
    Away(u32),
    Rebuilding,
}

#[derive(Debug, Default)]
struct TailSinceSnapshot {
    bytes: usize,
    updates: u64,
    since: Option<Instant>,
    being_stored: bool,
}

/// The stored log cannot be folded as it is: mend this first, then load again.
#[derive(Debug)]
pub enum Unsound {
    /// A row that must move into quarantine.
    Row(Quarantine),
    /// A snapshot that yrs does not read, its checksum notwithstanding.
    Snapshot {
        /// Its sequence.
        seq: u64,
    },
}

/// What was learnt after an outage: rights as they stand now, and the tail.
pub type News = (Vec<(Held, Standing)>, Result<Tail, LogError>);

/// What to do with a held head.
#[derive(Debug)]
pub enum HeldDecision {
    /// Append this under the lock.
    Append {
        /// The head.
        held: Position,
        /// In order.
        rows: Vec<NewRow>,
    },
    /// Nothing is left to append: let go.
    Release,
}

impl DocumentState {
    /// The fold of a stored log. Every row goes through the gate, which trims what overlaps; a row that yrs cannot fold, or that
    /// does not continue (because an earlier one is in quarantine), is named for quarantine.
    pub fn load(stored: Stored, limits: Arc<Limits>, budget: Arc<Budget>, now: Instant) -> Result<Self, Unsound> {
        let presence = Presence::new(
            Duration::from_millis(limits.awareness_interval_ms),
            Duration::from_secs(limits.awareness_timeout_s),
            limits.awareness_ids_per_connection_max,
        );
        let caps = Caps {
            update_bytes_max: limits.update_bytes_max,
            document_clients_max: limits.document_clients_max,
            ..Caps::default()
        };
        let mut state = Self {
            recent: Recent::new(limits.document_recent_bytes),
            limits,
            caps,
            budget,
            position: Position::START,
            replica: Replica::new(),
            index: Index::new(),
            latest: VecDeque::new(),
            latest_bytes: 0,
            folded_bytes: 0,
            quarantined: Vec::new(),
            members: BTreeMap::new(),
            presence,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            log: LogWork::Nothing,
            in_flight: None,
            lost_races: 0,
            batch_updates_max: BATCH_UPDATES_MAX,
            look_again: false,
            tail: TailSinceSnapshot::default(),
            slow_at: None,
            hold_until: None,
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

    /// Nothing waits for the log.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_none() && self.log == LogWork::Nothing
    }

    /// So many updates wait (in flight ones included), of so many bytes.
    pub fn waiting(&self) -> (usize, usize) {
        let in_flight = self.in_flight.as_ref().map_or(0, |batch| batch.items.len());
        (self.waiting.len() + in_flight, self.waiting_bytes)
    }

    /// Memory in use, guessed: yrs takes about three bytes for each of a state (stack.md), the rest is counted.
    pub fn bytes(&self) -> usize {
        3 * self.folded_bytes + self.latest_bytes + self.waiting_bytes
    }

    /// PostgreSQL is away.
    pub fn is_log_away(&self) -> bool {
        matches!(self.log, LogWork::Away(_) | LogWork::Resolving)
    }

    /// Whether so much of this connection waits that it should not be read further. Not while PostgreSQL is away: then what does
    /// not fit is dropped and asked for again.
    pub fn is_window_full(&self, follower: FollowerId) -> bool {
        !self.is_log_away()
            && self.members.get(&follower).is_some_and(|m| m.waiting_bytes > self.limits.connection_window_bytes)
    }

    /// Rights in use here.
    pub fn rights(&self) -> impl Iterator<Item = (UserId, SessionId)> + '_ {
        self.members.values().map(|member| (member.user, member.session))
    }

    /// Updates since the last snapshot.
    pub fn tail_updates(&self) -> u64 {
        self.tail.updates
    }

    /// When [`on_time`](Self::on_time) is wanted next.
    pub fn deadline(&self) -> Option<Instant> {
        [self.presence.deadline(), self.hold_until, self.slow_at].into_iter().flatten().min()
    }

    /// Lets a connection in. A and C get our step 1 and who is here; B gets them when it asks.
    pub fn join(&mut self, follower: FollowerId, member: Member) -> Vec<Effect> {
        let dialect = member.dialect;
        self.members.insert(follower, member);
        if dialect != Dialect::Hocuspocus {
            self.send(follower, Outgoing::Step1(self.index.state_vector()));
            self.send_everybody(follower);
        }
        self.take_effects()
    }

    /// The connection is gone; its clients vanish at once, its updates are still committed.
    pub fn leave(&mut self, follower: FollowerId, now: Instant) -> Vec<Effect> {
        self.presence.leave(follower, now);
        self.flush_presence(now);
        if let Some(member) = self.members.get_mut(&follower) {
            member.left = true;
            member.receiving = false;
            if member.waiting == 0 {
                self.members.remove(&follower);
            }
        }
        self.take_effects()
    }

    /// One message of a connection. Call [`advance`](Self::advance) after the last that is at hand.
    pub fn hear(&mut self, from: FollowerId, input: Input, now: Instant) -> Vec<Effect> {
        if self.dead || self.members.get(&from).is_none_or(|member| member.left) {
            return Vec::new();
        }
        match input {
            Input::Step1(state_vector) => self.hear_step1(from, &state_vector),
            Input::Step2(update) => self.hear_update(from, update, true, now),
            Input::Update(update) => self.hear_update(from, update, false, now),
            Input::Awareness(update) => self.hear_awareness(from, &update, now),
            Input::QueryAwareness => self.send_everybody(from),
            Input::Mark(payload) => {
                if let Some(member) = self.members.get_mut(&from) {
                    let receipts = member.marked(payload, now);
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
        let refused = match Update::parse(update, &self.caps) {
            Ok(update) if self.is_log_away() => Err((update, WriteRefused::Unavailable { retry_after_s: 5 })),
            Ok(update) if self.has_quarantined(&update) => {
                Err((update, WriteRefused::Malformed("it was quarantined".into())))
            }
            Ok(update) => Ok(update),
            Err(malformed) => {
                let refusal = match malformed {
                    malformed if is_too_large(&malformed) => WriteRefused::TooLarge,
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
                    let sender = Sender::Request { role: by.role, answer, idempotency };
                    self.enqueue(Proposal { sender, session: by.session, user: by.user, update, is_step2: false });
                } else {
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

    /// The append was sent under this name.
    pub fn dispatched(&mut self, append_id: AppendId) {
        if let Some(batch) = &mut self.in_flight {
            batch.append_id = Some(append_id);
        }
    }

    /// What became of the append in flight.
    pub fn appended(&mut self, outcome: AppendOutcome, now: Instant) -> Vec<Effect> {
        match outcome {
            AppendOutcome::Committed(through) => {
                self.log = LogWork::Nothing;
                self.lost_races = 0;
                self.batch_updates_max = BATCH_UPDATES_MAX;
                if let Some(batch) = self.in_flight.take() {
                    self.committed(batch, through, now);
                }
                self.next_append(now);
            }
            AppendOutcome::Behind => {
                self.lost_races += 1;
                self.wait_again();
                self.read_tail();
            }
            AppendOutcome::Unknown => {
                self.log = LogWork::Resolving;
                self.recover(0);
            }
            AppendOutcome::Unavailable => {
                self.wait_again();
                self.log = LogWork::Away(0);
                self.recover(0);
            }
            AppendOutcome::Deleted => self.die(close::NOT_FOUND, "document deleted"),
            AppendOutcome::Refused(_) => self.append_refused(now),
            AppendOutcome::IdempotencyConflict => self.answer_in_flight(Err(WriteRefused::IdempotencyConflict), now),
            AppendOutcome::AlreadyDone(seq) => {
                let position = self.position;
                self.answer_in_flight(Ok(Written { seq, position }), now);
            }
        }
        self.take_effects()
    }

    /// The rows after our position.
    pub fn tail_read(&mut self, tail: Result<Tail, LogError>, now: Instant) -> Vec<Effect> {
        match tail {
            Ok(tail) => {
                self.log = LogWork::Nothing;
                self.look_again = false;
                if self.take_in_tail(tail, now) {
                    self.ask_about_gaps(now);
                    self.next_append(now);
                }
            }
            Err(error) => self.log_failed(&error),
        }
        self.take_effects()
    }

    /// The head is locked for us: its tail, or why not. Whatever is appended is answered with [`appended`](Self::appended).
    pub fn held(&mut self, tail: Result<Tail, LogError>, now: Instant) -> (HeldDecision, Vec<Effect>) {
        let mut decision = HeldDecision::Release;
        match tail {
            Ok(tail) => {
                self.log = LogWork::Nothing;
                if self.take_in_tail(tail, now)
                    && let Some((held, rows)) = self.form_batch(now)
                {
                    self.log = LogWork::Appending;
                    decision = HeldDecision::Append { held, rows };
                }
            }
            // Another node holds it right now: back to the ordinary way.
            Err(LogError::Unavailable(_)) => {
                self.log = LogWork::Nothing;
                self.lost_races = 0;
                self.read_tail();
            }
            Err(error) => self.log_failed(&error),
        }
        (decision, self.take_effects())
    }

    /// After an outage: rights were looked at again, and the tail was read. `None`: PostgreSQL is still away.
    pub fn recovered(&mut self, news: Option<News>, now: Instant) -> Vec<Effect> {
        let attempt = match self.log {
            LogWork::Away(attempt) => attempt + 1,
            _ => 1,
        };
        match news {
            None | Some((_, Err(LogError::Unavailable(_)))) => {
                if self.log != LogWork::Resolving {
                    self.log = LogWork::Away(attempt);
                }
                self.recover(attempt);
            }
            Some((standings, tail)) => {
                self.regrant_all(&standings, now);
                let resolving = self.log == LogWork::Resolving;
                self.log = LogWork::Nothing;
                match tail {
                    Ok(tail) => {
                        let sound = if resolving { self.resolve(tail, now) } else { self.take_in_tail(tail, now) };
                        if sound {
                            self.ask_for_what_was_dropped(now);
                            self.next_append(now);
                        }
                    }
                    Err(error) => {
                        self.wait_again();
                        self.log_failed(&error);
                    }
                }
            }
        }
        self.take_effects()
    }

    /// Loaded anew after the log diverged. Everybody is sent what is there now, and asked for what the database lost.
    pub fn rebuilt(&mut self, stored: Stored, now: Instant) -> Result<Vec<Effect>, Unsound> {
        self.replica = Replica::new();
        self.index = Index::new();
        self.recent = Recent::new(self.limits.document_recent_bytes);
        self.latest.clear();
        self.latest_bytes = 0;
        self.position = Position::START;
        self.log = LogWork::Nothing;
        self.restore(stored, now)?;
        if let Some(state) = self.read_replica(Replica::state) {
            self.effects.push(Effect::Show { update: state, through: self.position, sole_sender: None });
        }
        let state_vector = self.index.state_vector();
        for follower in self.receiving() {
            self.send(follower, Outgoing::Step1(state_vector.clone()));
        }
        self.next_append(now);
        Ok(self.take_effects())
    }

    /// The head in PostgreSQL is not where we stand.
    pub fn head_moved(&mut self, head: Head) -> Vec<Effect> {
        if head.deleted {
            self.die(close::NOT_FOUND, "document deleted");
        } else if head.position != self.position {
            self.look_again = true;
            if self.log == LogWork::Nothing {
                self.read_tail();
            }
        }
        self.take_effects()
    }

    /// News from another node.
    pub fn hear_bus(&mut self, event: BusEvent, now: Instant) -> Vec<Effect> {
        match event {
            BusEvent::Gap => {
                self.look_again = true;
                if self.log == LogWork::Nothing {
                    self.read_tail();
                }
                self.effects.push(Effect::QueryPresence);
                self.effects.push(Effect::PublishPresence(self.presence.local()));
            }
            BusEvent::Message(BusMessage::Committed { from, through, updates, .. }) => {
                if through.seq <= self.position.seq {
                    // Seen already, or a fork, which the head check tells.
                } else if self.log == LogWork::Nothing && from == self.position && !updates.is_empty() {
                    self.take_in(updates.into_iter().map(Some), through, now);
                } else {
                    self.look_again = true;
                    if self.log == LogWork::Nothing {
                        self.read_tail();
                    }
                }
            }
            BusEvent::Message(BusMessage::Presence { node, update, owners, .. }) => {
                if let Ok(entries) = AwarenessUpdate::parse(&update, &self.caps) {
                    self.presence.announce_remote(node, &entries, &owners, now);
                    self.wake_slowly(now);
                    self.flush_presence(now);
                }
            }
            BusEvent::Message(BusMessage::PresenceQuery { .. }) => {
                self.effects.push(Effect::PublishPresence(self.presence.local()));
            }
            BusEvent::Message(BusMessage::AccessChanged { .. }) => {}
        }
        self.take_effects()
    }

    /// Rights changed.
    pub fn regrant(&mut self, standings: &[(Held, Standing)], now: Instant) -> Vec<Effect> {
        self.regrant_all(standings, now);
        self.take_effects()
    }

    /// Time passed.
    pub fn on_time(&mut self, now: Instant) -> Vec<Effect> {
        if self.hold_until.is_some_and(|at| now >= at) {
            self.release_presence(now);
        }
        if self.slow_at.is_some_and(|at| now >= at) {
            self.slow_at = None;
            self.presence.expire(now);
            self.ask_about_gaps(now);
            self.reassure(now);
            self.consider_snapshot(now);
            if self.has_slow_matters() {
                self.wake_slowly(now);
            }
        }
        self.flush_presence(now);
        self.take_effects()
    }

    /// A snapshot of the given position was stored, or could not be: then the next try comes with the next full tail.
    pub fn snapshot_stored(&mut self, at: Option<Position>) {
        let updates = at.map_or(0, |at| self.position.seq.saturating_sub(at.seq));
        self.tail = TailSinceSnapshot { updates, ..TailSinceSnapshot::default() };
    }

    /// The whole state, its vector and where they stand; for snapshots and HTTP reads.
    pub fn read(&mut self) -> Option<(Position, Bytes, Bytes)> {
        let state = self.read_replica(Replica::state)?;
        Some((self.position, state, self.index.state_vector()))
    }

    /// What somebody lacks who was sent everything through `seq`: the recent updates merged, or the whole state.
    pub fn catch_up(&mut self, seq: u64) -> Option<(Bytes, Position)> {
        let covered = self.latest.front().is_some_and(|(first, _)| *first <= seq + 1);
        let update = if covered {
            let missing: Vec<Update> =
                self.latest.iter().filter(|(at, _)| *at > seq).map(|(_, update)| update.clone()).collect();
            merge(&missing)
        } else {
            self.read_replica(Replica::state)?
        };
        Some((update, self.position))
    }

    /// Everybody who is here.
    pub fn everybody(&self) -> Vec<contextnexus_gate::AwarenessEntry> {
        self.presence.all()
    }

    /// A connection takes nothing at the moment: what it has seen does not grow.
    pub fn fell_behind(&mut self, follower: FollowerId, seen_seq: u64) {
        if let Some(member) = self.members.get_mut(&follower) {
            member.seen_seq = seen_seq;
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        let fits = self.waiting_bytes == 0 || self.waiting_bytes + bytes <= self.limits.document_waiting_bytes_max;
        fits && self.budget.take(bytes)
    }

    /// The budget has been taken by `has_room`.
    fn enqueue(&mut self, proposal: Proposal) {
        let bytes = proposal.bytes();
        self.waiting_bytes += bytes;
        if let Sender::Member { follower, .. } = &proposal.sender
            && let Some(member) = self.members.get_mut(follower)
        {
            member.waiting += 1;
            member.waiting_bytes += bytes;
        }
        self.waiting.push_back(proposal);
    }

    fn give_back(&mut self, proposal: &Proposal) {
        let bytes = proposal.bytes();
        self.waiting_bytes -= bytes;
        self.budget.give_back(bytes);
        if let Sender::Member { follower, .. } = &proposal.sender
            && let Some(member) = self.members.get_mut(follower)
        {
            member.waiting -= 1;
            member.waiting_bytes -= bytes;
            if member.left && member.waiting == 0 {
                self.members.remove(follower); // the last thing it had sent is settled
            }
        }
    }

    fn has_quarantined(&self, update: &Update) -> bool {
        self.quarantined.iter().any(|held| {
            held.clients().any(|(client, from, to)| {
                let known = self.index.next_clock(client);
                update.clients().any(|(other, first, end)| other == client && first.max(from).max(known) < end.min(to))
            })
        })
    }

    fn remember(&mut self, seq: u64, update: Update, now: Instant) {
        let bytes = update.bytes().len();
        self.folded_bytes += bytes;
        self.tail.bytes += bytes;
        self.tail.updates += 1;
        self.tail.since.get_or_insert(now);
        self.recent.push(&update);
        self.latest.push_back((seq, update));
        self.latest_bytes += bytes;
        while self.latest_bytes > self.limits.document_recent_bytes && self.latest.len() > 1 {
            if let Some((_, oldest)) = self.latest.pop_front() {
                self.latest_bytes -= oldest.bytes().len();
            }
        }
    }

    fn show(&mut self, updates: &[Update], sole_sender: Option<FollowerId>) {
        let update = match updates {
            [] => return,
            [one] => one.bytes().clone(),
            many => merge(many),
        };
        let seq = self.position.seq;
        for member in self.members.values_mut().filter(|member| member.receiving) {
            member.seen_seq = seq;
        }
        self.effects.push(Effect::Show { update, through: self.position, sole_sender });
    }

    fn consider_snapshot(&mut self, now: Instant) {
        let tail = &mut self.tail;
        let age = Duration::from_secs(self.limits.snapshot_age_s);
        let due = tail.bytes >= self.limits.snapshot_tail_bytes
            || tail.updates >= self.limits.snapshot_tail_updates
            || tail.since.is_some_and(|since| now >= since + age);
        if due && !tail.being_stored && !self.dead {
            tail.being_stored = true;
            self.effects.push(Effect::Snapshot);
        } else if tail.updates > 0 {
            self.wake_slowly(now);
        }
    }

    fn reassure(&mut self, now: Instant) {
        let mut due = Vec::new();
        for (follower, member) in &mut self.members {
            if member.reassure_at().is_some_and(|at| now >= at) {
                member.reassured();
                due.push(*follower);
            }
        }
        for follower in due {
            self.send(follower, Outgoing::KeepAlive);
        }
    }

    fn has_slow_matters(&self) -> bool {
        self.tail.updates > 0
            || self.presence.has_remote()
            || self.members.values().any(|member| member.gap.is_some() || member.reassure_at().is_some())
    }

    fn wake_slowly(&mut self, now: Instant) {
        self.slow_at.get_or_insert(now + SLOW_TICK);
    }

    fn receiving(&self) -> Vec<FollowerId> {
        self.members.iter().filter(|(_, member)| member.receiving).map(|(follower, _)| *follower).collect()
    }

    fn send(&mut self, to: FollowerId, what: Outgoing) {
        self.effects.push(Effect::Send(to, what));
    }

    fn send_everybody(&mut self, to: FollowerId) {
        let everybody = self.presence.all();
        if !everybody.is_empty() {
            self.send(to, Outgoing::Awareness(everybody));
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

    fn close(&mut self, follower: FollowerId, code: u16, reason: &'static str) {
        if let Some(member) = self.members.get_mut(&follower) {
            member.left = true;
            member.receiving = false;
        }
        self.effects.push(Effect::Close { follower, code, reason, whole_socket: false });
    }

    fn die(&mut self, code: u16, reason: &'static str) {
        if std::mem::replace(&mut self.dead, true) {
            return;
        }
        self.log = LogWork::Nothing;
        self.wait_again();
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

    /// Reads the replica; a panic inside yrs ends this instance.
    fn read_replica(&mut self, read: impl FnOnce(&mut Replica) -> Result<Bytes, ReplicaError>) -> Option<Bytes> {
        match read(&mut self.replica) {
            Ok(bytes) => Some(bytes),
            Err(_) => {
                self.die(close::SERVICE_RESTART, "document is rebuilt");
                None
            }
        }
    }

    fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}

impl Drop for DocumentState {
    /// However this instance ends, what waited in it no longer takes room.
    fn drop(&mut self) {
        self.budget.give_back(self.waiting_bytes);
    }
}

/// The only connection that the whole batch came from.
fn sole_sender(items: &[(Proposal, Verdict)]) -> Option<FollowerId> {
    let mut senders =
        items.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Admitted { .. })).map(|(p, _)| &p.sender);
    let first = match senders.next() {
        Some(Sender::Member { follower, .. }) => *follower,
        _ => return None,
    };
    senders.all(|sender| matches!(sender, Sender::Member { follower, .. } if *follower == first)).then_some(first)
}

fn unsound(seq_from: u64, reason: &'static str, update: Bytes) -> Quarantine {
    Quarantine { seq_from, new_tip: Tip(uuid::Uuid::nil()), reason, update, session: None, user: None }
}

fn is_too_large(malformed: &Malformed) -> bool {
    malformed.rule == Rule::TooLarge
}
