//! The conformance suite, natively.
#![cfg(all(feature = "native", not(target_arch = "wasm32")))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use conformance::Subject;
use retinker::native::{NativeRuntime, NativeTransport};

mod conformance;
#[path = "conformance/server.rs"]
mod server;

static SERVER: LazyLock<SocketAddr> = LazyLock::new(|| server::start().unwrap());

fn subject() -> Subject {
    Subject {
        transport: Arc::new(NativeTransport::new().unwrap()),
        runtime: Arc::new(NativeRuntime::current().unwrap()),
        base_url: format!("http://{}", *SERVER),
    }
}

macro_rules! tests {
    ($($name:ident),+ $(,)?) => {$(
        #[tokio::test]
        async fn $name() {
            conformance::$name(subject()).await;
        }
    )+};
}

conformance::every_case!(tests);
