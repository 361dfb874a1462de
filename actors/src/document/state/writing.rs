//! From what waits to what is committed: admission, the append, and everybody who is told.

use super::comparing::TailsCompared;
use super::following::unsound;
use super::*;

/// An update that takes so much memory is not taken into a document that was not weighed.
const HEAVY: usize = 1 << 20;
const TOO_HEAVY: &str = "the document is full: it takes too much memory (document_memory_bytes_max)";

impl DocumentState {
    pub(super) fn next_append(&mut self, now: Instant) {
        if self.dead || self.log != LogWork::Nothing {
            return;
        }
        if self.tail_is_stale {
            return self.read_tail();
        }
        if self.lost_races >= RACES_MAX && !self.waiting.is_empty() {
            self.log = LogWork::Holding;
            return self.effects.push(Effect::LockHead(self.position));
        }
        if let Some((base, rows)) = self.form_batch(now) {
            self.log = LogWork::Appending;
            self.effects.push(Effect::Append { base, rows });
        } else if self.tail_is_stale {
            self.read_tail(); // all that waited was left out at gaps
        }
    }

    /// Takes all that waits through the gate. What needs no row is settled here and now.
    pub(super) fn form_batch(&mut self, now: Instant) -> Option<(Position, Vec<NewRow>)> {
        while !self.waiting.is_empty() {
            let mut batch = Batch::new(self.position);
            let mut bytes = 0;
            while batch.items.len() < self.batch_updates_max && bytes < BATCH_BYTES_MAX && batch.cost < BATCH_COST_MAX {
                let alone =
                    |proposal: &Proposal| matches!(&proposal.sender, Sender::Request { idempotency: Some(_), .. });
                if self.waiting.front().is_some_and(alone) && !batch.items.is_empty() {
                    break; // its key decides over its append, so it stands in one of its own
                }
                if self.waiting.front().is_some_and(|proposal| self.meets_others(&batch, proposal)) {
                    break; // what others bring under its ids in this batch is compared with it once it is committed
                }
                let Some(proposal) = self.waiting.pop_front() else { break };
                let last = alone(&proposal);
                bytes += proposal.bytes();
                self.admit_into(&mut batch, proposal, now);
                if last && !batch.items.is_empty() {
                    break;
                }
            }
            if self.dead {
                return None; // nothing of it is appended
            }
            let described = batch.items.iter().filter_map(|(proposal, verdict)| match verdict {
                Decision::Admitted { admitted, .. } => Some(self.describe(proposal, admitted)),
                _ => None,
            });
            batch.described = described.collect();
            let rows = batch.rows();
            if rows.is_empty() {
                self.settle(batch.items, self.position, now);
                continue;
            }
            self.in_flight = Some(batch);
            return Some((self.position, rows));
        }
        None
    }

    /// What the gate says of a proposal after what is in the batch. `None`: this instance ended over it.
    fn ask_gate(
        &mut self,
        batch: &mut Batch,
        proposal: &Proposal,
        unseen: &[u64],
        now: Instant,
    ) -> Option<Result<Admission, Refused>> {
        let update = &proposal.update;
        if self.order.is_none() {
            // Whoever opens a document to write says what he has, which is nothing new: no order is made for that.
            let mut may_write = |client| self.may_write_as(client, proposal.user, unseen);
            let mut delta = batch.delta.clone();
            let admission = admit(&self.index, &mut delta, None, update, &self.caps, &mut may_write);
            if admission.as_ref().map_or(true, |admission| admission.content == Content::Nothing) {
                return Some(admission);
            }
            if !self.know_order(now) {
                return None;
            }
        }
        let mut order = self.order.take();
        let mut may_write = |client| self.may_write_as(client, proposal.user, unseen);
        let admission = admit(&self.index, &mut batch.delta, order.as_mut(), update, &self.caps, &mut may_write);
        self.order = order;
        Some(admission)
    }

