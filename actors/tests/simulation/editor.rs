//! Editors: yrs documents behind the stock clients' side of each dialect, with the clients' own idea of what is saved.

use bytes::Bytes;
use contextnexus_actors::ids::{SessionId, UserId};
use contextnexus_actors::outbox::Outbox;
use contextnexus_actors::protocol::Dialect;
use contextnexus_actors::protocol::codec::{Message, encode};
use contextnexus_gate::lib0::{Reader, write_var_string, write_var_uint};
use contextnexus_gate::{AwarenessEntry, Caps, Update, encode_awareness};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use yrs::types::Attrs;
use yrs::types::text::YChange;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{Any, Array, ClientID, Doc, Map, OffsetKind, Options, ReadTxn, StateVector, Text, Transact};

/// The document's name on every wire.
pub const ROOM: &str = "simulated";

/// A document that deletes nothing of its own accord.
pub fn doc(client: u64) -> Doc {
    let mut options = Options::with_client_id(ClientID::new(client));
    options.offset_kind = OffsetKind::Utf16;
    options.cleanup_formatting = false;
    Doc::with_options(options)
}

/// All that somebody would see, and all that they know.
pub fn content(doc: &Doc) -> String {
    let (text, map, array) = roots(doc);
    let transaction = doc.try_transact().unwrap();
    let runs = text.diff(&transaction, YChange::identity);
    let runs: Vec<String> = runs.iter().map(|run| format!("{:?} {:?}", run.insert, sorted(&run.attributes))).collect();
    let keys: std::collections::BTreeMap<String, String> =
        map.iter(&transaction).map(|(key, value)| (key.to_owned(), format!("{value:?}"))).collect();
    let items: Vec<String> = array.iter(&transaction).map(|item| format!("{item:?}")).collect();
    let mut clocks: Vec<(u64, u32)> =
        transaction.state_vector().iter().map(|(client, clock)| (client.get(), *clock)).collect();
    clocks.sort_unstable();
    format!("text {runs:?}\nmap {keys:?}\narray {items:?}\nclocks {clocks:?}")
}

fn sorted(attributes: &Option<Box<Attrs>>) -> std::collections::BTreeMap<String, String> {
    let attributes = attributes.iter().flat_map(|attributes| attributes.iter());
    attributes.map(|(key, value)| (key.to_string(), format!("{value:?}"))).collect()
}

fn roots(doc: &Doc) -> (yrs::TextRef, yrs::MapRef, yrs::ArrayRef) {
    (doc.get_or_insert_text("text"), doc.get_or_insert_map("map"), doc.get_or_insert_array("array"))
}

/// Edits at random, as a person would; the update of it.
pub fn edit(doc: &Doc, what: u64) -> Bytes {
    let mut rng = StdRng::seed_from_u64(what);
    let (text, map, array) = roots(doc);
    let mut transaction = doc.try_transact_mut().unwrap();
    let length = text.len(&transaction);
    let key = ["a", "b", "c"][rng.random_range(0..3)];
    match rng.random_range(0..20) {
        0..=4 if length > 0 => {
            let at = rng.random_range(0..length);
            text.remove_range(&mut transaction, at, rng.random_range(1..=(length - at).min(4)));
        }
        5 | 6 if length > 0 => {
            let at = rng.random_range(0..length);
            let bold = if rng.random_bool(0.3) { Any::Null } else { Any::Bool(true) };
            let range = rng.random_range(1..=length - at);
            text.format(&mut transaction, at, range, Attrs::from([("bold".into(), bold)]));
        }
        7 | 8 => {
            map.insert(&mut transaction, key, rng.random_range(0..1_000_i64));
        }
        9 => {
            map.remove(&mut transaction, key);
        }
        10 if array.len(&transaction) > 0 => array.remove(&mut transaction, 0),
        11 | 12 => {
            array.push_back(&mut transaction, rng.random_range(0..1_000_i64));
        }
        _ => {
            let words = ["a", "bc", "é", "some words ", "a longer run of text, typed at once "];
            text.insert(&mut transaction, rng.random_range(0..=length), words[rng.random_range(0..words.len())]);
        }
    }
    Bytes::from(transaction.encode_update_v1())
}

/// Takes an update in. False: it did not continue what the document holds.
pub fn apply(doc: &Doc, update: &[u8]) -> bool {
    let update = yrs::Update::decode_v1(update).unwrap();
    let mut transaction = doc.try_transact_mut().unwrap();
    transaction.apply_update(update).unwrap();
    transaction.store().pending_update().is_none() && transaction.store().pending_ds().is_none()
}

/// What a peer at `state_vector` lacks.
pub fn diff(doc: &Doc, state_vector: &[u8]) -> Bytes {
    let state_vector = StateVector::decode_v1(state_vector).unwrap();
    Bytes::from(doc.try_transact().unwrap().encode_diff_v1(&state_vector))
}

