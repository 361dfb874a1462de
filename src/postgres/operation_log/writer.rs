//! Group commit: appends of many documents of one tenant in one transaction, tenants taking turns.
//!
//! An idle writer commits at once. A busy one starts its transactions a few milliseconds apart, so that each carries more:
//! small transactions are what costs PostgreSQL most. Where transactions take long, as on a machine that has nothing to spare, they
//! start further apart: the more it is asked, the less an update costs. Whatever waits when a connection is free is the next batch.

use super::LogSettings;
use super::append::{self, Failure, PackedAppend};
use crate::postgres::Database;
use contextnexus_actors::ids::TenantId;
use contextnexus_actors::ports::log::{AppendOutcome, AppendRequest};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

/// A deadlock or serialisation failure is tried so often before it is answered as an outage.
const ATTEMPTS: u32 = 5;
/// A busy tenant's transactions start apart by so many times what one takes at the time: the rest is left to everything else …
const GAP_OF_TRANSACTIONS: u32 = 2;
/// … but by no more than so many gaps: their delay is felt.
const GAPS_MAX: u32 = 10;
/// The lanes beside the first connect so long after a start: at that moment everybody comes back, and one is enough.
const OTHERS_AFTER: Duration = Duration::from_secs(1);
/// The rate is counted over windows of this length.
const WINDOW: Duration = Duration::from_millis(100);
/// Entries of tenants that are no longer held back are swept from so many on.
const NEXT_STARTS_MAX: usize = 256;

/// The front of the writer.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Arc<Queue>,
    room: Arc<Semaphore>,
    answer_timeout: Duration,
    waiting_bytes_max: usize,
}

impl Writer {
    pub fn start(database: &Database, settings: LogSettings) -> Self {
        let options = database.options.clone().options([
            // Before the client gives up, so that most timeouts have a definite outcome.
            ("statement_timeout", (settings.answer_timeout * 4 / 5).as_millis().to_string()),
            ("lock_timeout", "1000".to_owned()),
            // The plan of the one statement must not depend on how small the tables were when it was made.
            ("plan_cache_mode", "force_generic_plan".to_owned()),
            ("enable_seqscan", "off".to_owned()),
            ("enable_hashjoin", "off".to_owned()),
            ("enable_mergejoin", "off".to_owned()),
            ("jit", "off".to_owned()),
        ]);
        let writer = Self {
            room: Arc::new(Semaphore::new(settings.waiting_bytes_max)),
            answer_timeout: settings.answer_timeout,
            waiting_bytes_max: settings.waiting_bytes_max,
            queue: Arc::new(Queue::new(settings)),
        };
        for lane in 0..writer.queue.settings.connections {
            let (queue, options) = (Arc::clone(&writer.queue), options.clone());
            let is_first = lane == 0;
            tokio::spawn(async move {
                loop {
                    let mut lane = Lane { queue: Arc::clone(&queue), options: options.clone(), connection: None };
                    match tokio::spawn(async move { lane.run(is_first).await }).await {
                        Ok(()) => return,
                        // What it was working on is answered as unknown.
                        Err(error) => tracing::error!("a log writer failed and is started again: {error}"),
                    }
                }
            });
        }
        writer
    }

    pub async fn append(&self, request: AppendRequest) -> AppendOutcome {
        let append = match append::pack(request) {
            Ok(append) => append,
            Err(outcome) => return outcome,
        };
        let bytes = u32::try_from(append.bytes.min(self.waiting_bytes_max)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes);
        let Ok(Ok(room)) = tokio::time::timeout(self.answer_timeout, room).await else {
            counter!("contextnexus_log_full_total").increment(1);
            return AppendOutcome::Unavailable;
        };
        let (answer, outcome) = oneshot::channel();
        self.queue.push(Waiting { append, answer, _room: room });
        outcome.await.unwrap_or(AppendOutcome::Unknown)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.arrived.notify_waiters();
        self.queue.arrived.notify_one();
    }
}

/// An append that waits for its outcome. Dropped without one, the outcome is unknown.
#[derive(Debug)]
struct Waiting {
    append: PackedAppend,
    answer: oneshot::Sender<AppendOutcome>,
    _room: OwnedSemaphorePermit,
}

