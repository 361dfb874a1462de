//! Forges updates that are as plausible as a liar can make them but for one flaw, or none.

use std::collections::BTreeMap;

use contextnexus_gate::Caps;
use contextnexus_gate::lib0::{write_var_bytes, write_var_string, write_var_uint};
use rand::RngExt;
use rand::rngs::StdRng;

use super::flaw::{FLAWS, Flaw};
use super::reference::{Id, Model, Place};

/// Who writes. The last belongs to somebody who is connected.
pub const CLIENTS: [u64; 6] = [2, 3, 60, 61, (1 << 53) - 1, OWNED];
pub const OWNED: u64 = 4_000_000_000;

pub struct Forge<'a> {
    rng: &'a mut StdRng,
    model: &'a Model,
    caps: &'a Caps,
    /// How far each client will be known.
    clocks: BTreeMap<u64, u64>,
    flaw: Option<Flaw>,
    /// Whether blocks stand where an honest author could have put them, flaws aside.
    is_lawful: bool,
    /// Where the author of the section went on last: the unit to follow and the right origin.
    last: Option<(Id, Option<Id>, Place)>,
}

impl<'a> Forge<'a> {
    pub fn new(rng: &'a mut StdRng, model: &'a Model, caps: &'a Caps, is_lawful: bool) -> Self {
        let flaw = rng.random_bool(0.45).then(|| FLAWS[rng.random_range(0..FLAWS.len())]);
        // Large ones take their time.
        let flaw = flaw.filter(|flaw| *flaw != Flaw::TooLarge || rng.random_bool(0.1));
        Self { rng, model, caps, clocks: model.next.clone(), flaw, is_lawful, last: None }
    }

    /// Whether it is time for `flaw`: at the first place for it in one case, at a later one in the other.
    fn takes(&mut self, flaw: Flaw) -> bool {
        let takes = self.flaw == Some(flaw) && self.rng.random_bool(0.6);
        if takes {
            self.flaw = None;
        }
        takes
    }

    fn uint(&mut self, into: &mut Vec<u8>, value: u64) {
        if self.flaw == Some(Flaw::LongNumber) && self.rng.random_bool(0.15) {
            self.flaw = None;
            write_var_uint(into, value);
            if let Some(last) = into.last_mut() {
                *last |= 0x80;
            }
            into.push(0);
        } else {
            write_var_uint(into, value);
        }
    }

    fn id(&mut self, into: &mut Vec<u8>, id: Id) {
        let large = self.takes(Flaw::LargeNumber);
        let client = if large { id.0 | 1 << self.rng.random_range(53..62) } else { id.0 };
        self.uint(into, client);
        let large = self.flaw == Some(Flaw::LargeClock) && self.rng.random_bool(0.3);
        self.uint(into, if large { id.1 + (1 << 31) } else { id.1 });
    }

    pub fn update(mut self) -> Vec<u8> {
        let mut clients = CLIENTS.to_vec();
        // Somebody else's client id now and then.
        if self.rng.random_range(0..8) > 0 {
            clients.pop();
        }
        let from = self.rng.random_range(0..clients.len());
        clients.rotate_left(from);
        clients.truncate(if self.flaw == Some(Flaw::Circle) { 2 } else { self.rng.random_range(1..=3) });
        let first_twice = self.takes(Flaw::TwoSections);
        if first_twice {
            clients.push(clients[0]);
        }
        let mut sections: Vec<Vec<u8>> = Vec::new();
        let circle = (self.flaw == Some(Flaw::Circle)).then(|| clients.clone());
        for (number, &client) in clients.iter().enumerate() {
            let mut start = self.clocks.get(&client).copied().unwrap_or(0);
            if first_twice && number > 0 && client == clients[0] && self.rng.random_bool(0.5) {
                start = self.model.known(client);
            }
            self.last = None;
            if self.takes(Flaw::Gap) {
                start += self.rng.random_range(1..4);
            } else if self.takes(Flaw::Overlap) {
                start = start.saturating_sub(self.rng.random_range(1..4));
            }
            let (mut body, mut clock, mut count) = (Vec::new(), start, self.rng.random_range(1..=4u64));
            if let Some(texts) = self.fork(client, start) {
                (start, clock, count) = (texts, texts, 1);
                body.extend([4, 1, 1, b't']);
                let text = ["#", "@@", "?!?"][self.rng.random_range(0..3)];
                write_var_string(&mut body, text);
                clock += text.len() as u64;
                self.clocks.insert(client, clock.max(self.model.known(client)));
            } else if self.takes(Flaw::EmptySection) {
                count = 0;
            } else {
                for number_of_block in 0..count {
                    if self.takes(Flaw::Skip) {
                        body.extend([10, 2]);
                        clock += 2;
                        continue;
                    }
                    let circle = circle.as_ref().filter(|_| number_of_block == 0).map(|clients| {
                        let other = clients[1 - number.min(1)];
                        (other, self.model.known(other))
                    });
                    clock += self.block(&mut body, client, clock, circle);
                    self.clocks.insert(client, clock);
                }
            }
            let mut section = Vec::new();
            self.uint(&mut section, count);
            self.id(&mut section, (client, start));
            section.extend(body);
            sections.push(section);
        }
        if self.takes(Flaw::ManyClients) {
            for number in 0..self.caps.document_clients_max as u64 {
                let mut section = Vec::new();
                self.uint(&mut section, 1);
                self.id(&mut section, (5_000 + number, 0));
                section.extend([4, 1, 1, b't', 1, b'm']);
                sections.push(section);
            }
        }
        let mut bytes = Vec::new();
        self.uint(&mut bytes, sections.len() as u64);
        bytes.extend(sections.concat());
        self.deletes(&mut bytes);
        if self.takes(Flaw::Trailing) {
            bytes.push(self.rng.random());
        }
        bytes
    }

