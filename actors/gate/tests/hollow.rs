//! Updates without their content.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, clippy::panic)]

mod common;

use bytes::Bytes;
use common::{doc, parse, state};
use contextnexus_gate::{Index, Update, hollow};
use yrs::updates::decoder::Decode;
use yrs::{
    Doc, GetString, Map, MapRef, ReadTxn, StateVector, Text, TextRef, Transact, TransactionMut, XmlElementPrelim,
    XmlFragment, XmlFragmentRef, XmlTextPrelim,
};

struct Roots {
    text: TextRef,
    tree: XmlFragmentRef,
    map: MapRef,
}

impl Roots {
    fn of(doc: &Doc) -> Self {
        let (text, tree) = (doc.get_or_insert_text("t"), doc.get_or_insert_xml_fragment("x"));
        Self { text, tree, map: doc.get_or_insert_map("m") }
    }
}

fn take_in(doc: &Doc, update: &[u8]) {
    let mut txn = doc.transact_mut();
    txn.apply_update(yrs::Update::decode_v1(update).unwrap()).unwrap();
    assert!(txn.store().pending_update().is_none() && txn.store().pending_ds().is_none(), "it waits for something");
}

fn edit(doc: &Doc, change: impl FnOnce(&Roots, &mut TransactionMut<'_>)) -> Bytes {
    let roots = Roots::of(doc);
    let mut txn = doc.transact_mut();
    change(&roots, &mut txn);
    Bytes::from(txn.encode_update_v1())
}

fn text(doc: &Doc) -> String {
    Roots::of(doc).text.get_string(&doc.transact())
}

fn vector(doc: &Doc) -> StateVector {
    doc.transact().state_vector()
}

fn hollowed(update: &Bytes) -> Bytes {
    let hollowed = hollow(&parse(update));
    assert_eq!(hollow(&parse(&hollowed)), hollowed, "once is enough");
    hollowed
}

#[test]
fn what_others_wrote_around_it_stays_where_it_is_and_whoever_has_the_content_learns_that_it_is_gone() {
    let (ann, eve) = (doc(1), doc(2));
    let first = edit(&ann, |roots, txn| roots.text.insert(txn, 0, "ab"));
    take_in(&eve, &first);
    let poison = edit(&eve, |roots, txn| {
        let text = &roots.text;
        text.insert(txn, 1, "pöi😀son");
        text.remove_range(txn, 0, 1); // Ann's "a"
    });
    take_in(&ann, &poison);
    let inside = edit(&ann, |roots, txn| roots.text.insert(txn, 2, "[inside]"));
    let hollowed = hollowed(&poison);
    let fresh = doc(9);
    for update in [&first, &hollowed, &inside] {
        take_in(&fresh, update);
    }
    assert_eq!(text(&fresh), "[inside]b", "and what it deleted stays deleted");
    take_in(&ann, &hollowed);
    assert_eq!(text(&ann), "[inside]b");
    assert_eq!(vector(&ann), vector(&fresh));
    assert_eq!(parse(&state(&ann)).encode(), parse(&state(&fresh)).encode(), "one document");
    // The gate takes it for what it is.
    let mut index = Index::new();
    for update in [&first, &hollowed, &inside] {
        let admission = index.trust(&parse(update)).unwrap();
        assert!(admission.missing.is_none());
    }
    assert_eq!(parse(&hollowed).contents().count(), parse(&poison).contents().count());
}

#[test]
fn what_others_wrote_into_its_types_stays() {
    let (ann, eve) = (doc(1), doc(2));
    let poison = edit(&eve, |roots, txn| {
        let tree = &roots.tree;
        let paragraph = tree.push_back(txn, XmlElementPrelim::empty("p"));
        paragraph.push_back(txn, XmlTextPrelim::new("poison"));
        roots.map.insert(txn, "key", "poison");
    });
    take_in(&ann, &poison);
    let inside = edit(&ann, |roots, txn| {
        let paragraph = roots.tree.get(txn, 0).unwrap().into_xml_element().unwrap();
        paragraph.push_back(txn, XmlTextPrelim::new("honest"));
    });
    let fresh = doc(9);
    take_in(&fresh, &hollowed(&poison));
    take_in(&fresh, &inside);
    let Roots { tree, map, .. } = Roots::of(&fresh);
    assert_eq!(tree.get_string(&fresh.transact()), "<p>honest</p>");
    assert_eq!(map.len(&fresh.transact()), 0);
}

#[test]
fn an_update_that_only_deletes_has_no_content() {
    let ann = doc(1);
    edit(&ann, |roots, txn| roots.text.insert(txn, 0, "abc"));
    let deletes = edit(&ann, |roots, txn| roots.text.remove_range(txn, 1, 1));
    let deletes: Update = parse(&deletes);
    assert_eq!((hollow(&deletes), deletes.contents().count()), (deletes.bytes().clone(), 0));
}
