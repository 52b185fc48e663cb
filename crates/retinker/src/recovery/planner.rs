//! Makes a plan: facts are gathered from the service, and a pure function chooses.

use std::collections::BTreeMap;

use futures_util::future::join;
use retinker_wire::capabilities::ServerCapabilities;
use retinker_wire::path::TinkerPath;
use retinker_wire::run::{Checkpoint, CheckpointType, TrainingRun};
use retinker_wire::series::RunStory;
use retinker_wire::time::Time;
use retinker_wire::weights::WeightsInfoResponse;

use self::selection::select;
use super::health::{EXPIRES_SOON_MS, Succession, newest_usable};
use super::plan::{
    Check, CheckOutcome, LABEL_CHECKPOINT, LABEL_GENERATION, LABEL_RESTORE_ID, LABEL_RESTORED_FROM,
    LABEL_ROOT, LostWork, NoPlan, PlanRequest, RestorePlan, SCHEMA_VERSION,
};
use super::probe::Probe;
use super::restore::RestoreRecord;
use crate::client::{Api, Error};

mod selection;

/// What the service says a checkpoint fits.
#[derive(Debug, Clone, PartialEq)]
pub enum WeightsAnswer {
    /// It told.
    Info(WeightsInfoResponse),
    /// It refused the checkpoint: damaged, gone, or of the wrong kind. The text is its reason.
    Refused(String),
    /// It cannot tell.
    Unknown,
}

/// Everything a plan is made from.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The run.
    pub run: TrainingRun,
    /// The checkpoints that it could be restored from, in any order.
    pub checkpoints: Vec<Checkpoint>,
    /// The path of the one among them that the run itself was restored from.
    pub origin: Option<String>,
    /// What the service offers; `None` where it does not say.
    pub capabilities: Option<ServerCapabilities>,
    /// What is known of checkpoints, by path. One that is absent has not been asked about.
    pub weights: BTreeMap<String, WeightsAnswer>,
    /// The restore that holds the run, if one does.
    pub succession: Option<Succession>,
    /// What happened to the run, where the service tells that.
    pub story: Option<RunStory>,
    /// The time.
    pub now: Time,
}

/// The path of the checkpoint that this run was restored from: by the restore that made it, where the journal knows
/// one, else by the run's labels, which some services do not keep.
pub fn origin_of(run: &TrainingRun, made_by: Option<&RestoreRecord>) -> Option<String> {
    let labelled = || run.user_metadata.as_ref()?.get(LABEL_CHECKPOINT).cloned();
    made_by.map(|record| record.plan.checkpoint.tinker_path.clone()).or_else(labelled)
}

