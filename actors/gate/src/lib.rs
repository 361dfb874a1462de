//! The gate between client bytes and yrs.
//!
//! yrs trusts what it decodes: an update of twelve bytes can make it use freed memory, loop for ever, or leave a document that
//! can never be encoded again, and no `catch_unwind` contains that. So nothing reaches it that did not pass here first.
//!
//! The gate is safe Rust without recursion, without a panic, and its memory is proportional to its input (at most 64 times the
//! bytes plus 1 MiB). It knows nothing of documents, sockets or stores: bytes in, decisions out.
//!
//! Read in this order: [`lib0`] reads the primitives; [`Update`] parses what a client sent and checks every rule that needs no
//! document.
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]

mod awareness;
mod block;
mod caps;
pub mod lib0;
mod malformed;
mod state_vector;
mod update;
mod value;

pub use awareness::{AwarenessEntry, AwarenessUpdate, encode_awareness};
pub use caps::Caps;
pub use malformed::{Malformed, Rule};
pub use state_vector::StateVector;
pub use update::Update;
