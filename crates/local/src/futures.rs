//! Results that are awaited: who waits for what, and how long results are kept.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use retinker_wire::future::RequestErrorCategory;
use retinker_wire::sampling::{CompletionState, FutureCompletion, SampleResponse};
use retinker_wire::training::ForwardBackwardOutput;
use tokio::sync::watch;

use crate::fingerprint::Fingerprint;
use crate::sync::lock;
use crate::time::now_millis;

/// How many bytes of results are kept for clients that have not read them, or read them again.
const KEPT_BYTES: usize = 256 << 20;
/// How many results are kept.
const KEPT_RESULTS: usize = 200_000;

/// What became of a request.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// A forward pass, with or without gradients.
    Forward(ForwardBackwardOutput),
    /// Samples.
    Sample(Box<SampleResponse>),
    /// Anything else that worked.
    Done(serde_json::Value),
    /// It failed.
    Failed {
        /// What happened, for people.
        message: String,
        /// Whose fault it was.
        category: RequestErrorCategory,
    },
    /// It was carried out, but its result is no longer kept.
    Gone(String),
}

impl Outcome {
    /// A failure that the request itself caused.
    pub(crate) fn user(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), category: RequestErrorCategory::User }
    }

    /// A failure of the service.
    pub(crate) fn server(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), category: RequestErrorCategory::Server }
    }

    /// About how much memory it takes.
    fn bytes(&self) -> usize {
        const SMALL: usize = 512;
        match self {
            Self::Forward(output) => {
                let tensors = output.loss_fn_outputs.iter().flat_map(|fields| fields.values());
                SMALL + tensors.map(|tensor| tensor.estimated_bytes() + 128).sum::<usize>()
            }
            Self::Sample(response) => SMALL + response.estimated_bytes(),
            _ => SMALL,
        }
    }
}

/// The requests that were accepted, by id.
#[derive(Debug, Default)]
pub(crate) struct Futures {
    table: Mutex<Table>,
    /// The newest cursor of all listeners' news.
    news: watch::Sender<u64>,
}

/// Who may ask for the news of several requests at once: one client of a sampling session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Listener {
    pub(crate) sampling_session_id: String,
    pub(crate) clone: u64,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<String, Entry>,
    /// Resolved ones, oldest first; some may have been forgotten since.
    resolved: VecDeque<String>,
    bytes: usize,
    /// What was resolved for each listener and not yet acknowledged, oldest first.
    news: HashMap<Listener, VecDeque<News>>,
    /// The newest cursor. It never goes back, not even when the service is started anew.
    cursor: u64,
}

#[derive(Debug)]
struct News {
    cursor: u64,
    request_id: String,
    failed: bool,
}

#[derive(Debug)]
struct Entry {
    outcome: watch::Sender<Option<Arc<Outcome>>>,
    /// What was asked for; `None` for the creation of a model.
    fingerprint: Option<Fingerprint>,
    listener: Option<Listener>,
    /// How much memory the outcome takes.
    bytes: usize,
}

/// Whether a request is new.
pub(crate) enum Accepted {
    /// It is: whoever holds this has to see that it is carried out.
    New(Completer),
    /// It was accepted before.
    Before,
    /// Another request was accepted under its number.
    Reused,
}

impl Futures {
    /// Takes a request in, once.
    pub(crate) fn accept(self: &Arc<Self>, request_id: &str, fingerprint: Option<Fingerprint>) -> Accepted {
        self.take_in(request_id, fingerprint, None, "the trainer that was to carry it out lost its memory")
    }

    /// Takes a sampling request in, once. Its listener will hear when it is done.
    pub(crate) fn accept_sample(
        self: &Arc<Self>,
        request_id: &str,
        fingerprint: Option<Fingerprint>,
        listener: Option<Listener>,
    ) -> Accepted {
        self.take_in(
            request_id,
            fingerprint,
            listener,
            "the sampler that was to carry it out failed or was stopped",
        )
    }

    fn take_in(
        self: &Arc<Self>,
        request_id: &str,
        fingerprint: Option<Fingerprint>,
        listener: Option<Listener>,
        lost: &'static str,
    ) -> Accepted {
        let mut table = lock(&self.table);
        if let Some(entry) = table.entries.get(request_id) {
            return if entry.fingerprint == fingerprint { Accepted::Before } else { Accepted::Reused };
        }
        let entry = Entry { outcome: watch::Sender::new(None), fingerprint, listener, bytes: 0 };
        table.entries.insert(request_id.to_owned(), entry);
        let (futures, request_id) = (Arc::clone(self), request_id.to_owned());
        Accepted::New(Completer { futures, request_id, lost, open: true })
    }

    /// Something to wait on; `None` for a request that is not known, or whose result is no longer kept.
    pub(crate) fn watch(&self, request_id: &str) -> Option<watch::Receiver<Option<Arc<Outcome>>>> {
        lock(&self.table).entries.get(request_id).map(|entry| entry.outcome.subscribe())
    }

