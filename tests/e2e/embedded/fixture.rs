//! A machine on which nobody has configured anything, as far as one test can make it one.

use crate::support::process::{PATIENCE, Running, eventually, is_root, tied};
use crate::support::server::binary;
use serde_json::Value;
use sqlx::{Connection, PgConnection, Row};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// An account that exists everywhere and owns nothing.
const PLAIN_USER: &str = "nobody";

pub struct Host {
    /// Unmounted after PostgreSQL was stopped and before the directory goes.
    disk: Option<Disk>,
    directory: tempfile::TempDir,
    program: PathBuf,
    environment: Vec<(String, String)>,
    plain: bool,
    running: Option<Running>,
}

impl Host {
    /// The data directory's parent is the starting user's alone (0700).
    pub fn private() -> Self {
        let directory = tempfile::Builder::new().prefix("cnx-host-").tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { disk: None, directory, program: binary(), environment: Vec::new(), plain: false, running: None }
    }

    /// Everybody may pass the parent, so PostgreSQL's files are in the data directory whoever starts it.
    pub fn open() -> Self {
        let host = Self::private();
        std::fs::set_permissions(host.directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        host
    }

    /// Started by a user without any rights.
    pub fn as_plain_user() -> Self {
        let mut host = Self::open();
        host.plain = is_root();
        if host.plain {
            let user = std::fs::read_to_string("/etc/passwd").unwrap();
            let line = user.lines().find(|line| line.starts_with(&format!("{PLAIN_USER}:"))).unwrap().to_owned();
            let number = |at: usize| line.split(':').nth(at).unwrap().parse().unwrap();
            chown(host.directory.path(), Some(number(2)), Some(number(3))).unwrap();
            // The build directory may be closed to that user.
            host.program = host.directory.path().join("contextnexus");
            std::fs::copy(binary(), &host.program).unwrap();
        }
        host
    }

    /// Puts the data directory on a small disk.
    pub fn mount_disk(&mut self, size: &str) {
        self.disk = Some(Disk::mount(self.data(), size));
    }

    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("a disk is mounted")
    }

