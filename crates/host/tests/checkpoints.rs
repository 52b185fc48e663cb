//! The calls about checkpoints, against the embedded service.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // A test that fails, panics.

mod common;

use std::sync::Arc;

use common::{client, config, until};
use retinker::client::{
    Api, ApiConfig, Download, LossFnConfig, SaveOptions, Secret, ServiceClient, TrainingClient,
    TrainingOptions,
};
use retinker::host::HostClient;
use retinker::host::api::PlanAnswer;
use retinker::host::checkpoints::{
    CheckpointActions, CheckpointDo, CheckpointOutcome, CheckpointSort, CheckpointsQuery, MAX_ACTIONS,
    RetentionRequest,
};
use retinker::native::{NativeRuntime, NativeTransport};
use retinker::recovery::plan::PlanRequest;
use retinker::recovery::retention::Rule;
use retinker::wire::model::LoraConfig;
use retinker::wire::run::CheckpointType;
use retinker::wire::training::{AdamParams, Datum};
use retinker_host::{Host, RunningHost};
use retinker_local::{LocalConfig, LocalService};
use tempfile::TempDir;

struct Stage {
    service: LocalService,
    api: Api,
    running: RunningHost,
    host: HostClient,
    _dirs: [TempDir; 2],
}

async fn stage() -> Stage {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let service = LocalService::start(LocalConfig::new(dirs[0].path())).await.unwrap();
    let given = ApiConfig {
        base_url: service.base_url(),
        api_key: Some(Secret::new("tml-test")),
        ..ApiConfig::default()
    };
    let (transport, runtime) = (NativeTransport::new().unwrap(), NativeRuntime::current().unwrap());
    let api = Api::new(given, Arc::new(transport), Arc::new(runtime)).unwrap();
    let running = Host::start(config(service.base_url(), dirs[1].path())).await.unwrap();
    let host = client(&running);
    Stage { service, api, running, host, _dirs: dirs }
}

async fn run(api: &Api) -> TrainingClient {
    let lora = LoraConfig { rank: 4, seed: Some(11), ..LoraConfig::default() };
    let owner = ServiceClient::new(api.clone());
    owner.create_lora_training_client("retinker/nano-llama", lora, TrainingOptions::default()).await.unwrap()
}

/// A step, and what it leads to under this name.
async fn save(client: &TrainingClient, name: &str, learning_rate: f64, ttl_seconds: Option<u64>) -> String {
    let datum = Datum::cross_entropy(vec![84, 101, 108, 108], vec![101, 108, 108, 32], vec![1.0; 4]);
    let passed = client.forward_backward(vec![datum], "cross_entropy", &LossFnConfig::new());
    let stepped = client.optim_step(AdamParams { learning_rate, ..AdamParams::default() });
    passed.await.unwrap();
    stepped.await.unwrap();
    let saved = client.save_state(name, SaveOptions { ttl_seconds, ..SaveOptions::default() }).await.unwrap();
    saved.path
}

fn matching(q: &str) -> CheckpointsQuery {
    CheckpointsQuery { q: Some(q.to_owned()), ..CheckpointsQuery::default() }
}

async fn names(host: &HostClient, query: &CheckpointsQuery) -> Vec<String> {
    let paths = host.checkpoint_paths(query).await.unwrap().paths;
    paths.iter().map(|path| path.rsplit('/').next().unwrap().to_owned()).collect()
}

