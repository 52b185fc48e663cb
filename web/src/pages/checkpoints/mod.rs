//! All checkpoints of the service, across runs.

mod actions;
mod deleting;
mod downloads;
mod table;

use std::time::Duration;

use crate::prelude::*;
use leptos::reactive::spawn_local;
use retinker::host::api::ApiProblem;
use retinker::host::checkpoints::{
    CheckpointActions, CheckpointItem, CheckpointWindow, DeletePreview, DownloadState,
};
use retinker::host::completion::FilterOf;
use retinker_console::checkpoints::{Job, KINDS, Selection, View, kind, shown};
use retinker_console::format;

use crate::components::banner::{problem_banner, problems};
use crate::components::dialog::dialog;
use crate::components::page_head::{self, page_head};
use crate::components::placeholder::placeholder;
use crate::components::reactive::{maybe, nothing, part, text, when, word};
use crate::components::search::{Field, form, typing};
use crate::components::time::clock;
use crate::live::{Loaded, Session, load, often, session, slowly};
use crate::place::place;

/// Typing asks for a new list this long after the last letter.
const TYPING: Duration = Duration::from_millis(200);

/// While something trains all the time the list is read no more often than this, as the host reads it.
const PAUSE: Duration = Duration::from_secs(4);

/// What the dialog shows.
#[derive(Clone)]
pub(super) enum Sheet {
    /// One checkpoint, and what can be done with it.
    One(Box<CheckpointItem>),
    /// How long these shall live.
    Life(Vec<String>),
    /// What deleting would do.
    Delete,
    /// What a rule would delete.
    Retention,
}

/// What the parts of the page share.
#[derive(Clone, Copy)]
pub(super) struct Desk {
    session: StoredValue<Session>,
    shown: Memo<View>,
    window: RwSignal<Loaded<CheckpointWindow>>,
    selection: RwSignal<Selection>,
    sheet: RwSignal<Option<Sheet>>,
    open: RwSignal<bool>,
    /// What would be deleted, as the dialog shows it.
    preview: RwSignal<Loaded<DeletePreview>>,
    /// Moves with each new question: an answer to an older one is of something else.
    round: StoredValue<u32>,
    job: RwSignal<Option<Job>>,
    /// What could not be asked for on this page; and of the job, which outlives it.
    refused: RwSignal<Option<ApiProblem>>,
    job_refused: RwSignal<Option<ApiProblem>>,
    downloads: RwSignal<Vec<DownloadState>>,
}

impl Desk {
    fn show(self, sheet: Sheet) {
        self.sheet.set(Some(sheet));
        self.open.set(true);
    }

    /// Puts the preview away, with any answer that is still to come; `busy`: another is awaited, which is that of this round.
    fn preview_anew(self, busy: bool) -> u32 {
        self.preview.set(Loaded { busy, ..Loaded::default() });
        self.round.update_value(|round| *round += 1);
        self.round.get_value()
    }

    fn refuse(self, problem: ApiProblem) {
        self.session.with_value(|session| session.notice(&problem));
        let _ = self.refused.try_set(Some(problem));
    }

    /// Sends these requests, one after the other, until it is told to stop. It goes on while another page is looked at.
    fn run(self, requests: Vec<CheckpointActions>) {
        self.open.set(false);
        self.refused.set(None);
        self.job_refused.set(None);
        if requests.is_empty() {
            return;
        }
        if self.job.with_untracked(|job| job.as_ref().is_some_and(|job| job.running)) {
            self.refused.set(Some(ApiProblem {
                code: "busy".to_owned(),
                message: "Nothing was begun: what was asked for before is still being done.".to_owned(),
                hint: "Wait for its end, or stop it.".to_owned(),
            }));
            return;
        }
        self.job.set(Some(Job::new(&requests)));
        let session = self.session.get_value();
        spawn_local(async move {
            for request in requests {
                if self.job.with_untracked(|job| job.as_ref().is_none_or(|job| job.stopping)) {
                    break;
                }
                match session.host.act_on_checkpoints(&request).await {
                    Ok(answer) => {
                        self.job.update(|job| {
                            if let Some(job) = job {
                                job.outcomes.extend(answer.outcomes);
                            }
                        });
                    }
                    Err(problem) => {
                        session.notice(&problem);
                        self.job_refused.set(Some(problem));
                        break;
                    }
                }
            }
            self.job.update(|job| {
                if let Some(job) = job {
                    job.running = false;
                }
            });
            // What is gone cannot be selected.
            self.selection.try_update(|selection| {
                self.job.with_untracked(|job| {
                    let deleted = job.iter().flat_map(Job::deleted);
                    deleted.for_each(|path| {
                        let _ = selection.paths.remove(path);
                    });
                });
            });
            session.read_again();
        });
    }
}

