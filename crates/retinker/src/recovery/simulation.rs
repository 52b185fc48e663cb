//! A small service in memory, and a way to crash at any chosen instruction.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_channel::mpsc;
use futures_core::future::BoxFuture;
use retinker_wire::run::{Checkpoint, TrainingRun};
use retinker_wire::session::{SessionSearchRequest, SessionStatus};
use retinker_wire::time::Time;
use serde_json::{Value, json};

use super::journal::{Begun, Document, Lease, MemoryStore, Put, Store, StoreError};
use super::restore::RestoreRecord;
use super::samples;
use crate::client::testing::{FakeReply, FakeTransport, ManualRuntime};
use crate::client::{Api, ApiConfig};
use crate::transport::{Request, Response, Transport, TransportError, TransportErrorKind};

/// What the service holds and how it behaves.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) old: TrainingRun,
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// Listed runs.
    pub(crate) others: Vec<TrainingRun>,
    pub(crate) sessions: Vec<String>,
    pub(crate) finished: Vec<String>,
    /// Whether the search for sessions heeds its filter.
    pub(crate) filters: bool,
    /// How sessions stand that no restore opened.
    pub(crate) standings: BTreeMap<String, SessionStatus>,
    /// Whether there is a search for sessions.
    pub(crate) searches: bool,
    /// Whether it fails.
    pub(crate) search_fails: bool,
    /// Requests, without their query.
    pub(crate) asked: Vec<String>,
    /// The restore that each session was opened for.
    pub(crate) session_labels: BTreeMap<String, String>,
    /// By identity.
    pub(crate) made: BTreeMap<(String, u64), Made>,
    pub(crate) heartbeats: Vec<String>,
    /// Sessions that are over.
    pub(crate) over: Vec<String>,
    pub(crate) create_via_load: bool,
    pub(crate) keeps_labels: bool,
    /// How a session is refused.
    pub(crate) refuse_session: Option<u16>,
    /// How the submission of a load is answered, instead of being taken.
    pub(crate) refuse_load: Option<(u16, &'static str)>,
    /// What comes of a load that was taken, instead of success.
    pub(crate) fail_load: Option<&'static str>,
    /// Answers to questions for futures that are yet to be "gone", as after a restart of the service.
    pub(crate) forgets: u32,
    pub(crate) slow_load: Duration,
    /// How often a load is first answered with "not yet", for want of capacity.
    pub(crate) paused_loads: u32,
    pub(crate) down: bool,
    pub(crate) new_run_corrupted: bool,
    /// What the result of a create-via-load calls the new run, where it says so.
    pub(crate) told_id: Option<&'static str>,
    /// What a create-via-load is refused with, where it is not known.
    pub(crate) unknown_form: u16,
    /// For how many seconds lists ask to be left alone; 0 for not saying.
    pub(crate) limited: Option<u64>,
    /// Whether lifetimes of checkpoints can be set.
    pub(crate) keeps_ttl: bool,
    /// What a forward pass gives, instead of [`LOGPROBS`].
    pub(crate) logprobs: Vec<f32>,
    /// How a forward pass is refused.
    pub(crate) refuse_forward: Option<(u16, &'static str)>,
    /// The numbers of the forward passes, each with its run.
    pub(crate) forwards: Vec<(String, u64)>,
}

/// What a forward pass gives.
pub(crate) const LOGPROBS: [f32; 2] = [-1.5, -0.25];

#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) labels: Value,
    pub(crate) loaded: bool,
    pub(crate) optimizer: bool,
    pub(crate) seed: Option<u64>,
}

impl Made {
    /// A run that somebody made.
    pub(crate) fn of(id: &str) -> Self {
        Self { id: id.to_owned(), labels: Value::Null, loaded: true, optimizer: false, seed: None }
    }
}

