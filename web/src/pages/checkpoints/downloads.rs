//! Downloads, and how they go on.

use std::time::Duration;

use crate::prelude::*;
use leptos::reactive::spawn_local;
use retinker::host::checkpoints::DownloadState;
use retinker_console::format;

use super::Desk;
use super::actions::button;
use crate::browser;
use crate::components::reactive::part;

/// How often it is asked how a download stands.
const EVERY: Duration = Duration::from_millis(500);

/// Begins a download, which the browser carries out: nothing of it passes through the page.
pub(super) fn begin(desk: Desk, path: String) {
    desk.open.set(false);
    let session = desk.session.get_value();
    spawn_local(async move {
        let begun = match session.host.start_download(&path).await {
            Ok(begun) => begun,
            Err(problem) => return desk.refuse(problem),
        };
        browser::save_from(&begun.address);
        let id = begun.id.clone();
        desk.downloads.try_update(|all| all.push(DownloadState { address: String::new(), ..begun }));
        loop {
            session.host.sleep(EVERY).await;
            let state = session.host.download(&id).await;
            let mut over = false;
            let seen = desk.downloads.try_update(|all| {
                let known = all.iter_mut().find(|known| known.id == id)?;
                match state {
                    Ok(state) => *known = state,
                    // A host that was started again knows nothing of it.
                    Err(problem) if problem.code == "download_not_found" => known.problem = Some(problem),
                    // While the host does not answer it is not known.
                    Err(_) => {}
                }
                over = known.done || known.problem.is_some();
                Some(())
            });
            // The page is gone, or nobody wants to know any more.
            if over || seen.flatten().is_none() {
                return;
            }
        }
    });
}

/// What is being downloaded, and what was.
pub(super) fn progress(desk: Desk) -> AnyView {
    part(move || desk.downloads.get().into_iter().map(|one| line(desk, one)).collect::<Vec<_>>().into_any())
}

fn line(desk: Desk, one: DownloadState) -> AnyView {
    let passed = format::bytes(one.received);
    let of = one.about.map(|about| format!(" of about {}", format::bytes(about))).unwrap_or_default();
    let (state, told) = match &one.problem {
        Some(problem) => {
            ("failed", format!("It broke off after {passed}. {} {}", problem.message, problem.hint))
        }
        None if one.done => ("done", format!("All of it was passed to the browser, {passed}.")),
        None => ("running", format!("{passed}{of}")),
    };
    let id = one.id.clone();
    let close = move || desk.downloads.update(|all| all.retain(|known| known.id != id));
    let id = one.id;
    let stop = move || {
        let (session, id) = (desk.session.get_value(), id.clone());
        spawn_local(async move {
            // How it stands then is told to who asks for that anyway.
            if let Err(problem) = session.host.stop_download(&id).await {
                desk.refuse(problem);
            }
        });
    };
    let stop =
        (state == "running").then(|| button("button", "download-stop", "Stop".to_owned(), Box::new(stop)));
    let bar = (state == "running").then(|| {
        let about = one.about.unwrap_or(0).max(one.received).max(1);
        view! {
            <progress max=about.to_string() value=one.received.to_string() aria-label=format!("Download of {}", one.file)></progress>
        }
    });
    view! {
        <section class="note job" data-testid="download-state" data-state=state>
            <strong class="break">{one.file}</strong>
            <span class="quiet" role="status">{told}</span>
            {bar}
            <div class="actions">{stop} {button("button", "download-close", "Close".to_owned(), Box::new(close))}</div>
        </section>
    }
}
