//! Runs that failed together are one thing to deal with.

use crate::prelude::*;
use retinker_console::activity;

use super::list::List;
use crate::components::bulk::ask_for_plans;
use crate::components::icon::icon;
use crate::components::reactive::maybe;
use crate::components::time::when_it_was;
use crate::live::{load, session};

/// The newest incident of which more than one run waits to be restored.
pub(super) fn banner(list: List) -> AnyView {
    let session = session();
    // Asked for only when there are several: most of the time there is nothing to group.
    let poisoned =
        Memo::new(move |_| list.held.with(|held| held.whole().map_or(0, |whole| whole.counts.poisoned)));
    let several = Memo::new(move |_| poisoned.get() > 1);
    let found = load(several, session.any_change, true, |host, several: bool| {
        Box::pin(async move {
            match several {
                true => host.open_incidents().await,
                false => Ok(Vec::new()),
            }
        })
    });
    let newest = Memo::new(move |_| {
        found.with(|found| {
            let mut open = found.data.iter().flatten();
            open.find(|incident| incident.recoverable > 1).cloned()
        })
    });
    maybe(move || {
        let incident = newest.get().filter(|_| several.get())?;
        let session = session.clone();
        let ids = incident.run_ids.clone();
        let plan = move |_| ask_for_plans(&session, ids.clone());
        Some(view! {
            <section class="note incident-note" aria-label="Incident" data-testid="incident-banner">
                {icon("poisoned")}
                <div>
                    <strong>{activity::waiting_heading(&incident)}</strong>
                    " "
                    {when_it_was(incident.first)}
                    <p class="quiet">{activity::incident_cause(&incident)}</p>
                </div>
                <button type="button" class="button primary" data-testid="plan-all" on:click=plan>
                    {format!("Plan all {}\u{2026}", incident.count())}
                </button>
            </section>
        })
    })
}
