//! Whatever was killed, the next start has everything, and a running server gets its database back by itself.

use super::fixture::{Host, signal_all};
use crate::support::process::{PATIENCE, eventually, signal_pid};
use std::process::Command;
use std::time::Duration;

/// Kept by the database, so that it says whether this is still the same one.
fn token(host: &Host) -> String {
    host.credentials()["token"].as_str().unwrap().to_owned()
}

#[test]
fn after_a_killed_server_its_postgres_is_adopted() {
    let mut host = Host::private();
    host.start();
    let (token_before, postmaster, port) = (token(&host), host.postmaster(), host.port());
    host.kill();
    assert!(host.is_postgres_running(), "PostgreSQL is not killed with the server");

    host.start();
    assert_eq!((host.postmaster(), host.port()), (postmaster, port), "it is the same process:\n{}", host.log());
    assert_eq!(token(&host), token_before);
    assert!(host.terminate().success());
    host.assert_no_postgres("an adopted PostgreSQL is stopped like one's own");
}

#[test]
fn an_orphan_with_other_settings_is_replaced() {
    let mut host = Host::private();
    host.start();
    let (token_before, postmaster) = (token(&host), host.postmaster());
    host.kill();
    host.set("CONTEXTNEXUS_EMBEDDED__SHARED_BUFFERS_MB", "64");
    host.start();
    assert_ne!(host.postmaster(), postmaster);
    assert_eq!(host.sql_row("select current_setting('shared_buffers')"), ["64MB"]);
    assert_eq!(token(&host), token_before);
}

#[test]
fn a_killed_postgres_comes_back_on_its_port_under_a_serving_server() {
    let mut host = Host::private();
    host.start();
    let (postmaster, port) = (host.postmaster(), host.port());
    for _ in 0..2 {
        let killed = host.postmaster();
        signal_pid(killed, "KILL");
        eventually(PATIENCE, "PostgreSQL serves again", || {
            // Only then is the new one's file whole.
            host.is_serving_sql() && host.postmaster() != killed
        });
    }
    eventually(PATIENCE, "/ready is true", || host.get("/ready").0 == 200);
    assert_ne!(host.postmaster(), postmaster);
    assert_eq!(host.port(), port);
    assert_eq!(host.sql_row("select count(*)::text from tenant_directory"), ["1"]);
}

#[test]
fn a_postgres_that_hangs_makes_the_node_not_ready() {
    let mut host = Host::private();
    host.start();
    assert_eq!(host.get("/ready").0, 200);
    signal_all(&host, "STOP");
    eventually(PATIENCE, "/ready is false", || host.get("/ready").0 == 503);
    assert!(host.get("/ready").1.contains(r#""missing":["postgresql"]"#), "{:?}", host.get("/ready"));
    assert_eq!(host.get("/live").0, 200, "the process itself is well");
    signal_all(&host, "CONT");
    eventually(PATIENCE, "/ready is true again", || host.get("/ready").0 == 200);
}

#[test]
fn after_both_were_killed_everything_is_there() {
    let mut host = Host::private();
    host.start();
    let token_before = token(&host);
    for _ in 0..2 {
        let postmaster = host.postmaster();
        host.kill();
        signal_pid(postmaster, "KILL");
        host.start();
        assert_ne!(host.postmaster(), postmaster);
        assert_eq!(token(&host), token_before);
        assert_eq!(host.get("/ready").0, 200);
    }
}

#[test]
fn a_lost_record_is_said_and_made_anew_for_the_same_database() {
    for (mut host, postgres_runs) in [(Host::private(), true), (Host::open(), false)] {
        host.start();
        let (token_before, home) = (token(&host), host.home());
        let record = host.data().join("embedded.json");
        let before: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
        host.kill();
        if !postgres_runs {
            signal_all(&host, "KILL");
            eventually(PATIENCE, "PostgreSQL is gone", || !host.is_postgres_running());
        }
        let kept = std::fs::read(&record).unwrap();
        std::fs::remove_file(&record).unwrap();
        let doctor = host.command(&["doctor"]).output().unwrap();
        let report = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(report.contains("embedded.json is missing") && doctor.status.success(), "{report}");
        // Where this fails, the host still finds its PostgreSQL to stop.
        let started = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| host.start()));
        if let Err(panic) = started {
            std::fs::write(&record, kept).unwrap();
            std::panic::resume_unwind(panic);
        }
        assert!(host.said("(embedded.json) is missing") && host.said("passwords are set anew"), "{}", host.log());
        assert_eq!((token(&host), host.home()), (token_before.clone(), home));
        assert_eq!(host.get_as("/v1/me", &token_before).0, 200, "it is the same database");
        let after: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
        for password in ["superuser_password", "owner_password", "application_password", "backup_password"] {
            assert_ne!(before[password], after[password], "{password}");
        }
        assert!(host.refuses_a_wrong_password());
        host.terminate();
        host.start();
        assert!(!host.said("is missing"), "{}", host.log());
    }
}

#[test]
fn a_stale_pid_file_that_names_another_program_is_no_obstacle() {
    let mut host = Host::as_plain_user();
    host.start();
    let postmaster = host.postmaster();
    host.kill();
    signal_all(&host, "KILL");
    eventually(PATIENCE, "PostgreSQL is gone", || !host.is_postgres_running());
    // After a restart of the machine any program may have that number: PostgreSQL alone would take it for itself, if it
    // belongs to the same user.
    let mut other = crate::support::process::tied("sleep");
    let mut other = if crate::support::process::is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "sleep", "60"]);
        command
    } else {
        other.arg("60");
        other
    }
    .spawn()
    .unwrap();
    let file = host.cluster().join("postmaster.pid");
    let text = std::fs::read_to_string(&file).unwrap().replacen(&postmaster.to_string(), &other.id().to_string(), 1);
    std::fs::write(&file, text).unwrap();

    host.start();
    assert_eq!(host.get("/ready").0, 200);
    assert!(matches!(other.try_wait(), Ok(None)), "the other program was left alone");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_first_start_that_was_killed_anywhere_is_no_obstacle_to_the_next() {
    for after_ms in [30, 300, 900, 1500] {
        let mut host = Host::private();
        let mut first = host.command(&[]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(after_ms));
        first.kill().unwrap();
        first.wait().unwrap();
        host.start();
        eventually(PATIENCE, &format!("ready, killed after {after_ms} ms"), || host.get("/ready").0 == 200);
        assert!(host.terminate().success());
    }
}
