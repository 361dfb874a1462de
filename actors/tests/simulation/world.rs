//! A world: nodes over one log and one bus, editors before them, and a hand on the clock. Nothing in it waits, and nothing in it is
//! drawn: one schedule is one history.

use crate::editor::{self, Editor, content};
use crate::faults::Fault;
use crate::node::{Node, Shared};
use crate::schedule::{Luck, Post, Setting, Step};
use crate::service::Service;
use crate::store::Store;
use bytes::Bytes;
use contextnexus_actors::access::Role;
use contextnexus_actors::budget::Budgets;
use contextnexus_actors::document::state::DocumentState;
use contextnexus_actors::ids::{DocumentId, DocumentKey, Position, SessionId, TenantId, UserId, UserSessionId};
use contextnexus_actors::limits::Limits;
use contextnexus_actors::outbox::Drained;
use contextnexus_actors::ports::documents::Writer;
use contextnexus_actors::ports::log::{Stored, Tail};
use contextnexus_actors::protocol::Dialect;
use contextnexus_gate::{Caps, Marks, Update};
use futures_util::task::noop_waker;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use uuid::Uuid;
use yrs::{Text, Transact};

/// What went wrong, and at which step (none: afterwards).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub at: Option<usize>,
    pub what: String,
}

impl Failure {
    /// What it has in common with others of its kind: the words before the first number.
    pub fn kind(&self) -> &str {
        self.what.split(|end: char| end == '\n' || end.is_ascii_digit()).next().unwrap_or_default()
    }
}

/// What a world came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub rows: usize,
    pub seq: u64,
    pub content: String,
    pub seen: BTreeMap<&'static str, u64>,
}

struct World {
    shared: Shared,
    nodes: Vec<Node>,
    editors: Vec<Editor>,
    service: Service,
    is_away: bool,
    /// Pages that were loaded again: each has a client id of its own.
    reloads: u64,
}

/// Lives through a schedule, and looks at everything.
pub fn run(setting: &Setting, schedule: &[Step], fault: Option<Fault>) -> Result<Summary, Failure> {
    let mut at = None;
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(setting, fault);
        for (index, step) in schedule.iter().enumerate() {
            at = Some(index);
            world.step(*step);
            if let Some(what) = world.shared.violation.take() {
                return Err(what);
            }
        }
        at = None;
        world.settle()?;
        world.judge()
    }));
    let lived = lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    });
    lived.map_err(|what| Failure { at, what })
}

fn limits(is_tight: bool) -> Limits {
    let mut limits = Limits { snapshot_tail_updates: 12, document_compact_after_s: 1, ..Limits::default() };
    if is_tight {
        limits.document_waiting_bytes_max = 400;
        limits.connection_window_bytes = 200;
        limits.outbox_bytes_max = 300;
        limits.sync_piece_bytes = 80;
        limits.document_recent_bytes = 5_000;
        limits.bus_message_bytes_max = 100;
        limits.snapshot_tail_updates = 4;
    }
    limits
}

