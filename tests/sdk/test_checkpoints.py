"""Saving and loading, and the files that leave the service."""

import asyncio
import io
import json
import tarfile
import urllib.request
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import tinker
from safetensors.numpy import load

from data import MODEL, logprobs, step
from service import KEY

CHECKPOINT = {"adapter_config.json", "adapter_model.safetensors"}


@pytest.fixture
def trained(run):
    for _ in range(3):
        step(run)
    return run


def checkpoints(rest, run):
    return {c.checkpoint_id: c for c in rest.list_checkpoints(run.model_id).result().checkpoints}


def check_adapter(config: bytes, weights: bytes, rank: int = 8):
    """What peft would read: both factors of every adapted weight, of the rank that is announced."""
    config = json.loads(config)
    assert config["peft_type"] == "LORA" and config["r"] == rank and config["lora_alpha"] > 0
    tensors = load(weights)
    for name in tensors:
        assert name.startswith("base_model.model.") and name.endswith((".lora_A.weight", ".lora_B.weight")), (
            name
        )
    narrow = {name: tensor for name, tensor in tensors.items() if name.endswith(".lora_A.weight")}
    assert len(tensors) == 2 * len(narrow) > 0
    for name, a in narrow.items():
        b = tensors[name.replace("lora_A", "lora_B")]
        assert a.shape[0] == b.shape[1] == rank, name
    assert any(tensor.any() for name, tensor in tensors.items() if "lora_B" in name), "nothing was trained"
    return tensors


def test_save_state(trained, rest):
    saved = trained.save_state("s-1.a_B", user_metadata={"step": "3"}).result()
    assert saved.path == f"tinker://{trained.model_id}/weights/s-1.a_B"
    found = checkpoints(rest, trained)["weights/s-1.a_B"]
    assert (found.checkpoint_type, found.tinker_path, found.public) == ("training", saved.path, False)
    assert found.user_metadata == {"step": "3"} and found.expires_at is None
    assert found.size_bytes > 1000
    assert abs(datetime.now(UTC) - found.time) < timedelta(minutes=1)
    assert rest.get_training_run(trained.model_id).result().last_checkpoint.tinker_path == saved.path


def test_time_to_live(trained, rest):
    trained.save_state("week", ttl_seconds=604_800).result()
    left = checkpoints(rest, trained)["weights/week"].expires_at - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < left <= timedelta(days=7)


def test_overwrite(trained, rest):
    first = trained.save_state("best", user_metadata={"a": "1"}).result()
    taken = trained.save_state("best")
    with pytest.raises((tinker.RequestFailedError, tinker.BadRequestError)) as caught:
        taken.result(timeout=20)
    assert "best" in str(caught.value)
    step(trained)
    here = logprobs(trained)
    second = trained.save_state("best", overwrite=True, user_metadata={"b": "2"}).result()
    assert first.path == second.path
    assert checkpoints(rest, trained)["weights/best"].user_metadata == {"b": "2"}
    assert len(checkpoints(rest, trained)) == 1
    assert logprobs(trained).tolist() == here.tolist()


def test_overwritten_weights_are_loaded(client, trained):
    trained.save_state("best").result()
    step(trained)
    path = trained.save_state("best", overwrite=True).result().path
    assert (
        logprobs(client.create_training_client_from_state(path).result()).tolist()
        == logprobs(trained).tolist()
    )


@pytest.mark.parametrize("optimizer", [False, True])
def test_load_state_into_a_new_run(client, trained, optimizer):
    path = trained.save_state("old-way").result().path
    other = client.create_lora_training_client(MODEL, rank=8, seed=99).result()
    load = other.load_state_with_optimizer if optimizer else other.load_state
    load(path).result()
    assert logprobs(other).tolist() == logprobs(trained).tolist()
    after, there = [[step(run) for _ in range(3)] for run in (other, trained)]
    assert (after == there) is optimizer


def test_load_state_is_the_first_thing_or_nothing(trained):
    path = trained.save_state("x").result().path
    with pytest.raises(tinker.BadRequestError, match="not permitted"):
        trained.load_state(path).result()
    assert step(trained) > 0


def test_async(client):
    async def story():
        run = await client.create_lora_training_client(MODEL, rank=2)
        path = (await (await run.save_state_async("a"))).path
        sampler = (await (await run.save_weights_for_sampler_async("a"))).path
        external = (await (await run.save_weights_external_async("a"))).path
        other = await client.create_lora_training_client(MODEL, rank=2)
        await (await other.load_state_async(path))
        another = await client.create_lora_training_client(MODEL, rank=2)
        await (await another.load_state_with_optimizer_async(path))
        return path, sampler, external, run.model_id

    path, sampler, external, run = asyncio.run(story())
    assert path == f"tinker://{run}/weights/a"
    assert sampler == f"tinker://{run}/sampler_weights/a"
    assert external == f"tinker://{run}/external_weights/a"


