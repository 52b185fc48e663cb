//! The keyboard: the keys that work everywhere, and the sheet that lists all of them.

use crate::prelude::*;
use leptos::ev::KeyboardEvent;
use wasm_bindgen::JsCast;

use super::dialog::dialog;
use super::reactive::flag;
use crate::browser;
use crate::live::session;

/// Where this browser keeps that no single key does anything.
const KEY: &str = "retinker.single-keys";

/// What each key does, by the place where it works.
const KEYS: [(&str, &[(&str, &str)]); 4] = [
    (
        "Everywhere",
        &[
            ("Ctrl K", "go anywhere, find a run, do something"),
            ("?", "this sheet"),
            ("Tab", "the next thing; the first one on a page leads past the header"),
            ("Esc", "close what is open"),
        ],
    ),
    (
        "In the list of runs",
        &[
            ("\u{2191} \u{2193} \u{2190} \u{2192}", "another run, another column"),
            ("Page \u{2191}, Page \u{2193}", "a screenful"),
            ("Home, End", "first and last column"),
            ("Ctrl Home, Ctrl End", "first and last run"),
            ("Enter", "open the run, or the one that the lineage names"),
            ("Space", "select the run, or no longer"),
            ("Shift \u{2191} \u{2193}", "select a range"),
            ("Ctrl A", "select all that match"),
            ("Esc", "select none"),
        ],
    ),
    (
        "In a chart",
        &[
            ("\u{2190} \u{2192}", "another step; with Shift further"),
            ("Home, End", "first and last step in sight"),
            ("+ \u{2212}", "zoom"),
            ("0", "all of it"),
            ("Esc", "no step"),
        ],
    ),
    (
        "Where something is tried",
        &[
            ("Ctrl Enter", "sample"),
            ("\u{2190} \u{2192}, Home, End", "from token to token of what was sampled"),
        ],
    ),
];

/// Listens for the keys that work everywhere.
pub(crate) fn listen() {
    let session = session();
    let (sheet, palette) = (session.keys_open, session.palette_open);
    let listener = window_event_listener(leptos::ev::keydown, move |event: KeyboardEvent| {
        let key = event.key();
        if (event.ctrl_key() || event.meta_key()) && key.eq_ignore_ascii_case("k") {
            event.prevent_default();
            palette.set(true);
        } else if key == "?" && !is_writing(&event) && browser::stored(KEY) != "off" {
            event.prevent_default();
            sheet.set(true);
        }
    });
    on_cleanup(move || listener.remove());
}

/// Whether the key goes into a text.
fn is_writing(event: &KeyboardEvent) -> bool {
    let on = event.target().and_then(|on| on.dyn_into::<web_sys::Element>().ok());
    on.is_some_and(|on| {
        let name = on.tag_name().to_ascii_lowercase();
        matches!(name.as_str(), "input" | "textarea" | "select") || on.has_attribute("contenteditable")
    })
}

/// The sheet.
pub(crate) fn keys_dialog() -> AnyView {
    let open = session().keys_open;
    dialog(open, Signal::stored("Keyboard".to_owned()), "keys-dialog", || {
        let on = RwSignal::new(browser::stored(KEY) != "off");
        let turn = move |event| {
            on.set(event_target_checked(&event));
            browser::store(KEY, if on.get_untracked() { "on" } else { "off" });
        };
        let parts: Vec<_> = KEYS
            .iter()
            .map(|(place, keys)| {
                let lines: Vec<_> = keys
                    .iter()
                    .map(|(key, does)| {
                        view! {
                            <dt>
                                <kbd>{*key}</kbd>
                            </dt>
                            <dd>{*does}</dd>
                        }
                    })
                    .collect();
                view! {
                    <h3>{*place}</h3>
                    <dl class="keys">{lines}</dl>
                }
            })
            .collect();
        view! {
            <div class="plan">
                {parts}
                <label class="option">
                    <input type="checkbox" prop:checked=flag(move || on.get()) on:change=turn />
                    <span>"The question mark opens this sheet, wherever nothing is being written"</span>
                </label>
            </div>
        }
    })
}
