//! The incoming half of a connection: a task that reads, assembles messages and hands them to the session, which answers when
//! it can take more. Until then nothing is read, the kernel's buffer fills, and the client is slowed down by TCP.

use super::link::{Link, Peer};
use super::reader::{Event, Reader, Refusal};
use super::socket::READ_BYTES_MAX;
use super::{SessionHandle, Sockets};
use actix_web::web::Payload;
use contextnexus_actors::causes::Cause;
use contextnexus_actors::protocol::Dialect;
use contextnexus_actors::protocol::frame::{close_frame, close_frame_empty, pong_frame};
use contextnexus_actors::report;
use contextnexus_actors::session::messages::{Disconnected, Frame, Inbound};
use futures_util::{FutureExt as _, StreamExt as _};
use std::convert::Infallible;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Messages at most in one hand-over: the session's turn is not to become long.
const MESSAGES_MAX: usize = 512;
/// How long a peer that goes is kept for a session that does not answer.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// Control frames of one connection per second, and at once. Beyond it the socket is read slower.
const CONTROLS_PER_S: f64 = 100.0;
const CONTROLS_AT_ONCE: f64 = 200.0;

/// How the reading ended.
enum End {
    /// The peer closes, with this code if it named one.
    Closed(Option<u16>),
    /// We close.
    Refused(Refusal),
    /// The session is no more, unexpectedly when it did not close the outbox.
    SessionLost,
    /// The connection is gone, or our close frame is written.
    Over,
}

/// Reads until the connection ends, and tells the session. `early` is what actix-http had read before the socket was ours.
pub async fn run(mut early: Payload, link: Rc<Link>, session: SessionHandle) {
    let reads_past = link.dialect() == Dialect::Hocuspocus;
    let mut reader = Reader::new(message_bytes_max(&link)).reading_past(reads_past);
    let mut ahead_bytes = 0;
    while let Some(Some(Ok(bytes))) = early.next().now_or_never() {
        reader.feed(&bytes);
        ahead_bytes += bytes.len();
    }
    drop(early);
    let held = Held { sockets: Arc::clone(link.sockets()), bytes: 0 };
    let controls = Allowance::new(Instant::now());
    let mut pump = Pump { reader, held, link: Rc::clone(&link), controls, ahead_bytes, at_end: false };
    let Err(end) = pump.pump(&session).await;
    let outbox = &link.outbox;
    let mut peer = Peer::Lost;
    match end {
        End::Closed(code) => {
            outbox.close(code.map_or_else(close_frame_empty, |code| close_frame(code, "")));
            peer = Peer::Closed;
        }
        End::SessionLost => {
            outbox.close(close_frame(1011, "internal error"));
            peer = Peer::Open;
        }
        End::Refused(refusal) => {
            metrics::counter!("contextnexus_ws_refused_input_total", "reason" => refusal.label()).increment(1);
            report!(Cause::Ended, connection.id = %link.connection, "connection closed: {refusal}");
            outbox.close(close_frame(refusal.code(), &refusal.to_string()));
        }
        End::Over if link.facts().ending_since.is_some() => peer = Peer::Open,
        End::Over => {
            if !outbox.is_closed() {
                outbox.abandon();
                link.socket().shut_down(Shutdown::Both); // whoever waits to write there waits no longer
            }
        }
    }
    let tell = session.disconnected.send(Disconnected); // a session that ended by itself needs no telling
    if peer == Peer::Open {
        let (_, last) = futures_util::join!(tell, pump.close_of_peer());
        link.read_over(last);
    } else {
        link.read_over(peer);
        drop(pump);
        let _ = tell.await;
    }
}

/// What a message may have now: of a stranger, little.
fn message_bytes_max(link: &Link) -> usize {
    let settings = &link.sockets().settings;
    match link.is_authenticated.load(Ordering::Acquire) {
        true => settings.message_bytes_max,
        false => settings.message_bytes_max.min(settings.strange_bytes_max),
    }
}

