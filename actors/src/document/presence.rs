//! Who is here and where their cursors are: the newest state per client id, as raw bytes, never parsed.
//!
//! An id belongs to the first live connection that announces it, unless another has a stronger [`Claim`] to it. Honest
//! clients re-send others' states all the time (docs/protocols.md, "Awareness"), so what a connection says about an id
//! known elsewhere is dropped silently. States are sent at most once per interval, newest wins, so the cost follows what
//! changed and not how often. The interval follows what it costs to send them: few receivers hear of a cursor
//! immediately, and many take no more than a part of the document's time.
//!
//! # The clock that is shown
//!
//! A Yjs client remembers the highest clock that it heard of each id, and takes a state only at a higher one. It
//! forgets the states of all others, but not their clocks, when it loses its connection; and a client that comes back
//! repeats its last state at its last clock. So what is shown after a reconnect must have a clock that nobody has heard
//! yet. Each entry therefore has two clocks: the one that its owner gave it, by which we tell old from new, and the one
//! that it is shown at. The shown clock only ever rises:
//!
//! - a state that an owner brings with a new connection is shown at the owner's next clock, or above the one at which
//!   it was told gone;
//! - each newcomer is shown everybody at one more than anybody was shown before;
//! - a newer state is shown at its own clock, or at one more than the last where that is higher.
//!
//! An owner that hears its own state at a higher clock takes it over. One clock more is harmless: either it is the same
//! state, or the owner has used that clock for a newer one and ignores it. An owner that is further behind is told that
//! it is gone, at one less than the shown clock: every client keeps its own state over that and goes on from the next
//! clock. Some announce themselves again, which [`Presence`] recognises by the clock, and Hocuspocus 4.7 and 4.8 say
//! nothing.

use super::FollowerId;
use crate::budget::Budget;
use crate::ids::{NodeId, UserId};
use crate::limits::Limits;
use crate::ports::bus::{Claim, Owner};
use bytes::Bytes;
use contextnexus_gate::AwarenessEntry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time after a sending in which nothing more is sent, per receiver: about four times what it takes to write to one …
const PAUSE_PER_RECEIVER: Duration = Duration::from_micros(30);
/// … and for each byte that each receiver is sent, about what that takes: however large the states are, half of the time is for edits.
const PAUSE_PER_BYTE: Duration = Duration::from_nanos(1);
/// What an entry takes besides its state.
const ENTRY_BYTES: usize = 256;
/// So many bytes of a connection's own state are shown however full the document or the node is: a name and a cursor take 200.
const OWN_STATE_BYTES_LEAST: usize = 1_024;

/// The largest clock that every implementation reads: yrs keeps 32 bits.
const CLOCK_MAX: u64 = u32::MAX as u64;
/// The same state at no higher a clock than it was shown at is an answer to that within this time, and a renewal after
/// it. Clients renew after 15 s.
const ANSWER: Duration = Duration::from_secs(10);
/// The clocks of so many ids that left are remembered, as long as clients may be away and come back with the same `Doc`
/// …
const DEPARTED_MAX: usize = 4_096;
/// … and for so long.
const DEPARTED_KEPT: Duration = Duration::from_secs(3_600);
/// What one connection relays for others takes no more than so many of the largest states.
const RELAYED_STATES_MAX: usize = 8;
/// The other nodes are asked for higher clocks at most so often …
const ASK_INTERVAL: Duration = Duration::from_millis(400);
/// … and have answered after so long.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// The newest presence of one document.
#[derive(Debug)]
pub struct Presence {
    entries: HashMap<u64, Entry>,
    /// Ids that left, and the clocks at which others know them. For a while a late relay of their last state must not
    /// bring them back.
    departed: HashMap<u64, Departed>,
    changed: BTreeSet<u64>,
    /// Who came while the other nodes were asked for higher clocks.
    newcomers: Vec<FollowerId>,
    /// Who came, and has not been shown what belongs to its own subject.
    awaiting: Vec<(FollowerId, UserId)>,
    asked_at: Option<Instant>,
    ask_again: bool,
    interval_max: Duration,
    timeout: Duration,
    ids_per_connection_max: usize,
    relayed_bytes_max: usize,
    /// What the entries take, of the document's bound and of the node's budget.
    bytes: usize,
    bytes_max: usize,
    budget: Arc<Budget>,
    /// States that were left out because of a limit.
    left_out: u64,
    /// Nothing is sent before.
    next_flush: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    /// As its holder said it last.
    said: u64,
    /// As it is shown.
    clock: u64,
    state: Bytes,
    holder: Holder,
    /// Whose id it is while the entry lives; `None` for a relayed id.
    owner: Option<Owner>,
    /// Its holder lives.
    renewed_at: Instant,
    /// Last shown to everybody.
    shown_at: Instant,
}

