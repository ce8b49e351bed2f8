"""The words of a command line, checked before Hydra is imported.

A wrong name or value is reported at once, with the nearest valid ones. A text that Hydra would take
only in quotes of its own, such as a path with blanks, brackets or accents, gets them here. Words
that only Hydra can read (``hydra/launcher=...``, ``~name``, packages, functions, interpolations,
lists) pass unchecked; the settings that Hydra composes from them are checked later.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from traceback import walk_tb
from typing import Any, get_args, get_origin

from collabteam.errors import UserError
from collabteam.settings.checks import check_value, expected, nearest, shown, unknown_setting
from collabteam.settings.fields import Setting, groups, settings_of
from collabteam.settings.names import home_path

SWEEP = frozenset({"-m", "--multirun"})
"""Flags that make a command line a sweep."""
CONFIG = frozenset({"-c", "--cfg"})
"""Flags that only show the settings."""
_WITH_VALUE: Mapping[str, Collection[str]] = {
    **dict.fromkeys(CONFIG, ("job", "hydra", "all")),
    **dict.fromkeys(
        ("-i", "--info"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
    ),
    **dict.fromkeys(("-cd", "--config-dir", "-p", "--package"), ()),
}
_TELLS = frozenset({*CONFIG, "-i", "--info", "--hydra-help", "--version", "-sc"})
_FLAGS = frozenset({*SWEEP, *_TELLS, *_WITH_VALUE, "-r", "--run", "--resolve"})
_LONG_FLAGS = ("--shell-completion",)

NOT_OURS = {
    "hydra.job.chdir": "paths are relative to the folder in which you start the command",
    "hydra.sweep.dir": "the files of a sweep lie in the folder .sweeps under the root",
    "hydra.sweep.subdir": "the files of a sweep lie in the folder .sweeps under the root",
    "hydra.mode": "-m makes a sweep",
}
"""Settings of Hydra that would not do what they say, and why."""
_CALL = re.compile(
    r"\s*(glob|choice|range|interval|shuffle|sort|tag|extend_list|str|int|float|bool|json_str)"
    r"\s*\(.*\)\s*",
    re.DOTALL,
)
_PART = re.compile(
    r"""\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|(?:[^,$'"\\()\[\]{}]|\\.)*)\s*(,|\Z)""", re.DOTALL
)
# What Hydra reads as the same text, and not as a number, a truth value or the like.
_BARE = re.compile(r"(?!(?:null|true|false|inf|nan)\Z)\.{0,2}[A-Za-z_/][\w./+@%*-]*", re.I | re.A)
_READERS = ("hydra", "omegaconf", "antlr4")
_OTHERS = ("collabteam", "hydra_plugins")
_TRUE = {"true", "yes", "on", "y", "1"}
_FALSE = {"false", "no", "off", "n", "0"}


def given(words: Iterable[str]) -> dict[str, str]:
    """The settings on a command line as they were typed; the last word for a setting wins."""
    pairs = (word.split("=", 1) for word in words if "=" in word)
    return {name.lstrip("+"): value for name, value in pairs}


def texts(value: str) -> list[str]:
    """The texts that a value gives, separated by commas; none if only Hydra can tell them.

    Args:
        value: As typed; ``'a,b'`` in quotes of its own is one text.
    """
    found = []
    at = 0
    while True:
        match = _PART.match(value, at)
        if match is None:
            return []
        found.append(_unquoted(match[1].strip()))
        at = match.end()
        if not match[2]:
            return found


def roots(words: Iterable[str]) -> list[str]:
    """The roots on a command line, with ``~`` as the home folder; none if only Hydra can tell.

    Raises:
        UserError: There is no such home folder.
    """
    return [home_path(root) for root in texts(given(words).get("root", "outputs"))]


def quoted(text: str) -> str:
    """A text in quotes, so that Hydra reads it as it is."""
    whole = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)
    whole = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + (r"\'" if found[2] else ""), whole)
    return f"'{whole}'"


def only_tells(words: Sequence[str]) -> bool:
    """Whether Hydra only shows the settings and runs nothing."""
    return bool(_TELLS & set(words)) or any(word.startswith(_LONG_FLAGS) for word in words)


def is_pattern(value: str) -> bool:
    """Whether Hydra expands a value, such as ``glob(*)`` or ``choice(a,b)``."""
    return "${" in value or _CALL.fullmatch(value) is not None


def from_hydra(error: BaseException) -> bool:
    """Whether Hydra cannot read the words, as opposed to a launcher or the work that failed."""
    # OmegaConf lets exceptions of other kinds through as well, such as RecursionError.
    places = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    parts = [name.split(".")[0] for name in (*places, type(error).__module__)]
    last = next((part for part in reversed(parts) if part in (*_READERS, *_OTHERS)), "")
    return last in _READERS


