//! One run.

use leptos::prelude::*;
use leptos_router::hooks::use_params_map;
use retinker::host::api::{ApiProblem, CheckpointRow, LineageEntry, RunDetail, Snippet};
use retinker::recovery::health::Health;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker::wire::run::CheckpointType;
use retinker_console::address::run_address;
use retinker_console::{format, progress, words};

use crate::browser;
use crate::components::banner::problems;
use crate::components::copy::copy_button;
use crate::components::handover::hand_over_panel;
use crate::components::heads::heads;
use crate::components::icon::icon;
use crate::components::progress::restore_progress;
use crate::components::reactive::{flag, maybe, part, text, when, word};
use crate::components::restore::{ask_until_settled, restore_dialog};
use crate::components::snippets::snippet_tabs;
use crate::components::status::health_badge;
use crate::components::time::{clock, expiry, when_it_was};
use crate::live::{Loaded, load, session, until_cleanup};

type Detail = RwSignal<Loaded<RunDetail>>;

/// A slice of what is known of the run. Each part of the page stands on its own, and is drawn anew only when that
/// changed.
fn slice<T: PartialEq + Send + Sync + 'static>(detail: Detail, read: fn(&RunDetail) -> T) -> Memo<Option<T>> {
    Memo::new(move |_| detail.with(|d| d.data.as_ref().map(read)))
}

/// The page `/runs/:id`.
pub(crate) fn run_page() -> AnyView {
    let session = session();
    let params = use_params_map();
    let id = Memo::new(move |_| params.read().get("id").unwrap_or_default());
    let shown = session.run_shown;
    Effect::new(move |_| shown.set(id.get()));
    let detail: Detail =
        load(id, session.run_change, false, |host, id: String| Box::pin(async move { host.run(&id).await }));
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
        detail.with(|d| {
            let of_checkpoints = d.data.as_ref().and_then(|data| data.checkpoints_problem.clone());
            d.problem.clone().into_iter().chain(of_checkpoints).collect::<Vec<ApiProblem>>()
        })
    });
    let kept = text(move || {
        if detail.with(|d| d.problem.is_some() && d.data.is_some()) {
            "What is shown below is what was read before.".to_owned()
        } else {
            String::new()
        }
    });
    let page = part(move || {
        if missing.get() {
            return no_such_run(id);
        }
        view! {
            <header class="page-head run-head">
                <h1 id="page-title" tabindex="-1">
                    {name}
                </h1>
                <span class="run-id">
                    <span class="mono break">{id}</span>
                    {copy_button(id, "the run's id")}
                </span>
            </header>
            {problems(own_problems, kept)}
            {part(move || if there.get() { columns(id, name, detail) } else { waiting(detail) })}
        }
        .into_any()
    });
    view! {
        <nav class="trail" aria-label="Way back">
            <a href="/">{icon("back")} "All runs"</a>
        </nav>
        {page}
    }
    .into_any()
}

fn no_such_run(id: Memo<String>) -> AnyView {
    view! {
        <section class="lonely" data-testid="run-not-found">
            <h1 id="page-title" tabindex="-1">
                "There is no such run"
            </h1>
            <p data-testid="banner-problem" data-code="run_not_found">
                "The service does not know " <code class="break">{id}</code>
                ". It may have been deleted, or it belongs to another service."
            </p>
            <p>
                <a class="button primary" href="/">
                    "All runs"
                </a>
            </p>
        </section>
    }
    .into_any()
}

fn waiting(detail: Detail) -> AnyView {
    when(
        move || detail.with(|d| d.problem.is_none()),
        || {
            view! {
                <div class="placeholder" role="status">
                    <span class="said">"Reading the run…"</span>
                    <i></i>
                    <i></i>
                    <i></i>
                    <i></i>
                </div>
            }
            .into_any()
        },
    )
    .into_any()
}

