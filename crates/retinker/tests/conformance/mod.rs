//! What every transport, and every runtime, must do. One text, run natively, in Node and in Chromium against the
//! server in `server.rs`. No case depends on how long anything takes: where an order matters, the server is asked.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use retinker::client::{Api, ApiConfig};
use retinker::runtime::Runtime;
use retinker::transport::{Method, Request, Response, Transport, TransportError, TransportErrorKind};
use retinker::wire::training::OptimStepResult;

/// Declares a test for each case. `$test` is the macro that makes one test of a name.
macro_rules! every_case {
    ($test:ident) => {
        $test!(
            a_slow_body_comes_piece_by_piece,
            half_a_body_is_an_error,
            a_connection_closed_without_an_answer_is_an_error,
            nobody_there_is_an_error,
            a_url_that_is_none_is_an_error,
            a_redirect_is_not_followed,
            a_future_is_asked_for_until_it_is_ready,
            dropping_a_request_aborts_it,
            dropping_a_body_aborts_it,
            a_big_body_comes_whole,
            a_big_body_goes_whole,
            methods_and_headers_arrive,
            errors_hold_no_query,
            many_requests_at_once,
            sleeps_end_in_order_and_not_early,
            a_sleep_beyond_the_timers_range_does_not_end_at_once,
            spawned_tasks_run,
        );
    };
}
pub(crate) use every_case;

/// What is tested, and the server that it is tested against.
pub(crate) struct Subject {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) base_url: String,
}

impl Subject {
    fn request(&self, method: Method, path: &str) -> Request {
        Request { method, url: format!("{}{path}", self.base_url), headers: Vec::new(), body: Bytes::new() }
    }

    async fn get(&self, path: &str) -> Result<Response, TransportError> {
        self.transport.send(self.request(Method::Get, path)).await
    }

    async fn text(&self, path: &str) -> String {
        let body = whole(self.get(path).await.unwrap()).await.unwrap();
        String::from_utf8(body).unwrap()
    }

    /// An id that no other case uses, in this run or another against the same server.
    fn id(&self) -> String {
        format!("{:016x}", self.runtime.random())
    }
}

async fn whole(mut response: Response) -> Result<Vec<u8>, TransportError> {
    let mut body = Vec::new();
    while let Some(piece) = response.body.next().await {
        body.extend_from_slice(&piece?);
    }
    Ok(body)
}

pub(crate) async fn a_slow_body_comes_piece_by_piece(on: Subject) {
    let id = on.id();
    let mut response = on.get(&format!("/slow?id={id}")).await.unwrap();
    assert_eq!(response.status, 200);
    // The rest does not exist yet: the server sends it after /release.
    let mut body = response.body.next().await.unwrap().unwrap().to_vec();
    assert_eq!(body, b"first ");
    assert_eq!(on.text(&format!("/release?id={id}")).await, "released");
    body.extend(whole(response).await.unwrap());
    assert_eq!(body, b"first second third");
}

pub(crate) async fn half_a_body_is_an_error(on: Subject) {
    for path in ["/half", "/half-chunked"] {
        let response = on.get(path).await.unwrap();
        assert_eq!(response.status, 200, "{path}");
        let error = whole(response).await.unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::Body, "{path}: {error}");
        assert!(error.may_have_been_sent());
    }
}

pub(crate) async fn a_connection_closed_without_an_answer_is_an_error(on: Subject) {
    let id = on.id();
    let error = on.transport.send(on.request(Method::Post, &format!("/closed?id={id}"))).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::Request, "{error}");
    assert!(error.may_have_been_sent());
    assert_ne!(on.text(&format!("/count?of=closed&id={id}")).await, "0");
}

pub(crate) async fn nobody_there_is_an_error(on: Subject) {
    // Port 9 (discard) is not served here; and browsers block it.
    let mut request = on.request(Method::Get, "/");
    request.url = "http://127.0.0.1:9/".to_owned();
    let error = on.transport.send(request).await.unwrap_err();
    // A browser does not tell a refused connection from one that broke off.
    let expected =
        if cfg!(target_arch = "wasm32") { TransportErrorKind::Request } else { TransportErrorKind::Connect };
    assert_eq!(error.kind, expected, "{error}");
}

pub(crate) async fn a_url_that_is_none_is_an_error(on: Subject) {
    let mut request = on.request(Method::Get, "/");
    request.url = "http://[".to_owned();
    let error = on.transport.send(request).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::Build, "{error}");
    let mut request = on.request(Method::Get, "/");
    request.headers.push(("x-bad".into(), "line\nbreak".to_owned()));
    let error = on.transport.send(request).await.unwrap_err();
    assert_eq!(error.kind, TransportErrorKind::Build, "{error}");
    assert!(!error.may_have_been_sent());
}

pub(crate) async fn a_redirect_is_not_followed(on: Subject) {
    let id = on.id();
    let mut request = on.request(Method::Get, &format!("/redirect?id={id}"));
    request.headers.push(("x-api-key".into(), "k".to_owned()));
    let response = on.transport.send(request).await.unwrap();
    assert_eq!(response.status, 302);
    drop(response);
    assert_eq!(on.text(&format!("/count?of=redirected&id={id}")).await, "0");
}

pub(crate) async fn a_future_is_asked_for_until_it_is_ready(on: Subject) {
    let key = format!("not-yet:3:{}", on.id());
    let config = ApiConfig { base_url: on.base_url.clone(), ..ApiConfig::default() };
    let api = Api::new(config, on.transport.clone(), on.runtime.clone()).unwrap();
    let result = api.retrieve_future::<OptimStepResult>(key.clone()).await.unwrap();
    assert_eq!(result.metrics.unwrap()["steps"], 1.0);
    assert_eq!(on.text(&format!("/count?of=future&id={key}")).await, "4");
}

