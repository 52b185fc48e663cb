"""SamplingClient: what is drawn, what is reported about it, and who draws."""

import asyncio
import multiprocessing
import os
import pickle
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest
import tinker
from tinker import SamplingParams, types

from data import EOS, LARGER, MODEL, adam, datum, dense, logprobs, sparse, step, tokens
from service import KEY

PROMPT, ANSWER = "the quick ", "brown fox jumps"
WHOLE = tokens(PROMPT + ANSWER) + [EOS]


@pytest.fixture(scope="module")
def taught(client):
    """A run that knows one sentence by heart."""
    run = client.create_lora_training_client(MODEL, rank=16, seed=1).result()
    for learning_rate in [1e-2] * 60 + [2e-3] * 30:
        run.forward_backward([datum(WHOLE)], "cross_entropy")
        stepped = run.optim_step(adam(learning_rate))
    stepped.result()
    assert logprobs(run, [datum(WHOLE)])[len(PROMPT) :].min() > np.log(0.8), (
        "it has not learned enough for the tests"
    )
    return run


@pytest.fixture(scope="module")
def sampler(taught):
    return taught.save_weights_and_get_sampling_client().result()


@pytest.fixture(scope="module")
def base(client):
    """The base model: uncertain about everything, as sampling with chance needs."""
    return client.create_sampling_client(base_model=MODEL).result()


def prompt(text: str | list[int] = PROMPT):
    return types.ModelInput.from_ints(tokens(text) if isinstance(text, str) else text)


def sample(client, params, n=1, text=PROMPT, **options):
    return client.sample(prompt(text), n, params, **options).result()


def drawn(client, n=1, text=PROMPT, **params):
    return [one.tokens for one in sample(client, SamplingParams(**params), n, text).sequences]


def text_of(sequence) -> str:
    return bytes(sequence.tokens).decode()


# What is drawn


def test_it_says_what_it_was_taught(sampler):
    (one,) = sample(sampler, SamplingParams(max_tokens=len(ANSWER), temperature=0)).sequences
    assert text_of(one) == ANSWER
    assert one.stop_reason == "length"
    assert len(one.logprobs) == len(ANSWER) and all(np.log(0.8) < p <= 0 for p in one.logprobs)
    assert one.sequence_id


def test_the_end_of_text_stops(sampler):
    (one,) = sample(sampler, SamplingParams(max_tokens=100, temperature=0)).sequences
    assert one.tokens == tokens(ANSWER) + [EOS]
    assert one.stop_reason == "stop"
    assert len(one.logprobs) == len(one.tokens)


def test_nothing_stops_when_nothing_shall(sampler):
    (one,) = sample(sampler, SamplingParams(max_tokens=40, temperature=0, stop=[])).sequences
    assert one.tokens[: len(ANSWER) + 1] == tokens(ANSWER) + [EOS]
    assert len(one.tokens) == 40 and one.stop_reason == "length"


@pytest.mark.parametrize("stop", ["fox", ["nothing", "fox"], ["n f", "fox"]])
def test_stop_strings(sampler, stop):
    (one,) = sample(sampler, SamplingParams(max_tokens=40, temperature=0, stop=stop)).sequences
    assert one.stop_reason == "stop"
    said = text_of(one)
    assert ANSWER.startswith(said)
    first = min(
        ANSWER.index(word) + len(word)
        for word in ([stop] if isinstance(stop, str) else stop)
        if word in ANSWER
    )
    assert said == ANSWER[:first], "the token that completes the first match is the last"


def test_stop_tokens(sampler):
    (one,) = sample(
        sampler, SamplingParams(max_tokens=40, temperature=0, stop=[ord("x"), ord("w")])
    ).sequences
    assert (text_of(one), one.stop_reason) == ("brow", "stop")


def test_greedy_is_the_likeliest(base):
    (one,) = sample(base, SamplingParams(max_tokens=12, temperature=0), topk_sample_logprobs=3).sequences
    for token, logprob, best in zip(one.tokens, one.logprobs, one.topk_logprobs, strict=True):
        assert token == best[0][0]
        assert logprob == pytest.approx(best[0][1], abs=1e-5)
    assert drawn(base, max_tokens=12, temperature=0) == [one.tokens]
    assert drawn(base, max_tokens=12, temperature=1.0, top_k=1) == [one.tokens], (
        "top_k of one leaves no choice"
    )
    assert drawn(base, max_tokens=12, temperature=1.0, top_p=1e-6) == [one.tokens], "nor does a tiny top_p"


