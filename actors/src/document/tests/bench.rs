//! A workbench: one document state, editors before it, a log behind it, and a hand on the clock.

use crate::access::Role;
use crate::budget::Budgets;
use crate::document::FollowerId;
use crate::document::follower::Follower;
use crate::document::messages::{Effect, Input, Outgoing};
use crate::document::replica::Replica;
use crate::document::state::{DocumentState, HeadDecision, Unsound};
use crate::ids::{AppendId, DocumentId, DocumentKey, Position, SessionId, TenantId, UserId, UserSessionId};
use crate::limits::Limits;
use crate::ports::log::{AppendOutcome, AppendRequest, LockedHead as _, NewRow, QuarantineReason};
use crate::ports::memory_log::MemoryLog;
use crate::ports::witness::{Nobody, Witness};
use crate::protocol::Dialect;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use uuid::Uuid;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{ClientID, Doc, GetString, OffsetKind, Options, ReadTxn, StateVector, Text, Transact, Update};

/// Each node names its appends otherwise.
static NODES: AtomicU64 = AtomicU64::new(0);

/// A Yjs editor with one text.
pub struct Editor {
    pub doc: Doc,
    pub follower: FollowerId,
}

impl Editor {
    /// On its own: what it types is for whoever asks.
    pub fn new(client: u64) -> Self {
        let mut options = Options::with_client_id(ClientID::new(client));
        options.offset_kind = OffsetKind::Utf16;
        let follower = FollowerId { session: SessionId(Uuid::nil()), attachment: 0 };
        Self { doc: Doc::with_options(options), follower }
    }

    pub fn type_at(&self, index: u32, text: &str) -> Bytes {
        let root = self.doc.get_or_insert_text("text");
        let mut transaction = self.doc.try_transact_mut().unwrap();
        root.insert(&mut transaction, index, text);
        Bytes::from(transaction.encode_update_v1())
    }

    pub fn delete(&self, index: u32, length: u32) -> Bytes {
        let root = self.doc.get_or_insert_text("text");
        let mut transaction = self.doc.try_transact_mut().unwrap();
        root.remove_range(&mut transaction, index, length);
        Bytes::from(transaction.encode_update_v1())
    }

    pub fn apply(&self, update: &[u8]) {
        let update = Update::decode_v1(update).unwrap();
        self.doc.try_transact_mut().unwrap().apply_update(update).unwrap();
    }

    pub fn text(&self) -> String {
        let root = self.doc.get_or_insert_text("text");
        let transaction = self.doc.try_transact().unwrap();
        root.get_string(&transaction)
    }

    pub fn state_vector(&self) -> Bytes {
        Bytes::from(self.doc.try_transact().unwrap().state_vector().encode_v1())
    }

    pub fn step2(&self, state_vector: &[u8]) -> Bytes {
        let state_vector = StateVector::decode_v1(state_vector).unwrap();
        Bytes::from(self.doc.try_transact().unwrap().encode_diff_v1(&state_vector))
    }

    pub fn announcement(&self, clock: u64, state: &str) -> Bytes {
        let entry = contextnexus_gate::AwarenessEntry {
            client: self.doc.client_id().get(),
            clock,
            state: Bytes::copy_from_slice(state.as_bytes()),
            is_null: state == "null",
        };
        contextnexus_gate::encode_awareness(&[entry])
    }
}

/// Everything an editor was sent, in order.
#[derive(Debug, Default, Clone)]
pub struct Inbox(pub Vec<Sent>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    Step1(Bytes),
    Step2(Bytes),
    Update(Bytes),
    Awareness(usize),
    Status(bool),
    Mark(Bytes),
    ReadOnly,
    Scope(bool),
    TokenRequest,
    KeepAlive,
    Closed(u16),
}

pub struct Bench {
    pub state: DocumentState,
    pub log: MemoryLog,
    pub key: DocumentKey,
    pub now: Instant,
    pub inboxes: BTreeMap<FollowerId, Inbox>,
    pub dialects: BTreeMap<FollowerId, Dialect>,
    /// Effects that reach for the log wait here until the test lets them go.
    pub parked: Vec<Effect>,
    pub published: Vec<(Position, Position)>,
    pub died: Option<u16>,
    pub quarantined: Vec<QuarantineReason>,
    pub snapshots: usize,
    /// Snapshots that were too dear, and whether that was news.
    pub too_dear: Vec<bool>,
    integration_ms_max: u64,
    /// Whose state is to have gone before they are answered.
    pub awaited: Vec<FollowerId>,
    next: u128,
}

