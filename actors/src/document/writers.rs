//! Whose client ids they are.
//!
//! A Yjs client numbers what it writes under its client id, and nothing in an update proves whose id that is: whoever knows an id can write under it at
//! the clocks that its owner will use. The owner would never notice, because his clocks are known when he comes back, and so he has nothing to send.
//!
//! So each client id belongs to the first user who wrote under it as himself, its *writer*; that is a fold of the log like the document, and stands in each
//! snapshot. Others may bring what stands under the id all the same: offline work that reached them some other way, what a restored database lacks. But
//! it is not taken for the writer's before he has confirmed it. Of this *tail* the [`Marks`] are kept, and his connections are asked for their own content
//! of it before they are told that anything is saved.

use crate::ids::UserId;
use crate::ports::log::Authorship;
use bytes::Bytes;
use contextnexus_gate::lib0::{Reader, write_var_uint};
use contextnexus_gate::{Compared, Marks, Update};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use uuid::Uuid;

/// The first byte of the encoding.
const VERSION: u64 = 2;
/// Tails had no places.
const VERSION_WITHOUT_PLACES: u64 = 1;
/// What a client id takes here, about.
const CLIENT_BYTES: usize = 24;

/// The writer of each client id of one document, as far as it is known: of what was written before it was kept, and of what was only ever relayed, it is
/// not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writers {
    users: Vec<UserId>,
    numbers: HashMap<UserId, u32>,
    /// The number of the user of each client id.
    of: HashMap<u64, u32>,
    tails: BTreeMap<u64, Tail>,
    tails_units: usize,
}

/// What others brought under a client id, after what its writer brought himself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Its first clock.
    pub from: u64,
    /// Its content.
    pub marks: Marks,
    /// Where that stands: as many.
    pub places: Marks,
}

impl Tail {
    /// The clock after its last.
    pub fn end(&self) -> u64 {
        self.from + self.marks.len() as u64
    }

    /// What an update has of the same clocks differs from it: in content that lives on both sides, or in where it stands, whether it lives or not.
    /// `None`: it does. Else the comparison of the contents.
    pub fn compare(&self, update: &Update, client: u64, clocks: Range<u64>) -> Option<Compared> {
        let before = clocks.start.saturating_sub(self.from) as usize;
        let places = self.places.after(before).compare(&Marks::of_places(update, client, clocks.clone()));
        let content = self.marks.after(before).compare(&Marks::of(update, client, clocks));
        (content.different + places.different == 0).then_some(content)
    }
}

impl Writers {
    /// To whom a client id belongs.
    pub fn writer(&self, client: u64) -> Option<UserId> {
        self.users.get(*self.of.get(&client)? as usize).copied()
    }

    /// What others brought under it.
    pub fn tail(&self, client: u64) -> Option<&Tail> {
        self.tails.get(&client)
    }

    /// The tail of an id that belongs to this user.
    pub fn tail_of(&self, user: UserId, client: u64) -> Option<&Tail> {
        self.tail(client).filter(|_| self.writer(client) == Some(user))
    }

