//! Recovery without a host: the program does itself what a host would do, with a journal in memory.

use std::pin::pin;
use std::sync::Arc;

use futures_channel::mpsc;
use futures_util::{FutureExt, StreamExt, select};
use js_sys::{Function, Promise};
use retinker::client::Api;
use retinker::json;
use retinker::recovery::checkup::{check, check_all};
use retinker::recovery::executor::{Executor, RestoreError};
use retinker::recovery::journal::{Begun, MemoryStore};
use retinker::recovery::plan::{PlanRequest, RestorePlan};
use retinker::recovery::planner::{gather, make_plan};
use retinker::recovery::probe::Verification;
use retinker::recovery::restore::RestoreRecord;
use retinker::recovery::verify::{self, Findings, OptimizerState};
use serde::Serialize;
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::call::{call, text, unless_aborted};
use crate::client::{Client, runtime};
use crate::failure::{Failure, thrown};

/// What looks for lost runs, and restores them.
#[wasm_bindgen]
pub struct Recovery {
    api: Api,
    executor: Executor,
}

/// What was found out of a checkpoint.
#[derive(Serialize)]
struct Verified {
    weights: Verification,
    optimizer: OptimizerState,
}

/// Refuses what is no plan, or not as it was made.
#[wasm_bindgen(js_name = checkPlan)]
pub fn check_plan(kept: &str) -> Result<(), JsValue> {
    let plan: RestorePlan = json::read(kept.as_bytes()).map_err(thrown)?;
    if !plan.verify_id() {
        return Err(thrown(RestoreError::NotThePlan));
    }
    Ok(())
}

fn tell_of(progress: &Function, record: &RestoreRecord) -> Result<(), Failure> {
    // What the program's own function throws is the program's.
    let _ = progress.call1(&JsValue::UNDEFINED, &JsValue::from_str(&text(record)?));
    Ok(())
}

#[wasm_bindgen]
impl Recovery {
    /// Over the endpoints of one service; `by` is on whose behalf restores are begun.
    #[wasm_bindgen(constructor)]
    pub fn new(client: &Client, by: &str) -> Recovery {
        let store = Arc::new(MemoryStore::new(runtime()));
        let executor = Executor::new(client.api(), store, runtime()).on_behalf_of(by);
        Recovery { api: client.api(), executor }
    }

    /// How a run is.
    pub fn check(&self, run_id: String, signal: Option<AbortSignal>) -> Promise {
        let api = self.api.clone();
        call(signal, async move { text(&check(&api, &run_id, None).await?) })
    }

    /// How all runs are.
    #[wasm_bindgen(js_name = checkAll)]
    pub fn check_all(&self, signal: Option<AbortSignal>) -> Promise {
        let api = self.api.clone();
        call(signal, async move { text(&check_all(&api).await?) })
    }

    /// What a restore would do. `request` is the wish as JSON.
    pub fn plan(&self, request: String, signal: Option<AbortSignal>) -> Promise {
        let api = self.api.clone();
        call(signal, async move {
            let request: PlanRequest = json::read(request.as_bytes())?;
            let facts = gather(&api, &request, None, None, api.runtime().now()).await?;
            text(&make_plan(&facts, &request)?)
        })
    }

    /// Restores a run by a plan as it was kept, and gives the record of it however it ended. `progress` is called with the
    /// record after each step. The signal ends what comes before there is a record; what is begun is cancelled by its id.
    pub fn restore(&self, kept: String, progress: Function, signal: Option<AbortSignal>) -> Promise {
        let (tell, mut told) = mpsc::unbounded();
        let executor = self.executor.clone().on_progress(move |record| {
            // Who does not wait any more is not told.
            let _ = tell.unbounded_send(record.clone());
        });
        call(None, async move {
            let plan: RestorePlan = json::read(kept.as_bytes())?;
            let begun = async { Ok(executor.begin(plan).await?) };
            let (Begun::New(record) | Begun::Existing(record)) =
                unless_aborted(signal, Box::pin(begun)).await?;
            let mut work = pin!(executor.run(&record.id).fuse());
            let ended = loop {
                select! {
                    record = told.select_next_some() => tell_of(&progress, &record)?,
                    ended = work => break ended?,
                }
            };
            while let Ok(record) = told.try_recv() {
                tell_of(&progress, &record)?;
            }
            text(&ended)
        })
    }

    /// Stops a restore that is not done yet, and gives its record.
    pub fn cancel(&self, restore_id: String, signal: Option<AbortSignal>) -> Promise {
        let executor = self.executor.clone();
        call(signal, async move { text(&executor.cancel(&restore_id).await?) })
    }

    /// Marks a restored run as taken over, and gives the restore's record.
    #[wasm_bindgen(js_name = handOver)]
    pub fn hand_over(&self, restore_id: String, signal: Option<AbortSignal>) -> Promise {
        let executor = self.executor.clone();
        call(signal, async move { text(&executor.hand_over(&restore_id).await?) })
    }

    /// Whether a checkpoint, told as JSON, brings back what was saved, found out on throw-away copies.
    pub fn verify(&self, run_id: String, path: String, signal: Option<AbortSignal>) -> Promise {
        let api = self.api.clone();
        call(signal, async move {
            let listed = api.run_checkpoints(&run_id).await?.checkpoints;
            let missing = || Failure::config(format!("run {run_id} lists no checkpoint {path}"));
            let checkpoint = listed.into_iter().find(|c| c.tinker_path == path).ok_or_else(missing)?;
            let Findings { weights, optimizer } = verify::checkpoint(&api, &checkpoint).await?;
            text(&Verified { weights, optimizer })
        })
    }
}
