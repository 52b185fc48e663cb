//! Restoring many runs: all plans first, then exactly those, a few at a time.
//!
//! The state is the whole page's, so that it goes on while somebody looks at another part of the console.

use crate::prelude::*;
use futures_util::{StreamExt, stream};
use leptos::reactive::spawn_local;
use retinker::host::api::{ApiProblem, PLANS_AT_ONCE, PlannedRun};
use retinker::recovery::plan::RestorePlan;
use retinker::recovery::restore::RestoreState;
use retinker_console::address::run_address;
use retinker_console::bulk::{self, Stand};
use retinker_console::format::{self, checkpoint_name, counted};
use retinker_console::words;

use super::banner::problem_banner;
use super::dialog::dialog;
use super::more::{first_lines, more_lines};
use super::picker::{Choice, optimizer_choice, strategy_choice};
use super::progress::{cancel_button, cancel_one};
use super::reactive::{flag, maybe, part, text, when, word};
use super::restore::ask_until_settled;
use super::time::told_at;
use crate::live::{Session, session};
use crate::place::place;

/// Restores that are under way at once: enough to keep a service busy, few enough that a stop comes in time.
const AT_ONCE: usize = 8;
/// Names of runs that cannot be restored for one reason; the others are counted.
const NAMED: usize = 200;

/// What is being done about many runs. Cheap to copy.
#[derive(Clone, Copy)]
pub(crate) struct Bulk {
    pub(crate) open: RwSignal<bool>,
    /// The runs that were asked for, frozen when the dialog was opened.
    asked: RwSignal<Vec<String>>,
    choice: RwSignal<Choice>,
    /// Others were asked for while these were not over.
    passed_over: RwSignal<bool>,
    planned: RwSignal<Vec<PlannedRun>>,
    problem: RwSignal<Option<ApiProblem>>,
    /// Each run that is restored, in order; empty until somebody has confirmed.
    items: RwSignal<Vec<Item>>,
    stopped: RwSignal<bool>,
    /// All of it is to be cancelled, also what is being begun.
    cancelled: RwSignal<bool>,
    /// Somebody has seen what it came to.
    seen: RwSignal<bool>,
    /// Moves with each new question: answers to an older one are dropped.
    round: RwSignal<u32>,
}

#[derive(Debug, Clone, PartialEq)]
struct Item {
    plan: RestorePlan,
    name: String,
    stand: Stand,
}

impl Bulk {
    pub(crate) fn new() -> Self {
        Self {
            open: RwSignal::new(false),
            asked: RwSignal::default(),
            choice: RwSignal::new(Choice::usual()),
            passed_over: RwSignal::new(false),
            planned: RwSignal::default(),
            problem: RwSignal::default(),
            items: RwSignal::default(),
            stopped: RwSignal::new(false),
            cancelled: RwSignal::new(false),
            seen: RwSignal::new(true),
            round: RwSignal::new(0),
        }
    }

    fn is_over(self) -> bool {
        self.items.with(|items| items.iter().all(|item| item.stand.is_over()))
    }

    /// Whether this tab has restores to begin that it has not begun.
    pub(crate) fn has_more_to_begin(self) -> bool {
        !self.stopped.get_untracked()
            && self.items.with_untracked(|items| items.iter().any(|item| item.stand.is_waiting()))
    }

    fn set(self, at: usize, stand: Stand) {
        self.items.update(|items| {
            if let Some(item) = items.get_mut(at) {
                item.stand = stand;
            }
        });
    }
}

/// Opens the dialog on these runs; on what is under way, if that is not over.
pub(crate) fn ask_for_plans(session: &Session, ids: Vec<String>) {
    let bulk = session.bulk;
    if untrack(move || bulk.is_over()) {
        bulk.items.set(Vec::new());
        bulk.stopped.set(false);
        bulk.cancelled.set(false);
        bulk.passed_over.set(false);
        bulk.asked.set(ids);
        // Its plans are asked for with it.
        bulk.choice.set(Choice::usual());
    } else {
        bulk.passed_over.set(bulk.asked.with_untracked(|asked| *asked != ids));
    }
    bulk.open.set(true);
}

