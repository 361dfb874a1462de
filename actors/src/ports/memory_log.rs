//! The log in memory: for simulations, and for tests of whoever uses the port. It keeps the contract to the letter (the suite in
//! `contract` runs over it) and nothing for longer than the process lives.

use super::log::{
    AppendOutcome, AppendRequest, Damage, DamageKind, Head, LockedHead, LogError, LogRow, NewRow, OperationLog,
    Quarantine, Snapshot, Stored, Tail,
};
use crate::ids::{DocumentId, DocumentKey, Position, TenantId};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A head stays locked no longer than this.
const HELD_MAX: Duration = Duration::from_secs(2);
/// So many snapshots of a document are kept.
const SNAPSHOTS_KEPT: usize = 2;

/// Logs of documents, in memory. Clones share them: the nodes of a simulated deployment.
///
/// Each question has a form that neither waits nor looks at a clock (`append_now` …): where locks matter, time is its argument.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    documents: Arc<Mutex<HashMap<DocumentKey, Document>>>,
}

#[derive(Clone, Debug, Default)]
struct Document {
    head: Option<Head>,
    rows: Vec<LogRow>,
    /// In order of their numbers.
    snapshots: Vec<Snapshot>,
    quarantined: Vec<Bytes>,
    /// Idempotency keys of each sender: hash of the body, and the sequence that holds it.
    keys: HashMap<(Uuid, String), ([u8; 32], u64)>,
    lock: Option<Lock>,
    locks: u64,
    /// First numbers of rows, and numbers of snapshots, whose checksum fails.
    damaged_rows: BTreeSet<u64>,
    damaged_snapshots: BTreeSet<u64>,
    /// Closed for writing, and why.
    closed: Option<Damage>,
}

/// Who may append, and for how long.
#[derive(Clone, Copy, Debug)]
struct Lock {
    number: u64,
    until: Instant,
}

impl MemoryLog {
    /// No document exists.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a document with an empty log.
    pub fn create(&self, key: DocumentKey) {
        self.lock().entry(key).or_default().head = Some(Head { position: Position::START, deleted: false });
    }

    /// Sets or takes away the tombstone.
    pub fn set_deleted(&self, key: DocumentKey, deleted: bool) {
        if let Some(head) = self.lock().get_mut(&key).and_then(|document| document.head.as_mut()) {
            head.deleted = deleted;
        }
    }

    /// Everything as it is now, to be restored later: a backup.
    pub fn backup(&self) -> MemoryLogBackup {
        MemoryLogBackup(self.lock().clone())
    }

    /// Goes back to a backup, under running nodes. Nobody holds a lock after that.
    pub fn restore(&self, backup: MemoryLogBackup) {
        let mut documents = self.lock();
        *documents = backup.0;
        for document in documents.values_mut() {
            document.lock = None;
        }
    }

    /// The rows of a document.
    pub fn rows(&self, key: DocumentKey) -> Vec<LogRow> {
        self.lock().get(&key).map(|document| document.rows.clone()).unwrap_or_default()
    }

    /// Damages the row that starts there: its checksum fails from now on.
    pub fn damage_row(&self, key: DocumentKey, seq_from: u64) {
        if let Some(document) = self.lock().get_mut(&key) {
            document.damaged_rows.insert(seq_from);
        }
    }

    /// Damages the snapshot of that number.
    pub fn damage_snapshot(&self, key: DocumentKey, seq: u64) {
        if let Some(document) = self.lock().get_mut(&key) {
            document.damaged_snapshots.insert(seq);
        }
    }