impl Entry {
    fn user(&self) -> Option<UserId> {
        self.owner.map(|owner| owner.user)
    }

    /// It is shown one clock ahead of its owner, who takes over what it hears of itself. One that never heard of it would say its own clock to a
    /// server that is started again, which would show it at the clock that all others have seen.
    fn is_ahead(&self) -> bool {
        self.owner.is_some() && self.clock == self.said + 1
    }

    /// Its owner knows a clock so much lower that it would take over what it hears of itself.
    fn is_behind(&self) -> bool {
        self.clock >= self.said + 2
    }

    fn is_answer(&self, said: &AwarenessEntry, now: Instant) -> bool {
        said.clock <= self.clock && said.state == self.state && now < self.shown_at + ANSWER
    }
}

#[derive(Debug)]
struct Departed {
    clock: u64,
    owner: Option<Owner>,
    at: Instant,
    /// It was connected to this node, so that the others are to hear of it from here.
    here: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holder {
    Here(FollowerId),
    There(NodeId),
}

/// Who announces.
#[derive(Clone, Copy, Debug)]
pub struct Announcer {
    /// The connection.
    pub follower: FollowerId,
    /// Its subject.
    pub user: UserId,
    /// The id that is its own: the only one of its first announcement.
    pub own: Option<u64>,
    /// How strong its claim to that is.
    pub claim: Claim,
    /// This is its first announcement.
    pub is_first: bool,
    /// When it joined: what has left before, it was never told of.
    pub since: Instant,
}

/// What connections are to be told of themselves: that they are gone, at this clock, so that they go on from the next.
pub type ToldGone = Vec<(FollowerId, AwarenessEntry)>;

/// What lives on this node, with the subject that owns it.
pub type Local = (AwarenessEntry, Option<Owner>);

/// What is to be sent now.
#[derive(Debug, Default)]
pub struct Flush {
    /// Changed states, gone ones as null.
    pub entries: Vec<AwarenessEntry>,
    /// All of them come from this connection, which need not hear them again: it said them at these clocks.
    pub only_from: Option<FollowerId>,
    /// Those that live on this node, with their owners, for the other nodes.
    pub local: Vec<Local>,
    /// Owners among the receivers that must go on from a higher clock before they hear of themselves.
    pub told: ToldGone,
}

impl Presence {
    /// Nobody is here. `budget` is the node's.
    pub fn new(limits: &Limits, budget: Arc<Budget>) -> Self {
        Self {
            entries: HashMap::new(),
            departed: HashMap::new(),
            changed: BTreeSet::new(),
            newcomers: Vec::new(),
            awaiting: Vec::new(),
            asked_at: None,
            ask_again: false,
            interval_max: Duration::from_millis(limits.awareness_interval_ms),
            timeout: Duration::from_secs(limits.awareness_timeout_s),
            ids_per_connection_max: limits.awareness_ids_per_connection_max,
            relayed_bytes_max: RELAYED_STATES_MAX * limits.awareness_state_bytes_max,
            bytes: 0,
            bytes_max: limits.document_awareness_bytes_max,
            budget,
            left_out: 0,
            next_flush: None,
        }
    }

