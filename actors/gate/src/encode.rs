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

/// Writes the bytes of the blocks of `part`, without any header.
pub(crate) fn write_blocks(into: &mut Vec<u8>, update: &Update, section: &Section, part: &BlockRange) {
    let mut first = part.blocks.start;
    if part.offset > 0 {
        if let Some(view) = update.view(section, first) {
            write_right_half(into, section.client, &view, part.offset);
        }
        first += 1;
    }
    if first < part.blocks.end {
        let start = update.blocks.get(first as usize).map_or(section.end, |block| block.at);
        let end = update.block_end(section, part.blocks.end - 1);
        into.extend_from_slice(update.bytes.get(start as usize..end as usize).unwrap_or_default());
    }
}

/// What is right of `offset` in a block: its origin is the unit before, the right origin stays, a parent is not named.
fn write_right_half(into: &mut Vec<u8>, client: u64, view: &View<'_>, offset: u32) {
    let block = view.block;
    let kind = view.kind();
    let len = block.len - offset;
    if matches!(kind, Kind::Gc | Kind::Skip) {
        into.push(kind as u8);
        write_var_uint(into, u64::from(len));
        return;
    }
    into.push(view.info() | HAS_ORIGIN);
    write_var_uint(into, client);
    write_var_uint(into, u64::from(block.clock + offset - 1));
    if view.info() & HAS_RIGHT_ORIGIN != 0
        && let Some(right_origin) = view.links().and_then(|links| links.right_origin)
    {
        write_var_uint(into, right_origin.client);
        write_var_uint(into, u64::from(right_origin.clock));
    }
    match kind {
        Kind::Deleted => write_var_uint(into, u64::from(len)),
        Kind::String => write_var_bytes(into, right_of_text(view.text(), offset).concat().as_bytes()),
        Kind::Any => {
            write_var_uint(into, u64::from(len));
            let mut reader = Reader::new(view.content());
            let skipped =
                reader.read_var_uint().and_then(|_| (0..offset).try_for_each(|_| skip_any(&mut reader, usize::MAX)));
            if skipped.is_ok() {
                into.extend_from_slice(reader.rest());
            }
        }
        // One unit long: never split.
        _ => into.extend_from_slice(view.content()),
    }
}

/// The text from UTF-16 unit `offset` on. A surrogate pair that is torn becomes U+FFFD on both sides, as in Yjs.
pub(crate) fn right_of_text(text: &str, offset: u32) -> [&str; 2] {
    let mut units = 0;
    for (at, character) in text.char_indices() {
        if units >= offset {
            return ["", text.get(at..).unwrap_or_default()];
        }
        units += character.len_utf16() as u32;
        if units > offset {
            return ["\u{fffd}", text.get(at + character.len_utf8()..).unwrap_or_default()];
        }
    }
    ["", ""]
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
    fn a_torn_surrogate_pair_leaves_a_replacement_character() {
        assert_eq!(right_of_text("a😀b", 0).concat(), "a😀b");
        assert_eq!(right_of_text("a😀b", 1).concat(), "😀b");
        assert_eq!(right_of_text("a😀b", 2).concat(), "\u{fffd}b");
        assert_eq!(right_of_text("a😀b", 3).concat(), "b");
        assert_eq!(right_of_text("a😀b", 4).concat(), "");
        assert_eq!(utf16_len("a😀b\u{fffd}é"), 6);
    }
}
