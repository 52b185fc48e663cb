//! One host before several services: what is asked of one never reaches another, and no key does.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use common::{FakeService, Fault, KEY, TOKEN, client, config, connection, raw, refused, until};
use futures_util::StreamExt;
use retinker::host::HostClient;
use retinker::host::api::{ConnectionInfo, DemoProgress, HostEvent, PlanAnswer, RunsQuery, ServiceKind};
use retinker::recovery::plan::PlanRequest;
use retinker::recovery::policy::Policy;
use retinker_host::{Demo, Host, HostConfig, Location, RunningHost, StartError};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

const OTHER_KEY: &str = "tml-of-the-other";

fn both(first: &FakeService, second: &FakeService, dir: &Path) -> HostConfig {
    let journal = |name: &str| Location::Directory(dir.join(name));
    HostConfig {
        connections: vec![
            connection("first", first.base_url(), KEY, journal("first")),
            connection("second", second.base_url(), OTHER_KEY, journal("second")),
        ],
        ..config(first.base_url(), dir)
    }
}

async fn told(host: &HostClient, name: &str) -> ConnectionInfo {
    let all = host.connections().await.unwrap().connections;
    all.into_iter().find(|connection| connection.name == name).unwrap()
}

/// The keys that a service has been sent, each once.
fn keys(service: &FakeService) -> Vec<Option<String>> {
    let mut keys: Vec<_> = service.state().seen.iter().map(|(_, _, key)| key.clone()).collect();
    keys.sort();
    keys.dedup();
    keys
}

async fn as_of(host: &HostClient) {
    until("the list", async || host.status().await.unwrap().as_of).await;
}

#[tokio::test]
async fn each_service_sees_its_own_key_and_its_own_requests() {
    let (first, second) = (FakeService::start().await, FakeService::start().await);
    let dir = tempfile::tempdir().unwrap();
    let running = Host::start(both(&first, &second, dir.path())).await.unwrap();
    let default = client(&running);
    let other = client(&running).with_connection("second");
    as_of(&default).await;
    assert!(second.state().seen.is_empty(), "a service that nobody asks for is left alone");
    let unasked = told(&default, "second").await;
    assert!(!unasked.asked && unasked.as_of.is_none() && unasked.problem.is_none(), "{unasked:?}");
    assert_eq!((unasked.base_url, unasked.has_key), (second.base_url(), true));

    as_of(&other).await;
    assert_eq!(other.status().await.unwrap().service.base_url, second.base_url());
    assert_eq!(default.status().await.unwrap().service.base_url, first.base_url());
    let asked = told(&default, "second").await;
    assert!(asked.asked && asked.as_of.is_some(), "{asked:?}");

    // Everything that a page can do, on the second: a restore, and the guarded forward.
    let PlanAnswer::Plan(plan) = other.plan(&PlanRequest::new("old")).await.unwrap() else {
        panic!("no plan")
    };
    let began = first.state().sessions;
    let started = other.start_restore(&plan).await.unwrap().restore;
    until("the restore", async || {
        let restore = other.restore(&started.id).await.unwrap();
        restore.state.is_done().then_some(())
    })
    .await;
    assert_eq!(first.state().sessions, began, "nothing was made on the first");
    assert_eq!(first.state().loads, 0);
    assert_eq!(second.state().loads, 1);
    assert!(default.restores().await.unwrap().restores.is_empty(), "each has a journal of its own");
    assert_eq!(default.restore(&started.id).await.unwrap_err().problem.code, "restore_not_found");

    let lines = |name: &str| {
        let host = running.address().to_string();
        vec![
            format!("host: {host}"),
            format!("x-retinker-token: {TOKEN}"),
            format!("x-retinker-connection: {name}"),
        ]
    };
    let before = first.state().seen.len();
    let answer = raw(running.address(), "GET /api/v1/training_runs/second-only", &lines("second"), "").await;
    assert_eq!(answer.status, 404);
    let seen = |service: &FakeService| {
        service.state().seen.iter().any(|(_, path, _)| path == "/api/v1/training_runs/second-only")
    };
    assert!(seen(&second) && !seen(&first), "{before}");

    assert_eq!(keys(&first), [Some(KEY.to_owned())]);
    assert_eq!(keys(&second), [Some(OTHER_KEY.to_owned())]);
    let all = raw(running.address(), "GET /retinker/v1/connections", &lines("nonsense"), "").await;
    assert!(all.status == 200 && !all.body.contains(KEY) && !all.body.contains(OTHER_KEY), "{}", all.body);
    running.stop().await;
}

