//! The text of a filter, as every list has it.

use std::rc::Rc;
use std::time::Duration;

use crate::prelude::*;

use super::icon::icon;
use crate::live::{session, until_cleanup};

/// What stands in a field: what is `shown`, and what is being typed. Back, forward and links change the address, and the field
/// follows, unless it says the same already; what is typed is handed on, trimmed, once nothing more came for this long.
pub(crate) fn typing(
    shown: Memo<String>,
    pause: Duration,
    hand_on: impl Fn(String) + 'static,
) -> RwSignal<String> {
    let (session, hand_on) = (session(), Rc::new(hand_on));
    let typed = RwSignal::new(shown.get_untracked());
    Effect::new(move |_| {
        let shown = shown.get();
        if typed.with_untracked(|typed| typed.trim() != shown) {
            typed.set(shown);
        }
    });
    Effect::new(move |_| {
        let text = typed.get();
        if shown.with_untracked(|shown| shown == text.trim()) {
            return;
        }
        let (session, hand_on) = (session.clone(), Rc::clone(&hand_on));
        until_cleanup(Box::pin(async move {
            session.host.sleep(pause).await;
            hand_on(text.trim().to_owned());
        }));
    });
    typed
}

/// How a field looks.
pub(crate) struct Field {
    pub(crate) testid: &'static str,
    /// What a screen reader calls it.
    pub(crate) said: &'static str,
    pub(crate) placeholder: &'static str,
    /// Most letters.
    pub(crate) most: &'static str,
    /// The id of the list that completes it, which is part of `more`.
    pub(crate) list: Option<&'static str>,
}

/// The field for this text, with whatever else is part of it.
pub(crate) fn field(field: Field, typed: RwSignal<String>, more: AnyView) -> AnyView {
    view! {
        <label class="field grow">
            <span class="said">{field.said}</span>
            {icon("search")}
            <input
                type="search"
                data-testid=field.testid
                placeholder=field.placeholder
                list=field.list
                autocomplete="off"
                spellcheck="false"
                maxlength=field.most
                prop:value=typed.signal()
                on:input=move |event| typed.set(event_target_value(&event))
            />
            {more}
        </label>
    }
}
