//! What the page knows and how it stays true: one event stream, one clock, and loaders that read again when
//! something changed.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use crate::prelude::*;
use futures_channel::mpsc;
use futures_util::future::{AbortHandle, Either, LocalBoxFuture, abortable, select};
use futures_util::{FutureExt, StreamExt};
use leptos::reactive::spawn_local;
use retinker::host::api::{ApiProblem, HostEvent, HostStatus};
use retinker::host::checkpoints::DownloadState;
use retinker::recovery::restore::RestoreRecord;
use retinker::wire::time::Time;
use retinker_console::checkpoints::{self, Job};
use retinker_console::kept::Answer;
use retinker_console::pace::Pace;
use retinker_console::tokens::Form;
use retinker_console::{progress, selection, words};

use crate::browser;
use crate::components::bulk::Bulk;
use crate::data::Host;

/// Reads of the same thing are at least this far apart, however many events come.
pub(crate) const CALM: Duration = Duration::from_millis(400);
/// The status is read this often even when no event comes: a connection that died silently must not look alive.
const STATUS_EVERY: Duration = Duration::from_secs(15);
/// What could not be read is tried again after this long, even when no event comes.
pub(crate) const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Something that was read, with what became of the last try. Old data stays while a new try fails.
#[derive(Debug, Clone)]
pub(crate) struct Loaded<T> {
    pub(crate) data: Option<T>,
    pub(crate) problem: Option<ApiProblem>,
    pub(crate) busy: bool,
    /// The data is what was asked for before; what is asked for now could not be read.
    pub(crate) is_other: bool,
}

impl<T> Default for Loaded<T> {
    fn default() -> Self {
        Self { data: None, problem: None, busy: true, is_other: false }
    }
}

impl<T> Loaded<T> {
    /// What was just read.
    pub(crate) fn read(data: T) -> Self {
        Self { data: Some(data), problem: None, busy: false, is_other: false }
    }
}

/// How the event stream is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Link {
    /// Being opened for the first time.
    Opening,
    /// Open.
    Live,
    /// Broken; it is tried again.
    Broken,
    /// Closed because nobody looks.
    Paused,
}

/// Everything that the whole page shares.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) host: Host,
    pub(crate) status: RwSignal<Loaded<HostStatus>>,
    pub(crate) link: RwSignal<Link>,
    /// The host refused the token or has no such connection: nothing can be shown any more.
    pub(crate) refused: RwSignal<Option<ApiProblem>>,
    /// Milliseconds, by the host's clock; moves once a second while the page is seen.
    pub(crate) now: RwSignal<i64>,
    /// How far the host's clock is ahead of this browser's, in milliseconds.
    ahead: StoredValue<i64>,
    /// Moves whenever any run may have changed.
    pub(crate) any_change: RwSignal<u64>,
    /// Moves whenever the run whose page is shown may have changed.
    pub(crate) run_change: RwSignal<u64>,
    /// Moves when somebody asks for everything to be read again: also what is read once, as it takes a service many answers.
    pub(crate) asked_again: RwSignal<u64>,
    /// The run whose page is shown.
    pub(crate) run_shown: RwSignal<String>,
    /// What is being done about many runs.
    pub(crate) bulk: Bulk,
    /// What is being done with checkpoints, and what is downloaded: it goes on while somebody looks elsewhere.
    pub(crate) job: RwSignal<Option<Job>>,
    /// Why it broke off, until somebody puts it away.
    pub(crate) job_refused: RwSignal<Option<ApiProblem>>,
    pub(crate) downloads: RwSignal<Vec<DownloadState>>,
    /// How far lists were scrolled, by address: for the way back.
    pub(crate) places: StoredValue<HashMap<String, u32>>,
    /// How often changes are taken in.
    pub(crate) pace: RwSignal<Pace>,
    /// Something has changed that was not taken in yet.
    pub(crate) behind: RwSignal<bool>,
    /// What is selected in the list of runs, and of checkpoints: it stays so while somebody looks elsewhere.
    pub(crate) selected_runs: RwSignal<selection::Selection>,
    pub(crate) selected_checkpoints: RwSignal<checkpoints::Selection>,
    /// What is being written on the page where models are tried: it stays so while somebody looks elsewhere.
    pub(crate) trial: RwSignal<Form>,
    pub(crate) palette_open: RwSignal<bool>,
    pub(crate) keys_open: RwSignal<bool>,
    /// `light`, `dark`, or nothing for the system's colours.
    pub(crate) theme: RwSignal<&'static str>,
    restores: RwSignal<Vec<RestoreRecord>>,
    /// When changes were last taken in, by this browser's clock.
    taken_at: RwSignal<i64>,
    /// The event stream was open before.
    was_open: StoredValue<bool>,
}

