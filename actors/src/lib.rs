//! Everything in ContextNexus that decides. It knows no database, no HTTP, no socket library and no environment: what it needs of
//! the world it asks through [`ports`].
//!
//! The loop: a [`session`] hears frames, takes the dialect off ([`protocol`]) and hands on to a [`document`], found by its
//! host ([`hosting`]). The document lets updates wait, has the gate admit them as one batch against exactly the log's prefix, appends
//! (`ports::log`), and only after the commit folds, acknowledges, shows ([`outbox`]) and publishes (`ports::bus`).
//!
//! The vocabulary: a *position* is a place in a log ([`ids::Position`]); a *follower* is a session as
//! its document knows it; an update is *admitted*, *trimmed* (what the log has), left out at a *gap*, and its acknowledgement
//! then *owed*.
//!
//! Reading order: [`ports::log`], [`document`], [`session`], [`hosting`].

pub mod access;
pub mod aside;
pub mod budget;
pub mod causes;
pub mod clock;
pub mod counted;
pub mod document;
pub mod hosting;
pub mod ids;
pub mod limits;
pub mod outbox;
pub mod ports;
pub mod protocol;
pub mod room;
pub mod session;
