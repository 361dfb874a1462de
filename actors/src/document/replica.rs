//! The document in memory: a yrs document that only ever holds the fold of a log prefix.
//!
//! A document that is only read stays packed, as the snapshot and the updates that it was loaded from: as a tree, yrs takes eight times the
//! bytes of its state, and milliseconds to make it. Whoever needs the tree unpacks it first.
//!
//! yrs writes some values differently from how it read them. In the tree these are wrapped
//! (`contextnexus_gate::wrapped`); only this module sees them so.
//!
//! The only module that calls yrs. Every call is made under `catch_unwind`; after a panic the document is never read again.

use super::weight::Weight;
use crate::ids::{DocumentId, DocumentKey, Position, TenantId};
use crate::ports::log::Snapshot;
use crate::ports::witness::{Fold, Folding, Nobody, Witness};
use bytes::Bytes;
use contextnexus_gate::{Caps, Index, Order, StateVector as Known, Update as Part, difference};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use uuid::Uuid;
use yrs::updates::decoder::Decode;
use yrs::updates::encoder::Encode;

use yrs::branch::BranchPtr;
use yrs::{
    BranchID, ClientID, Doc, GetString, ID, IdSet, OffsetKind, Options, ReadTxn, StateVector, TextRef, Transact,
    TransactionMut, Update,
};

/// A fold of a log prefix.
#[derive(Debug)]
pub struct Replica {
    form: Form,
    key: DocumentKey,
    witness: Arc<dyn Witness>,
    /// A call panicked: the document may hold dangling pointers, so it is leaked, and neither read nor dropped
    /// (docs/yrs-hazards.md, "After a panic").
    poisoned: bool,
}

#[derive(Debug)]
enum Form {
    /// What the log holds, not folded yet.
    Compact(Compact),
    /// The tree.
    Open(Doc),
}

/// The log from a snapshot on, as it was read.
#[derive(Debug, Default)]
struct Compact {
    /// The snapshot's number, and its state as one update.
    snapshot: Option<(u64, Bytes)>,
    /// What came after it, in order and without overlaps.
    updates: Vec<Unfolded>,
    /// Both as the gate reads them, for a while.
    parts: Vec<Part>,
}

/// An update of the log that yrs has not seen here.
#[derive(Debug)]
pub struct Unfolded {
    /// The number of the first update of its row.
    pub row: u64,
    /// Its own number.
    pub seq: u64,
    /// What the gate left of it.
    pub update: Bytes,
}

/// Why an update that the gate admitted could not be folded, or a state not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaError {
    /// yrs cannot decode it.
    #[error("yrs cannot decode the update")]
    Undecodable,
    /// yrs refused it part way.
    #[error("yrs refused the update")]
    Refused,
    /// It left structs or deletes pending.
    #[error("the update does not continue the document")]
    Pending,
    /// Read back, it is another document.
    #[error("the state reads back as another document")]
    Differs,
    /// Read back, it would take longer to fold than any update may.
    #[error("the state takes longer to fold than an update may (integration_ms_max)")]
    TooDear,
    /// The snapshot on which the replica stands cannot be folded.
    #[error("the snapshot at {seq} cannot be folded: {why}")]
    Snapshot {
        /// Its number.
        seq: u64,
        /// What yrs said.
        why: Box<ReplicaError>,
    },
    /// An update of the log that was read when the document was loaded cannot be folded.
    #[error("the update {seq} of the log cannot be folded: {why}")]
    Logged {
        /// The number of the first update of its row.
        row: u64,
        /// Its own number.
        seq: u64,
        /// What yrs was given.
        update: Bytes,
        /// What yrs said.
        why: Box<ReplicaError>,
    },
    /// This needs the tree, and it was not [unpacked](Replica::unpack).
    #[error("the document is packed")]
    Packed,
    /// yrs panicked; the replica is lost.
    #[error("yrs panicked")]
    Panicked,
}

impl Default for Replica {
    fn default() -> Self {
        Self::new()
    }
}

impl Replica {
    /// The fold of the empty log, of no document in particular.
    pub fn new() -> Self {
        Self::witnessed(
            DocumentKey { tenant: TenantId(Uuid::nil()), document: DocumentId(Uuid::nil()) },
            Arc::new(Nobody),
        )
    }

