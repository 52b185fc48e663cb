//! Reads the rows that are looked at, and again what has changed of them.

use std::time::Duration;

use crate::prelude::*;
use futures_channel::mpsc;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use retinker_console::address::View;
use retinker_console::held::{Because, Held};
use retinker_console::pace::Pace;

use super::list::List;
use crate::browser;
use crate::live::{AFTER_FAILURE, CALM, Session, session, until_cleanup};

/// Why the list may have to be read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wake {
    /// Somebody looks at a part of it that may not be there.
    Moved,
    /// Somebody asks for it.
    Asked,
    /// Something has changed.
    Changed,
}

/// Keeps the list's rows as the host has them.
pub(super) fn follow(list: List) {
    let session = session();
    let view = Memo::new(move |_| list.shown.with(|shown| View { columns: None, ..shown.clone() }));
    let asked = Memo::new(move |_| list.frame().asked());
    let unpointed = Memo::new(move |_| !list.pointed.get() && list.held.with(Held::is_withheld));
    Effect::new(move |_| {
        let view = view.get();
        list.busy.set(true);
        let (wake, waiting) = mpsc::unbounded();
        let (changed, released, asked_for) = (wake.clone(), wake.clone(), wake.clone());
        Effect::new(move |_| {
            asked.track();
            let _ = wake.unbounded_send(Wake::Moved);
        });
        Effect::new(move |before: Option<u64>| {
            let now = list.release.get();
            if before.is_some_and(|before| before != now) {
                let _ = asked_for.unbounded_send(Wake::Asked);
            }
            now
        });
        Effect::new(move |_| {
            session.any_change.track();
            let _ = changed.unbounded_send(Wake::Changed);
        });
        Effect::new(move |_| {
            if unpointed.get() {
                let _ = released.unbounded_send(Wake::Asked);
            }
        });
        until_cleanup(Box::pin(read(session.clone(), list, view, asked, waiting)));
    });
}

/// How long a list stays as it is though nothing changes: time passes by filters that tell of it.
fn passing(view: &View) -> Duration {
    match ["age", "expires"].iter().any(|field| view.q.contains(field)) {
        true => Duration::from_secs(30),
        false => Duration::MAX,
    }
}

/// Reads whenever it is woken: at once for who looks elsewhere or asks, calmly for what has changed.
async fn read(
    session: Session,
    list: List,
    view: View,
    asked: Memo<(u64, u64)>,
    mut waiting: mpsc::UnboundedReceiver<Wake>,
) {
    let (mut due, mut last, mut again) = (false, 0, Duration::MAX);
    // The part that was read last.
    let mut held = None;
    loop {
        let rest = match due {
            true => CALM.saturating_sub(Duration::from_millis(browser::now().abs_diff(last))),
            false => again,
        };
        let mut looked = false;
        match select(waiting.next(), session.host.sleep(rest)).await {
            Either::Left((None, _)) => return,
            Either::Left((Some(first), _)) => {
                let mut wakes = vec![first];
                while let Ok(more) = waiting.try_recv() {
                    wakes.push(more);
                }
                let elsewhere = held != Some(asked.get_untracked());
                looked = wakes.contains(&Wake::Asked) || (wakes.contains(&Wake::Moved) && elsewhere);
                if !looked && !wakes.contains(&Wake::Changed) {
                    continue;
                }
                if !looked && browser::now().abs_diff(last) < CALM.as_millis() as u64 {
                    due = true;
                    continue;
                }
            }
            Either::Right(_) => {}
        }
        due = false;
        let range = asked.get_untracked();
        let mut because =
            if looked { Because::Looked } else { Because::Changed { pointed: list.pointed.get_untracked() } };
        loop {
            let query = list.held.with_untracked(|held| held.query(&view, range, because));
            let answer = session.host.runs(&query).await;
            last = browser::now();
            match answer {
                Ok(window) => {
                    // Where the pointer is by now decides, not where it was when the list was asked for.
                    if because != Because::Looked {
                        because = Because::Changed { pointed: list.pointed.get_untracked() };
                    }
                    let mut enough = true;
                    list.held.update(|held| enough = held.take(&view, range, because, window));
                    list.problem.set(None);
                    let live = session.pace.get_untracked() == Pace::Live;
                    (again, held) = (if live { passing(&view) } else { Duration::MAX }, Some(range));
                    if !enough {
                        because = Because::Looked;
                        continue;
                    }
                }
                Err(problem) => {
                    again = AFTER_FAILURE;
                    session.notice(&problem);
                    list.problem.set(Some(problem));
                }
            }
            break;
        }
        list.busy.set(false);
    }
}
