//! The browser workspace, served from the bundle that is compiled in (`web/dist`), and the little that its sign-in form must know.
//!
//! Files below `/assets/` carry a hash of their content in their name and are kept by browsers for ever; the page itself is tiny,
//! never kept, and gets a fresh nonce each time. This module knows no session: the page brings its token to `/v1` and `/collab` itself.

use crate::rest::is_known;
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, get};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use rand::TryRng as _;
use rust_embed::Embed;
use serde::Serialize;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::OnceLock;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig as DescribedConfig;

/// What everybody may know of this server, signed in or not: the body of `GET /v1/server`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Server)]
pub struct ServerFacts {
    /// The product.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// There is a demo tenant, whose password stands in the data directory: the sign-in form says so.
    pub demo: bool,
}

impl ServerFacts {
    /// The facts of this build.
    #[must_use]
    pub fn new(demo: bool) -> Self {
        Self { name: "ContextNexus", version: env!("CARGO_PKG_VERSION"), demo }
    }
}

/// Adds the page, its assets and `GET /v1/server`. Needs `Data<ServerFacts>`.
pub fn configure(service: &mut ServiceConfig) {
    resources(&mut DescribedConfig::new(service));
    service
        .app_data(Data::from(bundle()))
        .route("/assets/{name}", web::get().to(asset))
        .route("/assets/{name}", web::head().to(asset));
    // The places of the page (`web/src/route.ts`): the list of documents, and a document, which is what a shared link names.
    service
        .route("/", web::get().to(page))
        .route("/", web::head().to(page))
        .route("/open/{document}", web::get().to(document))
        .route("/open/{document}", web::head().to(document));
}

/// What of this belongs to the interface for programs, described.
pub(crate) fn resources(service: &mut DescribedConfig<'_>) {
    service.service(facts);
}

/// What everybody may know of this server, signed in or not.
#[utoipa::path(operation_id = "get_server", tag = "Server", responses((status = 200, body = ServerFacts)))]
#[get("/v1/server")]
async fn facts(facts: Data<ServerFacts>) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(facts.as_ref())
}

/// The list of documents.
async fn page(bundle: Data<Bundle>) -> HttpResponse {
    send_page(&bundle, StatusCode::OK)
}

/// A document. Whether there is one by this id, the page asks for itself; what is no id is no address of a document.
async fn document(id: Path<String>, bundle: Data<Bundle>) -> HttpResponse {
    let is_id = id.len() == 36 && uuid::Uuid::try_parse(&id).is_ok();
    send_page(&bundle, if is_id { StatusCode::OK } else { StatusCode::NOT_FOUND })
}

/// Whether a person asks, in a browser's address bar, and not a program for something of its interface.
#[must_use]
pub fn is_navigation(request: &HttpRequest) -> bool {
    /// What the paths for programs begin with.
    const PROGRAMS: &[&str] =
        &["v1", "yjs", "collab", "doc", "d", "assets", "openapi.json", "metrics", "live", "ready", "check_store"];
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let begins = request.path().trim_start_matches('/').split('/').next().unwrap_or_default();
    matches!(*request.method(), Method::GET | Method::HEAD)
        && accept.split(',').any(|kind| kind.trim().starts_with("text/html"))
        && !PROGRAMS.contains(&begins)
}

/// The page at an address that leads nowhere: it says so, and leads back.
pub async fn not_found() -> HttpResponse {
    send_page(&bundle(), StatusCode::NOT_FOUND)
}

/// The page reads the address itself: it is the same at each.
fn send_page(bundle: &Bundle, status: StatusCode) -> HttpResponse {
    let Some(nonce) = fresh_nonce() else {
        return HttpResponse::ServiceUnavailable().finish(); // without randomness nothing else here works either
    };
    HttpResponse::build(status)
        .insert_header((header::CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::CONTENT_SECURITY_POLICY, content_security_policy(&nonce)))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::X_FRAME_OPTIONS, "DENY"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header(("cross-origin-opener-policy", "same-origin"))
        .insert_header(("permissions-policy", "camera=(), microphone=(), geolocation=()"))
        .body(bundle.page.replace(NONCE_PLACE, &nonce))
}

