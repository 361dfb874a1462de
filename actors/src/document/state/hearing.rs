//! What connections say: sync, presence, and writes that may not be.

use super::*;
use crate::ports::bus::Claim;

impl DocumentState {
    pub(super) fn hear_update(&mut self, from: FollowerId, bytes: Bytes, is_step2: bool, now: Instant) {
        let is_too_long = !is_step2 && bytes.len() > self.limits.update_bytes_max;
        let update = match Update::parse(bytes, &self.caps) {
            Ok(_) if is_too_long => return self.close(from, close::TOO_LARGE, "update too large (update_bytes_max)"),
            Ok(update) => update,
            Err(malformed) if is_too_large(&malformed) => {
                let what =
                    if is_step2 { "step 2 too large (step2_bytes_max)" } else { "update too large (update_bytes_max)" };
                return self.close(from, close::TOO_LARGE, what);
            }
            Err(malformed) => return self.close(from, close::MALFORMED, malformed.to_string()),
        };
        if self.has_quarantined(&update) {
            return self.close(from, close::MALFORMED, "this update was quarantined");
        }
        let Some(user) = self.followers.get(&from).map(|follower| follower.user) else { return };
        let has_taken_out = self.shows_taken_out(&update, user, is_step2);
        let Some(follower) = self.followers.get_mut(&from) else { return };
        let ordinal = follower.received(is_step2);
        let is_checked = is_step2 && follower.answers();
        if self.damaged.is_some() || !follower.role.may_write() {
            return self.refuse_read_only(from, ordinal, &update, is_step2, now);
        }
        let (session, user) = (follower.user_session, follower.user);
        if !self.has_room(update.bytes().len()) {
            self.dropped += 1;
            // Dropped unadmitted; a step 1 brings it back when there is room.
            if let Some(follower) = self.followers.get_mut(&from) {
                follower.owe(ordinal);
            }
            return self.wake_slowly(now);
        }
        let sender = Sender::Follower { follower: from, ordinal };
        self.enqueue(Proposal { sender, user_session: session, user, update, is_step2, is_checked });
        if has_taken_out {
            self.tell_taken_out(from); // what is new in it is committed all the same
        }
    }

    pub(super) fn hear_awareness(&mut self, from: FollowerId, update: &Bytes, now: Instant) {
        let Ok((entries, left_out)) = AwarenessUpdate::parse_within(update, &self.caps) else {
            return self.close(from, close::MALFORMED, "malformed awareness");
        };
        self.presence.leaves_out(left_out);
        let Some(follower) = self.followers.get_mut(&from) else { return };
        if !entries.is_empty() && !std::mem::replace(&mut follower.announced, true) {
            follower.own_client = match entries.as_slice() {
                [own] if !own.is_null => Some(own.client),
                _ => None,
            };
            follower.is_first_announcement = follower.own_client.is_some();
            let (own, user) = (follower.own_client, follower.user);
            if own.is_some_and(|own| self.has_taken_out(own, user)) {
                return self.tell_taken_out(from);
            }
            self.claims(from, now);
        }
        let Some(follower) = self.followers.get_mut(&from) else { return };
        let after = follower.next_ordinal();
        if follower.is_settled_before(after) && follower.delayed_presence.is_none() {
            self.announce(from, &entries, now);
            return self.flush_presence(now);
        }
        let until = now + Duration::from_millis(self.limits.awareness_wait_ms);
        let delayed = follower.delayed_presence.get_or_insert(DelayedPresence { entries: Vec::new(), after, until });
        delayed.after = after;
        for mut entry in entries {
            entry.state = Bytes::copy_from_slice(&entry.state); // a slice would keep all of the message
            delayed.entries.retain(|older| older.client != entry.client);
            delayed.entries.push(entry);
        }
        let (all, mut bytes) = (delayed.entries.len(), 0);
        let bytes_max = self.presence.bytes_per_connection_max();
        delayed.entries.truncate(self.limits.awareness_ids_per_connection_max.max(1) * 4);
        delayed.entries.retain(|entry| {
            bytes += entry.state.len();
            bytes <= bytes_max
        });
        let too_many = all - delayed.entries.len();
        let until = delayed.until;
        self.presence.leaves_out(too_many);
        self.presence_due = Some(self.presence_due.map_or(until, |at| at.min(until)));
    }

