//! Sessions: found, looked into, finished, assigned to projects.

use std::time::Duration;

use crate::prelude::*;
use retinker::host::api::ApiProblem;
use retinker::host::sessions::{Projects, SamplerRow, SessionDetail, SessionRow, SessionRun, SessionWindow};
use retinker_console::address::{at, run_address, session_address, try_address};
use retinker_console::sessions::{self, MOST, REASONS, STATUSES, STEP, Shown};
use retinker_console::{format, words};

use crate::browser;
use crate::components::banner::{kept, own_problem, problems};
use crate::components::copy::copy_button;
use crate::components::dialog::dialog;
use crate::components::heads::heads;
use crate::components::icon::icon;
use crate::components::placeholder::placeholder;
use crate::components::reactive::{flag, maybe, nothing, part, text, when};
use crate::components::search::{Field, field, typing};
use crate::components::time::when_it_was;
use crate::live::{Loaded, load, often, session, until_cleanup};
use crate::place::place;

/// Typing asks for a new list this long after the last letter.
const TYPING: Duration = Duration::from_millis(250);
/// Runs that a row names.
const NAMED: usize = 3;

type Window = RwSignal<Loaded<SessionWindow>>;
type Detail = RwSignal<Loaded<SessionDetail>>;

/// The page `/sessions`.
pub(crate) fn sessions_page() -> AnyView {
    let place = place();
    let shown = Memo::new(move |_| place.query.with(|query| Shown::read(query)));
    let limit = RwSignal::new(STEP);
    Effect::new(move |_| {
        shown.track();
        limit.set(STEP);
    });
    let key = Memo::new(move |_| (shown.get(), limit.get()));
    let window: Window = load(key, often(), true, |host, (shown, limit): (Shown, u64)| {
        Box::pin(async move { host.sessions(&shown.to_query(limit)).await })
    });
    // Counting takes many questions on a large service, so it is done once.
    let projects: RwSignal<Loaded<Projects>> = load(Memo::new(|_| ()), RwSignal::new(0), true, |host, ()| {
        Box::pin(async move { host.projects().await })
    });
    Effect::new(|_| browser::set_title("Sessions"));
    let total = text(move || {
        window.with(|w| {
            w.data
                .as_ref()
                .map_or_else(String::new, |data| sessions::shown(data.rows.len() as u64, data.more))
        })
    });
    let searchable = flag(move || window.with(|w| w.data.as_ref().is_none_or(|data| data.searchable)));
    view! {
        <header class="page-head">
            <h1 id="page-title" tabindex="-1">
                "Sessions"
            </h1>
            <p class="shown" role="status" data-testid="sessions-total">
                {total}
            </p>
        </header>
        {problems(own_problem(window), kept(window))}
        {part(move || {
            if searchable.get() {
                return tools(shown, projects);
            }
            view! {
                <p class="note" data-testid="sessions-no-search">
                    "This service offers no search of sessions, and does not tell how they stand: the newest are listed."
                </p>
            }
        })}
        {waiting(window, "Reading the sessions…")}
        {when(move || window.with(|w| w.data.is_some()), move || table(shown, window))}
        {maybe(move || {
            let more = window.with(|w| w.data.as_ref().is_some_and(|data| data.more && data.searchable));
            if !more {
                return None;
            }
            if limit.get() >= MOST {
                return Some(
                    view! { <p class="pager quiet">"The list ends here: look for what you want by words, status or project."</p> },
                );
            }
            let grow = move |_| limit.update(|limit| *limit = limit.saturating_mul(2).min(MOST));
            Some(
                view! {
                    <p class="pager">
                        <button type="button" class="button" data-testid="sessions-more" on:click=grow>
                            "Show more"
                        </button>
                    </p>
                },
            )
        })}
    }
}

/// Before the first answer: a placeholder while it is awaited, and nothing that could be taken for an empty list when it
/// failed.
fn waiting<T: Send + Sync + 'static>(read: RwSignal<Loaded<T>>, told: &'static str) -> AnyView {
    when(move || read.with(|r| r.data.is_none() && r.problem.is_none()), move || placeholder(told, 3))
}

