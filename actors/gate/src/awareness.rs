//! Awareness updates: who is there, and each one's state as raw JSON that nobody here looks into.

use std::collections::HashSet;

use bytes::Bytes;

use crate::caps::Caps;
use crate::lib0::{Reader, write_var_bytes, write_var_uint};
use crate::malformed::{Malformed, Rule};
use crate::value::check_json;

/// One client's presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwarenessEntry {
    /// The client id.
    pub client: u64,
    /// Counts that client's states; at most 2^32 - 1.
    pub clock: u64,
    /// The state: valid JSON in UTF-8, as it came.
    pub state: Bytes,
    /// Whether the state is `null`: the client is gone.
    pub is_null: bool,
}

/// Reads awareness updates.
#[derive(Debug)]
pub struct AwarenessUpdate;

impl AwarenessUpdate {
    /// Parses what is inside the envelope of an awareness message. The states share the bytes.
    pub fn parse(bytes: &Bytes, caps: &Caps) -> Result<Vec<AwarenessEntry>, Malformed> {
        let mut reader = Reader::new(bytes);
        read(&mut reader, bytes, caps, None).map_err(|rule| rule.at(reader.at()))
    }

    /// The same, but entries beyond a cap (a state too large or nested too deeply, too many entries) are left out and
    /// counted: presence is no content, and an honest client that shows too much of it goes on editing.
    pub fn parse_within(bytes: &Bytes, caps: &Caps) -> Result<(Vec<AwarenessEntry>, usize), Malformed> {
        let mut reader = Reader::new(bytes);
        let mut left_out = 0;
        let entries = read(&mut reader, bytes, caps, Some(&mut left_out)).map_err(|rule| rule.at(reader.at()))?;
        Ok((entries, left_out))
    }
}

fn read(
    reader: &mut Reader<'_>,
    bytes: &Bytes,
    caps: &Caps,
    mut left_out: Option<&mut usize>,
) -> Result<Vec<AwarenessEntry>, Rule> {
    let count = reader.read_var_uint()?;
    // The shortest entry is a client, a clock, a length and one digit.
    if count > reader.remaining() as u64 / 4 {
        return Err(Rule::Truncated);
    }
    let is_over = count > caps.awareness_entries_max as u64 && Rule::TooManyAwarenessEntries.is_on();
    if is_over && left_out.is_none() {
        return Err(Rule::TooManyAwarenessEntries);
    }
    let room = if is_over { caps.awareness_entries_max } else { count as usize };
    let mut entries = Vec::with_capacity(room);
    let mut seen = HashSet::with_capacity(room);
    for _ in 0..count {
        let client = reader.read_var_uint()?;
        let clock = reader.read_var_uint()?;
        if clock > u64::from(u32::MAX) && Rule::AwarenessClock.is_on() {
            return Err(Rule::AwarenessClock);
        }
        let state = reader.read_var_bytes()?;
        let text = std::str::from_utf8(state).map_err(|_| Rule::NotUtf8)?;
        let is_null = text == "null";
        let fits = if state.len() > caps.awareness_state_bytes_max && Rule::AwarenessStateTooLarge.is_on() {
            Err(Rule::AwarenessStateTooLarge)
        } else if entries.len() >= room {
            Err(Rule::TooManyAwarenessEntries)
        } else if is_null {
            Ok(())
        } else {
            check_json(text, caps.any_depth_max)
        };
        match (fits, &mut left_out) {
            (Ok(()), _) => {}
            (
                Err(Rule::AwarenessStateTooLarge | Rule::TooManyAwarenessEntries | Rule::ValueTooDeep),
                Some(left_out),
            ) => {
                **left_out += 1;
                continue;
            }
            (Err(rule), _) => return Err(rule),
        }
        if !seen.insert(client) && Rule::DuplicateClient.is_on() {
            return Err(Rule::DuplicateClient);
        }
        let end = reader.at();
        entries.push(AwarenessEntry { client, clock, state: bytes.slice(end - state.len()..end), is_null });
    }
    if reader.is_empty() { Ok(entries) } else { Err(Rule::TrailingBytes) }
}

