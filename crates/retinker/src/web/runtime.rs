//! Time, chance and tasks by JavaScript's globals.

use std::time::Duration;

use futures_channel::oneshot;
use futures_core::future::BoxFuture;
use retinker_wire::time::Time;
use send_wrapper::SendWrapper;
use wasm_bindgen::prelude::*;

use crate::runtime::Runtime;

#[wasm_bindgen]
extern "C" {
    // Bound as globals, not as members of `Window`, which workers and Node do not have.
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &JsValue, millis: i32) -> JsValue;
    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(id: &JsValue);
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
}

/// A runtime on the JavaScript event loop.
#[derive(Debug, Clone, Copy, Default)]
pub struct WebRuntime;

impl WebRuntime {
    /// The runtime of this thread.
    pub fn new() -> Self {
        Self
    }
}

/// Timers take a signed 32-bit number of milliseconds; beyond it they fire at once.
const LONGEST: u128 = i32::MAX as u128;

struct Timer {
    id: JsValue,
    _callback: Closure<dyn FnMut()>,
}

impl Drop for Timer {
    fn drop(&mut self) {
        clear_timeout(&self.id);
    }
}

async fn sleep_once(millis: i32) {
    let (fire, fired) = oneshot::channel();
    let mut fire = Some(fire);
    let callback = Closure::new(move || {
        if let Some(fire) = fire.take() {
            let _ = fire.send(());
        }
    });
    let _timer = Timer { id: set_timeout(callback.as_ref(), millis), _callback: callback };
    let _ = fired.await;
}

impl Runtime for WebRuntime {
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(SendWrapper::new(async move {
            // Timers count whole milliseconds; rounded up, so that no sleep ends early.
            let mut left = duration.as_nanos().div_ceil(1_000_000);
            while left > LONGEST {
                sleep_once(i32::MAX).await;
                left -= LONGEST;
            }
            sleep_once(i32::try_from(left).unwrap_or(i32::MAX)).await;
        }))
    }

    fn now(&self) -> Time {
        Time::from_millis(js_sys::Date::now() as i64)
    }

    fn monotonic(&self) -> Duration {
        Duration::try_from_secs_f64(performance_now() / 1000.0).unwrap_or_default()
    }

    fn random(&self) -> u64 {
        let half = || (js_sys::Math::random() * 4_294_967_296.0) as u64;
        half() << 32 | half()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        wasm_bindgen_futures::spawn_local(task);
    }
}
