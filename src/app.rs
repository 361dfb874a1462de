//! The composition root: opens what the configuration names, puts the parts together, serves, and takes everything down again in
//! order. The only module that knows both what actors decide and what touches the ports.

use crate::aside::AsideThreads;
use crate::commands::chain;
use crate::config::Config;
use crate::console::say;
use crate::data_dir::DataDir;
use crate::demo::{self, DemoError};
use crate::embedded::{self, EmbeddedPostgres, Urls};
use crate::export::{Exporter, ShowLimits};
use crate::folding::{self, BlackBox, trial};
use crate::health::{self, Readiness};
use crate::metrics::Metrics;
use crate::net;
use crate::net::tls::{BadCertificate, Certificates};
use crate::open_database::{self, OpenError};
use crate::origins::Origins;
use crate::passwords::Passwords;
use crate::placement::Threads;
use crate::postgres::authority::PostgresAuthority;
use crate::postgres::bus_keys::TenantBusKeys;
use crate::postgres::operation_log::{LogSettings, PostgresLog};
use crate::postgres::{Database, DatabaseSettings};
use crate::process;
use crate::redis::{BadRedisUrl, OutgoingLimits, RedisBus};
use crate::rest::{self, ApiError, LoginLimits, LoginRates, Rate, Rest, RestSettings};
use crate::telemetry::RequestSpan;
use crate::wait_for_postgres::{self, NotThere};
use crate::web::{self, ServerFacts};
use crate::workers::upkeep;
use crate::ws::{self, Sockets};
use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpRequest, HttpResponse};
use contextnexus_actors::budget::Budgets;
use contextnexus_actors::clock::{Clock, SystemClock};
use contextnexus_actors::document::live::Documents;
use contextnexus_actors::hosting::messages::DrainAll;
use contextnexus_actors::ids::NodeId;
use contextnexus_actors::ports::Ports;
use contextnexus_actors::ports::memory_bus::MemoryBus;
use contextnexus_actors::ports::witness::{Nobody, Witness};
use contextnexus_actors::ports::{Bus, OperationLog};
use contextnexus_actors::session::Services;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tracing::info;
use tracing_actix_web::TracingLogger;

