//! Where a token may stand in an upgrade request. Pure.

use crate::cookies;
use actix_web::HttpRequest;
use actix_web::http::header;
use contextnexus_actors::access::Token;

/// The subprotocol that the server selects when it is offered.
pub const SUBPROTOCOL: &str = "contextnexus";
/// Offered beside it by browsers, which cannot set headers. Never selected: the answer would repeat the secret.
const SUBPROTOCOL_TOKEN: &str = "contextnexus.token.";

/// The token of an upgrade request.
///
/// The cookie is read only when `with_cookie`: it comes along with whatever page asks, every other place proves that the asker knew
/// the token. The first place that has one counts, the deliberate ones first.
pub fn token(request: &HttpRequest, with_cookie: bool) -> Option<Token> {
    bearer(request)
        .or_else(|| subprotocol(request))
        .or_else(|| query(request, "ticket"))
        .or_else(|| query(request, "token"))
        .map(Token)
        .or_else(|| if with_cookie { cookies::token(request.headers()) } else { None })
        .filter(|token| !token.0.is_empty())
}

fn bearer(request: &HttpRequest) -> Option<String> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

fn subprotocol(request: &HttpRequest) -> Option<String> {
    request
        .headers()
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|offers| offers.split(','))
        .find_map(|offer| offer.trim().strip_prefix(SUBPROTOCOL_TOKEN).map(str::to_owned))
}

fn query(request: &HttpRequest, name: &str) -> Option<String> {
    let pairs = actix_web::web::Query::<Vec<(String, String)>>::from_query(request.query_string()).ok()?;
    pairs.into_inner().into_iter().find_map(|(key, value)| (key == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn found(request: TestRequest, with_cookie: bool) -> Option<String> {
        token(&request.to_http_request(), with_cookie).map(|token| token.0)
    }

    fn get(uri: &str) -> TestRequest {
        TestRequest::get().uri(uri)
    }

    #[test]
    fn a_token_is_found_wherever_clients_can_put_it() {
        let offers = ("Sec-WebSocket-Protocol", "contextnexus, contextnexus.token.cnx_a-b");
        assert_eq!(found(get("/").insert_header(("Authorization", "Bearer cnx_a")), false).as_deref(), Some("cnx_a"));
        assert_eq!(found(get("/").insert_header(offers), false).as_deref(), Some("cnx_a-b"));
        assert_eq!(found(get("/?x=1&token=cnx_a"), false).as_deref(), Some("cnx_a"));
        assert_eq!(found(get("/?ticket=cnx%5Fa&token=other"), false).as_deref(), Some("cnx_a"));
        assert_eq!(found(get("/?token="), false), None);
        assert_eq!(found(get("/"), true), None);
    }

    #[test]
    fn a_cookie_counts_only_for_a_page_of_ours() {
        let with_cookie = || get("/").insert_header(("Cookie", "other=x; contextnexus=cnx_a"));
        assert_eq!(found(with_cookie(), true).as_deref(), Some("cnx_a"));
        assert_eq!(found(with_cookie(), false), None);
    }

    #[test]
    fn what_was_given_on_purpose_goes_before_the_cookie() {
        let both = get("/?token=cnx_b").insert_header(("Cookie", "contextnexus=cnx_a"));
        assert_eq!(found(both, true).as_deref(), Some("cnx_b"));
    }
}
