//! The executor's seams, open: whatever it asks for lies on a desk until somebody answers it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use prost::Message;
use retinker::recovery::executor::LEASE_TTL;
use retinker::recovery::journal::{Begun, Document, Lease, Put, Store, StoreError};
use retinker::recovery::restore::RestoreRecord;
use retinker::runtime::Runtime;
use retinker::transport::{Request, Response, Transport, TransportError, TransportErrorKind};
use retinker::wire::proto::ForwardBackwardRequest;
use retinker::wire::time::Time;
use serde_json::Value;

use crate::digest;
use crate::service::{Call, Rules};

/// What a driver has asked for.
#[derive(Debug, Clone)]
pub enum Ask {
    /// The restores of this run.
    ByOldRun(String),
    /// One restore.
    Get(String),
    /// To write a new one.
    Begin(Box<RestoreRecord>),
    /// The lease of a restore, for an owner.
    Acquire(String, String),
    /// To give one back.
    Release(Lease),
    /// To replace a record.
    Append(Lease, Box<RestoreRecord>),
    /// Something of the service.
    Call(Call),
    /// To be woken after this long.
    Pause(Duration),
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(_) => f.write_str("begin"),
            Self::Append(lease, record) => {
                let (fence, number) = (lease.fence, record.probe_seq_id);
                write!(f, "append {:?} (probe: {number:?}) under fence {fence}", record.state)
            }
            other => write!(f, "{other:?}"),
        }
    }
}

impl Ask {
    /// Whether it changes anything, so that it matters when it arrives after all.
    pub fn changes(&self) -> bool {
        !matches!(self, Self::ByOldRun(_) | Self::Get(_) | Self::Call(Call::Search(_)) | Self::Pause(_))
    }

    /// Tells it from others.
    pub fn digest(&self) -> u64 {
        match self {
            Self::ByOldRun(run_id) => digest::of((0, run_id)),
            Self::Get(id) => digest::of((1, id)),
            Self::Begin(record) => digest::of((2, digest::record(record))),
            Self::Acquire(id, owner) => digest::of((3, id, owner)),
            Self::Release(lease) => digest::of((4, digest::lease(lease))),
            Self::Append(lease, record) => digest::of((5, digest::lease(lease), digest::record(record))),
            Self::Call(call) => digest::of((6, call)),
            Self::Pause(duration) => digest::of((7, duration)),
        }
    }
}

/// What it is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Ask::ByOldRun`].
    Records(Vec<RestoreRecord>),
    /// To [`Ask::Get`].
    Record(Option<Box<RestoreRecord>>),
    /// To [`Ask::Begin`].
    Begun(Box<Result<Begun, StoreError>>),
    /// To [`Ask::Acquire`].
    Lease(Result<Option<Lease>, StoreError>),
    /// To [`Ask::Append`] and [`Ask::Release`].
    Done(Result<(), StoreError>),
    /// To [`Ask::Call`]: a status and a body.
    Reply(u16, String),
    /// Also to [`Ask::Call`]: the connection broke.
    Lost,
    /// To [`Ask::Pause`].
    Elapsed,
}

impl Answer {
    /// Tells it from others.
    pub fn digest(&self) -> u64 {
        match self {
            Self::Records(found) => digest::of((0, found.iter().map(digest::record).collect::<Vec<_>>())),
            Self::Record(found) => digest::of((1, found.as_deref().map(digest::record))),
            Self::Begun(begun) => match &**begun {
                Ok(Begun::New(record)) => digest::of((2, digest::record(record))),
                Ok(Begun::Existing(record)) => digest::of((3, digest::record(record))),
                Err(error) => digest::of((4, format!("{error:?}"))),
            },
            Self::Lease(Ok(lease)) => digest::of((5, lease.as_ref().map(digest::lease))),
            Self::Reply(status, body) => digest::of((6, status, body)),
            other => digest::of((7, format!("{other:?}"))),
        }
    }
}

/// Who within a driver asks. Each has at most one thing asked for at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Who carries the restore on.
    Work,
    /// Who renews the lease meanwhile.
    Keep,
}

#[derive(Debug, Default)]
struct Slip {
    ask: Option<Ask>,
    /// Which of the lane's asks it is.
    number: u64,
    answer: Option<Answer>,
}

#[derive(Debug, Default)]
struct Papers {
    work: Slip,
    keep: Slip,
    owner: String,
    drawn: u64,
}

impl Papers {
    fn slip(&mut self, lane: Lane) -> &mut Slip {
        match lane {
            Lane::Work => &mut self.work,
            Lane::Keep => &mut self.keep,
        }
    }

    /// Only who renews a lease asks for one that it has had before, and pauses for a third of it.
    fn lane_of(&mut self, ask: &Ask) -> Lane {
        match ask {
            Ask::Pause(duration) if *duration == LEASE_TTL / 3 => Lane::Keep,
            Ask::Acquire(_, owner) if *owner == self.owner => Lane::Keep,
            Ask::Acquire(_, owner) => {
                self.owner.clone_from(owner);
                Lane::Work
            }
            _ => Lane::Work,
        }
    }
}

