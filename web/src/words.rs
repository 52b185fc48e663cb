//! What things are called on the page.

use retinker::host::api::ApiProblem;
use retinker::recovery::health::{FailureCategory, Health};
use retinker::recovery::plan::{CheckOutcome, NoPlan, RejectedReason, RestorePlan};
use retinker::recovery::restore::RestoreState;

/// A health as a word.
pub fn health(health: Health) -> &'static str {
    match health {
        Health::Poisoned => "Poisoned",
        Health::Unrecoverable => "Unrecoverable",
        Health::Stalled => "Stalled",
        Health::Recovered => "Recovered",
        Health::AtRisk => "At risk",
        Health::Healthy => "Healthy",
    }
}

/// What a health means, in a few words.
pub fn health_meaning(health: Health) -> &'static str {
    match health {
        Health::Poisoned => "failed; a checkpoint can bring it back",
        Health::Unrecoverable => "failed, with nothing to restore from",
        Health::Stalled => "its session is over, and nobody trains it",
        Health::Recovered => "failed once; a restored run has taken its place",
        Health::AtRisk => "works, but a failure now would cost much",
        Health::Healthy => "nothing wrong as far as can be seen",
    }
}

/// Whose fault a failure was.
pub fn category(category: FailureCategory) -> &'static str {
    match category {
        FailureCategory::Server => "The service failed",
        FailureCategory::User => "A request was at fault: a restored run would meet it again",
        FailureCategory::Unknown => "Whose fault it was is not known",
    }
}

/// How a session stands, with whose fault a failure was or how its client finished it.
pub fn session_status(status: &str, category: Option<&str>) -> String {
    let word = match status {
        "active" => "active",
        "cancelled" => "ended from outside, or went silent",
        "client_finished" => "finished by its program",
        "failed" => "failed",
        _ => "not told",
    };
    match category {
        Some("user") => format!("{word}; a request was at fault"),
        Some("internal") => format!("{word}; the service was at fault"),
        Some(other) if !other.is_empty() => format!("{word} ({other})"),
        _ => word.to_owned(),
    }
}

/// Who tells of something that is known of a run.
pub fn evidence_by(by: &str) -> &'static str {
    match by {
        "program" => "its program",
        "monitor" => "seen by retinker",
        _ => "the service",
    }
}

/// A check's outcome as a word.
pub fn outcome(outcome: CheckOutcome) -> &'static str {
    match outcome {
        CheckOutcome::Passed => "Passed",
        CheckOutcome::Unknown => "Not known",
        CheckOutcome::Warning => "Mind this",
    }
}

/// A restore's state as a step.
pub fn restore_state(state: RestoreState) -> &'static str {
    match state {
        RestoreState::Planned => "Write the plan into the journal",
        RestoreState::OpeningSession => "Open a session for the new run",
        RestoreState::Loading => "Load the checkpoint",
        RestoreState::Checking => "Look at the new run",
        RestoreState::Adopted => "Put the new run in the old one's place",
        RestoreState::HandedOver => "Hand the new run over",
        RestoreState::Failed => "Failed",
        RestoreState::Cancelled => "Cancelled",
    }
}

/// The problem of what a person has asked for: unlike a reading, nobody asks for it again.
pub fn asked_once(mut problem: ApiProblem) -> ApiProblem {
    if matches!(
        problem.code.as_str(),
        "service_unreachable"
            | "service_slow"
            | "service_failing"
            | "service_busy"
            | "service_unpaid"
            | "service_unreadable"
    ) {
        problem.hint = "It is not asked again by itself: see what became of it, then try again.".to_owned();
    }
    problem
}

/// What the choice about the optimizer's state means for the training that follows.
pub fn optimizer_consequence(with_optimizer: bool) -> &'static str {
    if with_optimizer {
        "Weights and optimizer state are loaded: the next steps are those that the old run would have taken."
    } else {
        "Only the weights are loaded. The optimizer starts cold: the first loss is the same, but from the first \
         step on the training takes another way than the old run would have."
    }
}

/// Why there is no plan: a heading, the sentence, the checkpoints that were passed over, and the restore that is in
/// the way.
pub fn no_plan(answer: &NoPlan) -> (&'static str, &str, &[RejectedReason], Option<&str>) {
    match answer {
        NoPlan::NoCheckpoint { message } => ("There is nothing to restore from", message, &[], None),
        NoPlan::NoUsableCheckpoint { message, rejected } => {
            ("No checkpoint can be used", message, rejected, None)
        }
        NoPlan::NotPoisoned { message } => ("This run needs no restore", message, &[], None),
        NoPlan::AlreadyRestored { message, restore_id } => {
            ("This run has been restored already", message, &[], Some(restore_id))
        }
    }
}

/// Whether the host refused the token, so that nothing on the page can work.
pub fn is_token_problem(problem: &ApiProblem) -> bool {
    problem.code.starts_with("token_")
}

/// Whether the address names a connection that the host does not have, so that nothing on the page can work either.
pub fn is_connection_problem(problem: &ApiProblem) -> bool {
    problem.code == "no_such_connection"
}