fn columns(id: Memo<String>, name: Memo<String>, detail: Detail) -> AnyView {
    view! {
        <div class="columns">
            <div class="main-column">
                {state(id, name, detail)} {hand_over(detail)} {checkpoints(detail)} {from_checkpoint(detail)}
            </div>
            <div class="side-column">{facts(detail)} {lineage(id, detail)} {labels(detail)}</div>
        </div>
    }
    .into_any()
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

/// How the run is, and what can be done about it.
fn state(id: Memo<String>, name: Memo<String>, detail: Detail) -> AnyView {
    let session = session();
    let verdict = slice(detail, |d| d.row.verdict.clone());
    let health = Signal::derive(move || verdict.with(|v| v.as_ref().map(|v| v.health)));
    let refusal = slice(detail, |d| d.no_restore_because.clone().unwrap_or_default());
    let checkpoints = slice(detail, |d| d.checkpoints.clone());
    let restore = newest(detail, |detail| detail.restore.as_ref());
    let unsettled = Memo::new(move |_| {
        restore.with(|r| r.as_ref().filter(|r| !r.state.is_settled()).map(|r| r.id.clone()))
    });
    Effect::new(move |_| {
        let Some(id) = unsettled.get() else { return };
        if let Some(first) = restore.get_untracked() {
            session.remember(first);
        }
        until_cleanup(Box::pin(ask_until_settled(session.clone(), id)));
    });
    let broken = move || matches!(health.get(), Some(Health::Poisoned | Health::Unrecoverable));
    let offered = move || {
        health.get() == Some(Health::Poisoned)
            && detail.with(|d| d.data.as_ref().is_some_and(|d| d.no_restore_because.is_none()))
            && unsettled.with(Option::is_none)
    };
    let open = RwSignal::new(false);

    let restored_from = Memo::new(move |_| {
        detail.with(|d| {
            let d = d.data.as_ref()?;
            d.row.restored_from.clone().or_else(|| d.restored_by.as_ref().map(|r| r.plan.run_id.clone()))
        })
    });
    let restored_to = Memo::new(move |_| {
        let of_page = detail.with(|d| d.data.as_ref().and_then(|d| d.row.restored_to.clone()));
        of_page.or_else(|| {
            restore.with(|r| {
                let r = r.as_ref()?;
                matches!(r.state, RestoreState::Adopted | RestoreState::HandedOver)
                    .then(|| r.new_run_id.clone())?
            })
        })
    });
    let failure = move || {
        let reason = restore.with(|r| {
            let r = r.as_ref()?;
            (r.state == RestoreState::Failed).then(|| r.error.clone().unwrap_or_default())
        })?;
        (!open.get() && health.get() == Some(Health::Poisoned)).then(|| {
            view! {
                <p class="note" data-testid="restore-failed">
                    "The last restore failed: "
                    {reason}
                </p>
            }
            .into_any()
        })
    };
    let reasons = move || {
        let verdict = verdict.get()?;
        let category = verdict.category.map(|category| {
            view! {
                <p class="quiet" data-testid="verdict-category">
                    {words::category(category)}
                    "."
                </p>
            }
        });
        Some(
            view! {
                {health_badge(verdict.health)}
                <p class="reason" data-testid="verdict-reason">
                    {words::sentence(verdict.reason)}
                </p>
                {category}
            }
            .into_any(),
        )
    };
    let refused = move || {
        let because = refusal
            .get()
            .filter(|because| !because.is_empty() && broken() && unsettled.with(Option::is_none))?;
        Some(
            view! {
                <p class="reason" data-testid="no-restore-reason">
                    {because}
                </p>
            }
            .into_any(),
        )
    };
    view! {
        <section
            class=text(move || format!("panel verdict verdict-{}", health.get().map_or("none", Health::as_str)))
            data-testid="verdict"
            data-health=word(move || health.get().map(Health::as_str))
        >
            {maybe(reasons)}
            {maybe(move || Some(run_link("forward", "Restored as ", "restored-to-link", restored_to.get()?)))}
            {maybe(move || Some(run_link("back", "Restored from ", "restored-from-link", restored_from.get()?)))}
            {maybe(refused)}
            {when(
                move || unsettled.with(Option::is_some) && !open.get(),
                move || restore_progress(restore),
            )}
            {maybe(failure)}
            {when(
                offered,
                move || {
                    view! {
                        <div class="actions">
                            <button
                                type="button"
                                class="button primary"
                                data-testid="restore-button"
                                on:click=move |_| open.set(true)
                            >
                                "Restore…"
                            </button>
                            <span class="quiet">
                                "Shows what would happen first; nothing is done before you confirm."
                            </span>
                        </div>
                    }
                        .into_any()
                },
            )}
        </section>
        {restore_dialog(id, name, checkpoints, open)}
    }
    .into_any()
}

fn run_link(drawing: &str, word: &'static str, testid: &'static str, run_id: String) -> AnyView {
    view! {
        <p class="link-line">
            {icon(drawing)}
            {word}
            <a class="mono break" href=run_address(&run_id) data-testid=testid data-run-id=run_id.clone()>
                {run_id.clone()}
            </a>
        </p>
    }
    .into_any()
}

fn snippets_of(detail: Detail) -> Memo<Option<Vec<Snippet>>> {
    slice(detail, |d| d.snippets.clone())
}

/// Whether there is something to take over: the run was made by a restore, and has not failed since.
fn can_be_taken(detail: &RunDetail) -> bool {
    let made = detail.restored_by.as_ref().is_some_and(|made_by| made_by.state != RestoreState::Failed);
    made && detail.row.run.corrupted != Some(true)
}

/// How to take over a run that a restore has made.
fn hand_over(detail: Detail) -> AnyView {
    let made_by = newest(detail, |detail| detail.restored_by.as_ref());
    let snippets = snippets_of(detail);
    // The panel keeps what the hand-over answered: it is drawn anew only when one of these changes.
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
    .into_any()
}

/// How to go on by hand, where there is nothing to take over.
fn from_checkpoint(detail: Detail) -> AnyView {
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
            .into_any()
        })
    })
    .into_any()
}