    /// Why a document was closed for writing.
    pub fn closed(&self, key: DocumentKey) -> Option<Damage> {
        self.lock().get(&key)?.closed
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DocumentKey, Document>> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner) // every critical section leaves it whole
    }

    /// [`OperationLog::append`] at that time.
    pub fn append_now(&self, request: &AppendRequest, now: Instant) -> AppendOutcome {
        match self.lock().get_mut(&request.key) {
            Some(document) => document.append(request, None, now),
            None => AppendOutcome::Behind,
        }
    }

    /// [`OperationLog::tail`].
    pub fn tail_now(&self, key: DocumentKey, base: Position) -> Result<Tail, LogError> {
        self.lock().get(&key).ok_or(LogError::NoSuchDocument)?.tail(base)
    }

    /// [`OperationLog::load`].
    pub fn load_now(&self, key: DocumentKey) -> Result<Stored, LogError> {
        self.lock().get(&key).ok_or(LogError::NoSuchDocument)?.load()
    }

    /// [`OperationLog::hold`] at that time. Whoever comes second does not wait, but is told so at once.
    pub fn lock_head_now(&self, key: DocumentKey, base: Position, now: Instant) -> Result<MemoryHead, LogError> {
        let mut documents = self.lock();
        let document = documents.get_mut(&key).ok_or(LogError::NoSuchDocument)?;
        if document.is_locked(None, now) {
            return Err(LogError::Unavailable("another node holds the head".into()));
        }
        let tail = document.tail(base)?;
        document.locks += 1;
        let lock = Lock { number: document.locks, until: now + HELD_MAX };
        document.lock = Some(lock);
        Ok(MemoryHead { log: self.clone(), key, lock: lock.number, head: tail.head, tail: Some(tail) })
    }

    /// [`OperationLog::changed_heads`].
    pub fn changed_heads_now(&self, tenant: TenantId, known: &[(DocumentId, Position)]) -> Vec<(DocumentId, Head)> {
        let documents = self.lock();
        let head_of = |document: DocumentId| {
            let gone = Head { position: Position::START, deleted: false };
            documents.get(&DocumentKey { tenant, document }).and_then(|found| found.head).unwrap_or(gone)
        };
        let changed = |(document, at): &(DocumentId, Position)| {
            let head = head_of(*document);
            (head.deleted || head.position != *at).then_some((*document, head))
        };
        known.iter().filter_map(changed).collect()
    }

    /// [`OperationLog::quarantine`].
    pub fn quarantine_now(&self, key: DocumentKey, what: &Quarantine) -> Result<(), LogError> {
        self.lock().get_mut(&key).ok_or(LogError::NoSuchDocument)?.quarantine(what)
    }

    /// [`OperationLog::discard_snapshots`].
    pub fn discard_snapshots_now(&self, key: DocumentKey, from_seq: u64) {
        if let Some(document) = self.lock().get_mut(&key) {
            document.discard_snapshots(from_seq);
        }
    }

    /// [`OperationLog::close_for_writing`].
    pub fn close_for_writing_now(&self, key: DocumentKey, damage: Damage) -> Result<(), LogError> {
        self.lock().get_mut(&key).ok_or(LogError::NoSuchDocument)?.closed.get_or_insert(damage);
        Ok(())
    }

    /// [`OperationLog::save_snapshot`].
    pub fn save_snapshot_now(&self, key: DocumentKey, snapshot: Snapshot) -> Result<(), LogError> {
        self.lock().get_mut(&key).ok_or(LogError::NoSuchDocument)?.save_snapshot(snapshot);
        Ok(())
    }
}

/// What [`MemoryLog::backup`] made.
#[derive(Clone, Debug)]
pub struct MemoryLogBackup(HashMap<DocumentKey, Document>);

impl Document {
    /// Whether somebody other than the holder of `mine` holds the head.
    fn is_locked(&self, mine: Option<u64>, now: Instant) -> bool {
        self.lock.is_some_and(|lock| now < lock.until && Some(lock.number) != mine)
    }

    fn append(&mut self, request: &AppendRequest, mine: Option<u64>, now: Instant) -> AppendOutcome {
        let Some(head) = self.head else { return AppendOutcome::Behind };
        let mut keys = HashMap::new();
        let mut seq = request.base.seq;
        for row in &request.rows {
            seq += row.updates.len() as u64;
            let Some(key) = &row.idempotency else { continue };
            let (body_hash, _) = *keys.entry((sender(row), key.key.clone())).or_insert((key.body_hash, seq));
            if body_hash != key.body_hash {
                return AppendOutcome::IdempotencyConflict;
            }
        }
        for (key, (body_hash, _)) in &keys {
            match self.keys.get(key) {
                Some((hash, seq)) if hash == body_hash => return AppendOutcome::AlreadyDone(*seq),
                Some(_) => return AppendOutcome::IdempotencyConflict,
                None => {}
            }
        }
        if self.is_locked(mine, now) {
            return AppendOutcome::Behind;
        }
        if head.deleted {
            return AppendOutcome::Deleted;
        }
        if head.position != request.base {
            return AppendOutcome::Behind;
        }
        let position = request.position_after();
        let mut seq = request.base.seq;
        for row in &request.rows {
            let (seq_from, seq_to) = (seq + 1, seq + row.updates.len() as u64);
            let (append_id, tip, authorship) = (request.append_id, position.tip, row.authorship());
            self.rows.push(LogRow { seq_from, seq_to, append_id, tip, authorship, updates: row.updates.clone() });
            seq = seq_to;
        }
        self.keys.extend(keys);
        self.head = Some(Head { position, deleted: false });
        AppendOutcome::Committed(position)
    }

