//! What deleting would do, before it is done: of those that were chosen, or of those that a rule does not keep.

use crate::prelude::*;
use leptos::reactive::spawn_local;
use retinker::host::checkpoints::{CheckpointDo, CheckpointItem, DeletePreview, RetentionRequest};
use retinker::recovery::retention::Rule;
use retinker_console::checkpoints::{Job, View, preview as told};
use retinker_console::format;

use super::actions::button;
use super::{Desk, Sheet};
use crate::components::more::{first_lines, more_lines};
use crate::components::reactive::{flag, maybe, nothing, part, text, when};
use crate::live::Loaded;

/// What is shown, as it was when it was asked for.
type Frozen = StoredValue<DeletePreview>;

/// Opens the preview of deleting these, and no others: what is selected afterwards changes nothing of it.
pub(super) fn open(desk: Desk, paths: Vec<String>) {
    let round = desk.preview_anew(true);
    desk.show(Sheet::Delete);
    let session = desk.session.get_value();
    spawn_local(async move {
        let answer = session.host.preview_delete(paths).await;
        take(desk, round, answer);
    });
}

fn take(desk: Desk, round: u32, answer: Result<DeletePreview, retinker::host::api::ApiProblem>) {
    if desk.round.try_get_value() != Some(round) {
        return;
    }
    let loaded = match answer {
        Ok(data) => Loaded::read(data),
        Err(problem) => {
            desk.session.with_value(|session| session.notice(&problem));
            Loaded { problem: Some(problem), busy: false, ..Loaded::default() }
        }
    };
    let _ = desk.preview.try_set(loaded);
}

/// The preview, and what confirms it. `force`: whether what is needed may be deleted too, if that is said expressly.
pub(super) fn preview(desk: Desk, force: bool) -> AnyView {
    let loaded = desk.preview;
    let forced = RwSignal::new(false);
    part(move || {
        if loaded.with(|l| l.busy) {
            return view! { <p role="status">"Looking at what that would do…"</p> };
        }
        if let Some(problem) = loaded.with(|l| l.problem.clone()) {
            return view! {
                <p role="alert" data-testid="preview-problem" data-code=problem.code>
                    <strong>{problem.message}</strong>
                    " Nothing was deleted. "
                    {problem.hint}
                </p>
            };
        }
        let Some(data) = loaded.with(|l| l.data.clone()) else { return nothing() };
        forced.set(false);
        body(desk, data, force.then_some(forced))
    })
}

fn body(desk: Desk, data: DeletePreview, force: Option<RwSignal<bool>>) -> AnyView {
    let forced = move || force.is_some_and(|forced| forced.get());
    let mut kept = match data.kept {
        0 => String::new(),
        kept => format!("The rule keeps {}.", format::counted(kept, "checkpoint", "checkpoints")),
    };
    if data.unmeasured > 0 {
        let why = match data.unasked {
            0 => "the service offers no losses of the time when they were saved".to_owned(),
            unasked => {
                format!("{} are of more runs than are asked for their losses at once", format::count(unasked))
            }
        };
        let unknown = format::count(data.unmeasured);
        kept.push_str(&format!(" Of {unknown} it is not known how good they are, so that they stay: {why}."));
    }
    if data.more > 0 {
        let more = format::count(data.more);
        kept.push_str(&format!(" {more} more would go, when you clean up again: these are the oldest."));
    }
    let gone = match data.gone.len() as u64 {
        0 => String::new(),
        gone => format!("{} gone already.", format::counted(gone, "checkpoint is", "checkpoints are")),
    };
    let (some_needed, some_go) = (!data.needed.is_empty(), !data.goes.is_empty());
    let frozen = StoredValue::new(data);
    let needed = some_needed.then(|| needed_part(frozen, force));
    let goes = some_go.then(|| list("goes", frozen, |data| &data.goes));
    let sentence = text(move || {
        frozen.with_value(|data| told(data, if forced() { data.needed.as_slice() } else { &[] }))
    });
    let number = move || {
        frozen.with_value(|data| data.goes.len() + if forced() { data.needed.len() } else { 0 }) as u64
    };
    let name = text(move || format!("Delete {}", format::counted(number(), "checkpoint", "checkpoints")));
    let confirm = move || {
        let paths = |items: &[CheckpointItem]| {
            items.iter().map(|item| item.checkpoint.tinker_path.clone()).collect::<Vec<_>>()
        };
        let (goes, needed) = frozen.with_value(|data| (paths(&data.goes), paths(&data.needed)));
        let mut requests = Job::requests(CheckpointDo::Delete, &goes, None, false);
        if force.is_some_and(|forced| forced.get_untracked()) {
            requests.extend(Job::requests(CheckpointDo::Delete, &needed, None, true));
        }
        desk.run(requests);
    };
    view! {
        <p data-testid="preview-told" role="status">
            <strong>{sentence}</strong>
        </p>
        <p class="quiet">{kept}</p>
        <p class="quiet">{gone}</p>
        {goes}
        {needed}
        {when(
            move || number() > 0,
            move || {
                view! {
                    <div class="actions plan-foot">
                        <span class="grow">"There is no way back from this."</span>
                        {button("button primary", "confirm-delete", name, Box::new(confirm))}
                    </div>
                }
            },
        )}
    }
}

