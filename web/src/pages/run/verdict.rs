//! How the run is, why, and what can be done about it.

use crate::prelude::*;
use retinker::host::run::Evidence;
use retinker::recovery::health::Health;
use retinker::recovery::restore::RestoreState;
use retinker_console::address::run_address;
use retinker_console::words;

use super::{Detail, Known, newest, slice};
use crate::components::icon::icon;
use crate::components::progress::restore_progress;
use crate::components::reactive::{maybe, text, when, word};
use crate::components::restore::{ask_until_settled, restore_dialog};
use crate::components::status::health_badge;
use crate::components::time::when_it_was;
use crate::live::{session, until_cleanup};

/// How the run is, and what can be done about it.
pub(super) fn state(id: Memo<String>, name: Memo<String>, detail: Detail, known: Known) -> AnyView {
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
        Some(view! {
            {health_badge(verdict.health)}
            <p class="reason" data-testid="verdict-reason">
                {words::sentence(verdict.reason)}
            </p>
            {category}
        })
    };
    let refused = move || {
        let because = refusal
            .get()
            .filter(|because| !because.is_empty() && broken() && unsettled.with(Option::is_none))?;
        Some(view! {
            <p class="reason" data-testid="no-restore-reason">
                {because}
            </p>
        })
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
                },
            )}
            {evidence(known)}
        </section>
        {restore_dialog(id, name, checkpoints, open)}
    }
}

/// What the verdict rests on, and who says so.
fn evidence(known: Known) -> AnyView {
    let entries = Memo::new(move |_| known.with(|k| k.data.as_ref().map(|known| known.entries.clone())));
    maybe(move || {
        let lines: Vec<_> = entries.get()?.into_iter().map(evidence_line).collect();
        Some(view! {
            <div class="evidence" data-testid="evidence">
                <h2>"What is known"</h2>
                <ul>{lines}</ul>
            </div>
        })
    })
}

fn evidence_line(entry: Evidence) -> AnyView {
    let time = match entry.at {
        Some(at) => when_it_was(at),
        None => view! { <span class="quiet">"when is not told"</span> },
    };
    view! {
        <li data-kind=entry.kind>
            <bdi class="break">{entry.text}</bdi>
            <span class="quiet">{words::evidence_by(&entry.by)} ", " {time}</span>
        </li>
    }
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
}
