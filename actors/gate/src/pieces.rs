//! One large update as several small ones, each of which counts for itself.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;

use crate::block::{Id, Kind, Parent, View, utf16_len};
use crate::encode::{BlockRange, Part, write_blocks, write_deletes, write_part};
use crate::lib0::{Reader, write_var_uint};
use crate::update::{Section, Update};
use crate::value::skip_any;

/// No block of the update.
const NONE: u32 = u32::MAX;
/// What the header of a client's section takes, about.
const SECTION_BYTES: usize = 16;
/// A first block up to this is withheld whole.
const WITHHELD_BYTES_MAX: usize = 64;

/// Cuts an update into pieces of about `bytes_max`, to be applied one after the other. There is always a last piece; it holds the deletes,
/// or the rest of them, and may be empty.
///
/// Whoever can apply the update can apply every piece behind those before it, and knows more after it: blocks come in an order in which
/// each finds what it refers to, and a long text is cut between characters. So a connection that breaks loses one piece, not all.
///
/// Readers see the document grow, and some of them mend what looks broken to them: y-prosemirror deletes an element that its schema does
/// not allow, such as a table without rows. So a type appears together with its attributes and with the types in it; only text, and what
/// stands in a root type, comes little by little. Where that takes more than a piece, the pieces in question leave out the first block of
/// each client, which Yjs waits for, and the last of them brings these. An update that also deletes what the reader may hold appears at
/// one moment in the same way, if it holds types.
///
/// A piece is larger than `bytes_max` where a single block is that cannot be cut (a binary, an embed), by what stands around a text that is not, or where the first blocks of all
/// clients are: up to 80 bytes each, or one block that cannot be cut. An update whose blocks do not follow one another (no log holds such a one) stays in one piece.
pub fn pieces(update: &Update, bytes_max: usize) -> Vec<Bytes> {
    let bytes_max = bytes_max.max(SECTION_BYTES);
    if update.bytes.len() <= bytes_max {
        return vec![update.bytes.clone()];
    }
    let Some(plan) = Plan::of(update) else { return vec![update.bytes.clone()] };
    let mut packer = Packer { update, bytes_max, pieces: Vec::new(), piece: Steps::default(), atom: Steps::default() };
    let is_whole = plan.is_structured && has_deletes_beyond(update);
    let mut open = 0; // blocks that belong to a type that has come, and are still to come
    for run in &plan.order {
        let Some(section) = update.sections.get(run.section as usize) else { continue };
        for block in run.blocks.clone() {
            let Some(view) = update.view(section, block) else { continue };
            let mut parts = parts_of(&view, bytes_max).into_iter();
            let last = parts.next_back();
            for part in parts {
                packer.add(run.section, block, Some(part));
                if open == 0 && !is_whole {
                    packer.close_atom();
                }
            }
            packer.add(run.section, block, last);
            open += plan.children.get(&block).copied().unwrap_or_default();
            open -= u32::from(plan.is_needed.get(block as usize).copied().unwrap_or_default()).min(open);
            if open == 0 && !is_whole {
                packer.close_atom();
            }
        }
    }
    packer.finish(is_whole)
}

/// Blocks of one section, next to each other.
#[derive(Clone, Debug)]
struct Run {
    section: u32,
    blocks: Range<u32>,
}

/// In which order blocks go, and which belong together.
struct Plan {
    order: Vec<Run>,
    /// By block: it is to appear together with its parent.
    is_needed: Vec<bool>,
    /// By the block of a type: how many are to appear together with it.
    children: HashMap<u32, u32>,
    /// There are types.
    is_structured: bool,
}

struct Planner<'a> {
    update: &'a Update,
    sections: HashMap<u64, u32>,
    deletes: HashMap<u64, &'a [Range<u32>]>,
    /// By section: the first block that has no place yet.
    next: Vec<u32>,
    /// By block: the block of the type that it is in.
    parents: Vec<u32>,
    plan: Plan,
}

