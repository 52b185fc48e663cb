//! What stands in place of rows: while they are read, when there are none, and while the demonstration makes some.

use crate::prelude::*;
use retinker_console::address::View;
use retinker_console::format;

use super::list::List;
use crate::components::placeholder::placeholder;
use crate::components::reactive::{flag, maybe, nothing, part, text, when};
use crate::live::session;

/// Before the first answer: a placeholder while it is awaited, and nothing that could be taken for an empty list
/// when it failed.
pub(super) fn waiting(list: List) -> AnyView {
    when(move || list.problem.with(Option::is_none), || placeholder("Reading the runs…", 6))
}

/// What the demonstration does while it trains.
pub(super) fn demo_note() -> AnyView {
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
        Some(view! {
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
        })
    })
}

/// Why the table has no rows. It says "no runs" only when the service has been read and has none.
pub(super) fn no_rows(list: List) -> AnyView {
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
        let failed = list.problem.with(Option::is_some);
        list.held.with(|held| {
            let whole = held.whole()?;
            Some((whole.total, whole.as_of.is_some(), whole.problem.is_some() || failed))
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
        },
        Some(_) if !list.shown.with(View::is_whole) => {
            let whole = list.shown.with(|shown| shown.with_health(None).with_text("").to_address());
            let strange =
                list.held.with(|held| held.whole().and_then(|whole| whole.no_field.clone())).map(|name| {
                    format!("There is no field \u{201c}{name}\u{201d}: that was looked for as a word. ")
                });
            view! {
                <p class="empty" role="status" data-testid="runs-no-match">
                    "No run matches. "
                    {strange}
                    <a href=whole>"Show all runs"</a>
                </p>
            }
        }
        Some(_) => nothing(),
    })
}
