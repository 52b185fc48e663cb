//! Backends: prompts, options, completions and capabilities of crucible_ir 0.3.0, and a sampler as a backend.
//!
//! The behaviour itself stands in a sketch alone; the trait is ours, with its five calls but for `stream`: Tinker gives a sample when
//! it is whole.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_core::future::BoxFuture;
use futures_util::future::{Either, select};
use retinker::client::{Error, SampleOptions, SamplingClient, Tokenizer};
use retinker::runtime::Runtime;
use retinker::wire::sampling::{SamplingParams, Stop, StopReason};
use retinker::wire::training::ModelInput;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What a backend can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Its id. Required.
    pub backend_id: String,
    /// Whose it is. Required.
    pub provider: String,
    /// The models that it has.
    #[serde(default)]
    pub models: Vec<String>,
    /// The one that is taken where none is named.
    #[serde(default)]
    pub default_model: Option<String>,
    /// Whether what it says comes piece by piece.
    #[serde(default = "yes")]
    pub supports_streaming: bool,
    /// Whether it calls tools.
    #[serde(default = "yes")]
    pub supports_tools: bool,
    /// Whether it can be held to JSON.
    #[serde(default = "yes")]
    pub supports_json_mode: bool,
    /// Whether it sees.
    #[serde(default)]
    pub supports_vision: bool,
    /// Whether it hears.
    #[serde(default)]
    pub supports_audio: bool,
    /// Whether it thinks aloud.
    #[serde(default)]
    pub supports_extended_thinking: bool,
    /// Whether it remembers prompts.
    #[serde(default)]
    pub supports_caching: bool,
    /// The most tokens that it gives.
    #[serde(default)]
    pub max_tokens: Option<u64>,
    /// The most that it reads.
    #[serde(default)]
    pub max_context_length: Option<u64>,
    /// The most pictures.
    #[serde(default)]
    pub max_images_per_request: Option<u64>,
    /// The most requests in a minute.
    #[serde(default)]
    pub requests_per_minute: Option<u64>,
    /// The most tokens in a minute.
    #[serde(default)]
    pub tokens_per_minute: Option<u64>,
    /// What a million tokens cost that it reads.
    #[serde(default)]
    pub cost_per_million_input: Option<f64>,
    /// What a million cost that it gives.
    #[serde(default)]
    pub cost_per_million_output: Option<f64>,
    /// More.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

fn yes() -> bool {
    true
}

/// How a completion is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Options {
    /// Which model.
    pub model: Option<String>,
    /// What logits are divided by.
    pub temperature: Option<f64>,
    /// The most tokens.
    pub max_tokens: Option<u64>,
    /// The least probable tokens are left out, beyond this sum.
    pub top_p: Option<f64>,
    /// So many of the most probable tokens are chosen from.
    pub top_k: Option<u64>,
    /// Not of Tinker's.
    pub frequency_penalty: Option<f64>,
    /// Not of Tinker's.
    pub presence_penalty: Option<f64>,
    /// Texts that end it.
    pub stop: Option<Vec<String>>,
    /// `text`, `json`, `json_schema`.
    pub response_format: Option<String>,
    /// With the last of these.
    pub json_schema: Option<Map<String, Value>>,
    /// Whether it comes piece by piece.
    pub stream: bool,
    /// `ephemeral`.
    pub cache_control: Option<String>,
    /// Whether it thinks aloud.
    pub extended_thinking: bool,
    /// For how long.
    pub thinking_budget_tokens: Option<u64>,
    /// The same seed gives the same.
    pub seed: Option<i64>,
    /// How long it may take.
    pub timeout_ms: Option<u64>,
    /// More: `tokens`, a prompt as token ids, for which there is no other place.
    pub extra: Map<String, Value>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Prompt {
    /// What was said so far: maps of `role` and `content`.
    pub messages: Vec<Map<String, Value>>,
    /// What stands before all of it.
    pub system: Option<String>,
    /// Tools.
    pub tools: Option<Vec<Map<String, Value>>>,
    /// Which of them.
    pub tool_choice: Option<Value>,
    /// How.
    pub options: Options,
    /// What the caller calls it.
    pub request_id: Option<String>,
    /// The trace that it belongs to.
    pub trace_id: Option<String>,
    /// More.
    pub metadata: Map<String, Value>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Which, from 0.
    pub index: u64,
    /// What was said.
    pub message: Map<String, Value>,
    /// `stop`, `length`, `tool_calls`, `content_filter`, `error`.
    #[serde(default)]
    pub finish_reason: Option<String>,
    /// What was thought.
    #[serde(default)]
    pub thinking: Option<Value>,
}

