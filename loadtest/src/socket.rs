//! One WebSocket of the generator: a reader without a buffer of its own and a writer that never waits.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::wire::http;
use crate::wire::websocket::{FrameError, Frames, Opcode, Side, put_frame};

/// The handshake may take as long as a server that opens thousands of connections needs.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(30);
/// What a socket may owe to a server that reads too slowly before the scenario counts it as refused.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Between two looks at whether the peer has gone.
const LOOKS_APART: Duration = Duration::from_millis(100);
/// One read takes up to this much; shared by all connections of the thread.
const SCRATCH_BYTES: usize = 256 << 10;

/// Why a socket could not be used, or is no longer.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The network said no.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    /// The server answered the upgrade with something else.
    #[error("the server answered the upgrade with status {0}")]
    Refused(u16),
    /// The server's bytes are not HTTP or not WebSocket.
    #[error("the server does not speak WebSocket")]
    Malformed,
    /// The server broke the framing.
    #[error("the server broke the framing")]
    Frame(#[from] FrameError),
    /// Nothing came.
    #[error("no answer to the upgrade within {} s", HANDSHAKE_PATIENCE.as_secs())]
    Timeout,
}

/// Opens a socket at `authority` (`host:port`) with extra request headers, each ending in CRLF.
pub async fn open(authority: &str, path: &str, headers: &str) -> Result<(Incoming, Rc<Outgoing>), SocketError> {
    let handshake = async {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.into_split();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {authority}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        writer.write_all(request.as_bytes()).await?;
        let mut answer = Vec::with_capacity(512);
        let (status, length) = loop {
            if reader.read_buf(&mut answer).await? == 0 || answer.len() > 64 << 10 {
                return Err(SocketError::Malformed);
            }
            if let Some(head) = http::head(&answer) {
                break (head.status, head.length);
            }
        };
        if status != 101 {
            return Err(SocketError::Refused(status));
        }
        let ahead = answer.split_off(length);
        Ok((Incoming { half: reader, frames: Frames::default(), ahead }, Rc::new(Outgoing::new(writer, Side::Client))))
    };
    tokio::time::timeout(HANDSHAKE_PATIENCE, handshake).await.map_err(|_| SocketError::Timeout)?
}

/// The reading half.
#[derive(Debug)]
pub struct Incoming {
    half: OwnedReadHalf,
    frames: Frames,
    /// What arrived together with the answer to the upgrade.
    ahead: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

impl Incoming {
    /// The server's side of a socket whose upgrade was read already; `ahead` is what arrived behind it.
    pub fn accepted(half: OwnedReadHalf, ahead: Vec<u8>) -> Self {
        Self { half, frames: Frames::default(), ahead }
    }

    /// Waits for bytes and calls `each` for every whole message among them; false at the end of the stream.
    pub async fn hear(&mut self, mut each: impl FnMut(Opcode, &[u8])) -> Result<bool, SocketError> {
        if !self.ahead.is_empty() {
            let ahead = std::mem::take(&mut self.ahead);
            self.frames.feed(&ahead, each)?;
            return Ok(true);
        }
        poll_fn(|cx| self.poll(cx, &mut each)).await
    }

    /// Waits until the peer has ended the stream, without reading what it sent before.
    pub async fn ended(&self) {
        // Unread bytes make it readable, too, so that waiting for the end alone means to look now and then.
        while self.half.ready(Interest::READABLE).await.is_ok_and(|ready| !ready.is_read_closed()) {
            tokio::time::sleep(LOOKS_APART).await;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, each: &mut impl FnMut(Opcode, &[u8])) -> Poll<Result<bool, SocketError>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.half).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.frames.feed(buffer.filled(), each)?;
            Poll::Ready(Ok(true))
        })
    }
}

/// The writing half: writes at once what the socket takes and keeps the rest for when it takes more.
#[derive(Debug)]
pub struct Outgoing {
    half: OwnedWriteHalf,
    side: Side,
    waiting: RefCell<Vec<u8>>,
    flushing: Cell<bool>,
    closed: Cell<bool>,
}

impl Outgoing {
    /// Takes over a half of a connected socket.
    pub fn new(half: OwnedWriteHalf, side: Side) -> Self {
        Self { half, side, waiting: RefCell::default(), flushing: Cell::new(false), closed: Cell::new(false) }
    }

    /// Sends messages of bytes in one write.
    pub fn send(self: &Rc<Self>, messages: &[Vec<u8>]) {
        let mut bytes = Vec::with_capacity(messages.iter().map(|message| message.len() + 14).sum());
        for message in messages {
            put_frame(&mut bytes, self.side, Opcode::Binary, message);
        }
        self.push(&bytes);
        self.flush();
    }

    /// Sends one control frame.
    pub fn control(self: &Rc<Self>, opcode: Opcode, payload: &[u8]) {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, self.side, opcode, payload);
        self.push(&bytes);
        self.flush();
    }

    /// Takes bytes that are frames already; [`flush`](Self::flush) sends them. False when the peer reads so slowly
    /// that no more is kept for it: the caller drops the connection.
    pub fn push(&self, frames: &[u8]) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        if self.closed.get() || waiting.len() + frames.len() > WAITING_BYTES_MAX {
            self.closed.set(true);
            return false;
        }
        waiting.extend_from_slice(frames);
        true
    }

    /// Writes what waits, in one write where the socket takes it; a task carries on when it does not.
    pub fn flush(self: &Rc<Self>) {
        if self.flushing.get() || self.write() {
            return;
        }
        self.flushing.set(true);
        let outgoing = Rc::clone(self);
        tokio::task::spawn_local(async move {
            while outgoing.half.writable().await.is_ok() && !outgoing.write() {}
            outgoing.flushing.set(false);
        });
    }

    /// True when nothing is left to do: all written, or the socket is gone.
    fn write(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let mut done = 0;
        while done < waiting.len() {
            match self.half.try_write(&waiting[done..]) {
                Ok(written) => done += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    waiting.drain(..done);
                    return false;
                }
                Err(_) => {
                    self.closed.set(true);
                    break;
                }
            }
        }
        waiting.clear();
        // A burst must not stay as memory of an idle connection.
        if waiting.capacity() > 64 << 10 {
            *waiting = Vec::new();
        }
        true
    }

    /// Whether the socket failed or was given up.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Whether everything sent has gone to the kernel.
    pub fn is_flushed(&self) -> bool {
        self.waiting.borrow().is_empty()
    }
}
