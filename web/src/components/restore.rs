//! The restore dialog: a plan is shown, exactly that plan is submitted, and its progress is followed.

use std::time::Duration;

use crate::prelude::*;
use leptos::reactive::spawn_local;
use retinker::host::api::{ApiProblem, CheckpointRow, PlanAnswer};
use retinker::recovery::plan::{Check, CheckOutcome, NoPlan, RejectedReason, RestorePlan, Strategy};
use retinker::recovery::restore::RestoreState;
use retinker::wire::run::CheckpointType;
use retinker_console::format::{checkpoint_name, counted, short_id};
use retinker_console::words;

use super::banner::problem_banner;
use super::dialog::dialog;
use super::icon::icon;
use super::picker::{Choice, checkpoint_picker};
use super::progress::restore_progress;
use super::reactive::{flag, maybe, part, text, when, word};
use super::time::when_it_was;
use crate::live::{Link, Session, session, until_cleanup};

/// A running restore is asked after this often: beside the event stream, and while there is none.
const ASK_WHEN_LIVE: Duration = Duration::from_secs(5);
const ASK_WHEN_BROKEN: Duration = Duration::from_millis(1500);

/// The restore that the dialog follows, and whether it had been under way before.
type Followed = RwSignal<Option<(String, bool)>>;

#[derive(Debug, Clone)]
enum Planning {
    Asking,
    Planned(Box<RestorePlan>),
    NoPlan(NoPlan),
    Failed(ApiProblem),
}

/// The dialog, on the page while `open` is true.
pub(crate) fn restore_dialog(
    run_id: Memo<String>,
    name: Memo<String>,
    checkpoints: Memo<Option<Vec<CheckpointRow>>>,
    open: RwSignal<bool>,
) -> AnyView {
    // Outside the part that goes when the dialog closes: whoever opens it again finds the restore that runs.
    let followed: Followed = RwSignal::new(None);
    Effect::new(move |before: Option<String>| {
        let now = run_id.get();
        if before.is_some_and(|before| before != now) {
            followed.set(None);
            open.set(false);
        }
        now
    });
    let session = session();
    Effect::new(move |_| {
        let Some((id, _)) = followed.get() else { return };
        until_cleanup(Box::pin(ask_until_settled(session.clone(), id)));
    });
    dialog(open, text(move || format!("Restore {}", name.get())), "restore-dialog", move || {
        part(move || match followed.get() {
            Some((id, already)) => running(id, already, followed),
            None => plan(
                run_id.get_untracked(),
                name,
                checkpoints.get_untracked().unwrap_or_default(),
                followed,
                open,
            ),
        })
    })
}

/// Keeps the session's account of a restore fresh until the restore is settled.
pub(crate) async fn ask_until_settled(session: Session, id: String) {
    while session.restore(&id).is_none_or(|restore| !restore.state.is_settled()) {
        let live = session.link.get_untracked() == Link::Live;
        session.host.sleep(if live { ASK_WHEN_LIVE } else { ASK_WHEN_BROKEN }).await;
        match session.host.restore(&id).await {
            Ok(restore) => session.remember(restore),
            Err(problem) => session.notice(&problem),
        }
    }
}

fn running(id: String, already: bool, followed: Followed) -> AnyView {
    let session = session();
    let restore = Signal::derive(move || session.restore(&id));
    let state = Memo::new(move |_| restore.with(|restore| restore.as_ref().map(|restore| restore.state)));
    let note = already.then(|| {
        view! {
            <p class="note" data-testid="already-under-way">
                "A restore of this run was already under way, so nothing new was started. This is that one."
            </p>
        }
    });
    let after = maybe(move || match state.get()? {
        RestoreState::Failed | RestoreState::Cancelled => Some(view! {
            <div class="actions">
                <button type="button" class="button primary" on:click=move |_| followed.set(None)>
                    "Make a new plan"
                </button>
            </div>
        }),
        state if state.is_settled() => None,
        _ => Some(view! {
            <p class="quiet">"The host does the work: closing this window or this tab does not stop it."</p>
        }),
    });
    view! {
        {note}
        {restore_progress(restore)}
        {after}
    }
}

