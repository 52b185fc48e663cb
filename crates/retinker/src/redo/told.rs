//! A recovery as the recovery journal has it: so consoles show it, and nobody restores the run as well.

use retinker_wire::time::Time;

use super::entry::Base;
use crate::client::Api;
use crate::recovery::evidence::Symptom;
use crate::recovery::journal::{Begun, Store};
use crate::recovery::plan::{LostWork, PlanRequest, Strategy};
use crate::recovery::planner::{gather, make_plan};
use crate::recovery::restore::{Attachment, RestoreEvent, RestoreRecord, RestoreState};

/// A recovery that is done.
pub(crate) struct Recovery<'a> {
    /// Its id, also in the new run's labels.
    pub(crate) id: String,
    /// The run that was lost.
    pub(crate) lost: &'a str,
    /// The checkpoint that the new one was made from.
    pub(crate) base: &'a Base,
    pub(crate) made: Attachment,
    /// When it was begun.
    pub(crate) begun: Time,
    /// Steps of the optimizer in all.
    pub(crate) step: u64,
}

/// Tells the journal of a recovery; an error says why that was not done.
pub(crate) async fn tell(api: &Api, store: &dyn Store, recovery: Recovery<'_>) -> Result<(), String> {
    let Recovery { id, lost, base, made, begun, step } = recovery;
    let request = PlanRequest {
        strategy: Strategy::Specific { path: base.path.clone() },
        observed: Some(Symptom::OrderLost),
        ..PlanRequest::new(lost)
    };
    let now = api.runtime().now();
    let facts = gather(api, &request, None, None, now).await.map_err(|error| error.to_string())?;
    let mut plan = make_plan(&facts, &request).map_err(|none| none.message().to_owned())?;
    let summary = "Nothing: what was done since the checkpoint was done again.".to_owned();
    plan.lost = LostWork { seconds: 0, steps: Some(0), summary };
    let message = format!("The training program has found the run lost: it goes back to {}.", base.path);
    let mut record = RestoreRecord::planned(id, plan.sealed(), begun, message);
    let message = format!("The training program goes on with run {} at step {step}.", made.model_id);
    record.events.push(RestoreEvent { at: now, state: RestoreState::HandedOver, message });
    record.state = RestoreState::HandedOver;
    record.asked_by = Some("a redo log".to_owned());
    record.session_id = Some(made.session_id.clone());
    record.new_run_id = Some(made.model_id.clone());
    record.attachment = Some(made);
    record.updated_at = now;
    match store.begin(record).await {
        Ok(Begun::New(_)) => Ok(()),
        Ok(Begun::Existing(other)) => {
            Err(format!("restore {} has made another run in the place of run {lost}", other.id))
        }
        Err(error) => Err(error.to_string()),
    }
}
