//! What pages were refused because of their origin, in the log: a line names the origin, what it was refused, and the
//! setting.
//!
//! Anybody can send any origin. So each origin gets a line now and then, and so many origins at most get one in a
//! minute; what comes beyond that is only counted.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Between two lines about the same.
const EVERY: Duration = Duration::from_secs(60);
/// Different lines in a minute, and so what is remembered. An origin in it takes at most [`ORIGIN_BYTES_MAX`].
const LINES_MAX: usize = 16;
/// The longest honest origin is a host name of 253 bytes with a scheme and a port.
const ORIGIN_BYTES_MAX: usize = 280;

/// What was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// A WebSocket with a token, because the operator has origins of tokens checked.
    Socket,
    /// A WebSocket that came with nothing but the cookie of a user who is signed in here.
    SocketWithCookie,
    /// A Hocuspocus socket with the cookie; the page may still send a token in its first message.
    CookieIgnored,
    /// A request that signs in by cookie, or changes something with one.
    Cookie,
    /// To read an answer (CORS).
    Answer,
}

impl Refusal {
    fn what(self) -> &'static str {
        match self {
            Self::Socket => "its WebSocket, because server.check_token_origins is on",
            Self::SocketWithCookie => "its WebSocket, which came with a cookie and without a token",
            Self::CookieIgnored => "the use of its cookie for a WebSocket; a token that it sends is taken",
            Self::Cookie => "a request with a cookie",
            Self::Answer => "to read an answer (CORS)",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Socket => "add the origin to server.cors_origins",
            Self::SocketWithCookie | Self::CookieIgnored | Self::Cookie => {
                "let the page send a token, or add the origin to server.allowed_origins; if this is the address that users type, \
                 set server.public_url to it"
            }
            Self::Answer => {
                "let the page send a token in the Authorization header, or add the origin to server.cors_origins"
            }
        }
    }
}

/// What was told in the last minute.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    last: HashMap<(String, Refusal), Instant>,
    untold: u64,
    untold_since: Option<Instant>,
}

/// What is to be logged.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// About this origin.
    Origin(String),
    /// So many others were not told.
    Others(u64),
}

impl Refusals {
    /// Logs it, or not, as the minute goes.
    pub fn tell(&self, now: Instant, origin: &str, refusal: Refusal) {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner).lines(now, origin, refusal);
        for line in lines {
            match line {
                Line::Origin(origin) if refusal == Refusal::CookieIgnored => {
                    info!(origin, "refused a page of {origin} {}. {}", refusal.what(), sentence(refusal.remedy()));
                }
                Line::Origin(origin) => {
                    warn!(origin, "refused a page of {origin} {}. {}", refusal.what(), sentence(refusal.remedy()));
                }
                Line::Others(count) => {
                    warn!(count, "refused {count} more requests because of their origin in the last minutes");
                }
            }
        }
    }
}

impl Told {
    fn lines(&mut self, now: Instant, origin: &str, refusal: Refusal) -> Vec<Line> {
        self.last.retain(|_, at| now.saturating_duration_since(*at) < EVERY);
        let mut lines = Vec::new();
        let key = (shown(origin), refusal);
        let known = self.last.contains_key(&key);
        if !known && self.last.len() < LINES_MAX {
            lines.push(Line::Origin(key.0.clone()));
            self.last.insert(key, now);
        } else if !known {
            self.untold += 1;
            self.untold_since.get_or_insert(now);
        }
        if self.untold_since.is_some_and(|since| now.saturating_duration_since(since) >= EVERY) {
            lines.push(Line::Others(std::mem::take(&mut self.untold)));
            self.untold_since = None;
        }
        lines
    }
}

/// An origin as a log may show it: short, and without characters that would end the line.
fn shown(origin: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    origin.chars().map(plain).take(ORIGIN_BYTES_MAX).collect()
}

fn sentence(remedy: &str) -> String {
    format!("To allow it, {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(told: &mut Told, now: Instant, origin: &str) -> usize {
        told.lines(now, origin, Refusal::Cookie).len()
    }

    #[test]
    fn an_origin_gets_one_line_a_minute_however_often_it_asks() {
        let (mut told, start) = (Told::default(), Instant::now());
        let count: usize =
            (0..120).map(|s| lines(&mut told, start + Duration::from_secs(s), "https://a.example")).sum();
        assert_eq!(count, 2);
    }

    #[test]
    fn a_stranger_with_a_thousand_origins_a_second_fills_neither_the_log_nor_the_memory() {
        let (mut told, start) = (Told::default(), Instant::now());
        let mut count = 0;
        for n in 0..60_000_u64 {
            let now = start + Duration::from_millis(n);
            count += lines(&mut told, now, &format!("https://{n}.example/{}", "x".repeat(4_000)));
            assert!(told.last.len() <= LINES_MAX);
        }
        assert!(count <= LINES_MAX, "{count} lines in a minute");
        assert!(told.last.keys().all(|(origin, _)| origin.len() <= ORIGIN_BYTES_MAX));
        let after = told.lines(start + 2 * EVERY, "https://late.example", Refusal::Cookie);
        assert_eq!(after.last(), Some(&Line::Others(60_000 - LINES_MAX as u64)), "what was not told is counted");
    }

    #[test]
    fn an_origin_cannot_write_a_line_of_its_own() {
        assert_eq!(shown("https://a.example\n2026 ERROR \u{1b}[31m"), "https://a.example?2026?ERROR??[31m");
    }
}