fn plan(
    run_id: String,
    name: Memo<String>,
    checkpoints: Vec<CheckpointRow>,
    followed: Followed,
    open: RwSignal<bool>,
) -> AnyView {
    let session = session();
    let choice = RwSignal::new(Choice::usual());
    let again = RwSignal::new(0_u32);
    let planning = RwSignal::new(Planning::Asking);
    // The plan that is on the page: it stays, greyed, while another one is asked for.
    let shown = RwSignal::new(None::<RestorePlan>);
    let starting = RwSignal::new(false);
    let start_problem = RwSignal::new(None::<ApiProblem>);

    let asker = session.clone();
    Effect::new(move |_| {
        again.track();
        let request = choice.get().request(&run_id);
        planning.set(Planning::Asking);
        start_problem.set(None);
        let session = asker.clone();
        until_cleanup(Box::pin(async move {
            let answer = match session.host.plan(&request).await {
                Ok(PlanAnswer::Plan(plan)) => Planning::Planned(plan),
                Ok(PlanAnswer::None(answer)) => Planning::NoPlan(answer),
                Err(problem) => {
                    session.notice(&problem);
                    Planning::Failed(problem)
                }
            };
            shown.set(match &answer {
                Planning::Planned(plan) => Some((**plan).clone()),
                _ => None,
            });
            planning.set(answer);
        }));
    });

    let confirm = move |_| {
        let Planning::Planned(plan) = planning.get_untracked() else { return };
        if starting.get_untracked() {
            return;
        }
        starting.set(true);
        start_problem.set(None);
        let session = session.clone();
        // Not tied to the dialog: once confirmed, closing it must not take the request back.
        spawn_local(async move {
            match session.host.start(&plan).await {
                Ok(started) => {
                    let id = started.restore.id.clone();
                    session.remember(started.restore);
                    session.read_again();
                    let _ = followed.try_set(Some((id, started.already)));
                }
                Err(problem) => {
                    session.notice(&problem);
                    let _ = start_problem.try_set(Some(problem));
                    let _ = starting.try_set(false);
                }
            }
        });
    };
    let make_new = move || {
        choice.update(|choice| (choice.strategy, choice.step_back) = (Strategy::LatestValid, 0));
        again.update(|n| *n += 1);
    };
    let candidates: Vec<_> = checkpoints
        .into_iter()
        .filter(|row| row.checkpoint.checkpoint_type == CheckpointType::Training)
        .collect();
    let planned = text(move || {
        shown.with(|plan| plan.as_ref().map(|p| p.checkpoint.tinker_path.clone()).unwrap_or_default())
    });
    let asking = move || planning.with(|planning| matches!(planning, Planning::Asking));
    // A plan that the host called out of date would be refused again; after any other failure the same plan may be
    // sent once more, since the host starts it only once.
    let out_of_date =
        move || start_problem.with(|problem| problem.as_ref().is_some_and(|p| p.code == "plan_changed"));
    let not_ready = flag(move || {
        starting.get() || out_of_date() || !planning.with(|planning| matches!(planning, Planning::Planned(_)))
    });
    // Nothing can be chosen where no choice would help.
    let pointless = flag(move || {
        planning.with(|planning| {
            matches!(
                planning,
                Planning::NoPlan(
                    NoPlan::NoCheckpoint { .. } | NoPlan::NotPoisoned { .. } | NoPlan::AlreadyRestored { .. }
                )
            )
        })
    });
    let banner = move |problem: Option<ApiProblem>| {
        problem.map(|problem| problem_banner(problem, String::new(), "Make a new plan", make_new))
    };

    view! {
        <div class="plan" aria-busy=word(move || Some(if asking() { "true" } else { "false" }))>
            {when(
                move || shown.with(Option::is_none) && asking(),
                || {
                    view! {
                        <p class="quiet" role="status">
                            "Looking at the run and its checkpoints…"
                        </p>
                    }
                },
            )}
            {maybe(move || shown.get().map(|plan| plan_shown(plan, name)))}
            {maybe(move || match planning.get() {
                Planning::NoPlan(answer) => Some(no_plan(&answer, followed)),
                Planning::Failed(problem) => banner(Some(problem)),
                _ => None,
            })}
            <div class:gone=pointless>{checkpoint_picker(candidates, planned, choice, starting)}</div>
            <footer class="plan-foot">
            {maybe(move || banner(start_problem.get()))}
            <div class="actions">
                <button type="button" class="button" on:click=move |_| open.set(false)>
                    "Cancel"
                </button>
                <button
                    type="button"
                    class="button primary"
                    data-testid="confirm-restore"
                    disabled=not_ready
                    on:click=confirm
                >
                    {word(move || Some(if starting.get() { "Starting…" } else { "Restore as planned" }))}
                </button>
            </div>
            </footer>
        </div>
    }
}

