//! The table.

use crate::prelude::*;
use retinker::direction::isolated;
use retinker::host::checkpoints::{CheckpointItem, CheckpointSort};
use retinker_console::address::run_address;
use retinker_console::checkpoints::{View, kind};
use retinker_console::format;

use super::{Desk, Sheet};
use crate::components::copy::copy_button;
use crate::components::icon::icon;
use crate::components::reactive::{flag, maybe, text, when, word};
use crate::components::time::{expiry, when_it_was};

fn rows(desk: Desk) -> Vec<String> {
    desk.window.with(|w| {
        let rows = w.data.iter().flat_map(|data| &data.rows);
        rows.map(|row| row.checkpoint.tinker_path.clone()).collect()
    })
}

pub(super) fn table(desk: Desk) -> AnyView {
    let count = text(move || {
        desk.window.with(|w| w.data.as_ref().map_or(0, |data| data.matching).saturating_add(1).to_string())
    });
    let busy = flag(move || desk.window.with(|w| w.busy));
    // All of this page, or none.
    let all = flag(move || {
        let rows = rows(desk);
        !rows.is_empty() && desk.selection.with(|s| rows.iter().all(|path| s.paths.contains(path)))
    });
    let pick_all = move |event| {
        let on = event_target_checked(&event);
        let rows = rows(desk);
        desk.selection.update(|s| rows.iter().for_each(|path| s.pick(&[], path, on, false)));
    };
    let empty = move || desk.window.with(|w| w.data.as_ref().is_some_and(|data| data.rows.is_empty()));
    view! {
        <div class="table-frame" class:busy=busy>
            <table
                class="all-checkpoints"
                role="table"
                data-testid="all-checkpoints"
                aria-label="Checkpoints"
                aria-rowcount=count
                aria-busy=word(move || Some(if busy.get() { "true" } else { "false" }))
            >
                <thead role="rowgroup">
                    <tr role="row">
                        <th role="columnheader" scope="col" class="c-pick">
                            <label class="pick">
                                <input
                                    type="checkbox"
                                    aria-label="Select all on this page"
                                    data-testid="select-page"
                                    prop:checked=all
                                    on:change=pick_all
                                />
                            </label>
                        </th>
                        {head(desk, CheckpointSort::Name, "c-name", "Checkpoint")}
                        {head(desk, CheckpointSort::Run, "c-run", "Run")}
                        <th role="columnheader" scope="col" class="c-kind">
                            "Type"
                        </th>
                        {head(desk, CheckpointSort::Saved, "c-saved", "Saved")}
                        {head(desk, CheckpointSort::Size, "c-size number", "Size")}
                        {head(desk, CheckpointSort::Expires, "c-expires", "Expires")}
                        <th role="columnheader" scope="col" class="c-more">
                            <span class="said">"More"</span>
                        </th>
                    </tr>
                </thead>
                <tbody role="rowgroup">
                    {each(move || rows(desk), move |path: String| {
                            let item = Memo::new(move |_| {
                                desk.window
                                    .with(|w| {
                                        let mut rows = w.data.iter().flat_map(|data| &data.rows);
                                        rows.find(|row| row.checkpoint.tinker_path == path).cloned()
                                    })
                            });
                            maybe(move || item.get().map(|item| line(desk, item)))
                        })}
                </tbody>
            </table>
            {when(empty, move || none(desk))}
        </div>
    }
}

/// A column's head, which sorts by it.
fn head(desk: Desk, sort: CheckpointSort, class: &'static str, name: &'static str) -> AnyView {
    let order = word(move || {
        let (is_it, descends) = desk.shown.with(|view| (view.sort == sort, view.descends()));
        is_it.then_some(if descends { "descending" } else { "ascending" })
    });
    let address = text(move || desk.shown.with(|view| view.sorted(sort).to_address()));
    view! {
        <th role="columnheader" scope="col" class=class aria-sort=order>
            <a class="sorts" href=address data-noscroll="" data-testid=format!("sort-{}", sort.as_str())>
                {name}
            </a>
        </th>
    }
}

