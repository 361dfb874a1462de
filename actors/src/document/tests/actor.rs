//! The shell, with real actors over the reference implementations.

use super::bench::Editor;
use crate::access::{Role, Token};
use crate::aside::{Aside, Inline, Job};
use crate::budget::Budgets;
use crate::clock::{Clock, SystemClock};
use crate::document::FollowerId;
use crate::document::actor::DocumentActor;
use crate::document::live::Documents;
use crate::document::messages::{Deliver, Detached, Input, Join};
use crate::hosting;
use crate::hosting::messages::Route;
use crate::ids::{DocumentId, DocumentKey, NodeId, SessionId, TenantId, UserId, UserSessionId};
use crate::limits::Limits;
use crate::outbox::{Drained, Outbox};
use crate::ports::Ports;
use crate::ports::documents::{LiveDocuments as _, WriteRefused, Writer};
use crate::ports::log::{Damage, DamageKind, Snapshot};
use crate::ports::memory_authority::MemoryAuthority;
use crate::ports::memory_bus::MemoryBus;
use crate::ports::memory_log::MemoryLog;
use crate::ports::witness::Nobody;
use crate::protocol::Dialect;
use crate::protocol::frame::close_frame;
use crate::session::{self, Opening, Services};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::task::noop_waker_ref;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Context;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use uuid::Uuid;

const KEY: DocumentKey = DocumentKey { tenant: TenantId(Uuid::from_u128(1)), document: DocumentId(Uuid::from_u128(2)) };
const WRITER: Writer = Writer {
    user_session: UserSessionId(Uuid::from_u128(3)),
    user: UserId(Uuid::from_u128(4)),
    role: Role::Editor,
    until: None,
};

fn ports(log: &MemoryLog, limits: Limits) -> Ports {
    Ports {
        node: NodeId(Uuid::from_u128(5)),
        log: Arc::new(log.clone()),
        authority: Arc::new(MemoryAuthority::new()),
        bus: Arc::new(MemoryBus::alone(NodeId(Uuid::from_u128(5)))),
        clock: Arc::new(SystemClock),
        witness: Arc::new(Nobody),
        aside: Arc::new(Inline),
        budgets: Budgets::of(&limits),
        limits: Arc::new(limits),
    }
}

/// A node over this log, in which documents unload after so many seconds.
fn node(log: &MemoryLog, document_idle_s: u64) -> Documents {
    let ports = ports(log, Limits { document_idle_s, ..Limits::default() });
    Documents::new(hosting::start::<DocumentActor>(ports.clone(), Vec::new()), ports)
}

/// A connection with this outbox.
fn joins(outbox: Arc<Outbox>) -> Join {
    Join {
        follower: FollowerId { session: SessionId(Uuid::from_u128(6)), attachment: 0 },
        dialect: Dialect::YWebsocket,
        address: Bytes::new(),
        outbox,
        detached: Arc::new(Detached::new(Arc::default())),
        user: WRITER.user,
        user_session: WRITER.user_session,
        role: WRITER.role,
        until: None,
        knows_close: false,
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}");
        actix::clock::sleep(Duration::from_millis(10)).await;
    }
}

#[actix::test]
async fn a_long_tail_is_in_a_snapshot_once_its_document_has_unloaded() {
    let log = MemoryLog::new();
    log.create(KEY);
    let (documents, ann) = (node(&log, 0), Editor::new(1));
    for index in 0..100 {
        documents.write(KEY, WRITER, ann.type_at(index, "x"), None).await.unwrap();
    }
    until("no snapshot", || log.load_now(KEY).unwrap().snapshot.is_some_and(|it| it.position.seq == 100)).await;
}

/// Both are ready when the actor is polled: a message whose decision is made aside, and a connection that takes more again.
#[actix::test]
async fn who_drains_as_a_decision_goes_aside_is_brought_up_to_date() {
    let log = MemoryLog::new();
    log.create(KEY);
    let aside = Arc::new(HeldBack::default());
    let ports = Ports { aside: aside.clone(), ..ports(&log, Limits::default()) };
    let directory = hosting::start::<DocumentActor>(ports.clone(), Vec::new());
    let document = directory.send(Route(KEY)).await.unwrap();
    let documents = Documents::new(directory, ports);
    let outbox = Arc::new(Outbox::new(10_000));
    let join = joins(outbox.clone());
    let follower = join.follower;
    assert_eq!(document.send(join).await.unwrap(), Ok(()));
    let says = |follower, input| {
        let (taken, _) = oneshot::channel();
        document.try_send(Deliver { follower, inputs: vec![input], share: None, taken }).unwrap();
    };
    says(follower, Input::Step1(Bytes::from_static(&[0])));
    let ann = Editor::new(1);
    for round in 0..10 {
        documents.write(KEY, WRITER, ann.type_at(4_000 * round, &"x".repeat(4_000)), None).await.unwrap();
    }
    let mut frames = VecDeque::new();
    let mut came = 0;
    let mut takes = || {
        let _ = outbox.poll_drain(&mut Context::from_waker(noop_waker_ref()), usize::MAX, &mut frames);
        came += frames.drain(..).map(|frame| frame.len()).sum::<usize>();
        came
    };
    let somebody = FollowerId { session: SessionId(Uuid::nil()), attachment: 0 };
    says(somebody, Input::Update(Bytes::from(vec![0; 1 << 20])));
    assert!(takes() < 40_000, "it is behind");
    until("it is not done aside", || !aside.0.lock().unwrap().is_empty()).await;
    aside.0.lock().unwrap().drain(..).for_each(|job| job());
    let began = Instant::now();
    while takes() < 40_000 {
        assert!(began.elapsed() < Duration::from_secs(20), "it is never brought up to date");
        actix::clock::sleep(Duration::from_millis(10)).await;
    }
}

