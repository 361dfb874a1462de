//! A client that only reads: what the first step 2 brings, how long it takes, and what it comes to.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use yrs::updates::decoder::Decode;
use yrs::{Doc, GetString, OffsetKind, Options, Transact, Update, WriteTxn};

use crate::client::{self, Access, ClientError, Link, Listener};
use crate::wire::update;

/// A read that brings no step 2 by then has failed.
const READ_PATIENCE: Duration = Duration::from_secs(30);

/// A document as a fresh client got it.
#[derive(Debug)]
pub struct Read {
    /// The updates that came, step 2 first.
    pub updates: Vec<Vec<u8>>,
    /// From the step 1 that was sent to the step 2 that came.
    pub sync: Duration,
    /// Still connected; close it when done.
    pub link: Link,
}

/// Opens `name` as a client that knows nothing and waits for the first step 2. Nothing is decoded while the clock runs.
pub async fn read(access: &Access, name: &str) -> Result<Read, String> {
    let words = |error: ClientError| error.to_string();
    let token = client::admit(access, name).await.map_err(words)?;
    let opened = client::connect(access, name, token.as_deref(), &update::EMPTY_STATE_VECTOR).await;
    let began = Instant::now();
    let (incoming, link) = opened.map_err(words)?;
    let (synced, is_synced) = oneshot::channel();
    let heard = Rc::new(RefCell::new(Heard::default()));
    let mut ears = Ears { heard: Rc::clone(&heard), synced: Some(synced) };
    let hears = link.clone();
    let listening = tokio::task::spawn_local(async move { client::listen(incoming, hears, &mut ears).await });
    let outcome = tokio::time::timeout(READ_PATIENCE, is_synced).await;
    let Ok(Ok(at)) = outcome else {
        link.close();
        listening.abort();
        return Err(format!("not synced within {READ_PATIENCE:?}: {}", heard.borrow().fault));
    };
    let updates = std::mem::take(&mut heard.borrow_mut().updates);
    Ok(Read { updates, sync: at.duration_since(began), link })
}

/// A document's text as a fresh client gets it with the first step 2.
pub async fn read_text(access: &Access, name: &str) -> Result<String, String> {
    let read = read(access, name).await?;
    read.link.close();
    text(&read.updates)
}

/// What updates come to in the root that every scenario writes.
pub fn text(updates: &[Vec<u8>]) -> Result<String, String> {
    let doc = Doc::with_options(Options { offset_kind: OffsetKind::Utf16, ..Options::default() });
    let mut txn = doc.try_transact_mut().map_err(|error| error.to_string())?;
    for update in updates {
        let update = Update::decode_v1(update).map_err(|error| error.to_string())?;
        txn.apply_update(update).map_err(|error| error.to_string())?;
    }
    Ok(txn.get_or_insert_text(update::ROOT).get_string(&txn))
}

#[derive(Default)]
struct Heard {
    updates: Vec<Vec<u8>>,
    fault: String,
}

struct Ears {
    heard: Rc<RefCell<Heard>>,
    synced: Option<oneshot::Sender<Instant>>,
}

impl Listener for Ears {
    fn asked(&mut self, _state_vector: &[u8]) -> Vec<u8> {
        update::EMPTY.to_vec()
    }

    fn content(&mut self, update: &[u8]) {
        // What comes later concerns a reader of the first step 2 no more, and must not pile up.
        if self.synced.is_some() {
            self.heard.borrow_mut().updates.push(update.to_vec());
        }
    }

    fn synced(&mut self) {
        if let Some(synced) = self.synced.take() {
            let _ = synced.send(Instant::now()); // the reader may have given up
        }
    }

    fn refused(&mut self, why: String) {
        self.heard.borrow_mut().fault = why;
        self.synced = None; // who is refused while opening is not synced any more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_come_to_their_text() {
        let first = update::append_text(7, 0, "ab");
        let second = update::append_text(7, 2, "c");
        assert_eq!(text(&[first.clone(), second.clone()]).unwrap(), "abc");
        assert_eq!(text(&[second, first]).unwrap(), "abc", "in any order");
        assert!(text(&[vec![9]]).is_err());
    }
}
