//! How clients name a document: a UUID, `{project-slug}/{name}`, or `{name}` in the tenant's default project.
//!
//! Names are NFC, 1–200 bytes, without control characters (protocols.md 2.7). A name that is a UUID is always an id.

use crate::ids::DocumentId;
use crate::ports::authority::RoomName;
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

/// Longest name in bytes, after normalisation.
pub const NAME_BYTES_MAX: usize = 200;
/// Longest project slug in bytes.
pub const SLUG_BYTES_MAX: usize = 63;

/// Reads a room. The first slash ends the project; further ones belong to the name.
pub fn parse(room: &str) -> Option<RoomName> {
    match room.split_once('/') {
        Some((project, name)) => {
            let project = project.to_owned();
            is_slug(&project).then_some(())?;
            Some(RoomName::Named { project: Some(project), name: normal_name(name)? })
        }
        None => parse_in_default_project(room),
    }
}

/// Reads a room of dialect C, which knows no projects.
pub fn parse_in_default_project(room: &str) -> Option<RoomName> {
    if room.contains('/') {
        return None;
    }
    match Uuid::parse_str(room) {
        Ok(id) if room.len() == 36 => Some(RoomName::Id(DocumentId(id))),
        _ => Some(RoomName::Named { project: None, name: normal_name(room)? }),
    }
}

/// A document's name as it is stored, or `None` if it breaks the rules.
pub fn normal_name(name: &str) -> Option<String> {
    if name.len() > 4 * NAME_BYTES_MAX {
        return None; // normalisation never makes it that much shorter
    }
    let name: String = name.nfc().collect();
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    fits.then_some(name)
}

/// Lower-case letters, digits and hyphens, 1–63 bytes.
pub fn is_slug(text: &str) -> bool {
    (1..=SLUG_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_in_two_normal_forms_is_one_document() {
        assert_eq!(parse("caf\u{e9}"), parse("cafe\u{301}"));
    }

    #[test]
    fn inner_slashes_belong_to_the_name() {
        let name = RoomName::Named { project: Some("org".into()), name: "a/b c".into() };
        assert_eq!(parse("org/a/b c"), Some(name));
        assert_eq!(parse_in_default_project("org/a"), None);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for room in ["", "a\0b", "line\nbreak", "/x", "Org/x", &"x".repeat(201)] {
            assert_eq!(parse(room), None, "{room:?}");
        }
    }
}
