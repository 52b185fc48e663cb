//! Batches of several requests, compressed ones, and losses of the program's own.

use std::ops::Range;

use super::*;
use crate::client::testing::test;
use crate::client::{CustomLoss, Pending};

/// A batch of three requests, by the bounds of [`config`].
fn three() -> Vec<Datum> {
    vec![datum(); 5]
}

/// What a server says that takes two datums in a request, and requests in any order, or not.
fn config(together: bool) -> FakeReply {
    FakeReply::json(200, json!({"parallel_fwdbwd_chunks": together, "fwdbwd_max_chunk_len": 2}).to_string())
}

#[test]
fn chunks_go_out_together_and_the_first_last() {
    let (runtime, transport, client) = training(|request| match path(request) {
        "client/config" => config(true),
        // The others wait for each other; the first is not sent before they are accepted.
        "forward_backward" => obliging(request).after(secs(10 - seq_id(request))),
        _ => obliging(request),
    });
    let output = runtime.block_on(client.forward_backward(three(), "cross_entropy", &none())).unwrap();
    assert_eq!(sequence(&transport), ["forward_backward 8", "forward_backward 9", "forward_backward 7"]);
    let values: Vec<_> = output.loss_fn_outputs.iter().map(|o| o["logprobs"].to_f32()[0]).collect();
    assert_eq!(values, [7.0, 8.0, 9.0], "in the order of the data");
    assert_eq!(runtime.elapsed(), secs(2 + 3));
    assert_eq!(client.attachment().next_seq_id, 10);
}

/// How a submission can fail.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// 422.
    Refused,
    /// No connection, to the end.
    Unreachable,
    /// It breaks off, to the end: the server may have it.
    BrokenOff,
    /// It breaks off once, and is refused when it is sent again.
    BrokenOffThenRefused,
    /// 409, to the end.
    Conflict,
    /// It breaks off once, and is there already when it is sent again: by what broke off, or by something else.
    BrokenOffThenConflict,
    /// 429, to the end.
    Limited,
    /// 500, to the end.
    Failing,
    /// 503, to the end.
    Unavailable,
    /// No answer, to the end.
    Silent,
}

impl Fault {
    const ALL: [Self; 10] = [
        Self::Refused,
        Self::Unreachable,
        Self::BrokenOff,
        Self::BrokenOffThenRefused,
        Self::Conflict,
        Self::BrokenOffThenConflict,
        Self::Limited,
        Self::Failing,
        Self::Unavailable,
        Self::Silent,
    ];

    /// Whether nothing of it can have reached the server's queue.
    fn is_definite(self) -> bool {
        matches!(self, Self::Refused | Self::Conflict | Self::Limited | Self::Unreachable)
    }

