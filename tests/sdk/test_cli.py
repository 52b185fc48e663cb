"""The `tinker` command line, in tables and in JSON, with its exit codes."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from safetensors.numpy import load_file

from data import MODEL, step
from service import KEY


@pytest.fixture(scope="module")
def run(client):
    run = client.create_lora_training_client(MODEL, rank=4, user_metadata={"purpose": "cli"}).result()
    step(run)
    run.save_state("first").result()
    run.save_weights_for_sampler("second").result()
    run.save_weights_external("third").result()
    return run


@pytest.fixture
def tinker(service, tmp_path):
    """Runs the command in a home of its own; gives its exit code, output and errors."""

    def call(*arguments, input="", key=KEY, **environment):
        variables = {
            **os.environ,
            "HOME": str(tmp_path),
            "TINKER_BASE_URL": service.url,
            "COLUMNS": "250",
            **environment,
        }
        variables.pop("TINKER_API_KEY", None)
        if key is not None:
            variables["TINKER_API_KEY"] = key
        def once():
            return subprocess.run(
                [sys.executable, "-m", "tinker.cli", *arguments],
                env=variables,
                input=input,
                capture_output=True,
                text=True,
                timeout=60,
                cwd=tmp_path,
            )

        done = once()
        # CPython aborts, without a word, where a daemon thread (the SDK has one) is caught in its output's lock as the interpreter
        # ends. What the command did is asked for once more.
        if done.returncode == -signal.SIGABRT:
            done = once()
        return done.returncode, done.stdout, done.stderr

    return call


@pytest.fixture
def table(tinker):
    def call(*arguments, **options):
        code, out, err = tinker(*arguments, **options)
        assert code == 0, err
        return out

    return call


@pytest.fixture
def as_json(tinker):
    def call(*arguments, **options):
        code, out, err = tinker("-f", "json", *arguments, **options)
        assert code == 0, err
        return json.loads(out)

    return call


@pytest.fixture
def path(run, request):
    name = re.sub(r"\W", "-", request.node.name)
    return run.save_state(name, overwrite=True).result().path


def test_version(table):
    assert table("version").strip() == "tinker 0.38.0"


def test_run_list(table, as_json, run):
    listed = as_json("run", "list", "--limit", "0")["runs"]
    (one,) = [one for one in listed if one["training_run_id"] == run.model_id]
    assert (one["base_model"], one["lora_rank"], one["corrupted"]) == (MODEL, 4, False)
    assert one["user_metadata"] == {"purpose": "cli"}
    assert len(as_json("run", "list", "--limit", "1")["runs"]) == 1
    out = table("run", "list", "--limit", "0", "-c", "id,model,owner,lora,status,checkpoint,checkpoint_time")
    (line,) = [line for line in out.splitlines() if run.model_id in line]
    assert MODEL in line and "Rank 4" in line and "OK" in line and "weights/first" in line
    assert "more not shown" in table("run", "list", "--limit", "1") or len(listed) == 1


def test_run_info(table, as_json, tinker, run):
    out = table("run", "info", run.model_id)
    for expected in (MODEL, "Yes (Rank 4)", "weights/first", "sampler_weights/second", "purpose"):
        assert expected in out
    assert as_json("run", "info", run.model_id)["last_checkpoint"]["checkpoint_id"] == "weights/first"
    code, _, err = tinker("run", "info", "nobody:train:0")
    assert code == 1 and "Error: Resource not found" in err


def test_checkpoint_list(table, as_json, tinker, run):
    listed = as_json("checkpoint", "list", "--run-id", run.model_id)
    assert {"weights/first", "sampler_weights/second", "external_weights/third"} <= {
        one["checkpoint_id"] for one in listed["checkpoints"]
    }
    everything = as_json("checkpoint", "list", "--limit", "0")["checkpoints"]
    assert f"tinker://{run.model_id}/weights/first" in [one["tinker_path"] for one in everything]
    out = table("checkpoint", "list", "--run-id", run.model_id)
    (line,) = [line for line in out.splitlines() if "weights/first" in line]
    assert "training" in line and "Never" in line and re.search(r"\d (B|KB|MB)", line)
    assert tinker("checkpoint", "list", "--run-id", "nobody:train:0")[0] == 1


def test_checkpoint_info(table, as_json, tinker, run):
    path = f"tinker://{run.model_id}/weights/first"
    assert as_json("checkpoint", "info", path)["lora_rank"] == 4
    assert "Yes (Rank 4)" in table("checkpoint", "info", path)
    code, _, err = tinker("checkpoint", "info", path + "x")
    assert code == 1 and "not found" in err.lower()


def test_publish_and_unpublish(tinker, as_json, path):
    assert tinker("checkpoint", "publish", path) == (0, "", "")
    assert as_json("checkpoint", "info", path)["public"] is True
    assert tinker("checkpoint", "unpublish", path) == (0, "", "")
    assert as_json("checkpoint", "info", path)["public"] is False
    code, _, err = tinker("checkpoint", "publish", path + "x")
    assert code == 1 and "Error: Resource not found" in err


def test_set_ttl(tinker, as_json, path):
    assert tinker("checkpoint", "set-ttl", path, "--ttl", "7200") == (0, "", "")
    assert as_json("checkpoint", "info", path)["expires_at"]
    assert tinker("checkpoint", "set-ttl", path, "--remove") == (0, "", "")
    assert as_json("checkpoint", "info", path)["expires_at"] is None
    assert tinker("checkpoint", "set-ttl", path)[0] == 1
    code, _, err = tinker("checkpoint", "set-ttl", path, "--ttl", "0")
    assert code == 1 and re.search("Invalid", err)


def test_delete(tinker, table, as_json, client, run):
    paths = [run.save_state(f"delete-{i}", overwrite=True).result().path for i in range(3)]
    assert "Deleted 1 checkpoint" in table("checkpoint", "delete", paths[0], input="y\n")
    code, _, err = tinker("checkpoint", "delete", paths[1], input="n\n")
    assert code == 0, err
    assert as_json("checkpoint", "delete", "-y", *paths[1:])["deleted_count"] == 2
    gone = as_json("checkpoint", "delete", "-y", paths[0])
    assert gone["deleted_count"] == 0 and "404" in gone["failed"][0]["error"]
    other = client.create_lora_training_client(MODEL, rank=2).result()
    for name in ("a", "b"):
        other.save_state(name).result()
        other.save_weights_for_sampler(name).result()
    options = ("checkpoint", "delete", "-y", "--run-id", other.model_id)
    assert as_json(*options, "--type", "sampler", "--after", "2020-01-01")["deleted_count"] == 2
    assert as_json(*options)["deleted_count"] == 2
    assert as_json("checkpoint", "list", "--run-id", other.model_id)["checkpoints"] == []


@pytest.mark.parametrize("segment, name", [("weights", "first"), ("external_weights", "third")])
@pytest.mark.parametrize("format", ["table", "json"])
def test_download(tinker, tmp_path, run, rest, segment, name, format):
    path = f"tinker://{run.model_id}/{segment}/{name}"
    arguments = ("-f", format, "checkpoint", "download", path, "-o", str(tmp_path / "out"))
    code, out, err = tinker(*arguments)
    assert code == 0, err
    directory = tmp_path / "out" / path.removeprefix("tinker://").replace("/", "_")
    tensors = load_file(directory / "adapter_model.safetensors")
    assert json.loads((directory / "adapter_config.json").read_bytes())["r"] == 4
    assert all(
        tensor.shape[0 if name.endswith("lora_A.weight") else 1] == 4 for name, tensor in tensors.items()
    )
    if format == "json":
        answer = json.loads(out)
        assert answer["checkpoint_path"] == path
        assert answer["file_size_bytes"] == sum(f.stat().st_size for f in directory.iterdir())
    assert tinker(*arguments)[0] == 1, "it is there already"
    assert tinker(*arguments, "--force")[0] == 0
    # What was exported on the way is gone again.
    left = rest.list_user_checkpoints(limit=1000).result().checkpoints
    assert [one.tinker_path for one in left if one.checkpoint_id == "external_weights/download"] == []


def test_download_of_sampler_weights_is_refused(tinker, run):
    assert tinker("checkpoint", "download", f"tinker://{run.model_id}/sampler_weights/second")[0] == 1


def test_download_of_nothing(tinker, tmp_path, run):
    code, _, err = tinker(
        "checkpoint",
        "download",
        f"tinker://{run.model_id}/external_weights/none",
        "-o",
        str(tmp_path / "out"),
    )
    assert code == 1 and "Error: Resource not found" in err
    code, _, err = tinker(
        "checkpoint", "download", f"tinker://{run.model_id}/weights/none", "-o", str(tmp_path / "out")
    )
    assert code == 1 and "weights/none" in err
    assert not list((tmp_path / "out").glob("*"))


def test_session(tinker, client):
    session_id = client.holder.get_session_id()
    code, _, err = tinker("session", "export-trace", session_id)
    assert code == 1 and "Error: Resource not found" in err


def test_billing(tinker):
    code, _, err = tinker("billing", "usage", "2026-07-13T00:00:00Z", "2026-07-14T00:00:00Z")
    assert code == 1 and "Error: Resource not found" in err
    assert tinker("billing", "checkpoint-storage")[0] == 1


def test_model_list(table, as_json, tinker):
    assert MODEL in table("model", "list")
    (one,) = as_json("model", "list", "NANO")["models"]
    assert one["model_name"] == MODEL and one["trainable"] is True and one["sampleable"] is True
    code, _, err = tinker("model", "list", "no-such-model")
    assert code == 1 and "No model name contains 'no-such-model'" in err


def test_whoami(table, as_json):
    me = as_json("auth", "whoami")
    assert me["user_urn"] and me["org_urn"].startswith("tml:organization:")
    assert me["user_urn"] in table("auth", "whoami")


def test_auth_status(tinker, table):
    out = table("auth", "status")
    assert "Credentials available: yes" in out and "Tinker accessible: yes" in out
    code, out, _ = tinker("auth", "status", key=None)
    assert code == 1 and "Credentials available: no" in out


def test_login_and_logout(tinker, table, as_json, tmp_path, run):
    out = table("auth", "login", input=f"{KEY}\n", key=None)
    assert re.search(r"Logged in as \S+ \(.+\)", out)
    stored = json.loads((tmp_path / ".tinker/credentials.json").read_bytes())
    assert [one["key"] for one in stored["keys"].values()] == [KEY]
    assert as_json("run", "info", run.model_id, key=None)["training_run_id"] == run.model_id
    code, _, err = tinker("auth", "login", input=f"{KEY}\n", key=None)
    assert code == 1 and "Already logged in" in err
    assert "Removed credential" in table("auth", "logout", key=None)
    code, _, err = tinker("auth", "logout", key=None)
    assert code == 1 and "No default credential is stored" in err


def test_a_wrong_key(tinker, tmp_path):
    from service import Service

    (tmp_path / "keyed").mkdir()
    keyed = Service(tmp_path / "keyed", "--api-key", "tml-right")
    try:
        code, _, err = tinker("run", "list", TINKER_BASE_URL=keyed.url)
        assert code == 1 and "401" in err and KEY not in err
        code, out, _ = tinker("auth", "status", TINKER_BASE_URL=keyed.url)
        assert code == 1 and "Tinker accessible: no" in out
        assert tinker("run", "list", key="tml-right", TINKER_BASE_URL=keyed.url)[0] == 0
        assert tinker("auth", "whoami", key="tml-right", TINKER_BASE_URL=keyed.url)[0] == 0
        code, _, err = tinker("auth", "login", input="tml-wrong\n", key=None, TINKER_BASE_URL=keyed.url)
        assert code == 1 and "Could not validate the API key" in err and "HTTP 401" in err
    finally:
        keyed.stop()


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("run",),
        ("run", "info"),
        ("session", "list"),
        ("-f", "xml", "run", "list"),
        ("run", "list", "--nonsense"),
    ],
)
def test_misuse_is_exit_code_2(tinker, arguments):
    assert tinker(*arguments)[0] == 2
