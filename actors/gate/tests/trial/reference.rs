//! What the gate promises of a row, looked at once more by the plainest code there is: a reader of its own, and a document as a
//! list of units. Slow, recursive and generous with memory, because it only ever sees small documents.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use contextnexus_gate::Caps;
use yrs::Any;

/// Client and clock.
pub type Id = (u64, u64);

/// A promise that is broken.
pub type Broken = String;

/// Where a unit stands: a root's name or the item of a type, and a key.
pub type Place = (Result<String, Id>, Option<String>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parent {
    OfOrigin,
    Root(String),
    Item(Id),
}

#[derive(Clone, Debug)]
pub struct Item {
    pub kind: u8,
    pub len: u64,
    pub origin: Option<Id>,
    pub right: Option<Id>,
    pub parent: Parent,
    pub key: Option<String>,
    /// The UTF-16 units of a text.
    pub text: Vec<u16>,
}

#[derive(Clone, Debug, Default)]
pub struct Row {
    pub sections: Vec<(u64, u64, Vec<Item>)>,
    pub deletes: Vec<(u64, Vec<(u64, u64)>)>,
}

struct Bytes<'a>(&'a [u8]);

fn broken<T>(what: &str) -> Result<T, Broken> {
    Err(what.to_owned())
}

impl Bytes<'_> {
    fn byte(&mut self) -> Result<u8, Broken> {
        let (first, rest) = self.0.split_first().ok_or("ends early")?;
        self.0 = rest;
        Ok(*first)
    }

    fn take(&mut self, len: u64) -> Result<&[u8], Broken> {
        if len > self.0.len() as u64 {
            return broken("ends early");
        }
        let (taken, rest) = self.0.split_at(len as usize);
        self.0 = rest;
        Ok(taken)
    }

    fn groups(&mut self, mut value: u128, mut shift: u32) -> Result<u64, Broken> {
        loop {
            let byte = self.byte()?;
            value |= u128::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                if byte == 0 {
                    return broken("a number is longer than it must be");
                }
                break;
            }
            shift += 7;
            if shift > 70 {
                return broken("a number beyond 2^53 - 1");
            }
        }
        if value < 1 << 53 { Ok(value as u64) } else { broken("a number beyond 2^53 - 1") }
    }

    fn uint(&mut self) -> Result<u64, Broken> {
        let first = self.byte()?;
        if first < 0x80 { Ok(first.into()) } else { self.groups((first & 0x7f).into(), 7) }
    }

    fn int(&mut self) -> Result<(), Broken> {
        let first = self.byte()?;
        if first >= 0x80 {
            self.groups((first & 0x3f).into(), 6)?;
        }
        Ok(())
    }

    fn text(&mut self) -> Result<String, Broken> {
        let len = self.uint()?;
        String::from_utf8(self.take(len)?.to_vec()).map_err(|_| "text is not UTF-8".to_owned())
    }

    fn clock(&mut self) -> Result<u64, Broken> {
        let clock = self.uint()?;
        if clock < 1 << 31 { Ok(clock) } else { broken("a clock beyond 2^31 - 1") }
    }

    fn len(&mut self) -> Result<u64, Broken> {
        match self.clock()? {
            0 => broken("a length of zero"),
            len => Ok(len),
        }
    }

    fn id(&mut self) -> Result<Id, Broken> {
        Ok((self.uint()?, self.clock()?))
    }

    fn any(&mut self, depth: usize) -> Result<u8, Broken> {
        let tag = self.byte()?;
        match tag {
            127 | 126 | 121 | 120 => {}
            125 => self.int()?,
            124 => drop(self.take(4)?),
            123 | 122 => drop(self.take(8)?),
            119 => drop(self.text()?),
            116 => {
                let len = self.uint()?;
                self.take(len)?;
            }
            117 | 118 => {
                if depth == 0 {
                    return broken("a value nested too deeply");
                }
                for _ in 0..self.uint()? {
                    if tag == 118 {
                        self.text()?;
                    }
                    self.any(depth - 1)?;
                }
            }
            _ => return broken("a value of no known kind"),
        }
        Ok(tag)
    }

    fn json(&mut self, caps: &Caps) -> Result<(), Broken> {
        fn depth(value: &Any) -> usize {
            match value {
                Any::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
                Any::Map(values) => 1 + values.values().map(depth).max().unwrap_or(0),
                _ => 0,
            }
        }
        let value = Any::from_json(&self.text()?).map_err(|_| "not JSON that yrs reads")?;
        if depth(&value) > caps.any_depth_max { broken("JSON nested too deeply") } else { Ok(()) }
    }

    fn item(&mut self, client: u64, clock: u64, caps: &Caps) -> Result<Item, Broken> {
        let info = self.byte()?;
        let mut item = Item {
            kind: info & 0x1f,
            len: 1,
            origin: None,
            right: None,
            parent: Parent::OfOrigin,
            key: None,
            text: Vec::new(),
        };
        if item.kind == 0 || item.kind == 10 {
            if info != item.kind {
                return broken("a collected block with links");
            }
            item.len = self.len()?;
            return if clock + item.len >= 1 << 31 { broken("a clock beyond 2^31 - 1") } else { Ok(item) };
        }
        if info & 0x80 != 0 {
            item.origin = Some(self.id()?);
        }
        if info & 0x40 != 0 {
            item.right = Some(self.id()?);
        }
        if info & 0xc0 == 0 {
            item.parent = match self.uint()? {
                1 => Parent::Root(self.text()?),
                0 => Parent::Item(self.id()?),
                _ => return broken("a parent of no known kind"),
            };
            if info & 0x20 != 0 {
                item.key = Some(self.text()?);
            }
        }
        let parent = if let Parent::Item(id) = item.parent { Some(id) } else { None };
        if [item.origin, item.right, parent].into_iter().flatten().any(|id| id.0 == client && id.1 >= clock) {
            return broken("a block refers to its own future");
        }
        if item.origin.is_some() && item.origin == item.right {
            return broken("origin and right origin are one");
        }
        if matches!(&item.parent, Parent::Root(name) if name.len() > caps.root_name_bytes_max) {
            return broken("a root's name is too long");
        }
        if item.key.as_ref().is_some_and(|key| key.len() > caps.map_key_bytes_max) {
            return broken("a key is too long");
        }
        match item.kind {
            1 => item.len = self.len()?,
            3 => {
                let len = self.uint()?;
                self.take(len)?;
            }
            4 => {
                item.text = self.text()?.encode_utf16().collect();
                item.len = item.text.len() as u64;
                if item.len == 0 {
                    return broken("a text of length zero");
                }
            }
            5 => self.json(caps)?,
            6 => {
                self.text()?;
                self.json(caps)?;
            }
            7 => match self.uint()? {
                0 | 1 | 2 | 4 | 6 => {}
                3 => drop(self.text()?),
                _ => return broken("a shared type that Yjs and yrs do not both read"),
            },
            8 => {
                item.len = self.len()?;
                for _ in 0..item.len {
                    self.any(caps.any_depth_max)?;
                }
            }
            9 => {
                self.text()?;
                if self.any(caps.any_depth_max)? != 118 {
                    return broken("options that are no map");
                }
            }
            _ => return broken("content that Yjs and yrs do not both read"),
        }
        if clock + item.len >= 1 << 31 { broken("a clock beyond 2^31 - 1") } else { Ok(item) }
    }
}

