//! The log as the nodes see it, and what is true: everything that was ever committed.

use crate::faults::Fault;
use bytes::Bytes;
use contextnexus_actors::document::writers::Writers;
use contextnexus_actors::ids::{DocumentKey, Position, UserId};
use contextnexus_actors::ports::log::{
    AppendOutcome, AppendRequest, Authorship, Head, LogError, Quarantine, Stored, Tail,
};
use contextnexus_actors::ports::memory_log::{MemoryHead, MemoryLog, MemoryLogBackup};
use contextnexus_gate::{Caps, Content, Delta, Index, Marks, Update, admit};
use std::time::Instant;
use yrs::updates::decoder::Decode;
use yrs::{ReadTxn, Transact};

/// One document's log, and the eye on it.
pub struct Store {
    pub log: MemoryLog,
    pub key: DocumentKey,
    pub fault: Option<Fault>,
    /// Appends of unknown outcome that may still be written.
    pub late: Vec<AppendRequest>,
    backup: Option<MemoryLogBackup>,
    /// A backup was restored: nodes may stand where the log does not.
    pub was_restored: bool,
    /// Something was taken out of the log: nodes may stand on what it was before.
    pub was_rewritten: bool,
    ever: Ever,
}

/// Everything that was ever committed, whatever database was lost after.
struct Ever {
    index: Index,
    doc: yrs::Doc,
}

impl Store {
    pub fn new(key: DocumentKey, fault: Option<Fault>) -> Self {
        let log = MemoryLog::new();
        log.create(key);
        let ever = Ever { index: Index::new(), doc: crate::editor::doc(0) };
        Self { log, key, fault, late: Vec::new(), backup: None, was_restored: false, was_rewritten: false, ever }
    }

    pub fn append(&mut self, mut request: AppendRequest, head: Option<MemoryHead>, now: Instant) -> AppendOutcome {
        let there = self.head().position;
        let is_blind = match self.fault {
            Some(Fault::StalePrefix) => true,
            Some(Fault::EqualNumber) => there.seq == request.base.seq,
            _ => false,
        };
        if is_blind {
            request.base = there;
        }
        let outcome = match head {
            Some(head) if !is_blind => head.append_now(&request, now),
            _ => self.log.append_now(&request, now),
        };
        if matches!(outcome, AppendOutcome::Committed(_)) {
            for update in request.rows.iter().flat_map(|row| &row.updates) {
                self.ever.committed(update);
            }
        }
        outcome
    }

    pub fn tail(&self, held: Position) -> Result<Tail, LogError> {
        let mut tail = self.log.tail_now(self.key, self.believed(held))?;
        self.forget_authors(&mut tail);
        Ok(tail)
    }

    fn forget_authors(&self, tail: &mut Tail) {
        if self.fault == Some(Fault::AuthorsForgotten) {
            tail.rows.iter_mut().for_each(|row| row.authorship = Authorship::Unknown);
        }
    }

    pub fn load(&self) -> Result<Stored, LogError> {
        let mut stored = self.log.load_now(self.key)?;
        if self.fault == Some(Fault::LostTail) && stored.snapshot.is_some() {
            stored.tail.rows.clear();
        }
        self.forget_authors(&mut stored.tail);
        if let Some(snapshot) = stored.snapshot.as_mut().filter(|_| self.fault == Some(Fault::AuthorsForgotten)) {
            snapshot.writers.clear();
        }
        Ok(stored)
    }

    /// The head, if it is not where the node stands.
    pub fn changed_head(&self, held: Position) -> Option<Head> {
        let held = self.believed(held);
        self.log.changed_heads_now(self.key.tenant, &[(self.key.document, held)]).pop().map(|(_, head)| head)
    }

    pub fn head(&self) -> Head {
        let gone = Head { position: Position::START, deleted: true };
        self.log
            .changed_heads_now(self.key.tenant, &[(self.key.document, Position { seq: u64::MAX, ..Position::START })])
            .pop()
            .map_or(gone, |(_, head)| head)
    }

    /// Where somebody believes to stand who looks at the number alone.
    fn believed(&self, held: Position) -> Position {
        if self.fault != Some(Fault::EqualNumber) {
            return held;
        }
        let row = self.log.rows(self.key).into_iter().find(|row| row.seq_to == held.seq);
        row.map_or(held, |row| Position { seq: row.seq_to, tip: row.tip })
    }

