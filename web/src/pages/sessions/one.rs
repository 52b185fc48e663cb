//! One session.

use std::time::Duration;

use crate::prelude::*;
use leptos::reactive::spawn_local;
use retinker::host::api::ApiProblem;
use retinker::host::sessions::{Projects, SamplerRow, SessionDetail, SessionRow, SessionRun};
use retinker_console::address::at;
use retinker_console::sessions::{self, REASONS};
use retinker_console::{format, words};

use super::parts::{kept_of, project_link, run_chip, sampler, state_of, waiting};
use crate::browser;
use crate::components::banner::{kept, own_problem, problems};
use crate::components::copy::copy_button;
use crate::components::dialog::dialog;
use crate::components::icon::icon;
use crate::components::reactive::{flag, maybe, nothing, part, text, when};
use crate::components::time::when_it_was;
use crate::live::{Loaded, Session, load, often, session, slowly};
use crate::place::place;

type Detail = RwSignal<Loaded<SessionDetail>>;

/// A session with its samplers is some fifty questions to the service: while something trains all the time it is read no more
/// often than this.
const PAUSE: Duration = Duration::from_secs(5);

/// What a person wants to do with a session.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Finish,
    Assign,
}

/// What the parts of the page share.
#[derive(Clone, Copy)]
struct Desk {
    id: Memo<String>,
    detail: Detail,
    /// Whether the dialog is open.
    open: RwSignal<bool>,
    /// The project that the session was moved out of, for the way back.
    former: RwSignal<Option<String>>,
}

/// The page `/sessions/:id`.
pub(crate) fn session_page() -> AnyView {
    let id = place().of;
    let detail: Detail = load(id, slowly(often(session().any_change), PAUSE), false, |host, id: String| {
        Box::pin(async move { host.session(&id).await })
    });
    let missing = Memo::new(move |_| {
        detail.with(|d| d.data.is_none() && d.problem.as_ref().is_some_and(|p| p.code == "session_not_found"))
    });
    let name = Memo::new(move |_| {
        detail.with(|d| {
            d.data.as_ref().map_or_else(|| format::short_id(&id.get()), |data| sessions::name(&data.session))
        })
    });
    Effect::new(move |_| {
        browser::set_title(&if missing.get() { "No such session".to_owned() } else { name.get() });
    });
    let there = Memo::new(move |_| detail.with(|d| d.data.is_some()));
    let page = part(move || {
        if missing.get() {
            return view! {
                <section class="lonely" data-testid="session-not-found">
                    <h1 id="page-title" tabindex="-1">
                        "There is no such session"
                    </h1>
                    <p>
                        "The service does not know " <code class="break">{id.signal()}</code>
                        ". It may belong to another account or another service."
                    </p>
                </section>
            };
        }
        view! {
            <header class="page-head run-head">
                <h1 id="page-title" class="clamped" tabindex="-1" title=name.signal()>
                    {name.signal()}
                </h1>
                <span class="run-id">
                    <span class="mono break">{id.signal()}</span>
                    {copy_button(id, "the session's id")}
                </span>
            </header>
            {problems(own_problem(detail), kept(detail))}
            {waiting(detail, "Reading the session…")}
            {when(move || there.get(), move || inside(id, detail))}
        }
    });
    view! {
        <nav class="trail" aria-label="Way back">
            <a href=at("/sessions")>{icon("back")} "All sessions"</a>
        </nav>
        {page}
    }
}

