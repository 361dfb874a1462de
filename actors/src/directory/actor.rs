//! The directory's shell. What it decides is small enough to stand here: a map, counts, and who is asked about.

use super::Noticeboard;
use super::messages::{Census, CheckNow, Count, DrainAll, Host, Resign, Resigned, Route};
use crate::document::actor::DocumentActor;
use crate::document::messages::{Drain, HeadMoved, Regrant, Unload};
use crate::ids::{DocumentId, DocumentKey, Position, TenantId};
use crate::ports::Ports;
use crate::ports::authority::{RightInUse, Standing};
use crate::ports::log::Head;
use actix::prelude::*;
use futures_util::future::join_all;
use futures_util::stream;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Joins of a reconnect storm come at once, one from each session.
const MAILBOX_CAPACITY: usize = 4_096;
/// Heads are compared at every second poll: once a second by default.
const HEADS_EVERY: u64 = 2;

/// The documents of this node.
#[derive(Debug)]
pub struct Directory {
    ports: Ports,
    arbiters: Vec<ArbiterHandle>,
    open: HashMap<DocumentKey, Entry>,
    /// Access epoch at the last poll.
    epochs: HashMap<TenantId, u64>,
    /// Tenants that are being asked about right now: one poll at a time.
    polling: HashSet<TenantId>,
    /// Asked for while polling.
    poll_again: HashSet<TenantId>,
    polls: u64,
}

#[derive(Debug)]
struct Entry {
    address: Addr<DocumentActor>,
    noticeboard: Arc<Noticeboard>,
    routed: u64,
}

/// What one poll of a tenant brought.
struct News {
    epoch: Option<u64>,
    standings: Vec<(RightInUse, Standing)>,
    heads: Vec<(DocumentId, Head)>,
}

impl Directory {
    /// Nothing is open.
    pub(super) fn new(ports: Ports, arbiters: Vec<ArbiterHandle>) -> Self {
        Self {
            ports: ports,
            arbiters,
            open: HashMap::new(),
            epochs: HashMap::new(),
            polling: HashSet::new(),
            poll_again: HashSet::new(),
            polls: 0,
        }
    }

    fn address_of(&mut self, key: DocumentKey, directory: Addr<Self>) -> Addr<DocumentActor> {
        if let Some(entry) = self.open.get_mut(&key)
            && entry.address.connected()
        {
            entry.routed += 1;
            return entry.address.clone();
        }
        let noticeboard = Arc::new(Noticeboard::default());
        let document = DocumentActor::new(key, self.ports.clone(), directory, noticeboard.clone());
        let address = match self.arbiters.len() {
            0 => document.start(),
            many => {
                let place = (key.document.0.as_u128() % many as u128) as usize;
                DocumentActor::start_in_arbiter(&self.arbiters[place], |_| document)
            }
        };
        self.open.insert(key, Entry { address: address.clone(), noticeboard: noticeboard, routed: 1 });
        address
    }

    fn poll(&mut self, tenant: TenantId, with_heads: bool, ctx: &mut Context<Self>) {
        if !self.polling.insert(tenant) {
            self.poll_again.insert(tenant);
            return;
        }
        let mut rights = Vec::new();
        let mut positions: Vec<(DocumentId, Position)> = Vec::new();
        let mut since = self.epochs.get(&tenant).copied();
        for (key, entry) in self.open.iter().filter(|(key, _)| key.tenant == tenant) {
            positions.push((key.document, entry.noticeboard.position()));
            if entry.noticeboard.take_fresh() {
                since = None;
            }
            let here = entry.noticeboard.rights().into_iter();
            rights.extend(here.map(|(user, user_session)| RightInUse { user_session, user, document: key.document }));
        }
        let ports = self.ports.clone();
        let news = async move {
            let rechecked = ports.authority.recheck(tenant, since, &rights).await.ok();
            let heads = match with_heads {
                true => ports.log.changed_heads(tenant, &positions).await.unwrap_or_default(), // away: the next poll tells
                false => Vec::new(),
            };
            let (epoch, standings) = rechecked.map_or((None, Vec::new()), |news| (Some(news.epoch), news.standings));
            News { epoch, standings, heads }
        };
        ctx.spawn(news.into_actor(self).map(move |news, actor, ctx| actor.tell(tenant, news, ctx)));
    }

    fn tell(&mut self, tenant: TenantId, news: News, ctx: &mut Context<Self>) {
        self.polling.remove(&tenant);
        if let Some(epoch) = news.epoch {
            self.epochs.insert(tenant, epoch);
        }
        let mut by_document: HashMap<DocumentId, Vec<(RightInUse, Standing)>> = HashMap::new();
        for (right, standing) in news.standings {
            by_document.entry(right.document).or_default().push((right, standing));
        }
        let mut deliveries = Vec::new();
        for (document, standings) in by_document {
            if let Some(entry) = self.open.get(&DocumentKey { tenant, document }) {
                deliveries.push(entry.address.send(Regrant(standings)));
            }
        }
        let mut heads = Vec::new();
        for (document, head) in news.heads {
            if let Some(entry) = self.open.get(&DocumentKey { tenant, document }) {
                heads.push(entry.address.send(HeadMoved(head)));
            }
        }
        // A document that ended meanwhile needs no news.
        let told = async move {
            join_all(deliveries).await;
            join_all(heads).await;
        };
        ctx.spawn(told.into_actor(self));
        if self.poll_again.remove(&tenant) {
            self.poll(tenant, false, ctx);
        }
    }

