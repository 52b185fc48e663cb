//! A training loop with a redo log, on the embedded service: whatever happens to its run, its losses are those of a run to which
//! nothing happened, bit for bit.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

use futures_util::{FutureExt, StreamExt};
use retinker::client::{
    Api, CustomLoss, ErrorKind, LossFnConfig, SampleOptions, SaveOptions, ServiceClient, TrainingClient, TrainingOptions,
};
use retinker::native::DiskLog;
use retinker::redo::{CheckpointPolicy, MemoryLog, Redo, RedoError, RedoEvent, RedoLog, RedoOptions, Resumed};
use retinker::wire::sampling::SamplingParams;
use retinker::wire::tensor::TensorData;
use retinker::wire::training::{AdamParams, Datum, ModelInput};
use retinker_local::LocalService;
use retinker_tests::schedule;

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
    let plain = undisturbed(&api).await;
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
        let now = left * 10 > 200 - n as u64 || (chance >> 33) % 10 == 0 && left > 0;
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
    assert_eq!(state(client).await, state(&plain).await);
    let recovered = told(&mut events).into_iter().filter(|event| matches!(event, RedoEvent::Recovered { .. })).count();
    assert!((15..=20).contains(&recovered), "two poisonings of one step are one loss: {recovered}");
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
            let here = async |at: usize| if disturbed && gap == at { poison(&service, &kept).await };
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
        let gradients = logprobs.iter().map(|tensor| tensor.to_f32().iter().map(|p| p * 0.5).collect()).collect();
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
async fn a_loop_that_samples_each_step_goes_on_through_a_poisoning() {
    let (_dir, service, api) = service().await;
    let (plain, kept) = (undisturbed(&api).await, redo(&api, MemoryLog::new(), 4).await);
    let params = SamplingParams { max_tokens: Some(8), temperature: 0.0, ..SamplingParams::default() };
    let options = SampleOptions { sampling_params: params, ..SampleOptions::default() };
    let prompt = ModelInput::from_ints(vec![84, 101, 108]);
    let mut outcomes = Vec::new();
    for (client, disturbed) in [(&plain, false), (kept.training_client(), true)] {
        let mut drawn = Vec::new();
        for n in 0..12 {
            let sampler = client.save_weights_and_get_sampling_client();
            if disturbed && n % 4 == 1 {
                poison(&service, &kept).await;
            }
            let sampler = sampler.await.unwrap();
            if disturbed && n % 4 == 2 {
                poison(&service, &kept).await;
            }
            let samples = sampler.sample(&prompt, &options);
            let loss = step(client, n).await;
            let tokens = samples.await.unwrap().sequences[0].tokens.clone();
            let again = sampler.sample(&prompt, &options).await.unwrap().sequences[0].tokens.clone();
            assert_eq!(tokens, again);
            drawn.push((tokens, loss));
        }
        outcomes.push(drawn);
    }
    assert_eq!(outcomes[0], outcomes[1]);
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
async fn a_program_that_died_goes_on_behind_its_last_step() {
    let (_dir, service, api) = service().await;
    let plain = undisturbed(&api).await;
    let expected = train(&plain, 0..12).await;
    let directory = tempfile::tempdir().unwrap();
    let log = || DiskLog::open(directory.path().join("log")).unwrap();
    let (mut done, mut losses) = (0, Vec::new());
    // It dies: between steps; within one; between steps, and its run with it.
    for (until, within, poisoned) in [(3, false, false), (6, true, false), (9, false, true), (12, false, false)] {
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

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_by_itself_is_told_and_not_done_again() {
    let (_dir, service, api) = service().await;
    let (plain, kept) = (undisturbed(&api).await, redo(&api, MemoryLog::new(), 1000).await);
    let client = kept.training_client();
    let mut losses = train(client, 0..2).await;
    let unknown = client.forward_backward(schedule::batch(0), "no_such_loss", &none()).await.unwrap_err();
    assert!(!matches!(unknown.kind(), ErrorKind::Unrecovered { .. } | ErrorKind::Poisoned { .. }), "{unknown}");
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
