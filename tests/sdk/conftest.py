"""The service under test, and the official SDK's clients of it."""

import base64
import json
import logging
import os
import subprocess

import pytest

from service import KEY, Service

# Everything is here: the SDK may reach this machine and nothing else.
os.environ.update(
    {
        "TINKER_API_KEY": KEY,
        "TINKER_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }
)
for name in ("TINKER_BASE_URL", "TINKER_TAGS", "TINKER_PROJECT_ID", "TINKER_CREDENTIAL_CMD"):
    os.environ.pop(name, None)

import tinker  # noqa: E402  (it reads the environment)

import usage  # noqa: E402

usage.watch()

#: Whether every file of tests was run.
WHOLE = pytest.StashKey[bool]()


def all_is_run(session) -> bool:
    files = {item.path for item in session.items}
    options = session.config.option
    apart = session.config.rootpath / "test_torch.py"
    return not options.keyword and files >= {*session.config.rootpath.glob("test_*.py")} - {apart}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """What one of several processes that share the tests has seen."""
    output = getattr(node, "workeroutput", {})
    usage.called.update(output.get("called", ()))
    node.config.stash[WHOLE] = output.get("whole", False)


def pytest_sessionfinish(session, exitstatus):
    """What is skipped is not proven, nor, when all is run, what is never called."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput.update(called=sorted(usage.called), whole=all_is_run(session))
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not reporter or exitstatus != 0:
        return
    if reporter.stats.get("skipped"):
        reporter.write_line("tests were skipped: nothing here may be", red=True)
        session.exitstatus = 1
    whole = session.config.stash.get(WHOLE, None)
    if (all_is_run(session) if whole is None else whole) and (missing := usage.not_called()):
        reporter.write_line(f"no test calls {sorted(missing)}", red=True)
        session.exitstatus = 1


@pytest.fixture(scope="session")
def service(tmp_path_factory):
    """A service that most tests share."""
    service = Service(tmp_path_factory.mktemp("service"))
    # As a user would: only the address and a key are set.
    os.environ["TINKER_BASE_URL"] = service.url
    yield service
    service.stop()


@pytest.fixture
def own_service(tmp_path):
    """A service to be killed and started again."""
    service = Service(tmp_path)
    yield service
    if service.process is not None:
        service.stop()


@pytest.fixture(scope="module")
def client(service):
    """A session of its own for each file of tests."""
    with tinker.ServiceClient(base_url=service.url) as client:
        yield client


@pytest.fixture
def own_client(own_service):
    return tinker.ServiceClient(base_url=own_service.url)


@pytest.fixture(scope="session")
def rest(service):
    return tinker.RestClient(base_url=service.url)


@pytest.fixture
def run(client):
    """A run that nobody trained yet."""
    from data import MODEL

    return client.create_lora_training_client(MODEL, rank=8, seed=7).result()


@pytest.fixture
def flags(monkeypatch):
    """Makes the SDK work as if the service had told it these flags."""
    from tinker.lib.internal_client_holder import InternalClientHolder

    def set_flags(**flags):
        fetch = InternalClientHolder._fetch_client_config

        async def fetched(self, auth):
            return (await fetch(self, auth)).model_copy(update=flags)

        monkeypatch.setattr(InternalClientHolder, "_fetch_client_config", fetched)

    return set_flags


@pytest.fixture(scope="module")
def rust():
    """What the Rust client makes of things: `wire` of the crate of tests is asked, by its messages' members."""
    process = subprocess.Popen(
        [os.environ["RETINKER_WIRE"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def ask(what, **members):
        for name, value in members.items():
            if isinstance(value, bytes):
                members[name] = base64.b64encode(value).decode()
        process.stdin.write(json.dumps({"ask": what, **members}) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert "error" not in answer, answer
        return base64.b64decode(answer["body"]) if set(answer) == {"body"} else answer

    yield ask
    process.stdin.close()
    assert process.wait() == 0


@pytest.fixture(autouse=True)
def no_telemetry_refused(caplog):
    """The SDK sends telemetry in the background; a refusal of it would only be logged."""
    yield
    for record in caplog.records:
        if "telemetry" in record.name.lower() or "telemetry" in record.getMessage().lower():
            assert record.levelno < logging.WARNING, record.getMessage()
