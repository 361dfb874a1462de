//! What actors ask of the world: traits with their contracts. [`memory`] holds reference implementations; `contract`
//! is the suite that every implementation passes, they included.

pub mod authority;
pub mod bus;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
#[cfg(any(test, feature = "contract"))]
pub mod contract_bus;
pub mod documents;
pub mod log;
pub mod memory;
pub mod memory_bus;

pub use authority::{AccessDenied, Authority, Held, Rechecked, RoomName, Standing};
pub use bus::{Bus, BusEvent, BusMessage, Subscription};
pub use documents::{LiveDocuments, ReadRefused, WriteRefused, Writer, Written};
pub use log::{
    AppendOutcome, AppendRequest, Head, HeldHead, IdempotencyKey, LogError, LogRow, NewRow, OperationLog, Quarantine,
    Snapshot, Stored, Tail,
};
