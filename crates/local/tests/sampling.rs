//! Sampling over HTTP.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use std::path::Path;

use common::{Client, MODEL, start};
use prost::Message;
use retinker_local::LocalService;
use retinker_wire::tensor::{f32_values, i32_values};
use retinker_wire::{future, proto};
use serde_json::{Value, json};

const CONTEXT: usize = 1024;
const EOS: u64 = 257;

/// One client of one sampling session.
struct Sampling {
    client: Client,
    id: String,
    next: std::sync::atomic::AtomicU64,
}

impl Sampling {
    async fn begin(client: &Client, number: u64, from: Value) -> Self {
        let session = client.session().await;
        let mut body = json!({"session_id": session, "sampling_session_seq_id": number});
        for (member, value) in from.as_object().unwrap() {
            body[member] = value.clone();
        }
        let answer = client.ok("create_sampling_session", body).await;
        let id = answer["sampling_session_id"].as_str().unwrap().to_owned();
        Self { client: client.clone(), id, next: 0.into() }
    }

    async fn of_base(client: &Client) -> Self {
        Self::begin(client, 0, json!({"base_model": MODEL})).await
    }

    /// The body of a new request; members of `more` replace those that stand.
    fn body(&self, text: &str, params: Value, more: Value) -> Value {
        let seq = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let tokens: Vec<u8> = text.bytes().collect();
        let mut body = json!({
            "sampling_session_id": self.id, "seq_id": seq, "type": "sample", "num_samples": 1,
            "prompt": {"chunks": [{"type": "encoded_text", "tokens": tokens}]}, "sampling_params": params,
        });
        for (member, value) in more.as_object().unwrap() {
            body[member] = value.clone();
        }
        body
    }

    async fn submit(&self, text: &str, params: Value, more: Value) -> String {
        let answer = self.client.ok("asample", self.body(text, params, more)).await;
        answer["request_id"].as_str().unwrap().to_owned()
    }

    /// The result, which may be a failure.
    async fn sample(&self, text: &str, params: Value, more: Value) -> Value {
        self.client.call("asample", self.body(text, params, more)).await
    }

    /// The tokens of one sample and why it ended.
    async fn tokens(&self, text: &str, params: Value) -> (Vec<u64>, String) {
        let result = self.sample(text, params, json!({})).await;
        (tokens_of(&result, 0), result["sequences"][0]["stop_reason"].as_str().unwrap().to_owned())
    }
}

fn tokens_of(result: &Value, sample: usize) -> Vec<u64> {
    let tokens = result["sequences"][sample]["tokens"].as_array();
    tokens.unwrap_or_else(|| panic!("{result}")).iter().map(|token| token.as_u64().unwrap()).collect()
}

fn floats(values: &Value) -> Vec<f64> {
    let values = values.as_array().unwrap_or_else(|| panic!("{values}"));
    values.iter().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-5
}

