//! TLS that ends in this server (rustls): certificates, and the handshake of each connection.

use super::say;
use super::stream::Stream;
use actix_web::rt::net::TcpStream;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use socket2::SockRef;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The certificates of this server, which may be replaced while it runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Certificates(Arc<Held>);

#[derive(Debug)]
struct Held {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
}

/// Why certificates cannot be used. One line, with the file.
#[derive(Debug, thiserror::Error)]
pub enum BadCertificate {
    /// Only one of the two settings is set.
    #[error("TLS needs both `server.tls_certificate` and `server.tls_key`")]
    Half,
    /// A file that cannot be read as PEM.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The two do not belong together, or are of no use.
    #[error("{certificate} and {key} cannot be used: {source}")]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

impl Certificates {
    /// What two settings name; `None` where neither does.
    pub fn of(certificate: &str, key: &str) -> Result<Option<Self>, BadCertificate> {
        match (certificate.is_empty(), key.is_empty()) {
            (true, true) => Ok(None),
            (false, false) => Self::read(certificate.into(), key.into()).map(Some),
            _ => Err(BadCertificate::Half),
        }
    }

    fn read(certificate: PathBuf, key: PathBuf) -> Result<Self, BadCertificate> {
        let current = RwLock::new(Arc::new(configuration(&certificate, &key)?));
        Ok(Self(Arc::new(Held { certificate, key, current })))
    }

    /// Reads the files again, for connections from now on. Nothing changes where they cannot be used.
    pub fn reload(&self) -> Result<(), BadCertificate> {
        let fresh = Arc::new(configuration(&self.0.certificate, &self.0.key)?);
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn configuration(certificate: &Path, key: &Path) -> Result<ServerConfig, BadCertificate> {
    let unreadable = |path: &Path, why: String| BadCertificate::Unreadable { path: path.into(), why };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(certificate, error.to_string()))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error.to_string()))?;
    let unusable = |source| BadCertificate::Unusable { certificate: certificate.into(), key: key.into(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut configuration = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(unusable)?;
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(configuration)
}

/// Why a connection did not come to speak TLS.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTls {
    #[error("the client does not speak TLS")]
    Plain,
    #[error("the handshake took too long")]
    TooSlow,
    #[error("the handshake failed")]
    Failed(#[source] io::Error),
}

impl NoTls {
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::TooSlow => "too_slow",
            Self::Failed(_) => "failed",
        }
    }
}

/// The handshake, within `patience`.
pub(super) async fn accept(
    socket: TcpStream,
    certificates: &Certificates,
    patience: Duration,
) -> Result<Stream, NoTls> {
    let handshake = async {
        if !speaks_tls(&socket).await.map_err(NoTls::Failed)? {
            say(&socket, PLAIN).await;
            // Closed with its request unread, the connection would be reset, and nobody would see the words.
            let mut unread = [0; 1024];
            let _ = SockRef::from(&socket).shutdown(Shutdown::Write);
            while socket.readable().await.is_ok() && is_more(socket.try_read(&mut unread)) {}
            return Err(NoTls::Plain);
        }
        let session =
            ServerConnection::new(certificates.current()).map_err(|error| NoTls::Failed(io::Error::other(error)))?;
        let stream = Stream::encrypted(socket, session);
        poll_fn(|context| stream.poll_handshake(context)).await.map_err(NoTls::Failed)?;
        Ok(stream)
    };
    tokio::time::timeout(patience, handshake).await.unwrap_or(Err(NoTls::TooSlow))
}

/// A browser that was given `http://` by mistake reads why it has no page.
const PLAIN: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 28\r\n\r\n\
     this address speaks https://";

fn is_more(read: io::Result<usize>) -> bool {
    match read {
        Ok(bytes) => bytes > 0,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

async fn speaks_tls(socket: &TcpStream) -> io::Result<bool> {
    const HANDSHAKE: u8 = 0x16;
    let mut first = [0];
    match socket.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first == [HANDSHAKE]),
    }
}
