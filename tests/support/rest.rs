//! The HTTP interface of one node in the test's own process: the real handlers, PostgreSQL and documents, without a socket.

use super::postgres::{TestDatabase, TestTenant, running_log};
use actix_web::body::to_bytes;
use actix_web::dev::Service as _;
use actix_web::http::{Method, StatusCode};
use actix_web::test::TestRequest;
use actix_web::{App, middleware, web};
use bytes::Bytes;
use contextnexus::export::Exporter;
use contextnexus::origins::Origins;
use contextnexus::passwords::{self, Passwords};
use contextnexus::postgres::authority::PostgresAuthority;
use contextnexus::postgres::operation_log::LogSettings;
use contextnexus::postgres::{self, Database, user_sessions, users};
use contextnexus::rest::{self, LoginLimits, Rest, RestSettings};
use contextnexus::tokens;
use contextnexus_actors::access::Role;
use contextnexus_actors::budget::Budgets;
use contextnexus_actors::clock::{Clock, SystemClock};
use contextnexus_actors::document::live::Documents;
use contextnexus_actors::hosting;
use contextnexus_actors::ids::{NodeId, ProjectId, TenantId, UserId, UserSessionId};
use contextnexus_actors::limits::Limits;
use contextnexus_actors::ports::Authority;
use contextnexus_actors::ports::Ports;
use contextnexus_actors::ports::memory_bus::MemoryBus;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

pub const PASSWORD: &str = "correct horse battery staple";

/// A node's HTTP.
pub struct TestApp {
    pub rest: web::Data<Rest>,
    pub authority: Arc<dyn Authority>,
    pub database: Database,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: actix_web::http::header::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The code of a problem, which it must be.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16(), "{problem}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        assert_eq!(problem["type"], format!("urn:contextnexus:problem:{}", problem["code"].as_str().unwrap()));
        problem["code"].as_str().unwrap().to_owned()
    }

    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }
}

/// A request under way.
pub struct Call<'a> {
    app: &'a TestApp,
    request: TestRequest,
}

impl Call<'_> {
    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.insert_header((name, value));
        self
    }

    pub fn json(mut self, body: Value) -> Self {
        self.request = self.request.set_json(body);
        self
    }

    pub fn bytes(mut self, body: impl Into<Bytes>) -> Self {
        self.request = self.request.insert_header(("content-type", "application/octet-stream")).set_payload(body);
        self
    }

    pub async fn send(self) -> Answer {
        let rest = self.app.rest.clone();
        let app = App::new()
            .wrap(middleware::from_fn(rest::shell))
            .configure(|config| rest::mount(config, &rest))
            .default_service(web::to(rest::not_found));
        let service = actix_web::test::init_service(app).await;
        let request = self.request.peer_addr(([192, 0, 2, 1], 1).into()).to_request();
        let response = service.call(request).await.expect("the shell shapes every error");
        Answer {
            status: response.status(),
            headers: response.headers().clone(),
            body: to_bytes(response.into_body()).await.unwrap_or_else(|_| panic!("a body")),
        }
    }
}

impl TestApp {
    /// On a database of its own. Must run inside an actix system.
    pub fn start(database: Database) -> Self {
        Self::with(database, RestSettings::default(), Origins::new(&[], &[], "", true))
    }

    pub fn with(database: Database, settings: RestSettings, origins: Origins) -> Self {
        Self::with_clock(database, settings, origins, Arc::new(SystemClock))
    }

    /// On a node whose clock says what it likes.
    pub fn with_clock(database: Database, settings: RestSettings, origins: Origins, clock: Arc<dyn Clock>) -> Self {
        let limits = Limits { update_bytes_max: settings.update_bytes_max, ..Limits::default() };
        let authority: Arc<dyn Authority> = Arc::new(PostgresAuthority::new(database.clone(), clock.clone()));
        let node = NodeId(clock.fresh_id());
        let world = Ports {
            node,
            log: Arc::new(running_log(database.clone(), LogSettings::default())),
            authority: Arc::clone(&authority),
            bus: Arc::new(MemoryBus::alone(node)),
            clock: clock.clone(),
            witness: Arc::new(contextnexus_actors::ports::witness::Nobody),
            aside: Arc::new(contextnexus_actors::aside::Inline),
            budgets: Budgets::of(&limits),
            limits: Arc::new(limits),
        };
        let directory = hosting::start(world.clone(), vec![actix::Arbiter::current()]);
        let rest = Rest {
            database: database.clone(),
            authority: Arc::clone(&authority),
            budgets: world.budgets.clone(),
            documents: Arc::new(Documents::new(directory, world)),
            clock,
            passwords: Passwords::start().expect("threads"),
            logins: LoginLimits::default(),
            origins,
            exporter: Exporter::default(),
            settings,
        };
        Self { rest: web::Data::new(rest), authority, database }
    }

