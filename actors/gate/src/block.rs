//! One block of an update: where it is, what it refers to, what it holds. Read out of the bytes when asked for, never copied.

use crate::caps::{Caps, JSON_DEPTH_MAX};
use crate::lib0::Reader;
use crate::malformed::Rule;
use crate::value::{self, Mend};

/// Largest clock, and largest end of a block.
pub(crate) const CLOCK_MAX: u64 = (1 << 31) - 1;

pub(crate) const HAS_ORIGIN: u8 = 0x80;
pub(crate) const HAS_RIGHT_ORIGIN: u8 = 0x40;
pub(crate) const HAS_KEY: u8 = 0x20;
const KIND: u8 = 0x1f;

/// The place of one unit: who wrote it, and as the how-manieth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id {
    pub client: u64,
    pub clock: u32,
}

/// What a block is, by the number that stands in its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    Gc = 0,
    Deleted = 1,
    Binary = 3,
    String = 4,
    Embed = 5,
    Format = 6,
    Type = 7,
    Any = 8,
    Document = 9,
    Skip = 10,
}

impl Kind {
    fn of(info: u8) -> Result<Self, Rule> {
        Ok(match info & KIND {
            0 if info == 0 => Self::Gc,
            1 => Self::Deleted,
            2 => return Self::unread(Rule::JsonContent),
            3 => Self::Binary,
            4 => Self::String,
            5 => Self::Embed,
            6 => Self::Format,
            7 => Self::Type,
            8 => Self::Any,
            9 => Self::Document,
            10 if info == 10 => Self::Skip,
            11 => return Self::unread(Rule::MoveContent),
            _ => return Self::unread(Rule::UnknownKind),
        })
    }

    /// Where the check is switched off, as good a guess as any.
    fn unread(rule: Rule) -> Result<Self, Rule> {
        if rule.is_on() { Err(rule) } else { Ok(Self::Binary) }
    }

    /// The kind of a block that was parsed; its first byte is one of these.
    fn of_parsed(info: u8) -> Self {
        Self::of(info).unwrap_or(Self::Gc)
    }

    /// Whether the content of such a block is gone.
    pub fn is_deleted(self) -> bool {
        matches!(self, Self::Gc | Self::Deleted)
    }
}

/// A parsed block. `at` and `content` are offsets into the update; its end is where the next begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub clock: u32,
    pub len: u32,
    pub at: u32,
    pub content: u32,
}

impl Block {
    pub fn end_clock(&self) -> u32 {
        self.clock + self.len
    }
}

/// The parent that a block names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parent<'a> {
    /// None: it is the parent of the origin, or of the right origin.
    OfOrigin,
    /// A root type.
    Root(&'a str),
    /// The type that this item holds.
    Item(Id),
}

/// What a block says about where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Links<'a> {
    pub origin: Option<Id>,
    pub right_origin: Option<Id>,
    pub parent: Parent<'a>,
    pub key: Option<&'a str>,
}

impl Links<'_> {
    /// The items that must be known before this block.
    pub fn references(&self) -> [Option<Id>; 3] {
        let parent = match self.parent {
            Parent::Item(id) => Some(id),
            _ => None,
        };
        [self.origin, self.right_origin, parent]
    }
}

/// A block with its bytes at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub block: Block,
    bytes: &'a [u8],
}

impl<'a> View<'a> {
    /// `bytes` are the bytes of this block alone.
    pub fn new(block: Block, bytes: &'a [u8]) -> Self {
        Self { block, bytes }
    }

    pub fn info(&self) -> u8 {
        self.bytes.first().copied().unwrap_or_default()
    }

    pub fn kind(&self) -> Kind {
        Kind::of_parsed(self.info())
    }

    /// The bytes between the first and the content.
    pub fn link_bytes(&self) -> &'a [u8] {
        self.bytes.get(1..(self.block.content - self.block.at) as usize).unwrap_or_default()
    }

    pub fn content(&self) -> &'a [u8] {
        let start = (self.block.content - self.block.at) as usize;
        self.bytes.get(start..).unwrap_or_default()
    }

    /// The text of a string block.
    pub fn text(&self) -> &'a str {
        Reader::new(self.content()).read_var_string().unwrap_or_default()
    }

    /// What the block says about where it stands; `None` for GC and Skip, which stand nowhere.
    pub fn links(&self) -> Option<Links<'a>> {
        if matches!(self.kind(), Kind::Gc | Kind::Skip) {
            return None;
        }
        let mut reader = Reader::starting_at(self.bytes, 1);
        // It was read once before; whatever could fail failed then.
        read_links(&mut reader, self.info()).ok()
    }
}

fn read_id(reader: &mut Reader<'_>) -> Result<Id, Rule> {
    let client = reader.read_var_uint()?;
    Ok(Id { client, clock: read_clock(reader)? })
}

/// [`CLOCK_MAX`], unless the check is switched off.
pub(crate) fn clock_max() -> u64 {
    if Rule::ClockOutOfRange.is_on() { CLOCK_MAX } else { u64::from(u32::MAX) }
}

pub(crate) fn read_clock(reader: &mut Reader<'_>) -> Result<u32, Rule> {
    let clock = reader.read_var_uint()?;
    if clock > clock_max() { Err(Rule::ClockOutOfRange) } else { Ok(clock as u32) }
}

/// A length that is followed by nothing: a count of units.
fn read_len(reader: &mut Reader<'_>) -> Result<u32, Rule> {
    match read_clock(reader)? {
        0 if Rule::EmptyBlock.is_on() => Err(Rule::EmptyBlock),
        len => Ok(len),
    }
}

