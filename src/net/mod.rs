//! Connections: who may have one, TLS where this server ends it itself, and the HTTP server on top.
//!
//! [`Io`] is what actix-http reads and writes. It shares its [`Stream`] with the connection's data, so that a WebSocket goes on with the stream
//! once actix-http has let go of it, TLS session included (see [`crate::ws`]).

mod detach;
mod heads;
mod seats;
mod stream;
pub mod tls;

pub use detach::detach;
pub use seats::Seats;
pub use stream::Stream;

use actix_http::error::DispatchError;
use actix_http::{HttpService, Request};
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt as _, fn_service, map_config};
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Extensions, Server, ServiceResponse};
use actix_web::rt::net::TcpStream;
use heads::Heads;
use seats::Seat;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tls::Certificates;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What there is to set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads.
    pub workers: usize,
    /// HTTP connections of the node and of one address; what became a WebSocket is none any more.
    pub seats: Seats,
    /// An idle connection stays so long.
    pub keep_alive: Duration,
    /// The TLS handshake may take so long, and then the head of a request.
    pub header_timeout: Duration,
    /// A client that takes nothing of an answer for so long is gone.
    pub stall: Duration,
    /// With them, connections speak TLS and nothing else.
    pub certificates: Option<Certificates>,
}

/// Serves the application that `factory` makes, once for each thread. `on_connect` is called with each connection.
pub fn serve<F, I, S, B>(
    listener: TcpListener,
    settings: Settings,
    on_connect: fn(&Io, &mut Extensions),
    factory: F,
) -> io::Result<Server>
where
    F: Fn() -> I + Clone + Send + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<B>, Error = Error, InitError = ()>
        + 'static,
    S::Service: 'static,
    S::Future: 'static,
    B: MessageBody + 'static,
{
    let address = listener.local_addr()?;
    let door = Arc::new(Door::new(&settings));
    // Beyond it nothing is accepted: who comes waits in the kernel, and a connection that becomes a WebSocket makes room at once.
    let of_worker = settings.seats.node.div_ceil(settings.workers.max(1));
    let builder = Server::build().workers(settings.workers).max_concurrent_connections(of_worker);
    let builder = builder.disable_signals().shutdown_timeout(1);
    let drained = builder.graceful_shutdown_signal();
    let builder = builder.listen("http", listener, move || {
        let drained = drained.clone();
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let drained = drained.clone();
                async move { drained.notified().await }
            })
            .keep_alive(settings.keep_alive)
            .client_request_timeout(settings.header_timeout)
            .local_addr(address)
            .on_connect_ext(move |io: &Io, data: &mut Extensions| on_connect(io, data));
        let application = factory().into_factory().map_err(|error: Error| error.error_response());
        let http = http.h1(map_config(application, |()| AppConfig::default()));
        let door = Arc::clone(&door);
        fn_service(move |socket: TcpStream| {
            let door = Arc::clone(&door);
            async move { door.let_in(socket).await.map_err(DispatchError::Io) }
        })
        .and_then(http)
    })?;
    Ok(builder.run())
}

/// Decides about each new connection.
struct Door {
    seats: Arc<seats::Taken>,
    patience: Duration,
    stall: Duration,
    certificates: Option<Certificates>,
}

impl Door {
    fn new(settings: &Settings) -> Self {
        Self {
            seats: seats::Taken::new(settings.seats),
            patience: settings.header_timeout,
            stall: settings.stall,
            certificates: settings.certificates.clone(),
        }
    }

    async fn let_in(&self, socket: TcpStream) -> io::Result<(Io, Option<SocketAddr>)> {
        let peer = socket.peer_addr()?;
        let _ = socket.set_nodelay(true); // an improvement, not a condition
        let Some(seat) = self.seats.take(peer.ip()) else {
            metrics::counter!("contextnexus_http_refused_connections_total", "reason" => "address_full").increment(1);
            if self.certificates.is_none() {
                say(&socket, BUSY).await;
            }
            return Err(io::Error::other("this address has too many connections"));
        };
        let stream = match &self.certificates {
            None => Stream::plain(socket),
            Some(certificates) => match tls::accept(socket, certificates, self.patience).await {
                Ok(stream) => stream,
                Err(refused) => {
                    metrics::counter!("contextnexus_tls_refused_total", "reason" => refused.label()).increment(1);
                    return Err(io::Error::other(refused));
                }
            },
        };
        let (stream, heads) = (Arc::new(stream), Heads::default());
        let io = Io { stream, heads, stall: self.stall, stalled: None, _seat: seat };
        Ok((io, Some(peer)))
    }
}

const BUSY: &str =
    "HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The last words to somebody who is not let in. A new socket takes them at once.
async fn say(socket: &TcpStream, words: &str) {
    if socket.writable().await.is_ok() {
        let _ = socket.try_write(words.as_bytes());
    }
}

/// A connection, as long as it speaks HTTP. It gives its seat back when dropped.
pub struct Io {
    stream: Arc<Stream>,
    heads: Heads,
    stall: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    _seat: Seat,
}

impl Io {
    /// The stream, to go on with when this is dropped.
    pub fn stream(&self) -> Arc<Stream> {
        Arc::clone(&self.stream)
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let into = buffer.initialize_unfilled();
        let read = ready!(self.stream.poll_read(context, into))?;
        if let Some(unreadable) = into.get_mut(..read).and_then(|came| self.heads.check(came)) {
            metrics::counter!("contextnexus_http_unreadable_total", "reason" => unreadable.label()).increment(1);
        }
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.stream.poll_write(context, bytes) {
            Poll::Pending => {
                let stall = self.stall;
                let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
                ready!(stalled.as_mut().poll(context));
                metrics::counter!("contextnexus_http_stalled_total").increment(1);
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            written => {
                self.stalled = None;
                written
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_end(context)
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io").field("stream", &self.stream).finish_non_exhaustive()
    }
}