/// Asks for the plans of all runs, so many at a time.
fn plan(session: &Session) {
    let (session, bulk) = (session.clone(), session.bulk);
    bulk.round.update(|round| *round += 1);
    bulk.planned.set(Vec::new());
    bulk.problem.set(None);
    let (round, ids, choice) =
        (bulk.round.get_untracked(), bulk.asked.get_untracked(), bulk.choice.get_untracked());
    spawn_local(async move {
        for some in ids.chunks(PLANS_AT_ONCE) {
            let batch = choice.clone().batch(some.to_vec());
            let answer = session.host.plans(&batch).await;
            if bulk.round.get_untracked() != round {
                return;
            }
            match answer {
                Ok(batch) => bulk.planned.update(|planned| planned.extend(batch.runs)),
                Err(problem) => {
                    session.notice(&problem);
                    bulk.problem.set(Some(problem));
                    return;
                }
            }
        }
    });
}

/// Begins what was confirmed.
fn begin(session: &Session) {
    let bulk = session.bulk;
    let items: Vec<Item> = bulk.planned.with_untracked(|planned| {
        let plans = planned.iter().filter_map(|run| Some((run.plan.clone()?, run.name.clone())));
        plans.map(|(plan, name)| Item { plan, name, stand: Stand::Waits }).collect()
    });
    let plans: Vec<(usize, RestorePlan)> = items.iter().map(|item| item.plan.clone()).enumerate().collect();
    bulk.items.set(items);
    bulk.seen.set(false);
    let session = session.clone();
    spawn_local(async move {
        let restores = stream::iter(plans).map(|(at, plan)| restore(session.clone(), at, plan));
        restores.buffer_unordered(AT_ONCE).for_each(|()| std::future::ready(())).await;
        session.read_again();
    });
}

/// Restores one run, unless somebody has stopped it before its turn came.
async fn restore(session: Session, at: usize, plan: RestorePlan) {
    let bulk = session.bulk;
    if bulk.stopped.get_untracked() {
        return bulk.set(at, Stand::NotBegun);
    }
    bulk.set(at, Stand::Begins);
    match session.host.start(&plan).await {
        Ok(started) => {
            let id = started.restore.id.clone();
            session.remember(started.restore);
            bulk.set(at, Stand::UnderWay(id.clone()));
            // One that refuses goes on, and its line has a button of its own.
            if bulk.cancelled.get_untracked() {
                let _ = cancel_one(&session, &id).await;
            }
            ask_until_settled(session.clone(), id.clone()).await;
            let end = match session.restore(&id) {
                Some(record) if record.state == RestoreState::Failed => {
                    Stand::Failed(record.error.unwrap_or_else(|| "It is not told why.".to_owned()))
                }
                Some(record) if record.state == RestoreState::Cancelled => Stand::Cancelled,
                record => Stand::restored(record.as_ref()),
            };
            bulk.set(at, end);
        }
        Err(problem) => {
            session.notice(&problem);
            bulk.set(at, Stand::Failed(format!("{} {}", problem.message, problem.hint)));
        }
    }
}

/// The dialog, and the way back to it while restores go on behind it.
pub(crate) fn bulk_dialog() -> AnyView {
    let session = session();
    let bulk = session.bulk;
    let title = text(move || format!("Restore {}", counted(bulk.asked.with(Vec::len) as u64, "run", "runs")));
    let begun = Memo::new(move |_| bulk.items.with(|items| !items.is_empty()));
    // Nobody waits for plans any more.
    Effect::new(move |_| {
        if !bulk.open.get() {
            bulk.round.update(|round| *round += 1);
        }
    });
    // A link in it leads to a page behind it.
    let path = place().path;
    Effect::new(move |before: Option<String>| {
        let now = path.get();
        if before.is_some_and(|before| before != now) {
            bulk.open.set(false);
        }
        now
    });
    dialog(bulk.open, title, "bulk-dialog", move || {
        part(move || if begun.get() { running(bulk) } else { plans_shown(bulk) })
    })
}

