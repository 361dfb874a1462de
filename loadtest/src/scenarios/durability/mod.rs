//! Kill and count: whether a server keeps what it acknowledged or showed, when it is killed at any moment.
//!
//! Each round starts the server, writes unique tokens through fresh clients, kills the server (or its database, or
//! both) with SIGKILL at a random moment and never lets those writers return. After the restart fresh clients of every
//! dialect read every document, and the ledger says what is missing.

mod ledger;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use ledger::{Findings, Ledger, Promise};

use super::{Common, ScenarioResult};
use crate::alarm::Alarm;
use crate::bench::{Bench, BenchError};
use crate::client::{self, Access, Link, Listener};
use crate::launch::{LaunchArgs, LaunchError, Launched, connect_patiently};
use crate::outcome::{Line, Outcome, Plot, median};
use crate::process::{self, ProcessError};
use crate::reader::read_text;
use crate::received::Received;
use crate::wire::dialect::Dialect;
use crate::wire::update::{self, Range};

/// What a server that lives on may still acknowledge after its database was killed, before the writers go for good.
const AFTERMATH: Duration = Duration::from_millis(500);
/// How long clients of two dialects may read a document differently after a restart.
const AGREEMENT_PATIENCE: Duration = Duration::from_secs(10);
/// Lost tokens that the report names.
const EXAMPLES_MAX: usize = 10;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Victim {
    /// The server's process.
    Server,
    /// The process that leads its PostgreSQL.
    Database,
    /// Both, the database first.
    Both,
}

/// Kill and count.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What every scenario shares.
    #[command(flatten)]
    pub common: Common,
    /// How the server is started.
    #[command(flatten)]
    pub launch: LaunchArgs,
    /// Who is killed.
    #[arg(long, value_enum, default_value = "server")]
    pub kill: Victim,
    /// PostgreSQL's postmaster.pid, to kill it by.
    #[arg(long)]
    pub database_pid_file: Option<PathBuf>,
    /// The command that starts the database again, where the server does not do so itself.
    #[arg(long)]
    pub database_start: Option<String>,
    /// How often.
    #[arg(long, default_value_t = 20)]
    pub kills: usize,
    /// Seconds of load before a kill: at least.
    #[arg(long, default_value_t = 0.05)]
    pub min_load: f64,
    /// Seconds of load before a kill: at most.
    #[arg(long, default_value_t = 2.0)]
    pub max_load: f64,
    /// How many documents.
    #[arg(long, default_value_t = 10)]
    pub documents: usize,
    /// Writing clients per document and dialect.
    #[arg(long, default_value_t = 2)]
    pub writers: usize,
    /// Updates a second, all writers together.
    #[arg(long, default_value_t = 2_000.0)]
    pub rate: f64,
    /// Of the random moments; random where not given, and in the report.
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many owed tokens may be missing.
    #[arg(long, default_value_t = 0)]
    pub max_loss: usize,
}

/// Why the rounds could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum DurabilityError {
    /// The server did not start, or ended by itself.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The database's process is not known.
    #[error("no process id of the database in {0}")]
    NoDatabase(PathBuf),
    /// `--kill database|both` without a file to find it by.
    #[error("killing the database needs --database-pid-file")]
    NoPidFile,
    /// The database's start failed.
    #[error("the database's start ended with {0}")]
    DatabaseStart(std::process::ExitStatus),
    /// A document could not be read after a restart.
    #[error("document {document} could not be read by a {dialect} client: {why}")]
    Unreadable {
        /// Its number.
        document: usize,
        /// The dialect of the reader.
        dialect: Dialect,
        /// What was heard last.
        why: String,
    },
    /// The server's metrics or credentials cannot be read.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A process could not be killed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The machine said no.
    #[error("the generator's own files, timer or processes failed")]
    Io(#[from] std::io::Error),
}