fn read_links<'a>(reader: &mut Reader<'a>, info: u8) -> Result<Links<'a>, Rule> {
    let origin = if info & HAS_ORIGIN == 0 { None } else { Some(read_id(reader)?) };
    let right_origin = if info & HAS_RIGHT_ORIGIN == 0 { None } else { Some(read_id(reader)?) };
    let mut links = Links { origin, right_origin, parent: Parent::OfOrigin, key: None };
    if origin.is_none() && right_origin.is_none() {
        links.parent = match reader.read_var_uint()? {
            1 => Parent::Root(reader.read_var_string()?),
            0 => Parent::Item(read_id(reader)?),
            _ if Rule::UnknownParent.is_on() => return Err(Rule::UnknownParent),
            _ => Parent::Item(read_id(reader)?),
        };
        if info & HAS_KEY != 0 {
            links.key = Some(reader.read_var_string()?);
        }
    }
    Ok(links)
}

/// Reads one block that begins at `clock` of `client`, and says whether it is a Skip.
pub(crate) fn read_block(
    reader: &mut Reader<'_>,
    client: u64,
    clock: u32,
    caps: &Caps,
    mends: &mut Vec<Mend>,
) -> Result<(Block, bool), Rule> {
    let at = reader.at() as u32;
    let info = reader.read_u8()?;
    let kind = Kind::of(info)?;
    let (content, len) = if matches!(kind, Kind::Gc | Kind::Skip) {
        (reader.at() as u32, read_len(reader)?)
    } else {
        let links = read_links(reader, info)?;
        check_links(&links, client, clock, caps)?;
        (reader.at() as u32, read_content(reader, kind, caps, mends)?)
    };
    if u64::from(clock) + u64::from(len) > clock_max() {
        return Err(Rule::ClockOutOfRange);
    }
    Ok((Block { clock, len, at, content }, kind == Kind::Skip))
}

fn check_links(links: &Links<'_>, client: u64, clock: u32, caps: &Caps) -> Result<(), Rule> {
    let is_ahead = |id: Id| id.client == client && id.clock >= clock;
    if links.references().into_iter().flatten().any(is_ahead) && Rule::RefersAhead.is_on() {
        return Err(Rule::RefersAhead);
    }
    if links.origin.is_some() && links.origin == links.right_origin && Rule::SameOrigins.is_on() {
        return Err(Rule::SameOrigins);
    }
    match links.parent {
        Parent::Root(name) if name.len() > caps.root_name_bytes_max && Rule::RootNameTooLong.is_on() => {
            return Err(Rule::RootNameTooLong);
        }
        _ => {}
    }
    match links.key {
        Some(key) if key.len() > caps.map_key_bytes_max && Rule::MapKeyTooLong.is_on() => Err(Rule::MapKeyTooLong),
        _ => Ok(()),
    }
}

/// Reads over the content and counts its units.
fn read_content(reader: &mut Reader<'_>, kind: Kind, caps: &Caps, mends: &mut Vec<Mend>) -> Result<u32, Rule> {
    match kind {
        Kind::Gc | Kind::Skip | Kind::Deleted => return read_len(reader),
        Kind::Binary => {
            reader.read_var_bytes()?;
        }
        Kind::String => {
            let units = utf16_len(reader.read_var_string()?);
            // No text has more units than bytes, and an update has less than 4 GiB.
            return if units == 0 && Rule::EmptyBlock.is_on() { Err(Rule::EmptyBlock) } else { Ok(units as u32) };
        }
        Kind::Embed => read_json(reader, caps, mends)?,
        Kind::Format => {
            reader.read_var_string()?;
            read_json(reader, caps, mends)?;
        }
        Kind::Type => match reader.read_var_uint()? {
            // Array, Map, Text, XmlFragment, XmlText.
            0 | 1 | 2 | 4 | 6 => {}
            // XmlElement has a name.
            3 => {
                reader.read_var_string()?;
            }
            5 if Rule::XmlHook.is_on() => return Err(Rule::XmlHook),
            7 if Rule::WeakLink.is_on() => return Err(Rule::WeakLink),
            kind if !matches!(kind, 5 | 7) && Rule::UnknownType.is_on() => return Err(Rule::UnknownType),
            _ => {}
        },
        Kind::Any => {
            let count = read_len(reader)?;
            if count as usize > reader.remaining() {
                return Err(Rule::Truncated);
            }
            for _ in 0..count {
                value::skip_any(reader, caps.any_depth_max)?;
            }
            return Ok(count);
        }
        Kind::Document => {
            reader.read_var_string()?;
            let tag = reader.read_u8()?;
            if tag != 118 && Rule::SubDocumentOptions.is_on() {
                return Err(Rule::SubDocumentOptions);
            }
            value::walk_any(reader, tag, caps.any_depth_max, |_| {})?;
        }
    }
    Ok(1)
}

fn read_json(reader: &mut Reader<'_>, caps: &Caps, mends: &mut Vec<Mend>) -> Result<(), Rule> {
    let text = reader.read_var_string()?;
    let depth_max = caps.any_depth_max.min(JSON_DEPTH_MAX);
    match value::check_json_for_yrs(text, depth_max, reader.at() - text.len(), mends) {
        Err(rule) if !rule.is_on() => Ok(()),
        Err(Rule::ValueTooDeep) if caps.any_depth_max > JSON_DEPTH_MAX => Err(Rule::JsonTooDeep),
        checked => checked,
    }
}

/// Length of a text as Yjs counts: in UTF-16 units.
pub(crate) fn utf16_len(text: &str) -> usize {
    text.bytes().map(|byte| usize::from(byte & 0xc0 != 0x80) + usize::from(byte >= 0xf0)).sum()
}
