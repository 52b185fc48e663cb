//! Sessions, usage and samples of services that lack what the embedded one has, or fail: never an empty list in place of an
//! answer. What they are with the embedded service is in `tests/browser/sessions.test.mjs` and `try.test.mjs`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use common::{FakeService, Fault, client, start, until};
use retinker::host::samples::{Decimal, SampleRequest};
use retinker::host::sessions::SessionsQuery;
use retinker::host::usage::UsageQuery;

#[tokio::test]
async fn a_service_without_sessions_says_so() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    service.state().made = Some(("s1:train:0".into(), serde_json::json!({"name": "made"})));
    let running = start(&service, dir.path()).await;
    let host = client(&running);
    until("the list", async || host.status().await.unwrap().as_of).await;

    // Neither searched nor listed: told from the runs' ids.
    let window = host.sessions(&SessionsQuery::default()).await.unwrap();
    assert!(!window.searchable && !window.more);
    assert_eq!(window.rows.len(), 1);
    let row = &window.rows[0];
    assert_eq!((row.session_id.as_str(), row.run_count, row.status.as_deref()), ("s1", 1, None));
    assert_eq!((row.runs[0].run_id.as_str(), row.runs[0].name.as_str()), ("s1:train:0", "made"));
    assert!(row.last_request.is_some());

    let problem = host.session("s1").await.unwrap_err();
    assert_eq!((problem.status, problem.problem.code.as_str()), (Some(501), "not_offered"));
    for problem in [
        host.finish_session("s1", "success").await.unwrap_err(),
        host.assign_project("s1", "p").await.unwrap_err(),
    ] {
        assert_eq!((problem.status, problem.problem.code.as_str()), (Some(501), "not_offered"));
    }
    assert!(!host.projects().await.unwrap().offered);

    let usage = host.usage(&UsageQuery::default()).await.unwrap();
    assert!(
        !usage.storage_offered && !usage.billing_offered && usage.storage.is_empty() && usage.used.is_empty()
    );
    assert_eq!((usage.storage_problem, usage.billing_problem), (None, None));
    running.stop().await;
}

#[tokio::test]
async fn what_could_not_be_read_is_no_empty_list() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let running = start(&service, dir.path()).await;
    let host = client(&running);
    until("the list", async || host.status().await.unwrap().as_of).await;
    for (fault, code) in [(Fault::Status(401), "service_unauthorized"), (Fault::Html, "service_unreadable")] {
        service.state().fault = fault;
        for problem in [
            host.sessions(&SessionsQuery::default()).await.unwrap_err(),
            host.session("s").await.unwrap_err(),
            host.projects().await.unwrap_err(),
            host.sample_sources().await.unwrap_err(),
        ] {
            assert_eq!((problem.status, problem.problem.code.as_str()), (Some(502), code), "{fault:?}");
        }
        let usage = host.usage(&UsageQuery::default()).await.unwrap();
        assert_eq!(usage.storage_problem.unwrap().code, code);
        assert_eq!(usage.billing_problem.unwrap().code, code);
    }
    running.stop().await;
}

#[tokio::test]
async fn samples_are_held_to_their_bounds() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let running = start(&service, dir.path()).await;
    let host = client(&running);
    let good = || SampleRequest { source: "base".into(), prompt: "a".into(), ..SampleRequest::default() };
    let wrong = [
        SampleRequest { source: " ".into(), ..good() },
        SampleRequest { source: "http://127.0.0.1:1/x".into(), ..good() },
        SampleRequest { prompt: String::new(), ..good() },
        SampleRequest { tokens: vec![1], ..good() },
        SampleRequest { max_tokens: Some(0), ..good() },
        SampleRequest { max_tokens: Some(1_000_000), ..good() },
        SampleRequest { num_samples: Some(9), ..good() },
        SampleRequest { temperature: Some(Decimal("-1".into())), ..good() },
        SampleRequest { top_p: Some(Decimal("2".into())), ..good() },
        SampleRequest { top_k: Some(0), ..good() },
    ];
    for request in wrong {
        let problem = host.sample(&request).await.unwrap_err();
        assert_eq!(
            (problem.status, problem.problem.code.as_str()),
            (Some(400), "bad_request"),
            "{request:?}"
        );
    }
    let asked = service.state().seen.iter().filter(|(_, path, _)| path.contains("sampl")).count();
    assert_eq!(asked, 0, "nothing of it reaches the service");
    running.stop().await;
}
