//! Sampling: requests, results in both encodings, and the poller of many results at once.

use bytes::Bytes;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::open_enum::open_enum;
use crate::proto::{self, tensor::Encoding};
use crate::tensor::{
    TensorData, TensorError, TensorValues, f32_bytes, f32_values, i32_bytes, i32_values, i64_bytes,
    i64_values,
};

/// Log-probability in the empty cells of [`TopkLogprobs`].
pub const EMPTY_LOGPROB: f32 = -99999.0;

/// A cell with nothing in it.
const EMPTY: (u32, f32) = (0, EMPTY_LOGPROB);

/// Sampling requests of one client are numbered within a block of so many; the block tells which clone of the client
/// sent them.
pub const CLONE_BLOCK: u64 = 1_000_000_000;

/// What ends a sample beside its length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Stop {
    /// A text.
    Text(String),
    /// Tokens. An empty list is one of these: nothing ends the sample.
    Tokens(Vec<i64>),
    /// Texts.
    Texts(Vec<String>),
}

/// How tokens are chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplingParams {
    /// The most tokens; absent = up to the model's context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<i64>,
    /// The same seed draws the same tokens; absent = any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i128>,
    /// What ends a sample; absent = the model's own end token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// What logits are divided by; 0 = the most probable token.
    pub temperature: f64,
    /// Only so many of the most probable tokens; -1 = all.
    pub top_k: i64,
    /// Only the most probable tokens with this share together; 1 = all.
    pub top_p: f64,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self { max_tokens: None, seed: None, stop: None, temperature: 1.0, top_k: -1, top_p: 1.0 }
    }
}

/// A piece of a prompt. All kinds are read, so that a request with one that a server does not know is a bad request and
/// not a malformed one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptChunk {
    /// `encoded_text`, `image` and so on; older clients leave it away.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Token ids, of text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<i64>>,
}

/// What the model reads first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prompt {
    /// The pieces, in order.
    pub chunks: Vec<PromptChunk>,
}

/// Tokens to score at each prompt position after the first: a matrix, with -1 in cells that are of no interest; or only
/// the cells of interest, in compressed rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetTokens {
    /// Row by row.
    pub data: Vec<i64>,
    /// Always `int64`.
    pub dtype: String,
    /// Rows and columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u64>>,
    /// Where each row starts, in compressed rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse_crow_indices: Option<Vec<i64>>,
    /// Each cell's column, in compressed rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse_col_indices: Option<Vec<i64>>,
}

impl TargetTokens {
    /// `columns` tokens for each position, position by position.
    pub fn new(data: Vec<i64>, columns: u64) -> Self {
        let rows = (data.len() as u64).checked_div(columns).unwrap_or_default();
        Self {
            data,
            dtype: "int64".to_owned(),
            shape: Some(vec![rows, columns]),
            sparse_crow_indices: None,
            sparse_col_indices: None,
        }
    }
}

fn one() -> i64 {
    1
}

/// `POST /api/v1/asample`; a future. Addressed by sampling session and number, by older clients by model. A server reads
/// any [`Prompt`]; a client sends a [`ModelInput`](crate::input::ModelInput).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AsampleRequest<P = Prompt> {
    /// How many samples.
    #[serde(default = "one")]
    pub num_samples: i64,
    /// What the model reads first.
    pub prompt: P,
    /// How tokens are chosen.
    #[serde(default)]
    pub sampling_params: SamplingParams,
    /// The base model to sample from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    /// The weights to sample from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_path: Option<String>,
    /// The sampling session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling_session_id: Option<String>,
    /// The request's number within it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq_id: Option<u64>,
    /// Score the prompt's tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs: Option<bool>,
    /// So many of the most probable tokens at each prompt position.
    #[serde(default)]
    pub topk_prompt_logprobs: i64,
    /// So many of the most probable tokens at each sampled position.
    #[serde(default)]
    pub topk_sample_logprobs: i64,
    /// Score these tokens at the prompt's positions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_prompt_logprobs: Option<TargetTokens>,
    /// Draw so many tokens at each prompt position.
    #[serde(default)]
    pub prompt_alt_tokens_k: i64,
    /// Score only so many of the prompt's last tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_logprobs_last_n: Option<i64>,
    /// Record at the service what the loss `stable_reinforce` needs of the sample. Left out where it is not wanted: some
    /// servers refuse the member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_stability_info: Option<bool>,
    /// Always `sample`.
    #[serde(rename = "type", default = "sample_type")]
    pub kind: String,
}