/// Why the server does not serve. One line each, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken.
    #[error(
        "the port of {0} is in use: another server listens there; stop it, or choose another address with --listen"
    )]
    PortInUse(SocketAddr),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}; does a limit of the service or container hold (TasksMax=, pids)?")]
    Threads(io::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// TLS cannot be spoken.
    #[error(transparent)]
    Certificate(#[from] BadCertificate),
    /// The database that was brought cannot be reached, or does not let us in.
    #[error(transparent)]
    NotThere(#[from] NotThere),
    /// There is no database to serve from.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The bus cannot be used.
    #[error(transparent)]
    Bus(#[from] BadRedisUrl),
    /// No demo tenant.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// The operating system.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

/// How this process is asked to end.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What a program that is built on this library puts between the parts. The server itself puts nothing there.
pub struct Seams {
    /// Given the log in PostgreSQL, answers the one that documents write to. What it promises is the contract of [`OperationLog`].
    pub log: fn(Arc<dyn OperationLog>) -> Arc<dyn OperationLog>,
    /// Given who takes down what is folded, answers who hears of it.
    pub witness: fn(Arc<dyn Witness>) -> Arc<dyn Witness>,
    /// The program whose main is [`trial::child`].
    pub trial: fn() -> Command,
}

impl Default for Seams {
    fn default() -> Self {
        Self { log: |log| log, witness: |witness| witness, trial: trial::own_program }
    }
}

/// Serves until it is asked to stop by SIGTERM or SIGINT.
pub async fn serve(config: Config) -> Result<(), ServeError> {
    serve_through(config, Seams::default()).await
}

/// The same, with something between the parts.
pub async fn serve_through(config: Config, seams: Seams) -> Result<(), ServeError> {
    let mut stop = Stop::listen()?;
    // Before anything else is touched: a second server that is started by mistake fails here, and at once.
    let listener = listen(config.server.listen)?;
    certificates(&config)?;
    let files = process::raise_open_files();
    info!(files, "may open {files} files");

    let needs_directory = config.is_embedded() || config.has_demo();
    let data_dir = needs_directory.then(|| DataDir::open(&config.data_dir)).transpose().map_err(OpenError::from)?;
    let postgres = match &data_dir {
        Some(data_dir) if config.is_embedded() => {
            let started = tokio::select! {
                started = embedded::start(&config, data_dir, SystemClock.fresh_id()) => Some(started.map_err(OpenError::from)?),
                () = stop.asked() => None,
            };
            let Some(postgres) = started else {
                embedded::stop_leftover(data_dir).await;
                return Ok(());
            };
            Some(postgres)
        }
        _ => None,
    };
    let outcome = serve_with(&config, &seams, data_dir.as_ref(), postgres.as_ref(), listener, &mut stop).await;
    if let Some(postgres) = postgres {
        postgres.stop().await;
    }
    outcome
}

async fn serve_with(
    config: &Config,
    seams: &Seams,
    data_dir: Option<&DataDir>,
    postgres: Option<&EmbeddedPostgres>,
    listener: TcpListener,
    stop: &mut Stop,
) -> Result<(), ServeError> {
    let urls = open_database::urls(config, postgres);
    let arrived = async {
        // An embedded one was seen to serve.
        if postgres.is_none() {
            wait_for_postgres::of_database(&urls, Duration::from_secs(config.database.start_wait_s)).await?;
        }
        open_database::open(config, &urls).await.map_err(ServeError::from)
    };
    let database = tokio::select! {
        database = arrived => database?,
        () = stop.asked() => return Ok(()),
    };
    let address = listener.local_addr()?;
    let url = public_url(config, address);
    let mut greeting = vec![format!("ContextNexus is ready at {url}")];
    if let Some(data_dir) = data_dir.filter(|_| config.has_demo()) {
        let alone = config.is_embedded();
        let mut seeded =
            demo::seed(&database, &SystemClock, data_dir.path(), &url, &config.demo.password, alone).await?;
        // A node of many runs as a service, whose output is kept and read by others.
        seeded.fresh_password = seeded.fresh_password.filter(|_| alone);
        greeting.extend(seeded.lines());
    }
    run(config, seams, &urls, database, listener, greeting, stop).await
}

fn log_settings(config: &Config) -> LogSettings {
    let database = &config.database;
    LogSettings {
        connections: database.log_writers as usize,
        busy_updates_per_s: database.log_busy_updates_per_s,
        gap: Duration::from_millis(database.log_gap_ms),
        full_documents: database.log_full_documents,
        batch_documents_max: database.log_batch_documents_max,
        batch_bytes_max: database.log_batch_bytes_max,
        waiting_bytes_max: database.log_waiting_bytes_max,
        answer_timeout: Duration::from_secs(database.log_answer_timeout_s),
    }
}

/// Serves until asked to stop, then drains.
async fn run(
    config: &Config,
    seams: &Seams,
    urls: &Urls,
    database: Database,
    listener: TcpListener,
    greeting: Vec<String>,
    stop: &mut Stop,
) -> Result<(), ServeError> {
    let metrics = Metrics::install().map_err(io::Error::other)?;
    let readiness = Readiness::new(config.database.allow_weak_durability);
    let probe_settings = DatabaseSettings { connections_max: 1, ..open_database::settings(config) };
    let probe = Database::new(&urls.application.0, &probe_settings).map_err(OpenError::from)?;
    let mut black_box = black_box(config);
    let own_directory = black_box.as_ref().map(|_| config.data_dir.join(folding::DIRECTORY));
    let watching = [
        tokio::spawn(readiness.clone().watch(probe.clone())),
        tokio::spawn(readiness.clone().watch_writes(probe, own_directory)),
    ];
    let upkeep = [
        tokio::spawn(metrics.clone().keep_up()),
        tokio::spawn(upkeep::keep_up(database.clone(), config.retention.clone())),
    ];

    let actors = Actors::start(config, seams, black_box.as_mut(), &database, &readiness)?;
    let origins = origins(config, listener.local_addr()?);
    let sockets = Sockets::new(
        ws::Settings::of(&config.server, &config.limits),
        actors.ports.budgets.clone(),
        origins.clone(),
        actors.services.clone(),
        actors.ports.clock.clone(),
    );
    let rest = rest(config, &database, &actors, origins)?;
    let shared = Arc::new(Shared {
        readiness: Data::new(readiness.clone()),
        metrics: Data::new(metrics),
        rest: Data::new(rest),
        facts: Data::new(ServerFacts::new(config.has_demo())),
        sockets: sockets.clone(),
        threads: actors.threads.clone(),
    });
    let certificates = certificates(config)?;
    let settings = net::Settings {
        workers: config.workers(),
        seats: net::Seats {
            node: config.server.http_connections_max,
            address: config.server.http_connections_per_address_max,
        },
        keep_alive: Duration::from_secs(config.server.keep_alive_s),
        header_timeout: Duration::from_secs(config.server.header_timeout_s),
        stall: patience(config),
        certificates: certificates.clone(),
    };
    let server = net::serve(listener, settings, ws::on_connect, move || {
        let shared = shared.clone();
        shared.threads.worker_starts();
        App::new()
            .app_data(shared.readiness.clone())
            .app_data(shared.metrics.clone())
            .app_data(shared.facts.clone())
            // The last one wrapped is the first one passed.
            .wrap(from_fn(rest::shell))
            .wrap(TracingLogger::<RequestSpan>::new())
            .wrap(from_fn(crate::metrics::timed))
            .configure(health::routes)
            .configure(ws::configure(shared.sockets.clone()))
            .configure(|service| rest::mount(service, &shared.rest))
            .configure(web::configure)
            .default_service(actix_web::web::to(nothing_here))
    })?;
    let renewing = certificates
        .map(|certificates| Ok::<_, io::Error>(tokio::spawn(renew(certificates, signal(SignalKind::hangup())?))))
        .transpose()?;
    let handle = server.handle();
    let serving = tokio::spawn(server);

    readiness.first_check().await;
    greeting.iter().for_each(say);
    stop.asked().await;

    info!("draining: no new work");
    readiness.drain();
    // A second signal does not wait for anybody.
    tokio::select! {
        () = drain(config, &actors, &sockets, &handle) => {}
        () = stop.asked() => handle.stop(false).await,
    }
    if let Ok(Err(error)) = serving.await {
        tracing::error!(error = %chain(&error), "the HTTP server ended with an error");
    }
    watching.iter().chain(&upkeep).chain(&renewing).for_each(JoinHandle::abort);
    database.close().await;
    info!("stopped");
    Ok(())
}

/// What no resource took: people get the page, programs their error.
async fn nothing_here(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    if web::is_navigation(&request) { Ok(web::not_found().await) } else { rest::not_found(request).await }
}

fn certificates(config: &Config) -> Result<Option<Certificates>, BadCertificate> {
    Certificates::of(&config.server.tls_certificate, &config.server.tls_key)
}

/// Reads the certificate anew at every SIGHUP: whoever renews it sends one. Runs for ever.
async fn renew(certificates: Certificates, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        match certificates.reload() {
            Ok(()) => info!("read the TLS certificate anew"),
            Err(error) => tracing::error!(%error, "the TLS certificate stays as it was: {error}"),
        }
    }
}

/// Nobody new, everything accepted committed, every connection closed with 1012 in a wave, so that they do not all come back at once.
async fn drain(config: &Config, actors: &Actors, sockets: &Sockets, handle: &ServerHandle) {
    let patience = Duration::from_secs(config.server.drain_s);
    sockets.accept(false);
    actors.services.drain();
    let committed = actors.threads.documents().send(DrainAll { patience });
    if committed.await.is_err() {
        tracing::error!("the host of the documents is gone; what is not committed was not acknowledged");
    }
    sockets.close_all(patience / 4);
    let emptied = async {
        while sockets.open() > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(patience / 2, emptied).await.is_err() {
        info!("{} connections did not close in time", sockets.open());
    }
    handle.stop(true).await;
}

/// The actors of this node, and what they need of the world.
struct Actors {
    ports: Ports,
    services: Arc<Services>,
    threads: Arc<Threads>,
}

impl Actors {
    fn start(
        config: &Config,
        seams: &Seams,
        black_box: Option<&mut BlackBox>,
        database: &Database,
        readiness: &Readiness,
    ) -> Result<Self, ServeError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let node = NodeId(clock.fresh_id());
        let postgres_log = Arc::new(PostgresLog::new(database.clone(), log_settings(config)));
        let mut log = (seams.log)(postgres_log.clone());
        let mut witness: Arc<dyn Witness> = Arc::new(Nobody);
        if let Some(black_box) = black_box {
            let cpu_least = Duration::from_secs(config.folding.cpu_s_max);
            black_box.watch(cpu_least)?;
            witness = black_box.witness();
            log = black_box.try_leftovers(log, seams.trial, cpu_least);
        }
        let ports = Ports {
            node,
            log,
            witness: (seams.witness)(witness),
            aside: Arc::new(AsideThreads::start(config.workers()).map_err(ServeError::Threads)?),
            authority: Arc::new(PostgresAuthority::new(database.clone(), clock.clone())),
            bus: bus(config, database, node, readiness)?,
            clock,
            limits: Arc::new(config.limits.clone()),
            budgets: Budgets::of(&config.limits),
        };
        let threads = Threads::start(config.workers(), ports.clone(), postgres_log);
        let services =
            Services::new(ports.clone(), threads.documents().clone(), config.server.connections_per_user_max);
        Ok(Self { ports, services: Arc::new(services), threads: Arc::new(threads) })
    }
}

/// Without it the server is as good, but what ends it is not found out.
fn black_box(config: &Config) -> Option<BlackBox> {
    // Documents are folded by their own threads or aside, and one more place is cheap.
    let folding = config.workers() + AsideThreads::count(config.workers());
    match BlackBox::open(&config.data_dir, folding + 1) {
        Ok(black_box) => Some(black_box),
        Err(error) => {
            let directory = config.data_dir.display();
            tracing::warn!(
                "cannot write {directory}: a log row that ends this process would not be found out ({error})"
            );
            None
        }
    }
}

/// How long a client may keep us waiting in the middle of a request or an answer.
fn patience(config: &Config) -> Duration {
    Duration::from_secs(6 * config.server.header_timeout_s)
}

/// Redis where there is one; alone, a node has nobody to tell.
fn bus(config: &Config, database: &Database, node: NodeId, readiness: &Readiness) -> Result<Arc<dyn Bus>, ServeError> {
    let Some(url) = config.redis.url.get() else { return Ok(Arc::new(MemoryBus::alone(node))) };
    let outgoing =
        OutgoingLimits { bytes_max: config.redis.outgoing_bytes_max, messages_max: config.redis.outgoing_messages_max };
    let bus = Arc::new(RedisBus::start_with(url, node, TenantBusKeys::new(database.clone()), outgoing)?);
    let of_readiness = Arc::downgrade(&bus);
    readiness.with_redis(move || of_readiness.upgrade().is_some_and(|bus| bus.is_up()));
    Ok(bus)
}

fn origins(config: &Config, address: SocketAddr) -> Origins {
    let server = &config.server;
    let loopback = address.ip().is_loopback();
    Origins::new(&server.allowed_origins, &server.cors_origins, &server.public_url, loopback)
        .checking_tokens(server.check_token_origins)
}

fn rest(config: &Config, database: &Database, actors: &Actors, origins: Origins) -> Result<Rest, ServeError> {
    let (server, auth) = (&config.server, &config.auth);
    let rate = |burst, per_s| Rate { burst, per: Duration::from_secs(per_s) };
    let logins = LoginRates {
        account: rate(auth.attempts_per_account, auth.attempt_per_account_s),
        address: rate(auth.attempts_per_address, auth.attempt_per_address_s),
    };
    let show = ShowLimits {
        time_max: Duration::from_secs(server.show_s_max),
        workers: server.show_workers,
        queue_max: server.show_queue_max,
    };
    Ok(Rest {
        database: database.clone(),
        authority: actors.ports.authority.clone(),
        documents: Arc::new(Documents::new(actors.threads.documents().clone(), actors.ports.clone())),
        budgets: actors.ports.budgets.clone(),
        clock: actors.ports.clock.clone(),
        passwords: Passwords::start_with(auth.password_threads, auth.password_queue_max)?,
        logins: LoginLimits::new(logins),
        origins,
        exporter: Exporter::new(show),
        settings: RestSettings {
            public_url: server.public_url.clone(),
            trusted_proxies: server.trusted_proxies.clone(),
            login_days: auth.login_days,
            json_bytes_max: server.json_bytes_max,
            update_bytes_max: config.limits.update_bytes_max,
            body_patience: patience(config),
        },
    })
}

/// What every worker thread is given.
struct Shared {
    readiness: Data<Readiness>,
    metrics: Data<Metrics>,
    rest: Data<Rest>,
    facts: Data<ServerFacts>,
    sockets: Arc<Sockets>,
    threads: Arc<Threads>,
}

/// How often, and how far apart, an address that is in use is tried again.
const LISTEN_RETRIES: u32 = 10;
const LISTEN_PAUSE: Duration = Duration::from_millis(100);

fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::PortInUse(address),
        _ => ServeError::Listen { address, source },
    };
    let open = || -> io::Result<TcpListener> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        // A restart must not wait for connections of the run before to be forgotten.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        // A thousand editors reconnect at once when a node restarts.
        socket.listen(4096)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from(socket))
    };
    // A server that was killed while it started its database leaves a child that holds the socket until it has become PostgreSQL.
    for _ in 0..LISTEN_RETRIES {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => std::thread::sleep(LISTEN_PAUSE),
            opened => return opened.map_err(failed),
        }
    }
    open().map_err(failed)
}

fn public_url(config: &Config, address: SocketAddr) -> String {
    match (config.server.public_url.as_str(), config.server.tls_certificate.as_str()) {
        ("", "") => format!("http://{address}"),
        ("", _) => format!("https://{address}"),
        (url, _) => url.to_owned(),
    }
}
