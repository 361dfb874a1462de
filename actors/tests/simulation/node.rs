//! One node: the states of production, and a driver that performs what they decide, in place of the actors.

use crate::faults::Fault;
use crate::schedule::{Luck, Post};
use crate::store::Store;
use bytes::Bytes;
use contextnexus_actors::access::Role;
use contextnexus_actors::budget::Budget;
use contextnexus_actors::document::line::Line;
use contextnexus_actors::document::lines::Lines;
use contextnexus_actors::document::member::Member;
use contextnexus_actors::document::messages::{Detached, Effect, Input, Outgoing};
use contextnexus_actors::document::replica::verify_state;
use contextnexus_actors::document::state::{DocumentState, HeldDecision, News, Unsound};
use contextnexus_actors::document::FollowerId;
use contextnexus_actors::ids::{AppendId, ConnectionId, NodeId, Position, SessionId, UserId};
use contextnexus_actors::limits::Limits;
use contextnexus_actors::outbox::Outbox;
use contextnexus_actors::ports::bus::{Bus, BusEvent, BusMessage, Subscription};
use contextnexus_actors::ports::log::{
    AppendOutcome, AppendRequest, Head, HeldHead as _, LogError, NewRow, Snapshot, Tail,
};
use contextnexus_actors::ports::memory_bus::{MemoryBus, Network};
use contextnexus_actors::ports::memory_log::MemoryHead;
use contextnexus_actors::protocol::Dialect;
use contextnexus_actors::protocol::codec::{Message, encode};
use contextnexus_actors::protocol::frame::close_frame;
use contextnexus_actors::session::state::{Effect as SessionEffect, SessionState};
use contextnexus_gate::encode_awareness;
use futures_util::FutureExt as _;
use futures_util::task::noop_waker;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use uuid::Uuid;

/// What all nodes share.
pub struct Shared {
    pub store: Store,
    pub network: Network,
    pub limits: Arc<Limits>,
    pub fault: Option<Fault>,
    /// The first thing that must not be.
    pub violation: Option<String>,
    /// How often something happened that a world should be full of.
    pub seen: BTreeMap<&'static str, u64>,
    /// True time; each node's clock is ahead of it by its own skew.
    pub now: Instant,
    next_id: u128,
}

impl Shared {
    pub fn new(store: Store, limits: Limits, now: Instant, fault: Option<Fault>) -> Self {
        let (network, limits) = (Network::default(), Arc::new(limits));
        Self { store, network, limits, fault, violation: None, seen: BTreeMap::new(), now, next_id: 1 << 64 }
    }

    pub fn fresh_id(&mut self) -> Uuid {
        self.next_id += 1;
        Uuid::from_u128(self.next_id)
    }

    pub fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub fn must_not_be(&mut self, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| what.into());
    }
}

/// The server's end of a socket.
pub struct Socket {
    dialect: Dialect,
    user: UserId,
    session: SessionState,
    pub outbox: Arc<Outbox>,
    /// Frames on their way here.
    pub inbound: VecDeque<Bytes>,
    /// The client is gone: nothing follows what is on its way.
    pub is_gone: bool,
    is_open: bool,
    followers: BTreeMap<Bytes, (FollowerId, Arc<Detached>)>,
}

impl Socket {
    fn is_talking(&self) -> bool {
        !self.is_open || !self.inbound.is_empty() || self.is_gone
    }
}

/// Something that was asked of the log.
enum Work {
    Load,
    Append(AppendRequest, Option<MemoryHead>),
    ReadTail(Position),
    Hold(Position),
    Recover {
        not_before: Instant,
    },
    Rebuild,
    Save(Snapshot),
    /// It is done; this is the answer.
    Answer(Answer),
}

enum Answer {
    Appended(AppendOutcome),
    Tail(Result<Tail, LogError>),
    News(Option<News>),
    Heads(Head),
}

