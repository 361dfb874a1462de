//! Writing updates again: parts of parsed ones, with blocks split exactly as Yjs splits them.

use std::ops::Range;

use bytes::Bytes;

use crate::block::{HAS_ORIGIN, HAS_RIGHT_ORIGIN, Kind, View};
use crate::lib0::{Reader, write_var_bytes, write_var_uint};
use crate::update::{Section, Update};
use crate::value::skip_any;

/// Blocks of one section, in order: from `offset` units into the first on.
#[derive(Clone, Debug)]
pub(crate) struct BlockRange {
    pub blocks: Range<u32>,
    pub offset: u32,
}

/// Writes the bytes of the blocks of `part`, without any header, and answers how many these are.
pub(crate) fn write_blocks(into: &mut Vec<u8>, update: &Update, section: &Section, part: &BlockRange) -> u64 {
    let mut first = part.blocks.start;
    if part.offset > 0 && first < part.blocks.end {
        if let Some(view) = update.view(section, first) {
            Pieces::of(section.client, view, part.offset).write(into, view.block.len - part.offset, false);
        }
        first += 1;
    }
    if first < part.blocks.end {
        let start = update.blocks.get(first as usize).map_or(section.end, |block| block.at);
        let end = update.block_end(section, part.blocks.end - 1);
        into.extend_from_slice(update.bytes.get(start as usize..end as usize).unwrap_or_default());
    }
    u64::from(part.blocks.end - part.blocks.start)
}

/// The same without the content of what is `deleted` (in order): only that it was there, as Yjs collects garbage.
pub(crate) fn write_undeleted(
    into: &mut Vec<u8>,
    update: &Update,
    section: &Section,
    part: &BlockRange,
    deleted: &[Range<u32>],
) -> u64 {
    let mut count = 0;
    // Blocks from here on are copied together.
    let mut whole = part.clone();
    for at in part.blocks.clone() {
        let Some(view) = update.view(section, at) else { continue };
        let block = view.block;
        let mut clock = block.clock + if at == part.blocks.start { part.offset } else { 0 };
        let first = deleted.partition_point(|range| range.end <= clock);
        let mut ranges = deleted.get(first..).unwrap_or_default().iter();
        let mut range = ranges.next().filter(|range| range.start < block.end_clock());
        if range.is_none() || view.kind().is_deleted() || view.kind() == Kind::Skip {
            continue;
        }
        count += write_blocks(into, update, section, &BlockRange { blocks: whole.blocks.start..at, ..whole });
        whole = BlockRange { blocks: at + 1..part.blocks.end, offset: 0 };
        let mut pieces = Pieces::of(section.client, view, clock - block.clock);
        while clock < block.end_clock() {
            let (end, is_deleted) = match range {
                Some(range) if range.start <= clock => (range.end, true),
                Some(range) => (range.start, false),
                None => (block.end_clock(), false),
            };
            let end = end.min(block.end_clock());
            pieces.write(into, end - clock, is_deleted);
            count += 1;
            clock = end;
            if is_deleted {
                range = ranges.next();
            }
        }
    }
    count + write_blocks(into, update, section, &whole)
}

/// Takes a block apart from the left, in linear time.
struct Pieces<'a> {
    client: u64,
    view: View<'a>,
    /// Units that are gone already.
    offset: u32,
    text: Units<'a>,
    values: Reader<'a>,
}

impl<'a> Pieces<'a> {
    /// What is right of `offset`.
    fn of(client: u64, view: View<'a>, offset: u32) -> Self {
        let is_text = view.kind() == Kind::String;
        let mut values = Reader::new(view.content());
        if view.kind() == Kind::Any {
            let _ = values.read_var_uint(); // how many they are; it was read once before
        }
        let mut pieces =
            Self { client, view, offset: 0, text: Units::of(if is_text { view.text() } else { "" }), values };
        pieces.take(offset);
        pieces
    }

    /// Writes the next so many units: the origin of any but the first of a block is the unit before, the right origin stays, a parent is not named.
    fn write(&mut self, into: &mut Vec<u8>, len: u32, is_deleted: bool) {
        let (view, kind) = (self.view, self.view.kind());
        let offset = self.offset;
        if matches!(kind, Kind::Gc | Kind::Skip) {
            into.push(kind as u8);
            write_var_uint(into, u64::from(len));
            self.offset += len;
            return;
        }
        let as_kind = if is_deleted { Kind::Deleted } else { kind };
        write_head(into, self.client, view, offset, as_kind);
        let (text, values) = self.take(len);
        match as_kind {
            Kind::Deleted => write_var_uint(into, u64::from(len)),
            Kind::String => write_var_bytes(into, text.as_bytes()),
            Kind::Any => {
                write_var_uint(into, u64::from(len));
                into.extend_from_slice(values);
            }
            // One unit long: never split.
            _ => into.extend_from_slice(view.content()),
        }
    }

    /// The text or the values of the next so many units.
    fn take(&mut self, len: u32) -> (String, &'a [u8]) {
        self.offset += len;
        let text = self.text.take(len);
        let before = self.values.rest();
        if self.view.kind() == Kind::Any {
            let _ = (0..len).try_for_each(|_| skip_any(&mut self.values, usize::MAX)); // as above
        }
        (text, before.get(..before.len() - self.values.remaining()).unwrap_or_default())
    }
}