/// An actor's mailbox that other threads fill as fast as it is emptied keeps nothing else of its thread from running.
#[actix::test]
async fn a_flood_leaves_the_other_tasks_of_the_thread_their_turn() {
    let log = MemoryLog::new();
    log.create(KEY);
    let ports = ports(&log, Limits::default());
    let directory = hosting::start::<DocumentActor>(ports, Vec::new());
    let document = directory.send(Route(KEY)).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = (0..4)
        .map(|_| {
            let (document, over) = (document.clone(), over.clone());
            std::thread::spawn(move || {
                let began = Instant::now();
                while !over.load(Ordering::Relaxed) && began.elapsed() < Duration::from_secs(20) {
                    let (taken, _) = oneshot::channel();
                    let inputs = vec![Input::Awareness(Bytes::from_static(&[0]))];
                    let follower = FollowerId { session: SessionId(Uuid::nil()), attachment: 0 };
                    let _ = document.try_send(Deliver { follower, inputs, share: None, taken }); // or it is full
                }
            })
        })
        .collect();
    let began = Instant::now();
    for _ in 0..100 {
        actix::clock::sleep(Duration::from_millis(1)).await;
    }
    over.store(true, Ordering::Relaxed);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?} for a hundred turns", began.elapsed());
    floods.into_iter().for_each(|flood| flood.join().unwrap());
}

#[actix::test]
async fn a_damaged_log_is_read_as_far_as_it_goes_and_closed_for_everybody() {
    let log = MemoryLog::new();
    log.create(KEY);
    let ann = Editor::new(1);
    let writing = node(&log, 600);
    for text in ["sound ", "lost"] {
        writing.write(KEY, WRITER, ann.type_at(ann.text().len() as u32, text), None).await.unwrap();
    }
    log.damage_row(KEY, 2);
    let documents = node(&log, 600);
    let (position, state) = documents.state(KEY).await.unwrap();
    let reader = Editor::new(2);
    reader.apply(&state);
    assert_eq!((position.seq, reader.text().as_str()), (1, "sound "));
    let written = documents.write(KEY, WRITER, reader.type_at(0, "more"), None).await;
    assert!(matches!(written, Err(WriteRefused::ReadOnly)), "{written:?}");
    assert_eq!(log.closed(KEY), Some(Damage { kind: DamageKind::CorruptRow, seq_from: 2 }));
}

#[actix::test]
async fn whoever_comes_after_a_snapshot_that_cannot_be_folded_meets_the_log() {
    let log = MemoryLog::new();
    log.create(KEY);
    let ann = Editor::new(1);
    let first = node(&log, 0).write(KEY, WRITER, ann.type_at(0, "whole"), None).await.unwrap();
    // Nothing but a block that continues what is not there.
    let (_, state) = (ann.type_at(5, "?"), ann.type_at(6, "!"));
    let (position, state_vector, writers) = (first.position, Bytes::from_static(&[0]), Bytes::new());
    log.save_snapshot_now(KEY, Snapshot { position, state, state_vector, writers }).unwrap();
    let documents = node(&log, 600);
    let bob = Editor::new(2);
    let written = bob.type_at(0, "more");
    assert!(documents.write(KEY, WRITER, written.clone(), None).await.is_err(), "its instance ends over it");
    let started = Instant::now();
    while documents.write(KEY, WRITER, written.clone(), None).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(30), "nobody gets in any more");
        actix::clock::sleep(Duration::from_millis(10)).await; // as who was told to come back does
    }
    assert!(log.load_now(KEY).unwrap().snapshot.is_none());
    let (_, state) = documents.state(KEY).await.unwrap();
    let reader = Editor::new(3);
    reader.apply(&state);
    assert!(reader.text().contains("whole") && reader.text().contains("more"), "{}", reader.text());
}

/// Has what takes long wait until it is let go.
#[derive(Default)]
struct HeldBack(Mutex<Vec<Job>>);

impl Aside for HeldBack {
    fn run(&self, _: TenantId, job: Job) {
        self.0.lock().unwrap().push(job);
    }
}

