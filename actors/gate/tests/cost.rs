//! What the gate costs: memory within its bound, and (in release, on request) time.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout)]

mod common;
#[path = "trial/memory.rs"]
mod memory;

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use common::{doc, parse, state};
use contextnexus_gate::lib0::write_var_uint;
use contextnexus_gate::{Caps, Content, Delta, Index, Order, Update, admit};
use yrs::{Text, Transact};

/// Bytes that parsing and admitting `bytes` takes at most, at once.
fn peak_of(bytes: Vec<u8>) -> usize {
    let bytes = Bytes::from(bytes);
    let ((), peak) = memory::peak_of(|| {
        if let Ok(update) = Update::parse(bytes, &Caps::default()) {
            let mut index = Index::new();
            let (mut delta, mut order) = (Delta::default(), Order::new());
            if black_box(admit(&index, &mut delta, Some(&mut order), &update, &Caps::default(), &mut |_| true)).is_ok()
            {
                index.apply(delta);
                order.commit();
            }
            black_box((&index, &order));
        }
    });
    peak
}

fn sections(count: u64, mut section: impl FnMut(&mut Vec<u8>, u64)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_var_uint(&mut bytes, count);
    (0..count).for_each(|number| section(&mut bytes, number));
    bytes
}

#[test]
fn memory_stays_within_64_times_the_input_and_a_mebibyte() {
    let claims: [&[u8]; 4] = [
        &[0x80, 0xc2, 0xd7, 0x2f],
        &[1, 0x80, 0x8c, 0x8d, 0x9e, 1, 1, 0],
        &[0, 0x80, 0xc2, 0xd7, 0x2f],
        &[1, 1, 1, 0, 8, 1, 1, b'a', 0xff, 0xff, 0xff, 0x7f],
    ];
    let mut inputs: Vec<(&str, Vec<u8>)> = claims.into_iter().map(|claim| ("a claim", claim.to_vec())).collect();
    // The smallest blocks, sections, delete ranges, types and names that there are, a hundred thousand of each.
    const MANY: u64 = 100_000;
    inputs.push(("collected blocks", {
        let mut bytes = sections(1, |into, _| {
            write_var_uint(into, MANY);
            into.extend([1, 0]);
        });
        (0..MANY).for_each(|_| bytes.extend([0, 1]));
        bytes.push(0);
        bytes
    }));
    inputs.push(("types", {
        let mut bytes = sections(1, |into, _| {
            write_var_uint(into, MANY);
            into.extend([1, 0]);
        });
        (0..MANY).for_each(|_| bytes.extend([7, 1, 1, b'a', 0]));
        bytes.push(0);
        bytes
    }));
    // Just beyond where a table doubles; as many as a document may have; more, which is refused.
    for count in [900, 1_800, 3_600, 7_200, 14_400, 18_000, 20_000, 28_700, 60_000] {
        inputs.push(("clients", {
            let mut bytes = sections(count, |into, number| {
                into.push(1);
                write_var_uint(into, count - number);
                into.extend([0, 0, 1]);
            });
            bytes.push(0);
            bytes
        }));
    }
    inputs.push(("root names", {
        let mut bytes = sections(1, |into, _| {
            write_var_uint(into, MANY);
            into.extend([1, 0]);
        });
        (0..MANY).for_each(|number| {
            bytes.extend(
                [&[4, 1, 3][..], &[number >> 14, number >> 7, number].map(|byte| (byte & 0x7f) as u8), &[1, b'x']]
                    .concat(),
            )
        });
        bytes.push(0);
        bytes
    }));
    // Every letter at another place: each breaks the chain, and JSON that must be mended.
    inputs.push(("jumps", {
        let mut bytes = sections(1, |into, _| {
            write_var_uint(into, MANY);
            into.extend([1, 0, 4, 1, 1, b'a', 1, b'x']);
        });
        (1..MANY).for_each(|_| bytes.extend([0x84, 1, 0, 1, b'x']));
        bytes.push(0);
        bytes
    }));
    inputs.push(("half surrogates", {
        let mut bytes = vec![1, 1, 1, 0, 5, 1, 1, b'a'];
        let json = format!("\"{}\"", "\\ud83d".repeat(MANY as usize));
        contextnexus_gate::lib0::write_var_string(&mut bytes, &json);
        bytes.push(0);
        bytes
    }));
    inputs.push(("deletes", {
        let mut bytes = sections(1, |into, _| into.extend([1, 1, 0, 0, 0xff, 0xff, 0x7f]));
        bytes.extend([1, 1]);
        write_var_uint(&mut bytes, MANY);
        for number in 0..MANY {
            write_var_uint(&mut bytes, number * 2);
            bytes.push(1);
        }
        bytes
    }));
    for (name, bytes) in inputs {
        let len = bytes.len();
        let peak = peak_of(bytes);
        println!("{name}: {len} bytes, {peak} at most ({:.1} times)", peak as f64 / len as f64);
        assert!(peak <= 64 * len + (1 << 20), "{name}: {peak} for {len}");
    }
}

#[test]
#[ignore = "measures; run it alone and in release: cargo test --release -p contextnexus-gate --test cost -- --ignored --nocapture"]
fn time() {
    let typist = doc(77);
    let text = typist.get_or_insert_text("t");
    let updates: Vec<Bytes> = (0..50_000u32)
        .map(|number| {
            let mut txn = typist.transact_mut();
            // Mostly at the end of a word, at times somewhere else.
            let at = if number % 40 == 0 { number / 2 } else { number };
            text.insert(&mut txn, at, "a");
            txn.encode_update_v1().into()
        })
        .collect();
    let started = Instant::now();
    let parsed: Vec<Update> = updates.iter().map(parse_shared).collect();
    let parse_ns = started.elapsed().as_nanos() / updates.len() as u128;
    let (mut index, mut order) = (Index::new(), Order::new());
    let started = Instant::now();
    for update in &parsed {
        let mut delta = Delta::default();
        let admission = admit(&index, &mut delta, Some(&mut order), update, &Caps::default(), &mut |_| true).unwrap();
        assert_eq!(admission.content, Content::Whole);
        index.apply(delta);
        order.commit();
    }
    let admit_ns = started.elapsed().as_nanos() / updates.len() as u128;
    println!("one character: parse {parse_ns} ns, admit and apply {admit_ns} ns");

    // Formats in between keep the blocks of the state apart.
    for number in 0..12_000u32 {
        let attrs = yrs::types::Attrs::from([("bold".into(), yrs::Any::Bool(number % 2 == 0))]);
        text.format(&mut typist.transact_mut(), number * 4, 2, attrs);
    }
    let state = state(&typist);
    let started = Instant::now();
    let update = parse(&state);
    let parsed_in = started.elapsed();
    let started = Instant::now();
    let seeded = black_box(Index::from_state(&update));
    println!(
        "a state of {} KiB: parse {parsed_in:?}, seed {:?}, {} clients",
        state.len() / 1024,
        started.elapsed(),
        seeded.clients_len()
    );
    let started = Instant::now();
    let (order, cost) = black_box(Order::of_state(&seeded, &update));
    println!(
        "its order: {:?}, {} KiB; yrs takes {} ms at most",
        started.elapsed(),
        order.bytes() / 1024,
        cost.ns / 1_000_000
    );
}

fn parse_shared(bytes: &Bytes) -> Update {
    Update::parse(bytes.clone(), &Caps::default()).unwrap()
}