/// The value of [`AsampleRequest::kind`].
pub fn sample_type() -> String {
    "sample".to_owned()
}

/// The answer of `asample`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleFuture {
    /// What to ask `retrieve_future` for.
    pub request_id: String,
    /// One name per sample; servers older than the names give none.
    #[serde(default)]
    pub sample_sequence_ids: Vec<String>,
}

open_enum! {
    /// Why a sample ended.
    StopReason {
        /// Something that was to end it came.
        Stop = "stop",
        /// It is as long as it may be.
        Length = "length",
    }
}

impl StopReason {
    /// Reads the protobuf form. A reason that this version does not know keeps its number.
    fn from_proto(number: i32) -> Self {
        match proto::StopReason::try_from(number) {
            Ok(proto::StopReason::Stop) => Self::Stop,
            Ok(proto::StopReason::Length) => Self::Length,
            Err(_) => Self::Other(number.to_string()),
        }
    }

    fn to_proto(&self) -> i32 {
        match self {
            Self::Stop => proto::StopReason::Stop as i32,
            Self::Length => proto::StopReason::Length as i32,
            Self::Other(number) => number.parse().unwrap_or_default(),
        }
    }
}

/// The most probable tokens of several positions. A row with nothing in it was not computed.
#[derive(Debug, Clone, PartialEq)]
pub struct TopkLogprobs {
    /// How many were asked for.
    pub k: usize,
    /// By position, the most probable first; at most `k` each.
    pub rows: Vec<Vec<(u32, f32)>>,
}

impl TopkLogprobs {
    /// The protobuf form.
    pub fn to_proto(&self) -> proto::TopkLogprobs {
        let cells = || {
            let row = |row: &'_ Vec<(u32, f32)>| {
                let empty = std::iter::repeat_n(EMPTY, self.k.saturating_sub(row.len()));
                row.iter().copied().chain(empty).collect::<Vec<_>>()
            };
            self.rows.iter().flat_map(row)
        };
        let tokens: Vec<i32> = cells().map(|(token, _)| token as i32).collect();
        let logprobs: Vec<f32> = cells().map(|(_, logprob)| logprob).collect();
        proto::TopkLogprobs {
            token_ids: i32_bytes(&tokens).into(),
            logprobs: f32_bytes(&logprobs).into(),
            k: self.k as u32,
            length: self.rows.len() as u32,
        }
    }

    /// Reads the protobuf form. A row that begins with an empty cell was not computed; empty cells at a row's end are left
    /// out.
    pub fn from_proto(matrix: &proto::TopkLogprobs) -> Result<Self, TensorError> {
        let (tokens, logprobs) = (i32_values(&matrix.token_ids)?, f32_values(&matrix.logprobs)?);
        let (k, length) = (matrix.k as usize, matrix.length as usize);
        if k.checked_mul(length) != Some(tokens.len()) || tokens.len() != logprobs.len() {
            let shape = vec![i64::from(matrix.length), i64::from(matrix.k)];
            return Err(TensorError::Shape { shape, elements: tokens.len().min(logprobs.len()) });
        }
        if k == 0 {
            // However many rows of nothing it claims to have.
            return Ok(Self { k, rows: Vec::new() });
        }
        let rows = tokens.chunks_exact(k).zip(logprobs.chunks_exact(k)).map(|(tokens, logprobs)| {
            let cells = tokens.iter().zip(logprobs);
            let mut row: Vec<_> = cells.map(|(token, logprob)| (token.cast_unsigned(), *logprob)).collect();
            if row.first() == Some(&EMPTY) {
                row.clear();
            }
            while row.last() == Some(&EMPTY) {
                row.pop();
            }
            row
        });
        Ok(Self { k, rows: rows.collect() })
    }

    fn cells(&self) -> usize {
        self.rows.len() * self.k
    }
}

