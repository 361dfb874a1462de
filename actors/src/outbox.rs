//! What waits to be written to one connection: bounded in bytes, one wake-up and one flush for all that waits.
//!
//! Documents and the session push finished WebSocket frames (server frames are not masked, so one encoding serves every
//! receiver); the connection's writer drains. Nobody ever waits on it: full is an answer.
//!
//! What a document shows to everybody is [written through](Outbox::write_through) where nothing is before it: to wake a hundred writers
//! costs as much as the hundred writes (measured: a third of a fan-out's CPU time).

use crate::protocol::frame::is_message;
use bytes::{Buf as _, Bytes};
use futures_util::task::AtomicWaker;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Room for so many frames is kept for the next ones; what a burst took beyond it is given back.
const ROOM_KEPT: usize = 16;

/// The connection itself, for what is written through.
pub trait Sink: std::fmt::Debug + Send + Sync {
    /// Writes as much as is taken without waiting, and says how many bytes that was. 0 where none is, for whichever reason: the
    /// connection's writer finds out.
    fn write_now(&self, bytes: &[u8]) -> usize;
}

/// One connection's outgoing queue.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
    /// Bytes waiting; read without the lock.
    waiting: AtomicUsize,
    /// Messages ever queued, control frames aside: how silence is seen.
    messages: AtomicU64,
    budget: usize,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    /// Bytes of acknowledgements that were taken above the budget, since less than the budget last waited.
    above: usize,
    closing: bool,
    /// The writer is gone or the close frame is taken: what is pushed is dropped.
    closed: bool,
    /// Who is told when it is empty: each document of the connection that waits.
    on_drained: Vec<tokio::sync::mpsc::Sender<()>>,
    sink: Option<Arc<dyn Sink>>,
    /// The writer has written all that it took, and waits: who writes now does not overtake it.
    writer_waits: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Pushed {
    /// It is written, or waits to be.
    Taken,
    /// The budget is spent: it was not taken. Whoever pushes falls behind, and is told when the queue has drained.
    Full,
    /// The connection is gone.
    Closed,
}

/// What the writer is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drained {
    /// It was given frames, in order, to be written and flushed together.
    Frames,
    /// The close frame was the last: end the stream.
    End,
}

impl Outbox {
    /// An empty outbox. `budget` is in bytes; a frame is taken while less than that waits, so the memory bound is the budget and one
    /// frame. Above it may stand one state (a step 2), acknowledgements of as many bytes as the budget, and the close frame.
    pub fn new(budget: usize) -> Self {
        Self {
            queue: Mutex::new(Queue::default()),
            waker: AtomicWaker::new(),
            waiting: AtomicUsize::new(0),
            messages: AtomicU64::new(0),
            budget,
        }
    }

    /// Queues a finished frame.
    pub fn push(&self, frame: Bytes) -> Pushed {
        self.push_if(frame, |waiting, _| waiting < self.budget)
    }

    /// As [`push`](Self::push), but written at once, on the caller's thread, where nothing is before it and the connection takes it.
    pub fn write_through(&self, mut frame: Bytes) -> Pushed {
        let mut queue = self.lock();
        if queue.writer_waits
            && queue.frames.is_empty()
            && !queue.closing
            && !queue.closed
            && let Some(sink) = &queue.sink
        {
            let is_one = u64::from(is_message(&frame));
            frame.advance(sink.write_now(&frame).min(frame.len()));
            self.messages.fetch_add(is_one, Ordering::Relaxed);
            if !frame.is_empty() {
                self.waiting.fetch_add(frame.len(), Ordering::Relaxed);
                queue.frames.push_back(frame);
                drop(queue);
                self.waker.wake();
            }
            return Pushed::Taken;
        }
        drop(queue);
        self.push(frame)
    }

    /// Queues more of what the frame before it began, whatever waits: an update in pieces is taken as one frame would be.
    pub fn push_more(&self, frame: Bytes) -> Pushed {
        self.push_if(frame, |_, _| true)
    }

