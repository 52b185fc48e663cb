//! What went wrong, and what to do.

use crate::prelude::*;
use retinker::host::api::ApiProblem;
use retinker::wire::time::Time;
use retinker_console::words;

use super::icon::icon;
use super::reactive::{part, text};
use super::time::exact;
use crate::browser;
use crate::live::{Loaded, session};

/// One problem. `kept` says what the page still shows beneath it; the button does what `remedy` says.
pub(crate) fn problem_banner(
    problem: ApiProblem,
    kept: String,
    remedy: &'static str,
    act: impl Fn() + Send + Sync + 'static,
) -> AnyView {
    let heading = words::problem_heading(&problem);
    let problem_code = problem.code;
    let lines = [problem.message, problem.hint]
        .into_iter()
        .filter(|line| !line.is_empty())
        .map(|line| view! { <p>{line}</p> })
        .collect::<Vec<_>>();
    // Nothing is wrong, and to ask again helps nobody.
    if problem_code == "not_offered" {
        return view! { <section class="note" role="status" data-testid="not-offered">{lines}</section> };
    }
    view! {
        <section class="banner" role="alert" data-testid="banner-problem" data-code=problem_code>
            {icon("problem")}
            <div>
                <strong>{heading}</strong>
                {lines}
                <p class="quiet">{kept}</p>
            </div>
            <button type="button" class="button" on:click=move |_| act()>
                {remedy}
            </button>
        </section>
    }
}

/// The problem of what a page reads.
pub(crate) fn own_problem<T: Send + Sync + 'static>(read: RwSignal<Loaded<T>>) -> Signal<Vec<ApiProblem>> {
    Signal::derive(move || read.with(|r| r.problem.clone().into_iter().collect()))
}

/// What is on the page while it cannot be read.
pub(crate) const READ_BEFORE: &str = "What is shown below is what was read before.";
/// The same where it answers what was asked for before, such as another filter.
pub(crate) const ASKED_BEFORE: &str = "What is shown below is what was asked for before this.";

/// That old data stays on the page while a new reading fails.
pub(crate) fn kept<T: Send + Sync + 'static>(read: RwSignal<Loaded<T>>) -> Signal<String> {
    text(move || match read.with(|r| (r.data.is_some() && r.problem.is_some(), r.is_other)) {
        (true, false) => READ_BEFORE.to_owned(),
        (true, true) => ASKED_BEFORE.to_owned(),
        (false, _) => String::new(),
    })
}

/// Every problem that there is now: of the host, of the service, and then the page's own. `kept` says what the page
/// still shows.
pub(crate) fn problems(own: Signal<Vec<ApiProblem>>, kept: Signal<String>) -> AnyView {
    let session = session();
    let status = session.status;
    let all = Memo::new(move |_| {
        let (of_host, of_service) = status.with(|loaded| {
            let of_service = loaded.data.as_ref().and_then(|status| status.service.problem.clone());
            (loaded.problem.clone(), of_service)
        });
        // While the host does not answer, what it said of the service is old.
        let of_service = if of_host.is_some() { None } else { of_service };
        words::distinct(of_host.into_iter().chain(of_service).chain(own.get()))
    });
    // By what it is called: since when each has been seen, by this browser's clock. That of the host may be learnt later.
    let ahead = Memo::new({
        let session = session.clone();
        move |_| {
            session.now.track();
            session.ahead()
        }
    });
    let since = StoredValue::new(Vec::<(String, i64)>::new());
    part(move || {
        let all = all.get();
        let now = browser::now();
        since.update_value(|since| {
            since.retain(|(code, _)| all.iter().any(|problem| problem.code == *code));
            for problem in &all {
                if !since.iter().any(|(code, _)| *code == problem.code) {
                    since.push((problem.code.clone(), now));
                }
            }
        });
        let banners: Vec<_> = all
            .into_iter()
            .map(|problem| {
                let seen = since.with_value(|since| {
                    since.iter().find(|(code, _)| *code == problem.code).map_or(now, |(_, at)| *at)
                });
                let told = format!(
                    "Seen here since {}. {}",
                    exact(Time::from_millis(seen.saturating_add(ahead.get()))),
                    kept.get()
                );
                let session = session.clone();
                problem_banner(problem, told, "Try again", move || session.read_again())
            })
            .collect();
        banners.into_any()
    })
}
