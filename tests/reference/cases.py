"""What is computed on both sides: small batches with every loss, and runs of the optimizer.

Only whole numbers and decimal fractions: the same in every language.
"""

FIRST = b"A loss is a plain sum over the positions, whatever else is in the batch."
SECOND = b"Shorter."


def datum(text, **inputs):
    """Next-token prediction over a text, from token 256, which begins it."""
    tokens = [256, *text]
    inputs = {name: of(len(text)) for name, of in inputs.items()}
    return {"tokens": tokens[:-1], "loss_fn_inputs": {"target_tokens": tokens[1:], **inputs}}


def cycle(*values):
    return lambda length: [values[i % len(values)] for i in range(length)]


WEIGHTS = cycle(1.0, 0.0, 0.5, -0.25, 2.0)
# The adapter leaves the model near to uniform, ln 1/260 = -5.56: the ratios lie on both sides of 1, none at a bound.
Q = cycle(-5.5, -5.0, -6.25, -4.5, -5.75, -5.625, -7.0)
ADVANTAGES = cycle(1.0, -1.0, 0.5, 2.0, -0.75)


def soft(text):
    """Three targets for each token, the first the right one."""
    made = datum(text)
    right = made["loss_fn_inputs"]["target_tokens"]
    made["loss_fn_inputs"] = {
        "target_tokens": [[token, (token + 11) % 256, 257] for token in right],
        "weights": [[0.75, 0.25, -0.125 * (i % 2)] for i in range(len(right))],
    }
    return made


def policy(**more):
    inputs = {"logprobs": Q, "advantages": ADVANTAGES, **more}
    return [datum(FIRST, **inputs), datum(SECOND, **inputs)]


def case(name, loss_fn, data, **config):
    return {"name": name, "loss_fn": loss_fn, "loss_fn_config": config, "data": data}


def clip(low, high):
    return {"clip_low_threshold": low, "clip_high_threshold": high}


PLAIN = [datum(FIRST), datum(SECOND)]

CASES = {
    "nano-llama": [
        case("cross_entropy", "cross_entropy", [datum(FIRST, weights=WEIGHTS), datum(SECOND)]),
        case("cross_entropy, soft targets", "cross_entropy", [soft(FIRST), soft(SECOND)]),
        case("importance_sampling", "importance_sampling", policy()),
        case("importance_sampling, weights", "importance_sampling", policy(weights=WEIGHTS)),
        case("ppo", "ppo", policy(), **clip(0.8, 1.2)),
        case("ppo, wider", "ppo", policy(weights=WEIGHTS), **clip(0.5, 2.5)),
        case(
            "ppo, bounds of each position",
            "ppo",
            policy(clip_low_threshold=cycle(0.5, 0.75), clip_high_threshold=cycle(1.125, 1.5, 3.0)),
            **clip(0.8, 1.2),
        ),
        case("cispo", "cispo", policy(), **clip(0.0, 4.0)),
        case("cispo, narrower", "cispo", policy(weights=WEIGHTS), **clip(0.8, 1.2)),
        case("dro", "dro", policy(), beta=0.05),
        case("dro, beta 1.5", "dro", policy(weights=WEIGHTS), beta=1.5),
    ],
    "tiny-llama-1m": [
        case("cross_entropy", "cross_entropy", PLAIN),
        case("importance_sampling", "importance_sampling", policy()),
        case("ppo", "ppo", policy(), **clip(0.8, 1.2)),
        case("cispo", "cispo", policy(), **clip(0.0, 4.0)),
        case("dro", "dro", policy(), beta=0.05),
    ],
}

RANKS = {"nano-llama": 4, "tiny-llama-1m": 2}
ALPHA = 32

_STEP = {
    "learning_rate": 0.002,
    "beta1": 0.9,
    "beta2": 0.95,
    "eps": 1e-12,
    "weight_decay": 0.0,
    "grad_clip_norm": 0.0,
}

_ALL = {**_STEP, "beta1": 0.8, "beta2": 0.99, "eps": 1e-4, "weight_decay": 0.1, "grad_clip_norm": 2.0}

STEPS = 5
OPTIMIZERS = {
    "nano-llama": {
        "plain": _STEP,
        "clipped": {**_STEP, "grad_clip_norm": 0.5},
        "decayed": {**_STEP, "weight_decay": 0.3},
        "all": _ALL,
    },
    "tiny-llama-1m": {"all": _ALL},
}
