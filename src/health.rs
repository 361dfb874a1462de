//! `/live`, `/ready` and `/metrics`: whether the process works, whether it should be given work, and what it does.

use crate::commands::chain;
use crate::metrics::Metrics;
use crate::postgres::{Database, NoWrite, isolation, migrate, roles};
use actix_web::web::{self, Data};
use actix_web::{HttpResponse, Responder, get};
use contextnexus_actors::causes::Cause;
use contextnexus_actors::report;
use serde::Serialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

/// `/ready` is to be false within 2 s of the loss of PostgreSQL: an interval and a timeout stay below it.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
const PROBE_TIMEOUT: Duration = Duration::from_millis(900);
/// A write is a commit, so it is tried rarely: a disk that is full is told within seconds, and an idle database rests.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);
/// Longer than a commit takes on a busy machine.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A block of any file system: a smaller file may find room where there is none.
const WRITE_BYTES: usize = 4096;
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
    /// Why tenants are not safe from each other.
    not_isolated: Vec<String>,
    /// Why PostgreSQL takes no writes, and whether that is for want of room.
    no_writes: Option<Fault>,
    /// The same of this node's own directory.
    no_files: Option<Fault>,
    /// Where there is a Redis.
    redis: Option<IsUp>,
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.report().fmt(f)
    }
}

/// Why something cannot be written.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Fault {
    is_full: bool,
    text: String,
}

/// The answer of `/ready`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Readiness)]
pub struct Report {
    /// Give it work.
    pub ready: bool,
    /// What is missing: `postgresql`, `migrations`, `isolation`, `durability`, `disk` (it is full), `writes` (they fail for
    /// another reason), `draining`.
    pub missing: Vec<&'static str>,
    /// A sentence for each of these, in the same order: what is wrong, and what to do.
    pub reasons: Vec<String>,
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
            not_isolated: Vec::new(),
            no_writes: None,
            no_files: None,
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
            let (missing, reasons): (Vec<_>, Vec<_>) = state.missing().into_iter().unzip();
            let redis = match &state.redis {
                None => "none",
                Some(is_up) if is_up() => "up",
                Some(_) => "down",
            };
            let durability = if weak { "weakened" } else { "full" };
            Report { ready: missing.is_empty(), missing, reasons, durability, redis }
        })
    }

    /// Returns when everything is there, or after a second: so that the ready line and `/ready` say the same.
    pub async fn first_check(&self) {
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
                match tokio::time::timeout(PROBE_TIMEOUT, self.check(&database)).await {
                    Ok(saw) => looked = saw.then(Instant::now),
                    Err(_) => continue, // it may have gone meanwhile: asked at once
                }
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    async fn check(&self, database: &Database) -> bool {
        let schema = migrate::check(database).await;
        if let Err(error) = &schema {
            warn!(error = %crate::commands::chain(error), "the schema cannot be used");
        }
        let found = async { Ok((roles::inspect(database).await?, isolation::weaknesses(database).await?)) };
        let looked = found.await.inspect_err(|error: &crate::postgres::StoreError| {
            report!(error.cause(), "roles cannot be read: {}", chain(error));
        });
        let Ok((inspection, weak)) = looked else { return false };
        let not_isolated: Vec<_> = weak.iter().map(ToString::to_string).collect();
        let before = self.with(|state| {
            state.migrations = schema.is_ok();
            state.weakened = inspection.weakened;
            std::mem::replace(&mut state.not_isolated, not_isolated.clone())
        });
        for weakness in not_isolated.iter().filter(|weakness| !before.contains(weakness)) {
            report!(Cause::Setup, "tenants are not safe from each other: {weakness}: not ready");
        }
        true
    }

    /// Tries now and then whether PostgreSQL takes a write, and whether `directory` does, where this node writes into one. Runs
    /// for ever.
    pub async fn watch_writes(self, database: Database, directory: Option<PathBuf>) {
        loop {
            let written = database.try_write(WRITE_TIMEOUT).await;
            // A PostgreSQL that is away is said by the other look.
            if written != Err(NoWrite::Unreachable) {
                self.set_no_writes(written.err());
            }
            if let Some(directory) = directory.clone() {
                let place = directory.display().to_string();
                let written = tokio::task::spawn_blocking(move || try_file(&directory)).await;
                let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
                self.set_no_files(&place, written.err());
            }
            tokio::time::sleep(WRITE_INTERVAL).await;
        }
    }

    fn set_no_writes(&self, why: Option<NoWrite>) {
        let fault = why.map(|why| {
            let is_full = matches!(why, NoWrite::DiskFull(_));
            Fault { is_full, text: format!("{why}. Edits wait meanwhile, unacknowledged; nothing is lost") }
        });
        tell("postgresql", fault.as_ref(), self.with(|state| std::mem::replace(&mut state.no_writes, fault.clone())));
    }

    fn set_no_files(&self, place: &str, why: Option<io::Error>) {
        let fault = why.map(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Fault { is_full: true, text: format!("the disk of {place} is full; free some space there") }
            }
            _ => Fault { is_full: false, text: format!("{place} cannot be written ({error}); look at the disk") },
        });
        tell("data_dir", fault.as_ref(), self.with(|state| std::mem::replace(&mut state.no_files, fault.clone())));
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

