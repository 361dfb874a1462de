//! Commands for those who bring their own database, and for an operator of an embedded one: schema, tenants, users, projects, tokens.
//! They work beside a running server; it notices within a second.

use super::Outcome;
use crate::config::Config;
use crate::console::say;
use crate::open_database::{self, Session};
use crate::passwords::{self, Password};
use crate::postgres::{self, Database, StoreError, projects, tenants, user_sessions, users};
use crate::tokens;
use crate::wait_for_postgres;
use clap::{Args, Subcommand};
use contextnexus_actors::access::Token;
use contextnexus_actors::clock::{Clock, SystemClock};
use contextnexus_actors::ids::{ProjectId, TenantId, UserId, UserSessionId};
use rand::RngExt;
use rand::distr::Alphanumeric;
use std::io::Read;
use std::time::Duration;

/// What an operator administers without the REST API.
#[derive(Debug, Subcommand)]
pub enum Admin {
    /// Tenants: customers that never meet.
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// People who sign in.
    #[command(subcommand)]
    User(UserCommand),
    /// Projects: documents with members.
    #[command(subcommand)]
    Project(ProjectCommand),
    /// API tokens.
    #[command(subcommand)]
    Token(TokenCommand),
}

/// `contextnexus tenant …`
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Makes a tenant, and prints its id.
    Create {
        /// Its name in addresses: lower-case letters, digits and dashes.
        slug: String,
        /// For people to read; without it the slug.
        #[arg(long)]
        name: Option<String>,
        /// Its mail domain, by which a login finds it.
        #[arg(long)]
        domain: Option<String>,
    },
}

/// `contextnexus user …`
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Makes a person, and prints a random password, or takes one from stdin.
    Create {
        /// The address to sign in with.
        email: String,
        /// The tenant's slug.
        #[arg(long)]
        tenant: String,
        /// For people to read; without it the address.
        #[arg(long)]
        name: Option<String>,
        /// Administers the whole tenant.
        #[arg(long)]
        admin: bool,
        /// Reads the password from stdin instead of making one.
        #[arg(long)]
        password_stdin: bool,
    },
}

/// `contextnexus project …`
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Makes a project, and prints its id.
    Create(NewProject),
}

/// A project to make.
#[derive(Debug, Args)]
pub struct NewProject {
    /// Its name in rooms (`SLUG/document`): lower-case letters, digits and dashes.
    slug: String,
    /// The tenant's slug.
    #[arg(long)]
    tenant: String,
    /// For people to read; without it the slug.
    #[arg(long)]
    name: Option<String>,
    /// The address of the person who becomes its first administrator.
    #[arg(long, value_name = "EMAIL")]
    admin: Option<String>,
    /// Rooms without a project are in this one; a tenant has one such project.
    #[arg(long)]
    default: bool,
    /// Whoever may write makes a document by connecting to its name.
    #[arg(long)]
    auto_create_documents: bool,
}

/// `contextnexus token …`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Makes an API token of a user, and prints it, once.
    Create {
        /// The tenant's slug.
        #[arg(long)]
        tenant: String,
        /// The user's address.
        #[arg(long, value_name = "EMAIL")]
        user: String,
        /// How it is called in lists of tokens.
        #[arg(long, default_value = "command line")]
        name: String,
        /// How long it is good for.
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3660))]
        days: u64,
    },
    /// Ends an API token, and every connection that was made with it, within a second.
    Revoke {
        /// Its id, as lists of tokens show it; `-` reads the token itself from stdin, where `ps` does not see it.
        id: String,
        /// The tenant's slug; not needed with `-`.
        #[arg(long)]
        tenant: Option<String>,
    },
}

/// `contextnexus migrate`
pub async fn migrate(config: Config) -> Outcome {
    let version = if config.is_embedded() {
        let session = Session::open(&config).await?;
        session.close().await;
        postgres::migrate::version_needed()
    } else {
        let owner = config.database.owner_url.get();
        let owner = owner.ok_or("`migrate` needs DATABASE_OWNER_URL, the address as the role that owns the tables")?;
        wait_for_postgres::of_owner(owner, Duration::from_secs(config.database.start_wait_s)).await?;
        open_database::migrate(owner).await?
    };
    say(format_args!("The schema is at version {version}"));
    Ok(())
}

/// Any other.
pub async fn run(command: Admin, config: Config) -> Outcome {
    let session = Session::open(&config).await?;
    let outcome = perform(command, &session.database).await;
    session.close().await;
    outcome
}

