"""ServiceClient: sessions, and the ways to get at the other clients."""

import asyncio

import pytest
import tinker
from tinker import types

from data import LARGER, MODEL, logprobs, step


def finished(rest, session_id):
    """How the service says that the session ended."""
    request = types.SessionSearchRequest(session_id=session_id)
    (found,) = rest.search_sessions(request).result().sessions
    return found.status


def test_capabilities(client, rest):
    models = {model.model_name: model for model in client.get_server_capabilities().supported_models}
    assert {MODEL, LARGER} <= set(models)
    for model in models.values():
        assert model.trainable and model.sampleable
        assert model.max_context_length >= 1024
    again = asyncio.run(client.get_server_capabilities_async())
    assert [m.model_name for m in again.supported_models] == list(models)
    assert rest.get_server_capabilities().result() == again


def test_environment_is_enough(service):
    """`TINKER_BASE_URL` and a dummy key; nothing else is set."""
    with tinker.ServiceClient() as client:
        assert client.create_lora_training_client(MODEL, rank=2).result().model_id


def test_session_carries_what_it_was_given(service, rest, monkeypatch):
    monkeypatch.setenv("TINKER_TAGS", "one,two")
    with tinker.ServiceClient(
        {"purpose": "test", "wer": "müller"}, "a-project", display_name="Nightly run 7", base_url=service.url
    ) as client:
        run = client.create_lora_training_client(MODEL, rank=2, user_metadata={"kind": "sft"}).result()
        session_id = client.holder.get_session_id()
        assert client.get_console_url().endswith(session_id)
        session = rest.get_session(session_id).result()
        assert session.user_metadata == {"purpose": "test", "wer": "müller"}
        assert session.display_name == "Nightly run 7"
        assert session.training_run_ids == [run.model_id]
        assert rest.get_training_run(run.model_id).result().user_metadata == {"kind": "sft"}
    (found,) = rest.search_sessions(types.SessionSearchRequest(session_id=session_id)).result().sessions
    assert found.project_id == "a-project"


def test_all_options_of_a_run(client, rest):
    for layers in [{"train_mlp": False}, {"train_attn": False, "train_unembed": False}, {}]:
        run = client.create_lora_training_client(
            MODEL, rank=4, seed=3, user_metadata={"a": "b"}, optimizer=tinker.AdamOptimizerConfig(), **layers
        ).result()
        info = run.get_info()
        assert (info.model_data.model_name, info.is_lora, info.lora_rank) == (MODEL, True, 4)
        assert info.optimizer_config.type == "adamw"
        path = run.save_state("now").result().path
        weights = rest.get_weights_info_by_tinker_path(path).result()
        for layer in ("train_mlp", "train_attn", "train_unembed"):
            assert getattr(weights, layer) is layers.get(layer, True), layer
        assert (weights.base_model, weights.is_lora, weights.lora_rank) == (MODEL, True, 4)


def test_same_seed_same_run(client):
    losses = []
    for seed in (5, 5, 6):
        run = client.create_lora_training_client(MODEL, rank=8, seed=seed).result()
        losses.append([step(run) for _ in range(3)])
    assert losses[0] == losses[1]
    assert losses[0][0] == losses[2][0], "an adapter starts as nothing, whatever its seed"
    assert losses[0][1:] != losses[2][1:]


@pytest.mark.parametrize(
    "options",
    [
        {"base_model": "meta-llama/Llama-3.1-8B"},
        {"base_model": MODEL, "rank": 100_000},
        {"base_model": MODEL, "rank": 0},
        {"base_model": MODEL, "optimizer": tinker.DimuonOptimizerConfig()},
    ],
    ids=["unknown model", "rank too high", "no rank", "another optimizer"],
)
def test_what_cannot_be_made_is_the_users_error(client, options):
    with pytest.raises((tinker.RequestFailedError, tinker.APIStatusError)) as caught:
        client.create_lora_training_client(**options).result()
    error = caught.value
    if isinstance(error, tinker.RequestFailedError):
        assert error.category == types.RequestErrorCategory.User
    else:
        assert 400 <= error.status_code < 500 and error.status_code not in (408, 409, 429)
    # The session goes on.
    assert client.create_lora_training_client(MODEL, rank=2).result().model_id


