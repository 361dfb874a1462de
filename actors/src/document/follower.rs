//! What one connection may do in a document, and what is owed to it.

use super::state::Questions;
use crate::access::Role;
use crate::ids::{UserId, UserSessionId};
use crate::protocol::Dialect;
use bytes::Bytes;
use contextnexus_gate::{AwarenessEntry, Known, Update};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// A fresh token is asked for so long before the old one ends, at the least …
const TOKEN_ASKED_AHEAD_MIN: Duration = Duration::from_secs(1);
/// … and at the most.
const TOKEN_ASKED_AHEAD_MAX: Duration = Duration::from_secs(60);
/// Then the pause between two questions grows no further.
const ASKED_MAX: u32 = 5;
/// Two ends of a right this close are one.
const SAME_END: Duration = Duration::from_secs(1);
/// A step 1 that was not answered for so long may be sent again: a large answer over a slow line takes minutes.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);

/// A connection that follows the document.
#[derive(Debug)]
pub struct Follower {
    /// Its dialect.
    pub dialect: Dialect,
    /// Its subject.
    pub user: UserId,
    /// The session that revocation names.
    pub user_session: UserSessionId,
    /// What it may do, as last looked up.
    pub role: Role,
    /// When that right ends by itself.
    pub until: Option<Instant>,
    /// Hocuspocus: when a fresh token is asked for, if one has not been yet.
    pub ask_token_at: Option<Instant>,
    /// A step 1 of ours that it has not answered yet went out at this time.
    pub step1_sent_at: Option<Instant>,
    /// The Yjs client id that is its own: the only one of its first announcement.
    pub own_client: Option<u64>,
    /// The client id under which it wrote last, as itself.
    pub wrote_as: Option<u64>,
    /// Its first announcement is behind it.
    pub announced: bool,
    /// Its first announcement waits, or is being taken in.
    pub is_first_announcement: bool,
    /// When it joined.
    pub since: Option<Instant>,
    /// It was sent a step 2, and hears every update since.
    pub receiving: bool,
    /// Highest sequence sent to it.
    pub seen_seq: u64,
    /// Updates that wait for their commit.
    pub waiting: usize,
    /// Their bytes.
    pub waiting_bytes: usize,
    /// The connection is gone; the follower stays until what it sent is settled, so that its rights are still looked at.
    pub is_gone: bool,
    /// When it was last told that it may only read.
    pub told_read_only_at: Option<Instant>,
    /// Presence that came after an update that still waits.
    pub delayed_presence: Option<DelayedPresence>,
    /// What it was asked to send again.
    pub gap: Option<Gap>,
    /// What it has under its own ids must be seen first.
    pub check: Option<Check>,
    /// Step 1s of ours that it has not answered.
    unanswered: u32,
    /// What it has asked.
    pub questions: Questions,
    /// y-websocket: clients and first clocks of content of its own that it repeated, and that was not echoed because
    /// the rest of the update has to wait.
    unechoed: BTreeMap<u64, u64>,
    next_ordinal: u64,
    unresolved: BTreeSet<u64>,
    owed: BTreeSet<u64>,
    statuses: Statuses,
}

/// Presence waits for the updates before it, but not for long.
#[derive(Debug)]
pub struct DelayedPresence {
    /// Newest state per client.
    pub entries: Vec<AwarenessEntry>,
    /// It waits for everything below this ordinal.
    pub after: u64,
    /// And no longer than this.
    pub until: Instant,
}

/// Others brought content under ids of this connection's user, or under the one that it announced as its own: it was asked for what it has itself
/// of that, and nothing counts as saved before.
#[derive(Debug, Default)]
pub struct Check {
    /// So many of its step 2s answer what it was asked before.
    skip: u32,
    /// The id that it announced, where the log does not know it for its user's.
    pub claimed: Option<u64>,
    /// The step 1 of the client that waits for an answer.
    pub step1: Option<Bytes>,
}

/// Something that the connection sent does not continue what the log holds.
#[derive(Debug)]
pub struct Gap {
    /// `(client, clock)` that must be known first.
    pub missing: Vec<(u64, u64)>,
    /// Step 1 is sent (again) at this time; `None` while the log's head is looked at first.
    pub ask_at: Option<Instant>,
    /// Somebody else is connected under its own client id.
    pub is_own_withheld: bool,
    asked: u32,
}

