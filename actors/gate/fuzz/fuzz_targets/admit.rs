//! Several updates, each after its length, into one document: what the gate admits yrs folds, and reads again the same.
#![no_main]

use bytes::Bytes;
use contextnexus_gate::{Caps, Content, Delta, Index, Update, admit};
use libfuzzer_sys::fuzz_target;
use yrs::updates::decoder::Decode;
use yrs::{Doc, OffsetKind, Options, ReadTxn, StateVector, Transact};

fn doc() -> Doc {
    let mut options = Options::with_client_id(yrs::ClientID::new(1));
    options.offset_kind = OffsetKind::Utf16;
    options.cleanup_formatting = false;
    Doc::with_options(options)
}

fn fold(doc: &Doc, row: &[u8]) {
    let mut txn = doc.try_transact_mut().expect("nobody else");
    txn.apply_update(yrs::Update::decode_v1(row).expect("yrs reads it")).expect("yrs applies it");
    assert!(!txn.has_missing_updates());
}

fuzz_target!(|data: &[u8]| {
    let caps = Caps::default();
    let (live, mut index, mut rest) = (doc(), Index::new(), data);
    while let Some((&len, after)) = rest.split_first() {
        let (update, after) = after.split_at(after.len().min(usize::from(len)));
        rest = after;
        let Ok(update) = Update::parse(Bytes::copy_from_slice(update), &caps) else { continue };
        let mut delta = Delta::default();
        let Ok(admission) = admit(&index, &mut delta, None, &update, &caps, &mut |_| true) else { continue };
        match &admission.content {
            Content::Nothing => continue,
            Content::Whole => fold(&live, update.bytes()),
            Content::Part(part) => fold(&live, part),
        }
        index.apply(delta);
    }
    let txn = live.try_transact().expect("nobody else");
    let state = txn.encode_state_as_update_v1(&StateVector::default());
    let reloaded = doc();
    fold(&reloaded, &state);
    assert_eq!(reloaded.try_transact().expect("nobody else").state_vector(), txn.state_vector());
});
