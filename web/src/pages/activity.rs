//! What was done, by people, by this console, and by every monitor on the same journal: about lost runs, and with checkpoints,
//! sessions and monitors.

use std::time::Duration;

use crate::prelude::*;
use retinker::host::api::{Activity, MonitorState, TOLD_NEWEST};
use retinker::recovery::acts::Act;
use retinker::recovery::incidents::Incident;
use retinker::recovery::policy::Gate;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker_console::address::run_address;
use retinker_console::{activity, format, words};

use crate::browser;
use crate::components::banner::{kept, own_problem, problems};
use crate::components::heads::heads;
use crate::components::icon::icon;
use crate::components::incidents;
use crate::components::page_head::page_head;
use crate::components::progress::cancel_button;
use crate::components::reactive::{flag, maybe, when};
use crate::components::time::{clock, told_at, when_it_was};
use crate::live::{Loaded, load, often, session, slowly, until_cleanup};

type Read = RwSignal<Loaded<Activity>>;

/// What happens all the time is read no more often than this: it is all told again.
const PAUSE: Duration = Duration::from_secs(4);

/// How many more of each list are told when older ones are asked for.
const OLDER: u64 = 400;

/// The page `/activity`.
pub(crate) fn activity_page() -> AnyView {
    let session = session();
    let newest = RwSignal::new(TOLD_NEWEST);
    let read: Read = load(
        Memo::new(move |_| newest.get()),
        slowly(often(session.any_change), PAUSE),
        true,
        |host, newest| Box::pin(async move { host.activity(newest).await }),
    );
    let older = move |told: fn(&Activity) -> (usize, u64)| older(read, newest, told);
    view! {
        {page_head("Activity", when(move || read.with(|r| r.data.is_some()), move || export(read)))}
        {problems(own_problem(read), kept(read))}
        {incidents::waiting(Memo::new(|_| true))}
        {monitor(read)}
        {when(move || read.with(|r| r.data.is_some()), move || all_incidents(read))}
        {older(|data| (data.incidents.len(), data.incidents_total))}
        {when(move || read.with(|r| r.data.is_some()), move || restores(read))}
        {older(|data| (data.restores.len(), data.restores_total))}
        {when(move || read.with(|r| r.data.is_some()), move || acts(read))}
        {older(|data| (data.acts.len(), data.acts_total))}
    }
}

/// How many of a list are told, and a button for more, where there are more.
fn older(read: Read, newest: RwSignal<u64>, told: fn(&Activity) -> (usize, u64)) -> AnyView {
    let some = Memo::new(move |_| read.with(|r| r.data.as_ref().map(told)));
    maybe(move || {
        let (told, total) = some.get().filter(|(told, total)| (*told as u64) < *total)?;
        Some(view! {
            <p class="older">
                {format!("The newest {} of {}. ", format::count(told as u64), format::count(total))}
                <button
                    type="button"
                    class="button"
                    data-testid="older"
                    on:click=move |_| newest.update(|newest| *newest += OLDER)
                >
                    "Show older"
                </button>
            </p>
        })
    })
}

/// All of it, as the host tells it.
fn export(read: Read) -> AnyView {
    let session = session();
    let save = move |_| {
        let session = session.clone();
        until_cleanup(Box::pin(async move {
            match session.host.activity_text().await {
                Ok(text) => browser::download("retinker-activity.json", &text),
                Err(problem) => read.update(|r| r.problem = Some(problem)),
            }
        }));
    };
    view! {
        <button type="button" class="button" data-testid="activity-export" on:click=save>
            "Save as JSON"
        </button>
    }
}

/// Whether restores begin by themselves, and the switch for it.
fn monitor(read: Read) -> AnyView {
    let state = Memo::new(move |_| read.with(|r| r.data.as_ref().map(|data| data.monitor.clone())));
    maybe(move || state.get().map(|state| monitor_panel(&state, read)))
}

