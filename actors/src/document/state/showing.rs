//! What was committed is remembered, shown, read and, now and then, stored as a snapshot.

use super::following::unsound;
use super::*;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TailSinceSnapshot {
    bytes: usize,
    updates: u64,
    since: Option<Instant>,
}

/// How long an encoded state is kept for the next who joins: a storm of joins takes about so long, and an idle document should be small.
const ENCODED_KEPT: Duration = Duration::from_secs(1);

/// An update without blocks and without deletes.
pub(super) const NOTHING: &[u8] = &[0, 0];

/// A step 2 of so many pieces is sent whole. A Y-Sweet client, which is the least patient, has no deadline before its first step 2.
const STEP2_PIECES_WHOLE: usize = 4;

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

/// The same, cut.
#[derive(Debug)]
pub(super) struct EncodedInPieces {
    at: Position,
    state: InPieces,
    since: Instant,
}

impl EncodedInPieces {
    pub(super) fn bytes(&self) -> usize {
        self.state.bytes()
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
        self.too_dear = None;
        let stored_at = taken.as_ref().filter(|_| is_stored).map(|snapshot| snapshot.position.seq);
        let updates = stored_at.map_or(0, |seq| self.position.seq.saturating_sub(seq));
        self.tail = TailSinceSnapshot { updates, bytes: 0, since: (updates > 0).then_some(now) };
        match taken {
            // A tree that was made for the snapshot alone was never used.
            Some(snapshot)
                if snapshot.position == self.position && (self.used_at.is_none() || self.may_compact(now)) =>
            {
                self.pack(snapshot);
            }
            Some(_) => {}
            None => self.used_at = None, // the tree is all there is: it stays, and is tried again when it was needed again
        }
    }

    /// The snapshot of [`Effect::Snapshot`] would take too long to fold: nothing is stored, the tree stays, and the log is what the document
    /// is loaded from. It is tried again when there is twice as much of a tail. Answers whether this is news.
    pub fn snapshot_too_dear(&mut self) -> bool {
        self.reading_back = false;
        self.used_at = None;
        let is_news = self.too_dear.is_none();
        self.too_dear = Some(TailSinceSnapshot { since: None, ..self.tail });
        is_news
    }

    /// Whether there is a tree to take a snapshot of, which was not found too dear.
    pub fn may_be_snapshot(&self) -> bool {
        !self.is_compact() && self.too_dear.is_none()
    }

    /// Whether the log since the last snapshot is as long as it may be. Only one of which there can be no snapshot becomes so long.
    pub(super) fn is_tail_full(&self) -> bool {
        const OF_A_ROW: usize = 64;
        let bytes = self.tail.bytes + OF_A_ROW * usize::try_from(self.tail.updates).unwrap_or(usize::MAX);
        self.too_dear.is_some() && bytes > self.limits.document_bytes_max
    }

    /// What the last [`snapshot`](Self::snapshot) takes as a tree. Since then only what came was counted, and nothing that was deleted or joined.
    pub fn weighed(&mut self, snapshot: Weight) {
        if self.weight.is_some() {
            self.weight = Some(snapshot.and(&self.weight_since));
        }
    }

    /// What the whole state takes.
    pub(super) fn weighed_now(&mut self, state: Weight) {
        self.weight_since = Weight::default();
        self.weighed(state);
    }

    /// The whole state as yrs folds it, and where it stands; for HTTP reads.
    pub fn read(&mut self, now: Instant) -> Option<(Position, Bytes)> {
        if !self.fold_remaining(now) {
            return None;
        }
        let state = self.read_replica(Replica::state)?;
        Some((self.position, state))
    }

    /// A snapshot of this moment, for [`Effect::Snapshot`]. The document may have ended over it.
    pub fn snapshot(&mut self) -> (Option<Unverified>, Vec<Effect>) {
        let (position, writers) = (self.position, self.writers.encode());
        if self.replica.has_unfolded() {
            self.forget_whole_state(); // what the gate made of the parts
        }
        let weighed = self.weigh();
        let taken = self.read_replica(|replica| {
            weighed?;
            replica.unpack()?;
            replica.snapshot(position, writers)
        });
        self.weight_since = Weight::default();
        let committed = || self.recent.rows().map(|update| update.bytes().clone()).collect();
        let taken = taken.map(|taken| taken.compared_with(committed()));
        (taken, self.take_effects())
    }

