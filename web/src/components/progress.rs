//! How far a restore is.

use crate::prelude::*;
use leptos::reactive::spawn_local;
use retinker::host::api::ApiProblem;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker_console::address::run_address;
use retinker_console::progress::{Stage, Step, steps};
use retinker_console::words;

use super::icon::icon;
use super::reactive::{maybe, part, word};
use super::time::clock;
use crate::live::{Session, session};

/// A restore's steps, and how it ended.
pub(crate) fn restore_progress(restore: Signal<Option<RestoreRecord>>) -> AnyView {
    let state = Memo::new(move |_| restore.with(|restore| restore.as_ref().map(|restore| restore.state)));
    let list = part(move || {
        restore
            .with(|restore| restore.as_ref().map(steps))
            .unwrap_or_default()
            .into_iter()
            .map(step_line)
            .collect::<Vec<_>>()
            .into_any()
    });
    let ending = maybe(move || match state.get()? {
        RestoreState::Adopted | RestoreState::HandedOver => {
            let new =
                restore.with(|restore| restore.as_ref().and_then(|restore| restore.new_run_id.clone()))?;
            Some(view! {
                <a class="button primary" href=run_address(&new) data-testid="restored-link" data-run-id=new>
                    "Open the restored run"
                </a>
            })
        }
        RestoreState::Failed | RestoreState::Cancelled => {
            Some(view! { <p class="quiet">"Nothing was changed in the old run. A new plan can be made."</p> })
        }
        _ => Some(cancel_button(restore.with(|restore| Some(restore.as_ref()?.id.clone()))?, None)),
    });
    let told = word(move || {
        Some(match state.get()? {
            RestoreState::Adopted | RestoreState::HandedOver => "The run is restored.",
            RestoreState::Failed => "The restore failed.",
            RestoreState::Cancelled => "The restore was cancelled.",
            _ => "The restore is under way.",
        })
    });
    view! {
        <div class="progress" data-testid="restore-progress" data-state=word(move || state.get().map(RestoreState::as_str))>
            <p role="status" class="progress-told">
                {told}
            </p>
            <ol class="steps">{list}</ol>
            <div class="actions">{ending}</div>
        </div>
    }
}

fn step_line(step: Step) -> AnyView {
    let (class, drawing) = match step.stage {
        Stage::Done => ("step done", "check"),
        Stage::Active => ("step active", "recovered"),
        Stage::Ahead => ("step ahead", "dot"),
        Stage::Failed => ("step failed", "cross"),
        Stage::Cancelled => ("step ahead", "cross"),
    };
    let time = step.at.map(|at| view! { <time datetime=at.to_string()>{clock(at)}</time> });
    view! {
        <li class=class aria-current=(step.stage == Stage::Active).then_some("step")>
            {icon(drawing)}
            <div>
                <span class="step-name">{words::restore_state(step.state)}</span>
                <span class="said">{format!(", {}", step.stage.word())}</span>
                <span class="step-told">{step.message}</span>
            </div>
            {time}
        </li>
    }
}

/// Stops a restore, and remembers what became of it.
pub(super) async fn cancel_one(session: &Session, id: &str) -> Result<(), ApiProblem> {
    session.remember(session.host.cancel(id).await.inspect_err(|refused| session.notice(refused))?);
    Ok(())
}

/// Stops a restore that is under way; of many, the one of the run of that name.
pub(crate) fn cancel_button(id: String, of: Option<String>) -> AnyView {
    let session = session();
    let busy = RwSignal::new(false);
    let problem = RwSignal::new(None::<ApiProblem>);
    let cancel = move || {
        busy.set(true);
        problem.set(None);
        let (session, id) = (session.clone(), id.clone());
        spawn_local(async move {
            if let Err(refused) = cancel_one(&session, &id).await {
                let _ = problem.try_set(Some(refused));
            }
            let _ = busy.try_set(false);
        });
    };
    let refused = maybe(move || {
        let problem = problem.get()?;
        Some(view! { <p class="block" role="alert">{problem.message} " " {problem.hint}</p> })
    });
    view! {
        <button
            type="button"
            class="button"
            data-testid="cancel-restore"
            aria-label=of.map(|name| format!("Cancel the restore of {name}"))
            disabled=busy.signal()
            on:click=move |_| cancel()
        >
            {word(move || Some(if busy.get() { "Cancelling\u{2026}" } else { "Cancel the restore" }))}
        </button>
        {refused}
    }
}
