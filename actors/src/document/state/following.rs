//! Rows of the log that come into the document: packed when it is loaded, folded after that.

use super::showing::NOTHING;
use super::*;

impl DocumentState {
    /// Rows that others wrote, up to the head. False when this instance ended over it.
    pub(super) fn take_in_tail(&mut self, tail: Tail, now: Instant) -> bool {
        if tail.head.deleted {
            self.die(close::NOT_FOUND, "document deleted");
            return false;
        }
        for row in tail.rows {
            // Of one in quarantine the numbers stay.
            let updates = row.updates.into_iter().map(|update| (Some(update), row.authorship));
            let through = Position { seq: row.seq_to, tip: row.tip };
            match self.take_in(updates, through, now) {
                Ok(()) => {}
                // Who loads the document sees what of the log continues, and what does not.
                Err(NotTakenIn::Gap) => self.die(close::SERVICE_RESTART, "document is rebuilt"),
                Err(NotTakenIn::Broken { seq, update }) => {
                    self.effects.push(Effect::Mend(Unsound::of(unsound(row.seq_from, seq, update))));
                    self.die(close::SERVICE_RESTART, "document is rebuilt");
                }
            }
            if self.dead {
                return false;
            }
        }
        self.bring_back();
        true
    }

    /// Folds updates that other nodes admitted against exactly our prefix, and shows them. After an error, which names the update,
    /// this instance is the fold of nothing any more.
    pub(super) fn take_in(
        &mut self,
        updates: impl Iterator<Item = (Option<Bytes>, Authorship)>,
        through: Position,
        now: Instant,
    ) -> Result<(), NotTakenIn> {
        if !self.unpack(now) {
            return Ok(()); // what comes next is read from the log
        }
        let from = self.position;
        let mut shown = Vec::new();
        for (seq, (update, authorship)) in (from.seq + 1..).zip(updates) {
            let Some(update) = update else { continue };
            if let Some(folded) = self.fold_stored(seq, update)? {
                self.writers.take_in(&folded, authorship);
                shown.push(folded.clone());
                self.remember(seq, folded, now);
            }
        }
        self.position = through;
        if !shown.is_empty() {
            self.show(&shown, None);
            self.consider_snapshot(now);
        }
        Ok(())
    }

    /// Folds the stored update of this number. `None`: nothing of it was new.
    fn fold_stored(&mut self, seq: u64, bytes: Bytes) -> Result<Option<Update>, NotTakenIn> {
        let trimmed = trim(&mut self.index, bytes.clone()).map_err(|_| NotTakenIn::Gap)?;
        let Some(update) = trimmed else { return Ok(None) };
        self.replica.fold(seq, &update).map_err(|_| NotTakenIn::Broken { seq, update: bytes })?;
        if let Some(order) = &mut self.order {
            order.follow(&self.index, &update);
        }
        Ok(Some(update))
    }