    /// Whether this user may add to what a client id has written.
    fn may_write_as(&self, client: u64, user: UserId, unseen: &[u64]) -> bool {
        let is_theirs =
            |follower: &Follower| follower.wrote_as == Some(client) && follower.user != user && !follower.is_gone;
        let is_nobodys = || {
            self.presence.writer(client).is_none_or(|owner| owner == user) && !self.followers.values().any(is_theirs)
        };
        !unseen.contains(&client) && (self.writers.writer(client) == Some(user) || is_nobodys())
    }

    /// Makes the order of what is there. False when this instance ended over it.
    fn know_order(&mut self, now: Instant) -> bool {
        let Some(state) = self.whole_state(now) else { return false };
        let Ok(state) = Update::parse(state, &Caps::of_the_log()) else {
            self.die(close::SERVICE_RESTART, "document is rebuilt"); // the gate has written it, or yrs after the gate
            return false;
        };
        let (order, cost) = Order::of_state(&self.index, &state);
        (self.order, self.tree_cost) = (Some(order), Duration::from_nanos(cost.ns));
        true
    }

    /// The order is what it was at this mark.
    pub(super) fn roll_back(&mut self, to: Mark) {
        if let Some(order) = &mut self.order {
            order.roll_back(to);
        }
    }

    pub(super) fn admit_into(&mut self, batch: &mut Batch, mut proposal: Proposal, now: Instant) {
        if !self.may_write(&proposal, now) {
            return self.refuse(proposal, &WriteRefused::ReadOnly, now);
        }
        let Some(TailsCompared { unseen, has_deleted }) = self.compare_tails(proposal.user, &proposal.update) else {
            self.quarantine(&proposal, QuarantineReason::Fork);
            return self.refuse(proposal, &WriteRefused::Fork, now);
        };
        if has_deleted {
            self.quarantine(&proposal, QuarantineReason::DeletedBeforeItCame);
        }
        let is_request = matches!(proposal.sender, Sender::Request { .. });
        let weight = self.weight_of(&proposal.update);
        // However little of it is new: no document is as heavy, which only deletes may bring to twice its bound.
        if weight > 2 * self.limits.document_memory_bytes_max {
            return self.refuse(proposal, &WriteRefused::Full(TOO_HEAVY), now);
        }
        let may_be_full = self.is_tail_full()
            || self.folded_bytes + proposal.bytes() > self.limits.document_bytes_max
            || self.is_too_heavy_with(batch.weight, &proposal.update, weight)
            || (self.weight.is_none() && weight > HEAVY);
        let before = (is_request || may_be_full).then(|| batch.delta.clone());
        let mark = self.order.as_ref().map(Order::mark).unwrap_or_default();
        let Some(admission) = self.ask_gate(batch, &proposal, &unseen, now) else {
            return self.give_back(&proposal);
        };
        let admission = match admission {
            Ok(admission) => admission,
            Err(refused) => {
                let refusal = match refused {
                    Refused::TooManyClients { .. } => WriteRefused::Full(refused.reason()),
                    refused => WriteRefused::Malformed(refused.to_string()),
                };
                return self.refuse(proposal, &refusal, now);
            }
        };
        let left_out = admission.missing.is_some() || !admission.withheld.is_empty();
        if left_out && is_request {
            batch.delta = before.unwrap_or_default(); // over HTTP an update is all or nothing
            self.roll_back(mark);
            if let Sender::Request { head_was_checked: looked, .. } = &mut proposal.sender
                && !std::mem::replace(looked, true)
            {
                self.tail_is_stale = true; // another node may have it
                return self.set_aside.push(proposal);
            }
            let refusal = if admission.withheld.iter().all(|client| unseen.contains(client)) {
                let known = self.known_without_tails(proposal.user, None);
                WriteRefused::Gap { state_vector: known.unwrap_or_else(|| self.index.state_vector()) }
            } else {
                WriteRefused::ClientIdInUse
            };
            return self.refuse(proposal, &refusal, now);
        }
        let cost = admission.cost;
        if left_out {
            self.open_gap(&proposal, &admission, &unseen, now);
        }
        let verdict = match self.verdict(&proposal, admission, left_out) {
            Some(verdict) => verdict,
            None => return self.refuse(proposal, &WriteRefused::Malformed("not readable".into()), now),
        };
        if let Decision::Admitted { admitted, .. } = &verdict
            && may_be_full
            && let Some(limit) = self.is_full_with(batch.weight, admitted, now)
        {
            batch.delta = before.unwrap_or_default();
            self.roll_back(mark);
            let refusal = match self.dead {
                true => WriteRefused::Unavailable { retry_after_s: 1 },
                false => WriteRefused::Full(limit),
            };
            return self.refuse(proposal, &refusal, now);
        }
        batch.cost += cost;
        if let Decision::Admitted { admitted, .. } = &verdict {
            batch.weight += self.weight_of(admitted);
            let is_foreign = |client: &u64| self.writers.writer(*client).is_some_and(|writer| writer != proposal.user);
            batch.foreign.extend(admitted.clients().map(|section| section.0).filter(is_foreign));
        }
        batch.items.push((proposal, verdict));
    }

