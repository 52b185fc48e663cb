//! How many runs of each health there are.

use crate::prelude::*;
use retinker::recovery::health::Health;
use retinker_console::{format, words};

use super::list::List;
use crate::components::icon::icon;
use crate::components::reactive::{flag, text, word};

/// How many runs of each health; each count is a filter.
pub(super) fn triage(list: List) -> AnyView {
    let filters: Vec<_> =
        Health::ALL.into_iter().map(Some).chain([None]).map(|health| filter(health, list)).collect();
    view! {
        <nav aria-label="Runs by health">
            <ul class="triage">{filters}</ul>
        </nav>
    }
}

fn filter(health: Option<Health>, list: List) -> AnyView {
    let count = Signal::derive(move || {
        list.held.with(|held| {
            held.whole().filter(|whole| whole.as_of.is_some()).map(|whole| match health {
                Some(health) => whole.counts.get(health),
                None => Health::ALL.into_iter().map(|health| whole.counts.get(health)).sum(),
            })
        })
    });
    let name = health.map_or("all", Health::as_str);
    view! {
        <li>
            <a
                href=text(move || list.shown.with(|shown| shown.with_health(health).to_address()))
                class=format!("filter filter-{name}")
                class:none=flag(move || count.get().unwrap_or(0) == 0)
                data-testid=format!("health-filter-{name}")
                data-noscroll=""
                aria-current=word(move || list.shown.with(|shown| shown.health == health).then_some("true"))
                title=health.map(words::health_meaning)
            >
                <span class="filter-count">
                    {text(move || count.get().map_or_else(|| "–".to_owned(), format::count))}
                </span>
                <span class="filter-name">
                    {health.map(|health| icon(health.as_str()))} {health.map_or("All", words::health)}
                </span>
            </a>
        </li>
    }
}