/// One process.
pub struct Node {
    id: NodeId,
    bus: MemoryBus,
    subscription: Option<Subscription>,
    /// Bus messages on their way here.
    post: VecDeque<BusEvent>,
    pub state: Option<DocumentState>,
    lines: Lines,
    drained: mpsc::Receiver<()>,
    pub sockets: BTreeMap<ConnectionId, Socket>,
    work: Vec<Work>,
    budget: Arc<Budget>,
    skew: Duration,
    /// Statuses that a planted fault has given already.
    given: BTreeMap<FollowerId, usize>,
}

impl Node {
    pub fn start(shared: &mut Shared) -> Self {
        let id = NodeId(shared.fresh_id());
        let (sender, drained) = mpsc::channel(1);
        Self {
            id,
            bus: shared.network.connect(id),
            subscription: None,
            post: VecDeque::new(),
            state: None,
            lines: Lines::new(sender),
            drained,
            sockets: BTreeMap::new(),
            work: Vec::new(),
            budget: Arc::new(Budget::new(shared.limits.node_waiting_bytes_max)),
            skew: Duration::ZERO,
            given: BTreeMap::new(),
        }
    }

    /// SIGKILL. Appends under way reach the log, or do not.
    pub fn kill(self, are_written: bool, shared: &mut Shared) {
        for work in self.work {
            if let Work::Append(request, head) = work
                && are_written
            {
                let _ = shared.store.append(request, head, shared.now); // nobody hears of it
            }
        }
        for socket in self.sockets.values() {
            socket.outbox.abandon();
        }
        shared.network.cut(self.id, false);
    }

    pub fn cut(&self, is_cut: bool, shared: &Shared) {
        shared.network.cut(self.id, is_cut);
    }

    pub fn jump(&mut self, ahead: Duration) {
        self.skew += ahead;
    }

    fn now(&self, shared: &Shared) -> Instant {
        shared.now + self.skew
    }