impl Default for Service {
    fn default() -> Self {
        Self {
            old: samples::run("old", Some(true)),
            checkpoints: vec![samples::checkpoint("old", "a", 999_999_900_000)],
            others: Vec::new(),
            sessions: Vec::new(),
            finished: Vec::new(),
            filters: true,
            standings: BTreeMap::new(),
            searches: true,
            search_fails: false,
            asked: Vec::new(),
            session_labels: BTreeMap::new(),
            made: BTreeMap::new(),
            heartbeats: Vec::new(),
            over: Vec::new(),
            create_via_load: true,
            keeps_labels: true,
            refuse_session: None,
            refuse_load: None,
            fail_load: None,
            forgets: 0,
            slow_load: Duration::ZERO,
            paused_loads: 0,
            down: false,
            new_run_corrupted: false,
            told_id: None,
            unknown_form: 422,
            limited: None,
            keeps_ttl: true,
            logprobs: LOGPROBS.to_vec(),
            refuse_forward: None,
            forwards: Vec::new(),
        }
    }
}

fn ok(body: &Value) -> FakeReply {
    FakeReply::json(200, body.to_string())
}

fn refuse(status: u16, detail: &str) -> FakeReply {
    FakeReply::json(status, json!({"detail": detail}).to_string())
}

impl Service {
    fn answer(&mut self, request: &Request, now: Time) -> FakeReply {
        if self.down {
            return FakeReply::fail(TransportErrorKind::Connect);
        }
        // Beyond the protocol it has nothing.
        let Some(path) = request.url.split_once("/api/v1/").map(|(_, path)| path.to_owned()) else {
            return refuse(404, "Not Found");
        };
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        self.asked.push(path.split('?').next().unwrap().to_owned());
        match path.split('/').collect::<Vec<_>>().as_slice() {
            ["create_session"] if self.refuse_session.is_some() => {
                refuse(self.refuse_session.unwrap(), "refused")
            }
            ["create_session"] => {
                let id = format!("s{}", self.sessions.len());
                let label = body["user_metadata"]["retinker.restore_id"].as_str().unwrap_or_default();
                self.session_labels.insert(id.clone(), label.to_owned());
                self.sessions.push(id.clone());
                ok(&json!({"session_id": id}))
            }
            ["session_heartbeat"] => {
                let id = text("session_id");
                if self.over.contains(&id) {
                    return refuse(410, "session is over");
                }
                self.heartbeats.push(id);
                ok(&json!({}))
            }
            ["sessions", "search"] if !self.searches => refuse(404, "Not Found"),
            ["sessions", "search"] if self.search_fails => refuse(503, "overloaded"),
            ["sessions", "search"] if body["user_metadata"].as_object().is_none_or(|m| m.is_empty()) => {
                let request: SessionSearchRequest = serde_json::from_value(body).unwrap();
                let found = self.standings.iter().filter(|(id, status)| {
                    let asked = request.session_id.as_ref().is_none_or(|asked| asked == *id);
                    asked && status.is_among(request.statuses.as_deref().unwrap_or_default())
                });
                let found: Vec<_> = found.map(|(id, status)| json!({
                    "session_id": id, "created_at": "2026-01-01T00:00:00Z", "owner": "me", "project_id": "p",
                    "checkpoints_count": 0, "status": status,
                })).collect();
                ok(&json!({"sessions": found}))
            }
            ["sessions", "search"] => {
                let label = body["user_metadata"]["retinker.restore_id"].as_str().unwrap_or_default();
                // As of a server that does not know the filter, when `filters` is false.
                let labelled =
                    |id: &&String| !self.filters || self.session_labels.get(*id).is_some_and(|l| l == label);
                let active = self.sessions.iter().filter(|id| !self.finished.contains(id));
                let found: Vec<_> = active.filter(labelled).map(|id| json!({
                    "user_metadata": {"retinker.restore_id": self.session_labels.get(id)},
                    "session_id": id, "created_at": "2026-01-01T00:00:00Z", "owner": "me", "project_id": "p",
                    "checkpoints_count": 0,
                })).collect();
                ok(&json!({"sessions": found}))
            }
            ["sessions", id] => {
                let prefix = format!("{id}:train:");
                let runs = self.others.iter().map(|run| &run.training_run_id);
                let runs: Vec<_> = runs.filter(|run| run.starts_with(&prefix)).collect();
                ok(&json!({"training_run_ids": runs, "sampler_ids": []}))
            }
            ["sessions", id, "finish"] => {
                self.finished.push((*id).to_owned());
                ok(&json!({}))
            }
            ["create_model"] => {
                let identity = (text("session_id"), body["model_seq_id"].as_u64().unwrap());
                let number = self.made.len();
                let made = self.made.entry(identity).or_insert_with(|| Made {
                    id: format!("model_{number}"),
                    labels: body["user_metadata"].clone(),
                    loaded: false,
                    optimizer: false,
                    seed: body["lora_config"]["seed"].as_u64(),
                });
                ok(&json!({"request_id": format!("create/{}", made.id)}))
            }
            ["load_weights"] => self.load(&body),
            ["retrieve_future"] => self.future(&text("request_id")),
            ["get_info"] => match self.made.values().find(|made| made.id == text("model_id")) {
                Some(made) => ok(&json!({"model_id": made.id, "model_data": {}})),
                None => refuse(404, "Model not loaded"),
            },
            ["weights_info"] => ok(&json!({"base_model": "base", "is_lora": true, "lora_rank": 8})),
            ["training_runs", id] if *id == self.old.training_run_id => {
                ok(&serde_json::to_value(&self.old).unwrap())
            }
            ["training_runs", id] => match self.made.values().find(|made| made.id == *id) {
                Some(made) => {
                    let listed = self.others.iter().find(|run| run.training_run_id == *id);
                    let poisoned = listed.is_some_and(|run| run.corrupted == Some(true));
                    let corrupted = Some(poisoned || self.new_run_corrupted);
                    let mut run = serde_json::to_value(samples::run(id, corrupted)).unwrap();
                    run["user_metadata"] = if self.keeps_labels { made.labels.clone() } else { Value::Null };
                    ok(&run)
                }
                None => match self.others.iter().find(|run| run.training_run_id == *id) {
                    Some(run) => ok(&serde_json::to_value(run).unwrap()),
                    None => refuse(404, "no such run"),
                },
            },
            ["training_runs", id, "checkpoints"] => {
                let owner = format!("tinker://{id}/");
                let own: Vec<_> =
                    self.checkpoints.iter().filter(|c| c.tinker_path.starts_with(&owner)).collect();
                ok(&json!({"checkpoints": own}))
            }
            ["training_runs", id, "checkpoints", segment, name, "ttl"] if self.keeps_ttl => {
                let path = format!("tinker://{id}/{segment}/{name}");
                let found = self.checkpoints.iter_mut().find(|c| c.tinker_path == path).unwrap();
                let seconds = body["ttl_seconds"].as_u64();
                found.expires_at = seconds.map(|seconds| now.later(Duration::from_secs(seconds)));
                ok(&json!({}))
            }
            ["forward_backward"] => self.forward(&request.body),
            [list] if list.starts_with("training_runs?") && self.limited.is_some() => match self.limited {
                Some(0) | None => refuse(429, "slow down"),
                Some(seconds) => refuse(429, "slow down").header("retry-after", &seconds.to_string()),
            },
            [list] if list.starts_with("training_runs?") => {
                let number = |key: &str| -> usize {
                    let text = list.split(['?', '&']).find_map(|part| part.strip_prefix(key)).unwrap();
                    text.parse().unwrap()
                };
                let (limit, offset) = (number("limit="), number("offset="));
                let page: Vec<_> = self.others.iter().skip(offset).take(limit).collect();
                ok(&json!({"training_runs": page,
                    "cursor": {"offset": offset, "limit": limit, "total_count": self.others.len()}}))
            }
            _ => refuse(404, "Not Found"),
        }
    }

