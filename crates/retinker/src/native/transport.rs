//! Requests by reqwest.

use std::time::Duration;

use futures_core::future::BoxFuture;
use futures_util::StreamExt;

use crate::transport::{Method, Request, Response, Transport, TransportError, TransportErrorKind};

/// A transport with a pool of connections, over HTTP/1.1 and, with TLS, HTTP/2. Clones share the pool. Its futures
/// must be polled inside a tokio runtime.
#[derive(Debug, Clone)]
pub struct NativeTransport {
    client: reqwest::Client,
}

impl NativeTransport {
    /// A transport. TLS is rustls with ring, and trusts what the system trusts.
    ///
    /// # Errors
    /// [`TransportErrorKind::Build`] if the system's certificates cannot be read.
    pub fn new() -> Result<Self, TransportError> {
        // Only a process that has not chosen a provider needs this one; the answer says no more than that.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_secs(60))
            .tcp_nodelay(true)
            .user_agent(concat!("retinker/", env!("CARGO_PKG_VERSION")))
            .build()
            .map(|client| Self { client })
            .map_err(|error| TransportError::new(TransportErrorKind::Build, chain(&error.without_url())))
    }
}

impl Transport for NativeTransport {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Delete => reqwest::Method::DELETE,
        };
        let place = place(&request.url);
        let mut builder = self.client.request(method, &request.url);
        for (name, value) in &request.headers {
            builder = builder.header(name.as_ref(), value);
        }
        if !request.body.is_empty() {
            builder = builder.body(request.body);
        }
        Box::pin(async move {
            let response = builder.send().await.map_err(|error| failure(&place, error))?;
            let status = response.status().as_u16();
            let headers = response
                .headers()
                .iter()
                .map(|(name, value)| {
                    (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                })
                .collect();
            let body = response.bytes_stream().map(move |piece| {
                piece.map_err(|error| {
                    TransportError::new(
                        TransportErrorKind::Body,
                        format!("the answer of {place} broke off: {}", chain(&error.without_url())),
                    )
                })
            });
            Ok(Response { status, headers, body: Box::pin(body) })
        })
    }
}

fn failure(place: &str, error: reqwest::Error) -> TransportError {
    let kind = if error.is_connect() {
        TransportErrorKind::Connect
    } else if error.is_builder() {
        TransportErrorKind::Build
    } else {
        TransportErrorKind::Request
    };
    let what = match kind {
        TransportErrorKind::Connect => "no connection to",
        TransportErrorKind::Build => "a request cannot be built for",
        _ => "the connection broke off to",
    };
    TransportError::new(kind, format!("{what} {place}: {}", chain(&error.without_url())))
}

/// The URL up to its query, which may hold what nobody should read.
fn place(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// An error and what lies under it: reqwest's own sentences say little.
fn chain(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
