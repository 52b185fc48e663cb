"""Run by SDKs of earlier days: trains, saves, loads and samples; prints what it saw as JSON."""

import json
import sys

import tinker
from tinker import types

MODEL = sys.argv[1]
TEXT = list(b"an older client says hello")


def datum():
    inputs = {"target_tokens": TEXT[1:], "weights": [1.0] * (len(TEXT) - 1)}
    return types.Datum(model_input=types.ModelInput.from_ints(TEXT[:-1]), loss_fn_inputs=inputs)


def step(client):
    passed = client.forward_backward([datum()] * 3, "cross_entropy")
    stepped = client.optim_step(types.AdamParams(learning_rate=1e-2))
    stepped.result()
    return passed.result().metrics["loss:sum"]


service = tinker.ServiceClient(user_metadata={"from": tinker.__version__})
models = [model.model_name for model in service.get_server_capabilities().supported_models]
run = service.create_lora_training_client(MODEL, rank=8, seed=7)
info = run.get_info()
before = [step(run) for _ in range(30)]
forward = run.forward([datum()], "cross_entropy").result()
path = run.save_state("older").result().path
after = [step(run) for _ in range(3)]

warm = service.create_training_client_from_state_with_optimizer(path)
cold = service.create_training_client_from_state(path)

prompt = types.ModelInput.from_ints(TEXT[:9])
greedy = types.SamplingParams(max_tokens=10, temperature=0.0)
sampled = {}
saved = run.save_weights_for_sampler("older").result().path
for name, sampler in {
    "base": service.create_sampling_client(base_model=MODEL),
    "saved": service.create_sampling_client(model_path=saved),
    "direct": run.save_weights_and_get_sampling_client(name="older-direct"),
}.items():
    result = sampler.sample(prompt=prompt, num_samples=2, sampling_params=greedy).result()
    sampled[name] = [one.tokens for one in result.sequences]
logprobs = sampler.compute_logprobs(types.ModelInput.from_ints(TEXT)).result()

rest = service.create_rest_client()
print(
    json.dumps(
        {
            "version": tinker.__version__,
            "models": models,
            "rank": info.lora_rank,
            "before": before,
            "forward": forward.metrics["loss:sum"],
            "after": after,
            "warm": [step(warm) for _ in range(3)],
            "cold": [step(cold) for _ in range(3)],
            "path": path,
            "saved": saved,
            "sampled": sampled,
            "logprobs": logprobs,
            "tokenizer": list(run.get_tokenizer().encode("hi", add_special_tokens=False)),
            "runs": [one.training_run_id for one in rest.list_training_runs().result().training_runs],
            "checkpoints": [
                one.tinker_path for one in rest.list_checkpoints(run.model_id).result().checkpoints
            ],
            "run": run.model_id,
        }
    )
)
