//! Recognises an update of the v2 format, so that its sender can be told so. Nothing of it is decoded.

use crate::lib0::Reader;
use crate::malformed::Rule;

/// The columns before the rest: key clocks, clients, left clocks, right clocks, infos, strings, parent infos, type
/// references, lengths.
const COLUMNS: usize = 9;
const STRINGS: usize = 5;

/// Whether bytes that are no v1 update have the frame of a v2 update: a feature flag of zero, nine columns with their
/// lengths, of which the sixth begins with a string, and a rest that begins with its number of clients.
pub(crate) fn is_v2(bytes: &[u8]) -> bool {
    has_frame(bytes).unwrap_or(false)
}

fn has_frame(bytes: &[u8]) -> Result<bool, Rule> {
    let mut reader = Reader::new(bytes);
    if reader.read_u8()? != 0 {
        return Ok(false);
    }
    for column in 0..COLUMNS {
        let column_bytes = reader.read_var_bytes()?;
        if column == STRINGS {
            Reader::new(column_bytes).read_var_string()?; // all strings in one; their lengths follow it
        }
    }
    let clients = reader.read_var_uint()?;
    // Of each client's section two numbers are there, and the deletes follow, if only as a zero.
    Ok(clients.saturating_mul(2) < reader.remaining() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use yrs::updates::encoder::Encode as _;
    use yrs::{Array as _, Doc, Map as _, ReadTxn as _, StateVector, Text as _, Transact as _};

    #[test]
    fn what_yrs_writes_as_v2_is_recognised_and_what_it_writes_as_v1_is_not() {
        let doc = Doc::new();
        let (text, array, map) =
            (doc.get_or_insert_text("text"), doc.get_or_insert_array("array"), doc.get_or_insert_map("map"));
        let both = || {
            let txn = doc.try_transact().unwrap();
            let all = StateVector::default();
            (txn.encode_state_as_update_v1(&all), txn.encode_state_as_update_v2(&all))
        };
        for step in 0..4 {
            let (v1, v2) = both();
            assert!(is_v2(&v2), "step {step}: {v2:?}");
            assert!(!is_v2(&v1), "step {step}: {v1:?}");
            let mut txn = doc.try_transact_mut().unwrap();
            text.insert(&mut txn, 0, "a word, é, 😀");
            array.insert(&mut txn, 0, 7_i64);
            map.insert(&mut txn, "key", 1.5);
            if step == 2 {
                text.remove_range(&mut txn, 0, 3);
            }
        }
        assert!(is_v2(&yrs::Update::default().encode_v2()), "an empty one");
    }

    #[test]
    fn other_bytes_are_not_taken_for_v2() {
        for bytes in [&b""[..], b"\0", b"\0\0", b"\0\0\0", b"hello", &[0; 5], &[0; 10], &[1; 40], &[0xff; 40]] {
            assert!(!is_v2(bytes), "{bytes:?}");
        }
    }
}