/// What waits, by tenant.
#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    arrived: Notify,
    settings: LogSettings,
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

    fn outcome(&self, outcome: &AppendOutcome, append: &PackedAppend) {
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
    fn new(settings: LogSettings) -> Self {
        Self { state: Mutex::default(), arrived: Notify::new(), settings, counts: Counts::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, waiting: Waiting) {
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
    async fn take(&self) -> Option<(TenantId, Vec<Waiting>)> {
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

    /// A transaction took so long.
    fn took(&self, took: Duration) {
        let mut state = self.lock();
        state.transaction = (state.transaction * 3 + took) / 4;
    }

    fn answer(&self, waiting: Waiting, outcome: AppendOutcome) {
        self.counts.outcome(&outcome, &waiting.append);
        waiting.answer.send(outcome).ok(); // nobody waits any more: the head check will tell them
    }

    fn answer_all(&self, waiting: Vec<Waiting>, outcome: impl Fn() -> AppendOutcome) {
        for waiting in waiting {
            self.answer(waiting, outcome());
        }
    }

    /// Everything that waits, when PostgreSQL is away: nothing of it was sent.
    fn take_all(&self) -> Vec<Waiting> {
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

/// One connection and the task that uses it.
struct Lane {
    queue: Arc<Queue>,
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl Lane {
    async fn run(&mut self, is_first: bool) {
        if !is_first {
            tokio::time::sleep(OTHERS_AFTER).await;
        }
        // Before anybody waits for it. If PostgreSQL is away, the first append says so.
        let connecting = PgConnection::connect_with(&self.options);
        if let Ok(Ok(connection)) = tokio::time::timeout(self.queue.settings.answer_timeout, connecting).await {
            self.connection = Some(connection);
        }
        while let Some((tenant, batch)) = self.queue.take().await {
            self.commit(tenant, batch).await;
        }
    }

    /// Answers every one of `batch`. What PostgreSQL refuses is halved until the culprit stands alone.
    async fn commit(&mut self, tenant: TenantId, batch: Vec<Waiting>) {
        let mut parts = vec![batch];
        let mut attempts = 0;
        while let Some(mut part) = parts.pop() {
            let failure = match self.attempt(tenant, &part).await {
                Ok(outcomes) => {
                    for (waiting, outcome) in part.into_iter().zip(outcomes) {
                        self.queue.answer(waiting, outcome);
                    }
                    continue;
                }
                Err(failure) => failure,
            };
            match failure {
                Problem::Sent(Failure::Again) if attempts < ATTEMPTS => {
                    attempts += 1;
                    parts.push(part);
                }
                Problem::Sent(Failure::Data(_) | Failure::Damaged) if part.len() > 1 => {
                    let half = part.split_off(part.len() / 2);
                    parts.push(half);
                    parts.push(part);
                }
                Problem::Sent(Failure::Data(why)) => {
                    for waiting in part {
                        tracing::error!(document.id = %waiting.append.document, "PostgreSQL refused an append: {why}");
                        self.queue.answer(waiting, AppendOutcome::Refused(why.clone()));
                    }
                }
                Problem::Sent(Failure::Again | Failure::Damaged | Failure::Away) => {
                    self.queue.answer_all(part, || AppendOutcome::Unavailable)
                }
                Problem::Sent(Failure::Unknown) => {
                    self.connection = None;
                    self.queue.answer_all(part, || AppendOutcome::Unknown);
                }
                Problem::NoAnswer => {
                    self.connection = None;
                    self.queue.answer_all(part, || AppendOutcome::Unknown);
                    parts.drain(..).for_each(|part| self.queue.answer_all(part, || AppendOutcome::Unavailable));
                    self.queue.answer_all(self.queue.take_all(), || AppendOutcome::Unavailable);
                }
                Problem::NoConnection => {
                    self.queue.answer_all(part, || AppendOutcome::Unavailable);
                    parts.drain(..).for_each(|part| self.queue.answer_all(part, || AppendOutcome::Unavailable));
                    self.queue.answer_all(self.queue.take_all(), || AppendOutcome::Unavailable);
                }
            }
        }
    }

    async fn attempt(&mut self, tenant: TenantId, part: &[Waiting]) -> Result<Vec<AppendOutcome>, Problem> {
        let timeout = self.queue.settings.answer_timeout;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => match tokio::time::timeout(timeout, PgConnection::connect_with(&self.options)).await {
                Ok(Ok(connection)) => empty.insert(connection),
                Ok(Err(error)) => {
                    tracing::warn!("the log writer cannot connect: {error}");
                    return Err(Problem::NoConnection);
                }
                Err(_) => {
                    tracing::warn!("the log writer cannot connect: no answer");
                    return Err(Problem::NoConnection);
                }
            },
        };
        let appends: Vec<&PackedAppend> = part.iter().map(|waiting| &waiting.append).collect();
        let started = Instant::now();
        let answer = tokio::time::timeout(timeout, append::append(connection, tenant, &appends)).await;
        self.queue.counts.commit_seconds.record(started.elapsed().as_secs_f64());
        self.queue.counts.commit_documents.record(part.len() as f64);
        match answer {
            Ok(Ok(outcomes)) => {
                self.queue.took(started.elapsed());
                Ok(outcomes)
            }
            Ok(Err(error)) => {
                let failure = append::classify(&error);
                if !matches!(failure, Failure::Data(_) | Failure::Again) {
                    tracing::warn!("a transaction of the log failed: {error}");
                }
                Err(Problem::Sent(failure))
            }
            Err(_) => {
                tracing::warn!("a transaction of the log got no answer within {timeout:?}");
                Err(Problem::NoAnswer)
            }
        }
    }
}

/// Why an attempt has no outcomes.
enum Problem {
    /// PostgreSQL said something.
    Sent(Failure),
    /// It said nothing in time.
    NoAnswer,
    /// There was nobody to send it to.
    NoConnection,
}

#[cfg(test)]
mod tests {
    use super::*;
    use contextnexus_actors::ids::{AppendId, DocumentId, DocumentKey, Position, SessionId};
    use contextnexus_actors::ports::log::NewRow;
    use uuid::Uuid;

    const ONE: TenantId = TenantId(Uuid::from_u128(1));
    const TWO: TenantId = TenantId(Uuid::from_u128(2));

    fn push(queue: &Queue, tenant: TenantId, document: u128, updates: usize) {
        let row = NewRow {
            session: SessionId(Uuid::nil()),
            author: None,
            relayed_by: None,
            seen_seq: 0,
            updates: vec![bytes::Bytes::from_static(b"update"); updates],
            idempotency: None,
        };
        let key = DocumentKey { tenant, document: DocumentId(Uuid::from_u128(document)) };
        let request = AppendRequest { key, held: Position::START, append_id: AppendId(Uuid::nil()), rows: vec![row] };
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
            queue.took(3 * gap);
        }
        assert!((5 * gap..=6 * gap).contains(&apart()), "{:?}", apart());
        queue.took(Duration::from_secs(5));
        assert_eq!(apart(), 10 * gap);
    }
}