    /// The connection, for what is [written through](Self::write_through); until then everything is the writer's.
    pub fn connect(&self, sink: Arc<dyn Sink>) {
        self.lock().sink = Some(sink);
    }

    /// Whether a frame would be taken.
    pub fn has_room(&self) -> bool {
        self.waiting() < self.budget
    }

    /// Queues a state or an update for this connection alone, however large. Full where twice the budget waits already: it is never one of many.
    pub fn push_state(&self, frame: Bytes) -> Pushed {
        self.push_if(frame, |waiting, _| waiting < 2 * self.budget)
    }

    /// Queues a small frame that must not be lost for lack of room (an acknowledgement), behind a state of any size too.
    pub fn push_control(&self, frame: Bytes) -> Pushed {
        let bytes = frame.len();
        self.push_if(frame, |waiting, above| {
            if waiting < self.budget {
                return true;
            }
            let fits = *above < self.budget;
            *above += if fits { bytes } else { 0 };
            fits
        })
    }

    /// Queues the close frame as the last one, behind all that waits.
    pub fn close(&self, frame: Bytes) {
        self.close_after(frame, false);
    }

    /// Drops all that waits and queues the close frame: for a right that ended, and for a connection that is lost anyway.
    pub fn close_now(&self, frame: Bytes) {
        self.close_after(frame, true);
    }

    fn close_after(&self, frame: Bytes, drop_waiting: bool) {
        let mut queue = self.lock();
        if queue.closing || queue.closed {
            return;
        }
        queue.closing = true;
        if drop_waiting {
            queue.frames.clear();
            self.waiting.store(0, Ordering::Relaxed);
        }
        self.waiting.fetch_add(frame.len(), Ordering::Relaxed);
        queue.frames.push_back(frame);
        drop(queue);
        self.waker.wake();
    }

    /// The writer is gone: drop everything, refuse everything.
    pub fn abandon(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.frames.clear();
        queue.on_drained = Vec::new();
        queue.sink = None;
        self.waiting.store(0, Ordering::Relaxed);
        drop(queue);
        self.waker.wake();
    }

    /// Bytes waiting.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Messages queued since the start. Pings, pongs and the close frame are none: a stock client does not take them for life.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    /// Nothing more will be written: the writer is gone, or a close frame is queued.
    pub fn is_closed(&self) -> bool {
        let queue = self.lock();
        queue.closed || queue.closing
    }

    /// Asks for one `()` on `sender` when the queue is next empty. Each channel asks once: there are as many as the connection has documents.
    pub fn notify_when_drained(&self, sender: tokio::sync::mpsc::Sender<()>) {
        let mut queue = self.lock();
        if queue.frames.is_empty() {
            let _ = sender.try_send(()); // full means that the news is there already
        } else if !queue.on_drained.iter().any(|asker| asker.same_channel(&sender)) {
            queue.on_drained.push(sender);
        }
    }

    /// For the writer: what waits, in order, up to `bytes_max` and the rest of the frame that crosses it; or wait for something. It goes
    /// into `frames`, whose room is used again: an outbox that is drained as fast as it fills allocates nothing.
    ///
    /// What is not taken stays here, where it counts against the budget: a stalled connection holds the budget and one such helping.
    pub fn poll_drain(
        &self,
        context: &mut Context<'_>,
        bytes_max: usize,
        frames: &mut VecDeque<Bytes>,
    ) -> Poll<Drained> {
        self.waker.register(context.waker());
        let mut queue = self.lock();
        if queue.closed {
            return Poll::Ready(Drained::End);
        }
        frames.clear(); // what was written is not held until the next comes, and neither is the room that a burst took
        frames.shrink_to(ROOM_KEPT);
        queue.writer_waits = queue.frames.is_empty();
        if queue.writer_waits {
            return Poll::Pending;
        }
        let mut bytes = 0;
        if self.waiting.load(Ordering::Relaxed) <= bytes_max {
            std::mem::swap(&mut queue.frames, frames);
            bytes = self.waiting.load(Ordering::Relaxed);
        } else {
            while bytes < bytes_max
                && let Some(frame) = queue.frames.pop_front()
            {
                bytes += frame.len();
                frames.push_back(frame);
            }
        }
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        if self.waiting.load(Ordering::Relaxed) < self.budget {
            queue.above = 0;
        }
        if queue.frames.is_empty() {
            queue.closed = queue.closing;
            for asker in std::mem::take(&mut queue.on_drained) {
                let _ = asker.try_send(()); // as above
            }
        }
        drop(queue);
        Poll::Ready(Drained::Frames)
    }

