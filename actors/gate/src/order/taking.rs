//! An update that the order takes in: where each of its blocks goes, and what that costs.

use super::*;

/// An update on its way into the order.
pub(super) struct Taking<'o, 'a, P> {
    pub(super) order: &'o mut Order,
    pub(super) update: &'a Update,
    pub(super) place: P,
    /// Where it says that nothing is refused there is no bound.
    pub(super) bound_ms: Option<u64>,
    pub(super) work: Work,
}

/// How far a section has come.
struct Part<'a> {
    section: &'a Section,
    next: u32,
    end: u32,
    clock: u32,
    /// Units of the first block that are known.
    offset: u32,
    /// Blocks one behind the other that yrs will join, and how often it takes up one of them for that.
    chain: u32,
    chains: u64,
    blocks: u64,
}

impl<'a, P: Fn(Id) -> Place> Taking<'_, 'a, P> {
    /// Blocks, in the order in which yrs takes them: the highest client first, each until it needs a block of another.
    pub(super) fn blocks(&mut self, parts: &[(&'a Section, BlockRange)]) -> Result<(), Refused> {
        let mut parts: Vec<Part<'a>> = parts.iter().map(|(section, range)| self.part(section, range)).collect();
        parts.sort_unstable_by_key(|part| Reverse(part.section.client));
        self.crowds(&parts)?;
        let by_client: HashMap<u64, usize> = match parts.len() {
            0 | 1 => HashMap::new(),
            _ => parts.iter().enumerate().map(|(number, part)| (part.section.client, number)).collect(),
        };
        let mut stack = Vec::new();
        for first in 0..parts.len() {
            while parts.get(first).is_some_and(|part| part.next < part.end) {
                stack.push(first);
                while let Some(&number) = stack.last() {
                    match self.missing(&parts, &by_client, number) {
                        // Each waits for another; the gate has seen to it that this is no circle.
                        Some(other) if stack.len() <= parts.len() => {
                            self.work.waits += stack.len() as u64;
                            stack.push(other);
                        }
                        _ => {
                            if let Some(part) = parts.get_mut(number) {
                                self.block(part)?;
                            }
                            stack.pop();
                        }
                    }
                }
            }
        }
        for part in parts {
            // Each join moves what stands behind it, joined by then.
            self.work.moved += part.chains * part.blocks / 2;
        }
        self.within_bound()
    }

    /// The sections of an update are in a table of their own, and clients that come are put among those of the document.
    fn crowds(&mut self, parts: &[Part<'a>]) -> Result<(), Refused> {
        if parts.len() > FEW {
            let mut of_update = Crowd::default();
            for part in parts {
                self.work.met += of_update.insert(part.section.client);
                self.within_bound()?;
            }
        }
        let is_new = |part: &&Part<'a>| part.clock == 0;
        self.order.welcomed.reserve_exact(parts.iter().filter(is_new).count());
        for part in parts.iter().filter(is_new) {
            self.work.met += self.order.welcome(part.section.client);
            self.within_bound()?;
        }
        Ok(())
    }

    fn part(&self, section: &'a Section, range: &BlockRange) -> Part<'a> {
        let clock = self.update.blocks.get(range.blocks.start as usize).map_or(section.clock, |block| block.clock);
        Part {
            section,
            next: range.blocks.start,
            end: range.blocks.end,
            clock: clock + range.offset,
            offset: range.offset,
            chain: 0,
            chains: 0,
            blocks: 0,
        }
    }

    /// The section that must go on before this one can.
    fn missing(&self, parts: &[Part<'a>], by_client: &HashMap<u64, usize>, number: usize) -> Option<usize> {
        if by_client.is_empty() {
            return None;
        }
        let part = parts.get(number)?;
        let links = self.update.view(part.section, part.next)?.links()?;
        links.references().into_iter().flatten().find_map(|id| {
            let &other = by_client.get(&id.client).filter(|other| **other != number)?;
            let other_part = parts.get(other)?;
            (id.clock >= other_part.clock && other_part.next < other_part.end).then_some(other)
        })
    }

    fn within_bound(&self) -> Result<(), Refused> {
        match self.bound_ms {
            Some(max_ms) if self.work.exceeds(max_ms, self.update.bytes.len()) && is_on(Check::TooCostly) => {
                Err(Refused::TooCostly { max_ms })
            }
            _ => Ok(()),
        }
    }

    fn block(&mut self, part: &mut Part<'a>) -> Result<(), Refused> {
        let (number, clock) = (part.next, part.clock);
        let offset = std::mem::take(&mut part.offset);
        part.next += 1;
        let Some(view) = self.update.view(part.section, number) else { return Ok(()) };
        part.clock = view.block.end_clock();
        self.work.blocks += 1;
        if self.work.blocks.is_multiple_of(32) {
            self.within_bound()?;
        }
        let Some(mut links) = view.links() else {
            part.chain = 0;
            return Ok(());
        };
        if offset > 0 {
            links.origin = Some(Id { client: part.section.client, clock: clock - 1 });
            (links.parent, links.key) = (Parent::OfOrigin, None);
        }
        self.meet(part.section.client, &links);
        let class = Class::of(view.kind());
        self.work.holds(class, view.content().len());
        let len = part.clock - clock;
        let is_next = links.origin == clock.checked_sub(1).map(|clock| Id { client: part.section.client, clock });
        let Some(at) = self.integrate(part.section.client, clock, len, &links, class)? else {
            part.chain = 0;
            return Ok(());
        };
        let before = self.order.block(at).previous;
        if is_next && self.order.are_joined(before, at) {
            // yrs joins from the right: what came as the n-th is copied n times.
            self.work.copies(class, len, u64::from(part.chain) + 1);
            part.chains += u64::from(part.chain == 0);
            part.chain += 1;
        } else {
            (part.chain, part.blocks) = (0, part.blocks + 1);
        }
        Ok(())
    }

    /// yrs looks a client up several times for each block, and for each block that this one refers to.
    fn meet(&mut self, client: u64, links: &Links<'a>) {
        if self.order.writers > FEW {
            let ids = [Some(client), links.origin.map(|id| id.client), links.right_origin.map(|id| id.client)];
            self.work.met += ids.into_iter().flatten().map(|id| self.order.crowd.met(id)).sum::<u64>();
        }
    }

    /// Finds the place of a block as Yjs and yrs do, and puts it there. `None`: it is in no list, because that was deleted and collected.
    fn integrate(
        &mut self,
        client: u64,
        clock: u32,
        len: u32,
        links: &Links<'a>,
        class: Class,
    ) -> Result<Option<u32>, Refused> {
        let Some(origin) = self.found(links.origin) else { return Ok(None) };
        let (mut list, mut left) = (NONE, NONE);
        if let Some((at, index)) = self.order.find(origin) {
            let block = self.order.block(at);
            (list, left) = (block.list, at);
            if block.last() != origin {
                self.cut(at, index, origin.clock + 1);
            }
        }
        let Some(right_origin) = self.found(links.right_origin) else { return Ok(None) };
        let mut right = NONE;
        if let Some((at, index)) = self.order.find(right_origin) {
            let block = self.order.block(at);
            if list != NONE && block.list != list {
                return Ok(None); // two places
            }
            (list, right) = (block.list, at);
            if block.at != right_origin {
                right = self.cut(at, index, right_origin.clock);
                if at == left {
                    left = right; // the wrong way round
                }
            }
        }
        if list == NONE {
            let place = (self.place)(Id { client, clock });
            if place.is_gone() {
                return Ok(None);
            }
            list = self.list_at(place, links.key);
        }
        if self.bound_ms.is_some() && !self.are_neighbours(left, right) && is_on(Check::RightOriginFirst) {
            return Err(Refused::RightOriginFirst);
        }
        let previous = self.place_behind(list, left, right, (client, origin, right_origin))?;
        let number = self.order.number(client);
        let at = Unit { client: number, clock };
        let block = Block { at, len, origin, right_origin, list, class, ..Block::NOWHERE };
        if let Some(List { has_key: true, key_bytes, len, .. }) = self.order.list(list) {
            self.work.hashed += u64::from(key_bytes);
            if previous == NONE {
                self.work.walked += u64::from(len);
            }
        }
        let at = self.order.link(previous, block);
        if let Some(client) = self.order.clients.get_mut(number as usize) {
            if client.blocks.is_empty() {
                client.blocks.reserve_exact(1);
            }
            client.blocks.push((clock, at));
        }
        self.order.steps.push(Step::Block(at));
        Ok(Some(at))
    }

    /// The unit that is referred to; `None` where it is in no list.
    fn found(&self, id: Option<Id>) -> Option<Unit> {
        let Some(id) = id else { return Some(Unit::NONE) };
        let unit = self.order.unit(id);
        self.order.find(unit).is_some().then_some(unit)
    }

    /// Whether two origins, which end and begin these blocks, may be neighbours for somebody who knows nothing but them and what they refer to. Then
    /// all replicas agree on what comes between them, in whatever order they hear of it. That is so where the left one is to the left; what the right
    /// one was written behind is no further to the right, and what the left one was written before no further to the left.
    fn are_neighbours(&self, left: u32, right: u32) -> bool {
        let (before, after) = (self.order.block(left), self.order.block(right));
        let label = |unit: Unit| self.order.find(unit).map(|(at, _)| self.order.block(at).label);
        let is_behind = |origin: Unit| {
            !origin.is_some()
                || (left != NONE
                    && (origin == before.last() || label(origin).is_some_and(|label| label <= before.label)))
        };
        let is_before = |right_origin: Unit| {
            !right_origin.is_some()
                || (right != NONE
                    && (right_origin == after.at || label(right_origin).is_some_and(|label| label >= after.label)))
        };
        match (left, right) {
            (NONE, NONE) => true,
            (NONE, _) => is_behind(after.origin),
            (_, NONE) => is_before(before.right_origin),
            _ => before.label < after.label && is_behind(after.origin) && is_before(before.right_origin),
        }
    }

    /// The block behind which a new one comes, as `Item.integrate` of Yjs and `resolve_conflict` of yrs find it.
    fn place_behind(
        &mut self,
        list: u32,
        left: u32,
        right: u32,
        (client, origin, right_origin): (u64, Unit, Unit),
    ) -> Result<u32, Refused> {
        let is_contested = match (left, right) {
            (NONE, NONE) => true,
            (NONE, right) => self.order.block(right).previous != NONE,
            (left, right) => self.order.block(left).next != right,
        };
        if !is_contested {
            return Ok(left);
        }
        let Some(of_list) = self.order.list(list) else { return Ok(left) };
        if left == NONE && of_list.has_key {
            self.work.walked += u64::from(of_list.len);
        }
        let label_of_left = self.order.block(left).label;
        let mut other = if left == NONE { of_list.first } else { self.order.block(left).next };
        let (mut behind, mut label_behind) = (left, label_of_left);
        while other != NONE && other != right {
            self.work.steps += 1;
            if self.work.steps.is_multiple_of(1 << 12) {
                self.within_bound()?;
            }
            let block = self.order.block(other);
            if block.origin == origin {
                if self.order.id_of(block.at.client) < client {
                    (behind, label_behind) = (other, block.label);
                } else if block.right_origin == right_origin {
                    break;
                }
            } else {
                let Some((at, _)) = self.order.find(block.origin) else { break };
                let label = self.order.block(at).label;
                if left != NONE && label <= label_of_left {
                    break;
                }
                if behind != left && label <= label_behind {
                    (behind, label_behind) = (other, block.label);
                }
            }
            other = block.next;
        }
        Ok(behind)
    }

    fn list_at(&mut self, place: Place, key: Option<&str>) -> u32 {
        if let Some(list) = self.order.places.get(&place) {
            return *list;
        }
        let at = self.order.lists.len() as u32;
        let sibling = place.item().and_then(|item| self.order.of_types.insert(item, at)).unwrap_or(NONE);
        let key_bytes = key.map_or(0, |key| key.len() as u32);
        self.order.lists.push(List { place, first: NONE, len: 0, key_bytes, has_key: place.has_key(), sibling });
        self.order.places.insert(place, at);
        self.order.steps.push(Step::List);
        at
    }

    fn cut(&mut self, at: u32, index: usize, clock: u32) -> u32 {
        let block = self.order.block(at);
        self.work.cuts(block.class, clock - block.at.clock, block.len);
        let (right, behind) = self.order.cut(at, index, clock);
        self.work.moved += behind as u64;
        right
    }

    /// What is deleted, in the order of its clocks.
    pub(super) fn deletes(&mut self, deletes: &[(u64, Vec<Range<u32>>)]) -> Result<(), Refused> {
        for (client, ranges) in deletes {
            let Some(&number) = self.order.numbers.get(client) else { continue };
            for range in bisected(ranges).flatten() {
                self.work.deletes += 1;
                self.delete(number, range);
                self.within_bound()?;
            }
        }
        Ok(())
    }

    fn delete(&mut self, client: u32, range: &Range<u32>) {
        let Some(of_client) = self.order.clients.get(client as usize) else { return };
        let mut index = of_client.blocks.partition_point(|(clock, _)| *clock <= range.start).saturating_sub(1);
        let (mut joins, mut before) = (0, NONE);
        while let Some(&(clock, at)) = self.order.clients.get(client as usize).and_then(|of| of.blocks.get(index)) {
            if clock >= range.end {
                break;
            }
            let block = self.order.block(at);
            if clock + block.len <= range.start || block.class == Class::Deleted {
                joins += u64::from(before != NONE && self.order.are_joined(before, at));
                (before, index) = (at, index + 1);
                continue;
            }
            if clock < range.start {
                self.cut(at, index, range.start);
                index += 1;
                continue;
            }
            if clock + block.len > range.end {
                self.cut(at, index, range.end);
            }
            self.work.deletes += 1;
            self.order.change(at, |block| block.class = Class::Deleted);
            self.order.steps.push(Step::Deleted(at, block.class));
            if block.class == Class::Type {
                let id = Id { client: self.order.id_of(client), clock };
                self.delete_inside(id);
                joins += 1; // what was in it is collected
            }
            joins += u64::from(before != NONE && self.order.are_joined(before, at));
            before = at;
            index += 1;
        }
        let Some(of_client) = self.order.clients.get(client as usize) else { return };
        if let Some(&(_, after)) = of_client.blocks.get(index) {
            joins += u64::from(before != NONE && self.order.are_joined(before, after));
        }
        self.work.moved_by_deletes += joins * of_client.blocks.len().saturating_sub(index) as u64;
    }

    /// What is inside a type goes with it.
    fn delete_inside(&mut self, item: Id) {
        let mut types = vec![item];
        while let Some(item) = types.pop() {
            let mut list = self.order.of_types.get(&item).copied().unwrap_or(NONE);
            while let Some(of_type) = self.order.list(list) {
                let (mut at, mut latest, mut count) = (of_type.first, 0, 0u64);
                while at != NONE {
                    let block = self.order.block(at);
                    count += 1;
                    if block.class == Class::Type {
                        types.push(Id { client: self.order.id_of(block.at.client), clock: block.at.clock });
                    }
                    if block.at.clock < latest {
                        // A set of ranges in a list: what comes before moves the rest.
                        self.work.moved_by_deletes += count / 3;
                    }
                    latest = latest.max(block.at.clock);
                    at = block.next;
                }
                self.work.deletes += count;
                list = of_type.sibling;
            }
        }
    }
}
