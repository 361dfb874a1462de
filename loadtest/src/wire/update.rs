//! Yjs updates (v1) made and read by hand.
//!
//! A load generator that ran a CRDT per simulated client would measure itself. The writers here only ever append to
//! their own last character, which needs no document: an update is some twenty bytes written in place. Readers only
//! ask which `(client, clock)` ranges an update brings, so that a server may merge updates and nothing is miscounted.

use super::varint::{Reader, put_bytes, put_uint};

/// The root type that every scenario writes into.
pub const ROOT: &str = "text";

/// An update without content: the answer of an empty client to the server's step 1.
pub const EMPTY: [u8; 2] = [0, 0];

/// The state vector of an empty document.
pub const EMPTY_STATE_VECTOR: [u8; 1] = [0];

const CONTENT_DELETED: u8 = 1;
const CONTENT_STRING: u8 = 4;
const CONTENT_BINARY: u8 = 3;
const CONTENT_EMBED: u8 = 5;
const CONTENT_FORMAT: u8 = 6;
const CONTENT_TYPE: u8 = 7;
const CONTENT_ANY: u8 = 8;
const CONTENT_DOC: u8 = 9;
const BLOCK_GC: u8 = 0;
const BLOCK_SKIP: u8 = 10;
const HAS_ORIGIN: u8 = 0x80;
const HAS_RIGHT_ORIGIN: u8 = 0x40;
const HAS_PARENT_SUB: u8 = 0x20;

/// Appends `text` after the character at `clock - 1` of the same client, or at the start of [`ROOT`] when `clock` is 0.
/// `text` must be ASCII, so that bytes, characters and clocks are one count.
pub fn append_text(client: u64, clock: u32, text: &str) -> Vec<u8> {
    debug_assert!(text.is_ascii() && !text.is_empty());
    let place = match clock {
        0 => Place::Alone(ROOT),
        _ => Place::Between(Some((client, clock - 1)), None),
    };
    insert_text(client, clock, place, text)
}

/// Where an insertion stands.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// In a root of that name, which has nothing else.
    Alone(&'a str),
    /// Behind one character and before another, each by client and clock; at least one of both is there.
    Between(Option<(u64, u32)>, Option<(u64, u32)>),
}

/// Inserts `text` as `client` from `clock` on.
pub fn insert_text(client: u64, clock: u32, place: Place<'_>, text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + text.len());
    put_uint(&mut out, 1); // one client
    put_uint(&mut out, 1); // one block
    put_uint(&mut out, client);
    put_uint(&mut out, u64::from(clock));
    match place {
        Place::Alone(root) => {
            out.push(CONTENT_STRING);
            put_uint(&mut out, 1); // the parent is a root, by name
            put_bytes(&mut out, root.as_bytes());
        }
        Place::Between(left, right) => {
            let flags = [(left, HAS_ORIGIN), (right, HAS_RIGHT_ORIGIN)];
            out.push(flags.iter().filter(|(id, _)| id.is_some()).fold(CONTENT_STRING, |info, (_, flag)| info | flag));
            for (client, clock) in [left, right].into_iter().flatten() {
                put_uint(&mut out, client);
                put_uint(&mut out, u64::from(clock));
            }
        }
    }
    put_bytes(&mut out, text.as_bytes());
    put_uint(&mut out, 0); // nothing deleted
    out
}

/// Deletes `len` clocks of `client` from `clock` on.
pub fn delete(client: u64, clock: u32, len: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    put_uint(&mut out, 0); // no blocks
    put_uint(&mut out, 1); // one client
    put_uint(&mut out, client);
    put_uint(&mut out, 1); // one range
    put_uint(&mut out, u64::from(clock));
    put_uint(&mut out, u64::from(len));
    out
}

/// A run of clocks that an update brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Whose clocks.
    pub client: u64,
    /// The first one.
    pub clock: u32,
    /// How many.
    pub len: u32,
}

/// Calls `each` for every run of clocks in `update`; false where the bytes are not an update this walker can read.
///
/// Runs that a server has garbage-collected or deleted count as brought: the reader knows them from then on.
pub fn ranges(update: &[u8], mut each: impl FnMut(Range)) -> bool {
    walk(update, &mut each).is_some()
}

fn walk(update: &[u8], each: &mut impl FnMut(Range)) -> Option<()> {
    let mut reader = Reader::new(update);
    for _ in 0..reader.uint()? {
        let blocks = reader.uint()?;
        let client = reader.uint()?;
        let mut clock = u32::try_from(reader.uint()?).ok()?;
        for _ in 0..blocks {
            let info = reader.byte()?;
            let (len, brings) = match info & 0x1f {
                BLOCK_GC => (u32::try_from(reader.uint()?).ok()?, true),
                BLOCK_SKIP => (u32::try_from(reader.uint()?).ok()?, false),
                kind => (item(&mut reader, info, kind)?, true),
            };
            if brings {
                each(Range { client, clock, len });
            }
            clock = clock.checked_add(len)?;
        }
    }
    Some(()) // the delete set tells a reader of insertions nothing
}