/// Where a driver's requests lie. It is the driver's journal, service, clock and chance at once.
#[derive(Debug, Clone)]
pub struct Desk {
    papers: Arc<Mutex<Papers>>,
    /// What makes this driver's chance another than others'.
    seed: u64,
    rules: Rules,
    /// As the service lists it.
    old_run: Arc<Value>,
    checkpoints: Arc<Value>,
}

struct Waiting {
    papers: Arc<Mutex<Papers>>,
    lane: Lane,
    number: u64,
}

impl Future for Waiting {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
        let mut papers = self.papers.lock().unwrap();
        match papers.slip(self.lane).answer.take() {
            Some(answer) => {
                papers.slip(self.lane).ask = None;
                Poll::Ready(answer)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut papers = self.papers.lock().unwrap();
        let slip = papers.slip(self.lane);
        if slip.number == self.number {
            slip.ask = None;
        }
    }
}

impl Desk {
    /// An empty one. What the service says of the run that was lost, and of its checkpoints, is always the same.
    pub fn new(seed: u64, rules: Rules, old_run: Value, checkpoints: Value) -> Self {
        Self {
            papers: Arc::default(),
            seed,
            rules,
            old_run: Arc::new(old_run),
            checkpoints: Arc::new(checkpoints),
        }
    }

    fn papers(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().unwrap()
    }

    /// What is asked for now.
    pub fn asked(&self) -> Vec<(Lane, Ask)> {
        let papers = self.papers();
        let slips = [(Lane::Work, &papers.work.ask), (Lane::Keep, &papers.keep.ask)];
        slips.into_iter().filter_map(|(lane, ask)| Some((lane, ask.clone()?))).collect()
    }

    /// Answers what this lane asks for; whoever asked has to be polled then.
    pub fn answer(&self, lane: Lane, answer: Answer) {
        self.papers().slip(lane).answer = Some(answer);
    }

    fn ask(&self, ask: Ask) -> Waiting {
        let mut papers = self.papers();
        let lane = papers.lane_of(&ask);
        let slip = papers.slip(lane);
        assert!(slip.ask.is_none(), "{lane:?} asks for {ask:?} beside {:?}", slip.ask);
        slip.ask = Some(ask);
        slip.number += 1;
        let number = slip.number;
        Waiting { papers: Arc::clone(&self.papers), lane, number }
    }

    /// What nobody's doings change is answered at once.
    fn known(&self, request: &Request, path: &str) -> Option<(u16, String)> {
        let ok = |body: Value| Some((200, body.to_string()));
        let text = |key: &str| {
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            body[key].as_str().unwrap_or_default().to_owned()
        };
        match path.split('/').collect::<Vec<_>>().as_slice() {
            ["training_runs", id] if self.old_run["training_run_id"] == *id => ok((*self.old_run).clone()),
            ["training_runs", id] => {
                let mut run = (*self.old_run).clone();
                run["training_run_id"] = (*id).into();
                run["corrupted"] = false.into();
                ok(run)
            }
            ["training_runs", _, "checkpoints"] => ok((*self.checkpoints).clone()),
            [list] if list.starts_with("training_runs?") => ok(
                serde_json::json!({"training_runs": [], "cursor": {"offset": 0, "limit": 100, "total_count": 0}}),
            ),
            ["get_info"] => ok(serde_json::json!({"model_id": text("model_id"), "model_data": {}})),
            ["weights_info"] => {
                ok(serde_json::json!({"base_model": "base", "is_lora": true, "lora_rank": 8}))
            }
            ["retrieve_future"] => ok(crate::service::result_of(&text("request_id"))),
            _ => None,
        }
    }
}

fn call_of(request: &Request, path: &str) -> Call {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let restore = text(&body["user_metadata"]["retinker.restore_id"]);
    let identity = || (text(&body["session_id"]), body["model_seq_id"].as_u64().unwrap());
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["create_session"] => Call::CreateSession(restore),
        ["sessions", "search"] => Call::Search(restore),
        ["create_model"] => Call::CreateModel(identity(), restore),
        ["load_weights"] => match body["model_id"].as_str() {
            Some(run) => Call::LoadInto(run.to_owned(), body["seq_id"].as_u64().unwrap()),
            None => Call::Load(identity(), restore),
        },
        ["forward_backward"] => {
            let request = ForwardBackwardRequest::decode(request.body.clone()).unwrap();
            Call::Forward(request.model_id, u64::try_from(request.seq_id).unwrap())
        }
        ["sessions", id, "finish"] => Call::Finish((*id).to_owned()),
        _ => panic!("the model does not know {} {path}", request.method.as_str()),
    }
}

