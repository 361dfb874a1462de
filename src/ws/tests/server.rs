//! An HTTP server with the routes of the dialects, and sessions that do what a test says.

use super::raw::Raw;
use crate::net;
use crate::origins::Origins;
use crate::proxies::TrustedProxies;
use crate::ws::admission::Seats;
use crate::ws::{Deadlines, SessionHandle, Settings, Sockets, StartSession, configure, on_connect};
use actix::{Actor, ActorContext as _, AsyncContext as _, Context, Handler, ResponseFuture, WrapFuture as _};
use actix_web::App;
use contextnexus_actors::budget::{Budgets, Share};
use contextnexus_actors::clock::SystemClock;
use contextnexus_actors::limits::Limits;
use contextnexus_actors::outbox::Outbox;
use contextnexus_actors::protocol::frame::server_frame;
use contextnexus_actors::session::messages::{ClientMessage, Disconnected, Inbound};
use contextnexus_actors::session::{Authentication, Opening};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Sends back what came.
    Echo,
    /// Counts what came.
    Count,
    /// Answers when released.
    Hold,
    /// Hears nothing before it is released, as while a token is looked up.
    Deaf,
    /// Is gone without having closed anything.
    Die,
    /// Sends back what came, and finds the token good in a message that says so.
    Ask,
}

pub struct Node {
    pub address: SocketAddr,
    pub sockets: Arc<Sockets>,
    seen: Arc<Seen>,
    server: actix_web::dev::ServerHandle,
}

struct Seen {
    behaviour: Mutex<Behaviour>,
    release: Semaphore,
    openings: Mutex<Vec<Opened>>,
    outboxes: Mutex<Vec<Arc<Outbox>>>,
    batches: Mutex<Vec<usize>>,
    disconnected: Mutex<usize>,
}

/// What an opening said.
#[derive(Clone)]
pub struct Opened {
    pub room: Option<String>,
    pub token: Option<String>,
}

impl Node {
    pub fn start(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_with(change, &Limits::default(), false)
    }

    /// With the budgets of these limits.
    pub fn start_within(limits: &Limits) -> Self {
        Self::start_with(|_| {}, limits, false)
    }

    /// With `server.check_token_origins`.
    pub fn start_checking_tokens() -> Self {
        Self::start_with(|_| {}, &Limits::default(), true)
    }

    fn start_with(change: impl FnOnce(&mut Settings), limits: &Limits, checks_tokens: bool) -> Self {
        let mut settings = Settings {
            trusted_proxies: TrustedProxies::default(),
            seats: Seats { node: 1_000, address: 1_000 },
            message_bytes_max: 4 << 20,
            strange_bytes_max: 64 << 10,
            outbox_bytes_max: 1 << 20,
            deadlines: Deadlines::default(),
        };
        change(&mut settings);
        let listed = |origin: &str| vec![origin.to_owned()];
        let origins = Origins::new(&listed("https://app.example.org"), &listed("https://site.example"), "", true);
        let origins = origins.checking_tokens(checks_tokens);
        let seen = Arc::new(Seen {
            behaviour: Mutex::new(Behaviour::Echo),
            release: Semaphore::new(0),
            openings: Mutex::default(),
            outboxes: Mutex::default(),
            batches: Mutex::default(),
            disconnected: Mutex::default(),
        });
        let sessions = Sessions(Arc::clone(&seen));
        let sockets = Sockets::new(settings, Budgets::of(limits), origins, sessions, Arc::new(SystemClock));
        let of_server = Arc::clone(&sockets);
        let (started, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                listener.set_nonblocking(true).unwrap();
                let address = listener.local_addr().unwrap();
                let settings = net::Settings {
                    workers: 1,
                    seats: net::Seats { node: 1_000, address: 1_000 },
                    keep_alive: Duration::from_secs(5),
                    header_timeout: Duration::from_secs(5),
                    stall: Duration::from_secs(30),
                    certificates: None,
                };
                let server = net::serve(listener, settings, on_connect, move || {
                    App::new().configure(configure(Arc::clone(&of_server)))
                });
                let server = server.unwrap();
                started.send((address, server.handle())).unwrap();
                server.await.unwrap();
            });
        });
        let (address, server) = address.recv().unwrap();
        Self { address, sockets, seen, server }
    }

    pub fn connect(&self, path: &str) -> Raw {
        let (status, head, raw) = self.request(path, "");
        assert_eq!(status, 101, "{head}");
        raw
    }

    pub fn request(&self, path: &str, headers: &str) -> (u16, String, Raw) {
        Raw::request(self.address, path, headers)
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.seen.behaviour.lock().unwrap() = behaviour;
    }

    /// Lets everything go on that is held.
    pub fn release(&self) {
        self.seen.release.add_permits(1_000);
    }

    pub fn openings(&self) -> Vec<Opened> {
        self.seen.openings.lock().unwrap().clone()
    }

    pub fn outbox(&self, connection: usize) -> Arc<Outbox> {
        Arc::clone(&self.seen.outboxes.lock().unwrap()[connection])
    }

    /// How many messages each hand-over had.
    pub fn batches(&self) -> Vec<usize> {
        self.seen.batches.lock().unwrap().clone()
    }

    pub fn disconnected(&self) -> usize {
        *self.seen.disconnected.lock().unwrap()
    }

    /// Whether it becomes true. The machine may be slow: what has not by then never does.
    pub fn wait(&self, condition: impl Fn() -> bool) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            if condition() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        condition()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.server.stop(false));
    }
}