impl Gap {
    /// A gap that has not been asked about.
    pub fn new(missing: Vec<(u64, u64)>) -> Self {
        Self { missing, ask_at: None, is_own_withheld: false, asked: 0 }
    }

    /// For a minute another user has been connected under its own client id.
    pub fn is_hopeless(&self) -> bool {
        self.is_own_withheld && self.asked == ASKED_MAX
    }

    /// A step 1 goes out now; the next in 2, 4 … 30 s.
    pub fn asked(&mut self, now: Instant) {
        self.asked = (self.asked + 1).min(ASKED_MAX);
        self.ask_at = Some(now + Duration::from_secs((1u64 << self.asked).min(30)));
    }
}

/// The dialect's own way of saying "committed".
#[derive(Debug)]
enum Statuses {
    /// y-websocket: the echo of the content.
    Echo,
    /// Hocuspocus: one SyncStatus per update and per step 2 that was not solicited. `refused` counts those that were
    /// answered with 0: the client counts them as unsaved until it hears 1 for each.
    Counted {
        /// Answered with 0 since the client began.
        refused: usize,
        /// The next step 2 answers a step 1 that the client began: it gets a status of its own.
        step2_due: bool,
        /// Ordinals below are cancelled by the client's own step 1.
        valid_from: u64,
        /// Ordinals that get no status: solicited step 2s.
        silent: BTreeSet<u64>,
    },
    /// Y-Sweet: type 102 comes back when all before it has committed, and the client's step 2 first of all.
    Marked { step2_committed: bool, refused: bool, marks: VecDeque<(u64, Bytes)>, withheld_since: Option<Instant> },
}

/// What is to be sent because something was settled.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Receipts {
    /// Hocuspocus: so many SyncStatus 1.
    pub statuses: usize,
    /// Y-Sweet: these payloads.
    pub marks: Vec<Bytes>,
}

impl Follower {
    /// A connection that has just been let in.
    pub fn new(dialect: Dialect, user: UserId, user_session: UserSessionId, role: Role) -> Self {
        let statuses = match dialect {
            Dialect::YWebsocket => Statuses::Echo,
            Dialect::Hocuspocus => {
                Statuses::Counted { refused: 0, step2_due: false, valid_from: 0, silent: BTreeSet::new() }
            }
            Dialect::YSweet => Statuses::Marked {
                step2_committed: false,
                refused: false,
                marks: VecDeque::new(),
                withheld_since: None,
            },
        };
        Self {
            dialect,
            user,
            user_session,
            role,
            until: None,
            ask_token_at: None,
            step1_sent_at: None,
            own_client: None,
            wrote_as: None,
            announced: false,
            is_first_announcement: false,
            since: None,
            receiving: false,
            seen_seq: 0,
            waiting: 0,
            waiting_bytes: 0,
            is_gone: false,
            told_read_only_at: None,
            delayed_presence: None,
            gap: None,
            check: None,
            unanswered: 0,
            questions: Questions::default(),
            unechoed: BTreeMap::new(),
            next_ordinal: 0,
            unresolved: BTreeSet::new(),
            owed: BTreeSet::new(),
            statuses,
        }
    }

    /// Its right ends by itself at `until`. A Hocuspocus client is asked for a fresh token a tenth of the remaining
    /// time before, at least a second and at most a minute; not again for the same end.
    pub fn lasts(&mut self, until: Option<Instant>, now: Instant) {
        let is_same = match (self.until, until) {
            // Each look at the clock of the database comes to another instant.
            (Some(before), Some(until)) => until.max(before) - until.min(before) < SAME_END,
            (before, until) => before == until,
        };
        self.until = until;
        if is_same {
            return;
        }
        self.ask_token_at = until.filter(|_| self.dialect == Dialect::Hocuspocus).map(|until| {
            let ahead = (until.saturating_duration_since(now) / 10).clamp(TOKEN_ASKED_AHEAD_MIN, TOKEN_ASKED_AHEAD_MAX);
            until.checked_sub(ahead).map_or(now, |at| at.max(now))
        });
    }

