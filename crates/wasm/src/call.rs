//! Calls as promises, which a signal ends.

use std::future::Future;
use std::pin::pin;

use futures_channel::oneshot;
use futures_util::future::{Either, LocalBoxFuture, select};
use js_sys::Promise;
use serde::Serialize;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;
use web_sys::AbortSignal;

use crate::failure::{Failure, thrown};

/// What a call gives, or throws.
pub(crate) type Outcome = Result<JsValue, Failure>;

/// A promise of what a call resolves to: a text of JSON, which the facade reads. So nothing here is generic over what is read,
/// and nothing of it is there once for each type in what a browser loads.
pub(crate) fn call<E>(
    signal: Option<AbortSignal>,
    work: impl Future<Output = Result<String, E>> + 'static,
) -> Promise
where
    Failure: From<E>,
{
    outcome(signal, Box::pin(async move { Ok(JsValue::from_str(&work.await?)) }))
}

/// Calls this with a clone of what `$this` wraps, as a promise of its text.
macro_rules! ask {
    ($this:ident, $signal:ident, |$of:ident| $work:expr) => {{
        let $of = $this.0.clone();
        $crate::call::call($signal, async move { Ok::<_, $crate::failure::Failure>($work) })
    }};
}
pub(crate) use ask;

/// What comes of this, unless the signal is given before: then it is dropped, and what is thrown is the signal's reason.
pub(crate) async fn unless_aborted<T>(
    signal: Option<AbortSignal>,
    work: LocalBoxFuture<'_, Result<T, Failure>>,
) -> Result<T, Failure> {
    let Some(signal) = signal else { return work.await };
    if signal.aborted() {
        return Err(Failure::of(signal.reason()));
    }
    match select(work, pin!(aborted(signal.clone()))).await {
        Either::Left((result, _)) => result,
        Either::Right(((), _)) => Err(Failure::of(signal.reason())),
    }
}

/// A value as such a text.
pub(crate) fn text(value: &impl Serialize) -> Result<String, Failure> {
    Ok(serde_json::to_string(value)?)
}

/// The same for what is no plain value. Not generic, so that its code is there once.
pub(crate) fn outcome(signal: Option<AbortSignal>, work: LocalBoxFuture<'static, Outcome>) -> Promise {
    future_to_promise(async move { unless_aborted(signal, work).await.map_err(thrown) })
}

/// Listens to a signal until it is dropped.
struct Listening {
    signal: AbortSignal,
    listener: Closure<dyn FnMut()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ =
            self.signal.remove_event_listener_with_callback("abort", self.listener.as_ref().unchecked_ref());
    }
}

/// Resolves when the signal is given.
async fn aborted(signal: AbortSignal) {
    let (tell, told) = oneshot::channel();
    let mut tell = Some(tell);
    let listener = Closure::new(move || {
        if let Some(tell) = tell.take() {
            let _ = tell.send(());
        }
    });
    let listening = Listening { signal, listener };
    let callback = listening.listener.as_ref().unchecked_ref();
    let _ = listening.signal.add_event_listener_with_callback("abort", callback);
    let _ = told.await;
}
