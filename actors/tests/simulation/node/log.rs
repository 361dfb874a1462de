//! What a node asks of the log, and what it hears of it.

use super::*;

/// Something that was asked of the log.
pub(super) enum Work {
    Load,
    Append(AppendRequest, Option<MemoryHead>),
    ReadTail(Position),
    Hold(Position),
    Recover {
        not_before: Instant,
    },
    Rebuild,
    Save(Unverified),
    ReadBack(Unverified),
    /// It is done; this is the answer.
    Answer(Answer),
}

pub(super) enum Answer {
    Appended(AppendOutcome),
    Tail(Result<Tail, LogError>),
    News(Option<News>),
    Heads(Head),
}

impl Work {
    fn again(is_open: bool) -> Self {
        if is_open { Self::Rebuild } else { Self::Load }
    }
}

impl Node {
    /// Does one of the things that were asked of the log, or answers one that is done.
    pub fn log_does(&mut self, which: usize, luck: Luck, is_away: bool, shared: &mut Shared) {
        let blocking = self.work.iter().position(|work| matches!(work, Work::Load | Work::Rebuild));
        let Some(at) = blocking.or_else(|| which.checked_rem(self.work.len())) else { return };
        let luck = if is_away { Luck::Away } else { luck };
        let is_done = matches!(luck, Luck::Good | Luck::Slow);
        let away = || LogError::Unavailable("simulated".into());
        let answer = match self.work.remove(at) {
            Work::Load | Work::Rebuild if !is_done => return self.work.push(Work::again(self.state.is_some())),
            Work::Load => return self.load(shared),
            Work::Rebuild => return self.rebuild(shared),
            Work::Append(request, head) => {
                let mut write = |request, head| shared.store.append(request, head, shared.now);
                Answer::Appended(match luck {
                    Luck::Good | Luck::Slow => write(request, head),
                    Luck::Away => AppendOutcome::Unavailable,
                    Luck::Lost => AppendOutcome::Unknown,
                    Luck::Unheard => {
                        write(request, head);
                        AppendOutcome::Unknown
                    }
                    Luck::Late => {
                        shared.store.late.push(request);
                        AppendOutcome::Unknown
                    }
                })
            }
            Work::ReadTail(held) => Answer::Tail(if is_done { shared.store.tail(held) } else { Err(away()) }),
            Work::Hold(held) => {
                let head = match is_done {
                    true => shared.store.log.lock_head_now(shared.store.key, held, shared.now),
                    false => Err(away()),
                };
                return self.head_locked(head, shared);
            }
            Work::Recover { not_before } if shared.now < not_before => {
                return self.work.push(Work::Recover { not_before });
            }
            Work::Recover { .. } => {
                let position = self.state.as_ref().map_or(Position::START, DocumentState::position);
                Answer::News(is_done.then(|| (Vec::new(), shared.store.tail(position))))
            }
            Work::Save(snapshot) => return self.save(snapshot, is_done, shared),
            Work::ReadBack(snapshot) => return self.read_back(snapshot, shared),
            Work::Answer(answer) => return self.answer(answer, shared),
        };
        match luck {
            Luck::Slow => self.work.push(Work::Answer(answer)),
            _ => self.answer(answer, shared),
        }
    }

    pub(super) fn answer(&mut self, answer: Answer, shared: &mut Shared) {
        match answer {
            Answer::Appended(outcome) => {
                shared.saw(match outcome {
                    AppendOutcome::Committed(_) => "an append was committed",
                    AppendOutcome::Behind => "an append was behind",
                    AppendOutcome::Unknown => "an append's outcome was unknown",
                    AppendOutcome::AlreadyDone(_) => "a request had been done already",
                    _ => "an append found PostgreSQL away",
                });
                self.turn(shared, |state, now| state.appended(outcome, now));
            }
            Answer::Tail(tail) => self.turn(shared, |state, now| state.tail_read(tail, now)),
            Answer::News(news) => self.turn(shared, |state, now| state.recovered(news, now)),
            Answer::Heads(head) => self.turn(shared, |state, _| state.head_moved(head)),
        }
    }

    pub(super) fn load(&mut self, shared: &mut Shared) {
        let stored = shared.store.load().unwrap();
        let now = self.now(shared);
        match DocumentState::load(stored, shared.limits.clone(), self.budgets.clone(), now) {
            Ok(state) => {
                self.state = Some(state);
                self.look(shared);
                self.perform(Effect::QueryPresence, shared);
            }
            Err(unsound) => self.unsound(&unsound, shared),
        }
    }

    pub(super) fn rebuild(&mut self, shared: &mut Shared) {
        let stored = shared.store.load().unwrap();
        let now = self.now(shared);
        let Some(state) = &mut self.state else { return };
        match state.rebuilt(stored, now) {
            Ok(effects) => {
                self.look(shared);
                for effect in effects {
                    self.perform(effect, shared);
                }
            }
            Err(unsound) => self.unsound(&unsound, shared),
        }
    }

    pub(super) fn unsound(&mut self, unsound: &Unsound, shared: &mut Shared) {
        shared.must_not_be(format!("the log cannot be loaded: {unsound:?}"));
    }

    pub(super) fn head_locked(&mut self, head: Result<MemoryHead, LogError>, shared: &mut Shared) {
        let now = self.now(shared);
        let Some(state) = &mut self.state else { return };
        let (head, tail) = match head {
            Ok(mut head) => {
                let tail = head.take_tail();
                (Some(head), Ok(tail))
            }
            Err(error) => (None, Err(error)),
        };
        let (decision, effects) = state.head_locked(tail, now);
        if let (HeadDecision::Append { base: held, rows }, Some(head)) = (decision, head) {
            self.append(held, rows, Some(head), shared);
        }
        self.look(shared);
        for effect in effects {
            self.perform(effect, shared);
        }
    }

    pub(super) fn save(&mut self, snapshot: Unverified, is_done: bool, shared: &mut Shared) {
        let taken = read_back(snapshot, shared);
        let save = |snapshot| shared.store.log.save_snapshot_now(shared.store.key, snapshot).is_ok();
        let is_stored = is_done && taken.clone().is_some_and(save);
        self.taken(taken, is_stored, shared);
    }

    pub(super) fn read_back(&mut self, snapshot: Unverified, shared: &mut Shared) {
        let taken = read_back(snapshot, shared);
        self.taken(taken, true, shared);
    }

    fn taken(&mut self, taken: Option<Snapshot>, is_stored: bool, shared: &mut Shared) {
        self.turn(shared, |state, now| {
            state.snapshot_taken(taken, is_stored, now);
            Vec::new()
        });
        if self.state.as_ref().is_some_and(DocumentState::is_compact) {
            shared.saw("a document came to rest");
        }
    }

    /// Compares the head; the answer may come late.
    pub fn compare_heads(&mut self, is_slow: bool, shared: &mut Shared) {
        let Some(at) = self.state.as_ref().map(DocumentState::position) else { return };
        if self.is_waiting() {
            return;
        }
        match shared.store.changed_head(at) {
            Some(head) if is_slow => self.work.push(Work::Answer(Answer::Heads(head))),
            Some(head) => self.turn(shared, |state, _| state.head_moved(head)),
            None => {}
        }
    }
}

/// What was taken of an honest document reads back.
pub(super) fn read_back(snapshot: Unverified, shared: &mut Shared) -> Option<Snapshot> {
    let position = snapshot.position();
    let verified = snapshot.verify();
    if let Err(error) = &verified {
        shared.must_not_be(format!("the snapshot at {position} does not read back: {error}"));
    }
    verified.ok()
}
