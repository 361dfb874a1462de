//! Who is convicted of what nobody can fold, and what goes with it. A trial itself needs processes: here an update takes as long to fold as it
//! has bytes, and what the dearest takes is what one fold may.

use crate::faults::Fault;
use crate::node::Shared;
use bytes::Bytes;
use contextnexus_actors::budget::Budgets;
use contextnexus_actors::document::state::{DocumentState, Unsound};
use contextnexus_actors::ids::{Tip, UserId};
use contextnexus_actors::ports::log::{Extent, LogRow, Quarantine, QuarantineReason};
use contextnexus_gate::{Caps, Update, hollow};
use uuid::Uuid;

const NOTHING: &[u8] = &[0, 0];

/// An update of the log.
struct Logged {
    row: LogRow,
    seq: u64,
    update: Bytes,
}

impl Shared {
    /// One of the editors' updates cannot be folded: it is taken out, and true from now on is what is left.
    pub fn convict(&mut self, which: usize, is_editors: impl Fn(UserId) -> bool) {
        let updates = self.updates();
        let has_content = |logged: &&Logged| parse(&logged.update).contents().next().is_some();
        let is_theirs = |logged: &&Logged| logged.row.authorship.user().is_some_and(&is_editors);
        let is_new = |logged: &&Logged| hollow(&parse(&logged.update)) != logged.update;
        let candidates: Vec<_> = updates.iter().filter(has_content).filter(is_theirs).filter(is_new).collect();
        let Some(convicted) = which.checked_rem(candidates.len()).map(|at| candidates[at]) else { return };
        self.saw("an update was taken out");
        let update = parse(&convicted.update);
        self.store.took_out(&hollow(&update));
        self.convicted.extend(update.clients().map(|section| section.0));
        let what = self.sentence(convicted);
        self.quarantined.push(Quarantine { user: convicted.row.authorship.user(), ..what.clone() });
        self.store.quarantine(&what);
        if self.fault == Some(Fault::DraggedAlong) {
            for logged in updates.iter().filter(|logged| logged.row.seq_from == convicted.row.seq_from) {
                self.empty(&self.sentence(logged));
            }
            while let Err(Unsound::Log(all)) = self.try_to_load() {
                all.iter().for_each(|what| self.empty(what));
            }
        }
    }

    /// A process died beside a fold of something honest.
    pub fn try_log(&mut self, which: usize) {
        let updates = self.updates();
        let Some(last) = which.checked_rem(updates.len()) else { return };
        let (mut taken, allowed) = (0, updates.iter().map(|logged| logged.update.len()).max().unwrap_or_default());
        self.saw("a log was tried");
        for logged in &updates[..=last] {
            match self.fault {
                Some(Fault::FoldsAddedUp) => taken += logged.update.len(),
                _ => taken = logged.update.len(),
            }
            if taken > allowed {
                let what = self.sentence(logged);
                return self.store.quarantine(&what);
            }
        }
    }

    fn updates(&self) -> Vec<Logged> {
        let rows = self.store.log.rows(self.store.key).into_iter();
        rows.flat_map(|row| {
            let updates = row.updates.clone().into_iter();
            (row.seq_from..).zip(updates).map(move |(seq, update)| Logged { row: row.clone(), seq, update })
        })
        .collect()
    }

    fn sentence(&self, logged: &Logged) -> Quarantine {
        Quarantine {
            seq_from: logged.row.seq_from,
            extent: Extent::Content(logged.seq),
            new_tip: Tip(Uuid::from_u128(u128::from(logged.seq) << 80 | self.quarantined.len() as u128)),
            reason: QuarantineReason::FoldOverran,
            update: logged.update.clone(),
            user_session: None,
            user: None,
        }
    }

    /// As whole rows went once.
    fn empty(&self, what: &Quarantine) {
        let (extent, update) = (Extent::Rest(what.seq(), Bytes::from_static(NOTHING)), what.update.clone());
        self.store.log.quarantine_now(self.store.key, &Quarantine { extent, update, ..what.clone() }).unwrap();
    }

    fn try_to_load(&self) -> Result<(), Unsound> {
        let stored = self.store.load().unwrap();
        DocumentState::load(stored, self.limits.clone(), Budgets::of(&self.limits), self.now).map(drop)
    }
}

fn parse(update: &Bytes) -> Update {
    Update::parse(update.clone(), &Caps::of_the_log()).unwrap()
}
