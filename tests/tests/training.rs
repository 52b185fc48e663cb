//! The Rust client trains on the embedded service: many requests at once, through bad weather, with losses of its own.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test that fails, panics.

use std::time::Duration;

use futures_util::future::join_all;
use retinker::client::retry::RetryPolicy;
use retinker::client::{
    Api, CustomLoss, LossFnConfig, SaveExternalOptions, SaveOptions, ServiceClient, TrainingClient,
    TrainingOptions,
};
use retinker::wire::tensor::TensorData;
use retinker::wire::training::{AdamParams, Datum, DimuonParams, ImageFormat, ModelInput, ModelInputChunk};
use retinker_local::LocalService;
use retinker_tests::schedule;
use retinker_tests::weather::{Fault, Storm};

async fn service() -> (tempfile::TempDir, LocalService, Api) {
    retinker_tests::service::embedded().await.unwrap()
}

async fn run(api: &Api) -> TrainingClient {
    let owner = ServiceClient::new(api.clone());
    let made = TrainingOptions::default();
    owner.create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), made).await.unwrap()
}

fn none() -> LossFnConfig {
    LossFnConfig::new()
}

/// The log-probabilities of a batch's targets, which tell any two states of the weights apart.
async fn logprobs(client: &TrainingClient, data: &[Datum]) -> Vec<f32> {
    let output = client.forward(data, "cross_entropy", &none()).await.unwrap();
    output.loss_fn_outputs.iter().flat_map(|one| one["logprobs"].to_f32()).collect()
}

/// Trains with many passes under way at once; the loss of each step.
async fn train(client: &TrainingClient, steps: usize) -> Vec<f64> {
    let mut losses = Vec::new();
    for step in 0..steps {
        losses.push(train_once(client, step).await);
    }
    losses
}

async fn train_once(client: &TrainingClient, step: usize) -> f64 {
    // All are called before any is awaited, so their order is that of the calls; a look at the weights in between
    // changes nothing.
    let passes: Vec<_> = (0..6)
        .map(|part| client.forward_backward(schedule::batch(6 * step + part), "cross_entropy", &none()))
        .collect();
    let look = client.forward(schedule::batch(0), "cross_entropy", &none());
    let update = client.optim_step(AdamParams { learning_rate: 1e-2, ..AdamParams::default() });
    let results = join_all(passes).await;
    look.await.unwrap();
    update.await.unwrap();
    results.into_iter().map(|result| result.unwrap().metrics["loss:sum"]).sum()
}

