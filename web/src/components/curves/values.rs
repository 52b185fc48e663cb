//! The numbers behind the curves, as a table: for those who do not see the picture, and those who want the digits.

use crate::prelude::*;
use retinker::direction::isolated;
use retinker_console::curves::axis::number;
use retinker_console::curves::series::{Metric, Series};
use retinker_console::format;

use super::Look;
use crate::browser;
use crate::components::heads::heads;
use crate::components::reactive::{maybe, when};

/// Rows of the table at most: a page of a hundred thousand would hold nothing else.
const ROWS: usize = 100;

pub(super) fn values(look: Look) -> AnyView {
    let open = RwSignal::new(false);
    let body = when(move || open.get(), move || maybe(move || Some(tables(look))));
    view! {
        <details
            class="values"
            data-testid="curves-values"
            on:toggle=move |event| open.set(browser::is_open(&event))
        >
            <summary>"The numbers as a table"</summary>
            {body}
        </details>
    }
}

fn tables(look: Look) -> AnyView {
    let names = look.names.get();
    let part = look.part.get();
    look.shown.with(|all| {
        let tables = all
            .iter()
            .enumerate()
            .map(|(index, series)| table(names.get(index).cloned().unwrap_or_default(), series, part));
        tables.collect::<Vec<_>>().into_any()
    })
}

fn table(name: String, series: &Series, part: Option<(f64, f64)>) -> AnyView {
    const HEADS: [(&str, &str); 5] = [
        ("number", "Step"),
        ("number", "Loss per token"),
        ("number", "Loss of the batch"),
        ("number", "Learning rate"),
        ("number", "Gradient norm"),
    ];
    let (low, high) = part.unwrap_or((f64::MIN, f64::MAX));
    let from = series.steps.partition_point(|step| (*step as f64) < low);
    let to = series.steps.partition_point(|step| *step as f64 <= high);
    let first = from.max(to.saturating_sub(ROWS));
    let rows = (first..to).map(|at| row(series, at)).collect::<Vec<_>>();
    let shown = (to - first) as u64;
    let all = (to - from) as u64;
    let name = isolated(&name);
    let caption = match shown == all {
        true => format!("{name}: {}", format::counted(all, "step", "steps")),
        false => format!("{name}: the last {shown} of {} steps; zoom in for others", format::count(all)),
    };
    let label = format!("Numbers of {name}");
    view! {
        <div class="table-frame" role="region" aria-label=label tabindex="0">
            <table data-testid="curves-table" data-run-id=series.run_id.clone()>
                <caption>{caption}</caption>
                <thead>
                    <tr>{heads(&HEADS)}</tr>
                </thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
}

/// A step: its numbers to five digits, and all digits on hover.
fn row(series: &Series, at: usize) -> AnyView {
    let cells = Metric::ALL
        .into_iter()
        .map(|metric| {
            let value = series.column(metric).get(at).copied().unwrap_or(f64::NAN);
            view! {
                <td class="number" data-metric=metric.key() title=browser::every_digit(value)>
                    {number(value)}
                </td>
            }
        })
        .collect::<Vec<_>>();
    let step = series.steps.get(at).copied().unwrap_or_default();
    view! {
        <tr>
            <th scope="row" class="number">
                {format::count(step)}
            </th>
            {cells}
        </tr>
    }
}
