"""SDKs of earlier days, each in an environment of its own."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from data import MODEL

#: The last that sent JSON, the first of protobuf, and one between that and today's.
VERSIONS = ["0.24.1", "0.25.0", "0.33.1"]


@pytest.fixture(scope="module", params=VERSIONS)
def seen(request, service):
    """What that version saw. `RETINKER_OLD_SDKS` names their Pythons: `version=path:version=path`."""
    pythons = dict(pair.split("=", 1) for pair in os.environ["RETINKER_OLD_SDKS"].split(os.pathsep))
    done = subprocess.run(
        [pythons[request.param], Path(__file__).with_name("old_sdk.py"), MODEL],
        env={**os.environ, "TINKER_BASE_URL": service.url},
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["version"] == request.param
    return seen


def test_it_trains(seen):
    assert MODEL in seen["models"] and seen["rank"] == 8
    assert seen["before"][-1] < 0.2 * seen["before"][0]
    assert 3 * seen["forward"] < 0.2 * seen["before"][0]


def test_it_saves_and_loads(seen):
    assert seen["path"] == f"tinker://{seen['run']}/weights/older"
    assert seen["warm"] == seen["after"]
    assert seen["cold"][0] == seen["after"][0] and seen["cold"] != seen["after"]


def test_it_samples(seen):
    assert seen["sampled"]["saved"] == seen["sampled"]["direct"]
    assert seen["sampled"]["saved"] == [list(b"client say")] * 2
    assert seen["sampled"]["base"] != seen["sampled"]["saved"]
    assert seen["logprobs"][0] is None and min(seen["logprobs"][1:]) < 0


def test_it_lists(seen):
    assert seen["run"] in seen["runs"]
    assert set(seen["checkpoints"]) == {seen["path"], seen["saved"]}


def test_its_tokenizer_works_offline(seen):
    assert seen["tokenizer"] == list(b"hi")
