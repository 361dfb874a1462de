//! The order of a document's content, and what it costs yrs to take more of it in.
//!
//! Every list (the content of a type, the entries of a key) is kept as yrs keeps it: blocks from left to right, cut where yrs cuts them and
//! joined where it joins them. So the gate knows which of two units is to the left, and counts the steps that Yjs and yrs take to find
//! the place of a new block, before either of them takes a single one.
//!
//! A document that is only read has no order. It is made of the whole state when somebody first writes, takes in what is admitted, and
//! forgets it again when the batch is not written.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use crate::admit::Refused;
use crate::bisect::bisected;
use crate::block::{Id, Kind, Links, Parent};
use crate::cost::{Cost, Work};
use crate::crowd::Crowd;
use crate::encode::BlockRange;
use crate::index::Index;
use crate::place::Place;
use crate::switches::{Check, is_on};
use crate::update::{Section, Update};

mod taking;

use taking::Taking;

/// No block, and no client.
const NONE: u32 = u32::MAX;
/// So many clients are never a crowd.
const FEW: usize = 256;
/// The first label of a list, and how far apart labels are at its ends.
const LABEL_FIRST: u64 = 1 << 62;
const LABEL_GAP: u64 = 1 << 32;

/// A unit, by the number that its client has here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unit {
    client: u32,
    clock: u32,
}

impl Unit {
    const NONE: Self = Self { client: NONE, clock: NONE };

    fn is_some(self) -> bool {
        self.client != NONE
    }
}

/// What decides whether two blocks are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Text,
    Values,
    /// The content is gone.
    Deleted,
    /// One unit, which stands alone.
    Type,
    Single,
}

impl Class {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::String => Self::Text,
            Kind::Any => Self::Values,
            Kind::Deleted => Self::Deleted,
            Kind::Type => Self::Type,
            _ => Self::Single,
        }
    }

    fn is_joined(self) -> bool {
        matches!(self, Self::Text | Self::Values | Self::Deleted)
    }
}

/// A block in its list. The origin is that of its first unit.
#[derive(Clone, Copy, Debug)]
struct Block {
    at: Unit,
    len: u32,
    origin: Unit,
    right_origin: Unit,
    previous: u32,
    next: u32,
    list: u32,
    class: Class,
    /// Rises from left to right in each list.
    label: u64,
}

impl Block {
    const NOWHERE: Self = Self {
        at: Unit::NONE,
        len: 0,
        origin: Unit::NONE,
        right_origin: Unit::NONE,
        previous: NONE,
        next: NONE,
        list: NONE,
        class: Class::Single,
        label: 0,
    };

    fn last(&self) -> Unit {
        Unit { client: self.at.client, clock: self.at.clock + self.len.saturating_sub(1) }
    }
}

/// The content of a type that is no entry, or the entries of one key.
#[derive(Clone, Copy, Debug)]
struct List {
    place: Place,
    first: u32,
    len: u32,
    /// Bytes of the key; yrs hashes them for every entry.
    key_bytes: u32,
    has_key: bool,
    /// Another list of the same type.
    sibling: u32,
}

#[derive(Clone, Debug)]
struct Client {
    id: u64,
    /// The first clock and number of each of its blocks, in the order of clocks. What was collected is not among them.
    blocks: Vec<(u32, u32)>,
}

/// What is forgotten when a batch is not written, the last first.
#[derive(Clone, Copy, Debug)]
enum Step {
    Client,
    List,
    /// This block came, as the last of its client.
    Block(u32),
    /// The left half of a block that was cut.
    Cut(u32),
    /// A block was deleted that was of this class before.
    Deleted(u32, Class),
}

/// How far an [`Order`] had come; the default is its last commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    steps: usize,
    welcomed: usize,
}

