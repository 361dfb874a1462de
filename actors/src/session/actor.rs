//! The shell around [`SessionState`].

use super::keep_alive::{self, KeepAlive};
use super::messages::{Disconnected, Inbound};
use super::state::{Effect, SessionState};
use super::{Authentication, Opening, Services};
use crate::access::{Caller, Grant, Token};
use crate::budget::Share;
use crate::counted::Counted;
use crate::document::actor::DocumentActor;
use crate::document::follower_output::scope;
use crate::document::messages::{Attachments, Deliver, Detached, Join, JoinRefused, Leave, Renew};
use crate::document::{FollowerId, close};
use crate::hosting::messages::Route;
use crate::ids::{DocumentKey, SessionId, UserId};
use crate::outbox::Outbox;
use crate::ports::authority::{AccessDenied, RoomName};
use crate::protocol::Dialect;
use crate::protocol::codec::{EMPTY_AWARENESS, Message, encode, name_of, pong_frame};
use crate::protocol::frame::close_frame;
use actix::prelude::*;
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tracing::debug;

/// The pump has one message under way, completions and the tick come by themselves.
const MAILBOX_CAPACITY: usize = 16;

/// One connection.
#[derive(Debug)]
pub struct SessionActor {
    session: SessionId,
    dialect: Dialect,
    /// y-websocket and Y-Sweet: the room of the path.
    asked: Option<String>,
    token: Option<Token>,
    /// Checked once per connection and token: a socket with a thousand documents asks once.
    checked: Option<(Token, Caller)>,
    user: Option<UserId>,
    outbox: Arc<Outbox>,
    authentication: Arc<Authentication>,
    services: Arc<Services>,
    state: SessionState,
    attached: HashMap<Bytes, Attachment>,
    /// What documents and this session know of them together.
    attachments: Arc<Attachments>,
    /// What was delivered last. Whoever speaks again waits until that was taken, so that nobody has to be woken to hear of it.
    under_way: Vec<oneshot::Receiver<()>>,
    /// What is being heard takes so much of the node's budget.
    share: Option<Arc<Share>>,
    keep_alive: KeepAlive,
}

#[derive(Debug)]
struct Attachment {
    key: DocumentKey,
    follower: FollowerId,
    document: Addr<DocumentActor>,
    detached: Arc<Detached>,
    /// With which token, for closes that repeat.
    token: Option<Token>,
}

/// What opening a channel brought.
#[derive(Debug)]
struct Opened {
    caller: Caller,
    key: DocumentKey,
    document: Addr<DocumentActor>,
    may_write: bool,
}

/// What a channel is to be opened with.
struct Asked {
    address: Bytes,
    token: Option<String>,
    room: RoomName,
    attachment: u32,
    knows_close: bool,
}

/// Starts the session of a new connection on the current arbiter.
pub fn start(opening: Opening, services: Arc<Services>) -> Addr<SessionActor> {
    let state = SessionState::new(opening.dialect, services.ports.limits.clone());
    SessionActor {
        session: opening.session,
        dialect: opening.dialect,
        asked: opening.room,
        token: opening.token,
        checked: None,
        user: None,
        outbox: opening.outbox,
        authentication: opening.authentication,
        services,
        state,
        attached: HashMap::new(),
        attachments: Arc::default(),
        under_way: Vec::new(),
        share: None,
        keep_alive: KeepAlive::default(),
    }
    .start()
}

impl SessionActor {
    /// Performs what the state wants. What it delivers is under way until its document has taken it.
    fn perform(&mut self, effects: Vec<Effect>, ctx: &mut Context<Self>) {
        for effect in effects {
            match effect {
                Effect::Deliver { address, inputs } => {
                    let Some(Attachment { follower, document, .. }) = self.attached.get(&address) else { continue };
                    let (taken, is_taken) = oneshot::channel();
                    let share = self.share.clone();
                    match document.try_send(Deliver { follower: *follower, inputs, share, taken }) {
                        Ok(()) => self.under_way.push(is_taken),
                        // There is room for two of everybody's, and nobody has more under way.
                        Err(SendError::Full(_)) => self.close(close::TRY_AGAIN_LATER, "try again later"),
                        // The document died under us; whoever reconnects finds a sound one.
                        Err(SendError::Closed(_)) => self.close(close::SERVICE_RESTART, "document is rebuilt"),
                    }
                }
                Effect::Open { address, token, room, attachment, knows_close } => {
                    self.open(Asked { address, token, room, attachment, knows_close }, ctx);
                }
                Effect::OpenLater { address, attachment, after } => self.open_later(address, attachment, after, ctx),
                Effect::Renew { address, token, room } => self.renew(address, Token(token), room, ctx),
                Effect::Authenticated { address, may_write } => {
                    self.push(encode(&address, Message::Authenticated(scope(may_write))));
                }
                Effect::Leave { address } => self.leave(&address, ctx),
                Effect::Detached { address } => self.push(encode(&address, Message::Closed("provider_initiated"))),
                Effect::Refuse { address, attachment, token, code, reason } => {
                    self.refuse(address, attachment, (token, code, reason), ctx);
                }
                Effect::Pong => self.push(pong_frame()),
                Effect::Close { code, reason } => self.close(code, reason),
            }
        }
    }