    fn resolve(&self, request_id: &str, outcome: Outcome) {
        let bytes = outcome.bytes();
        let failed = matches!(outcome, Outcome::Failed { .. } | Outcome::Gone(_));
        let mut guard = lock(&self.table);
        let table = &mut *guard;
        let Some(entry) = table.entries.get_mut(request_id) else { return };
        entry.bytes = bytes;
        entry.outcome.send_replace(Some(Arc::new(outcome)));
        if let Some(listener) = entry.listener.clone() {
            let now = u64::try_from(now_millis()).unwrap_or_default() * 1000;
            table.cursor = now.max(table.cursor + 1);
            let news = News { cursor: table.cursor, request_id: request_id.to_owned(), failed };
            table.news.entry(listener).or_default().push_back(news);
            self.news.send_replace(table.cursor);
        }
        table.resolved.push_back(request_id.to_owned());
        table.bytes += bytes;
        while table.bytes > KEPT_BYTES || table.resolved.len() > KEPT_RESULTS {
            let Some(oldest) = table.resolved.pop_front() else { break };
            table.forget_resolved(&oldest);
        }
    }

    /// Changes whenever there are news for some listener.
    pub(crate) fn listen(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// What was resolved for a listener after the cursor, and the cursor for the next call. All up to the cursor is known
    /// to the listener, and the results of the requests in `read` are not needed any more.
    pub(crate) fn news(
        &self,
        listener: &Listener,
        cursor: u64,
        read: &[String],
    ) -> (Vec<FutureCompletion>, u64) {
        let mut table = lock(&self.table);
        for request_id in read {
            if table.entries.get(request_id).is_some_and(|entry| entry.listener.as_ref() == Some(listener)) {
                table.forget_resolved(request_id);
            }
        }
        let Some(news) = table.news.get_mut(listener) else { return (Vec::new(), cursor) };
        while news.front().is_some_and(|first| first.cursor <= cursor) {
            news.pop_front();
        }
        let completion = |news: &News| {
            let state = if news.failed { CompletionState::Failed } else { CompletionState::Finished };
            let request_id = news.request_id.clone();
            FutureCompletion { state, request_id, response_payload_uncompressed_size: None }
        };
        let next = news.back().map_or(cursor, |last| last.cursor);
        let completions: Vec<FutureCompletion> = news.iter().map(completion).collect();
        if completions.is_empty() {
            table.news.remove(listener);
        }
        (completions, next)
    }

    fn forget(&self, request_id: &str) {
        lock(&self.table).entries.remove(request_id);
    }
}

impl Table {
    /// Lets go of a result, if it is still there.
    fn forget_resolved(&mut self, request_id: &str) {
        if self.entries.get(request_id).is_none_or(|entry| entry.outcome.borrow().is_none()) {
            return;
        }
        let Some(entry) = self.entries.remove(request_id) else { return };
        self.bytes -= entry.bytes;
        if let Some(listener) = entry.listener
            && let Some(news) = self.news.get_mut(&listener)
        {
            news.retain(|news| news.request_id != request_id);
            if news.is_empty() {
                self.news.remove(&listener);
            }
        }
    }
}

/// The duty to resolve a request. Dropped without doing so, as when a trainer's memory is lost, it says that.
#[derive(Debug)]
pub(crate) struct Completer {
    futures: Arc<Futures>,
    request_id: String,
    lost: &'static str,
    open: bool,
}

impl Completer {
    /// The request's id.
    pub(crate) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Resolves the request.
    pub(crate) fn complete(mut self, outcome: Outcome) {
        self.open = false;
        self.futures.resolve(&self.request_id, outcome);
    }

    /// Takes the acceptance back, as if the request had never come.
    pub(crate) fn withdraw(mut self) {
        self.open = false;
        self.futures.forget(&self.request_id);
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        if self.open {
            let message = format!("request {} was not carried out: {}", self.request_id, self.lost);
            self.futures.resolve(&self.request_id, Outcome::server(message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(futures: &Arc<Futures>, id: &str) -> Completer {
        match futures.accept(id, None) {
            Accepted::New(completer) => completer,
            Accepted::Before | Accepted::Reused => panic!("{id} is known already"),
        }
    }

    fn outcome(futures: &Futures, id: &str) -> Arc<Outcome> {
        futures.watch(id).unwrap().borrow().clone().unwrap()
    }

    #[test]
    fn a_request_is_accepted_once_and_its_result_can_be_read_again() {
        let futures = Arc::new(Futures::default());
        let completer = accept(&futures, "r:1");
        assert!(matches!(futures.accept("r:1", None), Accepted::Before));
        assert!(futures.watch("r:1").unwrap().borrow().is_none());
        completer.complete(Outcome::Done(serde_json::json!({})));
        assert!(matches!(*outcome(&futures, "r:1"), Outcome::Done(_)));
        assert!(matches!(*outcome(&futures, "r:1"), Outcome::Done(_)));
        assert!(matches!(futures.accept("r:1", None), Accepted::Before));
    }

    #[test]
    fn a_lost_request_fails_and_is_the_services_fault() {
        let futures = Arc::new(Futures::default());
        drop(accept(&futures, "r:1"));
        match &*outcome(&futures, "r:1") {
            Outcome::Failed { message, category: RequestErrorCategory::Server } => {
                assert!(message.contains("r:1"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_oldest_results_give_way() {
        let futures = Arc::new(Futures::default());
        for i in 0..KEPT_RESULTS + 2 {
            accept(&futures, &format!("r:{i}")).complete(Outcome::Done(serde_json::Value::Null));
        }
        let pending = accept(&futures, "waiting");
        let limit = KEPT_BYTES / 512;
        assert!(limit > KEPT_RESULTS);
        assert!(futures.watch("r:1").is_none());
        assert!(futures.watch("r:2").is_some());
        assert!(futures.watch("waiting").is_some());
        drop(pending);
    }
}
