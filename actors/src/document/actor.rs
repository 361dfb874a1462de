//! The shell around [`DocumentState`]: performs effects and brings completions back.

use super::follower::Follower;
use super::follower_output::FollowerOutput;
use super::follower_outputs::FollowerOutputs;
use super::messages::{Deliver, Effect, Input, Join, JoinRefused, Leave, Read, Renew, Write};
use super::replica::{ReplicaError, Unverified};
use super::state::{DocumentState, HeadDecision, Unsound};
use super::{FollowerId, close, storage};
use crate::hosting::messages::{Drain, Ended, HeadMoved, Regrant, Resign, Unload};
use crate::hosting::{Host, HostedKey, Instance, Noticeboard, Status};
use crate::ids::{AppendId, DocumentKey, Position, UserId, UserSessionId};
use crate::ports::Ports;
use crate::ports::authority::RightInUse;
use crate::ports::bus::{BusEvent, BusMessage};
use crate::ports::documents::{ReadRefused, WriteRefused, Written};
use crate::ports::log::{AppendOutcome, AppendRequest, Damage, LockedHead, LogError, NewRow};
use actix::prelude::*;
use bytes::Bytes;
use contextnexus_gate::encode_awareness;
use futures_util::stream;
use metrics::Counter;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

mod deciding;
mod hosted;

/// Room for the messages of the host and of HTTP, beside the two that each connection may have under way.
const MAILBOX_CAPACITY: usize = 256;

/// One open document.
pub struct DocumentActor {
    key: DocumentKey,
    ports: Ports,
    instance: Instance,
    host: Addr<Host<Self>>,
    noticeboard: Arc<Noticeboard>,
    /// `None` until loaded, and after loading failed.
    state: Option<DocumentState>,
    failed: Option<JoinRefused>,
    outputs: FollowerOutputs,
    /// Under which right each is here, for the host.
    rights: BTreeMap<FollowerId, (UserId, UserSessionId)>,
    /// Connections whose window is full: answered when it is not.
    parked: Vec<(FollowerId, oneshot::Sender<()>)>,
    drained_events: Option<mpsc::Receiver<()>>,
    timer: Option<(Instant, SpawnHandle)>,
    /// Apart from the other, which is armed many times a second.
    rights_timer: Option<(Instant, SpawnHandle)>,
    idle_timer: Option<SpawnHandle>,
    /// Messages that the host routed here; unloading needs its count to be the same.
    routed: u64,
    draining: Option<oneshot::Sender<()>>,
    /// What is mended before anybody loads the document anew.
    unsound: Vec<Unsound>,
    /// A snapshot is to be taken when all else of this turn is done, and stored or only read back.
    snapshot_due: Option<bool>,
    /// The state is aside.
    is_aside: bool,
    /// What came while it was: one thing at most. A message that makes an actor wait lets none of its futures and streams go
    /// on but one, which actix polls before it looks whether it is to wait.
    deferred: Vec<deciding::Deferred>,
    /// What was decided since this actor last let the other tasks of its thread run.
    turn: Duration,
    /// Counts what is shown, one for each receiver.
    fanout: Counter,
}

impl DocumentActor {
    fn perform(&mut self, effects: Vec<Effect>, ctx: &mut Context<Self>) {
        for effect in effects {
            self.perform_one(effect, ctx);
        }
    }

