"""Checks every setting against its declaration.

A schema may have a method ``check_together(self) -> None`` that raises :class:`UserError`. It
checks what one declaration cannot say: which values of two settings are allowed together.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, get_args, get_origin

from collabteam.errors import UserError, plain
from collabteam.registry import Registry
from collabteam.settings.fields import Setting, groups, rule_of, settings_of
from collabteam.settings.names import home_path

T = TypeVar("T")


def check(config: Any) -> None:
    """Raise on the first setting that cannot work.

    Args:
        config: An instance of a schema.

    Raises:
        UserError: Names the setting, the value and what was expected.
    """
    _check(config, "")


def expand_home(config: Any) -> None:
    """Put the home folder in place of ``~`` in every path of the settings.

    Args:
        config: An instance of a schema; it is changed.

    Raises:
        UserError: The user has no home folder.
    """
    for declared in dataclasses.fields(config):
        value = getattr(config, declared.name)
        if dataclasses.is_dataclass(value):
            expand_home(value)
        elif rule_of(declared).is_path and isinstance(value, str):
            setattr(config, declared.name, home_path(value))
        elif rule_of(declared).is_path and isinstance(value, list):
            setattr(config, declared.name, [home_path(one) for one in value])


def check_value(setting: Setting, value: Any) -> None:
    """Raise unless a setting may have this value.

    Raises:
        UserError: Names the setting, the value and what was expected.
    """
    if value is None and setting.optional:
        return
    rule, kind = setting.rule, setting.kind
    if setting.is_implementation:
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            raise UserError(f"{setting.typed}={shown(value)}: expected a name, and its settings")
        assert rule.registry is not None
        rule.registry.check(value["name"], setting.typed)
        return
    if get_origin(kind) is list:
        if not isinstance(value, list | tuple):
            raise UserError(f"{setting.typed}={shown(value)}: expected a list, as in [a,b]")
        (element,) = get_args(kind)
        for one in value:
            _check_one(setting, element, one, value)
        return
    _check_one(setting, kind, value, value)


def build(schema: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Make an instance of a schema from names and values, and check it.

    Args:
        schema: The dataclass.
        values: By name; a group is a nested mapping. An absent setting takes its default.
        prefix: Prefix of names in messages, such as ``learner.``.

    Raises:
        UserError: A name is not known, or a value is not allowed.
    """
    return _build(schema, values, prefix, settings_of(schema), "")


def resolve_group(registry: Registry[Any], values: Mapping[str, Any], name: str) -> Any:
    """Build the settings of the implementation that a group of settings names.

    The implementation's class declares them in its attribute ``Settings``, a dataclass whose fields
    use :func:`collabteam.settings.fields.setting`.

    Args:
        registry: The implementations.
        values: The group: ``name``, and the settings that differ from the defaults.
        name: The group's name, such as ``learner``.

    Returns:
        An instance of the implementation's ``Settings``, checked.

    Raises:
        UserError: No such implementation exists, it has no such setting, or a value is not
            allowed.
    """
    chosen = values.get("name")
    if not isinstance(chosen, str):
        raise UserError(
            f"{name}={shown(values)}: expected a name, such as {name}={registry.names()[0]}"
        )
    registry.check(chosen, name)
    schema: type[Any] = registry.load(chosen).Settings
    return build(schema, {key: value for key, value in values.items() if key != "name"}, f"{name}.")


def nearest(name: str, known: Collection[str], most: int = 3) -> list[str]:
    """Find the known names most similar to a name, nearest first; empty if none is similar.

    The last part of a dotted name also counts: ``epochs`` is similar to ``optim.epochs``.
    """
    last = name.rpartition(".")[2]
    same = [one for one in known if one.rpartition(".")[2] == last]
    close = difflib.get_close_matches(name, known, n=most, cutoff=0.6)
    by_last = {one.rpartition(".")[2]: one for one in known}
    close += [by_last[one] for one in difflib.get_close_matches(last, by_last, n=most, cutoff=0.7)]
    return list(dict.fromkeys([*same, *close]))[:most]


def unknown_setting(name: str, known: Collection[str], prefix: str = "") -> UserError:
    """Make the error for an unknown setting; it lists the nearest names.

    Args:
        name: The name as typed, without the prefix.
        known: The existing settings.
        prefix: Prefix of their names.
    """
    near = nearest(name, known) or list(known)[:6]
    listed = ", ".join(f"{prefix}{one}" for one in near)
    return UserError(f"no such setting: {prefix}{name}; nearest: {listed or 'it has none'}")