    /// What is stored, packed: yrs sees nothing of it before the tree is needed.
    pub(super) fn restore(&mut self, stored: Stored, now: Instant) -> Result<(), Unsound> {
        let caps = Caps::of_the_log();
        self.quarantined =
            stored.quarantined.into_iter().filter_map(|bytes| Update::parse(bytes, &caps).ok()).collect();
        self.order = None;
        self.tree_cost = Duration::ZERO;
        self.too_dear = None;
        self.writers = Writers::default();
        self.folded_bytes = 0;
        self.weight = None;
        if let Some(snapshot) = &stored.snapshot {
            let unreadable = |_| Unsound::Snapshot { seq: snapshot.position.seq };
            let state = Update::parse(snapshot.state.clone(), &caps).map_err(unreadable)?;
            self.index = Index::from_state(&state);
            self.writers = Writers::decode(&snapshot.writers);
            self.folded_bytes = snapshot.state.len();
            self.position = snapshot.position;
        }
        self.tail = TailSinceSnapshot::default();
        let mut unfolded = Vec::new();
        let mut unsound = Vec::new();
        for row in stored.tail.rows {
            for (seq, bytes) in (row.seq_from..).zip(row.updates) {
                let update = match trim(&mut self.index, bytes.clone()) {
                    Ok(Some(update)) => update,
                    Ok(None) => continue,
                    Err(Gap { stays }) => {
                        unsound.push(does_not_continue(row.seq_from, seq, bytes, stays));
                        continue;
                    }
                };
                self.writers.take_in(&update, row.authorship);
                unfolded.push(Unfolded { row: row.seq_from, seq, update: update.bytes().clone() });
                self.remember(seq, update, now);
            }
            self.position = Position { seq: row.seq_to, tip: row.tip };
        }
        if !unsound.is_empty() {
            self.check_snapshot(stored.snapshot)?;
            return Err(Unsound::Log(unsound));
        }
        let snapshot = stored.snapshot.map(|snapshot| (snapshot.position.seq, snapshot.state));
        self.replica.pack(snapshot, unfolded);
        let head = stored.tail.head.position;
        self.damaged = stored.damage.map(|damage| Damaged { damage, head });
        if self.damaged.is_none() {
            self.position = head;
        }
        self.index_bytes = self.index.bytes();
        self.forget_whole_state();
        self.used_at = None;
        if self.has_slow_matters() {
            self.wake_slowly(now);
        }
        Ok(())
    }

    /// Something does not continue this snapshot: an error where that is no wonder.
    fn check_snapshot(&mut self, snapshot: Option<Snapshot>) -> Result<(), Unsound> {
        let Some(snapshot) = snapshot else { return Ok(()) };
        let seq = snapshot.position.seq;
        self.replica.pack(Some((seq, snapshot.state.clone())), Vec::new());
        let sound = self.replica.unpack().and_then(|()| self.replica.compare(&snapshot));
        sound.map_err(|_| Unsound::Snapshot { seq })
    }
}

/// Why rows are not taken in.
pub(super) enum NotTakenIn {
    /// Something does not continue what is before it.
    Gap,
    /// yrs does not fold this, the update of that number.
    Broken { seq: u64, update: Bytes },
}

/// A stored update does not continue what is before it, or not all of it does.
#[derive(Debug)]
pub(in crate::document) struct Gap {
    /// What does, and is known from now on.
    stays: Bytes,
}

/// Has the gate trim a stored update by what overlaps. `None`: nothing of it is new.
pub(in crate::document) fn trim(index: &mut Index, bytes: Bytes) -> Result<Option<Update>, Gap> {
    let caps = Caps::of_the_log();
    let nothing = || Gap { stays: Bytes::from_static(NOTHING) };
    let update = Update::parse(bytes, &caps).map_err(|_| nothing())?;
    let admission = index.trust(&update).map_err(|_| nothing())?;
    let is_whole = admission.missing.is_none();
    match admission.content {
        Content::Nothing if is_whole => Ok(None),
        Content::Nothing => Err(nothing()),
        Content::Whole if is_whole => Ok(Some(update)),
        Content::Whole => Err(Gap { stays: update.bytes().clone() }),
        Content::Part(bytes) if is_whole => Update::parse(bytes, &caps).map(Some).map_err(|_| nothing()),
        Content::Part(bytes) => Err(Gap { stays: bytes }),
    }
}

/// The content of the update of this number cannot be folded.
pub(super) fn unsound(seq_from: u64, seq: u64, update: Bytes) -> Quarantine {
    let (extent, new_tip) = (Extent::Content(seq), Tip(uuid::Uuid::nil()));
    Quarantine {
        seq_from,
        extent,
        new_tip,
        reason: QuarantineReason::FoldPanicked,
        update,
        user_session: None,
        user: None,
    }
}

/// What of the update of this number does not continue the log.
fn does_not_continue(seq_from: u64, seq: u64, update: Bytes, stays: Bytes) -> Quarantine {
    let (extent, reason) = (Extent::Rest(seq, stays), QuarantineReason::DoesNotContinue);
    Quarantine { extent, reason, ..unsound(seq_from, seq, update) }
}