fn monitor_panel(state: &MonitorState, read: Read) -> AnyView {
    let gate = state.gate;
    let busy = RwSignal::new(false);
    let session = session();
    let turn = move |_| {
        if busy.get_untracked() {
            return;
        }
        busy.set(true);
        let session = session.clone();
        let next = if gate == Gate::Open { Gate::Paused } else { Gate::Open };
        until_cleanup(Box::pin(async move {
            match session.host.set_monitor(next).await {
                Ok(state) => read.update(|r| {
                    if let Some(data) = &mut r.data {
                        data.monitor = state;
                    }
                }),
                Err(problem) => read.update(|r| r.problem = Some(problem)),
            }
            busy.set(false);
        }));
    };
    let name = if gate == Gate::Open { "Pause restores" } else { "Resume restores" };
    view! {
        <section class="note monitor" aria-label="Automatic restores" data-testid="monitor" data-gate=activity::gate_name(gate)>
            <div>
                <strong>{activity::monitor_heading(state)}</strong>
                <span class="quiet">{activity::monitor_detail(state)}</span>
            </div>
            <button type="button" class="button" data-testid="monitor-toggle" disabled=flag(move || busy.get()) on:click=turn>
                {name}
            </button>
        </section>
    }
}

fn all_incidents(read: Read) -> AnyView {
    let none = move || read.with(|r| r.data.as_ref().is_some_and(|data| data.incidents.is_empty()));
    let list = each(
        move || told_of(read, |data| &data.incidents, incident_key),
        move |key: String| one_of(read, |data| &data.incidents, incident_key, key, incident),
    );
    view! {
        <section class="block" aria-labelledby="incidents-title">
            <h2 id="incidents-title">"Incidents"</h2>
            {when(none, || {
                view! { <p class="empty" data-testid="no-incidents">"No run has been seen to lose its state."</p> }
            })}
            <ul class="incidents">{list}</ul>
        </section>
    }
}

fn incident_key(incident: &Incident) -> String {
    format!("{} {}", incident.first.as_millis(), incident.run_ids.first().map_or("", String::as_str))
}

fn act_key(act: &Act) -> String {
    let of = act.subjects.first().map_or("", String::as_str);
    format!("{} {} {} {of}", act.at.as_millis(), act.by, act.what)
}

/// The names of a list's lines: what is new comes above them, and what is open of one stays open.
fn told_of<T>(read: Read, list: fn(&Activity) -> &Vec<T>, key: fn(&T) -> String) -> Vec<String> {
    read.with(|r| r.data.iter().flat_map(list).map(key).collect())
}

/// The line of this name, as it is now.
fn one_of<T: Clone + PartialEq + Send + Sync + 'static>(
    read: Read,
    list: fn(&Activity) -> &Vec<T>,
    key: fn(&T) -> String,
    name: String,
    draw: fn(&T) -> AnyView,
) -> AnyView {
    let one =
        Memo::new(move |_| read.with(|r| r.data.iter().flat_map(list).find(|one| key(one) == name).cloned()));
    maybe(move || one.with(|one| one.as_ref().map(draw)))
}

fn incident(incident: &Incident) -> AnyView {
    let named: Vec<_> = incident
        .run_ids
        .iter()
        .map(|id| {
            view! {
                <li>
                    <a class="mono" href=run_address(id) title=id.clone()>
                        {format::short_id(id)}
                    </a>
                </li>
            }
        })
        .collect();
    let more = incident.count().saturating_sub(incident.run_ids.len());
    let more = (more > 0)
        .then(|| view! { <li class="quiet">{format!("and {} more", format::count(more as u64))}</li> });
    let span = if incident.first == incident.last {
        String::new()
    } else {
        format!(" until {}", clock(incident.last))
    };
    view! {
        <li class="incident" data-testid="incident">
            <p>
                {icon("poisoned")}
                <strong>{activity::incident_heading(incident)}</strong>
                " "
                {when_it_was(incident.first)}
                <span class="quiet">{span}</span>
            </p>
            <p>{activity::incident_detail(incident)}</p>
            <details>
                <summary>{activity::runs(incident.count())}</summary>
                <ul class="run-ids">{named} {more}</ul>
            </details>
        </li>
    }
}

