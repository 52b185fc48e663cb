//! Sampling, in a time that is moved by hand.

use futures_util::future::{join_all, select};
use retinker_wire::sampling::{SampleResponse, SampledSequence, SamplingParams, StopReason};
use retinker_wire::training::ModelInput;

use super::*;
use crate::client::testing::test;
use crate::client::{SampleOptions, SampleRetry, SamplingClient, SamplingOptions, SamplingSource};
use crate::runtime::Runtime;

/// A result of one sample with one token.
fn sampled(token: u32) -> FakeReply {
    let sequence = SampledSequence {
        stop_reason: StopReason::Length,
        tokens: vec![token],
        logprobs: vec![-0.5],
        topk_logprobs: None,
        sequence_id: None,
    };
    let response = SampleResponse {
        sequences: vec![sequence],
        prompt_logprobs: Some(vec![f32::NAN, -1.0]),
        topk_prompt_logprobs: None,
        target_prompt_logprobs: None,
        prompt_alt_tokens: None,
        prompt_cache_hit_tokens: 0,
        kind: "sample",
    };
    FakeReply::bytes(200, PROTOBUF, response.to_proto().encode_to_vec())
}

/// Accepts samples under their numbers and answers with these.
fn sampling(request: &Request) -> FakeReply {
    let body = body(request);
    match path(request) {
        "client/dynamic_config" => FakeReply::json(200, r#"{"sample_cancel_enabled":true}"#),
        "create_sampling_session" => FakeReply::json(200, r#"{"sampling_session_id":"s:sample:0"}"#),
        "samplers/s:sample:0" => FakeReply::json(200, r#"{"sampler_id":"s:sample:0","base_model":"tiny"}"#),
        "asample" => accepted(request),
        "retrieve_future" => sampled(body["request_id"].as_str().unwrap().parse().unwrap()),
        "cancel_future" => FakeReply::json(200, "{}"),
        _ => service(request),
    }
}

fn accepted(request: &Request) -> FakeReply {
    let number = seq_id(request);
    let answer = json!({"request_id": number.to_string(), "sample_sequence_ids": [format!("q{number}")]});
    FakeReply::json(200, answer.to_string())
}

fn sampler(
    answer: impl FnMut(&Request) -> FakeReply + Send + 'static,
) -> (ManualRuntime, FakeTransport, SamplingClient) {
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::new(&runtime, answer);
    let service = ServiceClient::new(api(&runtime, &transport));
    let source = SamplingSource::BaseModel("tiny".into());
    let client = runtime.block_on(service.create_sampling_client(source)).unwrap();
    (runtime, transport, client)
}

fn prompt() -> ModelInput {
    ModelInput::from_ints(vec![1, 2])
}

/// The numbers of the samples that were submitted, in order.
fn numbers(transport: &FakeTransport) -> Vec<u64> {
    transport.requests().iter().filter(|r| path(r) == "asample").map(seq_id).collect()
}

#[test]
fn a_sample_is_asked_for_as_the_official_sdk_does() {
    let (runtime, transport, client) = sampler(sampling);
    let options = SampleOptions {
        num_samples: 1,
        sampling_params: SamplingParams { max_tokens: Some(4), seed: Some(7), ..SamplingParams::default() },
        topk_sample_logprobs: 2,
        ..SampleOptions::default()
    };
    let response = runtime.block_on(client.sample(&prompt(), &options)).unwrap();
    assert_eq!(response.sequences[0].tokens, [0]);
    assert_eq!(response.sequences[0].sequence_id.as_deref(), Some("q0"));
    assert_eq!(
        sent(&transport, "create_sampling_session"),
        [json!({"session_id": "s", "sampling_session_seq_id": 0, "base_model": "tiny"})]
    );
    assert_eq!(
        sent(&transport, "asample"),
        [json!({
            "num_samples": 1,
            "prompt": {"chunks": [{"type": "encoded_text", "tokens": [1, 2]}]},
            "sampling_params": {"max_tokens": 4, "seed": 7, "temperature": 1.0, "top_k": -1, "top_p": 1.0},
            "sampling_session_id": "s:sample:0",
            "seq_id": 0,
            "prompt_logprobs": false,
            "topk_prompt_logprobs": 0,
            "topk_sample_logprobs": 2,
            "prompt_alt_tokens_k": 0,
            "type": "sample",
        })]
    );
    let retrieve = transport.requests().into_iter().find(|r| path(r) == "retrieve_future").unwrap();
    assert_eq!(retrieve.header("accept"), Some(PROTOBUF));
    assert_eq!(retrieve.header("x-tinker-request-type"), Some("Sample"));
    assert_eq!(runtime.block_on(client.get_base_model()).unwrap(), "tiny");
    let scores = runtime.block_on(client.compute_logprobs(&prompt(), None)).unwrap();
    assert_eq!(scores, [None, Some(-1.0)]);
}

#[test]
fn a_limit_pauses_all_samples_and_keeps_their_numbers() {
    let mut limited = 1;
    let (runtime, transport, client) = sampler(move |request| match path(request) {
        "asample" if limited > 0 => {
            limited -= 1;
            FakeReply::json(429, r#"{"detail":"too much"}"#).header("retry-after", "50")
        }
        _ => sampling(request),
    });
    let (options, prompt) = (SampleOptions::default(), prompt());
    let begin = runtime.elapsed();
    runtime.block_on(async {
        client.sample(&prompt, &options).await.unwrap();
        // A pause of a second, whatever the header says.
        assert_eq!(runtime.elapsed() - begin, secs(1));
        client.sample(&prompt, &options).await.unwrap();
    });
    assert_eq!(numbers(&transport), [0, 0, 1]);
    assert_eq!(runtime.elapsed() - begin, secs(1));
}

#[test]
fn a_submission_that_is_lost_keeps_its_number_and_a_result_that_is_lost_takes_a_new_one() {
    let (mut lost, mut expired) = (1, 1);
    let (runtime, transport, client) = sampler(move |request| match path(request) {
        "asample" if lost > 0 => {
            lost -= 1;
            FakeReply::fail(TransportErrorKind::Request)
        }
        "retrieve_future" if expired > 0 => {
            expired -= 1;
            FakeReply::json(410, r#"{"detail":"gone"}"#)
        }
        _ => sampling(request),
    });
    let begin = runtime.elapsed();
    let response = runtime.block_on(client.sample(&prompt(), &SampleOptions::default())).unwrap();
    assert_eq!(response.sequences[0].sequence_id.as_deref(), Some("q1"));
    assert_eq!(numbers(&transport), [0, 0, 1]);
    // Half a second before sending again, half a second before sampling again.
    assert_eq!(runtime.elapsed() - begin, secs(1));
}

#[test]
fn what_fails_for_certain_is_not_sampled_again() {
    let (runtime, transport, client) = sampler(|request| match path(request) {
        "retrieve_future" => FakeReply::json(200, r#"{"error":"prompt too long","category":"user"}"#),
        _ => sampling(request),
    });
    let error = runtime.block_on(client.sample(&prompt(), &SampleOptions::default())).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::Failed { category: RequestErrorCategory::User, .. }),
        "{error}"
    );
    assert_eq!(numbers(&transport), [0]);
    for options in [
        SampleOptions { num_samples: 0, ..SampleOptions::default() },
        SampleOptions { prompt_logprobs_last_n: Some(1), ..SampleOptions::default() },
    ] {
        let error = runtime.block_on(client.sample(&prompt(), &options)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Config { .. }), "{error}");
    }
    // What was asked for and is not there: a server that does not know the option.
    let (runtime, _, client) = sampler(sampling);
    let options = SampleOptions { prompt_alt_tokens_k: 2, ..SampleOptions::default() };
    let error = runtime.block_on(client.sample(&prompt(), &options)).unwrap_err();
    assert!(error.to_string().contains("prompt_alt_tokens"), "{error}");
}

#[test]
fn a_sample_that_nobody_waits_for_is_cancelled() {
    let (runtime, transport, client) = sampler(|request| match path(request) {
        "retrieve_future" => FakeReply::never(),
        _ => sampling(request),
    });
    runtime.block_on(async {
        let (options, prompt) = (SampleOptions::default(), prompt());
        select(Box::pin(client.sample(&prompt, &options)), runtime.sleep(secs(3))).await;
        runtime.sleep(secs(1)).await;
    });
    assert_eq!(sent(&transport, "cancel_future"), [json!({"request_id": "0"})]);
}

#[test]
fn samples_that_make_no_progress_for_two_hours_are_stuck() {
    let (runtime, transport, client) = sampler(|request| match path(request) {
        "retrieve_future" => FakeReply::json(408, r#"{"queue_state":"active"}"#).after(secs(30)),
        _ => sampling(request),
    });
    let begin = runtime.elapsed();
    let error = runtime.block_on(client.sample(&prompt(), &SampleOptions::default())).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TimedOut { .. }), "{error}");
    assert_eq!(runtime.elapsed() - begin, secs(7200));
    runtime.block_on(runtime.sleep(secs(1)));
    assert_eq!(sent(&transport, "cancel_future").len(), 1);
}

#[test]
fn no_more_than_four_hundred_submissions_are_on_their_way() {
    let (runtime, transport, client) = sampler(|request| match path(request) {
        "asample" => accepted(request).after(secs(1)),
        _ => sampling(request),
    });
    let (options, prompt) = (SampleOptions::default(), prompt());
    let begin = runtime.elapsed();
    let samples = (0..1000).map(|_| client.sample(&prompt, &options));
    let results = runtime.block_on(join_all(samples));
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(runtime.elapsed() - begin, secs(3));
    let mut numbers = numbers(&transport);
    numbers.sort();
    assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
}

#[test]
fn an_attached_client_takes_a_number_that_no_sampler_has() {
    let (runtime, transport, client) = training(|request| match path(request) {
        "sessions/s" => FakeReply::json(
            200,
            r#"{"training_run_ids":["s:train:0"],"sampler_ids":["s:sample:4","s:sample:10"]}"#,
        ),
        "retrieve_future" if request.header("x-tinker-request-type") == Some("SaveWeightsForSampler") => {
            FakeReply::json(200, r#"{"path":null,"sampling_session_id":"s:sample:11"}"#)
        }
        _ => obliging(request),
    });
    let sampler = runtime.block_on(client.save_weights_and_get_sampling_client()).unwrap();
    assert_eq!((&*sampler.sampler_id(), &*sampler.session_id()), ("s:sample:11", "s"));
    let saved = sent(&transport, "save_weights_for_sampler");
    assert_eq!(saved[0]["sampling_session_seq_id"], 11);
    assert_eq!((&saved[0]["seq_id"], &saved[0]["kind"]), (&json!(7), &json!("snapshot")));
}

/// Of a service that tells of all samples of a client at once: those whose numbers `done` gives for a cursor.
fn told_together(
    done: impl Fn(u64) -> Vec<u64> + Send + 'static,
) -> (ManualRuntime, FakeTransport, SamplingClient) {
    sampler(move |request| match path(request) {
        "client/config" => FakeReply::json(200, r#"{"sample_use_retrieve_futures":true}"#),
        "retrieve_futures" => {
            let cursor = body(request)["prev_cursor"].as_u64().unwrap();
            let completions: Vec<_> = done(cursor)
                .iter()
                .map(|number| json!({"state": "finished", "request_id": number.to_string(), "new_member": 1}))
                .collect();
            // It is held when there is no news.
            let held = if completions.is_empty() { 30 } else { 1 };
            let answer = json!({"completions": completions, "cursor": cursor + u64::from(held == 1)});
            let reply = FakeReply::json(200, answer.to_string());
            if body(request)["timeout"] == 0.0 { reply } else { reply.after(secs(held)) }
        }
        _ => sampling(request),
    })
}

#[test]
fn one_question_is_asked_for_all_samples_of_a_client() {
    let (runtime, transport, client) = told_together(|cursor| match cursor {
        0 => vec![1, 2],
        1 => vec![0],
        _ => vec![],
    });
    let options = SampleOptions::default();
    let prompt = prompt();
    let results = runtime.block_on(join_all((0..3).map(|_| client.sample(&prompt, &options))));
    let tokens: Vec<_> = results.into_iter().map(|result| result.unwrap().sequences[0].tokens[0]).collect();
    assert_eq!(tokens, [0, 1, 2]);
    // Each is read once, when it is there.
    assert_eq!(sent(&transport, "retrieve_future").len(), 3);
    let asked = sent(&transport, "retrieve_futures");
    let target =
        json!({"type": "sampling_session", "sampling_session_id": "s:sample:0", "cloned_sampler_id": 0});
    assert_eq!(asked[0]["target"], target);
    assert_eq!((&asked[0]["prev_cursor"], asked[0].get("timeout")), (&json!(0), None));
    drop(client);
    runtime.block_on(runtime.sleep(secs(1)));
    // The last word tells what was read, and that all was heard.
    let asked = sent(&transport, "retrieve_futures");
    let read: std::collections::BTreeSet<_> = asked
        .iter()
        .flat_map(|question| question["retrieved_request_ids"].as_array().unwrap().clone())
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(read, ["0", "1", "2"].map(str::to_owned).into());
    let last = asked.last().unwrap();
    assert_eq!((&last["prev_cursor"], &last["timeout"]), (&json!(2), &json!(0.0)));
    let count = asked.len();
    runtime.block_on(runtime.sleep(secs(600)));
    assert_eq!(sent(&transport, "retrieve_futures").len(), count, "nothing is asked when nobody waits");
}

#[test]
fn a_server_that_holds_no_question_is_asked_with_pauses() {
    let (runtime, transport, client) = sampler(move |request| match path(request) {
        "client/config" => FakeReply::json(200, r#"{"sample_use_retrieve_futures":true}"#),
        "retrieve_futures" => {
            let cursor = body(request)["prev_cursor"].as_u64().unwrap();
            assert!(cursor < 1000, "it is asked without a pause");
            let others = json!([{"state": "finished", "request_id": format!("another's {cursor}")}]);
            FakeReply::json(200, json!({"completions": others, "cursor": cursor + 1}).to_string())
        }
        _ => sampling(request),
    });
    let (prompt, options) = (prompt(), SampleOptions::default());
    runtime.block_on(select(Box::pin(client.sample(&prompt, &options)), runtime.sleep(secs(60))));
    let asked = sent(&transport, "retrieve_futures").len();
    assert!((50..70).contains(&asked), "{asked}");
}

#[test]
fn a_poller_goes_on_through_what_passes_and_fails_all_for_what_does_not() {
    let failures = |replies: Vec<FakeReply>| {
        let mut replies = replies.into_iter();
        let (runtime, transport, client) = sampler(move |request| match path(request) {
            "client/config" => FakeReply::json(200, r#"{"sample_use_retrieve_futures":true}"#),
            "retrieve_futures" => replies.next().unwrap_or_else(|| {
                let done = ["0", "1"].map(|id| json!({"state": "finished", "request_id": id}));
                FakeReply::json(200, json!({"completions": done, "cursor": 1}).to_string()).after(secs(1))
            }),
            _ => sampling(request),
        });
        let (options, prompt) = (SampleOptions::default(), prompt());
        let result = runtime.block_on(client.sample(&prompt, &options));
        let again = runtime.block_on(client.sample(&prompt, &options));
        (result, again, sent(&transport, "asample").len())
    };
    let passing = vec![
        FakeReply::fail(TransportErrorKind::Request),
        FakeReply::json(503, "{}"),
        FakeReply::json(400, "{}"),
        FakeReply::json(400, "{}"),
        FakeReply::json(400, "{}"),
        FakeReply::json(402, "{}"),
        FakeReply::never(),
    ];
    let (result, again, _) = failures(passing);
    assert!(result.is_ok() && again.is_ok(), "{result:?} {again:?}");
    for fatal in
        [vec![FakeReply::json(404, r#"{"detail":"Not Found"}"#)], vec![FakeReply::json(400, "{}"); 4]]
    {
        let (result, again, submitted) = failures(fatal);
        let error = result.unwrap_err();
        assert!(error.to_string().starts_with("retrieve_futures"), "{error}");
        assert!(again.is_err());
        assert_eq!(submitted, 2, "each was submitted once");
    }
}

#[test]
fn only_so_many_samples_are_under_way_at_once() {
    let (runtime, transport, client) = sampler(|request| match path(request) {
        "client/config" => FakeReply::json(200, r#"{"sample_max_concurrent_requests":2}"#),
        "retrieve_future" => sampling(request).after(secs(10)),
        _ => sampling(request),
    });
    let (options, prompt) = (SampleOptions::default(), prompt());
    let begin = runtime.elapsed();
    let results = runtime.block_on(join_all((0..6).map(|_| client.sample(&prompt, &options))));
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(runtime.elapsed() - begin, secs(30));
    assert_eq!(numbers(&transport).len(), 6);
}

#[test]
fn what_holds_for_all_samples_of_a_client() {
    let (runtime, transport, client) = sampler(|request| match path(request) {
        "asample" => FakeReply::json(503, "{}").header("x-should-retry", "false"),
        _ => sampling(request),
    });
    let retry = SampleRetry {
        progress_timeout: Some(secs(100)),
        first_delay: secs(3),
        max_delay: secs(6),
        jitter: 0.0,
        ..SampleRetry::default()
    };
    let patient = client.clone().with_options(SamplingOptions { record_stability_info: true, retry });
    let begin = runtime.elapsed();
    let error = runtime.block_on(patient.sample(&prompt(), &SampleOptions::default())).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TimedOut { after } if *after == secs(100)), "{error}");
    assert_eq!(runtime.elapsed() - begin, secs(100));
    // At 0, 3, 9, 15, ... seconds.
    assert_eq!(numbers(&transport), (0..18).collect::<Vec<_>>());
    assert!(sent(&transport, "asample").iter().all(|body| body["record_stability_info"] == true));
    let once = SampleRetry { enabled: false, ..SampleRetry::default() };
    let once = client.with_options(SamplingOptions { retry: once, ..SamplingOptions::default() });
    let error = runtime.block_on(once.sample(&prompt(), &SampleOptions::default())).unwrap_err();
    assert_eq!(error.status(), Some(503));
    assert_eq!(numbers(&transport).len(), 19, "the numbers are the client's, whatever its options");
    assert_eq!(sent(&transport, "asample")[18].get("record_stability_info"), None);
}

#[test]
fn a_handle_makes_another_client_with_a_block_of_its_own() {
    for (joins, numbered) in [(true, 3_000_000_000_u64), (false, 1_000_000_000)] {
        let (runtime, transport, client) = sampler(move |request| match path(request) {
            "client/config" => {
                FakeReply::json(200, json!({"sample_join_sampling_session": joins}).to_string())
            }
            "join_sampling_session" => FakeReply::json(200, r#"{"client_counter":3}"#),
            _ => sampling(request),
        });
        let options = SamplingOptions { record_stability_info: true, ..SamplingOptions::default() };
        let handle = client.with_options(options).get_sampler_handle();
        assert!(!handle.contains(KEY));
        let other = SamplingClient::from_sampler_handle(api(&runtime, &transport), &handle);
        let other = runtime.block_on(other).unwrap();
        assert_eq!((&*other.sampler_id(), &*other.session_id()), ("s:sample:0", "s"));
        // The result's token is the number, which is beyond a token's range; the request is what counts.
        let _ = runtime.block_on(other.sample(&prompt(), &SampleOptions::default()));
        let sample = sent(&transport, "asample").pop().unwrap();
        assert_eq!((&sample["seq_id"], &sample["record_stability_info"]), (&json!(numbered), &json!(true)));
        let asked = transport.paths().iter().filter(|p| p.ends_with("join_sampling_session")).count();
        assert_eq!(asked, usize::from(joins));
    }
}

#[test]
fn a_sampler_of_the_weights_as_they_are_has_its_place_when_it_is_called() {
    let (runtime, transport, client) = training(|request| match path(request) {
        // Which number the sampler has must be asked for, and takes a while.
        "sessions/s" => FakeReply::json(200, r#"{"training_run_ids":[],"sampler_ids":[]}"#).after(secs(9)),
        "retrieve_future" if request.header("x-tinker-request-type") == Some("SaveWeightsForSampler") => {
            FakeReply::json(200, r#"{"path":null}"#)
        }
        _ => obliging(request),
    });
    let (sampler, step) = runtime.block_on(async {
        let sampler = client.save_weights_and_get_sampling_client();
        let step = client.optim_step(AdamParams::default());
        // Awaited in another order than called.
        let step = step.await;
        (sampler.await, step)
    });
    assert!(step.is_ok());
    assert_eq!(sampler.unwrap().sampler_id(), "s:sample:0");
    assert_eq!(sequence(&transport), ["save_weights_for_sampler 7", "optim_step 8"]);
}

#[test]
fn a_completion_of_a_new_kind_is_asked_for_and_its_size_needs_no_announcement() {
    let (runtime, transport, client) = sampler(|request| {
        match path(request) {
        "client/config" => FakeReply::json(200, r#"{"sample_use_retrieve_futures":true}"#),
        "retrieve_futures" => FakeReply::json(
            200,
            r#"{"completions":[{"state":"half_done","request_id":"0","response_payload_uncompressed_size":90}],"cursor":1}"#,
        )
        .after(secs(1)),
        _ => sampling(request),
    }
    });
    runtime.block_on(client.sample(&prompt(), &SampleOptions::default())).unwrap();
    let asked = sent(&transport, "retrieve_future");
    assert_eq!((asked.len(), &asked[0]["allow_metadata_only"]), (1, &json!(false)));
}

#[test]
fn samples_that_a_restarted_server_has_lost_are_submitted_anew() {
    let mut asked = 0;
    let (runtime, transport, client) = sampler(move |request| match path(request) {
        "client/config" => FakeReply::json(200, r#"{"sample_use_retrieve_futures":true}"#),
        "retrieve_futures" => {
            asked += 1;
            match asked {
                // It goes away, and when it is back it knows nothing of the first submission.
                1 => FakeReply::fail(TransportErrorKind::Request).after(secs(5)),
                2 => FakeReply::json(200, r#"{"completions":[],"cursor":0}"#).after(secs(30)),
                _ => FakeReply::json(
                    200,
                    r#"{"completions":[{"state":"finished","request_id":"1"}],"cursor":1}"#,
                )
                .after(secs(1)),
            }
        }
        "retrieve_future" if body(request)["request_id"] == "0" => {
            FakeReply::json(410, r#"{"detail":"gone"}"#)
        }
        _ => sampling(request),
    });
    let response = runtime.block_on(client.sample(&prompt(), &SampleOptions::default())).unwrap();
    assert_eq!(response.sequences[0].sequence_id.as_deref(), Some("q1"));
    assert_eq!(numbers(&transport), [0, 1]);
}

/// A service with these settings that takes a second to accept a sample.
fn accepting(config: Value) -> (ManualRuntime, FakeTransport, SamplingClient) {
    sampler(move |request| match path(request) {
        "client/config" => FakeReply::json(200, config.to_string()),
        "asample" => accepted(request).after(secs(1)),
        _ => sampling(request),
    })
}

/// How long so many samples at once take.
async fn time_of(runtime: &ManualRuntime, client: &SamplingClient, count: usize) -> Duration {
    let (options, prompt, begin) = (SampleOptions::default(), prompt(), runtime.elapsed());
    let results = join_all((0..count).map(|_| client.sample(&prompt, &options))).await;
    assert!(results.iter().all(Result::is_ok));
    runtime.elapsed() - begin
}

#[test]
fn prompts_are_submitted_as_far_as_there_is_room_for_them() {
    // A prompt of two tokens counts for 20 bytes; one more is let in while anything is left.
    for (room, took) in [(40, 3), (41, 2), (20, 6), (19, 6), (120, 1)] {
        let (runtime, _, client) = accepting(json!({"sample_dispatch_bytes_semaphore_size": room}));
        assert_eq!(runtime.block_on(time_of(&runtime, &client, 6)), secs(took), "{room}");
    }
}

/// The same, where the first sample is answered 429, and has been sent again since.
fn limited(config: Value, prompt: &ModelInput) -> (ManualRuntime, SamplingClient, Duration) {
    let mut first = true;
    let (runtime, _, client) = sampler(move |request| match path(request) {
        "client/config" => FakeReply::json(200, config.to_string()),
        "asample" if std::mem::take(&mut first) => FakeReply::json(429, "{}"),
        "asample" => accepted(request).after(secs(1)),
        _ => sampling(request),
    });
    let begin = runtime.elapsed();
    runtime.block_on(client.sample(prompt, &SampleOptions::default())).unwrap();
    let took = runtime.elapsed() - begin;
    (runtime, client, took)
}

#[test]
fn after_a_limit_ten_are_submitted_at_once_for_ten_seconds() {
    let (runtime, client, _) = limited(json!({}), &prompt());
    runtime.block_on(async {
        // A second of the ten is over.
        assert_eq!(time_of(&runtime, &client, 30).await, secs(3));
        assert_eq!(time_of(&runtime, &client, 50).await, secs(5));
        runtime.sleep(secs(1)).await;
        assert_eq!(time_of(&runtime, &client, 30).await, secs(1));
    });
}

#[test]
fn after_a_limit_a_byte_counts_for_twenty() {
    let (runtime, client, _) = limited(json!({"sample_dispatch_bytes_semaphore_size": 800}), &prompt());
    runtime.block_on(async {
        assert_eq!(time_of(&runtime, &client, 6).await, secs(3), "two at once, 400 each");
        runtime.sleep(secs(10)).await;
        assert_eq!(time_of(&runtime, &client, 40).await, secs(1));
    });
}

#[test]
fn the_pause_after_a_limit_is_longer_for_a_large_prompt() {
    // 10 bytes a token; 128 KiB are 131,072 bytes.
    for (tokens, pause) in [(13_107, 1), (13_108, 5)] {
        let prompt = ModelInput::from_ints(vec![1; tokens]);
        let (_, _, took) = limited(json!({}), &prompt);
        assert_eq!(took, secs(pause + 1), "{tokens}");
    }
}

#[test]
fn a_server_can_ask_for_no_retries_and_for_no_detection_of_stuck_samples() {
    let answers = |config: &'static str| {
        let mut asked = 0;
        sampler(move |request| match path(request) {
            "client/config" => FakeReply::json(200, config),
            "retrieve_future" => {
                asked += 1;
                match asked {
                    // Ten days of it.
                    ..=30_000 => FakeReply::json(408, r#"{"queue_state":"active"}"#).after(secs(30)),
                    30_001 => FakeReply::json(410, r#"{"detail":"gone"}"#),
                    _ => sampling(request),
                }
            }
            _ => sampling(request),
        })
    };
    let (runtime, transport, client) = answers(r#"{"sample_enable_stuck_detection":false}"#);
    runtime.block_on(client.sample(&prompt(), &SampleOptions::default())).unwrap();
    assert!(runtime.elapsed() > secs(10 * 86_400));
    assert_eq!(numbers(&transport), [0, 1]);
    let (runtime, transport, client) =
        answers(r#"{"sample_enable_stuck_detection":false,"sample_no_retries":true}"#);
    let error = runtime.block_on(client.sample(&prompt(), &SampleOptions::default())).unwrap_err();
    assert_eq!(error.status(), Some(410));
    assert_eq!(numbers(&transport), [0]);
}

#[test]
fn settings_that_change_are_asked_for_as_often_as_the_server_says() {
    for (says, each) in [(25, 25), (1, 10)] {
        let mut asked = 0;
        let (runtime, transport, client) = sampler(move |request| match path(request) {
            "client/dynamic_config" => {
                asked += 1;
                let config = json!({"refresh_interval_sec": says, "sample_cancel_enabled": asked > 2});
                FakeReply::json(200, config.to_string())
            }
            "retrieve_future" => FakeReply::never(),
            _ => sampling(request),
        });
        let count = || transport.requests().iter().filter(|r| path(r) == "client/dynamic_config").count();
        let give_up = async || {
            let (options, prompt) = (SampleOptions::default(), prompt());
            select(Box::pin(client.sample(&prompt, &options)), runtime.sleep(Duration::from_millis(1))).await;
        };
        runtime.block_on(async {
            assert_eq!(count(), 1);
            runtime.sleep(secs(each) + Duration::from_millis(1)).await;
            assert_eq!(count(), 2);
            give_up().await;
            runtime.sleep(secs(each - 1)).await;
            assert_eq!((count(), sent(&transport, "cancel_future").len()), (2, 0), "each {each} s");
            runtime.sleep(secs(1)).await;
            assert_eq!(count(), 3);
            // What the third answer allows.
            give_up().await;
            runtime.sleep(Duration::from_millis(1)).await;
            assert_eq!(sent(&transport, "cancel_future"), [json!({"request_id": "1"})]);
            runtime.sleep(secs(10 * each)).await;
            assert_eq!(count(), 13);
        });
    }
}

#[test]
fn so_many_cancels_are_sent_at_once_as_the_server_takes() {
    let (runtime, transport, client) = sampler(|request| match path(request) {
        "client/dynamic_config" => {
            FakeReply::json(200, r#"{"sample_cancel_enabled":true,"sample_cancel_max_batch_size":2}"#)
        }
        "retrieve_future" => FakeReply::never(),
        "cancel_future" => FakeReply::json(200, "{}").after(secs(2)),
        _ => sampling(request),
    });
    runtime.block_on(async {
        let (options, prompt) = (SampleOptions::default(), prompt());
        let all = join_all((0..5).map(|_| client.sample(&prompt, &options)));
        select(Box::pin(all), runtime.sleep(secs(1))).await;
        for expected in [2, 4, 5, 5] {
            runtime.sleep(secs(1)).await;
            assert_eq!(sent(&transport, "cancel_future").len(), expected);
            runtime.sleep(secs(1)).await;
        }
    });
}
