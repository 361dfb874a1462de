//! The description of the interface, and a page to read it with. The page is one small script of ours: an operator's network may have
//! no way out, and a page that shows an API has no business to load code from elsewhere.

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use std::sync::LazyLock;
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};

/// The front page of the description.
pub(super) const INTRODUCTION: &str = "\
Documents that many write at once, over HTTP. Editors connect with the Yjs clients that they have; everything here is beside \
that: accounts, projects, names, and reading and writing documents from programs.\n\n\
**Authentication.** `Authorization: Bearer cnx_…`, with the token of a login, an API token, a document token or a ticket.\n\n\
**Errors** are `application/problem+json`. Decide by `code`, which is stable. What is missing and what belongs to somebody else answer \
alike.\n\n\
**Lists** go from the newest to the oldest; `next_cursor` leads to the next page.\n\n\
**Rooms.** `GET /v1/documents?room=` finds a document by the name that clients connect with: `{project slug}/{name}`, a name in the \
default project, or an id. In paths, names are percent-encoded once.\n\n\
**Versions.** What can be renamed has an `ETag`; send it as `If-Match`. 412 tells the current version.\n\n\
**Durability.** A success means that PostgreSQL has committed it.\n\n\
Every answer carries `X-Request-Id`: yours, if you sent one.";

const PAGE: &str = include_str!("docs/page.html");
const SCRIPT: &str = include_str!("docs/page.js");
const STYLE: &str = include_str!("docs/page.css");
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

static JSON: LazyLock<String> = LazyLock::new(|| super::openapi().to_json().unwrap_or_default());

pub(super) fn mount(config: &mut web::ServiceConfig) {
    config
        .route("/openapi.json", web::get().to(json))
        .route("/docs", web::get().to(|| asset("text/html; charset=utf-8", PAGE)))
        .route("/docs/page.js", web::get().to(|| asset("text/javascript; charset=utf-8", SCRIPT)))
        .route("/docs/page.css", web::get().to(|| asset("text/css; charset=utf-8", STYLE)));
}

async fn json() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(JSON.as_str())
}

async fn asset(kind: &'static str, body: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(body)
}

/// What any resource may answer, so that no resource has to repeat it: 401 where a token is needed, 503 everywhere.
pub(super) fn add_problems(api: &mut OpenApi) {
    for item in api.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            if operation.security.is_some() {
                add(operation, "401", "`unauthenticated`");
            }
            if operation.request_body.is_some() {
                add(operation, "400", "`malformed_request`");
            }
            add(operation, "503", "`unavailable`: try again after `Retry-After` seconds");
        }
    }
}

fn add(operation: &mut Operation, status: &str, description: &str) {
    operation.responses.responses.entry(status.into()).or_insert_with(|| {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        ResponseBuilder::new().description(description).content("application/problem+json", problem).build().into()
    });
}
