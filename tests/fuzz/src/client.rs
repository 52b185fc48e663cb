use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, join3, select};
use futures_util::{FutureExt, Stream, StreamExt};
use retinker::client::testing::ManualRuntime;
use retinker::client::{
    Api, ApiConfig, CustomLoss, Download, Error, LossFnConfig, Pending, RestClient, SampleOptions,
    SamplingClient, SamplingSource, SaveExternalOptions, SaveOptions, Secret, ServiceClient, Telemetry,
    TrainingOptions,
};
use retinker::recovery::executor::Executor;
use retinker::recovery::journal::MemoryStore;
use retinker::recovery::plan::PlanRequest;
use retinker::recovery::planner::{gather, make_plan};
use retinker::runtime::Runtime;
use retinker::wire::account::AuditEventType;
use retinker::wire::model::{CreateModelResult, LoadWeightsResult, LoraConfig};
use retinker::wire::run::AccessScope;
use retinker::wire::sampling::{AsampleRequest, SampleResponse, SamplingParams, sample_type};
use retinker::wire::session::FinishReason;
use retinker::wire::telemetry::Severity;
use retinker::wire::time::Time;
use retinker::wire::training::{
    AdamParams, CreateCustomLossResult, CustomLossInput, Datum, ForwardBackwardOutput, ModelInput,
    OptimStepResult,
};
use retinker::wire::weights::{SaveWeightsForSamplerResult, SaveWeightsResult};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::script::{Script, parts};

const KEY: &str = "tml-this-is-the-key";
const RUN: &str = "s:train:0";
const CHECKPOINT: &str = "weights/a";
const PATH: &str = "tinker://s:train:0/weights/a";

/// How long a server that never ends is listened to.
const LISTEN: Duration = Duration::from_secs(600);
/// Longer than everything may take once the server refuses everything: the longest pauses, for every answer before.
const FOR_EVER: Duration = Duration::from_secs(366 * 24 * 3600);

/// The client against any server: the first byte says what the client does, the rest is what the server answers (see
/// `script`), over and over if the byte is large. Then every call ends, as soon as the server gives it an end; none asks
/// without a pause; and no error holds the key or what a terminal would obey.
pub fn client(data: &[u8]) {
    let Some((choice, script)) = data.split_first() else { return };
    let repeats = *choice >= 128;
    let runtime = ManualRuntime::new().with_chance();
    let script = Script::new(Arc::new(runtime.clone()), &parts(script), repeats);
    let config = ApiConfig {
        base_url: "http://service.test".to_owned(),
        api_key: Some(Secret::new(KEY)),
        ..ApiConfig::default()
    };
    let api = Api::new(config, Arc::new(script), Arc::new(runtime.clone())).unwrap();
    let call = CALLS[usize::from(*choice) % CALLS.len()](api);
    let limit = runtime.sleep(if repeats { LISTEN } else { FOR_EVER });
    let ended = runtime.block_on(async { matches!(select(call, limit).await, Either::Left(_)) });
    assert!(ended || repeats, "the call does not end");
}

type Call = fn(Api) -> BoxFuture<'static, ()>;

macro_rules! calls {
    ($($api:ident => $call:expr;)*) => { &[$(|$api| async move { tell($call.await) }.boxed()),*] };
}