    /// The fold of this document's log before its first update. `witness` hears of every fold.
    pub fn witnessed(key: DocumentKey, witness: Arc<dyn Witness>) -> Self {
        Self { form: Form::Open(Self::empty()), key, witness, poisoned: false }
    }

    fn empty() -> Doc {
        let mut options = Options::with_client_id(ClientID::new(0)); // it never writes
        options.offset_kind = OffsetKind::Utf16;
        // yrs would delete dead format marks of its own accord while it folds: content that is in no log row, differs
        // from node to node by how updates were batched, and shows as another format at those who never hear of it.
        options.cleanup_formatting = false;
        let doc = Doc::with_options(options);
        // The document is new: nobody else has a transaction, which is all that could refuse.
        let observed = doc.observe_after_transaction("subdocuments", spare_deleted_subdocuments);
        debug_assert!(observed.is_ok());
        doc
    }

    /// Folds one update in, the one of that number. After any error the replica must be dropped: it is no longer the fold of a prefix.
    pub fn fold(&mut self, seq: u64, update: &Part) -> Result<(), ReplicaError> {
        self.fold_in(Folding::Update(seq), update)
    }

    /// The fold of the log through this snapshot (its number and state) and the updates after it, in order and trimmed by the gate. yrs sees
    /// nothing of them before the tree is needed.
    pub fn pack(&mut self, snapshot: Option<(u64, Bytes)>, updates: Vec<Unfolded>) {
        let (key, witness) = (self.key, self.witness.clone());
        *self = Self {
            form: Form::Compact(Compact { snapshot, updates, parts: Vec::new() }),
            key,
            witness,
            poisoned: false,
        };
    }

    /// Makes the tree, where there is none. After an error, which names what cannot be folded, the replica must be dropped.
    pub fn unpack(&mut self) -> Result<(), ReplicaError> {
        let Form::Compact(packed) = &mut self.form else { return Ok(()) };
        let packed = std::mem::take(packed);
        self.form = Form::Open(Self::empty());
        let folded = self.fold_compact(packed);
        self.poisoned |= folded.is_err(); // it is the fold of nothing
        folded
    }

    fn fold_compact(&mut self, packed: Compact) -> Result<(), ReplicaError> {
        let mut parts = packed.parts.into_iter(); // all of them, or none
        let mut part = |bytes| parts.next().map_or_else(|| parsed(bytes), Ok);
        if let Some((seq, state)) = packed.snapshot {
            part(state)
                .and_then(|state| self.fold_in(Folding::Snapshot(seq), &state))
                .map_err(|why| ReplicaError::Snapshot { seq, why: Box::new(why) })?;
        }
        for Unfolded { row, seq, update } in packed.updates {
            part(update.clone()).and_then(|part| self.fold(seq, &part)).map_err(|why| ReplicaError::Logged {
                row,
                seq,
                update,
                why: Box::new(why),
            })?;
        }
        Ok(())
    }

    /// What the tree will take in memory, where there is none.
    pub fn weigh(&mut self) -> Result<Option<Weight>, ReplicaError> {
        let Form::Compact(packed) = &mut self.form else { return Ok(None) };
        let mut weight = Weight::default();
        packed.parts()?.iter().for_each(|part| weight.add(part));
        Ok(Some(weight))
    }

    /// Of which document.
    pub fn key(&self) -> DocumentKey {
        self.key
    }

    /// Whether there is no tree.
    pub fn is_compact(&self) -> bool {
        matches!(self.form, Form::Compact(_))
    }

    /// Whether the parts are kept as the gate parsed them, which only makes the next [`state`](Self::state) or [`diff`](Self::diff) quicker: 16 bytes a
    /// block.
    pub fn has_parsed(&self) -> bool {
        matches!(&self.form, Form::Compact(packed) if !packed.parts.is_empty())
    }

    /// Lets go of them.
    pub fn forget_parsed(&mut self) {
        if let Form::Compact(packed) = &mut self.form {
            packed.parts = Vec::new();
        }
    }

    /// Whether there are updates that yrs has not folded yet.
    pub fn has_unfolded(&self) -> bool {
        matches!(&self.form, Form::Compact(packed) if !packed.updates.is_empty())
    }

