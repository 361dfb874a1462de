//! What waits, in a gauge: counted for as long as it lives, however it ends.

/// One that waits.
#[derive(Debug)]
#[must_use]
pub struct Counted(&'static str);

impl Counted {
    /// Counts in the gauge of this name.
    pub fn in_gauge(name: &'static str) -> Self {
        metrics::gauge!(name).increment(1.0);
        Self(name)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!(self.0).decrement(1.0);
    }
}
