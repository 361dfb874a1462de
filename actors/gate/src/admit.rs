//! Admission: which part of an update follows on what the log holds.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::ops::Range;

use bytes::Bytes;

use crate::block::{Id, Kind};
use crate::caps::Caps;
use crate::encode::{self, BlockRange};
use crate::index::{Delta, Index, Prefix};
use crate::state_vector::StateVector;
use crate::update::{Section, Update};

/// What became of an update.
#[derive(Clone, Debug)]
pub struct Admission {
    /// What is new and follows on: this, and nothing else, goes into the log.
    pub content: Content,
    /// New blocks in `content`: client and clocks.
    pub added: Vec<(u64, Range<u64>)>,
    /// Blocks that the log holds already, for the comparison with [`Recent`](crate::Recent).
    pub trimmed: Vec<Known>,
    /// What the part that was left out waits for.
    pub missing: Option<Missing>,
    /// Clients whose new blocks were left out because `may_write` said no.
    pub withheld: Vec<u64>,
}

/// The admitted part of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing is new, or nothing follows on.
    Nothing,
    /// All of it: the incoming bytes as they are.
    Whole,
    /// A part of it, encoded anew.
    Part(Bytes),
}

/// Blocks of an update that the log holds already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whose blocks.
    pub client: u64,
    /// The clocks that are known.
    pub clocks: Range<u64>,
    pub(crate) section: u32,
    pub(crate) blocks: Range<u32>,
}

/// What an update waits for: it can be taken in once each of these clients is known up to that clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Client and the clock that must be known, exclusive; clients in ascending order.
    pub clocks: Vec<(u64, u64)>,
}

impl Missing {
    /// Whether `index` lacks nothing of it any more.
    pub fn is_met_by(&self, index: &Index) -> bool {
        self.clocks.iter().all(|&(client, clock)| index.next_clock(client) >= clock)
    }

    /// The same as a state vector.
    pub fn state_vector(&self) -> StateVector {
        self.clocks.iter().copied().collect()
    }
}

/// Why an update that was parsed is refused as a whole. Nothing of it is admitted, and no honest client sends such a one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// Blocks that wait for each other.
    #[error("blocks of several clients refer to each other in a circle")]
    Circular,
    /// The document would have more clients than the cap.
    #[error("the document would have more than {max} clients")]
    TooManyClients {
        /// The cap.
        max: usize,
    },
}

/// Decides what of `update` follows on `index` and what stands before it in the batch, and adds that to `delta`.
///
/// Blocks that are known are trimmed, a block that is known in part is split as Yjs splits it. At a gap, which a reference to
/// an unknown block or a delete beyond the known clock is too, what follows on is admitted and the rest reported in
/// [`Admission::missing`]. `may_write` is asked once for each client with new blocks. `index` is not changed; when the update is
/// refused, `delta` is not either.
pub fn admit(
    index: &Index,
    delta: &mut Delta,
    update: &Update,
    caps: &Caps,
    may_write: &mut dyn FnMut(u64) -> bool,
) -> Result<Admission, Refused> {
    let prefix = Prefix { index, delta };
    let mut walk = Walk::new(prefix, update);
    walk.trim(may_write);
    walk.follow()?;
    let deletes = walk.deletes();
    let added = walk.added();

    // Counting is worth its time only where the cap is near.
    if index.clients_len() + prefix.delta.clients_len() + added.len() > caps.document_clients_max
        && prefix.clients_with(added.iter().map(|(client, _)| *client)) > caps.document_clients_max
    {
        return Err(Refused::TooManyClients { max: caps.document_clients_max });
    }

    let parts = walk.parts();
    let content = if parts.is_empty() && deletes.ranges.iter().all(|(_, ranges)| ranges.is_empty()) {
        Content::Nothing
    } else if deletes.are_whole && update.is_plain && walk.is_whole() {
        Content::Whole
    } else {
        Content::Part(encode::part_of(update, &parts, &deletes.ranges))
    };
    let Walk { trimmed, withheld, missing, gone, .. } = walk;

    for (client, clocks) in &added {
        delta.add_blocks(*client, clocks.end as u32);
    }
    for (client, range) in gone.into_iter().chain(deletes.into_iter()) {
        delta.add_deleted(client, range);
    }
    let missing = (!missing.is_empty())
        .then(|| Missing { clocks: missing.into_iter().map(|(client, clock)| (client, u64::from(clock))).collect() });
    Ok(Admission { content, added, trimmed, missing, withheld })
}

/// The way through an update, all sections at once: each goes on until it needs a block that is not known yet.
struct Walk<'a> {
    prefix: Prefix<'a>,
    update: &'a Update,
    steps: Vec<Step>,
    /// Sections by client; left empty where looking through the sections is quicker.
    by_client: HashMap<u64, u32>,
    /// For a section the others that wait for it, by the clock that they need.
    waiting: HashMap<u32, BinaryHeap<Reverse<(u32, u32)>>>,
    trimmed: Vec<Known>,
    withheld: Vec<u64>,
    missing: BTreeMap<u64, u32>,
    /// New blocks whose content is gone already.
    gone: Vec<(u64, Range<u32>)>,
}

