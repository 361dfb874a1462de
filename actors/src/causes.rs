//! Why something is logged, and so at which level: one table for the whole server. README ("Operate") shows the same.
//!
//! The level says who has to do something. ERROR: a developer, or whoever keeps the data. WARN: the operator. INFO and DEBUG: nobody;
//! what a client did wrong is the client's to know, and it is told.

use tracing::Level;

/// Why something is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// A client asked for something that cannot be done, or sent something that cannot be read.
    Client,
    /// The server ended or refused a connection because of what its client did, or left undone.
    Ended,
    /// A limit of this node is reached, and clients are told to come back.
    Busy,
    /// PostgreSQL, Redis or a file does not answer. Work waits for it.
    Outage,
    /// Something is set up, or was found, in a way that the operator should look at.
    Setup,
    /// Stored data does not read back, or broke what read it. It was moved aside, or is only read.
    Damage,
    /// The server did what it never should.
    Defect,
}

impl Cause {
    /// Each cause, its level, and what it means for the operator.
    pub const TABLE: [(Self, Level, &'static str); 7] = [
        (
            Self::Client,
            Level::DEBUG,
            "A client asked for what cannot be done or sent what cannot be read. The client is told.",
        ),
        (
            Self::Ended,
            Level::INFO,
            "The server ended or refused a connection for what its client did. `/metrics` counts the reasons.",
        ),
        (
            Self::Busy,
            Level::INFO,
            "A limit of this node is reached; clients are told to come back. `/metrics` shows which.",
        ),
        (Self::Outage, Level::WARN, "PostgreSQL, Redis or a file does not answer. Work waits: bring it back."),
        (
            Self::Setup,
            Level::WARN,
            "Something is set up, or was found, in a way that you should look at. The line says what to do.",
        ),
        (
            Self::Damage,
            Level::ERROR,
            "Stored data does not read back. It was moved aside (look into the quarantine), or its document is only read. Look at the disk.",
        ),
        (Self::Defect, Level::ERROR, "The server did what it never should. Please report it."),
    ];

    /// At which level this is logged.
    #[must_use]
    pub const fn level(self) -> Level {
        Self::TABLE[self as usize].1
    }
}

/// Logs an event at the level of its cause; otherwise like `tracing::event!`.
#[macro_export]
macro_rules! report {
    ($cause:expr, $($event:tt)+) => {
        match $crate::causes::Cause::level($cause) {
            ::tracing::Level::ERROR => ::tracing::error!($($event)+),
            ::tracing::Level::WARN => ::tracing::warn!($($event)+),
            ::tracing::Level::INFO => ::tracing::info!($($event)+),
            _ => ::tracing::debug!($($event)+),
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_causes() {
        for (at, (cause, level, _)) in Cause::TABLE.into_iter().enumerate() {
            assert_eq!((cause as usize, cause.level()), (at, level));
        }
    }
}
