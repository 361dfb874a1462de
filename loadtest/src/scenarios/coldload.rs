//! coldload: a real document's making, keystroke by keystroke, then its first load after a restart, then a warm one.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Common, ScenarioResult};
use crate::alarm::Alarm;
use crate::bench::Bench;
use crate::client::{self, Access, Link, Listener, Traffic};
use crate::engine::mib;
use crate::launch::{LaunchArgs, Launched, connect_patiently};
use crate::metrics::{self, Own};
use crate::outcome::{Line, Outcome, Plot, median};
use crate::process;
use crate::reader;
use crate::received::Received;
use crate::trace::{self, Script, Trace};
use crate::wire::dialect::Dialect;
use crate::wire::update::{self, Range};

/// Updates in one write: a stream of keystrokes, as fast as the socket takes them.
const UPDATES_PER_WRITE: usize = 64;
/// While the socket takes no more.
const FULL_PAUSE: Duration = Duration::from_micros(200);
/// The longest time that a server may take between two acknowledgements.
const STALL_PATIENCE: Duration = Duration::from_secs(30);
/// A server that was just started finishes its own beginnings.
const SETTLE: Duration = Duration::from_secs(1);

/// A document's making and its loads.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What every scenario shares.
    #[command(flatten)]
    pub common: Common,
    /// How the server is started.
    #[command(flatten)]
    pub launch: LaunchArgs,
    /// A trace in the editing-traces form, .json or .json.gz; made up from --seed where not given.
    #[arg(long)]
    pub trace: Option<PathBuf>,
    /// Play only so many edits.
    #[arg(long)]
    pub edits: Option<usize>,
    /// Of a made-up trace.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Warm loads; the median counts.
    #[arg(long, default_value_t = 5)]
    pub warm: usize,
    /// Load so many copies of the document after the restart, for the memory of each.
    #[arg(long, default_value_t = 0)]
    pub copies: usize,
    /// End the server with SIGKILL instead of SIGTERM before the restart.
    #[arg(long)]
    pub kill: bool,
}

/// Carries it out once.
pub async fn run(args: &Args, bench: &Bench) -> ScenarioResult {
    let mut trace = match &args.trace {
        Some(file) => Trace::read(file)?,
        None => Trace::generate(trace::EDITS, args.seed),
    };
    trace.cut(args.edits.unwrap_or(usize::MAX));
    bench.progress.at(|| format!("writing {} updates of {}", trace.edits.len(), trace.source));
    let client = u64::from(rand::random_range(1_000_000u32..1 << 30));
    let script = Script::write(&trace, client)?;
    let name = format!("cl-{:08x}", rand::random::<u32>());

    let patience = args.launch.patience();
    let mut server = match &args.launch.start {
        Some(_) => Some(Launched::spawn(&args.launch, bench.server_cpu())?),
        None => None,
    };
    let accesses = match &mut server {
        Some(server) => server.wait_synced(bench, &format!("{name}-before"), patience).await?,
        None => bench.accesses()?,
    };
    let access = &accesses[0];

    let mut outcome = Outcome::new(
        "coldload",
        format!("{} updates, {} characters in the end", script.len(), script.end.chars().count()),
    );
    outcome.notes.push(format!("trace: {}", trace.source));
    let before = bench.scrape().await?;
    let fed = feed(access, &name, &script, client, bench).await?;
    outcome.checks = metrics::checks(&bench.scrape().await?.since(&before), &fed.own);
    outcome.figures.set("feed_s", fed.took.as_secs_f64());
    outcome.figures.set("feed_rate", script.len() as f64 / fed.took.as_secs_f64());
    outcome.plots.push(Plot {
        title: "Updates acknowledged over time",
        x: "s",
        y: "updates",
        log: (false, false),
        lines: vec![Line::new("acknowledged", fed.curve)],
    });
    check_text(access, &name, &script.end, "before the restart", &mut outcome).await?;
    let copies = copy(access, &name, args.copies, bench).await?;

    match server.take() {
        Some(server) => {
            let server = restart(server, args, bench, &name, access).await?;
            loads(args, bench, access, &name, &script, &mut outcome).await?;
            if !copies.is_empty() {
                weigh(&server, access, &copies, &mut outcome).await?;
            }
            server.end().await?;
        }
        None => {
            outcome.notes.push("no --start: the server was not restarted, so there is no cold load".to_owned());
            warm(args, bench, access, &name, &mut outcome).await?;
        }
    }
    outcome.figures.count("updates", script.len());
    outcome.figures.set("load_average", process::load_average());
    Ok(outcome)
}

struct Fed {
    took: Duration,
    /// Seconds and updates acknowledged.
    curve: Vec<(f64, f64)>,
    own: Own,
}