    fn perform_one(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::Append { base, rows } => self.append(base, rows, ctx),
            Effect::LockHead(base) => self.lock_head(base, ctx),
            Effect::ReadTail(base) => {
                let (log, key) = (self.ports.log.clone(), self.key);
                let tail = async move { log.tail(key, base).await }.into_actor(self);
                ctx.spawn(tail.map(|tail, actor, ctx| {
                    actor.when_here(ctx, |actor, ctx| {
                        let effort = actor.effort_to_take_in(tail.as_ref().ok());
                        actor.decide(ctx, effort, |state, now| state.tail_read(tail, now));
                    });
                }));
            }
            Effect::Recover { after } => self.recover(after, ctx),
            Effect::Rebuild => {
                if self.damage().is_none() {
                    warn!(document.id = %self.key.document, "the log diverged from document {}: it is loaded anew", self.key.document);
                }
                self.rebuild(ctx);
            }
            Effect::Send(to, what) => self.outputs.send(to, &what),
            Effect::Welcome(to, update) => {
                let seq = self.state.as_ref().map_or(0, |state| state.position().seq);
                self.outputs.welcome(to, &update, seq);
            }
            Effect::TellWhenSent(to) => self.outputs.tell_when_sent(to),
            Effect::Show { update, through, sole_sender } => {
                if let Some(state) = &mut self.state {
                    self.fanout.increment(self.outputs.show(&update, through, sole_sender, state));
                }
            }
            Effect::ShowAnew { state: whole, through } => {
                if let Some(state) = &mut self.state {
                    self.fanout.increment(self.outputs.show_anew(&whole, through, state));
                }
            }
            Effect::ShowPresence { entries, except } => self.outputs.show_presence(&entries, except),
            Effect::Publish { from, through, updates, authorship } => {
                let bytes: usize = updates.iter().map(Bytes::len).sum();
                let is_too_large = bytes > self.ports.limits.bus_message_bytes_max;
                let (updates, authorship) = if is_too_large { Default::default() } else { (updates, authorship) };
                let (key, node) = (self.key, self.ports.node);
                self.ports.bus.publish(BusMessage::Committed { key, node, from, through, updates, authorship });
            }
            Effect::PublishPresence(said) => {
                let (entries, owners): (Vec<_>, Vec<_>) = said.into_iter().unzip();
                let update = encode_awareness(&entries);
                let (key, node) = (self.key, self.ports.node);
                self.ports.bus.publish(BusMessage::Presence { key, node, update, owners });
            }
            Effect::QueryPresence => {
                self.ports.bus.publish(BusMessage::PresenceQuery { key: self.key, node: self.ports.node });
            }
            Effect::Answer(to, answer) => {
                let _ = to.send(answer); // a requester that has gone needs none
            }
            Effect::Close { follower, code, reason, whole_socket } => {
                if self.outputs.close(follower, code, &reason, whole_socket) {
                    debug!(document.id = %self.key.document, session.id = %follower.session, "closed with {code}: {reason}");
                }
            }
            Effect::Snapshot { store: is_stored } => self.snapshot_due = Some(is_stored),
            Effect::Mend(unsound) => self.unsound.push(unsound),
            Effect::QuarantineRefused(what) => {
                actix::spawn(storage::quarantine_refused(self.ports.clone(), self.key, what));
            }
            Effect::Die { code, reason } => self.die(code, reason, ctx),
        }
    }

    /// Bookkeeping after every turn: the noticeboard, the timer, who may speak again, who waits for the drain.
    fn after(&mut self, ctx: &mut Context<Self>) {
        // Of a read that ended the document.
        let left = self.state.as_mut().map(DocumentState::take_effects);
        self.perform(left.unwrap_or_default(), ctx);
        let Some(state) = &mut self.state else { return };
        match state.take_dropped() {
            0 => {}
            dropped => metrics::counter!("contextnexus_dropped_updates_total").increment(dropped),
        }
        match state.take_presence_dropped() {
            0 => {}
            dropped => metrics::counter!("contextnexus_presence_dropped_total").increment(dropped),
        }
        if let Some(is_stored) = self.snapshot_due.take() {
            return self.snapshot(is_stored, ctx); // and then again
        }
        self.noticeboard.set_status(Status {
            position: state.stands_at(),
            waiting_bytes: state.waiting().1,
            bytes: state.bytes(),
            recent_bytes: state.recent_bytes(),
            is_idle: self.outputs.is_empty(),
        });
        if !self.parked.is_empty() {
            let parked = std::mem::take(&mut self.parked);
            for (follower, answer) in parked {
                if state.is_window_full(follower) {
                    self.parked.push((follower, answer));
                } else {
                    let _ = answer.send(()); // a session that has gone needs none
                }
            }
        }
        if state.is_settled()
            && let Some(waiter) = self.draining.take()
        {
            let _ = waiter.send(()); // as above
        }
        if let Some(at) = state.rights_deadline()
            && self.rights_timer.is_none_or(|(armed, _)| at < armed)
        {
            self.arm_rights(at, ctx);
        }
        let Some(state) = &self.state else { return };
        let deadline = state.deadline();
        match (deadline, &self.timer) {
            (None, _) => {}
            (Some(at), Some((armed, _))) if *armed <= at => {}
            (Some(at), timer) => {
                if let Some((_, handle)) = timer {
                    ctx.cancel_future(*handle);
                }
                let after = at.saturating_duration_since(self.ports.clock.instant());
                let handle = ctx.run_later(after, |actor, ctx| {
                    actor.timer = None;
                    actor.decide(ctx, Duration::ZERO, DocumentState::on_time);
                });
                self.timer = Some((at, handle));
            }
        }
    }

    fn arm_rights(&mut self, at: Instant, ctx: &mut Context<Self>) {
        if let Some((_, handle)) = self.rights_timer.take() {
            ctx.cancel_future(handle);
        }
        let after = at.saturating_duration_since(self.ports.clock.instant());
        let handle = ctx.run_later(after, |actor, ctx| {
            actor.rights_timer = None;
            actor.decide(ctx, Duration::ZERO, DocumentState::on_time);
        });
        self.rights_timer = Some((at, handle));
    }

    fn append(&mut self, base: Position, rows: Vec<NewRow>, ctx: &mut Context<Self>) {
        let append_id = AppendId(self.ports.clock.fresh_id());
        if let Some(state) = &mut self.state {
            state.dispatched(append_id);
        }
        let request = AppendRequest { key: self.key, base, append_id, rows };
        let log = self.ports.log.clone();
        let outcome = async move { log.append(request).await }.into_actor(self);
        ctx.spawn(outcome.map(|outcome, actor, ctx| actor.appended(outcome, ctx)));
    }

    fn appended(&mut self, outcome: AppendOutcome, ctx: &mut Context<Self>) {
        self.when_here(ctx, |actor, ctx| {
            let effort = actor.effort(DocumentState::effort_to_commit);
            actor.decide(ctx, effort, |state, now| state.appended(outcome, now));
        });
    }

    fn lock_head(&mut self, base: Position, ctx: &mut Context<Self>) {
        let (log, key) = (self.ports.log.clone(), self.key);
        let head = async move { log.lock_head(key, base).await }.into_actor(self);
        ctx.spawn(head.map(|head, actor, ctx| actor.when_here(ctx, |actor, ctx| actor.head_locked(head, ctx))));
    }

    fn head_locked(&mut self, head: Result<Box<dyn LockedHead>, LogError>, ctx: &mut Context<Self>) {
        let (head, tail) = match head {
            Ok(mut head) => {
                let tail = head.take_tail();
                (Some(head), Ok(tail))
            }
            Err(error) => (None, Err(error)),
        };
        let effort = self.effort_to_take_in(tail.as_ref().ok());
        let decide = |state: &mut DocumentState, now| {
            let (decision, effects) = state.head_locked(tail, now);
            (effects, decision)
        };
        self.decide_and(ctx, effort, decide, |actor, decision, ctx| match (decision, head) {
            (HeadDecision::Append { base, rows }, Some(head)) => {
                let append_id = AppendId(actor.ports.clock.fresh_id());
                if let Some(state) = &mut actor.state {
                    state.dispatched(append_id);
                }
                let request = AppendRequest { key: actor.key, base, append_id, rows };
                let outcome = async move { head.append(request).await }.into_actor(actor);
                ctx.spawn(outcome.map(|outcome, actor, ctx| actor.appended(outcome, ctx)));
            }
            (_, head) => drop(head),
        });
    }

    fn recover(&mut self, after: Duration, ctx: &mut Context<Self>) {
        let Some(state) = &self.state else { return };
        let rights: Vec<RightInUse> = state
            .rights()
            .map(|(user, session)| RightInUse { user_session: session, user, place: self.key.place() })
            .collect();
        let position = state.position();
        let (ports, key) = (self.ports.clone(), self.key);
        let news = async move {
            tokio::time::sleep(after).await;
            // Revocations first: nothing is appended under a right that ended while PostgreSQL was away.
            let rechecked = ports.authority.recheck(key.tenant, None, &rights).await.ok()?;
            Some((rechecked.standings, ports.log.tail(key, position).await))
        };
        ctx.spawn(news.into_actor(self).map(|news, actor, ctx| {
            actor.when_here(ctx, |actor, ctx| {
                let tail = news.as_ref().and_then(|(_, tail)| tail.as_ref().ok());
                let effort = actor.effort_to_take_in(tail);
                actor.decide(ctx, effort, |state, now| state.recovered(news, now));
            });
        }));
    }

    fn catch_up(&mut self, ctx: &mut Context<Self>) {
        let behind = self.outputs.behind_since();
        let effort = self.effort(|state| state.effort_to_catch_up(behind));
        let prepare = move |state: &mut DocumentState, now| match behind {
            Some(seq) => (state.prepare_to_catch_up(seq, now), now),
            None => (Vec::new(), now),
        };
        self.decide_and(ctx, effort, prepare, |actor, now, ctx| {
            if let Some(state) = &mut actor.state {
                actor.outputs.catch_up(state, now);
            }
            let arrived = actor.outputs.take_arrived();
            if !arrived.is_empty() {
                let effort = actor.effort(DocumentState::effort_to_encode);
                actor.decide(ctx, effort, move |state, now| state.states_arrived(&arrived, now));
            }
        });
    }

    fn damage(&self) -> Option<Damage> {
        self.state.as_ref().and_then(DocumentState::damage)
    }

    /// The mailbox waits until the document is loaded anew.
    fn rebuild(&mut self, ctx: &mut Context<Self>) {
        let (ports, key) = (self.ports.clone(), self.key);
        let stored = async move { storage::load_again(&ports, key).await };
        ctx.wait(stored.into_actor(self).map(|stored, actor, ctx| {
            let Ok(stored) = stored else { return actor.die(close::SERVICE_RESTART, "document is rebuilt", ctx) };
            let effort = storage::effort_to_load(&stored);
            let rebuild = move |state: &mut DocumentState, now| match state.rebuilt(stored, now) {
                Ok(effects) => (effects, true),
                Err(_) => (Vec::new(), false),
            };
            actor.decide_and(ctx, effort, rebuild, |actor, is_sound, ctx| {
                if !is_sound {
                    // Loading from nothing knows what to do about an unsound row.
                    actor.die(close::SERVICE_RESTART, "document is rebuilt", ctx);
                }
            });
        }));
    }

    fn snapshot(&mut self, is_stored: bool, ctx: &mut Context<Self>) {
        self.take_snapshot(ctx, move |actor, snapshot, ctx| {
            let (ports, key) = (actor.ports.clone(), actor.key);
            let taken = async move {
                match is_stored {
                    true => storage::store_snapshot(ports, key, snapshot).await,
                    false => (storage::verify(&ports, key, snapshot).await, true),
                }
            };
            ctx.spawn(taken.into_actor(actor).map(|(taken, is_stored), actor, ctx| {
                let take = move |state: &mut DocumentState, now| {
                    if matches!(taken, Err(ReplicaError::TooDear)) {
                        return (Vec::new(), state.snapshot_too_dear());
                    }
                    let taken = taken.ok().map(|(snapshot, weight)| {
                        state.weighed(weight);
                        snapshot
                    });
                    state.snapshot_taken(taken, is_stored, now);
                    (Vec::new(), false)
                };
                actor.decide_and(ctx, Duration::ZERO, take, |actor, is_first, _| {
                    if is_first {
                        storage::say_too_dear(actor.key.document);
                    }
                });
            }));
        });
    }

    /// The document may end over it.
    fn take_snapshot(
        &mut self,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self, Unverified, &mut Context<Self>) + Send + 'static,
    ) {
        let effort = self.effort(DocumentState::effort_to_encode) * 2; // the text is read, too
        let take = |state: &mut DocumentState, _| {
            let (snapshot, effects) = state.snapshot();
            (effects, snapshot)
        };
        self.decide_and(ctx, effort, take, |actor, snapshot, ctx| {
            if let Some(snapshot) = snapshot {
                then(actor, snapshot, ctx);
            }
        });
    }

    fn die(&mut self, code: u16, reason: &'static str, ctx: &mut Context<Self>) {
        info!(document.id = %self.key.document, "document {} ends: {reason}", self.key.document);
        self.outputs.close_all(code, reason, code == close::SERVICE_RESTART);
        self.state = None;
        self.failed = Some(if code == close::NOT_FOUND { JoinRefused::Deleted } else { JoinRefused::Unavailable });
        self.resign_and_stop(ctx);
    }

    fn resign_and_stop(&mut self, ctx: &mut Context<Self>) {
        let ended = Ended { key: self.key, instance: self.instance };
        let unsound = std::mem::take(&mut self.unsound);
        let (ports, key, host) = (self.ports.clone(), self.key, self.host.clone());
        let told = async move {
            for unsound in unsound {
                storage::mend(&ports, key, unsound).await;
            }
            host.send(ended).await
        };
        ctx.spawn(told.into_actor(self).map(|_, _, ctx| ctx.stop()));
    }

    fn arm_idle(&mut self, ctx: &mut Context<Self>) {
        if let Some(handle) = self.idle_timer.take() {
            ctx.cancel_future(handle);
        }
        if self.outputs.is_empty() {
            // A damaged one is looked at again by whoever comes next: it may have been mended.
            let idle_s = if self.damage().is_some() { 1 } else { self.ports.limits.document_idle_s };
            let after = Duration::from_secs(idle_s);
            self.idle_timer = Some(ctx.run_later(after, |actor, ctx| {
                actor.idle_timer = None;
                actor.unload_if_idle(ctx);
            }));
        }
    }

    fn unload_if_idle(&mut self, ctx: &mut Context<Self>) {
        if self.failed.is_some() {
            return; // it ends already
        }
        let settled = self.state.as_ref().is_some_and(DocumentState::is_settled);
        if !self.outputs.is_empty() || !settled {
            return self.arm_idle(ctx);
        }
        // So that the next one to open it reads little; packed, it is as it was read.
        if self.state.as_ref().is_some_and(|state| state.tail_updates() >= 100 && state.may_be_snapshot()) {
            return self.take_snapshot(ctx, |actor, snapshot, ctx| {
                actix::spawn(storage::store_snapshot(actor.ports.clone(), actor.key, snapshot)); // without us
                actor.resign(ctx);
            });
        }
        self.resign(ctx);
    }

    fn resign(&mut self, ctx: &mut Context<Self>) {
        let resign = Resign { key: self.key, instance: self.instance, heard: self.routed };
        let agreed = self.host.send(resign).into_actor(self);
        ctx.spawn(agreed.map(|agreed, actor, ctx| match agreed {
            _ if actor.failed.is_some() => {} // it stops when it is mended
            Ok(true) => ctx.stop(),
            _ => actor.arm_idle(ctx),
        }));
    }
}

