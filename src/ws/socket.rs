//! A connection's socket, taken over from actix-http.
//!
//! actix-http keeps two buffers of 8 KiB for each connection and runs its whole dispatcher for every frame; for a WebSocket neither is
//! of use (measured: 29 KiB an idle connection instead of 7). So the upgrade answers
//! with a body that fails at once, [`LetGo`]: actix-http drops the connection with all that belongs to it, nothing of the response written.
//! What goes on is the stream that both share, TLS session included, and the 101 response is the first that is written to it.

use super::reader::Reader;
use crate::net::Stream;
use actix_web::HttpResponse;
use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use socket2::SockRef;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::sync::Notify;

/// Read at most at once: before it is the turn of another connection of the thread, however fast this one sends.
pub const READ_BYTES_MAX: usize = 16 * 1024;
/// Frames that one system call writes.
const FRAMES_PER_WRITE_MAX: usize = 64;

thread_local! {
    /// All connections of a thread read into it, one after the other: an idle one has no buffer.
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES_MAX].into());
}

/// The socket of one WebSocket connection.
#[derive(Debug)]
pub struct Socket {
    stream: Arc<Stream>,
    /// What was written to the stream before it was a WebSocket.
    before: u64,
    is_writing: AtomicBool,
}

impl Socket {
    /// Goes on with this stream.
    pub fn new(stream: Arc<Stream>) -> Self {
        let before = stream.written();
        Self { stream, before, is_writing: AtomicBool::new(false) }
    }

    /// What it writes to.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// For its options.
    pub fn options(&self) -> SockRef<'_> {
        self.stream.options()
    }

    /// Bytes that the kernel has ever taken.
    pub fn written(&self) -> u64 {
        self.stream.written() - self.before
    }

    /// A [`write`](Self::write) is not through: the kernel takes no more at the moment.
    pub fn is_writing(&self) -> bool {
        self.is_writing.load(Ordering::Relaxed)
    }

    /// Ends the reading or writing half, or both, whatever waits there.
    pub fn shut_down(&self, how: Shutdown) {
        self.stream.shut_down(how);
    }

    /// What is there, at most so many bytes and [`READ_BYTES_MAX`]; 0 at the end of the stream.
    pub fn poll_read(&self, context: &mut Context<'_>, into: &mut Reader, at_most: usize) -> Poll<io::Result<usize>> {
        READ_BUFFER.with_borrow_mut(|buffer| {
            let room = buffer.get_mut(..at_most.min(READ_BYTES_MAX)).unwrap_or_default();
            let read = ready!(self.stream.poll_read(context, room))?;
            into.feed(buffer.get(..read).unwrap_or_default());
            Poll::Ready(Ok(read))
        })
    }

    /// See [`poll_read`](Self::poll_read).
    pub async fn read(&self, into: &mut Reader, at_most: usize) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context, into, at_most)).await
    }

    /// Writes all of them, as many in one system call as it takes.
    pub async fn write(&self, frames: &[Bytes]) -> io::Result<()> {
        let (mut next, mut offset) = (0, 0);
        while let Some(left) = frames.get(next..).filter(|left| !left.is_empty()) {
            let mut written = self.taken(|| write_some(&self.stream, left, offset)).await?;
            if written == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            written += offset;
            offset = 0;
            for frame in left {
                if written < frame.len() {
                    offset = written;
                    break;
                }
                written -= frame.len();
                next += 1;
            }
        }
        self.taken(|| self.stream.try_send()).await
    }

    /// Tries until the kernel takes something.
    async fn taken<T>(&self, attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            match attempt() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_writing.store(true, Ordering::Relaxed);
                    let writable = self.stream.writable().await;
                    self.is_writing.store(false, Ordering::Relaxed);
                    writable?;
                }
                done => return done, // as nearly always
            }
        }
    }
}

fn write_some(stream: &Stream, frames: &[Bytes], offset: usize) -> io::Result<usize> {
    let Some((first, others)) = frames.split_first() else { return Ok(0) };
    let first = first.get(offset..).unwrap_or_default();
    if others.is_empty() {
        return stream.try_write(&[IoSlice::new(first)]);
    }
    let mut slices = [IoSlice::new(&[]); FRAMES_PER_WRITE_MAX];
    let mut count = 0;
    for (slice, bytes) in slices.iter_mut().zip(std::iter::once(first).chain(others.iter().map(|frame| &frame[..]))) {
        *slice = IoSlice::new(bytes);
        count += 1;
    }
    stream.try_write(slices.get(..count).unwrap_or_default())
}

/// The head of a response without a body, as it goes over the wire (RFC 9112). What middlewares add to a response is not in it.
pub fn head_of(response: &HttpResponse) -> Bytes {
    let status = response.status();
    let mut head =
        format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default()).into_bytes();
    head.extend_from_slice(b"connection: upgrade\r\n");
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head.into()
}

/// The body that makes actix-http drop the connection; says so when it has.
#[derive(Debug)]
pub struct LetGo(Rc<Notify>);

impl LetGo {
    /// And what is notified once actix-http reads and writes nothing any more.
    pub fn new() -> (Self, Rc<Notify>) {
        let gone = Rc::new(Notify::new());
        (Self(Rc::clone(&gone)), gone)
    }
}

impl MessageBody for LetGo {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        Poll::Ready(Some(Err(io::Error::other("the connection is a WebSocket now"))))
    }
}

impl Drop for LetGo {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}
