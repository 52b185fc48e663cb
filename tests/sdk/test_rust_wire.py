"""The Rust client and service write and read protobuf as the official package does: a few hundred messages, made by
chance, in both directions, field for field. And the Rust client's telemetry is what the official package's would be."""

import json
import platform
import random
import re
import uuid
from datetime import datetime

import numpy as np
import pytest
from tinker import types
from tinker._compat import model_dump
from tinker.proto import tinker_public_pb2 as pb
from tinker.proto.request_conv import forward_backward_request_to_proto
from tinker.proto.response_conv import deserialize_forward_backward_output, deserialize_sample_response
from tinker.types.generic_event import GenericEvent
from tinker.types.session_end_event import SessionEndEvent
from tinker.types.session_start_event import SessionStartEvent
from tinker.types.unhandled_exception_event import UnhandledExceptionEvent

#: How many of each kind.
COUNT = 150


def floats(chance, count):
    values = [chance.choice([0.0, -0.0, 1e-30, 3.4e38, chance.gauss(0, 1)]) for _ in range(count)]
    return np.array(values, dtype=np.float32)


def ints(chance, count):
    limit = chance.choice([2, 300, 2**31, 2**62])
    return np.array([chance.randint(-limit, limit) for _ in range(count)], dtype=np.int64)


def tensor(chance, length):
    if chance.random() < 0.3:
        width = chance.randint(1, 4)
        values = floats(chance, length * width)
        return types.TensorData(data=values.reshape(length, width), dtype="float32", shape=[length, width])
    if chance.random() < 0.3:
        cells = [sorted(chance.sample(range(50), chance.randint(0, 3))) for _ in range(length)]
        listed = sum(len(row) for row in cells)
        return types.TensorData(
            data=ints(chance, listed),
            dtype="int64",
            shape=[length, 50],
            sparse_crow_indices=[0, *np.cumsum([len(row) for row in cells], dtype=int).tolist()],
            sparse_col_indices=[column for row in cells for column in row],
        )
    values = floats(chance, length) if chance.random() < 0.5 else ints(chance, length)
    return types.TensorData.from_numpy(values)


def chunk(chance):
    kind = chance.random()
    if kind < 0.7:
        limit = chance.choice([2, 2**31 - 1])
        tokens = [chance.randint(0, limit) for _ in range(chance.choice([0, 1, 5, 200]))]
        return types.EncodedTextChunk(tokens=tokens)
    if kind < 0.85:
        return types.ImageChunk(
            data=chance.randbytes(chance.choice([0, 3, 300])),
            format=chance.choice(["png", "jpeg"]),
            expected_tokens=chance.choice([None, 1, 4000]),
        )
    return types.DmelChunk(dmel=bytes([chance.choice([0, 3]), 2, chance.randint(1, 9), 80]) + chance.randbytes(9))


def spans(chance):
    kinds = [types.PromptProvenanceSpan, types.SampledProvenanceSpan]
    return [
        chance.choice(kinds)(sequence_id=f"s:{i}", offset=chance.choice([0, 7, 2**40]), length=chance.choice([0, 3]))
        for i in range(chance.randint(1, 3))
    ]


def datum(chance):
    names = chance.sample(["target_tokens", "weights", "advantages", "logprobs", "ü", "x" * 200], chance.randint(0, 4))
    length = chance.choice([1, 3, 40])
    known = {"model_input_spans": spans(chance), "loss_fn_input_spans": spans(chance)} if chance.random() < 0.2 else {}
    return types.Datum(
        model_input=types.ModelInput(chunks=[chunk(chance) for _ in range(chance.randint(0, 3))]),
        loss_fn_inputs={name: tensor(chance, length) for name in names},
        **known,
    )


def as_json(datum):
    """The form that the Rust types have in JSON."""
    inputs = {}
    for name, value in datum.loss_fn_inputs.items():
        inputs[name] = {"data": value.data, "dtype": value.dtype, "shape": value.shape}
        if value.sparse_crow_indices is not None:
            inputs[name]["sparse_crow_indices"] = value.sparse_crow_indices
            inputs[name]["sparse_col_indices"] = value.sparse_col_indices
    made = {"model_input": datum.model_input.model_dump(mode="json", exclude_none=True), "loss_fn_inputs": inputs}
    for name in ("model_input_spans", "loss_fn_input_spans"):
        if (found := getattr(datum, name)) is not None:
            made[name] = [
                {
                    "sampled": isinstance(span, types.SampledProvenanceSpan),
                    "sequence_id": span.sequence_id,
                    "offset": span.offset,
                    "length": span.length,
                }
                for span in found
            ]
    return made


