"""Failures on purpose, asked for by `retinker local fault`, as the official SDK meets them."""

import os
import subprocess
import threading
import time

import pytest
import tinker

from data import BATCH, MODEL, adam, logprobs, step
from service import Service

#: A call that has not returned by then hangs.
PATIENCE = 60


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    service = Service(tmp_path_factory.mktemp("faulty"), "--faults")
    yield service
    service.stop()


@pytest.fixture
def fault(faulty):
    """`retinker local fault ...`; what is left of it is forgotten after the test."""

    def ask(*arguments, fails=False):
        binary = os.environ["RETINKER_BIN"]
        command = [binary, "local", "fault", *map(str, arguments), "--url", faulty.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    yield ask
    ask("clear")


@pytest.fixture
def run(faulty):
    with tinker.ServiceClient(base_url=faulty.url) as client:
        yield client.create_lora_training_client(MODEL, rank=4, seed=5).result()


@pytest.fixture
def undisturbed(faulty):
    """The losses of three steps that nothing happens to."""
    with tinker.ServiceClient(base_url=faulty.url) as client:
        calm = client.create_lora_training_client(MODEL, rank=4, seed=5).result()
        return [step(calm) for _ in range(3)]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_can_be_tried_again_is_and_happens_once(fault, run, undisturbed, status):
    losses = [step(run)]
    fault("fail", "forward_backward", "--status", status, "--times", 2)
    fault("fail", "optim_step", "--status", status, "--empty-body")
    losses += [step(run) for _ in range(2)]
    assert losses == undisturbed


@pytest.mark.parametrize("endpoint", ["forward_backward", "optim_step", "save_weights"])
@pytest.mark.parametrize("status", [400, 404, 422])
def test_what_cannot_be_tried_again_is_raised_and_the_run_goes_on(fault, run, endpoint, status):
    calls = {
        "forward_backward": lambda: run.forward_backward(BATCH, "cross_entropy"),
        "optim_step": lambda: run.optim_step(adam()),
        "save_weights": lambda: run.save_state("never"),
    }
    before = logprobs(run)
    fault("fail", endpoint, "--status", status)
    with pytest.raises(tinker.APIStatusError) as raised:
        calls[endpoint]().result(timeout=PATIENCE)
    assert raised.value.status_code == status and "on purpose" in str(raised.value)
    # Its number came and was refused: nothing was done, and nothing waits for it.
    after = run.forward(BATCH, "cross_entropy").result(timeout=PATIENCE)
    assert [one["logprobs"].tolist() for one in after.loss_fn_outputs]
    assert (logprobs(run) == before).all()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_dropped_connection_costs_nothing_and_nothing_happens_twice(fault, run, undisturbed, when):
    losses = [step(run)]
    fault("drop", "forward_backward", "--when", when)
    fault("drop", "optim_step", "--when", when)
    fault("drop", "retrieve_future", "--when", when)
    losses += [step(run) for _ in range(2)]
    assert losses == undisturbed


def test_a_delayed_answer_comes(fault, run, undisturbed):
    fault("delay", "optim_step", "--ms", 1500)
    begun = time.monotonic()
    losses = [step(run) for _ in range(3)]
    assert losses == undisturbed
    assert time.monotonic() - begun >= 1.5


@pytest.mark.parametrize("options", [(), ("--rate-limit",)])
def test_in_a_pause_clients_wait_and_then_go_on(fault, run, undisturbed, options):
    losses = [step(run)]
    fault("pause", "--reason", "maintenance", *options)
    waiting = run.forward_backward(BATCH, "cross_entropy")
    with pytest.raises(Exception) as early:
        waiting.result(timeout=2)
    assert "timeout" in type(early.value).__name__.lower()
    threading.Timer(1, fault, ["resume"]).start()
    losses.append(waiting.result(timeout=PATIENCE).metrics["loss:sum"])
    run.optim_step(adam()).result(timeout=PATIENCE)
    losses.append(step(run))
    assert losses == undisturbed


def test_a_poisoned_run_says_so_and_a_successor_goes_on(faulty, fault, run, undisturbed):
    losses = [step(run)]
    path = run.save_state("kept").result().path
    step(run)
    fault("poison", run.model_id, "--reason", "a machine died")
    with pytest.raises(tinker.TinkerError, match="a machine died"):
        step(run)
    rest = tinker.RestClient(base_url=faulty.url)
    assert rest.get_training_run(run.model_id).result().corrupted
    with tinker.ServiceClient(base_url=faulty.url) as client:
        successor = client.create_training_client_from_state_with_optimizer(path).result()
        losses += [step(successor) for _ in range(2)]
    assert losses == undisturbed


def test_a_stopped_trainer_costs_only_what_was_not_saved(faulty, fault, run):
    step(run)
    fault("stop-trainer", run.model_id)
    with pytest.raises(tinker.TinkerError, match="its trainer lost its memory"):
        step(run)
    with tinker.ServiceClient(base_url=faulty.url) as client:
        step(client.create_lora_training_client(MODEL, rank=4).result())


def test_an_operation_fails_when_its_turn_comes(fault, run):
    fault("fail-operation", "save_weights")
    with pytest.raises(tinker.TinkerError, match="save_weights failed on purpose"):
        run.save_state("never").result()
    assert run.save_state("kept").result().path.endswith("/weights/kept")


def test_a_checkpoint_that_expired_or_was_damaged_is_named(faulty, fault, run):
    gone, broken = (run.save_state(name).result().path for name in ("gone", "broken"))
    fault("expire", gone)
    fault("damage", broken)
    with tinker.ServiceClient(base_url=faulty.url) as client:
        for path, words in ((gone, "expired"), (broken, "checksum|damaged")):
            with pytest.raises(tinker.TinkerError, match=words) as raised:
                client.create_training_client_from_state_with_optimizer(path).result()
            assert path in str(raised.value)


def test_what_cannot_be_asked_for_is_refused_in_words(fault, run):
    assert "no endpoint 'nosuch'" in fault("fail", "nosuch", fails=True)
    assert "forward_backward" in fault("fail", "nosuch", fails=True)
    assert "does not exist" in fault("poison", "nobody:train:0", fails=True)
    assert "status" in fault("fail", "optim_step", "--status", 200, fails=True)
