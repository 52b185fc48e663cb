//! Results of what was submitted to a run.

use std::cell::RefCell;
use std::rc::Rc;

use futures_channel::mpsc;
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt, select};
use js_sys::Promise;
use retinker::client::{Error, Pending, PendingEvent};
use serde::Serialize;
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::call::{Outcome, outcome, text};
use crate::failure::Failure;
use crate::pages::Pages;

/// The core's [`Pending`], of any result.
#[wasm_bindgen]
pub struct Submitted {
    result: RefCell<Option<LocalBoxFuture<'static, Outcome>>>,
    seen: Rc<Seen>,
}

/// What has been told of the request.
#[derive(Default)]
struct Seen {
    request_ids: RefCell<Vec<String>>,
    /// `None`: nobody waits for the result any more, so nothing is told.
    listeners: RefCell<Option<Vec<mpsc::UnboundedSender<PendingEvent>>>>,
}

/// Ends what is told when the result is there, or is waited for no more.
struct Ending(Rc<Seen>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.listeners.borrow_mut().take();
    }
}

/// An event as the facade shows it.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Told {
    Accepted { request_id: String },
    Queued { state: Option<String>, reason: Option<String> },
    Recovering { run_id: String },
}

impl Seen {
    fn hear(&self, event: PendingEvent) {
        if let PendingEvent::Accepted { request_id } = &event {
            self.request_ids.borrow_mut().push(request_id.clone());
        }
        if let Some(listeners) = &mut *self.listeners.borrow_mut() {
            listeners.retain(|listener| listener.unbounded_send(event.clone()).is_ok());
        }
    }
}

/// An event for JavaScript; `None`: of a kind that the facade does not know.
pub(crate) fn told(event: PendingEvent) -> Option<Outcome> {
    let told = match event {
        PendingEvent::Accepted { request_id } => Told::Accepted { request_id },
        PendingEvent::Queued { state, reason } => {
            Told::Queued { state: state.map(|state| state.as_str().to_owned()), reason }
        }
        PendingEvent::Recovering { run_id } => Told::Recovering { run_id },
        _ => return None,
    };
    Some(text(&told).map(|told| JsValue::from_str(&told)))
}

impl Submitted {
    pub(crate) fn new<T: Send + 'static>(
        pending: Pending<T>,
        show: impl FnOnce(T) -> Outcome + 'static,
    ) -> Self {
        let mut events = pending.events().fuse();
        let seen = Rc::new(Seen { listeners: RefCell::new(Some(Vec::new())), ..Seen::default() });
        let hears = Ending(Rc::clone(&seen));
        let result = async move {
            let mut pending = pending.fuse();
            let result: Result<T, Error> = loop {
                select! {
                    event = events.select_next_some() => hears.0.hear(event),
                    result = pending => break result,
                }
            };
            drop(hears);
            show(result?)
        };
        Self { result: RefCell::new(Some(result.boxed_local())), seen }
    }

    /// Of what is shown as it is.
    pub(crate) fn plain<T: Serialize + Send + 'static>(pending: Pending<T>) -> Self {
        Self::new(pending, |result| Ok(JsValue::from_str(&text(&result)?)))
    }
}

#[wasm_bindgen]
impl Submitted {
    /// The result. Is asked for once.
    pub fn result(&self, signal: Option<AbortSignal>) -> Promise {
        let result = self.result.borrow_mut().take().unwrap_or_else(|| {
            Box::pin(std::future::ready(Err(Failure::config("the result was asked for already"))))
        });
        outcome(signal, result)
    }

    /// The ids under which the server has accepted it so far.
    #[wasm_bindgen(getter, js_name = requestIds)]
    pub fn request_ids(&self) -> Vec<String> {
        self.seen.request_ids.borrow().clone()
    }

    /// What happens from now on, until the result is there.
    pub fn events(&self) -> Pages {
        let (tell, events) = mpsc::unbounded();
        if let Some(listeners) = &mut *self.seen.listeners.borrow_mut() {
            listeners.push(tell);
        }
        Pages::of(events.filter_map(|event| std::future::ready(told(event))))
    }
}