/// After so long out of sight a page reads again what it reads once.
const LONG_AWAY: Duration = Duration::from_secs(120);

/// Clocks that are no further apart are one.
const SAME_CLOCK: Duration = Duration::from_secs(10);

/// Where this browser keeps its pace.
const PACE: &str = "retinker.pace";

impl Session {
    pub(crate) fn new(host: Host) -> Self {
        Self {
            host,
            status: RwSignal::default(),
            link: RwSignal::new(Link::Opening),
            refused: RwSignal::new(None),
            now: RwSignal::new(browser::now()),
            ahead: StoredValue::default(),
            any_change: RwSignal::new(0),
            run_change: RwSignal::new(0),
            asked_again: RwSignal::new(0),
            run_shown: RwSignal::default(),
            bulk: Bulk::new(),
            job: RwSignal::new(None),
            job_refused: RwSignal::new(None),
            downloads: RwSignal::default(),
            places: StoredValue::default(),
            pace: RwSignal::new(Pace::read(&browser::stored(PACE))),
            behind: RwSignal::new(false),
            selected_runs: RwSignal::default(),
            selected_checkpoints: RwSignal::default(),
            trial: RwSignal::new(Form::usual()),
            palette_open: RwSignal::new(false),
            keys_open: RwSignal::new(false),
            theme: RwSignal::new(browser::theme()),
            restores: RwSignal::default(),
            taken_at: RwSignal::new(browser::now()),
            was_open: StoredValue::new(false),
        }
    }

    /// Starts the clock and the event stream; both rest while the page is hidden.
    pub(crate) fn start(&self) {
        let visible = RwSignal::new(browser::is_visible());
        let listener =
            window_event_listener_untyped("visibilitychange", move |_| visible.set(browser::is_visible()));
        on_cleanup(move || listener.remove());

        // What this tab has still to ask for would be dropped without a word.
        let (job, bulk) = (self.job, self.bulk);
        let leaving = window_event_listener_untyped("beforeunload", move |event| {
            let is_busy = job.with_untracked(|job| job.as_ref().is_some_and(|job| job.running));
            if is_busy || bulk.has_more_to_begin() {
                event.prevent_default();
            }
        });
        on_cleanup(move || leaving.remove());

        let session = self.clone();
        let hidden_at = StoredValue::new(0_i64);
        Effect::new(move |_| {
            if !visible.get() {
                session.link.set(Link::Paused);
                hidden_at.set_value(browser::now());
                return;
            }
            // What is read once is old after a while in which nobody looked.
            let hidden_for = browser::now().saturating_sub(hidden_at.get_value());
            if session.link.get_untracked() == Link::Paused
                && hidden_for > LONG_AWAY.as_millis() as i64
                && session.pace.get_untracked() != Pace::Asked
            {
                session.asked_again.update(|n| *n += 1);
            }
            session.now.set(session.clock());
            let clock = session.clone();
            until_cleanup(Box::pin(async move {
                loop {
                    clock.host.sleep(Duration::from_secs(1)).await;
                    clock.now.set(clock.clock());
                }
            }));
            if let Pace::Every(seconds) = session.pace.get() {
                let session = session.clone();
                until_cleanup(Box::pin(async move {
                    loop {
                        session.host.sleep(Duration::from_secs(seconds)).await;
                        if session.behind.get_untracked() {
                            session.everything_changed();
                        }
                    }
                }));
            }
            let stream = session.clone();
            until_cleanup(Box::pin(async move { stream.follow().await }));
            let status = session.clone();
            until_cleanup(Box::pin(async move {
                // One call is under way at a time: what the page is for is asked first.
                status.host.sleep(Duration::ZERO).await;
                loop {
                    status.read_status().await;
                    status.host.sleep(STATUS_EVERY).await;
                }
            }));
        });
    }

