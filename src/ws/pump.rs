//! The incoming half of a connection: a task that reads, assembles messages and hands them to the session, which answers when
//! it can take more. Until then nothing is read, the kernel's buffer fills, and the client is slowed down by TCP.

use super::SessionHandle;
use super::link::{Link, Peer};
use super::reader::{Event, Reader, Refusal};
use super::socket::READ_BYTES_MAX;
use actix_web::web::Payload;
use contextnexus_actors::budget::Share;
use contextnexus_actors::protocol::Dialect;
use contextnexus_actors::protocol::frame::{close_frame, close_frame_empty, pong_frame};
use contextnexus_actors::report;
use contextnexus_actors::session::messages::{ClientMessage, Disconnected, Inbound};
use futures_util::{FutureExt as _, StreamExt as _};
use std::convert::Infallible;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Messages at most in one hand-over: the session's turn is not to become long.
const MESSAGES_MAX: usize = 512;
/// Counted against no budget, so that the small messages of honest clients come through where it is full: the number of connections bounds it.
pub const ALWAYS_HELD_BYTES: usize = 8 * 1024;
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
    let settings = &link.sockets().settings;
    let mut reader = Reader::new(settings.message_bytes_max.min(settings.strange_bytes_max));
    let mut ahead_bytes = 0;
    while let Some(Some(Ok(bytes))) = early.next().now_or_never() {
        reader.feed(&bytes);
        ahead_bytes += bytes.len();
    }
    drop(early);
    let share = Share::of(Arc::clone(&link.sockets().budgets.strangers));
    let controls = Allowance::new(Instant::now());
    let strange_bytes = Some(ahead_bytes);
    let mut pump = Pump {
        reader,
        share,
        link: Rc::clone(&link),
        controls,
        strange_bytes,
        ahead_bytes,
        again: false,
        at_end: false,
    };
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
            report!(refusal.cause(), session.id = %link.session, "connection closed: {refusal}");
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

struct Pump {
    reader: Reader,
    /// Its part of the node's memory for what arrives.
    share: Share,
    link: Rc<Link>,
    controls: Allowance,
    /// All that has come, as long as no token was good.
    strange_bytes: Option<usize>,
    /// Bytes that were read while the session had not answered yet.
    ahead_bytes: usize,
    /// What is there was refused to a stranger, who is none any more.
    again: bool,
    /// The peer has ended the stream.
    at_end: bool,
}

