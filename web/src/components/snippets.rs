//! Ready-made code, one tab for each piece.

use crate::prelude::*;
use leptos::ev::KeyboardEvent;
use retinker::host::api::Snippet;

use super::copy::copy_button;
use super::reactive::{flag, word};
use crate::browser;

fn language_name(language: &str) -> String {
    match language {
        "python" => "Python".to_owned(),
        "rust" => "Rust".to_owned(),
        "cookbook" => "Cookbook".to_owned(),
        "javascript" | "js" => "JavaScript".to_owned(),
        "typescript" | "ts" => "TypeScript".to_owned(),
        "elixir" => "Elixir".to_owned(),
        other => other.to_owned(),
    }
}

/// A tab's label: the language, and the title too where a language comes twice.
fn label(snippet: &Snippet, all: &[Snippet]) -> String {
    let name = language_name(&snippet.language);
    if all.iter().filter(|other| other.language == snippet.language).count() > 1 {
        format!("{name}: {}", snippet.title)
    } else {
        name
    }
}

/// Snippets as tabs. Arrow keys move between them.
pub(crate) fn snippet_tabs(snippets: &[Snippet]) -> AnyView {
    let chosen = RwSignal::new(0_usize);
    let last = snippets.len().saturating_sub(1);
    let keys = move |event: KeyboardEvent| {
        let now = chosen.get_untracked();
        let next = match event.key().as_str() {
            "ArrowRight" if now >= last => 0,
            "ArrowRight" => now + 1,
            "ArrowLeft" => now.checked_sub(1).unwrap_or(last),
            "Home" => 0,
            "End" => last,
            _ => return,
        };
        event.prevent_default();
        chosen.set(next);
        browser::focus(&format!("snippet-tab-{next}"));
    };
    let tabs = snippets
        .iter()
        .enumerate()
        .map(|(index, snippet)| {
            view! {
                <button
                    type="button"
                    role="tab"
                    id=format!("snippet-tab-{index}")
                    aria-controls=format!("snippet-panel-{index}")
                    aria-selected=word(move || Some(if chosen.get() == index { "true" } else { "false" }))
                    tabindex=word(move || Some(if chosen.get() == index { "0" } else { "-1" }))
                    on:click=move |_| chosen.set(index)
                >
                    {label(snippet, snippets)}
                </button>
            }
        })
        .collect::<Vec<_>>();
    let panels = snippets
        .iter()
        .enumerate()
        .map(|(index, snippet)| {
            let code = snippet.code.clone();
            view! {
                <div
                    role="tabpanel"
                    id=format!("snippet-panel-{index}")
                    aria-labelledby=format!("snippet-tab-{index}")
                    hidden=flag(move || chosen.get() != index)
                >
                    <div class="snippet-head">
                        <span>{snippet.title.clone()}</span>
                        {copy_button(Signal::stored(code.clone()), "the code")}
                    </div>
                    <pre tabindex="0">
                        <code data-testid=format!("snippet-{}", snippet.language)>{code}</code>
                    </pre>
                </div>
            }
        })
        .collect::<Vec<_>>();
    view! {
        <div class="snippets">
            <div role="tablist" aria-label="Language" class="tabs" on:keydown=keys>
                {tabs}
            </div>
            {panels}
        </div>
    }
}
