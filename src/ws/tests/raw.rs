//! A client without a library: bytes on a socket, so that it can do what no library would.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A masked frame. `first` is its first byte: flags and opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
    frame
}

/// What makes a request one for a WebSocket.
pub const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub struct Raw {
    pub socket: TcpStream,
}

impl Raw {
    /// Sends an upgrade request. The status, the head of the response, and the socket.
    pub fn request(address: SocketAddr, path: &str, headers: &str) -> (u16, String, Self) {
        let mut raw = Self::connect(address);
        let (status, head) = raw.ask(path, &format!("{UPGRADE}{headers}"));
        (status, head, raw)
    }

    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        Self { socket }
    }

    /// Sends a request without a body. The status and the head of the response, whose body is read and dropped.
    pub fn ask(&mut self, path: &str, headers: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.socket.peer_addr().unwrap());
        self.socket.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        self.socket.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap(), head)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Whether the server still takes bytes.
    pub fn send_or_closed(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// All of it on a non-blocking socket, or an error when the kernel takes nothing. What was begun is finished.
    pub fn try_send(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let mut sent = match self.socket.write(bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(()),
            Err(error) => panic!("{error}"),
        };
        let start = std::time::Instant::now();
        while sent < bytes.len() {
            match self.socket.write(&bytes[sent..]) {
                Ok(more) => sent += more,
                Err(_) if start.elapsed() > Duration::from_secs(1) => return Err(()), // only at the end of a test
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Ok(())
    }

    pub fn send_binary(&mut self, payload: &[u8]) {
        self.send(&frame(0x82, payload));
    }

    /// The next frame of the server, `None` at the end of the stream.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        match self.socket.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return None,
            Err(error) => panic!("{error}"),
        }
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.socket.read_exact(&mut length).unwrap();
                usize::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.socket.read_exact(&mut length).unwrap();
                u64::from_be_bytes(length) as usize
            }
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.socket.read_exact(&mut payload).unwrap();
        Some((head[0], payload))
    }

    /// The next frame, `None` when none comes in time.
    pub fn try_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        match self.socket.peek(&mut [0]) {
            Ok(_) => self.frame(),
            Err(_) => None,
        }
    }

    pub fn binary(&mut self) -> Vec<u8> {
        match self.frame() {
            Some((0x82, payload)) => payload,
            other => panic!("expected a binary message, got {other:?}"),
        }
    }

    pub fn close_code(&mut self) -> u16 {
        match self.frame() {
            Some((0x88, payload)) => u16::from_be_bytes([payload[0], payload[1]]),
            other => panic!("expected a close frame, got {other:?}"),
        }
    }
}
