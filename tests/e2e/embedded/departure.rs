//! SIGTERM with a full house.

use super::fixture::Host;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const SOCKETS: usize = 300;

/// A WebSocket of the y-websocket dialect, opened by hand.
fn open(host: &Host, room: usize, token: &str) -> TcpStream {
    let base = host.base();
    let authority = base.trim_start_matches("http://");
    let mut socket = TcpStream::connect(authority).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(
        socket,
        "GET /yjs/room-{room}?token={token} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .unwrap();
    let mut status = [0; 12];
    socket.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
    socket
}

#[test]
fn sigterm_ends_it_with_hundreds_of_open_sockets() {
    let mut host = Host::private();
    host.start();
    let token = host.credentials()["token"].as_str().unwrap().to_owned();
    let sockets: Vec<_> = (0..SOCKETS).map(|n| open(&host, n % 20, &token)).collect();
    let count = || {
        let metrics = host.get("/metrics").1;
        let lines = metrics.lines().filter(|line| line.starts_with("contextnexus_ws_connections{"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    assert_eq!(count() as usize, SOCKETS);
    // Two thirds read what comes; the rest has gone away without a word, as far as a server can see.
    let (silent, readers): (Vec<_>, Vec<_>) = sockets.into_iter().enumerate().partition(|(n, _)| n % 3 == 0);
    let readers: Vec<_> = readers
        .into_iter()
        .map(|(_, mut socket)| {
            std::thread::spawn(move || {
                let mut all = Vec::new();
                socket.read_to_end(&mut all).ok();
                all
            })
        })
        .collect();
    let started = Instant::now();
    assert!(host.terminate().success(), "without an error");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    host.assert_no_postgres("PostgreSQL was stopped, too");
    for reader in readers {
        let heard = reader.join().unwrap();
        // A close frame: 0x88, its length, and 1012.
        let is_told = heard.windows(4).any(|bytes| bytes[0] == 0x88 && bytes[2..] == 1012_u16.to_be_bytes());
        assert!(is_told, "every client is told that the server restarts: {} bytes", heard.len());
    }
    drop(silent);
}
