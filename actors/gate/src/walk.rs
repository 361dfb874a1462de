//! The way through an update: what of it is known, what follows on, and what has to wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::ops::Range;

use crate::admit::{Known, Refused};
use crate::block::{Id, Kind, Links, Parent};
use crate::encode::BlockRange;
use crate::index::{Delta, Prefix};
use crate::malformed::Rule;
use crate::place::{Place, Role, Run, Runs};
use crate::switches::{Check, is_on};
use crate::update::{Section, Update};

/// The way through an update, all sections at once: each goes on until it needs a block that is not known yet.
pub(crate) struct Walk<'d, 'a> {
    prefix: Prefix<'d>,
    update: &'a Update,
    steps: Vec<Step>,
    /// Sections by client; left empty where looking through the sections is quicker.
    by_client: HashMap<u64, u32>,
    /// For a section the others that wait for it, by the clock that they need.
    waiting: HashMap<u32, BinaryHeap<Reverse<(u32, u32)>>>,
    pub trimmed: Vec<Known>,
    pub withheld: Vec<u64>,
    pub missing: BTreeMap<u64, u32>,
    pub taken: Taken<'a>,
    /// How deep types may be nested; without it nothing is checked.
    type_depth_max: Option<usize>,
}

/// What the new blocks that were taken in add.
pub(crate) struct Taken<'a> {
    /// For each section of the update its new units.
    sections: Vec<Units>,
    /// Blocks whose content is gone already.
    pub gone: Vec<(u64, Range<u32>)>,
    /// Names that have no number yet, with the number that they get.
    names: HashMap<&'a str, u32>,
}

/// New units of one section.
#[derive(Clone, Debug, Default)]
struct Units {
    /// The clock after the last.
    next: u32,
    runs: Runs,
}

impl Taken<'_> {
    /// Adds it to `delta`; `update` is where it was taken from.
    pub fn add_to(self, update: &Update, delta: &mut Delta) {
        delta.reserve_clients(self.sections.iter().filter(|units| units.next > 0).count());
        for (section, units) in update.sections.iter().zip(self.sections).filter(|(_, units)| units.next > 0) {
            delta.add_blocks(section.client, units.next, units.runs);
        }
        for (client, range) in self.gone {
            delta.add_deleted(client, range);
        }
        for (name, number) in self.names {
            delta.add_name(name, number);
        }
    }
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

pub(crate) struct Deletes {
    pub ranges: Vec<(u64, Vec<Range<u32>>)>,
    pub are_whole: bool,
}

impl Deletes {
    pub fn into_iter(self) -> impl Iterator<Item = (u64, Range<u32>)> {
        self.ranges.into_iter().flat_map(|(client, ranges)| ranges.into_iter().map(move |range| (client, range)))
    }
}

