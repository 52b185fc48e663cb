"""Nothing that the SDK offers is forgotten: each public method, and each command, has its row on the page of what is
there, and is used by some test (that each method was called of its own client is seen by conftest.py at the end)."""

import re
from pathlib import Path

import click
from tinker.cli.__main__ import main_cli

from usage import CLIENTS, public

TESTS = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
#: Needs an account at Hugging Face, to which it would upload.
ELSEWHERE = {"checkpoint push-hf"}

PAGE = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()


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
