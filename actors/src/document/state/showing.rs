//! What was committed is remembered, shown, read and, now and then, stored as a snapshot.

use super::following::unsound;
use super::*;

#[derive(Debug, Default)]
pub(super) struct TailSinceSnapshot {
    bytes: usize,
    updates: u64,
    since: Option<Instant>,
}

/// How long an encoded state is kept for the next who joins: a storm of joins takes about so long, and an idle document should be small.
const ENCODED_KEPT: Duration = Duration::from_secs(1);

/// The whole state at a position.
#[derive(Debug)]
pub(super) struct Encoded {
    at: Position,
    state: Bytes,
    since: Instant,
}

impl Encoded {
    pub(super) fn bytes(&self) -> usize {
        self.state.len()
    }
}

impl DocumentState {
    /// Updates since the last snapshot.
    pub fn tail_updates(&self) -> u64 {
        self.tail.updates
    }

    /// What became of [`Effect::Snapshot`]: the snapshot, where it was read back, and whether it is stored. A tail that is not stored is tried
    /// again when there is as much of it again.
    pub fn snapshot_taken(&mut self, taken: Option<Snapshot>, is_stored: bool, now: Instant) {
        self.reading_back = false;
        let stored_at = taken.as_ref().filter(|_| is_stored).map(|snapshot| snapshot.position.seq);
        let updates = stored_at.map_or(0, |seq| self.position.seq.saturating_sub(seq));
        self.tail = TailSinceSnapshot { updates, bytes: 0, since: (updates > 0).then_some(now) };
        match taken {
            // A tree that was made for the snapshot alone was never used.
            Some(snapshot) if snapshot.position == self.position && (self.used_at.is_none() || self.may_rest(now)) => {
                self.pack(snapshot);
            }
            Some(_) => {}
            None => self.used_at = None, // the tree is all there is: it stays, and is tried again when it was needed again
        }
    }

    /// The whole state as yrs folds it, and where it stands; for HTTP reads.
    pub fn read(&mut self, now: Instant) -> Option<(Position, Bytes)> {
        if !self.fold_the_rest(now) {
            return None;
        }
        let state = self.read_replica(Replica::state)?;
        Some((self.position, state))
    }

    /// A snapshot of this moment, for [`Effect::Snapshot`]. The document may have ended over it.
    pub fn snapshot(&mut self) -> (Option<Unverified>, Vec<Effect>) {
        let position = self.position;
        if self.replica.has_unfolded() {
            self.encoded = None; // what the gate made of the parts
        }
        let taken = self.read_replica(|replica| {
            replica.unpack()?;
            replica.snapshot(position)
        });
        (taken, self.take_effects())
    }

    /// What somebody lacks who was sent everything through `seq`: the recent updates merged, or the whole state.
    pub fn catch_up(&mut self, seq: u64) -> Option<(Bytes, Position)> {
        let covered = self.latest.front().is_some_and(|(first, _)| *first <= seq + 1);
        let update = if covered {
            let missing: Vec<Update> =
                self.latest.iter().filter(|(at, _)| *at > seq).map(|(_, update)| update.clone()).collect();
            merge(&missing)
        } else {
            self.read_replica(Replica::state)?
        };
        Some((update, self.position))
    }

    /// The whole state, encoded once for all who join before it changes.
    pub(super) fn whole_state(&mut self, now: Instant) -> Option<Bytes> {
        if self.replica.is_packed() && !self.replica.has_unfolded() {
            return self.read_replica(Replica::state); // it is there already
        }
        if let Some(encoded) = self.encoded.as_ref().filter(|encoded| encoded.at == self.position) {
            return Some(encoded.state.clone());
        }
        self.encoded = None; // before there are two of them
        let state = self.read_replica(Replica::state)?;
        self.encoded = Some(Encoded { at: self.position, state: state.clone(), since: now });
        self.wake_slowly(now);
        Some(state)
    }

    /// It has changed since, or nobody has asked for it lately.
    pub(super) fn forget_encoded(&mut self, now: Instant) {
        self.encoded.take_if(|encoded| encoded.at != self.position || now >= encoded.since + ENCODED_KEPT);
        self.replica.forget_parsed();
    }

