//! The host's shell: starts actors, asks PostgreSQL about them, and tells them what changed.

use super::messages::{CheckNow, Drain, DrainAll, Ended, HeadMoved, Regrant, Resign, Route, RunOn, Unload};
use super::state::{HostState, HostedKey, Instance};
use super::{Hosted, Noticeboard, Start};
use crate::ids::TenantId;
use crate::ports::Ports;
use crate::ports::authority::{Place, RightInUse, Standing};
use crate::ports::log::Head;
use actix::prelude::*;
use futures_util::future::join_all;
use futures_util::stream;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// After a cut thousands of sessions join together.
const MAILBOX_CAPACITY: usize = 4_096;

/// The open actors of one kind on this node.
#[derive(Debug)]
pub struct Host<A: Hosted> {
    ports: Ports,
    arbiters: Vec<ArbiterHandle>,
    state: HostState<A::Key, Reached<A>>,
}

/// How an open actor is reached.
#[derive(Debug)]
struct Reached<A: Actor> {
    address: Addr<A>,
    noticeboard: Arc<Noticeboard>,
}

/// What one poll of a tenant brought.
struct News<K> {
    epoch: Option<u64>,
    standings: Vec<(RightInUse, Standing)>,
    heads: Vec<(K, Head)>,
}

impl<A: Hosted> Host<A> {
    /// Nothing is open.
    pub(super) fn new(ports: Ports, arbiters: Vec<ArbiterHandle>) -> Self {
        Self { ports, arbiters, state: HostState::default() }
    }

    fn poll(&mut self, tenant: TenantId, with_heads: bool, ctx: &mut Context<Self>) {
        if !self.state.begin_poll(tenant) {
            return;
        }
        let (mut rights, mut positions) = (Vec::new(), Vec::new());
        let mut since = self.state.epoch(tenant);
        for (key, Reached { noticeboard, .. }) in self.state.iter().filter(|(key, _)| key.tenant() == tenant) {
            positions.push((key, noticeboard.status().position));
            if noticeboard.take_fresh() {
                since = None;
            }
            let (here, place) = (noticeboard.rights().into_iter(), key.place());
            rights.extend(here.map(|(user, user_session)| RightInUse { user_session, user, place }));
        }
        let ports = self.ports.clone();
        let news = async move {
            let rechecked = ports.authority.recheck(tenant, since, &rights).await.ok();
            let heads = match with_heads {
                true => A::changed_heads(&ports, tenant, positions).await,
                false => Vec::new(),
            };
            let (epoch, standings) = rechecked.map_or((None, Vec::new()), |news| (Some(news.epoch), news.standings));
            News { epoch, standings, heads }
        };
        ctx.spawn(news.into_actor(self).map(move |news, actor, ctx| actor.tell(tenant, news, ctx)));
    }

    fn tell(&mut self, tenant: TenantId, news: News<A::Key>, ctx: &mut Context<Self>) {
        let is_polled_again = self.state.end_poll(tenant, news.epoch);
        let mut by_place: HashMap<Place, Vec<(RightInUse, Standing)>> = HashMap::new();
        for (right, standing) in news.standings {
            by_place.entry(right.place).or_default().push((right, standing));
        }
        let of = |place| A::Key::at(tenant, place).and_then(|key| self.state.get(key));
        let regrants: Vec<_> = by_place
            .into_iter()
            .filter_map(|(place, standings)| Some(of(place)?.address.send(Regrant(standings))))
            .collect();
        let heads: Vec<_> = news
            .heads
            .into_iter()
            .filter_map(|(key, head)| Some(self.state.get(key)?.address.send(HeadMoved(head))))
            .collect();
        // One that ended meanwhile needs no news.
        let told = async move {
            join_all(regrants).await;
            join_all(heads).await;
        };
        ctx.spawn(told.into_actor(self));
        if is_polled_again {
            self.poll(tenant, false, ctx);
        }
    }