fn line(desk: Desk, item: CheckpointItem) -> AnyView {
    let checkpoint = item.checkpoint.clone();
    let path = checkpoint.tinker_path.clone();
    let name = format::checkpoint_name(&checkpoint.checkpoint_id).to_owned();
    let known = path.clone();
    let picked = flag(move || desk.selection.with(|s| s.paths.contains(&known)));
    let clicked = path.clone();
    let pick = move |event: leptos::ev::MouseEvent| {
        // Read here, since the change that follows does not tell of the key.
        let (on, order) = (event_target_checked(&event), rows(desk));
        desk.selection.update(|s| s.pick(&order, &clicked, on, event.shift_key()));
    };
    let which = format!("{} of {}", isolated(&name), isolated(&item.run_name));
    let labels = (format!("Select {which}"), format!("More about {which}"));
    let needed = item.needed_because.clone().map(|because| {
        view! {
            <span class="chip" title=because data-testid="needed">
                "needed"
            </span>
        }
    });
    let public = checkpoint.public.then(|| {
        view! {
            <span class="chip" data-testid="public">
                "public"
            </span>
        }
    });
    let run = (run_address(&item.run_id), item.run_name.clone(), item.run_id.clone());
    let open = move |_| desk.show(Sheet::One(Box::new(item.clone())));
    view! {
        <tr role="row" class:picked=picked data-testid="checkpoint-item" data-path=path.clone()>
            <td role="cell" class="c-pick">
                <label class="pick">
                    <input type="checkbox" aria-label=labels.0 prop:checked=picked on:click=pick />
                </label>
            </td>
            <th role="rowheader" scope="row" class="c-name">
                <span class="run-id">
                    <span class="mono strong name" title=path.clone()>
                        {name}
                    </span>
                    {copy_button(Signal::stored(path.clone()), "the checkpoint's path")}
                </span>
                {needed}
                {public}
            </th>
            <td role="cell" class="c-run">
                <a href=run.0 title=run.2>
                    {run.1}
                </a>
            </td>
            <td role="cell" class="c-kind" data-label="type">
                {kind(&checkpoint.checkpoint_type).to_owned()}
            </td>
            <td role="cell" class="c-saved" data-label="saved">
                {when_it_was(checkpoint.time)}
            </td>
            <td role="cell" class="c-size number" data-label="size">
                {checkpoint.size_bytes.map_or_else(|| "–".to_owned(), format::bytes)}
            </td>
            <td role="cell" class="c-expires" data-label="expires">
                {expiry(checkpoint.expires_at)}
            </td>
            <td role="cell" class="c-more">
                <button type="button" class="copy" title=labels.1.clone() aria-label=labels.1 data-testid="more" on:click=open>
                    {icon("more")}
                </button>
            </td>
        </tr>
    }
}

/// Why there are no rows.
fn none(desk: Desk) -> AnyView {
    let (read, failed, total) = desk.window.with(|w| {
        let data = w.data.as_ref();
        let failed = w.problem.is_some() || data.is_some_and(|data| data.problem.is_some());
        (data.is_some_and(|data| data.as_of.is_some()), failed, data.map_or(0, |data| data.total))
    });
    let (testid, sentence) = match (read, failed, total) {
        (false, true, _) => {
            ("checkpoints-unread", "The checkpoints could not be read yet. This is not an empty list.")
        }
        (false, false, _) => ("checkpoints-reading", "The checkpoints are being read…"),
        (true, _, 0) => ("checkpoints-empty", "Nothing has been saved on this service yet."),
        (true, ..) => ("checkpoints-no-match", "No checkpoint matches, or the list ends before this page."),
    };
    let whole = (total > 0).then(|| {
        view! {
            " "
            <a href=View::default().to_address()>"Show all checkpoints"</a>
        }
    });
    view! {
        <p class="empty" role="status" data-testid=testid>
            {sentence}
            {whole}
        </p>
    }
}
