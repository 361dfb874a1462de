//! What was taken out of the document, and whoever still has it.

use super::*;
use std::ops::Range;

impl DocumentState {
    /// Whether an update brings something that is in quarantine and that the log lacks.
    pub(super) fn has_quarantined(&self, update: &Update) -> bool {
        let is_lost = |(client, from, to): (u64, u64, u64)| {
            let known = self.index.next_clock(client);
            update.clients().any(|(other, first, end)| other == client && first.max(from).max(known) < end.min(to))
        };
        self.quarantined.iter().any(|kept| kept.clients().any(is_lost))
    }

    /// Whether an update shows that its sender's page has something of his own that was taken out: it brings that, or goes on after it. Others
    /// who have it only learn that it is gone.
    pub(super) fn shows_taken_out(&self, update: &Update, user: UserId, is_step2: bool) -> bool {
        let goes_on = || !is_step2 && update.clients().any(|(client, ..)| self.has_taken_out(client, user));
        !self.quarantined.is_empty() && (self.brings_content(update, user) || goes_on())
    }

    /// Whether somebody brings content of his own of which the log holds the clocks alone.
    pub(super) fn brings_content(&self, update: &Update, user: UserId) -> bool {
        self.quarantined.iter().any(|kept| self.brings_content_of(kept, update, user))
    }

    fn brings_content_of(&self, kept: &Update, update: &Update, user: UserId) -> bool {
        let is_same = |client: u64, clocks: &Range<u64>| {
            Marks::of(kept, client, clocks.clone()).compare(&Marks::of(update, client, clocks.clone())).equal > 0
        };
        let mut their_own = update.clients().filter(|section| self.is_writer(section.0, user));
        their_own.any(|(client, first, end)| {
            let contents = kept.contents().filter(|(of, _)| *of == client);
            let mut both = contents.map(|(_, clocks)| clocks.start.max(first)..clocks.end.min(end));
            both.any(|both| both.start < both.end && is_same(client, &both))
        })
    }

    /// Whether something that this user wrote under this id was taken out of the log, which holds its clocks without their content.
    pub(super) fn has_taken_out(&self, client: u64, user: UserId) -> bool {
        let is_there = |(of, from, _): (u64, u64, u64)| of == client && from < self.index.next_clock(client);
        self.quarantined.iter().any(|kept| kept.clients().any(is_there)) && self.is_writer(client, user)
    }

    /// Tells everybody here whose pages are known to have what was taken out.
    pub(super) fn tell_all_taken_out(&mut self) {
        let has_it = |follower: &Follower| {
            let own = follower.own_client.or(follower.wrote_as);
            !follower.is_gone && own.is_some_and(|own| self.has_taken_out(own, follower.user))
        };
        let told: Vec<_> = self.followers.iter().filter(|(_, follower)| has_it(follower)).map(|(to, _)| *to).collect();
        told.into_iter().for_each(|follower| self.tell_taken_out(follower));
    }

    /// A page goes on under a client id of which something was taken out. Loaded again it has another id, and what all others see.
    pub(super) fn tell_taken_out(&mut self, follower: FollowerId) {
        let why = "some of what you wrote could not be read and was taken out; it is in quarantine: reload";
        self.close(follower, close::FORK, why);
    }

    fn is_writer(&self, client: u64, user: UserId) -> bool {
        self.writers.writer(client).is_none_or(|writer| writer == user)
    }
}
