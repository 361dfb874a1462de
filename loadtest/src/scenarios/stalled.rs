//! stalled: a busy document first without, then with readers that stop reading; what those cost, whether the others notice, and
//! whether all have the same in the end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use yrs::{Doc, Text, Transact, WriteTxn};

use super::converge::editor::Editor;
use super::{Common, ScenarioResult, seconds};
use crate::bench::{Bench, Peak};
use crate::client::{self, Access, Listener, Traffic};
use crate::engine::{Engine, Opening, Payload, Shape, fresh_names, mib};
use crate::outcome::Outcome;
use crate::socket::Incoming;
use crate::wire::update;

/// A handshake that takes longer has failed.
const SYNC_PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts of a client that was cut off.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// A reader that was cut off while it was stalled comes back after this at most: as clients do that wait a while before they try again, and not all
/// in the same moment, in which the generator itself would be late.
const COME_BACK_MAX: Duration = Duration::from_secs(10);
/// The bulk is written so often.
const BULK_APART: Duration = Duration::from_millis(50);
/// Between two comparisons at the end.
const COMPARE_PAUSE: Duration = Duration::from_millis(100);

/// Readers that stop reading.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What every scenario shares.
    #[command(flatten)]
    pub common: Common,
    /// Readers that stop reading. One that the server cuts off comes back within ten seconds and stops again.
    #[arg(long, default_value_t = 100)]
    pub stalled: usize,
    /// Connections that write and read.
    #[arg(long, default_value_t = 10)]
    pub writers: usize,
    /// Connections that only read, and do.
    #[arg(long, default_value_t = 50)]
    pub readers: usize,
    /// Updates a second of each writer.
    #[arg(long, default_value_t = 5.0)]
    pub rate: f64,
    /// KiB a second of a text that one more writer replaces over and over, so that whoever does not read is soon behind.
    #[arg(long, default_value_t = 128)]
    pub bulk_kib: usize,
    /// Seconds without stalled readers.
    #[arg(long, default_value_t = 20.0)]
    pub calm: f64,
    /// Seconds with them.
    #[arg(long, default_value_t = 60.0)]
    pub duration: f64,
    /// What the server states that one connection may hold, in KiB: ContextNexus' outbox_bytes_max.
    #[arg(long, default_value_t = 1024)]
    pub cap_kib: usize,
    /// Seconds until all must be equal, once the stalled readers read again.
    #[arg(long, default_value_t = 30.0)]
    pub patience: f64,
}

/// Carries it out once.
pub async fn run(args: &Args, bench: &Bench) -> ScenarioResult {
    if args.writers == 0 || args.readers == 0 || args.stalled == 0 || args.duration <= 0.0 || args.calm <= 0.0 {
        return Err("writers, readers, stalled, calm and duration must be above zero".into());
    }
    let shape = Shape { documents: 1, writers: args.writers, readers: args.readers, payload: Payload::Text };
    let names = fresh_names(1);
    let mut engine = Engine::open_documents(shape, &names, Opening::default(), bench).await?;
    let accesses = bench.accesses()?;
    let room = Room { name: names.concat(), traffic: engine.traffic() };
    let bulk = Bulk::start(&room, &accesses[0], args.bulk_kib).await?;
    let rate = args.rate * args.writers as f64;
    let patience = seconds(args.patience)?;

    let (calm, calm_memory) =
        bench.watch_memory(engine.phase(rate, Duration::from_secs(2), seconds(args.calm)?, bench)).await?;
    calm?;
    engine.drain(patience, |_| ()).await;
    let calm_p99 = engine.latencies().0.map(|delivery| delivery.p99_ms);

    let crowd = Crowd::stall(args.stalled, &room, &accesses, bench).await?;
    let (phase, memory) =
        bench.watch_memory(engine.phase(rate, Duration::ZERO, seconds(args.duration)?, bench)).await?;
    let phase = phase?;
    bulk.stop().await;
    let drained =
        engine.drain(patience, |missing| bench.progress.at(|| format!("waiting for {missing} deliveries"))).await;
    let p99 = engine.latencies().0.map(|delivery| delivery.p99_ms);

    let (unequal, back) = crowd.read_again(&room, &accesses[0], patience, bench).await?;
    let words = format!(
        "{}, {} KiB/s of bulk, {} stalled readers for {} s",
        shape.words(),
        args.bulk_kib,
        args.stalled,
        args.duration
    );
    let mut outcome = Outcome::new("stalled", words);
    let figures = &mut outcome.figures;
    if !bench.server.server_pid.is_empty() {
        let growth = |of: fn(&Peak) -> u64| mib(of(&memory)) - mib(of(&calm_memory));
        let own = growth(|peak| peak.own_bytes);
        figures.set("growth_mib", own);
        figures.set("growth_total_mib", growth(|peak| peak.bytes));
        figures.set("growth_of_cap", own / (args.cap_kib * args.stalled) as f64 * 1024.0);
        figures.set("memory_before_mib", mib(calm_memory.bytes));
    }
    figures.set("calm_p99_ms", calm_p99);
    figures.set("p99_over_calm", p99.zip(calm_p99).map(|(p99, calm)| p99 / calm));
    figures.count("stalled", args.stalled);
    figures.count("cut_off", crowd.cut_off.get());
    figures.count("unequal", unequal);
    figures.set("back_ms", back.as_secs_f64() * 1e3);
    phase.report(&engine, &mut outcome);
    if unequal > 0 {
        outcome
            .faults
            .push(format!("{unequal} stalled readers were not equal to a fresh client: {}", crowd.last_fault.borrow()));
    }
    crowd.end().await;
    engine.finish(drained, &mut outcome, bench).await?;
    // Who is behind gets one message for many: how many messages there were is the server's to say.
    outcome.checks.retain(|check| check.counter != "contextnexus_fanout_total");
    Ok(outcome)
}

