//! The engine of every scenario with a constant rate: documents, writers and readers, an open loop of sends.
//!
//! Sends follow a schedule that waits for no answer, spread evenly over the writers, so that a slow server cannot slow
//! the question down. A delivery is counted per update and receiver by the clocks it brings: merged or not.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::alarm::Alarm;
use crate::client::{self, Access, ClientError, Link, Listener};
use crate::measure::{Generator, Latencies, Measurement, ServerUsage};
use crate::metrics::{self, Counters};
use crate::process::{self, ProcessError, Usage};
use crate::wire::dialect::Dialect;
use crate::wire::update::{self, Range};

/// Handshakes under way at once: enough to keep a server busy, few enough for its listen backlog.
const OPENING_MAX: usize = 64;
/// A server that has not synced a client by then does not.
const SYNC_PATIENCE: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The scenario's name, for the report.
    pub scenario: &'static str,
    /// How many documents.
    pub documents: usize,
    /// Connections per document that write (and read).
    pub writers: usize,
    /// Connections per document that only read.
    pub readers: usize,
    /// Updates a second of one writer.
    pub rate: f64,
    /// Sends before the measured window.
    pub warm_up: Duration,
    /// The measured window.
    pub duration: Duration,
    /// How long to wait for what is still under way after the last send.
    pub drain: Duration,
}

/// Which of the server's processes to watch.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Roots of process trees.
    pub pids: Vec<u32>,
    /// Address of `/metrics`.
    pub metrics: Option<String>,
    /// Whether to print a line a second.
    pub progress: bool,
}

