//! What is asked of the log, one thing at a time, and what its answers mean.

use super::*;

/// What is being asked of the log. One thing at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LogWork {
    Nothing,
    Appending,
    /// The outcome of the append is unknown: its rows are looked for before anything is sent again.
    Resolving,
    ReadingTail,
    Holding,
    /// PostgreSQL is away; so many attempts failed.
    Away(u32),
    Rebuilding,
}

/// The stored log cannot be used as it is: mend this first, then load again.
#[derive(Debug)]
pub enum Unsound {
    /// What must move into quarantine, one after the other.
    Log(Vec<Quarantine>),
    /// A snapshot that does not read, its checksum notwithstanding.
    Snapshot {
        /// Its sequence.
        seq: u64,
    },
}

impl Unsound {
    /// One update of the log.
    pub(super) fn of(what: Quarantine) -> Self {
        Self::Log(vec![what])
    }
}

/// What was learnt after an outage: rights as they stand now, and the tail.
pub type News = (Vec<(RightInUse, Standing)>, Result<Tail, LogError>);

/// What to do with a locked head.
#[derive(Debug)]
pub enum HeadDecision {
    /// Append this under the lock.
    Append {
        /// The head.
        base: Position,
        /// In order.
        rows: Vec<NewRow>,
    },
    /// Nothing is left to append: let go.
    Release,
}

impl DocumentState {
    /// The append was sent under this name.
    pub fn dispatched(&mut self, append_id: AppendId) {
        if let Some(batch) = &mut self.in_flight {
            batch.append_id = Some(append_id);
        }
    }

    /// What became of the append in flight.
    pub fn appended(&mut self, outcome: AppendOutcome, now: Instant) -> Vec<Effect> {
        match outcome {
            AppendOutcome::Committed(through) => {
                self.log = LogWork::Nothing;
                self.lost_races = 0;
                self.batch_updates_max = BATCH_UPDATES_MAX;
                if let Some(batch) = self.in_flight.take() {
                    self.committed(batch, through, now);
                }
                self.next_append(now);
            }
            AppendOutcome::Behind => {
                self.lost_races += 1;
                self.wait_again();
                self.read_tail();
            }
            AppendOutcome::Unknown => {
                self.log = LogWork::Resolving;
                self.recover(0);
            }
            AppendOutcome::Unavailable => {
                self.wait_again();
                self.log = LogWork::Away(0);
                self.recover(0);
            }
            AppendOutcome::Deleted => self.die(close::NOT_FOUND, "document deleted"),
            AppendOutcome::Refused(_) => self.append_refused(now),
            AppendOutcome::IdempotencyConflict => self.answer_in_flight(Err(WriteRefused::IdempotencyConflict), now),
            AppendOutcome::AlreadyDone(seq) => {
                let position = self.position;
                self.answer_in_flight(Ok(Written { seq, position }), now);
            }
        }
        self.take_effects()
    }

    /// The rows after our position.
    pub fn tail_read(&mut self, tail: Result<Tail, LogError>, now: Instant) -> Vec<Effect> {
        match tail {
            Ok(tail) => {
                self.log = LogWork::Nothing;
                self.tail_is_stale = false;
                if self.take_in_tail(tail, now) {
                    self.ask_about_gaps(now);
                    self.next_append(now);
                }
            }
            Err(error) => self.log_failed(&error),
        }
        self.take_effects()
    }

    /// The head is locked for us: its tail, or why not. Whatever is appended is answered with [`appended`](Self::appended).
    pub fn head_locked(&mut self, tail: Result<Tail, LogError>, now: Instant) -> (HeadDecision, Vec<Effect>) {
        let mut decision = HeadDecision::Release;
        match tail {
            Ok(tail) => {
                self.log = LogWork::Nothing;
                if self.take_in_tail(tail, now) {
                    if let Some((base, rows)) = self.form_batch(now) {
                        self.log = LogWork::Appending;
                        decision = HeadDecision::Append { base, rows };
                    } else if self.tail_is_stale {
                        self.read_tail();
                    }
                }
            }
            // Another node holds it right now: back to the ordinary way.
            Err(LogError::Unavailable(_)) => {
                self.log = LogWork::Nothing;
                self.lost_races = 0;
                self.read_tail();
            }
            Err(error) => self.log_failed(&error),
        }
        (decision, self.take_effects())
    }

    /// After an outage: rights were looked at again, and the tail was read. `None`: PostgreSQL is still away.
    pub fn recovered(&mut self, news: Option<News>, now: Instant) -> Vec<Effect> {
        let attempt = match self.log {
            LogWork::Away(attempt) => attempt + 1,
            _ => 1,
        };
        match news {
            None | Some((_, Err(LogError::Unavailable(_)))) => {
                if self.log != LogWork::Resolving {
                    self.log = LogWork::Away(attempt);
                }
                self.recover(attempt);
            }
            Some((standings, tail)) => {
                self.regrant_all(&standings, now);
                let resolving = self.log == LogWork::Resolving;
                self.log = LogWork::Nothing;
                match tail {
                    Ok(tail) => {
                        let sound = if resolving { self.resolve(tail, now) } else { self.take_in_tail(tail, now) };
                        if sound {
                            self.ask_for_what_was_dropped(now);
                            self.next_append(now);
                        }
                    }
                    Err(error) => {
                        self.wait_again();
                        self.log_failed(&error);
                    }
                }
            }
        }
        self.take_effects()
    }

