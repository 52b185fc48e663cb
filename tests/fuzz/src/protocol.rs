use std::fmt::Debug;

use prost::Message;
use retinker::wire::metrics::{Metrics, combine};
use retinker::wire::path::TinkerPath;
use retinker::wire::proto;
use retinker::wire::tensor::TensorData;
use retinker::wire::time::Time;
use retinker::wire::training::{Datum, ForwardBackwardOutput, ModelInputChunk};
use retinker::wire::{
    ErrorBody, account, capabilities, future, model, run, sampler, sampling, session, telemetry, training,
    weights,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Everything of the protocol that is read from JSON, protobuf or text. The first byte says what the rest is. What was read
/// and is written again is read as the same.
pub fn protocol(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    READERS[usize::from(*choice) % READERS.len()](data);
}

/// Functions that read bytes, then forms of JSON.
macro_rules! readers {
    ($($reader:path),*; $($form:ty),* $(,)?) => { &[$($reader,)* $(json::<$form>),*] };
}

/// The corpus names them by their places: what is new goes to the end.
const READERS: &[fn(&[u8])] = readers![
    texts, metrics, tensor_json, datum_json, request, output, sample;
    ErrorBody,
    account::Whoami,
    account::AuditLogResponse,
    account::BillingUsageResponse,
    account::CheckpointStorageUsageResponse,
    account::TraceExport,
    capabilities::ServerCapabilities,
    capabilities::ClientConfigRequest,
    capabilities::ClientConfig,
    capabilities::DynamicConfig,
    future::UntypedApiFuture,
    future::RetrieveFutureRequest,
    future::TryAgain,
    future::RequestFailed,
    model::LoraConfig,
    model::CreateModelRequest,
    model::CreateModelResult,
    model::LoadWeightsRequest,
    model::LoadWeightsResult,
    model::GetInfoRequest,
    model::GetInfoResponse,
    run::Checkpoint,
    run::TrainingRun,
    run::TrainingRunsResponse,
    run::CheckpointsResponse,
    sampler::CreateSamplingSessionRequest,
    sampler::CreateSamplingSessionResponse,
    sampler::JoinSamplingSessionRequest,
    sampler::JoinSamplingSessionResponse,
    sampler::GetSamplerResponse,
    sampling::SamplingParams,
    sampling::AsampleRequest,
    sampling::SampleFuture,
    sampling::SampleResponse,
    sampling::CancelFutureRequest,
    sampling::RetrieveFuturesRequest,
    sampling::RetrieveFuturesResponse,
    session::CreateSessionRequest,
    session::CreateSessionResponse,
    session::SessionHeartbeatRequest,
    session::FinishSessionRequest,
    session::GetSessionResponse,
    session::ListSessionsResponse,
    session::SessionStatus,
    session::SessionSearchRequest,
    session::SessionSearchCursor,
    session::SessionSummary,
    session::SessionSearchResponse,
    session::SetProjectRequest,
    training::ModelInput,
    training::Provenance,
    training::AdamParams,
    training::DimuonParams,
    training::OptimStepRequest,
    training::OptimStepResult,
    training::ForwardBackwardOutput,
    weights::SaveWeightsRequest,
    weights::SaveWeightsResult,
    weights::WeightsInfoResponse,
    weights::SetTtlRequest,
    weights::SaveWeightsForSamplerRequest,
    weights::SaveWeightsForSamplerResult,
    weights::SaveWeightsExternalRequest,
    weights::ExternalWeightsUrls,
    weights::CopyWeightsRequest,
    weights::CopyWeightsResponse,
    training::CreateCustomLossRequest,
    training::CreateCustomLossResult,
    telemetry::TelemetrySendRequest,
];

/// Reads, writes, and reads what was written.
fn json<T: DeserializeOwned + Serialize>(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(data) else { return };
    if !serde_json::from_slice(data).is_ok_and(|value| is_small(&value)) {
        return;
    }
    let written = serde_json::to_string(&value).expect("what was read can be written");
    let again: T = serde_json::from_str(&written).unwrap_or_else(|e| panic!("{written}: {e}"));
    assert_eq!(serde_json::to_string(&again).ok().as_ref(), Some(&written));
}

/// Whether all numbers are within the range of 32-bit floats: others are read as infinite where such are meant, and JSON has
/// no word for that.
fn is_small(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| (number as f32).is_finite()),
        Value::Array(values) => values.iter().all(is_small),
        Value::Object(members) => members.values().all(is_small),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// Times and checkpoints' paths.
fn texts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(time) = text.parse::<Time>() {
        assert_eq!(time.to_string().parse(), Ok(time));
    }
    if let Ok(path) = text.parse::<TinkerPath>() {
        assert_eq!(path.to_string(), text);
    }
}

