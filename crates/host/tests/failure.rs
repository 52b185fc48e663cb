//! Services that fail, and hosts that cannot start: each with one sentence, and never an empty list.

mod common;

use common::{FakeService, Fault, client, config, refused, start, until};
use retinker::host::api::RunsQuery;
use retinker::host::checkpoints::CheckpointsQuery;
use retinker_host::StartError;

#[tokio::test]
async fn the_list_outlives_its_service() {
    for (fault, code) in [
        (Fault::Status(500), "service_failing"),
        (Fault::Html, "service_unreadable"),
        (Fault::HalfBody, "service_unreachable"),
        (Fault::Status(401), "service_unauthorized"),
        (Fault::Status(402), "service_unpaid"),
        (Fault::Status(429), "service_busy"),
        (Fault::Contradicts, "service_contradicts_itself"),
    ] {
        let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
        let running = start(&service, dir.path()).await;
        let host = client(&running);
        // Somebody follows, so the list is read again soon.
        let events = host.events().await.unwrap();
        until("the list", async || host.status().await.unwrap().as_of).await;
        service.state().fault = fault;
        let problem = until("the problem", async || host.status().await.unwrap().service.problem).await;
        assert_eq!(problem.code, code, "{fault:?}");
        let window = host.runs(&RunsQuery::default()).await.unwrap();
        assert_eq!((window.rows.len(), window.problem.as_ref()), (3, Some(&problem)), "{fault:?}");
        let detail = host.run("old").await.unwrap();
        assert_eq!(detail.row.run.training_run_id, "old");
        assert!(detail.checkpoints_problem.is_some() && detail.checkpoints.is_empty());
        service.state().fault = Fault::None;
        if matches!(fault, Fault::Status(402 | 429)) {
            // It is left alone for longer than this test waits.
            running.stop().await;
            continue;
        }
        until("the recovery", async || host.status().await.unwrap().service.problem.is_none().then_some(()))
            .await;
        drop(events);
        running.stop().await;
    }
}

#[tokio::test]
async fn what_a_person_asks_for_is_not_refused_for_a_failure_of_before() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let running = start(&service, dir.path()).await;
    let host = client(&running);
    until("the list", async || host.status().await.unwrap().as_of).await;
    service.state().fault = Fault::Status(500);
    let problem = host.checkpoints(&CheckpointsQuery::default()).await.unwrap().problem.unwrap();
    assert_eq!(problem.code, "service_failing");
    service.state().fault = Fault::None;
    // Whoever only looks is told what the list is known to be, for a moment; whoever acts, what it is.
    let preview = host.preview_delete(vec!["tinker://old/weights/a".to_owned()]).await.unwrap();
    assert_eq!((preview.goes.len() + preview.needed.len(), preview.gone.len()), (1, 0));
    running.stop().await;
}

#[tokio::test]
async fn a_service_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let running =
        retinker_host::Host::start(config(format!("http://127.0.0.1:{port}"), dir.path())).await.unwrap();
    let host = client(&running);
    let problem = until("the problem", async || host.status().await.unwrap().service.problem).await;
    assert_eq!(problem.code, "service_unreachable");
    assert!(problem.message.starts_with("The service cannot be reached: "), "{}", problem.message);
    assert!(problem.hint.starts_with("Is it running"), "{}", problem.hint);
    let window = host.runs(&RunsQuery::default()).await.unwrap();
    assert_eq!((window.as_of, window.problem), (None, Some(problem)), "could not load is not empty");
    let error = host.run("any").await.unwrap_err();
    assert_eq!((error.status, error.problem.code.as_str()), (Some(502), "service_unreachable"));
    running.stop().await;
}

#[tokio::test]
async fn the_embedded_service_is_the_same_on_any_port() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let service = FakeService::start().await;
        let mut local = config(service.base_url(), dir.path());
        local.connections[0].service.kind = retinker::host::api::ServiceKind::Local;
        retinker_host::Host::start(local).await.unwrap().stop().await;
    }
}

#[tokio::test]
async fn starts_that_fail_say_what_to_do() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let running = start(&service, dir.path()).await;

    let other = tempfile::tempdir().unwrap();
    let mut busy = config(service.base_url(), other.path());
    busy.listen = running.address();
    let port = running.address().port();
    let text = refused(busy).await.to_string();
    let expected =
        format!("port {port} on 127.0.0.1 is in use: stop the other program or choose another with --port");
    assert_eq!(text, expected);

    // The journal can be shared: by its leases, two hosts do not carry out the same restore.
    start(&service, dir.path()).await.stop().await;

    let bound = tempfile::tempdir().unwrap();
    start(&service, bound.path()).await.stop().await;
    let mut local = config(service.base_url(), bound.path());
    local.connections[0].service.kind = retinker::host::api::ServiceKind::Local;
    let text = refused(local).await.to_string();
    for part in [
        &service.base_url(),
        "not to the embedded service",
        &bound.path().display().to_string(),
        "--data-dir",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    start(&service, bound.path()).await.stop().await;

    let mut open = config(service.base_url(), other.path());
    open.listen = "0.0.0.0:0".parse().unwrap();
    assert!(matches!(refused(open).await, StartError::NotLoopback(_)));

    let mut short = config(service.base_url(), other.path());
    short.token = Some("short".into());
    assert!(matches!(refused(short).await, StartError::BadToken));

    let text = refused(config("localhost:8000".into(), other.path())).await.to_string();
    assert!(text.contains("http://"), "{text}");

    let file = other.path().join("file");
    std::fs::write(&file, "").unwrap();
    let text = refused(config(service.base_url(), &file.join("data"))).await.to_string();
    assert!(text.contains("--data-dir"), "{text}");
    running.stop().await;
}
