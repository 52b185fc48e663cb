//! Telemetry as the official SDK 0.38 sends it (`lib/telemetry.py`): batches of events, in the background. A program asks
//! for it, or nothing is sent.
//!
//! What differs on purpose: credentials, and the server's own words, which may repeat one, are left out; and a session's
//! end is told when it ends, where the SDK tells it before it dies of an exception.

mod events;
mod redact;

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use retinker_wire::telemetry::{Happening, Severity, TelemetryEvent, TelemetrySendRequest};
use retinker_wire::time::Time;
use serde_json::{Map, Value};

use super::api::{Api, SDK_VERSION};
use super::retry::RetryPolicy;
use super::witness::{Note, Witness};
use crate::runtime::Runtime;
use redact::Redaction;

/// Most events of a batch.
const MAX_BATCH: usize = 100;
/// Most events that wait to be sent.
const MAX_QUEUE: usize = 10_000;
/// How long events wait at most.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
/// How long who asks for a flush waits at most.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a batch is sent again.
const MAX_RETRIES: u32 = 10;

/// Tells the service how the program fares. Cheap to clone. Events wait 10 s at most; what waits when the last clone, and
/// the last client that uses it, are gone is sent then, if the runtime lasts that long: a program that ends awaits
/// [`ServiceClient::finish`](super::ServiceClient::finish) or [`flush`](Self::flush).
///
/// Nothing here fails: what cannot be sent is dropped, and counted in [`dropped`](Self::dropped). Batches are sent one
/// after the other, each tried for 5 s up to eleven times.
///
/// Credentials that the client knows (of a source's the last one), whatever looks like one (`tml-...`, JWTs), the queries of URLs and what the server
/// said in a refusal are replaced wherever they stand in an event, those of the program included.
#[derive(Clone)]
pub struct Telemetry {
    shared: Arc<Shared>,
    /// Asks for a flush, and to be told of its end; closed when there is nothing more to come.
    wake: mpsc::UnboundedSender<Option<oneshot::Sender<()>>>,
}

/// What those who log and the task that sends have in common.
struct Shared {
    api: Api,
    session_id: String,
    /// Whether there is a session that begins and ends.
    in_session: bool,
    begun: Time,
    queue: Mutex<Queue>,
    dropped: AtomicU64,
    ended: AtomicBool,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<TelemetryEvent>,
    next_index: u64,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("session_id", &self.shared.session_id).finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Telemetry of a session that begins now.
    pub fn of_session(api: &Api, session_id: &str) -> Self {
        let telemetry = Self::start(api, session_id.to_owned(), true);
        telemetry.shared.push(Severity::Info, telemetry.shared.begun, Happening::SessionStart);
        telemetry
    }

    /// Telemetry of a program without a session, e.g. of one that only uses a [`RestClient`](super::RestClient); neither
    /// beginning nor end is told. A client is made to use it by [`Api::with_telemetry`].
    pub fn sessionless(api: &Api) -> Self {
        let id = format!("sessionless-{}", uuid(&**api.runtime()));
        Self::start(api, id, false)
    }

