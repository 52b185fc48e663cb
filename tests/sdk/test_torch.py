"""What the SDK does with PyTorch: losses worked out by the client, and sparse tensors."""

import asyncio

import numpy as np
import pytest
import tinker
import torch
from tinker import types

from data import BATCH, MODEL, adam, datum, logprobs, step, tokens

pytestmark = pytest.mark.torch


def negative_log_likelihood(data, logprobs):
    loss = -sum(each.sum() for each in logprobs)
    return loss, {"examples": float(len(data))}


def test_a_custom_loss_is_what_it_says(client):
    """Cross-entropy, worked out by the client, trains as the service's own."""
    own, custom = (client.create_lora_training_client(MODEL, rank=8, seed=3).result() for _ in range(2))
    for _ in range(3):
        future = custom.forward_backward_custom(BATCH, negative_log_likelihood)
        custom.optim_step(adam())
        result = future.result()
        assert result.metrics["loss:sum"] == pytest.approx(step(own), rel=1e-5)
        assert result.metrics["examples"] == 3.0
        assert len(result.loss_fn_outputs) == 3
    np.testing.assert_allclose(logprobs(custom), logprobs(own), rtol=1e-4)


def test_async(run):
    async def story():
        future = await run.forward_backward_custom_async(BATCH, negative_log_likelihood)
        stepped = run.optim_step(adam())
        result = await future
        await stepped
        return result.metrics["loss:sum"]

    assert asyncio.run(story()) > step(run)


def test_a_loss_of_pairs_learns_to_prefer(run):
    """As DPO does: one answer is to become likelier than the other."""
    chosen, rejected = datum("question: yes"), datum("question: no!")

    def preference(data, logprobs):
        margin = logprobs[0].sum() - logprobs[1].sum()
        return -torch.nn.functional.logsigmoid(margin), {"margin:mean": margin.item()}

    margins = []
    for _ in range(10):
        future = run.forward_backward_custom([chosen, rejected], preference)
        run.optim_step(adam(3e-3))
        margins.append(future.result().metrics["margin:mean"])
    assert margins[-1] > margins[0] + 1


def test_a_custom_loss_of_several_chunks(service, flags):
    flags(fwdbwd_max_chunk_len=2)
    with tinker.ServiceClient(base_url=service.url) as client:
        run = client.create_lora_training_client(MODEL, rank=8, seed=3).result()
        result = run.forward_backward_custom(BATCH * 3, negative_log_likelihood).result()
        assert len(result.loss_fn_outputs) == 9
        run.optim_step(adam()).result()
        assert step(run) < result.metrics["loss:sum"] / 3


def test_a_failing_loss_is_the_clients_own_affair(client):
    run = client.create_lora_training_client(MODEL, rank=2).result()

    def fails(data, logprobs):
        raise ZeroDivisionError("as custom losses do")

    with pytest.raises(ZeroDivisionError):
        run.forward_backward_custom(BATCH, fails).result()
    with pytest.raises(RuntimeError, match="poisoned"):
        run.forward(BATCH, "cross_entropy").result()
    assert client.create_lora_training_client(MODEL, rank=2).result().model_id, "the session goes on"


def test_a_traced_loss(client):
    def weighted(logprobs, weights):
        loss = -(logprobs * weights).sum()
        return loss, {"custom/loss:sum": loss}

    handle = client.create_custom_loss(weighted, input_ranks={"logprobs": 1, "weights": 1}).result()
    own, traced = (client.create_lora_training_client(MODEL, rank=8, seed=3).result() for _ in range(2))
    result = traced.forward_backward_custom(BATCH, handle).result()
    traced.optim_step(adam()).result()
    assert result.metrics["custom/loss:sum"] == pytest.approx(step(own), rel=1e-5)
    np.testing.assert_allclose(logprobs(traced), logprobs(own), rtol=1e-4)


def test_sparse_tensors(run):
    """Wide, nearly empty matrices are sent in CSR form without being asked to."""
    ids = tokens("hello")
    targets = torch.zeros((4, 16), dtype=torch.int64)
    weights = torch.zeros((4, 16))
    targets[:, 2], weights[:, 2] = torch.tensor(ids[1:]), 1.0
    data = tinker.Datum(
        model_input=types.ModelInput.from_ints(ids[:-1]),
        loss_fn_inputs={"target_tokens": targets, "weights": weights},
    )
    assert data.loss_fn_inputs["weights"].sparse_crow_indices == [0, 1, 2, 3, 4]
    dense = run.forward([datum("hello")], "cross_entropy").result()
    result = run.forward([data], "cross_entropy").result()
    assert result.metrics["loss:sum"] == pytest.approx(dense.metrics["loss:sum"], rel=1e-5)
    found = result.loss_fn_outputs[0]["logprobs"].to_torch()
    assert found.shape == (4, 16)
    np.testing.assert_allclose(found[:, 2], dense.loss_fn_outputs[0]["logprobs"].data, rtol=1e-5)


def test_half_precision_is_widened(run):
    weights = torch.ones(4, dtype=torch.bfloat16)
    data = datum("hello", weights=weights)
    assert run.forward([data], "cross_entropy").result().metrics["loss:sum"] > 0


def test_sparse_targets_of_a_prompt(client):
    sampler = client.create_sampling_client(base_model=MODEL).result()
    ids = tokens("hello")
    wanted = torch.full((4, 3), -1, dtype=torch.int64)
    wanted[2, 1] = ids[3]
    result = sampler.sample(
        types.ModelInput.from_ints(ids),
        1,
        types.SamplingParams(max_tokens=1),
        include_prompt_logprobs=True,
        target_prompt_logprobs=types.TensorData.from_torch_sparse(wanted, pad_value=-1),
    ).result()
    found = result.target_prompt_logprobs
    # Only what was asked for is sent, and it comes back in the same form.
    assert (found.sparse_crow_indices, found.sparse_col_indices) == ([0, 0, 0, 1, 1], [1])
    assert found.data == [pytest.approx(result.prompt_logprobs[3], abs=1e-4)]
