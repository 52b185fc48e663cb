//! Going anywhere and doing anything by its name.

use std::time::Duration;

use retinker::client::testing::FakeReply;
use wasm_bindgen::JsCast;
use wasm_bindgen_test::wasm_bindgen_test;
use web_sys::{Element, HtmlDialogElement, HtmlElement, HtmlInputElement};

use super::{Clipboard, Desk, FakeHost, at, member, path, press, rows_of_list, run, until, write};
use crate::browser;
use crate::components::palette::palette_dialog;
use crate::place::Place;
use crate::prelude::*;
use crate::view::tests::{is_focused, settled};

/// The runs are asked for this long after the last letter.
const TYPING: Duration = Duration::from_millis(80);
/// What is offered before anything is typed.
const ALL: usize = 22;

/// The palette, opened, before a host that finds two runs by a text that begins with `train`, and that is slow to find those
/// of `t`.
struct Palette {
    desk: Desk,
    place: Place,
}

impl Palette {
    async fn new() -> Self {
        let place = at("/");
        let host = FakeHost::new(|request| {
            if path(request) != "/runs" {
                return FakeReply::never();
            }
            let q = member(request, "q").unwrap();
            let found = if q.starts_with('t') { vec!["one", "two"] } else { Vec::new() };
            let found: Vec<_> =
                found.iter().map(|name| run(&format!("{q}-{name}"), &format!("found {q} {name}"))).collect();
            let many = found.len() as u64;
            let reply = FakeReply::json(200, serde_json::to_string(&rows_of_list(found, many)).unwrap());
            if q == "t" { reply.after(Duration::from_secs(5)) } else { reply }
        });
        let desk = Desk::new(host, |_| {
            provide_context(place);
            palette_dialog()
        });
        // It is there before anybody opens it.
        settled().await;
        let palette = Self { desk, place };
        palette.open().await;
        palette
    }

    async fn open(&self) {
        self.desk.session.palette_open.set(true);
        until("it is open", || self.is_open() && self.options().len() == ALL).await;
    }

    fn is_open(&self) -> bool {
        self.desk.find::<HtmlDialogElement>("dialog").open()
    }

    fn field(&self) -> HtmlInputElement {
        self.desk.find("[data-testid=palette-text]")
    }

    async fn type_in(&self, text: &str) {
        write(&self.field(), text);
        settled().await;
    }

    fn options(&self) -> Vec<Element> {
        self.desk.all("[data-testid=palette-option]")
    }

    /// What is offered, in order.
    fn names(&self) -> Vec<String> {
        let name = |option: &Element| option.query_selector("bdi").unwrap().unwrap().text_content().unwrap();
        self.options().iter().map(name).collect()
    }

    /// The one that Enter would take, as the field and the list name it.
    fn at(&self) -> Option<usize> {
        let options = self.options();
        let selected: Vec<_> = (0..options.len())
            .filter(|at| options[*at].get_attribute("aria-selected").as_deref() == Some("true"))
            .collect();
        let named = self.field().get_attribute("aria-activedescendant").unwrap();
        let Some(at) = selected.first() else {
            assert_eq!(named, "");
            return None;
        };
        assert_eq!((selected.len(), named), (1, options[*at].id()));
        Some(*at)
    }

    fn status(&self) -> String {
        self.desk.find::<Element>("[role=status]").text_content().unwrap()
    }
}

#[wasm_bindgen_test]
async fn typing_leaves_what_is_called_so() {
    let palette = Palette::new().await;
    let active = document().active_element().map(|active| active.outer_html());
    assert!(is_focused(&palette.field()), "who opens it can type: {active:?}");
    assert_eq!(palette.status(), "22 found");
    palette.type_in("act").await;
    assert_eq!(palette.names()[0], "Activity");
    assert!(palette.names().len() < ALL && palette.status() == format!("{} found", palette.names().len()));
    palette.type_in("dark col").await;
    assert_eq!((palette.names(), palette.status().as_str()), (vec!["Dark colours".to_owned()], "1 found"));
    palette.type_in("xyzzy").await;
    assert_eq!(
        (palette.names(), palette.at(), palette.status().as_str()),
        (vec![], None, "Nothing is called that.")
    );
    assert!(press(&palette.field(), "Enter"));
    settled().await;
    assert!(palette.is_open() && palette.place.path.get_untracked() == "/", "there is nothing to go to");
    palette.type_in("").await;
    assert_eq!(palette.names().len(), ALL);
}

#[wasm_bindgen_test]
async fn arrows_go_round_and_a_letter_begins_at_the_first_again() {
    let palette = Palette::new().await;
    assert_eq!(palette.at(), Some(0));
    for (key, at) in [
        ("ArrowDown", 1),
        ("ArrowDown", 2),
        ("ArrowUp", 1),
        ("ArrowUp", 0),
        ("ArrowUp", ALL - 1),
        ("ArrowDown", 0),
        ("ArrowDown", 1),
    ] {
        assert!(press(&palette.field(), key), "the cursor stays where it is in the text");
        settled().await;
        assert_eq!(palette.at(), Some(at), "{key}");
    }
    palette.type_in("c").await;
    assert_eq!(palette.at(), Some(0));
    assert!(!press(&palette.field(), "ArrowLeft") && !press(&palette.field(), "Home"));
}

