//! Load scenarios for any Yjs server: it knows only the wire.
//!
//! Reading order: [`wire`] (frames, dialects, updates by hand), [`client`] (one connection), [`engine`] (many of them, at
//! a rate), [`scenarios`] (what is asked of a server), [`outcome`] (what comes of it), [`driver`] (runs and verdicts),
//! [`report`]. [`relay`] is the physical reference, [`trace`] a real document's making.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod alarm;
pub mod bench;
pub mod client;
pub mod driver;
pub mod engine;
pub mod launch;
pub mod measure;
pub mod metrics;
pub mod outcome;
pub mod probe;
pub mod process;
pub mod progress;
pub mod reader;
mod received;
pub mod relay;
pub mod report;
pub mod scenarios;
pub mod socket;
pub mod trace;
pub mod wire;