/// The document, and where what is exchanged about it counts.
#[derive(Clone)]
struct Room {
    name: String,
    traffic: Rc<Traffic>,
}

impl Room {
    /// Opens it for `ears` and hears until they are synced.
    async fn open(&self, access: &Access, ears: &mut Ears) -> Result<(Incoming, client::Link), String> {
        let words = |error: client::ClientError| error.to_string();
        let token = client::admit(access, &self.name).await.map_err(words)?;
        let state_vector = ears.editor.state_vector()?;
        let traffic = Rc::clone(&self.traffic);
        let opened = client::connect_counted(access, &self.name, token.as_deref(), &state_vector, traffic).await;
        let (mut incoming, link) = opened.map_err(words)?;
        ears.synced = false;
        let handshake = async {
            while !ears.synced {
                client::listen_once(&mut incoming, &link, ears).await?;
                ears.check()?;
            }
            Ok::<(), String>(())
        };
        tokio::time::timeout(SYNC_PATIENCE, handshake).await.map_err(|_| "not synced in time".to_owned())??;
        Ok((incoming, link))
    }
}

/// A writer that replaces a text over and over: much to send, and little to keep.
struct Bulk {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<Result<(), String>>,
}

impl Bulk {
    async fn start(room: &Room, access: &Access, kib_per_s: usize) -> Result<Self, String> {
        let mut ears = Ears::new()?;
        let (mut incoming, link) = room.open(access, &mut ears).await?;
        let (stop, stopped) = watch::channel(false);
        let traffic = Rc::clone(&room.traffic);
        let task = tokio::task::spawn_local(async move {
            let doc = Doc::with_client_id(rand::random_range(1..1u64 << 31));
            let length = (kib_per_s * 1024 / (1000 / BULK_APART.as_millis() as usize)).max(1);
            let mut due = tokio::time::interval(BULK_APART);
            for number in 0usize.. {
                let due_next = due.tick();
                let mut due_next = std::pin::pin!(due_next);
                loop {
                    tokio::select! {
                        _ = &mut due_next => break,
                        heard = client::listen_once(&mut incoming, &link, &mut ears) => heard?,
                    }
                }
                if *stopped.borrow() {
                    link.close();
                    return Ok(());
                }
                let letter = char::from(b'a' + (number % 26) as u8).to_string();
                link.send_update(&replaced(&doc, &letter.repeat(length))?);
                traffic.updates_beside.set(traffic.updates_beside.get() + 1);
            }
            Ok(())
        });
        Ok(Self { stop, task })
    }

    async fn stop(self) {
        let _ = self.stop.send(true); // it has ended already where nobody hears
        let _ = self.task.await; // what it lost shows in what the others have
    }
}

/// `doc`'s whole text replaced by `text`, as an update.
fn replaced(doc: &Doc, text: &str) -> Result<Vec<u8>, String> {
    let mut txn = doc.try_transact_mut().map_err(|error| error.to_string())?;
    let bulk = txn.get_or_insert_text("bulk");
    let length = bulk.len(&txn);
    bulk.insert(&mut txn, length, text);
    bulk.remove_range(&mut txn, 0, length);
    Ok(txn.encode_update_v1())
}

/// The stalled readers.
struct Crowd {
    editors: Vec<Rc<Editor>>,
    cut_off: Rc<Cell<u64>>,
    last_fault: Rc<RefCell<String>>,
    state: watch::Sender<State>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Stalled,
    Reading,
    Over,
}

