//! A document that holds sub-documents is freed when it is unloaded, though yrs has such an item and its document hold
//! each other, which leaks 14 KB for each load (docs/yrs-hazards.md, "yrs: what honest use runs into").
#![allow(clippy::unwrap_used, missing_docs)]

use contextnexus_actors::budget::Budgets;
use contextnexus_actors::document::state::DocumentState;
use contextnexus_actors::ids::{AppendId, Position, Tip};
use contextnexus_actors::limits::Limits;
use contextnexus_actors::ports::log::{Authorship, Head, LogRow, Stored, Tail};
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;
use yrs::updates::decoder::Decode;
use yrs::{Array, ClientID, Doc, Map, MapPrelim, Options, Out, Text, Transact, Update, WriteTxn};

/// A text, sub-documents in a map, in an array and in a nested type; then some of them are deleted, alone, with what is beside them, and with
/// the type around them. yrs alone writes into freed memory over the last two (seen under AddressSanitizer).
fn stored() -> Stored {
    let mut options = Options::with_client_id(ClientID::new(7));
    options.skip_gc = true; // or this editor would do it already
    let editor = Doc::with_options(options);
    let mut transaction = editor.try_transact_mut().unwrap();
    let text = transaction.get_or_insert_text("text");
    text.insert(&mut transaction, 0, &"what stands around it ".repeat(400));
    let map = transaction.get_or_insert_map("map");
    for name in ["one", "two", "three"] {
        map.insert(&mut transaction, name, Doc::new());
    }
    for name in ["kept", "deleted"] {
        let nested = map.insert(&mut transaction, name, MapPrelim::default());
        nested.insert(&mut transaction, "four", Doc::new());
    }
    let array = transaction.get_or_insert_array("array");
    array.insert(&mut transaction, 0, 1i64);
    array.insert(&mut transaction, 1, Doc::new());
    array.insert(&mut transaction, 2, Doc::new());
    array.insert(&mut transaction, 3, 2i64);
    array.insert(&mut transaction, 4, Doc::new());
    let made = transaction.encode_update_v1();
    drop(transaction);
    let mut transaction = editor.try_transact_mut().unwrap();
    map.remove(&mut transaction, "two");
    map.remove(&mut transaction, "deleted");
    array.remove_range(&mut transaction, 0, 4);
    let deleted = transaction.encode_update_v1();
    drop(transaction);
    let row = |seq: u64, update: Vec<u8>| LogRow {
        seq_from: seq,
        seq_to: seq,
        append_id: AppendId(Uuid::from_u128(seq.into())),
        tip: Tip(Uuid::from_u128(seq.into())),
        authorship: Authorship::Unknown,
        updates: vec![update.into()],
    };
    let position = Position { seq: 2, tip: Tip(Uuid::from_u128(2)) };
    Stored {
        snapshot: None,
        tail: Tail { rows: vec![row(1, made), row(2, deleted)], head: Head { position, deleted: false } },
        quarantined: Vec::new(),
        damage: None,
    }
}

fn load(stored: &Stored) -> DocumentState {
    let limits = Arc::new(Limits::default());
    let budgets = Budgets::of(&limits);
    DocumentState::load(stored.clone(), limits, budgets, Instant::now()).unwrap()
}

/// Resident memory of this process.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn ten_thousand_loads_and_unloads_leave_nothing_behind() {
    let stored = stored();
    for _ in 0..1_000 {
        load(&stored).unpack_now().unwrap(); // the allocator has its pools
    }
    let before = resident_bytes();
    for _ in 0..10_000 {
        load(&stored).unpack_now().unwrap();
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes for 10,000 loads"); // it was 14 KB for each
}

#[test]
fn what_was_not_deleted_is_there_however_often_it_was_unloaded() {
    let stored = stored();
    for _ in 0..3 {
        let (_, state) = load(&stored).read(Instant::now()).unwrap();
        let reader = Doc::new();
        let (map, array) = (reader.get_or_insert_map("map"), reader.get_or_insert_array("array"));
        let mut transaction = reader.try_transact_mut().unwrap();
        transaction.apply_update(Update::decode_v1(&state).unwrap()).unwrap();
        let mut names: Vec<&str> = map.keys(&transaction).collect();
        names.sort_unstable();
        assert_eq!(names, ["kept", "one", "three"]);
        assert!(matches!(map.get(&transaction, "one"), Some(Out::YDoc(_))));
        assert!(matches!(array.get(&transaction, 0), Some(Out::YDoc(_))));
        assert_eq!(array.len(&transaction), 1);
    }
}
