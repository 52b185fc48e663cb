//! When something expires.

use std::cell::Cell;
use std::rc::Rc;

use retinker::wire::time::Time;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use wasm_bindgen_test::wasm_bindgen_test;
use web_sys::Element;

use super::{stage, until};
use crate::components::time::{countdown, expiry};
use crate::prelude::*;
use crate::view::tests::{Stage, settled};

const THEN: i64 = 1_767_225_600_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Drawn so long before it is due, and the page's clock.
fn drawn(before: i64, draw: fn(Option<Time>) -> AnyView) -> (Stage, RwSignal<i64>) {
    let mut clock = None;
    let stage = stage(|session| {
        session.now.set(THEN - before);
        clock = Some(session.now);
        draw(Some(Time::from_millis(THEN)))
    });
    (stage, clock.unwrap())
}

#[wasm_bindgen_test]
async fn what_expires_is_bold_within_a_day_and_says_when_it_has() {
    let (stage, clock) = drawn(6 * DAY + HOUR, expiry);
    let time: Element = stage.find("time");
    assert_eq!(time.get_attribute("datetime").as_deref(), Some("2026-01-01T00:00:00Z"));
    assert!(time.get_attribute("title").unwrap().contains(":00:00 "), "to the second for who wants to know");
    for (before, text, soon) in [
        (6 * DAY + HOUR, "in 6 d", false),
        (25 * HOUR, "in 25 h", false),
        (DAY, "in 24 h", false),
        (DAY - 1, "in 23 h", true),
        (4 * MINUTE, "in 4 min", true),
        (0, "expired", true),
        (-9 * DAY, "expired", true),
    ] {
        clock.set(THEN - before);
        settled().await;
        assert_eq!((stage.text().as_str(), time.class_list().contains("soon")), (text, soon), "{before}");
    }
    assert!(time.is_connected(), "it is the same element all along");
}

#[wasm_bindgen_test]
async fn a_countdown_is_seen_to_run() {
    let (stage, clock) = drawn(6 * DAY + 4 * HOUR, countdown);
    let time: Element = stage.find("time");
    for (before, text) in [
        (6 * DAY + 4 * HOUR, "in 6 d 4 h"),
        (HOUR, "in 1 h"),
        (HOUR - 1, "in 59 min 59 s"),
        (4 * MINUTE + 9_000, "in 4 min 9 s"),
        (4 * MINUTE + 8_000, "in 4 min 8 s"),
        (59_000, "in 59 s"),
        (400, "in less than a second"),
        (0, "expired"),
        (-1_000, "expired"),
    ] {
        clock.set(THEN - before);
        settled().await;
        assert_eq!(stage.text(), text);
    }
    assert!(time.is_connected() && time.class_list().contains("soon"));
    // The host's clock was put right.
    clock.set(THEN - 2 * DAY);
    settled().await;
    assert_eq!((stage.text().as_str(), time.class_list().contains("soon")), ("in 2 d", false));
}

#[wasm_bindgen_test]
async fn the_page_is_touched_when_the_word_changes_and_not_every_second() {
    let (stage, clock) = drawn(6 * DAY + 30 * MINUTE, expiry);
    let touched = Rc::new(Cell::new(0));
    let told = Rc::clone(&touched);
    let tell = Closure::<dyn FnMut()>::new(move || told.set(told.get() + 1));
    let observer = web_sys::MutationObserver::new(tell.as_ref().unchecked_ref()).unwrap();
    let of = web_sys::MutationObserverInit::new();
    of.set_subtree(true);
    of.set_child_list(true);
    of.set_attributes(true);
    of.set_character_data(true);
    observer.observe_with_options(&stage.root, &of).unwrap();
    for second in 1..60 {
        clock.set(THEN - 6 * DAY - 30 * MINUTE + second * 1_000);
        settled().await;
    }
    assert_eq!((touched.get(), stage.text().as_str()), (0, "in 6 d"));
    clock.set(THEN - 5 * DAY);
    until("the page is touched", || touched.get() > 0).await;
    assert_eq!(stage.text(), "in 5 d");
    observer.disconnect();
}

#[wasm_bindgen_test]
fn what_never_expires_says_so() {
    for draw in [expiry, countdown] {
        let stage = stage(|_| draw(None));
        assert_eq!(stage.text(), "never");
        assert!(stage.root.query_selector("time").unwrap().is_none());
    }
}
