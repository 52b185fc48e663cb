"""The Rust client and service write and read protobuf, and requests for samples, as the official package does: a few
hundred messages, made by chance, in both directions, field for field. And the Rust client's telemetry is what the
official package's would be."""

import json
import math
import platform
import random
import re
import uuid
from datetime import datetime

import numpy as np
import pytest
from tinker import types
from tinker._compat import model_dump
from tinker.lib.chunked_fwdbwd_helpers import combine_fwd_bwd_output_results
from tinker.lib.internal_client_holder import InternalClientHolder
from tinker.lib.public_interfaces.sampling_client import _tensor_data_to_model
from tinker.lib.public_interfaces.training_client import _estimate_datum_bytes_count_proto
from tinker.proto import tinker_public_pb2 as pb
from tinker.proto.request_conv import forward_backward_request_to_proto
from tinker.proto.response_conv import _tensor_data_from_proto, deserialize_proto_response
from tinker.types.generic_event import GenericEvent
from tinker.types.sample_request import SampleRequest
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


def tensor_as_json(value):
    """The form that the Rust types have in JSON."""
    made = {"data": value.data, "dtype": value.dtype, "shape": value.shape}
    if value.sparse_crow_indices is not None:
        made["sparse_crow_indices"] = value.sparse_crow_indices
        made["sparse_col_indices"] = value.sparse_col_indices
    return made


def as_json(datum):
    """The form that the Rust types have in JSON."""
    inputs = {name: tensor_as_json(value) for name, value in datum.loss_fn_inputs.items()}
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


def any_floats(chance, count):
    """Those that are no numbers among them."""
    values = floats(chance, count)
    values[[chance.random() < 0.1 for _ in range(count)]] = chance.choice([np.nan, np.inf, -np.inf])
    return values


#: What the elements of results may be, and some bytes of each.
ELEMENTS = {
    pb.DTYPE_FLOAT32: lambda chance, count: any_floats(chance, count).tobytes(),
    pb.DTYPE_INT64: lambda chance, count: ints(chance, count).tobytes(),
    pb.DTYPE_INT32: lambda chance, count: ints(chance, count).astype(np.int32).tobytes(),
    pb.DTYPE_BFLOAT16: lambda chance, count: chance.randbytes(2 * count),
}
REAL, WHOLE = [pb.DTYPE_FLOAT32, pb.DTYPE_BFLOAT16], [pb.DTYPE_INT64, pb.DTYPE_INT32]
SIZES = {pb.DTYPE_FLOAT32: 4, pb.DTYPE_INT64: 8, pb.DTYPE_INT32: 4, pb.DTYPE_BFLOAT16: 2}


