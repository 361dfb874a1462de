//! What an operator is told: by `/ready`, by `doctor`, and by the logs.

use super::fixture::{Host, execute};
use crate::support::cluster::Cluster;
use crate::support::process::{PATIENCE, Running, eventually, free_port, is_root, tied};
use crate::support::raw::Raw;
use crate::support::rest::typing;
use contextnexus_gate::lib0::write_var_bytes;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// Its exit code and what it printed.
fn doctor(host: &Host) -> (Option<i32>, String) {
    let Output { status, stdout, .. } = host.command(&["doctor"]).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap())
}

#[test]
fn a_database_that_may_lose_commits_is_refused_unless_that_is_allowed_and_is_always_named() {
    let cluster = Cluster::start();
    let urls = cluster.database("weak");
    execute(&urls.superuser, "alter system set fsync = off");
    execute(&urls.superuser, "select pg_reload_conf()");
    let mut host = Host::private();
    host.set("DATABASE_URL", &urls.application);
    host.set("DATABASE_OWNER_URL", &urls.owner);

    let line = host.refused(&[]);
    assert!(line.contains("refusing to serve: fsync is off"), "{line}");
    let (code, report) = doctor(&host);
    assert_eq!(code, Some(1), "{report}");
    assert!(
        report.lines().any(|line| line.starts_with("FAIL durability") && line.contains("fsync is off")),
        "{report}"
    );
    assert!(report.lines().any(|line| line.starts_with("OK   application role")), "{report}");

    host.set("CONTEXTNEXUS_DATABASE__ALLOW_WEAK_DURABILITY", "true");
    host.start();
    let (status, body) = host.get("/ready");
    assert_eq!((status, body.contains(r#""durability":"weakened""#)), (200, true), "{body}");
}

#[test]
fn the_role_that_owns_the_tables_does_not_serve() {
    let cluster = Cluster::start();
    let urls = cluster.database("one_role");
    let mut host = Host::private();
    host.set("DATABASE_URL", &urls.owner);
    host.set("DATABASE_OWNER_URL", &urls.owner);
    let line = host.refused(&[]);
    assert!(line.contains("refusing to serve") && line.contains("owns tables"), "{line}");
    let (code, report) = doctor(&host);
    assert_eq!(code, Some(1), "{report}");
    assert!(report.lines().any(|line| line.starts_with("FAIL owner role")), "{report}");
}

#[test]
fn a_database_whose_policies_were_weakened_is_refused_with_the_remedy_and_a_node_on_it_is_not_ready() {
    let cluster = Cluster::start();
    let urls = cluster.database("weakened");
    let mut host = Host::private();
    host.set("DATABASE_URL", &urls.application);
    host.set("DATABASE_OWNER_URL", &urls.owner);
    host.start();
    assert_eq!(host.get("/ready").0, 200);
    execute(&urls.superuser, "alter table users disable row level security");
    eventually(PATIENCE, "/ready is false", || host.get("/ready").0 == 503);
    let body = host.get("/ready").1;
    assert!(body.contains(r#""missing":["isolation"]"#) && body.contains("row-level security of users"), "{body}");
    host.terminate();

    let remedy = "alter table users enable row level security";
    let line = host.refused(&[]);
    assert!(line.contains("refusing to serve: row-level security of users is disabled"), "{line}");
    assert!(line.contains(remedy), "{line}");
    let (code, report) = doctor(&host);
    assert_eq!(code, Some(1), "{report}");
    assert!(report.lines().any(|line| line.starts_with("FAIL tenancy") && line.contains(remedy)), "{report}");
    execute(&urls.owner, remedy);
    host.start();
    assert_eq!(host.get("/ready").0, 200);
}

#[test]
fn doctor_reads_every_document_when_it_is_told_to() {
    let mut host = Host::private();
    let deep = |host: &Host| {
        let Output { status, stdout, .. } = host.command(&["doctor", "--deep"]).output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap())
    };
    let (code, report) = deep(&host);
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("the database does not run; start the server first"), "{report}");
    host.start();
    host.sql_as_owner(
        "select set_config('app.current_tenant_id', (select id::text from tenant_directory), false);
         insert into content_items (tenant_id, id, project_id, name, title)
         select tenant_id, gen_random_uuid(), id, 'one', 'One' from projects",
    );
    let (code, report) = deep(&host);
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("1 documents of 1 tenants, with 0 rows and 0 snapshots: all of it reads back"), "{report}");
    host.sql_as_owner(
        "select set_config('app.current_tenant_id', (select id::text from tenant_directory), false);
         update document_heads set seq = 1",
    );
    let (code, report) = deep(&host);
    assert_eq!(code, Some(1), "{report}");
    let named = |line: &str| line.starts_with("FAIL documents") && line.contains("tenant demo, document ");
    assert!(report.lines().any(|line| named(line) && line.contains("its head is at 1")), "{report}");
    assert!(report.contains("1 of 1 documents of 1 tenants"), "{report}");
}

#[test]
fn a_full_disk_is_said_and_what_is_typed_waits_until_there_is_room() {
    if !is_root() {
        return; // only root mounts
    }
    let mut host = Host::open();
    host.mount_disk("400m");
    host.start();
    let address: SocketAddr = host.base().trim_start_matches("http://").parse().unwrap();
    let token = host.credentials()["token"].as_str().unwrap().to_owned();
    let (status, head, mut socket) = Raw::request(address, &format!("/yjs/full?token={token}"), "");
    assert_eq!(status, 101, "{head}");
    socket.send_binary(&[0, 0, 1, 0]);
    let write = |socket: &mut Raw, clock: u64, text: &str| {
        let mut update = vec![0, 2];
        write_var_bytes(&mut update, &typing(1, clock, text));
        socket.send_binary(&update);
    };
    write(&mut socket, 0, "before");
    while !socket.binary().starts_with(&[0, 2]) {} // its echo: committed

    host.disk().fill();
    eventually(PATIENCE, "/ready is false", || host.get("/ready").0 == 503);
    eventually(PATIENCE, "the database's disk is named", || {
        host.get("/ready").1.contains("disk of PostgreSQL is full")
    });
    let body = host.get("/ready").1;
    assert!(body.contains(r#""missing":["disk""#) && body.contains("free some space"), "{body}");
    let has = |line: &str| host.get("/metrics").1.lines().any(|found| found == line);
    assert!(has("contextnexus_disk_full{part=\"postgresql\"} 1"), "{}", host.get("/metrics").1);
    assert!(host.log().lines().any(|line| line.contains("WARN") && line.contains("disk of PostgreSQL is full")));
    // More than there is room for in what PostgreSQL has already, and nothing that packs.
    let mut noise = vec![0; 400_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let noise: String = noise.iter().map(|byte| char::from(b' ' + byte % 90)).collect();
    write(&mut socket, 6, &noise);
    let metric = |name: &str| {
        let page = host.get("/metrics").1;
        let line = page.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or(0.0)
    };
    let waiting = || metric("contextnexus_waiting_bytes ");
    eventually(PATIENCE, "the update waits", || waiting() > 300_000.0);
    socket.socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let heard = socket.try_frame();
    assert!(matches!(heard, None | Some((0x89, _))), "neither called saved nor closed: {heard:?}"); // a ping, perhaps
    assert!(waiting() > 300_000.0);

    host.disk().empty();
    // Whether or not this client, which answers no ping, is still there.
    eventually(PATIENCE, "it is committed", || metric("contextnexus_log_bytes_total ") > 300_000.0 && waiting() < 1.0);
    eventually(PATIENCE, "/ready is true again", || host.get("/ready").0 == 200);
    assert!(has("contextnexus_disk_full{part=\"postgresql\"} 0"));
}

#[test]
fn doctor_is_content_with_a_fresh_machine_and_with_a_running_server() {
    let mut host = Host::private();
    let (code, report) = doctor(&host);
    assert_eq!(code, Some(0), "{report}");
    assert!(!host.data().exists(), "it only looks");
    host.start();
    let (code, report) = doctor(&host);
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("row-level security is forced on every tenant's table"), "{report}");
    host.set("REDIS_URL", "redis://:marker@127.0.0.1:1/");
    let (code, report) = doctor(&host);
    assert_eq!(code, Some(1), "{report}");
    assert!(report.lines().any(|line| line.starts_with("FAIL Redis")) && !report.contains("marker"), "{report}");
}

/// A Redis that speaks TLS alone, with a certificate of an authority that nobody knows.
fn redis_with_tls(place: &Path) -> (Running, u16) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(place).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2"));
    openssl(&format!(
        "req -x509 {key} -keyout redis.key -out redis.pem -subj /CN=redis -days 2 -CA ca.pem -CAkey ca.key \
         -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    ));
    let port = free_port();
    let mut command = tied("redis-server");
    command.current_dir(place).args(["--port", "0", "--tls-port", &port.to_string(), "--bind", "127.0.0.1"]);
    command.args(["--tls-cert-file", "redis.pem", "--tls-key-file", "redis.key", "--tls-ca-cert-file", "ca.pem"]);
    command.args(["--tls-auth-clients", "no", "--save", "", "--appendonly", "no"]);
    let mut redis = Running::start("redis-server", command);
    redis.wait_for_line("Ready to accept connections", Duration::from_secs(20));
    (redis, port)
}

#[test]
fn redis_is_reached_over_tls_and_its_absence_is_told_and_no_reason_to_be_unready() {
    let place = tempfile::tempdir().unwrap();
    let (mut redis, port) = redis_with_tls(place.path());
    let mut host = Host::private();
    host.set("REDIS_URL", &format!("rediss://localhost:{port}"));
    host.start();
    // The system does not know the authority.
    std::thread::sleep(Duration::from_secs(1));
    assert!(host.get("/ready").1.contains(r#""redis":"down""#), "a certificate is checked: {}", host.get("/ready").1);
    assert_eq!(host.get("/ready").0, 200);
    assert!(host.get("/metrics").1.contains("\ncontextnexus_bus_up 0\n"));
    host.terminate();

    host.set("SSL_CERT_FILE", place.path().join("ca.pem").to_str().unwrap());
    host.start();
    let is = |state: &str| host.get("/ready").1.contains(&format!(r#""redis":"{state}""#));
    eventually(PATIENCE, "Redis is up", || is("up"));
    assert!(host.get("/metrics").1.contains("\ncontextnexus_bus_up 1\n"));
    let (code, report) = doctor(&host);
    assert_eq!(code, Some(0), "{report}");
    redis.kill();
    eventually(PATIENCE, "Redis is down", || is("down"));
    assert_eq!(host.get("/ready").0, 200, "rights and heads are read from PostgreSQL anyway");
}

#[test]
fn tokens_in_addresses_and_headers_are_in_no_log() {
    let mut host = Host::private();
    host.set("CONTEXTNEXUS_TELEMETRY__LOG", "debug");
    host.set("CONTEXTNEXUS_TELEMETRY__FORMAT", "json");
    host.start();
    let token = host.credentials()["token"].as_str().unwrap().to_owned();
    let password = host.credentials()["password"].as_str().unwrap().to_owned();
    for path in ["/yjs/room?token=", "/v1/me?ticket=", "/nowhere?token="] {
        host.get(&format!("{path}{token}"));
    }
    let log = host.log();
    assert!(log.contains("answered with"), "requests are logged at this level");
    assert!(!log.contains(&token), "the token is not");
    // The line for the person who started it is no log.
    let log: Vec<_> = log.lines().filter(|line| line.starts_with('{')).collect();
    assert!(!log.join("\n").contains(&password), "nor is the password");
}

#[test]
fn tenants_users_projects_and_tokens_are_made_beside_a_running_server() {
    let mut host = Host::private();
    host.start();
    let run = |arguments: &[&str]| {
        let output = host.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    run(&["tenant", "create", "acme"]);
    run(&["user", "create", "bob@acme.example", "--tenant", "acme", "--admin"]);
    run(&["project", "create", "docs", "--tenant", "acme", "--admin", "bob@acme.example", "--default"]);
    let token = run(&["token", "create", "--tenant", "acme", "--user", "bob@acme.example"]);
    assert!(token.starts_with("cnx_"), "nothing but the token is on stdout: {token}");
    assert_eq!(host.get_as("/v1/me", &token).0, 200);
    let output = host.command(&["tenant", "create", "acme"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "contextnexus: that exists already (tenants_slug_key)\n");
}
