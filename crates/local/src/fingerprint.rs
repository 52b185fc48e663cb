//! What tells whether a request sent again is the same request.

use retinker_wire::tensor::{TensorData, TensorValues};
use retinker_wire::training::ModelInputChunk;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::trainer::{ForwardBackward, Op, Save};

/// A hash of what a numbered request asks for. It is made of the decoded request, with names in order: the same request
/// has the same fingerprint whether it came as JSON or as protobuf, and in whatever order its maps were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of what a request asks for.
    pub(crate) fn of(op: &Op) -> Self {
        let mut hash = Hash(Sha256::new());
        match op {
            Op::ForwardBackward(pass) => hash.pass(pass),
            Op::OptimStep(params) => {
                hash.text("optim_step");
                for setting in [
                    params.learning_rate,
                    params.beta1,
                    params.beta2,
                    params.eps,
                    params.weight_decay,
                    params.grad_clip_norm,
                ] {
                    hash.0.update(setting.to_le_bytes());
                }
            }
            Op::Save(save) => hash.save(save),
            Op::SaveForSampler(save) => {
                hash.text("save_for_sampler");
                hash.0.update(save.sampling_session_seq_id.to_le_bytes());
                hash.0.update([u8::from(save.follows)]);
            }
            Op::Load(load) => {
                hash.text("load_weights");
                hash.text(&load.path.to_string());
                hash.0.update([u8::from(load.optimizer)]);
            }
            Op::Refuse(refusal) => {
                hash.text("refused");
                hash.text(refusal.operation);
                hash.json(&refusal.request);
            }
        }
        Self(hash.0.finalize().into())
    }

    /// The fingerprint of a body in JSON.
    pub(crate) fn of_body(operation: &str, body: &Value) -> Self {
        let mut hash = Hash(Sha256::new());
        hash.text(operation);
        hash.json(body);
        Self(hash.0.finalize().into())
    }
}

/// Everything of variable length is preceded by its length, so that no two requests run together to the same bytes.
struct Hash(Sha256);

impl Hash {
    fn length(&mut self, length: usize) {
        self.0.update((length as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.update(text);
    }

    /// Numbers one after the other; in one piece, because small ones are slow to hash.
    fn numbers<const N: usize>(&mut self, numbers: impl ExactSizeIterator<Item = [u8; N]>) {
        self.length(numbers.len());
        let mut bytes = Vec::with_capacity(numbers.len() * N);
        numbers.for_each(|number| bytes.extend_from_slice(&number));
        self.0.update(bytes);
    }

    fn pass(&mut self, pass: &ForwardBackward) {
        self.text(if pass.forward_only { "forward" } else { "forward_backward" });
        self.text(&pass.loss_fn);
        self.length(pass.settings.len());
        for (name, setting) in &pass.settings {
            self.text(name);
            self.json(setting);
        }
        self.length(pass.data.len());
        for datum in &pass.data {
            self.length(datum.model_input.chunks.len());
            for chunk in &datum.model_input.chunks {
                self.chunk(chunk);
            }
            self.length(datum.loss_fn_inputs.len());
            for (name, tensor) in &datum.loss_fn_inputs {
                self.text(name);
                self.tensor(tensor);
            }
        }
    }

    fn chunk(&mut self, chunk: &ModelInputChunk) {
        self.text(chunk.kind());
        match chunk {
            ModelInputChunk::EncodedText { tokens } => {
                self.numbers(tokens.iter().map(|token| token.to_le_bytes()));
            }
            // None of these is trained on here: the request fails, whatever is in them.
            ModelInputChunk::Image { .. }
            | ModelInputChunk::ImageAssetPointer { .. }
            | ModelInputChunk::Dmel { .. } => {}
        }
    }

    fn tensor(&mut self, tensor: &TensorData) {
        match &tensor.values {
            TensorValues::Float32(values) => {
                self.text("float32");
                self.numbers(values.iter().map(|value| value.to_le_bytes()));
            }
            TensorValues::Int64(values) => {
                self.text("int64");
                self.numbers(values.iter().map(|value| value.to_le_bytes()));
            }
        }
        // One dimension of all the elements is what no shape means.
        let shape = tensor.shape.as_deref().filter(|shape| *shape != [tensor.len() as u64]);
        self.numbers(shape.unwrap_or_default().iter().map(|side| side.to_le_bytes()));
    }

    fn save(&mut self, save: &Save) {
        self.text(crate::trainer::folder(save.kind));
        self.text(&save.name);
        self.0.update([u8::from(save.overwrite)]);
        self.numbers(save.ttl_seconds.as_slice().iter().map(|seconds| seconds.to_le_bytes()));
        let labels = save.user_metadata.iter().flatten();
        self.length(labels.clone().count());
        for (name, label) in labels {
            self.text(name);
            self.text(label);
        }
    }

    fn json(&mut self, value: &Value) {
        match value {
            Value::Null => self.text("null"),
            Value::Bool(value) => self.text(if *value { "true" } else { "false" }),
            Value::Number(number) => {
                // A setting may come as 1 in JSON and as 1.0 in protobuf.
                self.text("number");
                self.0.update(number.as_f64().unwrap_or_default().to_le_bytes());
            }
            Value::String(text) => {
                self.text("text");
                self.text(text);
            }
            Value::Array(values) => {
                self.text("array");
                self.length(values.len());
                values.iter().for_each(|value| self.json(value));
            }
            Value::Object(members) => {
                self.text("object");
                self.length(members.len());
                let mut members: Vec<_> = members.iter().collect();
                members.sort_by_key(|(name, _)| *name);
                for (name, value) in members {
                    self.text(name);
                    self.json(value);
                }
            }
        }
    }
}
