"""The protocol where the SDK of today does not go by itself."""

import threading
import time

import httpx
import pytest
import tinker
import zstandard
from tinker.proto.response_conv import deserialize_proto_response

from data import BATCH, MODEL, TEXTS
from service import KEY
from wire import PROTOBUF, Wire, protobuf_pass


@pytest.fixture(scope="module")
def wire(service):
    return Wire(service.url)


@pytest.fixture(scope="module")
def session(wire):
    return wire.session()


@pytest.fixture
def model(wire):
    return wire.model(wire.session())


@pytest.fixture(scope="module", autouse=True)
def question(wire):
    """Asks early about a request whose predecessor never comes; the answer is looked at last."""
    model = wire.model(wire.session())
    step = {"model_id": model, "seq_id": 2, "adam_params": {}, "type": "optim_step"}
    request_id = wire.ok("optim_step", step)["request_id"]
    found = {}

    def ask():
        found["asked"] = time.monotonic()
        found["answer"] = httpx.post(
            f"{wire.http.base_url}retrieve_future",
            json={"request_id": request_id, "allow_metadata_only": True},
            headers={"X-API-Key": KEY},
            timeout=60,
        )
        found["answered"] = time.monotonic()

    thread = threading.Thread(target=ask)
    thread.start()
    yield thread, found
    thread.join()


def test_zstd(wire, model):
    plain = protobuf_pass(model, 1, BATCH)
    packed = zstandard.ZstdCompressor().compress(protobuf_pass(model, 2, BATCH))
    first = wire.pass_of(plain)
    second = wire.pass_of(packed, **{"Content-Encoding": "zstd"})
    assert (first.status_code, second.status_code) == (200, 200), second.text
    first, second = (wire.result(answer.json(), Accept=PROTOBUF) for answer in (first, second))
    assert first.content == second.content or decode(first).metrics == decode(second).metrics


def decode(answer) -> tinker.ForwardBackwardOutput:
    assert PROTOBUF in answer.headers["content-type"]
    return deserialize_proto_response(answer.content, tinker.ForwardBackwardOutput)


def test_zstd_of_json(wire, model):
    body = b'{"model_id": "%s", "type": "get_info"}' % model.encode()
    headers = {"Content-Type": "application/json", "Content-Encoding": "zstd"}
    answer = wire.http.post("get_info", content=zstandard.ZstdCompressor().compress(body), headers=headers)
    assert answer.status_code == 200 and answer.json()["model_id"] == model


