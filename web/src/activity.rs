//! What was done about lost runs, in words.

use retinker::direction::isolated;
use retinker::host::api::MonitorState;
use retinker::recovery::acts::Act;
use retinker::recovery::incidents::Incident;
use retinker::recovery::policy::Gate;
use retinker::recovery::restore::{RestoreRecord, RestoreState};

use crate::{format, words};

/// A gate's name in the page's attributes.
pub fn gate_name(gate: Gate) -> &'static str {
    match gate {
        Gate::Open => "open",
        Gate::Paused => "paused",
        Gate::Draining => "draining",
    }
}

/// Whether restores begin by themselves, in a few words.
pub fn monitor_heading(state: &MonitorState) -> &'static str {
    match (state.gate, state.policy.enabled) {
        (Gate::Paused, _) => "Automatic restores are paused",
        (Gate::Draining, _) => "Automatic restores are ending",
        (Gate::Open, true) => "Poisoned runs are restored by themselves",
        (Gate::Open, false) => "Poisoned runs wait for you",
    }
}

/// The same in a sentence.
pub fn monitor_detail(state: &MonitorState) -> String {
    match (state.gate, state.policy.enabled) {
        (Gate::Paused, _) => "No monitor of this journal begins one until somebody resumes. You still can.".to_owned(),
        (Gate::Draining, _) => "Monitors finish what is under way and end. You can still restore by hand.".to_owned(),
        (Gate::Open, true) => format!(
            "At most {} times for each run and those that came from it, until one lasts; {} an hour in all.",
            state.policy.max_attempts, state.policy.max_restores_per_hour
        ),
        (Gate::Open, false) => {
            "This console restores what you ask for; start it with --auto-restore to have it done for you. Other monitors \
             of the journal follow their own policy."
                .to_owned()
        }
    }
}

/// What happened, in a few words.
pub fn incident_heading(incident: &Incident) -> String {
    match incident.count() {
        1 => "One run lost its state".to_owned(),
        count => format!("{} runs lost their state together", format::count(count as u64)),
    }
}

/// The same of those that still wait.
pub fn waiting_heading(incident: &Incident) -> String {
    format!(
        "{} that lost their state together wait to be restored",
        format::counted(incident.count() as u64, "run", "runs")
    )
}

/// The same of several incidents.
pub fn all_waiting_heading(runs: usize, incidents: usize) -> String {
    format!(
        "{} wait to be restored: they lost their state in {} incidents",
        format::counted(runs as u64, "run", "runs"),
        format::count(incidents as u64)
    )
}

/// Why.
pub fn incident_cause(incident: &Incident) -> String {
    let cause = words::category(incident.category.value);
    match &incident.reason {
        Some(reason) if reason.count == incident.count() => format!("{cause}: {}.", isolated(&reason.value)),
        // What only one of many says is that one's own.
        Some(reason) if reason.count > 1 => {
            format!("{cause}: {} ({} of them).", isolated(&reason.value), format::count(reason.count as u64))
        }
        _ => format!("{cause}."),
    }
}

/// Why, and what could be done.
pub fn incident_detail(incident: &Incident) -> String {
    let outlook = match (incident.recoverable, incident.unrecoverable) {
        (0, _) => "None had a checkpoint to restore from.".to_owned(),
        (_, 0) => "All had a checkpoint to restore from.".to_owned(),
        (some, others) => format!(
            "{} had a checkpoint to restore from, {} had none.",
            format::count(some as u64),
            format::count(others as u64)
        ),
    };
    format!("{} {outlook}", incident_cause(incident))
}

/// So many runs.
pub fn runs(count: usize) -> String {
    if count == 1 { "Which run".to_owned() } else { format!("Which {} runs", format::count(count as u64)) }
}

/// How a restore stands, in a sentence.
pub fn outcome(record: &RestoreRecord) -> String {
    match record.state {
        RestoreState::Failed => record.error.clone().unwrap_or_else(|| "It failed.".to_owned()),
        RestoreState::Adopted | RestoreState::HandedOver => {
            let state = if record.state == RestoreState::Adopted { "Adopted." } else { "Handed over." };
            record.verdicts().fold(state.to_owned(), |text, verdict| format!("{text} {verdict}"))
        }
        RestoreState::Cancelled => "Cancelled before it was done.".to_owned(),
        state => format!("{}…", words::restore_state(state)),
    }
}

/// What can be unfolded of a restore.
pub fn plan_heading(record: &RestoreRecord) -> String {
    match &record.asked_by {
        Some(by) => format!("Plan and steps, asked for by {by}"),
        None => "Plan and steps".to_owned(),
    }
}

