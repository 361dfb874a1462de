//! What a writer has under his own client ids, against what others brought under them: see [`writers`](crate::document::writers).

use super::*;
use crate::document::writers::Tail;

/// Whether a step 1 is answered before the connection has shown what it has under its own ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doubt {
    /// Nothing stands against it.
    None,
    /// It was asked already.
    Asked,
    /// It must be asked.
    New,
}

/// What an update shows of what others brought under its sender's ids. It contradicts nothing of that.
#[derive(Debug, Default)]
pub(super) struct TailsCompared {
    /// Ids of which it does not show all that is to be compared: nothing new is taken under those.
    pub unseen: Vec<u64>,
    /// Others brought something as deleted, so nobody can say whether it was the same.
    pub has_deleted: bool,
}

impl DocumentState {
    /// Asks connections for what we lack, and for what they have of their own where others brought something under their ids.
    pub(super) fn ask(&mut self, followers: &[FollowerId], now: Instant) {
        let mut for_all = None; // encoded once
        for id in followers {
            let Some(follower) = self.followers.get_mut(id) else { continue };
            follower.asked(now);
            let (user, claimed) = (follower.user, follower.check.as_ref().and_then(|check| check.claimed));
            let unechoed = follower.unechoed().clone();
            let known = match self.known_without(user, claimed, unechoed) {
                Some(known) => known,
                None => for_all.get_or_insert_with(|| self.index.state_vector()).clone(),
            };
            self.send(*id, Outgoing::Step1(known));
        }
    }

    /// How far each client is known, and of this user's own ids, and of the one that he claims, only what he brought himself. `None`: that is all.
    pub(super) fn known_without_tails(&self, user: UserId, claimed: Option<u64>) -> Option<Bytes> {
        self.known_without(user, claimed, BTreeMap::new())
    }

    /// The same, and of some clients only what is before a clock.
    fn known_without(&self, user: UserId, claimed: Option<u64>, before: BTreeMap<u64, u64>) -> Option<Bytes> {
        let mut own = before;
        for (client, from) in self.writers.tails_of(user).chain(claimed.map(|client| (client, 0))) {
            let first = own.entry(client).or_insert(from);
            *first = from.min(*first);
        }
        let clocks =
            self.index.clocks().map(|(client, next)| (client, own.get(&client).map_or(next, |own| next.min(*own))));
        (!own.is_empty()).then(|| clocks.filter(|(_, clock)| *clock > 0).collect::<StateVector>().encode())
    }

    /// A connection that may write is to be asked: from now on nothing of it is acknowledged before it has shown what it has under its own ids, if others
    /// brought something under them.
    pub(super) fn doubt(&mut self, id: FollowerId) {
        let Some(follower) = self.followers.get_mut(&id).filter(|follower| follower.role.may_write()) else { return };
        let (user, own) = (follower.user, follower.own_client);
        let claimed = own.filter(|own| self.index.next_clock(*own) > 0 && self.writers.writer(*own) != Some(user));
        if claimed.is_some() || self.writers.tails_of(user).next().is_some() {
            follower.doubt().claimed = claimed;
        }
    }

    /// The same for one that says how far it knows each client.
    pub(super) fn doubts(&mut self, follower: FollowerId, theirs: &StateVector) -> Doubt {
        let Some(follower) = self.followers.get_mut(&follower).filter(|follower| follower.role.may_write()) else {
            return Doubt::None;
        };
        let has_more = self.writers.tails_of(follower.user).any(|(client, from)| theirs.next_clock(client) > from);
        match &follower.check {
            None if !has_more => Doubt::None,
            None => {
                follower.doubt();
                Doubt::New
            }
            Some(check) if !has_more && check.claimed.is_none() => {
                follower.check = None; // it has nothing of what others brought
                Doubt::None
            }
            Some(_) => Doubt::Asked,
        }
    }

    /// It announced its client id. Where that is not known for its user's and there is something under it, somebody else may have written that.
    pub(super) fn claims(&mut self, id: FollowerId, now: Instant) {
        let Some(follower) = self.followers.get(&id).filter(|follower| follower.role.may_write()) else { return };
        let is_doubtful = |own: u64| self.index.next_clock(own) > 0 && self.writers.writer(own) != Some(follower.user);
        if follower.own_client.is_some_and(is_doubtful) {
            self.doubt(id);
            self.ask(&[id], now);
        }
    }

