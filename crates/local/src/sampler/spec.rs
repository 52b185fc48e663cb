//! What a sampling request asks for, checked.

use retinker_wire::sampling::{AsampleRequest, SamplingParams, Stop, TargetTokens};

use retinker_nn::{Choice, EOS_TOKEN, ModelConfig};

/// The most samples of a request.
pub(crate) const MAX_SAMPLES: i64 = 1024;
/// The most cells of a result, at 8 bytes or so: sampled tokens and the most probable ones beside each.
const MAX_CELLS: usize = 8 << 20;

/// What a sampling request asks for. What depends on the model is checked by [`Spec::fit`].
#[derive(Debug, PartialEq)]
pub(crate) struct Spec {
    pub(super) tokens: Vec<u32>,
    pub(super) samples: usize,
    /// `None` = up to the model's context.
    pub(super) max_tokens: Option<usize>,
    pub(super) choice: Choice,
    /// `None` = any.
    pub(super) seed: Option<u64>,
    pub(super) stop: Stops,
    /// So many of the most probable tokens beside each sampled one.
    pub(super) topk_sample: usize,
    pub(super) prompt: Scoring,
}

/// What ends a sample beside its length.
#[derive(Debug, PartialEq)]
pub(super) enum Stops {
    Tokens(Vec<u32>),
    Texts(Vec<Vec<u8>>),
}

/// What is asked about the prompt.
#[derive(Debug, PartialEq)]
pub(super) struct Scoring {
    pub(super) logprobs: bool,
    pub(super) topk: usize,
    /// `None` = all of its tokens.
    pub(super) last_n: Option<usize>,
    pub(super) targets: Option<Targets>,
    /// So many tokens drawn at each position.
    pub(super) alternatives: usize,
}

/// Tokens to score.
#[derive(Debug, PartialEq)]
pub(super) struct Targets {
    /// As they came; the scores are laid out alike.
    pub(super) layout: TargetTokens,
    pub(super) columns: u64,
    /// For each value its row, and its token if it is of interest.
    pub(super) cells: Vec<(usize, Option<u32>)>,
}

