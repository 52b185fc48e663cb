//! What must hold at every moment, and what must happen at some, or the model would be empty.

use std::collections::HashMap;
use std::sync::Mutex;

use retinker::recovery::journal::conformance;
use retinker::recovery::plan::RestorePlan;
use retinker::recovery::probe::Probe;
use retinker::recovery::restore::RestoreState;
use retinker::wire::training::ForwardBackwardOutput;
use serde_json::json;
use stateright::{Model, Property};

use crate::digest;
use crate::driver::Drivers;
use crate::seams::{Ask, Lane};
use crate::service::{Call, LOGPROBS, Rules};
use crate::world::{Bounds, Event, Flaw, Moment, STALE_WRITE, TWO_LEASES, World};

/// A world for the checker.
#[derive(Debug)]
pub struct Checked {
    world: World,
    /// Whether a moment comes to a good end, by its digest.
    ends: Mutex<HashMap<u64, bool>>,
}

fn plan(rules: Rules) -> RestorePlan {
    let mut plan = conformance::record("r", "old").plan;
    if rules.probe {
        let output: ForwardBackwardOutput = serde_json::from_value(json!({
            "loss_fn_output_type": "ArrayRecord",
            "loss_fn_outputs": [{"logprobs": {"data": LOGPROBS, "dtype": "float32"}}],
        }))
        .unwrap();
        plan.checkpoint.user_metadata = Some(Probe::of(&[1, 2, 3], &output).unwrap().label());
    }
    plan.sealed()
}

/// Steps within which a restore is done if nothing goes wrong.
const PATIENCE: usize = 400;

impl Checked {
    /// A world with these rules, bounds and flaw.
    pub fn new(rules: Rules, bounds: Bounds, flaw: Flaw) -> Self {
        let drivers = Drivers::new(plan(rules), rules);
        Self { world: World { drivers, rules, bounds, flaw }, ends: Mutex::default() }
    }

    /// The drivers that were looked at.
    pub fn drivers(&self) -> &Drivers {
        &self.world.drivers
    }

    /// Whether the run is restored and handed over in the end, if nothing goes wrong from now on.
    fn ends_well(&self, moment: &Moment) -> bool {
        let (mut moment, mut way) = (moment.clone(), Vec::new());
        let well = loop {
            let here = digest::of(&moment);
            if let Some(known) = self.ends.lock().unwrap().get(&here) {
                break *known;
            }
            way.push(here);
            if moment.records().any(|record| record.state == RestoreState::HandedOver) {
                break moment.records().all(|record| record.state.is_settled());
            }
            if way.len() > PATIENCE {
                break false;
            }
            moment = self.world.calm(&moment);
        };
        self.ends.lock().unwrap().extend(way.into_iter().map(|digest| (digest, well)));
        well
    }
}

/// The record of each restore that has adopted a run, and the run as the service has it.
fn adopted_as_told(moment: &Moment) -> bool {
    moment
        .records()
        .filter(|record| matches!(record.state, RestoreState::Adopted | RestoreState::HandedOver))
        .all(|record| {
            let Some(attachment) = &record.attachment else { return false };
            moment.service.run(&attachment.model_id).is_some_and(|run| {
                let told = (attachment.next_seq_id, &attachment.session_id);
                run.loaded && (run.expects, &run.identity.0) == told && moment.service.is_open(told.1)
            })
        })
}

fn runs_of(moment: &Moment, restore: &str) -> usize {
    moment.service.runs.iter().filter(|run| run.restore == restore).count()
}

fn always(rules: Rules) -> Vec<Property<Checked>> {
    let mut properties = vec![
        Property::<Checked>::always("one restore holds the run", |_, moment| {
            moment.records().filter(|record| record.state.holds_the_run()).count() <= 1
        }),
        Property::<Checked>::always("one successor is adopted", |_, moment| moment.adopted.len() <= 1),
        Property::<Checked>::always("one driver has the lease", |_, moment| {
            !moment.faults.contains(TWO_LEASES)
        }),
        Property::<Checked>::always("only the lease writes", |_, moment| {
            !moment.faults.contains(STALE_WRITE)
        }),
        Property::<Checked>::always("runs are in their restore's session", |_, moment| {
            moment.service.runs.iter().all(|run| {
                let record = moment.journal.get(&run.restore);
                record.and_then(|record| record.session_id.as_ref()) == Some(&run.identity.0)
            })
        }),
        Property::<Checked>::always("what is adopted is as it is told", |_, moment| adopted_as_told(moment)),
        Property::<Checked>::always("left in peace, it is handed over", Checked::ends_well),
    ];
    if rules.deduplicates {
        properties.push(Property::<Checked>::always("one run for each restore", |_, moment| {
            moment.records().all(|record| runs_of(moment, &record.id) <= 1)
        }));
    }
    properties
}

fn sometimes(rules: Rules, bounds: Bounds) -> Vec<Property<Checked>> {
    let handed_over = |_: &Checked, moment: &Moment| {
        moment.records().any(|record| record.state == RestoreState::HandedOver)
    };
    let mut properties = vec![
        Property::<Checked>::sometimes("a run is handed over", handed_over),
        Property::<Checked>::sometimes("who was thought dead wants to write", |_, moment| {
            let points = moment.drivers.iter().filter_map(|driver| driver.at.as_ref());
            points.filter_map(|point| point.ask(Lane::Work)).any(|ask| match ask {
                Ask::Append(lease, _) => {
                    moment.held.get(&lease.restore_id).is_some_and(|held| held.lease.fence > lease.fence)
                }
                _ => false,
            })
        }),
        Property::<Checked>::sometimes("a session is surplus", |_, moment| {
            moment.service.sessions.len() > moment.journal.entries().count()
        }),
    ];
    if bounds.crashes + bounds.losses > 0 {
        properties.push(Property::<Checked>::sometimes(
            "a load is still on its way after the hand-over",
            |_, moment| {
                moment.records().any(|record| record.state == RestoreState::HandedOver)
                    && moment
                        .adrift
                        .iter()
                        .any(|(_, ask)| matches!(ask, Ask::Call(Call::Load(..) | Call::LoadInto(..))))
            },
        ));
    }
    if rules.search && bounds.crashes > 0 {
        properties.push(Property::<Checked>::sometimes("a surplus session is finished", |_, moment| {
            moment.records().any(|record| record.state == RestoreState::HandedOver)
                && moment.service.sessions.iter().any(|session| session.finished)
        }));
    }
    if bounds.refusals > 0 {
        properties.push(Property::<Checked>::sometimes(
            "a run is restored after a failed restore",
            |_, moment| {
                !moment.adopted.is_empty()
                    && moment.records().any(|record| record.state == RestoreState::Failed)
            },
        ));
    }
    if !rules.deduplicates {
        properties.push(Property::<Checked>::sometimes("a run is surplus", |_, moment| {
            moment.records().any(|record| runs_of(moment, &record.id) > 1)
        }));
    }
    properties
}

impl Model for Checked {
    type State = Moment;
    type Action = Event;

    fn init_states(&self) -> Vec<Moment> {
        vec![self.world.beginning()]
    }

    fn actions(&self, moment: &Moment, actions: &mut Vec<Event>) {
        actions.extend(self.world.events(moment));
    }

    fn next_state(&self, moment: &Moment, event: Event) -> Option<Moment> {
        Some(self.world.after(moment, &event))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = always(self.world.rules);
        if self.world.flaw == Flaw::None {
            properties.extend(sometimes(self.world.rules, self.world.bounds));
        }
        properties
    }
}
