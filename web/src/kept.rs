//! What was read before stays on the page where it could not be read again.

use retinker::host::api::RunDetail;
use retinker::host::run::RunEvidence;

/// A run as it is now, with the checkpoints that were read before where they could not be read.
pub fn detail(before: &RunDetail, now: RunDetail) -> RunDetail {
    if now.checkpoints_problem.is_some() && now.checkpoints.is_empty() {
        RunDetail { checkpoints: before.checkpoints.clone(), ..now }
    } else {
        now
    }
}

/// What is known of a run now, and what was known before of what could not be read.
pub fn evidence(before: &RunEvidence, now: RunEvidence) -> RunEvidence {
    if now.problem.is_none() {
        return now;
    }
    let is_told = |kind: &str| now.entries.iter().any(|entry| entry.kind == kind);
    let mut entries: Vec<_> = before.entries.iter().filter(|entry| !is_told(&entry.kind)).cloned().collect();
    entries.extend(now.entries.iter().cloned());
    RunEvidence {
        entries: crate::order::sorted_by(entries, |entry| entry.at.map_or(i64::MAX, |at| at.as_millis())),
        created_at: now.created_at.or(before.created_at),
        session: now.session.or_else(|| before.session.clone()),
        problem: now.problem,
    }
}

#[cfg(test)]
mod tests {
    use retinker::host::api::ApiProblem;
    use retinker::host::run::Evidence;
    use retinker::wire::time::Time;

    use super::*;

    fn problem() -> Option<ApiProblem> {
        Some(ApiProblem { code: "service_unreachable".into(), message: String::new(), hint: String::new() })
    }

    fn told(kind: &str, at: Option<i64>) -> Evidence {
        Evidence {
            kind: kind.into(),
            by: "service".into(),
            at: at.map(Time::from_millis),
            text: format!("{kind} {at:?}"),
        }
    }

    #[test]
    fn what_could_not_be_read_stays_and_what_was_is_new() {
        let before = RunEvidence {
            entries: vec![told("made", Some(1)), told("asked", Some(5)), told("session", None)],
            created_at: Some(Time::from_millis(1)),
            ..RunEvidence::default()
        };
        let now = RunEvidence {
            entries: vec![told("lost", Some(7)), told("asked", Some(6))],
            problem: problem(),
            ..RunEvidence::default()
        };
        let both = evidence(&before, now.clone());
        let kinds: Vec<_> = both.entries.iter().map(|entry| entry.text.as_str()).collect();
        assert_eq!(kinds, ["made Some(1)", "asked Some(6)", "lost Some(7)", "session None"]);
        assert_eq!((both.created_at, both.problem.is_some()), (before.created_at, true));
        let whole = RunEvidence { problem: None, ..now };
        assert_eq!(evidence(&before, whole.clone()), whole);
    }

    #[test]
    fn checkpoints_stay_only_where_they_could_not_be_read() {
        let read = |checkpoints: serde_json::Value, problem: serde_json::Value| -> RunDetail {
            serde_json::from_value(serde_json::json!({
                "row": {
                    "name": "n",
                    "verdict": {"health": "healthy", "reason": ""},
                    "run": {"training_run_id": "r", "base_model": "m", "last_request_time": "2026-01-02T03:04:05Z"},
                },
                "checkpoints": checkpoints, "checkpoints_problem": problem, "lineage": [], "own_metadata": {}, "snippets": [],
            }))
            .unwrap()
        };
        let one = serde_json::json!([{"checkpoint": {
            "checkpoint_id": "weights/a", "checkpoint_type": "training", "time": "2026-01-02T03:04:05Z",
            "tinker_path": "tinker://r/weights/a", "public": false,
        }}]);
        let before = read(one.clone(), serde_json::Value::Null);
        let unread = read(serde_json::json!([]), serde_json::json!({"code": "c", "message": "", "hint": ""}));
        let kept = detail(&before, unread.clone());
        assert_eq!(
            (&kept.checkpoints, &kept.checkpoints_problem),
            (&before.checkpoints, &unread.checkpoints_problem)
        );
        let none = read(serde_json::json!([]), serde_json::Value::Null);
        assert_eq!(detail(&before, none.clone()), none, "all of them were deleted");
    }
}
