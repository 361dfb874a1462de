//! The engine under every scenario that sends at a rate or holds many connections: documents, writers and readers, an
//! open loop of sends, and what comes of it.
//!
//! Sends follow a schedule that waits for no answer, spread evenly over the writers, so that a slow server cannot slow
//! the question down. A delivery is counted per update and receiver by the clocks it brings: merged or not.

mod fleet;
mod peer;
mod phase;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

pub use phase::{Phase, Tick, mib, over_time};

use crate::bench::{Bench, BenchError};
use crate::client::{self, Access, ClientError, Link, Traffic};
use crate::measure::Quantiles;
use crate::metrics::{self, Counters, Own};
use crate::outcome::{Line, Outcome};
use crate::process;
use crate::received::Received;
use crate::wire::dialect::Dialect;
use crate::wire::update;
use fleet::Fleet;
use peer::Peer;

/// Handshakes under way at once: enough to keep a server busy, few enough for its listen backlog.
pub const OPENING_MAX: usize = 64;
/// A server that has not synced a client by then does not.
const SYNC_PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts of a client that meets a server while it starts.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// A server's counters may be a moment behind what it sent.
const COUNTERS_SETTLE: Duration = Duration::from_secs(1);

/// What writers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A letter behind the writer's last one.
    Text,
    /// An awareness state.
    Cursor,
}

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many documents.
    pub documents: usize,
    /// Connections per document that write (and read).
    pub writers: usize,
    /// Connections per document that only read.
    pub readers: usize,
    /// What writers send.
    pub payload: Payload,
}

impl Shape {
    /// Connections of one document.
    pub fn per_document(&self) -> usize {
        self.writers + self.readers
    }

    /// Connections of all documents.
    pub fn connections(&self) -> usize {
        self.documents * self.per_document()
    }

    /// For people.
    pub fn words(&self) -> String {
        let what = match self.payload {
            Payload::Text => "writer",
            Payload::Cursor => "cursor",
        };
        let several = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        let documents = several(self.documents, "document");
        format!("{documents} x ({} + {})", several(self.writers, what), several(self.readers, "reader"))
    }
}

/// Content that documents have from before.
#[derive(Clone, Debug)]
pub struct Known {
    /// Writer `w` wrote as client `first_client + w`.
    pub first_client: u64,
    /// How many writers each document had.
    pub writers_per_document: usize,
    /// Updates of each writer.
    pub updates: Vec<usize>,
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
    /// Addresses, processes or metrics cannot be used.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// The machine said no.
    #[error("the generator's own timer or sockets failed")]
    Io(#[from] std::io::Error),
}

/// What was still owed when a drain ended.
#[derive(Clone, Copy, Debug)]
pub struct Drained {
    /// Deliveries.
    pub missing: u64,
    /// Acknowledgements.
    pub unacked: u64,
    /// How long everything took to arrive, or how long was waited in vain.
    pub took: Duration,
}

/// Connections that are open. Needs a `LocalSet` on a current-thread runtime.
pub struct Engine {
    shape: Shape,
    fleet: Rc<RefCell<Fleet>>,
    /// The writers' first.
    links: Vec<Link>,
    random: rand::rngs::StdRng,
    traffic: Rc<Traffic>,
    before: Counters,
    /// From the first connection to the last step 2, in milliseconds.
    pub open_ms: f64,
}

/// How connections are opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opening<'a> {
    /// What the documents are known to hold.
    pub known: Option<&'a Known>,
    /// Handshakes under way at once; [`OPENING_MAX`] where not given.
    pub at_once: Option<usize>,
    /// For how long each client tries again, as real ones do when a server restarts; not at all where not given.
    pub patience: Option<Duration>,
}

/// Names of documents that nobody has used.
pub fn fresh_names(documents: usize) -> Vec<String> {
    let run: u32 = rand::random();
    (0..documents).map(|document| format!("lt-{run:08x}-{document}")).collect()
}

impl Engine {
    /// Opens every connection of `shape` on documents of its own. Connections take the addresses and dialects in turn,
    /// so that two nodes share the load.
    pub async fn open(shape: Shape, bench: &Bench) -> Result<Self, RunError> {
        let names = fresh_names(shape.documents);
        Self::open_documents(shape, &names, Opening::default(), bench).await
    }

    /// The same on documents of these names.
    pub async fn open_documents(
        shape: Shape,
        names: &[String],
        opening: Opening<'_>,
        bench: &Bench,
    ) -> Result<Self, RunError> {
        let mut seed = [0u8; 32];
        rand::rng().fill(&mut seed);
        let mut random = rand::rngs::StdRng::from_seed(seed);
        let fleet = Rc::new(RefCell::new(Fleet::new(&shape, opening.known, &mut random)));
        // A server that is only just starting has no counters yet.
        let before = match opening.patience {
            None => bench.scrape().await?,
            Some(_) => Counters::default(),
        };
        let traffic = Rc::new(Traffic::default());
        let accesses = bench.accesses()?;
        let (fleet_of, traffic_of) = (Rc::clone(&fleet), Rc::clone(&traffic));
        let opener = Opener { shape, accesses, fleet: fleet_of, traffic: traffic_of, patience: opening.patience };
        let (links, open_ms) = opener.open_all(names, opening.at_once.unwrap_or(OPENING_MAX), bench).await?;
        Ok(Self { shape, fleet, links, random, traffic, before, open_ms })
    }

