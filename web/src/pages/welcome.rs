//! How to begin: what there is to see as long as there are no runs.

use crate::prelude::*;
use retinker::host::api::{ApiProblem, GettingStarted};
use retinker_console::address::at;
use retinker_console::connections::is_first;

use crate::browser;
use crate::components::banner::problems;
use crate::components::connections::connection_list;
use crate::components::copy::copy_button;
use crate::components::page_head::page_head;
use crate::components::reactive::{flag, maybe, nothing, part, when};
use crate::components::snippets::snippet_tabs;
use crate::live::{Loaded, load, session, until_cleanup};
use crate::pages::runs::runs_page;
use crate::place::place;

/// The page `/`: the list of runs, or how to get one.
pub(crate) fn home() -> AnyView {
    let status = session().status;
    let first = Memo::new(move |_| status.with(|s| s.data.as_ref().is_some_and(is_first)));
    Effect::new(move |before: Option<bool>| {
        let now = first.get();
        if before == Some(true) && !now {
            // What had the keyboard is gone.
            request_animation_frame(|| browser::focus("page-title"));
        }
        now
    });
    part(move || if first.get() { beginning() } else { runs_page() })
}

/// The page `/welcome`. Whoever waits here for a first run is led to it.
pub(crate) fn welcome_page() -> AnyView {
    let status = session().status;
    let place = place();
    let has_runs = Memo::new(move |_| {
        status.with(|s| s.data.as_ref().filter(|s| s.as_of.is_some()).map(|s| s.runs > 0))
    });
    Effect::new(move |before: Option<Option<bool>>| {
        let now = has_runs.get();
        if before == Some(Some(false)) && now == Some(true) {
            place.go(&at("/"), true);
        }
        now
    });
    beginning()
}

type Start = RwSignal<Loaded<GettingStarted>>;

fn beginning() -> AnyView {
    let session = session();
    let status = session.status;
    // The models that the commands name come a moment after the first answer.
    let known = Memo::new(move |_| {
        status.with(|s| s.data.as_ref().map(|s| (s.service.base_models.clone(), s.as_of.is_some(), s.runs)))
    });
    let start: Start = load(known, session.any_change, true, |host, _| {
        Box::pin(async move { host.getting_started().await })
    });
    let own =
        Signal::derive(move || start.with(|s| s.problem.clone().into_iter().collect::<Vec<ApiProblem>>()));
    let works = flag(move || {
        status.with(|s| s.data.as_ref().is_some_and(|s| s.as_of.is_some() && s.service.problem.is_none()))
    });
    view! {
        {page_head("How to begin", nothing())}
        <p class="lead">
            "retinker shows the training runs of a Tinker service, and which of them have lost their state. It \
             says from which checkpoint each can be brought back, and brings it back when you say so."
        </p>
        {problems(own, Signal::stored(String::new()))}
        {service_state()}
        <div class="beginning">
            {when(move || works.get(), move || first_run(start))} {when(move || !works.get(), no_service)}
            {another_service()}
        </div>
    }
}

/// What the service says, while it says anything; the banners tell the rest.
fn service_state() -> AnyView {
    let status = session().status;
    let told = Memo::new(move |_| {
        status.with(|s| {
            let status = s.data.as_ref()?;
            let (name, base_url) = (&status.service.name, &status.service.base_url);
            let told = match (status.as_of, status.service.problem.is_some(), status.runs) {
                (_, true, _) => return None,
                (None, ..) => format!("Reading {name}, {base_url}."),
                (Some(_), _, 0) => format!(
                    "Connected to {name}, {base_url}. It has no training runs yet; this page turns into their list \
                     with the first."
                ),
                (Some(_), ..) => format!("Connected to {name}, {base_url}. It has training runs."),
            };
            Some((told, status.runs > 0))
        })
    });
    let line = maybe(move || {
        let (told, has_runs) = told.get()?;
        let list = has_runs.then(|| view! { <a href=at("/")>"Show them"</a> });
        Some(view! { <p class="lead" role="status" data-testid="welcome-state">{told} " " {list}</p> })
    });
    view! { {line} }
}

fn first_run(start: Start) -> AnyView {
    let snippets = Memo::new(move |_| start.with(|s| s.data.as_ref().map(|data| data.snippets.clone())));
    let demo = move || start.with(|s| s.data.as_ref().is_some_and(|data| data.demo));
    view! {
        {when(demo, move || demonstration(start))}
        <section class="panel" aria-labelledby="first-run">
            <h2 id="first-run">"Begin a run"</h2>
            <p>"Any program that speaks Tinker's protocol can train on it. Each of these makes a short run:"</p>
            {maybe(move || snippets.get().map(|all| snippet_tabs(&all)))}
        </section>
    }
}

fn demonstration(start: Start) -> AnyView {
    let session = session();
    let busy = RwSignal::new(false);
    let begin = move |_| {
        if busy.get_untracked() {
            return;
        }
        busy.set(true);
        let session = session.clone();
        until_cleanup(Box::pin(async move {
            match session.host.begin_demo().await {
                Ok(_) => session.read_again(),
                Err(problem) => start.update(|s| s.problem = Some(problem)),
            }
            let _ = busy.try_set(false);
        }));
    };
    view! {
        <section class="panel" aria-labelledby="demonstration">
            <h2 id="demonstration">"Look at it with runs that fail"</h2>
            <p>
                "The demonstration trains a handful of short runs before your eyes, for less than a minute, and \
                 then takes their trainer's memory away: some are poisoned, and can be restored."
            </p>
            <p>
                <button type="button" class="button primary" data-testid="demo-begin" disabled=flag(move || busy.get()) on:click=begin>
                    "Begin the demonstration"
                </button>
            </p>
        </section>
    }
}

/// The service cannot be read: there is one to be had on this machine.
fn no_service() -> AnyView {
    view! {
        <section class="panel" aria-labelledby="own-service">
            <h2 id="own-service">"A service on this machine"</h2>
            <p>"This starts a service that really trains, and the console on it. It needs no account and no GPU."</p>
            {command("retinker up", "own-service-command")}
        </section>
    }
}

fn another_service() -> AnyView {
    view! {
        <section class="panel" aria-labelledby="other-service">
            <h2 id="other-service">"Another service"</h2>
            <p>
                "Services are named where retinker is started, so that no page can send a key anywhere. The key of \
                 a connection called lab is read from TINKER_API_KEY_LAB:"
            </p>
            {command("TINKER_API_KEY_LAB=tml-YOUR-KEY retinker console --connection lab=URL", "add-connection")}
            <p>"This console has:"</p>
            {connection_list()}
        </section>
    }
}

fn command(line: &'static str, testid: &'static str) -> AnyView {
    view! {
        <div class="command">
            <pre tabindex="0"><code data-testid=testid>{line}</code></pre>
            {copy_button(Signal::stored(line.to_owned()), "the command")}
        </div>
    }
}
