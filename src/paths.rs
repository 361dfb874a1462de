//! Names of documents in request paths: the one place where they are decoded, once.
//!
//! Handlers take names from the raw path. What actix-web gives them (`web::Path`, `match_info`) was decoded in two
//! passes, which turns some names into others and replaces what is not UTF-8.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What stays as it is in one segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A name as the client meant it; `None` if it is not UTF-8. Every escape is undone, that of a slash too. A percent
/// sign that begins no escape is a percent sign: browsers send `100%` like that.
pub fn decoded(raw: &str) -> Option<String> {
    percent_decode_str(raw).decode_utf8().ok().map(|name| name.into_owned())
}

/// What is between `prefix` and `suffix` in a raw path, decoded.
pub fn between(path: &str, prefix: &str, suffix: &str) -> Option<String> {
    path.strip_prefix(prefix)?.strip_suffix(suffix).and_then(decoded)
}

/// A name as one segment of a path, which [`decoded`] reads back.
pub fn segment(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

/// The name in `{id}/ws/{again}`, the path of a Y-Sweet socket.
///
/// The server hands out `{id}/ws`, encoded. The client appends the name as it is, and then the rules of `new URL` apply
/// to it: they encode a space but no percent sign, and take a backslash for a slash. So the second name is compared as
/// it is and as such a client would have sent it.
pub fn y_sweet(path: &str) -> Option<String> {
    path.match_indices("/ws/").find_map(|(at, separator)| {
        let id = decoded(path.get(..at)?)?;
        let again = decoded(path.get(at + separator.len()..)?)?;
        let as_appended = |name: &str| decoded(name).map(|name| name.replace('\\', "/"));
        (id == again || as_appended(&id)? == again.replace('\\', "/")).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_decoded_once() {
        for (raw, name) in [
            ("org/room%201", "org/room 1"),
            ("org%2Froom", "org/room"),
            ("%C3%A9", "é"),
            ("100%", "100%"),
            ("100%25", "100%"),
            ("a%252Fb", "a%2Fb"),
            ("a+b", "a+b"),
            ("a%2Bb", "a+b"),
        ] {
            assert_eq!(decoded(raw).as_deref(), Some(name), "{raw}");
        }
        assert_eq!(decoded("%FF"), None, "no name");
        for name in ["a:b", "user@host", "plan (2)", "100%", "ys/x", "a%2Fb", "é?#"] {
            assert_eq!(decoded(&segment(name)).as_deref(), Some(name));
        }
    }

    #[test]
    fn a_y_sweet_path_names_one_document_however_the_client_appends_it() {
        for (path, name) in [
            ("plan/ws/plan", "plan"),
            ("a%3Ab/ws/a:b", "a:b"),
            ("user%40host/ws/user@host", "user@host"),
            ("plan%20%282%29/ws/plan%20(2)", "plan (2)"),
            ("100%25/ws/100%", "100%"),
            ("100%25/ws/100%25", "100%"),
            ("ys%2Fx/ws/ys/x", "ys/x"),
            ("a%252Fb/ws/a%2Fb", "a%2Fb"),
            ("50%2525%20%C3%A9/ws/50%25%20%C3%A9", "50%25 é"),
            ("a%5Cb/ws/a/b", "a\\b"),
            ("a%2Fws%2Fb/ws/a/ws/b", "a/ws/b"),
            ("a/ws/b/ws/a/ws/b", "a/ws/b"),
        ] {
            assert_eq!(y_sweet(path).as_deref(), Some(name), "{path}");
        }
        for path in ["plan/ws/other", "plan", "plan/ws", "plan/ws/", "%FF/ws/%FF"] {
            assert_eq!(y_sweet(path), None, "{path}");
        }
    }
}