    /// So many states were left out already.
    pub fn leaves_out(&mut self, states: usize) {
        self.left_out += states as u64;
    }

    /// How many states were left out because of a limit since this was asked last.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    /// Takes in what a connection of this node says.
    pub fn announce(&mut self, from: Announcer, said: &[AwarenessEntry], now: Instant) -> ToldGone {
        let mut told = ToldGone::new();
        for entry in said {
            if entry.is_null {
                self.hear_farewell(from, entry, now);
            } else {
                self.announce_one(from, entry, now, &mut told);
            }
        }
        told
    }

    fn hear_farewell(&mut self, from: Announcer, said: &AwarenessEntry, now: Instant) {
        let known = self.entries.get(&said.client);
        if known.is_some_and(|known| known.holder == Holder::Here(from.follower) && said.clock >= known.said) {
            self.depart(said.client, said.clock, now);
        }
    }

    fn announce_one(&mut self, from: Announcer, said: &AwarenessEntry, now: Instant, told: &mut ToldGone) {
        let holder = Holder::Here(from.follower);
        let is_own = from.own == Some(said.client);
        let mut taken_from = None;
        let (clock, owner) = match self.entries.get_mut(&said.client) {
            Some(known) if known.holder == holder => {
                if said.clock <= known.said {
                    return;
                }
                let more = said.state.len().saturating_sub(known.state.len());
                if !is_own && more > 0 && !self.has_room(from.follower, more, 0) {
                    self.left_out += 1;
                    return;
                }
                let Some(known) = self.entries.get_mut(&said.client) else { return };
                if known.is_answer(said, now) {
                    known.said = said.clock;
                    return;
                }
                let owner = known.owner.map(|owner| if is_own { Owner { claim: from.claim, ..owner } } else { owner });
                (said.clock.max(known.clock + 1), owner)
            }
            Some(known) => {
                let is_same_user = known.user() == Some(from.user);
                // The same subject on another connection: a reconnect that overtook the end of the old socket. Only the
                // first announcement of a connection counts at any clock: two that relay each other's states would take
                // them from each other for ever.
                let takes_over = is_same_user && (said.clock > known.clock || (is_own && from.is_first));
                // Or the owner of what somebody relayed, or claimed with less right, before it came itself.
                let comes_itself = is_own && known.owner.is_none_or(|owner| owner.claim < from.claim);
                if !takes_over && !comes_itself {
                    return;
                }
                let clock = said.clock.max(known.clock) + 1;
                if let Holder::Here(before) = known.holder {
                    taken_from = Some((before, gone(said.client, clock - 1)));
                }
                let owner = known.owner.filter(|_| !is_own);
                (clock, Some(owner.unwrap_or(Owner { user: from.user, claim: from.claim })))
            }
            None => {
                let departed = self.departed.get(&said.client);
                if let Some(departed) = departed {
                    // A relay repeats what it was told, and it was told before the owner left. So the first
                    // announcement of a connection that joined later is the owner's, and so is a clock that nobody was
                    // told of.
                    let may_be_late = now < departed.at + self.timeout;
                    let is_new = departed.at < from.since || said.clock > departed.clock;
                    let is_owner = is_own
                        && (is_new || departed.owner.is_some_and(|owner| owner.user == from.user) || !may_be_late);
                    let is_relay_of_news = !may_be_late && said.clock > departed.clock;
                    if !is_owner && !is_relay_of_news {
                        return;
                    }
                }
                if !is_own && !self.has_room(from.follower, said.state.len(), 1) {
                    self.left_out += 1;
                    return;
                }
                // Others may know this very state at this very clock from before, and from before this node knew of any
                // of them.
                let clock = if is_own { said.clock + 1 } else { said.clock };
                let clock = departed.map_or(clock, |departed| clock.max(departed.clock + 1));
                (clock, is_own.then_some(Owner { user: from.user, claim: from.claim }))
            }
        };
        if !self.reserve(said.client, said.state.len(), is_own) {
            self.left_out += 1;
            return;
        }
        told.extend(taken_from);
        let entry = Entry {
            said: said.clock,
            clock: clock.min(CLOCK_MAX),
            state: Bytes::copy_from_slice(&said.state), // a slice would keep all of the message
            holder,
            owner,
            renewed_at: now,
            shown_at: now,
        };
        if entry.owner.is_some() && entry.is_behind() {
            told.push((from.follower, gone(said.client, entry.clock - 1)));
        }
        self.entries.insert(said.client, entry);
        self.departed.remove(&said.client);
        self.changed.insert(said.client);
    }