/// Text, status and project.
fn tools(shown: Memo<Shown>, projects: RwSignal<Loaded<Projects>>) -> AnyView {
    let place = place();
    let go = move |next: Shown, replace: bool| place.go(&next.to_address(), replace);
    let typed = typing(Memo::new(move |_| shown.with(|shown| shown.q.clone())), TYPING, move |q| {
        go(Shown { q, ..shown.get_untracked() }, true);
    });
    let by_status =
        move |event| go(Shown { status: event_target_value(&event), ..shown.get_untracked() }, false);
    let by_project =
        move |event| go(Shown { project: event_target_value(&event), ..shown.get_untracked() }, false);
    let statuses: Vec<_> = STATUSES
        .into_iter()
        .map(|(value, name)| {
            let chosen = flag(move || shown.with(|shown| shown.status == value));
            view! { <option value=value prop:selected=chosen>{name}</option> }
        })
        .collect();
    let offered = part(move || {
        let mut options: Vec<(String, String)> = projects.with(|p| {
            let rows = p.data.iter().flat_map(|data| &data.projects).filter(|row| !row.project_id.is_empty());
            rows.map(|row| {
                let count = format::counted(row.sessions, "session", "sessions");
                (row.project_id.clone(), format!("{} ({count})", row.project_id))
            })
            .collect()
        });
        // What the address names is among them, whether or not it was counted.
        let named = shown.with(|shown| shown.project.clone());
        if !named.is_empty() && options.iter().all(|(id, _)| *id != named) {
            options.push((named.clone(), named.clone()));
        }
        options.insert(0, (String::new(), "All projects".to_owned()));
        let options: Vec<_> = options
            .into_iter()
            .map(|(id, name)| {
                let chosen = id == named;
                view! { <option value=id prop:selected=chosen>{name}</option> }
            })
            .collect();
        options.into_any()
    });
    view! {
        <form class="tools" role="search" on:submit=|event| event.prevent_default()>
            {field(
                Field {
                    testid: "sessions-search",
                    said: "Look for sessions by words of their name, by id, or by a label: meta.team=x",
                    placeholder: "Find: words of a name, an id, meta.team=x",
                    most: "200",
                    list: None,
                },
                typed,
                nothing(),
            )}
            <label class="field">
                <span class="field-name">"Status"</span>
                <select data-testid="sessions-status" on:change=by_status>
                    {statuses}
                </select>
            </label>
            <label class="field">
                <span class="field-name">"Project"</span>
                <select data-testid="sessions-project" on:change=by_project>
                    {offered}
                </select>
            </label>
        </form>
    }
}

fn table(shown: Memo<Shown>, window: Window) -> AnyView {
    const HEADS: [(&str, &str); 7] = [
        ("c-session", "Session"),
        ("c-state", "Status"),
        ("c-project", "Project"),
        ("c-made", "Created"),
        ("c-last", "Last request"),
        ("c-runs", "Runs"),
        ("c-kept number", "Checkpoints"),
    ];
    let ids = move || {
        window.with(|w| {
            w.data.iter().flat_map(|data| &data.rows).map(|row| row.session_id.clone()).collect::<Vec<_>>()
        })
    };
    let none = move || window.with(|w| w.data.as_ref().is_some_and(|data| data.rows.is_empty()));
    view! {
        <div class="table-frame" class:busy=flag(move || window.with(|w| w.busy))>
            <table class="sessions" role="table" aria-label="Sessions" data-testid="sessions-table">
                <thead role="rowgroup">
                    <tr role="row">{heads(&HEADS)}</tr>
                </thead>
                <tbody role="rowgroup">
                    {each(ids, move |id: String| {
                            let row = Memo::new(move |_| {
                                window
                                    .with(|w| {
                                        w.data.iter().flat_map(|data| &data.rows).find(|row| row.session_id == id).cloned()
                                    })
                            });
                            line(row)
                        })}
                </tbody>
            </table>
            {when(
                none,
                move || {
                    let whole = shown.with(Shown::is_whole);
                    let sentence = if whole { "There are no sessions yet." } else { "No session matches." };
                    view! {
                        <p class="empty" role="status" data-testid="no-sessions">
                            {sentence}
                            " "
                            {(!whole).then(|| view! { <a href=at("/sessions")>"Show all sessions"</a> })}
                        </p>
                    }
                },
            )}
        </div>
    }
}

fn line(row: Memo<Option<SessionRow>>) -> AnyView {
    // Requests come all the time: the links must not be drawn anew (and lose the focus) for them.
    let steady = Memo::new(move |_| row.get().map(|row| SessionRow { last_request: None, ..row }));
    let last = part(move || match row.with(|row| row.as_ref().and_then(|row| row.last_request)) {
        Some(time) => when_it_was(time),
        None => view! { <span class="quiet">"–"</span> },
    });
    let id =
        text(move || steady.with(|row| row.as_ref().map(|row| row.session_id.clone()).unwrap_or_default()));
    let state =
        text(move || steady.with(|row| row.as_ref().and_then(|row| row.status.clone()).unwrap_or_default()));
    let cell =
        move |draw: fn(&SessionRow) -> AnyView| maybe(move || steady.with(|row| row.as_ref().map(draw)));
    view! {
        <tr role="row" data-testid="session-row" data-session-id=id data-status=state>
            <th role="rowheader" scope="row" class="c-session">
                {cell(|row| {
                    let name = sessions::name(row);
                    let id = row.session_id.clone();
                    view! {
                        <a class="run-name" href=session_address(&id) title=name.clone()>
                            {name.clone()}
                        </a>
                        <span class="run-id">
                            <span class="mono" title=id.clone()>
                                {format::short_id(&id)}
                            </span>
                            {copy_button(Signal::stored(id), "the session's id")}
                        </span>
                    }
                })}
            </th>
            <td role="cell" class="c-state">
                {cell(state_of)}
            </td>
            <td role="cell" class="c-project" data-label="project">
                {cell(|row| {
                    let owner = row.owner.clone();
                    let project = project_link(row.project_id.clone());
                    view! {
                        {project}
                        {owner.map(|owner| view! { <span class="quiet block cut-off" title=owner.clone()>{owner.clone()}</span> })}
                    }
                })}
            </td>
            <td role="cell" class="c-made" data-label="created">
                {cell(|row| row.created_at.map_or_else(dash, when_it_was))}
            </td>
            <td role="cell" class="c-last" data-label="last request">
                {last}
            </td>
            <td role="cell" class="c-runs">
                {cell(|row| runs_of(&row.runs, row.run_count))}
            </td>
            <td role="cell" class="c-kept number" data-label="checkpoints">
                {cell(|row| kept_of(row).into_any())}
            </td>
        </tr>
    }
}

