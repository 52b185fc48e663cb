//! Runs, checkpoints and sessions: looked at and managed.

use std::str::FromStr;

use futures_util::{TryFutureExt, TryStreamExt, stream};
use js_sys::{Promise, Uint8Array};
use retinker::client::{Download, Error, RestClient, Secret};
use retinker::json;
use retinker::wire::account::AuditEventType;
use retinker::wire::run::AccessScope;
use retinker::wire::session::SessionSearchRequest;
use retinker::wire::time::Time;
use serde::Deserialize;
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

use crate::call::{ask, text};
use crate::client::Client;
use crate::failure::{Failure, thrown};
use crate::pages::Pages;

/// The core's [`RestClient`].
#[wasm_bindgen]
pub struct Rest(RestClient);

/// Whose things: the caller's own, where nothing is said.
fn scope(name: Option<String>) -> Result<AccessScope, Failure> {
    match name.as_deref() {
        None | Some("owned") => Ok(AccessScope::Owned),
        Some("accessible") => Ok(AccessScope::Accessible),
        Some(other) => Err(Failure::config(format!("accessScope is 'owned' or 'accessible', not '{other}'"))),
    }
}

#[wasm_bindgen]
impl Rest {
    /// A client over these endpoints.
    #[wasm_bindgen(constructor)]
    pub fn new(client: &Client) -> Rest {
        Rest(RestClient::new(client.api()))
    }

