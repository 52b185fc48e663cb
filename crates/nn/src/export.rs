//! Base models in the form in which Hugging Face's `transformers` holds a Llama.
#![allow(clippy::indexing_slicing)] // Offsets come from the layout that sized the buffers.

use super::base::BaseModel;

/// A tensor of a base model.
#[derive(Debug, Clone, PartialEq)]
pub struct BaseTensor<'a> {
    /// Such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// One dimension for norms, otherwise output by input.
    pub shape: Vec<usize>,
    /// The values, row by row.
    pub data: &'a [f32],
}

impl BaseModel {
    /// All weights: the tensors of `LlamaForCausalLM` by its names.
    pub fn tensors(&self) -> Vec<BaseTensor<'_>> {
        let config = self.config();
        let (d, layers) = (config.d_model, config.n_layers);
        let mut tensors = vec![BaseTensor {
            name: "model.embed_tokens.weight".to_owned(),
            shape: vec![config.vocab_size, d],
            data: &self.embedding,
        }];
        for group in self.groups.iter() {
            let mut start = group.weight;
            for module in &group.modules {
                let end = start + module.output * group.input;
                tensors.push(BaseTensor {
                    name: format!("{}.weight", module.name),
                    shape: vec![module.output, group.input],
                    data: &self.weights[start..end],
                });
                start = end;
            }
        }
        for index in 0..=2 * layers {
            let name = match index {
                last if last == 2 * layers => "model.norm.weight".to_owned(),
                even if even % 2 == 0 => format!("model.layers.{}.input_layernorm.weight", index / 2),
                _ => format!("model.layers.{}.post_attention_layernorm.weight", index / 2),
            };
            tensors.push(BaseTensor { name, shape: vec![d], data: self.norm(index) });
        }
        tensors
    }
}
