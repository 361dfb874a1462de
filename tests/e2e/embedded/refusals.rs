//! What cannot be served is refused in one clear line that says what to do.

use super::fixture::Host;
use crate::support::process::is_root;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_port_in_use() {
    let host = Host::private();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let line = host.refused(&["--listen", &address]);
    assert_eq!(
        line,
        format!(
            "contextnexus: the port of {address} is in use: another server listens there; stop it, or choose another address with --listen"
        )
    );
    assert!(!host.data().exists(), "nothing was begun");
}

#[test]
fn a_directory_that_is_somebody_elses() {
    let host = Host::private();
    std::fs::create_dir(host.data()).unwrap();
    std::fs::write(host.data().join("thesis.txt"), "mine").unwrap();
    let line = host.refused(&[]);
    assert!(
        line.contains("is not empty and not a ContextNexus data directory; choose another with --data-dir"),
        "{line}"
    );
    let names: Vec<_> = std::fs::read_dir(host.data()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["thesis.txt"], "it is left as it was");
}

#[test]
fn a_directory_of_a_later_version() {
    let host = Host::private();
    std::fs::create_dir(host.data()).unwrap();
    std::fs::write(host.data().join("contextnexus.json"), r#"{"format":99,"written_by":"9.0.0"}"#).unwrap();
    let line = host.refused(&[]);
    assert!(line.contains("has format 99, this version knows 1"), "{line}");
}

#[test]
fn a_database_of_a_later_version() {
    let mut host = Host::private();
    host.start();
    host.sql_as_owner(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (990001, 'from the future', true, '\\x00', 0)",
    );
    host.terminate();
    let line = host.refused(&[]);
    assert!(line.contains("the database is at schema 990001, newer than"), "{line}");
    host.assert_no_postgres("PostgreSQL is stopped again");
}

#[test]
fn a_data_directory_from_before_the_first_release() {
    let mut host = Host::private();
    host.start();
    host.sql_as_owner(
        "truncate _sqlx_migrations;
         insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         select version, 'from the past', true, '\\x00', 0 from generate_series(1, 22) as version",
    );
    host.terminate();
    for command in [&[][..], &["migrate"]] {
        let line = host.refused(command);
        assert!(
            line.contains("the database is at schema 22, of a ContextNexus from before the first release"),
            "{line}"
        );
        assert!(line.contains("choose another directory with --data-dir"), "{line}");
        host.assert_no_postgres("PostgreSQL is stopped again");
    }
}

#[test]
fn a_second_server_on_one_directory() {
    let mut host = Host::private();
    host.start();
    let line = host.refused(&[]);
    assert!(
        line.contains(&format!("another ContextNexus server (pid {}) runs on the data directory", host.pid())),
        "{line}"
    );
    assert_eq!(host.get("/ready").0, 200, "the first is not disturbed");
}

#[test]
fn a_missing_right() {
    if !is_root() {
        return; // root has to make a directory that a plain user may not write
    }
    let mut host = Host::as_plain_user();
    let closed = host.directory().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o755)).unwrap();
    let directory = closed.join("data");
    host.set("CONTEXTNEXUS_DATA_DIR", directory.to_str().unwrap());
    let line = host.refused(&[]);
    assert!(line.contains(&format!("no right to write {}; start as a user who may", directory.display())), "{line}");
}

#[test]
fn a_full_disk_before_the_first_start_and_after_it() {
    if !is_root() {
        return; // only root mounts
    }
    let mut host = Host::open();
    host.mount_disk("64m");
    let line = host.refused(&[]);
    assert!(line.contains("the disk is full; free some space, or choose another directory"), "{line}");
    host.disk().resize("400m");
    host.start();
    host.terminate();
    host.disk().fill();
    let line = host.refused(&[]);
    assert!(line.contains("the disk is full; free some space") || line.contains("is full; free some space"), "{line}");
    host.assert_no_postgres("nothing is left running");
    host.disk().empty();
    host.start();
    assert_eq!(host.get("/ready").0, 200, "and with room again it works");
}