async fn perform(command: Admin, database: &Database) -> Outcome {
    match command {
        Admin::Tenant(TenantCommand::Create { slug, name, domain }) => {
            let id = TenantId(SystemClock.fresh_id());
            let mut db = postgres::begin(database, id).await?;
            let name = name.as_deref().unwrap_or(&slug);
            named(tenants::create(&mut db, &slug, name, domain.as_deref()).await)?;
            db.commit().await?;
            say(id);
        }
        Admin::User(UserCommand::Create { email, tenant, name, admin, password_stdin }) => {
            let password = if password_stdin { read_password()? } else { fresh_password() };
            let hash = passwords::hash_now(&password)?;
            let mut db = postgres::begin(database, tenant_named(database, &tenant).await?).await?;
            let person = users::NewPerson {
                id: UserId(SystemClock.fresh_id()),
                email: &email,
                name: name.as_deref().unwrap_or(&email),
                password_hash: Some(&hash),
                is_tenant_admin: admin,
            };
            named(users::create_person(&mut db, person).await)?;
            db.commit().await?;
            if !password_stdin {
                say(password);
            }
        }
        Admin::Project(ProjectCommand::Create(new)) => create_project(database, new).await?,
        Admin::Token(TokenCommand::Create { tenant, user, name, days }) => {
            let tenant = tenant_named(database, &tenant).await?;
            let token = tokens::fresh(tenant)?;
            let mut db = postgres::begin(database, tenant).await?;
            let user = user_named(&mut db, &user).await?;
            let new = user_sessions::NewUserSession {
                id: UserSessionId(SystemClock.fresh_id()),
                user,
                kind: user_sessions::Kind::Api,
                name: Some(&name),
                token_hash: tokens::hash(&token),
                created_by: None,
                parent: None,
                end: user_sessions::End::After(Duration::from_secs(days * 86_400)),
                network: None,
            };
            named(user_sessions::create(&mut db, new).await)?;
            db.commit().await?;
            say(token.0);
        }
        Admin::Token(TokenCommand::Revoke { id, tenant }) => revoke(database, &id, tenant.as_deref()).await?,
    }
    Ok(())
}

async fn create_project(database: &Database, new: NewProject) -> Outcome {
    let mut db = postgres::begin(database, tenant_named(database, &new.tenant).await?).await?;
    let created_by = match &new.admin {
        Some(email) => Some(user_named(&mut db, email).await?),
        None => None,
    };
    let project = projects::NewProject {
        id: ProjectId(SystemClock.fresh_id()),
        slug: &new.slug,
        name: new.name.as_deref().unwrap_or(&new.slug),
        auto_create_documents: new.auto_create_documents,
        is_default: new.default,
        created_by,
    };
    named(projects::create(&mut db, project).await)?;
    db.commit().await?;
    say(project.id);
    Ok(())
}

async fn revoke(database: &Database, id: &str, tenant: Option<&str>) -> Outcome {
    let (tenant, hash) = if id == "-" {
        let (tenant, hash) = tokens::parse(&Token(read_line()?)).ok_or("what stdin gave is not a token")?;
        (tenant, Some(hash))
    } else {
        (tenant_named(database, tenant.ok_or("an id needs --tenant SLUG")?).await?, None)
    };
    let mut db = postgres::begin(database, tenant).await?;
    let session = match hash {
        Some(hash) => user_sessions::find_api_token(&mut db, &hash).await?.ok_or("there is no such token")?,
        None => id.parse().map_err(|_| format!("`{id}` is not the id of a token"))?,
    };
    user_sessions::revoke_api_token(&mut db, session).await?;
    db.commit().await?;
    say("The token is revoked");
    Ok(())
}

async fn tenant_named(database: &Database, slug: &str) -> Result<TenantId, Box<dyn std::error::Error>> {
    let found = tenants::find_by_slug(database, slug).await?;
    Ok(found
        .ok_or_else(|| format!("there is no tenant `{slug}`; make it with `contextnexus tenant create {slug}`"))?
        .id)
}

async fn user_named(db: &mut postgres::TenantTx, email: &str) -> Result<UserId, Box<dyn std::error::Error>> {
    Ok(users::find_by_email(db, email).await?.ok_or_else(|| format!("there is no user `{email}` in this tenant"))?)
}

/// Constraints are named for programs; here a person reads.
fn named<T>(outcome: Result<T, StoreError>) -> Result<T, Box<dyn std::error::Error>> {
    outcome.map_err(|error| match error {
        StoreError::Taken { constraint } => format!("that exists already ({constraint})").into(),
        StoreError::Invalid { constraint } => format!("that is not allowed ({constraint})").into(),
        error => error.into(),
    })
}

fn read_password() -> Result<String, Box<dyn std::error::Error>> {
    let password = Password(read_line()?);
    match passwords::weakness(&password) {
        Some(weakness) => Err(weakness.into()),
        None => Ok(password.0),
    }
}

fn read_line() -> std::io::Result<String> {
    let mut text = String::new();
    std::io::stdin().lock().take(4096).read_to_string(&mut text)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// 119 bits, easy to type.
fn fresh_password() -> String {
    rand::rng().sample_iter(Alphanumeric).take(20).map(char::from).collect()
}
