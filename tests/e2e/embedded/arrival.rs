//! A database that was brought, and is not there yet when the server starts.

use super::fixture::Host;
use crate::support::cluster::{Cluster, DatabaseUrls, execute};
use crate::support::process::Running;
use std::time::{Duration, Instant};

fn host(urls: &DatabaseUrls) -> Host {
    let mut host = Host::private();
    host.set("DATABASE_URL", &urls.application);
    host.set("DATABASE_OWNER_URL", &urls.owner);
    host
}

#[test]
fn a_server_waits_for_a_database_that_starts_after_it_and_says_so() {
    let mut cluster = Cluster::start();
    let urls = cluster.database("late");
    cluster.stop();
    let host = host(&urls);
    let mut running = Running::start("contextnexus", host.command(&[]));
    let place = format!("127.0.0.1:{}", cluster.port);
    running.wait_for_line(&format!("Waiting for PostgreSQL at {place} ("), Duration::from_secs(10));
    std::thread::sleep(Duration::from_secs(2));
    assert!(running.is_alive(), "{}", running.tail());
    let waits = running.lines().iter().filter(|line| line.starts_with("Waiting for")).count();
    assert_eq!(waits, 1, "it is said once, and again only after a while:\n{}", running.tail());
    cluster.restart();
    running.wait_for_line("ContextNexus is ready at ", Duration::from_secs(30));
    assert!(running.lines().iter().any(|line| line == &format!("PostgreSQL at {place} is there")));
    assert!(!running.lines().join("\n").contains(":app@"), "no password is shown");
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(10)).success());
}

#[test]
fn a_database_that_never_comes_is_told_in_the_end_and_sigterm_ends_the_wait() {
    let mut cluster = Cluster::start();
    let urls = cluster.database("never");
    cluster.stop();
    let mut host = host(&urls);
    host.set("CONTEXTNEXUS_DATABASE__START_WAIT_S", "2");
    let started = Instant::now();
    let line = host.refused(&[]);
    assert!(started.elapsed() >= Duration::from_secs(2), "it has waited");
    let place = format!("127.0.0.1:{}", cluster.port);
    assert!(line.contains(&format!("PostgreSQL at {place} cannot be reached (Connection refused")), "{line}");
    assert!(line.contains("after 2 s: start it, or correct DATABASE_OWNER_URL"), "{line}");
    let line = host.refused(&["migrate"]);
    assert!(line.contains(&format!("PostgreSQL at {place} cannot be reached")), "migrate waits too: {line}");
    host.set("DATABASE_OWNER_URL", "");
    host.set("DATABASE_URL", "postgres://cnx_app@no-such-host.invalid/never");
    let line = host.refused(&[]);
    assert!(line.contains("PostgreSQL at no-such-host.invalid:5432 cannot be reached"), "{line}");

    host.set("CONTEXTNEXUS_DATABASE__START_WAIT_S", "600");
    let mut running = Running::start("contextnexus", host.command(&[]));
    running.wait_for_line("Waiting for PostgreSQL", Duration::from_secs(10));
    running.signal("TERM");
    assert!(running.wait(Duration::from_secs(10)).success(), "{}", running.tail());
}

#[test]
fn a_wrong_password_role_or_database_is_told_at_once() {
    let mut cluster = Cluster::start();
    let urls = cluster.database("closed");
    let rules = "host all cnx_app,stranger 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
    std::fs::write(cluster.data().join("pg_hba.conf"), rules).unwrap();
    execute(&urls.superuser, "select pg_reload_conf()");
    cluster.stop();
    cluster.restart();
    for (from, to, says) in [
        (":app@", ":wrong@", "password authentication failed for user \"cnx_app\""),
        ("//cnx_app:", "//stranger:", "password authentication failed for user \"stranger\""),
        ("/closed", "/open", "database \"open\" does not exist"),
    ] {
        let mut host = host(&urls);
        host.set("DATABASE_URL", &urls.application.replace(from, to));
        let started = Instant::now();
        let line = host.refused(&[]);
        assert!(line.contains(says) && line.ends_with("; correct DATABASE_URL"), "{line}");
        assert!(line.contains(&format!("PostgreSQL at 127.0.0.1:{} does not let this server in", cluster.port)));
        assert!(started.elapsed() < Duration::from_secs(50), "nothing is waited for: {:?}", started.elapsed());
        assert!(!line.contains(":wrong@"), "{line}");
    }
}