@pytest.mark.parametrize("body", [b"", b"not zstd", zstandard.ZstdCompressor().compress(b"x" * 100)[:-5]])
def test_damaged_zstd(wire, body):
    answer = wire.pass_of(body, **{"Content-Encoding": "zstd"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["detail"] and int(answer.headers["content-length"]) > 0


def test_a_small_body_that_unpacks_to_a_huge_one(wire):
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    block = b"\0" * (1 << 20)
    body = b"".join(packer.compress(block) for _ in range(600)) + packer.flush()
    assert len(body) < 1 << 20
    start = time.monotonic()
    answer = wire.pass_of(body, **{"Content-Encoding": "zstd"})
    assert answer.status_code in (400, 413, 422), answer.text
    assert time.monotonic() - start < 10


def test_another_encoding_is_refused(wire):
    assert wire.pass_of(b"x", **{"Content-Encoding": "br"}).status_code == 415


def test_what_cannot_be_read_is_not_waited_for(wire, session):
    """Whatever is wrong with a body, as long as it says at its beginning whose turn it was."""
    model = wire.model(session, 41)
    numbers = iter(range(1, 100))
    json_of = {"Content-Type": "application/json"}

    def cut(seq):
        return wire.pass_of(protobuf_pass(model, seq, BATCH)[:-9])

    def mislabelled(seq):
        return wire.pass_of(protobuf_pass(model, seq, BATCH), **{"Content-Type": "text/plain"})

    def of_another_form(seq):
        return wire.http.post(
            "forward", content=protobuf_pass(model, seq, BATCH), headers={"Content-Type": PROTOBUF}
        )

    def unlabelled(seq):
        return wire.pass_of(b'{"model_id": "%s", "seq_id": %d}' % (model.encode(), seq), **{"Content-Type": ""})

    def encoded(seq):
        return wire.pass_of(protobuf_pass(model, seq, BATCH), **{"Content-Encoding": "br"})

    def huge(seq):
        packer = zstandard.ZstdCompressor(level=1).compressobj()
        start = protobuf_pass(model, seq, BATCH)
        body = [packer.compress(start), *(packer.compress(b"\0" * (1 << 20)) for _ in range(300)), packer.flush()]
        return wire.pass_of(b"".join(body), **{"Content-Encoding": "zstd"})

    def too_large(seq):
        body = b'{"model_id": "%s", "seq_id": %d, "x": "%s"}' % (model.encode(), seq, b"x" * (257 << 20))
        return wire.pass_of(body, **json_of)

    for spoiled, statuses in [
        (cut, {400, 422}),
        (mislabelled, {415}),
        (of_another_form, {415}),
        (unlabelled, {415}),
        (encoded, {415}),
        (huge, {413}),
        (too_large, {413}),
    ]:
        seq = next(numbers)
        answer = spoiled(seq)
        assert answer.status_code in statuses, f"{spoiled.__name__}: {answer.status_code} {answer.text}"
        assert answer.json()["detail"]
        behind = wire.pass_of(protobuf_pass(model, next(numbers), BATCH)).json()
        start = time.monotonic()
        assert "error" not in wire.result(behind).json(), spoiled.__name__
        assert time.monotonic() - start < 30, f"{spoiled.__name__}: its number was waited for"


def test_results_in_both_forms(wire, model):
    """Protobuf only for those who ask for it; both as often as wanted."""
    submission = wire.pass_of(protobuf_pass(model, 1, BATCH)).json()
    as_json = wire.result(submission).json()
    as_protobuf = decode(wire.result(submission, Accept=PROTOBUF))
    assert as_json["metrics"] == as_protobuf.metrics
    assert as_json["loss_fn_output_type"] == as_protobuf.loss_fn_output_type
    for plain, packed, text in zip(
        as_json["loss_fn_outputs"], as_protobuf.loss_fn_outputs, TEXTS, strict=True
    ):
        assert plain["logprobs"]["data"] == pytest.approx(packed["logprobs"].data)
        assert len(plain["logprobs"]["data"]) == len(text) - 1
    assert "error" not in as_json
    assert decode(wire.result(submission, Accept=PROTOBUF)).metrics == as_json["metrics"]


def test_a_repeated_submission_is_the_same_request(wire, session):
    """Whatever its X-Idempotency-Key: a retry of the SDK's outer layer has a new one."""
    body = {
        "session_id": session,
        "model_seq_id": 40,
        "base_model": MODEL,
        "lora_config": {"rank": 2},
        "type": "create_model",
    }
    first, again = wire.ok("create_model", body), wire.ok("create_model", body)
    assert first["request_id"] == again["request_id"]
    model = wire.result(first).json()["model_id"]
    assert model == f"{session}:train:40"
    content = protobuf_pass(model, 1, BATCH)
    assert wire.pass_of(content).json()["request_id"] == wire.pass_of(content).json()["request_id"]
    for path, body in [
        ("optim_step", {"adam_params": {"learning_rate": 1e-3}, "seq_id": 2}),
        ("save_weights", {"path": "twice", "seq_id": 3}),
        ("save_weights_for_sampler", {"path": "twice", "seq_id": 4}),
        ("save_weights_for_sampler", {"sampling_session_seq_id": 90, "kind": "snapshot", "seq_id": 5}),
        ("save_weights_external", {"path": "twice", "seq_id": 6}),
    ]:
        submissions = [wire.ok(path, {"model_id": model, "type": path, **body}) for _ in range(2)]
        assert submissions[0]["request_id"] == submissions[1]["request_id"], path
        assert "error" not in wire.result(submissions[0]).json(), path


def test_a_number_is_not_used_twice(wire, model):
    """Another request under a number that was taken: refused, for it can be neither's result."""
    body = {"model_id": model, "seq_id": 1, "type": "optim_step", "adam_params": {"learning_rate": 1e-3}}
    wire.ok("optim_step", body)
    body["adam_params"] = {"learning_rate": 1e-2}
    answer = wire.post("optim_step", body)
    assert 400 <= answer.status_code < 500


def test_a_repeated_sample_is_the_same_request(wire, session):
    body = {
        "session_id": session,
        "sampling_session_seq_id": 50,
        "base_model": MODEL,
        "type": "create_sampling_session",
    }
    first, again = wire.ok("create_sampling_session", body), wire.ok("create_sampling_session", body)
    assert first == again
    sample = {
        "sampling_session_id": first["sampling_session_id"],
        "seq_id": 7_000_000_000_000_000_001,
        "num_samples": 2,
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": [65, 66]}]},
        "sampling_params": {"max_tokens": 4},
        "type": "sample",
    }
    first, again = wire.ok("asample", sample), wire.ok("asample", sample)
    assert first == again and len(set(first["sample_sequence_ids"])) == 2
    sequences = wire.result(first).json()["sequences"]
    assert [len(one["tokens"]) for one in sequences] and sequences == wire.result(again).json()["sequences"]


def test_sampling_by_model_without_a_session(wire):
    """How old clients address samples."""
    sample = {
        "base_model": MODEL,
        "num_samples": 1,
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": [65, 66]}]},
        "sampling_params": {"max_tokens": 3, "temperature": 0},
        "type": "sample",
    }
    (one,) = wire.result(wire.ok("asample", sample)).json()["sequences"]
    assert 1 <= len(one["tokens"]) <= 3 and one["stop_reason"] in ("length", "stop")


def test_retrieve_futures(wire, session):
    body = {
        "session_id": session,
        "sampling_session_seq_id": 60,
        "base_model": MODEL,
        "type": "create_sampling_session",
    }
    sampler = wire.ok("create_sampling_session", body)["sampling_session_id"]
    target = {"type": "sampling_session", "sampling_session_id": sampler, "cloned_sampler_id": 0}

    def submit(seq_id, token=65):
        return wire.ok(
            "asample",
            {
                "sampling_session_id": sampler,
                "seq_id": seq_id,
                "prompt": {"chunks": [{"type": "encoded_text", "tokens": [token]}]},
                "sampling_params": {"max_tokens": 2},
                "type": "sample",
            },
        )["request_id"]

    def poll(cursor, **options):
        body = {"target": target, "prev_cursor": cursor, "retrieved_request_ids": [], **options}
        answer = wire.ok("retrieve_futures", body)
        return {one["request_id"]: one for one in answer["completions"]}, answer["cursor"]

    assert poll(0, timeout=0) == ({}, 0)
    asked = {submit(i) for i in range(5)}
    of_a_clone = submit(3_000_000_001)
    finished, cursor = {}, 0
    while len(finished) < 5:
        # Whoever names a cursor has everything up to it; only what came since is given again.
        before = cursor
        more, cursor = poll(before)
        assert not set(more) & set(finished), "once each"
        finished.update(more)
    assert set(finished) == asked and of_a_clone not in finished
    for one in finished.values():
        assert one["state"] == "finished" and one.get("response_payload_uncompressed_size", 1) > 0
    assert poll(before, timeout=0)[0] == more, "whoever lost the answer asks again"
    assert poll(cursor, timeout=0, retrieved_request_ids=sorted(asked)) == ({}, cursor)
    start = time.monotonic()
    held = threading.Timer(0.5, submit, (6,))
    held.start()
    more, _ = poll(cursor)
    assert len(more) == 1 and 0.3 < time.monotonic() - start < 20
    unknown = {**target, "sampling_session_id": "nobody:sample:0"}
    assert wire.post("retrieve_futures", {"target": unknown, "prev_cursor": 0}).status_code == 404


def test_unknown_requests(wire):
    answer = wire.post("retrieve_future", {"request_id": "nobody:1", "allow_metadata_only": True})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "path, body",
    [
        ("create_session", b"{"),
        ("create_model", b"[]"),
        ("create_model", b'{"session_id": 5}'),
        ("asample", b"{}"),
        ("create_sampling_session", b"{}"),
        ("retrieve_futures", b'{"target": {"type": "moon"}, "prev_cursor": 0}'),
        ("sessions/search", b'{"limit": 5000}'),
        ("sessions/search", b'{"cursor": "x"}'),
        ("weights_info", b'{"tinker_path": 1}'),
        ("cancel_future", b"null"),
        ("forward", b"{}"),
        ("save_weights_external", b"{}"),
    ],
)
def test_nonsense_is_refused_in_words(wire, path, body):
    answer = wire.http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), f"{answer.status_code} {answer.text}"
    assert answer.json()["detail"]
    # A 400 without this is taken for a proxy's, and tried again.
    assert int(answer.headers["content-length"]) > 0