impl World {
    fn new(setting: &Setting, fault: Option<Fault>) -> Self {
        let key = DocumentKey { tenant: TenantId(Uuid::from_u128(1)), document: DocumentId(Uuid::from_u128(2)) };
        let store = Store::new(key, fault);
        let mut shared = Shared::new(store, limits(setting.is_tight), Instant::now(), fault);
        let nodes = (0..setting.nodes).map(|_| Node::start(&mut shared)).collect();
        let dialects = [Dialect::YWebsocket, Dialect::Hocuspocus, Dialect::YSweet];
        let editors = (0..setting.editors)
            .map(|index| {
                let user = UserId(Uuid::from_u128(100 + index as u128 / 2)); // some are one person on two machines
                Editor::new(10 + index as u64, user, dialects[index % 3])
            })
            .collect();
        Self { shared, nodes, editors, service: Service::new(), is_away: false, reloads: 0 }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Edit { editor, what } => {
                let frames = self.editors[editor].edit(what);
                self.send(editor, frames);
            }
            Step::Cursor { editor } => {
                let frame = self.editors[editor].announce();
                self.send(editor, vec![frame]);
            }
            Step::Connect { editor, node } => {
                self.disconnect(editor, 0);
                self.connect(editor, node);
            }
            Step::Disconnect { editor, unsent } => self.disconnect(editor, unsent),
            Step::Hear { node, socket, frames } => {
                let node = self.busy(node, |node| node.has_talk());
                self.nodes[node].hear(socket, frames, &mut self.shared);
            }
            Step::Read { editor, bytes } => self.read(editor, bytes),
            Step::Log { node, which, luck } => {
                let node = self.busy(node, |node| node.has_work());
                self.nodes[node].log_does(which, luck, self.is_away, &mut self.shared);
            }
            Step::Late => self.write_late(),
            Step::Bus { node, post } => {
                let node = self.busy(node, Node::has_post);
                self.nodes[node].hear_bus(post, &mut self.shared);
            }
            Step::Cut { node, is_cut } => self.nodes[node].cut(is_cut, &self.shared),
            Step::Heads { node, is_slow } if !self.is_away => self.nodes[node].compare_heads(is_slow, &mut self.shared),
            Step::Heads { .. } => {}
            Step::Request { node, what } => self.service.write(&mut self.nodes[node], what, &mut self.shared),
            Step::Time { ms } => self.pass(ms),
            Step::Skew { node, ms } => self.nodes[node].jump(Duration::from_millis(ms)),
            Step::Away { is_away } => self.is_away = is_away,
            Step::Kill { node, are_written } => {
                let fresh = Node::start(&mut self.shared);
                std::mem::replace(&mut self.nodes[node], fresh).kill(are_written && !self.is_away, &mut self.shared);
            }
            Step::Unload { node } => {
                let node = self.busy(node, |node| node.is_idle());
                self.nodes[node].unload(&mut self.shared);
            }
            Step::Damage => self.shared.store.damage_snapshot(),
            Step::Backup => self.shared.store.back_up(),
            Step::Restore => self.shared.store.restore(),
            Step::Squat { editor, node, deletes } => self.squat(editor, node, deletes),
            Step::Convict { which } => {
                let users: Vec<UserId> = self.editors.iter().map(|editor| editor.user).collect();
                self.shared.convict(which, |user| users.contains(&user));
            }
            Step::Try { which } => self.shared.try_log(which),
        }
    }

    /// That node, or the next one that has such a thing to do.
    fn busy(&mut self, node: usize, has_it: impl Fn(&mut Node) -> bool) -> usize {
        let count = self.nodes.len();
        (node..node + count).map(|at| at % count).find(|at| has_it(&mut self.nodes[*at])).unwrap_or(node)
    }

    fn connect(&mut self, editor: usize, node: usize) {
        let session = SessionId(self.shared.fresh_id());
        let person = &mut self.editors[editor];
        let outbox = self.nodes[node].accept(session, person.dialect, person.user, &self.shared);
        let frames = person.connect(node, session, outbox);
        self.send(editor, frames);
    }

    /// The client's end is gone at once; the server's learns of it after what is on its way.
    fn disconnect(&mut self, editor: usize, unsent: usize) {
        let Some(link) = self.editors[editor].link.take() else { return };
        link.outbox.abandon();
        if let Some(socket) = self.nodes[link.node].sockets.get_mut(&link.session) {
            socket.is_gone = true;
            socket.inbound.truncate(socket.inbound.len().saturating_sub(unsent));
        }
    }

    /// The server has closed.
    fn is_over(&mut self, editor: usize) {
        let session = self.editors[editor].link.as_ref().map(|link| link.session);
        self.disconnect(editor, 0);
        if session.is_some_and(|session| self.shared.forked.remove(&session)) {
            self.reload(editor);
        }
    }

    fn send(&mut self, editor: usize, frames: Vec<bytes::Bytes>) {
        let Some(link) = &self.editors[editor].link else { return };
        if let Some(socket) = self.nodes[link.node].sockets.get_mut(&link.session) {
            socket.inbound.extend(frames);
        }
    }

    fn read(&mut self, editor: usize, bytes: usize) {
        let Some(link) = &self.editors[editor].link else { return };
        let node = link.node;
        let mut frames = VecDeque::new();
        match link.outbox.poll_drain(&mut Context::from_waker(&noop_waker()), bytes, &mut frames) {
            Poll::Pending => return,
            Poll::Ready(Drained::End) => return self.is_over(editor),
            Poll::Ready(Drained::Frames) => {}
        }
        let read = self.editors[editor].read(frames.into());
        if let Some(surprise) = read.surprise {
            self.shared.must_not_be(format!("editor {editor} {surprise}"));
        }
        for update in &read.shown {
            if !self.shared.store.holds(update) {
                self.shared.must_not_be(format!("editor {editor} was shown what is not in the log"));
            }
        }
        let state = editor::state(&self.editors[editor].doc);
        if read.is_saved && self.shared.store.contradicts(self.editors[editor].client, &state) {
            self.shared.must_not_be(format!("editor {editor} takes for saved what somebody else has replaced"));
        }
        if read.is_saved && !self.shared.store.holds(&state) {
            self.shared.must_not_be(format!("editor {editor} takes for saved what is not in the log"));
        }
        self.send(editor, read.answers);
        if read.is_over {
            self.is_over(editor);
        }
        self.nodes[node].catch_up(&mut self.shared);
    }

    /// A stranger writes under the client id of somebody who is away, at the clocks that will be used there.
    fn squat(&mut self, editor: usize, node: usize, deletes: bool) {
        let (client, user) = (self.editors[editor].client, self.editors[editor].user);
        let node = &mut self.nodes[node];
        if self.editors[editor].link.is_some() || node.is_waiting() || !self.shared.store.is_writer(client, user) {
            return;
        }
        let Some((_, state)) = node.state.as_mut().and_then(|state| state.read(self.shared.now)) else { return };
        let forger = editor::doc(client);
        assert!(editor::apply(&forger, &state));
        let text = forger.get_or_insert_text("text");
        let mut updates = Vec::new();
        let mut change = |change: &dyn Fn(&mut yrs::TransactionMut<'_>)| {
            let mut transaction = forger.try_transact_mut().unwrap();
            change(&mut transaction);
            updates.push(Bytes::from(transaction.encode_update_v1()));
        };
        change(&|transaction| text.insert(transaction, 0, "EVIL"));
        if deletes {
            change(&|transaction| text.remove_range(transaction, 0, 4));
        }
        let stranger = UserId(Uuid::from_u128(66));
        let by = Writer { user_session: UserSessionId(stranger.0), user: stranger, role: Role::Editor, until: None };
        for update in updates {
            let (answer, _) = oneshot::channel();
            node.turn(&mut self.shared, |state, now| {
                let mut effects = state.write(by, update, None, answer);
                effects.extend(state.advance(now));
                effects
            });
        }
        self.shared.squatted.insert(client);
        self.shared.saw("a client id was squatted on");
    }

    /// Told that another wrote under the client id, or that something under it was taken out: the page is loaded anew. What was written under the id is still to be read.
    fn reload(&mut self, editor: usize) {
        let Editor { client, user, dialect, .. } = self.editors[editor];
        let kept = self.shared.quarantined.iter().filter(|kept| kept.user == Some(user));
        let mut kept = kept.filter_map(|kept| Update::parse(kept.update.clone(), &Caps::default()).ok());
        let state = editor::state(&self.editors[editor].doc);
        let own = Update::parse(state, &Caps::default()).unwrap();
        let is_own = |kept: &Update, from, to| {
            let marks = |update| Marks::of(update, client, from..to);
            marks(&own).compare(&marks(kept)).different == 0
        };
        let is_kept = kept.any(|kept| kept.clients().any(|(of, from, to)| of == client && is_own(&kept, from, to)));
        let is_due = self.shared.squatted.contains(&client) || self.shared.convicted.contains(&client);
        if !is_kept || !is_due {
            self.shared.must_not_be(format!("editor {editor} was closed, and its words are not kept"));
        }
        self.reloads += 1;
        let fresh = 1_000 + self.reloads;
        self.editors[editor] = Editor::new(fresh, user, dialect);
    }

    fn write_late(&mut self) {
        for request in std::mem::take(&mut self.shared.store.late) {
            let now = self.shared.now;
            self.shared.store.append(request, None, now); // nobody hears of it
        }
    }

    fn pass(&mut self, ms: u64) {
        self.shared.now += Duration::from_millis(ms);
        for node in &mut self.nodes {
            node.on_time(&mut self.shared);
        }
    }

    /// All faults end. Time passes until everybody has everything.
    fn settle(&mut self) -> Result<(), String> {
        self.is_away = false;
        self.write_late();
        for node in &self.nodes {
            node.cut(false, &self.shared);
        }
        // Presence of a node that is gone takes 25 s to expire.
        for second in 0..150 {
            for editor in 0..self.editors.len() {
                if self.editors[editor].link.is_none() {
                    self.connect(editor, editor % self.nodes.len());
                }
                let mut frames = Vec::from_iter(self.editors[editor].mark_if_needed());
                if second % 10 == 0 && self.editors[editor].cursor().is_some() {
                    frames.push(self.editors[editor].announce());
                }
                self.send(editor, frames);
            }
            self.service.settle(&mut self.nodes[0], &mut self.shared);
            for _ in 0..4 {
                self.rush();
                self.pass(250);
            }
            for node in &mut self.nodes {
                node.compare_heads(false, &mut self.shared);
            }
            self.rush();
            if let Some(what) = self.shared.violation.take() {
                return Err(what);
            }
            if second >= 35 && second % 10 == 5 && self.unsettled().is_none() {
                return Ok(());
            }
        }
        Err(self.unsettled().unwrap_or_else(|| "does not come to rest".into()))
    }

    /// Everything that can be done without time passing.
    fn rush(&mut self) {
        for _ in 0..30 {
            for node in &mut self.nodes {
                node.open(&mut self.shared);
                for socket in 0..node.sockets.len() {
                    node.hear(socket, 1_000, &mut self.shared);
                }
                for _ in 0..20 {
                    node.hear_bus(Post::Delivered, &mut self.shared);
                    node.log_does(0, Luck::Good, false, &mut self.shared);
                }
            }
            for editor in 0..self.editors.len() {
                self.read(editor, 1 << 20);
            }
            if self.nodes.iter().all(Node::is_quiet) {
                return;
            }
        }
    }

    /// Who still waits for what.
    fn unsettled(&self) -> Option<String> {
        let waits = |(index, editor): (usize, &Editor)| match &editor.link {
            None => Some(format!("editor {index} is not connected")),
            Some(_) => editor.unconfirmed().map(|what| format!("editor {index}: {what}")),
        };
        let editors = self.editors.iter().enumerate().find_map(waits);
        let busy = |node: &&Node| !node.is_quiet() || node.state.as_ref().is_none_or(|state| !state.is_settled());
        let nodes = || self.nodes.iter().find(busy).map(|_| "a node is not at rest".to_owned());
        editors.or_else(nodes).or_else(|| self.service.is_waiting().then(|| "a request was not answered".into()))
    }

    /// Everybody is equal, equal to the log, and nothing is missing.
    fn judge(&mut self) -> Result<Summary, String> {
        let store = &self.shared.store;
        let key = store.key;
        let rows = store.log.rows(key);
        let head = store.head();
        let mut seq = 0;
        for row in &rows {
            if row.seq_from != seq + 1 || row.seq_to != seq + row.updates.len() as u64 {
                return Err(format!("row {}..={} follows on {seq}", row.seq_from, row.seq_to));
            }
            seq = row.seq_to;
        }
        if head.position != rows.last().map_or(Position::START, |row| Position { seq: row.seq_to, tip: row.tip }) {
            return Err(format!("the head is {}, the log ends at {seq}", head.position));
        }
        let whole =
            Stored { snapshot: None, tail: Tail { rows: rows.clone(), head }, quarantined: Vec::new(), damage: None };
        let truth = self.loaded(whole)?;
        same("a snapshot and its tail", &truth, &self.loaded(store.load().map_err(|error| error.to_string())?)?)?;
        if !store.was_restored {
            same("all that was ever committed", &truth, &content(store.ever()))?;
        }
        for (index, editor) in self.editors.iter().enumerate() {
            same(&format!("editor {index}"), &truth, &content(&editor.doc))?;
        }
        // What is shown, not at which clock: a server shows a state at a clock of its own.
        let mut cursors: BTreeMap<u64, Bytes> = BTreeMap::new();
        cursors.extend(self.editors.iter().filter_map(|editor| Some((editor.client, editor.cursor()?))));
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let Some(state) = &mut node.state else { return Err(format!("node {index} is not open")) };
            if state.position() != head.position {
                return Err(format!("node {index} stands at {}, the log at {}", state.position(), head.position));
            }
            let connected =
                self.editors.iter().flat_map(|editor| &editor.link).filter(|link| link.node == index).count();
            if state.rights().count() != connected {
                return Err(format!("node {index} keeps {} followers of {connected}", state.rights().count()));
            }
            let there: BTreeMap<u64, Bytes> =
                state.everybody(None).into_iter().map(|entry| (entry.client, entry.state)).collect();
            if there != cursors {
                return Err(format!("node {index} sees the cursors {there:?}, there are {cursors:?}"));
            }
            same(&format!("node {index}"), &truth, &seen(state, self.shared.now)?)?;
        }
        Ok(Summary { rows: rows.len(), seq, content: truth, seen: self.shared.seen.clone() })
    }

    fn loaded(&self, stored: Stored) -> Result<String, String> {
        let limits = self.shared.limits.clone();
        let budgets = Budgets::of(&limits);
        let state = DocumentState::load(stored, limits, budgets, self.shared.now);
        let mut state = state.map_err(|unsound| format!("the log cannot be loaded: {unsound:?}"))?;
        seen(&mut state, self.shared.now)
    }
}

/// What a new editor would see.
fn seen(state: &mut DocumentState, now: Instant) -> Result<String, String> {
    let (_, bytes) = state.read(now).ok_or("a document that cannot be read")?;
    let reader = editor::doc(0);
    if !editor::apply(&reader, &bytes) {
        return Err("a state that does not stand alone".into());
    }
    Ok(content(&reader))
}

fn same(who: &str, truth: &str, theirs: &str) -> Result<(), String> {
    if truth == theirs { Ok(()) } else { Err(format!("{who} differs from the log\nlog:\n{truth}\n{who}:\n{theirs}")) }
}