    pub(super) fn remember(&mut self, seq: u64, update: Update, now: Instant) {
        let bytes = update.bytes().len();
        self.folded_bytes += bytes;
        self.tail.bytes += bytes;
        self.tail.updates += 1;
        self.tail.since.get_or_insert(now);
        self.recent.push(&update);
        self.latest.push_back((seq, update));
        self.latest_bytes += bytes;
        while self.latest_bytes > self.limits.document_recent_bytes && self.latest.len() > 1 {
            if let Some((_, oldest)) = self.latest.pop_front() {
                self.latest_bytes -= oldest.bytes().len();
            }
        }
    }

    pub(super) fn show(&mut self, updates: &[Update], sole_sender: Option<FollowerId>) {
        let update = match updates {
            [] => return,
            [one] => one.bytes().clone(),
            many => merge(many),
        };
        let seq = self.position.seq;
        for member in self.members.values_mut().filter(|member| member.receiving) {
            member.seen_seq = seq;
        }
        self.effects.push(Effect::Show { update, through: self.position, sole_sender });
    }

    pub(super) fn consider_snapshot(&mut self, now: Instant) {
        let tail = &self.tail;
        let age = Duration::from_secs(self.limits.snapshot_age_s);
        // Many are loaded at once, and packed they are as small as after it.
        let age = if self.replica.is_packed() { self.spread(age) } else { age };
        let due = tail.bytes >= self.limits.snapshot_tail_bytes
            || tail.updates >= self.limits.snapshot_tail_updates
            || tail.since.is_some_and(|since| now >= since + age);
        if (due || self.may_rest(now)) && !self.reading_back && !self.dead {
            self.reading_back = true;
            self.effects.push(Effect::Snapshot { is_stored: self.tail.updates > 0 });
        } else if self.tail.updates > 0 {
            self.wake_slowly(now);
        }
    }

    /// Whether nobody has needed the tree for so long that it may go. Documents have times of their own, because many come back at once.
    fn may_rest(&self, now: Instant) -> bool {
        let after = self.spread(Duration::from_secs(self.limits.document_rest_s));
        self.used_at.is_some_and(|at| now >= at + after) && self.is_settled()
    }

    /// From `least` to twice that, by document.
    fn spread(&self, least: Duration) -> Duration {
        least + least * u32::from(self.replica.key().document.0.as_bytes()[15]) / 256
    }

    /// The tree goes: this is the state at our position, and it reads back.
    fn pack(&mut self, snapshot: Snapshot) {
        self.used_at = None;
        self.encoded = None;
        self.folded_bytes = snapshot.state.len();
        self.packed_bytes = snapshot.state.len();
        self.replica.pack(Some((snapshot.position.seq, snapshot.state)), Vec::new());
    }

    /// The tree is needed: makes it, where the document is packed. False when this instance ended over it.
    pub(super) fn unpack(&mut self, now: Instant) -> bool {
        self.used_at = Some(now);
        self.wake_slowly(now);
        self.read_replica(Replica::unpack).is_some()
    }

    /// What the gate makes of the parts is not enough. False when this instance ended over it.
    pub(super) fn fold_the_rest(&mut self, now: Instant) -> bool {
        if !self.replica.has_unfolded() {
            return true;
        }
        self.encoded = None;
        self.unpack(now)
    }

    /// Reads the replica; a panic inside yrs ends this instance. A snapshot that cannot be folded is discarded, a row moves into quarantine.
    pub(super) fn read_replica<T>(&mut self, read: impl FnOnce(&mut Replica) -> Result<T, ReplicaError>) -> Option<T> {
        match read(&mut self.replica) {
            Ok(read) => Some(read),
            Err(error) => {
                match error {
                    ReplicaError::Snapshot { seq, .. } => self.effects.push(Effect::Mend(Unsound::Snapshot { seq })),
                    ReplicaError::Row { seq, .. } => {
                        let of_the_row = Bytes::new();
                        self.effects.push(Effect::Mend(Unsound::Row(unsound(seq, "fold_panicked", of_the_row))));
                    }
                    _ => {}
                }
                self.die(close::SERVICE_RESTART, "document is rebuilt");
                None
            }
        }
    }
}
