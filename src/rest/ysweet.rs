//! The HTTP calls of Y-Sweet, for its server SDKs and clients. The server token is an API token of ours.
//!
//! A document id there is a name in the tenant's default project, slashes included, or the id of a document of ours.
//! Older clients say `/doc/{id}` where newer ones say `/d/{id}`: the same calls at another address, which the
//! description leaves out. The server SDKs send a name with slashes as it is, so the routes take them.

use super::caller::Authenticated;
use super::content::UPDATE_TYPE;
use super::documents::require_writable;
use super::update::write_update;
use super::{ApiError, Problem, Rest, tickets, validate};
use crate::postgres::documents::{Document, NewDocument};
use crate::postgres::{StoreError, TenantTx, documents, projects, user_sessions};
use crate::{paths, tokens};
use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, HttpResponse, post, routes, web};
use bytes::Bytes;
use contextnexus_actors::access::{Caller, Role, Scope};
use contextnexus_actors::ids::{DocumentId, DocumentKey, UserId, UserSessionId};
use contextnexus_actors::ports::RoomName;
use contextnexus_actors::room;
use serde::{Deserialize, Serialize};
use std::future::{Ready, ready};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

const VALID_S_DEFAULT: u32 = 3600;
const VALID_S_MAX: u32 = 30 * 86_400;

pub(super) fn resources(config: &mut ServiceConfig<'_>) {
    config.service(check_store).service(create).service(authorize).service(as_update).service(update);
}

/// Whether documents can be stored.
#[derive(Serialize, ToSchema)]
struct StoreChecked {
    ok: bool,
}

/// Y-Sweet: whether the store answers.
#[utoipa::path(
    post, path = "/check_store", operation_id = "y_sweet_check_store", tag = "Y-Sweet", security(("token" = [])),
    responses((status = 200, body = StoreChecked))
)]
#[routes]
#[post("/check_store")]
#[get("/check_store")]
async fn check_store(rest: web::Data<Rest>, caller: Authenticated) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let mut db = rest.begin(caller.tenant).await?;
    projects::default(&mut db, caller).await?;
    Ok(HttpResponse::Ok().json(StoreChecked { ok: true }))
}

/// A document to create. Other fields of the SDK's are accepted and unused.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewDoc {
    /// A name in the default project; a fresh id unless told. A UUID becomes the document's id too.
    doc_id: Option<String>,
}

/// A document.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Doc {
    doc_id: String,
}

/// Y-Sweet: creates a document in the default project; one that is there already is as good.
#[utoipa::path(
    operation_id = "y_sweet_create", tag = "Y-Sweet", security(("token" = [])), request_body(content = NewDoc, description = "May be empty."),
    responses(
        (status = 200, body = Doc),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "`document_deleted`")
    )
)]
#[post("/doc/new")]
async fn create(rest: web::Data<Rest>, caller: Authenticated, body: Bytes) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let wanted: NewDoc = parse(&body)?;
    let mut db = rest.begin(caller.tenant).await?;
    let fresh = DocumentId(rest.clock.fresh_id());
    // The client goes on with the id as it asked for it, whatever the name's normal form is.
    let doc_id = wanted.doc_id.unwrap_or_else(|| fresh.to_string());
    let name = validate::document_name("docId", &doc_id)?;
    if let Some(document) = find(&mut db, caller, &name).await? {
        not_deleted(&document)?;
        return Ok(HttpResponse::Ok().json(Doc { doc_id }));
    }
    let project = projects::default(&mut db, caller).await?;
    require_writable(&project)?;
    let new = NewDocument { fresh, project: project.id, name: &name, title: &name, created_by: caller.user };
    match documents::create(&mut db, new).await {
        Ok(_) => db.commit().await?,
        // Somebody was faster: theirs is as good, if the caller sees it.
        Err(StoreError::Taken { .. }) => {
            not_deleted(&find(&mut db, caller, &name).await?.ok_or(ApiError::NotFound("document"))?)?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(HttpResponse::Ok().json(Doc { doc_id }))
}

/// What the token is to allow.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum Authorization {
    #[default]
    Full,
    ReadOnly,
}

