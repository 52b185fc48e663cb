//! Where each weight and each LoRA tensor lies in its flat buffer.
//!
//! Projections that read the same input form a group: queries, keys and values; gate and up. The weights of a group
//! are contiguous, and so are its `A` factors, so that one matrix product serves the whole group.

use super::config::{LoraConfig, ModelConfig};
use super::error::NnError;

/// One named tensor of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    /// The name PEFT gives it.
    pub name: String,
    /// Rows and columns: `rank x in` for `A`, `out x rank` for `B`.
    pub shape: [usize; 2],
    /// Where its values begin in the flat buffer.
    pub(super) offset: usize,
}

impl TensorSpec {
    /// How many values it has.
    pub fn len(&self) -> usize {
        let [rows, cols] = self.shape;
        rows * cols
    }

    /// Whether it has no values; never so in a valid layout.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One projection of a group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Module {
    /// Such as `layers.0.self_attn.q_proj`.
    pub(super) name: String,
    /// Width of its output.
    pub(super) output: usize,
}

/// Projections that read the same input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    /// Where the weights begin among the base model's projections.
    pub(super) weight: usize,
    /// Width of the input.
    pub(super) input: usize,
    /// Width of the outputs side by side.
    pub(super) output: usize,
    /// The projections, in the order of their outputs.
    pub(super) modules: Vec<Module>,
    /// Where the `A` factors and the `B` factors begin in the adapter's flat buffer, if the group is trained.
    pub(super) lora: Option<(usize, usize)>,
}

/// The projections of one layer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerGroups {
    pub(super) qkv: Group,
    pub(super) o: Group,
    pub(super) gate_up: Group,
    pub(super) down: Group,
}

/// All projections of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Groups {
    pub(super) layers: Vec<LayerGroups>,
    pub(super) head: Group,
    /// How many base values the projections have.
    pub(super) weight_len: usize,
    /// How many values the adapter has.
    pub(super) lora_len: usize,
}

impl Groups {
    /// The projections of `model`, with those that `lora` trains.
    pub(crate) fn new(model: &ModelConfig, lora: Option<&LoraConfig>) -> Self {
        let (mut weight_len, mut lora_len) = (0, 0);
        let mut group = |prefix: &str, input: usize, parts: &[(&str, usize)], rank: Option<usize>| {
            let output = parts.iter().map(|(_, width)| width).sum::<usize>();
            let weight = weight_len;
            weight_len += output * input;
            let lora = rank.map(|rank| {
                let a = lora_len;
                let b = a + parts.len() * rank * input;
                lora_len = b + output * rank;
                (a, b)
            });
            let modules = parts
                .iter()
                .map(|(name, output)| Module { name: format!("{prefix}{name}"), output: *output });
            Group { weight, input, output, modules: modules.collect(), lora }
        };
        let rank_if = |pick: fn(&LoraConfig) -> bool| lora.filter(|lora| pick(lora)).map(|lora| lora.rank);
        let (attn, mlp) = (rank_if(|lora| lora.train_attn), rank_if(|lora| lora.train_mlp));
        let (d, kv, ff) = (model.d_model, model.kv_width(), model.d_ff);
        let layers = (0..model.n_layers)
            .map(|i| {
                let (attention, block) =
                    (format!("model.layers.{i}.self_attn."), format!("model.layers.{i}.mlp."));
                LayerGroups {
                    qkv: group(&attention, d, &[("q_proj", d), ("k_proj", kv), ("v_proj", kv)], attn),
                    o: group(&attention, d, &[("o_proj", d)], attn),
                    gate_up: group(&block, d, &[("gate_proj", ff), ("up_proj", ff)], mlp),
                    down: group(&block, ff, &[("down_proj", d)], mlp),
                }
            })
            .collect();
        let head = group("", d, &[("lm_head", model.vocab_size)], rank_if(|lora| lora.train_unembed));
        Self { layers, head, weight_len, lora_len }
    }

    /// Every group, in the order of computation.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Group> {
        let layers = self.layers.iter().flat_map(|layer| [&layer.qkv, &layer.o, &layer.gate_up, &layer.down]);
        layers.chain([&self.head])
    }
}

/// What tensors an adapter has, for one model and one LoRA configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    pub(super) model: ModelConfig,
    pub(super) lora: LoraConfig,
    pub(super) groups: Groups,
    tensors: Vec<TensorSpec>,
}

impl Layout {
    /// The layout of adapters for `model` made with `lora`.
    pub fn new(model: &ModelConfig, lora: &LoraConfig) -> Result<Self, NnError> {
        model.validate()?;
        lora.validate()?;
        let groups = Groups::new(model, Some(lora));
        let mut tensors = Vec::new();
        for group in groups.iter() {
            let Some((mut a, mut b)) = group.lora else { continue };
            for module in &group.modules {
                let name = |factor: char| format!("base_model.model.{}.lora_{factor}.weight", module.name);
                let (a_shape, b_shape) = ([lora.rank, group.input], [module.output, lora.rank]);
                tensors.push(TensorSpec { name: name('A'), shape: a_shape, offset: a });
                tensors.push(TensorSpec { name: name('B'), shape: b_shape, offset: b });
                a += lora.rank * group.input;
                b += module.output * lora.rank;
            }
        }
        Ok(Self { model: model.clone(), lora: lora.clone(), groups, tensors })
    }

    /// The model it is for.
    pub fn model(&self) -> &ModelConfig {
        &self.model
    }

    /// The LoRA settings it is for.
    pub fn lora(&self) -> &LoraConfig {
        &self.lora
    }

    /// The tensors: layer by layer q, k, v, o, gate, up, down, then the unembedding; of each `A`, then `B`.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Values that are as many as all tensors have together.
    pub(crate) fn fitting(&self, values: Vec<f32>) -> Result<Vec<f32>, NnError> {
        if values.len() == self.parameter_count() { Ok(values) } else { Err(NnError::LayoutMismatch) }
    }

    /// How many values all tensors have together.
    pub fn parameter_count(&self) -> usize {
        self.groups.lora_len
    }
}