def numbers(value):
    """As JSON has it: what is no number is null there."""
    if isinstance(value, dict):
        return {name: numbers(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [numbers(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def exactly(value) -> str:
    """Tells -0.0 from 0.0, and NaN from infinity."""
    return json.dumps(value, sort_keys=True)


def output(chance) -> pb.ForwardBackwardOutput:
    made = pb.ForwardBackwardOutput(loss_fn_output_type=chance.choice(["T", "a:b:T", ""]))
    for name in chance.sample(["loss:sum", "x:mean", "ü:max"], chance.randint(0, 3)):
        made.metrics[name] = chance.choice([0.0, 1.5, -1e300])
    # The fields are those of one loss in all records. Some services leave them all out; old ones do not count.
    names = chance.sample(["logprobs", "elementwise_loss"], chance.choice([0, 1, 1, 2]))
    counted = not names or chance.random() < 0.8
    for _ in range(chance.randint(0, 3)):
        count = chance.randint(0, 4)
        record = made.loss_fn_outputs.add(num_datums=count if counted else 0)
        for name in names:
            dtype = chance.choice([*ELEMENTS])
            trailing = chance.choice([[], [], [2], [3, 2], [0]])
            lengths = [chance.randint(0, 5) * math.prod(trailing) for _ in range(count)]
            field = record.fields[name]
            field.dtype = dtype
            field.data = ELEMENTS[dtype](chance, sum(lengths))
            field.offsets = np.array([0, *np.cumsum(lengths) * SIZES[dtype]], dtype=np.int64).tobytes()
            field.trailing_shape.extend(trailing)
    return made


def output_as_json(output) -> dict:
    return {
        "loss_fn_output_type": output.loss_fn_output_type,
        "loss_fn_outputs": [
            {name: tensor_as_json(value) for name, value in one.items()} for one in output.loss_fn_outputs
        ],
        "metrics": output.metrics,
    }


def as_floats(tensor) -> dict:
    return {**tensor, "dtype": "float32", "data": np.array(tensor["data"], dtype=np.float32).tolist()}


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_result_of_training(rust, seed):
    body = output(random.Random(seed)).SerializeToString()
    expected = output_as_json(deserialize_proto_response(body, types.ForwardBackwardOutput))
    found = rust("decode_forward_backward", body=body)
    for one in found["loss_fn_outputs"]:
        for tensor in one.values():
            # Where there is one dimension, it goes without saying.
            tensor.setdefault("shape", [len(tensor["data"])])
    assert found == numbers(expected)
    # The official client reads what the service writes; its results are float32 throughout.
    again = rust("repeat_forward_backward", body=body)
    for one in expected["loss_fn_outputs"]:
        one.update({name: as_floats(value) for name, value in one.items()})
    # It sends no records without examples; the kind of nothing has a name of its own.
    if not expected["loss_fn_outputs"]:
        expected["loss_fn_output_type"] = expected["loss_fn_output_type"] or "ArrayRecord"
    read = deserialize_proto_response(again, types.ForwardBackwardOutput)
    assert exactly(output_as_json(read)) == exactly(expected)


def topk(chance, into, rows):
    """Rows with nothing in them, full ones, and those in between: with cells empty at the end, or anywhere."""
    into.k, into.length = chance.choice([0, 1, 3, 3]), rows
    cells = rows * into.k
    tokens = np.array([chance.randint(0, 300) for _ in range(cells)], dtype=np.int32)
    logprobs = any_floats(chance, cells)
    empty = [chance.random() < 0.3 for _ in range(cells)]
    tokens[empty], logprobs[empty] = 0, -99999.0
    into.token_ids, into.logprobs = tokens.tobytes(), logprobs.tobytes()


def matrix(chance, into, dtype, rows):
    """Dense, or only some of its cells."""
    into.dtype = dtype
    columns = chance.randint(1, 4)
    into.shape.extend([rows, columns])
    if chance.random() < 0.5:
        into.dense = ELEMENTS[dtype](chance, rows * columns)
        return
    cells = [sorted(chance.sample(range(columns), chance.randint(0, columns))) for _ in range(rows)]
    bounds, listed = [0, *np.cumsum([len(row) for row in cells])], sum(cells, [])
    into.sparse_csr.crow_indices = np.array(bounds, dtype=np.int64).tobytes()
    into.sparse_csr.col_indices = np.array(listed, dtype=np.int64).tobytes()
    into.sparse_csr.values = ELEMENTS[dtype](chance, len(listed))


def sample_request(chance) -> SampleRequest:
    stop = chance.choice([None, "ü", ["a", "b"], [1, 2**31], []])
    pointer = types.ImageAssetPointerChunk(format="png", location="ü", expected_tokens=chance.choice([None, 9]))
    targets = None
    if chance.random() < 0.7:
        message = pb.Tensor()
        matrix(chance, message, pb.DTYPE_INT64, chance.randint(0, 5))
        targets = _tensor_data_to_model(_tensor_data_from_proto(message))
    return SampleRequest(
        num_samples=chance.choice([1, 16]),
        prompt=types.ModelInput(chunks=[pointer, *(chunk(chance) for _ in range(chance.randint(0, 3)))]),
        sampling_params=types.SamplingParams(
            max_tokens=chance.choice([None, 1, 2**31]),
            seed=chance.choice([None, 0, -3, 2**64]),
            stop=stop,
            temperature=chance.choice([0.0, 0.1, 1.0]),
            top_k=chance.choice([-1, 5]),
            top_p=chance.choice([1.0, 0.1]),
        ),
        **chance.choice([{"sampling_session_id": "s", "seq_id": 10**18}, {"base_model": "m"}, {"model_path": "p"}]),
        prompt_logprobs=chance.choice([None, False, True]),
        topk_prompt_logprobs=chance.choice([0, 20]),
        topk_sample_logprobs=chance.choice([0, 20]),
        target_prompt_logprobs=targets,
        prompt_alt_tokens_k=chance.choice([0, 4]),
        prompt_logprobs_last_n=chance.choice([None, 1]),
        record_stability_info=chance.choice([None, False, True]),
    )


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_request_for_samples(rust, seed):
    expected = model_dump(sample_request(random.Random(seed)), exclude_unset=False, exclude_none=True, mode="json")
    assert json.loads(rust("encode_sample_request", request=json.dumps(expected))) == expected


def response(chance) -> pb.SampleResponse:
    made = pb.SampleResponse(prompt_cache_hit_tokens=chance.choice([0, 5, 2**31 - 1]))
    for _ in range(chance.randint(0, 3)):
        length = chance.choice([0, 1, 9])
        sequence = made.sequences.add(stop_reason=chance.choice([pb.STOP_REASON_STOP, pb.STOP_REASON_LENGTH]))
        sequence.tokens = np.array([chance.randint(0, 2**31 - 1) for _ in range(length)], dtype=np.int32).tobytes()
        if chance.random() < 0.8:
            sequence.logprobs = any_floats(chance, length).tobytes()
        if chance.random() < 0.5:
            topk(chance, sequence.topk_sampled_logprobs, length)
    prompt = chance.randint(1, 6)
    if chance.random() < 0.5:
        made.prompt_logprobs = np.concatenate([[np.nan], any_floats(chance, prompt - 1)]).astype(np.float32).tobytes()
    if chance.random() < 0.5:
        topk(chance, made.topk_prompt_logprobs, prompt)
    if chance.random() < 0.5:
        matrix(chance, made.target_prompt_logprobs, chance.choice(REAL), prompt - 1)
    if chance.random() < 0.5:
        matrix(chance, made.prompt_alt_tokens.tokens, chance.choice(WHOLE), prompt - 1)
        matrix(chance, made.prompt_alt_tokens.logprobs, chance.choice(REAL), prompt - 1)
    return made


def matrix_as_json(message, read) -> dict:
    """The official package takes the bits of a bfloat16 for a whole number, outside of the results of training; it is
    those bits that must be the same."""
    found = tensor_as_json(read)
    if message.dtype == pb.DTYPE_BFLOAT16:
        found["data"] = (read._numpy.astype(np.uint32) << 16).view(np.float32).flatten().tolist()
    return found


def sample_as_json(body: bytes) -> dict:
    """What the official package reads, in the form that the Rust types have in JSON."""
    message, read = pb.SampleResponse.FromString(body), deserialize_proto_response(body, types.SampleResponse)
    drawn = read.prompt_alt_tokens and {
        "tokens": matrix_as_json(message.prompt_alt_tokens.tokens, read.prompt_alt_tokens.tokens),
        "logprobs": matrix_as_json(message.prompt_alt_tokens.logprobs, read.prompt_alt_tokens.logprobs),
    }
    made = {
        "type": "sample",
        "sequences": [
            {
                "stop_reason": one.stop_reason,
                "tokens": one.tokens,
                "logprobs": one.logprobs or [],
                **({} if one.topk_logprobs is None else {"topk_logprobs": one.topk_logprobs}),
            }
            for one in read.sequences
        ],
        "prompt_logprobs": read.prompt_logprobs,
        "topk_prompt_logprobs": read.topk_prompt_logprobs,
        "target_prompt_logprobs": read.target_prompt_logprobs
        and matrix_as_json(message.target_prompt_logprobs, read.target_prompt_logprobs),
        "prompt_alt_tokens": drawn,
        "prompt_cache_hit_tokens": read.prompt_cache_hit_tokens or None,
    }
    return {name: value for name, value in made.items() if value is not None}


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_sample(rust, seed):
    body = response(random.Random(seed)).SerializeToString()
    expected = sample_as_json(body)
    assert rust("decode_sample", body=body) == numbers(expected)
    # The official client reads in what the service writes what it would have read in the original.
    assert exactly(sample_as_json(rust("repeat_sample", body=body))) == exactly(expected)


def test_what_chance_made():
    """Nothing above is equal only because it never came up."""
    kinds = set()
    for seed in range(COUNT):
        trained, sampled = output(random.Random(seed)), response(random.Random(seed))
        fields = [(record, field) for record in trained.loss_fn_outputs for field in record.fields.values()]
        kinds |= {("field", field.dtype, len(field.trailing_shape)) for _, field in fields}
        kinds |= {"not counted" for record, field in fields if len(field.offsets) > 8 and not record.num_datums}
        kinds |= {"no fields" for record in trained.loss_fn_outputs if record.num_datums and not record.fields}
        for one in sampled.sequences:
            kinds.add(("sequence", one.HasField("logprobs"), one.HasField("topk_sampled_logprobs")))
        target, drawn = sampled.target_prompt_logprobs, sampled.prompt_alt_tokens
        for name, one in [("target", target), ("tokens", drawn.tokens), ("drawn", drawn.logprobs)]:
            kinds.add((name, one.dtype, one.WhichOneof("encoding")))
        read = deserialize_proto_response(sampled.SerializeToString(), types.SampleResponse)
        for row in read.topk_prompt_logprobs or []:
            kinds.add("an empty row" if row is None else "a hole" if (0, -99999.0) in row else "a row")
    assert kinds >= {("field", dtype, trailing) for dtype in ELEMENTS for trailing in range(3)}
    assert kinds >= {("sequence", logprobs, topk) for logprobs in (False, True) for topk in (False, True)}
    for name, dtypes in [("target", REAL), ("tokens", WHOLE), ("drawn", REAL)]:
        assert kinds >= {(name, dtype, encoding) for dtype in dtypes for encoding in ("dense", "sparse_csr")}
    assert kinds >= {"not counted", "no fields", "an empty row", "a hole", "a row"}


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


def test_data_count_for_as_many_bytes_as_the_sdk_counts(rust):
    """By these estimates batches are cut into requests, and samples wait for room."""
    chance = random.Random(11)
    data = [datum(chance) for _ in range(COUNT)]
    data.append(
        types.Datum(
            model_input=types.ModelInput(
                chunks=[
                    types.ImageAssetPointerChunk(
                        format="png", location="tinker://asset/ü", expected_tokens=7
                    ),
                ]
            ),
            loss_fn_inputs={},
        )
    )
    found = rust("estimate_bytes", data=[as_json(one) for one in data])
    assert found["datums"] == [_estimate_datum_bytes_count_proto(one) for one in data]
    holder = InternalClientHolder.__new__(InternalClientHolder)
    assert found["prompts"] == [holder.estimate_bytes_count_in_model_input(one.model_input) for one in data]


def test_metrics_of_chunks_are_combined_as_by_the_sdk(rust):
    chance = random.Random(12)
    kinds = ["sum", "min", "max", "mean", "slack", "hash2", "unique", "hash_unordered", "last"]

    def value():
        return chance.choice(
            [
                0.0,
                -0.0,
                chance.gauss(0, 1),
                chance.gauss(0, 1e12),
                float(chance.randint(-(2**53), 2**53)),
                float(chance.randint(-(2**70), 2**70)),
                1e300,
                -1.0,
            ]
        )

    for _ in range(COUNT):
        names = [f"{chance.choice('abc')}/x:{kind}" for kind in chance.sample(kinds, chance.randint(1, len(kinds)))]
        chunks = []
        for _ in range(chance.randint(1, 5)):
            # What only some of them have is left out.
            kept = [name for name in names if chance.random() < 0.95]
            chunks.append(({name: value() for name in kept}, chance.randint(1, 9)))
        outputs = [
            types.ForwardBackwardOutput(loss_fn_output_type="t", loss_fn_outputs=[{}] * count, metrics=metrics)
            for metrics, count in chunks
        ]
        expected = combine_fwd_bwd_output_results(outputs).metrics
        found = rust("combine_metrics", chunks=chunks)["metrics"]
        assert found.keys() == expected.keys()
        for name, value_of_sdk in expected.items():
            # Sums are taken in another order.
            scale = sum(abs(metrics[name]) for metrics, _ in chunks if name in metrics)
            assert found[name] == pytest.approx(value_of_sdk, rel=1e-12, abs=1e-12 * scale), name
