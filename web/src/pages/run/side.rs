//! What the run is made of, its session, and its labels.

use crate::prelude::*;
use retinker::host::run::{RunSampler, RunSession};
use retinker_console::address::{run_address, session_address, try_address};
use retinker_console::{format, words};

use super::{Detail, Known, slice};
use crate::components::copy::copy_button;
use crate::components::reactive::{maybe, part};
use crate::components::time::when_it_was;

fn fact(name: String, value: AnyView) -> AnyView {
    view! {
        <dt class="break">{name}</dt>
        <dd class="break">{value}</dd>
    }
}

/// A text of the service: shown from its own start to its own end, whatever direction it is written in.
fn told(text: String) -> AnyView {
    if text.is_empty() {
        "not told".into_any()
    } else {
        let title = text.clone();
        view! { <bdi title=title>{text}</bdi> }
    }
}

/// An id, short, whole on hover and in the clipboard.
fn id(id: String, address: Option<String>, what: &'static str) -> AnyView {
    let short = format::short_id(&id);
    let shown = match address {
        Some(address) => view! { <a class="mono" href=address title=id.clone()>{short}</a> },
        None => view! { <span class="mono" title=id.clone()>{short}</span> },
    };
    view! { {shown} {copy_button(Signal::stored(id), what)} }
}

pub(super) fn facts(detail: Detail, known: Known) -> AnyView {
    let run = slice(detail, |d| d.row.run.clone());
    let made = Memo::new(move |_| known.with(|k| k.data.as_ref().and_then(|known| known.created_at)));
    let body = maybe(move || {
        let run = run.get()?;
        let kind = if run.is_lora { "LoRA" } else { "full weights" };
        let adapter = run.lora_rank.map_or_else(|| kind.to_owned(), |rank| format!("{kind}, rank {rank}"));
        let mut facts = vec![
            fact("Run".to_owned(), id(run.training_run_id, None, "the run's id")),
            fact("Base model".to_owned(), told(run.base_model)),
            fact("Adapter".to_owned(), adapter.into_any()),
            fact("Owner".to_owned(), told(run.model_owner)),
        ];
        if let Some(made) = made.get() {
            facts.push(fact("Made".to_owned(), when_it_was(made)));
        }
        facts.push(fact("Last request".to_owned(), when_it_was(run.last_request_time)));
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
}

/// The session that the run was made in, as far as the service tells.
pub(super) fn session_panel(known: Known) -> AnyView {
    let session = Memo::new(move |_| known.with(|k| k.data.as_ref().and_then(|known| known.session.clone())));
    maybe(move || session.get().map(session_facts))
}

fn session_facts(session: RunSession) -> AnyView {
    let mut facts = vec![fact(
        "Session".to_owned(),
        id(session.session_id.clone(), Some(session_address(&session.session_id)), "the session's id"),
    )];
    facts.extend(session.name.map(|name| fact("Name".to_owned(), told(name))));
    let status = words::session_status(&session.status, session.category.as_deref());
    facts.push(fact("Status".to_owned(), status.into_any()));
    facts.extend(session.message.map(|message| fact("It says".to_owned(), told(message))));
    facts.extend(session.project_id.map(|project| fact("Project".to_owned(), told(project))));
    facts.extend(session.created_at.map(|at| fact("Begun".to_owned(), when_it_was(at))));
    facts.extend(session.runs.map(|runs| fact("Runs".to_owned(), format::count(runs).into_any())));
    facts.extend(session.samplers.map(|count| fact("Samplers".to_owned(), format::count(count).into_any())));
    let samplers: Vec<_> = session.newest_samplers.into_iter().map(sampler).collect();
    let list = (!samplers.is_empty()).then(|| {
        view! {
            <ul class="samplers" data-testid="run-samplers">
                {samplers}
            </ul>
        }
    });
    view! {
        <section class="panel">
            <h2>"Session"</h2>
            <dl class="facts" data-testid="run-session" data-status=session.status>
                {facts}
            </dl>
            {list}
        </section>
    }
}

fn sampler(sampler: RunSampler) -> AnyView {
    let of = match sampler.model_path {
        Some(path) => {
            let name = format::checkpoint_name(&path).to_owned();
            view! {
                <span>
                    "of " <bdi class="mono" title=path.clone()>{name}</bdi> " "
                    <a href=try_address(&path)>"Try it"</a>
                </span>
            }
        }
        None => view! { <span class="quiet">"of the base model"</span> },
    };
    view! {
        <li>
            <span>{id(sampler.sampler_id, None, "the sampler's id")}</span>
            {of}
        </li>
    }
}

pub(super) fn labels(detail: Detail) -> AnyView {
    let labels = slice(detail, |d| d.own_metadata.clone());
    let body = part(move || {
        let labels = labels.get().unwrap_or_default();
        if labels.is_empty() {
            return view! { <p class="quiet">"None were given when the run was made."</p> };
        }
        let rows: Vec<_> = labels
            .into_iter()
            .map(|(key, value)| {
                let copied = view! {
                    {told(value.clone())} {copy_button(Signal::stored(value), "the label's value")}
                };
                fact(key, copied.into_any())
            })
            .collect();
        view! {
            <dl class="facts labels" data-testid="run-labels">
                {rows}
            </dl>
        }
    });
    view! {
        <section class="panel">
            <h2>"Labels"</h2>
            {body}
        </section>
    }
}

/// A link to another run.
pub(super) fn run_name(run_id: &str, name: String) -> AnyView {
    view! {
        <a href=run_address(run_id) title=run_id.to_owned() data-run-id=run_id.to_owned()>
            <bdi>{name}</bdi>
        </a>
    }
}