impl Actor for DocumentActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY + 2 * self.ports.limits.document_connections_max);
        if let Some(mut events) = self.drained_events.take() {
            ctx.add_stream(stream::poll_fn(move |cx| events.poll_recv(cx).map(|event| event.map(|()| Drained))));
        }
        let (ports, key) = (self.ports.clone(), self.key);
        let started = ports.clock.instant();
        let loading = async move {
            // Subscribed before it is read: what is committed in between is heard.
            let subscription = ports.bus.subscribe(key).await;
            (subscription, storage::load(&ports, key).await)
        };
        ctx.wait(loading.into_actor(self).map(move |(mut subscription, state), actor, ctx| {
            metrics::histogram!("contextnexus_load_seconds").record(actor.ports.clock.instant() - started);
            match state {
                Ok(state) => {
                    actor.state = Some(state);
                    ctx.add_stream(stream::poll_fn(move |cx| subscription.events.poll_recv(cx)));
                    actor.perform_one(Effect::QueryPresence, ctx);
                    actor.arm_idle(ctx);
                    actor.after(ctx);
                }
                Err(refused) => {
                    actor.failed = Some(refused);
                    actor.resign_and_stop(ctx);
                }
            }
        }));
    }
}

/// Somebody's outbox is empty again.
#[derive(Debug)]
struct Drained;

