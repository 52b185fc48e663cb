//! What stands around every page: the header, the routes, and what is said when nothing works.

use crate::prelude::*;
use retinker::host::api::ApiProblem;
use retinker::wire::time::Time;
use retinker_console::address::{Page, at, connection_in, connection_shown, show_connection};
use retinker_console::pace::Pace;

use crate::browser;
use crate::components::bulk::{bulk_chip, bulk_dialog};
use crate::components::connections::connection_menu;
use crate::components::icon::icon;
use crate::components::keys::{self, keys_dialog};
use crate::components::palette::palette_dialog;
use crate::components::reactive::{flag, maybe, part, word};
use crate::components::time::{clock, exact};
use crate::data::Host;
use crate::live::{Link, Session, session};
use crate::pages::activity::activity_page;
use crate::pages::checkpoints::checkpoints_page;
use crate::pages::compare::compare_page;
use crate::pages::locked::{locked, not_found};
use crate::pages::run::run_page;
use crate::pages::sessions::{projects_page, samplers_page, session_page, sessions_page};
use crate::pages::trial::trial_page;
use crate::pages::usage::usage_page;
use crate::pages::welcome::{home, welcome_page};
use crate::place::{self, Place};
use crate::view;

/// Puts the console on the page.
pub(crate) fn start() {
    std::panic::set_hook(Box::new(|info| {
        browser::show_fatal(&info.to_string());
    }));
    let token = browser::take_token();
    if let Some(name) = connection_in(&browser::place().1) {
        show_connection(&name);
    }
    // The printed address, opened in a tab that shows the console already, changes the fragment only.
    let _ = window_event_listener_untyped("hashchange", |_| browser::take_new_token());
    view::mount_to_body(|| app(token.as_deref()));
    browser::remove_skeleton();
}

fn app(token: Option<&str>) -> AnyView {
    let session = Session::new(Host::new(&browser::origin(), token.unwrap_or_default(), connection_shown()));
    if token.is_some() {
        session.start();
    } else {
        session.refused.set(Some(ApiProblem {
            code: "token_missing".to_owned(),
            message: "This address came without the token that opens the console.".to_owned(),
            hint: String::new(),
        }));
    }
    let refused = session.refused;
    provide_context(session);
    let place = place::follow();
    keys::listen();
    focus_on_new_page(place);
    view! {
        {header()}
        <main id="main" tabindex="-1">
            {part(move || match refused.get() {
                Some(problem) => locked(problem),
                None => draw_page(place.page.get()),
            })}
        </main>
        {bulk_dialog()}
        {palette_dialog()}
        {keys_dialog()}
    }
}

fn draw_page(page: Page) -> AnyView {
    match page {
        Page::Home => home(),
        Page::Run => run_page(),
        Page::Welcome => welcome_page(),
        Page::Checkpoints => checkpoints_page(),
        Page::Activity => activity_page(),
        Page::Compare => compare_page(),
        Page::Sessions => sessions_page(),
        Page::Session => session_page(),
        Page::Samplers => samplers_page(),
        Page::Projects => projects_page(),
        Page::Trial => trial_page(),
        Page::Usage => usage_page(),
        Page::None => not_found(),
    }
}

/// On a new page the keyboard and the screen reader begin at its heading, not where the old page's link was.
fn focus_on_new_page(place: Place) {
    Effect::new(move |before: Option<String>| {
        let now = place.path.get();
        if before.is_some_and(|before| before != now) {
            request_animation_frame(|| browser::focus("page-title"));
        }
        now
    });
}

fn header() -> AnyView {
    view! {
        <header class="top">
            <a class="skip" href="#main" rel="external">"Skip to the content"</a>
            <a class="brand" href=at("/") aria-label="retinker, all runs">
                <svg class="mark" aria-hidden="true" width="22" height="22" viewBox="0 0 16 16">
                    <use href="#i-mark"></use>
                </svg>
                <span>"retinker"</span>
            </a>
            {places()}
            {connection_menu()}
            <span class="grow"></span>
            {bulk_chip()}
            {freshness()}
            {pace_choice()}
            {palette_button()}
            {theme_button()}
        </header>
    }
}

/// The pages that the header leads to.
pub(crate) const PAGES: [(&str, &str); 6] = [
    ("/", "Runs"),
    ("/checkpoints", "Checkpoints"),
    ("/sessions", "Sessions"),
    ("/try", "Try it"),
    ("/usage", "Usage"),
    ("/activity", "Activity"),
];

/// How a page of the header is marked while this one is shown: as that page, or as where it belongs.
fn place_of(path: &str, address: &str) -> Option<&'static str> {
    let within: &[&str] = match address {
        "/" => &["/runs/", "/compare"],
        "/sessions" => &["/sessions/", "/samplers", "/projects"],
        _ => &[],
    };
    match path == address {
        true => Some("page"),
        false => within.iter().any(|begin| path.starts_with(begin)).then_some("true"),
    }
}

/// The way to each page.
fn places() -> AnyView {
    let path = place::place().path;
    let links: Vec<_> = PAGES
        .into_iter()
        .map(|(address, name)| {
            let here = word(move || path.with(|path| place_of(path, address)));
            view! { <a href=at(address) aria-current=here>{name}</a> }
        })
        .collect();
    view! {
        <nav class="places" aria-label="Pages of the console">
            {links}
        </nav>
    }
}

