//! The only place that calls the host.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, LocalBoxFuture};
use futures_util::stream::BoxStream;
use retinker::host::api::{
    Activity, ApiProblem, Connections, GettingStarted, HandOver, HostEvent, HostStatus, MonitorState,
    PlanAnswer, PlanBatch, PlannedBatch, RunDetail, RunIds, RunWindow, RunsQuery, StartedRestore,
};
use retinker::host::checkpoints::{
    CheckpointActions, CheckpointOutcomes, CheckpointPaths, CheckpointWindow, CheckpointsQuery,
    DeletePreview, DownloadState, RetentionRequest,
};
use retinker::host::completion::{CompletionQuery, Completions};
use retinker::host::redo::{GoBack, RedoQuery, RedoWindow};
use retinker::host::run::{MetricsQuery, RunEvidence, RunMetrics};
use retinker::host::samples::{SampleRequest, SampleSources, Samples};
use retinker::host::sessions::{Projects, SamplerWindow, SessionDetail, SessionWindow, SessionsQuery};
use retinker::host::usage::{Usage, UsageQuery};
use retinker::host::{HostClient, HostError};
use retinker::recovery::incidents::Incident;
use retinker::recovery::plan::{PlanRequest, RestorePlan};
use retinker::recovery::policy::Gate;
use retinker::recovery::restore::RestoreRecord;
use retinker::runtime::Runtime;
use retinker::web::{WebRuntime, WebTransport};
use retinker_console::words;

/// A call that is under way. Boxed, so that its code is not copied into every caller.
type Call<'a, T> = LocalBoxFuture<'a, Result<T, ApiProblem>>;

/// The host. Beside the event stream one reading and one act are under way at a time.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) client: HostClient,
    /// For what a person asks for, which is not to wait for what the page reads.
    acts: HostClient,
    /// For what takes up to a minute and nothing else is to wait for, and for what is to wait for nothing.
    pub(crate) aside: HostClient,
    pub(crate) runtime: Arc<dyn Runtime>,
}

impl Host {
    /// The host at this origin, by the token that it printed at its start, and its connection of this name; its first
    /// where none is named.
    pub(crate) fn new(origin: &str, token: &str, connection: Option<&str>) -> Self {
        let runtime: Arc<dyn Runtime> = Arc::new(WebRuntime);
        let client =
            HostClient::new(Arc::new(WebTransport::new()), Arc::clone(&runtime), origin, token.to_owned());
        Self::over(
            match connection {
                Some(name) => client.with_connection(name),
                None => client,
            },
            runtime,
        )
    }

    /// The host that this is a client of.
    pub(crate) fn over(aside: HostClient, runtime: Arc<dyn Runtime>) -> Self {
        Self { client: aside.clone().in_turn(), acts: aside.clone().in_turn(), aside, runtime }
    }

