//! What an operator is told: by `/ready`, by `doctor`, and by the logs.

use super::fixture::{Host, execute};
use crate::support::cluster::Cluster;
use std::process::Output;

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
    assert!(!log.contains(&password), "nor is the password");
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
