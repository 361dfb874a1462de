//! Which web pages may use this server from a browser.
//!
//! A browser sends cookies along with the requests of any page, so a cookie counts only from a page of this server or
//! of an origin that the settings name. A token that the page itself sends is no ambient authority: another page does
//! not have it. So tokens are taken from every origin, over WebSockets and over HTTP, unless the operator has their
//! origins checked too (`server.check_token_origins`).
//!
//! What a page is refused because of its origin is logged with the setting that would allow it (`refusals`).

mod refusals;

pub use refusals::Refusal;

use actix_web::http::header::{self, HeaderMap};
use refusals::Refusals;
use std::sync::Arc;

/// The origins of the settings `server.allowed_origins` and `server.cors_origins`. Cheap to clone; clones share their
/// log.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    with_cookie: Vec<String>,
    cors: Vec<String>,
    cors_any: bool,
    public: Option<String>,
    loopback: bool,
    checks_tokens: bool,
    refusals: Arc<Refusals>,
}

/// What an upgrade to a WebSocket may authenticate with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admits {
    /// A token in whatever place, or the cookie.
    Cookie,
    /// A token that the client sends. The cookie does not count.
    Token,
    /// Nothing: pages of this origin may not connect.
    Nothing,
}

impl Origins {
    /// `public_url` is the address that users type, empty when that is where the server listens. `loopback`: the server listens on
    /// a loopback address, where every page that the machine's own user serves may use it.
    #[must_use]
    pub fn new(allowed: &[String], cors: &[String], public_url: &str, loopback: bool) -> Self {
        let tidy = |origin: &String| origin.trim_end_matches('/').to_ascii_lowercase();
        Self {
            with_cookie: allowed.iter().map(tidy).collect(),
            cors: cors.iter().map(tidy).collect(),
            cors_any: cors.iter().any(|origin| origin == "*"),
            public: origin_of(public_url),
            loopback,
            ..Self::default()
        }
    }

    /// Whether pages that send a token are refused, too, unless their origin is listed (`server.check_token_origins`).
    #[must_use]
    pub fn checking_tokens(mut self, checks: bool) -> Self {
        self.checks_tokens = checks;
        self
    }

    /// Whether a request that is authenticated by a cookie may be served. Without an `Origin`, no: browsers send one with every
    /// WebSocket and every request that changes something.
    #[must_use]
    pub fn allows_cookie(&self, request: &HeaderMap) -> bool {
        let Some(origin) = origin_header(request) else { return false };
        self.is_own(&origin, request) || self.with_cookie.contains(&origin)
    }

    /// What a WebSocket may be opened with. A program sends no origin; it needs a token of its own.
    #[must_use]
    pub fn admits(&self, request: &HeaderMap) -> Admits {
        if self.allows_cookie(request) {
            return Admits::Cookie;
        }
        let listed = || origin_header(request).is_some_and(|origin| self.is_listed_for_tokens(&origin));
        if self.checks_tokens && request.contains_key(header::ORIGIN) && !listed() {
            return Admits::Nothing;
        }
        Admits::Token
    }

    /// Whether the page may read the answer. `None`: it needs no permission (no browser, or the server's own page).
    /// With permission: the value of `Access-Control-Allow-Origin`. `with_token`: the request brings a token of the
    /// page's own, or asks whether it may.
    #[must_use]
    pub fn cors(&self, request: &HeaderMap, with_token: bool) -> Option<Result<String, ()>> {
        let origin = origin_header(request)?;
        if self.is_own(&origin, request) && !self.is_loopback_of_another(&origin, request) {
            return None;
        }
        let takes_token = || !self.checks_tokens || self.with_cookie.contains(&origin);
        let allowed = self.is_listed_for_tokens(&origin) || (with_token && takes_token());
        Some(if allowed { Ok(origin) } else { Err(()) })
    }

    /// Logs that a page was refused something because of its origin, and which setting would allow it.
    pub fn tell(&self, request: &HeaderMap, refusal: Refusal) {
        if let Some(origin) = request.get(header::ORIGIN) {
            self.refusals.tell(std::time::Instant::now(), &String::from_utf8_lossy(origin.as_bytes()), refusal);
        }
    }

    fn is_own(&self, origin: &str, request: &HeaderMap) -> bool {
        self.public.as_deref() == Some(origin)
            || host_of(origin).is_some_and(|host| host_header(request).as_deref() == Some(host))
            || (self.loopback && is_loopback(origin))
    }

    fn is_listed_for_tokens(&self, origin: &str) -> bool {
        self.cors_any || self.cors.iter().any(|listed| listed == origin) || (self.loopback && is_loopback(origin))
    }

    fn is_loopback_of_another(&self, origin: &str, request: &HeaderMap) -> bool {
        self.public.as_deref() != Some(origin) && host_of(origin) != host_header(request).as_deref()
    }
}

fn origin_header(request: &HeaderMap) -> Option<String> {
    Some(request.get(header::ORIGIN)?.to_str().ok()?.to_ascii_lowercase())
}

