//! `/live`, `/ready` and `/metrics`: whether the process works, whether it should be given work, and what it does.

use crate::commands::chain;
use crate::metrics::Metrics;
use crate::postgres::{Database, migrate, roles};
use actix_web::web::{self, Data};
use actix_web::{HttpResponse, Responder, get};
use contextnexus_actors::report;
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

/// `/ready` is to be false within 2 s of the loss of PostgreSQL: an interval and a timeout stay below it.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
const PROBE_TIMEOUT: Duration = Duration::from_millis(900);
/// Schema and settings change by people's hands: a look now and then is enough.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// Whether this node should be given work. Shared by all who know a reason against it.
#[derive(Clone)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

/// Whether something answers at this moment.
type IsUp = Box<dyn Fn() -> bool + Send>;

struct State {
    postgresql: bool,
    migrations: bool,
    draining: bool,
    weakened: Vec<String>,
    allow_weak: bool,
    /// Where there is a Redis.
    redis: Option<IsUp>,
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.report().fmt(f)
    }
}

/// The answer of `/ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Readiness)]
pub struct Report {
    /// Give it work.
    pub ready: bool,
    /// What is missing: `postgresql`, `migrations`, `draining`, `durability`.
    pub missing: Vec<&'static str>,
    /// `full`, or `weakened`: a commit may not survive a crash of the machine.
    pub durability: &'static str,
    /// `up`; `down`: nodes hear of each other through PostgreSQL alone, a little later, which is no reason to give this one no work;
    /// `none`: this node was given no Redis.
    pub redis: &'static str,
}

impl Readiness {
    /// Before the first look nothing is there. `allow_weak`: serves even where PostgreSQL may lose commits.
    pub fn new(allow_weak: bool) -> Self {
        let state = State {
            postgresql: false,
            migrations: false,
            draining: false,
            weakened: Vec::new(),
            allow_weak,
            redis: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// There is a Redis, and this tells whether it answers. Must not wait.
    pub fn with_redis(&self, is_up: impl Fn() -> bool + Send + 'static) {
        self.with(|state| state.redis = Some(Box::new(is_up)));
    }

    /// From now on no new work. There is no way back.
    pub fn drain(&self) {
        self.with(|state| state.draining = true);
    }

    /// Whether [`drain`](Self::drain) was called.
    pub fn is_draining(&self) -> bool {
        self.with(|state| state.draining)
    }

    /// Where things stand.
    pub fn report(&self) -> Report {
        self.with(|state| {
            let weak = !state.weakened.is_empty();
            let missing: Vec<_> = [
                ("postgresql", !state.postgresql),
                ("migrations", state.postgresql && !state.migrations),
                ("durability", weak && !state.allow_weak),
                ("draining", state.draining),
            ]
            .into_iter()
            .filter_map(|(name, is_missing)| is_missing.then_some(name))
            .collect();
            let redis = match &state.redis {
                None => "none",
                Some(is_up) if is_up() => "up",
                Some(_) => "down",
            };
            Report { ready: missing.is_empty(), missing, durability: if weak { "weakened" } else { "full" }, redis }
        })
    }

    /// Returns when everything is there, or after a second: so that the ready line and `/ready` say the same.
    pub async fn first_look(&self) {
        for _ in 0..100 {
            if self.report().ready {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks PostgreSQL twice a second, over a connection of its own: a busy pool is not an absent database. Runs for ever.
    pub async fn watch(self, database: Database) {
        let mut looked: Option<Instant> = None;
        loop {
            let answers = database.ping(PROBE_TIMEOUT).await.is_ok();
            self.set_postgresql(answers);
            if !answers {
                looked = None;
            } else if looked.is_none_or(|at| at.elapsed() > LOOK_INTERVAL) {
                match tokio::time::timeout(PROBE_TIMEOUT, self.look(&database)).await {
                    Ok(saw) => looked = saw.then(Instant::now),
                    Err(_) => continue, // it may have gone meanwhile: asked at once
                }
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    async fn look(&self, database: &Database) -> bool {
        let (schema, inspection) = (migrate::check(database).await, roles::inspect(database).await);
        if let Err(error) = &schema {
            warn!(error = %crate::commands::chain(error), "the schema cannot be used");
        }
        let looked = inspection.inspect_err(|error| report!(error.cause(), "roles cannot be read: {}", chain(error)));
        let Ok(inspection) = looked else { return false };
        self.with(|state| {
            state.migrations = schema.is_ok();
            state.weakened = inspection.weakened;
        });
        true
    }

    fn set_postgresql(&self, answers: bool) {
        let before = self.with(|state| std::mem::replace(&mut state.postgresql, answers));
        match (before, answers) {
            (true, false) => warn!("PostgreSQL does not answer: not ready"),
            (false, true) => info!("PostgreSQL answers"),
            _ => {}
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // A panic between two assignments of plain values leaves nothing half done.
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The routes. They need `Data<Readiness>` and `Data<Metrics>`.
pub fn routes(config: &mut web::ServiceConfig) {
    resources(&mut ServiceConfig::new(config));
}

/// The same, described.
pub(crate) fn resources(config: &mut ServiceConfig<'_>) {
    config.service(live).service(ready).service(metrics);
}

/// The process runs.
#[derive(Serialize, ToSchema)]
struct Live {
    live: bool,
}

/// Whether the process turns its event loop. Restart it when not.
#[utoipa::path(operation_id = "get_live", tag = "Server", responses((status = 200, body = Live)))]
#[get("/live")]
async fn live() -> impl Responder {
    HttpResponse::Ok().insert_header(("cache-control", "no-store")).json(Live { live: true })
}

/// Whether this node should be given work.
#[utoipa::path(
    operation_id = "get_ready", tag = "Server",
    responses((status = 200, body = Report), (status = 503, body = Report, description = "Give it none; `missing` names why."))
)]
#[get("/ready")]
async fn ready(readiness: Data<Readiness>) -> impl Responder {
    let report = readiness.report();
    let mut response = if report.ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.insert_header(("cache-control", "no-store")).json(report)
}

/// What the parts of the server count, in Prometheus' text format.
#[utoipa::path(
    operation_id = "get_metrics", tag = "Server",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
#[get("/metrics")]
async fn metrics(metrics: Data<Metrics>) -> impl Responder {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(metrics.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Readiness {
        let readiness = Readiness::new(false);
        readiness.with(|state| (state.postgresql, state.migrations) = (true, true));
        readiness
    }

    #[test]
    fn a_node_is_not_ready_before_the_first_look() {
        assert_eq!(Readiness::new(false).report().missing, ["postgresql"]);
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let readiness = ready();
        assert!(readiness.report().ready);
        readiness.with(|state| state.migrations = false);
        readiness.drain();
        assert_eq!(readiness.report().missing, ["migrations", "draining"]);
    }

    #[test]
    fn redis_is_told_and_decides_nothing() {
        let readiness = ready();
        assert_eq!(readiness.report().redis, "none");
        readiness.with_redis(|| false);
        let report = readiness.report();
        assert_eq!((report.ready, report.redis), (true, "down"));
        readiness.with_redis(|| true);
        assert_eq!(readiness.report().redis, "up");
    }

    #[test]
    fn weak_durability_is_always_said_and_served_only_where_allowed() {
        let readiness = ready();
        readiness.with(|state| state.weakened = vec!["fsync is off".into()]);
        let report = readiness.report();
        assert_eq!((report.ready, report.durability), (false, "weakened"));
        readiness.with(|state| state.allow_weak = true);
        let report = readiness.report();
        assert_eq!((report.ready, report.durability), (true, "weakened"));
    }
}