/// The problems to show: each kind once, in the order given, which is from the cause to its effects.
pub fn distinct(problems: impl IntoIterator<Item = ApiProblem>) -> Vec<ApiProblem> {
    let mut distinct: Vec<ApiProblem> = Vec::new();
    for problem in problems {
        if !distinct.iter().any(|known| known.code == problem.code) {
            distinct.push(problem);
        }
    }
    distinct
}

/// A sentence with a capital letter at its start. A name such as `training_runs` keeps its own.
pub fn sentence(mut text: String) -> String {
    if text.bytes().take_while(|b| *b != b' ').all(|b| b.is_ascii_lowercase()) {
        let _ = text.get_mut(..1).map(str::make_ascii_uppercase);
    }
    text
}

/// A heading for a problem.
pub fn problem_heading(problem: &ApiProblem) -> &'static str {
    match problem.code.as_str() {
        "host_unreachable" => "retinker does not answer",
        "service_unreachable" => "The service does not answer",
        "service_slow" => "The service takes too long to answer",
        "service_failing" => "The service fails",
        "service_unpaid" => "The service waits for its bills to be paid",
        "service_busy" => "The service asks for patience",
        "service_key_missing" => "There is no key for this service",
        "service_unauthorized" => "The service refuses the key",
        "service_foreign" => "This is not a Tinker service",
        "connection_failed" => "This connection cannot be used",
        "no_such_connection" => "There is no such connection",
        code if code.starts_with("service_") => "The service gave an answer that cannot be used",
        "run_not_found" => "There is no such run",
        "bad_query" => "The filter cannot be read",
        "session_not_found" => "There is no such session",
        "not_offered" => "This service does not offer that",
        "project_refused" | "sample_refused" => "The service refuses this",
        "no_tokenizer" => "There is no tokenizer for this model",
        "samples_slow" => "This took too long",
        "plan_changed" => "The plan is out of date",
        _ => "This did not work",
    }
}

/// Why a restore is planned so, what it loses, and what was looked at before.
pub fn plan(plan: &RestorePlan) -> Vec<String> {
    let optimizer = if plan.optimizer { "With" } else { "Without" };
    let mut lines =
        vec![plan.why.clone(), plan.lost.summary.clone(), format!("{optimizer} the optimizer's state.")];
    lines.extend(plan.checks.iter().map(|check| format!("{}: {}", check.name, check.detail)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_health_has_its_own_word_and_meaning() {
        for (index, one) in Health::ALL.into_iter().enumerate() {
            for other in Health::ALL.into_iter().skip(index + 1) {
                assert_ne!(health(one), health(other));
                assert_ne!(health_meaning(one), health_meaning(other));
            }
        }
    }

    #[test]
    fn a_sessions_status_says_whose_fault_it_was() {
        assert_eq!(session_status("failed", Some("internal")), "failed; the service was at fault");
        assert_eq!(session_status("client_finished", Some("errored")), "finished by its program (errored)");
        assert_eq!(session_status("active", None), "active");
        assert_eq!(session_status("", None), "not told");
    }

    #[test]
    fn weights_only_says_what_it_costs() {
        assert!(optimizer_consequence(false).contains("starts cold"));
        assert!(!optimizer_consequence(true).contains("cold"));
    }

    #[test]
    fn an_existing_restore_is_pointed_at() {
        let answer = NoPlan::AlreadyRestored { message: "m".into(), restore_id: "r1".into() };
        assert_eq!(no_plan(&answer).3, Some("r1"));
        let answer = NoPlan::NoUsableCheckpoint {
            message: "m".into(),
            rejected: vec![RejectedReason { tinker_path: "p".into(), reason: "expired".into() }],
        };
        assert_eq!(no_plan(&answer).2.len(), 1);
    }

    #[test]
    fn sentences_start_with_a_capital_letter() {
        let cases = [
            ("the trainer lost its memory.", "The trainer lost its memory."),
            ("a", "A"),
            ("The trainer", "The trainer"),
            ("training_runs cannot be read", "training_runs cannot be read"),
            ("tinker://a/weights/1 is gone", "tinker://a/weights/1 is gone"),
            ("écart", "écart"),
            ("", ""),
        ];
        for (told, shown) in cases {
            assert_eq!(sentence(told.to_owned()), shown);
        }
    }

    #[test]
    fn one_outage_is_told_once() {
        let problem = |code: &str, message: &str| ApiProblem {
            code: code.into(),
            message: message.into(),
            hint: String::new(),
        };
        let shown = distinct([problem("a", "1"), problem("b", "2"), problem("a", "3")]);
        assert_eq!(shown, [problem("a", "1"), problem("b", "2")]);
    }

    #[test]
    fn only_the_token_locks_the_page() {
        let problem =
            |code: &str| ApiProblem { code: code.into(), message: String::new(), hint: String::new() };
        assert!(is_token_problem(&problem("token_refused")));
        assert!(is_token_problem(&problem("token_missing")));
        assert!(!is_token_problem(&problem("service_unreachable")));
    }
}
