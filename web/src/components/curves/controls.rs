//! What changes how curves are seen, and what is told of the step that is looked at.

use crate::prelude::*;
use retinker::wire::time::Time;
use retinker_console::curves::axis::number;
use retinker_console::curves::line::{DASHES, smooth};
use retinker_console::curves::series::{Metric, Series};
use retinker_console::format;

use super::Look;
use crate::components::reactive::{flag, part, text, when, word};
use crate::components::time::exact;

pub(super) fn tools(look: Look) -> AnyView {
    let weight = text(move || {
        let hundredths = look.smoothing.get();
        if hundredths == 0 { "off".to_owned() } else { format!("0.{hundredths:02}") }
    });
    let slide = move |event| {
        look.smoothing.set(event_target_value(&event).parse::<u32>().unwrap_or_default().min(99));
    };
    let losses = [Metric::LossPerToken, Metric::Loss]
        .into_iter()
        .map(|metric| view! { <option value=metric.key()>{metric.name()}</option> })
        .collect::<Vec<_>>();
    let choose = move |event| {
        let key = event_target_value(&event);
        look.loss.set(if key == Metric::Loss.key() { Metric::Loss } else { Metric::LossPerToken });
    };
    view! {
        <div class="chart-tools">
            <label>
                <span class="said">"Which loss"</span>
                <select data-testid="curves-loss" on:change=choose>
                    {losses}
                </select>
            </label>
            <label>
                "Smoothing "
                <input
                    type="range"
                    min="0"
                    max="99"
                    prop:value=move || look.smoothing.get().to_string()
                    aria-valuetext=weight
                    data-testid="curves-smoothing"
                    on:input=slide
                />
                <span class="weight">{weight}</span>
            </label>
            <label>
                <input
                    type="checkbox"
                    data-testid="curves-log"
                    prop:checked=flag(move || look.log.get())
                    on:change=move |event| look.log.set(event_target_checked(&event))
                />
                " Logarithmic"
            </label>
            {when(
                move || look.part.with(Option::is_some),
                move || {
                    view! {
                        <button
                            type="button"
                            class="button"
                            data-testid="curves-all"
                            on:click=move |_| look.part.set(None)
                        >
                            "Show all steps"
                        </button>
                    }
                },
            )}
        </div>
    }
}

/// The numbers at the step that is looked at, or at the last one.
pub(super) fn readout(look: Look) -> AnyView {
    // Smoothing goes over all steps: not for every move of the pointer.
    let smoothed: Memo<Vec<Vec<f64>>> = Memo::new(move |_| {
        let weight = f64::from(look.smoothing.get()) / 100.0;
        look.shown.with(|all| match weight > 0.0 {
            true => all.iter().map(|series| smooth(series.column(look.loss.get()), weight)).collect(),
            false => Vec::new(),
        })
    });
    let body = part(move || {
        let at = look.at.get();
        let names = look.names.get();
        let weighted = look.smoothing.get() > 0;
        look.shown.with(|all| {
            let lines = all.iter().enumerate().map(|(index, series)| {
                let name = names.get(index).cloned().unwrap_or_default();
                let name = (all.len() > 1).then_some(name);
                let average = smoothed.with(|smoothed| {
                    let at = place(series, at)?;
                    smoothed.get(index).and_then(|line| line.get(at).copied())
                });
                line(index, series, name, look.loss.get(), at, average.filter(|_| weighted))
            });
            lines.collect::<Vec<_>>().into_any()
        })
    });
    // Read aloud when a step was chosen, not whenever a run takes one.
    let aloud = word(move || Some(if look.at.with(Option::is_some) { "polite" } else { "off" }));
    view! {
        <div aria-live=aloud data-testid="curves-readout">
            <ul class="readout">{body}</ul>
        </div>
    }
}

/// Where the step stands in a run; of no step: its last.
fn place(series: &Series, at: Option<u64>) -> Option<usize> {
    match at {
        Some(step) => series.at(step),
        None => series.steps.len().checked_sub(1),
    }
}

fn line(
    index: usize,
    series: &Series,
    name: Option<String>,
    loss: Metric,
    at: Option<u64>,
    average: Option<f64>,
) -> AnyView {
    let found = place(series, at);
    let told = match found {
        Some(found) => {
            let of = |metric: Metric| series.column(metric).get(found).copied().unwrap_or(f64::NAN);
            let step = series.steps.get(found).copied().unwrap_or_default();
            let average = average.map_or_else(String::new, |value| format!(" (smoothed {})", number(value)));
            format!(
                "step {} · loss {}{average} · learning rate {} · gradient {}",
                format::count(step),
                number(of(loss)),
                number(of(Metric::LearningRate)),
                number(of(Metric::GradNorm))
            )
        }
        None => format!("no step {}", at.map_or_else(String::new, format::count)),
    };
    let when = found.and_then(|found| series.times.get(found)).map(|at| exact(Time::from_millis(*at)));
    let swatch = name.is_some().then(|| swatch(index));
    view! {
        <li data-line=index.to_string() title=when>
            {swatch}
            {name.map(|name| view! { <strong class="name">{name}</strong> })}
            <span>{told}</span>
        </li>
    }
}

/// A piece of a run's line, as in the charts.
pub(crate) fn swatch(index: usize) -> AnyView {
    let dashes = DASHES.get(index).copied().unwrap_or_default();
    view! {
        <svg class="swatch" aria-hidden="true" focusable="false" width="34" height="10" viewBox="0 0 34 10">
            <path class="line" data-line=index.to_string() stroke-dasharray=dashes d="M1 5H33"></path>
        </svg>
    }
}