    /// It has shown what it has: what waited for that goes on.
    pub(super) fn end_check(&mut self, follower: FollowerId, now: Instant) {
        let check = self.followers.get_mut(&follower).and_then(|follower| follower.check.take());
        if let Some(step1) = check.and_then(|check| check.step1) {
            self.ask_again(follower, step1, now);
        }
    }

    /// Whether an update is somebody's under whose ids others bring something in this batch.
    pub(super) fn meets_others(&self, batch: &Batch, proposal: &Proposal) -> bool {
        let is_met = |client| batch.foreign.contains(&client) && self.writers.writer(client) == Some(proposal.user);
        !batch.foreign.is_empty() && proposal.update.clients().any(|section| is_met(section.0))
    }

    /// Compares what a user sends under ids of his own with what others brought under them. `None`: they differ.
    pub(super) fn compare_tails(&self, user: UserId, update: &Update) -> Option<TailsCompared> {
        let mut tails = TailsCompared::default();
        for (client, from, to) in update.clients() {
            let Some(tail) = self.writers.tail_of(user, client) else { continue };
            let both = from.max(tail.from)..to.min(tail.end());
            if both.start < both.end {
                tails.has_deleted |= tail.compare(update, client, both)?.gone_here > 0;
            }
            if from > tail.from {
                tails.unseen.push(client);
            }
        }
        Some(tails)
    }

    /// Compares what a connection has under the id that it announced with what somebody else wrote under that: whether they differ. What it has under
    /// ids that the log knows for its user's was compared before, and is confirmed.
    pub(super) fn compare_claim(&mut self, proposal: &Proposal, trimmed: &[Known]) -> bool {
        let Sender::Follower { follower, .. } = &proposal.sender else { return false };
        let Some(follower) = self.followers.get(follower) else { return false };
        let (own, check) = (follower.own_client, follower.check.as_ref().filter(|_| proposal.is_checked));
        let claimed = check.and_then(|check| check.claimed);
        for known in trimmed {
            let (client, clocks) = (known.client, known.clocks.clone());
            if Some(client) == own
                && self.writers.tail_of(proposal.user, client).is_some_and(|tail| clocks.start <= tail.from)
            {
                self.writers.confirm(client, clocks.end); // there is but one document with this id
            }
            if Some(client) != claimed {
                continue;
            }
            let Some(ours) = self.as_it_stands(client, clocks.clone()) else { return false };
            let Some(compared) = ours.compare(&proposal.update, client, clocks) else { return true };
            if compared.gone_here > 0 && compared.equal == 0 {
                self.quarantine(proposal, QuarantineReason::DeletedBeforeItCame);
            }
        }
        false
    }

    /// The content of these clocks: what others brought as they brought it, and anything else as it stands now. `None`: the document ended over it.
    fn as_it_stands(&mut self, client: u64, clocks: std::ops::Range<u64>) -> Option<Tail> {
        let before =
            self.index.clocks().map(|(other, next)| (other, if other == client { clocks.start } else { next }));
        let before = before.filter(|(_, clock)| *clock > 0).collect::<StateVector>().encode();
        let rest = self.read_replica(|replica| replica.diff(&before))?;
        let now = Update::parse(rest, &Caps::of_the_log()).ok()?;
        let tail = self.writers.tail(client).filter(|tail| tail.from < clocks.end);
        let from = tail.map_or(clocks.end, |tail| tail.from.max(clocks.start));
        let brought = |of: fn(&Tail) -> &Marks| tail.map(|tail| of(tail).after((from - tail.from) as usize));
        let joined = |mut marks: Marks, brought: Option<Marks>| {
            marks.extend_unknown(((from - clocks.start) as usize).saturating_sub(marks.len()));
            marks.extend(brought.unwrap_or_default());
            marks
        };
        let now_clocks = clocks.start..from;
        let marks = joined(Marks::of(&now, client, now_clocks.clone()), brought(|tail| &tail.marks));
        let places = joined(Marks::of_places(&now, client, now_clocks), brought(|tail| &tail.places));
        Some(Tail { from: clocks.start, marks, places })
    }
}