/// The order of the content of one document. A block that yrs keeps takes 64 bytes here.
///
/// It belongs to an [`Index`](crate::Index) and what stands before in a batch: [`admit`](crate::admit()) takes in what it admits, and then either
/// [`commit`](Self::commit) or [`roll_back`](Self::roll_back) says what became of it.
#[derive(Clone, Debug, Default)]
pub struct Order {
    blocks: Vec<Block>,
    /// Numbers of blocks that are not in use.
    free: Vec<u32>,
    numbers: HashMap<u64, u32>,
    clients: Vec<Client>,
    places: HashMap<Place, u32>,
    lists: Vec<List>,
    /// The list of each type that was made last; the others follow as siblings.
    of_types: HashMap<Id, u32>,
    /// The clients that ever wrote, as yrs finds them, but for the first few.
    crowd: Crowd,
    /// Clients that ever wrote.
    writers: usize,
    steps: Vec<Step>,
    /// The clients that came since the last commit.
    welcomed: Vec<u64>,
}

impl Order {
    /// Of an empty document.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of a document whose whole state is `state`, of which `index` knows everything. Takes about as long as indexing it. The second is what it cost
    /// yrs to take the state in, by the same estimate as for an update.
    pub fn of_state(index: &Index, state: &Update) -> (Self, Cost) {
        let mut order = Self::new();
        let cost = order.follow(index, state);
        (order, cost)
    }

    /// Takes in an update that is in the log already and that `index` knows. Nothing of it is refused, and nothing is to be rolled back then.
    pub fn follow(&mut self, index: &Index, update: &Update) -> Cost {
        let parts: Vec<_> = update
            .sections
            .iter()
            .map(|section| (section, BlockRange { blocks: section.blocks.clone(), offset: 0 }))
            .collect();
        let deletes: Vec<_> = update
            .delete_sections
            .iter()
            .map(|section| (section.client, update.delete_ranges(section).to_vec()))
            .collect();
        let taken = self.take_in(update, &parts, &deletes, |id| index.place(id), None);
        self.commit();
        taken.unwrap_or_default()
    }

    /// What was taken in since the last commit stays.
    pub fn commit(&mut self) {
        self.welcomed.clear();
        // From the last to the first: what was written in one go is joined at the end of its client's blocks.
        while let Some(step) = self.steps.pop() {
            match step {
                Step::Block(at) => self.join_before(at),
                Step::Cut(at) => {
                    let right = self.block(at).next;
                    self.join_before(right);
                }
                Step::Deleted(at, _) => {
                    let next = self.after(at);
                    self.join_before(next);
                    self.join_before(at);
                }
                Step::Client | Step::List => {}
            }
        }
        self.shrink();
    }

    /// To come back to with [`roll_back`](Self::roll_back), unless there is a commit before.
    pub fn mark(&self) -> Mark {
        Mark { steps: self.steps.len(), welcomed: self.welcomed.len() }
    }

    /// Forgets what was taken in since.
    pub fn roll_back(&mut self, to: Mark) {
        let gone = self.welcomed.split_off(to.welcomed.min(self.welcomed.len()));
        self.writers -= gone.len();
        self.crowd.forget(gone.get(FEW.saturating_sub(self.writers)..).unwrap_or_default());
        while self.steps.len() > to.steps {
            match self.steps.pop() {
                Some(Step::Client) => {
                    if let Some(client) = self.clients.pop() {
                        self.numbers.remove(&client.id);
                    }
                }
                Some(Step::List) => {
                    if let Some(list) = self.lists.pop() {
                        self.places.remove(&list.place);
                        if let Some(item) = list.place.item() {
                            match list.sibling {
                                NONE => self.of_types.remove(&item),
                                sibling => self.of_types.insert(item, sibling),
                            };
                        }
                    }
                }
                Some(Step::Block(at)) => {
                    let block = self.block(at);
                    if let Some(client) = self.clients.get_mut(block.at.client as usize) {
                        client.blocks.pop();
                        if client.blocks.capacity() > 2 * room(client.blocks.len()) {
                            client.blocks.shrink_to(room(client.blocks.len()));
                        }
                    }
                    self.unlink(at);
                }
                Some(Step::Cut(left)) => {
                    let right = self.block(left).next;
                    self.join(left, right);
                }
                Some(Step::Deleted(at, class)) => self.change(at, |block| block.class = class),
                None => break,
            }
        }
        self.shrink();
    }

