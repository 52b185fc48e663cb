use std::collections::BTreeMap;

use retinker_wire::time::Time;
use retinker_wire::weights::WeightsInfoResponse;

use super::super::{make_plan, next_question};
use super::*;
use crate::client::testing::test;
use crate::recovery::plan::{CheckOutcome, RestorePlan};
use crate::recovery::samples::{checkpoint, run};

const NOW: i64 = 1_000_000_060_000;

/// Five checkpoints, `e` the newest. By loss: `b` best, then `d` and `a` alike, then `c`; `e` tells none. The list is
/// in none of these orders.
fn five() -> Facts {
    let saved = [("b", 2, "-0.5"), ("e", 5, ""), ("c", 3, "3e-1"), ("a", 1, "0.25"), ("d", 4, " 0.25 ")];
    let checkpoints = saved.map(|(name, second, loss)| {
        let mut checkpoint = checkpoint("old", name, NOW - 60_000 + 1_000 * second);
        checkpoint.user_metadata = Some([("loss".to_owned(), loss.to_owned())].into());
        if loss.is_empty() {
            checkpoint.user_metadata = None;
        }
        checkpoint
    });
    Facts {
        run: run("old", Some(true)),
        checkpoints: checkpoints.into(),
        origin: None,
        capabilities: None,
        weights: BTreeMap::new(),
        succession: None,
        story: None,
        now: Time::from_millis(NOW),
    }
}

fn path(name: &str) -> String {
    format!("tinker://old/weights/{name}")
}

fn best(mode: MetricMode) -> Strategy {
    Strategy::Best { metric: "loss".into(), mode }
}

fn ask(strategy: Strategy, step_back: u32) -> PlanRequest {
    PlanRequest { strategy, step_back, ..PlanRequest::new("old") }
}

impl Facts {
    fn get(&mut self, name: &str) -> &mut Checkpoint {
        self.checkpoints.iter_mut().find(|c| c.tinker_path == path(name)).unwrap()
    }

    fn expired(mut self, names: &str) -> Self {
        for name in names.chars() {
            self.get(&name.to_string()).expires_at = Some(Time::from_millis(NOW - 1));
        }
        self
    }

    fn labelled(mut self, name: &str, loss: &str) -> Self {
        self.get(name).user_metadata = Some([("loss".to_owned(), loss.to_owned())].into());
        self
    }
}

/// Asks the service, which refuses the `damaged` ones, as long as there is something to ask; then plans. Also gives
/// what was asked about, in order.
fn plan(mut facts: Facts, damaged: &str, request: &PlanRequest) -> (Result<RestorePlan, NoPlan>, String) {
    let mut asked = String::new();
    while let Some(path) = next_question(&facts, request) {
        let name = path.chars().last().unwrap();
        asked.push(name);
        let answer = if damaged.contains(name) {
            WeightsAnswer::Refused(format!("{name} is damaged"))
        } else {
            WeightsAnswer::Info(WeightsInfoResponse { base_model: "base".into(), ..Default::default() })
        };
        facts.weights.insert(path, answer);
    }
    (make_plan(&facts, request), asked)
}

fn names(paths: impl IntoIterator<Item = String>) -> String {
    paths.into_iter().map(|path| path.chars().last().unwrap()).collect()
}

#[test]
fn each_strategy_with_step_back_expiry_and_damage() {
    use MetricMode::{Max, Min};
    use Strategy::LatestValid;
    let named = |name: &str| Strategy::Specific { path: path(name) };
    for (strategy, step_back, expired, damaged, chosen, asked, passed_over) in [
        (LatestValid, 0, "", "", "e", "e", ""),
        (LatestValid, 1, "", "", "d", "ed", "e"),
        (LatestValid, 4, "", "", "a", "edcba", "edcb"),
        // What cannot be used is not counted as stepped back over.
        (LatestValid, 1, "e", "", "c", "dc", "de"),
        (LatestValid, 1, "", "e", "c", "edc", "de"),
        (LatestValid, 1, "", "d", "c", "edc", "ed"),
        (LatestValid, 2, "d", "c", "a", "ecba", "ebdc"),
        (named("c"), 0, "", "", "c", "c", ""),
        (best(Min), 0, "", "", "b", "b", "e"),
        (best(Max), 0, "", "", "c", "c", "e"),
        // Of equal ones the newest, then the other.
        (best(Min), 0, "b", "", "d", "d", "eb"),
        (best(Min), 0, "b", "d", "a", "da", "ebd"),
        (best(Max), 0, "", "c", "d", "cd", "ec"),
        // The newest are stepped back over first, whether they tell the metric or not.
        (best(Min), 1, "", "", "b", "eb", "e"),
        (best(Max), 3, "", "", "a", "edca", "edc"),
        (best(Max), 1, "e", "", "c", "dc", "de"),
        (best(Min), 4, "", "", "a", "edcba", "edcb"),
    ] {
        let request = ask(strategy, step_back);
        let case = format!("{request:?}, expired {expired}, damaged {damaged}");
        let (answer, questions) = plan(five().expired(expired), damaged, &request);
        let plan = answer.unwrap_or_else(|no| panic!("{case}: {no:?}"));
        assert_eq!(plan.checkpoint.tinker_path, path(chosen), "{case}");
        assert_eq!(questions, asked, "{case}");
        assert_eq!(names(plan.rejected.iter().map(|r| r.tinker_path.clone())), passed_over, "{case}");
        assert!(plan.verify_id(), "{case}");
    }
}

