//! Small values for this module's tests.

use retinker_wire::run::{Checkpoint, CheckpointType, TrainingRun};
use retinker_wire::time::Time;

pub(crate) fn checkpoint(run_id: &str, name: &str, time_ms: i64) -> Checkpoint {
    Checkpoint {
        checkpoint_id: format!("weights/{name}"),
        checkpoint_type: CheckpointType::Training,
        time: Time::from_millis(time_ms),
        tinker_path: format!("tinker://{run_id}/weights/{name}"),
        size_bytes: None,
        public: false,
        user_metadata: None,
        expires_at: None,
    }
}

pub(crate) fn run(id: &str, corrupted: Option<bool>) -> TrainingRun {
    TrainingRun {
        training_run_id: id.to_owned(),
        base_model: "base".to_owned(),
        model_owner: "me".to_owned(),
        is_lora: true,
        corrupted,
        lora_rank: Some(8),
        last_request_time: Time::from_millis(1_000_000_000_000),
        last_checkpoint: None,
        last_sampler_checkpoint: None,
        user_metadata: None,
        corrupted_reason: None,
    }
}

/// A plan for this run, from `weights/a`, sealed.
pub(crate) fn plan(run_id: &str) -> super::plan::RestorePlan {
    use super::planner::{Facts, make_plan};
    let facts = Facts {
        run: run(run_id, Some(true)),
        checkpoints: vec![checkpoint(run_id, "a", 999_999_900_000)],
        origin: None,
        capabilities: None,
        weights: Default::default(),
        succession: None,
        story: None,
        now: Time::from_millis(1_000_000_100_000),
    };
    make_plan(&facts, &super::plan::PlanRequest::new(run_id)).unwrap()
}

/// A restore of this run that nothing has been done for yet.
pub(crate) fn record(id: &str, old_run: &str) -> super::restore::RestoreRecord {
    super::journal::conformance::record(id, old_run)
}