/// Plays the script by one writer, as fast as the server takes it, until the last update is acknowledged.
async fn feed(
    access: &Access,
    name: &str,
    script: &Script,
    client: u64,
    bench: &Bench,
) -> Result<Fed, Box<dyn std::error::Error>> {
    let token = client::admit(access, name).await?;
    let traffic = Rc::new(Traffic::default());
    let empty = &update::EMPTY_STATE_VECTOR;
    let opened = client::connect_counted(access, name, token.as_deref(), empty, Rc::clone(&traffic)).await?;
    let (incoming, link) = opened;
    let (synced, is_synced) = oneshot::channel();
    let acknowledged = Rc::new(Acknowledged::default());
    let mut ears = Ears {
        acknowledged: Rc::clone(&acknowledged),
        dialect: access.dialect,
        client,
        received: Received::default(),
        last_clock: script.last_clock,
        updates: script.len() as u64,
        synced: Some(synced),
    };
    let hears = link.clone();
    let listening = tokio::task::spawn_local(async move { client::listen(incoming, hears, &mut ears).await });
    if is_synced.await.is_err() {
        return Err(format!("the writer was not synced: {}", acknowledged.fault.borrow()).into());
    }
    let mut alarm = Alarm::new()?;
    let began = Instant::now();
    let mut curve = vec![(0.0, 0.0)];
    let mut look = |force: bool| {
        let at = began.elapsed().as_secs_f64();
        let done = acknowledged.share.get() * script.len() as f64;
        if force || curve.last().is_none_or(|(last, _)| at - last >= 0.1) {
            curve.push((at, done));
            bench.progress.at(|| format!("{done:.0} of {} updates acknowledged after {at:.1} s", script.len()));
        }
    };
    let updates: Vec<&[u8]> = script.updates().collect();
    for batch in updates.chunks(UPDATES_PER_WRITE) {
        link.send_updates(batch.iter().copied());
        tokio::task::yield_now().await;
        while !link.is_flushed() && !link.is_closed() {
            alarm.until(Instant::now() + FULL_PAUSE).await?;
            look(false);
        }
        look(false);
    }
    let mut moved = (Instant::now(), acknowledged.share.get());
    while !acknowledged.all.get() {
        if link.is_closed() || listening.is_finished() {
            return Err(format!("the writer's connection ended: {}", ended(listening, &acknowledged).await).into());
        }
        alarm.until(Instant::now() + FULL_PAUSE).await?;
        look(false);
        if acknowledged.share.get() > moved.1 {
            moved = (Instant::now(), acknowledged.share.get());
        } else if moved.0.elapsed() > STALL_PATIENCE {
            let share = 100.0 * moved.1;
            return Err(format!("no acknowledgement for {STALL_PATIENCE:?}, {share:.1} % are acknowledged").into());
        }
    }
    let took = began.elapsed();
    look(true);
    link.close();
    let own = Own {
        messages_sent: traffic.messages_sent.get(),
        updates_sent: script.len() as u64,
        update_messages_received: traffic.update_messages.get(),
    };
    Ok(Fed { took, curve, own })
}

async fn ended(listening: tokio::task::JoinHandle<String>, acknowledged: &Acknowledged) -> String {
    let fault = acknowledged.fault.borrow().clone();
    if fault.is_empty() { listening.await.unwrap_or_default() } else { fault }
}

/// A fresh client must get the text that the trace ends with.
async fn check_text(
    access: &Access,
    name: &str,
    end: &str,
    when: &str,
    outcome: &mut Outcome,
) -> Result<(), Box<dyn std::error::Error>> {
    let text = reader::read_text(access, name).await?;
    report_text(&text, end, when, outcome);
    Ok(())
}

fn report_text(text: &str, end: &str, when: &str, outcome: &mut Outcome) {
    let mut missing = 0;
    if text != end {
        missing = end.chars().count().saturating_sub(text.chars().count()).max(1);
        outcome.faults.push(format!(
            "{when} a fresh client got {} characters instead of {}, or others",
            text.chars().count(),
            end.chars().count()
        ));
    }
    let before = outcome.figures.get("missing").unwrap_or(0.0);
    outcome.figures.set("missing", before.max(missing as f64));
}

async fn restart(
    mut server: Launched,
    args: &Args,
    bench: &Bench,
    name: &str,
    access: &Access,
) -> Result<Launched, Box<dyn std::error::Error>> {
    bench.progress.at(|| "restarting the server".to_owned());
    if args.kill {
        server.kill()?;
        server.wait().await?;
    } else {
        server.end().await?;
    }
    let mut server = Launched::spawn(&args.launch, bench.server_cpu())?;
    server.wait_accepting(&access.target.authority, args.launch.patience()).await?;
    // Another document, so that connections to the database and the token are as on a server that is in use.
    server.wait_synced(bench, &format!("{name}-after"), args.launch.patience()).await?;
    tokio::time::sleep(SETTLE).await;
    Ok(server)
}

