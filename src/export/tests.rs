#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
//! The same order as yrs has, over random edits of several peers; and shapes that no honest client makes.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use yrs::block::ClientID;
use yrs::updates::decoder::Decode as _;
use yrs::{
    Any, Array as _, Doc, GetString as _, Map as _, OffsetKind, Options, ReadTxn as _, StateVector, Text as _,
    TextPrelim, Transact as _, Update, XmlElementPrelim, XmlFragment as _, XmlTextPrelim,
};

fn far() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn peer(client: u64) -> Doc {
    let mut options = Options::with_client_id(ClientID::new(client));
    options.offset_kind = OffsetKind::Utf16;
    let doc = Doc::with_options(options);
    doc.get_or_insert_text("text");
    doc.get_or_insert_array("array");
    doc.get_or_insert_map("map");
    doc.get_or_insert_xml_fragment("xml");
    doc
}

fn state(doc: &Doc) -> Bytes {
    doc.try_transact().unwrap().encode_state_as_update_v1(&StateVector::default()).into()
}

fn exchange(from: &Doc, to: &Doc) {
    let known = to.try_transact().unwrap().state_vector();
    let update = from.try_transact().unwrap().encode_state_as_update_v1(&known);
    to.try_transact_mut().unwrap().apply_update(Update::decode_v1(&update).unwrap()).unwrap();
}

/// One edit: what, where, with which value.
type Edit = (u8, u16, u8);

fn edit(doc: &Doc, (what, place, value): Edit) {
    let text = doc.get_or_insert_text("text");
    let array = doc.get_or_insert_array("array");
    let map = doc.get_or_insert_map("map");
    let xml = doc.get_or_insert_xml_fragment("xml");
    let mut txn = doc.try_transact_mut().unwrap();
    let within = |len: u32| if len == 0 { 0 } else { u32::from(place) % (len + 1) };
    match what % 10 {
        0..=2 => {
            let at = within(text.len(&txn));
            text.insert(&mut txn, at, ["a", "bc", "é", "x y z", "1\n"][usize::from(value) % 5]);
        }
        3 if text.len(&txn) > 2 => {
            let at = within(text.len(&txn) - 2);
            text.remove_range(&mut txn, at, 1 + u32::from(value) % 2);
        }
        4 if text.len(&txn) > 2 => {
            let at = within(text.len(&txn) - 2);
            let on = if value % 3 == 0 { Any::Null } else { Any::Bool(true) };
            text.format(&mut txn, at, 2, [("bold".into(), on)].into());
        }
        5 => {
            let at = within(array.len(&txn));
            array.insert(&mut txn, at, i64::from(value));
        }
        6 if array.len(&txn) > 0 => {
            let at = within(array.len(&txn) - 1);
            array.remove(&mut txn, at);
        }
        7 => {
            map.insert(&mut txn, format!("k{}", place % 4), i64::from(value));
        }
        8 => {
            map.remove(&mut txn, &format!("k{}", place % 4));
        }
        _ => {
            let at = within(xml.len(&txn));
            let element = xml.insert(&mut txn, at, XmlElementPrelim::empty(["p", "h1"][usize::from(value) % 2]));
            element.push_back(&mut txn, XmlTextPrelim::new(format!("t{value}")));
        }
    }
}

fn seen_by_yrs(doc: &Doc) -> Value {
    let text = doc.get_or_insert_text("text");
    let array = doc.get_or_insert_array("array");
    let map = doc.get_or_insert_map("map");
    let xml = doc.get_or_insert_xml_fragment("xml");
    let txn = doc.try_transact().unwrap();
    let delta: Vec<Value> = text
        .diff(&txn, yrs::types::text::YChange::identity)
        .into_iter()
        .map(|piece| {
            let insert = piece.insert.to_string(&txn);
            match piece.attributes {
                Some(formats) if !formats.is_empty() => {
                    let formats: serde_json::Map<_, _> = formats
                        .iter()
                        .map(|(key, value)| (key.to_string(), serde_json::to_value(value).unwrap()))
                        .collect();
                    json!({ "insert": insert, "attributes": formats })
                }
                _ => json!({ "insert": insert }),
            }
        })
        .collect();
    // yrs begins a new piece at every format, also at one that changes nothing.
    let delta = delta.into_iter().fold(Vec::<Value>::new(), |mut joined, piece| {
        match joined.last_mut() {
            Some(last) if last.get("attributes") == piece.get("attributes") => {
                last["insert"] =
                    format!("{}{}", last["insert"].as_str().unwrap(), piece["insert"].as_str().unwrap()).into();
            }
            _ => joined.push(piece),
        }
        joined
    });
    let number = |value: yrs::Out| match value {
        yrs::Out::Any(value) => serde_json::to_value(&value).unwrap(),
        other => panic!("{other:?}"),
    };
    let array: Vec<Value> = array.iter(&txn).map(number).collect();
    let map: serde_json::Map<_, _> = map.iter(&txn).map(|(key, value)| (key.to_string(), number(value))).collect();
    json!({ "text": text.get_string(&txn), "delta": delta, "array": array, "map": map, "xml": xml.get_string(&txn) })
}

