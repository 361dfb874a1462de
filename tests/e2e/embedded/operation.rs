//! What an operator is told: by `/ready`, by `doctor`, and by the logs.

use super::fixture::{Host, execute};
use crate::support::cluster::Cluster;
use crate::support::process::{PATIENCE, Running, eventually, free_port, tied};
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
