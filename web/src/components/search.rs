//! The text of a filter, as every list has it.

use std::rc::Rc;
use std::time::Duration;

use crate::prelude::*;
use retinker::host::completion::{Completion, CompletionQuery, FilterOf};

use super::icon::icon;
use super::reactive::part;
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
    /// The list that it filters, where the host tells how its text can go on.
    pub(crate) of: Option<FilterOf>,
}

/// How a text can go on is asked for this long after the last letter.
const COMPLETING: Duration = Duration::from_millis(60);

/// The ways in which the text can go on, once somebody is in the field. A browser offers those that begin as the field does.
fn completions(of: FilterOf, id: String, typed: RwSignal<String>, used: RwSignal<bool>) -> AnyView {
    let session = session();
    let offered = RwSignal::new(Vec::<Completion>::new());
    Effect::new(move |_| {
        let q = typed.get();
        if !used.get() {
            return;
        }
        let session = session.clone();
        until_cleanup(Box::pin(async move {
            session.host.sleep(COMPLETING).await;
            // Without an answer a person writes on by herself.
            if let Ok(told) = session.host.completions(&CompletionQuery { of, q }).await {
                offered.set(told.offered);
            }
        }));
    });
    let options = part(move || {
        let options = offered.get().into_iter();
        options
            .map(|one| view! { <option value=one.text>{one.meaning}</option> })
            .collect::<Vec<_>>()
            .into_any()
    });
    view! {
        <datalist id=id.clone() data-testid=id>
            {options}
        </datalist>
    }
}

/// A form of this field alone.
pub(crate) fn form(of: Field, typed: RwSignal<String>) -> AnyView {
    view! {
        <form class="tools" role="search" on:submit=|event| event.prevent_default()>
            {field(of, typed)}
        </form>
    }
}

/// The field for this text.
pub(crate) fn field(field: Field, typed: RwSignal<String>) -> AnyView {
    let used = RwSignal::new(false);
    let list = field.of.map(|of| format!("{}-completions", of.as_str()));
    let offered = field.of.zip(list.clone()).map(|(of, id)| completions(of, id, typed, used));
    view! {
        <label class="field grow">
            <span class="said">{field.said}</span>
            {icon("search")}
            <input
                type="search"
                data-testid=field.testid
                placeholder=field.placeholder
                list=list
                on:focus=move |_| used.set(true)
                autocomplete="off"
                spellcheck="false"
                maxlength=field.most
                prop:value=typed.signal()
                on:input=move |event| typed.set(event_target_value(&event))
            />
            {offered}
        </label>
    }
}
