//! One node: the states of production, and a driver that performs what they decide, in place of the actors.

use crate::faults::Fault;
use crate::schedule::{Luck, Post};
use crate::store::Store;
use bytes::Bytes;
use contextnexus_actors::access::Role;
use contextnexus_actors::budget::Budgets;
use contextnexus_actors::document::FollowerId;
use contextnexus_actors::document::close;
use contextnexus_actors::document::follower::Follower;
use contextnexus_actors::document::follower_output::FollowerOutput;
use contextnexus_actors::document::follower_outputs::FollowerOutputs;
use contextnexus_actors::document::messages::{Detached, Effect, Input, Outgoing};
use contextnexus_actors::document::pieces::InPieces;
use contextnexus_actors::document::replica::Unverified;
use contextnexus_actors::document::state::{DocumentState, HeadDecision, News, Unsound};
use contextnexus_actors::ids::{AppendId, NodeId, Position, SessionId, UserId, UserSessionId};
use contextnexus_actors::limits::Limits;
use contextnexus_actors::outbox::Outbox;
use contextnexus_actors::ports::bus::{Bus, BusEvent, BusMessage, Subscription};
use contextnexus_actors::ports::log::{
    AppendOutcome, AppendRequest, Head, LockedHead as _, LogError, NewRow, Quarantine, QuarantineReason, Snapshot, Tail,
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
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use uuid::Uuid;

mod log;
mod sockets;

use log::{Work, read_back};
use sockets::Socket;

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
    /// Client ids under which a stranger has written.
    pub squatted: BTreeSet<u64>,
    /// Client ids of which something was taken out of the log.
    pub convicted: BTreeSet<u64>,
    /// Connections that were closed because of their client id.
    pub forked: BTreeSet<SessionId>,
    /// What was refused and kept.
    pub quarantined: Vec<Quarantine>,
    /// True time; each node's clock is ahead of it by its own skew.
    pub now: Instant,
    next_id: u128,
}

