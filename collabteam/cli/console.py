"""``collabteam NAME`` runs a command; ``collabteam`` alone lists commands and a root's cameras."""

from __future__ import annotations

import re
import shlex
import sys
import textwrap
from collections.abc import Sequence

from collabteam.cli.command import Command, find_cameras
from collabteam.cli.commands import command, commands
from collabteam.cli.endings import ending
from collabteam.cli.words import given, texts
from collabteam.errors import UserError, plain
from collabteam.monitoring.progress import progress
from collabteam.settings import home_path
from collabteam.settings.checks import shown

_WIDTH = 100


def main() -> None:
    """Run ``collabteam NAME ...``, or list the commands and the cameras of ``root=...``."""
    sys.exit(ending("collabteam", sys.argv[1:], _main))


def _main(words: Sequence[str]) -> int:
    if words and not words[0].startswith("-") and "=" not in words[0]:
        chosen = command(words[0])
        sys.argv = [f"collabteam.{chosen.name}", *words[1:]]
        chosen()
    for line in _overview(words):
        print(plain(line))
    return 0


def _overview(words: Sequence[str]) -> list[str]:
    """The commands, and the cameras with their state and next step.

    Raises:
        UserError: A word other than ``root=...`` was given, or the root is not a usable address.
    """
    if wrong := [word for word in words if not re.match(r"-h$|--help$|root=.", word)]:
        raise UserError(f"{shown(wrong[0])}: expected the name of a command, or root=FOLDER")
    lines = ["commands, each with --help:", *_commands(commands()), ""]
    # No sweep is possible here, so commas are part of the name.
    typed = given(words).get("root", "outputs")
    root = home_path(texts(typed)[0] if len(texts(typed)) == 1 else typed)
    where = "" if root == "outputs" else f" {shlex.quote(f'root={root}')}"
    found = find_cameras(root)
    if not found.cameras:
        lines.append(f"no cameras under {root}; to begin:")
        lines.append(f"  collabteam simulate camera=demo{where}")
        lines.append(f"  collabteam ingest camera=NAME path=DIR{where}")
    else:
        lines.append(f"cameras under {root}:")
    width = max(map(len, found.cameras), default=0) + 2
    for name, manifest in found.cameras.items():
        now = progress(manifest.parent)
        lines.append(f"  {name:{width}}{now.state}")
        if now.next:
            lines.append(f"  {'':{width}}next: collabteam {now.next}{where}")
    lines += [f"  {text}" for text in found.passed_over.values()]
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
