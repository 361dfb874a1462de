//! Values that yrs does not write as it read them, wrapped so that it does.
//!
//! yrs decodes values when it folds an update and encodes them again for a state. On the way a BigInt becomes a Number,
//! -0 becomes 0, the keys of an object change their order, and a sub-document loses its `meta`. Such a value is folded
//! as something that yrs keeps byte for byte: a value as a buffer, JSON as a string, a whole sub-document as a guid.
//! Whatever yrs encodes is unwrapped before anybody else sees it. A wrapped value is part of its item, so splits,
//! deletes and garbage collection take it along, and there is no table to keep.

use std::ops::Range;

use bytes::Bytes;

use crate::block::Kind;
use crate::caps::Caps;
use crate::lib0::{Reader, write_var_bytes, write_var_string, write_var_uint};
use crate::malformed::{Malformed, Rule};
use crate::update::Update;
use crate::value::{skip_any, unescaped};

/// Every wrapped value begins with it. Anything that begins with it when it arrives is wrapped, too.
const MARK: char = '\u{10fffd}';
/// The same in UTF-8.
const MARK_BYTES: &[u8] = "\u{10fffd}".as_bytes();

/// What yrs is to fold in place of `update`. `None`: the update itself.
pub fn wrapped(update: &Update) -> Option<Bytes> {
    rewritten(update, |rewriting, kind, content| match kind {
        Kind::Any => rewriting.each_value(content, |value| (!keeps_any(value)).then(|| wrapped_any(value))),
        Kind::Embed | Kind::Format => {
            rewriting.json(kind, content, |text| (!keeps_json(text)).then(|| wrapped_json(text)));
        }
        Kind::Document => {
            let bytes = rewriting.bytes(&content);
            rewriting.replace(content, &wrapped_document(bytes));
        }
        _ => {}
    })
}

/// An update that yrs has encoded, with every value as it came. It is parsed only if something in it may be wrapped.
pub fn unwrapped(encoded: Bytes) -> Result<Bytes, Malformed> {
    if !has_mark(&encoded) {
        return Ok(encoded);
    }
    let update = Update::parse(encoded.clone(), &Caps::of_the_log())?;
    let unwrapped = rewritten(&update, |rewriting, kind, content| match kind {
        Kind::Any => rewriting.each_value(content, unwrapped_any),
        Kind::Embed | Kind::Format => rewriting.json(kind, content, unwrapped_json),
        Kind::Document => {
            if let Some(document) = unwrapped_document(rewriting.bytes(&content)) {
                rewriting.replace(content, &document);
            }
        }
        _ => {}
    });
    Ok(unwrapped.unwrap_or(encoded))
}

/// Whether yrs writes this value as it reads it. If that is not certain, the answer is no.
pub(crate) fn keeps_any(value: &[u8]) -> bool {
    read_kept(&mut Reader::new(value)).unwrap_or(false)
}

/// Reads a value as far as yrs writes the same.
fn read_kept(reader: &mut Reader<'_>) -> Result<bool, Rule> {
    let mut left = 1_u64;
    let mut is_outermost = true;
    while left > 0 {
        left -= 1;
        match reader.read_u8()? {
            127 | 126 | 121 | 120 => {}
            125 => {
                let is_negative_zero = reader.rest().first() == Some(&0x40);
                // yrs writes what is larger as a float.
                if reader.read_var_int()?.unsigned_abs() > 0x7fff_ffff || is_negative_zero {
                    return Ok(false);
                }
            }
            124 if f32::from_be_bytes(reader.take_array()?).is_nan() => return Ok(false),
            124 => {}
            123 => {
                let number = f64::from_be_bytes(reader.take_array()?);
                // Of a NaN nobody promises the bits; what fits into 32 bits is written with those.
                if number.is_nan() || f64::from(number as f32) == number {
                    return Ok(false);
                }
            }
            119 => {
                reader.read_var_bytes()?;
            }
            116 => {
                if reader.read_var_bytes()?.starts_with(MARK_BYTES) && is_outermost {
                    return Ok(false);
                }
            }
            117 => left = left.saturating_add(reader.read_var_uint()?),
            118 => match reader.read_var_uint()? {
                0 => {}
                1 => {
                    reader.read_var_bytes()?;
                    left += 1;
                }
                // yrs has no order of keys.
                _ => return Ok(false),
            },
            // A BigInt, which yrs takes for a number.
            _ => return Ok(false),
        }
        is_outermost = false;
    }
    Ok(true)
}

