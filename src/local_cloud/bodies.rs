//! Bodies of requests, read whole, as long as there is room for them.

use std::{io, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
    response::Response,
};
use bytes::BytesMut;
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::server::rpc_error;

/// The largest request body that is read at all; the APIs' own limits are lower where Google has one.
const LARGEST: usize = 1 << 30;
/// All bodies of requests that are not answered yet.
const MOST: usize = 4 << 30;
/// What is counted by. A request's first one is its own.
const UNIT: usize = 1 << 20;
const PIECE: usize = 64 * 1024;

/// Room for the bodies of requests, so that no number of them takes all memory.
pub(super) struct Bodies(Arc<Semaphore>);

impl Default for Bodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST / UNIT)))
    }
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotRead {
    #[error("the request body broke off")]
    BrokeOff,
    #[error("the request body has more than {LARGEST} bytes")]
    TooLarge,
    #[error("other requests take all the memory there is for bodies; try again later")]
    NoRoom,
}

impl NotRead {
    pub(super) fn code(&self) -> StatusCode {
        match self {
            Self::BrokeOff => StatusCode::BAD_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(super) fn answer(&self) -> Response {
        let status = match self {
            Self::BrokeOff | Self::TooLarge => "INVALID_ARGUMENT",
            Self::NoRoom => "UNAVAILABLE",
        };
        rpc_error(self.code(), status, &self.to_string())
    }
}

/// A body, and the room that it takes until the request is answered.
#[derive(Default)]
pub(super) struct Held {
    pub(super) bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    pub(super) async fn read(&self, body: Body) -> Result<Held, NotRead> {
        let mut growing = Growing::default();
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            growing.add(self, &piece.map_err(|_| NotRead::BrokeOff)?)?;
        }
        Ok(growing.held())
    }

    /// The same of what comes out of a decoder: little can unpack to very much.
    pub(super) fn read_from(&self, reader: &mut impl io::Read) -> io::Result<Result<Held, NotRead>> {
        let mut growing = Growing::default();
        let mut piece = vec![0; PIECE];
        loop {
            let length = reader.read(&mut piece)?;
            if length == 0 {
                return Ok(Ok(growing.held()));
            }
            if let Err(error) = growing.add(self, &piece[..length]) {
                return Ok(Err(error));
            }
        }
    }
}

/// A body of which there may be more.
#[derive(Default)]
struct Growing {
    whole: BytesMut,
    room: Option<OwnedSemaphorePermit>,
}

impl Growing {
    fn add(&mut self, bodies: &Bodies, piece: &[u8]) -> Result<(), NotRead> {
        let length = self.whole.len() + piece.len();
        if length > LARGEST {
            return Err(NotRead::TooLarge);
        }
        let taken = self.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from((length / UNIT).saturating_sub(taken)).map_err(|_| NotRead::TooLarge)?;
        if more > 0 {
            let more = Arc::clone(&bodies.0).try_acquire_many_owned(more);
            let more = more.map_err(|_| NotRead::NoRoom)?;
            match &mut self.room {
                Some(room) => room.merge(more),
                None => self.room = Some(more),
            }
        }
        self.whole.extend_from_slice(piece);
        Ok(())
    }

    fn held(self) -> Held {
        Held {
            bytes: self.whole.freeze(),
            _room: self.room,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_take_room_until_they_are_dropped() {
        let bodies = Bodies(Arc::new(Semaphore::new(3)));
        let body = |size: usize| Body::from(vec![0; size]);
        let first = bodies.read(body(2 * UNIT)).await.unwrap();
        assert_eq!(first.bytes.len(), 2 * UNIT);
        assert!(matches!(bodies.read(body(2 * UNIT)).await, Err(NotRead::NoRoom)));
        // Small ones are always taken, and what was refused has given back its room.
        let _small = bodies.read(body(UNIT - 1)).await.unwrap();
        let second = bodies.read(body(UNIT)).await.unwrap();
        drop((first, second));
        assert_eq!(bodies.0.available_permits(), 3);
        let endless = futures_util::stream::repeat_with(|| Ok::<_, io::Error>(Bytes::from_static(&[0; UNIT])));
        let wide = Bodies::default();
        assert!(matches!(
            wide.read(Body::from_stream(endless)).await,
            Err(NotRead::TooLarge)
        ));
        assert_eq!(wide.0.available_permits(), MOST / UNIT);
    }
}