    /// What was refused or joined leaves not much more room behind than what stands needs: tables of twice their [`room`] are made smaller.
    fn shrink(&mut self) {
        if self.blocks.capacity() > 2 * room(self.blocks.len()) {
            self.blocks.shrink_to(room(self.blocks.len()));
            self.free.shrink_to(room(self.free.len()));
        }
        if self.lists.capacity() > 2 * room(self.lists.len()) {
            self.lists.shrink_to(room(self.lists.len()));
            self.places.shrink_to(room(self.places.len()));
            self.of_types.shrink_to(room(self.of_types.len()));
        }
        if self.clients.capacity() > 2 * room(self.clients.len()) {
            self.clients.shrink_to(room(self.clients.len()));
            self.numbers.shrink_to(room(self.numbers.len()));
        }
        if self.welcomed.capacity() > 2 * room(self.welcomed.len()) {
            self.welcomed.shrink_to(room(self.welcomed.len()));
        }
        if self.steps.capacity() > 2 * room(self.steps.len()) {
            self.steps.shrink_to(room(self.steps.len()));
        }
    }

    /// Bytes of memory in use, about.
    pub fn bytes(&self) -> usize {
        let blocks = self.blocks.capacity() * size_of::<Block>() + self.free.capacity() * 4 + self.blocks.len() * 8;
        let clients = self.clients.capacity() * (size_of::<Client>() + 16);
        let lists = self.lists.capacity() * (size_of::<List>() + 32);
        blocks + clients + lists + self.crowd.bytes() + self.steps.capacity() * size_of::<Step>()
    }

    /// For each list its units from left to right: client and clocks. For tests.
    #[cfg(feature = "switches")]
    #[doc(hidden)]
    pub fn layout(&self) -> Vec<Vec<(u64, Range<u32>)>> {
        let mut lists = Vec::new();
        for list in &self.lists {
            let mut units: Vec<(u64, Range<u32>)> = Vec::new();
            let mut at = list.first;
            while at != NONE {
                let block = self.block(at);
                let (client, clocks) = (self.id_of(block.at.client), block.at.clock..block.at.clock + block.len);
                match units.last_mut() {
                    Some((last, of_last)) if *last == client && of_last.end == clocks.start => of_last.end = clocks.end,
                    _ => units.push((client, clocks)),
                }
                at = block.next;
            }
            lists.push(units);
        }
        lists.sort_unstable_by_key(|units| units.first().map(|(client, clocks)| (*client, clocks.start)));
        lists
    }