impl Row {
    /// Reads an update, and checks all that can be checked without a document.
    pub fn read(bytes: &[u8], caps: &Caps) -> Result<Row, Broken> {
        if bytes.len() > caps.update_bytes_max {
            return broken("larger than the cap");
        }
        let mut bytes = Bytes(bytes);
        let mut row = Row::default();
        for _ in 0..bytes.uint()? {
            let count = bytes.uint()?;
            let (client, first) = bytes.id()?;
            if count == 0 {
                return broken("a section without blocks");
            }
            if row.sections.iter().any(|section| section.0 == client) {
                return broken("two sections of one client");
            }
            let (mut items, mut clock) = (Vec::new(), first);
            for _ in 0..count {
                let item = bytes.item(client, clock, caps)?;
                clock += item.len;
                items.push(item);
            }
            row.sections.push((client, first, items));
        }
        for _ in 0..bytes.uint()? {
            let client = bytes.uint()?;
            if row.deletes.iter().any(|section| section.0 == client) {
                return broken("two delete sections of one client");
            }
            let (mut ranges, mut end) = (Vec::new(), 0);
            for _ in 0..bytes.uint()? {
                let (clock, len) = (bytes.clock()?, bytes.uint()?);
                if len == 0 {
                    return broken("a delete of nothing");
                }
                if clock < end {
                    return broken("deletes out of order");
                }
                end = clock + len;
                if end >= 1 << 31 {
                    return broken("a clock beyond 2^31 - 1");
                }
                ranges.push((clock, len));
            }
            row.deletes.push((client, ranges));
        }
        if bytes.0.is_empty() { Ok(row) } else { broken("bytes after the end") }
    }
}

