//! Hostile updates by the hundred thousand, from a seed: the gate never panics, and what it admits yrs survives.
//!
//! yrs runs in a child process, because what it may do with a bad update no `catch_unwind` contains. `GATE_MUTATIONS` sets how
//! many updates are tried there, `GATE_SEED` where to begin.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Editor, doc, parse, rng, state};
use contextnexus_gate::lib0::{write_var_string, write_var_uint};
use contextnexus_gate::{AwarenessUpdate, Caps, Content, Delta, Index, Recent, Update, admit, merge};
use rand::RngExt;
use rand::rngs::StdRng;
use yrs::updates::decoder::Decode;
use yrs::{GetString, ReadTxn, Transact};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn base() -> Bytes {
    let hex = include_bytes!("hostile/base.hex").trim_ascii();
    hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Updates of honest editors of the base document, to be spoiled.
fn honest(base: &Bytes) -> Vec<Bytes> {
    let mut rng = rng(1);
    let mut updates = vec![base.clone()];
    for client in [60, 61, 2_000_000_000, (1 << 53) - 1] {
        let mut editor = Editor::new(client);
        editor.take_in(base);
        for _ in 0..40 {
            editor.edit(&mut rng);
        }
        let written: Vec<Bytes> = editor.outgoing.lock().unwrap().clone();
        let parsed: Vec<Update> = written.iter().map(|update| parse(update)).collect();
        updates.push(merge(&parsed));
        updates.push(state(&editor.doc));
        updates.extend(written);
    }
    updates
}

/// Spoils bytes the way a fuzzer does.
fn spoiled(rng: &mut StdRng, honest: &[Bytes]) -> Vec<u8> {
    let mut bytes = honest[rng.random_range(0..honest.len())].to_vec();
    for _ in 0..rng.random_range(1..=4) {
        let at = rng.random_range(0..bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        match rng.random_range(0..7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if !bytes.is_empty() => bytes[at] = rng.random(),
            2 if !bytes.is_empty() => bytes[at] = bytes[at].wrapping_add([1, 255][rng.random_range(0..2)]),
            3 => bytes.insert(at, rng.random()),
            4 if !bytes.is_empty() => {
                bytes.remove(at);
            }
            5 => bytes.truncate(at),
            _ => {
                let other = &honest[rng.random_range(0..honest.len())];
                let from = rng.random_range(0..other.len());
                let to = rng.random_range(from..=other.len()).min(from + 40);
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

/// Builds an update that is as plausible as a liar can make it: it follows on, and refers to what is there.
fn plausible(rng: &mut StdRng, index: &Index) -> Vec<u8> {
    let mut clocks: HashMap<u64, u64> = index.clocks().collect();
    let mut clients: Vec<u64> = vec![2, 3, 60, 61];
    clients.truncate(rng.random_range(2..=4));
    let from = rng.random_range(0..clients.len());
    clients.rotate_left(from);
    clients.truncate(rng.random_range(1..=2));
    let mut bytes = Vec::new();
    write_var_uint(&mut bytes, clients.len() as u64);
    for &client in &clients {
        let start = clocks.get(&client).copied().unwrap_or(0);
        let start = if rng.random_range(0..30) == 0 { start + rng.random_range(0..3) } else { start };
        let (mut body, mut clock, count) = (Vec::new(), start, rng.random_range(1..=4));
        for _ in 0..count {
            clock += block(rng, &mut body, &clocks);
            clocks.insert(client, clock);
        }
        write_var_uint(&mut bytes, count);
        write_var_uint(&mut bytes, client);
        write_var_uint(&mut bytes, start);
        bytes.extend(body);
    }
    let known: Vec<(u64, u64)> = clocks.into_iter().collect();
    let deletes = rng.random_range(0..=1u64);
    write_var_uint(&mut bytes, deletes);
    for _ in 0..deletes {
        let (client, end) = known[rng.random_range(0..known.len())];
        let clock = rng.random_range(0..end.max(1));
        write_var_uint(&mut bytes, client);
        write_var_uint(&mut bytes, 1);
        write_var_uint(&mut bytes, clock);
        write_var_uint(&mut bytes, rng.random_range(1..=(end - clock).clamp(1, 5)));
    }
    bytes
}

fn write_reference(rng: &mut StdRng, into: &mut Vec<u8>, clocks: &HashMap<u64, u64>) {
    let mut known: Vec<(u64, u64)> = clocks.iter().map(|(&client, &end)| (client, end)).collect();
    known.sort_unstable();
    let (client, end) = known[rng.random_range(0..known.len())];
    write_var_uint(into, client);
    write_var_uint(into, rng.random_range(0..end.max(1)));
}

fn block(rng: &mut StdRng, into: &mut Vec<u8>, clocks: &HashMap<u64, u64>) -> u64 {
    let kind = [1u8, 3, 4, 4, 4, 5, 6, 7, 7, 8, 8, 0, 9][rng.random_range(0..13)];
    if kind == 0 {
        let len = rng.random_range(1..4);
        into.push(0);
        write_var_uint(into, len);
        return len;
    }
    let links = [0x80u8, 0x80, 0x80, 0x40, 0xc0, 0xc0, 0x00, 0x00, 0x20][rng.random_range(0..9)];
    into.push(kind | links);
    for bit in [0x80, 0x40] {
        if links & bit != 0 {
            write_reference(rng, into, clocks);
        }
    }
    if links & 0xc0 == 0 {
        if rng.random_bool(0.5) {
            into.push(1);
            write_var_string(into, ["t", "x", "a", "m", "new"][rng.random_range(0..5)]);
        } else {
            into.push(0);
            write_reference(rng, into, clocks);
        }
        if links & 0x20 != 0 {
            write_var_string(into, ["k", "a", "null"][rng.random_range(0..3)]);
        }
    }
    match kind {
        1 => {
            let len = rng.random_range(1..4);
            write_var_uint(into, len);
            len
        }
        3 => {
            write_var_string(into, "bin");
            1
        }
        4 => {
            let (text, len) = [("a", 1), ("bcd", 3), ("😀", 2), ("é😀z", 4)][rng.random_range(0..4)];
            write_var_string(into, text);
            len
        }
        5 => {
            write_var_string(into, "{\"a\":1}");
            1
        }
        6 => {
            write_var_string(into, "bold");
            write_var_string(into, ["true", "null"][rng.random_range(0..2)]);
            1
        }
        7 => {
            let kind = [0u8, 1, 2, 3, 4, 6][rng.random_range(0..6)];
            into.push(kind);
            if kind == 3 {
                write_var_string(into, "p");
            }
            1
        }
        8 => {
            let len = rng.random_range(1..4);
            write_var_uint(into, len);
            (0..len).for_each(|_| into.push([126, 127, 120][rng.random_range(0..3)]));
            len
        }
        _ => {
            write_var_string(into, "00000000-0000-0000-0000-000000000000");
            into.extend([118, 0]);
            1
        }
    }
}

#[test]
fn no_bytes_make_the_gate_panic() {
    let base = base();
    let honest = honest(&base);
    let index = Index::from_state(&parse(&base));
    let mut recent = Recent::new(1 << 20);
    recent.push(&parse(&base));
    let mut outcomes: HashMap<String, u64> = HashMap::new();
    let mut pair: Vec<Update> = Vec::new();
    for seed in 0..number("GATE_PARSES", 200_000) {
        let mut rng = rng(seed);
        let bytes = Bytes::from(if seed % 2 == 0 { spoiled(&mut rng, &honest) } else { plausible(&mut rng, &index) });
        let _ = AwarenessUpdate::parse(&bytes, &Caps::default());
        let _ = contextnexus_gate::StateVector::parse(&bytes);
        let outcome = match Update::parse(bytes, &Caps::default()) {
            Err(malformed) => format!("{:?}", malformed.rule),
            Ok(update) => {
                let mut delta = Delta::default();
                let admission = admit(&index, &mut delta, &update, &Caps::default(), &mut |client| client % 7 != 0);
                assert!(admission.is_ok() || delta.is_empty(), "seed {seed}: what is refused leaves no trace");
                let _ = index.clone().trust(&update);
                let _ = Index::from_state(&update);
                pair.push(update.clone());
                if pair.len() == 3 {
                    let merged = merge(&pair);
                    assert!(
                        Update::parse(merged, &Caps::default()).is_ok(),
                        "seed {seed}: what is merged is well formed"
                    );
                    pair.clear();
                }
                match admission {
                    Err(refused) => format!("{refused:?}"),
                    Ok(admission) => {
                        let _ = recent.conflicts(&update, &admission.trimmed);
                        if let Content::Part(part) = admission.content {
                            let part = Update::parse(part, &Caps::default());
                            let part =
                                part.unwrap_or_else(|error| panic!("seed {seed}: a part is well formed: {error}"));
                            let again = admit(&index, &mut Delta::default(), &part, &Caps::default(), &mut |_| true);
                            assert_eq!(
                                again.unwrap().content,
                                Content::Whole,
                                "seed {seed}: a part follows on as it is"
                            );
                        }
                        if admission.missing.is_some() { "gap".to_owned() } else { "admitted".to_owned() }
                    }
                }
            }
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    let mut outcomes: Vec<_> = outcomes.into_iter().collect();
    outcomes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    println!("{outcomes:?}");
    for reached in ["admitted", "gap", "DifferentPlaces", "ParentNotAType", "UnfitForKey", "SameOrigins", "UnknownKind"]
    {
        assert!(outcomes.iter().any(|(outcome, _)| outcome == reached), "no update met {reached}");
    }
}

#[test]
fn yrs_survives_what_the_gate_admits() {
    let (first, count) = (number("GATE_SEED", 0), number("GATE_MUTATIONS", 20_000));
    let deadline = Instant::now() + Duration::from_secs(60) + Duration::from_millis(20) * count as u32;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
        .env("GATE_SEED", first.to_string())
        .env("GATE_MUTATIONS", count.to_string())
        .stdout(Stdio::inherit())
        .spawn()
        .unwrap();
    loop {
        match child.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "yrs did not survive ({status}); the last seed printed is near");
                return;
            }
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                panic!("yrs hangs; the last seed printed is near");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Runs in the child process: admits hostile updates and lets yrs apply them.
#[test]
#[ignore = "the child process of yrs_survives_what_the_gate_admits"]
fn child() {
    let base = base();
    let honest = honest(&base);
    let seeded = Index::from_state(&parse(&base));
    let (first, count) = (number("GATE_SEED", 0), number("GATE_MUTATIONS", 1000));
    let (mut tried, mut admitted, mut documents) = (0u64, 0u64, 0u64);
    let mut seed = first;
    while tried < count {
        if seed % 1000 == 0 {
            eprintln!("seed {seed}: {admitted} of {tried} admitted");
        }
        let mut rng = rng(seed);
        let server = doc(1);
        server.transact_mut().apply_update(yrs::Update::decode_v1(&base).unwrap()).unwrap();
        let mut index = seeded.clone();
        let mut wrote = false;
        for _ in 0..8 {
            tried += 1;
            let bytes =
                if rng.random_range(0..4) == 0 { spoiled(&mut rng, &honest) } else { plausible(&mut rng, &index) };
            let Ok(update) = Update::parse(bytes.into(), &Caps::default()) else { continue };
            let mut delta = Delta::default();
            let Ok(admission) = admit(&index, &mut delta, &update, &Caps::default(), &mut |_| true) else { continue };
            let content = match admission.content {
                Content::Nothing => continue,
                Content::Whole => update.bytes().clone(),
                Content::Part(part) => part,
            };
            if std::env::var("GATE_TRACE").is_ok() {
                eprintln!("seed {seed}: admitted {content:02x?}");
            }
            index.apply(delta);
            admitted += 1;
            wrote = true;
            let mut txn = server.transact_mut();
            let decoded = yrs::Update::decode_v1(&content);
            let decoded =
                decoded.unwrap_or_else(|error| panic!("seed {seed}: yrs cannot read {content:02x?}: {error}"));
            txn.apply_update(decoded)
                .unwrap_or_else(|error| panic!("seed {seed}: yrs cannot apply {content:02x?}: {error}"));
            assert!(!txn.has_missing_updates(), "seed {seed}: yrs waits for something after {content:02x?}");
        }
        if wrote {
            documents += 1;
            check(seed, &server, &index);
        }
        seed += 1;
    }
    eprintln!("{admitted} of {tried} admitted, {documents} documents sound");
    assert!(admitted * 5 > tried, "too few pass: the test says little");
}

/// The document can be encoded, and read again.
fn check(seed: u64, server: &yrs::Doc, index: &Index) {
    let bytes = state(server);
    let reloaded = doc(2);
    reloaded.transact_mut().apply_update(yrs::Update::decode_v1(&bytes).unwrap()).unwrap();
    let (ours, theirs) = (server.transact().state_vector(), reloaded.transact().state_vector());
    assert_eq!(ours, theirs, "seed {seed}: the state vector survives a reload");
    assert_eq!(index.clocks().count(), ours.len(), "seed {seed}");
    for (client, clock) in index.clocks() {
        assert_eq!(
            u64::from(ours.get(&yrs::ClientID::new(client))),
            clock,
            "seed {seed}: the index knows what yrs holds"
        );
    }
    let text = server.get_or_insert_text("t");
    let _ = text.get_string(&server.transact());
    let seeded = Index::from_state(&parse(&bytes));
    assert_eq!(seeded.state_vector(), index.state_vector(), "seed {seed}: the state holds what the index knows");
}
