//! A training loop with a redo log, on the embedded service: whatever happens to its run, its losses are those of a run to which
//! nothing happened, bit for bit.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use retinker::client::retry::RetryPolicy;
use retinker::client::{
    Api, CustomLoss, ErrorKind, LoadOptions, LossFnConfig, PendingEvent, RestClient, SaveOptions, Secret,
    ServiceClient, TrainingClient, TrainingOptions,
};
use retinker::host::HostClient;
use retinker::host::api::TOLD_NEWEST;
use retinker::host::checkpoints::{CheckpointActions, CheckpointDo, CheckpointsQuery};
use retinker::host::redo::{GoBack, RedoQuery};
use retinker::native::{DiskLog, NativeRuntime, download_archive};
use retinker::recovery::health::Health;
use retinker::recovery::journal::{MemoryStore, Store};
use retinker::recovery::plan::{MetricMode, NoPlan, PlanRequest};
use retinker::recovery::planner::{gather, make_plan};
use retinker::recovery::restore::RestoreState;
use retinker::recovery::retention::Rule;
use retinker::redo::{
    Calibration, CheckpointPolicy, Frame, LogError, Matching, MemoryLog, Place, Recorded, Redo, RedoError,
    RedoEvent, RedoLog, RedoOptions, Resumed, calibrate,
};
use retinker::runtime::Runtime;
use retinker::wire::model::LoraConfig;
use retinker::wire::session::FinishReason;
use retinker::wire::tensor::TensorData;
use retinker::wire::training::{AdamParams, Datum, ModelInput, Provenance};
use retinker_host::{Location, RedoLogs};
use retinker_ir::lineage::{Record, events_of_restore};
use retinker_local::{LocalConfig, LocalService, OperationRule, RequestFault, RequestRule};
use retinker_tests::console::console;
use retinker_tests::{runs, schedule};

async fn service() -> (tempfile::TempDir, LocalService, Api) {
    retinker_tests::service::embedded().await.unwrap()
}

async fn undisturbed(api: &Api) -> TrainingClient {
    let owner = ServiceClient::new(api.clone());
    let made = TrainingOptions::default();
    owner.create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), made).await.unwrap()
}

async fn redo(api: &Api, log: impl RedoLog, every: u64) -> Redo {
    let checkpoints = CheckpointPolicy { every_steps: Some(every), ..CheckpointPolicy::default() };
    with(api, log, RedoOptions { checkpoints, ..RedoOptions::default() }).await.unwrap()
}

async fn with(api: &Api, log: impl RedoLog, options: RedoOptions) -> Result<Redo, RedoError> {
    Redo::lora(&ServiceClient::new(api.clone()), log, schedule::BASE_MODEL, schedule::lora(), options).await
}

fn none() -> LossFnConfig {
    LossFnConfig::new()
}

fn adam() -> AdamParams {
    AdamParams { learning_rate: 1e-2, ..AdamParams::default() }
}

/// One step of the schedule; its loss.
async fn step(client: &TrainingClient, step: usize) -> f64 {
    let passed = client.forward_backward(schedule::batch(step), "cross_entropy", &none());
    let stepped = client.optim_step(adam());
    let loss = passed.await.unwrap().metrics["loss:sum"];
    stepped.await.unwrap();
    loss
}

async fn train(client: &TrainingClient, steps: std::ops::Range<usize>) -> Vec<f64> {
    let mut losses = Vec::new();
    for n in steps {
        losses.push(step(client, n).await);
    }
    losses
}

/// The log-probabilities of a batch's targets, which tell any two states of the weights apart; and the loss behind one step more,
/// which tells two states of the optimizer apart.
async fn state(client: &TrainingClient) -> (Vec<f32>, f64) {
    let output = client.forward(schedule::batch(999), "cross_entropy", &none()).await.unwrap();
    let weights = output.loss_fn_outputs.iter().flat_map(|one| one["logprobs"].to_f32()).collect();
    step(client, 1000).await;
    (weights, step(client, 1001).await)
}

/// The tensors of a checkpoint of the client's run, by file: its weights, and what else a service keeps of it.
async fn tensors(api: &Api, client: &TrainingClient) -> Vec<(String, Vec<u8>)> {
    let path = client.save_state("final", SaveOptions::default()).await.unwrap().path;
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("final");
    let files = download_archive(&RestClient::new(api.clone()), &path, &target, |_| {}).await.unwrap();
    let named = files.into_iter().map(|file| {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read(file).unwrap())
    });
    let mut tensors: Vec<_> = named.filter(|(name, _)| name.ends_with(".safetensors")).collect();
    tensors.sort();
    assert!(tensors.iter().any(|(name, bytes)| name == "adapter_model.safetensors" && bytes.len() > 10_000));
    tensors
}

/// What has been told so far.
fn told(events: &mut (impl futures_util::Stream<Item = RedoEvent> + Unpin)) -> Vec<RedoEvent> {
    std::iter::from_fn(|| events.next().now_or_never().flatten()).collect()
}