    /// Takes in what another node says of its own clients. Returns what is known already, at a higher clock now: only
    /// those need to hear of it who have [just come](Self::newcomers); and whom of this node to tell that they are
    /// gone.
    pub fn announce_remote(
        &mut self,
        node: NodeId,
        said: &[AwarenessEntry],
        owners: &[Option<Owner>],
        now: Instant,
    ) -> (Vec<AwarenessEntry>, ToldGone) {
        let (mut quiet, mut told) = (Vec::new(), ToldGone::new());
        for (index, entry) in said.iter().enumerate() {
            let owner = owners.get(index).copied().flatten();
            let (mut shown_at, mut is_news) = (now, true);
            match self.entries.get_mut(&entry.client) {
                // Others were told that it is gone, or there: it is here.
                Some(known) if matches!(known.holder, Holder::Here(_)) && entry.is_null => {
                    known.clock = known.clock.max(entry.clock + 1).min(CLOCK_MAX);
                    self.changed.insert(entry.client);
                    continue;
                }
                Some(known) if known.clock > entry.clock => continue,
                Some(_) if entry.is_null => {
                    self.depart(entry.client, entry.clock, now);
                    continue;
                }
                Some(known) => {
                    if let Holder::Here(follower) = known.holder {
                        // The same subject, connected there now: the socket here is a dead one. Or whose id it really is.
                        let took_over = owner.zip(known.owner).is_some_and(|(there, here)| {
                            (there.user == here.user && entry.clock > known.clock) || there.claim > here.claim
                        });
                        if !took_over {
                            continue;
                        }
                        told.push((follower, gone(entry.client, entry.clock.saturating_sub(1))));
                    } else if known.clock == entry.clock {
                        (shown_at, is_news) = (known.shown_at, false);
                    } else if known.state == entry.state && now < known.shown_at + ANSWER {
                        (shown_at, is_news) = (known.shown_at, false);
                        quiet.push(entry.clone());
                    }
                }
                None if entry.is_null => continue,
                None => {}
            }
            if !self.reserve(entry.client, entry.state.len(), false) {
                self.left_out += 1;
                if let Some(known) = self.entries.get_mut(&entry.client) {
                    known.renewed_at = now;
                }
                continue;
            }
            let (said, clock, renewed_at) = (entry.clock, entry.clock, now);
            let state = Bytes::copy_from_slice(&entry.state); // as above
            let holder = Holder::There(node);
            self.entries.insert(entry.client, Entry { said, clock, state, holder, owner, renewed_at, shown_at });
            self.departed.remove(&entry.client);
            if is_news {
                self.changed.insert(entry.client);
            }
        }
        (quiet, told)
    }

    /// A connection of this node is gone, and its clients with it.
    pub fn leave(&mut self, follower: FollowerId, now: Instant) {
        self.newcomers.retain(|newcomer| *newcomer != follower);
        self.awaiting.retain(|(newcomer, _)| *newcomer != follower);
        let gone: Vec<(u64, u64)> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.holder == Holder::Here(follower))
            .map(|(client, entry)| (*client, entry.clock))
            .collect();
        for (client, clock) in gone {
            self.depart(client, clock, now);
        }
    }

