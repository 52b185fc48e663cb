use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::routing::post;
use sha2::Digest;

use super::super::testing::{Hasty, Log, event, runtime, until};
use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const KEY: [u8; 32] = *b"0123456789abcdef0123456789abcdef";
const PATH: &str = "/services/T0/s3cret-path";

fn secret() -> Secret {
    Secret::new(format!("whsec_{}", STANDARD.encode(KEY)))
}

/// A status, and how long the receiver wants to be left alone.
type Answer = (u16, Option<&'static str>);

/// A receiver: gives the answers in turn, then 200.
#[derive(Clone, Default)]
struct Receiver {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    seen: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
}

impl Receiver {
    fn answering(answers: impl IntoIterator<Item = u16>) -> Self {
        let answers = answers.into_iter().map(|status| (status, None)).collect();
        Self { answers: Arc::new(Mutex::new(answers)), ..Self::default() }
    }

    async fn serve(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route(PATH, post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    fn seen(&self) -> Vec<(HeaderMap, Bytes)> {
        self.seen.lock().unwrap().clone()
    }

    fn runs(&self) -> Vec<String> {
        let run = |body: &Bytes| serde_json::from_slice::<RecoveryEvent>(body).unwrap().run_id;
        self.seen().iter().map(|(_, body)| run(body)).collect()
    }

    fn header(&self, name: &str) -> Vec<String> {
        self.seen().iter().map(|(headers, _)| headers[name].to_str().unwrap().to_owned()).collect()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    receiver.seen.lock().unwrap().push((headers, body));
    let (status, after) = receiver.answers.lock().unwrap().pop_front().unwrap_or((200, None));
    let after = after.map(|after| [("retry-after", after)]);
    let location = (status == 307).then_some([("location", PATH)]);
    (axum::http::StatusCode::from_u16(status).unwrap(), after.unwrap_or(location.unwrap_or([("x", "y")])))
}

fn config(address: SocketAddr) -> WebhookConfig {
    WebhookConfig::new(Secret::new(format!("http://{address}{PATH}?token=s3cret-query")), secret())
}

/// HMAC-SHA256 by its definition (RFC 2104), for a key that is shorter than a block.
fn hmac_by_hand(key: &[u8], message: &[u8]) -> Vec<u8> {
    let pad =
        |byte: u8| -> Vec<u8> { (0..64).map(|i| key.get(i).copied().unwrap_or_default() ^ byte).collect() };
    let inner = Sha256::digest([&pad(0x36), message].concat());
    Sha256::digest([pad(0x5c).as_slice(), &inner].concat()).to_vec()
}

fn assert_signed(headers: &HeaderMap, body: &[u8]) {
    let text = |name: &str| headers[name].to_str().unwrap();
    let signed = [text("webhook-id"), ".", text("webhook-timestamp"), "."].concat();
    let expected = hmac_by_hand(&KEY, &[signed.as_bytes(), body].concat());
    assert_eq!(text("webhook-signature"), format!("v1,{}", STANDARD.encode(expected)));
}

#[tokio::test]
async fn an_event_is_sent_signed() {
    let receiver = Receiver::default();
    let webhook = Webhook::new(config(receiver.serve().await), Arc::new(runtime())).unwrap();
    let before = runtime().now().as_millis() / 1000;
    let told = RecoveryEvent { new_run_id: Some("new".to_owned()), ..event(EventKind::Completed, "old") };
    webhook.tell(&told);
    assert_eq!(webhook.drain(MINUTE).await, 0);
    let [(headers, body)] = &receiver.seen()[..] else { panic!("not one request") };
    assert_signed(headers, body);
    assert_eq!(serde_json::from_slice::<RecoveryEvent>(body).unwrap(), told);
    assert_eq!(
        (&headers["content-type"], &headers["x-retinker-event"]),
        (&"application/json".parse().unwrap(), &"completed".parse().unwrap())
    );
    let at: i64 = headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
    assert!((before..=runtime().now().as_millis() / 1000).contains(&at), "{at}");
}

/// The example that the specification's libraries are tested with.
#[tokio::test]
async fn signatures_are_those_of_standard_webhooks() {
    let sender = Sender {
        client: client(MINUTE).unwrap(),
        url: Url::parse("http://localhost").unwrap(),
        host: String::new(),
        mac: mac(&Secret::new("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")).unwrap(),
        tries: 1,
        runtime: Arc::new(runtime()),
    };
    let body = br#"{"email":"test@example.com","username":"test_user"}"#;
    let signature = sender.signature("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body);
    assert_eq!(signature, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
}

#[tokio::test]
async fn a_receiver_that_fails_gets_the_event_again_before_the_next_one() {
    let receiver = Receiver::answering([500, 408, 429, 503]);
    let hasty = Hasty::new();
    let webhook = Webhook::new(config(receiver.serve().await), Arc::new(hasty.clone())).unwrap();
    webhook.tell(&event(EventKind::Detected, "a"));
    webhook.tell(&event(EventKind::Detected, "b"));
    until(|| receiver.seen().len() >= 6).await;
    assert_eq!(webhook.drain(MINUTE).await, 0);
    assert_eq!(receiver.runs(), ["a", "a", "a", "a", "a", "b"]);
    assert_eq!(hasty.slept(), [5, 10, 20, 40].map(Duration::from_secs));
    let ids = receiver.header("webhook-id");
    assert!(ids[..5].iter().all(|id| *id == ids[0]) && ids[5] != ids[0], "{ids:?}");
    receiver.seen().iter().for_each(|(headers, body)| assert_signed(headers, body));
}

#[tokio::test]
async fn a_large_incident_told_at_once_arrives_whole_and_in_order() {
    let receiver = Receiver::default();
    let webhook = Webhook::new(config(receiver.serve().await), Arc::new(runtime())).unwrap();
    let runs: Vec<_> = (0..2_000).map(|run| run.to_string()).collect();
    // Nothing is sent meanwhile: this thread does not wait.
    runs.iter().for_each(|run| webhook.tell(&event(EventKind::Detected, run)));
    assert_eq!(webhook.drain(MINUTE).await, 0);
    assert_eq!(receiver.runs(), runs);
}

#[tokio::test]
async fn a_receiver_says_when_it_wants_to_be_asked_again() {
    let receiver = Receiver::default();
    *receiver.answers.lock().unwrap() = [(429, Some("7")), (503, Some("9999")), (503, Some("soon"))].into();
    let hasty = Hasty::new();
    let webhook = Webhook::new(config(receiver.serve().await), Arc::new(hasty.clone())).unwrap();
    webhook.tell(&event(EventKind::Detected, "a"));
    until(|| receiver.seen().len() >= 4).await;
    assert_eq!(hasty.slept(), [Duration::from_secs(7), LONGEST_PAUSE, Duration::from_secs(20)]);
    assert_eq!(webhook.drain(MINUTE).await, 0);
}

#[tokio::test]
async fn what_no_other_try_can_help_is_given_up_at_once() {
    for status in [400, 401, 404, 410, 307] {
        let log = Log::start();
        let receiver = Receiver::answering([status]);
        let hasty = Hasty::new();
        let webhook = Webhook::new(config(receiver.serve().await), Arc::new(hasty.clone())).unwrap();
        webhook.tell(&event(EventKind::Detected, "a"));
        webhook.tell(&event(EventKind::Detected, "b"));
        assert_eq!(webhook.drain(MINUTE).await, 0);
        assert_eq!((receiver.runs().len(), hasty.slept().len()), (2, 0), "{status}");
        assert_eq!(log.count(&format!("the answer was {status}")), 1, "{}", log.text());
    }
}

#[tokio::test]
async fn an_event_is_given_up_after_its_tries_and_no_secret_is_told() {
    let log = Log::start();
    let receiver = Receiver::answering(std::iter::repeat_n(500, 8));
    let hasty = Hasty::new();
    let address = receiver.serve().await;
    let url = format!("http://us3r:pa55word@{address}{PATH}?token=s3cret-query");
    let config = WebhookConfig::new(Secret::new(url), secret());
    let shown = format!("{config:?}");
    let webhook = Webhook::new(config, Arc::new(hasty.clone())).unwrap();
    webhook.tell(&event(EventKind::Detected, "a"));
    webhook.tell(&event(EventKind::Detected, "b"));
    until(|| receiver.seen().len() >= 9).await;
    assert_eq!(webhook.drain(MINUTE).await, 0);
    assert_eq!(receiver.runs(), ["a", "a", "a", "a", "a", "a", "a", "a", "b"]);
    let slept: Duration = hasty.slept().iter().sum();
    assert_eq!(slept, Duration::from_secs(635), "about ten minutes");
    assert!(log.text().contains(&format!("host={address}")), "{}", log.text());
    assert_eq!(log.count("tried=8"), 1, "{}", log.text());
    assert_eq!(receiver.header("authorization")[0], format!("Basic {}", STANDARD.encode("us3r:pa55word")));
    let told = log.text();
    for secret in ["s3cret", "us3r", "pa55word", &STANDARD.encode(KEY)] {
        assert!(!format!("{told}{shown}{webhook:?}").contains(secret), "{secret}: {told}{shown}{webhook:?}");
    }
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_told_without_its_address() {
    let log = Log::start();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let webhook = Webhook::new(config(address), Arc::new(Hasty::new())).unwrap();
    webhook.tell(&event(EventKind::Detected, "a"));
    until(|| log.count("not delivered") >= 1).await;
    let line = log.text().lines().find(|line| line.contains("not delivered")).unwrap().to_owned();
    assert!(line.contains("tried=8") && line.contains(&address.to_string()), "{line}");
    assert!(!line.contains("s3cret"), "{line}");
    assert_eq!(webhook.drain(MINUTE).await, 0);
}

/// The pauses are real here: none of them is waited for.
#[tokio::test]
async fn a_drain_does_not_wait_for_pauses_and_gives_each_event_its_try() {
    let receiver = Receiver::answering([503, 503]);
    let webhook = Webhook::new(config(receiver.serve().await), Arc::new(runtime())).unwrap();
    for run in ["a", "b", "c"] {
        webhook.tell(&event(EventKind::Detected, run));
    }
    until(|| !receiver.seen().is_empty()).await;
    assert_eq!(webhook.drain(MINUTE).await, 0);
    let runs = receiver.runs();
    assert!(runs == ["a", "a", "b", "c"] || runs == ["a", "b", "c"], "{runs:?}");
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_is_left_when_patience_ends() {
    let log = Log::start();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let webhook = Webhook::new(config(listener.local_addr().unwrap()), Arc::new(runtime())).unwrap();
    webhook.tell(&event(EventKind::Detected, "a"));
    webhook.tell(&event(EventKind::Detected, "b"));
    let _held = listener.accept().await.unwrap();
    assert_eq!(webhook.drain(Duration::ZERO).await, 2);
    assert_eq!(log.count("not done with 2 events"), 1, "{}", log.text());
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_told_without_showing_them() {
    let with = |url: &str, secret: &str| {
        let config = WebhookConfig::new(Secret::new(url), Secret::new(secret));
        Webhook::new(config, Arc::new(runtime())).unwrap_err().to_string()
    };
    let good = secret();
    for url in ["s3cret", "ftp://example.com/s3cret", "https://", "https://a b/s3cret"] {
        let error = with(url, good.expose());
        assert!(error.contains("URL") && !error.contains("s3cret"), "{error}");
    }
    for secret in ["", "whsec_", "s3cret!", "whsec_c2hvcnQ="] {
        let error = with("https://example.com:8443/s3cret", secret);
        assert!(error.contains("example.com:8443") && error.contains("openssl rand"), "{error}");
        assert!(!error.contains("s3cret") && !error.contains("c2hvcnQ"), "{error}");
    }
}