/// What it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Usage {
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens given.
    pub completion_tokens: u64,
    /// Both.
    pub total_tokens: u64,
    /// Of those given, those that were thought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking_tokens: Option<u64>,
    /// Of those read, those that were remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<u64>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Completion {
    /// The answers.
    pub choices: Vec<Choice>,
    /// By which model.
    pub model: Option<String>,
    /// What it took.
    pub usage: Option<Usage>,
    /// How long.
    pub latency_ms: Option<u64>,
    /// Until its first token.
    pub time_to_first_token_ms: Option<u64>,
    /// As in the prompt.
    pub request_id: Option<String>,
    /// As in the prompt.
    pub trace_id: Option<String>,
    /// What the service said.
    pub raw_response: Option<Map<String, Value>>,
    /// More: `logprobs`, for which there is no other place.
    pub metadata: Map<String, Value>,
}

/// How a backend is. `ProviderHealth` of crucible_provider_contracts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// `ok`, `degraded`, `failed`, `initializing`.
    pub status: String,
    /// How long it has been there.
    pub uptime_seconds: Option<u64>,
    /// How long its last answer took.
    pub last_latency_ms: Option<u64>,
    /// How many went wrong.
    pub error_count: u64,
    /// What it has in memory.
    pub memory_bytes: Option<u64>,
    /// More.
    pub details: Map<String, Value>,
}

/// Why there is no completion.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    /// The prompt asks for what this backend cannot do.
    #[error("this backend cannot do that: {0}")]
    Unsupported(String),
    /// It took longer than `timeout_ms` allows.
    #[error("the completion was not there within {0} ms, as its timeout_ms asks")]
    TimedOut(u64),
    /// The service did not do it.
    #[error("{0}")]
    Service(Error),
}

/// How a model is told a conversation, which each model has its own way for.
pub trait Template: fmt::Debug + Send + Sync {
    /// The text that the model goes on from.
    ///
    /// # Errors
    /// Why the prompt cannot be told, as a sentence's end: `a tool's answer`.
    fn text(&self, prompt: &Prompt) -> Result<String, String>;
}

/// Something that completes prompts.
pub trait Backend: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> BoxFuture<'_, Result<Capabilities, BackendError>>;
    /// Completes a prompt.
    fn complete(&self, prompt: Prompt) -> BoxFuture<'_, Result<Completion, BackendError>>;
    /// How it is.
    fn health(&self) -> BoxFuture<'_, Health>;
    /// Numbers since it is there: `requests`, `errors`, `prompt_tokens`, `completion_tokens`.
    fn metrics(&self) -> BTreeMap<String, f64>;
}

/// A sampler as a backend.
#[derive(Debug)]
pub struct SamplerBackend {
    client: SamplingClient,
    tokenizer: Option<Arc<dyn Tokenizer>>,
    template: Option<Arc<dyn Template>>,
    runtime: Arc<dyn Runtime>,
    counts: Counts,
    /// Once it was asked for.
    model: OnceLock<String>,
}

/// What has happened so far.
#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    errors: AtomicU64,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    last_latency_ms: AtomicU64,
}

impl SamplerBackend {
    /// A backend of this sampler. Without a tokenizer it takes prompts of tokens alone, in `options.extra.tokens`, and gives tokens
    /// alone, in `metadata.tokens`.
    pub fn new(
        client: SamplingClient,
        tokenizer: Option<Arc<dyn Tokenizer>>,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        Self { client, tokenizer, template: None, runtime, counts: Counts::default(), model: OnceLock::new() }
    }

    /// With this template. Without one a prompt is a single message, whose text the model goes on from.
    pub fn with_template(mut self, template: Arc<dyn Template>) -> Self {
        self.template = Some(template);
        self
    }