    /// Everybody who is here, for a connection that has just come: at clocks that it cannot have heard, wherever it was
    /// before. And whether to ask the other nodes for higher clocks of theirs. What belongs to its own subject comes
    /// with [`siblings`](Self::siblings): among that may be the newcomer itself, from a socket whose end nobody has
    /// noticed, and it would take its old state over.
    pub fn greet(&mut self, newcomer: FollowerId, user: UserId, now: Instant) -> (Vec<AwarenessEntry>, bool) {
        self.raise();
        if self.entries.values().any(|entry| entry.user() == Some(user)) {
            self.awaiting.push((newcomer, user));
        }
        let mut ask = false;
        if self.has_remote() {
            self.newcomers.push(newcomer);
            self.ask_again = true;
            ask = self.is_to_ask(now);
        }
        let others = self.entries.iter().filter(|(_, entry)| entry.user() != Some(user));
        (others.map(|(client, entry)| said(*client, entry)).collect(), ask)
    }

    /// What a newcomer has not been shown of its own subject, once it has said which of that is its own, or says
    /// nothing.
    pub fn siblings(&mut self, newcomer: FollowerId, own: Option<u64>) -> Vec<AwarenessEntry> {
        let Some(at) = self.awaiting.iter().position(|(follower, _)| *follower == newcomer) else { return Vec::new() };
        let (_, user) = self.awaiting.swap_remove(at);
        let is_sibling = |client: u64, entry: &Entry| {
            entry.user() == Some(user) && Some(client) != own && entry.holder != Holder::Here(newcomer)
        };
        let siblings = self.entries.iter().filter(|(client, entry)| is_sibling(**client, entry));
        siblings.map(|(client, entry)| said(*client, entry)).collect()
    }

    /// Who still waits for [`siblings`](Self::siblings).
    pub fn awaiting(&self) -> Vec<FollowerId> {
        self.awaiting.iter().map(|(follower, _)| *follower).collect()
    }

    /// Whether to ask the other nodes for higher clocks now: at most once in an interval, for all who came in it.
    pub fn is_to_ask(&mut self, now: Instant) -> bool {
        let asked = self.asked_at;
        if self.ask_again && asked.is_none_or(|at| now >= at + ASK_INTERVAL) {
            self.ask_again = false;
            self.asked_at = Some(now);
            return true;
        }
        if !self.ask_again && asked.is_some_and(|at| now >= at + ANSWERED_WITHIN) {
            self.newcomers.clear();
        }
        false
    }

    /// Those who wait for what other nodes answer.
    pub fn newcomers(&self) -> &[FollowerId] {
        &self.newcomers
    }

    /// Every client that is connected to this node goes on at a clock that nobody has heard. Those whose states were
    /// only relayed keep theirs: nobody could tell the owner.
    fn raise(&mut self) {
        for entry in self.entries.values_mut() {
            if matches!(entry.holder, Holder::Here(_)) && entry.owner.is_some() {
                entry.clock = (entry.clock + 1).min(CLOCK_MAX);
            }
        }
    }

