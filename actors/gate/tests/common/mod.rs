//! Honest editors made of yrs documents, and a server that is nothing but the gate, a log and the log's fold.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

pub mod history;
pub mod recorded;
mod subdocuments;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use contextnexus_gate::{Admission, Caps, Content, Delta, Index, Order, Recent, Update, admit};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use yrs::types::Attrs;
use yrs::undo::UndoManager;
use yrs::updates::decoder::Decode;
use yrs::{
    Any, Array, ArrayPrelim, ArrayRef, Doc, GetString, Map, MapPrelim, MapRef, OffsetKind, Options, Out, ReadTxn,
    StateVector, Text, TextPrelim, TextRef, Transact, Xml, XmlElementPrelim, XmlFragment, XmlFragmentRef, XmlOut,
    XmlTextPrelim,
};

pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

pub fn parse(bytes: &[u8]) -> Update {
    Update::parse(Bytes::copy_from_slice(bytes), &Caps::default())
        .unwrap_or_else(|refused| panic!("{refused}: {bytes:02x?}"))
}

/// A server's document: nothing but what it is given. (yrs would else delete formats that lost their meaning, on its own.)
pub fn doc(client: u64) -> Doc {
    doc_with(client, false)
}

fn doc_with(client: u64, cleanup_formatting: bool) -> Doc {
    let mut options = Options::with_client_id(yrs::ClientID::new(client));
    options.offset_kind = OffsetKind::Utf16;
    options.cleanup_formatting = cleanup_formatting;
    let doc = Doc::with_options(options);
    subdocuments::spare_deleted(&doc);
    doc
}

pub fn state(doc: &Doc) -> Bytes {
    doc.transact().encode_state_as_update_v1(&StateVector::default()).into()
}

/// One editor with its own document. What it writes lands in `outgoing`, an update for each transaction.
pub struct Editor {
    pub doc: Doc,
    pub outgoing: Arc<Mutex<Vec<Bytes>>>,
    /// How much of the log it has taken in.
    pub seen: usize,
    text: TextRef,
    array: ArrayRef,
    map: MapRef,
    xml: XmlFragmentRef,
    undo: UndoManager<()>,
}

const SNIPPETS: [&str; 8] = ["a", "bc", "héllo ", "😀", "x😀y😀", "long text of several words ", "\u{fffd}", "漢字"];

impl Editor {
    pub fn new(client: u64) -> Self {
        let doc = doc_with(client, true);
        let outgoing: Arc<Mutex<Vec<Bytes>>> = Arc::default();
        let (text, array) = (doc.get_or_insert_text("t"), doc.get_or_insert_array("a"));
        let (map, xml) = (doc.get_or_insert_map("m"), doc.get_or_insert_xml_fragment("x"));
        let mut undo = UndoManager::new();
        undo.expand_scope(&doc, &text);
        undo.expand_scope(&doc, &map);
        undo.expand_scope(&doc, &array);
        let sink = outgoing.clone();
        doc.observe_update_v1("outgoing", move |txn, event| {
            if txn.origin().is_none_or(|origin| origin.as_ref() != b"remote") {
                sink.lock().unwrap().push(Bytes::copy_from_slice(&event.update));
            }
        })
        .unwrap();
        Self { doc, outgoing, seen: 0, text, array, map, xml, undo }
    }

    pub fn take_in(&mut self, update: &[u8]) {
        let mut txn = self.doc.transact_mut_with("remote");
        txn.apply_update(yrs::Update::decode_v1(update).unwrap()).unwrap();
    }

    pub fn step2(&self, state_vector: &[u8]) -> Bytes {
        let state_vector = StateVector::decode_v1(state_vector).unwrap();
        self.doc.transact().encode_state_as_update_v1(&state_vector).into()
    }

    /// Does something at random, as a person with an editor would.
    pub fn edit(&mut self, rng: &mut StdRng) {
        match rng.random_range(0..20) {
            0..=7 => self.type_text(rng),
            8..=9 => self.format(rng),
            10..=12 => self.edit_array(rng),
            13..=14 => self.edit_map(rng),
            15..=17 => self.edit_xml(rng),
            18 => {
                self.undo.undo_blocking();
            }
            _ => {
                self.undo.redo_blocking();
            }
        }
    }

    fn type_text(&self, rng: &mut StdRng) {
        let mut txn = self.doc.transact_mut();
        let len = self.text.len(&txn);
        let at = rng.random_range(0..=len);
        if len > 0 && rng.random_bool(0.35) {
            let at = at.min(len - 1);
            self.text.remove_range(&mut txn, at, rng.random_range(1..=(len - at).min(6)));
        } else {
            self.text.insert(&mut txn, at, SNIPPETS[rng.random_range(0..SNIPPETS.len())]);
        }
    }

