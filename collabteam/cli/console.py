"""``collabteam NAME`` runs a command; ``collabteam`` alone lists commands and a root's cameras."""

from __future__ import annotations

import re
import sys
import textwrap

from collabteam.cli.command import Command, registered_manifests
from collabteam.cli.commands import command, commands
from collabteam.cli.words import given
from collabteam.errors import UserError
from collabteam.monitoring.progress import progress

_WIDTH = 100


def main() -> None:
    """Run ``collabteam NAME ...``, or list the commands and the cameras of ``root=...``."""
    words = sys.argv[1:]
    try:
        if words and not words[0].startswith("-") and "=" not in words[0]:
            chosen = command(words[0])
            sys.argv = [f"collabteam.{chosen.name}", *words[1:]]
            chosen()
        print("\n".join(_overview(words)))
    except UserError as error:
        print(f"collabteam: {error}", file=sys.stderr)
        sys.exit(2)


def _overview(words: list[str]) -> list[str]:
    """The commands, and the cameras with their state and next step.

    Raises:
        UserError: A word other than ``root=...`` was given, or the root is not a usable address.
    """
    if wrong := [word for word in words if not re.match(r"-h$|--help$|root=.", word)]:
        raise UserError(f"{wrong[0]}: expected the name of a command, or root=FOLDER")
    lines = ["commands, each with --help:", *_commands(commands()), ""]
    root = given(words).get("root", "outputs")
    where = "" if root == "outputs" else f" root={root}"
    manifests = registered_manifests(root)
    if not manifests:
        lines.append(f"no cameras under {root}; to begin:")
        lines.append(f"  collabteam simulate camera=demo{where}")
        lines.append(f"  collabteam ingest camera=NAME path=DIR{where}")
        return lines
    lines.append(f"cameras under {root}:")
    width = max(map(len, manifests)) + 2
    for name, manifest in manifests.items():
        found = progress(manifest.parent)
        lines.append(f"  {name:{width}}{found.state}")
        if found.next:
            lines.append(f"  {'':{width}}next: collabteam {found.next}{where}")
    return lines


def _commands(known: dict[str, Command]) -> list[str]:
    width = max(map(len, known)) + 2
    lines = []
    for name, one in known.items():
        summary = re.split(r"[:;.] |[.;]$", one.about)[0]
        wrapped = textwrap.wrap(summary, _WIDTH - width - 2)
        lines.append(f"  {name:{width}}{wrapped[0]}")
        lines += [f"  {'':{width}}{line}" for line in wrapped[1:]]
    return lines