impl Bench {
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub fn with_limits(limits: Limits) -> Self {
        let log = MemoryLog::new();
        let key = DocumentKey { tenant: TenantId(Uuid::from_u128(1)), document: DocumentId(Uuid::from_u128(2)) };
        log.create(key);
        Self::over(log, key, limits)
    }

    /// One more node over the same log.
    pub fn over(log: MemoryLog, key: DocumentKey, limits: Limits) -> Self {
        Self::watched(log, key, limits, Arc::new(Nobody))
    }

    /// The same; `witness` hears of every fold.
    pub fn watched(log: MemoryLog, key: DocumentKey, limits: Limits, witness: Arc<dyn Witness>) -> Self {
        let budgets = Budgets::of(&limits);
        let integration_ms_max = limits.integration_ms_max;
        let now = Instant::now();
        let (replica, stored) = (Replica::witnessed(key, witness), log.load_now(key).unwrap());
        let state = DocumentState::load_into(replica, stored, Arc::new(limits), budgets, now).unwrap();
        Self {
            state,
            log,
            key,
            now,
            inboxes: BTreeMap::new(),
            dialects: BTreeMap::new(),
            parked: Vec::new(),
            published: Vec::new(),
            died: None,
            quarantined: Vec::new(),
            snapshots: 0,
            too_dear: Vec::new(),
            integration_ms_max,
            awaited: Vec::new(),
            next: 1_000 * u128::from(NODES.fetch_add(1, Ordering::Relaxed) + 1),
        }
    }

    /// An editor of its own user, joined and synchronised.
    pub fn editor(&mut self, client: u64, dialect: Dialect, role: Role) -> Editor {
        let mut editor = self.stranger(client, dialect, role, u128::from(client));
        self.synchronise(&mut editor);
        editor
    }

    /// Joined as that user, but it has not said a word.
    pub fn stranger(&mut self, client: u64, dialect: Dialect, role: Role, user: u128) -> Editor {
        self.passing(client, dialect, role, user, None)
    }

    /// The same, under a right that ends by itself after so long.
    pub fn passing(
        &mut self,
        client: u64,
        dialect: Dialect,
        role: Role,
        user: u128,
        lasts: Option<Duration>,
    ) -> Editor {
        self.next += 1;
        let id = FollowerId { session: SessionId(Uuid::from_u128(self.next)), attachment: 0 };
        let doc = Editor::new(client).doc;
        self.inboxes.insert(id, Inbox::default());
        self.dialects.insert(id, dialect);
        let mut follower =
            Follower::new(dialect, UserId(Uuid::from_u128(user)), UserSessionId(Uuid::from_u128(user)), role);
        follower.lasts(lasts.map(|lasts| self.now + lasts), self.now);
        let effects = self.state.join(id, follower, self.now);
        self.perform(effects);
        Editor { doc, follower: id }
    }

    /// The same connection opens the document once more.
    pub fn comes_again(&mut self, before: &Editor, dialect: Dialect, role: Role) -> Editor {
        let follower = FollowerId { attachment: before.follower.attachment + 1, ..before.follower };
        self.inboxes.insert(follower, Inbox::default());
        self.dialects.insert(follower, dialect);
        let (user, session) = (UserId(Uuid::from_u128(2)), UserSessionId(Uuid::from_u128(2)));
        let effects = self.state.join(follower, Follower::new(dialect, user, session, role), self.now);
        self.perform(effects);
        Editor { doc: before.doc.clone(), follower }
    }

    /// The handshake: step 1, the answer applied, and the answer to the server's step 1.
    pub fn synchronise(&mut self, editor: &mut Editor) {
        self.say(editor, Input::Step1(editor.state_vector()));
        self.read_all(editor);
        let step1 = self.inboxes[&editor.follower].0.iter().rev().find_map(|sent| match sent {
            Sent::Step1(state_vector) => Some(state_vector.clone()),
            _ => None,
        });
        let step2 = editor.step2(&step1.unwrap());
        self.say(editor, Input::Step2(step2));
        self.inboxes.get_mut(&editor.follower).unwrap().0.clear();
    }

