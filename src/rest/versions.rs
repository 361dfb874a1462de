//! `ETag` and `If-Match` over `pg_version`, and `If-None-Match` over any `ETag`.

use super::error::ApiError;
use actix_web::HttpRequest;
use actix_web::http::header::{self, EntityTag, Header as _, IfNoneMatch};

/// The `ETag` of a version.
#[must_use]
pub fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// The version that `If-Match` names.
///
/// # Errors
/// [`ApiError::PreconditionRequired`] without the header, [`ApiError::Malformed`] where it is not one ETag of ours. `*` is refused
/// too: who does not know what a change replaces must read it first.
pub fn if_match(request: &HttpRequest) -> Result<i64, ApiError> {
    let header = request.headers().get(header::IF_MATCH).ok_or(ApiError::PreconditionRequired)?;
    header
        .to_str()
        .ok()
        .and_then(|text| text.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok())
        .ok_or_else(|| ApiError::Malformed("If-Match holds one ETag of this resource".into()))
}

/// Whether `If-None-Match` names this `ETag`, so that the answer is 304: a list, `*`, and weak comparison (RFC 9110,
/// 13.1.2). A cache or proxy that compresses makes a strong `ETag` a weak one; it is the same content.
#[must_use]
pub fn is_known(request: &HttpRequest, etag: &str) -> bool {
    if !request.headers().contains_key(header::IF_NONE_MATCH) {
        return false;
    }
    match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(seen)) => {
            etag.parse::<EntityTag>().is_ok_and(|etag| seen.iter().any(|seen| seen.weak_eq(&etag)))
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn if_none_match_is_a_list_compared_weakly() {
        let with = |values: &[&str], etag: &str| {
            let request = values
                .iter()
                .fold(TestRequest::get(), |request, value| request.append_header(("if-none-match", *value)));
            is_known(&request.to_http_request(), etag)
        };
        for values in [
            &["\"7-a-j\""][..],
            &["W/\"7-a-j\""],
            &["\"6-b-j\", \"7-a-j\""],
            &["\"6-b-j\",W/\"7-a-j\" , \"8\""],
            &["\"6-b-j\"", "\"7-a-j\""],
            &["*"],
            &[" * "],
        ] {
            assert!(with(values, "\"7-a-j\"") && with(values, "W/\"7-a-j\""), "{values:?}");
        }
        for values in [&[][..], &[""], &["7-a-j"], &["\"7-a-t\""], &["\"7-a-j"], &["w/\"7-a-j\""], &["\"\""]] {
            assert!(!with(values, "\"7-a-j\""), "{values:?}");
        }
    }

    #[test]
    fn if_match_takes_exactly_one_etag_of_ours() {
        let with = |value: &str| if_match(&TestRequest::get().insert_header(("if-match", value)).to_http_request());
        assert_eq!(with(&etag(7)).unwrap(), 7);
        for value in ["*", "7", "W/\"7\"", "\"7\", \"8\"", "\"x\"", ""] {
            assert!(matches!(with(value), Err(ApiError::Malformed(_))), "{value}");
        }
        let without = TestRequest::get().to_http_request();
        assert!(matches!(if_match(&without), Err(ApiError::PreconditionRequired)));
    }
}
