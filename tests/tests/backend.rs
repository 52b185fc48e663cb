//! A sampler as a backend of the North-Shore-AI platform, on the embedded service.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

use std::sync::Arc;
use std::time::Duration;

use retinker::client::retry::RetryPolicy;
use retinker::client::testing::ByteTokenizer;
use retinker::client::{SampleOptions, SamplingSource, ServiceClient, Tokenizer};
use retinker::native::NativeRuntime;
use retinker::wire::sampling::SamplingParams;
use retinker::wire::training::ModelInput;
use retinker_ir::backend::{
    Backend, BackendError, Capabilities, Completion, Options, Prompt, SamplerBackend, Template, Usage,
};
use retinker_local::{RequestFault, RequestRule};
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
        (asks(|options| options.json_schema = Some(Default::default())), "held to JSON"),
        (asks(|options| options.model = Some("another".to_owned())), "it has retinker/nano-llama alone"),
        (asks(|options| options.extra.clear()), "no tokenizer"),
    ] {
        let refused = backend.complete(prompt).await.unwrap_err();
        assert!(matches!(&refused, BackendError::Unsupported(what) if what.contains(why)), "{refused}");
    }
    let health = backend.health().await;
    assert_eq!((&*health.status, health.error_count), ("ok", 6));
    let counted = backend.metrics();
    assert_eq!((counted["requests"], counted["errors"], counted["prompt_tokens"]), (7.0, 6.0, 3.0));
    service.stop().await;
    assert_ne!(backend.health().await.status, "ok");
}

/// Who speaks, and what.
#[derive(Debug)]
struct Lines;

impl Template for Lines {
    fn text(&self, prompt: &Prompt) -> Result<String, String> {
        let lines = prompt.messages.iter().map(|message| {
            let [who, what] =
                ["role", "content"].map(|name| message.get(name).and_then(|value| value.as_str()));
            Some(format!("{}: {}\n", who?, what?))
        });
        lines.collect::<Option<String>>().ok_or_else(|| "a message that is no text".to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_what_the_model_goes_on_from_and_a_conversation_needs_a_template() {
    let (_dir, service, api) = retinker_tests::service::faulty().await.unwrap();
    let owner = ServiceClient::new(api);
    let source = SamplingSource::BaseModel(schedule::BASE_MODEL.to_owned());
    let sampler = owner.create_sampling_client(source).await.unwrap();
    let runtime = || Arc::new(NativeRuntime::current().unwrap());
    let plain = SamplerBackend::new(sampler.clone(), Some(Arc::new(ByteTokenizer)), runtime());
    let prompt = |messages: serde_json::Value| Prompt {
        messages: serde_json::from_value(messages).unwrap(),
        options: Options { max_tokens: Some(4), temperature: Some(0.0), ..Options::default() },
        ..Prompt::default()
    };
    let said =
        |completion: &Completion| completion.choices[0].message["content"].as_str().unwrap().to_owned();
    let params = SamplingParams { max_tokens: Some(4), temperature: 0.0, ..SamplingParams::default() };
    let drawn = async |text: &str| {
        let wanted = SampleOptions { sampling_params: params.clone(), ..SampleOptions::default() };
        let input = ModelInput::from_ints(ByteTokenizer.encode(text, true).unwrap());
        let response = sampler.sample(&input, &wanted).await.unwrap();
        ByteTokenizer.decode(&response.sequences[0].tokens, true).unwrap()
    };

    let one = prompt(json!([{ "role": "user", "content": "Tell me" }]));
    let parts = prompt(
        json!([{ "role": "user", "content": [{ "type": "text", "text": "Tell " }, { "type": "text", "text": "me" }] }]),
    );
    for asked in [one.clone(), parts] {
        let text = serde_json::to_string(&asked).unwrap();
        assert_eq!(serde_json::from_str::<Prompt>(&text).unwrap(), asked);
        let completion = plain.complete(asked).await.unwrap();
        assert_eq!(said(&completion), drawn("Tell me").await);
        assert_eq!(completion.model.as_deref(), Some(schedule::BASE_MODEL), "the one that answered");
        assert_eq!(completion.usage.unwrap().prompt_tokens, 7);
    }

    let talk = prompt(json!([{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b" }]));
    let system = Prompt { system: Some("Be kind.".to_owned()), ..one.clone() };
    let chooses = Prompt { tool_choice: Some(json!("required")), ..one.clone() };
    let picture = prompt(json!([{ "role": "user", "content": [{ "type": "image" }] }]));
    for (asked, why) in [
        (talk.clone(), "a conversation"),
        (system, "a conversation"),
        (chooses, "tools"),
        (picture, "no text"),
    ] {
        let refused = plain.complete(asked).await.unwrap_err();
        assert!(matches!(&refused, BackendError::Unsupported(what) if what.contains(why)), "{refused}");
    }
    let told = SamplerBackend::new(sampler.clone(), Some(Arc::new(ByteTokenizer)), runtime())
        .with_template(Arc::new(Lines));
    assert_eq!(said(&told.complete(talk).await.unwrap()), drawn("user: a\nassistant: b\n").await);

    let mut hurried = one;
    hurried.options.timeout_ms = Some(1);
    let rule = RequestRule::new("asample", RequestFault::Delay { milliseconds: 600_000 });
    service.faults().add_request_rule(rule).unwrap();
    let late = plain.complete(hurried).await;
    assert!(matches!(late, Err(BackendError::TimedOut(1))), "{late:?}");
    // What other backends tell of what it took is kept.
    let usage = json!({ "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "thinking_tokens": 1, "cached_tokens": 1 });
    assert_eq!(serde_json::to_value(serde_json::from_value::<Usage>(usage.clone()).unwrap()).unwrap(), usage);
    service.stop().await;
}
