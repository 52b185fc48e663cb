"""What tinkex, the Elixir client, sends: JSON throughout, nulls written out, ids escaped."""

import io
import itertools
import tarfile
import urllib.parse

import httpx
import pytest

from data import MODEL
from wire import Wire

TEXT = list(b"tinkex says hello")


@pytest.fixture(scope="module")
def wire(service):
    wire = Wire(service.url)
    wire.http.headers["Accept"] = "application/json"
    return wire


@pytest.fixture(scope="module")
def session(wire):
    body = {
        "project_id": None,
        "sdk_version": "0.4.0",
        "tags": ["tinkex"],
        "type": "create_session",
        "user_metadata": None,
    }
    session_id = wire.ok("create_session", body)["session_id"]
    assert wire.ok("session_heartbeat", {"session_id": session_id, "type": "session_heartbeat"}) is not None
    return session_id


def create(wire, session, model_seq_id):
    lora = {
        "rank": 8,
        "seed": 7 if model_seq_id == 0 else None,
        "train_attn": True,
        "train_mlp": True,
        "train_unembed": True,
    }
    body = {
        "base_model": MODEL,
        "lora_config": lora,
        "model_seq_id": model_seq_id,
        "session_id": session,
        "type": "create_model",
        "user_metadata": None,
    }
    model = wire.result(wire.ok("create_model", body)).json()["model_id"]
    assert wire.ok("get_info", {"model_id": model, "type": "get_info"})["model_data"]["model_name"] == MODEL
    return model


def input_of(text):
    datum = {
        "loss_fn_inputs": {
            "target_tokens": {"data": text[1:], "dtype": "int64", "shape": [len(text) - 1]},
            "weights": {"data": [1.0] * (len(text) - 1), "dtype": "float32", "shape": None},
        },
        "model_input": {"chunks": [{"tokens": text[:-1], "type": "encoded_text"}]},
    }
    return {"data": [datum], "loss_fn": "cross_entropy", "loss_fn_config": None}


def forward(wire, model, seq_id):
    body = {"forward_input": input_of(TEXT), "model_id": model, "seq_id": seq_id}
    return wire.result(wire.ok("forward", body)).json()


@pytest.fixture(scope="module")
def seq():
    """The numbers of the requests to the trained run."""
    return itertools.count(1)


@pytest.fixture(scope="module")
def trained(wire, session, seq):
    """A run after three steps."""
    model = create(wire, session, 0)
    losses = []
    for _ in range(3):
        body = {"forward_backward_input": input_of(TEXT), "model_id": model, "seq_id": next(seq)}
        passed = wire.ok("forward_backward", body)
        adam = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-12, "learning_rate": 0.01}
        step = {"adam_params": adam, "model_id": model, "seq_id": next(seq), "type": "optim_step"}
        wire.result(wire.ok("optim_step", step))
        losses.append(wire.result(passed).json()["metrics"]["loss:sum"])
    assert losses == sorted(losses, reverse=True)
    return model


def with_chunk(input, chunk):
    input["data"][0]["model_input"]["chunks"] = [chunk]


def with_target(input, **members):
    input["data"][0]["loss_fn_inputs"]["target_tokens"].update(members)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda input: with_chunk(input, {"type": "image", "data": "AAAA", "format": "png"}), "image"),
        (lambda input: with_chunk(input, {"type": "encoded_text", "tokens": None}), "chunks"),
        (lambda input: with_target(input, dtype="float64"), "float64"),
        (lambda input: with_target(input, data=[1, 2]), "target_tokens"),
        (lambda input: with_target(input, data=["x"]), "target_tokens"),
        (lambda input: input["data"][0]["loss_fn_inputs"].update(weights=None), "weights"),
        (lambda input: input["data"].insert(0, 5), "datum 0"),
        (lambda input: input.update(loss_fn="nonsense"), "nonsense"),
        (lambda input: input.update(loss_fn_config={"nonsense": 1.0}), "nonsense"),
        (lambda input: input.update(data=[]), "data"),
    ],
    ids=["image", "null tokens", "dtype", "length", "text", "null weights", "no datum", "loss", "setting", "none"],
)
@pytest.mark.parametrize("kind", ["forward", "forward_backward"])
def test_a_bad_datum_is_taken_in_and_fails_in_its_turn(wire, trained, seq, spoil, named, kind):
    input = input_of(TEXT)
    spoil(input)
    body = {f"{kind}_input": input, "model_id": trained, "seq_id": next(seq)}
    failed = wire.result(wire.ok(kind, body)).json()
    assert failed["category"] == "user" and named in failed["error"], failed
    # What is behind it goes on at once.
    assert forward(wire, trained, next(seq))["metrics"]["loss:sum"] > 0


@pytest.fixture(scope="module")
def saved(wire, trained, seq):
    """A training checkpoint."""
    save = {"model_id": trained, "path": "tinkex-1", "seq_id": next(seq), "type": "save_weights"}
    path = wire.result(wire.ok("save_weights", save)).json()["path"]
    assert path == f"tinker://{trained}/weights/tinkex-1"
    return path


@pytest.fixture(scope="module")
def saved_for_sampler(wire, trained, seq):
    save = {
        "model_id": trained,
        "path": "tinkex-s",
        "sampling_session_seq_id": None,
        "seq_id": next(seq),
        "ttl_seconds": None,
        "type": "save_weights_for_sampler",
    }
    path = wire.result(wire.ok("save_weights_for_sampler", save)).json()["path"]
    assert path == f"tinker://{trained}/sampler_weights/tinkex-s"
    return path