/// The same for JSON: no, if it has an escape, a number (yrs writes `1.0` for `1`), a space, or a second entry or
/// element.
pub(crate) fn keeps_json(text: &str) -> bool {
    let mut is_in_string = false;
    let is_kept = text.bytes().all(|byte| {
        is_in_string ^= byte == b'"';
        match byte {
            b'\\' => false,
            _ if is_in_string => true,
            b'"' | b'[' | b']' | b'{' | b'}' | b':' => true,
            byte => byte.is_ascii_lowercase(),
        }
    });
    is_kept && !text.strip_prefix('"').is_some_and(|text| text.starts_with(MARK))
}

fn wrapped_any(value: &[u8]) -> Vec<u8> {
    let mut wrapped = vec![116];
    write_var_uint(&mut wrapped, (MARK_BYTES.len() + value.len()) as u64);
    wrapped.extend_from_slice(MARK_BYTES);
    wrapped.extend_from_slice(value);
    wrapped
}

fn unwrapped_any(value: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(value);
    if reader.read_u8() != Ok(116) {
        return None;
    }
    reader.read_var_bytes().ok()?.strip_prefix(MARK_BYTES).map(<[u8]>::to_vec)
}

fn wrapped_json(text: &str) -> String {
    let mut wrapped = String::with_capacity(text.len() + text.len() / 4 + 8);
    wrapped.extend(['"', MARK]);
    for character in text.chars() {
        match character {
            '"' | '\\' => wrapped.extend(['\\', character]),
            // Only between values.
            '\n' => wrapped.push_str("\\n"),
            '\r' => wrapped.push_str("\\r"),
            '\t' => wrapped.push_str("\\t"),
            plain => wrapped.push(plain),
        }
    }
    wrapped.push('"');
    wrapped
}

fn unwrapped_json(text: &str) -> Option<String> {
    text.strip_prefix('"')?.strip_prefix(MARK)?.strip_suffix('"').map(unescaped)
}

/// Its guid is its content, each byte as a character; and it has no options.
fn wrapped_document(content: &[u8]) -> Vec<u8> {
    let guid: String = std::iter::once(MARK).chain(content.iter().map(|byte| char::from(*byte))).collect();
    let mut wrapped = Vec::with_capacity(guid.len() + 8);
    write_var_string(&mut wrapped, &guid);
    wrapped.extend([118, 0]);
    wrapped
}

fn unwrapped_document(content: &[u8]) -> Option<Vec<u8>> {
    let guid = Reader::new(content).read_var_string().ok()?.strip_prefix(MARK)?;
    guid.chars().map(|character| u8::try_from(character).ok()).collect()
}