    /// What somebody lacks who was sent everything through `seq`: the recent updates merged, or the whole state.
    pub fn catch_up(&mut self, seq: u64, now: Instant) -> Option<(InPieces, Position)> {
        let missing: Option<Vec<Update>> = self.recent.since(seq).map(|missing| missing.cloned().collect());
        let pieces = if let Some(missing) = missing {
            InPieces::cut(merge(&missing), self.limits.sync_piece_bytes)
        } else {
            let state = self.whole_state_in_pieces(now)?;
            if state.before.is_empty() { InPieces::cut(state.last, self.limits.sync_piece_bytes) } else { state }
        };
        Some((pieces, self.position))
    }

    /// What catching up from `seq` needs is made now, and kept for a moment.
    pub fn prepare_to_catch_up(&mut self, seq: u64, now: Instant) -> Vec<Effect> {
        if self.recent.since(seq).is_none() {
            self.whole_state_in_pieces(now);
        }
        self.take_effects()
    }

    /// The [whole state](Self::whole_state), cut once for all who join before it changes.
    pub(super) fn whole_state_in_pieces(&mut self, now: Instant) -> Option<InPieces> {
        if let Some(kept) = self.in_pieces.as_ref().filter(|kept| kept.at == self.position) {
            return Some(kept.state.clone());
        }
        self.in_pieces = None; // before there are two of them
        let state = self.whole_state(now)?;
        let state = self.step2_in_pieces(state);
        if !state.before.is_empty() {
            self.in_pieces = Some(EncodedInPieces { at: self.position, state: state.clone(), since: now });
            self.encoded = None; // the pieces hold all of it
            self.wake_slowly(now);
        }
        Some(state)
    }

    /// What answers a step 1. One that is not much larger than a piece stays whole: it arrives in time, and most documents are small.
    pub(super) fn step2_in_pieces(&self, update: Bytes) -> InPieces {
        let piece = self.limits.sync_piece_bytes;
        if update.len() <= STEP2_PIECES_WHOLE * piece { update.into() } else { InPieces::cut(update, piece) }
    }