async fn asset(request: HttpRequest, name: Path<String>, bundle: Data<Bundle>) -> HttpResponse {
    let Some(asset) = bundle.assets.get(name.as_str()) else {
        return HttpResponse::NotFound().insert_header((header::CACHE_CONTROL, "no-store")).finish();
    };
    let asked = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or("");
    let is_known = is_known(&request, &asset.etag);
    let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((header::CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .insert_header((header::ETAG, asset.etag.as_str()))
        .insert_header((header::VARY, "accept-encoding"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CONTENT_TYPE, asset.mime.as_str()));
    if is_known {
        return response.finish();
    }
    match asset.gzip().filter(|_| accepts_gzip(asked(header::ACCEPT_ENCODING))) {
        Some(gzip) => response.insert_header((header::CONTENT_ENCODING, "gzip")).body(gzip),
        None => response.body(asset.bytes.clone()),
    }
}

/// What the bundler writes where the nonce belongs (`web/vite.config.ts`).
const NONCE_PLACE: &str = "CSP_NONCE";

/// 128 bits: nobody guesses it while the page lives.
fn fresh_nonce() -> Option<String> {
    let mut bytes = [0_u8; 16];
    rand::rngs::SysRng.try_fill_bytes(&mut bytes).ok()?;
    Some(STANDARD_NO_PAD.encode(bytes))
}

/// Scripts and styles from here alone. The nonce admits the style sheets that the code editor makes while it runs; it admits no
/// script, because none is inline. `connect-src 'self'` covers the WebSocket of the same host and port.
fn content_security_policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; font-src 'self'; img-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// Whether `gzip` is named and not refused by a weight of zero.
fn accepts_gzip(accept_encoding: &str) -> bool {
    accept_encoding.split(',').any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|coding| coding.eq_ignore_ascii_case("gzip"));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        is_gzip && weight.is_none_or(|weight| weight > 0.0)
    })
}

#[derive(Embed)]
#[folder = "web/dist"]
struct Dist;

/// The bundle, read once.
struct Bundle {
    page: String,
    assets: HashMap<String, Asset>,
}

struct Asset {
    bytes: Bytes,
    mime: String,
    etag: String,
    gzip: OnceLock<Option<Bytes>>,
}

impl Asset {
    /// Compressed on first use, for whoever asks next too. `None` for what is compressed already.
    fn gzip(&self) -> Option<Bytes> {
        self.gzip
            .get_or_init(|| {
                if self.mime.starts_with("font/") {
                    return None;
                }
                let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                encoder.write_all(&self.bytes).ok()?;
                encoder.finish().ok().map(Bytes::from)
            })
            .clone()
    }
}

/// One bundle for all workers of a process.
fn bundle() -> std::sync::Arc<Bundle> {
    static BUNDLE: OnceLock<std::sync::Arc<Bundle>> = OnceLock::new();
    BUNDLE.get_or_init(|| std::sync::Arc::new(Bundle::read())).clone()
}

impl Bundle {
    fn read() -> Self {
        let page =
            Dist::get("index.html").map(|file| String::from_utf8_lossy(&file.data).into_owned()).unwrap_or_default();
        let assets = Dist::iter()
            .filter_map(|path| {
                let name = path.strip_prefix("assets/")?.to_owned();
                let file = Dist::get(&path)?;
                let mime = match file.metadata.mimetype() {
                    text if text.starts_with("text/") => format!("{text}; charset=utf-8"),
                    other => other.to_owned(),
                };
                let etag = etag(&file.metadata.sha256_hash());
                Some((name, Asset { bytes: Bytes::from(file.data.into_owned()), mime, etag, gzip: OnceLock::new() }))
            })
            .collect();
        Self { page, assets }
    }
}

