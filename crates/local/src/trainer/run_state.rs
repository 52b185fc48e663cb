//! What a trainer holds of one run, and the arithmetic on it.

use std::io::{self, Read, Write};
use std::sync::Arc;

use retinker_wire::metrics::Metrics;
use retinker_wire::training::{AdamParams, ForwardBackwardOutput};

use super::batch::Batch;
use super::job::ForwardBackward;
use crate::checkpoint::{ReadError, Verified};
use crate::lora::LoraShape;
use retinker_nn::{self as nn, Adapter, BaseModel, Gradients, Layout, NnError, OptimizerState, Workspace};

/// What a trainer holds of one run.
#[derive(Debug)]
pub(super) struct RunState {
    base: Arc<BaseModel>,
    pub(super) adapter: Adapter,
    gradients: Gradients,
    pub(super) optimizer: OptimizerState,
    /// Whether gradients wait for an optimizer step.
    pub(super) gradients_pending: bool,
    /// Whether anything here is not in the run's newest checkpoint.
    pub(super) modified: bool,
}

impl RunState {
    /// The state in which a run begins.
    pub(super) fn fresh(base: Arc<BaseModel>, lora: &LoraShape) -> Result<Self, NnError> {
        let adapter = Adapter::new(base.config(), &lora.to_nn())?;
        let optimizer = OptimizerState::new(adapter.layout());
        Ok(Self::new(base, adapter, optimizer))
    }

    /// The state that a checkpoint holds; with a new optimizer unless its own is asked for.
    pub(super) fn restored(
        base: Arc<BaseModel>,
        saved: &Verified,
        optimizer: bool,
    ) -> Result<Self, ReadError> {
        let adapter = saved.adapter(base.config())?;
        let optimizer =
            if optimizer { saved.optimizer(&adapter)? } else { OptimizerState::new(adapter.layout()) };
        Ok(Self::new(base, adapter, optimizer))
    }

    fn new(base: Arc<BaseModel>, adapter: Adapter, optimizer: OptimizerState) -> Self {
        let gradients = Gradients::zeros(adapter.layout());
        Self { base, adapter, gradients, optimizer, gradients_pending: false, modified: false }
    }

    /// How many bytes a state of this layout takes: weights, gradients and two moments.
    pub(super) fn bytes_of(layout: &Layout) -> u64 {
        4 * size_of::<f32>() as u64 * layout.parameter_count() as u64
    }

    /// How many bytes it takes.
    pub(super) fn bytes(&self) -> u64 {
        Self::bytes_of(self.adapter.layout())
    }

    /// Writes all of it, but for what the run is made of.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.optimizer.step().to_le_bytes())?;
        out.write_all(&[u8::from(self.gradients_pending), u8::from(self.modified)])?;
        write_values(out, self.adapter.values())?;
        for moment in self.optimizer.moments() {
            write_values(out, moment)?;
        }
        // They are zero unless they wait for a step.
        if self.gradients_pending { write_values(out, self.gradients.values()) } else { Ok(()) }
    }

    /// Reads what [`Self::write`] wrote, bit for bit.
    pub(super) fn read(base: Arc<BaseModel>, layout: Layout, input: &mut impl Read) -> io::Result<Self> {
        let (mut step, mut flags) = ([0; 8], [0; 2]);
        input.read_exact(&mut step)?;
        input.read_exact(&mut flags)?;
        let [gradients_pending, modified] = flags.map(|flag| flag != 0);
        let layout = Arc::new(layout);
        let mut values = || read_values(input, layout.parameter_count());
        let misfit = io::Error::other::<NnError>;
        let adapter = Adapter::from_values(&layout, values()?).map_err(misfit)?;
        let moments = [values()?, values()?];
        let optimizer =
            OptimizerState::from_moments(&layout, u64::from_le_bytes(step), moments).map_err(misfit)?;
        let gradients = if gradients_pending {
            Gradients::from_values(&layout, values()?).map_err(misfit)?
        } else {
            Gradients::zeros(&layout)
        };
        Ok(Self { base, adapter, gradients, optimizer, gradients_pending, modified })
    }

    /// Scores a batch; adds its gradients unless it is a forward pass only. An error is the batch's fault and leaves
    /// everything as it was.
    pub(super) fn pass(
        &mut self,
        pass: &ForwardBackward,
        workspace: &mut Workspace,
    ) -> Result<ForwardBackwardOutput, String> {
        let batch = Batch::new(pass)?;
        let loss = |index: usize, logprobs: &[f32]| batch.loss(index, logprobs);
        let (base, adapter, examples) = (&self.base, &self.adapter, &batch.examples);
        let outputs = if pass.forward_only {
            nn::forward_with(base, adapter, examples, workspace, loss)
        } else {
            nn::forward_backward_with(base, adapter, examples, workspace, &mut self.gradients, loss)
        }
        .map_err(explain)?;
        if !pass.forward_only {
            self.gradients_pending = true;
            self.modified = true;
        }
        Ok(batch.output(outputs))
    }

    /// Whether weights and optimizer state can be trained on.
    pub(super) fn is_finite(&self) -> bool {
        self.adapter.is_finite() && self.optimizer.is_finite()
    }

    fn drop_gradients(&mut self) {
        self.gradients.zero();
        self.gradients_pending = false;
    }

    /// Takes an optimizer step with the gradients added up since the last. An error is the caller's fault; it leaves the
    /// weights as they are and drops the gradients.
    pub(super) fn step(&mut self, params: &AdamParams) -> Result<Metrics, String> {
        let metrics = nn::optim_step(&mut self.adapter, &mut self.gradients, &mut self.optimizer, params)
            .map_err(|error| {
                self.drop_gradients();
                format!(
                    "{}: the step was not taken, the weights are as before, and the gradients were dropped",
                    explain(error)
                )
            })?;
        self.gradients_pending = false;
        self.modified = true;
        Ok(Metrics::from([("unclipped_grad_l2:mean".to_owned(), metrics.grad_norm)]))
    }
}

/// How many values are converted at a time: a copy of all of them would double what is in memory.
const VALUES: usize = 16 << 10;

fn write_values(out: &mut impl Write, values: &[f32]) -> io::Result<()> {
    values.chunks(VALUES).try_for_each(|chunk| out.write_all(&retinker_wire::tensor::f32_bytes(chunk)))
}

fn read_values(input: &mut impl Read, count: usize) -> io::Result<Vec<f32>> {
    let mut values = Vec::with_capacity(count);
    while values.len() < count {
        let mut bytes = vec![0; VALUES.min(count - values.len()) * size_of::<f32>()];
        input.read_exact(&mut bytes)?;
        values.extend(retinker_wire::tensor::f32_values(&bytes).map_err(io::Error::other)?);
    }
    Ok(values)
}

fn explain(error: NnError) -> String {
    match error {
        // The protocol calls an example a datum.
        NnError::InvalidExample { index, reason } => format!("datum {index}: {reason}"),
        NnError::InvalidLoss { index, reason } => format!(
            "datum {index}: the loss: {reason}; nothing was added to the gradients; look for logprobs that are not \
             those of the targets, or numbers that are too large"
        ),
        NnError::GradientsNotFinite => {
            "the gradients of the batch are not finite: nothing was added to those before; \
             look for weights or advantages that are too large"
                .to_owned()
        }
        other => other.to_string(),
    }
}
