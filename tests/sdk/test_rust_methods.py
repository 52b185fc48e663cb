"""The tables of what the SDK's methods and their arguments are called in Rust: each has its place, and each name is in
the crate."""

import inspect
import re
from pathlib import Path

import pytest

from usage import CLIENTS, public

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sdk-methods.md").read_text()
SOURCES = [path for crate in ("wire", "retinker") for path in (ROOT / "crates" / crate / "src").rglob("*.rs")]
CRATES = "\n".join(path.read_text() for path in sorted(SOURCES))
#: The clients that a program makes itself.
MADE = ("ServiceClient", "RestClient", "AdminClient")
REASONS = ("deprecated", "Python only", "experimental")


def rows(client):
    section = PAGE.split(f"\n## {client}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `(\w+)` \| (.+?) \| (.*) ?\|$", section, re.MULTILINE)


def arguments(client):
    """By method, where each of its arguments is."""
    section = PAGE.split(f"\n### {client}\n", 1)[1].split("\n### ", 1)[0]
    found = {}
    for method, listed in re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE):
        pairs = [re.fullmatch(r"`(\w+)`(?: = (.+))?", one).groups() for one in listed.split(", ")]
        assert len({name for name, _ in pairs}) == len(pairs), f"{method} has an argument twice"
        found[method] = {name: place or f"`{name}`" for name, place in pairs}
    return found


def body(kind, name):
    """What is between the braces of a type, or of what it can do."""
    braces = rf"^(?:pub )?{kind}(?:<[^\n]+>)? {name}\b[^\n]*\{{\n(.*?)^\}}$"
    return "\n" + "\n".join(re.findall(braces, CRATES, re.DOTALL | re.MULTILINE))


def is_member(owner, name):
    """Whether a type has such a field or variant."""
    return re.search(rf"\n    pub {name}:", body("struct", owner)) or re.search(rf"\n    {name}\b", body("enum", owner))


def signature(owner, method):
    return re.search(rf"\n    pub (?:async )?fn {method}\b.+? \{{\n", body("impl", owner), re.DOTALL)


def takes(owner, method, argument):
    return argument in re.findall(r"[(\s](\w+): ", signature(owner, method)[0])


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_each_method_has_its_row(client):
    # The holder is a member of what the clients are made of.
    methods = {name.removesuffix("_async") for name in public(client)} - {"holder"}
    assert sorted(name for name, _, _ in rows(client.__name__)) == sorted(methods)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_each_name_is_in_the_crate(client):
    for python, rust, remarks in rows(client.__name__):
        if rust == "-":
            assert remarks.startswith(REASONS), f"{python}: {remarks}"
            continue
        owner, name = re.fullmatch(r"`(\w+)::(\w+)`", rust).groups()
        assert signature(owner, name), f"{python}: there is no {owner}::{name}"


def test_names_in_the_remarks_are_in_the_crate():
    for client in CLIENTS:
        for _, _, remarks in rows(client.__name__):
            for name in re.findall(r"`(?:\w+::)?([a-z_]+)`", remarks):
                assert re.search(rf"\bfn {name}\b", CRATES), f"{client.__name__}: there is no {name}"


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_each_argument_is_listed(client):
    without = {name for name, rust, _ in rows(client.__name__) if rust == "-"}
    offered = {}
    for name in (public(client) - {"holder"}) | ({"__init__"} if client.__name__ in MADE else set()):
        names = set(inspect.signature(getattr(client, name)).parameters) - {"self", "_holder"}
        if name not in without and names:
            offered.setdefault(name.removesuffix("_async"), set()).update(names)
    assert {name: set(places) for name, places in arguments(client.__name__).items()} == offered


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_each_argument_is_in_the_crate(client):
    methods = {name: rust.strip("`").split("::") for name, rust, _ in rows(client.__name__)}
    for method, places in arguments(client.__name__).items():
        for name, place in places.items():
            said = f"{method} of {name}: {place}"
            if place.startswith("-"):
                assert place.removeprefix("- ") in REASONS, said
                continue
            owner, member, argument = re.fullmatch(r"`(?:(\w+)::)?(\w+)(?:\((\w+)\))?`", place).groups()
            if owner is None:
                assert takes(*methods[method], member), said
            elif argument is not None:
                assert takes(owner, member, argument), said
            else:
                assert is_member(owner, member) or signature(owner, member), said
