//! What a service is started with.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

/// What a service is started with.
#[derive(Clone)]
pub struct LocalConfig {
    /// Where to listen. Port 0 takes a free one. Addresses other than loopback need an `api_key`.
    pub listen: SocketAddr,
    /// Where sessions, runs and checkpoints are kept. Made when missing, readable by its owner only.
    pub data_dir: PathBuf,
    /// How many runs train at the same time, each on a thread of its own; at least 1, by default 2.
    pub trainers: usize,
    /// How many bytes of weights, gradients and optimizer states the trainers keep in memory, shared evenly between them; 1 GiB
    /// by default. What goes beyond is put aside in the data directory until it is asked for. Each trainer keeps at least
    /// the run that it works on.
    pub memory_limit: u64,
    /// How many bytes of training requests may wait for the trainers; 512 MiB by default. Requests beyond it are answered 429,
    /// but for those that others wait for.
    pub queue_limit: u64,
    /// How many threads the trainers compute with, all together; every pass has at least one. By default one for each
    /// core. Results do not depend on it.
    pub threads: usize,
    /// How long a session lives without a heartbeat; 300 s by default.
    pub session_timeout: Duration,
    /// The key that callers must send in `X-API-Key`. `None`, the default, takes any that is not empty.
    pub api_key: Option<String>,
    /// The origins whose web pages may call the protocol's endpoints, such as `http://localhost:3000`; by default none.
    pub cors_origins: Vec<String>,
    /// Whether failures can be asked for, over HTTP and by rules for what is still to come; by default not.
    pub faults: bool,
    /// The option that sets the port, for what is said of a busy one; `--port` by default.
    pub port_option: &'static str,
}

impl LocalConfig {
    /// The defaults, on a free port of 127.0.0.1.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: data_dir.into(),
            trainers: 2,
            memory_limit: 1 << 30,
            queue_limit: 512 << 20,
            threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            session_timeout: Duration::from_secs(300),
            api_key: None,
            cors_origins: Vec::new(),
            faults: false,
            port_option: "--port",
        }
    }
}

impl fmt::Debug for LocalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalConfig")
            .field("listen", &self.listen)
            .field("data_dir", &self.data_dir)
            .field("trainers", &self.trainers)
            .field("memory_limit", &self.memory_limit)
            .field("queue_limit", &self.queue_limit)
            .field("threads", &self.threads)
            .field("session_timeout", &self.session_timeout)
            .field("api_key", &self.api_key.as_ref().map(|_| "(set)"))
            .field("cors_origins", &self.cors_origins)
            .field("faults", &self.faults)
            .field("port_option", &self.port_option)
            .finish()
    }
}
