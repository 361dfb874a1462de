//! Time and randomness come in from outside; this is the outside's shape.

use chrono::{DateTime, Utc};
use std::time::Instant;
use uuid::Uuid;

/// The world's clock and source of fresh ids. The only implementation that reads the machine is [`SystemClock`].
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time, for what is stored or shown. May step backwards.
    fn now(&self) -> DateTime<Utc>;
    /// Monotonic time, for waiting.
    fn instant(&self) -> Instant;
    /// A fresh UUID of version 7: ordered by time (by the millisecond), unguessable enough to be an id, not a secret.
    fn fresh_id(&self) -> Uuid;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[allow(clippy::disallowed_methods)] // the one place that may
impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
    fn instant(&self) -> Instant {
        Instant::now()
    }
    fn fresh_id(&self) -> Uuid {
        // Not `Uuid::now_v7`, which asks the kernel for each: one is made for each append.
        let ms = self.now().timestamp_millis().cast_unsigned();
        uuid::Builder::from_unix_timestamp_millis(ms, &rand::random()).into_uuid()
    }
}