    fn reply(self, attempt: u32) -> FakeReply {
        match self {
            Self::BrokenOffThenRefused if attempt > 0 => FakeReply::json(422, r#"{"detail":"no"}"#),
            Self::Refused => FakeReply::json(422, r#"{"detail":"no"}"#),
            Self::BrokenOffThenConflict if attempt > 0 => FakeReply::json(409, r#"{"detail":"there"}"#),
            Self::Conflict => FakeReply::json(409, r#"{"detail":"there"}"#),
            Self::Unreachable => FakeReply::fail(TransportErrorKind::Connect),
            Self::BrokenOff | Self::BrokenOffThenRefused | Self::BrokenOffThenConflict => {
                FakeReply::fail(TransportErrorKind::Request)
            }
            Self::Limited => FakeReply::json(429, "{}"),
            Self::Failing => FakeReply::json(500, "{}"),
            Self::Unavailable => FakeReply::json(503, "{}"),
            Self::Silent => FakeReply::never(),
        }
    }
}

/// Has requests of a call fail, each by its number. The client goes on with the next number, if there can be one, or is
/// poisoned, and never hangs. Gives the call's error.
fn fails(
    case: &str,
    together: bool,
    faults: &[(u64, Fault)],
    next: Option<u64>,
    call: impl Fn(&TrainingClient) -> Pending<ForwardBackwardOutput>,
) -> Error {
    let (mut faults, mut over) = (faults.iter().map(|fault| (*fault, 0)).collect::<Vec<_>>(), false);
    let (runtime, transport, client) = training(move |request| match path(request) {
        "client/config" => config(together),
        "retrieve_future" => logprobs_of(request),
        "optim_step" => {
            over = true;
            obliging(request)
        }
        "forward_backward" if !over => {
            let number = seq_id(request);
            match faults.iter_mut().find(|((at, _), _)| *at == number) {
                Some(((_, fault), attempts)) => {
                    *attempts += 1;
                    fault.reply(*attempts - 1)
                }
                None => obliging(request),
            }
        }
        _ => obliging(request),
    });
    let (pass, queued, later) = runtime.block_on(async {
        let (pass, queued) = (call(&client), client.optim_step(AdamParams::default()));
        let (pass, queued) = (pass.await, queued.await);
        (pass, queued, client.optim_step(AdamParams::default()).await)
    });
    assert!(queued.is_err(), "{case}");
    assert_eq!(client.poisoned().is_some(), next.is_none(), "{case}");
    let steps: Vec<_> = sequence(&transport).into_iter().filter(|line| line.starts_with("optim")).collect();
    match next {
        Some(number) => {
            assert!(later.is_ok(), "{case}");
            assert_eq!(steps, [format!("optim_step {number}")], "{case}");
        }
        None => {
            assert!(matches!(later.unwrap_err().kind(), ErrorKind::Poisoned { .. }), "{case}");
            assert_eq!(steps, Vec::<String>::new(), "{case}");
        }
    }
    pass.expect_err(case)
}

/// Has each of these requests of a call fail in every way.
fn fails_in_every_way(numbers: Range<u64>, call: impl Fn(&TrainingClient) -> Pending<ForwardBackwardOutput>) {
    let cases = [false, true].into_iter().flat_map(|together| numbers.clone().map(move |at| (together, at)));
    for ((together, at), fault) in cases.flat_map(|case| Fault::ALL.map(|fault| (case, fault))) {
        let case = format!("{fault:?} at {at}, together: {together}");
        // Sent together, one of the others was accepted: what it was to follow is missing.
        let lost = !fault.is_definite() || together;
        fails(&case, together, &[(at, fault)], (!lost).then_some(at), &call);
    }
}

#[test]
fn whatever_fails_at_any_chunk_leaves_the_client_going_on_or_poisoned() {
    fails_in_every_way(7..10, |client| client.forward_backward(three(), "cross_entropy", &none()));
}

#[test]
fn two_chunks_that_fail_differently_leave_the_client_as_the_worse_of_them_does() {
    let kinds = Fault::ALL.into_iter().flat_map(|one| Fault::ALL.map(|other| (one, other)));
    for (one, other) in kinds {
        let pass = |client: &TrainingClient| client.forward_backward(three(), "cross_entropy", &none());
        let failing = |together, [a, b]: [u64; 2], next: Option<u64>| {
            let case = format!("{one:?} at {a} and {other:?} at {b}, together: {together}");
            fails(&case, together, &[(a, one), (b, other)], next, pass)
        };
        // One after the other, what comes behind the first that fails is not sent.
        let error = failing(false, [8, 9], one.is_definite().then_some(8));
        assert!(error.to_string().contains("(request 8)"), "{error}");
        // Together, nothing was accepted; the first is not sent. An undecided one decides.
        let definite = one.is_definite() && other.is_definite();
        let error = failing(true, [8, 9], definite.then_some(7));
        let named = if one.is_definite() && !definite { "(request 9)" } else { "(request 8)" };
        assert!(error.to_string().contains(named), "{error}");
        // The one between them or behind them was accepted, whatever these came to.
        failing(true, [7, 8], None);
        failing(true, [7, 9], None);
    }
}

/// A pass under a loss of the program's own.
fn under_a_loss(client: &TrainingClient) -> Pending<ForwardBackwardOutput> {
    client.forward_backward_custom(three(), |data, logprobs| {
        assert_eq!((data.len(), logprobs.len()), (5, 5));
        let gradients = vec![vec![1.0, 1.0]; data.len()];
        Ok::<_, String>(CustomLoss { loss: 1.0, gradients, ..CustomLoss::default() })
    })
}

#[test]
fn whatever_fails_at_any_chunk_of_a_losss_first_half_leaves_the_client_going_on_or_poisoned() {
    fails_in_every_way(7..10, under_a_loss);
}

#[test]
fn whatever_fails_at_any_chunk_of_a_losss_second_half_leaves_the_client_going_on_or_poisoned() {
    fails_in_every_way(10..13, under_a_loss);
}

/// The log-probabilities of a chunk's datums, as many as there are.
fn logprobs_of(request: &Request) -> FakeReply {
    if request.header("x-tinker-request-type") != Some("ForwardBackward") {
        return obliging(request);
    }
    let number: u64 = body(request)["request_id"].as_str().unwrap().parse().unwrap();
    let datums = if number.is_multiple_of(3) { 1 } else { 2 };
    let one = [("logprobs".to_owned(), TensorData::float32(vec![-1.0, -1.0]))];
    let output = ForwardBackwardOutput {
        loss_fn_outputs: vec![one.into(); datums],
        metrics: [("loss:sum".to_owned(), 1.0)].into(),
        ..ForwardBackwardOutput::default()
    };
    FakeReply::bytes(200, PROTOBUF, output.to_proto().encode_to_vec())
}

#[test]
fn batches_are_compressed_where_the_server_asks_for_it() {
    let (runtime, transport, client) = service_client(|request| match path(request) {
        "client/config" => FakeReply::json(200, r#"{"proto_compress_fwdbwd":true}"#),
        "forward_backward" => FakeReply::json(200, r#"{"request_id":"1"}"#),
        "retrieve_future" if request.header("x-tinker-request-type") == Some("ForwardBackward") => output(1),
        "optim_step" => FakeReply::json(200, r#"{"request_id":"2"}"#),
        _ => service(request),
    });
    let data = vec![datum(); 100];
    runtime.block_on(async {
        let training = client
            .create_lora_training_client("tiny", LoraConfig::default(), TrainingOptions::default())
            .await
            .unwrap();
        training.forward_backward(data.clone(), "cross_entropy", &none()).await.unwrap();
        training.optim_step(AdamParams::default()).await.unwrap();
    });
    let requests = transport.requests();
    let pass = requests.iter().find(|request| path(request) == "forward_backward").unwrap();
    assert_eq!(pass.header("content-encoding"), Some("zstd"));
    let message = forward_backward(pass);
    assert_eq!((message.seq_id, message.data.len()), (1, 100));
    assert!(pass.body.len() < message.encoded_len());
    let step = requests.iter().find(|request| path(request) == "optim_step").unwrap();
    assert_eq!(step.header("content-encoding"), None);
}

#[test]
fn a_loss_of_the_programs_own_is_a_forward_and_then_a_weighted_backward() {
    let (runtime, transport, client) = training(|request| match path(request) {
        "retrieve_future" if body(request)["request_id"] == "7" => {
            let logprobs = TensorData::float32(vec![-1.0, -3.0]);
            let output = ForwardBackwardOutput {
                loss_fn_outputs: vec![[("logprobs".to_owned(), logprobs)].into()],
                metrics: [("loss:sum".to_owned(), 4.0)].into(),
                ..ForwardBackwardOutput::default()
            };
            FakeReply::bytes(200, PROTOBUF, output.to_proto().encode_to_vec())
        }
        _ => obliging(request),
    });
    let mut data = datum();
    data.loss_fn_inputs.insert("rewards".to_owned(), TensorData::float32(vec![0.5, 2.0]));
    let (pass, step) = runtime.block_on(async {
        let pass = client.forward_backward_custom(vec![data], |data, logprobs| {
            let rewards = data[0].loss_fn_inputs["rewards"].to_f32();
            let loss = logprobs[0].to_f32().iter().zip(&rewards).map(|(l, r)| -f64::from(l * r)).sum();
            let gradients = vec![rewards.iter().map(|reward| -reward).collect()];
            Ok::<_, String>(CustomLoss {
                loss,
                gradients,
                metrics: [("custom/x:mean".to_owned(), 9.0)].into(),
            })
        });
        // Called before the forward pass is even sent, carried out after the backward pass.
        let step = client.optim_step(AdamParams::default());
        (pass.await, step.await)
    });
    step.unwrap();
    assert_eq!(sequence(&transport), ["forward_backward 7", "forward_backward 8", "optim_step 9"]);
    let passes: Vec<_> = transport
        .requests()
        .iter()
        .filter(|request| path(request) == "forward_backward")
        .map(forward_backward)
        .collect();
    assert_eq!((passes[0].forward_only, passes[1].forward_only), (true, false));
    for pass in &passes {
        assert_eq!(pass.loss_fn, "cross_entropy");
        let mut sent: Vec<_> = pass.data[0].loss_fn_inputs.keys().cloned().collect();
        sent.sort();
        assert_eq!(sent, ["target_tokens", "weights"]);
    }
    let weights = TensorData::from_proto(&passes[1].data[0].loss_fn_inputs["weights"]).unwrap();
    assert_eq!((weights.to_f32(), weights.shape), (vec![0.5, 2.0], Some(vec![2])));
    let metrics = pass.unwrap().metrics;
    let expected = [("loss:sum", 6.5), ("surrogate_loss:sum", 8.0), ("custom/x:mean", 9.0)];
    assert_eq!(metrics, expected.map(|(name, value)| (name.to_owned(), value)).into());
}

#[test]
fn a_loss_that_fails_sends_nothing_more_and_the_client_goes_on() {
    type Loss = fn(&[Datum], &[TensorData]) -> Result<CustomLoss, String>;
    let cases: [(&str, Loss); 4] = [
        ("no idea", |_, _| Err("no idea".to_owned())),
        ("0 gradients for 1 datums", |_, _| Ok(CustomLoss::default())),
        ("3 gradients for the 1 log-probabilities", |_, _| {
            Ok(CustomLoss { gradients: vec![vec![0.0; 3]], ..CustomLoss::default() })
        }),
        ("NaN", |_, _| Ok(CustomLoss { gradients: vec![vec![f32::NAN]], ..CustomLoss::default() })),
    ];
    for (said, loss) in cases {
        let (runtime, transport, client) = training(obliging);
        runtime.block_on(async {
            let pass = client.forward_backward_custom(vec![datum()], loss);
            let queued = client.optim_step(AdamParams::default());
            let error = pass.await.unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("s:train:0"), "{error}");
            let error = queued.await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Cancelled { .. }), "{error}");
            client.optim_step(AdamParams::default()).await.unwrap();
        });
        assert_eq!(sequence(&transport), ["forward_backward 7", "optim_step 8"], "{said}");
    }
}

/// Where panics abort, as under wasm, there is nothing to go on.
#[cfg(panic = "unwind")]
#[test]
fn a_loss_that_panics_fails_its_call_and_the_client_goes_on() {
    type Loss = fn(&[Datum], &[TensorData]) -> Result<CustomLoss, String>;
    let cases: [(&str, Loss); 3] = [
        ("panicked: plain words", |_, _| panic!("plain words")),
        ("panicked: 5 rewards", |data, _| panic!("{} rewards", data.len() + 4)),
        ("panicked: it does not say why", |_, _| std::panic::panic_any(7)),
    ];
    for (said, loss) in cases {
        let (runtime, transport, client) = training(obliging);
        runtime.block_on(async {
            let pass = client.forward_backward_custom(vec![datum()], loss);
            let queued = client.optim_step(AdamParams::default());
            let error = pass.await.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Config { .. }), "{error:?}");
            let error = error.to_string();
            assert!(error.contains(said) && error.contains("run s:train:0"), "{error}");
            let error = queued.await.unwrap_err();
            assert!(error.to_string().contains("panicked"), "{error}");
            client.optim_step(AdamParams::default()).await.unwrap();
        });
        assert!(client.poisoned().is_none());
        assert_eq!(sequence(&transport), ["forward_backward 7", "optim_step 8"], "{said}");
    }
}

#[test]
fn a_custom_loss_needs_targets() {
    let (runtime, transport, client) = training(obliging);
    let datum = Datum { loss_fn_inputs: Default::default(), ..datum() };
    let loss = |_: &[Datum], _: &[TensorData]| Ok::<_, String>(CustomLoss::default());
    let error = runtime.block_on(client.forward_backward_custom(vec![datum], loss)).unwrap_err();
    assert!(error.to_string().contains("datum 0 has no target_tokens"), "{error}");
    assert!(transport.requests().iter().all(|request| path(request) != "forward_backward"));
}
