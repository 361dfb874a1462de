//! Reference implementations in memory: for simulations and tests of whoever uses a port. They keep the contracts to the letter and
//! nothing for longer than the process lives.

use super::authority::{AccessDenied, Authority, Held, Rechecked, RoomName, Standing};
use super::log::{
    AppendOutcome, AppendRequest, Head, HeldHead, LogError, LogRow, OperationLog, Quarantine, Snapshot, Stored, Tail,
};
use crate::access::{Caller, Grant, Role, Scope, Token};
use crate::ids::{DocumentId, DocumentKey, Position, ProjectId, SessionId, TenantId, Tip, UserId};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Logs of documents, in memory. Clones share them: the nodes of a simulated deployment.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    documents: Arc<Mutex<HashMap<DocumentKey, Document>>>,
}

#[derive(Clone, Debug, Default)]
struct Document {
    head: Option<Head>,
    rows: Vec<LogRow>,
    snapshots: Vec<Snapshot>,
    quarantined: Vec<Bytes>,
    /// Idempotency keys: hash of the body, and the sequence that holds it.
    keys: HashMap<String, ([u8; 32], u64)>,
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

    /// Goes back to a backup, under running nodes.
    pub fn restore(&self, backup: MemoryLogBackup) {
        *self.lock() = backup.0;
    }

    /// The rows of a document.
    pub fn rows(&self, key: DocumentKey) -> Vec<LogRow> {
        self.lock().get(&key).map(|document| document.rows.clone()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DocumentKey, Document>> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`OperationLog::append`] without the waiting.
    pub fn append_now(&self, request: &AppendRequest) -> AppendOutcome {
        let mut documents = self.lock();
        let Some(document) = documents.get_mut(&request.key) else { return AppendOutcome::Deleted };
        let Some(head) = document.head else { return AppendOutcome::Deleted };
        if head.deleted {
            return AppendOutcome::Deleted;
        }
        for key in request.rows.iter().filter_map(|row| row.idempotency.as_ref()) {
            match document.keys.get(&key.key) {
                Some((hash, seq)) if *hash == key.body_hash => return AppendOutcome::AlreadyDone(*seq),
                Some(_) => return AppendOutcome::IdempotencyConflict,
                None => {}
            }
        }
        if head.position != request.held {
            return AppendOutcome::Behind;
        }
        let tip = Tip(request.append_id.0);
        let mut seq = request.held.seq;
        for row in &request.rows {
            let (seq_from, seq_to) = (seq + 1, seq + row.updates.len() as u64);
            seq = seq_to;
            let append_id = request.append_id;
            document.rows.push(LogRow { seq_from, seq_to, append_id, tip, updates: row.updates.clone() });
            if let Some(key) = &row.idempotency {
                document.keys.insert(key.key.clone(), (key.body_hash, seq_to));
            }
        }
        let position = Position { seq, tip };
        document.head = Some(Head { position, deleted: false });
        AppendOutcome::Committed(position)
    }

    /// [`OperationLog::tail`] without the waiting.
    pub fn tail_now(&self, key: DocumentKey, held: Position) -> Result<Tail, LogError> {
        let documents = self.lock();
        let document = documents.get(&key).ok_or(LogError::NoSuchDocument)?;
        let head = document.head.ok_or(LogError::NoSuchDocument)?;
        let tip_there = |seq: u64| document.rows.iter().find(|row| row.seq_to == seq).map(|row| row.tip);
        let is_prefix = held == Position::START || held == head.position || tip_there(held.seq) == Some(held.tip);
        if !is_prefix || head.position.seq < held.seq || (held.seq == head.position.seq && held != head.position) {
            return Err(LogError::Diverged);
        }
        let rows = document.rows.iter().filter(|row| row.seq_from > held.seq).cloned().collect();
        Ok(Tail { rows, head })
    }

    /// [`OperationLog::load`] without the waiting.
    pub fn load_now(&self, key: DocumentKey) -> Result<Stored, LogError> {
        let documents = self.lock();
        let document = documents.get(&key).ok_or(LogError::NoSuchDocument)?;
        let head = document.head.ok_or(LogError::NoSuchDocument)?;
        let fits = |snapshot: &&Snapshot| {
            document.rows.iter().any(|row| row.seq_to == snapshot.position.seq && row.tip == snapshot.position.tip)
        };
        let snapshot = document.snapshots.iter().rev().find(fits).cloned();
        let after = snapshot.as_ref().map_or(0, |snapshot| snapshot.position.seq);
        let rows = document.rows.iter().filter(|row| row.seq_from > after).cloned().collect();
        Ok(Stored { snapshot, tail: Tail { rows, head }, quarantined: document.quarantined.clone() })
    }

    /// [`OperationLog::quarantine`] without the waiting.
    pub fn quarantine_now(&self, key: DocumentKey, what: &Quarantine) -> Result<(), LogError> {
        let mut documents = self.lock();
        let document = documents.get_mut(&key).ok_or(LogError::NoSuchDocument)?;
        let Some(row) = document.rows.iter_mut().find(|row| row.seq_from == what.seq_from) else { return Ok(()) };
        if row.updates.is_empty() {
            return Ok(());
        }
        document.quarantined.append(&mut row.updates);
        document.snapshots.retain(|snapshot| snapshot.position.seq < what.seq_from);
        if let Some(last) = document.rows.last_mut() {
            last.tip = what.new_tip;
        }
        if let Some(head) = &mut document.head {
            head.position.tip = what.new_tip;
        }
        Ok(())
    }
}

/// What [`MemoryLog::backup`] made.
#[derive(Clone, Debug)]
pub struct MemoryLogBackup(HashMap<DocumentKey, Document>);

#[async_trait]
impl OperationLog for MemoryLog {
    async fn load(&self, key: DocumentKey) -> Result<Stored, LogError> {
        self.load_now(key)
    }