    fn close(&self, code: u16, reason: &'static str) {
        let (code, reason) = match code {
            // What could not be had because this node goes.
            close::TRY_AGAIN_LATER if self.services.is_draining() => (close::SERVICE_RESTART, "server restarts"),
            _ => (code, reason),
        };
        metrics::counter!("contextnexus_closed_total", "code" => code.to_string()).increment(1);
        self.outbox.close(close_frame(code, reason));
    }

    fn open(&mut self, asked: Asked, ctx: &mut Context<Self>) {
        let Asked { address, token, room, attachment, knows_close } = asked;
        let token = self.presented(token);
        let now = self.services.ports.clock.instant();
        let after = self.services.closes.remaining(self.place(&token, &address), now);
        if !after.is_zero() {
            return self.open_later(address, attachment, after, ctx);
        }
        let checked = match (&self.checked, &token) {
            (Some((checked, caller)), Some(token)) if checked == token => Some(caller.clone()),
            _ => None,
        };
        let services = self.services.clone();
        let follower = FollowerId { session: self.session, attachment };
        let detached = Arc::new(Detached::new(self.attachments.clone()));
        let join = Join {
            follower,
            dialect: self.dialect,
            address: address.clone(),
            outbox: self.outbox.clone(),
            detached: detached.clone(),
            // Filled in when the caller is known.
            user: UserId(uuid::Uuid::nil()),
            user_session: crate::ids::UserSessionId(uuid::Uuid::nil()),
            role: crate::access::Role::Viewer,
            until: None,
            knows_close,
        };
        let presented = token.clone();
        let authentication = self.authentication.clone();
        let opening = async move { open_room(&services, (presented, checked), &room, join, &authentication).await };
        // The mailbox waits: what comes meanwhile stays in order, and a flood stays in the socket.
        ctx.wait(opening.into_actor(self).map(move |opened, actor, ctx| {
            let effects = match opened {
                Ok(opened) => actor.opened(&address, token, opened, follower, detached),
                Err(why) => actor.state.denied(&address, &why),
            };
            actor.perform(effects, ctx);
        }));
    }

    /// Hocuspocus: a document's own token decides; one that came with the upgrade stands in for an empty one.
    fn presented(&self, token: Option<String>) -> Option<Token> {
        token.filter(|token| !token.is_empty()).map(Token).or_else(|| self.token.clone())
    }

    /// What refusals and closes are counted by: the token that was really used (which names its tenant), and the room.
    fn place(&self, token: &Option<Token>, address: &Bytes) -> (Option<Token>, String) {
        let room = self.asked.as_deref().or_else(|| name_of(address)).unwrap_or_default();
        (token.clone(), room.to_owned())
    }

    fn open_later(&mut self, address: Bytes, attachment: u32, after: Duration, ctx: &mut Context<Self>) {
        ctx.run_later(after, move |actor, ctx| {
            let effects = actor.state.open_again(&address, attachment);
            actor.perform(effects, ctx);
        });
    }

    fn opened(
        &mut self,
        address: &Bytes,
        token: Option<Token>,
        opened: Opened,
        follower: FollowerId,
        detached: Arc<Detached>,
    ) -> Vec<Effect> {
        let Opened { caller, key, document, may_write } = opened;
        let user = caller.user;
        debug!(session.id = %self.session, user.id = %user, "joined a document");
        // First of all: whatever comes of it, the document is left when the connection ends.
        self.attached.insert(address.clone(), Attachment { key, follower, document, detached, token: token.clone() });
        self.attachments.set_count(self.attached.len());
        if self.user.is_none() {
            if !self.services.admit_user(user) {
                let (code, reason) = (close::TRY_AGAIN_LATER, "too many connections of this user");
                return vec![Effect::Close { code, reason }];
            }
            self.user = Some(user);
        }
        if let Some(token) = token {
            self.checked = Some((token, caller));
        }
        self.state.joined(address, may_write)
    }