impl Pump {
    async fn pump(&mut self, session: &SessionHandle) -> Result<Infallible, End> {
        loop {
            self.note_authentication();
            self.read().await?;
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
            if let Some(payload) = ping {
                // The newest stands for all before it (RFC 6455, 5.5.3). Without room there is no hurry: the peer sees no bytes either.
                let _ = self.link.outbox.push(pong_frame(&payload));
            }
            match end {
                None | Some(End::Refused(Refusal::TooBig)) if self.is_too_strange(end.is_some()) => {
                    self.hand_over(messages, session).await?;
                    self.wait_for_token(session).await?;
                    self.again = true;
                }
                None => self.hand_over(messages, session).await?,
                Some(end) => {
                    if !messages.is_empty() {
                        self.count(messages.len());
                        // Sent like this nobody can take it back; a session that is over hears nothing.
                        let _ = session.inbound.try_send(Inbound { messages, share: None });
                        // Whoever goes does not wait for long until it was heard, which the answer to what comes behind it tells.
                        let _ = tokio::time::timeout(LAST_WORDS, session.inbound.send(Inbound::default())).await;
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

    /// A stranger has sent all that one may. Where its token came with the upgrade, it waits until that is checked; otherwise one may be among
    /// what it has said: the answer to what comes behind it tells.
    async fn wait_for_token(&mut self, session: &SessionHandle) -> Result<(), End> {
        let link = Rc::clone(&self.link);
        if link.dialect() != Dialect::Hocuspocus {
            return self.until(link.authentication.done()).await;
        }
        let heard = session.inbound.send(Inbound::default());
        self.until(heard).await?.map_err(|_| End::SessionLost)?;
        if link.authentication.is_done() { Ok(()) } else { Err(End::Refused(Refusal::Strange)) }
    }

    /// A token was good: from now on it may send what clients may.
    fn note_authentication(&mut self) {
        if self.strange_bytes.is_some() && self.link.authentication.is_done() {
            self.strange_bytes = None;
            self.share = Share::of(Arc::clone(&self.link.sockets().budgets.arriving));
            self.reader.allow(self.link.sockets().settings.message_bytes_max);
            if self.link.dialect() == Dialect::Hocuspocus {
                self.reader.read_past();
            }
        }
    }

    /// How much more may be read now.
    fn room(&self) -> usize {
        let strange_bytes_max = self.link.sockets().settings.strange_bytes_max;
        self.strange_bytes.map_or(usize::MAX, |bytes| strange_bytes_max.saturating_sub(bytes))
    }

    /// It is a stranger, and sends more than one may.
    fn is_too_strange(&self, is_refused: bool) -> bool {
        self.strange_bytes.is_some() && (is_refused || self.room() == 0)
    }

    /// Reads on without handing anything on, until the peer has closed too.
    async fn close_of_peer(&mut self) -> Peer {
        loop {
            match self.reader.next() {
                Ok(Some(Event::Close(_))) => return Peer::Closed,
                Ok(Some(_)) => {}
                Err(_) => return Peer::Lost,
                Ok(None) => match self.link.socket().read(&mut self.reader, READ_BYTES_MAX).await {
                    Ok(0) | Err(_) => return Peer::Lost,
                    Ok(_) if self.account(0).is_err() => return Peer::Lost,
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
        let is_there = std::mem::take(&mut self.again) || bytes > 0;
        if !is_there && !self.at_end {
            let room = self.room();
            let came = tokio::select! {
                came = self.link.socket().read(&mut self.reader, room) => came,
                () = self.link.over.notified() => Ok(0),
            };
            bytes = self.took(came);
        }
        if !is_there && bytes == 0 {
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
        if let Some(strange_bytes) = &mut self.strange_bytes {
            *strange_bytes += bytes;
        }
        self.link.sockets().traffic.received_bytes.increment(bytes as u64);
        bytes
    }

    /// Counts what is held of what has not come whole, and `coming` bytes that go on to the session.
    fn account(&mut self, coming: usize) -> Result<(), End> {
        self.reader.release();
        // What a stranger has said may still be with its session.
        let held = (self.reader.held_bytes() + coming).max(self.strange_bytes.unwrap_or(0));
        if self.share.set(held.saturating_sub(ALWAYS_HELD_BYTES)) { Ok(()) } else { Err(End::Refused(Refusal::Busy)) }
    }

    /// So many messages have come whole.
    fn count(&self, messages: usize) {
        self.link.sockets().traffic.received_messages.increment(messages as u64);
        // Whatever is unfinished now began after them.
        self.link.note(|facts| facts.partial_since = None);
    }

    async fn hand_over(&mut self, messages: Vec<ClientMessage>, session: &SessionHandle) -> Result<(), End> {
        let bytes: usize = messages.iter().map(ClientMessage::bytes).sum();
        // What one read brings is no more than may be read ahead.
        let large = if bytes > READ_BYTES_MAX { bytes } else { 0 };
        self.account(large)?;
        if messages.is_empty() {
            return Ok(());
        }
        let share = (large > 0).then(|| Arc::new(self.share.split(large)));
        self.count(messages.len());
        let taken = session.inbound.send(Inbound { messages, share });
        self.until(taken).await?.map_err(|_| End::SessionLost)
    }

    /// Waits for it, and reads a little ahead: only to learn that the peer goes. Its cursor is not to stay for as long as PostgreSQL is away, say.
    async fn until<T>(&mut self, done: impl Future<Output = T>) -> Result<T, End> {
        let mut done = std::pin::pin!(done);
        loop {
            let room = self.room().min(READ_BYTES_MAX);
            let may_read = !self.at_end && room > 0 && self.ahead_bytes < READ_BYTES_MAX;
            tokio::select! {
                done = &mut done => return Ok(done),
                () = self.link.over.notified() => return Err(End::Over),
                came = self.link.socket().read(&mut self.reader, room), if may_read => {
                    self.ahead_bytes += self.took(came);
                    self.account(0)?;
                }
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

/// A bucket of control frames.
struct Allowance {
    remaining: f64,
    at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { remaining: CONTROLS_AT_ONCE, at: now }
    }

    /// Takes so many; how long to wait before more may come.
    fn spend(&mut self, count: usize, now: Instant) -> Duration {
        const PAUSE_MAX: f64 = 5.0; // the rest of the debt is waited for after the next read
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * CONTROLS_PER_S;
        self.at = now;
        self.remaining = (self.remaining + earned).min(CONTROLS_AT_ONCE) - count as f64;
        Duration::from_secs_f64((-self.remaining / CONTROLS_PER_S).clamp(0.0, PAUSE_MAX))
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
