//! What a trainer is asked to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use retinker_wire::UserMetadata;
use retinker_wire::path::TinkerPath;
use retinker_wire::training::{AdamParams, Datum};

use crate::backlog::Waiting;
use crate::db::{CheckpointKind, NewRun};
use crate::futures::Completer;
use crate::labels::Labels;

/// A numbered request of one run.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) run_id: Arc<str>,
    /// Its place in the run's order.
    pub(crate) seq: u64,
    pub(crate) op: Op,
    pub(crate) completer: Completer,
    /// Counts it among the run's waiting requests.
    pub(crate) permit: Arc<()>,
    /// Counts its bytes among those of all that wait.
    pub(crate) waiting: Waiting,
}

/// What a numbered request asks for.
#[derive(Debug)]
pub(crate) enum Op {
    ForwardBackward(ForwardBackward),
    OptimStep(AdamParams),
    Save(Save),
    SaveForSampler(SaveForSampler),
    Load(Load),
    /// A request that was understood but cannot be done; it fails in its turn.
    Refuse(Refusal),
}

impl Op {
    /// The protocol's name of what is asked for.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::ForwardBackward(pass) if pass.forward_only => "forward",
            Self::ForwardBackward(_) => "forward_backward",
            Self::OptimStep(_) => "optim_step",
            Self::Save(save) if save.kind == CheckpointKind::Sampler => "save_weights_for_sampler",
            Self::Save(save) if save.kind == CheckpointKind::External => "save_weights_external",
            Self::Save(_) => "save_weights",
            Self::SaveForSampler(_) => "save_weights_for_sampler",
            Self::Load(_) => "load_weights",
            Self::Refuse(refusal) => refusal.operation,
        }
    }

    /// About how many bytes it takes while it waits.
    pub(crate) fn bytes(&self) -> u64 {
        // What every request takes, whatever is in it, and every datum.
        const REQUEST: usize = 1024;
        const DATUM: usize = 256;
        let content: usize = match self {
            Self::ForwardBackward(pass) => {
                pass.data.iter().map(|datum| DATUM + datum.estimated_bytes()).sum()
            }
            Self::Save(save) => {
                let labels = save.user_metadata.iter().flatten();
                save.name.len() + labels.map(|(name, label)| name.len() + label.len()).sum::<usize>()
            }
            Self::Refuse(refusal) => refusal.request.to_string().len(),
            Self::OptimStep(_) | Self::SaveForSampler(_) | Self::Load(_) => 0,
        };
        (REQUEST + content) as u64
    }

    /// Whether it can leave something in memory that is not on the disk.
    pub(crate) fn trains(&self) -> bool {
        match self {
            Self::ForwardBackward(pass) => !pass.forward_only,
            Self::OptimStep(_) | Self::Load(_) => true,
            Self::Save(_) | Self::SaveForSampler(_) | Self::Refuse(_) => false,
        }
    }
}

/// A pass over a batch.
#[derive(Debug)]
pub(crate) struct ForwardBackward {
    pub(crate) data: Vec<Datum>,
    pub(crate) loss_fn: String,
    /// The loss function's settings.
    pub(crate) settings: BTreeMap<String, serde_json::Value>,
    pub(crate) forward_only: bool,
}

/// Saving under a name.
#[derive(Debug)]
pub(crate) struct Save {
    /// One of the kinds that users see.
    pub(crate) kind: CheckpointKind,
    pub(crate) name: String,
    pub(crate) overwrite: bool,
    pub(crate) ttl_seconds: Option<u64>,
    pub(crate) user_metadata: Option<UserMetadata>,
}

/// Saving the weights for a sampler that the same request makes.
#[derive(Debug)]
pub(crate) struct SaveForSampler {
    /// The sampler's number in the run's session.
    pub(crate) sampling_session_seq_id: u64,
    /// Whether later saves of this sort replace its weights.
    pub(crate) follows: bool,
}

/// Loading into a fresh model.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) path: TinkerPath,
    pub(crate) optimizer: bool,
}

/// Why a request cannot be done.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    /// The protocol's name of what was asked for.
    pub(crate) operation: &'static str,
    /// What tells this request from others that cannot be done.
    pub(crate) request: serde_json::Value,
}

/// Making a run from a checkpoint.
#[derive(Debug)]
pub(crate) struct CreateFrom {
    pub(crate) load: Load,
    pub(crate) session_id: String,
    pub(crate) model_seq_id: u64,
    /// The base model that the client expects, if it says.
    pub(crate) base_model: Option<String>,
    pub(crate) optimizer_config: Option<serde_json::Value>,
    pub(crate) user_metadata: Option<UserMetadata>,
    pub(crate) run_id: String,
    pub(crate) completer: Completer,
}

impl CreateFrom {
    /// The run to be, once the checkpoint has said what it is made of.
    pub(crate) fn new_run(&self, origin: &crate::checkpoint::Origin, created_at: i64) -> NewRun {
        NewRun {
            run_id: self.run_id.as_str().into(),
            session_id: self.session_id.as_str().into(),
            model_seq_id: self.model_seq_id,
            base_model: origin.base_model.as_str().into(),
            lora: origin.lora.clone(),
            optimizer_config: Arc::new(
                self.optimizer_config.clone().unwrap_or_else(|| origin.optimizer_config.clone()),
            ),
            user_metadata: self.user_metadata.clone().map(Labels::from),
            origin_path: Some(self.load.path.to_string()),
            created_at,
        }
    }
}
