//! How near a service comes to itself: by what a replay is to be held against what was recorded.

use futures_util::future::try_join;
use retinker_wire::UserMetadata;
use retinker_wire::model::LoraConfig;
use retinker_wire::training::{AdamParams, Datum};

use super::outcome::{Matching, Outcome};
use crate::client::{Error, LossFnConfig, SaveOptions, ServiceClient, TrainingClient, TrainingOptions};
use crate::recovery::plan::LABEL_OPT_OUT;

/// A tolerance is so many times the largest difference that was seen: what was not seen may be larger.
const MARGIN: f64 = 10.0;
/// Beyond this part two results have too little in common to be held against each other: another run would pass as well.
const MOST: f64 = 1e-2;

/// How far apart two runs of the same requests were.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// The largest difference between two results, as a part of what they are sums of; `None` = they were the same, bit for bit.
    pub largest: Option<f64>,
    /// Passes that were compared, each with its step.
    pub passes: usize,
}

impl Calibration {
    /// What a replay on this service is to be held by: exactly, or within ten times what was seen. `None`: results were apart by more than a
    /// hundredth, or were no numbers, and nothing can be told by them.
    pub fn matching(&self) -> Option<Matching> {
        match self.largest {
            None => Some(Matching::Exact),
            Some(largest) => (largest <= MOST).then_some(Matching::Tolerance(largest * MARGIN)),
        }
    }
}

/// Trains two runs by the same batches, each batch a pass with `cross_entropy` and a step of the optimizer, and compares their results; then
/// a third, made from a checkpoint of the first with its optimizer, takes the last batch once more beside the first, as a replay does. The first two
/// are made with the same seed; all carry the label `retinker.opt_out`, and are left to the service, without the checkpoint.
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
    let label = UserMetadata::from([(LABEL_OPT_OUT.to_owned(), "calibration".to_owned())]);
    let options = TrainingOptions { user_metadata: Some(label), ..TrainingOptions::default() };
    let made = || service.create_lora_training_client(base_model, lora_config.clone(), options.clone());
    let (one, other) = try_join(made(), made()).await?;
    let mut found = Calibration { largest: None, passes: 0 };
    let last = batches.last().cloned();
    for batch in batches {
        found.compare(&one, &other, batch).await?;
    }
    if let Some(batch) = last {
        let path = one.save_state("calibration", SaveOptions::default()).await?.path;
        let loaded = service.create_training_client_from_state_with_optimizer(&path, options).await?;
        found.compare(&one, &loaded, batch).await?;
        service.create_rest_client().delete_checkpoint_from_tinker_path(&path).await?;
    }
    Ok(found)
}

impl Calibration {
    async fn compare(
        &mut self,
        one: &TrainingClient,
        other: &TrainingClient,
        batch: Vec<Datum>,
    ) -> Result<(), Error> {
        let (first, second) = try_join(step(one, batch.clone()), step(other, batch)).await?;
        self.passes += 1;
        for (first, second) in first.iter().zip(&second) {
            if let Some(apart) = second.apart(first) {
                self.largest = Some(self.largest.unwrap_or_default().max(apart));
            }
        }
        Ok(())
    }
}

/// What a pass and a step of the optimizer come to.
async fn step(client: &TrainingClient, batch: Vec<Datum>) -> Result<[Outcome; 2], Error> {
    let passed = client.forward_backward(batch, "cross_entropy", &LossFnConfig::new());
    let stepped = client.optim_step(AdamParams::default());
    let pass = Outcome::of_pass(&passed.await?);
    let metrics = stepped.await?.metrics.unwrap_or_default();
    Ok([pass, Outcome { metrics, ..Outcome::default() }])
}