def test_from_state(client, rest):
    run = client.create_lora_training_client(MODEL, rank=8, seed=1).result()
    for _ in range(3):
        step(run)
    path = run.save_state("half-way", user_metadata={"step": "3"}).result().path
    there = logprobs(run)
    after = [step(run) for _ in range(3)]

    whole = client.create_training_client_from_state_with_optimizer(path, user_metadata={"of": "it"}).result()
    assert whole.model_id != run.model_id
    assert rest.get_training_run(whole.model_id).result().user_metadata == {"of": "it"}
    assert logprobs(whole).tolist() == there.tolist()
    assert [step(whole) for _ in range(3)] == after, "the optimizer is part of the state"

    cold = client.create_training_client_from_state(
        path, base_model=MODEL, optimizer=tinker.AdamOptimizerConfig(), weights_access_token="any"
    ).result()
    assert cold.get_info().lora_rank == 8
    assert logprobs(cold).tolist() == there.tolist()
    colder = [step(cold) for _ in range(3)]
    assert colder[0] == after[0] and colder[1:] != after[1:]


def test_from_state_async(client):
    async def story():
        run = await client.create_lora_training_client_async(MODEL, rank=4)
        saved = await run.save_state("x")
        again = await client.create_training_client_from_state_async(saved.path)
        with_optimizer = await client.create_training_client_from_state_with_optimizer_async(saved.path)
        directly = await client.create_training_client_from_state(saved.path)
        return {run.model_id, again.model_id, with_optimizer.model_id, directly.model_id}

    assert len(asyncio.run(story())) == 4


@pytest.mark.parametrize(
    "path", ["tinker://nobody:train:0/weights/x", "tinker://x", "tinker://a/weights/b/c", "nonsense"]
)
def test_from_no_state(client, path):
    with pytest.raises((tinker.RequestFailedError, tinker.BadRequestError, tinker.NotFoundError)) as caught:
        client.create_training_client_from_state(path).result()
    assert path in str(caught.value), "the error names what is missing"


def test_from_a_state_of_another_model(client):
    path = client.create_lora_training_client(MODEL, rank=2).result().save_state("x").result().path
    with pytest.raises((tinker.RequestFailedError, tinker.APIStatusError)):
        client.create_training_client_from_state(path, base_model=LARGER).result()


@pytest.mark.parametrize("status", ["success", "errored", "interrupted"])
def test_close(service, rest, status):
    client = tinker.ServiceClient(base_url=service.url)
    run = client.create_lora_training_client(MODEL, rank=2).result()
    session_id = client.holder.get_session_id()
    assert finished(rest, session_id).type == "active"
    client.close(status, "that was it").result()
    client.close("success").result()
    ended = finished(rest, session_id)
    assert (ended.type, ended.reason.type) == ("client_finished", status)
    with pytest.raises(RuntimeError, match="closed"):
        client.create_lora_training_client(MODEL)
    assert rest.get_training_run(run.model_id).result().training_run_id == run.model_id


@pytest.mark.parametrize(
    "error, status", [(None, "success"), (ValueError, "errored"), (KeyboardInterrupt, "interrupted")]
)
def test_leaving_the_context(service, rest, error, status):
    session_id = None
    try:
        with tinker.ServiceClient(base_url=service.url) as client:
            session_id = client.holder.get_session_id()
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert finished(rest, session_id).reason.type == status


def test_a_finished_session_takes_no_more_work(service):
    """Another client of the same session, whose heartbeat learns that it is over."""
    import httpx

    from service import KEY

    client = tinker.ServiceClient(base_url=service.url)
    run = client.create_lora_training_client(MODEL, rank=2).result()
    session_id = client.holder.get_session_id()
    client.close("success").result()
    headers = {"X-API-Key": KEY}
    beat = httpx.post(
        f"{service.url}/api/v1/session_heartbeat", json={"session_id": session_id}, headers=headers
    )
    assert beat.status_code == 410
    body = {"model_id": run.model_id, "seq_id": 1, "adam_params": {}}
    step = httpx.post(f"{service.url}/api/v1/optim_step", json=body, headers=headers)
    assert 400 <= step.status_code < 500 and step.status_code not in (408, 409, 429)


def test_rest_client_needs_no_session(service, rest, client):
    total = len(rest.list_sessions(limit=1000).result().sessions)
    of_client = client.create_rest_client()
    assert of_client.list_training_runs().result().cursor.total_count >= 0
    assert len(rest.list_sessions(limit=1000).result().sessions) == total


def test_a_key_is_refused(tmp_path):
    from service import Service

    (tmp_path / "keyed").mkdir()
    keyed = Service(tmp_path / "keyed", "--api-key", "tml-right")
    try:
        with pytest.raises(tinker.AuthenticationError):
            tinker.ServiceClient(base_url=keyed.url, api_key="tml-wrong").create_lora_training_client(
                MODEL
            ).result()
        right = tinker.ServiceClient(base_url=keyed.url, api_key="tml-right")
        assert right.create_lora_training_client(MODEL, rank=2).result().model_id
    finally:
        keyed.stop()
