//! One task per worker thread that looks at the connections of the thread: several times a second at those that something is the matter
//! with, and at the others in turn.
//!
//! It needs nothing of a connection to be able to end it: neither its reading task, which may wait for its session, nor
//! its writing task, which may wait for the client.

use super::link::{Facts, Link};
use super::socket::Socket;
use contextnexus_actors::protocol::Dialect;
use contextnexus_actors::protocol::codec::{EMPTY_AWARENESS, Message, encode};
use contextnexus_actors::protocol::frame::{close_frame, ping_frame};
use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it looks. A revoked reader that has stopped reading is to be gone within a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A connection that nothing is the matter with has its turn once in so many looks, every half a second: to look at thousands that are
/// idle costs more than all else that an idle node does. The wave of a node that goes down, and the loss of a session, wait for it.
const TURNS: usize = 5;

/// The deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// What is to be written does not move for so long: slow consumer.
    pub stall: Duration,
    /// An unfinished message makes progress within so long, or is refused …
    pub message: Duration,
    /// … and this many bytes are progress. As long as it is made, a message may take as long as it takes: a slow line may deliver a large
    /// document, and a byte now and then holds no memory for ever.
    pub message_progress_bytes: usize,
    /// Y-Sweet: while its client sends a long message, it is sent something so often. It closes after 3 s without.
    pub reassure: Duration,
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
            message_progress_bytes: 32 * 1024,
            reassure: Duration::from_millis(1_200),
            ping: Duration::from_secs(20),
            pong: Duration::from_secs(20),
            close: Duration::from_secs(10),
            end: Duration::from_millis(700),
            end_stuck: Duration::from_millis(300),
        }
    }
}

/// What is to be done about a connection. Whatever leads to `Close` or `Shut` makes it restless before it is due, so these come one look
/// after their deadline at the latest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchVerdict {
    /// Nothing.
    Fine,
    /// Ask whether it lives. Comes in the connection's own turn: up to [`TURNS`] looks late, which its time to answer does not count.
    Ping,
    /// Tell it that it goes, and why.
    Close(&'static str),
    /// Shut its descriptor down.
    Shut(&'static str),
}

/// Decides. `is_closing`: nothing may be added to the outbox any more.
pub fn judge(now: Instant, facts: &Facts, is_closing: bool, deadlines: &Deadlines) -> WatchVerdict {
    let since = |instant: Instant| now.saturating_duration_since(instant);
    if facts.is_shut {
        return WatchVerdict::Fine;
    }
    if let Some(ending) = facts.ending_since {
        return if since(ending) > deadlines.end { WatchVerdict::Shut("end_overdue") } else { WatchVerdict::Fine };
    }
    if facts.closing_since.is_some_and(|closing| since(closing) > deadlines.close) {
        return WatchVerdict::Shut("close_overdue");
    }
    if let Some(stuck) = facts.stuck_since {
        if is_closing && since(stuck) >= deadlines.end_stuck {
            return WatchVerdict::Shut("closed_while_stuck");
        }
        if since(stuck) >= deadlines.stall {
            return WatchVerdict::Shut("slow_consumer");
        }
    }
    if is_closing || !facts.reading {
        return WatchVerdict::Fine;
    }
    if facts.partial_since.is_some() && since(facts.progress_since) > deadlines.message {
        return WatchVerdict::Close("message took too long");
    }
    if facts.unanswered && since(facts.asked_at.max(facts.heard_at)) > deadlines.pong {
        return WatchVerdict::Shut("no_pong");
    }
    if since(facts.asked_at) >= deadlines.ping {
        return WatchVerdict::Ping;
    }
    WatchVerdict::Fine
}

/// Whether a client that hears nothing for 3 s takes us for dead while it sends one long message.
fn needs_reassurance(now: Instant, facts: &Facts, deadlines: &Deadlines) -> bool {
    let since = |instant: Instant| now.saturating_duration_since(instant);
    facts.partial_since.is_some_and(|partial| since(partial.max(facts.reassured_at)) >= deadlines.reassure)
}

/// What waits in connections of one thread.
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
    shares: [Share; TURNS],
    /// Which of them had its turn last.
    turn: usize,
    lingering: Vec<(Instant, Arc<Socket>)>,
    /// The task runs.
    is_checking: bool,
}

/// Connections that have their turn together.
#[derive(Default)]
struct Share {
    links: Vec<Weak<Link>>,
    /// As last added to the gauges.
    sums: Sums,
}

impl Watch {
    /// Looks at this connection, too, from now on.
    pub fn add(&self, link: &Rc<Link>) {
        if let Some(smallest) = self.0.borrow_mut().shares.iter_mut().min_by_key(|share| share.links.len()) {
            smallest.links.push(Rc::downgrade(link));
        }
        self.start();
    }