/// Our JSON in the same shape.
fn seen_by_us(state: &Bytes) -> Value {
    let shown: Value = serde_json::from_str(&to_json(state, far()).unwrap()).unwrap();
    let or = |value: &Value, instead: Value| if value.is_null() { instead } else { value.clone() };
    let mut xml = String::new();
    for node in shown["xml"]["value"].as_array().into_iter().flatten() {
        let name = node["element"].as_str().unwrap();
        let text: String =
            node["children"].as_array().unwrap().iter().map(|child| child["text"].as_str().unwrap()).collect();
        xml.push_str(&format!("<{name}>{text}</{name}>"));
    }
    json!({
        "text": or(&shown["text"]["text"], json!("")),
        "delta": or(&shown["text"]["delta"], json!([])),
        "array": or(&shown["array"]["value"], json!([])),
        "map": or(&shown["map"]["value"], json!({})),
        "xml": xml,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn the_order_is_the_one_that_yrs_has(
        rounds in prop::collection::vec(prop::collection::vec((0_usize..3, any::<Edit>()), 0..20), 1..6),
    ) {
        let peers = [peer(1), peer(2), peer(900_719_925_474_099)];
        for round in &rounds {
            for (who, what) in round {
                edit(&peers[*who], *what); // concurrently: nobody sees the others before the end of the round
            }
            for from in &peers {
                for to in &peers {
                    exchange(from, to);
                }
            }
        }
        for peer in &peers {
            prop_assert_eq!(seen_by_us(&state(peer)), seen_by_yrs(peer));
        }
    }

    #[test]
    fn whatever_the_bytes_it_ends_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = to_json(&bytes.clone().into(), far());
        let _ = to_text(&bytes.into(), far());
    }

    #[test]
    fn a_broken_state_ends_without_a_panic(
        edits in prop::collection::vec(any::<Edit>(), 1..30),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let doc = peer(7);
        for what in edits {
            edit(&doc, what);
        }
        let mut bytes = state(&doc).to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(shown) = to_json(&bytes.clone().into(), far()) {
            prop_assert!(serde_json::from_str::<Value>(&shown).is_ok(), "{shown}");
        }
        let _ = to_text(&bytes.into(), far());
    }
}

#[test]
fn kinds_are_found_in_the_content() {
    let doc = peer(1);
    {
        let text = doc.get_or_insert_text("text");
        let map = doc.get_or_insert_map("map");
        let xml = doc.get_or_insert_xml_fragment("xml");
        let mut txn = doc.try_transact_mut().unwrap();
        text.insert(&mut txn, 0, "😀 \"quoted\"\u{1}");
        map.insert(&mut txn, "nested", TextPrelim::new("inside"));
        map.insert(&mut txn, "list", Any::from_json(r#"{"a":[1,2.5,null,true,"x"]}"#).unwrap());
        let paragraph = xml.insert(&mut txn, 0, XmlElementPrelim::empty("paragraph"));
        paragraph.push_back(&mut txn, XmlTextPrelim::new("one"));
        let second = xml.insert(&mut txn, 1, XmlElementPrelim::empty("paragraph"));
        second.push_back(&mut txn, XmlTextPrelim::new("two"));
        yrs::Xml::insert_attribute(&second, &mut txn, "align", "left");
    }
    let shown: Value = serde_json::from_str(&to_json(&state(&doc), far()).unwrap()).unwrap();
    assert_eq!(
        shown,
        json!({
            "map": { "kind": "map", "value": { "nested": "inside", "list": { "a": [1, 2.5, null, true, "x"] } } },
            "text": { "kind": "text", "text": "😀 \"quoted\"\u{1}", "delta": [{ "insert": "😀 \"quoted\"\u{1}" }] },
            "xml": { "kind": "xml", "value": [
                { "element": "paragraph", "attributes": {}, "children": [{ "text": "one", "delta": [{ "insert": "one" }] }] },
                { "element": "paragraph", "attributes": { "align": "left" }, "children": [{ "text": "two", "delta": [{ "insert": "two" }] }] },
            ] },
        })
    );
    assert_eq!(
        to_text(&state(&doc), far()).unwrap(),
        "{\"a\":[1,2.5,null,true,\"x\"]}\ninside\n😀 \"quoted\"\u{1}\none\ntwo\n"
    );
}

#[test]
fn an_emptied_root_is_what_its_traces_say() {
    let doc = peer(1);
    {
        let (text, array) = (doc.get_or_insert_text("text"), doc.get_or_insert_array("array"));
        let (map, xml) = (doc.get_or_insert_map("map"), doc.get_or_insert_xml_fragment("xml"));
        let mut txn = doc.try_transact_mut().unwrap();
        text.insert(&mut txn, 0, "hello");
        text.insert(&mut txn, 0, "say ");
        array.insert(&mut txn, 0, yrs::MapPrelim::from([("done", true)]));
        map.insert(&mut txn, "key", 1);
        let paragraph = xml.insert(&mut txn, 0, XmlElementPrelim::empty("paragraph"));
        paragraph.push_back(&mut txn, XmlTextPrelim::new("one"));
        drop(txn);
        let mut txn = doc.try_transact_mut().unwrap();
        text.remove_range(&mut txn, 0, 9);
        array.remove(&mut txn, 0);
        map.remove(&mut txn, "key");
        xml.remove_range(&mut txn, 0, 1);
    }
    let shown: Value = serde_json::from_str(&to_json(&state(&doc), far()).unwrap()).unwrap();
    assert_eq!(
        shown,
        json!({
            "text": { "kind": "text", "text": "", "delta": [] },
            "array": { "kind": "empty" },
            "map": { "kind": "map", "value": {} },
            "xml": { "kind": "empty" },
        })
    );
    assert_eq!(to_text(&state(&doc), far()).unwrap(), "");
}

#[test]
fn an_emoji_under_an_array_is_shown_and_ends() {
    // One client, one block: a text "😀" in the root "a". Opened as an array, yrs never ends with it.
    let state = Bytes::from_static(b"\x01\x01\x01\x00\x04\x01\x01a\x04\xf0\x9f\x98\x80\x00");
    assert_eq!(to_json(&state, far()).unwrap(), r#"{"a":{"kind":"text","text":"😀","delta":[{"insert":"😀"}]}}"#);
}

#[test]
fn deep_nesting_needs_no_stack() {
    // 100,000 arrays, each in the one before.
    let mut bytes = Vec::new();
    let put = |bytes: &mut Vec<u8>, value| contextnexus_gate::lib0::write_var_uint(bytes, value);
    let depth = 100_000_u64;
    put(&mut bytes, 1);
    put(&mut bytes, depth);
    bytes.extend([1, 0, 7, 1, 1, b'a', 0]);
    for clock in 0..depth - 1 {
        bytes.extend([7, 0, 1]);
        put(&mut bytes, clock);
        bytes.push(0);
    }
    bytes.push(0);
    let shown = to_json(&bytes.clone().into(), far()).unwrap();
    assert_eq!(shown.matches('[').count() as u64, depth + 1);
    assert_eq!(to_text(&bytes.into(), far()).unwrap(), "");
}

#[test]
fn a_document_that_takes_too_long_is_given_up() {
    let doc = peer(1);
    {
        let array = doc.get_or_insert_array("array");
        let mut txn = doc.try_transact_mut().unwrap();
        for n in 0..20_000_i64 {
            array.insert(&mut txn, 0, n);
        }
    }
    let past = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    assert_eq!(to_json(&state(&doc), past), Err(ExportError::TooSlow));
}

#[tokio::test]
async fn a_crowd_is_told_to_come_back() {
    let exporter = Exporter::default();
    let state = state(&peer(1));
    let answers = futures_util::future::join_all((0..100).map(|_| exporter.text(state.clone()))).await;
    let busy = answers.iter().filter(|answer| **answer == Err(ExportError::Busy)).count();
    let most = 100 - ShowLimits::default().workers - ShowLimits::default().queue_max;
    assert!((most / 2..=most).contains(&busy), "{busy} of 100 were turned away"); // fewer, where some are shown meanwhile
    assert!(exporter.text(state).await.is_ok(), "and the queue empties");
}
