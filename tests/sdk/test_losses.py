"""The losses of reinforcement learning: their values, their settings, their gradients."""

import numpy as np
import pytest
import tinker
from tinker import types

from data import MODEL, adam, datum, logprobs

TEXT = "the quick brown fox"
ADVANTAGES = np.linspace(-1.0, 2.0, len(TEXT) - 1).astype(np.float32)
#: What the sampler is said to have had: some tokens less likely than now, some more.
SHIFT = np.linspace(-1.5, 1.5, len(TEXT) - 1).astype(np.float32)


def clipped(p, q, a, low, high):
    ratio = np.exp(p - q)
    return -np.minimum(ratio * a, np.clip(ratio, low, high) * a).sum()


LOSSES = {
    "importance_sampling": ({}, lambda p, q, a: -(np.exp(p - q) * a).sum()),
    "ppo": ({}, lambda p, q, a: clipped(p, q, a, 0.8, 1.2)),
    "ppo, set": (
        {"clip_low_threshold": 0.5, "clip_high_threshold": 3.0},
        lambda p, q, a: clipped(p, q, a, 0.5, 3.0),
    ),
    "cispo": ({}, lambda p, q, a: -(np.clip(np.exp(p - q), 0.0, 4.0) * p * a).sum()),
    "cispo, set": (
        {"clip_low_threshold": 0.9, "clip_high_threshold": 1.1},
        lambda p, q, a: -(np.clip(np.exp(p - q), 0.9, 1.1) * p * a).sum(),
    ),
    "dro": ({"beta": 0.05}, lambda p, q, a: -(p * a - 0.025 * (p - q) ** 2).sum()),
}


def now(run):
    return logprobs(run, [datum(TEXT)])


def example(q):
    return datum(TEXT, logprobs=np.asarray(q, dtype=np.float32), advantages=ADVANTAGES)


@pytest.mark.parametrize("name", LOSSES)
def test_value(run, name):
    settings, expected = LOSSES[name]
    p = now(run)
    q = p - SHIFT
    loss = name.split(",")[0]
    for passed in (run.forward, run.forward_backward):
        result = passed([example(q)], loss, settings or None).result()
        (found,) = result.loss_fn_outputs
        assert found["logprobs"].data == pytest.approx(p, rel=1e-5)
        assert result.metrics["loss:sum"] == pytest.approx(expected(p, q, ADVANTAGES), rel=1e-4)
        for metric in result.metrics:
            assert metric.count(":") == 1, "the SDK takes a metric's name apart at its one colon"
    run.optim_step(adam()).result()


@pytest.mark.parametrize(
    "loss, settings", [("importance_sampling", None), ("ppo", None), ("cispo", None), ("dro", {"beta": 0.1})]
)
def test_gradient_at_the_sampler_s_own_weights(client, loss, settings):
    """There all of them push as cross-entropy does when its weights are the advantages."""
    by_loss, by_weights = (
        client.create_lora_training_client(MODEL, rank=8, seed=3).result() for _ in range(2)
    )
    by_loss.forward_backward([example(now(by_loss))], loss, settings)
    by_weights.forward_backward([datum(TEXT, weights=ADVANTAGES)], "cross_entropy")
    for run in (by_loss, by_weights):
        run.optim_step(adam(1e-2, eps=1e-2)).result()
    assert (
        np.abs(now(by_loss) - now(client.create_lora_training_client(MODEL, rank=8, seed=3).result())).max()
        > 1e-2
    )
    np.testing.assert_allclose(now(by_loss), now(by_weights), rtol=1e-3, atol=1e-4)


def test_what_ppo_clips_pushes_no_more(client):
    """Ratios far beyond the bounds, in the direction of the advantage."""
    run = client.create_lora_training_client(MODEL, rank=8, seed=3).result()
    p = now(run)
    q = p - 2.0 * np.sign(ADVANTAGES)
    run.forward_backward([example(q)], "ppo")
    run.optim_step(adam(1e-1, eps=1e-2)).result()
    np.testing.assert_allclose(now(run), p, atol=1e-6)


def test_policy_gradient_learns(run):
    """Rewarded tokens become likelier, punished ones less so."""
    before = now(run)
    for _ in range(10):
        run.forward_backward([example(now(run))], "importance_sampling")
        run.optim_step(adam(3e-3))
    moved = now(run) - before
    assert np.corrcoef(moved, ADVANTAGES)[0, 1] > 0.5
    assert (moved * ADVANTAGES).sum() > 0


@pytest.mark.parametrize(
    "loss, inputs, settings",
    [
        ("importance_sampling", {"advantages": ADVANTAGES}, None),
        ("importance_sampling", {"logprobs": SHIFT}, None),
        ("ppo", {"logprobs": SHIFT, "advantages": ADVANTAGES[:-1]}, None),
        ("ppo", {"logprobs": SHIFT, "advantages": ADVANTAGES}, {"epsilon": 0.2}),
        ("cispo", {"logprobs": SHIFT, "advantages": ADVANTAGES}, {"clip_low_threshold": "low"}),
        (
            "ppo",
            {"logprobs": SHIFT, "advantages": ADVANTAGES},
            {"clip_low_threshold": 2.0, "clip_high_threshold": 1.0},
        ),
    ],
    ids=["no logprobs", "no advantages", "lengths", "unknown setting", "text", "bounds"],
)
def test_what_makes_no_sense_is_the_users_error(run, loss, inputs, settings):
    with pytest.raises(tinker.RequestFailedError) as caught:
        run.forward_backward([datum(TEXT, **inputs)], loss, settings).result()
    assert caught.value.category == types.RequestErrorCategory.User
    assert len(now(run)) == len(TEXT) - 1