def shown(value: Any) -> str:
    """A value as it is typed on the command line; of a long one the middle is left out."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return plain(str(value), 200)


def expected(setting: Setting) -> str:
    """Describe the values that a setting may have: ``0 to 1``, ``one of person, oracle``."""
    rule, kind = setting.rule, setting.kind
    if get_origin(kind) is list:
        (kind,) = get_args(kind)
    if rule.choices is not None:
        own = ", or package.module:Class of your own" if rule.registry else ""
        return f"one of {', '.join(name or 'nothing' for name in rule.names())}{own}"
    if rule.expected:
        return rule.expected
    within = _range(setting)
    if kind is int:
        return f"a whole number{within and f', {within}'}"
    if kind is float:
        return f"a number{within and f', {within}'}"
    return {bool: "true or false", str: "text"}.get(kind, "another value")


def _range(setting: Setting) -> str:
    rule = setting.rule
    if rule.ge is not None and rule.le is not None:
        return f"{_plain_number(rule.ge)} to {_plain_number(rule.le)}"
    parts = [
        f"{word} {_plain_number(limit)}" if before else f"{_plain_number(limit)} {word}"
        for limit, word, before in (
            (rule.ge, "or more", False),
            (rule.gt, "more than", True),
            (rule.le, "or less", False),
            (rule.lt, "less than", True),
        )
        if limit is not None
    ]
    return " and ".join(parts)


def _plain_number(limit: float) -> str:
    return f"{limit:.0f}" if float(limit).is_integer() else f"{limit:g}"


def _check(config: Any, prefix: str) -> None:
    own = groups(type(config))[0].settings
    for one in own:
        check_value(dataclasses.replace(one, name=prefix + one.name), getattr(config, one.name))
    for part in dataclasses.fields(config):
        inner = getattr(config, part.name)
        if dataclasses.is_dataclass(inner):
            _check(inner, f"{prefix}{part.name}.")
    if (together := getattr(config, "check_together", None)) is not None:
        together()


def _check_one(setting: Setting, kind: Any, value: Any, whole: Any) -> None:
    rule = setting.rule
    right = {
        bool: isinstance(value, bool),
        int: isinstance(value, int) and not isinstance(value, bool),
        float: isinstance(value, int | float) and not isinstance(value, bool),
        str: isinstance(value, str),
    }.get(kind, True)
    if right and kind in (int, float):
        if not _is_storable(value):
            raise UserError(f"{setting.typed}={shown(whole)}: expected a number below 2^63")
        right = (
            math.isfinite(value)
            and (rule.ge is None or value >= rule.ge)
            and (rule.gt is None or value > rule.gt)
            and (rule.le is None or value <= rule.le)
            and (rule.lt is None or value < rule.lt)
        )
        if not right and isinstance(value, int | float) and (within := _range(setting)):
            raise UserError(f"{setting.typed}={shown(whole)}: expected {within}")
    if right and kind is str and not rule.is_path:
        right = _is_unicode(value)
    if right and rule.registry is not None:
        rule.registry.check(value, setting.typed)
    elif right and rule.choices is not None:
        right = value in rule.names()
    if right and rule.pattern is not None:
        right = re.fullmatch(rule.pattern, value) is not None
    if not right:
        raise UserError(f"{setting.typed}={shown(whole)}: expected {expected(setting)}")


def _is_storable(value: float) -> bool:
    """Whether a number has room in 64 bits; what is not finite is found by the limits."""
    return not isinstance(value, int) or abs(value) < 2**63


def _is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; bytes of another encoding in an argument cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _build(
    schema: type[T], values: Mapping[str, Any], prefix: str, known: Collection[str], within: str
) -> T:
    fields = {one.name: one for one in dataclasses.fields(schema)}  # type: ignore[arg-type]
    parts = {part.name: part.schema for part in groups(schema)[1:] if "." not in part.name}
    kinds = {one.name: one.kind for one in groups(schema)[0].settings}
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise unknown_setting(within + name, known, prefix)
        if name in parts and isinstance(value, Mapping):
            value = _build(parts[name], value, prefix, known, f"{within}{name}.")
        elif kinds.get(name) is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        given[name] = value
    made = schema(**given)
    if not within:
        _check(made, prefix)
    return made