async fn poison(service: &LocalService, redo: &Redo) {
    service.faults().poison(&redo.training_client().model_id(), "a backend failed").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_steps_poisoned_twenty_times_are_two_hundred_steps() {
    let (_dir, service, api) = service().await;
    // What it should be, computed by another service, with more threads than there are cores by default.
    let quiet = tempfile::tempdir().unwrap();
    let quiet =
        LocalService::start(LocalConfig { threads: 5, ..LocalConfig::new(quiet.path()) }).await.unwrap();
    let quiet_api = retinker_tests::service::api(&quiet.base_url()).unwrap();
    let plain = undisturbed(&quiet_api).await;
    let expected = train(&plain, 0..200).await;
    let kept = redo(&api, MemoryLog::new(), 25).await;
    let client = kept.training_client();
    let mut events = Box::pin(kept.events());
    // Another run trains meanwhile: a result does not depend on what else is computed.
    let beside = undisturbed(&api).await;
    let other = tokio::spawn(async move {
        for n in 0.. {
            step(&beside, n).await;
        }
    });
    let mut chance = 7u64;
    let mut left = 20;
    for (n, expected) in expected.iter().enumerate() {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let now = left * 10 > 200 - n as u64 || (chance >> 33).is_multiple_of(10) && left > 0;
        left -= u64::from(now);
        let moment = (chance >> 40) % 4;
        if now && moment == 0 {
            poison(&service, &kept).await;
        }
        let passed = client.forward_backward(schedule::batch(n), "cross_entropy", &none());
        if now && moment == 1 {
            poison(&service, &kept).await;
        }
        let stepped = client.optim_step(adam());
        if now && moment == 2 {
            poison(&service, &kept).await;
        }
        let loss = passed.await.unwrap().metrics["loss:sum"];
        if now && moment == 3 {
            poison(&service, &kept).await;
        }
        stepped.await.unwrap();
        assert_eq!(loss, *expected, "the loss of step {n}");
    }
    assert_eq!(left, 0);
    other.abort();
    assert!(
        tensors(&api, client).await == tensors(&quiet_api, &plain).await,
        "the final weights, byte for byte"
    );
    assert_eq!(state(client).await, state(&plain).await);
    let recovered =
        told(&mut events).into_iter().filter(|event| matches!(event, RedoEvent::Recovered { .. })).count();
    assert!((15..=20).contains(&recovered), "two poisonings of one step are one loss: {recovered}");
    quiet.stop().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_and_what_was_better_than_ever_have_checkpoints_of_their_own() {
    let (_dir, service, api) = service().await;
    let checkpoints = CheckpointPolicy {
        on_improvement: Some(("loss:sum".to_owned(), MetricMode::Min)),
        at_end: true,
        ..CheckpointPolicy::default()
    };
    let options = RedoOptions { checkpoints, ..RedoOptions::default() };
    let kept = with(&api, MemoryLog::new(), options).await.unwrap();
    assert_eq!(kept.finish().await.unwrap(), None, "nothing was trained");
    let client = kept.training_client();
    let mut events = Box::pin(kept.events());
    let (mut best, mut better) = (f64::INFINITY, Vec::new());
    for n in 0..8 {
        // The result is there before the step is called, so that the step is the one after it.
        let passed = client.forward_backward(schedule::batch(n), "cross_entropy", &none()).await.unwrap();
        client.optim_step(adam()).await.unwrap();
        if passed.metrics["loss:sum"] < best {
            best = passed.metrics["loss:sum"];
            better.push(n as u64 + 1);
            // One is saved at a time: a second that is due meanwhile would come with a later step.
            while !matches!(events.next().await, Some(RedoEvent::Saved { .. })) {}
        }
    }
    let list = api.run_checkpoints(&client.model_id()).await.unwrap().checkpoints;
    let step = |path: &str| path.rsplit('/').next().unwrap().split('-').nth(1).unwrap().parse().unwrap();
    let mut saved: Vec<u64> = list.iter().map(|one| step(&one.tinker_path)).collect();
    saved.sort();
    assert_eq!(saved, better, "the losses decide");
    assert!(better.len() < 8, "not every step is better: {better:?}");
    let end = kept.finish().await.unwrap().unwrap();
    let name = if better.last() == Some(&8) { "/weights/redo-000008" } else { "/weights/end-000008" };
    assert!(end.contains(name), "{end}");
    assert_eq!(kept.finish().await.unwrap(), Some(end), "once");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_saved_is_deleted_but_for_what_its_rule_keeps_and_the_log_stands_on() {
    let (_dir, service, api) = service().await;
    let keep = Rule { last: Some(1), best: Some(2), every: None };
    let checkpoints = CheckpointPolicy {
        every_steps: Some(1),
        on_improvement: Some(("loss:sum".to_owned(), MetricMode::Min)),
        keep: keep.clone(),
        ..CheckpointPolicy::default()
    };
    let options = RedoOptions { checkpoints, ..RedoOptions::default() };
    let kept = with(&api, MemoryLog::new(), options).await.unwrap();
    let client = kept.training_client();
    let mut events = Box::pin(kept.events());
    let (mut saved, mut deleted, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    let mut losses = Vec::new();
    for n in 0..10 {
        if n == 3 || n == 7 {
            poison(&service, &kept).await;
        }
        let passed = client.forward_backward(schedule::batch(n), "cross_entropy", &none()).await.unwrap();
        losses.push(passed.metrics["loss:sum"]);
        client.optim_step(adam()).await.unwrap();
        if n == 5 {
            client.save_state("mine", SaveOptions::default()).await.unwrap();
        }
        runs.push(client.model_id());
        loop {
            match events.next().await.unwrap() {
                RedoEvent::Saved { path, step } if step == n as u64 + 1 && path.contains("/redo-") => {
                    saved.push((passed.metrics["loss:sum"], path));
                    break;
                }
                RedoEvent::Deleted { path } => deleted.push(path),
                RedoEvent::NotDeleted { path, why } => panic!("{path:?}: {why}"),
                _ => {}
            }
        }
    }
    let planned = kept.plan_retention(keep.clone()).await.unwrap();
    runs.dedup();
    assert_eq!(runs.len(), 3, "it was made anew twice");
    let mut there = Vec::new();
    for run in &runs {
        there.extend(api.run_checkpoints(run).await.unwrap().checkpoints);
    }
    let own = there.iter().filter(|one| one.tinker_path.contains("/redo-"));
    let own: BTreeSet<&str> = own.map(|one| one.tinker_path.as_str()).collect();
    assert_eq!(planned.iter().filter(|fate| !fate.goes).count(), own.len(), "nothing but them stays");
    assert!(planned.iter().all(|fate| !fate.goes), "what goes is gone: {planned:?}");
    let newest = saved.iter().rev().take(2).map(|(_, path)| path.as_str());
    let mut best: Vec<_> = saved.iter().collect();
    best.sort_by(|a, b| a.0.total_cmp(&b.0));
    let expected: BTreeSet<&str> = newest.chain(best[..2].iter().map(|(_, path)| path.as_str())).collect();
    assert_eq!(own, expected, "the best two, and the two that the log stands on");
    assert!(there.iter().any(|one| one.tinker_path.ends_with("/mine")), "what the program saved is its own");
    let gone = |path: &String| !own.contains(path.as_str());
    assert!(deleted.len() + own.len() >= saved.len() - 1 && deleted.iter().all(gone), "{deleted:?}");
    // By their labels, as `retinker checkpoints prune --by` and `--best` read them.
    for (loss, path) in &saved {
        let Some(one) = there.iter().find(|one| one.tinker_path == *path) else { continue };
        let labels = one.user_metadata.as_ref().unwrap();
        assert_eq!(labels["loss:sum"].parse(), Ok(*loss), "{labels:?}");
    }
    let all = kept.plan_retention(Rule::default()).await.unwrap();
    assert!(all.iter().all(|fate| !fate.goes), "a rule without parts keeps all");
    let none_kept = kept.plan_retention(Rule { last: Some(1), ..Rule::default() }).await.unwrap();
    assert!(none_kept.iter().any(|fate| fate.goes), "another rule would keep less: {none_kept:?}");
    let needed = none_kept.iter().filter(|fate| fate.needed.as_deref() == Some("The redo log stands on it."));
    assert_eq!(needed.count(), 2);
    // What is left is enough to go on from.
    poison(&service, &kept).await;
    losses.extend(train(client, 10..12).await);
    let expected = train(&undisturbed(&api).await, 0..12).await;
    assert_eq!(losses, expected, "bit for bit");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_every_so_many_that_the_policy_saves_one_is_kept_however_often_the_rule_is_gone_by() {
    let (_dir, service, api) = service().await;
    let keep = Rule { every: Some(3), ..Rule::default() };
    let checkpoints = CheckpointPolicy { every_steps: Some(1), keep, ..CheckpointPolicy::default() };
    let options = RedoOptions { checkpoints, ..RedoOptions::default() };
    let kept = with(&api, MemoryLog::new(), options).await.unwrap();
    let mut events = Box::pin(kept.events());
    for n in 0..12 {
        step(kept.training_client(), n).await;
        while !matches!(events.next().await, Some(RedoEvent::Saved { .. })) {}
    }
    // Whatever was to be deleted after the last one is.
    let fates = kept.plan_retention(Rule { every: Some(3), ..Rule::default() }).await.unwrap();
    let step_of = |path: &str| path.rsplit('-').nth(1).unwrap().parse::<u64>().unwrap();
    let steps: BTreeSet<u64> = fates.iter().map(|fate| step_of(&fate.path)).collect();
    assert_eq!(steps, [1, 4, 7, 10, 11, 12].into(), "every third, and the two that are stood on");
    let best = Rule { best: Some(1), ..Rule::default() };
    let refused = kept.plan_retention(best.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("there is no metric"), "{refused}");
    let checkpoints = CheckpointPolicy { keep: best, ..CheckpointPolicy::default() };
    let options = RedoOptions { checkpoints, ..RedoOptions::default() };
    let runs = runs::all(&api).await.unwrap().len();
    let refused = with(&api, MemoryLog::new(), options).await.unwrap_err().to_string();
    assert!(refused.contains("there is no metric"), "{refused}");
    assert_eq!(runs::all(&api).await.unwrap().len(), runs, "nothing was made for it");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_that_the_run_is_made_anew() {
    let (_dir, service, api) = service().await;
    let kept = redo(&api, MemoryLog::new(), 1000).await;
    let client = kept.training_client();
    train(client, 0..2).await;
    let lost = client.model_id();
    poison(&service, &kept).await;
    let passed = client.forward_backward(schedule::batch(2), "cross_entropy", &none());
    let mut events = Box::pin(passed.events());
    passed.await.unwrap();
    let heard: Vec<_> = std::iter::from_fn(|| events.next().now_or_never().flatten()).collect();
    let at = heard.iter().position(|event| *event == PendingEvent::Recovering { run_id: lost.clone() });
    let at = at.unwrap_or_else(|| panic!("{heard:?}"));
    assert!(
        heard[at..].iter().any(|event| matches!(event, PendingEvent::Accepted { .. })),
        "and that the new run has it: {heard:?}"
    );
    assert_ne!(client.model_id(), lost);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gradient_that_adds_up_over_a_save_is_in_no_checkpoint_and_yet_not_lost() {
    // fb, save, fb, optim: poisoned in each gap.
    for gap in 0..5 {
        let (_dir, service, api) = service().await;
        let (plain, kept) = (undisturbed(&api).await, redo(&api, MemoryLog::new(), 1000).await);
        let mut outcomes = Vec::new();
        for (client, disturbed) in [(&plain, false), (kept.training_client(), true)] {
            let mut results = train(client, 0..3).await;
            let here = async |at: usize| {
                if disturbed && gap == at {
                    poison(&service, &kept).await
                }
            };
            here(0).await;
            let first = client.forward_backward(schedule::batch(3), "cross_entropy", &none());
            results.push(first.await.unwrap().metrics["loss:sum"]);
            here(1).await;
            let saved = client.save_state("between", SaveOptions::default());
            here(2).await;
            saved.await.unwrap();
            let second = client.forward_backward(schedule::batch(4), "cross_entropy", &none());
            results.push(second.await.unwrap().metrics["loss:sum"]);
            here(3).await;
            client.optim_step(adam()).await.unwrap();
            here(4).await;
            results.extend(train(client, 5..8).await);
            outcomes.push((results, state(client).await));
        }
        assert_eq!(outcomes[0], outcomes[1], "poisoned in gap {gap}");
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_of_the_programs_own_goes_on_through_a_poisoning() {
    fn own(data: &[Datum], logprobs: &[TensorData]) -> Result<CustomLoss, String> {
        let gradients =
            logprobs.iter().map(|tensor| tensor.to_f32().iter().map(|p| p * 0.5).collect()).collect();
        let loss = logprobs.iter().flat_map(|tensor| tensor.to_f32()).map(|p| f64::from(p * p) / 4.0).sum();
        assert_eq!(data.len(), logprobs.len());
        Ok(CustomLoss { loss, gradients, metrics: [("own:mean".to_owned(), 1.0)].into() })
    }
    let (_dir, service, api) = service().await;
    let (plain, kept) = (undisturbed(&api).await, redo(&api, MemoryLog::new(), 1000).await);
    let mut outcomes = Vec::new();
    for (client, disturbed) in [(&plain, false), (kept.training_client(), true)] {
        let mut losses = Vec::new();
        for n in 0..6 {
            let passed = client.forward_backward_custom(schedule::batch(n), own);
            let stepped = client.optim_step(adam());
            if disturbed && n % 2 == 1 {
                poison(&service, &kept).await;
            }
            losses.push(passed.await.unwrap().metrics);
            stepped.await.unwrap();
        }
        outcomes.push((losses, state(client).await));
    }
    assert_eq!(outcomes[0], outcomes[1]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_samples_each_step_goes_on_though_its_session_ends_with_its_samplers() {
    let (_dir, service, api) = service().await;
    let (plain, kept) = (undisturbed(&api).await, redo(&api, MemoryLog::new(), 4).await);
    let prompt = ModelInput::from_ints(vec![84, 101, 108, 108, 32, 109, 101]);
    let mut outcomes = Vec::new();
    for (client, disturbed) in [(&plain, false), (kept.training_client(), true)] {
        let end = async || {
            if disturbed {
                api.finish_session(&client.session_id(), FinishReason::Errored, None).await.unwrap();
            }
        };
        let mut drawn = Vec::new();
        for n in 0..12 {
            let sampler = client.save_weights_and_get_sampling_client();
            if n % 4 == 1 {
                end().await;
            }
            let sampler = sampler.await.unwrap();
            let before = sampler.sampler_id();
            if n % 4 == 2 {
                end().await;
            }
            let scores = sampler.compute_logprobs(&prompt, None);
            let loss = step(client, n).await;
            let scores = scores.await.unwrap();
            assert_eq!(sampler.compute_logprobs(&prompt, None).await.unwrap(), scores);
            if disturbed && n % 4 == 2 {
                assert_ne!(before, sampler.sampler_id(), "step {n}: another sampler took its place");
            }
            drawn.push((scores, loss));
        }
        outcomes.push(drawn);
    }
    assert_eq!(outcomes[0], outcomes[1]);
    let differ = outcomes[0].windows(2).all(|two| two[0].0 != two[1].0);
    assert!(differ, "each step changes what is sampled from");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sampler_of_a_checkpoint_is_made_anew_when_its_session_ends() {
    let (_dir, service, api) = service().await;
    let kept = redo(&api, MemoryLog::new(), 4).await;
    let client = kept.training_client();
    train(client, 0..2).await;
    let path = client.save_weights_for_sampler("second", Default::default()).await.unwrap().path.unwrap();
    let sampler = client.create_sampling_client(&path).await.unwrap();
    let prompt = ModelInput::from_ints(vec![84, 101, 108, 108, 32, 109, 101]);
    let (before, scores) = (sampler.sampler_id(), sampler.compute_logprobs(&prompt, None).await.unwrap());
    train(client, 2..5).await;
    api.finish_session(&client.session_id(), FinishReason::Errored, None).await.unwrap();
    // Several at once are samples of one.
    let again = futures_util::future::join_all((0..4).map(|_| sampler.compute_logprobs(&prompt, None))).await;
    assert!(again.into_iter().all(|again| again.unwrap() == scores), "the weights of the second step");
    assert_ne!(sampler.sampler_id(), before);
    let session = api.get_session(&client.session_id()).await.unwrap();
    assert_eq!(session.sampler_ids, [sampler.sampler_id()], "one was made");
    let plain = undisturbed(&api).await;
    let expected = train(&plain, 0..7).await;
    assert_eq!(train(client, 5..7).await, expected[5..], "the run was made anew with it");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_in_the_window_can_be_gone_back_to() {
    let (_dir, service, api) = service().await;
    let kept = redo(&api, MemoryLog::new(), 4).await;
    let mut events = Box::pin(kept.events());
    let mut expected = Vec::new();
    for n in 0..20 {
        let plain = undisturbed(&api).await;
        train(&plain, 0..n).await;
        expected.push(state(&plain).await);
        step(kept.training_client(), n).await;
    }
    while !matches!(events.next().await, Some(RedoEvent::Saved { step: 20, .. })) {}
    let window = kept.window().await.unwrap();
    assert_eq!(window, 16..=20);
    for step in [16, 17, 19] {
        let back = kept.recover_to(step as u64).await.unwrap();
        assert_eq!(state(&back).await, expected[step], "step {step}");
    }
    let beyond = kept.recover_to(15).await.unwrap_err();
    assert!(matches!(beyond, RedoError::NotCovered { step: 15, first: 16, last: 20 }), "{beyond}");
    train(kept.training_client(), 20..22).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_goes_back_to_a_step_by_a_log_that_it_is_shown() {
    let (dir, service, api) = service().await;
    let logs = dir.path().join("logs");
    let plain = undisturbed(&api).await;
    train(&plain, 0..7).await;
    let expected = state(&plain).await;
    let kept = redo(&api, DiskLog::open(logs.join("mine")).unwrap(), 4).await;
    let first = kept.training_client().model_id();
    train(kept.training_client(), 0..9).await;
    poison(&service, &kept).await;
    train(kept.training_client(), 9..10).await;
    let second = kept.training_client().model_id();
    assert_ne!(first, second);
    // One of another run, and what is no log, are passed over.
    let other = redo(&api, DiskLog::open(logs.join("another")).unwrap(), 4).await;
    train(other.training_client(), 0..1).await;
    std::fs::create_dir(logs.join("empty")).unwrap();
    std::fs::write(logs.join("a file"), "").unwrap();
    let journal = Location::Directory(dir.path().join("journal"));
    let redo_logs = RedoLogs { directories: vec![logs], ..RedoLogs::default() };
    let (host, tab) = console(&api, journal, redo_logs).await.unwrap();
    for (run, steps) in [(&first, (4, 10)), (&second, (4, 10)), (&other.training_client().model_id(), (0, 1))]
    {
        assert!(tab.run_evidence(run).await.unwrap().redo_log, "{run}");
        let window = tab.redo(run, RedoQuery::default()).await.unwrap();
        assert_eq!((window.first_step, window.last_step), steps, "{run}");
        assert_eq!(window.going, None);
    }
    let unknown = plain.model_id();
    assert!(!tab.run_evidence(&unknown).await.unwrap().redo_log);
    let code = |problem: retinker::host::HostError| problem.problem.code;
    assert_eq!(code(tab.redo(&unknown, RedoQuery::default()).await.unwrap_err()), "no_redo_log");
    assert_eq!(code(tab.go_back(&second, GoBack { step: Some(11) }).await.unwrap_err()), "step_not_covered");
    assert_eq!(code(tab.go_back(&second, GoBack { step: None }).await.unwrap_err()), "not_going_back");

    let begun = tab.go_back(&second, GoBack { step: Some(7) }).await.unwrap();
    assert!(begun.summary.contains("which has step 4: 6 requests"), "{}", begun.summary);
    let asked = || async { tab.redo(&second, RedoQuery::default()).await.unwrap().going.unwrap() };
    let mut going = asked().await;
    while going.under_way {
        assert_eq!(going.step, 7);
        tokio::time::sleep(Duration::from_millis(20)).await;
        going = asked().await;
    }
    let path = going.path.unwrap_or_else(|| panic!("{}", going.summary));
    let owner = ServiceClient::new(api.clone());
    let options = TrainingOptions::default();
    let back = owner.create_training_client_from_state_with_optimizer(&path, options).await.unwrap();
    assert_eq!(state(&back).await, expected);
    // It takes nobody's place: the run that it was made by goes on, and a lost one is still to be restored.
    let made = going.run_id.unwrap();
    // The list is read again by itself.
    while !tab.run(&second).await.unwrap().lineage.iter().any(|one| one.run_id == made) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(tab.run(&made).await.unwrap().row.restored_from, None);
    let run = tab.run(&second).await.unwrap();
    assert_eq!(run.row.restored_to, None);
    assert_ne!(run.row.verdict.health, Health::Recovered);
    train(kept.training_client(), 10..11).await;
    let acts = tab.activity(TOLD_NEWEST).await.unwrap().acts;
    assert!(acts.iter().any(|act| act.what.contains("after step 7") && act.subjects == [second.clone()]));
    host.stop().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_deletes_nothing_that_a_log_which_it_is_shown_stands_on() {
    let (dir, service, api) = service().await;
    let logs = dir.path().join("logs");
    let kept = redo(&api, DiskLog::open(logs.join("mine")).unwrap(), 4).await;
    let client = kept.training_client();
    train(client, 0..9).await;
    // Newer ones that no log stands on: one has an end, the other is saved over.
    let over = SaveOptions { overwrite: true, ..SaveOptions::default() };
    let over = client.save_state("over", over).await.unwrap().path;
    let mortal = SaveOptions { ttl_seconds: Some(3_600), ..SaveOptions::default() };
    let mortal = client.save_state("mortal", mortal).await.unwrap().path;
    // In a log, a checkpoint is stood on a moment after its save.
    let recorded = loop {
        let recorded = Recorded::read(DiskLog::read_only(logs.join("mine")).unwrap()).await.unwrap().unwrap();
        if recorded.covered().stands_on.len() == 2 {
            break recorded;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let stands_on = recorded.covered().stands_on;
    let journal = |name: &str| Location::Directory(dir.path().join(name));
    let shown = RedoLogs { directories: vec![logs.clone()], ..RedoLogs::default() };
    let (host, tab) = console(&api, journal("one"), shown).await.unwrap();
    let needed = async |tab: &HostClient| {
        let rows = loop {
            let window = tab.checkpoints(&CheckpointsQuery::default()).await.unwrap();
            if window.total == 4 {
                break window.rows;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let needed =
            rows.into_iter().filter_map(|row| Some((row.checkpoint.tinker_path, row.needed_because?)));
        needed.collect::<BTreeMap<_, _>>()
    };
    let told = needed(&tab).await;
    assert_eq!(told.keys().collect::<BTreeSet<_>>(), stands_on.iter().collect(), "{told:?}");
    assert!(told.values().all(|why| why.contains("mine stands on it")), "{told:?}");
    let delete = async |paths: Vec<String>| {
        let action = CheckpointDo::Delete;
        let actions =
            CheckpointActions { action, paths, ttl_seconds: None, expires_at: Vec::new(), force: false };
        let outcomes = tab.act_on_checkpoints(&actions).await.unwrap().outcomes;
        outcomes.into_iter().map(|outcome| (outcome.done, outcome.code)).collect::<Vec<_>>()
    };
    let refused = (false, "needed".to_owned());
    let all = delete([stands_on.clone(), vec![over, mortal]].concat()).await;
    assert_eq!(all, [refused.clone(), refused, (true, String::new()), (true, String::new())]);
    // It is asked anew before anything is deleted, however old what is shown is.
    train(client, 9..13).await;
    let moved = loop {
        let recorded = Recorded::read(DiskLog::read_only(logs.join("mine")).unwrap()).await.unwrap().unwrap();
        let now = recorded.covered().stands_on;
        if now != stands_on {
            break now;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let codes: Vec<_> = delete(vec![stands_on[0].clone(), moved[1].clone()]).await;
    assert_eq!(codes, [(true, String::new()), (false, "needed".to_owned())]);
    host.stop().await;
    // Who is shown no log takes the newest two without an end for what it stands on.
    client
        .save_state("mortal-2", SaveOptions { ttl_seconds: Some(60), ..SaveOptions::default() })
        .await
        .unwrap();
    client.save_state("mine", SaveOptions::default()).await.unwrap();
    let (host, tab) = console(&api, journal("two"), RedoLogs::default()).await.unwrap();
    let told = needed(&tab).await;
    let names: Vec<_> = told.keys().map(|path| path.rsplit('/').next().unwrap()).collect();
    assert!(matches!(names[..], ["mine", newest] if moved[1].ends_with(newest)), "{told:?}");
    assert!(told.values().all(|why| why.contains("may stand on it")), "{told:?}");
    host.stop().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_read_on_though_its_program_lets_go_of_that_part_meanwhile() {
    let (dir, service, api) = service().await;
    let plain = undisturbed(&api).await;
    train(&plain, 0..3).await;
    let expected = state(&plain).await;
    let log = dir.path().join("log");
    let kept = redo(&api, DiskLog::open(&log).unwrap(), 2).await;
    train(kept.training_client(), 0..5).await;
    let recorded = Recorded::read(DiskLog::read_only(&log).unwrap()).await.unwrap().unwrap();
    assert!(recorded.plan_to(3).is_ok());
    train(kept.training_client(), 5..14).await;
    let now = Recorded::read(DiskLog::read_only(&log).unwrap()).await.unwrap().unwrap();
    assert!(now.plan_to(3).is_err(), "the program has let go of it");
    let back =
        recorded.recover_to(&ServiceClient::new(api.clone()), Matching::Exact, 3, |_| ()).await.unwrap();
    assert_eq!(state(&back).await, expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_died_goes_on_behind_its_last_step() {
    let (_dir, service, api) = service().await;
    let plain = undisturbed(&api).await;
    let expected = train(&plain, 0..12).await;
    let directory = tempfile::tempdir().unwrap();
    let log = || DiskLog::open(directory.path().join("log")).unwrap();
    let (mut done, mut losses) = (0, Vec::new());
    // It dies: between steps; within one; between steps, and its run with it.
    for (until, within, poisoned) in
        [(3, false, false), (6, true, false), (9, false, true), (12, false, false)]
    {
        let kept = redo(&api, log(), 4).await;
        let client = kept.training_client();
        let resumed = kept.resumed().cloned();
        let cursor = format!("{done} batches").into_bytes();
        let before = (done > 0).then(|| Resumed { step: done as u64, cursor: Some(cursor.into()) });
        assert_eq!(resumed, before);
        while done < until {
            let passed = client.forward_backward(schedule::batch(done), "cross_entropy", &none());
            kept.set_cursor(format!("{} batches", done + 1));
            let stepped = client.optim_step(adam());
            losses.push(passed.await.unwrap().metrics["loss:sum"]);
            stepped.await.unwrap();
            done += 1;
        }
        if within {
            client.forward_backward(schedule::batch(done), "cross_entropy", &none()).await.unwrap();
        }
        if poisoned {
            poison(&service, &kept).await;
        }
        let other = DiskLog::open(directory.path().join("log")).unwrap_err().to_string();
        assert!(other.contains("in use by another program"), "{other}");
        drop(kept);
        // What it held ends with its tasks.
        while DiskLog::open(directory.path().join("log")).is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    assert_eq!(losses, expected);
    service.stop().await;
}

/// Waits until nobody has the log.
async fn let_go(path: &Path) {
    while DiskLog::open(path).is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_could_not_be_made_anew_is_not_gone_on_with_by_the_next_program() {
    let (dir, service, api) = retinker_tests::service::faulty().await.unwrap();
    let plain = undisturbed(&api).await;
    let expected = train(&plain, 0..9).await;
    let path = dir.path().join("log");
    let first = {
        let kept = redo(&api, DiskLog::open(&path).unwrap(), 4).await;
        let client = kept.training_client();
        let losses = train(client, 0..6).await;
        assert_eq!(losses, expected[..6]);
        // It dies within a step: its gradient is in a run that lives on.
        client.forward_backward(schedule::batch(6), "cross_entropy", &none()).await.unwrap();
        client.model_id()
    };
    let_go(&path).await;
    // The second program cannot make the run as it was, however often it is started.
    service.faults().set_noise(1e-2).unwrap();
    for _ in 0..2 {
        let options = || RedoOptions {
            checkpoints: CheckpointPolicy { every_steps: Some(4), ..CheckpointPolicy::default() },
            ..RedoOptions::default()
        };
        let stopped = with(&api, DiskLog::open(&path).unwrap(), options()).await.unwrap_err();
        assert!(matches!(stopped, RedoError::Mismatch(_)), "{stopped}");
        let_go(&path).await;
    }
    service.faults().set_noise(0.0).unwrap();
    let kept = redo(&api, DiskLog::open(&path).unwrap(), 4).await;
    assert_eq!(kept.resumed().map(|resumed| resumed.step), Some(6));
    assert_ne!(kept.training_client().model_id(), first, "with the gradient in it, it would be taken twice");
    assert_eq!(train(kept.training_client(), 6..9).await, expected[6..]);
    // Once that is done, whoever goes on goes on with it.
    let second = kept.training_client().model_id();
    drop(kept);
    let_go(&path).await;
    let kept = redo(&api, DiskLog::open(&path).unwrap(), 4).await;
    assert_eq!(kept.training_client().model_id(), second);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_by_itself_is_told_and_not_done_again() {
    let (_dir, service, api) = service().await;
    let (plain, kept) = (undisturbed(&api).await, redo(&api, MemoryLog::new(), 1000).await);
    let client = kept.training_client();
    let mut losses = train(client, 0..2).await;
    let unknown = client.forward_backward(schedule::batch(0), "no_such_loss", &none()).await.unwrap_err();
    assert!(
        !matches!(unknown.kind(), ErrorKind::Unrecovered { .. } | ErrorKind::Poisoned { .. }),
        "{unknown}"
    );
    losses.extend(train(client, 2..4).await);
    poison(&service, &kept).await;
    losses.extend(train(client, 4..6).await);
    assert_eq!(losses, train(&plain, 0..6).await);
    assert_eq!(state(client).await, state(&plain).await);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_a_monitor_would_restore_is_left_to_its_log() {
    let (_dir, service, api) = service().await;
    let kept = redo(&api, MemoryLog::new(), 1).await;
    train(kept.training_client(), 0..2).await;
    let run = api.training_run(&kept.training_client().model_id()).await.unwrap();
    let labels = run.user_metadata.unwrap();
    assert_eq!(labels[retinker::recovery::plan::LABEL_OPT_OUT], "redo_log");
    poison(&service, &kept).await;
    train(kept.training_client(), 2..3).await;
    let run = api.training_run(&kept.training_client().model_id()).await.unwrap();
    let labels = run.user_metadata.unwrap();
    assert_eq!(labels[retinker::recovery::plan::LABEL_OPT_OUT], "redo_log");
    assert_eq!(labels[retinker::recovery::plan::LABEL_GENERATION], "1");
    service.stop().await;
}

/// A service that can fail by rules, and a run with a log on it that was trained for six steps; a checkpoint is of the fourth.
async fn six_steps(log: impl RedoLog, matching: Matching) -> (tempfile::TempDir, LocalService, Redo) {
    let (dir, service, api) = retinker_tests::service::faulty().await.unwrap();
    let checkpoints = CheckpointPolicy { every_steps: Some(4), ..CheckpointPolicy::default() };
    let kept =
        with(&api, log, RedoOptions { checkpoints, matching, ..RedoOptions::default() }).await.unwrap();
    let mut events = Box::pin(kept.events());
    train(kept.training_client(), 0..6).await;
    while !matches!(events.next().await, Some(RedoEvent::Saved { step: 4, .. })) {}
    (dir, service, kept)
}

/// Why a run could not be recovered, as its training loop is told.
async fn stopped(kept: &Redo) -> String {
    let client = kept.training_client();
    let passed = client.forward_backward(schedule::batch(6), "cross_entropy", &none()).await.unwrap_err();
    let ErrorKind::Unrecovered { reason, .. } = passed.kind() else { panic!("{passed}") };
    let later = client.optim_step(adam()).await.unwrap_err();
    assert!(matches!(later.kind(), ErrorKind::Poisoned { .. }), "{later}");
    reason.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_optimizers_state_the_replay_is_not_the_same_and_says_so() {
    let (_dir, service, kept) = six_steps(MemoryLog::new(), Matching::Exact).await;
    service.faults().add_cold_loads(1).unwrap();
    poison(&service, &kept).await;
    let reason = stopped(&kept).await;
    assert!(
        reason.contains("the forward_backward after step 5")
            && reason.contains("since the checkpoint were ["),
        "{reason}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_record_dropped_or_two_swapped_is_found_out() {
    for swapped in [false, true] {
        let log = MemoryLog::new();
        let (_dir, service, kept) = six_steps(log.clone(), Matching::Exact).await;
        poison(&service, &kept).await;
        let head = |frame: &Bytes| -> serde_json::Value {
            let length = u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize;
            serde_json::from_slice(&frame[4..4 + length]).unwrap()
        };
        let body =
            |frame: &Bytes| frame.slice(4 + u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize..);
        let frames: Vec<Bytes> =
            log.frames().map(|frame| frame.unwrap().1.to_bytes().unwrap()).collect().await;
        // The passes of the fifth and the sixth step.
        let passes: Vec<(u64, Bytes)> = frames
            .iter()
            .filter(|frame| head(frame)["request"]["form"] == "forward_backward")
            .map(|frame| (head(frame)["request"]["op"].as_u64().unwrap(), body(frame)))
            .collect();
        let [(fifth, first), (sixth, second)] = &passes[4..] else { panic!() };
        let other = MemoryLog::new();
        for frame in frames {
            let entry = head(&frame);
            let (kind, value) = entry.as_object().map_or(("", None), |entry| {
                entry.iter().next().map_or(("", None), |(kind, value)| (kind.as_str(), Some(value)))
            });
            let op = value.and_then(|value| value["op"].as_u64());
            let frame = match (swapped, kind, op) {
                (false, _, op) if op == Some(*fifth) => continue,
                (true, "request", Some(op)) if op == *fifth || op == *sixth => {
                    let text = serde_json::to_vec(&entry).unwrap();
                    let other = if op == *fifth { second } else { first };
                    [&(text.len() as u32).to_le_bytes(), &text[..], other].concat().into()
                }
                _ => frame,
            };
            if kind == "head" && other.size() > 0 {
                other.begin_segment().await.unwrap();
            }
            other.append(Frame::from_bytes(&frame).unwrap()).await.unwrap();
        }
        let api = retinker_tests::service::api(&service.base_url()).unwrap();
        let error = with(&api, other, RedoOptions::default()).await.unwrap_err();
        assert!(matches!(error, RedoError::Mismatch(_)), "swapped: {swapped}: {error}");
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_noise_is_within_a_tolerance_and_never_the_same() {
    for (noise, matching, passes) in [
        (1e-6, Matching::Tolerance(1e-4), true),
        (1e-6, Matching::Exact, false),
        (1e-2, Matching::Tolerance(1e-4), false),
        (1e-2, Matching::Exact, false),
    ] {
        let (_dir, service, kept) = six_steps(MemoryLog::new(), matching).await;
        service.faults().set_noise(noise).unwrap();
        poison(&service, &kept).await;
        if passes {
            train(kept.training_client(), 6..8).await;
        } else {
            let reason = stopped(&kept).await;
            assert!(reason.contains("checkpoint were [") && reason.contains("and are ["), "{reason}");
        }
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_much_a_service_varies_is_found_out_and_what_is_found_is_enough_for_a_replay() {
    let (_dir, service, api) = retinker_tests::service::faulty().await.unwrap();
    let owner = ServiceClient::new(api.clone());
    let batches = || (0..4).map(schedule::batch).collect::<Vec<_>>();
    let found = calibrate(&owner, schedule::BASE_MODEL, schedule::lora(), batches()).await.unwrap();
    assert_eq!(found, Calibration { largest: None, passes: 5 }, "bit for bit");
    assert_eq!(found.matching(), Some(Matching::Exact));
    service.faults().set_noise(1e-6).unwrap();
    let found = calibrate(&owner, schedule::BASE_MODEL, schedule::lora(), batches()).await.unwrap();
    let largest = found.largest.unwrap();
    assert!(largest > 0.0 && largest < 1e-4, "{largest}");
    let matching = found.matching().unwrap();
    let Matching::Tolerance(part) = matching else { panic!("{matching:?}") };
    assert!(part > largest);
    service.faults().set_noise(0.0).unwrap();
    let kept =
        with(&api, MemoryLog::new(), RedoOptions { matching, ..RedoOptions::default() }).await.unwrap();
    train(kept.training_client(), 0..6).await;
    service.faults().set_noise(1e-6).unwrap();
    poison(&service, &kept).await;
    train(kept.training_client(), 6..8).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_run_is_lost_by_is_named_and_not_sent_a_third_time() {
    let log = MemoryLog::new();
    let (_dir, service, kept) = six_steps(log.clone(), Matching::Exact).await;
    let rule = OperationRule { times: 9, corrupts: true, ..OperationRule::new("save_weights_for_sampler") };
    service.faults().add_operation_rule(rule).unwrap();
    let pill = kept.training_client().save_weights_for_sampler("pill", Default::default()).await.unwrap_err();
    assert!(
        pill.to_string()
            .contains("the save_weights_for_sampler after step 6 seems to be what the run is lost by"),
        "{pill}"
    );
    assert_eq!(service.faults().active().operations[0].times, 7, "it was sent twice");
    // Without it, the run can be made as it was; and a program that begins again goes on without it.
    service.faults().clear();
    assert_eq!(kept.window().await.unwrap(), 0..=6);
    let back = kept.recover_to(6).await.unwrap();
    let api = retinker_tests::service::api(&service.base_url()).unwrap();
    let plain = undisturbed(&api).await;
    train(&plain, 0..6).await;
    let expected = state(&plain).await;
    assert_eq!(state(&back).await, expected);
    drop(kept);
    let again = with(&api, log, RedoOptions::default()).await.unwrap();
    assert_eq!(again.resumed().map(|resumed| resumed.step), Some(6));
    assert_eq!(state(again.training_client()).await, expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_lost_again_while_it_is_made_anew_is_made_anew_again() {
    let (_dir, service, kept) = six_steps(MemoryLog::new(), Matching::Exact).await;
    let rule = OperationRule { times: 2, corrupts: true, ..OperationRule::new("optim_step") };
    service.faults().add_operation_rule(rule).unwrap();
    let mut events = Box::pin(kept.events());
    let losses = train(kept.training_client(), 6..9).await;
    let lost = told(&mut events).into_iter().filter(|event| matches!(event, RedoEvent::Lost { .. })).count();
    assert_eq!(lost, 2);
    let api = retinker_tests::service::api(&service.base_url()).unwrap();
    let plain = undisturbed(&api).await;
    assert_eq!(train(&plain, 0..9).await[6..], losses);
    assert_eq!(state(kept.training_client()).await, state(&plain).await);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_fails_at_once_ends_neither_a_step_nor_a_replay() {
    let (_dir, service, kept) = six_steps(MemoryLog::new(), Matching::Exact).await;
    let fails = |operation: &str| OperationRule { times: 1, ..OperationRule::new(operation) };
    let client = kept.training_client();
    let mut events = Box::pin(kept.events());
    // Nobody knows whether it took the step: a run that surely has is made.
    service.faults().add_operation_rule(fails("optim_step")).unwrap();
    let mut losses = train(client, 6..8).await;
    let recovered = |event: &RedoEvent| matches!(event, RedoEvent::Recovered { .. });
    assert_eq!(told(&mut events).iter().filter(|event| recovered(event)).count(), 1);
    // In the replay of a lost run: another is made.
    for (n, operation) in [(8, "optim_step"), (9, "forward_backward")] {
        service.faults().add_operation_rule(fails(operation)).unwrap();
        poison(&service, &kept).await;
        losses.push(step(client, n).await);
        assert_eq!(service.faults().active().operations.len(), 0, "{operation} failed once");
    }
    let api = retinker_tests::service::api(&service.base_url()).unwrap();
    let plain = undisturbed(&api).await;
    assert_eq!(train(&plain, 0..10).await[6..], losses);
    assert_eq!(state(client).await, state(&plain).await);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_due_by_what_was_done_before_the_program_ended_too_and_again_when_they_fail() {
    let (_dir, service, api) = retinker_tests::service::faulty().await.unwrap();
    let log = MemoryLog::new();
    let saved_at = |events: Vec<RedoEvent>| -> Vec<u64> {
        let saved = events.into_iter().filter_map(|event| match event {
            RedoEvent::Saved { step, .. } => Some(step),
            _ => None,
        });
        saved.collect()
    };
    // A program that never comes as far as the rule by itself.
    let mut all = Vec::new();
    for life in 0..4_usize {
        let kept = redo(&api, log.clone(), 5).await;
        let mut events = Box::pin(kept.events());
        train(kept.training_client(), life * 2..life * 2 + 2).await;
        kept.training_client().forward(schedule::batch(0), "cross_entropy", &none()).await.unwrap();
        all.extend(saved_at(told(&mut events)));
    }
    assert_eq!(all, [5]);
    // One that fails is saved after the next step.
    let kept = redo(&api, log.clone(), 5).await;
    let mut events = Box::pin(kept.events());
    let rule = OperationRule { times: 1, ..OperationRule::new("save_weights") };
    service.faults().add_operation_rule(rule).unwrap();
    for n in 8..12 {
        train(kept.training_client(), n..n + 1).await;
        // It is known by then what became of the save.
        kept.training_client().forward(schedule::batch(0), "cross_entropy", &none()).await.unwrap();
    }
    let events = told(&mut events);
    assert!(events.iter().any(|event| matches!(event, RedoEvent::NotSaved { .. })), "{events:?}");
    assert_eq!(saved_at(events), [11]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_which_only_some_chunks_were_accepted_is_taken_once() {
    let tiny = |n: i32| Datum::cross_entropy(vec![65 + n % 8, 66], vec![66, 67], vec![1.0, 0.5]);
    let large: Vec<Datum> = (0..2100).map(tiny).collect();
    let (_dir, service, api) = retinker_tests::service::faulty().await.unwrap();
    let plain = undisturbed(&api).await;
    // What breaks off is not tried again by itself.
    let brittle = api.clone().with_retry(RetryPolicy { budget: Duration::ZERO, ..RetryPolicy::default() });
    let kept = with(&brittle, MemoryLog::new(), RedoOptions::default()).await.unwrap();
    let mut outcomes = Vec::new();
    for (client, disturbed) in [(&plain, false), (kept.training_client(), true)] {
        let mut losses = train(client, 0..2).await;
        for _ in 0..3 {
            if disturbed {
                let fault = RequestFault::Fail { status: 500, retry_after: None, empty_body: false };
                service.faults().add_request_rule(RequestRule::new("forward_backward", fault)).unwrap();
            }
            let passed = client.forward_backward(large.clone(), "cross_entropy", &none());
            let stepped = client.optim_step(adam());
            let passed = passed.await.unwrap();
            assert_eq!(passed.loss_fn_outputs.len(), large.len());
            losses.push(passed.metrics["loss:sum"]);
            stepped.await.unwrap();
        }
        outcomes.push((losses, state(client).await));
    }
    assert_eq!(outcomes[0], outcomes[1]);
    service.stop().await;
}

/// A log on a disk that does not take every entry.
#[derive(Clone)]
struct Full {
    log: MemoryLog,
    takes: Arc<dyn Fn(&Frame) -> bool + Send + Sync>,
}

impl Full {
    /// There is room for so many entries.
    fn after(entries: &Arc<AtomicI64>) -> Self {
        let entries = Arc::clone(entries);
        let takes = move |_: &Frame| entries.fetch_sub(1, Ordering::Relaxed) > 0;
        Self { log: MemoryLog::new(), takes: Arc::new(takes) }
    }

    /// No checkpoint can be told of.
    fn of_checkpoints(log: MemoryLog) -> Self {
        let is_base = |bytes: &[u8]| bytes.windows(8).any(|window| window == b"{\"base\":");
        Self { log, takes: Arc::new(move |frame| !is_base(&frame.to_bytes().unwrap())) }
    }
}

impl fmt::Debug for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Full").finish_non_exhaustive()
    }
}

impl RedoLog for Full {
    fn name(&self) -> String {
        "on a small disk".to_owned()
    }
    fn append(&self, frame: Frame) -> BoxFuture<'static, Result<Place, LogError>> {
        if !(self.takes)(&frame) {
            let error =
                LogError::Unavailable { log: self.name(), reason: "No space left on device".to_owned() };
            return Box::pin(std::future::ready(Err(error)));
        }
        self.log.append(frame)
    }
    fn begin_segment(&self) -> BoxFuture<'static, Result<u64, LogError>> {
        self.log.begin_segment()
    }
    fn frames(&self) -> BoxStream<'static, Result<(Place, Frame), LogError>> {
        self.log.frames()
    }
    fn read(&self, place: Place) -> BoxFuture<'static, Result<Frame, LogError>> {
        self.log.read(place)
    }
    fn drop_before(&self, segment: u64) -> BoxFuture<'static, Result<(), LogError>> {
        self.log.drop_before(segment)
    }
    fn size(&self) -> u64 {
        self.log.size()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_checkpoint_that_is_not_written_down_nothing_is_let_go_of() {
    let (_dir, service, api) = service().await;
    let expected = train(&undisturbed(&api).await, 0..9).await;
    let log = MemoryLog::new();
    let kept = redo(&api, Full::of_checkpoints(log.clone()), 2).await;
    let mut events = Box::pin(kept.events());
    assert_eq!(train(kept.training_client(), 0..7).await, expected[..7]);
    let told = told(&mut events);
    let not_recorded = |event: &&RedoEvent| matches!(event, RedoEvent::NotRecorded { .. });
    assert!(told.iter().filter(not_recorded).count() > 1, "{told:?}");
    poison(&service, &kept).await;
    drop(kept);
    // The next program finds all of it, from the beginning.
    let kept = redo(&api, log, 2).await;
    assert_eq!(kept.resumed().map(|resumed| resumed.step), Some(7));
    assert_eq!(train(kept.training_client(), 7..9).await, expected[7..]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_down_is_not_sent() {
    let (_dir, service, api) = service().await;
    let (plain, room) = (undisturbed(&api).await, Arc::new(AtomicI64::new(i64::MAX)));
    let kept = redo(&api, Full::after(&room), 1000).await;
    let client = kept.training_client();
    let mut losses = train(client, 0..2).await;
    // The first time nothing of it can be written, the second time one chunk of three.
    let tiny = |n: i32| Datum::cross_entropy(vec![65 + n % 8, 66], vec![66, 67], vec![1.0, 0.5]);
    for left in [0, 1] {
        room.store(left, Ordering::Relaxed);
        let large: Vec<Datum> = (0..2100).map(tiny).collect();
        let refused = client.forward_backward(large, "cross_entropy", &none()).await.unwrap_err();
        assert!(
            refused.to_string().contains("could not be written down first")
                && refused.to_string().contains("No space left"),
            "{refused}"
        );
    }
    room.store(i64::MAX, Ordering::Relaxed);
    losses.extend(train(client, 2..4).await);
    poison(&service, &kept).await;
    losses.extend(train(client, 4..6).await);
    assert_eq!(losses, train(&plain, 0..6).await);
    assert_eq!(state(client).await, state(&plain).await);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_cut_off_where_it_was_torn_and_refused_where_it_is_damaged() {
    let (_dir, service, api) = service().await;
    let directory = tempfile::tempdir().unwrap();
    let open = || async {
        loop {
            match DiskLog::open(directory.path()) {
                Err(LogError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
                opened => break opened,
            }
        }
    };
    let kept = redo(&api, open().await.unwrap(), 1000).await;
    let mut losses = train(kept.training_client(), 0..3).await;
    drop(kept);
    drop(open().await);
    let segment = directory.path().join("segment-00000000.log");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(directory.path()), mode(&segment)), (0o700, 0o600), "it holds training data");
    }
    let whole = std::fs::read(&segment).unwrap();
    // A machine that stopped may leave room that was never written to.
    std::fs::write(&segment, [&whole[..], &[0; 4096]].concat()).unwrap();
    drop(open().await);
    assert_eq!(std::fs::read(&segment).unwrap(), whole);
    // The machine stopped in the middle of the last entry, which tells what the third step came to.
    std::fs::write(&segment, &whole[..whole.len() - 3]).unwrap();
    let kept = redo(&api, open().await.unwrap(), 1000).await;
    assert_eq!(kept.resumed().map(|resumed| resumed.step), Some(3));
    losses.extend(train(kept.training_client(), 3..5).await);
    assert_eq!(losses, train(&undisturbed(&api).await, 0..5).await);
    drop(kept);
    drop(open().await);
    let mut whole = std::fs::read(&segment).unwrap();
    let middle = whole.len() / 2;
    whole[middle] ^= 1;
    std::fs::write(&segment, &whole).unwrap();
    let error = open().await.unwrap_err().to_string();
    assert!(error.contains("is damaged at segment 0, byte") && error.contains("checksum"), "{error}");
    // A length that leads beyond the end is no torn end where whole entries follow: nothing of them is cut off.
    whole[middle] ^= 1;
    let second = 12 + u32::from_le_bytes(whole[..4].try_into().unwrap()) as usize;
    whole[second + 3] ^= 0x40;
    std::fs::write(&segment, &whole).unwrap();
    let error = open().await.unwrap_err().to_string();
    assert!(error.contains(&format!("segment 0, byte {second}")), "{error}");
    assert!(error.contains("its length is wrong: a whole record follows"), "{error}");
    assert_eq!(std::fs::read(&segment).unwrap(), whole);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_a_session_is_refused_and_sent_by_no_one() {
    let (_dir, service, api) = service().await;
    let kept = redo(&api, MemoryLog::new(), 1000).await;
    let client = kept.training_client();
    let config = LossFnConfig::from([("loss_id".to_owned(), "a loss".into())]);
    let refused = client.forward_backward(schedule::batch(0), "custom", &config).await.unwrap_err();
    assert!(refused.to_string().contains("belongs to a session"), "{refused}");
    let mut named = schedule::batch(0);
    named[0].provenance = Some(Provenance::default());
    let refused = client.forward_backward(named, "cross_entropy", &none()).await.unwrap_err();
    assert!(refused.to_string().contains("leave their provenance out"), "{refused}");
    let options =
        LoadOptions { weights_access_token: Some(Secret::new("of another")), ..LoadOptions::default() };
    let refused = client.load_state_with("tinker://other/weights/a", options).await.unwrap_err().to_string();
    assert!(refused.contains("holds no access token") && !refused.contains("of another"), "{refused}");
    assert_eq!(client.attachment().next_seq_id, 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_stays_within_its_bound_by_checkpoints_of_its_own() {
    let (_dir, service, api) = service().await;
    let (plain, log) = (undisturbed(&api).await, MemoryLog::new());
    let bound = 40_000;
    let kept = with(&api, log.clone(), RedoOptions { bound, ..RedoOptions::default() }).await.unwrap();
    let mut losses = Vec::new();
    for n in 0..100 {
        losses.push(step(kept.training_client(), n).await);
        assert!(log.size() < bound + bound / 4, "{} bytes after step {n}", log.size());
    }
    assert!(*kept.window().await.unwrap().start() > 50);
    poison(&service, &kept).await;
    losses.extend(train(kept.training_client(), 100..103).await);
    assert_eq!(losses, train(&plain, 0..103).await);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_by_itself_is_no_step_and_does_what_it_did() {
    let (_dir, service, api) = service().await;
    let (plain, kept) = (undisturbed(&api).await, redo(&api, MemoryLog::new(), 1000).await);
    let mut outcomes = Vec::new();
    for (client, disturbed) in [(&plain, false), (kept.training_client(), true)] {
        let mut losses = train(client, 0..2).await;
        client.forward_backward(schedule::batch(2), "cross_entropy", &none()).await.unwrap();
        // The gradient of the pass is gone by it.
        let failed = client.optim_step(AdamParams { beta1: 1.0, ..adam() }).await.unwrap_err();
        assert!(!matches!(failed.kind(), ErrorKind::Unrecovered { .. }), "{failed}");
        losses.extend(train(client, 3..5).await);
        if disturbed {
            poison(&service, &kept).await;
        }
        losses.extend(train(client, 5..7).await);
        outcomes.push((losses, state(client).await));
    }
    assert_eq!(outcomes[0], outcomes[1]);
    // Two, two, two, and two of `state`.
    assert_eq!(kept.window().await.unwrap(), 0..=8);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_written_down_and_not_sent_is_none_to_a_program_that_begins_again() {
    let (_dir, service, api) = service().await;
    let (plain, room) = (undisturbed(&api).await, Arc::new(AtomicI64::new(i64::MAX)));
    let log = Full::after(&room);
    let kept = redo(&api, log.clone(), 1000).await;
    let client = kept.training_client();
    let mut losses = train(client, 0..3).await;
    client.forward_backward(schedule::batch(3), "cross_entropy", &none()).await.unwrap();
    // There is room for the request, and none for that it is sent.
    room.store(1, Ordering::Relaxed);
    let refused = client.optim_step(adam()).await.unwrap_err();
    assert!(refused.to_string().contains("could not be written down first"), "{refused}");
    room.store(i64::MAX, Ordering::Relaxed);
    drop(kept);
    let again = redo(&api, log, 1000).await;
    assert_eq!(again.resumed().map(|resumed| resumed.step), Some(3));
    losses.extend(train(again.training_client(), 3..6).await);
    assert_eq!(losses, train(&plain, 0..6).await);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_over_is_not_stood_on() {
    let (_dir, service, api) = service().await;
    let (plain, kept) = (undisturbed(&api).await, redo(&api, MemoryLog::new(), 1000).await);
    let client = kept.training_client();
    let mut losses = Vec::new();
    for n in 0..6 {
        losses.push(step(client, n).await);
        let options = SaveOptions { overwrite: n > 0, ..SaveOptions::default() };
        client.save_state("latest", options).await.unwrap();
    }
    poison(&service, &kept).await;
    losses.extend(train(client, 6..8).await);
    assert_eq!(losses, train(&plain, 0..8).await);
    assert_eq!(state(client).await, state(&plain).await);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_dies_at_any_write_goes_on_as_if_it_had_not() {
    let (_dir, service, api) = service().await;
    let plain = undisturbed(&api).await;
    let expected = train(&plain, 0..7).await;
    let log = MemoryLog::new();
    // One checkpoint, so that nothing is dropped of what was written before.
    let kept = redo(&api, log.clone(), 3).await;
    let mut events = Box::pin(kept.events());
    train(kept.training_client(), 0..2).await;
    poison(&service, &kept).await;
    train(kept.training_client(), 2..4).await;
    while !matches!(events.next().await, Some(RedoEvent::Saved { step: 3, .. })) {}
    drop(kept);
    let frames: Vec<(Place, Frame)> = log.frames().map(|frame| frame.unwrap()).collect().await;
    assert!(frames.len() > 30, "{} writes", frames.len());
    let key: &[u8] = b"tml-test";
    for (_, frame) in &frames {
        let bytes = frame.to_bytes().unwrap();
        assert!(!bytes.windows(key.len()).any(|part| part == key), "the key is in no log: {frame:?}");
    }
    // What is on the service goes beyond what is in the log, as when a machine stops that has not written all to its disk.
    for written in 0..=frames.len() {
        let (left, mut segment) = (MemoryLog::new(), frames[0].0.segment);
        for (place, frame) in &frames[..written] {
            if place.segment > segment {
                left.begin_segment().await.unwrap();
                segment = place.segment;
            }
            left.append(frame.clone()).await.unwrap();
        }
        let again = redo(&api, left, 3).await;
        let from = again.resumed().map_or(0, |resumed| resumed.step as usize);
        assert!(from <= 4, "{from}");
        let losses = train(again.training_client(), from..7).await;
        assert_eq!(losses, expected[from..], "after {written} writes, from step {from}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_at_any_write_loses_no_step() {
    let (_dir, service, api) = service().await;
    let expected = train(&undisturbed(&api).await, 0..5).await;
    for writes in 0..28 {
        let room = Arc::new(AtomicI64::new(i64::MAX));
        let kept = redo(&api, Full::after(&room), 2).await;
        let client = kept.training_client();
        room.store(writes, Ordering::Relaxed);
        let mut losses = Vec::new();
        for n in 0..5 {
            // What is refused was not sent: when there is room, it is asked for again.
            let passed = loop {
                match client.forward_backward(schedule::batch(n), "cross_entropy", &none()).await {
                    Ok(passed) => break passed,
                    Err(error) => assert!(error.to_string().contains("No space left"), "{error}"),
                }
                room.store(i64::MAX, Ordering::Relaxed);
            };
            losses.push(passed.metrics["loss:sum"]);
            while let Err(error) = client.optim_step(adam()).await {
                assert!(error.to_string().contains("No space left"), "{error}");
                room.store(i64::MAX, Ordering::Relaxed);
            }
            if n == 3 {
                room.store(i64::MAX, Ordering::Relaxed);
                poison(&service, &kept).await;
            }
        }
        assert_eq!(losses, expected, "full after {writes} writes");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_while_the_run_is_made_anew_is_waited_for() {
    let (_dir, service, api) = service().await;
    let expected = train(&undisturbed(&api).await, 0..7).await;
    // The pass itself is written down, and sent; then there is room for nothing, for the new run's identity, for one entry more.
    for writes in [2, 3, 4] {
        let room = Arc::new(AtomicI64::new(i64::MAX));
        let kept = redo(&api, Full::after(&room), 2).await;
        let client = kept.training_client();
        let mut events = Box::pin(kept.events());
        let mut losses = train(client, 0..5).await;
        // A checkpoint that is being saved is written down too.
        while !matches!(events.next().await, Some(RedoEvent::Saved { step: 4, .. })) {}
        poison(&service, &kept).await;
        room.store(writes, Ordering::Relaxed);
        let passed = client.forward_backward(schedule::batch(5), "cross_entropy", &none());
        let mut waited = false;
        while !waited {
            let event = events.next().await.unwrap();
            waited = matches!(&event, RedoEvent::Waiting { why } if why.contains("No space left"));
        }
        room.store(i64::MAX, Ordering::Relaxed);
        losses.push(passed.await.unwrap().metrics["loss:sum"]);
        client.optim_step(adam()).await.unwrap();
        losses.push(step(client, 6).await);
        assert_eq!(losses, expected, "room for {writes}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recoveries_are_told_to_the_journal_as_restores_that_are_handed_over() {
    let (_dir, service, api) = service().await;
    let runtime: Arc<dyn Runtime> = Arc::new(NativeRuntime::current().unwrap());
    let journal: Arc<dyn Store> = Arc::new(MemoryStore::new(Arc::clone(&runtime)));
    let checkpoints = CheckpointPolicy { every_steps: Some(2), ..CheckpointPolicy::default() };
    let options = RedoOptions { checkpoints, journal: Some(Arc::clone(&journal)), ..RedoOptions::default() };
    let kept = with(&api, MemoryLog::new(), options).await.unwrap();
    let (client, mut events) = (kept.training_client(), Box::pin(kept.events()));
    let mut runs = vec![client.model_id()];
    for n in 0..4 {
        train(client, 3 * n..3 * n + 3).await;
        while !told(&mut events).iter().any(|event| matches!(event, RedoEvent::Saved { .. })) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if n < 3 {
            poison(&service, &kept).await;
            step(client, 1000).await;
            runs.push(client.model_id());
        }
    }
    let mut records = journal.list().await.unwrap();
    records.reverse();
    let told: Vec<_> = records
        .iter()
        .map(|record| (record.plan.run_id.clone(), record.new_run_id.clone().unwrap()))
        .collect();
    let expected: Vec<_> = runs.windows(2).map(|two| (two[0].clone(), two[1].clone())).collect();
    assert_eq!(told, expected);
    for record in &records {
        assert_eq!((record.state, record.plan.lost.steps), (RestoreState::HandedOver, Some(0)));
        assert!(record.plan.verify_id());
        events_of_restore(record).iter().for_each(|event| event.validate().unwrap());
    }
    // Whoever would restore the lost run by hand is told that it was.
    let request = PlanRequest::new(&runs[0]);
    let succession = records[0].succession();
    let facts = gather(&api, &request, succession, None, runtime.now()).await.unwrap();
    assert!(matches!(make_plan(&facts, &request), Err(NoPlan::AlreadyRestored { .. })));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_another_run_or_of_a_newer_version_is_left_alone() {
    let (_dir, service, api) = service().await;
    let log = MemoryLog::new();
    drop(redo(&api, log.clone(), 1000).await);
    let other = LoraConfig { rank: 8, ..schedule::lora() };
    let owner = ServiceClient::new(api.clone());
    let made = Redo::lora(&owner, log.clone(), schedule::BASE_MODEL, other, RedoOptions::default()).await;
    let error = made.unwrap_err();
    assert!(matches!(&error, RedoError::OtherRun { .. }) && error.to_string().contains("rank: 8"), "{error}");
    let newer = MemoryLog::new();
    let frames: Vec<Frame> = log.frames().map(|frame| frame.unwrap().1).collect().await;
    let head = frames[0].to_bytes().unwrap();
    let text = String::from_utf8(head[4..].to_vec()).unwrap().replace(r#""schema":1"#, r#""schema":9"#);
    let head = [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    newer.append(Frame::from_bytes(&head.into()).unwrap()).await.unwrap();
    let error = with(&api, newer, RedoOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("holds schema 9, and this version knows 1"), "{error}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_written_when_there_was_one_schema_is_read_and_gone_back_in() {
    // By the example `redo`: four steps, a poisoning that went unseen until the program was started again, eight more steps.
    const WRITTEN: &[u8] = include_bytes!("../fixtures/redo-schema-1.segment");
    const TEXT: &[u8] = b"It was the best of times, it was the worst of times, it was the age of wisdom";
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("segment-00000000.log"), WRITTEN).unwrap();
    let recorded = Recorded::read(DiskLog::open(dir.path()).unwrap()).await.unwrap().unwrap();
    let covered = recorded.covered();
    assert_eq!(covered.root_run_id, "949f24e3-91f8-47e9-9a9b-3b82d705587e:train:0");
    assert_eq!(covered.run_id, "146994b6-cd55-47b6-be3d-a49a1e72c9de:train:0");
    assert_eq!((covered.first_step, covered.last_step), (0, 12));
    // On another service, which has none of its checkpoints.
    let (_dir, service, api) = service().await;
    let back = recorded.recover_to(&ServiceClient::new(api), Matching::Tolerance(1e-3), 7, |_| ()).await;
    let back = back.unwrap();
    let piece: Vec<u8> = TEXT.iter().copied().cycle().skip(7 * 7 % TEXT.len()).take(33).collect();
    let targets = piece[1..].iter().map(|byte| i64::from(*byte)).collect();
    let tokens = piece[..32].iter().map(|byte| i32::from(*byte)).collect();
    let eighth = vec![Datum::cross_entropy(tokens, targets, vec![1.0; 32])];
    let loss = back.forward(eighth, "cross_entropy", &none()).await.unwrap().metrics["loss:sum"];
    assert!((loss - 95.4421).abs() < 0.01, "the loss of step 8 was 95.4421: {loss}");
    service.stop().await;
}
