//! One task per worker thread that looks at all connections of the thread several times a second.
//!
//! It needs nothing of a connection to be able to end it: neither its reading task, which may wait for its session, nor
//! its writing task, which may wait for the client.

use super::link::{Facts, Link};
use super::socket::Socket;
use contextnexus_actors::protocol::frame::{close_frame, ping_frame};
use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it looks. A revoked reader that has stopped reading is to be gone within a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// What is to be written does not move for so long: slow consumer.
    pub stall: Duration,
    /// A message is to be whole after so long …
    pub message: Duration,
    /// … and the time that its bytes take at this rate per second: a slow line may deliver a large document.
    pub message_bytes_per_s: usize,
    /// How often the peer is asked whether it lives.
    pub ping: Duration,
    /// How long it may take to send something after that.
    pub pong: Duration,
    /// How long what waits may take to be written once nothing more is added, the close frame behind it.
    pub close: Duration,
    /// How long the end of a connection may take, from the close frame on.
    pub end: Duration,
    /// A closed connection's outbox does not move for so long: it is not waited for.
    pub end_stuck: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(10),
            message: Duration::from_secs(10),
            message_bytes_per_s: 64 * 1024,
            ping: Duration::from_secs(20),
            pong: Duration::from_secs(20),
            close: Duration::from_secs(10),
            end: Duration::from_millis(700),
            end_stuck: Duration::from_millis(300),
        }
    }
}

/// What is to be done about a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// Ask whether it lives.
    Ping,
    /// Tell it that it goes, and why.
    Close(&'static str),
    /// Shut its descriptor down.
    Shut(&'static str),
}

/// Decides. `is_closing`: nothing may be added to the outbox any more.
pub fn judge(now: Instant, facts: &Facts, is_closing: bool, deadlines: &Deadlines) -> Verdict {
    let since = |instant: Instant| now.saturating_duration_since(instant);
    if facts.is_shut {
        return Verdict::Fine;
    }
    if let Some(ending) = facts.ending_since {
        return if since(ending) > deadlines.end { Verdict::Shut("end_overdue") } else { Verdict::Fine };
    }
    if facts.closing_since.is_some_and(|closing| since(closing) > deadlines.close) {
        return Verdict::Shut("close_overdue");
    }
    if let Some(stuck) = facts.stuck_since {
        if is_closing && since(stuck) >= deadlines.end_stuck {
            return Verdict::Shut("closed_while_stuck");
        }
        if since(stuck) >= deadlines.stall {
            return Verdict::Shut("slow_consumer");
        }
    }
    if is_closing || !facts.reading {
        return Verdict::Fine;
    }
    if let Some(partial) = facts.partial_since {
        let transfer = Duration::from_millis((facts.partial_bytes * 1000 / deadlines.message_bytes_per_s) as u64);
        if since(partial) > deadlines.message + transfer {
            return Verdict::Close("message took too long");
        }
    }
    if facts.unanswered && since(facts.asked_at.max(facts.heard_at)) > deadlines.pong {
        return Verdict::Shut("no_pong");
    }
    if since(facts.asked_at) >= deadlines.ping {
        return Verdict::Ping;
    }
    Verdict::Fine
}

/// What waits in the connections of one thread.
#[derive(Clone, Copy, Default)]
struct Sums {
    outbox_bytes: usize,
    held_back: usize,
}

impl Sums {
    fn add(&mut self, link: &Link) {
        self.outbox_bytes += link.outbox.waiting();
        self.held_back += usize::from(!link.facts().reading);
    }

    /// Moves the gauges, which all threads share, by what changed here.
    fn show(self, before: Self) {
        let moved = |name: &'static str, now: usize, before: usize| {
            if now != before {
                metrics::gauge!(name).increment(now as f64 - before as f64);
            }
        };
        moved("contextnexus_outbox_bytes", self.outbox_bytes, before.outbox_bytes);
        moved("contextnexus_ws_held_back_connections", self.held_back, before.held_back);
    }
}

/// The connections of one thread.
#[derive(Clone, Default)]
pub struct Watch(Rc<RefCell<Watched>>);

#[derive(Default)]
struct Watched {
    links: Vec<Weak<Link>>,
    lingering: Vec<(Instant, Arc<Socket>)>,
    /// As last added to the gauges.
    sums: Sums,
    /// The task runs.
    looking: bool,
}

impl Watch {
    /// Looks at this connection, too, from now on.
    pub fn add(&self, link: &Rc<Link>) {
        self.0.borrow_mut().links.push(Rc::downgrade(link));
        self.start();
    }

    /// Closes the socket in a second.
    pub fn linger(&self, socket: Arc<Socket>) {
        self.0.borrow_mut().lingering.push((Instant::now(), socket));
        self.start();
    }

    fn start(&self) {
        if std::mem::replace(&mut self.0.borrow_mut().looking, true) {
            return;
        }
        let watch = self.clone();
        actix_web::rt::spawn(async move {
            let mut tick = tokio::time::interval(LOOK_INTERVAL);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                if !watch.look(Instant::now()) {
                    break;
                }
            }
        });
    }

    /// Whether there is anything to look at again.
    fn look(&self, now: Instant) -> bool {
        const LINGER: Duration = Duration::from_secs(1);
        let links: Vec<Rc<Link>> = {
            let mut watched = self.0.borrow_mut();
            watched.links.retain(|link| link.strong_count() > 0);
            watched.lingering.retain(|(since, _)| now.saturating_duration_since(*since) < LINGER);
            if watched.links.is_empty() && watched.lingering.is_empty() {
                Sums::default().show(std::mem::take(&mut watched.sums));
                watched.looking = false;
                return false;
            }
            watched.links.iter().filter_map(Weak::upgrade).collect()
        };
        let mut sums = Sums::default();
        for link in links {
            look_at(&link, now);
            sums.add(&link);
        }
        sums.show(std::mem::replace(&mut self.0.borrow_mut().sums, sums));
        true
    }
}

