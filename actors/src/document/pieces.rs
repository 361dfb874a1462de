//! An update on its way to clients: whole, or in pieces where it is large.
//!
//! A client that is sent one large message over a slow connection gives up after 30 s without a whole one, and begins again. In pieces,
//! each message is a sign of life, and what has come before a cut need not be sent again.

use bytes::Bytes;
use contextnexus_gate::{Caps, Update};

/// An update, to be sent in this order. The last piece is what a step 2 carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InPieces {
    /// What goes before it: nothing where the update is small.
    pub before: Vec<Bytes>,
    /// The update, or the rest of it.
    pub last: Bytes,
}

impl From<Bytes> for InPieces {
    fn from(whole: Bytes) -> Self {
        Self { before: Vec::new(), last: whole }
    }
}

impl InPieces {
    /// Cuts an update that is larger than that.
    pub fn cut(update: Bytes, bytes_max: usize) -> Self {
        if update.len() <= bytes_max {
            return update.into();
        }
        match Update::parse(update.clone(), &Caps::of_the_log()) {
            Ok(parsed) => Self::of(&parsed, bytes_max),
            Err(_) => update.into(), // no document holds such a one
        }
    }

    /// The same for one that is parsed.
    pub fn of(update: &Update, bytes_max: usize) -> Self {
        let mut before = contextnexus_gate::pieces(update, bytes_max);
        let last = before.pop().unwrap_or_default();
        Self { before, last }
    }

    /// Every piece.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.before.iter().chain([&self.last])
    }

    /// Bytes of them all.
    pub fn bytes(&self) -> usize {
        self.iter().map(Bytes::len).sum()
    }
}
