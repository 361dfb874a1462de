//! TLS that ends in the server: HTTP and WebSockets, limits by the client's own address, and clients that do not speak it.

use crate::support::process::PATIENCE;
use crate::support::raw;
use crate::support::server::{Options, TestServer};
use crate::support::world::World;
use contextnexus_gate::lib0::write_var_bytes;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const HERE: &str = "127.0.0.1";
/// Another client on the same machine.
const THERE: &str = "127.0.0.2";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

/// A server that speaks TLS, with a certificate of its own to be replaced.
struct Node {
    world: World,
    files: tempfile::TempDir,
}

impl Node {
    fn start(settings: &[(&str, &str)]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let node = Self { world: World::start_with(options(&files, settings)), files };
        assert!(node.world.base().starts_with("https://"), "{}", node.world.base());
        node
    }

    fn server(&self) -> &TestServer {
        &self.world.server
    }

    fn address(&self) -> SocketAddr {
        self.server().base.trim_start_matches("https://").parse().unwrap()
    }

    fn connect(&self, from: &str) -> TcpStream {
        let from: IpAddr = from.parse().unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.connect(&self.address().into()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.into()
    }

    fn tls(&self, from: &str, trusted: &str) -> Tls {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(fixture(trusted)).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let session = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
        Tls(StreamOwned::new(session, self.connect(from)))
    }

    /// An upgraded connection to `room`, and the head of what was answered.
    fn open(&self, from: &str, room: &str) -> (u16, String, Tls) {
        let mut client = self.tls(from, "first.crt");
        let path = format!("/yjs/{room}?token={}", self.server().token);
        let (status, head) = client.ask(&path, raw::UPGRADE);
        (status, head, client)
    }

    fn joined(&self, room: &str) -> Tls {
        let (status, head, mut client) = self.open(HERE, room);
        assert_eq!(status, 101, "{head}");
        client.send(&[0, 0, 1, 0]); // step 1 of an empty document
        client.wait_for(&[0, 1]);
        client
    }
}

fn options(files: &tempfile::TempDir, settings: &[(&str, &str)]) -> Options {
    let (certificate, key) = (files.path().join("tls.crt"), files.path().join("tls.key"));
    std::fs::copy(fixture("first.crt"), &certificate).unwrap();
    std::fs::copy(fixture("first.key"), &key).unwrap();
    let own = [
        ("CONTEXTNEXUS_SERVER__TLS_CERTIFICATE".to_owned(), certificate.display().to_string()),
        ("CONTEXTNEXUS_SERVER__TLS_KEY".to_owned(), key.display().to_string()),
    ];
    let more = settings.iter().map(|(name, value)| (format!("CONTEXTNEXUS_{name}"), (*value).to_owned()));
    Options { environment: own.into_iter().chain(more).collect(), ..Options::default() }
}

struct Tls(StreamOwned<ClientConnection, TcpStream>);

impl Tls {
    fn ask(&mut self, path: &str, headers: &str) -> (u16, String) {
        write!(self.0, "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        self.0.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap(), head)
    }

    fn send(&mut self, message: &[u8]) {
        self.0.write_all(&raw::frame(0x82, message)).unwrap();
        self.0.flush().unwrap();
    }

    fn frame(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.0.read_exact(&mut head)?;
        let mut length = [0; 8];
        match head[1] {
            126 => self.0.read_exact(&mut length[6..])?,
            127 => self.0.read_exact(&mut length)?,
            short => length[7] = short,
        }
        let mut payload = vec![0; u64::from_be_bytes(length) as usize];
        self.0.read_exact(&mut payload)?;
        Ok((head[0], payload))
    }

    /// The next message that begins so.
    fn wait_for(&mut self, begin: &[u8]) -> Vec<u8> {
        loop {
            match self.frame().expect("the connection lives") {
                (0x82, message) if message.starts_with(begin) => return message,
                (0x82 | 0x89, _) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// An update message of y-websocket: `bytes` letters by a client that wrote nothing before.
fn typed(client: u64, bytes: usize) -> Vec<u8> {
    use yrs::{Doc, Text, Transact, WriteTxn};
    let document = Doc::with_client_id(client);
    let update = {
        let mut transaction = document.try_transact_mut().unwrap();
        transaction.get_or_insert_text("text").insert(&mut transaction, 0, &"x".repeat(bytes));
        transaction.encode_update_v1()
    };
    let mut message = vec![0, 2];
    write_var_bytes(&mut message, &update);
    message
}

#[test]
fn pages_and_documents_come_over_tls() {
    let node = Node::start(&[]);
    let mut page = node.tls(HERE, "first.crt");
    for _ in 0..2 {
        let (status, head) = page.ask("/live", "");
        assert_eq!(status, 200, "on one connection");
        assert!(head.contains("strict-transport-security: max-age="), "{head}");
    }
    let (mut ann, mut bob) = (node.joined("secret"), node.joined("secret"));
    for (client, bytes) in [(1, 10), (2, 3_000_000)] {
        let update = typed(client, bytes);
        ann.send(&update);
        // A large one comes in pieces, each with a head of its own.
        for (editor, what) in [(&mut ann, "its echo is its acknowledgement"), (&mut bob, "it is shown")] {
            let mut came = 0;
            while came < update.len() {
                came += editor.wait_for(&[0, 2]).len();
            }
            assert!(came < update.len() + update.len() / 100 + 100, "{what}: {came} of {}", update.len());
        }
    }
    // What was shown is still there for who comes later.
    let mut cid = node.open(HERE, "secret").2;
    cid.send(&[0, 0, 1, 0]);
    let mut came = 0;
    while came < 2_900_000 {
        came += cid.wait_for(&[0, 2]).len();
    }
    cid.wait_for(&[0, 1]); // only then is it synchronised
    let (status, head) = node.tls(HERE, "first.crt").ask("/v1/projects", "");
    assert_eq!(status, 401, "{head}");
}

#[test]
fn who_does_not_speak_tls_is_told_so_and_who_says_nothing_is_not_waited_for() {
    let node = Node::start(&[("SERVER__HEADER_TIMEOUT_S", "1")]);
    let mut plain = node.connect(HERE);
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = plain.read_to_string(&mut answer); // it may be reset for what it sent and nobody read
    assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with("this address speaks https://"), "{answer}");

    let (mut silent, mut half, mut slow) = (node.connect(HERE), node.connect(HERE), node.tls(HERE, "first.crt"));
    half.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).unwrap();
    slow.0.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let start = Instant::now();
    for socket in [&mut silent, &mut half, &mut slow.0.sock] {
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest); // the end, or a reset
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    }
    assert_eq!(node.tls(HERE, "first.crt").ask("/live", "").0, 200);
}

#[test]
fn limits_count_the_address_behind_the_tls() {
    let node = Node::start(&[("SERVER__CONNECTIONS_PER_ADDRESS_MAX", "2")]);
    let _first = node.joined("a");
    let _second = node.joined("a");
    let (status, head, _) = node.open(HERE, "a");
    assert_eq!(status, 503, "{head}");
    assert!(head.contains("retry-after"), "{head}");
    assert_eq!(node.open(THERE, "a").0, 101);
}

#[test]
fn a_reader_behind_tls_that_stops_reading_is_cut_off() {
    let node = Node::start(&[("LIMITS__OUTBOX_STALL_S", "2")]);
    let mut ann = node.joined("flood");
    let mut bob = node.joined("flood");
    ann.send(&typed(1, 12_000_000));
    ann.wait_for(&[0, 2]);
    let start = Instant::now();
    while node.server().log().iter().all(|line| !line.contains("slow_consumer")) {
        assert!(start.elapsed() < PATIENCE, "{}", node.server().log_tail());
        std::thread::sleep(Duration::from_millis(50));
    }
    let ended = std::iter::repeat_with(|| bob.frame()).find_map(Result::err).unwrap();
    assert!(matches!(ended.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof), "{ended}");
}

#[test]
fn a_renewed_certificate_is_read_at_sighup_and_a_broken_one_is_not_taken() {
    let node = Node::start(&[]);
    let mut before = node.tls(HERE, "first.crt");
    assert_eq!(before.ask("/live", "").0, 200);
    let renew = |bytes: &[u8], said: &str| {
        std::fs::write(node.files.path().join("tls.crt"), bytes).unwrap();
        let lines = node.server().log().len();
        let hangup = std::process::Command::new("kill").args(["-HUP", &node.server().pid().to_string()]).status();
        assert!(hangup.unwrap().success());
        let start = Instant::now();
        while !node.server().log().iter().skip(lines).any(|line| line.contains(said)) {
            assert!(start.elapsed() < PATIENCE, "{}", node.server().log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    renew(b"nonsense", "stays as it was");
    assert_eq!(node.tls(HERE, "first.crt").ask("/live", "").0, 200);
    std::fs::copy(fixture("second.key"), node.files.path().join("tls.key")).unwrap();
    renew(&std::fs::read(fixture("second.crt")).unwrap(), "read the TLS certificate anew");
    assert_eq!(node.tls(HERE, "second.crt").ask("/live", "").0, 200);
    assert_eq!(before.ask("/live", "").0, 200, "open connections go on");
}

#[test]
fn a_certificate_without_a_key_is_refused_at_the_start() {
    let mut command = std::process::Command::new(crate::support::server::binary());
    command.args(["serve", "--listen", "127.0.0.1:0"]).env_clear();
    command.env("CONTEXTNEXUS_SERVER__TLS_CERTIFICATE", fixture("first.crt"));
    command.env("CONTEXTNEXUS_DATA_DIR", tempfile::tempdir().unwrap().path().join("data"));
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success() && said.contains("server.tls_key"), "{said}");
}
