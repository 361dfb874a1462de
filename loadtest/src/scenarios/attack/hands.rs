//! What the attacker does, on a thread and from addresses of its own, so that neither the generator nor a limit of the
//! victims' address is what is measured.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinSet, LocalSet};

use super::dear::Dear;
use crate::engine::fresh_names;
use crate::wire::dialect::{Dialect, Wire, awareness_state};
use crate::wire::update::append_text;
use crate::wire::varint::put_uint;
use crate::wire::websocket::{Opcode, Side, put_frame};

/// A hostile hand that is shown the door comes back after this.
const COME_BACK: Duration = Duration::from_millis(500);
/// An unfinished message is announced as so long.
const ANNOUNCED_BYTES: u64 = 15 << 20;
/// A stranger sends so much of it at a time, and so often.
const DRIP_BYTES: usize = 4 << 10;
const DRIP_APART: Duration = Duration::from_millis(200);
/// Addresses that strangers come from, and members.
const ADDRESSES: u32 = 200;
/// Sockets that flood.
const FLOODS: usize = 4;
const PRESENCE_CONNECTIONS: usize = 40;
const PRESENCE_STATES: u64 = 65;
const PRESENCE_BYTES: usize = 8 << 10;
const BODIES: usize = 200;

/// What is done one after the other, in this order, beside the strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Attack {
    /// Updates of 84 KB that look through what stands before, for each insertion.
    RightOrigins,
    /// Updates of 0.6 MiB with entries of one key.
    OneKey,
    /// Updates of 6 MB that delete every second character.
    EverySecond,
    /// Updates of 14 MiB with a million root types.
    Roots,
    /// Step 1 with ever different state vectors, as quickly as they are taken.
    Step1s,
    /// 40 members with 65 states of 8 KiB each.
    Presence,
    /// 200 requests whose bodies come slowly.
    Bodies,
    /// Logins with wrong passwords.
    Passwords,
}

/// Whom to attack, and with what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `host:port`, on this machine.
    pub authority: String,
    /// Of an editor, of another tenant than the victims'.
    pub token: String,
    /// Sockets without a token.
    pub strangers: usize,
    /// How long all of it takes.
    pub duration: Duration,
    /// Nothing but this, or everything in turn.
    pub only: Option<Attack>,
}

/// What the attacker counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Connections that were opened.
    pub opened: u64,
    /// Attempts that the server refused or ended.
    pub refused: u64,
}

/// The attacker at work.
pub struct Hands {
    thread: JoinHandle<std::io::Result<Tally>>,
    over: Arc<AtomicBool>,
}

impl Hands {
    /// Begins.
    pub fn start(plan: Plan) -> std::io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let thread = std::thread::Builder::new().name("attacker".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(LocalSet::new().block_on(&runtime, Hand::attack(plan, ended)))
        })?;
        Ok(Self { thread, over })
    }

    /// Ends it, where it has not ended by itself, and answers what it counted.
    pub fn end(self) -> Result<Tally, String> {
        self.over.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(tally) => tally.map_err(|error| format!("the attacker could not begin: {error}")),
            Err(_) => Err("the attacker's thread panicked".to_owned()),
        }
    }
}

/// One of its hands; clones share what is counted.
#[derive(Clone)]
struct Hand {
    plan: Rc<Plan>,
    over: Arc<AtomicBool>,
    opened: Rc<Cell<u64>>,
    refused: Rc<Cell<u64>>,
    until: Instant,
}

impl Hand {
    async fn attack(plan: Plan, over: Arc<AtomicBool>) -> Tally {
        let until = Instant::now() + plan.duration;
        let attacks = plan.only.as_ref().map_or(Attack::value_variants(), std::slice::from_ref).to_vec();
        let each = plan.duration / attacks.len() as u32;
        let hand = Self { plan: Rc::new(plan), over, opened: Rc::default(), refused: Rc::default(), until };
        let mut strangers = JoinSet::new();
        for number in 0..hand.plan.strangers {
            strangers.spawn_local(hand.clone().stranger(number));
        }
        for (later, attack) in (0..attacks.len() as u32).rev().zip(attacks) {
            Self { until: hand.until - each * later, ..hand.clone() }.carry_out(attack).await;
        }
        strangers.join_all().await;
        Tally { opened: hand.opened.get(), refused: hand.refused.get() }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until || self.over.load(Ordering::Relaxed)
    }

