//! Runs that failed together are one thing to deal with; several such things are one banner.

use crate::prelude::*;
use retinker::recovery::incidents::Incident;
use retinker_console::address::at;
use retinker_console::{activity, format};

use super::bulk::ask_for_plans;
use super::icon::icon;
use super::reactive::maybe;
use super::time::when_it_was;
use crate::live::{load, session};

/// Incidents that the banner names; the page of what was done tells all of them.
const NAMED: usize = 3;

/// The incidents of which runs wait to be restored, the newest first, while `wanted`: most of the time there is nothing to
/// group, and nothing is asked for.
pub(crate) fn waiting(wanted: Memo<bool>) -> AnyView {
    let session = session();
    let found = load(wanted, session.any_change, true, |host, wanted: bool| {
        Box::pin(async move {
            match wanted {
                true => host.open_incidents().await,
                false => Ok(Vec::new()),
            }
        })
    });
    let open = Memo::new(move |_| {
        found.with(|found| {
            let open = found.data.iter().flatten().filter(|incident| incident.recoverable > 0);
            open.cloned().collect::<Vec<Incident>>()
        })
    });
    maybe(move || {
        let open = open.get();
        let ids: Vec<String> = open.iter().flat_map(|incident| incident.run_ids.iter().cloned()).collect();
        if !wanted.get() || ids.len() < 2 {
            return None;
        }
        let plan = |label: &str, testid: &'static str, class: &'static str, ids: Vec<String>| {
            let session = session.clone();
            let name = format!("{label} {}\u{2026}", format::count(ids.len() as u64));
            view! {
                <button type="button" class=class data-testid=testid on:click=move |_| ask_for_plans(&session, ids.clone())>
                    {name}
                </button>
            }
        };
        let told = match open.as_slice() {
            [one] => view! {
                <strong>{activity::waiting_heading(one)}</strong>
                " "
                {when_it_was(one.first)}
                <p class="quiet">{activity::incident_cause(one)}</p>
            },
            _ => {
                let lines: Vec<_> = open
                    .iter()
                    .take(NAMED)
                    .map(|one| {
                        view! {
                            <li>
                                {plan("Plan", "plan-incident", "button", one.run_ids.clone())}
                                <span>
                                    {when_it_was(one.first)} " "
                                    <span class="quiet">{activity::incident_cause(one)}</span>
                                </span>
                            </li>
                        }
                    })
                    .collect();
                let more = open.len().saturating_sub(NAMED);
                let more = (more > 0).then(|| {
                    view! { <a href=at("/activity")>{format!("and {more} more")}</a> }
                });
                view! {
                    <strong>{activity::all_waiting_heading(ids.len(), open.len())}</strong>
                    <ul>{lines}</ul>
                    {more}
                }
            }
        };
        let all = plan("Plan all", "plan-all", "button primary", ids);
        Some(view! {
            <section class="note incident-note" aria-label="Runs that wait" data-testid="incident-banner">
                {icon("poisoned")}
                <div>{told}</div>
                {all}
            </section>
        })
    })
}