/// The whole document as an update.
pub fn state(doc: &Doc) -> Bytes {
    Bytes::from(doc.try_transact().unwrap().encode_state_as_update_v1(&StateVector::default()))
}

/// Somebody with an editor.
pub struct Editor {
    pub client: u64,
    pub user: UserId,
    pub dialect: Dialect,
    pub doc: Doc,
    pub link: Option<Link>,
    cursor: u64,
}

/// The client's end of a socket.
pub struct Link {
    pub node: usize,
    pub session: SessionId,
    pub outbox: Arc<Outbox>,
    /// Hocuspocus: one for the synchronisation, one for each update since, less what was answered.
    unsynced: i64,
    /// y-websocket: clocks of our own that were sent on this connection, and did not come back on it yet.
    unechoed: Vec<(u64, u64)>,
    /// Y-Sweet: the last mark that was sent, and the last that came back.
    marks: (u64, u64),
    /// Y-Sweet: nothing was edited since the last mark was sent.
    is_marked: bool,
    is_synchronised: bool,
}

/// A message of the server, its dialect taken off.
#[derive(Debug)]
enum Heard {
    Step1(Bytes),
    Step2(Bytes),
    Update(Bytes),
    Status(bool),
    Mark(u64),
    Detached,
    Denied(u64),
    Other,
}

/// What reading the socket led to.
#[derive(Default)]
pub struct Read {
    /// To be sent.
    pub answers: Vec<Bytes>,
    /// The server closed.
    pub is_over: bool,
    /// Updates that were shown to this editor.
    pub shown: Vec<Bytes>,
    /// The client believes that all it has is saved.
    pub is_saved: bool,
    /// What no client expects.
    pub surprise: Option<String>,
}

impl Editor {
    pub fn new(client: u64, user: UserId, dialect: Dialect) -> Self {
        Self { client, user, dialect, doc: doc(client), link: None, cursor: 0 }
    }

    /// A new connection; what is sent on it at once.
    pub fn connect(&mut self, node: usize, session: SessionId, outbox: Arc<Outbox>) -> Vec<Bytes> {
        let (unsynced, marks) = (1, (1, 0));
        let unechoed = Vec::new();
        let is_synchronised = false;
        self.link = Some(Link { node, session, outbox, unsynced, unechoed, marks, is_marked: true, is_synchronised });
        let mut frames = Vec::new();
        if self.dialect == Dialect::Hocuspocus {
            let mut token = self.address();
            write_var_uint(&mut token, 2);
            write_var_uint(&mut token, 0);
            write_var_string(&mut token, "token");
            frames.push(Bytes::from(token));
        }
        frames.push(self.say(Message::Step1(&self.doc.try_transact().unwrap().state_vector().encode_v1())));
        if self.dialect == Dialect::YSweet {
            frames.push(self.mark());
        }
        if self.cursor > 0 {
            frames.push(self.announce());
        }
        frames
    }

    /// Edits; what is to be sent if there is a connection.
    pub fn edit(&mut self, what: u64) -> Vec<Bytes> {
        let update = edit(&self.doc, what);
        self.sends(&update);
        let Some(link) = &mut self.link else { return Vec::new() };
        link.unsynced += 1;
        link.is_marked = false;
        let mut frames = vec![self.say(Message::Update(&update))];
        if self.dialect == Dialect::YSweet && what.is_multiple_of(2) {
            frames.push(self.mark());
        }
        frames
    }

    /// Moves the cursor; what is to be sent if there is a connection.
    pub fn announce(&mut self) -> Bytes {
        self.cursor += 1;
        let state = Bytes::from(format!("{{\"at\":{}}}", self.cursor));
        let entry = AwarenessEntry { client: self.client, clock: self.cursor, state, is_null: false };
        self.say(Message::Awareness(&encode_awareness(&[entry])))
    }

    /// The cursor, if it was ever shown.
    pub fn cursor(&self) -> Option<Bytes> {
        (self.cursor > 0).then(|| Bytes::from(format!("{{\"at\":{}}}", self.cursor)))
    }

    /// Y-Sweet: sends the newest mark, if something was edited after the last.
    pub fn mark_if_needed(&mut self) -> Option<Bytes> {
        let needed = self.dialect == Dialect::YSweet && self.link.as_ref().is_some_and(|link| !link.is_marked);
        needed.then(|| self.mark())
    }

    fn mark(&mut self) -> Bytes {
        let mut payload = Vec::new();
        if let Some(link) = &mut self.link {
            link.marks.0 += 1;
            link.is_marked = true;
            write_var_uint(&mut payload, link.marks.0);
        }
        self.say(Message::Mark(&payload))
    }

    /// Reads frames as they come off the socket.
    pub fn read(&mut self, frames: Vec<Bytes>) -> Read {
        let mut read = Read::default();
        for frame in frames {
            if frame[0] == 0x88 {
                read.is_over = true;
                break;
            }
            let heard = self.hear(&payload(&frame));
            self.take_in(heard, &mut read);
        }
        read
    }