    /// A fresh token for an open document. One that is not good changes nothing: the document stays open under the right that it has.
    fn renew(&mut self, address: Bytes, token: Token, room: RoomName, ctx: &mut Context<Self>) {
        let Some(token) = self.presented(Some(token.0)) else { return };
        let services = self.services.clone();
        let presented = token.clone();
        let renewing = async move {
            let authority = &services.ports.authority;
            let caller = authority.authenticate(&presented).await?;
            let grant = authority.open(&caller, &room).await?;
            Ok::<_, AccessDenied>((caller, grant))
        };
        ctx.wait(renewing.into_actor(self).map(move |renewed, actor, ctx| match renewed {
            Ok((caller, grant)) => actor.renewed(address, token, caller, &grant, ctx),
            Err(why) => debug!(session.id = %actor.session, "a fresh token was not taken: {why}"),
        }));
    }

    fn renewed(&mut self, address: Bytes, token: Token, caller: Caller, grant: &Grant, ctx: &mut Context<Self>) {
        let Some(attached) = self.attached.get_mut(&address) else { return };
        if attached.key != (DocumentKey { tenant: caller.tenant, document: grant.document }) {
            debug!(session.id = %self.session, "a fresh token was not taken: it is for another document");
            return;
        }
        let Grant { role, until, .. } = *grant;
        let renewal =
            Renew { follower: attached.follower, user: caller.user, user_session: caller.user_session, role, until };
        attached.token = Some(token.clone());
        let renewed = attached.document.send(renewal);
        self.checked = Some((token, caller));
        // Answered once it applies. A document that ended meanwhile has closed the connection, or lets it join again.
        ctx.wait(renewed.into_actor(self).map(move |renewed, actor, _| {
            if renewed.is_ok() {
                actor.push(encode(&address, Message::Authenticated(scope(role.may_write()))));
            }
        }));
    }

    /// What documents let go of is left, before the client can ask for it again.
    fn notice_detached(&mut self, ctx: &mut Context<Self>) {
        if !self.attachments.take_detached() {
            return;
        }
        let gone = self.attached.iter().filter(|(_, attached)| attached.detached.code().is_some());
        let gone: Vec<Bytes> = gone.map(|(address, _)| address.clone()).collect();
        for address in gone {
            self.note_close(&address);
            self.leave(&address, ctx);
            self.state.detached(&address);
        }
    }

    /// A client that was closed on for what it sent waits before it is let in again with the same.
    fn note_close(&self, address: &Bytes) {
        let Some(attached) = self.attached.get(address) else { return };
        if attached.detached.code().is_some_and(close::is_about_content) {
            let now = self.services.ports.clock.instant();
            let _ = self.services.closes.delay(self.place(&attached.token, address), now);
        }
    }

    fn leave(&mut self, address: &Bytes, ctx: &mut Context<Self>) {
        if let Some(attached) = self.attached.remove(address) {
            self.attachments.set_count(self.attached.len());
            let left = attached.document.send(Leave(attached.follower));
            ctx.spawn(async move { left.await.unwrap_or_default() }.into_actor(self)); // a document that ended needs no goodbye
        }
    }

