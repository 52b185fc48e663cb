//! The small parts.

use retinker::host::api::{ApiProblem, Snippet};
use retinker::recovery::health::Health;
use retinker::wire::time::Time;
use wasm_bindgen::JsCast;
use wasm_bindgen_test::wasm_bindgen_test;
use web_sys::{Element, HtmlDetailsElement, HtmlDialogElement, HtmlElement, HtmlInputElement};

use super::{press, stage, until, write};
use crate::components::reactive::{maybe, text, when};
use crate::components::{banner, dialog, menu, search, snippets, status, time};
use crate::prelude::*;
use crate::view::tests::{Stage, is_focused, settled};

#[wasm_bindgen_test]
fn a_health_is_a_shape_and_a_word() {
    for health in [
        Health::Poisoned,
        Health::Unrecoverable,
        Health::Stalled,
        Health::AtRisk,
        Health::Recovered,
        Health::Healthy,
    ] {
        let stage = Stage::new(|| status::health_badge(health));
        let drawing: Element = stage.find("svg use");
        assert_eq!(drawing.get_attribute("href"), Some(format!("#i-{}", health.as_str())));
        assert!(!stage.text().is_empty());
    }
}

#[wasm_bindgen_test]
async fn times_are_relative_and_exact_on_hover() {
    let mut clock = None;
    let stage = stage(|session| {
        session.now.set(1_000_000_000_000);
        clock = Some(session.now);
        time::when_it_was(Time::from_millis(1_000_000_000_000 - 65_000))
    });
    let time: Element = stage.find("time");
    assert_eq!(time.get_attribute("datetime").as_deref(), Some("2001-09-09T01:45:35Z"));
    assert!(time.get_attribute("title").unwrap().contains(":35"), "{:?}", time.get_attribute("title"));
    let before = stage.text();
    clock.unwrap().set(1_000_000_000_000 + 3_600_000 * 5);
    settled().await;
    assert!(before.contains('1') && stage.text().contains('5'), "{before} and {}", stage.text());
}

#[wasm_bindgen_test]
async fn a_dialog_opens_closes_and_is_drawn_anew() {
    let (open, rounds) = (RwSignal::new(false), RwSignal::new(0_u64));
    let stage = stage(|_| {
        dialog::dialog(open, text(|| "A title".to_owned()), "test-dialog", move || {
            rounds.update(|rounds| *rounds += 1);
            view! { <p>"Round " {rounds.get_untracked()}</p> }
        })
    });
    let dialog: HtmlDialogElement = stage.find("dialog");
    settled().await;
    assert!(!dialog.open() && !stage.text().contains("Round"));
    for round in ["Round 1", "Round 2"] {
        open.set(true);
        settled().await;
        assert!(dialog.open() && stage.text().contains(round), "{}", stage.text());
        let close: HtmlElement = stage.find("[aria-label=Close]");
        close.click();
        settled().await;
        assert!(!dialog.open() && !open.get_untracked());
    }
    let named = dialog.get_attribute("aria-labelledby").unwrap();
    assert_eq!(document().get_element_by_id(&named).unwrap().text_content().as_deref(), Some("A title"));
}

#[wasm_bindgen_test]
async fn a_menu_opens_and_escape_closes_it() {
    let stage = stage(|_| menu::menu("More", "test-menu", || view! { <a href="#x">"There"</a> }));
    let details: HtmlDetailsElement = stage.find("details");
    let summary: HtmlElement = stage.find("summary");
    assert!(!stage.text().contains("There"));
    summary.click();
    until("the panel is drawn", || stage.text().contains("There")).await;
    assert!(details.open());
    press(&stage.find::<Element>("a"), "Escape");
    assert!(!details.open());
    assert!(is_focused(&summary), "the keyboard is back where it was");
}

