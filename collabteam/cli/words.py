"""The words of a command line, checked before Hydra is imported.

A wrong name or value is reported at once, with the nearest valid ones. Words that only Hydra can
read (``hydra/launcher=...``, ``~name``, packages, functions, interpolations, lists) pass unchecked;
the settings that Hydra composes from them are checked later.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from collabteam.errors import UserError
from collabteam.settings.checks import check_value, expected, nearest, unknown_setting
from collabteam.settings.fields import Setting, groups, settings_of

SWEEP = frozenset({"-m", "--multirun"})
"""Flags that make a command line a sweep."""
_TELLS = frozenset({"-c", "--cfg", "-i", "--info", "--hydra-help", "--version", "-sc"})
_TELLS_LONG = ("--shell-completion",)
_PLAIN = re.compile(r"[^\s$'\"\\()\[\]{}][^$'\"\\()\[\]{}]*")
_TRUE = {"true", "yes", "on", "y", "1"}
_FALSE = {"false", "no", "off", "n", "0"}


def given(words: Iterable[str]) -> dict[str, str]:
    """The settings on a command line; the last word for a setting wins."""
    return dict(word.split("=", 1) for word in words if "=" in word)


def only_tells(words: Sequence[str]) -> bool:
    """Whether Hydra only shows the settings and runs nothing."""
    return bool(_TELLS & set(words)) or any(word.startswith(_TELLS_LONG) for word in words)


def is_pattern(value: str) -> bool:
    """Whether Hydra expands a value, such as ``glob(*)`` or ``choice(a,b)``."""
    return "(" in value or "$" in value


def read_words(
    schema: type, words: Sequence[str], options: Mapping[str, Collection[str]]
) -> list[str]:
    """Check a command line as far as possible without Hydra.

    Args:
        schema: The settings of the command.
        words: As typed.
        options: The groups that take the name of one file, such as ``logger``, and their files.

    Returns:
        The words for Hydra.

    Raises:
        UserError: A name is not known, or a value is not allowed.
    """
    reader = _Reader(schema, options, bool(SWEEP & set(words)))
    kept = []
    before = ""
    for word in words:
        is_argument = before.startswith("-") and before not in SWEEP
        kept.append(word if word.startswith("-") or is_argument else reader.read(word))
        before = word
    return kept


def check_option(name: str, value: str, known: Collection[str], remedy: str = "") -> None:
    """Raise unless a group has a file of this name.

    Args:
        name: The group.
        value: The value as typed.
        known: The existing names.
        remedy: Advice for a user who meant none of them.

    Raises:
        UserError: No file has this name; lists the nearest names.
    """
    if value in known:
        return
    near = nearest(value, known)
    listed = ", ".join([*near, *(one for one in known if one not in near)][:8])
    more = ", ..." if len(known) > 8 else ""
    raise UserError(f"{name}={value}: expected one of {listed}{more}{remedy}")


class _Reader:
    def __init__(self, schema: type, options: Mapping[str, Collection[str]], sweeps: bool) -> None:
        self.settings = {one.typed: one for one in settings_of(schema).values()}
        self.implementations = [n for n, one in self.settings.items() if one.is_implementation]
        self.groups = {part.name: part for part in groups(schema)[1:]}
        self.options, self.sweeps = options, sweeps

    def read(self, word: str) -> str:
        """Check a word and return it in the form for Hydra."""
        if word.startswith("~"):
            return word
        name, equals, value = word.partition("=")
        name = name.lstrip("+")
        if name.startswith(("hydra.", "hydra/")) or "@" in name:
            return word
        if not equals:
            near = nearest(name, [*self.settings, *self.options])
            raise UserError(f"{word}: expected name=value{near and f', such as {near[0]}=...'}")
        setting = self.settings.get(name)
        if setting is not None and setting.is_implementation:
            return self._implementation(setting, word, value)
        if name in self.options:
            if name != "camera":  # the caller, which knows the root, checks cameras
                for one in self._values(name, value):
                    check_option(name, one, self.options[name])
            return word
        if setting is not None:
            for one in self._values(name, value):
                _check_text(setting, one)
            return word.replace(name, setting.name, 1)
        if any(name.startswith(f"{owner}.") for owner in self.implementations):
            # Hydra does not know the settings of an implementation: add them.
            return f"++{word.lstrip('+')}"
        if name in self.groups:
            if value.startswith(("{", "$")):
                return word
            inside = ", ".join(one.typed for one in self.groups[name].settings[:3])
            raise UserError(f"{word}: {name} is a group; set one of its settings: {inside}, ...")
        raise unknown_setting(name, [*self.settings, *self.options])

    def _implementation(self, setting: Setting, word: str, value: str) -> str:
        """The word for Hydra that names an implementation: a file of its group, or the name."""
        assert setting.rule.registry is not None
        values = self._values(setting.name, value)
        for one in values:
            setting.rule.registry.check(one, setting.name)
        if not values or set(values) <= set(self.options.get(setting.name, ())):
            return word
        return f"{setting.name}.name={value}"

    def _values(self, name: str, value: str) -> list[str]:
        """The values that a word gives; empty if only Hydra can read it."""
        if value and not _PLAIN.fullmatch(value):
            return []
        if "," in value and not self.sweeps:
            raise UserError(
                f"{name}={value}: a list of values is a sweep and needs -m; one value with commas "
                f"needs brackets or quotes of its own, as in {name}=[a,b]"
            )
        return value.split(",")


def _check_text(setting: Setting, text: str) -> None:
    """Raise unless a text without brackets and quotes is a valid value of a setting."""
    kind = setting.kind
    if text.lower() == "null" and (setting.optional or kind is str):
        return
    value: Any = text
    if kind is bool:
        value = {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}.get(text.lower())
    elif kind is int:
        value = int(text) if re.fullmatch(r"[+-]?\d[\d_]*", text) else None
    elif kind is float:
        try:
            value = float(text)
        except ValueError:
            value = None
    elif kind is not str:
        value = None
    if value is None:
        wanted = "a list, as in [a,b]" if kind not in (bool, int, float) else expected(setting)
        raise UserError(f"{setting.typed}={text}: expected {wanted}")
    check_value(setting, value)
