//! Traces that go on in the service: OpenTelemetry's context in the headers of requests (feature `opentelemetry`).
//!
//! The program says how: it installs a `tracing_opentelemetry` layer, and a propagator by
//! `opentelemetry::global::set_text_map_propagator`. Without a propagator nothing is added.

use std::sync::Arc;

use futures_core::future::BoxFuture;
use opentelemetry::global;
use opentelemetry::propagation::Injector;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::transport::{Request, Response, Transport, TransportError};

/// A transport whose requests carry the context of the span that they are sent in: `traceparent` and `tracestate`, or
/// whatever else the global propagator writes.
#[derive(Debug)]
pub struct PropagatingTransport {
    inner: Arc<dyn Transport>,
}

impl PropagatingTransport {
    /// Sends by this transport.
    pub fn new(inner: Arc<dyn Transport>) -> Self {
        Self { inner }
    }
}

impl Transport for PropagatingTransport {
    fn send(&self, mut request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let context = tracing::Span::current().context();
        global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut Headers(&mut request));
        });
        self.inner.send(request)
    }
}

struct Headers<'a>(&'a mut Request);

impl Injector for Headers<'_> {
    fn set(&mut self, name: &str, value: String) {
        let name = name.to_ascii_lowercase();
        self.0.headers.retain(|(other, _)| *other != name);
        self.0.headers.push((name.into(), value));
    }
}
