//! Kill and count: whether a server keeps what it acknowledged or showed, when it is killed at any moment.
//!
//! Each round starts the server, writes unique tokens through fresh clients, kills the server (or its database, or
//! both) with SIGKILL at a random moment and never lets those writers return. After the restart fresh clients of every
//! dialect read every document, and the [`ledger`] says what is missing.

mod ledger;
mod server;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use yrs::updates::decoder::Decode;
use yrs::{Doc, GetString, OffsetKind, Options, Transact, Update, WriteTxn};

pub use ledger::{Findings, Ledger, Promise};
use server::Server;

use crate::alarm::Alarm;
use crate::client::{self, Access, Link, Listener};
use crate::metrics::{self, MetricsError};
use crate::process::ProcessError;
use crate::received::Received;
use crate::report;
use crate::wire::dialect::Dialect;
use crate::wire::update::{self, Range};

/// A read that brings no step 2 by then is tried again until the restart's patience ends.
const READ_PATIENCE: Duration = Duration::from_secs(10);
/// What a server that lives on may still acknowledge after its database was killed, before the writers go for good.
const AFTERMATH: Duration = Duration::from_millis(500);

/// How long clients of two dialects may read a document differently after a restart.
const AGREEMENT_PATIENCE: Duration = Duration::from_secs(10);
/// Lost tokens that the report names.
const EXAMPLES_MAX: usize = 10;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Victim {
    /// The server's process.
    Server,
    /// The process that leads its PostgreSQL.
    Database,
    /// Both, the database first.
    Both,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The command that starts the server in the foreground; `sh` reads it, and it must not fork away.
    pub start: String,
    /// Where the server's output goes; nowhere when `None`.
    pub log: Option<PathBuf>,
    /// Who is killed.
    pub victim: Victim,
    /// The file whose first line is the process id of PostgreSQL: `postmaster.pid`.
    pub database_pid_file: Option<PathBuf>,
    /// Starts the database again, where the server does not do so itself.
    pub database_start: Option<String>,
    /// How often.
    pub kills: usize,
    /// Load lasts between these before a kill.
    pub load: (Duration, Duration),
    /// How long a start may take.
    pub ready: Duration,
    /// How many documents.
    pub documents: usize,
    /// Writing clients per document and dialect.
    pub writers: usize,
    /// Updates a second, all writers together.
    pub rate: f64,
    /// The server's `/metrics`, to see whether anything was quarantined: all that is written here is sound.
    pub metrics: Option<String>,
    /// Of the random moments.
    pub seed: u64,
    /// Whether to print a line a round.
    pub progress: bool,
}

/// The outcome.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Always `durability`.
    pub scenario: &'static str,
    /// Who was killed.
    pub victim: Victim,
    /// How often.
    pub kills: usize,
    /// Of the random moments.
    pub seed: u64,
    /// Tokens sent.
    pub sent: usize,
    /// Tokens acknowledged or seen.
    pub owed: usize,
    /// Owed tokens that were missing after some restart.
    pub lost: usize,
    /// Of these, acknowledged to their sender.
    pub lost_acknowledged: usize,
    /// Tokens that stood twice in a document.
    pub duplicated: usize,
    /// Characters that belong to no token.
    pub torn: usize,
    /// Documents that clients of two dialects read differently.
    pub differing: usize,
    /// The first lost tokens, with the round in which each was missed.
    pub examples: Vec<String>,
    /// What the server refused to writers, each complaint once. No loss: what is refused is not acknowledged.
    pub faults: BTreeSet<String>,
    /// Rows that the server's own metrics counted as quarantined; `None` where they were not asked.
    pub quarantined: Option<f64>,
    /// From start to a synced client, in milliseconds: median and worst.
    pub restart_ms_p50: f64,
    /// See above.
    pub restart_ms_max: f64,
}

/// Why the rounds could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum DurabilityError {
    /// The command did not lead to a server that syncs a client.
    #[error("the server was not ready within {0:?}: {1}")]
    NotReady(Duration, String),
    /// The server ended by itself.
    #[error("the server ended by itself: {0}")]
    Ended(std::process::ExitStatus),
    /// The database's process is not known.
    #[error("no process id of the database in {0}")]
    NoDatabase(PathBuf),
    /// `--kill database|both` without a file to find it by.
    #[error("killing the database needs --database-pid-file")]
    NoPidFile,
    /// A document could not be read after a restart.
    #[error("document {document} could not be read by dialect {dialect:?}: {why}")]
    Unreadable {
        /// Its number.
        document: usize,
        /// The dialect of the reader.
        dialect: Dialect,
        /// What was heard last.
        why: String,
    },
    /// The server's metrics cannot be read.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A process could not be killed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The machine said no.
    #[error("the generator's own files, timer or processes failed")]
    Io(#[from] std::io::Error),
}