/// Reads a matrix that may be missing. To the official SDK one without cells is missing, too.
fn topk_from_proto(matrix: &Option<proto::TopkLogprobs>) -> Result<Option<TopkLogprobs>, TensorError> {
    let matrix = matrix.as_ref().filter(|matrix| matrix.k != 0 && matrix.length != 0);
    matrix.map(TopkLogprobs::from_proto).transpose()
}

/// `[[token, logprob], ..]` by position, `null` where nothing was computed.
impl Serialize for TopkLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.rows.len()))?;
        for row in &self.rows {
            rows.serialize_element(&(!row.is_empty()).then_some(row))?;
        }
        rows.end()
    }
}

impl<'de> Deserialize<'de> for TopkLogprobs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rows = Vec::<Option<Vec<(u32, f32)>>>::deserialize(deserializer)?;
        let rows: Vec<Vec<(u32, f32)>> = rows.into_iter().map(Option::unwrap_or_default).collect();
        Ok(Self { k: rows.iter().map(Vec::len).max().unwrap_or(0), rows })
    }
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampledSequence {
    /// Why it ended.
    pub stop_reason: StopReason,
    /// Its tokens; what ended it is among them.
    pub tokens: Vec<u32>,
    /// Natural logarithms of the tokens' probabilities, at temperature 1 and with nothing left out; empty where a server
    /// gives none.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub logprobs: Vec<f32>,
    /// The most probable tokens at each position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topk_logprobs: Option<TopkLogprobs>,
    /// Its name, one of the submission's `sample_sequence_ids`. A result does not carry it; clients add it.
    #[serde(skip)]
    pub sequence_id: Option<String>,
}

/// Log-probabilities of [`TargetTokens`], in the same shape and layout; 0 where there was -1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetLogprobs {
    /// Row by row.
    pub data: Vec<f32>,
    /// Always `float32`.
    #[serde(skip_deserializing, default = "float32")]
    pub dtype: &'static str,
    /// Rows and columns.
    #[serde(default)]
    pub shape: Vec<u64>,
    /// Where each row starts, in compressed rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse_crow_indices: Option<Vec<i64>>,
    /// Each cell's column, in compressed rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse_col_indices: Option<Vec<i64>>,
}

fn float32() -> &'static str {
    "float32"
}

impl TargetLogprobs {
    /// Reads the protobuf form.
    pub fn from_proto(tensor: &proto::Tensor) -> Result<Self, TensorError> {
        let floats = |bytes: &[u8]| match TensorValues::from_bytes(tensor.dtype, bytes)? {
            TensorValues::Float32(values) => Ok(values),
            TensorValues::Int64(_) => Err(TensorError::Dtype(tensor.dtype)),
        };
        let (data, crow, col) = match &tensor.encoding {
            Some(Encoding::Dense(bytes)) => (floats(bytes)?, None, None),
            Some(Encoding::SparseCsr(csr)) => {
                let (crow, col) = (i64_values(&csr.crow_indices)?, i64_values(&csr.col_indices)?);
                (floats(&csr.values)?, Some(crow), Some(col))
            }
            None => return Err(TensorError::Missing),
        };
        let shape = tensor.shape.iter().map(|&side| u64::try_from(side).unwrap_or_default()).collect();
        Ok(Self { data, dtype: float32(), shape, sparse_crow_indices: crow, sparse_col_indices: col })
    }

    /// The protobuf form.
    pub fn to_proto(&self) -> proto::Tensor {
        let values: Bytes = f32_bytes(&self.data).into();
        let encoding = match (&self.sparse_crow_indices, &self.sparse_col_indices) {
            (Some(crow), Some(col)) => Encoding::SparseCsr(proto::SparseCsr {
                values,
                crow_indices: i64_bytes(crow).into(),
                col_indices: i64_bytes(col).into(),
            }),
            _ => Encoding::Dense(values),
        };
        proto::Tensor {
            encoding: Some(encoding),
            dtype: proto::DType::Float32 as i32,
            shape: self.shape.iter().map(|&side| side as i64).collect(),
        }
    }
}

