//! A sampler as a backend of the North-Shore-AI platform, on the embedded service.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

use std::sync::Arc;
use std::time::Duration;

use retinker::client::retry::RetryPolicy;
use retinker::client::{SampleOptions, SamplingSource, ServiceClient};
use retinker::native::NativeRuntime;
use retinker::wire::sampling::SamplingParams;
use retinker::wire::training::ModelInput;
use retinker_ir::backend::{
    Backend, BackendError, Capabilities, Completion, Options, Prompt, SamplerBackend,
};
use retinker_tests::schedule;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_sampler_completes_prompts_says_what_it_can_and_counts() {
    let (_dir, service, api) = retinker_tests::service::embedded().await.unwrap();
    // What is down is told at once.
    let api = api.with_retry(RetryPolicy { budget: Duration::ZERO, ..RetryPolicy::default() });
    let owner = ServiceClient::new(api);
    let source = SamplingSource::BaseModel(schedule::BASE_MODEL.to_owned());
    let sampler = owner.create_sampling_client(source).await.unwrap();
    let params = SamplingParams { max_tokens: Some(6), temperature: 0.0, ..SamplingParams::default() };
    let wanted = SampleOptions { sampling_params: params, ..SampleOptions::default() };
    let drawn = sampler.sample(&ModelInput::from_ints(vec![84, 101, 108]), &wanted).await.unwrap();
    let backend = SamplerBackend::new(sampler, None, Arc::new(NativeRuntime::current().unwrap()));

    let can = backend.capabilities().await.unwrap();
    assert_eq!((&*can.provider, can.default_model.as_deref()), ("tinker", Some(schedule::BASE_MODEL)));
    assert!(
        !can.supports_tools && !can.supports_json_mode,
        "what the document defaults to is more than there is"
    );
    let text = serde_json::to_string(&can).unwrap();
    assert_eq!(serde_json::from_str::<Capabilities>(&text).unwrap(), can);

    let options = Options {
        max_tokens: Some(6),
        temperature: Some(0.0),
        extra: json!({ "tokens": [84, 101, 108] }).as_object().unwrap().clone(),
        ..Options::default()
    };
    let prompt = Prompt { options, request_id: Some("r-1".to_owned()), ..Prompt::default() };
    let completion = backend.complete(prompt.clone()).await.unwrap();
    assert_eq!(completion.metadata["tokens"], json!(drawn.sequences[0].tokens));
    assert_eq!(completion.request_id.as_deref(), Some("r-1"));
    let usage = completion.usage.clone().unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (3, 6, 9));
    assert_eq!(completion.choices[0].finish_reason.as_deref(), Some("length"));
    let text = serde_json::to_string(&completion).unwrap();
    assert_eq!(serde_json::from_str::<Completion>(&text).unwrap(), completion);

    let asks = |change: fn(&mut Options)| {
        let mut prompt = prompt.clone();
        change(&mut prompt.options);
        prompt
    };
    for (prompt, why) in [
        (asks(|options| options.stream = true), "piece by piece"),
        (asks(|options| options.presence_penalty = Some(0.5)), "penalties"),
        (asks(|options| options.response_format = Some("json".to_owned())), "held to JSON"),
        (asks(|options| options.extra.clear()), "no tokenizer"),
    ] {
        let refused = backend.complete(prompt).await.unwrap_err();
        assert!(matches!(&refused, BackendError::Unsupported(what) if what.contains(why)), "{refused}");
    }
    let health = backend.health().await;
    assert_eq!((&*health.status, health.error_count), ("ok", 4));
    let counted = backend.metrics();
    assert_eq!((counted["requests"], counted["errors"], counted["prompt_tokens"]), (5.0, 4.0, 3.0));
    service.stop().await;
    assert_ne!(backend.health().await.status, "ok");
}