    fn push_if(&self, frame: Bytes, has_room: impl FnOnce(usize, &mut usize) -> bool) -> Pushed {
        let mut queue = self.lock();
        if queue.closed || queue.closing {
            return Pushed::Closed;
        }
        if !has_room(self.waiting.load(Ordering::Relaxed), &mut queue.above) {
            return Pushed::Full;
        }
        self.waiting.fetch_add(frame.len(), Ordering::Relaxed);
        self.messages.fetch_add(u64::from(is_message(&frame)), Ordering::Relaxed);
        let was_empty = queue.frames.is_empty();
        queue.frames.push_back(frame);
        drop(queue);
        if was_empty {
            self.waker.wake();
        }
        Pushed::Taken
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner) // every critical section leaves it whole
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker;

    fn drain(outbox: &Outbox, bytes_max: usize) -> Poll<Drained> {
        outbox.poll_drain(&mut Context::from_waker(&noop_waker()), bytes_max, &mut VecDeque::new())
    }

    fn frames(outbox: &Outbox, bytes_max: usize) -> Vec<Bytes> {
        let mut frames = VecDeque::new();
        match outbox.poll_drain(&mut Context::from_waker(&noop_waker()), bytes_max, &mut frames) {
            Poll::Ready(Drained::Frames) => frames.into(),
            other => panic!("expected frames, got {other:?}"),
        }
    }

    fn frame(of: u8) -> Bytes {
        Bytes::from(vec![of; 10])
    }

    #[test]
    fn what_is_not_taken_counts_against_the_budget() {
        let outbox = Outbox::new(40);
        for of in 0..4 {
            assert_eq!(outbox.push(frame(of)), Pushed::Taken);
        }
        assert_eq!(outbox.push(frame(4)), Pushed::Full);
        assert_eq!(frames(&outbox, 15), [frame(0), frame(1)]); // at least 15 bytes, whole frames
        assert_eq!(outbox.waiting(), 20);
        assert_eq!(outbox.push(frame(5)), Pushed::Taken);
        assert_eq!(frames(&outbox, 100), [frame(2), frame(3), frame(5)]);
        assert!(drain(&outbox, 100).is_pending());
    }

    #[test]
    fn acknowledgements_find_room_where_updates_do_not() {
        let outbox = Outbox::new(10);
        assert_eq!(outbox.push(frame(0)), Pushed::Taken);
        assert_eq!(outbox.push(frame(1)), Pushed::Full);
        assert_eq!(outbox.push_control(frame(2)), Pushed::Taken);
        assert_eq!(outbox.push_control(frame(3)), Pushed::Full);
    }

    #[test]
    fn acknowledgements_stand_behind_a_state_of_any_size() {
        let outbox = Outbox::new(25);
        assert_eq!(outbox.push_state(Bytes::from(vec![0; 1_000])), Pushed::Taken);
        for of in 0..3 {
            assert_eq!(outbox.push_control(frame(of)), Pushed::Taken);
        }
        assert_eq!(outbox.push_control(frame(3)), Pushed::Full);
        assert_eq!(outbox.push_state(frame(4)), Pushed::Full);
        frames(&outbox, 1); // the state
        assert_eq!(outbox.push_control(frame(5)), Pushed::Full);
        frames(&outbox, 10); // one of the three
        assert_eq!(outbox.push_control(frame(6)), Pushed::Taken);
    }

