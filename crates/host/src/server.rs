//! Starts and stops a host.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use http::{HeaderMap, Method, StatusCode};
use retinker::client::Secret;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::assets::Assets;
use crate::config::{HostConfig, StartError};
use crate::connections::{self, Common, Registry};
use crate::downloads::{self, Downloads};
use crate::guard::{self, Guard};
use crate::problem::Problem;

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
    /// `None` once it is stopped.
    registry: Option<Arc<Registry>>,
}

impl fmt::Debug for RunningHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningHost").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Host {
    /// Starts a host. It answers when this returns; whether its services do is told by `/retinker/v1/status`.
    ///
    /// # Errors
    /// See [`StartError`]: the port is taken; a connection's journal cannot be used, or its address or key makes no sense. Of
    /// a connection that is opened later that is told to whoever asks for it.
    pub async fn start(config: HostConfig) -> Result<RunningHost, StartError> {
        config.check()?;
        let HostConfig { listen, connections, redo_logs, token } = config;
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
        let downloads = Arc::<Downloads>::default();
        let common = Common { downloads: Arc::clone(&downloads), redo_logs, stopping: stopping.clone() };
        let registry = Arc::new(Registry::start(connections, common).await?);
        let app = app(&registry, downloads, address, token.clone());
        let server = tokio::spawn(serve(listener, app, stopping));
        Ok(RunningHost { address, token, stop, server, registry: Some(registry) })
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
        let left = match self.registry.take() {
            Some(registry) => registry.stop(STOP_GRACE).await,
            None => Vec::new(),
        };
        if tokio::time::timeout(STOP_GRACE, &mut self.server).await.is_err() {
            self.server.abort();
        }
        // With the last task that holds it, a journal is closed: its directory is free when this returns.
        let closed = async {
            while left.iter().any(|shared| shared.strong_count() > 0) {
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

fn app(registry: &Arc<Registry>, downloads: Arc<Downloads>, address: SocketAddr, token: Secret) -> Router {
    let assets = Arc::new(Assets::embedded());
    let guard = Arc::new(Guard::new(address, token, &assets));
    Router::new()
        .route("/retinker/v1/connections", get(connections::list))
        .with_state(Arc::clone(registry))
        .route("/download/{secret}", get(downloads::answer))
        .with_state(downloads)
        // No pattern of a path: what it matched would be told to the handlers behind it as if it were theirs.
        .fallback(other)
        .with_state((Arc::clone(registry), assets))
        .layer(axum::middleware::from_fn_with_state(guard, guard::layer))
}

async fn other(
    State((registry, assets)): State<(Arc<Registry>, Arc<Assets>)>,
    request: Request,
) -> Result<Response, Problem> {
    match guard::is_guarded(request.uri().path()) {
        true => connections::answer(&registry, request).await,
        false => file(&assets, request.method(), request.uri().path(), request.headers()),
    }
}

fn file(assets: &Assets, method: &Method, path: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "no_such_call",
            "Files can only be read.",
            "",
        ));
    }
    assets.answer(path, headers).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "no_such_file",
            "The console has no such file.",
            "Load the page again.",
        )
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