impl Plan {
    /// `None`: the blocks do not follow one another.
    fn of(update: &Update) -> Option<Self> {
        if update.has_skips {
            return None;
        }
        let sections = update.sections.iter().zip(0..).map(|(section, at)| (section.client, at)).collect();
        let deletes = update.delete_sections.iter().map(|section| (section.client, update.delete_ranges(section)));
        let mut planner = Planner {
            update,
            sections,
            deletes: deletes.collect(),
            next: update.sections.iter().map(|section| section.blocks.start).collect(),
            parents: vec![NONE; update.blocks.len()],
            plan: Self {
                order: Vec::new(),
                is_needed: vec![false; update.blocks.len()],
                children: HashMap::new(),
                is_structured: false,
            },
        };
        let mut waiting = Vec::new();
        for (section, at) in update.sections.iter().zip(0..) {
            waiting.push((at, section.end_clock));
            planner.place(&mut waiting)?;
        }
        Some(planner.plan)
    }
}

impl Planner<'_> {
    /// Places the blocks of the sections that wait, each up to a clock: the last first, because the one before waits for it.
    fn place(&mut self, waiting: &mut Vec<(u32, u32)>) -> Option<()> {
        while let Some(&(at, until)) = waiting.last() {
            let section = self.update.sections.get(at as usize)?;
            let next = *self.next.get(at as usize)?;
            if next >= section.blocks.end || self.update.blocks.get(next as usize)?.clock >= until {
                waiting.pop();
                continue;
            }
            let view = self.update.view(section, next)?;
            match self.missing(section, &view)? {
                None => {
                    self.note(section, next, &view);
                    match self.plan.order.last_mut() {
                        Some(last) if last.section == at && last.blocks.end == next => last.blocks.end += 1,
                        _ => self.plan.order.push(Run { section: at, blocks: next..next + 1 }),
                    }
                    *self.next.get_mut(at as usize)? = next + 1;
                }
                // Each waits for the next; more than there are sections means in a circle.
                Some(_) if waiting.len() > self.update.sections.len() => return None,
                Some(missing) => waiting.push(missing),
            }
        }
        Some(())
    }

    /// The section, and up to which clock, that this block needs and that has no place yet.
    #[allow(clippy::option_option)]
    fn missing(&self, section: &Section, view: &View<'_>) -> Option<Option<(u32, u32)>> {
        let Some(links) = view.links() else { return Some(None) };
        for id in links.references().into_iter().flatten().filter(|id| id.client != section.client) {
            let Some(&at) = self.sections.get(&id.client) else { continue };
            let other = self.update.sections.get(at as usize)?;
            let next = *self.next.get(at as usize)?;
            let placed = match self.update.blocks.get(next as usize) {
                Some(block) if next < other.blocks.end => block.clock,
                _ => other.end_clock,
            };
            if id.clock >= other.end_clock {
                return None;
            }
            if id.clock >= placed {
                return Some(Some((at, id.clock + 1)));
            }
        }
        Some(None)
    }

    /// Notes to which type a block belongs, and whether it must come with it.
    fn note(&mut self, section: &Section, at: u32, view: &View<'_>) {
        let kind = view.kind();
        let is_live = !kind.is_deleted() && !self.is_deleted(section.client, view.block.clock..view.block.end_clock());
        self.plan.is_structured |= is_live && kind == Kind::Type;
        let Some(links) = view.links() else { return };
        let parent = match links.parent {
            Parent::Root(_) => NONE,
            Parent::Item(id) => self.find(id).unwrap_or(NONE),
            Parent::OfOrigin => {
                let beside = links.origin.or(links.right_origin).and_then(|id| self.find(id));
                beside.and_then(|beside| self.parents.get(beside as usize)).copied().unwrap_or(NONE)
            }
        };
        if let Some(of_block) = self.parents.get_mut(at as usize) {
            *of_block = parent;
        }
        let is_text = matches!(kind, Kind::String | Kind::Format | Kind::Embed);
        if parent != NONE && is_live && !is_text {
            *self.plan.children.entry(parent).or_default() += 1;
            if let Some(is_needed) = self.plan.is_needed.get_mut(at as usize) {
                *is_needed = true;
            }
        }
    }

    /// Whether the update deletes all of these.
    fn is_deleted(&self, client: u64, clocks: Range<u32>) -> bool {
        let ranges = self.deletes.get(&client).copied().unwrap_or_default();
        let first = ranges.partition_point(|range| range.end <= clocks.start);
        ranges.get(first).is_some_and(|range| range.start <= clocks.start && clocks.end <= range.end)
    }

    /// The block of this update that holds the unit.
    fn find(&self, id: Id) -> Option<u32> {
        let section = self.update.sections.get(*self.sections.get(&id.client)? as usize)?;
        if id.clock < section.clock || id.clock >= section.end_clock {
            return None;
        }
        let blocks = self.update.blocks.get(section.blocks.start as usize..section.blocks.end as usize)?;
        let before = blocks.partition_point(|block| block.end_clock() <= id.clock);
        Some(section.blocks.start + before as u32)
    }
}

