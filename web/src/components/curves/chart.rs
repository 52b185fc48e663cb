//! One chart: drawn, and looked into by pointer and by keyboard.

use crate::prelude::*;
use leptos::ev::{KeyboardEvent, PointerEvent};
use retinker_console::curves::drawing::{self, ABOVE, Drawing, LEFT, RIGHT};
use retinker_console::curves::line::DASHES;
use retinker_console::curves::series::{Metric, Series, zoom};
use retinker_console::format;

use super::Look;
use crate::browser;
use crate::components::reactive::{maybe, part};

const HIGH: f64 = 240.0;
const LOW: f64 = 150.0;

/// A drag of fewer steps than this share of what is shown is a click.
const SHORT: f64 = 0.01;

/// A chart of a metric; a tall one is the loss.
pub(super) fn chart(look: Look, metric: Signal<Metric>, tall: bool) -> AnyView {
    let id = if tall { "chart-main" } else { metric.get_untracked().key() };
    let height = if tall { HIGH } else { LOW };
    let width = RwSignal::new(600.0);
    let measure = move || {
        if let Some(now) = browser::width_of(id) {
            width.set(now);
        }
    };
    request_animation_frame(measure);
    let listener = window_event_listener_untyped("resize", move |_| measure());
    on_cleanup(move || listener.remove());
    let drawing = Memo::new(move |_| {
        let seen = drawing::Look {
            part: look.part.get(),
            smoothing: f64::from(look.smoothing.get()) / 100.0,
            log: look.log.get() && metric.get() != Metric::LearningRate,
            size: (width.get(), height),
        };
        look.shown.with(|all| drawing::draw(all, metric.get(), &seen))
    });
    let name = Memo::new(move |_| metric.get().name());
    let label = move || {
        let all = drawing.with(|d| d.as_ref().map_or_else(String::new, |d| spoken(d, look)));
        format!(
            "{}{all}. Arrow keys move from step to step, plus and minus zoom, 0 shows everything; drag to zoom.",
            name.get()
        )
    };
    let picture = part(move || match drawing.get() {
        Some(drawing) => picture(&drawing, look, height),
        None => view! { <p class="quiet">"There are no numbers to draw here."</p> },
    });
    let step_at = move |event: &PointerEvent| {
        let (x, width) = drawing.with_untracked(|d| d.as_ref().map(|d| (d.x, width.get_untracked())))?;
        // The picture is as wide as it was measured, or drawn smaller where a bar to scroll by has come since.
        let place = (f64::from(event.client_x()) - browser::left_of(id)?) * width / browser::width_of(id)?;
        // Not by `clamp`, which brings along the code that prints a fraction.
        Some(x.value(place.max(LEFT).min((width - RIGHT).max(LEFT))))
    };
    let moved = move |event: PointerEvent| {
        let Some(step) = step_at(&event) else { return };
        look.at.set(nearest(look, step));
        look.marked.update(|marked| {
            if let Some((_, to)) = marked {
                *to = step;
            }
        });
    };
    let pressed = move |event: PointerEvent| {
        if event.button() == 0 {
            look.marked.set(step_at(&event).map(|step| (step, step)));
        }
    };
    let released = move |_| {
        let Some((from, to)) = look.marked.get_untracked() else { return };
        look.marked.set(None);
        let (low, high) = (from.min(to), from.max(to));
        let shown = drawing.with_untracked(|d| d.as_ref().map(|d| d.x.high - d.x.low));
        if shown.is_some_and(|shown| high - low > shown * SHORT) {
            look.part.set(whole(look).and_then(|all| zoom((low, high), all, (low + high) / 2.0, 1.0)));
        }
    };
    let left = move |_| {
        look.marked.set(None);
        look.at.set(None);
    };
    view! {
        <figure class=if tall { "chart chart-tall" } else { "chart" } data-metric=move || metric.get().key()>
            <figcaption>{name.signal()}</figcaption>
            <div
                id=id
                class="plot"
                role="application"
                aria-roledescription="chart"
                aria-label=label
                tabindex="0"
                on:pointermove=moved
                on:pointerdown=pressed
                on:pointerup=released
                on:pointerleave=left
                on:dblclick=move |_| look.part.set(None)
                on:keydown=move |event| keys(&event, look)
            >
                {picture}
            </div>
        </figure>
    }
}

/// What the picture shows, for those who do not see it.
fn spoken(drawing: &Drawing, look: Look) -> String {
    let runs = look.shown.with(Vec::len) as u64;
    format!(
        " of {}, steps {} to {}, from {} to {}",
        format::counted(runs, "run", "runs"),
        drawing.x.low.ceil() as i64,
        drawing.x.high.floor() as i64,
        retinker_console::curves::axis::number(drawing.y.low),
        retinker_console::curves::axis::number(drawing.y.high)
    )
}

fn whole(look: Look) -> Option<(f64, f64)> {
    look.shown.with_untracked(|all| drawing::whole(all))
}

/// The step of any run that is nearest to this one.
fn nearest(look: Look, step: f64) -> Option<u64> {
    look.shown.with_untracked(|all| {
        let near = |series: &Series| series.nearest(step).and_then(|at| series.steps.get(at).copied());
        all.iter()
            .filter_map(near)
            .min_by(|a, b| (*a as f64 - step).abs().total_cmp(&(*b as f64 - step).abs()))
    })
}

