//! Several runs side by side: their curves over each other, and in what they differ.

use std::time::Duration;

use crate::prelude::*;
use retinker::direction::isolated;
use retinker::host::api::{ApiProblem, RunDetail};
use retinker_console::address::{at, run_address};
use retinker_console::compare::{MOST, address, differences, read};
use retinker_console::format;

use crate::components::banner::{kept, problems};
use crate::components::curves::{Look, Wanted, follow, panel, swatch};
use crate::components::icon::icon;
use crate::components::page_head::{self, page_head};
use crate::components::reactive::{maybe, nothing, part, text};
use crate::components::status::health_badge;
use crate::live::{Loaded, load, session, slowly};
use crate::place::place;

type Runs = RwSignal<Loaded<Vec<Result<RunDetail, ApiProblem>>>>;
/// Those that are there.
type Found = Memo<Vec<RunDetail>>;

/// The runs are read again no sooner than this: each takes the service several answers.
const EVERY: Duration = Duration::from_secs(10);

/// The page `/compare?run=A&run=B`.
pub(crate) fn compare_page() -> AnyView {
    let session = session();
    let query = place().query;
    let asked = Memo::new(move |_| read(&query.get()));
    let ids = Memo::new(move |_| asked.get().0);
    let runs: Runs = load(ids, slowly(session.any_change, EVERY), true, |host, ids: Vec<String>| {
        Box::pin(async move {
            let mut runs = Vec::with_capacity(ids.len());
            for id in &ids {
                match host.run(id).await {
                    // One that is not there is told beside the others.
                    Err(problem) if problem.code != "run_not_found" => return Err(problem),
                    answer => runs.push(answer),
                }
            }
            Ok(runs)
        })
    });
    // What was read before is on the page until what is asked for by now was: of that, no more than is asked for.
    let found: Found = Memo::new(move |_| {
        let ids = ids.get();
        let is_asked_for = |run: &&RunDetail| ids.contains(&run.row.run.training_run_id);
        runs.with(|r| r.data.iter().flatten().flatten().filter(is_asked_for).cloned().collect())
    });
    let wanted = Memo::new(move |_| {
        let run_ids: Vec<String> =
            found.with(|found| names_of(found)).into_iter().map(|(id, _)| id).collect();
        // What a run loses, its curve loses too.
        let edition = found.with(|found| {
            let healths = found.iter().map(|run| run.row.verdict.health as u64);
            healths.fold(0_u64, |edition, health| edition.wrapping_mul(8).wrapping_add(health))
        });
        Wanted { live: run_ids.len(), run_ids, edition }
    });
    let curves = follow(wanted, session.any_change);
    let own = Signal::derive(move || {
        let read = runs.with(|r| {
            let lost = r.data.iter().flatten().filter_map(|run| run.as_ref().err().cloned());
            r.problem.clone().into_iter().chain(lost).collect::<Vec<_>>()
        });
        read.into_iter().chain(curves.problem.get()).collect::<Vec<_>>()
    });
    let kept = kept(runs);
    let names = Signal::derive(move || {
        found.with(|found| names_of(found)).into_iter().map(|(_, name)| name).collect()
    });
    let look = Look::new(Memo::new(move |_| curves.all.get()), names);
    let told = text(move || match asked.with(|(runs, more)| (runs.len(), *more)) {
        (0, _) => String::new(),
        (count, true) => {
            format!("The first {count} of those asked for: more than {MOST} lines cannot be told apart.")
        }
        (count, false) => format::counted(count as u64, "run", "runs"),
    });
    let body = part(move || {
        if ids.with(Vec::is_empty) {
            return nobody();
        }
        view! {
            {legend(found, ids)}
            {panel(curves, look, part(nothing))}
            {table(found)}
        }
    });
    view! {
        <nav class="trail" aria-label="Way back">
            <a href=at("/")>{icon("back")} "All runs"</a>
        </nav>
        {page_head("Compare runs", page_head::total("compare-count", told))}
        {problems(own, kept)}
        <div class="compare">{body}</div>
    }
}

