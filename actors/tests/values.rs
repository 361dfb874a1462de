//! Values are read after a reload as they were written: byte for byte, whatever kind of content they are in.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

#[path = "values/random.rs"]
mod random;
#[path = "values/wire.rs"]
mod wire;

use bytes::Bytes;
use contextnexus_actors::document::replica::{Replica, Unfolded};
use contextnexus_actors::ids::{Position, Tip};
use contextnexus_gate::{Caps, Update};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use random::{any, json};
use std::collections::BTreeMap;
use uuid::Uuid;
use wire::{ANY, DOCUMENT, EMBED, FORMAT, Id, Place, TYPE, block, contents, deletion, state_vector, string, values};

const AT: Position = Position { seq: 1, tip: Tip(Uuid::nil()) };
/// What the gate has yrs hold in place of a value begins with it. Whatever an editor writes may do so, too.
const MARK: &str = "\u{10fffd}";

fn fold(replica: &mut Replica, update: &[u8]) {
    let update = Update::parse(Bytes::copy_from_slice(update), &Caps::of_the_log());
    replica.fold(1, &update.unwrap()).unwrap();
}

fn folded(updates: &[Vec<u8>]) -> Replica {
    let mut replica = Replica::new();
    updates.iter().for_each(|update| fold(&mut replica, update));
    replica
}

/// The state of a document that was loaded from this state.
fn reloaded(state: &Bytes) -> Bytes {
    let mut replica = Replica::new();
    replica.pack(Some((1, state.clone())), Vec::new());
    replica.unpack().unwrap();
    replica.state().unwrap()
}

