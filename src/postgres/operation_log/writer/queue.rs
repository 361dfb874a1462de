//! What waits for a transaction of the log, and what the next one is.
//!
//! An idle writer commits at once. A busy one starts its transactions a few milliseconds apart, so that each carries more:
//! small transactions are what costs PostgreSQL most. Where transactions take long, as on a machine that has nothing to spare, they
//! start further apart: the more it is asked, the less an update costs. Whatever waits when a connection is free is the next batch.

use crate::postgres::operation_log::LogSettings;
use crate::postgres::operation_log::append::EncodedAppend;
use contextnexus_actors::ids::TenantId;
use contextnexus_actors::ports::log::AppendOutcome;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

/// A busy tenant's transactions start apart by so many times what one takes at the time: the rest is left to everything else …
const GAP_OF_TRANSACTIONS: u32 = 2;
/// … but by no more than so many gaps: their delay is felt.
const GAPS_MAX: u32 = 5;
/// The rate is counted over windows of this length.
const WINDOW: Duration = Duration::from_millis(100);
/// Entries of tenants that are no longer held back are swept from so many on.
const NEXT_STARTS_MAX: usize = 256;

/// An append that waits for its outcome. Dropped without one, the outcome is unknown.
#[derive(Debug)]
pub(super) struct Waiting {
    pub append: EncodedAppend,
    pub answer: oneshot::Sender<AppendOutcome>,
    /// What it takes of the room for all, until it is answered.
    pub _room: OwnedSemaphorePermit,
}

/// What waits, by tenant.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Notify,
    pub settings: LogSettings,
    counts: Counts,
}

/// What is counted and measured of every append: handles, because to find a metric by its name takes a hash and a lock.
#[derive(Debug)]
struct Counts {
    waiting_appends: Gauge,
    waiting_bytes: Gauge,
    committed: Counter,
    updates: Counter,
    bytes: Counter,
    commit_seconds: Histogram,
    commit_documents: Histogram,
}

impl Counts {
    fn new() -> Self {
        Self {
            waiting_appends: gauge!("contextnexus_log_waiting_appends"),
            waiting_bytes: gauge!("contextnexus_log_waiting_bytes"),
            committed: counter!("contextnexus_log_appends_total", "outcome" => "committed"),
            updates: counter!("contextnexus_log_updates_total"),
            bytes: counter!("contextnexus_log_bytes_total"),
            commit_seconds: histogram!("contextnexus_commit_seconds"),
            commit_documents: histogram!("contextnexus_commit_documents"),
        }
    }

    fn waiting(&self, state: &State) {
        self.waiting_appends.set(state.count as f64);
        self.waiting_bytes.set(state.bytes as f64);
    }

    fn outcome(&self, outcome: &AppendOutcome, append: &EncodedAppend) {
        let label = match outcome {
            AppendOutcome::Committed(_) => {
                self.committed.increment(1);
                self.updates.increment(append.updates as u64);
                self.bytes.increment(append.bytes as u64);
                return;
            }
            AppendOutcome::Behind => "behind",
            AppendOutcome::Deleted => "deleted",
            AppendOutcome::Unknown => "unknown",
            AppendOutcome::Unavailable => "unavailable",
            AppendOutcome::Refused(_) => "refused",
            AppendOutcome::IdempotencyConflict => "idempotency_conflict",
            AppendOutcome::AlreadyDone(_) => "already_done",
        };
        counter!("contextnexus_log_appends_total", "outcome" => label).increment(1);
    }
}

#[derive(Debug, Default)]
struct State {
    /// Tenants with something waiting; the front one is next.
    turns: VecDeque<TenantId>,
    waiting: HashMap<TenantId, VecDeque<Waiting>>,
    count: usize,
    bytes: usize,
    /// Where the writer is busy: nothing of this tenant starts before.
    next_starts: HashMap<TenantId, Instant>,
    rate: Rate,
    /// What a transaction takes, of late.
    transaction: Duration,
    closed: bool,
}