fn host_header(request: &HeaderMap) -> Option<String> {
    Some(request.get(header::HOST)?.to_str().ok()?.to_ascii_lowercase())
}

/// `host[:port]` of an origin.
fn host_of(origin: &str) -> Option<&str> {
    origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"))
}

/// Scheme, host and port of an address.
fn origin_of(url: &str) -> Option<String> {
    let url = url.trim().to_ascii_lowercase();
    let rest = host_of(&url)?;
    let host = rest.split('/').next().filter(|host| !host.is_empty())?;
    let scheme = if url.starts_with("https://") { "https" } else { "http" };
    Some(format!("{scheme}://{host}"))
}

fn is_loopback(origin: &str) -> bool {
    let Some(host) = host_of(origin) else { return false };
    let (name, port) = match host.strip_prefix('[') {
        Some(v6) => v6.split_once(']').unwrap_or_default(),
        None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    port.bytes().all(|b| b.is_ascii_digit())
        && (name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn request(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        headers
    }

    #[test]
    fn a_cookie_counts_only_from_pages_that_are_ours_or_named() {
        let origins = Origins::new(&["https://App.example.org/".into()], &[], "https://collab.example.org/x", false);
        let allows = |host: &str, origin: Option<&str>| origins.allows_cookie(&request(host, origin));
        assert!(allows("collab.example.org", Some("https://collab.example.org")));
        assert!(allows("10.0.0.1:8080", Some("https://collab.example.org")), "behind a proxy that rewrites Host");
        assert!(allows("10.0.0.1:8080", Some("http://10.0.0.1:8080")));
        assert!(allows("collab.example.org", Some("https://app.example.org")));
        for foreign in [
            "https://evil.example",
            "https://app.example.org.evil.example",
            "null",
            "http://localhost:3000",
            "https://app.example.org:444",
        ] {
            assert!(!allows("collab.example.org", Some(foreign)), "{foreign}");
        }
        assert!(!allows("collab.example.org", None));
    }

    #[test]
    fn on_loopback_the_machines_own_pages_may() {
        let origins = Origins::new(&[], &[], "", true);
        for page in ["http://localhost:5173", "http://127.0.0.1:8080", "http://127.3.2.1", "http://[::1]:3000"] {
            assert!(origins.allows_cookie(&request("127.0.0.1:8080", Some(page))), "{page}");
        }
        for page in [
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "https://evil.example",
            "http://[::2]",
            "http://localhost:80@evil.example",
            "http://[::1].evil.example",
        ] {
            assert!(!origins.allows_cookie(&request("127.0.0.1:8080", Some(page))), "{page}");
        }
        assert_eq!(
            origins.cors(&request("127.0.0.1:8080", Some("http://localhost:5173")), false),
            Some(Ok("http://localhost:5173".into()))
        );
    }

    #[test]
    fn cors_names_pages_that_read_answers_and_no_others() {
        let origins = Origins::new(&[], &["https://app.example.org".into()], "", false);
        let cors = |origin: Option<&str>| origins.cors(&request("collab.example.org", origin), false);
        assert_eq!(cors(None), None);
        assert_eq!(cors(Some("https://collab.example.org")), None);
        assert_eq!(cors(Some("https://app.example.org")), Some(Ok("https://app.example.org".into())));
        assert_eq!(cors(Some("https://evil.example")), Some(Err(())));
        let any = Origins::new(&[], &["*".into()], "", false);
        assert_eq!(any.cors(&request("h", Some("https://x.example")), false), Some(Ok("https://x.example".into())));
    }

    #[test]
    fn a_token_is_taken_from_every_origin_unless_the_operator_wants_origins_checked() {
        let listed = ["https://app.example.org".to_owned()];
        let open = Origins::new(&["https://own.example".into()], &listed, "", false);
        let strict = open.clone().checking_tokens(true);
        let ask = |origins: &Origins, origin: Option<&str>| origins.admits(&request("collab.example.org", origin));
        for foreign in ["https://site.example", "null"] {
            assert_eq!(ask(&open, Some(foreign)), Admits::Token, "{foreign}");
            assert_eq!(ask(&strict, Some(foreign)), Admits::Nothing, "{foreign}");
            let headers = request("collab.example.org", Some(foreign));
            assert_eq!(open.cors(&headers, true), Some(Ok(foreign.into())), "with a token it may read");
            assert_eq!(open.cors(&headers, false), Some(Err(())), "without one it may not");
            assert_eq!(strict.cors(&headers, true), Some(Err(())));
        }
        for origins in [&open, &strict] {
            assert_eq!(ask(origins, None), Admits::Token, "a program");
            assert_eq!(ask(origins, Some("https://app.example.org")), Admits::Token);
            assert_eq!(ask(origins, Some("https://own.example")), Admits::Cookie);
            assert_eq!(ask(origins, Some("https://collab.example.org")), Admits::Cookie);
        }
        let mut unreadable = request("collab.example.org", None);
        unreadable.insert(header::ORIGIN, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!((open.admits(&unreadable), strict.admits(&unreadable)), (Admits::Token, Admits::Nothing));
    }
}
