//! Sampling, and waiting for many samples at once.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use retinker_wire::sampling::{
    AsampleRequest, CLONE_BLOCK, CancelFutureRequest, FuturesTarget, RetrieveFuturesRequest,
    RetrieveFuturesResponse, SampleFuture,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::body::Body;
use super::{ApiError, Shared};
use crate::core::Core;
use crate::fingerprint::Fingerprint;
use crate::futures::{Accepted, Listener, Outcome};
use crate::sampler::{Job, MAX_SAMPLES, Spec};

/// How long a poller is held when there is nothing to tell. Clients give up after 45 s.
const HOLD: Duration = Duration::from_secs(20);

/// What the ids of requests outside of sampling sessions begin with.
const UNNUMBERED: &str = "sample:";

pub(crate) async fn asample(State(core): Shared, body: Body) -> Result<Json<SampleFuture>, ApiError> {
    let request: AsampleRequest = body.json().await?;
    let (source, request_id, fingerprint, listener) = match &request.sampling_session_id {
        Some(session) => {
            let seq = request.seq_id.ok_or_else(|| {
                ApiError::unprocessable("seq_id is missing; it must come with sampling_session_id".to_owned())
            })?;
            let fingerprint = Fingerprint::of_body("asample", &body.json::<Value>().await?);
            let listener = Listener { sampling_session_id: session.clone(), clone: seq / CLONE_BLOCK };
            (core.sampling_source(session)?, format!("{session}:{seq}"), Some(fingerprint), Some(listener))
        }
        None => {
            let source = core.source_of(request.base_model.as_deref(), request.model_path.as_deref())?;
            (source, format!("{UNNUMBERED}{}", uuid::Uuid::new_v4()), None, None)
        }
    };
    // A bad number of samples makes a request that fails, and has no samples to name.
    let samples = request.num_samples.clamp(0, MAX_SAMPLES);
    let sample_sequence_ids = (0..samples).map(|i| format!("{request_id}:{i}")).collect();
    match core.futures.accept_sample(&request_id, fingerprint, listener) {
        Accepted::New(completer) => match Spec::read(request) {
            Ok(spec) => {
                if let Some(outcome) = core.faults.of_operation("sample", &request_id) {
                    completer.complete(outcome);
                } else if let Err((completer, reason)) = core.sampler.submit(Job { source, spec, completer })
                {
                    completer.withdraw();
                    return Err(ApiError::too_many(reason));
                }
            }
            Err(reason) => completer.complete(Outcome::user(reason)),
        },
        Accepted::Before => {}
        Accepted::Reused => {
            return Err(ApiError::conflict(format!(
                "another sampling request was accepted as {request_id}; a new request needs a new seq_id"
            )));
        }
    }
    Ok(Json(SampleFuture { request_id, sample_sequence_ids }))
}

pub(crate) async fn cancel_future(State(core): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let CancelFutureRequest { request_id } = body.json().await?;
    core.sampler.cancel(&request_id);
    Ok(Json(json!({})))
}

pub(crate) async fn retrieve_futures(
    State(core): Shared,
    body: Body,
) -> Result<Json<RetrieveFuturesResponse>, ApiError> {
    let request: RetrieveFuturesRequest = body.json().await?;
    let FuturesTarget::SamplingSession { sampling_session_id, cloned_sampler_id } = request.target;
    core.sampling_source(&sampling_session_id)?;
    let listener = Listener { sampling_session_id, clone: cloned_sampler_id };
    let hold = request.timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
    let deadline = Instant::now() + hold.unwrap_or(HOLD).min(HOLD);
    let mut news = core.futures.listen();
    let mut stopping = core.stopping.subscribe();
    loop {
        // Before looking, so that what comes after is not missed.
        news.borrow_and_update();
        let (completions, cursor) =
            core.futures.news(&listener, request.prev_cursor, &request.retrieved_request_ids);
        if !completions.is_empty() || Instant::now() >= deadline || *stopping.borrow() {
            return Ok(Json(RetrieveFuturesResponse { completions, cursor }));
        }
        tokio::select! {
            _ = news.changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }
}

/// The answer for a sampling request whose result is not kept, or that a former service took in: clients send it anew.
pub(crate) fn lost(request_id: &str) -> ApiError {
    ApiError::gone(format!("the result of sampling request {request_id} is no longer kept; sample again"))
}

impl Core {
    /// Whether an id is one that sampling requests have.
    pub(crate) fn is_sample(&self, request_id: &str) -> bool {
        let unnumbered =
            request_id.strip_prefix(UNNUMBERED).is_some_and(|rest| uuid::Uuid::parse_str(rest).is_ok());
        unnumbered
            || request_id.rsplit_once(':').is_some_and(|(session, seq)| {
                seq.parse::<u64>().is_ok() && self.sampling_source(session).is_ok()
            })
    }
}
