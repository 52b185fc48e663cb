//! Where one is: the address bar, the way back, and links that lead within the console without loading it again.

use crate::prelude::*;
use retinker_console::address::{Page, page};
use wasm_bindgen::JsCast;

use crate::browser;

/// Where one is. Cheap to copy.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    address: RwSignal<(String, String)>,
    /// The path: `/runs/abc`.
    pub(crate) path: Memo<String>,
    /// The query, without its `?`.
    pub(crate) query: Memo<String>,
    /// Which page that is.
    pub(crate) page: Memo<Page>,
    /// What the page is of: a run's or a session's id, or nothing.
    pub(crate) of: Memo<String>,
}

/// Follows the address bar and the links on the page; every part of the page can ask [`place`] from now on.
pub(crate) fn follow() -> Place {
    let address = RwSignal::new(browser::place());
    let found = Memo::new(move |_| address.with(|(path, _)| page(path)));
    let place = Place {
        address,
        path: Memo::new(move |_| address.with(|(path, _)| path.clone())),
        query: Memo::new(move |_| address.with(|(_, query)| query.clone())),
        page: Memo::new(move |_| found.with(|(page, _)| *page)),
        of: Memo::new(move |_| found.with(|(_, of)| of.clone())),
    };
    provide_context(place);
    // For as long as the console lives.
    let _ = window_event_listener_untyped("popstate", move |_| address.set(browser::place()));
    let _ = window_event_listener(leptos::ev::click, move |event| {
        if let Some((to, stays)) = within(&event) {
            event.prevent_default();
            place.show(&to, false);
            if !stays {
                browser::scroll_to_top();
            }
        }
    });
    place
}

/// Where one is.
pub(crate) fn place() -> Place {
    expect_context()
}

impl Place {
    /// Goes to an address of the console; with `replace`, the way back does not lead past where one was.
    pub(crate) fn go(self, to: &str, replace: bool) {
        let before = self.path.get_untracked();
        self.show(to, replace);
        if self.path.get_untracked() != before {
            browser::scroll_to_top();
        }
    }

    fn show(self, to: &str, replace: bool) {
        browser::go(to, replace);
        self.address.set(browser::place());
    }
}

/// The address that a click leads to, if it is one of the console and meant to be shown in this tab; and whether the page stays
/// where it is meanwhile, as with what only puts the same list in another order.
fn within(event: &leptos::ev::MouseEvent) -> Option<(String, bool)> {
    let is_plain = event.button() == 0
        && !(event.meta_key() || event.alt_key() || event.ctrl_key() || event.shift_key());
    if event.default_prevented() || !is_plain {
        return None;
    }
    let on = event.target()?.dyn_into::<web_sys::Element>().ok()?;
    let link = on.closest("a[href]").ok()??.dyn_into::<web_sys::HtmlAnchorElement>().ok()?;
    let leads_away = !link.target().is_empty()
        || link.has_attribute("download")
        || link.get_attribute("rel").is_some_and(|rel| rel.split_whitespace().any(|word| word == "external"))
        || link.origin() != browser::origin();
    let address = || format!("{}{}{}", link.pathname(), link.search(), link.hash());
    (!leads_away).then(|| (address(), link.has_attribute("data-noscroll")))
}
