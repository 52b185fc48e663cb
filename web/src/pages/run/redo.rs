//! Going back to a step, where the host knows a redo log of the run.

use std::time::Duration;

use crate::prelude::*;
use leptos::reactive::spawn_local;
use retinker::host::api::ApiProblem;
use retinker::host::redo::{GoingBack, RedoWindow};
use retinker_console::address::run_address;

use super::Known;
use crate::components::copy::copy_button;
use crate::components::reactive::{maybe, when};
use crate::live::{Loaded, load, session, slowly};

/// What a run's log has while it trains is read again no sooner than this.
const EVERY: Duration = Duration::from_secs(5);

/// A form for it, and what becomes of it.
pub(super) fn going_back(id: Memo<String>, known: Known) -> AnyView {
    when(move || known.with(|k| k.data.as_ref().is_some_and(|known| known.redo_log)), move || panel(id))
}

fn panel(id: Memo<String>) -> AnyView {
    let session = session();
    // None: the last one.
    let step = RwSignal::new(None::<u64>);
    let asked = Memo::new(move |_| (id.get(), step.get()));
    let changed = RwSignal::new(0);
    // A long log takes a while to be read.
    let trains = slowly(session.run_change, EVERY);
    Effect::new(move |_| {
        trains.track();
        changed.update(|n| *n += 1);
    });
    let window: RwSignal<Loaded<RedoWindow>> =
        load(asked, changed, true, |host, (id, step)| Box::pin(async move { host.redo(&id, step).await }));
    let refused = RwSignal::new(None::<ApiProblem>);
    // `None` stops what is under way.
    let act = move |step: Option<u64>| {
        let (host, id) = (session.host.clone(), id.get_untracked());
        spawn_local(async move {
            let done = host.go_back(&id, step).await;
            let _ = refused.try_set(done.err());
            let _ = changed.try_update(|n| *n += 1);
        });
    };
    let stop = act.clone();
    let begin = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        let Some(known) = window.with_untracked(|w| w.data.clone()) else { return };
        if !known.going.is_some_and(|going| going.under_way) {
            act(Some(step.get_untracked().unwrap_or(known.last_step)));
        }
    };
    let told = maybe(move || {
        let (data, problem) = window.with(|w| (w.data.clone(), w.problem.clone()));
        let problem = refused.get().or(problem).map(|problem| {
            view! {
                <p class="note" role="alert" data-testid="redo-problem" data-code=problem.code>{problem.message} " " {problem.hint}</p>
            }
        });
        let Some(data) = data else { return problem };
        let under_way = data.going.as_ref().is_some_and(|going| going.under_way);
        let stop = stop.clone();
        let button = if under_way {
            view! {
                <button type="button" class="button" data-testid="redo-stop" on:click=move |_| stop(None)>"Stop"</button>
            }
        } else {
            view! { <button type="submit" class="button" data-testid="redo-begin">"Make a run of that step"</button> }
        };
        Some(view! {
            <p data-testid="redo-summary">
                {format!("Steps {} to {} can be gone back to. {}", data.first_step, data.last_step, data.summary)}
            </p>
            {problem}
            <div class="actions">
                {button}
                <span class="quiet">"By the redo log of its program. This run stays as it is."</span>
            </div>
            {data.going.map(state)}
        })
    });
    view! {
        <section class="panel" data-testid="redo">
            <h2>"Go back to a step"</h2>
            <form class="plan" on:submit=begin>
                <label class="field stacked">
                    <span class="field-name">"Step of the optimizer; the last one if nothing is given"</span>
                    <input
                        type="text"
                        inputmode="numeric"
                        pattern="[0-9]*"
                        maxlength="15"
                        autocomplete="off"
                        data-testid="redo-step"
                        on:input=move |event| {
                            refused.set(None);
                            step.set(event_target_value(&event).parse().ok());
                        }
                    />
                </label>
                {told}
            </form>
        </section>
    }
}

fn state(going: GoingBack) -> AnyView {
    let made = going.run_id.zip(going.path).map(|(run_id, path)| {
        view! {
            <p>
                <a href=run_address(&run_id) data-testid="redo-run">"The run that was made"</a>
                " "
                <span class="mono break" data-testid="redo-path">{path.clone()}</span>
                {copy_button(path, "the checkpoint's path")}
            </p>
        }
    });
    view! {
        <section class="note" data-testid="redo-going">
            <p role="status">{format!("Step {}: {}", going.step, going.summary)}</p>
            {made}
        </section>
    }
}