    fn fold_in(&mut self, what: Folding, update: &Part) -> Result<(), ReplicaError> {
        let (key, witness) = (self.key, self.witness.clone());
        let folded = self.guarded(|doc| {
            witness.folding(&Fold { key, what, update: update.bytes() });
            let wrapped = contextnexus_gate::wrapped(update);
            let steps = steps(what, update, wrapped.as_ref())?;
            let mut transaction = doc.try_transact_mut().map_err(|_| ReplicaError::Refused)?;
            let whole = steps.is_empty().then_some(wrapped.as_ref().unwrap_or(update.bytes()));
            for step in steps.iter().chain(whole) {
                let step = Update::decode_v1(step).map_err(|_| ReplicaError::Undecodable)?;
                transaction.apply_update(step).map_err(|_| ReplicaError::Refused)?;
            }
            let store = transaction.store();
            if store.pending_update().is_some() || store.pending_ds().is_some() {
                return Err(ReplicaError::Pending);
            }
            Ok(())
        });
        witness.folded();
        folded
    }

    /// What somebody at `state_vector` (v1 encoding, checked by the gate) lacks, as one update.
    pub fn diff(&mut self, state_vector: &[u8]) -> Result<Bytes, ReplicaError> {
        if let Form::Compact(packed) = &mut self.form {
            let known = Known::parse(state_vector).map_err(|_| ReplicaError::Undecodable)?;
            return Ok(contextnexus_gate::diff(packed.parts()?, &known));
        }
        self.encoded(&vector_of(state_vector)?)
    }

    /// The whole state as one update.
    pub fn state(&mut self) -> Result<Bytes, ReplicaError> {
        if let Form::Compact(packed) = &mut self.form {
            return packed.state();
        }
        self.encoded(&StateVector::default())
    }

    /// What somebody lacks of the tree, with every value as it came.
    fn encoded(&mut self, known: &StateVector) -> Result<Bytes, ReplicaError> {
        let encoded = self.guarded(|doc| {
            let transaction = doc.try_transact().map_err(|_| ReplicaError::Refused)?;
            Ok(Bytes::from(transaction.encode_diff_v1(known)))
        })?;
        contextnexus_gate::unwrapped(encoded).map_err(|_| ReplicaError::Undecodable)
    }

    /// The state vector, v1 encoding.
    pub fn state_vector(&mut self) -> Result<Bytes, ReplicaError> {
        self.guarded(|doc| {
            let transaction = doc.try_transact().map_err(|_| ReplicaError::Refused)?;
            Ok(Bytes::from(transaction.state_vector().encode_v1()))
        })
    }

    /// The whole state at this position, which is the replica's own, to be read back before it is relied on. `writers` goes with it.
    pub fn snapshot(&mut self, position: Position, writers: Bytes) -> Result<Unverified, ReplicaError> {
        let text = self.text()?;
        let (state, state_vector) = (self.state()?, self.state_vector()?);
        Ok(Unverified { snapshot: Snapshot { position, state, state_vector, writers }, text, committed: Vec::new() })
    }

    /// Whether a snapshot reads back as the document that this is: in state vector, deletes, text, and every byte of
    /// content.
    pub fn compare(&mut self, snapshot: &Snapshot) -> Result<(), ReplicaError> {
        let mut read_back = Self::read_back(snapshot)?;
        let vector = vector_of(&self.state_vector()?)?;
        let (ours, theirs) = (self.state()?, read_back.state()?);
        let is_same = vector == vector_of(&snapshot.state_vector)?
            && vector == vector_of(&read_back.state_vector()?)?
            && deletes_of(&ours)? == deletes_of(&theirs)?
            && difference(&parsed(ours)?, &[parsed(theirs)?, parsed(snapshot.state.clone())?]).is_none()
            && self.text()? == read_back.text()?;
        if is_same { Ok(()) } else { Err(ReplicaError::Differs) }
    }

    /// The fold of a snapshot alone.
    fn read_back(snapshot: &Snapshot) -> Result<Self, ReplicaError> {
        let mut fresh = Self::new();
        fresh.pack(Some((0, snapshot.state.clone())), Vec::new());
        fresh.unpack()?;
        Ok(fresh)
    }

