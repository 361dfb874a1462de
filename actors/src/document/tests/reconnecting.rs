//! Cursors after reconnects, as awareness.js of y-protocols sees them: clients that remember the clocks of states they
//! have forgotten, that take over what they hear of themselves, and of which some answer to that and some (Hocuspocus
//! 4.7 and 4.8) do not.

use crate::budget::Budget;
use crate::document::FollowerId;
use crate::document::presence::{Announcer, Presence, ToldGone};
use crate::ids::{NodeId, SessionId, UserId};
use crate::limits::Limits;
use crate::ports::bus::{Claim, Owner};
use bytes::Bytes;
use contextnexus_gate::AwarenessEntry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;

type Said = Vec<AwarenessEntry>;

/// A browser: awareness.js, and the provider around it.
struct Browser {
    id: u64,
    user: UserId,
    /// Sends on whatever changed, its own state among it: y-websocket, Y-Sweet, Hocuspocus 2 and 3. The others send
    /// what they change themselves.
    relays: bool,
    meta: BTreeMap<u64, u64>,
    states: BTreeMap<u64, Bytes>,
    /// What it last set itself.
    own: Bytes,
    connection: Option<Connection>,
}

struct Connection {
    node: usize,
    follower: FollowerId,
    since: Instant,
    own: Option<u64>,
    has_announced: bool,
    inbox: VecDeque<Said>,
    sent: VecDeque<Said>,
}

impl Browser {
    fn new(id: u64, relays: bool) -> Self {
        let own = Bytes::from_static(b"{}");
        let (meta, states) = (BTreeMap::from([(id, 0)]), BTreeMap::from([(id, own.clone())]));
        Self { id, user: UserId(Uuid::from_u128(id.into())), relays, meta, states, own, connection: None }
    }

    /// `setLocalState`.
    fn moves(&mut self, to: u64) {
        self.own = Bytes::from(format!("{{\"at\":{to}}}"));
        self.states.insert(self.id, self.own.clone());
        *self.meta.entry(self.id).or_default() += 1;
        self.send(&[self.id]);
    }

    /// `encodeAwarenessUpdate`.
    fn send(&mut self, ids: &[u64]) {
        let say = |id: &u64| AwarenessEntry {
            client: *id,
            clock: self.meta[id],
            state: self.states.get(id).cloned().unwrap_or(Bytes::from_static(b"null")),
            is_null: !self.states.contains_key(id),
        };
        let said: Said = ids.iter().map(say).collect();
        if let Some(connection) = &mut self.connection
            && !said.is_empty()
        {
            connection.sent.push_back(said);
        }
    }

    /// `applyAwarenessUpdate`.
    fn hears(&mut self, said: &Said) {
        let mut changed = Vec::new();
        for entry in said {
            let known = self.meta.get(&entry.client).copied();
            let has_state = self.states.contains_key(&entry.client);
            let current = known.unwrap_or(0);
            if !(current < entry.clock || (current == entry.clock && entry.is_null && has_state)) {
                continue;
            }
            let mut clock = entry.clock;
            if !entry.is_null {
                self.states.insert(entry.client, entry.state.clone());
            } else if entry.client == self.id {
                clock += 1; // it is still here
            } else {
                self.states.remove(&entry.client);
            }
            self.meta.insert(entry.client, clock);
            if known.is_some() || !entry.is_null {
                changed.push(entry.client);
            }
        }
        if self.relays {
            self.send(&changed);
        }
    }

    /// The socket is gone: so are the states of all others, but not their clocks.
    fn is_cut(&mut self) -> Option<Connection> {
        self.states.retain(|id, _| *id == self.id);
        self.connection.take()
    }
}

/// States with the users that own them, as nodes tell each other.
type Owned = Vec<(AwarenessEntry, Option<Owner>)>;

struct Town {
    nodes: Vec<Presence>,
    browsers: Vec<Browser>,
    /// Between nodes: to which, from which, what.
    bus: VecDeque<(usize, usize, Owned)>,
    now: Instant,
    connections: u128,
    /// Sockets whose end nobody has noticed yet.
    half_open: Vec<Connection>,
    messages: usize,
}