/// A word in the header while restores go on and the dialog is closed, and until somebody has seen what they came to.
pub(crate) fn bulk_chip() -> AnyView {
    let bulk = session().bulk;
    maybe(move || {
        if bulk.open.get() && bulk.is_over() {
            bulk.seen.set(true);
        }
        (!bulk.open.get() && !bulk.seen.get()).then(|| {
            let done = text(move || bulk.items.with(|items| bulk::progress(items.iter().map(|item| &item.stand))));
            view! {
                <button type="button" class="button" data-testid="bulk-chip" on:click=move |_| bulk.open.set(true)>
                    {done}
                </button>
            }
        })
    })
}

/// What would happen, before anything does.
fn plans_shown(bulk: Bulk) -> AnyView {
    let session = session();
    let (again, starter) = (session.clone(), session.clone());
    let outlook = text(move || {
        let asked = bulk.asked.with(Vec::len);
        let broke_off = bulk.problem.with(Option::is_some);
        bulk.planned.with(|planned| bulk::outlook(planned, asked, broke_off))
    });
    let can = Memo::new(move |_| {
        let asked = bulk.asked.with(Vec::len);
        bulk.planned.with(|planned| match planned.len() < asked {
            true => None,
            false => Some(planned.iter().filter(|run| run.plan.is_some()).count() as u64),
        })
    });
    Effect::new(move |_| {
        bulk.choice.track();
        plan(&session);
    });
    let locked = RwSignal::new(false);
    let problem = maybe(move || {
        let again = again.clone();
        // Of the batch, or of a run in it: the first stands for all, since most of the time it is the service's.
        let of_run = bulk.planned.with(|planned| planned.iter().find_map(|run| run.problem.clone()));
        let problem = bulk.problem.get().or(of_run)?;
        Some(problem_banner(problem, String::new(), "Try again", move || plan(&again)))
    });
    let shown = first_lines();
    let list = part(move || {
        let lines: Vec<_> = bulk.planned.with(|planned| {
            planned
                .iter()
                .filter_map(|run| Some(plan_line(&run.name, run.plan.as_ref()?)))
                .take(shown.get())
                .collect()
        });
        lines.into_any()
    });
    let more = more_lines(move || can.get().unwrap_or_default() as usize, shown);
    let refused = part(move || {
        let lines: Vec<_> =
            bulk.planned.with(|planned| bulk::refusals(planned)).into_iter().map(refusal).collect();
        lines.into_any()
    });
    let confirm = text(move || match can.get() {
        Some(can) => format!("Restore {}", counted(can, "run", "runs")),
        None if bulk.problem.with(Option::is_some) => "Restore".to_owned(),
        None => "Planning\u{2026}".to_owned(),
    });
    view! {
        <div class="plan bulk">
            <p role="status" data-testid="bulk-outlook">
                {outlook}
            </p>
            <ul class="bulk-list" data-testid="bulk-plans" tabindex="0" aria-label="Plans">
                {list}
            </ul>
            {more}
            {refused}
            {strategy_choice(bulk.choice, locked)}
            {optimizer_choice(bulk.choice, locked)}
            <footer class="plan-foot">
                {problem}
                <div class="actions">
                    <button type="button" class="button" on:click=move |_| bulk.open.set(false)>
                        "Cancel"
                    </button>
                    <button
                        type="button"
                        class="button primary"
                        data-testid="confirm-bulk"
                        disabled=flag(move || can.get().is_none_or(|can| can == 0))
                        on:click=move |_| begin(&starter)
                    >
                        {confirm}
                    </button>
                </div>
            </footer>
        </div>
    }
}

fn plan_line(name: &str, plan: &RestorePlan) -> AnyView {
    view! {
        <li data-run-id=plan.run_id.clone()>
            <strong>
                <bdi>{name.to_owned()}</bdi>
            </strong>
            " from "
            <span class="mono" title=plan.checkpoint.tinker_path.clone()>
                {checkpoint_name(&plan.checkpoint.checkpoint_id).to_owned()}
            </span>
            <span class="quiet block">{plan.lost.summary.clone()}</span>
            {told_at("Why, and what was looked at".to_owned(), words::plan(plan), &[])}
        </li>
    }
}

fn refusal((reason, names): (String, Vec<String>)) -> AnyView {
    let heading = format!("{}: {reason}", counted(names.len() as u64, "run", "runs"));
    let names: Vec<_> =
        names.into_iter().take(NAMED).map(|name| view! { <li><bdi>{name}</bdi></li> }).collect();
    view! {
        <details class="rejected" data-testid="bulk-refused">
            <summary>{heading}</summary>
            <ul>{names}</ul>
        </details>
    }
}

