//! The gate between client bytes and yrs.
//!
//! yrs trusts what it decodes: an update of twelve bytes can make it use freed memory, loop for ever, or leave a document that
//! can never be encoded again, and no `catch_unwind` contains that. So nothing reaches it that did not pass here first.
//!
//! The gate is safe Rust without recursion, without a panic, and its memory is proportional to its input (at most 64 times the
//! bytes plus 1 MiB). It knows nothing of documents, sockets or stores: bytes in, decisions out.
//!
//! Read in this order: [`lib0`] reads the primitives; [`Update`] parses what a client sent and checks every rule that needs no
//! document; [`admit()`] decides which part of it follows on what an [`Index`] holds; [`merge()`] makes one update of many; [`Recent`]
//! finds forks.
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admit;
mod awareness;
mod block;
mod caps;
mod chains;
mod encode;
mod index;
pub mod lib0;
mod malformed;
mod merge;
mod place;
mod ranges;
mod recent;
mod state_vector;
#[cfg_attr(feature = "switches", doc(hidden))]
#[cfg(feature = "switches")]
pub mod switches;
#[cfg(not(feature = "switches"))]
mod switches;
mod update;
mod value;
mod walk;

pub use admit::{Admission, Content, Known, Missing, Refused, admit};
pub use awareness::{AwarenessEntry, AwarenessUpdate, encode_awareness};
pub use caps::Caps;
pub use index::{Delta, Index};
pub use malformed::{Malformed, Rule};
pub use merge::merge;
pub use recent::{Fork, Recent};
pub use state_vector::StateVector;
pub use update::Update;