    /// Follows the event stream for as long as it is polled.
    async fn follow(&self) {
        let mut failures = 0_u32;
        loop {
            if let Ok(mut events) = self.host.events().await {
                // What happened before the stream was open is not told by it.
                let since = browser::now().saturating_sub(self.taken_at.get_untracked());
                match self.pace.get_untracked() {
                    Pace::Live => self.everything_changed(),
                    Pace::Every(seconds) if since >= seconds.saturating_mul(1000) as i64 => {
                        self.everything_changed();
                    }
                    // What is shown was just read.
                    _ if !self.was_open.get_value() => {}
                    _ => self.behind.set(true),
                }
                self.was_open.set_value(true);
                self.link.set(Link::Live);
                while let Some(Ok(event)) = events.next().await {
                    failures = 0;
                    self.take(event);
                }
                drop(events);
                self.link.set(Link::Broken);
                self.read_status().await;
            } else {
                self.link.set(Link::Broken);
            }
            failures = failures.saturating_add(1);
            self.host.sleep(self.pause(failures)).await;
        }
    }

    /// One second, doubled with each failure up to half a minute, and spread so that many tabs do not come at once.
    fn pause(&self, failures: u32) -> Duration {
        let ceiling = 1000_u64.saturating_mul(1 << failures.saturating_sub(1).min(5)).min(30_000);
        Duration::from_millis(ceiling / 2 + self.host.random() % (ceiling / 2 + 1))
    }

    fn take(&self, event: HostEvent) {
        match event {
            HostEvent::Runs { .. } if self.pace.get_untracked() != Pace::Live => self.behind.set(true),
            HostEvent::Runs { run_ids } if run_ids.is_empty() => self.everything_changed(),
            HostEvent::Runs { run_ids } => {
                self.any_change.update(|n| *n += 1);
                if self.run_shown.with_untracked(|shown| run_ids.contains(shown)) {
                    self.run_change.update(|n| *n += 1);
                }
            }
            HostEvent::Restore { restore } => {
                let settled = restore.state.is_settled();
                self.remember(*restore);
                match self.pace.get_untracked() {
                    Pace::Live if settled => self.everything_changed(),
                    Pace::Live => {}
                    _ => self.behind.set(true),
                }
            }
            HostEvent::Status { status } => self.take_status(status),
        }
    }

    /// Takes changes in so often from now on, and whenever this browser opens the console.
    pub(crate) fn set_pace(&self, pace: Pace) {
        browser::store(PACE, &pace.key());
        self.pace.set(pace);
        if self.behind.get_untracked() {
            self.everything_changed();
        }
    }

    /// Shows these colours from now on, and whenever this browser opens the console.
    pub(crate) fn set_theme(&self, theme: &'static str) {
        browser::set_theme(theme);
        self.theme.set(theme);
    }

    fn everything_changed(&self) {
        self.taken_at.set(browser::now());
        self.behind.set(false);
        self.any_change.update(|n| *n += 1);
        self.run_change.update(|n| *n += 1);
    }

    /// When what is on the page was read, if it is known to be older than what the host has.
    pub(crate) fn held_since(&self) -> Option<Time> {
        self.behind.get().then(|| Time::from_millis(self.taken_at.get() + self.ahead.get_value()))
    }

    /// How far the host's clock is ahead of this browser's, in milliseconds.
    pub(crate) fn ahead(&self) -> i64 {
        self.ahead.get_value()
    }

    /// What the host's clock says now.
    fn clock(&self) -> i64 {
        browser::now() + self.ahead.get_value()
    }

