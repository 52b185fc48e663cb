//! Events sent to a URL, signed as [Standard Webhooks] 1.0.0 has it, so that receivers can check them with its libraries.
//!
//! [Standard Webhooks]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::select;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};
use retinker::client::Secret;
use retinker::client::retry::{backoff, retry_after};
use retinker::recovery::events::{EventKind, EventSink, RecoveryEvent};
use retinker::runtime::Runtime;
use sha2::Sha256;
use tokio::sync::watch;

use super::HookError;
use super::queue::{CAPACITY, Queue, Settings};

/// The first pause before an event is sent again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause, also of those that a receiver asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(320);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How a secret in the specification's form begins; base64 follows.
const SECRET_PREFIX: &str = "whsec_";
/// How many bytes a secret has, by the specification.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Where events are sent, and how.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// The address, `https://...`; a secret, as with many receivers whoever knows it can send. A name and password in it are
    /// sent as basic authentication. `http://` is taken as well, but shows the events and the address to the network: use it
    /// on this machine or in a private network only.
    pub url: Secret,
    /// What events are signed with: `whsec_` and 24 to 64 random bytes in base64. The prefix may be left out.
    pub secret: Secret,
    /// Which events are sent; `None` = all.
    pub events: Option<Vec<EventKind>>,
    /// How long one try may take; 20 s (the specification recommends 15 to 30 s).
    pub timeout: Duration,
    /// How often an event is tried; 8 times, which takes about ten minutes.
    pub tries: u32,
    /// Most events that wait; 16,384. Those that come when so many do are dropped, which is told as a tracing error.
    pub queue: usize,
}

impl WebhookConfig {
    /// All events, to this address, with the defaults.
    pub fn new(url: Secret, secret: Secret) -> Self {
        Self { url, secret, events: None, timeout: Duration::from_secs(20), tries: 8, queue: CAPACITY }
    }
}

/// Sends events by POST, one after the other.
///
/// The body is the event as JSON. The headers are those of [Standard Webhooks]: `webhook-id` names the event, the same at
/// each try; `webhook-timestamp` is the time of the try, in seconds since 1970; `webhook-signature` is `v1,` and, in base64,
/// the HMAC-SHA256 of `<id>.<timestamp>.<body>`. `x-retinker-event` has the event's kind.
///
/// An event is delivered when the answer is 2xx. It is sent again when there is no answer, or one of 408, 429 or 5xx: after
/// 5 s, then after twice as long each time, up to 320 s, less up to a quarter by chance; or when the answer's `retry-after`
/// says, within those 320 s. Everything else, redirects among them, is final for that event. So is 410, where the
/// specification would have the sender stop for ever: the next event is sent all the same, since nobody would notice. An
/// event that is given up is told as a tracing error, which names the receiver's host and no more of its URL.
///
/// A receiver can get an event twice (it tells them apart by the id), and none after a later one.
///
/// [Standard Webhooks]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
#[derive(Debug)]
pub struct Webhook {
    queue: Queue,
}

impl Webhook {
    /// Starts to send. The runtime must be tokio's, and what tells the time of the tries.
    ///
    /// # Errors
    /// [`HookError::Url`], [`HookError::Secret`] if these cannot be used; [`HookError::Http`] if the system's certificates
    /// cannot be read.
    pub fn new(config: WebhookConfig, runtime: Arc<dyn Runtime>) -> Result<Self, HookError> {
        let WebhookConfig { url, secret, events, timeout, tries, queue } = config;
        let (url, host) = address(&url)?;
        let mac = mac(&secret).map_err(|reason| HookError::Secret { host: host.clone(), reason })?;
        let client = client(timeout)?;
        let settings =
            Settings { name: format!("the webhook to {host}"), events, capacity: queue, concurrency: 1 };
        let sender = Arc::new(Sender { client, url, host, mac, tries, runtime: Arc::clone(&runtime) });
        let queue = Queue::start(settings, &*runtime, move |event, draining| {
            let sender = Arc::clone(&sender);
            async move { sender.deliver(&event, draining).await }
        });
        Ok(Self { queue })
    }

    /// Takes no more events, and delivers those that are queued, for at most so long. Nothing is waited for meanwhile: each
    /// event has one more try. Answers how many are left, which are lost; they are told as a tracing error.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.queue.drain(patience).await
    }
}

impl EventSink for Webhook {
    fn tell(&self, event: &RecoveryEvent) {
        self.queue.tell(event);
    }
}