fn checkpoints(detail: Detail) -> AnyView {
    const HEADS: [(&str, &str); 5] =
        [("", "Name"), ("", "Saved"), ("number", "Size"), ("", "Expires"), ("", "Can be restored from")];
    let rows = slice(detail, |d| d.checkpoints.clone());
    let unread =
        flag(move || detail.with(|d| d.data.as_ref().is_some_and(|d| d.checkpoints_problem.is_some())));
    let count = text(move || {
        let count = rows.with(|rows| rows.as_ref().map_or(0, Vec::len));
        if unread.get() { String::new() } else { format::count(count as u64) }
    });
    let table = move || {
        let lines: Vec<_> = rows.get().into_iter().flatten().map(checkpoint_line).collect();
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
        .into_any()
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
        if rows.with(|rows| rows.as_ref().is_some_and(|rows| !rows.is_empty())) {
            return table();
        }
        view! { <p class="quiet">{none.get()}</p> }.into_any()
    });
    view! {
        <section class="panel">
            <h2>"Checkpoints " <span class="quiet">{count}</span></h2>
            {body}
        </section>
    }
    .into_any()
}

fn checkpoint_line(row: CheckpointRow) -> AnyView {
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
            </th>
            <td role="cell" data-label="saved">
                {when_it_was(checkpoint.time)}
            </td>
            <td role="cell" data-label="size" class="number">
                {checkpoint.size_bytes.map_or_else(|| "–".to_owned(), format::bytes)}
            </td>
            <td role="cell" data-label="expires">
                {expiry(checkpoint.expires_at)}
            </td>
            <td role="cell" class="c-usable">
                <span class=class>
                    {icon(drawing)} <span>{row.unusable_because.unwrap_or_else(|| "yes".to_owned())}</span>
                </span>
            </td>
        </tr>
    }
    .into_any()
}

