//! A monitor that does one round, as `retinker watch --once --auto-restore` does, and dies at a chosen write to the journal:
//! `mortal_monitor URL JOURNAL EVENTS WRITE before|after`. It tells its events as lines of JSON in the file EVENTS, and ends by
//! itself, with success, if all takes fewer writes.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use retinker::recovery::drives::Drives;
use retinker::recovery::events::{EventSink, Traced};
use retinker::recovery::executor::Executor;
use retinker::recovery::monitor::{Monitor, Parts};
use retinker::recovery::policy::Policy;
use retinker::recovery::telling::Teller;
use retinker_host::hooks::JsonLines;
use retinker_tests::dying::DyingStore;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, journal, events, write, when] = args.as_slice() else { bail!("five arguments are needed") };
    let (api, store, runtime) = DyingStore::open(url, journal, write, when).await?;
    let listener: Arc<dyn EventSink> = Arc::new(JsonLines::file(Path::new(events))?);
    let mut teller = Teller::new(Arc::clone(&store), Arc::clone(&runtime), listener, api.base_url());
    teller.tell().await?;
    let executor = Executor::new(api.clone(), Arc::clone(&store), Arc::clone(&runtime));
    let drives = Drives::new(executor, Arc::clone(&runtime));
    let service = api.base_url().to_owned();
    let policy = Policy { enabled: true, ..Policy::default() };
    let sink = Arc::new(Traced);
    let by = "a mortal monitor".to_owned();
    let monitor =
        Monitor::new(Parts { api, store, runtime, drives: drives.clone(), policy, sink, service, by });
    monitor.round().await?;
    drives.settled().await;
    teller.tell().await?;
    Ok(())
}
