//! A batch cut into requests, and their results put together again.

use std::sync::Arc;

use retinker_wire::capabilities::ClientConfig;
use retinker_wire::metrics;
use retinker_wire::training::{Datum, ForwardBackwardOutput, ModelInputChunk};

use super::operation::Part;
use super::request::TrainingRequest;
use crate::client::encode::{Batch, LossFnConfig, check};
use crate::client::error::Error;

/// The setting that names a loss of the session's.
const LOSS_ID: &str = "loss_id";

/// A batch that is to be passed forward, and backward where a gradient is wanted.
#[derive(Debug)]
pub(super) struct Pass {
    /// For errors.
    pub(super) operation: String,
    pub(super) data: Vec<Datum>,
    pub(super) loss_fn: String,
    pub(super) config: LossFnConfig,
    pub(super) forward_only: bool,
}

impl Pass {
    /// The same; an error if it could not be written.
    pub(super) fn checked(self) -> Result<Self, Error> {
        if self.data.is_empty() {
            return Err(Error::config(self.operation, "the batch has no datum"));
        }
        match check(&self.data) {
            Ok(()) => Ok(self),
            Err(error) => Err(Error::config(self.operation, error.to_string())),
        }
    }

    /// The requests, within the server's bounds. Each is written when it is sent, and its data are let go then: the batch is
    /// never in memory twice as a whole.
    pub(super) fn cut(self, bounds: &ClientConfig) -> Vec<Part> {
        let Self { operation, data, loss_fn, config, forward_only } = self;
        let of_session = if data.iter().any(|datum| datum.provenance.is_some()) {
            Some(
                "its data name samples of a session, and after a recovery there is another: leave their provenance out",
            )
        } else if config.contains_key(LOSS_ID) {
            Some(
                "a loss that the server computes belongs to a session, and after a recovery there is another: use forward_backward_custom",
            )
        } else {
            None
        };
        let shared = Arc::new((operation, loss_fn, config));
        let (most, most_bytes) =
            (bounds.fwdbwd_max_chunk_len.max(1), bounds.fwdbwd_max_chunk_bytes_count.max(1));
        let parts = chunks(data, most, most_bytes).into_iter().map(|(chunk, bytes)| {
            let (shared, datums) = (shared.clone(), chunk.len());
            let tokens = chunk.iter().map(tokens).sum();
            let write = Box::new(move || {
                let (operation, loss_fn, config) = &*shared;
                let batch = Batch::new(&chunk, loss_fn, config, forward_only)
                    .map_err(|e| Error::config(operation, e.to_string()))?;
                Ok(TrainingRequest::Pass { batch, forward_only })
            });
            Part { write, bytes, datums, tokens, makes_a_sampler: false, of_session }
        });
        parts.collect()
    }
}

/// The tokens of an example's text.
fn tokens(datum: &Datum) -> usize {
    let text = |chunk: &ModelInputChunk| match chunk {
        ModelInputChunk::EncodedText { tokens } => tokens.len(),
        _ => 0,
    };
    datum.model_input.chunks.iter().map(text).sum()
}

/// Greedy, in order, as the official SDK does it: one datum that is too large by itself gets a chunk of its own. Each with
/// its estimated bytes.
fn chunks(data: Vec<Datum>, most: usize, most_bytes: usize) -> Vec<(Vec<Datum>, usize)> {
    let mut chunks = Vec::new();
    let (mut chunk, mut bytes) = (Vec::new(), 0usize);
    for datum in data {
        let size = datum.estimated_bytes();
        if !chunk.is_empty() && (bytes + size > most_bytes || chunk.len() == most) {
            chunks.push((std::mem::take(&mut chunk), bytes));
            bytes = 0;
        }
        chunk.push(datum);
        bytes += size;
    }
    chunks.push((chunk, bytes));
    chunks
}

/// The result of a batch from those of its chunks, each with the number of its datums. Metrics are combined by their
/// reductions.
pub(super) fn merge(
    operation: &str,
    mut outputs: Vec<(ForwardBackwardOutput, usize)>,
) -> Result<ForwardBackwardOutput, Error> {
    if outputs.len() == 1
        && let Some((only, _)) = outputs.pop()
    {
        return Ok(only);
    }
    let measured: Vec<_> =
        outputs.iter_mut().map(|(output, datums)| (std::mem::take(&mut output.metrics), *datums)).collect();
    let metrics = metrics::combine(&measured)
        .map_err(|error| Error::unreadable(operation, "its metrics", error.to_string()))?;
    let kind = outputs.first().map(|(output, _)| output.loss_fn_output_type.clone()).unwrap_or_default();
    let loss_fn_outputs = outputs.into_iter().flat_map(|(output, _)| output.loss_fn_outputs).collect();
    Ok(ForwardBackwardOutput { loss_fn_output_type: kind, loss_fn_outputs, metrics })
}