def test_same_seed_same_tokens(base):
    first, again, other = (drawn(base, 4, max_tokens=20, seed=seed) for seed in (11, 11, 12))
    assert first == again
    assert first != other
    assert len({tuple(one) for one in first}) == 4, "the samples of one request are independent"


def test_a_seed_is_not_disturbed_by_company(base):
    alone = drawn(base, 2, max_tokens=30, seed=5)
    params = SamplingParams(max_tokens=30, seed=5)
    futures = [base.sample(prompt("x" * i or "y"), 3, SamplingParams(max_tokens=25)) for i in range(8)]
    together = base.sample(prompt(), 2, params).result()
    [future.result() for future in futures]
    assert [one.tokens for one in together.sequences] == alone


def test_no_seed_is_chance(base):
    assert drawn(base, max_tokens=20) != drawn(base, max_tokens=20)


def test_top_k_bounds_the_choice(base):
    result = sample(base, SamplingParams(max_tokens=10, top_k=3, seed=1), 8, topk_sample_logprobs=3)
    picked = set()
    for one in result.sequences:
        for token, best in zip(one.tokens, one.topk_logprobs, strict=True):
            assert token in [candidate for candidate, _ in best]
            picked.add([candidate for candidate, _ in best].index(token))
    assert picked == {0, 1, 2}, "all three are drawn sooner or later"


def test_temperature(base):
    """The hotter, the less likely what is drawn."""
    means = []
    for temperature in (0.3, 1.0, 3.0):
        result = sample(base, SamplingParams(max_tokens=20, temperature=temperature, seed=3), 8)
        found = np.concatenate([score(base, tokens(PROMPT), one.tokens) for one in result.sequences])
        means.append(found.mean())
    assert means == sorted(means, reverse=True)


def test_frequencies_follow_the_probabilities(base):
    """A thousand first tokens against the probabilities that the model itself states."""
    n = 1024
    top = (
        sample(base, SamplingParams(max_tokens=1, temperature=0), topk_sample_logprobs=5)
        .sequences[0]
        .topk_logprobs[0]
    )
    seen = np.bincount(np.concatenate(drawn(base, n, max_tokens=1, seed=1)), minlength=260)
    assert seen.sum() == n
    for token, logprob in top:
        p = np.exp(logprob)
        assert abs(seen[token] - n * p) < 5 * np.sqrt(n * p * (1 - p)), f"token {token}"


# What is reported


def score(client, before, after):
    """The logprobs of the tokens after a prompt, by scoring the whole as a prompt."""
    found = client.compute_logprobs(prompt(before + after)).result()
    return np.asarray(found[len(before) :], dtype=float)


def test_logprobs_of_samples_are_those_of_the_model(base):
    (one,) = sample(base, SamplingParams(max_tokens=16, seed=2)).sequences
    np.testing.assert_allclose(one.logprobs, score(base, tokens(PROMPT), one.tokens), atol=1e-3)


def test_prompt_logprobs_are_those_of_training(taught, sampler):
    found = sampler.compute_logprobs(prompt(WHOLE)).result()
    assert found[0] is None and len(found) == len(WHOLE)
    np.testing.assert_allclose(found[1:], logprobs(taught, [datum(WHOLE)]), atol=1e-3)
    result = sample(sampler, SamplingParams(max_tokens=1), text=WHOLE, include_prompt_logprobs=True)
    assert result.prompt_logprobs == pytest.approx(found, abs=1e-5)
    assert sample(sampler, SamplingParams(max_tokens=1)).prompt_logprobs is None


