//! The body of `forward_backward`, written straight from the batch: no copy of tokens or tensors in between.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len, message};
use retinker_wire::proto;
use retinker_wire::tensor::{SparseIndices, TensorData, i32_le, i64_le};
use retinker_wire::training::{Datum, DatumError, ModelInputChunk};

/// Room for the place in a run's order: an id as long as any that was seen, the number, and the names of both.
const PLACE: usize = 192;

/// The settings of a loss function, by name.
pub type LossFnConfig = BTreeMap<String, LossConfigValue>;

/// One setting of a loss function.
#[derive(Debug, Clone, PartialEq)]
pub enum LossConfigValue {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

impl From<f64> for LossConfigValue {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<&str> for LossConfigValue {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

/// Refuses what [`Batch::new`] would.
pub(crate) fn check(data: &[Datum]) -> Result<(), DatumError> {
    let chunks = data.iter().flat_map(|datum| &datum.model_input.chunks);
    chunks
        .filter(|chunk| !matches!(chunk, ModelInputChunk::EncodedText { .. }))
        .try_for_each(|chunk| chunk.to_proto().map(drop))
}

/// An encoded batch that lacks only its place, a run and a number in it, which is decided when it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Batch(BytesMut);

impl Batch {
    pub(crate) fn new(
        data: &[Datum],
        loss_fn: &str,
        config: &LossFnConfig,
        forward_only: bool,
    ) -> Result<Self, DatumError> {
        let examples = data.iter().map(Example::new).collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<usize> = examples.iter().map(Example::len).collect();
        let body: usize = lengths.iter().map(|n| n + 12).sum();
        let mut out = BytesMut::with_capacity(body + loss_fn.len() + PLACE + config.len() * 96);
        for (example, length) in examples.iter().zip(lengths) {
            put_len(3, length, &mut out);
            example.put(&mut out);
        }
        text(4, loss_fn, &mut out);
        for (name, value) in config {
            if let LossConfigValue::Number(number) = value {
                put_len(5, text_len(1, name) + 9, &mut out);
                text(1, name, &mut out);
                encode_key(2, WireType::SixtyFourBit, &mut out);
                out.put_f64_le(*number);
            }
        }
        if forward_only {
            encode_key(6, WireType::Varint, &mut out);
            out.put_u8(1);
        }
        for (name, value) in config {
            let inner = match value {
                LossConfigValue::Number(_) => 9,
                LossConfigValue::Text(t) => len_len(2, t.len()),
            };
            put_len(7, text_len(1, name) + len_len(2, inner), &mut out);
            text(1, name, &mut out);
            put_len(2, inner, &mut out);
            match value {
                LossConfigValue::Number(number) => {
                    encode_key(1, WireType::SixtyFourBit, &mut out);
                    out.put_f64_le(*number);
                }
                // Written even when empty: which arm of the oneof is set is told by its presence.
                LossConfigValue::Text(t) => {
                    put_len(2, t.len(), &mut out);
                    out.put_slice(t.as_bytes());
                }
            }
        }
        Ok(Self(out))
    }

    /// What is known of the body.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// One that was known before.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut body = BytesMut::with_capacity(bytes.len() + PLACE);
        body.put_slice(bytes);
        Self(body)
    }

    /// The finished body. Fields of a protobuf message may stand in any order, so what is not known before goes last.
    pub(crate) fn placed(mut self, model_id: &str, seq_id: i32) -> Bytes {
        text(1, model_id, &mut self.0);
        encode_key(2, WireType::Varint, &mut self.0);
        encode_varint(seq_id as u64, &mut self.0);
        self.0.freeze()
    }
}

fn put_len(tag: u32, length: usize, out: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

/// The length of a length-delimited field with this payload.
fn len_len(tag: u32, payload: usize) -> usize {
    key_len(tag) + encoded_len_varint(payload as u64) + payload
}

/// A string field; left out when empty, as proto3 has it.
fn text(tag: u32, value: &str, out: &mut BytesMut) {
    if !value.is_empty() {
        put_len(tag, value.len(), out);
        out.put_slice(value.as_bytes());
    }
}

fn text_len(tag: u32, value: &str) -> usize {
    if value.is_empty() { 0 } else { len_len(tag, value.len()) }
}

/// A datum whose rare parts are in their protobuf form already.
struct Example<'a> {
    datum: &'a Datum,
    pieces: Vec<Piece<'a>>,
    /// Those of the input, tag 3, and of the loss's rows, tag 4.
    spans: [Vec<proto::ProvenanceSpan>; 2],
}

enum Piece<'a> {
    /// Written straight from memory.
    Tokens(&'a [i32]),
    Other(proto::Chunk),
}

impl<'a> Example<'a> {
    fn new(datum: &'a Datum) -> Result<Self, DatumError> {
        let pieces = datum.model_input.chunks.iter().map(|chunk| match chunk {
            ModelInputChunk::EncodedText { tokens } => Ok(Piece::Tokens(tokens)),
            other => other.to_proto().map(Piece::Other),
        });
        Ok(Self { datum, pieces: pieces.collect::<Result<_, _>>()?, spans: datum.spans_to_proto() })
    }

