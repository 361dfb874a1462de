//! README's drill, "Back up": a backup is taken while people write, verified, restored and served.

use super::fixture::Host;
use crate::support::cluster::{Cluster, execute, number};
use crate::support::process::eventually;
use crate::support::rest::typing;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const WRITERS: u64 = 3;

/// Status and body of one request.
fn call(base: &str, method: &str, path: &str, token: &str, kind: &str, body: &[u8]) -> (u16, String) {
    let authority = base.trim_start_matches("http://");
    let mut socket = TcpStream::connect(authority).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {token}\r\nAccept: {kind}\r\n\
         Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    socket.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn json_of(base: &str, method: &str, path: &str, token: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, answer) = call(base, method, path, token, "application/json", body.as_bytes());
    assert!(status < 300, "{method} {path}: {status} {answer}");
    serde_json::from_str(&answer).unwrap()
}

fn text_of(base: &str, document: &str, token: &str) -> String {
    let path = format!("/v1/documents/{document}/content");
    let (status, text) = call(base, "GET", &path, token, "text/plain", b"");
    assert_eq!(status, 200, "{text}");
    text.trim_end().to_owned()
}

fn token(host: &Host) -> String {
    host.credentials()["token"].as_str().unwrap().to_owned()
}

/// Somebody who types a letter, waits until it is saved, and types the next.
struct Writer {
    document: String,
    saved: AtomicU64,
}

impl Writer {
    fn write(&self, base: &str, token: &str, client: u64, stop: &AtomicBool) {
        let path = format!("/v1/documents/{}/update", self.document);
        let mut clock = 0;
        while !stop.load(Ordering::Relaxed) {
            let update = typing(client, clock, letter(clock));
            let (status, answer) = call(base, "POST", &path, token, "application/octet-stream", &update);
            assert_eq!(status, 200, "{answer}");
            clock += 1;
            self.saved.store(clock, Ordering::SeqCst);
        }
    }

    fn saved(&self) -> u64 {
        self.saved.load(Ordering::SeqCst)
    }
}

/// Ends the writers, also where an assertion fails beside them.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn letter(clock: u64) -> &'static str {
    let at = (clock % 26) as usize;
    &"abcdefghijklmnopqrstuvwxyz"[at..=at]
}

/// The commands of README's section, with another place for the backup and for the restored data directory.
fn drill(backup: &Path, restored: &Path) -> Vec<Vec<String>> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = readme.split("\n## Back up\n").nth(1).expect("README has a section").split("\n## ").next().unwrap();
    let block = section.split("```sh\n").nth(1).unwrap().split("\n```").next().unwrap();
    let line = |line: &str| {
        let line = line.split('#').next().unwrap();
        let line = line.replace("/backups/monday", backup.to_str().unwrap());
        let line = line.replace("/srv/restored", restored.to_str().unwrap());
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        assert_eq!(words[0], "contextnexus");
        words[1..].to_vec()
    };
    block.lines().map(line).collect()
}

fn run(host: &Host, arguments: &[impl AsRef<str>]) -> (String, String) {
    let arguments: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let output = host.command(&arguments).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{arguments:?}: {stdout}{stderr}");
    (stdout, stderr)
}