impl Transport for Desk {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let path = request.url.split_once("/api/v1/").unwrap().1.to_owned();
        let response = |status, body: String| Response {
            status,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: Box::pin(futures_util::stream::iter([Ok(Bytes::from(body))])),
        };
        if let Some((status, body)) = self.known(&request, &path) {
            return Box::pin(async move { Ok(response(status, body)) });
        }
        let call = call_of(&request, &path);
        let unknown = match call {
            Call::Load(..) if !self.rules.one_call => {
                Some((422, r#"{"detail": "model_id: field required"}"#))
            }
            Call::Search(_) if !self.rules.search => Some((404, r#"{"detail": "Not Found"}"#)),
            _ => None,
        };
        if let Some((status, body)) = unknown {
            return Box::pin(async move { Ok(response(status, body.to_owned())) });
        }
        let answer = self.ask(Ask::Call(call));
        Box::pin(async move {
            match answer.await {
                Answer::Reply(status, body) => Ok(response(status, body)),
                Answer::Lost => Err(TransportError::new(TransportErrorKind::Request, "lost")),
                other => panic!("{other:?} is no answer of a service"),
            }
        })
    }
}

impl Runtime for Desk {
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        // The limits of requests: that one gets lost stands for them.
        if duration > LEASE_TTL {
            return Box::pin(std::future::pending());
        }
        let answer = self.ask(Ask::Pause(duration));
        Box::pin(async move { drop(answer.await) })
    }

    fn now(&self) -> Time {
        Time::from_millis(2_000)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn random(&self) -> u64 {
        let mut papers = self.papers();
        papers.drawn += 1;
        digest::of((self.seed, papers.drawn))
    }

    fn spawn(&self, _: BoxFuture<'static, ()>) {
        panic!("the model knows no tasks in the background")
    }
}

macro_rules! asked {
    ($self:ident, $ask:expr, $answer:pat => $value:expr) => {{
        let answer = $self.ask($ask);
        Box::pin(async move {
            match answer.await {
                $answer => $value,
                other => panic!("{other:?} is no answer to this"),
            }
        })
    }};
}

impl Store for Desk {
    fn begin(&self, record: RestoreRecord) -> BoxFuture<'static, Result<Begun, StoreError>> {
        asked!(self, Ask::Begin(Box::new(record)), Answer::Begun(begun) => *begun)
    }
    fn acquire_lease(
        &self,
        restore_id: &str,
        owner: &str,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Option<Lease>, StoreError>> {
        assert_eq!(ttl, LEASE_TTL);
        asked!(self, Ask::Acquire(restore_id.to_owned(), owner.to_owned()), Answer::Lease(lease) => lease)
    }
    fn release(&self, lease: &Lease) -> BoxFuture<'static, Result<(), StoreError>> {
        asked!(self, Ask::Release(lease.clone()), Answer::Done(done) => done)
    }
    fn append(&self, lease: &Lease, record: RestoreRecord) -> BoxFuture<'static, Result<(), StoreError>> {
        asked!(self, Ask::Append(lease.clone(), Box::new(record)), Answer::Done(done) => done)
    }
    fn get(&self, restore_id: &str) -> BoxFuture<'static, Result<Option<RestoreRecord>, StoreError>> {
        asked!(self, Ask::Get(restore_id.to_owned()), Answer::Record(found) => Ok(found.map(|found| *found)))
    }
    fn by_old_run(&self, run_id: &str) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        asked!(self, Ask::ByOldRun(run_id.to_owned()), Answer::Records(found) => Ok(found))
    }
    fn by_new_run(&self, _: &str) -> BoxFuture<'static, Result<Option<RestoreRecord>, StoreError>> {
        // It is asked for the old run, which no restore made.
        Box::pin(std::future::ready(Ok(None)))
    }

    fn bind(&self, _: &str) -> BoxFuture<'static, Result<(), StoreError>> {
        unused()
    }
    fn list(&self) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        unused()
    }
    fn unfinished(&self) -> BoxFuture<'static, Result<Vec<RestoreRecord>, StoreError>> {
        unused()
    }
    fn revision(&self) -> BoxFuture<'static, Result<u64, StoreError>> {
        unused()
    }
    fn put(&self, _: Document) -> BoxFuture<'static, Result<Put, StoreError>> {
        unused()
    }
    fn document(&self, _: &str, _: &str) -> BoxFuture<'static, Result<Option<Document>, StoreError>> {
        // Whether somebody cancels. Nobody does here: it adds no order of events that a lost lease does not have.
        Box::pin(std::future::pending())
    }
    fn documents(&self, _: &str) -> BoxFuture<'static, Result<Vec<Document>, StoreError>> {
        unused()
    }
}

fn unused<T>() -> BoxFuture<'static, Result<T, StoreError>> {
    panic!("no executor asks the journal for this")
}
