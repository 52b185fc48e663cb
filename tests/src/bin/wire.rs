//! What the client and the service write and read, protobuf above all, and what the client makes of texts, for comparison
//! with the official package: a JSON object a line in, one out. Bytes are base64. `tests/sdk/test_rust_*.py` ask.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use prost::Message;
use retinker::client::retry::RetryPolicy;
use retinker::client::{Api, ApiConfig, LossConfigValue, LossFnConfig, Telemetry, Tokenizer, TokenizerId};
use retinker::native::{HfTokenizer, NativeRuntime};
use retinker::transport::{Request, Response, Transport, TransportError};
use retinker::wire::metrics::{self, Metrics};
use retinker::wire::proto;
use retinker::wire::sampling::{AsampleRequest, SampleResponse};
use retinker::wire::telemetry::Severity;
use retinker::wire::training::{Datum, ForwardBackwardOutput, ModelInput};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
enum Ask {
    /// What the client sends.
    EncodeRequest {
        model_id: String,
        seq_id: u64,
        data: Vec<Datum>,
        loss_fn: String,
        loss_fn_config: serde_json::Map<String, Value>,
        forward_only: bool,
    },
    /// What the service reads.
    DecodeRequest { body: String },
    /// What the client reads.
    DecodeForwardBackward { body: String },
    /// The same there and back: what the service sends of what the client reads.
    RepeatForwardBackward { body: String },
    /// What the client sends, given as a text: its seed may be beyond what a message here can hold.
    EncodeSampleRequest { request: String },
    /// What the client reads.
    DecodeSample { body: String },
    /// The same there and back.
    RepeatSample { body: String },
    /// For how many bytes data count where they are cut into requests, and their inputs where they are sampled from.
    EstimateBytes { data: Vec<Datum> },
    /// The metrics of a call from those of its chunks, each with its number of datums.
    CombineMetrics { chunks: Vec<(Metrics, usize)> },
    /// Which tokenizer a model has.
    TokenizerOf { model: String, tokenizer: Option<String> },
    /// What the tokenizer in a directory makes of texts, with and without special tokens, and the texts of the former.
    Tokenize { directory: PathBuf, texts: Vec<String> },
    /// What the client tells of these events, an error, and the session's end.
    Telemetry { events: Vec<(String, serde_json::Map<String, Value>, Severity)>, error: String },
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?).map_err(anyhow::Error::from) {
            Ok(ask) => answer(ask).await,
            Err(error) => Err(error),
        };
        let answer = answer.unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

async fn answer(ask: Ask) -> Result<Value> {
    Ok(match ask {
        Ask::EncodeRequest { model_id, seq_id, data, loss_fn, loss_fn_config, forward_only } => {
            let config = config(&loss_fn_config)?;
            let transport = Kept::default();
            let api = api(&transport)?.with_retry(RetryPolicy::none());
            let sent = api.forward_backward(&model_id, seq_id, &data, &loss_fn, &config, forward_only).await;
            transport.sent(sent)?
        }
        Ask::EncodeSampleRequest { request } => {
            let transport = Kept::default();
            let api = api(&transport)?.with_retry(RetryPolicy::none());
            let request: AsampleRequest<ModelInput> = serde_json::from_str(&request)?;
            let sent = api.asample(&request).await;
            transport.sent(sent)?
        }
        Ask::DecodeRequest { body } => {
            let request: proto::ForwardBackwardRequest = decoded(&body)?;
            let data = request.data.iter().map(Datum::from_proto).collect::<Result<Vec<_>, _>>()?;
            let settings = request.loss_fn_config_v2.iter().map(|(name, setting)| {
                let value = match &setting.value {
                    Some(proto::loss_config_value::Value::Number(number)) => json!(number),
                    Some(proto::loss_config_value::Value::Text(text)) => json!(text),
                    None => Value::Null,
                };
                (name.clone(), value)
            });
            json!({
                "model_id": request.model_id,
                "seq_id": request.seq_id,
                "data": data,
                "loss_fn": request.loss_fn,
                "loss_fn_config": settings.collect::<serde_json::Map<_, _>>(),
                "forward_only": request.forward_only,
            })
        }
        Ask::DecodeForwardBackward { body } => {
            serde_json::to_value(ForwardBackwardOutput::from_proto(&decoded(&body)?)?)?
        }
        Ask::RepeatForwardBackward { body } => {
            let output = ForwardBackwardOutput::from_proto(&decoded(&body)?)?;
            json!({ "body": STANDARD.encode(output.to_proto().encode_to_vec()) })
        }
        Ask::DecodeSample { body } => serde_json::to_value(SampleResponse::from_proto(&decoded(&body)?)?)?,
        Ask::Telemetry { events, error } => {
            let transport = Kept::default();
            let telemetry = Telemetry::of_session(&api(&transport)?, "s");
            for (name, data, severity) in events {
                telemetry.log(&name, data, severity);
            }
            telemetry.log_fatal_exception(&std::io::Error::other(error), Severity::Error).await;
            let body = transport.take()?.context("nothing was sent")?;
            json!({ "body": STANDARD.encode(body) })
        }
        Ask::EstimateBytes { data } => json!({
            "datums": data.iter().map(Datum::estimated_bytes).collect::<Vec<_>>(),
            "prompts": data.iter().map(|datum| datum.model_input.estimated_sample_bytes()).collect::<Vec<_>>(),
        }),
        Ask::CombineMetrics { chunks } => json!({ "metrics": metrics::combine(&chunks)? }),
        Ask::TokenizerOf { model, tokenizer } => {
            let id = TokenizerId::of_model(&model, tokenizer.as_deref());
            json!({ "name": id.name, "revision": id.revision })
        }
        Ask::Tokenize { directory, texts } => tokenize(&HfTokenizer::from_directory(&directory)?, &texts)?,
        Ask::RepeatSample { body } => {
            let response = SampleResponse::from_proto(&decoded(&body)?)?;
            json!({ "body": STANDARD.encode(response.to_proto().encode_to_vec()) })
        }
    })
}