    /// The base models that the server offers.
    pub fn capabilities(&self, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| rest.get_server_capabilities().text().await?)
    }

    /// One run.
    pub fn run(&self, id: String, whose: Option<String>, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| rest.get_training_run_in(&id, scope(whose)?).text().await?)
    }

    /// The run that a checkpoint belongs to.
    #[wasm_bindgen(js_name = runOfPath)]
    pub fn run_of_path(&self, path: String, whose: Option<String>, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| text(
            &rest.get_training_run_by_tinker_path_in(&path, scope(whose)?).await?
        )?)
    }

    /// One page of the runs.
    pub fn runs(
        &self,
        limit: u32,
        offset: f64,
        whose: Option<String>,
        project: Option<String>,
        signal: Option<AbortSignal>,
    ) -> Promise {
        ask!(self, signal, |rest| {
            rest.list_training_runs_in(limit.into(), offset as u64, scope(whose)?, project.as_deref())
                .text()
                .await?
        })
    }

    /// All runs, a page at a time.
    #[wasm_bindgen(js_name = allRuns)]
    pub fn all_runs(
        &self,
        page_size: u32,
        whose: Option<String>,
        project: Option<String>,
    ) -> Result<Pages, JsValue> {
        let whose = scope(whose).map_err(thrown)?;
        Ok(Pages::new(self.0.training_runs_in(page_size.into(), whose, project.as_deref())))
    }

    /// The checkpoints of a run.
    pub fn checkpoints(&self, run_id: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| rest.list_checkpoints(&run_id).text().await?)
    }

    /// One page of the checkpoints of all runs.
    #[wasm_bindgen(js_name = userCheckpoints)]
    pub fn user_checkpoints(&self, limit: u32, offset: f64, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| rest.list_user_checkpoints(limit.into(), offset as u64).text().await?)
    }

    /// All of them, a page at a time.
    #[wasm_bindgen(js_name = allUserCheckpoints)]
    pub fn all_user_checkpoints(&self, page_size: u32) -> Pages {
        Pages::new(self.0.user_checkpoints(page_size.into()))
    }

    /// What a checkpoint fits.
    #[wasm_bindgen(js_name = weightsInfo)]
    pub fn weights_info(&self, path: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| rest.get_weights_info_by_tinker_path(&path).text().await?)
    }

    /// Lets a checkpoint live for so many seconds; without a number for ever.
    #[wasm_bindgen(js_name = setTtl)]
    pub fn set_ttl(&self, path: String, seconds: Option<f64>, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| {
            text(
                &rest
                    .set_checkpoint_ttl_from_tinker_path(&path, seconds.map(|seconds| seconds as u64))
                    .await?,
            )?
        })
    }

    /// Deletes a checkpoint.
    #[wasm_bindgen(js_name = deleteCheckpoint)]
    pub fn delete_checkpoint(&self, path: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| text(&rest.delete_checkpoint_from_tinker_path(&path).await?)?)
    }

    /// Lets everybody load a checkpoint.
    pub fn publish(&self, path: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| text(&rest.publish_checkpoint_from_tinker_path(&path).await?)?)
    }

    /// Takes that back.
    pub fn unpublish(&self, path: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| text(&rest.unpublish_checkpoint_from_tinker_path(&path).await?)?)
    }

    /// Where an archive of a checkpoint's files can be had for a while.
    #[wasm_bindgen(js_name = archiveAddress)]
    pub fn archive_address(&self, path: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| text(&rest.checkpoint_archive_address(&path).await?.expose())?)
    }

    /// That archive, a piece at a time.
    #[wasm_bindgen(js_name = downloadArchive)]
    pub fn download_archive(&self, path: String) -> Pages {
        let rest = self.0.clone();
        let opened = async move {
            let address = rest.checkpoint_archive_address(&path).await?;
            Download::open(rest.api(), &format!("checkpoint {path}"), &address, 0).await
        };
        let pieces = opened.map_ok(|download| {
            stream::try_unfold(download, async |mut download| {
                Ok(download.next().await?.map(|piece| (Uint8Array::from(&*piece).into(), download)))
            })
        });
        Pages::of(pieces.try_flatten_stream().map_err(|error: Error| error.into()))
    }

    /// Where the files of an external checkpoint can be had for a while.
    #[wasm_bindgen(js_name = externalWeights)]
    pub fn external_weights(&self, path: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| text(&rest.get_external_weights_urls(&path).await?)?)
    }

    /// Copies a checkpoint; gives the copy's path.
    pub fn copy(
        &self,
        path: String,
        project: Option<String>,
        ttl_seconds: Option<f64>,
        token: Option<String>,
        signal: Option<AbortSignal>,
    ) -> Promise {
        let (ttl, token) = (ttl_seconds.map(|seconds| seconds as u64), token.map(Secret::new));
        ask!(self, signal, |rest| text(
            &rest.copy_weights(&path, project.as_deref(), ttl, token.as_ref()).await?
        )?)
    }

    /// One page of session ids.
    pub fn sessions(
        &self,
        limit: u32,
        offset: f64,
        whose: Option<String>,
        signal: Option<AbortSignal>,
    ) -> Promise {
        ask!(self, signal, |rest| {
            rest.list_sessions_in(limit.into(), offset as u64, scope(whose)?).text().await?
        })
    }

    /// All session ids, a page at a time.
    #[wasm_bindgen(js_name = allSessions)]
    pub fn all_sessions(&self, page_size: u32, whose: Option<String>) -> Result<Pages, JsValue> {
        let whose = scope(whose).map_err(thrown)?;
        Ok(Pages::new(self.0.sessions_in(page_size.into(), whose)))
    }

    /// The runs and samplers of a session.
    pub fn session(&self, id: String, whose: Option<String>, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| rest.get_session_in(&id, scope(whose)?).text().await?)
    }

    /// All sessions that fit, a page at a time. `wanted` is the request as JSON.
    #[wasm_bindgen(js_name = searchSessions)]
    pub fn search_sessions(&self, wanted: &str) -> Result<Pages, JsValue> {
        let wanted: SessionSearchRequest = json::read(wanted.as_bytes()).map_err(thrown)?;
        Ok(Pages::new(self.0.search_sessions(wanted)))
    }

    /// Moves a session into a project.
    #[wasm_bindgen(js_name = assignProject)]
    pub fn assign_project(&self, session: String, project: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| rest.assign_session_project(&session, &project).text().await?)
    }

    /// What a sampler samples from.
    pub fn sampler(&self, id: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| {
            let sampler = rest.get_sampler(&id).text().await?;
            #[cfg(feature = "panics")]
            #[allow(clippy::panic, reason = "it is for the tests of what then happens")]
            if sampler.contains("\"panic\"") {
                panic!("on purpose");
            }
            sampler
        })
    }

    /// Who the credential belongs to.
    pub fn whoami(&self, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| text(&rest.whoami().await?)?)
    }

    /// What was done with the organization's things on one day.
    #[wasm_bindgen(js_name = auditLog)]
    pub fn audit_log(&self, event: String, day: Option<String>, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| {
            let event = AuditEventType::deserialize(serde_json::Value::from(event))?;
            text(&rest.get_audit_log(&event, day.as_deref()).await?)?
        })
    }

    /// Usage between two full hours.
    #[wasm_bindgen(js_name = billingUsage)]
    pub fn billing_usage(&self, from: String, to: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| {
            let time = |text: &str| Time::from_str(text).map_err(Failure::config);
            rest.get_billing_usage(time(&from)?, time(&to)?).text().await?
        })
    }

    /// What checkpoints take now.
    #[wasm_bindgen(js_name = storageUsage)]
    pub fn storage_usage(&self, project: Option<String>, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| rest
            .get_current_checkpoint_storage_usage(project.as_deref())
            .text()
            .await?)
    }

    /// The address of a session's timeline, once it is built.
    #[wasm_bindgen(js_name = exportTrace)]
    pub fn export_trace(&self, session: String, signal: Option<AbortSignal>) -> Promise {
        ask!(self, signal, |rest| text(&rest.export_session_trace(&session).await?)?)
    }
}
