//! Spans of a program's operations and of the requests made for them, and how their trace goes on in the service.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use retinker::client::testing::{FakeReply, FakeTransport, ManualRuntime};
use retinker::client::{Api, ApiConfig, Secret, TrainingClient};
use retinker::propagation::PropagatingTransport;
use retinker::recovery::restore::Attachment;
use retinker::transport::Request;
use retinker::wire::training::AdamParams;
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

const KEY: &str = "tml-very-secret";

fn attribute(span: &SpanData, name: &str) -> String {
    span.attributes
        .iter()
        .find(|kv| kv.key.as_str() == name)
        .map(|kv| kv.value.to_string())
        .unwrap_or_default()
}

fn children(spans: &[SpanData], parent: SpanId) -> Vec<&SpanData> {
    spans.iter().filter(|span| span.parent_span_id == parent).collect()
}

#[test]
fn what_is_sent_belongs_to_the_operation_it_is_sent_for() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let subscriber = tracing_subscriber::registry()
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")));

    let runtime = ManualRuntime::new();
    let mut steps = 0;
    let transport = FakeTransport::new(&runtime, move |request: &Request| {
        if request.url.ends_with("/optim_step") {
            steps += 1;
            return match steps {
                1 => FakeReply::json(503, "{}"),
                _ => FakeReply::json(200, r#"{"request_id":"1"}"#),
            };
        }
        FakeReply::json(200, "{}")
    });
    tracing::subscriber::with_default(subscriber, || {
        let config = ApiConfig {
            base_url: "http://service.test".into(),
            api_key: Some(Secret::new(KEY)),
            ..ApiConfig::default()
        };
        let propagating = Arc::new(PropagatingTransport::new(Arc::new(transport.clone())));
        let api = Api::new(config, propagating, Arc::new(runtime.clone())).unwrap();
        let run = Attachment { session_id: "s".into(), model_id: "s:train:0".into(), next_seq_id: 7 };
        let step = async {
            let client = TrainingClient::attach(api, run);
            client.optim_step(AdamParams::default()).await.unwrap();
        };
        runtime.block_on(step.instrument(tracing::info_span!("program")));
    });
    provider.force_flush().unwrap();
    let spans = exporter.get_finished_spans().unwrap();
    let program = spans.iter().find(|span| span.name == "program").unwrap();
    let operations = children(&spans, program.span_context.span_id());
    let [operation] = operations.as_slice() else { panic!("{operations:?}") };
    assert_eq!((&*operation.name, attribute(operation, "model_id")), ("optim_step", "s:train:0".to_owned()));
    let requests = children(&spans, operation.span_context.span_id());
    let told: Vec<_> = requests
        .iter()
        .filter(|span| !attribute(span, "url.path").contains("/client/"))
        .map(|span| {
            ["url.path", "http.request.resend_count", "http.response.status_code"]
                .map(|name| attribute(span, name))
        })
        .collect();
    let expected = [
        ["/api/v1/optim_step", "0", "503"],
        ["/api/v1/optim_step", "1", "200"],
        ["/api/v1/retrieve_future", "0", "200"],
    ];
    assert_eq!(told, expected);
    // Each request names its own span as the parent of what the service does.
    let trace = program.span_context.trace_id().to_string();
    let sent: Vec<_> = transport
        .requests()
        .iter()
        .filter_map(|request| Some(request.header("traceparent")?.to_owned()))
        .collect();
    let named: Vec<_> =
        requests.iter().map(|span| format!("00-{trace}-{}-01", span.span_context.span_id())).collect();
    assert_eq!(sent, named);
    assert!(!format!("{spans:?}").contains(KEY), "no secret is in a span");
}
