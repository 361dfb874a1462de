//! Requests that do not hold on to what they were read from.

use actix_web::dev::{ServiceRequest, Url};
use actix_web::http::Uri;
use actix_web::http::header::{HeaderMap, HeaderValue};

/// Copies the head of a request out of the buffer that it was read into.
///
/// Header values and the address are slices of that buffer, which a body makes 128 KiB large, and actix keeps the heads of 128 requests on each
/// worker as they are until it needs them again: 13 MiB were held a minute after a flood of large bodies.
pub fn detach(request: &mut ServiceRequest) {
    let head = request.head_mut();
    copy_values(&mut head.headers);
    if let Ok(uri) = Uri::try_from(head.uri.to_string()) {
        head.uri = uri.clone();
        request.match_info_mut().set(Url::new(uri));
    }
}

fn copy_values(headers: &mut HeaderMap) {
    let read = std::mem::take(headers);
    for (name, value) in &read {
        let copy = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
        headers.append(name.clone(), copy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;
    use bytes::Bytes;

    #[test]
    fn nothing_of_the_buffer_is_held() {
        let buffer = Bytes::from(b"token /v1/documents?limit=2".to_vec());
        let mut request = TestRequest::default().to_srv_request();
        request
            .head_mut()
            .headers
            .insert(actix_web::http::header::AUTHORIZATION, HeaderValue::from_maybe_shared(buffer.slice(..5)).unwrap());
        let uri = Uri::from_maybe_shared(buffer.slice(6..)).unwrap();
        request.head_mut().uri = uri.clone();
        request.match_info_mut().set(Url::new(uri));
        assert!(!buffer.is_unique());
        detach(&mut request);
        assert!(buffer.is_unique());
        assert_eq!(request.headers().get("authorization").unwrap(), "token");
        assert_eq!((request.path(), request.query_string()), ("/v1/documents", "limit=2"));
        assert_eq!(request.match_info().as_str(), "/v1/documents");
    }
}
