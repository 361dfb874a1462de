//! What a request may look like before actix-http reads it: lines end with CR LF, and with nothing else.
//!
//! actix-http takes a bare LF for the end of a line, and a proxy in front may not. Where the two see different requests in the same
//! bytes, somebody smuggles one past the proxy (RFC 9112, 2.2 and 11.2). Everything else that such a difference is made of (two lengths,
//! a length beside chunks, spaces before a colon) actix-http refuses itself.
//!
//! The bytes of bodies may be anything, so this knows where each ends, by the same rules. What must not be read is made unreadable: a
//! zero byte takes the place of the line's end, no part of HTTP allows it, and actix-http answers 400 in the request's turn.

/// What is kept of a line: the longest that is looked into is `transfer-encoding: identity`.
const LINE_BYTES_MAX: usize = 64;

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Heads {
    at: At,
    /// The line so far, up to what is kept of it.
    line: Vec<u8>,
    is_cut: bool,
    after_cr: bool,
    framing: Framing,
}

/// Where the next byte belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum At {
    /// The first line of a request, or an empty one before it.
    #[default]
    RequestLine,
    Header,
    /// So many bytes of a body.
    Body(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    /// It became a WebSocket or a tunnel, and no request follows.
    Through,
    /// It was refused, and actix-http reads no further.
    Refused,
}

/// What the headers say about the body.
#[derive(Clone, Copy, Debug, Default)]
struct Framing {
    length: Option<u64>,
    is_chunked: bool,
    is_websocket: bool,
    is_tunnel: bool,
}

/// Why actix-http is not to read this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unreadable {
    /// A line ends with LF alone.
    BareLf,
    /// Where the request ends cannot be told.
    Framing,
}

impl Unreadable {
    /// The name in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::Framing => "framing",
        }
    }
}

impl Heads {
    /// Goes over the next bytes of the connection, and makes unreadable what must not be read. Says so once.
    pub(super) fn check(&mut self, bytes: &mut [u8]) -> Option<Unreadable> {
        let mut rest = bytes;
        loop {
            match self.at {
                At::Through | At::Refused => return None,
                At::Body(left) => match skip(&mut rest, left) {
                    0 => self.at = At::RequestLine,
                    left => {
                        self.at = At::Body(left);
                        return None;
                    }
                },
                At::Chunk(left) => match skip(&mut rest, left) {
                    0 => self.at = At::ChunkEnd,
                    left => {
                        self.at = At::Chunk(left);
                        return None;
                    }
                },
                At::RequestLine | At::Header | At::ChunkSize | At::ChunkEnd | At::Trailer => {
                    let (byte, after) = std::mem::take(&mut rest).split_first_mut()?;
                    rest = after;
                    if let Err(why) = self.take(*byte) {
                        *byte = 0;
                        self.at = At::Refused;
                        return Some(why);
                    }
                }
            }
        }
    }

    fn take(&mut self, byte: u8) -> Result<(), Unreadable> {
        match byte {
            b'\n' if !self.after_cr => return Err(Unreadable::BareLf),
            b'\n' => {
                self.line.pop(); // the CR, unless it was cut
                self.at = self.line_ended().ok_or(Unreadable::Framing)?;
                self.line.clear();
                self.is_cut = false;
            }
            _ if self.line.len() < LINE_BYTES_MAX => self.line.push(byte),
            _ => self.is_cut = true,
        }
        self.after_cr = byte == b'\r';
        Ok(())
    }

    /// Where the next line or body belongs. `None`: that cannot be told.
    fn line_ended(&mut self) -> Option<At> {
        let is_empty = self.line.is_empty() && !self.is_cut;
        Some(match self.at {
            At::RequestLine if is_empty => At::RequestLine,
            At::RequestLine => {
                self.framing = Framing { is_tunnel: self.line.starts_with(b"CONNECT "), ..Framing::default() };
                At::Header
            }
            At::Header if is_empty => self.framing.body(),
            At::Header => {
                self.header()?;
                At::Header
            }
            At::ChunkSize => {
                let digits = self.line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                if digits == LINE_BYTES_MAX {
                    return None;
                }
                let size = std::str::from_utf8(&self.line[..digits]).ok()?;
                match u64::from_str_radix(size, 16).ok()? {
                    0 => At::Trailer,
                    size => At::Chunk(size),
                }
            }
            At::ChunkEnd => is_empty.then_some(At::ChunkSize)?,
            At::Trailer if is_empty => At::RequestLine,
            at => at,
        })
    }