impl<'d, 'a> Walk<'d, 'a> {
    pub fn new(prefix: Prefix<'d>, update: &'a Update, type_depth_max: Option<usize>) -> Self {
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
            taken: Taken {
                sections: vec![Units::default(); update.sections.len()],
                gone: Vec::new(),
                names: HashMap::new(),
            },
            type_depth_max,
        }
    }

    /// Leaves out what is known, and finds where each section follows on, if it does.
    pub fn trim(&mut self, may_write: &mut dyn FnMut(u64) -> bool) {
        for (section, at) in self.update.sections.iter().zip(0..) {
            let mut next = self.prefix.next(section.client);
            if !is_on(Check::Known) {
                next = next.min(section.clock);
            }
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
                if block.clock > next && !is_on(Check::Gap) {
                    step.next = block.clock;
                    step.state = State::Going;
                } else if block.clock > next {
                    self.missing(section.client, block.clock);
                } else if self.is_gap(section, first) {
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
    pub fn follow(&mut self) -> Result<(), Refused> {
        let going = self.steps.iter().zip(0..).filter(|(step, _)| step.state == State::Going);
        // The last first: clients with low ids stand last, and tend to be the older ones.
        let mut ready: Vec<u32> = going.map(|(_, at)| at).collect();
        while let Some(at) = ready.pop() {
            self.follow_section(at, &mut ready)?;
        }
        // Whoever waits now waits for somebody who waits.
        if self.steps.iter().any(|step| step.state == State::Waiting) { Err(Refused::Circular) } else { Ok(()) }
    }

    fn follow_section(&mut self, at: u32, ready: &mut Vec<u32>) -> Result<(), Refused> {
        let Some(section) = self.update.sections.get(at as usize) else { return Ok(()) };
        let Some(mut step) = self.steps.get(at as usize).cloned() else { return Ok(()) };
        step.state = State::Going;
        while step.state == State::Going {
            if step.cursor >= section.blocks.end {
                step.state = State::Stopped;
                break;
            }
            let Some(view) = self.update.view(section, step.cursor) else { break };
            let kind = view.kind();
            if self.is_gap(section, step.cursor) {
                self.missing_after_skip(section, step.cursor);
                step.state = State::Stopped;
                break;
            }
            let mut links = view.links();
            if step.cursor == step.first
                && step.offset > 0
                && let Some(links) = &mut links
            {
                // What is left of a split block stands behind its left half; the right origin is the sender's claim.
                links.origin = Some(Id { client: section.client, clock: step.next - 1 });
                (links.parent, links.key) = (Parent::OfOrigin, None);
            }
            if let Some(links) = links {
                for id in links.references().into_iter().flatten() {
                    match self.reference(id, section.client) {
                        Reference::Known => {}
                        Reference::Unknown if !is_on(Check::Reference) => {}
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
            let place = links.map_or(Ok(Place::GONE), |links| self.locate(&links))?;
            self.stand(at, step.next..view.block.end_clock(), kind, place)?;
            if kind.is_deleted() {
                self.taken.gone.push((section.client, step.next..view.block.end_clock()));
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
        Ok(())
    }

    /// Where a block stands whose references are all known.
    fn locate(&mut self, links: &Links<'a>) -> Result<Place, Refused> {
        let key = links.key.map_or(0, |key| self.name(key));
        match links.parent {
            Parent::Root(name) => Ok(Place::in_root(self.name(name), key)),
            Parent::Item(id) => match self.unit(id).role {
                Role::Type => Ok(Place::in_item(id, key)),
                // An offline edit inside something that was deleted meanwhile.
                Role::Gone | Role::Deleted => Ok(Place::GONE),
                Role::Plain => self.refuse(Refused::ParentNotAType, Check::ParentNotAType),
            },
            Parent::OfOrigin => {
                let place = |id: Option<Id>| id.map(|id| self.unit(id).place);
                match (place(links.origin), place(links.right_origin)) {
                    (Some(left), Some(right)) if self.are_apart(left, right) => {
                        self.refuse(Refused::DifferentPlaces, Check::DifferentPlaces)
                    }
                    (Some(gone), Some(place)) if gone.is_gone() => Ok(place),
                    (Some(place), _) | (None, Some(place)) => Ok(place),
                    (None, None) => Ok(Place::GONE),
                }
            }
        }
    }

    /// Notes where the units of `clocks` stand, if they may stand there.
    fn stand(&mut self, at: u32, clocks: Range<u32>, kind: Kind, place: Place) -> Result<(), Refused> {
        if place.has_key() && !self.fits_key(at, &clocks, kind) {
            self.refuse(Refused::UnfitForKey, Check::UnfitForKey)?;
        }
        let mut depth = 0;
        if kind == Kind::Type {
            depth = place.item().map_or(0, |item| self.unit(item).depth).saturating_add(1);
            if let Some(max) = self.type_depth_max.filter(|max| usize::from(depth) > *max && is_on(Check::TypesTooDeep))
            {
                return Err(Refused::TypesTooDeep { max });
            }
        }
        if let Some(units) = self.taken.sections.get_mut(at as usize) {
            units.runs.push(Run { place, clock: clocks.start, role: Role::of(kind), depth });
            units.next = clocks.end;
        }
        Ok(())
    }

    /// Whether content may stand under a key. Several values in one block do so only where an honest client joined entries that
    /// are deleted, all of them; else the next entry cuts the block, and what is left of the cut is deleted by whoever loads the
    /// document but not by who has it in memory.
    fn fits_key(&self, at: u32, clocks: &Range<u32>, kind: Kind) -> bool {
        match kind {
            Kind::String | Kind::Format => false,
            Kind::Any if clocks.len() > 1 => {
                let section = self.update.sections.get(at as usize);
                section.is_some_and(|section| self.update.are_deleted(section.client, clocks))
            }
            _ => true,
        }
    }

    fn refuse(&self, refused: Refused, check: Check) -> Result<Place, Refused> {
        if self.type_depth_max.is_some() && is_on(check) { Err(refused) } else { Ok(Place::GONE) }
    }

    /// Whether two origins cannot stand side by side. One is collected and the other not only inside something deleted, which
    /// one client collected before the other.
    fn are_apart(&self, left: Place, right: Place) -> bool {
        match (left.is_gone(), right.is_gone()) {
            (true, true) => false,
            (false, false) => left != right,
            (true, false) => !right.item().is_some_and(|item| self.is_deleted(item)),
            (false, true) => !left.item().is_some_and(|item| self.is_deleted(item)),
        }
    }

    /// Whether an item is deleted, here or by this update.
    fn is_deleted(&self, item: Id) -> bool {
        let clocks = item.clock..item.clock + 1;
        let mut is_undeleted = false;
        self.prefix.undeleted(item.client, clocks.clone(), |_| is_undeleted = true);
        !is_undeleted || self.update.are_deleted(item.client, &clocks)
    }

    /// Whether a block stands for something that is not there.
    fn is_gap(&self, section: &Section, block: u32) -> bool {
        is_on(Check::Gap) && self.update.view(section, block).is_some_and(|view| view.kind() == Kind::Skip)
    }

    /// The run that holds a unit which is known or was taken in.
    pub fn unit(&self, id: Id) -> Run {
        let taken = self.section_of(id.client).and_then(|at| self.taken.sections.get(at as usize)?.runs.get(id.clock));
        taken.or_else(|| self.prefix.unit(id)).unwrap_or(Run::GONE)
    }

    fn name(&mut self, name: &'a str) -> u32 {
        if let Some(number) = self.prefix.name(name) {
            return number;
        }
        let next = (self.prefix.names_len() + self.taken.names.len()) as u32 + 1;
        *self.taken.names.entry(name).or_insert(next)
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
            if is_on(Check::Circular) { Reference::ComesWith(at) } else { Reference::Known }
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
    pub fn deletes(&mut self) -> Deletes {
        let mut deletes = Deletes { ranges: Vec::with_capacity(self.update.delete_sections.len()), are_whole: true };
        for section in &self.update.delete_sections {
            let next = self.next_after(section.client);
            let ranges = self.update.delete_ranges(section);
            let mut fresh = Vec::with_capacity(ranges.len());
            for range in ranges {
                let next = if is_on(Check::DeleteGap) { next } else { range.end };
                if range.end > next {
                    self.missing(section.client, range.end);
                }
                let known = range.start..range.end.min(next);
                if !known.is_empty() || !is_on(Check::Malformed(Rule::EmptyDelete)) {
                    self.prefix.undeleted(section.client, known, |part| fresh.push(part));
                }
            }
            deletes.are_whole &= fresh == ranges;
            deletes.ranges.push((section.client, fresh));
        }
        deletes
    }

    pub fn added(&self) -> Vec<(u64, Range<u64>)> {
        let taken = self.update.sections.iter().zip(&self.steps).filter(|(_, step)| step.cursor > step.first);
        taken
            .map(|(section, step)| {
                let first =
                    self.update.blocks.get(step.first as usize).map_or(step.next, |block| block.clock + step.offset);
                (section.client, u64::from(first)..u64::from(step.next))
            })
            .collect()
    }

    pub fn parts(&self) -> Vec<(&'a Section, BlockRange)> {
        let taken = self.update.sections.iter().zip(&self.steps).filter(|(_, step)| step.cursor > step.first);
        taken
            .map(|(section, step)| (section, BlockRange { blocks: step.first..step.cursor, offset: step.offset }))
            .collect()
    }

    /// Whether every block was taken in.
    pub fn is_whole(&self) -> bool {
        self.update.sections.iter().zip(&self.steps).all(|(section, step)| {
            step.first == section.blocks.start && step.offset == 0 && step.cursor == section.blocks.end
        })
    }

    /// What is left to say once everything is decided. The walk itself is given up, so that its memory does not stand beside
    /// the delta that now grows.
    pub fn finish(self) -> (Vec<Known>, Vec<u64>, BTreeMap<u64, u32>, Taken<'a>) {
        (self.trimmed, self.withheld, self.missing, self.taken)
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
