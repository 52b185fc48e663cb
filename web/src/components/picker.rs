//! Which checkpoint, and with or without the optimizer's state; of one run or of many.

use crate::prelude::*;
use retinker::host::api::{CheckpointRow, PlanBatch};
use retinker::recovery::plan::{MetricMode, PlanRequest, Strategy};
use retinker::wire::run::Checkpoint;
use retinker_console::format::checkpoint_name;
use retinker_console::words;

use super::reactive::{flag, when, word};
use super::time::{expiry, when_it_was};

/// The choices behind a plan.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Choice {
    pub(crate) strategy: Strategy,
    pub(crate) step_back: u32,
    pub(crate) optimizer: bool,
    pub(crate) check_optimizer: bool,
}

impl Choice {
    /// What is best most of the time.
    pub(crate) fn usual() -> Self {
        let PlanRequest { strategy, step_back, optimizer, check_optimizer, .. } = PlanRequest::new("");
        Self { strategy, step_back, optimizer, check_optimizer }
    }

    /// The same for many runs.
    pub(crate) fn batch(self, run_ids: Vec<String>) -> PlanBatch {
        let Self { strategy, step_back, optimizer, check_optimizer } = self;
        PlanBatch { run_ids, strategy, step_back, optimizer, check_optimizer }
    }

    /// The same for a run.
    pub(crate) fn request(self, run_id: &str) -> PlanRequest {
        let Self { strategy, step_back, optimizer, check_optimizer } = self;
        PlanRequest { strategy, step_back, optimizer, check_optimizer, ..PlanRequest::new(run_id) }
    }
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
                {strategy_choice(choice, locked)}
                <div class="option-list">{rows}</div>
            </fieldset>
        }
    });
    view! {
        {radios}
        {optimizer_choice(choice, locked)}
    }
}

/// What a checkpoint is chosen by. The last is no rule: it stands there when somebody has chosen one.
const STRATEGIES: [(&str, &str); 7] = [
    ("0", "Newest that can be used"),
    ("1", "One before that"),
    ("2", "Two before that"),
    ("3", "Three before that"),
    ("min", "Lowest by a label"),
    ("max", "Highest by a label"),
    ("", "This one"),
];

/// The rule that a choice goes by.
fn rule_of(choice: &Choice) -> &'static str {
    match (&choice.strategy, choice.step_back) {
        (Strategy::Best { mode: MetricMode::Min, .. }, _) => "min",
        (Strategy::Best { .. }, _) => "max",
        (Strategy::LatestValid, 0) => "0",
        (Strategy::LatestValid, 1) => "1",
        (Strategy::LatestValid, 2) => "2",
        (Strategy::LatestValid, _) => "3",
        (Strategy::Specific { .. }, _) => "",
    }
}

/// By which rule the checkpoint is chosen.
pub(crate) fn strategy_choice(choice: RwSignal<Choice>, locked: RwSignal<bool>) -> AnyView {
    let label = RwSignal::new("loss".to_owned());
    let set = move |rule: &str| {
        let best = |mode| Strategy::Best { metric: label.get_untracked(), mode };
        let (strategy, step_back) = match rule {
            "min" => (best(MetricMode::Min), 0),
            "max" => (best(MetricMode::Max), 0),
            back => (Strategy::LatestValid, back.parse().unwrap_or(0)),
        };
        choice.update(|choice| (choice.strategy, choice.step_back) = (strategy, step_back));
    };
    let options: Vec<_> = STRATEGIES
        .into_iter()
        .map(|(rule, name)| {
            let chosen = flag(move || choice.with(|choice| rule_of(choice) == rule));
            view! { <option value=rule disabled=rule.is_empty() prop:selected=chosen>{name}</option> }
        })
        .collect();
    let is_best = move || choice.with(|choice| matches!(choice.strategy, Strategy::Best { .. }));
    let name = move |event| {
        label.set(event_target_value(&event));
        choice.update(|choice| {
            if let Strategy::Best { metric, .. } = &mut choice.strategy {
                *metric = label.get_untracked();
            }
        });
    };
    view! {
        <label class="field stacked">
            <span class="field-name">"Which"</span>
            <select
                data-testid="plan-strategy"
                disabled=locked.signal()
                on:change=move |event| set(&event_target_value(&event))
            >
                {options}
            </select>
        </label>
        {when(
            is_best,
            move || {
                view! {
                    <label class="field stacked">
                        <span class="field-name">"Label of the checkpoints"</span>
                        <input type="text" data-testid="plan-label" prop:value=label.get_untracked() on:change=name />
                    </label>
                }
            },
        )}
    }
}

/// With or without the optimizer's state, and whether that is verified.
pub(crate) fn optimizer_choice(choice: RwSignal<Choice>, locked: RwSignal<bool>) -> AnyView {
    let with = flag(move || choice.with(|choice| choice.optimizer));
    view! {
        <fieldset class="options">
            <legend>"Optimizer"</legend>
            <label class="option">
                <input
                    type="checkbox"
                    data-testid="optimizer-toggle"
                    aria-describedby="optimizer-consequence"
                    prop:checked=with
                    disabled=locked.signal()
                    on:change=move |event| {
                        let on = event_target_checked(&event);
                        choice.update(|choice| {
                            choice.optimizer = on;
                            choice.check_optimizer &= on;
                        });
                    }
                />
                <span>"Restore the optimizer's state as well"</span>
            </label>
            <p class="quiet" id="optimizer-consequence" data-testid="optimizer-consequence">
                {word(move || Some(words::optimizer_consequence(choice.with(|choice| choice.optimizer))))}
            </p>
            <label class="option">
                <input
                    type="checkbox"
                    data-testid="check-optimizer"
                    prop:checked=flag(move || choice.with(|choice| choice.check_optimizer))
                    disabled=flag(move || locked.get() || !with.get())
                    on:change=move |event| {
                        let on = event_target_checked(&event);
                        choice.update(|choice| choice.check_optimizer = on);
                    }
                />
                <span>"Find out first, on three throw-away copies, whether that state came back"</span>
            </label>
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
    let choose = move |_| {
        choice.update(|choice| {
            choice.strategy = Strategy::Specific { path: path.clone() };
            choice.step_back = 0;
        });
    };
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