    /// Forgets clients of other nodes that were not renewed in time, and departures that are old.
    pub fn expire(&mut self, now: Instant) {
        let timeout = self.timeout;
        let gone: Vec<(u64, u64)> = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.holder, Holder::There(_)) && now >= entry.renewed_at + timeout)
            .map(|(client, entry)| (*client, entry.clock))
            .collect();
        for (client, clock) in gone {
            self.depart(client, clock, now);
        }
        self.departed.retain(|_, departed| now < departed.at + DEPARTED_KEPT);
    }

    /// Somebody here is connected to another node, and expires unless renewed.
    pub fn has_remote(&self) -> bool {
        self.entries.values().any(|entry| matches!(entry.holder, Holder::There(_)))
    }

    /// When something is to be sent next.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_flush.filter(|_| !self.changed.is_empty())
    }

    /// What changed, for so many receivers, if it is time to send it. The first change after a quiet interval is sent at once.
    pub fn flush(&mut self, receivers: usize, now: Instant) -> Option<Flush> {
        let due = self.next_flush.is_none_or(|at| now >= at);
        if self.changed.is_empty() || !due {
            return None;
        }
        let mut flush = Flush::default();
        let mut holders = BTreeSet::new();
        let mut is_ahead = false;
        for client in std::mem::take(&mut self.changed) {
            let (entry, local) = match self.entries.get(&client) {
                Some(known) => {
                    let follower = match known.holder {
                        Holder::Here(follower) => Some(follower),
                        Holder::There(_) => None,
                    };
                    holders.insert(follower);
                    is_ahead |= receivers > 1 && follower.is_some() && known.is_ahead();
                    // It was raised for newcomers since its owner said it.
                    if let Some(follower) = follower
                        && known.owner.is_some()
                        && known.is_behind()
                    {
                        flush.told.push((follower, gone(client, known.clock - 1)));
                    }
                    (said(client, known), follower.map(|_| known.owner))
                }
                None => {
                    holders.insert(None);
                    let Some(departed) = self.departed.get(&client) else { continue };
                    (gone(client, departed.clock), departed.here.then_some(departed.owner))
                }
            };
            if let Some(owner) = local {
                flush.local.push((entry.clone(), owner));
            }
            flush.entries.push(entry);
        }
        let bytes: usize = flush.entries.iter().map(|entry| entry.state.len()).sum();
        let for_all = |pause: Duration| pause.saturating_mul(u32::try_from(receivers).unwrap_or(u32::MAX));
        let of_bytes = for_all(PAUSE_PER_BYTE * u32::try_from(bytes).unwrap_or(u32::MAX));
        let pause = (for_all(PAUSE_PER_RECEIVER) + of_bytes).min(self.interval_max).max(of_bytes);
        self.next_flush = Some(now + pause);
        if holders.len() == 1 && !is_ahead {
            flush.only_from = holders.into_iter().next().flatten();
        }
        if flush.only_from.is_some() {
            flush.told.clear(); // it does not hear of itself
        }
        Some(flush)
    }

    /// Everybody who is here, for one connection; what it would take over of itself is left out.
    pub fn all(&self, to: Option<FollowerId>) -> Vec<AwarenessEntry> {
        let is_for = |entry: &Entry| !entry.is_behind() || to.is_none_or(|to| entry.holder != Holder::Here(to));
        self.entries.iter().filter(|(_, entry)| is_for(entry)).map(|(client, entry)| said(*client, entry)).collect()
    }

    /// What these clients show now, for one connection; those who have left are left out.
    pub fn of(&self, clients: &BTreeSet<u64>, to: FollowerId) -> Vec<AwarenessEntry> {
        let entries = clients.iter().filter_map(|client| Some((*client, self.entries.get(client)?)));
        let entries = entries.filter(|(_, entry)| !entry.is_behind() || entry.holder != Holder::Here(to));
        entries.map(|(client, entry)| said(client, entry)).collect()
    }

    /// What all entries take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What one connection may have said at most.
    pub fn bytes_per_connection_max(&self) -> usize {
        self.relayed_bytes_max / RELAYED_STATES_MAX * (RELAYED_STATES_MAX + 1)
    }

    /// Everybody who is connected to this node, for another node that asks, at clocks that nobody there has heard.
    pub fn local(&mut self) -> Vec<Local> {
        self.raise();
        self.entries
            .iter()
            .filter(|(_, entry)| matches!(entry.holder, Holder::Here(_)))
            .map(|(client, entry)| (said(*client, entry), entry.owner))
            .collect()
    }

    /// The subject whose id it is, while a connection of it lives.
    pub fn owner(&self, client: u64) -> Option<UserId> {
        self.entries.get(&client).and_then(Entry::user)
    }

    /// The same, where that subject may write: others do not, under this id.
    pub fn writer(&self, client: u64) -> Option<UserId> {
        let owner = self.entries.get(&client).and_then(|entry| entry.owner);
        owner.filter(|owner| owner.claim > Claim::Reader).map(|owner| owner.user)
    }

    /// A connection may write from now on, or only read.
    pub fn regrant(&mut self, follower: FollowerId, may_write: bool) {
        let own = self.entries.values_mut().filter(|entry| entry.holder == Holder::Here(follower));
        for owner in own.filter_map(|entry| entry.owner.as_mut()) {
            owner.claim = if may_write { owner.claim.max(Claim::Editor) } else { Claim::Reader };
        }
    }

    /// Whether a connection may hold so much more that is not its own.
    fn has_room(&self, follower: FollowerId, bytes: usize, ids: usize) -> bool {
        let own = self.entries.values().filter(|entry| entry.holder == Holder::Here(follower));
        let (ids, bytes) = own.fold((ids, bytes), |(ids, bytes), entry| {
            let relayed = if entry.owner.is_none() { entry.state.len() } else { 0 };
            (ids + 1, bytes + relayed)
        });
        ids <= self.ids_per_connection_max && bytes <= self.relayed_bytes_max
    }

    /// Takes what this client's entry needs for a state of so many bytes. False: there is no room, and its entry stays as it is.
    fn reserve(&mut self, client: u64, state_bytes: usize, is_own: bool) -> bool {
        let known = self.entries.get(&client).map_or(0, |known| known.state.len() + ENTRY_BYTES);
        let needed = state_bytes + ENTRY_BYTES;
        if needed <= known {
            self.give_back(known - needed);
            return true;
        }
        let more = needed - known;
        let is_least = is_own && state_bytes <= OWN_STATE_BYTES_LEAST;
        if is_least {
            self.budget.take_anyway(more);
        } else if self.bytes + more > self.bytes_max || !self.budget.take(more) {
            return false;
        }
        self.bytes += more;
        true
    }

    fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.budget.give_back(bytes);
    }

    fn depart(&mut self, client: u64, clock: u64, now: Instant) {
        let entry = self.entries.remove(&client);
        if let Some(entry) = &entry {
            self.give_back(entry.state.len() + ENTRY_BYTES);
        }
        if self.departed.len() >= DEPARTED_MAX && !self.departed.contains_key(&client) {
            let mut times: Vec<Instant> = self.departed.values().map(|departed| departed.at).collect();
            let (_, median, _) = times.select_nth_unstable(DEPARTED_MAX / 2);
            let median = *median;
            self.departed.retain(|_, departed| departed.at > median);
        }
        let departed = Departed {
            clock: entry.as_ref().map_or(clock, |entry| entry.clock.max(clock)),
            here: entry.as_ref().is_some_and(|entry| matches!(entry.holder, Holder::Here(_))),
            owner: entry.and_then(|entry| entry.owner),
            at: now,
        };
        self.departed.insert(client, departed);
        self.changed.insert(client);
    }
}

impl Drop for Presence {
    /// However the document ends, nobody is shown in it any more.
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// Cuts what is shown, in this order, into pieces of about so many bytes: one where it is small.
pub fn pieces<T>(shown: &[T], bytes_max: usize, entry: impl Fn(&T) -> &AwarenessEntry) -> Vec<&[T]> {
    let (mut pieces, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (place, one) in shown.iter().enumerate() {
        let more = entry(one).state.len() + 16; // a client id, a clock and a length
        if bytes > 0 && bytes + more > bytes_max {
            pieces.extend(shown.get(from..place));
            (from, bytes) = (place, 0);
        }
        bytes += more;
    }
    pieces.extend(shown.get(from..).filter(|rest| !rest.is_empty()));
    pieces
}

fn said(client: u64, entry: &Entry) -> AwarenessEntry {
    AwarenessEntry { client, clock: entry.clock, state: entry.state.clone(), is_null: false }
}

/// `{same clock, null}`: a raised clock would hide a client that reconnects under its id until its next renewal.
fn gone(client: u64, clock: u64) -> AwarenessEntry {
    AwarenessEntry { client, clock, state: Bytes::from_static(b"null"), is_null: true }
}