    /// Over the budget, idle documents are asked to unload, as many as it takes.
    fn keep_within_memory(&mut self, ctx: &mut Context<Self>) {
        let used: usize = self.open.values().map(|entry| entry.noticeboard.bytes()).sum();
        let waiting: usize = self.open.values().map(|entry| entry.noticeboard.waiting_bytes()).sum();
        metrics::gauge!("contextnexus_documents").set(self.open.len() as f64);
        metrics::gauge!("contextnexus_documents_bytes").set(used as f64);
        metrics::gauge!("contextnexus_waiting_bytes").set(waiting as f64);
        let fullest = self.open.values().map(|entry| entry.noticeboard.waiting_bytes()).max().unwrap_or(0);
        metrics::gauge!("contextnexus_waiting_bytes_of_fullest").set(fullest as f64);
        let recent: usize = self.open.values().map(|entry| entry.noticeboard.recent_bytes()).sum();
        metrics::gauge!("contextnexus_recent_bytes").set(recent as f64);
        let budgets = &self.ports.budgets;
        metrics::gauge!("contextnexus_arriving_bytes").set(budgets.arriving.used() as f64);
        metrics::gauge!("contextnexus_unauthenticated_bytes").set(budgets.strangers.used() as f64);
        metrics::gauge!("contextnexus_presence_bytes").set(budgets.presence.used() as f64);
        let mut excess = used.saturating_sub(self.ports.limits.documents_bytes_max);
        let mut asked = Vec::new();
        for entry in self.open.values().filter(|entry| entry.noticeboard.is_idle()) {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(entry.noticeboard.bytes());
            asked.push(entry.address.send(Unload));
        }
        let asked = async move {
            join_all(asked).await; // one that ended meanwhile has unloaded
        };
        ctx.spawn(asked.into_actor(self));
    }

    fn poll_all(&mut self, ctx: &mut Context<Self>) {
        self.polls += 1;
        let with_heads = self.polls.is_multiple_of(HEADS_EVERY);
        self.keep_within_memory(ctx);
        let tenants: HashSet<TenantId> = self.open.keys().map(|key| key.tenant).collect();
        self.epochs.retain(|tenant, _| tenants.contains(tenant));
        for tenant in tenants {
            self.poll(tenant, with_heads, ctx);
        }
    }
}

impl Actor for Directory {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
        let interval = Duration::from_millis(self.ports.limits.check_interval_ms);
        ctx.run_interval(interval, |actor, ctx| actor.poll_all(ctx));
        let bus = self.ports.bus.clone();
        let subscribed = async move { bus.subscribe_access().await }.into_actor(self);
        ctx.spawn(subscribed.map(|mut tenants, _, ctx| {
            ctx.add_stream(stream::poll_fn(move |cx| tenants.poll_recv(cx)));
        }));
    }
}

impl StreamHandler<TenantId> for Directory {
    fn handle(&mut self, tenant: TenantId, ctx: &mut Context<Self>) {
        self.poll(tenant, false, ctx);
    }

    /// The bus let go of us: the interval stands in for it.
    fn finished(&mut self, _: &mut Context<Self>) {}
}

impl Handler<Route> for Directory {
    type Result = MessageResult<Route>;

    fn handle(&mut self, Route(key): Route, ctx: &mut Context<Self>) -> Self::Result {
        MessageResult(self.address_of(key, ctx.address()))
    }
}

impl Handler<Host> for Directory {
    type Result = ();

    fn handle(&mut self, Host(arbiter): Host, _: &mut Context<Self>) {
        self.arbiters = vec![arbiter];
    }
}

impl Handler<Resign> for Directory {
    type Result = bool;

    fn handle(&mut self, resign: Resign, _: &mut Context<Self>) -> bool {
        match self.open.get(&resign.key) {
            Some(entry) if Arc::ptr_eq(&entry.noticeboard, &resign.noticeboard) => {
                let agreed = entry.routed == resign.routed;
                if agreed {
                    self.open.remove(&resign.key);
                }
                agreed
            }
            _ => true, // forgotten already
        }
    }
}

impl Handler<Resigned> for Directory {
    type Result = ();

    fn handle(&mut self, resigned: Resigned, _: &mut Context<Self>) {
        if self.open.get(&resigned.key).is_some_and(|entry| Arc::ptr_eq(&entry.noticeboard, &resigned.noticeboard)) {
            self.open.remove(&resigned.key);
        }
    }
}

impl Handler<CheckNow> for Directory {
    type Result = ();

    fn handle(&mut self, CheckNow(tenant): CheckNow, ctx: &mut Context<Self>) {
        self.poll(tenant, false, ctx);
    }
}

impl Handler<Count> for Directory {
    type Result = Census;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> Census {
        let waiting_bytes = self.open.values().map(|entry| entry.noticeboard.waiting_bytes()).sum();
        Census { documents: self.open.len(), waiting_bytes }
    }
}

impl Handler<DrainAll> for Directory {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, drain: DrainAll, _: &mut Context<Self>) -> Self::Result {
        let patience = drain.patience;
        let drained: Vec<_> = self.open.values().map(|entry| entry.address.send(Drain { patience })).collect();
        Box::pin(async move {
            join_all(drained).await; // one that ended by itself has nothing left to commit
        })
    }
}