    async fn tail(&self, key: DocumentKey, held: Position) -> Result<Tail, LogError> {
        self.tail_now(key, held)
    }

    async fn append(&self, request: AppendRequest) -> AppendOutcome {
        self.append_now(&request)
    }

    async fn hold(&self, key: DocumentKey, held: Position) -> Result<Box<dyn HeldHead>, LogError> {
        let tail = self.tail_now(key, held)?;
        Ok(Box::new(MemoryHead { log: self.clone(), tail: Some(tail) }))
    }

    async fn changed_heads(
        &self,
        tenant: TenantId,
        held: &[(DocumentId, Position)],
    ) -> Result<Vec<(DocumentId, Head)>, LogError> {
        let documents = self.lock();
        let head_of = |document: DocumentId| {
            let gone = Head { position: Position::START, deleted: true };
            documents.get(&DocumentKey { tenant, document }).and_then(|found| found.head).unwrap_or(gone)
        };
        let changed = |(document, held): &(DocumentId, Position)| {
            let head = head_of(*document);
            (head.deleted || head.position != *held).then_some((*document, head))
        };
        Ok(held.iter().filter_map(changed).collect())
    }

    async fn quarantine(&self, key: DocumentKey, what: Quarantine) -> Result<(), LogError> {
        self.quarantine_now(key, &what)
    }

    async fn quarantine_refused(&self, _: DocumentKey, _: Quarantine) -> Result<(), LogError> {
        Ok(()) // nobody downloads from memory
    }

    async fn discard_snapshots(&self, key: DocumentKey, from_seq: u64) -> Result<(), LogError> {
        if let Some(document) = self.lock().get_mut(&key) {
            document.snapshots.retain(|snapshot| snapshot.position.seq < from_seq);
        }
        Ok(())
    }

