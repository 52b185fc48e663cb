//! A restore in the platform's forms: its ids, its order, and that each document comes back as it was.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test that fails, panics.

use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker_ir::id::Uuid;
use retinker_ir::lineage::{
    Artifact, EVENT_TYPES, Event, LineageGraph, ProvenanceEdge, Record, Span, Trace, events_of_restore,
    id_of_restore, of_restore,
};
use retinker_ir::work::{Job, Kind, Status};
use serde_json::Value;

fn record(state: &str, new_run: Option<&str>, error: Option<&str>) -> RestoreRecord {
    let text = serde_json::json!({
        "id": "restore-1",
        "plan": {
            "schema": 1, "id": "plan-1", "run_id": "s:train:0", "made_at": "2026-11-30T18:00:00Z",
            "checkpoint": {"checkpoint_id": "weights/a", "checkpoint_type": "training", "time": "2026-11-30T17:00:00Z",
                "tinker_path": "tinker://s:train:0/weights/a", "size_bytes": 7, "public": false},
            "why": "It is the newest.", "optimizer": true, "base_model": "m", "lora_rank": 8, "root_run_id": "s:train:0",
            "generation": 1, "user_metadata": {}, "lost": {"seconds": 60, "summary": "A minute."}, "checks": [], "rejected": []
        },
        "state": state, "asked_by": "ada", "new_run_id": new_run, "error": error,
        "events": [
            {"at": "2026-11-30T18:00:01Z", "state": "planned", "message": "Asked for."},
            {"at": "2026-11-30T18:00:02Z", "state": "opening_session", "message": "Opening."}
        ],
        "created_at": "2026-11-30T18:00:01Z", "updated_at": "2026-11-30T18:00:09.5Z"
    });
    serde_json::from_value(text).unwrap()
}

/// Reads and writes a record: nothing is lost, no key is left out, and unknown ones are passed over.
fn comes_back<R: Record + PartialEq + std::fmt::Debug>(record: &R, keys: &[&str]) {
    record.validate().unwrap();
    let text = record.to_json();
    assert_eq!(&R::from_json(&text).unwrap(), record);
    let mut value: Value = serde_json::from_str(&text).unwrap();
    let members = value.as_object_mut().unwrap();
    let mut written: Vec<&str> = members.keys().map(String::as_str).collect();
    let mut expected = keys.to_vec();
    written.sort_unstable();
    expected.sort_unstable();
    assert_eq!(written, expected);
    members.insert("of_a_later_version".to_owned(), 1.into());
    assert_eq!(&R::from_json(&value.to_string()).unwrap(), record);
}

#[test]
fn every_record_has_the_keys_of_lineage_ir_and_comes_back() {
    let LineageGraph { trace, spans, artifacts, edges, .. } =
        of_restore(&record("adopted", Some("t:train:0"), None));
    comes_back(
        &trace.unwrap(),
        &[
            "id",
            "root_trace_id",
            "parent_trace_id",
            "run_id",
            "work_id",
            "origin",
            "origin_ref",
            "status",
            "attributes",
            "started_at",
            "finished_at",
        ],
    );
    comes_back(
        &spans[0],
        &[
            "id",
            "trace_id",
            "parent_span_id",
            "run_id",
            "step_id",
            "work_id",
            "name",
            "kind",
            "status",
            "attributes",
            "metrics",
            "error_type",
            "error_message",
            "error_details",
            "started_at",
            "finished_at",
        ],
    );
    comes_back(
        &artifacts[0],
        &[
            "id",
            "trace_id",
            "span_id",
            "run_id",
            "step_id",
            "type",
            "uri",
            "checksum",
            "size_bytes",
            "mime_type",
            "metadata",
            "created_at",
        ],
    );
    assert_eq!(artifacts[0].uri.as_deref(), Some("tinker://s:train:0/weights/a"));
    comes_back(
        &edges[0],
        &[
            "id",
            "trace_id",
            "source_type",
            "source_id",
            "target_type",
            "target_id",
            "relationship",
            "metadata",
        ],
    );
    let whole = of_restore(&record("adopted", Some("t:train:0"), None));
    comes_back(&whole, &["trace", "spans", "artifacts", "edges", "metadata"]);
}

