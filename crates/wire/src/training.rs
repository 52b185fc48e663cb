//! Training requests and their results, in both encodings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::input::{ImageFormat, ModelInput, ModelInputChunk, NotText};
use crate::metrics::Metrics;
use crate::proto;
use crate::tensor::{self, TensorData, TensorError, TensorValues};

/// One training example. For cross_entropy: `target_tokens` (int64) and `weights` (float32), each as long as the
/// input; position t of `target_tokens` is the token that should follow input position t.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Datum {
    /// What the model reads.
    pub model_input: ModelInput,
    /// What the loss reads, by name.
    pub loss_fn_inputs: BTreeMap<String, TensorData>,
    /// Where the tokens and the loss's rows come from, if that is known.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

/// Which samples an example was put together from. Each list tiles what it speaks of: its lengths add up to the number of
/// positions, and order tells the place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Of the positions of the input.
    pub model_input_spans: Vec<ProvenanceSpan>,
    /// Of the rows of `target_tokens`.
    pub loss_fn_input_spans: Vec<ProvenanceSpan>,
}

/// A run of tokens of one sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenanceSpan {
    /// Whether they are the sample's own tokens, or those of the prompt that it goes on from.
    pub sampled: bool,
    /// The sample's [`sequence_id`](crate::sampling::SampledSequence::sequence_id).
    pub sequence_id: String,
    /// Where they begin in the sample, or in its prompt.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

impl ProvenanceSpan {
    fn to_proto(&self) -> proto::ProvenanceSpan {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let run = proto::SpanOfTokens {
            sequence_id: self.sequence_id.clone(),
            offset: number(self.offset),
            length: number(self.length),
        };
        let of = match self.sampled {
            true => proto::provenance_span::Of::SampledTokens(run),
            false => proto::provenance_span::Of::PromptTokens(run),
        };
        proto::ProvenanceSpan { of: Some(of) }
    }

    fn from_proto(span: &proto::ProvenanceSpan) -> Result<Self, DatumError> {
        let (sampled, run) = match &span.of {
            Some(proto::provenance_span::Of::SampledTokens(run)) => (true, run),
            Some(proto::provenance_span::Of::PromptTokens(run)) => (false, run),
            None => return Err(DatumError::Span),
        };
        let (Ok(offset), Ok(length)) = (u64::try_from(run.offset), u64::try_from(run.length)) else {
            return Err(DatumError::Span);
        };
        Ok(Self { sampled, sequence_id: run.sequence_id.clone(), offset, length })
    }
}

impl Datum {
    /// An example for cross_entropy.
    pub fn cross_entropy(tokens: Vec<i32>, target_tokens: Vec<i64>, weights: Vec<f32>) -> Self {
        Self {
            model_input: ModelInput::from_ints(tokens),
            loss_fn_inputs: BTreeMap::from([
                ("target_tokens".to_owned(), TensorData::int64(target_tokens)),
                ("weights".to_owned(), TensorData::float32(weights)),
            ]),
            provenance: None,
        }
    }

    /// Bytes as the SDK estimates them for chunking: those of the input, plus the loss inputs.
    pub fn estimated_bytes(&self) -> usize {
        self.model_input.estimated_bytes()
            + self.loss_fn_inputs.values().map(TensorData::estimated_bytes).sum::<usize>()
    }

    /// The same with dense tensors only: cells that a sparse one does not list are 0.
    ///
    /// # Errors
    /// If a sparse tensor's indices do not fit.
    pub fn to_dense(mut self) -> Result<Self, DatumError> {
        for (field, tensor) in &mut self.loss_fn_inputs {
            if tensor.sparse.is_some() {
                let dense = tensor.to_dense();
                *tensor = dense.map_err(|source| DatumError::Tensor { field: field.clone(), source })?;
            }
        }
        Ok(self)
    }

    /// The spans of its provenance in their protobuf form: those of the input, and those of the loss's rows.
    pub fn spans_to_proto(&self) -> [Vec<proto::ProvenanceSpan>; 2] {
        let spans = |of: fn(&Provenance) -> &[ProvenanceSpan]| {
            self.provenance.iter().flat_map(of).map(ProvenanceSpan::to_proto).collect()
        };
        [
            spans(|provenance| &provenance.model_input_spans),
            spans(|provenance| &provenance.loss_fn_input_spans),
        ]
    }

