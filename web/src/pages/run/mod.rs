//! One run.

mod checkpoints;
mod handover;
mod lineage;
mod redo;
mod side;
mod story;
mod verdict;

use std::time::Duration;

use crate::prelude::*;
use retinker::host::api::{ApiProblem, RunDetail};
use retinker::host::run::RunEvidence;
use retinker::recovery::restore::RestoreRecord;
use retinker_console::address::at;
use retinker_console::curves::series::Series;
use retinker_console::lineage::ancestors;
use retinker_console::{compare, format, progress};

use self::checkpoints::checkpoints;
use self::handover::{from_checkpoint, hand_over};
use self::lineage::lineage;
use self::redo::going_back;
use self::side::{facts, labels, session_panel};
use self::story::story;
use self::verdict::state;
use crate::browser;
use crate::components::banner::{kept, problems};
use crate::components::copy::copy_button;
use crate::components::curves::{Curves, Look, Wanted, follow, panel};
use crate::components::icon::icon;
use crate::components::placeholder::placeholder;
use crate::components::reactive::{part, when};
use crate::live::{Loaded, load, often, session, slowly};
use crate::place::place;

type Detail = RwSignal<Loaded<RunDetail>>;
type Known = RwSignal<Loaded<RunEvidence>>;

/// What is known is read again no sooner than this: it takes the service several answers.
const KNOWN_EVERY: Duration = Duration::from_secs(5);

/// A slice of what is known of the run. Each part of the page stands on its own, and is drawn anew only when that
/// changed.
fn slice<T: PartialEq + Send + Sync + 'static>(detail: Detail, read: fn(&RunDetail) -> T) -> Memo<Option<T>> {
    Memo::new(move |_| detail.with(|d| d.data.as_ref().map(read)))
}

/// The page `/runs/:id`.
pub(crate) fn run_page() -> AnyView {
    let session = session();
    let id = place().of;
    let shown = session.run_shown;
    Effect::new(move |_| shown.set(id.get()));
    let detail: Detail = load(id, often(session.run_change), false, |host, id: String| {
        Box::pin(async move { host.run(&id).await })
    });
    let known: Known = load(id, slowly(session.run_change, KNOWN_EVERY), false, |host, id: String| {
        Box::pin(async move { host.run_evidence(&id).await })
    });
    let curves = follow(curves_of(id, detail), session.run_change);
    let there = Memo::new(move |_| detail.with(|d| d.data.is_some()));
    let missing = Memo::new(move |_| {
        detail.with(|d| d.data.is_none() && d.problem.as_ref().is_some_and(|p| p.code == "run_not_found"))
    });
    let name = Memo::new(move |_| {
        detail.with(|d| d.data.as_ref().map_or_else(|| format::short_id(&id.get()), |d| d.row.name.clone()))
    });
    Effect::new(move |_| {
        browser::set_title(&if missing.get() { "No such run".to_owned() } else { name.get() });
    });

    let own_problems = Signal::derive(move || {
        let of_known = known.with(|k| {
            let within = k.data.as_ref().and_then(|known| known.problem.clone());
            k.problem.clone().or(within)
        });
        detail.with(|d| {
            let of_checkpoints = d.data.as_ref().and_then(|data| data.checkpoints_problem.clone());
            let all = [d.problem.clone(), of_checkpoints, of_known, curves.problem.get()];
            all.into_iter().flatten().collect::<Vec<ApiProblem>>()
        })
    });
    let kept = kept(detail);
    let page = part(move || {
        if missing.get() {
            return no_such_run(id);
        }
        view! {
            <header class="page-head run-head">
                <h1 id="page-title" tabindex="-1">
                    {name.signal()}
                </h1>
                <span class="run-id">
                    <span class="mono break">{id.signal()}</span>
                    {copy_button(id, "the run's id")}
                </span>
            </header>
            {problems(own_problems, kept)}
            {part(move || if there.get() { columns(id, name, detail, known, curves) } else { waiting(detail) })}
        }
    });
    view! {
        <nav class="trail" aria-label="Way back">
            <a href=at("/")>{icon("back")} "All runs"</a>
        </nav>
        {page}
    }
}

fn no_such_run(id: Memo<String>) -> AnyView {
    view! {
        <section class="lonely" data-testid="run-not-found">
            <h1 id="page-title" tabindex="-1">
                "There is no such run"
            </h1>
            <p data-testid="banner-problem" data-code="run_not_found">
                "The service does not know " <code class="break">{id.signal()}</code>
                ". It may have been deleted, or it belongs to another service."
            </p>
            <p>
                <a class="button primary" href=at("/")>
                    "All runs"
                </a>
            </p>
        </section>
    }
}

fn waiting(detail: Detail) -> AnyView {
    when(move || detail.with(|d| d.problem.is_none()), || placeholder("Reading the run…", 4))
}

fn columns(id: Memo<String>, name: Memo<String>, detail: Detail, known: Known, curves: Curves) -> AnyView {
    view! {
        <div class="columns">
            <div class="main-column">
                {state(id, name, detail, known)} {hand_over(detail)} {curves_panel(id, name, detail, curves)}
                {checkpoints(id, detail)} {going_back(id, known)} {story(detail, known, curves)} {from_checkpoint(detail)}
            </div>
            <div class="side-column">
                {facts(detail, known)} {lineage(id, detail)} {session_panel(known)} {labels(detail)}
            </div>
        </div>
    }
}

/// The run's curve, after those of the runs that it came from. What a run loses, its curve loses too: it is read anew when
/// the run's health is another.
fn curves_of(id: Memo<String>, detail: Detail) -> Memo<Wanted> {
    Memo::new(move |_| {
        detail.with(|d| {
            let Some(detail) = d.data.as_ref() else { return Wanted::default() };
            let run_ids = ancestors(&detail.lineage, &id.get());
            Wanted { run_ids, live: 1, edition: detail.row.verdict.health as u64 }
        })
    })
}

fn curves_panel(id: Memo<String>, name: Memo<String>, detail: Detail, curves: Curves) -> AnyView {
    let joined = RwSignal::new(true);
    let shown = Memo::new(move |_| {
        curves.all.with(|all| {
            let alone = all.len().saturating_sub(if joined.get() { all.len() } else { 1 });
            let lineage = all.get(alone..).unwrap_or_default();
            Series::continued(lineage).into_iter().collect::<Vec<_>>()
        })
    });
    let look = Look::new(shown, Signal::derive(move || vec![name.get()]));
    let replaced = slice(detail, |d| d.row.restored_from.clone());
    let more = part(move || {
        let Some(from) = replaced.get().flatten() else { return ().into_any() };
        let address = compare::address([from.as_str(), &id.get()]);
        view! {
            <label>
                <input
                    type="checkbox"
                    data-testid="curves-joined"
                    prop:checked=move || joined.get()
                    on:change=move |event| joined.set(event_target_checked(&event))
                />
                " With the runs before it"
            </label>
            <a href=address data-testid="compare-link">
                "Compare with the run it replaces"
            </a>
        }
    });
    panel(curves, look, more)
}

/// The newest account of a restore that the page's own reading names: the event stream may tell of it sooner.
fn newest(detail: Detail, read: fn(&RunDetail) -> Option<&RestoreRecord>) -> Signal<Option<RestoreRecord>> {
    let session = session();
    Signal::derive(move || {
        let of_page = detail.with(|d| d.data.as_ref().and_then(read).cloned())?;
        Some(match session.restore(&of_page.id) {
            Some(told) if progress::is_newer(&told, &of_page) => told,
            _ => of_page,
        })
    })
}
