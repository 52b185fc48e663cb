//! The conformance suite under wasm: in Node, or, as wasm-bindgen-test-runner is told by
//! WASM_BINDGEN_USE_BROWSER=1 or WASM_BINDGEN_USE_DEDICATED_WORKER=1, in a browser's window or worker. The server is
//! `examples/conformance_server.rs`, whose address must stand in RETINKER_CONFORMANCE_URL when this is compiled.
#![cfg(target_arch = "wasm32")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use conformance::Subject;
use retinker::web::{WebRuntime, WebTransport};
use wasm_bindgen_test::wasm_bindgen_test;

mod conformance;

fn subject() -> Subject {
    let Some(base_url) = option_env!("RETINKER_CONFORMANCE_URL") else {
        panic!("RETINKER_CONFORMANCE_URL was not set when the test was compiled");
    };
    Subject {
        transport: Arc::new(WebTransport::new()),
        runtime: Arc::new(WebRuntime::new()),
        base_url: base_url.to_owned(),
    }
}

macro_rules! tests {
    ($($name:ident),+ $(,)?) => {$(
        #[wasm_bindgen_test]
        async fn $name() {
            conformance::$name(subject()).await;
        }
    )+};
}

conformance::every_case!(tests);