struct Pump {
    reader: Reader,
    held: Held,
    link: Rc<Link>,
    controls: Allowance,
    /// Bytes that were read while the session had not answered yet.
    ahead_bytes: usize,
    /// The peer has ended the stream.
    at_end: bool,
}

impl Pump {
    async fn pump(&mut self, session: &SessionHandle) -> Result<Infallible, End> {
        loop {
            self.read().await?;
            self.reader.allow(message_bytes_max(&self.link));
            let mut messages = Vec::new();
            let mut ping = None;
            let mut controls = 0_usize;
            let end = loop {
                match self.reader.next() {
                    Ok(None) => break None,
                    Ok(Some(Event::Message(message))) => messages.push(message),
                    Ok(Some(Event::Ping(payload))) => {
                        controls += 1;
                        ping = Some(payload);
                    }
                    Ok(Some(Event::Pong)) => controls += 1,
                    Ok(Some(Event::Close(code))) => break Some(End::Closed(code)),
                    Err(refusal) => break Some(End::Refused(refusal)),
                }
                if messages.len() == MESSAGES_MAX {
                    self.hand_over(std::mem::take(&mut messages), session).await?;
                }
            };
            self.account(end.is_none())?;
            if let Some(payload) = ping {
                // The newest stands for all before it (RFC 6455, 5.5.3). Without room there is no hurry: the peer sees no bytes either.
                let _ = self.link.outbox.push(pong_frame(&payload));
            }
            match end {
                None => self.hand_over(messages, session).await?,
                Some(end) => {
                    if !messages.is_empty() {
                        self.count(messages.len());
                        // Sent like this nobody can take it back; a session that is over hears nothing.
                        let _ = session.inbound.try_send(Inbound(messages));
                        // Whoever goes does not wait for long until it was heard, which the answer to what comes behind it tells.
                        let _ = tokio::time::timeout(LAST_WORDS, session.inbound.send(Inbound(Vec::new()))).await;
                    }
                    return Err(end);
                }
            }
            let pause = self.controls.spend(controls, Instant::now());
            if !pause.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = self.link.over.notified() => return Err(End::Over),
                }
            }
        }
    }

    /// Reads on without handing anything on, until the peer has closed too.
    async fn close_of_peer(&mut self) -> Peer {
        loop {
            match self.reader.next() {
                Ok(Some(Event::Close(_))) => return Peer::Closed,
                Ok(Some(_)) => {}
                Err(_) => return Peer::Lost,
                Ok(None) => match self.link.socket().read(&mut self.reader).await {
                    Ok(0) | Err(_) => return Peer::Lost,
                    Ok(_) => {}
                },
            }
        }
    }

    /// Waits for bytes and takes what is there.
    async fn read(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let is_partial = self.reader.is_partial();
        self.link.note(|facts| {
            facts.reading = true;
            facts.heard_at = now;
            if !is_partial || facts.partial_since.is_none() {
                facts.partial_since = is_partial.then_some(now);
                (facts.progress_since, facts.progress_bytes) = (now, 0);
            }
        });
        let mut bytes = std::mem::take(&mut self.ahead_bytes);
        if bytes == 0 && !self.at_end {
            self.reader.release();
            let came = tokio::select! {
                came = self.link.socket().read(&mut self.reader) => came,
                () = self.link.over.notified() => Ok(0),
            };
            bytes = self.took(came);
        }
        if bytes == 0 {
            return Err(End::Over);
        }
        let enough = self.link.sockets().settings.deadlines.message_progress_bytes;
        self.link.note(|facts| {
            facts.reading = false;
            facts.unanswered = false;
            facts.progress_bytes += bytes;
            if facts.progress_bytes >= enough {
                (facts.progress_since, facts.progress_bytes) = (Instant::now(), 0);
            }
        });
        Ok(())
    }

    /// Counts what was read, or notes the end of the stream.
    fn took(&mut self, came: io::Result<usize>) -> usize {
        let bytes = came.unwrap_or(0);
        self.at_end = bytes == 0;
        self.link.sockets().traffic.received_bytes.increment(bytes as u64);
        bytes
    }

    /// Counts what is held of unfinished messages, by the peer's message and by the node's budget.
    fn account(&mut self, goes_on: bool) -> Result<(), End> {
        if goes_on && !self.held.set(self.reader.held_bytes()) {
            return Err(End::Refused(Refusal::Busy));
        }
        Ok(())
    }

    /// So many messages have come whole.
    fn count(&self, messages: usize) {
        self.link.sockets().traffic.received_messages.increment(messages as u64);
        // Whatever is unfinished now began after them.
        self.link.note(|facts| facts.partial_since = None);
    }

    async fn hand_over(&mut self, messages: Vec<Frame>, session: &SessionHandle) -> Result<(), End> {
        if messages.is_empty() {
            return Ok(());
        }
        self.count(messages.len());
        let mut taken = std::pin::pin!(session.inbound.send(Inbound(messages)));
        loop {
            let may_read = !self.at_end && self.ahead_bytes < READ_BYTES_MAX;
            tokio::select! {
                taken = &mut taken => return taken.map_err(|_| End::SessionLost),
                () = self.link.over.notified() => return Err(End::Over),
                // Only to learn that the peer goes: its cursor is not to stay for as long as PostgreSQL is away, say.
                came = self.link.socket().read(&mut self.reader), if may_read => self.ahead_bytes += self.took(came),
            }
            if self.reader.is_at_close()
                && let Ok(Some(Event::Close(code))) = self.reader.next()
            {
                return Err(End::Closed(code));
            }
            if self.at_end && !self.reader.is_partial() {
                return Err(End::Over);
            }
        }
    }
}

