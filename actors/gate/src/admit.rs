//! Admission: which part of an update follows on what the log holds.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;

use crate::caps::Caps;
use crate::cost::Cost;
use crate::encode;
use crate::index::{Delta, Index, Prefix};
use crate::order::Order;
use crate::ranges::Ranges;
use crate::state_vector::StateVector;
use crate::switches::{Check, is_on};
use crate::update::Update;
use crate::walk::Walk;

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
    /// What it costs to fold `content`, estimated; zero where there was no [`Order`].
    pub cost: Cost,
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
    #[error("{}", self.reason())]
    Circular,
    /// A block names an item as its parent that is no shared type.
    #[error("{}", self.reason())]
    ParentNotAType,
    /// The origin and the right origin of a block stand in different types, or under different keys; or one is
    /// collected and the other stands in something that lives. pycrdt makes such a block of an insertion inside a character.
    #[error("{}", self.reason())]
    DifferentPlaces,
    /// Text, a format or several values under a key, where only one value belongs.
    #[error("{}", self.reason())]
    UnfitForKey,
    /// The right origin of a block stands left of its origin, or its author has seen something between the two: the origin of the right one, or the
    /// right origin of the left one. Replicas would not agree where it stands. pycrdt makes such a block of an insertion inside a character.
    #[error("{}", self.reason())]
    RightOriginFirst,
    /// Folding it would take yrs, and every client, longer than the cap.
    #[error("the update takes longer than {max_ms} ms to fold (integration_ms_max)")]
    TooCostly {
        /// The cap.
        max_ms: u64,
    },
    /// Shared types nested beyond the cap.
    #[error("shared types are nested more than {max} deep (type_depth_max)")]
    TypesTooDeep {
        /// The cap.
        max: usize,
    },
    /// The document would have more clients than the cap.
    #[error("the document would have more than {max} client ids (document_clients_max)")]
    TooManyClients {
        /// The cap.
        max: usize,
    },
}

impl Refused {
    /// The cap that was exceeded, by the name of its setting; none for what no setting admits.
    pub fn limit(&self) -> Option<&'static str> {
        match self {
            Self::TypesTooDeep { .. } => Some("type_depth_max"),
            Self::TooManyClients { .. } => Some("document_clients_max"),
            Self::TooCostly { .. } => Some("integration_ms_max"),
            Self::Circular
            | Self::ParentNotAType
            | Self::DifferentPlaces
            | Self::UnfitForKey
            | Self::RightOriginFirst => None,
        }
    }

    /// The text without numbers, for a close frame.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Circular => "blocks of several clients refer to each other in a circle",
            Self::ParentNotAType => "a parent is not a shared type",
            Self::DifferentPlaces => {
                "origin and right origin are in different shared types; write it again from a fresh document"
            }
            Self::UnfitForKey => "text, a format or several values under a key",
            Self::RightOriginFirst => "origin and right origin are no neighbours; write it again from a fresh document",
            Self::TooCostly { .. } => "the update takes too long to fold; send it in parts (integration_ms_max)",
            Self::TypesTooDeep { .. } => "shared types are nested too deeply (type_depth_max)",
            Self::TooManyClients { .. } => "the document has too many client ids (document_clients_max)",
        }
    }
}

/// Decides what of `update` follows on `index` and what stands before it in the batch, and adds that to `delta`.
///
/// Blocks that are known are trimmed, a block that is known in part is split as Yjs splits it. At a gap, which a reference to
/// an unknown block or a delete beyond the known clock is too, what follows on is admitted and the rest reported in
/// [`Admission::missing`]. `may_write` is asked once for each client with new blocks. `index` is not changed; when the update is
/// refused, `delta` and `order` are not either.
///
/// `order` is that of the index with what stands before in the batch. Without it, content that replicas would order differently and content that is
/// too dear to fold are admitted: that will do to learn what of an update is known.
pub fn admit(
    index: &Index,
    delta: &mut Delta,
    order: Option<&mut Order>,
    update: &Update,
    caps: &Caps,
    may_write: &mut dyn FnMut(u64) -> bool,
) -> Result<Admission, Refused> {
    let prefix = Prefix { index, delta };
    let mut walk = Walk::new(prefix, update, Some(caps.type_depth_max));
    walk.trim(may_write);
    walk.follow()?;
    let deletes = walk.deletes();
    let added = walk.added();

    // Counting is worth its time only where the cap is near.
    if index.clients_len() + prefix.delta.clients_len() + added.len() > caps.document_clients_max
        && prefix.clients_with(added.iter().map(|(client, _)| *client)) > caps.document_clients_max
        && is_on(Check::TooManyClients)
    {
        return Err(Refused::TooManyClients { max: caps.document_clients_max });
    }

    let parts = walk.parts();
    let cost = match order {
        Some(order) => {
            let place = |id| walk.unit(id).place;
            order.take_in(update, &parts, &deletes.ranges, place, Some(caps.integration_ms_max))?
        }
        None => Cost::default(),
    };
    let content = if parts.is_empty() && deletes.ranges.iter().all(|(_, ranges)| ranges.is_empty()) {
        Content::Nothing
    } else if deletes.are_whole && update.is_plain && walk.is_whole() {
        Content::Whole
    } else {
        Content::Part(encode::part_of(update, &parts, &deletes.ranges))
    };
    let (trimmed, withheld, missing, taken) = walk.finish();
    taken.add_to(update, delta);
    for (client, range) in deletes.into_iter() {
        delta.add_deleted(client, range);
    }
    let missing = (!missing.is_empty())
        .then(|| Missing { clocks: missing.into_iter().map(|(client, clock)| (client, u64::from(clock))).collect() });
    Ok(Admission { content, added, trimmed, missing, withheld, cost })
}

/// What `state`, the whole state of a document, adds to an empty index. Nothing is refused.
pub(crate) fn seed(state: &Update) -> Delta {
    let (index, empty) = (Index::new(), Delta::default());
    let mut walk = Walk::new(Prefix { index: &index, delta: &empty }, state, None);
    walk.trim(&mut |_| true);
    // Without checks only a circle is refused, and what waits in one is left out like what waits for anything else.
    let _ = walk.follow();
    let mut deleted: HashMap<u64, Vec<Range<u32>>> = HashMap::new();
    for (client, range) in walk.deletes().into_iter().chain(walk.taken.gone.drain(..)) {
        deleted.entry(client).or_default().push(range);
    }
    let mut delta = Delta::default();
    walk.taken.add_to(state, &mut delta);
    for (client, mut ranges) in deleted {
        ranges.sort_unstable_by_key(|range| range.start);
        delta.set_deleted(client, Ranges::from_ordered(ranges.into_iter()));
    }
    delta
}