    async fn save_snapshot(&self, key: DocumentKey, snapshot: Snapshot) -> Result<(), LogError> {
        let mut documents = self.lock();
        let document = documents.get_mut(&key).ok_or(LogError::NoSuchDocument)?;
        if document.snapshots.iter().all(|held| held.position.seq != snapshot.position.seq) {
            document.snapshots.push(snapshot);
            document.snapshots.sort_by_key(|held| held.position.seq);
            let excess = document.snapshots.len().saturating_sub(2);
            document.snapshots.drain(..excess);
        }
        Ok(())
    }
}

/// A held head. Whoever writes meanwhile is found out by the comparison in `append`, as everywhere.
#[derive(Debug)]
struct MemoryHead {
    log: MemoryLog,
    tail: Option<Tail>,
}

#[async_trait]
impl HeldHead for MemoryHead {
    fn take_tail(&mut self) -> Tail {
        let gone = Head { position: Position::START, deleted: true };
        self.tail.take().unwrap_or(Tail { rows: Vec::new(), head: gone })
    }

    async fn append(self: Box<Self>, request: AppendRequest) -> AppendOutcome {
        self.log.append_now(&request)
    }
}

/// Tokens and grants, in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryAuthority {
    held: Arc<Mutex<Grants>>,
}

#[derive(Debug, Default)]
struct Grants {
    epoch: u64,
    callers: HashMap<String, Caller>,
    rooms: HashMap<(TenantId, RoomName), (DocumentId, ProjectId)>,
    roles: HashMap<(UserId, DocumentId), Role>,
    ended: Vec<SessionId>,
}

impl MemoryAuthority {
    /// Nobody and nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a token good.
    pub fn admit(&self, token: &str, caller: Caller) {
        self.lock().callers.insert(token.to_owned(), caller);
    }

    /// Names a document.
    pub fn name(&self, tenant: TenantId, room: RoomName, document: DocumentId, project: ProjectId) {
        self.lock().rooms.insert((tenant, room), (document, project));
    }

    /// Gives or changes a right; `None` takes it.
    pub fn grant(&self, user: UserId, document: DocumentId, role: Option<Role>) {
        let mut held = self.lock();
        held.epoch += 1;
        match role {
            Some(role) => held.roles.insert((user, document), role),
            None => held.roles.remove(&(user, document)),
        };
    }

    /// Revokes a session.
    pub fn end(&self, session: SessionId) {
        let mut held = self.lock();
        held.epoch += 1;
        held.ended.push(session);
    }

    fn lock(&self) -> MutexGuard<'_, Grants> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Authority for MemoryAuthority {
    async fn authenticate(&self, token: &Token) -> Result<Caller, AccessDenied> {
        let held = self.lock();
        let caller = held.callers.get(&token.0).ok_or(AccessDenied::BadToken)?;
        if held.ended.contains(&caller.session) { Err(AccessDenied::BadToken) } else { Ok(caller.clone()) }
    }

    async fn open(&self, caller: &Caller, room: &RoomName) -> Result<Grant, AccessDenied> {
        let held = self.lock();
        let (document, project) = held.rooms.get(&(caller.tenant, room.clone())).ok_or(AccessDenied::NoSuchDocument)?;
        let role = held.roles.get(&(caller.user, *document)).ok_or(AccessDenied::NoSuchDocument)?;
        let role = match caller.scope {
            Scope::User => *role,
            Scope::Document(only, most) if only == *document => (*role).min(most),
            Scope::Document(..) => return Err(AccessDenied::NoSuchDocument),
        };
        Ok(Grant { document: *document, project: *project, role })
    }

    async fn recheck(&self, _: TenantId, since: Option<u64>, asked: &[Held]) -> Result<Rechecked, AccessDenied> {
        let held = self.lock();
        if since == Some(held.epoch) {
            return Ok(Rechecked { epoch: held.epoch, standings: Vec::new() });
        }
        let standing = |right: &Held| {
            if held.ended.contains(&right.session) {
                return Standing::SessionEnded;
            }
            let project = held.rooms.values().find(|(document, _)| *document == right.document).map(|(_, p)| *p);
            match (held.roles.get(&(right.user, right.document)), project) {
                (Some(role), Some(project)) => {
                    Standing::Granted(Grant { document: right.document, project, role: *role })
                }
                _ => Standing::Forbidden,
            }
        };
        let standings = asked.iter().map(|right| (*right, standing(right))).collect();
        Ok(Rechecked { epoch: held.epoch, standings })
    }
}
