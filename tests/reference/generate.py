"""Computes the fixtures: generate.py MODELS OUT.

MODELS holds a directory for each base model as `cargo run --example export_base` writes it. For each, OUT gets
<model>.json with inputs, losses and log-probabilities, and <model>.safetensors with the adapter, the gradients of each
case, and the adapter after five steps of each optimizer.
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

import cases
import losses
from llama import Base, logprobs, new_adapter


def evaluate(score, adapter, case):
    """The loss, the log-probabilities of each datum, and the gradients by the adapter."""

    def total(adapter):
        found, sum_ = [], 0.0
        for datum in case["data"]:
            inputs = dict(datum["loss_fn_inputs"])
            targets = np.asarray(inputs.pop("target_tokens"))
            p = score(adapter, np.asarray(datum["tokens"]), targets)
            found.append(p)
            sum_ += losses.loss(case["loss_fn"], case["loss_fn_config"], p, inputs)
        return sum_, found

    parameters = {name: np.asarray(value, np.float64) for name, value in adapter.items()}
    (loss, found), gradients = jax.value_and_grad(total, has_aux=True)(parameters)
    return float(loss), [np.asarray(p).ravel().tolist() for p in found], gradients


def generate(model, directory, out):
    base = Base(directory / model)
    rank = cases.RANKS[model]
    scale = cases.ALPHA / rank
    adapter = new_adapter(base, rank)
    score = jax.jit(lambda adapter, tokens, targets: logprobs(base, adapter, scale, tokens, targets))
    tensors = {f"adapter/{name}": value for name, value in adapter.items()}

    def keep(prefix, values):
        tensors.update({f"{prefix}/{name}": np.asarray(v, np.float32) for name, v in values.items()})

    recorded = []
    for case in cases.CASES[model]:
        loss, found, gradients = evaluate(score, adapter, case)
        keep(f"gradients/{case['name']}", gradients)
        recorded.append({**case, "loss": loss, "logprobs": found})
    optimizers = {}
    for name, settings in cases.OPTIMIZERS[model].items():
        optimizer = losses.AdamW(adapter, **settings)
        norms = []
        for _ in range(cases.STEPS):
            _, _, gradients = evaluate(score, optimizer.parameters, cases.CASES[model][0])
            norms.append(optimizer.step(gradients))
        keep(f"stepped/{name}", optimizer.parameters)
        optimizers[name] = {"settings": settings, "gradient_norms": norms}
    document = {
        "model": model,
        "rank": rank,
        "alpha": cases.ALPHA,
        "cases": recorded,
        "optimizers": optimizers,
    }
    (out / f"{model}.json").write_text(json.dumps(document, separators=(",", ":")) + "\n")
    save_file(tensors, out / f"{model}.safetensors")


def main():
    directory, out = (Path(argument) for argument in sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    for model in cases.CASES:
        generate(model, directory, out)


if __name__ == "__main__":
    main()
