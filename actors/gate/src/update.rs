//! A parsed update: the bytes as they came, and where the blocks and delete ranges stand in them.

use std::ops::Range;

use bytes::Bytes;

use crate::block::{Block, View, clock_max, read_block, read_clock};
use crate::caps::Caps;
use crate::lib0::Reader;
use crate::malformed::{Malformed, Rule};
use crate::v2;
use crate::value::{self, Mend};

/// An update in the v1 format that keeps every rule which can be checked without the document.
///
/// It owns its bytes, and cloning the bytes copies nothing. A block takes 16 bytes beside them, a client's section 32, a delete
/// range 8; the smallest of these takes 2, 5 and 2 bytes of input.
#[derive(Clone, Debug)]
pub struct Update {
    pub(crate) bytes: Bytes,
    pub(crate) sections: Vec<Section>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) delete_sections: Vec<DeleteSection>,
    pub(crate) deletes: Vec<Range<u32>>,
    /// Whether the bytes are what this crate would write itself: else they are never passed on as they came.
    pub(crate) is_plain: bool,
    /// Whether any section has a Skip: then its blocks have gaps between them.
    pub(crate) has_skips: bool,
}

/// The blocks of one client: contiguous clocks, in order.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub client: u64,
    pub clock: u32,
    pub end_clock: u32,
    /// Indices into `Update::blocks`.
    pub blocks: Range<u32>,
    /// Where the last block ends in the bytes.
    pub end: u32,
}

/// The delete ranges of one client: in order, none empty, none overlapping.
#[derive(Clone, Debug)]
pub(crate) struct DeleteSection {
    pub client: u64,
    /// Indices into `Update::deletes`.
    pub ranges: Range<u32>,
}

impl Update {
    /// Parses an update of the v1 format and checks every rule that needs no document.
    ///
    /// JSON in formats and embeds may hold two things that JavaScript writes and yrs cannot read. They are mended in a copy:
    /// half a surrogate pair (`"\\ud83d"`) becomes U+FFFD, as it does in text; a whole number from 2^63 to 2^64 gets an exponent.
    ///
    /// What is no v1 update and looks like one of the v2 format is refused by [`Rule::FormatV2`], so that its sender
    /// knows.
    pub fn parse(bytes: Bytes, caps: &Caps) -> Result<Self, Malformed> {
        Self::parse_v1(bytes.clone(), caps).map_err(|malformed| {
            let is_v2 = malformed.rule != Rule::TooLarge && v2::is_v2(&bytes);
            if is_v2 { Rule::FormatV2.at(0) } else { malformed }
        })
    }

    fn parse_v1(bytes: Bytes, caps: &Caps) -> Result<Self, Malformed> {
        if bytes.len() > caps.update_bytes_max.min(u32::MAX as usize) && Rule::TooLarge.is_on() {
            return Err(Rule::TooLarge.at(0));
        }
        let mut update = Self {
            bytes: Bytes::new(),
            sections: Vec::new(),
            blocks: Vec::new(),
            delete_sections: Vec::new(),
            deletes: Vec::new(),
            is_plain: true,
            has_skips: false,
        };
        let mut reader = Reader::new(&bytes);
        let mut mends = Vec::new();
        let read = update.read_sections(&mut reader, caps, &mut mends).and_then(|()| update.read_deletes(&mut reader));
        read.map_err(|rule| rule.at(reader.at()))?;
        if !reader.is_empty() && Rule::TrailingBytes.is_on() {
            return Err(Rule::TrailingBytes.at(reader.at()));
        }
        if mends.is_empty() {
            update.bytes = bytes;
        } else {
            update.bytes = value::mended(&bytes, &mends);
            update.is_plain = false;
        }
        Ok(update)
    }

