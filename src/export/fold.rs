//! Puts blocks in order: the integration of YATA, as in every Yjs peer, over blocks that need no cutting any more.

use super::ExportError;
use super::decode::{Block, Blocks, Content, Id, Parent, TypeKind};
use super::out::Patience;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// No item, no type.
pub(super) const NONE: u32 = u32::MAX;

/// A document, in order.
#[derive(Debug)]
pub(super) struct Folded<'a> {
    pub(super) items: Vec<Item<'a>>,
    pub(super) types: Vec<Type<'a>>,
    /// Root name to type.
    pub(super) roots: BTreeMap<&'a str, u32>,
    pub(super) values: Vec<&'a [u8]>,
}

/// A block with its neighbours.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) block: Block<'a>,
    left: u32,
    pub(super) right: u32,
    /// The type it stands in; [`NONE`] for what has no place.
    parent: u32,
    /// The type it holds.
    pub(super) holds: u32,
    integrated: bool,
}

/// A shared type.
#[derive(Debug, Default)]
pub(super) struct Type<'a> {
    /// The first item of its sequence.
    pub(super) start: u32,
    /// Key to the first and the last item of that key; the last is the entry.
    keys: BTreeMap<&'a str, (u32, u32)>,
}

impl<'a> Folded<'a> {
    pub(super) fn item(&self, at: u32) -> Option<&Item<'a>> {
        self.items.get(at as usize)
    }

    /// A type's items that are to be seen, in order.
    pub(super) fn sequence(&self, r#type: u32) -> impl Iterator<Item = &Item<'a>> {
        let mut at = self.types.get(r#type as usize).map_or(NONE, |r#type| r#type.start);
        std::iter::from_fn(move || {
            let item = self.items.get(at as usize)?;
            at = item.right;
            Some(item)
        })
        .filter(|item| !item.block.deleted)
    }

    /// A type's entries that are to be seen, in order of their keys.
    pub(super) fn entries(&self, r#type: u32) -> impl Iterator<Item = (&'a str, &Item<'a>)> {
        let keys = self.types.get(r#type as usize).map(|r#type| &r#type.keys);
        keys.into_iter().flatten().filter_map(|(key, (_, last))| {
            let item = self.items.get(*last as usize)?;
            (!item.block.deleted).then_some((*key, item))
        })
    }

    /// What a root is, by what stands or stood in it. Never guessed by opening it as something.
    ///
    /// Yjs forgets what deleted content was, and a root from which all was deleted could have been a text or an array.
    /// Nested types leave a trace, since what was inside them stays as collected blocks behind them. Without that trace
    /// the root is a text: texts are what people empty.
    pub(super) fn kind_of_root(&self, r#type: u32) -> RootKind {
        let mut found = RootKind::Empty;
        let Some(root) = self.types.get(r#type as usize) else { return found };
        let (mut at, mut has_gone, mut had_types) = (root.start, false, false);
        while let Some(item) = self.items.get(at as usize) {
            let kind = match item.block.content {
                Content::Text { .. } | Content::Format { .. } => return RootKind::Text,
                Content::Embed(_) => RootKind::Embeds,
                Content::Type(TypeKind::Element(_) | TypeKind::XmlText) => RootKind::Xml,
                Content::Type(_) | Content::Values { .. } | Content::Binary(_) | Content::Document(_) => {
                    RootKind::Array
                }
                Content::Gone => {
                    has_gone = true;
                    had_types |= self.held_a_type(at);
                    RootKind::Empty
                }
                Content::Collected => RootKind::Empty,
            };
            found = found.max(kind);
            at = item.right;
        }
        match found {
            RootKind::Empty if !root.keys.is_empty() => RootKind::Map,
            RootKind::Empty if has_gone && !had_types => RootKind::Text,
            RootKind::Embeds => RootKind::Text,
            found => found,
        }
    }

    /// Whether something deleted was a type with content: the next block of its client is collected.
    fn held_a_type(&self, at: u32) -> bool {
        let next = |at: u32| self.items.get(at as usize).map(|item| &item.block);
        let (Some(gone), Some(behind)) = (next(at), at.checked_add(1).and_then(next)) else { return false };
        behind.id.client == gone.id.client && matches!(behind.content, Content::Collected)
    }
}

/// What a root is. Ordered by what outweighs what.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum RootKind {
    Empty,
    Map,
    /// Embedded things and nothing else: a text that has lost its letters.
    Embeds,
    Array,
    Xml,
    Text,
}

/// Integrates every block after those it refers to.
pub(super) fn fold<'a>(blocks: Blocks<'a>, deadline: Instant) -> Result<Folded<'a>, ExportError> {
    let Blocks { blocks, clients, values } = blocks;
    let items = blocks.into_iter().map(|block| Item {
        block,
        left: NONE,
        right: NONE,
        parent: NONE,
        holds: NONE,
        integrated: false,
    });
    let mut fold = Fold {
        folded: Folded { items: items.collect(), types: Vec::new(), roots: BTreeMap::new(), values },
        next: clients.iter().map(|(client, range)| (*client, range.start)).collect(),
        before: Vec::new(),
        conflicting: Vec::new(),
        mark: 0,
        patience: Patience::new(deadline),
        clients,
    };
    fold.before = vec![0; fold.folded.items.len()];
    fold.conflicting = fold.before.clone();
    let mut order: Vec<u64> = fold.clients.keys().copied().collect();
    order.sort_unstable();
    for client in order {
        fold.client(client)?;
    }
    Ok(fold.folded)
}