fn metrics(data: &[u8]) {
    let Ok(chunks) = serde_json::from_slice::<Vec<(Metrics, usize)>>(data) else { return };
    // A name that is not one is the only error.
    if combine(&chunks).is_err() {
        assert!(chunks[0].0.keys().any(|name| name.split(':').count() != 2));
    }
}

fn tensor_json(data: &[u8]) {
    json::<TensorData>(data);
    if let Ok(tensor) = serde_json::from_slice(data) {
        tensor_forms(&tensor);
    }
}

/// Protobuf, and sparse or dense: the same values.
fn tensor_forms(tensor: &TensorData) {
    if let Ok(again) = TensorData::from_proto(&tensor.to_proto()) {
        assert_same(&again.values, &tensor.values);
    }
    // Beyond that it says nothing new, only slower.
    let dense = (tensor.dense_bytes() <= 1 << 20).then(|| tensor.to_dense());
    if let Some(Ok(dense)) = dense {
        let again = dense.clone().to_sparse().to_dense().expect("a sparse tensor that was made here");
        assert_same(&positive(&again), &positive(&dense));
    }
}

/// A zero that is not listed has lost its sign.
fn positive(tensor: &TensorData) -> Vec<f32> {
    tensor.to_f32().into_iter().map(|value| value + 0.0).collect()
}

fn datum_json(data: &[u8]) {
    json::<Datum>(data);
    if let Ok(datum) = serde_json::from_slice(data) {
        datum_forms(&datum);
    }
}

fn datum_forms(datum: &Datum) {
    let _ = datum.estimated_bytes();
    let _ = datum.model_input.length();
    datum.loss_fn_inputs.values().for_each(tensor_forms);
    if let Ok(message) = datum.to_proto() {
        let again = Datum::from_proto(&message).ok().and_then(|datum| datum.to_proto().ok());
        if let Some(again) = again {
            assert_eq!(bytes_of(&again), bytes_of(&message));
        }
    }
}

/// A batch as the service reads it.
fn request(data: &[u8]) {
    let Some(request) = message::<proto::ForwardBackwardRequest>(data) else { return };
    for datum in &request.data {
        datum.model_input.iter().for_each(|chunk| drop(ModelInputChunk::from_proto(chunk)));
        if let Ok(datum) = Datum::from_proto(datum) {
            datum_forms(&datum);
        }
    }
}

/// Results as the client reads them.
fn output(data: &[u8]) {
    let Some(message) = message::<proto::ForwardBackwardOutput>(data) else { return };
    if let Ok(output) = ForwardBackwardOutput::from_proto(&message) {
        // The service's own are of floats, which is what others become when they are written.
        let written = |output: &ForwardBackwardOutput| {
            ForwardBackwardOutput::from_proto(&output.to_proto()).expect("what was written can be read")
        };
        let of_floats = written(&output);
        assert_same(&written(&of_floats), &of_floats);
    }
}

fn sample(data: &[u8]) {
    let Some(message) = message::<proto::SampleResponse>(data) else { return };
    if let Ok(response) = sampling::SampleResponse::from_proto(&message) {
        let _ = response.estimated_bytes();
        let again = sampling::SampleResponse::from_proto(&response.to_proto());
        assert_same(&again.as_ref().ok(), &Some(&response));
    }
}

/// Reads a message, writes it, and reads what was written.
fn message<M: Message + Default>(data: &[u8]) -> Option<M> {
    let message = M::decode(data).ok()?;
    let again = M::decode(&*message.encode_to_vec()).expect("what was written can be read");
    assert_eq!(bytes_of(&again), bytes_of(&message));
    Some(message)
}

/// What a message is written as, in an order of its own: maps come in any.
fn bytes_of(message: &impl Message) -> Vec<u8> {
    let mut bytes = message.encode_to_vec();
    bytes.sort_unstable();
    bytes
}

/// As people see it: NaN is NaN.
fn assert_same<T: Debug>(one: &T, other: &T) {
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
}
