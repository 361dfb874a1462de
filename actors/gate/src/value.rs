//! Values inside blocks: lib0's `Any` and JSON text. They are checked, not built: nothing is allocated but one stack entry per
//! level, and the level is capped.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use crate::lib0::Reader;
use crate::malformed::Rule;

/// What stands in a value.
#[derive(Hash)]
pub(crate) enum Token<'a> {
    Number(u64),
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    /// A literal, or the begin of a map or an array.
    Sign(u8),
}

fn number(number: f64) -> Token<'static> {
    // Zero has two forms.
    Token::Number((number + 0.0).to_bits())
}

/// Reads over one `Any` value.
pub(crate) fn skip_any(reader: &mut Reader<'_>, depth_max: usize) -> Result<(), Rule> {
    let tag = reader.read_u8()?;
    walk_any(reader, tag, depth_max, |_| {})
}

/// Reads over one `Any` value whose first tag was read already, and shows what stands in it.
pub(crate) fn walk_any<'a>(
    reader: &mut Reader<'a>,
    first: u8,
    depth_max: usize,
    mut show: impl FnMut(Token<'a>),
) -> Result<(), Rule> {
    struct Level {
        left: u64,
        keyed: bool,
    }
    let mut levels: Vec<Level> = Vec::new();
    let mut tag = first;
    loop {
        match tag {
            127 | 126 | 121 | 120 => show(Token::Sign(tag)),
            125 => {
                let whole = reader.read_var_int()?;
                show(number(whole as f64));
            }
            124 => {
                let bytes = reader.take_array()?;
                show(number(f32::from_be_bytes(bytes).into()));
            }
            123 => {
                let bytes = reader.take_array()?;
                show(number(f64::from_be_bytes(bytes)));
            }
            122 => {
                let bytes = reader.take_array()?;
                show(number(i64::from_be_bytes(bytes) as f64));
            }
            119 => {
                let text = reader.read_var_string()?;
                show(Token::Text(Cow::Borrowed(text)));
            }
            116 => {
                let bytes = reader.read_var_bytes()?;
                show(Token::Bytes(bytes));
            }
            118 | 117 => {
                let keyed = tag == 118;
                let left = reader.read_var_uint()?;
                // A value takes a byte at least, an entry of a map two.
                if left > reader.remaining() as u64 {
                    return Err(Rule::Truncated);
                }
                if levels.len() >= depth_max && Rule::ValueTooDeep.is_on() {
                    return Err(Rule::ValueTooDeep);
                }
                show(Token::Sign(tag));
                levels.push(Level { left, keyed });
            }
            _ if Rule::UnknownValue.is_on() => return Err(Rule::UnknownValue),
            _ => {}
        }
        loop {
            let Some(level) = levels.last_mut() else { return Ok(()) };
            if level.left > 0 {
                level.left -= 1;
                if level.keyed {
                    let key = reader.read_var_string()?;
                    show(Token::Text(Cow::Borrowed(key)));
                }
                tag = reader.read_u8()?;
                break;
            }
            levels.pop();
        }
    }
}

/// What JavaScript writes and yrs cannot read, and what stands there instead. It is as long as what it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mend {
    at: u32,
    what: Mended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mended {
    /// The four digits of an escaped half surrogate: those of U+FFFD.
    HalfSurrogate,
    /// The last two digits of a whole number from 2^63 to 2^64: an exponent. JavaScript writes 17 digits that count and then
    /// zeros, and has no number between two that differ in these two digits alone.
    WholeNumber,
}

/// A copy of `bytes` with every mend made.
pub(crate) fn mended(bytes: &[u8], mends: &[Mend]) -> Bytes {
    let mut copy = bytes.to_vec();
    for mend in mends {
        let with: &[u8] = match mend.what {
            Mended::HalfSurrogate => b"fffd",
            Mended::WholeNumber => b"e2",
        };
        let at = mend.at as usize;
        if let Some(place) = copy.get_mut(at..at + with.len()) {
            place.copy_from_slice(with);
        }
    }
    copy.into()
}

