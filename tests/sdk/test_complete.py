"""Nothing that the SDK offers is forgotten: each public method, and each command, is used by some test and has its row
on the page of what is there."""

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


CLIENTS = (
    tinker.ServiceClient,
    tinker.TrainingClient,
    tinker.SamplingClient,
    tinker.RestClient,
    tinker.AdminClient,
)
PAGE = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()


def public(client):
    return {name for name, _ in inspect.getmembers(client, callable) if not name.startswith("_")}


def methods():
    for client in CLIENTS:
        for name in sorted(public(client) - LOCAL):
            yield f"{client.__name__}.{name}"


def rows(heading: str):
    """What the table below a heading has in its first column."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


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


def test_the_page_has_each_method():
    for client in CLIENTS:
        # A method and its deprecated twin share a row.
        names = {name.removesuffix("_async") for name in public(client)} - {"holder"}
        assert sorted(rows(client.__name__)) == sorted(names), client.__name__


def test_the_page_has_each_command():
    assert sorted(rows("The tinker command")) == sorted(commands())
