//! A host's API: recovery with a journal that outlives the program.

use futures_util::TryFutureExt;
use js_sys::{Function, Promise};
use retinker::host::HostClient;
use retinker::host::api::{PlanAnswer, RunsQuery};
use retinker::json;
use retinker::recovery::plan::PlanRequest;
use retinker::recovery::policy::Gate;
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::call::{ask, text};
use crate::client::{runtime, transport};
use crate::pages::Pages;

/// The core's [`HostClient`].
#[wasm_bindgen]
pub struct Host(HostClient);

#[wasm_bindgen]
impl Host {
    /// A client of the host at this address, with its token, and of its connection of this name.
    #[wasm_bindgen(constructor)]
    pub fn new(base_url: &str, token: String, connection: Option<String>, fetch: Option<Function>) -> Host {
        let host = HostClient::new(transport(fetch), runtime(), base_url, token);
        Host(match connection {
            Some(name) => host.with_connection(&name),
            None => host,
        })
    }

    /// How the host and its service are.
    pub fn status(&self, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |host| host.status().text().await?)
    }

    /// The services that the host can stand before.
    pub fn connections(&self, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |host| host.connections().text().await?)
    }

    /// A window of the list of runs. `query` is JSON.
    pub fn runs(&self, query: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |host| host.runs(&json::read::<RunsQuery>(query.as_bytes())?).text().await?)
    }

    /// Everything about one run.
    pub fn run(&self, run_id: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |host| host.run(&run_id).text().await?)
    }

    /// What a restore would do. `request` is the wish as JSON; the answer is as the host gives it, as JSON.
    pub fn plan(&self, request: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |host| {
            let request: PlanRequest = json::read(request.as_bytes())?;
            match host.plan(&request).await? {
                PlanAnswer::Plan(plan) => text(&plan)?,
                PlanAnswer::None(none) => return Err(none.into()),
            }
        })
    }

    /// Starts a restore by a plan as it was kept.
    #[wasm_bindgen(js_name = startRestore)]
    pub fn start_restore(&self, kept: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |host| host.start_restore(&json::read(kept.as_bytes())?).text().await?)
    }

    /// All restores, newest first.
    pub fn restores(&self, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |host| host.restores().text().await?)
    }

    /// One restore.
    pub fn restore(&self, restore_id: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |host| host.restore(&restore_id).text().await?)
    }

    /// Stops a restore that is not done yet.
    pub fn cancel(&self, restore_id: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |host| host.cancel_restore(&restore_id).text().await?)
    }

    /// Takes a restored run over.
    #[wasm_bindgen(js_name = handOver)]
    pub fn hand_over(&self, restore_id: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |host| host.hand_over(&restore_id).text().await?)
    }

    /// Which runs failed together.
    pub fn incidents(&self, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |host| host.incidents().text().await?)
    }

    /// What was done: the newest of it.
    pub fn activity(&self, newest: f64, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |host| host.activity(newest as u64).text().await?)
    }

    /// Whether restores begin by themselves.
    pub fn monitor(&self, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |host| host.monitor().text().await?)
    }

    /// Has them pause, or go on.
    #[wasm_bindgen(js_name = setMonitor)]
    pub fn set_monitor(&self, paused: bool, signal: Option<AbortSignal>) -> Promise {
        let gate = if paused { Gate::Paused } else { Gate::Open };
        ask!(self, signal, |host| host.set_monitor(gate).text().await?)
    }

    /// What changes, as it happens.
    pub fn events(&self) -> Pages {
        let host = self.0.clone();
        let events = async move { host.events().await };
        Pages::new(events.try_flatten_stream())
    }
}