#[tokio::test]
async fn a_name_that_is_unknown_is_told_with_those_that_are() {
    let (first, second) = (FakeService::start().await, FakeService::start().await);
    let dir = tempfile::tempdir().unwrap();
    let running = Host::start(both(&first, &second, dir.path())).await.unwrap();
    for name in ["third", "First", "first ", "é"] {
        let error = client(&running).with_connection(name).status().await.unwrap_err();
        assert_eq!((error.status, error.problem.code.as_str()), (Some(404), "no_such_connection"), "{name}");
        assert!(error.problem.message.contains("first, second"), "{}", error.problem.message);
    }
    let token = format!("x-retinker-token: {TOKEN}");
    let twice = ["x-retinker-connection: first", "x-retinker-connection: second"];
    let mut headers = vec![format!("host: {}", running.address()), token.clone()];
    headers.extend(twice.map(str::to_owned));
    assert_eq!(raw(running.address(), "GET /retinker/v1/status", &headers, "").await.status, 400);
    // Without the token a connection's name opens nothing.
    let headers = [format!("host: {}", running.address()), twice[1].to_owned()];
    for path in ["status", "connections", "events", "start"] {
        let answer = raw(running.address(), &format!("GET /retinker/v1/{path}"), &headers, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "token_missing"), "{path}");
    }
    assert!(second.state().seen.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn each_event_stream_tells_of_its_own_service() {
    let (first, second) = (FakeService::start().await, FakeService::start().await);
    let dir = tempfile::tempdir().unwrap();
    let running = Host::start(both(&first, &second, dir.path())).await.unwrap();
    let (default, other) = (client(&running), client(&running).with_connection("second"));
    as_of(&default).await;
    as_of(&other).await;
    let (mut of_first, mut of_second) = (default.events().await.unwrap(), other.events().await.unwrap());
    second.state().fault = Fault::Status(500);
    let problem = async {
        loop {
            if let HostEvent::Status { status } = of_second.next().await.unwrap().unwrap() {
                assert_eq!(status.service.base_url, second.base_url());
                if let Some(problem) = status.service.problem {
                    return problem;
                }
            }
        }
    };
    let problem = tokio::time::timeout(std::time::Duration::from_secs(30), problem).await.unwrap();
    assert_eq!(problem.code, "service_failing");
    // What the first stream has told by now is about its own service, which is well.
    while let Ok(event) = tokio::time::timeout(std::time::Duration::from_millis(50), of_first.next()).await {
        if let HostEvent::Status { status } = event.unwrap().unwrap() {
            assert_eq!((status.service.base_url, status.service.problem), (first.base_url(), None));
        }
    }
    assert!(told(&default, "first").await.problem.is_none());
    assert_eq!(told(&default, "second").await.problem, Some(problem));
    running.stop().await;
}

#[tokio::test]
async fn what_restores_by_itself_is_looked_after_from_the_start() {
    let (first, second) = (FakeService::start().await, FakeService::start().await);
    let dir = tempfile::tempdir().unwrap();
    let mut config = both(&first, &second, dir.path());
    config.connections[1].watching.policy = Policy { enabled: true, ..Policy::default() };
    let running = Host::start(config).await.unwrap();
    until("the second is read", async || told(&client(&running), "second").await.as_of).await;
    running.stop().await;
}

/// Starts a host whose second connection's journal belongs to the first's service.
async fn with_a_stranger(dir: &Path, first: &FakeService, second: &FakeService) -> RunningHost {
    let mut config = both(first, second, dir);
    config.connections[1].journal = Location::Directory(dir.join("first"));
    Host::start(config).await.unwrap()
}

#[tokio::test]
async fn a_connection_that_cannot_be_used_spoils_no_other() {
    let (first, second) = (FakeService::start().await, FakeService::start().await);
    let dir = tempfile::tempdir().unwrap();
    let running = with_a_stranger(dir.path(), &first, &second).await;
    let error = client(&running).with_connection("second").runs(&RunsQuery::default()).await.unwrap_err();
    assert_eq!((error.status, error.problem.code.as_str()), (Some(503), "connection_failed"));
    for part in ["Connection second", &first.base_url(), &second.base_url(), "--data-dir"] {
        assert!(error.problem.message.contains(part), "{part} in {}", error.problem.message);
    }
    assert!(second.state().seen.is_empty(), "nothing is sent over a journal of another service");
    as_of(&client(&running)).await;
    running.stop().await;

    // One that must be looked after from the start does not start wrong.
    let mut config = both(&first, &second, dir.path());
    config.connections[1].journal = Location::Directory(dir.path().join("first"));
    config.connections[1].watching.policy.enabled = true;
    let error = refused(config).await;
    assert!(matches!(&error, StartError::Connection { name, .. } if name == "second"), "{error}");
}

#[tokio::test]
async fn names_are_of_one_kind_and_each_is_one() {
    let (first, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    for name in ["", "a b", "-x", "a/b", "é", "a%", &"x".repeat(65)] {
        let mut config = both(&first, &first, dir.path());
        config.connections[1].name = name.to_owned();
        assert!(matches!(refused(config).await, StartError::BadName(bad) if bad == name), "{name}");
    }
    let mut config = both(&first, &first, dir.path());
    config.connections[1].name = "first".to_owned();
    assert!(matches!(refused(config).await, StartError::NameTwice(_)));
    let config = HostConfig { connections: Vec::new(), ..both(&first, &first, dir.path()) };
    assert!(matches!(refused(config).await, StartError::NoConnection));
}

#[tokio::test]
async fn what_is_wrong_with_a_key_or_an_address_is_told_apart() {
    for (key, fault, code, said) in [
        (KEY, Fault::Status(401), "service_unauthorized", "read from LAB_KEY"),
        (KEY, Fault::Status(403), "service_unauthorized", "read from LAB_KEY"),
        ("", Fault::Status(401), "service_key_missing", "the variable LAB_KEY"),
        (KEY, Fault::Status(404), "service_foreign", "without /api/v1"),
        (KEY, Fault::Html, "service_unreadable", "Tinker-compatible"),
        (KEY, Fault::Status(402), "service_unpaid", "billing"),
    ] {
        let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
        service.state().fault = fault;
        let mut config = config(service.base_url(), dir.path());
        config.connections =
            vec![connection("lab", service.base_url(), key, Location::Directory(dir.path().to_owned()))];
        config.connections[0].key_from = "LAB_KEY".to_owned();
        let running = Host::start(config).await.unwrap();
        let host = client(&running);
        let problem = until("the problem", async || host.status().await.unwrap().service.problem).await;
        assert_eq!(problem.code, code, "{fault:?} {problem:?}");
        assert!(format!("{} {}", problem.message, problem.hint).contains(said), "{problem:?}");
        let told = told(&host, "lab").await;
        assert_eq!((told.problem, told.has_key, told.as_of), (Some(problem), !key.is_empty(), None));
        running.stop().await;
    }
}

#[tokio::test]
async fn the_demonstration_is_begun_once_and_only_where_there_are_no_runs() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let (progress, watched) = watch::channel(DemoProgress::default());
    let begin = Arc::new(Notify::new());
    let demo = Demo { progress: watched, begin: Arc::clone(&begin) };
    // This service has runs: a demonstration would take their memory.
    let mut config = config(service.base_url(), dir.path());
    config.connections[0].service.kind = ServiceKind::Local;
    config.connections[0].demo = Some(demo);
    let running = Host::start(config).await.unwrap();
    let host = client(&running);
    as_of(&host).await;
    let start = host.start().await.unwrap();
    assert!(!start.demo && start.snippets[0].code.contains(&service.base_url()), "{start:?}");
    assert_eq!(host.begin_demo().await.unwrap_err().problem.code, "no_demo");
    assert_eq!(host.status().await.unwrap().demo, None, "one that was not begun is none");
    progress.send_modify(|p| p.running = true);
    assert!(host.status().await.unwrap().demo.unwrap().running);
    running.stop().await;
}