/// How far a section came.
#[derive(Clone, Debug)]
struct Step {
    /// The first block that is not known in full.
    first: u32,
    /// Units of that block that are known.
    offset: u32,
    /// The next block to take in.
    cursor: u32,
    /// Known up to here, what was taken in included.
    next: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Going,
    Waiting,
    /// At its end, or at a gap.
    Stopped,
}

/// More sections than this are looked up in a table.
const LOOK_THROUGH_MAX: usize = 8;

enum Reference {
    Known,
    ComesWith(u32),
    Unknown,
}

struct Deletes {
    ranges: Vec<(u64, Vec<Range<u32>>)>,
    are_whole: bool,
}

impl Deletes {
    fn into_iter(self) -> impl Iterator<Item = (u64, Range<u32>)> {
        self.ranges.into_iter().flat_map(|(client, ranges)| ranges.into_iter().map(move |range| (client, range)))
    }
}

impl<'a> Walk<'a> {
    fn new(prefix: Prefix<'a>, update: &'a Update) -> Self {
        let mut by_client = HashMap::new();
        if update.sections.len() > LOOK_THROUGH_MAX {
            by_client.extend(update.sections.iter().zip(0..).map(|(section, at)| (section.client, at)));
        }
        Self {
            prefix,
            update,
            steps: Vec::with_capacity(update.sections.len()),
            by_client,
            waiting: HashMap::new(),
            trimmed: Vec::new(),
            withheld: Vec::new(),
            missing: BTreeMap::new(),
            gone: Vec::new(),
        }
    }

    /// Leaves out what is known, and finds where each section follows on, if it does.
    fn trim(&mut self, may_write: &mut dyn FnMut(u64) -> bool) {
        for (section, at) in self.update.sections.iter().zip(0..) {
            let next = self.prefix.next(section.client);
            let first = self.first_unknown(section, next);
            if section.clock < next {
                let clocks = u64::from(section.clock)..u64::from(section.end_clock.min(next));
                let mut blocks = section.blocks.start..first;
                let block = self.update.blocks.get(first as usize);
                if first < section.blocks.end && block.is_some_and(|block| block.clock < next) {
                    blocks.end += 1;
                }
                self.trimmed.push(Known { client: section.client, clocks, section: at, blocks });
            }
            let mut step = Step { first, offset: 0, cursor: first, next, state: State::Stopped };
            if let Some(block) = self.update.blocks.get(first as usize).filter(|_| first < section.blocks.end) {
                if block.clock > next {
                    self.missing(section.client, block.clock);
                } else if self.update.view(section, first).is_some_and(|view| view.kind() == Kind::Skip) {
                    self.missing_after_skip(section, first);
                } else if may_write(section.client) {
                    step.offset = next - block.clock;
                    step.state = State::Going;
                } else {
                    self.withheld.push(section.client);
                }
            }
            self.steps.push(step);
        }
    }

    /// The first block that ends beyond `next`.
    fn first_unknown(&self, section: &Section, next: u32) -> u32 {
        if section.clock >= next {
            return section.blocks.start;
        }
        let blocks = self.update.blocks.get(section.blocks.start as usize..section.blocks.end as usize);
        let known = blocks.unwrap_or_default().partition_point(|block| block.end_clock() <= next);
        section.blocks.start + known as u32
    }

    /// Takes blocks in until nothing goes on.
    fn follow(&mut self) -> Result<(), Refused> {
        let going = self.steps.iter().zip(0..).filter(|(step, _)| step.state == State::Going);
        // The last first: clients with low ids stand last, and tend to be the older ones.
        let mut ready: Vec<u32> = going.map(|(_, at)| at).collect();
        while let Some(at) = ready.pop() {
            self.follow_section(at, &mut ready);
        }
        // Whoever waits now waits for somebody who waits.
        if self.steps.iter().any(|step| step.state == State::Waiting) { Err(Refused::Circular) } else { Ok(()) }
    }

    fn follow_section(&mut self, at: u32, ready: &mut Vec<u32>) {
        let Some(section) = self.update.sections.get(at as usize) else { return };
        let Some(mut step) = self.steps.get(at as usize).cloned() else { return };
        step.state = State::Going;
        while step.state == State::Going {
            if step.cursor >= section.blocks.end {
                step.state = State::Stopped;
                break;
            }
            let Some(view) = self.update.view(section, step.cursor) else { break };
            let kind = view.kind();
            if kind == Kind::Skip {
                self.missing_after_skip(section, step.cursor);
                step.state = State::Stopped;
                break;
            }
            // The right half of a split block refers to its left half, which is known; its right origin was known with it.
            let is_split = step.cursor == step.first && step.offset > 0;
            if !is_split && let Some(place) = view.place() {
                for id in place.references().into_iter().flatten() {
                    match self.reference(id, section.client) {
                        Reference::Known => {}
                        Reference::ComesWith(other) => {
                            self.waiting.entry(other).or_default().push(Reverse((id.clock + 1, at)));
                            step.state = State::Waiting;
                            break;
                        }
                        Reference::Unknown => {
                            self.missing(id.client, id.clock + 1);
                            step.state = State::Stopped;
                            break;
                        }
                    }
                }
                if step.state != State::Going {
                    break;
                }
            }
            if kind.is_deleted() {
                self.gone.push((section.client, step.next..view.block.end_clock()));
            }
            step.next = view.block.end_clock();
            step.cursor += 1;
            if !self.waiting.is_empty() {
                self.wake(at, Some(step.next), ready);
            }
        }
        if step.state == State::Stopped && !self.waiting.is_empty() {
            // They look again, and find that it does not come.
            self.wake(at, None, ready);
        }
        if let Some(kept) = self.steps.get_mut(at as usize) {
            *kept = step;
        }
    }

