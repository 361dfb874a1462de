//! Signing in and out, and who one is.

use super::caller::Authenticated;
use super::limits::{Account, Known};
use super::{ApiError, Problem, Rest, validate};
use crate::origins::Refusal;
use crate::passwords::{PASSWORD_BYTES_MAX, Password};
use crate::postgres::{tenants, user_sessions, users};
use crate::proxies::network;
use crate::{cookies, tokens};
use actix_web::{HttpRequest, HttpResponse, get, post, web};
use chrono::{DateTime, Utc};
use contextnexus_actors::access::Scope;
use contextnexus_actors::ids::{TenantId, UserSessionId};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

pub(super) fn resources(config: &mut ServiceConfig<'_>) {
    config.service(login).service(logout).service(me);
}

/// Whoever signs in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Login {
    /// The tenant's slug. Without it the tenant is the one of the e-mail address's domain.
    #[schema(example = "demo")]
    tenant: Option<String>,
    #[schema(example = "admin@demo.local")]
    email: String,
    #[schema(value_type = String, format = Password)]
    password: Password,
    /// Sets a cookie that scripts cannot read, instead of answering with the token. For pages of this server or an allowed origin.
    #[serde(default)]
    cookie: bool,
}

/// Somebody who has signed in.
#[derive(Serialize, ToSchema)]
struct LoggedIn {
    /// The bearer token, good for REST and for every Yjs dialect. Absent where a cookie was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    token: Option<String>,
    /// When the session ends by itself.
    expires_at: DateTime<Utc>,
    tenant: TenantBody,
    user: UserBody,
}

/// A tenant.
#[derive(Serialize, ToSchema)]
pub(super) struct TenantBody {
    id: Uuid,
    slug: String,
}

/// A user.
#[derive(Serialize, ToSchema)]
pub(super) struct UserBody {
    id: Uuid,
    /// `person`; `external`, a user of an application that embeds this server; or `service`.
    kind: String,
    name: String,
    email: Option<String>,
    is_tenant_admin: bool,
}

impl From<users::User> for UserBody {
    fn from(user: users::User) -> Self {
        Self {
            id: user.id.0,
            kind: user.kind,
            name: user.name,
            email: user.email,
            is_tenant_admin: user.is_tenant_admin,
        }
    }
}

/// Signs in with e-mail and password.
///
/// The answer's token is shown this once. Each login is a session of its own, which `/v1/user-sessions` lists and ends.
#[utoipa::path(
    operation_id = "log_in", tag = "User sessions",
    request_body = Login,
    responses(
        (status = 200, body = LoggedIn),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "`bad_credentials`"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "`too_many_requests`"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "`unavailable`"),
    ),
)]
#[post("/v1/auth/login")]
async fn login(request: HttpRequest, rest: web::Data<Rest>, body: web::Json<Login>) -> Result<HttpResponse, ApiError> {
    let Login { tenant, email, password, cookie } = body.into_inner();
    if request.headers().contains_key("origin") && cookie && !rest.origins.allows_cookie(request.headers()) {
        rest.origins.tell(request.headers(), Refusal::Cookie);
        return Err(ApiError::OriginNotAllowed); // another page would sign its visitor in as somebody else
    }
    let email = email.trim().to_lowercase();
    let network = network(rest.settings.trusted_proxies.client_of(&request));
    let now = rest.clock.instant();
    let too_many = |retry_after_s| ApiError::TooManyRequests { retry_after_s };
    let from = rest.logins.take_from(now, network);
    let cookie_of_device = cookies::device(request.headers());
    if cookie_of_device.is_none() {
        from.as_ref().map_err(|retry_after_s| too_many(*retry_after_s))?;
    }
    let tenant = find_tenant(&rest, tenant.as_deref(), &email).await?;
    let credentials = match &tenant {
        Some(tenant) if is_plausible(&email, &password) => {
            let mut db = rest.begin(tenant.id).await?;
            users::credentials(&mut db, &email, network).await?
        }
        _ => None,
    };
    let device = credentials
        .as_ref()
        .and_then(|credentials| credentials.device_key.device(credentials.id, cookie_of_device.as_deref()?));
    // Who guesses from the same address does not lock out a device that is known.
    let from = match (from, device) {
        (Err(_), Some(_)) => None,
        (from, _) => Some(from.map_err(too_many)?),
    };
    let knows_network = credentials.as_ref().is_some_and(|credentials| credentials.knows_network);
    let known = device.map(Known::Device).or(knows_network.then_some(Known::Network(network)));
    let account = match (&tenant, &credentials) {
        (Some(tenant), Some(credentials)) => Account::User(tenant.id, credentials.id),
        (tenant, _) => Account::Nobody(tenant.as_ref().map(|tenant| tenant.id), &email),
    };
    let into = rest.logins.take_into(now, account, known).map_err(too_many)?;
    // Also where there is nobody to compare with: the time must not tell.
    let stored = credentials.as_ref().and_then(|credentials| credentials.password_hash.clone());
    let right = rest.passwords.verify(password, stored).await?;
    let (Some(tenant), Some(credentials), true) = (tenant, credentials, right) else {
        return Err(ApiError::BadCredentials);
    };
    from.iter().chain([&into]).for_each(|attempt| rest.logins.give_back(now, attempt));

    let token = tokens::fresh(tenant.id)?;
    let lasts = Duration::from_secs(rest.settings.login_days.unsigned_abs() * 86_400);
    let session = UserSessionId(rest.clock.fresh_id());
    let mut db = rest.begin(tenant.id).await?;
    let times = user_sessions::create(
        &mut db,
        user_sessions::NewUserSession {
            id: session,
            user: credentials.id,
            kind: user_sessions::Kind::Login,
            name: None,
            token_hash: tokens::hash(&token),
            created_by: None,
            parent: None,
            end: user_sessions::End::After(lasts),
            network: Some(network),
        },
    )
    .await?;
    users::signed_in(&mut db, credentials.id).await?;
    let user = users::get(&mut db, credentials.id).await?;
    db.commit().await?;
    tracing::info!(tenant.id = %tenant.id, user.id = %user.id, user_session.id = %session, "user {} signed in", user.id);

    let mut response = HttpResponse::Ok();
    response.insert_header(("cache-control", "no-store"));
    if cookie {
        let is_https = rest.is_https(&request);
        response.cookie(cookies::signing_in(&token, is_https, lasts.as_secs().cast_signed()));
        let device = device.unwrap_or_else(|| rest.clock.fresh_id());
        response.cookie(cookies::remembering(credentials.device_key.sign(credentials.id, device), is_https));
    }
    Ok(response.json(LoggedIn {
        token: (!cookie).then_some(token.0),
        expires_at: times.expires_at,
        tenant: TenantBody { id: tenant.id.0, slug: tenant.slug },
        user: user.into(),
    }))
}

