//! What is stored and what is used.

use crate::prelude::*;
use retinker::host::api::ApiProblem;
use retinker::host::usage::{StorageRow, Usage, UsageQuery, UsedRow};
use retinker_console::address::{asking, session_address};
use retinker_console::format;
use retinker_console::sessions::{Shown, USAGE_BY, USAGE_DAYS, money, usage_asked};

use crate::components::banner::problems;
use crate::components::figures::{cell, figures};
use crate::components::page_head::page_head;
use crate::components::placeholder::placeholder;
use crate::components::reactive::{flag, maybe, part, text, when};
use crate::components::time::exact;
use crate::live::{Loaded, load, session};
use crate::place::place;

/// The page `/usage`.
pub(crate) fn usage_page() -> AnyView {
    let here = place();
    let query = Memo::new(move |_| here.query.with(|query| usage_asked(query)));
    // Costs are an hour old at best: they are read when the page is opened and when something else is asked for.
    let usage: RwSignal<Loaded<Usage>> =
        load(query, session().asked_again, true, |host, (by, days): (String, u64)| {
            Box::pin(async move { host.usage(&UsageQuery { days: Some(days), by: Some(by) }).await })
        });
    let own = Signal::derive(move || {
        usage.with(|u| {
            let of_parts = u.data.iter().flat_map(|data| {
                data.storage_problem.clone().into_iter().chain(data.billing_problem.clone())
            });
            u.problem.clone().into_iter().chain(of_parts).collect::<Vec<ApiProblem>>()
        })
    });
    let identity = maybe(move || {
        usage.with(|u| {
            let user = u.data.as_ref()?.user.clone()?;
            let organization = u.data.as_ref()?.organization.clone().unwrap_or_default();
            Some(view! { <p class="shown cut-off" title=organization>{user}</p> })
        })
    });
    let data = Memo::new(move |_| usage.with(|u| u.data.clone()));
    let kept = text(move || match own.with(Vec::is_empty) || data.with(Option::is_none) {
        true => String::new(),
        false => "What could not be read again is as it was read before.".to_owned(),
    });
    view! {
        {page_head("Usage", identity)}
        {problems(own, kept)}
        {when(
            move || usage.with(|u| u.data.is_none() && u.problem.is_none()),
            || placeholder("Reading the usage…", 2),
        )}
        {maybe(move || data.get().map(|data| storage(&data)))}
        {when(
            move || data.with(|data| data.as_ref().is_some_and(|data| data.billing_offered || data.billing_problem.is_some())),
            move || billing(query, data),
        )}
        {when(
            move || data.with(|data| data.as_ref().is_some_and(|data| !data.billing_offered && data.billing_problem.is_none())),
            || {
                view! {
                    <p class="note block" data-testid="no-billing">
                        "This service offers no billing: what runs and samples cost is not told."
                    </p>
                }
            },
        )}
    }
}

fn cost(micros: Option<u64>) -> String {
    micros.map_or_else(|| "–".to_owned(), money)
}

fn storage(data: &Usage) -> AnyView {
    const HEADS: [(&str, &str); 4] =
        [("", "Project"), ("number", "Checkpoints"), ("number", "Size"), ("number", "Cost of a month")];
    let body = if data.storage.is_empty() {
        let told = match (data.storage_offered, data.storage_problem.is_some()) {
            (_, true) => "It could not be read. This does not mean that nothing is stored.",
            (true, _) => "No checkpoint is stored.",
            (false, _) => "This service does not tell what is stored.",
        };
        view! { <p class="quiet" data-testid="no-storage">{told}</p> }
    } else {
        let rows = data.storage.iter().map(stored).collect();
        figures("Storage now", "storage-table", &HEADS, rows)
    };
    let bytes = data.storage.iter().fold(0_u64, |all, row| all.saturating_add(row.bytes));
    let count = data.storage.iter().map(|row| row.checkpoints).sum();
    let total = (!data.storage.is_empty()).then(|| {
        format!("{} in {}", format::bytes(bytes), format::counted(count, "checkpoint", "checkpoints"))
    });
    let note = match (data.storage_from_sessions, data.storage_is_part) {
        (true, true) => "Summed up from the newest 10,000 sessions; there are more, so it is at least this.",
        (true, false) => "Summed up from the sessions; the service tells no costs.",
        (false, _) => "",
    };
    view! {
        <section class="block" aria-labelledby="storage-title">
            <h2 id="storage-title">"Storage now " <span class="quiet" data-testid="storage-total">{total}</span></h2>
            {body}
            <p class="quiet">{note}</p>
        </section>
    }
}