impl Shared {
    pub fn new(store: Store, limits: Limits, now: Instant, fault: Option<Fault>) -> Self {
        Self {
            store,
            network: Network::default(),
            limits: Arc::new(limits),
            fault,
            violation: None,
            seen: BTreeMap::new(),
            squatted: BTreeSet::new(),
            convicted: BTreeSet::new(),
            forked: BTreeSet::new(),
            quarantined: Vec::new(),
            now,
            next_id: 1 << 64,
        }
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

/// One process.
pub struct Node {
    id: NodeId,
    bus: MemoryBus,
    subscription: Option<Subscription>,
    /// Bus messages on their way here.
    post: VecDeque<BusEvent>,
    pub state: Option<DocumentState>,
    outputs: FollowerOutputs,
    drained: mpsc::Receiver<()>,
    pub sockets: BTreeMap<SessionId, Socket>,
    work: Vec<Work>,
    budgets: Arc<Budgets>,
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
            outputs: FollowerOutputs::new(sender),
            drained,
            sockets: BTreeMap::new(),
            work: Vec::new(),
            budgets: Budgets::of(&shared.limits),
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

    /// Nobody is connected, and nothing waits.
    pub fn is_idle(&self) -> bool {
        let is_settled = self.state.as_ref().is_some_and(DocumentState::is_settled);
        self.sockets.is_empty() && is_settled && !self.is_waiting()
    }

    /// Ends the document if nobody is connected and nothing waits; what it asked of the log for itself goes on without it.
    pub fn unload(&mut self, shared: &mut Shared) {
        if !self.is_idle() {
            return;
        }
        shared.saw("a document was unloaded");
        for work in std::mem::take(&mut self.work) {
            if let Work::Save(snapshot) = work
                && let Some(snapshot) = read_back(snapshot, shared)
            {
                let _ = shared.store.log.save_snapshot_now(shared.store.key, snapshot); // nobody hears of it
            }
        }
        self.state = None;
        self.subscription = None;
        self.post.clear();
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
        let may_differ = shared.store.was_restored || shared.store.was_rewritten;
        if !may_differ && shared.store.log.tail_now(shared.store.key, at).is_err() {
            shared.must_not_be(format!("a node stands at {at}, which is no prefix of the log"));
        }
        let (updates, bytes) = state.waiting();
        let is_within = updates <= 1 || bytes <= shared.limits.document_waiting_bytes_max;
        if !is_within || self.budgets.waiting.used() != bytes {
            shared.must_not_be(format!("{bytes} bytes wait, {} are accounted for", self.budgets.waiting.used()));
        }
    }

    fn perform(&mut self, effect: Effect, shared: &mut Shared) {
        shared.saw(name_of(&effect));
        match effect {
            Effect::Append { base: held, rows } => self.append(held, rows, None, shared),
            Effect::LockHead(held) => self.work.push(Work::Hold(held)),
            Effect::ReadTail(held) => self.work.push(Work::ReadTail(held)),
            Effect::Recover { after } => self.work.push(Work::Recover { not_before: shared.now + after }),
            Effect::Rebuild => self.work.push(Work::Rebuild),
            Effect::Send(to, Outgoing::Status(true)) if self.given.get(&to).is_some_and(|given| *given > 0) => {
                *self.given.entry(to).or_default() -= 1;
            }
            Effect::Send(to, what) => {
                match &what {
                    Outgoing::Update(update) => self.is_committed(update, "sent", shared),
                    Outgoing::LargeUpdate(update) => self.are_committed(update, "sent", shared),
                    _ => {}
                }
                self.outputs.send(to, &what);
            }
            Effect::Welcome(to, update) => {
                self.are_committed(&update, "sent at a join", shared);
                let seq = self.state.as_ref().map_or(0, |state| state.position().seq);
                self.outputs.welcome(to, &update, seq);
            }
            Effect::TellWhenSent(to) => self.outputs.tell_when_sent(to),
            Effect::Show { update, through, sole_sender } => {
                self.are_committed(&update, "shown", shared);
                if let Some(state) = &mut self.state {
                    self.outputs.show(&update, through, sole_sender, state);
                }
            }
            Effect::ShowAnew { state: whole, through } => {
                self.are_committed(&whole, "shown", shared);
                if let Some(state) = &mut self.state {
                    self.outputs.show_anew(&whole, through, state);
                }
            }
            Effect::ShowPresence { entries, except } => self.outputs.show_presence(&entries, except),
            Effect::Publish { from, through, updates, authorship } => {
                for update in &updates {
                    self.is_committed(update, "published", shared);
                }
                let bytes: usize = updates.iter().map(Bytes::len).sum();
                let is_too_large = bytes > shared.limits.bus_message_bytes_max;
                let (updates, authorship) = if is_too_large { Default::default() } else { (updates, authorship) };
                let (key, node) = (shared.store.key, self.id);
                let authorship = match shared.fault {
                    Some(Fault::AuthorsForgotten) => Vec::new(),
                    _ => authorship,
                };
                self.bus.publish(BusMessage::Committed { key, node, from, through, updates, authorship });
            }
            Effect::PublishPresence(said) => {
                let (entries, owners): (Vec<_>, Vec<_>) = said.into_iter().unzip();
                let update = encode_awareness(&entries);
                let (key, node) = (shared.store.key, self.id);
                self.bus.publish(BusMessage::Presence { key, node, update, owners });
            }
            Effect::QueryPresence => {
                self.bus.publish(BusMessage::PresenceQuery { key: shared.store.key, node: self.id });
            }
            Effect::Answer(to, answer) => {
                let _ = to.send(answer); // a requester that has gone needs none
            }
            Effect::Close { follower, code: code @ close::FORK, reason, .. }
                if !shared.squatted.is_empty() || !shared.convicted.is_empty() =>
            {
                shared.saw("somebody was told to load the page again");
                shared.forked.insert(follower.session);
                let _ = self.outputs.close(follower, code, &reason, false);
            }
            Effect::Close { code, reason, .. } => {
                shared.must_not_be(format!("an honest client was closed with {code}: {reason}"));
            }
            Effect::Snapshot { store: is_stored } => {
                let Some((taken, effects)) = self.state.as_mut().map(DocumentState::snapshot) else { return };
                assert!(effects.is_empty(), "a sound document ended over its snapshot");
                let work = if is_stored { Work::Save } else { Work::ReadBack };
                self.work.extend(taken.map(work));
            }
            Effect::Mend(unsound) => shared.must_not_be(format!("a sound log was mended: {unsound:?}")),
            Effect::QuarantineRefused(what) if what.reason == QuarantineReason::Fork && !shared.squatted.is_empty() => {
                shared.quarantined.push(what);
            }
            // What a database lost comes back from anybody, and some of it was deleted meanwhile.
            Effect::QuarantineRefused(what)
                if what.reason == QuarantineReason::DeletedBeforeItCame
                    && (shared.store.was_restored || !shared.squatted.is_empty())
                    && shared.store.was_brought_deleted(&what) =>
            {
                shared.saw("words were kept that others had brought as deleted");
                shared.quarantined.push(what);
            }
            Effect::QuarantineRefused(what) => {
                shared.must_not_be(format!("an honest update was quarantined: {}", what.reason));
            }
            Effect::Die { code, reason } => self.die(code, reason, shared),
        }
    }

    fn are_committed(&self, update: &InPieces, how: &str, shared: &mut Shared) {
        if !update.before.is_empty() {
            shared.saw("something went out in pieces");
        }
        update.iter().for_each(|piece| self.is_committed(piece, how, shared));
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
                self.perform(Effect::Show { update: update.into(), through: held, sole_sender: None }, shared);
            }
        }
        let request = AppendRequest { key: shared.store.key, base: held, append_id, rows };
        self.work.push(Work::Append(request, head));
        if shared.fault == Some(Fault::TwoInFlight) {
            let tail = Tail { rows: Vec::new(), head: Head { position: held, deleted: false } };
            self.turn(shared, |state, now| state.tail_read(Ok(tail), now));
        }
    }