    /// Lets those go on who waited for `section` to reach a clock up to `through`, or all of them.
    fn wake(&mut self, section: u32, through: Option<u32>, ready: &mut Vec<u32>) {
        let Some(waiting) = self.waiting.get_mut(&section) else { return };
        while let Some(&Reverse((needed, waiter))) = waiting.peek() {
            if through.is_some_and(|through| needed > through) {
                return;
            }
            waiting.pop();
            ready.push(waiter);
        }
        self.waiting.remove(&section);
    }

    /// Whether the block `id` that a block of `client` refers to is there.
    fn reference(&self, id: Id, client: u64) -> Reference {
        // What a block refers to in its own section stands before it: the parser saw to that.
        let Some(at) = self.section_of(id.client) else {
            return if id.clock < self.prefix.next(id.client) { Reference::Known } else { Reference::Unknown };
        };
        if id.client == client {
            return Reference::Known;
        }
        let (Some(section), Some(step)) = (self.update.sections.get(at as usize), self.steps.get(at as usize)) else {
            return Reference::Unknown;
        };
        if id.clock < step.next {
            Reference::Known
        } else if step.state != State::Stopped && id.clock < section.end_clock {
            Reference::ComesWith(at)
        } else {
            Reference::Unknown
        }
    }

    fn section_of(&self, client: u64) -> Option<u32> {
        if self.update.sections.len() > LOOK_THROUGH_MAX {
            return self.by_client.get(&client).copied();
        }
        self.update.sections.iter().position(|section| section.client == client).map(|at| at as u32)
    }

    /// How far `client` is known once this update is in.
    fn next_after(&self, client: u64) -> u32 {
        let step = self.section_of(client).and_then(|at| self.steps.get(at as usize));
        step.map_or_else(|| self.prefix.next(client), |step| step.next)
    }

    /// The delete ranges that are new, as far as their clocks are known.
    fn deletes(&mut self) -> Deletes {
        let mut deletes = Deletes { ranges: Vec::with_capacity(self.update.delete_sections.len()), are_whole: true };
        for section in &self.update.delete_sections {
            let next = self.next_after(section.client);
            let ranges = self.update.delete_ranges(section);
            let mut fresh = Vec::with_capacity(ranges.len());
            for range in ranges {
                if range.end > next {
                    self.missing(section.client, range.end);
                }
                let known = range.start..range.end.min(next);
                if !known.is_empty() {
                    self.prefix.undeleted(section.client, known, |part| fresh.push(part));
                }
            }
            deletes.are_whole &= fresh == ranges;
            deletes.ranges.push((section.client, fresh));
        }
        deletes
    }

    fn added(&self) -> Vec<(u64, Range<u64>)> {
        let taken = self.update.sections.iter().zip(&self.steps).filter(|(_, step)| step.cursor > step.first);
        taken
            .map(|(section, step)| {
                let first =
                    self.update.blocks.get(step.first as usize).map_or(step.next, |block| block.clock + step.offset);
                (section.client, u64::from(first)..u64::from(step.next))
            })
            .collect()
    }

    fn parts(&self) -> Vec<(&'a Section, BlockRange)> {
        let taken = self.update.sections.iter().zip(&self.steps).filter(|(_, step)| step.cursor > step.first);
        taken
            .map(|(section, step)| (section, BlockRange { blocks: step.first..step.cursor, offset: step.offset }))
            .collect()
    }

    /// Whether every block was taken in.
    fn is_whole(&self) -> bool {
        self.update.sections.iter().zip(&self.steps).all(|(section, step)| {
            step.first == section.blocks.start && step.offset == 0 && step.cursor == section.blocks.end
        })
    }

    fn missing(&mut self, client: u64, clock: u32) {
        let needed = self.missing.entry(client).or_insert(clock);
        *needed = clock.max(*needed);
    }

    /// Where blocks stand behind a Skip, they wait for what it stands for.
    fn missing_after_skip(&mut self, section: &Section, skip: u32) {
        if let Some(next) = self.update.blocks.get(skip as usize + 1).filter(|_| skip + 1 < section.blocks.end) {
            self.missing(section.client, next.clock);
        }
    }
}
