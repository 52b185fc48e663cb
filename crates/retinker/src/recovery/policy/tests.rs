use super::*;
use crate::client::testing::test;
use crate::recovery::plan::MetricMode;
use crate::recovery::samples::{self, checkpoint};

const NOW: i64 = 1_000_000_000_000;
const HOUR: i64 = 3_600_000;

fn at(ms: i64) -> Time {
    Time::from_millis(ms)
}

fn on() -> Policy {
    Policy { enabled: true, ..Policy::default() }
}

/// What a test's situation points into.
struct World {
    run: TrainingRun,
    verdict: Verdict,
    checkpoints: Option<Vec<Checkpoint>>,
    records: Vec<RestoreRecord>,
    gate: Gate,
    opted_out: bool,
    left_alone_until: Option<Time>,
    random: u64,
}

impl World {
    /// A poisoned run of this id with a checkpoint of its own, and no history.
    fn new(run_id: &str) -> Self {
        Self {
            run: samples::run(run_id, Some(true)),
            verdict: Verdict {
                health: Health::Poisoned,
                reason: "It failed.".into(),
                category: Some(FailureCategory::Server),
                since: None,
            },
            checkpoints: Some(vec![checkpoint(run_id, "own", NOW - 1)]),
            records: Vec::new(),
            gate: Gate::Open,
            opted_out: false,
            left_alone_until: None,
            random: 0,
        }
    }

    /// The history `r0 -> r1 -> ...`, each run restored two hours after the one before; the last is the poisoned one.
    fn after(restores: i64) -> Self {
        let mut world = Self::new(&format!("r{restores}"));
        for n in 0..restores {
            let begun = NOW - (restores - n) * 2 * HOUR;
            world.records.push(adopted(&format!("r{n}"), &format!("r{}", n + 1), begun));
        }
        world
    }

    /// Each run of the history saved something new, too soon to have lasted.
    fn saving_soon(mut self) -> Self {
        let mut made_at = at(0);
        for record in &mut self.records {
            record.plan.last_save = Some(made_at);
            made_at = record.created_at;
        }
        self.checkpoints = Some(vec![checkpoint(&self.run.training_run_id, "own", made_at.as_millis())]);
        self
    }

    fn labelled(mut self, name: &str, value: &str) -> Self {
        self.run.user_metadata.get_or_insert_default().insert(name.into(), value.into());
        self
    }

    fn decide(&self, policy: &Policy) -> Decision {
        self.decide_at(policy, NOW)
    }

    fn decide_at(&self, policy: &Policy, now: i64) -> Decision {
        decide(policy, &self.situation(now))
    }

    fn spent(&self) -> Spent {
        spent(&on(), &self.situation(NOW))
    }

    fn situation(&self, now: i64) -> Situation<'_> {
        Situation {
            run: &self.run,
            verdict: &self.verdict,
            checkpoints: self.checkpoints.as_deref(),
            records: &self.records,
            gate: self.gate,
            opted_out: self.opted_out,
            left_alone_until: self.left_alone_until,
            now: at(now),
            random: self.random,
        }
    }
}

/// A restore that a person has cancelled at once.
fn cancelled(old: &str, begun: i64) -> RestoreRecord {
    RestoreRecord { state: RestoreState::Cancelled, ..failed(old, begun) }
}

/// A restore that failed at once.
fn failed(old: &str, begun: i64) -> RestoreRecord {
    let mut record = samples::record(&format!("{old}-{begun}"), old);
    record.state = RestoreState::Failed;
    record.created_at = at(begun);
    record.updated_at = at(begun);
    record.plan.last_save = None;
    record
}

/// A restore whose run was adopted at once. The old run had saved nothing of its own.
fn adopted(old: &str, new: &str, begun: i64) -> RestoreRecord {
    let mut record = failed(old, begun);
    record.state = RestoreState::Adopted;
    record.new_run_id = Some(new.to_owned());
    record.last_request_time = Some(at(begun));
    record
}

fn attempts_spent(spent: u32) -> Decision {
    Decision::No(Refusal::AttemptsSpent { spent, allowed: 3 })
}

fn no_progress(runs: u32) -> Decision {
    Decision::No(Refusal::NoProgress { runs, allowed: 2 })
}