    /// The bytes as they came, but for what yrs could not read of honest JSON: see [`Update::parse`].
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether it holds neither blocks nor deletes.
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty() && self.deletes.is_empty()
    }

    /// Whether it holds blocks.
    pub fn has_structs(&self) -> bool {
        !self.sections.is_empty()
    }

    /// Each client's blocks: client id, first clock, and the clock after the last.
    pub fn clients(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.sections.iter().map(|section| (section.client, u64::from(section.clock), u64::from(section.end_clock)))
    }

    fn read_sections(&mut self, reader: &mut Reader<'_>, caps: &Caps, mends: &mut Vec<Mend>) -> Result<(), Rule> {
        // A section takes five bytes at least, a block two. Capacity follows the claim only as far as the bytes bear it out.
        let count = reader.read_var_uint()?;
        self.sections.reserve_exact(bounded(count, reader.remaining() / 5));
        for _ in 0..count {
            let block_count = reader.read_var_uint()?;
            if block_count == 0 && Rule::EmptySection.is_on() {
                return Err(Rule::EmptySection);
            }
            let client = reader.read_var_uint()?;
            let clock = read_clock(reader)?;
            let first = self.blocks.len();
            self.blocks.reserve(bounded(block_count, reader.remaining() / 2));
            let mut end_clock = clock;
            for _ in 0..block_count {
                let (block, is_skip) = read_block(reader, client, end_clock, caps, mends)?;
                end_clock = block.end_clock();
                self.has_skips |= is_skip;
                self.blocks.push(block);
            }
            let blocks = first as u32..self.blocks.len() as u32;
            self.sections.push(Section { client, clock, end_clock, blocks, end: reader.at() as u32 });
        }
        all_differ(self.sections.iter().map(|section| section.client), Rule::DuplicateSection)
    }

    fn read_deletes(&mut self, reader: &mut Reader<'_>) -> Result<(), Rule> {
        let count = reader.read_var_uint()?;
        self.delete_sections.reserve_exact(bounded(count, reader.remaining() / 2));
        for _ in 0..count {
            let client = reader.read_var_uint()?;
            let range_count = reader.read_var_uint()?;
            let first = self.deletes.len();
            self.deletes.reserve(bounded(range_count, reader.remaining() / 2));
            let mut end = 0;
            for _ in 0..range_count {
                let clock = read_clock(reader)?;
                let len = reader.read_var_uint()?;
                if len == 0 && Rule::EmptyDelete.is_on() {
                    return Err(Rule::EmptyDelete);
                }
                if clock < end && Rule::DeletesUnsorted.is_on() {
                    return Err(Rule::DeletesUnsorted);
                }
                if u64::from(clock).saturating_add(len) > clock_max() {
                    return Err(Rule::ClockOutOfRange);
                }
                end = clock + len as u32;
                self.deletes.push(clock..end);
            }
            if range_count == 0 {
                // Harmless, so not refused; but nobody needs to see it again.
                self.is_plain = false;
            }
            self.delete_sections.push(DeleteSection { client, ranges: first as u32..self.deletes.len() as u32 });
        }
        all_differ(self.delete_sections.iter().map(|section| section.client), Rule::DuplicateDeletes)
    }

    /// Block `index`, which must be one of `section`.
    pub(crate) fn view(&self, section: &Section, index: u32) -> Option<View<'_>> {
        let block = *self.blocks.get(index as usize)?;
        let end = self.block_end(section, index);
        Some(View::new(block, self.bytes.get(block.at as usize..end as usize)?))
    }

    /// Where block `index` of `section` ends in the bytes.
    pub(crate) fn block_end(&self, section: &Section, index: u32) -> u32 {
        match self.blocks.get(index as usize + 1) {
            Some(next) if index + 1 < section.blocks.end => next.at,
            _ => section.end,
        }
    }

    /// Whether all of `clocks` of `client` stands in the delete ranges.
    pub(crate) fn are_deleted(&self, client: u64, clocks: &Range<u32>) -> bool {
        let section = self.delete_sections.iter().find(|section| section.client == client);
        let ranges = section.map(|section| self.delete_ranges(section)).unwrap_or_default();
        let behind = ranges.partition_point(|range| range.start <= clocks.start);
        let mut end = clocks.start;
        // Ranges may touch.
        for range in ranges.get(behind.saturating_sub(1)..).unwrap_or_default() {
            if range.start > end || end >= clocks.end {
                break;
            }
            end = range.end.max(end);
        }
        end >= clocks.end
    }

    pub(crate) fn delete_ranges(&self, section: &DeleteSection) -> &[Range<u32>] {
        self.deletes.get(section.ranges.start as usize..section.ranges.end as usize).unwrap_or_default()
    }
}

fn bounded(claimed: u64, max: usize) -> usize {
    usize::try_from(claimed).map_or(max, |claimed| claimed.min(max))
}

/// Honest encoders write clients in descending order; then the check is one pass. Others pay for a sort.
fn all_differ(clients: impl ExactSizeIterator<Item = u64> + Clone, rule: Rule) -> Result<(), Rule> {
    if clients.clone().zip(clients.clone().skip(1)).all(|(left, right)| left > right) {
        return Ok(());
    }
    let mut sorted: Vec<u64> = clients.collect();
    sorted.sort_unstable();
    if sorted.array_windows().any(|[left, right]| left == right) && rule.is_on() { Err(rule) } else { Ok(()) }
}
