//! The cookie that signs a browser in, and the one by which a browser is known that has signed somebody in before.
//!
//! The server's own page keeps no token where scripts can read it. `__Host-` binds the cookie to this host, without a domain
//! and over TLS; browsers refuse that prefix on plain http, so on such (a first try on one's own machine) another name serves.

use actix_web::cookie::time::Duration;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::http::header::{self, HeaderMap};
use contextnexus_actors::access::Token;

const SECURE_NAME: &str = "__Host-contextnexus";
const PLAIN_NAME: &str = "contextnexus";
const SECURE_DEVICE_NAME: &str = "__Host-contextnexus-device";
const PLAIN_DEVICE_NAME: &str = "contextnexus-device";
/// Browsers keep no cookie longer.
const DEVICE_DAYS: i64 = 400;

/// The token of the request's cookie. The caller checks the origin (see [`crate::origins`]).
#[must_use]
pub fn token(request: &HeaderMap) -> Option<Token> {
    value(request, SECURE_NAME, PLAIN_NAME).map(Token)
}

/// What the cookie says by which this browser is known; see [`crate::devices`].
#[must_use]
pub fn device(request: &HeaderMap) -> Option<String> {
    value(request, SECURE_DEVICE_NAME, PLAIN_DEVICE_NAME)
}

fn value(request: &HeaderMap, secure: &str, plain: &str) -> Option<String> {
    let mut found = None;
    for header in request.get_all(header::COOKIE) {
        for pair in header.to_str().ok()?.split(';') {
            match pair.trim().split_once('=') {
                Some((name, value)) if name == secure => return Some(value.to_owned()),
                Some((name, value)) if name == plain => found = Some(value.to_owned()),
                _ => {}
            }
        }
    }
    found
}

/// What the cookie is called.
#[must_use]
pub fn name(secure: bool) -> &'static str {
    if secure { SECURE_NAME } else { PLAIN_NAME }
}

/// The cookie to set. It lasts `seconds`, which is as long as its session.
#[must_use]
pub fn signing_in(token: &Token, secure: bool, seconds: i64) -> Cookie<'static> {
    cookie(name(secure), token.0.clone(), secure, seconds)
}

/// The cookie by which this browser is known from now on.
#[must_use]
pub fn remembering(device: String, secure: bool) -> Cookie<'static> {
    let name = if secure { SECURE_DEVICE_NAME } else { PLAIN_DEVICE_NAME };
    cookie(name, device, secure, DEVICE_DAYS * 86_400)
}

/// What takes the cookie away.
#[must_use]
pub fn signing_out(secure: bool) -> Cookie<'static> {
    cookie(name(secure), String::new(), secure, 0)
}

fn cookie(name: &'static str, value: String, secure: bool, seconds: i64) -> Cookie<'static> {
    Cookie::build(name, value)
        .path("/")
        .secure(secure)
        .http_only(true)
        .same_site(SameSite::Lax)
        .max_age(Duration::seconds(seconds))
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    #[test]
    fn the_cookie_that_is_set_is_the_one_that_is_read() {
        for secure in [true, false] {
            let cookie = signing_in(&Token("cnx_1".into()), secure, 60).to_string();
            assert!(cookie.contains("HttpOnly; SameSite=Lax"), "{cookie}");
            assert_eq!(cookie.contains("Secure"), secure);
            let pair = cookie.split(';').next().unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_str(&format!("theme=dark; {pair}")).unwrap());
            assert_eq!(token(&headers), Some(Token("cnx_1".into())));
        }
        assert_eq!(token(&HeaderMap::new()), None);
    }
}
