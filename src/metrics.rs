//! `/metrics`: what the parts of the server count, and what the process takes, in Prometheus' text format.

mod families;
mod process;
mod requests;

pub use requests::{route, timed};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;

/// Milliseconds matter up to a second; beyond it something is wrong, and 30 s is as wrong as 31.
const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.125, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// How often histograms are folded, so that they do not grow while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// The metrics of this process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder that `metrics::counter!` and the like write to. Once per process.
    pub fn install() -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
            .install_recorder()?;
        families::describe();
        Ok(Self { handle })
    }

    /// Keeps the recorder small. Runs for ever.
    pub async fn keep_up(self) {
        loop {
            tokio::time::sleep(UPKEEP).await;
            self.handle.run_upkeep();
        }
    }

    /// Everything, as Prometheus reads it.
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        text.push_str(&process::render());
        text
    }
}
