//! Group commit: appends of many documents of one tenant in one transaction, tenants taking turns.
//!
//! Appends wait in a [queue](Queue), which decides what the next transaction is and when it starts. Lanes, each with a connection of its own, take it
//! from there and answer.

use super::LogSettings;
use super::append::{self, EncodedAppend, Failure};
use crate::postgres::Database;
use contextnexus_actors::ids::TenantId;
use contextnexus_actors::ports::log::{AppendOutcome, AppendRequest};
use metrics::counter;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};

mod queue;

use queue::{Queue, Waiting};

/// A deadlock or serialisation failure is tried so often before it is answered as an outage.
const ATTEMPTS: u32 = 5;
/// The lanes beside the first connect so long after a start: at that moment everybody comes back, and one is enough.
const OTHERS_AFTER: Duration = Duration::from_secs(1);

/// The front of the writer.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Arc<Queue>,
    room: Arc<Semaphore>,
    options: PgConnectOptions,
    answer_timeout: Duration,
    waiting_bytes_max: usize,
}

impl Writer {
    /// What is appended waits until it [runs](Self::run).
    pub fn new(database: &Database, settings: LogSettings) -> Self {
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
        Self {
            room: Arc::new(Semaphore::new(settings.waiting_bytes_max)),
            options,
            answer_timeout: settings.answer_timeout,
            waiting_bytes_max: settings.waiting_bytes_max,
            queue: Arc::new(Queue::new(settings)),
        }
    }

    /// Starts the lanes on the running tokio runtime. They end when this is dropped.
    pub fn run(&self) {
        for lane in 0..self.queue.settings.connections {
            let (queue, options) = (Arc::clone(&self.queue), self.options.clone());
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
        self.queue.close();
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
        let appends: Vec<&EncodedAppend> = part.iter().map(|waiting| &waiting.append).collect();
        let started = Instant::now();
        let answer = tokio::time::timeout(timeout, append::append(connection, tenant, &appends)).await;
        self.queue.tried(part.len(), started.elapsed());
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