/// What stands before the content of a block that begins `offset` units into this one.
fn write_head(into: &mut Vec<u8>, client: u64, view: View<'_>, offset: u32, as_kind: Kind) {
    let flags = view.info() & !(view.kind() as u8);
    if offset == 0 {
        into.push(flags | as_kind as u8);
        into.extend_from_slice(view.link_bytes());
        return;
    }
    into.push(flags | as_kind as u8 | HAS_ORIGIN);
    write_var_uint(into, client);
    write_var_uint(into, u64::from(view.block.clock + offset - 1));
    if view.info() & HAS_RIGHT_ORIGIN != 0
        && let Some(right_origin) = view.links().and_then(|links| links.right_origin)
    {
        write_var_uint(into, right_origin.client);
        write_var_uint(into, u64::from(right_origin.clock));
    }
}

/// Some units of a text or of a list of values.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Units before it.
    pub from: u32,
    pub len: u32,
    /// Where it is in the text, or in the content.
    pub bytes: Range<usize>,
}

/// Writes a part of a block as a block of its own.
pub(crate) fn write_part(into: &mut Vec<u8>, client: u64, view: View<'_>, part: &Part) {
    let kind = view.kind();
    write_head(into, client, view, part.from, kind);
    if kind == Kind::String {
        // Not as a text, which would be checked from its beginning for each part.
        let text = Reader::new(view.content()).read_var_bytes().unwrap_or_default();
        write_var_bytes(into, text.get(part.bytes.clone()).unwrap_or_default());
    } else {
        write_var_uint(into, u64::from(part.len));
        into.extend_from_slice(view.content().get(part.bytes.clone()).unwrap_or_default());
    }
}

/// Takes a text apart by UTF-16 units. A surrogate pair that is torn becomes U+FFFD on both sides, as in Yjs.
struct Units<'a> {
    rest: &'a str,
    /// The second unit of a pair is still to come.
    is_torn: bool,
}

impl<'a> Units<'a> {
    fn of(text: &'a str) -> Self {
        Self { rest: text, is_torn: false }
    }

    fn take(&mut self, mut units: u32) -> String {
        let mut taken = String::new();
        if units > 0 && std::mem::take(&mut self.is_torn) {
            taken.push('\u{fffd}');
            units -= 1;
        }
        let mut characters = self.rest.char_indices();
        let end = loop {
            match characters.next() {
                Some((_, character)) if units >= character.len_utf16() as u32 => units -= character.len_utf16() as u32,
                Some((at, _)) => break at,
                None => break self.rest.len(),
            }
        };
        let (left, right) = self.rest.split_at_checked(end).unwrap_or_default();
        taken.push_str(left);
        self.rest = right;
        if let (1, Some(torn)) = (units, right.chars().next()) {
            taken.push('\u{fffd}');
            self.is_torn = true;
            self.rest = right.get(torn.len_utf8()..).unwrap_or_default();
        }
        taken
    }
}

/// Writes a delete set: clients in the order given, their ranges in order. Clients without ranges are left out.
pub(crate) fn write_deletes(into: &mut Vec<u8>, deletes: &[(u64, Vec<Range<u32>>)]) {
    let filled = deletes.iter().filter(|(_, ranges)| !ranges.is_empty());
    write_var_uint(into, filled.clone().count() as u64);
    for (client, ranges) in filled {
        write_var_uint(into, *client);
        write_var_uint(into, ranges.len() as u64);
        for range in ranges {
            write_var_uint(into, u64::from(range.start));
            write_var_uint(into, u64::from(range.end - range.start));
        }
    }
}

impl Update {
    /// Writes the update again out of its parsed parts. What an honest encoder wrote comes out byte for byte.
    pub fn encode(&self) -> Bytes {
        let whole = |section: &Section| BlockRange { blocks: section.blocks.clone(), offset: 0 };
        let parts: Vec<_> = self.sections.iter().map(|section| (section, whole(section))).collect();
        let deletes = self.delete_sections.iter().map(|section| (section.client, self.delete_ranges(section).to_vec()));
        part_of(self, &parts, &deletes.collect::<Vec<_>>())
    }
}

/// An update of parts of another one.
pub(crate) fn part_of(update: &Update, parts: &[(&Section, BlockRange)], deletes: &[(u64, Vec<Range<u32>>)]) -> Bytes {
    let mut bytes = Vec::with_capacity(update.bytes.len() + 32);
    write_var_uint(&mut bytes, parts.len() as u64);
    for (section, part) in parts {
        let clock = update.blocks.get(part.blocks.start as usize).map_or(section.clock, |block| block.clock);
        write_var_uint(&mut bytes, u64::from(part.blocks.end - part.blocks.start));
        write_var_uint(&mut bytes, section.client);
        write_var_uint(&mut bytes, u64::from(clock + part.offset));
        write_blocks(&mut bytes, update, section, part);
    }
    write_deletes(&mut bytes, deletes);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::utf16_len;

    #[test]
    fn a_torn_surrogate_pair_leaves_replacement_characters() {
        for (cut, left, right) in
            [(0, "", "a😀b"), (1, "a", "😀b"), (2, "a\u{fffd}", "\u{fffd}b"), (3, "a😀", "b"), (4, "a😀b", "")]
        {
            let mut units = Units::of("a😀b");
            assert_eq!((units.take(cut).as_str(), units.take(9).as_str()), (left, right));
        }
        let mut units = Units::of("😀😀");
        let taken: Vec<_> = [1, 2, 1].map(|units_taken| units.take(units_taken)).into();
        assert_eq!(taken, ["\u{fffd}", "\u{fffd}\u{fffd}", "\u{fffd}"]);
        assert_eq!(utf16_len("a😀b\u{fffd}é"), 6);
    }
}
