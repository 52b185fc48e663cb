//! How near a service comes to itself: by what a replay is to be held against what was recorded.

use futures_util::future::try_join;
use retinker_wire::UserMetadata;
use retinker_wire::model::LoraConfig;
use retinker_wire::training::{AdamParams, Datum};

use super::outcome::{Matching, Outcome};
use crate::client::{Error, LossFnConfig, ServiceClient, TrainingClient, TrainingOptions};
use crate::recovery::plan::LABEL_OPT_OUT;

/// A tolerance is so many times the largest difference that was seen: what was not seen may be larger.
const MARGIN: f64 = 10.0;

/// How far apart two runs of the same requests were.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// The largest difference between two results, as a part of what they are sums of; `None` = they were the same, bit for bit.
    pub largest: Option<f64>,
    /// Passes that were compared.
    pub passes: usize,
}

impl Calibration {
    /// What a replay on this service is to be held by: exactly, or within ten times what was seen.
    pub fn matching(&self) -> Matching {
        self.largest.map_or(Matching::Exact, |largest| Matching::Tolerance(largest * MARGIN))
    }
}

/// Trains two runs by the same batches, each batch a pass with `cross_entropy` and a step of the optimizer, and compares their results. They are made with the same
/// seed, carry the label `retinker.opt_out`, and are left to the service.
///
/// # Errors
/// What [`ServiceClient::create_lora_training_client`] gives, or one of the requests.
pub async fn calibrate(
    service: &ServiceClient,
    base_model: &str,
    mut lora_config: LoraConfig,
    batches: Vec<Vec<Datum>>,
) -> Result<Calibration, Error> {
    lora_config.seed.get_or_insert_with(|| service.api().runtime().random() >> 33);
    let made = || {
        let label = UserMetadata::from([(LABEL_OPT_OUT.to_owned(), "calibration".to_owned())]);
        let options = TrainingOptions { user_metadata: Some(label), ..TrainingOptions::default() };
        service.create_lora_training_client(base_model, lora_config.clone(), options)
    };
    let (one, other) = try_join(made(), made()).await?;
    let mut found = Calibration { largest: None, passes: batches.len() };
    for batch in batches {
        let (first, second) = try_join(step(&one, batch.clone()), step(&other, batch)).await?;
        if let Some(apart) = second.apart(&first) {
            found.largest = Some(found.largest.unwrap_or_default().max(apart));
        }
    }
    Ok(found)
}

async fn step(client: &TrainingClient, batch: Vec<Datum>) -> Result<Outcome, Error> {
    let passed = client.forward_backward(batch, "cross_entropy", &LossFnConfig::new());
    let stepped = client.optim_step(AdamParams::default());
    let outcome = Outcome::of_pass(&passed.await?);
    stepped.await?;
    Ok(outcome)
}
