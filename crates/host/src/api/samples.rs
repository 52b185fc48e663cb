//! Samples, in text.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use retinker::client::{Error, SampleOptions, Tokenizer};
use retinker::host::samples::{
    Decimal, MAX_PROMPT, MAX_SAMPLES, MAX_TOKENS, Sample, SampleRequest, SampleSource, SampleSources,
    SampleToken, Samples,
};
use retinker::recovery::health::session_of_run;
use retinker::wire::run::{Checkpoint, CheckpointType};
use retinker::wire::sampling::SamplingParams;
use retinker::wire::training::ModelInput;

use super::Host;
use crate::acts::noted_while_awaited;
use crate::host::{Asked, Shared};
use crate::problem::Problem;
use crate::trial::{Drawn, is_path, pieces, problem_of, untokenized};

/// How long samples may take, with the tokenizer's download before them. A page waits for 60 s.
const PATIENCE: Duration = Duration::from_secs(50);
/// Checkpoints that are offered.
const OFFERED: usize = 500;
/// Checkpoints that are asked for at once: the most that services give.
const PAGE: u64 = 100;
/// Pages that are looked through for checkpoints of samplers.
const PAGES: u64 = 20;

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/samples", post(sample)).route("/samples/sources", get(sources))
}

async fn sources(State(host): Host) -> Result<Json<SampleSources>, Problem> {
    let base_models = host.status().service.base_models;
    let (listed, more) = match host.ask_all(listed(&host)).await {
        Ok(listed) => listed,
        // Then each run's newest has to do.
        Err(Asked::Service(error)) if error.is_unsupported() => {
            let index = host.index();
            let newest = index.rows().filter_map(|row| row.run.last_sampler_checkpoint.clone());
            (newest.take(OFFERED).collect(), false)
        }
        Err(asked) => return Err(asked.into()),
    };
    let index = host.index();
    let named = |checkpoint: Checkpoint| {
        let run_id = checkpoint.tinker_path.strip_prefix("tinker://").and_then(|path| path.split('/').next());
        let row = run_id.filter(|id| session_of_run(id).is_some()).and_then(|id| index.row(id));
        SampleSource {
            run_name: row.map_or_else(|| run_id.unwrap_or_default().to_owned(), |row| row.name.clone()),
            path: checkpoint.tinker_path,
            time: checkpoint.time,
        }
    };
    let mut checkpoints: Vec<SampleSource> = listed.into_iter().map(named).collect();
    checkpoints.sort_by(|a, b| (b.time, &b.path).cmp(&(a.time, &a.path)));
    Ok(Json(SampleSources { base_models, checkpoints, more }))
}

/// Checkpoints for samplers, and whether there may be more.
async fn listed(host: &Shared) -> Result<(Vec<Checkpoint>, bool), Error> {
    let (mut found, mut offset) = (Vec::new(), 0);
    for _ in 0..PAGES {
        let page = host.api.user_checkpoints(PAGE, offset).await?;
        let count = page.checkpoints.len() as u64;
        let for_samplers = |checkpoint: &Checkpoint| checkpoint.checkpoint_type == CheckpointType::Sampler;
        found.extend(page.checkpoints.into_iter().filter(for_samplers));
        offset += count;
        let at_end = match page.cursor {
            Some(cursor) => offset >= cursor.total_count,
            None => count < PAGE,
        };
        if count == 0 || at_end {
            return Ok((found, false));
        }
        if found.len() >= OFFERED {
            break;
        }
    }
    found.truncate(OFFERED);
    Ok((found, true))
}

async fn sample(
    State(host): Host,
    request: Result<Json<SampleRequest>, JsonRejection>,
) -> Result<Json<Samples>, Problem> {
    let Json(request) = request?;
    let options = options_of(&request)?;
    // Whoever asks and goes away drops this future, and with it the sample.
    let within = async {
        tokio::time::timeout(PATIENCE, drawn(&host, &request, &options)).await.map_err(|_| {
            Problem::new(
                StatusCode::GATEWAY_TIMEOUT,
                "samples_slow",
                format!("The samples were not there within {} s.", PATIENCE.as_secs()),
                "Ask for fewer tokens or fewer samples.",
            )
        })?
    };
    let source = request.source.trim().to_owned();
    noted_while_awaited(&host, "Try models", vec![source], within).await.map(Json)
}