    fn load(&mut self, body: &Value) -> FakeReply {
        if let Some((status, detail)) = self.refuse_load {
            return refuse(status, detail);
        }
        let optimizer = body["optimizer"] == true;
        if let Some(model_id) = body["model_id"].as_str() {
            let made = self.made.values_mut().find(|made| made.id == model_id).unwrap();
            assert_eq!(body["seq_id"], 1, "the first form is allowed as the first request only");
            (made.loaded, made.optimizer) = (true, optimizer);
            return ok(&json!({"request_id": format!("load/{model_id}")}));
        }
        if !self.create_via_load {
            return refuse(self.unknown_form, "model_id: field required");
        }
        let session = body["session_id"].as_str().unwrap().to_owned();
        let number = body["model_seq_id"].as_u64().unwrap();
        let id = self.told_id.map_or_else(|| format!("{session}:train:{number}"), str::to_owned);
        let labels = body["user_metadata"].clone();
        self.made.entry((session, number)).or_insert(Made {
            id: id.clone(),
            labels,
            loaded: true,
            optimizer,
            seed: None,
        });
        ok(&json!({"request_id": format!("load/{id}")}))
    }

    fn forward(&mut self, body: &[u8]) -> FakeReply {
        use prost::Message;
        if let Some((status, detail)) = self.refuse_forward {
            return refuse(status, detail);
        }
        let request = retinker_wire::proto::ForwardBackwardRequest::decode(body).unwrap();
        assert!(request.forward_only, "a probe changes nothing");
        self.forwards.push((request.model_id, u64::try_from(request.seq_id).unwrap()));
        ok(&json!({"request_id": "forward/x"}))
    }