/// The plan, in sentences.
fn plan_shown(plan: RestorePlan, name: Memo<String>) -> AnyView {
    let checkpoint = plan.checkpoint;
    let rank = plan.lora_rank.map(|rank| format!(", rank {rank}")).unwrap_or_default();
    let result = format!("A new run on {}{rank}. It replaces ", plan.base_model);
    let checks: Vec<_> = plan.checks.into_iter().map(check_line).collect();
    let rejected = plan
        .rejected
        .into_iter()
        .map(|rejected| RejectedReason { tinker_path: rejected.tinker_path, reason: rejected.reason })
        .collect();
    view! {
        <div data-testid="plan-summary" data-plan-id=plan.id>
            <dl class="plan-facts">
                <dt>"From"</dt>
                <dd>
                    <span class="mono strong" data-testid="plan-checkpoint" data-path=checkpoint.tinker_path>
                        {checkpoint_name(&checkpoint.checkpoint_id).to_owned()}
                    </span>
                    " saved "
                    {when_it_was(checkpoint.time)}
                    <span class="quiet block">{plan.why}</span>
                </dd>
                <dt>"Lost"</dt>
                <dd data-testid="plan-lost">{plan.lost.summary}</dd>
                <dt>"Result"</dt>
                <dd>
                    {result}
                    <bdi title=name.signal()>{name.signal()}</bdi>
                    " "
                    <span class="mono">{format!("({})", short_id(&plan.run_id))}</span>
                    " and keeps its labels; the old run stays as it is."
                </dd>
            </dl>
            <ul class="checks" aria-label="What was checked">
                {checks}
            </ul>
            {rejected_list(rejected)}
        </div>
    }
}

fn check_line(check: Check) -> AnyView {
    let (class, drawing) = match check.outcome {
        CheckOutcome::Passed => ("check passed", "check"),
        CheckOutcome::Unknown => ("check unknown", "question"),
        CheckOutcome::Warning => ("check warning", "at_risk"),
    };
    view! {
        <li class=class>
            {icon(drawing)}
            <div>
                <span class="said">{words::outcome(check.outcome)} ": "</span>
                <span>{check.name}</span>
                <span class="quiet">{check.detail}</span>
            </div>
        </li>
    }
}

fn rejected_list(rejected: Vec<RejectedReason>) -> Option<AnyView> {
    if rejected.is_empty() {
        return None;
    }
    let heading =
        counted(rejected.len() as u64, "checkpoint was passed over", "checkpoints were passed over");
    let rows = rejected
        .into_iter()
        .map(|rejected| {
            view! {
                <li>
                    <span class="mono break">{rejected.tinker_path}</span>
                    <span class="quiet block">{rejected.reason}</span>
                </li>
            }
        })
        .collect::<Vec<_>>();
    Some(view! {
        <details class="rejected" open>
            <summary>{heading}</summary>
            <ul>{rows}</ul>
        </details>
    })
}

/// Why there is no plan.
fn no_plan(answer: &NoPlan, followed: Followed) -> AnyView {
    let session = session();
    let refused = RwSignal::new(String::new());
    let (heading, message, rejected, restore_id) = words::no_plan(answer);
    let show = restore_id.map(|id| {
        let id = id.to_owned();
        let show = move |_| {
            let (session, id) = (session.clone(), id.clone());
            spawn_local(async move {
                match session.host.restore(&id).await {
                    Ok(restore) => {
                        session.remember(restore);
                        let _ = followed.try_set(Some((id, true)));
                    }
                    Err(problem) => {
                        session.notice(&problem);
                        let _ = refused.try_set(problem.message);
                    }
                }
            });
        };
        view! {
            <button type="button" class="button" on:click=show>
                "Show that restore"
            </button>
            <p class="quiet" role="alert">{refused.signal()}</p>
        }
    });
    view! {
        <section class="note" data-testid="no-plan">
            <strong>{heading}</strong>
            <p>{message.to_owned()}</p>
            {rejected_list(rejected.to_vec())}
            {show}
        </section>
    }
}