    /// Where somebody who has forgotten what he wrote would write again.
    fn fork(&mut self, client: u64, next: u64) -> Option<u64> {
        if !self.takes(Flaw::Fork) {
            return None;
        }
        let written = (0..next).rev().take(2_000).find(|clock| {
            self.model.units.get(&(client, *clock)).is_some_and(|unit| unit.kind == 4 && unit.place.is_some())
        });
        if written.is_none() {
            self.flaw = Some(Flaw::Fork);
        }
        written
    }

    fn deletes(&mut self, bytes: &mut Vec<u8>) {
        let known: Vec<(u64, u64)> = self.clocks.iter().map(|(&client, &end)| (client, end)).collect();
        let mut clients: Vec<(u64, u64)> = Vec::new();
        if !known.is_empty() && (self.rng.random_bool(0.5) || self.flaw.is_some()) {
            clients.push(known[self.rng.random_range(0..known.len())]);
            if self.takes(Flaw::TwoDeletes) {
                clients.push(clients[0]);
            }
        }
        self.uint(bytes, clients.len() as u64);
        for (client, end) in clients {
            let first = self.rng.random_range(0..end.max(1));
            let mut ranges = vec![(first, self.rng.random_range(1..=(end - first).clamp(1, 5)))];
            if self.rng.random_bool(0.2) && first + ranges[0].1 + 1 < end {
                ranges.push((first + ranges[0].1 + 1, 1));
            }
            if self.takes(Flaw::UnsortedDeletes) {
                ranges.push((self.rng.random_range(0..=first), 1));
            }
            if self.takes(Flaw::EmptyDelete) {
                ranges[0].1 = 0;
            }
            if self.takes(Flaw::DeleteAhead) {
                ranges.push((end + self.rng.random_range(0..3), 1));
            }
            self.uint(bytes, client);
            self.uint(bytes, ranges.len() as u64);
            for (clock, len) in ranges {
                let large = self.takes(Flaw::LargeClock);
                self.uint(bytes, if large { clock + (1 << 31) } else { clock });
                self.uint(bytes, len);
            }
        }
    }

    /// Some unit, of this place if it has any.
    fn unit(&mut self, place: Option<&Place>) -> Option<Id> {
        if let Some(order) = place.and_then(|place| self.model.order.get(place)).filter(|order| !order.is_empty()) {
            return Some(order[self.rng.random_range(0..order.len())]);
        }
        let known: Vec<(&u64, &u64)> = self.clocks.iter().filter(|(_, next)| **next > 0).collect();
        if known.is_empty() {
            return None;
        }
        let (client, next) = known[self.rng.random_range(0..known.len())];
        // Mostly what was written last.
        let back = if self.rng.random_bool(0.5) { next.saturating_sub(8) } else { 0 };
        Some((*client, self.rng.random_range(back..*next)))
    }

    fn place(&mut self) -> Option<Place> {
        let mut places: Vec<&Place> = self.model.order.keys().collect();
        places.sort_unstable();
        (!places.is_empty()).then(|| places[self.rng.random_range(0..places.len())].clone())
    }

