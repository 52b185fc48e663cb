//! Requests by reqwest.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_util::StreamExt;
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue, InvalidHeaderName};

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
        Self::of(client())
    }

    /// One that begins with HTTP/2, for a service that is known to speak it without TLS, as `retinker local` does: thousands
    /// of requests share one connection, where HTTP/1.1 takes one for each. A service that does not speak it gives no
    /// answer.
    ///
    /// # Errors
    /// [`TransportErrorKind::Build`] if the system's certificates cannot be read.
    pub fn http2() -> Result<Self, TransportError> {
        Self::of(client().http2_prior_knowledge())
    }

    fn of(builder: reqwest::ClientBuilder) -> Result<Self, TransportError> {
        // Only a process that has not chosen a provider needs this one; the answer says no more than that.
        let _ = rustls::crypto::ring::default_provider().install_default();
        builder
            .build()
            .map(|client| Self { client })
            .map_err(|error| TransportError::new(TransportErrorKind::Build, chain(&error.without_url())))
    }
}

fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(Duration::from_secs(5))
        .pool_idle_timeout(Duration::from_secs(60))
        .tcp_nodelay(true)
        .user_agent(concat!("retinker/", env!("CARGO_PKG_VERSION")))
}

impl Transport for NativeTransport {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let (place, client) = (place(&request.url), self.client.clone());
        Box::pin(async move {
            let request = built(request, &place)?;
            let response = client.execute(request).await.map_err(|error| failure(&place, &error))?;
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

/// The request as reqwest wants it. Its own builder would copy each header.
fn built(request: Request, place: &str) -> Result<reqwest::Request, TransportError> {
    let refused = |why: &dyn std::fmt::Display| {
        TransportError::new(
            TransportErrorKind::Build,
            format!("a request cannot be built for {place}: {why}"),
        )
    };
    let method = match request.method {
        Method::Get => reqwest::Method::GET,
        Method::Post => reqwest::Method::POST,
        Method::Put => reqwest::Method::PUT,
        Method::Delete => reqwest::Method::DELETE,
    };
    let url = Url::parse(&request.url).map_err(|error| refused(&error))?;
    let mut built = reqwest::Request::new(method, url);
    for (name, value) in request.headers {
        let name = name_of(name).map_err(|error| refused(&error))?;
        let value = HeaderValue::from_maybe_shared(Bytes::from(value)).map_err(|error| refused(&error))?;
        built.headers_mut().append(name, value);
    }
    if !request.body.is_empty() {
        *built.body_mut() = Some(request.body.into());
    }
    Ok(built)
}

/// Names that are known when the program is built cost nothing.
fn name_of(name: Cow<'static, str>) -> Result<HeaderName, InvalidHeaderName> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match name {
        Cow::Borrowed(name) if !name.is_empty() && name.bytes().all(plain) => {
            Ok(HeaderName::from_static(name))
        }
        name => HeaderName::from_bytes(name.as_bytes()),
    }
}

fn failure(place: &str, error: &reqwest::Error) -> TransportError {
    let kind = if error.is_connect() { TransportErrorKind::Connect } else { TransportErrorKind::Request };
    let what = match kind {
        TransportErrorKind::Connect => "no connection to",
        _ => "the connection broke off to",
    };
    TransportError::new(kind, format!("{what} {place}: {}", chain(error)))
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