    fn tail(&self, base: Position) -> Result<Tail, LogError> {
        let head = self.head.ok_or(LogError::NoSuchDocument)?;
        if base == head.position {
            return Ok(Tail { rows: Vec::new(), head });
        }
        if head.position.seq <= base.seq || !self.has(base) {
            return Err(LogError::Diverged);
        }
        match self.rows_after(base.seq) {
            (rows, None) => Ok(Tail { rows, head }),
            (_, Some(damage)) => Err(LogError::Damaged(damage)),
        }
    }

    fn load(&self) -> Result<Stored, LogError> {
        let head = self.head.ok_or(LogError::NoSuchDocument)?;
        let is_sound = |snapshot: &&Snapshot| {
            self.has(snapshot.position) && !self.damaged_snapshots.contains(&snapshot.position.seq)
        };
        let snapshot = self.snapshots.iter().rev().find(is_sound).cloned();
        let after = snapshot.as_ref().map_or(0, |snapshot| snapshot.position.seq);
        let (rows, damage) = self.rows_after(after);
        Ok(Stored { snapshot, tail: Tail { rows, head }, quarantined: self.quarantined.clone(), damage })
    }

    /// Whether a prefix of the log ends there.
    fn has(&self, position: Position) -> bool {
        position == Position::START || self.rows.iter().any(|row| row.seq_to == position.seq && row.tip == position.tip)
    }

    /// Those that read back.
    fn rows_after(&self, seq: u64) -> (Vec<LogRow>, Option<Damage>) {
        let mut rows: Vec<LogRow> = self.rows.iter().filter(|row| row.seq_from > seq).cloned().collect();
        let Some(at) = rows.iter().position(|row| self.damaged_rows.contains(&row.seq_from)) else {
            return (rows, None);
        };
        let damage = Damage { kind: DamageKind::CorruptRow, seq_from: rows[at].seq_from };
        rows.truncate(at);
        (rows, Some(damage))
    }

    fn quarantine(&mut self, what: &Quarantine) -> Result<(), LogError> {
        let at = self.rows.iter().position(|row| row.seq_from == what.seq_from).ok_or(LogError::Diverged)?;
        let (before, sick_and_after) = self.rows.split_at_mut(at);
        debug_assert!(before.iter().all(|row| row.seq_to < what.seq_from));
        let Some(left) = what.leave(&sick_and_after[0].updates) else { return Ok(()) }; // done already
        sick_and_after[0].updates = left.updates;
        for (_, update) in left.kept {
            if what.is_final() && !self.quarantined.contains(&update) {
                self.quarantined.push(update);
            }
        }
        for row in sick_and_after {
            row.tip = what.new_tip;
        }
        if let Some(head) = &mut self.head {
            head.position.tip = what.new_tip;
        }
        self.damaged_rows.remove(&what.seq_from);
        self.discard_snapshots(what.seq_from);
        Ok(())
    }

    fn discard_snapshots(&mut self, from_seq: u64) {
        self.snapshots.retain(|snapshot| snapshot.position.seq < from_seq);
        self.damaged_snapshots.retain(|seq| *seq < from_seq);
    }

    fn save_snapshot(&mut self, snapshot: Snapshot) {
        // One of another history must not take the number from one of this.
        let position = snapshot.position;
        if position == Position::START
            || !self.has(position)
            || self.snapshots.iter().any(|kept| kept.position.seq == position.seq)
        {
            return;
        }
        self.snapshots.push(snapshot);
        self.snapshots.sort_by_key(|kept| kept.position.seq);
        let excess = self.snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
        self.snapshots.drain(..excess);
    }
}

/// Keys are their sender's, so that nobody meets another's.
fn sender(row: &NewRow) -> Uuid {
    row.relayed_by.or(row.author).map_or(row.user_session.0, |user| user.0)
}

#[async_trait]
impl OperationLog for MemoryLog {
    async fn load(&self, key: DocumentKey) -> Result<Stored, LogError> {
        self.load_now(key)
    }

    async fn tail(&self, key: DocumentKey, base: Position) -> Result<Tail, LogError> {
        self.tail_now(key, base)
    }

    async fn append(&self, request: AppendRequest) -> AppendOutcome {
        self.append_now(&request, Instant::now())
    }

    async fn lock_head(&self, key: DocumentKey, base: Position) -> Result<Box<dyn LockedHead>, LogError> {
        Ok(Box::new(self.lock_head_now(key, base, Instant::now())?))
    }

    async fn changed_heads(
        &self,
        tenant: TenantId,
        known: &[(DocumentId, Position)],
    ) -> Result<Vec<(DocumentId, Head)>, LogError> {
        Ok(self.changed_heads_now(tenant, known))
    }

    async fn quarantine(&self, key: DocumentKey, what: Quarantine) -> Result<(), LogError> {
        self.quarantine_now(key, &what)
    }

