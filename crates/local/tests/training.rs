//! Training, saving and restoring over HTTP.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use common::{Client, MODEL, batch, datum, start};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_with_optimizer_goes_on_bit_for_bit_and_one_without_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;

    let mut run = client.run(&session, 0).await;
    let before = run.losses(0..4).await;
    let path = run.save("s").await;
    assert_eq!(path, format!("tinker://{}/weights/s", run.id));
    let uninterrupted = run.losses(4..10).await;
    assert!(uninterrupted[5] < before[0], "it does not learn: {before:?} {uninterrupted:?}");

    let mut restored = client.run_from(&session, 1, &path, true).await.unwrap();
    assert_eq!(restored.losses(4..10).await, uninterrupted);

    let mut weights_only = client.run_from(&session, 2, &path, false).await.unwrap();
    let losses = weights_only.losses(4..10).await;
    assert_eq!(losses[0], uninterrupted[0]);
    assert_ne!(losses[1], uninterrupted[1]);

    // The older way: make a model, then load into it.
    let mut legacy = client.run(&session, 3).await;
    let seq = legacy.next();
    let loaded = client
        .call("load_weights", json!({"model_id": legacy.id, "seq_id": seq, "path": path, "optimizer": true}))
        .await;
    assert_eq!(loaded["path"], path, "{loaded}");
    assert_eq!(legacy.losses(4..10).await, uninterrupted);

    let info = restored.info().await;
    assert_eq!(info["user_metadata"]["name"], "restored");
    assert_eq!(info["lora_rank"], 4);
    assert_eq!(info["base_model"], MODEL);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn losses_do_not_depend_on_other_runs() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut alone = client.run(&session, 0).await;
    let expected = alone.losses(0..6).await;

    let (mut a, mut b) = (client.run(&session, 1).await, client.run(&session, 2).await);
    let (a, b) = tokio::join!(a.losses(0..6), b.losses(0..6));
    assert_eq!(a, expected);
    assert_eq!(b, expected);

    // The same batch in two calls is the same batch, but for the order in which gradients are summed.
    let mut split = client.run(&session, 3).await;
    for (step, loss) in expected.iter().enumerate() {
        let mut sum = 0.0;
        for datum in batch(step) {
            let output = split.forward_backward(vec![datum]).await;
            sum += output["metrics"]["loss:sum"].as_f64().unwrap();
        }
        split.optim_step().await;
        assert!((sum - loss).abs() < 1e-5 * loss, "{sum} {loss}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_ahead_of_their_turn_are_accepted_at_once_and_carried_out_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut alone = client.run(&session, 0).await;
    let expected = alone.losses(0..2).await;

    let run = client.run(&session, 1).await;
    // As the official client sends the chunks of one call: the first of them last.
    for (path, body) in [
        ("optim_step", run.step_body(2)),
        ("forward_backward", run.pass_body(3, batch(1))),
        ("optim_step", run.step_body(4)),
        ("forward_backward", run.pass_body(1, batch(0))),
    ] {
        client.ok(path, body).await;
    }
    for (seq, loss) in [(1, expected[0]), (3, expected[1])] {
        let (_, output) = client.result_of(&format!("{}:{seq}", run.id)).await;
        assert_eq!(output["metrics"]["loss:sum"].as_f64(), Some(loss), "{output}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_sent_again_is_not_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;

    // Creations: by session and number.
    let body = json!({"session_id": session, "model_seq_id": 0, "base_model": MODEL, "lora_config": {"rank": 2, "seed": 1}});
    let first = client.ok("create_model", body.clone()).await;
    assert_eq!(client.ok("create_model", body).await, first);
    let mut run = client.run(&session, 1).await;
    let loss = run.train(0).await;

    let again = client.ok("forward_backward", run.pass_body(1, batch(0))).await;
    assert_eq!(again["request_id"], format!("{}:1", run.id));
    let (_, output) = client.result_of(&format!("{}:1", run.id)).await;
    assert_eq!(output["metrics"]["loss:sum"].as_f64(), Some(loss));
    for _ in 0..3 {
        client.ok("optim_step", run.step_body(2)).await;
    }
    let path = run.save("s").await;
    let (_, saved) = client.result_of(&format!("{}:3", run.id)).await;
    assert_eq!(saved["path"], path);
    assert_eq!(
        client.call("save_weights", json!({"model_id": run.id, "seq_id": 3, "path": "s"})).await["path"],
        path
    );

    // Restores: by session and number.
    let mut restored = client.run_from(&session, 2, &path, true).await.unwrap();
    let uninterrupted = run.losses(1..3).await;
    assert_eq!(restored.losses(1..3).await, uninterrupted);
    client.run_from(&session, 2, &path, true).await.unwrap();
    let (_, runs) = client.get("training_runs").await;
    assert_eq!(runs["cursor"]["total_count"], 3, "{runs}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut clean = client.run(&session, 0).await;
    let expected = clean.losses(0..2).await;
    let mut run = client.run(&session, 1).await;
    let mut losses = vec![run.train(0).await];

    let with = |path: &str, value: Value| {
        let mut datum = datum(0, 4);
        *datum.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        datum
    };
    let inputs = "/loss_fn_inputs";
    let float = |data: Value| json!({"data": data, "dtype": "float32"});
    let int = |data: Value| json!({"data": data, "dtype": "int64"});
    let bad_data = [
        (vec![], "no data"),
        (vec![with("/model_input/chunks/0/tokens", json!([]))], "no tokens"),
        (vec![with("/model_input/chunks/0/tokens", json!([1, 2, -3, 4]))], "token -3 is negative"),
        (vec![with("/model_input/chunks/0/tokens", json!([1, 2, 3000, 4]))], "3000"),
        (vec![with("/model_input/chunks/0/tokens", json!(vec![1; 5000]))], "5000 tokens and 4 targets"),
        (
            vec![json!({
                "model_input": {"chunks": [{"type": "encoded_text", "tokens": vec![1; 5000]}]},
                "loss_fn_inputs": {"target_tokens": int(json!(vec![1; 5000]))},
            })],
            "context",
        ),
        (vec![with("/loss_fn_inputs/target_tokens", int(json!([1, 2])))], "2 targets"),
        (vec![with("/loss_fn_inputs/target_tokens", int(json!([1, 2, 3, 1u64 << 40])))], "not a token"),
        (vec![with("/loss_fn_inputs/target_tokens", float(json!([1.0, 2.0, 3.0, 4.0])))], "int64"),
        (vec![with("/loss_fn_inputs/weights", float(json!([1.0])))], "1 weights"),
        (vec![with(inputs, json!({"weights": float(json!([1.0, 1.0, 1.0, 1.0]))}))], "target_tokens"),
        (
            vec![with(
                inputs,
                json!({"target_tokens": int(json!([1, 2, 3, 4])), "mask": float(json!([1.0]))}),
            )],
            "mask",
        ),
        (vec![datum(0, 4), with("/model_input/chunks/0/tokens", json!([]))], "datum 1"),
    ];
    for (data, reason) in bad_data {
        let result = run.forward_backward(data).await;
        assert_eq!(result["category"], "user", "{reason}: {result}");
        assert!(result["error"].as_str().unwrap().contains(reason), "{reason}: {result}");
    }
    let mut call = |path: &'static str, mut body: Value| {
        body["model_id"] = json!(run.id);
        body["seq_id"] = json!(run.next());
        let client = client.clone();
        async move { client.call(path, body).await }
    };
    let batch_of = |loss: &str, config: Value| json!({"forward_backward_input": {"data": [datum(0, 4)], "loss_fn": loss, "loss_fn_config": config}});
    for (path, body, reason) in [
        ("forward_backward", batch_of("gspo", json!({})), "cross_entropy"),
        ("forward_backward", batch_of("cross_entropy", json!({"x": 1.0})), "'x'"),
        ("optim_step", json!({"adam_params": {"learning_rate": -1.0}}), "learning_rate"),
        ("optim_step", json!({"optimizer_params": {"type": "dimuon", "learning_rate": 0.1}}), "dimuon"),
        ("save_weights", json!({"path": "../evil"}), "../evil"),
        ("save_weights", json!({"path": ".hidden"}), ".hidden"),
        ("save_weights", json!({"path": "short-lived", "ttl_seconds": 0}), "ttl_seconds"),
    ] {
        let result = call(path, body).await;
        assert_eq!(result["category"], "user", "{path}: {result}");
        assert!(result["error"].as_str().unwrap().contains(reason), "{path}: {result}");
    }

    // A refused one takes no turn: whether its number comes again or not, the next is carried out.
    for body in [
        json!({"model_id": run.id, "seq_id": run.seq + 1}),
        json!({"model_id": run.id, "seq_id": run.seq + 1, "forward_backward_input": {"data": 5, "loss_fn": "x"}}),
    ] {
        assert_eq!(client.post("forward_backward", body).await.0, 422);
    }
    let skipped =
        client.post("save_weights", json!({"model_id": run.id, "seq_id": run.seq + 2, "path": 7})).await;
    assert_eq!(skipped.0, 422);
    run.seq += 2;
    losses.push(run.train(1).await);
    assert_eq!(losses, expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_accepted_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let run = client.run(&session, 0).await;
    let unknown = "none:train:0";
    for (path, body, status, reason) in [
        (
            "forward_backward",
            json!({"model_id": unknown, "seq_id": 1, "forward_backward_input": {"data": [], "loss_fn": "x"}}),
            404,
            unknown,
        ),
        ("optim_step", json!({"model_id": unknown, "seq_id": 1}), 404, unknown),
        ("optim_step", json!({"model_id": run.id}), 422, "seq_id"),
        ("optim_step", json!({"model_id": run.id, "seq_id": 0}), 400, "seq_id"),
        ("get_info", json!({"model_id": unknown}), 404, unknown),
        ("get_info", json!({}), 422, "model_id"),
        ("retrieve_future", json!({"request_id": "nothing"}), 404, "nothing"),
        ("retrieve_future", json!({"request_id": format!("{unknown}:4")}), 404, unknown),
        ("create_model", json!({"session_id": "no-session", "base_model": MODEL}), 404, "no-session"),
        ("session_heartbeat", json!({"session_id": "no-session"}), 404, "no-session"),
        (
            "weights_info",
            json!({"tinker_path": "tinker://x/y"}),
            400,
            "Invalid checkpoint tinker path tinker://x/y",
        ),
        ("weights_info", json!({"tinker_path": format!("tinker://{unknown}/weights/a")}), 404, unknown),
        ("weights_info", json!({"tinker_path": format!("tinker://{}/weights/a", run.id)}), 404, "weights/a"),
        (
            "load_weights",
            json!({"model_id": run.id, "seq_id": 2, "path": format!("tinker://{}/weights/a", run.id)}),
            400,
            "seq_id 2",
        ),
        (
            "load_weights",
            json!({"session_id": session, "model_seq_id": 5, "path": "nonsense"}),
            400,
            "nonsense",
        ),
        (
            "load_weights",
            json!({"session_id": session, "model_seq_id": 5, "path": format!("tinker://{}/sampler_weights/a", run.id)}),
            400,
            "training",
        ),
        ("load_weights", json!({"path": "tinker://r/weights/a"}), 422, "session_id"),
        ("asample", json!({}), 422, "prompt is missing"),
        ("no_such_endpoint", json!({}), 404, "Not Found"),
        ("sessions/no-session/finish", json!({}), 404, "no-session"),
    ] {
        let (found, answer) = client.post(path, body.clone()).await;
        assert_eq!(found, status, "{path} {body}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(reason), "{path} {body}: {answer}");
    }
    for path in [
        format!("training_runs/{unknown}"),
        format!("training_runs/{unknown}/checkpoints"),
        "sessions/no-session".to_owned(),
        "samplers/x".to_owned(),
    ] {
        assert_eq!(client.get(&path).await.0, 404, "{path}");
    }
    assert_eq!(client.get("create_session").await.0, 405);
    assert_eq!(client.get("training_runs?limit=many").await.0, 422);

    let response = client.http.post(client.url("optim_step")).body("{}").send().await.unwrap();
    assert_eq!(response.status(), 415);
    let response = client
        .http
        .post(client.url("forward_backward"))
        .header("content-type", "application/x-protobuf")
        .body(vec![0xffu8; 9])
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 422);

    // Creations that are understood but cannot be done.
    for (body, reason) in [
        (json!({"base_model": "nobody/else"}), "retinker/nano-llama"),
        (json!({"base_model": MODEL, "lora_config": {"rank": 0}}), "rank"),
        (json!({"base_model": MODEL, "lora_config": {"rank": 100_000}}), "rank"),
        (
            json!({"base_model": MODEL, "lora_config": {"rank": 4, "train_attn": false, "train_mlp": false, "train_unembed": false}}),
            "at least one",
        ),
        (json!({"base_model": MODEL, "optimizer_config": {"type": "dimuon", "version": 1}}), "adamw"),
    ] {
        let mut body = body;
        body["session_id"] = json!(session);
        body["model_seq_id"] = json!(reason.len() + 10);
        let result = client.call("create_model", body).await;
        assert_eq!(result["category"], "user", "{result}");
        assert!(result["error"].as_str().unwrap().contains(reason), "{result}");
    }
    let (_, runs) = client.get("training_runs").await;
    assert_eq!(runs["cursor"]["total_count"], 1, "{runs}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_protobuf_where_that_is_asked_for() {
    use prost::Message;
    use retinker_wire::future::PROTOBUF;
    use retinker_wire::proto;
    use retinker_wire::training::{Datum, ForwardBackwardOutput};

    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let run = client.run(&session, 0).await;
    let datum = Datum::cross_entropy(vec![1, 2, 3], vec![2, 3, 4], vec![0.0, 1.0, 2.0]);
    let request = proto::ForwardBackwardRequest {
        model_id: run.id.clone(),
        seq_id: 1,
        data: vec![datum.to_proto().unwrap(), datum.to_proto().unwrap()],
        loss_fn: "cross_entropy".into(),
        forward_only: true,
        ..Default::default()
    };
    let response = client
        .http
        .post(client.url("forward_backward"))
        .header("content-type", PROTOBUF)
        .body(request.encode_to_vec())
        .send()
        .await
        .unwrap();
    let submitted: Value = response.json().await.unwrap();
    let request_id = submitted["request_id"].as_str().unwrap();
    let (_, as_json) = client.result_of(request_id).await;
    let response = client
        .http
        .post(client.url("retrieve_future"))
        .header("accept", PROTOBUF)
        .json(&json!({"request_id": request_id, "allow_metadata_only": true}))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], PROTOBUF);
    let message = proto::ForwardBackwardOutput::decode(response.bytes().await.unwrap()).unwrap();
    let output = ForwardBackwardOutput::from_proto(&message).unwrap();
    assert_eq!(output.loss_fn_output_type, "CrossEntropyLossReturn");
    assert_eq!(output.loss_fn_outputs.len(), 2);
    let first = &output.loss_fn_outputs[0];
    let (logprobs, losses) = (first["logprobs"].to_f32(), first["elementwise_loss"].to_f32());
    assert_eq!(losses, [0.0, -logprobs[1], -2.0 * logprobs[2]]);
    let sum = 2.0 * losses.iter().map(|l| f64::from(*l)).sum::<f64>();
    assert!((output.metrics["loss:sum"] - sum).abs() < 1e-5);
    assert_eq!(as_json["metrics"]["loss:sum"].as_f64(), Some(output.metrics["loss:sum"]));
    assert_eq!(as_json["loss_fn_outputs"][1]["logprobs"]["shape"], json!([3]));
    assert!(output.metrics.keys().all(|name| name.split(':').count() == 2), "{:?}", output.metrics);
    service.stop().await;
}
