//! Updates written and read by hand, byte by byte: no encoder or decoder under test has a say in what a value is.

use contextnexus_gate::lib0::{Reader, write_var_bytes, write_var_uint};
use std::collections::BTreeMap;

/// Who wrote a unit, and at which clock.
pub type Id = (u64, u64);

pub const EMBED: u8 = 5;
pub const FORMAT: u8 = 6;
pub const TYPE: u8 = 7;
pub const ANY: u8 = 8;
pub const DOCUMENT: u8 = 9;

/// Where a block is.
pub enum Place<'a> {
    /// The first of a root type.
    Root(&'a str),
    /// An entry of a root type.
    RootEntry(&'a str, &'a str),
    /// An entry or attribute of the type that this item holds.
    Entry(Id, &'a str),
    /// Between two.
    Between(Option<Id>, Option<Id>),
}

fn id(bytes: &mut Vec<u8>, (client, clock): Id) {
    write_var_uint(bytes, client);
    write_var_uint(bytes, clock);
}

pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_var_bytes(&mut bytes, text.as_bytes());
    bytes
}

/// An update of one block that begins at this clock and deletes nothing.
pub fn block((client, clock): Id, kind: u8, place: &Place<'_>, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 1];
    id(&mut bytes, (client, clock));
    match place {
        Place::Root(name) => {
            bytes.extend([kind, 1]);
            bytes.extend(string(name));
        }
        Place::RootEntry(name, key) => {
            bytes.extend([kind | 0x20, 1]);
            bytes.extend(string(name));
            bytes.extend(string(key));
        }
        Place::Entry(parent, key) => {
            bytes.extend([kind | 0x20, 0]);
            id(&mut bytes, *parent);
            bytes.extend(string(key));
        }
        Place::Between(left, right) => {
            bytes.push(kind | if left.is_some() { 0x80 } else { 0 } | if right.is_some() { 0x40 } else { 0 });
            left.iter().chain(right).for_each(|neighbour| id(&mut bytes, *neighbour));
        }
    }
    bytes.extend(content);
    bytes.push(0);
    bytes
}

/// The content of a block of values.
pub fn values(values: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_var_uint(&mut bytes, values.len() as u64);
    bytes.extend(values.concat());
    bytes
}

/// An update that deletes so many units.
pub fn deletion((client, clock): Id, len: u64) -> Vec<u8> {
    let mut bytes = vec![0, 1];
    write_var_uint(&mut bytes, client);
    bytes.push(1);
    id(&mut bytes, (clock, len));
    bytes
}

/// A state vector.
pub fn state_vector(clocks: &BTreeMap<u64, u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_var_uint(&mut bytes, clocks.len() as u64);
    clocks.iter().for_each(|(client, clock)| id(&mut bytes, (*client, *clock)));
    bytes
}

/// The bytes of every value, embed, format and sub-document that lives in an update.
pub fn contents(update: &[u8]) -> BTreeMap<Id, Vec<u8>> {
    let mut contents = BTreeMap::new();
    let mut reader = Reader::new(update);
    for _ in 0..reader.read_var_uint().unwrap() {
        let count = reader.read_var_uint().unwrap();
        let client = reader.read_var_uint().unwrap();
        let mut clock = reader.read_var_uint().unwrap();
        for _ in 0..count {
            clock += read_block(&mut reader, (client, clock), &mut contents);
        }
    }
    contents
}

fn read_block(reader: &mut Reader<'_>, (client, clock): Id, contents: &mut BTreeMap<Id, Vec<u8>>) -> u64 {
    let info = reader.read_u8().unwrap();
    let kind = info & 0x1f;
    if matches!(kind, 0 | 10) {
        return reader.read_var_uint().unwrap();
    }
    let neighbours = u32::from(info & 0x80 != 0) + u32::from(info & 0x40 != 0);
    (0..2 * neighbours).for_each(|_| assert!(reader.read_var_uint().is_ok()));
    if neighbours == 0 {
        if reader.read_var_uint().unwrap() == 1 {
            reader.read_var_string().unwrap();
        } else {
            (0..2).for_each(|_| assert!(reader.read_var_uint().is_ok()));
        }
        if info & 0x20 != 0 {
            reader.read_var_string().unwrap();
        }
    }
    let before = reader.rest();
    let taken = |reader: &Reader<'_>| before[..before.len() - reader.remaining()].to_vec();
    match kind {
        1 => return reader.read_var_uint().unwrap(),
        ANY => {
            let count = reader.read_var_uint().unwrap();
            for at in 0..count {
                let value = reader.rest();
                skip_value(reader);
                contents.insert((client, clock + at), value[..value.len() - reader.remaining()].to_vec());
            }
            return count;
        }
        EMBED => {
            reader.read_var_string().unwrap();
            contents.insert((client, clock), taken(reader));
        }
        FORMAT => {
            reader.read_var_string().unwrap();
            reader.read_var_string().unwrap();
            contents.insert((client, clock), taken(reader));
        }
        DOCUMENT => {
            reader.read_var_string().unwrap();
            skip_value(reader);
            contents.insert((client, clock), taken(reader));
        }
        TYPE => {
            if reader.read_var_uint().unwrap() == 3 {
                reader.read_var_string().unwrap();
            }
        }
        _ => panic!("no test writes a block of kind {kind}"),
    }
    1
}

fn skip_value(reader: &mut Reader<'_>) {
    match reader.read_u8().unwrap() {
        125 => assert!(reader.read_var_int().is_ok()),
        124 => drop(reader.take(4).unwrap()),
        122 | 123 => drop(reader.take(8).unwrap()),
        116 | 119 => drop(reader.read_var_bytes().unwrap()),
        117 => {
            for _ in 0..reader.read_var_uint().unwrap() {
                skip_value(reader);
            }
        }
        118 => {
            for _ in 0..reader.read_var_uint().unwrap() {
                reader.read_var_string().unwrap();
                skip_value(reader);
            }
        }
        tag => assert!((120..=127).contains(&tag), "tag {tag}"),
    }
}