    pub fn call(&self, method: Method, path: &str) -> Call<'_> {
        Call {
            app: self,
            request: TestRequest::default().method(method).uri(path).insert_header(("host", "127.0.0.1:8080")),
        }
    }

    pub fn get(&self, path: &str) -> Call<'_> {
        self.call(Method::GET, path)
    }

    pub fn post(&self, path: &str) -> Call<'_> {
        self.call(Method::POST, path)
    }

    pub fn patch(&self, path: &str) -> Call<'_> {
        self.call(Method::PATCH, path)
    }

    pub fn delete(&self, path: &str) -> Call<'_> {
        self.call(Method::DELETE, path)
    }
}

/// Somebody with a token.
#[derive(Clone, Debug)]
pub struct Person {
    pub user: UserId,
    pub user_session: UserSessionId,
    pub email: String,
    pub token: String,
}

/// A tenant with somebody of every role in its default project, and a document there.
pub struct Company {
    pub tenant: TestTenant,
    pub slug: String,
    pub boss: Person,
    pub admin: Person,
    pub editor: Person,
    pub viewer: Person,
    pub stranger: Person,
    pub document: Uuid,
}

impl Company {
    pub async fn found(db: &TestDatabase, slug: &str) -> Self {
        let tenant = db.tenant(slug).await;
        let database = db.database();
        let hire = async |name: &str, is_tenant_admin, role| {
            let person = person(&database, tenant.id, &format!("{name}@{slug}.example"), is_tenant_admin).await;
            if let Some(role) = role {
                let mut tx = postgres::begin(&database, tenant.id).await.unwrap();
                postgres::projects::add_member(&mut tx, tenant.project, person.user, role, None).await.unwrap();
                tx.commit().await.unwrap();
            }
            person
        };
        let boss = hire("boss", true, None).await;
        let admin = hire("admin", false, Some(Role::Admin)).await;
        let editor = hire("editor", false, Some(Role::Editor)).await;
        let viewer = hire("viewer", false, Some(Role::Viewer)).await;
        let stranger = hire("stranger", false, None).await;
        let document = tenant.document().await.0;
        Self { slug: slug.to_owned(), boss, admin, editor, viewer, stranger, document, tenant }
    }

    pub fn project(&self) -> ProjectId {
        self.tenant.project
    }
}

/// A person with a password and an API token.
pub async fn person(database: &Database, tenant: TenantId, email: &str, is_tenant_admin: bool) -> Person {
    let hash = passwords::hash_now(PASSWORD).unwrap();
    let user = UserId(SystemClock.fresh_id());
    let session = UserSessionId(SystemClock.fresh_id());
    let token = tokens::fresh(tenant).unwrap();
    let mut db = postgres::begin(database, tenant).await.unwrap();
    let new = users::NewPerson { id: user, email, name: "Somebody", password_hash: Some(&hash), is_tenant_admin };
    users::create_person(&mut db, new).await.unwrap();
    user_sessions::create(
        &mut db,
        user_sessions::NewUserSession {
            id: session,
            user,
            kind: user_sessions::Kind::Api,
            name: Some("test"),
            token_hash: tokens::hash(&token),
            created_by: None,
            parent: None,
            end: user_sessions::End::After(Duration::from_secs(3600)),
            network: None,
        },
    )
    .await
    .unwrap();
    db.commit().await.unwrap();
    Person { user, user_session: session, email: email.to_owned(), token: token.0 }
}

/// A v1 update of one client that types `text` into the root `text` from `clock` on, behind what it typed before.
pub fn typing(client: u64, clock: u64, text: &str) -> Vec<u8> {
    use contextnexus_gate::lib0::{write_var_string, write_var_uint};
    let mut update = vec![1, 1];
    write_var_uint(&mut update, client);
    write_var_uint(&mut update, clock);
    if clock == 0 {
        update.extend([4, 1]);
        write_var_string(&mut update, "text");
    } else {
        update.push(0x84);
        write_var_uint(&mut update, client);
        write_var_uint(&mut update, clock - 1);
    }
    write_var_string(&mut update, text);
    update.push(0);
    update
}

/// Signs in as somebody.
pub async fn login(app: &TestApp, company: &Company, person: &Person) -> Value {
    let body = json!({ "tenant": company.slug, "email": person.email, "password": PASSWORD });
    app.post("/v1/auth/login").json(body).send().await.expect(200).json()
}
