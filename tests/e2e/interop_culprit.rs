//! A row that kills the process while it is folded kills it once (docs/yrs-hazards.md, "When the process dies"). The
//! next start finds out which row it was, in a child process, and takes it out. A process that is killed in the middle
//! of a fold accuses nobody.
//!
//! The server here is the server's own code, but for a [`Killer`] in front of yrs, because the gate lets nothing
//! through that kills yrs itself.

use crate::support::killer::{self, Killer};
use crate::support::planted;
use crate::support::process::{PATIENCE, Running, eventually, tied};
use crate::support::rest::typing;
use crate::support::server::Options;
use crate::support::world::World;
use contextnexus::app::Seams;
use contextnexus::folding::trial;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::Duration;

/// Set where this test binary is to be the planted server.
const PLANTED: &str = "CNX_PLANTED_CULPRIT";

/// Not a test: the planted server, which the tests below start by this name.
#[test]
#[ignore = "the planted server itself; the tests of this file run it"]
fn planted_server() {
    planted::serve(PLANTED, Seams { witness: Killer::over, trial: planted_trial_command, ..Seams::default() });
}

/// Not a test: the child in which it tries rows.
#[test]
#[ignore = "the child of the planted server"]
fn planted_trial() {
    if std::env::var_os(killer::TRIAL).is_some() {
        trial::child(Killer::over);
    }
}

fn planted_trial_command() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this test binary has a path"));
    command.args(["--ignored", "--exact", "--nocapture", "interop_culprit::planted_trial"]);
    command.env_clear().env(killer::TRIAL, "1");
    command
}

/// A world whose server is planted.
struct Planted {
    world: World,
    running: Option<Running>,
    document: String,
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{:?}", String::from_utf8_lossy(&self.body)))
    }
}