    /// A setting, as environment.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = if self.plain {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", PLAIN_USER, "--regid", "nogroup", "--clear-groups", "--pdeathsig", "KILL", "--"]);
            command.arg(&self.program);
            command
        } else {
            tied(&self.program)
        };
        command.args(arguments).current_dir(self.directory.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("CONTEXTNEXUS_DATA_DIR", self.data()).env("CONTEXTNEXUS_LISTEN", "127.0.0.1:0");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the server and waits until it is ready.
    pub fn start(&mut self) {
        self.launch();
        self.wait_until_ready();
    }

    /// Starts the server.
    pub fn launch(&mut self) {
        self.running = Some(Running::start("contextnexus", self.command(&[])));
    }

    /// After [`launch`](Self::launch).
    pub fn wait_until_ready(&mut self) {
        let running = self.running.as_mut().expect("the server runs");
        running.wait_for_line("ContextNexus is ready at ", Duration::from_secs(120));
    }

    /// Of the running server, which may have printed it already.
    pub fn wait_for_line(&mut self, text: &str) {
        self.running.as_mut().expect("the server runs").wait_for_line(text, Duration::from_secs(20));
    }

    /// Copies or moves this host's data directory to where another host has its own.
    pub fn give_data(&self, how: &[&str], other: &Host) {
        let done = Command::new(how[0]).args(&how[1..]).arg(self.data()).arg(other.data()).status().unwrap();
        assert!(done.success(), "{how:?}");
    }

    /// Starts what must not start: the one line that it ends with. Nothing else may be on stderr but progress and logs.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "it ends with an error:\n{stdout}{stderr}");
        assert_eq!(stdout, "", "nothing is ready");
        let complaints: Vec<_> = stderr.lines().filter(|line| line.starts_with("contextnexus: ")).collect();
        assert_eq!(complaints.len(), 1, "one clear line:\n{stderr}");
        assert_eq!(stderr.lines().last(), Some(complaints[0]), "and it is the last:\n{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        complaints[0].to_owned()
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the server runs")
    }

    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    pub fn log(&self) -> String {
        self.running().lines().join("\n")
    }

    pub fn said(&self, text: &str) -> bool {
        self.log().contains(text)
    }

    /// `http://127.0.0.1:PORT`
    pub fn base(&self) -> String {
        let line =
            self.running().lines().into_iter().find(|line| line.starts_with("ContextNexus is ready at ")).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    }

    /// Status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.ask(path, "")
    }

    /// The same, with a bearer token.
    pub fn get_as(&self, path: &str, token: &str) -> (u16, String) {
        self.ask(path, &format!("Authorization: Bearer {token}\r\n"))
    }

    fn ask(&self, path: &str, header: &str) -> (u16, String) {
        let base = self.base();
        let authority = base.trim_start_matches("http://");
        let mut stream = TcpStream::connect(authority).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {authority}\r\n{header}Connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("the server runs");
        running.signal("TERM");
        running.wait(Duration::from_secs(20))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.running.take().expect("the server runs").kill();
    }

    fn json(&self, file: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.data().join(file)).unwrap()).unwrap()
    }

    pub fn credentials(&self) -> Value {
        self.json("credentials.json")
    }

    pub fn home(&self) -> PathBuf {
        // Relative to the data directory where it is inside.
        self.data().canonicalize().unwrap().join(self.json("embedded.json")["home"].as_str().unwrap())
    }

    pub fn cluster(&self) -> PathBuf {
        self.home().join("cluster")
    }

    pub fn port(&self) -> u64 {
        self.json("embedded.json")["port"].as_u64().unwrap()
    }

    /// PostgreSQL's first process.
    pub fn postmaster(&self) -> u32 {
        let text = std::fs::read_to_string(self.cluster().join("postmaster.pid")).unwrap();
        text.lines().next().unwrap().trim().parse().unwrap()
    }

    /// All of PostgreSQL's processes.
    pub fn postgres_processes(&self) -> Vec<u32> {
        let cluster = self.cluster();
        let pids =
            std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &u32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == cluster))
            .collect()
    }

    pub fn is_postgres_running(&self) -> bool {
        !self.postgres_processes().is_empty()
    }

    /// Its last process, the one that writes logs, ends a moment after the first.
    pub fn assert_no_postgres(&self, because: &str) {
        eventually(PATIENCE, because, || !self.is_postgres_running());
    }

    fn url(&self, role: &str, password_of: &str) -> String {
        let password = self.json("embedded.json")[password_of].as_str().unwrap().to_owned();
        format!("postgres://{role}:{password}@127.0.0.1:{}/contextnexus", self.port())
    }

    /// The texts of one row, as the role that serves.
    pub fn sql_row(&self, query: &'static str) -> Vec<String> {
        let url = self.url("contextnexus_server", "application_password");
        block_on(async {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            let row = sqlx::query(query).fetch_one(&mut connection).await.unwrap();
            (0..row.len()).map(|column| row.get::<String, _>(column)).collect()
        })
    }

    pub fn is_serving_sql(&self) -> bool {
        let url = self.url("contextnexus_server", "application_password");
        block_on(async { PgConnection::connect(&url).await.is_ok() })
    }

    /// Runs a statement as the role that owns the tables.
    pub fn sql_as_owner(&self, statement: &'static str) {
        execute(&self.url("contextnexus_owner", "owner_password"), statement);
    }

    pub fn refuses_a_wrong_password(&self) -> bool {
        let url = format!("postgres://postgres:wrong@127.0.0.1:{}/postgres", self.port());
        block_on(async {
            PgConnection::connect(&url)
                .await
                .is_err_and(|error| error.to_string().contains("password authentication failed"))
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.running = None;
        if !self.data().join("embedded.json").exists() {
            return;
        }
        // PostgreSQL outlives a killed server by design; it must not outlive the test.
        for pid in self.postgres_processes() {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        let home = self.home();
        if home.starts_with("/var/lib/contextnexus/") {
            let _ = std::fs::remove_dir_all(home);
        }
    }
}

/// Signals all of PostgreSQL's processes. One that ends at this moment is no matter.
pub fn signal_all(host: &Host, signal: &str) {
    let pids = host.postgres_processes();
    assert!(!pids.is_empty(), "PostgreSQL runs");
    let arguments = pids.iter().map(u32::to_string);
    let _ = Command::new("kill").arg(format!("-{signal}")).args(arguments).stderr(Stdio::null()).status().unwrap();
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A small disk under the data directory.
pub struct Disk(PathBuf);

impl Disk {
    fn mount(place: PathBuf, size: &str) -> Self {
        std::fs::create_dir(&place).unwrap();
        let options = format!("size={size},mode=0711");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&place).status().unwrap();
        assert!(mounted.success(), "a tmpfs can be mounted");
        Self(place)
    }

    pub fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }

    /// To the last byte: whoever writes next fails.
    pub fn fill(&self) {
        let block = vec![0_u8; 1 << 20];
        let mut file = std::fs::File::create(self.0.join("postgresql/ballast")).unwrap();
        while file.write(&block).is_ok_and(|written| written > 0) {}
    }

    pub fn empty(&self) {
        std::fs::remove_file(self.0.join("postgresql/ballast")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Runs a statement at this address.
pub fn execute(url: &str, statement: &'static str) {
    block_on(async {
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    });
}
