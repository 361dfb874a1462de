//! How clients name a document: `{project-slug}/{name}`, or `{name}` in the tenant's default project.
//!
//! A name that is a UUID (36 characters, with hyphens) leads first to the document that has it as its id, and a
//! document that is created under such a name gets it as its id. Every other form of an id is a name like any other.
//!
//! [`normal_name`] is the one place that says what a name may be; every dialect and every HTTP call asks it.

use crate::ids::DocumentId;
use crate::ports::authority::RoomName;
use icu_properties::CodePointSetData;
use icu_properties::props::DefaultIgnorableCodePoint;
use std::fmt;
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

/// Longest name in bytes, after normalisation.
pub const NAME_BYTES_MAX: usize = 200;
/// Longest project slug in bytes.
pub const SLUG_BYTES_MAX: usize = 63;

/// Why something is not a document name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameRefused {
    /// Empty, or nothing but white space.
    Blank,
    /// More than [`NAME_BYTES_MAX`].
    TooLong,
    /// A control character, or a separator of lines or paragraphs.
    Control,
    /// A character that nobody sees, or that changes the order in which others are shown.
    Invisible,
    /// A segment `.` or `..`: addresses cannot hold it.
    DotSegment,
    /// What comes before the first slash is not the slug of a project.
    Project,
}

impl NameRefused {
    /// What is wrong, for close reasons and error bodies.
    pub fn text(self) -> &'static str {
        match self {
            Self::Blank => "a document name is not blank",
            Self::TooLong => "a document name has at most 200 bytes",
            Self::Control => "a document name has no control characters",
            Self::Invisible => "a document name has no invisible characters",
            Self::DotSegment => "a document name has no . or .. between slashes",
            Self::Project => "what comes before the first slash is not the slug of a project",
        }
    }
}

impl fmt::Display for NameRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for NameRefused {}

/// Reads a room. The first slash ends the project; further ones belong to the name.
pub fn parse(room: &str) -> Result<RoomName, NameRefused> {
    match room.split_once('/') {
        Some((project, _)) if !is_slug(project) => Err(NameRefused::Project),
        Some((project, name)) => Ok(RoomName::Named { project: Some(project.to_owned()), name: normal_name(name)? }),
        None => parse_in_default_project(room),
    }
}

/// Reads a room of Y-Sweet, which knows no projects: slashes belong to the name.
pub fn parse_in_default_project(room: &str) -> Result<RoomName, NameRefused> {
    Ok(RoomName::Named { project: None, name: normal_name(room)? })
}

/// The id that a name is, if it is one: a UUID as it is usually written, with hyphens, in either case.
///
/// `Uuid` reads more than that (32 digits, braces, `urn:uuid:`). Those are names.
pub fn id_in(name: &str) -> Option<DocumentId> {
    if name.len() != 36 {
        return None; // of the other forms, none has this length
    }
    Uuid::try_parse(name).ok().map(DocumentId)
}

/// A document's name as it is stored: NFC, 1–200 bytes, something to see and nothing that hides. A UUID is in lower
/// case.
///
/// A name can be one or more segments of an address, so it has no segment that `new URL` would resolve.
pub fn normal_name(name: &str) -> Result<String, NameRefused> {
    if name.len() > 4 * NAME_BYTES_MAX {
        return Err(NameRefused::TooLong); // normalisation never makes it that much shorter
    }
    let name: String = name.nfc().collect();
    if name.len() > NAME_BYTES_MAX {
        return Err(NameRefused::TooLong);
    }
    if name.chars().any(|char| char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')) {
        return Err(NameRefused::Control);
    }
    if name.chars().all(char::is_whitespace) {
        return Err(NameRefused::Blank);
    }
    if name.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(NameRefused::DotSegment);
    }
    if has_invisible(&name) {
        return Err(NameRefused::Invisible);
    }
    Ok(id_in(&name).map_or(name, |id| id.to_string()))
}

/// Whether a character is invisible, where it does not belong to a visible one.
///
/// That is what Unicode calls default-ignorable: zero-width spaces, soft hyphens, fillers, and the marks, embeddings,
/// overrides and isolates of bidirectional text. Two names that differ only in these look the same. Joiners and
/// variation selectors are of that kind too, but emoji, Persian and Indic scripts are written with them; they are
/// admitted next to characters outside of ASCII (a selector also makes a keycap of an ASCII digit, `#` or `*`).
fn has_invisible(name: &str) -> bool {
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let mut before: Option<char> = None;
    let mut chars = name.chars().peekable();
    while let Some(char) = chars.next() {
        let shown = |other: Option<char>| other.is_some_and(|c| !c.is_ascii() && !c.is_whitespace());
        let is_admitted = match char {
            '\u{200c}' | '\u{200d}' => {
                let after = chars.peek().copied();
                shown(before) && !is_joiner(before) && shown(after) && !after.is_some_and(|c| ignorable.contains(c))
            }
            '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' => match before {
                Some('0'..='9' | '#' | '*') => chars.peek() == Some(&'\u{20e3}'),
                _ => shown(before) && !before.is_some_and(|c| ignorable.contains(c)),
            },
            _ => !ignorable.contains(char),
        };
        if !is_admitted {
            return true;
        }
        before = Some(char);
    }
    false
}

