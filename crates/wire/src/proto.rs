//! The protobuf messages of `tinker_public.proto`, by the field numbers in the official package, 0.38.0.

use std::collections::HashMap;

use bytes::Bytes;

/// The element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum DType {
    /// Not said: an error.
    Unspecified = 0,
    /// IEEE 754, 4 bytes.
    Float32 = 1,
    /// Signed, 8 bytes.
    Int64 = 2,
    /// Signed, 4 bytes.
    Int32 = 3,
    /// The upper 2 bytes of a float32.
    Bfloat16 = 4,
}

/// A tensor in a request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Tensor {
    /// The values.
    #[prost(oneof = "tensor::Encoding", tags = "1, 2")]
    pub encoding: Option<tensor::Encoding>,
    /// The element type, a [`DType`].
    #[prost(enumeration = "DType", tag = "3")]
    pub dtype: i32,
    /// The shape; empty = one dimension.
    #[prost(int64, repeated, tag = "4")]
    pub shape: Vec<i64>,
}

/// Parts of [`Tensor`].
pub mod tensor {
    use bytes::Bytes;

    /// How the values are laid out.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Encoding {
        /// All of them, row-major, little-endian.
        #[prost(bytes = "bytes", tag = "1")]
        Dense(Bytes),
        /// The listed cells of a matrix.
        #[prost(message, tag = "2")]
        SparseCsr(super::SparseCsr),
    }
}

/// A sparse matrix in compressed rows.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SparseCsr {
    /// The listed values, in the tensor's element type.
    #[prost(bytes = "bytes", tag = "1")]
    pub values: Bytes,
    /// Where each row starts: int64, rows + 1.
    #[prost(bytes = "bytes", tag = "2")]
    pub crow_indices: Bytes,
    /// Each value's column: int64.
    #[prost(bytes = "bytes", tag = "3")]
    pub col_indices: Bytes,
}

/// A setting of a loss function.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LossConfigValue {
    /// The setting.
    #[prost(oneof = "loss_config_value::Value", tags = "1, 2")]
    pub value: Option<loss_config_value::Value>,
}

/// Parts of [`LossConfigValue`].
pub mod loss_config_value {
    /// A number or a text.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        /// A number.
        #[prost(double, tag = "1")]
        Number(f64),
        /// A text.
        #[prost(string, tag = "2")]
        Text(String),
    }
}

/// The body of `forward_backward`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ForwardBackwardRequest {
    /// The run.
    #[prost(string, tag = "1")]
    pub model_id: String,
    /// The request's number, from 1.
    #[prost(int32, tag = "2")]
    pub seq_id: i32,
    /// The batch.
    #[prost(message, repeated, tag = "3")]
    pub data: Vec<Datum>,
    /// The loss function's name.
    #[prost(string, tag = "4")]
    pub loss_fn: String,
    /// Numeric settings only; older servers read these.
    #[prost(map = "string, double", tag = "5")]
    pub loss_fn_config: HashMap<String, f64>,
    /// No gradient.
    #[prost(bool, tag = "6")]
    pub forward_only: bool,
    /// All settings; preferred when not empty.
    #[prost(map = "string, message", tag = "7")]
    pub loss_fn_config_v2: HashMap<String, LossConfigValue>,
}

/// One training example.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Datum {
    /// What the model reads.
    #[prost(message, repeated, tag = "1")]
    pub model_input: Vec<Chunk>,
    /// What the loss reads, by name.
    #[prost(map = "string, message", tag = "2")]
    pub loss_fn_inputs: HashMap<String, Tensor>,
    /// Where the input's positions come from, or nothing.
    #[prost(message, repeated, tag = "3")]
    pub model_input_spans: Vec<ProvenanceSpan>,
    /// Where the rows of `target_tokens` come from, or nothing.
    #[prost(message, repeated, tag = "4")]
    pub loss_fn_input_spans: Vec<ProvenanceSpan>,
}

/// Where a run of tokens comes from.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProvenanceSpan {
    /// Its source.
    #[prost(oneof = "provenance_span::Of", tags = "1, 2")]
    pub of: Option<provenance_span::Of>,
}

/// Parts of [`ProvenanceSpan`].
pub mod provenance_span {
    /// The two sources.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Of {
        /// A sample's prompt.
        #[prost(message, tag = "1")]
        PromptTokens(super::SpanOfTokens),
        /// A sample.
        #[prost(message, tag = "2")]
        SampledTokens(super::SpanOfTokens),
    }
}

/// `PromptProvenanceSpan` and `SampledProvenanceSpan`, which have the same members.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SpanOfTokens {
    /// The sample.
    #[prost(string, tag = "1")]
    pub sequence_id: String,
    /// Where the run begins.
    #[prost(int64, tag = "2")]
    pub offset: i64,
    /// How many tokens.
    #[prost(int64, tag = "3")]
    pub length: i64,
}

/// A piece of model input.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Chunk {
    /// The piece.
    #[prost(oneof = "chunk::Chunk", tags = "1, 2, 3")]
    pub chunk: Option<chunk::Chunk>,
}

