//! Whose pages may open a socket. Browsers send cookies with a socket to any site, and no CORS stands before it: the Origin
//! header is the only thing that tells our page from another one.

/// The rule.
#[derive(Clone, Debug, Default)]
pub struct AllowedOrigins {
    /// Exact origins: `https://app.example.org`.
    exact: Vec<String>,
}

impl AllowedOrigins {
    /// These, the server's own address, and pages served by this machine itself.
    pub fn new(exact: &[String]) -> Self {
        Self { exact: exact.iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase()).collect() }
    }

    /// Whether a page of `origin` may connect to a server that it called `host`.
    pub fn allow(&self, origin: &str, host: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        if self.exact.contains(&origin) {
            return true;
        }
        let Some(authority) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
            return false; // `null`, extensions and files are nobody's own
        };
        authority == host.to_ascii_lowercase() || is_loopback(authority)
    }
}

/// A page that this machine served to its own browser, on whichever port (a development server, say).
fn is_loopback(authority: &str) -> bool {
    let name = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) if port.is_empty() || is_port(port) => name,
            _ => return false,
        },
        None => match authority.split_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            Some(_) => return false,
            None => authority,
        },
    };
    name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages_and_the_listed_may_connect() {
        let origins = AllowedOrigins::new(&["https://app.example.org/".into()]);
        for allowed in [
            "https://app.example.org",
            "HTTPS://APP.EXAMPLE.ORG",
            "http://notes.example.org:8080",
            "http://localhost",
            "http://localhost:5173",
            "http://127.0.0.1:3000",
            "http://[::1]:3000",
        ] {
            assert!(origins.allow(allowed, "notes.example.org:8080"), "{allowed}");
        }
        for refused in [
            "https://evil.example",
            "http://app.example.org",
            "https://app.example.org.evil.example",
            "https://app.example.org:444",
            "http://notes.example.org",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://localhost:80@evil.example",
            "http://[::1].evil.example",
            "http://10.0.0.1",
            "null",
            "",
            "file://",
        ] {
            assert!(!origins.allow(refused, "notes.example.org:8080"), "{refused}");
        }
    }
}
