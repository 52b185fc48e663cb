//! One question for all samples of a client: which of them are done. Rules and constants are those of the official SDK 0.38
//! (`lib/session_futures_poller.py`).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use retinker_wire::sampling::{FuturesTarget, RetrieveFuturesRequest, RetrieveFuturesResponse};

use super::api::Api;
use super::call::Call;
use super::error::{Error, ErrorKind};
use super::retry::backoff;
use super::waiting::{HELD, QUICK};

/// How long a question may take: a server holds it for about 30 s when there is no news.
const POLL_TIMEOUT: Duration = Duration::from_secs(45);
/// How long one may take that only reports what was read.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long after a failure that passes it is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// The same while billing is paused.
const BILLING: Duration = Duration::from_secs(5);
/// A 400 can be a proxy's: so often it is asked again all the same.
const BAD_REQUESTS: u32 = 3;

/// Waits for the samples of one client. Ends with it, after telling the server what was read.
#[derive(Debug)]
pub(crate) struct Poller {
    state: Arc<Mutex<State>>,
    /// Says that there is something to do; closed when there never will be again.
    wake: mpsc::UnboundedSender<()>,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<String, oneshot::Sender<Result<Option<u64>, Error>>>,
    /// Done before anybody waited: the size, and the number of the next submission then.
    done: HashMap<String, (Option<u64>, u64)>,
    /// Submissions that are under way, by number: each may turn out to be of what is done.
    submissions: BTreeSet<u64>,
    next_submission: u64,
    /// Read, and not reported yet.
    retrieved: BTreeSet<String>,
    /// Why nothing can be waited for any more.
    failure: Option<Error>,
}

impl Poller {
    /// A poller of one client of a sampling session. Asks nothing until somebody waits.
    pub(crate) fn start(api: Api, sampling_session_id: String, cloned_sampler_id: u64) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let (wake, woken) = mpsc::unbounded();
        let target = FuturesTarget::SamplingSession { sampling_session_id, cloned_sampler_id };
        let asking = Asking { api: api.clone(), target, state: state.clone(), cursor: 0, acknowledged: 0 };
        api.runtime().spawn(Box::pin(asking.run(woken)));
        Self { state, wake }
    }

    /// Notes that something is being submitted, which may be done before its request is known here. What is done and of no
    /// submission under way is nobody's, such as a sample that was given up, and is let go.
    pub(crate) fn submitting(&self) -> Submission {
        let mut state = lock(&self.state);
        let number = state.next_submission;
        state.next_submission += 1;
        state.submissions.insert(number);
        Submission { state: self.state.clone(), number }
    }

    /// Resolves when a request is done, whether it has a result or failed: to the result's size in bytes, where the server
    /// says it.
    pub(crate) async fn wait_for(
        &self,
        submission: Submission,
        request_id: &str,
    ) -> Result<Option<u64>, Error> {
        let done = {
            let mut state = lock(&self.state);
            if let Some((size, _)) = state.done.remove(request_id) {
                return Ok(size);
            }
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            let (done, waiting) = oneshot::channel();
            state.waiting.insert(request_id.to_owned(), done);
            waiting
        };
        drop(submission);
        let _registered = Registered { state: &self.state, request_id };
        let _ = self.wake.unbounded_send(());
        let ended = |_| {
            let reason = "the runtime it was running in has ended.".to_owned();
            Err(Error::new("retrieve_futures", ErrorKind::Cancelled { reason }))
        };
        done.await.unwrap_or_else(ended)
    }

    /// Notes that a request's result was read, so that the server need not keep it.
    pub(crate) fn mark_retrieved(&self, request_id: String) {
        lock(&self.state).retrieved.insert(request_id);
        let _ = self.wake.unbounded_send(());
    }
}

/// Something that is being submitted, until it is waited for or has failed.
#[derive(Debug)]
pub(crate) struct Submission {
    state: Arc<Mutex<State>>,
    number: u64,
}

