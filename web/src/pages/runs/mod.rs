//! The list of runs.

mod grid;
mod line;
mod list;
mod reading;
mod selected;
mod states;
mod tools;
mod triage;

use crate::prelude::*;
use retinker::host::api::ApiProblem;
use retinker::recovery::health::Health;
use retinker_console::address::View;
use retinker_console::format;

use crate::browser;
use crate::components::banner::{ASKED_BEFORE, problem_banner, problems};
use crate::components::incidents;
use crate::components::reactive::{maybe, text, when};
use crate::components::time::clock;
use crate::place::place;
use list::List;

/// The page `/`.
pub(crate) fn runs_page() -> AnyView {
    let place = place();
    let shown = Memo::new(move |_| place.query.with(|query| View::read(query)));
    let list = List::new(shown);
    reading::follow(list);
    Effect::new(move |_| {
        if let Some((address, replace)) = list.goto.get() {
            place.go(&address, replace);
        }
    });
    Effect::new(move |_| {
        browser::set_title(match shown.with(|shown| shown.health) {
            Some(Health::Poisoned) => "Poisoned runs",
            Some(Health::Unrecoverable) => "Unrecoverable runs",
            Some(Health::Stalled) => "Stalled runs",
            Some(Health::AtRisk) => "Runs at risk",
            Some(Health::Recovered) => "Recovered runs",
            Some(Health::Healthy) => "Healthy runs",
            None => "Runs",
        });
    });
    let total = text(move || {
        // A list that was never read has no total, not one of nought.
        list.held.with(|held| {
            held.whole()
                .filter(|whole| whole.as_of.is_some())
                .map_or_else(String::new, |whole| format::matching(whole.matching, whole.total))
        })
    });
    let own_problems = Signal::derive(move || {
        let of_list = list.held.with(|held| held.whole().and_then(|whole| whole.problem.clone()));
        list.problem.get().into_iter().chain(of_list).collect::<Vec<ApiProblem>>()
    });
    let refused = maybe(move || {
        let problem = list.refused.get()?;
        Some(problem_banner(problem, String::new(), "Close", move || list.refused.set(None)))
    });
    let kept = text(move || {
        list.held.with(|held| match held.whole().and_then(|whole| whole.as_of) {
            Some(as_of) if held.matching() > 0 => match shown.with(|shown| held.is_of(shown)) {
                true => format!("The list below is that of {}.", clock(as_of)),
                false => ASKED_BEFORE.to_owned(),
            },
            _ => String::new(),
        })
    });
    // Counts are those of what the text lets through: of the others it is asked.
    let several = Memo::new(move |_| {
        list.held.with(|held| held.whole().is_some_and(|whole| whole.counts.poisoned > 1))
            || shown.with(|shown| !shown.q.is_empty())
    });
    let there = move || list.held.with(|held| held.whole().is_some());
    view! {
        <div class="runs-page">
            <header class="page-head">
                <h1 id="page-title" tabindex="-1">
                    "Runs"
                </h1>
                <p class="shown" role="status" data-testid="runs-total">
                    {total}
                </p>
            </header>
            {problems(own_problems, kept)}
            {refused}
            {states::demo_note()}
            {incidents::waiting(several)}
            {triage::triage(list)}
            {tools::tools(list)}
            {when(move || !there(), move || states::waiting(list))}
            {when(there, move || grid::grid(list))}
            {selected::selected(list)}
        </div>
    }
}
