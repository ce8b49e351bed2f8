"""``--help`` and ``docs/settings.md``, from the declarations of the settings."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args, get_origin

from collabteam.environment import HONOURED
from collabteam.settings.checks import expected, shown
from collabteam.settings.fields import AFFECTS, Group, Setting, groups, settings_of

if TYPE_CHECKING:
    from collabteam.cli.command import Command

_WIDTH = 100
_COLUMN = 30
_LONGEST_CHOICES = 150


def help_text(command: Command, options: Mapping[str, Collection[str]]) -> str:
    """Write the text of ``--help``.

    Args:
        command: The command.
        options: The groups of which a word names one file, and their files.
    """
    lines = [textwrap.fill(command.about, _WIDTH, break_on_hyphens=False), "", *_usage(command), ""]
    parts = [part for part in _groups(command) if part.name != "camera"]
    lines += _entry("camera=NAME", command.camera_help)
    if command.experiment:
        recipes = ", ".join(options["experiment"])
        lines += _entry(f"experiment={command.experiment}", f"recipe: {recipes}")
    own = {one.name: one for one in parts[0].settings if one.name != "cameras"}
    root = own.pop("root", None)
    for one in [*own.values(), *([root] if root else [])]:
        lines += _entry(_assignment(one), _meaning(one))
    if command.registers:
        classes = settings_of(command.schema)["camera.classes"]
        lines += _entry(_assignment(classes), _meaning(classes))
    for part in parts[1:]:
        lines += ["", f"{_title(part, options)}:"]
        for one in part.settings:
            lines += _entry(_assignment(one), _meaning(one))
    lines += ["", *(textwrap.fill(text, _WIDTH) for text in command.notes)]
    lines.append("Every setting with its range and meaning: docs/settings.md")
    if command.then:
        lines.append(f"Then: {command.then}")
    return "\n".join(lines)


def reference(commands: Collection[Command], options: Mapping[str, Collection[str]]) -> str:
    """Write the text of ``docs/settings.md`` in Markdown.

    Args:
        commands: All commands.
        options: The groups of which a word names one file, and their files.
    """
    shared = _shared(commands)
    return "\n".join([*_pages(commands, shared, options), *_environment()]).rstrip() + "\n"


def _environment() -> list[str]:
    """The section on variables of the environment."""
    rows = [
        f"| {', '.join(f'`{name}`' for name in names.split(', '))} | {meaning} |"
        for names, meaning in sorted(HONOURED.items())
    ]
    return [
        "## Variables of the environment",
        "",
        "Results depend on settings alone. Of the variables that the libraries read, these count;",
        "every command takes the others out of its process, and names those of W&B and of",
        "Lightning's `Trainer` that it ignores.",
        "",
        "| variable | meaning |",
        "|---|---|",
        *rows,
    ]


def _groups(command: Command) -> list[Group]:
    """The groups of a command, without footage: a camera can describe it, only ingest reads it."""
    unread = () if command.name == "ingest" else ("camera.footage",)
    return [part for part in groups(command.schema) if part.name not in unread]


# -- help ----------------------------------------------------------------------------------------


def _usage(command: Command) -> list[str]:
    rows = [
        (f"  python -m collabteam.{command.name} {words}", note) for words, note in command.usage
    ]
    width = max((len(words) for words, note in rows if note), default=0) + 2
    return [f"{words:{width}}{note}".rstrip() for words, note in rows]


def _entry(assignment: str, text: str) -> list[str]:
    """One setting: its name and default on the left, its meaning wrapped on the right."""
    left = f"  {assignment}"
    wrapped = textwrap.wrap(text, _WIDTH - _COLUMN, break_on_hyphens=False)
    if len(left) > _COLUMN - 2:
        return [left, *(f"{'':{_COLUMN}}{line}" for line in wrapped)]
    return [f"{left if number == 0 else '':{_COLUMN}}{line}" for number, line in enumerate(wrapped)]


def _assignment(one: Setting) -> str:
    return f"{one.typed}={one.rule.metavar or _default(one)}"


def _default(one: Setting) -> str:
    if one.is_implementation:
        return str(one.default["name"])
    if isinstance(one.default, list):
        return f"[{','.join(map(str, one.default))}]"
    return f"{one.default:g}" if isinstance(one.default, float) else shown(one.default)


def _meaning(one: Setting) -> str:
    names = [name for name in one.rule.names() if name]
    if not names:
        return one.rule.help
    if isinstance(one.rule.choices, Mapping):
        told = "; ".join(f"{name}: {text}" for name, text in one.rule.choices.items())
        if len(told) <= _LONGEST_CHOICES:
            return f"{one.rule.help}; {told}"
    return f"{one.rule.help}: {', '.join(names)}"


def _title(part: Group, options: Mapping[str, Collection[str]]) -> str:
    title = part.rule.help[0].upper() + part.rule.help[1:]
    names = ", ".join(f"{part.name}={name}" for name in options.get(part.name, ()))
    return f"{title} ({names})" if names else title


# -- reference -----------------------------------------------------------------------------------


def _shared(commands: Collection[Command]) -> dict[type, Group]:
    """The groups that more than one command takes."""
    seen: dict[type, Group] = {}
    shared: dict[type, Group] = {}
    for command in commands:
        for part in groups(command.schema)[1:]:
            if part.schema in seen:
                shared[part.schema] = part
            seen[part.schema] = part
    return shared


def _pages(
    commands: Collection[Command],
    shared: Mapping[type, Group],
    options: Mapping[str, Collection[str]],
) -> Iterator[str]:
    yield from (
        "# Settings",
        "",
        "This page is generated from the declarations in `collabteam/settings` and in the modules "
        "of the commands: `python -m collabteam.cli.reference` writes it.",
        "",
        "On the command line every setting is a word `name=value`; in Python it is a field of the "
        "command's dataclass. The last column says what a setting changes:",
        "",
    )
    yield from (f"- *{name}*: {text}" for name, text in AFFECTS.items())
    yield ""
    for command in sorted(commands, key=lambda one: one.name):
        yield from (f"## {command.name}", "", command.about, "", "```")
        yield from (line.strip() for line in _usage(command))
        yield from ("```", "")
        for part in _groups(command):
            if part.name and part.schema not in shared:
                yield from (f"### {command.name}: {part.name}", "", _sentence(part), "")
            if part.schema not in shared:
                yield from _table(part.settings)
        for one in settings_of(command.schema).values():
            if one.is_implementation:
                yield from _implementations(command, one)
        links = [
            f"[{part.name}](#group-{part.name.replace('.', '')})"
            for part in _groups(command)[1:]
            if part.schema in shared
        ]
        if command.experiment:
            names = ", ".join(f"`experiment={name}`" for name in options["experiment"])
            yield from (f"Recipes, which set many of these: {names}.", "")
        if links:
            yield from (f"And the groups {', '.join(links)}.", "")
    for part in shared.values():
        yield from (f"## Group {part.name}", "", _sentence(part), "")
        if whole := options.get(part.name):
            listed = ", ".join(f"`{part.name}={name}`" for name in whole)
            yield from (f"As a whole: {listed}.", "")
        yield from _table(part.settings)


def _implementations(command: Command, one: Setting) -> Iterator[str]:
    """The settings of every implementation that a setting can name."""
    assert one.rule.registry is not None
    for name in one.rule.names():
        own = groups(one.rule.registry.load(name).Settings)[0].settings
        if own:
            yield from (f"### {command.name}: {one.typed}={name}", "")
            yield from _table([replace(each, name=f"{one.name}.{each.name}") for each in own])


def _sentence(part: Group) -> str:
    return f"{part.rule.help[0].upper()}{part.rule.help[1:]}."


def _table(settings: Sequence[Setting]) -> Iterator[str]:
    if not settings:
        return
    yield "| setting | default | values | meaning | changes |"
    yield "|---|---|---|---|---|"
    for one in settings:
        default = _default(one)
        cells = (
            f"`{one.typed}`",
            f"`{default}`" if default else "",
            _values(one),
            _told(one),
            one.affects,
        )
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
    yield ""


def _values(one: Setting) -> str:
    if one.rule.choices is not None:
        return ", ".join(f"`{name}`" if name else "nothing" for name in one.rule.names())
    kind: Any = one.kind
    text = expected(one)
    if get_origin(kind) is list:
        (kind,) = get_args(kind)
        text = f"a list{'' if kind is Any else f'; of each: {text}'}"
    return f"{text}, or `null`" if one.optional else text


def _told(one: Setting) -> str:
    text = one.rule.help
    if isinstance(one.rule.choices, Mapping):
        told = "; ".join(f"`{name}`: {text}" for name, text in one.rule.choices.items() if text)
        text += f". {told}"
    if one.rule.registry is not None:
        text += f"; or `package.module:Class`, or an entry point `{one.rule.registry.group}`"
    return text