    /// Two neighbours of one place, or two strangers of it, or two of anywhere.
    fn origins(&mut self) -> (Option<Id>, Option<Id>) {
        let place = self.place();
        let order = place.as_ref().and_then(|place| self.model.order.get(place));
        match (self.rng.random_range(0..10), order) {
            (0..=3, Some(order)) => {
                let at = self.rng.random_range(0..=order.len());
                (at.checked_sub(1).map(|left| order[left]), order.get(at).copied())
            }
            (4..=6, Some(order)) => {
                let (mut left, mut right) =
                    (self.rng.random_range(0..order.len()), self.rng.random_range(0..order.len()));
                // One in ten says the wrong order.
                if (left > right) != self.rng.random_bool(0.1) {
                    std::mem::swap(&mut left, &mut right);
                }
                let right = (left != right).then(|| order[right]);
                (Some(order[left]), right.filter(|_| self.rng.random_bool(0.7)))
            }
            (7, _) => (self.unit(None), self.unit(None)),
            _ => (self.unit(None), None),
        }
    }

    /// Where an author might write who has seen all, or only what he must have seen.
    fn spot(&mut self, client: u64, kind: u8) -> Option<(Option<Id>, Option<Id>, Place)> {
        let fits = |place: &Place| place.1.is_none() || !matches!(kind, 4 | 6 | 8);
        if let Some((id, right, place)) = self.last.clone() {
            return fits(&place).then_some((Some(id), right, place));
        }
        let place = match self.rng.random_range(0..8) {
            0 => (Ok(["t", "x", "a", "m", "new"][self.rng.random_range(0..5)].to_owned()), None),
            1 => (Ok("m".to_owned()), Some(["a", "b", "k"][self.rng.random_range(0..3)].to_owned())),
            _ => self.place()?,
        };
        if !fits(&place) {
            return None;
        }
        let nothing = Default::default();
        let past = self.model.pasts.get(&client).unwrap_or(&nothing);
        let sees_all = self.rng.random_bool(0.5);
        let order = self.model.order.get(&place).map(Vec::as_slice).unwrap_or_default();
        let seen: Vec<Id> =
            order.iter().filter(|id| sees_all || past.get(&id.0).is_some_and(|next| id.1 < *next)).copied().collect();
        if place.1.is_some() {
            return Some((seen.last().copied(), None, place));
        }
        let at = if self.rng.random_bool(0.3) { seen.len() } else { self.rng.random_range(0..=seen.len()) };
        Some((at.checked_sub(1).map(|left| seen[left]), seen.get(at).copied(), place))
    }

    /// Two units of one chain, the wrong way round.
    fn reversed(&mut self) -> Option<(Id, Id)> {
        let mut chained: Vec<Id> = self
            .model
            .units
            .iter()
            .filter_map(|(&id, unit)| {
                (id.1 > 0 && unit.origin == Some((id.0, id.1 - 1)) && unit.place.is_some()).then_some(id)
            })
            .collect();
        chained.sort_unstable();
        let last = (!chained.is_empty()).then(|| chained[self.rng.random_range(0..chained.len())])?;
        let mut first = last;
        for _ in 0..self.rng.random_range(1..5) {
            if chained.binary_search(&first).is_ok() {
                first.1 -= 1;
            }
        }
        Some((last, first))
    }

