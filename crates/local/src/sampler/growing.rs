//! One sample while it grows.

use std::sync::Arc;

use retinker_wire::sampling::{SampledSequence, StopReason, TopkLogprobs};

use super::spec::{Spec, Stops};
use retinker_nn::{Distribution, Rng};

/// One sample while it grows.
#[derive(Debug)]
pub(super) struct Growing {
    spec: Arc<Spec>,
    rng: Rng,
    /// The most tokens.
    room: usize,
    tokens: Vec<u32>,
    newest: u32,
    logprobs: Vec<f32>,
    top: Vec<Vec<(u32, f32)>>,
    /// What the tokens say, for stops that are texts.
    text: Vec<u8>,
}

/// The logits are not finite: there is nothing to draw from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotFinite;

impl Growing {
    pub(super) fn new(spec: &Arc<Spec>, seed: u64, room: usize) -> Self {
        Self {
            spec: Arc::clone(spec),
            rng: Rng::new(seed),
            room,
            tokens: Vec::new(),
            newest: 0,
            logprobs: Vec::new(),
            top: Vec::new(),
            text: Vec::new(),
        }
    }

    /// The token drawn last; of no meaning before the first.
    pub(super) fn newest(&self) -> u32 {
        self.newest
    }

    /// Draws the next token. Says why the sample ends with it, if it does.
    pub(super) fn draw(&mut self, logits: &[f32]) -> Result<Option<StopReason>, NotFinite> {
        let distribution = Distribution::new(logits).ok_or(NotFinite)?;
        let token = distribution.draw(&self.spec.choice, &mut self.rng);
        self.tokens.push(token);
        self.newest = token;
        self.logprobs.push(distribution.logprob(token).ok_or(NotFinite)?);
        if self.spec.topk_sample > 0 {
            self.top.push(distribution.top(self.spec.topk_sample));
        }
        Ok(if self.stops(token) {
            Some(StopReason::Stop)
        } else {
            (self.tokens.len() >= self.room).then_some(StopReason::Length)
        })
    }

    fn stops(&mut self, token: u32) -> bool {
        match &self.spec.stop {
            Stops::Tokens(stops) => stops.contains(&token),
            // A token is a byte or nothing, so a text can only end with the newest.
            Stops::Texts(stops) => u8::try_from(token).is_ok_and(|byte| {
                self.text.push(byte);
                stops.iter().any(|stop| self.text.ends_with(stop))
            }),
        }
    }

    pub(super) fn finish(self, stop_reason: StopReason) -> SampledSequence {
        let k = self.spec.topk_sample;
        SampledSequence {
            stop_reason,
            tokens: self.tokens,
            logprobs: self.logprobs,
            topk_logprobs: (k > 0).then_some(TopkLogprobs { k, rows: self.top }),
            sequence_id: None,
        }
    }
}
