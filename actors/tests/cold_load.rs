//! What loading a document costs, by the shape of its history: measured on request, in release.
//!
//! `CNX_TRACE=automerge-paper.json cargo test --release -p contextnexus-actors --test cold_load -- --ignored --nocapture`
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, missing_docs)]

use bytes::Bytes;
use contextnexus_actors::budget::Budgets;
use contextnexus_actors::document::replica::Replica;
use contextnexus_actors::document::state::DocumentState;
use contextnexus_actors::ids::{AppendId, Position, Tip};
use contextnexus_actors::limits::Limits;
use contextnexus_actors::ports::log::{Authorship, Head, LogRow, Snapshot, Stored, Tail};
use contextnexus_gate::lib0::{write_var_string, write_var_uint};
use contextnexus_gate::{Caps, Index, Update as Admitted};
use std::sync::Arc;
use std::time::{Duration, Instant};
use uuid::Uuid;
use yrs::updates::decoder::Decode;
use yrs::{ClientID, Doc, OffsetKind, Options, ReadTxn, StateVector, Text, TextRef, Transact, Update};

/// Who writes.
const CLIENT: u8 = 7;

fn doc(client: u64) -> (Doc, TextRef) {
    let mut options = Options::with_client_id(ClientID::new(client));
    options.offset_kind = OffsetKind::Utf16;
    let doc = Doc::with_options(options);
    let text = doc.get_or_insert_text("text");
    (doc, text)
}

fn state(doc: &Doc) -> Bytes {
    doc.try_transact().unwrap().encode_state_as_update_v1(&StateVector::default()).into()
}

/// One character between two others, as an update of its own.
fn typed(clock: u64, left: Option<u32>, right: Option<u32>, character: char) -> Vec<u8> {
    let mut update = vec![1, 1, CLIENT];
    write_var_uint(&mut update, clock);
    update.push(4 | if left.is_some() { 0x80 } else { 0 } | if right.is_some() { 0x40 } else { 0 });
    for neighbour in [left, right].into_iter().flatten() {
        update.push(CLIENT);
        write_var_uint(&mut update, neighbour.into());
    }
    if left.is_none() && right.is_none() {
        update.push(1);
        write_var_string(&mut update, "text");
    }
    write_var_string(&mut update, character.encode_utf8(&mut [0; 4]));
    update.push(0);
    update
}

/// Single characters deleted, in order.
fn deleted(clocks: &[u32]) -> Vec<u8> {
    let mut update = vec![0, 1, CLIENT];
    write_var_uint(&mut update, clocks.len() as u64);
    for clock in clocks {
        write_var_uint(&mut update, (*clock).into());
        update.push(1);
    }
    update
}

/// The trace that everybody measures with, if it is there, keystroke by keystroke, and its last 1,999 updates.
fn trace() -> Option<(Bytes, Vec<Bytes>)> {
    let text = std::fs::read_to_string(std::env::var_os("CNX_TRACE")?).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&text).unwrap();
    let patches: Vec<_> =
        trace["txns"].as_array().unwrap().iter().flat_map(|txn| txn["patches"].as_array().unwrap()).collect();
    let (mut updates, mut seen, mut clock) = (Vec::new(), Vec::<u32>::new(), 0u32);
    for patch in patches {
        let at = usize::try_from(patch[0].as_u64().unwrap()).unwrap();
        for _ in 0..patch[1].as_u64().unwrap() {
            updates.push(deleted(&[seen.remove(at)]));
        }
        for (at, character) in (at..).zip(patch[2].as_str().unwrap().chars()) {
            let left = at.checked_sub(1).map(|left| seen[left]);
            updates.push(typed(clock.into(), left, seen.get(at).copied(), character));
            seen.insert(at, clock);
            clock += u32::try_from(character.len_utf16()).unwrap();
        }
    }
    let tail = updates.split_off(updates.len() - 1_999);
    let mut replica = Replica::new();
    for update in updates {
        replica.fold(1, &Admitted::parse(update.into(), &Caps::of_the_log()).unwrap()).unwrap();
    }
    Some((replica.state().unwrap(), tail.into_iter().map(Bytes::from).collect()))
}