def test_any_key_will_do_on_this_machine_but_not_none(service):
    """No key was set, and the service listens on this machine only. A program without a key would fail elsewhere."""
    url, body = f"{service.url}/api/v1/create_session", {"tags": [], "user_metadata": {}}
    answer = httpx.post(url, json=body, headers={"X-API-Key": "whatever"})
    assert answer.status_code == 200 and answer.json()["session_id"]
    for headers in ({}, {"X-API-Key": ""}):
        answer = httpx.post(url, json=body, headers=headers)
        assert answer.status_code == 401 and "TINKER_API_KEY" in answer.json()["detail"]
    assert httpx.get(f"{service.url}/api/v1/healthz").json() == {"status": "ok"}


def test_heartbeats_of_nobody(wire):
    assert (
        wire.post("session_heartbeat", {"session_id": "nobody", "type": "session_heartbeat"}).status_code
        == 404
    )


def test_large_results_may_announce_themselves(wire, service):
    """`allow_metadata_only` is an offer: whichever way it is taken, the second question gets the payload."""
    model = wire.model(wire.session())
    submission = wire.pass_of(protobuf_pass(model, 1, BATCH * 200)).json()
    body = {"request_id": submission["request_id"], "allow_metadata_only": True}
    answer = wire.post("retrieve_future", body, headers={"Accept": PROTOBUF})
    if PROTOBUF not in answer.headers["content-type"]:
        assert answer.json()["status"] == "complete_metadata" and answer.json()["response_payload_size"] > 0
    assert len(decode(wire.result(submission, Accept=PROTOBUF)).loss_fn_outputs) == 600


def test_zz_waiting_is_answered_by_try_again(question):
    """Held for a while, then 200: a 408 would make browsers send the question again by themselves."""
    thread, found = question
    thread.join(timeout=50)
    answer = found["answer"]
    assert answer.status_code == 200, answer.text
    assert answer.json()["type"] == "try_again" and answer.json()["queue_state"] == "active"
    assert 5 < found["answered"] - found["asked"] < 44, "the SDK gives up after 45 s and asks again at once"