    /// Closes the socket in a second.
    pub fn linger(&self, socket: Arc<Socket>) {
        self.0.borrow_mut().lingering.push((Instant::now(), socket));
        self.start();
    }

    fn start(&self) {
        if std::mem::replace(&mut self.0.borrow_mut().is_checking, true) {
            return;
        }
        let watch = self.clone();
        actix_web::rt::spawn(async move {
            let mut tick = tokio::time::interval(LOOK_INTERVAL);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                if !watch.check(Instant::now()) {
                    break;
                }
            }
        });
    }

    /// Whether there is anything to look at again.
    fn check(&self, now: Instant) -> bool {
        let (in_turn, restless) = self.0.borrow_mut().due(now);
        let mut sums = Sums::default();
        for link in in_turn {
            if link.is_orphaned() {
                link.outbox.close(close_frame(1011, "internal error")); // nothing, where the session closed it
            }
            check_link(&link, now);
            sums.add(&link);
        }
        for link in restless {
            check_link(&link, now);
        }
        self.0.borrow_mut().checked(sums)
    }
}

impl Watched {
    /// The connections whose turn it is, and the restless ones among the others.
    fn due(&mut self, now: Instant) -> (Vec<Rc<Link>>, Vec<Rc<Link>>) {
        const LINGER: Duration = Duration::from_secs(1);
        self.lingering.retain(|(since, _)| now.saturating_duration_since(*since) < LINGER);
        self.turn = (self.turn + 1) % TURNS;
        let (mut in_turn, mut restless) = (Vec::new(), Vec::new());
        for (place, share) in self.shares.iter_mut().enumerate() {
            if place == self.turn {
                share.links.retain(|link| link.strong_count() > 0);
                in_turn.extend(share.links.iter().filter_map(Weak::upgrade));
            } else {
                restless.extend(share.links.iter().filter_map(Weak::upgrade).filter(|link| is_restless(link)));
            }
        }
        (in_turn, restless)
    }

    /// A look is over, with these sums of the share whose turn it was. Whether there is anything to look at again.
    fn checked(&mut self, sums: Sums) -> bool {
        if let Some(share) = self.shares.get_mut(self.turn) {
            sums.show(std::mem::replace(&mut share.sums, sums));
        }
        self.is_checking = !self.lingering.is_empty() || self.shares.iter().any(|share| !share.links.is_empty());
        self.is_checking
    }
}

/// Something waits to be written.
fn is_waiting(link: &Link) -> bool {
    link.outbox.waiting() > 0 || link.socket().is_writing()
}

/// Something is the matter with it that may come to a deadline. Asked of every connection at every look: no lock, no call.
fn is_restless(link: &Link) -> bool {
    let Facts { partial_since, unanswered, stuck_since, closing_since, ending_since, .. } = link.facts();
    unanswered
        || [partial_since, stuck_since, closing_since, ending_since].iter().any(Option::is_some)
        || is_waiting(link) // may be stuck, or closing: the close frame waits as all else does
}