/// Parts of [`Chunk`].
pub mod chunk {
    /// The kinds of model input.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Chunk {
        /// Tokens.
        #[prost(message, tag = "1")]
        EncodedText(super::EncodedTextChunk),
        /// A picture.
        #[prost(message, tag = "2")]
        Image(super::ImageChunk),
        /// Discretised sound.
        #[prost(message, tag = "3")]
        Dmel(super::DmelChunk),
    }
}

/// Tokens.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EncodedTextChunk {
    /// Token ids: int32.
    #[prost(bytes = "bytes", tag = "1")]
    pub tokens: Bytes,
}

/// A picture.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImageChunk {
    /// The file.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    /// `png` or `jpeg`.
    #[prost(string, tag = "2")]
    pub format: String,
    /// How many tokens it counts as.
    #[prost(int32, optional, tag = "3")]
    pub expected_tokens: Option<i32>,
}

/// Discretised sound.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DmelChunk {
    /// A TensorContainer, verbatim.
    #[prost(bytes = "bytes", tag = "1")]
    pub dmel: Bytes,
}

/// The result of a forward pass.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ForwardBackwardOutput {
    /// A tag; what follows the last `:` is the name.
    #[prost(string, tag = "1")]
    pub loss_fn_output_type: String,
    /// The outputs of each datum, in order.
    #[prost(message, repeated, tag = "2")]
    pub loss_fn_outputs: Vec<ArrayRecord>,
    /// Sums and means by name.
    #[prost(map = "string, double", tag = "3")]
    pub metrics: HashMap<String, f64>,
}

/// Outputs of consecutive datums.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ArrayRecord {
    /// Ignored by the official client.
    #[prost(string, tag = "1")]
    pub type_tag: String,
    /// By name.
    #[prost(map = "string, message", tag = "2")]
    pub fields: HashMap<String, BatchedTensor>,
    /// How many datums.
    #[prost(int64, tag = "3")]
    pub num_datums: i64,
}

/// One tensor per datum, laid end to end.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BatchedTensor {
    /// All values.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    /// Byte offsets of each datum's part, num_datums + 1 of them: int64.
    #[prost(bytes = "bytes", tag = "2")]
    pub offsets: Bytes,
    /// The element type, a [`DType`].
    #[prost(enumeration = "DType", tag = "3")]
    pub dtype: i32,
    /// The dimensions after the first.
    #[prost(int64, repeated, tag = "4")]
    pub trailing_shape: Vec<i64>,
}

/// Why a sample ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum StopReason {
    /// Something that was to end it came.
    Stop = 0,
    /// It is as long as it may be.
    Length = 1,
}

/// The result of sampling.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SampleResponse {
    /// One per sample, in the order of the submission's `sample_sequence_ids`.
    #[prost(message, repeated, tag = "1")]
    pub sequences: Vec<SampledSequence>,
    /// One per prompt token: float32, NaN where there is none.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub prompt_logprobs: Option<Bytes>,
    /// One row per prompt token.
    #[prost(message, optional, tag = "3")]
    pub topk_prompt_logprobs: Option<TopkLogprobs>,
    /// How many prompt tokens were in the cache already.
    #[prost(int32, tag = "4")]
    pub prompt_cache_hit_tokens: i32,
    /// In the shape and layout of the request's tokens.
    #[prost(message, optional, tag = "5")]
    pub target_prompt_logprobs: Option<Tensor>,
    /// Other tokens drawn for the prompt's positions.
    #[prost(message, optional, tag = "6")]
    pub prompt_alt_tokens: Option<PromptAltTokens>,
}

/// One sample.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SampledSequence {
    /// Why it ended, a [`StopReason`].
    #[prost(enumeration = "StopReason", tag = "1")]
    pub stop_reason: i32,
    /// Token ids: int32.
    #[prost(bytes = "bytes", tag = "2")]
    pub tokens: Bytes,
    /// One per token: float32.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub logprobs: Option<Bytes>,
    /// One row per token.
    #[prost(message, optional, tag = "4")]
    pub topk_sampled_logprobs: Option<TopkLogprobs>,
}

/// The most probable tokens of several positions: two matrices of `length` rows and `k` columns.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TopkLogprobs {
    /// Token ids: int32; 0 in cells that are empty.
    #[prost(bytes = "bytes", tag = "1")]
    pub token_ids: Bytes,
    /// Log-probabilities: float32; -99999 in cells that are empty.
    #[prost(bytes = "bytes", tag = "2")]
    pub logprobs: Bytes,
    /// Columns.
    #[prost(uint32, tag = "3")]
    pub k: u32,
    /// Rows.
    #[prost(uint32, tag = "4")]
    pub length: u32,
}

/// Tokens drawn for each prompt position after the first: two matrices of one shape.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PromptAltTokens {
    /// Token ids: int64.
    #[prost(message, optional, tag = "1")]
    pub tokens: Option<Tensor>,
    /// Their log-probabilities: float32.
    #[prost(message, optional, tag = "2")]
    pub logprobs: Option<Tensor>,
}
