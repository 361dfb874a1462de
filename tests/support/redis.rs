//! A Redis of the test's own, which it may flush, stop and kill.

use super::process::{Running, free_port, tied};
use std::io::{Read, Write};
use std::time::Duration;

pub struct Redis {
    pub port: u16,
    running: Option<Running>,
}

impl Redis {
    pub fn start() -> Self {
        let mut redis = Self { port: free_port(), running: None };
        redis.restart();
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn restart(&mut self) {
        let mut command = tied("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let mut running = Running::start("redis-server", command);
        running.wait_for_line("Ready to accept connections", Duration::from_secs(20));
        self.running = Some(running);
    }

    pub fn kill(&mut self) {
        self.running = None;
    }

    /// FLUSHALL.
    pub fn flush(&self) {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).expect("Redis answers");
        stream.write_all(b"FLUSHALL\r\n").expect("Redis hears");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("Redis answers");
        assert_eq!(&answer, b"+OK\r\n");
    }
}
