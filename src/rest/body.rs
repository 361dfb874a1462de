//! What requests' bodies hold while they arrive, in the node's budgets.
//!
//! The shell counts every body, whoever reads it, until its request is answered: as a stranger's first, and from the moment that a handler has
//! let its caller in as what arrives of clients.

use super::ApiError;
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpMessage as _, HttpRequest};
use bytes::{Bytes, BytesMut};
use contextnexus_actors::budget::{Budgets, Share};
use futures_util::StreamExt as _;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

/// Counted against no budget, so that the small bodies of honest callers come through where it is full: the number of connections bounds it.
const ALWAYS_HELD_BYTES: usize = 8 * 1024;

/// One body, in the extensions of its request.
#[derive(Clone)]
pub(super) struct Arrival(Rc<RefCell<Arriving>>);

struct Arriving {
    share: Share,
    budgets: Arc<Budgets>,
    /// What the request says, or 0.
    announced: usize,
    bytes: usize,
    was_full: bool,
}

impl Arrival {
    /// Counts the body of a request from now on.
    pub fn watch(request: &mut ServiceRequest, budgets: &Arc<Budgets>) -> Self {
        let arriving = Arriving {
            share: Share::of(Arc::clone(&budgets.strangers)),
            budgets: Arc::clone(budgets),
            announced: announced(request.headers()).unwrap_or(0),
            bytes: 0,
            was_full: false,
        };
        let arrival = Self(Rc::new(RefCell::new(arriving)));
        request.extensions_mut().insert(arrival.clone());
        let (payload, counting) = (request.take_payload(), arrival.clone());
        let counted = payload.map(move |chunk| {
            let chunk = chunk?;
            if counting.took(chunk.len()) { Ok(chunk) } else { Err(PayloadError::Io(io::Error::other("no room"))) }
        });
        request.set_payload(Payload::Stream { payload: Box::pin(counted) });
        arrival
    }

    /// The request is answered: nothing of its body is held any more. True: there was no room for it, whatever the answer says.
    pub fn is_over(&self) -> bool {
        let mut arriving = self.0.borrow_mut();
        arriving.share = Share::of(Arc::clone(&arriving.budgets.strangers));
        arriving.was_full
    }

    /// Its caller is known, and may do this.
    fn let_in(&self) {
        let mut arriving = self.0.borrow_mut();
        arriving.share = Share::of(Arc::clone(&arriving.budgets.arriving));
    }

    fn took(&self, bytes: usize) -> bool {
        let mut arriving = self.0.borrow_mut();
        arriving.bytes += bytes;
        // Whoever gathers it has memory for twice as much as has come, or for all of it.
        let held = (2 * arriving.bytes).min(arriving.announced.max(arriving.bytes));
        let held = if arriving.announced == 0 { 2 * arriving.bytes } else { held };
        let fits = arriving.share.set(held.saturating_sub(ALWAYS_HELD_BYTES));
        arriving.was_full |= !fits;
        fits
    }
}

/// A binary body of at most `limit` bytes, of a caller who may send as much.
pub(super) async fn binary(
    request: &HttpRequest,
    mut payload: actix_web::web::Payload,
    limit: usize,
) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::TooLarge { limit: Some(limit) };
    let announced = announced(request.headers());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    if let Some(arrival) = request.extensions().get::<Arrival>() {
        arrival.let_in();
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| ApiError::Malformed("the body ended early".into()))?;
        let needed = body.len() + chunk.len();
        if needed > limit {
            return Err(too_large());
        }
        if needed > body.capacity() {
            let room = needed.max((2 * needed).min(announced.unwrap_or(limit)));
            body.reserve(room - body.len());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The length that the request names.
pub(super) fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
}
