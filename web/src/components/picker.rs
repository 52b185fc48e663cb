//! Which checkpoint, and with or without the optimizer's state.

use crate::prelude::*;
use retinker::host::api::CheckpointRow;
use retinker::recovery::plan::Strategy;
use retinker::wire::run::Checkpoint;
use retinker_console::format::checkpoint_name;
use retinker_console::words;

use super::reactive::{flag, word};
use super::time::{expiry, when_it_was};

/// The choices behind a plan.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Choice {
    pub(crate) strategy: Strategy,
    pub(crate) optimizer: bool,
}

/// Lets a person choose. `planned` is the path of the checkpoint in the plan that is shown.
pub(crate) fn checkpoint_picker(
    checkpoints: Vec<CheckpointRow>,
    planned: Signal<String>,
    choice: RwSignal<Choice>,
    locked: RwSignal<bool>,
) -> AnyView {
    let usable: Vec<_> = checkpoints.into_iter().filter(|row| row.unusable_because.is_none()).collect();
    let radios = (usable.len() > 1).then(|| {
        let rows = usable
            .into_iter()
            .enumerate()
            .map(|(index, row)| option_line(row.checkpoint, index == 0, planned, choice, locked))
            .collect::<Vec<_>>();
        view! {
            <fieldset class="options">
                <legend>"Checkpoint"</legend>
                <div class="option-list">{rows}</div>
            </fieldset>
        }
    });
    view! {
        {radios}
        <fieldset class="options">
            <legend>"Optimizer"</legend>
            <label class="option">
                <input
                    type="checkbox"
                    data-testid="optimizer-toggle"
                    aria-describedby="optimizer-consequence"
                    prop:checked=flag(move || choice.with(|choice| choice.optimizer))
                    disabled=locked.signal()
                    on:change=move |event| {
                        let on = event_target_checked(&event);
                        choice.update(|choice| choice.optimizer = on);
                    }
                />
                <span>"Restore the optimizer's state as well"</span>
            </label>
            <p class="quiet" id="optimizer-consequence" data-testid="optimizer-consequence">
                {word(move || Some(words::optimizer_consequence(choice.with(|choice| choice.optimizer))))}
            </p>
        </fieldset>
    }
}

fn option_line(
    checkpoint: Checkpoint,
    newest: bool,
    planned: Signal<String>,
    choice: RwSignal<Choice>,
    locked: RwSignal<bool>,
) -> AnyView {
    let path = checkpoint.tinker_path.clone();
    let checked = flag(move || planned.with(|planned| *planned == path));
    let path = checkpoint.tinker_path.clone();
    let choose = move |_| choice.update(|choice| choice.strategy = Strategy::Specific { path: path.clone() });
    view! {
        <label class="option">
            <input
                type="radio"
                name="checkpoint"
                value=checkpoint.tinker_path
                prop:checked=checked
                disabled=locked.signal()
                on:change=choose
            />
            <span class="mono">{checkpoint_name(&checkpoint.checkpoint_id).to_owned()}</span>
            <span class="quiet">
                "saved " {when_it_was(checkpoint.time)} ", expires " {expiry(checkpoint.expires_at)}
            </span>
            {newest.then(|| view! { <span class="chip">"newest"</span> })}
        </label>
    }
}
