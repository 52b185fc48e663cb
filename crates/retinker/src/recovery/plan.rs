//! What a restore would do: a value that can be shown, stored, and executed exactly as it was shown.

use retinker_wire::UserMetadata;
use retinker_wire::run::Checkpoint;
use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::evidence::Symptom;
use super::sentence::sentence;

/// Version of the plan, journal and redo-log schema. A newer one is refused, not guessed at.
pub const SCHEMA_VERSION: u32 = 1;

/// Which checkpoint to restore from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Strategy {
    /// The newest one that can be used.
    #[default]
    LatestValid,
    /// This one.
    Specific {
        /// Its `tinker://` path.
        path: String,
    },
    /// The one with the best value of a metric. One that does not tell its value, as a finite number, is passed over;
    /// of equal ones the newest is taken.
    Best {
        /// The label in the checkpoints' `user_metadata` that holds it, e.g. `loss`.
        metric: String,
        /// Which values are better. Has no default: a wrong guess would choose the worst.
        mode: MetricMode,
    },
}

/// Which values of a metric are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricMode {
    /// Low ones, as of a loss.
    Min,
    /// High ones, as of a reward.
    Max,
}

/// A request for a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRequest {
    /// The poisoned run.
    pub run_id: String,
    /// Which checkpoint.
    #[serde(default)]
    pub strategy: Strategy,
    /// Whether the optimizer's state is restored as well.
    #[serde(default = "yes")]
    pub optimizer: bool,
    /// Whether it is found out, on throw-away copies, that the optimizer's state came back, before the new run is adopted.
    /// No by default: that takes three more loads.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check_optimizer: bool,
    /// How many of the newest checkpoints that can be used are stepped back over before the strategy chooses; 0 by
    /// default. Refused when no checkpoint is left.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub step_back: u32,
    /// Checkpoints that are not taken, by their paths: earlier restores could not use them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// What the run's training program has seen of its being lost, where the service does not call it corrupted: some
    /// never do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Symptom>,
}

impl PlanRequest {
    /// From the newest checkpoint that can be used, with the optimizer's state.
    pub fn new(run_id: impl Into<String>) -> Self {
        Self {
            run_id: run_id.into(),
            strategy: Strategy::LatestValid,
            optimizer: true,
            check_optimizer: false,
            step_back: 0,
            exclude: Vec::new(),
            observed: None,
        }
    }
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn yes() -> bool {
    true
}

/// One thing that was looked at before the plan was offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at, e.g. `the checkpoint loads into this base model`.
    pub name: String,
    /// What came out.
    pub outcome: CheckOutcome,
    /// A sentence for people.
    pub detail: String,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// As it should be.
    Passed,
    /// The server could not say.
    Unknown,
    /// Something to know before going on.
    Warning,
}

/// A checkpoint that was not chosen, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// Its path.
    pub tinker_path: String,
    /// Why not.
    pub reason: String,
}

/// What is lost by going back to the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostWork {
    /// From the checkpoint to the run's last request, in seconds.
    pub seconds: i64,
    /// Optimizer steps since the checkpoint, where the server counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// The same as a sentence.
    pub summary: String,
}

/// What a restore will do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// [`SCHEMA_VERSION`] at the time of planning.
    pub schema: u32,
    /// A digest of everything else in the plan: what is confirmed is exactly what was shown.
    pub id: String,
    /// The run that is replaced.
    pub run_id: String,
    /// What the run's training program has seen of its being lost, where the service does not call it corrupted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<Symptom>,
    /// When the plan was made.
    pub made_at: Time,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Why this one.
    pub why: String,
    /// Whether the optimizer's state is restored as well.
    pub optimizer: bool,
    /// Whether it is found out, on throw-away copies, that it came back, before the new run is adopted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub check_optimizer: bool,
    /// The base model.
    pub base_model: String,
    /// The adapter's rank, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora_rank: Option<u32>,
    /// The first run of this lineage.
    pub root_run_id: String,
    /// How many restores lie between the root and the new run.
    pub generation: u32,
    /// What the new run's labels will be: the old run's own, and the lineage under `retinker.`.
    pub user_metadata: UserMetadata,
    /// What is lost.
    pub lost: LostWork,
    /// When the run saved its newest training checkpoint of its own, by the service's clock, whichever one is restored
    /// from; `None` where it has none: what [`policy`](super::policy) calls no progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_save: Option<Time>,
    /// What was looked at.
    pub checks: Vec<Check>,
    /// Checkpoints that were passed over.
    #[serde(default)]
    pub rejected: Vec<Rejected>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case", try_from = "FlatNoPlan")]