async fn drawn(host: &Shared, request: &SampleRequest, options: &SampleOptions) -> Result<Samples, Problem> {
    let source = request.source.trim();
    let base_model = host.trial.base_model(source).await.map_err(|error| problem_of(&error))?;
    let tokenizer = host.trial.tokenizer(&base_model).await;
    let prompt = match (&tokenizer, request.tokens.is_empty()) {
        (_, false) => request.tokens.clone(),
        (Ok(tokenizer), true) => {
            tokenizer.encode(&request.prompt, true).map_err(|error| problem_of(&error))?
        }
        (Err(error), true) => return Err(untokenized(error)),
    };
    let input = ModelInput::from_ints(prompt.clone());
    let Drawn { response, took } =
        host.trial.sample(source, &input, options).await.map_err(|error| problem_of(&error))?;
    let prompt: Vec<u32> = prompt.into_iter().map(i32::cast_unsigned).collect();
    let mut no_text_because = tokenizer.as_ref().err().map(ToString::to_string);
    let mut told = |tokens: &[u32], scores: &[f32]| {
        texts(tokenizer.as_deref().ok(), tokens, scores).unwrap_or_else(|error| {
            no_text_because = Some(error.to_string());
            scored(tokens, scores, &[])
        })
    };
    let prompt = told(&prompt, response.prompt_logprobs.as_deref().unwrap_or_default());
    let samples = response
        .sequences
        .iter()
        .map(|sequence| Sample {
            tokens: told(&sequence.tokens, &sequence.logprobs),
            stop_reason: sequence.stop_reason.to_string(),
        })
        .collect();
    Ok(Samples {
        source: source.to_owned(),
        base_model,
        prompt,
        samples,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        no_text_because,
    })
}

fn texts(
    tokenizer: Option<&dyn Tokenizer>,
    tokens: &[u32],
    scores: &[f32],
) -> Result<Vec<SampleToken>, Error> {
    let texts = tokenizer.map(|tokenizer| pieces(tokenizer, tokens)).transpose()?;
    Ok(scored(tokens, scores, &texts.unwrap_or_default()))
}

fn scored(tokens: &[u32], scores: &[f32], texts: &[String]) -> Vec<SampleToken> {
    let token = |(at, id): (usize, &u32)| SampleToken {
        id: *id,
        text: texts.get(at).cloned().unwrap_or_default(),
        logprob: scores.get(at).copied().filter(|score| score.is_finite()),
    };
    tokens.iter().enumerate().map(token).collect()
}

/// What is asked for, within its bounds.
fn options_of(request: &SampleRequest) -> Result<SampleOptions, Problem> {
    let refuse = |message: String| Err(Problem::bad_request(message));
    let source = request.source.trim();
    if source.is_empty() || source.contains("://") && !is_path(source) {
        return refuse("Say what to sample from: a tinker:// path, or the name of a base model.".to_owned());
    }
    if request.prompt.is_empty() == request.tokens.is_empty() {
        return refuse("Give a prompt: a text, or token numbers, and not both.".to_owned());
    }
    if request.prompt.len() > MAX_PROMPT || request.tokens.len() > MAX_PROMPT {
        return refuse(format!("The prompt is longer than {MAX_PROMPT} bytes."));
    }
    let max_tokens = request.max_tokens.unwrap_or(64);
    if !(1..=MAX_TOKENS).contains(&max_tokens) {
        return refuse(format!("A sample has from 1 to {MAX_TOKENS} tokens, not {max_tokens}."));
    }
    let num_samples = request.num_samples.unwrap_or(1);
    if !(1..=MAX_SAMPLES).contains(&num_samples) {
        return refuse(format!("From 1 to {MAX_SAMPLES} samples can be drawn at once, not {num_samples}."));
    }
    let temperature = number(request.temperature.as_ref(), "temperature", 0.0..=100.0)?;
    let top_p = number(request.top_p.as_ref(), "top_p", 0.0..=1.0)?;
    let top_k = request.top_k.unwrap_or(-1);
    if top_k == 0 || top_k < -1 {
        return refuse(format!("top_k is at least 1, or -1 for all tokens, not {top_k}."));
    }
    Ok(SampleOptions {
        num_samples,
        sampling_params: SamplingParams {
            max_tokens: Some(max_tokens.into()),
            seed: request.seed.map(Into::into),
            stop: None,
            temperature,
            top_k,
            top_p,
        },
        include_prompt_logprobs: request.prompt_logprobs,
        ..SampleOptions::default()
    })
}

/// 1 when absent.
fn number(given: Option<&Decimal>, name: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64, Problem> {
    let Some(given) = given.filter(|given| !given.0.trim().is_empty()) else { return Ok(1.0) };
    given.value().filter(|value| range.contains(value)).ok_or_else(|| {
        Problem::bad_request(format!("{name} must be a number from {} to {}.", range.start(), range.end()))
    })
}
