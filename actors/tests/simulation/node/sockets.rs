//! A node's sockets: sessions of production between frames and the document.

use super::*;

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
    pub(super) fn is_talking(&self) -> bool {
        !self.is_open || !self.inbound.is_empty() || self.is_gone
    }
}

impl Node {
    pub fn accept(&mut self, session: SessionId, dialect: Dialect, user: UserId, shared: &Shared) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::new(shared.limits.outbox_bytes_max));
        let state = SessionState::new(dialect, shared.limits.clone());
        let socket = Socket {
            dialect,
            user,
            session: state,
            outbox: outbox.clone(),
            inbound: VecDeque::new(),
            is_gone: false,
            is_open: false,
            followers: BTreeMap::new(),
        };
        self.sockets.insert(session, socket);
        outbox
    }

    /// Reads frames of one socket, unless the document is being loaded, or too much of the connection waits.
    pub fn hear(&mut self, which: usize, frames: usize, shared: &mut Shared) {
        let talking: Vec<SessionId> =
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
            .filter(|(_, (_, detached))| detached.code().is_some())
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
            let effects = socket
                .session
                .hear(read.into_iter().map(contextnexus_actors::session::messages::ClientMessage::Binary));
            self.perform_session(connection, effects, shared);
        }
        if is_over && let Some(socket) = self.sockets.remove(&connection) {
            for (follower, _) in socket.followers.into_values() {
                self.leave(follower, shared);
            }
        }
    }

    fn leave(&mut self, follower: FollowerId, shared: &mut Shared) {
        self.outputs.remove(follower);
        self.turn(shared, |state, now| state.leave(follower, now));
    }

    fn perform_session(&mut self, session: SessionId, effects: Vec<SessionEffect>, shared: &mut Shared) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            let Some(socket) = self.sockets.get_mut(&session) else { return };
            match effect {
                SessionEffect::Open { address, attachment, .. } => {
                    let id = FollowerId { session, attachment };
                    let detached = Arc::new(Detached::default());
                    socket.followers.insert(address.clone(), (id, detached.clone()));
                    let (dialect, user) = (socket.dialect, socket.user);
                    let output = FollowerOutput::new(dialect, address.clone(), socket.outbox.clone(), detached);
                    self.outputs.insert(id, output);
                    let follower = Follower::new(dialect, user, UserSessionId(user.0), Role::Editor);
                    self.turn(shared, |state, now| state.join(id, follower, now));
                    let Some(socket) = self.sockets.get_mut(&session) else { return };
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
                    let _ = socket.outbox.push_control(encode(
                        &address,
                        Message::Authenticated(contextnexus_actors::document::follower_output::scope(may_write)),
                    ));
                }
                SessionEffect::Leave { .. }
                | SessionEffect::Detached { .. }
                | SessionEffect::OpenLater { .. }
                | SessionEffect::Renew { .. }
                | SessionEffect::Pong => {}
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
                self.outputs.send(follower, &Outgoing::Status(true));
            }
            *self.given.entry(follower).or_default() += updates;
        }
        let is_sending = inputs.iter().any(Input::is_question) && self.outputs.is_sending_state(follower);
        self.turn(shared, |state, now| state.deliver(follower, inputs, is_sending, now));
    }
}