    /// When its right is to be looked at for the time that has passed.
    pub fn right_due(&self) -> Option<Instant> {
        if self.is_gone { None } else { [self.until, self.ask_token_at].into_iter().flatten().min() }
    }

    /// Whether its right has ended by itself.
    pub fn has_expired(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until)
    }

    /// Whether the end of its session is just that of its time, which the database may have seen first.
    pub fn is_expiring(&self, now: Instant) -> bool {
        self.has_expired(now + SAME_END)
    }

    /// A step 1 of ours goes out.
    pub fn asked(&mut self, now: Instant) {
        self.step1_sent_at = Some(now);
        self.unanswered += 1;
    }

    /// What it has under its own ids must be seen first: the next step 1 asks for it.
    pub fn doubt(&mut self) -> &mut Check {
        let check = self.check.get_or_insert_default();
        check.skip = self.unanswered;
        check
    }

    /// A step 2 arrived. Whether it answers what it was asked when it was [doubted](Self::doubt).
    pub fn answers(&mut self) -> bool {
        self.unanswered = self.unanswered.saturating_sub(1);
        match &mut self.check {
            Some(check) if check.skip > 0 => {
                check.skip -= 1;
                false
            }
            check => check.is_some(),
        }
    }

    /// y-websocket: a step 2 repeats these of its own. They are echoed with the whole of it, or else asked for again.
    pub fn repeats<'a>(&mut self, update: &Update, own: impl Iterator<Item = &'a Known>, whole: bool) {
        if !whole {
            return own.for_each(|known| {
                let from = self.unechoed.entry(known.client).or_insert(known.clocks.start);
                *from = known.clocks.start.min(*from);
            });
        }
        for (client, from, _) in update.clients() {
            if self.unechoed.get(&client).is_some_and(|first| from <= *first) {
                self.unechoed.remove(&client);
            }
        }
    }

    /// y-websocket: something of its own that it repeated is still to be echoed.
    pub fn is_echo_owed(&self) -> bool {
        !self.unechoed.is_empty()
    }

    /// From which clocks on, by client.
    pub fn unechoed(&self) -> &BTreeMap<u64, u64> {
        &self.unechoed
    }

    /// Whether it may still be answering a step 1 of ours.
    pub fn is_answering(&self, now: Instant) -> bool {
        self.step1_sent_at.is_some_and(|at| now < at + ANSWER_TIME_MAX)
    }

    /// The connection is gone, or let go: nothing more is sent to it, and what it said of itself last is not said after it.
    pub fn leave(&mut self) {
        self.is_gone = true;
        self.receiving = false;
        self.delayed_presence = None;
    }

    /// The client began a synchronisation: in Hocuspocus everything owed and pending is cancelled, and its next step 2
    /// gets one status.
    pub fn began(&mut self) {
        if let Statuses::Counted { refused, step2_due, valid_from, silent } = &mut self.statuses {
            *refused = 0;
            *step2_due = true;
            *valid_from = self.next_ordinal;
            silent.clear();
            self.owed.clear();
            self.gap = None;
        }
    }

    /// An update or step 2 arrived; the ordinal is how it is settled later.
    pub fn received(&mut self, is_step2: bool) -> u64 {
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        self.unresolved.insert(ordinal);
        if is_step2 {
            self.step1_sent_at = None;
        }
        if let Statuses::Counted { step2_due, silent, .. } = &mut self.statuses
            && is_step2
            && !std::mem::take(step2_due)
        {
            silent.insert(ordinal);
        }
        ordinal
    }

    /// Whether the ordinal was a step 2 that a step 1 of ours asked for (Hocuspocus).
    pub fn is_solicited(&self, ordinal: u64) -> bool {
        matches!(&self.statuses, Statuses::Counted { silent, .. } if silent.contains(&ordinal))
    }

    /// It has committed, or what it repeats has. A step 2 taken whole also releases what was owed before it.
    pub fn settled(&mut self, ordinal: u64, whole_step2: bool) -> Receipts {
        let mut released = vec![ordinal];
        if whole_step2 {
            released.extend(self.owed.range(..ordinal));
            self.owed = self.owed.split_off(&ordinal);
            if self.owed.is_empty() {
                self.gap = None;
            }
        }
        for done in &released {
            self.unresolved.remove(done);
        }
        let mut receipts = Receipts::default();
        match &mut self.statuses {
            Statuses::Echo => {}
            Statuses::Counted { refused, valid_from, silent, .. } => {
                for done in released {
                    let silent = silent.remove(&done);
                    receipts.statuses += usize::from(done >= *valid_from && !silent);
                }
                if whole_step2 {
                    receipts.statuses += std::mem::take(refused); // it held everything that was refused before
                }
            }
            Statuses::Marked { step2_committed, refused, .. } => {
                *step2_committed |= whole_step2;
                *refused &= !whole_step2;
                receipts.marks = self.ripe_marks();
            }
        }
        receipts
    }

    /// A part of it was left out, or it was dropped for lack of room: its acknowledgement is owed until a step 2 brings it whole. So
    /// there is a gap to be asked about, even where a step 2 of the same batch has just closed the one before.
    pub fn owe(&mut self, ordinal: u64) {
        self.owed.insert(ordinal);
        self.gap.get_or_insert_with(|| Gap::new(Vec::new()));
    }

    /// It was refused: no acknowledgement, unless a whole step 2 brings it after all.
    pub fn refused(&mut self, ordinal: u64) {
        self.unresolved.remove(&ordinal);
        match &mut self.statuses {
            Statuses::Echo => {}
            Statuses::Counted { refused, silent, valid_from, .. } => {
                let silent = silent.remove(&ordinal);
                *refused += usize::from(ordinal >= *valid_from && !silent);
            }
            Statuses::Marked { refused, marks, .. } => {
                *refused = true;
                marks.clear();
            }
        }
    }

    /// Y-Sweet: a 102 arrived; it waits its turn.
    pub fn marked(&mut self, payload: Bytes, now: Instant) -> Receipts {
        let next = self.next_ordinal;
        let Statuses::Marked { refused, marks, withheld_since, .. } = &mut self.statuses else {
            return Receipts::default();
        };
        withheld_since.get_or_insert(now);
        if !*refused {
            if marks.back().is_some_and(|(after, _)| *after == next) {
                marks.pop_back(); // nothing came between: the newer says it all
            }
            marks.push_back((next, payload));
        }
        Receipts { statuses: 0, marks: self.ripe_marks() }
    }

    /// Y-Sweet: when a client whose 102 is withheld must hear something else, lest it take us for dead (3 s).
    pub fn reassure_at(&self) -> Option<Instant> {
        match &self.statuses {
            Statuses::Marked { withheld_since: Some(since), .. } => Some(*since + Duration::from_millis(1_500)),
            _ => None,
        }
    }

    /// It was reassured just now. The next 102 asks again.
    pub fn reassured(&mut self) {
        if let Statuses::Marked { withheld_since, .. } = &mut self.statuses {
            *withheld_since = None;
        }
    }

    /// Something is owed that only the client can bring.
    pub fn is_owed(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Everything received before this ordinal is settled or owed (what is owed may take long).
    pub fn is_settled_before(&self, ordinal: u64) -> bool {
        self.unresolved.range(..ordinal).all(|waiting| self.owed.contains(waiting))
    }

    /// The ordinal that the next update will get.
    pub fn next_ordinal(&self) -> u64 {
        self.next_ordinal
    }

    fn ripe_marks(&mut self) -> Vec<Bytes> {
        let oldest = self.unresolved.first().copied().unwrap_or(u64::MAX);
        let Statuses::Marked { step2_committed, refused, marks, withheld_since } = &mut self.statuses else {
            return Vec::new();
        };
        let mut ripe = Vec::new();
        if *step2_committed && !*refused {
            while let Some((_, payload)) = marks.pop_front_if(|(after, _)| *after <= oldest) {
                ripe.push(payload);
            }
            if !ripe.is_empty() {
                *withheld_since = None;
            }
        }
        ripe
    }
}