    /// The newest snapshot fails its checksum from now on.
    pub fn damage_snapshot(&mut self) {
        if let Ok(Stored { snapshot: Some(snapshot), .. }) = self.log.load_now(self.key) {
            self.log.damage_snapshot(self.key, snapshot.position.seq);
        }
    }

    /// From now on this is gone.
    pub fn took_out(&mut self, hollow: &Bytes) {
        self.ever.committed(hollow);
    }

    pub fn quarantine(&mut self, what: &Quarantine) {
        self.log.quarantine_now(self.key, what).unwrap();
        self.was_rewritten = true;
    }

    pub fn back_up(&mut self) {
        self.backup = Some(self.log.backup());
    }

    pub fn restore(&mut self) {
        if let Some(backup) = self.backup.take() {
            self.log.restore(backup);
            self.was_restored = true;
        }
    }

    /// Whether all of this update was committed at some time.
    pub fn holds(&self, update: &Bytes) -> bool {
        let Ok(update) = Update::parse(update.clone(), &Caps::default()) else { return false };
        let admitted = admit(&self.ever.index, &mut Delta::default(), None, &update, &Caps::default(), &mut |_| true);
        admitted.is_ok_and(|admission| admission.content == Content::Nothing && admission.missing.is_none())
    }

    /// Whether the log knows a client id for this user's.
    pub fn is_writer(&self, client: u64, user: UserId) -> bool {
        let mut writers = Writers::default();
        for row in self.log.rows(self.key) {
            for update in row.updates {
                writers.take_in(&Update::parse(update, &Caps::default()).unwrap(), row.authorship);
            }
        }
        writers.writer(client) == Some(user)
    }

    /// Whether others brought something as deleted that its author still holds in this update: nobody can say whether that was the same.
    pub fn was_brought_deleted(&self, kept: &Quarantine) -> bool {
        let held = Update::parse(kept.update.clone(), &Caps::default()).unwrap();
        let others = self.log.rows(self.key).into_iter().filter(|row| row.authorship.user() != kept.user);
        let is_gone_in = |theirs: &Update| {
            let both = theirs.clients().flat_map(|(client, from, to)| {
                let held = held.clients().filter(move |section| section.0 == client);
                held.map(move |(_, first, end)| (client, from.max(first)..to.min(end)))
            });
            let marks = |update, client, clocks| Marks::of(update, client, clocks);
            both.filter(|(_, clocks)| !clocks.is_empty()).any(|(client, clocks)| {
                marks(theirs, client, clocks.clone()).compare(&marks(&held, client, clocks)).gone_here > 0
            })
        };
        let mut updates = others.flat_map(|row| row.updates);
        updates.any(|update| is_gone_in(&Update::parse(update, &Caps::of_the_log()).unwrap()))
    }

    /// Whether what this document has under its own client id is something else than what was committed.
    pub fn contradicts(&self, client: u64, state: &Bytes) -> bool {
        let marks = |state: Bytes| {
            let state = Update::parse(state, &Caps::default()).unwrap();
            Marks::of(&state, client, 0..u64::MAX)
        };
        marks(crate::editor::state(&self.ever.doc)).compare(&marks(state.clone())).different > 0
    }

    /// All that was ever committed, as one document.
    pub fn ever(&self) -> &yrs::Doc {
        &self.ever.doc
    }
}

impl Ever {
    fn committed(&mut self, bytes: &Bytes) {
        let decoded = yrs::Update::decode_v1(bytes).unwrap();
        self.doc.try_transact_mut().unwrap().apply_update(decoded).unwrap();
        self.trust(bytes);
        // Some deletes every replica makes by itself (the losers of concurrent map entries): they are committed with their cause.
        let deletes = {
            let transaction = self.doc.try_transact().unwrap();
            Bytes::from(transaction.encode_diff_v1(&transaction.state_vector()))
        };
        self.trust(&deletes);
    }

    fn trust(&mut self, bytes: &Bytes) {
        let update = Update::parse(bytes.clone(), &Caps::default()).unwrap();
        self.index.trust(&update).unwrap();
    }
}
