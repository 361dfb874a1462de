//! How much of a log moves into quarantine with what must not be folded: as little as can be, because others have written around it.

use super::log::Quarantine;
use bytes::Bytes;
use contextnexus_gate::{Caps, Update, hollow};

/// The reason of what is sound itself, but lacks what was before it. It may come back, with what it lacks.
pub const DOES_NOT_CONTINUE: &str = "does_not_continue";

/// An update without blocks and without deletes.
const NOTHING: &[u8] = &[0, 0];

/// How much of a row is taken out of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Extent {
    /// All of it: the row is empty from then on.
    Row,
    /// The content of the update of this number. Its blocks stay, as something deleted, so that all that continues it still does
    /// ([`hollow`]). Where there are none, or where it cannot be folded without its content either, nothing of it stays.
    Content(u64),
    /// What of the update of this number does not continue what is before it; this is what does.
    Rest(u64, Bytes),
}

/// What a row becomes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Left {
    /// What stays in the row.
    pub updates: Vec<Bytes>,
    /// What is kept in quarantine, with its number.
    pub kept: Vec<(u64, Bytes)>,
}

impl Quarantine {
    /// What becomes of the row that holds these updates. `None`: it was done before, or is no longer what was read.
    pub fn leave(&self, updates: &[Bytes]) -> Option<Left> {
        let seq = match self.extent {
            Extent::Row if updates.is_empty() => return None,
            Extent::Row => {
                let kept = (self.seq_from..).zip(updates.iter().cloned()).collect();
                return Some(Left { updates: Vec::new(), kept });
            }
            Extent::Content(seq) | Extent::Rest(seq, _) => seq,
        };
        let at = usize::try_from(seq.checked_sub(self.seq_from)?).ok()?;
        let update = updates.get(at)?;
        let (stays, is_kept) = match &self.extent {
            Extent::Rest(_, stays) if *update == self.update => (stays.clone(), true),
            Extent::Rest(..) => return None,
            Extent::Content(_) | Extent::Row => self.without_content(update)?,
        };
        if stays == *update {
            return None;
        }
        let mut left = updates.to_vec();
        *left.get_mut(at)? = stays;
        Some(Left { updates: left, kept: is_kept.then(|| (seq, update.clone())).into_iter().collect() })
    }

    /// What stays of a stored update without its content, and whether it is to be kept.
    fn without_content(&self, update: &Bytes) -> Option<(Bytes, bool)> {
        let nothing = Bytes::from_static(NOTHING);
        match hollowed(update) {
            None => Some((nothing, true)),
            Some(hollowed) if hollowed != *update => Some((hollowed, true)),
            // What is left of a content that is in quarantine already: it is not kept again. Or it was read before that was taken out.
            Some(_) => {
                let was_whole = hollowed(&self.update).is_some_and(|hollowed| hollowed != self.update);
                (!was_whole).then_some((nothing, false))
            }
        }
    }

    /// The number of the update that it is about, or of the first.
    pub fn seq(&self) -> u64 {
        match self.extent {
            Extent::Content(seq) | Extent::Rest(seq, _) => seq,
            Extent::Row => self.seq_from,
        }
    }

    /// Whether a resend of it is refused before it is appended.
    pub fn is_final(&self) -> bool {
        self.reason != DOES_NOT_CONTINUE
    }
}

/// The update without its content. `None`: there are no blocks in it, or it cannot be read at all.
fn hollowed(update: &Bytes) -> Option<Bytes> {
    let update = Update::parse(update.clone(), &Caps::of_the_log()).ok()?;
    update.has_structs().then(|| hollow(&update))
}
