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
        let Some(user) = self.members.get(&from).map(|member| member.user) else { return };
        let has_taken_out = self.shows_taken_out(&update, user, is_step2);
        let Some(member) = self.members.get_mut(&from) else { return };
        let ordinal = member.received(is_step2);
        let is_checked = is_step2 && member.answers();
        if self.damaged.is_some() || !member.role.may_write() {
            return self.refuse_read_only(from, ordinal, &update, is_step2, now);
        }
        let (session, user) = (member.session, member.user);
        if !self.has_room(update.bytes().len()) {
            self.dropped += 1;
            // Dropped unadmitted; a step 1 brings it back when there is room.
            if let Some(member) = self.members.get_mut(&from) {
                member.owe(ordinal);
            }
            return self.wake_slowly(now);
        }
        let sender = Sender::Member { follower: from, ordinal };
        self.enqueue(Proposal { sender, session, user, update, is_step2, is_checked });
        if has_taken_out {
            self.tell_taken_out(from); // what is new in it is committed all the same
        }
    }

    pub(super) fn hear_awareness(&mut self, from: FollowerId, update: &Bytes, now: Instant) {
        let Ok((entries, left_out)) = AwarenessUpdate::parse_within(update, &self.caps) else {
            return self.close(from, close::MALFORMED, "malformed awareness");
        };
        self.presence.leaves_out(left_out);
        let Some(member) = self.members.get_mut(&from) else { return };
        if !entries.is_empty() && !std::mem::replace(&mut member.announced, true) {
            member.own_client = match entries.as_slice() {
                [own] if !own.is_null => Some(own.client),
                _ => None,
            };
            member.is_first_announcement = member.own_client.is_some();
            let (own, user) = (member.own_client, member.user);
            if own.is_some_and(|own| self.has_taken_out(own, user)) {
                return self.tell_taken_out(from);
            }
            self.claims(from, now);
        }
        let Some(member) = self.members.get_mut(&from) else { return };
        let after = member.next_ordinal();
        if member.is_settled_before(after) && member.held_presence.is_none() {
            self.announce(from, &entries, now);
            return self.flush_presence(now);
        }
        let until = now + Duration::from_millis(self.limits.awareness_wait_ms);
        let held = member.held_presence.get_or_insert(HeldPresence { entries: Vec::new(), after, until });
        held.after = after;
        for mut entry in entries {
            entry.state = Bytes::copy_from_slice(&entry.state); // a slice would keep all of the message
            held.entries.retain(|older| older.client != entry.client);
            held.entries.push(entry);
        }
        let (all, mut bytes) = (held.entries.len(), 0);
        let bytes_max = self.presence.bytes_per_connection_max();
        held.entries.truncate(self.limits.awareness_ids_per_connection_max.max(1) * 4);
        held.entries.retain(|entry| {
            bytes += entry.state.len();
            bytes <= bytes_max
        });
        let too_many = all - held.entries.len();
        let until = held.until;
        self.presence.leaves_out(too_many);
        self.hold_until = Some(self.hold_until.map_or(until, |at| at.min(until)));
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
        let Some(user) = self.members.get(&from).map(|member| member.user) else { return };
        let known = is_step2
            && self.compare_tails(user, update).is_some()
            && admit(&self.index, &mut Delta::default(), None, update, &self.caps, &mut |_| true)
                .is_ok_and(|admission| matches!(admission.content, Content::Nothing) && admission.missing.is_none());
        self.end_check(from, now);
        let Some(member) = self.members.get_mut(&from) else { return };
        if known {
            let receipts = member.settled(ordinal, true);
            return self.send_receipts(from, receipts);
        }
        let solicited = member.is_solicited(ordinal);
        member.refused(ordinal);
        match member.dialect {
            Dialect::Hocuspocus if !solicited => self.send(from, Outgoing::Status(false)),
            Dialect::YWebsocket if !is_step2 => {
                let told = member.told_read_only_at.is_some_and(|at| now < at + Duration::from_secs(1));
                if !told {
                    member.told_read_only_at = Some(now);
                    self.send(from, Outgoing::ReadOnly);
                }
            }
            Dialect::Hocuspocus | Dialect::YWebsocket | Dialect::YSweet => {}
        }
    }

    pub(super) fn announce(&mut self, from: FollowerId, entries: &[contextnexus_gate::AwarenessEntry], now: Instant) {
        let Some(member) = self.members.get_mut(&from) else { return };
        let is_writer = member.own_client.is_some_and(|own| self.writers.writer(own) == Some(member.user));
        let claim = match member.role.may_write() {
            true if is_writer => Claim::Writer,
            true => Claim::Editor,
            false => Claim::Reader,
        };
        let announcer = Announcer {
            follower: from,
            user: member.user,
            own: member.own_client,
            claim,
            is_first: std::mem::take(&mut member.is_first_announcement),
            since: member.since.unwrap_or(now),
        };
        let told = self.presence.announce(announcer, entries, now);
        self.tell_gone(told);
        self.send_siblings(from);
    }

    pub(super) fn release_presence(&mut self, now: Instant) {
        let mut ripe = Vec::new();
        let mut next: Option<Instant> = None;
        if self.hold_until.is_none() {
            return self.flush_presence(now);
        }
        for (follower, member) in &mut self.members {
            let Some(held) = &member.held_presence else { continue };
            let (after, until) = (held.after, held.until);
            if now >= until || member.is_settled_before(after) {
                if let Some(held) = member.held_presence.take() {
                    ripe.push((*follower, held.entries));
                }
            } else {
                next = Some(next.map_or(until, |at| at.min(until)));
            }
        }
        self.hold_until = next;
        for (follower, entries) in ripe {
            self.announce(follower, &entries, now);
        }
        self.flush_presence(now);
    }

    pub(super) fn flush_presence(&mut self, now: Instant) {
        if let Some(flush) = self.presence.flush(self.members.len(), now) {
            self.tell_gone(flush.told);
            for piece in presence::pieces(&flush.entries, self.limits.sync_piece_bytes, |entry| entry) {
                self.effects.push(Effect::ShowPresence { entries: piece.to_vec(), except: flush.only_from });
            }
            self.publish_presence(&flush.local);
        }
    }
}
