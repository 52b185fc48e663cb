"""Nothing that the SDK offers is forgotten: each public method, and each command, is used by some test."""

import inspect
import re
from pathlib import Path

import click
import tinker
from tinker.cli.__main__ import main_cli

TESTS = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
#: Of the clients, but nothing to do with the service.
LOCAL = {"get_telemetry", "on_queue_state_change", "create", "holder"}
#: Needs an account at Hugging Face, to which it would upload.
ELSEWHERE = {"checkpoint push-hf"}


def methods():
    for client in (
        tinker.ServiceClient,
        tinker.TrainingClient,
        tinker.SamplingClient,
        tinker.RestClient,
        tinker.AdminClient,
    ):
        for name, _ in inspect.getmembers(client, callable):
            if not name.startswith("_") and name not in LOCAL:
                yield f"{client.__name__}.{name}"


def commands(group: click.Group = main_cli, path: str = ""):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}"


def test_methods():
    unused = [method for method in methods() if not re.search(rf"\.{method.split('.')[1]}\b", TESTS)]
    assert not unused, f"no test uses {unused}"


def test_commands():
    quoted = {command: ", ".join(f'"{word}"' for word in command.split()) for command in commands()}
    unused = {command for command, words in quoted.items() if words not in TESTS}
    assert unused == ELSEWHERE