    fn future(&mut self, request_id: &str) -> FakeReply {
        if self.forgets > 0 {
            self.forgets -= 1;
            return refuse(410, "promise expired");
        }
        match request_id.split_once('/').unwrap() {
            ("create", id) => ok(&json!({"model_id": id})),
            ("forward", _) => ok(&json!({
                "loss_fn_output_type": "ArrayRecord",
                "loss_fn_outputs": [{"logprobs": {"data": self.logprobs, "dtype": "float32"}}],
            })),
            ("load", _) if self.paused_loads > 0 => {
                self.paused_loads -= 1;
                ok(&json!({"type": "try_again", "request_id": request_id, "queue_state": "paused_capacity"}))
                    .after(Duration::from_secs(30))
            }
            (_, _) if self.fail_load.is_some() => {
                ok(&json!({"error": self.fail_load.unwrap(), "category": "user"}))
            }
            _ => {
                let told = json!({"path": "tinker://old/weights/a", "model_id": self.told_id});
                ok(&told).after(self.slow_load)
            }
        }
    }
}

/// Counts the instructions that touch the world; at the chosen one the program stops for ever.
#[derive(Debug, Default)]
pub(crate) struct Crash {
    count: AtomicU64,
    at: AtomicU64,
    signal: Mutex<Option<mpsc::UnboundedSender<()>>>,
    /// Whether the journal cannot be read.
    pub(crate) unreadable: AtomicBool,
    /// Whether no document can be written.
    pub(crate) unwritable: AtomicBool,
}

impl Crash {
    /// The n-th instruction from now on (1 is the next) is not done, or done without an answer, in turn.
    pub(crate) fn arm(&self, n: u64) -> mpsc::UnboundedReceiver<()> {
        let (sender, receiver) = mpsc::unbounded();
        *self.signal.lock().unwrap() = Some(sender);
        self.count.store(0, Ordering::Relaxed);
        self.at.store(n, Ordering::Relaxed);
        receiver
    }

    pub(crate) fn disarm(&self) {
        self.at.store(0, Ordering::Relaxed);
    }

    /// Does something between two points at which the program may stop.
    async fn around<T>(&self, act: impl Future<Output = T>) -> T {
        self.point().await;
        let answer = act.await;
        self.point().await;
        answer
    }

    async fn point(&self) {
        // Whatever else goes on may come in between.
        yield_now().await;
        if self.count.fetch_add(1, Ordering::Relaxed) + 1 == self.at.load(Ordering::Relaxed) {
            let _ = self.signal.lock().unwrap().as_ref().unwrap().unbounded_send(());
            std::future::pending::<()>().await;
        }
    }
}

#[derive(Debug)]
struct CrashingTransport(FakeTransport, Arc<Crash>);

impl Transport for CrashingTransport {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let (transport, crash) = (self.0.clone(), Arc::clone(&self.1));
        Box::pin(async move { crash.around(async { transport.send(request).await }).await })
    }
}

#[derive(Debug)]
struct CrashingStore(MemoryStore, Arc<Crash>);