impl Town {
    fn new(nodes: usize) -> Self {
        let presence = || Presence::new(&Limits::default(), Arc::new(Budget::new(usize::MAX)));
        Self {
            nodes: (0..nodes).map(|_| presence()).collect(),
            browsers: Vec::new(),
            bus: VecDeque::new(),
            now: Instant::now(),
            connections: 0,
            half_open: Vec::new(),
            messages: 0,
        }
    }

    fn connects(&mut self, at: usize, node: usize) {
        self.connections += 1;
        let follower = FollowerId { session: SessionId(Uuid::from_u128(self.connections)), attachment: 0 };
        let (inbox, sent) = (VecDeque::new(), VecDeque::new());
        let (own, has_announced, since) = (None, false, self.now);
        self.browsers[at].connection = Some(Connection { node, follower, since, own, has_announced, inbox, sent });
        let (everybody, ask) = self.nodes[node].greet(follower, self.browsers[at].user, self.now);
        self.browsers[at].connection.as_mut().unwrap().inbox.push_back(everybody);
        if ask {
            self.asks(node);
        }
        let id = self.browsers[at].id;
        self.browsers[at].send(&[id]);
    }

    fn asks(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let local = self.nodes[other].local();
            self.bus.push_back((node, other, local));
        }
    }

    fn closes(&mut self, connection: &Connection) {
        self.nodes[connection.node].leave(connection.follower, self.now);
    }

    fn tells(&mut self, told: ToldGone) {
        for (follower, entry) in told {
            self.send_to(follower, vec![entry]);
        }
    }

    fn send_to(&mut self, follower: FollowerId, said: Said) {
        let mut connections = self.browsers.iter_mut().filter_map(|browser| browser.connection.as_mut());
        if let Some(connection) = connections.find(|connection| connection.follower == follower) {
            connection.inbox.push_back(said);
        }
    }

    /// The server takes one message of this browser.
    fn server_hears(&mut self, at: usize) {
        let user = self.browsers[at].user;
        let Some(connection) = &mut self.browsers[at].connection else { return };
        let Some(said) = connection.sent.pop_front() else { return };
        let is_first = !std::mem::replace(&mut connection.has_announced, true);
        if is_first
            && let [own] = said.as_slice()
            && !own.is_null
        {
            connection.own = Some(own.client);
        }
        let is_first = is_first && connection.own.is_some();
        let (follower, own, since, node) = (connection.follower, connection.own, connection.since, connection.node);
        let claim = Claim::Editor;
        let from = Announcer { follower, user, own, claim, is_first, since };
        let told = self.nodes[node].announce(from, &said, self.now);
        self.tells(told);
        let siblings = self.nodes[node].siblings(follower, own);
        self.send_to(follower, siblings);
        self.messages += 1;
    }

    /// Time passes, and what is due is sent.
    fn passes(&mut self, time: Duration) {
        self.now += time;
        for node in 0..self.nodes.len() {
            if self.nodes[node].is_to_ask(self.now) {
                self.asks(node);
            }
            let Some(mut flush) = self.nodes[node].flush(3, self.now) else { continue };
            self.tells(std::mem::take(&mut flush.told));
            for browser in &mut self.browsers {
                if let Some(connection) = &mut browser.connection
                    && connection.node == node
                    && Some(connection.follower) != flush.only_from
                {
                    connection.inbox.push_back(flush.entries.clone());
                }
            }
            for other in (0..self.nodes.len()).filter(|other| *other != node && !flush.local.is_empty()) {
                self.bus.push_back((other, node, flush.local.clone()));
            }
        }
    }

    fn bus_brings(&mut self) {
        let Some((to, from, said)) = self.bus.pop_front() else { return };
        let (entries, owners): (Vec<_>, Vec<_>) = said.into_iter().unzip();
        let from = NodeId(Uuid::from_u128(from as u128));
        let (quiet, told) = self.nodes[to].announce_remote(from, &entries, &owners, self.now);
        for newcomer in self.nodes[to].newcomers().to_vec() {
            if !quiet.is_empty() {
                self.send_to(newcomer, quiet.clone());
            }
        }
        self.tells(told);
    }

    fn browser_hears(&mut self, at: usize) {
        if let Some(said) = self.browsers[at].connection.as_mut().and_then(|connection| connection.inbox.pop_front()) {
            self.browsers[at].hears(&said);
        }
    }

    /// Everything that is under way arrives; less than a second passes. False: it never ends.
    fn settles(&mut self) -> bool {
        for connection in std::mem::take(&mut self.half_open) {
            self.closes(&connection);
        }
        for _ in 0..90 {
            self.passes(Duration::from_millis(10));
            for at in 0..self.browsers.len() {
                self.browser_hears(at);
                self.server_hears(at);
                self.browser_hears(at);
            }
            while !self.bus.is_empty() {
                self.bus_brings();
            }
        }
        let is_quiet = |connection: &Connection| connection.inbox.is_empty() && connection.sent.is_empty();
        let before = self.messages;
        for at in 0..self.browsers.len() {
            self.server_hears(at);
        }
        self.messages == before && self.browsers.iter().filter_map(|b| b.connection.as_ref()).all(is_quiet)
    }

    /// What is wrong with what they see of each other.
    fn complaint(&self) -> Option<String> {
        let here = || self.browsers.iter().filter(|browser| browser.connection.is_some());
        for browser in here() {
            let expected: BTreeMap<u64, Bytes> = here().map(|other| (other.id, other.own.clone())).collect();
            if browser.states != expected {
                return Some(format!("{} sees {:?}, not {expected:?}", browser.id, browser.states));
            }
        }
        None
    }
}