    /// What was read of the service while it was down still tells of that: it is read again once the service is
    /// back, and the other way round.
    fn take_status(&self, status: HostStatus) {
        let ahead = status.now.as_millis() - browser::now();
        // What an answer takes on its way is no wrong clock.
        self.ahead.set_value(if ahead.abs() < SAME_CLOCK.as_millis() as i64 { 0 } else { ahead });
        self.now.set(self.clock());
        let is_down = status.service.problem.is_some();
        let was_down = self
            .status
            .with_untracked(|known| known.data.as_ref().is_some_and(|known| known.service.problem.is_some()));
        self.status.set(Loaded::read(status));
        if is_down != was_down {
            self.everything_changed();
        }
    }

    async fn read_status(&self) {
        match self.host.status().await {
            Ok(status) => self.take_status(status),
            Err(problem) => {
                self.notice(&problem);
                self.status.update(|loaded| {
                    loaded.problem = Some(problem);
                    loaded.busy = false;
                });
            }
        }
    }

    /// Every problem passes by here: a refused token, or a connection that the host does not have, ends the whole page, not one part of it.
    pub(crate) fn notice(&self, problem: &ApiProblem) {
        if words::is_token_problem(problem) || words::is_connection_problem(problem) {
            self.refused.set(Some(problem.clone()));
        }
    }

    /// Keeps a restore's newest account.
    pub(crate) fn remember(&self, restore: RestoreRecord) {
        self.restores.update(|all| match all.iter_mut().find(|known| known.id == restore.id) {
            Some(known) => {
                if progress::is_newer(&restore, known) {
                    *known = restore;
                }
            }
            None => all.push(restore),
        });
    }

    /// Reads everything again, now.
    pub(crate) fn read_again(&self) {
        self.asked_again.update(|n| *n += 1);
        self.everything_changed();
        let session = self.clone();
        spawn_local(async move { session.read_status().await });
    }

    /// The newest account of a restore.
    pub(crate) fn restore(&self, id: &str) -> Option<RestoreRecord> {
        self.restores.with(|all| all.iter().find(|known| known.id == id).cloned())
    }
}

/// The page's session.
pub(crate) fn session() -> Session {
    expect_context::<Session>()
}

/// Moves when `changes` does, and every few seconds while the page is seen: for what no event tells of.
pub(crate) fn often(changes: RwSignal<u64>) -> RwSignal<u64> {
    let session = session();
    let moved = RwSignal::new(0);
    Effect::new(move |_| {
        changes.track();
        moved.update(|n| *n += 1);
        let pause = match session.pace.get() {
            _ if session.link.with(|link| *link == Link::Paused) => return,
            Pace::Asked => return,
            Pace::Every(seconds) => STATUS_EVERY.max(Duration::from_secs(seconds)),
            Pace::Live => STATUS_EVERY,
        };
        let host = session.host.clone();
        until_cleanup(Box::pin(async move {
            loop {
                host.sleep(pause).await;
                moved.update(|n| *n += 1);
            }
        }));
    });
    moved
}

/// Runs a task until the reactive scope around it ends or runs again.
pub(crate) fn until_cleanup(task: LocalBoxFuture<'static, ()>) {
    let (task, handle) = abortable(task);
    on_cleanup(move || AbortHandle::abort(&handle));
    spawn_local(async move {
        let _ = task.await;
    });
}

/// When something is done again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Again {
    /// When something has changed.
    OnChange,
    /// After a while, even when nothing has: it failed.
    Soon,
    /// Not any more.
    Never,
}

/// Does something now, and again when `changes` moves, but never sooner than after `calm`, until the reactive scope around it
/// ends or runs again. What it does is boxed, so that this is there once for all of it.
pub(crate) fn whenever(
    changes: RwSignal<u64>,
    calm: Duration,
    mut act: Box<dyn FnMut() -> LocalBoxFuture<'static, Again>>,
) {
    let host = session().host;
    let (moved, mut waiting) = mpsc::unbounded();
    Effect::new(move |_| {
        changes.track();
        let _ = moved.unbounded_send(());
    });
    until_cleanup(Box::pin(async move {
        let mut pause = Duration::MAX;
        loop {
            let due = select(waiting.next(), host.sleep(pause)).await;
            if matches!(due, Either::Left((None, _))) {
                return;
            }
            while waiting.try_recv().is_ok() {}
            pause = match act().await {
                Again::OnChange => Duration::MAX,
                Again::Soon => AFTER_FAILURE,
                Again::Never => return,
            };
            host.sleep(calm).await;
        }
    }));
}

