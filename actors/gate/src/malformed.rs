//! Why bytes were refused before anything was compared with a document.

use std::fmt;

/// Bytes that no honest client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule} (at byte {offset})")]
pub struct Malformed {
    /// The first rule that the bytes break.
    pub rule: Rule,
    /// Where reading stopped, in bytes from the start.
    pub offset: usize,
}

/// The rules that need no knowledge of the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// More bytes than the cap.
    TooLarge,
    /// The bytes end too early, or claim more than they hold.
    Truncated,
    /// No v1 update, but what looks like one of the v2 format, which no Yjs provider sends.
    FormatV2,
    /// Bytes after the end.
    TrailingBytes,
    /// A number with a needless last group.
    NumberNotCanonical,
    /// A number beyond 2^53 - 1.
    NumberOutOfRange,
    /// A clock, or a clock plus a length, beyond 2^31 - 1.
    ClockOutOfRange,
    /// Text that is not UTF-8.
    NotUtf8,
    /// A client's section without blocks.
    EmptySection,
    /// Two sections of one client.
    DuplicateSection,
    /// A block of length zero.
    EmptyBlock,
    /// A content kind that Yjs does not have.
    UnknownKind,
    /// Content that only Yjs before version 13 wrote. yrs reads one value too many of it.
    JsonContent,
    /// Move content: an experiment of yrs that no released Yjs reads.
    MoveContent,
    /// A weak link: an experiment of yrs that no released Yjs reads.
    WeakLink,
    /// An XML hook. Yjs writes its name, yrs does not read it, and would take the name for the blocks that follow.
    XmlHook,
    /// A shared type that Yjs does not have.
    UnknownType,
    /// A tag that lib0 does not have.
    UnknownValue,
    /// Values nested beyond the cap.
    ValueTooDeep,
    /// JSON of a format or an embed, nested beyond what yrs reads.
    JsonTooDeep,
    /// Text that should be JSON and is not, or that yrs cannot read (half surrogates, numbers beyond its range).
    NotJson,
    /// Options of a sub-document that are no map.
    SubDocumentOptions,
    /// The name of a root type is longer than the cap.
    RootNameTooLong,
    /// The key of a map entry is longer than the cap.
    MapKeyTooLong,
    /// Neither a root type nor an item as parent.
    UnknownParent,
    /// A block that refers to itself or to what comes after it.
    RefersAhead,
    /// A block between one item and the same item.
    SameOrigins,
    /// Delete ranges that overlap or are not in order.
    DeletesUnsorted,
    /// A delete range of length zero.
    EmptyDelete,
    /// Two delete sections of one client.
    DuplicateDeletes,
    /// One client twice in a state vector or an awareness update.
    DuplicateClient,
    /// An awareness clock beyond 2^32 - 1.
    AwarenessClock,
    /// An awareness state larger than the cap.
    AwarenessStateTooLarge,
    /// More awareness entries than the cap.
    TooManyAwarenessEntries,
}

impl Rule {
    /// What is wrong, in a few words that hold no content; of a cap the name of its setting, too.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "an update is too large (update_bytes_max)",
            Self::FormatV2 => "an update in format v2; send format v1 (encodeStateAsUpdate, not encodeStateAsUpdateV2)",
            Self::Truncated => "ends too early",
            Self::TrailingBytes => "bytes follow after the end",
            Self::NumberNotCanonical => "a number is not in its shortest form",
            Self::NumberOutOfRange => "a number is beyond 2^53 - 1",
            Self::ClockOutOfRange => "a clock is beyond 2^31 - 1",
            Self::NotUtf8 => "text is not UTF-8",
            Self::EmptySection => "a client's section is empty",
            Self::DuplicateSection => "a client has two sections",
            Self::EmptyBlock => "a block is empty",
            Self::UnknownKind => "a block of an unknown kind",
            Self::JsonContent => "JSON content of Yjs before version 13",
            Self::MoveContent => "move content",
            Self::WeakLink => "a weak link",
            Self::XmlHook => "an XML hook",
            Self::UnknownType => "a shared type of an unknown kind",
            Self::UnknownValue => "a value of an unknown kind",
            Self::ValueTooDeep => "values are nested too deeply (value_depth_max)",
            Self::JsonTooDeep => "JSON of a format or an embed is nested more than 127 deep",
            Self::NotJson => "not JSON",
            Self::SubDocumentOptions => "options of a sub-document are no map",
            Self::RootNameTooLong => "the name of a root type is too long (root_name_bytes_max)",
            Self::MapKeyTooLong => "the key of a map entry or an attribute is too long (map_key_bytes_max)",
            Self::UnknownParent => "a parent of an unknown kind",
            Self::RefersAhead => "a block refers to itself or its own future",
            Self::SameOrigins => "origin and right origin are the same",
            Self::DeletesUnsorted => "delete ranges are not in order",
            Self::EmptyDelete => "a delete range is empty",
            Self::DuplicateDeletes => "a client has two delete sections",
            Self::DuplicateClient => "a client stands there twice",
            Self::AwarenessClock => "an awareness clock is out of range",
            Self::AwarenessStateTooLarge => "an awareness state is too large (awareness_state_bytes_max)",
            Self::TooManyAwarenessEntries => "too many awareness entries",
        }
    }

    /// The cap that was exceeded, by the name of its setting; none for what no setting admits.
    pub fn limit(self) -> Option<&'static str> {
        match self {
            Self::TooLarge => Some("update_bytes_max"),
            Self::ValueTooDeep => Some("value_depth_max"),
            Self::RootNameTooLong => Some("root_name_bytes_max"),
            Self::MapKeyTooLong => Some("map_key_bytes_max"),
            Self::AwarenessStateTooLarge => Some("awareness_state_bytes_max"),
            _ => None,
        }
    }

    pub(crate) fn at(self, offset: usize) -> Malformed {
        Malformed { rule: self, offset }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.reason())
    }
}
