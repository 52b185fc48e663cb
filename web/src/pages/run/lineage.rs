//! The family of a run: who was restored from whom.

use crate::prelude::*;
use retinker::host::api::LineageEntry;
use retinker_console::format;
use retinker_console::lineage::{generation, lanes, parent_of};

use super::side::run_name;
use super::{Detail, slice};
use crate::components::reactive::maybe;
use crate::components::status::health_badge;

pub(super) fn lineage(id: Memo<String>, detail: Detail) -> AnyView {
    let entries = slice(detail, |d| d.lineage.clone());
    maybe(move || {
        let (here, entries) = (id.get(), entries.get()?);
        if entries.len() < 2 {
            return None;
        }
        let lanes = lanes(&entries);
        let width = lanes.iter().max().copied().unwrap_or_default() + 1;
        let items: Vec<_> = entries.iter().map(|entry| line(entry, &here)).collect();
        Some(view! {
            <section class="panel">
                <h2>"Lineage"</h2>
                <div class="family">
                    {graph(&entries, &lanes, width, &here)} <ol class="lineage" data-testid="lineage">
                        {items}
                    </ol>
                </div>
            </section>
        })
    })
}

/// Lanes and their knots, beside the lines of the list, which say the same in words. Lines are of one height, so the
/// picture is stretched to theirs; its strokes are not.
fn graph(entries: &[LineageEntry], lanes: &[usize], width: usize, here: &str) -> AnyView {
    let place = |row: usize| Some((lanes.get(row)? * 20 + 10, row * 100 + 50));
    let edges = entries.iter().enumerate().filter_map(|(row, entry)| {
        let ((x, y), (px, py)) = (place(row)?, place(parent_of(entries, entry)?)?);
        // Down in the parent's lane, and over in the last part of the way.
        let bend = y.saturating_sub(60).max(py);
        Some(view! { <path class="edge" d=format!("M{px} {py}V{bend}C{px} {y} {x} {bend} {x} {y}")></path> })
    });
    let edges: Vec<_> = edges.collect();
    let knots = entries.iter().enumerate().filter_map(|(row, entry)| {
        let (x, y) = place(row)?;
        let health = entry.health.map_or("none", retinker::recovery::health::Health::as_str);
        let class = if entry.run_id == here { "knot here" } else { "knot" };
        Some(view! { <path class=class data-health=health d=format!("M{x} {y}h0")></path> })
    });
    let knots: Vec<_> = knots.collect();
    view! {
        <svg
            class="family-graph"
            aria-hidden="true"
            focusable="false"
            preserveAspectRatio="none"
            width=(width * 20).to_string()
            viewBox=format!("0 0 {} {}", width * 20, entries.len() * 100)
            data-testid="lineage-graph"
        >
            {edges}
            {knots}
        </svg>
    }
}

fn line(entry: &LineageEntry, here: &str) -> AnyView {
    let is_here = entry.run_id == here;
    let short = format::short_id(&entry.run_id);
    // A restored run keeps its name: the id tells them apart.
    let shown = if is_here {
        view! { <strong class="mono" title=entry.run_id.clone()>{short}</strong> }
    } else {
        run_name(&entry.run_id, short)
    };
    let from = entry.checkpoint.as_ref().map(|path| {
        view! { <span class="quiet" title=path.clone()>", from " <bdi>{format::checkpoint_name(path).to_owned()}</bdi></span> }
    });
    let health = match entry.health {
        Some(health) => health_badge(health),
        None => view! { <span class="quiet">"not listed any more"</span> },
    };
    view! {
        <li aria-current=is_here.then_some("true") data-run-id=entry.run_id.clone()>
            <span class="family-run">{shown} {health}</span>
            <span class="quiet">{generation(entry.generation)} {is_here.then_some(", this one")} {from}</span>
        </li>
    }
}