fn keys(event: &KeyboardEvent, look: Look) {
    if event.ctrl_key() || event.meta_key() || event.alt_key() {
        return;
    }
    let Some(all) = whole(look) else { return };
    let shown = look.part.get_untracked().unwrap_or(all);
    let at = look.at.get_untracked().map_or((shown.0 + shown.1) / 2.0, |at| at as f64);
    // The next step may be far: a service keeps only the newest, and runs begin where others ended.
    let stride = if event.shift_key() { ((shown.1 - shown.0) / 20.0).max(1.0) } else { 1.0 };
    let go = |step: f64, forth: bool| {
        let next = look.shown.with_untracked(|all| {
            let steps = all.iter().filter_map(|series| {
                let after = series.steps.partition_point(|known| (*known as f64) < step);
                let exact = series.steps.get(after).is_some_and(|known| *known as f64 == step);
                let index = if forth || exact { Some(after) } else { after.checked_sub(1) };
                index.and_then(|index| series.steps.get(index).copied())
            });
            if forth { steps.min() } else { steps.max() }
        });
        if let Some(next) = next {
            look.at.set(Some(next));
            // What is looked at is in sight.
            let next = next as f64;
            if next < shown.0 || next > shown.1 {
                look.part.set(zoom(
                    (next - (shown.1 - shown.0) / 2.0, next + (shown.1 - shown.0) / 2.0),
                    all,
                    next,
                    1.0,
                ));
            }
        }
    };
    match event.key().as_str() {
        "ArrowLeft" => go((at - stride).ceil(), false),
        "ArrowRight" => go((at + stride).floor(), true),
        "Home" => go(shown.0.ceil(), true),
        "End" => go(shown.1.floor(), false),
        "+" | "=" => look.part.set(zoom(shown, all, at, 0.5)),
        "-" => look.part.set(zoom(shown, all, at, 2.0)),
        "0" => look.part.set(None),
        "Escape" => look.at.set(None),
        _ => return,
    }
    event.prevent_default();
}

fn picture(drawing: &Drawing, look: Look, height: f64) -> AnyView {
    let (x, y) = (drawing.x, drawing.y);
    let width = x.to + RIGHT;
    let whole = |place: f64| (place.round() as i64).to_string();
    let down = drawing
        .x_ticks
        .iter()
        .map(|tick| {
            let place = whole(x.place(tick.value));
            view! {
                <line x1=place.clone() x2=place.clone() y1=whole(ABOVE) y2=whole(y.from)></line>
                <text x=place y=whole(height - 5.0) text-anchor="middle">
                    {tick.label.clone()}
                </text>
            }
        })
        .collect::<Vec<_>>();
    let across = drawing
        .y_ticks
        .iter()
        .map(|tick| {
            let place = y.place(tick.value);
            view! {
                <line x1=whole(LEFT) x2=whole(x.to) y1=whole(place) y2=whole(place)></line>
                <text x=whole(LEFT - 6.0) y=whole(place + 4.0) text-anchor="end">
                    {tick.label.clone()}
                </text>
            }
        })
        .collect::<Vec<_>>();
    let marks = drawing
        .marks
        .iter()
        .map(|(place, run_id)| {
            let place = whole(*place);
            view! {
                <g class="restored-mark" data-testid="restored-mark" data-run-id=run_id.clone()>
                    <line x1=place.clone() x2=place y1=whole(ABOVE) y2=whole(y.from)></line>
                    <title>{format!("Restored as {run_id}")}</title>
                </g>
            }
        })
        .collect::<Vec<_>>();
    let lines = drawing
        .lines
        .iter()
        .enumerate()
        .map(|(index, (raw, smoothed))| {
            let dashes = DASHES.get(index).copied().unwrap_or_default();
            let raw_class = if smoothed.is_empty() { "line" } else { "line faint" };
            view! {
                <path class=raw_class data-line=index.to_string() stroke-dasharray=dashes d=raw.clone()></path>
                <path class="line" data-line=index.to_string() stroke-dasharray=dashes d=smoothed.clone()></path>
            }
        })
        .collect::<Vec<_>>();
    let inner = (x.to - LEFT, y.from - ABOVE);
    // The plot is a picture of its own in tenths of a pixel, which cuts off what leaves it.
    view! {
        <svg viewBox=format!("0 0 {} {}", whole(width), whole(height)) aria-hidden="true" focusable="false">
            <g class="grid">{down} {across}</g>
            {marked(drawing, look)}
            <svg
                x=whole(LEFT)
                y=whole(ABOVE)
                width=whole(inner.0)
                height=whole(inner.1)
                viewBox=format!("0 0 {} {}", whole(inner.0 * 10.0), whole(inner.1 * 10.0))
                preserveAspectRatio="none"
            >
                {lines}
            </svg>
            {marks}
            {crosshair(drawing, look)}
        </svg>
    }
}

/// The step that is looked at.
fn crosshair(drawing: &Drawing, look: Look) -> AnyView {
    let (x, y) = (drawing.x, drawing.y);
    maybe(move || {
        let step = look.at.get()? as f64;
        if step < x.low || step > x.high {
            return None;
        }
        let place = (x.place(step).round() as i64).to_string();
        let ends = ((ABOVE as i64).to_string(), (y.from as i64).to_string());
        Some(view! { <line class="crosshair" x1=place.clone() x2=place y1=ends.0 y2=ends.1></line> })
    })
}

/// The part that is being marked.
fn marked(drawing: &Drawing, look: Look) -> AnyView {
    let (x, y) = (drawing.x, drawing.y);
    maybe(move || {
        let (from, to) = look.marked.get()?;
        let (left, right) = (x.place(from.min(to)).max(x.from), x.place(from.max(to)).min(x.to));
        let size = |length: f64| (length.round().max(0.0) as i64).to_string();
        Some(view! {
            <rect class="marked" x=size(left) y=size(ABOVE) width=size(right - left) height=size(y.from - ABOVE)></rect>
        })
    })
}
