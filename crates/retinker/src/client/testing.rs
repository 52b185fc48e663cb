//! Doubles for tests: a transport whose answers are given by hand, and a runtime whose time stands still until
//! there is nothing left to do but wait. Both work the same natively and under wasm, and need no executor.

// A double that is used wrongly ends the test.
#![allow(clippy::panic)]

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use retinker_wire::time::Time;

use super::{Error, Tokenizer};
use crate::runtime::Runtime;
use crate::transport::{Request, Response, Transport, TransportError, TransportErrorKind};

#[cfg(all(test, not(target_arch = "wasm32")))]
pub(crate) use core::prelude::v1::test;
#[cfg(all(test, target_arch = "wasm32"))]
pub(crate) use wasm_bindgen_test::wasm_bindgen_test as test;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A tokenizer whose tokens are bytes, as those of the embedded service's models are.
#[derive(Debug, Clone, Copy)]
pub struct ByteTokenizer;

impl Tokenizer for ByteTokenizer {
    fn encode(&self, text: &str, _: bool) -> Result<Vec<i32>, Error> {
        Ok(text.bytes().map(i32::from).collect())
    }

    fn decode(&self, tokens: &[u32], _: bool) -> Result<String, Error> {
        let bytes: Vec<u8> = tokens.iter().map(|token| *token as u8).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn vocab_size(&self) -> usize {
        256
    }

    fn bos_token_id(&self) -> Option<i32> {
        None
    }

    fn eos_token_id(&self) -> Option<i32> {
        None
    }
}

/// A runtime whose time moves only when every task waits, and then straight to the next timer.
///
/// [`block_on`](Self::block_on) runs a future and all spawned tasks on the calling thread. Chance is a counter
/// through a fixed mixer, so that every run of a test is the same.
#[derive(Clone, Default)]
pub struct ManualRuntime(Arc<State>);

#[derive(Default)]
struct State {
    now: Mutex<Duration>,
    timers: Mutex<Vec<Timer>>,
    spawned: Mutex<Vec<BoxFuture<'static, ()>>>,
    sleeps: Mutex<Vec<Duration>>,
    random: AtomicU64,
    chance: AtomicBool,
}

struct Timer {
    at: Duration,
    waker: Option<Waker>,
    /// Shared with the sleeping future; once only one of the two is left, nobody waits for it any more.
    fired: Arc<AtomicBool>,
}

impl fmt::Debug for ManualRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualRuntime").field("now", &*lock(&self.0.now)).finish_non_exhaustive()
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl ManualRuntime {
    /// Time 0 and nothing to do. `random` is always 0, so that delays with jitter are exact.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with numbers that differ from each other.
    pub fn with_chance(self) -> Self {
        self.0.chance.store(true, Ordering::Relaxed);
        self
    }

    /// Runs a future to its end, and the spawned tasks as far as they come until then. Time moves to the next
    /// timer whenever nothing can be done.
    ///
    /// # Panics
    /// If nothing can be done and no timer is set: the future would never end.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(flag.clone());
        let mut context = Context::from_waker(&waker);
        let mut main = pin!(future);
        let mut tasks = FuturesUnordered::new();
        loop {
            while flag.0.swap(false, Ordering::AcqRel) {
                if let Poll::Ready(value) = main.as_mut().poll(&mut context) {
                    // Tasks go on where the next call finds them.
                    lock(&self.0.spawned).extend(tasks);
                    return value;
                }
                loop {
                    tasks.extend(lock(&self.0.spawned).drain(..));
                    match tasks.poll_next_unpin(&mut context) {
                        Poll::Ready(Some(())) => flag.0.store(true, Ordering::Release),
                        Poll::Ready(None) | Poll::Pending => break,
                    }
                }
                if !lock(&self.0.spawned).is_empty() {
                    flag.0.store(true, Ordering::Release);
                }
            }
            if !self.to_next_timer() {
                panic!("nothing can be done and no timer is set: this would wait for ever");
            }
        }
    }

    fn to_next_timer(&self) -> bool {
        let mut timers = lock(&self.0.timers);
        timers.retain(|timer| Arc::strong_count(&timer.fired) > 1);
        let Some(at) = timers.iter().map(|timer| timer.at).min() else { return false };
        *lock(&self.0.now) = at;
        let (due, later) = timers.drain(..).partition::<Vec<_>, _>(|timer| timer.at <= at);
        *timers = later;
        drop(timers);
        for timer in due {
            timer.fired.store(true, Ordering::Release);
            if let Some(waker) = timer.waker {
                waker.wake();
            }
        }
        true
    }

    /// Every sleep that was asked for so far, in order; limits on attempts are among them.
    pub fn sleeps(&self) -> Vec<Duration> {
        lock(&self.0.sleeps).clone()
    }

    /// The time since the beginning.
    pub fn elapsed(&self) -> Duration {
        *lock(&self.0.now)
    }
}

