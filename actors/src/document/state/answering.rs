//! What connections ask, and when they are answered: what they lack, and who is here.
//!
//! A question is a few bytes, and its answer may be the whole document. So of several only the last is answered; none is while the state
//! before is still on its way to whoever asks; and after each follows a pause by what it cost, in which the next one waits. What is dear is
//! answered again within a part of the time of the whole node. The first question of a connection waits for nothing.

use super::comparing::Doubt;
use super::*;

/// A pause is so many times what the answer cost: one connection takes a fifth of a thread's time, and so do all dear repetitions together.
const PAUSE_TIMES: u32 = 4;
/// No shorter pause is made: such an answer costs no more than any message does.
const PAUSE_LEAST: Duration = Duration::from_millis(1);
/// What it costs to look for what somebody lacks, for each byte of the document …
const COST_PER_BYTE_LOOKED_AT: Duration = Duration::from_nanos(10);
/// … and to write each byte of the answer.
const COST_PER_BYTE_SENT: Duration = Duration::from_nanos(2);
/// An answer that costs so much is dear.
const DEAR: Duration = Duration::from_millis(1);
/// The state vector of somebody who lacks everything.
const KNOWS_NOTHING: &[u8] = &[0];

/// What one connection has asked and was not answered yet.
#[derive(Debug, Default)]
pub struct Questions {
    /// Its newest step 1.
    step1: Option<Bytes>,
    /// Who is here.
    everybody: bool,
    /// A state is on its way to it.
    is_sending: bool,
    /// It was answered a step 1 before.
    is_known: bool,
    /// It was asked itself when it asked: not again with the answer.
    was_asked: bool,
    /// Nothing is answered before.
    not_before: Option<Instant>,
}

impl Questions {
    fn is_open(&self) -> bool {
        self.step1.is_some() || self.everybody
    }
}

impl DocumentState {
    /// What a connection said at once, in order. `is_sending`: it asks something, and a state is still on its way to it. Of its step 1s only the
    /// last is answered, and so of its questions who is here.
    pub fn deliver(&mut self, from: FollowerId, inputs: Vec<Input>, is_sending: bool, now: Instant) -> Vec<Effect> {
        if inputs.iter().any(Input::is_question)
            && let Some(follower) = self.followers.get_mut(&from)
        {
            follower.questions.is_sending = is_sending;
        }
        let is_step1 = |input: &Input| matches!(input, Input::Step1(_));
        let is_query = |input: &Input| matches!(input, Input::QueryAwareness);
        let last_step1 = inputs.iter().rposition(is_step1);
        let last_query = inputs.iter().rposition(is_query);
        let mut effects = Vec::new();
        for (place, input) in inputs.into_iter().enumerate() {
            let is_last = match &input {
                Input::Step1(_) => Some(place) == last_step1,
                Input::QueryAwareness => Some(place) == last_query,
                _ => true,
            };
            if is_last {
                effects.extend(self.hear(from, input, now));
            }
        }
        effects.extend(self.advance(now));
        effects
    }

    /// The states that were on their way to these connections have gone.
    pub fn states_arrived(&mut self, followers: &[FollowerId], now: Instant) -> Vec<Effect> {
        for follower in followers {
            if let Some(follower) = self.followers.get_mut(follower) {
                follower.questions.is_sending = false;
            }
            self.answer(*follower, now);
        }
        self.take_effects()
    }

    pub(super) fn hear_step1(&mut self, from: FollowerId, state_vector: Bytes, now: Instant) {
        let Ok(theirs) = StateVector::parse(&state_vector) else {
            return self.close(from, close::MALFORMED, "malformed state vector");
        };
        let Some(follower) = self.followers.get_mut(&from) else { return };
        follower.began(); // when it asked, whenever it is answered
        match self.doubts(from, &theirs) {
            Doubt::None => return self.ask_again(from, state_vector, now),
            Doubt::Asked => {}
            Doubt::New => self.ask(&[from], now),
        }
        let kept = self.kept(&state_vector);
        if let Some(follower) = self.followers.get_mut(&from) {
            follower.questions.was_asked = true;
            if let Some(check) = &mut follower.check {
                check.step1 = Some(kept);
            }
        }
    }

    /// Nothing stands against the answer to this step 1 any more.
    pub(super) fn ask_again(&mut self, from: FollowerId, state_vector: Bytes, now: Instant) {
        if let Some(follower) = self.followers.get_mut(&from) {
            follower.questions.step1 = Some(state_vector);
            self.answer(from, now);
        }
    }

    /// A state vector that waits: not as a part of its message; and one that is larger than what may wait is answered with everything.
    fn kept(&self, state_vector: &Bytes) -> Bytes {
        match state_vector.len() > self.limits.outbox_bytes_max {
            true => Bytes::from_static(KNOWS_NOTHING),
            false => Bytes::copy_from_slice(state_vector),
        }
    }

    pub(super) fn hear_query(&mut self, from: FollowerId, now: Instant) {
        if let Some(follower) = self.followers.get_mut(&from) {
            follower.questions.everybody = true;
            self.answer(from, now);
        }
    }