fn check_link(link: &Link, now: Instant) {
    let outbox = &link.outbox;
    let moved = link.socket().written() != link.facts().written;
    let is_waiting = is_waiting(link);
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
    if sockets.must_go(link.session, now) {
        outbox.close(close_frame(1012, "server restarts"));
    }
    let deadlines = &sockets.settings.deadlines;
    if link.dialect() == Dialect::YSweet && needs_reassurance(now, &link.facts(), deadlines) {
        // Its heartbeat waits behind the message, and so does our answer. Full, the outbox says enough.
        let _ = outbox.push(encode(&[], Message::Awareness(EMPTY_AWARENESS)));
        link.note(|facts| facts.reassured_at = now);
    }
    match judge(now, &link.facts(), outbox.is_closed(), deadlines) {
        WatchVerdict::Fine => {}
        WatchVerdict::Ping => {
            // Full, it is stuck, which is seen without a ping.
            let _ = outbox.push_control(ping_frame(b""));
            link.note(|facts| {
                facts.asked_at = now;
                facts.unanswered = true;
            });
        }
        WatchVerdict::Close(why) => {
            metrics::counter!("contextnexus_ws_refused_input_total", "reason" => "too_slow").increment(1);
            outbox.close(close_frame(1008, why));
        }
        WatchVerdict::Shut(why) => link.shut(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};
    use crate::net::Stream;
    use crate::origins::Origins;
    use crate::ws::{SessionHandle, Settings, Sockets, StartSession};
    use contextnexus_actors::budget::Budgets;
    use contextnexus_actors::clock::{Clock as _, SystemClock};
    use contextnexus_actors::ids::SessionId;
    use contextnexus_actors::outbox::{Outbox, Pushed};
    use contextnexus_actors::session::Opening;

    fn facts(change: impl FnOnce(&mut Facts, Instant)) -> impl Fn(u64) -> WatchVerdict {
        let start = Instant::now();
        let mut facts = Facts::new(start);
        change(&mut facts, start);
        move |ms| judge(start + Duration::from_millis(ms), &facts, false, &Deadlines::default())
    }

    struct Nobody;

    impl StartSession for Nobody {
        fn start(&self, _: Opening) -> SessionHandle {
            unreachable!("no session is asked for")
        }
    }

    /// Connections that are watched, with the peers' ends.
    fn connections(watch: &Watch, count: usize) -> Vec<(Rc<Link>, std::net::TcpStream)> {
        let config = Config::load(&Sources::default()).unwrap();
        let settings = Settings::of(&config.server, &config.limits);
        let origins = Origins::new(&[], &[], "", true);
        let sockets = Sockets::new(settings, Budgets::of(&config.limits), origins, Nobody, Arc::new(SystemClock));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || {
            let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let ours = listener.accept().unwrap().0;
            ours.set_nonblocking(true).unwrap();
            let stream = Stream::plain(tokio::net::TcpStream::from_std(ours).unwrap());
            let seat = sockets.admission.admit([127, 0, 0, 1].into()).unwrap();
            let name = (SessionId(SystemClock.fresh_id()), Dialect::YWebsocket);
            let outbox = Arc::new(Outbox::new(1 << 20));
            let socket = Socket::new(Arc::new(stream));
            (Link::new(name, outbox, (socket, seat), Arc::clone(&sockets), watch), peer)
        };
        (0..count).map(|_| connect()).collect()
    }

    /// At which of the next looks each of them is looked at. A look shows in one that is not read: its silence is excused.
    fn looks(watch: &Watch, connections: &[(Rc<Link>, std::net::TcpStream)], looks: usize) -> Vec<Vec<usize>> {
        let start = Instant::now();
        let mut seen = vec![Vec::new(); connections.len()];
        for look in 0..looks {
            let now = start + LOOK_INTERVAL * look as u32;
            assert!(watch.check(now));
            for ((link, _), seen) in connections.iter().zip(&mut seen) {
                if link.facts().heard_at == now {
                    seen.push(look);
                }
            }
        }
        seen
    }

    #[actix_web::test]
    async fn an_idle_connection_is_looked_at_in_its_turn() {
        let watch = Watch::default();
        let mut connections = connections(&watch, 3 * TURNS + 1);
        connections.iter().for_each(|(link, _)| link.note(|facts| facts.reading = false));
        let mut at_each = [0; TURNS];
        for seen in looks(&watch, &connections, 3 * TURNS) {
            assert_eq!(seen.len(), 3, "{seen:?}");
            assert!(seen.windows(2).all(|pair| pair[1] - pair[0] == TURNS), "{seen:?}");
            at_each[seen[0]] += 1;
        }
        at_each.sort_unstable();
        assert_eq!(at_each, [3, 3, 3, 3, 4], "shares are of one size");

        connections.drain(..5);
        for seen in looks(&watch, &connections, 2 * TURNS) {
            assert_eq!(seen.len(), 2, "others went, and it keeps its turn: {seen:?}");
        }
    }

    #[actix_web::test]
    async fn a_restless_connection_is_looked_at_every_time() {
        let now = Instant::now();
        let reasons: [fn(&mut Facts, Instant); 5] = [
            |facts, now| facts.partial_since = Some(now),
            |facts, now| facts.closing_since = Some(now),
            |facts, now| facts.ending_since = Some(now),
            |facts, _| facts.unanswered = true,
            |_, _| {},
        ];
        let watch = Watch::default();
        let connections = connections(&watch, reasons.len());
        for ((link, _), reason) in connections.iter().zip(reasons) {
            link.note(|facts| {
                facts.reading = false;
                reason(facts, now);
            });
        }
        assert_eq!(connections[4].0.outbox.push(ping_frame(b"waits to be written")), Pushed::Taken);
        for seen in looks(&watch, &connections, 2 * TURNS) {
            assert_eq!(seen.len(), 2 * TURNS, "{seen:?}");
        }
    }

    #[actix_web::test]
    async fn after_a_round_the_gauges_say_what_waits_in_all_connections() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let shown = || {
            let rendered = recorder.handle().render();
            let value = |name: &str| -> f64 {
                let line = rendered.lines().find_map(|line| line.strip_prefix(name));
                line.map_or(0.0, |value| value.trim().parse().unwrap())
            };
            (value("contextnexus_outbox_bytes "), value("contextnexus_ws_held_back_connections "))
        };
        metrics::with_local_recorder(&recorder, || {
            let watch = Watch::default();
            let mut connections = connections(&watch, 2 * TURNS + 1);
            let frame = ping_frame(b"");
            for (link, _) in &connections[..7] {
                assert_eq!(link.outbox.push(frame.clone()), Pushed::Taken);
            }
            connections[3].0.note(|facts| facts.reading = false);
            let round = || (0..TURNS).map(|_| watch.check(Instant::now())).fold(true, |_, again| again);
            assert!(round());
            assert_eq!(shown(), (7.0 * frame.len() as f64, 1.0));
            connections.drain(..4);
            assert!(round());
            assert_eq!(shown(), (3.0 * frame.len() as f64, 0.0));
            connections.drain(..).for_each(|(link, _)| link.note(|facts| facts.is_shut = true)); // so that no socket lingers
            round();
            assert_eq!(shown(), (0.0, 0.0));
        });
    }

    #[test]
    fn who_takes_nothing_for_ten_seconds_is_shut_down() {
        let at = facts(|facts, now| facts.stuck_since = Some(now));
        assert_eq!(at(9_900), WatchVerdict::Fine);
        assert_eq!(at(10_000), WatchVerdict::Shut("slow_consumer"));
    }

    #[test]
    fn a_closed_connection_that_is_stuck_is_not_waited_for() {
        let now = Instant::now();
        let stuck = Facts { stuck_since: Some(now), ..Facts::new(now) };
        let at = |ms| judge(now + Duration::from_millis(ms), &stuck, true, &Deadlines::default());
        assert_eq!(at(299), WatchVerdict::Fine);
        assert_eq!(at(300), WatchVerdict::Shut("closed_while_stuck"));
        let slow = Facts { stuck_since: None, ..stuck };
        assert_eq!(judge(now + Duration::from_secs(9), &slow, true, &Deadlines::default()), WatchVerdict::Fine);
    }

    #[test]
    fn a_closed_connection_that_takes_a_little_now_and_then_is_not_waited_for_either() {
        let at = facts(|facts, now| facts.closing_since = Some(now));
        assert_eq!(at(10_000), WatchVerdict::Fine);
        assert_eq!(at(10_001), WatchVerdict::Shut("close_overdue"));
    }

    #[test]
    fn the_end_of_a_connection_has_a_deadline() {
        let at = facts(|facts, now| facts.ending_since = Some(now));
        assert_eq!(at(700), WatchVerdict::Fine);
        assert_eq!(at(701), WatchVerdict::Shut("end_overdue"));
    }

    #[test]
    fn half_a_message_is_waited_for_as_long_as_it_makes_progress() {
        let at = facts(|facts, now| facts.partial_since = Some(now));
        assert_eq!(at(10_000), WatchVerdict::Fine);
        assert_eq!(at(10_001), WatchVerdict::Close("message took too long"));
        let slow = facts(|facts, now| {
            facts.partial_since = Some(now);
            facts.progress_since = now + Duration::from_secs(300);
        });
        assert_eq!(slow(309_000), WatchVerdict::Ping, "it has been coming for five minutes");
        assert_eq!(slow(310_001), WatchVerdict::Close("message took too long"));
    }

    #[test]
    fn a_y_sweet_client_hears_something_while_it_sends_a_long_message() {
        let start = Instant::now();
        let deadlines = Deadlines::default();
        let after = |ms| start + Duration::from_millis(ms);
        let mut facts = Facts::new(start);
        assert!(!needs_reassurance(after(60_000), &facts, &deadlines), "nothing is under way");
        facts.partial_since = Some(after(5_000));
        assert!(!needs_reassurance(after(6_100), &facts, &deadlines), "what is short needs none");
        assert!(needs_reassurance(after(6_200), &facts, &deadlines));
        facts.reassured_at = after(6_200);
        assert!(!needs_reassurance(after(7_300), &facts, &deadlines));
        assert!(needs_reassurance(after(7_400), &facts, &deadlines));
    }

    #[test]
    fn a_peer_is_asked_and_must_say_something() {
        let at = facts(|_, _| {});
        assert_eq!(at(19_999), WatchVerdict::Fine);
        assert_eq!(at(20_000), WatchVerdict::Ping);
        let at = facts(|facts, _| facts.unanswered = true);
        assert_eq!(at(20_001), WatchVerdict::Shut("no_pong"));
        let at = facts(|facts, now| (facts.unanswered, facts.heard_at) = (true, now + Duration::from_secs(15)));
        assert_eq!(at(20_001), WatchVerdict::Ping, "other bytes are a sign of life too");
    }

    #[test]
    fn nobody_is_blamed_for_what_we_do_not_read() {
        let at = facts(|facts, now| {
            facts.reading = false;
            facts.unanswered = true;
            facts.partial_since = Some(now);
        });
        assert_eq!(at(60_000), WatchVerdict::Fine);
    }
}