/// What was done with checkpoints, sessions and monitors.
fn acts(read: Read) -> AnyView {
    let none = when(
        move || read.with(|r| r.data.as_ref().is_some_and(|data| data.acts.is_empty())),
        || view! { <p class="empty" data-testid="no-acts">"Nothing else has been done yet."</p> },
    );
    let list = each(
        move || told_of(read, |data| &data.acts, act_key),
        move |key: String| one_of(read, |data| &data.acts, act_key, key, act),
    );
    view! {
        <section class="block" aria-labelledby="acts-title">
            <h2 id="acts-title">"What else was done"</h2>
            {none}
            <ul class="incidents">{list}</ul>
        </section>
    }
}

fn act(act: &Act) -> AnyView {
    let which = activity::subjects(act).map(|heading| {
        let named = act.subjects.iter().map(|id| view! { <li class="mono break">{id.clone()}</li> });
        view! {
            <details>
                <summary>{heading}</summary>
                <ul class="run-ids">{named.collect::<Vec<_>>()}</ul>
            </details>
        }
    });
    let problem =
        act.problem.clone().map(|problem| view! { <p class="break">{icon("problem")}{problem}</p> });
    view! {
        <li class="incident act" data-testid="act">
            <p>
                <strong class="break">{act.what.clone()}</strong>
                " "
                {when_it_was(act.at)}
                " "
                <span class="quiet">{activity::on_behalf(act)}</span>
            </p>
            {problem}
            {which}
        </li>
    }
}

fn restores(read: Read) -> AnyView {
    const HEADS: [(&str, &str); 5] = [
        ("c-when", "Begun"),
        ("c-old", "Lost run"),
        ("c-new", "New run"),
        ("c-from", "From"),
        ("c-outcome", "How it stands"),
    ];
    let none = move || read.with(|r| r.data.as_ref().is_some_and(|data| data.restores.is_empty()));
    view! {
        <section class="block" aria-labelledby="restores-title">
            <h2 id="restores-title">"Restores"</h2>
            {when(none, || {
                view! { <p class="empty" data-testid="no-restores">"Nothing has been restored yet."</p> }
            })}
            {when(
                move || !none(),
                move || {
                    view! {
                        <div class="table-frame">
                            <table class="restores" role="table" aria-label="Restores" data-testid="restores-table">
                                <thead role="rowgroup">
                                    <tr role="row">{heads(&HEADS)}</tr>
                                </thead>
                                <tbody role="rowgroup">
                                    {each(
                                        move || told_of(read, |data| &data.restores, |one| one.id.clone()),
                                        move |id: String| one_of(read, |data| &data.restores, |one| one.id.clone(), id, line),
                                    )}
                                </tbody>
                            </table>
                        </div>
                    }
                },
            )}
        </section>
    }
}

fn line(record: &RestoreRecord) -> AnyView {
    let link = |id: &str| {
        view! {
            <a class="mono" href=run_address(id) title=id.to_owned()>
                {format::short_id(id)}
            </a>
        }
    };
    let new_run = record.new_run_id.as_deref().map(link);
    let failed = record.state == RestoreState::Failed;
    let cancel = (!record.state.is_settled())
        .then(|| cancel_button(record.id.clone(), Some(format::short_id(&record.plan.run_id))));
    let path = &record.plan.checkpoint.tinker_path;
    view! {
        <tr role="row" data-testid="restore-row" data-restore-id=record.id.clone() data-state=record.state.as_str()>
            <td role="cell" class="c-when" data-label="begun">
                {when_it_was(record.created_at)}
            </td>
            <td role="cell" class="c-old" data-label="lost run">
                {link(&record.plan.run_id)}
            </td>
            <td role="cell" class="c-new" data-label="new run">
                {new_run}
            </td>
            <td role="cell" class="c-from" data-label="from">
                <span class="mono" title=path.clone()>
                    {format::checkpoint_name(&record.plan.checkpoint.checkpoint_id).to_owned()}
                </span>
            </td>
            <td role="cell" class="c-outcome" class:failed=failed>
                {activity::outcome(record)}
                {cancel}
                {told_at(activity::plan_heading(record), words::plan(&record.plan), &activity::steps(record))}
            </td>
        </tr>
    }
}