/// Opens the palette; most people come to it by its keys.
fn palette_button() -> AnyView {
    let open = session().palette_open;
    view! {
        <button
            type="button"
            class="copy"
            title="Go to or do (Ctrl K)"
            aria-label="Go to or do"
            aria-keyshortcuts="Control+K"
            data-testid="palette-button"
            on:click=move |_| open.set(true)
        >
            {icon("search")}
        </button>
    }
}

/// How often changes are taken in.
fn pace_choice() -> AnyView {
    let session = session();
    let (pace, behind) = (session.pace, session.behind);
    let options: Vec<_> = Pace::ALL
        .into_iter()
        .map(|choice| {
            let chosen = flag(move || pace.get() == choice);
            view! { <option value=choice.key() prop:selected=chosen>{choice.word()}</option> }
        })
        .collect();
    let setter = session.clone();
    let choose = move |event| setter.set_pace(Pace::read(&event_target_value(&event)));
    let once = is_read_once();
    let refresh = maybe(move || {
        let session = session.clone();
        (behind.get() || once.get()).then(|| {
            view! {
                <button
                    type="button"
                    class="button"
                    data-testid="refresh-now"
                    on:click=move |_| session.read_again()
                >
                    "Refresh"
                </button>
            }
        })
    });
    view! {
        {refresh}
        <select
            class="pace"
            hidden=flag(move || once.get())
            aria-label="Refresh"
            title="How often changes are taken in"
            data-testid="pace"
            on:change=choose
        >
            {options}
        </select>
    }
}

/// Whether the page that is shown is read when it is opened and when somebody asks, since that takes a service many answers.
fn is_read_once() -> Memo<bool> {
    let path = place::place().path;
    Memo::new(move |_| path.with(|path| ["/projects", "/samplers", "/usage"].contains(&path.as_str())))
}

/// How true the page is: as of when, and whether changes come by themselves.
fn freshness() -> AnyView {
    let session = session();
    let (status, link, refused) = (session.status, session.link, session.refused);
    let (asked_again, now, of_host) = (session.asked_again, session.now, session.clone());
    let held = Memo::new(move |_| session.held_since());
    let once = is_read_once();
    let path = place::place().path;
    let opened = Memo::new(move |_| {
        path.track();
        asked_again.track();
        browser::now()
    });
    let time = Memo::new(move |_| {
        let opened = once.get().then(|| {
            // How far the host's clock is ahead may be learnt later.
            now.track();
            Time::from_millis(opened.get().saturating_add(of_host.ahead()))
        });
        opened.or(held.get()).or(status.with(|s| s.data.as_ref().and_then(|status| status.as_of)))
    });
    let as_of = maybe(move || {
        let time = time.get()?;
        Some(view! {
            <span class="as-of" title=exact(time)>
                <span>"as of "</span>
                <time datetime=time.to_string()>{clock(time)}</time>
            </span>
        })
    });
    let state = Signal::derive(move || {
        let stale = status.with(|s| {
            s.problem.is_some() || s.data.as_ref().is_some_and(|status| status.service.problem.is_some())
        });
        match (refused.with(Option::is_some), link.get(), stale) {
            (true, ..) => ("locked", "Locked", "the token was refused, or there is no such connection"),
            (_, Link::Opening, _) => ("opening", "Connecting", "the event stream is being opened"),
            (_, Link::Paused, _) => ("paused", "Paused", "nothing is read while this page is hidden"),
            (_, Link::Broken, _) => {
                ("broken", "Not live", "the connection to retinker is broken; it is tried again")
            }
            (_, Link::Live, true) => ("stale", "Stale", "the service cannot be read; it is tried again"),
            (_, Link::Live, false) if held.with(Option::is_some) => {
                ("held", "Held", "there are changes that are not shown yet")
            }
            (_, Link::Live, false) if once.get() => ("once", "Read once", "read when it was opened"),
            (_, Link::Live, false) => ("live", "Live", "changes appear by themselves"),
        }
    });
    view! {
        <span class="fresh" data-testid="freshness" data-state=word(move || Some(state.get().0))>
            {as_of}
            <span class="beat" title=word(move || Some(state.get().2))>
                <span class="lamp" aria-hidden="true"></span>
                <span role="status">{word(move || Some(state.get().1))}</span>
            </span>
        </span>
    }
}

/// Light, dark, or as the system has it, in turn.
fn theme_button() -> AnyView {
    let session = session();
    let theme = session.theme;
    let turn = move |_| {
        session.set_theme(match theme.get_untracked() {
            "" => "light",
            "light" => "dark",
            _ => "",
        });
    };
    let label = word(move || {
        Some(match theme.get() {
            "light" => "Light colours; change to dark",
            "dark" => "Dark colours; change to those of the system",
            _ => "Colours of the system; change to light",
        })
    });
    let drawing = move || match theme.get() {
        "light" => "sun",
        "dark" => "moon",
        _ => "system",
    };
    view! {
        <button type="button" class="copy theme" title=label aria-label=label data-testid="theme-toggle" on:click=turn>
            {part(move || icon(drawing()))}
        </button>
    }
}
