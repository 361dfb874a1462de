//! Turns keystrokes into the updates that a Yjs client would send, without a CRDT: one writer has no conflicts, so a list
//! of its own characters, deleted ones included, says everything. 260,000 keystrokes take a fraction of a second.

use super::{Edit, Trace, TraceError};
use crate::wire::update::{self, Place, ROOT};

/// The root that the last update of a script goes into: whoever has it has everything before it.
const END_ROOT: &str = "loadtest-end";

/// A character of the document, there or gone.
#[derive(Clone, Copy, Debug)]
struct Unit {
    char: char,
    clock: u32,
    deleted: bool,
}

impl Unit {
    fn len(self) -> u32 {
        self.char.len_utf16() as u32
    }
}

/// One writer, and the document as it knows it. Pure.
#[derive(Debug)]
pub struct Typist {
    client: u64,
    clock: u32,
    /// Left of the cursor, in order.
    before: Vec<Unit>,
    /// Right of the cursor, in reverse.
    after: Vec<Unit>,
    /// Characters left of the cursor that are there.
    position: usize,
}

impl Typist {
    /// Writes as `client` into an empty document.
    pub fn new(client: u64) -> Self {
        Self { client, clock: 0, before: Vec::new(), after: Vec::new(), position: 0 }
    }

    /// The update of one keystroke; `None` where its position lies beyond the document.
    pub fn press(&mut self, edit: Edit) -> Option<Vec<u8>> {
        match edit {
            Edit::Insert(position, char) => {
                self.seek(position)?;
                Some(self.insert(char))
            }
            Edit::Delete(position) => {
                self.seek(position)?;
                self.delete()
            }
        }
    }

    /// One character in a root of its own, behind everything.
    pub fn sign_off(&mut self) -> Vec<u8> {
        let clock = self.clock;
        self.clock += 1;
        update::insert_text(self.client, clock, Place::Alone(END_ROOT), ".")
    }

    /// The clock that the next character gets.
    pub fn clock(&self) -> u32 {
        self.clock
    }

    /// The document as it stands.
    pub fn text(&self) -> String {
        self.before.iter().chain(self.after.iter().rev()).filter(|unit| !unit.deleted).map(|unit| unit.char).collect()
    }

    /// Goes right behind the character before `position`; deleted ones between it and the next stay on the right, where
    /// Yjs takes the first of them as right origin.
    fn seek(&mut self, position: usize) -> Option<()> {
        while self.position < position {
            let unit = self.after.pop()?;
            self.position += usize::from(!unit.deleted);
            self.before.push(unit);
        }
        while self.position > position || self.before.last().is_some_and(|unit| unit.deleted) {
            let unit = self.before.pop()?;
            self.position -= usize::from(!unit.deleted);
            self.after.push(unit);
        }
        Some(())
    }

    fn insert(&mut self, char: char) -> Vec<u8> {
        let unit = Unit { char, clock: self.clock, deleted: false };
        let left = self.before.last().map(|unit| (self.client, unit.clock + unit.len() - 1));
        let right = self.after.last().map(|unit| (self.client, unit.clock));
        let place = match (left, right) {
            (None, None) => Place::Alone(ROOT),
            (left, right) => Place::Between(left, right),
        };
        self.clock += unit.len();
        self.before.push(unit);
        self.position += 1;
        update::insert_text(self.client, unit.clock, place, char.encode_utf8(&mut [0; 4]))
    }

    fn delete(&mut self) -> Option<Vec<u8>> {
        let unit = self.after.iter_mut().rev().find(|unit| !unit.deleted)?;
        unit.deleted = true;
        Some(update::delete(self.client, unit.clock, unit.len()))
    }
}

/// A whole trace as updates, ready to be sent.
#[derive(Debug)]
pub struct Script {
    bytes: Vec<u8>,
    /// Where each update ends in `bytes`.
    ends: Vec<u32>,
    /// The clock of the last character: who has it has everything before it.
    pub last_clock: u32,
    /// What the document comes to.
    pub end: String,
}

impl Script {
    /// Plays `trace` as `client`; the last update signs off.
    pub fn write(trace: &Trace, client: u64) -> Result<Self, TraceError> {
        let mut typist = Typist::new(client);
        let mut script = Self { bytes: Vec::new(), ends: Vec::new(), last_clock: 0, end: String::new() };
        for (number, edit) in trace.edits.iter().enumerate() {
            let update = typist.press(*edit).ok_or(TraceError::Beyond(number))?;
            script.push(&update);
        }
        script.last_clock = typist.clock();
        script.push(&typist.sign_off());
        script.end = typist.text();
        match &trace.end {
            Some(end) if *end != script.end => Err(TraceError::Differs(trace.source.clone())),
            _ => Ok(script),
        }
    }

    fn push(&mut self, update: &[u8]) {
        self.bytes.extend_from_slice(update);
        self.ends.push(self.bytes.len() as u32);
    }

    /// How many updates.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is nothing to send; never, for it signs off.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One by one.
    pub fn updates(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.ends.len()).map(|number| {
            let start = if number == 0 { 0 } else { self.ends[number - 1] as usize };
            &self.bytes[start..self.ends[number] as usize]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader;

    #[test]
    fn yrs_reads_what_the_typist_wrote() {
        for seed in 0..20 {
            let mut trace = Trace::generate(600, seed);
            // Astral characters are two clocks long.
            for edit in trace.edits.iter_mut().step_by(7) {
                if let Edit::Insert(_, char) = edit {
                    *char = '🦀';
                }
            }
            let script = Script::write(&trace, 5).unwrap();
            let updates: Vec<Vec<u8>> = script.updates().map(<[u8]>::to_vec).collect();
            assert_eq!(updates.len(), 601);
            assert_eq!(reader::text(&updates).unwrap(), script.end, "seed {seed}");
        }
    }

    #[test]
    fn a_keystroke_beyond_the_document_is_found() {
        let mut typist = Typist::new(5);
        typist.press(Edit::Insert(0, 'a')).unwrap();
        assert!(typist.press(Edit::Insert(2, 'b')).is_none());
        assert!(typist.press(Edit::Delete(1)).is_none());
        typist.press(Edit::Delete(0)).unwrap();
        assert!(typist.press(Edit::Delete(0)).is_none(), "nothing is deleted twice");
        assert_eq!(typist.text(), "");
    }
}
