//! The physical reference: a WebSocket server that hands every message to everyone in the room, and nothing else.
//!
//! No CRDT, no store, no rights: what it costs is what sockets cost. Its socket technique is that of a good server:
//! one frame encoded per message and shared, one outgoing buffer per connection, one write per wake-up, TCP_NODELAY.
//! It speaks y-websocket as far as fan-out goes: an empty step 1 on connect, an empty step 2 for a step 1, step 2 of
//! clients dropped, updates and awareness to all including the sender.
//!
//! It *acknowledges and forgets*: an echo from it promises nothing. That is what the durability checker is tested on.

mod process;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::socket::{Incoming, Outgoing, SocketError};
use crate::wire::dialect::{Dialect, Message, Wire};
use crate::wire::update;
use crate::wire::websocket::{Opcode, Side, accept, put_frame};

pub use process::Relay;

/// A request head larger than this is not a WebSocket client.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// When the relay writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Writes {
    /// Once per wake-up and receiver: what several senders brought leaves together, so a busy relay batches.
    #[default]
    Batched,
    /// Once per message and receiver, as the simplest of servers do.
    Each,
}

/// Serves until the listener fails; never returns otherwise. Needs a `LocalSet`.
pub async fn serve(listener: TcpListener, writes: Writes) -> std::io::Result<()> {
    let relay = Rc::new(Rooms { writes, ..Rooms::default() });
    let flusher = Rc::clone(&relay);
    tokio::task::spawn_local(async move { flusher.flush_for_ever().await });
    loop {
        let (stream, _) = listener.accept().await?;
        let relay = Rc::clone(&relay);
        tokio::task::spawn_local(async move {
            // A client that fails concerns nobody else, and the generator that drove it knows.
            let _ = relay.serve_one(stream).await;
        });
    }
}

/// Binds and answers the address and the serving future.
pub async fn bind(
    listen: &str,
    writes: Writes,
) -> std::io::Result<(SocketAddr, impl Future<Output = std::io::Result<()>>)> {
    let listener = TcpListener::bind(listen).await?;
    Ok((listener.local_addr()?, serve(listener, writes)))
}

#[derive(Default)]
struct Rooms {
    writes: Writes,
    rooms: RefCell<HashMap<String, Rc<Room>>>,
    /// Members with something in their buffer, each once.
    dirty: RefCell<Vec<Rc<Member>>>,
    wake: Notify,
}

#[derive(Default)]
struct Room {
    members: RefCell<Vec<Rc<Member>>>,
}

struct Member {
    outgoing: Rc<Outgoing>,
    dirty: Cell<bool>,
}

impl Rooms {
    async fn serve_one(&self, mut stream: TcpStream) -> Result<(), SocketError> {
        stream.set_nodelay(true)?;
        let (path, ahead) = upgrade(&mut stream).await?;
        let (read, write) = stream.into_split();
        let member = Rc::new(Member { outgoing: Rc::new(Outgoing::new(write, Side::Server)), dirty: Cell::new(false) });
        let room = Rc::clone(self.rooms.borrow_mut().entry(path.clone()).or_default());
        room.members.borrow_mut().push(Rc::clone(&member));
        let wire = Wire::new(Dialect::YWebsocket, "");
        member.outgoing.send(&[wire.step1(&update::EMPTY_STATE_VECTOR)]);

        let outcome = self.carry(Incoming::accepted(read, ahead), &wire, &member, &room).await;

        room.members.borrow_mut().retain(|other| !Rc::ptr_eq(other, &member));
        if room.members.borrow().is_empty() {
            self.rooms.borrow_mut().remove(&path);
        }
        outcome
    }

    async fn carry(
        &self,
        mut incoming: Incoming,
        wire: &Wire,
        member: &Rc<Member>,
        room: &Room,
    ) -> Result<(), SocketError> {
        let mut frame = Vec::new();
        let mut open = true;
        while open && !member.outgoing.is_closed() {
            let mut closing = false;
            open = incoming
                .hear(|opcode, payload| match opcode {
                    Opcode::Ping => member.outgoing.control(Opcode::Pong, payload),
                    Opcode::Close => closing = true,
                    Opcode::Binary => match wire.read(payload) {
                        Some(Message::Step1(_)) => member.outgoing.send(&[wire.step2(&update::EMPTY)]),
                        Some(Message::Step2(_)) | None => {}
                        Some(_) => {
                            frame.clear();
                            put_frame(&mut frame, Side::Server, Opcode::Binary, payload);
                            for other in room.members.borrow().iter() {
                                self.hand(other, &frame);
                            }
                        }
                    },
                    Opcode::Text | Opcode::Pong | Opcode::Continuation => {}
                })
                .await?
                && !closing;
        }
        Ok(())
    }

    fn hand(&self, member: &Rc<Member>, frame: &[u8]) {
        member.outgoing.push(frame);
        if self.writes == Writes::Each {
            return member.outgoing.flush();
        }
        if !member.dirty.replace(true) {
            let mut dirty = self.dirty.borrow_mut();
            if dirty.is_empty() {
                self.wake.notify_one();
            }
            dirty.push(Rc::clone(member));
        }
    }

    /// Runs behind every task that was ready in the same turn of the loop, so that what several senders brought in
    /// that turn leaves in one write per receiver.
    async fn flush_for_ever(&self) {
        let mut turn = Vec::new();
        loop {
            self.wake.notified().await;
            std::mem::swap(&mut turn, &mut *self.dirty.borrow_mut());
            for member in turn.drain(..) {
                member.dirty.set(false);
                member.outgoing.flush();
            }
        }
    }
}

/// Reads the request, answers 101; the path and what already arrived behind the head.
async fn upgrade(stream: &mut TcpStream) -> Result<(String, Vec<u8>), SocketError> {
    let mut bytes = Vec::with_capacity(512);
    let length = loop {
        if stream.read_buf(&mut bytes).await? == 0 || bytes.len() > HEAD_BYTES_MAX {
            return Err(SocketError::Malformed);
        }
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let ahead = bytes.split_off(length);
    let head = String::from_utf8(bytes).map_err(|_| SocketError::Malformed)?;
    let path = head.split(' ').nth(1).ok_or(SocketError::Malformed)?;
    let path = path.split('?').next().unwrap_or(path).to_owned();
    let key = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .map(|(_, value)| value.trim());
    let Some(key) = key else {
        stream.write_all(b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n").await?;
        return Err(SocketError::Malformed);
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {}\r\n\r\n",
        accept(key)
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok((path, ahead))
}