    fn format(&self, rng: &mut StdRng) {
        let mut txn = self.doc.transact_mut();
        let len = self.text.len(&txn);
        if len == 0 || rng.random_bool(0.2) {
            self.text.insert_embed(&mut txn, len, Any::from_json("{\"image\":\"é\",\"n\":[1.5,null]}").unwrap());
            return;
        }
        let at = rng.random_range(0..len);
        let value = if rng.random_bool(0.3) { Any::Null } else { Any::Bool(true) };
        let attrs = Attrs::from([(["bold", "em"][rng.random_range(0..2)].into(), value)]);
        self.text.format(&mut txn, at, rng.random_range(1..=len - at), attrs);
    }

    fn edit_array(&self, rng: &mut StdRng) {
        let mut txn = self.doc.transact_mut();
        let len = self.array.len(&txn);
        let at = rng.random_range(0..=len);
        match rng.random_range(0..6) {
            0 if len > 0 => {
                let at = at.min(len - 1);
                self.array.remove_range(&mut txn, at, rng.random_range(1..=(len - at).min(3)));
            }
            1 => {
                self.array.insert(&mut txn, at, MapPrelim::from([("k", Any::from(1i64))]));
            }
            2 => {
                self.array.insert(&mut txn, at, TextPrelim::new("nested"));
            }
            3 => {
                self.array.insert(&mut txn, at, ArrayPrelim::from([Any::from("deep")]));
            }
            4 if len > 0 => match self.array.get(&txn, at.min(len - 1)) {
                Some(Out::YMap(map)) => {
                    map.insert(&mut txn, ["k", "l"][rng.random_range(0..2)], rng.random_range(0..99i64));
                }
                Some(Out::YText(text)) => text.push(&mut txn, "more"),
                Some(Out::YArray(array)) => {
                    array.push_front(&mut txn, MapPrelim::from([("z", Any::Null)]));
                }
                _ => {}
            },
            _ => {
                let values =
                    [Any::from(1i64), Any::from(2.5), Any::from("three"), Any::Null, Any::Buffer([1, 2].into())];
                self.array.insert_range(&mut txn, at, values);
            }
        }
    }

    fn edit_map(&self, rng: &mut StdRng) {
        let mut txn = self.doc.transact_mut();
        let key = ["a", "b", "ключ"][rng.random_range(0..3)];
        match rng.random_range(0..40) {
            // Seldom: yrs never frees a document that holds another one.
            0 => {
                // The same id for all: a history comes out of its seed alone.
                let options = Options { guid: "00000000-0000-4000-8000-000000000000".into(), ..Options::default() };
                self.map.insert(&mut txn, key, Doc::with_options(options));
            }
            1..=9 => {
                self.map.remove(&mut txn, key);
            }
            10..=19 => {
                self.map.insert(&mut txn, key, MapPrelim::from([("inner", Any::from(true))]));
            }
            20..=29 => match self.map.get(&txn, key) {
                Some(Out::YMap(map)) => {
                    map.insert(&mut txn, "inner", TextPrelim::new("t"));
                }
                _ => {
                    self.map.insert(&mut txn, key, TextPrelim::new("value"));
                }
            },
            _ => {
                self.map.insert(&mut txn, key, rng.random_range(0..1000i64));
            }
        }
    }

    fn edit_xml(&self, rng: &mut StdRng) {
        let mut txn = self.doc.transact_mut();
        let len = self.xml.len(&txn);
        let at = rng.random_range(0..=len);
        match rng.random_range(0..5) {
            0 if len > 0 => {
                let at = at.min(len - 1);
                self.xml.remove_range(&mut txn, at, rng.random_range(1..=(len - at).min(2)));
            }
            1 => {
                self.xml.insert(&mut txn, at, XmlTextPrelim::new("loose"));
            }
            2 | 3 if len > 0 => match self.xml.get(&txn, at.min(len - 1)) {
                Some(XmlOut::Element(element)) => {
                    element.insert_attribute(&mut txn, "level", rng.random_range(0..3i64));
                    let text = element.push_back(&mut txn, XmlTextPrelim::new("line"));
                    text.insert(&mut txn, 2, "😀");
                }
                Some(XmlOut::Text(text)) => text.push(&mut txn, "tail"),
                _ => {}
            },
            _ => {
                let element = self.xml.insert(&mut txn, at, XmlElementPrelim::empty("paragraph"));
                element.push_back(&mut txn, XmlTextPrelim::new("words"));
            }
        }
    }
}