    fn die(&mut self, code: u16, reason: &'static str, shared: &mut Shared) {
        shared.must_not_be(format!("the document ended with {code}: {reason}"));
        self.outputs.close_all(code, reason, true);
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
        let now = self.now(shared);
        if !self.is_waiting()
            && self.drained.try_recv().is_ok()
            && let Some(state) = &mut self.state
        {
            self.outputs.catch_up(state, now);
            shared.saw("somebody caught up");
            let arrived = self.outputs.take_arrived();
            if !arrived.is_empty() {
                self.turn(shared, |state, now| state.states_arrived(&arrived, now));
                shared.saw("a question was answered that had waited");
            }
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
        Effect::LockHead(_) => "a head was held",
        Effect::ReadTail(_) => "a tail was read",
        Effect::Recover { .. } => "a recovery began",
        Effect::Rebuild => "a document was rebuilt",
        Effect::Send(_, Outgoing::Step1(_)) => "somebody was asked for what is missing",
        Effect::Send(_, Outgoing::Update(_) | Outgoing::LargeUpdate(_)) => "a repetition was echoed",
        Effect::Send(_, Outgoing::Status(_)) => "a status was given",
        Effect::Send(_, Outgoing::Mark(_)) => "a mark was returned",
        Effect::Send(..) => "something else was sent",
        Effect::Welcome(..) => "somebody was welcomed",
        Effect::Show { .. } => "an update was shown",
        Effect::Snapshot { .. } => "a snapshot was taken",
        Effect::Answer(..) => "a request was answered",
        _ => "something else happened",
    }
}