/// Whether it deletes something that is not in it, or is in it whole.
fn has_deletes_beyond(update: &Update) -> bool {
    let sections: HashMap<u64, &Section> = update.sections.iter().map(|section| (section.client, section)).collect();
    let is_beyond = |section: &Section, range: &Range<u32>| {
        if range.start < section.clock || range.end > section.end_clock {
            return true;
        }
        let blocks = update.blocks.get(section.blocks.start as usize..section.blocks.end as usize).unwrap_or_default();
        let first = section.blocks.start + blocks.partition_point(|block| block.end_clock() <= range.start) as u32;
        (first..section.blocks.end)
            .map_while(|at| update.view(section, at).filter(|view| view.block.clock < range.end))
            .any(|view| !view.kind().is_deleted())
    };
    update.delete_sections.iter().any(|deletes| match sections.get(&deletes.client) {
        Some(section) => update.delete_ranges(deletes).iter().any(|range| is_beyond(section, range)),
        None => true,
    })
}

/// What a block is cut into: nothing where it stays whole.
fn parts_of(view: &View<'_>, bytes_max: usize) -> Vec<Part> {
    let content = view.content();
    let mut parts = Vec::new();
    if content.len() <= bytes_max {
        return parts;
    }
    let mut add = |len: u32, bytes: Range<usize>| {
        let from = parts.last().map_or(0, |last: &Part| last.from + last.len);
        parts.push(Part { from, len, bytes });
    };
    match view.kind() {
        Kind::String => {
            let text = view.text();
            let mut start = 0;
            while start < text.len() {
                let end = text.floor_char_boundary(start + bytes_max); // far more than one character
                add(utf16_len(text.get(start..end).unwrap_or_default()) as u32, start..end);
                start = end;
            }
        }
        Kind::Any => {
            let mut values = Reader::new(content);
            let _ = values.read_var_uint(); // how many they are; it was read once before
            let (mut start, mut len) = (values.at(), 0);
            for _ in 0..view.block.len {
                let _ = skip_any(&mut values, usize::MAX); // as above
                len += 1;
                if values.at() - start >= bytes_max || values.is_empty() {
                    add(len, start..values.at());
                    (start, len) = (values.at(), 0);
                }
            }
        }
        _ => {}
    }
    parts
}

/// What goes into one piece, in order.
#[derive(Debug, Default)]
struct Steps {
    steps: Vec<Step>,
    bytes: usize,
}

/// Blocks of one section next to each other, or a part of one block.
#[derive(Clone, Debug)]
struct Step {
    section: u32,
    blocks: Range<u32>,
    part: Option<Part>,
}