    /// Applies everything the editor was sent.
    pub fn read_all(&self, editor: &Editor) {
        for sent in &self.inboxes[&editor.follower].0 {
            if let Sent::Step2(update) | Sent::Update(update) = sent {
                editor.apply(update);
            }
        }
    }

    /// Delivers inputs as one turn, and everything the log then does.
    pub fn say(&mut self, editor: &Editor, input: Input) {
        self.whisper(editor, input);
        self.log_answers();
    }

    /// Delivers an input; what it wants of the log stays parked.
    pub fn whisper(&mut self, editor: &Editor, input: Input) {
        let mut effects = self.state.hear(editor.follower, input, self.now);
        effects.extend(self.state.advance(self.now));
        self.perform(effects);
    }

    /// Lets the log answer until it has nothing left to do.
    pub fn log_answers(&mut self) {
        while !self.parked.is_empty() {
            let effect = self.parked.remove(0);
            self.log_does(effect);
        }
    }

    /// Lets the log do the first of what is parked.
    pub fn log_one(&mut self) {
        let effect = self.parked.remove(0);
        self.log_does(effect);
    }

    /// Answers the parked append with this outcome instead of trying it.
    pub fn append_fails(&mut self, outcome: AppendOutcome) {
        let at = self.parked.iter().position(|effect| matches!(effect, Effect::Append { .. })).unwrap();
        self.parked.remove(at);
        let effects = self.state.appended(outcome, self.now);
        self.perform(effects);
    }

    /// The parked append is written, but its answer never arrives.
    pub fn append_answer_is_lost(&mut self) {
        let at = self.parked.iter().position(|effect| matches!(effect, Effect::Append { .. })).unwrap();
        let Effect::Append { base, rows } = self.parked.remove(at) else { unreachable!() };
        let request = self.request(base, rows);
        assert!(matches!(self.log.append_now(&request, self.now), AppendOutcome::Committed(_)));
        let effects = self.state.appended(AppendOutcome::Unknown, self.now);
        self.perform(effects);
    }

