//! What was taken out of the document, and whoever still has it.

use super::*;

impl DocumentState {
    /// Whether an update brings what is in quarantine: something that the log lacks now, whoever brings it; or, where the log holds the
    /// same clocks without their content, the content, if it is its writer who brings that. Others who have it only learn that it is gone.
    pub(super) fn has_quarantined(&self, update: &Update, user: UserId) -> bool {
        let brings = |held: &Update, client, from: u64, to: u64| {
            let known = self.index.next_clock(client);
            let sections = update.clients().filter(|section| section.0 == client);
            let both =
                sections.map(|(_, first, end)| first.max(from)..end.min(to)).filter(|both| both.start < both.end);
            let is_writer = self.is_writer(client, user);
            let has_content = |both: &std::ops::Range<u64>| {
                let theirs = Marks::of(update, client, both.clone());
                is_writer && Marks::of(held, client, both.clone()).compare(&theirs).equal > 0
            };
            both.into_iter().any(|both| both.end > known || has_content(&both))
        };
        self.quarantined.iter().any(|held| held.clients().any(|(client, from, to)| brings(held, client, from, to)))
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