    fn spans(&self) -> impl Iterator<Item = (u32, &proto::ProvenanceSpan)> {
        (3..).zip(&self.spans).flat_map(|(tag, spans)| spans.iter().map(move |span| (tag, span)))
    }

    fn len(&self) -> usize {
        let pieces: usize = self.pieces.iter().map(|piece| len_len(1, piece.len())).sum();
        let tensors = self.datum.loss_fn_inputs.iter();
        let tensors: usize = tensors.map(|(name, tensor)| len_len(2, entry_len(name, tensor))).sum();
        pieces + tensors + self.spans().map(|(tag, span)| message::encoded_len(tag, span)).sum::<usize>()
    }

    fn put(&self, out: &mut BytesMut) {
        for piece in &self.pieces {
            put_len(1, piece.len(), out);
            piece.put(out);
        }
        for (name, tensor) in &self.datum.loss_fn_inputs {
            put_len(2, entry_len(name, tensor), out);
            text(1, name, out);
            put_len(2, tensor_len(tensor), out);
            put_tensor(tensor, out);
        }
        self.spans().for_each(|(tag, span)| message::encode(tag, span, out));
    }
}

impl Piece<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Tokens(tokens) => len_len(1, bytes_len(1, tokens.len() * 4)),
            Self::Other(chunk) => chunk.encoded_len(),
        }
    }

    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Tokens(tokens) => {
                put_len(1, bytes_len(1, tokens.len() * 4), out);
                put_bytes(1, &i32_le(tokens), out);
            }
            // A buffer that grows has room for it.
            Self::Other(chunk) => chunk.encode_raw(out),
        }
    }
}

/// The length of a field of bytes; left out when empty.
fn bytes_len(tag: u32, length: usize) -> usize {
    if length == 0 { 0 } else { len_len(tag, length) }
}

fn put_bytes(tag: u32, bytes: &[u8], out: &mut BytesMut) {
    if !bytes.is_empty() {
        put_len(tag, bytes.len(), out);
        out.put_slice(bytes);
    }
}

fn entry_len(name: &str, tensor: &TensorData) -> usize {
    text_len(1, name) + len_len(2, tensor_len(tensor))
}

/// The shape that is sent: the tensor's own, or one dimension.
fn shape(tensor: &TensorData) -> impl Iterator<Item = u64> + '_ {
    let own = tensor.shape.as_deref();
    let flat = own.is_none().then(|| tensor.len() as u64);
    own.unwrap_or_default().iter().copied().chain(flat)
}

/// The length of the message of a sparse tensor's values and indices.
fn csr_len(values: usize, sparse: &SparseIndices) -> usize {
    bytes_len(1, values) + bytes_len(2, sparse.crow.len() * 8) + bytes_len(3, sparse.col.len() * 8)
}

fn tensor_len(tensor: &TensorData) -> usize {
    let values = tensor.bytes().0.len();
    let values_len = match &tensor.sparse {
        None => len_len(1, values),
        Some(sparse) => len_len(2, csr_len(values, sparse)),
    };
    let dims: usize = shape(tensor).map(encoded_len_varint).sum();
    values_len + 2 + bytes_len(4, dims)
}

