//! The services that one host stands before. Each has a journal, an index, a monitor and routes of its own: nothing of
//! one is in reach of a request that is about another.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use http::{HeaderMap, StatusCode};
use retinker::host::api::{CONNECTION_HEADER, ConnectionInfo, Connections};
use retinker::recovery::drives::Drives;
use tokio::sync::{OnceCell, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tower::ServiceExt;

use crate::asker::asker;
use crate::config::{Connection, StartError};
use crate::downloads::Downloads;
use crate::going_back::RedoLogs;
use crate::host::{Parts, Shared};
use crate::keeper::Keeper;
use crate::problem::Problem;
use crate::{api, forward, trial, watch as reading};

/// All connections of a host.
pub(crate) struct Registry {
    entries: Vec<Entry>,
    common: Common,
}

/// What all connections of a host share.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) downloads: Arc<Downloads>,
    pub(crate) redo_logs: RedoLogs,
    pub(crate) stopping: watch::Receiver<bool>,
}

struct Entry {
    connection: Connection,
    opened: OnceCell<Opened>,
}

/// A connection that is looked after.
struct Opened {
    shared: Arc<Shared>,
    routes: Router,
    tasks: Mutex<Option<Tasks>>,
}

/// What is at work for a connection.
struct Tasks {
    background: JoinSet<()>,
    drives: Drives,
    /// Tells what happens in the journal, until the other end is dropped.
    telling: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.entries.iter().map(|entry| &entry.connection.name);
        f.debug_struct("Registry").field("names", &names.collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl Registry {
    /// Opens the first connection, and those whose runs are restored by themselves; the others wait until somebody asks.
    pub(crate) async fn start(connections: Vec<Connection>, common: Common) -> Result<Self, StartError> {
        let entries = connections.into_iter().map(|connection| Entry { connection, opened: OnceCell::new() });
        let registry = Self { entries: entries.collect(), common };
        for (at, entry) in registry.entries.iter().enumerate() {
            if at == 0 || entry.connection.watching.policy.enabled {
                registry.open(entry).await.map_err(|reason| match at {
                    0 => reason,
                    _ => StartError::Connection {
                        name: entry.connection.name.clone(),
                        reason: Box::new(reason),
                    },
                })?;
            }
        }
        Ok(registry)
    }

    /// Two that ask at once open it once; what failed is tried again by whoever asks next.
    async fn open<'a>(&self, entry: &'a Entry) -> Result<&'a Opened, StartError> {
        entry.opened.get_or_try_init(|| Opened::new(&entry.connection, self.common.clone())).await
    }

    /// The connection that a request is about.
    async fn asked(&self, headers: &HeaderMap) -> Result<&Opened, Problem> {
        let mut named = headers.get_all(CONNECTION_HEADER).iter();
        let entry = match (named.next(), named.next()) {
            (None, _) => self.entries.first(),
            (Some(name), None) => {
                self.entries.iter().find(|entry| entry.connection.name.as_bytes() == name.as_bytes())
            }
            (Some(_), Some(_)) => {
                return Err(Problem::bad_request(format!("The header {CONNECTION_HEADER} came twice.")));
            }
        };
        let entry = entry.ok_or_else(|| {
            let names: Vec<_> = self.entries.iter().map(|entry| entry.connection.name.as_str()).collect();
            Problem::new(
                StatusCode::NOT_FOUND,
                "no_such_connection",
                format!("This retinker has no connection of that name. It has: {}.", names.join(", ")),
                "Choose one of them, or start retinker with --connection NAME=URL.",
            )
        })?;
        self.open(entry).await.map_err(|reason| {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "connection_failed",
                format!("Connection {} cannot be used: {reason}.", entry.connection.name),
                "Put that right; it is tried again by itself.",
            )
        })
    }

    /// All of them, as far as is known without asking anything.
    pub(crate) fn told(&self) -> Connections {
        Connections { connections: self.entries.iter().map(Entry::told).collect() }
    }

    /// Ends what is at work for all of them: no new restores, and this long for those under way. Gives what is left to wait
    /// for.
    pub(crate) async fn stop(&self, grace: Duration) -> Vec<Weak<Shared>> {
        let opened: Vec<_> = self.entries.iter().filter_map(|entry| entry.opened.get()).collect();
        futures_util::future::join_all(opened.iter().map(|opened| opened.stop(grace))).await;
        opened.iter().map(|opened| Arc::downgrade(&opened.shared)).collect()
    }
}