/// One unit of a document.
#[derive(Clone, Debug)]
pub struct Unit {
    pub place: Option<Place>,
    pub kind: u8,
    pub depth: usize,
    pub origin: Option<Id>,
    pub right: Option<Id>,
    pub text: Option<u16>,
    pub is_deleted: bool,
    /// What its author must have seen when it was written, itself included.
    pub past: Past,
}

/// For each client the clock after the last unit of it that somebody has seen.
pub type Past = Rc<BTreeMap<u64, u64>>;

/// Units of one block that are kept. Nothing but a deletion is longer, and a liar makes it two thousand million.
const UNITS_MAX: u64 = 10_000;

/// A document, unit by unit.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub units: HashMap<Id, Unit>,
    pub next: BTreeMap<u64, u64>,
    /// The units of each place, from left to right.
    pub order: HashMap<Place, Vec<Id>>,
    /// Blocks of which only the first units are kept: client, first clock, and the clock after the last.
    huge: Vec<(u64, u64, u64)>,
    /// What the row at hand deletes.
    deleting: HashSet<Id>,
    /// What each client must have seen.
    pub pasts: BTreeMap<u64, Past>,
    /// Units that were passed to find the places of blocks.
    pub passed: u64,
}

impl Model {
    fn unit(&self, id: Id) -> Option<&Unit> {
        self.units.get(&id).or_else(|| {
            let within = |(client, from, to): &&(u64, u64, u64)| *client == id.0 && (*from..*to).contains(&id.1);
            let (client, from, _) = self.huge.iter().find(within)?;
            self.units.get(&(*client, *from))
        })
    }

    /// Whether it holds a block of which only the first units are kept.
    pub fn has_huge(&self) -> bool {
        !self.huge.is_empty()
    }

    pub fn known(&self, client: u64) -> u64 {
        self.next.get(&client).copied().unwrap_or(0)
    }

    /// Takes a row in, and checks all that it promises about what was there before.
    pub fn take_in(&mut self, row: &Row, caps: &Caps) -> Result<(), Broken> {
        let mut at: Vec<(usize, u64)> = Vec::new();
        for (client, first, items) in &row.sections {
            if *first != self.known(*client) {
                return broken("clocks that do not follow on");
            }
            if items.iter().any(|item| item.kind == 10) {
                return broken("a gap");
            }
            at.push((0, *first));
        }
        self.deleting.clear();
        for (client, ranges) in &row.deletes {
            let units =
                ranges.iter().flat_map(|(clock, len)| (*clock..clock + len.min(&20_000)).map(|clock| (*client, clock)));
            self.deleting.extend(units);
        }
        // Round and round until nothing goes on any more.
        let mut goes_on = true;
        while goes_on {
            goes_on = false;
            for ((client, _, items), (next_item, clock)) in row.sections.iter().zip(&mut at) {
                while let Some(item) = items.get(*next_item) {
                    let parent = if let Parent::Item(id) = item.parent { Some(id) } else { None };
                    let mut references = [item.origin, item.right, parent].into_iter().flatten();
                    if !references.all(|id| id.1 < self.known(id.0)) {
                        break;
                    }
                    let is_deleted = |clock| {
                        row.deletes.iter().any(|(other, ranges)| {
                            other == client && ranges.iter().any(|(from, len)| (*from..from + len).contains(&clock))
                        })
                    };
                    let lives = item.kind == 8 && item.len > 1 && !(*clock..*clock + item.len).all(is_deleted);
                    self.take_in_item(*client, *clock, item, lives, caps)?;
                    *clock += item.len;
                    *next_item += 1;
                    goes_on = true;
                }
            }
        }
        if row.sections.iter().zip(&at).any(|(section, (done, _))| *done < section.2.len()) {
            return broken("a reference to what is not there");
        }
        if self.next.len() > caps.document_clients_max {
            return broken("too many clients");
        }
        for (client, ranges) in &row.deletes {
            for (clock, len) in ranges {
                if clock + len > self.known(*client) {
                    return broken("a delete of what is not there");
                }
                for clock in *clock..clock + len.min(&(2 * UNITS_MAX)) {
                    if let Some(unit) = self.units.get_mut(&(*client, clock)) {
                        unit.is_deleted = true;
                    }
                }
            }
        }
        Ok(())
    }