fn tokenize(tokenizer: &dyn Tokenizer, texts: &[String]) -> Result<Value> {
    let one = |text: &String| -> Result<Value> {
        let tokens = tokenizer.encode(text, true)?;
        let ids = tokens.iter().map(|token| u32::try_from(*token)).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({
            "tokens": tokens,
            "plain": tokenizer.encode(text, false)?,
            "decoded": tokenizer.decode(&ids, false)?,
            "skipped": tokenizer.decode(&ids, true)?,
        }))
    };
    Ok(json!({
        "texts": texts.iter().map(one).collect::<Result<Vec<_>>>()?,
        "vocab_size": tokenizer.vocab_size(),
        "bos": tokenizer.bos_token_id(),
        "eos": tokenizer.eos_token_id(),
    }))
}

fn decoded<M: Message + Default>(body: &str) -> Result<M> {
    M::decode(&*STANDARD.decode(body)?).context("it is not such a message")
}

fn config(members: &serde_json::Map<String, Value>) -> Result<LossFnConfig> {
    let setting = |(name, value): (&String, &Value)| {
        let value = match value {
            Value::String(text) => LossConfigValue::Text(text.clone()),
            other => LossConfigValue::Number(other.as_f64().context("a setting is neither number nor text")?),
        };
        Ok((name.clone(), value))
    };
    members.iter().map(setting).collect()
}

fn api(transport: &Kept) -> Result<Api> {
    let config = ApiConfig { base_url: "http://nowhere".to_owned(), ..ApiConfig::default() };
    let runtime = NativeRuntime::current().context("there is no tokio runtime")?;
    Ok(Api::new(config, Arc::new(transport.clone()), Arc::new(runtime))?)
}

/// Keeps what is sent last, and takes it for good.
#[derive(Debug, Clone, Default)]
struct Kept {
    body: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Kept {
    fn take(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.body.lock().map_err(|_| anyhow!("poisoned"))?.take())
    }

    /// What was sent, however it went; it has no answer that the client can use.
    fn sent<T>(&self, went: Result<T, retinker::client::Error>) -> Result<Value> {
        match (self.take()?, went) {
            (Some(body), _) => Ok(json!({ "body": STANDARD.encode(body) })),
            (None, Err(error)) => bail!("{error}"),
            (None, Ok(_)) => bail!("nothing was sent"),
        }
    }
}

impl Transport for Kept {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        if let Ok(mut body) = self.body.lock() {
            *body = Some(request.body.to_vec());
        }
        let answer = Response { status: 200, headers: Vec::new(), body: stream::empty().boxed() };
        std::future::ready(Ok(answer)).boxed()
    }
}