    /// How many of what.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Waits until nothing is owed any more, `patience` at the longest. `each` is called now and then.
    pub async fn drain(&self, patience: Duration, mut each: impl FnMut(u64)) -> Drained {
        let began = Instant::now();
        loop {
            let (missing, unacked) = self.fleet.borrow().outstanding();
            if (missing, unacked) == (0, 0) || began.elapsed() >= patience {
                return Drained { missing, unacked, took: began.elapsed() };
            }
            each(missing);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// From send to receipt by another client, and from send to acknowledgement, of what the last phase sent.
    pub fn latencies(&self) -> (Option<Quantiles>, Option<Quantiles>) {
        let fleet = self.fleet.borrow();
        (fleet.delivery.quantiles(), fleet.acknowledgement.quantiles())
    }

    /// How latencies of the last phase are spread: delivery, and acknowledgement where there is any.
    pub fn spread(&self) -> Vec<Line> {
        let fleet = self.fleet.borrow();
        let lines = [("delivery", &fleet.delivery), ("acknowledgement", &fleet.acknowledgement)];
        let lines = lines.map(|(name, latencies)| Line::new(name, latencies.spread()));
        lines.into_iter().filter(|line| !line.points.is_empty()).collect()
    }

    /// When somebody heard something new last.
    pub fn heard_last(&self) -> Instant {
        let fleet = self.fleet.borrow();
        fleet.born + Duration::from_nanos(fleet.heard_last)
    }

    /// Connections that ended by themselves, with what was heard last.
    pub fn dropped(&self) -> (u64, String) {
        let fleet = self.fleet.borrow();
        (fleet.dropped, fleet.last_fault.clone())
    }

    /// What the writers have written: for readers who come later.
    pub fn known(&self) -> Known {
        let fleet = self.fleet.borrow();
        Known {
            first_client: fleet.first_client,
            writers_per_document: fleet.writers_per_document,
            updates: fleet.sent.iter().map(Vec::len).collect(),
        }
    }

    /// What is exchanged with the server; connections beside the engine's own count here, too.
    pub fn traffic(&self) -> Rc<Traffic> {
        Rc::clone(&self.traffic)
    }

    /// Updates sent so far, all writers together.
    pub fn sent(&self) -> usize {
        self.fleet.borrow().sent.iter().map(Vec::len).sum()
    }

    /// From here on connections may end without being counted as dropped.
    pub fn expect_end(&self) {
        self.fleet.borrow_mut().closing = true;
    }

    /// Reads the server's counters a last time, says goodbye and reports what every scenario reports.
    pub async fn finish(self, drained: Drained, outcome: &mut Outcome, bench: &Bench) -> Result<(), RunError> {
        let own = {
            let fleet = self.fleet.borrow();
            let text = fleet.payload == Payload::Text;
            Own {
                messages_sent: self.traffic.messages_sent.get(),
                updates_sent: self.traffic.updates_beside.get()
                    + if text { fleet.acknowledgements_expected } else { 0 },
                update_messages_received: self.traffic.update_messages.get(),
            }
        };
        let began = Instant::now();
        loop {
            outcome.moved = bench.scrape().await?.since(&self.before);
            outcome.checks = metrics::checks(&outcome.moved, &own);
            if outcome.checks.iter().all(metrics::Check::agrees) || began.elapsed() >= COUNTERS_SETTLE {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.expect_end();
        self.links.iter().for_each(Link::close);
        let fleet = self.fleet.borrow();
        let figures = &mut outcome.figures;
        figures.count("missing", drained.missing);
        if fleet.acknowledgements_expected > 0 {
            figures.count("unacked", drained.unacked);
        }
        figures.count("refused", fleet.refused);
        figures.count("dropped", fleet.dropped);
        figures.count("connections", self.links.len());
        figures.count("documents", self.shape.documents);
        figures.set("open_ms", self.open_ms);
        figures.set("load_average", process::load_average());
        if drained.missing > 0 {
            outcome.faults.push(format!("{} deliveries never came", drained.missing));
        }
        if drained.unacked > 0 {
            outcome.faults.push(format!("{} updates were never acknowledged", drained.unacked));
        }
        if fleet.refused > 0 || fleet.dropped > 0 {
            outcome.faults.push(format!(
                "{} refusals, {} connections dropped; the last: {}",
                fleet.refused, fleet.dropped, fleet.last_fault
            ));
        }
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A scenario that gives up must not leave its connections to the next run.
        self.fleet.borrow_mut().closing = true;
        self.links.iter().for_each(Link::close);
    }
}

struct Opener {
    shape: Shape,
    accesses: Vec<Access>,
    fleet: Rc<RefCell<Fleet>>,
    traffic: Rc<Traffic>,
    patience: Option<Duration>,
}

impl Opener {
    /// Opens every connection; the links of the writers come first, in their order.
    async fn open_all(&self, names: &[String], at_once: usize, bench: &Bench) -> Result<(Vec<Link>, f64), RunError> {
        let total = self.shape.connections();
        let mut tokens = Vec::with_capacity(names.len());
        for (document, name) in names.iter().enumerate() {
            let number = document * self.shape.per_document() + 1;
            let admitted = again(self.patience, async || self.admit(name).await).await;
            tokens.push(admitted.map_err(|source| RunError::Open { number, of: total, source })?);
        }
        let gate = Rc::new(Semaphore::new(at_once));
        let mut opening = JoinSet::new();
        let began = Instant::now();
        let writers = self.shape.documents * self.shape.writers;
        for number in 0..total {
            let (document, own) = if number < writers {
                (number / self.shape.writers, Some(number))
            } else {
                ((number - writers) / self.shape.readers, None)
            };
            let access = self.accesses[number % self.accesses.len()].clone();
            let token = tokens[document].iter().find(|(dialect, _)| *dialect == access.dialect);
            let token = token.and_then(|(_, token)| token.clone());
            let seat = Seat { number, of: total, document, own, access, name: names[document].clone(), token };
            let (fleet, traffic, gate) = (Rc::clone(&self.fleet), Rc::clone(&self.traffic), Rc::clone(&gate));
            let patience = self.patience;
            opening.spawn_local(async move {
                let _turn = gate.acquire().await;
                let opened = again(patience, async || seat.open(&fleet, Rc::clone(&traffic)).await).await;
                opened.map(|link| (number, link))
            });
        }
        let mut links: Vec<Option<Link>> = vec![None; total];
        let mut done = 0;
        while let Some(opened) = opening.join_next().await {
            let (number, link) = opened.map_err(std::io::Error::other)??;
            links[number] = Some(link);
            done += 1;
            bench.progress.at(|| format!("opened {done} of {total} connections"));
        }
        let open_ms = began.elapsed().as_secs_f64() * 1e3;
        Ok((links.into_iter().flatten().collect(), open_ms))
    }

    /// The token of a document for each dialect that is played.
    async fn admit(&self, name: &str) -> Result<Vec<(Dialect, Option<String>)>, ClientError> {
        let mut tokens: Vec<(Dialect, Option<String>)> = Vec::new();
        for access in &self.accesses {
            if !tokens.iter().any(|(dialect, _)| *dialect == access.dialect) {
                tokens.push((access.dialect, client::admit(access, name).await?));
            }
        }
        Ok(tokens)
    }
}

/// Tries until `patience` has gone by; once where there is none.
async fn again<T, E>(patience: Option<Duration>, mut attempt: impl AsyncFnMut() -> Result<T, E>) -> Result<T, E> {
    let began = Instant::now();
    loop {
        match attempt().await {
            Err(_) if patience.is_some_and(|patience| began.elapsed() < patience) => {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            done => return done,
        }
    }
}

/// One connection to be opened.
struct Seat {
    number: usize,
    of: usize,
    document: usize,
    own: Option<usize>,
    access: Access,
    name: String,
    token: Option<String>,
}

impl Seat {
    async fn open(&self, fleet: &Rc<RefCell<Fleet>>, traffic: Rc<Traffic>) -> Result<Link, RunError> {
        let (number, of) = (self.number + 1, self.of);
        let empty = &update::EMPTY_STATE_VECTOR;
        let (incoming, link) = client::connect_counted(&self.access, &self.name, self.token.as_deref(), empty, traffic)
            .await
            .map_err(|source| RunError::Open { number, of, source })?;
        let (synced, is_synced) = oneshot::channel();
        let writers = fleet.borrow().writers_per_document;
        let mut peer = Peer {
            fleet: Rc::clone(fleet),
            dialect: self.access.dialect,
            first_writer: self.document * writers,
            own: self.own,
            received: std::iter::repeat_with(Received::default).take(writers).collect(),
            acknowledged: 0,
            synced: Some(synced),
            is_in: false,
        };
        let ears = link.clone();
        let home = Rc::clone(fleet);
        tokio::task::spawn_local(async move {
            let why = client::listen(incoming, ears, &mut peer).await;
            let mut fleet = home.borrow_mut();
            // Who never came in is not dropped: opening fails, or is tried again.
            if !fleet.closing && (peer.is_in || fleet.last_fault.is_empty()) {
                fleet.dropped += u64::from(peer.is_in);
                fleet.last_fault = why;
            }
        });
        match tokio::time::timeout(SYNC_PATIENCE, is_synced).await {
            Ok(Ok(())) => Ok(link),
            _ => Err(RunError::NotSynced { number, of, why: fleet.borrow().last_fault.clone() }),
        }
    }
}
