//! Load scenarios for any Yjs server: it knows only the wire.
//!
//! Reading order: [`wire`] (frames, dialects, updates by hand), [`client`] (one connection), [`steady`] (the engine of
//! the scenarios with a constant rate), [`durability`] and [`converge`] (the two that look for lies), [`relay`] (the
//! physical reference), [`report`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod alarm;
pub mod client;
pub mod converge;
pub mod durability;
pub mod measure;
pub mod metrics;
pub mod probe;
pub mod process;
mod received;
pub mod relay;
pub mod report;
pub mod socket;
pub mod steady;
pub mod wire;
