//! The Rust client over HTTP/2, where hundreds of requests share a connection, and its end is the end of all of them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test that fails, panics.

use std::time::Duration;

use futures_util::future::join_all;
use retinker::client::retry::RetryPolicy;
use retinker::client::{
    Api, ErrorKind, LossFnConfig, SampleOptions, SampleRetry, SamplingClient, SamplingOptions,
    SamplingSource, SaveOptions, ServiceClient, TrainingClient, TrainingOptions,
};
use retinker::native::NativeTransport;
use retinker::wire::sampling::SamplingParams;
use retinker::wire::training::{AdamParams, ModelInput};
use retinker_local::{LocalConfig, LocalService};
use retinker_tests::schedule;
use retinker_tests::streams::{Break, Streams};
use tokio::sync::Semaphore;

fn api(base_url: &str) -> Api {
    let (first_delay, max_delay) = (Duration::from_millis(20), Duration::from_millis(200));
    let policy = RetryPolicy { first_delay, max_delay, ..RetryPolicy::default() };
    let transport = NativeTransport::http2().unwrap();
    retinker_tests::service::api_over(transport, base_url).unwrap().with_retry(policy)
}

async fn run(api: &Api) -> TrainingClient {
    let owner = ServiceClient::new(api.clone());
    let made = TrainingOptions::default();
    owner.create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), made).await.unwrap()
}

/// The loss of each of these steps, each of four passes at once.
async fn train(client: &TrainingClient, steps: std::ops::Range<usize>) -> Vec<f64> {
    let mut losses = Vec::new();
    for step in steps {
        let passes: Vec<_> = (0..4)
            .map(|part| {
                let batch = schedule::batch(4 * step + part);
                client.forward_backward(batch, "cross_entropy", &LossFnConfig::new())
            })
            .collect();
        let update = client.optim_step(AdamParams { learning_rate: 1e-2, ..AdamParams::default() });
        let results = join_all(passes).await;
        losses.push(results.into_iter().map(|result| result.unwrap().metrics["loss:sum"]).sum());
        update.await.unwrap();
    }
    losses
}

async fn sampler(api: &Api) -> SamplingClient {
    let source = SamplingSource::BaseModel(schedule::BASE_MODEL.into());
    let client = ServiceClient::new(api.clone()).create_sampling_client(source).await.unwrap();
    let (first_delay, max_delay) = (Duration::from_millis(20), Duration::from_millis(200));
    let retry = SampleRetry { first_delay, max_delay, ..SampleRetry::default() };
    client.with_options(SamplingOptions { retry, ..SamplingOptions::default() })
}

async fn sample(
    client: &SamplingClient,
    seed: i128,
    max_tokens: i64,
) -> Result<Vec<u32>, retinker::client::Error> {
    let params =
        SamplingParams { max_tokens: Some(max_tokens), seed: Some(seed), ..SamplingParams::default() };
    let options = SampleOptions { sampling_params: params, ..SampleOptions::default() };
    let prompt = ModelInput::from_ints(b"Tell me".iter().map(|byte| i32::from(*byte)).collect());
    Ok(client.sample(&prompt, &options).await?.sequences[0].tokens.clone())
}

/// So many samples, all at once.
async fn samples(client: &SamplingClient, count: i128) -> Vec<Vec<u32>> {
    let all = join_all((0..count).map(|seed| sample(client, seed, 3))).await;
    all.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_outlive_their_connection() {
    let (_dir, service, quiet) = retinker_tests::service::embedded().await.unwrap();
    let expected = samples(&sampler(&quiet).await, 400).await;
    let streams = Streams::before(&service.base_url()).await.unwrap();
    let client = sampler(&api(&streams.base_url)).await;
    assert_eq!(samples(&client, 400).await, expected);
    for of in Break::ALL {
        assert!(streams.count(of) > 5, "{of:?}: {}", streams.count(of));
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_that_is_not_tried_again_fails_with_its_reason() {
    let (_dir, service, quiet) = retinker_tests::service::embedded().await.unwrap();
    let made = sampler(&quiet).await;
    let expected = samples(&made, 200).await;
    let streams = Streams::before(&service.base_url()).await.unwrap();
    let once = api(&streams.base_url).with_retry(RetryPolicy::none());
    let client = SamplingClient::join(once, &made.session_id(), &made.sampler_id()).await.unwrap();
    let retry = SampleRetry { enabled: false, ..SampleRetry::default() };
    let client = client.with_options(SamplingOptions { retry, ..SamplingOptions::default() });
    let all = join_all((0..200).map(|seed| sample(&client, seed, 3))).await;
    let failed = all.iter().filter(|result| result.is_err()).count();
    assert!(failed > 10, "{failed} of 200 failed");
    for (result, expected) in all.into_iter().zip(expected) {
        match result {
            Ok(tokens) => assert_eq!(tokens, expected),
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::MayHaveBeenSent { .. } | ErrorKind::NeverSent { .. }),
                "{error:?}"
            ),
        }
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_streams_change_no_step() {
    const STEPS: usize = 12;
    let (_dir, service, quiet) = retinker_tests::service::embedded().await.unwrap();
    let expected = train(&run(&quiet).await, 0..STEPS).await;
    let streams = Streams::before(&service.base_url()).await.unwrap();
    let api = api(&streams.base_url);
    let clients = [run(&api).await, run(&api).await];
    for losses in join_all(clients.each_ref().map(|client| train(client, 0..STEPS))).await {
        assert_eq!(losses, expected, "every step once, in order, bit for bit");
    }
    for of in Break::ALL {
        assert!(streams.count(of) > 1, "{of:?}: {}", streams.count(of));
    }
    for client in clients {
        assert!(client.poisoned().is_none());
        assert_eq!(client.attachment().next_seq_id, 5 * STEPS as u64 + 1);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_says_goodbye_is_gone_on_with_where_it_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let service = LocalService::start(LocalConfig::new(dir.path())).await.unwrap();
    let quiet = retinker_tests::service::api(&service.base_url()).unwrap();
    let expected_losses = train(&run(&quiet).await, 0..6).await;
    // Of many lengths, so that they are not all drawn at the same time.
    let draw =
        async |client: &SamplingClient, seed: i128| sample(client, seed, 2 * seed as i64 + 1).await.unwrap();
    let calm = sampler(&quiet).await;
    let expected = join_all((0..300).map(|seed| draw(&calm, seed))).await;
    let (listen, api) = (service.address(), api(&service.base_url()));
    let trained = run(&api).await;
    let before = train(&trained, 0..3).await;
    let saved = trained.save_state("three", SaveOptions::default()).await.unwrap().path;
    let client = sampler(&api).await;
    // It stops with hundreds of them under way, on one connection, and comes back where it was.
    let drawn = Semaphore::new(0);
    let all = join_all((0..300).map(async |seed| {
        let tokens = draw(&client, seed).await;
        drawn.add_permits(1);
        tokens
    }));
    let restarted = async {
        drop(drawn.acquire().await);
        assert!(drawn.available_permits() < 200, "{} are drawn", drawn.available_permits());
        service.stop().await;
        LocalService::start(LocalConfig { listen, ..LocalConfig::new(dir.path()) }).await.unwrap()
    };
    let (found, service) = tokio::join!(all, restarted);
    assert_eq!(found, expected);
    let owner = ServiceClient::new(api);
    let restored = owner
        .create_training_client_from_state_with_optimizer(&saved, TrainingOptions::default())
        .await
        .unwrap();
    let after = train(&restored, 3..6).await;
    assert_eq!([before, after].concat(), expected_losses);
    service.stop().await;
}