/// Carries `plan` out over every access that `accesses` answers. It is asked until it has an answer after the first
/// start, which may be what makes the token. Needs a `LocalSet`.
pub async fn run(plan: &Plan, accesses: impl Fn() -> Result<Vec<Access>, String>) -> Result<Verdict, DurabilityError> {
    if plan.victim != Victim::Server && plan.database_pid_file.is_none() {
        return Err(DurabilityError::NoPidFile);
    }
    let mut random = rand::rngs::StdRng::seed_from_u64(plan.seed);
    // Not from the seed: the same name in a second run would find the first one's document.
    let prefix = format!("du-{:08x}", rand::random::<u32>());
    let (mut server, accesses) = Server::first(plan, accesses, &format!("{prefix}-0")).await?;
    let accesses = accesses.as_slice();
    let mut round = Round {
        plan,
        accesses,
        prefix,
        ledger: Rc::default(),
        faults: Rc::default(),
        next_client: u64::from(rand::random_range(1_000_000u32..1 << 30)),
    };
    let mut totals = Totals::default();
    for number in 1..=plan.kills {
        let load = random.random_range(plan.load.0..=plan.load.1.max(plan.load.0));
        let hearing = round.load(load).await?;
        totals.quarantined += quarantined(plan).await?; // counted since the last start, and gone with the process
        server.kill(plan)?;
        round.silence(hearing, plan.victim == Victim::Database).await;
        server = server.revive(plan, accesses, &round.name(0)).await?;
        totals.restarts.push(server.ready_ms);
        let before = totals.lost.len();
        for document in 0..plan.documents {
            round.read(document, number, &mut totals).await?;
        }
        if plan.progress {
            let (sent, owed) = round.ledger.borrow().totals();
            report::progress(&format!(
                "  kill {number} of {} after {} ms: {sent} tokens sent, {owed} owed, {} lost now; ready again in {:.0} ms",
                plan.kills,
                load.as_millis(),
                totals.lost.len() - before,
                server.ready_ms
            ));
        }
    }
    totals.quarantined += quarantined(plan).await?;
    server.end().await?;
    let (sent, owed) = round.ledger.borrow().totals();
    let worst = totals.restarts.iter().copied().fold(0.0, f64::max);
    Ok(Verdict {
        scenario: "durability",
        victim: plan.victim,
        kills: plan.kills,
        seed: plan.seed,
        sent,
        owed,
        lost: totals.lost.len(),
        lost_acknowledged: totals.lost.values().filter(|promise| **promise == Promise::Acknowledged).count(),
        duplicated: totals.duplicated.len(),
        torn: totals.torn,
        differing: totals.differing,
        examples: totals.examples,
        faults: round.faults.borrow().clone(),
        quarantined: plan.metrics.is_some().then_some(totals.quarantined),
        restart_ms_p50: crate::measure::median(totals.restarts).unwrap_or(0.0),
        restart_ms_max: worst,
    })
}

/// What the server counts as quarantined.
async fn quarantined(plan: &Plan) -> Result<f64, MetricsError> {
    match &plan.metrics {
        Some(address) => Ok(metrics::scrape(address).await?.sum("quarantine")),
        None => Ok(0.0),
    }
}

/// Over all rounds; what is missed in every round and by every dialect counts once.
#[derive(Default)]
struct Totals {
    lost: HashMap<String, Promise>,
    duplicated: HashSet<String>,
    torn: usize,
    differing: usize,
    examples: Vec<String>,
    restarts: Vec<f64>,
    quarantined: f64,
}

impl Totals {
    fn take(&mut self, findings: Findings, kill: usize, document: &str) {
        self.torn = self.torn.max(findings.torn);
        self.duplicated.extend(findings.duplicated);
        for (token, promise) in findings.lost {
            if self.examples.len() < EXAMPLES_MAX && !self.lost.contains_key(&token) {
                self.examples.push(format!("kill {kill}, {document}: {token} was {promise:?}"));
            }
            self.lost.insert(token, promise);
        }
    }
}