/// How the restores go on.
fn running(bulk: Bulk) -> AnyView {
    let told = text(move || bulk.items.with(|items| bulk::progress(items.iter().map(|item| &item.stand))));
    let over = Memo::new(move |_| bulk.is_over());
    let session = StoredValue::new(session());
    let many = bulk.items.with_untracked(Vec::len);
    let shown = first_lines();
    let lines = move || {
        bulk.items.with(|items| {
            // While something goes on each stays where it is: somebody may be about to cancel one.
            let order: Vec<usize> = match over.get() {
                true => bulk::order(items.iter().map(|item| &item.stand)),
                false => (0..items.len()).collect(),
            };
            order.into_iter().take(shown.get()).map(|at| at as u64)
        })
    };
    // Each line is drawn again when it is another: the others keep what was pressed and said there.
    let list = each(lines, move |at: u64| {
        let item = Memo::new(move |_| bulk.items.with(|items| items.get(at as usize).cloned()));
        maybe(move || item.get().map(|item| item_line(&item)))
    });
    let more = more_lines(move || many, shown);
    let done = text(move || {
        bulk.items.with(|items| items.iter().filter(|item| item.stand.is_over()).count()).to_string()
    });
    let stop = when(
        move || !over.get(),
        move || {
            view! {
                <p class="quiet">
                    "At most eight go on at once. Those that have begun are finished by the host; the others are begun by \
                     this tab, so leave it open."
                </p>
                <div class="actions">
                    <button
                        type="button"
                        class="button"
                        data-testid="bulk-stop"
                        disabled=bulk.stopped.signal()
                        on:click=move |_| bulk.stopped.set(true)
                    >
                        {word(move || Some(if bulk.stopped.get() { "Stopping\u{2026}" } else { "Begin no more" }))}
                    </button>
                    <button type="button" class="button" data-testid="bulk-cancel" on:click=move |_| cancel_all(&session.get_value())>
                        "Cancel all"
                    </button>
                </div>
            }
        },
    );
    view! {
        <div class="plan bulk">
            <p role="status" data-testid="bulk-progress">
                {told}
            </p>
            {when(
                move || bulk.passed_over.get() && !over.get(),
                || view! { <p class="note">"These go on. Ask for the others again when they are over."</p> },
            )}
            <progress max=many.to_string() value=done aria-label="Restores that are over"></progress>
            <ul class="bulk-list" tabindex="0" aria-label="Restores">
                {list}
            </ul>
            {more}
            {stop}
        </div>
    }
}

/// Begins no more, and cancels those that are under way.
fn cancel_all(session: &Session) {
    session.bulk.stopped.set(true);
    session.bulk.cancelled.set(true);
    let begun: Vec<String> = session.bulk.items.with_untracked(|items| {
        let begun = items.iter().filter_map(|item| match &item.stand {
            Stand::UnderWay(id) => Some(id.clone()),
            _ => None,
        });
        begun.collect()
    });
    let session = session.clone();
    spawn_local(async move {
        for id in begun {
            // One that refuses goes on, and its line has a button of its own.
            let _ = cancel_one(&session, &id).await;
        }
    });
}

fn item_line(Item { plan, name, stand }: &Item) -> AnyView {
    let detail = match stand {
        Stand::Restored { run_id, verdicts } if !run_id.is_empty() => view! {
            <a class="mono" href=run_address(run_id)>{format::short_id(run_id)}</a>
            <span class="quiet block">{verdicts.clone()}</span>
        },
        Stand::UnderWay(id) => cancel_button(id.clone(), Some(name.clone())),
        Stand::Failed(why) => view! { <span class="quiet block">{why.clone()}</span> },
        _ => ().into_any(),
    };
    view! {
        <li class="bulk-item" data-testid="bulk-item" data-run-id=plan.run_id.clone() data-stand=stand.as_str()>
            <strong>
                <bdi>{name.clone()}</bdi>
            </strong>
            " "
            <span>{stand.word()}</span>
            " "
            {detail}
        </li>
    }
}