    pub(crate) fn connections(&self) -> Call<'_, Connections> {
        told(self.client.connections())
    }

    pub(crate) fn getting_started(&self) -> Call<'_, GettingStarted> {
        told(self.client.start())
    }

    pub(crate) fn begin_demo(&self) -> Call<'_, GettingStarted> {
        asked(self.acts.begin_demo())
    }

    pub(crate) fn status(&self) -> Call<'_, HostStatus> {
        told(self.client.status())
    }

    pub(crate) fn runs<'a>(&'a self, query: &'a RunsQuery) -> Call<'a, RunWindow> {
        told(self.client.runs(query))
    }

    pub(crate) fn run_ids<'a>(&'a self, query: &'a RunsQuery) -> Call<'a, RunIds> {
        asked(self.acts.run_ids(query))
    }

    pub(crate) fn completions<'a>(&'a self, query: &'a CompletionQuery) -> Call<'a, Completions> {
        told(self.client.completions(query))
    }

    pub(crate) fn plans<'a>(&'a self, batch: &'a PlanBatch) -> Call<'a, PlannedBatch> {
        asked(self.acts.plans(batch))
    }

    pub(crate) fn run<'a>(&'a self, run_id: &'a str) -> Call<'a, RunDetail> {
        told(self.client.run(run_id))
    }

    /// The next stretch of a run's curves after this step.
    pub(crate) fn run_metrics<'a>(&'a self, run_id: &'a str, after: Option<u64>) -> Call<'a, RunMetrics> {
        Box::pin(async move {
            let query = MetricsQuery { after, limit: None };
            told(self.client.run_metrics(run_id, &query)).await
        })
    }

    pub(crate) fn run_evidence<'a>(&'a self, run_id: &'a str) -> Call<'a, RunEvidence> {
        told(self.client.run_evidence(run_id))
    }

    pub(crate) fn plan<'a>(&'a self, request: &'a PlanRequest) -> Call<'a, PlanAnswer> {
        asked(self.acts.plan(request))
    }

    pub(crate) fn start<'a>(&'a self, plan: &'a RestorePlan) -> Call<'a, StartedRestore> {
        asked(self.acts.start_restore(plan))
    }

    pub(crate) fn restore<'a>(&'a self, restore_id: &'a str) -> Call<'a, RestoreRecord> {
        told(self.client.restore(restore_id))
    }

    pub(crate) fn redo<'a>(&'a self, run_id: &'a str, step: Option<u64>) -> Call<'a, RedoWindow> {
        told(self.client.redo(run_id, RedoQuery { step }))
    }

    pub(crate) fn go_back<'a>(&'a self, run_id: &'a str, step: Option<u64>) -> Call<'a, RedoWindow> {
        asked(self.acts.go_back(run_id, GoBack { step }))
    }

    pub(crate) fn cancel<'a>(&'a self, restore_id: &'a str) -> Call<'a, RestoreRecord> {
        asked(self.aside.cancel_restore(restore_id))
    }

    pub(crate) fn hand_over<'a>(&'a self, restore_id: &'a str) -> Call<'a, HandOver> {
        asked(self.acts.hand_over(restore_id))
    }

    /// What was done about lost runs and more: the newest of each.
    pub(crate) fn activity(&self, newest: u64) -> Call<'_, Activity> {
        told(self.client.activity(newest))
    }

    /// The same as the host writes it.
    pub(crate) fn activity_text(&self) -> Call<'_, String> {
        asked(Box::pin(self.acts.activity_text()))
    }

    /// Runs that failed together and still wait.
    pub(crate) async fn open_incidents(&self) -> Result<Vec<Incident>, ApiProblem> {
        Ok(told(self.client.open_incidents()).await?.incidents)
    }

    pub(crate) fn set_monitor(&self, gate: Gate) -> Call<'_, MonitorState> {
        asked(self.aside.set_monitor(gate))
    }

    pub(crate) fn checkpoints<'a>(&'a self, query: &'a CheckpointsQuery) -> Call<'a, CheckpointWindow> {
        told(self.client.checkpoints(query))
    }

    pub(crate) fn checkpoint_paths<'a>(&'a self, query: &'a CheckpointsQuery) -> Call<'a, CheckpointPaths> {
        asked(self.acts.checkpoint_paths(query))
    }

    pub(crate) fn preview_delete(&self, paths: Vec<String>) -> Call<'_, DeletePreview> {
        asked(self.acts.preview_delete(paths))
    }

    pub(crate) fn preview_retention<'a>(&'a self, request: &'a RetentionRequest) -> Call<'a, DeletePreview> {
        asked(self.acts.preview_retention(request))
    }

    pub(crate) fn act_on_checkpoints<'a>(
        &'a self,
        actions: &'a CheckpointActions,
    ) -> Call<'a, CheckpointOutcomes> {
        asked(self.acts.act_on_checkpoints(actions))
    }

    pub(crate) fn start_download<'a>(&'a self, path: &'a str) -> Call<'a, DownloadState> {
        asked(self.acts.start_download(path))
    }

    pub(crate) fn download<'a>(&'a self, id: &'a str) -> Call<'a, DownloadState> {
        told(self.client.download(id))
    }

    pub(crate) fn stop_download<'a>(&'a self, id: &'a str) -> Call<'a, DownloadState> {
        asked(self.acts.stop_download(id))
    }

    pub(crate) fn sessions<'a>(&'a self, query: &'a SessionsQuery) -> Call<'a, SessionWindow> {
        told(self.client.sessions(query))
    }

    pub(crate) fn session<'a>(&'a self, session_id: &'a str) -> Call<'a, SessionDetail> {
        told(self.client.session(session_id))
    }

    pub(crate) fn finish_session<'a>(
        &'a self,
        session_id: &'a str,
        reason: &'a str,
    ) -> Call<'a, SessionDetail> {
        asked(self.acts.finish_session(session_id, reason))
    }

    pub(crate) fn assign_project<'a>(
        &'a self,
        session_id: &'a str,
        project_id: &'a str,
    ) -> Call<'a, SessionDetail> {
        asked(self.acts.assign_project(session_id, project_id))
    }

    pub(crate) fn projects(&self) -> Call<'_, Projects> {
        told(self.client.projects())
    }

    pub(crate) fn samplers<'a>(&'a self, q: &'a str) -> Call<'a, SamplerWindow> {
        told(self.client.samplers(q))
    }

    pub(crate) fn usage<'a>(&'a self, query: &'a UsageQuery) -> Call<'a, Usage> {
        told(self.client.usage(query))
    }

    pub(crate) fn sample_sources(&self) -> Call<'_, SampleSources> {
        told(self.client.sample_sources())
    }

    pub(crate) fn sample<'a>(&'a self, request: &'a SampleRequest) -> Call<'a, Samples> {
        asked(self.aside.sample(request))
    }

    /// What changes, as it happens.
    pub(crate) async fn events(
        &self,
    ) -> Result<BoxStream<'static, Result<HostEvent, HostError>>, ApiProblem> {
        self.client.events().await.map(StreamExt::boxed).map_err(|error| error.problem)
    }

    pub(crate) fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.runtime.sleep(duration)
    }

    pub(crate) fn random(&self) -> u64 {
        self.runtime.random()
    }
}

fn told<'a, T>(call: impl Future<Output = Result<T, HostError>> + Unpin + 'a) -> Call<'a, T> {
    failing(call, |error| error.problem)
}

/// The same of what a person asks for.
fn asked<'a, T>(call: impl Future<Output = Result<T, HostError>> + Unpin + 'a) -> Call<'a, T> {
    failing(call, |error| words::asked_once(error.problem))
}

fn failing<'a, T>(
    call: impl Future<Output = Result<T, HostError>> + Unpin + 'a,
    problem: fn(HostError) -> ApiProblem,
) -> Call<'a, T> {
    Box::pin(Failing { call, problem })
}

/// A call whose failure is told otherwise. Not by `map_err`: that keeps a state, in code that is there once for each type.
struct Failing<F> {
    call: F,
    /// By a pointer: with the function in its type, the code that reads an answer would be there once for each of them.
    problem: fn(HostError) -> ApiProblem,
}

impl<T, F: Future<Output = Result<T, HostError>> + Unpin> Future for Failing<F> {
    type Output = Result<T, ApiProblem>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.call).poll(cx).map_err(self.problem)
    }
}