/// Checks that `text`, which stands at `offset`, is exactly one JSON value, and notes what must be mended before yrs reads it.
pub(crate) fn check_json_for_yrs(
    text: &str,
    depth_max: usize,
    offset: usize,
    mends: &mut Vec<Mend>,
) -> Result<(), Rule> {
    check(Json { bytes: text.as_bytes(), at: 0, mends: Some((offset, mends)) }, depth_max)
}

/// Checks that `text` is exactly one JSON value.
pub(crate) fn check_json(text: &str, depth_max: usize) -> Result<(), Rule> {
    check(Json { bytes: text.as_bytes(), at: 0, mends: None }, depth_max)
}

fn check(mut json: Json<'_, '_>, depth_max: usize) -> Result<(), Rule> {
    // One bit per level would do; a byte says which bracket closes it.
    let mut levels: Vec<u8> = Vec::new();
    'value: loop {
        json.skip_space();
        match json.next()? {
            b'{' => {
                if levels.len() >= depth_max {
                    return Err(Rule::ValueTooDeep);
                }
                json.skip_space();
                if json.peek() != Some(b'}') {
                    levels.push(b'}');
                    json.key()?;
                    continue 'value;
                }
                json.at += 1;
            }
            b'[' => {
                if levels.len() >= depth_max {
                    return Err(Rule::ValueTooDeep);
                }
                json.skip_space();
                if json.peek() != Some(b']') {
                    levels.push(b']');
                    continue 'value;
                }
                json.at += 1;
            }
            b'"' => json.string_rest()?,
            b't' => json.literal(b"rue")?,
            b'f' => json.literal(b"alse")?,
            b'n' => json.literal(b"ull")?,
            b'-' | b'0'..=b'9' => json.number()?,
            _ => return Err(Rule::NotJson),
        }
        loop {
            json.skip_space();
            let Some(&closing) = levels.last() else {
                return if json.at == json.bytes.len() { Ok(()) } else { Err(Rule::NotJson) };
            };
            match json.next()? {
                b',' => {
                    if closing == b'}' {
                        json.key()?;
                    }
                    continue 'value;
                }
                byte if byte == closing => {
                    levels.pop();
                }
                _ => return Err(Rule::NotJson),
            }
        }
    }
}

/// So many bytes of a text are looked at at once.
const PLAIN_BYTES: usize = 16;