struct Round<'a> {
    plan: &'a Plan,
    accesses: &'a [Access],
    prefix: String,
    ledger: Rc<RefCell<Ledger>>,
    next_client: u64,
    /// What was refused, each complaint once.
    faults: Rc<RefCell<BTreeSet<String>>>,
}

/// Writers at work, and the tasks that hear for them.
struct Hearing {
    links: Vec<Link>,
    tasks: JoinSet<()>,
}

impl Round<'_> {
    fn name(&self, document: usize) -> String {
        format!("{}-{document}", self.prefix)
    }

    /// Opens fresh writers on every document in every dialect and lets them write for `load`.
    async fn load(&mut self, load: Duration) -> Result<Hearing, DurabilityError> {
        let mut hearing = Hearing { links: Vec::new(), tasks: JoinSet::new() };
        let mut writers = Vec::new();
        let mut syncing = Vec::new();
        for document in 0..self.plan.documents {
            for access in self.accesses {
                for _ in 0..self.plan.writers {
                    let client = self.next_client;
                    self.next_client += 1;
                    self.ledger.borrow_mut().join(client, document);
                    let (synced, is_synced) = oneshot::channel();
                    let ears = Ears {
                        ledger: Rc::clone(&self.ledger),
                        own: client,
                        dialect: access.dialect,
                        received: HashMap::new(),
                        synced: Some(synced),
                        faults: Rc::clone(&self.faults),
                    };
                    let link = self.open(access, document, ears, &mut hearing.tasks).await?;
                    hearing.links.push(link.clone());
                    writers.push((client, link));
                    syncing.push(is_synced);
                }
            }
        }
        for is_synced in syncing {
            let synced = tokio::time::timeout(self.plan.ready, is_synced).await;
            if !matches!(synced, Ok(Ok(()))) {
                return Err(DurabilityError::NotReady(self.plan.ready, "a writer was not synced".to_owned()));
            }
        }
        let start = Instant::now();
        let mut alarm = Alarm::new()?;
        for number in 0u64.. {
            let due = start + Duration::from_secs_f64(number as f64 / self.plan.rate);
            if due >= start + load {
                break;
            }
            if due > Instant::now() || number.is_multiple_of(64) {
                alarm.until(due).await?;
            }
            let (client, link) = &writers[(number % writers.len() as u64) as usize];
            let next = self.ledger.borrow_mut().next(*client);
            if let Some((clock, token)) = next {
                link.send_update(&update::append_text(*client, clock, &token));
            }
        }
        Ok(hearing)
    }

    async fn open(
        &self,
        access: &Access,
        document: usize,
        mut ears: Ears,
        tasks: &mut JoinSet<()>,
    ) -> Result<Link, DurabilityError> {
        let name = self.name(document);
        let failed = |error: client::ClientError| DurabilityError::NotReady(self.plan.ready, error.to_string());
        let token = client::admit(access, &name).await.map_err(failed)?;
        let opened = client::connect(access, &name, token.as_deref(), &update::EMPTY_STATE_VECTOR).await;
        let (incoming, link) = opened.map_err(failed)?;
        let hears = link.clone();
        tasks.spawn_local(async move {
            client::listen(incoming, hears, &mut ears).await;
        });
        Ok(link)
    }

    /// Hears to the end what the killed server had sent. One that lives on gets a moment, then the writers go.
    async fn silence(&self, mut hearing: Hearing, server_lives: bool) {
        if server_lives {
            tokio::time::sleep(AFTERMATH).await;
            hearing.links.iter().for_each(|link| link.close());
        }
        let all = async { while hearing.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(5), all).await;
        hearing.tasks.abort_all();
    }

    /// Reads a document by a fresh client of each dialect and holds it against the ledger.
    async fn read(&self, document: usize, number: usize, totals: &mut Totals) -> Result<(), DurabilityError> {
        let until = Instant::now() + AGREEMENT_PATIENCE;
        loop {
            let mut texts: Vec<String> = Vec::new();
            for access in self.accesses {
                texts.push(self.read_by(access, document).await?);
            }
            for text in &texts {
                let findings = self.ledger.borrow_mut().check(document, text);
                totals.take(findings, number, &self.name(document));
            }
            if texts.iter().all(|text| *text == texts[0]) {
                return Ok(());
            }
            // A server that outlived its database may still commit what it held: no difference of dialects.
            if Instant::now() >= until {
                totals.differing += 1;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn read_by(&self, access: &Access, document: usize) -> Result<String, DurabilityError> {
        let until = Instant::now() + self.plan.ready;
        loop {
            match read_text(access, &self.name(document)).await {
                Ok(text) => return Ok(text),
                Err(why) if Instant::now() >= until => {
                    return Err(DurabilityError::Unreadable { document, dialect: access.dialect, why });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// A document's text as a fresh client gets it with the first step 2.
pub async fn read_text(access: &Access, name: &str) -> Result<String, String> {
    let words = |error: client::ClientError| error.to_string();
    let token = client::admit(access, name).await.map_err(words)?;
    let opened = client::connect(access, name, token.as_deref(), &update::EMPTY_STATE_VECTOR).await;
    let (incoming, link) = opened.map_err(words)?;
    let (synced, is_synced) = oneshot::channel();
    let options = Options { offset_kind: OffsetKind::Utf16, ..Options::default() };
    let doc = Rc::new(RefCell::new(Doc::with_options(options)));
    let mut reader = Reader { doc: Rc::clone(&doc), broken: Rc::default(), synced: Some(synced) };
    let broken = Rc::clone(&reader.broken);
    let hears = link.clone();
    let listening = tokio::task::spawn_local(async move { client::listen(incoming, hears, &mut reader).await });
    let outcome = tokio::time::timeout(READ_PATIENCE, is_synced).await;
    link.close();
    if !matches!(outcome, Ok(Ok(()))) {
        listening.abort();
        return Err(format!("not synced within {READ_PATIENCE:?}: {}", broken.borrow()));
    }
    listening.abort();
    if !broken.borrow().is_empty() {
        return Err(broken.borrow().clone());
    }
    let doc = doc.borrow();
    let mut txn = doc.try_transact_mut().map_err(|error| error.to_string())?;
    Ok(txn.get_or_insert_text(update::ROOT).get_string(&txn))
}

/// A client that only reads, with a real document.
struct Reader {
    doc: Rc<RefCell<Doc>>,
    broken: Rc<RefCell<String>>,
    synced: Option<oneshot::Sender<()>>,
}

impl Listener for Reader {
    fn asked(&mut self, _state_vector: &[u8]) -> Vec<u8> {
        update::EMPTY.to_vec()
    }

    fn content(&mut self, update: &[u8]) {
        let doc = self.doc.borrow();
        let applied = Update::decode_v1(update).map_err(|error| error.to_string()).and_then(|update| {
            let mut txn = doc.try_transact_mut().map_err(|error| error.to_string())?;
            txn.apply_update(update).map_err(|error| error.to_string())
        });
        if let Err(error) = applied {
            *self.broken.borrow_mut() = error;
        }
    }

    fn synced(&mut self) {
        if let Some(synced) = self.synced.take() {
            let _ = synced.send(()); // the reader may have given up
        }
    }

    fn refused(&mut self, why: String) {
        *self.broken.borrow_mut() = why;
        self.synced = None; // who is refused while opening is not synced any more
    }
}

/// A writer's ears: everything they hear goes into the ledger.
struct Ears {
    ledger: Rc<RefCell<Ledger>>,
    own: u64,
    dialect: Dialect,
    received: HashMap<u64, Received>,
    synced: Option<oneshot::Sender<()>>,
    faults: Rc<RefCell<BTreeSet<String>>>,
}

impl Listener for Ears {
    fn asked(&mut self, _state_vector: &[u8]) -> Vec<u8> {
        update::EMPTY.to_vec()
    }

    fn content(&mut self, update: &[u8]) {
        let mut ledger = self.ledger.borrow_mut();
        let readable = update::ranges(update, |Range { client, clock, len }| {
            let promise = match (client == self.own, self.dialect) {
                (false, _) => Promise::Seen,
                (true, Dialect::A) => Promise::Acknowledged,
                (true, _) => return, // these are acknowledged in words
            };
            self.received.entry(client).or_default().take(clock, len, |clocks| {
                ledger.received(client, clocks, promise);
            });
        });
        if !readable {
            self.faults.borrow_mut().insert("an update that cannot be read".to_owned());
        }
    }

    fn synced(&mut self) {
        if let Some(synced) = self.synced.take() {
            let _ = synced.send(()); // the opener may have given up
        }
    }

    fn acknowledged(&mut self, updates: u64) {
        self.ledger.borrow_mut().acknowledged(self.own, updates as usize);
    }

    fn refused(&mut self, why: String) {
        self.faults.borrow_mut().insert(why);
        self.synced = None; // who is refused while opening is not synced any more
    }
}
