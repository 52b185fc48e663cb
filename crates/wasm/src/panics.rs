//! What becomes of a panic: the wasm is not to be called any more, and promises that it would have kept are never kept. The
//! facade is told, and rejects them.

use std::cell::RefCell;

use js_sys::Function;
use wasm_bindgen::prelude::*;

thread_local! {
    static TELL: RefCell<Option<Function>> = const { RefCell::new(None) };
}

/// Calls this with what a panic says.
#[wasm_bindgen(js_name = onPanic)]
pub fn on_panic(tell: Function) {
    TELL.set(Some(tell));
    std::panic::set_hook(Box::new(|panic| {
        let said = JsValue::from_str(&panic.to_string());
        TELL.with_borrow(|tell| {
            if let Some(tell) = tell {
                let _ = tell.call1(&JsValue::UNDEFINED, &said);
            }
        });
    }));
}