impl StreamHandler<Drained> for DocumentActor {
    fn handle(&mut self, _: Drained, ctx: &mut Context<Self>) {
        self.when_here(ctx, Self::catch_up);
    }

    fn finished(&mut self, _: &mut Context<Self>) {}
}

impl StreamHandler<BusEvent> for DocumentActor {
    fn handle(&mut self, event: BusEvent, ctx: &mut Context<Self>) {
        self.when_here(ctx, |actor, ctx| {
            let effort = actor.effort(|state| state.effort_to_hear_bus(&event));
            actor.decide(ctx, effort, |state, now| state.hear_bus(event, now));
        });
    }

    /// The bus let go of us (its own failure): the head check stands in for it.
    fn finished(&mut self, _: &mut Context<Self>) {}
}

impl Handler<Join> for DocumentActor {
    type Result = Result<(), JoinRefused>;

    fn handle(&mut self, join: Join, ctx: &mut Context<Self>) -> Self::Result {
        self.routed += 1;
        if let Some(refused) = self.failed {
            return Err(refused);
        }
        if self.outputs.count() >= self.ports.limits.document_connections_max {
            return Err(JoinRefused::Full);
        }
        let output =
            FollowerOutput::new(join.dialect, join.address, join.outbox, join.detached).with_close(join.knows_close);
        self.outputs.insert(join.follower, output);
        self.rights.insert(join.follower, (join.user, join.user_session));
        self.noticeboard.holds(join.user, join.user_session);
        self.arm_idle(ctx);
        let mut follower = Follower::new(join.dialect, join.user, join.user_session, join.role);
        follower.lasts(join.until, self.ports.clock.instant());
        self.decide(ctx, Duration::ZERO, move |state, now| state.join(join.follower, follower, now));
        Ok(())
    }
}

