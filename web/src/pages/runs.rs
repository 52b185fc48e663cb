//! The list of runs.

use std::time::Duration;

use leptos::prelude::*;
use leptos_router::NavigateOptions;
use leptos_router::hooks::{use_location, use_navigate};
use retinker::host::api::{ApiProblem, RunRow, RunSort, RunWindow};
use retinker::host::query;
use retinker::recovery::health::Health;
use retinker_console::address::{PAGE, View, read_sort, run_address, sort_name};
use retinker_console::{format, words};

use crate::browser;
use crate::components::banner::problems;
use crate::components::copy::copy_button;
use crate::components::heads::heads;
use crate::components::icon::icon;
use crate::components::reactive::{flag, maybe, nothing, part, text, when, word};
use crate::components::status::health_badge;
use crate::components::time::{clock, expiry, when_it_was};
use crate::live::{Loaded, load, session, until_cleanup};

/// Typing asks for a new list this long after the last letter.
const TYPING: Duration = Duration::from_millis(200);

/// The page `/`.
pub(crate) fn runs_page() -> AnyView {
    let session = session();
    let location = use_location();
    let shown = Memo::new(move |_| View::read(&location.search.read()));
    let window: Window = load(shown, session.any_change, true, |host, shown: View| {
        Box::pin(async move { host.runs(&shown.to_query()).await })
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
        window.with(|w| {
            // A list that was never read has no total, not one of nought.
            let Some(data) = w.data.as_ref().filter(|data| data.as_of.is_some()) else {
                return String::new();
            };
            let offset = shown.with(|shown| shown.page.saturating_mul(PAGE));
            format::shown(offset, data.rows.len() as u64, data.matching, data.total)
        })
    });
    let own_problems = Signal::derive(move || {
        window.with(|w| {
            let of_list = w.data.as_ref().and_then(|data| data.problem.clone());
            w.problem.clone().into_iter().chain(of_list).collect::<Vec<ApiProblem>>()
        })
    });
    let kept = text(move || {
        window.with(|w| match w.data.as_ref() {
            Some(RunWindow { as_of: Some(as_of), rows, .. }) if !rows.is_empty() => {
                format!("The list below is that of {}.", clock(*as_of))
            }
            _ => String::new(),
        })
    });

    view! {
        <header class="page-head">
            <h1 id="page-title" tabindex="-1">
                "Runs"
            </h1>
            <p class="shown" role="status" data-testid="runs-total">
                {total}
            </p>
        </header>
        {problems(own_problems, kept)}
        {demo_note()}
        {triage(shown, window)}
        {tools(shown)}
        {when(move || window.with(|w| w.data.is_none()), move || waiting(window))}
        {when(move || window.with(|w| w.data.is_some()), move || table(shown, window))}
        {pager(shown, window)}
    }
    .into_any()
}

type Window = RwSignal<Loaded<RunWindow>>;

/// Before the first answer: a placeholder while it is awaited, and nothing that could be taken for an empty list
/// when it failed.
fn waiting(window: Window) -> AnyView {
    when(
        move || window.with(|w| w.problem.is_none()),
        || {
            view! {
                <div class="placeholder" role="status">
                    <span class="said">"Reading the runs…"</span>
                    <i></i>
                    <i></i>
                    <i></i>
                    <i></i>
                    <i></i>
                    <i></i>
                </div>
            }
            .into_any()
        },
    )
    .into_any()
}

/// What the demonstration does while it trains.
fn demo_note() -> AnyView {
    let status = session().status;
    maybe(move || {
        let demo = status.with(|s| s.data.as_ref().and_then(|status| status.demo.clone()))?;
        if !demo.running {
            return None;
        }
        let told = format!(
            "The demonstration is training: {} of {} steps",
            format::count(demo.steps_done.into()),
            format::count(demo.steps_total.into())
        );
        Some(
            view! {
                <section class="note demo" data-testid="demo-progress">
                    <div>
                        <strong>{told.clone()}</strong>
                        <span class="quiet">{demo.message}</span>
                    </div>
                    <progress
                        max=demo.steps_total.max(1).to_string()
                        value=demo.steps_done.to_string()
                        aria-label=told
                    ></progress>
                </section>
            }
            .into_any(),
        )
    })
    .into_any()
}

/// How many runs of each health; each count is a filter.
fn triage(shown: Memo<View>, window: Window) -> AnyView {
    let filters: Vec<_> =
        Health::ALL.into_iter().map(Some).chain([None]).map(|health| filter(health, shown, window)).collect();
    view! {
        <nav aria-label="Runs by health">
            <ul class="triage">{filters}</ul>
        </nav>
    }
    .into_any()
}

