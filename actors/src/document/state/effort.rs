//! How long a decision may take, guessed before it is made: what takes long is decided aside (`crate::aside`).

use super::*;

/// What the gate and yrs take for a byte of a state or an update, parsed, admitted, folded or encoded, where blocks are small.
const BYTE: Duration = Duration::from_nanos(25);
/// And for an update of a batch besides its bytes.
const UPDATE: Duration = Duration::from_micros(4);

impl DocumentState {
    /// For the gate or yrs to go through so many bytes in so many updates.
    pub fn effort_of(bytes: usize, updates: usize) -> Duration {
        of_bytes(bytes) + of_updates(updates)
    }

    /// To hear these and to [advance](Self::advance).
    pub fn effort_to_hear(&self, inputs: &[Input]) -> Duration {
        let of_one = |input: &Input| match input {
            Input::Step1(_) => self.effort_to_encode(),
            Input::Step2(update) | Input::Update(update) => of_bytes(update.len()),
            Input::Awareness(_) | Input::TooLarge | Input::QueryAwareness | Input::Mark(_) => Duration::ZERO,
        };
        let bytes = inputs.iter().map(Input::update_bytes).sum();
        inputs.iter().map(of_one).sum::<Duration>() + self.effort_to_advance(bytes)
    }

    /// For an HTTP write.
    pub fn effort_to_write(&self, update: &Bytes) -> Duration {
        of_bytes(update.len()) + self.effort_to_advance(update.len())
    }

    /// What waits is admitted, and so much more, if the log is free.
    fn effort_to_advance(&self, more: usize) -> Duration {
        if self.log != LogWork::Nothing {
            return Duration::ZERO;
        }
        let bytes = self.waiting_bytes.min(BATCH_BYTES_MAX) + more;
        let updates = self.waiting.len().min(BATCH_UPDATES_MAX);
        of_bytes(bytes) + of_updates(updates) + self.effort_around_admission(bytes)
    }

    /// To fold the batch that was appended, and to admit the next.
    pub fn effort_to_commit(&self) -> Duration {
        let Some(batch) = &self.in_flight else { return Duration::ZERO };
        let bytes: usize = batch.admitted().map(|update| update.bytes().len()).sum();
        self.effort_to_fold(bytes, batch.items.len()).max(Duration::from_nanos(batch.cost.ns))
    }

    /// To fold what the log holds after our position, and to admit what waits.
    pub fn effort_to_take_in(&self, tail: &Tail) -> Duration {
        let updates = || tail.rows.iter().flat_map(|row| &row.updates);
        self.effort_to_fold(updates().map(Bytes::len).sum(), updates().count()) + self.effort_to_commit()
    }

    /// To fold what another node has published.
    pub fn effort_to_hear_bus(&self, event: &BusEvent) -> Duration {
        match event {
            BusEvent::Message(BusMessage::Committed { updates, .. }) => {
                self.effort_to_fold(updates.iter().map(Bytes::len).sum(), updates.len())
            }
            BusEvent::Message(_) | BusEvent::Gap => Duration::ZERO,
        }
    }

    fn effort_to_fold(&self, bytes: usize, updates: usize) -> Duration {
        // Folded, and merged for those who see it.
        let fold = of_bytes(bytes) * 2 + of_updates(updates);
        let tree = if self.is_compact() { self.effort_to_encode().max(self.tree_cost) } else { Duration::ZERO };
        let next = BATCH_BYTES_MAX.min(self.waiting_bytes);
        let updates = self.waiting.len().min(BATCH_UPDATES_MAX);
        fold + tree + of_bytes(next) + of_updates(updates) + self.effort_around_admission(next)
    }

    /// Where something is admitted, the order is made of the state, if there is none, and a document that may be full is measured.
    fn effort_around_admission(&self, bytes: usize) -> Duration {
        let may_be_full = self.folded_bytes + bytes > self.limits.document_bytes_max;
        if bytes > 0 && (self.order.is_none() || may_be_full) { self.effort_to_encode() } else { Duration::ZERO }
    }

    /// To encode the whole state, or to make the tree of it.
    pub fn effort_to_encode(&self) -> Duration {
        of_bytes(self.folded_bytes)
    }

    /// To bring up to date whoever has seen everything through `seq`.
    pub fn effort_to_catch_up(&self, seq: Option<u64>) -> Duration {
        match seq {
            Some(seq) if self.recent.since(seq).is_some() => of_bytes(self.recent.bytes()),
            Some(_) => self.effort_to_encode(),
            None => Duration::ZERO,
        }
    }
}

fn of_bytes(bytes: usize) -> Duration {
    BYTE * u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn of_updates(updates: usize) -> Duration {
    UPDATE * u32::try_from(updates).unwrap_or(u32::MAX)
}
