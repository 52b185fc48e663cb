//! One task sends what was called, each operation after the one before it was accepted.

use std::sync::Arc;

use futures_channel::mpsc;
use futures_util::StreamExt;
use tracing::Instrument;

use super::line::Line;
use super::operation::{Accepted, Job, Operation, Part, Sent, Stop, Submitted, Then, results};
use super::order::Order;
use crate::client::pending::Watch;

/// What sends. Dies with the last client of the run.
pub(crate) struct Sender {
    line: Line,
    order: Arc<Order>,
}

impl Sender {
    pub(crate) fn new(line: Line, order: Arc<Order>) -> Self {
        Self { line, order }
    }

    /// Sends what was called, in order, until nobody can call any more.
    pub(crate) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = queue.next().await {
            match job {
                Job::Barrier(done) => {
                    let _ = done.send(());
                }
                Job::Operation(operation) => {
                    let span = operation.span.clone();
                    self.carry_out(operation).instrument(span).await;
                }
            }
        }
    }

    async fn carry_out(&mut self, operation: Operation) {
        let Operation { name, epoch, cut, then, watch, done, .. } = operation;
        let submitted = match self.order.may_go(&name, epoch) {
            Ok(()) => {
                self.line.settle().await;
                let parts = cut(&self.line.settings.config);
                let sent = self.submit(&name, parts, then, &watch).await;
                self.conclude(sent)
            }
            Err(error) => Submitted { result: Err(error), _delivered: None },
        };
        // Nobody may be waiting any more; the request keeps its place all the same.
        let _ = done.send(submitted);
    }

    async fn submit(
        &self,
        name: &str,
        parts: Vec<Part>,
        then: Option<Then>,
        watch: &Watch,
    ) -> Result<Vec<Accepted>, Stop> {
        let first = self.line.send(parts, watch).await?;
        let Some(then) = then else { return Ok(first) };
        let results = results(&self.line.api, &first, name, watch).await.map_err(Stop::refused)?;
        let second = then(results, &self.line.settings.config).map_err(Stop::refused)?;
        self.line.send(second, watch).await
    }

    fn conclude(&self, sent: Result<Vec<Accepted>, Stop>) -> Submitted {
        match sent {
            Ok(accepted) => {
                let sent = Sent { accepted, session: self.line.session(), sampler: None };
                Submitted { result: Ok(sent), _delivered: None }
            }
            Err(stop) => {
                let (error, _delivered) = self.order.stopped(stop);
                Submitted { result: Err(error), _delivered }
            }
        }
    }
}
