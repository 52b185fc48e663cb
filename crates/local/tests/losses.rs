//! The losses over HTTP: what each takes, answers, and refuses.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use common::{Client, Run, batch, datum, start};
use serde_json::{Value, json};

const POLICIES: [&str; 4] = ["importance_sampling", "ppo", "cispo", "dro"];

fn float(values: impl serde::Serialize) -> Value {
    json!({"data": values, "dtype": "float32"})
}

/// A pass with any loss; its result, which may be a failure.
async fn pass(run: &mut Run, data: Vec<Value>, loss: &str, config: Value) -> Value {
    let seq = run.next();
    let mut body = run.pass_body(seq, data);
    body["forward_backward_input"]["loss_fn"] = json!(loss);
    body["forward_backward_input"]["loss_fn_config"] = config;
    run.client.call("forward_backward", body).await
}

fn numbers(tensor: &Value) -> Vec<f64> {
    tensor["data"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn metric(output: &Value, name: &str) -> f64 {
    output["metrics"][name].as_f64().unwrap_or_else(|| panic!("{name}: {output}"))
}

/// A datum for the policies' losses: as if it had been sampled from what gives `logprobs`.
fn rollout(from: usize, logprobs: &[f64], advantages: &[f64]) -> Value {
    let mut datum = datum(from, logprobs.len());
    let inputs = datum["loss_fn_inputs"].as_object_mut().unwrap();
    inputs.remove("weights");
    inputs.insert("logprobs".into(), float(logprobs));
    inputs.insert("advantages".into(), float(advantages));
    datum
}

async fn run_of(client: &Client) -> Run {
    let session = client.session().await;
    client.run(&session, 0).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policies_losses_are_sums_over_tokens_with_their_settings() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let mut run = run_of(&Client::new(service.base_url())).await;
    let scored = run.forward(vec![datum(3, 6)]).await;
    let now = numbers(&scored["loss_fn_outputs"][0]["logprobs"]);
    // Inside the bounds and beyond each, with advantages of both signs.
    let ratios = [1.0, 1.1, 1.5, 0.5, 1.5, 0.5];
    let advantages = [0.0, 1.0, 2.0, -1.0, -0.5, 1.0];
    let then: Vec<f64> = now.iter().zip(ratios).map(|(p, r)| p - f64::ln(r)).collect();
    let weights = [1.0, 1.0, 0.5, 1.0, 2.0, 0.0];
    let sum = |term: &dyn Fn(f64, f64, f64) -> f64, weights: &[f64]| -> f64 {
        let each = ratios.iter().zip(advantages).zip(&now).zip(weights);
        each.map(|(((r, a), p), w)| -w * term(*r, a, *p)).sum()
    };
    let ppo = |low: f64, high: f64| move |r: f64, a: f64, _: f64| (r * a).min(r.clamp(low, high) * a);
    let cispo = |low: f64, high: f64| move |r: f64, a: f64, p: f64| r.clamp(low, high) * a * p;
    let dro = |beta: f64| move |r: f64, a: f64, p: f64| a * p - beta / 2.0 * r.ln().powi(2);
    let bounds = json!({"clip_low_threshold": 0.9, "clip_high_threshold": 1.05});
    for weighted in [false, true] {
        let mut datum = rollout(3, &then, &advantages);
        if weighted {
            datum["loss_fn_inputs"]["weights"] = float(weights);
        }
        let w = if weighted { weights } else { [1.0; 6] };
        for (loss, config, expected) in [
            ("importance_sampling", json!({}), sum(&|r, a, _| r * a, &w)),
            ("ppo", json!({}), sum(&ppo(0.8, 1.2), &w)),
            ("ppo", bounds.clone(), sum(&ppo(0.9, 1.05), &w)),
            ("ppo", json!({"clip_high_threshold": 1.4}), sum(&ppo(0.8, 1.4), &w)),
            ("cispo", json!({}), sum(&cispo(0.0, 4.0), &w)),
            ("cispo", bounds.clone(), sum(&cispo(0.9, 1.05), &w)),
            ("dro", json!({}), sum(&dro(0.05), &w)),
            ("dro", json!({"beta": 3}), sum(&dro(3.0), &w)),
        ] {
            let output = pass(&mut run, vec![datum.clone()], loss, config.clone()).await;
            let found = metric(&output, "loss:sum");
            assert!((found - expected).abs() < 1e-4, "{loss} {config}: {found} is not {expected}");
            assert_eq!(numbers(&output["loss_fn_outputs"][0]["logprobs"]), now, "{loss}");
            assert_eq!(metric(&output, "tokens:sum"), 6.0);
        }
    }
    // Bounds of each position win over those of the setting.
    let mut datum = rollout(3, &then, &advantages);
    datum["loss_fn_inputs"]["clip_low_threshold"] = float([0.9; 6]);
    datum["loss_fn_inputs"]["clip_high_threshold"] = float([1.05; 6]);
    for loss in ["ppo", "cispo"] {
        let each = pass(&mut run, vec![datum.clone()], loss, json!({"clip_low_threshold": 0.1})).await;
        let all = pass(&mut run, vec![rollout(3, &then, &advantages)], loss, bounds.clone()).await;
        assert!((metric(&each, "loss:sum") - metric(&all, "loss:sum")).abs() < 1e-6, "{loss}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_pieces_combine_to_those_of_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let mut run = run_of(&Client::new(service.base_url())).await;
    let data = [
        rollout(0, &[-5.0, -6.0, -5.5], &[1.0, -1.0, 0.5]),
        rollout(9, &[-5.2; 8], &[1.0; 8]),
        rollout(20, &[-5.0, -6.0], &[0.0, 0.0]),
    ];
    for loss in POLICIES {
        let whole = pass(&mut run, data.to_vec(), loss, json!({})).await;
        let mut chunks = Vec::new();
        for chunk in [&data[..2], &data[2..]] {
            let output = pass(&mut run, chunk.to_vec(), loss, json!({})).await;
            chunks.push((serde_json::from_value(output["metrics"].clone()).unwrap(), chunk.len()));
        }
        let combined = retinker_wire::metrics::combine(&chunks).unwrap();
        let names: Vec<&String> = combined.keys().collect();
        let found: Vec<&String> = whole["metrics"].as_object().unwrap().keys().collect();
        assert_eq!(names, found, "{loss}");
        let clips = matches!(loss, "ppo" | "cispo");
        assert_eq!(combined.contains_key("clipped_fraction:mean"), clips, "{loss}");
        for (name, value) in &combined {
            assert!((metric(&whole, name) - value).abs() < 1e-9 * value.abs().max(1.0), "{loss} {name}");
        }
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_targets_for_a_token_may_come_sparse() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let mut run = run_of(&Client::new(service.base_url())).await;
    let mut plain = datum(0, 3);
    plain["loss_fn_inputs"]["weights"] = float([0.0, 1.0, 0.5]);
    let targets = plain["loss_fn_inputs"]["target_tokens"]["data"].as_array().unwrap().clone();
    let wide = |targets: Value, weights: Value| {
        let mut datum = plain.clone();
        datum["loss_fn_inputs"] = json!({"target_tokens": targets, "weights": weights});
        datum
    };
    let dense = wide(
        json!({"data": [0, 0, 7, targets[1], targets[2], 9], "dtype": "int64", "shape": [3, 2]}),
        json!({"data": [0.0, 0.0, 0.25, 1.0, 0.5, 2.0], "dtype": "float32", "shape": [3, 2]}),
    );
    let indices = json!({"shape": [3, 2], "sparse_crow_indices": [0, 0, 2, 4],
                         "sparse_col_indices": [0, 1, 0, 1]});
    let sparse = |data: Value, dtype: &str| {
        let mut tensor = indices.clone();
        tensor["data"] = data;
        tensor["dtype"] = json!(dtype);
        tensor
    };
    let sparse = wide(
        sparse(json!([7, targets[1], targets[2], 9]), "int64"),
        sparse(json!([0.25, 1.0, 0.5, 2.0]), "float32"),
    );
    let one = run.forward(vec![plain.clone()]).await;
    let output = run.forward_backward(vec![dense, plain.clone()]).await;
    assert_eq!(run.forward_backward(vec![sparse, plain]).await, output);
    let (logprobs, losses) =
        (&output["loss_fn_outputs"][0]["logprobs"], &output["loss_fn_outputs"][0]["elementwise_loss"]);
    assert_eq!((&logprobs["shape"], &losses["shape"]), (&json!([3, 2]), &json!([3, 2])));
    assert_eq!(output["loss_fn_outputs"][1]["logprobs"]["shape"], json!([3]));
    let (logprobs, losses) = (numbers(logprobs), numbers(losses));
    let single = numbers(&one["loss_fn_outputs"][0]["logprobs"]);
    assert_eq!((logprobs[3], logprobs[4]), (single[1], single[2]));
    assert_eq!((losses[0], losses[3]), (0.0, -single[1]));
    let sum: f64 = losses.iter().sum::<f64>() + metric(&one, "loss:sum");
    assert!((metric(&output, "loss:sum") - sum).abs() < 1e-5);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_loss_does_not_take_fails_by_name_and_adds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut clean = client.run(&session, 0).await;
    let expected = clean.losses(0..2).await;

    let mut run = client.run(&session, 1).await;
    assert_eq!(run.train(0).await, expected[0]);
    let output = run.forward_backward(batch(1)).await;
    assert_eq!(metric(&output, "loss:sum"), expected[1]);

    let good = rollout(0, &[-5.0; 4], &[1.0; 4]);
    let with = |name: &str, value: Value| {
        let mut datum = good.clone();
        datum["loss_fn_inputs"][name] = value;
        datum
    };
    let without = |name: &str| {
        let mut datum = good.clone();
        datum["loss_fn_inputs"].as_object_mut().unwrap().remove(name);
        datum
    };
    let wide = json!({"data": [1, 2, 3, 4, 5, 6, 7, 8], "dtype": "int64", "shape": [4, 2]});
    for loss in POLICIES {
        for (bad, said) in [
            (without("target_tokens"), format!("{loss} needs target_tokens, which are missing")),
            (without("logprobs"), format!("{loss} needs logprobs, which are missing")),
            (without("advantages"), format!("{loss} needs advantages, which are missing")),
            (with("mask", float([1.0; 4])), "'mask'".to_owned()),
            (with("logprobs", float([1.0; 3])), "3 logprobs for 4 target_tokens".to_owned()),
            (with("advantages", float([1.0; 5])), "5 advantages for 4 target_tokens".to_owned()),
            (with("weights", float([1.0])), "1 weights for 4 target_tokens".to_owned()),
            (
                with("advantages", json!({"data": vec![1.0; 4], "dtype": "float32", "shape": [2, 2]})),
                "advantages have shape [2, 2]".to_owned(),
            ),
            (
                with("logprobs", json!({"data": vec![1.0; 4], "dtype": "float32", "shape": [5]})),
                "logprobs state shape [5] and hold 4 values".to_owned(),
            ),
            (with("target_tokens", wide.clone()), format!("{loss} takes one dimension")),
        ] {
            let failed = pass(&mut run, vec![good.clone(), bad], loss, json!({})).await;
            assert_eq!(failed["category"], "user", "{loss}: {failed}");
            let error = failed["error"].as_str().unwrap();
            assert!(error.starts_with("datum 1: ") && error.contains(&said), "{loss} {said}: {error}");
        }
    }
    let far = || rollout(0, &[-5.0, -5.0, -900.0], &[1.0, 1.0, -1.0]);
    let bounds = |low: [f64; 4], high: [f64; 4]| {
        let mut datum = with("clip_low_threshold", float(low));
        datum["loss_fn_inputs"]["clip_high_threshold"] = float(high);
        datum
    };
    for (loss, data, config, said) in [
        ("importance_sampling", far(), json!({}), "datum 1: the loss: the derivative at position 2"),
        ("ppo", far(), json!({}), "datum 1: the loss: the derivative at position 2 is not finite"),
        (
            "dro",
            rollout(0, &[-3e38; 3], &[1.0; 3]),
            json!({"beta": 1e30}),
            "datum 1: the loss: the derivative",
        ),
        ("dro", with("advantages", float([3e38; 4])), json!({}), "gradients of the batch are not finite"),
        ("importance_sampling", with("clip_low_threshold", float([0.5; 4])), json!({}), "clip_low_threshold"),
        ("ppo", bounds([0.5, 2.0, 0.5, 0.5], [1.0; 4]), json!({}), "above clip_high_threshold at position 1"),
        ("ppo", good.clone(), json!({"clip_low_threshold": 2.0}), "is above clip_high_threshold 1.2"),
        ("ppo", good.clone(), json!({"epsilon": 0.2}), "it has: clip_low_threshold, clip_high_threshold"),
        ("ppo", good.clone(), json!({"clip_low_threshold": "low"}), "must be a finite number, not \"low\""),
        ("cispo", good.clone(), json!({"clip_high_threshold": 1e300}), "must be a finite number"),
        ("dro", good.clone(), json!({"beta": -1}), "must not be negative"),
        ("dro", good.clone(), json!({"clip_low_threshold": 0.5}), "it has: beta"),
        ("importance_sampling", good.clone(), json!({"beta": 1}), "has no setting 'beta'"),
        ("gspo", good.clone(), json!({}), "cross_entropy, importance_sampling, ppo, cispo, dro"),
        ("stable_reinforce", good.clone(), json!({}), "'stable_reinforce' is not offered here"),
        ("custom", good.clone(), json!({"loss_id": "x"}), "'custom' is not offered here"),
        ("cross_entropy", good.clone(), json!({}), "takes target_tokens and weights, not 'advantages'"),
    ] {
        let failed = pass(&mut run, vec![datum(5, 9), data.clone()], loss, config.clone()).await;
        // The first datum is for cross entropy; the others need their own.
        let failed = if loss == "cross_entropy" {
            failed
        } else {
            pass(&mut run, vec![good.clone(), data], loss, config).await
        };
        assert_eq!(failed["category"], "user", "{loss}: {failed}");
        assert!(failed["error"].as_str().unwrap().contains(said), "{loss} {said}: {failed}");
    }

    // What was added before the failures is what the step takes, to the bit.
    run.optim_step().await;
    let mut again = client.run(&session, 2).await;
    let whole = again.losses(0..3).await;
    assert_eq!(run.train(2).await, whole[2]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_loss_makes_good_actions_likelier() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    for (number, loss) in POLICIES.into_iter().enumerate() {
        let mut run = client.run(&session, number as u64).await;
        let before = numbers(&run.forward(vec![datum(0, 12)]).await["loss_fn_outputs"][0]["logprobs"]);
        // Even positions are to be likelier, odd ones less so.
        let advantages: Vec<f64> = (0..12).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        for _ in 0..3 {
            let output = pass(&mut run, vec![rollout(0, &before, &advantages)], loss, json!({})).await;
            assert!(output.get("error").is_none(), "{output}");
            run.optim_step().await;
        }
        let after = numbers(&run.forward(vec![datum(0, 12)]).await["loss_fn_outputs"][0]["logprobs"]);
        let gain: f64 = after.iter().zip(&before).zip(&advantages).map(|((p, q), a)| a * (p - q)).sum();
        assert!(gain > 0.1, "{loss}: {gain}");
    }
    service.stop().await;
}
