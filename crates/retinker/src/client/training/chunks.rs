//! A batch cut into requests, and their results put together again.

use retinker_wire::metrics;
use retinker_wire::training::{Datum, ForwardBackwardOutput};

use super::order::Part;
use crate::client::api::forward_backward_call;
use crate::client::encode::{Batch, LossFnConfig};
use crate::client::error::{Error, ErrorKind};

/// Makes requests of batches.
#[derive(Debug, Clone)]
pub(super) struct Chunker {
    pub(super) model_id: String,
    pub(super) max_datums: usize,
    pub(super) max_bytes: usize,
}

impl Chunker {
    /// The requests of a batch, encoded, and the number of datums in each.
    pub(super) fn parts(
        &self,
        operation: &str,
        data: &[Datum],
        loss_fn: &str,
        config: &LossFnConfig,
        forward_only: bool,
    ) -> Result<(Vec<Part>, Vec<usize>), Error> {
        if data.is_empty() {
            return Err(Error::config(operation, "the batch has no datum"));
        }
        let (mut parts, mut sizes) = (Vec::new(), Vec::new());
        for (chunk, bytes) in chunks(data, self.max_datums, self.max_bytes) {
            sizes.push(chunk.len());
            let model_id = self.model_id.clone();
            let batch = Batch::new(&model_id, chunk, loss_fn, config, forward_only)
                .map_err(|e| Error::config(operation, e.to_string()))?;
            let call = Box::new(move |seq_id| forward_backward_call(&model_id, seq_id, batch, forward_only));
            parts.push(Part { call, bytes });
        }
        Ok((parts, sizes))
    }
}

/// Greedy, in order, as the official SDK does it: one datum that is too large by itself gets a chunk of its own. Each with
/// its estimated bytes.
fn chunks(data: &[Datum], max_datums: usize, max_bytes: usize) -> Vec<(&[Datum], usize)> {
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (0, 0usize);
    for (i, datum) in data.iter().enumerate() {
        let size = datum.estimated_bytes();
        if i > start && (bytes + size > max_bytes || i - start == max_datums) {
            chunks.extend(data.get(start..i).map(|chunk| (chunk, bytes)));
            (start, bytes) = (i, 0);
        }
        bytes += size;
    }
    chunks.extend(data.get(start..).map(|chunk| (chunk, bytes)));
    chunks
}

/// The result of a batch from those of its chunks, which had so many datums. Metrics are combined by their reductions.
pub(super) fn merge(
    operation: &str,
    mut outputs: Vec<ForwardBackwardOutput>,
    sizes: &[usize],
) -> Result<ForwardBackwardOutput, Error> {
    if outputs.len() == 1
        && let Some(only) = outputs.pop()
    {
        return Ok(only);
    }
    let measured: Vec<_> =
        outputs.iter_mut().map(|o| std::mem::take(&mut o.metrics)).zip(sizes.iter().copied()).collect();
    let metrics = metrics::combine(&measured).map_err(|error| {
        Error::new(
            operation,
            ErrorKind::Undecodable {
                path: "its metrics".to_owned(),
                what: error.to_string(),
                snippet: String::new(),
            },
        )
    })?;
    let kind = outputs.first().map(|o| o.loss_fn_output_type.clone()).unwrap_or_default();
    let loss_fn_outputs = outputs.into_iter().flat_map(|o| o.loss_fn_outputs).collect();
    Ok(ForwardBackwardOutput { loss_fn_output_type: kind, loss_fn_outputs, metrics })
}