/// A client through a storm, which is not waited out for long.
fn through(storm: &Storm) -> Api {
    let (first_delay, max_delay) = (Duration::from_millis(20), Duration::from_millis(200));
    let policy = RetryPolicy { first_delay, max_delay, ..RetryPolicy::default() };
    retinker_tests::service::api(&storm.base_url).unwrap().with_retry(policy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_changes_no_step() {
    let (_dir, service, api) = service().await;
    let quiet = run(&api).await;
    let storm = Storm::before(&service.base_url(), 7).await.unwrap();
    let api_in_storm = through(&storm);
    // Made one after the other, trained at the same time.
    let clients = [run(&api_in_storm).await, run(&api_in_storm).await, run(&api_in_storm).await];
    // Which request meets which fault is a matter of who comes first: so it goes on until each has happened some times.
    let rare = || Fault::ALL.into_iter().filter(|fault| storm.count(*fault) < 3).collect::<Vec<_>>();
    let mut steps = 0;
    while steps < 12 || !rare().is_empty() {
        assert!(steps < 100, "{:?} hardly happen among {} faults", rare(), storm.faults());
        let expected = train_once(&quiet, steps).await;
        let losses = join_all(clients.each_ref().map(|client| train_once(client, steps))).await;
        assert_eq!(losses, [expected; 3], "step {steps} once, in order, bit for bit");
        steps += 1;
    }
    let probe = schedule::batch(99);
    let weights = logprobs(&quiet, &probe).await;
    for client in clients {
        assert!(client.poisoned().is_none());
        // Seven passes and a step each: no number was left out, none was taken twice.
        assert_eq!(client.attachment().next_seq_id, 8 * steps as u64 + 1);
        let calm = TrainingClient::attach(api.clone(), client.hand_over().await.unwrap());
        assert_eq!(logprobs(&calm, &probe).await, weights, "the same weights");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_fault_many_times_in_a_row_changes_no_step() {
    const ROW: u64 = 8;
    // Far more than it takes.
    const MOST: usize = 60;
    let (_dir, service, api) = service().await;
    let expected = train(&run(&api).await, MOST).await;
    let rows = Fault::ALL.map(|fault| {
        let (base_url, expected) = (service.base_url(), &expected);
        async move {
            let storm = Storm::row(&base_url, fault).await.unwrap();
            let client = run(&through(&storm)).await;
            storm.again(ROW);
            let mut steps = 0;
            // Some end connections, and so are over within a step; requests that arrive twice end none.
            while storm.count(fault) < ROW {
                assert!(steps < MOST, "{fault:?} happened only {} times", storm.count(fault));
                assert_eq!(train_once(&client, steps).await, expected[steps], "{fault:?}");
                steps += 1;
            }
            assert!(client.poisoned().is_none(), "{fault:?}");
            assert_eq!(client.attachment().next_seq_id, 8 * steps as u64 + 1, "{fault:?}");
        }
    });
    join_all(rows).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_of_one_client_are_served_in_a_storm() {
    let (_dir, service, api) = service().await;
    let quiet = run(&api).await;
    let batches: Vec<_> = (0..16).map(schedule::batch).collect();
    let mut expected = Vec::new();
    for batch in &batches {
        expected.push(logprobs(&quiet, batch).await);
    }
    let storm = Storm::before(&service.base_url(), 3).await.unwrap();
    let client = run(&through(&storm)).await;
    // Each caller is a task of its own; whichever comes first, what each gets is its own.
    let callers = batches.into_iter().map(|batch| {
        let client = client.clone();
        tokio::spawn(async move { logprobs(&client, &batch).await })
    });
    let found: Vec<_> = join_all(callers).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(found, expected);
    assert!(client.poisoned().is_none());
    assert_eq!(client.attachment().next_seq_id, 17);
    assert!(storm.faults() > 5, "{} faults", storm.faults());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_many_requests_is_one_batch() {
    let (_dir, service, api) = service().await;
    let client = run(&api).await;
    // Three requests, which go out together.
    let data: Vec<Datum> = (0..1050).flat_map(schedule::batch).collect();
    let whole = client.forward_backward(data.as_slice(), "cross_entropy", &none()).await.unwrap();
    assert_eq!((whole.loss_fn_outputs.len(), client.attachment().next_seq_id), (2100, 4));
    let parts = client.forward(&data[1500..1502], "cross_entropy", &none()).await.unwrap();
    for (part, found) in parts.loss_fn_outputs.iter().zip(&whole.loss_fn_outputs[1500..1502]) {
        assert_eq!(part["logprobs"], found["logprobs"], "results stand in the order of the data");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_of_the_programs_own_trains_like_the_servers() {
    let (_dir, service, api) = service().await;
    let (own, theirs) = (run(&api).await, run(&api).await);
    let adam = AdamParams { learning_rate: 1e-2, ..AdamParams::default() };
    for step in 0..5 {
        let data = schedule::batch(step);
        let mine = own.forward_backward_custom(data.clone(), |data, logprobs| {
            let weights: Vec<Vec<f32>> =
                data.iter().map(|datum| datum.loss_fn_inputs["weights"].to_f32()).collect();
            let terms = weights.iter().zip(logprobs).flat_map(|(weights, logprobs)| {
                let logprobs = logprobs.to_f32();
                weights.iter().zip(logprobs).map(|(w, p)| -f64::from(w * p)).collect::<Vec<_>>()
            });
            let loss = terms.sum();
            let gradients = weights.iter().map(|weights| weights.iter().map(|w| -w).collect()).collect();
            Ok::<_, String>(CustomLoss { loss, gradients, ..CustomLoss::default() })
        });
        let (stepped, expected) =
            (own.optim_step(adam), theirs.forward_backward(data.as_slice(), "cross_entropy", &none()));
        theirs.optim_step(adam).await.unwrap();
        let (mine, expected) = (mine.await.unwrap().metrics, expected.await.unwrap().metrics);
        stepped.await.unwrap();
        assert_eq!(mine["surrogate_loss:sum"], expected["loss:sum"], "step {step}");
        assert!((mine["loss:sum"] / expected["loss:sum"] - 1.0).abs() < 1e-6, "{mine:?} {expected:?}");
    }
    let probe = schedule::batch(99);
    assert_eq!(logprobs(&own, &probe).await, logprobs(&theirs, &probe).await);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sparse_means_the_same_and_what_is_not_text_is_refused_in_its_turn() {
    let (_dir, service, api) = service().await;
    let client = run(&api).await;
    let tokens: Vec<i32> = "sparse".bytes().map(i32::from).collect();
    let wide = |listed: &dyn Fn(usize) -> f32| {
        let mut cells = vec![0.0; 5 * 20];
        (0..5).for_each(|row| cells[row * 20 + 3] = listed(row));
        cells
    };
    let shape = Some(vec![5, 20]);
    let targets = wide(&|row| tokens[row + 1] as f32).into_iter().map(|token| token as i64).collect();
    let targets = TensorData { shape: shape.clone(), ..TensorData::int64(targets) };
    let weights = TensorData { shape, ..TensorData::float32(wide(&|_| 1.0)) };
    let datum = |targets: TensorData, weights: TensorData| Datum {
        model_input: ModelInput::from_ints(tokens[..5].to_vec()),
        loss_fn_inputs: [("target_tokens".to_owned(), targets), ("weights".to_owned(), weights)].into(),
        provenance: None,
    };
    let dense =
        client.forward(&[datum(targets.clone(), weights.clone())], "cross_entropy", &none()).await.unwrap();
    let listed = datum(targets.to_sparse(), weights.to_sparse());
    assert!(listed.loss_fn_inputs.values().all(|tensor| tensor.sparse.is_some()));
    let sparse = client.forward(std::slice::from_ref(&listed), "cross_entropy", &none()).await.unwrap();
    assert_eq!(sparse.metrics, dense.metrics);

    let image =
        ModelInputChunk::Image { data: vec![1].into(), format: ImageFormat::Png, expected_tokens: None };
    let seen = Datum { model_input: ModelInput::default().append(image), ..listed };
    let refused = client.forward_backward(&[seen], "cross_entropy", &none()).await.unwrap_err();
    assert!(refused.to_string().contains("'image'"), "{refused}");
    let refused = client.optim_step(DimuonParams::new(1e-3)).await.unwrap_err();
    assert!(refused.to_string().contains("dimuon"), "{refused}");
    client.optim_step(AdamParams::default()).await.unwrap();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_exchanged_for_tokens_and_weights_leave_the_service() {
    let (_dir, service, api) = service().await;
    api.exchange_tokens();
    let owner = ServiceClient::new(api.clone());
    let rest = owner.create_rest_client();
    let me = rest.whoami().await.unwrap();
    assert!(me.org_urn.starts_with("tml:organization:") && !me.user_urn.is_empty(), "{me:?}");
    let client = run(&api).await;
    client.optim_step(AdamParams::default()).await.unwrap();
    let saved = client.save_weights_external("out", SaveExternalOptions::default()).await.unwrap();
    let files = rest.get_external_weights_urls(&saved.path).await.unwrap();
    assert!(
        files.urls.keys().any(|name| name.ends_with("adapter_model.safetensors")),
        "{:?}",
        files.urls.keys()
    );
    for name in ["a", "b", "c"] {
        client.save_state(name, SaveOptions::default()).await.unwrap();
    }
    let pages: Vec<_> = futures_util::StreamExt::collect(rest.user_checkpoints(2)).await;
    let names: Vec<String> = pages.into_iter().flat_map(Result::unwrap).map(|one| one.tinker_path).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    for error in [
        rest.get_audit_log(&retinker::wire::account::AuditEventType::All, None).await.unwrap_err(),
        rest.get_current_checkpoint_storage_usage(Some("a b&c")).await.unwrap_err(),
        rest.export_session_trace(&client.session_id()).await.unwrap_err(),
    ] {
        assert!(error.is_unsupported(), "{error}");
    }
    service.stop().await;
}
