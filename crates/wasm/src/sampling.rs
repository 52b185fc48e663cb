//! Samples.

use js_sys::{Array, Float32Array, Int32Array, Object, Promise};
use retinker::client::{SampleOptions, SamplingClient, SamplingOptions};
use retinker::json;
use retinker::wire::sampling::{SampleResponse, TopkLogprobs};
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::batch::{self, put, tensor};
use crate::call::{Outcome, call, outcome, text};
use crate::client::Client;
use crate::pages::Pages;
use crate::pending::told;

/// The core's [`SamplingClient`].
#[wasm_bindgen]
pub struct Sampling(SamplingClient);

impl Sampling {
    pub(crate) fn new(client: SamplingClient) -> Self {
        Self(client)
    }
}

#[wasm_bindgen]
impl Sampling {
    /// Another client of a sampler, from its handle.
    #[wasm_bindgen(js_name = fromHandle)]
    pub fn from_handle(client: &Client, handle: String, signal: Option<AbortSignal>) -> Promise {
        let api = client.api();
        let made = async move { Ok(Self(SamplingClient::from_sampler_handle(api, &handle).await?).into()) };
        outcome(signal, Box::pin(made))
    }

    /// The same client; the service records what the loss `stable_reinforce` needs.
    #[wasm_bindgen(js_name = recordingStability)]
    pub fn recording_stability(&self) -> Sampling {
        let options = SamplingOptions { record_stability_info: true, ..SamplingOptions::default() };
        Self(self.0.clone().with_options(options))
    }

    /// The sampler.
    #[wasm_bindgen(getter, js_name = samplerId)]
    pub fn sampler_id(&self) -> String {
        self.0.sampler_id().to_owned()
    }

    /// Its session.
    #[wasm_bindgen(getter, js_name = sessionId)]
    pub fn session_id(&self) -> String {
        self.0.session_id().to_owned()
    }

    /// The sampler as a text, for other programs.
    #[wasm_bindgen(getter)]
    pub fn handle(&self) -> String {
        self.0.get_sampler_handle()
    }

    /// What the server knows of the sampler.
    pub fn info(&self, signal: Option<AbortSignal>) -> Promise {
        let client = self.0.clone();
        call(signal, async move { text(&client.get_sampler().await?) })
    }

    /// Draws samples; `wanted` is JSON.
    pub fn sample(&self, prompt: &Array, wanted: String, signal: Option<AbortSignal>) -> Promise {
        let (client, prompt) = (self.0.clone(), batch::input(prompt));
        let drawn = async move {
            let wanted: SampleOptions = json::read(wanted.as_bytes())?;
            shown(&client.sample(&prompt?, &wanted).await?)
        };
        outcome(signal, Box::pin(drawn))
    }

    /// The log-probability of each of the prompt's tokens; NaN where there is none.
    #[wasm_bindgen(js_name = computeLogprobs)]
    pub fn compute_logprobs(
        &self,
        prompt: &Array,
        last_n: Option<u32>,
        signal: Option<AbortSignal>,
    ) -> Promise {
        let (client, prompt) = (self.0.clone(), batch::input(prompt));
        let computed = async move {
            let logprobs = client.compute_logprobs(&prompt?, last_n).await?;
            let logprobs: Vec<f32> =
                logprobs.into_iter().map(|logprob| logprob.unwrap_or(f32::NAN)).collect();
            Ok(Float32Array::from(logprobs.as_slice()).into())
        };
        outcome(signal, Box::pin(computed))
    }

    /// How the service stands to this client's samples, from now on.
    pub fn events(&self) -> Pages {
        Pages::of(futures_util::StreamExt::filter_map(self.0.events(), |event| {
            std::future::ready(told(event))
        }))
    }
}

/// Pairs of a token and its log-probability by position; `null` for one that was not computed. Not by way of JSON, which has no
/// infinity: a token that cannot come has that.
fn most_probable(topk: &TopkLogprobs) -> JsValue {
    let row = |row: &Vec<(u32, f32)>| -> JsValue {
        if row.is_empty() {
            return JsValue::NULL;
        }
        let pairs = row.iter().map(|&(token, logprob)| -> JsValue {
            Array::of2(&JsValue::from(token), &JsValue::from(logprob)).into()
        });
        pairs.collect::<Array>().into()
    };
    topk.rows.iter().map(row).collect::<Array>().into()
}

fn shown(response: &SampleResponse) -> Outcome {
    let object = Object::new();
    let sequences = Array::new();
    for sequence in &response.sequences {
        let shown = Object::new();
        let tokens: Vec<i32> = sequence.tokens.iter().map(|&token| token.cast_signed()).collect();
        put(&shown, "stopReason", &JsValue::from_str(sequence.stop_reason.as_str()));
        put(&shown, "tokens", &Int32Array::from(tokens.as_slice()));
        put(&shown, "logprobs", &Float32Array::from(sequence.logprobs.as_slice()));
        if let Some(topk) = &sequence.topk_logprobs {
            put(&shown, "topkLogprobs", &most_probable(topk));
        }
        if let Some(id) = &sequence.sequence_id {
            put(&shown, "sequenceId", &JsValue::from_str(id));
        }
        sequences.push(&shown);
    }
    put(&object, "sequences", &sequences);
    if let Some(logprobs) = &response.prompt_logprobs {
        put(&object, "promptLogprobs", &Float32Array::from(logprobs.as_slice()));
    }
    if let Some(topk) = &response.topk_prompt_logprobs {
        put(&object, "topkPromptLogprobs", &most_probable(topk));
    }
    if let Some(scores) = &response.target_prompt_logprobs {
        put(&object, "targetPromptLogprobs", &Float32Array::from(scores.data.as_slice()));
    }
    if let Some(drawn) = &response.prompt_alt_tokens {
        let alternatives = Object::new();
        put(&alternatives, "tokens", &tensor(&drawn.tokens)?);
        put(&alternatives, "logprobs", &tensor(&drawn.logprobs)?);
        put(&object, "promptAltTokens", &alternatives);
    }
    put(&object, "promptCacheHitTokens", &JsValue::from_f64(response.prompt_cache_hit_tokens.into()));
    Ok(object.into())
}