/// Updates that arrived in the running window and in the one before.
#[derive(Debug, Default)]
struct Rate {
    since: Option<Instant>,
    count: u32,
    before: u32,
}

impl Rate {
    fn add(&mut self, now: Instant, updates: usize) {
        let age = self.since.map_or(Duration::MAX, |since| now.saturating_duration_since(since));
        if age >= WINDOW {
            self.before = if age < 2 * WINDOW { self.count } else { 0 };
            self.count = 0;
            self.since = Some(now);
        }
        self.count = self.count.saturating_add(u32::try_from(updates).unwrap_or(u32::MAX));
    }

    fn per_s(&self) -> u32 {
        self.before.max(self.count).saturating_mul(10)
    }
}

impl Queue {
    pub fn new(settings: LogSettings) -> Self {
        Self { state: Mutex::default(), arrived: Notify::new(), settings, counts: Counts::new() }
    }

    /// Nothing more comes: whoever takes gets what is left, and then the end.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_waiters();
        self.arrived.notify_one();
    }

    /// A transaction of so many documents was tried.
    pub fn tried(&self, documents: usize, took: Duration) {
        self.counts.commit_seconds.record(took.as_secs_f64());
        self.counts.commit_documents.record(documents as f64);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, waiting: Waiting) {
        {
            let mut state = self.lock();
            let tenant = waiting.append.tenant;
            state.rate.add(Instant::now(), waiting.append.updates);
            state.count += 1;
            state.bytes += waiting.append.bytes;
            let of_tenant = state.waiting.entry(tenant).or_default();
            of_tenant.push_back(waiting);
            if of_tenant.len() == 1 {
                state.turns.push_back(tenant);
            }
            self.counts.waiting(&state);
        }
        // The lane that worked last: what it needs is in the caches, in its process of PostgreSQL too.
        self.arrived.notify_last();
    }

    /// The next batch: of one tenant, each document once, in the order of ids. `None` when the writer ends.
    pub async fn take(&self) -> Option<(TenantId, Vec<Waiting>)> {
        loop {
            let start = {
                let mut state = self.lock();
                match state.next_turn(Instant::now(), &self.settings) {
                    Turn::Now(tenant) => {
                        let batch = state.take_batch(tenant, &self.settings);
                        self.counts.waiting(&state);
                        if state.count > 0 {
                            self.arrived.notify_last();
                        }
                        return Some((tenant, batch));
                    }
                    Turn::At(at) => Some(at),
                    Turn::None if state.closed => {
                        self.arrived.notify_one(); // the next one ends too
                        return None;
                    }
                    Turn::None => None,
                }
            };
            let arrived = self.arrived.notified();
            match start {
                Some(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at.into()) => {}
                        () = arrived => {}
                    }
                }
                None => arrived.await,
            }
        }
    }

    /// A transaction that went well took so long.
    pub fn took(&self, took: Duration) {
        let mut state = self.lock();
        state.transaction = (state.transaction * 3 + took) / 4;
    }

    pub fn answer(&self, waiting: Waiting, outcome: AppendOutcome) {
        self.counts.outcome(&outcome, &waiting.append);
        waiting.answer.send(outcome).ok(); // nobody waits any more: the head check will tell them
    }

    pub fn answer_all(&self, waiting: Vec<Waiting>, outcome: impl Fn() -> AppendOutcome) {
        for waiting in waiting {
            self.answer(waiting, outcome());
        }
    }

    /// Everything that waits, when PostgreSQL is away: nothing of it was sent.
    pub fn take_all(&self) -> Vec<Waiting> {
        let mut state = self.lock();
        state.turns.clear();
        state.count = 0;
        state.bytes = 0;
        self.counts.waiting(&state);
        std::mem::take(&mut state.waiting).into_values().flatten().collect()
    }
}

