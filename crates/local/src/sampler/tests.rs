use std::sync::Arc;

use retinker_wire::sampling::AsampleRequest;
use serde_json::{Value, json};

use super::*;
use crate::config::LocalConfig;
use crate::futures::{Accepted, Completer, Futures};
use crate::service::LocalService;

const MODEL: &str = "retinker/nano-llama";

fn accept(futures: &Arc<Futures>, id: usize) -> Completer {
    match futures.accept_sample(&format!("r:{id}"), None, None) {
        Accepted::New(completer) => completer,
        Accepted::Before | Accepted::Reused => panic!("{id} is known already"),
    }
}

/// A request whose samples go on for long.
fn job(futures: &Arc<Futures>, id: usize) -> Job {
    let request: AsampleRequest = serde_json::from_value(json!({
        "num_samples": 1024, "sampling_params": {"stop": []},
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": [1]}]},
    }))
    .unwrap();
    let spec = Spec::read(request).unwrap();
    Job { source: Source::Base(MODEL.to_owned()), spec, completer: accept(futures, id) }
}

#[test]
fn what_waits_is_bounded_in_number_and_in_bytes() {
    let futures = Arc::new(Futures::default());
    let sampler = Sampler::default();
    let mut taken = 0;
    let (_, reason) = loop {
        match sampler.submit(job(&futures, taken)) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(reason, format!("{taken} sampling requests are waiting already; try again in a moment"));
    // One that nobody wants any more makes room for another.
    sampler.cancel("r:3");
    assert!(futures.watch("r:3").unwrap().borrow().is_some());
    assert!(sampler.submit(job(&futures, taken + 1)).is_ok());
    assert!(sampler.submit(job(&futures, taken + 2)).is_err());

    let large = Sampler::default();
    let mut whale = job(&futures, taken + 3);
    whale.spec.tokens = vec![1; 20 << 20];
    assert!(large.submit(whale).is_ok(), "one is taken whatever its size");
    assert!(large.submit(job(&futures, taken + 4)).is_err());
    assert!(large.next().is_some());
    assert!(large.submit(job(&futures, taken + 5)).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_sampler_is_answered_429_and_stops_promptly() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let service = LocalService::start(LocalConfig::new(dir.path())).await.unwrap();
    let core = Arc::clone(service.core());
    let url = format!("{}/api/v1/asample", service.base_url());
    let http = reqwest::Client::new();
    let body = json!({"base_model": MODEL, "num_samples": 1024, "sampling_params": {"stop": []},
                      "prompt": {"chunks": [{"tokens": [1]}]}});
    let mut next = 0..;
    // The engine may take one in between the last that fits and the one that should not.
    let refused: Value = loop {
        while let Some(id) = next.next()
            && core.sampler.submit(job(&core.futures, id)).is_ok()
        {}
        let response = http.post(&url).header("x-api-key", "tml-test").json(&body).send().await.unwrap();
        match response.status().as_u16() {
            429 => break response.json().await.unwrap(),
            status => assert_eq!(status, 200),
        }
    };
    assert!(refused["detail"].as_str().unwrap().contains("waiting already; try again"), "{refused}");
    let first = core.futures.watch("r:0").unwrap();
    assert!(first.borrow().is_none(), "more than a million tokens were sampled in no time");
    service.stop().await;
    assert!(first.borrow().is_some(), "what was under way when the service stopped hangs");
}