/// Why a scenario could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A client could not open its document.
    #[error("client {number} of {of} could not open its document")]
    Open {
        /// Which one, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// Why.
        source: ClientError,
    },
    /// A client's handshake came to no end.
    #[error("client {number} of {of} was not synced: {why}")]
    NotSynced {
        /// Which one, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// What was heard last.
        why: String,
    },
    /// The processes to watch cannot be watched.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The server's metrics cannot be read.
    #[error(transparent)]
    Metrics(#[from] metrics::MetricsError),
    /// The machine said no.
    #[error("the generator's own timer or sockets failed")]
    Io(#[from] std::io::Error),
}

/// Carries `plan` out. Connections take the addresses in turn, so that two nodes share the load.
///
/// Needs a `LocalSet` on a current-thread runtime.
pub async fn run(plan: &Plan, accesses: &[Access], watch: &Watch) -> Result<Measurement, RunError> {
    let mut seed = [0u8; 32];
    rand::rng().fill(&mut seed);
    let mut random = rand::rngs::StdRng::from_seed(seed);
    let fleet = Rc::new(RefCell::new(Fleet::new(plan, &mut random)));
    let run_id: u32 = random.random();

    let (links, open_ms) = open_all(plan, accesses, &fleet, run_id, watch.progress).await?;

    let counters = scrape(watch).await?;
    let start = Instant::now() + Duration::from_millis(200);
    let window = (start + plan.warm_up, start + plan.warm_up + plan.duration);
    fleet.borrow_mut().set_window(window);
    let (sent, observed) =
        tokio::join!(send_all(plan, &fleet, &links, start, window.1, &mut random), observe(&fleet, watch, window));
    sent?;
    let observed = observed?;
    drain(&fleet, plan.drain).await;
    let metrics = scrape(watch).await?.since(&counters);

    let connections = links.len();
    links.iter().for_each(|link| link.close());
    let fleet = fleet.borrow();
    let (missing, unacknowledged) = fleet.outstanding();
    Ok(Measurement {
        scenario: plan.scenario.to_owned(),
        against: String::new(),
        dialect: accesses[0].dialect,
        run: 0,
        documents: plan.documents,
        connections,
        open_ms,
        seconds: observed.elapsed.as_secs_f64(),
        rate_wanted: plan.total_rate(),
        rate_sent: observed.sent as f64 / observed.elapsed.as_secs_f64(),
        deliveries: observed.deliveries,
        delivery_messages: observed.messages,
        delivery: fleet.delivery.quantiles(),
        acknowledgement: fleet.acknowledgement.quantiles(),
        missing,
        unacknowledged,
        refused: fleet.refused,
        dropped: fleet.dropped,
        server: observed.server,
        generator: Generator::new(observed.own_cpu, observed.elapsed, &fleet.late),
        load_average: process::load_average(),
        commit_p50_ms: None,
        metrics,
    })
}

impl Plan {
    fn total_rate(&self) -> f64 {
        self.rate * (self.documents * self.writers) as f64
    }

    fn per_document(&self) -> usize {
        self.writers + self.readers
    }
}

/// Everything that is counted, and what it needs to know: shared by all clients of the one thread.
struct Fleet {
    born: Instant,
    writers_per_document: usize,
    connections_per_document: usize,
    /// Writer `w` writes as client `first_client + w`.
    first_client: u64,
    /// When each update was sent, by writer and clock, in nanoseconds since `born`.
    sent: Vec<Vec<u64>>,
    window: (u64, u64),
    delivery: Latencies,
    acknowledgement: Latencies,
    late: Latencies,
    /// Of the current second, for the progress line.
    recent: Latencies,
    expected: u64,
    received: u64,
    acknowledgements_expected: u64,
    acknowledgements: u64,
    /// In the window, by time of receipt.
    window_deliveries: u64,
    window_messages: u64,
    window_sent: u64,
    refused: u64,
    dropped: u64,
    last_refusal: String,
    closing: bool,
}

impl Fleet {
    fn new(plan: &Plan, random: &mut impl RngExt) -> Self {
        Self {
            born: Instant::now(),
            writers_per_document: plan.writers,
            connections_per_document: plan.per_document(),
            // Ids of 31 bits, as Yjs 13 makes them, with room for every writer.
            first_client: u64::from(random.random_range(1_000_000u32..1 << 30)),
            sent: vec![Vec::new(); plan.documents * plan.writers],
            window: (u64::MAX, u64::MAX),
            delivery: Latencies::default(),
            acknowledgement: Latencies::default(),
            late: Latencies::default(),
            recent: Latencies::default(),
            expected: 0,
            received: 0,
            acknowledgements_expected: 0,
            acknowledgements: 0,
            window_deliveries: 0,
            window_messages: 0,
            window_sent: 0,
            refused: 0,
            dropped: 0,
            last_refusal: String::new(),
            closing: false,
        }
    }

    fn now(&self) -> u64 {
        self.born.elapsed().as_nanos() as u64
    }

    fn set_window(&mut self, window: (Instant, Instant)) {
        let nanos = |at: Instant| at.saturating_duration_since(self.born).as_nanos() as u64;
        self.window = (nanos(window.0), nanos(window.1));
    }

    fn in_window(&self, at: u64) -> bool {
        self.window.0 <= at && at < self.window.1
    }

    /// Notes a send of `writer` and answers the update.
    fn next_update(&mut self, writer: usize, due: Instant) -> Vec<u8> {
        let now = self.now();
        if self.in_window(now) {
            self.window_sent += 1;
            self.late.record(Instant::now().saturating_duration_since(due).as_nanos() as u64);
        }
        let clock = self.sent[writer].len() as u32;
        self.sent[writer].push(now);
        self.expected += self.connections_per_document as u64 - 1;
        self.acknowledgements_expected += 1;
        let letter = (b'a' + (clock % 26) as u8) as char;
        update::append_text(self.first_client + writer as u64, clock, letter.encode_utf8(&mut [0; 4]))
    }

    fn delivered(&mut self, writer: usize, clocks: std::ops::Range<u32>, now: u64) {
        self.received += u64::from(clocks.end - clocks.start);
        for sent in &self.sent[writer][clocks.start as usize..clocks.end as usize] {
            if self.window.0 <= *sent && *sent < self.window.1 {
                self.delivery.record(now - sent);
                self.recent.record(now - sent);
            }
        }
    }

    fn acknowledged(&mut self, writer: usize, clocks: std::ops::Range<u32>, now: u64) {
        self.acknowledgements += u64::from(clocks.end - clocks.start);
        for sent in &self.sent[writer][clocks.start as usize..clocks.end as usize] {
            if self.window.0 <= *sent && *sent < self.window.1 {
                self.acknowledgement.record(now - sent);
            }
        }
    }

    fn outstanding(&self) -> (u64, u64) {
        (self.expected - self.received, self.acknowledgements_expected - self.acknowledgements)
    }
}

/// Which clocks of one writer a reader has.
#[derive(Default, Debug)]
struct Progress {
    next: u32,
    /// Below `next`, not yet seen: a server that merges or resyncs may fill them later.
    holes: Vec<(u32, u32)>,
}

impl Progress {
    /// Takes a run of clocks and calls `fresh` for those not seen before.
    fn take(&mut self, clock: u32, len: u32, mut fresh: impl FnMut(std::ops::Range<u32>)) {
        let end = clock.saturating_add(len);
        if clock < self.next && !self.holes.is_empty() {
            let holes = std::mem::take(&mut self.holes);
            for (from, to) in holes {
                let (low, high) = (from.max(clock), to.min(end));
                if low < high {
                    fresh(low..high);
                    self.holes.extend([(from, low), (high, to)].into_iter().filter(|(from, to)| from < to));
                } else {
                    self.holes.push((from, to));
                }
            }
        }
        if end > self.next {
            if clock > self.next {
                self.holes.push((self.next, clock));
            }
            fresh(clock.max(self.next)..end);
            self.next = end;
        }
    }
}

/// One connection's ears.
struct Peer {
    fleet: Rc<RefCell<Fleet>>,
    dialect: Dialect,
    /// The first writer of its document.
    first_writer: usize,
    /// Which writer it is itself.
    own: Option<usize>,
    progress: Vec<Progress>,
    acknowledged: u32,
    synced: Option<oneshot::Sender<()>>,
}

impl Listener for Peer {
    fn asked(&mut self, _state_vector: &[u8]) -> Vec<u8> {
        update::EMPTY.to_vec()
    }

    fn content(&mut self, update: &[u8]) {
        let mut fleet = self.fleet.borrow_mut();
        let now = fleet.now();
        let mut deliveries = 0;
        let readable = update::ranges(update, |Range { client, clock, len }| {
            let Some(writer) = client.checked_sub(fleet.first_client).map(|offset| offset as usize) else { return };
            let Some(progress) = writer.checked_sub(self.first_writer).and_then(|place| self.progress.get_mut(place))
            else {
                return; // somebody else's content in this document
            };
            // No more than was sent: a server that invents clocks must not count.
            let known = fleet.sent[writer].len() as u32;
            let len = len.min(known.saturating_sub(clock));
            progress.take(clock, len, |clocks| {
                deliveries += u64::from(clocks.end - clocks.start);
                if self.own != Some(writer) {
                    fleet.delivered(writer, clocks, now);
                } else if self.dialect == Dialect::A {
                    fleet.acknowledged(writer, clocks, now);
                }
            });
        });
        if !readable {
            fleet.refused += 1;
            fleet.last_refusal = "an update that cannot be read".to_owned();
        }
        if deliveries > 0 && fleet.in_window(now) {
            fleet.window_deliveries += deliveries;
            fleet.window_messages += 1;
        }
    }

    fn synced(&mut self) {
        if let Some(synced) = self.synced.take() {
            let _ = synced.send(()); // the opener may have given up
        }
    }

    fn acknowledged(&mut self, updates: u64) {
        let Some(writer) = self.own else { return };
        let mut fleet = self.fleet.borrow_mut();
        let now = fleet.now();
        let through = updates as u32;
        fleet.acknowledged(writer, self.acknowledged..through, now);
        self.acknowledged = through;
    }

    fn refused(&mut self, why: String) {
        let mut fleet = self.fleet.borrow_mut();
        fleet.refused += 1;
        fleet.last_refusal = why;
    }
}

/// Opens every connection; the links of the writers come first, in their order.
async fn open_all(
    plan: &Plan,
    accesses: &[Access],
    fleet: &Rc<RefCell<Fleet>>,
    run_id: u32,
    progress: bool,
) -> Result<(Vec<Link>, f64), RunError> {
    let total = plan.documents * plan.per_document();
    let gate = Rc::new(Semaphore::new(OPENING_MAX));
    let mut opening = JoinSet::new();
    let mut tokens = Vec::with_capacity(plan.documents);
    for document in 0..plan.documents {
        let name = format!("lt-{run_id:08x}-{document}");
        let token = client::admit(&accesses[0], &name).await.map_err(|source| RunError::Open {
            number: document * plan.per_document() + 1,
            of: total,
            source,
        })?;
        tokens.push((name, token));
    }
    let began = Instant::now();
    // Writer by writer over all documents first: their links lead the list.
    for number in 0..total {
        let writers = plan.documents * plan.writers;
        let (document, own) = if number < writers {
            (number / plan.writers, Some(number))
        } else {
            ((number - writers) / plan.readers, None)
        };
        let (name, token) = tokens[document].clone();
        let access = accesses[number % accesses.len()].clone();
        let fleet = Rc::clone(fleet);
        let gate = Rc::clone(&gate);
        opening.spawn_local(async move {
            let _turn = gate.acquire().await;
            open_one(&access, &name, token.as_deref(), &fleet, document, own, (number + 1, total))
                .await
                .map(|link| (number, link))
        });
    }
    let mut links: Vec<Option<Link>> = vec![None; total];
    let mut done = 0;
    let mut told = Instant::now();
    while let Some(opened) = opening.join_next().await {
        let (number, link) = opened.map_err(std::io::Error::other)??;
        links[number] = Some(link);
        done += 1;
        if progress && told.elapsed() > Duration::from_secs(1) {
            eprintln!("  opened {done} of {total} connections");
            told = Instant::now();
        }
    }
    let open_ms = began.elapsed().as_secs_f64() * 1e3;
    Ok((links.into_iter().flatten().collect(), open_ms))
}

async fn open_one(
    access: &Access,
    name: &str,
    token: Option<&str>,
    fleet: &Rc<RefCell<Fleet>>,
    document: usize,
    own: Option<usize>,
    (number, of): (usize, usize),
) -> Result<Link, RunError> {
    let (incoming, link) = client::connect(access, name, token, &update::EMPTY_STATE_VECTOR)
        .await
        .map_err(|source| RunError::Open { number, of, source })?;
    let (synced, is_synced) = oneshot::channel();
    let writers = fleet.borrow().writers_per_document;
    let mut peer = Peer {
        fleet: Rc::clone(fleet),
        dialect: access.dialect,
        first_writer: document * writers,
        own,
        progress: std::iter::repeat_with(Progress::default).take(writers).collect(),
        acknowledged: 0,
        synced: Some(synced),
    };
    let ears = link.clone();
    let home = Rc::clone(fleet);
    tokio::task::spawn_local(async move {
        let why = client::listen(incoming, ears, &mut peer).await;
        let mut fleet = home.borrow_mut();
        if !fleet.closing {
            fleet.dropped += 1;
            fleet.last_refusal = why;
        }
    });
    match tokio::time::timeout(SYNC_PATIENCE, is_synced).await {
        Ok(Ok(())) => Ok(link),
        _ => Err(RunError::NotSynced { number, of, why: fleet.borrow().last_refusal.clone() }),
    }
}

async fn send_all(
    plan: &Plan,
    fleet: &Rc<RefCell<Fleet>>,
    links: &[Link],
    start: Instant,
    end: Instant,
    random: &mut impl RngExt,
) -> std::io::Result<()> {
    let mut order: Vec<usize> = (0..plan.documents * plan.writers).collect();
    order.shuffle(random);
    let mut alarm = Alarm::new()?;
    for number in 0u64.. {
        let due = start + Duration::from_secs_f64(number as f64 / plan.total_rate());
        if due >= end || order.is_empty() {
            break;
        }
        if due > Instant::now() || number % 64 == 0 {
            alarm.until(due).await?;
        }
        let writer = order[(number % order.len() as u64) as usize];
        let link = &links[writer];
        if !link.is_closed() {
            let update = fleet.borrow_mut().next_update(writer, due);
            link.send_update(&update);
        }
    }
    Ok(())
}

/// What the window looked like from outside.
struct Observed {
    elapsed: Duration,
    own_cpu: Duration,
    deliveries: u64,
    messages: u64,
    sent: u64,
    server: Option<ServerUsage>,
}

async fn observe(
    fleet: &Rc<RefCell<Fleet>>,
    watch: &Watch,
    (from, to): (Instant, Instant),
) -> Result<Observed, RunError> {
    tokio::time::sleep_until(from.into()).await;
    let began = Instant::now();
    let own_before = process::own_cpu();
    let before = usage(watch).await?;
    let mut memory_max = before.as_ref().map_or(0, |usage| usage.memory_bytes);
    let mut last = before.clone();
    let mut told = (began, 0, 0);
    loop {
        let next = (told.0 + Duration::from_secs(1)).min(to);
        tokio::time::sleep_until(next.into()).await;
        let now = usage(watch).await?;
        memory_max = memory_max.max(now.as_ref().map_or(0, |usage| usage.memory_bytes));
        let moment = Instant::now();
        if watch.progress {
            let mut fleet = fleet.borrow_mut();
            let seconds = moment.duration_since(told.0).as_secs_f64();
            let latency = fleet.recent.quantiles().map_or_else(
                || "nothing delivered".to_owned(),
                |quantiles| format!("p50 {:.2} ms, p99 {:.2} ms", quantiles.p50_ms, quantiles.p99_ms),
            );
            let cpu = match (&last, &now) {
                (Some(last), Some(now)) => {
                    let used = now.cpu_total().saturating_sub(last.cpu_total()).as_secs_f64() / seconds;
                    format!(", server {:.0} % CPU, {:.0} MiB", used * 100.0, now.memory_bytes as f64 / 1048576.0)
                }
                _ => String::new(),
            };
            eprintln!(
                "  {:>4.0} s: {:.0} updates/s sent, {:.0} deliveries/s, {latency}{cpu}",
                moment.duration_since(began).as_secs_f64(),
                (fleet.window_sent - told.1) as f64 / seconds,
                (fleet.window_deliveries - told.2) as f64 / seconds,
            );
            fleet.recent.clear();
            told = (moment, fleet.window_sent, fleet.window_deliveries);
        } else {
            told.0 = moment;
        }
        last = now;
        if Instant::now() >= to {
            break;
        }
    }
    let elapsed = began.elapsed();
    let own_cpu = process::own_cpu().saturating_sub(own_before);
    let fleet = fleet.borrow();
    let server = before
        .zip(last)
        .map(|(before, after)| ServerUsage::new(&before, &after, elapsed, fleet.window_deliveries, memory_max));
    Ok(Observed {
        elapsed,
        own_cpu,
        deliveries: fleet.window_deliveries,
        messages: fleet.window_messages,
        sent: fleet.window_sent,
        server,
    })
}

/// Off the generator's thread: reading /proc takes milliseconds in which frames would wait.
async fn usage(watch: &Watch) -> Result<Option<Usage>, RunError> {
    if watch.pids.is_empty() {
        return Ok(None);
    }
    let pids = watch.pids.clone();
    let usage = tokio::task::spawn_blocking(move || process::usage(&pids)).await.map_err(std::io::Error::other)?;
    Ok(Some(usage?))
}

async fn scrape(watch: &Watch) -> Result<Counters, RunError> {
    match &watch.metrics {
        Some(address) => Ok(metrics::scrape(address).await?),
        None => Ok(Counters::default()),
    }
}

async fn drain(fleet: &Rc<RefCell<Fleet>>, patience: Duration) {
    let until = Instant::now() + patience;
    while fleet.borrow().outstanding() != (0, 0) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fleet.borrow_mut().closing = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(progress: &mut Progress, clock: u32, len: u32) -> Vec<u32> {
        let mut fresh = Vec::new();
        progress.take(clock, len, |clocks| fresh.extend(clocks));
        fresh
    }

    #[test]
    fn every_clock_counts_once_however_often_it_comes() {
        let mut progress = Progress::default();
        assert_eq!(take(&mut progress, 0, 2), [0, 1]);
        assert_eq!(take(&mut progress, 0, 4), [2, 3], "merged with what is known");
        assert_eq!(take(&mut progress, 1, 2), [0u32; 0]);
    }

    #[test]
    fn a_hole_is_missing_until_it_is_filled() {
        let mut progress = Progress::default();
        assert_eq!(take(&mut progress, 3, 2), [3, 4]);
        assert_eq!(progress.holes, [(0, 3)]);
        assert_eq!(take(&mut progress, 1, 1), [1]);
        assert_eq!(take(&mut progress, 0, 6), [0, 2, 5]);
        assert!(progress.holes.is_empty());
    }
}
