//! How to go on with the run.

use crate::prelude::*;
use retinker::host::api::{RunDetail, Snippet};
use retinker::recovery::restore::RestoreState;
use retinker_console::format;

use super::{Detail, newest, slice};
use crate::components::handover::hand_over_panel;
use crate::components::reactive::{maybe, text};
use crate::components::snippets::snippet_tabs;
use crate::components::time::clock;
use crate::live::session;

fn snippets_of(detail: Detail) -> Memo<Option<Vec<Snippet>>> {
    slice(detail, |d| d.snippets.clone())
}

/// Whether there is something to take over: the run was made by a restore, and has not failed since.
fn can_be_taken(detail: &RunDetail) -> bool {
    let made = detail.restored_by.as_ref().is_some_and(|made_by| made_by.state.holds_the_run());
    made && detail.row.run.corrupted != Some(true)
}

/// How to take over a run that a restore has made.
pub(super) fn hand_over(detail: Detail) -> AnyView {
    let made_by = newest(detail, |detail| detail.restored_by.as_ref());
    let snippets = snippets_of(detail);
    // The panel keeps the chosen tab: it is drawn anew only when one of these changes.
    let offered = Memo::new(move |_| detail.with(|d| d.data.as_ref().is_some_and(can_be_taken)));
    let taken =
        Memo::new(move |_| detail.with(|d| d.data.as_ref().is_some_and(|d| d.taken_over_at.is_some())));
    let handed_over =
        Memo::new(move |_| made_by.with(|r| r.as_ref().is_some_and(|r| r.state == RestoreState::HandedOver)));
    let now = session().now;
    let taken_text = text(move || {
        let last = detail.with(|d| d.data.as_ref().and_then(|d| d.taken_over_at));
        last.map_or_else(String::new, |at| {
            let ago = format::relative(now.get(), at.as_millis());
            format!("A program has taken this run over; its last request was at {}, {ago}. ", clock(at))
        })
    });
    maybe(move || {
        let (taken, _) = (taken.get(), handed_over.get());
        if !offered.get() {
            return None;
        }
        let made_by = made_by.get_untracked()?;
        Some(hand_over_panel(made_by, snippets.get().unwrap_or_default(), !taken, taken_text))
    })
}

/// How to go on by hand, where there is nothing to take over.
pub(super) fn from_checkpoint(detail: Detail) -> AnyView {
    let made = Memo::new(move |_| detail.with(|d| d.data.as_ref().is_some_and(can_be_taken)));
    let snippets = snippets_of(detail);
    maybe(move || {
        let snippets = snippets.get()?;
        (!made.get() && !snippets.is_empty()).then(|| {
            view! {
                <section class="panel">
                    <h2>"Go on from a checkpoint"</h2>
                    {snippet_tabs(&snippets)}
                </section>
            }
        })
    })
}
