//! How far a restore is.

use crate::prelude::*;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker_console::address::run_address;
use retinker_console::progress::{Stage, Step, steps};
use retinker_console::words;

use super::icon::icon;
use super::reactive::{maybe, part, word};
use super::time::clock;

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
        RestoreState::Failed => {
            Some(view! { <p class="quiet">"Nothing was changed in the old run. A new plan can be made."</p> })
        }
        _ => None,
    });
    let told = word(move || {
        Some(match state.get()? {
            RestoreState::Adopted | RestoreState::HandedOver => "The run is restored.",
            RestoreState::Failed => "The restore failed.",
            _ => "The restore is under way.",
        })
    });
    view! {
        <div class="progress" data-testid="restore-progress" data-state=word(move || state.get().map(state_name))>
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

fn state_name(state: RestoreState) -> &'static str {
    match state {
        RestoreState::Planned => "planned",
        RestoreState::OpeningSession => "opening_session",
        RestoreState::Loading => "loading",
        RestoreState::Checking => "checking",
        RestoreState::Adopted => "adopted",
        RestoreState::HandedOver => "handed_over",
        RestoreState::Failed => "failed",
    }
}
