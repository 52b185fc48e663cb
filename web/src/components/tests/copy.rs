//! The button that copies.

use std::time::Duration;

use js_sys::{Object, Reflect};
use retinker::client::testing::FakeReply;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_test::wasm_bindgen_test;
use web_sys::{Element, HtmlElement};

use super::{Clipboard, Desk, FakeHost, until};
use crate::components::copy::copy_button;
use crate::prelude::*;

/// Such a button, of a text that changes.
fn button(text: RwSignal<String>) -> Desk {
    Desk::new(FakeHost::new(|_| FakeReply::never()), |_| copy_button(text, "the run's id"))
}

/// What it says, and its drawing.
fn seen(desk: &Desk) -> (String, String) {
    let said = desk.find::<Element>("[role=status]").text_content().unwrap();
    (said, desk.find::<Element>("use").get_attribute("href").unwrap())
}

fn as_before(desk: &Desk) -> bool {
    seen(desk) == (String::new(), "#i-copy".to_owned())
}

/// How long it says what became of it.
const SAID: Duration = Duration::from_secs(2);

#[wasm_bindgen_test]
async fn it_says_that_it_has_copied_and_soon_no_more() {
    let clipboard = Clipboard::new(false);
    let text = RwSignal::new("run-1".to_owned());
    let desk = button(text);
    let on: HtmlElement = desk.find("button");
    assert_eq!(on.get_attribute("aria-label").as_deref(), Some("Copy the run's id"));
    assert!(as_before(&desk));
    for id in ["run-1", "run-2"] {
        text.set(id.to_owned());
        on.click();
        until("it says so", || seen(&desk) == ("Copied".to_owned(), "#i-check".to_owned())).await;
        assert_eq!(clipboard.held().last().map(String::as_str), Some(id), "what it stands beside now");
        desk.host.pass(SAID - Duration::from_millis(1)).await;
        assert!(!as_before(&desk), "long enough to be read");
        desk.host.pass(Duration::from_millis(1)).await;
        until("it is as before", || as_before(&desk)).await;
    }
    assert_eq!(clipboard.held(), ["run-1", "run-2"]);
}

#[wasm_bindgen_test]
async fn it_says_that_the_browser_refused() {
    let _clipboard = Clipboard::new(true);
    let desk = button(RwSignal::new("run-1".to_owned()));
    desk.find::<HtmlElement>("button").click();
    until("it says so", || seen(&desk).1 == "#i-cross").await;
    assert_eq!(seen(&desk).0, "The browser refused: select it and copy it yourself");
    desk.host.pass(SAID).await;
    until("it is as before", || as_before(&desk)).await;
}

#[wasm_bindgen_test]
async fn without_a_clipboard_it_says_the_same() {
    // A page that is not served securely has none.
    let page = window();
    let name = JsValue::from_str("isSecureContext");
    let before = Reflect::get_own_property_descriptor(&page, &name).unwrap();
    let not = Object::new();
    Reflect::set(&not, &"value".into(), &JsValue::FALSE).unwrap();
    Reflect::set(&not, &"configurable".into(), &JsValue::TRUE).unwrap();
    assert!(Reflect::define_property(&page, &name, &not).unwrap());
    let clipboard = Clipboard::new(false);
    let desk = button(RwSignal::new("run-1".to_owned()));
    desk.find::<HtmlElement>("button").click();
    until("it says so", || seen(&desk).1 == "#i-cross").await;
    assert!(clipboard.held().is_empty());
    assert!(Reflect::define_property(&page, &name, before.unchecked_ref()).unwrap());
}

#[wasm_bindgen_test]
async fn a_button_that_is_gone_meanwhile_breaks_nothing() {
    let clipboard = Clipboard::new(false);
    let desk = button(RwSignal::new("run-1".to_owned()));
    desk.find::<HtmlElement>("button").click();
    until("it has copied", || clipboard.held() == ["run-1"]).await;
    let host = desk.host.clone();
    drop(desk);
    host.pass(SAID).await;
    let desk = button(RwSignal::new("run-2".to_owned()));
    desk.find::<HtmlElement>("button").click();
    until("another one still does", || !as_before(&desk)).await;
    assert_eq!(clipboard.held(), ["run-1", "run-2"]);
}