#[test]
fn readmes_drill_under_load_everything_saved_before_the_backup_is_served_after_the_restore() {
    let (mut host, mut restored) = (Host::open(), Host::open());
    let temporary = host.directory().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    host.set("TMPDIR", temporary.to_str().unwrap());
    host.start();
    let (base, token) = (host.base(), token(&host));
    let project = json_of(&base, "GET", "/v1/projects", &token, &Value::Null)["items"][0]["id"].clone();
    let writers: Vec<Writer> = (0..WRITERS)
        .map(|n| {
            let new = json!({ "project_id": project, "title": format!("Document {n}") });
            let document = json_of(&base, "POST", "/v1/documents", &token, &new)["id"].as_str().unwrap().to_owned();
            Writer { document, saved: AtomicU64::new(0) }
        })
        .collect();
    let backup = host.directory().join("monday");
    let drill = drill(&backup, &restored.data());
    let stop = AtomicBool::new(false);
    let before: Vec<u64> = std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for (client, writer) in (1..).zip(&writers) {
            let (base, token, stop) = (&base, &token, &stop);
            scope.spawn(move || writer.write(base, token, client, stop));
        }
        let all = |least: &[u64]| writers.iter().zip(least).all(|(writer, least)| writer.saved() > *least);
        eventually(Duration::from_secs(60), "everybody writes", || all(&[20; WRITERS as usize]));
        let before: Vec<u64> = writers.iter().map(Writer::saved).collect();
        let (said, _) = run(&host, &drill[0]);
        assert!(said.starts_with("Backed up 3 documents"), "{said}");
        let after: Vec<u64> = writers.iter().map(Writer::saved).collect();
        eventually(Duration::from_secs(60), "the writers go on", || all(&after));
        let (said, _) = run(&host, &drill[1]);
        assert!(said.starts_with("The backup is whole. Compared with the source as it was: "), "{said}");
        assert!(said.contains("3 document heads"), "it says what it compared: {said}");
        before
    });
    let secret = std::fs::metadata(&backup).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&secret.permissions()) & 0o077, 0, "it is its owner's alone");

    let (said, _) = run(&restored, &drill[2]);
    assert!(said.starts_with("Restored 3 documents"), "{said}");
    assert_eq!(drill[3][0], "serve");
    restored.start();
    for (writer, before) in writers.iter().zip(before) {
        let text = text_of(&restored.base(), &writer.document, &token);
        let typed: String = (0..writer.saved()).map(letter).collect();
        assert!(typed.starts_with(&text), "the restored document is a moment of the original's: {text}");
        assert!(text.len() as u64 >= before, "{} of {before} letters saved before the backup are there", text.len());
        let more = typing(99, 0, "!");
        let path = format!("/v1/documents/{}/update", writer.document);
        let written = call(&restored.base(), "POST", &path, &token, "application/octet-stream", &more);
        assert_eq!(written.0, 200, "and it can be written: {}", written.1);
    }
    assert_ne!(host.cluster(), restored.cluster());

    let left = std::fs::read_dir(&temporary).unwrap().count();
    assert_eq!(left, 0, "a verification leaves nothing behind");
    // A stopped database can be backed up, too, also one whose record is of a version that made no role for it.
    host.terminate();
    let record = host.data().join("embedded.json");
    let mut recorded: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    assert!(recorded.as_object_mut().unwrap().remove("backup_password").is_some());
    std::fs::write(&record, recorded.to_string()).unwrap();
    let second = host.directory().join("stopped");
    let (said, _) = run(&host, &["backup", second.to_str().unwrap()]);
    assert!(said.starts_with("Backed up 3 documents"), "{said}");
    host.assert_no_postgres("PostgreSQL is stopped again");
}

/// Of a backup: changes what its manifest says.
fn falsify(backup: &Path, change: impl FnOnce(&mut Value)) {
    let path = backup.join("manifest.json");
    let mut manifest = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    std::fs::write(path, manifest.to_string()).unwrap();
}

