//! When requests are on their way.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use retinker::native::NativeTransport;
use retinker::transport::{Request, Response, Transport, TransportError};

/// A transport that notes for how long at least one request was on its way.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    transport: NativeTransport,
    flight: Arc<Mutex<Flight>>,
}

#[derive(Debug)]
struct Flight {
    under_way: usize,
    since: Instant,
    busy: Duration,
}

impl Watched {
    pub(crate) fn new(transport: NativeTransport) -> Self {
        let flight = Flight { under_way: 0, since: Instant::now(), busy: Duration::ZERO };
        Self { transport, flight: Arc::new(Mutex::new(flight)) }
    }

    /// For how long requests have been on their way until now.
    pub(crate) fn busy(&self) -> Duration {
        let flight = self.flight.lock().unwrap_or_else(PoisonError::into_inner);
        let now = if flight.under_way > 0 { flight.since.elapsed() } else { Duration::ZERO };
        flight.busy + now
    }

    fn step(&self, forth: bool) {
        let mut flight = self.flight.lock().unwrap_or_else(PoisonError::into_inner);
        if forth {
            if flight.under_way == 0 {
                flight.since = Instant::now();
            }
            flight.under_way += 1;
        } else {
            flight.under_way -= 1;
            if flight.under_way == 0 {
                let flown = flight.since.elapsed();
                flight.busy += flown;
            }
        }
    }
}

/// On its way as long as this lives.
struct OnItsWay(Watched);

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.0.step(false);
    }
}

impl Transport for Watched {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let answer = self.transport.send(request);
        self.step(true);
        let flight = OnItsWay(self.clone());
        Box::pin(async move {
            let answer = answer.await;
            drop(flight);
            answer
        })
    }
}