    /// The ids of this user that have a tail, each with its first clock.
    pub fn tails_of(&self, user: UserId) -> impl Iterator<Item = (u64, u64)> + '_ {
        let number = self.numbers.get(&user);
        let tails = self.tails.iter().filter(move |(client, _)| number.is_some() && self.of.get(*client) == number);
        tails.map(|(client, tail)| (*client, tail.from))
    }

    /// About what it takes of memory.
    pub fn bytes(&self) -> usize {
        CLIENT_BYTES * self.of.len() + 4 * self.tails_units
    }

    /// Takes in a committed update, all of which is new.
    pub fn take_in(&mut self, update: &Update, authorship: Authorship) {
        let user = authorship.user();
        for (client, from, to) in update.clients() {
            match self.writer(client) {
                Some(writer) if Some(writer) == user => {
                    // Whoever admitted it had seen him bring the same as stands in the tail.
                    self.drop_tail(client);
                }
                Some(_) => {
                    let (marks, places) = (Marks::of, Marks::of_places);
                    self.extend_tail(client, from, marks(update, client, from..to), places(update, client, from..to));
                }
                // Several ids in one update are a document that is brought along, not somebody's writing.
                None if update.clients().nth(1).is_none() => {
                    if let Authorship::WrittenBy(user) = authorship {
                        let number = self.number(user);
                        self.of.insert(client, number);
                    }
                }
                None => {}
            }
        }
    }

    /// The writer has the same content up to this clock.
    pub fn confirm(&mut self, client: u64, through: u64) {
        let Some(tail) = self.tails.get(&client) else { return };
        let (confirmed, end) = (through.saturating_sub(tail.from), tail.end());
        if confirmed == 0 {
            return;
        }
        let (marks, places) = (tail.marks.after(confirmed as usize), tail.places.after(confirmed as usize));
        self.drop_tail(client);
        if through < end {
            self.extend_tail(client, through, marks, places);
        }
    }

    fn drop_tail(&mut self, client: u64) {
        if let Some(tail) = self.tails.remove(&client) {
            self.tails_units -= tail.marks.len();
        }
    }

    fn extend_tail(&mut self, client: u64, from: u64, marks: Marks, places: Marks) {
        let none = || Tail { from, marks: Marks::default(), places: Marks::default() };
        let tail = self.tails.entry(client).or_insert_with(none);
        let before = tail.marks.len();
        let between = from.saturating_sub(tail.end()) as usize;
        for (all, more) in [(&mut tail.marks, marks), (&mut tail.places, places)] {
            all.extend_unknown(between);
            all.extend(more);
        }
        self.tails_units += tail.marks.len() - before;
    }

    fn number(&mut self, user: UserId) -> u32 {
        let users = &mut self.users;
        *self.numbers.entry(user).or_insert_with(|| {
            users.push(user);
            users.len() as u32 - 1
        })
    }

    /// For a snapshot: nothing where nothing is known.
    pub fn encode(&self) -> Bytes {
        if self.of.is_empty() {
            return Bytes::new();
        }
        let mut bytes = Vec::with_capacity(16 * self.users.len() + 6 * self.of.len() + 6 * self.tails_units + 8);
        write_var_uint(&mut bytes, VERSION);
        write_var_uint(&mut bytes, Marks::scheme().into());
        write_var_uint(&mut bytes, self.users.len() as u64);
        for user in &self.users {
            bytes.extend_from_slice(user.0.as_bytes());
        }
        let mut clients: Vec<(u64, u32)> = self.of.iter().map(|(client, user)| (*client, *user)).collect();
        clients.sort_unstable();
        write_var_uint(&mut bytes, clients.len() as u64);
        let mut before = 0;
        for (client, user) in clients {
            write_var_uint(&mut bytes, client - before);
            write_var_uint(&mut bytes, user.into());
            before = client;
        }
        write_var_uint(&mut bytes, self.tails.len() as u64);
        for (client, tail) in &self.tails {
            write_var_uint(&mut bytes, *client);
            write_var_uint(&mut bytes, tail.from);
            write_var_uint(&mut bytes, tail.marks.len() as u64);
            let numbers = tail.marks.numbers().chain(tail.places.numbers());
            numbers.for_each(|mark| write_var_uint(&mut bytes, mark.into()));
        }
        bytes.into()
    }

    /// Reads [`encode`](Self::encode). What another build made in another way is not known.
    pub fn decode(bytes: &[u8]) -> Self {
        Self::read(bytes).unwrap_or_default()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut next = || reader.read_var_uint().ok();
        let version = next()?;
        if ![VERSION_WITHOUT_PLACES, VERSION].contains(&version) || next()? != u64::from(Marks::scheme()) {
            return None;
        }
        let mut writers = Self::default();
        for _ in 0..next()? {
            writers.number(UserId(Uuid::from_bytes(reader.take_array().ok()?)));
        }
        let mut next = || reader.read_var_uint().ok();
        let mut client = 0_u64;
        for _ in 0..next()? {
            client = client.checked_add(next()?)?;
            let user = u32::try_from(next()?).ok().filter(|user| (*user as usize) < writers.users.len())?;
            writers.of.insert(client, user);
        }
        for _ in 0..next()? {
            let (client, from, count) = (next()?, next()?, next()?);
            let mut numbers = || {
                let numbers = (0..count).map(|_| next().and_then(|mark| u16::try_from(mark).ok()));
                numbers.collect::<Option<Marks>>()
            };
            let marks = numbers()?;
            let mut places = Marks::default();
            match version {
                VERSION => places = numbers()?,
                _ => places.extend_unknown(marks.len()),
            }
            writers.tails_units += marks.len();
            writers.tails.insert(client, Tail { from, marks, places });
        }
        reader.is_empty().then_some(writers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contextnexus_gate::Caps;
    use yrs::{ClientID, Doc, OffsetKind, Options, ReadTxn, StateVector, Text, Transact};

    const ANN: UserId = UserId(Uuid::from_u128(1));
    const BOB: UserId = UserId(Uuid::from_u128(2));

    /// A client that types: each call is the update of one edit.
    fn typist(client: u64) -> impl Fn(&str) -> Update {
        let mut options = Options::with_client_id(ClientID::new(client));
        options.offset_kind = OffsetKind::Utf16;
        let doc = Doc::with_options(options);
        move |text| {
            let root = doc.get_or_insert_text("text");
            let mut transaction = doc.try_transact_mut().unwrap();
            root.push(&mut transaction, text);
            Update::parse(transaction.encode_update_v1().into(), &Caps::default()).unwrap()
        }
    }

    fn parsed(client: u64, text: &str) -> Update {
        typist(client)(text)
    }

    #[test]
    fn an_id_belongs_to_the_first_who_wrote_under_it_as_himself() {
        let (mut writers, ann) = (Writers::default(), typist(5));
        writers.take_in(&ann("relayed "), Authorship::RelayedBy(BOB));
        assert_eq!(writers.writer(5), None, "who brings it does not own it");
        writers.take_in(&ann("mine "), Authorship::WrittenBy(ANN));
        writers.take_in(&ann("his"), Authorship::WrittenBy(BOB));
        assert_eq!(writers.writer(5), Some(ANN));
        assert_eq!(writers.tails_of(ANN).collect::<Vec<_>>(), [(5, 13)]);
        assert_eq!(writers.tails_of(BOB).count(), 0);
        let (tail, end) = (writers.tail_of(ANN, 5).unwrap(), 16);
        assert_eq!((tail.end(), writers.tail_of(BOB, 5)), (end, None));
        assert_eq!(tail.marks, Marks::of(&parsed(5, "relayed mine his"), 5, 13..16));
    }

    #[test]
    fn a_document_that_is_brought_along_binds_no_id() {
        let (doc, other) = (Doc::with_client_id(6u64), parsed(5, "one"));
        for update in [&other, &parsed(6, "two")] {
            let update = yrs::updates::decoder::Decode::decode_v1(update.bytes()).unwrap();
            doc.try_transact_mut().unwrap().apply_update(update).unwrap();
        }
        let both = doc.try_transact().unwrap().encode_state_as_update_v1(&StateVector::default());
        let mut writers = Writers::default();
        writers.take_in(&Update::parse(both.into(), &Caps::default()).unwrap(), Authorship::WrittenBy(BOB));
        assert_eq!((writers.writer(5), writers.writer(6)), (None, None));
        assert!(writers.encode().is_empty());
    }

    #[test]
    fn what_the_writer_confirms_or_goes_on_behind_is_his() {
        let (mut writers, ann) = (Writers::default(), typist(5));
        writers.take_in(&ann("ann "), Authorship::WrittenBy(ANN));
        writers.take_in(&ann("relayed"), Authorship::RelayedBy(BOB));
        writers.confirm(5, 4);
        assert_eq!(writers.tail(5).map(Tail::end), Some(11));
        writers.confirm(5, 6);
        assert_eq!(writers.tail(5).map(|tail| (tail.from, tail.marks.len())), Some((6, 5)));
        let before = writers.clone();
        writers.confirm(5, 11);
        assert_eq!(writers.tail(5), None);
        writers = before;
        writers.take_in(&ann(" and on"), Authorship::RelayedBy(ANN));
        assert_eq!((writers.tail(5), writers.tails_units), (None, 0));
    }

    #[test]
    fn what_is_encoded_comes_back() {
        let (mut writers, ann, far) = (Writers::default(), typist(5), typist((1 << 53) - 1));
        writers.take_in(&ann("ann "), Authorship::WrittenBy(ANN));
        writers.take_in(&far("far"), Authorship::WrittenBy(BOB));
        writers.take_in(&ann("not she 😀"), Authorship::WrittenBy(BOB));
        let bytes = writers.encode();
        assert_eq!(Writers::decode(&bytes), writers);
        let tail = writers.tail(5).unwrap();
        assert_eq!((tail.places.len(), tail.places == tail.marks), (tail.marks.len(), false));
        for length in 0..bytes.len() {
            assert_eq!(Writers::decode(&bytes[..length]), Writers::default(), "a part of it says nothing");
        }
    }
}
