//! A server with its database, and people who may use it.

use super::cluster::{Cluster, DatabaseUrls, block_on, execute, logged_updates};
use super::fleet::Fleet;
use super::postgres::TestDatabase;
use super::server::{Options, TestServer};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contextnexus_actors::ids::TenantId;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

pub struct World {
    // Fields are dropped in this order: the server first.
    pub server: TestServer,
    pub database: DatabaseUrls,
    cluster: Option<Cluster>,
    _shared: Option<TestDatabase>,
}

/// Somebody with an account and a token.
#[derive(Clone, Debug)]
pub struct Member {
    pub user: Uuid,
    pub session: Uuid,
    pub token: String,
}

impl World {
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// On the cluster of the run, which nobody may stop.
    pub fn start_with(options: Options) -> Self {
        let shared = block_on(TestDatabase::create());
        let database = DatabaseUrls {
            application: shared.url.clone(),
            owner: shared.owner_url.clone(),
            superuser: shared.superuser_url.clone(),
        };
        let server = TestServer::start_with(&database, options);
        Self { server, database, cluster: None, _shared: Some(shared) }
    }

    /// On a PostgreSQL of the test's own, with fsync, to be killed, stopped and frozen.
    pub fn start_private(options: Options) -> Self {
        let cluster = Cluster::start();
        let database = cluster.database("contextnexus_test");
        let server = TestServer::start_with(&database, options);
        Self { server, database, cluster: Some(cluster), _shared: None }
    }

    pub fn postgres(&mut self) -> &mut Cluster {
        self.cluster.as_mut().expect("this world has a PostgreSQL of its own")
    }

    /// Another PostgreSQL stands at the address of this world's own, which is dead and is answered.
    pub fn exchange_postgres(&mut self, other: Cluster) -> Cluster {
        std::mem::replace(self.postgres(), other)
    }

    pub fn base(&self) -> String {
        self.server.base.clone()
    }

    pub fn token(&self) -> String {
        self.server.token.clone()
    }

    /// `/metrics`, as its text.
    pub fn metrics(&self) -> String {
        use std::io::{Read as _, Write as _};
        let mut page = String::new();
        let mut socket = std::net::TcpStream::connect(self.base().trim_start_matches("http://")).expect("it listens");
        socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it hears");
        socket.read_to_string(&mut page).expect("it answers");
        assert!(page.starts_with("HTTP/1.0 200"), "{page:.200}");
        page
    }

    /// A metric, summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.metrics();
        let values = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// A second node on the same database.
    pub fn second_node(&self, options: Options) -> TestServer {
        TestServer::start_with(&self.database, Options { name: "second node".to_owned(), ..options })
    }

