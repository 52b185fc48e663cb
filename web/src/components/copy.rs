//! Buttons that copy.

use std::time::Duration;

use crate::prelude::*;
use leptos::reactive::spawn_local;

use super::icon::icon;
use super::reactive::part;
use crate::browser;
use crate::live::session;

/// Said where a text cannot be put on the clipboard.
pub(crate) const COPY_REFUSED: &str = "The browser refused: select it and copy it yourself";

#[derive(Clone, Copy)]
enum Copied {
    Not,
    Yes,
    Refused,
}

/// Copies a text, and says so. `what` names it: "the run's id".
pub(crate) fn copy_button(text: impl Into<Signal<String>>, what: &str) -> AnyView {
    button(text.into(), what, None)
}

/// The same in a list whose rows are no stops of the keyboard, since there may be very many.
pub(crate) fn copy_button_in_grid(text: impl Into<Signal<String>>, what: &str) -> AnyView {
    button(text.into(), what, Some("-1"))
}

fn button(text: Signal<String>, what: &str, tabindex: Option<&'static str>) -> AnyView {
    let session = session();
    let state = RwSignal::new(Copied::Not);
    // How often it was pressed: what the last time came to stays for two seconds, however soon it followed.
    let round = StoredValue::new(0u32);
    let copy = move |_| {
        let session = session.clone();
        round.update_value(|round| *round += 1);
        let this = round.get_value();
        spawn_local(async move {
            let copied = browser::copy(&text.get_untracked()).await;
            // The button may be gone by now.
            let _ = state.try_set(if copied { Copied::Yes } else { Copied::Refused });
            session.host.sleep(Duration::from_secs(2)).await;
            if round.try_get_value() == Some(this) {
                state.set(Copied::Not);
            }
        });
    };
    let drawing = part(move || {
        icon(match state.get() {
            Copied::Not => "copy",
            Copied::Yes => "check",
            Copied::Refused => "cross",
        })
    });
    let said = Signal::derive(move || match state.get() {
        Copied::Not => "",
        Copied::Yes => "Copied",
        Copied::Refused => COPY_REFUSED,
    });
    let label = format!("Copy {what}");
    view! {
        <button type="button" class="copy" tabindex=tabindex title=label.clone() aria-label=label on:click=copy>
            {drawing}
            <span class="said" role="status">{said}</span>
        </button>
    }
}