/// A client token to make. Other fields of the SDK's are accepted and unused.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
struct AuthRequest {
    authorization: Authorization,
    /// The application's own user: becomes a user of kind `external`. That takes an administrator of the project.
    user_id: Option<String>,
    /// An hour unless told.
    #[schema(minimum = 1, maximum = 2592000)]
    valid_for_seconds: Option<u32>,
}

/// What a Y-Sweet client connects with.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ClientToken {
    /// The client appends `/` and the document's id.
    url: String,
    base_url: String,
    doc_id: String,
    token: String,
    authorization: Authorization,
}

/// Y-Sweet: makes a client token for one document, good as often as its bearer likes until it expires.
#[utoipa::path(
    post, path = "/doc/{id}/auth", operation_id = "y_sweet_authorize", tag = "Y-Sweet", security(("token" = [])), params(("id" = String, Path)),
    request_body(content = AuthRequest, description = "May be empty."),
    responses(
        (status = 200, body = ClientToken),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 410, body = Problem, content_type = "application/problem+json", description = "`document_deleted`")
    )
)]
#[post("/doc/{id:.+}/auth")]
async fn authorize(
    request: HttpRequest,
    rest: web::Data<Rest>,
    caller: Authenticated,
    id: DocIdInPath,
    body: Bytes,
) -> Result<HttpResponse, ApiError> {
    let caller = caller.user()?;
    let wanted: AuthRequest = parse(&body)?;
    let valid_s = validate::seconds("validForSeconds", wanted.valid_for_seconds, VALID_S_DEFAULT, 1..=VALID_S_MAX)?;
    let role = match wanted.authorization {
        Authorization::Full => Role::Editor,
        Authorization::ReadOnly => Role::Viewer,
    };
    let mut db = rest.begin(caller.tenant).await?;
    let name = validate::document_name("docId", &id.0)?;
    let document = find(&mut db, caller, &name).await?.ok_or(ApiError::NotFound("document"))?;
    not_deleted(&document)?;
    if document.role < role {
        return Err(ApiError::ReadOnly);
    }
    let user = match &wanted.user_id {
        Some(subject) => {
            tickets::external(&mut db, &document, UserId(rest.clock.fresh_id()), subject, None, role).await?
        }
        None => caller.user,
    };
    let token = tokens::fresh(caller.tenant)?;
    user_sessions::create(
        &mut db,
        user_sessions::NewUserSession {
            id: UserSessionId(rest.clock.fresh_id()),
            user,
            kind: user_sessions::Kind::Document(document.id, role),
            name: None,
            token_hash: tokens::hash(&token),
            created_by: Some(caller.user),
            parent: Some(caller.user_session),
            end: user_sessions::End::After(Duration::from_secs(u64::from(valid_s))),
            network: None,
        },
    )
    .await?;
    db.commit().await?;
    let base = rest.base_url(&request);
    let socket = base.replacen("http", "ws", 1);
    // The id as it was asked for: the client refuses a token for another.
    let path = paths::segment(&id.0);
    Ok(HttpResponse::Ok().insert_header(("cache-control", "no-store")).json(ClientToken {
        url: format!("{socket}/d/{path}/ws"),
        base_url: format!("{base}/d/{path}"),
        doc_id: id.0,
        token: token.0,
        authorization: wanted.authorization,
    }))
}

