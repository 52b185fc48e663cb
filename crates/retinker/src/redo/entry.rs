//! What a log's frames say.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use retinker_wire::UserMetadata;
use retinker_wire::model::{LoraConfig, OptimizerConfig};
use retinker_wire::time::Time;
use retinker_wire::training::{AdamParams, OptimParams, OptimStepRequest};
use retinker_wire::weights::SamplerKind;
use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
#[cfg(any(feature = "native", target_arch = "wasm32"))]
use super::{LogError, Place};
use crate::client::encode::Batch;
use crate::client::training::request::TrainingRequest;
use crate::client::{LoadOptions, SaveExternalOptions, SaveForSamplerOptions, SaveOptions};
use crate::json;
#[cfg(any(feature = "native", target_arch = "wasm32"))]
use crate::recovery::plan::SCHEMA_VERSION;
use crate::recovery::restore::Attachment;

/// One entry, beside what is too large for JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    /// What stands first in a segment: all that is known from those before it.
    Head(Box<Head>),
    /// A request that is about to be sent: reserved.
    Request(RequestEntry),
    /// An operation's requests are sent now, under the numbers from this one on.
    Submitted { op: u64, seq_id: u64 },
    /// All of them were accepted.
    Accepted { op: u64, request_ids: Vec<String> },
    /// What one of them came to.
    Resolved { op: u64, part: usize, outcome: Outcome },
    /// Operations from this one on are no part of the run's story: the program begins again before them.
    Discarded { from: u64 },
    /// A checkpoint was looked at, and can be restored from.
    Base { op: u64, path: String },
    /// A checkpoint cannot be restored from.
    Useless { path: String },
    /// A new run is about to be made: its identity.
    Identity(Identity),
    /// It is there, and what was done since its checkpoint is being done again: nobody else can go on with it.
    Replaying,
    /// It takes the place of the one before it.
    Run { generation: u32, attachment: Attachment },
    /// The run was lost while this operation was carried out.
    Struck { op: u64 },
}

/// Who a new run is: chosen before it is made, and asked for again by whoever goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) session_id: String,
    pub(crate) model_seq_id: u64,
    /// The checkpoint that it is made from; absent = as the first run was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
}

impl Identity {
    /// Of the run that is to be made at this place.
    pub(crate) fn of(place: &crate::client::service::Place, path: Option<String>) -> Self {
        Self { session_id: place.session_id().to_owned(), model_seq_id: place.number(), path }
    }
}

/// How the first run was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Creation {
    pub(crate) base_model: String,
    /// With a seed, always.
    pub(crate) lora_config: LoraConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) optimizer_config: Option<OptimizerConfig>,
    #[serde(default)]
    pub(crate) user_metadata: UserMetadata,
}

/// What is known at the beginning of a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// [`SCHEMA_VERSION`](crate::recovery::plan::SCHEMA_VERSION) of who wrote it.
    pub(crate) schema: u32,
    /// The log's own name, by chance.
    pub(crate) log: String,
    /// The service's address.
    pub(crate) service: String,
    pub(crate) creation: Creation,
    /// The number of the next operation.
    pub(crate) next_op: u64,
    /// Steps of the optimizer so far.
    pub(crate) steps: u64,
    pub(crate) generation: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) run: Option<Attachment>,
    /// The first run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<String>,
    /// All of them, oldest first.
    #[serde(default)]
    pub(crate) runs: Vec<String>,
    /// Checkpoints that the log has called for by itself.
    #[serde(default)]
    pub(crate) saves: u64,
    /// Checkpoints that can be restored from, oldest first.
    #[serde(default)]
    pub(crate) bases: Vec<Base>,
}

/// A checkpoint that the log stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    /// The operation that saved it.
    pub(crate) op: u64,
    pub(crate) path: String,
    /// The first operation that is to be done again after it is loaded: the one after the last step of the optimizer before it
    /// was saved, since a gradient that adds up is in no checkpoint.
    pub(crate) from: u64,
    /// Steps of the optimizer that are in it.
    pub(crate) step: u64,
}

