"""The official Python SDK's side of `cargo xtask bench client`, in a process of its own. Prints one line of JSON."""

import asyncio
import json
import resource
import sys
import time

import tinker
from tinker import types
from tinker.proto.request_conv import forward_backward_request_to_proto


def samples(model: str, tokens: int, at_once: int, rounds: int):
    """So many samples of a small prompt at once, several times."""
    prompt = types.ModelInput.from_ints(list(range(65, 65 + tokens)))
    params = types.SamplingParams(max_tokens=1, seed=1)
    client = tinker.ServiceClient().create_sampling_client(base_model=model)

    async def draw(count: int):
        await asyncio.gather(*[client.sample_async(prompt, 1, params) for _ in range(count)])

    asyncio.run(draw(at_once // 10))
    cpu, begin = time.process_time(), time.monotonic()
    for _ in range(rounds):
        asyncio.run(draw(at_once))
    return {
        "samples": at_once * rounds,
        "cpu_seconds": time.process_time() - cpu,
        "seconds": time.monotonic() - begin,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def encode(sequences: int, length: int, rounds: int):
    """From lists to the bodies of the requests, cut as the SDK cuts them."""
    tokens, targets, weights = list(range(length)), list(range(length)), [1.0] * length
    datum_bytes, chunk_bytes, chunk_data = length * 16, 5_000_000, 1024
    in_a_chunk = max(1, min(chunk_data, chunk_bytes // datum_bytes))
    best = float("inf")
    for _ in range(rounds):
        begin = time.monotonic()
        data = [
            types.Datum(
                model_input=types.ModelInput.from_ints(tokens),
                loss_fn_inputs={"target_tokens": targets, "weights": weights},
            )
            for _ in range(sequences)
        ]
        for start in range(0, sequences, in_a_chunk):
            input = types.ForwardBackwardInput(data=data[start : start + in_a_chunk], loss_fn="cross_entropy")
            request = types.ForwardBackwardRequest(forward_backward_input=input, model_id="m", seq_id=1)
            forward_backward_request_to_proto(request).SerializeToString()
        best = min(best, time.monotonic() - begin)
    return {"payload_bytes": sequences * datum_bytes, "seconds": best, "version": tinker.__version__}


what, numbers = sys.argv[1], sys.argv[2:]
if what == "samples":
    print(json.dumps(samples(numbers[0], *map(int, numbers[1:]))))
else:
    print(json.dumps(encode(*map(int, numbers))))
