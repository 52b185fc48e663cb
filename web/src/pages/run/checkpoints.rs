//! What the run has saved.

use crate::prelude::*;
use retinker::host::api::CheckpointRow;
use retinker::recovery::plan::LINEAGE_PREFIX;
use retinker::recovery::retention::run_of;
use retinker::wire::run::CheckpointType;
use retinker_console::address::{checkpoints_address, run_address, try_address};
use retinker_console::format;

use super::{Detail, slice};
use crate::components::copy::copy_button;
use crate::components::heads::heads;
use crate::components::icon::icon;
use crate::components::reactive::{flag, part, text, when};
use crate::components::time::{countdown, when_it_was};

pub(super) fn checkpoints(id: Memo<String>, detail: Detail) -> AnyView {
    const HEADS: [(&str, &str); 5] =
        [("", "Name"), ("", "Saved"), ("number", "Size"), ("", "Expires"), ("", "Can be restored from")];
    let rows = slice(detail, |d| d.checkpoints.clone());
    let unread =
        flag(move || detail.with(|d| d.data.as_ref().is_some_and(|d| d.checkpoints_problem.is_some())));
    // What it was restored from is its parent's.
    let own = Memo::new(move |_| {
        let is_own = |row: &&CheckpointRow| id.with(|id| origin_of(row, id).is_none());
        rows.with(|rows| rows.iter().flatten().filter(is_own).count())
    });
    let count = text(move || {
        let count = own.get();
        if count == 0 && unread.get() { String::new() } else { format::count(count as u64) }
    });
    let table = move || {
        let line = |row| id.with(|id| checkpoint_line(row, id));
        let lines: Vec<_> = rows.get().into_iter().flatten().map(line).collect();
        view! {
            <div class="table-frame">
                <table class="checkpoints" role="table" data-testid="checkpoints-table" aria-label="Checkpoints">
                    <thead role="rowgroup">
                        <tr role="row">{heads(&HEADS)}</tr>
                    </thead>
                    <tbody role="rowgroup">{lines}</tbody>
                </table>
            </div>
        }
    };
    let none = slice(detail, |d| {
        if d.checkpoints_problem.is_some() {
            "The checkpoints could not be read. This does not mean that there are none."
        } else if d.row.run.corrupted == Some(true) {
            "Nothing was saved."
        } else if d.restored_by.is_some() {
            "Nothing has been saved by this run yet."
        } else {
            "Nothing has been saved yet. If this run fails, there is nothing to restore it from."
        }
        .to_owned()
    });
    let body = part(move || {
        let nothing = (own.get() == 0).then(|| view! { <p class="quiet">{none.get()}</p> });
        let table = rows.with(|rows| rows.as_ref().is_some_and(|rows| !rows.is_empty())).then(table);
        view! { {nothing} {table} }
    });
    view! {
        <section class="panel">
            <div class="panel-head">
                <h2>"Checkpoints " <span class="quiet">{count}</span></h2>
                <a href=text(move || checkpoints_address(&id.get()))>"Manage them"</a>
            </div>
            {when(
                move || unread.get() && rows.with(|rows| rows.as_ref().is_some_and(|rows| !rows.is_empty())),
                || view! { <p class="quiet">"These were read before. They could not be read again."</p> },
            )}
            {body}
        </section>
    }
}

/// The run that a checkpoint is of, if it is another than this one.
fn origin_of<'a>(row: &'a CheckpointRow, run_id: &str) -> Option<&'a str> {
    run_of(&row.checkpoint.tinker_path).filter(|of| *of != run_id)
}

fn checkpoint_line(row: CheckpointRow, run_id: &str) -> AnyView {
    let origin = origin_of(&row, run_id).map(|of| {
        view! {
            <span class="quiet" data-testid="checkpoint-origin">
                "of " <a href=run_address(of)>{format::short_id(of)}</a> ", which this run was restored from"
            </span>
        }
    });
    let checkpoint = row.checkpoint;
    let kind = match &checkpoint.checkpoint_type {
        CheckpointType::Training => "",
        CheckpointType::Sampler => "for sampling",
        CheckpointType::External => "for download",
        _ => "of an unknown kind",
    };
    let (class, drawing) =
        if row.unusable_because.is_none() { ("usable", "check") } else { ("usable quiet", "cross") };
    let path = checkpoint.tinker_path;
    let is_sampler = checkpoint.checkpoint_type == CheckpointType::Sampler;
    let tried = is_sampler.then(|| view! { <a href=try_address(&path)>"Try it"</a> });
    // What retinker keeps there, such as a probe, is numbers for programs.
    let labels: Vec<_> = checkpoint
        .user_metadata
        .into_iter()
        .flatten()
        .filter(|(key, _)| !key.starts_with(LINEAGE_PREFIX))
        .map(|(key, value)| view! { <li class="break"><bdi>{key}</bdi> "=" <bdi>{value}</bdi></li> })
        .collect();
    let labels = (!labels.is_empty())
        .then(|| view! { <ul class="checkpoint-labels" aria-label="Labels">{labels}</ul> });
    view! {
        <tr role="row" data-testid="checkpoint-row" data-path=path.clone()>
            <th role="rowheader" scope="row">
                <span class="run-id">
                    <span class="mono strong" title=path.clone()>
                        {format::checkpoint_name(&checkpoint.checkpoint_id).to_owned()}
                    </span>
                    {copy_button(Signal::stored(path.clone()), "the checkpoint's path")}
                </span>
                <span class="quiet">{kind}</span>
                " "
                {origin}
                {tried}
                {labels}
            </th>
            <td role="cell" data-label="saved">
                {when_it_was(checkpoint.time)}
            </td>
            <td role="cell" data-label="size" class="number">
                {checkpoint.size_bytes.map_or_else(|| "–".to_owned(), format::bytes)}
            </td>
            <td role="cell" data-label="expires">
                {countdown(checkpoint.expires_at)}
            </td>
            <td role="cell" class="c-usable">
                <span class=class>
                    {icon(drawing)} <span>{row.unusable_because.unwrap_or_else(|| "yes".to_owned())}</span>
                </span>
            </td>
        </tr>
    }
}