/// Who asks for nothing, or brings megabytes or control characters, is compared with nobody.
fn is_plausible(email: &str, password: &Password) -> bool {
    email.len() <= 320 && !email.contains(char::is_control) && password.0.len() <= PASSWORD_BYTES_MAX
}

async fn find_tenant(
    rest: &Rest,
    slug: Option<&str>,
    email: &str,
) -> Result<Option<tenants::DirectoryEntry>, ApiError> {
    let found = match slug.map(str::trim).filter(|slug| !slug.is_empty()) {
        Some(slug) => match validate::slug("tenant", slug) {
            Ok(slug) => tenants::find_by_slug(&rest.database, &slug).await?,
            Err(_) => None,
        },
        None => match email.rsplit_once('@') {
            Some((_, domain)) if domain.len() <= 253 && !domain.contains(char::is_control) => {
                tenants::find_by_domain(&rest.database, domain).await?
            }
            _ => None,
        },
    };
    Ok(found.filter(|tenant| tenant.is_active))
}

/// Ends the session of this request, and the tickets and document tokens that were made with it.
#[utoipa::path(
    operation_id = "log_out", tag = "User sessions",
    security(("token" = [])),
    responses((status = 204, description = "Ended; open sockets of it close within a second."))
)]
#[post("/v1/auth/logout")]
async fn logout(request: HttpRequest, rest: web::Data<Rest>, caller: Authenticated) -> Result<HttpResponse, ApiError> {
    let mut db = rest.begin(caller.tenant).await?;
    user_sessions::revoke(&mut db, caller.user, caller.user_session).await?;
    db.commit().await?;
    rest.documents.access_changed(caller.tenant).await;
    let mut response = HttpResponse::NoContent();
    if cookies::token(request.headers()).is_some() {
        response.cookie(cookies::signing_out(rest.is_https(&request)));
    }
    Ok(response.finish())
}

/// The caller.
#[derive(Serialize, ToSchema)]
struct Me {
    user: UserBody,
    tenant: TenantBody,
    session: MySession,
}

/// The session of this request.
#[derive(Serialize, ToSchema)]
struct MySession {
    id: Uuid,
    expires_at: DateTime<Utc>,
    /// A token of one document: which. `null` for one that reaches all that its user reaches.
    document_id: Option<Uuid>,
    /// A token of one document: at most in this role.
    #[schema(example = "editor")]
    role: Option<&'static str>,
}

/// Who the token belongs to.
#[utoipa::path(operation_id = "get_me", tag = "User sessions", security(("token" = [])), responses((status = 200, body = Me)))]
#[get("/v1/me")]
async fn me(rest: web::Data<Rest>, caller: Authenticated) -> Result<HttpResponse, ApiError> {
    let mut db = rest.begin(caller.tenant).await?;
    let user = users::get(&mut db, caller.user).await?;
    let tenant = tenants::get(&mut db).await?;
    let (document_id, role) = match caller.scope {
        Scope::User => (None, None),
        Scope::Document(document, role) => (Some(document.0), Some(role.as_str())),
    };
    Ok(HttpResponse::Ok().json(Me {
        user: user.into(),
        tenant: tenant_body(caller.tenant, tenant),
        session: MySession { id: caller.user_session.0, expires_at: caller.expires_at, document_id, role },
    }))
}

fn tenant_body(id: TenantId, tenant: tenants::Tenant) -> TenantBody {
    TenantBody { id: id.0, slug: tenant.slug }
}