struct Json<'a, 'm> {
    bytes: &'a [u8],
    at: usize,
    /// Where the text stands, and what to mend in it; without, it is not for yrs.
    mends: Option<(usize, &'m mut Vec<Mend>)>,
}

impl Json<'_, '_> {
    fn mend(&mut self, at: usize, what: Mended) {
        if let Some((offset, mends)) = &mut self.mends {
            mends.push(Mend { at: (*offset + at) as u32, what });
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, Rule> {
        let byte = self.peek().ok_or(Rule::NotJson)?;
        self.at += 1;
        Ok(byte)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn literal(&mut self, rest: &[u8]) -> Result<(), Rule> {
        let end = self.at + rest.len();
        if self.bytes.get(self.at..end) != Some(rest) {
            return Err(Rule::NotJson);
        }
        self.at = end;
        Ok(())
    }

    fn key(&mut self) -> Result<(), Rule> {
        self.skip_space();
        if self.next()? != b'"' {
            return Err(Rule::NotJson);
        }
        self.string_rest()?;
        self.skip_space();
        if self.next()? == b':' { Ok(()) } else { Err(Rule::NotJson) }
    }

    /// Goes on to the next byte of a string that means something, or close to it: many at a time, which compilers make one look of.
    fn skip_plain(&mut self) {
        let means_something = |byte: &u8| (*byte == b'"') | (*byte == b'\\') | (*byte < 0x20);
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let plain = rest
            .chunks_exact(PLAIN_BYTES)
            .take_while(|chunk| !chunk.iter().fold(false, |found, byte| found | means_something(byte)));
        self.at += PLAIN_BYTES * plain.count();
    }

    /// The rest of a string whose opening quote was read.
    fn string_rest(&mut self) -> Result<(), Rule> {
        loop {
            self.skip_plain();
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => match self.hex4()? {
                        0xdc00..=0xdfff => self.mend(self.at - 4, Mended::HalfSurrogate),
                        0xd800..=0xdbff => {
                            let high = self.at - 4;
                            let is_pair = self.literal(b"\\u").is_ok() && matches!(self.hex4(), Ok(0xdc00..=0xdfff));
                            if !is_pair {
                                // What follows it is read for itself.
                                self.at = high + 4;
                                self.mend(high, Mended::HalfSurrogate);
                            }
                        }
                        _ => {}
                    },
                    _ => return Err(Rule::NotJson),
                },
                0..=0x1f => return Err(Rule::NotJson),
                _ => {}
            }
        }
    }

    fn hex4(&mut self) -> Result<u32, Rule> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?).to_digit(16).ok_or(Rule::NotJson)?;
            value = value * 16 + digit;
        }
        Ok(value)
    }

    /// A number whose first byte was read.
    fn number(&mut self) -> Result<(), Rule> {
        let start = self.at - 1;
        if self.bytes.get(start) == Some(&b'-') && !self.next()?.is_ascii_digit() {
            return Err(Rule::NotJson);
        }
        let leading_zero = self.bytes.get(self.at - 1) == Some(&b'0');
        let more_digits = self.digits();
        if leading_zero && more_digits > 0 {
            return Err(Rule::NotJson);
        }
        let mut whole = true;
        if self.peek() == Some(b'.') {
            whole = false;
            self.at += 1;
            if self.digits() == 0 {
                return Err(Rule::NotJson);
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            whole = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(Rule::NotJson);
            }
        }
        let token = self.bytes.get(start..self.at).unwrap_or_default();
        let token = std::str::from_utf8(token).map_err(|_| Rule::NotJson)?;
        if whole && token.parse::<u64>().is_ok_and(|number| number > i64::MAX as u64) {
            self.mend(self.at - 2, Mended::WholeNumber);
        }
        match token.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(()),
            _ => Err(Rule::NotJson),
        }
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }
}

/// A number that is equal for `Any` values which mean the same, however they are encoded: the sum over what stands in them, so
/// that the order of keys does not count. Values that differ only in how they are nested may be equal too.
pub(crate) fn any_likeness(value: &[u8]) -> u64 {
    let mut sum = 0u64;
    let mut reader = Reader::new(value);
    // It was read once before; whatever could fail failed then.
    if let Ok(tag) = reader.read_u8() {
        let _ = walk_any(&mut reader, tag, usize::MAX, |token| sum = sum.wrapping_add(likeness(&token)));
    }
    sum
}

/// The same for JSON.
pub(crate) fn json_likeness(text: &str) -> u64 {
    let mut sum = 0u64;
    let mut json = Json { bytes: text.as_bytes(), at: 0, mends: None };
    while let Ok(byte) = json.next() {
        let start = json.at - 1;
        let token = match byte {
            b'"' => {
                if json.string_rest().is_err() {
                    return sum;
                }
                Token::Text(Cow::Owned(unescaped(text.get(start + 1..json.at - 1).unwrap_or_default())))
            }
            b'-' | b'0'..=b'9' => {
                if json.number().is_err() {
                    return sum;
                }
                number(text.get(start..json.at).and_then(|token| token.parse().ok()).unwrap_or_default())
            }
            b't' | b'f' | b'n' | b'{' | b'[' => Token::Sign(byte),
            _ => continue,
        };
        sum = sum.wrapping_add(likeness(&token));
    }
    sum
}

/// The text of a JSON string without its escapes. Half surrogates become U+FFFD.
pub(crate) fn unescaped(raw: &str) -> String {
    if !raw.contains('\\') {
        return raw.to_owned();
    }
    let mut units: Vec<u16> = Vec::with_capacity(raw.len());
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        let character = match character {
            '\\' => match characters.next().unwrap_or_default() {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let hex: String = characters.by_ref().take(4).collect();
                    units.push(u16::from_str_radix(&hex, 16).unwrap_or(0xfffd));
                    continue;
                }
                same => same,
            },
            plain => plain,
        };
        units.extend_from_slice(character.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16_lossy(&units)
}

