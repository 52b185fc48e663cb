//! The projects that sessions belong to.

use std::time::Duration;

use crate::prelude::*;
use retinker::host::sessions::{ProjectRow, Projects};
use retinker_console::address::{asking, member};
use retinker_console::format;
use retinker_console::palette::folded;

use super::parts::{project_link, tabs, waiting};
use crate::components::banner::{kept, own_problem, problems};
use crate::components::figures::{cell, figures};
use crate::components::page_head::page_head;
use crate::components::reactive::{maybe, nothing};
use crate::components::search::{Field, form, typing};
use crate::live::{Loaded, load, session};
use crate::place::place;

/// Typing filters this long after the last letter.
const TYPING: Duration = Duration::from_millis(100);

/// The page `/projects`.
pub(crate) fn projects_page() -> AnyView {
    // Counting takes many questions on a large service, so it is done once, and when it is asked for.
    let projects: RwSignal<Loaded<Projects>> =
        load(Memo::new(|_| ()), session().asked_again, true, |host, ()| {
            Box::pin(async move { host.projects().await })
        });
    let place = place();
    let sought = Memo::new(move |_| place.query.with(|query| member(query, "q").unwrap_or_default()));
    let typed = typing(sought, TYPING, move |q| place.go(&asking("/projects", &[("q", &q)]), true));
    view! {
        {page_head("Projects", nothing())}
        {tabs("/projects")}
        {form(
            Field {
                testid: "projects-search",
                said: "Look for projects by their id",
                placeholder: "Find: a project",
                most: "2000",
                of: None,
            },
            typed,
        )}
        {problems(own_problem(projects), kept(projects))}
        {waiting(projects, "Counting what is in the projects…")}
        {maybe(move || {
            let sought = folded(&sought.get());
            projects.with(|p| p.data.as_ref().map(|data| table(data, &sought)))
        })}
    }
}

/// Those whose ids hold this text.
fn table(projects: &Projects, sought: &str) -> AnyView {
    const HEADS: [(&str, &str); 6] = [
        ("", "Project"),
        ("number", "Sessions"),
        ("number", "Active"),
        ("number", "Failed"),
        ("number", "Checkpoints"),
        ("number", "Size"),
    ];
    if !projects.offered {
        return view! { <p class="note" data-testid="no-projects">"This service has no projects."</p> };
    }
    let found = projects.projects.iter().filter(|row| folded(&row.project_id).contains(sought));
    let rows: Vec<_> = found.map(row).collect();
    let none = (rows.is_empty() && !sought.is_empty())
        .then(|| view! { <p class="empty" data-testid="projects-no-match">"No project matches."</p> });
    let part = (!projects.whole)
        .then(|| view! { <p class="quiet">"Counted over the newest 10,000 sessions; there are more."</p> });
    view! {
        {figures("Projects", "projects-table", &HEADS, rows)}
        {none}
        {part}
    }
}

fn row(row: &ProjectRow) -> AnyView {
    let ProjectRow { project_id, sessions, active, failed, checkpoints, storage_bytes } = row;
    view! {
        <tr role="row" data-testid="project-row">
            <th role="rowheader" scope="row">
                {project_link(Some(project_id.clone()).filter(|id| !id.is_empty()))}
            </th>
            {cell("sessions", format::count(*sessions))} {cell("active", format::count(*active))}
            {cell("failed", format::count(*failed))} {cell("checkpoints", format::count(*checkpoints))}
            {cell("size", format::bytes(*storage_bytes))}
        </tr>
    }
}
