//! What several pages about sessions show.

use crate::prelude::*;
use retinker::host::sessions::{SamplerRow, SessionRow, SessionRun};
use retinker_console::address::{at, run_address, session_address, try_address};
use retinker_console::sessions::{self, Shown};
use retinker_console::{format, words};

use crate::components::copy::copy_button;
use crate::components::icon::icon;
use crate::components::placeholder::placeholder;
use crate::components::reactive::when;
use crate::live::Loaded;

/// Runs that a row names.
const NAMED: usize = 3;

/// The ways between the pages about sessions.
pub(super) fn tabs(here: &'static str) -> AnyView {
    let links = [("/sessions", "Sessions"), ("/samplers", "Samplers"), ("/projects", "Projects")].map(
        |(path, name)| {
            view! { <a href=at(path) aria-current=(path == here).then_some("page")>{name}</a> }
        },
    );
    view! {
        <nav class="tabs" aria-label="Sessions, and what is in them">
            {Vec::from(links)}
        </nav>
    }
}

/// Before the first answer: a placeholder while it is awaited, and nothing that could be taken for an empty list when it
/// failed.
pub(super) fn waiting<T: Send + Sync + 'static>(read: RwSignal<Loaded<T>>, told: &'static str) -> AnyView {
    when(move || read.with(|r| r.data.is_none() && r.problem.is_none()), move || placeholder(told, 3))
}

pub(super) fn dash() -> AnyView {
    view! { <span class="quiet">"–"</span> }
}

pub(super) fn kept_of(row: &SessionRow) -> String {
    match (row.checkpoints, row.storage_bytes) {
        (Some(count), Some(bytes)) if count > 0 => {
            format!("{} · {}", format::count(count), format::bytes(bytes))
        }
        (Some(count), _) => format::count(count),
        (None, _) => "–".to_owned(),
    }
}

pub(super) fn state_of(row: &SessionRow) -> AnyView {
    let (drawing, name) = sessions::status(row);
    let detail = sessions::status_detail(row);
    let strong = row.status.as_deref() == Some("failed");
    view! {
        <span class="state" class:strong=strong title=detail.clone()>
            {icon(drawing)}
            <span>{name}</span>
        </span>
        <span class="quiet block state-told">{detail}</span>
    }
}

pub(super) fn project_link(project: Option<String>) -> AnyView {
    match project {
        Some(project) => {
            let address = Shown { project: project.clone(), ..Shown::default() }.to_address();
            view! { <a class="cut-off" href=address title=project.clone()>{format::named(&project).to_owned()}</a> }
        }
        None => dash(),
    }
}

pub(super) fn run_chip(run: &SessionRun) -> AnyView {
    let health = run.health.map(|health| (icon(health.as_str()), words::health(health)));
    let (drawing, told) = health.map_or((None, ""), |(drawing, told)| (Some(drawing), told));
    let name = if run.name == run.run_id { format::short_id(&run.run_id) } else { run.name.clone() };
    view! {
        <a class="chip" href=run_address(&run.run_id) title=format!("{told} {}", run.run_id)>
            {drawing}
            <span class="said">{told}</span>
            <span>{name}</span>
        </a>
    }
}

pub(super) fn runs_of(runs: &[SessionRun], count: u64) -> AnyView {
    if count == 0 {
        return view! { <span class="quiet">"none"</span> };
    }
    let chips: Vec<_> = runs.iter().take(NAMED).map(run_chip).collect();
    let more = count.saturating_sub(chips.len() as u64);
    view! {
        {chips}
        {(more > 0).then(|| view! { <span class="quiet">{format!("+{}", format::count(more))}</span> })}
    }
}

pub(super) fn sampler(row: SamplerRow) -> AnyView {
    let source = row.model_path.or(row.base_model);
    let from = match (source, row.problem) {
        (Some(source), _) => view! {
            <span class="mono break">{source.clone()}</span>
            {copy_button(Signal::stored(source.clone()), "what it samples from")}
            " "
            <a href=try_address(&source)>"Try it"</a>
        },
        (None, problem) => {
            view! { <span class="quiet">{problem.map_or_else(String::new, |problem| problem.message)}</span> }
        }
    };
    let session = row.session_id.map(|id| {
        view! { <a href=session_address(&id)>{format!("Session {}", format::short_id(&id))}</a> }
    });
    let id = row.sampler_id;
    view! {
        <li>
            <span class="run-id">
                <span class="mono" title=id.clone()>
                    {format::short_id(&id)}
                </span>
                {copy_button(Signal::stored(id), "the sampler's id")}
            </span>
            <span class="sampler-from">{from} " " {session}</span>
        </li>
    }
}