impl Drop for Submission {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.submissions.remove(&self.number);
        let oldest = state.submissions.first().copied();
        state.done.retain(|_, (_, next)| oldest.is_some_and(|oldest| oldest < *next));
    }
}

/// Somebody who waits; given up, nobody does any more.
struct Registered<'a> {
    state: &'a Mutex<State>,
    request_id: &'a str,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        lock(self.state).waiting.remove(self.request_id);
    }
}

struct Asking {
    api: Api,
    target: FuturesTarget,
    state: Arc<Mutex<State>>,
    cursor: u64,
    /// The cursor up to which the server knows that everything was heard.
    acknowledged: u64,
}

impl Asking {
    async fn run(mut self, mut woken: mpsc::UnboundedReceiver<()>) {
        let (mut bad_requests, mut idle, mut paused) = (0, 0u32, Duration::ZERO);
        let mut trouble = false;
        let mut open = true;
        loop {
            let (somebody_waits, retrieved) = {
                let state = lock(&self.state);
                (!state.waiting.is_empty(), state.retrieved.clone())
            };
            let nothing_to_say = retrieved.is_empty() && self.cursor <= self.acknowledged;
            if nothing_to_say && !somebody_waits {
                if !open || woken.next().await.is_none() {
                    return;
                }
                continue;
            }
            let asked = self.api.runtime().monotonic();
            let answer = self.ask(somebody_waits && open, &retrieved);
            let answer = if open {
                // Whoever comes meanwhile is told by the same answer; but when nobody is left, nobody waits for it.
                match select(Box::pin(answer), Box::pin(closed(&mut woken))).await {
                    Either::Left((answer, _)) => answer,
                    Either::Right(_) => {
                        open = false;
                        continue;
                    }
                }
            } else {
                // The last word: once, whatever comes of it.
                let _ = answer.await;
                return;
            };
            let error = match answer {
                Ok(news) => {
                    bad_requests = 0;
                    let restarted = news.cursor < self.cursor;
                    if std::mem::take(&mut trouble) || restarted {
                        self.doubt();
                    }
                    let told = self.take(news, &retrieved);
                    let runtime = self.api.runtime();
                    if told || runtime.monotonic().saturating_sub(asked) >= HELD {
                        idle = 0;
                    } else {
                        // A server that holds no question is not asked without a pause.
                        runtime.sleep(backoff(QUICK.0, QUICK.1, idle, runtime.random())).await;
                        idle = idle.saturating_add(1);
                    }
                    continue;
                }
                Err(error) => error,
            };
            let delay = match error.status() {
                Some(402) if paused < self.api.billing_pause() => {
                    paused += BILLING;
                    BILLING
                }
                Some(400) if bad_requests < BAD_REQUESTS => {
                    bad_requests += 1;
                    AGAIN
                }
                Some(402) => return self.fail(error),
                _ if error.is_retryable() => AGAIN,
                _ => return self.fail(error),
            };
            trouble = true;
            tracing::debug!(%error, "asking again which samples are done");
            self.api.runtime().sleep(delay).await;
        }
    }

    fn ask(
        &self,
        hold: bool,
        retrieved: &BTreeSet<String>,
    ) -> impl Future<Output = Result<RetrieveFuturesResponse, Error>> + Send + use<> {
        let request = RetrieveFuturesRequest {
            target: self.target.clone(),
            prev_cursor: self.cursor,
            timeout: (!hold).then_some(0.0),
            retrieved_request_ids: retrieved.iter().cloned().collect(),
        };
        let call = Call::post("retrieve_futures", "/api/v1/retrieve_futures", &request);
        let api = self.api.clone();
        async move {
            let mut call = call?;
            call.timeout = if hold { POLL_TIMEOUT } else { ACK_TIMEOUT };
            call.retry = false;
            api.json(|| Ok(call)).await
        }
    }

