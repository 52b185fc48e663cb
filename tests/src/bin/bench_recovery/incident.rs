//! Runs that are poisoned at once, and a monitor that restores them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use retinker::client::{Api, ApiConfig, Secret, TrainingClient};
use retinker::native::{NativeRuntime, NativeTransport};
use retinker::recovery::drives::Drives;
use retinker::recovery::events::Traced;
use retinker::recovery::executor::Executor;
use retinker::recovery::journal::Store;
use retinker::recovery::monitor::{Monitor, Parts};
use retinker::recovery::policy::Policy;
use retinker::recovery::probe::Verification;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker::runtime::Runtime;
use retinker_store::SqliteStore;
use retinker_tests::runs;
use retinker_tests::service::ServiceProcess;

use crate::flight::Watched;

/// How often the monitor looks.
pub(crate) const INTERVAL_MS: u64 = 1_000;
/// Runs that are poisoned at once.
const AT_ONCE: usize = 16;
/// For how long an incident may go on.
const PATIENCE: Duration = Duration::from_secs(600);

/// What an incident took.
pub(crate) struct Incident {
    /// From poisoning to adoption, one for each run, in order.
    pub(crate) times_ms: Vec<f64>,
    /// Of the time from the first poisoning to the last adoption, the part in which nothing was asked of the service.
    pub(crate) own_share: f64,
}

impl Incident {
    pub(crate) fn mean_ms(&self) -> f64 {
        self.times_ms.iter().sum::<f64>() / self.times_ms.len() as f64
    }

    /// The time within which this part of the runs was restored.
    pub(crate) fn at(&self, part: f64) -> f64 {
        let last = self.times_ms.len().saturating_sub(1);
        self.times_ms.get((last as f64 * part).round() as usize).copied().unwrap_or_default()
    }
}

/// Makes so many runs, poisons them at once, and waits until each has a verified successor; so many times.
pub(crate) async fn measure(count: usize, times: usize) -> Result<Incident> {
    let mut all = Incident { times_ms: Vec::new(), own_share: 0.0 };
    for time in 0..times {
        let one = once(count, time).await?;
        all.times_ms.extend(one.times_ms);
        all.own_share += one.own_share / times as f64;
    }
    all.times_ms.sort_by(f64::total_cmp);
    Ok(all)
}

async fn once(count: usize, time: usize) -> Result<Incident> {
    let (data, home) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let service = ServiceProcess::start_with(data.path(), &["--faults"]).await?;
    let runtime: Arc<dyn Runtime> = Arc::new(NativeRuntime::current().context("there is no runtime")?);
    let clients = runs::saved(&service.api()?, count).await?;
    let watched = Watched::new(NativeTransport::new()?);
    let config = ApiConfig {
        base_url: service.base_url.clone(),
        api_key: Some(Secret::new("tml-test")),
        ..ApiConfig::default()
    };
    let api = Api::new(config, Arc::new(watched.clone()), Arc::clone(&runtime))?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(home.path())?);
    let drives = Drives::new(
        Executor::new(api.clone(), Arc::clone(&store), Arc::clone(&runtime)),
        Arc::clone(&runtime),
    );
    let policy = Policy {
        enabled: true,
        poll_interval_ms: INTERVAL_MS,
        max_restores_per_hour: u32::MAX,
        ..Policy::default()
    };
    let monitor = Monitor::new(Parts {
        api,
        store: Arc::clone(&store),
        runtime: Arc::clone(&runtime),
        drives,
        policy,
        sink: Arc::new(Traced),
        service: service.base_url.clone(),
        by: "a monitor".to_owned(),
    });
    let watching = async {
        monitor.run(|_| {}).await;
        anyhow::bail!("the monitor has ended")
    };
    let incident = async {
        // Not in step with the monitor, which has looked once or twice before.
        let ahead = Duration::from_millis(INTERVAL_MS + INTERVAL_MS * (time as u64 * 37 % 100) / 100);
        tokio::time::sleep(ahead).await;
        let (begin, busy) = (runtime.monotonic(), watched.busy());
        let poisoned = poison(&service, &clients, &*runtime).await?;
        let records = settled(&*store, count).await?;
        let window = runtime.monotonic().saturating_sub(begin);
        let asked = watched.busy().saturating_sub(busy);
        Ok::<_, anyhow::Error>((poisoned, records, 1.0 - asked.as_secs_f64() / window.as_secs_f64()))
    };
    let (poisoned, records, own_share) = tokio::select! {
        found = incident => found?,
        ended = watching => ended?,
    };
    let mut times_ms = Vec::with_capacity(count);
    for record in &records {
        ensure!(
            matches!(record.verification, Some(Verification::Verified { .. })),
            "the successor of {} is not verified: {:?}",
            record.plan.run_id,
            record.verification
        );
        let at = poisoned.get(&record.plan.run_id).context("a run that was not poisoned was restored")?;
        times_ms.push((record.updated_at.as_millis() - at) as f64);
    }
    service.kill().await?;
    Ok(Incident { times_ms, own_share })
}

/// When each run was poisoned, by the wall clock in milliseconds.
async fn poison(
    service: &ServiceProcess,
    clients: &[TrainingClient],
    runtime: &dyn Runtime,
) -> Result<BTreeMap<String, i64>> {
    stream::iter(clients)
        .map(|client| async move {
            let at = runtime.now().as_millis();
            let status = service.poison(&client.model_id()).await?;
            ensure!(status == 200, "a poisoning was answered with {status}");
            Ok((client.model_id(), at))
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// All restores, once so many are adopted.
async fn settled(store: &dyn Store, count: usize) -> Result<Vec<RestoreRecord>> {
    let all = async {
        loop {
            let records = store.list().await?;
            let adopted = records.iter().filter(|record| record.state == RestoreState::Adopted).count();
            if adopted == count {
                return anyhow::Ok(records);
            }
            // Reading a journal of a thousand restores is work as well.
            tokio::time::sleep(Duration::from_millis(if count > 100 { 500 } else { 20 })).await;
        }
    };
    let records = tokio::time::timeout(PATIENCE, all).await.context("the incident does not end")??;
    ensure!(records.len() == count, "{} restores of {count} runs", records.len());
    Ok(records)
}