async fn service() -> (tempfile::TempDir, LocalService, Client) {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    (dir, service, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_says_of_a_prompt_what_its_run_said_of_it() {
    let (_dir, service, client) = service().await;
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.losses(0..5).await;
    let path = run.save("s").await;
    let datum = common::datum(3, 40);
    let tokens: Vec<u64> =
        serde_json::from_value(datum["model_input"]["chunks"][0]["tokens"].clone()).unwrap();
    let forward = run.forward(vec![datum]).await;
    let expected = floats(&forward["loss_fn_outputs"][0]["logprobs"]["data"]);

    let text: String = tokens.iter().map(|&token| char::from(token as u8)).collect();
    let sampler = Sampling::begin(&client, 0, json!({"model_path": path})).await;
    let targets: Vec<Vec<i64>> =
        (1..tokens.len()).map(|i| vec![tokens[i] as i64, -1, tokens[i - 1] as i64]).collect();
    let flat: Vec<i64> = targets.concat();
    let asked = json!({
        "prompt_logprobs": true, "topk_prompt_logprobs": 3, "topk_sample_logprobs": 2, "prompt_alt_tokens_k": 4,
        "target_prompt_logprobs": {"data": flat, "dtype": "int64", "shape": [tokens.len() - 1, 3]},
    });
    let greedy = json!({"max_tokens": 6, "temperature": 0.0, "stop": []});
    let result = sampler.sample(&text, greedy.clone(), asked).await;
    let logprobs = floats(&result["prompt_logprobs"]);
    assert_eq!(logprobs.len(), tokens.len());
    assert!(logprobs[0].is_nan());
    for (i, logprob) in logprobs.iter().enumerate().skip(1) {
        assert!(close(*logprob, expected[i - 1]), "{i}: {logprob} {}", expected[i - 1]);
    }

    let top = result["topk_prompt_logprobs"].as_array().unwrap();
    assert_eq!(top.len(), tokens.len());
    assert_eq!(top[0], Value::Null);
    for (row, logprob) in top.iter().zip(&logprobs).skip(1) {
        let row: Vec<f64> = row.as_array().unwrap().iter().map(|cell| cell[1].as_f64().unwrap()).collect();
        assert!(row.len() == 3 && row.is_sorted_by(|a, b| a >= b) && row[0] >= *logprob, "{row:?}");
    }
    let scores = &result["target_prompt_logprobs"];
    assert_eq!(scores["shape"], json!([tokens.len() - 1, 3]));
    for (i, row) in floats(&scores["data"]).chunks(3).enumerate() {
        assert_eq!(row[0], logprobs[i + 1]);
        assert_eq!(row[1], 0.0);
        assert!(row[2] < 0.0);
    }
    let drawn = &result["prompt_alt_tokens"];
    assert_eq!(drawn["tokens"]["shape"], json!([tokens.len() - 1, 4]));
    for (i, row) in drawn["tokens"]["data"].as_array().unwrap().chunks(4).enumerate() {
        // At temperature 0 every draw is the most probable token.
        assert!(row.iter().all(|token| *token == top[i + 1][0][0]), "{row:?}");
    }

    let sampled = tokens_of(&result, 0);
    let beside = result["sequences"][0]["topk_logprobs"].as_array().unwrap();
    for (i, token) in sampled.iter().enumerate() {
        assert_eq!(beside[i][0], json!([token, result["sequences"][0]["logprobs"][i]]));
    }
    // The sampled tokens are scored as a prompt's are.
    let bytes: Vec<u64> = tokens.iter().chain(&sampled).copied().collect();
    let whole = json!({"prompt": {"chunks": [{"type": "encoded_text", "tokens": bytes}]},
                       "prompt_logprobs": true, "prompt_logprobs_last_n": sampled.len(), "topk_prompt_logprobs": 1});
    let again = sampler.sample("", json!({"max_tokens": 1}), whole).await;
    let scored = floats(&again["prompt_logprobs"]);
    assert!(scored[..tokens.len()].iter().all(|logprob| logprob.is_nan()));
    for (scored, sampled) in scored[tokens.len()..].iter().zip(floats(&result["sequences"][0]["logprobs"])) {
        // In one pass or token by token: the same up to the rounding of logits in the tens.
        assert!((scored - sampled).abs() < 1e-4, "{scored} {sampled}");
    }
    assert_eq!(again["topk_prompt_logprobs"][tokens.len() - 1], Value::Null);
    assert_ne!(again["topk_prompt_logprobs"][tokens.len()], Value::Null);

    let base = Sampling::of_base(&client).await.tokens(&text, greedy).await.0;
    assert_ne!(base, sampled, "the checkpoint's weights make no difference");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_list_of_targets_is_answered_in_kind() {
    let (_dir, service, client) = service().await;
    let sampler = Sampling::of_base(&client).await;
    let sparse = json!({"data": [98, 99], "dtype": "int64", "shape": [3, 1000000000000u64],
                        "sparse_crow_indices": [0, 0, 1, 2], "sparse_col_indices": [7, 0]});
    let more = json!({"prompt_logprobs": true, "target_prompt_logprobs": sparse});
    let result = sampler.sample("aabc", json!({"max_tokens": 1}), more).await;
    let scores = &result["target_prompt_logprobs"];
    assert_eq!(scores["shape"], json!([3, 1000000000000u64]));
    assert_eq!(scores["sparse_crow_indices"], json!([0, 0, 1, 2]));
    assert_eq!(scores["sparse_col_indices"], json!([7, 0]));
    assert_eq!(floats(&scores["data"]), floats(&result["prompt_logprobs"])[2..]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_gives_the_same_samples() {
    let (_dir, service, client) = service().await;
    let sampler = Sampling::of_base(&client).await;
    let params = |seed: Value| json!({"max_tokens": 24, "seed": seed, "stop": []});
    let three = json!({"num_samples": 3});
    let first = sampler.sample("Once", params(json!(5)), three.clone()).await;
    assert_eq!(first, sampler.sample("Once", params(json!(5)), three.clone()).await);
    let samples: Vec<Vec<u64>> = (0..3).map(|i| tokens_of(&first, i)).collect();
    assert!(samples[0] != samples[1] && samples[1] != samples[2]);
    // Sample i is the one that seed + i gives.
    assert_eq!(sampler.tokens("Once", params(json!(6))).await.0, samples[1]);
    assert_eq!(
        sampler.tokens("Once", params(json!(-1))).await,
        sampler.tokens("Once", params(json!(u64::MAX))).await
    );
    let unseeded = json!({"max_tokens": 24, "stop": []});
    let a = sampler.tokens("Once", unseeded.clone()).await;
    assert_ne!(a, sampler.tokens("Once", unseeded).await);
    // The most probable token alone is what greedy sampling takes.
    let top_1 = sampler.tokens("Once", json!({"max_tokens": 24, "stop": [], "top_k": 1})).await;
    assert_eq!(top_1, sampler.tokens("Once", json!({"max_tokens": 24, "stop": [], "temperature": 0})).await);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_end_where_they_should() {
    let (_dir, service, client) = service().await;
    let sampler = Sampling::of_base(&client).await;
    // One with an end token, two bytes that are text, and nothing that ends it.
    let mut found = None;
    for seed in 0..50 {
        let (tokens, reason) =
            sampler.tokens("Stop", json!({"max_tokens": 400, "seed": seed, "stop": []})).await;
        assert_eq!((tokens.len(), reason.as_str()), (400, "length"));
        let text = |token: &u64| (33..127).contains(token);
        let pair = tokens.windows(2).position(|pair| pair.iter().all(text));
        if let (true, Some(pair)) = (tokens.contains(&EOS), pair) {
            found = Some((seed, tokens, pair));
            break;
        }
    }
    let (seed, tokens, pair) = found.unwrap();
    let until = |end: usize| (tokens[..end].to_vec(), "stop".to_owned());
    let stop = async |stop: Value| {
        sampler.tokens("Stop", json!({"max_tokens": 400, "seed": seed, "stop": stop})).await
    };
    let first = |token: u64| tokens.iter().position(|t| *t == token).unwrap() + 1;
    let by_default = sampler.tokens("Stop", json!({"max_tokens": 400, "seed": seed})).await;
    assert_eq!(by_default, until(first(EOS)));
    assert_eq!(stop(Value::Null).await, by_default);
    assert_eq!(stop(json!([tokens[40], tokens[20]])).await, until(first(tokens[40]).min(first(tokens[20]))));
    let text: String = tokens[pair..pair + 2].iter().map(|&token| char::from(token as u8)).collect();
    assert_eq!(stop(json!(text)).await, until(pair + 2));
    assert_eq!(stop(json!(["no such text at all", text])).await, until(pair + 2));
    // Without a bound a sample goes on to the end of the context.
    let (whole, reason) = sampler.tokens("Stop", json!({"seed": seed, "stop": []})).await;
    assert_eq!((whole.len(), reason.as_str()), (CONTEXT - 4, "length"));
    assert_eq!(whole[..400], tokens);
    let beyond = json!({"seed": seed, "stop": [], "max_tokens": 5000});
    assert_eq!(sampler.tokens("Stop", beyond).await.0, whole);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_accepted_and_fail_with_a_reason() {
    let (_dir, service, client) = service().await;
    let sampler = Sampling::of_base(&client).await;
    let prompt = |tokens: Value| json!({"prompt": {"chunks": [{"type": "encoded_text", "tokens": tokens}]}});
    let ok = json!({"max_tokens": 1});
    let target =
        |shape: Value| json!({"target_prompt_logprobs": {"data": [1, 2], "dtype": "int64", "shape": shape}});
    let cases = [
        (ok.clone(), json!({"prompt": {"chunks": []}}), "no tokens"),
        (ok.clone(), prompt(json!([])), "no tokens"),
        (ok.clone(), prompt(json!([1, 260])), "token 260 in the prompt"),
        (ok.clone(), prompt(json!([-1])), "token -1 in the prompt"),
        (ok.clone(), prompt(json!(vec![1; CONTEXT])), "leaves nothing of the model's context"),
        (
            ok.clone(),
            json!({"prompt": {"chunks": [{"type": "image", "data": "", "format": "png"}]}}),
            "'image'",
        ),
        (ok.clone(), json!({"num_samples": 0}), "num_samples must be from 1 to 1024"),
        (ok.clone(), json!({"num_samples": 1025}), "num_samples must be from 1 to 1024"),
        (ok.clone(), json!({"prompt_logprobs_last_n": 1}), "needs prompt_logprobs"),
        (
            ok.clone(),
            json!({"prompt_logprobs": true, "prompt_logprobs_last_n": 3}),
            "less than the prompt's 3",
        ),
        (ok.clone(), json!({"topk_prompt_logprobs": 261}), "topk_prompt_logprobs must be at most"),
        (ok.clone(), json!({"topk_sample_logprobs": -1}), "topk_sample_logprobs must be 0 or more"),
        (ok.clone(), json!({"prompt_alt_tokens_k": 1_000_000_000}), "too large"),
        (ok.clone(), target(json!([1, 2])), "its shape must be [2, K]"),
        (ok.clone(), target(json!([2, 2])), "2 values do not fill 2 x 2"),
        (json!({"max_tokens": 0}), json!({}), "max_tokens must be at least 1"),
        (json!({"max_tokens": -5}), json!({}), "max_tokens must be at least 1"),
        (json!({"temperature": -0.1}), json!({}), "temperature must be"),
        (json!({"top_p": 0.0}), json!({}), "top_p must be"),
        (json!({"top_p": 1.5}), json!({}), "top_p must be"),
        (json!({"top_k": 0}), json!({}), "top_k must be"),
        (json!({"stop": [""]}), json!({}), "is empty"),
        (json!({"stop": [999]}), json!({}), "token 999 in stop"),
    ];
    for (params, more, reason) in cases {
        let result = sampler.sample("abc", params, more).await;
        assert_eq!(result["category"], "user", "{result}");
        assert!(result["error"].as_str().unwrap().contains(reason), "{result}, not {reason}");
    }
    let mixed = sampler.body("abc", json!({"stop": ["a", 1]}), json!({}));
    let (status, answer) = client.post("asample", mixed).await;
    assert_eq!(status, 422);
    assert!(answer["detail"].as_str().unwrap().contains("sampling_params.stop"), "{answer}");
    let unknown = sampler.body("abc", ok.clone(), json!({"sampling_session_id": "nobody"}));
    assert_eq!(client.post("asample", unknown).await.0, 404);
    let unnumbered = sampler.body("abc", ok, json!({"seq_id": null}));
    assert_eq!(client.post("asample", unnumbered).await.0, 422);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_sent_again_is_the_same_request() {
    let (_dir, service, client) = service().await;
    let sampler = Sampling::of_base(&client).await;
    let seq = 7_000_000_003u64;
    let body = sampler.body("abc", json!({"max_tokens": 9}), json!({"num_samples": 4, "seq_id": seq}));
    let first = client.ok("asample", body.clone()).await;
    assert_eq!(first["request_id"], format!("{}:{seq}", sampler.id));
    let mut ids: Vec<&str> =
        first["sample_sequence_ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    let result = client.result_of(first["request_id"].as_str().unwrap()).await;
    assert_eq!(client.ok("asample", body.clone()).await, first);
    // There is no seed: carried out again, it would say something else.
    assert_eq!(client.result_of(first["request_id"].as_str().unwrap()).await, result);
    let mut other = body;
    other["num_samples"] = json!(3);
    assert_eq!(client.post("asample", other).await.0, 409);

    // As older clients ask: no session, no number.
    let by_model = json!({"base_model": MODEL, "prompt": {"chunks": [{"tokens": [1, 2]}]},
                          "sampling_params": {"max_tokens": 3, "stop": []}});
    let result = client.call("asample", by_model).await;
    assert_eq!(result["type"], "sample");
    assert_eq!(tokens_of(&result, 0).len(), 3);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_protobuf_for_those_who_ask_for_it() {
    let (_dir, service, client) = service().await;
    let sampler = Sampling::of_base(&client).await;
    let more = json!({"num_samples": 2, "prompt_logprobs": true, "topk_sample_logprobs": 2});
    let id = sampler.submit("abc", json!({"max_tokens": 5, "stop": []}), more).await;
    let (_, json) = client.result_of(&id).await;
    let response = client
        .http
        .post(client.url("retrieve_future"))
        .header("accept", future::PROTOBUF)
        .json(&json!({"request_id": id, "allow_metadata_only": true}))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], future::PROTOBUF);
    let result = proto::SampleResponse::decode(response.bytes().await.unwrap()).unwrap();
    assert_eq!(result.sequences.len(), 2);
    for (i, sequence) in result.sequences.iter().enumerate() {
        let tokens: Vec<u64> =
            i32_values(&sequence.tokens).unwrap().into_iter().map(|token| token as u64).collect();
        assert_eq!(tokens, tokens_of(&json, i));
        assert_eq!(sequence.stop_reason, proto::StopReason::Length as i32);
        let logprobs = f32_values(sequence.logprobs.as_ref().unwrap()).unwrap();
        for (proto, json) in logprobs.iter().zip(floats(&json["sequences"][i]["logprobs"])) {
            assert!(close(f64::from(*proto), json));
        }
        let top = sequence.topk_sampled_logprobs.as_ref().unwrap();
        assert_eq!((top.k, top.length, top.token_ids.len()), (2, 5, 40));
    }
    let prompt = f32_values(&result.prompt_logprobs.unwrap()).unwrap();
    assert!(prompt.len() == 3 && prompt[0].is_nan() && prompt[1] < 0.0);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sampled_does_not_depend_on_who_else_samples() {
    let (_dir, service, client) = service().await;
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.losses(0..2).await;
    let path = run.save("s").await;
    let base = Sampling::of_base(&client).await;
    let trained = Sampling::begin(&client, 1, json!({"model_path": path})).await;
    let body = |i: usize| {
        let sampler = if i.is_multiple_of(2) { &base } else { &trained };
        let params = json!({"max_tokens": 10 + 7 * i, "seed": i, "stop": [], "temperature": 0.8});
        let text = &"A prompt of one of many lengths, as they come."[..5 + 3 * i];
        sampler.body(text, params, json!({"num_samples": 1 + i % 3, "topk_sample_logprobs": 1}))
    };
    let mut alone = Vec::new();
    for i in 0..12 {
        alone.push(client.call("asample", body(i)).await);
    }
    // Sent by clients of their own, all at once.
    let mut waiting = tokio::task::JoinSet::new();
    for i in 0..12 {
        let (client, body) = (Client::new(service.base_url()), body(i));
        waiting.spawn(async move { (i, client.call("asample", body).await) });
    }
    while let Some(result) = waiting.join_next().await {
        let (i, together) = result.unwrap();
        assert_eq!(together, alone[i], "request {i}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_request_fails_and_others_go_on() {
    let (_dir, service, client) = service().await;
    let sampler = Sampling::of_base(&client).await;
    let long = || json!({"stop": []});
    let many = json!({"num_samples": 1000});
    let (a, b) = (
        sampler.submit("long", long(), many.clone()).await,
        sampler.submit("long", long(), many.clone()).await,
    );
    // All places are taken; this one waits.
    let c = sampler.submit("long", long(), many).await;
    for id in [&c, &a] {
        client.ok("cancel_future", json!({"request_id": id})).await;
        let (status, result) = client.result_of(id).await;
        assert_eq!((status, &result["category"]), (200, &json!("user")));
        assert!(result["error"].as_str().unwrap().contains("was cancelled by its client"), "{result}");
    }
    // With one large request still under way, others find a place.
    let (tokens, _) = sampler.tokens("short", json!({"max_tokens": 5, "stop": []})).await;
    assert_eq!(tokens.len(), 5);
    let (_, pending) = client.post("cancel_future", json!({"request_id": "nobody"})).await;
    assert_eq!(pending, json!({}));
    let done = sampler.submit("short", json!({"max_tokens": 1}), json!({})).await;
    client.result_of(&done).await;
    client.ok("cancel_future", json!({"request_id": done})).await;
    assert!(client.result_of(&done).await.1["sequences"].is_array());
    client.ok("cancel_future", json!({"request_id": b})).await;
    assert!(client.result_of(&b).await.1["error"].is_string());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poller_hears_of_all_results_of_its_client() {
    let (_dir, service, client) = service().await;
    let sampler = Sampling::of_base(&client).await;
    let poll = async |cloned: u64, cursor: &Value, timeout: Value, read: Value| {
        let target = json!({"type": "sampling_session", "sampling_session_id": sampler.id,
                            "cloned_sampler_id": cloned});
        let body = json!({"target": target, "prev_cursor": cursor, "timeout": timeout,
                          "retrieved_request_ids": read});
        client.ok("retrieve_futures", body).await
    };
    let nothing = poll(0, &json!(0), json!(0), json!([])).await;
    assert_eq!(nothing, json!({"completions": [], "cursor": 0}));
    let params = json!({"max_tokens": 3});
    let good = sampler.submit("abc", params.clone(), json!({})).await;
    let bad = sampler.submit("", params.clone(), json!({})).await;
    let clone = sampler.submit("abc", params, json!({"seq_id": 2_000_000_001u64})).await;
    let (mut cursor, mut seen) = (json!(0), Vec::new());
    while seen.len() < 2 {
        let answer = poll(0, &cursor, Value::Null, json!([])).await;
        assert!(answer["cursor"].as_u64() > cursor.as_u64(), "{answer}");
        cursor = answer["cursor"].clone();
        seen.extend(answer["completions"].as_array().unwrap().clone());
    }
    assert!(seen.contains(&json!({"state": "finished", "request_id": good})), "{seen:?}");
    assert!(seen.contains(&json!({"state": "failed", "request_id": bad})), "{seen:?}");
    let others = poll(2, &json!(0), Value::Null, json!([])).await;
    assert_eq!(others["completions"], json!([{"state": "finished", "request_id": clone}]));
    // What was not acknowledged is told again; what was, is not.
    assert_eq!(poll(2, &json!(0), json!(0), json!([])).await, others);
    assert!(client.result_of(&good).await.1["sequences"].is_array());
    let last = poll(0, &cursor, json!(0), json!([good, clone])).await;
    assert_eq!(last, json!({"completions": [], "cursor": cursor}));
    assert_eq!(poll(0, &json!(0), json!(0), json!([])).await["completions"], json!([]));
    // A result that was read may be gone, but only at its own client's word.
    assert_eq!(client.result_of(&good).await.0, 410);
    assert_eq!(client.result_of(&clone).await.0, 200);
    assert!(client.result_of(&bad).await.1["error"].is_string());
    let target = json!({"type": "sampling_session", "sampling_session_id": "nobody"});
    assert_eq!(client.post("retrieve_futures", json!({"target": target})).await.0, 404);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_named() {
    let (dir, service, client) = service().await;
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.losses(0..1).await;
    let path = run.save("s").await;
    let sampler = Sampling::begin(&client, 0, json!({"model_path": path})).await;
    damage(dir.path());
    let result = sampler.sample("abc", json!({"max_tokens": 1}), json!({})).await;
    assert_eq!(result["category"], "server");
    let error = result["error"].as_str().unwrap();
    assert!(error.contains(&path) && error.contains("adapter_model.safetensors"), "{error}");
    // The sampler lives on.
    assert_eq!(
        Sampling::of_base(&client).await.tokens("a", json!({"max_tokens": 2, "stop": []})).await.0.len(),
        2
    );
    service.stop().await;
}

/// Changes a byte of every checkpoint's weights.
fn damage(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damage(&path);
        } else if path.ends_with("adapter_model.safetensors") {
            let mut bytes = std::fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
}
