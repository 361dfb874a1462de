//! The primitives of lib0, which every Yjs message is made of: total readers over borrowed bytes and plain writers.
//!
//! A reader never allocates, never panics, and never believes a length before it compared it with what is left.

use crate::malformed::Rule;

/// Largest number that JavaScript holds exactly; lib0 reads no larger one.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// A position in borrowed bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the first byte on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Reads from `at` on; beyond the end there is nothing to read.
    pub(crate) fn starting_at(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    /// Offset of the next byte.
    pub fn at(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Whether everything is read.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// What is left, unread.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// One byte.
    #[inline]
    pub fn read_u8(&mut self) -> Result<u8, Rule> {
        let byte = *self.bytes.get(self.at).ok_or(Rule::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// The next `len` bytes.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Rule> {
        let end = self.at.checked_add(len).ok_or(Rule::Truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or(Rule::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    /// The next `N` bytes.
    #[inline]
    pub fn take_array<const N: usize>(&mut self) -> Result<[u8; N], Rule> {
        self.take(N)?.try_into().map_err(|_| Rule::Truncated)
    }

    /// An unsigned number up to 2^53 - 1, in the only form in which lib0 writes it: the shortest.
    #[inline]
    pub fn read_var_uint(&mut self) -> Result<u64, Rule> {
        let first = self.read_u8()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        self.continue_var_uint(u64::from(first & 0x7f), 7)
    }

    /// A signed number of at most 53 bits. Negative zero, which lib0 writes, reads as zero.
    #[inline]
    pub fn read_var_int(&mut self) -> Result<i64, Rule> {
        let first = self.read_u8()?;
        let low = u64::from(first & 0x3f);
        let magnitude = if first & 0x80 == 0 { low } else { self.continue_var_uint(low, 6)? };
        let magnitude = i64::try_from(magnitude).map_err(|_| Rule::NumberOutOfRange)?;
        Ok(if first & 0x40 == 0 { magnitude } else { -magnitude })
    }

    fn continue_var_uint(&mut self, low: u64, first_shift: u32) -> Result<u64, Rule> {
        let mut value = low;
        let mut shift = first_shift;
        loop {
            let byte = self.read_u8()?;
            // 53 bits end within the eighth byte, so the shift stays below 64 and nothing wraps.
            if shift > 49 && (Rule::NumberOutOfRange.is_on() || shift > 56) {
                return Err(Rule::NumberOutOfRange);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                if byte == 0 && Rule::NumberNotCanonical.is_on() {
                    return Err(Rule::NumberNotCanonical);
                }
                return if value > MAX_SAFE_INTEGER && Rule::NumberOutOfRange.is_on() {
                    Err(Rule::NumberOutOfRange)
                } else {
                    Ok(value)
                };
            }
            shift += 7;
        }
    }

    /// Bytes after their length.
    #[inline]
    pub fn read_var_bytes(&mut self) -> Result<&'a [u8], Rule> {
        let len = self.read_var_uint()?;
        self.take(usize::try_from(len).map_err(|_| Rule::Truncated)?)
    }

    /// UTF-8 after its length in bytes.
    #[inline]
    pub fn read_var_string(&mut self) -> Result<&'a str, Rule> {
        match std::str::from_utf8(self.read_var_bytes()?) {
            Err(_) if Rule::NotUtf8.is_on() => Err(Rule::NotUtf8),
            text => Ok(text.unwrap_or_default()),
        }
    }
}

/// Writes an unsigned number in its shortest form.
#[inline]
pub fn write_var_uint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// Writes a signed number in its shortest form.
pub fn write_var_int(into: &mut Vec<u8>, value: i64) {
    let sign = if value < 0 { 0x40 } else { 0 };
    let magnitude = value.unsigned_abs();
    let low = (magnitude & 0x3f) as u8 | sign;
    if magnitude < 0x40 {
        into.push(low);
    } else {
        into.push(low | 0x80);
        write_var_uint(into, magnitude >> 6);
    }
}

/// Writes bytes after their length.
pub fn write_var_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    write_var_uint(into, bytes.len() as u64);
    into.extend_from_slice(bytes);
}

/// Writes UTF-8 after its length in bytes.
pub fn write_var_string(into: &mut Vec<u8>, text: &str) {
    write_var_bytes(into, text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_with_a_needless_last_group_is_refused() {
        assert_eq!(Reader::new(&[0x80, 0x00]).read_var_uint(), Err(Rule::NumberNotCanonical));
        assert_eq!(Reader::new(&[0xff, 0x80, 0x00]).read_var_uint(), Err(Rule::NumberNotCanonical));
        assert_eq!(Reader::new(&[0x80, 0x00]).read_var_int(), Err(Rule::NumberNotCanonical));
    }

    #[test]
    fn a_number_beyond_53_bits_is_refused_and_the_largest_below_is_read() {
        let mut bytes = Vec::new();
        write_var_uint(&mut bytes, MAX_SAFE_INTEGER);
        assert_eq!(Reader::new(&bytes).read_var_uint(), Ok(MAX_SAFE_INTEGER));
        for value in [MAX_SAFE_INTEGER + 1, u64::MAX >> 1, u64::MAX] {
            bytes.clear();
            write_var_uint(&mut bytes, value);
            assert_eq!(Reader::new(&bytes).read_var_uint(), Err(Rule::NumberOutOfRange));
        }
        assert_eq!(Reader::new(&[0xff; 40]).read_var_uint(), Err(Rule::NumberOutOfRange));
    }

    #[test]
    fn a_length_beyond_the_end_reads_nothing() {
        assert_eq!(Reader::new(&[5, 1, 2]).read_var_bytes(), Err(Rule::Truncated));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0x7f, 1]).read_var_bytes(), Err(Rule::Truncated));
        assert_eq!(Reader::new(&[2, 0xc3, 0x28]).read_var_string(), Err(Rule::NotUtf8));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(unsigned in 0..=MAX_SAFE_INTEGER, signed in -(1i64 << 53) + 1..1i64 << 53) {
            let mut bytes = Vec::new();
            write_var_uint(&mut bytes, unsigned);
            write_var_int(&mut bytes, signed);
            write_var_string(&mut bytes, "é");
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.read_var_uint(), Ok(unsigned));
            prop_assert_eq!(reader.read_var_int(), Ok(signed));
            prop_assert_eq!(reader.read_var_string(), Ok("é"));
            prop_assert!(reader.is_empty());
        }
    }
}
