//! Updates that are small to send and dear to fold: each is valid, and none is what an editor writes.

use crate::wire::update::ROOT;
use crate::wire::varint::{put_bytes, put_uint};

const CONTENT_STRING: u8 = 4;
const CONTENT_ANY: u8 = 8;
const HAS_RIGHT_ORIGIN: u8 = 0x40;
const HAS_PARENT_SUB: u8 = 0x20;
/// `true` as a lib0 `any`.
const TRUE: u8 = 120;

/// An update, and what makes it dear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dear {
    /// Insertions at the start, each with a right neighbour further away: each looks through all before it.
    RightOrigins,
    /// Entries of one key of a map, none of which knows of another.
    OneKey,
    /// A long text, and then every second character of it deleted.
    EverySecond,
    /// A root type for every few bytes.
    Roots,
}

impl Dear {
    /// The updates to send one after the other, as this client; `size` is a count of insertions, entries, deletions or roots.
    pub fn updates(self, client: u64, size: u32) -> Vec<Vec<u8>> {
        match self {
            Self::RightOrigins => vec![blocks(client, size + 1, |out, number| match number {
                0 => text(out, &"x".repeat(size as usize)),
                number => {
                    out.push(CONTENT_STRING | HAS_RIGHT_ORIGIN);
                    put_uint(out, client);
                    put_uint(out, u64::from(number - 1));
                    put_bytes(out, b"y");
                }
            })],
            Self::OneKey => vec![blocks(client, size, |out, _| {
                out.push(CONTENT_ANY | HAS_PARENT_SUB);
                put_uint(out, 1); // the parent is a root, by name
                put_bytes(out, b"map");
                put_bytes(out, b"key");
                put_uint(out, 1);
                out.push(TRUE);
            })],
            Self::EverySecond => {
                vec![blocks(client, 1, |out, _| text(out, &"x".repeat(2 * size as usize))), every_second(client, size)]
            }
            Self::Roots => vec![blocks(client, size, |out, number| {
                out.push(CONTENT_STRING);
                put_uint(out, 1); // as above
                put_bytes(out, format!("{number:x}").as_bytes());
                put_bytes(out, b"x");
            })],
        }
    }
}

/// An update of so many blocks of one client from clock 0 on, without deletes.
fn blocks(client: u64, count: u32, each: impl Fn(&mut Vec<u8>, u32)) -> Vec<u8> {
    let mut out = Vec::new();
    put_uint(&mut out, 1);
    put_uint(&mut out, u64::from(count));
    put_uint(&mut out, client);
    put_uint(&mut out, 0);
    for number in 0..count {
        each(&mut out, number);
    }
    put_uint(&mut out, 0);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(CONTENT_STRING);
    put_uint(out, 1); // the parent is a root, by name
    put_bytes(out, ROOT.as_bytes());
    put_bytes(out, text.as_bytes());
}

fn every_second(client: u64, count: u32) -> Vec<u8> {
    let mut out = vec![0, 1]; // no blocks, and deletes of one client
    put_uint(&mut out, client);
    put_uint(&mut out, u64::from(count));
    for number in 0..count {
        put_uint(&mut out, u64::from(2 * number));
        put_uint(&mut out, 1);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use yrs::updates::decoder::Decode;
    use yrs::{Doc, GetString, Map, ReadTxn, Transact, Update, WriteTxn};

    fn folded(dear: Dear, size: u32) -> Doc {
        let doc = Doc::with_client_id(1);
        let mut txn = doc.try_transact_mut().unwrap();
        for update in dear.updates(7, size) {
            txn.apply_update(Update::decode_v1(&update).unwrap()).unwrap();
        }
        assert!(txn.store().pending_update().is_none(), "{dear:?} waits for something");
        drop(txn);
        doc
    }

    #[test]
    fn all_of_them_are_updates_that_yrs_folds() {
        let doc = folded(Dear::RightOrigins, 20);
        let mut txn = doc.try_transact_mut().unwrap();
        let text = txn.get_or_insert_text(ROOT);
        assert_eq!(text.get_string(&txn).matches('y').count(), 20);
        let doc = folded(Dear::OneKey, 20);
        let mut txn = doc.try_transact_mut().unwrap();
        let map = txn.get_or_insert_map("map");
        assert_eq!(map.len(&txn), 1);
        let doc = folded(Dear::EverySecond, 20);
        let mut txn = doc.try_transact_mut().unwrap();
        let text = txn.get_or_insert_text(ROOT);
        assert_eq!(text.get_string(&txn), "x".repeat(20));
        let doc = folded(Dear::Roots, 20);
        assert_eq!(doc.try_transact().unwrap().root_refs().count(), 20);
    }
}