/// Reads one item behind its info byte and answers how many clocks it takes.
fn item(reader: &mut Reader<'_>, info: u8, kind: u8) -> Option<u32> {
    if info & HAS_ORIGIN != 0 {
        id(reader)?;
    }
    if info & HAS_RIGHT_ORIGIN != 0 {
        id(reader)?;
    }
    if info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN) == 0 {
        match reader.uint()? {
            1 => drop(reader.string()?),
            _ => id(reader)?,
        }
        if info & HAS_PARENT_SUB != 0 {
            reader.string()?;
        }
    }
    match kind {
        CONTENT_DELETED => u32::try_from(reader.uint()?).ok(),
        CONTENT_STRING => u32::try_from(reader.string()?.encode_utf16().count()).ok(),
        CONTENT_BINARY => reader.bytes().map(|_| 1),
        CONTENT_EMBED => reader.string().map(|_| 1),
        CONTENT_FORMAT => {
            reader.string()?;
            reader.string().map(|_| 1)
        }
        CONTENT_TYPE => {
            // XML elements (3) and hooks (5) carry a name behind the type's number.
            if matches!(reader.uint()?, 3 | 5) {
                reader.string()?;
            }
            Some(1)
        }
        CONTENT_ANY => {
            let count = u32::try_from(reader.uint()?).ok()?;
            (0..count).try_for_each(|_| any(reader))?;
            Some(count)
        }
        CONTENT_DOC => {
            reader.string()?;
            any(reader)?;
            Some(1)
        }
        _ => None,
    }
}

fn id(reader: &mut Reader<'_>) -> Option<()> {
    reader.uint()?;
    reader.uint()?;
    Some(())
}

/// Steps over one lib0 `any` without recursion: what is still to be read is a count.
fn any(reader: &mut Reader<'_>) -> Option<()> {
    // One frame per open container: how many values it still has, and whether a key stands before each.
    let mut open: Vec<(u64, bool)> = vec![(1, false)];
    while let Some((left, keyed)) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        if *keyed {
            reader.string()?;
        }
        match reader.byte()? {
            127 | 126 | 121 | 120 => {} // undefined, null, false, true
            125 => while reader.byte()? & 0x80 != 0 {},
            124 => skip(reader, 4)?,
            123 | 122 => skip(reader, 8)?,
            119 => drop(reader.string()?),
            118 => open.push((reader.uint()?, true)),
            117 => open.push((reader.uint()?, false)),
            116 => drop(reader.bytes()?),
            _ => return None,
        }
    }
    Some(())
}

fn skip(reader: &mut Reader<'_>, count: usize) -> Option<()> {
    (0..count).try_for_each(|_| reader.byte().map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use yrs::updates::decoder::Decode;
    use yrs::{
        Any, Array, Doc, GetString, Map, ReadTxn, StateVector, Text, Transact, Update, WriteTxn, XmlElementPrelim,
    };
    use yrs::{XmlFragment, XmlTextPrelim};

    fn collect(update: &[u8]) -> Option<Vec<Range>> {
        let mut found = Vec::new();
        ranges(update, |range| found.push(range)).then_some(found)
    }

    #[test]
    fn what_is_written_by_hand_reads_as_text_in_yrs() {
        let doc = Doc::with_client_id(7);
        let mut txn = doc.try_transact_mut().unwrap();
        for (clock, piece) in [(0, "he"), (2, "l"), (3, "lo")] {
            let update = append_text(99, clock, piece);
            assert_eq!(
                collect(&update),
                Some(vec![Range { client: 99, clock, len: piece.len() as u32 }]),
                "the walker disagrees with the writer"
            );
            txn.apply_update(Update::decode_v1(&update).unwrap()).unwrap();
        }
        assert_eq!(txn.get_text(ROOT).unwrap().get_string(&txn), "hello");
    }

    #[test]
    fn the_walker_reads_what_yrs_writes() {
        let doc = Doc::with_client_id(5);
        let mut txn = doc.try_transact_mut().unwrap();
        let text = txn.get_or_insert_text(ROOT);
        text.insert(&mut txn, 0, "plain 🦀 text");
        text.format(&mut txn, 0, 3, [("bold".into(), Any::Bool(true))].into());
        text.remove_range(&mut txn, 1, 2);
        let map = txn.get_or_insert_map("map");
        map.insert(&mut txn, "k", Any::from_json(r#"{"a":[1,2.5,"x",null,true],"b":{"c":-3}}"#).unwrap());
        let array = txn.get_or_insert_array("array");
        array.insert(&mut txn, 0, vec![1u8, 2, 3]);
        array.push_back(&mut txn, "tail");
        let xml = txn.get_or_insert_xml_fragment("xml");
        xml.push_back(&mut txn, XmlElementPrelim::empty("p"));
        xml.push_back(&mut txn, XmlTextPrelim::new("inside"));
        let update = txn.encode_state_as_update_v1(&StateVector::default());
        let known = txn.state_vector().get(&doc.client_id());
        let found = collect(&update).expect("the walker must read it");
        assert_eq!(found.iter().map(|range| range.len).sum::<u32>(), known, "{found:?}");
    }

    #[test]
    fn bytes_that_are_no_update_are_refused() {
        for bytes in [&[1][..], &[1, 1, 5, 0, 31, 0], &[0xff; 12], &[1, 1, 5, 0, 4, 1, 200]] {
            assert_eq!(collect(bytes), None, "{bytes:?}");
        }
    }
}
