//! What is asked of clients again, and rights that change under them.

use super::*;

impl DocumentState {
    /// The log's head was looked at: whoever still has a gap is asked, again as soon as what was missing is there, otherwise
    /// after 2, 4 … 30 s.
    pub(super) fn ask_about_gaps(&mut self, now: Instant) {
        // A step 2 can be large: it is asked for when there is room for it, and a log to take it.
        if self.is_log_away() || 2 * self.waiting_bytes > self.limits.document_waiting_bytes_max {
            return;
        }
        let index = &self.index;
        let (mut ask, mut hopeless) = (Vec::new(), Vec::new());
        for (id, follower) in &mut self.followers {
            if follower.is_gone {
                continue;
            }
            if follower.is_answering(now) {
                continue; // a large answer may be under way: a second one would be as large
            }
            let Some(gap) = &mut follower.gap else { continue };
            let filled = !gap.missing.is_empty()
                && gap.missing.iter().all(|(client, clock)| index.next_clock(*client) >= *clock);
            let due = gap.ask_at.is_none_or(|at| now >= at);
            if due && gap.is_hopeless() {
                hopeless.push(*id);
            } else if due || filled {
                if filled {
                    gap.missing.clear(); // once
                }
                gap.asked(now);
                ask.push(*id);
            }
        }
        self.ask(&ask, now);
        for id in hopeless {
            self.close(id, close::FORK, "another user is connected under your client id: copy your text, then reload");
        }
    }

    /// PostgreSQL is back: whoever had something dropped is asked for it, now or as soon as there is room.
    pub(super) fn ask_for_what_was_dropped(&mut self, now: Instant) {
        for follower in self.followers.values_mut().filter(|follower| follower.is_owed() && !follower.is_gone) {
            follower.gap.get_or_insert_with(|| Gap::new(Vec::new())).ask_at = None;
        }
        self.ask_about_gaps(now);
        self.wake_slowly(now);
    }

    pub(super) fn regrant_all(&mut self, standings: &[(RightInUse, Standing)], now: Instant) {
        for (right, standing) in standings {
            let affected: Vec<FollowerId> = self
                .followers
                .iter()
                .filter(|(_, follower)| follower.user_session == right.user_session && follower.user == right.user)
                .map(|(id, _)| *id)
                .collect();
            for id in affected {
                match standing {
                    Standing::Granted(grant) => {
                        let could_write = self.followers.get(&id).is_some_and(|follower| follower.role.may_write());
                        self.grant(id, grant.role, grant.until, now);
                        if could_write != grant.role.may_write() {
                            self.tell_scope(id, grant.role.may_write(), now);
                        }
                    }
                    Standing::SessionEnded
                        if self.followers.get(&id).is_some_and(|follower| follower.is_expiring(now)) =>
                    {
                        self.expire(id, now);
                    }
                    Standing::SessionEnded => {
                        self.expel(id, close::UNAUTHORIZED, "session ended", true, now);
                    }
                    Standing::Forbidden => self.expel(id, close::FORBIDDEN, "not a member", false, now),
                    Standing::Deleted => self.expel(id, close::NOT_FOUND, "document deleted", false, now),
                    Standing::Gone => self.gone(),
                }
            }
        }
    }

    /// The right of a connection from now on. A client that may write now, and might not before, is asked for what it wrote meanwhile.
    pub(super) fn grant(&mut self, id: FollowerId, role: Role, until: Option<Instant>, now: Instant) {
        let Some(follower) = self.followers.get_mut(&id) else { return };
        let could_write = std::mem::replace(&mut follower.role, role).may_write();
        follower.lasts(until, now);
        let due = follower.right_due();
        let is_to_ask = role.may_write() && !could_write && !follower.is_gone;
        self.presence.regrant(id, role.may_write());
        if is_to_ask {
            self.doubt(id);
            self.ask(&[id], now);
        }
        self.right_due(due);
    }

    /// Tells a client that it may write, or only read. Hocuspocus has a message for either; y-websocket for the
    /// latter alone; Y-Sweet for none.
    fn tell_scope(&mut self, id: FollowerId, may_write: bool, now: Instant) {
        let Some(follower) = self.followers.get_mut(&id) else { return };
        match follower.dialect {
            Dialect::Hocuspocus => self.send(id, Outgoing::Scope(may_write)),
            Dialect::YWebsocket if !may_write => {
                follower.told_read_only_at = Some(now);
                self.send(id, Outgoing::ReadOnly);
            }
            Dialect::YWebsocket | Dialect::YSweet => {}
        }
    }

    /// A right is to be looked at by then.
    pub(super) fn right_due(&mut self, at: Option<Instant>) {
        self.rights_due = [self.rights_due, at].into_iter().flatten().min();
    }

    /// Ends the rights whose time is over, and asks for fresh tokens where it soon is. No query: the ends were looked up with the rights.
    pub(super) fn end_rights(&mut self, now: Instant) {
        let (mut ended, mut ask) = (Vec::new(), Vec::new());
        self.rights_due = None;
        for (id, follower) in self.followers.iter_mut().filter(|(_, follower)| !follower.is_gone) {
            if follower.has_expired(now) {
                ended.push(*id);
                continue;
            }
            if follower.ask_token_at.take_if(|at| now >= *at).is_some() {
                ask.push(*id);
            }
            self.rights_due = [self.rights_due, follower.right_due()].into_iter().flatten().min();
        }
        for id in ask {
            self.send(id, Outgoing::TokenRequest);
        }
        for id in ended {
            self.expire(id, now);
        }
    }

    fn expire(&mut self, id: FollowerId, now: Instant) {
        self.expel(id, close::EXPIRED, "the token has expired; come back with a fresh one", false, now);
    }

    pub(super) fn expel(&mut self, id: FollowerId, code: u16, reason: &'static str, whole_socket: bool, now: Instant) {
        if let Some(follower) = self.followers.get_mut(&id) {
            follower.role = Role::Viewer;
            follower.leave();
            if follower.waiting == 0 {
                self.followers.remove(&id);
            }
        }
        self.presence.leave(id, now);
        self.effects.push(Effect::Close { follower: id, code, reason: reason.into(), whole_socket });
        self.flush_presence(now);
    }
}
