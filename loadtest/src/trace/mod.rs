//! Real editing, character by character: traces in the public editing-traces form, and one made up where there is none.
//!
//! The form is JSON, gzipped or not: `{"startContent", "endContent", "txns": [{"patches": [[position, deleted,
//! "inserted"]]}]}`, positions in characters. `automerge-paper` in that collection has 259,778 patches of one character.

mod typist;

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;

pub use typist::{Script, Typist};

/// What `automerge-paper` has: so many a made-up trace has too.
pub const EDITS: usize = 259_778;
/// Of these, insertions.
const INSERTED: f64 = 0.7018;

/// One keystroke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A character before the one at this position.
    Insert(usize, char),
    /// The character at this position goes.
    Delete(usize),
}

/// A document's making.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Where it comes from, for the report.
    pub source: String,
    /// Keystroke by keystroke.
    pub edits: Vec<Edit>,
    /// What the document must be in the end; `None` for a cut or made-up trace, where the typist knows.
    pub end: Option<String>,
}

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("{0} cannot be read")]
    Io(String, #[source] std::io::Error),
    /// The file is of another form.
    #[error("{0} is not in the editing-traces form")]
    Malformed(String, #[source] serde_json::Error),
    /// A position beyond the document.
    #[error("edit {0} lies beyond the document")]
    Beyond(usize),
    /// Played, it does not come to what it says.
    #[error("played, {0} comes to something else than its own endContent")]
    Differs(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    start_content: String,
    end_content: String,
    txns: Vec<Transaction>,
}

#[derive(Deserialize)]
struct Transaction {
    patches: Vec<(usize, usize, String)>,
}

impl Trace {
    /// Reads a file, gzipped or not.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let name = path.display().to_string();
        let mut bytes = std::fs::read(path).map_err(|error| TraceError::Io(name.clone(), error))?;
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut plain = Vec::new();
            let unpacked = GzDecoder::new(bytes.as_slice()).read_to_end(&mut plain);
            unpacked.map_err(|error| TraceError::Io(name.clone(), error))?;
            bytes = plain;
        }
        let file: File = serde_json::from_slice(&bytes).map_err(|error| TraceError::Malformed(name.clone(), error))?;
        let mut edits: Vec<Edit> =
            file.start_content.chars().enumerate().map(|(at, char)| Edit::Insert(at, char)).collect();
        for (position, deleted, inserted) in file.txns.into_iter().flat_map(|txn| txn.patches) {
            edits.extend(std::iter::repeat_n(Edit::Delete(position), deleted));
            edits.extend(inserted.chars().enumerate().map(|(at, char)| Edit::Insert(position + at, char)));
        }
        Ok(Self { source: name, edits, end: Some(file.end_content) })
    }

    /// Makes one up: runs of typing and of backspaces, with jumps between them, as much as `automerge-paper` has of
    /// each. The same seed makes the same trace.
    pub fn generate(edits: usize, seed: u64) -> Self {
        const LETTERS: &[u8] = b"etaoin shrdlu etaoin cmfwyp vbgkqj xz, .\n";
        let mut random = StdRng::seed_from_u64(seed);
        let mut made = Vec::with_capacity(edits);
        let (mut length, mut cursor) = (0usize, 0usize);
        while made.len() < edits {
            if length > 0 && random.random_bool(0.3) {
                // Mostly nearby, as people do, sometimes anywhere.
                cursor = match random.random_bool(0.9) {
                    true => (cursor + random.random_range(0..400)).saturating_sub(200).min(length),
                    false => random.random_range(0..=length),
                };
            }
            let run = random.random_range(1..16).min(edits - made.len());
            if random.random_bool(INSERTED) || cursor < run {
                for _ in 0..run {
                    let letter = LETTERS[random.random_range(0..LETTERS.len())] as char;
                    made.push(Edit::Insert(cursor, letter));
                    cursor += 1;
                }
                length += run;
            } else {
                for _ in 0..run {
                    cursor -= 1;
                    made.push(Edit::Delete(cursor));
                }
                length -= run;
            }
        }
        Self { source: format!("MADE UP from seed {seed} (no --trace file was given)"), edits: made, end: None }
    }

    /// Keeps the first `edits` only.
    pub fn cut(&mut self, edits: usize) {
        if edits < self.edits.len() {
            self.edits.truncate(edits);
            self.end = None;
            self.source = format!("the first {edits} edits of {}", self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("loadtest-trace-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    const SMALL: &str = r#"{"startContent":"xy","endContent":"aüb","txns":[
        {"time":"2021-04-19T06:06:58.219Z","patches":[[0,2,"a"],[1,0,"bc"]]},{"patches":[[1,0,"ü"],[3,1,""]]}]}"#;

    #[test]
    fn a_trace_is_read_plain_and_gzipped_and_comes_to_its_end() {
        let plain = file("plain.json", SMALL.as_bytes());
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(SMALL.as_bytes()).unwrap();
        let packed = file("packed.json.gz", &packed.finish().unwrap());
        for path in [&plain, &packed] {
            let trace = Trace::read(path).unwrap();
            assert_eq!(trace.edits.len(), 2 + 3 + 2 + 2);
            assert_eq!(Script::write(&trace, 5).unwrap().end, "aüb");
            std::fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn a_trace_that_lies_about_its_end_is_refused() {
        let path = file("lie.json", SMALL.replace("aüb", "aub").as_bytes());
        let trace = Trace::read(&path).unwrap();
        assert!(matches!(Script::write(&trace, 5), Err(TraceError::Differs(_))));
        std::fs::write(&path, "{}").unwrap();
        assert!(matches!(Trace::read(&path), Err(TraceError::Malformed(..))));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_made_up_trace_is_the_same_for_a_seed_and_like_the_real_one() {
        let trace = Trace::generate(20_000, 3);
        assert_eq!(trace.edits, Trace::generate(20_000, 3).edits);
        assert_ne!(trace.edits, Trace::generate(20_000, 4).edits);
        assert_eq!(trace.edits.len(), 20_000);
        let inserted = trace.edits.iter().filter(|edit| matches!(edit, Edit::Insert(..))).count();
        assert!((12_500..15_500).contains(&inserted), "{inserted} of 20,000 are insertions");
        let mut cut = trace.clone();
        cut.cut(100);
        assert_eq!((cut.edits.len(), cut.source.starts_with("the first 100 edits")), (100, true));
    }
}