struct Sleep {
    state: Arc<State>,
    at: Duration,
    fired: Arc<AtomicBool>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.fired.load(Ordering::Acquire) || *lock(&self.state.now) >= self.at {
            return Poll::Ready(());
        }
        let mut timers = lock(&self.state.timers);
        let waker = Some(cx.waker().clone());
        match timers.iter_mut().find(|timer| Arc::ptr_eq(&timer.fired, &self.fired)) {
            Some(timer) => timer.waker = waker,
            None => timers.push(Timer { at: self.at, waker, fired: self.fired.clone() }),
        }
        Poll::Pending
    }
}

impl Runtime for ManualRuntime {
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        lock(&self.0.sleeps).push(duration);
        let at = self.elapsed().saturating_add(duration);
        Box::pin(Sleep { state: self.0.clone(), at, fired: Arc::default() })
    }

    fn now(&self) -> Time {
        // 2026-01-01T00:00:00Z and on.
        Time::from_millis(1_767_225_600_000 + i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.elapsed()
    }

    fn random(&self) -> u64 {
        if !self.0.chance.load(Ordering::Relaxed) {
            return 0;
        }
        let n = self.0.random.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        lock(&self.0.spawned).push(task);
    }
}

/// What a [`FakeTransport`] answers.
#[derive(Debug, Clone)]
pub struct FakeReply {
    after: Duration,
    outcome: Outcome,
}

#[derive(Debug, Clone)]
enum Outcome {
    Answer { status: u16, headers: Vec<(String, String)>, body: Bytes },
    Fail(TransportErrorKind),
    Never,
}

impl FakeReply {
    /// A JSON answer.
    pub fn json(status: u16, body: impl Into<String>) -> Self {
        Self::bytes(status, "application/json", Bytes::from(body.into()))
    }

    /// An answer of any type.
    pub fn bytes(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self { after: Duration::ZERO, outcome: Outcome::Answer { status, headers, body: body.into() } }
    }

    /// A failure below HTTP.
    pub fn fail(kind: TransportErrorKind) -> Self {
        Self { after: Duration::ZERO, outcome: Outcome::Fail(kind) }
    }

    /// No answer, ever.
    pub fn never() -> Self {
        Self { after: Duration::ZERO, outcome: Outcome::Never }
    }

    /// The same, with one more header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Outcome::Answer { headers, .. } = &mut self.outcome {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// The same, this much later.
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }
}

type Answering = dyn FnMut(&Request) -> FakeReply + Send;

/// A transport that answers by a function, and remembers what it was asked.
#[derive(Clone)]
pub struct FakeTransport {
    runtime: ManualRuntime,
    answer: Arc<Mutex<Box<Answering>>>,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl fmt::Debug for FakeTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeTransport").field("requests", &lock(&self.requests).len()).finish_non_exhaustive()
    }
}

impl FakeTransport {
    /// Answers each request by what the function says.
    pub fn new(runtime: &ManualRuntime, answer: impl FnMut(&Request) -> FakeReply + Send + 'static) -> Self {
        Self {
            runtime: runtime.clone(),
            answer: Arc::new(Mutex::new(Box::new(answer))),
            requests: Arc::default(),
        }
    }

    /// Answers the requests, whatever they are, by these replies in order.
    ///
    /// # Panics
    /// On a request for which there is no reply left.
    pub fn scripted(runtime: &ManualRuntime, replies: impl IntoIterator<Item = FakeReply>) -> Self {
        let mut replies = replies.into_iter().collect::<Vec<_>>().into_iter();
        Self::new(runtime, move |request| match replies.next() {
            Some(reply) => reply,
            None => panic!("no reply is left for {} {}", request.method.as_str(), request.url),
        })
    }

    /// What was asked so far, in order.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.requests).clone()
    }

    /// The same as `METHOD /path` lines.
    pub fn paths(&self) -> Vec<String> {
        self.requests()
            .iter()
            .map(|r| {
                let path = r.url.splitn(4, '/').nth(3).unwrap_or_default();
                format!("{} /{path}", r.method.as_str())
            })
            .collect()
    }
}

impl Transport for FakeTransport {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let reply = (lock(&self.answer))(&request);
        lock(&self.requests).push(request);
        let runtime = self.runtime.clone();
        Box::pin(async move {
            if !reply.after.is_zero() {
                let at = runtime.elapsed() + reply.after;
                Sleep { state: runtime.0.clone(), at, fired: Arc::default() }.await;
            }
            match reply.outcome {
                Outcome::Answer { status, headers, body } => Ok(Response {
                    status,
                    headers,
                    body: Box::pin(futures_util::stream::iter((!body.is_empty()).then_some(Ok(body)))),
                }),
                Outcome::Fail(kind) => Err(TransportError::new(kind, "the fake transport was told to fail")),
                Outcome::Never => std::future::pending().await,
            }
        })
    }
}
