"""A Llama decoder with LoRA in JAX, as Hugging Face's transformers and peft define them.

Nothing here is taken from the Rust side: it is what the Rust side is checked against. Everything is float64.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

jax.config.update("jax_enable_x64", True)

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
PREFIX = "base_model.model."


class Base:
    """A base model as a directory of transformers holds it."""

    def __init__(self, directory):
        directory = Path(directory)
        self.config = json.loads((directory / "config.json").read_text())
        weights = load_file(directory / "model.safetensors")
        self.weights = {name: jnp.asarray(value, jnp.float64) for name, value in weights.items()}

    def modules(self):
        """The names of all projections that peft adapts."""
        layers = range(self.config["num_hidden_layers"])
        return [f"model.layers.{i}.{part}" for i in layers for part in ATTENTION + MLP] + ["lm_head"]


def new_adapter(base, rank):
    """Values that are the same everywhere: hashes of their numbers, spread about zero.

    Large enough for every factor to matter, small enough for the model to stay near to what it was.
    """
    adapter, number = {}, 0
    for module in base.modules():
        out_width, in_width = base.weights[f"{module}.weight"].shape
        b_bound = 0.004 if module == "lm_head" else 0.02
        for factor, shape, bound in (("A", (rank, in_width), in_width**-0.5), ("B", (out_width, rank), b_bound)):
            count = shape[0] * shape[1]
            hashes = (np.arange(number, number + count, dtype=np.uint64) * 2654435761 + 12345) % 2**32
            number += count
            values = (2.0 * hashes.astype(np.float64) / 2**32 - 1.0) * bound
            adapter[f"{PREFIX}{module}.lora_{factor}.weight"] = values.reshape(shape).astype(np.float32)
    return adapter


def rms_norm(x, weight, eps):
    return weight * x / jnp.sqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)


def rotary(x, theta):
    """Rotates pairs half a head apart. x: (heads, length, width)."""
    _, length, width = x.shape
    frequencies = theta ** (-jnp.arange(0, width, 2, dtype=jnp.float64) / width)
    angles = jnp.outer(jnp.arange(length, dtype=jnp.float64), frequencies)
    cos, sin = (jnp.concatenate([f(angles)] * 2, axis=-1) for f in (jnp.cos, jnp.sin))
    turned = jnp.concatenate([-x[..., width // 2 :], x[..., : width // 2]], axis=-1)
    return x * cos + turned * sin


def logits(base, adapter, scale, tokens):
    """(length, vocabulary)."""
    config, weights = base.config, base.weights
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    width, eps = config["hidden_size"] // heads, config["rms_norm_eps"]
    length = len(tokens)
    causal = jnp.tril(jnp.ones((length, length), bool))

    def linear(x, module):
        low = x @ adapter[f"{PREFIX}{module}.lora_A.weight"].T
        return x @ weights[f"{module}.weight"].T + scale * (low @ adapter[f"{PREFIX}{module}.lora_B.weight"].T)

    def split(x, count):
        return x.reshape(length, count, width).transpose(1, 0, 2)

    x = weights["model.embed_tokens.weight"][jnp.asarray(tokens)]
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        h = rms_norm(x, weights[f"{layer}.input_layernorm.weight"], eps)
        q = rotary(split(linear(h, f"{layer}.self_attn.q_proj"), heads), config["rope_theta"])
        k = rotary(split(linear(h, f"{layer}.self_attn.k_proj"), kv_heads), config["rope_theta"])
        v = split(linear(h, f"{layer}.self_attn.v_proj"), kv_heads)
        k, v = (jnp.repeat(each, heads // kv_heads, axis=0) for each in (k, v))
        scores = jnp.where(causal, q @ k.transpose(0, 2, 1) / jnp.sqrt(width), -jnp.inf)
        mixed = (jax.nn.softmax(scores, axis=-1) @ v).transpose(1, 0, 2).reshape(length, heads * width)
        x = x + linear(mixed, f"{layer}.self_attn.o_proj")
        h = rms_norm(x, weights[f"{layer}.post_attention_layernorm.weight"], eps)
        gated = jax.nn.silu(linear(h, f"{layer}.mlp.gate_proj")) * linear(h, f"{layer}.mlp.up_proj")
        x = x + linear(gated, f"{layer}.mlp.down_proj")
    return linear(rms_norm(x, weights["model.norm.weight"], eps), "lm_head")


def logprobs(base, adapter, scale, tokens, targets):
    """Of each target: (length,) or (length, k), as the targets are."""
    table = jax.nn.log_softmax(logits(base, adapter, scale, tokens), axis=-1)
    targets = jnp.asarray(targets)
    return jnp.take_along_axis(table, targets.reshape(len(tokens), -1), axis=-1).reshape(targets.shape)
