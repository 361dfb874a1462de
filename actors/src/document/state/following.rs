//! Rows of the log that come into the document: packed when it is loaded, folded after that.

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
            if let Err((reason, update)) = self.take_in(updates, through, now) {
                self.effects.push(Effect::Mend(Unsound::Row(unsound(row.seq_from, reason, update))));
                self.die(close::SERVICE_RESTART, "document is rebuilt");
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
    ) -> Result<(), (&'static str, Bytes)> {
        if !self.unpack(now) {
            return Ok(()); // what comes next is read from the log
        }
        let from = self.position;
        let mut shown = Vec::new();
        for (seq, (update, authorship)) in (from.seq + 1..).zip(updates) {
            let Some(update) = update else { continue };
            if let Some(folded) = self.fold_stored(seq, update.clone()).map_err(|reason| (reason, update))? {
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
    fn fold_stored(&mut self, seq: u64, bytes: Bytes) -> Result<Option<Update>, &'static str> {
        let Some(update) = trim(&mut self.index, bytes)? else { return Ok(None) };
        self.replica.fold(seq, &update).map_err(|_| "fold_panicked")?;
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
        for row in stored.tail.rows {
            for (seq, bytes) in (row.seq_from..).zip(row.updates) {
                let update = match trim(&mut self.index, bytes.clone()) {
                    Ok(Some(update)) => update,
                    Ok(None) => continue,
                    Err(reason) => {
                        self.check_snapshot(stored.snapshot)?;
                        return Err(Unsound::Row(unsound(row.seq_from, reason, bytes)));
                    }
                };
                self.writers.take_in(&update, row.authorship);
                unfolded.push(Unfolded { row: row.seq_from, seq, update: update.bytes().clone() });
                self.remember(seq, update, now);
            }
            self.position = Position { seq: row.seq_to, tip: row.tip };
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

/// Has the gate trim a stored update by what overlaps. `None`: nothing of it is new.
pub(in crate::document) fn trim(index: &mut Index, bytes: Bytes) -> Result<Option<Update>, &'static str> {
    let caps = Caps::of_the_log();
    let update = Update::parse(bytes, &caps).map_err(|_| "does_not_continue")?;
    let admission = index.trust(&update).map_err(|_| "does_not_continue")?;
    if admission.missing.is_some() {
        return Err("does_not_continue");
    }
    match admission.content {
        Content::Nothing => Ok(None),
        Content::Whole => Ok(Some(update)),
        Content::Part(bytes) => Update::parse(bytes, &caps).map(Some).map_err(|_| "does_not_continue"),
    }
}

pub(super) fn unsound(seq_from: u64, reason: &'static str, update: Bytes) -> Quarantine {
    Quarantine { seq_from, new_tip: Tip(uuid::Uuid::nil()), reason, update, session: None, user: None }
}