    fn start(api: &Api, session_id: String, in_session: bool) -> Self {
        let policy = RetryPolicy {
            max_retries: MAX_RETRIES,
            billing_pause: Some(Duration::ZERO),
            ..RetryPolicy::default()
        };
        // Unwitnessed: that telemetry fails is not told by telemetry.
        let api = api.clone().with_retry(policy).witnessed_by(None);
        let (wake, woken) = mpsc::unbounded();
        let begun = api.runtime().now();
        let shared = Arc::new(Shared {
            api,
            session_id,
            in_session,
            begun,
            queue: Mutex::default(),
            dropped: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        shared.api.runtime().spawn(Box::pin(run(shared.clone(), woken)));
        Self { shared, wake }
    }

    /// The session, or `sessionless-<uuid>`.
    pub fn session_id(&self) -> &str {
        &self.shared.session_id
    }

    /// Logs an event of the program's own. `event_name` should be one of few. `false` if the queue is full.
    pub fn log(&self, event_name: &str, event_data: Map<String, Value>, severity: Severity) -> bool {
        self.shared.log(severity, events::generic(event_name, event_data))
    }

    /// Logs an error, and has it sent soon: as an event `user_error`, a warning, if it or what caused it is a refusal with
    /// a 4xx other than 408, or a request that failed by its user's fault; else as an unhandled exception of this severity
    /// (`ERROR` in the SDK). `false` if the queue is full.
    pub fn log_exception(&self, exception: &(dyn StdError + 'static), severity: Severity) -> bool {
        let (severity, what) = events::exception(exception, severity);
        let logged = self.shared.log(severity, what);
        if logged {
            // It fails only where the runtime has ended.
            let _ = self.wake.unbounded_send(None);
        }
        logged
    }

    /// Logs an error that the program ends of, and the session's end, and waits until they are sent, 30 s at most.
    pub fn log_fatal_exception(
        &self,
        exception: &(dyn StdError + 'static),
        severity: Severity,
    ) -> impl Future<Output = bool> + Send + 'static + use<> {
        let (severity, what) = events::exception(exception, severity);
        let (logged, telemetry) = (self.shared.log(severity, what), self.clone());
        async move {
            telemetry.end().await;
            logged
        }
    }

    /// Waits until what was logged so far was sent or dropped; 30 s at most, `false` if that was not enough.
    pub async fn flush(&self) -> bool {
        let (done, flushed) = oneshot::channel();
        if self.wake.unbounded_send(Some(done)).is_err() {
            return false;
        }
        match select(flushed, self.shared.api.runtime().sleep(FLUSH_TIMEOUT)).await {
            Either::Left((flushed, _)) => flushed.is_ok(),
            Either::Right(_) => false,
        }
    }

    /// How many events were not delivered: the queue was full, or their batch was refused.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Tells the session's end, and waits until all is sent.
    pub(crate) async fn end(&self) {
        self.shared.end();
        if !self.flush().await {
            tracing::warn!(session_id = self.shared.session_id, "telemetry was not sent in time");
        }
    }

    pub(crate) fn witness(&self) -> Arc<dyn Witness> {
        Arc::new(self.clone())
    }
}

impl Witness for Telemetry {
    fn note(&self, note: Note<'_>) {
        match events::of_note(&note) {
            Some((severity, what)) => {
                self.shared.log(severity, what);
            }
            None => {
                self.log_exception(note.error, Severity::Error);
            }
        }
    }
}

impl Shared {
    /// Queues an event of now, without what is secret in it.
    fn log(&self, severity: Severity, mut what: Happening) -> bool {
        Redaction::of(self.api.caller()).apply(&mut what);
        self.push(severity, self.api.runtime().now(), what)
    }

    fn push(&self, severity: Severity, timestamp: Time, what: Happening) -> bool {
        let event_id = uuid(&**self.api.runtime());
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let event_session_index = queue.next_index;
        queue.next_index += 1;
        if queue.events.len() >= MAX_QUEUE {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(
                session_id = self.session_id,
                "the queue of telemetry is full; an event is dropped"
            );
            return false;
        }
        queue.events.push_back(TelemetryEvent { event_id, event_session_index, severity, timestamp, what });
        true
    }

    fn end(&self) {
        if self.in_session && !self.ended.swap(true, Ordering::Relaxed) {
            let now = self.api.runtime().now();
            let duration = events::duration(now.as_millis() - self.begun.as_millis());
            self.push(Severity::Info, now, Happening::SessionEnd { duration });
        }
    }

    /// Sends what waits now; what comes meanwhile waits for the next flush.
    async fn flush(&self) {
        let mut left = self.queue.lock().unwrap_or_else(PoisonError::into_inner).events.len();
        while left > 0 {
            let events: Vec<_> = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                let count = left.min(MAX_BATCH).min(queue.events.len());
                queue.events.drain(..count).collect()
            };
            left = if events.is_empty() { 0 } else { left - events.len() };
            self.send(events).await;
        }
    }

    async fn send(&self, events: Vec<TelemetryEvent>) {
        let count = events.len();
        let batch = TelemetrySendRequest {
            events,
            platform: platform().to_owned(),
            sdk_version: SDK_VERSION.to_owned(),
            session_id: self.session_id.clone(),
            process_uuid: process_uuid(&**self.api.runtime()).to_owned(),
        };
        if let Err(error) = self.api.send_telemetry(&batch).await {
            self.dropped.fetch_add(count as u64, Ordering::Relaxed);
            tracing::warn!(%error, count, "events of telemetry were dropped");
        }
    }
}

/// Sends until nobody is left who could log; then tells the end, and sends the rest.
async fn run(shared: Arc<Shared>, mut woken: mpsc::UnboundedReceiver<Option<oneshot::Sender<()>>>) {
    loop {
        let first = match select(woken.next(), shared.api.runtime().sleep(FLUSH_INTERVAL)).await {
            Either::Left((None, _)) => break,
            Either::Left((Some(who), _)) => who,
            Either::Right(_) => None,
        };
        // All who have asked before it begins are served by the same flush.
        let mut waiting: Vec<_> = first.into_iter().collect();
        while let Ok(more) = woken.try_recv() {
            waiting.extend(more);
        }
        shared.flush().await;
        for who in waiting {
            let _ = who.send(());
        }
    }
    shared.end();
    shared.flush().await;
}

/// The system's name as Python has it.
fn platform() -> &'static str {
    match std::env::consts::OS {
        "linux" => "Linux",
        "macos" => "Darwin",
        "windows" => "Windows",
        "" | "unknown" => "Wasm",
        other => other,
    }
}

fn process_uuid(runtime: &dyn Runtime) -> &'static str {
    static PROCESS: OnceLock<String> = OnceLock::new();
    PROCESS.get_or_init(|| uuid(runtime))
}

/// A UUID of version 4, by chance.
fn uuid(runtime: &dyn Runtime) -> String {
    let (high, low) = (runtime.random(), runtime.random());
    let (a, b, c) = (high >> 32, high >> 16 & 0xffff, high & 0x0fff | 0x4000);
    let (d, e) = (low >> 48 & 0x3fff | 0x8000, low & 0xffff_ffff_ffff);
    format!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
}
