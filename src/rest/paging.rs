//! Keyset paging: a page, and the cursor that leads to the next one.
//!
//! Lists go from the newest to the oldest. The cursor is the last item's key, so that what is added meanwhile shifts nothing.

use super::ApiError;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;

/// Which page.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// `next_cursor` of the page before; none for the first page.
    #[param(value_type = Option<String>)]
    pub(super) cursor: Option<Uuid>,
    /// Items on a page, 1 to 200; 50 unless told.
    #[param(minimum = 1, maximum = 200)]
    pub(super) limit: Option<u32>,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// Newest first.
    pub(super) items: Vec<T>,
    /// The `cursor` of the next page; `null` on the last one.
    pub(super) next_cursor: Option<String>,
}

/// Rows to ask for: one more than the page has, which tells whether there is a next one.
pub(super) fn rows(limit: Option<u32>) -> Result<i64, ApiError> {
    match limit.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(i64::from(limit) + 1),
        _ => Err(ApiError::field("limit", format!("1 to {LIMIT_MAX}"))),
    }
}

impl<T> Page<T> {
    /// A page without items.
    pub(super) fn empty() -> Self {
        Self { items: Vec::new(), next_cursor: None }
    }

    /// A page of the rows that [`rows`] asked for.
    pub(super) fn new<R>(mut found: Vec<R>, rows: i64, key: impl Fn(&R) -> String, show: impl Fn(R) -> T) -> Self {
        let limit = usize::try_from(rows - 1).unwrap_or(0);
        let more = found.len() > limit;
        found.truncate(limit);
        let next_cursor = if more { found.last().map(key) } else { None };
        Self { items: found.into_iter().map(show).collect(), next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_next_one_only_where_there_is_one() {
        let page = |found: Vec<u8>| Page::new(found, 3, u8::to_string, |item| item);
        assert_eq!((page(vec![9, 8, 7]).items, page(vec![9, 8, 7]).next_cursor), (vec![9, 8], Some("8".into())));
        assert_eq!((page(vec![9, 8]).items, page(vec![9, 8]).next_cursor), (vec![9, 8], None));
        assert_eq!(page(vec![]).next_cursor, None);
    }

    #[test]
    fn a_page_has_a_bounded_number_of_items() {
        assert_eq!(rows(None).unwrap(), 51);
        assert_eq!(rows(Some(200)).unwrap(), 201);
        assert!(rows(Some(0)).is_err() && rows(Some(201)).is_err());
    }
}