def test_topk_of_the_prompt(sampler):
    result = sample(
        sampler,
        SamplingParams(max_tokens=1),
        text=WHOLE,
        include_prompt_logprobs=True,
        topk_prompt_logprobs=4,
    )
    found = result.topk_prompt_logprobs
    assert len(found) == len(WHOLE) and found[0] is None
    for token, logprob, best in list(zip(WHOLE, result.prompt_logprobs, found, strict=True))[len(PROMPT) :]:
        assert len(best) == 4
        assert [p for _, p in best] == sorted((p for _, p in best), reverse=True)
        assert best[0][0] == token and best[0][1] == pytest.approx(logprob, abs=1e-4)


def test_only_the_last_of_the_prompt(sampler):
    whole = sampler.compute_logprobs(prompt(WHOLE)).result()
    last = sampler.compute_logprobs(prompt(WHOLE), prompt_logprobs_last_n=5).result()
    assert last[:-5] == [None] * (len(WHOLE) - 5)
    assert last[-5:] == pytest.approx(whole[-5:], abs=1e-4)
    result = sample(
        sampler,
        SamplingParams(max_tokens=1),
        text=WHOLE,
        include_prompt_logprobs=True,
        topk_prompt_logprobs=2,
        prompt_logprobs_last_n=5,
    )
    assert [best is None for best in result.topk_prompt_logprobs] == [True] * (len(WHOLE) - 5) + [False] * 5


def test_chosen_tokens_of_the_prompt(sampler):
    """`target_prompt_logprobs`, dense and sparse: the actual token's is its prompt logprob."""
    whole = sampler.compute_logprobs(prompt(WHOLE)).result()
    targets = np.full((len(WHOLE) - 1, 3), -1, dtype=np.int64)
    targets[:, 0] = WHOLE[1:]
    targets[4, 2] = ord("z")
    for form in (dense(targets, "int64"), sparse(targets, "int64", absent=-1)):
        found = sample(sampler, SamplingParams(max_tokens=1), text=WHOLE, target_prompt_logprobs=form)
        found = found.target_prompt_logprobs
        assert (found.dtype, list(found.shape)) == ("float32", [len(WHOLE) - 1, 3])
        assert found.sparse_crow_indices == form.sparse_crow_indices
        if found.sparse_crow_indices is None:
            cells = found.to_numpy()
            assert not cells[targets == -1].any()
            assert cells[4, 2] < cells[4, 0]
            np.testing.assert_allclose(cells[:, 0], whole[1:], atol=1e-4)
        else:
            given = np.asarray(found.data)
            actual = np.asarray(form.data) == targets[targets != -1]
            assert actual.all() and len(given) == len(WHOLE)
            np.testing.assert_allclose(np.delete(given, 5), whole[1:], atol=1e-4)


def test_alternatives_to_the_prompt(sampler):
    result = sample(sampler, SamplingParams(max_tokens=1), text=WHOLE, prompt_alt_tokens_k=6)
    found, of_them = result.prompt_alt_tokens.tokens, result.prompt_alt_tokens.logprobs
    assert list(found.shape) == list(of_them.shape) == [len(WHOLE) - 1, 6]
    assert (found.dtype, of_them.dtype) == ("int64", "float32")
    # What it knows by heart it would say itself.
    known = found.to_numpy()[len(PROMPT) :]
    assert (known == np.asarray(WHOLE)[len(PROMPT) + 1 :, None]).mean() > 0.8
    assert (of_them.to_numpy() <= 0).all()


def test_sequence_ids_are_distinct(base):
    results = [sample(base, SamplingParams(max_tokens=1), 3) for _ in range(2)]
    assert len({one.sequence_id for result in results for one in result.sequences}) == 6


@pytest.mark.parametrize(
    "wrong",
    [
        {"text": []},
        {"text": [999_999]},
        {"text": [65] * 5000},
        {"params": SamplingParams(max_tokens=0)},
        {"params": SamplingParams(temperature=-1.0, max_tokens=1)},
        {"params": SamplingParams(top_p=0.0, max_tokens=1)},
        {"params": SamplingParams(top_p=1.5, max_tokens=1)},
        {"params": SamplingParams(max_tokens=1, stop=[""])},
        {"n": 0},
        {"prompt_logprobs_last_n": 99, "include_prompt_logprobs": True},
        {"target_prompt_logprobs": dense([[1]], "int64")},
    ],
    ids=[
        "empty",
        "token",
        "too long",
        "max_tokens",
        "temperature",
        "top_p 0",
        "top_p",
        "stop",
        "n",
        "last_n",
        "targets",
    ],
)
def test_what_makes_no_sense_is_the_users_error(base, wrong):
    params = wrong.pop("params", SamplingParams(max_tokens=1)) if (wrong := dict(wrong)) else None
    with pytest.raises((tinker.RequestFailedError, tinker.APIStatusError)) as caught:
        base.sample(prompt(wrong.pop("text", PROMPT)), wrong.pop("n", 1), params, **wrong).result(timeout=20)
    if isinstance(caught.value, tinker.RequestFailedError):
        assert caught.value.category == types.RequestErrorCategory.User
    else:
        assert caught.value.status_code in (400, 413, 422)
    assert drawn(base, max_tokens=2, seed=1), "it goes on"