#[wasm_bindgen_test]
async fn enter_goes_where_it_says_and_closes() {
    let palette = Palette::new().await;
    palette.type_in("view runs").await;
    let steps = palette.names().iter().position(|name| name == "Active within the hour").unwrap();
    assert!(steps > 1);
    for _ in 0..steps {
        press(&palette.field(), "ArrowDown");
    }
    assert!(press(&palette.field(), "Enter"));
    until("it is closed", || !palette.is_open()).await;
    assert_eq!(palette.place.query.get_untracked(), "q=age%3C1h&sort=activity");
    // What was typed is not there any more.
    palette.open().await;
    assert_eq!((palette.field().value().as_str(), palette.at()), ("", Some(0)));
    palette.type_in("usage").await;
    palette.options()[0].clone().unchecked_into::<HtmlElement>().click();
    until("a click goes there too", || palette.place.path.get_untracked() == "/usage").await;
    until("and closes", || !palette.is_open()).await;
    at("/");
}

#[wasm_bindgen_test]
async fn what_is_to_be_done_is_done() {
    let clipboard = Clipboard::new(false);
    let palette = Palette::new().await;
    let root = document().document_element().unwrap();
    let session = palette.desk.session.clone();
    let before = (session.any_change.get_untracked(), session.asked_again.get_untracked());
    for text in ["dark colours", "copy address", "refresh", "keyboard"] {
        palette.type_in(text).await;
        assert_eq!(palette.names().len(), 1, "{text}");
        press(&palette.field(), "Enter");
        if text == "copy address" {
            // It says so, and closes a moment later.
            until("it is told", || palette.status() == "Copied").await;
            assert!(palette.is_open());
            palette.desk.host.pass(Duration::from_secs(1)).await;
        }
        until("it is closed", || !palette.is_open()).await;
        palette.open().await;
    }
    assert_eq!(
        (root.get_attribute("data-theme").as_deref(), session.theme.get_untracked()),
        (Some("dark"), "dark")
    );
    assert_eq!(clipboard.held(), [browser::address()]);
    assert_eq!(
        (session.any_change.get_untracked(), session.asked_again.get_untracked()),
        (before.0 + 1, before.1 + 1)
    );
    assert!(session.keys_open.get_untracked());
    session.set_theme("");
}

#[wasm_bindgen_test]
async fn a_refused_copy_is_told_and_what_was_typed_stays() {
    let clipboard = Clipboard::new(true);
    let palette = Palette::new().await;
    palette.type_in("copy address").await;
    press(&palette.field(), "Enter");
    until("it is told", || palette.status().starts_with("The browser refused")).await;
    palette.desk.host.pass(Duration::from_secs(1)).await;
    assert!(palette.is_open());
    assert!(clipboard.held().is_empty());
}

#[wasm_bindgen_test]
async fn runs_are_found_a_moment_after_the_last_letter() {
    let palette = Palette::new().await;
    for text in ["tr", "tra", "train"] {
        palette.type_in(text).await;
    }
    assert!(palette.desk.host.asked().is_empty(), "nothing is asked for while somebody types");
    palette.desk.host.pass(TYPING).await;
    until("the runs are offered", || palette.names().iter().any(|name| name == "found train two")).await;
    assert_eq!(palette.desk.host.asked(), ["GET /runs?q=train&sort=health&offset=0&limit=6"]);
    let names = palette.names();
    assert_eq!(
        names[names.len() - 2..],
        ["found train one", "found train two"],
        "after what is called so itself"
    );
    assert!(palette.options().last().unwrap().text_content().unwrap().ends_with("run train-two"));
    press(&palette.field(), "ArrowUp");
    press(&palette.field(), "Enter");
    until("the run's page is gone to", || palette.place.path.get_untracked() == "/runs/train-two").await;
    at("/");
}

#[wasm_bindgen_test]
async fn a_late_answer_is_not_taken_for_one_to_what_was_typed_since() {
    let palette = Palette::new().await;
    palette.type_in("t").await;
    palette.desk.host.pass(TYPING).await;
    assert_eq!(palette.desk.host.asked().len(), 1);
    palette.type_in("train").await;
    palette.desk.host.pass(TYPING).await;
    until("those of the newer text are there", || {
        palette.names().iter().any(|name| name == "found train one")
    })
    .await;
    palette.desk.host.pass(Duration::from_secs(5)).await;
    settled().await;
    assert!(palette.names().iter().all(|name| !name.starts_with("found t ")), "{:?}", palette.names());
    palette.type_in("").await;
    palette.desk.host.pass(TYPING).await;
    assert_eq!(
        (palette.names().len(), palette.desk.host.asked().len()),
        (ALL, 2),
        "no text asks for no runs"
    );
}

#[wasm_bindgen_test]
async fn enter_goes_to_no_run_that_is_not_meant_any_more() {
    let palette = Palette::new().await;
    palette.type_in("train").await;
    palette.desk.host.pass(TYPING).await;
    until("the runs are offered", || palette.names().iter().any(|name| name == "found train two")).await;
    // Before the host is asked again, those stay that fit what is typed by now.
    palette.type_in("train two").await;
    assert_eq!(palette.names(), ["found train two"]);
    palette.type_in("other").await;
    assert_eq!(palette.names(), Vec::<String>::new());
    press(&palette.field(), "Enter");
    settled().await;
    assert_eq!(palette.place.path.get_untracked(), "/");
}
