//! Bodies of ranges between the socket and whoever reads them.
//!
//! Contract: a body that came in several pieces is copied into one buffer, and buffers are used again. When those that are
//! complete are not used as fast as they come, the requests that brought them stay counted as in flight, so no others
//! begin: what a busy node holds is bounded by its requests, and one that waits for the network is not slowed down.
//! Trap: a body keeps its place until every slice of it is dropped.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::budget::Slot;
use crate::adapters::spare::{Lent, Spares};

/// Largest buffer that is kept, bytes.
const LARGEST: usize = 4 << 20;

/// Buffers, and places for the complete ones.
#[derive(Debug)]
pub(super) struct Bodies {
    spares: Spares<u8>,
    places: Arc<Semaphore>,
}

impl Bodies {
    /// With `places` for complete bodies, beside `requests` that are being received from a host.
    pub(super) fn new(places: usize, requests: usize) -> Self {
        // Nobody makes a buffer while another waits: these are as many as were in use at once.
        let spares = Spares::new(places.saturating_add(requests), LARGEST);
        Self { spares, places: Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))) }
    }

    /// An empty buffer for `len` bytes.
    pub(super) fn lend(&self, len: usize) -> Lent<u8> {
        let mut buffer = self.spares.lend();
        buffer.clear();
        if buffer.capacity() < len {
            // Address space only: pages that are not written cost nothing, and buffers of a few sizes fit most bodies.
            *buffer = Vec::with_capacity(len.next_power_of_two());
        }
        buffer
    }

    /// The body's bytes, once there is a place for them; only then is its request over.
    pub(super) async fn settle(&self, Received { body, slot }: Received) -> Bytes {
        let bytes = match body {
            Body::Piece(bytes) => bytes,
            Body::Copied(buffer) => {
                let place = self.places.clone().acquire_owned().await.ok();
                Bytes::from_owner(Settled { buffer, _place: place })
            }
        };
        drop(slot);
        bytes
    }
}

/// What was received.
pub(super) enum Body {
    /// At once.
    Piece(Bytes),
    /// Piece by piece.
    Copied(Lent<u8>),
}

impl Body {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Piece(bytes) => bytes,
            Self::Copied(buffer) => buffer,
        }
    }
}

/// A body and the request that brought it.
pub(super) struct Received {
    pub(super) body: Body,
    pub(super) slot: Slot,
}

/// The buffer goes back before the place does.
struct Settled {
    buffer: Lent<u8>,
    _place: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Settled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}
