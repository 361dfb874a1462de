//! Where a server listens and how a document is addressed there, by dialect.

use super::dialect::Dialect;

/// One address of a server under test, as the caller gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port`.
    pub authority: String,
    /// With a leading and without a trailing slash; empty where the caller gave none.
    path: String,
}

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// TLS would measure the generator's own cryptography.
    #[error("{0}: wss:// and https:// are not supported, point the generator at the plain port behind the proxy")]
    Tls(String),
    /// No scheme that a server listens on.
    #[error("{0}: expected ws://HOST[:PORT][/PATH]")]
    Malformed(String),
}

impl std::str::FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let malformed = || TargetError::Malformed(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(malformed)?;
        match scheme {
            "ws" | "http" | "ys" => {}
            "wss" | "https" | "yss" => return Err(TargetError::Tls(text.to_owned())),
            _ => return Err(malformed()),
        }
        let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path.trim_end_matches('/')));
        if host.is_empty() || host.contains(['@', ' ']) {
            return Err(malformed());
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { host.to_owned() } else { format!("{host}:80") };
        let path = if path.is_empty() { String::new() } else { format!("/{path}") };
        Ok(Self { authority, path })
    }
}

impl Target {
    /// The request path of a WebSocket to `document`. Without a path of its own a target gets ContextNexus' path for
    /// the dialect; servers that serve rooms at the root take it as a part of the room's name.
    pub fn socket_path(&self, dialect: Dialect, document: &str) -> String {
        match (dialect, self.path.as_str()) {
            (Dialect::YWebsocket, "") => format!("/yjs/{document}"),
            (Dialect::YWebsocket, path) => format!("{path}/{document}"),
            (Dialect::Hocuspocus, "") => "/collab".to_owned(),
            (Dialect::Hocuspocus, path) => path.to_owned(),
            (Dialect::YSweet, _) => format!("/d/{document}/ws/{document}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_finds_its_path() {
        let bare: Target = "ws://127.0.0.1:8080".parse().unwrap();
        let rooted: Target = "ws://localhost/rooms/".parse().unwrap();
        assert_eq!(bare.socket_path(Dialect::YWebsocket, "d1"), "/yjs/d1");
        assert_eq!(bare.socket_path(Dialect::Hocuspocus, "d1"), "/collab");
        assert_eq!(bare.socket_path(Dialect::YSweet, "d1"), "/d/d1/ws/d1");
        assert_eq!(rooted.authority, "localhost:80");
        assert_eq!(rooted.socket_path(Dialect::YWebsocket, "d1"), "/rooms/d1");
    }

    #[test]
    fn an_address_that_cannot_be_used_says_why() {
        assert!(matches!("wss://x".parse::<Target>(), Err(TargetError::Tls(_))));
        for text in ["", "x:1", "ftp://x", "ws://", "ws://a@b"] {
            assert!(matches!(text.parse::<Target>(), Err(TargetError::Malformed(_))), "{text}");
        }
    }
}