/// The corpus names them by their places: what is new goes to the end.
const CALLS: &[Call] = calls! {
    api => api.client_config();
    api => api.dynamic_config();
    api => api.capabilities();
    api => api.healthz();
    api => api.create_session(&made(json!({"sdk_version": "x"})));
    api => api.session_heartbeat("s");
    api => api.finish_session("s", FinishReason::Success, None);
    api => api.get_session("s");
    api => api.list_sessions(20, 0);
    api => result(api.create_model(&made(json!({"session_id": "s", "base_model": "m"}))).await);
    api => result(api.load_weights(&made(numbered("load_weights"))).await);
    api => api.get_info(RUN);
    api => forward_backward(api);
    api => result(api.optim_step(&made(numbered("optim_step"))).await);
    api => result(api.save_weights(&made(numbered("save_weights"))).await);
    api => result(api.save_weights_for_sampler(&made(numbered("save_weights_for_sampler"))).await);
    api => api.create_sampling_session(&made(json!({"session_id": "s", "sampling_session_seq_id": 0})));
    api => api.join_sampling_session("s:sample:0");
    api => api.get_sampler("s:sample:0");
    api => asample(api);
    api => api.cancel_future("r");
    api => api.retrieve_future::<CreateModelResult>("r");
    api => api.retrieve_future::<LoadWeightsResult>("r");
    api => api.retrieve_future::<OptimStepResult>("r");
    api => api.retrieve_future::<SaveWeightsResult>("r");
    api => api.retrieve_future::<SaveWeightsForSamplerResult>("r");
    api => api.retrieve_future::<ForwardBackwardOutput>("r");
    api => api.retrieve_future::<SampleResponse>("r");
    api => api.weights_info(PATH);
    api => api.training_runs(20, 0);
    api => api.training_run_in(RUN, AccessScope::Accessible);
    api => api.run_checkpoints(RUN);
    api => api.set_checkpoint_ttl(RUN, CHECKPOINT, Some(1));
    api => api.user_checkpoints(20, 0);
    api => api.set_checkpoint_public(RUN, CHECKPOINT, true);
    api => api.external_weights_urls(RUN, CHECKPOINT);
    api => api.checkpoint_archive_address(RUN, CHECKPOINT);
    api => api.copy_weights(&made(json!({"source_path": PATH})), None);
    api => api.audit_log(&AuditEventType::from("login".to_owned()), None);
    api => api.billing_usage(Time::from_millis(0), Time::from_millis(1));
    api => api.checkpoint_storage_usage(None);
    api => api.session_trace_export("s");
    api => api.search_sessions(&made(json!({})));
    api => api.set_session_project("s", "p");
    api => api.delete_checkpoint(RUN, CHECKPOINT);
    api => all(RestClient::new(api).training_runs(2));
    api => all(RestClient::new(api).user_checkpoints(2));
    api => all(RestClient::new(api).sessions(2));
    api => all(RestClient::new(api).search_sessions(made(json!({}))));
    api => async { RestClient::new(api).whoami().await };
    api => async { RestClient::new(api).export_session_trace("s").await };
    api => train(api);
    api => restored(api);
    api => sample(api);
    api => join(api);
    api => exchanging(api);
    api => download(api);
    api => restore(api);
    api => api.retrieve_future::<CreateCustomLossResult>("r");
    api => custom(api);
    api => external(api);
    api => uploaded(api);
    api => reported(api);
};

/// Holds what came of a call to what is promised of all.
pub(crate) fn tell<T: Debug, E: Display + Debug>(result: Result<T, E>) {
    // Whatever it is, people may want to see it.
    let told = match &result {
        Ok(value) => return drop(format!("{value:?}")),
        Err(error) => error.to_string(),
    };
    assert!(!told.contains(KEY), "an error holds the key");
    assert!(!told.contains(char::is_control), "an error holds control characters: {told:?}");
}

/// A request of this form.
fn made<T: DeserializeOwned>(request: Value) -> T {
    serde_json::from_value(request).unwrap()
}

fn numbered(kind: &str) -> Value {
    json!({"model_id": RUN, "seq_id": 1, "path": "a", "type": kind})
}

async fn result<T: Send + 'static>(submitted: Result<Pending<T>, Error>) -> Result<T, Error> {
    submitted?.await
}

async fn all<T>(pages: impl Stream<Item = Result<Vec<T>, Error>> + Send) -> Result<usize, Error> {
    let mut pages = Box::pin(pages);
    let mut count = 0;
    while let Some(page) = pages.next().await {
        count += page?.len();
    }
    Ok(count)
}

fn datum() -> Datum {
    Datum::cross_entropy(vec![1, 2], vec![2, 3], vec![1.0, 1.0])
}

fn prompt() -> ModelInput {
    ModelInput::from_ints(vec![1, 2])
}

async fn forward_backward(api: Api) -> Result<ForwardBackwardOutput, Error> {
    api.forward_backward(RUN, 1, &[datum()], "cross_entropy", &LossFnConfig::new(), false).await?.await
}

async fn asample(api: Api) -> Result<SampleResponse, Error> {
    let prompt = prompt();
    let request = AsampleRequest {
        num_samples: 1,
        prompt: &prompt,
        sampling_params: SamplingParams::default(),
        base_model: None,
        model_path: None,
        sampling_session_id: Some("s:sample:0".to_owned()),
        seq_id: Some(0),
        prompt_logprobs: None,
        topk_prompt_logprobs: 0,
        topk_sample_logprobs: 0,
        target_prompt_logprobs: None,
        prompt_alt_tokens_k: 0,
        prompt_logprobs_last_n: None,
        record_stability_info: None,
        kind: sample_type(),
    };
    api.asample(&request).await?.await
}

