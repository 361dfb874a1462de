//! The document as plain text, for people, search and language models.

use super::decode::{Content, TypeKind};
use super::fold::{Folded, Item, NONE};
use super::out::Out;
use super::{ExportError, any};
use std::time::Instant;

enum Frame<'f> {
    /// A sequence from this item on.
    Sequence {
        next: u32,
    },
    Entries {
        left: std::vec::IntoIter<&'f Item<'f>>,
    },
    /// Ends a line, if anything stands in it.
    Line,
}

pub(super) fn write(document: &Folded<'_>, deadline: Instant) -> Result<String, ExportError> {
    let mut writer = Writer { document, out: Out::new(deadline), frames: Vec::new() };
    for root in document.roots.values() {
        writer.line()?;
        writer.open(*root, true);
        while let Some(frame) = writer.frames.pop() {
            writer.frame(frame)?;
        }
    }
    Ok(writer.out.text)
}

struct Writer<'f> {
    document: &'f Folded<'f>,
    out: Out,
    frames: Vec<Frame<'f>>,
}

impl<'f> Writer<'f> {
    fn line(&mut self) -> Result<(), ExportError> {
        if self.out.text.is_empty() || self.out.text.ends_with('\n') { Ok(()) } else { self.out.push("\n") }
    }

    /// A type's sequence, and with `entries` what stands in its map.
    fn open(&mut self, r#type: u32, entries: bool) {
        let start = self.document.types.get(r#type as usize).map_or(NONE, |r#type| r#type.start);
        if entries {
            let entries: Vec<_> = self.document.entries(r#type).map(|(_, item)| item).collect();
            self.frames.push(Frame::Entries { left: entries.into_iter() });
        }
        self.frames.push(Frame::Sequence { next: start });
    }

    fn frame(&mut self, frame: Frame<'f>) -> Result<(), ExportError> {
        match frame {
            Frame::Line => self.line(),
            Frame::Sequence { next } => {
                let Some(item) = self.document.item(next) else { return Ok(()) };
                self.frames.push(Frame::Sequence { next: item.right });
                if item.block.deleted { self.out.push("") } else { self.item(item) }
            }
            Frame::Entries { mut left } => {
                let Some(item) = left.next() else { return Ok(()) };
                self.frames.push(Frame::Entries { left });
                self.line()?;
                self.item(item)
            }
        }
    }

    fn item(&mut self, item: &'f Item<'f>) -> Result<(), ExportError> {
        match item.block.content {
            Content::Text { text, cut_start, cut_end } => {
                if cut_start {
                    self.out.push("\u{fffd}")?;
                }
                self.out.push(text)?;
                if cut_end { self.out.push("\u{fffd}") } else { Ok(()) }
            }
            Content::Type(kind) => {
                // A text continues its line; everything else is a block of its own.
                if !matches!(kind, TypeKind::Text | TypeKind::XmlText) {
                    self.line()?;
                    self.frames.push(Frame::Line);
                }
                // The attributes of an element (a colour, an address) are no text of it.
                self.open(item.holds, matches!(kind, TypeKind::Map));
                Ok(())
            }
            Content::Values { first, len } => {
                for at in first..first + len {
                    let Some(bytes) = self.document.values.get(at as usize) else { continue };
                    self.line()?;
                    self.value(bytes)?;
                }
                Ok(())
            }
            Content::Embed(_)
            | Content::Format { .. }
            | Content::Binary(_)
            | Content::Document(_)
            | Content::Gone
            | Content::Collected => self.out.push(""),
        }
    }

    /// A string as it is, anything else as JSON.
    fn value(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        if bytes.first() == Some(&119) {
            let mut text = contextnexus_gate::lib0::Reader::new(bytes.get(1..).unwrap_or_default());
            self.out.push(text.read_var_string().map_err(any::unreadable)?)
        } else {
            any::write(bytes, &mut self.out)
        }
    }
}
