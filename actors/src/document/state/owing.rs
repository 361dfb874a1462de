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
        let mut ask = Vec::new();
        for (follower, member) in &mut self.members {
            if member.left {
                continue;
            }
            let Some(gap) = &mut member.gap else { continue };
            let filled = !gap.missing.is_empty()
                && gap.missing.iter().all(|(client, clock)| index.next_clock(*client) >= *clock);
            let due = gap.ask_at.is_none_or(|at| now >= at);
            if due || filled {
                if filled {
                    gap.missing.clear(); // once
                }
                gap.asked(now);
                ask.push(*follower);
            }
        }
        let state_vector = if ask.is_empty() { Bytes::new() } else { self.index.state_vector() };
        for follower in ask {
            self.send(follower, Outgoing::Step1(state_vector.clone()));
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
                        if let Some(member) = self.members.get_mut(&follower) {
                            member.role = grant.role;
                        }
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
        self.effects.push(Effect::Close { follower, code, reason, whole_socket });
        self.flush_presence(now);
    }
}