fn look_at(link: &Link, now: Instant) {
    let outbox = &link.outbox;
    let moved = link.socket().written() != link.facts().written;
    let is_waiting = outbox.waiting() > 0 || link.socket().is_writing();
    let is_closing = outbox.is_closed();
    if moved {
        link.count_written();
    }
    link.note(|facts| {
        facts.stuck_since = if moved || !is_waiting { None } else { facts.stuck_since.or(Some(now)) };
        facts.closing_since = facts.closing_since.or(is_closing.then_some(now));
        if !facts.reading {
            facts.heard_at = now; // what it says meanwhile, a pong for instance, waits unread
        }
    });
    let sockets = link.sockets();
    if sockets.must_go(link.connection, now) {
        outbox.close(close_frame(1012, "server restarts"));
    }
    if link.is_orphaned() {
        outbox.close(close_frame(1011, "internal error")); // nothing, where the session closed it
    }
    match judge(now, &link.facts(), outbox.is_closed(), &sockets.settings.deadlines) {
        Verdict::Fine => {}
        Verdict::Ping => {
            // Full, it is stuck, which is seen without a ping.
            let _ = outbox.push_control(ping_frame(b""));
            link.note(|facts| {
                facts.asked_at = now;
                facts.unanswered = true;
            });
        }
        Verdict::Close(why) => {
            metrics::counter!("contextnexus_ws_refused_input_total", "reason" => "too_slow").increment(1);
            outbox.close(close_frame(1008, why));
        }
        Verdict::Shut(why) => link.shut(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(change: impl FnOnce(&mut Facts, Instant)) -> impl Fn(u64) -> Verdict {
        let start = Instant::now();
        let mut facts = Facts::new(start);
        change(&mut facts, start);
        move |ms| judge(start + Duration::from_millis(ms), &facts, false, &Deadlines::default())
    }

    #[test]
    fn who_takes_nothing_for_ten_seconds_is_shut_down() {
        let at = facts(|facts, now| facts.stuck_since = Some(now));
        assert_eq!(at(9_900), Verdict::Fine);
        assert_eq!(at(10_000), Verdict::Shut("slow_consumer"));
    }

    #[test]
    fn a_closed_connection_that_is_stuck_is_not_waited_for() {
        let now = Instant::now();
        let stuck = Facts { stuck_since: Some(now), ..Facts::new(now) };
        let at = |ms| judge(now + Duration::from_millis(ms), &stuck, true, &Deadlines::default());
        assert_eq!(at(299), Verdict::Fine);
        assert_eq!(at(300), Verdict::Shut("closed_while_stuck"));
        let slow = Facts { stuck_since: None, ..stuck };
        assert_eq!(judge(now + Duration::from_secs(9), &slow, true, &Deadlines::default()), Verdict::Fine);
    }

    #[test]
    fn a_closed_connection_that_takes_a_little_now_and_then_is_not_waited_for_either() {
        let at = facts(|facts, now| facts.closing_since = Some(now));
        assert_eq!(at(10_000), Verdict::Fine);
        assert_eq!(at(10_001), Verdict::Shut("close_overdue"));
    }

    #[test]
    fn the_end_of_a_connection_has_a_deadline() {
        let at = facts(|facts, now| facts.ending_since = Some(now));
        assert_eq!(at(700), Verdict::Fine);
        assert_eq!(at(701), Verdict::Shut("end_overdue"));
    }

    #[test]
    fn half_a_message_is_waited_for_as_long_as_its_bytes_may_take() {
        let at = facts(|facts, now| facts.partial_since = Some(now));
        assert_eq!(at(9_999), Verdict::Fine);
        assert_eq!(at(10_001), Verdict::Close("message took too long"));
        let large = facts(|facts, now| (facts.partial_since, facts.partial_bytes) = (Some(now), 9 * 64 * 1024));
        assert_eq!(large(19_000), Verdict::Fine);
        assert_eq!(large(19_001), Verdict::Close("message took too long"));
    }

    #[test]
    fn a_peer_is_asked_and_must_say_something() {
        let at = facts(|_, _| {});
        assert_eq!(at(19_999), Verdict::Fine);
        assert_eq!(at(20_000), Verdict::Ping);
        let at = facts(|facts, _| facts.unanswered = true);
        assert_eq!(at(20_001), Verdict::Shut("no_pong"));
        let at = facts(|facts, now| (facts.unanswered, facts.heard_at) = (true, now + Duration::from_secs(15)));
        assert_eq!(at(20_001), Verdict::Ping, "other bytes are a sign of life too");
    }

    #[test]
    fn nobody_is_blamed_for_what_we_do_not_read() {
        let at = facts(|facts, now| {
            facts.reading = false;
            facts.unanswered = true;
            facts.partial_since = Some(now);
        });
        assert_eq!(at(60_000), Verdict::Fine);
    }
}