def test_sampler_weights(trained, rest):
    saved = trained.save_weights_for_sampler("s", ttl_seconds=3600, user_metadata={"k": "v"}).result()
    assert saved.path == f"tinker://{trained.model_id}/sampler_weights/s"
    found = checkpoints(rest, trained)["sampler_weights/s"]
    assert (found.checkpoint_type, found.user_metadata) == ("sampler", {"k": "v"})
    assert found.expires_at is not None
    run = rest.get_training_run(trained.model_id).result()
    assert run.last_sampler_checkpoint.tinker_path == saved.path and run.last_checkpoint is None
    # A training checkpoint may have the same name.
    trained.save_state("s").result()
    assert set(checkpoints(rest, trained)) == {"sampler_weights/s", "weights/s"}


def test_sampler_weights_cannot_be_trained_on(client, trained):
    path = trained.save_weights_for_sampler("s").result().path
    with pytest.raises((tinker.RequestFailedError, tinker.BadRequestError, tinker.NotFoundError)):
        client.create_training_client_from_state(path).result()


def test_external_weights(trained, rest):
    path = trained.save_weights_external("out", ttl_seconds=7200).result().path
    assert path == f"tinker://{trained.model_id}/external_weights/out"
    found = checkpoints(rest, trained)["external_weights/out"]
    assert found.checkpoint_type == "external" and found.expires_at is not None
    signed = rest.get_external_weights_urls(path).result()
    assert CHECKPOINT <= set(signed.urls)
    assert signed.expires > datetime.now(UTC) + timedelta(minutes=5)
    # As the CLI does it: a plain GET, without a key.
    files = {name: urllib.request.urlopen(url, timeout=60) for name, url in signed.urls.items()}
    bodies = {name: answer.read() for name, answer in files.items()}
    for name, answer in files.items():
        assert int(answer.headers["Content-Length"]) == len(bodies[name])
    check_adapter(bodies["adapter_config.json"], bodies["adapter_model.safetensors"])
    rest.delete_checkpoint_from_tinker_path(path).result()
    with pytest.raises(tinker.NotFoundError):
        rest.get_external_weights_urls(path).result()
    for url in signed.urls.values():
        assert httpx.get(url).status_code in (403, 404, 410)


def test_urls_of_files_cannot_be_guessed(trained, rest):
    path = trained.save_weights_external("out").result().path
    url = rest.get_external_weights_urls(path).result().urls["adapter_config.json"]
    before, secret, name = url.rsplit("/", 2)
    assert len(secret) >= 32
    for forged in (secret[:-1] + ("0" if secret[-1] != "0" else "1"), "0" * len(secret), "..", "%2e%2e"):
        assert httpx.get(f"{before}/{forged}/{name}").status_code in (400, 403, 404), forged
    for other in ("..%2f..%2fdatabase.sqlite", "%2fetc%2fpasswd", "nothing"):
        assert httpx.get(f"{before}/{secret}/{other}").status_code in (400, 403, 404), other


def test_external_weights_are_those_of_their_moment(trained, rest):
    def weights(name):
        path = trained.save_weights_external(name).result().path
        urls = rest.get_external_weights_urls(path).result().urls
        return load(urllib.request.urlopen(urls["adapter_model.safetensors"]).read())

    first, again = weights("a"), weights("b")
    step(trained)
    later = weights("c")
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != later[name]).any() for name in first)


def test_encryption_is_refused_rather_than_left_out(trained):
    """Weights must not leave in the clear when they were asked for encrypted."""
    recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kdyrr9uqsq0pjx7"
    try:
        path = trained.save_weights_external("secret", age_encryption_recipients=[recipient]).result().path
    except (tinker.RequestFailedError, tinker.APIStatusError):
        return
    rest = tinker.RestClient(base_url=trained.holder._base_url)
    assert all(name.endswith(".age") for name in rest.get_external_weights_urls(path).result().urls)


def test_archive(service, trained):
    """What older clients download: one tar of a sampler checkpoint, behind a redirect or an address."""
    path = trained.save_weights_for_sampler("tar").result().path
    url = f"{service.url}/api/v1/training_runs/{trained.model_id}/checkpoints/sampler_weights/tar/archive"
    answer = httpx.get(url, headers={"X-API-Key": KEY})
    assert answer.status_code in (200, 302), answer.text
    location = answer.headers["location"] if answer.status_code == 302 else answer.json()["url"]
    body = httpx.get(httpx.URL(url).join(location)).content
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        files = {
            member.name.removeprefix("./"): tar.extractfile(member).read()
            for member in tar
            if member.isfile()
        }
    assert CHECKPOINT <= set(files), path
    check_adapter(files["adapter_config.json"], files["adapter_model.safetensors"])


def test_a_save_does_not_disturb(client):
    """Gradients that were gathered before a save are there after it."""
    from data import BATCH, adam

    plain, saved = (client.create_lora_training_client(MODEL, rank=8, seed=8).result() for _ in range(2))
    for run in (plain, saved):
        run.forward_backward(BATCH, "cross_entropy")
        if run is saved:
            run.save_state("between")
            run.save_weights_for_sampler("between")
        run.optim_step(adam()).result()
    assert logprobs(plain).tolist() == logprobs(saved).tolist()