    /// A hash of the text of every root type, in the order in which it is read: which no encoding of the blocks tells.
    fn text(&mut self) -> Result<u64, ReplicaError> {
        self.guarded(|doc| {
            let transaction = doc.try_transact().map_err(|_| ReplicaError::Refused)?;
            let mut roots: Vec<_> = transaction.root_refs().collect();
            roots.sort_unstable_by_key(|(name, _)| *name);
            let mut hasher = DefaultHasher::new();
            for (name, root) in roots {
                // Whatever kind of type it is: this walks its own items and goes into none of them.
                let Some(branch) = root.try_branch() else { continue };
                let text = TextRef::from(BranchPtr::from(branch)).get_string(&transaction);
                // A root of which nothing is left to read may have no name in the state.
                if !text.is_empty() {
                    (name, text).hash(&mut hasher);
                }
            }
            Ok(hasher.finish())
        })
    }

    fn guarded<T>(&mut self, call: impl FnOnce(&Doc) -> Result<T, ReplicaError>) -> Result<T, ReplicaError> {
        let doc = match &self.form {
            _ if self.poisoned => return Err(ReplicaError::Panicked),
            Form::Compact(_) => return Err(ReplicaError::Packed),
            Form::Open(doc) => doc,
        };
        catch_unwind(AssertUnwindSafe(|| call(doc))).unwrap_or_else(|_| {
            self.poisoned = true;
            Err(ReplicaError::Panicked)
        })
    }
}

/// In which steps an update is folded, where it is not folded whole. What a snapshot deletes is deleted in it already.
fn steps(what: Folding, update: &Part, wrapped: Option<&Bytes>) -> Result<Vec<Bytes>, ReplicaError> {
    if matches!(what, Folding::Snapshot(_)) {
        return Ok(Vec::new());
    }
    let steps = contextnexus_gate::steps(update);
    match wrapped {
        Some(wrapped) if !steps.is_empty() => Ok(contextnexus_gate::steps(&parsed(wrapped.clone())?)),
        _ => Ok(steps),
    }
}

/// What the log holds, as the gate reads it.
fn parsed(update: Bytes) -> Result<Part, ReplicaError> {
    Part::parse(update, &Caps::of_the_log()).map_err(|_| ReplicaError::Undecodable)
}

impl Compact {
    fn state(&mut self) -> Result<Bytes, ReplicaError> {
        match &self.snapshot {
            Some((_, state)) if self.updates.is_empty() => Ok(state.clone()),
            _ => Ok(contextnexus_gate::diff(self.parts()?, &Known::default())),
        }
    }

    fn parts(&mut self) -> Result<&[Part], ReplicaError> {
        if self.parts.is_empty() {
            let snapshot = self.snapshot.iter().map(|(_, state)| state);
            let parts = snapshot.chain(self.updates.iter().map(|unfolded| &unfolded.update));
            self.parts = parts.map(|part| parsed(part.clone())).collect::<Result<_, _>>()?;
        }
        Ok(&self.parts)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if self.poisoned {
            // Dropping walks the blocks, and after a panic some of them may be freed already. A leak is the safe loss.
            std::mem::forget(std::mem::replace(&mut self.form, Form::Compact(Compact::default())));
        } else {
            let _ = self.guarded(let_go_of_subdocuments); // what fails is leaked, as it would be without
        }
    }
}

/// After a transaction that deleted a sub-document, yrs writes into the item that held it, which it may have freed by then: joined with what was
/// deleted beside it, or gone with the type around it. So the sub-document is made to forget its item while that is still there. Another
/// document has to stand for the parent, because in the parent's own books it would be found again.
fn spare_deleted_subdocuments(transaction: &mut TransactionMut<'_>) {
    if transaction.delete_set().is_empty() {
        return;
    }
    let deleted: Vec<Doc> = transaction
        .subdocs()
        .filter(|subdocument| item_of(subdocument).is_some_and(|item| transaction.delete_set().contains(&item)))
        .cloned()
        .collect();
    if deleted.is_empty() {
        return;
    }
    let stand_in = Doc::with_client_id(0u64);
    let Ok(mut of_stand_in) = stand_in.try_transact_mut() else { return };
    for subdocument in deleted {
        subdocument.destroy(Some(&mut of_stand_in));
    }
}

/// The item that holds a sub-document. It must be there.
fn item_of(subdocument: &Doc) -> Option<ID> {
    match subdocument.try_transact().ok()?.branch_id()? {
        BranchID::Nested(item) => Some(item),
        BranchID::Root(_) => None,
    }
}

