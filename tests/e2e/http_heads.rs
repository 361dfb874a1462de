//! What a request may look like on the wire, where a proxy in front might read it otherwise.

use crate::support::world::World;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// The status of each answer to these bytes.
fn statuses(address: SocketAddr, bytes: &[u8]) -> Vec<u16> {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    socket.write_all(bytes).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    // One that is refused may be reset before it has heard everything.
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    answer.split("HTTP/1.1 ").skip(1).filter_map(|head| head.get(..3)?.parse().ok()).collect()
}

#[test]
fn lines_that_a_proxy_might_read_otherwise_are_refused_and_smuggle_nothing() {
    let world = World::start();
    let address: SocketAddr = world.base().trim_start_matches("http://").parse().unwrap();
    let live = "GET /live HTTP/1.1\r\nHost: a\r\n\r\n";
    let smuggled = "GET /ready HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(statuses(address, [live, smuggled].concat().as_bytes()), [200, 200], "what is honest is served");
    for refused in [
        "\nGET /live HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /live HTTP/1.1\nHost: a\r\n\r\n".to_owned(),
        "GET /live HTTP/1.1\r\nHost: a\n\r\n".to_owned(),
        "GET /live HTTP/1.1\r\nHost: a\r\n\n".to_owned(),
        format!("GET /live HTTP/1.1\r\nHost: a\r\nX: y\n\n{smuggled}"),
        format!("POST /check_store HTTP/1.1\r\nHost: a\r\nContent-Length: 0\nX: y\r\n\r\n{smuggled}"),
        format!("POST /check_store HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 0\r\n\r\n{smuggled}"),
        format!(
            "POST /check_store HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("GET /live HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("GET /live HTTP/1.1\r\nHost: a\rX: y\r\n\r\n{smuggled}"),
    ] {
        assert_eq!(statuses(address, refused.as_bytes()), [400], "{refused:?}");
    }
    // The one before is answered in its turn.
    let second = format!("{live}GET /live HTTP/1.1\nHost: a\n\n{smuggled}");
    assert_eq!(statuses(address, second.as_bytes()), [200, 400]);
    // In a body a line feed is a byte like any other.
    let body = "POST /check_store HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n\n\n\n\n";
    assert_eq!(statuses(address, format!("{body}{live}").as_bytes()), [401, 200]);
    assert!(world.metric("contextnexus_http_unreadable_total") >= 7.0);
}
