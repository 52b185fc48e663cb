//! Doubles for the tests of hooks.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use retinker::native::NativeRuntime;
use retinker::recovery::events::{EventKind, RecoveryEvent};
use retinker::runtime::Runtime;
use retinker::wire::time::Time;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

/// An event at 1970-01-01T00:00:01Z.
pub(super) fn event(kind: EventKind, run_id: &str) -> RecoveryEvent {
    RecoveryEvent::new(kind, Time::from_millis(1_000), "local", run_id, "It failed.")
}

pub(super) fn runtime() -> NativeRuntime {
    NativeRuntime::current().unwrap()
}

/// Waits until something is so, which it has to be within a minute.
pub(super) async fn until(is_so: impl Fn() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.unwrap();
}

/// A runtime that notes how long it should sleep, and does not.
#[derive(Debug, Clone)]
pub(super) struct Hasty {
    native: NativeRuntime,
    slept: Arc<Mutex<Vec<Duration>>>,
}

impl Hasty {
    pub(super) fn new() -> Self {
        Self { native: runtime(), slept: Arc::default() }
    }

    pub(super) fn slept(&self) -> Vec<Duration> {
        self.slept.lock().unwrap().clone()
    }
}

impl Runtime for Hasty {
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.slept.lock().unwrap().push(duration);
        Box::pin(async {})
    }

    fn now(&self) -> Time {
        self.native.now()
    }

    fn monotonic(&self) -> Duration {
        self.native.monotonic()
    }

    /// Differs from call to call, and takes nothing off delays, as its upper bits are 0.
    fn random(&self) -> u64 {
        self.native.random() % 1024
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.native.spawn(task);
    }
}

/// What is told by tracing on this thread, as long as this lives.
pub(super) struct Log {
    lines: Lines,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn start() -> Self {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(lines.clone())
            .finish();
        Self { lines, _guard: tracing::subscriber::set_default(subscriber) }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.lines.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// How many lines say this.
    pub(super) fn count(&self, what: &str) -> usize {
        self.text().lines().filter(|line| line.contains(what)).count()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