impl Spec {
    /// Reads a request. The error says what is wrong with it.
    pub(crate) fn read(request: AsampleRequest) -> Result<Self, String> {
        let mut tokens = Vec::new();
        for (i, chunk) in request.prompt.chunks.into_iter().enumerate() {
            match chunk.kind.as_deref() {
                None | Some("encoded_text") => {
                    let text =
                        chunk.tokens.ok_or_else(|| format!("chunk {i} of the prompt has no tokens"))?;
                    for token in text {
                        tokens.push(id(token, "the prompt")?);
                    }
                }
                Some(kind) => {
                    return Err(format!(
                        "chunk {i} of the prompt is of kind '{kind}', which is not supported here; send encoded_text"
                    ));
                }
            }
        }
        if tokens.is_empty() {
            return Err("the prompt has no tokens; it needs at least one".to_owned());
        }
        if !(1..=MAX_SAMPLES).contains(&request.num_samples) {
            return Err(format!("num_samples must be from 1 to {MAX_SAMPLES}, not {}", request.num_samples));
        }
        let params = request.sampling_params;
        let max_tokens = match params.max_tokens {
            Some(tokens) if tokens < 1 => return Err(format!("max_tokens must be at least 1, not {tokens}")),
            tokens => tokens.map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX)),
        };
        let last_n = match request.prompt_logprobs_last_n {
            None => None,
            Some(_) if request.prompt_logprobs != Some(true) => {
                return Err("prompt_logprobs_last_n needs prompt_logprobs".to_owned());
            }
            Some(n) => match usize::try_from(n) {
                Ok(n) if n >= 1 && n < tokens.len() => Some(n),
                _ => {
                    return Err(format!(
                        "prompt_logprobs_last_n must be at least 1 and less than the prompt's {} tokens, not {n}",
                        tokens.len()
                    ));
                }
            },
        };
        let prompt = Scoring {
            logprobs: request.prompt_logprobs == Some(true),
            topk: count("topk_prompt_logprobs", request.topk_prompt_logprobs)?,
            last_n,
            targets: request
                .target_prompt_logprobs
                .map(|targets| Targets::read(targets, tokens.len() - 1))
                .transpose()?,
            alternatives: count("prompt_alt_tokens_k", request.prompt_alt_tokens_k)?,
        };
        Ok(Self {
            samples: usize::try_from(request.num_samples).unwrap_or_default(),
            max_tokens,
            choice: choice(&params)?,
            // The seeds of other languages may be negative: as good as any others.
            seed: params.seed.map(|seed| seed as u64),
            stop: Stops::read(params.stop)?,
            topk_sample: count("topk_sample_logprobs", request.topk_sample_logprobs)?,
            prompt,
            tokens,
        })
    }

    /// Checks the request against a model. Gives how long a sample may become.
    pub(super) fn fit(&self, model: &ModelConfig) -> Result<usize, String> {
        let (vocabulary, context) = (model.vocab_size, model.max_context);
        let unknown = |token: &&u32| **token as usize >= vocabulary;
        let refuse = |token: &u32, place: &str| {
            Err(format!("token {token} in {place} is not in the vocabulary of {vocabulary}"))
        };
        if let Some(token) = self.tokens.iter().find(unknown) {
            return refuse(token, "the prompt");
        }
        if let Stops::Tokens(stops) = &self.stop
            && let Some(token) = stops.iter().find(unknown)
        {
            return refuse(token, "stop");
        }
        let targets = self.prompt.targets.iter().flat_map(|targets| &targets.cells);
        if let Some(token) = targets.filter_map(|(_, token)| token.as_ref()).find(unknown) {
            return refuse(token, "target_prompt_logprobs");
        }
        for (member, k) in
            [("topk_prompt_logprobs", self.prompt.topk), ("topk_sample_logprobs", self.topk_sample)]
        {
            if k > vocabulary {
                return Err(format!("{member} must be at most the vocabulary of {vocabulary}, not {k}"));
            }
        }
        // A prompt that fills the context can be scored: what is sampled in passing is read by nobody.
        let scored = self.prompt.logprobs && self.tokens.len() == context;
        let room = if scored { 1 } else { context.saturating_sub(self.tokens.len()) };
        if room == 0 {
            return Err(format!(
                "the prompt has {} tokens, which leaves nothing of the model's context of {context} for samples",
                self.tokens.len()
            ));
        }
        let room = self.max_tokens.map_or(room, |tokens| tokens.min(room));
        let sampled = self.samples.saturating_mul(room).saturating_mul(1 + self.topk_sample);
        let drawn = self.tokens.len().saturating_mul(self.prompt.alternatives);
        if sampled.saturating_add(drawn) > MAX_CELLS {
            return Err(
                "the result could become too large; ask for fewer samples, fewer tokens, or fewer of the most \
                 probable tokens beside each"
                    .to_owned(),
            );
        }
        Ok(room)
    }

    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        let cells = self.prompt.targets.as_ref().map_or(0, |targets| targets.cells.len());
        512 + 4 * self.tokens.len() + 40 * cells
    }
}

impl Stops {
    fn read(stop: Option<Stop>) -> Result<Self, String> {
        let texts = match stop {
            None => return Ok(Self::Tokens(vec![EOS_TOKEN])),
            Some(Stop::Tokens(tokens)) => {
                return tokens
                    .into_iter()
                    .map(|token| id(token, "stop"))
                    .collect::<Result<_, _>>()
                    .map(Self::Tokens);
            }
            Some(Stop::Text(text)) => vec![text],
            Some(Stop::Texts(texts)) => texts,
        };
        if texts.iter().any(String::is_empty) {
            return Err(
                "a text in stop is empty; it would end every sample before its first token".to_owned()
            );
        }
        Ok(Self::Texts(texts.into_iter().map(String::into_bytes).collect()))
    }
}

