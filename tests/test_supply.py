"""Pinned packages lie within the bounds of pyproject.toml, and their licences are listed."""

from __future__ import annotations

import re
import tomllib

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PIN = re.compile(
    r"^([A-Za-z0-9._-]+)==(\S+)(?: ;[^\\]*)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.M
)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: str) -> dict[str, Version]:
    """Versions by name; every line of the file must be part of a pin with hashes."""
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    found = PIN.findall(text)
    left = PIN.sub("", re.sub(r"^#.*$", "", text, flags=re.M)).strip()
    assert left == ""
    return {normal(name): Version(version) for name, version, _ in found}


@pytest.mark.parametrize(
    ("file", "extras"), [("requirements.lock", ()), ("requirements-dev.lock", ("dev",))]
)
def test_every_dependency_is_pinned_within_its_bounds(file: str, extras: tuple[str, ...]) -> None:
    pinned = pins(file)
    lines = list(PROJECT["dependencies"])
    todo = list(extras)
    while todo:
        for line in PROJECT["optional-dependencies"][todo.pop()]:
            one = Requirement(line)
            if one.name == "collabteam":
                todo += one.extras
            else:
                lines.append(line)
    for one in map(Requirement, lines):
        assert pinned[normal(one.name)] in one.specifier, f"{one}: run make lock"


def test_both_files_pin_one_version() -> None:
    core, every = pins("requirements.lock"), pins("requirements-dev.lock")
    assert core == {name: every[name] for name in core}
    assert not {"ultralytics", "boxmot"} & core.keys()  # AGPL


def test_the_malicious_releases_are_excluded() -> None:
    assert pins("requirements.lock")["lightning"] not in {Version("2.6.2"), Version("2.6.3")}


def test_the_page_of_licences_lists_what_is_pinned() -> None:
    text = (REPOSITORY / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (.+) \|$", text, re.M)
    listed = {normal(name): version for name, version, _ in rows if name != "package"}
    every = pins("requirements-dev.lock")
    assert {name: every.get(name) for name in listed} == {
        name: Version(version) for name, version in listed.items()
    }, "run make licences"
    # The page is made on Linux with an x86 processor and the oldest Python.
    elsewhere = {"appnope", "colorama", "pywin32", "setuptools"}
    assert every.keys() - listed.keys() <= elsewhere, "run make licences"