/// The address, and its host for people. What is wrong with it is told without showing it.
fn address(url: &Secret) -> Result<(Url, String), HookError> {
    let url = Url::parse(url.expose()).map_err(|error| HookError::Url(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(HookError::Url("it is not one of http or https".to_owned()));
    }
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    Ok((url, host))
}

fn mac(secret: &Secret) -> Result<Hmac<Sha256>, &'static str> {
    let secret = secret.expose();
    let secret = STANDARD
        .decode(secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret))
        .map_err(|_| "it is not whsec_ and base64")?;
    if !SECRET_BYTES.contains(&secret.len()) {
        return Err("it has not between 24 and 64 bytes");
    }
    Hmac::new_from_slice(&secret).map_err(|_| "it cannot be a key")
}

fn client(timeout: Duration) -> Result<Client, HookError> {
    // Only a process that has not chosen a provider needs this one; the answer says no more than that.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT)
        .timeout(timeout)
        .user_agent(concat!("retinker/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| HookError::Http(reason(error)))
}

/// What lies under an error of reqwest, whose own sentences say little and show the URL.
fn reason(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "there was no answer in time".to_owned();
    }
    let error = error.without_url();
    let mut deepest: &dyn std::error::Error = &error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

struct Sender {
    client: Client,
    url: Url,
    /// The URL's host, and port if it has one: what may be told of it.
    host: String,
    mac: Hmac<Sha256>,
    tries: u32,
    runtime: Arc<dyn Runtime>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("host", &self.host).finish_non_exhaustive()
    }
}

/// Why a try did not deliver an event.
#[derive(Debug)]
struct Failure {
    reason: String,
    /// Whether another try can help.
    passing: bool,
    /// After which time the receiver wants to be asked again.
    asked: Option<Duration>,
}

impl Sender {
    /// Tries until the event is delivered or given up.
    async fn deliver(&self, event: &RecoveryEvent, mut draining: watch::Receiver<bool>) {
        let id = format!("evt_{:016x}{:016x}", self.runtime.random(), self.runtime.random());
        let body = match serde_json::to_vec(event) {
            Ok(body) => Bytes::from(body),
            Err(error) => return self.give_up(event, 0, &error.to_string()),
        };
        for tried in 1.. {
            let Err(failure) = self.attempt(&id, event.event, body.clone()).await else { return };
            if !failure.passing || tried >= self.tries || *draining.borrow() {
                return self.give_up(event, tried, &failure.reason);
            }
            let pause = self.pause(tried, failure.asked);
            tracing::debug!(%id, tried, reason = failure.reason, "an event for {} is sent again in {pause:?}", self.host);
            let drained = std::pin::pin!(draining.wait_for(|draining| *draining));
            select(self.runtime.sleep(pause), drained).await;
        }
    }

    async fn attempt(&self, id: &str, kind: EventKind, body: Bytes) -> Result<(), Failure> {
        let timestamp = self.runtime.now().as_millis().div_euclid(1000);
        let response = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("x-retinker-event", kind.as_str())
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", self.signature(id, timestamp, &body))
            .body(body)
            .send()
            .await
            .map_err(|error| Failure { passing: !error.is_builder(), asked: None, reason: reason(error) })?;
        if response.status().is_success() { Ok(()) } else { Err(self.refused(&response)) }
    }

    fn refused(&self, response: &Response) -> Failure {
        let status = response.status();
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        Failure {
            reason: format!("the answer was {status}"),
            passing: status.is_server_error()
                || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS),
            asked: retry_after(None, asked, self.runtime.now()),
        }
    }

    fn signature(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = self.mac.clone();
        mac.update(format!("{id}.{timestamp}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    /// How long to wait after so many tries.
    fn pause(&self, tried: u32, asked: Option<Duration>) -> Duration {
        match asked {
            Some(asked) => asked.min(LONGEST_PAUSE),
            None => backoff(FIRST_PAUSE, LONGEST_PAUSE, tried.saturating_sub(1), self.runtime.random()),
        }
    }

    fn give_up(&self, event: &RecoveryEvent, tried: u32, reason: &str) {
        tracing::error!(
            host = %self.host,
            event = event.event.as_str(),
            run_id = %event.run_id,
            tried,
            "an event was not delivered to the webhook's host: {reason}"
        );
    }
}

#[cfg(test)]
mod tests;