fn filter(health: Option<Health>, shown: Memo<View>, window: Window) -> AnyView {
    let count = Signal::derive(move || {
        window.with(|w| {
            w.data.as_ref().filter(|data| data.as_of.is_some()).map(|data| match health {
                Some(health) => data.counts.get(health),
                None => Health::ALL.into_iter().map(|health| data.counts.get(health)).sum(),
            })
        })
    });
    let name = health.map_or("all", Health::as_str);
    view! {
        <li>
            <a
                href=text(move || shown.with(|shown| shown.with_health(health).to_address()))
                class=format!("filter filter-{name}")
                class:none=flag(move || count.get().unwrap_or(0) == 0)
                data-testid=format!("health-filter-{name}")
                data-noscroll=""
                aria-current=word(move || shown.with(|shown| shown.health == health).then_some("true"))
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
    .into_any()
}

/// Text filter and order.
fn tools(shown: Memo<View>) -> AnyView {
    let session = session();
    let navigate = use_navigate();
    let typed = RwSignal::new(shown.with_untracked(|shown| shown.q.clone()));
    // Back, forward and links change the address; the field follows, unless it says the same already.
    Effect::new(move |_| {
        let q = shown.with(|shown| shown.q.clone());
        if typed.with_untracked(|typed| typed.trim() != q) {
            typed.set(q);
        }
    });
    let go = navigate.clone();
    Effect::new(move |_| {
        let text = typed.get();
        if shown.with_untracked(|shown| shown.q == text.trim()) {
            return;
        }
        let (session, go) = (session.clone(), go.clone());
        until_cleanup(Box::pin(async move {
            session.host.sleep(TYPING).await;
            let address = shown.with_untracked(|shown| shown.with_text(&text).to_address());
            go(&address, NavigateOptions { replace: true, scroll: false, ..NavigateOptions::default() });
        }));
    });
    let order = move |event| {
        let sort = read_sort(&event_target_value(&event)).unwrap_or_default();
        let address = shown.with_untracked(|shown| shown.with_sort(sort).to_address());
        navigate(&address, NavigateOptions { scroll: false, ..NavigateOptions::default() });
    };
    let options = [
        (RunSort::Health, "Worst first"),
        (RunSort::Activity, "Latest activity"),
        (RunSort::Name, "Name"),
    ]
    .into_iter()
    .map(|(sort, label)| {
        view! {
            <option value=sort_name(sort) prop:selected=flag(move || shown.with(|shown| shown.sort == sort))>
                {label}
            </option>
        }
    })
    .collect_view();
    view! {
        <form class="tools" role="search" on:submit=|event| event.prevent_default()>
            <label class="field grow">
                <span class="said">
                    "Filter by words, or by fields: health:poisoned, model:llama, rank>=16, age<2d, meta.team=x"
                </span>
                {icon("search")}
                <input
                    type="search"
                    data-testid="runs-search"
                    placeholder="Filter: words, health:poisoned, rank>=16, age<2d, meta.team=x"
                    list="runs-completions"
                    autocomplete="off"
                    spellcheck="false"
                    maxlength="200"
                    prop:value=typed
                    on:input=move |event| typed.set(event_target_value(&event))
                />
                <datalist id="runs-completions" data-testid="runs-completions">
                    {part(move || completions(&typed.get()))}
                </datalist>
            </label>
            <label class="field">
                <span class="field-name">"Order"</span>
                <select data-testid="runs-sort" on:change=order>
                    {options}
                </select>
            </label>
        </form>
    }
    .into_any()
}

/// The whole text with its last word completed in each way: a browser offers those that begin as the field does.
fn completions(typed: &str) -> AnyView {
    let blank = typed.char_indices().rfind(|(_, letter)| letter.is_whitespace());
    let before = blank.and_then(|(at, letter)| typed.get(..at + letter.len_utf8())).unwrap_or_default();
    let offered: Vec<_> = query::completions(typed)
        .into_iter()
        .map(|(word, meaning)| {
            view! { <option value=format!("{before}{word}")>{meaning}</option> }.into_any()
        })
        .collect();
    offered.into_any()
}

fn table(shown: Memo<View>, window: Window) -> AnyView {
    const HEADS: [(&str, &str); 8] = [
        ("c-status", "Health"),
        ("c-name", "Run"),
        ("c-model", "Base model"),
        ("c-rank number", "Rank"),
        ("c-activity", "Last activity"),
        ("c-checkpoint", "Last checkpoint"),
        ("c-expires", "Expires"),
        ("c-lineage", "Lineage"),
    ];
    let order = move || {
        window.with(|w| rows(w).iter().map(|row| row.run.training_run_id.clone()).collect::<Vec<_>>())
    };
    // The header counts as a row.
    let count = text(move || {
        window.with(|w| w.data.as_ref().map_or(0, |data| data.matching).saturating_add(1).to_string())
    });
    let busy = flag(move || window.with(|w| w.busy));
    view! {
        <div class="table-frame" class:busy=busy>
            <table
                class="runs"
                role="table"
                data-testid="runs-table"
                aria-label="Runs"
                aria-rowcount=count
                aria-busy=word(move || Some(if busy.get() { "true" } else { "false" }))
            >
                <thead role="rowgroup">
                    <tr role="row">{heads(&HEADS)}</tr>
                </thead>
                <tbody role="rowgroup">
                    <For
                        each=order
                        key=|id| id.clone()
                        children=move |id| {
                            line(
                                Memo::new(move |_| {
                                    window.with(|w| rows(w).iter().find(|row| row.run.training_run_id == id).cloned())
                                }),
                            )
                        }
                    />
                </tbody>
            </table>
            {when(move || window.with(|w| rows(w).is_empty()), move || no_rows(shown, window))}
        </div>
    }
    .into_any()
}

fn rows(window: &Loaded<RunWindow>) -> &[RunRow] {
    window.data.as_ref().map_or(&[], |data| &data.rows)
}

/// One run. Its cells change one by one, so that a refresh takes neither the focus nor a selection away.
fn line(row: Memo<Option<RunRow>>) -> AnyView {
    let cell = move |read: fn(&RunRow) -> String| {
        text(move || row.with(|row| row.as_ref().map(read).unwrap_or_default()))
    };
    let id = cell(|row| row.run.training_run_id.clone());
    let name = cell(|row| row.name.clone());
    let reason = cell(|row| row.verdict.reason.clone());
    let model = cell(|row| row.run.base_model.clone());
    let rank = cell(|row| row.run.lora_rank.map_or_else(|| "–".to_owned(), |rank| rank.to_string()));
    let address = cell(|row| run_address(&row.run.training_run_id));
    let short = cell(|row| format::short_id(&row.run.training_run_id));
    let health = move || row.with(|row| row.as_ref().map(|row| row.verdict.health));
    let activity = move || row.with(|row| row.as_ref().map(|row| row.run.last_request_time));
    let checkpoint = move || row.with(|row| row.as_ref().and_then(|row| row.run.last_checkpoint.clone()));
    // A memo, since the links must not be drawn anew (and lose the focus) when only the activity moved.
    let lineage = Memo::new(move |_| {
        row.with(|row| {
            row.as_ref()
                .map(|row| (row.restored_to.clone(), row.restored_from.clone(), row.restore_id.is_some()))
        })
    });
    let saved = part(move || match checkpoint() {
        Some(checkpoint) => view! {
            <span class="mono" title=checkpoint.tinker_path>
                {format::checkpoint_name(&checkpoint.checkpoint_id).to_owned()}
            </span>
            <span class="quiet">{when_it_was(checkpoint.time)}</span>
        }
        .into_any(),
        None => quiet("none"),
    });
    let expires = part(move || match checkpoint() {
        Some(checkpoint) => expiry(checkpoint.expires_at),
        None => quiet("–"),
    });
    view! {
        <tr
            role="row"
            data-testid="run-row"
            data-run-id=id
            data-health=word(move || health().map(Health::as_str))
        >
            <td role="cell" class="c-status" title=reason>
                {maybe(move || health().map(health_badge))}
            </td>
            <th role="rowheader" scope="row" class="c-name">
                <a href=address class="run-name" title=name>
                    {name}
                </a>
                <span class="run-id">
                    <span class="mono" title=id>
                        {short}
                    </span>
                    {copy_button(id, "the run's id")}
                </span>
            </th>
            <td role="cell" class="c-model" title=model>
                {model}
            </td>
            <td role="cell" class="c-rank number" data-label="rank">
                {rank}
            </td>
            <td role="cell" class="c-activity" data-label="active">
                {maybe(move || activity().map(when_it_was))}
            </td>
            <td role="cell" class="c-checkpoint" data-label="checkpoint">
                {saved}
            </td>
            <td role="cell" class="c-expires" data-label="expires">
                {expires}
            </td>
            <td role="cell" class="c-lineage">
                {maybe(move || lineage.get().map(|(to, from, under_way)| lineage_chips(to, from, under_way)))}
            </td>
        </tr>
    }
    .into_any()
}

fn quiet(text: &'static str) -> AnyView {
    view! { <span class="quiet">{text}</span> }.into_any()
}

fn lineage_chips(to: Option<String>, from: Option<String>, under_way: bool) -> AnyView {
    let restoring = (under_way && to.is_none()).then(|| {
        view! {
            <span class="chip">
                {icon("recovered")}
                <span>"restoring"</span>
            </span>
        }
    });
    let chip = |id: String, drawing: &str, word: &str, testid: &'static str| {
        view! {
            <a class="chip" href=run_address(&id) title=format!("Restored {word} {id}") data-testid=testid>
                {icon(drawing)}
                <span>{format!("{word} {}", format::short_id(&id))}</span>
            </a>
        }
    };
    view! {
        {restoring}
        {to.map(|to| chip(to, "forward", "as", "row-restored-to"))}
        {from.map(|from| chip(from, "back", "from", "row-restored-from"))}
    }
    .into_any()
}

