//! This test binary as a server of its own, with something planted between the parts.

use contextnexus::app::{self, Seams};
use contextnexus::config::{Config, Sources};
use contextnexus::{process, telemetry};

/// Serves by the settings in the environment until it is killed. At once over where `marker` is not set there: the test harness runs it
/// together with other ignored tests.
pub fn serve(marker: &str, seams: Seams) {
    if std::env::var_os(marker).is_none() {
        return;
    }
    process::ensure_stacks();
    let environment = std::env::vars().filter(|(name, _)| name != marker).collect();
    let config = Config::load(&Sources { file: None, environment, flags: Vec::new() }).expect("the settings are good");
    telemetry::start(&config.telemetry).expect("a good filter");
    actix_rt::System::new().block_on(app::serve_through(config, seams)).expect("it serves until it is killed");
}
