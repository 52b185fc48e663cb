//! Sessions, and what is made in them.

use js_sys::Promise;
use retinker::client::{SamplingSource, Secret, ServiceClient, SessionOptions, TrainingOptions};
use retinker::json;
use retinker::wire::UserMetadata;
use retinker::wire::model::{LoraConfig, OptimizerConfig};
use retinker::wire::session::FinishReason;
use serde::Deserialize;
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::call::{call, outcome, text};
use crate::client::Client;
use crate::failure::{Failure, thrown};
use crate::sampling::Sampling;
use crate::training::Training;

/// The core's [`ServiceClient`].
#[wasm_bindgen]
pub struct Service(ServiceClient);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Run {
    user_metadata: Option<UserMetadata>,
    optimizer_config: Option<OptimizerConfig>,
    base_model: Option<String>,
    weights_access_token: Option<String>,
}

impl From<Run> for TrainingOptions {
    fn from(run: Run) -> Self {
        Self {
            user_metadata: run.user_metadata,
            optimizer_config: run.optimizer_config,
            base_model: run.base_model,
            weights_access_token: run.weights_access_token.map(Secret::new),
        }
    }
}

impl Service {
    pub(crate) fn client(&self) -> ServiceClient {
        self.0.clone()
    }
}

#[wasm_bindgen]
impl Service {
    /// Over these endpoints; `session` is what its session is opened with, as JSON.
    #[wasm_bindgen(constructor)]
    pub fn new(client: &Client, session: &str) -> Result<Service, JsValue> {
        let options: SessionOptions = json::read(session.as_bytes()).map_err(thrown)?;
        Ok(Service(ServiceClient::with_options(client.api(), options)))
    }

    /// The session's id.
    #[wasm_bindgen(js_name = sessionId)]
    pub fn session_id(&self, signal: Option<AbortSignal>) -> Promise {
        let service = self.0.clone();
        call(signal, async move { text(&service.session_id().await?) })
    }

    /// Makes a run. `lora` and `options` are JSON.
    #[wasm_bindgen(js_name = createLora)]
    pub fn create_lora(
        &self,
        base_model: String,
        lora: String,
        options: String,
        signal: Option<AbortSignal>,
    ) -> Promise {
        let service = self.0.clone();
        let made = async move {
            let (lora, run): (LoraConfig, Run) =
                (json::read(lora.as_bytes())?, json::read(options.as_bytes())?);
            let client = service.create_lora_training_client(&base_model, lora, run).await?;
            Ok(Training::new(client).into())
        };
        outcome(signal, Box::pin(made))
    }

    /// Makes a run from a checkpoint. `options` is JSON.
    #[wasm_bindgen(js_name = createFromState)]
    pub fn create_from_state(
        &self,
        path: String,
        optimizer: bool,
        options: String,
        signal: Option<AbortSignal>,
    ) -> Promise {
        let service = self.0.clone();
        let made = async move {
            let run: Run = json::read(options.as_bytes())?;
            let client = if optimizer {
                service.create_training_client_from_state_with_optimizer(&path, run).await?
            } else {
                service.create_training_client_from_state(&path, run).await?
            };
            Ok(Training::new(client).into())
        };
        outcome(signal, Box::pin(made))
    }

    /// Makes a sampler of a base model, of a checkpoint, or of a checkpoint on another base model.
    #[wasm_bindgen(js_name = createSampling)]
    pub fn create_sampling(
        &self,
        base_model: Option<String>,
        model_path: Option<String>,
        signal: Option<AbortSignal>,
    ) -> Promise {
        let service = self.0.clone();
        let made = async move {
            let source = match (base_model, model_path) {
                (Some(base_model), None) => SamplingSource::BaseModel(base_model),
                (None, Some(model_path)) => SamplingSource::ModelPath(model_path),
                (Some(base_model), Some(model_path)) => {
                    SamplingSource::ModelPathOn { model_path, base_model }
                }
                (None, None) => {
                    return Err(Failure::config("a sampling client needs a baseModel or a modelPath"));
                }
            };
            Ok(Sampling::new(service.create_sampling_client(source).await?).into())
        };
        outcome(signal, Box::pin(made))
    }

    /// The session's page in the hosted service's console.
    #[wasm_bindgen(js_name = consoleUrl)]
    pub fn console_url(&self, signal: Option<AbortSignal>) -> Promise {
        let service = self.0.clone();
        call(signal, async move { text(&service.get_console_url().await?) })
    }

    /// Ends the session; `reason` is one of `success`, `errored`, `interrupted`.
    pub fn finish(&self, reason: String, detail: Option<String>, signal: Option<AbortSignal>) -> Promise {
        let service = self.0.clone();
        call(signal, async move {
            let reason: FinishReason = json::of(&reason.into())?;
            text(&service.finish(reason, detail).await?)
        })
    }
}