async fn act(
    host: &HostClient,
    action: CheckpointDo,
    paths: &[&String],
    ttl: Option<u64>,
) -> Vec<CheckpointOutcome> {
    let paths = paths.iter().map(|path| (*path).clone()).collect();
    let actions = CheckpointActions { action, paths, ttl_seconds: ttl, expires_at: Vec::new(), force: false };
    host.act_on_checkpoints(&actions).await.unwrap().outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_filtered_sorted_and_counted() {
    let stage = stage().await;
    let host = &stage.host;
    let one = run(&stage.api).await;
    save(&one, "a", 1e-3, Some(3_600)).await;
    save(&one, "b", 1e-3, None).await;
    let other = run(&stage.api).await;
    save(&other, "c", 1e-3, Some(400_000)).await;
    other.save_weights_for_sampler("s", Default::default()).await.unwrap();

    let window = until("the list", async || {
        let window = host.checkpoints(&CheckpointsQuery::default()).await.unwrap();
        (window.total == 4).then_some(window)
    })
    .await;
    assert_eq!((window.matching, window.counts), (4, [3, 1, 0, 0]));
    assert_eq!(window.rows[0].checkpoint.checkpoint_type, CheckpointType::Sampler, "newest first");
    assert_eq!(window.rows[0].run_id, other.model_id());
    let size: u64 = window.rows.iter().map(|row| row.checkpoint.size_bytes.unwrap()).sum();
    assert!(size > 0 && window.bytes_total == size && window.bytes_matching == size);

    for (q, found) in [
        ("type:training", vec!["c", "b", "a"]),
        (&format!("run:{}", one.model_id()) as &str, vec!["b", "a"]),
        ("expires:never -type:sampler", vec!["b"]),
        ("expires<2d", vec!["a"]),
        ("size>1TB", vec![]),
        ("name=c", vec!["c"]),
    ] {
        assert_eq!(names(host, &matching(q)).await, found, "{q}");
    }
    let by = |sort, desc| CheckpointsQuery {
        sort,
        desc,
        kind: Some(CheckpointType::Training),
        ..Default::default()
    };
    assert_eq!(names(host, &by(CheckpointSort::Name, None)).await, ["a", "b", "c"]);
    assert_eq!(names(host, &by(CheckpointSort::Name, Some(true))).await, ["c", "b", "a"]);
    assert_eq!(names(host, &by(CheckpointSort::Expires, None)).await, ["a", "c", "b"]);
    let second = CheckpointsQuery { offset: 1, limit: Some(1), ..by(CheckpointSort::Name, None) };
    let window = host.checkpoints(&second).await.unwrap();
    assert_eq!((window.rows.len(), window.matching, window.total), (1, 3, 4));
    assert_eq!(window.counts, [3, 1, 0, 0], "whatever the type");
    let refused = host.checkpoints(&matching("size>big")).await.unwrap_err();
    assert_eq!((refused.status, refused.problem.code.as_str()), (Some(400), "bad_query"));

    // What cannot be read again stays, and is not acted on.
    stage.service.stop().await;
    let window = until("the problem", async || {
        let window = host.checkpoints(&CheckpointsQuery::default()).await.unwrap();
        window.problem.is_some().then_some(window)
    })
    .await;
    assert_eq!((window.rows.len(), window.problem.unwrap().code.as_str()), (4, "service_unreachable"));
    assert!(window.as_of.is_some());
    let refused = host.preview_delete(vec![window.rows[0].checkpoint.tinker_path.clone()]).await.unwrap_err();
    assert_eq!(refused.problem.code, "service_unreachable");
    stage.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lives_and_publications_can_be_taken_back() {
    let stage = stage().await;
    let host = &stage.host;
    let client = run(&stage.api).await;
    let mortal = save(&client, "a", 1e-3, Some(7_200)).await;
    let eternal = save(&client, "b", 1e-3, None).await;
    let missing = mortal.replace("/a", "/x");
    let left = async || {
        let listed = stage.api.run_checkpoints(&client.model_id()).await.unwrap().checkpoints;
        let one = listed.into_iter().find(|one| one.tinker_path == mortal).unwrap();
        let now = stage.api.runtime().now().as_millis();
        one.expires_at.map(|at| (at.as_millis() - now + 30_000) / 60_000)
    };
    assert_eq!(left().await, Some(120));

    let done = act(host, CheckpointDo::Extend, &[&mortal, &eternal, &missing], Some(3_600)).await;
    assert_eq!(left().await, Some(180));
    assert!(done[0].done && done[0].changed && done[0].former_expires_at.is_some());
    // Each of two at the same moment adds to what the other has left.
    let paths = [&mortal];
    let hour = || act(host, CheckpointDo::Extend, &paths, Some(3_600));
    let (one, other) = tokio::join!(hour(), hour());
    assert!(one[0].changed && other[0].changed && one[0].former_expires_at != other[0].former_expires_at);
    assert_eq!(left().await, Some(300));
    assert!(done[1].done && !done[1].changed, "it never expires");
    assert!(!done[2].done && done[2].code == "not_listed");
    let kept = act(host, CheckpointDo::Keep, &[&mortal], None).await;
    assert_eq!(left().await, None);
    let back = |from: &CheckpointOutcome| CheckpointActions {
        action: CheckpointDo::PutBack,
        paths: vec![from.path.clone()],
        ttl_seconds: None,
        expires_at: vec![from.former_expires_at],
        force: false,
    };
    assert!(host.act_on_checkpoints(&back(&kept[0])).await.unwrap().outcomes[0].changed);
    assert_eq!(left().await, Some(300));
    assert!(host.act_on_checkpoints(&back(&done[0])).await.unwrap().outcomes[0].changed);
    assert_eq!(left().await, Some(120));
    act(host, CheckpointDo::Live, &[&mortal], Some(3_600)).await;
    assert_eq!(left().await, Some(60), "sooner than it would have");

    let public = async || {
        let window = host.checkpoints(&matching("public:yes")).await.unwrap();
        window.rows.into_iter().map(|row| row.checkpoint.tinker_path).collect::<Vec<_>>()
    };
    let done = act(host, CheckpointDo::Publish, &[&mortal], None).await;
    assert!(done[0].changed);
    assert_eq!(public().await, std::slice::from_ref(&mortal));
    let again = act(host, CheckpointDo::Publish, &[&mortal, &eternal], None).await;
    assert_eq!(
        again.iter().map(|one| (one.done, one.changed)).collect::<Vec<_>>(),
        [(true, false), (true, true)]
    );
    act(host, CheckpointDo::Unpublish, &[&mortal, &eternal], None).await;
    assert!(public().await.is_empty());

    for (action, count, ttl) in [
        (CheckpointDo::Live, 1, None),
        (CheckpointDo::Extend, 1, Some(0)),
        (CheckpointDo::PutBack, 1, None),
        (CheckpointDo::Keep, MAX_ACTIONS + 1, None),
    ] {
        let paths = vec![mortal.clone(); count];
        let actions =
            CheckpointActions { action, paths, ttl_seconds: ttl, expires_at: Vec::new(), force: false };
        let refused = host.act_on_checkpoints(&actions).await.unwrap_err();
        assert_eq!(refused.problem.code, "bad_request", "{action:?}");
    }
    stage.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_needed_is_not_deleted_by_a_slip() {
    let stage = stage().await;
    let host = &stage.host;
    let client = run(&stage.api).await;
    let old = save(&client, "a", 1e-3, None).await;
    let last = save(&client, "b", 1e-3, None).await;
    let missing = last.replace("/b", "/x");
    until("the runs", async || host.status().await.unwrap().as_of).await;
    let preview = host.preview_delete(vec![old.clone(), last.clone(), missing.clone()]).await.unwrap();
    assert_eq!(
        (preview.goes.len(), preview.needed.len(), preview.gone.as_slice()),
        (2, 0, &[missing.clone()][..])
    );
    assert_eq!(
        preview.bytes,
        preview.goes.iter().map(|item| item.checkpoint.size_bytes.unwrap()).sum::<u64>()
    );
    assert_eq!(preview.usd_per_gigabyte_month, None, "the embedded service is free");

    // Poisoned after the preview: that counts which is so when it is done.
    stage.service.faults().poison(&client.model_id(), "a backend failed").await.unwrap();
    let done = act(host, CheckpointDo::Delete, &[&old, &last, &missing], None).await;
    assert_eq!(
        done.iter().map(|one| (one.done, one.changed)).collect::<Vec<_>>(),
        [(true, true), (false, false), (true, false)]
    );
    assert_eq!(done[1].code, "needed");
    assert!(
        done[1].message.contains("is poisoned, and this is what it would be restored from"),
        "{}",
        done[1].message
    );
    assert_eq!(done[2].message, "It was gone already.");
    assert_eq!(names(host, &CheckpointsQuery::default()).await, ["b"]);

    // So does the restore that was made from it, as long as the new run has nothing of its own, and for a day.
    let answer = host.plan(&PlanRequest::new(client.model_id())).await.unwrap();
    let PlanAnswer::Plan(plan) = answer else { panic!("{answer:?}") };
    let restore = host.start_restore(&plan).await.unwrap().restore;
    until("the restore", async || host.restore(&restore.id).await.unwrap().state.is_done().then_some(()))
        .await;
    let preview = host.preview_delete(vec![last.clone()]).await.unwrap();
    assert!(
        preview.goes.is_empty() && preview.needed[0].needed_because.as_ref().unwrap().contains(&restore.id)
    );
    assert!(!act(host, CheckpointDo::Delete, &[&last], None).await[0].done);

    // A life that ends sooner is a deletion as well, one that ends later is none.
    let shorter = act(host, CheckpointDo::Live, &[&last], Some(60)).await.remove(0);
    assert_eq!((shorter.done, shorter.code.as_str()), (false, "needed"), "{}", shorter.message);
    let mut mortal = CheckpointActions {
        action: CheckpointDo::Live,
        paths: vec![last.clone()],
        ttl_seconds: Some(3_600),
        expires_at: Vec::new(),
        force: true,
    };
    assert!(host.act_on_checkpoints(&mortal).await.unwrap().outcomes[0].changed);
    mortal.force = false;
    for (seconds, done) in [(60, false), (7_200, true)] {
        mortal.ttl_seconds = Some(seconds);
        let outcome = host.act_on_checkpoints(&mortal).await.unwrap().outcomes.remove(0);
        assert_eq!(outcome.done, done, "{seconds} s: {}", outcome.message);
    }

    let mut forced = CheckpointActions {
        action: CheckpointDo::Delete,
        paths: vec![last.clone()],
        ttl_seconds: None,
        expires_at: Vec::new(),
        force: true,
    };
    assert!(host.act_on_checkpoints(&forced).await.unwrap().outcomes[0].changed);
    let again = host.act_on_checkpoints(&forced).await.unwrap().outcomes;
    assert!(again[0].done && !again[0].changed);
    forced.paths = vec!["no path".into()];
    assert_eq!(host.act_on_checkpoints(&forced).await.unwrap().outcomes[0].code, "bad_path");
    stage.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_tells_what_it_would_delete_and_deletes_nothing() {
    let stage = stage().await;
    let host = &stage.host;
    let client = run(&stage.api).await;
    // The first is the best: what follows is thrown about by huge steps.
    save(&client, "a", 1e-4, None).await;
    for name in ["b", "c", "d"] {
        save(&client, name, 3.0, None).await;
    }
    until("the runs", async || host.status().await.unwrap().as_of).await;
    let goes = async |q: &str, rule: Rule| {
        let preview = host.preview_retention(&RetentionRequest { query: matching(q), rule }).await.unwrap();
        assert_eq!(preview.unmeasured, 0);
        assert_eq!(preview.kept as usize + preview.goes.len(), if q.is_empty() { 4 } else { 3 });
        let name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
        preview.goes.iter().map(|item| name(&item.checkpoint.tinker_path)).collect::<String>()
    };
    assert_eq!(goes("", Rule { last: Some(1), ..Rule::default() }).await, "abc");
    let series = stage.api.run_series(&client.model_id(), None, 100).await.unwrap().points;
    let losses: Vec<f64> = series.iter().map(|point| point.loss_per_token.unwrap()).collect();
    let best = (0..4).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap();
    let others: String =
        "abcd".chars().enumerate().filter(|(at, _)| *at != best).map(|(_, name)| name).collect();
    assert_eq!(goes("", Rule { best: Some(1), ..Rule::default() }).await, others, "{losses:?}");
    assert_eq!(goes("", Rule { every: Some(2), ..Rule::default() }).await, "bd");
    assert_eq!(
        goes("-name:d", Rule { last: Some(1), ..Rule::default() }).await,
        "ab",
        "among those that match"
    );
    assert_eq!(goes("", Rule::default()).await, "", "without a rule all is kept");
    assert_eq!(names(host, &CheckpointsQuery::default()).await.len(), 4);
    stage.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_passed_on_once_and_whole() {
    let stage = stage().await;
    let host = &stage.host;
    let client = run(&stage.api).await;
    let path = save(&client, "a", 1e-3, None).await;
    let id = path.split_once("/weights/").map(|(_, name)| format!("weights/{name}")).unwrap();
    let address = stage.api.checkpoint_archive_address(&client.model_id(), &id).await.unwrap();
    let mut own = Download::open(&stage.api, "it", &address, 0).await.unwrap();
    let own = own.whole(1 << 30).await.unwrap();

    let begun = host.start_download(&path).await.unwrap();
    assert!(!begun.done && begun.received == 0 && begun.file.ends_with("_weights_a.tar"));
    let place = stage.running.address();
    let given = [format!("host: {place}")];
    let answer = common::raw(place, &format!("GET {}", begun.address), &given, "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/x-tar"));
    assert_eq!(
        answer.header("content-disposition"),
        Some(format!("attachment; filename=\"{}\"", begun.file).as_str())
    );
    let state = host.download(&begun.id).await.unwrap();
    assert!(state.done && state.address.is_empty(), "the secret is told once");
    assert_eq!(state.received, own.len() as u64);

    for address in [begun.address.as_str(), "/download/00000000000000000000000000000000"] {
        let answer = common::raw(place, &format!("GET {address}"), &given, "").await;
        assert_eq!(answer.status, 404, "{address}");
    }
    let foreign =
        [format!("host: {place}"), "sec-fetch-site: cross-site".into(), "sec-fetch-mode: no-cors".into()];
    let second = host.start_download(&path).await.unwrap();
    assert_eq!(
        common::raw(place, &format!("GET {}", second.address), &foreign, "").await.code(),
        "site_not_allowed"
    );
    // One that nobody has begun to fetch is stopped as well, and one that is over stays as it is.
    let stopped = host.stop_download(&second.id).await.unwrap().problem.unwrap();
    assert_eq!(
        (stopped.code.as_str(), stopped.message.as_str()),
        ("download_stopped", "It was stopped here.")
    );
    assert_eq!(common::raw(place, &format!("GET {}", second.address), &given, "").await.status, 404);
    let over = host.stop_download(&begun.id).await.unwrap();
    assert!(over.done && over.problem.is_none());
    for unknown in [host.download("unknown").await, host.stop_download("unknown").await] {
        assert_eq!(unknown.unwrap_err().problem.code, "download_not_found");
    }
    let refused = host.start_download(&path.replace("/a", "/x")).await.unwrap_err();
    assert_eq!(refused.problem.code, "service_refused");
    assert_eq!(host.start_download("x").await.unwrap_err().problem.code, "bad_request");
    stage.running.stop().await;
}
