//! What comes out: bounded in bytes and in time.

use super::{ExportError, OUTPUT_BYTES_MAX};
use std::time::Instant;

/// Looks at the clock now and then: reading it costs more than most steps.
#[derive(Debug)]
pub(super) struct Patience {
    deadline: Instant,
    steps: u32,
}

impl Patience {
    pub(super) fn new(deadline: Instant) -> Self {
        Self { deadline, steps: 0 }
    }

    /// One step more.
    pub(super) fn step(&mut self) -> Result<(), ExportError> {
        self.steps = self.steps.wrapping_add(1);
        if self.steps.is_multiple_of(4096) && Instant::now() > self.deadline {
            return Err(ExportError::TooSlow);
        }
        Ok(())
    }
}

/// A growing text.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) text: String,
    patience: Patience,
}

impl Out {
    pub(super) fn new(deadline: Instant) -> Self {
        Self { text: String::new(), patience: Patience::new(deadline) }
    }

    pub(super) fn push(&mut self, piece: &str) -> Result<(), ExportError> {
        self.patience.step()?;
        if self.text.len() + piece.len() > OUTPUT_BYTES_MAX {
            return Err(ExportError::TooLarge);
        }
        self.text.push_str(piece);
        Ok(())
    }

    /// As a JSON string without its quotation marks.
    pub(super) fn push_escaped(&mut self, piece: &str) -> Result<(), ExportError> {
        let mut plain_from = 0;
        for (at, byte) in piece.bytes().enumerate() {
            let escape = match byte {
                b'"' => "\\\"",
                b'\\' => "\\\\",
                b'\n' => "\\n",
                b'\r' => "\\r",
                b'\t' => "\\t",
                0..0x20 => "",
                _ => continue,
            };
            self.push(piece.get(plain_from..at).unwrap_or_default())?;
            if escape.is_empty() {
                self.push(&format!("\\u{byte:04x}"))?
            } else {
                self.push(escape)?
            }
            plain_from = at + 1;
        }
        self.push(piece.get(plain_from..).unwrap_or_default())
    }

    /// As a JSON string.
    pub(super) fn push_string(&mut self, piece: &str) -> Result<(), ExportError> {
        self.push("\"")?;
        self.push_escaped(piece)?;
        self.push("\"")
    }

    /// JSON text as a client sent it: read and written anew, so that what comes out is JSON whatever went in.
    pub(super) fn push_json(&mut self, text: &str) -> Result<(), ExportError> {
        let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default(); // bounds its own depth
        self.push(&value.to_string())
    }
}