    /// Notes what an answer says; whether somebody had waited for it.
    fn take(&mut self, news: RetrieveFuturesResponse, reported: &BTreeSet<String>) -> bool {
        let mut told = false;
        self.acknowledged = self.acknowledged.max(self.cursor);
        self.cursor = news.cursor;
        let mut state = lock(&self.state);
        state.retrieved.retain(|request_id| !reported.contains(request_id));
        for completion in news.completions {
            // Whatever its state is: asking for it tells the rest.
            let size = completion.response_payload_uncompressed_size.filter(|size| *size > 0);
            match state.waiting.remove(&completion.request_id) {
                // Who has given up meanwhile does not read it either.
                Some(waiting) => told |= waiting.send(Ok(size)).is_ok(),
                None if state.submissions.is_empty() => {}
                None => {
                    let next = state.next_submission;
                    state.done.insert(completion.request_id, (size, next));
                }
            }
        }
        told
    }

    /// Has all who wait ask for themselves: a server that was away may have lost their requests, and never tells of them here.
    fn doubt(&self) {
        for (_, waiting) in lock(&self.state).waiting.drain() {
            let _ = waiting.send(Ok(None));
        }
    }

    /// Fails all who wait, and who will.
    fn fail(&self, error: Error) {
        tracing::error!(%error, "samples can no longer be waited for");
        let mut state = lock(&self.state);
        for (_, waiting) in state.waiting.drain() {
            let _ = waiting.send(Err(error.clone()));
        }
        state.failure = Some(error);
    }
}

/// Resolves when the poller is gone.
async fn closed(woken: &mut mpsc::UnboundedReceiver<()>) {
    while woken.next().await.is_some() {}
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join;
    use serde_json::json;

    use super::*;
    use crate::client::ApiConfig;
    use crate::client::testing::{FakeReply, FakeTransport, ManualRuntime, test};
    use crate::runtime::Runtime;

    /// A poller that is told one after the other, each after a second, that these are done.
    fn told(news: &'static [&'static [&'static str]]) -> (ManualRuntime, Poller) {
        let runtime = ManualRuntime::new();
        let mut cursor = 0;
        let transport = FakeTransport::new(&runtime, move |_| {
            let done = news.get(cursor).copied().unwrap_or_default();
            cursor += 1;
            let done: Vec<_> = done.iter().map(|id| json!({"request_id": id, "state": "finished"})).collect();
            let news = json!({"cursor": cursor, "completions": done}).to_string();
            FakeReply::json(200, news).after(Duration::from_secs(1))
        });
        let config = ApiConfig { base_url: "http://service.test".into(), ..ApiConfig::default() };
        let api = Api::new(config, Arc::new(transport), Arc::new(runtime.clone())).unwrap();
        (runtime.clone(), Poller::start(api, "s:sample:0".into(), 0))
    }

    #[test]
    fn what_was_given_up_is_let_go_when_it_is_done() {
        let (runtime, poller) = told(&[&["given up", "awaited"]]);
        runtime.block_on(async {
            let mut given_up = Box::pin(poller.wait_for(poller.submitting(), "given up"));
            assert!((&mut given_up).now_or_never().is_none());
            drop(given_up);
            poller.wait_for(poller.submitting(), "awaited").await.unwrap();
        });
        assert!(lock(&poller.state).done.is_empty());
    }

    #[test]
    fn what_is_done_early_is_kept_for_as_long_as_it_may_be_somebodys() {
        let (runtime, poller) = told(&[&["early", "nobody's", "awaited"], &["later"]]);
        runtime.block_on(async {
            let early = poller.submitting();
            poller.wait_for(poller.submitting(), "awaited").await.unwrap();
            assert_eq!(lock(&poller.state).done.len(), 2);
            // One that begins now is of neither.
            let begun = poller.submitting();
            poller.wait_for(early, "early").await.unwrap();
            assert!(lock(&poller.state).done.is_empty());
            let later = poller.wait_for(begun, "later");
            let (told, ()) = join(later, runtime.sleep(Duration::from_millis(10))).await;
            told.unwrap();
        });
        assert!(lock(&poller.state).submissions.is_empty());
    }
}
