//! What a host is started with, and why it may not start.

use std::net::SocketAddr;
use std::sync::Arc;

use retinker::client::Secret;
use retinker::host::api::{DemoProgress, ServiceKind, is_connection_name};
use retinker::recovery::events::{EventSink, Traced};
use retinker::recovery::policy::Policy;
use retinker_store::Location;
use tokio::sync::{Notify, watch};

use crate::going_back::RedoLogs;
use crate::hooks::Metrics;

/// The service behind a host.
#[derive(Debug, Clone)]
pub struct ServiceTarget {
    /// Its name in the console.
    pub name: String,
    /// What kind.
    pub kind: ServiceKind,
    /// Its address, e.g. `http://127.0.0.1:8788`; shown to the console, so without credentials.
    pub base_url: String,
    /// Sent as `X-API-Key`, to this address only; never told to the console.
    pub api_key: Option<Secret>,
}

impl ServiceTarget {
    /// What a journal is bound to. The embedded service is the same one whatever its port is now. `base_url` is the
    /// address as the client has checked it.
    pub(crate) fn identity(&self, base_url: &str) -> String {
        match self.kind {
            ServiceKind::Local => EMBEDDED.to_owned(),
            ServiceKind::Remote => base_url.to_owned(),
        }
    }
}

/// Identity of the embedded service.
const EMBEDDED: &str = "local";

/// An identity for people.
pub(crate) fn told(identity: &str) -> String {
    match identity {
        EMBEDDED => "the embedded service".to_owned(),
        base_url => format!("the service at {base_url}"),
    }
}

/// What a host is started with.
#[derive(Debug)]
pub struct HostConfig {
    /// Where to listen: a loopback address. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// The services, at least one. The first is the one that is meant when none is named. Nothing adds to them later: a
    /// page that could name an address could have a key sent there.
    pub connections: Vec<Connection>,
    /// Where redo logs of runs of these services lie, which can then be gone back in.
    pub redo_logs: RedoLogs,
    /// What callers must send as `x-retinker-token`; `None` makes 128 random bits. It is written nowhere.
    pub token: Option<String>,
}

impl HostConfig {
    /// That each connection can be told from the others.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        if self.connections.is_empty() {
            return Err(StartError::NoConnection);
        }
        for (at, connection) in self.connections.iter().enumerate() {
            let name = &connection.name;
            if !is_connection_name(name) {
                return Err(StartError::BadName(name.clone()));
            }
            if self.connections.iter().take(at).any(|earlier| earlier.name == *name) {
                return Err(StartError::NameTwice(name.clone()));
            }
        }
        Ok(())
    }
}

/// A service that the host can stand before, with what belongs to it alone.
#[derive(Debug)]
pub struct Connection {
    /// What callers name it by: see [`is_connection_name`].
    pub name: String,
    /// The service.
    pub service: ServiceTarget,
    /// Where its key is to be put, for people; e.g. `TINKER_API_KEY`. Empty where it needs none.
    pub key_from: String,
    /// Where its recovery journal lives; made if missing. Several hosts can share it, for the same service always: an
    /// embedded service is a different one on each machine, so its journal is no place that machines share.
    pub journal: Location,
    /// What is done about its lost runs that nobody asks for. Where runs are restored by themselves, the service is looked
    /// after from the start; else from when it is first asked for.
    pub watching: Watching,
    /// The demonstration that it can be filled with.
    pub demo: Option<Demo>,
}

/// A demonstration, as the host sees it.
#[derive(Debug, Clone)]
pub struct Demo {
    /// How far it is.
    pub progress: watch::Receiver<DemoProgress>,
    /// Told when somebody asks for it.
    pub begin: Arc<Notify>,
}

/// What is done about lost runs that nobody asks for.
#[derive(Debug, Clone)]
pub struct Watching {
    /// Which are restored, and how; by default none.
    pub policy: Policy,
    /// Who hears of what this process does.
    pub sink: Arc<dyn EventSink>,
    /// Who is told of what happens in the journal, whatever program did it (see [`telling`](retinker::recovery::telling)).
    pub told: Option<Arc<dyn EventSink>>,
    /// Told of each reading of the runs.
    pub metrics: Option<Arc<Metrics>>,
}

impl Default for Watching {
    fn default() -> Self {
        Self { policy: Policy::default(), sink: Arc::new(Traced), told: None, metrics: None }
    }
}

/// Why a host did not start, or stands before a service no more than that.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing to stand before.
    #[error("no service was given")]
    NoConnection,
    /// A connection goes by no proper name.
    #[error(
        "'{0}' is no name for a connection: give it one of at most 64 letters, digits, '-', '_' and '.', that begins with a letter or digit"
    )]
    BadName(String),
    /// Two connections have this name.
    #[error("two connections are called '{0}': give each a name of its own")]
    NameTwice(String),
    /// A connection cannot be used.
    #[error("connection '{name}': {reason}")]
    Connection {
        /// Which.
        name: String,
        /// Why not.
        reason: Box<StartError>,
    },
    /// The address is not on this machine's loopback.
    #[error(
        "{0} is not a loopback address: whoever reaches the console spends the service's key, so it listens on 127.0.0.1 or ::1 only"
    )]
    NotLoopback(SocketAddr),
    /// Somebody else listens there.
    #[error("port {} on {} is in use: stop the other program or choose another with --port", .0.port(), .0.ip())]
    PortInUse(SocketAddr),
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {reason}. Choose another port with --port")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        reason: std::io::Error,
    },
    /// The service's address or key cannot be used.
    #[error("{0}")]
    Service(retinker::client::Error),
    /// Requests cannot be sent at all.
    #[error("no connection can be set up: {0}")]
    Transport(retinker::transport::TransportError),
    /// The journal cannot be opened.
    #[error("{0}")]
    Journal(retinker::recovery::journal::StoreError),
    /// The journal belongs to another service.
    #[error(
        "the restores in {journal} belong to {bound}, not to {asked}: choose another with {}", .journal.option()
    )]
    OtherService {
        /// Where the journal lives.
        journal: Location,
        /// The service that it belongs to.
        bound: String,
        /// The one that was given.
        asked: String,
    },
    /// The token given is too short or cannot stand in a header.
    #[error("the token must be at least 16 letters, digits, '-' or '_'")]
    BadToken,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers, which the token is made of: {0}")]
    NoRandom(String),
}
