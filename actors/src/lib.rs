//! Everything in ContextNexus that decides.
pub mod access;
pub mod clock;
pub mod ids;
pub mod limits;
pub mod outbox;
pub mod ports;
pub mod protocol;
pub mod session;