/// The item of a sub-document holds its parent, which holds the item: such a document would never be freed. What is deleted, yrs lets go of.
fn let_go_of_subdocuments(doc: &Doc) -> Result<(), ReplicaError> {
    let refused = |_| ReplicaError::Refused;
    let mut items: Vec<_> = {
        let transaction = doc.try_transact().map_err(refused)?;
        transaction.subdocs().filter_map(item_of).collect()
    };
    if items.is_empty() {
        return Ok(());
    }
    items.sort_by_key(|item| (item.client, item.clock));
    let mut deletes = IdSet::new();
    for item in items {
        deletes.insert(item, 1);
    }
    // An update of no blocks and these deletes.
    let update =
        Update::decode_v1(&[&[0], deletes.encode_v1().as_slice()].concat()).map_err(|_| ReplicaError::Undecodable)?;
    let mut transaction = doc.try_transact_mut().map_err(|_| ReplicaError::Refused)?;
    transaction.apply_update(update).map_err(|_| ReplicaError::Refused)
}

fn vector_of(bytes: &[u8]) -> Result<StateVector, ReplicaError> {
    StateVector::decode_v1(bytes).map_err(|_| ReplicaError::Undecodable)
}

fn deletes_of(state: &[u8]) -> Result<IdSet, ReplicaError> {
    let state = Update::decode_v1(state).map_err(|_| ReplicaError::Undecodable)?;
    Ok(state.delete_set().clone())
}

/// A state of so few bytes has too few blocks to be dear.
const CHEAP: usize = 2 << 10;

/// A whole state that nobody has read back yet.
#[derive(Clone, Debug)]
pub struct Unverified {
    snapshot: Snapshot,
    text: u64,
    committed: Vec<Bytes>,
}

impl Unverified {
    /// Of which position.
    pub fn position(&self) -> Position {
        self.snapshot.position
    }

    /// It must hold what these updates of the log hold, but for what was deleted.
    #[must_use]
    pub fn compared_with(mut self, committed: Vec<Bytes>) -> Self {
        self.committed = committed;
        self
    }

    /// The same of another state.
    #[cfg(test)]
    pub(in crate::document) fn of_state(mut self, state: Bytes) -> Self {
        self.snapshot.state = state;
        self
    }

    /// What its state takes in memory, once it is a tree; an error where yrs would take longer to make that than for an
    /// update of the size. A log is folded update by update, and each of them may take so long: as one update, which a
    /// snapshot is, all of them together may not.
    pub fn weigh(&self, integration_ms_max: u64) -> Result<Weight, ReplicaError> {
        let state = parsed(self.snapshot.state.clone())?;
        if state.bytes().len() > CHEAP {
            let (_, cost) = Order::of_state(&Index::from_state(&state), &state);
            if cost.exceeds(integration_ms_max, state.bytes().len()) {
                return Err(ReplicaError::TooDear);
            }
        }
        Ok(Weight::of(&state))
    }