/// Tokens drawn for each prompt position after the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptAltTokens {
    /// Token ids.
    pub tokens: TensorData,
    /// Their log-probabilities.
    pub logprobs: TensorData,
}

/// The result of sampling. As JSON it is what SDKs up to 0.24 read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleResponse {
    /// One per sample, in order.
    pub sequences: Vec<SampledSequence>,
    /// One per prompt token; NaN, as JSON null, where there is none.
    #[serde(
        default,
        serialize_with = "nan_as_null",
        deserialize_with = "null_as_nan",
        skip_serializing_if = "Option::is_none"
    )]
    pub prompt_logprobs: Option<Vec<f32>>,
    /// One row per prompt token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topk_prompt_logprobs: Option<TopkLogprobs>,
    /// Scores of the tokens that were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_prompt_logprobs: Option<TargetLogprobs>,
    /// Other tokens drawn for the prompt's positions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_alt_tokens: Option<PromptAltTokens>,
    /// How many of the prompt's tokens were in a cache already.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub prompt_cache_hit_tokens: u32,
    /// Always `sample`.
    #[serde(rename = "type", skip_deserializing, default = "sample")]
    pub kind: &'static str,
}

fn sample() -> &'static str {
    "sample"
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}

fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
    Ok(null_as_nan(deserializer)?.unwrap_or_default())
}

fn null_as_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<f32>>, D::Error> {
    let values = Option::<Vec<Option<f32>>>::deserialize(deserializer)?;
    Ok(values.map(|values| values.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect()))
}

fn nan_as_null<S: Serializer>(values: &Option<Vec<f32>>, serializer: S) -> Result<S::Ok, S::Error> {
    let values = values.as_deref().unwrap_or_default();
    serializer.collect_seq(values.iter().map(|value| (!value.is_nan()).then_some(*value)))
}

impl SampleResponse {
    /// The protobuf form.
    pub fn to_proto(&self) -> proto::SampleResponse {
        let sequences = self.sequences.iter().map(|sequence| {
            let tokens: Vec<i32> = sequence.tokens.iter().map(|&token| token as i32).collect();
            proto::SampledSequence {
                stop_reason: sequence.stop_reason.to_proto(),
                tokens: i32_bytes(&tokens).into(),
                logprobs: Some(f32_bytes(&sequence.logprobs).into()),
                topk_sampled_logprobs: sequence.topk_logprobs.as_ref().map(TopkLogprobs::to_proto),
            }
        });
        proto::SampleResponse {
            sequences: sequences.collect(),
            prompt_logprobs: self.prompt_logprobs.as_ref().map(|values| f32_bytes(values).into()),
            topk_prompt_logprobs: self.topk_prompt_logprobs.as_ref().map(TopkLogprobs::to_proto),
            prompt_cache_hit_tokens: i32::try_from(self.prompt_cache_hit_tokens).unwrap_or(i32::MAX),
            target_prompt_logprobs: self.target_prompt_logprobs.as_ref().map(TargetLogprobs::to_proto),
            prompt_alt_tokens: self.prompt_alt_tokens.as_ref().map(|drawn| proto::PromptAltTokens {
                tokens: Some(drawn.tokens.to_proto()),
                logprobs: Some(drawn.logprobs.to_proto()),
            }),
        }
    }

