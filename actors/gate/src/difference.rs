//! Whether two updates of one document hold the same content: byte for byte, wherever it lives in both.

use std::collections::HashMap;

use crate::recent::{Fork, Unit, Units, first_difference};
use crate::update::{Section, Update};

/// Where `state` and one of `others` hold two contents at one clock. Content that one of the two does not hold, or
/// holds as deleted, is not compared. U+FFFD equals half a surrogate pair: text that was cut inside the pair holds that.
pub fn difference<'a>(state: &Update, others: impl IntoIterator<Item = &'a Update>) -> Option<Fork> {
    let sections: HashMap<u64, &Section> = state.sections.iter().map(|section| (section.client, section)).collect();
    others.into_iter().find_map(|other| {
        other.sections.iter().find_map(|theirs| {
            let ours = sections.get(&theirs.client)?;
            let both = ours.clock.max(theirs.clock)..ours.end_clock.min(theirs.end_clock);
            let units = (Units::new(state, ours, both.start), Units::new(other, theirs, both.start));
            let clock = first_difference(units.0, units.1, both, differ)?;
            Some(Fork { client: theirs.client, clock: u64::from(clock) })
        })
    })
}

fn differ(ours: &Unit<'_>, theirs: &Unit<'_>) -> bool {
    const REPLACEMENT: u16 = 0xfffd;
    let is_half = |unit: u16| (0xd800..0xe000).contains(&unit);
    match (ours, theirs) {
        (Unit::Text(REPLACEMENT), Unit::Text(unit)) | (Unit::Text(unit), Unit::Text(REPLACEMENT)) => {
            *unit != REPLACEMENT && !is_half(*unit)
        }
        (Unit::Text(ours), Unit::Text(theirs)) => ours != theirs,
        (Unit::Any(ours), Unit::Any(theirs)) => ours != theirs,
        (Unit::Whole(kind, ours), Unit::Whole(same, theirs)) => kind != same || ours != theirs,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caps::Caps;
    use bytes::Bytes;

    fn update(blocks: &[&[u8]], clock: u8) -> Update {
        let bytes = [&[1, blocks.len() as u8, 1, clock][..], &blocks.concat(), &[0]].concat();
        Update::parse(Bytes::from(bytes), &Caps::default()).unwrap()
    }

    const TEXT: &[u8] = &[4, 1, 1, b't'];

    #[test]
    fn every_content_is_compared_wherever_it_is_cut() {
        let text = |text: &str| [TEXT, &[text.len() as u8], text.as_bytes()].concat();
        let rest = |text: &str, before: u8| [&[0x84, 1, before, text.len() as u8][..], text.as_bytes()].concat();
        let whole = update(&[&text("hello")], 0);
        assert_eq!(difference(&whole, [&whole]), None);
        assert_eq!(difference(&whole, [&update(&[&text("hel"), &rest("lo", 2)], 0)]), None);
        assert_eq!(difference(&whole, [&update(&[&rest("lo", 2)], 3)]), None);
        let other = update(&[&rest("l0", 2)], 3);
        assert_eq!(difference(&whole, [&whole, &other]), Some(Fork { client: 1, clock: 4 }));
        assert_eq!(difference(&other, [&whole]), Some(Fork { client: 1, clock: 4 }));
    }

    #[test]
    fn values_are_the_same_only_byte_for_byte() {
        let values =
            |values: &[&[u8]]| update(&[&[&[8, 1, 1, b'a', values.len() as u8][..], &values.concat()].concat()], 0);
        let zeros = values(&[&[126], &[125, 0]]);
        assert_eq!(difference(&zeros, [&zeros]), None);
        assert_eq!(difference(&zeros, [&values(&[&[126], &[125, 0x40]])]), Some(Fork { client: 1, clock: 1 }));
        let json = |text: &str| update(&[&[&[5, 1, 1, b't', text.len() as u8][..], text.as_bytes()].concat()], 0);
        assert_eq!(difference(&json("1"), [&json("1.0")]), Some(Fork { client: 1, clock: 0 }));
        assert_eq!(difference(&json("1"), [&values(&[&[125, 1]])]), Some(Fork { client: 1, clock: 0 }));
    }

    #[test]
    fn what_is_deleted_or_torn_is_no_difference() {
        let text = |text: &str| update(&[&[TEXT, &[text.len() as u8], text.as_bytes()].concat()], 0);
        let whole = text("a😀b");
        assert_eq!(difference(&whole, [&text("a\u{fffd}\u{fffd}b")]), None);
        assert_eq!(difference(&whole, [&text("\u{fffd}😀b")]), Some(Fork { client: 1, clock: 0 }));
        assert_eq!(difference(&whole, [&update(&[&[0, 2], &[0x84, 1, 1, 4, 0xef, 0xbf, 0xbd, b'b']], 0)]), None);
        assert_eq!(difference(&whole, [&update(&[&[0, 9]], 0)]), None);
    }
}