/// Who may start a transaction.
enum Turn {
    /// This tenant.
    Now(TenantId),
    /// Somebody, then.
    At(Instant),
    /// Nobody waits.
    None,
}

impl State {
    /// The first tenant in the order of turns that is not held back, and, where the writer is busy, holds it back for its next.
    fn next_turn(&mut self, now: Instant, settings: &LogSettings) -> Turn {
        let mut earliest: Option<Instant> = None;
        for place in 0..self.turns.len() {
            let Some(&tenant) = self.turns.get(place) else { break };
            let full = self.waiting.get(&tenant).is_some_and(|waiting| waiting.len() >= settings.full_documents);
            match self.next_starts.get(&tenant) {
                Some(&at) if at > now && !full && !self.closed => {
                    earliest = Some(earliest.map_or(at, |earliest| earliest.min(at)));
                }
                _ => {
                    self.turns.remove(place);
                    if self.rate.per_s() >= settings.busy_updates_per_s {
                        if self.next_starts.len() >= NEXT_STARTS_MAX {
                            self.next_starts.retain(|_, at| *at > now);
                        }
                        self.next_starts.insert(tenant, now + self.gap(settings));
                    } else {
                        self.next_starts.remove(&tenant);
                    }
                    return Turn::Now(tenant);
                }
            }
        }
        earliest.map_or(Turn::None, Turn::At)
    }

    fn gap(&self, settings: &LogSettings) -> Duration {
        settings.gap.max((self.transaction * GAP_OF_TRANSACTIONS).min(settings.gap * GAPS_MAX))
    }

