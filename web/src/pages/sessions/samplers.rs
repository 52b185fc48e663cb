//! The samplers of the newest sessions.

use std::time::Duration;

use crate::prelude::*;
use retinker::host::sessions::SamplerWindow;
use retinker_console::address::{asking, member};
use retinker_console::format;

use super::parts::{sampler, tabs, waiting};
use crate::components::banner::{kept, own_problem, problems};
use crate::components::page_head::page_head;
use crate::components::reactive::{maybe, nothing};
use crate::components::search::{Field, form, typing};
use crate::live::{Loaded, load, session};
use crate::place::place;

/// Typing asks for a new list this long after the last letter.
const TYPING: Duration = Duration::from_millis(400);

/// The page `/samplers`.
pub(crate) fn samplers_page() -> AnyView {
    let place = place();
    let sought = Memo::new(move |_| place.query.with(|query| member(query, "q").unwrap_or_default()));
    // Each is asked about by itself, so they are read once, and when it is asked for.
    let window: RwSignal<Loaded<SamplerWindow>> =
        load(sought, session().asked_again, true, |host, q: String| {
            Box::pin(async move { host.samplers(&q).await })
        });
    let typed = typing(sought, TYPING, move |q| place.go(&asking("/samplers", &[("q", &q)]), true));
    view! {
        {page_head("Samplers", nothing())}
        {tabs("/samplers")}
        {form(
            Field {
                testid: "samplers-search",
                said: "Look for samplers by their id, session, base model or checkpoint",
                placeholder: "Find: an id, a base model, a checkpoint",
                most: "2000",
                of: None,
            },
            typed,
        )}
        {problems(own_problem(window), kept(window))}
        {waiting(window, "Reading the samplers…")}
        {maybe(move || window.with(|w| w.data.as_ref().map(list)))}
    }
}

fn list(window: &SamplerWindow) -> AnyView {
    let told = match (window.offered, window.rows.is_empty()) {
        (false, _) => "This service tells nothing of samplers.".to_owned(),
        (true, true) => "No sampler is found".to_owned(),
        (true, false) => format::counted(window.rows.len() as u64, "sampler", "samplers"),
    };
    let of = format!("{told} in the newest {}.", format::counted(window.sessions, "session", "sessions"));
    let of = match window.unread {
        _ if window.sessions == 0 && !window.rows.is_empty() => format!("{told} of this id."),
        0 => of,
        unread => format!("{of} {} more were not looked at.", format::count(unread)),
    };
    let rows: Vec<_> = window.rows.iter().cloned().map(sampler).collect();
    view! {
        <p class="quiet" role="status" data-testid="samplers-total">
            {if window.offered { of } else { told }}
        </p>
        <ul class="session-samplers" data-testid="samplers">
            {rows}
        </ul>
    }
}
