//! A journal with a history: `many_restores JOURNAL COUNT` writes so many restores that are over, of runs that no service
//! lists any more, a minute apart, the newest last. One in ten has failed.

use std::ffi::OsString;

use anyhow::{Context, Result, bail};
use retinker::recovery::plan::PlanRequest;
use retinker::recovery::planner::{Facts, make_plan};
use retinker::recovery::restore::{RestoreEvent, RestoreRecord, RestoreState};
use retinker::wire::run::{CheckpointsResponse, TrainingRun, TrainingRunsResponse};
use retinker::wire::time::Time;
use retinker_store::Location;
use retinker_tests::simulated::{Service, http};

/// The number of the first run: simulated services have fewer, and theirs are others.
const FIRST: u64 = 1 << 24;
const MINUTE: i64 = 60_000;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [journal, count] = args.as_slice() else { bail!("two arguments are needed") };
    let count: u64 = count.parse().context("the count is no number")?;
    let store = retinker_store::open(&Location::from(OsString::from(journal))).await?;
    let (service, now) = (Service::alike(FIRST + count, 1, 0), http::now());
    for n in 0..count {
        let ago = i64::try_from(count - n)?.saturating_mul(MINUTE);
        let at = Time::from_millis(now.as_millis().saturating_sub(ago));
        store.begin(restored(&service, n, at)?).await?;
    }
    Ok(())
}

/// The restore of the `n`th run, which took a few seconds from this time on.
fn restored(service: &Service, n: u64, at: Time) -> Result<RestoreRecord> {
    let offset = FIRST + n;
    let asked = |path: &str| service.answer(path, &[]).context("the simulated service does not answer");
    let page: TrainingRunsResponse = serde_json::from_str(&service.page(1, offset))?;
    let run: TrainingRun = page.training_runs.into_iter().next().context("there is no such run")?;
    let run_id = run.training_run_id.clone();
    let listed: CheckpointsResponse =
        serde_json::from_str(&asked(&format!("training_runs/{run_id}/checkpoints"))?)?;
    let facts = Facts {
        run,
        checkpoints: listed.checkpoints,
        origin: None,
        capabilities: None,
        weights: Default::default(),
        succession: None,
        story: None,
        now: at,
    };
    let plan = make_plan(&facts, &PlanRequest::new(&run_id))
        .map_err(|no_plan| anyhow::anyhow!("{}", no_plan.message()))?;
    let asked_for = format!("Asked for by the console of ada@box: restore run {run_id}.");
    let mut record = RestoreRecord::planned(format!("restore-{n:016x}"), plan, at, asked_for);
    record.asked_by = Some("the console of ada@box".to_owned());
    let story = match n % 10 {
        9 => {
            record.error = Some("The service refused the checkpoint.".to_owned());
            vec![
                (RestoreState::Loading, "Loading."),
                (RestoreState::Failed, "The service refused the checkpoint."),
            ]
        }
        _ => {
            record.new_run_id = Some(format!("restored-{n:08x}:train:0"));
            vec![
                (RestoreState::OpeningSession, "A session is opened."),
                (RestoreState::Loading, "Loading."),
                (RestoreState::Checking, "The new run is looked at."),
                (RestoreState::Adopted, "The new run has taken the old one's place."),
                (RestoreState::HandedOver, "Handed over by the console of ada@box."),
            ]
        }
    };
    for (state, message) in story {
        record.updated_at = Time::from_millis(record.updated_at.as_millis().saturating_add(1_000));
        record.state = state;
        record.events.push(RestoreEvent { at: record.updated_at, state, message: message.to_owned() });
    }
    Ok(record)
}
