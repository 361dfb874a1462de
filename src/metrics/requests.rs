//! HTTP requests by method, route and status, with the time they took.

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use std::time::Instant;

pub(super) const SECONDS: &str = "contextnexus_http_request_seconds";

/// The middleware, for `actix_web::middleware::from_fn`. Its labels are patterns of routes, never what a client wrote.
///
/// # Errors
/// Those of what it wraps.
pub async fn timed<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let started = Instant::now();
    let method = method(request.method());
    let route = route(&request);
    let outcome = next.call(request).await;
    let status = match &outcome {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    let labels = [("method", method.to_owned()), ("route", route), ("status", status.as_u16().to_string())];
    metrics::histogram!(SECONDS, &labels).record(started.elapsed());
    outcome
}

/// The route of a request as the OpenAPI description writes it, or `unmatched`: `/d/{id}/as-update`, whatever an `{id}` may be here.
pub fn route(request: &ServiceRequest) -> String {
    let Some(pattern) = request.match_pattern() else { return "unmatched".to_owned() };
    let mut route = String::with_capacity(pattern.len());
    let mut is_expression = false;
    for letter in pattern.chars() {
        is_expression = (is_expression || letter == ':') && letter != '}';
        if !is_expression {
            route.push(letter);
        }
    }
    route
}

/// A method is any word that a client likes.
fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| method == *known).unwrap_or("other")
}
