//! Random edits by real Yjs documents, with disconnects and work offline; at the end all must be equal.

pub(super) mod editor;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;

use super::{Common, ScenarioResult};
use crate::bench::Bench;
use crate::client::{self, Access, ClientError, Link, Listener};
use crate::outcome::Outcome;
use crate::wire::dialect::Dialect;
use editor::Editor;

/// A handshake that takes longer has failed.
const SYNC_PATIENCE: Duration = Duration::from_secs(20);
/// Between two comparisons at the end.
const COMPARE_PAUSE: Duration = Duration::from_millis(50);

/// Random edits.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What every scenario shares.
    #[command(flatten)]
    pub common: Common,
    /// How many editors share the document; they take dialects and addresses in turn.
    #[arg(long, default_value_t = 8)]
    pub clients: usize,
    /// Edits of all together.
    #[arg(long, default_value_t = 1_000)]
    pub edits: usize,
    /// Edits a second of all together.
    #[arg(long, default_value_t = 200.0)]
    pub rate: f64,
    /// Chance that an edit's author disconnects before it, to go on offline for a while.
    #[arg(long, default_value_t = 0.02)]
    pub disconnect: f64,
    /// Seconds offline, at most; work goes on meanwhile.
    #[arg(long, default_value_t = 1.0)]
    pub offline: f64,
    /// Seconds after the last edit and reconnect until all must be equal.
    #[arg(long, default_value_t = 5.0)]
    pub settle: f64,
    /// Do not ask for the document by fresh clients at the end (the relay has none).
    #[arg(long)]
    pub no_fresh: bool,
    /// Of edits and disconnects; random where not given, and in the report.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Why the edits could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConvergeError {
    /// A client could not open the document.
    #[error("a {0} client could not open the document")]
    Open(Dialect, #[source] ClientError),
    /// A client's handshake came to no end.
    #[error("a {0} client was not synced: {1}")]
    NotSynced(Dialect, String),
    /// The generator's own document failed.
    #[error("the generator's own document failed: {0}")]
    Own(String),
}

/// Makes the edits and compares.
pub async fn run(args: &Args, bench: &Bench) -> ScenarioResult {
    let name = format!("co-{:08x}", rand::random::<u32>());
    let seed = args.seed.unwrap_or_else(rand::random);
    let settle_patience = Duration::try_from_secs_f64(args.settle)?;
    let offline = Duration::try_from_secs_f64(args.offline)?;
    let accesses = bench.accesses()?;
    let mut random = StdRng::seed_from_u64(seed);
    let faults = Rc::new(RefCell::new(Vec::new()));
    let mut people = Vec::new();
    for number in 0..args.clients {
        // Ids of both lengths that clients use today: 31 bits of Yjs 13, 53 bits of Yjs 14.
        let bits = if number % 2 == 0 { 31 } else { 53 };
        let client = rand::random_range(1..1u64 << bits);
        let editor = Rc::new(Editor::new(client).map_err(ConvergeError::Own)?);
        let access = &accesses[number % accesses.len()];
        let mut person = Person { access, editor, link: None, offline_until: None };
        person.connect(&name, &faults).await?;
        people.push(person);
    }

    let mut disconnects = 0usize;
    let start = Instant::now();
    for number in 0..args.edits {
        tokio::time::sleep_until((start + Duration::from_secs_f64(number as f64 / args.rate)).into()).await;
        for person in &mut people {
            if person.offline_until.is_some_and(|until| until <= Instant::now()) {
                person.connect(&name, &faults).await?;
            }
        }
        let person = random.random_range(0..people.len());
        let person = &mut people[person];
        if person.link.is_some() && random.random_bool(args.disconnect) {
            person.disconnect(offline.mul_f64(random.random::<f64>()));
            disconnects += 1;
        }
        person.edit(&mut random)?;
        bench.progress.at(|| format!("{} of {} edits, {disconnects} disconnects", number + 1, args.edits));
    }
    for person in &mut people {
        if person.link.as_ref().is_none_or(Link::is_closed) {
            person.connect(&name, &faults).await?;
        }
    }
    let (equal, settle_ms) = settle(&people, settle_patience).await?;
    let shape = format!("{} edits by {} clients at {}/s", args.edits, args.clients, args.rate);
    let mut outcome = Outcome::new("converge", shape);
    outcome.figures.set("settle_ms", settle_ms);
    outcome.figures.count("edits", args.edits);
    outcome.figures.count("disconnects", disconnects);
    outcome.figures.count("connections", args.clients);
    outcome.notes.push(format!("seed {seed}"));
    if !equal {
        outcome.faults.push(format!("not all were equal after {settle_ms:.0} ms"));
    }
    if !args.no_fresh && !fresh_equal(&people[0], &accesses, &name, settle_patience).await? {
        outcome.faults.push("a fresh client got something else".to_owned());
    }
    outcome.faults.extend(faults.borrow().iter().cloned());
    Ok(outcome)
}

