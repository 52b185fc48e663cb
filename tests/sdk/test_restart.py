"""The service is killed under a client that lives on."""

import time

import pytest
import tinker
from tinker import types

from data import BATCH, LARGER, MODEL, datum, step


def restart(service):
    service.kill()
    service.start()


def rest(service):
    return tinker.RestClient(base_url=service.url)


def twin(client, steps):
    """What the run would have been, had nothing happened."""
    run = client.create_lora_training_client(MODEL, rank=8, seed=7).result()
    return [step(run) for _ in range(steps)]


def test_a_clean_run_goes_on_with_the_same_client(own_service, own_client):
    run = own_client.create_lora_training_client(MODEL, rank=8, seed=7, user_metadata={"a": "b"}).result()
    losses = [step(run) for _ in range(3)]
    path = run.save_state("safe", user_metadata={"step": "3"}).result().path
    restart(own_service)
    found = rest(own_service).get_training_run(run.model_id).result()
    assert not found.corrupted and found.user_metadata == {"a": "b"}
    assert found.last_checkpoint.tinker_path == path and found.last_checkpoint.user_metadata == {"step": "3"}
    losses += [step(run) for _ in range(3)]
    assert losses == twin(own_client, 6), "with its optimizer, bit for bit"


def test_an_untouched_run_goes_on(own_service, own_client):
    """Nothing was done to it, so nothing of it can be lost."""
    run = own_client.create_lora_training_client(MODEL, rank=8, seed=7).result()
    restart(own_service)
    assert [step(run) for _ in range(2)] == twin(own_client, 2)


@pytest.mark.parametrize("saved_before", [False, True])
def test_a_run_with_unsaved_work_is_lost(own_service, own_client, saved_before):
    run = own_client.create_lora_training_client(MODEL, rank=8, seed=7).result()
    losses = [step(run) for _ in range(3)]
    path = run.save_state("last").result().path if saved_before else None
    step(run)
    restart(own_service)
    assert rest(own_service).get_training_run(run.model_id).result().corrupted is True
    with pytest.raises(tinker.RequestFailedError) as caught:
        run.forward_backward(BATCH, "cross_entropy").result()
    assert caught.value.category == types.RequestErrorCategory.Server
    assert run.model_id in str(caught.value)
    if path:
        again = own_client.create_training_client_from_state_with_optimizer(path).result()
        losses += [step(again) for _ in range(3)]
        assert losses == twin(own_client, 6)


def test_gradients_that_no_step_used_are_unsaved_work(own_service, own_client):
    run = own_client.create_lora_training_client(MODEL, rank=8, seed=7).result()
    run.forward_backward(BATCH, "cross_entropy").result()
    run.save_state("with-gradients").result()
    restart(own_service)
    assert rest(own_service).get_training_run(run.model_id).result().corrupted is True


def test_waiting_requests_of_a_lost_run_fail(own_service, own_client):
    run = own_client.create_lora_training_client(LARGER, rank=8).result()
    data = [datum([65 + i % 20 for i in range(500)])] * 4
    futures = [run.forward_backward(data, "cross_entropy") for _ in range(40)]
    futures[0].result()
    restart(own_service)
    errors = [future.future().exception(timeout=60) for future in futures]
    failed = [error for error in errors if error is not None]
    assert failed, "they cannot all have been done"
    for error in failed:
        assert isinstance(error, tinker.RequestFailedError), error
        assert error.category == types.RequestErrorCategory.Server
    assert rest(own_service).get_training_run(run.model_id).result().corrupted is True


def test_nothing_acknowledged_is_lost(own_service, own_client):
    """Checkpoints of every kind, publishing, times to live, sessions and their names."""
    run = own_client.create_lora_training_client(MODEL, rank=4).result()
    step(run)
    paths = [
        run.save_state("s").result().path,
        run.save_weights_for_sampler("s").result().path,
        run.save_weights_external("s").result().path,
    ]
    client = rest(own_service)
    client.publish_checkpoint_from_tinker_path(paths[0]).result()
    client.set_checkpoint_ttl_from_tinker_path(paths[1], 7200).result()
    before = client.list_checkpoints(run.model_id).result().checkpoints
    sampler = own_client.create_sampling_client(model_path=paths[1]).result()
    said = sampler.compute_logprobs(types.ModelInput.from_ints([65, 66, 67])).result()
    restart(own_service)
    client = rest(own_service)
    assert client.list_checkpoints(run.model_id).result().checkpoints == before
    assert {one.tinker_path for one in before} == set(paths)
    assert own_client.holder.get_session_id() in client.list_sessions().result().sessions
    assert client.get_external_weights_urls(paths[2]).result().urls
    # The sampler of saved weights is as good as they are.
    assert sampler.compute_logprobs(types.ModelInput.from_ints([65, 66, 67])).result() == said


def test_samples_are_asked_for_again(own_service, own_client):
    """A lost sample is answered 410, and the SDK submits it anew; nobody has to notice."""
    sampler = own_client.create_sampling_client(base_model=LARGER).result()
    params = types.SamplingParams(max_tokens=400, seed=1, stop=[])
    futures = [sampler.sample(types.ModelInput.from_ints([65]), 2, params) for _ in range(4)]
    time.sleep(0.3)
    restart(own_service)
    results = [future.future().result(timeout=80) for future in futures]
    assert len({tuple(one.tokens) for result in results for one in result.sequences}) == 2


def test_unnamed_weights_end_in_an_error(own_service, own_client):
    """They were never promised to last; their sampler must say so and not hang."""
    run = own_client.create_lora_training_client(MODEL, rank=4).result()
    step(run)
    sampler = run.save_weights_and_get_sampling_client().result()
    prompt = types.ModelInput.from_ints([65, 66, 67])
    before = sampler.compute_logprobs(prompt).result()
    restart(own_service)
    try:
        assert sampler.compute_logprobs(prompt).future().result(timeout=20) == before
    except (tinker.APIStatusError, tinker.RequestFailedError):
        pass


def test_stopping_is_clean(own_service, own_client):
    """Ctrl-C, unlike a kill, may lose work too, but not what was saved."""
    run = own_client.create_lora_training_client(MODEL, rank=8, seed=7).result()
    losses = [step(run) for _ in range(2)]
    run.save_state("x").result()
    own_service.stop()
    own_service.start()
    assert losses + [step(run)] == twin(own_client, 3)