    /// The protobuf form.
    ///
    /// # Errors
    /// If the input has a piece that the form has no place for.
    pub fn to_proto(&self) -> Result<proto::Datum, DatumError> {
        let [model_input_spans, loss_fn_input_spans] = self.spans_to_proto();
        Ok(proto::Datum {
            model_input: self
                .model_input
                .chunks
                .iter()
                .map(ModelInputChunk::to_proto)
                .collect::<Result<_, _>>()?,
            loss_fn_inputs: self.loss_fn_inputs.iter().map(|(k, v)| (k.clone(), v.to_proto())).collect(),
            model_input_spans,
            loss_fn_input_spans,
        })
    }

    /// Reads the protobuf form.
    pub fn from_proto(datum: &proto::Datum) -> Result<Self, DatumError> {
        let chunks = datum.model_input.iter().map(ModelInputChunk::from_proto).collect::<Result<_, _>>()?;
        let mut loss_fn_inputs = BTreeMap::new();
        for (field, value) in &datum.loss_fn_inputs {
            let value = TensorData::from_proto(value)
                .map_err(|source| DatumError::Tensor { field: field.clone(), source })?;
            loss_fn_inputs.insert(field.clone(), value);
        }
        let spans = |spans: &[proto::ProvenanceSpan]| {
            spans.iter().map(ProvenanceSpan::from_proto).collect::<Result<Vec<_>, _>>()
        };
        let provenance = Provenance {
            model_input_spans: spans(&datum.model_input_spans)?,
            loss_fn_input_spans: spans(&datum.loss_fn_input_spans)?,
        };
        let provenance = (provenance != Provenance::default()).then_some(provenance);
        Ok(Self { model_input: ModelInput { chunks }, loss_fn_inputs, provenance })
    }
}

/// Why a datum cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatumError {
    /// A kind of model input that there is no place for.
    #[error("model input of kind '{0}' is not supported")]
    Unsupported(&'static str),
    /// A picture that is neither of the two formats there are.
    #[error("image format '{0}' is not known; known: png, jpeg")]
    ImageFormat(String),
    /// A span of neither kind, or with a negative number.
    #[error("a provenance span is malformed")]
    Span,
    /// A tensor is malformed.
    #[error("{field}: {source}")]
    Tensor {
        /// Which.
        field: String,
        /// How.
        source: TensorError,
    },
}

/// AdamW's settings of one step; defaults are the SDK's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdamParams {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Bound on the gradient's global norm; 0 = none.
    pub grad_clip_norm: f64,
}

impl Default for AdamParams {
    fn default() -> Self {
        Self {
            learning_rate: 1e-4,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-12,
            weight_decay: 0.0,
            grad_clip_norm: 0.0,
        }
    }
}

/// Dimuon's settings of one step; defaults are the SDK's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DimuonParams {
    /// Step size; not negative.
    pub learning_rate: f64,
    /// Bound on the gradient's global norm; 0 = none.
    #[serde(default)]
    pub grad_clip_norm: f64,
    /// Decay of the momentum; from 0 to less than 1.
    #[serde(default = "dimuon_beta1")]
    pub beta1: f64,
}

fn dimuon_beta1() -> f64 {
    0.9
}

impl DimuonParams {
    /// With this step size, and the defaults.
    pub fn new(learning_rate: f64) -> Self {
        Self { learning_rate, grad_clip_norm: 0.0, beta1: dimuon_beta1() }
    }
}

/// The settings of one step, of the optimizer that the run was made with.
#[derive(Debug, Clone, PartialEq)]
pub enum OptimParams {
    /// AdamW's.
    Adam(AdamParams),
    /// Dimuon's.
    Dimuon(DimuonParams),
    /// Those of an optimizer that this version does not know; `type` names it.
    Other(serde_json::Map<String, serde_json::Value>),
}

impl From<AdamParams> for OptimParams {
    fn from(params: AdamParams) -> Self {
        Self::Adam(params)
    }
}

impl From<DimuonParams> for OptimParams {
    fn from(params: DimuonParams) -> Self {
        Self::Dimuon(params)
    }
}

/// `POST /api/v1/optim_step`; a future. Without any settings it is AdamW with its defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimStepRequest {
    /// The step's settings, of AdamW.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adam_params: Option<AdamParams>,
    /// The same of another optimizer, tagged by `type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_params: Option<serde_json::Map<String, serde_json::Value>>,
    /// The run.
    pub model_id: String,
    /// The request's number.
    #[serde(default)]
    pub seq_id: Option<u64>,
    /// Always `optim_step`.
    #[serde(rename = "type", default = "optim_step_type")]
    pub kind: String,
}

