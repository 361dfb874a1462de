//! When a connection must be sent something, lest its client take the server for dead.
//!
//! Stock clients close after 30 s without a message, and pings are none to them (docs/protocols.md, "Keep-alive"). So
//! silence is measured by messages alone, whatever else the socket carries.

use std::time::Duration;

/// How often to check, so that no silence is longer than `silence_max`: one that begins right after a check is broken by the second
/// check after it.
pub(super) fn interval(silence_max: Duration) -> Duration {
    silence_max / 2
}

/// Compares checks at one connection.
#[derive(Debug, Default)]
pub(super) struct KeepAlive {
    /// Messages queued before the last check.
    before: u64,
}

impl KeepAlive {
    /// Whether nothing was sent since the last check. `messages` counts those queued since the start.
    pub fn is_due(&mut self, messages: u64) -> bool {
        std::mem::replace(&mut self.before, messages) == messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Outbox, Pushed};
    use crate::protocol::codec::{EMPTY_AWARENESS, Message, encode};
    use crate::protocol::frame::{ping_frame, server_frame};

    const SILENCE_MAX_S: u64 = 10;

    /// The longest time in seconds without a message, when an application says something at these seconds, and a ping goes out
    /// every `ping_s`.
    fn longest_silence(said: &[u64], ping_s: u64) -> u64 {
        let (outbox, mut keep_alive) = (Outbox::new(usize::MAX / 2), KeepAlive::default());
        let look_s = interval(Duration::from_secs(SILENCE_MAX_S)).as_secs();
        let (mut last, mut longest) = (0, 0);
        for second in 0..300 {
            let before = outbox.messages();
            if second % look_s == 0 && keep_alive.is_due(before) {
                assert_eq!(outbox.push(encode(&[], Message::Awareness(EMPTY_AWARENESS))), Pushed::Taken);
            }
            if second % ping_s == 0 {
                assert_eq!(outbox.push(ping_frame(b"")), Pushed::Taken);
            }
            if said.contains(&second) {
                assert_eq!(outbox.push(server_frame(b"content")), Pushed::Taken);
            }
            if outbox.messages() > before {
                longest = longest.max(second - last);
                last = second;
            }
        }
        longest.max(300 - last)
    }

    #[test]
    fn no_silence_is_longer_than_promised_whenever_the_last_message_was() {
        for last_word in 0..40 {
            let longest = longest_silence(&[last_word], 20);
            assert!(longest <= SILENCE_MAX_S, "{longest} s of silence after a message at {last_word} s");
        }
    }

    #[test]
    fn pings_break_no_silence() {
        for ping_s in 1..30 {
            let longest = longest_silence(&[7, 23], ping_s);
            assert!(longest <= SILENCE_MAX_S, "{longest} s of silence with a ping every {ping_s} s");
        }
    }

    #[test]
    fn whoever_hears_enough_hears_no_more() {
        let mut keep_alive = KeepAlive::default();
        assert!(!(1..100).any(|messages| keep_alive.is_due(messages)));
    }
}