    /// A connection has come. It may have been here before, and asked.
    pub(super) fn remember_pause(&mut self, follower: FollowerId, now: Instant) {
        self.pauses.retain(|(_, until)| now < *until);
        let pause = self.pauses.iter().find(|(connection, _)| *connection == follower.session);
        if let (Some((_, until)), Some(follower)) = (pause, self.followers.get_mut(&follower)) {
            follower.questions.is_known = true;
            follower.questions.not_before = Some(*until);
        }
    }

    /// A connection goes, and may come again while it is to be paused.
    pub(super) fn keep_pause(&mut self, follower: FollowerId, now: Instant) {
        let until = self.followers.get(&follower).and_then(|follower| follower.questions.not_before);
        if let Some(until) = until.filter(|until| now < *until) {
            self.pauses.push((follower.session, until));
        }
    }

    /// Answers whoever may be answered by now.
    pub(super) fn answer_who_waited(&mut self, now: Instant) {
        self.answers_due = None;
        let waiting = self.followers.iter().filter(|(_, follower)| follower.questions.is_open());
        let waiting: Vec<FollowerId> = waiting.map(|(id, _)| *id).collect();
        for follower in waiting {
            self.answer(follower, now);
        }
    }

    /// Answers what a connection has asked, or sees to it that this is done later.
    fn answer(&mut self, to: FollowerId, now: Instant) {
        let cost = self.cost_of_looking();
        let Some(follower) = self.followers.get_mut(&to).filter(|follower| !follower.is_gone) else { return };
        let questions = &mut follower.questions;
        if !questions.is_open() {
            return;
        }
        let is_repeated = questions.is_known && questions.step1.is_some();
        let of_the_node = if is_repeated && cost >= DEAR { self.budgets.answers.free_at() } else { None };
        let due = questions.not_before.max(of_the_node).filter(|due| now < *due);
        if questions.is_sending || due.is_some() {
            let (is_sending, asked) = (questions.is_sending, questions.step1.take());
            let kept = asked.map(|asked| self.kept(&asked));
            if let Some(follower) = self.followers.get_mut(&to) {
                follower.questions.step1 = kept;
            }
            if is_sending {
                return self.effects.push(Effect::TellWhenSent(to));
            }
            self.answers_due = [self.answers_due, due].into_iter().flatten().min();
            return;
        }
        let (step1, everybody) = (questions.step1.take(), std::mem::take(&mut questions.everybody));
        let mut cost = Duration::ZERO;
        if let Some(state_vector) = step1 {
            let Some(of_step1) = self.answer_step1(to, &state_vector, now) else { return };
            cost += of_step1;
            if is_repeated && of_step1 >= DEAR {
                self.budgets.answers.take(now + of_step1 * PAUSE_TIMES);
            }
        }
        if everybody {
            cost += per_byte(COST_PER_BYTE_SENT, self.presence.bytes());
            self.send_everybody(to);
        }
        let pause = cost * PAUSE_TIMES;
        if let Some(follower) = self.followers.get_mut(&to).filter(|_| pause >= PAUSE_LEAST) {
            follower.questions.not_before = Some(now + pause);
        }
    }

    /// What it takes to find out what somebody lacks, who knows something.
    fn cost_of_looking(&self) -> Duration {
        per_byte(COST_PER_BYTE_LOOKED_AT, self.folded_bytes)
    }

    /// Sends what the connection lacks; about what that cost. `None`: this instance has ended over it.
    fn answer_step1(&mut self, to: FollowerId, state_vector: &Bytes, now: Instant) -> Option<Duration> {
        let has_nothing = StateVector::parse(state_vector).is_ok_and(|theirs| theirs.iter().next().is_none());
        let is_encoded = has_nothing && self.has_whole_state();
        let diff = if has_nothing {
            self.whole_state_in_pieces(now)
        } else {
            self.wake_slowly(now);
            let diff = self.read_replica(|replica| replica.diff(state_vector));
            diff.map(|diff| self.step2_in_pieces(diff))
        }?;
        let looked = if is_encoded { Duration::ZERO } else { self.cost_of_looking() };
        let cost = looked + per_byte(COST_PER_BYTE_SENT, diff.bytes());
        let position = self.position;
        let follower = self.followers.get_mut(&to)?;
        follower.seen_seq = position.seq;
        follower.questions.is_known = true;
        let first = !std::mem::replace(&mut follower.receiving, true);
        let is_hocuspocus = follower.dialect == Dialect::Hocuspocus;
        let was_asked = std::mem::take(&mut follower.questions.was_asked);
        if is_hocuspocus && !was_asked {
            self.ask(&[to], now);
        }
        self.effects.push(Effect::Welcome(to, diff));
        if is_hocuspocus && first {
            self.greet(to, now);
        }
        Some(cost)
    }
}

fn per_byte(each: Duration, bytes: usize) -> Duration {
    each.saturating_mul(u32::try_from(bytes).unwrap_or(u32::MAX))
}
