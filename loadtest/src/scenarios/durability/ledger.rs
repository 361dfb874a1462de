//! What was sent, what was promised, and whether a document keeps the promise. Pure.
//!
//! Every update inserts one unique token, `[client:number]`. A token is owed from the moment that its sender was
//! acknowledged or that any other client received it, the checker's own readers included. An owed token that is not
//! in the document is lost, one that stands there twice was duplicated, and text between tokens is a torn token.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// How a token came to be owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Its sender was told that it is safe.
    Acknowledged,
    /// Somebody else has seen it.
    Seen,
}

/// Everything that writers did.
#[derive(Debug, Default)]
pub struct Ledger {
    writers: HashMap<u64, Writer>,
}

#[derive(Debug)]
struct Writer {
    document: usize,
    /// Where each token ends, in clocks.
    ends: Vec<u32>,
    promised: Vec<Option<Promise>>,
}

/// What a document does not keep.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Owed tokens that are missing, with the promise that was broken.
    pub lost: Vec<(String, Promise)>,
    /// Tokens that stand there more than once.
    pub duplicated: Vec<String>,
    /// Characters that belong to no token.
    pub torn: usize,
    /// Tokens found.
    pub present: usize,
}

#[cfg(test)]
impl Findings {
    /// Whether there is nothing to complain of.
    pub fn is_sound(&self) -> bool {
        self.lost.is_empty() && self.duplicated.is_empty() && self.torn == 0
    }
}

impl Ledger {
    /// A new writer, under a client id that nobody used before.
    pub fn join(&mut self, client: u64, document: usize) {
        self.writers.insert(client, Writer { document, ends: Vec::new(), promised: Vec::new() });
    }

    /// The writer's next token and the clock it starts at.
    pub fn next(&mut self, client: u64) -> Option<(u32, String)> {
        let writer = self.writers.get_mut(&client)?;
        let start = writer.ends.last().copied().unwrap_or(0);
        let token = token(client, writer.ends.len());
        writer.ends.push(start + token.len() as u32);
        writer.promised.push(None);
        Some((start, token))
    }

    /// How many tokens were sent, and how many are owed.
    pub fn totals(&self) -> (usize, usize) {
        let sent = self.writers.values().map(|writer| writer.ends.len()).sum();
        let owed = self.writers.values().flat_map(|writer| &writer.promised).filter(|owed| owed.is_some()).count();
        (sent, owed)
    }

    /// How many tokens were acknowledged to their senders.
    pub fn acknowledged_total(&self) -> usize {
        let promised = self.writers.values().flat_map(|writer| &writer.promised);
        promised.filter(|promise| **promise == Some(Promise::Acknowledged)).count()
    }

    /// Hocuspocus and Y-Sweet: the oldest `count` tokens of a writer are acknowledged.
    pub fn acknowledged(&mut self, client: u64, count: usize) {
        let Some(writer) = self.writers.get_mut(&client) else { return };
        // From the newest back to where it was before: what is older is acknowledged already.
        for owed in writer.promised.iter_mut().take(count).rev() {
            if *owed == Some(Promise::Acknowledged) {
                break;
            }
            *owed = Some(Promise::Acknowledged);
        }
    }

    /// Somebody received these clocks of `client`. In y-websocket the sender's own echo is its
    /// acknowledgement.
    pub fn received(&mut self, client: u64, clocks: Range<u32>, promise: Promise) {
        let Some(writer) = self.writers.get_mut(&client) else { return };
        let first = writer.ends.partition_point(|end| *end <= clocks.start);
        for number in first..writer.ends.len() {
            let start = if number == 0 { 0 } else { writer.ends[number - 1] };
            if writer.ends[number] > clocks.end {
                break;
            }
            if start >= clocks.start && writer.promised[number] != Some(Promise::Acknowledged) {
                writer.promised[number] = Some(promise);
            }
        }
    }