    fn header(&mut self) -> Option<()> {
        let colon = self.line.iter().position(|byte| *byte == b':').unwrap_or(self.line.len());
        let (name, value) = self.line.split_at(colon);
        let value = || std::str::from_utf8(value.get(1..).unwrap_or_default()).ok().map(str::trim);
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let framing = &mut self.framing;
        if is("content-length") {
            let length = value()?.parse().ok().filter(|_| !self.is_cut && framing.length.is_none())?;
            framing.length = Some(length);
        } else if is("transfer-encoding") {
            let is_chunked = value()?.eq_ignore_ascii_case("chunked") && !self.is_cut && !framing.is_chunked;
            framing.is_chunked = is_chunked.then_some(true)?;
        } else if is("upgrade") {
            framing.is_websocket |= value().is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
        }
        Some(())
    }
}

impl Framing {
    /// As actix-http decides.
    fn body(self) -> At {
        match self {
            Self { is_chunked: true, .. } => At::ChunkSize,
            Self { is_websocket: true, .. } => At::Through,
            Self { length: Some(length), .. } => At::Body(length),
            Self { is_tunnel: true, .. } => At::Through,
            _ => At::RequestLine,
        }
    }
}

/// Leaves out so many bytes, as far as they are there. How many are still to come.
fn skip(bytes: &mut &mut [u8], left: u64) -> u64 {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    *bytes = &mut std::mem::take(bytes)[here..];
    left - here as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "GET /live HTTP/1.1\r\nhost: a\r\n\r\n";

    /// What comes of these bytes, whole and byte by byte, which must be the same.
    fn read(bytes: &[u8]) -> (Vec<u8>, Option<Unreadable>) {
        let (mut whole, mut single) = (bytes.to_vec(), bytes.to_vec());
        let answer = Heads::default().check(&mut whole);
        let mut heads = Heads::default();
        let answers: Vec<_> = single.chunks_mut(1).filter_map(|byte| heads.check(byte)).collect();
        assert_eq!((&whole, answer.as_slice()), (&single, &answers[..]));
        (whole, answer)
    }

    fn is_taken(bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        assert_eq!(read(bytes), (bytes.to_vec(), None), "{}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn requests_pass_and_their_bodies_are_anything() {
        is_taken(HEAD.repeat(3));
        is_taken(format!("\r\n\r\n{HEAD}"));
        is_taken(format!("POST / HTTP/1.1\r\nhost: a\r\nContent-Length:  4 \r\n\r\n\n\n\r\n{HEAD}"));
        is_taken(format!("POST / HTTP/1.1\r\ntransfer-encoding: CHUNKED\r\n\r\n3;a=b\r\n\n\n\n\r\n00\r\n\r\n{HEAD}"));
        is_taken(format!("POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n{HEAD}"));
        is_taken("GET /yjs/a HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n\u{1}\n\n");
        is_taken(format!("GET /{} HTTP/1.1\r\nhost: a\r\ncookie: {}\r\n\r\n", "x".repeat(5000), "y".repeat(5000)));
    }

    #[test]
    fn a_bare_line_feed_in_a_head_is_made_unreadable_wherever_it_stands() {
        for (bytes, at) in [
            ("\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", 0),
            ("GET / HTTP/1.1\nhost: a\r\n\r\n", 14),
            ("GET / HTTP/1.1\r\nhost: a\n\r\n", 23),
            ("GET / HTTP/1.1\r\nhost: a\r\n\n", 25),
            ("GET / HTTP/1.1\r\nhost: a\r\nx: b\nGET /admin HTTP/1.1\r\n\r\n", 29),
            ("POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\nx\nGET / HTTP/1.1\r\n\r\n", 39),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n", 48),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n", 51),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\n", 56),
        ] {
            let mut unreadable = bytes.as_bytes().to_vec();
            unreadable[at] = 0;
            assert_eq!(read(bytes.as_bytes()), (unreadable, Some(Unreadable::BareLf)), "{bytes:?}");
        }
    }

    #[test]
    fn a_request_whose_end_cannot_be_told_is_made_unreadable() {
        for head in [
            "content-length: 1\r\ncontent-length: 1",
            "content-length: -1",
            "content-length: 1, 1",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "transfer-encoding: gzip, chunked",
            "transfer-encoding: identity",
            &format!("content-length: {}1", " ".repeat(100)),
        ] {
            let (_, answer) = read(format!("POST / HTTP/1.1\r\n{head}\r\n\r\n{HEAD}").as_bytes());
            assert_eq!(answer, Some(Unreadable::Framing), "{head:?}");
        }
        for chunks in ["\r\n", "x\r\n", "1\r\nxy\r\n", &format!("{}\r\n", "f".repeat(17))] {
            let (_, answer) = read(format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{chunks}").as_bytes());
            assert_eq!(answer, Some(Unreadable::Framing), "{chunks:?}");
        }
    }
}