/// Reads something now, again when `key` changes (dropping what was under way), and again when `changes` moves.
/// `keep` says whether the data of another key may stay on the page until the new is there.
pub(crate) fn load<K, T>(
    key: Memo<K>,
    changes: RwSignal<u64>,
    keep: bool,
    read: fn(Host, K) -> LocalBoxFuture<'static, Result<T, ApiProblem>>,
) -> RwSignal<Loaded<T>>
where
    K: Clone + PartialEq + Send + Sync + 'static,
    T: Answer + Clone + Send + Sync + 'static,
{
    let host = session().host;
    let out = RwSignal::new(Loaded::default());
    Effect::new(move |_| {
        let key = key.get();
        if keep {
            out.update(|loaded| loaded.busy = true);
        } else {
            out.set(Loaded::default());
        }
        let host = host.clone();
        let ask = move || -> LocalBoxFuture<'static, Take> {
            let answer = read(host.clone(), key.clone());
            Box::pin(answer.map(move |answer| -> Take { Box::new(move |of_key| take(out, of_key, answer)) }))
        };
        reading(changes, Box::new(ask));
    });
    out
}

/// Takes an answer; `of_key`: whether what is on the page is of the same key.
fn take<T: Answer + Clone + Send + Sync + 'static>(
    out: RwSignal<Loaded<T>>,
    of_key: bool,
    answer: Result<T, ApiProblem>,
) -> Result<Again, ApiProblem> {
    match answer {
        Ok(data) => {
            let data = out.with_untracked(|loaded| match &loaded.data {
                Some(before) if of_key => data.after(before),
                _ => data,
            });
            let again = if data.is_part() { Again::Soon } else { Again::OnChange };
            out.set(Loaded::read(data));
            Ok(again)
        }
        Err(problem) => {
            out.update(|loaded| {
                loaded.is_other = !of_key;
                loaded.problem = Some(problem.clone());
                loaded.busy = false;
            });
            Err(problem)
        }
    }
}

/// [`take`] of an answer of any type.
type Take = Box<dyn FnOnce(bool) -> Result<Again, ApiProblem>>;

/// Asks now and when there is reason to: of [`load`] what is there once for all that is read.
fn reading(changes: RwSignal<u64>, mut ask: Box<dyn FnMut() -> LocalBoxFuture<'static, Take>>) {
    let session = session();
    // What is on the page may be of another key until the first answer.
    let of_key = Rc::new(Cell::new(false));
    let act = move || -> LocalBoxFuture<'static, Again> {
        let (asked, session, of_key) = (ask(), session.clone(), Rc::clone(&of_key));
        Box::pin(async move {
            let take = asked.await;
            match take(of_key.get()) {
                Ok(again) => {
                    of_key.set(true);
                    again
                }
                Err(problem) => {
                    session.notice(&problem);
                    Again::Soon
                }
            }
        })
    };
    whenever(changes, CALM, Box::new(act));
}

/// Moves when `changes` does: at once, and then no sooner than after this pause. For what takes many questions to read.
pub(crate) fn slowly(changes: RwSignal<u64>, pause: Duration) -> RwSignal<u64> {
    let session = session();
    let slow = RwSignal::new(0);
    let (moved, mut waiting) = mpsc::unbounded();
    Effect::new(move |before: Option<()>| {
        changes.track();
        // Whoever follows it reads at the beginning anyway.
        if before.is_some() {
            let _ = moved.unbounded_send(());
        }
    });
    until_cleanup(Box::pin(async move {
        while waiting.next().await.is_some() {
            while waiting.try_recv().is_ok() {}
            slow.update(|n| *n += 1);
            session.host.sleep(pause).await;
        }
    }));
    slow
}