def quotes_hint(name: str) -> str:
    """Advice for a value that Hydra cannot read.

    Args:
        name: The setting.
    """
    return (
        f"a value with commas, brackets, quotes or the like needs quotes of its own, "
        f"{name}=\"'value'\", and in a list each of them, {name}=\"['one','other']\""
    )


def read_words(
    schema: type,
    words: Sequence[str],
    options: Mapping[str, Collection[str]],
    several: bool = False,
) -> list[str]:
    """Check a command line as far as possible without Hydra.

    Args:
        schema: The settings of the command.
        words: As typed.
        options: The groups that take the name of one file, such as ``logger``, and their files.
        several: Whether one run is about several cameras.

    Returns:
        The words for Hydra.

    Raises:
        UserError: A name is not known, or a value is not allowed.
    """
    words = _flags_apart(words)
    reader = _Reader(schema, options, bool(SWEEP & set(words)), several)
    kept = []
    before = ""
    for word in words:
        kept.append(word if word.startswith("-") or before in _WITH_VALUE else reader.read(word))
        before = word
    return kept


def plain_settings(schema: type, words: Iterable[str]) -> dict[str, Any] | None:
    """The settings on a command line by dotted name; None if only Hydra can tell all of them.

    Args:
        schema: The settings of the command.
        words: From :func:`read_words`.
    """
    settings = settings_of(schema)
    values: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        found = texts(value)
        if not equals or word.startswith(("-", "~", "+")) or len(found) != 1:
            return None
        if name == "camera":
            values["camera.name"] = found[0]
        elif (setting := settings.get(name)) is not None and not setting.is_implementation:
            if get_origin(setting.kind) is list or found[0].lower() == "null":
                return None
            values[name] = _check_text(setting, found[0])
    return values


def _flags_apart(words: Sequence[str]) -> list[str]:
    """Write ``--cfg=job`` as two words, and check the flags.

    Raises:
        UserError: A flag is not known, or its value is missing.
    """
    apart: list[str] = []
    for word in words:
        flag, equals, value = word.partition("=")
        apart += [flag, value] if equals and flag in _WITH_VALUE else [word]
    for word, after in zip(apart, [*apart[1:], ""], strict=True):
        if not word.startswith("-"):
            continue
        if word not in _FLAGS and not word.startswith(_LONG_FLAGS):
            near = nearest(word, ["--help", *sorted(_FLAGS)])
            raise UserError(
                f"{word}: no such flag; {f'nearest: {near[0]}; ' if near else ''}settings are "
                "words name=value, --help lists them"
            )
        choices = _WITH_VALUE.get(word)
        if choices is not None and (not after or (choices and after not in choices)):
            raise UserError(
                f"{word} {after}: expected {word} {'|'.join(choices) or 'NAME'}".replace("  ", " ")
            )
    return apart


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
    raise UserError(f"{name}={shown(value)}: expected one of {listed}{more}{remedy}")