    fn take_in_item(
        &mut self,
        client: u64,
        clock: u64,
        item: &Item,
        are_several: bool,
        caps: &Caps,
    ) -> Result<(), Broken> {
        let place_of = |id: Option<Id>| id.and_then(|id| self.unit(id)).and_then(|unit| unit.place.clone());
        let is_dead = |place: &Place| match &place.0 {
            Ok(_) => false,
            Err(item) => self.deleting.contains(item) || self.unit(*item).is_some_and(|unit| unit.is_deleted),
        };
        let are_both = item.origin.is_some() && item.right.is_some();
        let place = match &item.parent {
            _ if item.kind == 0 => None,
            Parent::Root(name) => Some((Ok(name.clone()), item.key.clone())),
            Parent::Item(id) => match self.unit(*id).map_or(0, |unit| unit.kind) {
                7 => Some((Err(*id), item.key.clone())),
                0 | 1 => None,
                _ => return broken("a parent that is no type"),
            },
            Parent::OfOrigin => match (place_of(item.origin), place_of(item.right)) {
                (Some(left), Some(right)) if left != right => return broken("origins in two places"),
                (Some(place), None) | (None, Some(place)) if are_both && !is_dead(&place) => {
                    return broken("one origin is collected, and what the other stands in lives");
                }
                (left, right) => left.or(right),
            },
        };
        if !self.has_huge() && place.as_ref().is_some_and(|place| !self.is_between(place, item)) {
            return broken(
                "between origin and right origin stands what one of them was written beside, or they are the wrong way round",
            );
        }
        if place.as_ref().is_some_and(|place| place.1.is_some()) && matches!(item.kind, 4 | 6) {
            return broken("text under a key");
        }
        if place.as_ref().is_some_and(|place| place.1.is_some()) && are_several {
            return broken("several values under a key");
        }
        let outer = match &place {
            Some((Err(parent), _)) => self.unit(*parent).map_or(0, |unit| unit.depth),
            _ => 0,
        };
        let depth = if item.kind == 7 { outer + 1 } else { 0 };
        if depth > caps.type_depth_max {
            return broken("types nested too deeply");
        }
        let past = self.past_of(client, clock + item.len, item);
        if item.len > UNITS_MAX {
            // Of the rest nobody keeps the order.
            self.huge.push((client, clock, clock + item.len));
        }
        for offset in 0..item.len.min(UNITS_MAX) {
            let origin = if offset == 0 { item.origin } else { Some((client, clock + offset - 1)) };
            let unit = Unit {
                place: place.clone(),
                kind: item.kind,
                depth,
                origin,
                right: item.right,
                text: item.text.get(offset as usize).copied(),
                is_deleted: matches!(item.kind, 0 | 1),
                past: past.clone(),
            };
            self.units.insert((client, clock + offset), unit);
        }
        if let Some(place) = place {
            self.put_in_order(place, client, clock, item);
        }
        self.pasts.insert(client, past);
        self.next.insert(client, clock + item.len);
        Ok(())
    }