    pub fn accept(&mut self, connection: ConnectionId, dialect: Dialect, user: UserId, shared: &Shared) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::new(shared.limits.outbox_bytes_max));
        let session = SessionState::new(dialect, shared.limits.clone());
        let socket = Socket {
            dialect,
            user,
            session,
            outbox: outbox.clone(),
            inbound: VecDeque::new(),
            is_gone: false,
            is_open: false,
            followers: BTreeMap::new(),
        };
        self.sockets.insert(connection, socket);
        outbox
    }

    /// Something asked of the log is not done, or not answered.
    pub fn has_work(&self) -> bool {
        !self.work.is_empty()
    }

    /// A client has said something that was not heard, or has gone.
    pub fn has_talk(&self) -> bool {
        self.sockets.values().any(Socket::is_talking)
    }

    /// A bus message is on its way here.
    pub fn has_post(&mut self) -> bool {
        self.collect_post();
        !self.post.is_empty()
    }

    /// Reads frames of one socket, unless the document is being loaded, or too much of the connection waits.
    pub fn hear(&mut self, which: usize, frames: usize, shared: &mut Shared) {
        let talking: Vec<ConnectionId> =
            self.sockets.iter().filter(|(_, socket)| socket.is_talking()).map(|(connection, _)| *connection).collect();
        let Some(connection) = talking.get(which % talking.len().max(1)).copied() else { return };
        if self.state.is_none() {
            return self.open(shared);
        }
        if self.is_waiting() {
            return;
        }
        let Some(socket) = self.sockets.get_mut(&connection) else { return };
        let is_full = self
            .state
            .as_ref()
            .is_some_and(|state| socket.followers.values().any(|(follower, _)| state.is_window_full(*follower)));
        if is_full && !socket.is_gone {
            return;
        }
        let gone: Vec<Bytes> = socket
            .followers
            .iter()
            .filter(|(_, (_, detached))| detached.is_set())
            .map(|(address, _)| address.clone())
            .collect();
        let gone: Vec<FollowerId> = gone
            .iter()
            .filter_map(|address| {
                socket.session.detached(address);
                Some(socket.followers.remove(address)?.0)
            })
            .collect();
        for follower in gone {
            self.leave(follower, shared);
        }
        let Some(socket) = self.sockets.get_mut(&connection) else { return };
        let mut effects = Vec::new();
        if !std::mem::replace(&mut socket.is_open, true) && socket.dialect != Dialect::Hocuspocus {
            effects = socket.session.opened(crate::editor::ROOM);
        }
        let count = frames.min(socket.inbound.len());
        let is_over = socket.is_gone && count == socket.inbound.len();
        let read: Vec<Bytes> = socket.inbound.drain(..count).collect();
        self.perform_session(connection, effects, shared);
        if let Some(socket) = self.sockets.get_mut(&connection) {
            let effects = socket.session.hear(read);
            self.perform_session(connection, effects, shared);
        }
        if is_over && let Some(socket) = self.sockets.remove(&connection) {
            for (follower, _) in socket.followers.into_values() {
                self.leave(follower, shared);
            }
        }
    }

    fn leave(&mut self, follower: FollowerId, shared: &mut Shared) {
        self.lines.remove(follower);
        self.turn(shared, |state, now| state.leave(follower, now));
    }

    fn perform_session(&mut self, connection: ConnectionId, effects: Vec<SessionEffect>, shared: &mut Shared) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            let Some(socket) = self.sockets.get_mut(&connection) else { return };
            match effect {
                SessionEffect::Open { address, attachment, .. } => {
                    let follower = FollowerId { connection, attachment };
                    let detached = Arc::new(Detached::default());
                    socket.followers.insert(address.clone(), (follower, detached.clone()));
                    let (dialect, user) = (socket.dialect, socket.user);
                    let line = Line::new(dialect, address.clone(), socket.outbox.clone(), detached);
                    self.lines.insert(follower, line);
                    let member = Member::new(dialect, user, SessionId(user.0), Role::Editor);
                    self.turn(shared, |state, _| state.join(follower, member));
                    let Some(socket) = self.sockets.get_mut(&connection) else { return };
                    for effect in socket.session.joined(&address, true).into_iter().rev() {
                        effects.push_front(effect);
                    }
                }
                SessionEffect::Deliver { address, inputs } => {
                    if let Some((follower, _)) = socket.followers.get(&address) {
                        let follower = *follower;
                        self.deliver(follower, inputs, shared);
                    }
                }
                SessionEffect::Authenticated { address, may_write } => {
                    let scope = if may_write { "read-write" } else { "readonly" };
                    let _ = socket.outbox.push_control(encode(&address, Message::Authenticated(scope)));
                }
                SessionEffect::Leave { .. } | SessionEffect::Detached { .. } | SessionEffect::Pong => {}
                SessionEffect::Refuse { code, reason, .. } | SessionEffect::Close { code, reason } => {
                    shared.must_not_be(format!("an honest client was refused with {code}: {reason}"));
                }
            }
        }
    }

    fn deliver(&mut self, follower: FollowerId, inputs: Vec<Input>, shared: &mut Shared) {
        if shared.fault == Some(Fault::AcknowledgedBeforeCommit) {
            let updates = inputs.iter().filter(|input| matches!(input, Input::Update(_))).count();
            for _ in 0..updates {
                self.lines.send(follower, &Outgoing::Status(true));
            }
            *self.given.entry(follower).or_default() += updates;
        }
        self.turn(shared, |state, now| {
            let mut effects = Vec::new();
            for input in inputs {
                effects.extend(state.hear(follower, input, now));
            }
            effects.extend(state.advance(now));
            effects
        });
    }

    /// The document is being loaded: everything else waits.
    pub fn is_waiting(&self) -> bool {
        self.work.iter().any(|work| matches!(work, Work::Load | Work::Rebuild))
    }

    /// Nothing is asked of the log, and nothing is on its way here. (A recovery that waits for its time is something.)
    pub fn is_quiet(&self) -> bool {
        self.work.is_empty() && self.post.is_empty() && !self.has_talk()
    }

    pub fn open(&mut self, shared: &mut Shared) {
        if self.state.is_none() && !self.is_waiting() {
            self.subscription = self.bus.subscribe(shared.store.key).now_or_never();
            self.work.push(Work::Load);
        }
    }

    /// Lets the state decide, and performs what it wants.
    pub fn turn(&mut self, shared: &mut Shared, decide: impl FnOnce(&mut DocumentState, Instant) -> Vec<Effect>) {
        let now = self.now(shared);
        let Some(state) = &mut self.state else { return };
        let before = state.position();
        let effects = decide(state, now);
        let after = state.position();
        if after.seq < before.seq || (after.seq == before.seq && after != before) {
            shared.must_not_be(format!("a node went from {before} to {after}"));
        }
        self.look(shared);
        for effect in effects {
            self.perform(effect, shared);
        }
    }

    /// What holds after every turn.
    fn look(&mut self, shared: &mut Shared) {
        let Some(state) = &self.state else { return };
        let at = state.position();
        if !shared.store.was_restored && shared.store.log.tail_now(shared.store.key, at).is_err() {
            shared.must_not_be(format!("a node stands at {at}, which is no prefix of the log"));
        }
        let (updates, bytes) = state.waiting();
        let is_within = updates <= 1 || bytes <= shared.limits.document_waiting_bytes_max;
        if !is_within || self.budget.used() != bytes {
            shared.must_not_be(format!("{bytes} bytes wait, {} are accounted for", self.budget.used()));
        }
    }

    fn perform(&mut self, effect: Effect, shared: &mut Shared) {
        shared.saw(name_of(&effect));
        match effect {
            Effect::Append { held, rows } => self.append(held, rows, None, shared),
            Effect::Hold(held) => self.work.push(Work::Hold(held)),
            Effect::ReadTail(held) => self.work.push(Work::ReadTail(held)),
            Effect::Recover { after } => self.work.push(Work::Recover { not_before: shared.now + after }),
            Effect::Rebuild => self.work.push(Work::Rebuild),
            Effect::Send(to, Outgoing::Status(true)) if self.given.get(&to).is_some_and(|given| *given > 0) => {
                *self.given.entry(to).or_default() -= 1;
            }
            Effect::Send(to, what) => {
                if let Outgoing::Update(update) = &what {
                    self.is_committed(update, "sent", shared);
                }
                self.lines.send(to, &what);
            }
            Effect::Welcome(to, update) => {
                self.is_committed(&update, "sent at a join", shared);
                let seq = self.state.as_ref().map_or(0, |state| state.position().seq);
                self.lines.welcome(to, &update, seq);
            }
            Effect::Show { update, through, sole_sender } => {
                self.is_committed(&update, "shown", shared);
                if let Some(state) = &mut self.state {
                    self.lines.show(&update, through, sole_sender, state);
                }
            }
            Effect::ShowAnew { state: whole, through } => {
                self.is_committed(&whole, "shown", shared);
                if let Some(state) = &mut self.state {
                    self.lines.show_anew(&whole, through, state);
                }
            }
            Effect::ShowPresence { entries, except } => self.lines.show_presence(&entries, except),
            Effect::Publish { from, through, updates } => {
                for update in &updates {
                    self.is_committed(update, "published", shared);
                }
                let bytes: usize = updates.iter().map(Bytes::len).sum();
                let updates = if bytes > shared.limits.bus_message_bytes_max { Vec::new() } else { updates };
                let (key, node) = (shared.store.key, self.id);
                self.bus.publish(BusMessage::Committed { key, node, from, through, updates });
            }
            Effect::PublishPresence(said) => {
                if !said.is_empty() {
                    let (entries, owners): (Vec<_>, Vec<_>) = said.into_iter().unzip();
                    let update = encode_awareness(&entries);
                    let (key, node) = (shared.store.key, self.id);
                    self.bus.publish(BusMessage::Presence { key, node, update, owners });
                }
            }
            Effect::QueryPresence => {
                self.bus.publish(BusMessage::PresenceQuery { key: shared.store.key, node: self.id });
            }
            Effect::Answer(to, answer) => {
                let _ = to.send(answer); // a requester that has gone needs none
            }
            Effect::Close { code, reason, .. } => {
                shared.must_not_be(format!("an honest client was closed with {code}: {reason}"));
            }
            Effect::Snapshot => {
                if let Some((position, state, state_vector)) = self.state.as_mut().and_then(DocumentState::read) {
                    self.work.push(Work::Save(Snapshot { position, state, state_vector }));
                }
            }
            Effect::Quarantine(what) => {
                shared.must_not_be(format!("the sound row {} was quarantined: {}", what.seq_from, what.reason));
            }
            Effect::QuarantineRefused(what) => {
                shared.must_not_be(format!("an honest update was quarantined: {}", what.reason));
            }
            Effect::Die { code, reason } => self.die(code, reason, shared),
        }
    }

    fn is_committed(&self, update: &Bytes, how: &str, shared: &mut Shared) {
        if !shared.store.holds(update) {
            shared.must_not_be(format!("something was {how} that is not in the log"));
        }
    }

    fn append(&mut self, held: Position, rows: Vec<NewRow>, head: Option<MemoryHead>, shared: &mut Shared) {
        let append_id = AppendId(shared.fresh_id());
        if let Some(state) = &mut self.state {
            state.dispatched(append_id);
        }
        if shared.fault == Some(Fault::ShownBeforeCommit) {
            for update in rows.iter().flat_map(|row| row.updates.clone()) {
                self.perform(Effect::Show { update, through: held, sole_sender: None }, shared);
            }
        }
        let request = AppendRequest { key: shared.store.key, held, append_id, rows };
        self.work.push(Work::Append(request, head));
        if shared.fault == Some(Fault::TwoInFlight) {
            let tail = Tail { rows: Vec::new(), head: Head { position: held, deleted: false } };
            self.turn(shared, |state, now| state.tail_read(Ok(tail), now));
        }
    }

    fn die(&mut self, code: u16, reason: &'static str, shared: &mut Shared) {
        shared.must_not_be(format!("the document ended with {code}: {reason}"));
        self.lines.close_all(code, reason, true);
        for socket in self.sockets.values() {
            socket.outbox.close(close_frame(code, reason));
        }
        self.sockets.clear();
        for work in std::mem::take(&mut self.work) {
            if let Work::Append(request, _) = work {
                shared.store.late.push(request); // the log has it already
            }
        }
        self.state = None;
        self.subscription = None;
        self.post.clear();
    }

    /// Does one of the things that were asked of the log, or answers one that is done.
    pub fn log_does(&mut self, which: usize, luck: Luck, is_away: bool, shared: &mut Shared) {
        let blocking = self.work.iter().position(|work| matches!(work, Work::Load | Work::Rebuild));
        let Some(at) = blocking.or_else(|| which.checked_rem(self.work.len())) else { return };
        let luck = if is_away { Luck::Away } else { luck };
        let is_done = matches!(luck, Luck::Good | Luck::Slow);
        let away = || LogError::Unavailable("simulated".into());
        let answer = match self.work.remove(at) {
            Work::Load | Work::Rebuild if !is_done => return self.work.push(Work::again(self.state.is_some())),
            Work::Load => return self.load(shared),
            Work::Rebuild => return self.rebuild(shared),
            Work::Append(request, head) => {
                let mut write = |request, head| shared.store.append(request, head, shared.now);
                Answer::Appended(match luck {
                    Luck::Good | Luck::Slow => write(request, head),
                    Luck::Away => AppendOutcome::Unavailable,
                    Luck::Lost => AppendOutcome::Unknown,
                    Luck::Unheard => {
                        write(request, head);
                        AppendOutcome::Unknown
                    }
                    Luck::Late => {
                        shared.store.late.push(request);
                        AppendOutcome::Unknown
                    }
                })
            }
            Work::ReadTail(held) => Answer::Tail(if is_done { shared.store.tail(held) } else { Err(away()) }),
            Work::Hold(held) => {
                let head = match is_done {
                    true => shared.store.log.hold_now(shared.store.key, held, shared.now),
                    false => Err(away()),
                };
                return self.held(head, shared);
            }
            Work::Recover { not_before } if shared.now < not_before => {
                return self.work.push(Work::Recover { not_before });
            }
            Work::Recover { .. } => {
                let position = self.state.as_ref().map_or(Position::START, DocumentState::position);
                Answer::News(is_done.then(|| (Vec::new(), shared.store.tail(position))))
            }
            Work::Save(snapshot) => return self.save(snapshot, is_done, shared),
            Work::Answer(answer) => return self.answer(answer, shared),
        };
        match luck {
            Luck::Slow => self.work.push(Work::Answer(answer)),
            _ => self.answer(answer, shared),
        }
    }

    fn answer(&mut self, answer: Answer, shared: &mut Shared) {
        match answer {
            Answer::Appended(outcome) => {
                shared.saw(match outcome {
                    AppendOutcome::Committed(_) => "an append was committed",
                    AppendOutcome::Behind => "an append was behind",
                    AppendOutcome::Unknown => "an append's outcome was unknown",
                    AppendOutcome::AlreadyDone(_) => "a request had been done already",
                    _ => "an append found PostgreSQL away",
                });
                self.turn(shared, |state, now| state.appended(outcome, now));
            }
            Answer::Tail(tail) => self.turn(shared, |state, now| state.tail_read(tail, now)),
            Answer::News(news) => self.turn(shared, |state, now| state.recovered(news, now)),
            Answer::Heads(head) => self.turn(shared, |state, _| state.head_moved(head)),
        }
    }

    fn load(&mut self, shared: &mut Shared) {
        let stored = shared.store.load().unwrap();
        let now = self.now(shared);
        match DocumentState::load(stored, shared.limits.clone(), self.budget.clone(), now) {
            Ok(state) => {
                self.state = Some(state);
                self.look(shared);
                self.perform(Effect::QueryPresence, shared);
            }
            Err(unsound) => self.unsound(&unsound, shared),
        }
    }

    fn rebuild(&mut self, shared: &mut Shared) {
        let stored = shared.store.load().unwrap();
        let now = self.now(shared);
        let Some(state) = &mut self.state else { return };
        match state.rebuilt(stored, now) {
            Ok(effects) => {
                self.look(shared);
                for effect in effects {
                    self.perform(effect, shared);
                }
            }
            Err(unsound) => self.unsound(&unsound, shared),
        }
    }

    fn unsound(&mut self, unsound: &Unsound, shared: &mut Shared) {
        shared.must_not_be(format!("the log cannot be loaded: {unsound:?}"));
    }

    fn held(&mut self, head: Result<MemoryHead, LogError>, shared: &mut Shared) {
        let now = self.now(shared);
        let Some(state) = &mut self.state else { return };
        let (head, tail) = match head {
            Ok(mut head) => {
                let tail = head.take_tail();
                (Some(head), Ok(tail))
            }
            Err(error) => (None, Err(error)),
        };
        let (decision, effects) = state.held(tail, now);
        if let (HeldDecision::Append { held, rows }, Some(head)) = (decision, head) {
            self.append(held, rows, Some(head), shared);
        }
        self.look(shared);
        for effect in effects {
            self.perform(effect, shared);
        }
    }

    fn save(&mut self, snapshot: Snapshot, is_done: bool, shared: &mut Shared) {
        let position = snapshot.position;
        if verify_state(&snapshot.state, &snapshot.state_vector).is_err() {
            shared.must_not_be(format!("the snapshot at {position} does not read back"));
        }
        let stored = is_done && shared.store.log.save_snapshot_now(shared.store.key, snapshot).is_ok();
        self.turn(shared, |state, _| {
            state.snapshot_stored(stored.then_some(position));
            Vec::new()
        });
    }

    /// Compares the head; the answer may come late.
    pub fn compare_heads(&mut self, is_slow: bool, shared: &mut Shared) {
        let Some(at) = self.state.as_ref().map(DocumentState::position) else { return };
        if self.is_waiting() {
            return;
        }
        match shared.store.changed_head(at) {
            Some(head) if is_slow => self.work.push(Work::Answer(Answer::Heads(head))),
            Some(head) => self.turn(shared, |state, _| state.head_moved(head)),
            None => {}
        }
    }

    fn collect_post(&mut self) {
        if let Some(subscription) = &mut self.subscription {
            let waker = noop_waker();
            let mut context = Context::from_waker(&waker);
            while let Poll::Ready(Some(event)) = subscription.events.poll_recv(&mut context) {
                self.post.push_back(event);
            }
        }
    }

    /// Takes a bus message off the post.
    pub fn hear_bus(&mut self, fate: Post, shared: &mut Shared) {
        self.collect_post();
        if self.is_waiting() || self.state.is_none() {
            return;
        }
        if fate == Post::Overtaken && self.post.len() > 1 {
            self.post.swap(0, 1);
        }
        let Some(event) = self.post.pop_front() else { return };
        if fate == Post::Lost {
            return;
        }
        if fate == Post::Doubled {
            self.post.push_back(event.clone());
        }
        if let (BusEvent::Message(BusMessage::Committed { from, through, .. }), Some(state)) = (&event, &self.state) {
            shared.saw(match state.position() {
                at if at == *from => "a bus message followed on",
                at if at.seq < through.seq => "a bus message left a gap",
                _ => "a bus message was old",
            });
        }
        let event = self.with_planted_gap(event, shared);
        self.turn(shared, |state, now| state.hear_bus(event, now));
    }

    fn with_planted_gap(&self, mut event: BusEvent, shared: &Shared) -> BusEvent {
        if shared.fault == Some(Fault::GapIgnored)
            && let BusEvent::Message(BusMessage::Committed { from, .. }) = &mut event
            && let Some(state) = &self.state
        {
            *from = state.position();
        }
        event
    }

    /// Timers that are due.
    pub fn on_time(&mut self, shared: &mut Shared) {
        if self.is_waiting() {
            return;
        }
        for _ in 0..10_000 {
            let now = self.now(shared);
            let due = self.state.as_ref().and_then(DocumentState::deadline).is_some_and(|at| at <= now);
            if !due {
                return;
            }
            self.turn(shared, DocumentState::on_time);
        }
        shared.must_not_be("a timer that is always due");
    }

    /// Somebody's outbox may have drained.
    pub fn catch_up(&mut self, shared: &mut Shared) {
        if !self.is_waiting()
            && self.drained.try_recv().is_ok()
            && let Some(state) = &mut self.state
        {
            self.lines.catch_up(state);
            shared.saw("somebody caught up");
        }
        for socket in self.sockets.values() {
            let bound = 2 * shared.limits.outbox_bytes_max + 64 * 1024;
            if socket.outbox.waiting() > bound {
                shared.must_not_be(format!("{} bytes wait for one connection", socket.outbox.waiting()));
            }
        }
    }
}

fn name_of(effect: &Effect) -> &'static str {
    match effect {
        Effect::Append { .. } => "an append was sent",
        Effect::Hold(_) => "a head was held",
        Effect::ReadTail(_) => "a tail was read",
        Effect::Recover { .. } => "a recovery began",
        Effect::Rebuild => "a document was rebuilt",
        Effect::Send(_, Outgoing::Step1(_)) => "somebody was asked for what is missing",
        Effect::Send(_, Outgoing::Update(_)) => "a repetition was echoed",
        Effect::Send(_, Outgoing::Status(_)) => "a status was given",
        Effect::Send(_, Outgoing::Mark(_)) => "a mark was returned",
        Effect::Send(..) => "something else was sent",
        Effect::Welcome(..) => "somebody was welcomed",
        Effect::Show { .. } => "an update was shown",
        Effect::Snapshot => "a snapshot was taken",
        Effect::Answer(..) => "a request was answered",
        _ => "something else happened",
    }
}

impl Work {
    fn again(is_open: bool) -> Self {
        if is_open { Self::Rebuild } else { Self::Load }
    }
}
