//! The projects that sessions belong to.

use crate::prelude::*;
use retinker::host::sessions::{ProjectRow, Projects};
use retinker_console::format;

use super::parts::{project_link, tabs, waiting};
use crate::components::banner::{kept, own_problem, problems};
use crate::components::figures::{cell, figures};
use crate::components::page_head::page_head;
use crate::components::reactive::{maybe, nothing};
use crate::live::{Loaded, load, session};

/// The page `/projects`.
pub(crate) fn projects_page() -> AnyView {
    // Counting takes many questions on a large service, so it is done once, and when it is asked for.
    let projects: RwSignal<Loaded<Projects>> =
        load(Memo::new(|_| ()), session().asked_again, true, |host, ()| {
            Box::pin(async move { host.projects().await })
        });
    view! {
        {page_head("Projects", nothing())}
        {tabs("/projects")}
        {problems(own_problem(projects), kept(projects))}
        {waiting(projects, "Counting what is in the projects…")}
        {maybe(move || projects.with(|p| p.data.as_ref().map(table)))}
    }
}

fn table(projects: &Projects) -> AnyView {
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
    let rows = projects.projects.iter().map(row).collect();
    let part = (!projects.whole)
        .then(|| view! { <p class="quiet">"Counted over the newest 10,000 sessions; there are more."</p> });
    view! {
        {figures("Projects", "projects-table", &HEADS, rows)}
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