    fn past_of(&self, client: u64, end: u64, item: &Item) -> Past {
        let mut past = self.pasts.get(&client).map(|past| (**past).clone()).unwrap_or_default();
        past.insert(client, end);
        let parent = if let Parent::Item(id) = item.parent { Some(id) } else { None };
        for id in [item.origin, item.right, parent].into_iter().flatten() {
            let of_unit = self
                .units
                .get(&id)
                .into_iter()
                .flat_map(|unit| unit.past.iter().map(|(&client, &next)| (client, next)));
            for (client, next) in of_unit.chain([(id.0, id.1 + 1)]) {
                let seen = past.entry(client).or_default();
                *seen = next.max(*seen);
            }
        }
        Rc::new(past)
    }

    /// Whether a block stands where its author can have put it: the right origin right of the origin, the origin of the right one not between the two,
    /// nor the right origin of the left one. What is in no order any more is not looked at.
    fn is_between(&self, place: &Place, item: &Item) -> bool {
        let nothing = Vec::new();
        let order = self.order.get(place).unwrap_or(&nothing);
        let position = |id: Id| order.iter().position(|other| *other == id).map(|at| at as isize);
        let or = |id: Option<Id>, end: isize| id.map_or(Some(end), position);
        let (first, last) = (-1, order.len() as isize);
        let (Some(left), Some(right)) = (or(item.origin, first), or(item.right, last)) else { return true };
        let unit = |id: Option<Id>| id.and_then(|id| self.units.get(&id));
        let left_of_right = or(unit(item.right).and_then(|unit| unit.origin), first).unwrap_or(left);
        let right_of_left = or(unit(item.origin).and_then(|unit| unit.right), last).unwrap_or(right);
        left < right
            && (item.right.is_none() || left_of_right <= left)
            && (item.origin.is_none() || right <= right_of_left)
    }

    /// Finds the place of a block among its neighbours, as every replica does.
    fn put_in_order(&mut self, place: Place, client: u64, clock: u64, item: &Item) {
        let order = self.order.entry(place).or_default();
        let position = |id: Option<Id>| id.and_then(|id| order.iter().position(|other| *other == id));
        let (left, right) = (position(item.origin), position(item.right));
        if (item.origin.is_some() && left.is_none()) || (item.right.is_some() && right.is_none()) {
            return; // inside something deleted, beside what is collected there
        }
        let mut at = left.map_or(0, |left| left + 1);
        let (mut conflicting, mut before): (HashSet<Id>, HashSet<Id>) = Default::default();
        for (number, &other) in order.iter().enumerate().skip(at) {
            if Some(number) == right {
                break;
            }
            let Some(unit) = self.units.get(&other) else { break };
            self.passed += 1;
            before.insert(other);
            conflicting.insert(other);
            if unit.origin == item.origin {
                if other.0 < client {
                    at = number + 1;
                    conflicting.clear();
                } else if unit.right == item.right {
                    break;
                }
            } else if unit.origin.is_some_and(|origin| before.contains(&origin)) {
                if !unit.origin.is_some_and(|origin| conflicting.contains(&origin)) {
                    at = number + 1;
                    conflicting.clear();
                }
            } else {
                break;
            }
        }
        order.splice(at..at, (clock..clock + item.len.min(UNITS_MAX)).map(|clock| (client, clock)));
    }

    /// Whether `row` holds other text than this document where both are alive: half surrogates aside.
    pub fn is_forked_by(&self, row: &Row) -> bool {
        row.sections.iter().any(|(client, first, items)| {
            let mut clock = *first;
            items.iter().any(|item| {
                let start = clock;
                clock += item.len;
                item.text.iter().zip(start..).any(|(text, clock)| {
                    let ours = self.units.get(&(*client, clock)).filter(|unit| unit.kind != 0 && unit.kind != 1);
                    ours.is_some_and(|ours| {
                        ours.text.is_none_or(|ours| ours != *text && ours != 0xfffd && *text != 0xfffd)
                    })
                })
            })
        })
    }
}
