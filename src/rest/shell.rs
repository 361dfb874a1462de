//! What stands around every request and answer: a request id, CORS, and headers that bind browsers.

use super::body::{Arrival, announced};
use super::{ApiError, Rest};
use crate::origins::{Origins, Refusal};
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpResponse, ResponseError as _, web};
use std::time::Duration;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What scripts of other origins may read beside the body.
const EXPOSED: &str = "etag, retry-after, x-request-id, contextnexus-seq";

/// The id of a request: the client's own where it sent a plain one, else a fresh one. In the request's extensions, in its
/// log lines and in the answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestId(pub String);

/// The middleware, for `actix_web::middleware::from_fn`.
///
/// # Errors
/// Those of what it wraps.
pub async fn shell<B: MessageBody + 'static>(
    rest: web::Data<Rest>,
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let id = request_id(request.headers(), || rest.clock.fresh_id().to_string());
    let is_https = rest.is_https(request.request());
    request.extensions_mut().insert(RequestId(id.clone()));
    let cors = rest.origins.cors(request.headers(), brings_token(&request));
    // An upgrade to a WebSocket is not read by CORS; `ws::upgrade` decides over it.
    let is_call = is_api(request.path()) && !request.headers().contains_key(header::UPGRADE);
    if is_call && matches!(cors, Some(Err(()))) {
        rest.origins.tell(request.headers(), Refusal::Answer);
    }
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        && request.headers().contains_key(header::ORIGIN);
    let mut response = if is_preflight {
        request.into_response(preflight(cors.as_ref())).map_into_right_body()
    } else {
        // Handlers and extractors shape their errors themselves. (Holding the request to shape others here would be a second owner
        // of it, which actix's router does not bear.)
        match patience_with_body(&request, rest.settings.body_patience) {
            None => next.call(request).await?.map_into_left_body(),
            Some(patience) => {
                crate::net::detach(&mut request);
                let arrival = Arrival::watch(&mut request, &rest.budgets);
                let answer = tokio::time::timeout(patience, next.call(request)).await;
                let was_full = arrival.is_over();
                let response = answer.map_err(|_| ApiError::TooSlow)??;
                match was_full {
                    true => response.error_response(ApiError::Unavailable { retry_after_s: 1 }).map_into_right_body(),
                    false => response.map_into_left_body(),
                }
            }
        }
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(X_REQUEST_ID, id);
    }
    if let Some(Ok(origin)) = &cors {
        allow(headers, origin);
    }
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    harden(headers, is_https);
    Ok(response)
}

/// Whether the page authenticates itself by a token, or a browser asks on its behalf whether it may. Only where tokens
/// count: what anybody may read, a page of another origin reads only where the settings name it, since it might stand
/// on a network that the page cannot reach.
fn brings_token(request: &ServiceRequest) -> bool {
    let asks = || {
        let names = request.headers().get_all(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let mut names = names.filter_map(|names| names.to_str().ok()).flat_map(|names| names.split(','));
        names.any(|name| name.trim().eq_ignore_ascii_case(header::AUTHORIZATION.as_str()))
    };
    is_api(request.path()) && (request.headers().contains_key(header::AUTHORIZATION) || asks())
}

/// What is called with a token.
fn is_api(path: &str) -> bool {
    ["/v1/", "/doc/", "/d/"].iter().any(|prefix| path.starts_with(prefix))
}

/// How long a request with a body may take; without one it is ours to be quick.
fn patience_with_body(request: &ServiceRequest, least: Duration) -> Option<Duration> {
    /// A slow line may send a large document.
    const BYTES_PER_S: u64 = 64 * 1024;
    let headers = request.headers();
    let length = announced(headers).map(|length| length as u64);
    let has_body = length.is_some_and(|length| length > 0) || headers.contains_key(header::TRANSFER_ENCODING);
    has_body.then(|| least + Duration::from_secs(length.unwrap_or(0).min(u64::from(u32::MAX)) / BYTES_PER_S))
}

fn request_id(request: &HeaderMap, fresh: impl FnOnce() -> String) -> String {
    let given = request.get(X_REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    given.filter(plain).map_or_else(fresh, str::to_owned)
}

fn preflight(cors: Option<&Result<String, ()>>) -> HttpResponse {
    if matches!(cors, Some(Err(()))) {
        return ApiError::OriginNotAllowed.error_response();
    }
    HttpResponse::NoContent()
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PATCH, DELETE"))
        .insert_header((
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, if-match, if-none-match, idempotency-key, x-request-id",
        ))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, "600"))
        .finish()
}

/// Never `Access-Control-Allow-Credentials`: cookies do not cross origins.
fn allow(headers: &mut HeaderMap, origin: &str) {
    if let Ok(origin) = HeaderValue::from_str(origin) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
}

fn harden(headers: &mut HeaderMap, https: bool) {
    let mut unless_set = |name: HeaderName, value: &'static str| {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    };
    unless_set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    unless_set(header::X_FRAME_OPTIONS, "DENY");
    unless_set(header::REFERRER_POLICY, "no-referrer"); // addresses may hold a token or a share link
    unless_set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    unless_set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    // Pages bring a policy of their own; an answer of the API is no page.
    unless_set(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    if https {
        unless_set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
}

/// The origins that the application was given, for sockets.
impl AsRef<Origins> for Rest {
    fn as_ref(&self) -> &Origins {
        &self.origins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_own_plain_id_and_no_other() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, HeaderValue::from_str(value).unwrap());
            request_id(&headers, || "fresh".into())
        };
        assert_eq!(with("abc-1.2_3"), "abc-1.2_3");
        for odd in ["", "a b", "a\"b", &"x".repeat(65)] {
            assert_eq!(with(odd), "fresh");
        }
    }
}
