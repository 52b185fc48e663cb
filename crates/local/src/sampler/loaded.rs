//! The weights that were sampled from last, ready to be sampled from again.

use std::sync::Arc;

use super::Source;
use crate::core::Core;
use crate::futures::Outcome;
use retinker_nn::MergedModel;

/// How many are kept.
const KEPT: usize = 16;
/// How much memory they may take.
const KEPT_BYTES: usize = 128 << 20;

/// The weights that were sampled from last.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// The latest last.
    models: Vec<(Key, Arc<MergedModel>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Base(String),
    /// A checkpoint's number, which no other checkpoint ever has.
    Checkpoint(u64),
}

impl Key {
    fn of(source: &Source) -> Self {
        match source {
            Source::Base(name) => Self::Base(name.clone()),
            Source::Checkpoint(row) => Self::Checkpoint(row.ordinal),
        }
    }
}

impl Loaded {
    /// The weights of a source, or what becomes of a request for them.
    pub(super) fn get(&mut self, core: &Core, source: &Source) -> Result<Arc<MergedModel>, Outcome> {
        let key = Key::of(source);
        let model = match self.models.iter().position(|(kept, _)| *kept == key) {
            Some(at) => self.models.remove(at).1,
            None => Arc::new(load(core, source)?),
        };
        self.models.push((key, Arc::clone(&model)));
        while self.models.len() > KEPT
            || (self.models.len() > 1
                && self.models.iter().map(|(_, m)| m.bytes()).sum::<usize>() > KEPT_BYTES)
        {
            self.models.remove(0);
        }
        Ok(model)
    }
}

fn load(core: &Core, source: &Source) -> Result<MergedModel, Outcome> {
    match source {
        Source::Base(name) => {
            let base = core.models.base(name).map_err(Outcome::user)?;
            MergedModel::new(base, None).map_err(|e| Outcome::server(format!("base model '{name}': {e}")))
        }
        Source::Checkpoint(row) => {
            let damaged = |reason: String| {
                Outcome::server(format!("checkpoint {} cannot be sampled from: {reason}", row.path()))
            };
            let verified = core.read_checkpoint(row).or_else(|reason| match core.newer_copy(row) {
                // A sampler that follows its run was given newer weights while the request waited.
                Some(newer) => core.read_checkpoint(&newer),
                None => Err(reason),
            });
            let verified = verified.map_err(Outcome::server)?;
            let base = core.models.base(&verified.origin.base_model).map_err(damaged)?;
            let adapter = verified.adapter(base.config()).map_err(|e| damaged(e.to_string()))?;
            MergedModel::new(base, Some(&adapter)).map_err(|e| damaged(e.to_string()))
        }
    }
}
