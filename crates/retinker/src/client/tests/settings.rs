//! What a server asks of its clients, and clients heed.

use futures_util::future::join;

use super::*;
use crate::client::testing::test;

/// How many datums the passes had that were sent.
fn sizes(transport: &FakeTransport) -> Vec<usize> {
    let requests = transport.requests();
    let passes = requests.iter().filter(|r| path(r) == "forward_backward");
    passes.map(|r| forward_backward(r).data.len()).collect()
}

fn asked(transport: &FakeTransport) -> usize {
    transport.requests().iter().filter(|r| path(r) == "client/config").count()
}

#[test]
fn an_adopted_run_is_trained_as_the_server_wants_it() {
    let (runtime, transport, client) = training(|request| match path(request) {
        "client/config" => FakeReply::json(
            200,
            r#"{"fwdbwd_max_chunk_len":2,"proto_compress_fwdbwd":true,"billing_exception_max_pause_duration_sec":20}"#,
        ),
        "retrieve_future" if body(request)["request_id"] == "9" => FakeReply::json(402, "{}"),
        _ => obliging(request),
    });
    let unpaid = runtime.block_on(async {
        client.forward_backward(vec![datum(); 3], "cross_entropy", &none()).await.unwrap();
        let begin = runtime.elapsed();
        let error = client.optim_step(AdamParams::default()).await.unwrap_err();
        assert_eq!(error.status(), Some(402));
        runtime.elapsed() - begin
    });
    assert_eq!(unpaid, secs(20), "a pause for billing is as long as the server says");
    assert_eq!(sizes(&transport), [1, 2], "the first last");
    let requests = transport.requests();
    let mut passes = requests.iter().filter(|r| path(r) == "forward_backward");
    assert!(passes.all(|r| r.header("content-encoding") == Some("zstd")));
    assert_eq!(asked(&transport), 1);
}

#[test]
fn a_server_that_does_not_say_is_spared_and_asked_again() {
    let mut asked_before = 0;
    let (runtime, transport, client) = training(move |request| match path(request) {
        "client/config" => {
            asked_before += 1;
            match asked_before {
                // Two times more it is tried, then the settings do without.
                1..=3 => FakeReply::fail(TransportErrorKind::Request),
                _ => FakeReply::json(200, r#"{"fwdbwd_max_chunk_len":1}"#),
            }
        }
        _ => obliging(request),
    });
    runtime.block_on(async {
        client.forward(vec![datum(); 1025], "cross_entropy", &none()).await.unwrap();
        client.forward(vec![datum(); 2], "cross_entropy", &none()).await.unwrap();
    });
    // One after the other at first, then all but the first together.
    assert_eq!(
        sequence(&transport),
        ["forward_backward 7", "forward_backward 8", "forward_backward 10", "forward_backward 9"]
    );
    assert_eq!(sizes(&transport), [1024, 1, 1, 1]);
    assert_eq!(asked(&transport), 4);
}

#[test]
fn large_results_come_as_far_as_there_is_room_for_them() {
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::new(&runtime, |request| {
        let (body, id) = (body(request), body(request)["request_id"].as_str().unwrap().to_owned());
        match (id.as_str(), body["allow_metadata_only"].as_bool()) {
            ("small", Some(true)) => output(3),
            (_, Some(true)) => FakeReply::json(
                200,
                r#"{"status":"complete_metadata","request_id":"1","response_payload_size":80}"#,
            ),
            (id, _) => output(id.parse().unwrap()).after(secs(10)),
        }
    });
    let api = api(&runtime, &transport);
    let config = retinker_wire::capabilities::ClientConfig {
        inflight_response_bytes_semaphore_size: 100,
        ..Default::default()
    };
    api.heed(&config);
    let get = async |id: &str| {
        let output = api.retrieve_future::<ForwardBackwardOutput>(id).await.unwrap();
        (output.metrics["loss:sum"], runtime.elapsed())
    };
    let large = join(join(get("1"), get("2")), join(get("4"), get("small")));
    let ((first, second), (third, small)) = runtime.block_on(large);
    // The first two take what there is and more; the third waits for one of them.
    assert_eq!(
        [first, second, third, small],
        [(1.0, secs(10)), (2.0, secs(10)), (4.0, secs(20)), (3.0, secs(0))]
    );
}

#[test]
fn a_server_that_only_ever_announces_a_result_is_not_asked_for_ever() {
    let announced =
        FakeReply::json(200, r#"{"status":"complete_metadata","request_id":"9","response_payload_size":8}"#);
    let runtime = ManualRuntime::new();
    let transport = FakeTransport::scripted(&runtime, [announced.clone(), announced]);
    let error = runtime
        .block_on(api(&runtime, &transport).retrieve_future::<ForwardBackwardOutput>("9"))
        .unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Undecodable { .. }), "{error}");
}

/// A datum of so many tokens, which count for 16 bytes each: 4 of input, 8 of target, 4 of weight.
fn of_tokens(count: usize) -> Datum {
    Datum::cross_entropy(vec![1; count], vec![2; count], vec![1.0; count])
}

#[test]
fn chunks_are_cut_by_their_bytes() {
    // Two tokens each are 32 bytes; one that is too large by itself goes alone.
    let small = || vec![of_tokens(2); 7];
    let with_a_large_one = vec![of_tokens(2), of_tokens(2), of_tokens(50), of_tokens(2), of_tokens(1)];
    let cases = [
        (96, small(), vec![3, 3, 1]),
        (95, small(), vec![2, 2, 2, 1]),
        (1, small(), vec![1; 7]),
        (224, small(), vec![7]),
        (96, with_a_large_one, vec![2, 1, 2]),
    ];
    for (bytes, data, expected) in cases {
        let config = json!({"fwdbwd_max_chunk_bytes_count": bytes, "parallel_fwdbwd_chunks": false});
        let (runtime, transport, client) = training(move |request| match path(request) {
            "client/config" => FakeReply::json(200, config.to_string()),
            _ => obliging(request),
        });
        runtime.block_on(client.forward(data, "cross_entropy", &none())).unwrap();
        assert_eq!(sizes(&transport), expected, "{bytes} bytes");
    }
}

#[test]
fn batches_are_sent_as_far_as_there_is_room_for_them() {
    // Of 32 bytes each, two are under way while anything is left.
    for (room, waves) in [(64, 2), (65, 2), (33, 2), (32, 4), (1000, 1)] {
        let (runtime, transport, client) = training(move |request| match path(request) {
            "client/config" => FakeReply::json(
                200,
                json!({"fwdbwd_dispatch_bytes_semaphore_size": room, "fwdbwd_max_chunk_len": 1}).to_string(),
            ),
            "forward_backward" => obliging(request).after(secs(10)),
            _ => obliging(request),
        });
        runtime.block_on(client.forward(vec![of_tokens(2); 5], "cross_entropy", &none())).unwrap();
        // Four together, as far as they may, and then the first.
        assert_eq!(runtime.elapsed(), secs(10 * (waves + 1)), "{room}");
        assert_eq!(sizes(&transport), [1; 5]);
    }
}