impl OptimStepRequest {
    /// A step of this run.
    pub fn new(model_id: impl Into<String>, seq_id: u64, params: OptimParams) -> Self {
        let (adam_params, optimizer_params) = match params {
            OptimParams::Adam(params) => (Some(params), None),
            OptimParams::Dimuon(DimuonParams { learning_rate, grad_clip_norm, beta1 }) => {
                let members = [
                    ("type", serde_json::Value::from("dimuon")),
                    ("learning_rate", learning_rate.into()),
                    ("grad_clip_norm", grad_clip_norm.into()),
                    ("beta1", beta1.into()),
                ];
                (None, Some(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
            }
            OptimParams::Other(members) => (None, Some(members)),
        };
        let (model_id, seq_id) = (model_id.into(), Some(seq_id));
        Self { adam_params, optimizer_params, model_id, seq_id, kind: optim_step_type() }
    }
}

/// The value of [`OptimStepRequest::kind`].
pub fn optim_step_type() -> String {
    "optim_step".to_owned()
}

/// What the future of `optim_step` resolves to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OptimStepResult {
    /// What the server measured; names are its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
}

/// `POST /api/v1/create_custom_loss`; a future. Only of servers that say `custom_loss_server_side`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateCustomLossRequest {
    /// The session whose runs can be trained with it.
    pub session_id: String,
    /// The loss's number in the session, from 0.
    pub custom_loss_seq_id: u64,
    /// A name for people.
    pub name: String,
    /// What it reads, in order; `logprobs` first.
    pub inputs: Vec<CustomLossInput>,
    /// What it computes: `{"format": 1, "nodes": [..]}`, as torch.fx traces it (see `CustomLossGraph` of the official SDK).
    pub graph: serde_json::Value,
    /// Always `create_custom_loss`.
    #[serde(rename = "type", default = "create_custom_loss_type")]
    pub kind: String,
}

/// The value of [`CreateCustomLossRequest::kind`].
pub fn create_custom_loss_type() -> String {
    "create_custom_loss".to_owned()
}

/// One input of a custom loss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomLossInput {
    /// `logprobs`, or the name of a loss input of the data.
    pub name: String,
    /// 0 for a scalar, 1 for a value at each position, 2 for several.
    pub rank: u8,
}

/// What the future of `create_custom_loss` resolves to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateCustomLossResult {
    /// What passes name it by: their `loss_fn` is `custom`, and `loss_id` in their settings is this.
    pub loss_id: String,
}

/// The outputs of one datum, by name: `logprobs`, `elementwise_loss`.
pub type LossFnOutput = BTreeMap<String, TensorData>;

/// The result of a forward pass.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ForwardBackwardOutput {
    /// What kind of outputs.
    #[serde(default)]
    pub loss_fn_output_type: String,
    /// One per datum, in order.
    #[serde(default)]
    pub loss_fn_outputs: Vec<LossFnOutput>,
    /// Sums and means, by name.
    #[serde(default)]
    pub metrics: Metrics,
}

impl ForwardBackwardOutput {
    /// The protobuf form: one record for each stretch of datums whose outputs have the same trailing shapes. Every datum
    /// has the fields of the first; float32 only.
    pub fn to_proto(&self) -> proto::ForwardBackwardOutput {
        let alike =
            |a: &LossFnOutput, b: &LossFnOutput| a.values().map(trailing).eq(b.values().map(trailing));
        proto::ForwardBackwardOutput {
            loss_fn_output_type: self.loss_fn_output_type.clone(),
            loss_fn_outputs: self.loss_fn_outputs.chunk_by(alike).map(record).collect(),
            metrics: self.metrics.iter().map(|(k, v)| (k.clone(), *v)).collect(),
        }
    }

