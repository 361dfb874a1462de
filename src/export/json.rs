//! The document as JSON: an object of [`Exported`](super::Exported) by root name. A walk with a stack of its own.

use super::decode::{Content, TypeKind};
use super::fold::{Folded, Item, NONE, RootKind};
use super::out::Out;
use super::{ExportError, any};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::time::Instant;

/// What is still to be written. The last one is next.
enum Frame<'f> {
    /// This, as it is.
    Text(&'static str),
    /// This, as it is.
    Owned(String),
    /// The items of an array or of XML from this one on; `true` once a comma is needed.
    Items { next: u32, comma: bool, xml: bool },
    /// The entries of a map or the attributes of an element.
    Entries { left: std::vec::IntoIter<(&'f str, &'f Item<'f>)>, comma: bool },
    /// The rest of a delta, with the formats that hold there.
    Delta { next: u32, comma: bool, formats: BTreeMap<&'f str, &'f str> },
}

pub(super) fn write(document: &Folded<'_>, deadline: Instant) -> Result<String, ExportError> {
    let mut writer = Writer { document, out: Out::new(deadline), frames: Vec::new() };
    writer.out.push("{")?;
    for (n, (name, root)) in document.roots.iter().enumerate() {
        if n > 0 {
            writer.out.push(",")?;
        }
        writer.out.push_string(name)?;
        writer.out.push(":")?;
        writer.root(*root)?;
    }
    writer.out.push("}")?;
    Ok(writer.out.text)
}

struct Writer<'f> {
    document: &'f Folded<'f>,
    out: Out,
    frames: Vec<Frame<'f>>,
}

impl<'f> Writer<'f> {
    fn root(&mut self, root: u32) -> Result<(), ExportError> {
        match self.document.kind_of_root(root) {
            RootKind::Empty => return self.out.push(r#"{"kind":"empty"}"#),
            RootKind::Text | RootKind::Embeds => {
                self.out.push(r#"{"kind":"text","#)?;
                self.text_and_delta(root)?;
            }
            RootKind::Map => {
                self.out.push(r#"{"kind":"map","value":"#)?;
                self.frames.push(Frame::Text("}"));
                self.map(root)?;
            }
            RootKind::Array => {
                self.out.push(r#"{"kind":"array","value":["#)?;
                self.frames.push(Frame::Text("}"));
                self.items(root, false);
            }
            RootKind::Xml => {
                self.out.push(r#"{"kind":"xml","value":["#)?;
                self.frames.push(Frame::Text("}"));
                self.items(root, true);
            }
        }
        while let Some(frame) = self.frames.pop() {
            self.frame(frame)?;
        }
        Ok(())
    }

    fn start(&self, r#type: u32) -> u32 {
        self.document.types.get(r#type as usize).map_or(NONE, |r#type| r#type.start)
    }

    fn items(&mut self, r#type: u32, xml: bool) {
        self.frames.push(Frame::Items { next: self.start(r#type), comma: false, xml });
    }

    fn map(&mut self, r#type: u32) -> Result<(), ExportError> {
        self.out.push("{")?;
        let entries: Vec<_> = self.document.entries(r#type).collect();
        self.frames.push(Frame::Entries { left: entries.into_iter(), comma: false });
        Ok(())
    }

    /// `"text":"…","delta":[…]}`: the brace is this one's.
    fn text_and_delta(&mut self, r#type: u32) -> Result<(), ExportError> {
        self.out.push("\"text\":")?;
        self.plain_text(r#type)?;
        self.out.push(",\"delta\":[")?;
        self.frames.push(Frame::Text("}"));
        self.frames.push(Frame::Delta { next: self.start(r#type), comma: false, formats: BTreeMap::new() });
        Ok(())
    }

    /// The text of a type as one JSON string.
    fn plain_text(&mut self, r#type: u32) -> Result<(), ExportError> {
        let document = self.document;
        self.out.push("\"")?;
        for item in document.sequence(r#type) {
            if let Content::Text { text, cut_start, cut_end } = item.block.content {
                self.piece(text, cut_start, cut_end)?;
            }
        }
        self.out.push("\"")
    }

    fn piece(&mut self, text: &str, cut_start: bool, cut_end: bool) -> Result<(), ExportError> {
        if cut_start {
            self.out.push("\u{fffd}")?;
        }
        self.out.push_escaped(text)?;
        if cut_end { self.out.push("\u{fffd}") } else { Ok(()) }
    }

    fn frame(&mut self, frame: Frame<'f>) -> Result<(), ExportError> {
        match frame {
            Frame::Text(text) => self.out.push(text),
            Frame::Owned(text) => self.out.push(&text),
            Frame::Items { next, comma, xml } => self.next_item(next, comma, xml),
            Frame::Entries { mut left, comma } => {
                let Some((key, item)) = left.next() else { return self.out.push("}") };
                if comma {
                    self.out.push(",")?;
                }
                self.out.push_string(key)?;
                self.out.push(":")?;
                self.frames.push(Frame::Entries { left, comma: true });
                self.entry(item)
            }
            Frame::Delta { next, comma, formats } => self.next_insert(next, comma, formats),
        }
    }

    /// The value of a map entry: the last one, where a block holds several.
    fn entry(&mut self, item: &'f Item<'f>) -> Result<(), ExportError> {
        match item.block.content {
            Content::Values { first, len } => self.value(first + len.saturating_sub(1)),
            _ => self.single(item, false),
        }
    }

    fn value(&mut self, at: u32) -> Result<(), ExportError> {
        match self.document.values.get(at as usize) {
            Some(bytes) => any::write(bytes, &mut self.out),
            None => self.out.push("null"),
        }
    }

    fn next_item(&mut self, next: u32, comma: bool, xml: bool) -> Result<(), ExportError> {
        let Some(item) = self.document.item(next) else { return self.out.push("]") };
        let shown = !item.block.deleted && !matches!(item.block.content, Content::Format { .. });
        if shown && comma {
            self.out.push(",")?;
        }
        self.frames.push(Frame::Items { next: item.right, comma: comma || shown, xml });
        if !shown {
            return self.out.push(""); // a step towards the deadline
        }
        match item.block.content {
            Content::Values { first, len } => {
                for at in 0..len {
                    if at > 0 {
                        self.out.push(",")?;
                    }
                    self.value(first + at)?;
                }
                Ok(())
            }
            _ => self.single(item, xml),
        }
    }

    /// One thing that is neither a list of values nor a format.
    fn single(&mut self, item: &'f Item<'f>, xml: bool) -> Result<(), ExportError> {
        match item.block.content {
            Content::Type(kind) => self.nested(kind, item.holds, xml),
            Content::Text { text, cut_start, cut_end } => {
                self.out.push("\"")?;
                self.piece(text, cut_start, cut_end)?;
                self.out.push("\"")
            }
            Content::Embed(json) => self.out.push_json(json),
            Content::Binary(bytes) => self.out.push_string(&STANDARD.encode(bytes)),
            Content::Document(guid) => {
                self.out.push("{\"document\":")?;
                self.out.push_string(guid)?;
                self.out.push("}")
            }
            Content::Values { first, .. } => self.value(first),
            Content::Format { .. } | Content::Gone | Content::Collected => self.out.push("null"),
        }
    }

    fn nested(&mut self, kind: TypeKind<'f>, holds: u32, xml: bool) -> Result<(), ExportError> {
        match kind {
            TypeKind::Map => self.map(holds),
            TypeKind::Array => {
                self.out.push("[")?;
                self.items(holds, false);
                Ok(())
            }
            TypeKind::Fragment => {
                self.out.push("[")?;
                self.items(holds, true);
                Ok(())
            }
            TypeKind::XmlText | TypeKind::Text if xml => {
                self.out.push("{")?;
                self.text_and_delta(holds)
            }
            TypeKind::XmlText | TypeKind::Text => self.plain_text(holds),
            TypeKind::Element(name) => {
                self.out.push("{\"element\":")?;
                self.out.push_string(name)?;
                self.out.push(",\"attributes\":")?;
                self.frames.push(Frame::Text("}"));
                self.items(holds, true);
                self.frames.push(Frame::Text(",\"children\":["));
                self.map(holds)
            }
        }
    }

    fn next_insert(
        &mut self,
        next: u32,
        comma: bool,
        mut formats: BTreeMap<&'f str, &'f str>,
    ) -> Result<(), ExportError> {
        // Pieces side by side with the same formats are one insert.
        let mut at = next;
        let mut open: Option<BTreeMap<_, _>> = None;
        while let Some(item) = self.document.item(at) {
            match item.block.content {
                _ if item.block.deleted => self.out.push("")?, // a step towards the deadline
                Content::Text { text, cut_start, cut_end } => {
                    match &open {
                        Some(open) if *open != formats => break,
                        Some(_) => {}
                        None => {
                            self.begin_insert(comma)?;
                            self.out.push("\"")?;
                            open = Some(formats.clone());
                        }
                    }
                    self.piece(text, cut_start, cut_end)?;
                }
                Content::Format { key, value: "null" } => drop(formats.remove(key)),
                Content::Format { key, value } => drop(formats.insert(key, value)),
                _ if open.is_some() => break,
                _ => {
                    self.begin_insert(comma)?;
                    let attributes = attributes(&formats)?;
                    self.frames.push(Frame::Delta { next: item.right, comma: true, formats });
                    self.frames.push(Frame::Owned(attributes));
                    return self.single(item, false);
                }
            }
            at = item.right;
        }
        let Some(open) = open else { return self.out.push("]") };
        self.out.push("\"")?;
        let attributes = attributes(&open)?;
        self.out.push(&attributes)?;
        self.frames.push(Frame::Delta { next: at, comma: true, formats });
        Ok(())
    }

    fn begin_insert(&mut self, comma: bool) -> Result<(), ExportError> {
        self.out.push(if comma { ",{\"insert\":" } else { "{\"insert\":" })
    }
}

/// The end of an insert: its formats, and the brace.
fn attributes(formats: &BTreeMap<&str, &str>) -> Result<String, ExportError> {
    if formats.is_empty() {
        return Ok("}".into());
    }
    let attributes: BTreeMap<_, serde_json::Value> =
        formats.iter().map(|(key, value)| (*key, serde_json::from_str(value).unwrap_or_default())).collect();
    let text = serde_json::to_string(&attributes).map_err(|_| ExportError::Unreadable("a format"))?;
    Ok(format!(",\"attributes\":{text}}}"))
}