    fn one<T>(&self, sql: &'static str, argument: &str) -> Option<T>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        block_on(async {
            let mut connection = PgConnection::connect(&self.database.superuser).await.expect("PostgreSQL answers");
            let row = sqlx::query(sql).bind(argument).fetch_optional(&mut connection).await.expect("the query runs");
            row.map(|row| row.get(0))
        })
    }

    /// The one text that this query answers for `$1`.
    pub fn text(&self, sql: &'static str, argument: &str) -> String {
        self.one(sql, argument).unwrap_or_else(|| panic!("{sql} found nothing for {argument}"))
    }

    pub fn tenant(&self) -> Uuid {
        self.one("select id from tenants where slug = $1", "demo").expect("the demo tenant is there")
    }

    /// A member of `playground`, written into the database: rights have to work however they came there.
    pub fn member(&self, name: &str, role: &str) -> Member {
        self.member_for(name, role, "1 day")
    }

    /// The same, with a token that runs out by itself after this time of the database.
    pub fn member_for(&self, name: &str, role: &str, lasts: &str) -> Member {
        let tenant = self.tenant();
        let user = fresh_id(&format!("{name} of {}", self.server.base));
        self.in_tenant(&format!(
            "insert into users (tenant_id, id, kind, email, name)
             values ('{tenant}', '{user}', 'person', '{name}@demo.local', '{name}');
             insert into project_memberships (tenant_id, project_id, user_id, role)
             select '{tenant}', id, '{user}', '{role}' from projects where tenant_id = '{tenant}' and slug = 'playground'"
        ));
        let (session, token) = self.user_session(user, lasts);
        Member { user, session, token }
    }

    /// One more token of the same person, good for a day.
    pub fn fresh_token(&self, member: &Member) -> String {
        self.user_session(member.user, "1 day").1
    }

    fn user_session(&self, user: Uuid, lasts: &str) -> (Uuid, String) {
        let tenant = self.tenant();
        let token = contextnexus::tokens::fresh(TenantId(tenant)).expect("random bytes");
        let session = fresh_id(&format!("session of {}", token.0));
        let hash: String = contextnexus::tokens::hash(&token).iter().map(|byte| format!("{byte:02x}")).collect();
        self.in_tenant(&format!(
            "insert into user_sessions (tenant_id, id, user_id, kind, name, token_hash, expires_at)
             values ('{tenant}', '{session}', '{user}', 'api', 'test', '\\x{hash}', now() + interval '{lasts}')"
        ));
        (session, token.0)
    }

    /// Runs statements as the demo tenant.
    fn in_tenant(&self, statements: &str) {
        let tenant = self.tenant();
        let sql = format!("begin; set local app.current_tenant_id = '{tenant}'; {statements}; commit");
        execute(&self.database.superuser, &sql);
    }

    /// A token of the right form that nobody has.
    pub fn wrong_token(&self) -> String {
        let token = self.token();
        format!("{}{}", &token[..token.len() - 43], "A".repeat(43))
    }

    /// Options that let a Y-Sweet client come with a token as it is: its own authorisation call would be refused first.
    pub fn as_is(&self, kind: &str, room: &str, token: &str) -> Value {
        if kind == "y-sweet-0.9" {
            let url = format!("{}/d/{room}/ws", self.server.socket_base());
            json!({ "clientToken": { "url": url, "docId": room, "token": token, "authorization": "full" } })
        } else {
            json!({})
        }
    }

    pub fn set_role(&self, member: &Member, role: &str) {
        self.in_tenant(&format!("update project_memberships set role = '{role}' where user_id = '{}'", member.user));
    }

    pub fn revoke(&self, member: &Member) {
        self.in_tenant(&format!("update user_sessions set revoked_at = now() where id = '{}'", member.session));
    }

    /// The document that this room of the default project leads to.
    pub fn document(&self, room: &str) -> Uuid {
        self.one("select id from content_items where name = $1", room).unwrap_or_else(|| panic!("no document {room}"))
    }

    /// Its log, each update in Base64.
    pub fn log(&self, room: &str) -> Vec<String> {
        let updates = logged_updates(&self.database.superuser, self.document(room));
        updates.iter().map(|update| STANDARD.encode(update)).collect()
    }

    /// The document over HTTP, in Base64.
    pub fn as_update(&self, fleet: &mut Fleet, room: &str) -> String {
        let answer = self.get(fleet, &format!("/d/{room}/as-update"));
        assert_eq!(answer["status"], 200, "as-update of {room}: {answer}");
        answer["body"].as_str().expect("a body").to_owned()
    }

    pub fn get(&self, fleet: &mut Fleet, path: &str) -> Value {
        self.http(fleet, "GET", path, json!({}))
    }

    /// A request in the name of the demo user; `more` may carry `json`, `body` and further `headers`.
    pub fn http(&self, fleet: &mut Fleet, method: &str, path: &str, more: Value) -> Value {
        let mut request = json!({ "method": method, "url": format!("{}{path}", self.server.base) });
        if let (Value::Object(all), Value::Object(more)) = (&mut request, more) {
            all.extend(more);
        }
        if request["headers"].get("authorization").is_none() {
            request["headers"]["authorization"] = json!(format!("Bearer {}", self.server.token));
        }
        fleet.call("http", request)
    }

    /// Everything that could hold this room is equal: all clients of the fleet, a fresh client of each kind, the update over HTTP, and the log
    /// folded into an empty document.
    pub fn assert_one_truth(&self, fleet: &mut Fleet, room: &str) {
        self.assert_one_truth_on(fleet, room, &[self.base()]);
    }

    pub fn assert_one_truth_on(&self, fleet: &mut Fleet, room: &str, bases: &[String]) {
        let mut fresh = Vec::new();
        for (node, base) in bases.iter().enumerate() {
            for kind in super::fleet::KINDS {
                let name = format!("fresh-{kind}-{node}");
                fleet.open(&name, kind, base, room, &self.server.token);
                fresh.push(name);
            }
        }
        let names: Vec<&str> = fresh.iter().map(String::as_str).collect();
        fleet.wait(&names, "synced", super::process::PATIENCE);
        // A fresh client may tidy formats and write that; so the others are compared again with what it made of it.
        fleet.call("converge", json!({ "timeoutMs": 5_000 }));
        let update = self.as_update(fleet, room);
        let log = self.log(room);
        fleet.call(
            "converge",
            json!({
                "timeoutMs": 0,
                "also": [{ "name": "as-update over HTTP", "update": update }],
                "alsoFolded": [{ "name": "the folded log", "updates": log }],
            }),
        );
        for name in names {
            fleet.call("close", json!({ "client": name }));
        }
    }
}

/// A UUID made from text, because fresh random ones are the clock's business.
fn fresh_id(text: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())
}