fn inside(id: Memo<String>, detail: Detail) -> AnyView {
    let row = Memo::new(move |_| detail.with(|d| d.data.as_ref().map(|data| data.session.clone())));
    let samplers = Memo::new(move |_| {
        detail.with(|d| {
            d.data.as_ref().map(|data| (data.samplers.clone(), data.sampler_count)).unwrap_or_default()
        })
    });
    let has_projects =
        Memo::new(move |_| detail.with(|d| d.data.as_ref().is_some_and(|data| data.has_projects)));
    let over = Memo::new(move |_| {
        row.with(|row| {
            row.as_ref().and_then(|row| row.status.clone()).is_some_and(|status| status != "active")
        })
    });
    let (open, act) = (RwSignal::new(false), RwSignal::new(Act::Finish));
    let former = RwSignal::new(None::<String>);
    let desk = Desk { id, detail, open, former };
    let session = session();
    let ask = move |wanted: Act| {
        act.set(wanted);
        open.set(true);
    };
    let actions = part(move || {
        let finish = (!over.get()).then(|| {
            view! {
                <button type="button" class="button" data-testid="finish-session" on:click=move |_| ask(Act::Finish)>
                    "Finish…"
                </button>
            }
        });
        let assign = has_projects.get().then(|| {
            view! {
                <button type="button" class="button" data-testid="assign-project" on:click=move |_| ask(Act::Assign)>
                    "Assign to a project…"
                </button>
            }
        });
        let session = session.clone();
        let back = former.get().map(|project| {
            let name = format!("Undo: back to {project}");
            let undo = move |_| {
                let (session, project, asked) = (session.clone(), project.clone(), id.get_untracked());
                spawn_local(async move {
                    let done = session.host.assign_project(&asked, &project).await;
                    // Another session may be shown by now.
                    if id.try_get_untracked() != Some(asked) {
                        return;
                    }
                    match done {
                        Ok(data) => {
                            former.set(None);
                            take(&session, detail, data);
                        }
                        Err(problem) => detail.update(|detail| detail.problem = Some(problem)),
                    }
                });
            };
            view! { <button type="button" class="button" data-testid="assign-undo" on:click=undo><bdi>{name}</bdi></button> }
        });
        view! { <div class="actions">{finish} {assign} {back}</div> }
    });
    view! {
        <div class="columns">
            <div class="main-column">
                <section class="panel" data-testid="session-state">
                    {maybe(move || row.with(|row| row.as_ref().map(state_of)))} {actions}
                </section>
                {part(move || runs_panel(row.with(|row| row.as_ref().map(|row| row.runs.clone()).unwrap_or_default())))}
                {part(move || {
                    let (rows, count) = samplers.get();
                    samplers_panel(rows, count)
                })}
            </div>
            <div class="side-column">
                {maybe(move || row.get().map(|row| facts(&row)))}
                {maybe(move || row.get().map(|row| labels(&row)))}
            </div>
        </div>
        {dialog(
            open,
            text(move || match act.get() {
                Act::Finish => "Finish this session".to_owned(),
                Act::Assign => "Assign to a project".to_owned(),
            }),
            "session-dialog",
            move || match act.get_untracked() {
                Act::Finish => finish_form(desk),
                Act::Assign => assign_form(desk),
            },
        )}
    }
}

fn runs_panel(runs: Vec<SessionRun>) -> AnyView {
    let count = format::count(runs.len() as u64);
    let body = if runs.is_empty() {
        view! { <p class="quiet">"No run was made in this session."</p> }
    } else {
        let chips: Vec<_> = runs.iter().map(|run| view! { <li>{run_chip(run)}</li> }).collect();
        view! { <ul class="chips" data-testid="session-runs">{chips}</ul> }
    };
    view! {
        <section class="panel">
            <h2>"Runs " <span class="quiet">{count}</span></h2>
            {body}
        </section>
    }
}

fn samplers_panel(rows: Vec<SamplerRow>, count: u64) -> AnyView {
    let hidden = count.saturating_sub(rows.len() as u64);
    let body = if rows.is_empty() {
        view! { <p class="quiet">"No sampler was made in this session."</p> }
    } else {
        let items: Vec<_> = rows.into_iter().map(sampler).collect();
        view! { <ul class="session-samplers" data-testid="session-samplers">{items}</ul> }
    };
    view! {
        <section class="panel">
            <h2>"Samplers " <span class="quiet">{format::count(count)}</span></h2>
            {body}
            {(hidden > 0).then(|| view! { <p class="quiet">{format!("The newest are shown; {} are not.", format::count(hidden))}</p> })}
        </section>
    }
}

fn fact(name: String, value: AnyView) -> AnyView {
    view! {
        <dt class="break">{name}</dt>
        <dd class="break">{value}</dd>
    }
}

fn facts(row: &SessionRow) -> AnyView {
    let told = |name: &str, value: Option<AnyView>| value.map(|value| fact(name.to_owned(), value));
    let all: Vec<_> = [
        told("Owner", row.owner.clone().map(IntoAny::into_any)),
        told("Project", row.project_id.clone().map(|project| project_link(Some(project)))),
        told("Created", row.created_at.map(when_it_was)),
        told("Last request of its runs", row.last_request.map(when_it_was)),
        told("Checkpoints", row.checkpoints.map(|_| kept_of(row).into_any())),
    ]
    .into_iter()
    .flatten()
    .collect();
    view! {
        <section class="panel">
            <h2>"Facts"</h2>
            <dl class="facts" data-testid="session-facts">
                {all}
            </dl>
        </section>
    }
}

fn labels(row: &SessionRow) -> AnyView {
    let body = if row.labels.is_empty() {
        view! { <p class="quiet">"None were given when the session was made."</p> }
    } else {
        let rows: Vec<_> = row
            .labels
            .iter()
            .map(|(key, value)| fact(key.clone(), view! { <bdi>{value.clone()}</bdi> }))
            .collect();
        view! { <dl class="facts" data-testid="session-labels">{rows}</dl> }
    };
    view! {
        <section class="panel">
            <h2>"Labels"</h2>
            {body}
        </section>
    }
}