fn has_mark(bytes: &[u8]) -> bool {
    let [first, ..] = *MARK_BYTES else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(MARK_BYTES) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// The update with what `rewrite` does to the content of its blocks. `None`: it did nothing.
fn rewritten(update: &Update, mut rewrite: impl FnMut(&mut Rewriting<'_>, Kind, Range<usize>)) -> Option<Bytes> {
    let mut rewriting = Rewriting { from: &update.bytes, copied: 0, into: Vec::new() };
    for section in &update.sections {
        for index in section.blocks.clone() {
            let Some(view) = update.view(section, index) else { continue };
            let content = view.block.content as usize..update.block_end(section, index) as usize;
            rewrite(&mut rewriting, view.kind(), content);
        }
    }
    rewriting.finish()
}

/// Bytes on their way into another update, in order.
struct Rewriting<'a> {
    from: &'a [u8],
    /// So far everything is written.
    copied: usize,
    into: Vec<u8>,
}

impl<'a> Rewriting<'a> {
    fn bytes(&self, at: &Range<usize>) -> &'a [u8] {
        self.from.get(at.clone()).unwrap_or_default()
    }

    fn replace(&mut self, at: Range<usize>, with: &[u8]) {
        if self.copied == 0 {
            self.into.reserve(self.from.len() + with.len());
        }
        self.into.extend_from_slice(self.from.get(self.copied..at.start).unwrap_or_default());
        self.into.extend_from_slice(with);
        self.copied = at.end;
    }

    /// Replaces values of a list. It was read once before; whatever could fail failed then.
    fn each_value(&mut self, content: Range<usize>, replacement: impl Fn(&[u8]) -> Option<Vec<u8>>) {
        let mut reader = Reader::new(self.bytes(&content));
        for _ in 0..reader.read_var_uint().unwrap_or_default() {
            let start = content.start + reader.at();
            if skip_any(&mut reader, usize::MAX).is_err() {
                return;
            }
            let value = start..content.start + reader.at();
            if let Some(with) = replacement(self.bytes(&value)) {
                self.replace(value, &with);
            }
        }
    }

    /// Replaces the JSON of an embed or a format.
    fn json(&mut self, kind: Kind, content: Range<usize>, replacement: impl Fn(&str) -> Option<String>) {
        let mut reader = Reader::new(self.bytes(&content));
        if kind == Kind::Format && reader.read_var_bytes().is_err() {
            return;
        }
        let start = content.start + reader.at();
        let Ok(text) = reader.read_var_string() else { return };
        if let Some(with) = replacement(text) {
            let mut written = Vec::with_capacity(with.len() + 8);
            write_var_bytes(&mut written, with.as_bytes());
            self.replace(start..content.end, &written);
        }
    }

    fn finish(mut self) -> Option<Bytes> {
        if self.copied == 0 {
            return None;
        }
        self.into.extend_from_slice(self.from.get(self.copied..).unwrap_or_default());
        Some(self.into.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use yrs::Any;
    use yrs::updates::encoder::{Encoder as _, EncoderV1};

    /// A value as yrs writes it once it has read it.
    fn by_yrs(value: &[u8]) -> Vec<u8> {
        let mut encoder = EncoderV1::new();
        encoder.write_any(&Any::decode(&mut yrs::encoding::read::Cursor::new(value)).unwrap());
        yrs::updates::encoder::Encoder::to_vec(encoder)
    }

    fn json_by_yrs(text: &str) -> String {
        let mut written = String::new();
        Any::from_json(text).unwrap().to_json(&mut written);
        written
    }

    fn any_value() -> impl Strategy<Value = Vec<u8>> {
        let string = || "[a-c\u{10fffd}é]{0,3}".prop_map(|text| [&[text.len() as u8][..], text.as_bytes()].concat());
        let leaf = prop_oneof![
            prop::sample::select(vec![127, 126, 121, 120]).prop_map(|tag| vec![tag]),
            (0..0x80u8).prop_map(|byte| vec![125, byte]),
            (0..0x80u8, 1..0x80u8).prop_map(|(low, high)| vec![125, low | 0x80, 0xff, 0xff, 0xff, high]),
            any::<f32>().prop_map(|number| [&[124][..], &number.to_be_bytes()].concat()),
            any::<u64>().prop_map(|bits| [&[123][..], &bits.to_be_bytes()].concat()),
            any::<f32>().prop_map(|number| [&[123][..], &f64::from(number).to_be_bytes()].concat()),
            any::<i64>().prop_map(|number| [&[122][..], &number.to_be_bytes()].concat()),
            string().prop_map(|text| [vec![119], text].concat()),
            string().prop_map(|bytes| [vec![116], bytes].concat()),
        ];
        leaf.prop_recursive(3, 12, 3, move |inner| {
            let array = prop::collection::vec(inner.clone(), 0..3)
                .prop_map(|items| [vec![117, items.len() as u8], items.concat()].concat());
            let map = prop::collection::vec((string(), inner), 0..3).prop_map(|entries| {
                let count = entries.len() as u8;
                let entries: Vec<u8> = entries.into_iter().flat_map(|(key, value)| [key, value].concat()).collect();
                [vec![118, count], entries].concat()
            });
            prop_oneof![array, map]
        })
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            prop::sample::select(vec![
                "null",
                "true",
                "false",
                "0",
                "-0",
                "1",
                "1.5",
                "1e9",
                "\"\\n\"",
                "\" \\u00e9\""
            ])
            .prop_map(str::to_owned),
            "[a-c,:1\u{10fffd}é{]{0,3}".prop_map(|text| format!("\"{text}\"")),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::vec(("[a-c1]{0,2}", inner), 0..3).prop_map(|entries| {
                    let entries: Vec<String> =
                        entries.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                    format!("{{{}}}", entries.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_kept_yrs_writes_as_it_came_and_what_is_wrapped_too(value in any_value()) {
            if keeps_any(&value) {
                prop_assert_eq!(by_yrs(&value), value.clone());
                prop_assert_eq!(unwrapped_any(&value), None);
            } else {
                let wrapped = wrapped_any(&value);
                prop_assert_eq!(by_yrs(&wrapped), wrapped.clone());
                prop_assert_eq!(unwrapped_any(&wrapped), Some(value));
            }
        }

        #[test]
        fn json_that_is_kept_yrs_writes_as_it_came_and_what_is_wrapped_too(text in json()) {
            if keeps_json(&text) {
                prop_assert_eq!(json_by_yrs(&text), text.clone());
                prop_assert_eq!(unwrapped_json(&text), None);
            } else {
                prop_assert_eq!(unwrapped_json(&json_by_yrs(&wrapped_json(&text))), Some(text));
            }
        }

        #[test]
        fn a_sub_document_is_unwrapped_to_what_it_was(content in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(unwrapped_document(&wrapped_document(&content)), Some(content));
        }
    }

    #[test]
    fn what_most_editors_write_is_not_wrapped() {
        for value in [&[119, 1, b'x'][..], &[125, 5], &[120], &[118, 1, 1, b'a', 117, 2, 126, 125, 1], &[116, 1, 7]] {
            assert!(keeps_any(value), "{value:?}");
        }
        assert!(keeps_any(&[&[123][..], &0.1_f64.to_be_bytes()].concat()));
        for text in ["true", "null", "\"#ff0000, é\"", "{}", "{\"href\":\"https://example.org/?a=1,2\"}"] {
            assert!(keeps_json(text), "{text}");
        }
    }

    #[test]
    fn text_is_neither_copied_nor_read_again() {
        let bytes = Bytes::from_static(&[1, 1, 1, 0, 4, 1, 1, b't', 2, b'h', b'i', 0]);
        let update = Update::parse(bytes.clone(), &Caps::default()).unwrap();
        assert_eq!(wrapped(&update), None);
        assert_eq!(unwrapped(bytes.clone()).unwrap().as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn the_mark_is_found_wherever_it_is() {
        for (bytes, is_there) in [
            (&b""[..], false),
            (b"\xf4\x8f\xbf", false),
            (b"\xf4\x8f\xbf\xbd", true),
            (b"\xf4\xf4\x8f\xbf\xf4\x8f\xbf\xbd", true),
        ] {
            assert_eq!(has_mark(bytes), is_there, "{bytes:?}");
        }
    }
}