fn needed_part(frozen: Frozen, force: Option<RwSignal<bool>>) -> AnyView {
    let count = frozen.with_value(|data| data.needed.len()) as u64;
    let heading = match count {
        1 => "1 is needed, and stays".to_owned(),
        count => format!("{} are needed, and stay", format::count(count)),
    };
    let force = force.map(|forced| {
        view! {
            <label class="option">
                <input
                    type="checkbox"
                    data-testid="force"
                    prop:checked=forced.signal()
                    on:change=move |event| forced.set(event_target_checked(&event))
                />
                <span>
                    {format!("Delete {} as well, although what was saved is lost with it", if count == 1 { "it" } else { "them" })}
                </span>
            </label>
        }
    });
    view! {
        <section class="note" data-testid="preview-needed">
            <h3>{heading}</h3>
            {list("needed-list", frozen, |data| &data.needed)}
            {force}
        </section>
    }
}

fn list(testid: &'static str, frozen: Frozen, of: fn(&DeletePreview) -> &Vec<CheckpointItem>) -> AnyView {
    let shown = first_lines();
    let lines = part(move || {
        let lines: Vec<_> = frozen.with_value(|data| of(data).iter().take(shown.get()).map(one).collect());
        lines.into_any()
    });
    view! {
        <ul class="named" data-testid=testid tabindex="0" aria-label="Checkpoints">
            {lines}
        </ul>
        {more_lines(move || frozen.with_value(|data| of(data).len()), shown)}
    }
}

fn one(item: &CheckpointItem) -> AnyView {
    let size = item.checkpoint.size_bytes.map(format::bytes).unwrap_or_default();
    view! {
        <li title=item.checkpoint.tinker_path.clone()>
            <span class="mono">{format::checkpoint_name(&item.checkpoint.checkpoint_id).to_owned()}</span>
            " of "
            <bdi>{item.run_name.clone()}</bdi>
            " "
            <span class="quiet">{size}</span>
            {item.needed_because.clone().map(|because| view! { <span class="because">{because}</span> })}
        </li>
    }
}

/// What a rule would delete.
pub(super) fn retention(desk: Desk) -> AnyView {
    let rule = RwSignal::new(Rule { last: Some(3), ..Rule::default() });
    let field = move |testid: &'static str, name: &'static str, get: fn(&mut Rule) -> &mut Option<u32>| {
        let value = text(move || {
            let number = rule.with(|rule| *get(&mut rule.clone()));
            number.map_or_else(String::new, |number| number.to_string())
        });
        view! {
            <label class="rule">
                <span>{name}</span>
                <input
                    type="number"
                    min="1"
                    max="100000"
                    placeholder="–"
                    data-testid=testid
                    prop:value=value
                    on:input=move |event| {
                        let number = event_target_value(&event).parse().ok().filter(|number| *number > 0);
                        rule.update(|rule| *get(rule) = number);
                        // What is shown is that of another rule.
                        desk.preview_anew(false);
                    }
                />
            </label>
        }
    };
    let ask = move || {
        let round = desk.preview_anew(true);
        let request =
            RetentionRequest { query: desk.shown.with_untracked(View::to_query), rule: rule.get_untracked() };
        let session = desk.session.get_value();
        spawn_local(async move {
            let answer = session.host.preview_retention(&request).await;
            take(desk, round, answer);
        });
    };
    let among = text(move || {
        let count = desk.window.with(|w| w.data.as_ref().map_or(0, |data| data.matching));
        let whole = if desk.shown.with(View::is_whole) { "of the service" } else { "that match the filter" };
        format!(
            "Among the {} {whole}, of each run and type those are kept that any of these keeps, and what is needed.",
            format::counted(count, "checkpoint", "checkpoints")
        )
    });
    let no_rule = flag(move || rule.with(|rule| *rule == Rule::default()));
    view! {
        <p class="quiet">{among}</p>
        <div class="rules">
            {field("keep-last", "The newest", |rule| &mut rule.last)}
            {field("keep-best", "The best, by the loss when they were saved", |rule| &mut rule.best)}
            {field("keep-every", "One of every so many, from the oldest", |rule| &mut rule.every)}
        </div>
        <div class="actions">
            <button
                type="button"
                class="button"
                data-testid="preview-retention"
                disabled=no_rule
                on:click=move |_| ask()
            >
                "Show what would go"
            </button>
            {maybe(move || {
                no_rule.get().then(|| view! { <span class="quiet">"Without a number everything is kept."</span> })
            })}
        </div>
        {preview(desk, false)}
    }
}