pub enum NoPlan {
    /// There is nothing to restore from.
    NoCheckpoint {
        /// A sentence for people.
        message: String,
    },
    /// No checkpoint can be used; or the one asked for cannot.
    NoUsableCheckpoint {
        /// A sentence for people.
        message: String,
        /// Each with its reason.
        rejected: Vec<RejectedReason>,
    },
    /// The run needs no restore.
    NotPoisoned {
        /// A sentence for people.
        message: String,
    },
    /// A restored run has taken its place, or is about to.
    AlreadyRestored {
        /// A sentence for people.
        message: String,
        /// The restore.
        restore_id: String,
    },
}

impl NoPlan {
    /// Why, as a sentence for people.
    pub fn message(&self) -> &str {
        match self {
            Self::NoCheckpoint { message }
            | Self::NoUsableCheckpoint { message, .. }
            | Self::NotPoisoned { message }
            | Self::AlreadyRestored { message, .. } => message,
        }
    }
}

/// A [`NoPlan`] as it is read: see [`FlatEvent`](crate::host::api) for why.
#[derive(Deserialize)]
struct FlatNoPlan {
    code: String,
    message: String,
    #[serde(default)]
    rejected: Vec<RejectedReason>,
    #[serde(default)]
    restore_id: String,
}

impl TryFrom<FlatNoPlan> for NoPlan {
    type Error = String;

    fn try_from(flat: FlatNoPlan) -> Result<Self, String> {
        let FlatNoPlan { code, message, rejected, restore_id } = flat;
        match code.as_str() {
            "no_checkpoint" => Ok(Self::NoCheckpoint { message }),
            "no_usable_checkpoint" => Ok(Self::NoUsableCheckpoint { message, rejected }),
            "not_poisoned" => Ok(Self::NotPoisoned { message }),
            "already_restored" => Ok(Self::AlreadyRestored { message, restore_id }),
            other => Err(format!("a reason of code '{other}' that this version does not know")),
        }
    }
}

/// A checkpoint that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectedReason {
    /// Its path.
    pub tinker_path: String,
    /// Why not.
    pub reason: String,
}

/// Prefix of the labels that hold a run's lineage.
pub const LINEAGE_PREFIX: &str = "retinker.";
/// Label of a restored run: the restore that made it. Added when the plan is carried out.
pub const LABEL_RESTORE_ID: &str = "retinker.restore_id";
/// Label of a restored run: the run that it replaces.
pub const LABEL_RESTORED_FROM: &str = "retinker.restored_from";
/// Label of a restored run: the checkpoint's path.
pub const LABEL_CHECKPOINT: &str = "retinker.restored_checkpoint";
/// Label of a restored run: the first run of the lineage.
pub const LABEL_ROOT: &str = "retinker.root";
/// Label of a restored run: how many restores lie between the root and it.
pub const LABEL_GENERATION: &str = "retinker.generation";
/// Label of a run that no program may restore by itself. It is given at the run's creation and its successors keep it;
/// any value but `false` counts.
pub const LABEL_OPT_OUT: &str = "retinker.opt_out";

