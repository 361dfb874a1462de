//! Reads the blocks of a v1 state, and cuts them where others refer into them, so that the fold never has to.

use super::ExportError;
use super::any::{self, unreadable};
use super::out::Patience;
use contextnexus_gate::lib0::Reader;
use std::collections::HashMap;
use std::time::Instant;

/// Some 100 bytes each: 400 MB at most while a document is shown.
const ITEMS_MAX: usize = 4_000_000;
/// The first byte of a gap.
const SKIP: u8 = 10;

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct Id {
    pub(super) client: u64,
    pub(super) clock: u32,
}

/// The kind of a shared type that stands inside another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TypeKind<'a> {
    Array,
    Map,
    Text,
    XmlText,
    Element(&'a str),
    Fragment,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    /// Deleted, and its content forgotten.
    Gone,
    /// Deleted so long ago that not even its place is known.
    Collected,
    /// A piece of text, and whether a cut took half a character from its start or its end: Yjs shows U+FFFD there.
    Text {
        text: &'a str,
        cut_start: bool,
        cut_end: bool,
    },
    /// JSON text.
    Embed(&'a str),
    /// A format that begins (or, with `null`, ends) here.
    Format {
        key: &'a str,
        value: &'a str,
    },
    Type(TypeKind<'a>),
    /// Into [`Blocks::values`].
    Values {
        first: u32,
        len: u32,
    },
    Binary(&'a [u8]),
    /// A sub-document, by its id.
    Document(&'a str),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Parent<'a> {
    OfOrigin,
    Root(&'a str),
    Item(Id),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Block<'a> {
    pub(super) id: Id,
    pub(super) len: u32,
    pub(super) origin: Option<Id>,
    pub(super) right_origin: Option<Id>,
    pub(super) parent: Parent<'a>,
    pub(super) key: Option<&'a str>,
    pub(super) content: Content<'a>,
    pub(super) deleted: bool,
}

/// All blocks, by client in order of their clocks, each client's side by side.
#[derive(Debug)]
pub(super) struct Blocks<'a> {
    pub(super) blocks: Vec<Block<'a>>,
    pub(super) clients: HashMap<u64, std::ops::Range<u32>>,
    /// Encoded `Any` values.
    pub(super) values: Vec<&'a [u8]>,
}

pub(super) fn blocks(state: &[u8], deadline: Instant) -> Result<Blocks<'_>, ExportError> {
    let mut patience = Patience::new(deadline);
    let mut reader = Reader::new(state);
    let mut values = Vec::new();
    let mut whole = Vec::new();
    for _ in 0..reader.read_var_uint().map_err(unreadable)? {
        let count = reader.read_var_uint().map_err(unreadable)?;
        let client = reader.read_var_uint().map_err(unreadable)?;
        let mut clock = read_u32(&mut reader)?;
        for _ in 0..count {
            patience.step()?;
            if reader.rest().first() == Some(&SKIP) {
                reader.read_u8().map_err(unreadable)?;
                clock = clock.saturating_add(read_u32(&mut reader)?);
                continue;
            }
            let block = read_block(&mut reader, Id { client, clock }, &mut values)?;
            clock = clock.checked_add(block.len).ok_or(ExportError::Unreadable("a clock is out of range"))?;
            whole.push(block);
            if whole.len() > ITEMS_MAX || values.len() > ITEMS_MAX {
                return Err(ExportError::TooLarge);
            }
        }
    }
    let deletes = read_deletes(&mut reader, &mut patience)?;
    whole.sort_by_key(|block| block.id);
    let blocks = cut(&whole, &deletes, &mut patience)?;
    let mut clients = HashMap::new();
    for (at, block) in blocks.iter().enumerate() {
        let at = at as u32; // at most ITEMS_MAX
        clients.entry(block.id.client).or_insert(at..at).end = at + 1;
    }
    Ok(Blocks { blocks, clients, values })
}

fn read_u32(reader: &mut Reader<'_>) -> Result<u32, ExportError> {
    u32::try_from(reader.read_var_uint().map_err(unreadable)?)
        .map_err(|_| ExportError::Unreadable("a clock is out of range"))
}

fn read_id(reader: &mut Reader<'_>) -> Result<Id, ExportError> {
    Ok(Id { client: reader.read_var_uint().map_err(unreadable)?, clock: read_u32(reader)? })
}

fn read_block<'a>(reader: &mut Reader<'a>, id: Id, values: &mut Vec<&'a [u8]>) -> Result<Block<'a>, ExportError> {
    let info = reader.read_u8().map_err(unreadable)?;
    let mut block = Block {
        id,
        len: 1,
        origin: None,
        right_origin: None,
        parent: Parent::OfOrigin,
        key: None,
        content: Content::Collected,
        deleted: true,
    };
    if info == 0 {
        block.len = read_u32(reader)?;
        return Ok(block);
    }
    if info & 0x80 != 0 {
        block.origin = Some(read_id(reader)?);
    }
    if info & 0x40 != 0 {
        block.right_origin = Some(read_id(reader)?);
    }
    if info & 0xc0 == 0 {
        block.parent = match reader.read_var_uint().map_err(unreadable)? {
            1 => Parent::Root(reader.read_var_string().map_err(unreadable)?),
            _ => Parent::Item(read_id(reader)?),
        };
        if info & 0x20 != 0 {
            block.key = Some(reader.read_var_string().map_err(unreadable)?);
        }
    }
    block.deleted = false;
    block.content = match info & 0x1f {
        1 => {
            block.len = read_u32(reader)?;
            block.deleted = true;
            Content::Gone
        }
        3 => Content::Binary(reader.read_var_bytes().map_err(unreadable)?),
        4 => {
            let text = reader.read_var_string().map_err(unreadable)?;
            block.len = text.chars().map(char::len_utf16).sum::<usize>() as u32; // at most the bytes of one state
            Content::Text { text, cut_start: false, cut_end: false }
        }
        5 => Content::Embed(reader.read_var_string().map_err(unreadable)?),
        6 => Content::Format {
            key: reader.read_var_string().map_err(unreadable)?,
            value: reader.read_var_string().map_err(unreadable)?,
        },
        7 => Content::Type(match reader.read_var_uint().map_err(unreadable)? {
            0 => TypeKind::Array,
            1 => TypeKind::Map,
            2 => TypeKind::Text,
            6 => TypeKind::XmlText,
            3 | 5 => TypeKind::Element(reader.read_var_string().map_err(unreadable)?),
            4 => TypeKind::Fragment,
            _ => return Err(ExportError::Unreadable("an unknown type")),
        }),
        8 => {
            block.len = read_u32(reader)?;
            let first = values.len() as u32; // bounded by the caller
            for _ in 0..block.len {
                let before = reader.rest();
                any::skip(reader)?;
                values.push(before.get(..before.len() - reader.remaining()).unwrap_or_default());
            }
            Content::Values { first, len: block.len }
        }
        9 => {
            let guid = reader.read_var_string().map_err(unreadable)?;
            any::skip(reader)?;
            Content::Document(guid)
        }
        _ => return Err(ExportError::Unreadable("an unknown kind of block")),
    };
    if block.len == 0 {
        return Err(ExportError::Unreadable("an empty block"));
    }
    Ok(block)
}

type Deletes = HashMap<u64, Vec<std::ops::Range<u32>>>;

fn read_deletes(reader: &mut Reader<'_>, patience: &mut Patience) -> Result<Deletes, ExportError> {
    let mut deletes = Deletes::new();
    for _ in 0..reader.read_var_uint().map_err(unreadable)? {
        let client = reader.read_var_uint().map_err(unreadable)?;
        let ranges = deletes.entry(client).or_default();
        for _ in 0..reader.read_var_uint().map_err(unreadable)? {
            patience.step()?;
            let clock = read_u32(reader)?;
            ranges.push(clock..clock.saturating_add(read_u32(reader)?));
        }
        ranges.sort_unstable_by_key(|range| range.start);
    }
    Ok(deletes)
}

/// Cuts blocks behind every origin, before every right origin, and at both ends of every delete range; marks what is deleted.
fn cut<'a>(whole: &[Block<'a>], deletes: &Deletes, patience: &mut Patience) -> Result<Vec<Block<'a>>, ExportError> {
    let mut cuts: Vec<Id> = Vec::new();
    for block in whole {
        cuts.extend(block.origin.map(|id| Id { clock: id.clock.saturating_add(1), ..id }));
        cuts.extend(block.right_origin);
    }
    for (client, ranges) in deletes {
        cuts.extend(
            ranges.iter().flat_map(|range| [range.start, range.end]).map(|clock| Id { client: *client, clock }),
        );
    }
    cuts.sort_unstable();
    cuts.dedup();
    let mut pieces = Vec::with_capacity(whole.len());
    for block in whole {
        let mut rest = *block;
        let end = Id { clock: rest.id.clock.saturating_add(rest.len), ..rest.id };
        let from = cuts.partition_point(|at| *at <= rest.id);
        for at in cuts.iter().skip(from).take_while(|at| **at < end) {
            patience.step()?;
            let (left, right) = split(rest, at.clock - rest.id.clock);
            pieces.push(left);
            rest = right;
        }
        pieces.push(rest);
        if pieces.len() > ITEMS_MAX {
            return Err(ExportError::TooLarge);
        }
    }
    for piece in &mut pieces {
        let ranges = deletes.get(&piece.id.client).map(Vec::as_slice).unwrap_or_default();
        let candidate = ranges.partition_point(|range| range.start <= piece.id.clock).checked_sub(1);
        piece.deleted |= candidate.and_then(|at| ranges.get(at)).is_some_and(|range| range.contains(&piece.id.clock));
    }
    Ok(pieces)
}

/// Cuts a block after `at` of its units, as Yjs does.
fn split<'a>(block: Block<'a>, at: u32) -> (Block<'a>, Block<'a>) {
    let (mut left, mut right) = (block, block);
    left.len = at;
    right.len = block.len - at;
    right.id.clock += at;
    right.origin = Some(Id { clock: right.id.clock - 1, ..right.id });
    match block.content {
        Content::Text { text, cut_start, cut_end } => {
            let (head, tail, halved) = split_text(text, at, cut_start);
            left.content = Content::Text { text: head, cut_start, cut_end: halved };
            right.content = Content::Text { text: tail, cut_start: halved, cut_end };
        }
        Content::Values { first, len } => {
            left.content = Content::Values { first, len: at };
            right.content = Content::Values { first: first + at, len: len - at };
        }
        _ => {}
    }
    (left, right)
}

/// Cuts a text after `at` UTF-16 units, of which the first is a lost half where `cut_start`. A character that is cut in two belongs
/// to neither side, and the third answer says so.
fn split_text(text: &str, at: u32, cut_start: bool) -> (&str, &str, bool) {
    let mut units = u32::from(cut_start);
    for (offset, character) in text.char_indices() {
        if units >= at {
            return (text.get(..offset).unwrap_or_default(), text.get(offset..).unwrap_or_default(), false);
        }
        units += character.len_utf16() as u32;
        if units > at {
            let tail = offset + character.len_utf8();
            return (text.get(..offset).unwrap_or_default(), text.get(tail..).unwrap_or_default(), true);
        }
    }
    (text, "", false)
}