/// One connection's part of the node's memory for unfinished messages.
struct Held {
    sockets: Arc<Sockets>,
    bytes: usize,
}

impl Held {
    /// Whether the node has room for it. Little is always held: it is bounded by the number of connections. And one is held however large:
    /// what fits no budget would never arrive.
    fn set(&mut self, bytes: usize) -> bool {
        const LITTLE: usize = 2 * READ_BYTES_MAX;
        let bytes = bytes.saturating_sub(LITTLE);
        let unfinished: &AtomicUsize = &self.sockets.unfinished_bytes;
        unfinished.fetch_sub(self.bytes, Ordering::Relaxed);
        let others = unfinished.fetch_add(bytes, Ordering::Relaxed);
        if bytes != self.bytes {
            metrics::gauge!("contextnexus_ws_unfinished_bytes").increment(bytes as f64 - self.bytes as f64);
        }
        self.bytes = bytes;
        bytes == 0 || others == 0 || others + bytes <= self.sockets.settings.unfinished_bytes_max
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            metrics::gauge!("contextnexus_ws_unfinished_bytes").decrement(self.bytes as f64);
        }
        self.sockets.unfinished_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A bucket of control frames.
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: CONTROLS_AT_ONCE, at: now }
    }

    /// Takes so many; how long to wait before more may come.
    fn spend(&mut self, count: usize, now: Instant) -> Duration {
        const PAUSE_MAX: f64 = 5.0; // the rest of the debt is waited for after the next read
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * CONTROLS_PER_S;
        self.at = now;
        self.left = (self.left + earned).min(CONTROLS_AT_ONCE) - count as f64;
        Duration::from_secs_f64((-self.left / CONTROLS_PER_S).clamp(0.0, PAUSE_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_pings_is_read_slowly_and_a_few_are_not() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert_eq!(allowance.spend(200, start), Duration::ZERO);
        assert_eq!(allowance.spend(100, start), Duration::from_secs(1));
        assert_eq!(allowance.spend(0, start + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(allowance.spend(5_000, start + Duration::from_secs(1)), Duration::from_secs(5));
        assert_eq!(allowance.spend(0, start + Duration::from_secs(500)), Duration::ZERO);
    }
}