def request(chance):
    config = {
        name: chance.choice([0.0, 0.2, -1e300, "", "text", "ü"])
        for name in chance.sample(["a", "clip_low_threshold", "ü"], chance.randint(0, 3))
    }
    return {
        "model_id": chance.choice(["s:train:0", "", "ü" * 100]),
        "seq_id": chance.choice([1, 127, 128, 2**31 - 1]),
        "data": [datum(chance) for _ in range(chance.choice([1, 1, 4]))],
        "loss_fn": chance.choice(["cross_entropy", "ppo"]),
        "loss_fn_config": config,
        "forward_only": chance.random() < 0.3,
    }


def official(made) -> pb.ForwardBackwardRequest:
    input = types.ForwardBackwardInput(
        data=made["data"], loss_fn=made["loss_fn"], loss_fn_config=made["loss_fn_config"]
    )
    message = forward_backward_request_to_proto(
        types.ForwardBackwardRequest(
            forward_backward_input=input, model_id=made["model_id"], seq_id=made["seq_id"]
        )
    )
    message.forward_only = made["forward_only"]
    return message


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_request(rust, seed):
    made = request(random.Random(seed))
    expected = official(made)
    plain = {**made, "data": [as_json(datum) for datum in made["data"]]}
    sent = rust("encode_request", **plain)
    found = pb.ForwardBackwardRequest.FromString(sent)
    assert found == expected
    # And no byte more: both write maps in an order of their own, so only the length can be equal.
    zeros = sum(9 for value in expected.loss_fn_config.values() if value == 0.0)
    assert abs(len(sent) - len(expected.SerializeToString())) <= zeros
    # The service reads what the official client wrote.
    assert rust("decode_request", body=expected.SerializeToString()) == json.loads(json.dumps(plain))


def output(chance) -> pb.ForwardBackwardOutput:
    made = pb.ForwardBackwardOutput(loss_fn_output_type=chance.choice(["T", "a:b:T", ""]))
    for name in chance.sample(["loss:sum", "x:mean", "ü:max"], chance.randint(0, 3)):
        made.metrics[name] = chance.choice([0.0, 1.5, -1e300])
    dtypes = [
        (pb.DTYPE_FLOAT32, lambda count: floats(chance, count).tobytes()),
        (pb.DTYPE_INT64, lambda count: ints(chance, count).tobytes()),
        (pb.DTYPE_INT32, lambda count: ints(chance, count).astype(np.int32).tobytes()),
        (pb.DTYPE_BFLOAT16, lambda count: (floats(chance, count).view(np.uint32) >> 16).astype(np.uint16).tobytes()),
    ]
    # The fields are those of one loss in all records.
    names = chance.sample(["logprobs", "elementwise_loss"], chance.randint(1, 2))
    for _ in range(chance.randint(0, 2)):
        record = made.loss_fn_outputs.add(num_datums=chance.randint(1, 4))
        for name in names:
            dtype, values = chance.choice(dtypes)
            trailing = chance.choice([[], [2], [3, 2]])
            size = {pb.DTYPE_INT64: 8, pb.DTYPE_BFLOAT16: 2}.get(dtype, 4)
            lengths = [chance.randint(0, 5) * int(np.prod(trailing or [1])) for _ in range(record.num_datums)]
            field = record.fields[name]
            field.data = values(sum(lengths))
            field.offsets = np.array([0, *np.cumsum(lengths) * size], dtype=np.int64).tobytes()
            field.dtype = dtype
            field.trailing_shape.extend(trailing)
    return made


def same_tensor(found, expected):
    # Numbers that JSON writes in decimal come back exactly.
    assert np.array_equal(np.asarray(found["data"], dtype=expected._numpy.dtype), expected._numpy.flatten())
    assert found["dtype"] == expected.dtype
    assert found.get("shape", [len(found["data"])]) == (expected.shape or [expected._numpy.size])


def same_output(found, expected):
    assert found["metrics"] == expected.metrics
    assert found["loss_fn_output_type"] == expected.loss_fn_output_type
    assert len(found["loss_fn_outputs"]) == len(expected.loss_fn_outputs)
    for mine, theirs in zip(found["loss_fn_outputs"], expected.loss_fn_outputs):
        assert mine.keys() == theirs.keys()
        for name in mine:
            same_tensor(mine[name], theirs[name])


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_result_of_training(rust, seed):
    body = output(random.Random(seed)).SerializeToString()
    expected = deserialize_forward_backward_output(body)
    found = rust("decode_forward_backward", body=body)
    same_output(found, expected)
    # The official client reads what the service writes; its results are float32 throughout.
    if all(value["dtype"] == "float32" for one in found["loss_fn_outputs"] for value in one.values()):
        same_output(found, deserialize_forward_backward_output(rust("encode_forward_backward", output=found)))


