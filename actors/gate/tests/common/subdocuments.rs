//! What a server must do beside folding, or yrs writes into memory that it freed.

use yrs::branch::BranchID;
use yrs::{Doc, ID, ReadTxn, Transact, TransactionMut};

/// After a transaction that deleted a sub-document, yrs looks into the item that held it, which it may have freed by then, joined
/// with what was deleted beside it. No gate can help: honest editors delete sub-documents. So the server makes the sub-document
/// forget its item in time (`actors/src/document/replica.rs`), and so do the documents of these tests.
pub fn spare_deleted(doc: &Doc) {
    doc.observe_after_transaction("subdocuments", forget_items).unwrap();
}

fn forget_items(transaction: &mut TransactionMut<'_>) {
    let deleted: Vec<Doc> = transaction
        .subdocs()
        .filter(|subdocument| item_of(subdocument).is_some_and(|item| transaction.delete_set().contains(&item)))
        .cloned()
        .collect();
    if deleted.is_empty() {
        return;
    }
    let stand_in = Doc::with_client_id(0u64);
    let mut of_stand_in = stand_in.transact_mut();
    for subdocument in deleted {
        subdocument.destroy(Some(&mut of_stand_in));
    }
}

fn item_of(subdocument: &Doc) -> Option<ID> {
    match subdocument.transact().branch_id()? {
        BranchID::Nested(item) => Some(item),
        BranchID::Root(_) => None,
    }
}
