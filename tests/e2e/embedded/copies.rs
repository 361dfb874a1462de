//! A data directory that was copied, moved or restored: it runs on its own database, or not at all.

use super::fixture::Host;
use crate::support::process::is_root;

/// Says in the database whose it is.
fn sign(host: &Host, statement: &'static str) {
    host.sql_as_owner(statement);
}

fn signatures(host: &Host) -> String {
    host.sql_row("select coalesce(string_agg(name, ',' order by name), '') from signature").remove(0)
}

const SIGNATURE: &str = "create table signature (name text); grant select on signature to contextnexus_application; \
                         insert into signature values ('both')";

#[test]
fn a_copy_writes_its_own_database_and_not_the_originals() {
    let (mut host, mut copy, mut moved) = (Host::open(), Host::open(), Host::open());
    host.start();
    sign(&host, SIGNATURE);
    host.terminate();
    host.give_data(&["cp", "-a"], &copy);

    // The original stands where it stood, so nothing is missing that its record names.
    copy.start();
    sign(&copy, "insert into signature values ('copy')");
    host.start();
    assert_eq!(signatures(&host), "both", "the copy wrote the original's database");
    sign(&host, "insert into signature values ('original')");
    assert_eq!(signatures(&copy), "both,copy", "the original wrote the copy's database");
    assert_ne!(host.cluster(), copy.cluster());
    assert_ne!(host.postmaster(), copy.postmaster());
    host.terminate();
    copy.terminate();

    host.give_data(&["mv"], &moved);
    moved.start();
    assert_eq!(signatures(&moved), "both,original", "a moved directory takes its database along");
}

#[test]
fn a_copy_without_its_database_does_not_run_on_the_originals() {
    let (mut host, copy) = (Host::open(), Host::open());
    host.start();
    host.terminate();
    // As the record was written before this rule, too.
    let record = std::fs::read_to_string(host.data().join("embedded.json")).unwrap();
    let absolute = record.replace("\"postgresql\"", &format!("{:?}", host.home()));
    assert_ne!(record, absolute);
    std::fs::write(host.data().join("embedded.json"), absolute).unwrap();
    host.give_data(&["cp", "-a"], &copy);
    std::fs::remove_dir_all(copy.data().join("postgresql")).unwrap();
    let line = copy.refused(&[]);
    assert!(line.contains("is missing: its files were in") && line.contains("contextnexus restore"), "{line}");
    std::fs::remove_file(copy.data().join("embedded.json")).unwrap(); // nothing to clear away there
    host.start();
    assert_eq!(host.get("/ready").0, 200, "the record of an earlier version still leads inside");
}

/// In one line, which names the original and the remedies; doctor says the same.
fn assert_refused(copy: &Host, original: &Host, when: &str) {
    let line = copy.refused(&[]);
    let (this, original) = (copy.data().canonicalize().unwrap(), original.data().canonicalize().unwrap());
    assert!(line.contains(&format!("{} is a copy of {}", this.display(), original.display())), "{when}: {line}");
    assert!(line.contains("contextnexus restore") && line.contains("away"), "the remedies: {line}");
    let report = String::from_utf8(copy.command(&["doctor"]).output().unwrap().stdout).unwrap();
    assert!(report.lines().any(|line| line.starts_with("FAIL embedded database")), "{report}");
}

#[test]
fn a_copy_of_a_directory_whose_database_is_outside_is_refused_in_one_line() {
    if !is_root() {
        return; // only root's database may be outside
    }
    let (mut host, copy, mut moved) = (Host::private(), Host::private(), Host::private());
    host.start();
    sign(&host, SIGNATURE);
    let home = host.home();
    assert!(!home.starts_with(host.data()), "the case at hand: {home:?}");
    host.give_data(&["cp", "-a"], &copy);
    assert_refused(&copy, &host, "while the original runs");
    assert_eq!(host.get("/ready").0, 200, "the original is not disturbed");
    host.terminate();
    assert_refused(&copy, &host, "while the original is stopped");
    host.start();
    assert_eq!(signatures(&host), "both");
    host.terminate();

    host.give_data(&["mv"], &moved);
    moved.start();
    assert_eq!(signatures(&moved), "both", "a moved directory keeps its database");
    moved.terminate();
    let line = copy.refused(&[]);
    assert!(line.contains(&format!("is a copy of {}", moved.data().canonicalize().unwrap().display())), "{line}");

    // The directory was restored on a machine that has no such database.
    std::fs::rename(&home, home.with_extension("gone")).unwrap();
    let line = moved.refused(&[]);
    std::fs::rename(home.with_extension("gone"), &home).unwrap();
    assert!(line.contains(&format!("is missing: its files were in {}", home.display())), "{line}");
}
