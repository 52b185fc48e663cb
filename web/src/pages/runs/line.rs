//! One run of the list.

use crate::prelude::*;
use leptos::ev::MouseEvent;
use retinker::direction::isolated;
use retinker::host::api::RunRow;
use retinker_console::address::run_address;
use retinker_console::columns::Column;
use retinker_console::format;

use super::grid::cell_id;
use super::list::List;
use super::selected::select_range;
use crate::components::copy::copy_button_in_grid;
use crate::components::icon::icon;
use crate::components::reactive::{flag, maybe, part, text, word};
use crate::components::status::health_badge;
use crate::components::time::{expiry, when_it_was};

type Row = Memo<Option<RunRow>>;

/// The row at this place. Its cells change one by one, so that a refresh takes no selected text away.
pub(super) fn line(list: List, at: u64) -> AnyView {
    let held = Memo::new(move |_| list.held.with(|held| held.row(at)));
    let row: Row = Memo::new(move |_| held.with(|held| held.as_ref().map(|held| held.row.clone())));
    let id = Memo::new(move |_| read(row, |row| row.run.training_run_id.clone()));
    let selected = Memo::new(move |_| list.selection.with(|selection| id.with(|id| selection.has(id))));
    // Two names for one style: that it begins anew is what a second change looks like.
    let mark = Memo::new(move |_| held.with(|held| held.as_ref().map_or(0, |held| held.mark)));
    let marked = word(move || match mark.get() {
        0 => None,
        odd if odd % 2 == 1 => Some("odd"),
        _ => Some("even"),
    });
    let place = Memo::new(move |_| format!("translateY({}px)", list.frame().place(at).round() as i64));
    let name = Memo::new(move |_| read(row, |row| row.name.clone()));
    let pick = move |event: MouseEvent| {
        if event.shift_key() && list.selection.with_untracked(|selection| selection.anchor().is_some()) {
            // The browser takes the tick out of a box that has one.
            if selected.get_untracked() {
                event.prevent_default();
            }
            select_range(list, at);
        } else {
            let id = id.get_untracked();
            list.selection.update(|selection| selection.toggle(&id));
        }
    };
    let is_active = move |column: usize| flag(move || list.active.get() == (at, column));
    let cells = part(move || {
        let cells: Vec<_> = list
            .order
            .get()
            .into_iter()
            .enumerate()
            .map(|(index, column)| {
                let role = if column == Column::Name { "rowheader" } else { "gridcell" };
                view! {
                    <div
                        role=role
                        id=cell_id(at, index + 1)
                        aria-colindex=(index + 2).to_string()
                        class=format!("c-{}", column.as_str())
                        class:number=column.is_number()
                        class:active=is_active(index + 1)
                    >
                        {cell(column, row, id)}
                    </div>
                }
            })
            .collect();
        cells.into_any()
    });
    view! {
        <div
            role="row"
            class="runs-row"
            class:blank=flag(move || row.with(Option::is_none))
            class:active=flag(move || list.active.get().0 == at)
            style:transform=place.signal()
            aria-rowindex=at.saturating_add(2).to_string()
            aria-selected=word(move || Some(if selected.get() { "true" } else { "false" }))
            data-testid=word(move || Some(if row.with(Option::is_some) { "run-row" } else { "run-blank" }))
            data-run-id=id.signal()
            data-health=word(move || row.with(|row| row.as_ref().map(|row| row.verdict.health.as_str())))
            data-marked=marked
            on:click=move |_| list.active.update(|active| active.0 = at)
        >
            <div
                role="gridcell"
                id=cell_id(at, 0)
                aria-colindex="1"
                class="c-select"
                class:active=is_active(0)
            >
                <label class="pick">
                    <input
                        type="checkbox"
                        tabindex="-1"
                        aria-label=text(move || format!("Select {}", name.get()))
                        prop:checked=selected.signal()
                        on:click=pick
                    />
                </label>
            </div>
            {cells}
        </div>
    }
}

fn read(row: Row, read: fn(&RunRow) -> String) -> String {
    row.with(|row| row.as_ref().map(read).unwrap_or_default())
}