/// The two kinds of browsers, side by side, after they have met.
fn two(nodes: usize, relays: [bool; 2]) -> Town {
    let mut town = Town::new(nodes);
    town.browsers = vec![Browser::new(1, relays[0]), Browser::new(2, relays[1])];
    for at in 0..2 {
        town.connects(at, at % nodes);
        town.browsers[at].moves(7);
    }
    assert!(town.settles());
    assert_eq!(town.complaint(), None);
    town
}

const KINDS: [[bool; 2]; 4] = [[false, false], [false, true], [true, false], [true, true]];

#[test]
fn who_comes_back_is_seen_and_sees_the_others() {
    for (relays, nodes) in KINDS.into_iter().flat_map(|relays| [(relays, 1), (relays, 2)]) {
        let mut town = two(nodes, relays);
        for round in 0..3 {
            let connection = town.browsers[0].is_cut().unwrap();
            town.closes(&connection);
            town.passes(Duration::from_millis(50));
            town.connects(0, 0);
            assert!(town.settles(), "{relays:?}");
            assert_eq!(town.complaint(), None, "{relays:?}, {nodes} nodes, round {round}");
        }
    }
}

#[test]
fn who_comes_back_before_the_end_of_the_old_socket_was_noticed_is_seen_too() {
    for (relays, nodes) in KINDS.into_iter().flat_map(|relays| [(relays, 1), (relays, 2)]) {
        let mut town = two(nodes, relays);
        let connection = town.browsers[0].is_cut().unwrap();
        town.half_open.push(connection);
        town.connects(0, nodes - 1); // on the other node, where there is one
        assert!(town.settles(), "{relays:?}");
        assert_eq!(town.complaint(), None, "{relays:?}, {nodes} nodes");
    }
}

#[test]
fn a_restarted_server_shows_states_that_others_remember() {
    for relays in KINDS {
        let mut town = two(1, relays);
        town.nodes = Town::new(1).nodes;
        for at in [1, 0] {
            town.browsers[at].is_cut();
        }
        for at in 0..2 {
            town.connects(at, 0);
        }
        assert!(town.settles(), "{relays:?}");
        assert_eq!(town.complaint(), None, "{relays:?}");
    }
}

#[test]
fn who_signs_in_on_an_open_page_is_seen() {
    for relays in KINDS {
        let mut town = two(1, relays);
        let connection = town.browsers[0].is_cut().unwrap();
        town.closes(&connection);
        town.passes(Duration::from_millis(50));
        // Another provider on the same `Doc`: an awareness of its own, which begins at the clock 0.
        let others = std::mem::replace(&mut town.browsers[0], Browser::new(1, relays[0])).meta;
        assert!(others[&1] > 0);
        town.browsers[0].user = UserId(Uuid::from_u128(99));
        town.connects(0, 0);
        assert!(town.settles(), "{relays:?}");
        assert_eq!(town.complaint(), None, "{relays:?}");
        assert_eq!(town.nodes[0].owner(1), Some(UserId(Uuid::from_u128(99))));
    }
}

