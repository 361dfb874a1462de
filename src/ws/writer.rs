//! The outgoing half of a connection: a task that writes what waits in its outbox, all of it at once.

use super::link::Link;
use bytes::Bytes;
use contextnexus_actors::outbox::{Drained, Sink};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use tokio::task::coop::consume_budget;

/// Taken from the outbox at a time. The rest stays there, where it is counted, may be seen to stand still, and is bounded.
const HELPING_BYTES: usize = 64 * 1024;

/// Writes until the close frame is written and the peer has answered it, or the connection is gone. `head` comes first.
pub async fn run(link: Rc<Link>, head: Bytes) {
    link.outbox.connect(Arc::clone(link.socket().stream()) as Arc<dyn Sink>);
    if write(&link, head).await.is_ok() {
        poll_fn(|context| link.poll_end(context)).await;
        link.socket().shut_down(Shutdown::Write);
    }
    // The connection is gone, in whichever way: nobody is to push any more, and the session is to hear of it.
    link.outbox.abandon();
    link.over.notify_one();
}

async fn write(link: &Link, head: Bytes) -> io::Result<()> {
    let mut frames = VecDeque::from([head]);
    loop {
        link.socket().write(frames.make_contiguous()).await?;
        consume_budget().await; // a peer that takes everything at once is not alone on this thread
        if poll_fn(|context| link.outbox.poll_drain(context, HELPING_BYTES, &mut frames)).await == Drained::End {
            return Ok(());
        }
    }
}