    /// Reads the protobuf form.
    pub fn from_proto(message: &proto::ForwardBackwardOutput) -> Result<Self, TensorError> {
        let mut outputs: Vec<LossFnOutput> = Vec::new();
        for record in &message.loss_fn_outputs {
            let start = outputs.len();
            let slices = record
                .fields
                .values()
                .next()
                .map_or(Ok(0), |f| tensor::i64_values(&f.offsets).map(|o| o.len().saturating_sub(1)))?;
            let stated = usize::try_from(record.num_datums).unwrap_or(0);
            // A record without fields cannot be checked against its data: its claim is bounded instead.
            let count = if record.fields.is_empty() { stated.min(1 << 20) } else { slices };
            if !record.fields.is_empty() && stated != 0 && stated != slices {
                return Err(TensorError::Offsets("num_datums".to_owned()));
            }
            outputs.resize_with(start + count, LossFnOutput::new);
            for (name, field) in &record.fields {
                let bad = || TensorError::Offsets(name.clone());
                let offsets = tensor::i64_values(&field.offsets)?;
                if offsets.len() != count + 1 {
                    return Err(bad());
                }
                for (output, bounds) in outputs.iter_mut().skip(start).zip(offsets.windows(2)) {
                    let &[from, to] = bounds else { return Err(bad()) };
                    let range = usize::try_from(from).ok().zip(usize::try_from(to).ok()).ok_or_else(bad)?;
                    let bytes = field.data.get(range.0..range.1).ok_or_else(bad)?;
                    output.insert(name.clone(), batched_values(field, bytes)?);
                }
            }
        }
        // As the official SDK names it: in full, or by a word for anything, where there is nothing of that type.
        let kind = match (message.loss_fn_outputs.is_empty(), message.loss_fn_output_type.as_str()) {
            (true, "") => "ArrayRecord",
            (true, kind) => kind,
            (false, kind) => kind.rsplit(':').next().unwrap_or_default(),
        };
        Ok(Self {
            loss_fn_output_type: kind.to_owned(),
            loss_fn_outputs: outputs,
            metrics: message.metrics.iter().map(|(k, v)| (k.clone(), *v)).collect(),
        })
    }
}

/// A tensor's dimensions but the first.
fn trailing(tensor: &TensorData) -> &[u64] {
    tensor.shape.as_deref().and_then(|shape| shape.get(1..)).unwrap_or_default()
}

/// One record of outputs that are shaped alike.
fn record(outputs: &[LossFnOutput]) -> proto::ArrayRecord {
    let mut fields = std::collections::HashMap::new();
    for (name, first) in outputs.first().into_iter().flatten() {
        let (mut data, mut offsets) = (Vec::new(), vec![0i64]);
        for output in outputs {
            if let Some(tensor) = output.get(name) {
                data.extend(tensor::f32_bytes(&tensor.to_f32()));
            }
            offsets.push(data.len() as i64);
        }
        fields.insert(
            name.clone(),
            proto::BatchedTensor {
                data: data.into(),
                offsets: tensor::i64_bytes(&offsets).into(),
                dtype: proto::DType::Float32 as i32,
                trailing_shape: trailing(first).iter().map(|&size| size as i64).collect(),
            },
        );
    }
    proto::ArrayRecord { type_tag: String::new(), fields, num_datums: outputs.len() as i64 }
}

