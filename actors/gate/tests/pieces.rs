//! States that go out in pieces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, clippy::panic)]

mod common;

use bytes::Bytes;
use common::{doc, parse, rng, state};
use contextnexus_gate::pieces;
use rand::RngExt;
use std::collections::BTreeMap;
use yrs::updates::decoder::Decode;
use yrs::{
    Any, Array, Doc, GetString, ReadTxn, StateVector, Text, Transact, Xml, XmlElementPrelim, XmlElementRef,
    XmlFragment, XmlOut, XmlTextPrelim,
};

fn take_in(doc: &Doc, update: &[u8]) {
    let mut txn = doc.transact_mut();
    txn.apply_update(yrs::Update::decode_v1(update).unwrap()).unwrap();
}

#[test]
fn a_text_of_one_block_arrives_little_by_little() {
    let writer = doc(7);
    let text = "x😀é".repeat(20_000);
    writer.get_or_insert_text("t").push(&mut writer.transact_mut(), &text);
    let pieces = pieces(&parse(&state(&writer)), 4_096);
    assert!(pieces.len() > 30 && pieces.iter().all(|piece| piece.len() < 4_200), "{}", pieces.len());
    let reader = doc(8);
    let shown = reader.get_or_insert_text("t");
    let mut before = 0;
    for piece in &pieces[..pieces.len() - 1] {
        take_in(&reader, piece);
        let so_far = shown.get_string(&reader.transact());
        assert!(so_far.len() > before && text.starts_with(&so_far), "each piece counts");
        before = so_far.len();
    }
    assert_eq!(before, text.len());
    assert_eq!(pieces.last().unwrap(), &Bytes::from_static(&[0, 0]), "nothing was deleted");
}

#[test]
fn a_text_about_as_long_as_a_piece_waits_for_nothing_either() {
    for length in 40..130 {
        let writer = doc(7);
        let text = "x".repeat(length);
        writer.get_or_insert_text("t").push(&mut writer.transact_mut(), &text);
        let pieces = pieces(&parse(&state(&writer)), 80);
        assert!(pieces.iter().all(|piece| piece.len() <= 80 + 16), "{length}");
        let reader = doc(8);
        for piece in &pieces {
            take_in(&reader, piece);
            assert!(reader.transact().store().pending_update().is_none(), "{length}");
        }
        assert_eq!(reader.get_or_insert_text("t").get_string(&reader.transact()), text);
    }
}

#[test]
fn a_list_of_many_values_is_cut_between_them() {
    let writer = doc(7);
    let values: Vec<Any> = (0..5_000).map(|number| Any::from(format!("value {number}"))).collect();
    writer.get_or_insert_array("a").insert_range(&mut writer.transact_mut(), 0, values);
    let pieces = pieces(&parse(&state(&writer)), 1_000);
    assert!(pieces.len() > 40 && pieces.iter().all(|piece| piece.len() < 1_100), "{}", pieces.len());
    let reader = doc(8);
    pieces.iter().for_each(|piece| take_in(&reader, piece));
    let (ours, theirs) = (writer.get_or_insert_array("a"), reader.get_or_insert_array("a"));
    assert_eq!(ours.iter(&writer.transact()).count(), 5_000);
    let read =
        |doc: &Doc, array: &yrs::ArrayRef| array.iter(&doc.transact()).map(|value| format!("{value:?}")).collect();
    let (ours, theirs): (Vec<String>, Vec<String>) = (read(&writer, &ours), read(&reader, &theirs));
    assert_eq!(ours, theirs);
}

/// By its number: how many children and attributes each element has.
fn shapes(doc: &Doc) -> BTreeMap<String, (u32, usize)> {
    fn walk<T: ReadTxn>(txn: &T, element: &XmlElementRef, shapes: &mut BTreeMap<String, (u32, usize)>) {
        let number = element.get_attribute(txn, "number").map(|number| number.to_string(txn));
        let attributes = element.attributes(txn).count();
        shapes.insert(number.expect("an element without its attributes"), (element.len(txn), attributes));
        for child in element.children(txn) {
            if let XmlOut::Element(child) = child {
                walk(txn, &child, shapes);
            }
        }
    }
    let root = doc.get_or_insert_xml_fragment("x");
    let (txn, mut shapes) = (doc.transact(), BTreeMap::new());
    for child in root.children(&txn) {
        if let XmlOut::Element(child) = child {
            walk(&txn, &child, &mut shapes);
        }
    }
    shapes
}