    /// Says a refusal after a while, unless something has come of the channel by then.
    fn refuse(
        &mut self,
        address: Bytes,
        attachment: u32,
        (token, code, reason): (Option<String>, u16, &'static str),
        ctx: &mut Context<Self>,
    ) {
        metrics::counter!("contextnexus_refused_total", "code" => code.to_string()).increment(1);
        let place = self.place(&self.presented(token), &address);
        let after = self.services.refusals.delay(place, self.services.ports.clock.instant());
        ctx.run_later(after, move |actor, _| match actor.dialect {
            _ if !actor.state.is_refused(&address, attachment) => {}
            Dialect::Hocuspocus => actor.push(encode(&address, Message::PermissionDenied(reason))),
            Dialect::YWebsocket | Dialect::YSweet => actor.outbox.close(close_frame(code, reason)),
        });
    }

    /// An empty awareness for whoever was sent nothing of late.
    fn keep_alive(&mut self) {
        if !self.keep_alive.is_due(self.outbox.messages()) {
            return;
        }
        let address = match self.dialect {
            Dialect::Hocuspocus => self.state.joined_channels().next().cloned(),
            Dialect::YWebsocket | Dialect::YSweet => Some(Bytes::new()),
        };
        if let Some(address) = address {
            self.push(encode(&address, Message::Awareness(EMPTY_AWARENESS)));
        }
    }

    /// Small messages; a peer whose outbox is twice full of them is lost.
    fn push(&self, frame: Bytes) {
        if self.outbox.push_control(frame) == crate::outbox::Pushed::Full {
            self.outbox.close_now(close_frame(close::TRY_AGAIN_LATER, "too slow"));
        }
    }
}

/// The answer once all of them are taken: at once, as nearly always.
fn when_taken(mut deliveries: Vec<oneshot::Receiver<()>>) -> Response<()> {
    deliveries.retain_mut(|taken| matches!(taken.try_recv(), Err(TryRecvError::Empty)));
    if deliveries.is_empty() {
        return Response::reply(());
    }
    Response::fut(async move {
        join_all(deliveries).await; // a document that ends lets go of them
    })
}

async fn open_room(
    services: &Services,
    (token, checked): (Option<Token>, Option<Caller>),
    room: &RoomName,
    mut join: Join,
    authentication: &Authentication,
) -> Result<Opened, AccessDenied> {
    if services.is_draining() {
        return Err(AccessDenied::Unavailable);
    }
    let authority = &services.ports.authority;
    let caller = match (checked, token) {
        (Some(caller), _) => caller,
        (None, Some(token)) => authority.authenticate(&token).await?,
        (None, None) => return Err(AccessDenied::BadToken),
    };
    let grant = authority.open(&caller, room).await?;
    // Before the document asks for anything: the answer may be large.
    authentication.succeed();
    let key = DocumentKey { tenant: caller.tenant, document: grant.document };
    (join.user, join.user_session, join.role, join.until) = (caller.user, caller.user_session, grant.role, grant.until);
    // An instance that ends in the very moment of the join is replaced by the next.
    for _ in 0..3 {
        let waits = Counted::in_gauge("contextnexus_routes_waiting");
        let routed = services.documents.send(Route(key)).await.map_err(|_| AccessDenied::Unavailable)?;
        drop(waits);
        match routed.send(join.clone()).await {
            Ok(Ok(())) => return Ok(Opened { caller, key, document: routed, may_write: grant.role.may_write() }),
            Ok(Err(JoinRefused::Deleted)) => return Err(AccessDenied::Deleted),
            Ok(Err(JoinRefused::Full)) => return Err(AccessDenied::Full),
            Ok(Err(JoinRefused::Unavailable)) => return Err(AccessDenied::Unavailable),
            Err(_) => {}
        }
    }
    Err(AccessDenied::Unavailable)
}

impl Actor for SessionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX_CAPACITY);
        let limits = self.services.ports.limits.clone();
        let looks = keep_alive::interval(Duration::from_secs(limits.keepalive_s));
        ctx.run_interval(looks, |actor, _| actor.keep_alive());
        ctx.run_later(Duration::from_secs(limits.authentication_deadline_s), |actor, _| {
            if actor.state.is_unauthenticated() {
                actor.outbox.close(close_frame(close::TIMEOUT, "not authenticated in time"));
            }
        });
        if let Some(room) = self.asked.clone() {
            let effects = self.state.opened(&room);
            self.perform(effects, ctx);
        }
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        if let Some(user) = self.user {
            self.services.release_user(user);
        }
    }
}

impl Handler<Inbound> for SessionActor {
    type Result = Response<()>;

    fn handle(&mut self, Inbound { messages, share }: Inbound, ctx: &mut Context<Self>) -> Self::Result {
        self.notice_detached(ctx);
        let effects = self.state.hear(messages);
        let before = std::mem::take(&mut self.under_way);
        self.share = share;
        self.perform(effects, ctx);
        self.share = None;
        when_taken(before)
    }
}

impl Handler<Disconnected> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: Disconnected, ctx: &mut Context<Self>) {
        self.attached.keys().for_each(|address| self.note_close(address));
        let left: Vec<_> =
            self.attached.drain().map(|(_, attached)| attached.document.send(Leave(attached.follower))).collect();
        let goodbye = async move {
            join_all(left).await; // a document that ended needs no goodbye
        };
        ctx.spawn(goodbye.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}
