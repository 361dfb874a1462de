//! What was taken out of the document, and whoever still has it.

use super::*;
use std::ops::Range;

impl DocumentState {
    /// Whether an update brings what is in quarantine: something that the log lacks now, whoever brings it; or, where the log holds the
    /// same clocks without their content, the content, if it is its writer who brings that. Others who have it only learn that it is gone.
    pub(super) fn has_quarantined(&self, update: &Update, user: UserId) -> bool {
        self.quarantined.iter().any(|held| self.brings_lost(update, held) || self.brings_content(update, held, user))
    }

    /// Something that the log lacks.
    fn brings_lost(&self, update: &Update, held: &Update) -> bool {
        held.clients().any(|(client, from, to)| {
            let known = self.index.next_clock(client);
            update.clients().any(|(other, first, end)| other == client && first.max(from).max(known) < end.min(to))
        })
    }

    /// Something of which the log holds the clocks alone.
    fn brings_content(&self, update: &Update, held: &Update, user: UserId) -> bool {
        let is_same = |client: u64, clocks: &Range<u64>| {
            Marks::of(held, client, clocks.clone()).compare(&Marks::of(update, client, clocks.clone())).equal > 0
        };
        let mut their_own = update.clients().filter(|section| self.is_writer(section.0, user));
        their_own.any(|(client, first, end)| {
            let contents = held.contents().filter(|(of, _)| *of == client);
            let mut both = contents.map(|(_, clocks)| clocks.start.max(first)..clocks.end.min(end));
            both.any(|both| both.start < both.end && is_same(client, &both))
        })
    }

    /// Whether something that this user wrote under this id was taken out of the log, which holds its clocks without their content.
    pub(super) fn has_taken_out(&self, client: u64, user: UserId) -> bool {
        let is_there = |(of, from, _): (u64, u64, u64)| of == client && from < self.index.next_clock(client);
        self.quarantined.iter().any(|held| held.clients().any(is_there)) && self.is_writer(client, user)
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
