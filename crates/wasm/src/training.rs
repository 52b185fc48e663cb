//! A run that is trained.

use js_sys::{Array, Function, Promise};
use retinker::client::{
    LoadOptions, LossConfigValue, LossFnConfig, SaveExternalOptions, SaveForSamplerOptions, SaveOptions,
    Secret, TrainingClient,
};
use retinker::json;
use retinker::recovery::restore::Attachment;
use retinker::web::of_this_thread;
use retinker::wire::UserMetadata;
use retinker::wire::tensor::TensorData;
use retinker::wire::training::{AdamParams, OptimParams};
use serde::Deserialize;
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::batch;
use crate::call::{call, outcome, text};
use crate::client::Client;
use crate::failure::{Failure, thrown};
use crate::pending::Submitted;
use crate::sampling::Sampling;

/// The core's [`TrainingClient`].
#[wasm_bindgen]
pub struct Training(TrainingClient);

/// How a checkpoint is saved, of whichever kind.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Save {
    ttl_seconds: Option<u64>,
    overwrite: bool,
    user_metadata: Option<UserMetadata>,
    age_encryption_recipients: Option<Vec<String>>,
}

impl Training {
    pub(crate) fn new(client: TrainingClient) -> Self {
        Self(client)
    }
}

#[wasm_bindgen]
impl Training {
    /// Goes on with a run that somebody else has made.
    pub fn attach(client: &Client, session_id: String, model_id: String, next_seq_id: f64) -> Training {
        let attachment = Attachment { session_id, model_id, next_seq_id: next_seq_id as u64 };
        Training(TrainingClient::attach(client.api(), attachment))
    }

    /// The run.
    #[wasm_bindgen(getter, js_name = modelId)]
    pub fn model_id(&self) -> String {
        self.0.model_id().to_owned()
    }

    /// Its session.
    #[wasm_bindgen(getter, js_name = sessionId)]
    pub fn session_id(&self) -> String {
        self.0.session_id().to_owned()
    }

    /// Its page in the hosted service's console.
    #[wasm_bindgen(getter, js_name = consoleUrl)]
    pub fn console_url(&self) -> String {
        self.0.get_console_url()
    }

    /// How somebody else could go on with the run now.
    pub fn attachment(&self) -> Result<String, JsValue> {
        text(&self.0.attachment()).map_err(thrown)
    }

    /// Why the run's order is lost, if it is: as it would be thrown.
    pub fn poisoned(&self) -> JsValue {
        self.0.poisoned().map_or(JsValue::UNDEFINED, thrown)
    }

    /// A pass over a batch; `config` has the settings of the loss, as JSON.
    pub fn pass(
        &self,
        data: &Array,
        loss_fn: &str,
        config: &str,
        forward_only: bool,
    ) -> Result<Submitted, JsValue> {
        let config = loss_config(config).map_err(thrown)?;
        let data = batch::data(data).map_err(thrown)?;
        let pending = if forward_only {
            self.0.forward(data, loss_fn, &config)
        } else {
            self.0.forward_backward(data, loss_fn, &config)
        };
        Ok(Submitted::new(pending, |output| batch::output(&output)))
    }

    /// A pass under a loss of the program's own. `loss` is called with each datum's log-probabilities, a `Float32Array` each, and gives a list:
    /// the loss, the gradients (a `Float32Array` for each datum), the metrics (JSON); or a text, which says why there is none.
    #[wasm_bindgen(js_name = passCustom)]
    pub fn pass_custom(&self, data: &Array, loss: Function) -> Result<Submitted, JsValue> {
        let data = batch::data(data).map_err(thrown)?;
        let loss = of_this_thread(move |logprobs: Vec<Vec<f32>>| batch::custom_loss(&loss, &logprobs));
        let pending = self.0.forward_backward_custom(data, move |_, logprobs| {
            loss(logprobs.iter().map(TensorData::to_f32).collect())
        });
        Ok(Submitted::new(pending, |output| batch::output(&output)))
    }

    /// One step of the optimizer; `params` is JSON, with a `type` that names an optimizer other than AdamW.
    #[wasm_bindgen(js_name = optimStep)]
    pub fn optim_step(&self, params: &str) -> Result<Submitted, JsValue> {
        Ok(Submitted::plain(self.0.optim_step(optim_params(params).map_err(thrown)?)))
    }

