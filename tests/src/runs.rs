//! Many runs at once, for what restores them.

use anyhow::Result;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use retinker::client::{Api, SaveOptions, ServiceClient, TrainingClient, TrainingOptions};
use retinker::recovery::listing::Listing;
use retinker::recovery::probe::save_state_with_probe;
use retinker::wire::run::TrainingRun;

use crate::schedule;

/// The text of every probe.
const TEXT: [i32; 8] = [84, 101, 108, 108, 32, 109, 101, 46];
/// Runs that are made at once.
const AT_ONCE: usize = 16;

/// So many runs with one checkpoint each and its probe, kept alive by their clients.
pub async fn saved(api: &Api, count: usize) -> Result<Vec<TrainingClient>> {
    let owner = ServiceClient::new(api.clone());
    stream::iter(0..count)
        .map(|_| async {
            let made = TrainingOptions::default();
            let client =
                owner.create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), made).await?;
            save_state_with_probe(&client, "a", SaveOptions::default(), &TEXT).await?;
            Ok(client)
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// All runs of a service.
pub async fn all(api: &Api) -> Result<Vec<TrainingRun>> {
    let (mut listing, mut runs) = (Listing::new(), Vec::new());
    while let Some(page) = listing.next(api).await? {
        runs.extend(page);
    }
    Ok(runs)
}