/// Carries the rounds out.
pub async fn run(args: &Args, bench: &Bench) -> ScenarioResult {
    if args.kill != Victim::Server && args.database_pid_file.is_none() {
        return Err(DurabilityError::NoPidFile.into());
    }
    let load_min = Duration::try_from_secs_f64(args.min_load)?;
    let load_max = Duration::try_from_secs_f64(args.max_load)?.max(load_min);
    let seed = args.seed.unwrap_or_else(rand::random);
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    // Not from the seed: the same name in a second run would find the first one's document.
    let prefix = format!("du-{:08x}", rand::random::<u32>());
    let cpu = bench.server_cpu();
    let mut server = Launched::spawn(&args.launch, cpu)?;
    let accesses = server.wait_synced(bench, &format!("{prefix}-0"), args.launch.patience()).await?;
    let mut round = Round {
        args,
        accesses: &accesses,
        prefix,
        ledger: Rc::default(),
        faults: Rc::default(),
        next_client: u64::from(rand::random_range(1_000_000u32..1 << 30)),
    };
    let mut totals = Totals::default();
    for number in 1..=args.kills {
        let load = random.random_range(load_min..=load_max);
        let hearing = round.load(load).await?;
        totals.load += hearing.began.elapsed();
        totals.quarantined += quarantined(bench).await?; // counted since the last start, and gone with the process
        kill(&mut server, args)?;
        round.silence(hearing, args.kill == Victim::Database).await;
        server = revive(server, args, bench, &round.name(0)).await?;
        let restart_ms = server.at.elapsed().as_secs_f64() * 1e3;
        totals.restarts.push(restart_ms);
        let before = totals.lost.len();
        for document in 0..args.documents {
            round.read(document, number, &mut totals).await?;
        }
        let (sent, owed) = round.ledger.borrow().totals();
        bench.progress.note(&format!(
            "kill {number} of {} after {} ms: {sent} tokens sent, {owed} owed, {} lost now; ready again in {restart_ms:.0} ms",
            args.kills,
            load.as_millis(),
            totals.lost.len() - before,
        ));
    }
    totals.quarantined += quarantined(bench).await?;
    server.end().await?;
    let shape = format!(
        "{} kills of {:?}, {} documents x {} writers of each dialect, {}/s",
        args.kills, args.kill, args.documents, args.writers, args.rate
    );
    Ok(round.report(totals, shape, seed, bench))
}

/// SIGKILL to whom the arguments name. Does not wait.
fn kill(server: &mut Launched, args: &Args) -> Result<(), DurabilityError> {
    if args.kill != Victim::Server {
        process::kill(database_pid(args)?)?;
    }
    if args.kill != Victim::Database {
        server.kill()?;
    }
    Ok(())
}

/// Brings back what was killed and waits until it serves again.
async fn revive(mut server: Launched, args: &Args, bench: &Bench, document: &str) -> Result<Launched, DurabilityError> {
    if args.kill != Victim::Server
        && let Some(start) = &args.database_start
    {
        let status = Command::new("sh").arg("-c").arg(start).stdin(std::process::Stdio::null()).status().await?;
        if !status.success() {
            return Err(DurabilityError::DatabaseStart(status));
        }
    }
    if args.kill == Victim::Database {
        server.at = Instant::now();
    } else {
        server.wait().await?;
        server = Launched::spawn(&args.launch, bench.server_cpu())?;
    }
    server.wait_synced(bench, document, args.launch.patience()).await?;
    Ok(server)
}

fn database_pid(args: &Args) -> Result<u32, DurabilityError> {
    let file = args.database_pid_file.as_ref().ok_or(DurabilityError::NoPidFile)?;
    let text = std::fs::read_to_string(file)?;
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok());
    pid.ok_or_else(|| DurabilityError::NoDatabase(file.clone()))
}

/// What the server counts as quarantined.
async fn quarantined(bench: &Bench) -> Result<f64, BenchError> {
    Ok(bench.scrape().await?.sum("quarantine"))
}

