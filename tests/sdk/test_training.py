"""TrainingClient: passes, steps, and the order of requests."""

import asyncio

import numpy as np
import pytest
import tinker
from tinker import types

from data import BATCH, LARGER, MODEL, TEXTS, adam, datum, dense, logprobs, sparse, step, tokens


def outputs(result, key="logprobs"):
    return [np.asarray(one[key].to_numpy()) for one in result.loss_fn_outputs]


def test_forward(run):
    result = run.forward(BATCH, "cross_entropy").result()
    found = outputs(result)
    assert [one.shape for one in found] == [(len(text) - 1,) for text in TEXTS]
    assert all((one < 0).all() for one in found)
    assert result.metrics["loss:sum"] == pytest.approx(-sum(one.sum() for one in found), rel=1e-5)
    # An untrained model knows nothing: about as likely as any of the 260 tokens.
    assert np.concatenate(found).mean() == pytest.approx(-np.log(260), rel=0.2)


def test_forward_changes_nothing(run):
    before = logprobs(run)
    run.optim_step(adam(1.0)).result()
    assert logprobs(run).tolist() == before.tolist(), "a forward pass leaves no gradient behind"


def test_losses_fall(run):
    losses = [step(run, params=adam(3e-3)) for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    assert np.mean(np.diff(losses) < 0) > 0.8


def test_weights_and_elementwise_losses(run):
    weights = [0.0, 2.0, -1.0, 0.5]
    result = run.forward([datum("hello", weights=weights)], "cross_entropy").result()
    (found,), (each,) = outputs(result), outputs(result, "elementwise_loss")
    np.testing.assert_allclose(each, -np.asarray(weights) * found, rtol=1e-5)
    assert result.metrics["loss:sum"] == pytest.approx(each.sum(), rel=1e-5)


def test_several_targets_for_each_position(run):
    """Soft targets of shape (N, K), dense and sparse, are the sum of their parts."""
    ids = tokens("hello")
    targets = np.zeros((4, 6), dtype=np.int64)
    weights = np.zeros((4, 6), dtype=np.float32)
    targets[:, 0], weights[:, 0] = ids[1:], 0.75
    targets[1, 3], weights[1, 3] = ord("z"), 0.25
    forms = {
        "lists": {"target_tokens": targets.tolist(), "weights": weights.tolist()},
        "arrays": {"target_tokens": targets, "weights": weights},
        "dense": {"target_tokens": dense(targets, "int64"), "weights": dense(weights, "float32")},
        "sparse": {"target_tokens": sparse(targets, "int64"), "weights": sparse(weights, "float32")},
    }
    input = types.ModelInput.from_ints(ids[:-1])
    found = {
        name: run.forward([tinker.Datum(model_input=input, loss_fn_inputs=form)], "cross_entropy").result()
        for name, form in forms.items()
    }
    (one_each,) = outputs(run.forward([datum("hello")], "cross_entropy").result())
    for name, result in found.items():
        (given,) = outputs(result)
        assert given.shape == (4, 6), name
        np.testing.assert_allclose(given[:, 0], one_each, rtol=1e-5)
        assert result.metrics["loss:sum"] == pytest.approx(-(weights * given).sum(), rel=1e-5), name
        assert given.tolist() == outputs(found["lists"])[0].tolist(), name


def test_soft_targets_train(run):
    """Half of each of two continuations: both end up at one half."""
    ids = tokens("ab")
    both = {"target_tokens": [[ord("b"), ord("c")]], "weights": [[0.5, 0.5]]}
    data = [tinker.Datum(model_input=types.ModelInput.from_ints(ids[:1]), loss_fn_inputs=both)]
    for _ in range(40):
        step(run, data)
    (found,) = outputs(run.forward(data, "cross_entropy").result())
    np.testing.assert_allclose(np.exp(found), [[0.5, 0.5]], atol=0.05)


def test_gradients_add_up(client):
    """Three calls with one example each are one call with three."""
    runs = [client.create_lora_training_client(MODEL, rank=8, seed=2).result() for _ in range(2)]
    runs[0].forward_backward(BATCH, "cross_entropy")
    for one in BATCH:
        runs[1].forward_backward([one], "cross_entropy")
    for run in runs:
        run.optim_step(adam()).result()
    np.testing.assert_allclose(logprobs(runs[0]), logprobs(runs[1]), rtol=1e-4)


def test_clipping(client):
    """AdamW divides the gradient's size away, so that only its report and the decay of its moments tell."""
    runs = [client.create_lora_training_client(MODEL, rank=8, seed=2).result() for _ in range(2)]
    clip = 0.25
    for run, norm in zip(runs, (0.0, clip)):
        run.forward_backward(BATCH, "cross_entropy")
        metrics = run.optim_step(adam(eps=1.0, grad_clip_norm=norm)).result().metrics
        assert metrics["unclipped_grad_l2:mean"] > clip if norm else True
    moved = [np.abs(logprobs(run) - np.concatenate(untrained(client))).sum() for run in runs]
    assert moved[1] < moved[0]


def untrained(client):
    run = client.create_lora_training_client(MODEL, rank=8, seed=2).result()
    return outputs(run.forward(BATCH, "cross_entropy").result())


def test_optimizer_settings(run):
    assert run.optim_step(adam_params=adam(weight_decay=0.1)).result() is not None
    for wrong in (adam(-1.0), adam(beta1=1.0), adam(eps=-1.0), adam(float("nan"))):
        with pytest.raises((tinker.RequestFailedError, tinker.APIStatusError, ValueError)):
            run.optim_step(wrong).result()
    with pytest.raises((tinker.RequestFailedError, tinker.APIStatusError)):
        run.optim_step(tinker.DimuonParams(learning_rate=0.1)).result()
    assert step(run) > 0, "the run goes on"


def test_decay_without_gradient_shrinks_the_adapter(client):
    run = client.create_lora_training_client(MODEL, rank=8, seed=2).result()
    untouched = logprobs(run)
    for _ in range(5):
        step(run)
    trained = np.abs(logprobs(run) - untouched).sum()
    for _ in range(200):
        run.optim_step(adam(0.05, weight_decay=1.0))
    run.optim_step(adam(0.05, weight_decay=1.0)).result()
    assert np.abs(logprobs(run) - untouched).sum() < 0.01 * trained


def test_more_examples_than_a_chunk_holds(client):
    data = [datum("ab"), datum("abc")] * 600
    assert len(data) > 1024
    run = client.create_lora_training_client(MODEL, rank=2, seed=1).result()
    future = run.forward_backward(data, "cross_entropy")
    stepped = run.optim_step(adam(1e-3))
    result = future.result()
    assert len(result.loss_fn_outputs) == 1200
    assert [len(one["logprobs"].data) for one in result.loss_fn_outputs[:4]] == [1, 2, 1, 2]
    found = outputs(result)
    assert result.metrics["loss:sum"] == pytest.approx(-sum(one.sum() for one in found), rel=1e-4)
    # All chunks have the weights from before the step.
    assert found[0].tolist() == found[1198].tolist()
    stepped.result()
    assert step(run, data[:2]) < result.metrics["loss:sum"] / 600


def test_more_bytes_than_a_chunk_holds(run):
    """5 MB: wide soft targets get there soonest."""
    rows, width = 64, 2048
    targets = np.tile(np.arange(width, dtype=np.int64) % 260, (rows, 1))
    weights = np.full((rows, width), 1e-3, dtype=np.float32)
    one = tinker.Datum(
        model_input=types.ModelInput.from_ints([65] * rows),
        loss_fn_inputs={"target_tokens": targets, "weights": weights},
    )
    data = [one] * 4
    assert sum(d.loss_fn_inputs["target_tokens"]._numpy.nbytes for d in data) > 4_000_000
    result = run.forward_backward(data, "cross_entropy").result()
    found = outputs(result)
    assert [one.shape for one in found] == [(rows, width)] * 4
    assert result.metrics["loss:sum"] == pytest.approx(-1e-3 * sum(one.sum() for one in found), rel=1e-4)
    run.optim_step(adam(1e-4)).result()


def test_chunks_one_after_the_other(service, flags):
    flags(parallel_fwdbwd_chunks=False, fwdbwd_max_chunk_len=2)
    with tinker.ServiceClient(base_url=service.url) as client:
        run = client.create_lora_training_client(MODEL, rank=2).result()
        result = run.forward_backward(BATCH * 3, "cross_entropy").result()
        assert len(result.loss_fn_outputs) == 9
        run.optim_step(adam()).result()


def test_many_chunks_at_once(service, flags):
    flags(fwdbwd_max_chunk_len=1)
    with tinker.ServiceClient(base_url=service.url) as client:
        run = client.create_lora_training_client(MODEL, rank=2).result()
        # The first of them is sent last, and the whole pipeline is queued before it is asked for.
        passes = [run.forward_backward(BATCH * 8, "cross_entropy") for _ in range(3)]
        steps = [run.optim_step(adam()) for _ in range(3)]
        assert [len(one.result().loss_fn_outputs) for one in passes] == [24] * 3
        [one.result() for one in steps]


def test_compressed_bodies(service, flags):
    """`proto_compress_fwdbwd`: the SDK sends zstd."""
    with tinker.ServiceClient(base_url=service.url) as client:
        run = client.create_lora_training_client(MODEL, rank=8, seed=7).result()
        as_they_are = [step(run) for _ in range(3)]
    flags(proto_compress_fwdbwd=True)
    with tinker.ServiceClient(base_url=service.url) as client:
        run = client.create_lora_training_client(MODEL, rank=8, seed=7).result()
        assert [step(run) for _ in range(3)] == as_they_are


def test_pipelining(client):
    """Everything is submitted before anything is waited for; the order is that of the calls."""
    ahead, behind = (client.create_lora_training_client(MODEL, rank=8, seed=4).result() for _ in range(2))
    futures = []
    for _ in range(10):
        futures.append(ahead.forward_backward(BATCH, "cross_entropy"))
        ahead.optim_step(adam())
    assert [future.result().metrics["loss:sum"] for future in futures] == [step(behind) for _ in range(10)]


def test_several_runs_at_once(client):
    """What others train changes no bit."""
    runs = [client.create_lora_training_client(MODEL, rank=8, seed=4) for _ in range(4)]
    runs = [run.result() for run in runs]
    losses = [[] for _ in runs]
    for _ in range(5):
        futures = [run.forward_backward(BATCH, "cross_entropy") for run in runs]
        [run.optim_step(adam()) for run in runs]
        for found, future in zip(losses, futures):
            found.append(future.result().metrics["loss:sum"])
    assert all(found == losses[0] for found in losses)


def test_async(client):
    async def story():
        run = await client.create_lora_training_client(MODEL, rank=8, seed=4)
        losses = []
        for _ in range(5):
            passed = await run.forward_backward_async(BATCH, "cross_entropy")
            stepped = await run.optim_step_async(adam())
            losses.append((await passed).metrics["loss:sum"])
            await stepped
        forward = await (await run.forward_async(BATCH, "cross_entropy"))
        assert (await run.get_info_async()).model_id == run.model_id
        return losses, forward.metrics["loss:sum"]

    losses, last = asyncio.run(story())
    assert losses == sorted(losses, reverse=True) and last < losses[-1]


def test_larger_model(client):
    run = client.create_lora_training_client(LARGER, rank=8, seed=1).result()
    losses = [step(run, params=adam(5e-3)) for _ in range(5)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    "bad",
    [
        lambda: datum([1, 2, 259_999]),
        lambda: datum([1, -5, 3]),
        lambda: datum("abc", weights=[1.0]),
        lambda: datum("abc", weights=[float("nan"), 1.0]),
        lambda: tinker.Datum(
            model_input=types.ModelInput.from_ints([1, 2]), loss_fn_inputs={"weights": [1.0, 1.0]}
        ),
        lambda: tinker.Datum(
            model_input=types.ModelInput.from_ints([]), loss_fn_inputs={"target_tokens": []}
        ),
        lambda: datum([65] * 5000),
        lambda: tinker.Datum(
            model_input=types.ModelInput(
                chunks=[types.ImageChunk(data=b"png", format="png", expected_tokens=3)]
            ),
            loss_fn_inputs={"target_tokens": [1, 2, 3], "weights": [1.0, 1.0, 1.0]},
        ),
    ],
    ids=["token", "negative", "lengths", "nan", "no targets", "empty", "too long", "image"],
)
def test_a_bad_example_fails_its_request_and_no_other(run, bad):
    before = logprobs(run)
    good = run.forward_backward(BATCH, "cross_entropy")
    failed = run.forward_backward([BATCH[0], bad()], "cross_entropy")
    stepped = run.optim_step(adam())
    with pytest.raises(tinker.RequestFailedError) as caught:
        failed.result()
    assert caught.value.category == types.RequestErrorCategory.User
    good.result()
    stepped.result()
    assert step(run) < -before.sum()


@pytest.mark.parametrize("loss", ["no_such_loss", "gspo", "custom"])
def test_an_unknown_loss_is_the_users_error(run, loss):
    with pytest.raises(tinker.RequestFailedError) as caught:
        run.forward_backward(BATCH, loss).result()
    assert caught.value.category == types.RequestErrorCategory.User
    assert loss in str(caught.value)
    assert step(run) > 0


def test_an_unknown_setting_is_the_users_error(run):
    with pytest.raises(tinker.RequestFailedError) as caught:
        run.forward_backward(BATCH, "cross_entropy", {"nonsense": 1.0}).result()
    assert caught.value.category == types.RequestErrorCategory.User
    assert "nonsense" in str(caught.value)


@pytest.mark.parametrize(
    "refused",
    [
        lambda run: run.save_state("a/b"),
        lambda run: run.save_state(""),
        lambda run: run.save_state("x", ttl_seconds=0),
        lambda run: run.save_state("x", ttl_seconds=-5),
        lambda run: run.save_weights_for_sampler("a/b"),
        lambda run: run.save_weights_external("a/b"),
        lambda run: run.load_state("nonsense"),
        lambda run: run.load_state("tinker://nobody:train:0/weights/x"),
    ],
    ids=[
        "name",
        "empty name",
        "ttl 0",
        "negative ttl",
        "sampler name",
        "external name",
        "load",
        "load unknown",
    ],
)
def test_a_refused_submission_leaves_no_gap(run, refused):
    """Its number is used up; what is queued behind must not wait for it."""
    ahead = run.forward_backward(BATCH, "cross_entropy")
    failed = refused(run)
    behind = run.optim_step(adam())
    with pytest.raises((tinker.RequestFailedError, tinker.APIStatusError)):
        failed.result(timeout=20)
    ahead.result(timeout=20)
    behind.result(timeout=20)
    assert step(run) > 0


def test_no_data(run):
    with pytest.raises(ValueError):
        run.forward_backward([], "cross_entropy")
    assert step(run) > 0


def test_tokenizer_works_offline(run):
    tokenizer = run.get_tokenizer()
    for text in ["Hello, world", "naïve — 東京 🚀", " \n\t", ""]:
        assert tokenizer.encode(text, add_special_tokens=False) == tokens(text)
        assert tokenizer.decode(tokens(text)) == text
    assert tokenizer.eos_token_id == 257
    assert tokenizer.model_max_length == 1024
    assert run.get_info().model_data.tokenizer_id


def test_a_model_of_each_size_trains_and_samples(client):
    """What the small ones are tested with at length, once."""
    offered = client.get_server_capabilities().supported_models
    assert len(offered) >= 3
    for model in offered:
        run = client.create_lora_training_client(model.model_name, rank=2, seed=7).result()
        before = step(run)
        assert step(run) < before
        assert run.get_tokenizer().model_max_length == model.max_context_length
        sampler = run.save_weights_and_get_sampling_client().result()
        prompt, params = types.ModelInput.from_ints(tokens("the")), types.SamplingParams(max_tokens=4, seed=1)
        first, again = (sampler.sample(prompt, 1, params).result().sequences[0].tokens for _ in range(2))
        assert first == again and len(first) == 4


def test_console_url(run):
    assert run.model_id in run.get_console_url()
