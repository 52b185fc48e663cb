//! Who is talked to, and how.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use js_sys::Function;
use retinker::client::retry::RetryPolicy;
use retinker::client::{Api, ApiConfig, Secret};
use retinker::json;
use retinker::runtime::Runtime;
use retinker::transport::Transport;
use retinker::web::{WebRuntime, WebTransport};
use serde::Deserialize;
use wasm_bindgen::prelude::*;

use crate::failure::{Failure, thrown};

/// The endpoints of one service.
#[wasm_bindgen]
pub struct Client(Api);

#[derive(Deserialize)]
struct Options {
    base_url: String,
    api_key: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    retry_for_seconds: Option<f64>,
}

impl Client {
    pub(crate) fn api(&self) -> Api {
        self.0.clone()
    }
}

/// What sends requests: the host's `fetch`, or one of the program's own.
pub(crate) fn transport(fetch: Option<Function>) -> Arc<dyn Transport> {
    Arc::new(fetch.map_or_else(WebTransport::new, WebTransport::with_fetch))
}

pub(crate) fn runtime() -> Arc<dyn Runtime> {
    Arc::new(WebRuntime::new())
}

#[wasm_bindgen]
impl Client {
    /// A client by these options, as JSON. Sends nothing.
    #[wasm_bindgen(constructor)]
    pub fn new(options: &str, fetch: Option<Function>) -> Result<Client, JsValue> {
        client(options, fetch).map(Self).map_err(thrown)
    }
}

fn client(options: &str, fetch: Option<Function>) -> Result<Api, Failure> {
    let options: Options = json::read(options.as_bytes())?;
    let headers = options.headers.into_iter();
    let config = ApiConfig {
        base_url: options.base_url,
        api_key: options.api_key.map(Secret::new),
        headers: headers.map(|(name, value)| (Cow::Owned(name.to_ascii_lowercase()), value)).collect(),
        ..ApiConfig::default()
    };
    let api = Api::new(config, transport(fetch), runtime())?;
    let Some(seconds) = options.retry_for_seconds else { return Ok(api) };
    let budget = Duration::try_from_secs_f64(seconds)
        .map_err(|_| Failure::config(format!("retryForSeconds cannot be {seconds}")))?;
    Ok(api.with_retry(RetryPolicy { budget, ..RetryPolicy::default() }))
}
