//! What carries restores out over one service and one journal, with a console before it or without.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use retinker::client::retry::RetryPolicy;
use retinker::client::waiting::WaitPolicy;
use retinker::client::{Api, ApiConfig};
use retinker::native::{NativeRuntime, NativeTransport};
use retinker::recovery::drives::Drives;
use retinker::recovery::events::{EventSink, of_progress};
use retinker::recovery::executor::Executor;
use retinker::recovery::journal::{Store, StoreError};
use retinker::recovery::monitor::{Monitor, Parts};
use retinker::recovery::ownership::Ownership;
use retinker::recovery::policy::Policy;
use retinker::recovery::restore::RestoreRecord;
use retinker::recovery::telling::Teller;
use retinker::runtime::Runtime;
use retinker::transport::Transport;
use retinker_store::Location;

use crate::asker::asker;
use crate::config::{ServiceTarget, StartError, told};

/// A service, its journal, and what acts on both. Cheap to clone.
#[derive(Clone)]
pub struct Keeper {
    /// The service, for questions.
    pub api: Api,
    /// The journal, bound to the service.
    pub store: Arc<dyn Store>,
    /// Carries restores out.
    pub drives: Drives,
    /// Looks for lost runs, and restores those that the policy allows.
    pub monitor: Monitor,
    /// Time and chance.
    pub runtime: Arc<dyn Runtime>,
    /// The service, as the journal is bound to it.
    pub identity: String,
    /// On whose behalf it does what people ask for.
    pub(crate) by: String,
    pub(crate) transport: Arc<dyn Transport>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Opens the journal, binds it to the service, and puts everything together. Sends nothing. What people ask of it is
    /// done on behalf of `by`, as [`asker`](crate::asker::asker) tells it. `sink` hears of what the
    /// monitor sees and of each restore that is driven here; `progress` of every write to a restore's record.
    ///
    /// # Errors
    /// See [`StartError`]: the journal cannot be used or is another service's, the address or key makes no sense.
    pub async fn open(
        by: &str,
        service: &ServiceTarget,
        journal: Location,
        policy: Policy,
        sink: Arc<dyn EventSink>,
        progress: impl Fn(&RestoreRecord) + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let runtime: Arc<dyn Runtime> = Arc::new(NativeRuntime::new(tokio::runtime::Handle::current()));
        let transport: Arc<dyn Transport> = Arc::new(NativeTransport::new().map_err(StartError::Transport)?);
        let client = ApiConfig {
            base_url: service.base_url.clone(),
            api_key: service.api_key.clone(),
            ..ApiConfig::default()
        };
        let api =
            Api::new(client, Arc::clone(&transport), Arc::clone(&runtime)).map_err(StartError::Service)?;
        let store = retinker_store::open(&journal).await.map_err(StartError::Journal)?;
        let identity = service.identity(api.base_url());
        store.bind(&identity).await.map_err(|error| match error {
            StoreError::OtherService { bound, asked } => {
                StartError::OtherService { journal, bound: told(&bound), asked: told(&asked) }
            }
            error => StartError::Journal(error),
        })?;
        // A restore outlasts a service that is away for some minutes; the executor tries each step again beyond this.
        let patient = api
            .clone()
            .with_retry(RetryPolicy { budget: Duration::from_secs(60), ..RetryPolicy::default() })
            .with_wait(WaitPolicy { patience: Duration::from_secs(180), ..WaitPolicy::default() });
        // Who asks is told soon that the service does not answer.
        let quick = RetryPolicy { budget: Duration::from_secs(5), max_retries: 2, ..RetryPolicy::default() };
        let api = api.with_retry(quick);
        let (heard, service) = (Arc::clone(&sink), identity.clone());
        let executor = Executor::new(patient, Arc::clone(&store), Arc::clone(&runtime))
            .asking(api.clone())
            .on_behalf_of(by)
            .on_progress(move |record| {
                progress(record);
                of_progress(&service, record).iter().for_each(|event| heard.tell(event));
            });
        let drives = Drives::new(executor, Arc::clone(&runtime));
        let monitor = Monitor::new(Parts {
            api: api.clone(),
            store: Arc::clone(&store),
            runtime: Arc::clone(&runtime),
            drives: drives.clone(),
            policy,
            sink,
            service: identity.clone(),
            by: asker("the monitor"),
        });
        Ok(Self { api, store, drives, monitor, runtime, identity, by: by.to_owned(), transport })
    }

    /// Tells `sink` of what happens in the journal.
    pub fn teller(&self, sink: Arc<dyn EventSink>) -> Teller {
        Teller::new(Arc::clone(&self.store), Arc::clone(&self.runtime), sink, &self.identity)
    }

    /// Keeps the sessions of restored runs alive, for ever.
    pub fn ownership(&self) -> Ownership {
        Ownership::new(self.api.clone(), Arc::clone(&self.store), Arc::clone(&self.runtime))
    }
}
