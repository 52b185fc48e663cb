//! Connections: HTTP/1.1, and HTTP/2 with clients that begin with it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tower::ServiceExt;

use crate::faults::Lines;

/// Requests at once on one connection of HTTP/2. Most are long polls, of which a client may hold thousands.
const STREAMS: u32 = 10_000;

/// Answers requests until `stop`, and then those that are being answered. Each carries its connection's
/// [`Line`](crate::faults::Line).
pub(crate) async fn serve<L>(listener: L, router: Router, stop: impl Future<Output = ()>)
where
    L: Listener<Io = TcpStream, Addr = SocketAddr>,
{
    let (mut listener, mut stop) = (Lines(listener), pin!(stop));
    // Made once, not for each request.
    let router = router.with_state(());
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(STREAMS);
    let open = GracefulShutdown::new();
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let line = stream.line();
        let service = router.clone().map_request(move |request: Request<_>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(line.clone());
            request
        });
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let connection = open.watch(connection.into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a connection broke off");
            }
        });
    }
    open.shutdown().await;
}