    #[test]
    fn nothing_follows_the_close_frame() {
        let outbox = Outbox::new(100);
        assert_eq!(outbox.push(frame(0)), Pushed::Taken);
        outbox.close(frame(1));
        outbox.close(frame(2));
        assert_eq!(outbox.push_control(frame(3)), Pushed::Closed);
        assert_eq!(frames(&outbox, 1), [frame(0)]);
        assert_eq!(frames(&outbox, 1), [frame(1)]);
        assert!(matches!(drain(&outbox, 1), Poll::Ready(Drained::End)));
    }

    #[test]
    fn who_fell_behind_hears_of_an_empty_queue_not_of_a_shorter_one() {
        let outbox = Outbox::new(100);
        let (sender, mut news) = tokio::sync::mpsc::channel(1);
        assert_eq!(outbox.push(frame(0)), Pushed::Taken);
        assert_eq!(outbox.push(frame(1)), Pushed::Taken);
        outbox.notify_when_drained(sender);
        frames(&outbox, 1);
        assert!(news.try_recv().is_err());
        frames(&outbox, 1);
        assert!(news.try_recv().is_ok());
    }

    #[test]
    fn every_document_of_a_connection_hears_that_it_has_drained() {
        let outbox = Outbox::new(100);
        let (one, mut of_one) = tokio::sync::mpsc::channel(1);
        let (two, mut of_two) = tokio::sync::mpsc::channel(1);
        assert_eq!(outbox.push(frame(0)), Pushed::Taken);
        for _ in 0..3 {
            outbox.notify_when_drained(one.clone());
            outbox.notify_when_drained(two.clone());
        }
        frames(&outbox, 100);
        assert!(of_one.try_recv().is_ok() && of_two.try_recv().is_ok());
    }

    /// Takes so many bytes.
    #[derive(Debug, Default)]
    struct Taking(Mutex<(Vec<u8>, usize)>);

    impl Sink for Taking {
        fn write_now(&self, bytes: &[u8]) -> usize {
            let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = bytes.len().min(sink.1);
            sink.1 -= taken;
            sink.0.extend(&bytes[..taken]);
            taken
        }
    }

    #[test]
    fn what_is_written_through_overtakes_nothing() {
        let outbox = Outbox::new(100);
        let sink = Arc::new(Taking(Mutex::new((Vec::new(), 25))));
        let written = || sink.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        outbox.connect(Arc::clone(&sink) as Arc<dyn Sink>);
        assert_eq!(outbox.write_through(frame(0)), Pushed::Taken); // the writer has not come to wait yet
        assert_eq!(frames(&outbox, 100), [frame(0)]);
        assert_eq!(outbox.write_through(frame(1)), Pushed::Taken); // it writes
        assert_eq!(frames(&outbox, 100), [frame(1)]);
        assert!(written().is_empty());
        assert!(drain(&outbox, 100).is_pending());
        for of in [2, 3, 4, 5] {
            assert_eq!(outbox.write_through(frame(of)), Pushed::Taken);
        }
        assert_eq!(written(), [[2; 10], [3; 10]].concat().into_iter().chain([4; 5]).collect::<Vec<_>>());
        assert_eq!(outbox.waiting(), 15);
        assert_eq!(frames(&outbox, 100), [frame(4).slice(5..), frame(5)]);
        outbox.abandon();
        assert_eq!(outbox.write_through(frame(6)), Pushed::Closed);
        assert_eq!(Arc::strong_count(&sink), 1);
    }

    #[test]
    fn an_abandoned_outbox_holds_nothing() {
        let outbox = Outbox::new(100);
        assert_eq!(outbox.push(frame(0)), Pushed::Taken);
        outbox.abandon();
        assert_eq!(outbox.waiting(), 0);
        assert_eq!(outbox.push(frame(1)), Pushed::Closed);
        assert!(matches!(drain(&outbox, 1), Poll::Ready(Drained::End)));
    }
}
