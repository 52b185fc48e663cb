//! One request after the other: a browser has six connections to an origin for all its tabs together, and two of them are
//! ours.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::lock::Mutex;
use retinker::transport::{Request, Response, Transport, TransportError};

/// Lets one request through at a time. The event stream, which never ends, has a connection of its own.
#[derive(Debug)]
pub(crate) struct Turns<T> {
    through: T,
    turn: Arc<Mutex<()>>,
}

impl<T: Transport> Turns<T> {
    pub(crate) fn new(through: T) -> Self {
        Self { through, turn: Arc::default() }
    }
}

impl<T: Transport> Transport for Turns<T> {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let is_stream = request.headers.iter().any(|(_, value)| value == "text/event-stream");
        let sent = self.through.send(request);
        if is_stream {
            return sent;
        }
        let turn = Arc::clone(&self.turn).lock_owned();
        Box::pin(async move {
            let turn = turn.await;
            let response = sent.await?;
            // The connection is free when the answer has been read, or is not wanted any more.
            let body = response.body.map(move |piece| {
                let _in_turn = &turn;
                piece
            });
            Ok(Response { body: Box::pin(body), ..response })
        })
    }
}
