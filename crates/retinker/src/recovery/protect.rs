//! A checkpoint that a restore may stand on is given a longer life before anything else is done. What its life was
//! before is in the journal first, and can be put back.

use std::time::Duration;

use retinker_wire::path::TinkerPath;
use retinker_wire::run::Checkpoint;
use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::journal::shelf::Shelf;
use super::journal::{Store, StoreError};
use crate::client::{Api, Error};

/// How long a protected checkpoint lives at least, where nobody says otherwise: long enough for a person to come back
/// from a weekend.
pub const LIFE: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How long a checkpoint is left alone whose life the service refused to change.
pub const TRY_AGAIN: Duration = Duration::from_secs(3_600);

const PROTECTIONS: Shelf<Protection> = Shelf::new("protection");

/// A checkpoint whose life was made longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// The checkpoint's path.
    pub tinker_path: String,
    /// The poisoned run that it was protected for.
    pub run_id: String,
    /// When the service would have deleted it.
    pub expired_at: Time,
    /// When the service will delete it now, as far as it has said so; `None` once the former time is put back.
    pub expires_at: Option<Time>,
    /// When it was protected.
    pub at: Time,
    /// Why the service does not do it; tried again after [`TRY_AGAIN`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Protection {
    /// What was done, as a sentence for people; `None` where the service did not do it, or it was taken back.
    pub fn message(&self) -> Option<String> {
        let until = self.expires_at.filter(|until| *until != self.expired_at)?;
        Some(format!("It lives until {until:#} instead of {:#}.", self.expired_at))
    }
}

/// Why a checkpoint was not protected.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProtectError {
    /// The service did not do it.
    #[error("the life of checkpoint {path} could not be changed: {error}")]
    Service {
        /// Which.
        path: String,
        /// What it said.
        error: Error,
    },
    /// Its path tells no run and no name.
    #[error("checkpoint {0} has a path that no lifetime can be set for")]
    Path(String),
    /// It was never protected.
    #[error("checkpoint {0} was not protected here, so there is no former expiry to put back")]
    NotProtected(String),
    /// The journal failed.
    #[error("{0}")]
    Journal(#[from] StoreError),
}

/// Gives a checkpoint that lives for less than half of `life` from now the whole of it. `None`: it lives long enough, or never
/// expires, or somebody has put its former life back, which is respected.
pub async fn protect(
    api: &Api,
    store: &dyn Store,
    run_id: &str,
    checkpoint: &Checkpoint,
    life: Duration,
    now: Time,
) -> Result<Option<Protection>, ProtectError> {
    let until = now.later(life);
    // Half of it: else it would be too short again a moment later, and be protected in every round.
    let too_short = |at: &Time| *at < now.later(life / 2);
    let Some(expired_at) = checkpoint.expires_at.filter(too_short) else { return Ok(None) };
    let path = &checkpoint.tinker_path;
    let found = PROTECTIONS.get(store, path).await?;
    let former = found.as_ref().map(|found| &found.value);
    if former.is_some_and(|former| former.expires_at.is_none()) {
        return Ok(None);
    }
    if former.is_some_and(|former| former.refused.is_some() && now < former.at.later(TRY_AGAIN)) {
        return Ok(None);
    }
    let protection = Protection {
        tinker_path: path.clone(),
        run_id: run_id.to_owned(),
        // Who protects again keeps the value that the owner chose.
        expired_at: former.map_or(expired_at, |former| former.expired_at),
        // What it was before is there before anything is done; the rest when it is done.
        expires_at: former.map_or(Some(expired_at), |former| former.expires_at),
        at: now,
        refused: None,
    };
    let version = found.map_or(0, |found| found.version);
    if PROTECTIONS.put(store, path, version, &protection).await?.is_err() {
        // Another monitor protects it at this moment.
        return Ok(None);
    }
    let done = set_life(api, path, Some(life)).await;
    let protection = match &done {
        Ok(()) => Protection { expires_at: Some(until), ..protection },
        Err(error) => Protection { refused: Some(error.to_string()), ..protection },
    };
    // Whatever writes it at this moment has seen it change.
    let _ = PROTECTIONS.put(store, path, version + 1, &protection).await?;
    done.map(|()| Some(protection))
}

/// Gives a checkpoint the life back that it had before it was protected. One that would be over is over at once, in a
/// minute at the earliest.
pub async fn put_back(
    api: &Api,
    store: &dyn Store,
    path: &str,
    now: Time,
) -> Result<Protection, ProtectError> {
    let not_protected = || ProtectError::NotProtected(path.to_owned());
    let found = PROTECTIONS.get(store, path).await?.filter(|found| found.value.expires_at.is_some());
    let mut protection = found.as_ref().ok_or_else(not_protected)?.value.clone();
    let left = protection.expired_at.as_millis().saturating_sub(now.as_millis());
    let left = Duration::from_millis(u64::try_from(left).unwrap_or(0)).max(Duration::from_secs(60));
    set_life(api, path, Some(left)).await?;
    protection.expires_at = None;
    let version = found.map_or(0, |found| found.version);
    // Whoever protects it anew at this moment wins: then it lives longer, which loses nothing.
    let _ = PROTECTIONS.put(store, path, version, &protection).await?;
    Ok(protection)
}