    async fn carry_out(&self, attack: Attack) {
        let mut hands = JoinSet::new();
        match attack {
            Attack::RightOrigins => drop(hands.spawn_local(self.clone().send_dear(Dear::RightOrigins, 8_000))),
            Attack::OneKey => drop(hands.spawn_local(self.clone().send_dear(Dear::OneKey, 60_000))),
            Attack::EverySecond => drop(hands.spawn_local(self.clone().send_dear(Dear::EverySecond, 1_000_000))),
            Attack::Roots => drop(hands.spawn_local(self.clone().send_dear(Dear::Roots, 1_000_000))),
            Attack::Step1s => {
                let document = fresh_names(1).concat();
                for number in 0..FLOODS {
                    hands.spawn_local(self.clone().ask_for_states(document.clone(), number));
                }
            }
            Attack::Presence => {
                let document = fresh_names(1).concat();
                for number in 0..PRESENCE_CONNECTIONS {
                    hands.spawn_local(self.clone().show_presence(document.clone(), number));
                }
            }
            Attack::Bodies => {
                let document = fresh_names(1).concat();
                drop(self.open(&document, 0).await); // which makes it
                for number in 0..BODIES {
                    hands.spawn_local(self.clone().hold_a_body(document.clone(), number));
                }
            }
            Attack::Passwords => drop(hands.spawn_local(self.clone().guess_passwords())),
        }
        hands.join_all().await;
    }

    /// A socket without a token, and a message that never ends.
    async fn stranger(self, number: usize) {
        while !self.is_over() {
            if let Some(mut stream) = self.upgrade("/collab", "", number).await {
                let mut head = vec![0x82, 0x80 | 127];
                head.extend_from_slice(&ANNOUNCED_BYTES.to_be_bytes());
                head.extend_from_slice(&[0; 4]);
                let drip = vec![1; DRIP_BYTES];
                let mut sent = stream.write_all(&head).await;
                while sent.is_ok() && !self.is_over() && !has_ended(&stream) {
                    tokio::time::sleep(DRIP_APART).await;
                    sent = stream.write_all(&drip).await;
                }
            }
            self.shown_the_door().await;
        }
    }

    /// One dear update after the other, each into a document of its own.
    async fn send_dear(self, dear: Dear, size: u32) {
        let mut client = 1 << 20;
        while !self.is_over() {
            client += 1;
            let document = fresh_names(1).concat();
            if let Some(mut socket) = self.open(&document, 0).await {
                for update in dear.updates(client, size) {
                    socket.send(&socket.wire.update(&update)).await;
                }
                // Until it is closed, or for as long as an honest client would wait for the echo.
                let patience = Instant::now() + Duration::from_secs(2);
                while !self.is_over() && Instant::now() < patience && socket.listen().await {}
            }
            self.shown_the_door().await;
        }
    }

    /// State vectors that all differ, as quickly as the socket takes them, of a document that is not small.
    async fn ask_for_states(self, document: String, number: usize) {
        let mut vector: u64 = number as u64 * 1_000_000;
        while !self.is_over() {
            if let Some(mut socket) = self.open(&document, number).await {
                if number == 0 {
                    let text = "a long text ".repeat(100_000);
                    socket.send(&socket.wire.update(&append_text(rand::random_range(1..1 << 30), 0, &text))).await;
                }
                while !self.is_over() && socket.is_open() {
                    for _ in 0..100 {
                        vector += 1;
                        let mut known = Vec::new();
                        for value in [1, vector, 1] {
                            put_uint(&mut known, value);
                        }
                        socket.send(&socket.wire.step1(&known)).await;
                    }
                    socket.listen().await;
                }
            }
            self.shown_the_door().await;
        }
    }

