//! What happened to the run: a small picture, and the same as a list.

use crate::prelude::*;
use retinker::wire::time::Time;
use retinker_console::curves::series::Series;
use retinker_console::timeline::{Moment, moments, places};
use retinker_console::{address, format};

use super::{Detail, Known};
use crate::browser;
use crate::components::curves::Curves;
use crate::components::icon::icon;
use crate::components::reactive::{flag, maybe, text, when};
use crate::components::time::{clock, exact, told_at, when_it_was};
use crate::live::session;

/// Lines that are shown at once; the others on demand, and on paper.
const FEW: usize = 8;

pub(super) fn story(detail: Detail, known: Known, curves: Curves) -> AnyView {
    let now = session().now;
    let minute = Memo::new(move |_| now.get() / 60_000);
    let told = Memo::new(move |_| {
        let now = minute.get().saturating_mul(60_000);
        detail.with(|detail| {
            let Some(detail) = detail.data.as_ref() else { return Vec::new() };
            known.with(|known| {
                curves.all.with(|all| {
                    let times = all.last().map(|series: &Series| series.times.as_slice()).unwrap_or_default();
                    moments(detail, known.data.as_ref(), times, now)
                })
            })
        })
    });
    let all = RwSignal::new(false);
    let picture = maybe(move || told.with(|told| (told.len() > 1).then(|| picture(told))));
    // By their places from the first, the newest on top: what comes later leaves the others as somebody has opened them.
    let places = move || (0..told.with(Vec::len) as u64).rev();
    let list = each(places, move |place: u64| {
        let moment = Memo::new(move |_| told.with(|told| told.get(place as usize).cloned()));
        let from_above =
            Memo::new(move |_| told.with(|told| told.len().saturating_sub(place as usize).saturating_sub(1)));
        let on_paper = flag(move || !all.get() && from_above.get() >= FEW);
        maybe(move || moment.with(|moment| moment.as_ref().map(|moment| line(moment, from_above, on_paper))))
    });
    let show_all = move |_| {
        all.set(true);
        // The button is gone: the keyboard goes on at the first line that it has shown.
        request_animation_frame(|| browser::focus(&line_id(FEW)));
    };
    let more = when(
        move || !all.get() && told.with(Vec::len) > FEW,
        move || {
            let count = move || format!("Show all {}", format::count(told.with(Vec::len) as u64));
            view! {
                <button type="button" class="button" data-testid="timeline-all" on:click=show_all>
                    {count}
                </button>
            }
        },
    );
    view! {
        <section class="panel story-panel" data-testid="timeline">
            <h2>"What happened"</h2>
            {picture}
            <ol class="story">{list}</ol>
            {more}
        </section>
    }
}

/// The story from left to right; the list beneath says the same.
fn picture(told: &[Moment]) -> AnyView {
    let marks = told
        .iter()
        .zip(places(told))
        .map(|(moment, (from, to))| {
            let (from, to) = (tenth(from), tenth(to));
            let length = if to > from { to - from } else { 0 };
            view! { <path data-kind=moment.kind.key() d=format!("M{from} 20h{length}")></path> }
        })
        .collect::<Vec<_>>();
    view! {
        <svg
            class="story-picture"
            aria-hidden="true"
            focusable="false"
            viewBox="0 0 1020 40"
            preserveAspectRatio="none"
            data-testid="timeline-picture"
        >
            <path class="ground" d="M10 20h1000"></path>
            {marks}
        </svg>
    }
}

fn tenth(share: f64) -> i64 {
    10 + (share * 1000.0).round() as i64
}

/// A line of the story, by its place from above.
fn line_id(at: usize) -> String {
    format!("moment-{at}")
}

fn line(moment: &Moment, at: Memo<usize>, on_paper: Signal<bool>) -> AnyView {
    let said = match &moment.run_id {
        Some(run_id) => {
            let address = address::run_address(run_id);
            view! { <a href=address title=run_id.clone()>{moment.text.clone()}</a> }
        }
        None => view! { <span class="break">{moment.text.clone()}</span> },
    };
    let took = (moment.to > moment.from).then(|| {
        let (from, to) = (Time::from_millis(moment.from), Time::from_millis(moment.to));
        view! { <span class="quiet" title=exact(to)>{format!("{} to {}", clock(from), clock(to))}</span> }
    });
    let steps = (!moment.steps.is_empty()).then(|| {
        let count = format::counted(moment.steps.len() as u64, "step", "steps");
        told_at(count, Vec::new(), &moment.steps)
    });
    view! {
        <li
            id=text(move || line_id(at.get()))
            tabindex="-1"
            data-kind=moment.kind.key()
            data-testid="timeline-entry"
            class:on-paper=on_paper
        >
            {icon(moment.kind.icon())}
            <div>
                {said}
                {steps}
            </div>
            <span class="story-when">{when_it_was(Time::from_millis(moment.to))} {took}</span>
        </li>
    }
}