/// Y-Sweet: the whole document as one update.
#[utoipa::path(
    get, path = "/d/{id}/as-update", operation_id = "y_sweet_as_update", tag = "Y-Sweet", security(("token" = [])),
    params(("id" = String, Path)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, body = Problem, content_type = "application/problem+json")
    )
)]
#[routes]
#[get("/d/{id:.+}/as-update")]
#[get("/doc/{id:.+}/as-update")]
async fn as_update(rest: web::Data<Rest>, caller: Authenticated, id: DocIdInPath) -> Result<HttpResponse, ApiError> {
    let document = resolve(&rest, &caller, &id.0).await?;
    let grant = rest.authority.open(&caller, &RoomName::Id(document)).await?;
    let key = DocumentKey { tenant: caller.tenant, document: grant.document };
    let (_, state) = rest.documents.state(key).await?;
    Ok(HttpResponse::Ok().insert_header(("cache-control", "no-store")).content_type(UPDATE_TYPE).body(state))
}

/// Y-Sweet: writes one update, answered once it is committed.
#[utoipa::path(
    post, path = "/d/{id}/update", operation_id = "y_sweet_update", tag = "Y-Sweet", security(("token" = [])),
    params(("id" = String, Path)), request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "`malformed_update`; `update_format_v2`"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json")
    )
)]
#[routes]
#[post("/d/{id:.+}/update")]
#[post("/doc/{id:.+}/update")]
async fn update(
    request: HttpRequest,
    rest: web::Data<Rest>,
    caller: Authenticated,
    id: DocIdInPath,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let document = resolve(&rest, &caller, &id.0).await?;
    write_update(&request, &rest, &caller, RoomName::Id(document), payload).await?;
    Ok(HttpResponse::Ok().finish())
}

/// A document's id in the path of a Y-Sweet call, decoded.
struct DocIdInPath(String);

impl FromRequest for DocIdInPath {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let path = request.path();
        let id = ["/auth", "/as-update", "/update"]
            .into_iter()
            .find_map(|suffix| ["/doc/", "/d/"].into_iter().find_map(|prefix| paths::between(path, prefix, suffix)));
        ready(id.map(Self).ok_or(ApiError::NotFound("document")))
    }
}

/// The document that a caller means; a client token means its own and no other.
async fn resolve(rest: &Rest, caller: &Authenticated, id: &str) -> Result<DocumentId, ApiError> {
    let name = validate::document_name("docId", id)?;
    let mut db = rest.begin(caller.tenant).await?;
    let by_id = match (room::id_in(&name), caller.scope) {
        (Some(id), Scope::Document(own, _)) => (id == own).then_some(own),
        (Some(id), Scope::User) => documents::find(&mut db, caller, id).await?.map(|document| document.id),
        (None, _) => None,
    };
    let document = match by_id {
        Some(id) => id,
        None => by_name(&mut db, &name).await?.ok_or(ApiError::NotFound("document"))?,
    };
    caller.reaches(document)?;
    Ok(document)
}

/// An existing document by its id, else by its name in the default project, as far as the caller sees it.
async fn find(db: &mut TenantTx, caller: &Caller, name: &str) -> Result<Option<Document>, ApiError> {
    if let Some(id) = room::id_in(name)
        && let Some(document) = documents::find(db, caller, id).await?
    {
        return Ok(Some(document));
    }
    let Some(id) = by_name(db, name).await? else { return Ok(None) };
    Ok(Some(documents::find(db, caller, id).await?.ok_or(ApiError::NotFound("document"))?))
}

async fn by_name(db: &mut TenantTx, name: &str) -> Result<Option<DocumentId>, ApiError> {
    let Some(project) = projects::default_id(db).await? else { return Ok(None) };
    Ok(documents::find_by_name(db, project, name).await?)
}

fn not_deleted(document: &Document) -> Result<(), ApiError> {
    if document.deleted_at.is_some() { Err(ApiError::DocumentDeleted) } else { Ok(()) }
}

/// A JSON body, or none. The SDKs send fields that mean nothing here; those are no reason to refuse them.
fn parse<T: Default + for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, ApiError> {
    match body.trim_ascii() {
        [] => Ok(T::default()),
        text => serde_json::from_slice(text).map_err(|error| validate::json_text(&error)),
    }
}
