//! The shape of a run's adapter, as it is stored.

use retinker_wire::model::LoraConfig as WireLora;
use serde::{Deserialize, Serialize};

use retinker_nn::LoraConfig;

/// The shape of a run's adapter, with the seed that its initial weights come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoraShape {
    pub(crate) rank: u32,
    pub(crate) alpha: f32,
    pub(crate) seed: u64,
    pub(crate) train_attn: bool,
    pub(crate) train_mlp: bool,
    pub(crate) train_unembed: bool,
}

impl LoraShape {
    /// What a client asked for; a seed is drawn when it gave none.
    pub(crate) fn from_wire(wire: &WireLora) -> Self {
        Self {
            rank: wire.rank,
            alpha: LoraConfig::default().alpha,
            seed: wire.seed.unwrap_or_else(draw_seed),
            train_attn: wire.train_attn,
            train_mlp: wire.train_mlp,
            train_unembed: wire.train_unembed,
        }
    }

    /// What the model needs.
    pub(crate) fn to_nn(&self) -> LoraConfig {
        LoraConfig {
            rank: self.rank as usize,
            alpha: self.alpha,
            seed: self.seed,
            train_attn: self.train_attn,
            train_mlp: self.train_mlp,
            train_unembed: self.train_unembed,
        }
    }

    /// Whether weights of the one fit into the other: everything but the seed.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        Self { seed: 0, ..self.clone() } == Self { seed: 0, ..other.clone() }
    }
}

impl std::fmt::Display for LoraShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts =
            [("attention", self.train_attn), ("MLP", self.train_mlp), ("unembedding", self.train_unembed)];
        let trained: Vec<&str> = parts.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        write!(f, "rank {} on {}", self.rank, trained.join(", "))
    }
}

/// 63 random bits: SQLite and JSON readers in other languages hold signed integers.
fn draw_seed() -> u64 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    high >> 1
}
