//! The keys that work everywhere.

use retinker::client::testing::FakeReply;
use wasm_bindgen::JsCast;
use wasm_bindgen_test::wasm_bindgen_test;
use web_sys::{Element, HtmlDialogElement, HtmlElement};

use super::{Desk, FakeHost, at, press, until};
use crate::components::{keys, palette};
use crate::prelude::*;
use crate::view::tests::settled;

fn desk() -> Desk {
    let place = at("/");
    Desk::new(FakeHost::new(|_| FakeReply::never()), |_| {
        provide_context(place);
        keys::listen();
        view! {
            <input id="writing" />
            <p id="elsewhere"></p>
            {palette::palette_dialog()}
            {keys::keys_dialog()}
        }
    })
}

fn open(desk: &Desk) -> [bool; 2] {
    ["palette", "keys-dialog"]
        .map(|name| desk.find::<HtmlDialogElement>(&format!("[data-testid={name}]")).open())
}

#[wasm_bindgen_test]
async fn control_k_opens_the_palette_also_while_something_is_written() {
    let desk = desk();
    for (on, keys) in [("#elsewhere", "Ctrl+k"), ("#writing", "Ctrl+k"), ("#elsewhere", "Meta+K")] {
        assert!(press(&desk.find(on), keys), "the browser opens nothing of its own");
        until("it is open", || open(&desk) == [true, false]).await;
        desk.session.palette_open.set(false);
        until("it is closed", || open(&desk) == [false, false]).await;
    }
    assert!(!press(&desk.find("#elsewhere"), "k"));
    settled().await;
    assert_eq!(open(&desk), [false, false]);
}

#[wasm_bindgen_test]
async fn the_question_mark_opens_the_sheet_unless_it_is_written_or_turned_off() {
    let desk = desk();
    assert!(!press(&desk.find("#writing"), "?"));
    settled().await;
    assert_eq!(open(&desk), [false, false]);
    press(&desk.find("#elsewhere"), "?");
    until("it is open", || open(&desk) == [false, true]).await;
    let sheet: Element = desk.find("[data-testid=keys-dialog]");
    for key in ["Ctrl A", "Page \u{2191}, Page \u{2193}", "Ctrl Home, Ctrl End", "Esc"] {
        assert!(sheet.text_content().unwrap().contains(key), "{key}");
    }
    sheet.query_selector("input").unwrap().unwrap().unchecked_into::<HtmlElement>().click();
    desk.session.keys_open.set(false);
    until("it is closed", || open(&desk) == [false, false]).await;
    assert!(!press(&desk.find("#elsewhere"), "?"));
    settled().await;
    assert_eq!(open(&desk), [false, false], "no single key does anything once that is turned off");
}
