//! `ETag` and `If-Match` over `pg_version`.

use super::error::ApiError;
use actix_web::HttpRequest;
use actix_web::http::header;

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

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

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
