//! Why bytes were refused before anything was compared with a document.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rule {
    /// More bytes than the cap.
    #[error("larger than the cap")]
    TooLarge,
    /// The bytes end too early, or claim more than they hold.
    #[error("ends too early")]
    Truncated,
    /// No v1 update, but what looks like one of the v2 format, which no Yjs provider sends.
    #[error("an update in format v2; send format v1 (encodeStateAsUpdate, not encodeStateAsUpdateV2)")]
    FormatV2,
    /// Bytes after the end.
    #[error("bytes follow after the end")]
    TrailingBytes,
    /// A number with a needless last group.
    #[error("a number is not in its shortest form")]
    NumberNotCanonical,
    /// A number beyond 2^53 - 1.
    #[error("a number is beyond 2^53 - 1")]
    NumberOutOfRange,
    /// A clock, or a clock plus a length, beyond 2^31 - 1.
    #[error("a clock is beyond 2^31 - 1")]
    ClockOutOfRange,
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// A client's section without blocks.
    #[error("a client's section is empty")]
    EmptySection,
    /// Two sections of one client.
    #[error("a client has two sections")]
    DuplicateSection,
    /// A block of length zero.
    #[error("a block is empty")]
    EmptyBlock,
    /// A content kind that Yjs does not have.
    #[error("a block of an unknown kind")]
    UnknownKind,
    /// Content that only Yjs before version 13 wrote. yrs reads one value too many of it.
    #[error("JSON content of Yjs before version 13")]
    JsonContent,
    /// Move content: an experiment of yrs that no released Yjs reads.
    #[error("move content")]
    MoveContent,
    /// A weak link: an experiment of yrs that no released Yjs reads.
    #[error("a weak link")]
    WeakLink,
    /// An XML hook. Yjs writes its name, yrs does not read it, and would take the name for the blocks that follow.
    #[error("an XML hook")]
    XmlHook,
    /// A shared type that Yjs does not have.
    #[error("a shared type of an unknown kind")]
    UnknownType,
    /// A tag that lib0 does not have.
    #[error("a value of an unknown kind")]
    UnknownValue,
    /// Values nested beyond the cap.
    #[error("values are nested too deeply")]
    ValueTooDeep,
    /// Text that should be JSON and is not, or that yrs cannot read (half surrogates, numbers beyond its range).
    #[error("not JSON")]
    NotJson,
    /// Options of a sub-document that are no map.
    #[error("options of a sub-document are no map")]
    SubDocumentOptions,
    /// The name of a root type is longer than the cap.
    #[error("the name of a root type is too long")]
    RootNameTooLong,
    /// The key of a map entry is longer than the cap.
    #[error("the key of a map entry is too long")]
    MapKeyTooLong,
    /// Neither a root type nor an item as parent.
    #[error("a parent of an unknown kind")]
    UnknownParent,
    /// A block that refers to itself or to what comes after it.
    #[error("a block refers to itself or its own future")]
    RefersAhead,
    /// A block between one item and the same item.
    #[error("origin and right origin are the same")]
    SameOrigins,
    /// Delete ranges that overlap or are not in order.
    #[error("delete ranges are not in order")]
    DeletesUnsorted,
    /// A delete range of length zero.
    #[error("a delete range is empty")]
    EmptyDelete,
    /// Two delete sections of one client.
    #[error("a client has two delete sections")]
    DuplicateDeletes,
    /// One client twice in a state vector or an awareness update.
    #[error("a client stands there twice")]
    DuplicateClient,
    /// An awareness clock beyond 2^32 - 1.
    #[error("an awareness clock is out of range")]
    AwarenessClock,
    /// An awareness state larger than the cap.
    #[error("an awareness state is too large")]
    AwarenessStateTooLarge,
    /// More awareness entries than the cap.
    #[error("too many awareness entries")]
    TooManyAwarenessEntries,
}

impl Rule {
    pub(crate) fn at(self, offset: usize) -> Malformed {
        Malformed { rule: self, offset }
    }
}