    /// The model that is sampled from.
    async fn model(&self) -> Result<&String, BackendError> {
        if let Some(model) = self.model.get() {
            return Ok(model);
        }
        let model = self.client.get_base_model().await.map_err(BackendError::Service)?;
        Ok(self.model.get_or_init(|| model))
    }

    async fn completed(&self, prompt: Prompt) -> Result<Completion, BackendError> {
        let Prompt { options, request_id, trace_id, .. } = &prompt;
        let tokens = self.tokens(&prompt)?;
        let read = tokens.len() as u64;
        let wanted = SampleOptions { sampling_params: params(options)?, ..SampleOptions::default() };
        let model = self.model().await?;
        if let Some(other) = options.model.as_ref().filter(|asked| *asked != model) {
            return Err(BackendError::Unsupported(format!("the model {other}: it has {model} alone")));
        }
        let begun = self.runtime.monotonic();
        let input = ModelInput::from_ints(tokens);
        let sampled = self.client.sample(&input, &wanted);
        let sampled = match options.timeout_ms {
            None => sampled.await,
            Some(most) => {
                let over = self.runtime.sleep(Duration::from_millis(most));
                match select(pin!(sampled), over).await {
                    Either::Left((sampled, _)) => sampled,
                    Either::Right(_) => return Err(BackendError::TimedOut(most)),
                }
            }
        };
        let sampled = sampled.map_err(BackendError::Service)?;
        let latency =
            u64::try_from(self.runtime.monotonic().saturating_sub(begun).as_millis()).unwrap_or(u64::MAX);
        let given: u64 = sampled.sequences.iter().map(|sequence| sequence.tokens.len() as u64).sum();
        self.counts.prompt_tokens.fetch_add(read, Ordering::Relaxed);
        self.counts.completion_tokens.fetch_add(given, Ordering::Relaxed);
        self.counts.last_latency_ms.store(latency, Ordering::Relaxed);
        let mut choices = Vec::new();
        for (index, sequence) in (0..).zip(&sampled.sequences) {
            let content = match &self.tokenizer {
                Some(tokenizer) => tokenizer.decode(&sequence.tokens, true).map_err(BackendError::Service)?,
                None => String::new(),
            };
            let reason = if sequence.stop_reason == StopReason::Length { "length" } else { "stop" };
            let message = members(json!({ "role": "assistant", "content": content }));
            choices.push(Choice { index, message, finish_reason: Some(reason.to_owned()), thinking: None });
        }
        let first = sampled.sequences.first();
        let metadata = members(json!({
            "tokens": first.map(|sequence| &sequence.tokens),
            "logprobs": first.map(|sequence| &sequence.logprobs),
        }));
        Ok(Completion {
            choices,
            model: Some(model.clone()),
            usage: Some(Usage {
                prompt_tokens: read,
                completion_tokens: given,
                total_tokens: read + given,
                ..Usage::default()
            }),
            latency_ms: Some(latency),
            request_id: request_id.clone(),
            trace_id: trace_id.clone(),
            metadata,
            ..Completion::default()
        })
    }

    /// The prompt as tokens: those that it gives, or those of its text.
    fn tokens(&self, prompt: &Prompt) -> Result<Vec<i32>, BackendError> {
        let cannot = |why: &str| Err(BackendError::Unsupported(why.to_owned()));
        if let Some(tokens) = prompt.options.extra.get("tokens") {
            let tokens = serde_json::from_value(tokens.clone());
            return tokens
                .map_err(|_| BackendError::Unsupported("extra.tokens is no list of token ids".to_owned()));
        }
        let Some(tokenizer) = &self.tokenizer else {
            return cannot("it has no tokenizer, and the prompt has no extra.tokens");
        };
        let asks_for_tools = prompt.tools.as_ref().is_some_and(|tools| !tools.is_empty());
        let chooses = prompt.tool_choice.as_ref().is_some_and(|choice| choice != "none" && choice != "auto");
        if asks_for_tools || chooses {
            return cannot("tools");
        }
        let text = match &self.template {
            Some(template) => template.text(prompt),
            None => of_one_message(prompt),
        };
        let text = text.map_err(BackendError::Unsupported)?;
        tokenizer.encode(&text, self.template.is_none()).map_err(BackendError::Service)
    }
}

