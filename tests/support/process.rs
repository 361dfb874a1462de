//! Child processes that never outlive the test, however it ends.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a test waits for what must come. Far longer than it takes: a machine may be slow, and no verdict is about that. What is not
/// there by then is taken never to come.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A program that the kernel kills when the thread that started it ends. Start it from the test's own thread.
pub fn tied(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// The same, as the unprivileged user `postgres` where the test runs as root: PostgreSQL refuses root.
pub fn tied_unprivileged(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]);
    }
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id runs");
    output.stdout.starts_with(b"0\n")
}

/// A running child and what it said. Killed when dropped.
pub struct Running {
    pub name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Running {
    /// Starts it and collects its stdout and stderr.
    pub fn start(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let outputs: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
        for output in outputs {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    lines.lock().expect("no panic under the lock").push(line);
                }
            });
        }
        Self { name: name.to_owned(), child, lines }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no panic under the lock").clone()
    }

    /// The last lines, for a failure message.
    pub fn tail(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Waits for a line that contains `needle`, [`PATIENCE`] at least.
    pub fn wait_for_line(&mut self, needle: &str, within: Duration) -> String {
        let within = within.max(PATIENCE);
        let deadline = Instant::now() + within;
        loop {
            if let Some(line) = self.lines().into_iter().find(|line| line.contains(needle)) {
                return line;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                std::thread::sleep(Duration::from_millis(50));
                panic!("{} ended with {status} before it said `{needle}`:\n{}", self.name, self.tail());
            }
            assert!(Instant::now() < deadline, "{} did not say `{needle}` in {within:?}:\n{}", self.name, self.tail());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn signal(&self, signal: &str) {
        signal_pid(self.pid(), signal);
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end that something else brought about, [`PATIENCE`] at least.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let within = within.max(PATIENCE);
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "{} did not end in {within:?}:\n{}", self.name, self.tail());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A stopped process dies of SIGKILL too.
        self.kill();
    }
}

pub fn signal_pid(pid: u32, signal: &str) {
    let status = Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().expect("kill runs");
    // A worker of PostgreSQL may end between being listed and being signalled.
    let is_gone = !std::path::Path::new("/proc").join(pid.to_string()).exists();
    assert!(status.success() || is_gone, "kill -{signal} {pid} failed");
}

/// CPU seconds of a process, with its ended children where asked for.
pub fn cpu_of(process: &str, with_children: bool) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Behind the name in parentheses: state is field 3, utime 14, stime 15, cutime 16, cstime 17; 100 ticks a second.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    let ticks: u64 = fields.take(if with_children { 4 } else { 2 }).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port()
}

/// Polls until `done`.
pub fn eventually(within: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !done() {
        assert!(Instant::now() < deadline, "not in {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The kernel still calls the connection between this server port and this client port established, seen from the server's side.
pub fn is_established(server_port: u16, client_port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let mut port = || u16::from_str_radix(fields.next()?.rsplit(':').next()?, 16).ok();
        let ends = (port(), port());
        ends == (Some(server_port), Some(client_port)) && fields.next() == Some("01")
    })
}