def test_no_limit_is_the_context(base, rest):
    """`max_tokens` left out, and little context left."""
    context = {
        m.model_name: m.max_context_length for m in rest.get_server_capabilities().result().supported_models
    }
    text = [65] * (context[MODEL] - 5)
    (one,) = sample(base, SamplingParams(temperature=0, stop=[]), text=text).sequences
    assert len(one.tokens) == 5 and one.stop_reason == "length"


# Who draws


def test_from_a_base_model(client, rest):
    base = client.create_sampling_client(base_model=LARGER).result()
    assert base.get_base_model() == LARGER
    assert len(drawn(base, max_tokens=5, stop=[])[0]) == 5
    found = rest.get_sampler(base._sampling_session_id).result()
    assert (found.sampler_id, found.base_model, found.model_path) == (base._sampling_session_id, LARGER, None)
    assert base._sampling_session_id in rest.get_session(client.holder.get_session_id()).result().sampler_ids


def test_from_saved_weights(client, taught, rest):
    path = taught.save_weights_for_sampler("known-by-heart").result().path
    for sampler in (
        client.create_sampling_client(model_path=path).result(),
        client.create_sampling_client(model_path=path, base_model=MODEL).result(),
        taught.create_sampling_client(path).result(),
    ):
        assert sampler.get_base_model() == MODEL
        (one,) = sample(sampler, SamplingParams(max_tokens=len(ANSWER), temperature=0)).sequences
        assert text_of(one) == ANSWER
        assert rest.get_sampler(sampler._sampling_session_id).result().model_path == path


def test_from_a_training_checkpoint(client, taught):
    """The SDK's own documentation gives such a path as an example."""
    path = taught.save_state("known-by-heart").result().path
    sampler = client.create_sampling_client(model_path=path).result()
    assert text_of(sample(sampler, SamplingParams(max_tokens=5, temperature=0)).sequences[0]) == ANSWER[:5]


@pytest.mark.parametrize(
    "source",
    [
        {"base_model": "nobody/nothing"},
        {"model_path": "tinker://nobody:train:0/sampler_weights/x"},
        {"model_path": "tinker://nonsense"},
    ],
    ids=["model", "path", "form"],
)
def test_from_nothing(client, source):
    with pytest.raises((tinker.BadRequestError, tinker.NotFoundError, tinker.UnprocessableEntityError)):
        client.create_sampling_client(**source).result()


def test_a_snapshot_stays_as_it_was(client):
    run = client.create_lora_training_client(MODEL, rank=8, seed=1).result()
    before = run.save_weights_and_get_sampling_client().result()
    first = before.compute_logprobs(prompt()).result()
    for _ in range(5):
        step(run)
    after = run.save_weights_and_get_sampling_client().result()
    assert before.compute_logprobs(prompt()).result() == first
    assert after.compute_logprobs(prompt()).result() != first


def test_inflight_weights_move_on(client):
    run = client.create_lora_training_client(MODEL, rank=8, seed=1).result()
    old = run.save_weights_and_get_sampling_client(kind="inflight").result()
    first = old.compute_logprobs(prompt()).result()
    for _ in range(5):
        step(run)
    new = run.save_weights_and_get_sampling_client(kind="inflight").result()
    now = new.compute_logprobs(prompt()).result()
    assert now != first
    deadline = time.monotonic() + 10
    while old.compute_logprobs(prompt()).result() != now:
        assert time.monotonic() < deadline, "the older client never saw the newer weights"