    pub fn time_passes(&mut self, by: Duration) {
        let end = self.now + by;
        let due = |state: &DocumentState| [state.deadline(), state.rights_deadline()].into_iter().flatten().min();
        while let Some(at) = due(&self.state).filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let effects = self.state.on_time(self.now);
            self.perform(effects);
            self.log_answers();
        }
        self.now = end;
    }

    pub fn inbox(&self, editor: &Editor) -> &[Sent] {
        &self.inboxes[&editor.follower].0
    }

    pub fn forget_inboxes(&mut self) {
        for inbox in self.inboxes.values_mut() {
            inbox.0.clear();
        }
    }

    pub fn count(&self, editor: &Editor, wanted: &Sent) -> usize {
        self.inbox(editor).iter().filter(|sent| *sent == wanted).count()
    }

    /// What a new editor would see.
    pub fn text(&mut self) -> String {
        let reader = Doc::new();
        let (_, state) = self.state.read(self.now).unwrap();
        reader.try_transact_mut().unwrap().apply_update(Update::decode_v1(&state).unwrap()).unwrap();
        let root = reader.get_or_insert_text("text");
        let transaction = reader.try_transact().unwrap();
        root.get_string(&transaction)
    }

    fn request(&mut self, base: Position, rows: Vec<NewRow>) -> AppendRequest {
        self.next += 1;
        let append_id = AppendId(Uuid::from_u128(self.next));
        self.state.dispatched(append_id);
        AppendRequest { key: self.key, base, append_id, rows }
    }

    pub fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append { .. }
                | Effect::LockHead(_)
                | Effect::ReadTail(_)
                | Effect::Recover { .. }
                | Effect::Rebuild => self.parked.push(effect),
                Effect::Send(to, what) => {
                    let sent = match what {
                        Outgoing::Step1(state_vector) => Sent::Step1(state_vector),
                        Outgoing::Update(update) => Sent::Update(update),
                        Outgoing::LargeUpdate(update) => {
                            update.iter().for_each(|piece| self.put(to, Sent::Update(piece.clone())));
                            continue;
                        }
                        Outgoing::Awareness(entries) => Sent::Awareness(entries.len()),
                        Outgoing::Status(stored) => Sent::Status(stored),
                        Outgoing::Mark(payload) => Sent::Mark(payload),
                        Outgoing::ReadOnly => Sent::ReadOnly,
                        Outgoing::Scope(may_write) => Sent::Scope(may_write),
                        Outgoing::TokenRequest => Sent::TokenRequest,
                        Outgoing::KeepAlive => Sent::KeepAlive,
                    };
                    self.put(to, sent);
                }
                Effect::Welcome(to, update) => {
                    update.before.into_iter().for_each(|piece| self.put(to, Sent::Update(piece)));
                    self.put(to, Sent::Step2(update.last));
                }
                Effect::TellWhenSent(to) => self.awaited.push(to),
                Effect::Show { update, sole_sender, .. } => {
                    let welcomed: Vec<FollowerId> = self.inboxes.keys().copied().collect();
                    for to in welcomed {
                        let skipped = Some(to) == sole_sender && self.dialects[&to] != Dialect::YWebsocket;
                        if !skipped {
                            update.iter().for_each(|piece| self.put(to, Sent::Update(piece.clone())));
                        }
                    }
                }
                Effect::ShowAnew { state, .. } => {
                    for inbox in self.inboxes.values_mut() {
                        inbox.0.extend(state.iter().cloned().map(Sent::Update));
                    }
                }
                Effect::ShowPresence { entries, except } => {
                    let all: Vec<FollowerId> = self.inboxes.keys().copied().collect();
                    for to in all.into_iter().filter(|to| Some(*to) != except) {
                        self.put(to, Sent::Awareness(entries.len()));
                    }
                }
                Effect::Publish { from, through, .. } => self.published.push((from, through)),
                Effect::PublishPresence(_) | Effect::QueryPresence => {}
                Effect::Answer(to, answer) => to.send(answer).unwrap(),
                Effect::Close { follower, code, .. } => self.put(follower, Sent::Closed(code)),
                Effect::Snapshot { store: is_stored } => {
                    self.snapshots += 1;
                    let (taken, effects) = self.state.snapshot();
                    self.perform(effects);
                    if taken.as_ref().is_some_and(|snapshot| snapshot.weigh(self.integration_ms_max).is_err()) {
                        self.too_dear.push(self.state.snapshot_too_dear());
                        continue;
                    }
                    let taken = taken.map(|snapshot| snapshot.verify().unwrap());
                    if let Some(snapshot) = taken.clone().filter(|_| is_stored) {
                        self.log.save_snapshot_now(self.key, snapshot).unwrap();
                    }
                    self.state.snapshot_taken(taken, true, self.now);
                }
                Effect::Mend(Unsound::Snapshot { seq }) => self.log.discard_snapshots_now(self.key, seq),
                Effect::Mend(Unsound::Log(what)) => {
                    for what in what {
                        self.quarantined.push(what.reason);
                        self.log.quarantine_now(self.key, &what).unwrap();
                    }
                }
                Effect::QuarantineRefused(what) => self.quarantined.push(what.reason),
                Effect::Die { code, .. } => self.died = Some(code),
            }
        }
    }

    fn log_does(&mut self, effect: Effect) {
        let effects = match effect {
            Effect::Append { base, rows } => {
                let request = self.request(base, rows);
                let outcome = self.log.append_now(&request, self.now);
                self.state.appended(outcome, self.now)
            }
            Effect::ReadTail(base) => {
                let tail = self.log.tail_now(self.key, base);
                self.state.tail_read(tail, self.now)
            }
            Effect::LockHead(base) => {
                let mut head = self.log.lock_head_now(self.key, base, self.now).unwrap();
                let (decision, mut effects) = self.state.head_locked(Ok(head.take_tail()), self.now);
                if let HeadDecision::Append { base, rows } = decision {
                    let request = self.request(base, rows);
                    let outcome = head.append_now(&request, self.now);
                    effects.extend(self.state.appended(outcome, self.now));
                }
                effects
            }
            Effect::Recover { .. } => {
                let tail = self.log.tail_now(self.key, self.state.position());
                self.state.recovered(Some((Vec::new(), tail)), self.now)
            }
            Effect::Rebuild => {
                let stored = self.log.load_now(self.key).unwrap();
                self.state.rebuilt(stored, self.now).unwrap()
            }
            other => unreachable!("{other:?}"),
        };
        self.perform(effects);
    }

    fn put(&mut self, to: FollowerId, sent: Sent) {
        if let Some(inbox) = self.inboxes.get_mut(&to) {
            inbox.0.push(sent);
        }
    }
}