    /// Loaded anew after the log diverged. Everybody is sent what is there now, and asked for what the database lost.
    ///
    /// Of a document that is damaged as it was, nothing is sent: it is as it was.
    pub fn rebuilt(&mut self, stored: Stored, now: Instant) -> Result<Vec<Effect>, Unsound> {
        let before = self.damaged.map(|damaged| (damaged, self.position));
        self.index = Index::new();
        self.recent = Recent::new(self.limits.document_recent_bytes);
        self.position = Position::START;
        self.log = LogWork::Nothing;
        self.restore(stored, now)?;
        if before.is_some() && before == self.damaged.map(|damaged| (damaged, self.position)) {
            return Ok(self.take_effects());
        }
        self.bring_back();
        if let Some(state) = self.read_replica(Replica::state) {
            let through = self.position;
            for follower in self.followers.values_mut().filter(|follower| follower.receiving) {
                follower.seen_seq = through.seq;
            }
            let state = InPieces::cut(state, self.limits.sync_piece_bytes);
            self.effects.push(Effect::ShowAnew { state, through });
        }
        let receiving = self.receiving();
        receiving.iter().for_each(|follower| self.doubt(*follower));
        self.ask(&receiving, now);
        self.tell_all_taken_out();
        self.next_append(now);
        Ok(self.take_effects())
    }

    /// The head in PostgreSQL is not where we stand.
    pub fn head_moved(&mut self, head: Head) -> Vec<Effect> {
        if head.deleted {
            self.die(close::NOT_FOUND, "document deleted");
        } else if self.damaged.is_some() {
            if head.position != self.stands_at() {
                self.load_damaged_again();
            }
        } else if head.position != self.position {
            self.request_tail();
        }
        self.take_effects()
    }

    /// The outcome of the append was unknown; now the tail tells it.
    pub(super) fn resolve(&mut self, tail: Tail, now: Instant) -> bool {
        let Some(batch) = self.in_flight.take() else { return self.take_in_tail(tail, now) };
        let ours = batch.append_id;
        let mut rows = tail.rows;
        let own: usize = rows.iter().take_while(|row| Some(row.append_id) == ours).count();
        // Something may have been taken out of them since.
        let written = rows.iter().take(own).flat_map(|row| &row.updates);
        let are_whole = written.eq(batch.admitted().map(Update::bytes));
        if own == 0 || batch.base != self.position || !are_whole {
            self.in_flight = Some(batch);
            self.wait_again();
            return self.take_in_tail(Tail { rows, head: tail.head }, now);
        }
        let rest = rows.split_off(own);
        let Some(last) = rows.last() else { return false };
        let through = Position { seq: last.seq_to, tip: last.tip };
        self.committed(batch, through, now);
        !self.dead && self.take_in_tail(Tail { rows: rest, head: tail.head }, now)
    }

    /// Somebody knows of rows that we lack: they are read now, or as soon as the log has done what it was asked before.
    pub(super) fn request_tail(&mut self) {
        if self.damaged.is_some() {
            return; // they cannot be read
        }
        self.tail_is_stale = true;
        if self.log == LogWork::Nothing {
            self.read_tail();
        }
    }

    pub(super) fn read_tail(&mut self) {
        if !self.dead {
            self.log = LogWork::ReadingTail;
            self.effects.push(Effect::ReadTail(self.position));
        }
    }

    pub(super) fn log_failed(&mut self, error: &LogError) {
        match error {
            LogError::Unavailable(_) => {
                self.log = LogWork::Away(0);
                self.recover(0);
            }
            LogError::Diverged => {
                self.wait_again();
                self.log = LogWork::Rebuilding;
                self.effects.push(Effect::Rebuild);
            }
            LogError::NoSuchDocument | LogError::Damaged(_) => self.gone(),
        }
    }

    /// A damaged document may have been mended: it is loaded again.
    pub(super) fn load_damaged_again(&mut self) {
        if self.damaged.is_some() && self.log == LogWork::Nothing && !self.dead {
            self.log = LogWork::Rebuilding;
            self.effects.push(Effect::Rebuild);
        }
    }

    /// The database has lost this document altogether (a restored backup, a promoted replica), or it is damaged. Whoever is here still has it,
    /// comes back by its name, which makes it anew, and brings it back, or reads what is left of it.
    pub(super) fn gone(&mut self) {
        self.die(close::SERVICE_RESTART, "document is rebuilt");
    }

    /// 100 ms, doubling, at most 2 s: after an outage everybody waits for the first answer.
    pub(super) fn recover(&mut self, attempt: u32) {
        let after = Duration::from_millis(100 << attempt.min(5)).min(Duration::from_secs(2));
        self.effects.push(Effect::Recover { after });
    }

    /// The batch in flight was not written, and the order knows nothing of it any more.
    pub(super) fn give_up_batch(&mut self) -> Option<Batch> {
        self.roll_back(Mark::default());
        self.in_flight.take()
    }

    /// The batch in flight was not written: its updates wait again, in order, to be admitted anew.
    pub(super) fn wait_again(&mut self) {
        if let Some(batch) = self.give_up_batch() {
            for (proposal, _) in batch.items.into_iter().rev() {
                self.waiting.push_front(proposal);
            }
        }
    }

    /// The log was looked at: what was set aside until then is admitted again, or refused.
    pub(super) fn bring_back(&mut self) {
        for proposal in self.set_aside.drain(..).rev() {
            self.waiting.push_front(proposal);
        }
    }
}
