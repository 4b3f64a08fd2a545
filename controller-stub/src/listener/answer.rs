//! The body of an answer on its way: given out in pieces, and alive until the peer's socket has taken the
//! last of them. What it was charged with is given back then.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::{budget::Charge, in_flight::InFlight};

/// What a peer must take within the patience for it, in bytes.
pub(super) const PIECE: usize = 16 * 1024;

pub(super) struct Answer {
    body: Body,
    rest: Bytes,
    held: Arc<Held>,
}

/// Until the last piece is gone.
struct Held {
    request: Arc<InFlight>,
    _charge: Option<Arc<Charge>>,
}

struct Piece {
    bytes: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Answer {
    pub(super) fn new(body: Body, request: Arc<InFlight>, charge: Option<Arc<Charge>>) -> Self {
        request.answering(true);
        Self { body, rest: Bytes::new(), held: Arc::new(Held { request, _charge: charge }) }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        self.held.request.answering(false);
        let length = self.rest.len().min(PIECE);
        let piece = Piece { bytes: self.rest.split_to(length), _held: self.held.clone() };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, hint) = (self.rest.len() as u64, self.body.size_hint());
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}