/// Waits until all documents are equal, or no longer.
async fn settle(people: &[Person<'_>], patience: Duration) -> Result<(bool, f64), ConvergeError> {
    let began = Instant::now();
    loop {
        let mut all = people.iter().map(|person| person.editor.canonical().map_err(ConvergeError::Own));
        let Some(first) = all.next().transpose()? else { return Ok((true, 0.0)) };
        let mut equal = true;
        for other in all {
            equal &= other? == first;
        }
        let elapsed = began.elapsed();
        if equal || elapsed >= patience {
            return Ok((equal, elapsed.as_secs_f64() * 1e3));
        }
        tokio::time::sleep(COMPARE_PAUSE).await;
    }
}

/// A client of each dialect that knows nothing must get what `known` has.
async fn fresh_equal(
    known: &Person<'_>,
    accesses: &[Access],
    name: &str,
    patience: Duration,
) -> Result<bool, ConvergeError> {
    for access in accesses {
        let editor = Rc::new(Editor::new(rand::random_range(1..1u64 << 31)).map_err(ConvergeError::Own)?);
        let mut fresh = Person { access, editor, link: None, offline_until: None };
        fresh.connect(name, &Rc::default()).await?;
        let began = Instant::now();
        let wanted = known.editor.canonical().map_err(ConvergeError::Own)?;
        while fresh.editor.canonical().map_err(ConvergeError::Own)? != wanted {
            if began.elapsed() >= patience {
                return Ok(false);
            }
            tokio::time::sleep(COMPARE_PAUSE).await;
        }
        fresh.disconnect(Duration::ZERO);
    }
    Ok(true)
}

struct Person<'a> {
    access: &'a Access,
    editor: Rc<Editor>,
    link: Option<Link>,
    offline_until: Option<Instant>,
}

impl Person<'_> {
    async fn connect(&mut self, name: &str, faults: &Rc<RefCell<Vec<String>>>) -> Result<(), ConvergeError> {
        let dialect = self.access.dialect;
        let open = |error| ConvergeError::Open(dialect, error);
        let token = client::admit(self.access, name).await.map_err(open)?;
        let state_vector = self.editor.state_vector().map_err(ConvergeError::Own)?;
        let opened = client::connect(self.access, name, token.as_deref(), &state_vector).await;
        let (incoming, link) = opened.map_err(open)?;
        let (synced, is_synced) = oneshot::channel();
        let mut ears = Ears { editor: Rc::clone(&self.editor), faults: Rc::clone(faults), synced: Some(synced) };
        let hears = link.clone();
        tokio::task::spawn_local(async move { client::listen(incoming, hears, &mut ears).await });
        // Work done meanwhile reaches the server with the answer to its step 1.
        match tokio::time::timeout(SYNC_PATIENCE, is_synced).await {
            Ok(Ok(())) => {}
            _ => return Err(ConvergeError::NotSynced(dialect, faults.borrow().join("; "))),
        }
        self.link = Some(link);
        self.offline_until = None;
        Ok(())
    }

    fn disconnect(&mut self, offline: Duration) {
        if let Some(link) = self.link.take() {
            link.close();
        }
        self.offline_until = Some(Instant::now() + offline);
    }

    fn edit(&mut self, random: &mut StdRng) -> Result<(), ConvergeError> {
        let update = self.editor.edit(random).map_err(ConvergeError::Own)?;
        // An edit that found nothing to do makes no update, as in every editor.
        if update != [0, 0]
            && let Some(link) = &self.link
        {
            link.send_update(&update);
        }
        Ok(())
    }
}

struct Ears {
    editor: Rc<Editor>,
    faults: Rc<RefCell<Vec<String>>>,
    synced: Option<oneshot::Sender<()>>,
}

impl Ears {
    fn fault(&self, why: String) {
        let mut faults = self.faults.borrow_mut();
        if faults.len() < 10 {
            faults.push(why);
        }
    }
}

impl Listener for Ears {
    fn asked(&mut self, state_vector: &[u8]) -> Vec<u8> {
        self.editor.diff(state_vector).unwrap_or_else(|why| {
            self.fault(why);
            crate::wire::update::EMPTY.to_vec()
        })
    }

    fn content(&mut self, update: &[u8]) {
        if let Err(why) = self.editor.apply(update) {
            self.fault(why);
        }
    }

    fn synced(&mut self) {
        if let Some(synced) = self.synced.take() {
            let _ = synced.send(()); // the person may have given up
        }
    }

    fn refused(&mut self, why: String) {
        self.fault(why);
        self.synced = None; // who is refused while opening is not synced any more
    }
}