    /// Reads the protobuf form.
    pub fn from_proto(response: &proto::SampleResponse) -> Result<Self, TensorError> {
        let sequences = response.sequences.iter().map(|sequence| {
            let tokens = i32_values(&sequence.tokens)?.into_iter().map(i32::cast_unsigned).collect();
            let logprobs = sequence.logprobs.as_deref().map(f32_values).transpose()?;
            let topk_logprobs = topk_from_proto(&sequence.topk_sampled_logprobs)?;
            let stop_reason = StopReason::from_proto(sequence.stop_reason);
            let logprobs = logprobs.unwrap_or_default();
            Ok(SampledSequence { stop_reason, tokens, logprobs, topk_logprobs, sequence_id: None })
        });
        let prompt_alt_tokens = match &response.prompt_alt_tokens {
            Some(proto::PromptAltTokens { tokens: Some(tokens), logprobs: Some(logprobs) }) => {
                let (tokens, logprobs) = (TensorData::from_proto(tokens)?, TensorData::from_proto(logprobs)?);
                Some(PromptAltTokens { tokens, logprobs })
            }
            Some(_) => return Err(TensorError::Missing),
            None => None,
        };
        Ok(Self {
            sequences: sequences.collect::<Result<_, TensorError>>()?,
            prompt_logprobs: response.prompt_logprobs.as_deref().map(f32_values).transpose()?,
            topk_prompt_logprobs: topk_from_proto(&response.topk_prompt_logprobs)?,
            target_prompt_logprobs: response
                .target_prompt_logprobs
                .as_ref()
                .map(TargetLogprobs::from_proto)
                .transpose()?,
            prompt_alt_tokens,
            prompt_cache_hit_tokens: u32::try_from(response.prompt_cache_hit_tokens).unwrap_or_default(),
            kind: sample(),
        })
    }

    /// About how much memory it takes.
    pub fn estimated_bytes(&self) -> usize {
        let topk = |topk: &Option<TopkLogprobs>| topk.as_ref().map_or(0, |topk| 8 * topk.cells());
        let sequences = self.sequences.iter();
        sequences
            .map(|sequence| 128 + 8 * sequence.tokens.len() + topk(&sequence.topk_logprobs))
            .sum::<usize>()
            + self.prompt_logprobs.as_ref().map_or(0, |values| 4 * values.len())
            + topk(&self.topk_prompt_logprobs)
            + self.target_prompt_logprobs.as_ref().map_or(0, |target| {
                let indices = [&target.sparse_crow_indices, &target.sparse_col_indices];
                4 * target.data.len() + indices.into_iter().flatten().map(|i| 8 * i.len()).sum::<usize>()
            })
            + self.prompt_alt_tokens.as_ref().map_or(0, |drawn| 12 * drawn.tokens.len())
    }
}

/// `POST /api/v1/cancel_future`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CancelFutureRequest {
    /// The future that nobody waits for any more.
    pub request_id: String,
}

/// Whose results a poller waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FuturesTarget {
    /// Those of one client of a sampling session.
    SamplingSession {
        /// The sampling session.
        sampling_session_id: String,
        /// Which client: the request's number divided by [`CLONE_BLOCK`].
        #[serde(default)]
        cloned_sampler_id: u64,
    },
}

/// `POST /api/v1/retrieve_futures`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RetrieveFuturesRequest {
    /// Whose results.
    pub target: FuturesTarget,
    /// Where the last answer ended; 0 at first.
    #[serde(default)]
    pub prev_cursor: u64,
    /// How many seconds to wait for news; absent = as the server likes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// Requests whose results were read.
    #[serde(default)]
    pub retrieved_request_ids: Vec<String>,
}

/// A request that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FutureCompletion {
    /// How it ended.
    pub state: CompletionState,
    /// Which.
    pub request_id: String,
    /// How large its result is, in bytes before compression, where the server says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_payload_uncompressed_size: Option<u64>,
}

open_enum! {
    /// How a request ended. Whatever it is, `retrieve_future` has the rest.
    CompletionState {
        /// It has a result.
        Finished = "finished",
        /// It failed.
        Failed = "failed",
    }
}

