//! Several updates as one, without decoding what they hold.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;

use crate::block::Kind;
use crate::encode::{BlockRange, write_blocks, write_deletes, write_undeleted};
use crate::lib0::write_var_uint;
use crate::ranges::Ranges;
use crate::state_vector::StateVector;
use crate::update::{Section, Update};

/// Blocks without a gap between them, of one client, in one update.
struct Run<'a> {
    update: &'a Update,
    section: &'a Section,
    blocks: Range<u32>,
    clock: u32,
    end_clock: u32,
}

/// What is written of one client.
struct Merged<'a> {
    client: u64,
    clock: u32,
    parts: Vec<Part<'a>>,
}

enum Part<'a> {
    Skip(u32),
    Blocks(&'a Update, &'a Section, BlockRange),
}

/// Merges consecutive updates of one log: applied to a document, the result does what they do one after the other.
///
/// Linear in the bytes when the updates were admitted in this order. Content that stands in two of them is written once; clocks
/// that stand in none become a Skip, as Yjs writes it.
pub fn merge(updates: &[Update]) -> Bytes {
    if let [single] = updates
        && single.is_plain
    {
        return single.bytes.clone();
    }
    encode(updates, &StateVector::default(), &merge_deletes(updates), write_blocks)
}

/// What somebody at `known` lacks of consecutive updates of one log: their blocks beyond it, and all their deletes, as Yjs answers a step 1.
/// Content that one of them deletes is not in it.
pub fn diff(updates: &[Update], known: &StateVector) -> Bytes {
    encode_undeleted(updates, known, &merge_deletes(updates))
}

impl Update {
    /// Its content: client and clocks of each block that is no shared type.
    pub fn contents(&self) -> impl Iterator<Item = (u64, Range<u64>)> + '_ {
        self.blocks_of_content().map(|(client, clocks)| (client, u64::from(clocks.start)..u64::from(clocks.end)))
    }

    fn blocks_of_content(&self) -> impl Iterator<Item = (u64, Range<u32>)> + '_ {
        self.sections.iter().flat_map(move |section| {
            let views = section.blocks.clone().filter_map(|at| self.view(section, at));
            let contents = views.filter(|view| !matches!(view.kind(), Kind::Skip | Kind::Type));
            contents.map(|view| (section.client, view.block.clock..view.block.end_clock()))
        })
    }
}

/// Writes what `known` lacks, without the content of what these delete.
fn encode_undeleted(updates: &[Update], known: &StateVector, deletes: &[(u64, Vec<Range<u32>>)]) -> Bytes {
    let by_client: HashMap<u64, &[Range<u32>]> =
        deletes.iter().map(|(client, ranges)| (*client, ranges.as_slice())).collect();
    encode(updates, known, deletes, |into, update, section, part| {
        let deleted = by_client.get(&section.client).copied().unwrap_or_default();
        write_undeleted(into, update, section, part, deleted)
    })
}

/// The same update without its [content](Update::contents): each block stays where it is as something deleted, so that what others wrote
/// around it stays where that is, and everybody who has the content learns that it is gone. Shared types stay, for what others wrote into
/// them, and what the update deleted besides stays deleted. Of what this made it makes the same again.
pub fn hollow(update: &Update) -> Bytes {
    let mut own: HashMap<u64, Vec<Range<u32>>> = merge_deletes(std::slice::from_ref(update)).into_iter().collect();
    for (client, clocks) in update.blocks_of_content() {
        own.entry(client).or_default().push(clocks);
    }
    encode_undeleted(std::slice::from_ref(update), &StateVector::default(), &joined(own))
}