/// The page `/checkpoints`.
pub(crate) fn checkpoints_page() -> AnyView {
    let session = session();
    let place = place();
    let shown_view = Memo::new(move |_| place.query.with(|query| View::read(query)));
    let window = load(shown_view, slowly(often(session.any_change), PAUSE), true, |host, view: View| {
        Box::pin(async move { host.checkpoints(&view.to_query()).await })
    });
    let (job, job_refused, downloads) = (session.job, session.job_refused, session.downloads);
    let selection = session.selected_checkpoints;
    let desk = Desk {
        session: StoredValue::new(session),
        shown: shown_view,
        window,
        selection,
        sheet: RwSignal::new(None),
        open: RwSignal::new(false),
        preview: RwSignal::default(),
        round: StoredValue::default(),
        job,
        refused: RwSignal::new(None),
        job_refused,
        downloads,
    };
    let total = text(move || {
        window.with(|w| {
            let read = w.data.as_ref().filter(|data| data.as_of.is_some());
            read.map_or_else(String::new, |data| shown_view.with(|view| shown(view, data)))
        })
    });
    let own = Signal::derive(move || {
        window.with(|w| {
            let of_list = w.data.as_ref().and_then(|data| data.problem.clone());
            w.problem.clone().into_iter().chain(of_list).collect::<Vec<ApiProblem>>()
        })
    });
    let kept = text(move || {
        let as_of = window.with(|w| w.data.as_ref().and_then(|data| data.as_of));
        as_of.map_or_else(String::new, |as_of| format!("The list below is that of {}.", clock(as_of)))
    });
    let refused = maybe(move || {
        let problem = desk.refused.get().or(desk.job_refused.get())?;
        let remedy = move || {
            desk.refused.set(None);
            desk.job_refused.set(None);
        };
        Some(problem_banner(problem, String::new(), "Close", remedy))
    });
    let beside = view! {
        {page_head::total("checkpoints-total", total)}
        <button
            type="button"
            class="button"
            data-testid="retention-button"
            on:click=move |_| {
                desk.preview_anew(false);
                desk.show(Sheet::Retention);
            }
        >
            "Clean up…"
        </button>
    };
    view! {
        {page_head("Checkpoints", beside)}
        {problems(own, kept)}
        {refused}
        {actions::progress(desk)}
        {downloads::progress(desk)}
        {kinds(desk)}
        {search(shown_view)}
        {when(move || window.with(|w| w.data.is_none() && w.problem.is_none()), || placeholder("Reading the checkpoints…", 4))}
        {when(move || window.with(|w| w.data.is_some()), move || table::table(desk))}
        {actions::bar(desk)}
        {pager(desk)}
        {dialog(desk.open, text(move || title(desk)), "checkpoint-dialog", move || sheet(desk))}
    }
}

fn title(desk: Desk) -> String {
    match desk.sheet.get() {
        Some(Sheet::One(item)) => format::checkpoint_name(&item.checkpoint.checkpoint_id).to_owned(),
        Some(Sheet::Life(paths)) => {
            format!(
                "How long {} live",
                format::counted(paths.len() as u64, "checkpoint shall", "checkpoints shall")
            )
        }
        Some(Sheet::Delete) => "Delete checkpoints".to_owned(),
        Some(Sheet::Retention) => "Clean up".to_owned(),
        None => String::new(),
    }
}