impl Handler<Renew> for DocumentActor {
    type Result = ();

    fn handle(&mut self, renewal: Renew, ctx: &mut Context<Self>) {
        if let Some(right) = self.rights.get_mut(&renewal.follower) {
            let (user, session) = std::mem::replace(right, (renewal.user, renewal.user_session));
            self.noticeboard.releases(user, session);
            self.noticeboard.holds(renewal.user, renewal.user_session);
            self.decide(ctx, Duration::ZERO, move |state, now| state.renew(renewal, now));
        }
    }
}

impl Handler<Deliver> for DocumentActor {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, ctx: &mut Context<Self>) -> Self::Result {
        let follower = deliver.follower;
        drop(deliver.share); // what waits from here on is counted by the document
        let joins = deliver.inputs.iter().any(|input| matches!(input, Input::Step1(_)));
        let joined_at = joins.then(|| self.ports.clock.instant());
        let effort = self.effort(|state| state.effort_to_hear(&deliver.inputs));
        let is_asking = deliver.inputs.iter().any(Input::is_question);
        let is_sending = is_asking && self.outputs.is_sending_state(follower);
        let Deliver { inputs, taken, .. } = deliver;
        if self.state.is_none() {
            let _ = taken.send(()); // it ends, and says so itself
            return;
        }
        let hear = move |state: &mut DocumentState, now| (state.deliver(follower, inputs, is_sending, now), ());
        self.decide_and(ctx, effort, hear, move |actor, (), _| {
            if let Some(at) = joined_at {
                metrics::histogram!("contextnexus_join_seconds").record(actor.ports.clock.instant() - at);
            }
            if actor.state.as_ref().is_some_and(|state| state.is_window_full(follower)) {
                actor.parked.push((follower, taken));
            } else {
                let _ = taken.send(()); // a session that has gone says no more
            }
        });
    }
}

