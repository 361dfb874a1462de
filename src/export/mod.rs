//! Shows a document as JSON and as text.
//!
//! Not through yrs: its readers recurse and, on shapes that no honest client makes, loop for ever. [`fold`] puts the blocks of a
//! state into order itself (the same order as every Yjs peer; a test compares), without recursion, in memory proportional to the
//! state, and looks at the clock meanwhile. Roots have no kind in Yjs' format, so theirs is found out from what stands in them.
//!
//! [`decode`] reads the blocks, [`fold`] orders them, [`json`] and [`text`] walk over the outcome.

mod any;
mod decode;
mod fold;
mod json;
mod out;
#[cfg(test)]
mod tests;
mod text;

use bytes::Bytes;
use contextnexus_actors::counted::Counted;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Largest answer.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// What showing may take. The reasons stand in `default.toml`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShowLimits {
    /// Longest time for one document.
    pub time_max: Duration,
    /// Documents side by side.
    pub workers: usize,
    /// Documents that wait.
    pub queue_max: usize,
}

impl Default for ShowLimits {
    fn default() -> Self {
        Self { time_max: Duration::from_secs(5), workers: 2, queue_max: 16 }
    }
}

/// Shows documents, a few at a time, on blocking threads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Exporter {
    time_max: Duration,
    workers: Arc<Semaphore>,
    queue: Arc<Semaphore>,
}

/// Why a document cannot be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ExportError {
    /// More than 64 MiB would come out.
    #[error("the document is too large to be shown")]
    TooLarge,
    /// It took longer than is allowed.
    #[error("the document takes too long to be shown")]
    TooSlow,
    /// Too many wait: try again.
    #[error("too many documents wait to be shown")]
    Busy,
    /// The state breaks a rule of its format: a defect of ours.
    #[error("the document's state cannot be read: {0}")]
    Unreadable(&'static str),
}

/// One shared type, by its root name. What stands inside it is JSON as Yjs' own `toJSON` gives it, with elements of XML as objects
/// of `element`, `attributes` and `children`, and texts in XML as `text` and `delta`.
#[derive(serde::Serialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Exported {
    /// A text.
    Text {
        /// Without formats and embedded things.
        text: String,
        /// With them, as Yjs' `toDelta`.
        delta: Vec<serde_json::Value>,
    },
    /// A map.
    Map {
        /// By key.
        value: std::collections::BTreeMap<String, serde_json::Value>,
    },
    /// An array.
    Array {
        /// In order.
        value: Vec<serde_json::Value>,
    },
    /// A fragment of XML, as rich-text editors use.
    Xml {
        /// Its nodes.
        value: Vec<serde_json::Value>,
    },
    /// A root in which nothing is left that would tell its kind, but that held other shared types: an array or XML.
    /// Without that trace, a root from which everything was deleted is an empty text.
    Empty {},
}

impl Default for Exporter {
    fn default() -> Self {
        Self::new(ShowLimits::default())
    }
}

impl Exporter {
    /// Within these bounds.
    #[must_use]
    pub fn new(limits: ShowLimits) -> Self {
        Self {
            time_max: limits.time_max,
            workers: Arc::new(Semaphore::new(limits.workers)),
            queue: Arc::new(Semaphore::new(limits.workers + limits.queue_max)),
        }
    }

    /// The document of this v1 state as one JSON object: root name to [`Exported`].
    ///
    /// # Errors
    /// [`ExportError`].
    pub async fn json(&self, state: Bytes) -> Result<String, ExportError> {
        self.run(move |deadline| to_json(&state, deadline)).await
    }

    /// The plain text of all roots, in the order of their names.
    ///
    /// # Errors
    /// [`ExportError`].
    pub async fn text(&self, state: Bytes) -> Result<String, ExportError> {
        self.run(move |deadline| to_text(&state, deadline)).await
    }

    async fn run(
        &self,
        work: impl FnOnce(Instant) -> Result<String, ExportError> + Send + 'static,
    ) -> Result<String, ExportError> {
        let Ok(waiting) = Arc::clone(&self.queue).try_acquire_owned() else {
            metrics::counter!("contextnexus_show_refused_total").increment(1);
            return Err(ExportError::Busy);
        };
        let counted = Counted::in_gauge("contextnexus_show_waiting");
        let working = Arc::clone(&self.workers).acquire_owned().await.map_err(|_| ExportError::Busy)?;
        let time_max = self.time_max;
        let done = tokio::task::spawn_blocking(move || {
            let _all = (waiting, working, counted); // held until the work ends, also when nobody waits for it any more
            work(Instant::now() + time_max)
        });
        done.await.map_err(|_| ExportError::Unreadable("a defect"))?
    }
}

fn to_json(state: &Bytes, deadline: Instant) -> Result<String, ExportError> {
    let blocks = decode::blocks(state, deadline)?;
    json::write(&fold::fold(blocks, deadline)?, deadline)
}

fn to_text(state: &Bytes, deadline: Instant) -> Result<String, ExportError> {
    let blocks = decode::blocks(state, deadline)?;
    text::write(&fold::fold(blocks, deadline)?, deadline)
}