fn sheet(desk: Desk) -> AnyView {
    part(move || match desk.sheet.get() {
        Some(Sheet::One(item)) => actions::one(desk, *item),
        Some(Sheet::Life(paths)) => actions::life(desk, paths),
        Some(Sheet::Delete) => deleting::preview(desk, true),
        Some(Sheet::Retention) => deleting::retention(desk),
        None => nothing(),
    })
}

/// How many there are of each type; each count is a filter.
fn kinds(desk: Desk) -> AnyView {
    let filter = |index: usize| {
        let this = KINDS.get(index).cloned();
        let name = this.as_ref().map_or("All", kind).to_owned();
        let testid = format!("type-filter-{}", this.as_ref().map_or("all", |kind| kind.as_str()));
        let count = text(move || {
            desk.window.with(|w| match w.data.as_ref().filter(|data| data.as_of.is_some()) {
                Some(data) => {
                    let of_one = data.counts.get(index).filter(|_| index < KINDS.len()).copied();
                    format::count(of_one.unwrap_or(data.counts.iter().sum()))
                }
                None => "–".to_owned(),
            })
        });
        let kind = this.clone();
        let address = text(move || {
            desk.shown.with(|view| View { kind: kind.clone(), page: 0, ..view.clone() }.to_address())
        });
        let here = word(move || desk.shown.with(|view| view.kind == this).then_some("true"));
        view! {
            <li>
                <a href=address class="filter" data-testid=testid data-noscroll="" aria-current=here>
                    <span class="filter-count">{count}</span>
                    <span class="filter-name">{name}</span>
                </a>
            </li>
        }
    };
    // The last is for all of them.
    let filters: Vec<_> = (0..=KINDS.len()).map(filter).collect();
    view! {
        <nav aria-label="Checkpoints by type">
            <ul class="triage kinds">{filters}</ul>
        </nav>
    }
}

fn search(shown: Memo<View>) -> AnyView {
    let place = place();
    let typed = typing(Memo::new(move |_| shown.with(|shown| shown.q.clone())), TYPING, move |q| {
        let address = shown.with_untracked(|view| View { q, page: 0, ..view.clone() }.to_address());
        place.go(&address, true);
    });
    form(
        Field {
            testid: "checkpoints-search",
            said: "Filter by words, or by fields: run:ID, name:0040, age>7d, size>1GB, expires<2d, \
                   expires:never, public:yes, needed:yes, meta.team=x",
            placeholder: "Filter: words, run:ID, age>7d, size>1GB, expires<2d, public:yes",
            most: "2000",
            of: Some(FilterOf::Checkpoints),
        },
        typed,
    )
}

/// The way through a list longer than one page.
fn pager(desk: Desk) -> AnyView {
    let pages = Memo::new(move |_| {
        let matching = desk.window.with(|w| w.data.as_ref().map_or(0, |data| data.matching));
        matching.div_ceil(retinker_console::checkpoints::PAGE).max(1)
    });
    maybe(move || {
        let (page, pages) = (desk.shown.with(|view| view.page), pages.get());
        if pages <= 1 && page == 0 {
            return None;
        }
        // An address may name a page that is not there any more.
        let beyond = page >= pages;
        let page = page.min(pages);
        let here = match beyond {
            true => format!("Beyond the last of {} pages", format::count(pages)),
            false => format!("Page {} of {}", format::count(page.saturating_add(1)), format::count(pages)),
        };
        let step = |to: Option<u64>, name: &'static str| match to {
            Some(page) => {
                let address = desk.shown.with(|view| View { page, ..view.clone() }.to_address());
                view! { <a class="button" href=address>{name}</a> }
            }
            None => view! { <span class="button off">{name}</span> },
        };
        Some(view! {
            <nav class="pager" aria-label="Pages">
                {step(page.checked_sub(1), "Previous")}
                <span>{here}</span>
                {step(page.checked_add(1).filter(|next| *next < pages), "Next")}
            </nav>
        })
    })
}
