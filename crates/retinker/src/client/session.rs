//! A session of the service, shared by everything made in it: heartbeats, settings, numbers of samplers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_channel::mpsc;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use retinker_wire::capabilities::{ClientConfig, DynamicConfig};

use super::api::Api;
use super::dispatch::Dispatch;
use super::error::Error;
use super::heartbeat::Heartbeat;
use super::retry::RetryPolicy;

/// The shortest time between two questions for the settings that may change.
const MIN_REFRESH: Duration = Duration::from_secs(10);

/// How the server wants to be talked to, and what is under way by that.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) config: ClientConfig,
    pub(crate) dispatch: Dispatch,
}

impl Settings {
    fn new(config: ClientConfig) -> Arc<Self> {
        Arc::new(Self { dispatch: Dispatch::new(&config), config })
    }

    /// For a server that has not said what it takes: it is spared what it may not.
    pub(crate) fn careful() -> Arc<Self> {
        Self::new(careful())
    }
}

fn careful() -> ClientConfig {
    ClientConfig { parallel_fwdbwd_chunks: false, ..ClientConfig::default() }
}

/// Asks how a server wants to be talked to, for a session of it.
pub(crate) async fn ask(api: &Api) -> Result<(ClientConfig, DynamicConfig), Error> {
    // In this order: the second question is signed as the first answer wants it.
    let config = api.settle().await?.unwrap_or_else(careful);
    Ok((config, api.dynamic_config().await?))
}

/// A session. Its heartbeat stops when nobody holds it any more.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    heartbeat: Heartbeat,
    dynamic: Arc<Mutex<DynamicConfig>>,
    cancels: mpsc::UnboundedSender<String>,
    /// `None` = not known yet.
    settings: futures_util::lock::Mutex<Option<Arc<Settings>>>,
    /// The number of the next sampler; `None` = not known yet.
    next_sampler: futures_util::lock::Mutex<Option<u64>>,
}

impl Session {
    /// One that was made just now.
    pub(crate) fn opened(api: &Api, id: String, config: ClientConfig, dynamic: DynamicConfig) -> Self {
        Self::new(api, id, Some(Settings::new(config)), dynamic, Some(0))
    }

    /// One that somebody else has made. Sends nothing at once.
    pub(crate) fn adopted(api: &Api, id: String) -> Self {
        Self::new(api, id, None, DynamicConfig::default(), None)
    }

    fn new(
        api: &Api,
        id: String,
        settings: Option<Arc<Settings>>,
        dynamic: DynamicConfig,
        next_sampler: Option<u64>,
    ) -> Self {
        let heartbeat = Heartbeat::start(api, &id);
        let dynamic = Arc::new(Mutex::new(dynamic));
        let (cancels, queue) = mpsc::unbounded();
        api.runtime().spawn(Box::pin(tend(api.clone(), dynamic.clone(), queue)));
        let settings = futures_util::lock::Mutex::new(settings);
        let next_sampler = futures_util::lock::Mutex::new(next_sampler);
        Self { id, heartbeat, dynamic, cancels, settings, next_sampler }
    }

    /// Whether the server has said that it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.heartbeat.is_over()
    }

    /// How the server wants to be talked to. That of an adopted session is asked, briefly: while it does not say so, careful
    /// settings do.
    pub(crate) async fn settings(&self, api: &Api) -> Arc<Settings> {
        let mut known = self.settings.lock().await;
        if let Some(settings) = &*known {
            return settings.clone();
        }
        match ask(&api.clone().with_retry(RetryPolicy::interactive())).await {
            Ok((config, dynamic)) => {
                *lock(&self.dynamic) = dynamic;
                known.insert(Settings::new(config)).clone()
            }
            Err(error) => {
                tracing::debug!(session_id = self.id, %error, "the server's settings are not known yet");
                Settings::careful()
            }
        }
    }

    /// A number that no sampler of this session has. Those of an adopted session are asked for.
    pub(crate) async fn next_sampler(&self, api: &Api) -> Result<u64, Error> {
        let mut next = self.next_sampler.lock().await;
        let number = match *next {
            Some(number) => number,
            None => {
                let known = api.get_session(&self.id).await?.sampler_ids;
                let numbers = known.iter().filter_map(|id| id.rsplit(':').next()?.parse::<u64>().ok());
                numbers.max().map_or(0, |last| last.saturating_add(1))
            }
        };
        *next = Some(number.saturating_add(1));
        Ok(number)
    }

    /// Tells the server that nobody waits for a sample any more, if it wants to hear of that.
    pub(crate) fn abandon(&self, request_id: String) {
        if lock(&self.dynamic).sample_cancel_enabled {
            // It fails only where the runtime has ended, and with it everything else.
            let _ = self.cancels.unbounded_send(request_id);
        }
    }
}

/// Sends cancels, and asks anew for the settings that may change, until the session is gone.
async fn tend(api: Api, dynamic: Arc<Mutex<DynamicConfig>>, mut queue: mpsc::UnboundedReceiver<String>) {
    let interval = || Duration::from_secs(lock(&dynamic).refresh_interval_sec).max(MIN_REFRESH);
    let mut due = api.runtime().sleep(interval());
    loop {
        match select(queue.next(), due).await {
            Either::Left((None, _)) => return,
            Either::Left((Some(first), rest)) => {
                due = rest;
                let most = lock(&dynamic).sample_cancel_max_batch_size.max(1);
                let mut batch = vec![first];
                while batch.len() < most
                    && let Ok(more) = queue.try_recv()
                {
                    batch.push(more);
                }
                futures_util::future::join_all(batch.iter().map(|request_id| cancel(&api, request_id))).await;
            }
            Either::Right(((), _)) => {
                match api.dynamic_config().await {
                    Ok(config) => *lock(&dynamic) = config,
                    Err(error) => tracing::debug!(%error, "settings were not refreshed"),
                }
                due = api.runtime().sleep(interval());
            }
        }
    }
}

async fn cancel(api: &Api, request_id: &str) {
    if let Err(error) = api.cancel_future(request_id).await {
        tracing::debug!(request_id, %error, "a sample that nobody waits for was not cancelled");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