fn is_joiner(char: Option<char>) -> bool {
    matches!(char, Some('\u{200c}' | '\u{200d}'))
}

/// Lower-case letters, digits and hyphens, 1–63 bytes.
pub fn is_slug(text: &str) -> bool {
    (1..=SLUG_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_default(name: &str) -> Result<RoomName, NameRefused> {
        Ok(RoomName::Named { project: None, name: name.into() })
    }

    #[test]
    fn the_same_name_in_two_normal_forms_is_one_document() {
        assert_eq!(parse("caf\u{e9}"), parse("cafe\u{301}"));
    }

    #[test]
    fn inner_slashes_belong_to_the_name() {
        let name = RoomName::Named { project: Some("org".into()), name: "a/b c".into() };
        assert_eq!(parse("org/a/b c"), Ok(name));
        assert_eq!(parse_in_default_project("org/a"), in_default("org/a"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (room, why) in [
            ("", NameRefused::Blank),
            ("  \u{a0}\u{3000}", NameRefused::Blank),
            ("org/ ", NameRefused::Blank),
            ("a\0b", NameRefused::Control),
            ("line\nbreak", NameRefused::Control),
            ("line\u{2028}break", NameRefused::Control),
            ("/x", NameRefused::Project),
            ("Org/x", NameRefused::Project),
            (&"x".repeat(201), NameRefused::TooLong),
            ("\u{200b}", NameRefused::Invisible),
            ("pl\u{200b}an", NameRefused::Invisible),
            ("\u{feff}plan", NameRefused::Invisible),
            ("pl\u{ad}an", NameRefused::Invisible),
            ("plan\u{200d}", NameRefused::Invisible),
            ("pl\u{200c}an", NameRefused::Invisible),
            ("plan\u{fe0f}", NameRefused::Invisible),
            ("plan 1\u{fe0f}", NameRefused::Invisible),
            ("\u{3164}", NameRefused::Invisible),
            ("org/\u{2060}", NameRefused::Invisible),
            ("..", NameRefused::DotSegment),
            ("org/a/../b", NameRefused::DotSegment),
            ("gpj.\u{202e}exe", NameRefused::Invisible),
            ("\u{2066}plan\u{2069}", NameRefused::Invisible),
            ("plan\u{200e}", NameRefused::Invisible),
        ] {
            assert_eq!(parse(room), Err(why), "{room:?}");
        }
    }

    #[test]
    fn what_people_write_is_a_name() {
        for name in [
            "plan (2)",
            "a:b",
            "user@host",
            "100%",
            "a%2Fb",
            " plan ",
            "\u{645}\u{6cc}\u{200c}\u{62e}\u{648}\u{627}\u{647}\u{645}", // Persian, with a non-joiner
            "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",               // a family
            "\u{2764}\u{fe0f}\u{200d}\u{1f525}",                         // a heart on fire
            "1\u{fe0f}\u{20e3}",                                         // a keycap
            "\u{5d0}\u{5d1}\u{5d2}",                                     // Hebrew needs no marks
        ] {
            assert_eq!(parse(name), in_default(name), "{name:?}");
        }
    }

    #[test]
    fn only_the_usual_form_of_a_uuid_is_an_id() {
        let id = DocumentId(Uuid::from_u128(0x0189_c0de_0000_7000_8000_0000_0000_abcd));
        let (usual, digits) = (id.to_string(), id.0.simple().to_string());
        assert_eq!(id_in(&usual), Some(id));
        assert_eq!(id_in(&usual.to_uppercase()), Some(id));
        assert_eq!(parse(&usual.to_uppercase()), in_default(&usual), "one room, however it is written");
        for other in [digits.clone(), digits.to_uppercase(), format!("{{{usual}}}"), format!("urn:uuid:{usual}")] {
            assert_eq!(id_in(&other), None, "{other}");
            assert_eq!(parse(&other), in_default(&other), "{other}");
        }
    }
}