    /// Saves a checkpoint to train on from; `options` is JSON.
    #[wasm_bindgen(js_name = saveState)]
    pub fn save_state(&self, name: &str, options: &str) -> Result<Submitted, JsValue> {
        let Save { ttl_seconds, overwrite, user_metadata, .. } =
            json::read(options.as_bytes()).map_err(thrown)?;
        Ok(Submitted::plain(self.0.save_state(name, SaveOptions { ttl_seconds, overwrite, user_metadata })))
    }

    /// Saves weights to sample from; `options` is JSON.
    #[wasm_bindgen(js_name = saveForSampler)]
    pub fn save_for_sampler(&self, name: &str, options: &str) -> Result<Submitted, JsValue> {
        let Save { ttl_seconds, user_metadata, .. } = json::read(options.as_bytes()).map_err(thrown)?;
        let options = SaveForSamplerOptions { ttl_seconds, user_metadata };
        Ok(Submitted::plain(self.0.save_weights_for_sampler(name, options)))
    }

    /// Saves weights to use elsewhere; `options` is JSON.
    #[wasm_bindgen(js_name = saveExternal)]
    pub fn save_external(&self, name: &str, options: &str) -> Result<Submitted, JsValue> {
        let Save { ttl_seconds, age_encryption_recipients, .. } =
            json::read(options.as_bytes()).map_err(thrown)?;
        let options = SaveExternalOptions { ttl_seconds, age_encryption_recipients };
        Ok(Submitted::plain(self.0.save_weights_external(name, options)))
    }

    /// Saves the weights as they are, and gives a client that samples from them; or from the run's as it goes on.
    #[wasm_bindgen(js_name = saveAndSample)]
    pub fn save_and_sample(&self, inflight: bool) -> Submitted {
        let pending = if inflight {
            self.0.save_weights_and_get_inflight_sampling_client()
        } else {
            self.0.save_weights_and_get_sampling_client()
        };
        Submitted::new(pending, |client| Ok(Sampling::new(client).into()))
    }

    /// Loads a checkpoint.
    pub fn load(&self, path: &str, optimizer: bool, token: Option<String>) -> Submitted {
        let options = LoadOptions { optimizer, weights_access_token: token.map(Secret::new) };
        Submitted::plain(self.0.load_state_with(path, options))
    }

    /// A sampler of weights that were saved for one, in the run's session.
    #[wasm_bindgen(js_name = createSampling)]
    pub fn create_sampling(&self, path: String, signal: Option<AbortSignal>) -> Promise {
        let client = self.0.clone();
        let made = async move { Ok(Sampling::new(client.create_sampling_client(&path).await?).into()) };
        outcome(signal, Box::pin(made))
    }

    /// What the run is made of.
    pub fn info(&self, signal: Option<AbortSignal>) -> Promise {
        let client = self.0.clone();
        call(signal, async move { text(&client.get_info().await?) })
    }

    /// Gives the run away.
    #[wasm_bindgen(js_name = handOver)]
    pub fn hand_over(&self, signal: Option<AbortSignal>) -> Promise {
        let client = self.0.clone();
        call(signal, async move { text(&client.hand_over().await?) })
    }
}

/// Settings of a loss: numbers and texts, by name.
fn loss_config(config: &str) -> Result<LossFnConfig, Failure> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Number(f64),
        Text(String),
    }
    let config: std::collections::BTreeMap<String, Value> = json::read(config.as_bytes())?;
    let value = |value| match value {
        Value::Number(number) => LossConfigValue::Number(number),
        Value::Text(text) => LossConfigValue::Text(text),
    };
    Ok(config.into_iter().map(|(name, of)| (name, value(of))).collect())
}

fn optim_params(params: &str) -> Result<OptimParams, Failure> {
    let params: serde_json::Map<String, serde_json::Value> = json::read(params.as_bytes())?;
    let kind = params.get("type").and_then(|kind| kind.as_str());
    Ok(match kind {
        None | Some("adam" | "adamw") => OptimParams::Adam(json::of::<AdamParams>(&params.into())?),
        Some("dimuon") => OptimParams::Dimuon(json::of(&params.into())?),
        Some(_) => OptimParams::Other(params),
    })
}