impl Crowd {
    /// Opens so many readers, which read no further once they are synced.
    async fn stall(count: usize, room: &Room, accesses: &[Access], bench: &Bench) -> Result<Self, String> {
        let (state, _) = watch::channel(State::Stalled);
        let mut crowd =
            Self { editors: Vec::new(), cut_off: Rc::default(), last_fault: Rc::default(), state, tasks: Vec::new() };
        for number in 0..count {
            let access = accesses[number % accesses.len()].clone();
            let mut ears = Ears::new()?;
            let open =
                room.open(&access, &mut ears).await.map_err(|why| format!("stalled reader {}: {why}", number + 1))?;
            crowd.editors.push(Rc::clone(&ears.editor));
            let reader = Reader {
                room: room.clone(),
                access,
                state: crowd.state.subscribe(),
                cut_off: Rc::clone(&crowd.cut_off),
                last_fault: Rc::clone(&crowd.last_fault),
            };
            crowd.tasks.push(tokio::task::spawn_local(reader.live(open, ears)));
            bench.progress.at(|| format!("{} of {count} readers stopped reading", number + 1));
        }
        Ok(crowd)
    }

    /// Lets them read, and come back where they were cut off; how many have something else than a fresh client after `patience`.
    async fn read_again(
        &self,
        room: &Room,
        access: &Access,
        patience: Duration,
        bench: &Bench,
    ) -> Result<(usize, Duration), String> {
        let _ = self.state.send(State::Reading); // each of them hears, or has ended and is unequal
        let began = Instant::now();
        loop {
            let mut fresh = Ears::new()?;
            let (_incoming, link) = room.open(access, &mut fresh).await?;
            link.close();
            let wanted = fresh.editor.canonical()?;
            let mut unequal = 0;
            for editor in &self.editors {
                unequal += usize::from(editor.canonical()? != wanted);
            }
            if unequal == 0 || began.elapsed() >= patience {
                return Ok((unequal, began.elapsed()));
            }
            bench.progress.at(|| format!("waiting for {unequal} readers that were stalled"));
            tokio::time::sleep(COMPARE_PAUSE).await;
        }
    }

    async fn end(self) {
        let _ = self.state.send(State::Over);
        for task in self.tasks {
            let _ = task.await; // it ends by itself; a panic of ours would be a bug that its reader's state shows
        }
    }
}

/// One of them.
struct Reader {
    room: Room,
    access: Access,
    state: watch::Receiver<State>,
    cut_off: Rc<Cell<u64>>,
    last_fault: Rc<RefCell<String>>,
}

impl Reader {
    async fn live(mut self, first: (Incoming, client::Link), mut ears: Ears) {
        let mut open = Some(first);
        loop {
            let Some((mut incoming, link)) = open.take() else {
                match self.room.open(&self.access, &mut ears).await {
                    Ok(opened) => open = Some(opened),
                    Err(why) => {
                        *self.last_fault.borrow_mut() = why;
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
                if *self.state.borrow() == State::Over {
                    return;
                }
                continue;
            };
            let state = *self.state.borrow_and_update();
            let ended = match state {
                State::Over => return link.close(),
                State::Stalled => tokio::select! {
                    () = incoming.ended() => Err("cut off".to_owned()),
                    _ = self.state.changed() => Ok(()),
                },
                State::Reading => tokio::select! {
                    heard = client::listen_once(&mut incoming, &link, &mut ears) => heard.and_then(|()| ears.check()),
                    _ = self.state.changed() => Ok(()),
                },
            };
            match ended {
                Ok(()) => open = Some((incoming, link)),
                Err(why) => {
                    self.cut_off.set(self.cut_off.get() + 1);
                    *self.last_fault.borrow_mut() = why;
                    if *self.state.borrow() == State::Stalled {
                        let pause = COME_BACK_MAX.mul_f64(rand::random());
                        let _ = tokio::time::timeout(pause, self.state.changed()).await; // earlier where all shall read again
                    }
                }
            }
        }
    }
}

/// What a reader makes of what it hears.
struct Ears {
    editor: Rc<Editor>,
    synced: bool,
    fault: Option<String>,
}

impl Ears {
    fn new() -> Result<Self, String> {
        let editor = Rc::new(Editor::new(rand::random_range(1..1u64 << 31))?);
        Ok(Self { editor, synced: false, fault: None })
    }

    fn check(&mut self) -> Result<(), String> {
        self.fault.take().map_or(Ok(()), Err)
    }
}

impl Listener for Ears {
    fn asked(&mut self, _state_vector: &[u8]) -> Vec<u8> {
        update::EMPTY.to_vec() // it wrote nothing
    }

    fn content(&mut self, update: &[u8]) {
        if let Err(why) = self.editor.apply(update) {
            self.fault = Some(why);
        }
    }

    fn synced(&mut self) {
        self.synced = true;
    }

    fn refused(&mut self, why: String) {
        self.fault = Some(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bulk_is_sent_over_and_over_and_does_not_pile_up() {
        let (doc, editor) = (Doc::with_client_id(7), Editor::new(1).unwrap());
        for letter in ["a", "b", "c"] {
            let update = replaced(&doc, &letter.repeat(1_000)).unwrap();
            assert!(update.len() > 1_000);
            editor.apply(&update).unwrap();
        }
        let whole = editor.diff(&update::EMPTY_STATE_VECTOR).unwrap();
        assert!((1_000..1_100).contains(&whole.len()), "{} bytes", whole.len());
    }
}
