//! Requests that train.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use retinker_wire::future::UntypedApiFuture;
use retinker_wire::model::CreateModelRequest;
use retinker_wire::proto::{self, loss_config_value};
use retinker_wire::training::{Datum, OptimStepRequest};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::body::{Body, from_json, from_protobuf, not_json, required_seq, to_the_end};
use super::{ApiError, BODY_LIMIT, Shared, words};
use crate::core::Core;
use crate::trainer::{ForwardBackward, Op, Refusal};

type Submitted = Result<Json<UntypedApiFuture>, ApiError>;

/// The answer of a submission.
pub(crate) fn submitted(request_id: String) -> Json<UntypedApiFuture> {
    let model_id = request_id.rsplit_once(':').map(|(model_id, _)| model_id.to_owned());
    Json(UntypedApiFuture { request_id, model_id })
}

/// Hands a numbered request to its run.
pub(crate) async fn submit(core: Arc<Core>, run_id: String, seq: u64, op: Op) -> Submitted {
    let request_id = to_the_end(async move { core.submit(&run_id, seq, op).await }).await?;
    Ok(submitted(request_id))
}

pub(crate) async fn create_model(State(core): Shared, body: Body) -> Submitted {
    let request: CreateModelRequest = body.json().await?;
    let request_id = to_the_end(async move { core.create_model(request).await }).await?;
    Ok(submitted(request_id))
}

pub(crate) async fn unload_model(State(core): Shared, body: Body) -> Submitted {
    let request: UnloadModel = body.json().await?;
    let request_id = to_the_end(async move { core.unload_model(&request.model_id).await }).await?;
    Ok(submitted(request_id))
}

pub(crate) async fn forward_backward(State(core): Shared, body: Body) -> Submitted {
    if body.protobuf {
        return submit_pass(core, body, proto_pass).await;
    }
    submit_pass(core, body, |bytes| {
        let ForwardBackwardJson { forward_backward_input, model_id, seq_id } = from_json(bytes)?;
        Ok((model_id, required_seq(seq_id)?, json_pass(forward_backward_input, false)))
    })
    .await
}

/// Hands over what was read of a batch: its run, its number, and what is to be done. Batches are large, so all of their
/// reading is done at one place, beside the runtime.
async fn submit_pass(
    core: Arc<Core>,
    body: Body,
    read: impl FnOnce(&Bytes) -> Result<(String, u64, Op), ApiError> + Send + 'static,
) -> Submitted {
    match body.read(read).await {
        Ok((run_id, seq, op)) => {
            // It counts among what waits from now on.
            drop(body);
            submit(core, run_id, seq, op).await
        }
        Err(refusal) => {
            body.note_refused(&core).await;
            Err(refusal)
        }
    }
}

/// How older clients end a run.
#[derive(Deserialize)]
struct UnloadModel {
    model_id: String,
}

/// A batch in the form of SDKs up to 0.24. Its examples are kept as they came: one that cannot be read is a request that
/// fails in its turn, as it is in protobuf.
#[derive(Deserialize)]
struct JsonBatch {
    data: Vec<Box<RawValue>>,
    loss_fn: String,
    #[serde(default)]
    loss_fn_config: Option<BTreeMap<String, Value>>,
}

/// The pass of older clients.
#[derive(Deserialize)]
struct ForwardBackwardJson {
    forward_backward_input: JsonBatch,
    model_id: String,
    #[serde(default)]
    seq_id: Option<u64>,
}

/// The forward pass of older clients.
#[derive(Deserialize)]
struct ForwardJson {
    forward_input: JsonBatch,
    model_id: String,
    #[serde(default)]
    seq_id: Option<u64>,
}

pub(crate) async fn forward(State(core): Shared, body: Body) -> Submitted {
    let protobuf = body.protobuf;
    submit_pass(core, body, move |bytes| {
        if protobuf {
            return Err(not_json());
        }
        let ForwardJson { forward_input, model_id, seq_id } = from_json(bytes)?;
        Ok((model_id, required_seq(seq_id)?, json_pass(forward_input, true)))
    })
    .await
}

pub(crate) async fn optim_step(State(core): Shared, body: Body) -> Submitted {
    let request: OptimStepRequest = body.numbered(&core).await?;
    let op = match request.optimizer_params {
        Some(params) => {
            let kind = params.get("type").and_then(|kind| kind.as_str()).unwrap_or("(unnamed)").to_owned();
            let reason = format!("optimizer '{kind}' is not offered here; send adam_params");
            Op::Refuse(Refusal { reason, operation: "optim_step", request: params.into() })
        }
        None => Op::OptimStep(request.adam_params.unwrap_or_default()),
    };
    submit(core, request.model_id, required_seq(request.seq_id)?, op).await
}

fn json_pass(batch: JsonBatch, forward_only: bool) -> Op {
    let settings = batch.loss_fn_config.unwrap_or_default();
    let data = batch.data.iter().map(|datum| words::read(datum.get().as_bytes()));
    pass(data, batch.loss_fn, settings, forward_only)
}

fn proto_pass(bytes: &Bytes) -> Result<(String, u64, Op), ApiError> {
    let request: proto::ForwardBackwardRequest = from_protobuf(bytes)?;
    let seq = u64::try_from(request.seq_id)
        .map_err(|_| ApiError::unprocessable(format!("seq_id {} is negative", request.seq_id)))?;
    // The older member holds those that are numbers once more.
    let numbers = request.loss_fn_config.into_iter().map(|(name, number)| (name, number.into()));
    let all = request.loss_fn_config_v2.into_iter().map(|(name, setting)| match setting.value {
        Some(loss_config_value::Value::Number(number)) => (name, number.into()),
        Some(loss_config_value::Value::Text(text)) => (name, text.into()),
        None => (name, Value::Null),
    });
    let settings = numbers.chain(all).collect();
    let data = request.data.iter().map(Datum::from_proto);
    Ok((request.model_id, seq, pass(data, request.loss_fn, settings, request.forward_only)))
}

/// A pass over these examples, or the refusal of one that cannot be read.
fn pass<E: Display>(
    data: impl ExactSizeIterator<Item = Result<Datum, E>>,
    loss_fn: String,
    settings: BTreeMap<String, Value>,
    forward_only: bool,
) -> Op {
    let count = data.len();
    // What a small request stands for must not take more memory than a large one.
    let mut room = BODY_LIMIT as u64;
    let mut dense = |datum: Result<Datum, E>| {
        let datum = datum.map_err(|e| e.to_string())?;
        let bytes =
            datum.loss_fn_inputs.values().fold(0u64, |sum, tensor| sum.saturating_add(tensor.dense_bytes()));
        room = room.checked_sub(bytes).ok_or_else(|| {
            format!(
                "with it the batch has more than {} MiB in all its cells: send fewer at once",
                BODY_LIMIT >> 20
            )
        })?;
        datum.to_dense().map_err(|e| e.to_string())
    };
    let data: Result<Vec<Datum>, String> =
        data.enumerate().map(|(i, datum)| dense(datum).map_err(|e| format!("datum {i}: {e}"))).collect();
    match data {
        Ok(data) => Op::ForwardBackward(ForwardBackward { data, loss_fn, settings, forward_only }),
        Err(reason) => {
            let request =
                json!({ "data": count, "loss_fn": loss_fn, "forward_only": forward_only, "reason": reason });
            Op::Refuse(Refusal { reason, operation: "forward_backward", request })
        }
    }
}