struct Sessions(Arc<Seen>);

impl StartSession for Sessions {
    fn start(&self, opening: Opening) -> SessionHandle {
        let Self(seen) = self;
        let token = opening.token.map(|token| token.0);
        seen.openings.lock().unwrap().push(Opened { room: opening.room, token });
        seen.outboxes.lock().unwrap().push(Arc::clone(&opening.outbox));
        let authentication = opening.authentication;
        let session = Session { seen: Arc::clone(seen), outbox: opening.outbox, authentication, share: None }.start();
        SessionHandle { inbound: session.clone().recipient(), disconnected: session.recipient() }
    }
}

struct Session {
    seen: Arc<Seen>,
    outbox: Arc<Outbox>,
    authentication: Arc<Authentication>,
    /// Of what is held.
    share: Option<Arc<Share>>,
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let (seen, authentication) = (Arc::clone(&self.seen), Arc::clone(&self.authentication));
        match *self.seen.behaviour.lock().unwrap() {
            Behaviour::Ask => {}
            Behaviour::Deaf => {
                let released = async move {
                    seen.release.acquire().await.unwrap().forget();
                    authentication.succeed();
                };
                context.wait(released.into_actor(self));
            }
            _ => authentication.succeed(),
        }
    }
}

impl Handler<Inbound> for Session {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Inbound { messages, share }: Inbound, context: &mut Context<Self>) -> Self::Result {
        if !messages.is_empty() {
            self.seen.batches.lock().unwrap().push(messages.len());
        }
        let behaviour = *self.seen.behaviour.lock().unwrap();
        let seen = Arc::clone(&self.seen);
        match behaviour {
            Behaviour::Echo | Behaviour::Ask => {
                for message in messages {
                    if let ClientMessage::Binary(payload) = message {
                        if payload == "token" {
                            let (seen, authentication) = (Arc::clone(&self.seen), Arc::clone(&self.authentication));
                            let checked = async move {
                                seen.release.acquire().await.unwrap().forget();
                                authentication.succeed();
                            };
                            context.wait(checked.into_actor(self)); // what is behind it in the mailbox waits
                        }
                        let _ = self.outbox.push(server_frame(&payload));
                    }
                }
            }
            Behaviour::Die => context.stop(),
            Behaviour::Hold => self.share = share,
            Behaviour::Count | Behaviour::Deaf => {}
        }
        Box::pin(async move {
            if behaviour == Behaviour::Hold {
                seen.release.acquire().await.unwrap().forget();
            }
        })
    }
}

impl Handler<Disconnected> for Session {
    type Result = ();

    fn handle(&mut self, _: Disconnected, context: &mut Context<Self>) {
        *self.seen.disconnected.lock().unwrap() += 1;
        context.stop();
    }
}
