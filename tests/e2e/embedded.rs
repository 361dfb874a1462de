//! The first command on a fresh machine: a server with a PostgreSQL of its own.

mod arrival;
mod backup;
mod copies;
mod demo;
mod departure;
mod faults;
mod fixture;
mod operation;
mod refusals;

use super::support::process::is_root;
use fixture::Host;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

#[test]
fn root_starts_it_under_a_private_directory_and_a_second_start_finds_everything() {
    if !is_root() {
        return; // the plain user's test below is this one's other half
    }
    let mut host = Host::private();
    // Whatever the machine speaks, the database speaks UTF8 and sorts as C.
    host.set("LANG", "de_DE.UTF-8");
    host.set("LC_ALL", "tr_TR.UTF-8");
    host.start();

    let home = host.home();
    assert!(home.starts_with("/var/lib/contextnexus"), "PostgreSQL's user cannot pass the 0700 parent: {home:?}");
    assert!(host.said(home.to_str().unwrap()), "the place is printed:\n{}", host.log());
    let postmaster = host.postmaster();
    let owner = std::fs::metadata(format!("/proc/{postmaster}")).unwrap().uid();
    assert_ne!(owner, 0, "PostgreSQL does not run as root");

    let facts = host.sql_row("select pg_encoding_to_char(encoding), datcollate, datctype from pg_database where datname = current_database()");
    assert_eq!(facts, ["UTF8", "C", "C"]);
    let durable = host.sql_row(
        "select current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
                current_setting('password_encryption'), current_setting('listen_addresses')",
    );
    assert_eq!(durable, ["on", "on", "on", "scram-sha-256", "127.0.0.1"]);
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    assert!(!sockets.contains(&format!(".s.PGSQL.{}", host.port())), "loopback only");
    assert!(host.refuses_a_wrong_password(), "a password is asked for");
    let roles = host.sql_row(
        "select current_user::text, (select rolsuper or rolbypassrls from pg_roles where rolname = current_user)::text,
                exists (select from pg_tables where tableowner = current_user)::text",
    );
    assert_eq!(roles[1..], ["false", "false"], "{} serves, and neither owns nor bypasses anything", roles[0]);

    let credentials = host.credentials();
    for file in ["credentials.json", "embedded.json"] {
        let mode = std::fs::metadata(host.data().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file} is its owner's alone");
    }
    assert_eq!(credentials["tenant"], "demo");
    assert_eq!(credentials["email"], "admin@demo.local");
    assert_eq!(credentials["url"], host.base());

    assert!(host.terminate().success(), "SIGTERM ends it without an error");
    host.assert_no_postgres("and PostgreSQL with it");
    host.start();
    let again = host.credentials();
    assert_eq!(again["password"], credentials["password"], "the password stays");
    assert_eq!(again["token"], credentials["token"], "a token with a year left stays");
    assert_eq!(host.get("/ready").0, 200);
}

#[test]
fn the_first_start_says_how_to_sign_in_and_later_ones_where_that_is_written() {
    let mut host = Host::open();
    host.start();
    let file = host.data().canonicalize().unwrap().join("credentials.json");
    host.wait_for_line(&format!("are in {}", file.display()));
    let password = host.credentials()["password"].as_str().unwrap().to_owned();
    let told = format!("Sign in as admin@demo.local with the password {password}");
    let lines: Vec<_> = host.log().lines().map(str::to_owned).collect();
    let at = |text: &str| lines.iter().position(|line| line.contains(text));
    assert_eq!(
        at("ContextNexus is ready at ").map(|ready| ready + 1),
        at(&told),
        "after the ready line:\n{}",
        host.log()
    );
    let migrations: Vec<_> =
        lines.iter().filter(|line| line.contains(" INFO ") && line.contains("migration")).collect();
    assert_eq!(migrations.len(), 1, "one line for all migrations:\n{}", host.log());
    host.terminate();

    host.start();
    host.wait_for_line(&format!("are in {}", file.display()));
    assert!(!host.said(&password), "the password is told once:\n{}", host.log());
    assert!(!host.said("migration"), "nothing was migrated:\n{}", host.log());
    host.terminate();

    // A password that somebody chose is told to nobody.
    let mut host = Host::open();
    host.set("CONTEXTNEXUS_DEMO__PASSWORD", "chosen-by-an-operator");
    host.start();
    host.wait_for_line("credentials.json");
    assert!(!host.said("chosen-by-an-operator"), "{}", host.log());
}

#[test]
fn a_plain_user_starts_it_in_a_directory_of_its_own() {
    let mut host = Host::as_plain_user();
    host.start();
    assert!(host.home().starts_with(host.data().canonicalize().unwrap()), "nobody else is involved: {:?}", host.home());
    let mode = std::fs::metadata(host.data()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(host.get("/ready").0, 200);
    assert_eq!(host.sql_row("select count(*)::text from tenant_directory"), ["1"]);
    assert!(host.terminate().success());
}

#[test]
fn binaries_are_fetched_where_none_are_and_later_starts_use_those_that_fit_the_data() {
    let mut host = Host::private();
    host.set("CONTEXTNEXUS_EMBEDDED__BINARIES", "fetch");
    host.start();
    assert!(host.said("fetching its binaries"), "{}", host.log());
    assert_eq!(host.get("/ready").0, 200);
    let program = std::fs::read_link(format!("/proc/{}/exe", host.postmaster())).unwrap();
    assert!(program.starts_with(host.home().join("binaries")), "{program:?}");
    assert!(host.terminate().success());

    // An installed server of another version is no use to this cluster; nothing is fetched twice.
    host.set("CONTEXTNEXUS_EMBEDDED__BINARIES", "auto");
    host.start();
    assert!(!host.said("fetching"), "{}", host.log());
    let again = std::fs::read_link(format!("/proc/{}/exe", host.postmaster())).unwrap();
    let major = std::fs::read_to_string(host.home().join("cluster/PG_VERSION")).unwrap();
    assert!(
        again == program || again.to_string_lossy().contains(&format!("/{}/", major.trim())),
        "{again:?} runs a cluster of version {major}"
    );
}

#[test]
fn sigterm_ends_it_and_the_terminal_does_not_reach_postgres() {
    let mut host = Host::private();
    host.start();
    let group = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.split_whitespace().nth(2).unwrap().to_owned()
    };
    assert_ne!(group(host.postmaster()), group(host.pid()), "Ctrl-C goes to a process group");
    assert!(host.terminate().success());
    assert!(!host.home().join("cluster/postmaster.pid").exists(), "PostgreSQL was stopped cleanly");
}