fn stored(row: &StorageRow) -> AnyView {
    let project = match row.project_id.clone() {
        Some(project) => {
            let address = Shown { project: project.clone(), ..Shown::default() }.to_address();
            view! { <a class="break" href=address><bdi>{format::named(&project).to_owned()}</bdi></a> }
        }
        None => view! { <span class="quiet">"of no project"</span> },
    };
    view! {
        <tr role="row" data-testid="storage-row">
            <th role="rowheader" scope="row">
                {project}
                {row.owner.clone().map(|owner| view! { <span class="quiet block break">{owner}</span> })}
            </th>
            {cell("checkpoints", format::count(row.checkpoints))} {cell("size", format::bytes(row.bytes))}
            {cell("a month", cost(row.monthly_micros))}
        </tr>
    }
}

fn billing(query: Memo<(String, u64)>, data: Memo<Option<Usage>>) -> AnyView {
    const HEADS: [(&str, &str); 5] = [
        ("", "What"),
        ("number", "Trained tokens"),
        ("number", "Prompt tokens"),
        ("number", "Sampled tokens"),
        ("number", "Estimated cost"),
    ];
    let ways = USAGE_BY.map(|(value, name)| {
        let chosen = flag(move || query.with(|(by, _)| by == value));
        view! { <option value=value prop:selected=chosen>{name}</option> }
    });
    let spans = USAGE_DAYS.map(|days| {
        let chosen = flag(move || query.with(|(_, known)| *known == days));
        view! { <option value=days.to_string() prop:selected=chosen>{format::counted(days, "day", "days")}</option> }
    });
    let (ways, spans) = (Vec::from(ways), Vec::from(spans));
    let here = place();
    let show = move |by: String, days: String| {
        here.go(&asking("/usage", &[("by", &by), ("days", &days)]), true);
    };
    let (by, days) = (move || query.get_untracked().0, move || query.get_untracked().1.to_string());
    let body = maybe(move || {
        let data = data.get()?;
        let by = query.with_untracked(|(by, _)| by.clone());
        if data.billing_problem.is_some() && data.used.is_empty() {
            return Some(
                view! { <p class="quiet">"It could not be read. This does not mean that nothing was used."</p> },
            );
        }
        if data.used.is_empty() {
            return Some(view! { <p class="quiet">"Nothing was used in this time."</p> });
        }
        let rows = data.used.iter().map(|row| used(row, &by)).collect();
        Some(figures("Used", "used-table", &HEADS, rows))
    });
    let total = text(move || {
        data.with(|data| {
            let costs = data.iter().flat_map(|data| &data.used).filter_map(|row| row.cost_micros);
            costs.reduce(u64::saturating_add).map(money).unwrap_or_default()
        })
    });
    let through = part(move || {
        let through = data.with(|data| data.as_ref().and_then(|data| data.cost_data_through));
        through
            .map(|time| format!("Costs are estimates before credits, from invoices until {}.", exact(time)))
            .into_any()
    });
    view! {
        <section class="block" aria-labelledby="used-title">
            <h2 id="used-title">"Used " <span class="quiet">{total}</span></h2>
            <div class="tools">
                <label class="field">
                    <span class="field-name">"By"</span>
                    <select data-testid="usage-by" on:change=move |event| show(event_target_value(&event), days())>
                        {ways}
                    </select>
                </label>
                <label class="field">
                    <span class="field-name">"In the last"</span>
                    <select data-testid="usage-days" on:change=move |event| show(by(), event_target_value(&event))>
                        {spans}
                    </select>
                </label>
            </div>
            {body}
            <p class="quiet">{through}</p>
        </section>
    }
}

fn used(row: &UsedRow, by: &str) -> AnyView {
    let what = match row.what.as_str() {
        "" => view! { <span class="quiet">"not told"</span> },
        what if by == "session" => {
            view! { <a class="mono break" href=session_address(what)>{format::short_id(what)}</a> }
        }
        what => view! { <span class="break">{what.to_owned()}</span> },
    };
    view! {
        <tr role="row" data-testid="used-row">
            <th role="rowheader" scope="row">
                {what}
            </th>
            {cell("trained", format::count(row.training_tokens))} {cell("prompts", format::count(row.prompt_tokens))}
            {cell("sampled", format::count(row.sampled_tokens))} {cell("cost", cost(row.cost_micros))}
        </tr>
    }
}
