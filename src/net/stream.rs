//! The bytes of one connection, with or without TLS, read and written by whoever holds it. One task reads and one writes, both on one thread;
//! any thread may write through ([`Sink`]).

use contextnexus_actors::outbox::Sink;
use rustls::ServerConnection;
use socket2::SockRef;
use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What a connection may have encrypted and not sent: one record of the largest size and a little.
const ENCRYPTED_BYTES_MAX: usize = 20 * 1024;

/// One connection's stream. Dropping it closes the socket.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    /// Boxed, because most have none.
    tls: Option<Box<Mutex<ServerConnection>>>,
    written: AtomicU64,
}

impl Stream {
    /// Bytes as they are.
    pub fn plain(socket: TcpStream) -> Self {
        Self { socket, tls: None, written: AtomicU64::new(0) }
    }

    pub(super) fn encrypted(socket: TcpStream, mut tls: ServerConnection) -> Self {
        tls.set_buffer_limit(Some(ENCRYPTED_BYTES_MAX));
        Self { socket, tls: Some(Box::new(Mutex::new(tls))), written: AtomicU64::new(0) }
    }

    /// TLS ends here.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Speaks until both sides have agreed.
    pub(super) fn poll_handshake(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session().is_some_and(|tls| tls.is_handshaking()) {
            ready!(self.poll_flush(context))?;
            if self.session().is_none_or(|tls| !tls.is_handshaking()) {
                break;
            }
            ready!(self.socket.poll_read_ready(context))?;
            let Some(tls) = self.session() else { break };
            match self.read_encrypted(tls) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                done => done?,
            }
        }
        self.poll_flush(context)
    }

    /// For the socket's options.
    pub fn options(&self) -> SockRef<'_> {
        SockRef::from(&self.socket)
    }

    /// Bytes that the kernel has ever taken, as they went over the wire.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Ends the reading or writing half, or both, whatever waits there.
    pub fn shut_down(&self, how: Shutdown) {
        if let Some(mut tls) = self.session()
            && how == Shutdown::Write
        {
            tls.send_close_notify();
            drop(tls);
            let _ = self.try_send(); // where the kernel takes nothing, the peer sees the end without it
        }
        let _ = self.options().shutdown(how); // not connected any more: it is what we want
    }

    /// What is there, at most as much as `into` takes; 0 at the end of the stream.
    pub fn poll_read(&self, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if let Some(mut tls) = self.session() {
                match tls.reader().read(into) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // Cut off without a goodbye: WebSocket and HTTP know themselves whether something is missing.
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
                    read => return Poll::Ready(read),
                }
            }
            ready!(self.socket.poll_read_ready(context))?;
            let came = match self.session() {
                None => self.read_plain(into),
                Some(tls) => self.read_encrypted(tls).map(|()| None),
            };
            match came {
                Ok(Some(read)) => return Poll::Ready(Ok(read)),
                Ok(None) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn read_plain(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let mut read = 0;
        let outcome = self.socket.try_io(Interest::READABLE, || {
            read = (&*self.options()).read(into)?;
            // There was no more: to say so here saves the call that would find it out.
            if (1..into.len()).contains(&read) { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match outcome {
            Err(error) if read == 0 => Err(error),
            _ => Ok(Some(read)),
        }
    }

    fn read_encrypted(&self, mut tls: MutexGuard<'_, ServerConnection>) -> io::Result<()> {
        let read = self.socket.try_io(Interest::READABLE, || tls.read_tls(&mut &*self.options()))?;
        if read == 0 && tls.is_handshaking() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let processed = tls.process_new_packets();
        let answers = tls.wants_write();
        drop(tls);
        if answers {
            let _ = self.try_send(); // an alert, or new keys: what the kernel does not take now goes with what is written next
        }
        processed.map(drop).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    /// Takes the next of these bytes, and says how many; `WouldBlock` where it takes none. With TLS some may not have been sent yet, see
    /// [`try_send`](Self::try_send).
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(mut tls) = self.session() else {
            let written = self.socket.try_io(Interest::WRITABLE, || match slices {
                [one] => (&*self.options()).write(one),
                many => (&*self.options()).write_vectored(many),
            })?;
            self.written.fetch_add(written as u64, Ordering::Relaxed);
            return Ok(written);
        };
        let taken = tls.writer().write_vectored(slices)?;
        drop(tls);
        match self.try_send() {
            Err(error) if error.kind() == ErrorKind::WouldBlock && taken > 0 => Ok(taken),
            Err(error) => Err(error),
            Ok(()) if taken > 0 => Ok(taken),
            // There was no room for it, and now there is.
            Ok(()) => self.session().map_or(Ok(0), |mut tls| tls.writer().write_vectored(slices)),
        }
    }

    /// Sends what is encrypted and waits; `WouldBlock` where not all of it went.
    pub fn try_send(&self) -> io::Result<()> {
        let Some(mut tls) = self.session() else { return Ok(()) };
        while tls.wants_write() {
            let sent = self.socket.try_io(Interest::WRITABLE, || tls.write_tls(&mut &*self.options()))?;
            if sent == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.written.fetch_add(sent as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits until the kernel may take more.
    pub async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    /// Takes the next of these bytes; waits where it takes none.
    pub fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_until_taken(context, || self.try_write(&[IoSlice::new(bytes)]))
    }

    /// Sends everything that was taken.
    pub fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_until_taken(context, || self.try_send())
    }

    /// Sends everything and ends the writing half.
    pub fn poll_end(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(mut tls) = self.session() {
            tls.send_close_notify(); // once, however often it is asked for
        }
        ready!(self.poll_flush(context))?;
        let _ = self.options().shutdown(Shutdown::Write); // not connected any more: it is what we want
        Poll::Ready(Ok(()))
    }

    fn poll_until_taken<T>(
        &self,
        context: &mut Context<'_>,
        attempt: impl Fn() -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match attempt() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready!(self.socket.poll_write_ready(context))?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Its turn, never held while something is waited for.
    fn session(&self) -> Option<MutexGuard<'_, ServerConnection>> {
        self.tls.as_ref().map(|tls| tls.lock().unwrap_or_else(PoisonError::into_inner)) // a panic in it ends its connection
    }
}

impl Sink for Stream {
    /// From any thread, where the writing task has nothing under way. With TLS it takes nothing: what is encrypted and not sent would be
    /// nobody's.
    fn write_now(&self, bytes: &[u8]) -> usize {
        if self.is_encrypted() {
            return 0;
        }
        let written = (&*self.options()).write(bytes).unwrap_or(0);
        self.written.fetch_add(written as u64, Ordering::Relaxed);
        written
    }
}