/// Over all rounds; what is missed in every round and by every dialect counts once.
#[derive(Default)]
struct Totals {
    /// Time of sending.
    load: Duration,
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
    args: &'a Args,
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
    /// When the first update was sent.
    began: Instant,
}

impl Round<'_> {
    fn name(&self, document: usize) -> String {
        format!("{}-{document}", self.prefix)
    }

    /// Opens fresh writers on every document in every dialect and lets them write for `load`.
    async fn load(&mut self, load: Duration) -> Result<Hearing, DurabilityError> {
        let mut hearing = Hearing { links: Vec::new(), tasks: JoinSet::new(), began: Instant::now() };
        let mut writers = Vec::new();
        let mut syncing = Vec::new();
        for document in 0..self.args.documents {
            for access in self.accesses {
                for _ in 0..self.args.writers {
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
            let synced = tokio::time::timeout(self.args.launch.patience(), is_synced).await;
            if !matches!(synced, Ok(Ok(()))) {
                let why = "a writer was not synced".to_owned();
                return Err(LaunchError::NotReady(self.args.launch.patience(), why).into());
            }
        }
        let start = Instant::now();
        hearing.began = start;
        let mut alarm = Alarm::new()?;
        for number in 0u64.. {
            let due = start + Duration::from_secs_f64(number as f64 / self.args.rate);
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
        let failed = |error: client::ClientError| LaunchError::NotReady(self.args.launch.patience(), error.to_string());
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
        let name = self.name(document);
        let read = connect_patiently(self.args.launch.patience(), async || read_text(access, &name).await).await;
        let dialect = access.dialect;
        read.map_err(|error| DurabilityError::Unreadable { document, dialect, why: error.to_string() })
    }

    fn report(&self, totals: Totals, shape: String, seed: u64, bench: &Bench) -> Outcome {
        let (sent, owed) = self.ledger.borrow().totals();
        let mut outcome = Outcome::new("durability", shape);
        let figures = &mut outcome.figures;
        figures.count("kills", self.args.kills);
        figures.count("sent", sent);
        figures.count("owed", owed);
        figures.set("acknowledged_rate", self.ledger.borrow().acknowledged_total() as f64 / totals.load.as_secs_f64());
        figures.count("lost", totals.lost.len());
        let acknowledged = totals.lost.values().filter(|promise| **promise == Promise::Acknowledged).count();
        figures.count("lost_acknowledged", acknowledged);
        figures.count("duplicated", totals.duplicated.len());
        figures.count("torn", totals.torn);
        figures.count("differing", totals.differing);
        if bench.server.metrics.is_some() {
            figures.set("quarantined", totals.quarantined);
        }
        figures.set("restart_p50_ms", median(totals.restarts.iter().copied()));
        figures.set("restart_max_ms", totals.restarts.iter().copied().reduce(f64::max));
        outcome.notes.push(format!("seed {seed}"));
        // What is refused is not acknowledged, so it is no loss.
        outcome.notes.extend(self.faults.borrow().iter().map(|fault| format!("refused to a writer: {fault}")));
        let mut fault = |count: usize, words: &str| {
            if count > 0 {
                outcome.faults.push(format!("{count} {words}"));
            }
        };
        fault(if totals.lost.len() > self.args.max_loss { totals.lost.len() } else { 0 }, "owed tokens were lost");
        fault(totals.duplicated.len(), "tokens stand twice");
        fault(totals.torn, "characters belong to no token");
        fault(totals.differing, "documents were read differently by dialect");
        fault(totals.quarantined as usize, "sound rows were quarantined");
        outcome.faults.extend(totals.examples.iter().map(|example| format!("lost at {example}")));
        outcome.plots.push(Plot {
            title: "Restart to the first synced client",
            x: "kill",
            y: "ms",
            log: (false, false),
            lines: vec![Line::new(
                "restart",
                totals.restarts.iter().enumerate().map(|(kill, ms)| (kill as f64 + 1.0, *ms)).collect(),
            )],
        });
        outcome
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
                (true, Dialect::YWebsocket) => Promise::Acknowledged,
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