/// All checkpoints that were protected here.
pub async fn protections(store: &dyn Store) -> Result<Vec<Protection>, StoreError> {
    Ok(PROTECTIONS.all(store).await?.into_values().collect())
}

async fn set_life(api: &Api, path: &str, life: Option<Duration>) -> Result<(), ProtectError> {
    let parsed: TinkerPath = path.parse().map_err(|_| ProtectError::Path(path.to_owned()))?;
    api.set_checkpoint_ttl(&parsed.training_run_id, &parsed.checkpoint_id(), life.map(|life| life.as_secs()))
        .await
        .map_err(|error| ProtectError::Service { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::super::simulation::{Service, World};
    use super::*;
    use crate::client::testing::test;

    const DAY: Duration = Duration::from_secs(86_400);

    fn world(left: Option<Duration>) -> (World, Checkpoint) {
        let world = World::new(Service::default());
        let expires_at = left.map(|left| world.now().later(left));
        let mut service = world.service();
        service.checkpoints.truncate(1);
        service.checkpoints[0].expires_at = expires_at;
        let checkpoint = service.checkpoints[0].clone();
        drop(service);
        (world, checkpoint)
    }

    async fn protect_now(world: &World, checkpoint: &Checkpoint) -> Result<Option<Protection>, ProtectError> {
        protect(&world.api, &*world.store, "old", checkpoint, LIFE, world.now()).await
    }

    #[test]
    fn a_short_life_is_made_longer_and_can_be_put_back() {
        let (world, checkpoint) = world(Some(DAY));
        world.runtime.block_on(async {
            let expired_at = checkpoint.expires_at.unwrap();
            let protection = protect_now(&world, &checkpoint).await.unwrap().unwrap();
            assert_eq!(protection.expired_at, expired_at);
            let listed = world.service().checkpoints[0].clone();
            assert_eq!(listed.expires_at, protection.expires_at);
            assert_eq!(protect_now(&world, &listed).await.unwrap(), None, "it lives long enough");
            world.sleep(DAY * 2).await;
            assert_eq!(protect_now(&world, &listed).await.unwrap(), None, "still long enough");
            world.sleep(DAY * 2).await;
            let again = protect_now(&world, &listed).await.unwrap().unwrap();
            assert_eq!(again.expired_at, expired_at, "the owner's own value is kept");
            let path = &checkpoint.tinker_path;
            let back = put_back(&world.api, &*world.store, path, world.now()).await.unwrap();
            assert_eq!(back.expires_at, None);
            let over = world.service().checkpoints[0].expires_at.unwrap();
            assert_eq!(over, world.now().later(Duration::from_secs(60)), "it would have expired long ago");
            let listed = world.service().checkpoints[0].clone();
            assert_eq!(protect_now(&world, &listed).await.unwrap(), None, "it was put back on purpose");
            let twice = put_back(&world.api, &*world.store, path, world.now()).await;
            assert!(matches!(twice, Err(ProtectError::NotProtected(_))), "{twice:?}");
            assert_eq!(protections(&*world.store).await.unwrap(), [back]);
        });
    }

    #[test]
    fn one_that_lives_long_enough_is_left_alone() {
        for left in [None, Some(LIFE + Duration::from_secs(1))] {
            let (world, checkpoint) = world(left);
            let protection = world.runtime.block_on(protect_now(&world, &checkpoint)).unwrap();
            assert_eq!(protection, None);
            assert_eq!(world.service().checkpoints[0], checkpoint);
        }
    }

    #[test]
    fn what_the_service_does_not_do_is_told_and_done_later() {
        let (world, checkpoint) = world(Some(DAY));
        world.runtime.block_on(async {
            world.service().keeps_ttl = false;
            let error = protect_now(&world, &checkpoint).await.unwrap_err().to_string();
            assert!(error.contains(&checkpoint.tinker_path), "{error}");
            let told = protections(&*world.store).await.unwrap().remove(0);
            assert_eq!((told.expires_at, told.refused.is_some()), (checkpoint.expires_at, true), "the truth");
            let revision = world.store.revision().await.unwrap();
            assert_eq!(protect_now(&world, &checkpoint).await.unwrap(), None, "not in every round");
            assert_eq!(world.store.revision().await.unwrap(), revision);
            world.sleep(TRY_AGAIN).await;
            world.service().keeps_ttl = true;
            let protection = protect_now(&world, &checkpoint).await.unwrap().unwrap();
            assert_eq!(protection.expired_at, checkpoint.expires_at.unwrap());
            assert_eq!(world.service().checkpoints[0].expires_at, protection.expires_at);
        });
    }
}