struct Fold<'a> {
    folded: Folded<'a>,
    clients: HashMap<u64, std::ops::Range<u32>>,
    /// Each client's first item that is not integrated yet.
    next: HashMap<u64, u32>,
    /// Per item the last mark under which it was seen before the origin, and among the conflicting ones.
    before: Vec<u32>,
    conflicting: Vec<u32>,
    mark: u32,
    patience: Patience,
}

impl<'a> Fold<'a> {
    /// Integrates everything of one client, and what it refers to first.
    fn client(&mut self, client: u64) -> Result<(), ExportError> {
        // Whose items are being integrated, and up to which.
        let mut stack = vec![(client, NONE)];
        while let Some((client, until)) = stack.last().copied() {
            self.patience.step()?;
            let end = self.clients.get(&client).map_or(0, |range| range.end);
            let at = self.next.get(&client).copied().unwrap_or(end);
            if at >= end || at > until {
                stack.pop();
                continue;
            }
            match self.missing(at) {
                // A circle of references: no honest client makes one. The item has no place.
                Some(needed) if stack.iter().any(|(waiting, _)| *waiting == needed.0) => self.drop_item(at),
                Some(needed) => {
                    stack.push(needed);
                    continue;
                }
                None => self.integrate(at)?,
            }
            self.next.insert(client, at + 1);
        }
        Ok(())
    }

    /// Whose item must be integrated before this one.
    fn missing(&self, at: u32) -> Option<(u64, u32)> {
        let block = &self.folded.item(at)?.block;
        let parent = match block.parent {
            Parent::Item(id) => Some(id),
            _ => None,
        };
        [block.origin, block.right_origin, parent].into_iter().flatten().find_map(|id| {
            let found = self.find(id)?;
            let is_integrated = self.folded.item(found).is_none_or(|item| item.integrated);
            (!is_integrated).then_some((id.client, found))
        })
    }

    /// The item that holds this unit.
    fn find(&self, id: Id) -> Option<u32> {
        let range = self.clients.get(&id.client)?;
        let items = self.folded.items.get(range.start as usize..range.end as usize)?;
        let at = items.partition_point(|item| item.block.id.clock <= id.clock).checked_sub(1)?;
        let block = &items.get(at)?.block;
        (id.clock - block.id.clock < block.len).then_some(range.start + at as u32)
    }

    fn drop_item(&mut self, at: u32) {
        if let Some(item) = self.folded.items.get_mut(at as usize) {
            item.block.content = Content::Collected;
            item.block.deleted = true;
            item.integrated = true;
        }
    }

    fn integrate(&mut self, at: u32) -> Result<(), ExportError> {
        let Some(item) = self.folded.item(at) else { return Ok(()) };
        let block = item.block;
        if matches!(block.content, Content::Collected) {
            self.drop_item(at);
            return Ok(());
        }
        // A reference to nothing, or into what was collected, leaves no place.
        let (left, right) = match (self.reference(block.origin), self.reference(block.right_origin)) {
            (Some(left), Some(right)) => (left, right),
            _ => {
                self.drop_item(at);
                return Ok(());
            }
        };
        let Some((parent, key)) = self.place(&block, left, right) else {
            self.drop_item(at);
            return Ok(());
        };
        let left = self.resolve_left(at, &block, left, right, parent, key)?;
        self.link(at, left, parent, key);
        if matches!(block.content, Content::Type(_)) {
            let holds = self.folded.types.len() as u32; // at most one per item
            self.folded.types.push(Type { start: NONE, keys: BTreeMap::new() });
            if let Some(item) = self.folded.items.get_mut(at as usize) {
                item.holds = holds;
            }
        }
        Ok(())
    }

