//! A monitor that restores one run and dies at a chosen write to the journal: `mortal URL JOURNAL RUN WRITE before|after`.
//! It ends by itself, with success, if the restore takes fewer writes.

use std::sync::Arc;

use anyhow::{Result, bail};
use retinker::recovery::executor::Executor;
use retinker::recovery::journal::Begun;
use retinker::recovery::plan::PlanRequest;
use retinker::recovery::planner::{gather, make_plan};
use retinker_tests::dying::DyingStore;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, journal, run, write, when] = args.as_slice() else { bail!("five arguments are needed") };
    let (api, store, runtime) = DyingStore::open(url, journal, write, when).await?;
    let executor = Executor::new(api.clone(), Arc::clone(&store), Arc::clone(&runtime));
    let request = PlanRequest::new(run);
    let made_by = store.by_new_run(run).await?;
    let facts = gather(&api, &request, None, made_by.as_ref(), runtime.now()).await?;
    let plan = make_plan(&facts, &request).map_err(|no_plan| anyhow::anyhow!("{}", no_plan.message()))?;
    let (Begun::New(record) | Begun::Existing(record)) = executor.begin(plan).await?;
    executor.run(&record.id).await?;
    Ok(())
}
