//! Sends requests under a run's next numbers.

use std::sync::{Arc, Weak};

use futures_util::future::join_all;

use super::operation::{Accepted, Part, Stop};
use super::order::Order;
use crate::client::api::Api;
use crate::client::error::Error;
use crate::client::pending::Watch;
use crate::client::session::{Session, Settings};

/// The way to a run: its order of numbers, in its session.
pub(crate) struct Line {
    pub(crate) api: Api,
    pub(crate) model_id: String,
    order: Arc<Order>,
    session: Weak<Session>,
    /// How the server wants to be talked to, as far as it has said.
    pub(crate) settings: Arc<Settings>,
}

impl Line {
    pub(crate) fn new(api: Api, model_id: String, order: Arc<Order>, session: &Arc<Session>) -> Self {
        Self { api, model_id, order, session: Arc::downgrade(session), settings: Settings::careful() }
    }

    /// The run's session, while anybody holds it.
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        self.session.upgrade()
    }

    /// Asks how the server wants to be talked to, unless it has said so.
    pub(crate) async fn settle(&mut self) {
        if let Some(session) = self.session() {
            self.settings = session.settings(&self.api).await;
        }
    }

    /// Sends the parts under the next numbers. Together, if the server takes that: all but the first, then the first, for
    /// which the server waits with the others; so they are there when it begins.
    pub(crate) async fn send(&self, parts: Vec<Part>, watch: &Watch) -> Result<Vec<Accepted>, Stop> {
        let sampler = match self.session().filter(|_| parts.iter().any(|part| part.makes_a_sampler)) {
            Some(session) => Some(session.next_sampler(&self.api).await.map_err(Stop::refused)?),
            None => None,
        };
        let start = self.order.lock().next_seq_id;
        let together = parts.len() > 1 && self.settings.config.parallel_fwdbwd_chunks;
        let mut sendings: Vec<_> = parts
            .into_iter()
            .zip(start..)
            .map(|(part, seq_id)| self.send_one(part, seq_id, sampler))
            .collect();
        let mut outcomes = Vec::with_capacity(sendings.len());
        if together {
            let rest = sendings.split_off(1);
            let rest = join_all(rest).await;
            // With one of the others missing, the first would only be carried out in vain.
            if rest.iter().all(Result::is_ok) {
                outcomes.extend(join_all(sendings).await.into_iter().map(Some));
            } else {
                outcomes.push(None);
            }
            outcomes.extend(rest.into_iter().map(Some));
        } else {
            for sending in sendings {
                let outcome = sending.await;
                let failed = outcome.is_err();
                outcomes.push(Some(outcome));
                if failed {
                    break;
                }
            }
        }
        self.settle_numbers(outcomes, watch)
    }

    async fn send_one(&self, part: Part, seq_id: u64, sampler: Option<u64>) -> Result<Accepted, Error> {
        let Part { write, bytes, datums, .. } = part;
        // Only batches count, and are worth compressing.
        let _taken = match bytes {
            0 => None,
            bytes => Some(self.settings.dispatch.pass(bytes).await),
        };
        let call = write()?.call(&self.model_id, seq_id, sampler)?;
        let compressed = bytes > 0 && self.settings.config.proto_compress_fwdbwd;
        let call = if compressed { call.compressed() } else { call };
        let request_id = self.api.accept(&call).await?;
        Ok(Accepted { request_id, datums, sampler, result: None })
    }

    /// Takes the numbers that were accepted. `None` was not sent.
    ///
    /// A refusal leaves the order whole if nothing behind it was accepted: its number goes to the next operation.
    fn settle_numbers(
        &self,
        outcomes: Vec<Option<Result<Accepted, Error>>>,
        watch: &Watch,
    ) -> Result<Vec<Accepted>, Stop> {
        let mut taken = Vec::with_capacity(outcomes.len());
        let (mut gap, mut behind_a_gap) = (false, false);
        let (mut refused, mut undecided) = (None, None);
        for outcome in outcomes {
            match outcome {
                Some(Ok(accepted)) => {
                    watch.accepted(accepted.request_id.clone());
                    if gap {
                        behind_a_gap = true;
                    } else {
                        taken.push(accepted);
                    }
                }
                Some(Err(error)) => {
                    gap = true;
                    let first = if error.is_definite_refusal() { &mut refused } else { &mut undecided };
                    first.get_or_insert(error);
                }
                None => gap = true,
            }
        }
        self.order.lock().next_seq_id += taken.len() as u64;
        match (undecided, refused) {
            (Some(error), _) => Err(Stop::Lost(error)),
            (None, Some(error)) if behind_a_gap => Err(Stop::Lost(error)),
            (None, Some(error)) => Err(Stop::Refused { error, taken }),
            (None, None) => Ok(taken),
        }
    }
}