/// The steps of a restore.
pub fn steps(record: &RestoreRecord) -> Vec<(i64, String)> {
    record.events.iter().map(|event| (event.at.as_millis(), event.message.clone())).collect()
}

/// On whose behalf something was done, and that it is not known to be over.
pub fn on_behalf(act: &Act) -> String {
    let over = if act.ended_at.is_some() { "" } else { "; how it ended is not known" };
    format!("by {}{over}", act.by)
}

/// What can be unfolded of an act.
pub fn subjects(act: &Act) -> Option<String> {
    match act.count {
        0 => None,
        1 => Some("Which one".to_owned()),
        count => Some(format!("Which {}", format::count(count))),
    }
}

#[cfg(test)]
mod tests {
    use retinker::host::api::PolicySummary;
    use retinker::recovery::health::FailureCategory;
    use retinker::recovery::incidents::Shared;
    use retinker::recovery::journal::conformance::record;
    use retinker::recovery::probe::Verification;
    use retinker::wire::time::Time;

    use super::*;

    fn incident(runs: usize, recoverable: usize, reasons: usize) -> Incident {
        Incident {
            service: "s".into(),
            first: Time::from_millis(0),
            last: Time::from_millis(0),
            run_ids: (0..runs).map(|n| n.to_string()).collect(),
            reason: (reasons > 0).then(|| Shared { value: "out of memory".into(), count: reasons }),
            category: Shared { value: FailureCategory::Server, count: runs },
            recoverable,
            unrecoverable: runs - recoverable,
        }
    }

    #[test]
    fn incidents_in_words() {
        for (given, heading, detail) in [
            (incident(1, 1, 0), "One run lost", "The service failed. All had a checkpoint"),
            (incident(3, 0, 3), "3 runs lost", "The service failed: out of memory. None had"),
            (
                incident(3, 2, 2),
                "3 runs lost",
                "out of memory (2 of them). 2 had a checkpoint to restore from, 1 had none.",
            ),
            (incident(3, 2, 1), "3 runs lost", "The service failed. 2 had a checkpoint"),
            (
                incident(4_000, 2_500, 1_200),
                "4,000 runs lost",
                "(1,200 of them). 2,500 had a checkpoint to restore from, 1,500 had none.",
            ),
        ] {
            assert!(incident_heading(&given).starts_with(heading));
            assert!(incident_detail(&given).contains(detail), "{}", incident_detail(&given));
        }
    }

    #[test]
    fn what_begins_by_itself_is_said() {
        for gate in [Gate::Open, Gate::Paused, Gate::Draining] {
            for enabled in [false, true] {
                let state = MonitorState {
                    gate,
                    policy: PolicySummary { enabled, max_attempts: 3, max_restores_per_hour: 4 },
                };
                assert!(!monitor_heading(&state).is_empty() && !monitor_detail(&state).is_empty());
                assert_eq!(monitor_heading(&state).contains("by themselves"), gate == Gate::Open && enabled);
            }
        }
    }

    #[test]
    fn acts_in_words() {
        let mut act = Act {
            at: Time::from_millis(1),
            by: "the console of ada@box".into(),
            what: "Delete checkpoints".into(),
            subjects: vec!["a".into()],
            count: 1_200,
            ended_at: None,
            problem: None,
        };
        assert_eq!(on_behalf(&act), "by the console of ada@box; how it ended is not known");
        assert_eq!(subjects(&act).as_deref(), Some("Which 1,200"));
        (act.ended_at, act.count) = (Some(act.at), 0);
        assert_eq!((on_behalf(&act).as_str(), subjects(&act)), ("by the console of ada@box", None));
    }

    #[test]
    fn a_plan_in_words() {
        let mut one = record("r", "old");
        assert_eq!(plan_heading(&one), "Plan and steps");
        one.asked_by = Some("the monitor".into());
        assert_eq!(plan_heading(&one), "Plan and steps, asked for by the monitor");
        one.plan.why = "It is the newest.".into();
        one.plan.optimizer = false;
        let told = words::plan(&one.plan);
        assert_eq!(
            (told[0].as_str(), told[2].as_str()),
            ("It is the newest.", "Without the optimizer's state.")
        );
        assert_eq!(steps(&one).len(), one.events.len());
    }

    #[test]
    fn restores_in_words() {
        let mut one = record("r", "old");
        one.state = RestoreState::Loading;
        assert_eq!(outcome(&one), "Load the checkpoint…");
        one.state = RestoreState::Adopted;
        one.verification = Some(Verification::not("No probe was saved."));
        assert_eq!(outcome(&one), "Adopted. Not verified. No probe was saved.");
        one.state = RestoreState::Failed;
        one.error = Some("Checkpoint a could not be loaded.".into());
        assert_eq!(outcome(&one), "Checkpoint a could not be loaded.");
    }
}
