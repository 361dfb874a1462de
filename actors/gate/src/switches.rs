//! One check left out on purpose, so that a run of hostile updates can show that it would miss it.
//!
//! Without the feature `switches`, which only this crate's own tests ask for, every check is on and nothing here is compiled in.

use crate::malformed::Rule;

/// A check of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// One of the rules that need no document.
    Malformed(Rule),
    /// What is known is trimmed.
    Known,
    /// What does not follow on waits, a Skip included.
    Gap,
    /// What refers to something unknown waits.
    Reference,
    /// A delete beyond the known clock waits.
    DeleteGap,
    /// [`Refused::Circular`](crate::Refused::Circular).
    Circular,
    /// [`Refused::ParentNotAType`](crate::Refused::ParentNotAType).
    ParentNotAType,
    /// [`Refused::DifferentPlaces`](crate::Refused::DifferentPlaces).
    DifferentPlaces,
    /// [`Refused::UnfitForKey`](crate::Refused::UnfitForKey).
    UnfitForKey,
    /// [`Refused::RightOriginFirst`](crate::Refused::RightOriginFirst).
    RightOriginFirst,
    /// [`Refused::TooCostly`](crate::Refused::TooCostly).
    TooCostly,
    /// [`Refused::TypesTooDeep`](crate::Refused::TypesTooDeep).
    TypesTooDeep,
    /// [`Refused::TooManyClients`](crate::Refused::TooManyClients).
    TooManyClients,
}

#[cfg(feature = "switches")]
static OFF: std::sync::OnceLock<Check> = std::sync::OnceLock::new();

/// Leaves `check` out from now on, in this whole process. Only the first call counts.
#[cfg(feature = "switches")]
pub fn switch_off(check: Check) {
    let _ = OFF.set(check);
}

#[cfg(feature = "switches")]
#[inline]
pub(crate) fn is_on(check: Check) -> bool {
    OFF.get().is_none_or(|off| *off != check)
}

#[cfg(not(feature = "switches"))]
#[inline(always)]
pub(crate) const fn is_on(_check: Check) -> bool {
    true
}

impl Rule {
    #[inline]
    pub(crate) fn is_on(self) -> bool {
        is_on(Check::Malformed(self))
    }
}