fn batched_values(field: &proto::BatchedTensor, bytes: &[u8]) -> Result<TensorData, TensorError> {
    let values = TensorValues::from_bytes(field.dtype, bytes)?;
    let mut tensor = TensorData { values, shape: None, sparse: None };
    if !field.trailing_shape.is_empty() {
        let elements = tensor.len() as u64;
        let bad = || TensorError::Shape { shape: field.trailing_shape.clone(), elements: tensor.len() };
        let trailing = field.trailing_shape.iter().map(|&size| u64::try_from(size));
        let trailing = trailing.collect::<Result<Vec<_>, _>>().map_err(|_| bad())?;
        let row = trailing.iter().try_fold(1u64, |n, &size| n.checked_mul(size)).ok_or_else(bad)?;
        // Rows of nothing are none, as the official SDK counts them.
        let rows = elements.checked_div(row).unwrap_or_default();
        if rows * row != elements {
            return Err(bad());
        }
        tensor.shape = Some(std::iter::once(rows).chain(trailing).collect());
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_round_trips_through_protobuf() {
        let output = ForwardBackwardOutput {
            loss_fn_output_type: "CrossEntropyLossReturn".into(),
            loss_fn_outputs: vec![
                BTreeMap::from([("logprobs".to_owned(), TensorData::float32(vec![-1.0, -2.0]))]),
                BTreeMap::from([("logprobs".to_owned(), TensorData::float32(vec![-3.0]))]),
            ],
            metrics: Metrics::from([("loss:sum".to_owned(), 6.0)]),
        };
        assert_eq!(ForwardBackwardOutput::from_proto(&output.to_proto()).unwrap(), output);
    }

    #[test]
    fn outputs_of_several_widths_keep_their_shapes() {
        let wide = |rows: u64, width: u64| TensorData {
            shape: Some(vec![rows, width]),
            ..TensorData::float32((0..rows * width).map(|i| i as f32).collect())
        };
        let outputs = [wide(2, 3), wide(4, 3), wide(2, 2), TensorData::float32(vec![1.0])];
        let output = ForwardBackwardOutput {
            loss_fn_outputs: outputs.map(|t| BTreeMap::from([("logprobs".to_owned(), t)])).into(),
            ..Default::default()
        };
        let message = output.to_proto();
        let counts: Vec<i64> = message.loss_fn_outputs.iter().map(|record| record.num_datums).collect();
        assert_eq!(counts, [2, 1, 1]);
        assert_eq!(ForwardBackwardOutput::from_proto(&message).unwrap(), output);
    }

    #[test]
    fn offsets_out_of_range_are_an_error() {
        let mut message = ForwardBackwardOutput {
            loss_fn_outputs: vec![BTreeMap::from([("logprobs".to_owned(), TensorData::float32(vec![1.0]))])],
            ..Default::default()
        }
        .to_proto();
        message.loss_fn_outputs[0].fields.get_mut("logprobs").unwrap().offsets =
            tensor::i64_bytes(&[0, 400]).into();
        assert!(ForwardBackwardOutput::from_proto(&message).is_err());
    }

    #[test]
    fn a_shape_is_that_of_its_data() {
        let read = |trailing_shape: &[i64], count: usize| {
            let field = proto::BatchedTensor {
                dtype: proto::DType::Float32 as i32,
                trailing_shape: trailing_shape.to_vec(),
                ..Default::default()
            };
            batched_values(&field, &tensor::f32_bytes(&vec![1.0; count])).map(|tensor| tensor.shape)
        };
        assert_eq!(read(&[], 6), Ok(None));
        assert_eq!(read(&[3], 6), Ok(Some(vec![2, 3])));
        assert_eq!(read(&[0, 3], 0), Ok(Some(vec![0, 0, 3])));
        for (shape, count) in [(&[4][..], 6), (&[0], 6), (&[-3], 6), (&[-3], 0), (&[i64::MAX, i64::MAX], 0)] {
            assert!(matches!(read(shape, count), Err(TensorError::Shape { .. })), "{shape:?}");
        }
    }

    #[test]
    fn datum_round_trips_through_protobuf() {
        let datum = Datum::cross_entropy(vec![1, 2, 3], vec![2, 3, 4], vec![0.0, 1.0, 1.0]);
        let back = Datum::from_proto(&datum.to_proto().unwrap()).unwrap();
        assert_eq!(back.model_input, datum.model_input);
        assert_eq!(back.loss_fn_inputs["weights"].to_f32(), vec![0.0, 1.0, 1.0]);
        assert_eq!(datum.estimated_bytes(), 12 + 24 + 12);
    }

    #[test]
    fn each_optimizers_settings_have_their_member() {
        let sent = |params: OptimParams| serde_json::to_value(OptimStepRequest::new("m", 1, params)).unwrap();
        let adam = sent(AdamParams::default().into());
        assert_eq!(adam["adam_params"]["beta2"], 0.95);
        assert_eq!(adam.get("optimizer_params"), None);
        let dimuon = sent(DimuonParams::new(0.5).into());
        let settings =
            serde_json::json!({"type": "dimuon", "learning_rate": 0.5, "grad_clip_norm": 0.0, "beta1": 0.9});
        assert_eq!(dimuon["optimizer_params"], settings);
        assert_eq!(dimuon.get("adam_params"), None);
        let bare: OptimStepRequest = serde_json::from_str(r#"{"model_id": "m"}"#).unwrap();
        assert_eq!((bare.adam_params, bare.optimizer_params), (None, None));
    }

    #[test]
    fn adam_defaults_are_the_sdks() {
        let json = serde_json::to_string(&AdamParams::default()).unwrap();
        assert_eq!(
            json,
            r#"{"learning_rate":0.0001,"beta1":0.9,"beta2":0.95,"eps":1e-12,"weight_decay":0.0,"grad_clip_norm":0.0}"#
        );
    }
}