    /// Holds a document's text against what is owed in it. What stands there is seen from now on.
    pub fn check(&mut self, document: usize, text: &str) -> Findings {
        let (tokens, torn) = parse(text);
        let mut findings = Findings { torn, present: tokens.len(), ..Findings::default() };
        let mut seen = HashSet::with_capacity(tokens.len());
        for (client, number) in tokens {
            let known = self.writers.get_mut(&client).filter(|writer| writer.document == document);
            let Some(owed) = known.and_then(|writer| writer.promised.get_mut(number)) else {
                findings.torn += 1; // looks like a token, but nobody wrote it here
                continue;
            };
            owed.get_or_insert(Promise::Seen);
            if !seen.insert((client, number)) {
                findings.duplicated.push(token(client, number));
            }
        }
        for (client, writer) in self.writers.iter().filter(|(_, writer)| writer.document == document) {
            for (number, owed) in writer.promised.iter().enumerate() {
                if let Some(promise) = owed
                    && !seen.contains(&(*client, number))
                {
                    findings.lost.push((token(*client, number), *promise));
                }
            }
        }
        findings
    }
}

/// ASCII, so that its length in bytes is its length in clocks.
fn token(client: u64, number: usize) -> String {
    format!("[{client:x}:{number}]")
}

/// The tokens of a text in its order, and how many characters belong to none.
fn parse(text: &str) -> (Vec<(u64, usize)>, usize) {
    let mut tokens = Vec::new();
    let mut torn = 0;
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        torn += rest[..open].chars().count();
        let inside = &rest[open + 1..];
        // A torn token is followed by another one's start before its own end.
        let end = inside.find([']', '[']).filter(|end| inside.as_bytes()[*end] == b']');
        let parsed = end.and_then(|end| {
            let (client, number) = inside[..end].split_once(':')?;
            Some((u64::from_str_radix(client, 16).ok()?, number.parse().ok()?, end))
        });
        match parsed {
            Some((client, number, end)) => {
                tokens.push((client, number));
                rest = &inside[end + 1..];
            }
            None => {
                torn += 1;
                rest = inside;
            }
        }
    }
    (tokens, torn + rest.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three tokens of client 10 in document 0: `[a:0]`, `[a:1]`, `[a:2]`.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.join(10, 0);
        for clock in [0, 5, 10] {
            assert_eq!(ledger.next(10).unwrap().0, clock);
        }
        ledger
    }

    #[test]
    fn what_nobody_promised_may_be_missing() {
        assert!(ledger().check(0, "").is_sound());
        assert!(ledger().check(0, "[a:0]").is_sound(), "or be there all the same");
    }

    #[test]
    fn an_acknowledged_token_that_is_missing_is_lost() {
        let mut ledger = ledger();
        ledger.acknowledged(10, 2);
        assert_eq!(ledger.totals(), (3, 2));
        let findings = ledger.check(0, "[a:0]");
        assert_eq!(findings.lost, [("[a:1]".to_owned(), Promise::Acknowledged)]);
        assert!(!findings.is_sound());
        assert!(ledger.check(1, "").is_sound(), "another document owes nothing of it");
    }

    #[test]
    fn a_token_that_somebody_saw_is_owed_once_it_was_whole() {
        let mut ledger = ledger();
        ledger.received(10, 0..9, Promise::Seen);
        assert_eq!(ledger.check(0, "").lost, [("[a:0]".to_owned(), Promise::Seen)]);
        ledger.received(10, 10..15, Promise::Seen);
        assert_eq!(ledger.check(0, "[a:0][a:1]").lost, [("[a:2]".to_owned(), Promise::Seen)]);
    }

    #[test]
    fn what_the_checker_read_once_is_owed_from_then_on() {
        let mut ledger = ledger();
        assert!(ledger.check(0, "[a:2][a:0]").is_sound());
        assert_eq!(ledger.check(0, "[a:0]").lost, [("[a:2]".to_owned(), Promise::Seen)]);
    }

    #[test]
    fn doubled_torn_and_foreign_text_is_found() {
        let mut ledger = ledger();
        let findings = ledger.check(0, "[a:0][a:1[a:1][a:0]x[b:0]");
        assert_eq!(findings.duplicated, ["[a:0]"]);
        assert_eq!(findings.torn, "[a:1".len() + "x".len() + 1);
        assert!(findings.lost.is_empty());
    }
}