/// Weak, because the same content goes out compressed and plain.
fn etag(hash: &[u8]) -> String {
    let mut etag = String::from("W/\"");
    for byte in hash.iter().take(16) {
        let _ = write!(etag, "{byte:02x}"); // writing into a String cannot fail
    }
    etag.push('"');
    etag
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::dev::ServiceResponse;
    use actix_web::test::{TestRequest, call_service, init_service, read_body};
    use actix_web::{App, body::MessageBody};

    async fn ask(request: TestRequest) -> ServiceResponse<impl MessageBody> {
        let app = init_service(App::new().app_data(Data::new(ServerFacts::new(true))).configure(configure)).await;
        call_service(&app, request.to_request()).await
    }

    fn header_of<B>(response: &ServiceResponse<B>, name: &str) -> String {
        response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    }

    /// The script that the page starts with.
    fn script_of(page: &str) -> &str {
        let from = page.find("/assets/index-").expect("the page loads a script");
        &page[from..from + page[from..].find('"').expect("an attribute ends")]
    }

    #[actix_web::test]
    async fn the_page_has_a_policy_whose_nonce_is_new_each_time() {
        let mut policies = Vec::new();
        for place in ["/", "/open/018f2d3c-0000-7000-8000-000000000000"] {
            let response = ask(TestRequest::get().uri(place)).await;
            assert_eq!(response.status(), StatusCode::OK);
            let policy = header_of(&response, "content-security-policy");
            let nonce =
                policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce").to_owned();
            let page = String::from_utf8(read_body(response).await.to_vec()).expect("utf-8");
            assert!(page.contains(&format!("nonce=\"{nonce}\"")), "the page carries the nonce of its policy");
            assert!(!page.contains(NONCE_PLACE), "no place is left empty");
            assert!(!policy.contains("unsafe"));
            policies.push(policy);
        }
        assert_ne!(policies[0], policies[1]);
    }

    #[actix_web::test]
    async fn what_the_page_loads_is_there_compressed_and_kept_for_ever() {
        let page = String::from_utf8(read_body(ask(TestRequest::get().uri("/")).await).await.to_vec()).expect("utf-8");
        let script = script_of(&page);
        let plain = ask(TestRequest::get().uri(script)).await;
        assert_eq!(plain.status(), StatusCode::OK);
        assert_eq!(header_of(&plain, "content-type"), "text/javascript; charset=utf-8");
        assert!(header_of(&plain, "cache-control").contains("immutable"));
        assert_eq!(header_of(&plain, "content-encoding"), "");
        let etag = header_of(&plain, "etag");
        let plain = read_body(plain).await;

        let packed = ask(TestRequest::get().uri(script).insert_header(("accept-encoding", "br, gzip;q=0.8"))).await;
        assert_eq!(header_of(&packed, "content-encoding"), "gzip");
        let packed = read_body(packed).await;
        let mut unpacked = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).expect("gzip");
        assert_eq!(unpacked, plain);
        assert!(packed.len() < plain.len() / 2);

        let known = ask(TestRequest::get().uri(script).insert_header(("if-none-match", etag))).await;
        assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
        assert!(read_body(known).await.is_empty());
    }

    #[actix_web::test]
    async fn nothing_outside_the_bundle_is_served() {
        for path in ["/assets/missing.js", "/assets/..%2Findex.html", "/assets/%2e%2e%2fCargo.toml", "/index.html"] {
            assert_eq!(ask(TestRequest::get().uri(path)).await.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[actix_web::test]
    async fn an_address_that_leads_nowhere_is_told_to_people_by_the_page_and_to_programs_by_a_status() {
        let app = || async {
            let nobody = |request: HttpRequest| async move {
                if is_navigation(&request) { not_found().await } else { HttpResponse::NotFound().finish() }
            };
            let told = Data::new(ServerFacts::new(true));
            init_service(App::new().app_data(told).configure(configure).default_service(web::to(nobody))).await
        };
        let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        for (path, accept, is_page) in [
            ("/no/such/page", html, true),
            ("/open/the-plan", html, true),
            ("/open/018f2d3c00007000800000000000", html, true),
            ("/v1/nothing", html, false),
            ("/doc/nothing", html, false),
            ("/assets/missing.js", html, false),
            ("/no/such/page", ("accept", "*/*"), false),
            ("/no/such/page", ("accept", "application/json"), false),
        ] {
            let request = TestRequest::get().uri(path).insert_header(accept).to_request();
            let response = call_service(&app().await, request).await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path} {accept:?}");
            let is_html = header_of(&response, "content-type").starts_with("text/html");
            assert_eq!(is_html, is_page, "{path} {accept:?}");
        }
    }

    #[actix_web::test]
    async fn the_sign_in_form_learns_whether_this_is_a_demo() {
        let told: serde_json::Value =
            serde_json::from_slice(&read_body(ask(TestRequest::get().uri("/v1/server")).await).await).expect("json");
        assert_eq!(
            told,
            serde_json::json!({"name": "ContextNexus", "version": env!("CARGO_PKG_VERSION"), "demo": true})
        );
    }

    #[test]
    fn gzip_is_sent_to_those_who_want_it() {
        for (offer, wanted) in [
            ("gzip", true),
            ("br, GZIP;q=0.1", true),
            ("gzip;q=0", false),
            ("identity", false),
            ("", false),
            ("x-gzip", false),
        ] {
            assert_eq!(accepts_gzip(offer), wanted, "{offer:?}");
        }
    }
}