#[test]
fn stepping_back_too_far_is_refused_with_what_is_there() {
    for (request, expired, message) in [
        (
            ask(Strategy::LatestValid, 5),
            "",
            "Stepping back over the 5 newest ones leaves no checkpoint of run old that can be restored from.",
        ),
        (
            ask(Strategy::LatestValid, u32::MAX),
            "ab",
            "Stepping back over the 4294967295 newest ones leaves no checkpoint of run old that can be restored from.",
        ),
        (
            ask(best(MetricMode::Min), 1),
            "abcd",
            "Stepping back over the newest one leaves no checkpoint of run old that can be restored from.",
        ),
        (ask(Strategy::LatestValid, 1), "abcde", "None of the checkpoints of run old can be restored from."),
        (
            ask(Strategy::Specific { path: path("c") }, 1),
            "",
            "tinker://old/weights/c was asked for by name, so there is none to step back to; ask for it without stepping back.",
        ),
    ] {
        let (answer, _) = plan(five().expired(expired), "", &request);
        let Err(NoPlan::NoUsableCheckpoint { message: found, rejected }) = answer else {
            panic!("{request:?}: {answer:?}")
        };
        assert_eq!(found, message);
        let named = matches!(request.strategy, Strategy::Specific { .. });
        assert_eq!(rejected.len(), if named { 1 } else { 5 }, "each is told about");
    }
    let mut none = five();
    none.checkpoints.clear();
    for request in [ask(Strategy::LatestValid, 1), ask(best(MetricMode::Max), 1)] {
        let (answer, _) = plan(none.clone(), "", &request);
        assert!(matches!(answer, Err(NoPlan::NoCheckpoint { .. })), "{answer:?}");
    }
}

#[test]
fn a_metric_is_a_finite_number() {
    for (text, value) in [("1", 1.0), (" -2.5e3\n", -2500.0), ("0", 0.0)] {
        let facts = five().labelled("a", text);
        let last = facts.checkpoints.iter().find(|c| c.tinker_path == path("a")).unwrap();
        assert_eq!(value_of(last, "loss"), Ok(value));
    }
    let none = "It was saved without a label 'loss', so it cannot be compared.";
    let odd = "Its label 'loss' is not a finite number, so it cannot be compared.";
    let mut facts = five();
    for (name, text) in [("a", "NaN"), ("b", "inf"), ("c", "low"), ("d", "")] {
        facts = facts.labelled(name, text);
    }
    let (answer, asked) = plan(facts, "", &ask(best(MetricMode::Min), 0));
    let Err(NoPlan::NoUsableCheckpoint { message, rejected }) = answer else { panic!("{answer:?}") };
    assert_eq!(message, "None of the checkpoints of run old can be restored from by its label 'loss'.");
    let reasons: Vec<_> = rejected.iter().map(|r| (r.tinker_path.clone(), r.reason.as_str())).collect();
    let expected = [("e", none), ("d", odd), ("c", odd), ("b", odd), ("a", odd)];
    assert_eq!(reasons, expected.map(|(name, reason)| (path(name), reason)));
    assert_eq!(asked, "", "nothing is asked that cannot matter");
}

#[test]
fn sampler_checkpoints_are_neither_ranked_nor_stepped_over() {
    let mut facts = five().labelled("e", "-9");
    facts.get("e").checkpoint_type = CheckpointType::Sampler;
    for (request, chosen) in [(ask(best(MetricMode::Min), 0), "b"), (ask(Strategy::LatestValid, 1), "c")] {
        let (answer, _) = plan(facts.clone(), "", &request);
        let plan = answer.unwrap();
        assert_eq!(plan.checkpoint.tinker_path, path(chosen));
        assert!(plan.rejected.iter().all(|r| r.tinker_path != path("e")));
    }
}

#[test]
fn why_tells_what_the_strategy_saw() {
    let why =
        |facts: Facts, damaged: &str, request: &PlanRequest| plan(facts, damaged, request).0.unwrap().why;
    for (request, expired, damaged, text) in [
        (ask(Strategy::LatestValid, 0), "", "", "It is the newest training checkpoint."),
        (
            ask(Strategy::LatestValid, 0),
            "e",
            "d",
            "It is the newest training checkpoint that can be used; 2 newer ones cannot.",
        ),
        (
            ask(Strategy::LatestValid, 1),
            "",
            "",
            "It is the newest training checkpoint that can be used, after stepping back over the newest one as was asked.",
        ),
        (
            ask(Strategy::LatestValid, 2),
            "e",
            "",
            "It is the newest training checkpoint that can be used, after stepping back over the 2 newest ones as was asked; 1 newer one cannot.",
        ),
        (
            ask(best(MetricMode::Max), 0),
            "",
            "",
            "Its loss is 3e-1, the highest that a usable training checkpoint tells.",
        ),
        (
            ask(best(MetricMode::Min), 4),
            "",
            "",
            "Its loss is 0.25, the lowest that a usable training checkpoint tells, after stepping back over the 4 newest ones as was asked.",
        ),
    ] {
        assert_eq!(why(five().expired(expired), damaged, &request), text);
    }
    let mut restored = five();
    restored.origin = Some(path("a"));
    restored.checkpoints.retain(|c| c.tinker_path == path("a"));
    let text = why(restored, "", &ask(Strategy::LatestValid, 0));
    assert!(text.contains("the one that it was restored from"), "{text}");
}

#[test]
fn one_that_is_not_the_newest_says_so_in_its_checks() {
    for (request, warned) in [
        (ask(Strategy::LatestValid, 0), false),
        (ask(Strategy::LatestValid, 1), true),
        (ask(best(MetricMode::Min), 0), true),
    ] {
        let plan = plan(five(), "", &request).0.unwrap();
        let newer = plan.checks.iter().find(|check| check.name == "it is the newest checkpoint");
        assert_eq!(newer.map(|check| check.outcome), warned.then_some(CheckOutcome::Warning), "{request:?}");
    }
}