/// Writes what stands inside the envelope of an awareness message.
pub fn encode_awareness(entries: &[AwarenessEntry]) -> Bytes {
    let len = entries.iter().map(|entry| entry.state.len() + 16).sum::<usize>();
    let mut bytes = Vec::with_capacity(len + 4);
    write_var_uint(&mut bytes, entries.len() as u64);
    for entry in entries {
        write_var_uint(&mut bytes, entry.client);
        write_var_uint(&mut bytes, entry.clock);
        write_var_bytes(&mut bytes, &entry.state);
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(client: u64, clock: u64, state: &'static str) -> AwarenessEntry {
        AwarenessEntry { client, clock, state: Bytes::from_static(state.as_bytes()), is_null: state == "null" }
    }

    fn refused(bytes: &[u8]) -> Rule {
        AwarenessUpdate::parse(&Bytes::copy_from_slice(bytes), &Caps::default()).unwrap_err().rule
    }

    #[test]
    fn what_is_encoded_is_parsed_back() {
        let entries =
            vec![entry(1, 0, "{}"), entry((1 << 53) - 1, u64::from(u32::MAX), "{\"a\":[1]}"), entry(2, 9, "null")];
        let bytes = encode_awareness(&entries);
        assert_eq!(AwarenessUpdate::parse(&bytes, &Caps::default()).unwrap(), entries);
        assert_eq!(&encode_awareness(&[])[..], [0]);
    }

    #[test]
    fn a_claim_of_a_hundred_million_entries_costs_nothing() {
        assert_eq!(refused(&[0x80, 0xc2, 0xd7, 0x2f]), Rule::Truncated);
    }

    #[test]
    fn a_state_that_is_no_json_or_too_large_or_too_deep_is_refused() {
        assert_eq!(refused(&[1, 1, 1, 1, b'{']), Rule::NotJson);
        assert_eq!(refused(&[1, 1, 1, 1, 0xff]), Rule::NotUtf8);
        let large = format!("\"{}\"", "x".repeat(64 << 10));
        let state = Bytes::from(large);
        let bytes = encode_awareness(&[AwarenessEntry { client: 1, clock: 1, state, is_null: false }]);
        assert_eq!(refused(&bytes), Rule::AwarenessStateTooLarge);
        let state = Bytes::from(format!("{}{}", "[".repeat(513), "]".repeat(513)));
        let bytes = encode_awareness(&[AwarenessEntry { client: 1, clock: 1, state, is_null: false }]);
        assert_eq!(refused(&bytes), Rule::ValueTooDeep);
    }

    #[test]
    fn what_is_beyond_a_cap_is_left_out_and_the_rest_is_taken() {
        let deep = Bytes::from(format!("{}{}", "[".repeat(33), "]".repeat(33)));
        let bytes = encode_awareness(&[
            AwarenessEntry { client: 1, clock: 1, state: format!("\"{}\"", "x".repeat(99)).into(), is_null: false },
            AwarenessEntry { client: 2, clock: 1, state: deep, is_null: false },
            entry(3, 1, "{}"),
            entry(4, 1, "null"),
            entry(5, 1, "{}"),
        ]);
        let caps =
            Caps { awareness_state_bytes_max: 100, awareness_entries_max: 2, any_depth_max: 32, ..Caps::default() };
        let (entries, left_out) = AwarenessUpdate::parse_within(&bytes, &caps).unwrap();
        assert_eq!((entries, left_out), (vec![entry(3, 1, "{}"), entry(4, 1, "null")], 3));
        let half = bytes.slice(..bytes.len() - 1);
        assert_eq!(AwarenessUpdate::parse_within(&half, &caps).unwrap_err().rule, Rule::Truncated);
        let no_json = encode_awareness(&[entry(1, 1, "{")]);
        assert_eq!(AwarenessUpdate::parse_within(&no_json, &caps).unwrap_err().rule, Rule::NotJson);
    }

    #[test]
    fn a_clock_beyond_32_bits_and_a_client_named_twice_are_refused() {
        assert_eq!(refused(&encode_awareness(&[entry(1, 1 << 32, "{}")])), Rule::AwarenessClock);
        assert_eq!(refused(&encode_awareness(&[entry(1, 1, "{}"), entry(1, 2, "{}")])), Rule::DuplicateClient);
        assert_eq!(refused(&[0, 7]), Rule::TrailingBytes);
    }
}