impl Targets {
    fn read(layout: TargetTokens, rows: usize) -> Result<Self, String> {
        let fail = |reason: String| Err(format!("target_prompt_logprobs: {reason}"));
        if layout.dtype != "int64" {
            return fail(format!("its dtype must be int64, not {}", layout.dtype));
        }
        let columns = match layout.shape.as_deref() {
            Some(&[stated, columns]) if stated == rows as u64 => columns,
            other => {
                return fail(format!(
                    "its shape must be [{rows}, K], a row for each token of the prompt after the first, not {other:?}"
                ));
            }
        };
        let rows_of_values = match (&layout.sparse_crow_indices, &layout.sparse_col_indices) {
            (None, None) => {
                if (rows as u64).checked_mul(columns) != Some(layout.data.len() as u64) {
                    return fail(format!("{} values do not fill {rows} x {columns}", layout.data.len()));
                }
                let columns = usize::try_from(columns).unwrap_or(usize::MAX);
                (0..layout.data.len()).map(|i| i / columns).collect()
            }
            (Some(crow), Some(col)) => match compressed_rows(crow, col, rows, columns, layout.data.len()) {
                Some(rows) => rows,
                None => return fail("its sparse indices do not fit its shape and values".to_owned()),
            },
            _ => return fail("it has only one of the two lists of sparse indices".to_owned()),
        };
        let cells = rows_of_values.into_iter().zip(&layout.data).map(|(row, token)| match token {
            -1 => Ok((row, None)),
            token => Ok((row, Some(id(*token, "target_prompt_logprobs")?))),
        });
        let cells = cells.collect::<Result<_, String>>()?;
        Ok(Self { layout, columns, cells })
    }
}

/// The row of each value of a matrix in compressed rows; `None` when the indices do not fit together.
fn compressed_rows(
    crow: &[i64],
    col: &[i64],
    rows: usize,
    columns: u64,
    values: usize,
) -> Option<Vec<usize>> {
    let in_range = |column: &i64| u64::try_from(*column).is_ok_and(|column| column < columns);
    if crow.len() != rows + 1 || crow.first() != Some(&0) || col.len() != values || !col.iter().all(in_range)
    {
        return None;
    }
    let mut of = Vec::with_capacity(values);
    for (row, bounds) in crow.windows(2).enumerate() {
        let &[from, to] = bounds else { return None };
        let count = usize::try_from(to.checked_sub(from)?).ok()?;
        if count > values - of.len() {
            return None;
        }
        of.extend(std::iter::repeat_n(row, count));
    }
    (of.len() == values).then_some(of)
}

fn choice(params: &SamplingParams) -> Result<Choice, String> {
    if !(params.temperature.is_finite() && params.temperature >= 0.0) {
        return Err(format!("temperature must be 0 or a positive number, not {}", params.temperature));
    }
    if !(params.top_p > 0.0 && params.top_p <= 1.0) {
        return Err(format!("top_p must be above 0 and at most 1, not {}", params.top_p));
    }
    let top_k = match params.top_k {
        -1 => None,
        k if k >= 1 => Some(usize::try_from(k).unwrap_or(usize::MAX)),
        k => return Err(format!("top_k must be -1 for all tokens, or at least 1, not {k}")),
    };
    Ok(Choice { temperature: params.temperature, top_k, top_p: params.top_p })
}

fn count(member: &str, k: i64) -> Result<usize, String> {
    usize::try_from(k).map_err(|_| format!("{member} must be 0 or more, not {k}"))
}

fn id(token: i64, place: &str) -> Result<u32, String> {
    u32::try_from(token).map_err(|_| format!("token {token} in {place} is not in any vocabulary"))
}
