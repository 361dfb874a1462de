//! Deletes in an order in which yrs copies little.
//!
//! yrs cuts a text in two for each end of a deleted range, and copies both halves: from left to right that is the whole rest each time. Halves of
//! halves are copied as often as they can be halved.

use std::ops::Range;

use bytes::Bytes;

use crate::encode::{BlockRange, part_of, write_deletes};
use crate::update::Update;

/// So many ranges are deleted from left to right.
const AT_ONCE: usize = 64;
/// No update that is smaller has more of them.
const BYTES_MIN: usize = 2 * AT_ONCE;

/// The same ranges: the middle one first, then all to its left in the same way, then those to its right.
pub(crate) fn bisected(ranges: &[Range<u32>]) -> impl Iterator<Item = &[Range<u32>]> {
    let mut waiting = vec![ranges];
    std::iter::from_fn(move || {
        let ranges = waiting.pop()?;
        if ranges.len() <= AT_ONCE {
            return Some(ranges);
        }
        let (left, rest) = ranges.split_at(ranges.len() / 2);
        let (middle, right) = rest.split_at(1);
        waiting.extend([right, left]);
        Some(middle)
    })
}

/// The update as several, to be applied in one transaction: the blocks, then the deletes. Empty where that makes no difference.
pub fn steps(update: &Update) -> Vec<Bytes> {
    let is_long = |ranges: &[Range<u32>]| ranges.len() > AT_ONCE;
    if update.bytes.len() < BYTES_MIN
        || !update.delete_sections.iter().any(|section| is_long(update.delete_ranges(section)))
    {
        return Vec::new();
    }
    let whole: Vec<_> = update
        .sections
        .iter()
        .map(|section| (section, BlockRange { blocks: section.blocks.clone(), offset: 0 }))
        .collect();
    let mut steps = vec![part_of(update, &whole, &[])];
    for section in &update.delete_sections {
        for ranges in bisected(update.delete_ranges(section)) {
            let mut step = vec![0];
            write_deletes(&mut step, &[(section.client, ranges.to_vec())]);
            steps.push(step.into());
        }
    }
    steps
}
