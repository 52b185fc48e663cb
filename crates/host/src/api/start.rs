//! What gets a newcomer to a first run.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use retinker::host::api::GettingStarted;

use super::Host;
use crate::host::Shared;
use crate::problem::Problem;
use crate::snippets;

pub(super) async fn start(State(host): Host) -> Json<GettingStarted> {
    Json(getting_started(&host))
}

/// Begins the demonstration. Where it cannot be, nothing is begun: it takes a trainer's memory away.
pub(super) async fn begin_demo(State(host): Host) -> Result<Json<GettingStarted>, Problem> {
    let demo = host.demo().filter(|_| host.offers_demo()).ok_or_else(|| {
        Problem::new(
            StatusCode::CONFLICT,
            "no_demo",
            "The demonstration is for an embedded service without runs, and begins once.",
            "Start `retinker up --data-dir DIR` with an empty directory.",
        )
    })?;
    demo.begin.notify_one();
    Ok(Json(getting_started(&host)))
}

fn getting_started(host: &Shared) -> GettingStarted {
    let service = &host.service;
    GettingStarted {
        snippets: snippets::first_run(&service.base_url, service.kind, &host.base_models()),
        demo: host.offers_demo(),
    }
}