impl Steps {
    fn add(&mut self, step: Step, bytes: usize) {
        self.bytes += bytes;
        match self.steps.last_mut() {
            Some(last)
                if last.section == step.section
                    && last.part.is_none()
                    && step.part.is_none()
                    && last.blocks.end == step.blocks.start =>
            {
                last.blocks.end = step.blocks.end;
            }
            Some(last) if last.section == step.section => self.steps.push(step),
            _ => {
                self.bytes += SECTION_BYTES;
                self.steps.push(step);
            }
        }
    }
}

struct Packer<'a> {
    update: &'a Update,
    bytes_max: usize,
    pieces: Vec<Bytes>,
    /// The next piece.
    piece: Steps,
    /// What appears together, as far as it has come.
    atom: Steps,
}

impl Packer<'_> {
    fn add(&mut self, section: u32, block: u32, part: Option<Part>) {
        let step = Step { section, blocks: block..block + 1, part };
        let bytes = self.bytes_of(&step);
        self.atom.add(step, bytes);
    }

    fn bytes_of(&self, step: &Step) -> usize {
        if let Some(part) = &step.part {
            return part.bytes.len() + SECTION_BYTES;
        }
        let Some(section) = self.update.sections.get(step.section as usize) else { return 0 };
        let start = self.update.blocks.get(step.blocks.start as usize).map_or(0, |block| block.at);
        (self.update.block_end(section, step.blocks.end - 1) - start) as usize
    }

    /// Nothing is open: what has come may appear.
    fn close_atom(&mut self) {
        let atom = std::mem::take(&mut self.atom);
        if self.piece.bytes + atom.bytes > self.bytes_max {
            self.close_piece();
        }
        if atom.bytes > self.bytes_max {
            if let [only] = atom.steps.as_slice()
                && only.blocks.len() == 1
            {
                return self.write(&atom.steps, &[]); // nothing has to wait for it, or for a part of it
            }
            return self.write_together(atom.steps, &[]);
        }
        for step in atom.steps {
            let bytes = self.bytes_of(&step);
            self.piece.add(step, bytes);
        }
    }

    fn close_piece(&mut self) {
        let piece = std::mem::take(&mut self.piece);
        self.write(&piece.steps, &[]);
    }

    /// Writes what appears at one moment in several pieces: the first unit of each client comes last.
    fn write_together(&mut self, steps: Vec<Step>, deletes: &[(u64, Vec<Range<u32>>)]) {
        let mut first = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut piece = Steps::default();
        for step in steps {
            let rest = if seen.insert(step.section) {
                let (withheld, rest) = self.withhold(step);
                first.push(withheld);
                rest
            } else {
                vec![step]
            };
            for step in rest.into_iter().flat_map(single_blocks) {
                let bytes = self.bytes_of(&step);
                if piece.bytes + bytes > self.bytes_max {
                    self.write(&std::mem::take(&mut piece).steps, &[]);
                }
                piece.add(step, bytes);
            }
        }
        self.write(&piece.steps, &[]);
        self.write(&first, deletes);
    }

    /// The beginning of a step, as little as can be, and the rest.
    fn withhold(&self, step: Step) -> (Step, Vec<Step>) {
        let Step { section, blocks, part } = step;
        let whole = Step { section, blocks: blocks.start..blocks.start + 1, part };
        let mut rest = Vec::new();
        let first = if whole.part.is_none() && self.bytes_of(&whole) > WITHHELD_BYTES_MAX.min(self.bytes_max) {
            self.split_first(&whole)
        } else {
            None
        };
        let withheld = match first {
            Some((first, others)) => {
                rest.push(Step { part: Some(others), ..whole.clone() });
                Step { part: Some(first), ..whole }
            }
            None => whole,
        };
        if blocks.start + 1 < blocks.end {
            rest.push(Step { section, blocks: blocks.start + 1..blocks.end, part: None });
        }
        (withheld, rest)
    }

    /// The first character of a text, and the others.
    fn split_first(&self, step: &Step) -> Option<(Part, Part)> {
        let section = self.update.sections.get(step.section as usize)?;
        let view = self.update.view(section, step.blocks.start).filter(|view| view.kind() == Kind::String)?;
        let text = view.text();
        let first = text.chars().next()?;
        let (len, bytes) = (first.len_utf16() as u32, first.len_utf8());
        (bytes < text.len()).then(|| {
            let others = Part { from: len, len: view.block.len - len, bytes: bytes..text.len() };
            (Part { from: 0, len, bytes: 0..bytes }, others)
        })
    }

    /// Writes one piece: each section's steps follow one another.
    fn write(&mut self, steps: &[Step], deletes: &[(u64, Vec<Range<u32>>)]) {
        if steps.is_empty() && deletes.is_empty() {
            return;
        }
        let mut by_section: HashMap<u32, Vec<&Step>> = HashMap::new();
        for step in steps {
            by_section.entry(step.section).or_default().push(step);
        }
        let mut sections: Vec<(&Section, Vec<&Step>)> = by_section
            .into_iter()
            .filter_map(|(at, steps)| Some((self.update.sections.get(at as usize)?, steps)))
            .collect();
        sections.sort_unstable_by_key(|(section, _)| std::cmp::Reverse(section.client));
        let mut bytes = Vec::new();
        write_var_uint(&mut bytes, sections.len() as u64);
        for (section, steps) in sections {
            let mut clock = 0;
            if let Some(first) = steps.first()
                && let Some(block) = self.update.blocks.get(first.blocks.start as usize)
            {
                clock = block.clock + first.part.as_ref().map_or(0, |part| part.from);
            }
            write_var_uint(&mut bytes, steps.iter().map(|step| u64::from(step.blocks.end - step.blocks.start)).sum());
            write_var_uint(&mut bytes, section.client);
            write_var_uint(&mut bytes, u64::from(clock));
            for step in steps {
                match &step.part {
                    None => {
                        let whole = BlockRange { blocks: step.blocks.clone(), offset: 0 };
                        write_blocks(&mut bytes, self.update, section, &whole);
                    }
                    Some(part) => {
                        if let Some(view) = self.update.view(section, step.blocks.start) {
                            write_part(&mut bytes, section.client, view, part);
                        }
                    }
                }
            }
        }
        write_deletes(&mut bytes, deletes);
        self.pieces.push(bytes.into());
    }

    fn finish(mut self, is_whole: bool) -> Vec<Bytes> {
        let deletes: Vec<_> = self
            .update
            .delete_sections
            .iter()
            .map(|section| (section.client, self.update.delete_ranges(section).to_vec()))
            .collect();
        if is_whole {
            let atom = std::mem::take(&mut self.atom);
            self.write_together(atom.steps, &deletes);
            return self.pieces;
        }
        self.close_atom();
        self.close_piece();
        // Two numbers of five bytes at most.
        let ranges_max = (self.bytes_max / 10).max(1);
        let (mut some, mut count) = (Vec::new(), 0);
        for (client, ranges) in deletes {
            let mut ranges = ranges.as_slice();
            while !ranges.is_empty() {
                if count >= ranges_max {
                    self.write(&[], &some);
                    (some, count) = (Vec::new(), 0);
                }
                let (now, later) = ranges.split_at((ranges_max - count).min(ranges.len()));
                some.push((client, now.to_vec()));
                count += now.len() + 1;
                ranges = later;
            }
        }
        let mut last = vec![0];
        write_deletes(&mut last, &some);
        self.pieces.push(last.into());
        self.pieces
    }
}

fn single_blocks(step: Step) -> impl Iterator<Item = Step> {
    let Step { section, blocks, part } = step;
    blocks.map(move |block| Step { section, blocks: block..block + 1, part: part.clone() })
}