    /// The item of a reference, [`NONE`] for no reference; nothing for one that leads nowhere.
    fn reference(&self, id: Option<Id>) -> Option<u32> {
        let Some(id) = id else { return Some(NONE) };
        let found = self.find(id)?;
        let item = self.folded.item(found)?;
        (!matches!(item.block.content, Content::Collected)).then_some(found)
    }

    /// The type and key of an item: its own, or those of its left or right neighbour.
    fn place(&mut self, block: &Block<'a>, left: u32, right: u32) -> Option<(u32, Option<&'a str>)> {
        match block.parent {
            Parent::Root(name) => {
                let types = &mut self.folded.types;
                let root = *self.folded.roots.entry(name).or_insert_with(|| {
                    types.push(Type { start: NONE, keys: BTreeMap::new() });
                    types.len() as u32 - 1
                });
                Some((root, block.key))
            }
            Parent::Item(id) => {
                let holds = self.folded.item(self.find(id)?)?.holds;
                (holds != NONE).then_some((holds, block.key))
            }
            Parent::OfOrigin => {
                let neighbour = self.folded.item(if left == NONE { right } else { left })?;
                Some((neighbour.parent, neighbour.block.key))
            }
        }
    }

    /// YATA's answer to who comes first where several insert at one place.
    fn resolve_left(
        &mut self,
        at: u32,
        block: &Block<'a>,
        left: u32,
        right: u32,
        parent: u32,
        key: Option<&'a str>,
    ) -> Result<u32, ExportError> {
        let mut left = left;
        let mut other = match self.folded.item(left) {
            Some(left) => left.right,
            None => self.first(parent, key),
        };
        self.mark += 1;
        let before_mark = self.mark;
        while other != NONE && other != right {
            self.patience.step()?;
            if let (Some(before), Some(conflicting)) =
                (self.before.get_mut(other as usize), self.conflicting.get_mut(other as usize))
            {
                *before = before_mark;
                *conflicting = self.mark;
            }
            let Some(item) = self.folded.item(other) else { break };
            let theirs = &item.block;
            let next = item.right;
            if theirs.origin == block.origin {
                if theirs.id.client < block.id.client {
                    left = other;
                    self.mark += 1;
                } else if theirs.right_origin == block.right_origin {
                    break;
                }
            } else {
                let origin = theirs.origin.and_then(|origin| self.find(origin)).unwrap_or(NONE) as usize;
                // Marks of this search are those from `before_mark` on.
                if self.before.get(origin).is_none_or(|mark| *mark != before_mark) {
                    break;
                }
                if self.conflicting.get(origin).is_none_or(|mark| *mark != self.mark) {
                    left = other;
                    self.mark += 1;
                }
            }
            other = next;
        }
        debug_assert_ne!(left, at);
        Ok(left)
    }

    fn first(&self, parent: u32, key: Option<&'a str>) -> u32 {
        let Some(parent) = self.folded.types.get(parent as usize) else { return NONE };
        match key {
            Some(key) => parent.keys.get(key).map_or(NONE, |(first, _)| *first),
            None => parent.start,
        }
    }

    /// Puts an item behind `left`.
    fn link(&mut self, at: u32, left: u32, parent: u32, key: Option<&'a str>) {
        let right = match self.folded.item(left) {
            Some(left) => left.right,
            None => self.first(parent, key),
        };
        let Folded { items, types, .. } = &mut self.folded;
        if let Some(left) = items.get_mut(left as usize) {
            left.right = at;
        }
        if let Some(right) = items.get_mut(right as usize) {
            right.left = at;
        }
        if let Some(item) = items.get_mut(at as usize) {
            item.left = left;
            item.right = right;
            item.parent = parent;
            item.block.key = key;
            item.integrated = true;
        }
        let Some(parent) = types.get_mut(parent as usize) else { return };
        match key {
            Some(key) => {
                let ends = parent.keys.entry(key).or_insert((at, at));
                if left == NONE {
                    ends.0 = at;
                }
                if right == NONE {
                    ends.1 = at;
                }
            }
            None if left == NONE => parent.start = at,
            None => {}
        }
    }
}
