//! Runs, as they are listed and described.

use axum::Json;
use axum::extract::State;
use retinker_wire::model::{GetInfoRequest, GetInfoResponse, ModelData};
use retinker_wire::run::{Cursor, TrainingRun, TrainingRunsResponse};

use super::body::{Body, PageQuery, Path};
use super::{ApiError, Shared};
use crate::ops::unknown_run;
use crate::time::now_millis;

pub(crate) async fn list(
    State(core): Shared,
    query: PageQuery,
) -> Result<Json<TrainingRunsResponse>, ApiError> {
    let page = query.page(20);
    let index = core.index();
    let (training_runs, total) = match &query.project_id {
        Some(project) => index.project_page(project, page, now_millis()),
        None => (index.runs_page(page, now_millis()), index.run_count()),
    };
    drop(index);
    let cursor = Cursor { offset: page.offset as u64, limit: page.limit as u64, total_count: total as u64 };
    Ok(Json(TrainingRunsResponse { training_runs, cursor }))
}

pub(crate) async fn get(
    State(core): Shared,
    Path(run_id): Path<String>,
) -> Result<Json<TrainingRun>, ApiError> {
    let index = core.index();
    let run = index.run(&run_id).ok_or_else(|| unknown_run(&run_id))?;
    Ok(Json(run.to_wire(now_millis())))
}

pub(crate) async fn get_info(State(core): Shared, body: Body) -> Result<Json<GetInfoResponse>, ApiError> {
    let request: GetInfoRequest = body.json().await?;
    let index = core.index();
    let run = &index.run(&request.model_id).ok_or_else(|| unknown_run(&request.model_id))?.new;
    Ok(Json(GetInfoResponse {
        model_id: request.model_id,
        model_data: ModelData {
            arch: Some("llama".to_owned()),
            model_name: Some(run.base_model.to_string()),
            tokenizer_id: core.tokenizers.join(&*run.base_model).to_str().map(str::to_owned),
        },
        optimizer_config: Some(run.optimizer_config.as_ref().clone()),
        is_lora: Some(true),
        lora_rank: Some(run.lora.rank),
        model_name: Some(run.base_model.to_string()),
    }))
}