/// Answers every request that is about a service.
pub(crate) async fn answer(registry: &Registry, request: Request) -> Result<Response, Problem> {
    let routes = registry.asked(request.headers()).await?.routes.clone();
    routes.oneshot(request).await.map_err(|never| match never {})
}

/// `GET /retinker/v1/connections`: about no service, so it is answered whatever connection is named.
pub(crate) async fn list(State(registry): State<Arc<Registry>>) -> axum::Json<Connections> {
    axum::Json(registry.told())
}

impl Entry {
    fn told(&self) -> ConnectionInfo {
        let Connection { name, service, key_from, .. } = &self.connection;
        let (as_of, problem) = self.opened.get().map_or((None, None), |opened| {
            let index = opened.shared.index();
            (index.as_of(), index.problem().cloned())
        });
        ConnectionInfo {
            name: name.clone(),
            title: service.name.clone(),
            kind: service.kind,
            base_url: service.base_url.clone(),
            has_key: service.api_key.is_some(),
            key_from: key_from.clone(),
            asked: self.opened.get().is_some(),
            as_of,
            problem,
        }
    }
}

impl Opened {
    async fn new(connection: &Connection, common: Common) -> Result<Self, StartError> {
        let Connection { service, key_from, journal, watching, demo, .. } = connection;
        // The executor tells of its progress before there is anything to be told.
        let told: Arc<OnceLock<Weak<Shared>>> = Arc::default();
        let progress = {
            let told = Arc::clone(&told);
            move |record: &_| {
                if let Some(shared) = told.get().and_then(Weak::upgrade) {
                    shared.restore_changed(record);
                }
            }
        };
        let (policy, sink) = (watching.policy.clone(), Arc::clone(&watching.sink));
        let by = asker("the console");
        let keeper = Keeper::open(&by, service, journal.clone(), policy, sink, progress).await?;
        let ownership = keeper.ownership();
        let teller = watching.told.as_ref().map(|sink| keeper.teller(Arc::clone(sink)));
        let shared = Arc::new(Shared::new(Parts {
            service: service.clone(),
            key_from: key_from.clone(),
            keeper,
            metrics: watching.metrics.clone(),
            demo: demo.clone(),
            common,
        }));
        let _ = told.set(Arc::downgrade(&shared));
        shared.follow_journal().await.map_err(StartError::Journal)?;
        let mut background = JoinSet::new();
        background.spawn(reading::run(Arc::clone(&shared)));
        background.spawn(reading::care(Arc::clone(&shared)));
        background.spawn(reading::demo(Arc::clone(&shared)));
        background.spawn(trial::tidy(Arc::clone(&shared)));
        background.spawn(shared.drives.clone().resume());
        background.spawn(ownership.run());
        let telling = teller.map(|mut teller| {
            let (over, ended) = oneshot::channel::<()>();
            let ended = async {
                let _ = ended.await;
            };
            (over, tokio::spawn(async move { teller.run_until(ended).await }))
        });
        let tasks = Tasks { background, drives: shared.drives.clone(), telling };
        Ok(Self { routes: routes(&shared), shared, tasks: Mutex::new(Some(tasks)) })
    }

    async fn stop(&self, grace: Duration) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.shared.going.stop();
        let _ = tokio::time::timeout(grace, self.shared.monitor.drain()).await;
        let _ = tokio::time::timeout(grace, self.shared.trial.end()).await;
        let Some(Tasks { mut background, drives, telling }) = tasks else { return };
        drives.stop();
        background.shutdown().await;
        if let Some((over, telling)) = telling {
            drop(over);
            let _ = tokio::time::timeout(grace, telling).await;
        }
    }
}

fn routes(shared: &Arc<Shared>) -> Router {
    let unknown = || async {
        Problem::new(StatusCode::NOT_FOUND, "no_such_call", "The host API has no such call.", "")
    };
    Router::new()
        .merge(api::routes())
        .route("/api/{*rest}", any(forward::forward))
        .fallback(unknown)
        .with_state(Arc::clone(shared))
}