class _Reader:
    def __init__(
        self, schema: type, options: Mapping[str, Collection[str]], sweeps: bool, several: bool
    ) -> None:
        self.settings = {one.typed: one for one in settings_of(schema).values()}
        self.implementations = [n for n, one in self.settings.items() if one.is_implementation]
        self.groups = {part.name: part for part in groups(schema)[1:]}
        self.options, self.sweeps, self.several = options, sweeps, several

    def read(self, word: str) -> str:
        """Check a word and return it in the form for Hydra."""
        if word.startswith("~"):
            return word
        name, equals, value = word.partition("=")
        plus = "+" if name.startswith("+") and not name.startswith("++") else ""
        name = name.lstrip("+")
        if name in NOT_OURS and not (name == "hydra.job.chdir" and value.lower() in _FALSE):
            raise UserError(f"{shown(word)}: {NOT_OURS[name]}: leave it out")
        if name == "hydra/launcher" and not self.sweeps and value != "basic":
            raise UserError(
                f"{shown(word)}: a launcher runs the jobs of a sweep: add -m, or leave it out"
            )
        if name.startswith(("hydra.", "hydra/")) or "@" in name:
            return word
        if not equals:
            near = nearest(name, [*self.settings, *self.options])
            raise UserError(
                f"{shown(word)}: expected name=value{near and f', such as {near[0]}=...'}"
            )
        setting = self.settings.get(name)
        if setting is not None and setting.is_implementation:
            return self._implementation(setting, word, value)
        if name == "camera" and name in self.options:
            return f"{plus}camera={self._cameras(value)}"
        if name in self.options:
            for one in self._values(name, value) or ([] if is_pattern(value) else [value]):
                check_option(name, one, self.options[name])
            return word
        if setting is not None:
            if setting.kind is str:
                return f"{plus}{setting.name}={self._text(setting, value)}"
            values = self._values(name, value)
            if get_origin(setting.kind) is list and values and not is_pattern(value):
                return f"{plus}{setting.name}={self._lists(setting, values)}"
            for one in values:
                _check_text(setting, one)
            return word.replace(name, setting.name, 1)
        if any(name.startswith(f"{owner}.") for owner in self.implementations):
            # Hydra does not know the settings of an implementation: add them.
            return f"++{word.lstrip('+')}"
        if name in self.groups:
            if value.startswith(("{", "$")):
                return word
            inside = ", ".join(one.typed for one in self.groups[name].settings[:3])
            raise UserError(
                f"{shown(word)}: {name} is a group; set one of its settings: {inside}, ..."
            )
        raise unknown_setting(name, [*self.settings, *self.options])

    def _cameras(self, value: str) -> str:
        """The cameras for Hydra; the caller, which knows the root, checks their names."""
        if is_pattern(value) or not value:
            return value
        names = texts(value)
        if not names:
            inside = texts(value.strip().removeprefix("[").removesuffix("]"))
            several = ",".join(inside) if value.strip().startswith("[") else ""
            hint = f"several are camera={several} with -m" if several else "such as camera=S10-08"
            raise UserError(f"camera={shown(value)}: expected the name of a camera; {hint}")
        _check_none_empty("camera", value, names)
        if len(names) > 1 and not self.sweeps and not self.several:
            raise UserError(f"camera={shown(value)}: several cameras are a sweep: add -m")
        return ",".join(names)

    def _text(self, setting: Setting, value: str) -> str:
        """The value of a text for Hydra, in quotes where it needs them."""
        if is_pattern(value):
            return value
        found = self._values(setting.typed, value)
        if not found and "," in value:
            raise UserError(f"{setting.typed}={shown(value)}: {quotes_hint(setting.typed)}")
        for one in found or [value]:
            _check_text(setting, one)
        if found == [""]:
            return value
        return ",".join(
            one if _BARE.fullmatch(one) or one.lower() == "null" else quoted(one)
            for one in found or [value]
        )

    def _lists(self, setting: Setting, values: Sequence[str]) -> str:
        """Lists of one element for Hydra, from elements that were typed without brackets."""
        (kind,) = get_args(setting.kind)
        for one in values:
            _check_text(replace(setting, kind=kind), one)
        return ",".join(f"[{quoted(one) if kind is str else one}]" for one in values)

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
        found = texts(value)
        if len(found) < 2:
            return found
        if not self.sweeps:
            setting = self.settings.get(name)
            whole = f"{name}=[a,b]" if setting is None or setting.kind is not str else ""
            one = (
                f"a list has brackets, as in {whole}"
                if whole
                else f"one text with commas needs quotes of its own, as in {name}=\"'a,b'\""
            )
            raise UserError(
                f"{name}={shown(value)}: a list of values is a sweep and needs -m; {one}"
            )
        _check_none_empty(name, value, found)
        return found


def _check_none_empty(name: str, value: str, found: Sequence[str]) -> None:
    if len(found) > 1 and "" in found:
        raise UserError(f"{name}={shown(value)}: expected a value on each side of every comma")


def _unquoted(part: str) -> str:
    """The text of a value with or without quotes of its own."""
    if part[:1] in ("'", '"'):
        quote = part[0]
        return re.sub(
            rf"(\\+)({quote}|\Z)", lambda found: found[1][: len(found[1]) // 2] + found[2],
            part[1:-1],
        )  # fmt: skip
    return re.sub(r"\\([\\()\[\]{}:=, \t])", r"\1", part)


def _check_text(setting: Setting, text: str) -> Any:
    """Return the value that a text gives a setting; raise unless it is valid."""
    kind = setting.kind
    if text.lower() == "null" and (setting.optional or kind is str):
        return None
    value: Any = text
    if kind is bool:
        value = {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}.get(text.lower())
    elif kind is int:
        # Python reads no longer numbers.
        value = int(text) if re.fullmatch(r"(?=.{1,99}\Z)[+-]?[0-9]+(_[0-9]+)*", text) else None
    elif kind is float:
        try:
            value = float(text)
        except ValueError:
            value = None
    elif kind is not str:
        value = None
    if value is None:
        wanted = "a list, as in [a,b]" if kind not in (bool, int, float) else expected(setting)
        raise UserError(f"{setting.typed}={shown(text)}: expected {wanted}")
    check_value(setting, value)
    return value