    /// Takes in the parts and deletes of an update as yrs would, and answers what that costs yrs. With a bound in nanoseconds, an update is refused that
    /// costs more, or whose blocks stand where no honest client puts them; then nothing of it is left here.
    pub(crate) fn take_in<'a>(
        &mut self,
        update: &'a Update,
        parts: &[(&'a Section, BlockRange)],
        deletes: &[(u64, Vec<Range<u32>>)],
        place: impl Fn(Id) -> Place,
        bound_ms: Option<u64>,
    ) -> Result<Cost, Refused> {
        let mark = self.mark();
        let mut taking = Taking { order: self, update, place, bound_ms, work: Work::default() };
        let taken = taking.blocks(parts).and_then(|()| taking.deletes(deletes));
        taking.work.writers = taking.order.writers as u64;
        let cost = taking.work.cost();
        if taken.is_err() {
            self.roll_back(mark);
        }
        taken.map(|()| cost)
    }

    fn block(&self, at: u32) -> Block {
        self.blocks.get(at as usize).copied().unwrap_or(Block::NOWHERE)
    }

    fn change(&mut self, at: u32, change: impl FnOnce(&mut Block)) {
        if let Some(block) = self.blocks.get_mut(at as usize) {
            change(block);
        }
    }

    fn list(&self, at: u32) -> Option<List> {
        self.lists.get(at as usize).copied()
    }

    fn number(&mut self, client: u64) -> u32 {
        if let Some(number) = self.numbers.get(&client) {
            return *number;
        }
        let number = self.clients.len() as u32;
        self.numbers.insert(client, number);
        self.clients.push(Client { id: client, blocks: Vec::new() });
        self.steps.push(Step::Client);
        number
    }

    /// A client that has not written before. Answers how many others yrs meets where it looks for it.
    fn welcome(&mut self, client: u64) -> u64 {
        self.writers += 1;
        self.welcomed.push(client);
        if self.writers > FEW { self.crowd.insert(client) } else { 0 }
    }

    fn unit(&self, id: Id) -> Unit {
        let number = self.numbers.get(&id.client);
        number.map_or(Unit::NONE, |&client| Unit { client, clock: id.clock })
    }

    fn id_of(&self, number: u32) -> u64 {
        self.clients.get(number as usize).map_or(u64::MAX, |client| client.id)
    }

    /// The block that holds a unit, if it is in any list, and where that is among its client's.
    fn find(&self, unit: Unit) -> Option<(u32, usize)> {
        let blocks = &self.clients.get(unit.client as usize)?.blocks;
        let (mut index, mut found) = (blocks.len().checked_sub(1)?, *blocks.last()?);
        if found.0 > unit.clock {
            index = blocks.partition_point(|(clock, _)| *clock <= unit.clock).checked_sub(1)?;
            found = *blocks.get(index)?;
        }
        let block = self.block(found.1);
        (unit.clock - block.at.clock < block.len).then_some((found.1, index))
    }

    /// The block after this one among those of its client.
    fn after(&self, at: u32) -> u32 {
        let Some((_, index)) = self.find(self.block(at).at) else { return NONE };
        let client = self.clients.get(self.block(at).at.client as usize);
        client.and_then(|client| client.blocks.get(index + 1)).map_or(NONE, |(_, next)| *next)
    }

    /// Puts a block into a list behind `previous`, or first.
    fn link(&mut self, previous: u32, mut block: Block) -> u32 {
        block.previous = previous;
        block.next = match previous {
            NONE => self.list(block.list).map_or(NONE, |list| list.first),
            previous => self.block(previous).next,
        };
        block.label = self.label_between(previous, block.next);
        let at = match self.free.pop() {
            Some(at) => {
                self.change(at, |kept| *kept = block);
                at
            }
            None => {
                self.blocks.push(block);
                self.blocks.len() as u32 - 1
            }
        };
        self.change(block.next, |next| next.previous = at);
        self.change(previous, |previous| previous.next = at);
        if let Some(list) = self.lists.get_mut(block.list as usize) {
            list.len += 1;
            if previous == NONE {
                list.first = at;
            }
        }
        at
    }

    fn unlink(&mut self, at: u32) {
        let block = self.block(at);
        self.change(block.previous, |previous| previous.next = block.next);
        self.change(block.next, |next| next.previous = block.previous);
        if let Some(list) = self.lists.get_mut(block.list as usize) {
            list.len = list.len.saturating_sub(1);
            if block.previous == NONE {
                list.first = block.next;
            }
        }
        self.change(at, |block| *block = Block::NOWHERE);
        if at as usize + 1 == self.blocks.len() {
            self.blocks.pop();
        } else {
            self.free.push(at);
        }
    }

    /// A label for what comes between two neighbours. Where there is none, those to the right move: as many as leaves them far enough apart that it
    /// takes logarithmic time on the average (Dietz and Sleator).
    fn label_between(&mut self, previous: u32, next: u32) -> u64 {
        let low = if previous == NONE { 0 } else { self.block(previous).label };
        let high = if next == NONE { u64::MAX } else { self.block(next).label };
        let label = match (previous, next) {
            (NONE, NONE) => LABEL_FIRST,
            (_, NONE) if high - low > 2 * LABEL_GAP => low + LABEL_GAP,
            (NONE, _) if high > 2 * LABEL_GAP => high - LABEL_GAP,
            _ => low + (high - low) / 2,
        };
        if label > low && label < high {
            return label;
        }
        let (mut count, mut end) = (1u64, next);
        let room = loop {
            let high = if end == NONE { u64::MAX } else { self.block(end).label };
            if end == NONE || high - low > (count + 1).saturating_mul(count + 1) {
                break (high - low) / (count + 1);
            }
            (count, end) = (count + 1, self.block(end).next);
        };
        if room < 2 {
            return self.spread_all(previous, next); // at the end of all labels
        }
        let room = room.min(LABEL_GAP);
        let (label, mut moved_to, mut moved) = (low + room, low + room, next);
        while moved != end {
            moved_to += room;
            self.change(moved, |block| block.label = moved_to);
            moved = self.block(moved).next;
        }
        label
    }

    /// Labels a whole list anew, and answers the label that is free behind `previous`.
    fn spread_all(&mut self, previous: u32, next: u32) -> u64 {
        let mut first = if previous == NONE { next } else { previous };
        while self.block(first).previous != NONE {
            first = self.block(first).previous;
        }
        let (mut at, mut label, mut free) = (first, LABEL_FIRST / 2, LABEL_FIRST / 2);
        while at != NONE {
            label += LABEL_GAP / 2;
            self.change(at, |block| block.label = label);
            if at == previous {
                label += LABEL_GAP / 2;
                free = label;
            }
            at = self.block(at).next;
        }
        free
    }

    /// Cuts a block before a unit inside it. Answers the right half, and how many blocks of its client are behind it.
    fn cut(&mut self, at: u32, index: usize, clock: u32) -> (u32, usize) {
        let left = self.block(at);
        let offset = clock - left.at.clock;
        let right = Block {
            at: Unit { clock, ..left.at },
            len: left.len - offset,
            origin: Unit { clock: clock - 1, ..left.at },
            ..left
        };
        self.change(at, |block| block.len = offset);
        let right = self.link(at, right);
        let mut behind = 0;
        if let Some(client) = self.clients.get_mut(left.at.client as usize) {
            behind = client.blocks.len() - (index + 1).min(client.blocks.len());
            client.blocks.insert((index + 1).min(client.blocks.len()), (clock, right));
        }
        self.steps.push(Step::Cut(at));
        (right, behind)
    }

    /// Makes one block of two that are neighbours in their list and among their client's.
    fn join(&mut self, left: u32, right: u32) {
        let block = self.block(right);
        self.change(left, |left| left.len += block.len);
        if let Some((_, index)) = self.find(block.at)
            && let Some(client) = self.clients.get_mut(block.at.client as usize)
        {
            client.blocks.remove(index);
        }
        self.unlink(right);
    }

    /// Whether yrs joins these two at the end of a transaction.
    fn are_joined(&self, left: u32, right: u32) -> bool {
        let (one, other) = (self.block(left), self.block(right));
        one.next == right
            && right != NONE
            && one.class == other.class
            && one.class.is_joined()
            && one.at.client == other.at.client
            && one.at.clock + one.len == other.at.clock
            && other.origin == one.last()
            && one.right_origin == other.right_origin
    }

    fn join_before(&mut self, at: u32) {
        let left = self.block(at).previous;
        if left != NONE && self.are_joined(left, at) {
            self.join(left, at);
        }
    }
}

/// Room for so many and as many again.
fn room(len: usize) -> usize {
    2 * len + 64
}
