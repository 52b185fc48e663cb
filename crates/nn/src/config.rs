//! Sizes of the built-in models and settings of an adapter.

use super::error::NnError;

/// Marks the beginning of a text. Tokens 0 to 255 are bytes.
pub const BOS_TOKEN: u32 = 256;
/// Marks the end of a text.
pub const EOS_TOKEN: u32 = 257;
/// Fills unused positions.
pub const PAD_TOKEN: u32 = 258;
/// 256 bytes and three specials, rounded up to a multiple of four; token 259 is never produced by the tokenizer.
pub const VOCAB_SIZE: usize = 260;

/// The sizes and constants that, together with a seed, determine a base model completely.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The name under which clients ask for the model.
    pub name: String,
    /// How many tokens there are; valid ids are below it.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// How many decoder layers.
    pub n_layers: usize,
    /// How many query heads; `d_model / n_heads` is the width of a head and must be even.
    pub n_heads: usize,
    /// How many key and value heads; divides `n_heads`. Fewer than `n_heads` is grouped-query attention.
    pub n_kv_heads: usize,
    /// Width of the SwiGLU block.
    pub d_ff: usize,
    /// The longest sequence, in tokens.
    pub max_context: usize,
    /// Base of the rotary frequencies; 10000 in the RoFormer paper and in Llama.
    pub rope_theta: f32,
    /// Added to the mean square in RMSNorm; 1e-5 in Llama.
    pub norm_eps: f32,
    /// What the weights are made from.
    pub seed: u64,
}

impl ModelConfig {
    /// The models that ship with the service; the first is the default.
    pub fn builtin() -> Vec<Self> {
        vec![
            Self {
                name: "retinker/tiny-llama-1m".to_owned(),
                vocab_size: VOCAB_SIZE,
                d_model: 192,
                n_layers: 2,
                n_heads: 6,
                n_kv_heads: 6,
                d_ff: 544,
                max_context: 2048,
                rope_theta: 10_000.0,
                norm_eps: 1e-5,
                seed: 1,
            },
            Self {
                name: "retinker/nano-llama".to_owned(),
                vocab_size: VOCAB_SIZE,
                d_model: 64,
                n_layers: 2,
                n_heads: 4,
                n_kv_heads: 2,
                d_ff: 112,
                max_context: 1024,
                rope_theta: 10_000.0,
                norm_eps: 1e-5,
                seed: 2,
            },
            Self {
                name: "retinker/small-llama-7m".to_owned(),
                vocab_size: VOCAB_SIZE,
                d_model: 320,
                n_layers: 6,
                n_heads: 10,
                n_kv_heads: 5,
                d_ff: 864,
                max_context: 4096,
                rope_theta: 10_000.0,
                norm_eps: 1e-5,
                seed: 3,
            },
        ]
    }

    /// The built-in model of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::builtin().into_iter().find(|config| config.name == name)
    }

    /// How many parameters the base model has.
    pub fn parameter_count(&self) -> usize {
        let attention = 2 * self.d_model * self.d_model + 2 * self.d_model * self.kv_width();
        let layer = attention + 3 * self.d_model * self.d_ff + 2 * self.d_model;
        2 * self.vocab_size * self.d_model + self.n_layers * layer + self.d_model
    }

    /// Checks that the sizes fit together.
    pub fn validate(&self) -> Result<(), NnError> {
        let fail = |reason: &str| Err(NnError::InvalidModel(reason.to_owned()));
        let sizes = [
            self.vocab_size,
            self.d_model,
            self.n_layers,
            self.n_heads,
            self.n_kv_heads,
            self.d_ff,
            self.max_context,
        ];
        if sizes.contains(&0) {
            return fail("sizes must be positive");
        }
        if !self.d_model.is_multiple_of(2 * self.n_heads) {
            return fail("d_model must be n_heads times an even head width");
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return fail("n_kv_heads must divide n_heads");
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 1.0) {
            return fail("rope_theta must be finite and above 1");
        }
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            return fail("norm_eps must be finite and positive");
        }
        Ok(())
    }

    /// Width of one head.
    pub(crate) fn head_width(&self) -> usize {
        self.d_model / self.n_heads
    }

    /// Width of all key heads together, which is that of all value heads.
    pub(crate) fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_width()
    }

    /// Width of queries, keys and values side by side.
    pub(crate) fn qkv_width(&self) -> usize {
        self.d_model + 2 * self.kv_width()
    }
}

/// Which weights get a low-rank addition, and how it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Inner width of the two factors.
    pub rank: usize,
    /// The addition is scaled by `alpha / rank`; 32, as in SkyRL's Tinker server.
    pub alpha: f32,
    /// What the `A` factors are made from.
    pub seed: u64,
    /// Adapt the query, key, value and output projections.
    pub train_attn: bool,
    /// Adapt the gate, up and down projections.
    pub train_mlp: bool,
    /// Adapt the unembedding.
    pub train_unembed: bool,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: 32, alpha: 32.0, seed: 0, train_attn: true, train_mlp: true, train_unembed: true }
    }
}

impl LoraConfig {
    /// The widest adapter accepted: no built-in weight has a higher rank, and it bounds what a request can allocate.
    pub const MAX_RANK: usize = 256;

    /// What multiplies `B A`.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// Checks the rank, the scale and that something is trained.
    pub fn validate(&self) -> Result<(), NnError> {
        if self.rank == 0 || self.rank > Self::MAX_RANK {
            return Err(NnError::InvalidLora(format!(
                "rank must be from 1 to {}, not {}",
                Self::MAX_RANK,
                self.rank
            )));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(NnError::InvalidLora("alpha must be finite and positive".to_owned()));
        }
        if !(self.train_attn || self.train_mlp || self.train_unembed) {
            return Err(NnError::InvalidLora(
                "at least one of attention, MLP and unembedding must be trained".to_owned(),
            ));
        }
        Ok(())
    }
}
