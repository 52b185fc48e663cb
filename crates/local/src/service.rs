//! Starting and stopping.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle as Task;

use crate::backlog::Backlog;
use crate::changes::Changes;
use crate::config::LocalConfig;
use crate::core::Core;
use crate::datadir;
use crate::db::{Db, DbError};
use crate::error::StartError;
use crate::faults::{Faults, Rules};
use crate::futures::Futures;
use crate::http::{self, Guard, Origins, Tokens};
use crate::index::Index;
use crate::intake::Intake;
use crate::models::Models;
use crate::ops;
use crate::sampler;
use crate::serve;
use crate::tokenizer;
use crate::trainer;
use retinker_nn::Threads;

/// How long a stop waits for requests that are being answered.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running service. Stop it with [`LocalService::stop`]; dropped, it stops on its own a little later.
#[derive(Debug)]
pub struct LocalService {
    address: SocketAddr,
    core: Arc<Core>,
    server: Option<Task<()>>,
    upkeep: Option<Task<()>>,
    trainers: Vec<JoinHandle<()>>,
    sampler: Option<JoinHandle<()>>,
}

impl LocalService {
    /// Starts a service on the current tokio runtime. It answers when this returns.
    ///
    /// Runs that had unsaved work when the last service on this directory ended are marked as corrupted before.
    pub async fn start(config: LocalConfig) -> Result<Self, StartError> {
        if !config.listen.ip().is_loopback() && config.api_key.as_ref().is_none_or(String::is_empty) {
            return Err(StartError::KeyRequired { address: config.listen });
        }
        let origins = Origins::new(&config.cors_origins).map_err(StartError::Origin)?;
        let (core, rows) = {
            let config = config.clone();
            tokio::task::spawn_blocking(move || open(&config))
                .await
                .map_err(|_| StartError::Other("reading the data directory failed".to_owned()))??
        };
        let listener = match listen(&config).await {
            Ok(listener) => listener,
            Err(error) => {
                let _ = tokio::task::spawn_blocking(move || core.db.close()).await;
                return Err(error);
            }
        };
        let address = listener.local_addr().map_err(|e| StartError::Listen {
            address: config.listen,
            reason: e.to_string(),
            port_option: config.port_option,
        })?;
        let trainers = trainer::start(&core)
            .map_err(|e| StartError::Other(format!("a trainer's thread cannot be started ({e})")))?;
        let guard = Guard::new(address, config.api_key.as_deref(), Arc::clone(&core.tokens), origins);
        let router = http::router(Arc::clone(&core), guard);
        let mut stopping = core.stopping.subscribe();
        let sampler = sampler::start(&core)
            .map_err(|e| StartError::Other(format!("the sampler's thread cannot be started ({e})")))?;
        let server = tokio::spawn(async move {
            let listener = listener.tap_io(|stream| {
                // Small answers would wait for the acknowledgement of the one before.
                let _ = stream.set_nodelay(true);
            });
            let stop = async move {
                let _ = stopping.wait_for(|stopping| *stopping).await;
            };
            serve::serve(listener, router, stop).await;
        });
        let upkeep = tokio::spawn(ops::keep_up(Arc::clone(&core)));
        tracing::info!(
            url = %format!("http://{address}"),
            data_dir = %config.data_dir.display(),
            runs = rows.runs,
            corrupted_now = rows.corrupted_now,
            corrupted_in_all = rows.corrupted_in_all,
            trainers = core.trainers(),
            "local service started"
        );
        Ok(Self {
            address,
            core,
            server: Some(server),
            upkeep: Some(upkeep),
            trainers,
            sampler: Some(sampler),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients take as `TINKER_BASE_URL`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The way to make it fail.
    pub fn faults(&self) -> Faults {
        Faults::new(Arc::clone(&self.core))
    }

    /// Whether no run was ever made in this data directory.
    pub fn is_empty(&self) -> bool {
        self.core.index().has_no_runs()
    }

    /// What answers its requests, without a network in between.
    #[cfg(feature = "fuzzing")]
    #[doc(hidden)]
    pub fn router(&self) -> axum::Router {
        let guard = Guard::new(self.address, None, Arc::clone(&self.core.tokens), Origins::default());
        http::router(Arc::clone(&self.core), guard)
    }

    /// What its parts share, for tests of those parts.
    #[cfg(test)]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Stops: requests being carried out are finished, what waits is not, nothing unsaved is saved. When this returns the
    /// data directory is free.
    pub async fn stop(mut self) {
        self.core.stopping.send_replace(true);
        if let Some(mut server) = self.server.take()
            && tokio::time::timeout(PATIENCE, &mut server).await.is_err()
        {
            server.abort();
        }
        if let Some(upkeep) = self.upkeep.take() {
            // It ends when it sees that the service stops.
            let _ = upkeep.await;
        }
        self.core.note_progress().await;
        let (core, trainers) = (Arc::clone(&self.core), std::mem::take(&mut self.trainers));
        let sampler = self.sampler.take();
        let stopped = tokio::task::spawn_blocking(move || {
            if let Some(sampler) = sampler {
                sampler::stop(&core, sampler);
            }
            trainer::stop(&core, trainers);
            core.db.close();
        });
        if stopped.await.is_err() {
            tracing::error!("the local service did not stop cleanly");
        }
    }
}

impl Drop for LocalService {
    fn drop(&mut self) {
        self.core.stopping.send_replace(true);
        for inbox in &self.core.inboxes {
            inbox.stop();
        }
        self.core.sampler.stop();
    }
}

/// What was found in the data directory.
struct Found {
    runs: usize,
    /// Those whose unsaved work this start found lost.
    corrupted_now: usize,
    corrupted_in_all: usize,
}

/// Opens the data directory and brings it in order.
fn open(config: &LocalConfig) -> Result<(Arc<Core>, Found), StartError> {
    let (layout, lock) = datadir::open(&config.data_dir)?;
    let (db, rows) = Db::open(layout.root(), &layout.database(), lock)?;
    let models = Models::builtin();
    let tokenizers = tokenizer::provide(layout.root(), models.configs()).map_err(|e| {
        StartError::Other(format!("the tokenizers cannot be written to {} ({e})", layout.root().display()))
    })?;
    let tokens = Tokens::new()
        .map_err(|e| StartError::Other(format!("the system gives no random numbers for tokens ({e})")))?;
    let (mut index, unlisted) = Index::new(rows, Instant::now());
    let changes = Arc::<Changes>::default();
    index.tell_changes_to(Arc::clone(&changes));
    datadir::remove_leftovers(&layout.aside());
    let trainers = config.trainers.max(1);
    let core = Arc::new(Core {
        db,
        futures: Arc::new(Futures::default()),
        changes,
        faults: Rules::new(config.faults),
        layout,
        models,
        downloads: ops::Downloads::default(),
        tokenizers,
        inboxes: (0..trainers).map(|_| Arc::default()).collect(),
        backlog: Arc::new(Backlog::new(config.queue_limit)),
        intake: Arc::new(Intake::new(config.queue_limit)),
        memory_share: config.memory_limit / trainers as u64,
        tokens: Arc::new(tokens),
        requires_key: config.api_key.is_some(),
        sampler: sampler::Sampler::default(),
        threads: Arc::new(Threads::new(config.threads)),
        session_timeout: config.session_timeout,
        stopping: watch::Sender::new(false),
        index: Mutex::new(index),
        directories: Mutex::new(()),
    });
    let corrupted_now = core.corrupt_interrupted().map_err(|e| unwritable(&core, e))?.len();
    for row in &unlisted {
        core.discard(row);
    }
    let (runs, corrupted_in_all) = {
        let index = core.index();
        (index.run_count(), index.runs().filter(|run| run.corrupted.is_some()).count())
    };
    Ok((core, Found { runs, corrupted_now, corrupted_in_all }))
}

fn unwritable(core: &Core, error: DbError) -> StartError {
    let path = core.layout.database();
    match error {
        DbError::Full(path) => StartError::DiskFull { path },
        DbError::Access(reason) => StartError::DatabaseAccess { path, reason },
        DbError::Gone(_) | DbError::Other(_) => StartError::Database { path, reason: error.to_string() },
    }
}

async fn listen(config: &LocalConfig) -> Result<TcpListener, StartError> {
    let (address, port_option) = (config.listen, config.port_option);
    TcpListener::bind(address).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => StartError::PortInUse { address, port_option },
        _ => StartError::Listen { address, reason: e.to_string(), port_option },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{NewRun, sql};
    use crate::lora::LoraShape;
    use crate::time::now_millis;
    use retinker_wire::model::{LoraConfig, adamw};
    use retinker_wire::run::TrainingRunsResponse;
    use retinker_wire::session::CreateSessionRequest;

    /// Makes a data directory with so many runs; their ids, oldest first.
    fn fill(config: &LocalConfig, runs: u64) -> Vec<String> {
        let (core, _) = open(config).unwrap();
        let session = "11111111-2222-3333-4444-555555555555";
        let new = move |model_seq_id: u64| NewRun {
            run_id: format!("{session}:train:{model_seq_id}").into(),
            session_id: session.into(),
            model_seq_id,
            base_model: "retinker/nano-llama".into(),
            lora: LoraShape::from_wire(&LoraConfig { seed: Some(1), ..LoraConfig::default() }),
            optimizer_config: Arc::new(adamw()),
            user_metadata: Some(
                retinker_wire::UserMetadata::from([("name".to_owned(), format!("run {model_seq_id}"))])
                    .into(),
            ),
            origin_path: None,
            // All at the same time: the order must not hang on the clock.
            created_at: 1_700_000_000_000,
        };
        let written = core.db.write(move |c| {
            sql::insert_session(c, session, now_millis(), &CreateSessionRequest::default(), None)?;
            (0..runs).try_for_each(|n| sql::insert_run(c, &new(n), None).map(|_| ()))
        });
        written.wait().unwrap();
        core.db.close();
        (0..runs).map(|n| format!("{session}:train:{n}")).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_says_which_one_it_waits_for() {
        let dir = tempfile::tempdir().unwrap();
        let stored = {
            let config = LocalConfig::new(dir.path());
            tokio::task::spawn_blocking(move || fill(&config, 1)).await.unwrap()
        };
        let service = LocalService::start(LocalConfig::new(dir.path())).await.unwrap();
        let (core, run) = (&service.core, stored[0].as_str());
        let step = || crate::trainer::Op::OptimStep(retinker_wire::training::AdamParams::default());
        let waiting = core.submit(run, 3, step()).await.unwrap();
        let told = async || {
            while core.waits_for(&waiting).is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), told()).await.unwrap();
        let answer = http::not_yet(core, waiting.clone());
        let said = answer.queue_state_reason.unwrap();
        assert_eq!(said, "waiting for request 1 of this run, which has not come");
        for seq in [1, 2] {
            core.submit(run, seq, step()).await.unwrap();
        }
        let mut result = core.futures.watch(&waiting).unwrap();
        tokio::time::timeout(Duration::from_secs(60), result.wait_for(Option::is_some))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(http::not_yet(core, waiting).queue_state_reason, None);
        service.stop().await;
    }

    #[test]
    fn a_start_tells_what_it_found_corrupted_from_what_was_before() {
        let dir = tempfile::tempdir().unwrap();
        let config = LocalConfig::new(dir.path());
        let runs = fill(&config, 3);
        let start = |dirty: Option<String>| {
            let (core, found) = open(&config).unwrap();
            if let Some(run) = dirty {
                core.db.write(move |c| sql::mark_dirty(c, &run, 5)).wait().unwrap();
            }
            core.db.close();
            [found.runs, found.corrupted_now, found.corrupted_in_all]
        };
        assert_eq!(start(Some(runs[0].clone())), [3, 0, 0]);
        assert_eq!(start(Some(runs[1].clone())), [3, 1, 1]);
        assert_eq!(start(None), [3, 1, 2]);
        assert_eq!(start(None), [3, 0, 2]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_hundred_thousand_stored_runs_are_listed_in_order_after_a_start() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let config = LocalConfig::new(dir.path());
        let stored = {
            let config = config.clone();
            tokio::task::spawn_blocking(move || fill(&config, 100_000)).await.unwrap()
        };
        let service = LocalService::start(config).await.unwrap();
        let http = reqwest::Client::new();
        let mut listed = Vec::new();
        for offset in (0..100_000).step_by(1000) {
            let url = format!("{}/api/v1/training_runs?limit=1000&offset={offset}", service.base_url());
            let page: TrainingRunsResponse =
                http.get(url).header("x-api-key", "tml-test").send().await.unwrap().json().await.unwrap();
            assert_eq!(page.cursor.total_count, 100_000);
            listed.extend(page.training_runs.into_iter().map(|run| run.training_run_id));
        }
        assert!(listed.iter().eq(stored.iter().rev()), "the pages are not the runs, newest first");
        service.stop().await;
    }
}