/// A request on its way into the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RequestEntry {
    pub(crate) op: u64,
    /// Which of the operation's requests, from 0, and how many there are.
    pub(crate) part: usize,
    pub(crate) parts: usize,
    #[serde(default)]
    pub(crate) datums: usize,
    #[serde(default)]
    pub(crate) bytes: usize,
    #[serde(default)]
    pub(crate) tokens: usize,
    /// When it was called.
    pub(crate) at: Time,
    /// Whether the log itself asked for it, by its policy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) own: bool,
    /// Whether the application gave a cursor with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cursor: bool,
    pub(crate) form: Form,
}

/// What a request asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    ForwardBackward,
    Forward,
    OptimStep {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        adam_params: Option<AdamParams>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        optimizer_params: Option<serde_json::Map<String, serde_json::Value>>,
    },
    SaveState {
        name: String,
        ttl_seconds: Option<u64>,
        overwrite: bool,
        user_metadata: Option<UserMetadata>,
    },
    SaveForSampler {
        name: Option<String>,
        kind: SamplerKind,
        ttl_seconds: Option<u64>,
        user_metadata: Option<UserMetadata>,
    },
    SaveExternal {
        name: String,
        ttl_seconds: Option<u64>,
        age_encryption_recipients: Option<Vec<String>>,
    },
    Load {
        path: String,
        optimizer: bool,
    },
}

impl Form {
    /// The form of a request, and its body where it has one; an error if it cannot be written down.
    pub(crate) fn of(request: &TrainingRequest) -> Result<(Self, &[u8]), &'static str> {
        let form = match request {
            TrainingRequest::Pass { batch, forward_only } => {
                let form = if *forward_only { Self::Forward } else { Self::ForwardBackward };
                return Ok((form, batch.bytes()));
            }
            TrainingRequest::OptimStep(params) => {
                let OptimStepRequest { adam_params, optimizer_params, .. } =
                    OptimStepRequest::new("", 0, params.clone());
                Self::OptimStep { adam_params, optimizer_params }
            }
            TrainingRequest::SaveState { name, options } => {
                let (name, SaveOptions { ttl_seconds, overwrite, user_metadata }) =
                    (name.clone(), options.clone());
                Self::SaveState { name, ttl_seconds, overwrite, user_metadata }
            }
            TrainingRequest::SaveForSampler { name, kind, options } => {
                let SaveForSamplerOptions { ttl_seconds, user_metadata } = options.clone();
                Self::SaveForSampler { name: name.clone(), kind: kind.clone(), ttl_seconds, user_metadata }
            }
            TrainingRequest::SaveExternal { name, options } => {
                let SaveExternalOptions { ttl_seconds, age_encryption_recipients } = options.clone();
                Self::SaveExternal { name: name.clone(), ttl_seconds, age_encryption_recipients }
            }
            TrainingRequest::Load { options: LoadOptions { weights_access_token: Some(_), .. }, .. } => {
                return Err(
                    "a redo log holds no access token, so it could not load the checkpoint again: copy it first",
                );
            }
            TrainingRequest::Load { path, options } => {
                Self::Load { path: path.clone(), optimizer: options.optimizer }
            }
        };
        Ok((form, &[]))
    }

    /// Whether it makes a sampler of the session's.
    pub(crate) fn makes_a_sampler(&self) -> bool {
        matches!(self, Self::SaveForSampler { name: None, .. })
    }

    /// The request, with the body that was written with it.
    pub(crate) fn request(self, body: &[u8]) -> TrainingRequest {
        match self {
            Self::ForwardBackward => {
                TrainingRequest::Pass { batch: Batch::from_bytes(body), forward_only: false }
            }
            Self::Forward => TrainingRequest::Pass { batch: Batch::from_bytes(body), forward_only: true },
            Self::OptimStep { adam_params, optimizer_params } => {
                TrainingRequest::OptimStep(match optimizer_params {
                    Some(members) => OptimParams::Other(members),
                    None => OptimParams::Adam(adam_params.unwrap_or_default()),
                })
            }
            Self::SaveState { name, ttl_seconds, overwrite, user_metadata } => TrainingRequest::SaveState {
                name,
                options: SaveOptions { ttl_seconds, overwrite, user_metadata },
            },
            Self::SaveForSampler { name, kind, ttl_seconds, user_metadata } => {
                TrainingRequest::SaveForSampler {
                    name,
                    kind,
                    options: SaveForSamplerOptions { ttl_seconds, user_metadata },
                }
            }
            Self::SaveExternal { name, ttl_seconds, age_encryption_recipients } => {
                TrainingRequest::SaveExternal {
                    name,
                    options: SaveExternalOptions { ttl_seconds, age_encryption_recipients },
                }
            }
            Self::Load { path, optimizer } => {
                TrainingRequest::Load { path, options: LoadOptions { optimizer, weights_access_token: None } }
            }
        }
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::ForwardBackward => "forward_backward",
            Self::Forward => "forward",
            Self::OptimStep { .. } => "optim_step",
            Self::SaveState { .. } => "save_state",
            Self::SaveForSampler { .. } => "save_weights_for_sampler",
            Self::SaveExternal { .. } => "save_weights_external",
            Self::Load { .. } => "load_state",
        }
    }
}