def test_forward(wire, trained, seq):
    found = forward(wire, trained, next(seq))
    (one,) = found["loss_fn_outputs"]
    assert found["metrics"]["loss:sum"] == pytest.approx(-sum(one["logprobs"]["data"]), rel=1e-5)
    assert one["logprobs"]["shape"] == [len(TEXT) - 1]


def test_resuming(wire, session, trained, saved, seq):
    """`create_model`, then `load_weights` into it: with the optimizer, without, and without a word of it."""
    there = forward(wire, trained, next(seq))["loss_fn_outputs"]
    for number, optimizer in enumerate([{}, {"optimizer": False}, {"optimizer": True}], 1):
        model = create(wire, session, number)
        load = {"model_id": model, "path": saved, "seq_id": 1, "type": "load_weights", **optimizer}
        assert "error" not in wire.result(wire.ok("load_weights", load)).json()
        assert forward(wire, model, 2)["loss_fn_outputs"] == there
    info = wire.ok("weights_info", {"tinker_path": saved})
    assert (info["base_model"], info["is_lora"], info["lora_rank"]) == (MODEL, True, 8)


def test_sampling(wire, session, saved_for_sampler):
    body = {
        "base_model": None,
        "model_path": saved_for_sampler,
        "sampling_session_seq_id": 0,
        "session_id": session,
        "type": "create_sampling_session",
    }
    sampler = wire.ok("create_sampling_session", body)["sampling_session_id"]
    escaped = urllib.parse.quote(sampler, safe="")
    assert "%3A" in escaped or ":" not in sampler
    found = wire.http.get(f"samplers/{escaped}")
    assert found.status_code == 200 and found.json()["sampler_id"] == sampler
    assert found.json()["model_path"] == saved_for_sampler
    params = {"max_tokens": 4, "seed": None, "stop": None, "temperature": 0.0, "top_k": -1, "top_p": 1.0}
    sample = {
        "base_model": None,
        "model_path": None,
        "num_samples": 2,
        "prompt": {"chunks": [{"tokens": TEXT[:6], "type": "encoded_text"}]},
        "prompt_logprobs": None,
        "sampling_params": params,
        "sampling_session_id": sampler,
        "seq_id": 0,
        "topk_prompt_logprobs": 0,
        "type": "sample",
    }
    result = wire.result(wire.ok("asample", sample)).json()
    first, second = result["sequences"]
    assert first["tokens"] == second["tokens"] and len(first["tokens"]) == len(first["logprobs"]) == 4
    assert first["stop_reason"] == "length"
    scored = {**sample, "seq_id": 1, "num_samples": 1, "prompt_logprobs": True, "topk_prompt_logprobs": 2}
    result = wire.result(wire.ok("asample", scored)).json()
    assert result["prompt_logprobs"][0] is None and len(result["prompt_logprobs"]) == 6
    assert result["topk_prompt_logprobs"][0] is None and len(result["topk_prompt_logprobs"][1]) == 2


@pytest.mark.parametrize("escape", [False, True])
def test_archive(wire, trained, saved_for_sampler, escape):
    checkpoint = "sampler_weights/tinkex-s"
    run, checkpoint = (urllib.parse.quote(one, safe="") if escape else one for one in (trained, checkpoint))
    answer = wire.http.get(f"training_runs/{run}/checkpoints/{checkpoint}/archive", follow_redirects=False)
    assert answer.status_code in (200, 302), answer.text
    location = answer.headers["location"] if answer.status_code == 302 else answer.json()["url"]
    body = httpx.get(answer.url.join(location)).content
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        names = {member.name.removeprefix("./") for member in tar}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names


def test_lists(wire, session, trained, saved):
    """Its REST client: paths escaped whole."""
    run = urllib.parse.quote(trained, safe="")
    assert wire.http.get(f"training_runs/{run}").json()["training_run_id"] == trained
    listed = wire.http.get(f"training_runs/{run}/checkpoints").json()["checkpoints"]
    assert "weights/tinkex-1" in [one["checkpoint_id"] for one in listed]
    assert trained in wire.http.get(f"sessions/{session}").json()["training_run_ids"]
    published = f"training_runs/{run}/checkpoints/{urllib.parse.quote('weights/tinkex-1', safe='')}/publish"
    assert wire.http.post(published).is_success and wire.http.delete(published).is_success
    assert wire.http.get("get_server_capabilities").json()["supported_models"]
    event = {
        "event": "SESSION_START",
        "event_id": "1",
        "event_session_index": 0,
        "severity": "INFO",
        "timestamp": "2025-12-04T00:00:00Z",
    }
    telemetry = {"events": [event], "platform": "beam", "sdk_version": "0.4.0", "session_id": session}
    assert wire.ok("telemetry", telemetry) == {"status": "accepted"}


def test_unloading(wire, session, trained, seq):
    model = create(wire, session, 9)
    unload = {"model_id": model, "type": "unload_model"}
    assert wire.result(wire.ok("unload_model", unload)).json().get("model_id") == model
    body = {"forward_input": input_of(TEXT), "model_id": model, "seq_id": 1}
    answer = wire.post("forward", body)
    if answer.status_code == 200:
        assert wire.result(answer.json()).json()["category"] == "user"
    else:
        assert answer.status_code in (400, 404, 410)
    assert forward(wire, trained, next(seq))["metrics"], "the others stay"