    /// Writes one block and says how long it is.
    fn block(&mut self, into: &mut Vec<u8>, client: u64, clock: u64, circle: Option<Id>) -> u64 {
        if self.rng.random_range(0..25) == 0 {
            let len = self.len();
            into.push(0);
            self.uint(into, len);
            return len;
        }
        let kind = match self.flaw {
            Some(Flaw::JsonContent) => 2,
            Some(Flaw::MoveContent) => 11,
            Some(Flaw::UnknownKind) => self.rng.random_range(12..32),
            Some(Flaw::WeakLink | Flaw::XmlHook | Flaw::UnknownType | Flaw::DeepType) => 7,
            Some(Flaw::UnknownValue | Flaw::DeepValue) => 8,
            Some(Flaw::NotJson) => [5, 6][self.rng.random_range(0..2)],
            Some(Flaw::Options) => 9,
            Some(Flaw::TextUnderKey) => [4, 6][self.rng.random_range(0..2)],
            _ => [1u8, 3, 4, 4, 4, 4, 5, 6, 7, 7, 8, 8, 9][self.rng.random_range(0..13)],
        };
        if (12..32).contains(&kind) || [2, 11].contains(&kind) {
            self.flaw = None;
        }
        let spot = if self.is_lawful && self.flaw != Some(Flaw::DeepType) { self.spot(client, kind) } else { None };
        let (mut origin, mut right) = match &spot {
            Some((origin, right, _)) => (*origin, *right),
            None if self.rng.random_bool(0.7) && self.flaw != Some(Flaw::DeepType) => self.origins(),
            None => (None, None),
        };
        if let Some(id) = circle {
            origin = Some(id);
        } else if self.takes(Flaw::Ahead) {
            origin = Some((client, clock + self.rng.random_range(0..2)));
        } else if self.takes(Flaw::SameOrigins) {
            origin = self.unit(None);
            right = origin;
        } else if self.takes(Flaw::UnknownReference) {
            origin = Some((CLIENTS[self.rng.random_range(0..6)], clock + 1_000));
        } else if self.takes(Flaw::TwoPlaces) {
            let (here, there) = (self.place(), self.place());
            (origin, right) = (self.unit(here.as_ref()), self.unit(there.as_ref()));
        } else if self.flaw == Some(Flaw::Reversed)
            && let Some((last, first)) = self.reversed()
        {
            self.flaw = None;
            (origin, right) = (Some(last), Some(first));
        }
        if origin.is_some() && origin == right && self.rng.random_bool(0.9) && self.flaw != Some(Flaw::SameOrigins) {
            right = None;
        }
        if self.flaw == Some(Flaw::TextUnderKey)
            || [Flaw::LongRootName, Flaw::LongKey, Flaw::UnknownParent, Flaw::ParentNotAType]
                .map(Some)
                .contains(&self.flaw)
        {
            (origin, right) = (None, None);
        }
        if let Some((spot_origin, spot_right, place)) = spot
            && (spot_origin, spot_right) == (origin, right)
            && !self.flaw.is_some_and(|flaw| matches!(flaw, Flaw::LongRootName | Flaw::LongKey | Flaw::UnknownParent))
        {
            into.push(
                kind | u8::from(origin.is_some()) << 7
                    | u8::from(right.is_some()) << 6
                    | u8::from(place.1.is_some()) << 5,
            );
            [origin, right].into_iter().flatten().for_each(|id| self.id(into, id));
            if origin.is_none() && right.is_none() {
                match &place.0 {
                    Ok(name) => {
                        self.uint(into, 1);
                        self.text(into, name);
                    }
                    Err(parent) => {
                        self.uint(into, 0);
                        self.id(into, *parent);
                    }
                }
                if let Some(key) = &place.1 {
                    self.text(into, key);
                }
            }
            let len = self.content(into, kind);
            self.last = Some(((client, clock + len.max(1) - 1), right, place));
            return len;
        }
        let has_key = origin.is_none()
            && right.is_none()
            && (self.flaw == Some(Flaw::LongKey)
                || self.takes(Flaw::TextUnderKey)
                || (!matches!(kind, 4 | 6) && self.rng.random_bool(0.4)));
        into.push(kind | u8::from(origin.is_some()) << 7 | u8::from(right.is_some()) << 6 | u8::from(has_key) << 5);
        [origin, right].into_iter().flatten().for_each(|id| self.id(into, id));
        if origin.is_none() && right.is_none() {
            self.parent(into);
            if has_key {
                let key = ["k", "a", "null"][self.rng.random_range(0..3)];
                let key =
                    if self.takes(Flaw::LongKey) { "k".repeat(self.caps.map_key_bytes_max + 1) } else { key.into() };
                self.text(into, &key);
            }
        }
        self.content(into, kind)
    }

    fn parent(&mut self, into: &mut Vec<u8>) {
        let mut types: Vec<Id> = Vec::new();
        if self.rng.random_bool(0.4) || [Flaw::DeepType, Flaw::ParentNotAType].map(Some).contains(&self.flaw) {
            let is_deep = self.flaw == Some(Flaw::DeepType);
            let wants_type = !self.takes(Flaw::ParentNotAType);
            types.extend(self.model.units.iter().filter(|(_, unit)| (unit.kind == 7) == wants_type).map(|(&id, _)| id));
            types.sort_unstable_by_key(|id| (is_deep.then(|| self.model.units.get(id).map(|unit| unit.depth)), *id));
            if is_deep {
                types = types.split_off(types.len().saturating_sub(1));
            }
        }
        if types.is_empty() {
            let name = ["t", "x", "a", "m", "new"][self.rng.random_range(0..5)];
            let name = if self.takes(Flaw::LongRootName) {
                "r".repeat(self.caps.root_name_bytes_max + 1)
            } else {
                name.into()
            };
            let info = if self.takes(Flaw::UnknownParent) { self.rng.random_range(2..9) } else { 1 };
            self.uint(into, info);
            self.text(into, &name);
        } else {
            self.uint(into, 0);
            let parent = types[self.rng.random_range(0..types.len())];
            self.id(into, parent);
        }
    }

