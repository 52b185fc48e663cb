//! The Rust client's samples, drawn by the embedded service.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test that fails, panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use retinker::client::{
    ErrorKind, LossFnConfig, SampleOptions, SamplingClient, SamplingSource, SaveForSamplerOptions,
    ServiceClient, TrainingOptions,
};
use retinker::native::NativeTransport;
use retinker::wire::future::RequestErrorCategory;
use retinker::wire::model::LoraConfig;
use retinker::wire::sampling::{SamplingParams, StopReason, TargetTokens};
use retinker::wire::training::{AdamParams, Datum, ModelInput};
use retinker_local::LocalService;
use tokio::net::{TcpListener, TcpStream};

const MODEL: &str = "retinker/nano-llama";

async fn service() -> (tempfile::TempDir, LocalService, ServiceClient) {
    let (dir, service, api) = retinker_tests::service::embedded().await.unwrap();
    (dir, service, ServiceClient::new(api))
}

fn prompt(text: &str) -> ModelInput {
    ModelInput::from_ints(text.bytes().map(i32::from).collect())
}

fn drawn(seed: i128, max_tokens: i64) -> SampleOptions {
    let params =
        SamplingParams { max_tokens: Some(max_tokens), seed: Some(seed), ..SamplingParams::default() };
    SampleOptions { sampling_params: params, ..SampleOptions::default() }
}

async fn tokens(client: &SamplingClient, text: &str, options: &SampleOptions) -> Vec<u32> {
    client.sample(&prompt(text), options).await.unwrap().sequences[0].tokens.clone()
}

