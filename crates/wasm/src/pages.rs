//! What comes piece by piece.

use std::cell::RefCell;
use std::rc::Rc;

use futures_core::Stream;
use futures_core::stream::LocalBoxStream;
use futures_util::StreamExt;
use js_sys::Promise;
use serde::Serialize;
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::call::{Outcome, outcome, text};
use crate::failure::Failure;

/// A stream of values. Freed, it stops.
#[wasm_bindgen]
pub struct Pages(Rc<RefCell<LocalBoxStream<'static, Outcome>>>);

impl Pages {
    pub(crate) fn new<T, E>(stream: impl Stream<Item = Result<T, E>> + 'static) -> Self
    where
        T: Serialize,
        Failure: From<E>,
    {
        Self::of(stream.map(|item| Ok(JsValue::from_str(&text(&item?)?))))
    }

    pub(crate) fn of(stream: impl Stream<Item = Outcome> + 'static) -> Self {
        Self(Rc::new(RefCell::new(stream.boxed_local())))
    }
}

#[wasm_bindgen]
impl Pages {
    /// The next value; `undefined` at the end. One at a time.
    pub fn next(&self, signal: Option<AbortSignal>) -> Promise {
        let stream = Rc::clone(&self.0);
        outcome(
            signal,
            Box::pin(async move {
                let next = std::future::poll_fn(|cx| match stream.try_borrow_mut() {
                    Ok(mut stream) => stream.poll_next_unpin(cx),
                    Err(_) => std::task::Poll::Ready(Some(Err(Failure::config(
                        "two ask for the same next value at once",
                    )))),
                });
                next.await.transpose().map(|value| value.unwrap_or(JsValue::UNDEFINED))
            }),
        )
    }
}
