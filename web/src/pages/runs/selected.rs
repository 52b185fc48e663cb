//! Selecting runs, and what can be done with those that are.

use crate::prelude::*;
use leptos::reactive::spawn_local;
use retinker::host::api::{MAX_IDS, RunsQuery};
use retinker_console::held::Held;
use retinker_console::selection::Selection;
use retinker_console::{compare, format};

use super::list::List;
use crate::components::bulk::ask_for_plans;
use crate::components::copy::copy_button;
use crate::components::icon::icon;
use crate::components::reactive::{maybe, text};
use crate::live::session;

/// Selects from where a range began to this place. Where none has begun there is no range: the host would tell all runs.
pub(super) fn select_range(list: List, to: u64) {
    let anchor = list.selection.with_untracked(|selection| selection.anchor().map(str::to_owned));
    let Some(anchor) = anchor else { return };
    let (range, end) = list.held.with_untracked(|held| {
        let range = held.place_of(&anchor).and_then(|from| held.ids(from, to));
        (range, held.id(to).map(str::to_owned))
    });
    match range {
        Some(ids) => list.selection.update(|selection| selection.add(ids)),
        // Rows between are not held: the host tells them. The row itself is selected in any case, as its box says: the host may
        // not answer, or another run may be in its place by now.
        None => {
            list.selection.update(|selection| selection.add(end));
            select(list, to, Some(anchor), Selection::add_all);
        }
    }
}

/// Selects every run that the filter lets through.
pub(super) fn select_all(list: List) {
    select(list, 0, None, Selection::add_all);
}

fn select(list: List, offset: u64, anchor: Option<String>, take: fn(&mut Selection, Vec<String>, u64)) {
    let session = session();
    let (era, shown) = (list.selection.with_untracked(Selection::era), list.shown.get_untracked());
    let query = RunsQuery { anchor, ..shown.to_query(offset, 0) };
    list.refused.set(None);
    spawn_local(async move {
        match session.host.run_ids(&query).await {
            Ok(found) => drop(list.selection.try_update(|all| {
                // Who has taken something out meanwhile, or looks at another list, wants none of it.
                let is_same = list.shown.try_get_untracked().is_some_and(|now| now.is_same_list(&shown));
                if is_same && all.era() == era {
                    take(all, found.ids, found.matching);
                }
            })),
            Err(problem) => drop(list.refused.try_set(Some(problem))),
        }
    });
}

/// What can be done with the selected runs; while none is, nothing.
pub(super) fn selected(list: List) -> AnyView {
    let session = session();
    let count = Memo::new(move |_| list.selection.with(|selection| selection.count()));
    let some = Memo::new(move |_| count.get() > 0);
    let told = text(move || {
        let (count, capped) = (count.get() as u64, list.selection.with(|selection| selection.capped_from));
        let (most, selected) = (format::count(MAX_IDS as u64), format::counted(count, "run", "runs"));
        match capped.map(format::count) {
            None => format!("{selected} selected"),
            Some(matching) if count == MAX_IDS as u64 => {
                format!("The first {most} of {matching} matching runs selected")
            }
            // Others were selected as well, or some of these are not any more.
            Some(matching) => {
                format!("{selected} selected; of {matching} matching the first {most} were taken")
            }
        }
    });
    let all = move || {
        maybe(move || {
            let matching = list.held.with(Held::matching);
            let most = MAX_IDS as u64;
            let name = match matching > most {
                true => {
                    format!(
                        "Select the first {} of {} matching",
                        format::count(most),
                        format::count(matching)
                    )
                }
                false => format!("Select all {} matching", format::count(matching)),
            };
            let is_done = list.selection.with(|selection| {
                let as_many = selection.count() as u64 >= matching || selection.capped_from == Some(matching);
                as_many && list.held.with(|held| held.all(|id| selection.has(id)))
            });
            (matching > 0 && !is_done).then(|| {
                view! {
                    <button
                        type="button"
                        class="button"
                        data-testid="select-all"
                        on:click=move |_| select_all(list)
                    >
                        {name}
                    </button>
                }
            })
        })
    };
    let compared = move || {
        maybe(move || {
            (2..=compare::MOST).contains(&count.get()).then(|| {
                let address = list
                    .selection
                    .with(|selection| compare::address(selection.ids().iter().map(String::as_str)));
                view! { <a class="button" href=address data-testid="compare-selected">"Compare"</a> }
            })
        })
    };
    let ids = text(move || list.selection.with(|selection| selection.ids().join("\n")));
    let bar = maybe(move || {
        some.get().then(|| {
            let session = session.clone();
            let restore = move |_| {
                ask_for_plans(&session, list.selection.with_untracked(|selection| selection.ids()));
            };
            view! {
                <section class="selected" aria-label="Selected runs" data-testid="selected">
                    <strong role="status" data-testid="selected-count">{told}</strong>
                    <button type="button" class="button primary" data-testid="restore-selected" on:click=restore>
                        "Restore\u{2026}"
                    </button>
                    {compared()}
                    <span class="copy-ids">"Copy ids " {copy_button(ids, "the selected runs' ids")}</span>
                    {all()}
                    <button
                        type="button"
                        class="button"
                        data-testid="select-none"
                        on:click=move |_| list.selection.update(Selection::clear)
                    >
                        {icon("cross")}
                        "Clear"
                    </button>
                </section>
            }
        })
    });
    view! { {bar} }
}