/// Passes connections on to a service; answers where, and how many there were.
async fn counted(to: std::net::SocketAddr) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, count) = (format!("http://{}", listener.local_addr().unwrap()), Arc::<AtomicUsize>::default());
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    (url, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http2_a_thousand_samples_share_a_connection() {
    let (_dir, service, _) = service().await;
    let (url, connections) = counted(service.address()).await;
    let api = retinker_tests::service::api_over(NativeTransport::http2().unwrap(), &url).unwrap();
    let client = ServiceClient::new(api);
    let sampler = client.create_sampling_client(SamplingSource::BaseModel(MODEL.into())).await.unwrap();
    let options = drawn(7, 2);
    let all = join_all((0..1000).map(|_| tokens(&sampler, "Tell me", &options))).await;
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    let expected = tokens(&sampler, "Tell me", &options).await;
    assert!(all.iter().all(|drawn| *drawn == expected), "seeded alike");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_comes_back() {
    let (_dir, service, client) = service().await;
    let sampler = client.create_sampling_client(SamplingSource::BaseModel(MODEL.into())).await.unwrap();
    assert_eq!(sampler.get_base_model().await.unwrap(), MODEL);
    let text = prompt("Tell me");
    let target = TargetTokens::new(vec![1, -1, 2, 3, -1, 4], 1);
    let options = SampleOptions {
        num_samples: 3,
        include_prompt_logprobs: true,
        topk_prompt_logprobs: 2,
        topk_sample_logprobs: 2,
        target_prompt_logprobs: Some(target),
        prompt_alt_tokens_k: 4,
        ..drawn(5, 6)
    };
    let response = sampler.sample(&text, &options).await.unwrap();
    assert_eq!(response.sequences.len(), 3);
    for sequence in &response.sequences {
        assert_eq!(sequence.logprobs.len(), sequence.tokens.len());
        assert!(sequence.stop_reason == StopReason::Stop || sequence.tokens.len() == 6);
        assert!(sequence.sequence_id.is_some());
        let top = sequence.topk_logprobs.as_ref().unwrap();
        assert!(top.rows.iter().all(|row| row.len() == 2 && row[0].1 >= row[1].1));
    }
    let scores = response.prompt_logprobs.unwrap();
    assert!(scores[0].is_nan() && scores.len() == 7 && scores[1..].iter().all(|score| *score <= 0.0));
    let top = response.topk_prompt_logprobs.unwrap();
    assert!(top.rows[0].is_empty() && top.rows[1].len() == 2 && top.rows.len() == 7);
    let target = response.target_prompt_logprobs.unwrap();
    assert!(target.data[0] < 0.0 && target.data[1] == 0.0, "{:?}", target.data);
    let drawn = response.prompt_alt_tokens.unwrap();
    assert_eq!((drawn.tokens.shape.unwrap(), drawn.logprobs.shape.unwrap()), (vec![6, 4], vec![6, 4]));
    // The same scores by themselves, and the last of them only.
    let alone = sampler.compute_logprobs(&text, None).await.unwrap();
    assert_eq!(alone[1..], scores[1..].iter().copied().map(Some).collect::<Vec<_>>());
    let last = sampler.compute_logprobs(&text, Some(2)).await.unwrap();
    assert_eq!(last[..5], [None; 5]);
    assert_eq!(last[5..], alone[5..]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_what_each_is_alone() {
    let (_dir, service, client) = service().await;
    let sampler = client.create_sampling_client(SamplingSource::BaseModel(MODEL.into())).await.unwrap();
    let ask = async |seed: i128| tokens(&sampler, &format!("Prompt {}", seed % 7), &drawn(seed, 12)).await;
    let together = join_all((0..200).map(ask)).await;
    for seed in [0, 3, 77, 199] {
        assert_eq!(ask(seed).await, together[seed as usize]);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_sampled_from_as_it_is_and_as_it_was() {
    let (_dir, service, client) = service().await;
    let lora = LoraConfig { rank: 8, seed: Some(1), ..LoraConfig::default() };
    let run = client.create_lora_training_client(MODEL, lora, TrainingOptions::default()).await.unwrap();
    let base = client.create_sampling_client(SamplingSource::BaseModel(MODEL.into())).await.unwrap();
    let fresh = run.save_weights_and_get_sampling_client().await.unwrap();
    let following = run.save_weights_and_get_inflight_sampling_client().await.unwrap();
    let greedy = SampleOptions {
        sampling_params: SamplingParams {
            temperature: 0.0,
            max_tokens: Some(4),
            ..SamplingParams::default()
        },
        ..SampleOptions::default()
    };
    let untrained = tokens(&base, "ab", &greedy).await;
    assert_eq!(tokens(&fresh, "ab", &greedy).await, untrained);

    let text: Vec<i32> = "ababababab".bytes().map(i32::from).collect();
    let targets = text[1..].iter().copied().map(i64::from).collect();
    let datum = Datum::cross_entropy(text[..9].to_vec(), targets, vec![1.0; 9]);
    for _ in 0..100 {
        let pass = run.forward_backward(std::slice::from_ref(&datum), "cross_entropy", &LossFnConfig::new());
        let step = run.optim_step(AdamParams { learning_rate: 0.005, ..AdamParams::default() });
        pass.await.unwrap();
        step.await.unwrap();
    }
    let saved = run.save_weights_for_sampler("trained", SaveForSamplerOptions::default()).await.unwrap();
    let path = saved.path.unwrap();
    assert!(path.ends_with("/sampler_weights/trained"), "{path}");
    let trained = client.create_sampling_client(SamplingSource::ModelPath(path)).await.unwrap();
    let ab: Vec<u32> = "abab".bytes().map(u32::from).collect();
    assert_eq!(tokens(&trained, "ab", &greedy).await, ab);
    assert_eq!(tokens(&fresh, "ab", &greedy).await, untrained, "a snapshot stays as it was");
    let newer = run.save_weights_and_get_inflight_sampling_client().await.unwrap();
    assert_eq!(tokens(&newer, "ab", &greedy).await, ab);
    assert_eq!(tokens(&following, "ab", &greedy).await, ab, "one that follows is given the new weights");

    // Another client of the same sampler, as another program would make it.
    let (session, sampler) = (trained.session_id(), trained.sampler_id());
    let again = SamplingClient::join(client.api().clone(), &session, &sampler).await.unwrap();
    assert_eq!(tokens(&again, "ab", &greedy).await, ab);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sampled_says_so_at_once() {
    let (_dir, service, client) = service().await;
    let nowhere = SamplingSource::ModelPath("tinker://nobody:train:0/sampler_weights/x".into());
    let error = client.create_sampling_client(nowhere).await.unwrap_err();
    assert!(matches!(error.status(), Some(400 | 404)), "{error}");
    let sampler = client.create_sampling_client(SamplingSource::BaseModel(MODEL.into())).await.unwrap();
    let error = sampler.sample(&prompt(&"x".repeat(5000)), &drawn(1, 1)).await.unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Failed { category: RequestErrorCategory::User, .. }),
        "{error}"
    );
    service.stop().await;
}