fn dash() -> AnyView {
    view! { <span class="quiet">"–"</span> }
}

fn kept_of(row: &SessionRow) -> String {
    match (row.checkpoints, row.storage_bytes) {
        (Some(count), Some(bytes)) if count > 0 => {
            format!("{} · {}", format::count(count), format::bytes(bytes))
        }
        (Some(count), _) => format::count(count),
        (None, _) => "–".to_owned(),
    }
}

fn state_of(row: &SessionRow) -> AnyView {
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

fn project_link(project: Option<String>) -> AnyView {
    match project {
        Some(project) => {
            let address = Shown { project: project.clone(), ..Shown::default() }.to_address();
            view! { <a class="cut-off" href=address title=project.clone()>{project.clone()}</a> }
        }
        None => dash(),
    }
}

fn run_chip(run: &SessionRun) -> AnyView {
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

fn runs_of(runs: &[SessionRun], count: u64) -> AnyView {
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

/// What a person wants to do with a session.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Finish,
    Assign,
}

/// The page `/sessions/:id`.
pub(crate) fn session_page() -> AnyView {
    let id = place().of;
    let detail: Detail =
        load(id, often(), false, |host, id: String| Box::pin(async move { host.session(&id).await }));
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
        view! { <div class="actions">{finish} {assign}</div> }
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
                Act::Finish => finish_form(id, detail, open),
                Act::Assign => assign_form(id, detail, open),
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

fn sampler(row: SamplerRow) -> AnyView {
    let source = row.model_path.or(row.base_model);
    let from = match (source, row.problem) {
        (Some(source), _) => view! {
            <span class="mono break">{source.clone()}</span>
            " "
            <a href=try_address(&source)>"Try it"</a>
        },
        (None, problem) => {
            view! { <span class="quiet">{problem.map_or_else(String::new, |problem| problem.message)}</span> }
        }
    };
    let id = row.sampler_id;
    view! {
        <li>
            <span class="run-id">
                <span class="mono" title=id.clone()>
                    {format::short_id(&id)}
                </span>
                {copy_button(Signal::stored(id), "the sampler's id")}
            </span>
            <span class="sampler-from">{from}</span>
        </li>
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
        let rows: Vec<_> =
            row.labels.iter().map(|(key, value)| fact(key.clone(), value.clone().into_any())).collect();
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
fn acting(
    fields: AnyView,
    name: &'static str,
    value: RwSignal<String>,
    id: Memo<String>,
    detail: Detail,
    open: RwSignal<bool>,
    act: Act,
) -> AnyView {
    let session = session();
    let problem = RwSignal::new(None::<ApiProblem>);
    let sent = RwSignal::new(None::<String>);
    Effect::new(move |_| {
        let Some(value) = sent.get() else { return };
        let (session, id) = (session.clone(), id.get_untracked());
        until_cleanup(Box::pin(async move {
            let done = match act {
                Act::Finish => session.host.finish_session(&id, &value).await,
                Act::Assign => session.host.assign_project(&id, &value).await,
            };
            match done {
                Ok(data) => {
                    detail.set(Loaded { data: Some(data), problem: None, busy: false });
                    open.set(false);
                }
                Err(refused) => {
                    session.notice(&refused);
                    problem.set(Some(refused));
                    sent.set(None);
                }
            }
        }));
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

fn finish_form(id: Memo<String>, detail: Detail, open: RwSignal<bool>) -> AnyView {
    let told = detail.with_untracked(|d| d.data.as_ref().map(sessions::consequence)).unwrap_or_default();
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
    acting(fields.into_any(), "Finish the session", reason, id, detail, open, Act::Finish)
}

fn assign_form(id: Memo<String>, detail: Detail, open: RwSignal<bool>) -> AnyView {
    let now = detail.with_untracked(|d| d.data.as_ref().and_then(|data| data.session.project_id.clone()));
    let project = RwSignal::new(now.unwrap_or_default());
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
    acting(fields.into_any(), "Assign", project, id, detail, open, Act::Assign)
}
