//! The engine of every scenario with a constant rate: documents, writers and readers, an open loop of sends.
//!
//! Sends follow a schedule that waits for no answer, spread evenly over the writers, so that a slow server cannot slow
//! the question down. A delivery is counted per update and receiver by the clocks it brings: merged or not.

mod fleet;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::alarm::Alarm;
use crate::client::{self, Access, ClientError, Link};
use crate::measure::{Generator, Measurement, ServerUsage};
use crate::metrics::{self, Counters};
use crate::process::{self, ProcessError, Usage};
use crate::received::Received;
use crate::report;
use crate::wire::update;
use fleet::{Fleet, Peer};

/// Handshakes under way at once: enough to keep a server busy, few enough for its listen backlog.
const OPENING_MAX: usize = 64;
/// Between two wake-ups of the sender: a timer per send would cost more than the send at 10,000 a second.
const WAKE_UPS_APART: Duration = Duration::from_micros(200);
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
        last_fault: fleet.last_fault.clone(),
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
            report::progress(&format!("  opened {done} of {total} connections"));
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
        received: std::iter::repeat_with(Received::default).take(writers).collect(),
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
            fleet.last_fault = why;
        }
    });
    match tokio::time::timeout(SYNC_PATIENCE, is_synced).await {
        Ok(Ok(())) => Ok(link),
        _ => Err(RunError::NotSynced { number, of, why: fleet.borrow().last_fault.clone() }),
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
    let mut woke = start;
    for number in 0u64.. {
        let due = start + Duration::from_secs_f64(number as f64 / plan.total_rate());
        if due >= end || order.is_empty() {
            break;
        }
        let now = Instant::now();
        if due > now || number.is_multiple_of(64) {
            woke = due.max(woke + WAKE_UPS_APART);
            alarm.until(woke).await?;
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
            report::progress(&format!(
                "  {:>4.0} s: {:.0} updates/s sent, {:.0} deliveries/s, {latency}{cpu}",
                moment.duration_since(began).as_secs_f64(),
                (fleet.window_sent - told.1) as f64 / seconds,
                (fleet.window_deliveries - told.2) as f64 / seconds,
            ));
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