pub(crate) fn likeness(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use yrs::Any;

    /// What yrs gets to read.
    fn for_yrs(text: &str) -> Result<String, Rule> {
        let mut mends = Vec::new();
        let padded = format!("..{text}");
        check_json_for_yrs(text, 32, 2, &mut mends)?;
        let mended = mended(padded.as_bytes(), &mends);
        Ok(std::str::from_utf8(&mended).unwrap().strip_prefix("..").unwrap().to_owned())
    }

    #[test]
    fn json_that_yrs_reads_passes_and_what_it_cannot_read_does_not() {
        for text in [
            "null",
            " true ",
            "0",
            "-0",
            "-1.5e-7",
            "1e21",
            "9223372036854775807",
            "18446744073709551616",
            "\"\"",
            "{}",
            "[]",
            "[1,[2,{\"a\":[]}],\"\\ud83d\\ude00\"]",
            "{\"a\":{\"b\":null},\"c\":\"\\u00e9\\n\"}",
            " [ 1 , 2 ] ",
            "\"é😀\"",
        ] {
            assert_eq!(for_yrs(text).as_deref(), Ok(text));
            assert!(Any::from_json(text).is_ok(), "{text}");
        }
        for text in [
            "",
            " ",
            "nul",
            "tru",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "1e400",
            "\"",
            "\"\\x\"",
            "\"\\ud83\"",
            "\"\\ud83d\\x\"",
            "\"\u{1}\"",
            "[",
            "[1",
            "[1,]",
            "{",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "{,}",
            "1 2",
            "[1}",
        ] {
            assert_eq!(for_yrs(text), Err(Rule::NotJson), "{text}");
            assert!(Any::from_json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_javascript_writes_and_yrs_cannot_read_is_mended() {
        // `JSON.stringify` of a text cut within an emoji, of 2 ** 63, 1e19, and of the largest number below 2 ** 64.
        for (text, mended) in [
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#"["\ude00", {"x\ud83d": "\ud83d!\ude00"}]"#, r#"["\ufffd", {"x\ufffd": "\ufffd!\ufffd"}]"#),
            (r#""\ud83d\ud83d\ude00\ude00\n""#, r#""\ufffd\ud83d\ude00\ufffd\n""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            ("9223372036854776000", "92233720368547760e2"),
            ("[10000000000000000000,1]", "[100000000000000000e2,1]"),
            ("18446744073709550000", "184467440737095500e2"),
        ] {
            assert_eq!(for_yrs(text).as_deref(), Ok(mended));
            assert!(Any::from_json(mended).is_ok(), "{mended}");
            assert_eq!(json_likeness(text), json_likeness(mended), "a resend of {text} is no fork");
            assert_eq!(check_json(text, 32), Ok(()), "presence is nobody's to mend");
        }
    }

    #[test]
    fn values_nest_as_deep_as_the_cap_and_no_deeper() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check_json(&nested(32), 32), Ok(()));
        assert_eq!(check_json(&nested(33), 32), Err(Rule::ValueTooDeep));
        let any = |depth: usize| [[117, 1].repeat(depth), vec![126]].concat();
        assert_eq!(skip_any(&mut Reader::new(&any(32)), 32), Ok(()));
        assert_eq!(skip_any(&mut Reader::new(&any(33)), 32), Err(Rule::ValueTooDeep));
        assert_eq!(skip_any(&mut Reader::new(&any(1_000_000)), 32), Err(Rule::ValueTooDeep));
    }

    #[test]
    fn a_value_that_claims_more_than_there_is_ends_too_early() {
        assert_eq!(skip_any(&mut Reader::new(&[117, 0xff, 0xff, 0xff, 0x7f, 126]), 32), Err(Rule::Truncated));
        assert_eq!(skip_any(&mut Reader::new(&[118, 2, 1, b'a', 126]), 32), Err(Rule::Truncated));
        assert_eq!(skip_any(&mut Reader::new(&[115]), 32), Err(Rule::UnknownValue));
    }
}
