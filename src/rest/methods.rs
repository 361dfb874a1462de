//! What nobody serves: an unknown path, or a known one by another method.

use super::{ApiError, openapi};
use actix_web::dev::ResourceDef;
use actix_web::{HttpRequest, HttpResponse};
use std::collections::BTreeSet;
use std::sync::LazyLock;
use utoipa::openapi::path::PathItem;

/// What the description leaves out: the page, the description itself, the sockets, which speak the protocols of their clients, and calls
/// of older clients that are there under another name too.
const BESIDE: &[(&str, &[&str])] = &[
    ("/", &["GET", "HEAD"]),
    ("/open/{document}", &["GET", "HEAD"]),
    ("/assets/{name}", &["GET", "HEAD"]),
    ("/openapi.json", &["GET"]),
    ("/docs", &["GET"]),
    ("/docs/page.js", &["GET"]),
    ("/docs/page.css", &["GET"]),
    ("/yjs/{room:.*}", &["GET"]),
    ("/collab", &["GET"]),
    ("/collab/", &["GET"]),
    ("/d/{id:.+}/ws/{again:.+}", &["GET"]),
    ("/doc/ws/{id:.+}", &["GET"]),
    ("/doc/{id:.+}/as-update", &["GET"]),
    ("/doc/{id:.+}/update", &["POST"]),
    ("/check_store", &["GET"]),
];

struct Served {
    path: ResourceDef,
    methods: Vec<&'static str>,
}

static SERVED: LazyLock<Vec<Served>> = LazyLock::new(|| {
    let described = openapi().paths.paths.into_iter();
    let described = described.map(|(path, item)| Served { path: ResourceDef::new(path), methods: methods(&item) });
    let beside =
        BESIDE.iter().map(|(path, methods)| Served { path: ResourceDef::new(*path), methods: methods.to_vec() });
    described.chain(beside).collect()
});

fn methods(item: &PathItem) -> Vec<&'static str> {
    let all = [
        ("GET", &item.get),
        ("POST", &item.post),
        ("PUT", &item.put),
        ("PATCH", &item.patch),
        ("DELETE", &item.delete),
    ];
    all.into_iter().filter(|(_, operation)| operation.is_some()).map(|(method, _)| method).collect()
}

/// The answer to what no resource took: 405 with `Allow` where the path takes other methods, else 404.
pub async fn not_found(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let served = SERVED.iter().filter(|served| served.path.is_match(request.path()));
    let allow: BTreeSet<&str> = served.flat_map(|served| served.methods.iter().copied()).collect();
    if allow.is_empty() || allow.contains(request.method().as_str()) {
        return Err(ApiError::NotFound("resource"));
    }
    Err(ApiError::MethodNotAllowed { allow: allow.into_iter().collect::<Vec<_>>().join(", ") })
}
