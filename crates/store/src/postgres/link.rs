//! The connection to PostgreSQL, made anew when it is lost.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use retinker::recovery::journal::StoreError;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::{Client, Error};

use super::address::Address;
use super::failure::{Failure, chain, is_broken};
use super::schema;

/// How long an operation may take, and how long it waits for its turn. Less than a lease lasts.
const PATIENCE: Duration = Duration::from_secs(10);

/// What must hold in every session. The store's arguments stand on `read committed`. A statement that waits too long is ended
/// by the server, which can say what it was; a change whose maker has fallen silent is undone, so that it holds up nobody.
const SESSION: &str = "
SET default_transaction_isolation = 'read committed';
SET statement_timeout = '8s';
SET idle_in_transaction_session_timeout = '10s';
-- Written means kept, whatever the server's default is.
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off';
";

/// One connection, on which operations are done one after the other.
pub(super) struct Link {
    address: Address,
    runtime: Handle,
    client: Mutex<Option<Client>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.address)
    }
}

impl Link {
    /// Not connected yet. The connection lives in the current tokio runtime.
    pub(super) fn new(address: Address) -> Self {
        Self { address, runtime: Handle::current(), client: Mutex::new(None) }
    }

    /// Hands an operation over at once; it is done even when the future is dropped. It is done a second time where the
    /// connection was lost before anything was made lasting.
    pub(super) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl for<'a> Fn(&'a mut Client) -> BoxFuture<'a, Result<T, Failure>> + Send + Sync + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let link = Arc::clone(self);
        let task = self.runtime.spawn(async move { link.perform(job).await });
        Box::pin(async move {
            let gone = |_| Err(StoreError::Unavailable("its task has ended".to_owned()));
            task.await.unwrap_or_else(gone)
        })
    }

    async fn perform<T>(
        &self,
        job: impl for<'a> Fn(&'a mut Client) -> BoxFuture<'a, Result<T, Failure>>,
    ) -> Result<T, StoreError> {
        let turn = timeout(PATIENCE, self.client.lock()).await;
        let mut place =
            turn.map_err(|_| self.unavailable("what was asked before has no answer yet", TRY_AGAIN))?;
        let mut again = true;
        loop {
            let client = match place.take() {
                Some(client) if !client.is_closed() => client,
                _ => self.connect().await?,
            };
            let client = place.insert(client);
            let Ok(outcome) = timeout(PATIENCE, job(client)).await else {
                *place = None;
                return Err(self.unavailable("it does not answer", NOT_KNOWN));
            };
            let broken = |error| is_broken(client, error);
            match outcome {
                Ok(value) => return Ok(value),
                Err(Failure::Store(error)) => return Err(error),
                Err(Failure::Commit(error)) if broken(&error) => {
                    *place = None;
                    return Err(self.unavailable(&chain(&error), NOT_KNOWN));
                }
                Err(Failure::Sql(error)) if broken(&error) => {
                    *place = None;
                    if !std::mem::take(&mut again) {
                        return Err(self.unavailable(&chain(&error), TRY_AGAIN));
                    }
                }
                Err(Failure::Sql(error) | Failure::Commit(error)) => {
                    return Err(self.unavailable(&chain(&error), "Nothing was written"));
                }
            }
        }
    }

    async fn connect(&self) -> Result<Client, StoreError> {
        let connected = self.address.config.connect(self.address.tls.clone());
        let (mut client, connection) = self.answered(async { Ok(connected.await?) }).await?;
        // What ends it is told to the operations that wait for it.
        self.runtime.spawn(async move { drop(connection.await) });
        let prepared = async {
            client.batch_execute(SESSION).await?;
            schema::prepare(&mut client).await
        };
        self.answered(prepared).await?;
        Ok(client)
    }

    async fn answered<T>(&self, question: impl Future<Output = Result<T, Failure>>) -> Result<T, StoreError> {
        match timeout(PATIENCE, question).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Failure::Store(error))) => Err(error),
            Ok(Err(Failure::Sql(error) | Failure::Commit(error))) => {
                Err(self.unavailable(&chain(&error), advice(&error)))
            }
            Err(_) => Err(self.unavailable("it does not answer", CHECK)),
        }
    }

    fn unavailable(&self, reason: &str, advice: &str) -> StoreError {
        StoreError::Unavailable(format!("{}: {reason}. {advice}", self.address))
    }
}

const CHECK: &str =
    "Check that it runs and can be reached from here, and the address in --journal or RETINKER_JOURNAL";
const TRY_AGAIN: &str = "Nothing was written: try again";
const NOT_KNOWN: &str = "Whether what was asked has been written is not known. Ask again: what is there already is not written twice";

/// What to do about a connection that was not made.
fn advice(error: &Error) -> &'static str {
    if chain(error).contains("server does not support TLS") {
        "Turn TLS on there, or add sslmode=disable to its address if you trust the network"
    } else if chain(error).contains("certificate") {
        "Name the file with the certificate of its issuer in its address: sslrootcert=FILE"
    } else {
        CHECK
    }
}
