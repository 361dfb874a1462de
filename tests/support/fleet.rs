//! A process full of real clients, in Node (`tests/interop/fleet.mjs`) or Python (`pycrdt_fleet.py` next to it), driven from a test.

use super::process::{PATIENCE, tied};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The stock clients: y-websocket 3.1, @y/websocket 4.0.0-3, Hocuspocus providers 2.15, 3.4, 4.8, Y-Sweet 0.9.
pub const KINDS: [&str; 6] =
    ["y-websocket-3", "y-websocket-4", "hocuspocus-2", "hocuspocus-3", "hocuspocus-4", "y-sweet-0.9"];

/// Every JavaScript client that is promised to work: also y-websocket 1.5 and 2.1, y-partyserver 2.2, Hocuspocus 4.3 and Y-Sweet 0.8.
pub const FAMILIES: [&str; 11] = [
    "y-websocket-1",
    "y-websocket-2",
    "y-websocket-3",
    "y-websocket-4",
    "party",
    "hocuspocus-2",
    "hocuspocus-3",
    "hocuspocus-4.3",
    "hocuspocus-4",
    "y-sweet-0.8",
    "y-sweet-0.9",
];

pub fn interop_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

#[derive(Default)]
struct Shared {
    waiting: HashMap<u64, Sender<Result<Value, String>>>,
    uncaught: Vec<String>,
}

pub struct Fleet {
    child: Child,
    stdin: ChildStdin,
    next: u64,
    shared: Arc<Mutex<Shared>>,
    /// Named in every failure, where the test runs from one.
    pub seed: Option<u64>,
}

/// An answer that is still to come.
pub struct Pending {
    what: String,
    receiver: Receiver<Result<Value, String>>,
}

impl Pending {
    pub fn result(self) -> Result<Value, String> {
        self.receiver
            .recv_timeout(Duration::from_secs(900))
            .unwrap_or_else(|error| Err(format!("no answer to {}: {error}", self.what)))
    }
}

impl Fleet {
    pub fn start() -> Self {
        assert!(
            interop_dir().join("node_modules").is_dir(),
            "the JavaScript clients are not installed: run tests/interop/setup.sh"
        );
        Self::run(Path::new("node"), "fleet.mjs")
    }

    /// pycrdt: of the commands it knows those that `pycrdt_fleet.py` lists, and it has one kind of client.
    pub fn python() -> Self {
        let python = interop_dir().join(".venv/bin/python");
        assert!(python.exists(), "pycrdt is not installed: run tests/interop/setup.sh");
        Self::run(&python, "pycrdt_fleet.py")
    }

    fn run(interpreter: &Path, program: &str) -> Self {
        let mut child = tied(interpreter)
            .arg(interop_dir().join(program))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("CNX_VERBOSE").is_some() { Stdio::inherit() } else { Stdio::null() })
            .spawn()
            .expect("the interpreter starts");
        let stdin = child.stdin.take().expect("piped");
        let stdout = child.stdout.take().expect("piped");
        let shared = Arc::new(Mutex::new(Shared::default()));
        let reader = Arc::clone(&shared);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(answer) = serde_json::from_str::<Value>(&line) else { continue };
                // A test that failed on what stands here may have left it poisoned.
                let mut shared = reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if let Some(error) = answer.get("event").and(answer.get("error")) {
                    shared.uncaught.push(error.as_str().unwrap_or_default().to_owned());
                } else if let Some(waiter) = answer["id"].as_u64().and_then(|id| shared.waiting.remove(&id)) {
                    let result = match answer.get("error") {
                        Some(error) => Err(error.as_str().unwrap_or_default().to_owned()),
                        None => Ok(answer["ok"].clone()),
                    };
                    let _ = waiter.send(result);
                }
            }
            reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner).waiting.clear();
        });
        Self { child, stdin, next: 0, shared, seed: None }
    }

    pub fn with_seed(seed: u64) -> Self {
        let mut fleet = Self::start();
        fleet.seed = Some(seed);
        fleet
    }

    /// Sends a command; the answer is waited for elsewhere.
    pub fn send(&mut self, command: &str, arguments: Value) -> Pending {
        self.next += 1;
        let mut request = match arguments {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        request.insert("id".into(), self.next.into());
        request.insert("do".into(), command.into());
        let (sender, receiver) = channel();
        self.shared.lock().expect("no panic under the lock").waiting.insert(self.next, sender);
        writeln!(self.stdin, "{}", Value::Object(request)).expect("the fleet hears");
        Pending { what: command.to_owned(), receiver }
    }

    /// Sends a command and waits; an error or an uncaught exception in any client fails the test.
    pub fn call(&mut self, command: &str, arguments: Value) -> Value {
        let pending = self.send(command, arguments.clone());
        self.finish(pending, &arguments)
    }

    pub fn finish(&mut self, pending: Pending, arguments: &Value) -> Value {
        let command = pending.what.clone();
        let result = pending.result();
        let arguments: String = arguments.to_string().chars().take(200).collect();
        self.assert_clean();
        result.unwrap_or_else(|error| panic!("{command} {arguments}: {error}{}", self.seed_text()))
    }

    pub fn seed_text(&self) -> String {
        self.seed.map(|seed| format!(" (CNX_SEED={seed})")).unwrap_or_default()
    }

    /// No client threw.
    pub fn assert_clean(&self) {
        let uncaught = self.shared.lock().expect("no panic under the lock").uncaught.clone();
        assert!(uncaught.is_empty(), "a client threw: {}{}", uncaught.join("\n"), self.seed_text());
    }

    pub fn open(&mut self, client: &str, kind: &str, base: &str, room: &str, token: &str) -> u64 {
        self.open_with(client, kind, base, room, token, json!({}))
    }

    pub fn open_with(&mut self, client: &str, kind: &str, base: &str, room: &str, token: &str, options: Value) -> u64 {
        let mut arguments =
            json!({ "client": client, "kind": kind, "base": base, "room": room, "token": token, "user": client });
        if let (Value::Object(all), Value::Object(more)) = (&mut arguments, options) {
            all.extend(more);
        }
        self.call("open", arguments)["clientId"].as_u64().expect("a client id")
    }

    /// Waits until the clients named (all, when none is) are `synced`, `saved`, `connected`, `disconnected`, `denied` or `refused`,
    /// [`PATIENCE`] at least.
    pub fn wait(&mut self, clients: &[&str], until: &str, within: Duration) {
        let mut arguments = json!({ "until": until, "timeoutMs": within.max(PATIENCE).as_millis() as u64 });
        if !clients.is_empty() {
            arguments["clients"] = json!(clients);
        }
        self.call("wait", arguments);
    }

    pub fn status(&mut self, client: &str) -> Value {
        self.call("status", json!({ "client": client }))
    }

    pub fn count(&mut self, client: &str, what: &str) -> u64 {
        self.status(client)["counts"][what].as_u64().expect("a count")
    }

    /// SIGKILL: none of its clients ever returns.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill();
    }
}