#[test]
fn a_late_relay_brings_nobody_back() {
    let mut town = two(1, [true, true]);
    town.browsers.push(Browser::new(3, true));
    town.connects(2, 0);
    // It has no state of its own: the first thing that it says is what it heard of the others.
    let third = town.browsers[2].connection.as_mut().unwrap();
    third.sent.clear();
    let said = third.inbox.pop_front().unwrap();
    third.sent.push_back(said.into_iter().filter(|entry| entry.client == 1).collect());
    let connection = town.browsers[0].is_cut().unwrap();
    town.closes(&connection);
    town.server_hears(2);
    town.passes(Duration::from_millis(50));
    assert!(town.nodes[0].all(None).iter().all(|entry| entry.client != 1), "a ghost");
    // Nor much later, at a clock that others know.
    town.passes(Duration::from_secs(60));
    town.browsers[2].connection.as_mut().unwrap().has_announced = true;
    town.browsers[2].connection.as_mut().unwrap().own = None;
    let state = Bytes::from_static(b"{\"at\":7}");
    let said = vec![AwarenessEntry { client: 1, clock: 1, state, is_null: false }];
    town.browsers[2].connection.as_mut().unwrap().sent.push_front(said);
    town.server_hears(2);
    assert!(town.nodes[0].all(None).iter().all(|entry| entry.client != 1), "a ghost, late");
}

#[test]
fn the_owner_comes_before_a_relay_of_it() {
    let mut town = Town::new(1);
    town.browsers = vec![Browser::new(1, false), Browser::new(2, true), Browser::new(3, false)];
    town.connects(1, 0);
    town.connects(2, 0);
    assert!(town.settles());
    // A sibling tab tells what it knows of one that is not connected yet.
    let state = Bytes::from_static(b"{\"at\":1}");
    town.browsers[1].hears(&vec![AwarenessEntry { client: 1, clock: 1, state, is_null: false }]);
    assert!(town.settles());
    for to in 7..10 {
        town.browsers[0].moves(to);
    }
    town.connects(0, 0);
    assert!(town.settles());
    assert_eq!(town.complaint(), None);
    assert_eq!(town.nodes[0].owner(1), Some(UserId(Uuid::from_u128(1))));
}

/// A random number generator of three lines: the seed is the history.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

#[test]
fn whatever_happens_everybody_sees_the_last_state_of_everybody_within_a_second() {
    for seed in 0..2_000 {
        let mut dice = Dice(seed);
        let mut town = Town::new(1);
        let same_user = dice.below(2) == 0;
        town.browsers = (1..=4).map(|id| Browser::new(id, dice.below(2) == 0)).collect();
        if same_user {
            town.browsers.iter_mut().for_each(|browser| browser.user = UserId(Uuid::from_u128(1)));
        }
        for step in 0..60 {
            let at = dice.below(town.browsers.len());
            match dice.below(12) {
                0 => {
                    if let Some(connection) = town.browsers[at].is_cut() {
                        // Nobody is connected twice to wait for: the server notices the end of the first now.
                        let id = town.browsers[at].id;
                        let is_left: Vec<_> = town.half_open.extract_if(.., |half| half.own == Some(id)).collect();
                        is_left.iter().for_each(|half| town.closes(half));
                        if dice.below(3) > 0 || connection.own != Some(id) {
                            town.closes(&connection);
                        } else {
                            town.half_open.push(connection);
                        }
                    }
                }
                1 | 2 if town.browsers[at].connection.is_none() => town.connects(at, 0),
                3 => town.browsers[at].moves(step),
                4..=6 => town.browser_hears(at),
                7..=9 => town.server_hears(at),
                10 => town.bus_brings(),
                _ => town.passes(Duration::from_millis(dice.below(30) as u64)),
            }
        }
        for at in 0..town.browsers.len() {
            if town.browsers[at].connection.is_none() {
                town.connects(at, 0);
            }
        }
        assert!(town.settles(), "seed {seed}: they answer each other for ever");
        // A browser that comes back within the 20 ms before its last state was shown may take that over for its own.
        for (browser, other) in town.browsers.iter().flat_map(|one| town.browsers.iter().map(move |other| (one, other)))
        {
            let seen = browser.states.get(&other.id);
            let is_newest = seen == Some(&other.own) || seen == other.states.get(&other.id);
            assert!(is_newest && seen.is_some(), "seed {seed}: {} sees {seen:?} of {}", browser.id, other.id);
        }
    }
}
