//! What samplers sample from. That never changes, so each is asked about once: a page of sessions would ask about a hundred again
//! with each word that is looked for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use retinker::wire::sampler::GetSamplerResponse;

use crate::host::{Asked, Shared};

/// Samplers that are remembered; with more it begins anew.
const MOST: usize = 20_000;

/// Those that were asked about, by id.
#[derive(Debug, Default)]
pub(crate) struct Samplers(Mutex<HashMap<String, GetSamplerResponse>>);

impl Samplers {
    fn known(&self) -> MutexGuard<'_, HashMap<String, GetSamplerResponse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sampler of an id that a session tells of.
pub(crate) async fn sampler(host: &Shared, sampler_id: &str) -> Result<GetSamplerResponse, Asked> {
    if let Some(sampler) = host.samplers.known().get(sampler_id) {
        return Ok(sampler.clone());
    }
    let sampler = host.ask(host.api.get_sampler(sampler_id)).await?;
    let mut known = host.samplers.known();
    if known.len() >= MOST {
        known.clear();
    }
    known.insert(sampler_id.to_owned(), sampler.clone());
    Ok(sampler)
}