impl Handler<Leave> for DocumentActor {
    type Result = ();

    fn handle(&mut self, Leave(follower): Leave, ctx: &mut Context<Self>) {
        self.outputs.remove(follower);
        if let Some((user, session)) = self.rights.remove(&follower) {
            self.noticeboard.releases(user, session);
        }
        self.parked.retain(|(parked, _)| *parked != follower);
        self.decide(ctx, Duration::ZERO, move |state, now| state.leave(follower, now));
        self.arm_idle(ctx);
    }
}

impl Handler<Unload> for DocumentActor {
    type Result = ();

    fn handle(&mut self, _: Unload, ctx: &mut Context<Self>) {
        if self.outputs.is_empty() {
            self.unload_if_idle(ctx);
        }
    }
}

impl Handler<Regrant> for DocumentActor {
    type Result = ();

    fn handle(&mut self, Regrant(standings): Regrant, ctx: &mut Context<Self>) {
        self.decide(ctx, Duration::ZERO, move |state, now| state.regrant(&standings, now));
    }
}

impl Handler<HeadMoved> for DocumentActor {
    type Result = ();

    fn handle(&mut self, HeadMoved(head): HeadMoved, ctx: &mut Context<Self>) {
        self.decide(ctx, Duration::ZERO, move |state, _| state.head_moved(head));
    }
}

