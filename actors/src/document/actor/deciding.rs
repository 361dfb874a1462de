//! How an actor has its state decide: at once, in turns with the other tasks of its thread, or aside.

use super::DocumentActor;
use crate::aside::{ASIDE_FROM, done_aside};
use crate::document::close;
use crate::document::messages::Effect;
use crate::document::state::DocumentState;
use crate::ports::log::Tail;
use actix::fut::ActorFutureExt as _;
use actix::{AsyncContext as _, Context, WrapFuture as _};
use std::time::{Duration, Instant};

/// What a decision takes at least, messages and effects included …
const DECISION: Duration = Duration::from_micros(50);
/// … and how much of it is done before the other tasks of the thread have their turn.
const TURN: Duration = Duration::from_millis(1);

/// Something to be done when the state is back.
pub(super) type Deferred = Box<dyn FnOnce(&mut DocumentActor, &mut Context<DocumentActor>) + Send>;

impl DocumentActor {
    /// Lets the state decide and performs what it wants.
    pub(super) fn decide(
        &mut self,
        ctx: &mut Context<Self>,
        effort: Duration,
        decide: impl FnOnce(&mut DocumentState, Instant) -> Vec<Effect> + Send + 'static,
    ) {
        self.decide_and(ctx, effort, move |state, now| (decide(state, now), ()), |_, (), _| {});
    }

    /// The same, and then goes on with what else the state answered. A decision that may take long is made aside; the mailbox waits for it, and so
    /// does all else that this document does.
    pub(super) fn decide_and<T: Send + 'static>(
        &mut self,
        ctx: &mut Context<Self>,
        effort: Duration,
        decide: impl FnOnce(&mut DocumentState, Instant) -> (Vec<Effect>, T) + Send + 'static,
        then: impl FnOnce(&mut Self, T, &mut Context<Self>) + Send + 'static,
    ) {
        if self.is_aside {
            let again = move |actor: &mut Self, ctx: &mut Context<Self>| actor.decide_and(ctx, effort, decide, then);
            return self.deferred.push(Box::new(again));
        }
        let now = self.ports.clock.instant();
        if effort < ASIDE_FROM {
            let Some(state) = &mut self.state else { return };
            let (effects, answer) = decide(state, now);
            self.decided(effects, answer, then, ctx);
            return self.take_turns(effort, ctx);
        }
        let Some(mut state) = self.state.take() else { return };
        self.is_aside = true;
        let (aside, tenant) = (self.ports.aside.clone(), self.key.tenant);
        let decided = async move {
            let decided = move || {
                let decided = decide(&mut state, now);
                (state, decided)
            };
            done_aside(aside.as_ref(), tenant, decided).await
        };
        ctx.wait(decided.into_actor(self).map(|decided, actor, ctx| {
            actor.is_aside = false;
            match decided {
                Some((state, (effects, answer))) => {
                    actor.state = Some(state);
                    actor.decided(effects, answer, then, ctx);
                }
                None => actor.die(close::SERVICE_RESTART, "document is rebuilt", ctx),
            }
            for again in std::mem::take(&mut actor.deferred) {
                again(actor, ctx);
            }
        }));
    }

    /// Does this at once, or when the state is back: how long it takes can be guessed only then.
    pub(super) fn when_here(
        &mut self,
        ctx: &mut Context<Self>,
        go: impl FnOnce(&mut Self, &mut Context<Self>) + Send + 'static,
    ) {
        if self.is_aside {
            return self.deferred.push(Box::new(go));
        }
        go(self, ctx);
    }

    /// An actor goes on for as long as its mailbox is not empty, and other threads may fill it as fast as it is emptied.
    fn take_turns(&mut self, effort: Duration, ctx: &mut Context<Self>) {
        self.turn += effort + DECISION;
        if self.turn >= TURN {
            self.turn = Duration::ZERO;
            ctx.wait(tokio::task::yield_now().into_actor(self));
        }
    }

    fn decided<T>(
        &mut self,
        effects: Vec<Effect>,
        answer: T,
        then: impl FnOnce(&mut Self, T, &mut Context<Self>),
        ctx: &mut Context<Self>,
    ) {
        self.perform(effects, ctx);
        then(self, answer, ctx);
        self.after(ctx);
    }

    /// How long a decision may take.
    pub(super) fn effort(&self, of: impl FnOnce(&DocumentState) -> Duration) -> Duration {
        self.state.as_ref().map_or(Duration::ZERO, of)
    }

    pub(super) fn effort_to_take_in(&self, tail: Option<&Tail>) -> Duration {
        tail.map_or(Duration::ZERO, |tail| self.effort(|state| state.effort_to_take_in(tail)))
    }
}