/// Why the table has no rows. It says "no runs" only when the service has been read and has none.
fn no_rows(shown: Memo<View>, window: Window) -> AnyView {
    let status = session().status;
    let demo = flag(move || {
        status.with(|s| {
            s.data.as_ref().and_then(|status| status.demo.as_ref()).is_some_and(|demo| demo.running)
        })
    });
    let base_url = text(move || {
        status.with(|s| s.data.as_ref().map(|status| status.service.base_url.clone()).unwrap_or_default())
    });
    let what = Memo::new(move |_| {
        window.with(|w| {
            let data = w.data.as_ref()?;
            Some((data.total, data.as_of.is_some(), data.problem.is_some() || w.problem.is_some()))
        })
    });
    let say = |testid: &'static str, sentence: &'static str, link: Option<(String, &'static str)>| {
        view! {
            <p class="empty" role="status" data-testid=testid>
                {sentence}
                " "
                {link.map(|(address, name)| view! { <a href=address>{name}</a> })}
            </p>
        }
        .into_any()
    };
    part(move || match what.get() {
        None => nothing(),
        Some((0, false, true)) => {
            say("runs-unread", "The runs could not be read yet. This is not an empty list.", None)
        }
        Some((0, false, false)) => say("runs-reading", "The service is being read for the first time…", None),
        Some((0, true, _)) if demo.get() => {
            say("runs-demo", "The demonstration's first runs will be here in a moment.", None)
        }
        Some((0, true, _)) => view! {
            <div class="empty" data-testid="runs-empty">
                <p>
                    <strong>"This service has no training runs yet"</strong>
                </p>
                <p>
                    "Point a training program at it, and its runs are listed here as soon as they begin. For the \
                     official Python SDK:"
                </p>
                <pre>
                    <code>"TINKER_BASE_URL=" {base_url} " python train.py"</code>
                </pre>
            </div>
        }
        .into_any(),
        Some(_) if !shown.with(View::is_whole) => {
            let whole = shown.with(|shown| shown.with_health(None).with_text("").to_address());
            say("runs-no-match", "No run matches.", Some((whole, "Show all runs")))
        }
        Some(_) => {
            let first = shown.with(|shown| shown.with_page(0).to_address());
            say("runs-past-end", "The list ends before this page.", Some((first, "First page")))
        }
    })
    .into_any()
}

/// The way through a list longer than one page.
fn pager(shown: Memo<View>, window: Window) -> AnyView {
    let pages = Memo::new(move |_| {
        window.with(|w| w.data.as_ref().map_or(1, |data| data.matching.div_ceil(PAGE).max(1)))
    });
    maybe(move || {
        let (page, pages) = (shown.with(|shown| shown.page), pages.get());
        if pages <= 1 {
            return None;
        }
        let step = |to: Option<u64>, name: &'static str| match to {
            Some(to) => {
                let address = shown.with(|shown| shown.with_page(to).to_address());
                view! { <a class="button" href=address>{name}</a> }.into_any()
            }
            None => view! { <span class="button off">{name}</span> }.into_any(),
        };
        Some(
            view! {
                <nav class="pager" aria-label="Pages">
                    {step(page.checked_sub(1), "Previous")}
                    <span>
                        {format!("Page {} of {}", format::count(page.saturating_add(1)), format::count(pages))}
                    </span>
                    {step(page.checked_add(1).filter(|next| *next < pages), "Next")}
                </nav>
            }
            .into_any(),
        )
    })
    .into_any()
}