macro_rules! around {
    ($self:ident, |$store:ident| $call:expr) => {{
        let ($store, crash) = ($self.0.clone(), Arc::clone(&$self.1));
        Box::pin(async move { crash.around(async { $call.await }).await })
    }};
}

impl Store for CrashingStore {
    fn bind(&self, service: &str) -> BoxFuture<'static, Result<(), StoreError>> {
        self.0.bind(service)
    }
    fn begin(&self, record: RestoreRecord) -> BoxFuture<'static, Result<Begun, StoreError>> {
        around!(self, |store| store.begin(record))
    }
    fn acquire_lease(
        &self,
        id: &str,
        owner: &str,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Option<Lease>, StoreError>> {
        let (id, owner) = (id.to_owned(), owner.to_owned());
        around!(self, |store| store.acquire_lease(&id, &owner, ttl))
    }
    fn release(&self, lease: &Lease) -> BoxFuture<'static, Result<(), StoreError>> {
        let lease = lease.clone();
        around!(self, |store| store.release(&lease))
    }
    fn append(&self, lease: &Lease, record: RestoreRecord) -> BoxFuture<'static, Result<(), StoreError>> {
        let lease = lease.clone();
        around!(self, |store| store.append(&lease, record))
    }
    fn get(&self, id: &str) -> BoxFuture<'static, Result<Option<RestoreRecord>, StoreError>> {
        self.0.get(id)
    }
    fn list(&self) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        if self.1.unreadable.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(StoreError::Unavailable("it is away".into()))));
        }
        self.0.list()
    }
    fn by_old_run(&self, id: &str) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        self.0.by_old_run(id)
    }
    fn by_new_run(&self, id: &str) -> BoxFuture<'static, Result<Option<RestoreRecord>, StoreError>> {
        self.0.by_new_run(id)
    }
    fn unfinished(&self) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        self.0.unfinished()
    }
    fn revision(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        self.0.revision()
    }
    fn put(&self, document: Document) -> BoxFuture<'static, Result<Put, StoreError>> {
        if self.1.unwritable.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(StoreError::Unavailable("it is full".into()))));
        }
        around!(self, |store| store.put(document))
    }
    fn document(&self, kind: &str, key: &str) -> BoxFuture<'static, Result<Option<Document>, StoreError>> {
        self.0.document(kind, key)
    }
    fn documents(&self, kind: &str) -> BoxFuture<'static, Result<Vec<Document>, StoreError>> {
        Store::documents(&self.0, kind)
    }
}

/// A service, a journal and a clock.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) runtime: ManualRuntime,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) api: Api,
    pub(crate) crash: Arc<Crash>,
    service: Arc<Mutex<Service>>,
}

impl World {
    pub(crate) fn new(service: Service) -> Self {
        let runtime = ManualRuntime::new().with_chance();
        let service = Arc::new(Mutex::new(service));
        let answering = Arc::clone(&service);
        let clock = runtime.clone();
        let fake = FakeTransport::new(&runtime, move |request| {
            answering.lock().unwrap().answer(request, crate::runtime::Runtime::now(&clock))
        });
        let crash = Arc::new(Crash::default());
        let transport = Arc::new(CrashingTransport(fake, Arc::clone(&crash)));
        let config = ApiConfig { base_url: "http://service".into(), ..ApiConfig::default() };
        let api = Api::new(config, transport, Arc::new(runtime.clone())).unwrap();
        let memory = MemoryStore::new(Arc::new(runtime.clone()));
        let store = Arc::new(CrashingStore(memory, Arc::clone(&crash)));
        Self { runtime, store, api, crash, service }
    }

    pub(crate) fn service(&self) -> MutexGuard<'_, Service> {
        self.service.lock().unwrap()
    }

    pub(crate) fn executor(&self) -> super::executor::Executor {
        super::executor::Executor::new(
            self.api.clone(),
            Arc::clone(&self.store),
            Arc::new(self.runtime.clone()),
        )
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        crate::runtime::Runtime::sleep(&self.runtime, duration).await;
    }

    pub(crate) fn now(&self) -> Time {
        crate::runtime::Runtime::now(&self.runtime)
    }
}

async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