#[wasm_bindgen_test]
async fn snippets_are_tabs_that_arrows_go_through() {
    let all: Vec<Snippet> = ["python", "rust", "rust"]
        .into_iter()
        .enumerate()
        .map(|(at, language)| Snippet {
            language: language.to_owned(),
            title: format!("Title {at}"),
            code: format!("<code {at}>"),
        })
        .collect();
    let stage = stage(|_| snippets::snippet_tabs(&all));
    let chosen = || {
        let tab: Element = stage.find("[role=tab][aria-selected=true]");
        let shown = stage.root.query_selector_all("[role=tabpanel]:not([hidden])").unwrap();
        assert_eq!(shown.length(), 1);
        let code = shown.get(0).unwrap().unchecked_into::<Element>().query_selector("code").unwrap().unwrap();
        (tab.text_content().unwrap(), code.text_content().unwrap(), tab.get_attribute("tabindex").unwrap())
    };
    assert_eq!(chosen(), ("Python".into(), "<code 0>".into(), "0".into()));
    let list: Element = stage.find("[role=tablist]");
    for (key, tab, code) in [
        ("ArrowRight", "Rust: Title 1", "<code 1>"),
        ("End", "Rust: Title 2", "<code 2>"),
        ("ArrowRight", "Python", "<code 0>"),
        ("ArrowLeft", "Rust: Title 2", "<code 2>"),
        ("Home", "Python", "<code 0>"),
    ] {
        press(&list, key);
        settled().await;
        assert_eq!(chosen(), (tab.into(), code.into(), "0".into()), "{key}");
    }
}

#[wasm_bindgen_test]
async fn a_problem_says_what_to_do_and_does_it() {
    let done = RwSignal::new(0);
    let problem = ApiProblem {
        code: "host_timeout".to_owned(),
        message: "It <b>did</b> not answer.".to_owned(),
        hint: String::new(),
    };
    let stage = stage(move |_| {
        banner::problem_banner(problem, "Old rows stay.".to_owned(), "Again", move || {
            done.update(|done| *done += 1);
        })
    });
    let banner: Element = stage.find("[role=alert]");
    assert_eq!(banner.get_attribute("data-code").as_deref(), Some("host_timeout"));
    assert!(stage.text().contains("It <b>did</b> not answer.") && stage.text().contains("Old rows stay."));
    assert_eq!(stage.root.query_selector_all("p").unwrap().length(), 2, "an empty hint takes no line");
    stage.find::<HtmlElement>("button").click();
    assert_eq!(done.get_untracked(), 1);
}

#[wasm_bindgen_test]
async fn what_is_typed_is_handed_on_and_what_is_shown_comes_back() {
    let (shown, handed) = (RwSignal::new("first".to_owned()), RwSignal::new(Vec::<String>::new()));
    let stage = stage(|_| {
        let typed = search::typing(
            Memo::new(move |_| shown.get()),
            std::time::Duration::from_millis(1),
            move |text| handed.update(|handed| handed.push(text)),
        );
        let field = search::Field { testid: "f", said: "Filter", placeholder: "", most: "9", of: None };
        search::field(field, typed)
    });
    let input: HtmlInputElement = stage.find("input");
    assert_eq!(input.value(), "first");
    settled().await;
    write(&input, " second ");
    until("the text is handed on", || !handed.with_untracked(Vec::is_empty)).await;
    assert_eq!(handed.get_untracked(), ["second"]);
    shown.set("second".to_owned());
    settled().await;
    assert_eq!(input.value(), " second ", "what is typed stays as it is typed");
    shown.set("third".to_owned());
    settled().await;
    assert_eq!(input.value(), "third");
}

#[wasm_bindgen_test]
async fn parts_come_and_go() {
    let (there, draws) = (RwSignal::new(Some(1_u64)), RwSignal::new(0));
    let stage = Stage::new(|| {
        let once = when(
            move || there.with(Option::is_some),
            move || {
                draws.update(|draws| *draws += 1);
                view! { <b>"there"</b> }
            },
        );
        vec![maybe(move || there.get().map(|n| view! { <i>{n}</i> })), once].into_any()
    });
    for (now, text, count) in [(Some(2), "2there", 1), (None, "", 1), (Some(3), "3there", 2)] {
        there.set(now);
        settled().await;
        assert_eq!((stage.text().as_str(), draws.get_untracked()), (text, count));
    }
}
