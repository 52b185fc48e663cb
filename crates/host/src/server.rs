//! Starts and stops a host.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{Method, StatusCode};
use retinker::client::Secret;
use retinker::recovery::drives::Drives;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::assets::Assets;
use crate::config::{HostConfig, StartError, Watching};
use crate::guard::{self, Guard};
use crate::host::{Parts, Shared};
use crate::keeper::Keeper;
use crate::problem::Problem;
use crate::{api, forward, watch as reading};

/// How long requests that are under way may take when the host stops.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Starts hosts.
#[derive(Debug)]
pub struct Host;

/// A host that runs until [`stop`](Self::stop) is called or it is dropped.
pub struct RunningHost {
    address: SocketAddr,
    token: Secret,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    background: JoinSet<()>,
    drives: Drives,
    /// Tells what happens in the journal, until the other end is dropped.
    telling: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    shared: Weak<Shared>,
}

impl fmt::Debug for RunningHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningHost").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Host {
    /// Starts a host. It answers when this returns; whether the service does is told by `/retinker/v1/status`.
    ///
    /// # Errors
    /// See [`StartError`]: the port is taken, the journal cannot be used, the address or key makes no sense.
    pub async fn start(config: HostConfig) -> Result<RunningHost, StartError> {
        let HostConfig { listen, service, journal, watching, demo, token } = config;
        if !listen.ip().is_loopback() {
            return Err(StartError::NotLoopback(listen));
        }
        let token = Secret::new(match token {
            Some(token) if is_token(&token) => token,
            Some(_) => return Err(StartError::BadToken),
            None => new_token()?,
        });
        let listener = TcpListener::bind(listen).await.map_err(|reason| match reason.kind() {
            std::io::ErrorKind::AddrInUse => StartError::PortInUse(listen),
            _ => StartError::Listen { address: listen, reason },
        })?;
        let address =
            listener.local_addr().map_err(|reason| StartError::Listen { address: listen, reason })?;
        let (stop, stopping) = watch::channel(false);
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
        let Watching { policy, sink, told: listeners, metrics } = watching;
        let keeper = Keeper::open(&service, journal, policy, sink, progress).await?;
        let (ownership, teller) = (keeper.ownership(), listeners.map(|sink| keeper.teller(sink)));
        let shared =
            Arc::new(Shared::new(Parts { service, keeper, metrics, demo, stopping: stopping.clone() }));
        let _ = told.set(Arc::downgrade(&shared));
        shared.follow_journal().await.map_err(StartError::Journal)?;
        let weak = Arc::downgrade(&shared);
        let app = app(&shared, address, token.clone());
        let server = tokio::spawn(serve(listener, app, stopping));
        let mut background = JoinSet::new();
        background.spawn(reading::run(Arc::clone(&shared)));
        background.spawn(reading::care(Arc::clone(&shared)));
        background.spawn(reading::demo(Arc::clone(&shared)));
        background.spawn(shared.drives.clone().resume());
        background.spawn(ownership.run());
        let telling = teller.map(|mut teller| {
            let (over, ended) = oneshot::channel::<()>();
            let ended = async {
                let _ = ended.await;
            };
            (over, tokio::spawn(async move { teller.run_until(ended).await }))
        });
        let drives = shared.drives.clone();
        Ok(RunningHost { address, token, stop, server, background, drives, telling, shared: weak })
    }
}

impl RunningHost {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The console's address with the token in its fragment, which browsers send to nobody. Secret: for the
    /// terminal only.
    pub fn console_url(&self) -> String {
        format!("http://{}/#token={}", self.address, self.token.expose())
    }

    /// Stops: no new requests and no new restores, a few seconds for those under way. What takes longer is cut off where the
    /// journal says it is. What happened is told.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        if let Some(monitor) = self.shared.upgrade().map(|shared| shared.monitor.clone()) {
            let _ = tokio::time::timeout(STOP_GRACE, monitor.drain()).await;
        }
        self.drives.stop();
        self.background.shutdown().await;
        if let Some((over, telling)) = self.telling.take() {
            drop(over);
            let _ = tokio::time::timeout(STOP_GRACE, telling).await;
        }
        if tokio::time::timeout(STOP_GRACE, &mut self.server).await.is_err() {
            self.server.abort();
        }
        // With the last task that holds it, the journal is closed: its directory is free when this returns.
        let closed = async {
            while self.shared.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = tokio::time::timeout(STOP_GRACE, closed).await;
    }
}

impl Drop for RunningHost {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, app: Router, mut stopping: watch::Receiver<bool>) {
    let stopped = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stopped).await {
        tracing::error!(%error, "the console's host has stopped");
    }
}

fn app(shared: &Arc<Shared>, address: SocketAddr, token: Secret) -> Router {
    let assets = Arc::new(Assets::embedded());
    let guard = Arc::new(Guard::new(address, token, &assets));
    let unknown = || async {
        Problem::new(StatusCode::NOT_FOUND, "no_such_call", "The host API has no such call.", "")
    };
    Router::new()
        .merge(api::routes())
        .route("/retinker/{*rest}", any(unknown))
        .route("/api/{*rest}", any(forward::forward))
        .with_state(Arc::clone(shared))
        .fallback_service(any(file).with_state(assets))
        .layer(axum::middleware::from_fn_with_state(guard, guard::layer))
}

async fn file(State(assets): State<Arc<Assets>>, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no_such_call", "Files can only be read.", "")
            .into_response();
    }
    assets.answer(request.uri().path(), request.headers()).unwrap_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "no_such_file",
            "The console has no such file.",
            "Load the page again.",
        )
        .into_response()
    })
}

fn is_token(token: &str) -> bool {
    token.len() >= 16 && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// 128 random bits, as hexadecimal digits.
fn new_token() -> Result<String, StartError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StartError::NoRandom(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