/// The runs that are there: id, and name for people. Two of one name are told apart by their ids, which stand
/// apart from the name, whatever direction that is written in.
fn names_of(runs: &[RunDetail]) -> Vec<(String, String)> {
    let found: Vec<_> = runs.iter().map(|run| (&run.row.run.training_run_id, &run.row.name)).collect();
    let told = |(id, name): &(&String, &String)| {
        let twice = found.iter().filter(|other| other.1 == *name).count() > 1;
        let short = format::short_id(id);
        let name =
            if twice && *name != *id { format!("{} {short}", isolated(name)) } else { (*name).clone() };
        ((*id).clone(), name)
    };
    found.iter().map(told).collect()
}

fn nobody() -> AnyView {
    view! {
        <section class="lonely" data-testid="compare-empty">
            <h2>"No runs were chosen"</h2>
            <p>"Choose up to " {MOST} " runs in the list, or open a restored run and compare it with the one it replaces."</p>
            <p>
                <a class="button primary" href=at("/")>
                    "All runs"
                </a>
            </p>
        </section>
    }
}

/// Which line is which run, with a way to it and a way to leave it out.
fn legend(found: Found, ids: Memo<Vec<String>>) -> AnyView {
    let items = part(move || {
        let all = ids.get();
        found.with(|found| {
            let named = names_of(found).into_iter().zip(found);
            let items = named.enumerate().map(|(index, ((id, name), run))| {
                let others = address(all.iter().filter(|other| **other != id).map(String::as_str));
                let leave = format!("Leave out {name}");
                view! {
                    <li data-run-id=id.clone()>
                        {swatch(index)}
                        <a class="break" href=run_address(&id) title=id.clone()>
                            <bdi>{name}</bdi>
                        </a>
                        {health_badge(run.row.verdict.health)}
                        <a class="copy" href=others title=leave.clone() aria-label=leave>
                            {icon("cross")}
                        </a>
                    </li>
                }
            });
            items.collect::<Vec<_>>().into_any()
        })
    });
    view! {
        <ul class="legend" data-testid="compare-legend">
            {items}
        </ul>
    }
}

/// The fields in which the runs differ.
fn table(found: Found) -> AnyView {
    let body = maybe(move || {
        found.with(|found| {
            if found.len() < 2 {
                return None;
            }
            let all: Vec<&RunDetail> = found.iter().collect();
            let (different, same) = differences(&all);
            let lines: Vec<_> =
                different.into_iter().map(|(field, values)| difference(&field, values)).collect();
            let heads: Vec<_> = found
                .iter()
                .enumerate()
                .map(|(index, run)| {
                    view! {
                        <th scope="col">
                            {swatch(index)} <bdi class="break">{run.row.name.clone()}</bdi>
                        </th>
                    }
                })
                .collect();
            let same = match (lines.len(), same) {
                (0, _) => "They do not differ in anything that the service tells.".to_owned(),
                (_, same) => {
                    format!("{} the same in all.", format::counted(same as u64, "field is", "fields are"))
                }
            };
            Some(view! {
                <section class="panel">
                    <h2>"In what they differ"</h2>
                    <div class="table-frame wide" role="region" aria-label="Differences" tabindex="0">
                        <table class="differences" data-testid="compare-differences">
                            <thead>
                                <tr>
                                    <th scope="col">"Field"</th>
                                    {heads}
                                </tr>
                            </thead>
                            <tbody>{lines}</tbody>
                        </table>
                    </div>
                    <p class="quiet">{same}</p>
                </section>
            })
        })
    });
    body.into_any()
}

fn difference(field: &str, values: Vec<String>) -> AnyView {
    let cells: Vec<_> = values
        .into_iter()
        .map(|value| {
            let value = if value.is_empty() { "–".to_owned() } else { value };
            let title = value.clone();
            view! { <td class="break"><bdi title=title>{value}</bdi></td> }
        })
        .collect();
    view! {
        <tr>
            <th scope="row" class="break">
                <bdi>{format::named(field).to_owned()}</bdi>
            </th>
            {cells}
        </tr>
    }
}
