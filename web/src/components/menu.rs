//! A button that opens a small panel beneath it. Escape, a click elsewhere and leaving it by keyboard close it.

use crate::prelude::*;
use leptos::ev::KeyboardEvent;
use wasm_bindgen::JsCast;

use super::icon::icon;
use super::reactive::when;
use crate::browser;

/// A panel that is drawn while it is open.
pub(crate) fn menu(
    name: &'static str,
    testid: &'static str,
    content: impl Fn() -> AnyView + Send + 'static,
) -> AnyView {
    menu_of(name.into_any(), "button", testid, content)
}

/// The same, beneath a button that is drawn otherwise.
pub(crate) fn menu_of(
    name: AnyView,
    class: &'static str,
    testid: &'static str,
    content: impl Fn() -> AnyView + Send + 'static,
) -> AnyView {
    let open = RwSignal::new(false);
    let node = NodeRef::<web_sys::HtmlDetailsElement>::new();
    let close = move || {
        if let Some(details) = node.get_untracked() {
            details.set_open(false);
        }
    };
    let keys = move |event: KeyboardEvent| {
        if event.key() == "Escape" && open.get_untracked() {
            event.stop_propagation();
            close();
            browser::focus(testid);
        }
    };
    let leave = move |event: leptos::ev::FocusEvent| {
        let to = event.related_target().and_then(|to| to.dyn_into::<web_sys::Node>().ok());
        let is_within = node.get_untracked().is_some_and(|details| details.contains(to.as_ref()));
        if to.is_some() && !is_within {
            close();
        }
    };
    let elsewhere = window_event_listener(leptos::ev::pointerdown, move |event| {
        let on = event.target().and_then(|on| on.dyn_into::<web_sys::Node>().ok());
        if open.try_get_untracked() == Some(true)
            && node.get_untracked().is_some_and(|details| !details.contains(on.as_ref()))
        {
            close();
        }
    });
    on_cleanup(move || elsewhere.remove());
    // A link within it leads away from it.
    let follow = move |event: leptos::ev::MouseEvent| {
        let on = event.target().and_then(|on| on.dyn_into::<web_sys::Element>().ok());
        if on.is_some_and(|on| on.closest("a").ok().flatten().is_some()) {
            close();
        }
    };
    let toggled = move |_| open.set(node.get_untracked().is_some_and(|details| details.open()));
    view! {
        <details class="menu" node_ref=node on:toggle=toggled on:keydown=keys on:focusout=leave>
            <summary class=class id=testid data-testid=testid>
                {name}
                {icon("down")}
            </summary>
            <div class="menu-panel" on:click=follow>{when(move || open.get(), content)}</div>
        </details>
    }
}