/// y-prosemirror deletes for everybody what its schema does not allow: a table without rows, an image without its source.
#[test]
fn an_element_never_appears_without_what_is_in_it() {
    for seed in 0..40 {
        let mut rng = rng(seed);
        let editors: Vec<Doc> = (1..=3).map(doc).collect();
        let mut number = 0;
        for _ in 0..120 {
            let at = rng.random_range(0..editors.len());
            let editor = &editors[at];
            let root = editor.get_or_insert_xml_fragment("x");
            let mut txn = editor.transact_mut();
            let mut elements: Vec<XmlElementRef> = root
                .successors(&txn)
                .filter_map(|node| match node {
                    XmlOut::Element(element) => Some(element),
                    _ => None,
                })
                .collect();
            number += 1;
            let made = if elements.is_empty() || rng.random_bool(0.3) {
                let len = root.len(&txn);
                let made = root.insert(&mut txn, rng.random_range(0..=len), XmlElementPrelim::empty("table"));
                Some(made)
            } else {
                let element = elements.swap_remove(rng.random_range(0..elements.len()));
                let len = element.len(&txn);
                match rng.random_range(0..5) {
                    0 if len > 1 => {
                        element.remove_range(&mut txn, rng.random_range(0..len), 1);
                        None
                    }
                    1 => {
                        element.insert_attribute(&mut txn, "width", rng.random_range(0..9i64));
                        None
                    }
                    2 => {
                        element.push_back(&mut txn, XmlTextPrelim::new("some words of a cell"));
                        None
                    }
                    _ => Some(element.insert(&mut txn, rng.random_range(0..=len), XmlElementPrelim::empty("row"))),
                }
            };
            if let Some(made) = made {
                made.insert_attribute(&mut txn, "number", number.to_string());
            }
            drop(txn);
            if rng.random_bool(0.5) {
                let other = &editors[rng.random_range(0..editors.len())];
                let theirs = state(editor);
                take_in(other, &theirs);
            }
        }
        let all = doc(9);
        editors.iter().for_each(|editor| take_in(&all, &state(editor)));
        let whole = shapes(&all);
        let update = parse(&state(&all));
        let reader = doc(10);
        let mut moments = std::collections::BTreeSet::new();
        for piece in pieces(&update, 64) {
            take_in(&reader, &piece);
            let so_far = shapes(&reader);
            moments.insert(so_far.len());
            for (number, shape) in so_far {
                assert_eq!(whole.get(&number), Some(&shape), "seed {seed}: element {number} appears in part");
            }
        }
        assert_eq!(shapes(&reader), whole, "seed {seed}");
        assert!(!reader.transact().has_missing_updates());

        // What was deleted and what stands in its place change at one moment.
        let known = StateVector::default();
        let before = doc(11);
        take_in(&before, &all.transact().encode_state_as_update_v1(&known));
        let root = all.get_or_insert_xml_fragment("x");
        let base = all.transact().state_vector();
        let mut txn = all.transact_mut();
        let len = root.len(&txn);
        root.remove_range(&mut txn, 0, len);
        for number in 0..10 {
            let made = root.push_back(&mut txn, XmlElementPrelim::empty("table"));
            made.insert_attribute(&mut txn, "number", format!("new {number}"));
            made.push_back(&mut txn, XmlTextPrelim::new("some words of a cell"));
        }
        drop(txn);
        let (old, new) = (shapes(&before), shapes(&all));
        let update = parse(&all.transact().encode_diff_v1(&base));
        let cut = pieces(&update, 64);
        assert!(cut.len() > 5);
        for (number, piece) in cut.iter().enumerate() {
            take_in(&before, piece);
            assert_eq!(shapes(&before), if number + 1 < cut.len() { &old } else { &new }.clone(), "seed {seed}");
        }
    }
}

#[test]
fn many_deletes_go_out_in_several_pieces() {
    let writer = doc(7);
    let text = writer.get_or_insert_text("t");
    text.push(&mut writer.transact_mut(), &"ab".repeat(2_000));
    let reader = doc(8);
    take_in(&reader, &state(&writer));
    let base = writer.transact().state_vector();
    for at in 0..2_000 {
        text.remove_range(&mut writer.transact_mut(), at, 1);
    }
    let cut = pieces(&parse(&writer.transact().encode_diff_v1(&base)), 500);
    assert!(cut.len() > 5 && cut.iter().all(|piece| piece.len() <= 520), "{}", cut.len());
    cut.iter().for_each(|piece| take_in(&reader, piece));
    assert_eq!(reader.get_or_insert_text("t").get_string(&reader.transact()), "b".repeat(2_000));
}

#[test]
fn what_is_small_stays_as_it_is() {
    let writer = doc(7);
    writer.get_or_insert_text("t").push(&mut writer.transact_mut(), "hello");
    let whole = state(&writer);
    assert_eq!(pieces(&parse(&whole), 1_000), [whole]);
}
