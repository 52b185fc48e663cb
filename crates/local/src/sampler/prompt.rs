//! What is said of a prompt.

use retinker_wire::sampling::{PromptAltTokens, SampleResponse, TargetLogprobs, TopkLogprobs};
use retinker_wire::tensor::TensorData;

use super::growing::NotFinite;
use super::spec::{Scoring, Spec, Targets};
use retinker_nn::{Choice, Distribution, Prompt, Rng};

impl Scoring {
    /// Whether anything but the last position is asked about.
    pub(super) fn wanted(&self) -> bool {
        self.logprobs || self.topk > 0 || self.targets.is_some() || self.alternatives > 0
    }
}

/// The answer as far as the prompt determines it: without samples. `prompt` was read with its scores if any are wanted.
pub(super) fn scored(spec: &Spec, prompt: &Prompt, seed: u64) -> Result<SampleResponse, NotFinite> {
    let mut response = SampleResponse {
        sequences: Vec::new(),
        prompt_logprobs: None,
        topk_prompt_logprobs: None,
        target_prompt_logprobs: None,
        prompt_alt_tokens: None,
        prompt_cache_hit_tokens: 0,
        kind: "sample",
    };
    let asked = &spec.prompt;
    if !asked.wanted() {
        return Ok(response);
    }
    // Position i says what token i + 1 is like; the last says what the samples begin with.
    let positions = prompt.scores().take(spec.tokens.len() - 1);
    let positions: Vec<Distribution<'_>> =
        positions.map(Distribution::new).collect::<Option<_>>().ok_or(NotFinite)?;
    let unscored = asked.last_n.map_or(0, |n| positions.len() - n);
    if asked.logprobs {
        let mut logprobs = vec![f32::NAN];
        for (i, (position, token)) in positions.iter().zip(spec.tokens.iter().skip(1)).enumerate() {
            logprobs.push(if i < unscored { f32::NAN } else { logprob(position, *token)? });
        }
        response.prompt_logprobs = Some(logprobs);
    }
    if asked.topk > 0 {
        let row = |(i, position): (usize, &Distribution<'_>)| {
            if i < unscored { Vec::new() } else { position.top(asked.topk) }
        };
        let rows = std::iter::once(Vec::new()).chain(positions.iter().enumerate().map(row));
        response.topk_prompt_logprobs = Some(TopkLogprobs { k: asked.topk, rows: rows.collect() });
    }
    if let Some(targets) = &asked.targets {
        response.target_prompt_logprobs = Some(score(targets, &positions)?);
    }
    if asked.alternatives > 0 {
        response.prompt_alt_tokens = Some(alternatives(spec, &positions, seed)?);
    }
    Ok(response)
}

fn logprob(position: &Distribution<'_>, token: u32) -> Result<f32, NotFinite> {
    position.logprob(token).ok_or(NotFinite)
}

fn score(targets: &Targets, positions: &[Distribution<'_>]) -> Result<TargetLogprobs, NotFinite> {
    let score = |(row, token): &(usize, Option<u32>)| match (positions.get(*row), token) {
        (Some(position), Some(token)) => logprob(position, *token),
        _ => Ok(0.0),
    };
    Ok(TargetLogprobs {
        data: targets.cells.iter().map(score).collect::<Result<_, _>>()?,
        dtype: "float32",
        shape: vec![positions.len() as u64, targets.columns],
        sparse_crow_indices: targets.layout.sparse_crow_indices.clone(),
        sparse_col_indices: targets.layout.sparse_col_indices.clone(),
    })
}

/// Tokens drawn at every position, each by itself, at the request's temperature.
fn alternatives(
    spec: &Spec,
    positions: &[Distribution<'_>],
    seed: u64,
) -> Result<PromptAltTokens, NotFinite> {
    let choice = Choice { top_k: None, top_p: 1.0, ..spec.choice };
    let mut rng = Rng::for_label(seed, "prompt_alt_tokens");
    let (mut tokens, mut logprobs) = (Vec::new(), Vec::new());
    for position in positions {
        for _ in 0..spec.prompt.alternatives {
            let token = position.draw(&choice, &mut rng);
            tokens.push(i64::from(token));
            logprobs.push(logprob(position, token)?);
        }
    }
    let shape = Some(vec![positions.len() as u64, spec.prompt.alternatives as u64]);
    Ok(PromptAltTokens {
        tokens: TensorData { shape: shape.clone(), ..TensorData::int64(tokens) },
        logprobs: TensorData { shape, ..TensorData::float32(logprobs) },
    })
}
