//! Requests by `fetch`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use futures_core::future::BoxFuture;
use js_sys::{Array, Function, Promise, Reflect, Uint8Array};
use send_wrapper::SendWrapper;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    AbortController, Headers, ReadableStreamDefaultReader, RequestCache, RequestInit, RequestRedirect,
    ResponseType,
};

use crate::transport::{BodyStream, Request, Response, Transport, TransportError, TransportErrorKind};

#[wasm_bindgen]
extern "C" {
    // Bound as a global, not as a member of `Window`, which workers and Node do not have.
    #[wasm_bindgen(js_name = fetch, catch)]
    fn fetch(url: &str, init: &RequestInit) -> Result<JsValue, JsValue>;

    /// A `ReadableStream` that somebody else may be reading.
    type Readable;
    #[wasm_bindgen(method, catch, js_name = getReader)]
    fn get_reader(this: &Readable) -> Result<ReadableStreamDefaultReader, JsValue>;
}

/// A transport by the host's `fetch`.
///
/// A browser hides where a redirect leads, and even its status: one is reported as status 302 without a
/// `location`. A request's body is given to the host whole, never streamed.
#[derive(Debug, Clone, Default)]
pub struct WebTransport {
    fetch: Option<Arc<SendWrapper<Function>>>,
}

impl WebTransport {
    /// The transport of this thread.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that calls this in the place of the host's `fetch`, with the same arguments: an address and what there is to say
    /// of the request. It gives a promise of a `Response`, or of what looks like one.
    pub fn with_fetch(fetch: Function) -> Self {
        Self { fetch: Some(Arc::new(SendWrapper::new(fetch))) }
    }
}

/// Aborts the request when dropped before it is over: an abort that nobody would notice still makes an exception.
struct AbortGuard(Option<AbortController>);

impl AbortGuard {
    fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortGuard {
    fn drop(&mut self) {
        if let Some(controller) = &self.0 {
            controller.abort();
        }
    }
}

impl Transport for WebTransport {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        Box::pin(SendWrapper::new(send(self.fetch.clone(), request)))
    }
}

async fn send(own: Option<Arc<SendWrapper<Function>>>, request: Request) -> Result<Response, TransportError> {
    let place = request.url.split(['?', '#']).next().unwrap_or_default().to_owned();
    let (init, guard) = build(&request).map_err(|error| {
        TransportError::new(
            TransportErrorKind::Build,
            format!("a request cannot be built for {place}: {}", text_of(&error)),
        )
    })?;
    // All failures of the network look alike here: the server may have seen the request.
    let no_answer = |error: JsValue| {
        TransportError::new(
            TransportErrorKind::Request,
            format!("no answer from {place}: {}", text_of(&error)),
        )
    };
    let promise = match own {
        Some(own) => own.call2(&JsValue::UNDEFINED, &JsValue::from_str(&request.url), &init),
        None => fetch(&request.url, &init),
    };
    let promise = promise.map_err(no_answer)?;
    let answer = JsFuture::from(Promise::resolve(&promise)).await.map_err(no_answer)?;
    if !answer.is_object() {
        return Err(no_answer(JsValue::from_str("what fetch gave is no response")));
    }
    // Unchecked: a page may have put a `fetch` of its own in the place of the host's, with answers of its own.
    let response: &web_sys::Response = answer.unchecked_ref();
    let opaque_redirect = response.type_() == ResponseType::Opaqueredirect;
    let status = if opaque_redirect { 302 } else { response.status() };
    let headers = pairs(&response.headers());
    let body: BodyStream = match response.body() {
        Some(stream) => {
            let reader = stream.unchecked_ref::<Readable>().get_reader().map_err(no_answer)?;
            Box::pin(SendWrapper::new(Body { reader, reading: None, guard: Some(guard), place }))
        }
        None => {
            guard.over();
            Box::pin(futures_util::stream::empty())
        }
    };
    Ok(Response { status, headers, body })
}

fn build(request: &Request) -> Result<(RequestInit, AbortGuard), JsValue> {
    // `fetch` would say of a bad address what it says of a connection that broke off.
    web_sys::Url::new(&request.url)?;
    let controller = AbortController::new()?;
    let headers = Headers::new()?;
    for (name, value) in &request.headers {
        // What the host says of it repeats the value, which may be a secret.
        let wrong = |_| JsValue::from_str(&format!("header {name} cannot be sent"));
        headers.append(name, value).map_err(wrong)?;
    }
    let init = RequestInit::new();
    init.set_method(request.method.as_str());
    init.set_headers(&headers);
    init.set_redirect(RequestRedirect::Manual);
    init.set_cache(RequestCache::NoStore);
    init.set_signal(Some(&controller.signal()));
    if !request.body.is_empty() {
        init.set_body(&Uint8Array::from(request.body.as_ref()));
    }
    Ok((init, AbortGuard(Some(controller))))
}

fn pairs(headers: &Headers) -> Vec<(String, String)> {
    let Ok(Some(entries)) = js_sys::try_iter(headers) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let entry: Array = entry.unchecked_into();
            Some((entry.get(0).as_string()?.to_ascii_lowercase(), entry.get(1).as_string()?))
        })
        .collect()
}

/// A body as it comes. Dropped before its end, it aborts the request.
struct Body {
    reader: ReadableStreamDefaultReader,
    reading: Option<JsFuture>,
    /// `None` once the body has ended.
    guard: Option<AbortGuard>,
    place: String,
}

impl Body {
    fn failure(&self, error: &JsValue) -> TransportError {
        TransportError::new(
            TransportErrorKind::Body,
            format!("the answer of {} broke off: {}", self.place, text_of(error)),
        )
    }
}

impl Stream for Body {
    type Item = Result<Bytes, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.guard.is_none() {
            return Poll::Ready(None);
        }
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => JsFuture::from(self.reader.read()),
        };
        let read = match Pin::new(&mut reading).poll(cx) {
            Poll::Pending => {
                self.reading = Some(reading);
                return Poll::Pending;
            }
            Poll::Ready(read) => read,
        };
        let piece = read.and_then(|result| {
            let done = Reflect::get(&result, &JsValue::from_str("done"))?.is_truthy();
            let value = Reflect::get(&result, &JsValue::from_str("value"))?;
            Ok((!done).then_some(value))
        });
        Poll::Ready(match piece {
            Ok(Some(value)) => match value.dyn_into::<Uint8Array>() {
                Ok(array) => Some(Ok(Bytes::from(array.to_vec()))),
                Err(other) => {
                    let error = self.failure(&other);
                    self.guard = None;
                    Some(Err(error))
                }
            },
            Ok(None) => {
                if let Some(guard) = self.guard.take() {
                    guard.over();
                }
                None
            }
            Err(error) => {
                let error = self.failure(&error);
                self.guard = None;
                Some(Err(error))
            }
        })
    }
}

/// What a thrown value says. Node puts the reason of a failed fetch into `cause`.
fn text_of(error: &JsValue) -> String {
    let text = |value: &JsValue| {
        Reflect::get(value, &JsValue::from_str("message"))
            .ok()
            .and_then(|m| m.as_string())
            .filter(|m| !m.is_empty())
    };
    let cause = Reflect::get(error, &JsValue::from_str("cause")).ok();
    match (text(error), cause.as_ref().and_then(text)) {
        (Some(message), Some(cause)) => format!("{message} ({cause})"),
        (Some(message), None) => message,
        (None, _) => error.as_string().unwrap_or_else(|| "no reason is given".to_owned()),
    }
}
