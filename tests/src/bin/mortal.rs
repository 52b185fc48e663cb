//! A monitor that restores one run and dies at a chosen write to the journal: `mortal URL JOURNAL RUN WRITE before|after`.
//! It ends by itself, with success, if the restore takes fewer writes.

use std::ffi::OsString;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use retinker::native::NativeRuntime;
use retinker::recovery::executor::Executor;
use retinker::recovery::journal::{Begun, Store};
use retinker::recovery::plan::PlanRequest;
use retinker::recovery::planner::{gather, make_plan};
use retinker::runtime::Runtime;
use retinker_store::Location;
use retinker_tests::dying::{Death, DyingStore};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, journal, run, write, when] = args.as_slice() else { bail!("five arguments are needed") };
    let death = Death { write: write.parse().context("the write is no number")?, after: when == "after" };
    let runtime: Arc<dyn Runtime> = Arc::new(NativeRuntime::current().context("there is no runtime")?);
    let journal = Location::from(OsString::from(journal));
    let store: Arc<dyn Store> = Arc::new(DyingStore::new(retinker_store::open(&journal).await?, death));
    let api = retinker_tests::service::api(url)?;
    store.bind(api.base_url()).await?;
    let executor = Executor::new(api.clone(), Arc::clone(&store), Arc::clone(&runtime));
    let request = PlanRequest::new(run);
    let made_by = store.by_new_run(run).await?;
    let facts = gather(&api, &request, None, made_by.as_ref(), runtime.now()).await?;
    let plan = make_plan(&facts, &request).map_err(|no_plan| anyhow::anyhow!("{}", no_plan.message()))?;
    let (Begun::New(record) | Begun::Existing(record)) = executor.begin(plan).await?;
    executor.run(&record.id).await?;
    Ok(())
}