    fn text(&mut self, into: &mut Vec<u8>, text: &str) {
        if self.takes(Flaw::NotUtf8) {
            write_var_bytes(into, &[b'a', [0xff, 0xc3, 0xed][self.rng.random_range(0..3)], 0x28]);
        } else {
            self.uint(into, text.len() as u64);
            into.extend_from_slice(text.as_bytes());
        }
    }

    fn len(&mut self) -> u64 {
        if self.takes(Flaw::EmptyBlock) {
            0
        } else if self.takes(Flaw::LargeClock) {
            [(1 << 31) - 1, 1 << 31, 3_000_000_000][self.rng.random_range(0..3)]
        } else {
            self.rng.random_range(1..4)
        }
    }

    fn json(&mut self) -> String {
        const BAD: [&str; 12] =
            ["", "nul", "01", "1.", "1e400", "\"", "\"\\x\"", "[1,]", "{\"a\"}", "{a:1}", "1 2", "[\"\\ud83d\\x\"]"];
        const GOOD: [&str; 8] = [
            "true",
            "null",
            "{\"a\":1}",
            "[1,2.5,\"é\"]",
            "\"\\ud83d\"",
            "{\"\\ude00x\":[null]}",
            "10000000000000000000",
            "-0.5e-7",
        ];
        if self.takes(Flaw::NotJson) {
            return BAD[self.rng.random_range(0..BAD.len())].into();
        }
        GOOD[self.rng.random_range(0..GOOD.len())].into()
    }

    fn content(&mut self, into: &mut Vec<u8>, kind: u8) -> u64 {
        match kind {
            1 => {
                let len = self.len();
                self.uint(into, len);
                return len;
            }
            4 => {
                let (text, len) =
                    [("a", 1), ("bcd", 3), ("😀", 2), ("é😀z", 4), ("\u{fffd}", 1)][self.rng.random_range(0..5)];
                if self.takes(Flaw::TooLarge) {
                    let text = "x".repeat(self.caps.update_bytes_max);
                    self.text(into, &text);
                    return text.len() as u64;
                }
                if self.takes(Flaw::EmptyBlock) {
                    into.push(0);
                    return 0;
                }
                self.text(into, text);
                return len;
            }
            5 => {
                let json = self.json();
                self.text(into, &json);
            }
            6 => {
                let key = ["bold", "em"][self.rng.random_range(0..2)];
                self.text(into, key);
                let json = self.json();
                self.text(into, &json);
            }
            7 => {
                let kind = match self.flaw.take() {
                    Some(Flaw::WeakLink) => 7,
                    Some(Flaw::XmlHook) => 5,
                    Some(Flaw::UnknownType) => self.rng.random_range(8..40),
                    other => {
                        self.flaw = other.filter(|flaw| *flaw != Flaw::DeepType);
                        [0u64, 1, 2, 3, 4, 6][self.rng.random_range(0..6)]
                    }
                };
                self.uint(into, kind);
                if kind == 3 || (kind == 5 && self.rng.random_bool(0.5)) {
                    self.text(into, "p");
                }
            }
            8 => {
                let len = self.len();
                self.uint(into, len);
                for _ in 0..len.min(4) {
                    self.value(into);
                }
                return len;
            }
            9 => {
                write_var_string(into, "00000000-0000-0000-0000-000000000000");
                if self.takes(Flaw::Options) {
                    into.push([126, 120, 121][self.rng.random_range(0..3)]);
                } else {
                    into.extend([118, 0]);
                }
            }
            _ => {
                // Bytes; and what reads as such where nobody knows better.
                let bytes: [u8; 3] = self.rng.random();
                self.uint(into, 3);
                into.extend(bytes);
            }
        }
        1
    }

    fn value(&mut self, into: &mut Vec<u8>) {
        if self.takes(Flaw::UnknownValue) {
            into.push(self.rng.random_range(0..116));
        } else if self.takes(Flaw::DeepValue) {
            let depth = if self.rng.random_bool(0.05) { 50_000 } else { self.caps.any_depth_max + 1 };
            (0..depth).for_each(|_| into.extend([117, 1]));
            into.push(126);
        } else {
            match self.rng.random_range(0..7) {
                0 => {
                    into.push(119);
                    self.text(into, "value");
                }
                1 => into.extend([118, 2, 1, b'k', 117, 2, 126, 125, 0x41, 1, b'a', 125, 0x40]),
                2 => into.extend([123, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0]),
                3 => into.extend([116, 2, 9, 9]),
                other => into.push([126, 127, 120, 121][other - 3]),
            }
        }
    }
}