    /// Above the limit, idle actors are asked to unload.
    fn keep_within_memory(&mut self, ctx: &mut Context<Self>) {
        let bytes_max = self.ports.limits.documents_bytes_max;
        let idle = self.state.to_unload(|reached| reached.noticeboard.status(), bytes_max);
        let asked: Vec<_> = idle.into_iter().map(|reached| reached.address.send(Unload)).collect();
        let asked = async move {
            join_all(asked).await; // one that ended meanwhile has unloaded
        };
        ctx.spawn(asked.into_actor(self));
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        A::count(&self.ports, self.state.iter().map(|(_, reached)| reached.noticeboard.status()));
        self.keep_within_memory(ctx);
        let (tenants, with_heads) = self.state.tick();
        for tenant in tenants {
            self.poll(tenant, with_heads, ctx);
        }
    }
}

impl<A: Hosted> Actor for Host<A> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
        let interval = Duration::from_millis(self.ports.limits.check_interval_ms);
        ctx.run_interval(interval, |actor, ctx| actor.tick(ctx));
        let bus = self.ports.bus.clone();
        let subscribed = async move { bus.subscribe_access().await }.into_actor(self);
        ctx.spawn(subscribed.map(|mut tenants, _, ctx| {
            ctx.add_stream(stream::poll_fn(move |cx| tenants.poll_recv(cx)));
        }));
    }
}

impl<A: Hosted> StreamHandler<TenantId> for Host<A> {
    fn handle(&mut self, tenant: TenantId, ctx: &mut Context<Self>) {
        self.poll(tenant, false, ctx);
    }

    /// The bus dropped its end: the interval does without it.
    fn finished(&mut self, _: &mut Context<Self>) {}
}

impl<A: Hosted> Handler<Route<A>> for Host<A> {
    type Result = MessageResult<Route<A>>;

    fn handle(&mut self, Route(key): Route<A>, ctx: &mut Context<Self>) -> Self::Result {
        let (ports, arbiters, host) = (&self.ports, &self.arbiters, ctx.address());
        let start = |instance: Instance| {
            let noticeboard = Arc::new(Noticeboard::default());
            let start = Start { key, instance, ports: ports.clone(), host, noticeboard: noticeboard.clone() };
            let address = match arbiters.get((key.spread() % arbiters.len().max(1) as u128) as usize) {
                None => A::new(start).start(),
                Some(arbiter) => A::start_in_arbiter(arbiter, |_| A::new(start)),
            };
            Reached { address, noticeboard }
        };
        let reached = self.state.route(key, |reached| reached.address.connected(), start);
        MessageResult(reached.address.clone())
    }
}

impl<A: Hosted> Handler<RunOn> for Host<A> {
    type Result = ();

    fn handle(&mut self, RunOn(arbiter): RunOn, _: &mut Context<Self>) {
        self.arbiters = vec![arbiter];
    }
}

impl<A: Hosted> Handler<Resign<A>> for Host<A> {
    type Result = bool;

    fn handle(&mut self, resign: Resign<A>, _: &mut Context<Self>) -> bool {
        self.state.resign(resign.key, resign.instance, resign.heard)
    }
}

impl<A: Hosted> Handler<Ended<A>> for Host<A> {
    type Result = ();

    fn handle(&mut self, ended: Ended<A>, _: &mut Context<Self>) {
        self.state.ended(ended.key, ended.instance);
    }
}

impl<A: Hosted> Handler<CheckNow> for Host<A> {
    type Result = ();

    fn handle(&mut self, CheckNow(tenant): CheckNow, ctx: &mut Context<Self>) {
        self.poll(tenant, false, ctx);
    }
}

impl<A: Hosted> Handler<DrainAll> for Host<A> {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, DrainAll { patience }: DrainAll, _: &mut Context<Self>) -> Self::Result {
        let drained: Vec<_> = self.state.iter().map(|(_, reached)| reached.address.send(Drain { patience })).collect();
        Box::pin(async move {
            join_all(drained).await; // one that ended by itself has nothing left to commit
        })
    }
}
