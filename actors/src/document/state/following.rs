//! The fold: rows of the log that come into the document, at loading and after.

use super::*;

impl DocumentState {
    /// Rows that others wrote, up to the head. False when this instance ended over it.
    pub(super) fn take_in_tail(&mut self, tail: Tail, now: Instant) -> bool {
        if tail.head.deleted {
            self.die(close::NOT_FOUND, "document deleted");
            return false;
        }
        for row in tail.rows {
            let count = row.seq_to - row.seq_from + 1;
            let updates: Vec<Option<Bytes>> = if row.updates.is_empty() {
                (0..count).map(|_| None).collect() // quarantined: the numbers stay
            } else {
                row.updates.into_iter().map(Some).collect()
            };
            let through = Position { seq: row.seq_to, tip: row.tip };
            if let Err((reason, update)) = self.take_in(updates.into_iter(), through, now) {
                self.effects.push(Effect::Quarantine(unsound(row.seq_from, reason, update)));
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
        updates: impl Iterator<Item = Option<Bytes>>,
        through: Position,
        now: Instant,
    ) -> Result<(), (&'static str, Bytes)> {
        if !self.unpack(now) {
            return Ok(()); // what comes next is read from the log
        }
        let from = self.position;
        let mut shown = Vec::new();
        for (seq, update) in (from.seq + 1..).zip(updates) {
            let Some(update) = update else { continue };
            if let Some(folded) = self.fold_stored(seq, update.clone()).map_err(|reason| (reason, update))? {
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

    /// Folds the stored update of this number through the gate, which trims what overlaps. `None`: nothing of it was new.
    pub(super) fn fold_stored(&mut self, seq: u64, bytes: Bytes) -> Result<Option<Update>, &'static str> {
        let caps = Caps { update_bytes_max: usize::MAX, ..self.caps.clone() };
        let update = Update::parse(bytes, &caps).map_err(|_| "does_not_continue")?;
        let admission = self.index.trust(&update).map_err(|_| "does_not_continue")?;
        if admission.missing.is_some() {
            return Err("does_not_continue");
        }
        let update = match admission.content {
            Content::Nothing => return Ok(None),
            Content::Whole => update,
            Content::Part(bytes) => Update::parse(bytes, &caps).map_err(|_| "does_not_continue")?,
        };
        self.replica.fold(seq, update.bytes()).map_err(|_| "fold_panicked")?;
        Ok(Some(update))
    }

    pub(super) fn restore(&mut self, stored: Stored, now: Instant) -> Result<(), Unsound> {
        let caps = Caps { update_bytes_max: usize::MAX, ..self.caps.clone() };
        self.quarantined =
            stored.quarantined.into_iter().filter_map(|bytes| Update::parse(bytes, &caps).ok()).collect();
        if let Some(snapshot) = &stored.snapshot {
            let at = snapshot.position.seq;
            let state = Update::parse(snapshot.state.clone(), &caps).map_err(|_| Unsound::Snapshot { seq: at })?;
            self.replica.pack(at, snapshot.state.clone());
            if !stored.tail.rows.is_empty() {
                self.replica.unpack().map_err(|_| Unsound::Snapshot { seq: at })?;
            }
            self.index = Index::from_state(&state);
            self.folded_bytes = snapshot.state.len();
            self.packed_bytes = snapshot.state.len();
            self.position = snapshot.position;
        }
        self.tail = TailSinceSnapshot::default();
        for row in stored.tail.rows {
            for (seq, bytes) in (row.seq_from..).zip(row.updates) {
                match self.fold_stored(seq, bytes.clone()) {
                    Ok(Some(update)) => self.remember(seq, update, now),
                    Ok(None) => {}
                    Err(reason) => return Err(Unsound::Row(unsound(row.seq_from, reason, bytes))),
                }
            }
            self.position = Position { seq: row.seq_to, tip: row.tip };
        }
        self.position = stored.tail.head.position;
        self.encoded = None;
        let is_tree = self.replica.packed().is_none() && self.position != Position::START;
        self.used_at = is_tree.then_some(now);
        if self.has_slow_matters() {
            self.wake_slowly(now);
        }
        Ok(())
    }
}

pub(super) fn unsound(seq_from: u64, reason: &'static str, update: Bytes) -> Quarantine {
    Quarantine { seq_from, new_tip: Tip(uuid::Uuid::nil()), reason, update, session: None, user: None }
}
