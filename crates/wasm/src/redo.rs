//! A run with a redo log, in memory or in what JavaScript keeps its records in.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use js_sys::{Promise, Uint8Array};
use retinker::client::TrainingOptions;
use retinker::json;
use retinker::recovery::plan::MetricMode;
use retinker::recovery::retention::Rule;
use retinker::redo::{
    CheckpointPolicy, Matching, MemoryLog, Redo, RedoError, RedoEvent, RedoLog, RedoOptions,
};
use retinker::web::{LogRecords, StoredLog};
use retinker::wire::UserMetadata;
use retinker::wire::model::{LoraConfig, OptimizerConfig};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::call::{ask, outcome, text};
use crate::failure::Failure;
use crate::pages::Pages;
use crate::service::Service;
use crate::training::Training;

/// The core's [`Redo`].
#[wasm_bindgen]
pub struct Recovering(Redo);

/// Bytes that a log takes where nothing is said.
const BOUND: u64 = 256 << 20;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Options {
    user_metadata: Option<UserMetadata>,
    optimizer_config: Option<OptimizerConfig>,
    every_steps: Option<u64>,
    every_seconds: Option<f64>,
    metric: Option<String>,
    mode: Option<MetricMode>,
    at_end: bool,
    keep: Rule,
    tolerance: Option<f64>,
    bound_bytes: Option<u64>,
}

impl Options {
    fn of(self) -> Result<RedoOptions, Failure> {
        let seconds = |seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| Failure::config(format!("everySeconds cannot be {seconds}")))
        };
        let checkpoints = CheckpointPolicy {
            every_steps: self.every_steps,
            every: self.every_seconds.map(seconds).transpose()?,
            on_improvement: self.metric.zip(self.mode),
            at_end: self.at_end,
            keep: self.keep,
            keep_by: None,
        };
        let training = TrainingOptions {
            user_metadata: self.user_metadata,
            optimizer_config: self.optimizer_config,
            ..TrainingOptions::default()
        };
        Ok(RedoOptions {
            matching: self.tolerance.map_or(Matching::Exact, Matching::Tolerance),
            checkpoints,
            bound: self.bound_bytes.unwrap_or(BOUND),
            training,
            ..RedoOptions::default()
        })
    }
}

/// The steps that can be gone back to.
#[derive(Serialize)]
struct Window {
    first_step: u64,
    last_step: u64,
}

/// An event, and the same for people.
fn told(event: &RedoEvent) -> Result<String, Failure> {
    let mut told = serde_json::to_value(event)?;
    if let Some(members) = told.as_object_mut() {
        members.insert("message".to_owned(), event.to_string().into());
    }
    text(&told)
}

#[wasm_bindgen]
impl Recovering {
    /// Makes a run, or goes on with the one in the log. `lora` and `options` are JSON; `records` are those of the log, absent = it is in
    /// memory.
    pub fn lora(
        service: &Service,
        base_model: String,
        lora: String,
        options: String,
        records: Option<LogRecords>,
        signal: Option<AbortSignal>,
    ) -> Promise {
        let service = service.client();
        // From here on they are let go of with the log, whatever becomes of it.
        let log = records.map(StoredLog::new);
        let made = async move {
            let lora: LoraConfig = json::read(lora.as_bytes())?;
            let options = json::read::<Options>(options.as_bytes())?.of()?;
            // One kind for both: what makes a run is large, and would be there for each.
            let log: Arc<dyn RedoLog> = match log {
                Some(log) => Arc::new(log.opened().await.map_err(RedoError::from)?),
                None => Arc::new(MemoryLog::new()),
            };
            let redo = Redo::lora(&service, log, &base_model, lora, options).await?;
            Ok(Self(redo).into())
        };
        outcome(signal, Box::pin(made))
    }

    /// The steps that were taken before, if the log had a run already.
    #[wasm_bindgen(js_name = resumedStep)]
    pub fn resumed_step(&self) -> Option<f64> {
        self.0.resumed().map(|resumed| resumed.step as f64)
    }

    /// What was given with the last of them.
    #[wasm_bindgen(js_name = resumedCursor)]
    pub fn resumed_cursor(&self) -> Option<Uint8Array> {
        let cursor = self.0.resumed()?.cursor.as_ref()?;
        Some(Uint8Array::from(&**cursor))
    }

    /// Gives the next step of the optimizer this.
    #[wasm_bindgen(js_name = setCursor)]
    pub fn set_cursor(&self, cursor: &[u8]) {
        self.0.set_cursor(cursor.to_vec());
    }

    /// The client that trains the run.
    pub fn training(&self) -> Training {
        Training::new(self.0.training_client().clone())
    }

    /// What happens to the run from now on.
    pub fn events(&self) -> Pages {
        Pages::of(self.0.events().map(|event| Ok(JsValue::from_str(&told(&event)?))))
    }

    /// The steps that can be gone back to.
    pub fn window(&self, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |redo| {
            let window = redo.window().await?;
            text(&Window { first_step: *window.start(), last_step: *window.end() })?
        })
    }

    /// The end of the training; the path of the newest checkpoint, if there is any.
    pub fn finish(&self, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |redo| text(&redo.finish().await?)?)
    }

    /// What a rule keeps of the checkpoints that were saved by the policy; it is JSON.
    #[wasm_bindgen(js_name = planRetention)]
    pub fn plan_retention(&self, keep: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |redo| {
            let keep: Rule = json::read(keep.as_bytes())?;
            text(&redo.plan_retention(keep).await?)?
        })
    }

    /// What going back to a step takes.
    #[wasm_bindgen(js_name = planTo)]
    pub fn plan_to(&self, step: f64, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |redo| text(&redo.plan_to(step as u64).await?)?)
    }

    /// A new run as this one was after a step.
    #[wasm_bindgen(js_name = recoverTo)]
    pub fn recover_to(&self, step: f64, signal: Option<AbortSignal>) -> Promise {
        let redo = self.0.clone();
        let made = async move { Ok(Training::new(redo.recover_to(step as u64).await?).into()) };
        outcome(signal, Box::pin(made))
    }
}

impl From<RedoError> for Failure {
    fn from(error: RedoError) -> Self {
        let code = match &error {
            RedoError::Service(error) => return error.clone().into(),
            RedoError::NoStart { .. } => "no_usable_checkpoint",
            RedoError::Mismatch(_) => "mismatch",
            RedoError::PoisonPill { .. } => "poison_pill",
            RedoError::NotCovered { .. } => "not_covered",
            _ => "redo_log",
        };
        Self::recovery(code, error.to_string())
    }
}