def test_unnamed_weights_are_not_listed(client, rest):
    run = client.create_lora_training_client(MODEL, rank=2).result()
    run.save_weights_and_get_sampling_client().result()
    assert rest.list_checkpoints(run.model_id).result().checkpoints == []
    assert rest.get_training_run(run.model_id).result().last_sampler_checkpoint is None


def test_the_deleted_checkpoint_of_a_sampler(client, taught, rest):
    """Whichever way it goes on: with the weights it has, or with an error that says so. It does not hang."""
    path = taught.save_weights_for_sampler("soon-gone").result().path
    sampler = client.create_sampling_client(model_path=path).result()
    drawn(sampler, max_tokens=1)
    rest.delete_checkpoint_from_tinker_path(path).result()
    with pytest.raises((tinker.BadRequestError, tinker.NotFoundError)):
        client.create_sampling_client(model_path=path).result()


def test_async(client, taught):
    async def story():
        base = await client.create_sampling_client_async(base_model=MODEL)
        own = await taught.save_weights_and_get_sampling_client_async()
        path = (await taught.save_weights_for_sampler("async")).path
        saved = await taught.create_sampling_client_async(path)
        params = SamplingParams(max_tokens=5, temperature=0)
        results = await asyncio.gather(*[one.sample_async(prompt(), 1, params) for one in (base, own, saved)])
        assert await base.get_base_model_async() == MODEL
        assert len(await base.compute_logprobs_async(prompt())) == len(PROMPT)
        return [result.sequences[0].tokens for result in results]

    base, own, saved = asyncio.run(story())
    assert own == saved == tokens(ANSWER[:5]) != base


def test_64_at_once(base):
    async def story():
        params = [SamplingParams(max_tokens=16, seed=i) for i in range(64)]
        return await asyncio.gather(
            *[base.sample(prompt(f"number {i}: "), 2, p) for i, p in enumerate(params)]
        )

    results = asyncio.run(story())
    assert all(len(one.tokens) <= 16 for result in results for one in result.sequences)
    again = base.sample(prompt("number 9: "), 2, SamplingParams(max_tokens=16, seed=9)).result()
    assert [one.tokens for one in results[9].sequences] == [one.tokens for one in again.sequences]


def test_training_and_sampling_at_once(client, sampler):
    run = client.create_lora_training_client(MODEL, rank=8).result()
    futures = [sampler.sample(prompt(), 1, SamplingParams(max_tokens=15, temperature=0)) for _ in range(16)]
    losses = [step(run) for _ in range(5)]
    assert {text_of(future.result().sequences[0]) for future in futures} == {ANSWER}
    assert losses[-1] < losses[0]


def test_cancelling(client, service):
    """What nobody waits for is not worked out to the end."""
    larger = client.create_sampling_client(base_model=LARGER).result()
    assert client.holder.get_client_dynamic_config().sample_cancel_enabled
    asked, sent = [], client.holder._send_cancel_request

    async def send(request_id):
        asked.append(request_id)
        await sent(request_id)

    client.holder._send_cancel_request = send
    try:

        async def story():
            long = SamplingParams(max_tokens=1900, stop=[])
            futures = [larger.sample(prompt(), 4, long) for _ in range(4)]
            await asyncio.sleep(0.5)
            for future in futures:
                with pytest.raises(asyncio.TimeoutError):
                    await future.result_async(timeout=0.01)
            while len(asked) < 4:
                await asyncio.sleep(0.02)

        asyncio.run(asyncio.wait_for(story(), 30))
    finally:
        client.holder._send_cancel_request = sent
    headers = {"X-API-Key": KEY}
    for request_id in asked:
        answer = httpx.post(
            f"{service.url}/api/v1/retrieve_future",
            json={"request_id": request_id},
            headers=headers,
            timeout=40,
        )
        assert answer.status_code in (200, 404, 410)
        assert "try_again" not in answer.text, "it is over"
        # It may be asked for twice, and too late.
        again = httpx.post(
            f"{service.url}/api/v1/cancel_future", json={"request_id": request_id}, headers=headers
        )
        assert again.is_success
    unknown = httpx.post(
        f"{service.url}/api/v1/cancel_future", json={"request_id": "nobody's"}, headers=headers
    )
    assert unknown.is_success
    assert len(drawn(larger, max_tokens=3, stop=[])[0]) == 3


