//! Doing what the activity is to tell of.

use std::sync::Arc;

use retinker::recovery::acts::{self, Begun};

use crate::host::Shared;
use crate::problem::Problem;

/// Does something, with a note in the journal before and after. `left` tells what of it was not done, where it was done in part.
/// It goes on to its end, whoever waits.
pub(crate) async fn noted<T: Send + 'static>(
    host: &Arc<Shared>,
    what: String,
    subjects: Vec<String>,
    act: impl Future<Output = Result<T, Problem>> + Send + 'static,
    left: impl FnOnce(&T) -> Option<String> + Send + 'static,
) -> Result<T, Problem> {
    let host = Arc::clone(host);
    let failed = format!("The host failed at this: {what}.");
    to_its_end(&failed, async move {
        let begun = acts::begin(&host.store, &host.runtime, &host.by, what, subjects).await?;
        let outcome = act.await;
        let problem = match &outcome {
            Ok(done) => left(done),
            Err(problem) => Some(problem.problem.message.clone()),
        };
        ended(begun, problem).await;
        outcome
    })
    .await
}

/// The same of what changes nothing, and is given up when nobody waits for it any more: that is told too. It is done though the journal fails.
pub(crate) async fn noted_while_awaited<T>(
    host: &Shared,
    what: &str,
    subjects: Vec<String>,
    act: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let begun = acts::begin(&host.store, &host.runtime, &host.by, what.to_owned(), subjects).await;
    let begun = begun.inspect_err(|error| tracing::error!(%error, "what is done is not in the journal"));
    let mut note = Note(begun.ok());
    let outcome = act.await;
    note.end(outcome.as_ref().err().map(|problem| problem.problem.message.clone()));
    outcome
}

/// Notes how an act ended.
async fn ended(begun: Begun, problem: Option<String>) {
    if let Err(error) = begun.end(problem).await {
        tracing::error!(%error, "how an act ended is not in the journal");
    }
}

/// What is to be said of an act when it ends, however it does.
struct Note(Option<Begun>);

impl Note {
    fn end(&mut self, problem: Option<String>) {
        let Some(begun) = self.0.take() else { return };
        tokio::spawn(ended(begun, problem));
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.end(Some("Whoever asked for it waits no more: it was taken back.".to_owned()));
    }
}

/// Does something in a task of its own: what was begun is not left half done because the caller went away. `failed` is told where
/// it panics.
pub(crate) async fn to_its_end<T: Send + 'static>(
    failed: &str,
    act: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(act).await.map_err(|_| Problem::internal(failed))?
}

/// Everything was done.
pub(crate) fn wholly<T>(_: &T) -> Option<String> {
    None
}
