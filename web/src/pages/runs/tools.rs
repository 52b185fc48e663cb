//! What the list shows: the filter, named views, the order and the columns.

use std::time::Duration;

use crate::prelude::*;
use retinker::host::api::RunSort;
use retinker::host::completion::FilterOf;
use retinker_console::address::{at, read_sort, without_connection};
use retinker_console::columns::{Column, STEP};
use retinker_console::views::{self, Saved};

use super::list::List;
use crate::browser;
use crate::components::icon::icon;
use crate::components::menu::menu;
use crate::components::reactive::{flag, part, text, word};
use crate::components::search::{Field, field, typing};

/// Typing asks for a new list this long after the last letter: what is typed at once is one wish.
const TYPING: Duration = Duration::from_millis(15);

/// Filter, views, order and columns.
pub(super) fn tools(list: List) -> AnyView {
    let typed = typing(Memo::new(move |_| list.shown.with(|shown| shown.q.clone())), TYPING, move |q| {
        list.replace(&list.shown.with_untracked(|shown| shown.with_text(&q)));
    });
    let order = move |event| {
        let sort = read_sort(&event_target_value(&event)).unwrap_or_default();
        list.go(&list.shown.with_untracked(|shown| shown.with_sort(sort)));
    };
    let options: Vec<_> = [
        (RunSort::Health, "Worst first"),
        (RunSort::Activity, "Latest activity"),
        (RunSort::Name, "Name"),
        (RunSort::Model, "Base model"),
        (RunSort::Rank, "Highest rank"),
        (RunSort::Saved, "Latest checkpoint"),
        (RunSort::Expires, "Expires soonest"),
    ]
    .into_iter()
    .map(|(sort, label)| {
        let chosen = flag(move || list.shown.with(|shown| shown.sort == sort));
        view! { <option value=sort.as_str() prop:selected=chosen>{label}</option> }
    })
    .collect();
    view! {
        <form class="tools" role="search" on:submit=|event| event.prevent_default()>
            {field(
                Field {
                    testid: "runs-search",
                    said: "Filter by words, or by fields: health:poisoned, model:llama, rank>=16, age<2d, meta.team=x",
                    placeholder: "Filter: words, health:poisoned, rank>=16, age<2d, meta.team=x",
                    most: "2000",
                    of: Some(FilterOf::Runs),
                },
                typed,
            )}
            <label class="field">
                <span class="field-name">"Order"</span>
                <select data-testid="runs-sort" on:change=order>
                    {options}
                </select>
            </label>
            <button
                type="button"
                class="button"
                data-testid="runs-reverse"
                aria-pressed=word(move || Some(if list.shown.with(|shown| shown.reverse) { "true" } else { "false" }))
                on:click=move |_| list.go(&list.shown.with_untracked(|shown| shown.with_sort(shown.sort)))
            >
                "Reversed"
            </button>
            {menu("Views", "views-menu", move || saved_views(list))}
            {menu("Columns", "columns-menu", move || columns(list))}
        </form>
    }
}

/// Views by name: those that everybody has, and this browser's own.
fn saved_views(list: List) -> AnyView {
    let own = RwSignal::new(views::read(&browser::stored(views::KEY)));
    let name = RwSignal::new(String::new());
    let refused = RwSignal::new("");
    let keep = move |views: Vec<Saved>| {
        let is_kept = browser::store(views::KEY, &views::write(&views));
        refused.set(if is_kept { "" } else { "This browser keeps nothing." });
        own.set(views);
    };
    let save = move || {
        if !name.with_untracked(|name| name.trim().is_empty()) {
            // With the columns as they are, also those that this browser usually shows: others may be usual by then.
            let columns = list.columns.get_untracked();
            let shown = list.shown.with_untracked(|shown| shown.with_columns(columns));
            let address = without_connection(&shown.to_address());
            match own.with_untracked(|own| views::with(own, &name.get_untracked(), &address)) {
                Some(views) => {
                    keep(views);
                    name.set(String::new());
                }
                None => refused.set("There are fifty already: delete one first."),
            }
        }
    };
    // By hand, since a form in the form of the filter would be none.
    let enter = move |event: leptos::ev::KeyboardEvent| {
        if event.key() == "Enter" {
            event.prevent_default();
            save();
        }
    };
    let offered: Vec<_> = views::OFFERED
        .into_iter()
        .map(|(name, address)| {
            view! { <li><a href=at(address) data-testid="view-link">{name}</a></li> }
        })
        .collect();
    let mine = part(move || {
        let lines: Vec<_> = own
            .get()
            .into_iter()
            .map(|view| {
                let gone = view.name.clone();
                let label = format!("Delete the view {gone}");
                let delete = move |_| keep(own.with_untracked(|own| views::without(own, &gone)));
                view! {
                    <li class="own-view">
                        <a href=at(&view.address) data-testid="view-link">{view.name}</a>
                        <button type="button" class="copy" aria-label=label on:click=delete>
                            {icon("cross")}
                        </button>
                    </li>
                }
            })
            .collect();
        lines.into_any()
    });
    view! {
        <ul class="menu-list">{offered} {mine}</ul>
        <div class="menu-form">
            <label>
                <span class="field-name">"Save what is shown as"</span>
                <input
                    type="text"
                    maxlength="60"
                    data-testid="view-name"
                    prop:value=name.signal()
                    on:input=move |event| name.set(event_target_value(&event))
                    on:keydown=enter
                />
            </label>
            <button type="button" class="button" data-testid="view-save" on:click=move |_| save()>
                "Save"
            </button>
            <p class="quiet" role="alert" data-testid="view-refused">{word(move || Some(refused.get()))}</p>
        </div>
    }
}

/// Which columns, and how wide; beside dragging their edges.
fn columns(list: List) -> AnyView {
    let lines: Vec<_> = Column::ALL
        .into_iter()
        .map(|column| {
            let shown = flag(move || list.columns.with(|columns| columns.has(column)));
            let choose = move |event| {
                let is_shown = event_target_checked(&event);
                list.show_columns(list.columns.with_untracked(|columns| columns.with(column, is_shown)));
            };
            let wider = move |more: bool| {
                list.show_columns(list.columns.with_untracked(|columns| {
                    let width = columns.width(column);
                    let width = if more { width.saturating_add(STEP) } else { width.saturating_sub(STEP) };
                    columns.with_width(column, width)
                }));
            };
            let size = text(move || list.columns.with(|columns| format!("{} px", columns.width(column))));
            let step = move |more: bool, sign: &'static str, word: &str| {
                let label = format!("Make {} {word}", column.heading());
                view! {
                    <button
                        type="button"
                        class="copy"
                        aria-label=label
                        disabled=flag(move || !shown.get())
                        on:click=move |_| wider(more)
                    >
                        {sign}
                    </button>
                }
            };
            view! {
                <li class="column-line">
                    <label>
                        <input
                            type="checkbox"
                            data-testid=format!("column-{}", column.as_str())
                            prop:checked=shown
                            disabled=column.is_fixed()
                            on:change=choose
                        />
                        {column.heading()}
                    </label>
                    <span class="column-width">
                        {step(false, "\u{2212}", "narrower")} <span class="quiet">{size}</span>
                        {step(true, "+", "wider")}
                    </span>
                </li>
            }
        })
        .collect();
    view! {
        <ul class="menu-list">{lines}</ul>
        <div class="menu-form">
            <button type="button" class="button" on:click=move |_| list.show_columns(Default::default())>
                "Usual columns"
            </button>
        </div>
    }
}