#[test]
fn a_database_of_ones_own_is_backed_up_by_a_role_that_reads_all_and_by_no_other() {
    let cluster = Cluster::start();
    let urls = cluster.database("source");
    let backup_url = format!("postgres://contextnexus_backup:secret@127.0.0.1:{}/source", cluster.port);
    let mut host = Host::private();
    host.set("DATABASE_URL", &urls.application);
    host.set("DATABASE_OWNER_URL", &urls.owner);
    host.set("CONTEXTNEXUS_DEMO__ENABLED", "true");
    host.start();
    let place = host.directory().join("backup");
    let place = place.to_str().unwrap();
    let backup = ["backup", place];

    let line = host.refused(&backup);
    assert!(
        line.contains("create role contextnexus_backup login bypassrls") && line.contains("DATABASE_BACKUP_URL"),
        "{line}"
    );
    let doctor = |host: &Host| String::from_utf8(host.command(&["doctor"]).output().unwrap().stdout).unwrap();
    let report = doctor(&host);
    assert!(report.lines().any(|line| line.starts_with("WARN backup role") && line.contains("bypassrls")), "{report}");
    // The role that owns the tables is bound by the policies on them: pg_dump would fail, or leave out every row.
    host.set("DATABASE_BACKUP_URL", &urls.owner);
    let line = host.refused(&backup);
    assert!(line.contains("is bound by row-level security"), "{line}");
    assert!(doctor(&host).lines().any(|line| line.starts_with("FAIL backup role")));
    assert!(!Path::new(place).exists(), "nothing was begun");

    execute(
        &urls.superuser,
        "create role contextnexus_backup login bypassrls password 'secret' in role pg_read_all_data",
    );
    host.set("DATABASE_BACKUP_URL", &backup_url);
    assert!(doctor(&host).lines().any(|line| line.starts_with("OK   backup role")));
    let (said, _) = run(&host, &backup);
    assert!(said.starts_with("Backed up 0 documents"), "{said}");
    let line = host.refused(&backup);
    assert!(line.contains("is there already"), "{line}");
    run(&host, &["verify", place]);

    // Into a database that is not empty only on request, and never under a server.
    let line = host.refused(&["restore", place]);
    assert!(line.contains("the database is not empty") && line.contains("--replace"), "{line}");
    let line = host.refused(&["restore", "--replace", place]);
    assert!(line.contains("other sessions are open in the database: stop every server"), "{line}");
    host.terminate();
    execute(&urls.superuser, "update users set name = 'changed since'");
    run(&host, &["restore", "--replace", place]);
    assert_eq!(number(&urls.superuser, "select count(*) from users where name = 'Demo Admin'"), 1);
    host.start();
    let credentials = host.credentials();
    assert_eq!(host.get_as("/v1/me", credentials["token"].as_str().unwrap()).0, 200, "it serves again");
    host.terminate();

    // Into another one.
    let target = cluster.database("target");
    host.set("DATABASE_URL", &target.application);
    host.set("DATABASE_OWNER_URL", &target.owner);
    let (_, progress) = run(&host, &["restore", place]);
    assert!(progress.contains("Not compared with the backup"), "the backup role's address leads elsewhere: {progress}");
    assert_eq!(number(&target.superuser, "select count(*) from tenants"), 1);
    host.start();
    assert_eq!(host.get_as("/v1/me", credentials["token"].as_str().unwrap()).0, 200);
}

#[test]
fn a_backup_that_is_damaged_or_of_another_schema_or_not_what_was_backed_up_is_refused() {
    let (mut host, fresh) = (Host::open(), Host::open());
    let place = host.directory().join("backup");
    let there = place.to_str().unwrap();
    let line = fresh.refused(&["backup", there]);
    assert!(line.contains("there is no database in"), "{line}");
    assert!(!fresh.data().exists(), "and none is made");
    host.start();
    run(&host, &["backup", there]);
    let line = fresh.refused(&["verify", host.directory().to_str().unwrap()]);
    assert!(line.contains("is no backup"), "{line}");
    let line = host.refused(&["restore", "--replace", there]);
    assert!(line.contains("another ContextNexus server"), "an embedded database in use: {line}");

    let manifest = std::fs::read(place.join("manifest.json")).unwrap();
    let rows = |manifest: &Value| {
        manifest["tables"].as_array().unwrap().iter().position(|table| table["name"] == "users").unwrap()
    };
    falsify(&place, |manifest| {
        let users = rows(manifest);
        manifest["tables"][users]["rows"] = json!(7);
    });
    let line = fresh.refused(&["verify", there]);
    assert!(line.contains("the table users has 1 rows, the source had 7; do not rely on this backup"), "{line}");
    std::fs::write(place.join("manifest.json"), &manifest).unwrap();

    falsify(&place, |manifest| manifest["schema"] = json!(103));
    let line = fresh.refused(&["restore", there]);
    assert!(line.contains("this backup is at schema 103, and this contextnexus needs"), "{line}");
    falsify(&place, |manifest| manifest["schema"] = json!(22));
    let line = fresh.refused(&["restore", there]);
    assert!(line.contains("this backup is at schema 22, of a ContextNexus from before the first release"), "{line}");
    assert!(line.contains("restore it with the version that made it"), "{line}");
    assert!(!fresh.data().exists(), "no database is made for what is not restored");
    std::fs::write(place.join("manifest.json"), &manifest).unwrap();

    let dump = place.join("database.dump");
    let mut bytes = std::fs::read(&dump).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&dump, &bytes).unwrap();
    let line = fresh.refused(&["verify", there]);
    assert!(line.contains("is damaged: it is not the file that was backed up (other contents)"), "{line}");
    bytes.truncate(middle);
    std::fs::write(&dump, &bytes).unwrap();
    let line = fresh.refused(&["restore", there]);
    assert!(line.contains("is damaged") && line.contains("bytes instead of"), "{line}");
}
