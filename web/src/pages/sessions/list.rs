//! The list of sessions.

use std::time::Duration;

use crate::prelude::*;
use retinker::host::sessions::{Projects, SessionRow, SessionWindow};
use retinker_console::address::{at, session_address};
use retinker_console::format;
use retinker_console::sessions::{self, MOST, STATUSES, STEP, Shown};

use super::parts::{dash, kept_of, project_link, runs_of, state_of, tabs, waiting};
use crate::browser;
use crate::components::banner::{kept, own_problem, problems};
use crate::components::copy::copy_button;
use crate::components::heads::heads;
use crate::components::page_head::{self, page_head};
use crate::components::reactive::{flag, maybe, part, text, when};
use crate::components::search::{Field, field, typing};
use crate::components::time::when_it_was;
use crate::live::{Loaded, load, often, session};
use crate::place::place;

/// Typing asks for a new list this long after the last letter.
const TYPING: Duration = Duration::from_millis(250);

type Window = RwSignal<Loaded<SessionWindow>>;

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
    let window: Window =
        load(key, often(session().any_change), true, |host, (shown, limit): (Shown, u64)| {
            Box::pin(async move { host.sessions(&shown.to_query(limit)).await })
        });
    // Counting takes many questions on a large service, so it is done once.
    let projects: RwSignal<Loaded<Projects>> =
        load(Memo::new(|_| ()), session().asked_again, true, |host, ()| {
            Box::pin(async move { host.projects().await })
        });
    // Whoever asks for more by the keyboard goes on at the first that was added.
    let goes_on_at = RwSignal::new(None::<usize>);
    Effect::new(move |_| {
        let added = window.with(|w| {
            let at = goes_on_at.get_untracked()?;
            w.data.as_ref()?.rows.get(at).map(|row| row_id(&row.session_id))
        });
        if let Some(id) = added {
            goes_on_at.set(None);
            request_animation_frame(move || browser::focus(&id));
        }
    });
    let total = text(move || {
        window.with(|w| {
            w.data
                .as_ref()
                .map_or_else(String::new, |data| sessions::shown(data.rows.len() as u64, data.more))
        })
    });
    let searchable = flag(move || window.with(|w| w.data.as_ref().is_none_or(|data| data.searchable)));
    view! {
        {page_head("Sessions", page_head::total("sessions-total", total))}
        {tabs("/sessions")}
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
            let grow = move |_| {
                goes_on_at.set(window.with_untracked(|w| w.data.as_ref().map(|data| data.rows.len())));
                limit.update(|limit| *limit = limit.saturating_mul(2).min(MOST));
            };
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
                    most: "2000",
                    of: None,
                },
                typed,
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

/// A session's line on the page.
fn row_id(session_id: &str) -> String {
    format!("session-{session_id}")
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
    let of = text(move || id.with(|id| row_id(id)));
    let state =
        text(move || steady.with(|row| row.as_ref().and_then(|row| row.status.clone()).unwrap_or_default()));
    let cell =
        move |draw: fn(&SessionRow) -> AnyView| maybe(move || steady.with(|row| row.as_ref().map(draw)));
    view! {
        <tr role="row" id=of tabindex="-1" data-testid="session-row" data-session-id=id data-status=state>
            <th role="rowheader" scope="row" class="c-session">
                {cell(|row| {
                    let name = sessions::name(row);
                    let id = row.session_id.clone();
                    view! {
                        <a class="run-name" href=session_address(&id) title=row.name.clone().unwrap_or_else(|| id.clone())>
                            {name}
                        </a>
                        <span class="run-id">
                            {row.name.is_some().then(|| view! { <span class="mono" title=id.clone()>{format::short_id(&id)}</span> })}
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
