//! A slow line: a TCP proxy of a fixed rate and delay that counts what it has carried, and breaks its connections once.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Small, so that what was carried has arrived but for little, and a sender soon notices how slow the line is.
const BUFFER: usize = 16 * 1024;
const CHUNK: usize = 2 * 1024;

/// What the line is like.
#[derive(Clone, Copy)]
pub struct Line {
    pub bytes_per_s: u64,
    pub delay: Duration,
    /// All connections break once, when so many bytes went to the clients …
    pub cut_down_at: u64,
    /// … or to the server.
    pub cut_up_at: u64,
}

pub struct Throttle {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    line: Line,
    server: SocketAddr,
    down: Direction,
    up: Direction,
    open: Mutex<Vec<TcpStream>>,
}

#[derive(Default)]
struct Direction {
    carried: AtomicU64,
    cut_at: AtomicU64,
}

impl Throttle {
    /// Before the server at `base`.
    pub fn before(base: &str, line: Line) -> Self {
        let server = base.split("://").last().unwrap().parse().unwrap();
        let direction = |cut_at: u64| Direction { carried: AtomicU64::new(0), cut_at: AtomicU64::new(cut_at) };
        let shared = Arc::new(Shared {
            line,
            server,
            down: direction(line.cut_down_at),
            up: direction(line.cut_up_at),
            open: Mutex::default(),
        });
        let listener = socket();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(128).unwrap();
        let listener: std::net::TcpListener = listener.into();
        let address = listener.local_addr().unwrap();
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                accepting.carry(client);
            }
        });
        Self { address, shared }
    }

    /// The address for clients.
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes that went to clients.
    pub fn down(&self) -> u64 {
        self.shared.down.carried.load(Relaxed)
    }

    /// Bytes that went to the server.
    pub fn up(&self) -> u64 {
        self.shared.up.carried.load(Relaxed)
    }
}

fn socket() -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(BUFFER).unwrap();
    socket.set_send_buffer_size(BUFFER).unwrap();
    socket
}

impl Shared {
    fn carry(self: &Arc<Self>, client: TcpStream) {
        let server = socket();
        if server.connect(&self.server.into()).is_err() {
            return;
        }
        let server: TcpStream = server.into();
        for end in [&client, &server] {
            let _ = end.set_nodelay(true);
            self.open.lock().unwrap().extend(end.try_clone());
        }
        let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let (up, down) = (Arc::clone(self), Arc::clone(self));
        std::thread::spawn(move || up.pump(client, server, |shared| &shared.up));
        std::thread::spawn(move || down.pump(ends.1, ends.0, |shared| &shared.down));
    }

    /// One way of one connection.
    fn pump(self: Arc<Self>, mut from: TcpStream, mut to: TcpStream, direction: fn(&Shared) -> &Direction) {
        // So many chunks are on their way at a time.
        let under_way = self.line.delay.as_secs_f64() * self.line.bytes_per_s as f64 / CHUNK as f64;
        let (sender, receiver) = sync_channel::<(Instant, Vec<u8>)>(under_way as usize + 2);
        let line = self.line;
        let mut out = to.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            let direction = direction(&self);
            for (at, chunk) in receiver {
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                if out.write_all(&chunk).is_err() {
                    break;
                }
                let carried = direction.carried.fetch_add(chunk.len() as u64, Relaxed) + chunk.len() as u64;
                let cut_at = direction.cut_at.load(Relaxed);
                if carried >= cut_at && direction.cut_at.compare_exchange(cut_at, u64::MAX, Relaxed, Relaxed).is_ok() {
                    for end in self.open.lock().unwrap().drain(..) {
                        let _ = end.shutdown(Shutdown::Both);
                    }
                }
            }
            let _ = out.shutdown(Shutdown::Both);
        });
        let mut chunk = [0; CHUNK];
        let mut free_at = Instant::now();
        while let Ok(bytes @ 1..) = from.read(&mut chunk) {
            let now = Instant::now();
            free_at = free_at.max(now) + Duration::from_secs_f64(bytes as f64 / line.bytes_per_s as f64);
            std::thread::sleep(free_at.saturating_duration_since(now));
            if sender.send((Instant::now() + line.delay, chunk[..bytes].to_vec())).is_err() {
                break;
            }
        }
        drop(sender);
        let _ = writer.join();
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.flush();
    }
}
