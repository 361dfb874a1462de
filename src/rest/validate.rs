//! Values of requests, checked before anything is asked of the database.

use super::ApiError;
use actix_web::error::JsonPayloadError;
use contextnexus_actors::ports::RoomName;
use contextnexus_actors::room;

/// What is wrong with a JSON body.
pub(super) fn json(error: &JsonPayloadError) -> ApiError {
    match error {
        JsonPayloadError::OverflowKnownLength { limit, .. } | JsonPayloadError::Overflow { limit } => {
            ApiError::TooLarge { limit: Some(*limit) }
        }
        JsonPayloadError::ContentType => ApiError::UnsupportedMediaType("application/json"),
        JsonPayloadError::Deserialize(error) => json_text(error),
        _ => ApiError::Malformed("the body cannot be read".into()),
    }
}

/// The same for a body that was read by hand. serde names the field and what was expected there.
pub(super) fn json_text(error: &serde_json::Error) -> ApiError {
    ApiError::Malformed(format!("body: {error}"))
}

/// Text for people: trimmed, not empty, bounded, without control characters.
pub(super) fn text(field: &'static str, value: &str, bytes_max: usize) -> Result<String, ApiError> {
    let value = value.trim();
    if value.is_empty() {
        Err(ApiError::field(field, "not empty"))
    } else if value.len() > bytes_max {
        Err(ApiError::field(field, format!("at most {bytes_max} bytes")))
    } else if value.chars().any(char::is_control) {
        Err(ApiError::field(field, "no control characters"))
    } else {
        Ok(value.to_owned())
    }
}

/// The name of a document, as it is stored.
pub(super) fn document_name(field: &'static str, value: &str) -> Result<String, ApiError> {
    room::normal_name(value).map_err(|why| ApiError::field(field, why.text()))
}

/// A name that may be stored from before [`document_name`] was as strict as it is: nothing but what PostgreSQL could
/// not compare.
pub(super) fn stored_name(field: &'static str, value: &str) -> Result<String, ApiError> {
    if value.len() > room::NAME_BYTES_MAX || value.contains(char::is_control) {
        return Err(ApiError::field(field, "a document name has at most 200 bytes and no control characters"));
    }
    Ok(value.to_owned())
}

/// A room as clients name it: the slug of its project, if one is named, and the document's name.
pub(super) fn room(field: &'static str, value: &str) -> Result<(Option<String>, String), ApiError> {
    match room::parse(value) {
        Ok(RoomName::Named { project, name }) => Ok((project, name)),
        Ok(RoomName::Id(id)) => Ok((None, id.to_string())),
        Err(why) => Err(ApiError::field(field, why.text())),
    }
}

/// Lower case letters, digits and hyphens, as in addresses.
pub(super) fn slug(field: &'static str, value: &str) -> Result<String, ApiError> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = value.as_bytes();
    let fits = (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| inner(*b) || *b == b'-')
        && bytes.first().copied().is_some_and(inner)
        && bytes.last().copied().is_some_and(inner);
    if fits {
        Ok(value.to_owned())
    } else {
        Err(ApiError::field(field, "1 to 63 of a–z, 0–9 and hyphens, with no hyphen at either end"))
    }
}

/// A number of seconds.
pub(super) fn seconds(
    field: &'static str,
    value: Option<u32>,
    default: u32,
    range: std::ops::RangeInclusive<u32>,
) -> Result<u32, ApiError> {
    let value = value.unwrap_or(default);
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(ApiError::field(field, format!("{} to {}", range.start(), range.end())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_refused_says_why() {
        assert_eq!(document_name("name", "e\u{301}tude / 1").unwrap(), "\u{e9}tude / 1");
        let refused = document_name("name", "\u{200b}").unwrap_err();
        assert_eq!(refused.to_string(), "name: a document name has no invisible characters");
    }

    #[test]
    fn slugs_are_those_that_the_table_takes() {
        for good in ["a", "a-1", &"x".repeat(63)] {
            assert!(slug("slug", good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a b", "é", &"x".repeat(64), "a\0"] {
            assert!(slug("slug", bad).is_err(), "{bad:?}");
        }
    }
}