impl State {
    /// What is missing, each with its reason.
    fn missing(&self) -> Vec<(&'static str, String)> {
        let mut missing = Vec::new();
        let mut add = |name, is_missing: bool, reason: &str| {
            if is_missing {
                missing.push((name, reason.to_owned()));
            }
        };
        add("postgresql", !self.postgresql, "PostgreSQL does not answer; edits wait meanwhile");
        let behind = "the schema is not the one that this server needs; run `contextnexus migrate`, or another version";
        add("migrations", self.postgresql && !self.migrations, behind);
        add("isolation", !self.not_isolated.is_empty(), &self.not_isolated.join("; "));
        add("durability", !self.weakened.is_empty() && !self.allow_weak, &self.weakened.join("; "));
        let no_writes = self.no_writes.as_ref().filter(|_| self.postgresql);
        for fault in [no_writes, self.no_files.as_ref()].into_iter().flatten() {
            add(if fault.is_full { "disk" } else { "writes" }, true, &fault.text);
        }
        add("draining", self.draining, "this server ends; another one takes its place");
        missing
    }
}

/// Says what has changed, and counts.
fn tell(part: &'static str, fault: Option<&Fault>, before: Option<Fault>) {
    let is = |is: bool| if is { 1.0 } else { 0.0 };
    ::metrics::gauge!("contextnexus_writes_failing", "part" => part).set(is(fault.is_some()));
    ::metrics::gauge!("contextnexus_disk_full", "part" => part).set(is(fault.is_some_and(|fault| fault.is_full)));
    match (before, fault) {
        (None, Some(fault)) => report!(Cause::Outage, part, "not ready: {}", fault.text),
        (Some(_), None) => info!(part, "writes succeed again ({part})"),
        _ => {}
    }
}

/// Writes a file and removes it.
fn try_file(directory: &Path) -> io::Result<()> {
    let file = directory.join(format!("{}.probe", std::process::id()));
    let written = fs::write(&file, [0_u8; WRITE_BYTES]);
    let removed = fs::remove_file(&file);
    written.and(removed)
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
    fn a_full_disk_is_told_with_its_reason_until_there_is_room() {
        let readiness = ready();
        readiness.set_no_writes(Some(NoWrite::DiskFull("could not extend file".into())));
        let report = readiness.report();
        assert_eq!((report.ready, &report.missing[..]), (false, &["disk"][..]));
        assert!(report.reasons[0].contains("disk of PostgreSQL is full (could not extend file)"), "{report:?}");
        readiness.set_no_files("/data", Some(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(readiness.report().missing, ["disk", "writes"]);
        readiness.with(|state| state.postgresql = false);
        assert_eq!(
            readiness.report().missing,
            ["postgresql", "writes"],
            "a database that is away takes no writes anyway"
        );
        readiness.with(|state| state.postgresql = true);
        readiness.set_no_writes(None);
        readiness.set_no_files("/data", None);
        assert!(readiness.report().ready);
    }

    #[test]
    fn a_file_is_tried_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        try_file(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(try_file(&directory.path().join("absent")).is_err());
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