/// What a log keeps in one piece: an entry, and what belongs to it. As bytes it is the length of its head (32 bits, little endian),
/// the head as JSON, and what is too large for JSON: the body of a pass as it is sent, without its place, or a cursor of the
/// application.
#[derive(Debug, Clone)]
pub struct Frame {
    pub(crate) entry: Entry,
    pub(crate) body: Bytes,
}

impl Frame {
    /// The frame as bytes.
    ///
    /// # Errors
    /// What of it cannot be written, as a sentence.
    pub fn to_bytes(&self) -> Result<Bytes, String> {
        let head = serde_json::to_vec(&self.entry).map_err(|error| error.to_string())?;
        let mut frame = BytesMut::with_capacity(4 + head.len() + self.body.len());
        frame.put_u32_le(u32::try_from(head.len()).unwrap_or(u32::MAX));
        frame.put_slice(&head);
        frame.put_slice(&self.body);
        Ok(frame.freeze())
    }

    /// A frame of these bytes.
    ///
    /// # Errors
    /// What is wrong with them, as a sentence.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, String> {
        let short = || "it is shorter than it says".to_owned();
        let length = bytes.first_chunk::<4>().ok_or_else(short)?;
        let end = 4 + u32::from_le_bytes(*length) as usize;
        let head = bytes.get(4..end).ok_or_else(short)?;
        let entry = json::read(head).map_err(|error| error.to_string())?;
        Ok(Self { entry, body: bytes.slice(end..) })
    }

    /// The frame that a log of this name has stored as these bytes.
    #[cfg(any(feature = "native", target_arch = "wasm32"))]
    pub(crate) fn stored_at(bytes: &Bytes, log: String, place: Place) -> Result<Self, LogError> {
        Self::from_bytes(bytes).map_err(|reason| match Self::newer_schema(bytes) {
            Some(found) => LogError::Newer { log, found, known: SCHEMA_VERSION },
            None => LogError::Damaged { log, place, reason },
        })
    }

    /// The schema that these bytes say they are of, if this version does not know it: they may be of another form.
    #[cfg(any(feature = "native", target_arch = "wasm32"))]
    fn newer_schema(bytes: &[u8]) -> Option<u32> {
        let length = bytes.first_chunk::<4>()?;
        let head = bytes.get(4..4 + u32::from_le_bytes(*length) as usize)?;
        let head: serde_json::Value = serde_json::from_slice(head).ok()?;
        let schema =
            head.get("head")?.get("schema")?.as_u64().and_then(|schema| u32::try_from(schema).ok())?;
        Some(schema).filter(|schema| *schema > SCHEMA_VERSION)
    }

    /// About how many bytes it takes in memory.
    pub(crate) fn size(&self) -> u64 {
        const ENTRY: u64 = 256;
        self.body.len() as u64 + ENTRY
    }
}

/// Numbers that JSON would not bring back as they were.
pub(crate) mod bits {
    use super::*;

    pub(crate) fn serialize<S: serde::Serializer>(
        values: &BTreeMap<String, f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let bits: BTreeMap<&String, u64> =
            values.iter().map(|(name, value)| (name, value.to_bits())).collect();
        bits.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, f64>, D::Error> {
        let bits = BTreeMap::<String, u64>::deserialize(deserializer)?;
        Ok(bits.into_iter().map(|(name, bits)| (name, f64::from_bits(bits))).collect())
    }
}