def sample_elsewhere(handle, seed):
    client = tinker.SamplingClient.from_sampler_handle(handle, api_key=KEY)
    return [one.tokens for one in sample(client, SamplingParams(max_tokens=8, seed=seed), 2).sequences]


def test_in_other_processes(base):
    """Handles and pickles: each copy numbers its requests by itself."""
    copy = pickle.loads(pickle.dumps(base))
    assert copy._request_id_counter >= 1_000_000_000
    here = drawn(base, 2, max_tokens=8, seed=4)
    assert drawn(copy, 2, max_tokens=8, seed=4) == here
    handle = base.get_sampler_handle()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(sample_elsewhere, [(handle, 4), (handle, 4)]) == [here, here]


def test_by_the_session_s_poller(service, flags):
    """`retrieve_futures` instead of a poll for each request, and clone numbers given by the service."""
    flags(sample_use_retrieve_futures=True, sample_join_sampling_session=True)
    with tinker.ServiceClient(base_url=service.url) as client:
        base = client.create_sampling_client(base_model=MODEL).result()
        futures = [base.sample(prompt(), 2, SamplingParams(max_tokens=8, seed=i)) for i in range(40)]
        found = [[one.tokens for one in future.result().sequences] for future in futures]
        copies = [pickle.loads(pickle.dumps(base)) for _ in range(2)]
        for copy in copies:
            assert drawn(copy, 2, max_tokens=8, seed=3) == found[3]
        assert len({copy._cloned_sampler_id for copy in copies} | {0}) == 3
        with pytest.raises((tinker.RequestFailedError, tinker.APIStatusError)):
            base.sample(prompt([999_999]), 1, SamplingParams(max_tokens=1)).result(timeout=20)
        assert drawn(base, 2, max_tokens=8, seed=3) == found[3]


def test_without_retries(service, flags):
    flags(sample_no_retries=True)
    with tinker.ServiceClient(base_url=service.url) as client:
        base = client.create_sampling_client(base_model=MODEL).result()
        assert len(drawn(base, max_tokens=4)[0]) <= 4


def test_record_stability_info_is_accepted_or_refused(client):
    sampler = client.create_sampling_client(base_model=MODEL, record_stability_info=True).result()
    try:
        assert drawn(sampler, max_tokens=2)
    except (tinker.RequestFailedError, tinker.APIStatusError) as error:
        assert getattr(error, "status_code", 400) in (400, 422)


def test_retry_config(client):
    from tinker.lib.retry_handler import RetryConfig

    config = RetryConfig(max_connections=2)
    sampler = client.create_sampling_client(base_model=MODEL, retry_config=config).result()
    assert len(drawn(sampler, max_tokens=3)[0]) <= 3


def test_a_prompt_that_fills_the_context_can_be_scored(base, rest):
    """Such as what was sampled up to its end."""
    models = rest.get_server_capabilities().result().supported_models
    context = {model.model_name: model.max_context_length for model in models}[MODEL]
    whole = base.compute_logprobs(prompt([65] * context)).result()
    start = base.compute_logprobs(prompt([65] * (context - 1))).result()
    assert len(whole) == context and whole[1:-1] == pytest.approx(start[1:])
    with pytest.raises(tinker.RequestFailedError):
        sample(base, SamplingParams(max_tokens=1), text=[65] * context)


def test_tokenizer_of_a_sampling_client(service, tmp_path):
    """In a process of its own: Hugging Face's libraries read their environment once."""
    program = (
        "import tinker\n"
        f"client = tinker.ServiceClient().create_sampling_client(base_model={MODEL!r})\n"
        "tokenizer = client.get_tokenizer()\n"
        "assert tokenizer.encode('hé', add_special_tokens=False) == list('hé'.encode())\n"
        "assert tokenizer.eos_token_id == 257 and tokenizer.model_max_length == 1024\n"
    )
    hub = {"HF_ENDPOINT": service.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
    environment = {**os.environ, "TINKER_BASE_URL": service.url, **hub}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
