//! What may be wrong with a forged update.

/// The flaws, and all of them in a list.
macro_rules! flaws {
    ($($flaw:ident),+ $(,)?) => {
        /// What is wrong with a forged update. Each aims at one check of the gate.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Flaw {
            $($flaw),+
        }

        pub const FLAWS: &[Flaw] = &[$(Flaw::$flaw),+];
    };
}

flaws! {
    LongNumber,
    LargeNumber,
    LargeClock,
    NotUtf8,
    EmptyBlock,
    JsonContent,
    MoveContent,
    UnknownKind,
    WeakLink,
    XmlHook,
    UnknownType,
    UnknownValue,
    DeepValue,
    NotJson,
    Options,
    LongRootName,
    LongKey,
    UnknownParent,
    Ahead,
    SameOrigins,
    ParentNotAType,
    TwoPlaces,
    TextUnderKey,
    DeepType,
    Reversed,
    UnknownReference,
    Gap,
    Skip,
    Overlap,
    Fork,
    Circle,
    EmptySection,
    TwoSections,
    TwoDeletes,
    UnsortedDeletes,
    EmptyDelete,
    DeleteAhead,
    Trailing,
    ManyClients,
    TooLarge,
}
