//! The Rust client's tokenizers, from the embedded service as a hub and from its files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test that fails, panics.

use std::path::Path;
use std::sync::Arc;

use retinker::client::{
    SampleOptions, SamplingSource, Secret, ServiceClient, Tokenizer, TokenizerSource, TrainingOptions,
};
use retinker::native::{HubConfig, HubTokenizers, NativeRuntime, NativeTransport};
use retinker::wire::model::LoraConfig;
use retinker::wire::sampling::SamplingParams;
use retinker::wire::training::ModelInput;
use retinker_local::LocalService;

const MODEL: &str = "retinker/nano-llama";

async fn service() -> (tempfile::TempDir, LocalService, ServiceClient) {
    let (dir, service, api) = retinker_tests::service::embedded().await.unwrap();
    (dir, service, ServiceClient::new(api))
}

/// Tokenizers of the service, or, offline, of the cache only.
fn source(service: &LocalService, cache: &Path, offline: bool) -> HubTokenizers {
    let config = HubConfig {
        endpoint: service.base_url(),
        token: Some(Secret::new("tml-test")),
        cache: cache.to_owned(),
        offline,
    };
    let runtime = NativeRuntime::current().unwrap();
    HubTokenizers::new(config, Arc::new(NativeTransport::new().unwrap()), Arc::new(runtime)).unwrap()
}

/// The service's tokens are bytes.
fn check(tokenizer: &dyn Tokenizer) {
    for text in ["", "Hello, world", "\n\t  ü 漢字 🦀\u{0}", "<eos", "  "] {
        let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
        let tokens = tokenizer.encode(text, true).unwrap();
        assert_eq!(
            tokens,
            bytes.iter().map(|byte| i32::try_from(*byte).unwrap()).collect::<Vec<_>>(),
            "{text:?}"
        );
        assert_eq!(tokenizer.decode(&bytes, false).unwrap(), text);
    }
    let specials = (tokenizer.bos_token_id(), tokenizer.eos_token_id(), tokenizer.vocab_size());
    assert_eq!(specials, (Some(256), Some(257), 259));
    assert_eq!(tokenizer.encode("a<eos>b", true).unwrap(), [97, 257, 98]);
    assert_eq!(tokenizer.decode(&[256, 97, 257], true).unwrap(), "a");
    assert_eq!(tokenizer.decode(&[256, 97, 257], false).unwrap(), "<bos>a<eos>");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_and_a_sampler_have_the_services_tokenizer() {
    let (dir, service, client) = service().await;
    let cache = dir.path().join("cache");
    let hub = source(&service, &cache, false);
    let lora = LoraConfig { rank: 8, ..LoraConfig::default() };
    let run = client.create_lora_training_client(MODEL, lora, TrainingOptions::default()).await.unwrap();
    check(&*run.get_tokenizer(&hub).await.unwrap());
    assert!(!cache.exists(), "the service names a directory of this machine");
    let sampler = client.create_sampling_client(SamplingSource::BaseModel(MODEL.into())).await.unwrap();
    let tokenizer = sampler.get_tokenizer(&hub).await.unwrap();
    check(&*tokenizer);
    // From text to text.
    let prompt = ModelInput::from_ints(tokenizer.encode("Once upon a time", true).unwrap());
    let params = SamplingParams { max_tokens: Some(8), seed: Some(1), ..SamplingParams::default() };
    let options = SampleOptions { sampling_params: params, ..SampleOptions::default() };
    let drawn = sampler.sample(&prompt, &options).await.unwrap().sequences[0].tokens.clone();
    let bytes: Vec<u8> = drawn.iter().filter_map(|token| u8::try_from(*token).ok()).collect();
    assert_eq!(tokenizer.decode(&drawn, true).unwrap(), String::from_utf8_lossy(&bytes));
    // Another program finds it in the cache.
    check(&*sampler.get_tokenizer(&source(&service, &cache, true)).await.unwrap());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_the_hub_has_not_is_named() {
    let (dir, service, _client) = service().await;
    let hub = source(&service, &dir.path().join("cache"), false);
    let id = retinker::client::TokenizerId::of_model("somebody/elses", None);
    let error = hub.load(id).await.unwrap_err().to_string();
    assert!(error.contains("somebody/elses") && error.contains("is the id right"), "{error}");
    service.stop().await;
}