/// The cold load, then the warm ones.
async fn loads(
    args: &Args,
    bench: &Bench,
    access: &Access,
    name: &str,
    script: &Script,
    outcome: &mut Outcome,
) -> Result<(), Box<dyn std::error::Error>> {
    let before = bench.scrape().await?;
    let cold = reader::read(access, name).await?;
    outcome.moved = bench.scrape().await?.since(&before);
    let loading = outcome.moved.get("contextnexus_load_seconds_sum").map(|seconds| seconds * 1e3);
    outcome.figures.set("cold_server_ms", loading);
    outcome.figures.set("cold_ms", cold.sync.as_secs_f64() * 1e3);
    warm(args, bench, access, name, outcome).await?;
    outcome.figures.set("sync_kib", cold.updates.iter().map(Vec::len).sum::<usize>() as f64 / 1_024.0);
    cold.link.close();
    report_text(&reader::text(&cold.updates)?, &script.end, "after the restart", outcome);
    Ok(())
}

async fn warm(
    args: &Args,
    bench: &Bench,
    access: &Access,
    name: &str,
    outcome: &mut Outcome,
) -> Result<(), Box<dyn std::error::Error>> {
    let keeper = reader::read(access, name).await?; // holds the document while the others come and go
    let mut times = Vec::new();
    let before = bench.scrape().await?;
    for _ in 0..args.warm.max(1) {
        let read = reader::read(access, name).await?;
        times.push(read.sync.as_secs_f64() * 1e3);
        read.link.close();
    }
    keeper.link.close();
    let moved = bench.scrape().await?.since(&before);
    let of_one = |seconds: &f64| seconds * 1e3 / times.len() as f64;
    outcome.figures.set("warm_server_ms", moved.get("contextnexus_join_seconds_sum").map(of_one));
    outcome.figures.set("warm_ms", median(times));
    Ok(())
}

/// Puts the whole document into others, in one update each; answers their names.
async fn copy(
    access: &Access,
    name: &str,
    copies: usize,
    bench: &Bench,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut names = Vec::new();
    if copies == 0 {
        return Ok(names);
    }
    let original = reader::read(access, name).await?;
    original.link.close();
    let text = reader::text(&original.updates)?;
    for number in 0..copies {
        let copy = format!("{name}-copy-{number}");
        let writer = reader::read(access, &copy).await?;
        writer.link.send_updates(original.updates.iter().map(Vec::as_slice));
        connect_patiently(STALL_PATIENCE, async || match reader::read_text(access, &copy).await? {
            there if there == text => Ok(()),
            _ => Err("the copy did not become what the original is".to_owned()),
        })
        .await?;
        writer.link.close();
        names.push(copy);
        bench.progress.at(|| format!("{} of {copies} copies", number + 1));
    }
    Ok(names)
}

/// Loads the copies and keeps them open, for what each takes.
async fn weigh(
    server: &Launched,
    access: &Access,
    copies: &[String],
    outcome: &mut Outcome,
) -> Result<(), Box<dyn std::error::Error>> {
    let pids: Vec<u32> = server.pid().into_iter().collect();
    let before = process::usage(&pids)?;
    let mut readers: Vec<Link> = Vec::new();
    for copy in copies {
        readers.push(reader::read(access, copy).await?.link);
    }
    tokio::time::sleep(SETTLE).await;
    let grown = process::usage(&pids)?.memory_bytes_own().saturating_sub(before.memory_bytes_own());
    outcome.figures.set("document_mib", mib(grown) / copies.len() as f64);
    readers.iter().for_each(Link::close);
    Ok(())
}

/// How far the server has come.
#[derive(Default)]
struct Acknowledged {
    /// Of all updates, 0 to 1.
    share: Cell<f64>,
    all: Cell<bool>,
    fault: RefCell<String>,
}

struct Ears {
    acknowledged: Rc<Acknowledged>,
    dialect: Dialect,
    client: u64,
    received: Received,
    last_clock: u32,
    updates: u64,
    synced: Option<oneshot::Sender<()>>,
}

impl Listener for Ears {
    fn asked(&mut self, _state_vector: &[u8]) -> Vec<u8> {
        update::EMPTY.to_vec()
    }

    /// In y-websocket the echo is the acknowledgement. Deletions have no clocks of their own, so the last update is an
    /// insertion.
    fn content(&mut self, update: &[u8]) {
        if self.dialect != Dialect::YWebsocket {
            return;
        }
        let readable = update::ranges(update, |Range { client, clock, len }| {
            if client == self.client {
                self.received.take(clock, len, |clocks| {
                    let share = f64::from(clocks.end) / f64::from(self.last_clock + 1);
                    self.acknowledged.share.set(share.max(self.acknowledged.share.get()));
                });
            }
        });
        if !readable {
            *self.acknowledged.fault.borrow_mut() = "an update that cannot be read".to_owned();
        }
        if self.received.has_all_below(self.last_clock + 1) {
            self.acknowledged.all.set(true);
        }
    }

    fn synced(&mut self) {
        if let Some(synced) = self.synced.take() {
            let _ = synced.send(()); // the writer may have given up
        }
    }

    fn acknowledged(&mut self, updates: u64) {
        self.acknowledged.share.set(updates as f64 / self.updates as f64);
        self.acknowledged.all.set(updates >= self.updates);
    }

    fn refused(&mut self, why: String) {
        *self.acknowledged.fault.borrow_mut() = why;
        self.synced = None; // who is refused while opening is not synced any more
    }
}
