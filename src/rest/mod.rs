//! The HTTP interface: one file per resource, one for errors, one for who calls.
//!
//! A handler checks who may, opens a tenant's transaction or asks the live document, and answers. It holds no SQL, and it never
//! changes an open document behind its actor's back. [`mount`] hangs all of it into an application; [`openapi`] describes it,
//! from the same list.

mod aliases;
mod auth;
mod body;
mod caller;
mod content;
mod docs;
mod documents;
mod error;
mod limits;
mod members;
mod methods;
mod paging;
mod projects;
mod quarantine;
mod shell;
mod tickets;
mod tokens;
mod update;
mod user_sessions;
mod validate;
mod versions;
mod ysweet;

pub use error::{ApiError, Problem};
pub use limits::{LoginLimits, LoginRates, Rate};
pub use methods::not_found;
pub use shell::{RequestId, shell};
pub use versions::is_known;

use crate::export::Exporter;
use crate::health;
use crate::origins::Origins;
use crate::passwords::Passwords;
use crate::postgres::{self, Database, StoreError, TenantTx};
use crate::proxies::TrustedProxies;
use crate::web as web_workspace;
use actix_web::{HttpRequest, web};
use contextnexus_actors::budget::Budgets;
use contextnexus_actors::clock::Clock;
use contextnexus_actors::ids::TenantId;
use contextnexus_actors::ports::{Authority, LiveDocuments};
use std::sync::Arc;
use std::time::Duration;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_actix_web::service_config::ServiceConfig;

/// What handlers work with.
pub struct Rest {
    /// The system of record.
    pub database: Database,
    /// Whose token is whose.
    pub authority: Arc<dyn Authority>,
    /// Open documents.
    pub documents: Arc<dyn LiveDocuments>,
    /// What bodies may hold.
    pub budgets: Arc<Budgets>,
    /// Time, and fresh ids.
    pub clock: Arc<dyn Clock>,
    /// Hashes and verifies.
    pub passwords: Passwords,
    /// How often somebody may try to sign in.
    pub logins: LoginLimits,
    /// Whose pages may call.
    pub origins: Origins,
    /// Shows documents as JSON and text.
    pub exporter: Exporter,
    /// What the configuration says.
    pub settings: RestSettings,
}

/// What the configuration says about HTTP.
#[derive(Clone, Debug)]
pub struct RestSettings {
    /// `server.public_url`: the address that users type, without a slash at its end; empty: what their requests name.
    pub public_url: String,
    /// `server.trusted_proxies`: whose `X-Forwarded-For` is believed.
    pub trusted_proxies: TrustedProxies,
    /// `auth.login_days`: how long a login lasts.
    pub login_days: i64,
    /// `server.json_bytes_max`.
    pub json_bytes_max: usize,
    /// `limits.update_bytes_max`.
    pub update_bytes_max: usize,
    /// A request with a body is answered after so long, and the time that its bytes take: six times `server.header_timeout_s`.
    pub body_patience: Duration,
}

impl Default for RestSettings {
    fn default() -> Self {
        Self {
            public_url: String::new(),
            trusted_proxies: TrustedProxies::default(),
            login_days: 30,
            json_bytes_max: 256 * 1024,
            update_bytes_max: 16 << 20,
            body_patience: Duration::from_secs(30),
        }
    }
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rest").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Rest {
    async fn begin(&self, tenant: TenantId) -> Result<TenantTx, StoreError> {
        postgres::begin(&self.database, tenant).await
    }

    /// Whether the browser reached the server over TLS, here or at a proxy.
    fn is_https(&self, request: &HttpRequest) -> bool {
        self.base_url(request).starts_with("https://")
    }

    /// `http://host:port`, as this client reaches the server.
    fn base_url(&self, request: &HttpRequest) -> String {
        if self.settings.public_url.is_empty() {
            self.settings.trusted_proxies.base_of(request)
        } else {
            self.settings.public_url.trim_end_matches('/').to_owned()
        }
    }
}

/// Hangs every resource, `/openapi.json` and `/docs` into an application. [`shell`] has to be wrapped around the application.
pub fn mount(config: &mut web::ServiceConfig, rest: &web::Data<Rest>) {
    config.app_data(rest.clone());
    config.app_data(
        web::JsonConfig::default()
            .limit(rest.settings.json_bytes_max)
            .error_handler(|error, _| validate::json(&error).into()),
    );
    config.app_data(web::PayloadConfig::new(rest.settings.json_bytes_max)); // of JSON that a handler reads by itself
    config.app_data(
        web::QueryConfig::default().error_handler(|error, _| ApiError::Malformed(format!("query: {error}")).into()),
    );
    // What is no id names nothing.
    config.app_data(web::PathConfig::default().error_handler(|_, _| ApiError::NotFound("resource").into()));
    resources(&mut ServiceConfig::new(config));
    docs::mount(config);
}

/// The one list of resources.
fn resources(config: &mut ServiceConfig<'_>) {
    auth::resources(config);
    user_sessions::resources(config);
    tokens::resources(config);
    projects::resources(config);
    members::resources(config);
    documents::resources(config);
    aliases::resources(config);
    content::resources(config);
    update::resources(config);
    quarantine::resources(config);
    tickets::resources(config);
    ysweet::resources(config);
}

/// The description of all of it, and of what the server says about itself, OpenAPI 3.1.
#[must_use]
pub fn openapi() -> OpenApi {
    use utoipa_actix_web::AppExt as _;
    let app = actix_web::App::new().into_utoipa_app();
    let app = app.configure(resources).configure(health::resources).configure(web_workspace::resources);
    let (_, mut api) = app.split_for_parts();
    api.info = utoipa::openapi::InfoBuilder::new()
        .title("ContextNexus")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(docs::INTRODUCTION))
        .license(Some(utoipa::openapi::LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    let components = api.components.get_or_insert_default();
    components.add_security_scheme(
        "token",
        SecurityScheme::Http(
            Http::builder().scheme(HttpAuthScheme::Bearer).bearer_format("cnx_{tenant}_{secret}").build(),
        ),
    );
    docs::add_problems(&mut api);
    api
}