    /// The limit beyond which the document would be with this update and what waits before it in its batch, or has ended over the question.
    /// What only deletes is always taken; where it cuts, within twice the memory.
    fn is_full_with(&mut self, before: usize, update: &Update, now: Instant) -> Option<&'static str> {
        const TOO_LARGE: &str = "the document is too large (document_bytes_max)";
        const TOO_LONG: &str = "the document is too dear to fold, and its log too long (document_bytes_max)";
        let adds = update.has_structs();
        let mut weight = self.weight_of(update);
        if !adds && !self.is_too_heavy_with(before, update, weight) {
            return None;
        }
        if adds && self.is_tail_full() {
            return Some(TOO_LONG);
        }
        // What was folded is more than what stands: what was deleted since, or merged, counts in the one and not in the other. And what is
        // packed was not weighed.
        if !(self.fold_remaining(now) && self.unpack(now)) {
            return Some(TOO_LARGE);
        }
        if !self.is_too_heavy_with(before, update, weight)
            && self.folded_bytes + update.bytes().len() <= self.limits.document_bytes_max
        {
            return None;
        }
        // Encoded once a position: whoever is refused and comes again costs nothing more.
        let is_known = self.has_whole_state();
        if let Some(state) = self.whole_state(now) {
            self.folded_bytes = state.len();
            if !is_known && let Ok(state) = Update::parse(state, &Caps::of_the_log()) {
                self.weighed_now(Weight::of(&state));
                weight = self.weight_of(update);
            }
        }
        if adds && self.folded_bytes + update.bytes().len() > self.limits.document_bytes_max {
            return Some(TOO_LARGE);
        }
        self.is_too_heavy_with(before, update, weight).then_some(TOO_HEAVY)
    }

    /// Whether the document would take more memory than it may with an update of so much, and what waits before it in its batch.
    fn is_too_heavy_with(&self, before: usize, update: &Update, weight: usize) -> bool {
        let there = self.weight.as_ref().map_or(self.folded_bytes, |there| there.bytes() + there.order_bytes());
        // What only deletes may bring it to twice its bound.
        let times = if update.has_structs() { 1 } else { 2 };
        there + before + weight > times * self.limits.document_memory_bytes_max
    }

    /// Memory that the document will take for this.
    fn weight_of(&self, update: &Update) -> usize {
        let update = Weight::of(update);
        update.bytes_beside(self.weight.as_ref().unwrap_or(&Weight::default()))
    }

    pub(super) fn verdict(&self, proposal: &Proposal, admission: Admission, left_out: bool) -> Option<Decision> {
        let trimmed = admission.trimmed;
        Some(match admission.content {
            Content::Whole => Decision::Admitted { admitted: proposal.update.clone(), whole: !left_out, trimmed },
            Content::Part(bytes) => {
                // What the gate wrote it also reads: no update that cannot be read back is stored.
                let admitted = Update::parse(bytes, &Caps::of_the_log()).ok()?;
                Decision::Admitted { admitted, whole: !left_out, trimmed }
            }
            Content::Nothing if left_out => Decision::Deferred { trimmed },
            Content::Nothing => Decision::Known { trimmed },
        })
    }

    pub(super) fn open_gap(&mut self, proposal: &Proposal, admission: &Admission, unseen: &[u64], now: Instant) {
        let Sender::Follower { follower, .. } = &proposal.sender else { return };
        let Some(follower) = self.followers.get_mut(follower) else { return };
        let mut missing: Vec<(u64, u64)> =
            admission.missing.as_ref().map(|missing| missing.clocks.clone()).unwrap_or_default();
        // What its live owner alone may bring is asked for again as soon as the owner has brought it.
        let withheld = |client: &u64| admission.withheld.contains(client);
        missing.extend(
            proposal.update.clients().filter(|(client, ..)| withheld(client)).map(|(client, _, end)| (client, end)),
        );
        let is_own_withheld = follower.own_client.is_some_and(|own| withheld(&own) && !unseen.contains(&own));
        match &mut follower.gap {
            Some(gap) => gap.missing = missing, // asked about already, once per gap
            None => {
                follower.gap = Some(Gap::new(missing));
                self.tail_is_stale = true; // another node may have it
            }
        }
        if let Some(gap) = &mut follower.gap {
            gap.is_own_withheld = is_own_withheld;
        }
        self.wake_slowly(now);
    }

    pub(super) fn may_write(&self, proposal: &Proposal, now: Instant) -> bool {
        if self.damaged.is_some() {
            return false;
        }
        match &proposal.sender {
            Sender::Request { role, until, .. } => role.may_write() && until.is_none_or(|until| now < until),
            Sender::Follower { follower, .. } => {
                let follower = self.followers.get(follower);
                follower.is_some_and(|follower| follower.role.may_write() && !follower.has_expired(now))
            }
        }
    }

    /// Who wrote it: the sender, where every client id in it is its own, or it is a lone live edit under an id that nobody owns.
    pub(super) fn describe(&self, proposal: &Proposal, admitted: &Update) -> RowOf {
        let follower = match &proposal.sender {
            Sender::Follower { follower, .. } => self.followers.get(follower),
            Sender::Request { .. } => {
                return RowOf { author: Some(proposal.user), relayed_by: None, seen_seq: self.position.seq };
            }
        };
        let own = follower.and_then(|follower| follower.own_client);
        let clients: Vec<u64> = admitted.clients().map(|section| section.0).collect();
        let is_author = match own {
            Some(own) => clients.iter().all(|client| *client == own),
            None => {
                let is_nobodys =
                    |client: &u64| self.writers.writer(*client).is_none_or(|writer| writer == proposal.user);
                !proposal.is_step2 && clients.len() <= 1 && clients.iter().all(is_nobodys)
            }
        };
        RowOf {
            author: is_author.then_some(proposal.user),
            relayed_by: (!is_author).then_some(proposal.user),
            seen_seq: follower.map_or(0, |follower| follower.seen_seq),
        }
    }

    /// The log holds the batch: fold it in, thank the senders, show it to everyone, tell the other nodes.
    pub(super) fn committed(&mut self, batch: Batch, through: Position, now: Instant) {
        if !self.unpack(now) {
            return; // the log has the batch
        }
        let from = self.position;
        let updates: Vec<Update> = batch.admitted().cloned().collect();
        debug_assert_eq!(from.seq + updates.len() as u64, through.seq);
        for ((index, update), seq) in updates.iter().enumerate().zip(from.seq + 1..) {
            if let Err(error) = self.replica.fold(seq, update) {
                return self.fold_failed(&batch, index, &error);
            }
        }
        let authorship: Vec<Authorship> = batch.authorship().collect();
        for (update, authorship) in updates.iter().zip(&authorship) {
            self.writers.take_in(update, *authorship);
        }
        self.note_who_writes(&batch);
        self.index.apply(batch.delta);
        if let Some(order) = &mut self.order {
            order.commit();
        }
        for (seq, update) in (from.seq + 1..).zip(&updates) {
            self.remember(seq, update.clone(), now);
        }
        self.position = through;
        let sole_sender = sole_sender(&batch.items);
        self.settle(batch.items, through, now);
        self.show(&updates, sole_sender);
        let updates = updates.iter().map(|update| update.bytes().clone()).collect();
        self.effects.push(Effect::Publish { from, through, updates, authorship });
        self.release_presence(now);
        self.consider_snapshot(now);
    }

    /// A connection that shows no cursor is known by what it writes.
    fn note_who_writes(&mut self, batch: &Batch) {
        let admitted = batch.items.iter().filter_map(|(proposal, verdict)| match (&proposal.sender, verdict) {
            (Sender::Follower { follower, .. }, Decision::Admitted { admitted, .. }) => Some((follower, admitted)),
            _ => None,
        });
        for (follower, admitted) in admitted {
            if let Some(follower) = self.followers.get_mut(follower)
                && !follower.announced
                && let (Some((client, ..)), None) = (admitted.clients().next(), admitted.clients().nth(1))
                && self.writers.writer(client) == Some(follower.user)
            {
                follower.wrote_as = Some(client);
            }
        }
    }

    /// What a sender is told that repeats what is known.
    fn echo_of(&self, update: &Update) -> Outgoing {
        match self.limits.sync_piece_bytes {
            large if update.bytes().len() > large => Outgoing::LargeUpdate(InPieces::of(update, large)),
            _ => Outgoing::Update(update.bytes().clone()),
        }
    }

    /// Tells each sender what became of its update, and takes it off the books.
    pub(super) fn settle(&mut self, items: Vec<(Proposal, Decision)>, through: Position, now: Instant) {
        for (proposal, verdict) in items {
            let fork = match &verdict {
                Decision::Admitted { trimmed, .. } | Decision::Known { trimmed } | Decision::Deferred { trimmed }
                    if !trimmed.is_empty() =>
                {
                    self.recent.conflicts(&proposal.update, trimmed).is_some() || self.compare_claim(&proposal, trimmed)
                }
                _ => false,
            };
            if fork {
                self.quarantine(&proposal, QuarantineReason::Fork);
                self.refuse(proposal, &WriteRefused::Fork, now);
                continue;
            }
            self.give_back(&proposal);
            let (id, ordinal) = match proposal.sender {
                Sender::Request { answer, .. } => {
                    let written = Written { seq: through.seq, position: through };
                    self.effects.push(Effect::Answer(answer, Ok(written)));
                    continue;
                }
                Sender::Follower { follower, ordinal } => (follower, ordinal),
            };
            if proposal.is_checked {
                self.end_check(id, now);
            }
            let Some(follower) = self.followers.get_mut(&id) else { continue };
            let is_in_doubt = proposal.is_step2 && follower.check.is_some();
            let (whole, echo) = match &verdict {
                Decision::Admitted { whole, trimmed, .. } => (*whole, *whole && !trimmed.is_empty()),
                Decision::Known { .. } => (true, proposal.update.has_structs() || !proposal.is_step2),
                Decision::Deferred { .. } => (false, false),
            };
            let (Decision::Admitted { trimmed, .. } | Decision::Known { trimmed } | Decision::Deferred { trimmed }) =
                &verdict;
            if follower.dialect == Dialect::YWebsocket && proposal.is_step2 {
                let own = follower.own_client;
                let is_own = |client| Some(client) == own || self.writers.writer(client) == Some(proposal.user);
                let whole = whole && !is_in_doubt;
                follower.repeats(&proposal.update, trimmed.iter().filter(|known| is_own(known.client)), whole);
            }
            let whole = whole && !is_in_doubt && !(proposal.is_step2 && follower.is_echo_owed());
            let echo = echo && follower.dialect == Dialect::YWebsocket && !proposal.update.is_empty();
            if whole {
                let receipts = follower.settled(ordinal, proposal.is_step2);
                self.send_receipts(id, receipts);
                if echo {
                    self.send(id, self.echo_of(&proposal.update));
                }
            } else {
                follower.owe(ordinal);
                self.wake_slowly(now);
            }
        }
    }

    pub(super) fn append_refused(&mut self, now: Instant) {
        self.log = LogWork::Nothing;
        let alone = self.in_flight.as_ref().is_some_and(|batch| batch.items.len() == 1);
        if alone {
            if let Some(batch) = self.give_up_batch() {
                for (proposal, _) in batch.items {
                    self.refuse(proposal, &WriteRefused::Malformed("it cannot be stored".into()), now);
                }
            }
        } else {
            self.wait_again();
            self.batch_updates_max = 1;
        }
        self.next_append(now);
    }

    pub(super) fn answer_in_flight(&mut self, answer: Result<Written, WriteRefused>, now: Instant) {
        self.log = LogWork::Nothing;
        if let Some(batch) = self.give_up_batch() {
            for (proposal, _) in batch.items {
                self.give_back(&proposal);
                if let Sender::Request { answer: to, .. } = proposal.sender {
                    self.effects.push(Effect::Answer(to, answer.clone()));
                }
            }
        }
        self.next_append(now);
    }

    pub(super) fn fold_failed(&mut self, batch: &Batch, failed: usize, error: &ReplicaError) {
        let _ = error;
        let mut first = batch.base.seq + 1;
        let rows = batch.rows();
        let mut left = failed;
        for row in &rows {
            if left < row.updates.len() {
                break;
            }
            left -= row.updates.len();
            first += row.updates.len() as u64;
        }
        let culprit = batch
            .items
            .iter()
            .filter(|(_, verdict)| matches!(verdict, Decision::Admitted { .. }))
            .nth(failed)
            .map(|(proposal, _)| proposal);
        let stored = batch.admitted().nth(failed).map(|update| update.bytes().clone()).unwrap_or_default();
        let mut quarantine = unsound(first, batch.base.seq + 1 + failed as u64, stored);
        if let Some(proposal) = culprit {
            quarantine.user_session = Some(proposal.user_session);
            quarantine.user = Some(proposal.user);
            if let Sender::Follower { follower, .. } = &proposal.sender {
                self.close(*follower, close::MALFORMED, "this update cannot be read");
            }
        }
        self.effects.push(Effect::Mend(Unsound::of(quarantine)));
        self.die(close::SERVICE_RESTART, "document is rebuilt");
    }

    /// Keeps what somebody sent, for him to read.
    pub(super) fn quarantine(&mut self, proposal: &Proposal, reason: QuarantineReason) {
        self.effects.push(Effect::QuarantineRefused(Quarantine {
            seq_from: 0,
            extent: Extent::Row,
            new_tip: Tip(uuid::Uuid::nil()),
            reason,
            update: proposal.update.bytes().clone(),
            user_session: Some(proposal.user_session),
            user: Some(proposal.user),
        }));
    }

    pub(super) fn refuse(&mut self, proposal: Proposal, why: &WriteRefused, now: Instant) {
        self.give_back(&proposal);
        match proposal.sender {
            Sender::Request { answer, .. } => self.effects.push(Effect::Answer(answer, Err(why.clone()))),
            Sender::Follower { follower, ordinal } => match why {
                WriteRefused::ReadOnly => {
                    self.refuse_read_only(follower, ordinal, &proposal.update, proposal.is_step2, now);
                }
                WriteRefused::Fork => self.close(
                    follower,
                    close::FORK,
                    "other content is stored under your client id; yours is in quarantine: copy your text, then reload",
                ),
                WriteRefused::Full(limit) => self.close(follower, close::LIMIT, *limit),
                WriteRefused::Malformed(rule) => self.close(follower, close::MALFORMED, rule.clone()),
                _ => self.close(follower, close::MALFORMED, "malformed update"),
            },
        }
    }
}

/// The only connection that the whole batch came from.
fn sole_sender(items: &[(Proposal, Decision)]) -> Option<FollowerId> {
    let mut senders =
        items.iter().filter(|(_, verdict)| matches!(verdict, Decision::Admitted { .. })).map(|(p, _)| &p.sender);
    let first = match senders.next() {
        Some(Sender::Follower { follower, .. }) => *follower,
        _ => return None,
    };
    senders.all(|sender| matches!(sender, Sender::Follower { follower, .. } if *follower == first)).then_some(first)
}
