"""Discovers the installed commands."""

from __future__ import annotations

from importlib import import_module, metadata
from pathlib import Path
from pkgutil import iter_modules

from collabteam.cli.command import Command
from collabteam.errors import UserError
from collabteam.settings.checks import nearest

ENTRY_POINTS = "collabteam.command"
"""The entry point group with which other packages add commands."""


def commands() -> dict[str, Command]:
    """All commands by name: first each module of the package with a :class:`Command`."""
    found: dict[str, Command] = {}
    for module in iter_modules([str(Path(__file__).parents[1])], "collabteam."):
        if module.ispkg or module.name.endswith("__"):
            continue
        main = getattr(import_module(module.name), "main", None)
        if isinstance(main, Command):
            found[main.name] = main
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda one: one.name):
        if point.name not in found:
            found[point.name] = _loaded(point)
    return found


def _loaded(point: metadata.EntryPoint) -> Command:
    try:
        main = point.load()
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"the command {point.name} of the entry point {point.value} cannot be loaded ({error}):"
            " repair or uninstall its package"
        ) from error
    if not isinstance(main, Command):
        raise UserError(f"the entry point {point.value} is not a collabteam.cli.command.Command")
    return main


def command(name: str) -> Command:
    """Find a command by its name.

    Raises:
        UserError: No command has this name; lists the nearest names.
    """
    known = commands()
    if name in known:
        return known[name]
    near = nearest(name, known) or list(known)
    raise UserError(f"no such command: {name}; nearest: {', '.join(near)}; 'collabteam' lists all")