/// Everything that a reader sees, for comparison. A surrogate pair that an edit tears becomes two U+FFFD, but only where the
/// edit is made (yrs and Yjs alike): so they count as equal.
pub fn content(doc: &Doc) -> String {
    let (text, array) = (doc.get_or_insert_text("t"), doc.get_or_insert_array("a"));
    let (map, xml) = (doc.get_or_insert_map("m"), doc.get_or_insert_xml_fragment("x"));
    let txn = doc.transact();
    // Formats that lost their meaning cut a text without changing it.
    let mut chunks: Vec<(String, String)> = Vec::new();
    for chunk in text.diff(&txn, yrs::types::text::YChange::identity) {
        let (insert, attrs) = (text_or(&txn, &chunk.insert), attrs(&chunk.attributes));
        match chunks.last_mut() {
            Some((before, same)) if *same == attrs => before.push_str(&insert),
            _ => chunks.push((insert, attrs)),
        }
    }
    let array: Vec<String> = array.iter(&txn).map(|value| out(&txn, &value)).collect();
    let map = out(&txn, &Out::YMap(map));
    let all = format!("{chunks:?}\n{array:?}\n{map}\n{}", xml.get_string(&txn));
    all.replace('😀', "\u{fffd}\u{fffd}")
}

fn text_or<T: ReadTxn>(txn: &T, value: &Out) -> String {
    match value {
        Out::Any(Any::String(text)) => text.to_string(),
        other => out(txn, other),
    }
}

fn attrs(attrs: &Option<Box<Attrs>>) -> String {
    let mut sorted: Vec<_> = attrs.iter().flat_map(|attrs| attrs.iter()).map(|entry| format!("{entry:?}")).collect();
    sorted.sort();
    sorted.join(",")
}

fn out<T: ReadTxn>(txn: &T, value: &Out) -> String {
    match value {
        Out::YMap(map) => {
            let mut entries: Vec<_> = map.iter(txn).map(|(key, value)| format!("{key}:{}", out(txn, &value))).collect();
            entries.sort();
            format!("{{{}}}", entries.join(","))
        }
        Out::YArray(array) => format!("{:?}", array.iter(txn).map(|value| out(txn, &value)).collect::<Vec<_>>()),
        Out::YText(text) => text.get_string(txn),
        Out::YXmlText(text) => text.get_string(txn),
        Out::Any(Any::Map(map)) => {
            let mut entries: Vec<_> = map.iter().map(|entry| format!("{entry:?}")).collect();
            entries.sort();
            entries.join(",")
        }
        Out::YDoc(doc) => doc.guid().to_string(),
        other => format!("{other:?}"),
    }
}

/// The log behind the gate, and its fold.
pub struct Server {
    pub index: Index,
    pub order: Order,
    pub recent: Recent,
    pub log: Vec<Bytes>,
    pub doc: Doc,
}

impl Default for Server {
    fn default() -> Self {
        Self { index: Index::new(), order: Order::new(), recent: Recent::new(1 << 20), log: Vec::new(), doc: doc(1) }
    }
}

impl Server {
    /// Admits a batch of updates, commits and folds what was admitted, and checks that yrs has nothing pending after it.
    pub fn receive(&mut self, batch: &[Bytes]) -> Vec<Admission> {
        let mut delta = Delta::default();
        let mut admissions = Vec::new();
        let mut rows = Vec::new();
        for bytes in batch {
            let update = parse(bytes);
            assert_eq!(&update.encode(), update.bytes(), "an honest update is written again byte for byte");
            let admission =
                admit(&self.index, &mut delta, Some(&mut self.order), &update, &Caps::default(), &mut |_| true)
                    .unwrap_or_else(|refused| panic!("{refused}: {bytes:02x?}"));
            assert_eq!(
                self.recent.conflicts(&update, &admission.trimmed),
                None,
                "an honest resend is no fork: {bytes:02x?}"
            );
            match &admission.content {
                Content::Nothing => {}
                Content::Whole => rows.push(bytes.clone()),
                Content::Part(part) => rows.push(part.clone()),
            }
            admissions.push(admission);
        }
        self.index.apply(delta);
        self.order.commit();
        for row in rows {
            self.fold(&row);
            self.recent.push(self.log.len() as u64 + 1, parse(&row));
            self.log.push(row);
        }
        if self.log.len() % 16 == 1 {
            self.come_back();
        }
        admissions
    }

    /// The order is made anew, of what yrs holds: it is the same, but for what yrs has collected.
    fn come_back(&mut self) {
        let state = parse(&state(&self.doc));
        let (order, _) = Order::of_state(&self.index, &state);
        let grown = std::mem::replace(&mut self.order, order).layout();
        for list in self.order.layout() {
            assert!(grown.contains(&list), "the state has another order: {list:?}");
        }
    }

    fn fold(&self, row: &Bytes) {
        let mut txn = self.doc.transact_mut();
        let update = yrs::Update::decode_v1(row).unwrap_or_else(|error| panic!("yrs cannot read {row:02x?}: {error}"));
        txn.apply_update(update).unwrap();
        assert!(!txn.has_missing_updates(), "yrs waits for something after {row:02x?}");
    }
}