#[test]
fn a_restore_is_told_in_the_order_in_which_its_records_refer_to_each_other() {
    let kinds = |events: &[Event]| events.iter().map(|event| event.kind.clone().unwrap()).collect::<Vec<_>>();
    let running = events_of_restore(&record("loading", None, None));
    assert_eq!(kinds(&running), ["trace_start", "span_start", "artifact"]);
    let done = events_of_restore(&record("handed_over", Some("t:train:0"), None));
    assert_eq!(kinds(&done), ["trace_start", "span_start", "artifact", "edge", "span_end", "trace_start"]);
    for event in &done {
        comes_back(
            event,
            &[
                "id",
                "type",
                "trace_id",
                "span_id",
                "run_id",
                "step_id",
                "work_id",
                "plan_id",
                "occurred_at",
                "source",
                "source_ref",
                "payload",
            ],
        );
        assert!(EVENT_TYPES.contains(&event.kind.as_deref().unwrap()));
        // As lineage_ir derives it.
        let at = event.occurred_at.unwrap().to_string();
        assert_eq!(
            event.id,
            Some(Uuid::derived(&["retinker", "restore-1", event.kind.as_deref().unwrap(), &at]))
        );
    }
    // A later form replaces the earlier: so the end of a span is all of it, and a trace is closed by telling it again.
    let span: Span = serde_json::from_value(done[4].payload.clone().unwrap()).unwrap();
    span.validate().unwrap();
    assert_eq!(
        (span.status.as_deref(), span.finished_at.unwrap().to_string().as_str()),
        (Some("succeeded"), "2026-11-30T18:00:09.500000Z")
    );
    let (first, last) = (done[0].payload.as_ref().unwrap(), done[5].payload.as_ref().unwrap());
    assert_eq!((&first["status"], &last["status"]), (&"running".into(), &"succeeded".into()));
    assert_eq!((&first["id"], &first["finished_at"]), (&last["id"], &Value::Null));
    // The same restore, told again: the same ids.
    assert_eq!(events_of_restore(&record("handed_over", Some("t:train:0"), None)), done);
}

#[test]
fn what_is_required_is_asked_for_and_tinkers_own_ids_are_none() {
    for (text, missing) in [
        ("{}", "id is missing"),
        (
            r#"{"id":"6ba7b810-9dad-11d1-80b4-00c04fd430c8","trace_id":"6ba7b810-9dad-11d1-80b4-00c04fd430c8","name":" ","started_at":"2026-11-30T18:00:00Z"}"#,
            "name is missing",
        ),
    ] {
        let error = Span::from_json(text).unwrap().validate().unwrap_err().to_string();
        assert!(error.contains(missing), "{error}");
    }
    for wrong in [
        r#"{"id":"tinker://s:train:0/weights/a"}"#,
        r#"{"id":"6ba7b8109dad11d180b400c04fd430c8"}"#,
        r#"{"created_at":"2026-11-30T18:00:00"}"#,
    ] {
        Artifact::from_json(wrong).unwrap_err();
    }
    let mut event = events_of_restore(&record("loading", None, None)).remove(1);
    event.span_id = Some(id_of_restore("another"));
    assert!(event.validate().unwrap_err().to_string().contains("not those of its payload"));
    ProvenanceEdge::default().validate().unwrap_err();
    Trace::default().validate().unwrap_err();
}

#[test]
fn a_restore_is_a_job_that_is_found_by_its_trace() {
    let done = Job::of_restore(&record("adopted", Some("t:train:0"), None), "http://here", 2);
    assert_eq!(Uuid::of_work(&done.id), Ok(id_of_restore("restore-1")));
    assert_eq!((done.status, done.kind, done.attempt), (Status::Succeeded, Some(Kind::BackendCommand), 2));
    assert_eq!(done.result.as_ref().unwrap()["run_id"], "t:train:0");
    assert_eq!(done.started_at.unwrap().to_string(), "2026-11-30T18:00:02.000000Z");
    assert_eq!(Job::from_json(&done.to_json()).unwrap(), done);
    let failed = Job::of_restore(&record("failed", None, Some("It broke.")), "http://here", 0);
    let error = failed.error.as_ref().unwrap();
    assert_eq!(
        (failed.status, error.message.as_deref(), error.retryable),
        (Status::Failed, Some("It broke."), true)
    );
    let value: Value = serde_json::from_str(&done.to_json()).unwrap();
    assert_eq!(value.as_object().unwrap().len(), 24);
    let retry: Vec<_> = value["constraints"]["retry_policy"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(retry, ["backoff", "base_delay_ms", "jitter", "max_attempts", "max_delay_ms"]);
    // What others write: other spellings, and what this version does not know.
    let other = Job::from_json(
        r#"{"id":"0","status":"completed","kind":"training_step","gpu":1,"resources":{"gpu":"A100"}}"#,
    )
    .unwrap();
    assert_eq!(
        (other.status, other.resources.gpu.as_deref(), other.resources.requires_network),
        (Status::Succeeded, Some("A100"), true)
    );
    assert_eq!(Job::from_json(r#"{"status":"cancelled"}"#).unwrap().status, Status::Canceled);
    for state in RestoreState::ALL {
        let job = Job::of_restore(&record(state.as_str(), Some("n"), None), "http://here", 0);
        assert_eq!(job.completed_at.is_some(), state.is_settled(), "{}", state.as_str());
    }
}
