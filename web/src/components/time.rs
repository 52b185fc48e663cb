//! Points in time: relative on the page, exact on hover and to programs.

use crate::prelude::*;
use retinker::wire::time::Time;
use retinker_console::format;

use super::reactive::flag;
use crate::browser;
use crate::live::{Session, session};

/// When something happened.
pub(crate) fn when_it_was(time: Time) -> AnyView {
    relative(time, format::relative, i64::MIN)
}

/// What expires within a day is bold.
const SOON_MS: i64 = 24 * 3600 * 1000;

/// When something expires; `None` = never. Bold when that is within a day.
pub(crate) fn expiry(time: Option<Time>) -> AnyView {
    match time {
        Some(time) => relative(time, format::until, SOON_MS),
        None => view! { <span class="quiet">"never"</span> },
    }
}

/// When something expires, to the second as it comes near; `None` = never. Bold when that is within a day.
pub(crate) fn countdown(time: Option<Time>) -> AnyView {
    match time {
        Some(time) => relative(time, format::countdown, SOON_MS),
        None => view! { <span class="quiet">"never"</span> },
    }
}

fn relative(time: Time, word: fn(i64, i64) -> String, soon_ms: i64) -> AnyView {
    let now = session().now;
    let then = time.as_millis();
    // A memo, so that the page is touched only when the word changes and not every second.
    let text = Memo::new(move |_| word(now.get(), then));
    let soon = flag(move || then.saturating_sub(now.get()) < soon_ms);
    view! { <time class:soon=soon datetime=time.to_string() title=exact(time)>{text.signal()}</time> }
}

/// A point in time to the second, as the viewer's clock has it.
pub(crate) fn exact(time: Time) -> String {
    format::exact(time, browser::offset_minutes(time))
}

/// A time of day to the second, as the viewer's clock has it, with its date on any other day than today.
pub(crate) fn clock(time: Time) -> String {
    // By the host's clock: this browser's may be wrong by days.
    let now = use_context::<Session>().map_or_else(browser::now, |session| session.now.get_untracked());
    format::clock(time, browser::offset_minutes(time), Time::from_millis(now))
}

/// What happened when, folded away under a heading, after what is to be known before.
pub(crate) fn told_at(heading: String, before: Vec<String>, steps: &[(i64, String)]) -> AnyView {
    let steps = steps.iter().map(|(at, message)| {
        let at = Time::from_millis(*at);
        view! {
            <li>
                <time datetime=at.to_string() title=exact(at)>{clock(at)}</time>
                " "
                <span class="break">{message.clone()}</span>
            </li>
        }
    });
    let before = before.into_iter().map(|line| view! { <li class="break">{line}</li> });
    view! {
        <details>
            <summary>{heading}</summary>
            <ol>{before.chain(steps).collect::<Vec<_>>()}</ol>
        </details>
    }
}