/// The checkpoints that this run could be restored from: its own, and the one that it was restored from itself, as
/// long as the run that it belongs to still lists it.
///
/// # Errors
/// A list could not be read; that the origin's run is gone is no error.
pub async fn candidates(
    api: &Api,
    run: &TrainingRun,
    origin: Option<&str>,
) -> Result<Vec<Checkpoint>, Error> {
    let mut found = api.run_checkpoints(&run.training_run_id).await?.checkpoints;
    let last = run.last_checkpoint.clone();
    found.extend(last.filter(|c| found.iter().all(|k| k.tinker_path != c.tinker_path)));
    let missing = origin.filter(|path| found.iter().all(|k| k.tinker_path != **path));
    if let Some((path, owner)) = missing.and_then(|path| Some((path, path.parse::<TinkerPath>().ok()?))) {
        match api.run_checkpoints(&owner.training_run_id).await {
            // What the origin's run saved later was passed over, with a reason, when this run was made.
            Ok(list) => {
                let made_from = list.checkpoints.iter().find(|c| c.tinker_path == path).map(|c| c.time);
                let older = |c: &Checkpoint| made_from.is_some_and(|at| c.time < at) || c.tinker_path == path;
                found.extend(list.checkpoints.into_iter().filter(older));
            }
            Err(error) if matches!(error.status(), Some(403 | 404)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Reads all facts from the service. Checkpoints are asked about one after the other, newest first, until one can
/// be used. `made_by` is the restore that made the run, where the journal knows one.
pub async fn gather(
    api: &Api,
    request: &PlanRequest,
    succession: Option<Succession>,
    made_by: Option<&RestoreRecord>,
    now: Time,
) -> Result<Facts, Error> {
    let run = api.training_run(&request.run_id).await?;
    let mut facts = Facts {
        origin: origin_of(&run, made_by),
        run,
        checkpoints: Vec::new(),
        capabilities: None,
        weights: excluded(request),
        succession,
        story: None,
        now,
    };
    if refusal(&facts, request).is_some() {
        return Ok(facts);
    }
    facts.checkpoints = candidates(api, &facts.run, facts.origin.as_deref()).await?;
    // How much is lost is told better by the story: a plan is made without it as well.
    let (capabilities, story) = join(api.capabilities(), api.run_story(&request.run_id)).await;
    facts.story = story.ok();
    facts.capabilities = match capabilities {
        Ok(capabilities) => Some(capabilities),
        Err(error) if error.is_unsupported() => None,
        Err(error) => return Err(error),
    };
    while let Some(path) = next_question(&facts, request) {
        let answer = match api.weights_info(&path).await {
            Ok(info) => WeightsAnswer::Info(info),
            Err(error) => weights_answer(error)?,
        };
        facts.weights.insert(path, answer);
    }
    Ok(facts)
}

/// What speaks against the checkpoints that are not to be taken.
fn excluded(request: &PlanRequest) -> BTreeMap<String, WeightsAnswer> {
    let useless = || WeightsAnswer::Refused("An earlier restore could not use it.".to_owned());
    let mut weights = BTreeMap::new();
    weights.extend(request.exclude.iter().map(|path| (path.clone(), useless())));
    weights
}

/// What a failed `weights_info` says of the checkpoint. That the service cannot be reached, or is overloaded, says
/// nothing of it, and is an error. Nor does a 500, which may be any failure: the load will tell.
fn weights_answer(error: Error) -> Result<WeightsAnswer, Error> {
    match error.status() {
        // 404 and 422 are also the answers for an unknown checkpoint; only a missing endpoint is without a detail.
        Some(404 | 405 | 422) if error.is_unsupported() => Ok(WeightsAnswer::Unknown),
        Some(500) => Ok(WeightsAnswer::Unknown),
        Some(400 | 404 | 422) => Ok(WeightsAnswer::Refused(error.to_string())),
        _ => Err(error),
    }
}

/// The checkpoint that a plan would take, as far as can be told without asking the service about each.
pub(super) fn preferred(
    run: &TrainingRun,
    checkpoints: &[Checkpoint],
    origin: Option<&str>,
    request: &PlanRequest,
    now: Time,
) -> Option<Checkpoint> {
    let facts = Facts {
        run: run.clone(),
        checkpoints: checkpoints.to_vec(),
        origin: origin.map(str::to_owned),
        capabilities: None,
        weights: excluded(request),
        succession: None,
        story: None,
        now,
    };
    select(&facts, request).chosen.cloned()
}

/// The path that has to be asked about before a plan can be made; `None` when there are facts enough.
pub fn next_question(facts: &Facts, request: &PlanRequest) -> Option<String> {
    let selection = select(facts, request);
    let unknown = selection.rests_on().find(|c| !facts.weights.contains_key(&c.tinker_path))?;
    Some(unknown.tinker_path.clone())
}

/// Why weights of this kind cannot be loaded by this service.
fn unfit(facts: &Facts, info: &WeightsInfoResponse) -> Option<String> {
    let base = if info.base_model.is_empty() { &facts.run.base_model } else { &info.base_model };
    (offered(facts, base) == Some(false))
        .then(|| format!("The service does not offer its base model {base} now."))
}

/// Whether the service offers this base model for training; `None` where it does not say.
fn offered(facts: &Facts, base_model: &str) -> Option<bool> {
    let models = &facts.capabilities.as_ref()?.supported_models;
    let mut named = models.iter().filter(|model| model.model_name.is_some()).peekable();
    named.peek()?;
    Some(named.any(|m| m.model_name.as_deref() == Some(base_model) && m.trainable != Some(false)))
}

fn refusal(facts: &Facts, request: &PlanRequest) -> Option<NoPlan> {
    let run = &facts.run.training_run_id;
    if let Some(Succession { restore_id, new_run_id }) = &facts.succession {
        let message = match new_run_id {
            Some(new_run) => {
                format!("Run {run} has been restored already: run {new_run} has taken its place.")
            }
            None => format!("A restore of run {run} is under way."),
        };
        return Some(NoPlan::AlreadyRestored { message, restore_id: restore_id.clone() });
    }
    if facts.run.corrupted != Some(true) && request.observed.is_none() {
        let message = if facts.run.corrupted.is_none() {
            format!("The service does not say that run {run} is corrupted, so there is nothing to restore.")
        } else {
            format!("Run {run} is not corrupted, so there is nothing to restore.")
        };
        return Some(NoPlan::NotPoisoned { message });
    }
    None
}

/// Makes the plan, or says why there is none.
pub fn make_plan(facts: &Facts, request: &PlanRequest) -> Result<RestorePlan, NoPlan> {
    if let Some(no_plan) = refusal(facts, request) {
        return Err(no_plan);
    }
    let run = &facts.run;
    let run_id = &run.training_run_id;
    let selection = select(facts, request);
    let Some(checkpoint) = selection.chosen else {
        return Err(selection.no_candidate(run_id, request));
    };
    let info = match facts.weights.get(&checkpoint.tinker_path) {
        Some(WeightsAnswer::Info(info)) => Some(info),
        _ => None,
    };
    let base_model =
        info.map(|info| &info.base_model).filter(|base| !base.is_empty()).unwrap_or(&run.base_model);
    let labels = run.user_metadata.clone().unwrap_or_default();
    let root_run_id = labels.get(LABEL_ROOT).cloned().unwrap_or_else(|| run_id.clone());
    let generation =
        labels.get(LABEL_GENERATION).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0).saturating_add(1);
    let mut user_metadata = labels;
    user_metadata.remove(LABEL_RESTORE_ID);
    user_metadata.insert(LABEL_RESTORED_FROM.to_owned(), run_id.clone());
    user_metadata.insert(LABEL_CHECKPOINT.to_owned(), checkpoint.tinker_path.clone());
    user_metadata.insert(LABEL_ROOT.to_owned(), root_run_id.clone());
    user_metadata.insert(LABEL_GENERATION.to_owned(), generation.to_string());
    let plan = RestorePlan {
        schema: SCHEMA_VERSION,
        id: String::new(),
        run_id: run_id.clone(),
        observed: request.observed.filter(|_| run.corrupted != Some(true)),
        made_at: facts.now,
        checkpoint: checkpoint.clone(),
        why: selection.why(facts, request, checkpoint),
        optimizer: request.optimizer,
        check_optimizer: request.check_optimizer && request.optimizer,
        base_model: base_model.clone(),
        lora_rank: info.and_then(|info| info.lora_rank).or(run.lora_rank),
        root_run_id,
        generation,
        user_metadata,
        lost: lost(facts, checkpoint),
        last_save: last_save(run_id, &facts.checkpoints, facts.origin.as_deref()),
        checks: checks(facts, request, checkpoint, info),
        rejected: selection.passed_over(),
    };
    Ok(plan.sealed())
}

/// When the run saved its newest training checkpoint of its own, among those that it could be restored from.
pub(super) fn last_save<'a>(
    run_id: &str,
    checkpoints: impl IntoIterator<Item = &'a Checkpoint>,
    origin: Option<&str>,
) -> Option<Time> {
    checkpoints
        .into_iter()
        .filter(|checkpoint| checkpoint.checkpoint_type == CheckpointType::Training)
        .filter(|checkpoint| origin != Some(checkpoint.tinker_path.as_str()))
        .filter(|checkpoint| !is_anothers(checkpoint, run_id))
        .map(|checkpoint| checkpoint.time)
        .max()
}

/// Whether the path says that another run saved this checkpoint.
fn is_anothers(checkpoint: &Checkpoint, run_id: &str) -> bool {
    checkpoint.tinker_path.parse::<TinkerPath>().is_ok_and(|path| path.training_run_id != run_id)
}

/// Steps are known where the service counts a run's: a label `step` of the run was written at its creation.
fn lost(facts: &Facts, checkpoint: &Checkpoint) -> LostWork {
    let steps = facts.story.as_ref().and_then(|story| {
        let (reached, saved) =
            (story.corruption.as_ref()?.step?, story.saved_steps.get(&checkpoint.tinker_path)?);
        Some(reached.saturating_sub(*saved))
    });
    let counted = match steps {
        None | Some(0) => String::new(),
        Some(1) => ": 1 optimizer step, as far as is known".to_owned(),
        Some(steps) => format!(": {steps} optimizer steps, as far as is known"),
    };
    let millis = facts.run.last_request_time.as_millis().saturating_sub(checkpoint.time.as_millis()).max(0);
    let seconds = millis / 1000;
    let back_to = checkpoint
        .user_metadata
        .as_ref()
        .and_then(|labels| labels.get("step"))
        .and_then(|step| step.parse::<u64>().ok())
        .map(|step| format!(" Training goes on from step {step}."))
        .unwrap_or_default();
    let summary = if millis == 0 {
        format!(
            "Nothing, as far as the service tells: its last request came before the checkpoint was saved.{back_to}"
        )
    } else {
        // Many steps fit into a second: a short time is not called little work.
        let before = if seconds == 0 { "less than a second".to_owned() } else { span(seconds) };
        format!(
            "Everything after the checkpoint, which was saved {before} before the run's last request{counted}.{back_to}"
        )
    };
    LostWork { seconds, steps, summary }
}

/// A length of time for people, in its two largest units.
fn span(seconds: i64) -> String {
    let (days, hours, minutes, rest) =
        (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")];
    let first = parts.iter().position(|(n, _)| *n > 0).unwrap_or(3);
    parts
        .iter()
        .skip(first)
        .take(2)
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n} {unit}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn checks(
    facts: &Facts,
    request: &PlanRequest,
    checkpoint: &Checkpoint,
    info: Option<&WeightsInfoResponse>,
) -> Vec<Check> {
    let check = |name: &str, outcome, detail: String| Check { name: name.to_owned(), outcome, detail };
    let id = &checkpoint.checkpoint_id;
    let base =
        info.map(|info| info.base_model.as_str()).filter(|b| !b.is_empty()).unwrap_or(&facts.run.base_model);
    let mut checks = vec![
        match request.observed.filter(|_| facts.run.corrupted != Some(true)) {
            None => check("the run is corrupted", CheckOutcome::Passed, "The service says so.".into()),
            Some(symptom) => check(
                "the run is corrupted",
                CheckOutcome::Warning,
                format!(
                    "The service does not say so. {} Stop the program that trains it: two would train the same \
                     thing.",
                    symptom.sentence()
                ),
            ),
        },
        probe_check(checkpoint),
        match info {
            Some(_) => check(
                "the checkpoint can be read",
                CheckOutcome::Passed,
                format!("The service has looked at {id} and tells what it fits."),
            ),
            None => check(
                "the checkpoint can be read",
                CheckOutcome::Unknown,
                format!(
                    "The service cannot tell; if {id} is damaged, the restore fails and nothing is lost."
                ),
            ),
        },
        expiry_check(facts, checkpoint),
        match offered(facts, base) {
            Some(_) => check(
                "the base model is offered",
                CheckOutcome::Passed,
                format!("The service offers {base}."),
            ),
            None => check(
                "the base model is offered",
                CheckOutcome::Unknown,
                format!("The service does not say whether it offers {base}."),
            ),
        },
        shape_check(&facts.run, info),
    ];
    checks.push(if request.optimizer {
        check(
            "the optimizer's state is restored",
            CheckOutcome::Unknown,
            match request.check_optimizer {
                true => {
                    "A training checkpoint holds it; that it came back is found out on throw-away copies."
                }
                false => "A training checkpoint holds it; whether a load brings it back is not looked into.",
            }
            .into(),
        )
    } else {
        check(
            "the optimizer's state is restored",
            CheckOutcome::Warning,
            "Only the weights are: the first loss is the same, later ones differ.".into(),
        )
    });
    if newest_usable(&facts.checkpoints, facts.now).is_some_and(|newest| newest.time > checkpoint.time) {
        checks.push(check(
            "it is the newest checkpoint",
            CheckOutcome::Warning,
            "There is a newer one; work that it holds is not in the new run.".into(),
        ));
    }
    checks
}

/// Whether it will be possible to tell that the restored run is the one that was saved.
fn probe_check(checkpoint: &Checkpoint) -> Check {
    let name = "the restored run can be verified".to_owned();
    let (outcome, detail) = match Probe::of_checkpoint(checkpoint) {
        Ok(Some(_)) => (
            CheckOutcome::Passed,
            "A probe was saved with the checkpoint; it is compared before the run is adopted.".into(),
        ),
        Ok(None) => (CheckOutcome::Unknown, "No probe was saved with the checkpoint to compare with.".into()),
        Err(error) => (CheckOutcome::Warning, format!("Its probe is of no use: {error}.")),
    };
    Check { name, outcome, detail }
}

fn expiry_check(facts: &Facts, checkpoint: &Checkpoint) -> Check {
    let name = "the checkpoint does not expire soon".to_owned();
    match checkpoint.expires_at {
        None => Check { name, outcome: CheckOutcome::Passed, detail: "It has no expiry.".into() },
        Some(at) => {
            let soon = at.as_millis().saturating_sub(facts.now.as_millis()) < EXPIRES_SOON_MS;
            let outcome = if soon { CheckOutcome::Warning } else { CheckOutcome::Passed };
            Check { name, outcome, detail: format!("It expires at {at:#}.") }
        }
    }
}

fn shape_check(run: &TrainingRun, info: Option<&WeightsInfoResponse>) -> Check {
    let name = "the checkpoint has the run's shape".to_owned();
    let Some(info) = info else {
        return Check { name, outcome: CheckOutcome::Unknown, detail: "The service cannot tell.".into() };
    };
    if !info.base_model.is_empty() && !run.base_model.is_empty() && info.base_model != run.base_model {
        let detail = format!("It was trained on {}, the run on {}.", info.base_model, run.base_model);
        return Check { name, outcome: CheckOutcome::Warning, detail };
    }
    match (info.lora_rank, run.lora_rank) {
        (Some(a), Some(b)) if a != b => Check {
            name,
            outcome: CheckOutcome::Warning,
            detail: format!("Its adapter has rank {a}, the run's has rank {b}."),
        },
        (Some(rank), Some(_)) => Check {
            name,
            outcome: CheckOutcome::Passed,
            detail: format!("The same base model, and an adapter of rank {rank}."),
        },
        _ => Check {
            name,
            outcome: CheckOutcome::Unknown,
            detail: "The service does not tell the rank.".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use retinker_wire::capabilities::SupportedModel;
    use retinker_wire::series::Corruption;

    use super::super::plan::{Rejected, Strategy};
    use super::super::samples::{checkpoint, run};
    use super::*;
    use crate::client::testing::test;

    const LAST: i64 = 1_000_000_000_000;

    fn facts(checkpoints: Vec<Checkpoint>) -> Facts {
        Facts {
            run: run("old", Some(true)),
            checkpoints,
            origin: None,
            capabilities: None,
            weights: BTreeMap::new(),
            succession: None,
            story: None,
            now: Time::from_millis(LAST + 60_000),
        }
    }

    fn request() -> PlanRequest {
        PlanRequest::new("old")
    }

    fn path(name: &str) -> String {
        format!("tinker://old/weights/{name}")
    }

    fn info(base: &str) -> WeightsAnswer {
        WeightsAnswer::Info(WeightsInfoResponse {
            base_model: base.into(),
            is_lora: true,
            lora_rank: Some(8),
            ..Default::default()
        })
    }

    fn three() -> Facts {
        facts(vec![
            checkpoint("old", "b", LAST - 20_000),
            checkpoint("old", "c", LAST - 10_000),
            checkpoint("old", "a", LAST - 30_000),
        ])
    }

    #[test]
    fn the_newest_is_asked_about_and_chosen() {
        let mut facts = three();
        assert_eq!(next_question(&facts, &request()), Some(path("c")));
        facts.weights.insert(path("c"), info("base"));
        assert_eq!(next_question(&facts, &request()), None);
        let plan = make_plan(&facts, &request()).unwrap();
        assert_eq!(plan.checkpoint.tinker_path, path("c"));
        assert_eq!(plan.lost.seconds, 10);
        assert!(plan.lost.summary.contains("10 s before"), "{}", plan.lost.summary);
        assert!(plan.verify_id());
        assert!(plan.rejected.is_empty());
    }

    #[test]
    fn a_damaged_one_is_rejected_and_the_next_older_one_is_asked_about() {
        let mut facts = three();
        facts.weights.insert(path("c"), WeightsAnswer::Refused("checksum does not match".into()));
        assert_eq!(next_question(&facts, &request()), Some(path("b")));
        facts.weights.insert(path("b"), info("base"));
        let plan = make_plan(&facts, &request()).unwrap();
        assert_eq!(plan.checkpoint.tinker_path, path("b"));
        assert_eq!(
            plan.rejected,
            [Rejected { tinker_path: path("c"), reason: "checksum does not match".into() }]
        );
        assert!(plan.why.contains("1 newer one cannot"), "{}", plan.why);
    }

    #[test]
    fn when_none_can_be_used_each_has_its_reason() {
        let mut facts = three();
        for name in ["a", "b", "c"] {
            facts.weights.insert(path(name), WeightsAnswer::Refused(format!("{name} is damaged")));
        }
        let Err(NoPlan::NoUsableCheckpoint { rejected, .. }) = make_plan(&facts, &request()) else {
            panic!()
        };
        let reasons: Vec<_> = rejected.iter().map(|r| r.reason.as_str()).collect();
        assert_eq!(reasons, ["c is damaged", "b is damaged", "a is damaged"]);
    }

    #[test]
    fn nothing_to_restore_from() {
        let mut sampler = checkpoint("old", "s", LAST);
        sampler.checkpoint_type = CheckpointType::Sampler;
        for checkpoints in [vec![], vec![sampler]] {
            let answer = make_plan(&facts(checkpoints), &request());
            assert!(matches!(answer, Err(NoPlan::NoCheckpoint { .. })), "{answer:?}");
        }
    }

    #[test]
    fn expiry_counts_with_its_margin() {
        for (left_ms, chosen) in [(60_000, "c"), (59_999, "b"), (-1, "b")] {
            let mut facts = three();
            let now = facts.now.as_millis();
            facts.checkpoints[1].expires_at = Some(Time::from_millis(now + left_ms));
            let plan = make_plan(&facts, &request()).unwrap();
            assert_eq!(plan.checkpoint.tinker_path, path(chosen), "{left_ms}");
        }
    }

    #[test]
    fn a_specific_one_is_taken_or_refused_by_name() {
        let facts = three();
        let ask = |name: &str| PlanRequest { strategy: Strategy::Specific { path: path(name) }, ..request() };
        let plan = make_plan(&facts, &ask("a")).unwrap();
        assert_eq!(plan.checkpoint.tinker_path, path("a"));
        assert!(plan.checks.iter().any(|c| c.outcome == CheckOutcome::Warning && c.detail.contains("newer")));
        let Err(NoPlan::NoUsableCheckpoint { message, .. }) = make_plan(&facts, &ask("zz")) else { panic!() };
        assert!(message.contains("not among"), "{message}");
    }

    #[test]
    fn a_base_model_that_is_not_offered_is_no_candidate() {
        let mut facts = three();
        facts.capabilities = Some(ServerCapabilities {
            supported_models: vec![SupportedModel { model_name: Some("other".into()), ..Default::default() }],
        });
        for name in ["a", "b", "c"] {
            facts.weights.insert(path(name), info("base"));
        }
        let Err(NoPlan::NoUsableCheckpoint { rejected, .. }) = make_plan(&facts, &request()) else {
            panic!()
        };
        assert!(rejected[0].reason.contains("does not offer its base model base"), "{}", rejected[0].reason);
        facts.capabilities.as_mut().unwrap().supported_models.clear();
        assert!(make_plan(&facts, &request()).is_ok(), "an empty list says nothing");
    }

    #[test]
    fn only_a_corrupted_run_without_a_successor_is_planned_for() {
        for corrupted in [None, Some(false)] {
            let mut facts = three();
            facts.run.corrupted = corrupted;
            assert!(matches!(make_plan(&facts, &request()), Err(NoPlan::NotPoisoned { .. })));
        }
        let mut facts = three();
        facts.succession = Some(Succession { restore_id: "r1".into(), new_run_id: None });
        let Err(NoPlan::AlreadyRestored { restore_id, .. }) = make_plan(&facts, &request()) else { panic!() };
        assert_eq!(restore_id, "r1");
    }

    #[test]
    fn the_last_save_is_the_runs_own_whichever_checkpoint_is_taken() {
        let mut facts = three();
        let oldest = PlanRequest { strategy: Strategy::Specific { path: path("a") }, ..request() };
        for request in [request(), oldest] {
            let plan = make_plan(&facts, &request).unwrap();
            assert_eq!(plan.last_save, Some(Time::from_millis(LAST - 10_000)));
        }
        facts.checkpoints[0].checkpoint_type = CheckpointType::Sampler;
        facts.origin = Some(path("c"));
        assert_eq!(
            make_plan(&facts, &request()).unwrap().last_save,
            Some(Time::from_millis(LAST - 30_000)),
            "neither a sampler's nor the origin"
        );
        facts.checkpoints.truncate(2);
        assert_eq!(make_plan(&facts, &request()).unwrap().last_save, None);
    }

    #[test]
    fn labels_are_copied_and_the_lineage_grows() {
        let mut facts = three();
        facts.run.user_metadata = Some(
            [
                ("name", "mine"),
                (LABEL_ROOT, "first"),
                (LABEL_GENERATION, "2"),
                (LABEL_RESTORE_ID, "old-restore"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        );
        let plan = make_plan(&facts, &request()).unwrap();
        let labels = &plan.user_metadata;
        assert_eq!(labels["name"], "mine");
        assert_eq!(labels[LABEL_ROOT], "first");
        assert_eq!(labels[LABEL_GENERATION], "3");
        assert_eq!(labels[LABEL_RESTORED_FROM], "old");
        assert_eq!(labels[LABEL_CHECKPOINT], path("c"));
        assert!(!labels.contains_key(LABEL_RESTORE_ID));
        assert_eq!((plan.root_run_id.as_str(), plan.generation), ("first", 3));
    }

    #[test]
    fn what_is_lost_is_not_made_small() {
        for (saved_before, seconds, part) in [
            (0, 0, "Nothing, as far as the service tells"),
            (-5, 0, "Nothing, as far as the service tells"),
            (1, 0, "Everything after the checkpoint, which was saved less than a second before"),
            (61_000, 61, "saved 1 min 1 s before"),
        ] {
            let mut checkpoint = checkpoint("old", "a", LAST - saved_before);
            checkpoint.user_metadata = Some([("step".to_owned(), "40".to_owned())].into());
            let mut facts = facts(Vec::new());
            let told = lost(&facts, &checkpoint);
            assert_eq!((told.seconds, told.steps), (seconds, None));
            assert!(told.summary.contains(part), "{}", told.summary);
            assert!(told.summary.ends_with("Training goes on from step 40."), "{}", told.summary);
            for (reached, steps, part) in
                [(52, 12, "12 optimizer steps"), (41, 1, "1 optimizer step,"), (40, 0, "last request.")]
            {
                facts.story = Some(RunStory {
                    created_at: facts.now,
                    origin_path: None,
                    corruption: Some(Corruption { reason: "lost".into(), since: None, step: Some(reached) }),
                    unsaved: None,
                    saved_steps: [(checkpoint.tinker_path.clone(), 40)].into(),
                });
                let counted = lost(&facts, &checkpoint);
                assert_eq!((counted.seconds, counted.steps), (seconds, Some(steps)));
                assert!(saved_before <= 0 || counted.summary.contains(part), "{}", counted.summary);
            }
        }
    }

    #[test]
    fn spans_read_well() {
        for (seconds, text) in [(0, ""), (7, "7 s"), (60, "1 min"), (200, "3 min 20 s"), (90_061, "1 d 1 h")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