pub(crate) async fn dropping_a_request_aborts_it(on: Subject) {
    let id = on.id();
    let (hang, wait) = (format!("/hang?id={id}"), format!("/wait?for=asked-hang&id={id}"));
    let hanging = on.get(&hang);
    let arrived = on.text(&wait);
    match select(Box::pin(hanging), pin!(arrived)).await {
        Either::Left((answer, _)) => panic!("{answer:?}"),
        Either::Right((arrived, hanging)) => {
            assert_eq!(arrived, "yes");
            drop(hanging);
        }
    }
    assert_eq!(on.text(&format!("/wait?for=gone&id={id}")).await, "yes");
}

pub(crate) async fn dropping_a_body_aborts_it(on: Subject) {
    let id = on.id();
    let mut response = on.get(&format!("/endless?id={id}")).await.unwrap();
    assert!(!response.body.next().await.unwrap().unwrap().is_empty());
    drop(response);
    assert_eq!(on.text(&format!("/wait?for=gone&id={id}")).await, "yes");
}

pub(crate) async fn a_big_body_comes_whole(on: Subject) {
    const LENGTH: usize = 20_000_003;
    let body = whole(on.get(&format!("/big?bytes={LENGTH}")).await.unwrap()).await.unwrap();
    assert_eq!(body.len(), LENGTH);
    assert!(body.iter().enumerate().all(|(i, b)| usize::from(*b) == i % 251));
}

pub(crate) async fn a_big_body_goes_whole(on: Subject) {
    let body: Vec<u8> = (0..10_000_019u32).map(|i| (i % 253) as u8).collect();
    let sum = body.iter().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
    let mut request = on.request(Method::Post, "/echo");
    request.headers.push(("content-type".into(), "application/x-protobuf".to_owned()));
    request.body = body.into();
    let answer = String::from_utf8(whole(on.transport.send(request).await.unwrap()).await.unwrap()).unwrap();
    let mut lines = answer.lines();
    assert_eq!((lines.next(), lines.next()), (Some("POST"), Some(format!("10000019 {sum}").as_str())));
    assert!(lines.any(|line| line == "content-type: application/x-protobuf"));
}

pub(crate) async fn methods_and_headers_arrive(on: Subject) {
    for method in [Method::Get, Method::Post, Method::Put, Method::Delete] {
        let mut request = on.request(method, "/echo");
        request.headers.push(("x-api-key".into(), "tml-1".to_owned()));
        request.headers.push(("x-idempotency-key".into(), "a-b".to_owned()));
        request.headers.push(("accept".into(), "application/json".to_owned()));
        let response = on.transport.send(request).await.unwrap();
        assert_eq!(response.status, 201);
        assert_eq!(response.header("x-answer"), Some("back, again"));
        let answer = String::from_utf8(whole(response).await.unwrap()).unwrap();
        let lines: Vec<_> = answer.lines().collect();
        assert_eq!(lines[0], method.as_str());
        assert!(lines[1].starts_with("0 "));
        for line in ["x-api-key: tml-1", "x-idempotency-key: a-b", "accept: application/json"] {
            assert!(lines.contains(&line), "{line} in {answer}");
        }
    }
}

pub(crate) async fn errors_hold_no_query(on: Subject) {
    let error = on.get("/closed?token=s3cret").await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    assert!(error.to_string().contains("/closed"), "{error}");
    let error = whole(on.get("/half?token=s3cret").await.unwrap()).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
}

pub(crate) async fn many_requests_at_once(on: Subject) {
    let lengths: Vec<usize> = (0..50).map(|i| i * 1000).collect();
    let on = &on;
    let body =
        |n: usize| async move { whole(on.get(&format!("/big?bytes={n}")).await.unwrap()).await.unwrap() };
    let bodies = futures_util::future::join_all(lengths.iter().copied().map(body)).await;
    assert_eq!(bodies.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
}

pub(crate) async fn sleeps_end_in_order_and_not_early(on: Subject) {
    let start = on.runtime.monotonic();
    let wall = on.runtime.now();
    on.runtime.sleep(Duration::from_millis(30)).await;
    // A browser coarsens its clocks, by a millisecond at most.
    assert!(on.runtime.monotonic() - start >= Duration::from_millis(29));
    assert!(on.runtime.now() >= wall);
    let long = on.runtime.sleep(Duration::from_secs(600));
    let short = on.runtime.sleep(Duration::from_millis(1));
    assert!(matches!(select(long, short).await, Either::Right(_)));
    on.runtime.sleep(Duration::ZERO).await;
}

pub(crate) async fn a_sleep_beyond_the_timers_range_does_not_end_at_once(on: Subject) {
    let long = on.runtime.sleep(Duration::from_millis(1 << 31));
    let short = on.runtime.sleep(Duration::from_millis(50));
    assert!(matches!(select(long, short).await, Either::Right(_)));
}

pub(crate) async fn spawned_tasks_run(on: Subject) {
    let (done, ran) = oneshot::channel();
    let runtime = on.runtime.clone();
    on.runtime.spawn(Box::pin(async move {
        runtime.sleep(Duration::from_millis(1)).await;
        let _ = done.send(7);
    }));
    assert_eq!(ran.await, Ok(7));
    assert_ne!(on.runtime.random(), on.runtime.random());
}