fn not_before(ms: i64, wait: Wait) -> Decision {
    Decision::NotBefore { at: at(ms), wait }
}

#[test]
fn defaults_are_those_of_tinkex_and_cannot_loop() {
    let written = serde_json::to_value(Policy::default()).unwrap();
    assert_eq!(
        written,
        serde_json::json!({
            "enabled": false,
            "max_attempts": 3,
            "max_no_progress": 2,
            "max_restores_per_hour": 60,
            "healthy_ms": 600_000,
            "backoff_ms": 5_000,
            "max_backoff_ms": 60_000,
            "poll_interval_ms": 30_000,
            "protect_ms": 604_800_000,
            "max_age_ms": 86_400_000,
            "step_back": true,
            "checkpoint_strategy": {"type": "latest_valid"},
            "restore_optimizer": true,
            "check_optimizer": false,
        })
    );
    assert_eq!(serde_json::from_value::<Policy>(written).unwrap(), Policy::default());
}

#[test]
fn policies_are_read_leniently() {
    let read = |text: &str| serde_json::from_str::<Policy>(text);
    assert_eq!(read("{}").unwrap(), Policy::default());
    let some = read(r#"{"enabled": true, "max_attempts": 5, "of_a_later_version": 1}"#).unwrap();
    assert_eq!(some, Policy { max_attempts: 5, ..on() });
    let path = "tinker://r/weights/a";
    for (text, strategy) in [
        (r#""latest""#, Strategy::LatestValid),
        (r#""latest_valid""#, Strategy::LatestValid),
        (r#"{"type": "latest_valid"}"#, Strategy::LatestValid),
        (r#""tinker://r/weights/a""#, Strategy::Specific { path: path.into() }),
        (r#"{"type": "specific", "path": "tinker://r/weights/a"}"#, Strategy::Specific { path: path.into() }),
        (
            r#"{"type": "best", "metric": "loss", "mode": "min"}"#,
            Strategy::Best { metric: "loss".into(), mode: MetricMode::Min },
        ),
    ] {
        let policy =
            read(&format!(r#"{{"checkpoint_strategy": {text}, "restore_optimizer": false}}"#)).unwrap();
        let expected = PlanRequest { strategy, optimizer: false, ..PlanRequest::new("r") };
        assert_eq!(policy.request(&World::new("r").situation(NOW)), expected, "{text}");
    }
    // Which metric, and which way, cannot be guessed.
    let error = read(r#"{"checkpoint_strategy": "best"}"#).unwrap_err().to_string();
    assert!(error.contains("'best' does not say which checkpoint"), "{error}");
}

#[test]
fn each_restored_run_that_came_to_nothing_is_a_step_back() {
    for runs in 0..3 {
        let mut world = World::after(i64::from(runs));
        world.checkpoints = Some(Vec::new());
        let request = |policy: &Policy| policy.request(&world.situation(NOW)).step_back;
        assert_eq!(request(&on()), runs, "none of them saved anything");
        assert_eq!(request(&Policy { step_back: false, ..on() }), 0);
        let path = "tinker://r/weights/a".to_owned();
        assert_eq!(request(&Policy { checkpoint_strategy: Strategy::Specific { path }, ..on() }), 0);
    }
}

#[test]
fn a_poisoned_run_without_history_is_restored_now() {
    let world = World::new("r");
    assert_eq!(world.decide(&on()), Decision::Restore);
    let mut world = world.labelled(LABEL_OPT_OUT, "false");
    assert_eq!(world.decide(&on()), Decision::Restore);
    for category in [None, Some(FailureCategory::Unknown)] {
        world.verdict.category = category;
        assert_eq!(world.decide(&on()), Decision::Restore, "{category:?}");
    }
    // A first run that never saved is no restored run that came to nothing.
    world.checkpoints = Some(Vec::new());
    assert_eq!(world.decide(&Policy { max_no_progress: 1, ..on() }), Decision::Restore);
}

#[test]
fn each_refusal_has_its_reason() {
    type Change = fn(&mut World, &mut Policy);
    let cases: [(Change, Refusal); 15] = [
        (|w, _| w.verdict.health = Health::Healthy, Refusal::NotPoisoned),
        (|w, _| w.verdict.health = Health::AtRisk, Refusal::NotPoisoned),
        (|w, _| w.verdict.health = Health::Recovered, Refusal::AlreadyRestored),
        (|w, _| w.verdict.health = Health::Unrecoverable, Refusal::NothingToRestoreFrom),
        (|w, _| w.records.push(adopted("r", "new", NOW - 1)), Refusal::AlreadyRestored),
        (|w, _| w.records.push(samples::record("x", "r")), Refusal::UnderWay),
        (|w, _| w.verdict.category = Some(FailureCategory::User), Refusal::UserFailure),
        (|w, _| w.opted_out = true, Refusal::OptedOut),
        (|w, _| *w = World::new("r").labelled(LABEL_OPT_OUT, ""), Refusal::OptedOut),
        (|w, _| w.records.extend([cancelled("r", NOW - 1), failed("r", NOW - 2)]), Refusal::Cancelled),
        (|_, p| p.enabled = false, Refusal::Off),
        (|_, p| p.max_attempts = 0, Refusal::Off),
        (|_, p| p.max_restores_per_hour = 0, Refusal::Off),
        (|w, _| w.gate = Gate::Paused, Refusal::Paused),
        (|w, _| w.gate = Gate::Draining, Refusal::Draining),
    ];
    for (index, (change, refusal)) in cases.into_iter().enumerate() {
        let (mut world, mut policy) = (World::new("r"), on());
        change(&mut world, &mut policy);
        assert_eq!(world.decide(&policy), Decision::No(refusal), "case {index}");
    }
    assert_eq!(World::new("r").decide(&Policy { max_no_progress: 0, ..on() }), Decision::No(Refusal::Off));
    // A person has asked for another restore since, and that one failed.
    let mut world = World::new("r");
    world.records.extend([cancelled("r", NOW - 4 * HOUR), failed("r", NOW - 3 * HOUR)]);
    assert_eq!(world.decide(&on()), Decision::Restore);
}

#[test]
fn failed_restores_spend_attempts_too() {
    let mut world = World::new("r");
    for n in 1..=3 {
        world.records.push(failed("r", NOW - n * 2 * HOUR));
        let decision = if n < 3 { Decision::Restore } else { attempts_spent(3) };
        assert_eq!(world.decide(&on()), decision, "{n}");
    }
    world.run.training_run_id = "another".into();
    assert_eq!(world.decide(&on()), Decision::Restore, "a lineage's attempts are its own");
}

#[test]
fn attempts_are_counted_over_the_whole_lineage() {
    for (restores, failures, decision) in [
        (1, 1, Decision::Restore),
        (2, 0, Decision::Restore),
        (2, 1, attempts_spent(3)),
        (3, 0, attempts_spent(3)),
    ] {
        let mut world = World::after(restores).saving_soon();
        world.records.extend((0..failures).map(|n| failed("r0", NOW - 20 * HOUR - n)));
        world.records.reverse();
        assert_eq!(world.decide(&on()), decision, "{restores} and {failures}");
    }
}

#[test]
fn only_a_run_that_was_healthy_and_then_saved_gives_the_budget_back() {
    let healthy = i64::try_from(on().healthy_ms).unwrap();
    for (saved_after, lasted) in [(healthy, true), (healthy - 1, false), (-1, false)] {
        // The poisoned run itself.
        let mut world = World::after(3).saving_soon();
        let adopted = world.records[2].last_request_time.unwrap().as_millis();
        world.checkpoints = Some(vec![checkpoint("r3", "own", adopted + saved_after)]);
        let decision = if lasted { Decision::Restore } else { attempts_spent(3) };
        assert_eq!(world.decide(&on()), decision, "{saved_after}");

        // One that it came from: what came before that does not count, the restore of it does.
        let mut world = World::after(4).saving_soon();
        let adopted = world.records[1].last_request_time.unwrap().as_millis();
        world.records[2].plan.last_save = Some(at(adopted + saved_after));
        assert_eq!(world.spent().attempts, if lasted { 2 } else { 4 }, "{saved_after}");
    }
    let mut world = World::after(3);
    assert_eq!(world.spent().attempts, 0, "saved just now");
    world.checkpoints = Some(Vec::new());
    assert_eq!(world.spent().attempts, 3, "healthy for two hours, and nothing saved");
    world.checkpoints = None;
    assert_eq!(world.spent().attempts, 3, "nothing known to have been saved");
    let mut world = World::after(3);
    world.records[2].last_request_time = None;
    assert_eq!(world.spent().attempts, 3, "since when it was healthy is not known");
}

#[test]
fn restored_runs_that_save_nothing_new_stop_the_lineage() {
    let mut world = World::after(2);
    let origin = world.records[1].plan.checkpoint.clone();
    // What it was restored from is not its own, and a sampler's checkpoint is no progress.
    let mut sampler = checkpoint("r2", "s", NOW - 1);
    sampler.checkpoint_type = retinker_wire::run::CheckpointType::Sampler;
    world.checkpoints = Some(vec![origin, sampler]);
    assert_eq!(world.decide(&on()), no_progress(2));
    // It is not held against a run that its checkpoints have not been read; its maker's run counts on.
    world.checkpoints = None;
    assert_eq!(world.decide(&on()), Decision::Restore);
    assert_eq!(world.spent().no_progress, 1);
    // A save of its own that the list of runs tells of is one, if too soon to have lasted.
    let soon = world.records[1].created_at.as_millis();
    world.run.last_checkpoint = Some(checkpoint("r2", "own", soon));
    assert_eq!(world.spent().no_progress, 1);
    world.records[1].plan.last_save = Some(at(soon - 1));
    world.records[0].last_request_time = Some(at(soon));
    assert_eq!(world.spent().no_progress, 0);
}

#[test]
fn where_the_journal_knows_nothing_labels_count() {
    for (generation, decision) in
        [("2", Decision::Restore), ("3", attempts_spent(3)), ("many", Decision::Restore)]
    {
        let world = World::new("r").labelled(LABEL_GENERATION, generation);
        assert_eq!(world.decide(&on()), decision, "{generation}");
    }
    let mut world = World::after(1).labelled(LABEL_GENERATION, "3");
    world.checkpoints = Some(vec![checkpoint("r1", "own", 0)]);
    world.records[0].plan.generation = 3;
    assert_eq!(world.decide(&on()), attempts_spent(3), "two that are not known, and one that is");
    world.records[0].plan.generation = 1;
    assert_eq!(world.decide(&on()), Decision::Restore, "the journal knows all");
    let mut world = World::new("r").labelled(LABEL_GENERATION, "1");
    world.checkpoints = Some(Vec::new());
    assert_eq!(world.spent().no_progress, 1);
}

#[test]
fn pauses_double_up_to_the_longest_and_are_shorter_by_chance() {
    let policy = Policy { max_attempts: 100, max_restores_per_hour: 1_000, ..on() };
    for (attempts, full) in [(1, 5_000), (2, 10_000), (3, 20_000), (4, 40_000), (5, 60_000), (99, 60_000)] {
        let mut world = World::new("r");
        world.records = (0..attempts).map(|n| failed("r", NOW - n)).collect();
        assert_eq!(world.decide(&policy), not_before(NOW + full, Wait::Backoff), "{attempts}");
        assert_eq!(world.decide_at(&policy, NOW + full), Decision::Restore, "{attempts}");
        world.random = 1 << 63;
        let shorter = full - full / 8;
        assert_eq!(world.decide(&policy), not_before(NOW + shorter, Wait::Backoff), "half of a quarter");
    }
    // From the restore's end, not from its hand-over.
    let mut world = World::after(1);
    world.checkpoints = Some(vec![checkpoint("r1", "own", 0)]);
    let story = [(RestoreState::Loading, 9), (RestoreState::Adopted, 3), (RestoreState::HandedOver, 1)];
    world.records[0].events = story
        .map(|(state, ago)| super::super::restore::RestoreEvent {
            at: at(NOW - ago),
            state,
            message: String::new(),
        })
        .into();
    world.records[0].updated_at = at(NOW - 1);
    assert_eq!(world.decide(&policy), not_before(NOW - 3 + 5_000, Wait::Backoff));
}

#[test]
fn the_hour_counts_restores_of_all_runs() {
    let policy = Policy { max_restores_per_hour: 2, ..on() };
    let mut world = World::new("r");
    world.records =
        [30, 10, 20].map(|minutes| failed(&format!("other{minutes}"), NOW - minutes * 60_000)).into();
    let free = NOW + 40 * 60_000;
    assert_eq!(world.decide(&policy), not_before(free, Wait::HourlyBudget), "the second newest has to pass");
    assert_eq!(world.decide_at(&policy, free - 1), not_before(free, Wait::HourlyBudget));
    assert_eq!(world.decide_at(&policy, free), Decision::Restore);
    world.records.truncate(1);
    assert_eq!(world.decide(&policy), Decision::Restore);
}

#[test]
fn what_takes_longest_is_waited_for() {
    let mut world = World::new("r");
    world.left_alone_until = Some(at(NOW + 1_000));
    assert_eq!(world.decide(&on()), not_before(NOW + 1_000, Wait::Service));
    world.records.push(failed("r", NOW));
    assert_eq!(world.decide(&on()), not_before(NOW + 5_000, Wait::Backoff));
    world.left_alone_until = Some(at(NOW));
    world.records.clear();
    assert_eq!(world.decide(&on()), Decision::Restore);
}

#[test]
fn a_journal_that_leads_round_in_a_circle_ends_in_a_refusal() {
    let mut world = World::after(3);
    world.records[0].plan.run_id = "r3".into();
    world.records[0].state = RestoreState::Failed;
    world.records.push(adopted("r2", "r1", 0));
    world.checkpoints = None;
    assert!(matches!(world.decide(&on()), Decision::No(_)));
}

/// Restores for as long as the policy lets it; each new run is poisoned after `lives` milliseconds, and saves at the
/// end of them where `saves`. Gives the number of restores and the last decision.
fn crash_loop(policy: &Policy, lives: i64, saves: bool) -> (usize, Decision) {
    let mut world = World::new("r0");
    let mut now = NOW;
    for _ in 0..10_000 {
        match world.decide_at(policy, now) {
            Decision::NotBefore { at, .. } => now = at.as_millis(),
            Decision::Restore => {
                let begun = world.records.len();
                let (old, new) = (format!("r{begun}"), format!("r{}", begun + 1));
                let mut record = adopted(&old, &new, now);
                let own = world.checkpoints.iter().flatten().find(|c| c.tinker_path.contains(&old));
                record.plan.last_save = own.map(|own| own.time);
                world.records.push(record);
                now += lives;
                world.run = samples::run(&new, Some(true));
                world.checkpoints = Some(if saves { vec![checkpoint(&new, "own", now)] } else { Vec::new() });
                if begun + 1 == 100 {
                    break;
                }
            }
            Decision::No(_) => break,
        }
    }
    let restores = world.records.len();
    (restores, world.decide_at(policy, now + HOUR))
}

#[test]
fn a_run_that_is_poisoned_again_and_again_stops_at_its_budget() {
    assert_eq!(crash_loop(&on(), 1_000, false), (2, no_progress(2)));
    assert_eq!(
        crash_loop(&on(), 24 * HOUR, false),
        (2, no_progress(2)),
        "a day without a save is no progress"
    );
    assert_eq!(crash_loop(&on(), 1_000, true), (3, attempts_spent(3)));
    assert_eq!(crash_loop(&on(), 599_999, true), (3, attempts_spent(3)));
    assert_eq!(crash_loop(&on(), 600_000, true), (100, Decision::Restore), "work is saved: it goes on");
}

#[test]
fn reasons_are_sentences_and_codes() {
    let Decision::No(refusal) = attempts_spent(4) else { panic!() };
    assert_eq!(
        refusal.to_string(),
        "It and the runs that it came from have been restored 4 times, and 3 are allowed until one lasts. \
         Find the cause, then restore it by hand."
    );
    for (decision, json) in [
        (Decision::Restore, serde_json::json!({"decision": "restore"})),
        (
            not_before(0, Wait::HourlyBudget),
            serde_json::json!({"decision": "not_before", "at": "1970-01-01T00:00:00Z", "wait": "hourly_budget"}),
        ),
        (
            attempts_spent(4),
            serde_json::json!({"decision": "no", "code": "attempts_spent", "spent": 4, "allowed": 3}),
        ),
    ] {
        assert_eq!(serde_json::to_value(decision).unwrap(), json);
    }
}
