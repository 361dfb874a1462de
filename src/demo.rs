//! The demo tenant: what a newcomer signs in to, and the file that tells how.

use crate::config::Secret;
use crate::files;
use crate::passwords;
use crate::postgres::{self, Database, StoreError, projects, tenants, user_sessions, users};
use crate::tokens;
use contextnexus_actors::access::Token;
use contextnexus_actors::clock::Clock;
use contextnexus_actors::ids::{ProjectId, TenantId, UserId, UserSessionId};
use rand::RngExt;
use rand::distr::Alphanumeric;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

const TENANT: &str = "demo";
const EMAIL: &str = "admin@demo.local";
const PROJECT: &str = "playground";
const FILE: &str = "credentials.json";
const TOKEN_DAYS: u64 = 366;
/// A token is renewed when less is left, so that whoever reads the file has a month with what is in it.
const RENEW_DAYS: i32 = 31;

/// What stands in `credentials.json`.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// The address of this node.
    pub url: String,
    /// The tenant's slug.
    pub tenant: String,
    /// Who signs in.
    pub email: String,
    /// With what. Empty on a node that found the user made by another one.
    pub password: String,
    /// A bearer token of that user, good for REST and every dialect for a year. Each node has its own.
    pub token: String,
}

/// Why there is no demo tenant.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The database did not do it.
    #[error("the demo tenant cannot be made")]
    Store(#[from] StoreError),
    /// No hash, or no random bytes.
    #[error("the demo tenant cannot be made: {0}")]
    Secret(String),
    /// The file cannot be written.
    #[error("{}", crate::data_dir::describe(path, source))]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What [`seed`] did.
#[derive(Debug)]
pub struct Seeded {
    /// `credentials.json`.
    pub file: PathBuf,
    /// The password that was made up for the user who was made at this moment.
    pub fresh_password: Option<Secret>,
}

impl Seeded {
    /// What the person who started the server wants to know next. The password is told once, by the start that made it.
    pub fn lines(&self) -> Vec<String> {
        let file = self.file.display();
        match &self.fresh_password {
            Some(password) => vec![
                format!("Sign in as {EMAIL} with the password {}", password.0),
                format!("Both are in {file}, with an API token"),
            ],
            None => vec![format!("The demo user's credentials are in {file}")],
        }
    }
}

/// Makes what is missing of the demo tenant and writes `credentials.json`. The password that is in the file stays; a token in it
/// that is valid for another month stays too.
///
/// `alone`: no other node can have told anybody another password, so a lost one is replaced.
pub async fn seed(
    database: &Database,
    clock: &dyn Clock,
    data_dir: &Path,
    url: &str,
    password: &Secret,
    alone: bool,
) -> Result<Seeded, DemoError> {
    let file = data_dir.join(FILE);
    let before = read(&file);
    let known = password.get().map(str::to_owned).or_else(|| before.as_ref().map(|before| before.password.clone()));
    let known = known.filter(|password| !password.is_empty());

    let mut fresh_password = None;
    let (tenant, user, password) = match find(database).await? {
        Some((tenant, user)) => {
            (tenant, user, keep_password(database, tenant, user, known, alone, before.is_some()).await?)
        }
        None => match create(database, clock, known.clone()).await {
            // Another node was quicker.
            Err(DemoError::Store(StoreError::Taken { .. })) => {
                let (tenant, user) = find(database).await?.ok_or(StoreError::NotFound { entity: "tenant" })?;
                (tenant, user, known.unwrap_or_default())
            }
            made => {
                let (tenant, user, password) = made?;
                fresh_password = known.is_none().then(|| Secret(password.clone()));
                (tenant, user, password)
            }
        },
    };
    let token = match before {
        Some(before) if is_fresh(database, tenant, user, &before.token).await? => before.token,
        _ => new_token(database, clock, tenant, user).await?,
    };
    let credentials = Credentials { url: url.into(), tenant: TENANT.into(), email: EMAIL.into(), password, token };
    files::write_private_json(&file, &credentials).map_err(|source| DemoError::File { path: file.clone(), source })?;
    Ok(Seeded { file, fresh_password })
}

/// The credentials of a data directory, where it has any.
pub fn read(file: &Path) -> Option<Credentials> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

async fn find(database: &Database) -> Result<Option<(TenantId, UserId)>, StoreError> {
    let Some(tenant) = tenants::find_by_slug(database, TENANT).await? else { return Ok(None) };
    let mut db = postgres::begin(database, tenant.id).await?;
    let user = users::find_by_email(&mut db, EMAIL).await?;
    db.commit().await?;
    // A tenant of this name without this user is somebody's own: nothing is added to it.
    Ok(Some((tenant.id, user.ok_or(StoreError::NotFound { entity: "user admin@demo.local in the tenant demo" })?)))
}

/// Tenant, user and project, all or none of them.
async fn create(
    database: &Database,
    clock: &dyn Clock,
    known: Option<String>,
) -> Result<(TenantId, UserId, String), DemoError> {
    let password = known.unwrap_or_else(fresh_password);
    let hash = hash(&password)?;
    let (tenant, user) = (TenantId(clock.fresh_id()), UserId(clock.fresh_id()));
    let mut db = postgres::begin(database, tenant).await?;
    tenants::create(&mut db, TENANT, "Demo", Some("demo.local")).await?;
    let person = users::NewPerson {
        id: user,
        email: EMAIL,
        name: "Demo Admin",
        password_hash: Some(&hash),
        is_tenant_admin: true,
    };
    users::create_person(&mut db, person).await?;
    let project = projects::NewProject {
        id: ProjectId(clock.fresh_id()),
        slug: PROJECT,
        name: "Playground",
        auto_create_documents: true,
        is_default: true,
        created_by: Some(user),
    };
    projects::create(&mut db, project).await?;
    db.commit().await?;
    Ok((tenant, user, password))
}

/// The password that the user has after this, where this node may know it.
async fn keep_password(
    database: &Database,
    tenant: TenantId,
    user: UserId,
    known: Option<String>,
    alone: bool,
    has_file: bool,
) -> Result<String, DemoError> {
    let password = match known {
        Some(known) => return Ok(known),
        None if alone && !has_file => fresh_password(),
        None => return Ok(String::new()),
    };
    let hash = hash(&password)?;
    let mut db = postgres::begin(database, tenant).await?;
    users::set_password(&mut db, user, &hash).await?;
    db.commit().await?;
    Ok(password)
}

async fn is_fresh(database: &Database, tenant: TenantId, user: UserId, token: &str) -> Result<bool, StoreError> {
    let Some((of_tenant, hash)) = tokens::parse(&Token(token.to_owned())) else { return Ok(false) };
    if of_tenant != tenant {
        return Ok(false);
    }
    let mut db = postgres::begin(database, tenant).await?;
    let lasts = user_sessions::token_lasts(&mut db, user, &hash, RENEW_DAYS).await?;
    db.commit().await?;
    Ok(lasts)
}

async fn new_token(
    database: &Database,
    clock: &dyn Clock,
    tenant: TenantId,
    user: UserId,
) -> Result<String, DemoError> {
    let token = tokens::fresh(tenant).map_err(|error| DemoError::Secret(error.to_string()))?;
    let mut db = postgres::begin(database, tenant).await?;
    let session = user_sessions::NewUserSession {
        id: UserSessionId(clock.fresh_id()),
        user,
        kind: user_sessions::Kind::Api,
        name: Some(FILE),
        token_hash: tokens::hash(&token),
        created_by: None,
        parent: None,
        end: user_sessions::End::After(Duration::from_secs(TOKEN_DAYS * 86_400)),
        network: None,
    };
    user_sessions::create(&mut db, session).await?;
    db.commit().await?;
    Ok(token.0)
}

fn hash(password: &str) -> Result<String, DemoError> {
    passwords::hash_now(password).map_err(|error| DemoError::Secret(error.to_string()))
}

/// 119 bits, easy to type.
fn fresh_password() -> String {
    rand::rng().sample_iter(Alphanumeric).take(20).map(char::from).collect()
}