fn cell(column: Column, row: Row, id: Memo<String>) -> AnyView {
    let checkpoint = move || row.with(|row| row.as_ref().and_then(|row| row.run.last_checkpoint.clone()));
    match column {
        Column::Health => {
            let health = Memo::new(move |_| row.with(|row| row.as_ref().map(|row| row.verdict.health)));
            let reason = Memo::new(move |_| read(row, |row| row.verdict.reason.clone()));
            view! { <span title=reason.signal()>{maybe(move || health.get().map(health_badge))}</span> }
        }
        Column::Name => {
            let name = Memo::new(move |_| read(row, |row| row.name.clone()));
            let short = text(move || format::short_id(&id.get()));
            view! {
                <a href=text(move || run_address(&id.get())) class="run-name" title=name.signal() tabindex="-1">
                    <bdi>{name.signal()}</bdi>
                </a>
                <span class="run-id">
                    <span class="mono" title=id.signal()>
                        {short}
                    </span>
                    {copy_button_in_grid(id, "the run's id")}
                </span>
            }
        }
        Column::Model => words(row, |row| row.run.base_model.clone()),
        Column::Owner => words(row, |row| row.run.model_owner.clone()),
        Column::Labels => words(row, |row| {
            let labels = row.run.user_metadata.iter().flatten();
            labels
                .map(|(key, value)| format!("{}={}", isolated(key), isolated(value)))
                .collect::<Vec<_>>()
                .join("  ")
        }),
        Column::Rank => {
            let rank = text(move || {
                read(row, |row| {
                    row.run.lora_rank.map_or_else(|| "\u{2013}".to_owned(), |rank| rank.to_string())
                })
            });
            view! { <span data-label="rank">{rank}</span> }
        }
        Column::Activity => {
            let at = Memo::new(move |_| row.with(|row| row.as_ref().map(|row| row.run.last_request_time)));
            view! { <span data-label="active">{maybe(move || at.get().map(when_it_was))}</span> }
        }
        Column::Checkpoint => {
            let saved = Memo::new(move |_| checkpoint());
            let saved = maybe(move || match saved.get() {
                Some(checkpoint) => Some(view! {
                    <span class="mono" title=checkpoint.tinker_path>
                        {format::checkpoint_name(&checkpoint.checkpoint_id).to_owned()}
                    </span>
                    <span class="quiet">{when_it_was(checkpoint.time)}</span>
                }),
                None => row.with(Option::is_some).then(|| quiet("none")),
            });
            view! { <span data-label="checkpoint">{saved}</span> }
        }
        Column::Expires => {
            let expires = Memo::new(move |_| checkpoint().map(|checkpoint| checkpoint.expires_at));
            let expires = maybe(move || match expires.get() {
                Some(at) => Some(expiry(at)),
                None => row.with(Option::is_some).then(|| quiet("\u{2013}")),
            });
            view! { <span data-label="expires">{expires}</span> }
        }
        Column::Lineage => {
            // A memo, since the links must not be drawn anew when only the activity moved.
            let lineage = Memo::new(move |_| {
                row.with(|row| {
                    row.as_ref().map(|row| {
                        (row.restored_to.clone(), row.restored_from.clone(), row.restore_id.is_some())
                    })
                })
            });
            let chips =
                maybe(move || lineage.get().map(|(to, from, under_way)| lineage_chips(to, from, under_way)));
            view! { <span>{chips}</span> }
        }
    }
}

fn words(row: Row, of: fn(&RunRow) -> String) -> AnyView {
    let words = Memo::new(move |_| read(row, of));
    view! { <bdi title=words.signal()>{words.signal()}</bdi> }
}

fn quiet(text: &'static str) -> AnyView {
    view! { <span class="quiet">{text}</span> }
}

fn lineage_chips(to: Option<String>, from: Option<String>, under_way: bool) -> AnyView {
    let restoring = (under_way && to.is_none()).then(|| {
        view! {
            <span class="chip">
                {icon("recovered")}
                <span>"restoring"</span>
            </span>
        }
    });
    let chip = |id: String, drawing: &str, word: &str, testid: &'static str| {
        view! {
            <a class="chip" href=run_address(&id) title=format!("Restored {word} {id}") data-testid=testid tabindex="-1">
                {icon(drawing)}
                <span>{format!("{word} {}", format::short_id(&id))}</span>
            </a>
        }
    };
    view! {
        {restoring}
        {to.map(|to| chip(to, "forward", "as", "row-restored-to"))}
        {from.map(|from| chip(from, "back", "from", "row-restored-from"))}
    }
}
