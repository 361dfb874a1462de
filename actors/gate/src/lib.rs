//! The gate between client bytes and yrs.
//!
//! yrs trusts what it decodes: an update of twelve bytes can make it use freed memory, loop for ever, or leave a document that
//! can never be encoded again, and no `catch_unwind` contains that. So nothing reaches it that did not pass here first.
//!
//! The gate is safe Rust without recursion, without a panic, and its memory is proportional to its input (at most 64 times the
//! bytes plus 1 MiB). It knows nothing of documents, sockets or stores: bytes in, decisions out. `README.md` says what was tried
//! against it, and what it costs.
//!
//! # What it promises
//!
//! Of the bytes that [`admit()`] lets pass, applied in the order in which they were admitted:
//!
//! - yrs reads and applies them all, waits for nothing, and knows afterwards exactly what the [`Index`] knows;
//! - the document's state can be encoded, and a document loaded from it has the same state vector, deletes and content;
//! - clocks follow on without gaps or repetitions, every reference is to something known, and no cap is exceeded.
//!
//! What honest clients send is never refused: what is known is trimmed, what does not follow on yet is named in
//! [`Admission::missing`]. With the [`Order`] of the document it also promises that every replica reads the same, in whatever
//! order it came to know the rows, and that none takes longer to fold an update than [`Caps::integration_ms_max`] says.
//!
//! # In use
//!
//! ```
//! use bytes::Bytes;
//! use contextnexus_gate::{Caps, Content, Delta, Index, Order, Update, admit};
//!
//! // Client 1 writes "hi" into the text "t".
//! let bytes = Bytes::from_static(&[1, 1, 1, 0, 4, 1, 1, b't', 2, b'h', b'i', 0]);
//! let (caps, mut index, mut delta, mut order) = (Caps::default(), Index::new(), Delta::default(), Order::new());
//!
//! let update = Update::parse(bytes.clone(), &caps)?;
//! let admission = admit(&index, &mut delta, Some(&mut order), &update, &caps, &mut |_client| true)?;
//! assert_eq!(admission.content, Content::Whole);
//! // Write `update.bytes()` into the log first; then index and order learn of it, and yrs may have it.
//! index.apply(delta);
//! order.commit();
//! assert_eq!(index.next_clock(1), 2);
//!
//! // The same again is nothing new, and twelve other bytes are no update at all.
//! let (update, mut delta) = (Update::parse(bytes, &caps)?, Delta::default());
//! let again = admit(&index, &mut delta, Some(&mut order), &update, &caps, &mut |_| true)?;
//! assert_eq!(again.content, Content::Nothing);
//! assert!(Update::parse(Bytes::from_static(&[2, 1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 0]), &caps).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Read in this order: [`lib0`] reads the primitives; [`Update`] parses what a client sent and checks every rule that needs no
//! document; [`admit()`] decides which part of it follows on what an [`Index`] holds; [`merge()`] makes one update of many, and
//! [`diff()`] of what somebody lacks of them; [`hollow()`] takes the content out of one; [`pieces()`] cuts one for slow
//! connections; [`wrapped()`] has yrs keep values as they came; [`Recent`] finds forks, [`Marks`] those in content that
//! is no longer held, and [`difference()`] finds any difference.
#![forbid(unsafe_code)]
#![warn(clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admit;
mod awareness;
mod bisect;
mod block;
mod caps;
mod cost;
mod crowd;
mod difference;
mod encode;
mod index;
pub mod lib0;
mod malformed;
mod marks;
mod merge;
mod order;
mod pieces;
mod place;
mod ranges;
mod recent;
mod state_vector;
#[cfg_attr(feature = "switches", doc(hidden))]
#[cfg(feature = "switches")]
pub mod switches;
#[cfg(not(feature = "switches"))]
mod switches;
mod tally;
mod update;
mod v2;
mod value;
mod walk;
mod wrap;

pub use admit::{Admission, Content, Known, Missing, Refused, admit};
pub use awareness::{AwarenessEntry, AwarenessUpdate, encode_awareness};
pub use bisect::steps;
pub use caps::{Caps, DEPTH_BOUND};
pub use cost::Cost;
pub use difference::difference;
pub use index::{Delta, Index};
pub use malformed::{Malformed, Rule};
pub use marks::{Compared, Marks};
pub use merge::{diff, hollow, merge};
pub use order::{Mark, Order};
pub use pieces::pieces;
pub use recent::{Fork, Recent};
pub use state_vector::StateVector;
pub use tally::Tally;
pub use update::Update;
pub use wrap::{unwrapped, wrapped};