    async fn quarantine_refused(&self, _: DocumentKey, _: Quarantine) -> Result<(), LogError> {
        Ok(()) // nobody downloads from memory
    }

    async fn discard_snapshots(&self, key: DocumentKey, from_seq: u64) -> Result<(), LogError> {
        self.discard_snapshots_now(key, from_seq);
        Ok(())
    }

    async fn close_for_writing(&self, key: DocumentKey, damage: Damage) -> Result<(), LogError> {
        self.close_for_writing_now(key, damage)
    }

    async fn save_snapshot(&self, key: DocumentKey, snapshot: Snapshot) -> Result<(), LogError> {
        self.save_snapshot_now(key, snapshot)
    }
}

/// A held head: nobody else appends until it is used or dropped, or its time is over.
#[derive(Debug)]
pub struct MemoryHead {
    log: MemoryLog,
    key: DocumentKey,
    lock: u64,
    head: Head,
    tail: Option<Tail>,
}

impl MemoryHead {
    /// [`HeldHead::append`] at that time.
    pub fn append_now(self, request: &AppendRequest, now: Instant) -> AppendOutcome {
        if request.key != self.key || request.base != self.head.position {
            return AppendOutcome::Behind;
        }
        let mut documents = self.log.lock();
        let Some(document) = documents.get_mut(&self.key) else { return AppendOutcome::Behind };
        let is_held = document.lock.is_some_and(|lock| lock.number == self.lock && now < lock.until);
        if is_held { document.append(request, Some(self.lock), now) } else { AppendOutcome::Behind }
    }
}

impl Drop for MemoryHead {
    fn drop(&mut self) {
        if let Some(document) = self.log.lock().get_mut(&self.key) {
            document.lock = document.lock.filter(|lock| lock.number != self.lock);
        }
    }
}

#[async_trait]
impl LockedHead for MemoryHead {
    fn take_tail(&mut self) -> Tail {
        self.tail.take().unwrap_or(Tail { rows: Vec::new(), head: self.head })
    }

    async fn append(self: Box<Self>, request: AppendRequest) -> AppendOutcome {
        self.append_now(&request, Instant::now())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ports::contract::{Fixture, SENTENCES};
    use futures_util::FutureExt as _;
    use std::panic::AssertUnwindSafe;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct InMemory {
        log: MemoryLog,
        next: AtomicU64,
    }

    impl InMemory {
        fn create_for(&self, tenant: u128) -> DocumentKey {
            let next = u128::from(self.next.fetch_add(1, Ordering::Relaxed));
            let (tenant, document) = (TenantId(Uuid::from_u128(tenant)), DocumentId(Uuid::from_u128(next)));
            let key = DocumentKey { tenant, document };
            self.log.create(key);
            key
        }
    }

    #[async_trait]
    impl Fixture for InMemory {
        fn log(&self) -> &dyn OperationLog {
            &self.log
        }
        async fn create(&self) -> DocumentKey {
            self.create_for(1)
        }
        async fn create_elsewhere(&self) -> DocumentKey {
            self.create_for(2)
        }
        async fn delete(&self, key: DocumentKey) {
            self.log.set_deleted(key, true);
        }
        async fn restore(&self, key: DocumentKey) {
            self.log.set_deleted(key, false);
        }
        async fn break_snapshot(&self, key: DocumentKey, seq: u64) {
            self.log.damage_snapshot(key, seq);
        }
        async fn break_row(&self, key: DocumentKey, seq_from: u64) {
            self.log.damage_row(key, seq_from);
        }
    }

    #[tokio::test]
    async fn it_keeps_the_contract_of_the_log() {
        let memory = InMemory::default();
        let mut broken = Vec::new();
        for (sentence, holds) in SENTENCES {
            if AssertUnwindSafe(holds(&memory)).catch_unwind().await.is_err() {
                broken.push(*sentence);
            }
        }
        assert!(broken.is_empty(), "broken: {broken:#?}");
    }

    #[test]
    fn a_lock_ends_after_two_seconds() {
        let memory = InMemory::default();
        let (key, start) = (memory.create_for(1), Instant::now());
        let first = memory.log.lock_head_now(key, Position::START, start).unwrap();
        let almost = start + HELD_MAX - Duration::from_millis(1);
        assert!(memory.log.lock_head_now(key, Position::START, almost).is_err());
        let second = memory.log.lock_head_now(key, Position::START, start + HELD_MAX).unwrap();
        drop(first); // takes nothing from the second
        assert!(memory.log.lock_head_now(key, Position::START, start + HELD_MAX).is_err());
        drop(second);
        memory.log.lock_head_now(key, Position::START, start + HELD_MAX).unwrap();
    }
}