/// Every second character of a long text deleted.
fn comb() -> Bytes {
    let (doc, root) = doc(CLIENT.into());
    let mut transaction = doc.try_transact_mut().unwrap();
    root.insert(&mut transaction, 0, &"ab".repeat(100_000));
    let every_second: Vec<u32> = (0..200_000).step_by(2).collect();
    transaction.apply_update(Update::decode_v1(&deleted(&every_second)).unwrap()).unwrap();
    drop(transaction);
    state(&doc)
}

/// As many clients as a document may have, each with a few characters of its own.
fn crowd() -> Bytes {
    let (all, _) = doc(7);
    for client in 0..20_000u64 {
        let (one, text) = doc(1_000 + client * 7_919);
        let mut transaction = one.try_transact_mut().unwrap();
        text.insert(&mut transaction, 0, "word ");
        let update = Update::decode_v1(&transaction.encode_update_v1()).unwrap();
        all.try_transact_mut().unwrap().apply_update(update).unwrap();
    }
    state(&all)
}

fn at(seq: u64) -> Position {
    Position { seq, tip: Tip(Uuid::from_u128(seq.into())) }
}

fn stored(state: &Bytes, tail: &[Bytes]) -> Stored {
    let row = |(seq, update): (u64, &Bytes)| LogRow {
        seq_from: seq,
        seq_to: seq,
        append_id: AppendId(Uuid::from_u128(seq.into())),
        tip: at(seq).tip,
        authorship: Authorship::Unknown,
        updates: vec![update.clone()],
    };
    let position = at(1 + tail.len() as u64);
    Stored {
        snapshot: Some(Snapshot {
            position: at(1),
            state: state.clone(),
            state_vector: Bytes::new(),
            writers: Bytes::new(),
        }),
        tail: Tail { rows: (2..).zip(tail).map(row).collect(), head: Head { position, deleted: false } },
        quarantined: Vec::new(),
        damage: None,
    }
}

/// The best of fifteen: what it takes where nobody else wants the processor.
fn best<T>(mut what: impl FnMut() -> T) -> Duration {
    let took = (0..15).map(|_| {
        let started = Instant::now();
        std::hint::black_box(what());
        started.elapsed()
    });
    took.min().unwrap()
}

#[test]
#[ignore = "a measurement"]
fn loading_by_shape() {
    let mut shapes = vec![("every second deleted", comb(), Vec::new()), ("20,000 clients", crowd(), Vec::new())];
    if let Some((state, tail)) = trace() {
        shapes.push(("trace", state.clone(), Vec::new()));
        shapes.push(("trace and 1,999 updates", state, tail));
    }
    for (name, state, tail) in shapes {
        let caps = Caps { update_bytes_max: usize::MAX, ..Caps::default() };
        let parsed = Admitted::parse(state.clone(), &caps).unwrap();
        let limits = Arc::new(Limits::default());
        let load = || {
            let budgets = Budgets::of(&limits);
            DocumentState::load(stored(&state, &tail), limits.clone(), budgets, Instant::now()).unwrap()
        };
        let parse = best(|| Admitted::parse(state.clone(), &caps).unwrap());
        let seed = best(|| Index::from_state(&parsed));
        let fold = best(|| {
            let mut replica = Replica::new();
            replica.pack(Some((1, state.clone())), Vec::new());
            replica.unpack().unwrap();
            replica
        });
        let whole = best(load);
        let mut loaded = load();
        let read = best(|| loaded.read(Instant::now()).unwrap());
        println!(
            "{name}: {} bytes; parse {parse:?}, index {seed:?}, yrs {fold:?}; load {whole:?}; encode {read:?}",
            state.len()
        );
    }
}
