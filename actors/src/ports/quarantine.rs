//! Why and how much of a log moves into quarantine with what must not be folded: as little as can be, because others have written around it.

use crate::ids::{Tip, UserId, UserSessionId};
use bytes::Bytes;
use contextnexus_gate::{Caps, Update, hollow};

/// Why bytes are in quarantine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuarantineReason {
    /// It contradicts what the document holds under the same client id.
    Fork,
    /// Others brought the same clocks of it as deleted before it came, so that nothing of it would have stayed.
    DeletedBeforeItCame,
    /// It is sound itself, but lacks what was before it. It may come back, with what it lacks.
    DoesNotContinue,
    /// yrs panicked over it, or answered an error.
    FoldPanicked,
    /// The process that folded it died.
    FoldDied,
    /// It was folded for longer than an update may be, twice.
    FoldOverran,
    /// A row of the log did not read back. Its bytes are kept as one lump.
    CorruptRow,
}

impl QuarantineReason {
    /// Those that broke what folded them.
    pub const BREAKING: [Self; 3] = [Self::FoldPanicked, Self::FoldDied, Self::FoldOverran];

    /// Its name in PostgreSQL, JSON, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::DeletedBeforeItCame => "deleted_before_it_came",
            Self::DoesNotContinue => "does_not_continue",
            Self::FoldPanicked => "fold_panicked",
            Self::FoldDied => "fold_died",
            Self::FoldOverran => "fold_overran",
            Self::CorruptRow => "corrupt_row",
        }
    }
}

impl std::fmt::Display for QuarantineReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An update without blocks and without deletes.
const NOTHING: &[u8] = &[0, 0];

/// Bytes that must not be folded again.
#[derive(Clone, Debug)]
pub struct Quarantine {
    /// First number of the row, 0 for what never entered the log.
    pub seq_from: u64,
    /// How much of the row.
    pub extent: Extent,
    /// The new tip of the log (unused for what never entered it).
    pub new_tip: Tip,
    /// Why.
    pub reason: QuarantineReason,
    /// The update as it was read, where known. Kept are the stored bytes of what was in the log.
    pub update: Bytes,
    /// Who delivered it, where known.
    pub user_session: Option<UserSessionId>,
    /// Whose it is, where known: who may download it.
    pub user: Option<UserId>,
}

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
pub struct TakenOut {
    /// What stays in the row.
    pub updates: Vec<Bytes>,
    /// What is kept in quarantine, with its number.
    pub kept: Vec<(u64, Bytes)>,
}

impl Quarantine {
    /// What becomes of the row that holds these updates. `None`: it was done before, or is no longer what was read.
    pub fn leave(&self, updates: &[Bytes]) -> Option<TakenOut> {
        let seq = match self.extent {
            Extent::Row if updates.is_empty() => return None,
            Extent::Row => {
                let kept = (self.seq_from..).zip(updates.iter().cloned()).collect();
                return Some(TakenOut { updates: Vec::new(), kept });
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
        Some(TakenOut { updates: left, kept: is_kept.then(|| (seq, update.clone())).into_iter().collect() })
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
        self.reason != QuarantineReason::DoesNotContinue
    }
}

/// The update without its content. `None`: there is none in it, or it cannot be read at all.
fn hollowed(update: &Bytes) -> Option<Bytes> {
    let update = Update::parse(update.clone(), &Caps::of_the_log()).ok()?;
    let has_content = update.contents().next().is_some();
    has_content.then(|| hollow(&update))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Tip;
    use uuid::Uuid;

    /// Client 1 makes a map in the list "m".
    const TYPE: &[u8] = &[1, 1, 1, 0, 7, 1, 1, b'm', 1, 0];
    /// It also writes 126 under "k" in it.
    const FILLED: &[u8] = &[1, 2, 1, 0, 7, 1, 1, b'm', 1, 0x28, 0, 1, 0, 1, b'k', 1, 126, 0];
    /// Client 1's first unit is deleted.
    const DELETE: &[u8] = &[0, 1, 1, 1, 0, 1];

    fn taken(update: &'static [u8]) -> Option<TakenOut> {
        let what = Quarantine {
            seq_from: 1,
            extent: Extent::Content(1),
            new_tip: Tip(Uuid::nil()),
            reason: QuarantineReason::FoldDied,
            update: Bytes::from_static(update),
            user_session: None,
            user: None,
        };
        what.leave(&[Bytes::from_static(update)])
    }

    #[test]
    fn whatever_goes_is_kept_also_where_there_is_no_content() {
        for update in [TYPE, DELETE, b"unreadable"] {
            let kept = vec![(1, Bytes::from_static(update))];
            assert_eq!(taken(update), Some(TakenOut { updates: vec![Bytes::from_static(NOTHING)], kept }));
        }
        assert_eq!(taken(NOTHING), None, "nothing goes");
        let left = taken(FILLED).unwrap();
        assert_eq!(left.kept, [(1, Bytes::from_static(FILLED))]);
        let stays = Update::parse(left.updates[0].clone(), &Caps::of_the_log()).unwrap();
        assert_eq!(stays.clients().collect::<Vec<_>>(), [(1, 0, 2)], "all of its clocks");
    }
}