impl Handler<Write> for DocumentActor {
    type Result = ResponseFuture<Result<Written, WriteRefused>>;

    fn handle(&mut self, write: Write, ctx: &mut Context<Self>) -> Self::Result {
        self.routed += 1;
        let unavailable = WriteRefused::Unavailable { retry_after_s: 1 };
        if let Some(refused) = self.failed {
            let refused = match refused {
                JoinRefused::Deleted => WriteRefused::Deleted,
                JoinRefused::Unavailable | JoinRefused::Full => unavailable,
            };
            return Box::pin(async move { Err(refused) });
        }
        let (answer, answered) = oneshot::channel();
        let effort = self.effort(|state| state.effort_to_write(&write.update));
        self.decide(ctx, effort, move |state, now| {
            let mut effects = state.write(write.by, write.update, write.idempotency, answer);
            effects.extend(state.advance(now));
            effects
        });
        self.arm_idle(ctx);
        Box::pin(async move { answered.await.unwrap_or(Err(unavailable)) })
    }
}

impl Handler<Read> for DocumentActor {
    type Result = ResponseFuture<Result<(Position, Bytes), ReadRefused>>;

    fn handle(&mut self, _: Read, ctx: &mut Context<Self>) -> Self::Result {
        self.routed += 1;
        self.arm_idle(ctx);
        let unavailable = ReadRefused::Unavailable { retry_after_s: 1 };
        if let Some(refused) = self.failed {
            let refused = if refused == JoinRefused::Deleted { ReadRefused::Deleted } else { unavailable };
            return Box::pin(async move { Err(refused) });
        }
        let (answer, answered) = oneshot::channel();
        let effort = self.effort(DocumentState::effort_to_encode);
        let read = |state: &mut DocumentState, now| {
            let read = state.read(now);
            (state.take_effects(), read)
        };
        self.decide_and(ctx, effort, read, |_, read, _| {
            let _ = answer.send(read); // a request that has gone needs none
        });
        Box::pin(async move { answered.await.ok().flatten().ok_or(unavailable) })
    }
}

impl Handler<Drain> for DocumentActor {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, drain: Drain, ctx: &mut Context<Self>) -> Self::Result {
        let (settled, wait) = oneshot::channel();
        self.draining = Some(settled);
        self.after(ctx);
        let wait = async move {
            let _ = tokio::time::timeout(drain.patience, wait).await; // what is not committed by then was not acknowledged either
        };
        Box::pin(wait.into_actor(self).map(|(), actor, ctx| {
            if actor.failed.is_none() {
                actor.die(close::SERVICE_RESTART, "server restarts", ctx);
            }
        }))
    }
}