/// The text of a prompt that is one message. Of more it cannot be known how the model is told who said what.
fn of_one_message(prompt: &Prompt) -> Result<String, String> {
    let ([message], None) = (prompt.messages.as_slice(), prompt.system.as_deref().filter(|s| !s.is_empty()))
    else {
        return Err("a conversation, without a template that says how the model is told one".to_owned());
    };
    match message.get("content") {
        Some(Value::String(content)) => Ok(content.clone()),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().map(|part| part.get("text").and_then(Value::as_str));
            let text: Option<String> = texts.collect();
            text.ok_or_else(|| "a message with a part that is no text".to_owned())
        }
        _ => Err("a message without content".to_owned()),
    }
}

impl Backend for SamplerBackend {
    fn capabilities(&self) -> BoxFuture<'_, Result<Capabilities, BackendError>> {
        Box::pin(async move {
            let model = self.model().await?.clone();
            Ok(Capabilities {
                backend_id: "tinker".to_owned(),
                provider: "tinker".to_owned(),
                models: vec![model.clone()],
                default_model: Some(model),
                // What it defaults to is more than there is.
                supports_streaming: false,
                supports_tools: false,
                supports_json_mode: false,
                supports_vision: false,
                supports_audio: false,
                supports_extended_thinking: false,
                supports_caching: false,
                max_tokens: None,
                max_context_length: None,
                max_images_per_request: None,
                requests_per_minute: None,
                tokens_per_minute: None,
                cost_per_million_input: None,
                cost_per_million_output: None,
                // The sketch has a flag for this, and the package has none.
                metadata: members(json!({ "supports_training": true })),
            })
        })
    }

    fn complete(&self, prompt: Prompt) -> BoxFuture<'_, Result<Completion, BackendError>> {
        Box::pin(async move {
            self.counts.requests.fetch_add(1, Ordering::Relaxed);
            let completed = self.completed(prompt).await;
            if completed.is_err() {
                self.counts.errors.fetch_add(1, Ordering::Relaxed);
            }
            completed
        })
    }

    fn health(&self) -> BoxFuture<'_, Health> {
        Box::pin(async move {
            let known = self.client.get_sampler().await;
            let status = match &known {
                Ok(_) => "ok",
                Err(error) if error.is_outage() => "degraded",
                Err(_) => "failed",
            };
            let latency = self.counts.last_latency_ms.load(Ordering::Relaxed);
            let why = known.err().map(|error| error.to_string());
            Health {
                status: status.to_owned(),
                uptime_seconds: None,
                last_latency_ms: (latency > 0).then_some(latency),
                error_count: self.counts.errors.load(Ordering::Relaxed),
                memory_bytes: None,
                details: members(json!({ "sampler": self.client.sampler_id(), "error": why })),
            }
        })
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        let Counts { requests, errors, prompt_tokens, completion_tokens, .. } = &self.counts;
        let of = |name: &str, count: &AtomicU64| (name.to_owned(), count.load(Ordering::Relaxed) as f64);
        BTreeMap::from([
            of("requests", requests),
            of("errors", errors),
            of("prompt_tokens", prompt_tokens),
            of("completion_tokens", completion_tokens),
        ])
    }
}

fn params(options: &Options) -> Result<SamplingParams, BackendError> {
    let cannot = |what: &str| Err(BackendError::Unsupported(what.to_owned()));
    if options.frequency_penalty.is_some_and(|penalty| penalty != 0.0)
        || options.presence_penalty.is_some_and(|penalty| penalty != 0.0)
    {
        return cannot("penalties");
    }
    if options.stream {
        return cannot("what comes piece by piece");
    }
    if options.json_schema.is_some() || options.response_format.as_deref().is_some_and(|f| f != "text") {
        return cannot("answers held to JSON");
    }
    let default = SamplingParams::default();
    Ok(SamplingParams {
        max_tokens: options.max_tokens.and_then(|most| i64::try_from(most).ok()),
        seed: options.seed.map(i128::from),
        stop: options.stop.clone().map(Stop::Texts),
        temperature: options.temperature.unwrap_or(default.temperature),
        top_k: options.top_k.and_then(|k| i64::try_from(k).ok()).unwrap_or(default.top_k),
        top_p: options.top_p.unwrap_or(default.top_p),
    })
}

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
