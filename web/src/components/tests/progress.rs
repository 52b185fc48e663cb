//! How far a restore is, and stopping it.

use std::time::Duration;

use retinker::client::testing::FakeReply;
use retinker::recovery::restore::RestoreRecord;
use wasm_bindgen_test::wasm_bindgen_test;
use web_sys::{Element, HtmlButtonElement};

use super::{Desk, FakeHost, all_in, stage, until};
use crate::components::progress::{cancel_button, restore_progress};
use crate::prelude::*;
use crate::view::tests::{Stage, settled};

/// A restore that has come through these states, a second each.
fn record(states: &[&str]) -> RestoreRecord {
    let at = |second: usize| format!("2026-01-01T00:00:{second:02}Z");
    let events: Vec<_> = states
        .iter()
        .enumerate()
        .map(|(second, state)| serde_json::json!({"at": at(second), "state": state, "message": format!("{state}!")}))
        .collect();
    let state = states.last().unwrap();
    serde_json::from_value(serde_json::json!({
        "id": "r1", "state": state, "events": events, "created_at": at(0), "updated_at": at(states.len() - 1),
        "new_run_id": (*state == "adopted").then_some("b:train:0"),
        "plan": {
            "schema": 1, "id": "p", "run_id": "a:train:0", "made_at": at(0), "why": "newest",
            "optimizer": true, "base_model": "m", "root_run_id": "a:train:0", "generation": 1,
            "user_metadata": {}, "lost": {"seconds": 1, "summary": "a second"}, "checks": [],
            "checkpoint": {"checkpoint_id": "weights/1", "checkpoint_type": "training", "time": at(0),
                "tinker_path": "tinker://a:train:0/weights/1"}
        }
    }))
    .unwrap()
}

/// Each step: how far it is, what is said of that, and what was told of it.
fn steps(stage: &Stage) -> Vec<(String, String, String)> {
    let text =
        |step: &Element, class: &str| step.query_selector(class).unwrap().unwrap().text_content().unwrap();
    let steps = all_in(&stage.root, ".steps > li");
    steps
        .iter()
        .map(|step| {
            let is_now = step.get_attribute("aria-current").as_deref() == Some("step");
            assert_eq!(is_now, step.class_list().contains("active"));
            (step.class_name(), text(step, ".said"), text(step, ".step-told"))
        })
        .collect()
}

fn step(class: &str, said: &str, told: &str) -> (String, String, String) {
    (class.to_owned(), said.to_owned(), told.to_owned())
}

#[wasm_bindgen_test]
async fn steps_are_done_under_way_and_to_come() {
    let restore = RwSignal::new(None);
    let stage = stage(|_| restore_progress(restore.signal()));
    assert!(steps(&stage).is_empty());
    restore.set(Some(record(&["planned", "opening_session", "loading"])));
    settled().await;
    assert_eq!(
        steps(&stage),
        [
            step("step done", ", done", "planned!"),
            step("step done", ", done", "opening_session!"),
            step("step active", ", under way", "loading!"),
            step("step ahead", ", to come", ""),
            step("step ahead", ", to come", ""),
        ]
    );
    let progress: Element = stage.find("[data-testid=restore-progress]");
    let told: Element = stage.find(".progress-told");
    assert_eq!(told.get_attribute("role").as_deref(), Some("status"));
    let seen = || {
        let ways = ["[data-testid=cancel-restore]", "[data-testid=restored-link]"];
        let ways = ways.map(|way| stage.root.query_selector(way).unwrap().is_some());
        (progress.get_attribute("data-state").unwrap(), told.text_content().unwrap(), ways)
    };
    assert_eq!(seen(), ("loading".to_owned(), "The restore is under way.".to_owned(), [true, false]));
    let cancel: Element = stage.find("[data-testid=cancel-restore]");
    restore.set(Some(record(&["planned", "opening_session", "loading", "checking"])));
    settled().await;
    assert_eq!(steps(&stage)[3], step("step active", ", under way", "checking!"));
    let all = ["planned", "opening_session", "loading", "checking", "adopted"];
    restore.set(Some(record(&all)));
    settled().await;
    assert!(steps(&stage).iter().all(|(class, ..)| class == "step done"));
    assert_eq!(seen(), ("adopted".to_owned(), "The run is restored.".to_owned(), [false, true]));
    assert!(!cancel.is_connected(), "what is over cannot be stopped");
    let link: Element = stage.find("[data-testid=restored-link]");
    assert_eq!(link.get_attribute("href").as_deref(), Some("/runs/b%3Atrain%3A0"));
}

