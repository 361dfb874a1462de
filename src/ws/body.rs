//! The outgoing half of a connection: the body of the 101 response. actix-http polls it while its write buffer has room, and
//! writes all that it yielded at once.

use super::link::Link;
use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use contextnexus_actors::outbox::Drained;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Taken from the outbox at a time. The rest stays there, where it is counted, may be seen to stand still, and is bounded.
const HELPING_BYTES: usize = 64 * 1024;

/// What the outbox holds, frame by frame.
pub struct Outgoing {
    link: Rc<Link>,
    taken: std::vec::IntoIter<Bytes>,
}

impl Outgoing {
    /// The body of this connection.
    pub fn new(link: Rc<Link>) -> Self {
        Self { link, taken: Vec::new().into_iter() }
    }
}

impl MessageBody for Outgoing {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        loop {
            if let Some(frame) = self.taken.next() {
                return Poll::Ready(Some(Ok(frame)));
            }
            match self.link.outbox.poll_drain(context, HELPING_BYTES) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Drained::Frames(frames)) => {
                    let bytes: usize = frames.iter().map(Bytes::len).sum();
                    metrics::counter!("contextnexus_ws_sent_bytes_total").increment(bytes as u64);
                    self.taken = frames.into_iter();
                }
                Poll::Ready(Drained::End) => return self.link.poll_end(context).map(|()| None),
            }
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // The connection is gone, in whichever way: nobody is to push any more, and the session is to hear of it.
        self.link.outbox.abandon();
        self.link.over.notify_one();
    }
}