    async fn show_presence(self, document: String, number: usize) {
        let state = format!(r#"{{"cursor":"{}"}}"#, "x".repeat(PRESENCE_BYTES - 20));
        for clock in 1.. {
            let Some(mut socket) = self.open(&document, number).await else {
                self.shown_the_door().await;
                if self.is_over() {
                    return;
                }
                continue;
            };
            while !self.is_over() && socket.is_open() {
                for id in 0..PRESENCE_STATES {
                    let client = number as u64 * PRESENCE_STATES + id + 1;
                    socket.send(&socket.wire.awareness(&awareness_state(client, clock, &state))).await;
                }
                socket.listen().await;
            }
            self.shown_the_door().await;
            if self.is_over() {
                return;
            }
        }
    }

    /// A request whose body is announced and comes slowly.
    async fn hold_a_body(self, document: String, number: usize) {
        let plan = Rc::clone(&self.plan);
        while !self.is_over() {
            if let Some(mut stream) = self.connect(number).await {
                let head = format!(
                    "POST /doc/{document}/update HTTP/1.1\r\nhost: {}\r\n\
                     authorization: Bearer {}\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
                    plan.authority, plan.token, ANNOUNCED_BYTES
                );
                let drip = vec![1; 256 << 10];
                let mut sent = stream.write_all(head.as_bytes()).await;
                while sent.is_ok() && !self.is_over() && !has_ended(&stream) {
                    sent = stream.write_all(&drip).await;
                    tokio::time::sleep(DRIP_APART).await;
                }
            }
            self.shown_the_door().await;
        }
    }

    async fn guess_passwords(self) {
        let plan = Rc::clone(&self.plan);
        let mut guess = 0;
        while !self.is_over() {
            guess += 1;
            if let Some(mut stream) = self.connect(guess).await {
                let body = format!(r#"{{"tenant":"demo","email":"admin@demo.local","password":"guess {guess}"}}"#);
                let request = format!(
                    "POST /v1/auth/login HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
                     content-length: {}\r\n\r\n{body}",
                    plan.authority,
                    body.len()
                );
                let mut answer = Vec::new();
                if stream.write_all(request.as_bytes()).await.is_ok() {
                    let _ = tokio::time::timeout(COME_BACK, stream.read_to_end(&mut answer)).await; // whatever it says
                }
            }
            self.refused.set(self.refused.get() + 1);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn shown_the_door(&self) {
        if !self.is_over() {
            self.refused.set(self.refused.get() + 1);
            tokio::time::sleep(COME_BACK).await;
        }
    }

    async fn open(&self, document: &str, number: usize) -> Option<Socket> {
        let headers = format!("authorization: Bearer {}\r\n", self.plan.token);
        let stream = self.upgrade(&format!("/yjs/{document}"), &headers, number).await?;
        let wire = Wire::new(Dialect::YWebsocket, document);
        let mut socket = Socket { stream, wire, is_open: true };
        socket.send(&socket.wire.step1(&[0])).await;
        Some(socket)
    }

    async fn upgrade(&self, path: &str, headers: &str, number: usize) -> Option<TcpStream> {
        let mut stream = self.connect(number).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n",
            self.plan.authority
        );
        let mut answer = vec![0; 4096];
        let handshake = async {
            stream.write_all(request.as_bytes()).await.ok()?;
            stream.read(&mut answer).await.ok()
        };
        let read = tokio::time::timeout(Duration::from_secs(5), handshake).await.ok()??;
        answer[..read].starts_with(b"HTTP/1.1 101").then_some(stream)
    }

    /// From one of many loopback addresses, so that no limit of one address stands before the others.
    async fn connect(&self, number: usize) -> Option<TcpStream> {
        let to: SocketAddr = self.plan.authority.parse().ok()?;
        let socket = TcpSocket::new_v4().ok()?;
        let [_, _, high, low] = (number as u32 % ADDRESSES + 2).to_be_bytes();
        socket.bind((Ipv4Addr::new(127, 1, high, low), 0).into()).ok()?;
        let stream = tokio::time::timeout(Duration::from_secs(5), socket.connect(to)).await.ok()?.ok()?;
        self.opened.set(self.opened.get() + 1);
        Some(stream)
    }
}

/// A WebSocket of the attacker, whose frames nobody looks into.
struct Socket {
    stream: TcpStream,
    wire: Wire,
    is_open: bool,
}

impl Socket {
    async fn send(&mut self, message: &[u8]) {
        let mut frame = Vec::with_capacity(message.len() + 14);
        put_frame(&mut frame, Side::Client, Opcode::Binary, message);
        // A server that reads no further stops us, too.
        let sent = tokio::time::timeout(Duration::from_secs(5), self.stream.write_all(&frame)).await;
        self.is_open &= matches!(sent, Ok(Ok(())));
    }

    /// Takes what has come, and waits a moment where nothing has. False once the connection is over.
    async fn listen(&mut self) -> bool {
        let mut taken = vec![0; 256 << 10];
        if let Ok(read) = tokio::time::timeout(Duration::from_millis(50), self.stream.read(&mut taken)).await {
            self.is_open &= read.is_ok_and(|read| read > 0);
        }
        self.is_open
    }

    fn is_open(&self) -> bool {
        self.is_open
    }
}

/// Whether the server has closed it. What it said before is not read.
fn has_ended(stream: &TcpStream) -> bool {
    let mut said = [0; 256];
    !matches!(stream.try_read(&mut said), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
