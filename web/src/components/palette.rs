//! Going anywhere and doing anything by its name: what there is, and runs that the text finds.

use std::time::Duration;

use crate::prelude::*;
use leptos::ev::KeyboardEvent;
use leptos::reactive::spawn_local;
use retinker::host::api::RunsQuery;
use retinker_console::address;
use retinker_console::address::run_address;
use retinker_console::format::short_id;
use retinker_console::palette::{Act, Command, commands, find};
use retinker_console::views;

use super::copy::COPY_REFUSED;
use super::dialog::dialog;
use super::reactive::{part, text, word};
use crate::browser;
use crate::live::{session, until_cleanup};
use crate::place::place;
use crate::shell::PAGES;

/// Runs that are offered.
const RUNS: u64 = 6;
/// The runs are asked for this long after the last letter.
const TYPING: Duration = Duration::from_millis(80);

/// The dialog.
pub(crate) fn palette_dialog() -> AnyView {
    let open = session().palette_open;
    dialog(open, Signal::stored("Go to or do".to_owned()), "palette", move || palette(open))
}

fn palette(open: RwSignal<bool>) -> AnyView {
    let session = session();
    let typed = RwSignal::new(String::new());
    let runs = RwSignal::new(Vec::<Command>::new());
    let at = RwSignal::new(0_usize);
    let asker = session.clone();
    Effect::new(move |_| {
        let text = typed.get();
        at.set(0);
        // Those of the text before stay as far as they fit: Enter must not go to one that is not meant any more.
        runs.set(find(runs.get_untracked(), &text));
        let session = asker.clone();
        until_cleanup(Box::pin(async move {
            session.host.sleep(TYPING).await;
            if text.trim().is_empty() {
                return runs.set(Vec::new());
            }
            let query = RunsQuery { q: Some(text), limit: Some(RUNS), ..RunsQuery::default() };
            // What is being written may make no sense yet.
            let found = session.host.runs(&query).await.map(|window| window.rows).unwrap_or_default();
            let found = found.into_iter().map(|row| Command {
                detail: format!("run {}", short_id(&row.run.training_run_id)),
                act: Act::Go(run_address(&row.run.training_run_id)),
                name: row.name,
            });
            runs.set(found.collect());
        }));
    });
    let own = StoredValue::new(views::read(&browser::stored(views::KEY)));
    let offered = Memo::new(move |_| {
        let mut all = find(commands(&PAGES, own.get_value()), &typed.get());
        all.extend(runs.get());
        all
    });
    let place = place();
    let said = RwSignal::new("");
    let run = move |command: &Command| {
        open.set(command.act == Act::CopyAddress);
        match &command.act {
            Act::Go(address) => place.go(&address::at(address), false),
            Act::CopyAddress => {
                let host = session.host.clone();
                spawn_local(async move {
                    if !browser::copy(&browser::address()).await {
                        said.try_set(COPY_REFUSED);
                        return;
                    }
                    said.try_set("Copied");
                    host.sleep(Duration::from_secs(1)).await;
                    open.set(false);
                });
            }
            Act::Refresh => session.read_again(),
            Act::Colours(theme) => session.set_theme(theme),
            Act::Keys => session.keys_open.set(true),
        }
    };
    let chosen = run.clone();
    let keys = move |event: KeyboardEvent| {
        let last = offered.with_untracked(Vec::len).saturating_sub(1);
        let now = at.get_untracked();
        match event.key().as_str() {
            "ArrowDown" => at.set(if now >= last { 0 } else { now + 1 }),
            "ArrowUp" => at.set(now.checked_sub(1).unwrap_or(last)),
            "Enter" => {
                let command = offered.with_untracked(|offered| offered.get(now).cloned());
                command.iter().for_each(&chosen);
            }
            _ => return,
        }
        event.prevent_default();
        browser::show(&format!("palette-{}", at.get_untracked()));
    };
    let list = part(move || {
        let lines: Vec<_> = offered
            .get()
            .into_iter()
            .enumerate()
            .map(|(index, command)| {
                let run = run.clone();
                let (name, detail) = (command.name.clone(), command.detail.clone());
                view! {
                    <li
                        role="option"
                        id=format!("palette-{index}")
                        aria-selected=word(move || Some(if at.get() == index { "true" } else { "false" }))
                        data-testid="palette-option"
                        on:click=move |_| run(&command)
                    >
                        <bdi>{name}</bdi>
                        <span class="quiet">{detail}</span>
                    </li>
                }
            })
            .collect();
        lines.into_any()
    });
    let count = text(move || match offered.with(Vec::len) {
        _ if !said.get().is_empty() => said.get().to_owned(),
        0 => "Nothing is called that.".to_owned(),
        count => format!("{count} found"),
    });
    view! {
        <div class="palette">
            <input
                type="text"
                role="combobox"
                aria-expanded="true"
                aria-controls="palette-list"
                aria-autocomplete="list"
                aria-label="What to go to or do"
                aria-activedescendant=text(move || match offered.with(Vec::len) {
                    0 => String::new(),
                    _ => format!("palette-{}", at.get()),
                })
                placeholder="A page, a run, something to do"
                data-testid="palette-text"
                autocomplete="off"
                spellcheck="false"
                maxlength="200"
                autofocus
                prop:value=typed.signal()
                on:input=move |event| typed.set(event_target_value(&event))
                on:keydown=keys
            />
            <ul id="palette-list" role="listbox" aria-label="Found">
                {list}
            </ul>
            <p class="quiet" role="status">{count}</p>
        </div>
    }
}
