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
use crate::ids::{AppendId, NodeId, Position, SessionId, Tip, UserId};
use crate::limits::Limits;
use crate::ports::authority::{Held, Standing};
use crate::ports::bus::{BusEvent, BusMessage};
use crate::ports::documents::{WriteRefused, Writer, Written};
use crate::ports::log::{AppendOutcome, Head, IdempotencyKey, LogError, NewRow, Quarantine, Stored, Tail};
use crate::protocol::Dialect;
use bytes::Bytes;
use contextnexus_gate::{
    Admission, AwarenessUpdate, Caps, Content, Delta, Index, Malformed, Recent, Refused, StateVector, Update, admit, merge,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

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

    /// The right under which this connection is here.
    pub fn right_of(&self, follower: FollowerId) -> Option<(UserId, SessionId)> {
        self.members.get(&follower).map(|member| (member.user, member.session))
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
    pub fn recovered(
        &mut self,
        news: Option<(Vec<(Held, Standing)>, Result<Tail, LogError>)>,
        now: Instant,
    ) -> Vec<Effect> {
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

    /// A snapshot of the given position was stored, or could not be.
    pub fn snapshot_stored(&mut self, at: Option<Position>) {
        self.tail.being_stored = false;
        if let Some(at) = at {
            let updates = self.position.seq.saturating_sub(at.seq);
            self.tail = TailSinceSnapshot { updates, ..TailSinceSnapshot::default() };
        }
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

    // --- hearing -------------------------------------------------------------------------------------------------------

    fn hear_step1(&mut self, from: FollowerId, state_vector: &Bytes) {
        if StateVector::parse(state_vector, &self.caps).is_err() {
            return self.close(from, close::MALFORMED, "malformed state vector");
        }
        let Some(diff) = self.read_replica(|replica| replica.diff(state_vector)) else { return };
        let position = self.position;
        let Some(member) = self.members.get_mut(&from) else { return };
        member.began();
        member.seen_seq = position.seq;
        let first = !std::mem::replace(&mut member.receiving, true);
        let ask = member.dialect == Dialect::Hocuspocus;
        if ask {
            self.send(from, Outgoing::Step1(self.index.state_vector()));
        }
        self.effects.push(Effect::Welcome(from, diff));
        if ask && first {
            self.send_everybody(from);
        }
    }

    fn hear_update(&mut self, from: FollowerId, bytes: Bytes, is_step2: bool, now: Instant) {
        let update = match Update::parse(bytes, &self.caps) {
            Ok(update) => update,
            Err(malformed) if is_too_large(&malformed) => return self.close(from, 1009, "update too large"),
            Err(_) => return self.close(from, close::MALFORMED, "malformed update"),
        };
        if self.has_quarantined(&update) {
            return self.close(from, close::MALFORMED, "this update was quarantined");
        }
        let Some(member) = self.members.get_mut(&from) else { return };
        let ordinal = member.received(is_step2);
        if !member.role.may_write() {
            return self.refuse_read_only(from, ordinal, &update, is_step2, now);
        }
        let (session, user) = (member.session, member.user);
        if !self.has_room(update.bytes().len()) {
            // Dropped unadmitted; a step 1 brings it back when there is room.
            if let Some(member) = self.members.get_mut(&from) {
                member.owe(ordinal);
                member.gap.get_or_insert_with(|| Gap::new(Vec::new())).asked(now);
            }
            return self.wake_slowly(now);
        }
        let sender = Sender::Member { follower: from, ordinal };
        self.enqueue(Proposal { sender, session, user, update, is_step2 });
    }

    fn hear_awareness(&mut self, from: FollowerId, update: &Bytes, now: Instant) {
        let Ok(entries) = AwarenessUpdate::parse(update, &self.caps) else {
            return self.close(from, close::MALFORMED, "malformed awareness");
        };
        let Some(member) = self.members.get_mut(&from) else { return };
        if !entries.is_empty() && !std::mem::replace(&mut member.announced, true) {
            member.own_client = match entries.as_slice() {
                [own] if !own.is_null => Some(own.client),
                _ => None,
            };
        }
        let after = member.next_ordinal();
        if member.is_settled_before(after) && member.held_presence.is_none() {
            self.announce(from, &entries, now);
            return self.flush_presence(now);
        }
        let until = now + Duration::from_millis(self.limits.awareness_wait_ms);
        let held = member.held_presence.get_or_insert(HeldPresence { entries: Vec::new(), after, until });
        held.after = after;
        for entry in entries {
            held.entries.retain(|older| older.client != entry.client);
            held.entries.push(entry);
        }
        held.entries.truncate(self.limits.awareness_ids_per_connection_max.max(1) * 4);
        let until = held.until;
        self.hold_until = Some(self.hold_until.map_or(until, |at| at.min(until)));
    }

    /// A write on a read-only connection is dropped and answered in its dialect; never a reason to close.
    fn refuse_read_only(&mut self, from: FollowerId, ordinal: u64, update: &Update, is_step2: bool, now: Instant) {
        let known = is_step2
            && admit(&self.index, &mut Delta::default(), update, &self.caps, &mut |_| true)
                .is_ok_and(|admission| matches!(admission.content, Content::Nothing) && admission.missing.is_none());
        let Some(member) = self.members.get_mut(&from) else { return };
        if known {
            let receipts = member.settled(ordinal, true);
            return self.send_receipts(from, receipts);
        }
        let solicited = member.is_solicited(ordinal);
        member.refused(ordinal);
        match member.dialect {
            Dialect::Hocuspocus if !solicited => self.send(from, Outgoing::Status(false)),
            Dialect::YWebsocket if !is_step2 => {
                let told = member.told_read_only_at.is_some_and(|at| now < at + Duration::from_secs(1));
                if !told {
                    member.told_read_only_at = Some(now);
                    self.send(from, Outgoing::ReadOnly);
                }
            }
            Dialect::Hocuspocus | Dialect::YWebsocket | Dialect::YSweet => {}
        }
    }

    fn announce(&mut self, from: FollowerId, entries: &[contextnexus_gate::AwarenessEntry], now: Instant) {
        let Some(member) = self.members.get(&from) else { return };
        let announcer = Announcer { follower: from, user: member.user, own: member.own_client };
        let told_gone = self.presence.announce(announcer, entries, now);
        if !told_gone.is_empty() {
            self.send(from, Outgoing::Awareness(told_gone));
        }
    }

    // --- the log -------------------------------------------------------------------------------------------------------

    fn next_append(&mut self, now: Instant) {
        if self.dead || self.log != LogWork::Nothing {
            return;
        }
        if self.look_again {
            return self.read_tail();
        }
        if self.lost_races >= RACES_MAX && !self.waiting.is_empty() {
            self.log = LogWork::Holding;
            return self.effects.push(Effect::Hold(self.position));
        }
        if let Some((held, rows)) = self.form_batch(now) {
            self.log = LogWork::Appending;
            self.effects.push(Effect::Append { held, rows });
        }
    }

    /// Takes all that waits through the gate. What needs no row is settled here and now.
    fn form_batch(&mut self, now: Instant) -> Option<(Position, Vec<NewRow>)> {
        while !self.waiting.is_empty() {
            let mut batch =
                Batch { append_id: None, held: self.position, items: Vec::new(), delta: Delta::default() };
            let mut bytes = 0;
            while batch.items.len() < self.batch_updates_max && bytes < BATCH_BYTES_MAX {
                let alone = |proposal: &Proposal| matches!(&proposal.sender, Sender::Request { idempotency: Some(_), .. });
                if self.waiting.front().is_some_and(alone) && !batch.items.is_empty() {
                    break; // its key decides over its append, so it stands in one of its own
                }
                let Some(proposal) = self.waiting.pop_front() else { break };
                let last = alone(&proposal);
                bytes += proposal.bytes();
                self.admit_into(&mut batch, proposal, now);
                if last && !batch.items.is_empty() {
                    break;
                }
            }
            let rows = batch.rows(|proposal, admitted| self.describe(proposal, admitted));
            if rows.is_empty() {
                self.settle(batch.items, self.position, now);
                continue;
            }
            self.in_flight = Some(batch);
            return Some((self.position, rows));
        }
        None
    }

    fn admit_into(&mut self, batch: &mut Batch, proposal: Proposal, now: Instant) {
        if !self.may_write(&proposal) {
            return self.refuse(proposal, &WriteRefused::ReadOnly, now);
        }
        let is_request = matches!(proposal.sender, Sender::Request { .. });
        let before = is_request.then(|| batch.delta.clone());
        let presence = &self.presence;
        let user = proposal.user;
        let mut may_write = |client| presence.owner(client).is_none_or(|owner| owner == user);
        let admission = admit(&self.index, &mut batch.delta, &proposal.update, &self.caps, &mut may_write);
        let admission = match admission {
            Ok(admission) => admission,
            Err(refused) => {
                let refusal = WriteRefused::Malformed(refused.to_string());
                return self.refuse(proposal, &refusal, now);
            }
        };
        let left_out = admission.missing.is_some() || !admission.withheld.is_empty();
        if left_out && let Some(before) = before {
            batch.delta = before; // over HTTP an update is all or nothing
            let refusal = if admission.withheld.is_empty() {
                WriteRefused::Gap { state_vector: self.index.state_vector() }
            } else {
                WriteRefused::ClientIdInUse
            };
            return self.refuse(proposal, &refusal, now);
        }
        if left_out {
            self.open_gap(&proposal, &admission, now);
        }
        let verdict = match self.verdict(&proposal, admission, left_out) {
            Some(verdict) => verdict,
            None => return self.refuse(proposal, &WriteRefused::Malformed("not readable".into()), now),
        };
        batch.items.push((proposal, verdict));
    }

    fn verdict(&self, proposal: &Proposal, admission: Admission, left_out: bool) -> Option<Verdict> {
        let trimmed = admission.trimmed;
        Some(match admission.content {
            Content::Whole => Verdict::Admitted { admitted: proposal.update.clone(), whole: !left_out, trimmed },
            Content::Part(bytes) => {
                // What the gate wrote it also reads: no update that cannot be read back is stored.
                let admitted = Update::parse(bytes, &Caps { update_bytes_max: usize::MAX, ..self.caps.clone() }).ok()?;
                Verdict::Admitted { admitted, whole: !left_out, trimmed }
            }
            Content::Nothing if left_out => Verdict::Left,
            Content::Nothing => Verdict::Known { trimmed },
        })
    }

    fn open_gap(&mut self, proposal: &Proposal, admission: &Admission, now: Instant) {
        let Sender::Member { follower, .. } = &proposal.sender else { return };
        let Some(member) = self.members.get_mut(follower) else { return };
        let missing: Vec<(u64, u64)> =
            admission.missing.as_ref().map(|missing| missing.clocks.clone()).unwrap_or_default();
        match &mut member.gap {
            Some(gap) => gap.missing = missing, // asked about already, once per gap
            None => {
                member.gap = Some(Gap::new(missing));
                self.look_again = true; // another node may have it
            }
        }
        self.wake_slowly(now);
    }

    fn may_write(&self, proposal: &Proposal) -> bool {
        match &proposal.sender {
            Sender::Request { role, .. } => role.may_write(),
            Sender::Member { follower, .. } => {
                self.members.get(follower).is_some_and(|member| member.role.may_write())
            }
        }
    }

    /// Who wrote it: the sender, where every client id in it is its own, or it is a lone live edit under an id that nobody owns.
    fn describe(&self, proposal: &Proposal, admitted: &Update) -> RowOf {
        let member = match &proposal.sender {
            Sender::Member { follower, .. } => self.members.get(follower),
            Sender::Request { .. } => {
                return RowOf { author: Some(proposal.user), relayed_by: None, seen_seq: self.position.seq };
            }
        };
        let own = member.and_then(|member| member.own_client);
        let clients: Vec<u64> = admitted.clients().map(|section| section.0).collect();
        let is_author = match own {
            Some(own) => clients.iter().all(|client| *client == own),
            None => !proposal.is_step2 && clients.len() <= 1,
        };
        RowOf {
            author: is_author.then_some(proposal.user),
            relayed_by: (!is_author).then_some(proposal.user),
            seen_seq: member.map_or(0, |member| member.seen_seq),
        }
    }

    /// The log holds the batch: fold it in, thank the senders, show it to everyone, tell the other nodes.
    fn committed(&mut self, batch: Batch, through: Position, now: Instant) {
        let from = self.position;
        let updates: Vec<Update> = batch.admitted().cloned().collect();
        debug_assert_eq!(from.seq + updates.len() as u64, through.seq);
        for (index, update) in updates.iter().enumerate() {
            if let Err(error) = self.replica.fold(update.bytes()) {
                return self.fold_failed(&batch, index, &error);
            }
        }
        self.index.apply(batch.delta);
        for update in &updates {
            self.remember(update.clone(), now);
        }
        self.position = through;
        let sole_sender = sole_sender(&batch.items);
        self.settle(batch.items, through, now);
        self.show(&updates, sole_sender);
        let updates = updates.iter().map(|update| update.bytes().clone()).collect();
        self.effects.push(Effect::Publish { from, through, updates });
        self.release_presence(now);
        self.consider_snapshot(now);
    }

    /// Tells each sender what became of its update, and takes it off the books.
    fn settle(&mut self, items: Vec<(Proposal, Verdict)>, through: Position, now: Instant) {
        for (proposal, verdict) in items {
            let fork = match &verdict {
                Verdict::Admitted { trimmed, .. } | Verdict::Known { trimmed } if !trimmed.is_empty() => {
                    self.recent.conflicts(&proposal.update, trimmed).is_some()
                }
                _ => false,
            };
            if fork {
                self.quarantine_fork(&proposal);
                self.refuse(proposal, &WriteRefused::Fork, now);
                continue;
            }
            self.give_back(&proposal);
            let (follower, ordinal) = match proposal.sender {
                Sender::Request { answer, .. } => {
                    let written = Written { seq: through.seq, position: through };
                    self.effects.push(Effect::Answer(answer, Ok(written)));
                    continue;
                }
                Sender::Member { follower, ordinal } => (follower, ordinal),
            };
            let Some(member) = self.members.get_mut(&follower) else { continue };
            let (whole, echo) = match &verdict {
                Verdict::Admitted { whole, trimmed, .. } => (*whole, *whole && !trimmed.is_empty()),
                Verdict::Known { .. } => (true, proposal.update.has_structs() || !proposal.is_step2),
                Verdict::Left => (false, false),
            };
            let echo = echo && member.dialect == Dialect::YWebsocket && !proposal.update.is_empty();
            if whole {
                let receipts = member.settled(ordinal, proposal.is_step2);
                if member.left && member.waiting == 0 {
                    self.members.remove(&follower);
                    continue;
                }
                self.send_receipts(follower, receipts);
                if echo {
                    self.send(follower, Outgoing::Update(proposal.update.bytes().clone()));
                }
            } else {
                member.owe(ordinal);
            }
        }
    }

    /// Rows that others wrote, up to the head. False when this instance ended over it.
    fn take_in_tail(&mut self, tail: Tail, now: Instant) -> bool {
        if tail.head.deleted {
            self.die(close::NOT_FOUND, "document deleted");
            return false;
        }
        for row in tail.rows {
            let count = row.seq_to - row.seq_from + 1;
            let updates: Vec<Option<Bytes>> = if row.updates.is_empty() {
                (0..count).map(|_| None).collect() // quarantined: the numbers stay
            } else {
                row.updates.into_iter().map(Some).collect()
            };
            if !self.take_in(updates.into_iter(), Position { seq: row.seq_to, tip: row.tip }, now) {
                return false;
            }
        }
        true
    }

    /// Folds updates that other nodes admitted against exactly our prefix, and shows them.
    fn take_in(&mut self, updates: impl Iterator<Item = Option<Bytes>>, through: Position, now: Instant) -> bool {
        let from = self.position;
        let mut shown = Vec::new();
        for update in updates.flatten() {
            let folded = self.fold_stored(update.clone());
            match folded {
                Ok(Some(update)) => {
                    shown.push(update.clone());
                    self.remember(update, now);
                }
                Ok(None) => {}
                Err(reason) => {
                    self.effects.push(Effect::Quarantine(unsound(from.seq + 1, reason, update)));
                    self.die(close::SERVICE_RESTART, "document is rebuilt");
                    return false;
                }
            }
        }
        self.position = through;
        if !shown.is_empty() {
            self.show(&shown, None);
            self.consider_snapshot(now);
        }
        true
    }

    /// Folds one stored update through the gate, which trims what overlaps. `None`: nothing of it was new.
    fn fold_stored(&mut self, bytes: Bytes) -> Result<Option<Update>, &'static str> {
        let caps = Caps { update_bytes_max: usize::MAX, ..self.caps.clone() };
        let update = Update::parse(bytes, &caps).map_err(|_| "does_not_continue")?;
        let admission = self.index.trust(&update).map_err(|_| "does_not_continue")?;
        if admission.missing.is_some() {
            return Err("does_not_continue");
        }
        let update = match admission.content {
            Content::Nothing => return Ok(None),
            Content::Whole => update,
            Content::Part(bytes) => Update::parse(bytes, &caps).map_err(|_| "does_not_continue")?,
        };
        self.replica.fold(update.bytes()).map_err(|_| "fold_panicked")?;
        Ok(Some(update))
    }

    fn restore(&mut self, stored: Stored, now: Instant) -> Result<(), Unsound> {
        let caps = Caps { update_bytes_max: usize::MAX, ..self.caps.clone() };
        self.quarantined =
            stored.quarantined.into_iter().filter_map(|bytes| Update::parse(bytes, &caps).ok()).collect();
        if let Some(snapshot) = stored.snapshot {
            let at = snapshot.position.seq;
            let state = Update::parse(snapshot.state.clone(), &caps)
                .map_err(|_| Unsound::Snapshot { seq: at })?;
            self.replica
                .fold(&snapshot.state)
                .map_err(|_| Unsound::Snapshot { seq: at })?;
            self.index = Index::from_state(&state);
            self.position = snapshot.position;
        }
        self.tail = TailSinceSnapshot::default();
        for row in stored.tail.rows {
            for bytes in row.updates {
                match self.fold_stored(bytes.clone()) {
                    Ok(Some(update)) => self.remember(update, now),
                    Ok(None) => {}
                    Err(reason) => return Err(Unsound::Row(unsound(row.seq_from, reason, bytes))),
                }
            }
            self.position = Position { seq: row.seq_to, tip: row.tip };
        }
        self.position = stored.tail.head.position;
        Ok(())
    }

    /// The outcome of the append was unknown; now the tail tells it.
    fn resolve(&mut self, tail: Tail, now: Instant) -> bool {
        let Some(batch) = self.in_flight.take() else { return self.take_in_tail(tail, now) };
        let ours = batch.append_id;
        let mut rows = tail.rows;
        let own: usize = rows.iter().take_while(|row| Some(row.append_id) == ours).count();
        if own == 0 || batch.held != self.position {
            self.in_flight = Some(batch);
            self.wait_again();
            return self.take_in_tail(Tail { rows, head: tail.head }, now);
        }
        let rest = rows.split_off(own);
        let Some(last) = rows.last() else { return false };
        let through = Position { seq: last.seq_to, tip: last.tip };
        self.committed(batch, through, now);
        !self.dead && self.take_in_tail(Tail { rows: rest, head: tail.head }, now)
    }

    fn read_tail(&mut self) {
        if !self.dead {
            self.log = LogWork::ReadingTail;
            self.effects.push(Effect::ReadTail(self.position));
        }
    }

    fn log_failed(&mut self, error: &LogError) {
        match error {
            LogError::Unavailable(_) => {
                self.log = LogWork::Away(0);
                self.recover(0);
            }
            LogError::Diverged => {
                self.wait_again();
                self.log = LogWork::Rebuilding;
                self.effects.push(Effect::Rebuild);
            }
            LogError::NoSuchDocument => self.die(close::NOT_FOUND, "document deleted"),
            LogError::Corrupt { .. } => self.die(close::TRY_AGAIN_LATER, "document cannot be read"),
        }
    }

    /// 100 ms, doubling, at most 2 s: after an outage everybody waits for the first answer.
    fn recover(&mut self, attempt: u32) {
        let after = Duration::from_millis(100 << attempt.min(5)).min(Duration::from_secs(2));
        self.effects.push(Effect::Recover { after });
    }

    /// The batch in flight was not written: its updates wait again, in order, to be admitted anew.
    fn wait_again(&mut self) {
        if let Some(batch) = self.in_flight.take() {
            for (proposal, _) in batch.items.into_iter().rev() {
                self.waiting.push_front(proposal);
            }
        }
    }

    fn append_refused(&mut self, now: Instant) {
        self.log = LogWork::Nothing;
        let alone = self.in_flight.as_ref().is_some_and(|batch| batch.items.len() == 1);
        if alone {
            if let Some(batch) = self.in_flight.take() {
                for (proposal, _) in batch.items {
                    self.refuse(proposal, &WriteRefused::Malformed("it cannot be stored".into()), now);
                }
            }
        } else {
            self.wait_again();
            self.batch_updates_max = 1;
        }
        self.next_append(now);
    }

    fn answer_in_flight(&mut self, answer: Result<Written, WriteRefused>, now: Instant) {
        self.log = LogWork::Nothing;
        if let Some(batch) = self.in_flight.take() {
            for (proposal, _) in batch.items {
                self.give_back(&proposal);
                if let Sender::Request { answer: to, .. } = proposal.sender {
                    self.effects.push(Effect::Answer(to, answer.clone()));
                }
            }
        }
        self.next_append(now);
    }

    fn fold_failed(&mut self, batch: &Batch, failed: usize, error: &ReplicaError) {
        let _ = error;
        let mut first = batch.held.seq + 1;
        let rows = batch.rows(|proposal, admitted| self.describe(proposal, admitted));
        let mut left = failed;
        for row in &rows {
            if left < row.updates.len() {
                break;
            }
            left -= row.updates.len();
            first += row.updates.len() as u64;
        }
        let culprit = batch
            .items
            .iter()
            .filter(|(_, verdict)| matches!(verdict, Verdict::Admitted { .. }))
            .nth(failed)
            .map(|(proposal, _)| proposal);
        let mut quarantine = unsound(first, "fold_panicked", Bytes::new());
        if let Some(proposal) = culprit {
            quarantine.session = Some(proposal.session);
            quarantine.user = Some(proposal.user);
            quarantine.update = proposal.update.bytes().clone();
            if let Sender::Member { follower, .. } = &proposal.sender {
                self.close(*follower, close::MALFORMED, "this update cannot be read");
            }
        }
        self.effects.push(Effect::Quarantine(quarantine));
        self.die(close::SERVICE_RESTART, "document is rebuilt");
    }

    fn quarantine_fork(&mut self, proposal: &Proposal) {
        self.effects.push(Effect::QuarantineRefused(Quarantine {
            seq_from: 0,
            new_tip: Tip(uuid::Uuid::nil()),
            reason: "fork",
            update: proposal.update.bytes().clone(),
            session: Some(proposal.session),
            user: Some(proposal.user),
        }));
    }

    fn refuse(&mut self, proposal: Proposal, why: &WriteRefused, now: Instant) {
        self.give_back(&proposal);
        match proposal.sender {
            Sender::Request { answer, .. } => self.effects.push(Effect::Answer(answer, Err(why.clone()))),
            Sender::Member { follower, ordinal } => match why {
                WriteRefused::ReadOnly => {
                    self.refuse_read_only(follower, ordinal, &proposal.update, proposal.is_step2, now);
                }
                WriteRefused::Fork => self.close(follower, close::FORK, "history contradicts the document's"),
                _ => self.close(follower, close::MALFORMED, "malformed update"),
            },
        }
    }

    // --- gaps ----------------------------------------------------------------------------------------------------------

    /// The log's head was looked at: whoever still has a gap is asked, again as soon as what was missing is there, otherwise
    /// after 2, 4 … 30 s.
    fn ask_about_gaps(&mut self, now: Instant) {
        let index = &self.index;
        let mut ask = Vec::new();
        for (follower, member) in &mut self.members {
            if member.left {
                continue;
            }
            let Some(gap) = &mut member.gap else { continue };
            let filled = !gap.missing.is_empty()
                && gap.missing.iter().all(|(client, clock)| index.next_clock(*client) >= *clock);
            let due = gap.ask_at.is_none_or(|at| now >= at);
            if due || filled {
                if filled {
                    gap.missing.clear(); // once
                }
                gap.asked(now);
                ask.push(*follower);
            }
        }
        let state_vector = if ask.is_empty() { Bytes::new() } else { self.index.state_vector() };
        for follower in ask {
            self.send(follower, Outgoing::Step1(state_vector.clone()));
        }
    }

    /// PostgreSQL is back: one step 1 to each connection that had something dropped.
    fn ask_for_what_was_dropped(&mut self, now: Instant) {
        let state_vector = self.index.state_vector();
        let mut ask = Vec::new();
        for (follower, member) in &mut self.members {
            if member.is_owed() && !member.left {
                member.gap.get_or_insert_with(|| Gap::new(Vec::new())).asked(now);
                ask.push(*follower);
            }
        }
        for follower in ask {
            self.send(follower, Outgoing::Step1(state_vector.clone()));
        }
    }

    // --- presence ------------------------------------------------------------------------------------------------------

    fn release_presence(&mut self, now: Instant) {
        let mut ripe = Vec::new();
        let mut next: Option<Instant> = None;
        if self.hold_until.is_none() {
            return self.flush_presence(now);
        }
        for (follower, member) in &mut self.members {
            let Some(held) = &member.held_presence else { continue };
            let (after, until) = (held.after, held.until);
            if now >= until || member.is_settled_before(after) {
                if let Some(held) = member.held_presence.take() {
                    ripe.push((*follower, held.entries));
                }
            } else {
                next = Some(next.map_or(until, |at| at.min(until)));
            }
        }
        self.hold_until = next;
        for (follower, entries) in ripe {
            self.announce(follower, &entries, now);
        }
        self.flush_presence(now);
    }

    fn flush_presence(&mut self, now: Instant) {
        if let Some(flush) = self.presence.flush(now) {
            self.effects.push(Effect::ShowPresence { entries: flush.entries, except: flush.only_from });
            if !flush.local.is_empty() {
                self.effects.push(Effect::PublishPresence(flush.local));
            }
        }
    }

    // --- rights --------------------------------------------------------------------------------------------------------

    fn regrant_all(&mut self, standings: &[(Held, Standing)], now: Instant) {
        for (held, standing) in standings {
            let affected: Vec<FollowerId> = self
                .members
                .iter()
                .filter(|(_, member)| member.session == held.session && member.user == held.user)
                .map(|(follower, _)| *follower)
                .collect();
            for follower in affected {
                match standing {
                    Standing::Granted(grant) => {
                        if let Some(member) = self.members.get_mut(&follower) {
                            member.role = grant.role;
                        }
                    }
                    Standing::SessionEnded => {
                        self.expel(follower, close::UNAUTHORIZED, "session ended", true, now);
                    }
                    Standing::Forbidden => self.expel(follower, close::FORBIDDEN, "not a member", false, now),
                    Standing::Deleted => self.expel(follower, close::NOT_FOUND, "document deleted", false, now),
                }
            }
        }
    }

    fn expel(&mut self, follower: FollowerId, code: u16, reason: &'static str, whole_socket: bool, now: Instant) {
        if let Some(member) = self.members.get_mut(&follower) {
            member.role = Role::Viewer;
            member.left = true;
            member.receiving = false;
            if member.waiting == 0 {
                self.members.remove(&follower);
            }
        }
        self.presence.leave(follower, now);
        self.effects.push(Effect::Close { follower, code, reason, whole_socket });
        self.flush_presence(now);
    }

    // --- small helpers -------------------------------------------------------------------------------------------------

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
        }
    }

    fn has_quarantined(&self, update: &Update) -> bool {
        self.quarantined.iter().any(|held| {
            held.clients().any(|(client, from, to)| {
                let known = self.index.next_clock(client);
                update.clients().any(|(other, first, end)| {
                    other == client && first.max(from).max(known) < end.min(to)
                })
            })
        })
    }

    fn remember(&mut self, update: Update, now: Instant) {
        let bytes = update.bytes().len();
        self.tail.bytes += bytes;
        self.tail.updates += 1;
        self.tail.since.get_or_insert(now);
        self.recent.push(&update);
        let seq = self.latest.back().map_or(self.position.seq, |(seq, _)| *seq) + 1;
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

/// The only connection that the whole batch came from.
fn sole_sender(items: &[(Proposal, Verdict)]) -> Option<FollowerId> {
    let mut senders = items.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Admitted { .. })).map(|(p, _)| &p.sender);
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
    malformed.is_too_large()
}