def response(chance) -> pb.SampleResponse:
    made = pb.SampleResponse(prompt_cache_hit_tokens=chance.choice([0, 5]))

    def topk(into, rows):
        into.k, into.length = chance.randint(1, 3), rows
        into.token_ids = ints(chance, rows * into.k).astype(np.uint8).astype(np.int32).tobytes()
        into.logprobs = floats(chance, rows * into.k).tobytes()

    for _ in range(chance.randint(1, 3)):
        length = chance.randint(1, 9)
        sequence = made.sequences.add(stop_reason=chance.choice([pb.STOP_REASON_STOP, pb.STOP_REASON_LENGTH]))
        sequence.tokens = np.array([chance.randint(0, 2**31 - 1) for _ in range(length)], dtype=np.int32).tobytes()
        sequence.logprobs = floats(chance, length).tobytes()
        if chance.random() < 0.4:
            topk(sequence.topk_sampled_logprobs, length)
    if chance.random() < 0.5:
        made.prompt_logprobs = np.concatenate([[np.nan], floats(chance, 4)]).astype(np.float32).tobytes()
    if chance.random() < 0.5:
        topk(made.topk_prompt_logprobs, 5)
    if chance.random() < 0.5:
        tensor = made.target_prompt_logprobs
        tensor.dtype = pb.DTYPE_FLOAT32
        tensor.shape.extend([4, 2])
        tensor.dense = floats(chance, 8).tobytes()
    if chance.random() < 0.3:
        for field, dtype, values in [
            (made.prompt_alt_tokens.tokens, pb.DTYPE_INT64, np.abs(ints(chance, 8))),
            (made.prompt_alt_tokens.logprobs, pb.DTYPE_FLOAT32, floats(chance, 8)),
        ]:
            field.dtype = dtype
            field.shape.extend([4, 2])
            field.dense = values.tobytes()
    return made


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_sample(rust, seed):
    made = response(random.Random(seed))
    body = made.SerializeToString()
    expected = deserialize_sample_response(body)
    found = rust("decode_sample", body=body)
    assert len(found["sequences"]) == len(expected.sequences)
    for mine, theirs in zip(found["sequences"], expected.sequences):
        assert mine["tokens"] == list(theirs.tokens)
        assert mine["stop_reason"] == theirs.stop_reason
        assert np.array_equal(np.array(mine["logprobs"], dtype=np.float32), np.array(theirs.logprobs, dtype=np.float32))
    if expected.prompt_logprobs is not None:
        mine = [np.nan if value is None else value for value in found["prompt_logprobs"]]
        theirs = [np.nan if value is None else value for value in expected.prompt_logprobs]
        assert np.array_equal(np.float32(mine), np.float32(theirs), equal_nan=True)
    # There and back it is the same message, the name of a sample's kind included.
    again = pb.SampleResponse.FromString(rust("repeat_sample", body=body))
    assert again == made


def test_telemetry(rust):
    named = [
        ("an event", {"n": 1, "deep": {"list": [True, None, 1.5, "ü"]}}, "DEBUG"),
        ("another", {}, "CRITICAL"),
    ]
    body = json.loads(rust("telemetry", events=named, error="it broke"))
    sent = types.TelemetrySendRequest.model_validate(body, strict=False)
    start, first, second, failed, end = sent.events
    assert isinstance(start, SessionStartEvent)
    assert isinstance(first, GenericEvent) and isinstance(second, GenericEvent)
    assert isinstance(failed, UnhandledExceptionEvent)
    assert isinstance(end, SessionEndEvent)
    assert [(event.event_name, event.event_data, event.severity) for event in (first, second)] == named
    assert (failed.error_message, failed.severity, failed.traceback) == ("it broke", "ERROR", None)
    assert re.fullmatch(r"0:00:0\d(\.\d{6})?", end.duration)
    assert [event.event_session_index for event in sent.events] == [0, 1, 2, 3, 4]
    assert uuid.UUID(sent.process_uuid).version == 4
    assert {uuid.UUID(event.event_id).version for event in sent.events} == {4}
    assert (sent.session_id, sent.platform) == ("s", platform.system())
    # Written again as the official client writes it, it is the same: no member more or less.
    again = model_dump(sent, exclude_unset=False, exclude_none=True, mode="json")
    times = [event.pop("timestamp") for event in body["events"]]
    for event, time in zip(again["events"], times):
        assert datetime.fromisoformat(event.pop("timestamp")) == datetime.fromisoformat(time)
    assert again == body
