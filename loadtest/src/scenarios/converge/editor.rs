//! One editor: a real Yjs document and random edits of everything that editors make.

use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use yrs::block::ClientID;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;
use yrs::{
    Any, Array, ArrayRef, Doc, GetString, Map, MapRef, OffsetKind, Options, ReadTxn, Snapshot, StateVector, Text,
    TextRef, Transact, TransactionMut, Update, WriteTxn, XmlElementPrelim, XmlFragment, XmlFragmentRef, XmlTextPrelim,
};

use crate::wire::update::ROOT;

/// Words to write; astral characters, because they are two clocks long.
const WORDS: [&str; 6] = ["one ", "zwei ", "trois\n", "🦀", "四", "👩‍🚀 "];

/// A document and its roots. Roots are made when the document is, because a root opened as two kinds is a hazard.
pub struct Editor {
    doc: Doc,
    text: TextRef,
    map: MapRef,
    array: ArrayRef,
    xml: XmlFragmentRef,
}

/// What two documents must agree on.
#[derive(Debug, PartialEq)]
pub struct Canonical {
    /// State vector and delete set.
    snapshot: Snapshot,
    /// Text with its formats, map, array and XML, each in a form without order or with its own.
    content: [String; 4],
}

impl Editor {
    /// An empty document of `client`.
    pub fn new(client: u64) -> Result<Self, String> {
        let mut options = Options::with_client_id(ClientID::new(client));
        options.offset_kind = OffsetKind::Utf16;
        // yrs would delete dead format marks while it applies what others did, and tell nobody; Yjs tells everybody.
        options.cleanup_formatting = false;
        let doc = Doc::with_options(options);
        let (text, map, array, xml) = {
            let mut txn = doc.try_transact_mut().map_err(|error| error.to_string())?;
            (
                txn.get_or_insert_text(ROOT),
                txn.get_or_insert_map("map"),
                txn.get_or_insert_array("array"),
                txn.get_or_insert_xml_fragment("xml"),
            )
        };
        Ok(Self { doc, text, map, array, xml })
    }

    /// Takes what somebody else did.
    pub fn apply(&self, update: &[u8]) -> Result<(), String> {
        let update = Update::decode_v1(update).map_err(|error| error.to_string())?;
        let mut txn = self.doc.try_transact_mut().map_err(|error| error.to_string())?;
        txn.apply_update(update).map_err(|error| error.to_string())
    }

    /// What the document has beyond `state_vector`.
    pub fn diff(&self, state_vector: &[u8]) -> Result<Vec<u8>, String> {
        let known = StateVector::decode_v1(state_vector).map_err(|error| error.to_string())?;
        let txn = self.doc.try_transact().map_err(|error| error.to_string())?;
        Ok(txn.encode_state_as_update_v1(&known))
    }

    /// What the document has.
    pub fn state_vector(&self) -> Result<Vec<u8>, String> {
        let txn = self.doc.try_transact().map_err(|error| error.to_string())?;
        Ok(txn.state_vector().encode_v1())
    }

    /// For comparison with other documents.
    pub fn canonical(&self) -> Result<Canonical, String> {
        let txn = self.doc.try_transact().map_err(|error| error.to_string())?;
        let mut entries: Vec<String> =
            self.map.iter(&txn).map(|(key, value)| format!("{key}={}", value.to_string(&txn))).collect();
        entries.sort();
        // Neighbouring pieces of one format may be cut differently in two equal documents: join them.
        let mut pieces: Vec<(String, String)> = Vec::new();
        for piece in self.text.diff(&txn, yrs::types::text::YChange::identity) {
            let mut attributes: Vec<String> = piece
                .attributes
                .iter()
                .flat_map(|map| map.iter())
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            attributes.sort();
            let (attributes, text) = (attributes.join(","), piece.insert.to_string(&txn));
            match pieces.last_mut() {
                Some((last, joined)) if *last == attributes => joined.push_str(&text),
                _ => pieces.push((attributes, text)),
            }
        }
        let array: Vec<String> = self.array.iter(&txn).map(|value| value.to_string(&txn)).collect();
        Ok(Canonical {
            snapshot: txn.snapshot(),
            content: [format!("{pieces:?}"), entries.join("\n"), array.join("\n"), self.xml.get_string(&txn)],
        })
    }