#[actix::test]
async fn what_takes_long_holds_up_its_own_document_alone_and_nothing_is_lost_or_reordered() {
    let other = DocumentKey { document: DocumentId(Uuid::from_u128(7)), ..KEY };
    let log = MemoryLog::new();
    log.create(KEY);
    log.create(other);
    let aside = Arc::new(HeldBack::default());
    let ports = Ports { aside: aside.clone(), ..ports(&log, Limits::default()) };
    let documents = Arc::new(Documents::new(hosting::start::<DocumentActor>(ports.clone(), Vec::new()), ports));
    let write = |key, update| {
        let documents = documents.clone();
        actix::spawn(async move { documents.write(key, WRITER, update, None).await.map(|written| written.seq) })
    };
    let (ann, bob) = (Editor::new(1), Editor::new(2));
    let large = write(KEY, ann.type_at(0, &"a long text ".repeat(100_000)));
    until("it is not done aside", || !aside.0.lock().unwrap().is_empty()).await;
    let behind = write(KEY, ann.type_at(0, "short"));
    for index in 0..10 {
        assert_eq!(write(other, bob.type_at(index, "x")).await.unwrap(), Ok(u64::from(index) + 1));
    }
    assert!(!large.is_finished() && !behind.is_finished());
    let done = AtomicBool::new(false);
    let let_go = async {
        while !done.load(Ordering::Relaxed) {
            for job in std::mem::take(&mut *aside.0.lock().unwrap()) {
                job();
            }
            actix::clock::sleep(Duration::from_millis(1)).await;
        }
    };
    let settled = async {
        let settled = (large.await.unwrap(), behind.await.unwrap());
        done.store(true, Ordering::Relaxed);
        settled
    };
    assert_eq!(futures_util::join!(settled, let_go).0, (Ok(1), Ok(2)));
}

#[actix::test]
async fn a_document_whose_long_work_panics_ends_and_is_there_again() {
    struct Breaks(AtomicBool);
    impl Aside for Breaks {
        fn run(&self, _: TenantId, job: Job) {
            if !self.0.swap(false, Ordering::Relaxed) {
                job(); // else it is let go of, as by a thread that dies over it
            }
        }
    }
    let log = MemoryLog::new();
    log.create(KEY);
    let ports = Ports { aside: Arc::new(Breaks(AtomicBool::new(true))), ..ports(&log, Limits::default()) };
    let documents = Documents::new(hosting::start::<DocumentActor>(ports.clone(), Vec::new()), ports);
    let update = Editor::new(1).type_at(0, &"a long text ".repeat(100_000));
    assert!(documents.write(KEY, WRITER, update.clone(), None).await.is_err(), "its instance ends over it");
    let started = Instant::now();
    while documents.write(KEY, WRITER, update.clone(), None).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(30), "nobody gets in any more");
        actix::clock::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(log.load_now(KEY).unwrap().tail.head.position.seq, 1);
}

/// A clock that breaks when it is told to.
struct Breaking(AtomicBool);

impl Clock for Breaking {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now()
    }

    fn instant(&self) -> Instant {
        assert!(!self.0.load(Ordering::Relaxed), "this clock is broken");
        SystemClock.instant()
    }

    fn fresh_id(&self) -> Uuid {
        SystemClock.fresh_id()
    }
}

#[actix::test]
async fn a_document_that_ends_by_a_defect_leaves_nobody_connected() {
    let log = MemoryLog::new();
    log.create(KEY);
    let clock = Arc::new(Breaking(AtomicBool::new(false)));
    let ports = Ports { clock: clock.clone(), ..ports(&log, Limits::default()) };
    let document = hosting::start::<DocumentActor>(ports, Vec::new()).send(Route(KEY)).await.unwrap();
    let outbox = Arc::new(Outbox::new(1 << 20));
    let join = joins(outbox.clone());
    let follower = join.follower;
    assert_eq!(document.send(join).await.unwrap(), Ok(()));
    assert!(!outbox.is_closed());
    clock.0.store(true, Ordering::Relaxed);
    let (taken, is_taken) = oneshot::channel();
    let said = vec![Input::Update(Editor::new(1).type_at(0, "x"))];
    document.send(Deliver { follower, inputs: said, share: None, taken }).await.unwrap_err();
    until("it believes to be connected", || outbox.is_closed()).await;
    assert!(is_taken.await.is_err(), "nobody took what it said");
}

#[actix::test]
async fn whoever_comes_while_the_node_goes_is_told_that_it_restarts() {
    let ports = ports(&MemoryLog::new(), Limits::default());
    let services = Arc::new(Services::new(ports.clone(), hosting::start::<DocumentActor>(ports, Vec::new()), 10));
    services.drain();
    let outbox = Arc::new(Outbox::new(1 << 20));
    let opening = Opening {
        session: SessionId(Uuid::from_u128(6)),
        dialect: Dialect::YWebsocket,
        room: Some("notes".to_owned()),
        token: Some(Token("any".to_owned())),
        outbox: outbox.clone(),
        authentication: Arc::default(),
    };
    let _session = session::start(opening, services);
    let mut frames = VecDeque::new();
    let drained = poll_fn(|context| outbox.poll_drain(context, usize::MAX, &mut frames)).await;
    assert_eq!((drained, frames.make_contiguous()), (Drained::Frames, &mut [close_frame(1012, "server restarts")][..]));
}