fn put_tensor(tensor: &TensorData, out: &mut BytesMut) {
    let (values, dtype) = tensor.bytes();
    match &tensor.sparse {
        // Written even when empty: which arm of the oneof is set is told by its presence.
        None => {
            put_len(1, values.len(), out);
            out.put_slice(&values);
        }
        Some(sparse) => {
            put_len(2, csr_len(values.len(), sparse), out);
            put_bytes(1, &values, out);
            put_bytes(2, &i64_le(&sparse.crow), out);
            put_bytes(3, &i64_le(&sparse.col), out);
        }
    }
    encode_key(3, WireType::Varint, out);
    encode_varint(dtype as i32 as u64, out);
    let dims: usize = shape(tensor).map(encoded_len_varint).sum();
    if dims > 0 {
        put_len(4, dims, out);
        shape(tensor).for_each(|d| encode_varint(d, out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;
    use retinker_wire::training::{ImageFormat, ModelInput, Provenance, ProvenanceSpan};

    fn batch() -> Vec<Datum> {
        let mut shaped = Datum::cross_entropy((0..300).collect(), (0..300).collect(), vec![0.5; 300]);
        if let Some(weights) = shaped.loss_fn_inputs.get_mut("weights") {
            weights.shape = Some(vec![100, 3]);
        }
        vec![
            Datum::cross_entropy(vec![1, -2, i32::MAX], vec![i64::MIN, 0, 7], vec![0.0, f32::NAN, -1.5]),
            shaped,
            Datum::cross_entropy(vec![], vec![], vec![]),
            everything(),
        ]
    }

    /// Every kind of chunk, a sparse matrix, and spans.
    fn everything() -> Datum {
        let image = ModelInputChunk::Image {
            data: vec![0xFF; 200].into(),
            format: ImageFormat::Jpeg,
            expected_tokens: Some(3),
        };
        let input = ModelInput::from_ints(vec![1, 2]).append(image).append_int(9);
        let mut wide = vec![0; 60];
        wide[31] = 7;
        let wide = TensorData { shape: Some(vec![2, 30]), ..TensorData::int64(wide) }.to_sparse();
        assert!(wide.sparse.is_some());
        let span =
            |sampled, length| ProvenanceSpan { sampled, sequence_id: "q".to_owned(), offset: 0, length };
        Datum {
            model_input: input.append(ModelInputChunk::Dmel { dmel: vec![0, 1, 5].into() }),
            loss_fn_inputs: [("target_tokens".to_owned(), wide)].into(),
            provenance: Some(Provenance {
                model_input_spans: vec![span(false, 4), span(true, 300)],
                loss_fn_input_spans: vec![span(true, 2)],
            }),
        }
    }

    #[test]
    fn what_training_has_no_place_for_is_refused() {
        let pointer = ModelInputChunk::ImageAssetPointer {
            format: ImageFormat::Png,
            location: "here".to_owned(),
            expected_tokens: None,
        };
        let datum = Datum { model_input: ModelInput::default().append(pointer), ..everything() };
        let expected = DatumError::Unsupported("image_asset_pointer");
        assert_eq!(check(std::slice::from_ref(&datum)), Err(expected.clone()));
        let error = Batch::new(&[datum], "ppo", &LossFnConfig::new(), false).unwrap_err();
        assert_eq!((error, check(&batch())), (expected, Ok(())));
    }

    #[test]
    fn decodes_to_what_the_message_types_say() {
        let config: LossFnConfig = [
            ("clip".to_owned(), 0.8.into()),
            ("zero".to_owned(), 0.0.into()),
            ("x".to_owned(), "y".into()),
            ("empty".to_owned(), "".into()),
        ]
        .into();
        for forward_only in [false, true] {
            for seq_id in [1, 127, 128, i32::MAX] {
                let body =
                    Batch::new(&batch(), "ppo", &config, forward_only).unwrap().placed("s:train:0", seq_id);
                let message = proto::ForwardBackwardRequest::decode(body.clone()).unwrap();
                assert_eq!(message.encoded_len(), body.len() - extra_zero_bytes(&message));
                assert_eq!(message.model_id, "s:train:0");
                assert_eq!((message.seq_id, message.forward_only), (seq_id, forward_only));
                assert_eq!(message.loss_fn, "ppo");
                assert_eq!(
                    message.loss_fn_config,
                    [("clip".to_owned(), 0.8), ("zero".to_owned(), 0.0)].into()
                );
                assert_eq!(message.loss_fn_config_v2.len(), 4);
                assert_eq!(
                    message.loss_fn_config_v2["empty"].value,
                    Some(proto::loss_config_value::Value::Text(String::new()))
                );
                let expected: Vec<_> = batch().iter().map(|datum| datum.to_proto().unwrap()).collect();
                assert_eq!(message.data, expected);
            }
        }
    }

    /// A map value of 0.0 may be left out or written; prost leaves it out, this encoder writes its 9 bytes.
    fn extra_zero_bytes(message: &proto::ForwardBackwardRequest) -> usize {
        9 * message.loss_fn_config.values().filter(|v| **v == 0.0).count()
    }
}