    fn take_in(&mut self, heard: Heard, read: &mut Read) {
        let Some(link) = &mut self.link else { return };
        match heard {
            Heard::Step1(state_vector) => {
                let step2 = diff(&self.doc, &state_vector);
                self.sends(&step2);
                read.answers.push(self.say(Message::Step2(&step2)));
            }
            Heard::Step2(update) | Heard::Update(update) => {
                link.is_synchronised = true;
                if !apply(&self.doc, &update) {
                    read.surprise = Some("was shown what does not continue".into());
                }
                self.confirms(&update);
                read.shown.push(update);
            }
            Heard::Status(true) => {
                link.unsynced -= 1;
                read.is_saved |= link.unsynced == 0;
                if link.unsynced < 0 {
                    read.surprise = Some("was acknowledged once too often".into());
                }
            }
            Heard::Mark(mark) => {
                if mark <= link.marks.1 || mark > link.marks.0 {
                    read.surprise = Some(format!("heard mark {mark} after {:?}", link.marks));
                }
                link.marks.1 = mark;
                read.is_saved |= mark == link.marks.0 && link.is_marked && link.is_synchronised;
            }
            Heard::Detached => read.is_over = true,
            Heard::Status(false) => read.surprise = Some("was told that it may not write".into()),
            Heard::Denied(why) => read.surprise = Some(format!("was denied ({why})")),
            Heard::Other => {}
        }
    }

    /// What is still unconfirmed on this connection, when all is quiet.
    pub fn unconfirmed(&self) -> Option<String> {
        let link = self.link.as_ref()?;
        match self.dialect {
            Dialect::YWebsocket if !link.unechoed.is_empty() => Some(format!("no echo of {:?}", link.unechoed)),
            Dialect::Hocuspocus if link.unsynced != 0 => Some(format!("{} unsynced", link.unsynced)),
            Dialect::YSweet if link.marks.0 != link.marks.1 => Some(format!("marks {:?}", link.marks)),
            _ => None,
        }
    }

    fn sends(&mut self, update: &Bytes) {
        let (client, dialect) = (self.client, self.dialect);
        if let Some(link) = self.link.as_mut().filter(|_| dialect == Dialect::YWebsocket) {
            link.unechoed.extend(own_clocks(client, update));
        }
    }

    fn confirms(&mut self, update: &Bytes) {
        let Some(link) = &mut self.link else { return };
        for (from, to) in own_clocks(self.client, update) {
            let left = std::mem::take(&mut link.unechoed);
            for (start, end) in left {
                link.unechoed.extend([(start, end.min(from)), (start.max(to), end)].iter().filter(|(a, b)| a < b));
            }
        }
    }

    fn address(&self) -> Vec<u8> {
        let mut address = Vec::new();
        if self.dialect == Dialect::Hocuspocus {
            write_var_string(&mut address, ROOM);
        }
        address
    }

    fn say(&self, message: Message<'_>) -> Bytes {
        payload(&encode(&self.address(), message))
    }

    fn hear(&self, payload: &Bytes) -> Heard {
        let mut reader = Reader::new(payload);
        if self.dialect == Dialect::Hocuspocus && payload.len() > 1 {
            reader.read_var_string().unwrap();
        }
        let bytes = |reader: &mut Reader<'_>| payload.slice_ref(reader.read_var_bytes().unwrap());
        match (reader.read_var_uint().unwrap(), self.dialect) {
            (0, _) => match reader.read_var_uint().unwrap() {
                0 => Heard::Step1(bytes(&mut reader)),
                1 => Heard::Step2(bytes(&mut reader)),
                _ => Heard::Update(bytes(&mut reader)),
            },
            (2, _) => match reader.read_var_uint().unwrap() {
                2 => Heard::Other,
                denied => Heard::Denied(denied),
            },
            (7, Dialect::Hocuspocus) => Heard::Detached,
            (8, Dialect::Hocuspocus) => Heard::Status(reader.read_var_uint().unwrap() == 1),
            (102, Dialect::YSweet) => {
                let mark = bytes(&mut reader);
                Heard::Mark(Reader::new(&mark).read_var_uint().unwrap())
            }
            _ => Heard::Other,
        }
    }
}

fn own_clocks(client: u64, update: &Bytes) -> Vec<(u64, u64)> {
    let update = Update::parse(update.clone(), &Caps::default()).unwrap();
    update.clients().filter(|(of, ..)| *of == client).map(|(_, from, to)| (from, to)).collect()
}

/// What a server frame carries: it is not masked, and whole.
fn payload(frame: &Bytes) -> Bytes {
    match frame[1] {
        126 => frame.slice(4..),
        127 => frame.slice(10..),
        _ => frame.slice(2..),
    }
}