/// A session with a run of three operations under way at once, of which one is a batch of several requests if the server
/// says so.
async fn train(api: Api) -> Result<String, Error> {
    let service = ServiceClient::new(api);
    let client =
        service.create_lora_training_client("m", LoraConfig::default(), TrainingOptions::default()).await?;
    let data = vec![datum(); 3];
    let results = join3(
        client.forward_backward(data, "cross_entropy", &LossFnConfig::new()),
        client.optim_step(AdamParams::default()),
        client.save_state("a", SaveOptions::default()),
    );
    let results = results.await;
    Ok(format!("{results:?} {:?} {:?}", client.get_info().await, client.hand_over().await))
}

/// A loss of the program's own, of whatever log-probabilities the server gives, and a step that follows it.
async fn custom(api: Api) -> Result<String, Error> {
    let service = ServiceClient::new(api);
    let client =
        service.create_lora_training_client("m", LoraConfig::default(), TrainingOptions::default()).await?;
    let pass = client.forward_backward_custom(vec![datum(); 3], |data, logprobs| {
        assert_eq!(data.len(), logprobs.len());
        let gradients = logprobs.iter().map(|logprobs| logprobs.to_f32()).collect();
        Ok::<_, Error>(CustomLoss { gradients, ..CustomLoss::default() })
    });
    let step = client.optim_step(AdamParams::default());
    Ok(format!("{:?} {:?}", pass.await, step.await))
}

async fn external(api: Api) -> Result<String, Error> {
    let rest = RestClient::new(api.clone());
    let service = ServiceClient::new(api);
    let client =
        service.create_lora_training_client("m", LoraConfig::default(), TrainingOptions::default()).await?;
    let saved = client.save_weights_external("a", SaveExternalOptions::default()).await?;
    Ok(format!("{:?}", rest.get_external_weights_urls(&saved.path).await))
}

/// A loss for the server to compute.
async fn uploaded(api: Api) -> Result<String, Error> {
    let inputs = vec![CustomLossInput { name: "logprobs".to_owned(), rank: 1 }];
    let made = ServiceClient::new(api).create_custom_loss("l", inputs, json!({"nodes": []})).await?;
    Ok(format!("{:?}", made.await?))
}

/// Events that are sent, whatever becomes of them.
async fn reported(api: Api) -> Result<(), Error> {
    let telemetry = Telemetry::of_session(&api, "s");
    telemetry.log("a", serde_json::Map::new(), Severity::Info);
    telemetry.log_fatal_exception(&std::io::Error::other("it broke"), Severity::Error).await;
    Ok(())
}

async fn restored(api: Api) -> Result<String, Error> {
    let service = ServiceClient::new(api);
    let client = service.create_training_client_from_state(PATH, TrainingOptions::default()).await?;
    let sampler = client.save_weights_and_get_sampling_client().await?;
    sampler.get_base_model().await
}

/// Samples that are under way at once.
async fn sample(api: Api) -> Result<String, Error> {
    let source = SamplingSource::BaseModel("m".to_owned());
    let client = ServiceClient::new(api).create_sampling_client(source).await?;
    let (prompt, options) = (prompt(), SampleOptions { topk_sample_logprobs: 1, ..SampleOptions::default() });
    let results = join3(
        client.sample(&prompt, &options),
        client.sample(&prompt, &options),
        client.compute_logprobs(&prompt, Some(1)),
    );
    Ok(format!("{:?}", results.await))
}

async fn join(api: Api) -> Result<String, Error> {
    let client = SamplingClient::join(api, "s", "s:sample:0").await?;
    let response = client.sample(&prompt(), &SampleOptions::default()).await?;
    Ok(format!("{response:?}"))
}

/// With tokens for which the key is exchanged.
async fn exchanging(api: Api) -> Result<String, Error> {
    api.exchange_tokens();
    api.healthz().await?;
    Ok(format!("{:?}", api.list_sessions(1, 0).await))
}

/// A file whose end is where the server says it is.
async fn download(api: Api) -> Result<u64, Error> {
    let mut download = Download::open(&api, "a file", &Secret::new("http://files.test/a?secret"), 3).await?;
    while download.next().await?.is_some() {}
    assert!(download.total().is_none_or(|total| total == download.received()));
    Ok(download.received())
}

/// A restore, from the plan to its end.
async fn restore(api: Api) -> Result<String, Error> {
    let runtime = Arc::clone(api.runtime());
    let request = PlanRequest::new(RUN);
    let facts = gather(&api, &request, None, None, runtime.now()).await?;
    let Ok(plan) = make_plan(&facts, &request) else { return Ok("no plan".to_owned()) };
    let executor = Executor::new(api, Arc::new(MemoryStore::new(Arc::clone(&runtime))), runtime);
    tell(executor.begin(plan).await);
    let ended = executor.resume_unfinished().await;
    Ok(format!("{ended:?}"))
}
