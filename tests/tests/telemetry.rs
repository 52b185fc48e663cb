//! The Rust client's telemetry, as it goes to the embedded service.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test that fails, panics.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use retinker::client::{
    Api, ApiConfig, LossFnConfig, Secret, ServiceClient, SessionOptions, TrainingOptions,
};
use retinker::native::{NativeRuntime, NativeTransport};
use retinker::transport::{Request, Response, Transport, TransportError};
use retinker::wire::model::LoraConfig;
use retinker::wire::session::FinishReason;
use retinker::wire::telemetry::{Happening, Severity, TelemetrySendRequest};
use retinker::wire::training::Datum;
use retinker_local::{LocalConfig, LocalService};
use serde_json::Map;

const KEY: &str = "tml-never-told";

type Batches = Arc<Mutex<Vec<(u16, Vec<u8>)>>>;

/// Sends, and keeps each batch with the status that it was answered with.
#[derive(Debug, Clone)]
struct Watched {
    inner: NativeTransport,
    batches: Batches,
}

impl Transport for Watched {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let batch = request.url.ends_with("/telemetry").then(|| request.body.to_vec());
        let (sent, batches) = (self.inner.send(request), self.batches.clone());
        async move {
            let response = sent.await?;
            batches.lock().unwrap().extend(batch.map(|batch| (response.status, batch)));
            Ok(response)
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_programs_life_is_told_and_its_key_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let service = LocalService::start(LocalConfig::new(dir.path())).await.unwrap();
    let transport = Watched { inner: NativeTransport::new().unwrap(), batches: Arc::default() };
    let config =
        ApiConfig { base_url: service.base_url(), api_key: Some(Secret::new(KEY)), ..ApiConfig::default() };
    let runtime = Arc::new(NativeRuntime::current().unwrap());
    let api = Api::new(config, Arc::new(transport.clone()), runtime).unwrap();
    let options = SessionOptions { telemetry: true, ..SessionOptions::default() };
    let client = ServiceClient::with_options(api, options);
    let lora = LoraConfig { rank: 8, ..LoraConfig::default() };
    let run = client.create_lora_training_client("retinker/nano-llama", lora, TrainingOptions::default());
    let run = run.await.unwrap();
    let telemetry = client.get_telemetry().await.unwrap();
    assert!(telemetry.log("epoch", Map::from_iter([("key".to_owned(), KEY.into())]), Severity::Info));
    let datum = Datum::cross_entropy(vec![1, 2], vec![2, 3], vec![1.0, 1.0]);
    run.forward_backward(&[datum], "no such loss", &LossFnConfig::new()).await.unwrap_err();
    client.finish(FinishReason::Success, None).await.unwrap();

    let batches = transport.batches.lock().unwrap().clone();
    let mut told = Vec::new();
    for (status, body) in &batches {
        assert_eq!(*status, 200);
        assert!(!String::from_utf8_lossy(body).contains(KEY));
        let batch: TelemetrySendRequest = serde_json::from_slice(body).unwrap();
        assert_eq!(batch.session_id, run.session_id());
        told.extend(batch.events.into_iter().map(|event| event.what));
    }
    assert_eq!(told.first(), Some(&Happening::SessionStart));
    let named = |what: &&Happening, name: &str| matches!(what, Happening::GenericEvent { event_name, .. } if event_name == name);
    assert!(told.iter().any(|what| named(&what, "epoch")), "{told:?}");
    assert!(told.iter().any(|what| named(&what, "user_error")), "{told:?}");
    assert!(matches!(told.last(), Some(Happening::SessionEnd { .. })), "{told:?}");
    assert_eq!(telemetry.dropped(), 0);
    service.stop().await;
}
