//! The seam to the network: one request, one response.
//!
//! A transport does not retry, does not follow redirects, and does not time out: the layers above decide.
//! **Dropping the returned future, or the body, aborts the request.**

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use futures_core::Stream;
use futures_core::future::BoxFuture;

/// What sends requests. The same trait on every target: object-safe and `Send`.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends one request and resolves when the response's headers are here. Any status is a success.
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>>;
}

/// A request's method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads; has no body.
    Get,
    /// Does something; has a body.
    Post,
    /// Sets something; has a body.
    Put,
    /// Deletes; has no body.
    Delete,
}

impl Method {
    /// The method's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// One request. Cheap to clone, so that it can be sent again.
#[derive(Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The absolute URL.
    pub url: String,
    /// Headers; names in lower case. Values may be secret, so they are never printed.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// The body; empty = none.
    pub body: Bytes,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("url", &self.url)
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// The bytes of a response's body, as they come.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>;

impl Request {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// A response whose body may still be on its way.
pub struct Response {
    /// The status.
    pub status: u16,
    /// Headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: BodyStream,
}

impl Response {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}

/// How a request failed below HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportErrorKind {
    /// No connection was made: the server has not seen the request.
    Connect,
    /// The request or the response broke off: the server may have seen the request. In a browser, where all
    /// network failures look alike, every one of them is of this kind.
    Request,
    /// The response's body broke off.
    Body,
    /// The request could not even be built: a bad URL or header.
    Build,
}

/// A failure below HTTP.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// What kind.
    pub kind: TransportErrorKind,
    /// What happened, for people. Holds no header and no query string.
    pub message: String,
}

impl TransportError {
    /// An error of this kind.
    pub fn new(kind: TransportErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Whether the server may have seen the request.
    pub fn may_have_been_sent(&self) -> bool {
        matches!(self.kind, TransportErrorKind::Request | TransportErrorKind::Body)
    }
}