    /// A write on a read-only connection is dropped and answered in its dialect; never a reason to close.
    pub(super) fn refuse_read_only(
        &mut self,
        from: FollowerId,
        ordinal: u64,
        update: &Update,
        is_step2: bool,
        now: Instant,
    ) {
        let Some(user) = self.followers.get(&from).map(|follower| follower.user) else { return };
        let known = is_step2
            && self.compare_tails(user, update).is_some()
            && admit(&self.index, &mut Delta::default(), None, update, &self.caps, &mut |_| true)
                .is_ok_and(|admission| matches!(admission.content, Content::Nothing) && admission.missing.is_none());
        self.end_check(from, now);
        let Some(follower) = self.followers.get_mut(&from) else { return };
        if known {
            let receipts = follower.settled(ordinal, true);
            return self.send_receipts(from, receipts);
        }
        let solicited = follower.is_solicited(ordinal);
        follower.refused(ordinal);
        match follower.dialect {
            Dialect::Hocuspocus if !solicited => self.send(from, Outgoing::Status(false)),
            Dialect::YWebsocket if !is_step2 => {
                let told = follower.told_read_only_at.is_some_and(|at| now < at + Duration::from_secs(1));
                if !told {
                    follower.told_read_only_at = Some(now);
                    self.send(from, Outgoing::ReadOnly);
                }
            }
            Dialect::Hocuspocus | Dialect::YWebsocket | Dialect::YSweet => {}
        }
    }

    pub(super) fn announce(&mut self, from: FollowerId, entries: &[contextnexus_gate::AwarenessEntry], now: Instant) {
        let Some(follower) = self.followers.get_mut(&from) else { return };
        let is_writer = follower.own_client.is_some_and(|own| self.writers.writer(own) == Some(follower.user));
        let claim = match follower.role.may_write() {
            true if is_writer => Claim::Writer,
            true => Claim::Editor,
            false => Claim::Reader,
        };
        let announcer = Announcer {
            follower: from,
            user: follower.user,
            own: follower.own_client,
            claim,
            is_first: std::mem::take(&mut follower.is_first_announcement),
            since: follower.since.unwrap_or(now),
        };
        let told = self.presence.announce(announcer, entries, now);
        self.tell_gone(told);
        self.send_siblings(from);
    }

    pub(super) fn release_presence(&mut self, now: Instant) {
        let mut ripe = Vec::new();
        let mut next: Option<Instant> = None;
        if self.presence_due.is_none() {
            return self.flush_presence(now);
        }
        for (id, follower) in &mut self.followers {
            let Some(delayed) = &follower.delayed_presence else { continue };
            let (after, until) = (delayed.after, delayed.until);
            if now >= until || follower.is_settled_before(after) {
                if let Some(delayed) = follower.delayed_presence.take() {
                    ripe.push((*id, delayed.entries));
                }
            } else {
                next = Some(next.map_or(until, |at| at.min(until)));
            }
        }
        self.presence_due = next;
        for (follower, entries) in ripe {
            self.announce(follower, &entries, now);
        }
        self.flush_presence(now);
    }

    pub(super) fn flush_presence(&mut self, now: Instant) {
        if let Some(flush) = self.presence.flush(self.followers.len(), now) {
            self.tell_gone(flush.told);
            for piece in presence::pieces(&flush.entries, self.limits.sync_piece_bytes, |entry| entry) {
                self.effects.push(Effect::ShowPresence { entries: piece.to_vec(), except: flush.only_from });
            }
            self.publish_presence(&flush.local);
        }
    }
}