    /// One random edit; its update.
    pub fn edit(&self, random: &mut StdRng) -> Result<Vec<u8>, String> {
        let mut txn = self.doc.try_transact_mut().map_err(|error| error.to_string())?;
        match random.random_range(0..100) {
            0..45 => self.write(&mut txn, random),
            45..65 => self.erase(&mut txn, random),
            65..75 => self.format(&mut txn, random),
            75..84 => self.set(&mut txn, random),
            84..92 => self.list(&mut txn, random),
            _ => self.markup(&mut txn, random),
        }
        Ok(txn.encode_update_v1())
    }

    fn write(&self, txn: &mut TransactionMut<'_>, random: &mut StdRng) {
        let at = pick(&self.boundaries(txn), random);
        self.text.insert(txn, at, WORDS[random.random_range(0..WORDS.len())]);
    }

    fn erase(&self, txn: &mut TransactionMut<'_>, random: &mut StdRng) {
        let (from, to) = self.span(txn, random);
        if from < to {
            self.text.remove_range(txn, from, to - from);
        }
    }

    fn format(&self, txn: &mut TransactionMut<'_>, random: &mut StdRng) {
        let (from, to) = self.span(txn, random);
        if from < to {
            let name = if random.random_bool(0.5) { "bold" } else { "italic" };
            let value = if random.random_bool(0.7) { Any::Bool(true) } else { Any::Null };
            self.text.format(txn, from, to - from, [(name.into(), value)].into());
        }
    }

    fn set(&self, txn: &mut TransactionMut<'_>, random: &mut StdRng) {
        let key = format!("key{}", random.random_range(0..8));
        if random.random_bool(0.2) {
            self.map.remove(txn, &key);
        } else {
            self.map.insert(txn, key, i64::from(random.next_u32()));
        }
    }

    fn list(&self, txn: &mut TransactionMut<'_>, random: &mut StdRng) {
        let length = self.array.len(txn);
        if length > 0 && random.random_bool(0.3) {
            self.array.remove(txn, random.random_range(0..length));
        } else {
            self.array.insert(txn, random.random_range(0..=length), i64::from(random.next_u32()));
        }
    }

    fn markup(&self, txn: &mut TransactionMut<'_>, random: &mut StdRng) {
        let length = self.xml.len(txn);
        if length > 0 && random.random_bool(0.3) {
            self.xml.remove_range(txn, random.random_range(0..length), 1);
            return;
        }
        let at = random.random_range(0..=length);
        if random.random_bool(0.5) {
            self.xml.insert(txn, at, XmlElementPrelim::empty("paragraph"));
        } else {
            self.xml.insert(txn, at, XmlTextPrelim::new(WORDS[random.random_range(0..WORDS.len())]));
        }
    }

    /// Offsets, in UTF-16 units, between whole characters.
    fn boundaries(&self, txn: &TransactionMut<'_>) -> Vec<u32> {
        let mut offset = 0;
        let mut boundaries = vec![0];
        for character in self.text.get_string(txn).chars() {
            offset += character.len_utf16() as u32;
            boundaries.push(offset);
        }
        boundaries
    }

    fn span(&self, txn: &TransactionMut<'_>, random: &mut StdRng) -> (u32, u32) {
        let boundaries = self.boundaries(txn);
        let from = random.random_range(0..boundaries.len());
        let to = (from + random.random_range(1..6)).min(boundaries.len() - 1);
        (boundaries[from], boundaries[to.max(from)])
    }
}

fn pick(from: &[u32], random: &mut StdRng) -> u32 {
    from[random.random_range(0..from.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn two_editors_that_exchange_everything_agree_and_a_lost_edit_shows() {
        let (ann, bob) = (Editor::new(1).unwrap(), Editor::new(1 << 40).unwrap());
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..300 {
            let from_ann = ann.edit(&mut random).unwrap();
            let from_bob = bob.edit(&mut random).unwrap();
            bob.apply(&from_ann).unwrap();
            ann.apply(&from_bob).unwrap();
        }
        assert_eq!(ann.canonical(), bob.canonical());
        let mut lost = ann.edit(&mut random).unwrap();
        while lost == [0, 0] {
            lost = ann.edit(&mut random).unwrap();
        }
        assert_ne!(ann.canonical(), bob.canonical(), "a comparison that always holds compares nothing");
        bob.apply(&ann.diff(&bob.state_vector().unwrap()).unwrap()).unwrap();
        assert_eq!(ann.canonical(), bob.canonical());
    }
}