    /// The whole state, encoded once for all who join before it changes.
    pub(super) fn whole_state(&mut self, now: Instant) -> Option<Bytes> {
        if self.replica.is_compact() && !self.replica.has_unfolded() {
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

    /// Whether nothing has to be encoded for the [whole state](Self::whole_state_in_pieces).
    pub(super) fn has_whole_state(&self) -> bool {
        (self.replica.is_compact() && !self.replica.has_unfolded())
            || self.in_pieces.as_ref().is_some_and(|kept| kept.at == self.position)
            || self.encoded.as_ref().is_some_and(|encoded| encoded.at == self.position)
    }

    /// It has changed since, or nobody has asked for it lately.
    pub(super) fn forget_encoded(&mut self, now: Instant) {
        let is_old = |at, since| at != self.position || now >= since + ENCODED_KEPT;
        self.encoded.take_if(|encoded| is_old(encoded.at, encoded.since));
        self.in_pieces.take_if(|kept| is_old(kept.at, kept.since));
        self.replica.forget_parsed();
    }

    /// What is encoded stands for nothing any more.
    pub(super) fn forget_whole_state(&mut self) {
        self.encoded = None;
        self.in_pieces = None;
    }

    pub(super) fn remember(&mut self, seq: u64, update: Update, now: Instant) {
        let bytes = update.bytes().len();
        self.folded_bytes += bytes;
        if let Some(weight) = &mut self.weight {
            weight.add(&update);
            self.weight_since.add(&update);
        }
        self.tail.bytes += bytes;
        self.tail.updates += 1;
        self.tail.since.get_or_insert(now);
        self.recent.push(seq, update);
    }

    pub(super) fn show(&mut self, updates: &[Update], sole_sender: Option<FollowerId>) {
        let large = self.limits.sync_piece_bytes;
        let mut update = match updates {
            [] => return,
            [one] if one.bytes().len() <= large => one.bytes().clone().into(),
            [one] => InPieces::of(one, large),
            many => InPieces::cut(merge(many), large),
        };
        if update.last.as_ref() == NOTHING
            && let Some(last) = update.before.pop()
        {
            update.last = last; // no step 2 is needed
        }
        let seq = self.position.seq;
        for follower in self.followers.values_mut().filter(|follower| follower.receiving) {
            follower.seen_seq = seq;
        }
        self.effects.push(Effect::Show { update, through: self.position, sole_sender });
    }

    pub(super) fn consider_snapshot(&mut self, now: Instant) {
        let tail = &self.tail;
        let age = Duration::from_secs(self.limits.snapshot_age_s);
        // Many are loaded at once, and packed they are as small as after it.
        let age = if self.replica.is_compact() { self.spread(age) } else { age };
        let (bytes_max, updates_max) = (self.limits.snapshot_tail_bytes, self.limits.snapshot_tail_updates);
        let due = match &self.too_dear {
            None => {
                let is_old = tail.since.is_some_and(|since| now >= since + age);
                tail.bytes >= bytes_max || tail.updates >= updates_max || is_old || self.may_compact(now)
            }
            Some(then) => {
                tail.bytes >= 2 * then.bytes.max(bytes_max) || tail.updates >= 2 * then.updates.max(updates_max)
            }
        };
        if due && !self.reading_back && !self.dead {
            self.reading_back = true;
            self.effects.push(Effect::Snapshot { store: self.tail.updates > 0 });
        } else if self.tail.updates > 0 {
            self.wake_slowly(now);
        }
    }

    /// Whether nobody has needed the tree for so long that it may go. Documents have times of their own, because many come back at once.
    fn may_compact(&self, now: Instant) -> bool {
        let after = self.spread(Duration::from_secs(self.limits.document_compact_after_s));
        self.used_at.is_some_and(|at| now >= at + after) && self.is_settled()
    }

    /// From `least` to twice that, by document.
    fn spread(&self, least: Duration) -> Duration {
        least + least * u32::from(self.replica.key().document.0.as_bytes()[15]) / 256
    }

    /// The tree goes: this is the state at our position, and it reads back. The recent rows go with it, as they would if the document were
    /// loaded: nobody has needed them for as long.
    fn pack(&mut self, snapshot: Snapshot) {
        self.used_at = None;
        self.order = None;
        self.recent = Recent::new(self.limits.document_recent_bytes);
        self.forget_whole_state();
        self.folded_bytes = snapshot.state.len();
        self.weight = None;
        self.index_bytes = self.index.bytes();
        self.replica.pack(Some((snapshot.position.seq, snapshot.state)), Vec::new());
    }

    /// The tree is needed: makes it, where the document is packed. False when this instance ended over it.
    pub(super) fn unpack(&mut self, now: Instant) -> bool {
        self.used_at = Some(now);
        self.wake_slowly(now);
        let weighed = self.weigh();
        self.read_replica(|replica| weighed.and_then(|()| replica.unpack())).is_some()
    }

    /// What the gate makes of the parts is not enough. False when this instance ended over it.
    pub(super) fn fold_remaining(&mut self, now: Instant) -> bool {
        if !self.replica.has_unfolded() {
            return true;
        }
        self.forget_whole_state();
        self.unpack(now)
    }

    /// Reads the replica; a panic inside yrs ends this instance. A snapshot that cannot be folded is discarded, a row moves into quarantine.
    pub(super) fn read_replica<T>(&mut self, read: impl FnOnce(&mut Replica) -> Result<T, ReplicaError>) -> Option<T> {
        match read(&mut self.replica) {
            Ok(read) => Some(read),
            Err(error) => {
                match error {
                    ReplicaError::Snapshot { seq, .. } => self.effects.push(Effect::Mend(Unsound::Snapshot { seq })),
                    ReplicaError::Logged { row, seq, update, .. } => {
                        self.effects.push(Effect::Mend(Unsound::of(unsound(row, seq, update))));
                    }
                    _ => {}
                }
                self.die(close::SERVICE_RESTART, "document is rebuilt");
                None
            }
        }
    }
}
