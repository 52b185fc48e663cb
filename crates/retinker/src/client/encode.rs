//! The body of `forward_backward`, written straight from the batch: no copy of tokens or tensors in between.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use retinker_wire::proto::DType;
use retinker_wire::tensor::{TensorData, TensorValues};
use retinker_wire::training::{Datum, ModelInputChunk};

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

/// An encoded batch that lacks only its number, which is decided when it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Batch(BytesMut);

impl Batch {
    pub(crate) fn new(
        model_id: &str,
        data: &[Datum],
        loss_fn: &str,
        config: &LossFnConfig,
        forward_only: bool,
    ) -> Self {
        let lengths: Vec<usize> = data.iter().map(datum_len).collect();
        let body: usize = lengths.iter().map(|n| n + 12).sum();
        let mut out = BytesMut::with_capacity(body + model_id.len() + loss_fn.len() + 64 + config.len() * 96);
        text(1, model_id, &mut out);
        for (datum, length) in data.iter().zip(lengths) {
            put_len(3, length, &mut out);
            put_datum(datum, &mut out);
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
        Self(out)
    }

    /// The finished body. Fields of a protobuf message may stand in any order, so the number goes last.
    pub(crate) fn numbered(mut self, seq_id: i32) -> Bytes {
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

fn tokens_len(tokens: &[i32]) -> usize {
    if tokens.is_empty() { 0 } else { len_len(1, tokens.len() * 4) }
}

fn datum_len(datum: &Datum) -> usize {
    let input: usize = datum
        .model_input
        .chunks
        .iter()
        .map(|ModelInputChunk::EncodedText { tokens }| len_len(1, len_len(1, tokens_len(tokens))))
        .sum();
    let tensors: usize =
        datum.loss_fn_inputs.iter().map(|(name, tensor)| len_len(2, entry_len(name, tensor))).sum();
    input + tensors
}

fn put_datum(datum: &Datum, out: &mut BytesMut) {
    for ModelInputChunk::EncodedText { tokens } in &datum.model_input.chunks {
        let encoded = tokens_len(tokens);
        put_len(1, len_len(1, encoded), out);
        put_len(1, encoded, out);
        if !tokens.is_empty() {
            put_len(1, tokens.len() * 4, out);
            for token in tokens {
                out.put_i32_le(*token);
            }
        }
    }
    for (name, tensor) in &datum.loss_fn_inputs {
        put_len(2, entry_len(name, tensor), out);
        text(1, name, out);
        put_len(2, tensor_len(tensor), out);
        put_tensor(tensor, out);
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

fn dense_bytes(tensor: &TensorData) -> usize {
    match &tensor.values {
        TensorValues::Float32(values) => values.len() * 4,
        TensorValues::Int64(values) => values.len() * 8,
    }
}

fn tensor_len(tensor: &TensorData) -> usize {
    let dims: usize = shape(tensor).map(encoded_len_varint).sum();
    let shape_len = if dims == 0 { 0 } else { len_len(4, dims) };
    len_len(1, dense_bytes(tensor)) + 2 + shape_len
}

fn put_tensor(tensor: &TensorData, out: &mut BytesMut) {
    put_len(1, dense_bytes(tensor), out);
    let dtype = match &tensor.values {
        TensorValues::Float32(values) => {
            values.iter().for_each(|v| out.put_f32_le(*v));
            DType::Float32
        }
        TensorValues::Int64(values) => {
            values.iter().for_each(|v| out.put_i64_le(*v));
            DType::Int64
        }
    };
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
    use prost::Message;
    use retinker_wire::proto;

    fn batch() -> Vec<Datum> {
        let mut shaped = Datum::cross_entropy((0..300).collect(), (0..300).collect(), vec![0.5; 300]);
        if let Some(weights) = shaped.loss_fn_inputs.get_mut("weights") {
            weights.shape = Some(vec![100, 3]);
        }
        vec![
            Datum::cross_entropy(vec![1, -2, i32::MAX], vec![i64::MIN, 0, 7], vec![0.0, f32::NAN, -1.5]),
            shaped,
            Datum::cross_entropy(vec![], vec![], vec![]),
        ]
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
                let body = Batch::new("s:train:0", &batch(), "ppo", &config, forward_only).numbered(seq_id);
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
                let expected: Vec<_> = batch().iter().map(Datum::to_proto).collect();
                assert_eq!(message.data, expected);
            }
        }
    }

    /// A map value of 0.0 may be left out or written; prost leaves it out, this encoder writes its 9 bytes.
    fn extra_zero_bytes(message: &proto::ForwardBackwardRequest) -> usize {
        9 * message.loss_fn_config.values().filter(|v| **v == 0.0).count()
    }
}