/// The answer of `retrieve_futures`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetrieveFuturesResponse {
    /// What was done since the cursor.
    pub completions: Vec<FutureCompletion>,
    /// Where this answer ends.
    pub cursor: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_sdks_request_is_read() {
        let body = r#"{"num_samples":2,"prompt":{"chunks":[{"tokens":[1,2],"type":"encoded_text"}]},"sampling_params":{"max_tokens":4,"stop":["x"],"temperature":0.7,"top_k":-1,"top_p":1.0},"sampling_session_id":"S:sample:0","seq_id":1000000000000000005,"prompt_logprobs":false,"topk_prompt_logprobs":0,"topk_sample_logprobs":0,"prompt_alt_tokens_k":0,"record_stability_info":false,"type":"sample"}"#;
        let request: AsampleRequest = serde_json::from_str(body).unwrap();
        assert_eq!((request.num_samples, request.seq_id), (2, Some(1_000_000_000_000_000_005)));
        assert_eq!(request.sampling_params.stop, Some(Stop::Texts(vec!["x".to_owned()])));
        assert_eq!(request.prompt.chunks[0].tokens.as_deref(), Some(&[1, 2][..]));
        let bare: AsampleRequest =
            serde_json::from_value(json!({"prompt": {"chunks": []}, "base_model": "m"})).unwrap();
        assert_eq!((bare.num_samples, bare.sampling_params), (1, SamplingParams::default()));
    }

    #[test]
    fn every_form_of_stop_is_told_apart() {
        let stop = |json: serde_json::Value| {
            let params: Result<SamplingParams, _> = serde_json::from_value(json!({"stop": json}));
            params.map(|params| params.stop)
        };
        assert_eq!(stop(json!(null)).unwrap(), None);
        assert_eq!(stop(json!("ab")).unwrap(), Some(Stop::Text("ab".to_owned())));
        assert_eq!(stop(json!(["a", "b"])).unwrap(), Some(Stop::Texts(vec!["a".into(), "b".into()])));
        assert_eq!(stop(json!([1, 2])).unwrap(), Some(Stop::Tokens(vec![1, 2])));
        assert_eq!(stop(json!([])).unwrap(), Some(Stop::Tokens(vec![])));
        assert!(stop(json!(["a", 1])).is_err());
        let seed = |text: &str| serde_json::from_str::<SamplingParams>(text).map(|params| params.seed);
        assert_eq!(seed(r#"{"seed":18446744073709551615}"#).unwrap(), Some(u64::MAX.into()));
        assert_eq!(seed(r#"{"seed":-3}"#).unwrap(), Some(-3));
    }

    fn response() -> SampleResponse {
        SampleResponse {
            sequences: vec![SampledSequence {
                stop_reason: StopReason::Length,
                tokens: vec![7, 257],
                logprobs: vec![-0.5, -1.25],
                topk_logprobs: None,
                sequence_id: None,
            }],
            prompt_logprobs: Some(vec![f32::NAN, -2.0]),
            topk_prompt_logprobs: Some(TopkLogprobs { k: 2, rows: vec![vec![], vec![(9, -0.25)]] }),
            target_prompt_logprobs: Some(TargetLogprobs {
                data: vec![-3.0],
                dtype: "float32",
                shape: vec![1, 4],
                sparse_crow_indices: Some(vec![0, 1]),
                sparse_col_indices: Some(vec![3]),
            }),
            prompt_alt_tokens: None,
            prompt_cache_hit_tokens: 0,
            kind: "sample",
        }
    }

    #[test]
    fn older_clients_read_the_result_as_json() {
        let json = serde_json::to_value(response()).unwrap();
        assert_eq!(
            json,
            json!({
                "type": "sample",
                "sequences": [{"stop_reason": "length", "tokens": [7, 257], "logprobs": [-0.5, -1.25]}],
                "prompt_logprobs": [null, -2.0],
                "topk_prompt_logprobs": [null, [[9, -0.25]]],
                "target_prompt_logprobs": {"data": [-3.0], "dtype": "float32", "shape": [1, 4],
                    "sparse_crow_indices": [0, 1], "sparse_col_indices": [3]},
            })
        );
    }

    #[test]
    fn the_protobuf_form_is_the_official_layout() {
        let proto = response().to_proto();
        assert_eq!(proto.sequences[0].stop_reason, 1);
        assert_eq!(proto.sequences[0].tokens, [7, 0, 0, 0, 1, 1, 0, 0][..]);
        let topk = proto.topk_prompt_logprobs.unwrap();
        assert_eq!((topk.k, topk.length), (2, 2));
        assert_eq!(crate::tensor::i32_values(&topk.token_ids).unwrap(), [0, 0, 9, 0]);
        let empty = EMPTY_LOGPROB;
        assert_eq!(crate::tensor::f32_values(&topk.logprobs).unwrap(), [empty, empty, -0.25, empty]);
        let prompt = crate::tensor::f32_values(&proto.prompt_logprobs.unwrap()).unwrap();
        assert!(prompt[0].is_nan() && prompt[1] == -2.0);
        assert!(matches!(proto.target_prompt_logprobs.unwrap().encoding, Some(Encoding::SparseCsr(_))));
    }

    #[test]
    fn both_forms_are_read_as_they_were_written() {
        let mut response = response();
        response.sequences[0].topk_logprobs =
            Some(TopkLogprobs { k: 1, rows: vec![vec![(0, -0.1)], vec![]] });
        response.prompt_alt_tokens = Some(PromptAltTokens {
            tokens: TensorData { shape: Some(vec![1, 2]), ..TensorData::int64(vec![5, 6]) },
            logprobs: TensorData { shape: Some(vec![1, 2]), ..TensorData::float32(vec![-1.0, -2.0]) },
        });
        response.prompt_cache_hit_tokens = 3;
        // JSON does not say how many were asked for; here a row has as many.
        response.topk_prompt_logprobs =
            Some(TopkLogprobs { k: 2, rows: vec![vec![], vec![(9, -0.25), (8, -1.5)]] });
        let same = |mut read: SampleResponse| {
            // NaN is equal to nothing.
            let scores = read.prompt_logprobs.replace(response.prompt_logprobs.clone().unwrap()).unwrap();
            assert!(scores[0].is_nan() && scores[1] == -2.0 && scores.len() == 2);
            read.prompt_logprobs = None;
            assert_eq!(read, SampleResponse { prompt_logprobs: None, ..response.clone() });
        };
        same(SampleResponse::from_proto(&response.to_proto()).unwrap());
        same(serde_json::from_str(&serde_json::to_string(&response).unwrap()).unwrap());
        let mut cut = response.to_proto();
        cut.topk_prompt_logprobs.as_mut().unwrap().k = u32::MAX;
        assert!(SampleResponse::from_proto(&cut).is_err());
    }

    #[test]
    fn only_the_cells_at_a_rows_end_are_left_out() {
        let empty = EMPTY_LOGPROB;
        let matrix = |k: u32, tokens: &[i32], logprobs: &[f32]| proto::TopkLogprobs {
            token_ids: i32_bytes(tokens).into(),
            logprobs: f32_bytes(logprobs).into(),
            k,
            length: 2,
        };
        let read = TopkLogprobs::from_proto(&matrix(
            3,
            &[0, 7, 0, 8, 0, 9],
            &[empty, -1.0, empty, -2.0, empty, -3.0],
        ));
        assert_eq!(read.unwrap().rows, [vec![], vec![(8, -2.0), EMPTY, (9, -3.0)]]);
        let none = proto::SampleResponse {
            topk_prompt_logprobs: Some(proto::TopkLogprobs { length: u32::MAX, ..matrix(0, &[], &[]) }),
            ..response().to_proto()
        };
        assert_eq!(SampleResponse::from_proto(&none).unwrap().topk_prompt_logprobs, None);
    }

    #[test]
    fn the_pollers_request_and_answer_are_the_sdks() {
        let request: RetrieveFuturesRequest = serde_json::from_value(json!({
            "target": {"type": "sampling_session", "sampling_session_id": "s", "cloned_sampler_id": 3},
            "prev_cursor": 5, "retrieved_request_ids": ["s:1"],
        }))
        .unwrap();
        let FuturesTarget::SamplingSession { sampling_session_id, cloned_sampler_id } = request.target;
        assert_eq!((sampling_session_id.as_str(), cloned_sampler_id), ("s", 3));
        let done = FutureCompletion {
            state: CompletionState::Finished,
            request_id: "s:1".into(),
            response_payload_uncompressed_size: None,
        };
        assert_eq!(serde_json::to_value(done).unwrap(), json!({"state": "finished", "request_id": "s:1"}));
    }
}