fn fact(name: String, value: AnyView) -> AnyView {
    view! {
        <dt class="break">{name}</dt>
        <dd class="break">{value}</dd>
    }
    .into_any()
}

fn facts(detail: Detail) -> AnyView {
    let run = slice(detail, |d| d.row.run.clone());
    let told = |text: String| if text.is_empty() { "not told".into_any() } else { text.into_any() };
    let body = maybe(move || {
        let run = run.get()?;
        let kind = if run.is_lora { "LoRA" } else { "full weights" };
        let adapter = run.lora_rank.map_or_else(|| kind.to_owned(), |rank| format!("{kind}, rank {rank}"));
        let mut facts = vec![
            fact("Base model".to_owned(), told(run.base_model)),
            fact("Adapter".to_owned(), adapter.into_any()),
            fact("Owner".to_owned(), told(run.model_owner)),
            fact("Last request".to_owned(), when_it_was(run.last_request_time)),
        ];
        if let Some((session_id, _)) = run.training_run_id.split_once(':') {
            let session_id = session_id.to_owned();
            let value = view! {
                <span class="mono" title=session_id.clone()>
                    {format::short_id(&session_id)}
                </span>
                {copy_button(Signal::stored(session_id), "the session's id")}
            };
            facts.push(fact("Session".to_owned(), value.into_any()));
        }
        Some(facts.into_any())
    });
    view! {
        <section class="panel">
            <h2>"Facts"</h2>
            <dl class="facts" data-testid="run-facts">
                {body}
            </dl>
        </section>
    }
    .into_any()
}

fn lineage(id: Memo<String>, detail: Detail) -> AnyView {
    let entries = slice(detail, |d| d.lineage.clone());
    maybe(move || {
        let (here, entries) = (id.get(), entries.get()?);
        if entries.len() < 2 {
            return None;
        }
        let items: Vec<_> = entries.into_iter().map(|entry| lineage_line(entry, &here)).collect();
        Some(
            view! {
                <section class="panel">
                    <h2>"Lineage"</h2>
                    <ol class="lineage" data-testid="lineage">
                        {items}
                    </ol>
                </section>
            }
            .into_any(),
        )
    })
    .into_any()
}

fn lineage_line(entry: LineageEntry, here: &str) -> AnyView {
    let what = match entry.generation {
        0 => "the first run".to_owned(),
        1 => "restored once".to_owned(),
        2 => "restored twice".to_owned(),
        n => format!("restored {n} times"),
    };
    let short = format::short_id(&entry.run_id);
    if entry.run_id == here {
        view! {
            <li aria-current="true">
                <span class="mono" title=entry.run_id>
                    {short}
                </span>
                <span class="quiet">{what} ", this one"</span>
            </li>
        }
        .into_any()
    } else {
        view! {
            <li>
                <a class="mono" href=run_address(&entry.run_id) title=entry.run_id>
                    {short}
                </a>
                <span class="quiet">{what}</span>
            </li>
        }
        .into_any()
    }
}

fn labels(detail: Detail) -> AnyView {
    let labels = slice(detail, |d| d.own_metadata.clone());
    let body = part(move || {
        let labels = labels.get().unwrap_or_default();
        if labels.is_empty() {
            return view! { <p class="quiet">"None were given when the run was made."</p> }.into_any();
        }
        let rows: Vec<_> = labels.into_iter().map(|(key, value)| fact(key, value.into_any())).collect();
        view! {
            <dl class="facts" data-testid="run-labels">
                {rows}
            </dl>
        }
        .into_any()
    });
    view! {
        <section class="panel">
            <h2>"Labels"</h2>
            {body}
        </section>
    }
    .into_any()
}
