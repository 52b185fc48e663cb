//! Asking for failures, under the service's own prefix.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn;
use axum::routing::any;
use retinker_wire::path::{PathError, TinkerPath};
use serde::Deserialize;

use super::body::{Body, to_the_end};
use super::{ApiError, Shared, guard, routes};
use crate::core::Core;
use crate::faults::{
    API_PREFIX, ActiveFaults, Damage, Damaged, FaultError, Faults, OperationRule, Pause, RequestRule,
    StoppedTrainer,
};

/// Where failures are asked for.
pub(crate) const PREFIX: &str = "/retinker/local/v1/faults";

/// All of it, or the advice to start the service with faults.
pub(crate) fn router(core: Arc<Core>) -> Router {
    let on = core.faults.enabled();
    let router = if on {
        routes::faults().method_not_allowed_fallback(async || ApiError::method_not_allowed()).with_state(core)
    } else {
        let off = async || ApiError::from(FaultError::Off);
        Router::new().route("/", any(off)).route("/{*rest}", any(off))
    };
    router.layer(from_fn(guard::no_pages))
}

impl From<FaultError> for ApiError {
    fn from(error: FaultError) -> Self {
        let detail = error.to_string();
        match error {
            FaultError::Off | FaultError::UnknownRun(_) | FaultError::UnknownCheckpoint(_) => {
                Self::not_found(detail)
            }
            FaultError::Invalid(_) => Self::unprocessable(detail),
            FaultError::NotHeld(_) | FaultError::Corrupted { .. } => Self::conflict(detail),
            FaultError::Storage(_) | FaultError::Stopping => Self::unavailable(detail),
        }
    }
}

type Active = Result<Json<ActiveFaults>, ApiError>;

pub(super) async fn list(State(core): Shared) -> Json<ActiveFaults> {
    Json(Faults::new(core).active())
}

pub(super) async fn clear(State(core): Shared) -> Json<ActiveFaults> {
    let faults = Faults::new(core);
    faults.clear();
    Json(faults.active())
}

pub(super) async fn add_request_rule(State(core): Shared, body: Body) -> Active {
    let rule: RequestRule = body.json().await?;
    check_endpoint(rule.pattern())?;
    let faults = Faults::new(core);
    faults.add_request_rule(rule)?;
    Ok(Json(faults.active()))
}

/// Refuses a name that no endpoint begins with: such a rule would wait for ever.
fn check_endpoint(pattern: &str) -> Result<(), ApiError> {
    let first = pattern.split('/').next().unwrap_or_default();
    let mut known: Vec<&str> =
        routes::API.iter().filter_map(|(_, path)| path.trim_start_matches('/').split('/').next()).collect();
    if first.is_empty() || first.contains('*') || known.contains(&first) {
        return Ok(());
    }
    known.sort_unstable();
    known.dedup();
    Err(ApiError::bad_request(format!(
        "there is no endpoint '{first}' below {API_PREFIX}: endpoints begin with one of {}",
        known.join(", ")
    )))
}

pub(super) async fn add_operation_rule(State(core): Shared, body: Body) -> Active {
    let rule: OperationRule = body.json().await?;
    let faults = Faults::new(core);
    faults.add_operation_rule(rule)?;
    Ok(Json(faults.active()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ColdLoads {
    #[serde(default = "once")]
    times: u32,
}

fn once() -> u32 {
    1
}

pub(super) async fn add_cold_loads(State(core): Shared, body: Body) -> Active {
    let ColdLoads { times } = body.json().await?;
    let faults = Faults::new(core);
    faults.add_cold_loads(times)?;
    Ok(Json(faults.active()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Noise {
    relative: f64,
}

pub(super) async fn set_noise(State(core): Shared, body: Body) -> Active {
    let Noise { relative } = body.json().await?;
    let faults = Faults::new(core);
    faults.set_noise(relative)?;
    Ok(Json(faults.active()))
}

pub(super) async fn pause(State(core): Shared, body: Body) -> Active {
    let pause: Pause = body.json().await?;
    let faults = Faults::new(core);
    faults.pause(pause)?;
    Ok(Json(faults.active()))
}

pub(super) async fn resume(State(core): Shared) -> Json<ActiveFaults> {
    let faults = Faults::new(core);
    faults.resume();
    Json(faults.active())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Poison {
    run_id: String,
    reason: Option<String>,
}

pub(super) async fn poison(State(core): Shared, body: Body) -> Result<Json<serde_json::Value>, ApiError> {
    let Poison { run_id, reason } = body.json().await?;
    let reason = reason.unwrap_or_else(|| "poisoned on purpose".to_owned());
    let answer = serde_json::json!({ "run_id": run_id, "reason": reason });
    to_the_end(async move { Ok(Faults::new(core).poison(&run_id, &reason).await?) }).await?;
    Ok(Json(answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StopTrainer {
    run_id: String,
}

pub(super) async fn stop_trainer(State(core): Shared, body: Body) -> Result<Json<StoppedTrainer>, ApiError> {
    let StopTrainer { run_id } = body.json().await?;
    Ok(Json(Faults::new(core).stop_trainer_of(&run_id).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollBack {
    path: String,
}

pub(super) async fn roll_back(State(core): Shared, body: Body) -> Result<Json<serde_json::Value>, ApiError> {
    let RollBack { path } = body.json().await?;
    let path = checkpoint_path(&path)?;
    Faults::new(core).roll_back(&path).await?;
    Ok(Json(serde_json::json!({ "path": path.to_string() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expire {
    path: String,
}

pub(super) async fn expire(State(core): Shared, body: Body) -> Result<Json<serde_json::Value>, ApiError> {
    let Expire { path } = body.json().await?;
    let path = checkpoint_path(&path)?;
    let answer = serde_json::json!({ "path": path.to_string() });
    to_the_end(async move { Ok(Faults::new(core).expire(&path).await?) }).await?;
    Ok(Json(answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DamageFile {
    path: String,
    file: Option<String>,
    #[serde(default)]
    damage: Damage,
}

pub(super) async fn damage(State(core): Shared, body: Body) -> Result<Json<Damaged>, ApiError> {
    let DamageFile { path, file, damage } = body.json().await?;
    let path = checkpoint_path(&path)?;
    let done = async move { Ok(Faults::new(core).damage(&path, file.as_deref(), damage).await?) };
    Ok(Json(to_the_end(done).await?))
}

fn checkpoint_path(text: &str) -> Result<TinkerPath, ApiError> {
    text.parse().map_err(|e: PathError| ApiError::unprocessable(format!("path: {e}")))
}
