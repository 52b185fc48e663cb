//! Numbers of requests that come a second time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use common::{Client, Run, batch, datum, start};
use prost::Message;
use retinker_wire::proto;
use retinker_wire::training::Datum;
use serde_json::{Value, json};

/// Asserts that a request is refused as another's number, and that the answer says which number is free.
async fn assert_reused(client: &Client, path: &str, body: Value, next: u64) {
    let (status, answer) = client.post(path, body.clone()).await;
    assert_eq!(status, 409, "{path} {body}: {answer}");
    let detail = answer["detail"].as_str().unwrap();
    let (run, seq) = (body["model_id"].as_str().unwrap(), &body["seq_id"]);
    assert!(detail.starts_with("Training request sequence number was reused: "), "{detail}");
    assert!(detail.contains(run) && detail.contains(&format!("seq_id {seq} ")), "{detail}");
    assert!(detail.ends_with(&format!("the next free number is {next}")), "{detail}");
}

/// Asserts that a request is answered with the first one's id.
async fn assert_same(client: &Client, path: &str, body: Value) {
    let answer = client.ok(path, body.clone()).await;
    let id = format!("{}:{}", body["model_id"].as_str().unwrap(), body["seq_id"]);
    assert_eq!(answer["request_id"], id, "{path}");
}

fn save_body(run: &Run, seq: u64, name: &str) -> Value {
    json!({"model_id": run.id, "seq_id": seq, "path": name})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_belongs_to_the_first_request_that_bears_it() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut untouched = client.run(&session, 0).await;
    let expected = untouched.losses(0..3).await;

    let mut run = client.run(&session, 1).await;
    let mut losses = vec![run.train(0).await];
    run.save("s").await;

    let mut other_step = run.step_body(2);
    other_step["adam_params"]["learning_rate"] = json!(0.5);
    let forward = json!({"model_id": run.id, "seq_id": 1,
                         "forward_input": {"data": batch(0), "loss_fn": "cross_entropy"}});
    let mut other_loss = run.pass_body(1, batch(0));
    other_loss["forward_backward_input"]["loss_fn_config"] = json!({"clip": 0.5});
    let mut overwriting = save_body(&run, 3, "s");
    overwriting["overwrite"] = json!(true);
    let mut short_lived = save_body(&run, 3, "s");
    short_lived["ttl_seconds"] = json!(0);
    let mut labelled = save_body(&run, 3, "s");
    labelled["user_metadata"] = json!({"step": "1"});
    for (path, body) in [
        // The same operation, another payload.
        ("forward_backward", run.pass_body(1, batch(1))),
        ("forward_backward", run.pass_body(1, batch(0)[..1].to_vec())),
        ("forward_backward", other_loss),
        ("optim_step", other_step),
        ("save_weights", save_body(&run, 3, "t")),
        ("save_weights", overwriting),
        ("save_weights", short_lived),
        ("save_weights", labelled),
        // Another operation.
        ("forward", forward),
        ("optim_step", run.step_body(1)),
        ("optim_step", json!({"model_id": run.id, "seq_id": 2, "optimizer_params": {"type": "dimuon"}})),
        ("forward_backward", run.pass_body(2, batch(0))),
        ("forward_backward", run.pass_body(3, batch(0))),
        ("save_weights", save_body(&run, 1, "s")),
        (
            "load_weights",
            json!({"model_id": run.id, "seq_id": 1, "path": format!("tinker://{}/weights/s", run.id)}),
        ),
    ] {
        assert_reused(&client, path, body, 4).await;
    }
    // The same requests, once more.
    assert_same(&client, "forward_backward", run.pass_body(1, batch(0))).await;
    assert_same(&client, "optim_step", run.step_body(2)).await;
    assert_same(&client, "save_weights", save_body(&run, 3, "s")).await;

    // None of them has left a trace.
    losses.extend(run.losses(1..3).await);
    assert_eq!(losses, expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_its_turn_has_its_number_already() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let run = client.run(&session, 0).await;

    client.ok("optim_step", run.step_body(2)).await;
    assert_reused(&client, "forward_backward", run.pass_body(2, batch(0)), 3).await;
    assert_same(&client, "optim_step", run.step_body(2)).await;
    client.ok("forward_backward", run.pass_body(1, batch(0))).await;
    let (_, stepped) = client.result_of(&format!("{}:2", run.id)).await;
    assert!(stepped["metrics"].is_object(), "{stepped}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_a_load_belongs_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut source = client.run(&session, 0).await;
    source.train(0).await;
    let (first, second) = (source.save("first").await, source.save("second").await);

    let run = client.run(&session, 1).await;
    let load = |path: &str, optimizer: bool| json!({"model_id": run.id, "seq_id": 1, "path": path, "optimizer": optimizer});
    let loaded = client.call("load_weights", load(&first, true)).await;
    assert_eq!(loaded["path"], first, "{loaded}");
    assert_same(&client, "load_weights", load(&first, true)).await;
    assert_reused(&client, "load_weights", load(&second, true), 2).await;
    assert_reused(&client, "load_weights", load(&first, false), 2).await;
    assert_reused(&client, "optim_step", run.step_body(1), 2).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_the_same_in_json_and_in_protobuf() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.forward_backward(batch(0)).await;

    let encoded = |data: Vec<Value>, forward_only: bool| {
        let data =
            data.into_iter().map(|datum| serde_json::from_value::<Datum>(datum).unwrap().to_proto().unwrap());
        proto::ForwardBackwardRequest {
            model_id: run.id.clone(),
            seq_id: 1,
            data: data.collect(),
            loss_fn: "cross_entropy".to_owned(),
            forward_only,
            ..Default::default()
        }
    };
    let post = |request: proto::ForwardBackwardRequest| {
        let url = client.url("forward_backward");
        let sent = client
            .http
            .post(url)
            .header("content-type", "application/x-protobuf")
            .body(request.encode_to_vec());
        async move { sent.send().await.unwrap().status().as_u16() }
    };
    // Protobuf maps have no order: every message made anew has one of its own.
    for _ in 0..20 {
        assert_eq!(post(encoded(batch(0), false)).await, 200);
    }
    assert_eq!(post(encoded(batch(0), true)).await, 409);
    assert_eq!(post(encoded(vec![datum(0, 4)], false)).await, 409);
    let mut undecodable = encoded(batch(0), false);
    undecodable.data[0].model_input[0].chunk = None;
    assert_eq!(post(undecodable).await, 409);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_numbers_of_checkpoints_are_known() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.train(0).await;
    let path = run.save("s").await;
    service.stop().await;

    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    run.client = client.clone();
    assert_reused(&client, "save_weights", save_body(&run, 3, "t"), 4).await;
    assert_reused(&client, "optim_step", run.step_body(3), 4).await;
    assert_eq!(client.call("save_weights", save_body(&run, 3, "s")).await["path"], path);
    // Of the others nothing is left to compare.
    let submitted = client.ok("optim_step", run.step_body(2)).await;
    let (status, _) = client.result_of(submitted["request_id"].as_str().unwrap()).await;
    assert_eq!(status, 410);
    run.train(1).await;
    service.stop().await;
}