/// Writes what `known` lacks, its blocks by `write`, which answers how many they became.
fn encode(
    updates: &[Update],
    known: &StateVector,
    deletes: &[(u64, Vec<Range<u32>>)],
    write: impl Fn(&mut Vec<u8>, &Update, &Section, &BlockRange) -> u64,
) -> Bytes {
    let merged = merge_blocks(updates, known);
    let mut bytes = Vec::with_capacity(updates.iter().map(|update| update.bytes.len()).sum::<usize>() + 16);
    let mut blocks = Vec::new();
    write_var_uint(&mut bytes, merged.len() as u64);
    for section in merged {
        blocks.clear();
        let mut count = 0;
        for part in section.parts {
            count += match part {
                Part::Skip(len) => {
                    blocks.push(Kind::Skip as u8);
                    write_var_uint(&mut blocks, u64::from(len));
                    1
                }
                Part::Blocks(update, section, part) => write(&mut blocks, update, section, &part),
            };
        }
        write_var_uint(&mut bytes, count);
        write_var_uint(&mut bytes, section.client);
        write_var_uint(&mut bytes, u64::from(section.clock));
        bytes.extend_from_slice(&blocks);
    }
    write_deletes(&mut bytes, deletes);
    bytes.into()
}

fn merge_blocks<'a>(updates: &'a [Update], known: &StateVector) -> Vec<Merged<'a>> {
    let mut runs: Vec<Run<'_>> = Vec::with_capacity(updates.iter().map(|update| update.sections.len()).sum());
    for update in updates {
        for section in &update.sections {
            split_at_skips(update, section, &mut runs);
        }
    }
    // Stable: what came first stays first. Of admitted updates each client's runs are in order already.
    runs.sort_by_key(|run| (std::cmp::Reverse(run.section.client), run.clock));

    let mut merged: Vec<Merged<'_>> = Vec::new();
    let mut at = None; // the client
    let mut end = 0; // everything before this clock is known or written
    for run in runs {
        let client = run.section.client;
        if at.replace(client) != Some(client) {
            let known = u32::try_from(known.next_clock(client)).unwrap_or(u32::MAX);
            end = run.clock.max(known);
        }
        if run.end_clock <= end {
            continue;
        }
        if merged.last().is_none_or(|last| last.client != client) {
            end = end.max(run.clock);
            merged.push(Merged { client, clock: end, parts: Vec::new() });
        }
        let Some(into) = merged.last_mut() else { continue };
        if run.clock > end {
            into.parts.push(Part::Skip(run.clock - end));
            end = run.clock;
        }
        let blocks = run.update.blocks.get(run.blocks.start as usize..run.blocks.end as usize).unwrap_or_default();
        let known = blocks.partition_point(|block| block.end_clock() <= end);
        let offset = blocks.get(known).map_or(0, |block| end.saturating_sub(block.clock));
        let blocks = run.blocks.start + known as u32..run.blocks.end;
        into.parts.push(Part::Blocks(run.update, run.section, BlockRange { blocks, offset }));
        end = run.end_clock;
    }
    merged
}

fn split_at_skips<'a>(update: &'a Update, section: &'a Section, runs: &mut Vec<Run<'a>>) {
    let mut from = section.blocks.start;
    let mut add = |from: u32, to: u32| {
        let ends =
            (update.blocks.get(from as usize), to.checked_sub(1).and_then(|last| update.blocks.get(last as usize)));
        if let (true, (Some(first), Some(last))) = (from < to, ends) {
            let (clock, end_clock) = (first.clock, last.end_clock());
            runs.push(Run { update, section, blocks: from..to, clock, end_clock });
        }
    };
    if update.has_skips {
        for at in section.blocks.clone() {
            if update.view(section, at).is_some_and(|view| view.kind() == Kind::Skip) {
                add(from, at);
                from = at + 1;
            }
        }
    }
    add(from, section.blocks.end);
}

fn merge_deletes(updates: &[Update]) -> Vec<(u64, Vec<Range<u32>>)> {
    let mut by_client: HashMap<u64, Vec<Range<u32>>> = HashMap::new();
    for update in updates {
        for section in &update.delete_sections {
            by_client.entry(section.client).or_default().extend_from_slice(update.delete_ranges(section));
        }
    }
    joined(by_client)
}

/// As they are written: clients from the highest id on, ranges in order.
fn joined(by_client: HashMap<u64, Vec<Range<u32>>>) -> Vec<(u64, Vec<Range<u32>>)> {
    let mut merged: Vec<_> = by_client
        .into_iter()
        .map(|(client, mut ranges)| {
            ranges.sort_unstable_by_key(|range| range.start);
            (client, Ranges::joined(ranges.into_iter()))
        })
        .collect();
    merged.sort_unstable_by_key(|(client, _)| std::cmp::Reverse(*client));
    merged
}