/// A form in the dialog: what it asks, and the button that does it. What was refused is told, and the form stays.
fn acting(desk: Desk, fields: AnyView, name: &'static str, value: RwSignal<String>, act: Act) -> AnyView {
    let Desk { id, detail, open, former } = desk;
    let session = session();
    let problem = RwSignal::new(None::<ApiProblem>);
    let sent = RwSignal::new(None::<String>);
    Effect::new(move |_| {
        let Some(value) = sent.get() else { return };
        let (session, id) = (session.clone(), id.get_untracked());
        let before = project_of(detail);
        // It goes on when the dialog is closed, and what became of it is on the page.
        spawn_local(async move {
            let done = match act {
                Act::Finish => session.host.finish_session(&id, &value).await,
                Act::Assign => session.host.assign_project(&id, &value).await,
            };
            match done {
                Ok(_) if desk.id.try_get_untracked() != Some(id) => {}
                Ok(data) => {
                    if act == Act::Assign {
                        former.try_set(before.filter(|project| *project != value));
                    }
                    take(&session, detail, data);
                    open.try_set(false);
                }
                Err(refused) => {
                    session.notice(&refused);
                    // Where nobody sees the form any more it is told on the page.
                    if !problem.try_set(Some(refused.clone())) {
                        detail.try_update(|loaded| loaded.problem = Some(refused));
                    }
                    sent.try_set(None);
                }
            }
        });
    });
    let send = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        if sent.with_untracked(Option::is_none) {
            problem.set(None);
            sent.set(Some(value.get_untracked()));
        }
    };
    let trouble = maybe(move || {
        let problem = problem.get()?;
        Some(view! {
            <section class="note" role="alert" data-testid="dialog-problem" data-code=problem.code.clone()>
                <strong>{words::problem_heading(&problem)}</strong>
                <p>{problem.message} " " {problem.hint}</p>
            </section>
        })
    });
    view! {
        <form class="plan" on:submit=send>
            {fields}
            {trouble}
            <div class="actions">
                <button
                    type="submit"
                    class="button primary"
                    data-testid="confirm"
                    disabled=flag(move || sent.with(Option::is_some))
                >
                    {name}
                </button>
                <button type="button" class="button" on:click=move |_| open.set(false)>
                    "Leave it as it is"
                </button>
            </div>
        </form>
    }
}

/// Takes how a session stands after something was done; where the host could not read that, the page does.
fn take(session: &Session, detail: Detail, data: SessionDetail) {
    if data.unread {
        session.read_again();
    } else {
        detail.try_set(Loaded::read(data));
    }
}

fn project_of(detail: Detail) -> Option<String> {
    let project = detail.with_untracked(|d| d.data.as_ref().and_then(|data| data.session.project_id.clone()));
    project.filter(|project| !project.is_empty())
}

fn finish_form(desk: Desk) -> AnyView {
    let told = desk.detail.with_untracked(|d| d.data.as_ref().map(sessions::consequence)).unwrap_or_default();
    let reason = RwSignal::new("interrupted".to_owned());
    let options: Vec<_> =
        REASONS.into_iter().map(|(value, name)| view! { <option value=value>{name}</option> }).collect();
    let fields = view! {
        <p data-testid="finish-consequence">{told}</p>
        <label class="field stacked">
            <span class="field-name">"How it ended"</span>
            <select data-testid="finish-reason" on:change=move |event| reason.set(event_target_value(&event))>
                {options}
            </select>
        </label>
    };
    acting(desk, fields.into_any(), "Finish the session", reason, Act::Finish)
}

fn assign_form(desk: Desk) -> AnyView {
    let project = RwSignal::new(project_of(desk.detail).unwrap_or_default());
    let projects: RwSignal<Loaded<Projects>> = load(Memo::new(|_| ()), RwSignal::new(0), true, |host, ()| {
        Box::pin(async move { host.projects().await })
    });
    let known = part(move || {
        projects.with(|p| {
            let ids = p.data.iter().flat_map(|data| &data.projects).map(|row| row.project_id.clone());
            let options: Vec<_> =
                ids.filter(|id| !id.is_empty()).map(|id| view! { <option value=id></option> }).collect();
            if options.is_empty() { nothing() } else { options.into_any() }
        })
    });
    let fields = view! {
        <p>"Its runs, checkpoints and costs are counted with that project from now on."</p>
        <label class="field stacked">
            <span class="field-name">"Project"</span>
            <input
                type="text"
                required=true
                maxlength="200"
                autocomplete="off"
                spellcheck="false"
                list="known-projects"
                data-testid="project-id"
                prop:value=project.signal()
                on:input=move |event| project.set(event_target_value(&event))
            />
            <datalist id="known-projects">{known}</datalist>
        </label>
    };
    acting(desk, fields.into_any(), "Assign", project, Act::Assign)
}