    /// What waits of this tenant, as far as one transaction takes it.
    fn take_batch(&mut self, tenant: TenantId, settings: &LogSettings) -> Vec<Waiting> {
        let mut waiting = self.waiting.remove(&tenant).unwrap_or_default();
        let (mut batch, mut left, mut bytes) = (Vec::new(), VecDeque::new(), 0_usize);
        let mut documents = HashSet::new();
        while let Some(next) = waiting.pop_front() {
            let full = batch.len() >= settings.batch_documents_max
                || (!batch.is_empty() && bytes + next.append.bytes > settings.batch_bytes_max);
            if full {
                left.push_back(next);
                break;
            }
            if !documents.insert(next.append.document) {
                left.push_back(next); // a document's second append needs the first one's outcome
                continue;
            }
            bytes += next.append.bytes;
            batch.push(next);
        }
        left.append(&mut waiting);
        if !left.is_empty() {
            self.turns.push_back(tenant);
            self.waiting.insert(tenant, left);
        }
        self.count -= batch.len();
        self.bytes -= bytes;
        batch.sort_unstable_by_key(|waiting| waiting.append.document);
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::operation_log::append;
    use contextnexus_actors::ids::{AppendId, DocumentId, DocumentKey, Position, UserSessionId};
    use contextnexus_actors::ports::log::{AppendRequest, NewRow};
    use std::sync::Arc;
    use tokio::sync::Semaphore;
    use uuid::Uuid;

    const ONE: TenantId = TenantId(Uuid::from_u128(1));
    const TWO: TenantId = TenantId(Uuid::from_u128(2));

    fn push(queue: &Queue, tenant: TenantId, document: u128, updates: usize) {
        let row = NewRow {
            user_session: UserSessionId(Uuid::nil()),
            author: None,
            relayed_by: None,
            seen_seq: 0,
            updates: vec![bytes::Bytes::from_static(b"update"); updates],
            idempotency: None,
        };
        let key = DocumentKey { tenant, document: DocumentId(Uuid::from_u128(document)) };
        let request = AppendRequest { key, base: Position::START, append_id: AppendId(Uuid::nil()), rows: vec![row] };
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        queue.push(Waiting { append: append::pack(request).unwrap(), answer: oneshot::channel().0, _room: room });
    }

    /// What the next transaction would be, at this moment.
    fn next(queue: &Queue, now: Instant) -> Option<(TenantId, Vec<u128>)> {
        let mut state = queue.lock();
        let Turn::Now(tenant) = state.next_turn(now, &queue.settings) else { return None };
        let batch = state.take_batch(tenant, &queue.settings);
        Some((tenant, batch.iter().map(|waiting| waiting.append.document.as_u128()).collect()))
    }

    #[test]
    fn what_waits_of_a_tenant_is_one_batch_in_the_order_of_ids_and_each_document_once() {
        let queue = Queue::new(LogSettings::default());
        for document in [3, 1, 3, 2, 1] {
            push(&queue, ONE, document, 1);
        }
        let now = Instant::now();
        assert_eq!(next(&queue, now), Some((ONE, vec![1, 2, 3])));
        assert_eq!(next(&queue, now), Some((ONE, vec![1, 3])), "second appends come after the first ones' outcomes");
        assert_eq!(next(&queue, now), None);
        let state = queue.lock();
        assert_eq!((state.count, state.bytes), (0, 0));
    }

    #[test]
    fn tenants_take_turns() {
        let queue = Queue::new(LogSettings { batch_documents_max: 2, ..LogSettings::default() });
        for document in 1..=5 {
            push(&queue, ONE, document, 1);
        }
        push(&queue, TWO, 9, 1);
        let now = Instant::now();
        let turns: Vec<_> = std::iter::from_fn(|| next(&queue, now)).collect();
        let expected = [(ONE, vec![1, 2]), (TWO, vec![9]), (ONE, vec![3, 4]), (ONE, vec![5])];
        assert_eq!(turns, expected, "a tenant with much waiting does not hold up another");
    }

    #[test]
    fn an_append_larger_than_a_batch_goes_alone() {
        let queue =
            Queue::new(LogSettings { batch_bytes_max: 200, busy_updates_per_s: u32::MAX, ..LogSettings::default() });
        push(&queue, ONE, 1, 2000);
        push(&queue, ONE, 2, 1);
        let now = Instant::now();
        assert_eq!(next(&queue, now), Some((ONE, vec![1])));
        assert_eq!(next(&queue, now), Some((ONE, vec![2])));
    }

    #[test]
    fn a_busy_tenant_waits_for_its_gap_and_nobody_else_does() {
        let settings = LogSettings { full_documents: 3, ..LogSettings::default() };
        let (gap, queue) = (settings.gap, Queue::new(settings));
        push(&queue, ONE, 1, 1);
        let now = Instant::now();
        assert_eq!(next(&queue, now), Some((ONE, vec![1])));
        push(&queue, ONE, 1, 1);
        assert_eq!(next(&queue, now), Some((ONE, vec![1])), "an idle writer commits at once");

        push(&queue, ONE, 1, 500);
        assert_eq!(next(&queue, now), Some((ONE, vec![1])));
        push(&queue, ONE, 1, 1);
        assert_eq!(next(&queue, now), None, "a busy one starts transactions a gap apart");
        push(&queue, TWO, 9, 1);
        assert_eq!(next(&queue, now), Some((TWO, vec![9])), "of each tenant");
        assert_eq!(next(&queue, now + gap), Some((ONE, vec![1])));

        for document in 1..=3 {
            push(&queue, ONE, document, 1);
        }
        assert_eq!(next(&queue, now + gap), Some((ONE, vec![1, 2, 3])), "a full batch waits for nothing");
    }

    #[test]
    fn the_longer_transactions_take_the_further_apart_they_start() {
        let settings = LogSettings::default();
        let (gap, queue) = (settings.gap, Queue::new(settings));
        let apart = || queue.lock().gap(&queue.settings);
        queue.took(gap);
        assert_eq!(apart(), gap, "one alone tells little");
        for _ in 0..30 {
            queue.took(2 * gap);
        }
        assert!((3 * gap..=4 * gap).contains(&apart()), "{:?}", apart());
        queue.took(Duration::from_secs(5));
        assert_eq!(apart(), 5 * gap);
    }
}