#[wasm_bindgen_test]
async fn a_failure_ends_the_steps_with_its_reason() {
    for (state, class, said, told) in [
        ("failed", "step failed", ", failed", "The restore failed."),
        ("cancelled", "step ahead", ", cancelled", "The restore was cancelled."),
    ] {
        let mut ended = record(&["planned", "opening_session", state]);
        ended.error = (state == "failed").then(|| "The file is <b>damaged</b>.".to_owned());
        let reason = ended.error.clone().unwrap_or_else(|| "cancelled!".to_owned());
        let stage = stage(|_| restore_progress(RwSignal::new(Some(ended)).signal()));
        let steps = steps(&stage);
        assert_eq!(steps.len(), 3, "no step comes after it");
        assert_eq!(steps[2], step(class, said, &reason));
        assert_eq!(stage.find::<Element>(".progress-told").text_content().as_deref(), Some(told));
        assert!(stage.text().contains("Nothing was changed in the old run."));
        assert!(stage.root.query_selector("button").unwrap().is_none());
    }
}

/// The button of a restore that is under way.
fn button(desk: &Desk) -> HtmlButtonElement {
    desk.find("[data-testid=cancel-restore]")
}

fn alert(desk: &Desk) -> Option<String> {
    desk.root.query_selector("[role=alert]").unwrap().and_then(|alert| alert.text_content())
}

#[wasm_bindgen_test]
async fn a_restore_is_cancelled_once_and_what_became_of_it_is_shown() {
    let cancelled = serde_json::to_string(&record(&["planned", "opening_session", "cancelled"])).unwrap();
    let host = FakeHost::new(move |_| FakeReply::json(200, cancelled.clone()).after(Duration::from_secs(1)));
    let desk = Desk::new(host, |session| {
        session.remember(record(&["planned", "opening_session"]));
        let session = session.clone();
        restore_progress(Signal::derive(move || session.restore("r1")))
    });
    assert_eq!(button(&desk).text_content().as_deref(), Some("Cancel the restore"));
    button(&desk).click();
    settled().await;
    assert!(button(&desk).disabled(), "it is asked for once");
    assert_eq!(button(&desk).text_content().as_deref(), Some("Cancelling\u{2026}"));
    button(&desk).click();
    settled().await;
    assert_eq!(desk.host.asked(), ["POST /restores/r1/cancel"]);
    desk.host.pass(Duration::from_secs(1)).await;
    until("it is cancelled", || desk.text().contains("The restore was cancelled.")).await;
    assert!(desk.root.query_selector("button").unwrap().is_none());
    assert_eq!(desk.session.restore("r1").unwrap().state.as_str(), "cancelled");
}

/// A host that refuses what is asked first, and answers everything else so.
fn refusing_once(answer: fn() -> FakeReply) -> FakeHost {
    let mut tries = 0;
    FakeHost::new(move |_| {
        tries += 1;
        match tries {
            1 => FakeReply::json(
                409,
                r#"{"code": "restore_settled", "message": "It is <done>.", "hint": "Look at it."}"#,
            ),
            _ => answer(),
        }
    })
}

#[wasm_bindgen_test]
async fn who_may_not_cancel_is_told_why_and_can_try_again() {
    let cancelled =
        || FakeReply::json(200, serde_json::to_string(&record(&["planned", "cancelled"])).unwrap());
    let host = refusing_once(cancelled);
    let desk = Desk::new(host, |_| cancel_button("r1".to_owned(), Some("my <run>".to_owned())));
    assert_eq!(button(&desk).get_attribute("aria-label").as_deref(), Some("Cancel the restore of my <run>"));
    assert_eq!(alert(&desk), None);
    button(&desk).click();
    until("it says why", || alert(&desk).as_deref() == Some("It is <done>. Look at it.")).await;
    until("it can be tried again", || !button(&desk).disabled()).await;
    assert_eq!(button(&desk).text_content().as_deref(), Some("Cancel the restore"));
    assert!(desk.session.restore("r1").is_none(), "nothing is known to have become of it");
    button(&desk).click();
    until("it is taken", || desk.session.restore("r1").is_some()).await;
}

#[wasm_bindgen_test]
async fn a_refusal_goes_when_it_is_tried_again() {
    let desk = Desk::new(refusing_once(FakeReply::never), |_| cancel_button("r1".to_owned(), None));
    button(&desk).click();
    until("the refusal is said", || alert(&desk).is_some()).await;
    until("it can be pressed again", || !button(&desk).disabled()).await;
    button(&desk).click();
    settled().await;
    assert_eq!(alert(&desk), None);
}
