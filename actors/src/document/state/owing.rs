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
        for (follower, member) in &mut self.members {
            if member.left {
                continue;
            }
            if member.is_answering(now) {
                continue; // a large answer may be under way: a second one would be as large
            }
            let Some(gap) = &mut member.gap else { continue };
            let filled = !gap.missing.is_empty()
                && gap.missing.iter().all(|(client, clock)| index.next_clock(*client) >= *clock);
            let due = gap.ask_at.is_none_or(|at| now >= at);
            if due && gap.is_hopeless() {
                hopeless.push(*follower);
            } else if due || filled {
                if filled {
                    gap.missing.clear(); // once
                }
                gap.asked(now);
                ask.push(*follower);
            }
        }
        self.ask(&ask, now);
        for follower in hopeless {
            self.close(
                follower,
                close::FORK,
                "another user is connected under your client id: copy your text, then reload",
            );
        }
    }

    /// PostgreSQL is back: whoever had something dropped is asked for it, now or as soon as there is room.
    pub(super) fn ask_for_what_was_dropped(&mut self, now: Instant) {
        for member in self.members.values_mut().filter(|member| member.is_owed() && !member.left) {
            member.gap.get_or_insert_with(|| Gap::new(Vec::new())).ask_at = None;
        }
        self.ask_about_gaps(now);
        self.wake_slowly(now);
    }

    pub(super) fn regrant_all(&mut self, standings: &[(Held, Standing)], now: Instant) {
        for (held, standing) in standings {
            let affected: Vec<FollowerId> = self
                .members
                .iter()
                .filter(|(_, member)| member.session == held.session && member.user == held.user)
                .map(|(follower, _)| *follower)
                .collect();
            for follower in affected {
                match standing {
                    Standing::Granted(grant) => {
                        let could_write = self.members.get(&follower).is_some_and(|member| member.role.may_write());
                        self.grant(follower, grant.role, grant.until, now);
                        if could_write != grant.role.may_write() {
                            self.tell_scope(follower, grant.role.may_write(), now);
                        }
                    }
                    Standing::SessionEnded if self.members.get(&follower).is_some_and(|m| m.is_expiring(now)) => {
                        self.expire(follower, now);
                    }
                    Standing::SessionEnded => {
                        self.expel(follower, close::UNAUTHORIZED, "session ended", true, now);
                    }
                    Standing::Forbidden => self.expel(follower, close::FORBIDDEN, "not a member", false, now),
                    Standing::Deleted => self.expel(follower, close::NOT_FOUND, "document deleted", false, now),
                    Standing::Gone => self.gone(),
                }
            }
        }
    }

    /// The right of a connection from now on. A client that may write now, and might not before, is asked for what it wrote meanwhile.
    pub(super) fn grant(&mut self, follower: FollowerId, role: Role, until: Option<Instant>, now: Instant) {
        let Some(member) = self.members.get_mut(&follower) else { return };
        let could_write = std::mem::replace(&mut member.role, role).may_write();
        member.lasts(until, now);
        let due = member.right_due();
        let is_to_ask = role.may_write() && !could_write && !member.left;
        self.presence.regrant(follower, role.may_write());
        if is_to_ask {
            self.doubt(follower);
            self.ask(&[follower], now);
        }
        self.right_due(due);
    }

    /// Tells a client that it may write, or only read. Hocuspocus has a message for either; y-websocket for the
    /// latter alone; Y-Sweet for none.
    fn tell_scope(&mut self, follower: FollowerId, may_write: bool, now: Instant) {
        let Some(member) = self.members.get_mut(&follower) else { return };
        match member.dialect {
            Dialect::Hocuspocus => self.send(follower, Outgoing::Scope(may_write)),
            Dialect::YWebsocket if !may_write => {
                member.told_read_only_at = Some(now);
                self.send(follower, Outgoing::ReadOnly);
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
        for (follower, member) in self.members.iter_mut().filter(|(_, member)| !member.left) {
            if member.has_expired(now) {
                ended.push(*follower);
                continue;
            }
            if member.ask_token_at.take_if(|at| now >= *at).is_some() {
                ask.push(*follower);
            }
            self.rights_due = [self.rights_due, member.right_due()].into_iter().flatten().min();
        }
        for follower in ask {
            self.send(follower, Outgoing::TokenRequest);
        }
        for follower in ended {
            self.expire(follower, now);
        }
    }

    fn expire(&mut self, follower: FollowerId, now: Instant) {
        self.expel(follower, close::EXPIRED, "the token has expired; come back with a fresh one", false, now);
    }

    pub(super) fn expel(
        &mut self,
        follower: FollowerId,
        code: u16,
        reason: &'static str,
        whole_socket: bool,
        now: Instant,
    ) {
        if let Some(member) = self.members.get_mut(&follower) {
            member.role = Role::Viewer;
            member.leave();
            if member.waiting == 0 {
                self.members.remove(&follower);
            }
        }
        self.presence.leave(follower, now);
        self.effects.push(Effect::Close { follower, code, reason: reason.into(), whole_socket });
        self.flush_presence(now);
    }
}