impl Planted {
    fn start(environment: &[(&str, &str)]) -> Self {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        // Makes the tenant, the token and the choice of a port; then its place is taken.
        let mut world = World::start_with(Options { environment, ..Options::default() });
        world.server.terminate(Duration::from_secs(20));
        let mut planted = Self { world, running: None, document: String::new() };
        planted.start_again();
        let project = planted.ask("GET", "/v1/projects", &[]).expect("it serves").json()["items"][0]["id"].clone();
        let document = json!({ "project_id": project, "name": "poisoned" }).to_string();
        let made = planted.ask("POST", "/v1/documents", document.as_bytes()).expect("it serves").json();
        planted.document = made["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        planted
    }

    /// Starts the planted server on the address of the first one.
    fn start_again(&mut self) -> &mut Running {
        let mut program = tied(std::env::current_exe().expect("this test binary has a path"));
        program.args(["--ignored", "--exact", "--nocapture", "interop_culprit::planted_server"]).env(PLANTED, "1");
        let mut running = Running::start("planted", self.world.server.settings(program));
        running.wait_for_line("ContextNexus is ready at ", Duration::from_secs(60));
        self.running.insert(running)
    }

    /// What the server answers; `None` when the connection breaks.
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
        let (server, token) = (&self.world.server.base, &self.world.server.token);
        let kind = if body.first() == Some(&b'{') { "application/json" } else { "application/octet-stream" };
        let mut socket = TcpStream::connect(server.trim_start_matches("http://")).ok()?;
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: test\r\nAuthorization: Bearer {token}\r\nAccept: text/plain, */*;q=0.5\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(&[head.as_bytes(), body].concat()).ok()?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n")?;
        let status = std::str::from_utf8(&answer).ok().and_then(|text| text.split(' ').nth(1)?.parse().ok());
        let status = status.or_else(|| String::from_utf8_lossy(&answer[..end]).split(' ').nth(1)?.parse().ok())?;
        Some(Answer { status, body: answer.split_off(end + 4) })
    }

    fn write(&self, client: u64, clock: u64, text: &str) -> Option<Answer> {
        self.ask("POST", &format!("/v1/documents/{}/update", self.document), &typing(client, clock, text))
    }

    /// The document's text.
    fn text(&self) -> String {
        let path = format!("/v1/documents/{}/content", self.document);
        let answer = self.ask("GET", &path, &[]).expect("it serves");
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        String::from_utf8(answer.body).expect("text")
    }

    fn quarantined(&self) -> Vec<Value> {
        let path = format!("/v1/documents/{}/quarantine", self.document);
        self.ask("GET", &path, &[]).expect("it serves").json()["items"].as_array().expect("a page").clone()
    }

    /// Waits until the server has died, and answers by which signal.
    fn signal(&mut self) -> i32 {
        let status = self.running.take().expect("it was started").wait(Duration::from_secs(60));
        status.signal().unwrap_or_else(|| panic!("it ended by itself: {status}"))
    }

    /// Sends what kills the server by `signal`, and has the next one convict it, and it alone.
    fn convicts(mut self, mark: &str, signal: i32, reason: &str) {
        assert_eq!(self.write(1, 0, "before ").expect("it serves").status, 200);
        assert!(self.write(2, 0, mark).is_none(), "nobody is told of what was not folded");
        assert_eq!(self.signal(), signal);

        let running = self.start_again();
        assert!(running.wait_for_line("it is tried", Duration::from_secs(20)).contains("was being folded"));
        assert_eq!(self.text(), "before ", "everything else is served");
        let quarantined = self.quarantined();
        assert_eq!(quarantined.len(), 1, "{quarantined:?}");
        assert_eq!((&quarantined[0]["reason"], &quarantined[0]["seq"]), (&json!(reason), &json!(2)));
        let id = quarantined[0]["id"].as_str().expect("an id");
        let path = format!("/v1/documents/{}/quarantine/{id}", self.document);
        assert_eq!(self.ask("GET", &path, &[]).expect("it serves").body, typing(2, 0, mark), "its sender has it back");

        assert_eq!(self.write(2, 0, mark).expect("it serves").status, 400, "it is not let in again");
        assert_eq!(self.write(3, 0, "after").expect("it serves").status, 200);
        assert!(self.text().contains("after"));
        assert!(self.running.as_mut().is_some_and(Running::is_alive), "it died once, and once only");
    }
}

#[test]
fn a_row_that_overflows_the_stack_kills_one_server_once() {
    Planted::start(&[]).convicts(killer::OVERFLOWS, 6, "fold_died");
}

#[test]
fn a_row_that_makes_yrs_use_freed_memory_kills_one_server_once() {
    Planted::start(&[]).convicts(killer::SEGFAULTS, 11, "fold_died");
}

#[test]
fn a_row_that_is_folded_for_ever_is_noticed_and_convicted_when_it_overruns_twice_more() {
    Planted::start(&[("CONTEXTNEXUS_FOLDING__CPU_S_MAX", "1")]).convicts(killer::SPINS, 6, "fold_overran");
}

/// Issue 12: folds of which each was allowed added up to a conviction of whichever was folded when the sum ran out.
#[test]
fn each_fold_is_tried_by_itself_as_it_was_lived_through() {
    let mut planted = Planted::start(&[("CONTEXTNEXUS_FOLDING__CPU_S_MAX", "1")]);
    for client in 1..=5 {
        assert_eq!(planted.write(client, 0, killer::BURNS).expect("it may take so long").status, 200);
    }
    assert!(planted.write(6, 0, killer::SPINS).is_none());
    assert_eq!(planted.signal(), 6);

    let running = planted.start_again();
    running.wait_for_line("it is tried", Duration::from_secs(20));
    let text = planted.text();
    assert_eq!(text.matches(killer::BURNS).count(), 5, "{text}");
    let quarantined: Vec<_> = planted.quarantined().iter().map(|update| update["seq"].clone()).collect();
    assert_eq!(quarantined, [json!(6)], "the one that does not end, and no other");
}

#[test]
fn a_kill_in_the_middle_of_a_fold_accuses_nobody() {
    let mut planted = Planted::start(&[("CONTEXTNEXUS_FOLDING__CPU_S_MAX", "1")]);
    assert_eq!(planted.write(1, 0, "before ").expect("it serves").status, 200);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| planted.write(2, 0, killer::WAITS));
        // Committed, and being folded for longer than a fold may take of CPU time: it takes none, so it is let be.
        eventually(PATIENCE, "the row is committed", || planted.seq() == 2);
        std::thread::sleep(Duration::from_secs(3));
        planted.running.as_ref().expect("it runs").signal("KILL");
        assert!(waiting.join().expect("no panic").is_none());
    });
    assert_eq!(planted.signal(), 9);

    planted.world.server.restart(); // the server itself, to whom it is text
    eventually(PATIENCE, "it was tried", || planted.world.server.log().iter().any(|line| line.contains("is sound")));
    let text = planted.text();
    assert!(text.contains("before ") && text.contains(killer::WAITS), "{text}");
    assert_eq!(planted.quarantined(), Vec::<Value>::new());
}

/// Whoever has found one way through the gate will use it again (docs/yrs-hazards.md, "After a panic").
#[test]
fn two_rows_that_panic_close_a_document_for_writing_until_an_administrator_opens_it() {
    let planted = Planted::start(&[]);
    let about = format!("/v1/documents/{}", planted.document);
    let since = || planted.ask("GET", &about, &[]).expect("it serves").json()["read_only_since"].clone();
    assert_eq!(planted.write(1, 0, "before ").expect("it serves").status, 200);
    for client in [2, 3] {
        assert_eq!(since(), Value::Null, "once is an accident");
        let answer = planted.write(client, 0, killer::PANICS).expect("a panic ends no process");
        assert_eq!(answer.status, 503, "it was not taken");
        eventually(PATIENCE, "it is quarantined", || planted.quarantined().len() as u64 == client - 1);
    }
    assert!(since().is_string(), "twice is none");
    let refused = planted.write(4, 0, "after").expect("it serves");
    assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("read_only")));
    assert_eq!(planted.text(), "before ");
    let metrics = planted.ask("GET", "/metrics", &[]).expect("it serves").body;
    let metrics = String::from_utf8(metrics).expect("text");
    assert!(metrics.lines().any(|line| line == "contextnexus_documents_closed_for_writing_total 1"), "{metrics}");

    assert_eq!(
        planted.ask("POST", &format!("{about}/reopen"), &[]).expect("it serves").json()["read_only_since"],
        Value::Null
    );
    assert_eq!(planted.write(4, 0, "after").expect("it serves").status, 200);
    assert!(planted.text().contains("after"));
}

impl Planted {
    /// The number of the document's last row, asked of PostgreSQL.
    fn seq(&self) -> u64 {
        let sql = "select seq::text from document_heads where document_id = $1::text::uuid";
        self.world.text(sql, &self.document).parse().expect("a number")
    }
}
