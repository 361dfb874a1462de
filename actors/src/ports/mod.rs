//! What actors ask of the world: traits with their contracts. [`memory_log`], [`memory_bus`] and [`memory_authority`] are reference
//! implementations; `contract` and `contract_bus` are the suites that every implementation passes, they included.

pub mod authority;
pub mod bus;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
#[cfg(any(test, feature = "contract"))]
pub mod contract_bus;
pub mod documents;
pub mod log;
pub mod memory_authority;
pub mod memory_bus;
pub mod memory_log;
mod quarantine;

pub use authority::{AccessDenied, Authority, Held, Rechecked, RoomName, Standing};
pub use bus::{Bus, BusEvent, BusMessage, Subscription};
pub use documents::{LiveDocuments, ReadRefused, WriteRefused, Writer, Written};
pub use log::{
    AppendOutcome, AppendRequest, Damage, DamageKind, Head, HeldHead, IdempotencyKey, LogError, LogRow, NewRow,
    OperationLog, Quarantine, QuarantineReason, Snapshot, Stored, Tail,
};
