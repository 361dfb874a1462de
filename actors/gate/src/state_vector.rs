//! State vectors: how far somebody knows each client.

use std::collections::HashMap;

use bytes::Bytes;

use crate::block::read_clock;
use crate::lib0::{Reader, write_var_uint};
use crate::malformed::{Malformed, Rule};

/// For each client the clock after the last that is known. A client that is missing is at zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateVector {
    clocks: HashMap<u64, u32>,
}

impl StateVector {
    /// Parses a state vector. Memory is bounded by the bytes, not by the count that they claim.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let clocks = read(&mut reader).map_err(|rule| rule.at(reader.at()))?;
        Ok(Self { clocks })
    }

    /// The v1 encoding, clients in descending order as Yjs writes them.
    pub fn encode(&self) -> Bytes {
        encode(self.iter().collect())
    }

    /// The clock after the last that is known of `client`.
    pub fn next_clock(&self, client: u64) -> u64 {
        self.clocks.get(&client).copied().map_or(0, u64::from)
    }

    /// Each client with its clock, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.clocks.iter().map(|(&client, &clock)| (client, u64::from(clock)))
    }

    /// How many clients stand in it.
    pub fn len(&self) -> usize {
        self.clocks.len()
    }

    /// Whether no client stands in it.
    pub fn is_empty(&self) -> bool {
        self.clocks.is_empty()
    }

    /// Whether everything that `other` knows is known here too.
    pub fn covers(&self, other: &StateVector) -> bool {
        other.iter().all(|(client, clock)| clock <= self.next_clock(client))
    }

    /// What `other` knows and this one does not: each client with the range of clocks.
    pub fn diff_missing(&self, other: &StateVector) -> Vec<(u64, std::ops::Range<u64>)> {
        let missing = other.iter().filter_map(|(client, clock)| {
            let known = self.next_clock(client);
            (known < clock).then_some((client, known..clock))
        });
        missing.collect()
    }
}

impl FromIterator<(u64, u64)> for StateVector {
    /// Clocks beyond what the format bears are brought down to it; of a client named twice the higher clock holds.
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(entries: I) -> Self {
        let mut clocks = HashMap::new();
        for (client, clock) in entries {
            let clock = clock.min(crate::block::CLOCK_MAX) as u32;
            let known = clocks.entry(client).or_insert(clock);
            *known = clock.max(*known);
        }
        Self { clocks }
    }
}

fn read(reader: &mut Reader<'_>) -> Result<HashMap<u64, u32>, Rule> {
    let count = reader.read_var_uint()?;
    // An entry takes two bytes at least.
    if count > reader.remaining() as u64 / 2 {
        return Err(Rule::Truncated);
    }
    let mut clocks = HashMap::with_capacity(count as usize);
    for _ in 0..count {
        let client = reader.read_var_uint()?;
        let clock = read_clock(reader)?;
        if clocks.insert(client, clock).is_some() && Rule::DuplicateClient.is_on() {
            return Err(Rule::DuplicateClient);
        }
    }
    if reader.is_empty() { Ok(clocks) } else { Err(Rule::TrailingBytes) }
}

pub(crate) fn encode(mut entries: Vec<(u64, u64)>) -> Bytes {
    entries.sort_unstable_by(|left, right| right.cmp(left));
    let mut bytes = Vec::with_capacity(2 + entries.len() * 9);
    write_var_uint(&mut bytes, entries.len() as u64);
    for (client, clock) in entries {
        write_var_uint(&mut bytes, client);
        write_var_uint(&mut bytes, clock);
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(entries: &[(u64, u64)]) -> StateVector {
        entries.iter().copied().collect()
    }

    #[test]
    fn a_state_vector_that_claims_half_a_milliard_clients_in_five_bytes_costs_nothing() {
        let claim = [0x80, 0xca, 0xb5, 0xee, 0x01];
        assert_eq!(StateVector::parse(&claim).unwrap_err().rule, Rule::Truncated);
    }

    #[test]
    fn a_client_that_stands_there_twice_is_refused() {
        assert_eq!(StateVector::parse(&[2, 1, 5, 1, 6]).unwrap_err().rule, Rule::DuplicateClient);
        assert_eq!(StateVector::parse(&[1, 1, 5, 9]).unwrap_err().rule, Rule::TrailingBytes);
    }

    #[test]
    fn what_is_encoded_is_parsed_back() {
        let ours = vector(&[(1, 5), ((1 << 53) - 1, 7), (300, 0)]);
        assert_eq!(StateVector::parse(&ours.encode()).unwrap(), ours);
        assert_eq!(&StateVector::default().encode()[..], [0]);
    }

    #[test]
    fn one_vector_covers_another_when_it_lacks_nothing_of_it() {
        let ours = vector(&[(1, 5), (2, 3)]);
        assert!(ours.covers(&vector(&[(1, 5), (9, 0)])));
        assert!(!ours.covers(&vector(&[(1, 6)])));
        assert_eq!(ours.diff_missing(&vector(&[(1, 6), (2, 1), (3, 2)])).len(), 2);
        assert!(ours.diff_missing(&vector(&[(2, 4)])).contains(&(2, 3..4)));
    }
}