    /// The snapshot, once its state was decoded into a fresh document that equals the one it was taken of: in state
    /// vector, deletes, text, and every byte of content. Takes milliseconds to seconds: for a worker, not for a
    /// document's thread.
    pub fn verify(self) -> Result<Snapshot, ReplicaError> {
        let Self { snapshot, text, committed } = self;
        let mut fresh = Replica::read_back(&snapshot)?;
        if vector_of(&fresh.state_vector()?)? != vector_of(&snapshot.state_vector)? {
            return Err(ReplicaError::Pending);
        }
        let read_back = fresh.state()?;
        if deletes_of(&read_back)? != deletes_of(&snapshot.state)? || fresh.text()? != text {
            return Err(ReplicaError::Differs);
        }
        let others = [read_back].into_iter().chain(committed).map(parsed).collect::<Result<Vec<_>, _>>()?;
        match difference(&parsed(snapshot.state.clone())?, &others) {
            None => Ok(snapshot),
            Some(_) => Err(ReplicaError::Differs),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use yrs::{Any, Map, MapPrelim, Text, WriteTxn, XmlElementPrelim, XmlFragment, XmlTextPrelim};

    use super::*;
    use crate::ids::Tip;

    const AT: Position = Position { seq: 1, tip: Tip(Uuid::nil()) };

    /// The replica of a document after these edits, each a transaction.
    fn replica(edits: &[&dyn Fn(&mut TransactionMut<'_>)]) -> Replica {
        let mut options = Options::with_client_id(ClientID::new(7));
        options.offset_kind = OffsetKind::Utf16;
        let editor = Doc::with_options(options);
        let mut replica = Replica::new();
        for edit in edits {
            let mut transaction = editor.try_transact_mut().unwrap();
            edit(&mut transaction);
            replica.fold(1, &parsed(transaction.encode_update_v1().into()).unwrap()).unwrap();
        }
        replica
    }

    #[test]
    fn a_state_that_reads_back_as_another_text_is_not_used() {
        let mut replica =
            replica(&[&|transaction| transaction.get_or_insert_text("text").insert(transaction, 0, "so it is")]);
        let honest = replica.snapshot(AT, Bytes::new()).unwrap();
        let false_one = Unverified { text: honest.text ^ 1, ..honest.clone() };
        assert_eq!(honest.verify().map(|snapshot| snapshot.position), Ok(AT));
        assert_eq!(false_one.verify().map(drop), Err(ReplicaError::Differs));
    }

    #[test]
    fn a_state_with_another_value_than_the_log_has_is_not_used() {
        // A map "m" with one entry, and what yrs would have made of it.
        let entry = |value: &[u8]| Bytes::from([&[1, 1, 7, 0, 0x28, 1, 1, b'm', 1, b'k', 1], value, &[0]].concat());
        let (written, changed) = (entry(&[125, 0x40]), entry(&[125, 0]));
        let mut replica = Replica::new();
        replica.fold(1, &parsed(written.clone()).unwrap()).unwrap();
        let honest = replica.snapshot(AT, Bytes::new()).unwrap().compared_with(vec![written]);
        let false_one = honest.clone().of_state(changed);
        assert_eq!(replica.compare(&honest.snapshot), Ok(()));
        assert_eq!(replica.compare(&false_one.snapshot), Err(ReplicaError::Differs));
        assert_eq!(honest.verify().map(|snapshot| snapshot.position), Ok(AT));
        assert_eq!(false_one.verify().map(drop), Err(ReplicaError::Differs));
    }

    #[test]
    fn what_is_left_of_deleted_roots_and_trees_reads_back() {
        let mut replica = replica(&[
            &|transaction| transaction.get_or_insert_text("text").insert(transaction, 0, "not for long"),
            &|transaction| {
                let tree = transaction.get_or_insert_xml_fragment("tree");
                let paragraph = tree.push_back(transaction, XmlElementPrelim::empty("p"));
                paragraph.push_back(transaction, XmlTextPrelim::new("inside"));
                transaction.get_or_insert_map("map").insert(transaction, "inner", MapPrelim::from([("a", 1)]));
            },
            &|transaction| {
                transaction.get_or_insert_text("text").remove_range(transaction, 0, 12);
                transaction.get_or_insert_xml_fragment("tree").remove_range(transaction, 0, 1);
                transaction.get_or_insert_map("map").remove(transaction, "inner");
            },
        ]);
        assert_eq!(replica.snapshot(AT, Bytes::new()).unwrap().verify().map(drop), Ok(()));
    }

    #[test]
    fn folding_deletes_nothing_that_no_update_deleted() {
        let mut options = Options::with_client_id(ClientID::new(7));
        options.offset_kind = OffsetKind::Utf16;
        let editor = Doc::with_options(options);
        let mut replica = Replica::new();
        let mut edit = |change: &dyn Fn(&yrs::TextRef, &mut yrs::TransactionMut<'_>)| {
            let mut transaction = editor.try_transact_mut().unwrap();
            let text = transaction.get_or_insert_text("text");
            change(&text, &mut transaction);
            let update = transaction.encode_update_v1();
            replica.fold(1, &parsed(update.clone().into()).unwrap()).unwrap();
            update
        };
        edit(&|text, transaction| text.insert(transaction, 0, "abcdef"));
        edit(&|text, transaction| text.format(transaction, 1, 3, [("bold".into(), Any::Bool(true))].into()));
        // The marks around what is deleted now are dead, and only their author may say so.
        let deletion = edit(&|text, transaction| text.remove_range(transaction, 1, 3));
        let state = Update::decode_v1(&replica.state().unwrap()).unwrap();
        assert_eq!(state.delete_set(), Update::decode_v1(&deletion).unwrap().delete_set());
    }
}
