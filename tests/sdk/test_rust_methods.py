"""The table of what the SDK's methods are called in Rust: each has its row, and each name is in the crate."""

import re
from pathlib import Path

import pytest

from usage import CLIENTS, public

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sdk-methods.md").read_text()
SOURCES = {
    "ServiceClient": "service.rs",
    "TrainingClient": "training/mod.rs",
    "SamplingClient": "sampling.rs",
    "RestClient": "rest.rs",
}
REASONS = ("deprecated", "Python only", "experimental")


def rows(client):
    section = PAGE.split(f"\n## {client}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `(\w+)` \| (.+?) \| (.*) ?\|$", section, re.MULTILINE)


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
        source = (ROOT / "crates" / "retinker" / "src" / "client" / SOURCES[owner]).read_text()
        assert re.search(rf"\n    pub (async )?fn {name}\b", source), f"{python}: there is no {owner}::{name}"


def test_names_in_the_remarks_are_in_the_crate():
    sources = "".join(path.read_text() for path in (ROOT / "crates" / "retinker" / "src" / "client").rglob("*.rs"))
    for client in CLIENTS:
        for _, _, remarks in rows(client.__name__):
            for name in re.findall(r"`(?:\w+::)?([a-z_]+)`", remarks):
                assert re.search(rf"\bfn {name}\b", sources), f"{client.__name__}: there is no {name}"