impl RestorePlan {
    /// The digest of everything but the id. It proves that a plan came back as it was shown; whoever may submit a
    /// plan may also make one, so it is no security boundary.
    pub fn digest(&self) -> String {
        let bare = Self { id: String::new(), ..self.clone() };
        // Members are written in the order of their declaration and maps are sorted, so equal plans give equal text.
        let text = serde_json::to_vec(&bare).unwrap_or_default();
        format!("plan-{:032x}", fnv1a_128(&text))
    }

    /// The same plan with its id set to its digest.
    #[must_use]
    pub fn sealed(mut self) -> Self {
        let checks = self.checks.iter_mut().map(|check| &mut check.detail);
        let rejected = self.rejected.iter_mut().map(|rejected| &mut rejected.reason);
        for text in [&mut self.why, &mut self.lost.summary].into_iter().chain(checks).chain(rejected) {
            *text = sentence(text);
        }
        self.id = self.digest();
        self
    }

    /// Whether the plan is still what its id says.
    pub fn verify_id(&self) -> bool {
        self.id == self.digest()
    }
}

/// FNV-1a with 128 bits: small in wasm, and two different plans do not meet by chance.
fn fnv1a_128(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    #[test]
    fn fnv_matches_its_published_values() {
        assert_eq!(fnv1a_128(b""), 0x6c62272e07bb014262b821756295c58d);
        assert_eq!(fnv1a_128(b"a"), 0xd228cb696f1a8caf78912b704e4a8964);
    }

    #[test]
    fn the_id_changes_with_the_plan_and_survives_json() {
        let plan = super::super::samples::plan("old");
        assert!(plan.verify_id());
        let back: RestorePlan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        assert!(back.verify_id());
        assert!(!RestorePlan { optimizer: !plan.optimizer, ..plan.clone() }.verify_id());
        let mut labels = plan.clone();
        labels.user_metadata.insert("name".into(), "other".into());
        assert!(!labels.verify_id());
        assert!(!RestorePlan { last_save: None, ..plan.clone() }.verify_id());
    }

    #[test]
    fn a_plan_from_before_new_members_is_still_what_its_id_says() {
        let old = r#"{"schema":1,"id":"plan-6037d9ad4a1437c49d893b3c1f6310af","run_id":"old",
            "made_at":"2001-09-09T01:48:20Z","checkpoint":{"checkpoint_id":"weights/a","checkpoint_type":"training",
            "time":"2001-09-09T01:45:00Z","tinker_path":"tinker://old/weights/a","public":false},
            "why":"It is the run's only checkpoint.","optimizer":true,"base_model":"base","lora_rank":8,
            "root_run_id":"old","generation":1,"user_metadata":{"retinker.generation":"1"},
            "lost":{"seconds":100,"summary":"Everything."},"checks":[],"rejected":[]}"#;
        let plan: RestorePlan = serde_json::from_str(old).unwrap();
        assert!(plan.verify_id(), "{}", plan.digest());
    }

    #[test]
    fn requests_are_read_with_their_defaults_and_written_without_them() {
        let bare: PlanRequest = serde_json::from_str(r#"{"run_id":"old"}"#).unwrap();
        assert_eq!(bare, PlanRequest::new("old"));
        let text = r#"{"run_id":"old","strategy":{"type":"latest_valid"},"optimizer":true}"#;
        assert_eq!(serde_json::to_string(&bare).unwrap(), text);
        let best: PlanRequest = serde_json::from_str(
            r#"{"run_id":"old","strategy":{"type":"best","metric":"loss","mode":"min"},"step_back":2}"#,
        )
        .unwrap();
        assert_eq!(best.strategy, Strategy::Best { metric: "loss".into(), mode: MetricMode::Min });
        assert_eq!(best.step_back, 2);
        let no_mode = serde_json::from_str::<Strategy>(r#"{"type":"best","metric":"loss"}"#).unwrap_err();
        assert!(no_mode.to_string().contains("mode"), "{no_mode}");
    }
}