/// Every way in which lib0 encodes a value, and what else a decoder takes.
fn all_values() -> Vec<Vec<u8>> {
    let float = |number: f32| [&[124][..], &number.to_be_bytes()].concat();
    let double = |number: f64| [&[123][..], &number.to_be_bytes()].concat();
    let big = |number: i64| [&[122][..], &number.to_be_bytes()].concat();
    let text = |text: &str| [vec![119], string(text)].concat();
    let buffer = |bytes: &[u8]| [&[116, bytes.len() as u8][..], bytes].concat();
    let map = |entries: &[(&str, Vec<u8>)]| {
        let written: Vec<u8> = entries.iter().flat_map(|(key, value)| [string(key), value.clone()].concat()).collect();
        [vec![118, entries.len() as u8], written].concat()
    };
    let list = |items: &[Vec<u8>]| [vec![117, items.len() as u8], items.concat()].concat();
    let mut all = vec![vec![127], vec![126], vec![121], vec![120]];
    all.extend(
        [&[125, 0][..], &[125, 0x40], &[125, 1], &[125, 0x41], &[125, 0x80, 1], &[125, 0xc0, 1]].map(<[u8]>::to_vec),
    );
    // 2^31 - 1, 2^31, 2^53 - 1 and its negative, as integers.
    all.push(vec![125, 0xbf, 0xff, 0xff, 0xff, 0x0f]);
    all.push(vec![125, 0x80, 0x80, 0x80, 0x80, 0x10]);
    all.push(vec![125, 0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    all.push(vec![125, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    all.extend(
        [0.0, -0.0, 1.0, -1.0, 0.5, 3e9, f32::MAX, f32::MIN_POSITIVE, f32::INFINITY, f32::NEG_INFINITY].map(float),
    );
    all.extend([0x7fc0_0000, 0xffc0_0001, 0x7f80_0001].map(|bits| float(f32::from_bits(bits))));
    all.extend([0.0, -0.0, 1.0, 0.1, 0.5, 3e9, 9_007_199_254_740_993.0, 1e300, f64::INFINITY, 5e-324].map(double));
    all.extend([0x7ff8 << 48, 0xfff8_0000_dead_beef, 0x7ff0_0000_0000_0001].map(|bits| double(f64::from_bits(bits))));
    all.extend([0, 1, -1, 12_345, 1 << 53, (1 << 53) + 1, 1_234_567_890_123_456_789, i64::MIN, i64::MAX].map(big));
    all.extend(["", "é😀", "\u{fffd}", "a\0b", MARK, &format!("{MARK}{MARK}x"), &"long ".repeat(60)].map(text));
    all.extend(
        [&b""[..], b"\0\xff", MARK.as_bytes(), b"\xf4\x8f\xbf\xbd\xf4\x8f\xbf\xbd~", b"\xf4\x8f\xbf"].map(buffer),
    );
    let (one, two) = (vec![125, 1], vec![125, 2]);
    all.extend([
        list(&[]),
        list(&[one.clone(), two.clone()]),
        list(&[vec![125, 0x40]]),
        list(&[buffer(MARK.as_bytes())]),
    ]);
    all.extend([map(&[]), map(&[("b", one.clone())]), map(&[("", vec![127])])]);
    for order in [["a", "b", "c"], ["c", "b", "a"], ["2", "1", "10"], ["a", "a", "b"], ["__proto__", "x", MARK]] {
        all.push(map(&order.map(|key| (key, one.clone()))));
    }
    all.push(map(&[("b", one.clone()), ("a", map(&[("z", big(1)), ("y", list(&[map(&[]), double(-0.0)]))]))]));
    all.push(map(&[("deep", list(&[map(&[("deeper", big(-7))])]))]));
    all
}

/// JSON of formats and embeds, as JavaScript writes it and as other encoders may.
const ALL_JSON: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-1",
    "1.0",
    "0.1",
    "1e3",
    "1E+3",
    "100000",
    "123456789012345680000",
    "9007199254740993",
    "9223372036854775807",
    "1e-7",
    "\"\"",
    "\"x\"",
    "\"é😀\"",
    "\"\\u00e9\"",
    "\"\\ud83d\\ude00\"",
    "\"\\n\\t\\\\\\\"\\/\\b\\f\\r\"",
    "\"\\u0001\"",
    "\"\u{7f}\"",
    "\"\u{10fffd}\"",
    "\"\u{10fffd}x\"",
    "\"\\udbff\\udffd\"",
    "\"\u{fffd}\"",
    "[]",
    "{}",
    "[true]",
    "[1,2]",
    "[null,{}]",
    "{\"a\":true}",
    "{\"b\":1,\"a\":2}",
    "{\"a\":2,\"b\":1}",
    "{\"2\":0,\"10\":0,\"1\":0}",
    "{\"a\":1,\"a\":2}",
    " { \"a\" : [ 1 ,\n\t2 ] } ",
    "{\"href\":\"x\",\"title\":null}",
    "{\"a\":{\"z\":{\"y\":[{\"x\":1,\"w\":-0}]}}}",
    "{\"\u{10fffd}\":\"\u{10fffd}\"}",
    "{\"\":\"\"}",
    "\"a,b\"",
    "\"1\"",
];

#[test]
fn every_value_is_in_the_state_as_it_was_written() {
    let mut blocks = Vec::new();
    for value in all_values() {
        let content = values(&[value]);
        for place in [Place::Root("array"), Place::RootEntry("map", "key")] {
            blocks.push(block((7, 0), ANY, &place, &content));
        }
    }
    for text in ALL_JSON {
        blocks.push(block((7, 0), EMBED, &Place::Root("text"), &string(text)));
        blocks.push(block((7, 0), FORMAT, &Place::Root("text"), &[string("bold"), string(text)].concat()));
    }
    let guids = ["", "6f2d", "é", MARK];
    let options = all_values().into_iter().filter(|value| value[0] == 118);
    for (guid, options) in guids.iter().cycle().zip(options) {
        blocks.push(block((7, 0), DOCUMENT, &Place::RootEntry("map", "page"), &[string(guid), options].concat()));
    }
    for update in blocks {
        let state = folded(std::slice::from_ref(&update)).state().unwrap();
        assert_eq!(state, update, "the only block of a document is the document");
        assert_eq!(reloaded(&state), update, "and so it is after a reload");
    }
}

#[test]
fn what_is_beside_a_split_a_delete_or_an_attribute_is_as_it_was_written() {
    let all = all_values();
    let count = all.len() as u64;
    for at in 1..count {
        let element = block((7, count), TYPE, &Place::Root("xml"), &[vec![3], string("p")].concat());
        let attribute =
            block((7, count + 1), ANY, &Place::Entry((7, count), "class"), &values(&all[at as usize..=at as usize]));
        let updates = [
            block((7, 0), ANY, &Place::Root("array"), &values(&all)),
            block((8, 0), ANY, &Place::Between(Some((7, at - 1)), Some((7, at))), &values(&all[..2])),
            deletion((7, at), 1),
            element,
            attribute,
        ];
        let mut replica = folded(&updates);
        let mut expected: BTreeMap<Id, Vec<u8>> =
            (0..).zip(&all).map(|(clock, value)| ((7, clock), value.clone())).collect();
        expected.insert((8, 0), all[0].clone());
        expected.insert((8, 1), all[1].clone());
        expected.insert((7, count + 1), all[at as usize].clone());
        expected.remove(&(7, at));
        let state = replica.state().unwrap();
        assert_eq!(contents(&state), expected, "split at {at}");
        assert_eq!(contents(&reloaded(&state)), expected, "split at {at}, reloaded");
        expected.retain(|(client, clock), _| *client == 8 || *clock >= at);
        let known = state_vector(&BTreeMap::from([(7, at)]));
        assert_eq!(contents(&replica.diff(&known).unwrap()), expected, "from {at} on");
    }
}

/// A document written by several clients, as the list of its values, the entries of its map and the marks of its text.
#[derive(Default)]
struct World {
    /// In the order of the list, with those that are deleted.
    list: Vec<Id>,
    marks: Vec<Id>,
    entries: BTreeMap<u64, Id>,
    next: BTreeMap<u64, u64>,
    living: BTreeMap<Id, Vec<u8>>,
    updates: Vec<Vec<u8>>,
}

impl World {
    fn edit(&mut self, random: &mut StdRng) {
        let client = random.random_range(1..4);
        let clock = *self.next.entry(client).or_default();
        match random.random_range(0..10) {
            0..4 => {
                let new: Vec<Vec<u8>> = (0..random.random_range(1..5)).map(|_| any(random, 3)).collect();
                let place = random.random_range(0..=self.list.len());
                let update = insertion(&self.list, place, "list", |at| block((client, clock), ANY, at, &values(&new)));
                let ids = (clock..).zip(new).map(|(clock, value)| ((client, clock), value));
                ids.clone().zip(place..).for_each(|((id, _), place)| self.list.insert(place, id));
                self.write(update, ids.collect());
            }
            4..6 => {
                let is_format = random.random_bool(0.5);
                let text = string(&json(random, 3));
                let content = if is_format { [string("key"), text].concat() } else { text };
                let kind = if is_format { FORMAT } else { EMBED };
                let place = random.random_range(0..=self.marks.len());
                let update = insertion(&self.marks, place, "text", |at| block((client, clock), kind, at, &content));
                self.marks.insert(place, (client, clock));
                self.write(update, vec![((client, clock), content)]);
            }
            6..8 => {
                let key = random.random_range(0..4);
                let value = any(random, 3);
                let content = values(std::slice::from_ref(&value));
                let old = self.entries.insert(key, (client, clock));
                let name = key.to_string();
                let place = match old {
                    Some(old) => Place::Between(Some(old), None),
                    None => Place::RootEntry("map", &name),
                };
                let update = block((client, clock), ANY, &place, &content);
                self.write(update, vec![((client, clock), value)]);
                if let Some(old) = old {
                    self.living.remove(&old);
                    self.updates.push(deletion(old, 1));
                }
            }
            _ => {
                let Some(place) = random.random_range(0..=self.list.len()).checked_sub(1) else { return };
                if self.living.remove(&self.list[place]).is_some() {
                    self.updates.push(deletion(self.list[place], 1));
                }
            }
        }
    }

    fn write(&mut self, update: Vec<u8>, new: Vec<(Id, Vec<u8>)>) {
        for ((client, clock), _) in &new {
            self.next.insert(*client, clock + 1);
        }
        self.living.extend(new);
        self.updates.push(update);
    }
}

fn insertion(list: &[Id], place: usize, root: &str, write: impl Fn(&Place<'_>) -> Vec<u8>) -> Vec<u8> {
    if list.is_empty() {
        return write(&Place::Root(root));
    }
    write(&Place::Between(place.checked_sub(1).map(|left| list[left]), list.get(place).copied()))
}

#[test]
fn random_values_survive_packing_unpacking_snapshots_and_diffs() {
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut world, mut replica) = (World::default(), Replica::new());
        for step in 0..40 {
            let before = world.updates.len();
            (0..random.random_range(1..4)).for_each(|_| world.edit(&mut random));
            world.updates[before..].iter().for_each(|update| fold(&mut replica, update));
            let at = format!("seed {seed}, step {step}");
            match random.random_range(0..4) {
                0 => {
                    let snapshot = replica.snapshot(AT, Bytes::new()).unwrap().verify().unwrap();
                    assert_eq!(contents(&snapshot.state), world.living, "{at}");
                    replica.pack(Some((1, snapshot.state)), Vec::new());
                    assert_eq!(contents(&replica.state().unwrap()), world.living, "{at}");
                    replica.unpack().unwrap();
                }
                1 => {
                    let state = replica.state().unwrap();
                    let first = world.updates.len();
                    (0..3).for_each(|_| world.edit(&mut random));
                    let tail = world.updates[first..].iter().map(|update| Bytes::copy_from_slice(update));
                    let tail = tail.map(|update| Unfolded { row: 1, seq: 1, update }).collect();
                    replica.pack(Some((1, state)), tail);
                    assert_eq!(contents(&replica.state().unwrap()), world.living, "{at}");
                    replica.unpack().unwrap();
                }
                2 => {
                    let known = world.next.iter().map(|(client, next)| (*client, random.random_range(0..=*next)));
                    let known: BTreeMap<u64, u64> = known.filter(|(_, clock)| *clock > 0).collect();
                    let diff = contents(&replica.diff(&state_vector(&known)).unwrap());
                    let is_unknown = |id: &Id| known.get(&id.0).is_none_or(|next| id.1 >= *next);
                    let unknown: BTreeMap<Id, Vec<u8>> = world
                        .living
                        .iter()
                        .filter(|(id, _)| is_unknown(id))
                        .map(|(id, value)| (*id, value.clone()))
                        .collect();
                    assert_eq!(diff, unknown, "{at}");
                }
                _ => assert_eq!(contents(&replica.state().unwrap()), world.living, "{at}"),
            }
        }
    }
}
